//! Sealing what runs: some time after the start or a commit, one object after the other, so that nothing else waits long for the storage.
//!
//! It is also when objects that a start believed by their seal are read. When one of them turns out to be damaged the start is gone through
//! again, which reads it, and finds what it would have found without seals (decision 0098). Anything new ends the pass; the next one
//! goes over what is sealed already at the speed of the disk.

use std::collections::VecDeque;

use lifecycle::update;
use model::{Instant, ObjectId, RevisionId};

use crate::carry::objects_of;
use crate::device::{Device, Stage};
use crate::ports::{Job, Jobs as _, Sealing, World};

/// What is still to be sealed.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// The revision that it is about, with nothing else going on.
    of: Option<RevisionId>,
    /// When the pass begins; `None` when it has, or when there is none.
    at: Option<Instant>,
    objects: VecDeque<(ObjectId, String)>,
    /// A job is under way.
    busy: bool,
    /// The file system cannot.
    unsupported: bool,
}

impl Queue {
    pub(crate) fn next_wake(&self) -> Option<Instant> {
        self.at
    }
}

impl<W: World> Device<W> {
    /// Begins a pass when what runs has run for a while with nothing else going on, and goes on with it.
    pub(crate) fn seal_when_due(&mut self, now: Instant) {
        let settled = match &self.stage {
            Stage::Up(update) if *update.phase() == update::Phase::Settled => update.running(),
            Stage::New | Stage::Booting(_) | Stage::Up(_) | Stage::Ended(_) => None,
        };
        let settled = settled.map(|running| running.revision.clone());
        if self.settings.seal_after.is_zero() || self.sealing.unsupported {
            return;
        }
        if settled != self.sealing.of {
            self.sealing.objects.clear();
            self.sealing.at = settled.as_ref().map(|_| now + self.settings.seal_after);
            self.sealing.of = settled;
        }
        let Some(revision) = self.sealing.of.clone() else {
            return;
        };
        if self.sealing.at.is_some_and(|at| at <= now) {
            self.sealing.at = None;
            if let Ok(manifest) = self.manifest(&revision) {
                self.sealing.objects = objects_of(&manifest).into();
            }
        }
        if !self.sealing.busy
            && let Some(object) = self.sealing.objects.pop_front()
        {
            self.sealing.busy = true;
            let last = self.sealing.objects.is_empty();
            let objects = vec![object];
            self.ports.jobs.submit(Job::Seal { objects, last });
        }
    }

    pub(crate) fn on_sealed(&mut self, now: Instant, sealing: Sealing) {
        self.sealing.busy = false;
        if sealing.unsupported {
            self.sealing.unsupported = true;
            self.sealing.objects.clear();
        }
        for bad in sealing.bad {
            self.notice(format!(
                "object {} of what runs ({}) is {}; put it again",
                bad.object.short(),
                bad.key,
                bad.problem
            ));
        }
        if sealing.misled {
            self.sealing = Queue::default();
            self.start_again = Some(now);
        }
    }
}
