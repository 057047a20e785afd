//! The device under measurement: settings, image and manifests that the rows share.

use std::time::{Duration, Instant};

use acceptance::device::Device;
use acceptance::image::{Image, busybox};
use acceptance::manifest::Manifest;
use serde_json::{Value, json};

use crate::watch::{Doomed, Watch, pid};

/// A device that commits at once, and who looks at it.
pub(crate) struct Subject {
    /// Who looks at it.
    pub(crate) watch: Watch,
    /// The device.
    pub(crate) device: Device,
    /// What every container is made from.
    pub(crate) image: Image,
}

impl Subject {
    /// Starts a device with these settings over ours.
    ///
    /// # Panics
    /// When it does not start.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Self {
        let mut all = vec![("commit-delay", "0s"), ("log-level", "info")];
        all.extend(settings);
        let device = Device::start_with(&all);
        let image = image();
        device.put_object(&image);
        Self {
            watch: Watch::new(&device),
            device,
            image,
        }
    }

    /// Puts a revision, runs it, and waits until it is committed.
    ///
    /// # Panics
    /// When any of that fails.
    pub(crate) fn install(&mut self, revision: &str, manifest: &Manifest) {
        self.device.put_revision(revision, manifest);
        self.run(revision);
        self.watch.settled(revision);
    }

    /// Gives the command to run a revision, and tells when.
    ///
    /// # Panics
    /// When it is refused.
    pub(crate) fn run(&self, revision: &str) -> Instant {
        let start = Instant::now();
        self.device.run(revision);
        start
    }

    /// Runs a revision without these containers, and waits until it is committed and their processes are gone.
    ///
    /// # Panics
    /// When any of that fails.
    pub(crate) fn run_without(&mut self, revision: &str, containers: &[&str]) {
        let status = self.watch.status();
        let ending: Vec<Doomed> = containers
            .iter()
            .filter_map(|name| pid(&status, name).and_then(Doomed::new))
            .collect();
        self.run(revision);
        self.watch.settled(revision);
        for one in ending {
            one.ended();
        }
        // What is left to do after the end of a process must not be in the next figure.
        std::thread::sleep(Duration::from_millis(300));
    }

    /// Adds a container that sleeps.
    pub(crate) fn sleeper(&self, manifest: Manifest, name: &str, run: Value) -> Manifest {
        manifest.container(name, &self.image, SLEEP, run)
    }
}

/// The image of ours that is also the peer's.
pub(crate) fn image() -> Image {
    busybox(&[(
        "bin/quick-to-stop",
        "#!/bin/sh\ntrap 'exit 0' TERM\nsleep 100000 &\nwait\n",
    )])
}

/// What the containers run, ours and the peer's: it ends at once when it is asked to, so that no figure has a stop time-out in it.
pub(crate) const SLEEP: &[&str] = &["/bin/quick-to-stop"];

/// A manifest with the groups `platform` (restart policy `system`) and `app` (`container`), as Pantavisor has them.
pub(crate) fn platform_and_app() -> Manifest {
    let group = |name: &str, restart_policy: &str| json!({"name": name, "status_goal": "STARTED", "restart_policy": restart_policy, "timeout": 30});
    let groups = [group("platform", "system"), group("app", "container")];
    Manifest::new().key("device.json", json!({"groups": groups}))
}
