//! What running a revision would do: rehearsed with copies of the machines that will do it, then looked up in the store.
//!
//! The loop rehearses ([`Planned`]); what has to be looked at on the disk for it, which may be much, is looked at by whoever asked,
//! on another thread ([`Planned::measure`]). Nothing is changed, and no object is read: an update verifies them itself.

/// What the life cycle tells of an update.
pub use lifecycle::plan as update;

use lifecycle::plan::{Rehearsal, Scene, rehearse};
use lifecycle::retention::Kept;
use model::{Instant, Manifest, ObjectId, RevisionId, limits};
use store::disk::Disk;
use store::{Collectable, Collected, Failed, SpaceLeft, Store, explain};

use crate::carry::{objects_of, refusal};
use crate::device::Device;
use crate::handle::{PlanOf, Refusal};
use crate::ports::{Clock as _, World};
use crate::requests::revision_refusal;
use crate::room::Room;

/// What running a revision would do, as far as the loop knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Its name; `None` when it is not installed.
    pub revision: Option<RevisionId>,
    /// SHA-256 of its manifest.
    pub manifest: ObjectId,
    /// Bytes of the manifest.
    pub manifest_bytes: u64,
    /// What runs now.
    pub running: Option<RevisionId>,
    /// What the life cycle will do.
    pub rehearsal: Rehearsal,
    /// Every object that it needs, each with a key that needs it.
    pub objects: Vec<(ObjectId, String)>,
    /// Revisions that are removed when it is committed.
    pub removed: Vec<RevisionId>,
    /// Objects that stay then.
    pub keep: Vec<ObjectId>,
    /// When that is; `None` when it is not committed by itself, then nothing is removed.
    pub commits_at: Option<Instant>,
}

/// An object that a revision needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needed {
    /// Which.
    pub object: ObjectId,
    /// A key that needs it.
    pub key: String,
    /// Its size; `None` when it is not there.
    pub bytes: Option<u64>,
    /// Bytes of an interrupted upload that goes on there; 0 when it is there.
    pub uploaded: u64,
}

/// What the store knows of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// Every object, in text order.
    pub objects: Vec<Needed>,
    /// Space as it is now.
    pub space: SpaceLeft,
    /// What the collection after the commit removes of objects and parts of uploads.
    pub collectable: Collectable,
    /// Bytes of volumes and logs that go with the removed revisions, as of now.
    pub left: u64,
}

impl Planned {
    /// Looks up what the disk says about it. May take as long as there are many objects.
    ///
    /// # Errors
    /// The disk failed.
    pub fn measure<D: Disk>(&self, store: &Store<D>) -> Result<Measured, Failed> {
        let mut objects = Vec::with_capacity(self.objects.len());
        for (object, key) in &self.objects {
            let bytes = store.object_len(object)?;
            let uploaded = match bytes {
                Some(_) => 0,
                None => store.upload_offset(object)?.unwrap_or(0),
            };
            objects.push(Needed {
                object: *object,
                key: key.clone(),
                bytes,
                uploaded,
            });
        }
        let (mut collectable, mut left) = (Collectable::default(), 0);
        if let Some(at) = self.commits_at {
            collectable = store.collectable(&self.keep, at)?;
            for revision in &self.removed {
                left += store.bytes_of_revision(revision)?;
            }
            if let Some(again) = self.rehearsal.starts_again_after {
                // Leases end with the orchestrator; after its start everything is leased once, as uploads may have been under way.
                let both = Collected {
                    bytes: collectable.now.bytes + collectable.leased.bytes,
                    objects: collectable.now.objects + collectable.leased.objects,
                };
                let commit = self.rehearsal.committed_after.unwrap_or_default();
                let leased = commit.saturating_sub(again) < store.options().lease;
                let (now, leased) = match leased {
                    true => (Collected::default(), both),
                    false => (both, Collected::default()),
                };
                collectable = Collectable { now, leased };
            }
        }
        Ok(Measured {
            objects,
            space: store.space()?,
            collectable,
            left,
        })
    }
}

