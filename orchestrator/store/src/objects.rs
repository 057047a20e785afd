//! Objects: bytes named by their SHA-256, immutable once they stand under their name.
//!
//! An object under its name is whole, unless the disk itself rots; whoever relies on it asks [`Store::verify_object`], which reads
//! it at most once per start. How objects come in is in `uploads`, how they go in `collect`.

use std::ops::ControlFlow;
use std::path::Path;

use model::{Instant, ObjectId};
use sha2::{Digest as _, Sha256};

use crate::disk::{Disk, EntryKind, ReadFile as _};
use crate::{Failed, Inner, Store, absent, failed, layout, lock};

/// Bytes read at a time while hashing.
const CHUNK_BYTES: usize = 256 << 10;
/// Corrupt objects that are kept for a person to look at.
const QUARANTINED_MAX: usize = 4;

/// Finds the name of bytes that come in pieces.
#[derive(Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Nothing hashed yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Hashes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The name of all bytes so far.
    pub fn finish(self) -> ObjectId {
        ObjectId::from_digest(self.0.finalize().into())
    }
}

/// What became of looking at an object.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is there and whole.
    Good,
    /// It is not there.
    Missing,
    /// Its bytes had another hash. It has been moved to quarantine, so it is missing now.
    Corrupt,
    /// It is there but cannot be read. It was left where it is.
    Unreadable(String),
}

/// When an object counts as verified without being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// When its file bears the seal of the record, or it was read since the start: for what the marker names already, so that a start
    /// is quick.
    Believing,
    /// When it was read since the start: for what is to be relied on anew.
    Once,
    /// Never.
    Always,
}

/// Why an object was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// An upload or a revision that is being put needs it.
    #[error("object {0} was uploaded or asked for a short time ago; try again in some minutes")]
    Leased(ObjectId),
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] Failed),
}

impl<D: Disk> Store<D> {
    /// Size of an object in bytes; `None` when it is not there. One that was found unreadable since the start counts as not there, so that
    /// clients send it again.
    ///
    /// # Errors
    /// The disk failed.
    pub fn object_len(&self, object: &ObjectId) -> Result<Option<u64>, Failed> {
        let Some(len) = self.inner.object_len(object)? else {
            return Ok(None);
        };
        self.inner.settle_name(object)?;
        Ok((!lock(&self.inner.objects).is_unreadable(object)).then_some(len))
    }

    /// Whether an object is there, as [`Store::object_len`] says (see [`Store::verify_object`] for whether it is whole).
    ///
    /// # Errors
    /// The disk failed.
    pub fn has_object(&self, object: &ObjectId) -> Result<bool, Failed> {
        Ok(self.object_len(object)?.is_some())
    }

    /// Opens an object to read any part of it; `None` when it is not there.
    ///
    /// # Errors
    /// The disk failed.
    pub fn open_object(&self, object: &ObjectId) -> Result<Option<D::Read>, Failed> {
        let path = layout::object(object);
        let opened = absent(self.inner.disk.open(&path)).map_err(failed("open", &path))?;
        if opened.is_some() {
            self.inner.settle_name(object)?;
        }
        Ok(opened)
    }

    /// Shows every object with its size, in no particular order, in memory that does not grow with their number; those that were found
    /// unreadable are left out, as in [`Store::object_len`].
    ///
    /// # Errors
    /// The disk failed; some may have been shown.
    pub fn visit_objects(
        &self,
        visitor: &mut dyn FnMut(ObjectId, u64) -> ControlFlow<()>,
    ) -> Result<(), Failed> {
        let inner = &self.inner;
        let mut problem = None;
        inner.visit_object_names(&mut |object| match self.object_len(&object) {
            Ok(Some(len)) => visitor(object, len),
            Ok(None) => ControlFlow::Continue(()),
            Err(error) => {
                problem = Some(error);
                ControlFlow::Break(())
            }
        })?;
        problem.map_or(Ok(()), Err)
    }

