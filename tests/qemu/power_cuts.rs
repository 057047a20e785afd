//! The power is cut at random moments of an update loop, and of the boot after it. `CUTS_QEMU=n` says how often (default 6).
//!
//! A moment is a time, or (more often, because it finds more) just before a flush of the disk.
//! After each cut the medium must hold a complete revision (`coxswain check` before anything else touches it), the device must settle
//! in it, and an update that was told to be done must still be: answered means durable.

use std::time::{Duration, Instant};

use acceptance::image::busybox;
use acceptance::manifest::Manifest;
use serde_json::{Value, json};

use crate::machine::Machine;
use crate::moments::Moments;
use crate::system::Revision;
use crate::{BOOT, bench};

fn cuts() -> u64 {
    let named = std::env::var("CUTS_QEMU").ok();
    named.and_then(|text| text.parse().ok()).unwrap_or(6)
}

/// When the power goes.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// After this time.
    Time(Duration),
    /// Just before a flush, after so many.
    Flushes(u64),
}

impl Moment {
    fn random(moments: &mut Moments, by_time: bool, millis: u64, flushes: u64) -> Self {
        if by_time {
            Self::Time(Duration::from_millis(moments.below(millis)))
        } else {
            Self::Flushes(moments.below(flushes))
        }
    }

    /// Arms the machine's fuse; says when to cut at the latest.
    fn arm(self, machine: &Machine) -> Instant {
        match self {
            Self::Time(time) => Instant::now() + time,
            Self::Flushes(flushes) => {
                machine.fuse().arm(flushes);
                Instant::now() + Duration::from_secs(40)
            }
        }
    }
}

/// What the host knows of the loop.
#[derive(Debug, Default)]
struct Loop {
    /// The last update that was asked for; its revision is `locals/u<n>` and its command `sleep <100000 + n>`.
    asked: u64,
    /// The last one that was told to be done.
    done: u64,
}

impl Loop {
    /// Updates until the moment has come; says how many were done. The machine cannot be asked for anything after that.
    fn until(&mut self, machine: &mut Machine, moment: Instant) -> u64 {
        let mut count = 0;
        while self.update(machine, moment) {
            count += 1;
        }
        count
    }

    /// One update; whether it was told to be done before the moment.
    fn update(&mut self, machine: &mut Machine, moment: Instant) -> bool {
        let left = moment.saturating_duration_since(Instant::now());
        self.asked += 1;
        let line = format!("update locals/u{0} {1}", self.asked, 100_000 + self.asked);
        let Some(output) = machine.ask(&line, left) else {
            return false;
        };
        assert_eq!(
            output.code,
            0,
            "{line}: {}\n{}",
            output.text,
            machine.console_end()
        );
        self.done = self.asked;
        true
    }

    /// The device settles in a complete revision that is not older than what it told to be done.
    fn assert_settled(&self, machine: &mut Machine) -> String {
        let first = machine.must("cat /run/check.code /run/check");
        assert!(
            first.starts_with("0\n"),
            "before coxswain started: {first}\n{}",
            machine.console_end()
        );
        let running = machine.wait("the device settles", BOOT, |machine| {
            let status: Value = serde_json::from_str(&machine.must("coxctl --json status")).ok()?;
            let containers = status["containers"].as_array()?;
            let good = containers.len() == 2 && containers.iter().all(|one| one["good"] == true);
            (status["trial"].is_null() && good && status["running"] == status["committed"])
                .then(|| status["running"].as_str().map(str::to_owned))?
        });
        let number: u64 = running
            .strip_prefix("locals/u")
            .and_then(|text| text.parse().ok())
            .expect("one of the loop");
        assert!(
            (self.done..=self.asked).contains(&number),
            "{running} runs, but locals/u{} was told to be done",
            self.done
        );
        let manifest = machine.must(&format!("coxctl steps show {running}"));
        let command = (100_000 + number).to_string();
        assert!(manifest.contains(&command), "{running} is {manifest}");
        let processes = machine.must("ps -o args");
        assert!(
            processes.contains(&format!("sleep {command}")),
            "{running} is to run sleep {command}: {processes}"
        );
        let check = machine.run("coxswain check --storage /storage");
        assert_eq!(check.code, 0, "{}", check.text);
        running
    }
}

#[test]
fn power_cuts_at_random_moments_of_an_update_loop() {
    let image = busybox(&[(
        "bin/service",
        "#!/bin/sh\nexec /bin/ready -- /bin/sleep \"$1\"\n",
    )]);
    let manifest = Manifest::with_groups(&[("app", "STARTED", 30)])
        .container("steady", &image, &["/bin/sleep", "5000"], json!({}))
        .container(
            "changing",
            &image,
            &["/bin/service", "@NUMBER@"],
            json!({"status_goal": "READY"}),
        )
        .key("changing/blob", json!("@BLOB@"));
    let revision = Revision {
        name: "loop",
        manifest: &manifest,
        images: &[&image],
    };
    let Some((bench, disk)) = bench(&[revision]) else {
        return;
    };
    let mut moments = Moments::new();
    let mut state = Loop::default();
    let mut lost = 0;
    let mut machine = bench.boot(disk);
    // One update that is done, so that every later boot has something to run.
    assert!(
        state.update(&mut machine, Instant::now() + BOOT),
        "the first update takes longer than {BOOT:?}\n{}",
        machine.console_end()
    );
    for cut in 1..=cuts() {
        let moment = Moment::random(&mut moments, cut % 3 == 1, 8_000, 100);
        let end = moment.arm(&machine);
        let updates = state.until(&mut machine, end);
        let (mut disk, gone) = machine.cut(&mut moments);
        lost += gone.lost;
        let mut early = String::new();
        // Every third time the power goes again while it boots.
        if cut % 3 == 0 {
            let mut booting = Machine::on(&bench.parts, disk);
            let moment = Moment::random(&mut moments, cut % 2 == 1, 15_000, 12);
            let end = moment.arm(&booting);
            booting.wait_for_cut(end);
            let (again, gone) = booting.cut(&mut moments);
            lost += gone.lost;
            disk = again;
            early = format!(", and at boot at {moment:?}, {gone:?}");
        }
        assert_eq!(disk.damage(), None, "the file system itself");
        let mut next = bench.boot(disk);
        let running = state.assert_settled(&mut next);
        println!(
            "cut {cut} at {moment:?}, {updates} updates done, {gone:?}{early}; \
             {running} of u{}..=u{} settled {:.1} s after power came back",
            state.done,
            state.asked,
            next.age().as_secs_f64()
        );
        state.done = running["locals/u".len()..].parse().expect("a number");
        machine = next;
    }
    machine.must("coxctl poweroff");
    let disk = machine.wait_for_end(Duration::from_secs(60));
    assert_eq!(disk.damage(), None);
    println!("{} power cuts took {lost} sectors, all settled", cuts());
}
