//! The first process of a machine: phases of a start, then one device process that is looked after, then phases of an end.
//!
//! Two processes on purpose. This one has one thread, makes no decisions about revisions, and reaps every orphan of the machine, so it can
//! take no exit code from the device process, which waits for its own children. Whatever ends the device process unasked, ends the boot:
//! the machine starts again, and the marker has counted the try. A panic here is a panic of the kernel, which ends in the same.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use linux::children::{self, End};
use linux::signals::{Asked, Signals};
use linux::watchdog::Hardware;
use linux::{ending, terminal};

use crate::cli;
use crate::config::Config;
use crate::phases::{self, Subject, boot::BOOT, shutdown, shutdown::SHUTDOWN};

/// Where programs of the system are.
const PROGRAMS: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// A device process that ends sooner makes the machine wait, so that a broken system does not wear the disk out.
const STABLE: Duration = Duration::from_secs(20);
/// How long.
const PAUSE: Duration = Duration::from_secs(5);
/// Time beyond the setting stop-timeout: containerd's end and the process's own.
const STOP_MORE: Duration = Duration::from_secs(20);
/// How long a killed device process may take. The kernel keeps one whose disk does not answer, for ever if need be.
const KILL: Duration = Duration::from_secs(10);
/// The longest sleep without a reason to wake up.
const IDLE: Duration = Duration::from_secs(3600);
/// How often is looked whether a person has left the console.
const TURN: Duration = Duration::from_millis(200);
const CONSOLE_AGAIN: Duration = Duration::from_secs(1);

/// How the machine ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Last {
    Reboot,
    PowerOff,
}

/// The storage's device.
#[derive(Debug)]
pub(crate) struct Storage {
    pub(crate) device: std::path::PathBuf,
    pub(crate) read_only: bool,
}

/// What an init knows.
#[derive(Debug)]
pub(crate) struct Init {
    pub(crate) config: Config,
    pub(crate) cmdline: String,
    pub(crate) watchdog: Option<Hardware>,
    pub(crate) storage: Option<Storage>,
    pub(crate) last: Last,
    pub(crate) argument: Option<String>,
    pub(crate) is_safe: bool,
    is_up: bool,
    signals: Option<Signals>,
    tell: fn(&str),
    console: Option<u32>,
}

impl Subject for Init {
    fn config(&self) -> &Config {
        &self.config
    }

    fn kick(&mut self) {
        if let Some(watchdog) = &self.watchdog {
            watchdog.kick();
        }
    }
}

impl Init {
    /// Once /proc and /dev are there: the command line is read, lines go to the kernel's log, signals wait for us.
    pub(crate) fn listen(&mut self) {
        self.cmdline = cli::kernel_command_line();
        // The file of settings may lie in a system that is not there yet.
        self.config = Config::of_init(&self.cmdline).0;
        (self.tell)(self.config.text("log-level"));
        match Signals::take() {
            Ok(signals) => self.signals = Some(signals),
            Err(error) => {
                tracing::error!(%error, "signals cannot be taken: only the device can end the machine")
            }
        }
    }

    /// Whether something can be kept for the next boot.
    pub(crate) fn has_storage(&self) -> bool {
        self.is_up
            && self
                .storage
                .as_ref()
                .is_none_or(|storage| !storage.read_only)
    }

    fn next_signal(&self, limit: Duration) -> Option<Asked> {
        match &self.signals {
            Some(signals) => signals.next(limit),
            None => {
                std::thread::sleep(limit.min(TURN));
                Some(Asked::Child)
            }
        }
    }
}

/// Is the init of this machine: never returns. `tell` sends what is told to the kernel's log.
pub fn run(tell: fn(&str)) -> ! {
    let mut init = Init {
        config: Config::defaults(),
        cmdline: String::new(),
        watchdog: None,
        storage: None,
        last: Last::Reboot,
        argument: None,
        is_safe: false,
        is_up: false,
        signals: None,
        tell,
        console: None,
    };
    match phases::run(BOOT, &mut init) {
        Ok(()) => {
            init.is_up = true;
            init.last = look_after_device(&mut init);
        }
        Err(phase) => {
            tracing::error!("the machine cannot start: {phase} failed; it is started again");
            emergency(&mut init);
        }
    }
    tracing::info!("the machine ends: {:?}", init.last);
    // No phase of a shutdown ends the list.
    phases::run(SHUTDOWN, &mut init).ok();
    end(init)
}

