//! A configuration on this machine: what its container gets.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use model::Container;
use model::container::{Lxc, Network};

use super::conf::{Autodev, Conf};
use super::limits::{Capabilities, Groups};
use super::lines::Refused;
use super::mounts::{Access, Entry, Source};
use crate::image::ImageConfig;
use crate::inside;
use crate::spec::{
    self, CAPABILITIES, DeviceRule, Limits, Mounted, Namespace, Places, SpecError, Wanted,
};
use crate::user::{self, User};

/// What of this machine counts.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    /// Capabilities that can be given.
    capabilities: BTreeSet<String>,
    /// Folders below `/proc/sys`.
    proc_sys: Vec<String>,
    /// Whether control groups are unified.
    unified: bool,
    /// The kernel's release.
    release: String,
}

impl Machine {
    /// This one.
    fn this() -> Self {
        let bounding = linux::process::capabilities_max();
        let names = std::fs::read_dir("/proc/sys").into_iter().flatten();
        Self {
            capabilities: CAPABILITIES
                .iter()
                .enumerate()
                .filter(|(number, _)| bounding >> number & 1 == 1)
                .map(|(_, name)| (*name).to_owned())
                .collect(),
            proc_sys: names
                .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
                .collect(),
            unified: Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
            release: linux::process::kernel_release(),
        }
    }
}

/// What such a container gets.
pub(crate) fn wanted(
    container: &Container,
    lxc: &Lxc,
    conf: &Conf,
    image: &ImageConfig,
    places: &Places<'_>,
) -> Result<Wanted, SpecError> {
    let refused = |refused: Refused| SpecError::LxcHere {
        key: lxc.key.to_string(),
        refused,
    };
    let machine = Machine::this();
    let mut namespaces = conf.namespaces.clone();
    match &lxc.network {
        Network::Host => {}
        Network::None => drop(namespaces.insert(Namespace::Network)),
        Network::Pool { pool, .. } => return Err(SpecError::Pool(pool.clone())),
    }
    let user = user(conf, places)?;
    let image_command = image.command();
    let kind = format!("container=pv-{}", container.group);
    let env = std::iter::once(&kind)
        .chain(image.env.iter().flatten())
        .chain(&conf.env);
    let cwd = image.working_dir.as_deref().filter(|path| !path.is_empty());
    let hostname = [&lxc.hostname, &conf.hostname].into_iter().flatten().next();
    let groups = groups(conf, &machine).map_err(refused)?;
    let capabilities = capabilities(&conf.capabilities, &machine, container);
    let mounts = mounts(container, lxc, conf, &namespaces, places, &machine).map_err(refused)?;
    Ok(Wanted {
        args: if image_command.is_empty() {
            conf.init.clone()
        } else {
            image_command
        },
        env: spec::environment(env, &user),
        cwd: cwd.or(conf.cwd.as_deref()).unwrap_or("/").to_owned(),
        user,
        hostname: namespaces.contains(&Namespace::Uts).then(|| {
            hostname
                .cloned()
                .unwrap_or_else(|| container.name.to_string())
        }),
        read_only: read_only(conf, &capabilities, &machine),
        capabilities,
        no_new_privileges: conf.no_new_privileges,
        seccomp: false,
        apparmor: conf.apparmor.clone(),
        selinux: conf.selinux.clone(),
        oom_score_adjustment: conf
            .oom_score_adjustment
            .unwrap_or_else(|| linux::process::oom_score_adjustment().max(0)),
        rlimits: conf.rlimits.clone(),
        namespaces,
        mounts,
        devices: Vec::new(),
        device_rules: device_rules(&groups.devices),
        limits: groups.limits,
        sysctl: conf.sysctl.clone(),
        masked: Vec::new(),
        read_only_root: conf.read_only_root,
    })
}

/// By number: LXC looks nothing up, and gives no supplementary groups by itself.
fn user(conf: &Conf, places: &Places<'_>) -> Result<User, SpecError> {
    let uid = conf.uid.unwrap_or(0);
    let found = user::look_up(places.rootfs, &uid.to_string())?;
    let gid = conf.gid.unwrap_or(0);
    let mut groups = conf.groups.clone();
    groups.retain(|group| *group != gid);
    groups.insert(0, gid);
    Ok(User {
        uid,
        gid,
        groups,
        home: found.home,
    })
}

fn capabilities(
    given: &Capabilities,
    machine: &Machine,
    container: &Container,
) -> BTreeSet<String> {
    let mut set = machine.capabilities.clone();
    match given {
        Capabilities::All => {}
        Capabilities::Drop(names) => set.retain(|name| !names.contains(name.as_str())),
        Capabilities::Keep(names) => {
            let missing: Vec<&&str> = names.iter().filter(|name| !set.contains(**name)).collect();
            if !missing.is_empty() {
                tracing::warn!(container = %container.name, ?missing, "this machine cannot give all capabilities");
            }
            set.retain(|name| names.contains(name.as_str()));
        }
    }
    set
}

