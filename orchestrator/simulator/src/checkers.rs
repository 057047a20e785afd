//! Nine invariants, each watched by a checker that knows nothing of the code it watches:
//!
//! 1. answered means durable;
//! 2. the marker never names what is not durable and verified;
//! 3. `committed` moves only to a revision observed healthy;
//! 4. a try is counted before it runs;
//! 5. a rollback runs no code of the failed revision;
//! 6. factory, committed and trial revisions and their objects are never collected, nor objects with a lease;
//! 7. every revision ends in one final progress with a cause, and progress never goes back;
//! 8. when faults stop, the device settles in a bounded number of boots;
//! 9. at most one revision is being installed, and a second request is refused with a reason, not lost.
//!
//! 0 stands for what has no number.
//!
//! Checkers see what a person with a second pair of eyes would see: what was asked and answered, what the run time really did,
//! and what lies durably on the disk, read by parsers of their own (`records`). They run after every event and every boot.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use device::handle::{Answer, Refusal, Request};
use device::ports::RuntimeEvent;
use model::{ContainerName, ObjectId, RevisionId};

use crate::machine::{Markers, Seen, TrueTime};
use crate::software::Revision;
use records::{MarkerRecord, ProgressRecord};

pub mod answered;
pub mod claimed;
pub mod committed;
pub mod finished;
pub mod kept;
pub mod named;
pub mod one;
pub mod records;
pub mod reset;
pub mod returned;
pub mod settled;
pub mod tried;
pub mod untouched;

/// What would be on the disk after a power cut that loses all it may lose.
pub trait Image {
    /// A whole file.
    fn file(&self, path: &str) -> Option<Arc<[u8]>>;
    /// Whether there is a file or folder of this name.
    fn exists(&self, path: &str) -> bool;
}

/// The bytes of a manifest on the disk, and whose they are.
pub type Recognised = (Arc<[u8]>, Rc<Revision>);

/// What does not change during a life, and what the world did to the device behind its back.
#[derive(Debug, Default)]
pub struct Known {
    /// Every piece of software that may be on the device, by the digest of its manifest.
    pub software: BTreeMap<ObjectId, Rc<Revision>>,
    /// Objects that the world damaged on the disk, or that went with the part of it.
    pub damaged: BTreeSet<ObjectId>,
    /// The same, with those that were uploaded again since.
    pub ever_damaged: BTreeSet<ObjectId>,
    /// Tries of a trial.
    pub tries: u32,
    /// What was applied in place is committed only after the next start, which has all tries again.
    pub exact_commit: bool,
    /// How long a trial must hold its goals.
    pub commit_delay: Duration,
    /// How long an upload keeps its object.
    pub upload_lease: Duration,
    /// Files of which the durable content was seen to be right, by path; saves hashing a million times.
    pub intact: RefCell<BTreeMap<ObjectId, Arc<[u8]>>>,
    /// Where objects lie; saves writing the path of each a million times.
    pub paths: RefCell<BTreeMap<ObjectId, Rc<str>>>,
    /// Manifests that were recognised, by the memory they are in.
    pub recognised: RefCell<Vec<Recognised>>,
}

/// What the checkers look at.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// The durable part of the disk.
    pub image: &'a dyn Image,
    /// True time.
    pub now: TrueTime,
    /// Number of this start of the orchestrator.
    pub start: u32,
    /// Whether the loop is about to end the boot.
    pub shutting_down: bool,
    /// The marker on it, as `records` reads it.
    pub marker: Option<&'a MarkerRecord>,
    /// Progress of every revision that was ever put.
    pub progress: &'a BTreeMap<RevisionId, ProgressRecord>,
    /// What is known of the life.
    pub known: &'a Known,
}

impl std::fmt::Debug for Facts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Facts")
            .field("now", &self.now)
            .field("start", &self.start)
            .field("marker", &self.marker)
            .finish_non_exhaustive()
    }
}

impl Facts<'_> {
    /// The software that a revision's durable manifest is; `None` when there is no manifest or not one that was ever given.
    pub fn software(&self, revision: &RevisionId) -> Option<Rc<Revision>> {
        let bytes = self.image.file(&format!("trails/{revision}/.pvr/json"))?;
        let mut recognised = self.known.recognised.borrow_mut();
        let seen = recognised
            .iter()
            .find(|(seen, _)| Arc::ptr_eq(seen, &bytes));
        if let Some((_, software)) = seen {
            return Some(Rc::clone(software));
        }
        let mut known = self.known.software.values();
        let software = known.find(|software| software.bytes[..] == bytes[..])?;
        recognised.push((bytes, Rc::clone(software)));
        Some(Rc::clone(software))
    }

    /// What is wrong with an object, durably: `None` when it is there and is what its name says.
    pub fn object_problem(&self, object: &ObjectId) -> Option<&'static str> {
        let mut paths = self.known.paths.borrow_mut();
        let path = paths
            .entry(*object)
            .or_insert_with(|| format!("objects/{object}").into());
        let Some(bytes) = self.image.file(path) else {
            return Some("missing");
        };
        let mut intact = self.known.intact.borrow_mut();
        if let Some(seen) = intact.get(object)
            && Arc::ptr_eq(seen, &bytes)
        {
            return None;
        }
        if ObjectId::of(&bytes) != *object {
            return Some("corrupt");
        }
        intact.insert(*object, bytes);
        None
    }
}

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Its number above; 0 for what has none.
    pub invariant: u8,
    /// What was seen.
    pub what: String,
}

