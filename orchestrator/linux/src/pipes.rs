//! Named pipes, and waiting for many of them at once.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

/// Makes a named pipe.
///
/// # Errors
/// As the kernel gives them; `AlreadyExists` when there is something of that name.
pub fn make(path: &Path, mode: u32) -> io::Result<()> {
    let mode = Mode::from_raw_mode(mode);
    Ok(rustix::fs::mknodat(CWD, path, FileType::Fifo, mode, 0)?)
}

/// Opens a named pipe for reading, without waiting for a writer; reads do not wait either.
///
/// # Errors
/// As the kernel gives them.
pub fn open_to_read(path: &Path) -> io::Result<File> {
    open(path, OFlags::RDONLY)
}

/// Opens a named pipe for both ends, so that whoever opens one end does not wait for the other.
///
/// # Errors
/// As the kernel gives them.
pub fn hold_open(path: &Path) -> io::Result<File> {
    open(path, OFlags::RDWR)
}

/// Makes room for so many bytes that nobody has read, rounded up by the kernel.
///
/// # Errors
/// As the kernel gives them; `PermissionDenied` beyond what it lets this user have.
pub fn enlarge(pipe: &File, bytes: usize) -> io::Result<()> {
    rustix::pipe::fcntl_setpipe_size(pipe, bytes)?;
    Ok(())
}

fn open(path: &Path, how: OFlags) -> io::Result<File> {
    let flags = how | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

/// Opens a regular file as a process sees it, by its path from that process' root. Links are followed as the process would, never out of its
/// root; devices and pipes are refused and never opened for real.
///
/// # Errors
/// As the kernel gives them; `Unsupported` for what is no regular file, or before Linux 5.6.
pub fn open_as_seen_by(pid: u32, path: &str, write: bool) -> io::Result<File> {
    use rustix::fs::ResolveFlags;
    let root = rustix::fs::open(
        format!("/proc/{pid}/root"),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let how = if write { OFlags::RDWR } else { OFlags::RDONLY };
    // Nothing waits, whatever has this name.
    let flags = how | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve);
    let file: File = match file {
        Ok(file) => file.into(),
        Err(Errno::NOSYS) => return Err(io::ErrorKind::Unsupported.into()),
        Err(errno) => return Err(errno.into()),
    };
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(file)
}

/// Wakes a thread that waits in [`wait`].
#[derive(Debug)]
pub struct Waker(OwnedFd);

impl Waker {
    /// A waker that was not used yet.
    ///
    /// # Errors
    /// No more file descriptors.
    pub fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self(rustix::event::eventfd(0, flags)?))
    }

    /// Wakes; many times before the waiter looks count as one.
    pub fn wake(&self) {
        // Full only after 2^64 wakes that nobody took.
        rustix::io::write(&self.0, &1_u64.to_ne_bytes()).ok();
    }

    /// Takes what was woken for.
    pub fn clear(&self) {
        // Nothing to take is as good.
        rustix::io::read(&self.0, &mut [0; 8]).ok();
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until one of them can be read, was closed by its writers, or time is up. Which of them; empty when time is up or a signal came.
///
/// # Errors
/// As the kernel gives them.
pub fn wait(readers: &[BorrowedFd<'_>], timeout: Option<Duration>) -> io::Result<Vec<usize>> {
    let mut polled: Vec<_> = readers
        .iter()
        .map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN))
        .collect();
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    match rustix::event::poll(&mut polled, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    let ready = polled.iter().enumerate();
    Ok(ready
        .filter(|(_, polled)| !polled.revents().is_empty())
        .map(|(index, _)| index)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    #[test]
    fn a_pipe_lives_as_long_as_somebody_holds_it() {
        let path = std::env::temp_dir().join(format!("coxswain-pipe-{}", std::process::id()));
        make(&path, 0o600).unwrap();
        assert_eq!(
            make(&path, 0o600).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        let mut reader = open_to_read(&path).unwrap();
        let short = Some(Duration::from_millis(20));
        assert!(wait(&[reader.as_fd()], short).unwrap().is_empty());
        let mut held = hold_open(&path).unwrap();
        held.write_all(b"x").unwrap();
        assert_eq!(wait(&[reader.as_fd()], None).unwrap(), [0]);
        let mut buffer = [0; 8];
        assert_eq!(reader.read(&mut buffer).unwrap(), 1);
        assert_eq!(
            reader.read(&mut buffer).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        drop(held);
        assert_eq!(wait(&[reader.as_fd()], None).unwrap(), [0], "hung up");
        assert_eq!(reader.read(&mut buffer).unwrap(), 0);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn wakes_are_taken_once() {
        let waker = Waker::new().unwrap();
        waker.wake();
        waker.wake();
        let short = Some(Duration::from_millis(20));
        assert_eq!(wait(&[waker.as_fd()], short).unwrap(), [0]);
        waker.clear();
        assert!(wait(&[waker.as_fd()], short).unwrap().is_empty());
    }

    #[test]
    fn only_regular_files_are_opened_inside() {
        let pid = std::process::id();
        assert!(open_as_seen_by(pid, "/proc/self/status", false).is_ok());
        assert!(open_as_seen_by(pid, "/dev/null", false).is_err());
        assert!(open_as_seen_by(pid, "/proc/self/root/etc/passwd", false).is_err());
        assert!(open_as_seen_by(pid, "/nothing", false).is_err());
    }
}
