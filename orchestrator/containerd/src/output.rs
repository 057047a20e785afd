//! What containers write goes to the log process through its spool; here is which instance is which source of it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use device::ports::Instance;
use logger::{Readers, Registered, Settings, Source, Spool, Starter};
use model::container::Logs;

use crate::config::Config;
use crate::names::instance_id;

/// Time for the log process to write the last lines of a container before its end is told.
const LAST_LINES: Duration = Duration::from_millis(500);
/// Time for it to make `/dev/log`, or to finish with a name.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(2);

/// Hands the output of containers to the log process.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    spool: Spool,
    starter: Starter,
    /// By name of the source, until the log process has written all of it.
    readers: Arc<Mutex<BTreeMap<String, Readers>>>,
}

fn name_of(instance: &Instance) -> String {
    let id = instance_id(&instance.container, instance.fingerprint);
    Spool::name(&id, instance.generation)
}

impl Output {
    /// Writes the settings; nothing is started before there is a container.
    pub(crate) fn prepare(config: &Config) -> io::Result<Self> {
        let spool = Spool::new(config.spool());
        spool.configure(&Settings {
            logs: config.storage.join("logs"),
            quota_bytes: config.logs.quota_bytes,
            rate_bytes: config.logs.rate_bytes,
            control_socket: Some(config.sockets_dir.join("pv-ctrl-log")),
            cgroup_parent: config.cgroup_parent.clone(),
        })?;
        Ok(Self {
            starter: Starter::new(spool.clone(), config.logs.program.clone()),
            spool,
            readers: Arc::default(),
        })
    }

    /// Makes the pipes of an instance and its log, `file`, and the log process where it does not run. What comes back is to be held until the
    /// instance has its pipes open. Blocks.
    pub(crate) fn open(
        &self,
        instance: &Instance,
        revision: &model::RevisionId,
        logs: &Logs,
        file: &Path,
    ) -> io::Result<Registered> {
        let name = name_of(instance);
        self.forget_attempt(&name)?;
        let id = instance_id(&instance.container, instance.fingerprint);
        let source = Source::new(id, instance.container.clone(), revision.clone(), logs);
        if let Err(error) = make(file) {
            // A full disk, maybe; what it writes is counted then, and it is not held up.
            tracing::warn!(path = %file.display(), %error, "cannot make a log");
        }
        let registered = self.spool.register(&name, &source)?;
        self.starter.ensure()?;
        if let Some(socket) = &registered.dev_log {
            wait_until(|| socket.exists(), "does not make /dev/log")?;
        }
        Ok(registered)
    }

    /// An attempt to start the same instance may have failed half-way: its pipes are not to be taken for the new ones. Blocks.
    fn forget_attempt(&self, name: &str) -> io::Result<()> {
        if !self.spool.is_there(name) {
            return Ok(());
        }
        self.spool.end(name)?;
        self.starter.ensure()?;
        wait_until(
            || !self.spool.is_there(name),
            "does not give up the pipes of an attempt before",
        )
    }

    /// Its first process is there and has its pipes open: the log process looks for files as it sees them.
    pub(crate) fn running(&self, instance: &Instance, pid: u32, pipes: Registered) {
        let mut readers = self.readers();
        readers.retain(|name, _| self.spool.is_there(name));
        readers.insert(name_of(instance), pipes.into_readers());
        drop(readers);
        if let Err(error) = self.spool.running(&name_of(instance), pid) {
            tracing::warn!(container = %instance.container, %error, "cannot follow its log files");
        }
    }

    /// It ended, or never ran. The log process writes what is left.
    pub(crate) fn end(&self, instance: &Instance) {
        if let Err(error) = self.spool.end(&name_of(instance)) {
            tracing::warn!(container = %instance.container, %error, "cannot end its log");
        }
    }

    /// The same, and waits a moment, so that who reads the log because of the end finds its last lines.
    pub(crate) async fn end_and_wait(&self, instance: &Instance) {
        self.end(instance);
        let name = name_of(instance);
        let until = Instant::now() + LAST_LINES;
        while self.spool.is_there(&name) && Instant::now() < until {
            tokio::time::sleep(LOOK).await;
        }
        self.readers().retain(|name, _| self.spool.is_there(name));
    }

    fn readers(&self) -> MutexGuard<'_, BTreeMap<String, Readers>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After a restart: the sources of these instances go on, others have ended while nobody looked. Blocks.
    pub(crate) fn keep(&self, running: &[Instance]) -> io::Result<()> {
        let kept: Vec<String> = running.iter().map(name_of).collect();
        for name in self.spool.names() {
            if !kept.contains(&name) {
                self.spool.end(&name)?;
            }
        }
        if self.spool.names().is_empty() {
            return Ok(());
        }
        self.starter.ensure()
    }
}

/// A container that never writes has a log too: an empty one.
fn make(file: &Path) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut options = fs::File::options();
    options.create(true).append(true).open(file).map(drop)
}

/// Waits for the log process.
fn wait_until(mut is: impl FnMut() -> bool, what: &str) -> io::Result<()> {
    let until = Instant::now() + PATIENCE;
    while !is() {
        if Instant::now() >= until {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the process that keeps the logs {what}"),
            ));
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}
