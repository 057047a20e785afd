//! The folder in which orchestrator and log process meet.
//!
//! `config.json` holds the settings. A source is a folder `<name>` with `source.json`, the pipes `stdout` and `stderr`, and, made by the log
//! process, the socket `dev-log`; it appears whole, by a rename. `<name>.pid` tells its first process, `<name>.end` its end. When the log
//! process has written the last line of an ended source, it removes all of that. `lock` is held by the log process.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use model::container::Logs;
use model::{ContainerName, RevisionId};
use serde::{Deserialize, Serialize};

use crate::limits;

const CONFIG: &str = "config.json";
const LOCK: &str = "lock";
const SOURCE: &str = "source.json";
const STDOUT: &str = "stdout";
const STDERR: &str = "stderr";
const DEV_LOG: &str = "dev-log";

/// Settings for all sources.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The folder of the logs, `logs/` of the storage.
    pub logs: PathBuf,
    /// What all logs together may take, bytes.
    pub quota_bytes: u64,
    /// What one source may write in the long run, bytes a second; short bursts may be more.
    pub rate_bytes: u64,
    /// Pantavisor's log socket, `pv-ctrl-log`.
    pub control_socket: Option<PathBuf>,
    /// Control group above all containers; the group below it is a source's id.
    pub cgroup_parent: String,
}

/// What writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The container's control group.
    pub id: String,
    /// Whose lines they are.
    pub container: ContainerName,
    /// For which revision it was started.
    pub revision: RevisionId,
    /// Size at which its file is rotated.
    pub max_bytes: u64,
    /// Rotated files that are kept.
    pub files: u32,
    /// Files in the container whose lines are taken: path, and the size at which each is emptied.
    pub follow: Vec<(String, Option<u64>)>,
    /// Whether it has `/dev/log`.
    pub dev_log: bool,
}

impl Source {
    /// A source with a container's settings.
    pub fn new(id: String, container: ContainerName, revision: RevisionId, logs: &Logs) -> Self {
        Self {
            id,
            container,
            revision,
            max_bytes: logs.max_bytes,
            files: logs.files,
            follow: logs
                .follow
                .iter()
                .map(|file| (file.path.clone(), file.truncate_bytes))
                .collect(),
            dev_log: logs.dev_log,
        }
    }
}

/// A source that was put into the spool. Its pipes have a reader and a writer as long as this lives.
#[derive(Debug)]
#[must_use = "what is written before anybody reads is lost with it"]
pub struct Registered {
    /// Where its standard output goes.
    pub stdout: PathBuf,
    /// Where its standard error goes.
    pub stderr: PathBuf,
    /// Where its `/dev/log` will be, once the log process has taken it up.
    pub dev_log: Option<PathBuf>,
    held: [File; 2],
    readers: Readers,
}

/// Keeps what was written to the pipes of a source until the log process has taken it, also while that is between two lives.
#[derive(Debug)]
pub struct Readers {
    _stdout: File,
    _stderr: File,
}

impl Registered {
    /// Once the container has its pipes open: its end can be seen from now on, and nothing of it is lost.
    pub fn into_readers(self) -> Readers {
        let Self { held, readers, .. } = self;
        drop(held);
        readers
    }
}

/// The folder. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spool {
    folder: PathBuf,
}

