//! What of the host a container may use: mounts, device nodes, capabilities.

use super::json::{Data, Node};
use super::problems::{Reader, Shown, suggestion};
use super::storage::read_path;
use crate::container::{Capabilities, Device, Mount, Volume};

const CAPABILITIES: [&str; 41] = [
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_AUDIT_WRITE",
    "CAP_BLOCK_SUSPEND",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_KILL",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_MKNOD",
    "CAP_NET_ADMIN",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_RAW",
    "CAP_PERFMON",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYSLOG",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_CHROOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_WAKE_ALARM",
];

/// `mounts`.
pub(super) fn read_mounts(reader: &mut Reader<'_, '_>, volumes: &[Volume]) -> Vec<Mount> {
    let Some(items) = reader.root.get("mounts").and_then(|node| reader.list(node)) else {
        return Vec::new();
    };
    let mut mounts: Vec<Mount> = Vec::new();
    for item in items {
        if reader.object(item).is_none() {
            continue;
        }
        reader.only(item, &["source", "target", "read-only"]);
        let mut path = |name: &str| match item.get(name) {
            Some(node) => read_path(reader, node),
            None => {
                reader.report(
                    item,
                    "missing-path",
                    format_args!("the mount has no {name}"),
                    format_args!("add {name:?}, an absolute path"),
                );
                None
            }
        };
        let (source, target) = (path("source"), path("target"));
        let read_only = item.get("read-only").and_then(|node| reader.flag(node));
        let (Some(source), Some(target)) = (source, target) else {
            continue;
        };
        let is_taken = volumes
            .iter()
            .any(|volume| volume.path.as_ref() == Some(&target))
            || mounts.iter().any(|mount| mount.target == target);
        if is_taken {
            reader.report(
                item,
                "path-conflict",
                format_args!("something else is mounted at {} already", Shown(&target)),
                format_args!("give one of the two another path"),
            );
        }
        mounts.push(Mount {
            source,
            target,
            read_only: read_only.unwrap_or(false),
        });
    }
    mounts
}

/// `devices`.
pub(super) fn read_devices(reader: &mut Reader<'_, '_>) -> Vec<Device> {
    let Some(items) = reader
        .root
        .get("devices")
        .and_then(|node| reader.list(node))
    else {
        return Vec::new();
    };
    let mut devices = Vec::new();
    for item in items {
        let (node, access) = match &item.data {
            Data::Object(_) => {
                reader.only(item, &["path", "access"]);
                (item.get("path").unwrap_or(item), item.get("access"))
            }
            Data::Null | Data::Bool(_) | Data::Number(_) | Data::Text(_) | Data::List(_) => {
                (item, None)
            }
        };
        let Some(path) = read_path(reader, node) else {
            continue;
        };
        if !path.starts_with("/dev/") {
            reader.report(
                node,
                "bad-device",
                format_args!("{} is not below /dev", Shown(&path)),
                format_args!("name a device node such as \"/dev/ttyS0\""),
            );
            continue;
        }
        let access = match access {
            Some(node) => read_access(reader, node),
            None => Some("rwm".to_owned()),
        };
        devices.extend(access.map(|access| Device { path, access }));
    }
    devices
}

fn read_access<'a>(reader: &mut Reader<'a, '_>, node: &'a Node) -> Option<String> {
    let text = reader.text(node)?;
    let is_once = |letter: char| text.matches(letter).count() <= 1;
    if !text.is_empty() && text.chars().all(|c| "rwm".contains(c) && is_once(c)) {
        return Some(text.to_owned());
    }
    reader.report(
        node,
        "bad-access",
        format_args!("{} is no access", Shown(text)),
        format_args!("use \"r\", \"w\", \"m\" in any combination"),
    );
    None
}

/// `capabilities`.
pub(super) fn read_capabilities<'a>(reader: &mut Reader<'a, '_>, node: &'a Node) -> Capabilities {
    let mut capabilities = Capabilities::default();
    if reader.object(node).is_none() {
        return capabilities;
    }
    reader.only(node, &["add", "drop"]);
    for (name, list) in [
        ("add", &mut capabilities.add),
        ("drop", &mut capabilities.drop),
    ] {
        let items = node.get(name).and_then(|node| reader.list(node));
        for item in items.unwrap_or_default() {
            list.extend(read_capability(reader, item));
        }
    }
    capabilities
}

fn read_capability<'a>(reader: &mut Reader<'a, '_>, node: &'a Node) -> Option<String> {
    let text = reader.text(node)?;
    if text == "ALL" {
        return Some(text.to_owned());
    }
    let known = CAPABILITIES
        .iter()
        .find(|known| **known == text || known.strip_prefix("CAP_") == Some(text));
    if known.is_none() {
        let remedy = suggestion(text, CAPABILITIES.iter().copied());
        reader.report(
            node,
            "unknown-capability",
            format_args!("there is no capability {}", Shown(text)),
            format_args!("{remedy}"),
        );
    }
    known.map(|known| (*known).to_owned())
}
