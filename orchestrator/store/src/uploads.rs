//! Objects on their way in: written to a part, hashed, made durable, compared, and only then given their name.
//!
//! Writing and hashing are separate pieces, so that a server can do them in two threads; [`HashedUpload`] does both in one. An
//! upload that is dropped leaves a part that can be resumed; after a power cut a part may hold anything, which the hash over the
//! *whole* part at the end finds out. Several uploads of one object may run at once: the first one has the resumable part, the others
//! write to files of their own, and whoever ends first gives the object its name.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use model::{Instant, ObjectId};

use crate::disk::{Disk, EntryKind, WriteFile as _};
use crate::leases::Active;
use crate::objects::{Hasher, Reading, Verdict, read_through};
use crate::{Failed, Inner, Store, absent, failed, is_full, layout, lock};

/// Bytes after which write-back is started, so that the sync at the end is short.
const WRITEBACK_BYTES: u64 = 8 << 20;
/// Bytes after which the free space is looked at again.
const SPACE_CHECK_BYTES: u64 = 4 << 20;

/// Why an upload failed.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// There is no room, with the reserve kept free. The part has been removed.
    #[error(
        "not enough disk space: {needed} bytes are needed and {available} may be used; collect or remove revisions first"
    )]
    NoSpace {
        /// Bytes that were to be written.
        needed: u64,
        /// Bytes that uploads may take.
        available: u64,
    },
    /// The bytes are not those of the object. The part has been removed, so the next upload starts anew.
    #[error("object {expected} was sent as bytes with the hash {found}")]
    WrongHash {
        /// The object.
        expected: ObjectId,
        /// What the bytes are.
        found: ObjectId,
    },
    /// Fewer bytes came than were announced. The part is kept.
    #[error("the upload ended after {written} of {expected} bytes; it can be resumed there")]
    Short {
        /// Bytes announced.
        expected: u64,
        /// Bytes that came.
        written: u64,
    },
    /// More bytes came than were announced. The part has been removed.
    #[error("the upload is longer than the {expected} bytes that were announced")]
    TooLong {
        /// Bytes announced.
        expected: u64,
    },
    /// A resumed upload must go on where the part ends.
    #[error("the upload can be resumed at byte {kept} only")]
    WrongOffset {
        /// Bytes that are there.
        kept: u64,
    },
    /// Another upload writes to the part.
    #[error("another upload of this object is under way; wait for it or send the whole object")]
    Busy,
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] Failed),
}

/// An object of which something has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Which.
    pub object: ObjectId,
    /// Bytes that are there.
    pub bytes: u64,
    /// Its size, when it is being uploaded by a client that has told it.
    pub expected: Option<u64>,
    /// Whether it is being uploaded now.
    pub active: bool,
}

/// How an upload begins.
pub enum Begun<D: Disk> {
    /// The object is there, whole and leased: answer at once, the body is not needed.
    Exists,
    /// Send the bytes.
    Upload(Incoming<D>),
}

/// What the end of an upload leaves of the part.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AtDrop {
    Keep,
    Remove,
    Nothing,
}

/// An object on its way in. Dropped before [`Incoming::finish`], it leaves a part that can be resumed.
pub struct Incoming<D: Disk> {
    inner: Arc<Inner<D>>,
    active: Arc<Active>,
    path: PathBuf,
    file: Option<D::Write>,
    kept: u64,
    written: u64,
    until_writeback: u64,
    until_space_check: u64,
    at_drop: AtDrop,
}

impl<D: Disk> Store<D> {
    /// Begins an upload, or says that the object is there: verified (by reading it, when that was not done since the start, which
    /// may take seconds) and leased. A part that an earlier upload left is given up.
    ///
    /// # Errors
    /// No space, or the disk failed.
    pub fn begin_upload(
        &self,
        object: ObjectId,
        expected: Option<u64>,
        now: Instant,
    ) -> Result<Begun<D>, UploadError> {
        if self.inner.admit_existing(object, now)? {
            return Ok(Begun::Exists);
        }
        Inner::start_upload(&self.inner, object, expected).map(Begun::Upload)
    }

    /// Goes on with an upload at `offset`, which must be where the part ends. `expected` is the size of the whole object. The kept
    /// bytes have to be hashed again: [`Incoming::read_kept`].
    ///
    /// # Errors
    /// Wrong offset, the part is in use, no space, or the disk failed.
    pub fn resume_upload(
        &self,
        object: ObjectId,
        offset: u64,
        expected: Option<u64>,
        now: Instant,
    ) -> Result<Begun<D>, UploadError> {
        if self.inner.admit_existing(object, now)? {
            return Ok(Begun::Exists);
        }
        Inner::continue_upload(&self.inner, object, offset, expected).map(Begun::Upload)
    }

