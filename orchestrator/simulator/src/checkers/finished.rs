//! Invariant 7: every revision ends in one final progress with a cause, and progress never goes back.
//!
//! Only an explicit request to run a revision again, or to put another manifest under its name, starts its progress over.

use std::collections::{BTreeMap, BTreeSet};

use device::handle::{Answer, Command, Refusal, Request};
use model::RevisionId;

use super::{Checker, Facts, Rest};

/// See the file.
#[derive(Debug, Default)]
pub struct Finished {
    percent: BTreeMap<RevisionId, (u64, String)>,
    accepted: BTreeSet<RevisionId>,
    /// Asked for again: how often their progress may start over.
    again: BTreeMap<RevisionId, u8>,
}

impl Finished {
    fn look(&mut self, facts: &Facts<'_>) -> Result<(), String> {
        for (revision, progress) in facts.progress {
            if let Some(error) = &progress.unreadable {
                return Err(format!("progress of {revision} cannot be read: {error}"));
            }
            if !progress.exists() {
                continue;
            }
            let before = self.percent.get(revision);
            let same = before.is_some_and(|(percent, status)| {
                *percent == progress.percent && *status == progress.status
            });
            if same {
                continue;
            }
            if let Some((percent, status)) = before {
                let back = progress.percent < *percent && status != "UPDATED";
                let changed_end = *percent == 100 && !may_follow(status, &progress.status);
                if (back || changed_end) && !take(&mut self.again, revision) {
                    return Err(format!(
                        "progress of {revision} went from {status} to {} ({})",
                        progress.status, progress.message
                    ));
                }
            }
            let now = (progress.percent, progress.status.clone());
            self.percent.insert(revision.clone(), now);
        }
        Ok(())
    }
}

fn take(again: &mut BTreeMap<RevisionId, u8>, revision: &RevisionId) -> bool {
    let left = again.get_mut(revision).filter(|left| **left > 0);
    left.map(|left| *left -= 1).is_some()
}

/// What is final stays, but for what was applied and is then made the one to boot, or is given up before that.
fn may_follow(before: &str, after: &str) -> bool {
    // UPDATED is what Pantavisor's exact commit leaves until the next start, which looks at the goals once more.
    before == after || (before == "UPDATED" && after != "NEW")
}

impl Checker for Finished {
    fn invariant(&self) -> u8 {
        7
    }

    fn asked(&mut self, facts: &Facts<'_>, _: u64, request: &Request) {
        if let Request::PutRevision { revision, .. } | Request::DeleteRevision(revision) = request {
            self.accepted.remove(revision);
        }
        match request {
            Request::PutRevision { revision, .. }
            | Request::DeleteRevision(revision)
            | Request::Command(
                Command::Run { revision, .. }
                | Command::RunCommit { revision, .. }
                | Command::Apply { revision, .. },
            ) => {
                self.again.insert(revision.clone(), 1);
            }
            Request::Command(Command::Rollback) => {
                let previous = facts.marker.and_then(|marker| marker.previous.clone());
                self.again.extend(previous.map(|previous| (previous, 1)));
            }
            // Puts another manifest under the name of the factory revision, which is DONE then, and runs it.
            Request::Command(Command::MakeFactory(_)) => {
                self.again.insert(RevisionId::factory(), 2);
            }
            Request::Command(Command::FactoryReset { .. }) => self.accepted.clear(),
            Request::Command(
                Command::Reboot(_)
                | Command::PowerOff(_)
                | Command::Collect
                | Command::UpdateMetadata(_),
            )
            | Request::PutCommitMessage { .. }
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
            | Request::Stop { .. } => {}
        }
    }

    fn answered(
        &mut self,
        _: &Facts<'_>,
        _: u64,
        request: &Request,
        answer: &Result<Answer, Refusal>,
    ) -> Result<(), String> {
        if let Request::Command(
            Command::Run { revision, .. }
            | Command::RunCommit { revision, .. }
            | Command::Apply { revision, .. },
        ) = request
            && answer.is_ok()
        {
            self.accepted.insert(revision.clone());
        }
        if let Request::DeleteRevision(revision) = request
            && answer.is_ok()
        {
            self.accepted.remove(revision);
        }
        Ok(())
    }

    fn changed(&mut self, facts: &Facts<'_>) -> Result<(), String> {
        self.look(facts)
    }

    fn started(&mut self, facts: &Facts<'_>, _: bool) -> Result<(), String> {
        self.look(facts)
    }

    fn settled(&mut self, facts: &Facts<'_>, rest: &Rest) -> Result<(), String> {
        self.look(facts)?;
        for revision in &self.accepted {
            if !facts.image.exists(&format!("trails/{revision}/.pvr/json")) {
                continue; // collected after it ended
            }
            let Some(progress) = facts.progress.get(revision) else {
                continue;
            };
            if !progress.is_final() {
                return Err(format!(
                    "{revision} was to run, and all that is told of it is {:?} {:?}",
                    progress.status, progress.message
                ));
            }
            if progress.message.is_empty() {
                return Err(format!(
                    "{revision} ended {} without a cause",
                    progress.status
                ));
            }
            let committed = facts.marker.and_then(|marker| marker.committed.as_ref());
            // One that is damaged stays the one to boot, and its progress says what is wrong with it; it does not run meanwhile.
            let runs = rest.running.as_ref() == Some(revision);
            // Nor is what was told taken back when a start finds it repaired, until it is asked to run again.
            let was_damaged = facts.software(revision).is_some_and(|software| {
                let mut objects = software.objects.iter();
                objects.any(|(object, _)| facts.known.ever_damaged.contains(object))
            });
            if progress.is_failed() && committed == Some(revision) && runs && !was_damaged {
                return Err(format!(
                    "{revision} is committed, and its progress is {}",
                    progress.status
                ));
            }
            if progress.status == "ERROR" {
                let recorded = (0..64).any(|n| {
                    facts
                        .image
                        .file(&format!("failures/{n}.json"))
                        .is_some_and(|bytes| tells_of(&bytes, revision))
                });
                if !recorded {
                    return Err(format!(
                        "{revision} ended {} ({}), and no failure record tells of it",
                        progress.status, progress.message
                    ));
                }
            }
        }
        Ok(())
    }
}

fn tells_of(record: &[u8], revision: &RevisionId) -> bool {
    serde_json::from_slice::<serde_json::Value>(record)
        .is_ok_and(|record| record["revision"].as_str() == Some(revision.as_str()))
}
