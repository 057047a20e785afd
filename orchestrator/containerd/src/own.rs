//! Containers of kind `oci`, ours.
//!
//! Safe unless told otherwise: private namespaces, containerd's default capabilities and system call filter, no new privileges,
//! only the usual devices.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use model::Container;
use model::container::{Capabilities as Change, Device, Network, Oci, Resources, Seccomp};

use crate::image::ImageConfig;
use crate::spec::{
    self, CPU_PERIOD_US, DEFAULT_CAPABILITIES, DeviceRule, Limits, MASKED, Mounted, Namespace,
    Node, OPEN_FILES, Places, READ_ONLY, SpecError, Wanted,
};
use crate::user;

/// What such a container gets.
pub(crate) fn wanted(
    container: &Container,
    oci: &Oci,
    image: &ImageConfig,
    places: &Places<'_>,
) -> Result<Wanted, SpecError> {
    if oci.user_namespace {
        return Err(SpecError::UserNamespace);
    }
    let args = oci.command.clone().unwrap_or_else(|| image.command());
    if args.is_empty() {
        return Err(SpecError::NoCommand);
    }
    let name = oci.user.as_deref().or(image.user.as_deref());
    let user = user::look_up(places.rootfs, name.unwrap_or_default())?;
    let cwd = oci
        .workdir
        .as_deref()
        .or(image.working_dir.as_deref())
        .filter(|path| !path.is_empty())
        .unwrap_or("/");
    let mut devices = Vec::new();
    let mut device_rules = vec![DeviceRule::all(false)];
    device_rules.extend(DeviceRule::usual());
    for device in &oci.devices {
        let (node, rule) = host_device(device)?;
        devices.push(node);
        device_rules.push(rule);
    }
    // More than ours needs a capability that we may lack.
    let open_files = linux::process::open_files_max().min(OPEN_FILES.1);
    let open_files = (OPEN_FILES.0.min(open_files), open_files);
    let hostname = oci.hostname.clone();
    Ok(Wanted {
        args,
        env: spec::environment(image.env.iter().flatten().chain(&oci.env), &user),
        cwd: cwd.to_owned(),
        user,
        hostname: Some(hostname.unwrap_or_else(|| container.name.to_string())),
        capabilities: capabilities(&oci.capabilities),
        no_new_privileges: true,
        seccomp: match oci.seccomp {
            Seccomp::Default => true,
            Seccomp::Unconfined => false,
        },
        apparmor: None,
        selinux: None,
        // Not the one of the shim, which the kernel spares; but no better than ours.
        oom_score_adjustment: linux::process::oom_score_adjustment().max(0),
        rlimits: BTreeMap::from([("nofile", open_files)]),
        namespaces: namespaces(&oci.network)?,
        mounts: mounts(container, oci, places)?,
        devices,
        device_rules,
        limits: limits(&oci.resources),
        sysctl: BTreeMap::new(),
        masked: MASKED.map(str::to_owned).to_vec(),
        read_only: READ_ONLY.map(str::to_owned).to_vec(),
        read_only_root: oci.read_only,
    })
}

fn capabilities(change: &Change) -> BTreeSet<String> {
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
    set
}

fn full_name(name: &str) -> String {
    if name.starts_with("CAP_") {
        name.to_owned()
    } else {
        format!("CAP_{name}")
    }
}

fn namespaces(network: &Network) -> Result<BTreeSet<Namespace>, SpecError> {
    let mut namespaces = BTreeSet::from([
        Namespace::Pid,
        Namespace::Ipc,
        Namespace::Uts,
        Namespace::Cgroup,
    ]);
    match network {
        Network::Host => {}
        Network::None => drop(namespaces.insert(Namespace::Network)),
        Network::Pool { pool, .. } => return Err(SpecError::Pool(pool.clone())),
    }
    Ok(namespaces)
}

fn mounts(
    container: &Container,
    oci: &Oci,
    places: &Places<'_>,
) -> Result<Vec<Mounted>, SpecError> {
    const MADE: &[&str] = &["nosuid", "noexec", "nodev"];
    let mut mounts = vec![
        Mounted::new("/proc", "proc", "proc", MADE),
        Mounted::new(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        spec::pseudo_terminals(),
        spec::shared_memory(),
        Mounted::new("/dev/mqueue", "mqueue", "mqueue", MADE),
        Mounted::new(
            "/sys",
            "sysfs",
            "sysfs",
            &["nosuid", "noexec", "nodev", "ro"],
        ),
    ];
    mounts.extend(spec::sockets(places));
    if oci.network == Network::Host {
        for file in ["/etc/resolv.conf", "/etc/hosts"] {
            let given = container
                .overlays
                .contains_key(file.trim_start_matches('/'))
                || oci.mounts.iter().any(|mount| mount.target == file);
            if !given && Path::new(file).exists() {
                let options = ["ro", "nosuid", "nodev", "noexec"];
                mounts.push(Mounted::bind(Path::new(file), file, &options));
            }
        }
    }
    for volume in places.volumes {
        if let Some(path) = &volume.path {
            let options = ["rw", "nosuid", "nodev"];
            mounts.push(Mounted::bind(&volume.host, path, &options));
        }
    }
    for given in &oci.mounts {
        if !Path::new(&given.source).exists() {
            return Err(SpecError::MountSource {
                source_path: given.source.clone(),
                target: given.target.clone(),
            });
        }
        let access = if given.read_only { "ro" } else { "rw" };
        mounts.push(Mounted::bind(
            Path::new(&given.source),
            &given.target,
            &[access],
        ));
    }
    Ok(mounts)
}

fn limits(given: &Resources) -> Limits {
    // The model has checked that it is a positive number of at most some thousands.
    #[allow(clippy::cast_possible_truncation)]
    let quota = |cpus: f64| ((cpus * f64::from(CPU_PERIOD_US)) as i64).max(1000);
    Limits {
        memory: given
            .memory_bytes
            .map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
        cpu_quota: given.cpus.map(quota),
        cpu_period: given.cpus.map(|_| u64::from(CPU_PERIOD_US)),
        pids: given.pids.map(i64::from),
        io_weight: given.io_weight,
        ..Limits::default()
    }
}

fn host_device(device: &Device) -> Result<(Node, DeviceRule), SpecError> {
    let failed = |reason: String| SpecError::Device {
        path: device.path.clone(),
        reason,
    };
    let found = std::fs::metadata(&device.path).map_err(|error| failed(error.to_string()))?;
    let kind = if found.file_type().is_char_device() {
        'c'
    } else if found.file_type().is_block_device() {
        'b'
    } else {
        return Err(failed("it is not a device node".to_owned()));
    };
    let (major, minor) = linux::process::device_numbers(found.rdev());
    let node = Node {
        path: device.path.clone(),
        kind,
        major,
        minor,
        mode: found.mode() & 0o777,
        uid: found.uid(),
        gid: found.gid(),
    };
    let rule = DeviceRule {
        allow: true,
        kind,
        major: Some(major),
        minor: Some(minor),
        access: device.access.clone(),
    };
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
