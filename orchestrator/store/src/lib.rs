//! Where revisions and objects are kept, crash-safe.
//!
//! Everything here stands on [`disk::Disk`]; nothing but `linux::disk` and the simulator touches a file system. Three rules hold
//! throughout: a small file is changed only by `replace`; what is answered is durable; nothing is named before it is durable.
//! What should run is decided elsewhere (`lifecycle`); this crate only keeps, checks and removes.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use model::Instant;

pub mod check;
mod claims;
pub mod collect;
pub mod disk;
pub mod failures;
pub mod layout;
mod leases;
pub mod logs;
pub mod marker;
pub mod metadata;
pub mod objects;
mod open;
mod replace;
mod reset;
pub mod revisions;
mod seals;
mod spare;
mod stopped;
mod takeover;
pub mod uploads;

pub use check::{Judgement, judge};
pub use collect::{Collectable, Collected};
pub use failures::FailureError;
pub use leases::Active;
pub use marker::{MarkerError, MarkerRead};
pub use metadata::{MetaError, MetaMap};
pub use objects::{Hasher, Reading, RemoveError, Verdict};
pub use open::Opened;
pub use revisions::{NewRevision, RevisionEntry, RevisionError};
pub use seals::Sealing;
pub use takeover::{Pantavisor, TakeoverRecord};
pub use uploads::{Begun, HashedUpload, Incoming, Part, UploadError};

use crate::disk::{Disk, Space};

/// Settings of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Percentage of the storage that uploads leave free, so that the marker and logs can always be written.
    pub reserve_percent: u8,
    /// How long an upload keeps collection away from its object.
    pub lease: Duration,
    /// The folder of the objects as seen on the device, for `.pvr/config` (read by Pantavisor's tools).
    pub objects_dir: String,
    /// Whether an object that bears the seal of the record counts as verified (see `seals`).
    pub seals: bool,
    /// Bytes that are kept free for what must be written on a full storage; 0: none.
    pub spare_bytes: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            reserve_percent: 5,
            lease: Duration::from_secs(600),
            objects_dir: "/storage/objects".to_owned(),
            seals: false,
            spare_bytes: 0,
        }
    }
}

/// An operation on the disk that failed. The cause is the source.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}", path.display())]
pub struct Failed {
    /// What was tried, a verb: `read`, `sync`.
    pub operation: &'static str,
    /// On what, relative to the storage root.
    pub path: PathBuf,
    /// Why not.
    #[source]
    pub source: io::Error,
}

impl Failed {
    /// Whether the storage is mounted read-only, as a kernel does by itself when a file system is damaged.
    pub fn is_read_only(&self) -> bool {
        self.source.kind() == io::ErrorKind::ReadOnlyFilesystem
    }

    /// Whether the disk (or a quota on it) is full.
    pub fn is_full(&self) -> bool {
        is_full(&self.source)
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// An error with all its causes in one line, for logs and answers.
pub fn explain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// The store. Clones share everything; every method may be called from any thread.
pub struct Store<D: Disk> {
    inner: Arc<Inner<D>>,
}

impl<D: Disk> Clone for Store<D> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

struct Inner<D: Disk> {
    disk: D,
    options: Options,
    /// Makes names of temporary files, folders and trash unique.
    counter: AtomicU64,
    /// Folders whose names are known to be durable, up to the root. Held while a folder is made.
    folders: Mutex<BTreeSet<PathBuf>>,
    objects: Mutex<leases::Table>,
    seals: Mutex<seals::Seals>,
    /// Held while a revision is put, replaced or deleted, and while the marker is written.
    revisions: Mutex<()>,
    /// Held for writing from a rename that readers see to the sync that makes it durable, and for reading by who tells others what
    /// is there: what was told must not be gone after a power cut (decisions/0107). Nothing else is locked while it is held.
    settling: RwLock<()>,
    marker: Mutex<marker::Last>,
    metadata: Mutex<metadata::Index>,
    failures: Mutex<()>,
    collecting: Mutex<()>,
}

/// A panic while a lock was held leaves data that is still valid: each is changed in one step after the disk was.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Space on the storage, as uploads see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpaceLeft {
    /// Size in bytes.
    pub total: u64,
    /// Bytes free.
    pub free: u64,
    /// Bytes of these that uploads do not touch.
    pub reserved: u64,
    /// Bytes that uploads may still take: free without the reserve and what running uploads were promised.
    pub available: u64,
}

impl<D: Disk> Store<D> {
    fn new(disk: D, options: Options, now: Instant) -> Self {
        let everything_until = now + options.lease;
        Self {
            inner: Arc::new(Inner {
                disk,
                options,
                counter: AtomicU64::new(0),
                folders: Mutex::new(BTreeSet::new()),
                objects: Mutex::new(leases::Table::new(now, everything_until)),
                seals: Mutex::new(seals::Seals::default()),
                revisions: Mutex::new(()),
                settling: RwLock::new(()),
                marker: Mutex::new(marker::Last::default()),
                metadata: Mutex::new(metadata::Index::default()),
                failures: Mutex::new(()),
                collecting: Mutex::new(()),
            }),
        }
    }

