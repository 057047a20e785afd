//! Invariant 4: a try is counted before it runs.
//!
//! When the loop asks to start a version that only the trial has, the durable marker must name the trial and must already have
//! one try less than before this start of the orchestrator. So a revision that kills the machine runs out of tries.

use std::collections::BTreeSet;

use device::handle::{Command, Request};
use model::RevisionId;

use super::{Checker, Facts};
use crate::machine::Seen;

/// See the file.
#[derive(Debug, Default)]
pub struct Tried {
    trial: Option<RevisionId>,
    starts: BTreeSet<u32>,
}

impl Checker for Tried {
    fn invariant(&self) -> u8 {
        4
    }

    fn asked(&mut self, facts: &Facts<'_>, _: u64, request: &Request) {
        let (marker, factory) = (facts.marker, RevisionId::factory());
        let asked = match request {
            Request::Command(
                Command::Run { revision, .. }
                | Command::RunCommit { revision, .. }
                | Command::Apply { revision, .. },
            ) => Some(revision),
            Request::Command(Command::Rollback) => {
                marker.and_then(|marker| marker.previous.as_ref())
            }
            Request::Command(Command::MakeFactory(_)) => Some(&factory),
            Request::PutRevision { .. }
            | Request::DeleteRevision(_)
            | Request::PutCommitMessage { .. }
            | Request::Command(_)
            | Request::Control { .. }
            | Request::Ready(_)
            | Request::PutMeta { .. }
            | Request::DeleteMeta { .. }
            | Request::Claim { .. }
            | Request::RenewClaim { .. }
            | Request::ReleaseClaim { .. }
            | Request::As { .. }
            | Request::Collect
            | Request::Plan(_)
            | Request::Stop { .. } => None,
        };
        let trial = marker.and_then(|marker| marker.trial.as_ref());
        let again = asked.is_some() && trial != asked && self.trial.as_ref() == asked;
        if again {
            self.trial = None;
        }
    }

    fn changed(&mut self, facts: &Facts<'_>) -> Result<(), String> {
        if facts.marker.is_none_or(|marker| marker.trial.is_none()) {
            // It ended; the next one may have the same name.
            self.trial = None;
            self.starts.clear();
        }
        // It held its goals; what follows is a new trial with all its tries.
        let tries_left = facts.marker.map(|marker| marker.tries_left);
        if facts.known.exact_commit && tries_left == Some(facts.known.tries) {
            self.starts.clear();
        }
        Ok(())
    }

    fn seen(&mut self, facts: &Facts<'_>, seen: &Seen) -> Result<(), String> {
        let Seen::StartAsked {
            instance, revision, ..
        } = seen
        else {
            return Ok(());
        };
        let Some(marker) = facts.marker else {
            return Err(format!(
                "{} is started, and no marker is durable",
                instance.container
            ));
        };
        let has = |revision: &Option<RevisionId>| {
            revision
                .as_ref()
                .and_then(|revision| facts.software(revision))
                .and_then(|software| software.piece(&instance.container).cloned())
                .is_some_and(|piece| piece.fingerprint == instance.fingerprint)
        };
        if has(&marker.committed) {
            return Ok(());
        }
        let fallback = marker.trial.as_ref() != Some(revision) && has(&Some(revision.clone()));
        if fallback || !has(&marker.trial) {
            return Ok(()); // invariant 5 tells of it
        }
        let updated = marker
            .trial
            .as_ref()
            .and_then(|trial| facts.progress.get(trial))
            .is_some_and(|progress| progress.is_final() && !progress.is_failed());
        if updated {
            // It passed its trial; what is started again now is restarted by its policy.
            return Ok(());
        }
        if self.trial != marker.trial {
            self.trial = marker.trial.clone();
            self.starts.clear();
        }
        self.starts.insert(facts.start);
        let tried = u32::try_from(self.starts.len()).unwrap_or(u32::MAX);
        let counted = facts.known.tries.saturating_sub(marker.tries_left);
        if tried > counted {
            return Err(format!(
                "{} of {:?} is started for try {tried}, and {counted} are counted durably",
                instance.container, marker.trial
            ));
        }
        Ok(())
    }
}