    /// Bytes that an interrupted upload has left; `None` when there is no part.
    ///
    /// # Errors
    /// The disk failed.
    pub fn upload_offset(&self, object: &ObjectId) -> Result<Option<u64>, Failed> {
        self.inner.part_len(object)
    }

    /// Parts that can be resumed, and what is being uploaded now, each with its bytes so far; by name.
    ///
    /// # Errors
    /// The disk failed.
    pub fn incoming(&self) -> Result<Vec<Part>, Failed> {
        let mut parts = BTreeMap::new();
        for object in self.inner.part_names()? {
            // A part that has become an object meanwhile is none.
            if let Some(bytes) = self.inner.part_len(&object)? {
                parts.insert(object, (bytes, None, false));
            }
        }
        for active in self.uploads() {
            let known = parts.entry(active.object).or_insert((0, None, true));
            *known = (known.0.max(active.written()), active.expected, true);
        }
        Ok(parts
            .into_iter()
            .map(|(object, (bytes, expected, active))| Part {
                object,
                bytes,
                expected,
                active,
            })
            .collect())
    }

    /// The uploads that are under way.
    pub fn uploads(&self) -> Vec<Arc<Active>> {
        lock(&self.inner.objects).active().to_vec()
    }
}

impl<D: Disk> Inner<D> {
    /// Names of the parts; uploads that came second have files with longer names.
    fn part_names(&self) -> Result<Vec<ObjectId>, Failed> {
        let folder = Path::new(layout::INCOMING);
        let mut names: Vec<ObjectId> = Vec::new();
        let shown = self.disk.visit(folder, &mut |entry| {
            names.extend(entry.name.parse::<ObjectId>().ok());
            ControlFlow::Continue(())
        });
        absent(shown).map_err(failed("list", folder))?;
        Ok(names)
    }

    fn part_len(&self, object: &ObjectId) -> Result<Option<u64>, Failed> {
        let found = self.metadata_of(&layout::part(object))?;
        Ok(found
            .filter(|found| found.kind == EntryKind::File)
            .map(|found| found.len))
    }

    /// Makes the name of an object durable, once.
    fn sync_object_name(&self, object: &ObjectId) -> Result<(), Failed> {
        if lock(&self.objects).is_durable(object) {
            return Ok(());
        }
        self.make_name_durable(object)
    }

    /// Leases the object and says whether it is there, whole and durable.
    fn admit_existing(&self, object: ObjectId, now: Instant) -> Result<bool, Failed> {
        {
            let mut table = lock(&self.objects);
            let until = table.tick(now) + self.options.lease;
            // Also when it is not there: the part and what it becomes are kept from collection.
            table.lease(object, until);
        }
        // Who sends it once more may know that it is damaged.
        match self.verify_object(&object, Reading::Once)? {
            Verdict::Good => {
                // The upload or the process that put it there may have ended before its sync.
                self.sync_object_name(&object)?;
                Ok(true)
            }
            // The good copy that is being sent takes the place of one that cannot be read.
            Verdict::Missing | Verdict::Corrupt | Verdict::Unreadable(_) => Ok(false),
        }
    }

    fn start_upload(
        self: &Arc<Self>,
        object: ObjectId,
        expected: Option<u64>,
    ) -> Result<Incoming<D>, UploadError> {
        self.make_folder(Path::new(layout::INCOMING))?;
        let active = lock(&self.objects).start(object, expected, 0);
        let path = if active.private {
            Path::new(layout::INCOMING).join(format!("{object}.{}", self.unique()))
        } else {
            layout::part(&object)
        };
        let mut incoming = Incoming::new(self, active, path, 0);
        // Its space is free then; and a part that was made read-only just before a power cut could not be opened to write.
        self.remove_file(&incoming.path)?;
        self.check_space(&incoming.active)?;
        let file = self.disk.create(&incoming.path);
        incoming.file = Some(file.map_err(failed("create", &incoming.path))?);
        Ok(incoming)
    }

