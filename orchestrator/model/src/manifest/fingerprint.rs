//! What makes a running container the same container in two revisions.
//!
//! Counted is what its processes see: its own keys, what `_config/` lays over its root file system, those fields of
//! `run.json` that shape the process, and the definitions in `device.json` of the pools and disks that it uses.
//! Not counted is what the orchestrator alone acts on and can apply to a process that runs: group, goal, order,
//! recovery, roles (but for what they let it see), health, how it is stopped; and provenance, of which only `docker_config` in `src.json` can shape
//! the process of an lxc container.

use std::collections::BTreeMap;

use sha2::Digest as _;

use super::Value;
use super::json::{Data, Node};
use super::run::Context;
use crate::container::Kind;
use crate::{Key, ObjectId};

/// Fields of `run.json` that do not count.
pub(super) const NOT_COUNTED: [&str; 13] = [
    "#spec",
    "name",
    "group",
    "runlevel",
    "status_goal",
    "restart_policy",
    "roles",
    "auto_recovery",
    "conditions",
    "depends-on",
    "health",
    "stop-signal",
    "stop-timeout",
];

/// SHA-256 over a sequence of parts; no two different sequences feed it the same bytes.
struct Parts(sha2::Sha256);

impl Parts {
    fn push(&mut self, part: &str) {
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part);
    }
}

/// The fingerprint; `uses` are the canonical definitions of pools and disks that it refers to.
pub(super) fn of(context: &Context<'_>, run: &Node, kind: &Kind, uses: &[&str]) -> ObjectId {
    let mut parts = Parts(sha2::Sha256::new());
    parts.push("coxswain container 1");
    parts.push(context.name.as_str());
    parts.push(&run.canonical_without(&NOT_COUNTED));
    if let Some(sees) = sees(run) {
        parts.push(sees);
    }
    for (key, value) in context.own_entries() {
        let Some((_, rest)) = key.split_first() else {
            continue;
        };
        match rest {
            "run.json" | "build.json" => {}
            "src.json" => push_source(&mut parts, kind, value),
            _ if rest.ends_with(".docker-digest") => {}
            _ => push_entry(&mut parts, key, value),
        }
    }
    for (key, value) in context.overlay_entries() {
        push_entry(&mut parts, key, value);
    }
    for definition in uses {
        parts.push(definition);
    }
    ObjectId::from_digest(parts.0.finalize().into())
}

/// Of the roles only what the container gets to see of the device by them: that is mounted when it starts.
fn sees(run: &Node) -> Option<&'static str> {
    let Some(roles) = run.get("roles") else {
        return Some("sees by default");
    };
    let Data::List(roles) = &roles.data else {
        return None;
    };
    let all = roles.iter().any(|role| match &role.data {
        Data::Text(role) => matches!(role.as_str(), "mgmt" | "monitor"),
        Data::Null | Data::Bool(_) | Data::Number(_) | Data::List(_) | Data::Object(_) => false,
    });
    all.then_some("sees all")
}

/// SHA-256 over what belongs to no container, to no group and not to `bsp/`: disks, address pools, files of nobody. Signatures do not
/// count, they follow what they sign; nor does white space of `device.json`.
pub(super) fn of_rest(
    entries: &BTreeMap<Key, Value>,
    is_container: impl Fn(&str) -> bool,
) -> ObjectId {
    let mut parts = Parts(sha2::Sha256::new());
    parts.push("coxswain rest 1");
    for (key, value) in entries {
        let counts = match key.split_first() {
            Some(("bsp" | "_sigs", _)) => false,
            Some(("_config", rest)) => {
                let name = rest.split_once('/').map_or(rest, |(name, _)| name);
                !is_container(name)
            }
            Some((folder, _)) => !is_container(folder),
            None => key.as_str() != "groups.json",
        };
        match value {
            Value::Inline(text) if counts && key.as_str() == "device.json" => {
                parts.push(key.as_str());
                // What was parsed before parses again.
                parts.push(
                    &Node::parse(text)
                        .map_or_else(|_| text.clone(), |node| node.canonical_without(&["groups"])),
                );
            }
            Value::Inline(_) | Value::Object(_) if counts => push_entry(&mut parts, key, value),
            Value::Inline(_) | Value::Object(_) => {}
        }
    }
    ObjectId::from_digest(parts.0.finalize().into())
}

fn push_entry(parts: &mut Parts, key: &Key, value: &Value) {
    parts.push(key.as_str());
    match value {
        Value::Object(object) => {
            parts.push("object");
            parts.push(&object.to_string());
        }
        Value::Inline(text) => {
            parts.push("inline");
            parts.push(text);
        }
    }
}

fn push_source(parts: &mut Parts, kind: &Kind, value: &Value) {
    let (Kind::Lxc(_), Value::Inline(text)) = (kind, value) else {
        return;
    };
    if text.len() > crate::limits::INLINE_READ_BYTES_MAX {
        // Too large to look into: any change counts.
        parts.push(text);
        return;
    }
    let Ok(source) = Node::parse(text) else {
        return;
    };
    if let Some(config) = source.get("docker_config") {
        parts.push("docker_config");
        parts.push(&config.canonical());
    }
}
