//! What a container's processes get, and the OCI run-time specification that says it.
//!
//! Both kinds of container become a [`Wanted`] first (`own.rs`, `lxc/wanted.rs`): everything that can be wanted is a field of it, so
//! neither kind can get something that the other's code does not know of. What a field may hold was checked by `model`
//! or by the translation; what depends on this machine or on the image is checked where `Wanted` is made.

mod defaults;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use model::Container;
use model::container::{Oci, Persistence};
use oci_spec::OciSpecError;

pub(crate) use defaults::*;

use crate::lxc;
use crate::rootfs::VolumePlace;
use crate::sees;
use crate::user::{User, UserError};

/// The volume that is the writable layer over the root image.
pub(crate) const WRITABLE_LAYER: &str = "lxc-overlay";

/// Why a container cannot be described to the run time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpecError {
    #[error(
        "nothing to run: neither `command` in run.json nor an entrypoint or cmd in the image configuration"
    )]
    NoCommand,
    #[error(transparent)]
    User(#[from] UserError),
    #[error("unknown capability {0:?}: use names such as CAP_NET_ADMIN")]
    Capability(String),
    #[error("device {path} cannot be used: {reason}")]
    Device { path: String, reason: String },
    #[error(
        "host path {source_path} cannot be mounted at {target}: it does not exist on this machine"
    )]
    MountSource { source_path: String, target: String },
    #[error(
        "network pools need CNI, which this build does not have; use \"host\" or \"none\" instead of pool {0:?}"
    )]
    Pool(String),
    #[error("`user-namespace` is not supported by this build; leave it out or set it to false")]
    UserNamespace,
    #[error("volume {volume}: disk {disk:?} is not supported by this build; leave `disk` out")]
    Disk { volume: String, disk: String },
    #[error("{key}: {problems}")]
    Lxc {
        key: String,
        problems: lxc::Problems,
    },
    #[error("{key}: {refused}")]
    LxcHere { key: String, refused: lxc::Refused },
    #[error("cannot be described to the run time: {0}")]
    Describe(#[from] OciSpecError),
    #[error("cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Where the parts of one instance are on the host.
#[derive(Debug)]
pub(crate) struct Places<'a> {
    pub(crate) rootfs: &'a Path,
    pub(crate) storage: &'a Path,
    pub(crate) cgroup: &'a str,
    pub(crate) sockets: &'a Path,
    /// What is mounted on each of `sees::POINTS`.
    pub(crate) sees: &'a [PathBuf],
    /// Every volume but the writable layer.
    pub(crate) volumes: &'a [VolumePlace],
    /// The socket that is its `/dev/log`.
    pub(crate) dev_log: Option<&'a Path>,
    /// Containers with the same one share a shim.
    pub(crate) shim_group: Option<String>,
}

/// What a container's processes get.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wanted {
    /// Program and arguments; never empty.
    pub(crate) args: Vec<String>,
    /// `NAME=value`.
    pub(crate) env: Vec<String>,
    pub(crate) cwd: String,
    pub(crate) user: User,
    /// `None`: the host's, whose name space is kept.
    pub(crate) hostname: Option<String>,
    pub(crate) capabilities: BTreeSet<String>,
    pub(crate) no_new_privileges: bool,
    /// Whether the default system call filter is on.
    pub(crate) seccomp: bool,
    pub(crate) apparmor: Option<String>,
    pub(crate) selinux: Option<String>,
    pub(crate) oom_score_adjustment: i32,
    /// Soft and hard limit, by names of [`RLIMITS`].
    pub(crate) rlimits: BTreeMap<&'static str, (u64, u64)>,
    /// Name spaces of its own, besides that of mounts.
    pub(crate) namespaces: BTreeSet<Namespace>,
    /// In this order.
    pub(crate) mounts: Vec<Mounted>,
    /// Nodes beyond the usual ones.
    pub(crate) devices: Vec<Node>,
    /// The last one that fits counts.
    pub(crate) device_rules: Vec<DeviceRule>,
    pub(crate) limits: Limits,
    pub(crate) sysctl: BTreeMap<String, String>,
    pub(crate) masked: Vec<String>,
    pub(crate) read_only: Vec<String>,
    pub(crate) read_only_root: bool,
}

/// A kind of name space that can be the container's own or the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Namespace {
    Pid,
    Ipc,
    Uts,
    Network,
    Cgroup,
}

/// Something mounted in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mounted {
    /// A path of the host, or the name of a made file system.
    pub(crate) source: String,
    pub(crate) target: String,
    /// `bind`, or a file system.
    pub(crate) kind: String,
    pub(crate) options: Vec<String>,
}

