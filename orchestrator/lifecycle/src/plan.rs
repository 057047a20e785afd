//! What changes from one revision to another, and whether the machine must restart for it.
//!
//! [`Plan`] compares two manifests. [`rehearse`] plays the whole update through the machines that will carry it out (`update`,
//! `containers`, `boot`), with a run time that does what it is told: so what is announced cannot drift from what is done.

use std::collections::BTreeSet;

use model::{ContainerName, Manifest};

mod fate;
mod rehearsal;
mod stage;

pub use fate::{Basis, Fate, Fated, Lasts, Reason};
pub use rehearsal::{Rehearsal, Scene, Way, rehearse};
pub use stage::{Act, Deed};

/// What an update does, container by container; each list in the order of its manifest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Keep running, same process.
    pub unchanged: Vec<ContainerName>,
    /// Are stopped and started in their new version.
    pub changed: Vec<ContainerName>,
    /// Are started; the running revision has none of this name.
    pub started: Vec<ContainerName>,
    /// Are stopped; the new revision has none of this name.
    pub stopped: Vec<ContainerName>,
    /// Something below `bsp/` differs that only a boot can bring in.
    pub boot_changes: bool,
}

impl Plan {
    /// Compares what runs with what is to run; without `running` everything is started.
    pub fn between(running: Option<&Manifest>, next: &Manifest) -> Self {
        let mut plan = Self::default();
        let mut names = BTreeSet::new();
        for spec in next.containers() {
            names.insert(&spec.name);
            let list = match running.and_then(|running| running.container(&spec.name)) {
                Some(known) if known.fingerprint == spec.fingerprint => &mut plan.unchanged,
                Some(_) => &mut plan.changed,
                None => &mut plan.started,
            };
            list.push(spec.name.clone());
        }
        if let Some(running) = running {
            plan.stopped = running
                .containers()
                .filter(|spec| !names.contains(&spec.name))
                .map(|spec| spec.name.clone())
                .collect();
            plan.boot_changes = running.boot_fingerprint() != next.boot_fingerprint();
        }
        plan
    }

    /// Whether the update needs a restart of the machine. Under another init no boot loader reads our revisions, and a restart
    /// would bring nothing (decisions/0010).
    pub fn by_reboot(&self, boot_loader_follows: bool) -> bool {
        self.boot_changes && boot_loader_follows
    }
}
