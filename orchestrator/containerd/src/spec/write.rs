//! [`Wanted`] written down as the OCI run-time specification.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use oci_spec::runtime::{
    Capabilities, Capability, Linux, LinuxBlockIoBuilder, LinuxBuilder, LinuxCapabilitiesBuilder,
    LinuxCpu, LinuxCpuBuilder, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder,
    LinuxDeviceType, LinuxMemoryBuilder, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType,
    LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder, Mount, MountBuilder,
    PosixRlimitBuilder, Process, ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
};

use super::{DeviceRule, Limits, Mounted, Namespace, Node, Places, RLIMITS, SpecError, Wanted};
use crate::seccomp;

/// The runc shim serves all containers with the same value from one process.
const SHIM_GROUP: &str = "io.containerd.runc.v2.group";

pub(super) fn spec(
    wanted: &Wanted,
    process: Process,
    places: &Places<'_>,
) -> Result<Spec, SpecError> {
    let annotations = places
        .shim_group
        .iter()
        .map(|group| (SHIM_GROUP.to_owned(), format!("coxswain-{group}")))
        .collect::<HashMap<_, _>>();
    let spec = SpecBuilder::default()
        .annotations(annotations)
        .version("1.0.2")
        .process(process)
        .root(
            RootBuilder::default()
                .path(places.rootfs)
                .readonly(wanted.read_only_root)
                .build()?,
        )
        .mounts(
            wanted
                .mounts
                .iter()
                .map(mount)
                .collect::<Result<Vec<_>, _>>()?,
        )
        .linux(linux(wanted, places.cgroup)?);
    let spec = match &wanted.hostname {
        Some(hostname) => spec.hostname(hostname),
        None => spec,
    };
    let mut spec = spec.build()?;
    if wanted.hostname.is_none() {
        spec.set_hostname(None);
    }
    Ok(spec)
}

