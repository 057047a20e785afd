//! Invariant 2: the marker never names what is not durable and verified.
//!
//! Looked at whenever the durable marker changes: each revision that it newly names must be on the durable disk with all its
//! objects, each of which must be what its name says. Also, there is always a marker once there was one.

use model::RevisionId;

use super::{Checker, Facts};

/// See the file.
#[derive(Debug, Default)]
pub struct Named {
    sequence: u64,
    named: Vec<RevisionId>,
}

impl Named {
    fn look(&mut self, facts: &Facts<'_>) -> Result<(), String> {
        let Some(marker) = facts.marker else {
            if self.sequence > 0 {
                return Err("the marker is gone, both copies of it".to_owned());
            }
            return Ok(());
        };
        if marker.sequence < self.sequence {
            return Err(format!(
                "the durable marker went back from {} to {}",
                self.sequence, marker.sequence
            ));
        }
        if marker.sequence == self.sequence {
            return Ok(());
        }
        self.sequence = marker.sequence;
        let named: Vec<_> = [&marker.committed, &marker.trial]
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        let before = std::mem::replace(&mut self.named, named);
        for revision in &self.named {
            if before.contains(revision) {
                continue;
            }
            let Some(software) = facts.software(revision) else {
                return Err(format!(
                    "the marker names {revision}, whose manifest is not durable"
                ));
            };
            for (object, _) in &software.objects {
                if let Some(problem) = facts.object_problem(object) {
                    return Err(format!(
                        "the marker names {revision}, whose object {object} is {problem}"
                    ));
                }
            }
        }
        Ok(())
    }
}

impl Checker for Named {
    fn invariant(&self) -> u8 {
        2
    }

    fn changed(&mut self, facts: &Facts<'_>) -> Result<(), String> {
        self.look(facts)
    }

    fn started(&mut self, facts: &Facts<'_>, _: bool) -> Result<(), String> {
        self.look(facts)
    }
}
