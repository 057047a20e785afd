//! Processes that are not our children: found in /proc, held by pidfd so that a reused number is never hit.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

/// The signal that asks a program to end.
pub const TERM: Signal = Signal::TERM;
/// The signal of a person's Ctrl-C.
pub const INT: Signal = Signal::INT;

/// Makes this process the first of a session of its own, so that the end of another session does not reach it.
///
/// # Errors
/// It leads a group already.
pub fn new_session() -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(())
}

/// Lets this process have as many open files as it may ever have; who it starts gets the same.
///
/// # Errors
/// As the kernel gives them.
pub fn raise_open_files() -> io::Result<()> {
    let kind = rustix::process::Resource::Nofile;
    let mut limit = rustix::process::getrlimit(kind);
    limit.current = limit.maximum;
    Ok(rustix::process::setrlimit(kind, limit)?)
}

/// A process that was alive when it was opened.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    fd: OwnedFd,
}

impl Process {
    /// Holds the process with this number.
    ///
    /// # Errors
    /// `ESRCH` when there is none.
    pub fn open(pid: u32) -> io::Result<Self> {
        let number = i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .ok_or(io::Error::from(Errno::SRCH))?;
        Ok(Self {
            pid,
            fd: rustix::process::pidfd_open(number, PidfdFlags::empty())?,
        })
    }

    /// One that the kernel gave us by descriptor; `pid` must be its number.
    pub(crate) fn held(pid: u32, fd: OwnedFd) -> Self {
        Self { pid, fd }
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its arguments as they are now; empty for a zombie or a kernel thread.
    ///
    /// # Errors
    /// As the kernel gives them; `NotFound` when it is gone.
    pub fn arguments(&self) -> io::Result<Vec<Vec<u8>>> {
        arguments(self.pid)
    }

    /// Sends a signal; that it has ended is no error.
    ///
    /// # Errors
    /// As the kernel gives them.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match rustix::process::pidfd_send_signal(&self.fd, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Sends SIGKILL; that it has ended is no error.
    ///
    /// # Errors
    /// As the kernel gives them.
    pub fn kill(&self) -> io::Result<()> {
        self.signal(Signal::KILL)
    }

    /// Waits until it has ended; `false` when it has not after `timeout`. Reaps it when it is our child.
    ///
    /// # Errors
    /// As the kernel gives them.
    pub fn wait(&self, timeout: Duration) -> io::Result<bool> {
        let ended = self.wait_without_reaping(timeout)?;
        if ended {
            self.reap();
        }
        Ok(ended)
    }

    /// The same, and a child of ours stays a zombie.
    ///
    /// # Errors
    /// As the kernel gives them.
    pub fn wait_without_reaping(&self, timeout: Duration) -> io::Result<bool> {
        let timeout = Timespec::try_from(timeout)
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        let ready = match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(ready) => ready,
            Err(Errno::INTR) => 0,
            Err(errno) => return Err(errno.into()),
        };
        Ok(ready > 0)
    }

    /// Takes the zombie away when it is our child and nobody else did; else does nothing.
    pub fn reap(&self) {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        // ECHILD: not ours, or reaped by the init's reaper.
        rustix::process::waitid(WaitId::PidFd(self.fd.as_fd()), options).ok();
    }

    /// The descriptor; readable when the process has ended.
    pub fn descriptor(&self) -> &OwnedFd {
        &self.fd
    }
}

/// Every process whose arguments fit, each held before its arguments were read.
pub fn find(fits: impl Fn(&[Vec<u8>]) -> bool) -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| {
            if !fits(&arguments(pid).ok()?) {
                return None;
            }
            // Read again after it is held: the number may have been given to another one between the two.
            let process = Process::open(pid).ok()?;
            fits(&process.arguments().ok()?).then_some(process)
        })
        .collect()
}

/// Numbers and short names of all programs, this one too; neither zombies nor threads of the kernel. Nothing is read of their memory,
/// for which the kernel could make us wait as long as they wait for a disk.
pub fn programs() -> Vec<(u32, String)> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid: u32| {
            // It may be gone meanwhile.
            let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, program_of(&stat)?))
        })
        .collect()
}

/// The name, if it is a program that is not a zombie.
fn program_of(stat: &[u8]) -> Option<String> {
    let from = stat.iter().position(|byte| *byte == b'(')? + 1;
    let to = stat.iter().rposition(|byte| *byte == b')')?;
    let is_over = matches!(stat.get(to + 2)?, b'Z' | b'X' | b'x');
    let is_kernels = field_of(stat, FLAGS)? & KERNEL_THREAD != 0;
    let name = String::from_utf8_lossy(stat.get(from..to)?).into_owned();
    (!is_over && !is_kernels).then_some(name)
}

fn arguments(pid: u32) -> io::Result<Vec<Vec<u8>>> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline"))?;
    Ok(bytes
        .strip_suffix(&[0])
        .unwrap_or(&bytes)
        .split(|byte| *byte == 0)
        .map(<[u8]>::to_vec)
        .collect())
}

