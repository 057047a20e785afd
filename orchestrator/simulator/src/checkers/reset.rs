//! Invariant 1 for a reset to the factory revision: accepted means that it is done, whatever is cut, and that it is done as it was asked for.
//!
//! Until it is done its record is on the disk. Once the record is gone, revision 0 is the one to boot, every other revision that was
//! there is gone, and volumes are kept or wiped.

use std::collections::BTreeMap;

use device::handle::{Answer, Command, Refusal, Request};
use model::RevisionId;

use super::{Checker, Facts, Rest};

/// The record of a reset that is to be done.
const RECORD: &str = "boot/reset";
/// The volume that is watched.
pub const VOLUME: &str = "disks/perm/web/data/file";

#[derive(Debug, Clone, Copy)]
struct Promised {
    wiped: bool,
    had_volume: bool,
}

/// See the file.
#[derive(Debug, Default)]
pub struct Resetting {
    asked: BTreeMap<u64, bool>,
    promised: Option<Promised>,
}

impl Resetting {
    /// A request whose answer was lost may be carried out too.
    fn look(&mut self, facts: &Facts<'_>) -> Result<(), String> {
        let Some(Promised { wiped, had_volume }) = self.promised else {
            return Ok(());
        };
        if facts.image.exists(RECORD) {
            return Ok(());
        }
        self.promised = None;
        let factory = RevisionId::factory();
        // One that cannot be gone back to is found only by reading it: then the reset is given up, and nothing is removed.
        let was_damaged = facts.software(&factory).is_none_or(|software| {
            let mut objects = software.objects.iter();
            objects.any(|(object, _)| facts.known.ever_damaged.contains(object))
        });
        if was_damaged {
            return Ok(());
        }
        let committed = facts.marker.and_then(|marker| marker.committed.as_ref());
        if committed != Some(&factory) {
            return Err(format!("a reset is done, and {committed:?} is committed"));
        }
        for revision in facts.progress.keys().filter(|known| **known != factory) {
            if facts.image.exists(&format!("trails/{revision}/.pvr/json")) {
                return Err(format!("a reset is done, and {revision} is there"));
            }
        }
        match (wiped, had_volume, facts.image.exists(VOLUME)) {
            (true, _, true) => Err("a reset that wipes volumes is done, and one is there".into()),
            (false, true, false) => {
                Err("a reset that keeps volumes is done, and one is gone".into())
            }
            (true, _, false) | (false, true, true) | (false, false, _) => Ok(()),
        }
    }
}

impl Checker for Resetting {
    fn invariant(&self) -> u8 {
        1
    }

    fn asked(&mut self, facts: &Facts<'_>, id: u64, request: &Request) {
        if let Request::Command(Command::FactoryReset { .. }) = request {
            self.asked.insert(id, facts.image.exists(VOLUME));
        }
    }

    fn answered(
        &mut self,
        facts: &Facts<'_>,
        id: u64,
        request: &Request,
        answer: &Result<Answer, Refusal>,
    ) -> Result<(), String> {
        let had_volume = self.asked.remove(&id).unwrap_or(false);
        if let Request::Command(Command::FactoryReset { wipe_volumes }) = request
            && answer.is_ok()
        {
            self.promised = Some(Promised {
                wiped: *wipe_volumes,
                had_volume,
            });
        }
        self.look(facts)
    }

    fn changed(&mut self, facts: &Facts<'_>) -> Result<(), String> {
        self.look(facts)
    }

    fn started(&mut self, facts: &Facts<'_>, _: bool) -> Result<(), String> {
        self.look(facts)
    }

    fn settled(&mut self, facts: &Facts<'_>, _: &Rest) -> Result<(), String> {
        self.look(facts)?;
        match facts.image.exists(RECORD) {
            true => Err("a reset was accepted, and is not done at rest".to_owned()),
            false => Ok(()),
        }
    }
}
