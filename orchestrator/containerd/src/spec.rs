//! The OCI run-time specification of a container of kind `oci`.
//!
//! Safe unless told otherwise: private namespaces, containerd's default capabilities and system call filter, no new privileges,
//! only the usual devices. What a field may hold was checked by `model`; what depends on this machine or on the image is checked here.

use std::collections::{BTreeSet, HashMap};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use model::Container;
use model::container::{Capabilities as Change, Device, Network, Oci, Persistence, Resources};
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capabilities, Capability, Linux, LinuxBlockIoBuilder, LinuxBuilder, LinuxCapabilitiesBuilder,
    LinuxCpuBuilder, LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder,
    LinuxDeviceType, LinuxMemoryBuilder, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType,
    LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder, Mount, MountBuilder,
    PosixRlimitBuilder, PosixRlimitType, Process, ProcessBuilder, RootBuilder, Spec, SpecBuilder,
    UserBuilder,
};

use crate::image::ImageConfig;
use crate::seccomp;
use crate::user::{self, User, UserError};

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What containerd lets a container do when nothing else is said.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Character devices that every container may use: null, zero, full, random, urandom, tty, console, ptmx, pseudo terminals.
const DEFAULT_DEVICES: [(i64, Option<i64>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

/// The runc shim serves all containers with the same value from one process.
const SHIM_GROUP: &str = "io.containerd.runc.v2.group";

const OPEN_FILES_SOFT: u64 = 1024;
const OPEN_FILES_HARD: u64 = 524_288;
/// Period of the processor quota, microseconds: the kernel's default.
const CPU_PERIOD_US: u32 = 100_000;

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
    #[error("cannot be described to the run time: {0}")]
    Describe(#[from] OciSpecError),
    #[error("cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Where the parts of one instance are on the host.
#[derive(Debug)]
pub(crate) struct Places<'a> {
    pub(crate) rootfs: &'a Path,
    pub(crate) cgroup: &'a str,
    pub(crate) sockets: &'a Path,
    /// Host folder of each volume that has a path in the container.
    pub(crate) volumes: &'a [(PathBuf, String)],
    /// Containers with the same one share a shim.
    pub(crate) shim_group: Option<String>,
}

/// What containerd is told: the whole description, and the first process alone for probes that run a command.
pub(crate) struct Described {
    pub(crate) spec: Vec<u8>,
    pub(crate) process: Vec<u8>,
}

/// Describes a container.
pub(crate) fn describe(
    container: &Container,
    oci: &Oci,
    image: &ImageConfig,
    places: &Places<'_>,
) -> Result<Described, SpecError> {
    if oci.user_namespace {
        return Err(SpecError::UserNamespace);
    }
    let capabilities = capabilities(&oci.capabilities)?;
    let process = process(oci, image, places.rootfs, &capabilities)?;
    let process_json = serde_json::to_vec(&process)?;
    let hostname = oci
        .hostname
        .clone()
        .unwrap_or_else(|| container.name.to_string());
    let mounts = mounts(container, oci, places)?;
    let annotations = places
        .shim_group
        .iter()
        .map(|group| (SHIM_GROUP.to_owned(), format!("coxswain-{group}")))
        .collect::<HashMap<_, _>>();
    let spec: Spec = SpecBuilder::default()
        .annotations(annotations)
        .version("1.0.2")
        .process(process)
        .root(
            RootBuilder::default()
                .path(places.rootfs)
                .readonly(oci.read_only)
                .build()?,
        )
        .hostname(hostname)
        .mounts(mounts)
        .linux(linux(oci, &capabilities, places.cgroup)?)
        .build()?;
    Ok(Described {
        spec: serde_json::to_vec(&spec)?,
        process: process_json,
    })
}

fn process(
    oci: &Oci,
    image: &ImageConfig,
    rootfs: &Path,
    capabilities: &BTreeSet<String>,
) -> Result<Process, SpecError> {
    let args = oci.command.clone().unwrap_or_else(|| image.command());
    if args.is_empty() {
        return Err(SpecError::NoCommand);
    }
    let wanted = oci
        .user
        .as_deref()
        .or(image.user.as_deref())
        .unwrap_or_default();
    let user = user::look_up(rootfs, wanted)?;
    let cwd = oci
        .workdir
        .as_deref()
        .or(image.working_dir.as_deref())
        .filter(|path| !path.is_empty())
        .unwrap_or("/");
    let set = capability_set(capabilities)?;
    // More than ours needs a capability that we may lack.
    let open_files = linux::process::open_files_max().min(OPEN_FILES_HARD);
    Ok(ProcessBuilder::default()
        .terminal(false)
        .args(args)
        .env(environment(oci, image, &user))
        .cwd(Path::new("/").join(cwd))
        .user(
            UserBuilder::default()
                .uid(user.uid)
                .gid(user.gid)
                .additional_gids(user.groups)
                .build()?,
        )
        .capabilities(
            LinuxCapabilitiesBuilder::default()
                .bounding(set.clone())
                .effective(set.clone())
                .permitted(set)
                .inheritable(Capabilities::new())
                .ambient(Capabilities::new())
                .build()?,
        )
        .no_new_privileges(true)
        // Not the one of the shim, which the kernel spares; but no better than ours.
        .oom_score_adj(linux::process::oom_score_adjustment().max(0))
        .rlimits(vec![
            PosixRlimitBuilder::default()
                .typ(PosixRlimitType::RlimitNofile)
                .soft(OPEN_FILES_SOFT.min(open_files))
                .hard(open_files)
                .build()?,
        ])
        .build()?)
}

/// Image configuration first, then `env`; the last one of a name counts. PATH and HOME when nobody sets them.
fn environment(oci: &Oci, image: &ImageConfig, user: &User) -> Vec<String> {
    let mut all: Vec<String> = vec![DEFAULT_PATH.to_owned()];
    if let Some(home) = &user.home {
        all.push(format!("HOME={home}"));
    }
    for entry in image.env.iter().flatten().chain(&oci.env) {
        let name = entry.split('=').next().unwrap_or_default();
        all.retain(|other| other.split('=').next() != Some(name));
        all.push(entry.clone());
    }
    all
}

fn capabilities(change: &Change) -> Result<BTreeSet<String>, SpecError> {
    let mut set: BTreeSet<String> = if change.drop.iter().any(|name| name == "ALL") {
        BTreeSet::new()
    } else {
        DEFAULT_CAPABILITIES
            .iter()
            .map(|&name| name.to_owned())
            .collect()
    };
    for name in change.drop.iter().filter(|name| *name != "ALL") {
        set.remove(&full_name(name));
    }
    set.extend(change.add.iter().map(|name| full_name(name)));
    Ok(set)
}

fn full_name(name: &str) -> String {
    if name.starts_with("CAP_") {
        name.to_owned()
    } else {
        format!("CAP_{name}")
    }
}

fn capability_set(names: &BTreeSet<String>) -> Result<Capabilities, SpecError> {
    names
        .iter()
        .map(|name| {
            name.strip_prefix("CAP_")
                .and_then(|short| Capability::from_str(short).ok())
                .ok_or_else(|| SpecError::Capability(name.clone()))
        })
        .collect()
}

fn mounts(container: &Container, oci: &Oci, places: &Places<'_>) -> Result<Vec<Mount>, SpecError> {
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"])?,
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        )?,
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        )?,
        mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
        )?,
        mount(
            "/dev/mqueue",
            "mqueue",
            "mqueue",
            &["nosuid", "noexec", "nodev"],
        )?,
        mount(
            "/sys",
            "sysfs",
            "sysfs",
            &["nosuid", "noexec", "nodev", "ro"],
        )?,
    ];
    for folder in ["/run/coxswain", "/pantavisor"] {
        mounts.push(bind(
            places.sockets,
            folder,
            &["ro", "nosuid", "nodev", "noexec"],
        )?);
    }
    if oci.network == Network::Host {
        for file in ["/etc/resolv.conf", "/etc/hosts"] {
            let given = container
                .overlays
                .contains_key(file.trim_start_matches('/'))
                || oci.mounts.iter().any(|mount| mount.target == file);
            if !given && Path::new(file).exists() {
                mounts.push(bind(
                    Path::new(file),
                    file,
                    &["ro", "nosuid", "nodev", "noexec"],
                )?);
            }
        }
    }
    for (folder, path) in places.volumes {
        mounts.push(bind(folder, path, &["rw", "nosuid", "nodev"])?);
    }
    for given in &oci.mounts {
        if !Path::new(&given.source).exists() {
            return Err(SpecError::MountSource {
                source_path: given.source.clone(),
                target: given.target.clone(),
            });
        }
        let access = if given.read_only { "ro" } else { "rw" };
        mounts.push(bind(Path::new(&given.source), &given.target, &[access])?);
    }
    Ok(mounts)
}

