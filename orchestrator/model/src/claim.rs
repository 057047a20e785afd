//! Claims: what a client says is its to change. Names, parts and limits; what a claim does is decided in `lifecycle::claims`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits::{CLAIM_LEASE_S_MAX, CLAIM_LEASE_S_MIN, CLAIM_PARTS_MAX, CLAIM_PRIORITY_MAX};
use crate::limits::{CLIENT_NAME_BYTES_MAX, CONTAINER_NAME_BYTES_MAX};
use crate::{ContainerName, GroupName};

/// Why a claim is none. The text names what was given and what is accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidClaim {
    /// A part has one of four forms.
    #[error(
        "{0:?} is no part of a device: use \"*\", \"bsp\", \"container:<name>\" or \"group:<name>\""
    )]
    Part(String),
    /// A program of the host has a short plain name.
    #[error("{0:?} is not the name of a program: use 1 to 64 letters, digits, '.', '-' or '_'")]
    Program(String),
    /// A client has one of three forms.
    #[error("{0:?} is no client: use \"host\", \"host:<program>\" or \"container:<name>\"")]
    Client(String),
    /// None, or too many.
    #[error("a claim has 1 to {CLAIM_PARTS_MAX} parts, not {0}")]
    Parts(usize),
    /// Out of range.
    #[error("a priority is a number from 0 to {CLAIM_PRIORITY_MAX}, not {0}")]
    Priority(u64),
    /// Out of range.
    #[error("a lease lasts {CLAIM_LEASE_S_MIN} to {CLAIM_LEASE_S_MAX} s, not {0}")]
    Lease(u64),
}

/// Name that a program of the host gives itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProgramName(String);

impl FromStr for ProgramName {
    type Err = InvalidClaim;

    fn from_str(text: &str) -> Result<Self, InvalidClaim> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        if (1..=CLIENT_NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidClaim::Program(cut(text)))
        }
    }
}

/// Somebody who may hold claims.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Client {
    /// Root of the host, without a name: a person.
    Host,
    /// Root of the host, as this program.
    Program(ProgramName),
    /// A container; nobody else can speak in its name.
    Container(ContainerName),
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Program(name) => write!(f, "host:{}", name.0),
            Self::Container(name) => write!(f, "container:{name}"),
        }
    }
}

impl FromStr for Client {
    type Err = InvalidClaim;

    fn from_str(text: &str) -> Result<Self, InvalidClaim> {
        let unknown = || InvalidClaim::Client(cut(text));
        match text.split_once(':') {
            None if text == "host" => Ok(Self::Host),
            Some(("host", name)) => Ok(Self::Program(name.parse()?)),
            Some(("container", name)) => Ok(Self::Container(name.parse().map_err(|_| unknown())?)),
            None | Some(_) => Err(unknown()),
        }
    }
}

/// A part of the device that can be claimed. It need not exist yet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Part {
    /// All of it.
    Everything,
    /// Kernel, modules, firmware, init: all below `bsp/`.
    Bsp,
    /// One container.
    Container(ContainerName),
    /// A group with the containers in it, now or later.
    Group(GroupName),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => f.write_str("*"),
            Self::Bsp => f.write_str("bsp"),
            Self::Container(name) => write!(f, "container:{name}"),
            Self::Group(name) => write!(f, "group:{name}"),
        }
    }
}

impl FromStr for Part {
    type Err = InvalidClaim;

    fn from_str(text: &str) -> Result<Self, InvalidClaim> {
        let unknown = || InvalidClaim::Part(cut(text));
        match text.split_once(':') {
            None if text == "*" => Ok(Self::Everything),
            None if text == "bsp" => Ok(Self::Bsp),
            Some(("container", name)) => Ok(Self::Container(name.parse().map_err(|_| unknown())?)),
            Some(("group", name)) => Ok(Self::Group(name.parse().map_err(|_| unknown())?)),
            None | Some(_) => Err(unknown()),
        }
    }
}

macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl TryFrom<String> for $name {
            type Error = InvalidClaim;

            fn try_from(text: String) -> Result<Self, InvalidClaim> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    )*};
}

as_text!(Client, Part);