    /// Removes an object that nobody needs; whether it was there. The caller has made sure that no revision names it.
    ///
    /// # Errors
    /// It is leased, or the disk failed.
    pub fn remove_object(&self, object: &ObjectId, now: Instant) -> Result<bool, RemoveError> {
        let inner = &self.inner;
        match inner.unlink_unleased(object, now)? {
            Unlinked::Leased => Err(RemoveError::Leased(*object)),
            Unlinked::Missing => Ok(false),
            Unlinked::Removed => {
                inner.sync_dir(Path::new(layout::OBJECTS))?;
                Ok(true)
            }
        }
    }

    /// Keeps collection away from these objects for the time of a lease, whether they are there yet or not.
    pub fn lease_objects(&self, objects: impl IntoIterator<Item = ObjectId>, now: Instant) {
        let mut table = lock(&self.inner.objects);
        let until = table.tick(now) + self.inner.options.lease;
        for object in objects {
            table.lease(object, until);
        }
    }

    /// Whether an object is there and whole. A corrupt one goes to quarantine.
    ///
    /// # Errors
    /// The corrupt object could not be moved away.
    pub fn verify_object(&self, object: &ObjectId, reading: Reading) -> Result<Verdict, Failed> {
        let verdict = self.inner.verify_object(object, reading)?;
        // What is good may be named by the marker next.
        match self.inner.settle_name(object) {
            Err(error) if verdict == Verdict::Good => {
                Ok(Verdict::Unreadable(crate::explain(&error)))
            }
            Ok(()) | Err(_) => Ok(verdict),
        }
    }
}

pub(crate) enum Unlinked {
    Leased,
    Missing,
    Removed,
}

impl<D: Disk> Inner<D> {
    /// Called by who has found an object and tells of it: one that has just got its name must not be gone after a power cut. Nearly
    /// always there is nothing to do.
    pub(crate) fn settle_name(&self, object: &ObjectId) -> Result<(), Failed> {
        if !lock(&self.objects).is_settling(object) {
            return Ok(());
        }
        self.make_name_durable(object)
    }

    pub(crate) fn make_name_durable(&self, object: &ObjectId) -> Result<(), Failed> {
        self.sync_dir(Path::new(layout::OBJECTS))?;
        lock(&self.objects).set_durable(object);
        Ok(())
    }

    pub(crate) fn object_len(&self, object: &ObjectId) -> Result<Option<u64>, Failed> {
        let found = self.metadata_of(&layout::object(object))?;
        Ok(found
            .filter(|found| found.kind == EntryKind::File)
            .map(|found| found.len))
    }

    pub(crate) fn visit_object_names(
        &self,
        visitor: &mut dyn FnMut(ObjectId) -> ControlFlow<()>,
    ) -> Result<(), Failed> {
        let folder = Path::new(layout::OBJECTS);
        let shown = self.disk.visit(folder, &mut |entry| {
            // Other names (Pantavisor's `.tmp` files, our own folders) are not objects.
            match entry.name.parse() {
                Ok(object) if entry.kind == EntryKind::File => visitor(object),
                Ok(_) | Err(_) => ControlFlow::Continue(()),
            }
        });
        absent(shown).map_err(failed("list", folder))?;
        Ok(())
    }

    /// Atomic to leases: the lock is held from the look at the lease until the name is gone. Not synced.
    pub(crate) fn unlink_unleased(
        &self,
        object: &ObjectId,
        now: Instant,
    ) -> Result<Unlinked, Failed> {
        let mut table = lock(&self.objects);
        let now = table.tick(now);
        if table.is_leased(object, now) {
            return Ok(Unlinked::Leased);
        }
        table.forget_verified(object);
        if self.remove_file(&layout::object(object))? {
            Ok(Unlinked::Removed)
        } else {
            Ok(Unlinked::Missing)
        }
    }

    /// Stamp of an object's file; `None` when it is not there.
    pub(crate) fn object_stamp(&self, object: &ObjectId) -> Result<Option<u64>, Failed> {
        let found = self.metadata_of(&layout::object(object))?;
        Ok(found
            .filter(|found| found.kind == EntryKind::File)
            .map(|found| found.stamp))
    }