impl<W: World> Device<W> {
    pub(crate) fn plan(&mut self, now: Instant, of: PlanOf) -> Result<Planned, Refusal> {
        if let Some(trial) = self.waiting.clone() {
            return Err(Refusal::UpdateInProgress { trial });
        }
        let (installed, manifest, progress) = match of {
            PlanOf::Revision(revision) => {
                let bytes = self.store.read_manifest(&revision);
                let manifest = Manifest::parse(&bytes.map_err(revision_refusal)?)?;
                let progress = self.store.progress(&revision).ok().flatten();
                (Some(revision), manifest, progress)
            }
            PlanOf::Manifest(bytes) if bytes.len() > limits::MANIFEST_BYTES_MAX => {
                let (have, max) = (bytes.len(), limits::MANIFEST_BYTES_MAX);
                return Err(Refusal::Limit(format!(
                    "the manifest has {have} bytes; at most {max} are taken"
                )));
            }
            PlanOf::Manifest(bytes) => (None, Manifest::parse(&bytes)?, None),
        };
        let revision = installed
            .clone()
            .unwrap_or_else(|| name_of(manifest.digest()));
        let wanted = self.wanted(&revision, &manifest, progress.as_ref());
        let running = self
            .update()
            .and_then(|update| update.running())
            .map(|running| running.revision.clone());
        let running_manifest = match &running {
            Some(running) => self.manifest(running).ok(),
            None => None,
        };
        let stopped: Vec<_> = match self.store.stopped() {
            Ok(stopped) => stopped.into_iter().collect(),
            Err(error) => return Err(Refusal::Internal(explain(&error))),
        };
        let Some(update) = self.update() else {
            return Err(Refusal::NotReady);
        };
        if !self.containers.is_listed() {
            return Err(Refusal::NotListed);
        }
        let rehearsal = rehearse(&Scene {
            now,
            containers: &self.containers,
            update,
            running: running_manifest.as_deref(),
            next: &manifest,
            wanted,
            boot_takes: self
                .booted
                .is_some()
                .then(|| self.born.since(Instant::ZERO)),
            stopped: &stopped,
        })
        .map_err(refusal)?;
        let commits_at = rehearsal
            .committed_after
            .filter(|_| rehearsal.makes_room.is_some())
            .map(|after| now + after);
        let room = match commits_at {
            Some(at) => self.room_after(&rehearsal, &revision, &manifest, at.since(now))?,
            None => Room::default(),
        };
        Ok(Planned {
            revision: installed,
            manifest: manifest.digest(),
            manifest_bytes: u64::try_from(manifest.bytes().len()).unwrap_or(u64::MAX),
            running,
            objects: objects_of(&manifest),
            rehearsal,
            removed: room.removed,
            keep: room.keep.into_iter().collect(),
            commits_at,
        })
    }

    /// What room is made when it is committed, that much later.
    fn room_after(
        &self,
        rehearsal: &Rehearsal,
        revision: &RevisionId,
        manifest: &Manifest,
        later: std::time::Duration,
    ) -> Result<Room, Refusal> {
        let later = u64::try_from(later.as_millis()).unwrap_or(u64::MAX);
        let now_ms = self.ports.clock.wall().0.saturating_add(later);
        let mut revisions = self.kept_facts()?;
        revisions.retain(|known| known.revision != *revision);
        revisions.push(Kept {
            revision: revision.clone(),
            was_run: true,
            done: true,
            changed_ms: now_ms,
        });
        let in_use = rehearsal.makes_room.clone().unwrap_or_default();
        let mut room = self.room(&revisions, &rehearsal.marker, &in_use, now_ms)?;
        // One that is not installed yet has no manifest in the store.
        room.keep.extend(manifest.objects().into_keys());
        Ok(room)
    }
}

/// The name under which `coxctl install` would install it.
fn name_of(digest: ObjectId) -> RevisionId {
    format!("locals/{}", digest.short())
        .parse()
        .expect("twelve digits are the name of a revision")
}