/// What is asked for with a claim; checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// What.
    pub parts: BTreeSet<Part>,
    /// The higher one has its way.
    pub priority: u16,
    /// How long it holds without being renewed, in seconds.
    pub lease_s: u32,
}

impl Wanted {
    /// Checks what was asked for.
    ///
    /// # Errors
    /// What is out of its limits.
    pub fn new(parts: BTreeSet<Part>, priority: u64, lease_s: u64) -> Result<Self, InvalidClaim> {
        if !(1..=CLAIM_PARTS_MAX).contains(&parts.len()) {
            return Err(InvalidClaim::Parts(parts.len()));
        }
        Ok(Self {
            parts,
            priority: u16::try_from(priority)
                .ok()
                .filter(|priority| *priority <= CLAIM_PRIORITY_MAX)
                .ok_or(InvalidClaim::Priority(priority))?,
            lease_s: lease(lease_s)?,
        })
    }
}

/// Checks the length of a lease.
///
/// # Errors
/// It is out of its limits.
pub fn lease(seconds: u64) -> Result<u32, InvalidClaim> {
    u32::try_from(seconds)
        .ok()
        .filter(|seconds| (CLAIM_LEASE_S_MIN..=CLAIM_LEASE_S_MAX).contains(seconds))
        .ok_or(InvalidClaim::Lease(seconds))
}

/// A claim as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Its number; never used again.
    pub id: u64,
    /// Whose it is.
    pub client: Client,
    /// What it is for.
    pub parts: BTreeSet<Part>,
    /// The higher one has its way.
    pub priority: u16,
    /// How long it holds without being renewed, in seconds.
    pub lease_s: u32,
    /// Whether it was made or renewed since the orchestrator started last.
    pub renewed: bool,
}

/// All claims, as they are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Kept {
    /// The number that the next claim gets.
    pub next: u64,
    /// By number.
    pub claims: Vec<Claim>,
}

fn cut(text: &str) -> String {
    text.chars().take(2 * CONTAINER_NAME_BYTES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_clients_are_told_as_they_are_read() {
        for good in [
            "*",
            "bsp",
            "container:web",
            "container:a:b",
            "group:app",
            "group:*",
        ] {
            let part: Part = good.parse().unwrap();
            assert_eq!(part.to_string(), good);
            assert_eq!(serde_json::to_string(&part).unwrap(), format!("{good:?}"));
        }
        let long = format!("container:{}", "a".repeat(65));
        for bad in [
            "",
            "web",
            "**",
            "bsp:",
            "bsp:x",
            "container:",
            "container:../x",
            "container:_sigs",
            "group:",
            "group:a/b",
            "Container:web",
            " bsp",
            &long,
        ] {
            let error = bad.parse::<Part>().unwrap_err();
            assert!(error.to_string().len() < 300, "{error}");
        }
        for good in [
            "host",
            "host:hawkbit",
            "host:a.b-c_1",
            "container:web",
            "container:host",
        ] {
            let client: Client = good.parse().unwrap();
            assert_eq!(client.to_string(), good);
        }
        let long = format!("host:{}", "a".repeat(65));
        for bad in [
            "",
            "web",
            "host:",
            "host:a b",
            "host:ü",
            "host:a:b",
            "container:",
            &long,
        ] {
            assert!(bad.parse::<Client>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn limits_hold_at_the_limit_and_one_past_it() {
        let parts = |count: usize| -> BTreeSet<Part> {
            (0..count)
                .map(|number| format!("container:c{number}").parse().unwrap())
                .collect()
        };
        let priority = u64::from(CLAIM_PRIORITY_MAX);
        let (short, long) = (u64::from(CLAIM_LEASE_S_MIN), u64::from(CLAIM_LEASE_S_MAX));
        for (count, priority, lease, good) in [
            (1, 0, short, true),
            (CLAIM_PARTS_MAX, priority, long, true),
            (0, 0, short, false),
            (CLAIM_PARTS_MAX + 1, 0, short, false),
            (1, priority + 1, short, false),
            (1, u64::MAX, short, false),
            (1, 0, short - 1, false),
            (1, 0, long + 1, false),
            (1, 0, u64::MAX, false),
        ] {
            let made = Wanted::new(parts(count), priority, lease);
            assert_eq!(made.is_ok(), good, "{count} {priority} {lease}");
        }
    }
}
