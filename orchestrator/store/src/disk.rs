//! The few disk operations that the store relies on, and what each one promises.
//!
//! A promise is what a file system such as ext4 or f2fs keeps over a power cut; the simulator's disk keeps no more than that.
//! Paths are relative to the storage root and clean (callers build them from parsed names only).

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A folder.
    Dir,
    /// A symbolic link.
    Link,
    /// Something that the store never makes.
    Other,
}

/// What is known about a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// What it is.
    pub kind: EntryKind,
    /// Size of a file in bytes.
    pub len: u64,
    /// Wall clock time of the last change, milliseconds since 1970.
    pub modified_ms: u64,
    /// Another number when the file was written to, replaced, renamed or given another mode since: the file system's own
    /// record of changes. What was verified counts as verified as long as this stays.
    pub stamp: u64,
}

/// One name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name (names that are not UTF-8 are left out by the adapter: the store never makes one).
    pub name: String,
    /// What it is.
    pub kind: EntryKind,
}

/// Space on the storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Size in bytes.
    pub total: u64,
    /// Bytes free to us.
    pub free: u64,
}

/// What the file system says that the bytes of a sealed file are: equal for two files when their bytes are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seal(String);

impl Seal {
    /// By the number of the way of hashing and the digest.
    pub fn new(algorithm: u16, digest: &[u8]) -> Self {
        Self(format!("{algorithm}:{}", model::verity::hex(digest)))
    }
}

impl fmt::Display for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Seal {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<Self> {
        let parts = text.split_once(':');
        let is_digest = |digest: &str| {
            !digest.is_empty()
                && digest.len() <= 128
                && digest.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        match parts {
            Some((number, digest)) if number.parse::<u16>().is_ok() && is_digest(digest) => {
                Ok(Self(text.to_owned()))
            }
            Some(_) | None => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// A file that is being written.
pub trait WriteFile: Send {
    /// Appends all bytes. After a power cut any part of what was not synced may be there, in any order, or nothing.
    ///
    /// # Errors
    /// Including [`io::ErrorKind::StorageFull`].
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Starts to write back what was appended, without waiting: a hint that makes the later sync short.
    fn start_writeback(&mut self) {}

    /// Returns when the content is durable. The name may not be: see [`Disk::sync_dir`].
    ///
    /// # Errors
    /// After an error the content is not known; the file must be written anew.
    fn sync(&mut self) -> io::Result<()>;
}

/// A file that is being read.
pub trait ReadFile: Send {
    /// Reads up to `buffer.len()` bytes at `offset`; 0 at the end.
    ///
    /// # Errors
    /// As the operating system gives them.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Size in bytes.
    ///
    /// # Errors
    /// As the operating system gives them.
    fn len(&mut self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// As the operating system gives them.
    fn is_empty(&mut self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// The storage. Shared by threads; every call is on its own.
pub trait Disk: Send + Sync + 'static {
    /// A file being written.
    type Write: WriteFile + 'static;
    /// A file being read.
    type Read: ReadFile + 'static;

    /// Creates an empty file, or empties the one that is there.
    ///
    /// # Errors
    /// As the operating system gives them.
    fn create(&self, path: &Path) -> io::Result<Self::Write>;

    /// Opens an existing file to append to it.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when it is not there.
    fn open_append(&self, path: &Path) -> io::Result<Self::Write>;

    /// Opens a file to read it.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when it is not there.
    fn open(&self, path: &Path) -> io::Result<Self::Read>;

    /// Reads a whole file of at most `limit` bytes.
    ///
    /// # Errors
    /// [`io::ErrorKind::FileTooLarge`] when it is longer.
    fn read(&self, path: &Path, limit: usize) -> io::Result<Vec<u8>>;

    /// Gives a file or folder another name, replacing a file that has it. At every instant, also after a power cut, the new name stands for
    /// the old thing or the new one, never for part of it; durable after [`Disk::sync_dir`] of both folders. The content is
    /// durable only if it was synced *before* the rename.
    ///
    /// # Errors
    /// As the operating system gives them.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Lets two names, both there, change places in one step: at every instant, also after a power cut, each stands for the one
    /// thing or the other. Durable after [`Disk::sync_dir`] of both folders.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] on a file system that cannot do it.
    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()>;

    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// As the operating system gives them.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes everything durable that was ever written to this storage, by whomever.
    ///
    /// # Errors
    /// As the operating system gives them.
    fn sync_all(&self) -> io::Result<()>;

    /// Creates a folder and those above it; it is no error when it is there. Durable after [`Disk::sync_dir`] of each parent.
    ///
    /// # Errors
    /// As the operating system gives them.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Creates a symbolic link (the name must be free). Durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// As the operating system gives them.
    fn symlink(&self, target: &Path, path: &Path) -> io::Result<()>;

    /// Target of a symbolic link.
    ///
    /// # Errors
    /// As the operating system gives them.
    fn read_link(&self, path: &Path) -> io::Result<PathBuf>;

    /// Removes a file or link. Durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when it is not there.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes a folder with all that is in it, in no particular order; not atomic. Links in it are removed, never followed.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when it is not there.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Shows the names in a folder one by one, in no particular order, in memory that does not grow with their number. Whether a
    /// name that comes or goes meanwhile is shown is not known.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when it is not there.
    fn visit(
        &self,
        path: &Path,
        visitor: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> io::Result<()>;

    /// Names in a folder, sorted. For folders that are known to be small; else [`Disk::visit`].
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when it is not there.
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        self.visit(path, &mut |entry| {
            entries.push(entry);
            ControlFlow::Continue(())
        })?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// What is known about a name (links are not followed).
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when it is not there.
    fn metadata(&self, path: &Path) -> io::Result<Metadata>;

    /// Makes a file read-only for everybody (mode 0444). Best effort on file systems without modes.
    ///
    /// # Errors
    /// As the operating system gives them.
    fn set_read_only(&self, path: &Path) -> io::Result<()>;

    /// Seals a file whose content is durable and that nobody writes to: from now on nobody can, and reading a byte that is not what it
    /// was is an error. Its name and mode may change. Durable when this returns; a power cut before that leaves it sealed or not, and its
    /// content as it is. No error when it is sealed already.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] when the file system or the kernel cannot; else as the operating system gives them.
    fn seal(&self, path: &Path) -> io::Result<()> {
        let _ = path;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The seal of a file; `None` when it has none. Reads no content.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when it is not there; it may be sealed and its seal damaged.
    fn sealed(&self, path: &Path) -> io::Result<Option<Seal>> {
        let _ = path;
        Ok(None)
    }

    /// Space on the storage.
    ///
    /// # Errors
    /// As the operating system gives them.
    fn space(&self) -> io::Result<Space>;
}
