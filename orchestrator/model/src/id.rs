//! Names that are parsed once and then trusted: revisions, objects, containers, groups, manifest keys.
//!
//! Every type here can be used as part of a path below the storage root without another check: none of them can hold
//! an empty part, `.`, `..`, a NUL byte or a leading slash.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

use crate::limits;

/// Why a name was refused. The text names what was given and what is accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// A revision is a decimal number or `locals/<name>`.
    #[error(
        "{0:?} is not a revision: use a decimal number such as \"0\", or \"locals/<name>\" with 1 to 64 characters"
    )]
    Revision(String),
    /// An object is named by its SHA-256.
    #[error("{0:?} is not an object name: use the 64 lower-case hexadecimal digits of its SHA-256")]
    Object(String),
    /// A container is one clean path segment.
    #[error(
        "{0:?} is not a container name: use one path segment of 1 to 64 bytes that does not start with '.', '_' or '#'"
    )]
    Container(String),
    /// A group is one clean path segment.
    #[error("{0:?} is not a group name: use 1 to 64 printable characters without '/'")]
    Group(String),
    /// A key is a clean relative path.
    #[error("{key:?} is not a clean relative path: {reason}")]
    Key {
        /// The key as given (cut after 128 characters).
        key: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// Name of a revision: `0`, `5`, `locals/x`.
///
/// After `locals/` up to 64 characters are kept as typed (UTF-8, dots and percent signs included), as Pantavisor does;
/// what could leave the folder or collide with a route (`.`, `..`, `progress`, `commitmsg`, names that start with `.pv`) is refused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RevisionId(String);

impl RevisionId {
    /// The factory revision, `0`.
    pub fn factory() -> Self {
        Self("0".to_owned())
    }

    /// The name as it stands in paths and on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is revision `0`.
    pub fn is_factory(&self) -> bool {
        self.0 == "0"
    }
}

impl FromStr for RevisionId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let valid = match text.strip_prefix("locals/") {
            Some(name) => {
                !name.is_empty()
                    && name.chars().count() <= limits::REVISION_NAME_CHARS_MAX
                    && name.len() <= limits::PATH_PART_BYTES_MAX
                    && !name.contains(['/', '\0'])
                    && !name.chars().any(char::is_control)
                    && !name.starts_with(".pv")
                    && !matches!(name, "." | ".." | "progress" | "commitmsg")
            }
            None => {
                !text.is_empty()
                    && text.len() <= limits::REVISION_DIGITS_MAX
                    && text.bytes().all(|byte| byte.is_ascii_digit())
                    && (text == "0" || !text.starts_with('0'))
            }
        };
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName::Revision(cut(text)))
        }
    }
}

/// Name of an object: the lower-case hexadecimal SHA-256 of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId([u8; 32]);

impl ObjectId {
    /// The name of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// From a finished SHA-256.
    pub fn from_digest(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// The raw digest.
    pub fn digest(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first twelve hexadecimal digits, for people and for names that must be short.
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(12);
        text
    }
}

const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One write: a manifest's fingerprints format thousands of these.
        let mut text = [0; 64];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair[0] = HEX_DIGITS[usize::from(byte >> 4)];
            pair[1] = HEX_DIGITS[usize::from(byte & 15)];
        }
        f.pad(std::str::from_utf8(&text).expect("hexadecimal digits are text"))
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ObjectId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let invalid = || InvalidName::Object(cut(text));
        let hex = text.as_bytes();
        if hex.len() != 64 {
            return Err(invalid());
        }
        let mut digest = [0u8; 32];
        for (byte, pair) in digest.iter_mut().zip(hex.chunks_exact(2)) {
            let [high, low] = pair else {
                return Err(invalid());
            };
            let (Some(high), Some(low)) = (lower_hex(*high), lower_hex(*low)) else {
                return Err(invalid());
            };
            *byte = high << 4 | low;
        }
        Ok(Self(digest))
    }
}

/// Name of a container: the first part of its keys in the manifest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerName(String);