    pub(crate) fn verify_object(
        &self,
        object: &ObjectId,
        reading: Reading,
    ) -> Result<Verdict, Failed> {
        let known_suffices = match reading {
            Reading::Believing => true,
            Reading::Once => !self.is_only_believed(object),
            Reading::Always => false,
        };
        let stamp = match self.object_stamp(object) {
            Ok(stamp @ Some(_))
                if known_suffices && lock(&self.objects).verified(object) == stamp =>
            {
                return Ok(Verdict::Good);
            }
            // From here on "verified" means: by somebody else meanwhile.
            Ok(Some(stamp)) => {
                lock(&self.objects).forget_verified(object);
                stamp
            }
            Ok(None) => {
                lock(&self.objects).forget_verified(object);
                return Ok(Verdict::Missing);
            }
            Err(error) => return Ok(Verdict::Unreadable(crate::explain(&error))),
        };
        if reading == Reading::Believing && self.believes(object) {
            lock(&self.objects).set_verified(*object, stamp);
            return Ok(Verdict::Good);
        }
        let found = self.hash_file(&layout::object(object));
        self.is_not_only_believed(object);
        match found {
            Ok(None) => Ok(Verdict::Missing),
            Ok(Some(found)) if found == *object => {
                // With the stamp from before: what was changed while it was read is read again next time.
                lock(&self.objects).set_verified(*object, stamp);
                Ok(Verdict::Good)
            }
            Ok(Some(_)) => self.quarantine(object),
            Err(error) => {
                lock(&self.objects).set_unreadable(*object);
                Ok(Verdict::Unreadable(crate::explain(&error)))
            }
        }
    }

    /// The name that the bytes of a file deserve; `None` when it is not there.
    pub(crate) fn hash_file(&self, path: &Path) -> Result<Option<ObjectId>, Failed> {
        let Some(mut file) = absent(self.disk.open(path)).map_err(failed("open", path))? else {
            return Ok(None);
        };
        let mut hasher = Hasher::new();
        read_through::<D>(&mut file, path, &mut |bytes| hasher.update(bytes))?;
        Ok(Some(hasher.finish()))
    }

    /// Moves a corrupt object out of the way, and the oldest one out of quarantine when that is full.
    fn quarantine(&self, object: &ObjectId) -> Result<Verdict, Failed> {
        let folder = Path::new(layout::QUARANTINE);
        self.make_folder(folder)?;
        let kept = self.list(folder)?;
        let mut numbers: Vec<(u64, &str)> = kept
            .iter()
            .filter_map(|entry| Some((quarantine_number(&entry.name)?, entry.name.as_str())))
            .collect();
        numbers.sort_unstable();
        let next = numbers.last().map_or(0, |(number, _)| number + 1);
        let surplus = (numbers.len() + 1).saturating_sub(QUARANTINED_MAX);
        for (_, name) in numbers.iter().take(surplus) {
            self.remove_file(&folder.join(name))?;
        }
        {
            let table = lock(&self.objects);
            if table.verified(object).is_some() {
                // An upload has put a good one there since we read the bad one.
                return Ok(Verdict::Good);
            }
            self.rename(
                &layout::object(object),
                &folder.join(format!("{object}.{next}")),
            )?;
        }
        self.sync_dir(Path::new(layout::OBJECTS))?;
        self.sync_dir(folder)?;
        Ok(Verdict::Corrupt)
    }
}

fn quarantine_number(name: &str) -> Option<u64> {
    name.rsplit_once('.')?.1.parse().ok()
}

/// Shows all bytes of a file in pieces.
pub(crate) fn read_through<D: Disk>(
    file: &mut D::Read,
    path: &Path,
    visitor: &mut dyn FnMut(&[u8]),
) -> Result<u64, Failed> {
    let len = file.len().map_err(failed("look at", path))?;
    let chunk = usize::try_from(len).map_or(CHUNK_BYTES, |len| len.clamp(1, CHUNK_BYTES));
    let mut buffer = vec![0; chunk];
    let mut offset = 0;
    loop {
        let count = file
            .read_at(offset, &mut buffer)
            .map_err(failed("read", path))?;
        if count == 0 {
            return Ok(offset);
        }
        visitor(&buffer[..count]);
        offset += count as u64;
    }
}
