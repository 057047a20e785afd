//! Invariant 6: factory, committed and trial revisions and their objects are never collected, nor are objects with an upload lease.

use std::collections::BTreeMap;

use model::{ObjectId, RevisionId};

use super::{Checker, Facts};
use crate::machine::TrueTime;

/// See the file.
#[derive(Debug, Default)]
pub struct Kept {
    leased: BTreeMap<ObjectId, TrueTime>,
    had_factory: bool,
}

impl Kept {
    fn look(&mut self, facts: &Facts<'_>) -> Result<(), String> {
        let factory = RevisionId::factory();
        self.had_factory |= facts.image.exists("trails/0/.pvr/json");
        let marker = facts.marker;
        let named = marker.into_iter().flat_map(|marker| {
            let named = [&marker.committed, &marker.trial];
            named.into_iter().flatten()
        });
        for revision in named.chain(self.had_factory.then_some(&factory)) {
            let Some(software) = facts.software(revision) else {
                return Err(format!("{revision} must be kept, and its manifest is gone"));
            };
            for (object, _) in &software.objects {
                if facts.known.damaged.contains(object) {
                    continue;
                }
                if let Some(problem) = facts.object_problem(object) {
                    return Err(format!(
                        "object {object} of {revision} must be kept, and is {problem}"
                    ));
                }
            }
        }
        for (object, until) in &self.leased {
            let leased = facts.now < *until && !facts.known.damaged.contains(object);
            if leased && facts.object_problem(object).is_some() {
                return Err(format!("object {object} has a lease, and is gone"));
            }
        }
        Ok(())
    }
}

impl Checker for Kept {
    fn invariant(&self) -> u8 {
        6
    }

    fn uploaded(&mut self, facts: &Facts<'_>, object: &ObjectId) -> Result<(), String> {
        let lease = u64::try_from(facts.known.upload_lease.as_millis()).unwrap_or(u64::MAX);
        self.leased.insert(*object, facts.now.saturating_add(lease));
        Ok(())
    }

    fn changed(&mut self, facts: &Facts<'_>) -> Result<(), String> {
        self.look(facts)
    }

    fn started(&mut self, facts: &Facts<'_>, _: bool) -> Result<(), String> {
        self.look(facts)
    }
}
