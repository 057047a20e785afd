//! Removing what nobody needs, in an order that cannot hurt: what was thrown away, what deleted revisions left, objects that no
//! revision names, parts of old uploads.
//!
//! It may be cut at any point and run again. Which objects stay is decided by the caller; an object with a lease stays too, and the
//! look at the lease and the unlinking are one step, so an upload that was answered keeps its object.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use model::{Instant, ObjectId, RevisionId};

use crate::disk::{Disk, EntryKind};
use crate::objects::Unlinked;
use crate::{Failed, Inner, Store, absent, failed, layout, lock};

/// Names that are gathered before they are removed, so that memory does not grow with their number.
const BATCH: usize = 1024;

/// What a collection has removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collected {
    /// Bytes of objects, parts, logs and volumes.
    pub bytes: u64,
    /// Objects.
    pub objects: u64,
}

/// What a collection would remove, looked at without removing anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collectable {
    /// What it would remove at that time, without volumes and logs.
    pub now: Collected,
    /// What it would leave only because of a lease; a later collection takes it.
    pub leased: Collected,
}

impl<D: Disk> Store<D> {
    /// What [`Store::collect`] would remove of objects and parts of uploads at the time `at`, if no lease is given until then.
    ///
    /// # Errors
    /// The disk failed.
    pub fn collectable(&self, keep: &[ObjectId], at: Instant) -> Result<Collectable, Failed> {
        let inner = &self.inner;
        let mut keep = keep.to_vec();
        keep.sort_unstable();
        let mut found = Collectable::default();
        let mut count = |object: &ObjectId, bytes: u64, objects: u64| {
            let part = match lock(&inner.objects).is_leased(object, at) {
                true => &mut found.leased,
                false => &mut found.now,
            };
            part.bytes += bytes;
            part.objects += objects;
        };
        self.visit_objects(&mut |object, len| {
            if keep.binary_search(&object).is_err() {
                count(&object, len, 1);
            }
            ControlFlow::Continue(())
        })?;
        for (object, path) in inner.parts()? {
            let len = inner.metadata_of(&path)?.map_or(0, |part| part.len);
            count(&object, len, 0);
        }
        Ok(found)
    }

    /// Bytes of volumes and logs that go with a revision.
    ///
    /// # Errors
    /// The disk failed.
    pub fn bytes_of_revision(&self, revision: &RevisionId) -> Result<u64, Failed> {
        let mut bytes = 0;
        for root in [layout::DISKS_REV, layout::LOGS] {
            bytes += self
                .inner
                .bytes_in(&Path::new(root).join(revision.as_str()))?;
        }
        Ok(bytes)
    }

    /// Removes every object that is neither in `keep` nor leased nor being uploaded, and all else that nobody needs. One
    /// collection at a time; a second one waits.
    ///
    /// # Errors
    /// The disk failed; what was removed until then stays removed, the rest goes next time.
    pub fn collect(&self, keep: &[ObjectId], now: Instant) -> Result<Collected, Failed> {
        let inner = &self.inner;
        let _guard = lock(&inner.collecting);
        let mut keep = keep.to_vec();
        keep.sort_unstable();
        let mut collected = Collected::default();
        inner.throw_away_orphans()?;
        for folder in folders_with_trash() {
            inner.empty_trash(&folder, &mut collected)?;
        }
        for revision in inner.revisions()? {
            inner.tidy_revision(&revision)?;
        }
        inner.collect_objects(&keep, now, &mut collected)?;
        inner.collect_parts(now, &mut collected)?;
        if inner.space_left(0)?.available == 0 {
            inner.empty_quarantine(&mut collected)?;
        }
        lock(&inner.objects).prune();
        inner.make_spare()?;
        Ok(collected)
    }
}

/// Folders in which something may lie that was built or thrown away.
pub(crate) fn folders_with_trash() -> impl Iterator<Item = PathBuf> {
    let roots = [layout::TRAILS, layout::DISKS_REV, layout::LOGS];
    let beside = [layout::DISKS, "."].into_iter().map(PathBuf::from);
    roots
        .into_iter()
        .flat_map(|root| [PathBuf::from(root), Path::new(root).join("locals")])
        .chain(beside)
}

impl<D: Disk> Inner<D> {
    /// Moves volumes and logs out of the way whose revision is gone.
    fn throw_away_orphans(&self) -> Result<(), Failed> {
        for root in [layout::DISKS_REV, layout::LOGS].map(Path::new) {
            let mut found: Vec<RevisionId> = Vec::new();
            self.visit_folders(root, &mut |name| found.extend(name.parse::<RevisionId>()))?;
            self.visit_folders(&root.join("locals"), &mut |name| {
                found.extend(format!("locals/{name}").parse::<RevisionId>());
            })?;
            for revision in found {
                // A revision that is being put right now has its volumes looked at under this lock too.
                let _guard = lock(&self.revisions);
                if self.metadata_of(&layout::revision(&revision))?.is_none() {
                    self.throw_away(&root.join(revision.as_str()))?;
                }
            }
        }
        Ok(())
    }