impl Spool {
    /// The spool in this folder, which need not exist.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes the folder and writes the settings.
    ///
    /// # Errors
    /// As the kernel gives them.
    pub fn configure(&self, settings: &Settings) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let bytes = serde_json::to_vec(settings).map_err(io::Error::other)?;
        self.write(CONFIG, &bytes)
    }

    /// Name of a source; `generation` tells the starts of one container apart.
    pub fn name(id: &str, generation: u64) -> String {
        format!("{id}.{generation}")
    }

    /// Puts a source into the spool.
    ///
    /// # Errors
    /// As the kernel gives them.
    pub fn register(&self, name: &str, source: &Source) -> io::Result<Registered> {
        let early = self.folder.join(format!(".{name}"));
        remove_folder(&early)?;
        fs::create_dir(&early)?;
        linux::pipes::make(&early.join(STDOUT), 0o600)?;
        linux::pipes::make(&early.join(STDERR), 0o600)?;
        let bytes = serde_json::to_vec(source).map_err(io::Error::other)?;
        fs::write(early.join(SOURCE), bytes)?;
        let held = [
            linux::pipes::hold_open(&early.join(STDOUT))?,
            linux::pipes::hold_open(&early.join(STDERR))?,
        ];
        for pipe in &held {
            // Less room holds the container up sooner; nothing else.
            linux::pipes::enlarge(pipe, limits::PIPE_BYTES).ok();
        }
        let readers = Readers {
            _stdout: linux::pipes::open_to_read(&early.join(STDOUT))?,
            _stderr: linux::pipes::open_to_read(&early.join(STDERR))?,
        };
        let folder = self.source(name);
        remove_folder(&folder)?;
        for ending in ["end", "pid"] {
            remove_file(&self.mark(name, ending))?;
        }
        fs::rename(&early, &folder)?;
        Ok(Registered {
            stdout: folder.join(STDOUT),
            stderr: folder.join(STDERR),
            dev_log: source.dev_log.then(|| folder.join(DEV_LOG)),
            held,
            readers,
        })
    }

    /// Tells the first process of a source, in whose sight files are followed.
    ///
    /// # Errors
    /// As the kernel gives them.
    pub fn running(&self, name: &str, pid: u32) -> io::Result<()> {
        self.write(&format!("{name}.pid"), pid.to_string().as_bytes())
    }

    /// Tells that a source has ended: what it wrote is written to its end, then it is removed.
    ///
    /// # Errors
    /// As the kernel gives them.
    pub fn end(&self, name: &str) -> io::Result<()> {
        if self.is_there(name) {
            self.write(&format!("{name}.end"), b"")?;
        }
        Ok(())
    }

    /// Whether a source is still in the spool.
    pub fn is_there(&self, name: &str) -> bool {
        self.source(name).is_dir()
    }

    /// Names of the sources; empty when the folder is not there.
    pub fn names(&self) -> BTreeSet<String> {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return BTreeSet::new();
        };
        entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let name = entry.file_name().into_string().ok()?;
                let taken = entry.file_type().ok()?.is_dir() && !name.starts_with('.');
                taken.then_some(name)
            })
            .collect()
    }

    pub(crate) fn lock_file(&self) -> io::Result<File> {
        let path = self.folder.join(LOCK);
        File::options()
            .create(true)
            .append(true)
            .read(true)
            .open(path)
    }

    pub(crate) fn settings(&self) -> io::Result<Settings> {
        read_json(&self.folder.join(CONFIG))
    }

    pub(crate) fn read(&self, name: &str) -> io::Result<Source> {
        read_json(&self.source(name).join(SOURCE))
    }

    pub(crate) fn stdout(&self, name: &str) -> PathBuf {
        self.source(name).join(STDOUT)
    }

    pub(crate) fn stderr(&self, name: &str) -> PathBuf {
        self.source(name).join(STDERR)
    }

    pub(crate) fn dev_log(&self, name: &str) -> PathBuf {
        self.source(name).join(DEV_LOG)
    }

    pub(crate) fn has_ended(&self, name: &str) -> bool {
        self.mark(name, "end").exists()
    }

    pub(crate) fn pid(&self, name: &str) -> Option<u32> {
        fs::read_to_string(self.mark(name, "pid"))
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    /// Removes a source with all that belongs to it, its folder last: then it is not there any more.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        for ending in ["pid", "end"] {
            remove_file(&self.mark(name, ending))?;
        }
        remove_folder(&self.source(name))
    }

    fn source(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn mark(&self, name: &str, ending: &str) -> PathBuf {
        self.folder.join(format!("{name}.{ending}"))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let early = self.folder.join(format!(".{name}"));
        fs::write(&early, bytes)?;
        fs::rename(early, self.folder.join(name))
    }
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> io::Result<T> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(limits::DESCRIPTION_BYTES_MAX)
        .read_to_end(&mut bytes)?;
    serde_json::from_slice(&bytes).map_err(io::Error::other)
}

fn remove_file(path: &Path) -> io::Result<()> {
    absent(fs::remove_file(path))
}

fn remove_folder(path: &Path) -> io::Result<()> {
    absent(fs::remove_dir_all(path))
}

fn absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
