//! What `device.json` (or the older split files) says about the whole device: groups, disks, address pools.
//!
//! A device that names no groups has the built-in four; only then are containers without a group spread by
//! Pantavisor's old rule (section 2.6 of its reference), else they land in the last group.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use super::json::Node;
use super::problems::{Problems, Reader, Shown};
use super::{Pool, recovery};
use crate::container::{Goal, Group, RestartPolicy};
use crate::{GroupName, limits};

/// Time-out of a group that names none.
const GROUP_TIMEOUT: Duration = Duration::from_secs(120);
/// Time-out of the built-in groups.
const BUILT_IN_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) const GOALS: [(&str, Goal); 3] = [
    ("MOUNTED", Goal::Mounted),
    ("STARTED", Goal::Started),
    ("READY", Goal::Ready),
];

pub(super) const RESTART_POLICIES: [(&str, RestartPolicy); 2] = [
    ("system", RestartPolicy::System),
    ("container", RestartPolicy::Container),
];

/// The device's part of the manifest.
#[derive(Debug)]
pub(super) struct DeviceFile {
    /// In start order; never empty.
    pub(super) groups: Vec<Group>,
    /// Whether these are the built-in groups.
    pub(super) is_built_in: bool,
    pub(super) pools: BTreeMap<String, Pool>,
    /// Names and aliases of disks, each with the canonical text of its definition.
    pub(super) disks: BTreeMap<String, Rc<str>>,
}

impl Default for DeviceFile {
    fn default() -> Self {
        Self {
            groups: built_in(),
            is_built_in: true,
            pools: BTreeMap::new(),
            disks: BTreeMap::new(),
        }
    }
}

impl DeviceFile {
    /// The group of this name.
    pub(super) fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name.as_str() == name)
    }
}

fn built_in() -> Vec<Group> {
    let group = |name: &str, goal, restart_policy, recovery| Group {
        name: name.parse().expect("the built-in names are valid"),
        description: String::new(),
        goal,
        restart_policy,
        timeout: BUILT_IN_TIMEOUT,
        recovery,
    };
    let app = Some(recovery::DEFAULT);
    vec![
        group("data", Goal::Mounted, RestartPolicy::System, None),
        group("root", Goal::Started, RestartPolicy::System, None),
        group("platform", Goal::Started, RestartPolicy::System, None),
        group("app", Goal::Started, RestartPolicy::Container, app),
    ]
}

/// One of the files that [`read`] looks at.
pub(super) struct File<'a> {
    pub(super) entry: usize,
    pub(super) key: &'a str,
    pub(super) root: &'a Node,
}

/// Reads `device.json`, else the split files. `groups.json` counts only without `device.json`.
pub(super) fn read(files: &[File<'_>], problems: &mut Problems) -> DeviceFile {
    let mut device = DeviceFile::default();
    let has_device = files.iter().any(|file| file.key == "device.json");
    for file in files {
        let mut reader = Reader::new(file.entry, file.key, file.root, problems);
        match file.key {
            "device.json" => read_device(&mut reader, &mut device),
            "groups.json" if !has_device => {
                let list = file.root.get("groups").unwrap_or(file.root);
                read_groups(&mut reader, list, &mut device);
            }
            "disks.json" | "disks_v3.json" => {
                let list = ["disks", "disks_v2", "disks_v3"];
                let list = list.iter().find_map(|name| file.root.get(name));
                read_disks(&mut reader, list.unwrap_or(file.root), &mut device);
            }
            _ => {}
        }
    }
    device
}

fn read_device<'a>(reader: &mut Reader<'a, '_>, device: &mut DeviceFile) {
    let root = reader.root;
    if reader.object(root).is_none() {
        return;
    }
    if let Some(groups) = root.get("groups") {
        read_groups(reader, groups, device);
    }
    for name in ["disks", "disks_v2", "disks_v3"] {
        if let Some(disks) = root.get(name) {
            read_disks(reader, disks, device);
        }
    }
    if let Some(network) = root.get("network")
        && reader.object(network).is_some()
        && let Some(pools) = network.get("pools")
    {
        read_pools(reader, pools, device);
    }
}

fn read_groups<'a>(reader: &mut Reader<'a, '_>, node: &'a Node, device: &mut DeviceFile) {
    let Some(items) = reader.list(node) else {
        return;
    };
    if items.is_empty() {
        return;
    }
    if items.len() > limits::GROUPS_MAX {
        reader.report(
            node,
            "too-many-groups",
            format_args!("there are {} groups", items.len()),
            format_args!("use at most {}", limits::GROUPS_MAX),
        );
        return;
    }
    let mut groups: Vec<Group> = Vec::new();
    for item in items {
        let Some(group) = read_group(reader, item) else {
            continue;
        };
        if groups.iter().any(|other| other.name == group.name) {
            reader.report(
                item.get("name").unwrap_or(item),
                "duplicate-group",
                format_args!("there are two groups {}", Shown(group.name.as_str())),
                format_args!("keep one of the two"),
            );
            continue;
        }
        groups.push(group);
    }
    // With none readable there are problems already, and the built-in ones spare a flood of followers.
    if !groups.is_empty() {
        device.groups = groups;
        device.is_built_in = false;
    }
}