/// Where both kinds of setting are there, those of the machine's own hierarchy count.
fn groups(conf: &Conf, machine: &Machine) -> Result<Groups, Refused> {
    let (first, second) = if machine.unified {
        (&conf.unified_groups, &conf.old_groups)
    } else {
        (&conf.old_groups, &conf.unified_groups)
    };
    let unified = &conf.unified_groups.limits.unified;
    if let Some(name) = unified.keys().next()
        && !machine.unified
    {
        return Err(Refused {
            line: 0,
            detail: format!(
                "lxc.cgroup2.{name} needs the unified hierarchy, which this machine has not"
            ),
            remedy: "take it out, or start the kernel with cgroup_no_v1=all".to_owned(),
        });
    }
    let (one, other) = (first.limits.clone(), second.limits.clone());
    Ok(Groups {
        limits: Limits {
            memory: one.memory.or(other.memory),
            memory_reservation: one.memory_reservation.or(other.memory_reservation),
            memory_and_swap: one.memory_and_swap.or(other.memory_and_swap),
            cpu_shares: one.cpu_shares.or(other.cpu_shares),
            cpu_quota: one.cpu_quota.or(other.cpu_quota),
            cpu_period: one.cpu_period.or(other.cpu_period),
            cpus: one.cpus.or(other.cpus),
            mems: one.mems.or(other.mems),
            pids: one.pids.or(other.pids),
            io_weight: one.io_weight.or(other.io_weight),
            unified: unified.clone(),
        },
        devices: if first.devices.is_empty() {
            second.devices.clone()
        } else {
            first.devices.clone()
        },
    })
}

/// LXC begins with everything allowed; the usual devices are never taken away.
fn device_rules(given: &[DeviceRule]) -> Vec<DeviceRule> {
    let mut rules = vec![DeviceRule::all(true)];
    for rule in given {
        if rule.kind == 'a' {
            rules.clear();
        }
        rules.push(rule.clone());
    }
    rules.extend(DeviceRule::usual());
    rules
}

/// `proc:mixed`: settings of the kernel can be read; those of the network be changed by who may administer it.
fn read_only(conf: &Conf, capabilities: &BTreeSet<String>, machine: &Machine) -> Vec<String> {
    if conf.auto.proc == Some(Access::Full) {
        return Vec::new();
    }
    let mut paths = vec!["/proc/sysrq-trigger".to_owned()];
    if capabilities.contains("CAP_NET_ADMIN") {
        let others = machine.proc_sys.iter().filter(|name| *name != "net");
        paths.extend(others.map(|name| format!("/proc/sys/{name}")));
    } else {
        paths.push("/proc/sys".to_owned());
    }
    paths.sort();
    paths
}

/// In LXC's order: `/dev`, `/proc`, `/sys`, control groups, the entries; then what Pantavisor and we add.
fn mounts(
    container: &Container,
    lxc: &Lxc,
    conf: &Conf,
    namespaces: &BTreeSet<Namespace>,
    places: &Places<'_>,
    machine: &Machine,
) -> Result<Vec<Mounted>, Refused> {
    const MADE: [&str; 3] = ["nosuid", "noexec", "nodev"];
    let is_target = |path: &str| conf.entries.iter().any(|entry| entry.target == path);
    let mut mounts = vec![Mounted::new("/proc", "proc", "proc", &MADE)];
    if let Autodev::Own(bytes) = conf.autodev
        && !is_target("/dev")
    {
        let size = format!("size={bytes}");
        let options = ["nosuid", "strictatime", "mode=755", &size];
        mounts.push(Mounted::new("/dev", "tmpfs", "tmpfs", &options));
    }
    mounts.extend(sys(conf, namespaces));
    if let Some(access) = conf.auto.cgroup {
        // Writing outside its own groups would let it take another container's name.
        let is_read_only = access == Access::ReadOnly || !namespaces.contains(&Namespace::Cgroup);
        let access = if is_read_only { "ro" } else { "rw" };
        let options = ["nosuid", "noexec", "nodev", access];
        mounts.push(Mounted::new("/sys/fs/cgroup", "cgroup", "cgroup", &options));
    }
    let mut mounted_volumes = BTreeSet::new();
    for entry in &conf.entries {
        if let Source::Volume { name, .. } = &entry.source {
            mounted_volumes.insert(name.as_str());
        }
        mounts.extend(self::entry(entry, container, places)?);
    }
    if conf.pseudo_terminals && !is_target("/dev/pts") {
        mounts.push(spec::pseudo_terminals());
    }
    if matches!(conf.autodev, Autodev::Own(_)) && !is_target("/dev") && !is_target("/dev/shm") {
        mounts.push(spec::shared_memory());
    }
    for volume in places.volumes {
        // The configuration says better where it goes: `docker--a-b` may be /a-b.
        if mounted_volumes.contains(volume.name.as_str()) {
            continue;
        }
        if let Some(path) = &volume.path {
            mounts.push(Mounted::bind(
                &volume.host,
                path,
                &["rw", "nosuid", "nodev"],
            ));
        }
    }
    if lxc.host_modules {
        let modules = format!("/lib/modules/{}", machine.release);
        for path in ["/lib/firmware", &modules] {
            if Path::new(path).exists() && !is_target(path) {
                mounts.push(Mounted::bind(Path::new(path), path, &["ro"]));
            }
        }
    }
    mounts.extend(spec::sockets(places));
    Ok(mounts)
}