pub(super) fn process(wanted: &Wanted) -> Result<Process, SpecError> {
    let set = capability_set(wanted)?;
    let rlimits = RLIMITS
        .iter()
        .filter_map(|(name, kind)| Some((kind, wanted.rlimits.get(name)?)))
        .map(|(kind, (soft, hard))| {
            PosixRlimitBuilder::default()
                .typ(*kind)
                .soft(*soft)
                .hard(*hard)
                .build()
        })
        .collect::<Result<Vec<_>, _>>()?;
    let process = ProcessBuilder::default()
        .terminal(false)
        .args(wanted.args.clone())
        .env(wanted.env.clone())
        .cwd(Path::new("/").join(&wanted.cwd))
        .user(
            UserBuilder::default()
                .uid(wanted.user.uid)
                .gid(wanted.user.gid)
                .additional_gids(wanted.user.groups.clone())
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
        .no_new_privileges(wanted.no_new_privileges)
        .oom_score_adj(wanted.oom_score_adjustment)
        .rlimits(rlimits);
    let process = match &wanted.apparmor {
        Some(profile) => process.apparmor_profile(profile),
        None => process,
    };
    let process = match &wanted.selinux {
        Some(label) => process.selinux_label(label),
        None => process,
    };
    Ok(process.build()?)
}

fn capability_set(wanted: &Wanted) -> Result<Capabilities, SpecError> {
    wanted
        .capabilities
        .iter()
        .map(|name| {
            name.strip_prefix("CAP_")
                .and_then(|short| Capability::from_str(short).ok())
                .ok_or_else(|| SpecError::Capability(name.clone()))
        })
        .collect()
}

fn mount(mounted: &Mounted) -> Result<Mount, SpecError> {
    Ok(MountBuilder::default()
        .destination(&mounted.target)
        .typ(&mounted.kind)
        .source(PathBuf::from(&mounted.source))
        .options(mounted.options.clone())
        .build()?)
}

fn linux(wanted: &Wanted, cgroup: &str) -> Result<Linux, SpecError> {
    let devices = wanted
        .devices
        .iter()
        .map(device)
        .collect::<Result<Vec<_>, _>>()?;
    let rules = wanted
        .device_rules
        .iter()
        .map(device_rule)
        .collect::<Result<Vec<_>, _>>()?;
    let namespaces = wanted
        .namespaces
        .iter()
        // Since Linux 4.6.
        .filter(|kind| **kind != Namespace::Cgroup || Path::new("/proc/self/ns/cgroup").exists())
        .map(|kind| kind.in_oci())
        .chain([LinuxNamespaceType::Mount])
        .map(|kind| LinuxNamespaceBuilder::default().typ(kind).build())
        .collect::<Result<Vec<LinuxNamespace>, _>>()?;
    let linux = LinuxBuilder::default()
        .namespaces(namespaces)
        .resources(resources(&wanted.limits, rules)?)
        .cgroups_path(cgroup)
        .devices(devices)
        .sysctl(wanted.sysctl.clone().into_iter().collect::<HashMap<_, _>>())
        .masked_paths(wanted.masked.clone())
        .readonly_paths(wanted.read_only.clone());
    let linux = if wanted.seccomp {
        linux.seccomp(seccomp::default_profile(&wanted.capabilities)?)
    } else {
        linux
    };
    Ok(linux.build()?)
}

impl Namespace {
    fn in_oci(self) -> LinuxNamespaceType {
        match self {
            Self::Cgroup => LinuxNamespaceType::Cgroup,
            Self::Ipc => LinuxNamespaceType::Ipc,
            Self::Network => LinuxNamespaceType::Network,
            Self::Pid => LinuxNamespaceType::Pid,
            Self::Uts => LinuxNamespaceType::Uts,
        }
    }
}

fn device(node: &Node) -> Result<oci_spec::runtime::LinuxDevice, SpecError> {
    Ok(LinuxDeviceBuilder::default()
        .path(&node.path)
        .typ(device_type(node.kind))
        .major(i64::from(node.major))
        .minor(i64::from(node.minor))
        .file_mode(node.mode)
        .uid(node.uid)
        .gid(node.gid)
        .build()?)
}

fn device_type(kind: char) -> LinuxDeviceType {
    match kind {
        'b' => LinuxDeviceType::B,
        'c' => LinuxDeviceType::C,
        _ => LinuxDeviceType::A,
    }
}

fn device_rule(rule: &DeviceRule) -> Result<LinuxDeviceCgroup, SpecError> {
    let built = LinuxDeviceCgroupBuilder::default()
        .allow(rule.allow)
        .access(&rule.access);
    // A rule without a type is one for all.
    let built = match rule.kind {
        'a' => built,
        kind => built.typ(device_type(kind)),
    };
    let built = match rule.major {
        Some(major) => built.major(major),
        None => built,
    };
    let built = match rule.minor {
        Some(minor) => built.minor(minor),
        None => built,
    };
    Ok(built.build()?)
}

fn resources(
    limits: &Limits,
    devices: Vec<LinuxDeviceCgroup>,
) -> Result<LinuxResources, SpecError> {
    let mut resources = LinuxResourcesBuilder::default().devices(devices);
    let memory = [
        limits.memory,
        limits.memory_reservation,
        limits.memory_and_swap,
    ];
    if memory.iter().any(Option::is_some) {
        let mut built = LinuxMemoryBuilder::default();
        if let Some(bytes) = limits.memory {
            built = built.limit(bytes);
        }
        if let Some(bytes) = limits.memory_reservation {
            built = built.reservation(bytes);
        }
        if let Some(bytes) = limits.memory_and_swap {
            built = built.swap(bytes);
        }
        resources = resources.memory(built.build()?);
    }
    let cpu = cpu(limits)?;
    if cpu != LinuxCpu::default() {
        resources = resources.cpu(cpu);
    }
    if let Some(pids) = limits.pids {
        resources = resources.pids(LinuxPidsBuilder::default().limit(pids).build()?);
    }
    if let Some(weight) = limits.io_weight {
        resources = resources.block_io(LinuxBlockIoBuilder::default().weight(weight).build()?);
    }
    if !limits.unified.is_empty() {
        let unified: HashMap<String, String> = limits.unified.clone().into_iter().collect();
        resources = resources.unified(unified);
    }
    Ok(resources.build()?)
}

fn cpu(limits: &Limits) -> Result<LinuxCpu, SpecError> {
    let mut cpu = LinuxCpuBuilder::default();
    if let Some(shares) = limits.cpu_shares {
        cpu = cpu.shares(shares);
    }
    if let Some(quota) = limits.cpu_quota {
        cpu = cpu.quota(quota);
    }
    if let Some(period) = limits.cpu_period {
        cpu = cpu.period(period);
    }
    if let Some(cpus) = &limits.cpus {
        cpu = cpu.cpus(cpus);
    }
    if let Some(mems) = &limits.mems {
        cpu = cpu.mems(mems);
    }
    Ok(cpu.build()?)
}