fn end(mut init: Init) -> ! {
    let last = shutdown::last(&init);
    if last == ending::Last::PowerOff {
        // Some hardware counts on while the machine is off, and switches it on again. Otherwise it stays armed: a restart may hang too.
        if let Some(watchdog) = init.watchdog.take() {
            watchdog.disarm();
        }
    }
    init.kick();
    let error = ending::end(&last);
    tracing::error!("the kernel refuses {last:?}: {error}");
    for other in [ending::Last::Restart(None), ending::Last::PowerOff] {
        ending::end(&other);
    }
    // The end of the init is a panic of the kernel, which restarts.
    panic!("the kernel neither restarts nor switches off")
}

/// Starts the device process and waits for its end; tells how the machine shall end.
fn look_after_device(init: &mut Init) -> Last {
    let started = Instant::now();
    let device = match start_device(init) {
        Ok(device) => device.id(),
        Err(error) => {
            tracing::error!(%error, "the device process cannot be started");
            emergency(init);
            return Last::Reboot;
        }
    };
    let mut asked: Option<Last> = None;
    let mut stopping: Option<Stopping> = None;
    let mut console_at = (init.config.text("console-when") == "always").then(Instant::now);
    loop {
        if console_at.is_some_and(|at| at <= Instant::now()) {
            start_console(init);
            console_at = None;
        }
        let stop_by = stopping.map(Stopping::until);
        let wakes = [console_at, stop_by].into_iter().flatten().min();
        let limit = wakes.map_or(IDLE, |at| at.saturating_duration_since(Instant::now()));
        let signal = init.next_signal(limit);
        let wanted = match signal {
            Some(Asked::Reboot) => Some(Last::Reboot),
            Some(Asked::PowerOff) => Some(Last::PowerOff),
            Some(Asked::Child) | None => None,
        };
        if let Some(last) = wanted {
            tracing::info!("asked by a signal: {last:?}");
            if asked.replace(last).is_none() {
                stop(device, false);
                let time = init.config.duration("stop-timeout") + STOP_MORE;
                stopping = Some(Stopping::Asked(Instant::now() + time));
            }
        }
        match stopping.map(|stopping| stopping.next(Instant::now())) {
            Some(Next::Kill(killed)) => {
                tracing::error!("the device process did not end in time and is killed");
                stop(device, true);
                stopping = Some(killed);
            }
            Some(Next::Leave) => {
                tracing::error!(
                    "the device process cannot be killed: the kernel waits for a disk; the machine ends without it"
                );
                return asked.unwrap_or(Last::Reboot);
            }
            Some(Next::Wait) | None => {}
        }
        while let Some(reaped) = children::reap() {
            if reaped.pid == device {
                let last = judge(reaped.end, asked);
                if last.is_none() && started.elapsed() < STABLE {
                    pause(init, PAUSE);
                }
                return last.unwrap_or(Last::Reboot);
            }
            if Some(reaped.pid) == init.console {
                init.console = None;
                console_at = Some(Instant::now() + CONSOLE_AGAIN);
            }
        }
    }
}

/// A device process that was asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopping {
    /// It may take until then.
    Asked(Instant),
    /// It was killed, and the kernel may take until then.
    Killed(Instant),
}

#[derive(Debug, PartialEq, Eq)]
enum Next {
    Wait,
    Kill(Stopping),
    Leave,
}

impl Stopping {
    fn until(self) -> Instant {
        match self {
            Self::Asked(until) | Self::Killed(until) => until,
        }
    }

    fn next(self, now: Instant) -> Next {
        match self {
            Self::Asked(until) | Self::Killed(until) if now < until => Next::Wait,
            Self::Asked(_) => Next::Kill(Self::Killed(now + KILL)),
            Self::Killed(_) => Next::Leave,
        }
    }
}

