//! Containers and groups of a manifest, with every default filled in.
//!
//! What stands here is what the rest of the workspace works with; the raw JSON is read only in `manifest/parse.rs`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{ContainerName, GroupName, Key, ObjectId};

/// How far a container must come before it counts as good.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum Goal {
    /// Its volumes are mounted; it is never started.
    Mounted,
    /// Its first process runs.
    Started,
    /// It said so: by the READY signal, or by its health check.
    Ready,
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mounted => "MOUNTED",
            Self::Started => "STARTED",
            Self::Ready => "READY",
        })
    }
}

/// Where a container is. The order is Pantavisor's; a group's status is the lowest of its members that miss their goal.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// Not known to the run time.
    None,
    /// Part of the revision, nothing done yet.
    Installed,
    /// Volumes mounted.
    Mounted,
    /// Waits for another group or container.
    Blocked,
    /// Being started.
    Starting,
    /// First process runs.
    Started,
    /// Said that it is ready.
    Ready,
    /// Ended; waits for its next try.
    Recovering,
    /// Being stopped.
    Stopping,
    /// Ended and not to be started again.
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "NONE",
            Self::Installed => "INSTALLED",
            Self::Mounted => "MOUNTED",
            Self::Blocked => "BLOCKED",
            Self::Starting => "STARTING",
            Self::Started => "STARTED",
            Self::Ready => "READY",
            Self::Recovering => "RECOVERING",
            Self::Stopping => "STOPPING",
            Self::Stopped => "STOPPED",
        })
    }
}

/// Pantavisor's `restart_policy`: who may control the container over the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RestartPolicy {
    /// Part of the system: not controlled over the socket.
    System,
    /// An application: may be started, stopped and restarted over the socket.
    Container,
}

impl fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "system",
            Self::Container => "container",
        })
    }
}

/// When a container that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RecoveryPolicy {
    /// Never.
    No,
    /// After every exit.
    Always,
    /// After an exit code other than 0, a signal, or a start that failed.
    OnFailure,
    /// As `always`, unless a person stopped it; that is remembered over restarts of the orchestrator.
    UnlessStopped,
}

impl fmt::Display for RecoveryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::No => "no",
            Self::Always => "always",
            Self::OnFailure => "on-failure",
            Self::UnlessStopped => "unless-stopped",
        })
    }
}

/// What happens when all retries are used up and no update is running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BackoffPolicy {
    /// The device is restarted.
    Reboot,
    /// The container stays stopped.
    Never,
    /// After this pause the retries start over.
    Pause(Duration),
}

/// Pantavisor's `auto_recovery` (protocols/pantavisor.md sections 2.2 and 10).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recovery {
    /// When to start again.
    pub policy: RecoveryPolicy,
    /// Retries before [`BackoffPolicy`]; 0 is no limit.
    pub max_retries: u32,
    /// Pause before the first retry.
    pub retry_delay: Duration,
    /// Each pause is this many times the one before (at least 1); no pause is longer than five minutes.
    pub backoff_factor: f64,
    /// An exit after more than this uptime forgets the retries before it; zero: they are never forgotten.
    pub reset_window: Duration,
    /// Uptime after which the container counts as stable; gates the commit.
    pub stable_timeout: Duration,
    /// When the retries are used up.
    pub backoff: BackoffPolicy,
}

/// A group: containers that start together, after the group before it reached its goal.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Its name.
    pub name: GroupName,
    /// For people.
    pub description: String,
    /// Default goal of its containers.
    pub goal: Goal,
    /// Default policy of its containers.
    pub restart_policy: RestartPolicy,
    /// How long its containers may take to reach their goals.
    pub timeout: Duration,
    /// Default of its containers; `None` when the group sets none.
    pub recovery: Option<Recovery>,
}

/// How long what a container writes is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Persistence {
    /// For ever, over revisions.
    Permanent,
    /// As long as the revision.
    Revision,
    /// Until the container's next start on another boot (a tmpfs).
    Boot,
}

/// The root file system of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootVolume {
    /// The image, a key below the container (`root.squashfs`).
    pub key: Key,
    /// The image's bytes.
    pub object: ObjectId,
    /// How to mount it.
    pub format: ImageFormat,
    /// The handler prefix (`dm` in `dm:root.squashfs`).
    pub handler: Option<String>,
    /// What `_dm/<image>.json` says; there when the handler is `dm`.
    pub verity: Option<Verity>,
}

/// How an image is checked while it is read (Pantavisor's `_dm/<image>.json`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verity {
    /// The tree of hashes.
    pub hashes: ObjectId,
    /// Its root as it stands there; whether it is one is found out by who sets the check up.
    pub root_hash: String,
}

