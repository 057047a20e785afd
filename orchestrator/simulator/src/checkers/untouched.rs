//! Without a number: changed containers only are restarted; a restart of the orchestrator restarts none.
//!
//! A container whose script never goes wrong, and which nobody controlled, must not be started twice in one version while the machine
//! stays on and the loop does not end the boot.

use std::collections::{BTreeMap, BTreeSet};

use device::handle::Request;
use device::ports::Instance;
use model::{ContainerName, Goal, ObjectId};

use super::{Checker, Facts};
use crate::machine::Seen;

/// See the file.
#[derive(Debug, Default)]
pub struct Untouched {
    running: BTreeMap<ContainerName, ObjectId>,
    controlled: BTreeSet<ContainerName>,
    /// Asked to stop, rightly; some of them before their start was carried out.
    stopping: BTreeSet<Instance>,
}

impl Checker for Untouched {
    fn invariant(&self) -> u8 {
        0
    }

    fn asked(&mut self, _: &Facts<'_>, _: u64, request: &Request) {
        match request {
            Request::Control { container, .. } => {
                self.controlled.insert(container.clone());
            }
            Request::Stop { .. } => self.running.clear(),
            Request::PutRevision { .. }
            | Request::DeleteRevision(_)
            | Request::PutCommitMessage { .. }
            | Request::Command(_)
            | Request::Ready(_)
            | Request::PutMeta { .. }
            | Request::DeleteMeta { .. }
            | Request::Claim { .. }
            | Request::RenewClaim { .. }
            | Request::ReleaseClaim { .. }
            | Request::As { .. }
            | Request::Collect
            | Request::Plan(_) => {}
        }
    }

    fn seen(&mut self, facts: &Facts<'_>, seen: &Seen) -> Result<(), String> {
        let instance = match seen {
            Seen::Ran { instance, .. } => instance,
            Seen::StopAsked { instance, .. } => {
                // Stopping what is not part of everything that is to run is what an update is for.
                let named = facts
                    .marker
                    .map(|marker| [&marker.committed, &marker.trial])
                    .into_iter()
                    .flatten()
                    .flatten();
                let mut named = named.peekable();
                // The same version is another process when its goal moves to MOUNTED or away from it.
                let mut mounted = BTreeSet::new();
                let needed = named.peek().is_some()
                    && named.all(|revision| {
                        facts
                            .software(revision)
                            .and_then(|software| software.piece(&instance.container).cloned())
                            .is_some_and(|piece| {
                                mounted.insert(piece.goal == Goal::Mounted);
                                piece.fingerprint == instance.fingerprint && mounted.len() == 1
                            })
                    });
                let committed = facts.marker.and_then(|marker| marker.committed.as_ref());
                // One that was damaged may not be gone back to, although it is complete again: then nothing is to run.
                let complete = committed
                    .and_then(|revision| facts.software(revision))
                    .is_some_and(|software| {
                        let mut objects = software.objects.iter();
                        objects.all(|(object, _)| {
                            !facts.known.ever_damaged.contains(object)
                                && facts.object_problem(object).is_none()
                        })
                    });
                if !needed || !complete || facts.shutting_down {
                    self.running.remove(&instance.container);
                    self.stopping.insert(instance.clone());
                }
                return Ok(());
            }
            Seen::StartAsked { .. } | Seen::Ended { .. } => return Ok(()),
        };
        if self.stopping.contains(instance) {
            return Ok(());
        }
        let before = self
            .running
            .insert(instance.container.clone(), instance.fingerprint);
        let faultless = facts
            .known
            .software
            .values()
            .filter_map(|software| software.piece(&instance.container))
            .any(|piece| piece.fingerprint == instance.fingerprint && piece.faultless);
        if before == Some(instance.fingerprint)
            && faultless
            && !self.controlled.contains(&instance.container)
        {
            return Err(format!(
                "{} is started again in the same version, and nothing was wrong with it",
                instance.container
            ));
        }
        Ok(())
    }

    fn started(&mut self, _: &Facts<'_>, cut: bool) -> Result<(), String> {
        if cut {
            self.running.clear();
            self.controlled.clear();
            self.stopping.clear();
        }
        Ok(())
    }
}