    fn continue_upload(
        self: &Arc<Self>,
        object: ObjectId,
        offset: u64,
        expected: Option<u64>,
    ) -> Result<Incoming<D>, UploadError> {
        self.make_folder(Path::new(layout::INCOMING))?;
        let active = {
            let mut table = lock(&self.objects);
            if table.part_is_taken(&object) {
                return Err(UploadError::Busy);
            }
            table.start(object, expected, offset)
        };
        let mut incoming = Incoming::new(self, active, layout::part(&object), offset);
        let kept = self.part_len(&object)?.unwrap_or(0);
        if offset != kept {
            return Err(UploadError::WrongOffset { kept });
        }
        self.check_space(&incoming.active)?;
        let file = if kept == 0 {
            self.disk.create(&incoming.path)
        } else {
            self.disk.open_append(&incoming.path)
        };
        incoming.file = Some(file.map_err(failed("open", &incoming.path))?);
        Ok(incoming)
    }

    /// Whether the rest of an upload fits, with the reserve and what other uploads were promised left alone.
    fn check_space(&self, active: &Active) -> Result<(), UploadError> {
        let needed = active.remaining();
        let others = lock(&self.objects).promised().saturating_sub(needed);
        let available = self.space_left(others)?.available;
        if needed > available || available == 0 {
            return Err(UploadError::NoSpace { needed, available });
        }
        Ok(())
    }
}

impl<D: Disk> Incoming<D> {
    fn new(inner: &Arc<Inner<D>>, active: Arc<Active>, path: PathBuf, kept: u64) -> Self {
        Self {
            inner: Arc::clone(inner),
            at_drop: if active.private {
                AtDrop::Remove
            } else {
                AtDrop::Keep
            },
            active,
            path,
            file: None,
            kept,
            written: kept,
            until_writeback: WRITEBACK_BYTES,
            until_space_check: 0,
        }
    }

    /// Leaves what has come as a part that can be resumed, durably; how many bytes that are.
    ///
    /// # Errors
    /// The disk failed; what is left of the part is not known before it is looked at.
    pub fn keep(mut self) -> Result<u64, UploadError> {
        let mut file = self.file.take().expect("it is open until finish");
        if let Err(source) = file.sync() {
            return Err(self.write_failed(source, self.written));
        }
        self.inner.sync_dir(Path::new(layout::INCOMING))?;
        if self.at_drop == AtDrop::Keep {
            self.at_drop = AtDrop::Nothing;
        }
        Ok(self.written)
    }

    /// What is being uploaded.
    pub fn object(&self) -> ObjectId {
        self.active.object
    }

    /// Bytes so far, kept ones included.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Shows the bytes that a resumed upload starts with, to be hashed. Nothing for a new upload.
    ///
    /// # Errors
    /// The disk failed.
    pub fn read_kept(&self, visitor: &mut dyn FnMut(&[u8])) -> Result<(), Failed> {
        if self.kept == 0 {
            return Ok(());
        }
        let disk = &self.inner.disk;
        let mut file = disk.open(&self.path).map_err(failed("open", &self.path))?;
        read_through::<D>(&mut file, &self.path, visitor)?;
        Ok(())
    }

