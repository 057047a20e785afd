//! The manifest, typed: what a revision consists of.
//!
//! The exact bytes are kept beside the typed form; signatures and the digest are over the bytes, never over a
//! re-serialised copy.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

use crate::container::{Container, Group};
use crate::{ContainerName, GroupName, Key, ObjectId};

mod changes;
mod codes;
mod drivers;
mod fingerprint;
mod groups;
mod health;
mod host;
mod json;
mod keys;
mod lxc;
mod network;
mod oci;
mod parse;
mod problems;
mod recovery;
mod run;
mod schema;
mod storage;

pub use changes::Changes;
pub use codes::CODES;
pub use drivers::{Driver, Need};
pub use schema::schema;

/// One thing that is wrong with a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Problem {
    /// RFC 6901 pointer to the place, `/web~1run.json/group`.
    pub pointer: String,
    /// Stable word for programs, such as `unknown-group`; one of [`CODES`].
    pub code: &'static str,
    /// What is wrong.
    pub detail: String,
    /// What to do about it.
    pub remedy: String,
}

/// Everything that is wrong with a manifest, at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the manifest has {total} problem(s); the first: {}", first(.problems))]
pub struct Rejected {
    /// At most `limits::PROBLEMS_MAX` of them, in text order.
    pub problems: Vec<Problem>,
    /// How many there are.
    pub total: usize,
}

fn first(problems: &[Problem]) -> String {
    problems
        .first()
        .map(|p| format!("{}: {} ({})", p.pointer, p.detail, p.remedy))
        .unwrap_or_default()
}

/// A value of the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// The bytes are an object.
    Object(ObjectId),
    /// Inline JSON, byte for byte.
    Inline(String),
}

/// A pool of addresses of `device.json`, `network.pools.<name>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// `bridge` or `macvlan`.
    pub kind: String,
    /// Name of the bridge; chosen by the run time when absent.
    pub bridge: Option<String>,
    /// Interface that a macvlan sits on.
    pub parent: Option<String>,
    /// Network address and length of its prefix.
    pub subnet: (IpAddr, u8),
    /// The gateway's address; the first of the subnet when absent.
    pub gateway: Option<IpAddr>,
    /// Whether containers reach the outside through the host's address.
    pub nat: bool,
}

/// A revision's manifest, parsed and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    bytes: Vec<u8>,
    digest: ObjectId,
    /// Every key except `#spec`, in text order by `order`.
    entries: BTreeMap<Key, Value>,
    groups: Vec<Group>,
    containers: BTreeMap<ContainerName, Container>,
    /// Container names in the order in which the text first names them.
    order: Vec<ContainerName>,
    pools: BTreeMap<String, Pool>,
}

impl Manifest {
    /// Parses and checks the exact bytes of a manifest.
    ///
    /// # Errors
    /// All problems at once, each with its place and a remedy.
    pub fn parse(bytes: &[u8]) -> Result<Self, Rejected> {
        parse::parse(bytes)
    }

    /// The bytes as delivered.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// SHA-256 of the bytes; by it a failed revision is remembered.
    pub fn digest(&self) -> ObjectId {
        self.digest
    }

    /// Every key but `#spec` with its value.
    pub fn entries(&self) -> &BTreeMap<Key, Value> {
        &self.entries
    }

    /// Groups in start order.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The group of this name.
    pub fn group(&self, name: &GroupName) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == *name)
    }

    /// Containers in text order.
    pub fn containers(&self) -> impl Iterator<Item = &Container> {
        self.order
            .iter()
            .filter_map(|name| self.containers.get(name))
    }

    /// The container of this name.
    pub fn container(&self, name: &ContainerName) -> Option<&Container> {
        self.containers.get(name)
    }

    /// Address pools by name; a container's `Network::Pool` names one of them.
    pub fn pools(&self) -> &BTreeMap<String, Pool> {
        &self.pools
    }

    /// Every object that the revision needs, with one key that needs it, each object once.
    pub fn objects(&self) -> BTreeMap<ObjectId, &Key> {
        let mut objects = BTreeMap::new();
        for (key, value) in &self.entries {
            if let Value::Object(object) = value {
                objects.entry(*object).or_insert(key);
            }
        }
        objects
    }

    /// SHA-256 over what needs a reboot when it changes: everything below `bsp/` except provenance.
    pub fn boot_fingerprint(&self) -> ObjectId {
        let mut text = String::new();
        for (key, value) in self.boot_entries() {
            match value {
                Value::Object(object) => text.push_str(&format!("{key}\0object\0{object}\0")),
                Value::Inline(json) => text.push_str(&format!("{key}\0inline\0{json}\0")),
            }
        }
        ObjectId::of(text.as_bytes())
    }

    /// What [`Manifest::boot_fingerprint`] counts.
    fn boot_entries(&self) -> impl Iterator<Item = (&Key, &Value)> {
        self.entries.iter().filter(|(key, _)| {
            matches!(key.split_first(), Some(("bsp", rest)) if !matches!(rest, "src.json" | "build.json"))
        })
    }

    /// SHA-256 over what belongs to no container, to no group and not to `bsp/`: disks, address pools, files of nobody.
    /// Signatures do not count.
    pub fn rest_fingerprint(&self) -> ObjectId {
        fingerprint::of_rest(&self.entries, |name| {
            name.parse()
                .is_ok_and(|name| self.containers.contains_key::<ContainerName>(&name))
        })
    }
}