    /// Takes apart what was thrown away, and what was being built when the power went.
    fn empty_trash(&self, folder: &Path, collected: &mut Collected) -> Result<(), Failed> {
        let mut found = Vec::new();
        {
            // While this is held nothing is being built, so what looks so is a remnant.
            let _guard = lock(&self.revisions);
            self.visit_folders(folder, &mut |name| {
                if name.starts_with(layout::TRASH_PREFIX) || name.starts_with(layout::BUILD_PREFIX)
                {
                    found.push(folder.join(name));
                }
            })?;
        }
        if !found.is_empty() {
            // While a move out of the way is not durable, a cut may undo it; then nothing may be missing.
            self.sync_dir(folder)?;
        }
        for path in found {
            if !folder.starts_with(layout::TRAILS) {
                // Files of a revision are few and small, or links to objects that are counted there.
                collected.bytes += self.bytes_in(&path)?;
            }
            absent(self.disk.remove_dir_all(&path)).map_err(failed("remove", &path))?;
        }
        Ok(())
    }

    /// Bytes of all files in a folder.
    fn bytes_in(&self, path: &Path) -> Result<u64, Failed> {
        let (mut bytes, mut folders) = (0, vec![path.to_owned()]);
        while let Some(folder) = folders.pop() {
            for entry in self.list(&folder)? {
                let path = folder.join(entry.name);
                match entry.kind {
                    EntryKind::Dir => folders.push(path),
                    EntryKind::File => bytes += self.metadata_of(&path)?.map_or(0, |file| file.len),
                    EntryKind::Link | EntryKind::Other => {}
                }
            }
        }
        Ok(bytes)
    }

    /// Removes temporary files that a cut left beside a revision's files.
    fn tidy_revision(&self, revision: &RevisionId) -> Result<(), Failed> {
        let _guard = lock(&self.revisions);
        let folder = layout::revision(revision);
        self.remove_temporary(&folder.join(".pv"))?;
        self.remove_temporary(&folder.join(".pvr"))
    }

    fn collect_objects(
        &self,
        keep: &[ObjectId],
        now: Instant,
        collected: &mut Collected,
    ) -> Result<(), Failed> {
        let mut removed_any = false;
        loop {
            let mut batch = Vec::new();
            self.visit_object_names(&mut |object| {
                let stays = keep.binary_search(&object).is_ok()
                    || lock(&self.objects).is_leased(&object, now);
                if !stays {
                    batch.push(object);
                }
                if batch.len() < BATCH {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })?;
            for object in &batch {
                let len = self.object_len(object)?.unwrap_or(0);
                if let Unlinked::Removed = self.unlink_unleased(object, now)? {
                    collected.bytes += len;
                    collected.objects += 1;
                    removed_any = true;
                }
            }
            if batch.len() < BATCH {
                break;
            }
        }
        if removed_any {
            self.sync_dir(Path::new(layout::OBJECTS))?;
        }
        Ok(())
    }

    /// Parts of uploads, and those that Pantavisor left; at most so many at a time, the rest comes next time.
    fn parts(&self) -> Result<Vec<(ObjectId, PathBuf)>, Failed> {
        let mut parts = Vec::new();
        for (folder, end) in [(layout::INCOMING, ""), (layout::OBJECTS, ".tmp")] {
            let folder = Path::new(folder);
            let shown = self.disk.visit(folder, &mut |entry| {
                let (name, rest) = entry.name.split_at_checked(64).unwrap_or_default();
                if let Ok(object) = name.parse::<ObjectId>()
                    && entry.kind == EntryKind::File
                    && (end.is_empty() || rest == end)
                {
                    parts.push((object, folder.join(&entry.name)));
                }
                if parts.len() < BATCH {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            });
            absent(shown).map_err(failed("list", folder))?;
        }
        Ok(parts)
    }

    /// Removes parts of uploads that nobody has touched for the time of a lease.
    fn collect_parts(&self, now: Instant, collected: &mut Collected) -> Result<(), Failed> {
        for (object, path) in self.parts()? {
            let len = self.metadata_of(&path)?.map_or(0, |part| part.len);
            let mut table = lock(&self.objects);
            let now = table.tick(now);
            if !table.is_leased(&object, now) && self.remove_file(&path)? {
                collected.bytes += len;
            }
        }
        Ok(())
    }

    fn empty_quarantine(&self, collected: &mut Collected) -> Result<(), Failed> {
        let folder = Path::new(layout::QUARANTINE);
        for entry in self.list(folder)? {
            let path = folder.join(entry.name);
            let len = self.metadata_of(&path)?.map_or(0, |file| file.len);
            if self.remove_file(&path)? {
                collected.bytes += len;
            }
        }
        Ok(())
    }
}