/// Kind of a root image, by the ending of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ImageFormat {
    /// `.squashfs`
    Squashfs,
    /// `.erofs`
    Erofs,
    /// `.ext4`, mounted read-only
    Ext4,
}

/// A writable volume of a container (Pantavisor's `storage`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its name; a clean path segment. `lxc-overlay` is the writable layer over the root file system.
    pub name: String,
    /// Where it is mounted in the container; `None` for `lxc-overlay`.
    pub path: Option<String>,
    /// How long its content is kept.
    pub persistence: Persistence,
    /// Name of a disk of `device.json`.
    pub disk: Option<String>,
}

/// A file that the manifest lays over the root file system (`_config/<container>/<path>`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Overlay {
    /// From an object.
    Object(ObjectId),
    /// Inline JSON, byte for byte.
    Inline(String),
}

/// Roles of a container on the socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roles {
    /// Whether `run.json` has the key at all; without it the setting `pantavisor-default-roles` decides.
    pub given: bool,
    /// May do everything.
    pub mgmt: bool,
    /// May read everything.
    pub monitor: bool,
}

/// The two kinds of container.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// As pvr makes it.
    Lxc(Box<Lxc>),
    /// Ours.
    Oci(Box<Oci>),
}

/// What Pantavisor's kind of container says beyond what both have. What is in the configuration itself is known only to the run time:
/// it is an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lxc {
    /// The key of its configuration, `web/lxc.container.conf`.
    pub key: Key,
    /// Its configuration; only a container with goal MOUNTED may lack one.
    pub config: Option<ObjectId>,
    /// `docker_config` of `src.json`: `config` of the image configuration from which pvr made the container, as JSON.
    pub image_config: Option<String>,
    /// The root image's name among the container's keys, `root.squashfs`.
    pub root_name: Option<String>,
    /// Whether `stop-signal` is in run.json; else the configuration's `lxc.signal.halt` counts before [`Container::stop_signal`].
    pub stop_signal_given: bool,
    /// Network of run.json; `Host` leaves it to the configuration.
    pub network: Network,
    /// Host name of run.json.
    pub hostname: Option<String>,
    /// Whether it sees the host's kernel modules and firmware (`automodfw`).
    pub host_modules: bool,
    /// Services of other containers without which it does not work (`services.required`), by name. They are not connected.
    pub required_services: Vec<String>,
    /// Log settings.
    pub logs: Logs,
}

/// What our own kind of container says in `run.json` beyond Pantavisor's fields.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Oci {
    /// An OCI image configuration: object or inline JSON.
    pub image_config: Option<ImageConfig>,
    /// Replaces entrypoint and cmd of the image configuration.
    pub command: Option<Vec<String>>,
    /// Added to the image configuration's, `NAME=value`.
    pub env: Vec<String>,
    /// Working directory; replaces the image configuration's.
    pub workdir: Option<String>,
    /// `user[:group]` by number or name; replaces the image configuration's.
    pub user: Option<String>,
    /// Host name; the container's name when absent.
    pub hostname: Option<String>,
    /// Bind mounts from the host.
    pub mounts: Vec<Mount>,
    /// Device nodes of the host that it may use, as `/dev/...`.
    pub devices: Vec<Device>,
    /// Capabilities beyond (or below) the default set.
    pub capabilities: Capabilities,
    /// Default profile, or none.
    pub seccomp: Seccomp,
    /// Root file system without a writable layer.
    pub read_only: bool,
    /// Own user namespace, root mapped to an unprivileged range.
    pub user_namespace: bool,
    /// Limits.
    pub resources: Resources,
    /// Network.
    pub network: Network,
    /// How to ask whether it is well.
    pub health: Option<Health>,
    /// Log settings.
    pub logs: Logs,
}

/// Where the OCI image configuration is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageConfig {
    /// An object.
    Object(ObjectId),
    /// Inline in the manifest.
    Inline(String),
}

/// A bind mount from the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Absolute path on the host.
    pub source: String,
    /// Absolute path in the container.
    pub target: String,
    /// Whether it may only be read.
    #[serde(default, rename = "read-only")]
    pub read_only: bool,
}

/// A device node of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Absolute path on the host, `/dev/…`.
    pub path: String,
    /// `r`, `w`, `m` in any combination.
    #[serde(default = "Device::all_access")]
    pub access: String,
}

impl Device {
    fn all_access() -> String {
        "rwm".to_owned()
    }
}

/// Change to containerd's default set of capabilities.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Capabilities {
    /// Names such as `CAP_NET_ADMIN` to add.
    #[serde(default)]
    pub add: Vec<String>,
    /// Names to drop; `ALL` drops the default set.
    #[serde(default)]
    pub drop: Vec<String>,
}