fn mount(target: &str, kind: &str, source: &str, options: &[&str]) -> Result<Mount, SpecError> {
    Ok(MountBuilder::default()
        .destination(target)
        .typ(kind)
        .source(source)
        .options(
            options
                .iter()
                .map(|&option| option.to_owned())
                .collect::<Vec<_>>(),
        )
        .build()?)
}

fn bind(source: &Path, target: &str, options: &[&str]) -> Result<Mount, SpecError> {
    Ok(MountBuilder::default()
        .destination(target)
        .typ("bind")
        .source(source)
        .options(
            ["rbind", "rprivate"]
                .iter()
                .chain(options)
                .map(|&option| option.to_owned())
                .collect::<Vec<_>>(),
        )
        .build()?)
}

fn linux(oci: &Oci, capabilities: &BTreeSet<String>, cgroup: &str) -> Result<Linux, SpecError> {
    let mut devices = Vec::new();
    let mut rules = vec![
        LinuxDeviceCgroupBuilder::default()
            .allow(false)
            .access("rwm")
            .build()?,
    ];
    for (major, minor) in DEFAULT_DEVICES {
        let rule = LinuxDeviceCgroupBuilder::default()
            .allow(true)
            .typ(LinuxDeviceType::C)
            .major(major)
            .access("rwm");
        let rule = match minor {
            Some(minor) => rule.minor(minor),
            None => rule,
        };
        rules.push(rule.build()?);
    }
    for device in &oci.devices {
        let (node, rule) = host_device(device)?;
        devices.push(node);
        rules.push(rule);
    }
    let linux = LinuxBuilder::default()
        .namespaces(namespaces(&oci.network)?)
        .resources(resources(&oci.resources, rules)?)
        .cgroups_path(cgroup)
        .devices(devices)
        .masked_paths(MASKED.map(str::to_owned).to_vec())
        .readonly_paths(READ_ONLY.map(str::to_owned).to_vec());
    let linux = match oci.seccomp {
        model::container::Seccomp::Default => {
            linux.seccomp(seccomp::default_profile(capabilities)?)
        }
        model::container::Seccomp::Unconfined => linux,
    };
    Ok(linux.build()?)
}