/// One invariant. Each method looks at one kind of thing and says what is wrong.
pub trait Checker {
    /// Its number above; 0 for what has none.
    fn invariant(&self) -> u8;
    /// A request was handed to the loop; `id` is used once.
    fn asked(&mut self, _: &Facts<'_>, _id: u64, _: &Request) {}
    /// It was answered.
    fn answered(
        &mut self,
        _: &Facts<'_>,
        _id: u64,
        _: &Request,
        _: &Result<Answer, Refusal>,
    ) -> Result<(), String> {
        Ok(())
    }
    /// An upload was answered with success.
    fn uploaded(&mut self, _: &Facts<'_>, _: &ObjectId) -> Result<(), String> {
        Ok(())
    }
    /// The loop was told.
    fn told(&mut self, _: &Facts<'_>, _: &RuntimeEvent) {}
    /// The loop was told that a container is ready.
    fn signalled(&mut self, _: &Facts<'_>, _: &ContainerName) {}
    /// The run time did something, or was asked to.
    fn seen(&mut self, _: &Facts<'_>, _: &Seen) -> Result<(), String> {
        Ok(())
    }
    /// The durable part of the disk changed.
    fn changed(&mut self, _: &Facts<'_>) -> Result<(), String> {
        Ok(())
    }
    /// The orchestrator starts; `cut` when the power was gone before.
    fn started(&mut self, _: &Facts<'_>, _cut: bool) -> Result<(), String> {
        Ok(())
    }
    /// Faults have stopped, and nothing happens any more.
    fn settled(&mut self, _: &Facts<'_>, _: &Rest) -> Result<(), String> {
        Ok(())
    }
}

/// What a device that has settled shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rest {
    /// What it says it runs.
    pub running: Option<RevisionId>,
    /// What really runs: container and version.
    pub processes: BTreeSet<(ContainerName, ObjectId)>,
    /// Containers that a person stopped.
    pub stopped: BTreeSet<ContainerName>,
    /// Boots since faults stopped.
    pub boots: u32,
    /// What the boot loader starts next; `None` without one.
    pub next_boot: Option<RevisionId>,
    /// Whether nothing more was about to happen when the limit was reached.
    pub quiet: bool,
}

/// All checkers, and the records they share.
pub struct Checkers {
    all: Vec<Box<dyn Checker>>,
    marker_bytes: Markers,
    marker: Option<MarkerRecord>,
    progress: BTreeMap<RevisionId, ProgressRecord>,
    violations: Vec<Violation>,
}

impl std::fmt::Debug for Checkers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkers")
            .field("violations", &self.violations)
            .finish_non_exhaustive()
    }
}

impl Default for Checkers {
    fn default() -> Self {
        Self {
            all: vec![
                Box::<answered::Answered>::default(),
                Box::<claimed::Claimed>::default(),
                Box::<reset::Resetting>::default(),
                Box::<named::Named>::default(),
                Box::<committed::Committed>::default(),
                Box::<tried::Tried>::default(),
                Box::<returned::Returned>::default(),
                Box::<kept::Kept>::default(),
                Box::<finished::Finished>::default(),
                Box::<settled::Settled>::default(),
                Box::<one::One>::default(),
                Box::<untouched::Untouched>::default(),
            ],
            marker_bytes: [None, None],
            marker: None,
            progress: BTreeMap::new(),
            violations: Vec::new(),
        }
    }
}

/// What the world knows when it calls the checkers; completed with the records on the disk.
#[derive(Clone, Copy)]
pub struct Moment<'a> {
    /// The durable part of the disk.
    pub image: &'a dyn Image,
    /// True time.
    pub now: TrueTime,
    /// Number of this start of the orchestrator.
    pub start: u32,
    /// Whether the loop is about to end the boot.
    pub shutting_down: bool,
    /// What is known of the life.
    pub known: &'a Known,
}

impl std::fmt::Debug for Moment<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Moment")
            .field("now", &self.now)
            .field("start", &self.start)
            .finish_non_exhaustive()
    }
}

impl Checkers {
    /// What was found so far.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// The marker on the disk when it was last looked at.
    pub fn marker(&self) -> Option<&MarkerRecord> {
        self.marker.as_ref()
    }

