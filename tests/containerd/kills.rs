//! `kill -9` at random moments of an update loop: every run settles in a correct, complete revision.
//!
//! `CUTS=n` sets how many kills there are, over all devices of a test (default 20; tests/run asks for 100). `SEED=n` replays the
//! moments.

use std::time::Duration;

use acceptance::device::Device;
use acceptance::image::busybox;
use acceptance::manifest::Manifest;
use acceptance::needs_containers;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

/// xorshift64*: moments that a seed can replay.
struct Moments(u64);

impl Moments {
    fn of(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % limit
    }
}

fn cuts() -> u64 {
    std::env::var("CUTS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(20)
}

/// Devices at the same time: a settling device mostly waits.
const DEVICES: u64 = 2;

/// Runs `kill` on each device, for its share of the cuts, with moments of its own.
fn on_each_device(kill: impl Fn(u64, Moments) + Sync) -> u64 {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("SEED={seed}");
    let cuts = cuts();
    std::thread::scope(|scope| {
        for device in 0..DEVICES {
            let kill = &kill;
            let share = cuts * (device + 1) / DEVICES - cuts * device / DEVICES;
            scope.spawn(move || kill(share, Moments::of(seed.wrapping_add(device))));
        }
    });
    cuts
}

struct Loop {
    device: Device,
    manifests: [(&'static str, Manifest); 2],
    steady: u32,
}

fn update_loop() -> Loop {
    let device = Device::start_with(&[("commit-delay", "200ms"), ("tries", "100")]);
    let image = busybox(&[(
        "bin/service",
        "#!/bin/sh\nexec /bin/ready -- /bin/sleep \"$1\"\n",
    )]);
    let manifest = |seconds: &str| {
        Manifest::new()
            .container("steady", &image, &["/bin/sleep", "5000"], json!({}))
            .container(
                "changing",
                &image,
                &["/bin/service", seconds],
                json!({"status_goal": "READY"}),
            )
    };
    let manifests = [
        ("locals/a", manifest("6000")),
        ("locals/b", manifest("7000")),
    ];
    for (name, manifest) in &manifests {
        assert_eq!(device.update(name, manifest, &[&image]).0, "DONE");
    }
    let steady = device.container_pid("steady").expect("steady runs");
    Loop {
        device,
        manifests,
        steady,
    }
}

impl Loop {
    /// Asks for the revision that does not run; the answer does not matter, the device may be anywhere.
    fn start_next_update(&self) {
        let running = self.device.running();
        let next = if running.as_deref() == Some("locals/a") {
            "locals/b"
        } else {
            "locals/a"
        };
        drop(self.device.socket.post(
            "/commands",
            &json!({"op": "LOCAL_RUN", "payload": next, "again": true}).to_string(),
        ));
    }

    /// The device settles: a complete revision, all of its containers at their goals, steady never restarted.
    fn assert_settled(&self) {
        let device = &self.device;
        device.wait("the device settles", Duration::from_secs(60), || {
            let status = device.socket.get("/status").ok()?.json();
            let good = status["containers"]
                .as_array()?
                .iter()
                .all(|container| container["good"] == true);
            let both = status["containers"].as_array()?.len() == 2;
            (status["trial"].is_null() && good && both && status["running"] == status["committed"])
                .then_some(())
        });
        assert_eq!(
            device.container_pid("steady"),
            Some(self.steady),
            "steady was never touched"
        );
        let running = device.running().expect("something runs");
        let (_, manifest) = self
            .manifests
            .iter()
            .find(|(name, _)| *name == running)
            .expect("one of the two");
        assert_eq!(
            device
                .socket
                .get(&format!("/steps/{running}"))
                .expect("an answer")
                .text(),
            manifest.text()
        );
        let pid = device.container_pid("changing").expect("changing runs");
        let cmdline = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("it runs");
        let expected = if running == "locals/a" {
            "6000"
        } else {
            "7000"
        };
        assert!(cmdline.contains(expected), "{running} runs {cmdline:?}");
    }
}

#[test]
fn the_orchestrator_killed_at_random_moments_of_an_update_loop() {
    needs_containers!();
    let cuts = on_each_device(|cuts, mut moments| {
        let mut device_loop = update_loop();
        for cut in 0..cuts {
            device_loop.start_next_update();
            std::thread::sleep(Duration::from_millis(moments.below(1200)));
            device_loop.device.kill();
            std::thread::sleep(Duration::from_millis(moments.below(100)));
            device_loop.device.spawn();
            device_loop.device.wait_until_it_answers();
            // Every third time the next cut comes before the device has settled.
            if cut % 3 != 2 {
                device_loop.assert_settled();
            }
        }
        device_loop.assert_settled();
    });
    println!("{cuts} kills of coxswain, all settled");
}

#[test]
fn containerd_killed_at_random_moments_of_an_update_loop() {
    needs_containers!();
    let cuts = on_each_device(|cuts, mut moments| {
        let device_loop = update_loop();
        for _ in 0..cuts {
            device_loop.start_next_update();
            std::thread::sleep(Duration::from_millis(moments.below(1200)));
            let pid = device_loop
                .device
                .containerd_pid()
                .and_then(|pid| Pid::from_raw(pid as i32));
            if pid.is_none_or(|pid| kill_process(pid, Signal::KILL).is_err()) {
                println!("containerd was between two lives; this cut hit nothing");
            }
            device_loop.assert_settled();
        }
    });
    println!("{cuts} kills of containerd, all settled");
}