impl ContainerName {
    /// The name as it stands in the manifest.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let valid = !text.is_empty()
            && text.len() <= limits::CONTAINER_NAME_BYTES_MAX
            && !text.starts_with(['.', '_', '#'])
            && !text.contains('/')
            && !text.chars().any(char::is_control);
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName::Container(cut(text)))
        }
    }
}

/// Name of a group of containers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupName(String);

impl GroupName {
    /// The name as it stands in `device.json`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for GroupName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let valid = !text.is_empty()
            && text.len() <= limits::CONTAINER_NAME_BYTES_MAX
            && !text.contains('/')
            && !text.chars().any(char::is_control);
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName::Group(cut(text)))
        }
    }
}

/// A key of the manifest: a clean relative path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// The key as it stands in the manifest.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first part and the rest, when there is more than one part.
    pub fn split_first(&self) -> Option<(&str, &str)> {
        self.0.split_once('/')
    }
}

impl FromStr for Key {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let reason = if text.is_empty() {
            "it is empty"
        } else if text.len() > limits::KEY_BYTES_MAX {
            "it is longer than 1024 bytes"
        } else if text.starts_with('/') {
            "it starts with a slash"
        } else if text.contains('\0') {
            "it holds a NUL byte"
        } else if text.split('/').any(str::is_empty) {
            "it has an empty part"
        } else if text.split('/').any(|part| part == "." || part == "..") {
            "it has a part \".\" or \"..\""
        } else if text
            .split('/')
            .any(|part| part.len() > limits::PATH_PART_BYTES_MAX)
        {
            "it has a part of more than 255 bytes"
        } else if text.chars().any(char::is_control) {
            "it holds a control character"
        } else {
            return Ok(Self(text.to_owned()));
        };
        Err(InvalidName::Key {
            key: cut(text),
            reason,
        })
    }
}

fn lower_hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

fn cut(text: &str) -> String {
    text.chars().take(128).collect()
}

macro_rules! text_form {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}
text_form!(RevisionId, ContainerName, GroupName, Key);

macro_rules! serde_as_text {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
serde_as_text!(RevisionId, ObjectId, ContainerName, GroupName, Key);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions() {
        for good in [
            "0",
            "5",
            "120",
            "locals/x",
            "locals/a%2Fb",
            "locals/ü.1",
            "locals/...",
        ] {
            assert_eq!(
                good.parse::<RevisionId>()
                    .map(|id| id.to_string())
                    .as_deref(),
                Ok(good)
            );
        }
        let long = format!("locals/{}", "a".repeat(65));
        for bad in [
            "",
            "x",
            "05",
            "-1",
            "locals/",
            "locals/a/b",
            "locals/.",
            "locals/..",
            "locals/.pv",
            "locals/progress",
            "locals/commitmsg",
            "locals/a\0",
            "../x",
            "/0",
            "current",
            &long,
        ] {
            assert!(bad.parse::<RevisionId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn objects() {
        let id = ObjectId::of(b"");
        let text = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(id.to_string(), text);
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(id.short(), "e3b0c44298fc");
        assert!(text.to_uppercase().parse::<ObjectId>().is_err());
        assert!(text[1..].parse::<ObjectId>().is_err());
    }

    #[test]
    fn keys() {
        for good in [
            "#spec",
            "web/run.json",
            "_config/web/etc/a b",
            "a/.b",
            "a/...",
            "device.json",
        ] {
            assert!(good.parse::<Key>().is_ok(), "{good:?}");
        }
        let long = "a/".repeat(600) + "b";
        let long_part = "a".repeat(256);
        for bad in [
            "", "/a", "a/", "a//b", "a/../b", "..", ".", "a/./b", "a\0b", &long, &long_part,
        ] {
            assert!(bad.parse::<Key>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn containers() {
        for good in ["web", "pvr-sdk", "a.b", "x y"] {
            assert!(good.parse::<ContainerName>().is_ok(), "{good:?}");
        }
        for bad in [
            "",
            ".",
            "..",
            ".a",
            "_config",
            "#spec",
            "a/b",
            "a\nb",
            &"a".repeat(65),
        ] {
            assert!(bad.parse::<ContainerName>().is_err(), "{bad:?}");
        }
    }
}
