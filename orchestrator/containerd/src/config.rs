//! What the adapter is told at start: where containerd is, and which folders are its own.

use std::path::PathBuf;

use model::{ContainerName, ObjectId, RevisionId};

/// Settings of the adapter. Paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Which containerd.
    pub address: Address,
    /// containerd's namespace for everything of ours.
    pub namespace: String,
    /// The storage root: `objects/`, `disks/`, `logs/` are below it.
    pub storage: PathBuf,
    /// Our folder on a tmpfs, `/run/coxswain`: mounts, records, what lasts until the next boot.
    pub run_dir: PathBuf,
    /// Host folder that holds `control.sock`. Containers get the folder, not the socket, so that a socket that is made anew
    /// reaches them. The adapter makes the folder and the link `pv-ctrl` in it; the server makes the socket.
    pub sockets_dir: PathBuf,
    /// Control group above all containers, absolute (`/coxswain`). One namespace of containerd, one group.
    pub cgroup_parent: String,
    /// Whether a container whose manifest says nothing about roles sees what one with the role `mgmt` sees.
    pub default_role_mgmt: bool,
    /// Whether the containers of a group share one shim: saves about 4 MB for each further container, but one
    /// killed shim takes its whole group down.
    pub share_shims: bool,
    /// How the output of containers is kept.
    pub logs: LogSettings,
}

/// How the output of containers is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// What all logs together may take, bytes.
    pub quota_bytes: u64,
    /// What one container may write in the long run, bytes a second.
    pub rate_bytes: u64,
    /// The log process, `logger::run`; `None` when somebody else runs it (tests).
    pub program: Option<logger::Program>,
}

/// Which containerd to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// One that somebody else runs, by the path of its socket.
    Connect(PathBuf),
    /// A private one that we start, keep running, and find again after our own restart.
    Spawn(Spawn),
}

/// A private containerd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spawn {
    /// The program: a path, or a name to find in PATH.
    pub program: PathBuf,
    /// Its store; may be deleted while it is stopped.
    pub root: PathBuf,
    /// Its folder on a tmpfs: socket, configuration, log.
    pub state: PathBuf,
}

impl Spawn {
    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.state.join("containerd.sock")
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.state.join("config.toml")
    }

    pub(crate) fn log_file(&self) -> PathBuf {
        self.state.join("containerd.log")
    }
}

impl Address {
    /// The socket to talk to.
    pub fn socket(&self) -> PathBuf {
        match self {
            Self::Connect(socket) => socket.clone(),
            Self::Spawn(spawn) => spawn.socket(),
        }
    }
}

impl Config {
    /// The usual settings for a storage root and a run folder, with a private containerd below them.
    pub fn new(storage: PathBuf, run_dir: PathBuf) -> Self {
        Self {
            address: Address::Spawn(Spawn {
                program: "containerd".into(),
                root: storage.join("containerd"),
                state: run_dir.join("containerd"),
            }),
            namespace: "coxswain".to_owned(),
            sockets_dir: run_dir.join("sockets"),
            storage,
            run_dir,
            cgroup_parent: "/coxswain".to_owned(),
            default_role_mgmt: false,
            share_shims: false,
            logs: LogSettings {
                quota_bytes: 64 << 20,
                rate_bytes: 4 << 20,
                program: None,
            },
        }
    }

    pub(crate) fn object(&self, object: ObjectId) -> PathBuf {
        self.storage.join("objects").join(object.to_string())
    }

    pub(crate) fn images(&self) -> PathBuf {
        self.run_dir.join("images")
    }

    pub(crate) fn image(&self, object: ObjectId) -> PathBuf {
        self.images().join(object.to_string())
    }

    pub(crate) fn instances(&self) -> PathBuf {
        self.run_dir.join("instances")
    }

    pub(crate) fn instance(&self, id: &str) -> PathBuf {
        self.instances().join(id)
    }

    /// Metadata as files, written by the daemon for containers to see.
    pub fn meta(&self) -> PathBuf {
        self.run_dir.join("meta")
    }

    /// One tmpfs for everything that lasts until the next boot.
    pub(crate) fn boot(&self) -> PathBuf {
        self.run_dir.join("boot")
    }

    /// runc's own records; ours, so that what a lost containerd left can be found and removed.
    pub(crate) fn runc_root(&self) -> PathBuf {
        self.run_dir.join("runc")
    }

    /// Where the log process finds the output of containers.
    pub fn spool(&self) -> PathBuf {
        self.run_dir.join("output")
    }

    pub(crate) fn cgroup(&self, id: &str) -> String {
        format!("{}/{id}", self.cgroup_parent)
    }

    /// The log of a container, `logs/<rev>/<container>/console.log`.
    pub fn console_log(&self, revision: &RevisionId, container: &ContainerName) -> PathBuf {
        self.storage
            .join("logs")
            .join(revision.as_str())
            .join(container.as_str())
            .join("console.log")
    }
}
