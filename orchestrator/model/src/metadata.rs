//! User and device metadata: two flat maps of small values, durable and independent of revisions.

use std::str::FromStr;

use crate::limits;

/// Which of the two maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MetaKind {
    /// Set by whoever owns the device.
    User,
    /// Told by the device.
    Device,
}

impl MetaKind {
    /// Folder below `meta/`.
    pub fn folder(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Device => "device",
        }
    }
}

/// A metadata key as sent by the client: 1 to 255 bytes, no slash, no NUL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MetaKey(String);

impl MetaKey {
    /// The key as sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The key is empty, longer than 255 bytes, or holds a slash or NUL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a metadata key: use 1 to 255 bytes without '/' and NUL")]
pub struct InvalidMetaKey;

impl FromStr for MetaKey {
    type Err = InvalidMetaKey;

    fn from_str(text: &str) -> Result<Self, InvalidMetaKey> {
        let valid = !text.is_empty()
            && text.len() <= limits::META_KEY_BYTES_MAX
            && !text.contains(['/', '\0']);
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidMetaKey)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        for good in ["a", "web.key", "%20", "a?x=1", "ü", ".."] {
            assert!(good.parse::<MetaKey>().is_ok(), "{good:?}");
        }
        for bad in ["", "a/b", "a\0", &"a".repeat(256)] {
            assert!(bad.parse::<MetaKey>().is_err(), "{bad:?}");
        }
    }
}