fn sys(conf: &Conf, namespaces: &BTreeSet<Namespace>) -> Vec<Mounted> {
    const NETWORK: &str = "/sys/devices/virtual/net";
    let safe = ["nosuid", "noexec", "nodev", "ro"];
    match conf.auto.sys {
        None => Vec::new(),
        Some(Access::Full) => vec![Mounted::new("/sys", "sysfs", "sysfs", &["rw"])],
        Some(Access::ReadOnly) => vec![Mounted::new("/sys", "sysfs", "sysfs", &safe)],
        Some(Access::Mixed) => {
            let mut mounts = vec![Mounted::new("/sys", "sysfs", "sysfs", &safe)];
            // The host's devices are the container's only while it has no network of its own.
            if !namespaces.contains(&Namespace::Network) && Path::new(NETWORK).exists() {
                mounts.push(Mounted::bind(Path::new(NETWORK), NETWORK, &["rw"]));
            }
            mounts
        }
    }
}

fn entry(
    entry: &Entry,
    container: &Container,
    places: &Places<'_>,
) -> Result<Option<Mounted>, Refused> {
    let mut options: Vec<&str> = entry.options.iter().map(String::as_str).collect();
    let found: Result<PathBuf, (String, &str)> = match &entry.source {
        Source::Nothing(name) => {
            return Ok(Some(Mounted::new(
                &entry.target,
                &entry.kind,
                name,
                &options,
            )));
        }
        Source::Host(path) => Ok(PathBuf::from(path)),
        Source::Storage(rest) => inside::resolve(places.storage, Path::new(rest))
            .map(|path| places.storage.join(path))
            .map_err(|error| (error.to_string(), "name another path of the storage")),
        Source::Inside(path) => inside::resolve(places.rootfs, Path::new(path))
            .map(|path| places.rootfs.join(path))
            .map_err(|error| (error.to_string(), "name another path of the image")),
        Source::Volume {
            container: owner,
            name,
        } => volume(owner, name, container, places),
    };
    let found = found.and_then(|path| match path.exists() {
        true => Ok(path),
        false => Err((
            format!("{} does not exist on this machine", path.display()),
            "create it, add \"optional\" to the entry, or take the entry out",
        )),
    });
    match found {
        Ok(path) => {
            if !options
                .iter()
                .any(|option| matches!(*option, "bind" | "rbind"))
            {
                options.push("bind");
            }
            let source = path.to_string_lossy();
            Ok(Some(Mounted::new(&entry.target, "bind", &source, &options)))
        }
        Err((detail, _)) if entry.optional => {
            tracing::info!(container = %container.name, line = entry.line, detail, "an optional mount is left out");
            Ok(None)
        }
        Err((detail, remedy)) => Err(Refused {
            line: entry.line,
            detail,
            remedy: remedy.to_owned(),
        }),
    }
}

fn volume(
    owner: &str,
    name: &str,
    container: &Container,
    places: &Places<'_>,
) -> Result<PathBuf, (String, &'static str)> {
    if owner != container.name.as_str() {
        return Err((
            format!("/volumes/{owner}/{name} is a volume of another container"),
            "volumes cannot be shared by this build; use a folder of the host",
        ));
    }
    // A folder of a volume may be mounted alone.
    let (first, rest) = name.split_once('/').unwrap_or((name, ""));
    match places.volumes.iter().find(|volume| volume.name == first) {
        Some(volume) if rest.is_empty() => Ok(volume.host.clone()),
        Some(volume) => inside::resolve(&volume.host, Path::new(rest))
            .map(|rest| volume.host.join(rest))
            .map_err(|error| (error.to_string(), "name another path of the volume")),
        None => Err((
            format!("there is no volume {first:?} in \"storage\" of run.json"),
            "add it there; images in \"volumes\" are not supported by this build",
        )),
    }
}

#[cfg(test)]
mod tests;
