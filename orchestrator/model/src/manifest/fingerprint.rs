//! What makes a running container the same container in two revisions.
//!
//! Counted is what its processes see: its own keys, what `_config/` lays over its root file system, those fields of
//! `run.json` that shape the process, and the definitions in `device.json` of the pools and disks that it uses.
//! Not counted is what the orchestrator alone acts on and can apply to a process that runs: group, goal, order,
//! recovery, roles, health, how it is stopped; and provenance, of which only `docker_config` in `src.json` can shape
//! the process of an lxc container.

use sha2::Digest as _;

use super::Value;
use super::json::Node;
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
