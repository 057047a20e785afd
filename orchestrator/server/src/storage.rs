//! What the server reads and writes past the loop: objects, and revisions to read. One trait, so that handlers do not carry the type of the
//! disk; the store implements it.
//!
//! Every method may wait for the disk: handlers call them on threads where that is allowed.

use std::io;
use std::ops::ControlFlow;

use device::plan::{Measured, Planned};
use model::failure::Failure;
use model::{Instant, ObjectId, RevisionId, WallTime};
use store::disk::{Disk, ReadFile as _};
use store::failures::FailureError;
use store::objects::RemoveError;
use store::revisions::RevisionError;
use store::{Begun, Failed, Incoming, Part, SpaceLeft, Store, UploadError};

/// Why something that is there could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] Failed),
    /// It is not what was written; the text says what and what to do.
    #[error("{0}")]
    Damaged(String),
}

/// An object that is being read.
pub trait OpenObject: Send {
    /// Size in bytes.
    ///
    /// # Errors
    /// The disk failed.
    fn size(&mut self) -> io::Result<u64>;

    /// Reads up to `buffer.len()` bytes at `offset`; 0 at the end.
    ///
    /// # Errors
    /// The disk failed.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
}

/// An object on its way in, without its name's type of disk. Dropped, it leaves a part that can be resumed.
pub trait Upload: Send {
    /// Shows what was there before.
    ///
    /// # Errors
    /// The disk failed.
    fn read_kept(&self, visitor: &mut dyn FnMut(&[u8])) -> Result<(), Failed>;

    /// Writes the next bytes.
    ///
    /// # Errors
    /// No space, longer than announced, or the disk failed.
    fn append(&mut self, bytes: &[u8]) -> Result<(), UploadError>;

    /// Bytes that are there.
    fn written(&self) -> u64;

    /// Leaves what has come as a part that can be resumed, durably; how many bytes that are.
    ///
    /// # Errors
    /// The disk failed.
    fn keep(self: Box<Self>) -> Result<u64, UploadError>;

    /// Makes it durable and gives it its name, if `digest` is that name.
    ///
    /// # Errors
    /// Wrong hash, too short, or the disk failed.
    fn finish(self: Box<Self>, digest: ObjectId, now: Instant) -> Result<(), UploadError>;
}

/// How an upload begins.
pub enum UploadStart {
    /// The object is there and whole; it is leased.
    Exists,
    /// It is to be sent.
    Upload(Box<dyn Upload>),
}

/// A revision, for lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevisionSummary {
    /// Its name.
    pub revision: RevisionId,
    /// When it was put.
    pub date: WallTime,
    /// Its message.
    pub message: Vec<u8>,
    /// Its progress as on disk.
    pub progress: Option<String>,
}

/// What the server needs of the store.
pub trait Storage: Send + Sync + 'static {
    /// Shows every object with its size.
    ///
    /// # Errors
    /// The disk failed; some may have been shown.
    fn visit_objects(
        &self,
        visitor: &mut dyn FnMut(ObjectId, u64) -> ControlFlow<()>,
    ) -> Result<(), Failed>;

    /// Opens an object; `None` when it is not there.
    ///
    /// # Errors
    /// The disk failed.
    fn open_object(&self, object: &ObjectId) -> Result<Option<Box<dyn OpenObject>>, Failed>;

    /// Size of an object; `None` when it is not there.
    ///
    /// # Errors
    /// The disk failed.
    fn object_len(&self, object: &ObjectId) -> Result<Option<u64>, Failed>;

    /// How much is there of an object whose upload was interrupted.
    ///
    /// # Errors
    /// The disk failed.
    fn upload_offset(&self, object: &ObjectId) -> Result<Option<u64>, Failed>;

    /// Everything of which a part is there, and what is being uploaded now.
    ///
    /// # Errors
    /// The disk failed.
    fn incoming(&self) -> Result<Vec<Part>, Failed>;

    /// Starts an upload, or, with an offset, goes on with one.
    ///
    /// # Errors
    /// No space, wrong offset, another upload, or the disk failed.
    fn upload(
        &self,
        object: ObjectId,
        offset: Option<u64>,
        expected: Option<u64>,
        now: Instant,
    ) -> Result<UploadStart, UploadError>;

    /// Removes an object; whether it was there. Nobody may need it.
    ///
    /// # Errors
    /// It is leased, or the disk failed.
    fn remove_object(&self, object: &ObjectId, now: Instant) -> Result<bool, RemoveError>;

    /// All revisions, by name.
    ///
    /// # Errors
    /// The disk failed.
    fn revisions(&self) -> Result<Vec<RevisionSummary>, Failed>;

    /// A manifest, exact bytes; `None` when there is no such revision.
    ///
    /// # Errors
    /// It is damaged, or the disk failed.
    fn manifest(&self, revision: &RevisionId) -> Result<Option<Vec<u8>>, ReadError>;

    /// A progress as on disk; `None` when there is none.
    ///
    /// # Errors
    /// The disk failed.
    fn progress(&self, revision: &RevisionId) -> Result<Option<Vec<u8>>, Failed>;

    /// A message; `None` when there is no such revision.
    ///
    /// # Errors
    /// The disk failed.
    fn commit_message(&self, revision: &RevisionId) -> Result<Option<Vec<u8>>, Failed>;

    /// All failure records that can be read, newest first.
    ///
    /// # Errors
    /// The disk failed.
    fn failures(&self) -> Result<Vec<Failure>, Failed>;

    /// One failure record.
    ///
    /// # Errors
    /// It is damaged, or the disk failed.
    fn failure(&self, id: u64) -> Result<Option<Failure>, ReadError>;

    /// Looks up what the disk says about a plan.
    ///
    /// # Errors
    /// The disk failed.
    fn measure(&self, planned: &Planned) -> Result<Measured, Failed>;

    /// Space on the storage.
    ///
    /// # Errors
    /// The disk did not tell.
    fn space(&self) -> Result<SpaceLeft, Failed>;
}