fn read_group<'a>(reader: &mut Reader<'a, '_>, node: &'a Node) -> Option<Group> {
    reader.object(node)?;
    let name = match node.get("name") {
        None => {
            reader.report(
                node,
                "missing-name",
                format_args!("the group has no name"),
                format_args!("add \"name\""),
            );
            None
        }
        Some(name) => match reader.text(name)?.parse::<GroupName>() {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                reader.report(
                    name,
                    "bad-group-name",
                    format_args!("{error}"),
                    format_args!("use a short word such as \"app\""),
                );
                None
            }
        },
    };
    let description = reader.text_of(node, "description").unwrap_or_default();
    let goal = node
        .get("status_goal")
        .and_then(|node| reader.choice(node, "unknown-goal", &GOALS));
    let restart_policy = node
        .get("restart_policy")
        .and_then(|node| reader.choice(node, "unknown-restart-policy", &RESTART_POLICIES));
    let timeout = node.get("timeout").and_then(|node| reader.duration(node));
    let recovery = node
        .get("auto_recovery")
        .and_then(|node| recovery::read(reader, node));
    Some(Group {
        name: name?,
        description: description.to_owned(),
        goal: goal.unwrap_or(Goal::Started),
        restart_policy: restart_policy.unwrap_or(RestartPolicy::Container),
        timeout: timeout.unwrap_or(GROUP_TIMEOUT),
        recovery,
    })
}

fn read_disks<'a>(reader: &mut Reader<'a, '_>, node: &'a Node, device: &mut DeviceFile) {
    let Some(items) = reader.list(node) else {
        return;
    };
    for item in items {
        if reader.object(item).is_none() {
            continue;
        }
        let Some(name) = item.get("name") else {
            reader.report(
                item,
                "missing-name",
                format_args!("the disk has no name"),
                format_args!("add \"name\""),
            );
            continue;
        };
        let Some(name) = reader.text(name) else {
            continue;
        };
        let mut names: BTreeSet<&str> = BTreeSet::from([name]);
        if let Some(aliases) = item.get("aliases") {
            names.extend(reader.texts(aliases));
        }
        let definition: Rc<str> = item.canonical().into();
        for name in names {
            device.disks.insert(name.to_owned(), Rc::clone(&definition));
        }
    }
}

fn read_pools<'a>(reader: &mut Reader<'a, '_>, node: &'a Node, device: &mut DeviceFile) {
    let Some(fields) = reader.object(node) else {
        return;
    };
    for (name, item) in fields {
        if reader.object(item).is_none() {
            continue;
        }
        let is_valid = name.parse::<GroupName>().is_ok();
        if !is_valid {
            reader.report(
                item,
                "bad-pool-name",
                format_args!("{} is no name for a pool", Shown(name)),
                format_args!("use 1 to 64 printable characters without '/'"),
            );
            continue;
        }
        if let Some(pool) = read_pool(reader, item) {
            device.pools.insert(name.clone(), pool);
        }
    }
}

fn read_pool<'a>(reader: &mut Reader<'a, '_>, node: &'a Node) -> Option<Pool> {
    let kind = node.get("type").and_then(|node| {
        reader.choice(
            node,
            "unknown-pool-type",
            &[("bridge", "bridge"), ("macvlan", "macvlan")],
        )
    });
    let subnet = match node.get("subnet") {
        Some(subnet) => read_subnet(reader, subnet),
        None => {
            reader.report(
                node,
                "missing-subnet",
                format_args!("the pool has no subnet"),
                format_args!("add one such as \"10.0.3.0/24\""),
            );
            None
        }
    };
    let gateway = node.get("gateway").and_then(|node| read_ip(reader, node));
    let pool = Pool {
        kind: kind.unwrap_or("bridge").to_owned(),
        bridge: reader.text_of(node, "bridge").map(str::to_owned),
        parent: reader.text_of(node, "parent").map(str::to_owned),
        subnet: subnet?,
        gateway,
        nat: node
            .get("nat")
            .and_then(|node| reader.flag(node))
            .unwrap_or(false),
    };
    if let (Some(gateway), Some(node)) = (pool.gateway, node.get("gateway"))
        && !contains(pool.subnet, gateway)
    {
        reader.report(
            node,
            "address-outside-pool",
            format_args!("the gateway {gateway} is not inside the subnet"),
            format_args!("use an address of {}/{}", pool.subnet.0, pool.subnet.1),
        );
    }
    Some(pool)
}

fn read_subnet<'a>(reader: &mut Reader<'a, '_>, node: &'a Node) -> Option<(IpAddr, u8)> {
    let text = reader.text(node)?;
    let subnet = text.split_once('/').and_then(|(address, bits)| {
        let address: IpAddr = address.parse().ok()?;
        let bits: u8 = bits.parse().ok()?;
        (bits <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, bits))
    });
    if subnet.is_none() {
        reader.report(
            node,
            "bad-subnet",
            format_args!("{} is no subnet", Shown(text)),
            format_args!("use one such as \"10.0.3.0/24\""),
        );
    }
    subnet
}

/// An IP address.
pub(super) fn read_ip<'a>(reader: &mut Reader<'a, '_>, node: &'a Node) -> Option<IpAddr> {
    let text = reader.text(node)?;
    let address = text.parse().ok();
    if address.is_none() {
        reader.report(
            node,
            "bad-address",
            format_args!("{} is no IP address", Shown(text)),
            format_args!("use one such as \"10.0.3.20\""),
        );
    }
    address
}

/// Whether an address is inside a subnet.
pub(super) fn contains((subnet, bits): (IpAddr, u8), address: IpAddr) -> bool {
    let same = |one: u128, other: u128, width: u32| {
        let shift = width - u32::from(bits).min(width);
        one.checked_shr(shift).unwrap_or(0) == other.checked_shr(shift).unwrap_or(0)
    };
    match (subnet, address) {
        (IpAddr::V4(one), IpAddr::V4(other)) => {
            same(u128::from(one.to_bits()), u128::from(other.to_bits()), 32)
        }
        (IpAddr::V6(one), IpAddr::V6(other)) => same(one.to_bits(), other.to_bits(), 128),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}
