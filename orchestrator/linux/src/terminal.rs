//! Terminals: the console of an init, and a shell on one for a person.
#![allow(unsafe_code)] // `pre_exec`: a session begins between fork and exec

use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

/// Makes `terminal` this process's standard input, output and error. `/dev/null` where it is not there: a file that is opened later
/// must not become one of them.
///
/// # Errors
/// Neither can be opened.
pub fn adopt(terminal: &Path) -> io::Result<()> {
    let open = |path: &Path| {
        use std::os::unix::fs::OpenOptionsExt as _;
        // Not our controlling terminal: a person's Ctrl-C is none for an init.
        let no_tty = rustix::fs::OFlags::NOCTTY.bits();
        let no_tty = i32::try_from(no_tty).unwrap_or(0);
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(no_tty);
        options.open(path)
    };
    let file = open(terminal).or_else(|_| open(Path::new("/dev/null")))?;
    dup2_stdin(&file)?;
    dup2_stdout(&file)?;
    dup2_stderr(&file)?;
    Ok(())
}

/// Starts a program on a terminal, as the first process of a session of its own.
///
/// # Errors
/// The terminal cannot be opened, or the program cannot be run.
pub fn start(terminal: &Path, program: &Path) -> io::Result<Child> {
    let file = OpenOptions::new().read(true).write(true).open(terminal)?;
    let mut command = Command::new(program);
    command
        .current_dir("/")
        .env("TERM", "linux")
        .stdin(Stdio::from(file.try_clone()?))
        .stdout(Stdio::from(file.try_clone()?))
        .stderr(Stdio::from(file));
    crate::signals::start_unblocked(&mut command);
    let lead = || {
        rustix::process::setsid()?;
        // Without a controlling terminal the shell has no job control, and works all the same.
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin()).ok();
        Ok(())
    };
    // SAFETY: between fork and exec it only makes two system calls.
    unsafe { command.pre_exec(lead) };
    command.spawn()
}
