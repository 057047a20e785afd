//! Children of an init: work that may hang is done in a child with a deadline, and everything that dies is reaped.
//!
//! An init must never block: a mount of a dying disk, a check of a file system, a sync may take for ever. Such work runs in a
//! forked child; when its time is over, the child is killed or, if the kernel does not let go of it, left behind. Only for a
//! process with one thread.
#![allow(unsafe_code)] // fork has no safe form

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions};

/// Bytes of what a child answers; less than a pipe holds, so that it never waits for us.
const ANSWER_BYTES_MAX: usize = 4000;
/// How often the caller's `meanwhile` is called.
const TURN: Duration = Duration::from_millis(500);
/// Time that a killed child gets to be gone.
const KILL: Duration = Duration::from_millis(500);

/// Why a child's work gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// No child could be made or waited for.
    #[error("cannot start a child process")]
    Start(#[source] io::Error),
    /// It did what it should, and that failed.
    #[error("{0}")]
    Failed(String),
    /// It did not end.
    #[error("it did not end within {} s{}", .limit.as_secs(), if *.left { " and cannot be killed: the kernel waits for a device" } else { "" })]
    TooSlow {
        /// Its time.
        limit: Duration,
        /// Whether it is still there.
        left: bool,
    },
    /// It ended without an answer.
    #[error("its process died")]
    Died,
}

/// Does `work` in a child for at most `limit`, and gives its answer. `meanwhile` is called twice a second.
///
/// # Errors
/// See [`ChildError`]; the text of [`ChildError::Failed`] is the work's own.
pub fn in_child(
    limit: Duration,
    meanwhile: &mut dyn FnMut(),
    work: impl FnOnce() -> Result<String, String>,
) -> Result<String, ChildError> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|errno| ChildError::Start(errno.into()))?;
    // SAFETY: the caller has one thread, so the child has all of the parent's memory in order.
    match unsafe { libc::fork() } {
        -1 => Err(ChildError::Start(io::Error::last_os_error())),
        0 => {
            drop(read);
            let code = carry_out(write, work);
            // SAFETY: ends this process at once, without what the parent has registered for its own end.
            unsafe { libc::_exit(code) }
        }
        pid => {
            drop(write);
            let pid = Pid::from_raw(pid).ok_or_else(|| ChildError::Start(Errno::SRCH.into()))?;
            wait(pid, read, limit, meanwhile)
        }
    }
}

/// In the child: a group of its own, so that programs which it starts end with it.
fn carry_out(write: OwnedFd, work: impl FnOnce() -> Result<String, String>) -> i32 {
    rustix::process::setpgid(None, None).ok();
    crate::signals::unblock_all();
    let result = catch_unwind(AssertUnwindSafe(work));
    let (code, answer) = match result {
        Ok(Ok(answer)) => (0, answer),
        Ok(Err(error)) => (1, error),
        Err(_) => (2, String::new()),
    };
    let bytes = answer.as_bytes();
    let bytes = bytes.get(..ANSWER_BYTES_MAX).unwrap_or(bytes);
    // A parent that is gone needs no answer.
    std::fs::File::from(write).write_all(bytes).ok();
    code
}

fn wait(
    pid: Pid,
    read: OwnedFd,
    limit: Duration,
    meanwhile: &mut dyn FnMut(),
) -> Result<String, ChildError> {
    let start = |errno: Errno| ChildError::Start(errno.into());
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(start)?;
    let end = Instant::now() + limit;
    while !ended(
        &pidfd,
        end.saturating_duration_since(Instant::now()).min(TURN),
    ) {
        meanwhile();
        if Instant::now() >= end {
            // The group is there only when the child came to run at all.
            rustix::process::kill_process_group(pid, Signal::KILL).ok();
            rustix::process::pidfd_send_signal(&pidfd, Signal::KILL).ok();
            let left = !ended(&pidfd, KILL);
            if !left {
                status(&pidfd);
            }
            return Err(ChildError::TooSlow { limit, left });
        }
    }
    let code = status(&pidfd);
    let mut answer = Vec::new();
    // A program that it left behind may hold the pipe: what is there now is all.
    rustix::io::ioctl_fionbio(&read, true).ok();
    std::fs::File::from(read).read_to_end(&mut answer).ok();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    match code {
        Some(0) => Ok(answer),
        Some(1) => Err(ChildError::Failed(answer)),
        Some(_) | None => Err(ChildError::Died),
    }
}

fn ended(pidfd: &OwnedFd, limit: Duration) -> bool {
    let Ok(limit) = Timespec::try_from(limit) else {
        return false;
    };
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&limit)).is_ok_and(|ready| ready > 0)
}

fn status(pidfd: &OwnedFd) -> Option<i32> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let status = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), options);
    status.ok().flatten()?.exit_status()
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With this exit code.
    Exit(i32),
    /// By this signal.
    Signal(i32),
}

/// A process that was reaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reaped {
    /// Its number.
    pub pid: u32,
    /// How it ended.
    pub end: End,
}

/// Takes one zombie away, whoever left it to us; `None` when there is none now. Takes exit codes from everybody else in this process,
/// so an init calls it only while it waits for no child itself.
pub fn reap() -> Option<Reaped> {
    loop {
        let (pid, status) = match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(reaped) => reaped?,
            Err(Errno::INTR) => continue,
            // ECHILD: no children at all.
            Err(_) => return None,
        };
        let pid = pid.as_raw_nonzero().get().unsigned_abs();
        let end = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => End::Exit(code),
            (None, Some(signal)) => End::Signal(signal),
            (None, None) => continue,
        };
        return Some(Reaped { pid, end });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn work_answers() {
        let answer = in_child(LONG, &mut || (), || Ok("it is done".to_owned()));
        assert_eq!(answer.unwrap(), "it is done");
        let error = in_child(LONG, &mut || (), || Err("no disk".to_owned())).unwrap_err();
        assert_eq!(error.to_string(), "no disk");
    }

    #[test]
    fn a_long_answer_is_cut() {
        let answer = in_child(LONG, &mut || (), || Ok("x".repeat(1 << 20))).unwrap();
        assert_eq!(answer.len(), ANSWER_BYTES_MAX);
    }

    #[test]
    fn work_that_hangs_is_killed_with_what_it_started() {
        let mark = format!("87{}", std::process::id());
        let argument = mark.clone();
        let mut turns = 0;
        let from = Instant::now();
        let error = in_child(Duration::from_millis(1200), &mut || turns += 1, move || {
            drop(std::process::Command::new("sleep").arg(argument).status());
            Ok(String::new())
        })
        .unwrap_err();
        assert!(
            matches!(error, ChildError::TooSlow { left: false, .. }),
            "{error}"
        );
        assert!(turns >= 2, "{turns}");
        assert!(from.elapsed() < LONG);
        let fits = |arguments: &[Vec<u8>]| arguments == [b"sleep".to_vec(), mark.clone().into()];
        for _ in 0..200 {
            if crate::process::find(fits).is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("sleep {mark} was left behind");
    }

    #[test]
    fn work_that_dies_is_told() {
        let error = in_child(LONG, &mut || (), || {
            rustix::process::kill_process(rustix::process::getpid(), Signal::KILL).ok();
            std::thread::sleep(LONG);
            Ok(String::new())
        });
        assert!(matches!(error.unwrap_err(), ChildError::Died));
    }
}
