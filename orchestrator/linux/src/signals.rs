//! Signals of an init: taken one by one from a descriptor, never in a handler.
#![allow(unsafe_code)] // `pre_exec`: the mask is changed between fork and exec

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec};

/// What an init is asked by a signal; who else but the kernel sends them to it does so by old conventions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// A child has ended.
    Child,
    /// SIGTERM, and SIGINT, which is the kernel's word for Ctrl-Alt-Del.
    Reboot,
    /// SIGUSR2, and SIGUSR1 (halt), and SIGPWR (the power fails).
    PowerOff,
}

const TAKEN: [(Signal, Asked); 6] = [
    (Signal::SIGCHLD, Asked::Child),
    (Signal::SIGTERM, Asked::Reboot),
    (Signal::SIGINT, Asked::Reboot),
    (Signal::SIGUSR1, Asked::PowerOff),
    (Signal::SIGUSR2, Asked::PowerOff),
    (Signal::SIGPWR, Asked::PowerOff),
];

/// The signals of this thread, blocked and waited for.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Blocks them; before any other thread is started.
    ///
    /// # Errors
    /// As the kernel gives them.
    pub fn take() -> io::Result<Self> {
        let set: SigSet = TAKEN.into_iter().map(|(signal, _)| signal).collect();
        set.thread_block()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self(SignalFd::with_flags(&set, flags)?))
    }

    /// The next one; `None` when there is none within `limit`.
    pub fn next(&self, limit: Duration) -> Option<Asked> {
        let limit = Timespec::try_from(limit).ok()?;
        let fd = self.0.as_fd();
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        // Interrupted or out of memory: as if nothing had come; the caller asks again.
        rustix::event::poll(&mut fds, Some(&limit)).ok()?;
        let info = self.0.read_signal().ok()??;
        let number = i32::try_from(info.ssi_signo).ok()?;
        let taken = TAKEN.iter().find(|(signal, _)| *signal as i32 == number);
        taken.map(|(_, asked)| *asked)
    }
}

/// Lets a program start with no signal blocked: it would keep those that [`Signals::take`] blocked here, and so would all that it starts.
pub fn start_unblocked(command: &mut Command) {
    let unblock = || {
        unblock_all();
        Ok(())
    };
    // SAFETY: between fork and exec it only makes a system call.
    unsafe { command.pre_exec(unblock) };
}

/// In a child: no signal is blocked any more.
pub(crate) fn unblock_all() {
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_come_one_by_one() {
        // The kernel may give a signal for the process to any thread of the test binary: only this one is sent it.
        let signals = Signals::take().unwrap();
        assert_eq!(signals.next(Duration::ZERO), None);
        nix::sys::signal::raise(Signal::SIGUSR2).unwrap();
        nix::sys::signal::raise(Signal::SIGINT).unwrap();
        let first = signals.next(Duration::from_secs(5));
        let second = signals.next(Duration::from_secs(5));
        assert_eq!(
            (first, second),
            (Some(Asked::Reboot), Some(Asked::PowerOff))
        );
        // A program that is started now has nothing blocked: SIGTERM ends it.
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "kill -TERM $$; exit 7"]);
        start_unblocked(&mut command);
        use std::os::unix::process::ExitStatusExt as _;
        assert_eq!(command.status().unwrap().signal(), Some(15));
        unblock_all();
    }
}