/// An object of a store.
struct StoreObject<D: Disk>(D::Read);

impl<D: Disk> OpenObject for StoreObject<D> {
    fn size(&mut self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buffer)
    }
}

impl<D: Disk> Upload for Incoming<D> {
    fn read_kept(&self, visitor: &mut dyn FnMut(&[u8])) -> Result<(), Failed> {
        Incoming::read_kept(self, visitor)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), UploadError> {
        Incoming::append(self, bytes)
    }

    fn written(&self) -> u64 {
        Incoming::written(self)
    }

    fn keep(self: Box<Self>) -> Result<u64, UploadError> {
        Incoming::keep(*self)
    }

    fn finish(self: Box<Self>, digest: ObjectId, now: Instant) -> Result<(), UploadError> {
        Incoming::finish(*self, digest, now)
    }
}

impl<D: Disk> Storage for Store<D> {
    fn visit_objects(
        &self,
        visitor: &mut dyn FnMut(ObjectId, u64) -> ControlFlow<()>,
    ) -> Result<(), Failed> {
        Store::visit_objects(self, visitor)
    }

    fn open_object(&self, object: &ObjectId) -> Result<Option<Box<dyn OpenObject>>, Failed> {
        let open = Store::open_object(self, object)?;
        Ok(open.map(|file| Box::new(StoreObject::<D>(file)) as Box<dyn OpenObject>))
    }

    fn object_len(&self, object: &ObjectId) -> Result<Option<u64>, Failed> {
        Store::object_len(self, object)
    }

    fn upload_offset(&self, object: &ObjectId) -> Result<Option<u64>, Failed> {
        Store::upload_offset(self, object)
    }

    fn incoming(&self) -> Result<Vec<Part>, Failed> {
        Store::incoming(self)
    }

    fn upload(
        &self,
        object: ObjectId,
        offset: Option<u64>,
        expected: Option<u64>,
        now: Instant,
    ) -> Result<UploadStart, UploadError> {
        let begun = match offset {
            None => self.begin_upload(object, expected, now)?,
            Some(offset) => self.resume_upload(object, offset, expected, now)?,
        };
        Ok(match begun {
            Begun::Exists => UploadStart::Exists,
            Begun::Upload(incoming) => UploadStart::Upload(Box::new(incoming)),
        })
    }

    fn remove_object(&self, object: &ObjectId, now: Instant) -> Result<bool, RemoveError> {
        Store::remove_object(self, object, now)
    }

    fn revisions(&self) -> Result<Vec<RevisionSummary>, Failed> {
        let mut revisions = Vec::new();
        self.visit_revisions(&mut |entry| {
            revisions.push(RevisionSummary {
                revision: entry.revision,
                date: WallTime(entry.modified_ms),
                message: entry.commit_message,
                progress: entry
                    .progress
                    .and_then(|bytes| String::from_utf8(bytes).ok()),
            });
            ControlFlow::Continue(())
        })?;
        Ok(revisions)
    }

    fn manifest(&self, revision: &RevisionId) -> Result<Option<Vec<u8>>, ReadError> {
        match self.read_manifest(revision) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(RevisionError::Missing(_)) => Ok(None),
            Err(RevisionError::Disk(error)) => Err(error.into()),
            Err(error @ (RevisionError::Damaged { .. } | RevisionError::MessageTooLong)) => {
                Err(ReadError::Damaged(error.to_string()))
            }
        }
    }

    fn progress(&self, revision: &RevisionId) -> Result<Option<Vec<u8>>, Failed> {
        self.progress_bytes(revision)
    }

    fn commit_message(&self, revision: &RevisionId) -> Result<Option<Vec<u8>>, Failed> {
        let entry = self.revision(revision)?;
        Ok(entry.map(|entry| entry.commit_message))
    }

    fn failures(&self) -> Result<Vec<Failure>, Failed> {
        let ids = Store::failures(self)?;
        let readable = ids
            .into_iter()
            .rev()
            .filter_map(|id| match Store::failure(self, id) {
                Ok(failure) => failure,
                Err(error) => {
                    tracing::warn!(id, error = %store::explain(&error), "skipped a failure record");
                    None
                }
            });
        Ok(readable.collect())
    }

    fn failure(&self, id: u64) -> Result<Option<Failure>, ReadError> {
        Store::failure(self, id).map_err(|error| match error {
            FailureError::Disk(error) => ReadError::Disk(error),
            error @ FailureError::Damaged { .. } => ReadError::Damaged(error.to_string()),
        })
    }

    fn measure(&self, planned: &Planned) -> Result<Measured, Failed> {
        planned.measure(self)
    }

    fn space(&self) -> Result<SpaceLeft, Failed> {
        Store::space(self)
    }
}
