//! The process at the other end of a UNIX socket: held, so that its number cannot be taken by another one, and placed, by what
//! it cannot change: its control groups and its process name space together.
//!
//! A control group alone proves little: who may write to the host's tree moves himself, and with version 1 a process that is ending
//! counts as one of the root group. Whose place is read here was alive, and not ending, while it was read.
//! What a place means is not decided here.
#![allow(unsafe_code)] // one socket option and one ioctl that rustix has no function for

use std::collections::BTreeSet;
use std::ffi::c_void;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use rustix::io::Errno;
use rustix::ioctl::{self, Ioctl, IoctlOutput, Opcode};

use crate::cgroup;
use crate::process::{self, Process};

/// Name spaces of processes below each other that the kernel makes at most.
const DEPTH_MAX: usize = 33;
/// `PF_EXITING` of linux/sched.h: set before anything of the process is given up, never taken back.
const EXITING: u64 = 0x4;
/// `_IO(0xb7, 2)` of linux/nsfs.h.
const NS_GET_PARENT: Opcode = 0xb702;

/// A name space of processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PidNamespace {
    device: u64,
    inode: u64,
}

impl PidNamespace {
    /// The one of this process.
    ///
    /// # Errors
    /// When /proc is not there.
    pub fn own() -> io::Result<Self> {
        Self::at("/proc/self/ns/pid")
    }

    /// The one that a process is in. The number must be known to be that of the process meant.
    ///
    /// # Errors
    /// `NotFound` when there is no such process, `PermissionDenied` without the right to look at it.
    pub fn of(pid: u32) -> io::Result<Self> {
        Self::at(&format!("/proc/{pid}/ns/pid"))
    }

    fn at(path: &str) -> io::Result<Self> {
        Ok(Self::from(&fs::metadata(path)?))
    }

    /// Device and inode, to be kept in a record.
    pub fn numbers(self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// From a record.
    pub fn from_numbers((device, inode): (u64, u64)) -> Self {
        Self { device, inode }
    }
}

impl From<&fs::Metadata> for PidNamespace {
    fn from(found: &fs::Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
        }
    }
}

/// The number of the process that connected, in our numbers; it may be gone, and its number another one's. For what does no harm then: who
/// has rights by it is found by its place.
pub fn pid_of(socket: &impl std::os::fd::AsFd) -> Option<u32> {
    let peer = rustix::net::sockopt::socket_peercred(socket).ok()?;
    u32::try_from(peer.pid.as_raw_nonzero().get()).ok()
}

/// Where a process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its control groups, a line for each hierarchy, as in `/proc/PID/cgroup`.
    pub control_groups: String,
    /// Its name space of processes, then the one above it, and so on to ours.
    pub pid_namespaces: Vec<PidNamespace>,
}

impl Place {
    /// Names of the groups directly below `parent` (absolute, `/coxswain`) that it is in: none, one, or, when somebody moved it in
    /// some hierarchies only, several.
    pub fn groups_below(&self, parent: &str) -> BTreeSet<&str> {
        cgroup::members(&self.control_groups, parent).collect()
    }
}

/// Holds the process that connected. `pid` is its number by `SO_PEERCRED`; `accepted` is the time since the machine's boot at which
/// the connection was accepted.
///
/// # Errors
/// `ESRCH` when it is gone; or as the kernel gives them.
pub fn open(socket: BorrowedFd<'_>, pid: u32, accepted: Duration) -> io::Result<Process> {
    match pidfd_of_peer(socket) {
        Ok(held) => Ok(Process::held(pid, held)),
        Err(Errno::NOPROTOOPT) => open_by_number(pid, accepted),
        // ENODATA: the kernel has let go of it.
        Err(Errno::NODATA) => Err(Errno::SRCH.into()),
        Err(errno) => Err(errno.into()),
    }
}

