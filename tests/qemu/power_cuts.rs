//! The power is cut at random moments of an endless update loop: from the switch-on over the boot to the middle of updates, while
//! metadata, claims and objects come and go. `CUTS_QEMU=n` says how often (default 60). Two devices side by side.
//!
//! A moment is a time, or (more often, because it finds more) just before a flush of the disk. After each cut the medium is judged on
//! this machine: by e2fsck, by `coxswain check` and by [`inspect`], which knows all that the device had answered. Then it boots, and
//! must settle in a revision that is not older than what was told to be done; unless the power goes again before that.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::bench;
use crate::invariants::{Findings, When, inspect};
use crate::ledger::{Ledger, Place};
use crate::life::{
    DISK_BYTES, OPTIONS, boot_until, drive, factory_disk, is_told, ledger_of, parts_in, settle,
    template,
};
use crate::machine::{Machine, Parts};
use crate::system::Revision;
use acceptance::power::disk::Disk;
use acceptance::power::medium::{Medium, Replay, coxswain_check};
use acceptance::power::moments::Moments;

/// Lines are so far apart in time that none counts as late.
const STEP: Place = 1000;
/// A fuse that does not blow in this time is not waited for: the device is idle.
const LONGEST: Duration = Duration::from_secs(30);

fn cuts() -> u64 {
    let named = std::env::var("CUTS_QEMU").ok();
    named.and_then(|text| text.parse().ok()).unwrap_or(60)
}

/// When the power goes.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// So long after it was switched on.
    BootTime(Duration),
    /// Just before a flush while it boots, after so many.
    BootFlush(u64),
    /// So long after it has settled.
    Time(Duration),
    /// Just before a flush after it has settled, after so many.
    Flush(u64),
}

impl Moment {
    /// One of them; a boot takes so long.
    fn random(moments: &mut Moments, boot: Duration) -> Self {
        let millis = u64::try_from(boot.as_millis()).unwrap_or(10_000).max(1);
        match moments.below(12) {
            0 | 1 => Self::BootTime(Duration::from_millis(moments.below(millis))),
            2 | 3 => Self::BootFlush(moments.below(20)),
            4 | 5 => Self::Time(Duration::from_millis(moments.below(10_000))),
            _ => Self::Flush(moments.below(250)),
        }
    }

    fn at_boot(self) -> bool {
        matches!(self, Self::BootTime(_) | Self::BootFlush(_))
    }

    /// Arms the machine's fuse; says when to cut at the latest.
    fn arm(self, machine: &Machine) -> Instant {
        match self {
            Self::BootTime(time) | Self::Time(time) => Instant::now() + time,
            Self::BootFlush(flushes) | Self::Flush(flushes) => {
                machine.fuse().arm(flushes);
                Instant::now() + LONGEST
            }
        }
    }
}

/// A device, and what the host knows of it.
struct Device<'a> {
    parts: &'a Parts,
    ledger: Ledger,
    medium: Medium,
    place: Place,
    session: u64,
    boot: Duration,
    found: Findings,
    lost: usize,
}

