//! Starts the log process and starts it again when it is gone. The orchestrator's side; the lock in the spool tells whether it runs.

use std::ffi::OsString;
use std::fs::TryLockError;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::spool::Spool;

/// Time for the process to take the lock.
const START: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(2);
/// Between two attempts to bring it back, and after a life that was shorter than this.
const AGAIN: Duration = Duration::from_secs(1);

/// What to start; the folder of the spool is its last argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The program.
    pub path: PathBuf,
    /// Its name for people who look at the list of processes.
    pub name: OsString,
    /// Its first arguments.
    pub arguments: Vec<OsString>,
}

/// Keeps the process running as long as there are sources. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Starter {
    spool: Spool,
    /// `None`: somebody else runs it.
    program: Option<Program>,
    guard: Arc<Mutex<bool>>,
}

impl Starter {
    /// For this spool. Without a program, somebody else runs the process.
    pub fn new(spool: Spool, program: Option<Program>) -> Self {
        Self {
            spool,
            program,
            guard: Arc::default(),
        }
    }

    /// Starts the process unless it runs, and watches over it from now on. It runs when this returns.
    ///
    /// # Errors
    /// It could not be started, or did not take the lock in time.
    pub fn ensure(&self) -> io::Result<()> {
        let mut watched = lock(&self.guard);
        let child = if self.is_running()? {
            None
        } else {
            self.start()?
        };
        if !*watched && self.program.is_some() {
            let starter = self.clone();
            std::thread::Builder::new()
                .name("logger-watch".to_owned())
                .stack_size(64 << 10)
                .spawn(move || starter.watch(child))?;
            *watched = true;
        } else if let Some(child) = child {
            // The watching thread saw its lock free and waits for the guard that is held here; it finds the process running.
            std::thread::Builder::new()
                .name("logger-wait".to_owned())
                .stack_size(64 << 10)
                .spawn(move || reap(child))?;
        }
        Ok(())
    }

    fn is_running(&self) -> io::Result<bool> {
        match self.spool.lock_file()?.try_lock() {
            // Given back as the file is closed.
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn start(&self) -> io::Result<Option<Child>> {
        let child = match &self.program {
            None => None,
            Some(program) => Some(
                Command::new(&program.path)
                    .arg0(&program.name)
                    .args(&program.arguments)
                    .arg(self.spool.folder())
                    .current_dir("/")
                    .env_remove("NOTIFY_SOCKET")
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .process_group(0)
                    .spawn()?,
            ),
        };
        let end = Instant::now() + START;
        while !self.is_running()? {
            if Instant::now() >= end {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the process that keeps the logs does not start",
                ));
            }
            std::thread::sleep(LOOK);
        }
        Ok(child)
    }

    /// Waits for the end of the process, again and again; brings it back while there are sources.
    fn watch(&self, mut child: Option<Child>) {
        let mut short_lives = 0;
        loop {
            let since = Instant::now();
            // Held by the process as long as it lives.
            let ended = self.spool.lock_file().and_then(|file| file.lock());
            if let Some(child) = child.take() {
                reap(child);
            }
            // Brought back at once; one that ends again and again is not worth a processor.
            if since.elapsed() >= AGAIN {
                short_lives = 0;
            } else {
                short_lives += 1;
            }
            if short_lives > 1 {
                std::thread::sleep(AGAIN);
            }
            let mut watched = lock(&self.guard);
            if ended.is_err() || self.spool.names().is_empty() {
                // The next source starts it, and a watch of it.
                *watched = false;
                return;
            }
            tracing::warn!("the process that keeps the logs is gone; starting it again");
            let started = match self.is_running() {
                Ok(true) => Ok(None),
                Ok(false) => self.start(),
                Err(error) => Err(error),
            };
            drop(watched);
            match started {
                Ok(started) => child = started,
                Err(error) => {
                    tracing::error!(%error, "cannot start the process that keeps the logs");
                    std::thread::sleep(AGAIN);
                }
            }
        }
    }
}

fn reap(mut child: Child) {
    if let Err(error) = child.wait() {
        tracing::warn!(%error, "cannot wait for the process that keeps the logs");
    }
}

fn lock(guard: &Mutex<bool>) -> MutexGuard<'_, bool> {
    guard.lock().unwrap_or_else(PoisonError::into_inner)
}
