//! A private containerd: started, found again, kept running.
//!
//! It is in a session of its own and outlives us: a killed orchestrator leaves containerd, shims and containers as they are, and
//! the next one finds containerd by its command line. Nothing here waits for it to answer; that is the connection's business.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use linux::process::{self, Process};

use crate::config::Spawn;

/// A socket's address has room for 107 bytes.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// One that ran for so long did not fail at its start: the next one is started at once.
const STABLE: Duration = Duration::from_secs(10);
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Time that an orderly stop may take.
const STOP: Duration = Duration::from_secs(10);

/// Why containerd could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SuperviseError {
    #[error("cannot prepare {path} for containerd: {source}")]
    Prepare { path: PathBuf, source: io::Error },
    #[error("cannot start {program}: {source}; is containerd installed?")]
    Start { program: PathBuf, source: io::Error },
    #[error("the path of containerd's socket, {0}, is longer than 107 bytes; use a shorter folder")]
    SocketPath(PathBuf),
}

/// Keeps one containerd running. Its calls block for milliseconds.
#[derive(Debug)]
pub(crate) struct Supervisor {
    spawn: Spawn,
    process: Option<(Process, Instant)>,
    failures: u32,
}

impl Supervisor {
    pub(crate) fn new(spawn: Spawn) -> Self {
        Self {
            spawn,
            process: None,
            failures: 0,
        }
    }

    /// Finds or starts containerd unless it runs; `Ok` means that the process is there, not that it answers.
    pub(crate) fn ensure(&mut self) -> Result<(), SuperviseError> {
        if self.is_alive() {
            return Ok(());
        }
        let config = self.spawn.config_file();
        if let Some(found) = find(&config) {
            tracing::info!(
                pid = found.pid(),
                "found the private containerd of an earlier start"
            );
            self.process = Some((found, Instant::now()));
            return Ok(());
        }
        self.prepare()?;
        let log = self.spawn.log_file();
        let output = fs::OpenOptions::new().create(true).append(true).open(&log);
        let output = output.map_err(prepare(&log))?;
        let errors = output.try_clone().map_err(prepare(&log))?;
        let mut child = Command::new(&self.spawn.program)
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .current_dir("/")
            // Not ours to pass on: it would report containerd's readiness as that of the orchestrator.
            .env_remove("NOTIFY_SOCKET")
            // A smaller heap for a few more cycles.
            .env("GOGC", "50")
            // A Ctrl-C for us is none for it.
            .process_group(0)
            .spawn()
            .map_err(|source| SuperviseError::Start {
                program: self.spawn.program.clone(),
                source,
            })?;
        match Process::open(child.id()) {
            Ok(process) => self.process = Some((process, Instant::now())),
            // It ended already; `wait` takes the zombie away, the next round says so.
            Err(_) => drop(child.wait()),
        }
        Ok(())
    }

    /// How long to wait before [`Supervisor::ensure`] after the connection was lost or never came.
    pub(crate) fn pause(&mut self) -> Duration {
        if self.is_alive() {
            return Duration::ZERO;
        }
        let stable = self
            .process
            .as_ref()
            .is_some_and(|(_, since)| since.elapsed() >= STABLE);
        self.process = None;
        if stable {
            self.failures = 0;
            return Duration::ZERO;
        }
        let pause = PAUSE_FIRST.saturating_mul(1 << self.failures.min(16));
        self.failures += 1;
        pause.min(PAUSE_MAX)
    }

    /// Whether the process is there.
    pub(crate) fn is_alive(&self) -> bool {
        match &self.process {
            Some((process, _)) => !process.wait(Duration::ZERO).unwrap_or(true),
            None => false,
        }
    }

    /// Its number while it is there.
    pub(crate) fn pid(&self) -> Option<u32> {
        let (process, _) = self.process.as_ref()?;
        self.is_alive().then(|| process.pid())
    }

    /// Ends one that runs and does not answer.
    pub(crate) fn kill(&mut self) {
        if let Some((process, _)) = &self.process {
            tracing::warn!(
                pid = process.pid(),
                "containerd runs and does not answer: killed"
            );
            if let Err(error) = process.kill().and_then(|()| process.wait(STOP)) {
                tracing::error!(%error, "cannot kill containerd");
            }
        }
    }

    /// Ends it in good order. Shims and containers go on.
    pub(crate) fn stop(&mut self) {
        let Some((process, _)) = self.process.take() else {
            return;
        };
        let ended = process
            .signal(linux::process::TERM)
            .and_then(|()| process.wait(STOP))
            .and_then(|ended| {
                if ended {
                    Ok(true)
                } else {
                    process.kill().map(|()| false)
                }
            });
        match ended {
            Ok(true) => {}
            Ok(false) => tracing::warn!("containerd did not stop in time and was killed"),
            Err(error) => tracing::error!(%error, "cannot stop containerd"),
        }
    }

    fn prepare(&self) -> Result<(), SuperviseError> {
        let socket = self.spawn.socket();
        // With the second socket, `.ttrpc`.
        if socket.as_os_str().len() + ".ttrpc".len() > SOCKET_PATH_BYTES_MAX {
            return Err(SuperviseError::SocketPath(socket));
        }
        for folder in [&self.spawn.root, &self.spawn.state] {
            fs::create_dir_all(folder).map_err(prepare(folder))?;
        }
        let config = self.spawn.config_file();
        fs::write(&config, configuration(&self.spawn)).map_err(prepare(&config))
    }
}

fn prepare(path: &Path) -> impl FnOnce(io::Error) -> SuperviseError {
    move |source| SuperviseError::Prepare {
        path: path.to_owned(),
        source,
    }
}

/// The containerd that was started with this configuration file.
fn find(config: &Path) -> Option<Process> {
    let config = config.as_os_str().as_encoded_bytes();
    process::find(
        |arguments| matches!(arguments, [_, flag, path] if flag == b"--config" && path == config),
    )
    .pop()
}

/// Version 2 of the format is read by 1.6 and, converted by itself, by 2.x. Names of plugins that a version does not know do not matter.
fn configuration(spawn: &Spawn) -> String {
    let quoted =
        |path: &Path| serde_json::Value::String(path.to_string_lossy().into_owned()).to_string();
    format!(
        r#"# Written by coxswain at each start.
version = 2
root = {root}
state = {state}
# The kernel takes everything else first when memory runs out.
oom_score = -999
# What containers from images of ours do not need.
disabled_plugins = [
  "io.containerd.grpc.v1.cri",
  "io.containerd.cri.v1.images",
  "io.containerd.cri.v1.runtime",
  "io.containerd.nri.v1.nri",
  "io.containerd.internal.v1.opt",
  "io.containerd.internal.v1.restart",
  "io.containerd.internal.v1.tracing",
  "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.erofs",
  "io.containerd.snapshotter.v1.zfs",
]

[debug]
  level = "warn"

[grpc]
  address = {socket}

[ttrpc]
  address = {ttrpc}
"#,
        root = quoted(&spawn.root),
        state = quoted(&spawn.state),
        socket = quoted(&spawn.socket()),
        ttrpc = quoted(&spawn.socket().with_extension("sock.ttrpc")),
    )
}