impl Mounted {
    pub(crate) fn new(target: &str, kind: &str, source: &str, options: &[&str]) -> Self {
        Self {
            source: source.to_owned(),
            target: target.to_owned(),
            kind: kind.to_owned(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
        }
    }

    /// A folder or file of the host.
    pub(crate) fn bind(source: &Path, target: &str, options: &[&str]) -> Self {
        let all: Vec<&str> = ["rbind", "rprivate"]
            .iter()
            .chain(options)
            .copied()
            .collect();
        Self::new(target, "bind", &source.to_string_lossy(), &all)
    }
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) path: String,
    /// `b` or `c`.
    pub(crate) kind: char,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Who may use which devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeviceRule {
    pub(crate) allow: bool,
    /// `a` for all, `b`, `c`.
    pub(crate) kind: char,
    /// `None`: any.
    pub(crate) major: Option<u32>,
    /// `None`: any.
    pub(crate) minor: Option<u32>,
    /// `r`, `w`, `m`.
    pub(crate) access: String,
}

impl DeviceRule {
    /// For every device.
    pub(crate) fn all(allow: bool) -> Self {
        Self {
            allow,
            kind: 'a',
            major: None,
            minor: None,
            access: "rwm".to_owned(),
        }
    }

    /// One rule for each of the usual devices.
    pub(crate) fn usual() -> impl Iterator<Item = Self> {
        DEVICES.into_iter().map(|(major, minor)| Self {
            allow: true,
            kind: 'c',
            major: Some(major),
            minor,
            access: "rwm".to_owned(),
        })
    }
}

/// Limits of all processes together; `None` is none, -1 takes one away that was there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Limits {
    /// Bytes.
    pub(crate) memory: Option<i64>,
    /// Bytes below which memory is not taken from it.
    pub(crate) memory_reservation: Option<i64>,
    /// Bytes of memory and swap together.
    pub(crate) memory_and_swap: Option<i64>,
    pub(crate) cpu_shares: Option<u64>,
    /// Microseconds of each period.
    pub(crate) cpu_quota: Option<i64>,
    /// Microseconds.
    pub(crate) cpu_period: Option<u64>,
    pub(crate) cpus: Option<String>,
    pub(crate) mems: Option<String>,
    pub(crate) pids: Option<i64>,
    pub(crate) io_weight: Option<u16>,
    /// Files of the unified hierarchy as they stand.
    pub(crate) unified: BTreeMap<String, String>,
}

/// What containerd is told: the whole description, and the first process alone for probes that run a command.
pub(crate) struct Described {
    pub(crate) spec: Vec<u8>,
    pub(crate) process: Vec<u8>,
}

/// Writes down what is wanted.
pub(crate) fn describe(wanted: &Wanted, places: &Places<'_>) -> Result<Described, SpecError> {
    let process = write::process(wanted)?;
    let process_json = serde_json::to_vec(&process)?;
    let spec = write::spec(wanted, process, places)?;
    Ok(Described {
        spec: serde_json::to_vec(&spec)?,
        process: process_json,
    })
}

/// The last one of a name counts. PATH and HOME when nobody sets them.
pub(crate) fn environment<'a>(given: impl Iterator<Item = &'a String>, user: &User) -> Vec<String> {
    let mut all: Vec<String> = vec![DEFAULT_PATH.to_owned()];
    if let Some(home) = &user.home {
        all.push(format!("HOME={home}"));
    }
    for entry in given {
        let name = entry.split('=').next().unwrap_or_default();
        all.retain(|other| other.split('=').next() != Some(name));
        all.push(entry.clone());
    }
    all
}

/// Pseudo terminals of its own.
pub(crate) fn pseudo_terminals() -> Mounted {
    let options = [
        "nosuid",
        "noexec",
        "newinstance",
        "ptmxmode=0666",
        "mode=0620",
        "gid=5",
    ];
    Mounted::new("/dev/pts", "devpts", "devpts", &options)
}

/// Shared memory by name.
pub(crate) fn shared_memory() -> Mounted {
    let options = ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"];
    Mounted::new("/dev/shm", "tmpfs", "shm", &options)
}

/// The control socket, under both its names, and what the container sees of the device below the second one;
/// and `/dev/log`.
pub(crate) fn sockets(places: &Places<'_>) -> impl Iterator<Item = Mounted> {
    let shown = |folder: &Path, target: &str| {
        let options = ["ro", "nosuid", "nodev", "noexec"];
        Mounted::bind(folder, target, &options)
    };
    ["/run/coxswain", "/pantavisor"]
        .into_iter()
        .map(move |target| shown(places.sockets, target))
        .chain(
            places
                .sees
                .iter()
                .zip(sees::POINTS)
                .map(move |(folder, point)| shown(folder, &format!("/pantavisor/{point}"))),
        )
        .chain(places.dev_log.map(move |socket| shown(socket, "/dev/log")))
}

/// Whether the writable layer of a container is wanted, and how long it is kept.
pub(crate) fn writable_layer(container: &Container, oci: Option<&Oci>) -> Option<Persistence> {
    if oci.is_some_and(|oci| oci.read_only) {
        return None;
    }
    let given = container
        .volumes
        .iter()
        .find(|volume| volume.name == WRITABLE_LAYER);
    Some(given.map_or(Persistence::Boot, |volume| volume.persistence))
}