/// The same without `SO_PEERPIDFD` (Linux before 6.5). What can be known: a process that began after the connection was accepted is
/// not the one that connected. Left is a number that was used again between connect and accept, which follow each other at once.
fn open_by_number(pid: u32, accepted: Duration) -> io::Result<Process> {
    let process = Process::open(pid)?;
    // Read while it is held: a number that was given away before is refused here, one that is given away later stays held.
    if process::started(pid)? > accepted {
        return Err(Errno::SRCH.into());
    }
    Ok(process)
}

/// Where a held process is.
///
/// # Errors
/// `ESRCH` when it has ended or is ending; or as the kernel gives them.
pub fn place(process: &Process) -> io::Result<Place> {
    let pid = process.pid();
    let place = Place {
        control_groups: fs::read_to_string(format!("/proc/{pid}/cgroup"))?,
        pid_namespaces: pid_namespaces(pid)?,
    };
    // In this order: who is not ending now was not while the files were read, and who is there now was there.
    let flags = process::flags(pid)?;
    if flags & EXITING != 0 || process.wait(Duration::ZERO)? {
        return Err(Errno::SRCH.into());
    }
    Ok(place)
}

fn pid_namespaces(pid: u32) -> io::Result<Vec<PidNamespace>> {
    let own = PidNamespace::own()?;
    let mut namespace = File::open(format!("/proc/{pid}/ns/pid"))?;
    let mut all = Vec::new();
    while all.len() < DEPTH_MAX {
        let found = PidNamespace::from(&namespace.metadata()?);
        all.push(found);
        if found == own {
            return Ok(all);
        }
        // SAFETY: see `GetParent`.
        namespace = File::from(unsafe { ioctl::ioctl(&namespace, GetParent) }?);
    }
    Err(io::Error::from(io::ErrorKind::InvalidData))
}

/// Asks for the name space above one.
struct GetParent;

// SAFETY: NS_GET_PARENT takes no argument, writes no memory and returns a new descriptor that nobody else owns.
unsafe impl Ioctl for GetParent {
    type Output = OwnedFd;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        NS_GET_PARENT
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::null_mut()
    }

    unsafe fn output_from_ptr(
        out: IoctlOutput,
        _: *mut c_void,
    ) -> rustix::io::Result<Self::Output> {
        // SAFETY: a result that is no error is a descriptor that the call made.
        Ok(unsafe { OwnedFd::from_raw_fd(out) })
    }
}