    /// Writes the next bytes. Does not hash them.
    ///
    /// # Errors
    /// No space or too long (the part is removed at drop), or the disk failed.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), UploadError> {
        let count = bytes.len() as u64;
        let written = self.written.saturating_add(count);
        if let Some(expected) = self.active.expected
            && written > expected
        {
            self.at_drop = AtDrop::Remove;
            return Err(UploadError::TooLong { expected });
        }
        if self.until_space_check < count {
            self.check_space(count)?;
            self.until_space_check = SPACE_CHECK_BYTES;
        }
        self.until_space_check = self.until_space_check.saturating_sub(count);
        let file = self.file.as_mut().expect("it is open until finish");
        if let Err(source) = file.append(bytes) {
            // How much of it was written is not known, so the part cannot be resumed.
            self.at_drop = AtDrop::Remove;
            return Err(self.write_failed(source, count));
        }
        self.written = written;
        self.active.written.store(written, Ordering::Relaxed);
        self.until_writeback = self.until_writeback.saturating_sub(count);
        if self.until_writeback == 0 {
            file.start_writeback();
            self.until_writeback = WRITEBACK_BYTES;
        }
        Ok(())
    }

    /// The reserve is looked at while writing too: others write, and the size may not have been told.
    fn check_space(&mut self, needed: u64) -> Result<(), UploadError> {
        let available = self.inner.space_left(0)?.available;
        if needed > available {
            self.at_drop = AtDrop::Remove;
            return Err(UploadError::NoSpace { needed, available });
        }
        Ok(())
    }

    fn write_failed(&self, source: std::io::Error, needed: u64) -> UploadError {
        if is_full(&source) {
            let available = self.inner.space_left(0).map_or(0, |left| left.available);
            return UploadError::NoSpace { needed, available };
        }
        failed("write", &self.path)(source).into()
    }

    /// Gives the bytes their name, when `digest`, computed over *all* of them, is that of the object. Returns when that is durable.
    ///
    /// # Errors
    /// Wrong hash or an error of the disk (the part is removed), or too few bytes (the part is kept).
    pub fn finish(mut self, digest: ObjectId, now: Instant) -> Result<(), UploadError> {
        let object = self.active.object;
        if let Some(expected) = self.active.expected
            && self.written < expected
        {
            return Err(UploadError::Short {
                expected,
                written: self.written,
            });
        }
        self.at_drop = AtDrop::Remove;
        if digest != object {
            return Err(UploadError::WrongHash {
                expected: object,
                found: digest,
            });
        }
        let inner = Arc::clone(&self.inner);
        // Before the sync, so that the mode is durable with the content.
        inner
            .disk
            .set_read_only(&self.path)
            .map_err(failed("make read-only", &self.path))?;
        let mut file = self.file.take().expect("it is open until finish");
        if let Err(source) = file.sync() {
            return Err(self.write_failed(source, self.written));
        }
        drop(file);
        {
            let mut table = lock(&inner.objects);
            let until = table.tick(now) + inner.options.lease;
            table.lease(object, until);
            let there = inner.object_stamp(&object)?;
            let known_good = there.is_some() && table.verified(&object) == there;
            if !known_good {
                // From here on who finds it makes sure that it stays before anybody is told of it.
                table.set_settling(object);
                inner.rename(&self.path, &layout::object(&object))?;
                if let Some(stamp) = inner.object_stamp(&object)? {
                    table.set_verified(object, stamp);
                }
                self.at_drop = AtDrop::Nothing;
            }
        }
        // Also when another upload came first: its own sync may not have happened yet.
        // That the part has lost its name need not be durable: a name that comes back stands for the whole object, which the next
        // upload finds first, and which nothing is appended to while it is good.
        inner.sync_object_name(&object).map_err(UploadError::from)
    }

    /// Gives the upload up; nothing of it is left.
    pub fn abandon(mut self) {
        self.at_drop = AtDrop::Remove;
    }
}

impl<D: Disk> Drop for Incoming<D> {
    fn drop(&mut self) {
        let file = self.file.take();
        match self.at_drop {
            AtDrop::Keep => {
                // Best effort: a part that is lost or torn costs only another upload.
                if let Some(mut file) = file
                    && file.sync().is_ok()
                {
                    drop(self.inner.disk.sync_dir(Path::new(layout::INCOMING)));
                }
            }
            AtDrop::Remove => {
                drop(file);
                // What cannot be removed now is removed by the next upload of the object, or by collect.
                drop(self.inner.disk.remove_file(&self.path));
            }
            AtDrop::Nothing => drop(file),
        }
        let mut table = lock(&self.inner.objects);
        let until = table.now() + self.inner.options.lease;
        table.lease(self.active.object, until);
        table.end(&self.active);
    }
}

/// An upload that hashes what it writes, in the same thread.
pub struct HashedUpload<D: Disk> {
    incoming: Incoming<D>,
    hasher: Hasher,
}

impl<D: Disk> HashedUpload<D> {
    /// Hashes what a resumed upload starts with.
    ///
    /// # Errors
    /// The disk failed.
    pub fn new(incoming: Incoming<D>) -> Result<Self, Failed> {
        let mut hasher = Hasher::new();
        incoming.read_kept(&mut |bytes| hasher.update(bytes))?;
        Ok(Self { incoming, hasher })
    }

    /// Writes and hashes the next bytes.
    ///
    /// # Errors
    /// See [`Incoming::append`].
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), UploadError> {
        self.incoming.append(bytes)?;
        self.hasher.update(bytes);
        Ok(())
    }

    /// Bytes so far, kept ones included.
    pub fn written(&self) -> u64 {
        self.incoming.written()
    }

    /// See [`Incoming::finish`].
    ///
    /// # Errors
    /// See there.
    pub fn finish(self, now: Instant) -> Result<(), UploadError> {
        self.incoming.finish(self.hasher.finish(), now)
    }

    /// See [`Incoming::abandon`].
    pub fn abandon(self) {
        self.incoming.abandon();
    }
}