fn namespaces(network: &Network) -> Result<Vec<LinuxNamespace>, SpecError> {
    let mut kinds = vec![
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Mount,
    ];
    // Since Linux 4.6.
    if Path::new("/proc/self/ns/cgroup").exists() {
        kinds.push(LinuxNamespaceType::Cgroup);
    }
    match network {
        Network::Host => {}
        Network::None => kinds.push(LinuxNamespaceType::Network),
        Network::Pool { pool, .. } => return Err(SpecError::Pool(pool.clone())),
    }
    kinds
        .into_iter()
        .map(|kind| Ok(LinuxNamespaceBuilder::default().typ(kind).build()?))
        .collect()
}

fn resources(
    limits: &Resources,
    devices: Vec<LinuxDeviceCgroup>,
) -> Result<LinuxResources, SpecError> {
    let mut resources = LinuxResourcesBuilder::default().devices(devices);
    if let Some(bytes) = limits.memory_bytes {
        let limit = i64::try_from(bytes).unwrap_or(i64::MAX);
        resources = resources.memory(LinuxMemoryBuilder::default().limit(limit).build()?);
    }
    if let Some(cpus) = limits.cpus {
        // The model has checked that it is a positive number of at most some thousands.
        #[allow(clippy::cast_possible_truncation)]
        let quota = (cpus * f64::from(CPU_PERIOD_US)) as i64;
        resources = resources.cpu(
            LinuxCpuBuilder::default()
                .quota(quota.max(1000))
                .period(u64::from(CPU_PERIOD_US))
                .build()?,
        );
    }
    if let Some(pids) = limits.pids {
        resources = resources.pids(LinuxPidsBuilder::default().limit(i64::from(pids)).build()?);
    }
    if let Some(weight) = limits.io_weight {
        resources = resources.block_io(LinuxBlockIoBuilder::default().weight(weight).build()?);
    }
    Ok(resources.build()?)
}

fn host_device(device: &Device) -> Result<(LinuxDevice, LinuxDeviceCgroup), SpecError> {
    let failed = |reason: String| SpecError::Device {
        path: device.path.clone(),
        reason,
    };
    let found = std::fs::metadata(&device.path).map_err(|error| failed(error.to_string()))?;
    let kind = if found.file_type().is_char_device() {
        LinuxDeviceType::C
    } else if found.file_type().is_block_device() {
        LinuxDeviceType::B
    } else {
        return Err(failed("it is not a device node".to_owned()));
    };
    let (major, minor) = linux::process::device_numbers(found.rdev());
    let node = LinuxDeviceBuilder::default()
        .path(&device.path)
        .typ(kind)
        .major(i64::from(major))
        .minor(i64::from(minor))
        .file_mode(found.mode() & 0o777)
        .uid(found.uid())
        .gid(found.gid())
        .build()?;
    let rule = LinuxDeviceCgroupBuilder::default()
        .allow(true)
        .typ(kind)
        .major(i64::from(major))
        .minor(i64::from(minor))
        .access(&device.access)
        .build()?;
    Ok((node, rule))
}

/// Paths in the container that must exist before it can be started, and whether each is a folder. For root file systems in which nothing
/// can be made.
pub(crate) fn mount_points(container: &Container, oci: &Oci) -> Vec<(String, bool)> {
    let mut points: Vec<(String, bool)> = ["/proc", "/dev", "/sys", "/run/coxswain", "/pantavisor"]
        .map(|path| (path.to_owned(), true))
        .to_vec();
    if oci.network == Network::Host {
        points.extend(["/etc/resolv.conf", "/etc/hosts"].map(|path| (path.to_owned(), false)));
    }
    points.extend(
        container
            .volumes
            .iter()
            .filter_map(|v| Some((v.path.clone()?, true))),
    );
    points.extend(
        oci.mounts
            .iter()
            .map(|mount| (mount.target.clone(), Path::new(&mount.source).is_dir())),
    );
    points
}

/// Whether the writable layer of a container is wanted, and how long it is kept.
pub(crate) fn writable_layer(container: &Container, read_only: bool) -> Option<Persistence> {
    if read_only {
        return None;
    }
    let given = container
        .volumes
        .iter()
        .find(|volume| volume.path.is_none());
    Some(given.map_or(Persistence::Boot, |volume| volume.persistence))
}