/// The process that connected, whatever has become of its number.
fn pidfd_of_peer(socket: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    const SIZE: libc::socklen_t = 4;
    let mut held: libc::c_int = -1;
    let mut size = SIZE;
    // SAFETY: the option writes at most `size` bytes, those of one descriptor, to `held`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERPIDFD,
            (&raw mut held).cast(),
            &raw mut size,
        )
    };
    if result != 0 {
        let error = io::Error::last_os_error();
        return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    }
    if size != SIZE || held < 0 {
        return Err(Errno::IO);
    }
    // SAFETY: the call made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(held) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::since_boot;
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::os::fd::AsFd as _;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::process::{Command, Stdio};

    fn has_peer_pidfd() -> bool {
        let (one, _other) = UnixStream::pair().unwrap();
        !matches!(pidfd_of_peer(one.as_fd()), Err(Errno::NOPROTOOPT))
    }

    #[test]
    fn finds_itself() {
        let own = std::process::id();
        let (one, _other) = UnixStream::pair().unwrap();
        for process in [
            open(one.as_fd(), own, since_boot()).unwrap(),
            open_by_number(own, since_boot()).unwrap(),
        ] {
            let place = place(&process).unwrap();
            assert_eq!(place.pid_namespaces, [PidNamespace::own().unwrap()]);
            assert_eq!(
                place.control_groups,
                fs::read_to_string("/proc/self/cgroup").unwrap()
            );
        }
    }

    #[test]
    fn who_began_after_the_accept_is_somebody_else() {
        let before = since_boot();
        // A tick of the clock in /proc is at most 10 ms.
        std::thread::sleep(Duration::from_millis(25));
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let found = open_by_number(child.id(), before).map(drop);
        assert!(open_by_number(child.id(), since_boot()).is_ok());
        child.kill().unwrap();
        child.wait().unwrap();
        let error = found.unwrap_err();
        assert_eq!(Errno::from_io_error(&error), Some(Errno::SRCH));
        assert!(open_by_number(child.id(), since_boot()).is_err());
    }

    const CONNECT_TO: &str = "COXSWAIN_TEST_CONNECT_TO";

    /// No test by itself: run again as a process of its own, it connects, leaves the connection to a child, and ends.
    #[test]
    #[allow(clippy::zombie_processes)] // it outlives this process on purpose
    fn helper_that_leaves_its_connection_to_a_child() {
        let Some(path) = std::env::var_os(CONNECT_TO) else {
            return;
        };
        let stream = UnixStream::connect(path).unwrap();
        // It lives as long as our standard input, which the test holds.
        Command::new("cat")
            .stdout(OwnedFd::from(stream))
            .spawn()
            .unwrap();
    }

    #[test]
    fn who_ended_is_not_found_though_a_child_has_the_connection() {
        let folder = std::env::temp_dir().join(format!("coxswain-peer-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--test-threads=1"])
            .arg("peer::tests::helper_that_leaves_its_connection_to_a_child")
            .env(CONNECT_TO, &path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        fs::remove_dir_all(&folder).unwrap();
        let pid = rustix::net::sockopt::socket_peercred(&stream).unwrap().pid;
        let pid = u32::try_from(pid.as_raw_nonzero().get()).unwrap();
        assert_eq!(pid, child.id());
        let look = || open(stream.as_fd(), pid, since_boot()).and_then(|held| place(&held));
        let by_number = || open_by_number(pid, since_boot()).and_then(|held| place(&held));
        // Not reaped, still with its number: ended all the same.
        let held = Process::open(pid).unwrap();
        let ended = held.wait_without_reaping(Duration::from_secs(20)).unwrap();
        assert!(ended);
        assert_ne!(process::flags(pid).unwrap() & EXITING, 0);
        assert_eq!(process::flags(std::process::id()).unwrap() & EXITING, 0);
        assert!(look().is_err(), "{:?}", look());
        assert!(by_number().is_err(), "{:?}", by_number());
        // Reaped.
        child.wait().unwrap();
        assert!(look().is_err(), "{:?}", look());
        assert!(by_number().is_err(), "{:?}", by_number());
        // And all the time the connection was open.
        (&input).write_all(b"still here").unwrap();
        let mut text = [0; 10];
        stream.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"still here");
    }

    #[test]
    fn a_name_space_of_its_own_is_seen_with_those_above() {
        let own = PidNamespace::own().unwrap();
        let Ok(mut child) = Command::new("unshare")
            .args(["--pid", "--fork", "--kill-child", "sh", "-c"])
            .arg("echo; exec sleep 100")
            .stdout(Stdio::piped())
            .spawn()
        else {
            return eprintln!("SKIPPED: unshare is missing");
        };
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let inner = fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id()));
        let inner = inner
            .ok()
            .and_then(|list| list.split_whitespace().next()?.parse().ok());
        let found = inner.map(|inner| place(&Process::open(inner).unwrap()).unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        match found {
            // Not root: no name space can be made.
            None => eprintln!("SKIPPED: no name space of processes can be made here"),
            Some(found) => {
                assert_eq!(found.pid_namespaces.len(), 2);
                assert_ne!(found.pid_namespaces[0], own);
                assert_eq!(found.pid_namespaces[1], own);
            }
        }
    }

    #[test]
    fn tells_whether_this_kernel_knows_the_option() {
        // Since 6.5; what this machine has decides which way the other tests go.
        let release = rustix::system::uname();
        let release = release.release().to_string_lossy().into_owned();
        let mut numbers = release.split(|c: char| !c.is_ascii_digit());
        let mut next = || numbers.next().and_then(|number| number.parse().ok());
        let version: (u32, u32) = (next().unwrap_or(0), next().unwrap_or(0));
        if version >= (6, 5) {
            assert!(has_peer_pidfd(), "{release}");
        }
    }
}
