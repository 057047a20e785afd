//! The watchdog as the loop kicks it: only the loop's own thread, at its turns and after pieces of work that a disk has done for it, so that a
//! loop that is stuck is one that is not heard (decisions/0073).
//!
//! Under another init there is none. In the mode `startup` it is let go of once the device is up; in `always` never.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use device::ports::Watchdog;
use linux::watchdog::Hardware;

/// A kick so soon after another one is saved.
const KICK_AGAIN: Duration = Duration::from_millis(500);
/// For so long one turn of the loop may put the reset off by progress on the disk. Beyond it even a loop that moves is one that is lost: it
/// writes the same things again and again. A kernel of 100 MB on a card that takes 1 MB/s needs four minutes, written and compared.
const TURN_MAX: Duration = Duration::from_secs(600);

/// Kicked by the loop. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct LoopWatchdog(Option<Arc<Mutex<Armed>>>);

#[derive(Debug)]
struct Armed {
    hardware: Hardware,
    kicks: Kicks,
    until_up: bool,
    is_up: bool,
}

/// When to kick.
#[derive(Debug, Default)]
struct Kicks {
    kicked: Option<Instant>,
    turn: Option<Instant>,
}

impl Kicks {
    /// A turn of the loop begins; whether to kick.
    fn turn(&mut self, now: Instant) -> bool {
        self.turn = Some(now);
        self.is_due(now)
    }

    /// A piece of the turn's work is done; whether to kick.
    fn progress(&mut self, now: Instant) -> bool {
        let in_turn = self
            .turn
            .is_some_and(|turn| now.saturating_duration_since(turn) < TURN_MAX);
        in_turn && self.is_due(now)
    }

    fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self
            .kicked
            .is_none_or(|kicked| now.saturating_duration_since(kicked) >= KICK_AGAIN);
        if is_due {
            self.kicked = Some(now);
        }
        is_due
    }
}

impl LoopWatchdog {
    /// One that the init has armed; `until_up`: only until the device is up.
    pub(crate) fn over(hardware: Hardware, until_up: bool) -> Self {
        Self(Some(Arc::new(Mutex::new(Armed {
            hardware,
            kicks: Kicks::default(),
            until_up,
            is_up: false,
        }))))
    }

    /// How long the loop may sleep.
    pub(crate) fn sleep_max(&self) -> Option<Duration> {
        self.with(|armed| Some(armed.hardware.timeout() / 4))
    }

    /// From here on what a disk has done for this thread, which is the loop's or makes everything for it, counts as a part of its turn.
    pub(crate) fn follow_disk(&self) {
        let watchdog = self.clone();
        if watchdog.0.is_some() {
            linux::progress::follow(move || watchdog.kick_when(Kicks::progress));
        }
    }

    /// The device is up.
    pub(crate) fn device_is_up(&self) {
        self.with(|armed| {
            if armed.until_up && !std::mem::replace(&mut armed.is_up, true) && !armed.hardware.stop() {
                tracing::warn!(
                    "this watchdog cannot be stopped again: it stays armed, as with watchdog = always"
                );
                armed.until_up = false;
            }
            None::<()>
        });
    }

    fn kick_when(&self, is_due: impl FnOnce(&mut Kicks, Instant) -> bool) {
        self.with(|armed| {
            // A stopped one needs none.
            let is_over = armed.until_up && armed.is_up;
            if !is_over && is_due(&mut armed.kicks, Instant::now()) {
                armed.hardware.kick();
            }
            None::<()>
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut Armed) -> Option<T>) -> Option<T> {
        let armed = self.0.as_ref()?;
        act(&mut armed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Watchdog for LoopWatchdog {
    fn kick(&mut self) {
        self.kick_when(Kicks::turn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    use linux::disk::LinuxDisk;
    use store::disk::{Disk as _, WriteFile as _};

    /// The longest that a watchdog goes without a kick in a turn whose pieces take `piece` each and `total` together.
    fn longest_silence(piece: Duration, total: Duration) -> Duration {
        let start = Instant::now();
        let (mut kicks, mut last, mut longest) = (Kicks::default(), start, Duration::ZERO);
        assert!(kicks.turn(start), "each turn begins with a kick");
        let mut now = start;
        while now < start + total {
            now += piece;
            if kicks.progress(now) {
                longest = longest.max(now - last);
                last = now;
            }
        }
        longest.max(now - last)
    }

    #[test]
    fn a_long_turn_that_moves_is_heard_and_one_that_does_not_is_not() {
        let second = Duration::from_secs(1);
        // Four minutes of copying, in pieces of a second.
        assert!(longest_silence(second, second * 240) <= second * 2);
        // Quick pieces are not as many kicks.
        assert!(longest_silence(second / 1000, second * 10) <= second);
        // One piece that hangs.
        assert_eq!(longest_silence(second * 45, second * 45), second * 45);
        // Moving without an end: silence from the turn's longest time on.
        assert!(longest_silence(second, TURN_MAX + second * 90) >= second * 89);
    }

    #[test]
    fn progress_without_a_turn_is_nothing() {
        let now = Instant::now();
        let mut kicks = Kicks::default();
        assert!(!kicks.progress(now));
        assert!(kicks.turn(now));
        assert!(!kicks.progress(now + KICK_AGAIN / 2), "it is saved");
        assert!(kicks.progress(now + KICK_AGAIN));
        assert!(!kicks.progress(now + TURN_MAX));
        assert!(kicks.turn(now + TURN_MAX), "the next turn counts anew");
        assert!(kicks.progress(now + TURN_MAX + KICK_AGAIN));
    }

    /// Kicks of a device that is a file, which takes every write and knows no calls.
    fn kicks_of(work: impl FnOnce(&mut LoopWatchdog, &LinuxDisk)) -> u64 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("watchdog");
        std::fs::write(&path, "").unwrap();
        let hardware = Hardware::open(&path, Duration::from_secs(30)).unwrap();
        let opened = std::fs::metadata(&path).unwrap().len();
        let mut watchdog = LoopWatchdog::over(hardware, false);
        watchdog.follow_disk();
        let disk = LinuxDisk::open(folder.path()).unwrap();
        work(&mut watchdog, &disk);
        linux::progress::leave();
        std::fs::metadata(&path).unwrap().len() - opened
    }

    #[test]
    fn work_of_the_disk_is_heard_by_the_hardware() {
        let pause = KICK_AGAIN + Duration::from_millis(100);
        let write = |disk: &LinuxDisk| {
            let mut file = disk.create(Path::new("a")).unwrap();
            file.append(b"piece").unwrap();
        };
        let kicks = kicks_of(|watchdog, disk| {
            watchdog.kick();
            for _ in 0..2 {
                std::thread::sleep(pause);
                write(disk);
            }
        });
        assert_eq!(kicks, 3, "the turn, and two pieces of its work");
        let kicks = kicks_of(|watchdog, _| {
            watchdog.kick();
            std::thread::sleep(pause * 2);
        });
        assert_eq!(kicks, 1, "a turn that only takes its time");
    }
}
