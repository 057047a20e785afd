//! Making room: which revisions go, and with them which objects. The objects are removed by a job.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use lifecycle::retention::{self, Kept};
use model::marker::Marker;
use model::progress::{Progress, State};
use model::{Manifest, ObjectId, RevisionId};
use store::{RevisionError, explain};

use crate::device::Device;
use crate::handle::{Answer, Refusal, Reply};
use crate::ports::{Clock as _, Job, Jobs as _, World};
use crate::requests::disk_refusal;

/// What makes room.
#[derive(Debug, Default)]
pub(crate) struct Room {
    /// Revisions that go.
    pub(crate) removed: Vec<RevisionId>,
    /// Objects that stay.
    pub(crate) keep: BTreeSet<ObjectId>,
}

impl<W: World> Device<W> {
    /// Removes revisions that are not kept, then has the objects that no kept one names removed. `asker` is answered at the end.
    pub(crate) fn collect(&mut self, asker: Option<Reply>) -> Result<(), Refusal> {
        let outcome = if self.collecting.is_some() {
            Err(Refusal::Busy)
        } else {
            self.objects_to_keep()
        };
        match (outcome, asker) {
            (Ok(keep), asker) => {
                self.collecting = Some(asker.into_iter().collect());
                self.ports.jobs.submit(Job::Collect { keep });
                Ok(())
            }
            (Err(refusal), Some(reply)) => {
                reply(Err(refusal));
                Ok(())
            }
            (Err(refusal), None) => Err(refusal),
        }
    }

    fn objects_to_keep(&mut self) -> Result<Vec<ObjectId>, Refusal> {
        let Some(update) = self.update() else {
            return Err(Refusal::NotReady);
        };
        let marker = update.marker().clone();
        let mut in_use = self.containers.revisions_in_use();
        in_use.extend(update.installing().cloned());
        in_use.extend(self.durably_named().cloned());
        in_use.extend(self.waiting.clone());
        in_use.extend(update.running().map(|running| running.revision.clone()));
        in_use.extend(update.base().map(|base| base.revision.clone()));
        let revisions = self.kept_facts()?;
        let room = self.room(&revisions, &marker, &in_use, self.ports.clock.wall().0)?;
        for revision in room.removed {
            self.store
                .delete_revision(&revision)
                .map_err(|error| disk_refusal(&error))?;
            let text = "removed to make room".to_owned();
            self.tell("collected", Some(revision), None, text);
        }
        Ok(room.keep.into_iter().collect())
    }

    /// Which of these revisions go, and which objects stay.
    pub(crate) fn room(
        &self,
        revisions: &[Kept],
        marker: &Marker,
        in_use: &BTreeSet<RevisionId>,
        now_ms: u64,
    ) -> Result<Room, Refusal> {
        let kept = retention::keep(
            revisions,
            marker,
            in_use,
            self.settings.keep_revisions,
            self.settings.lease,
            now_ms,
        );
        let mut room = Room::default();
        for revision in kept.keys() {
            let bytes = match self.store.read_manifest(revision) {
                Ok(bytes) => bytes,
                Err(RevisionError::Missing(_)) => continue,
                Err(error) => return Err(unknown_objects(revision, &explain(&error))),
            };
            // Also of a manifest that this version would refuse the objects must stay: nothing is removed then.
            let manifest = Manifest::parse(&bytes)
                .map_err(|error| unknown_objects(revision, &error.to_string()))?;
            room.keep.extend(manifest.objects().into_keys());
        }
        let gone = revisions
            .iter()
            .map(|known| &known.revision)
            .filter(|revision| !kept.contains_key(*revision));
        room.removed = gone.cloned().collect();
        Ok(room)
    }

    /// What a start would look at if the power were cut now.
    pub(crate) fn durably_named(&self) -> impl Iterator<Item = &RevisionId> {
        let marker = &self.durable;
        let trial = marker.trial.as_ref().map(|trial| &trial.revision);
        [marker.committed.as_ref(), marker.previous.as_ref(), trial]
            .into_iter()
            .flatten()
    }

    pub(crate) fn kept_facts(&self) -> Result<Vec<Kept>, Refusal> {
        let mut revisions = Vec::new();
        self.store
            .visit_revisions(&mut |entry| {
                let progress = entry
                    .progress
                    .as_deref()
                    .and_then(|bytes| serde_json::from_slice::<Progress>(bytes).ok());
                revisions.push(Kept {
                    was_run: progress.is_some_and(|progress| progress.status != State::New),
                    done: entry.done,
                    changed_ms: entry.modified_ms,
                    revision: entry.revision,
                });
                ControlFlow::Continue(())
            })
            .map_err(|error| disk_refusal(&error))?;
        Ok(revisions)
    }

    pub(crate) fn on_collected(&mut self, result: Result<u64, String>) {
        let text = match &result {
            Ok(bytes) => format!("{bytes} bytes freed"),
            Err(error) => format!("stopped early: {error}"),
        };
        self.tell("collected", None, None, text);
        for reply in self.collecting.take().into_iter().flatten() {
            reply(
                result
                    .clone()
                    .map(|reclaimed| Answer::Collected { reclaimed })
                    .map_err(Refusal::Internal),
            );
        }
    }
}

fn unknown_objects(revision: &RevisionId, error: &str) -> Refusal {
    Refusal::Internal(format!(
        "nothing is removed, because the objects of revision {revision} cannot be told ({error}); \
         install it again or delete it"
    ))
}