/// System call filter.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Seccomp {
    /// containerd's default profile.
    #[default]
    Default,
    /// None.
    Unconfined,
}

/// Limits of a container; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Resources {
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// Share of processors: 1.5 is one and a half.
    pub cpus: Option<f64>,
    /// Processes and threads.
    pub pids: Option<u32>,
    /// Weight of its disk requests, 1 to 1000.
    pub io_weight: Option<u16>,
}

/// Network of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Network {
    /// The host's.
    #[default]
    Host,
    /// Loopback only.
    None,
    /// An address from a pool of `device.json`.
    Pool {
        /// The pool's name.
        pool: String,
        /// A fixed address.
        ip: Option<String>,
        /// A fixed hardware address.
        mac: Option<String>,
    },
}

/// How to ask a container whether it is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// The question.
    pub probe: Probe,
    /// Pause between two questions.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Failures in a row that make the container sick.
    pub retries: u32,
    /// Failures within this time after the start do not count.
    pub start_period: Duration,
}

/// One question to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// A command inside the container; exit code 0 is well.
    Exec(Vec<String>),
    /// An HTTP GET in the container's network; 2xx and 3xx are well.
    Http {
        /// TCP port.
        port: u16,
        /// Path with query.
        path: String,
    },
    /// A TCP connection in the container's network.
    Tcp {
        /// TCP port.
        port: u16,
    },
}

/// Log settings of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logs {
    /// Size at which a log file is rotated.
    pub max_bytes: u64,
    /// Rotated files that are kept beside the current one.
    pub files: u32,
    /// Files of the container whose lines are collected too.
    pub follow: Vec<FollowedFile>,
    /// Whether it has `/dev/log`.
    pub dev_log: bool,
}

/// A log file that a container writes by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowedFile {
    /// Its path in the container, absolute and clean.
    pub path: String,
    /// It is emptied when it is longer and was read to its end.
    pub truncate_bytes: Option<u64>,
}

impl Default for Logs {
    fn default() -> Self {
        Self {
            max_bytes: 1 << 20,
            files: 3,
            follow: Vec::new(),
            dev_log: false,
        }
    }
}

/// One container of a revision, complete: nothing about it is looked up elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Container {
    /// Its name.
    pub name: ContainerName,
    /// Its kind and what only that kind has.
    pub kind: Kind,
    /// The group it belongs to.
    pub group: GroupName,
    /// Its goal.
    pub goal: Goal,
    /// How long it may take to reach the goal (its group's time-out).
    pub goal_timeout: Duration,
    /// Who may control it.
    pub restart_policy: RestartPolicy,
    /// What it may do on the socket.
    pub roles: Roles,
    /// When it is started again.
    pub recovery: Recovery,
    /// Whether `recovery` was given in run.json or by the group (Pantavisor's lists show it only then).
    pub recovery_given: bool,
    /// Its root file system; only a container with goal MOUNTED may lack one.
    pub root: Option<RootVolume>,
    /// Its writable volumes.
    pub volumes: Vec<Volume>,
    /// Files laid over the root file system, by path without leading slash.
    pub overlays: BTreeMap<String, Overlay>,
    /// Containers that must have reached their goal first.
    pub depends_on: Vec<ContainerName>,
    /// Signal that asks it to stop (`TERM`, `PWR`, …), by number.
    pub stop_signal: u32,
    /// How long it may take to stop before it is killed.
    pub stop_timeout: Duration,
    /// SHA-256 over everything that makes this container what it is: two revisions in which it is equal share the running
    /// container. Provenance (`src.json`, `build.json`), signatures, group time-outs and goals do not count.
    pub fingerprint: ObjectId,
}

impl Container {
    /// Its log settings.
    pub fn logs(&self) -> &Logs {
        match &self.kind {
            Kind::Oci(oci) => &oci.logs,
            Kind::Lxc(lxc) => &lxc.logs,
        }
    }

    /// Every object that must be there for this container to start.
    pub fn objects(&self) -> impl Iterator<Item = ObjectId> {
        let root = self.root.iter().map(|root| root.object);
        let config = match &self.kind {
            Kind::Oci(oci) => match oci.image_config {
                Some(ImageConfig::Object(object)) => Some(object),
                Some(ImageConfig::Inline(_)) | None => None,
            },
            Kind::Lxc(lxc) => lxc.config,
        };
        let overlays = self.overlays.values().filter_map(|overlay| match overlay {
            Overlay::Object(object) => Some(*object),
            Overlay::Inline(_) => None,
        });
        root.chain(config)
            .chain(overlays)
            .collect::<Vec<_>>()
            .into_iter()
    }
}
