//! Files that somebody else writes to: which of them changed.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use rustix::io::Errno;

/// Takes the first `bytes` out of a file that others append to: nothing that is written meanwhile is lost. `bytes` must be a multiple of the file
/// system's block size and less than the file's length.
///
/// # Errors
/// `Unsupported` on file systems that cannot (it works on ext4, xfs and f2fs).
pub fn remove_front(file: &File, bytes: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    match fallocate(file, FallocateFlags::COLLAPSE_RANGE, 0, bytes) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {
            Err(io::ErrorKind::Unsupported.into())
        }
        Err(errno) => Err(errno.into()),
    }
}

/// Becomes readable when a file in a folder is written to, made, renamed or removed. Reading it does not wait.
///
/// # Errors
/// As the kernel gives them.
pub fn changes_in(folder: &Path) -> io::Result<OwnedFd> {
    let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let what = WatchFlags::MODIFY
        | WatchFlags::CREATE
        | WatchFlags::MOVED_TO
        | WatchFlags::DELETE_SELF
        | WatchFlags::ONLYDIR;
    inotify::add_watch(&fd, folder, what)?;
    Ok(fd)
}

/// Events that one wait takes; what is left comes with the next.
const EVENTS_MAX: usize = 256;

impl AsFd for FileWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A set of watched files. Shared by threads: files may be added while another one waits.
#[derive(Debug)]
pub struct FileWatch {
    fd: OwnedFd,
}

impl FileWatch {
    /// An empty set.
    ///
    /// # Errors
    /// When the user's limit of inotify instances is reached.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            fd: inotify::init(CreateFlags::CLOEXEC)?,
        })
    }

    /// Adds a file; its number in what [`FileWatch::wait`] tells. The same file has the same number.
    ///
    /// # Errors
    /// `NotFound`; `ENOSPC` when the user's limit of watches is reached.
    pub fn add(&self, path: &Path) -> io::Result<i32> {
        Ok(inotify::add_watch(&self.fd, path, WatchFlags::MODIFY)?)
    }

    /// Adds a folder, for names that appear in it or go, and for its own end.
    ///
    /// # Errors
    /// As [`FileWatch::add`].
    pub fn add_folder(&self, path: &Path) -> io::Result<i32> {
        let names = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::DELETE;
        let own = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF | WatchFlags::ONLYDIR;
        Ok(inotify::add_watch(&self.fd, path, names | own)?)
    }

    /// Adds a file that is open, whatever its name is now.
    ///
    /// # Errors
    /// As [`FileWatch::add`].
    pub fn add_open(&self, file: &File) -> io::Result<i32> {
        use std::os::fd::AsRawFd as _;
        self.add(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())))
    }

    /// Waits until files change or time is up; their numbers, each once.
    ///
    /// # Errors
    /// As the kernel gives them.
    pub fn wait_at_most(&self, timeout: std::time::Duration) -> io::Result<Vec<i32>> {
        if crate::pipes::wait(&[self.as_fd()], Some(timeout))?.is_empty() {
            return Ok(Vec::new());
        }
        self.wait()
    }

    /// Removes a file.
    pub fn remove(&self, number: i32) {
        // EINVAL: the file was deleted, and its watch with it.
        inotify::remove_watch(&self.fd, number).ok();
    }

    /// Waits until files change; their numbers, each once.
    ///
    /// # Errors
    /// As the kernel gives them.
    pub fn wait(&self) -> io::Result<Vec<i32>> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.fd, &mut buffer);
        let mut changed = Vec::new();
        loop {
            match reader.next() {
                Ok(event) => changed.push(event.wd()),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            }
            if reader.is_buffer_empty() || changed.len() >= EVENTS_MAX {
                changed.sort_unstable();
                changed.dedup();
                return Ok(changed);
            }
        }
    }
}
