//! Tells callers of the socket apart: by the control group of the process that connected.

use std::time::Duration;

use containerd::Callers;
use linux::process::Process;
use server::{Caller, Identify, Peer};

/// Callers by control group: a group of one of our containers, or none of ours.
#[derive(Debug, Clone)]
pub(crate) struct ByControlGroup {
    callers: Callers,
}

impl ByControlGroup {
    /// With the containers that the run time knows.
    pub(crate) fn new(callers: Callers) -> Self {
        Self { callers }
    }
}

impl Identify for ByControlGroup {
    fn caller(&self, peer: &Peer<'_>) -> Caller {
        // Without a number the process is in another namespace or gone: nothing is known of it.
        let Some(pid) = peer.pid else {
            return Caller::Unknown;
        };
        // The process is held while its group is looked up. If it is gone afterwards, its number may have been another one's.
        let Ok(process) = Process::open(pid) else {
            return Caller::Unknown;
        };
        let caller = match self.callers.identify(pid) {
            containerd::Caller::Host => Caller::Host { uid: peer.uid },
            containerd::Caller::Container(name) => Caller::Container(name),
            containerd::Caller::Unknown => Caller::Unknown,
        };
        match process.wait(Duration::ZERO) {
            Ok(false) => caller,
            Ok(true) | Err(_) => Caller::Unknown,
        }
    }
}
