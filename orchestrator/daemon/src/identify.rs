//! Tells callers of the socket apart: the process that connected is held, looked at, and found in the registry of containers.

use containerd::Callers;
use linux::{peer, process};
use server::{Caller, Identify, Peer};

/// Callers by the place of their process.
#[derive(Debug, Clone)]
pub(crate) struct ByPlace {
    callers: Callers,
}

impl ByPlace {
    /// With the containers that the run time knows.
    pub(crate) fn new(callers: Callers) -> Self {
        Self { callers }
    }
}

impl Identify for ByPlace {
    fn caller(&self, peer: &Peer<'_>) -> Caller {
        // Without a number the process is in another name space or gone: nothing is known of it.
        let Some(pid) = peer.pid else {
            return Caller::Unknown;
        };
        let held = peer::open(peer.socket, pid, process::since_boot());
        match held.and_then(|held| peer::place(&held)) {
            Ok(place) => match self.callers.identify(&place) {
                containerd::Caller::Host => Caller::Host { uid: peer.uid },
                containerd::Caller::Container(name) => Caller::Container(name),
                containerd::Caller::Unknown => Caller::Unknown,
            },
            Err(error) => {
                tracing::debug!(pid, %error, "cannot tell who calls");
                Caller::Unknown
            }
        }
    }
}