/// How the machine shall end when the device process has; `None`: as after a power cut, by a new start.
fn judge(end: End, asked: Option<Last>) -> Option<Last> {
    let own = match end {
        End::Exit(cli::EXIT_POWER_OFF) => Some(Last::PowerOff),
        End::Exit(cli::EXIT_REBOOT) => Some(Last::Reboot),
        End::Exit(_) | End::Signal(_) => None,
    };
    let last = asked.or(own);
    if last.is_none() {
        tracing::error!(
            ?end,
            "the device process has ended, and nobody asked for it: the machine is started again"
        );
    }
    last
}

fn start_device(init: &Init) -> std::io::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("coxswain")
        .arg(cli::DEVICE)
        .env_clear()
        .env("PATH", PROGRAMS)
        .env("HOME", "/root")
        .env("TERM", "linux")
        .current_dir("/");
    let watchdog = init.watchdog.as_ref();
    if let Some(watchdog) = watchdog {
        command.arg(watchdog.descriptor().to_string());
        watchdog.share(true);
    }
    linux::signals::start_unblocked(&mut command);
    let started = command.spawn();
    if let Some(watchdog) = watchdog {
        watchdog.share(false);
    }
    started
}

/// SIGINT stops the containers too.
fn stop(device: u32, kill: bool) {
    let stopped = linux::process::Process::open(device).and_then(|process| {
        if kill {
            process.kill()
        } else {
            process.signal(linux::process::INT)
        }
    });
    if let Err(error) = stopped {
        tracing::warn!(%error, "cannot signal the device process");
    }
}

fn start_console(init: &mut Init) {
    let (place, program) = (
        init.config.path("console"),
        init.config.path("console-program"),
    );
    if place == Path::new("") {
        return;
    }
    match terminal::start(&place, &program) {
        Ok(child) => init.console = Some(child.id()),
        Err(error) => tracing::error!(
            "cannot start {} on {}: {error}",
            program.display(),
            place.display()
        ),
    }
}

/// The machine cannot run a device: a person may look at it where the settings allow it; then it is started again.
fn emergency(init: &mut Init) {
    start_console(init);
    let Some(console) = init.console else {
        pause(init, PAUSE);
        return;
    };
    tracing::error!(
        "an emergency console is open on {}; its end restarts the machine",
        init.config.text("console")
    );
    loop {
        init.kick();
        let ended = std::iter::from_fn(children::reap).any(|reaped| reaped.pid == console);
        match init.next_signal(TURN) {
            Some(Asked::Reboot) => return,
            Some(Asked::PowerOff) => {
                init.last = Last::PowerOff;
                return;
            }
            Some(Asked::Child) | None if ended => return,
            Some(Asked::Child) | None => {}
        }
    }
}

fn pause(init: &mut Init, time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        init.kick();
        std::thread::sleep(TURN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_cannot_be_killed_does_not_keep_the_machine() {
        let start = Instant::now();
        let asked = Stopping::Asked(start + PAUSE);
        assert_eq!(asked.next(start), Next::Wait);
        let Next::Kill(killed) = asked.next(start + PAUSE) else {
            panic!("its time is over");
        };
        assert_eq!(killed.next(start + PAUSE), Next::Wait);
        assert_eq!(killed.next(killed.until()), Next::Leave);
        assert!(killed.until() <= start + PAUSE + KILL);
    }

    #[test]
    fn the_end_of_the_device_is_judged() {
        for (end, asked, expected) in [
            (End::Exit(3), None, Some(Last::PowerOff)),
            (End::Exit(4), None, Some(Last::Reboot)),
            (End::Exit(0), Some(Last::PowerOff), Some(Last::PowerOff)),
            (End::Exit(4), Some(Last::PowerOff), Some(Last::PowerOff)),
            (End::Signal(9), Some(Last::Reboot), Some(Last::Reboot)),
            (End::Exit(0), None, None),
            (End::Exit(1), None, None),
            (End::Exit(101), None, None),
            (End::Signal(6), None, None),
        ] {
            assert_eq!(judge(end, asked), expected, "{end:?} {asked:?}");
        }
    }
}