/// How long a process has been running.
///
/// # Errors
/// `NotFound` when it is gone, `InvalidData` when /proc says what it never says.
pub fn uptime(pid: u32) -> io::Result<Duration> {
    let started = started(pid)?;
    Ok(since_boot().saturating_sub(started))
}

/// Time since the machine's boot, time in suspend included.
pub fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::try_from(now).unwrap_or_default()
}

/// When a process was started, as time since the machine's boot, rounded down to a tick of the clock (10 ms).
///
/// # Errors
/// `NotFound` when it is gone, `InvalidData` when /proc says what it never says.
pub fn started(pid: u32) -> io::Result<Duration> {
    let ticks = stat_field(pid, START_TICKS)?;
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Ok(Duration::from_millis(
        ticks.saturating_mul(1000) / per_second,
    ))
}

/// What the kernel knows of a process as flags (`PF_*` of linux/sched.h).
///
/// # Errors
/// `NotFound` when it is gone, `InvalidData` when /proc says what it never says.
pub(crate) fn flags(pid: u32) -> io::Result<u64> {
    stat_field(pid, FLAGS)
}

fn stat_field(pid: u32, field: usize) -> io::Result<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat"))?;
    field_of(&stat, field).ok_or(io::Error::from(io::ErrorKind::InvalidData))
}

/// Open files that this process, and so its children, may have at most.
pub fn open_files_max() -> u64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.maximum.unwrap_or(u64::MAX)
}

/// How gladly the kernel ends this process when memory runs out: -1000 (never) to 1000.
pub fn oom_score_adjustment() -> i32 {
    fs::read_to_string("/proc/self/oom_score_adj")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

/// Capabilities that a process of this machine can have, one bit each: the bounding set of this one.
pub fn capabilities_max() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        .unwrap_or(0)
}

/// Release of the running kernel, as below `/lib/modules`.
pub fn kernel_release() -> String {
    let name = rustix::system::uname();
    name.release().to_string_lossy().into_owned()
}

/// Moves the calling thread into a network name space (`/proc/<pid>/ns/net`). The thread must not be used for anything else after it.
///
/// # Errors
/// As the kernel gives them.
pub fn enter_network(network: &fs::File) -> io::Result<()> {
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    Ok(move_into_link_name_space(
        network.as_fd(),
        Some(LinkNameSpaceType::Network),
    )?)
}

/// Major and minor number of a device node (`st_rdev`).
pub fn device_numbers(device: u64) -> (u32, u32) {
    (rustix::fs::major(device), rustix::fs::minor(device))
}

/// Numbers of fields, as proc(5) counts them.
const FLAGS: usize = 9;
/// `PF_KTHREAD`.
const KERNEL_THREAD: u64 = 0x0020_0000;
const START_TICKS: usize = 22;

/// A field after the second one, which is a name in parentheses that may hold anything.
fn field_of(stat: &[u8], field: usize) -> Option<u64> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 2..)?).ok()?;
    rest.split(' ').nth(field.checked_sub(3)?)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn start_ticks_with_an_odd_name() {
        let stat = b"7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 10";
        assert_eq!(field_of(stat, START_TICKS), Some(4711));
        assert_eq!(field_of(stat, FLAGS), Some(4_194_560));
    }

    #[test]
    fn programs_are_neither_zombies_nor_the_kernels() {
        let stat = |name: &str, letter: &str, flags: u64| {
            let text = format!("7 ({name}) {letter} 1 7 7 0 -1 {flags} 1 2 3");
            program_of(text.as_bytes())
        };
        assert_eq!(stat("a) (b", "D", 0x40_0100).as_deref(), Some("a) (b"));
        assert_eq!(stat("sh", "Z", 0x40_0100), None);
        assert_eq!(stat("kworker/0:1", "I", 0x0420_8060), None);
        let us = std::process::id();
        assert!(
            programs()
                .iter()
                .any(|(pid, name)| *pid == us && !name.is_empty())
        );
    }

    /// A program may overwrite its arguments, and is one all the same.
    #[test]
    fn a_program_without_arguments_is_one() {
        use std::os::unix::process::CommandExt as _;
        let mut child = Command::new("sleep").arg0("").arg("60").spawn().unwrap();
        let found = programs().iter().any(|(pid, _)| *pid == child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found);
    }

    #[test]
    #[allow(clippy::zombie_processes)] // reaping it through the pidfd is what is tested
    fn finds_holds_ends_and_reaps() {
        let mark = format!("86{}", std::process::id());
        let child = Command::new("sleep")
            .arg(&mark)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let fits = |args: &[Vec<u8>]| args == [b"sleep".to_vec(), mark.clone().into_bytes()];
        // The child is visible under its new name only after its exec.
        let mut found = find(fits);
        for _ in 0..1000 {
            if !found.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
            found = find(fits);
        }
        let [process] = &found[..] else {
            panic!("{found:?}")
        };
        assert_eq!(process.pid(), child.id());
        assert!(uptime(child.id()).unwrap() < Duration::from_secs(60));
        assert!(!process.wait(Duration::ZERO).unwrap());
        process.kill().unwrap();
        assert!(process.wait(Duration::from_secs(10)).unwrap());
        assert!(Process::open(child.id()).is_err());
        process.kill().unwrap();
    }
}