    /// The disk below.
    pub fn disk(&self) -> &D {
        &self.inner.disk
    }

    /// The settings it was opened with.
    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    /// Space on the storage.
    ///
    /// # Errors
    /// The disk did not tell.
    pub fn space(&self) -> Result<SpaceLeft, Failed> {
        let promised = lock(&self.inner.objects).promised();
        self.inner.space_left(promised)
    }
}

impl<D: Disk> Inner<D> {
    fn space_left(&self, promised: u64) -> Result<SpaceLeft, Failed> {
        let Space { total, free } = self
            .disk
            .space()
            .map_err(failed("tell the free space of", Path::new(".")))?;
        let reserved = reserve(total, self.options.reserve_percent);
        let available = free.saturating_sub(reserved).saturating_sub(promised);
        Ok(SpaceLeft {
            total,
            free,
            reserved,
            available,
        })
    }

    /// Until it is dropped nobody is told what is there.
    fn settle(&self) -> RwLockWriteGuard<'_, ()> {
        self.settling
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Until it is dropped all that is there under its name is durable.
    fn settled(&self) -> RwLockReadGuard<'_, ()> {
        self.settling.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that no other temporary name of this start has.
    fn unique(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::Relaxed)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), Failed> {
        self.disk.rename(from, to).map_err(failed("rename", from))
    }

    fn sync_dir(&self, path: &Path) -> Result<(), Failed> {
        self.disk.sync_dir(path).map_err(failed("sync", path))
    }

    /// What a path stands for; `None` when it is not there.
    fn metadata_of(&self, path: &Path) -> Result<Option<disk::Metadata>, Failed> {
        absent(self.disk.metadata(path)).map_err(failed("look at", path))
    }

    /// A whole small file; `None` when it is not there.
    fn read(&self, path: &Path, limit: usize) -> Result<Option<Vec<u8>>, Failed> {
        absent(self.disk.read(path, limit)).map_err(failed("read", path))
    }

    /// Removes a file; whether it was there.
    fn remove_file(&self, path: &Path) -> Result<bool, Failed> {
        absent(self.disk.remove_file(path))
            .map(|found| found.is_some())
            .map_err(failed("remove", path))
    }

    /// Names in a small folder, sorted; none when it is not there.
    fn list(&self, path: &Path) -> Result<Vec<disk::Entry>, Failed> {
        absent(self.disk.list(path))
            .map(Option::unwrap_or_default)
            .map_err(failed("list", path))
    }
}

fn reserve(total: u64, percent: u8) -> u64 {
    let bytes = u128::from(total) * u128::from(percent) / 100;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

fn failed<'a>(operation: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Failed + 'a {
    move |source| Failed {
        operation,
        path: path.to_owned(),
        source,
    }
}

/// Turns "not found" into `None`.
fn absent<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