impl Device<'_> {
    /// From switching on to the cut; what happened, in words.
    fn one(&mut self, disk: Disk, moments: &mut Moments) -> (Disk, String) {
        let moment = Moment::random(moments, self.boot);
        self.hear(&["@b".to_owned()]);
        let mut machine = Machine::on(self.parts, disk);
        let mut told = format!("{moment:?}");
        if moment.at_boot() {
            let end = moment.arm(&machine);
            machine.wait_for_cut(end);
        } else {
            boot_until(&mut machine);
            if self.ledger.must_boot(Place::MAX) || self.found.committed.is_some() {
                let running = self.settled(&mut machine);
                self.boot = machine.age();
                told = format!(
                    "{running} settled after {:.1} s, {told}",
                    machine.age().as_secs_f64()
                );
            }
            let end = moment.arm(&machine);
            self.session += 1;
            let first = self.ledger.newest() + 1;
            let mut lines = Vec::new();
            drive(&mut machine, self.session, (first, 0), end, |line| {
                lines.push(line.to_owned());
            });
            self.hear(&lines);
        }
        let mut lines = Vec::new();
        let (disk, cut) = machine.cut_and_hear(moments, |line| lines.push(line.to_owned()));
        self.hear(&lines);
        self.lost += cut.lost;
        (disk, format!("{told}, {cut:?}"))
    }

    /// Writes down what the device has told.
    fn hear(&mut self, lines: &[String]) {
        for line in lines.iter().filter(|line| is_told(line)) {
            self.place += STEP;
            self.ledger.told(self.place, line);
        }
    }

    /// The device settles in a complete revision that is not older than what it told to be done.
    fn settled(&mut self, machine: &mut Machine) -> String {
        let running = settle(machine);
        let due = self.ledger.committed(Place::MAX);
        let due = due.map_or(0, |(_, revision)| revision.number);
        let runs = self.ledger.revision(&running);
        let runs = runs.unwrap_or_else(|| panic!("{running} runs, which was never put"));
        assert!(runs.number >= due, "{running} runs, u{due} was done");
        let command = format!("sleep {}", 100_000 + runs.number);
        let processes = machine.must("ps -o args");
        assert!(
            processes.contains(&command),
            "{running} is to run {command}: {processes}"
        );
        self.hear(&[format!("@c {running}")]);
        running
    }

    /// The medium as it is after a cut.
    fn judge(&mut self, disk: &Disk, moments: &mut Moments, when: When) {
        let replay = [Replay::Kernel, Replay::E2fsck][usize::from(moments.below(2) == 0)];
        self.medium.load_file(disk.path());
        let looked = self.medium.judge(replay, |tree| {
            let found = inspect(tree, &self.ledger, Place::MAX, when);
            let due = self.ledger.must_boot(Place::MAX) || found.committed.is_some();
            (found, due.then(|| coxswain_check(tree)))
        });
        let (found, check) = looked.unwrap_or_else(|why| panic!("{why}")).found;
        assert_eq!(found.violations, [""; 0]);
        assert_eq!(found.after(&self.found), [""; 0]);
        if let Some(Err(why)) = check {
            panic!("{why}");
        }
        assert_eq!(self.ledger.contradictions, [""; 0]);
        self.found = found;
    }
}

#[test]
fn power_cuts_at_random_moments_of_an_update_loop() {
    acceptance::needs_containers!();
    let (manifest, image) = template();
    let images = [&image];
    let revision = Revision {
        name: "loop",
        manifest: &manifest,
        images: &images,
    };
    let Some((bench, _disk)) = bench(&[revision]) else {
        return;
    };
    let (wanted, begun) = (cuts(), AtomicU64::new(0));
    let seed = Moments::from_environment().below(1 << 31);
    let (from, begun) = (Instant::now(), &begun);
    let live = |number: u64| {
        let parts = parts_in(&bench.parts, &format!("device-{number}"), OPTIONS);
        let mut ledger = ledger_of((&manifest, &image));
        let mut disk = factory_disk(&parts, (&manifest, &image), &mut ledger);
        let mut moments = Moments::from_seed(seed + number);
        let mut device = Device {
            parts: &parts,
            ledger,
            medium: Medium::new(DISK_BYTES),
            place: 0,
            session: 0,
            boot: Duration::from_secs(10),
            found: Findings::default(),
            lost: 0,
        };
        loop {
            let cut = begun.fetch_add(1, Ordering::SeqCst) + 1;
            if cut > wanted {
                break;
            }
            let started = Instant::now();
            let (left, told) = device.one(disk, &mut moments);
            disk = left;
            device.judge(&disk, &mut moments, When::AtOnce);
            println!(
                "cut {cut} of device {number} after {:.1} s: {told}; marker {} boots {:?}, {} promises kept",
                started.elapsed().as_secs_f64(),
                device.found.sequence,
                device.found.committed,
                device.ledger.promises(),
            );
        }
        // The last cut is judged by a boot too.
        device.hear(&["@b".to_owned()]);
        let mut machine = Machine::on(&parts, disk);
        boot_until(&mut machine);
        if device.ledger.must_boot(Place::MAX) {
            device.settled(&mut machine);
        }
        machine.must("coxctl poweroff");
        let disk = machine.wait_for_end(Duration::from_secs(60));
        device.judge(&disk, &mut moments, When::Later);
        (device.lost, device.ledger.promises())
    };
    let results: Vec<(usize, usize)> = thread::scope(|scope| {
        let live = &live;
        let workers: Vec<_> = (0..2)
            .map(|number| scope.spawn(move || live(number)))
            .collect();
        let done = workers.into_iter().map(|worker| worker.join());
        done.map(|result| result.expect("a device of the two is in order"))
            .collect()
    });
    println!(
        "{wanted} power cuts in {:.0} s took {} sectors; of {} promises none was lost, all devices settled",
        from.elapsed().as_secs_f64(),
        results.iter().map(|(lost, _)| lost).sum::<usize>(),
        results.iter().map(|(_, promises)| promises).sum::<usize>(),
    );
}
