//! Invariant 5: rollback runs no code of the failed revision.
//!
//! What is started must be a version that the committed revision or the trial has, by the durable marker; and what runs must be
//! intact. Once a trial is given up durably, its own versions are started no more; nor is its kernel: at rest the boot loader
//! is told to start the kernel of what runs.

use super::{Checker, Facts, Rest};
use crate::machine::Seen;

/// See the file.
#[derive(Debug, Default)]
pub struct Returned;

impl Checker for Returned {
    fn invariant(&self) -> u8 {
        5
    }

    fn seen(&mut self, facts: &Facts<'_>, seen: &Seen) -> Result<(), String> {
        match seen {
            Seen::StartAsked {
                instance, revision, ..
            } => {
                let Some(marker) = facts.marker else {
                    return Ok(()); // invariant 4 tells of it
                };
                let named = [&marker.committed, &marker.trial];
                let allowed = named.into_iter().flatten().any(|named| {
                    facts
                        .software(named)
                        .and_then(|software| software.piece(&instance.container).cloned())
                        .is_some_and(|piece| piece.fingerprint == instance.fingerprint)
                });
                let fallback = marker
                    .committed
                    .as_ref()
                    .and_then(|committed| facts.software(committed))
                    .is_some_and(|software| {
                        let mut objects = software.objects.iter();
                        objects.any(|(object, _)| facts.known.ever_damaged.contains(object))
                    });
                let progress = facts.progress.get(revision);
                let updated = progress.is_some_and(|progress| progress.status == "UPDATED");
                if allowed || fallback || updated {
                    return Ok(());
                }
                Err(format!(
                    "{} {} is started for {revision}; the durable marker has committed {:?} and trial {:?}, which do not have it",
                    instance.container,
                    instance.fingerprint.short(),
                    marker.committed,
                    marker.trial
                ))
            }
            Seen::Ran {
                instance,
                damaged: Some(problem),
                ..
            } => Err(format!("{} runs from {problem}", instance.container)),
            Seen::Ran { damaged: None, .. } | Seen::StopAsked { .. } | Seen::Ended { .. } => Ok(()),
        }
    }

    fn settled(&mut self, facts: &Facts<'_>, rest: &Rest) -> Result<(), String> {
        let (Some(next), Some(running)) = (&rest.next_boot, &rest.running) else {
            return Ok(());
        };
        // What was applied in place and is committed only by the next start is told then.
        let committed = facts.marker.and_then(|marker| marker.committed.as_ref());
        let is_tried = facts.marker.is_some_and(|marker| marker.trial.is_some());
        if committed != Some(running) || is_tried {
            return Ok(());
        }
        let kernel = |revision| facts.software(revision).map(|software| software.kernel);
        if kernel(next).is_some() && kernel(next) == kernel(running) {
            return Ok(());
        }
        Err(format!(
            "the boot loader is told to start the kernel of {next}, and {running} runs"
        ))
    }
}