    /// Progress on the disk when it was last looked at.
    pub fn progress(&self) -> &BTreeMap<RevisionId, ProgressRecord> {
        &self.progress
    }

    /// The durable records in one line, for the log.
    pub fn in_short(&self) -> String {
        let mut text = String::from("disk:");
        if let Some(marker) = &self.marker {
            let name = |revision: &Option<RevisionId>| {
                revision
                    .as_ref()
                    .map_or("-".to_owned(), ToString::to_string)
            };
            text += &format!(
                " marker {} committed {} previous {} trial {} ({} left);",
                marker.sequence,
                name(&marker.committed),
                name(&marker.previous),
                name(&marker.trial),
                marker.tries_left
            );
        }
        for (revision, progress) in &self.progress {
            text += &format!(" {revision} {}", progress.status);
        }
        text
    }

    fn each(
        &mut self,
        moment: Moment<'_>,
        mut look: impl FnMut(&mut dyn Checker, &Facts<'_>) -> Result<(), String>,
    ) {
        let facts = Facts {
            image: moment.image,
            now: moment.now,
            start: moment.start,
            shutting_down: moment.shutting_down,
            marker: self.marker.as_ref(),
            progress: &self.progress,
            known: moment.known,
        };
        for checker in &mut self.all {
            if let Err(what) = look(checker.as_mut(), &facts) {
                self.violations.push(Violation {
                    invariant: checker.invariant(),
                    what,
                });
            }
        }
    }

    /// Something that the acts of a life look at themselves.
    pub(crate) fn complain(&mut self, invariant: u8, what: String) {
        self.violations.push(Violation { invariant, what });
    }

    /// A request is handed to the loop.
    pub fn asked(&mut self, moment: Moment<'_>, id: u64, request: &Request) {
        if let Request::PutRevision { revision, .. } = request {
            self.progress.entry(revision.clone()).or_default();
        }
        self.each(moment, |checker, facts| {
            checker.asked(facts, id, request);
            Ok(())
        });
    }

    /// It was answered.
    pub fn answered(
        &mut self,
        moment: Moment<'_>,
        id: u64,
        request: &Request,
        answer: &Result<Answer, Refusal>,
    ) {
        self.look_at_disk(moment.image);
        self.each(moment, |checker, facts| {
            checker.answered(facts, id, request, answer)
        });
    }

    /// An upload was answered with success.
    pub fn uploaded(&mut self, moment: Moment<'_>, object: &ObjectId) {
        self.each(moment, |checker, facts| checker.uploaded(facts, object));
    }

    /// The loop is told.
    pub fn told(&mut self, moment: Moment<'_>, event: &RuntimeEvent) {
        self.each(moment, |checker, facts| {
            checker.told(facts, event);
            Ok(())
        });
    }

    /// The loop is told that a container is ready.
    pub fn signalled(&mut self, moment: Moment<'_>, container: &ContainerName) {
        self.each(moment, |checker, facts| {
            checker.signalled(facts, container);
            Ok(())
        });
    }

    /// The run time did something, or was asked to.
    pub fn seen(&mut self, moment: Moment<'_>, seen: &Seen) {
        if let Seen::StartAsked { markers, .. } | Seen::StopAsked { markers, .. } = seen {
            self.look_at_marker(markers.clone());
        }
        self.each(moment, |checker, facts| checker.seen(facts, seen));
    }

    /// The durable part of the disk may have changed.
    pub fn changed(&mut self, moment: Moment<'_>) {
        self.look_at_disk(moment.image);
        self.each(moment, |checker, facts| checker.changed(facts));
    }

    /// The orchestrator starts.
    pub fn started(&mut self, moment: Moment<'_>, cut: bool) {
        self.look_at_disk(moment.image);
        self.each(moment, |checker, facts| checker.started(facts, cut));
    }

    /// Faults have stopped, and nothing happens any more.
    pub fn settled(&mut self, moment: Moment<'_>, rest: &Rest) {
        self.look_at_disk(moment.image);
        self.each(moment, |checker, facts| checker.settled(facts, rest));
    }

    fn look_at_disk(&mut self, image: &dyn Image) {
        self.look_at_marker(records::MARKERS.map(|path| image.file(path)));
        for (revision, record) in &mut self.progress {
            record.update(revision, image);
        }
    }

    fn look_at_marker(&mut self, bytes: Markers) {
        if !same(&bytes, &self.marker_bytes) {
            self.marker = records::marker(&bytes);
            self.marker_bytes = bytes;
        }
    }

    /// A revision that is on the disk from the start.
    pub fn knows(&mut self, revision: &RevisionId) {
        self.progress.entry(revision.clone()).or_default();
    }
}

fn same(one: &Markers, other: &Markers) -> bool {
    one.iter().zip(other).all(|pair| match pair {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    })
}
