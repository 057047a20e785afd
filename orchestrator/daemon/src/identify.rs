//! Tells callers of the socket apart: by the control group of the process that connected.

use std::sync::Arc;

use containerd::Registry;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use server::{Caller, Identify, Peer};

/// Callers by control group: a group of one of our containers, or none of ours.
#[derive(Debug, Clone)]
pub struct ByControlGroup {
    registry: Arc<Registry>,
}

impl ByControlGroup {
    /// With the containers that this registry knows.
    pub fn new(registry: Arc<Registry>) -> Self {
        Self { registry }
    }
}

impl Identify for ByControlGroup {
    fn caller(&self, peer: &Peer<'_>) -> Caller {
        let Some(pid) = peer.pid else { return Caller::Unknown };
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
        // A descriptor of the process is held over the look-up: its number cannot be given to another one meanwhile
        // without the descriptor telling.
        let Some(held) = raw.and_then(|raw| pidfd_open(raw, PidfdFlags::empty()).ok()) else {
            return Caller::Unknown;
        };
        drop(held);
        match self.registry.identify(pid) {
            Ok(Some(container)) => Caller::Container(container),
            Ok(None) => Caller::Host { uid: peer.uid },
            Err(error) => {
                tracing::warn!("cannot tell who process {pid} is: {error}");
                Caller::Unknown
            }
        }
    }
}
