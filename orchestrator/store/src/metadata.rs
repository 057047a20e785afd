//! Metadata: one file per key and map, so that a put costs one replace and a torn map cannot exist.
//!
//! A file has a line of JSON (format, place in the order, key, checksum of the value) and then the value, byte for byte. Its name is
//! the key with everything percent-encoded that means something in a path; keys that would be too long are named by their hash.
//! The newest key comes first; a key that is set again keeps its place.

use std::collections::BTreeMap;
use std::path::PathBuf;

use model::metadata::{MetaKey, MetaKind};
use model::{ObjectId, limits};
use serde::{Deserialize, Serialize};

use crate::disk::{Disk, EntryKind};
use crate::{Failed, Inner, Store, explain, layout, lock};

const VERSION: u32 = 1;
/// Bytes of a file: the value, and a header with a key in which every byte may be escaped.
const FILE_BYTES_MAX: usize = limits::META_VALUE_BYTES_MAX + 6 * limits::META_KEY_BYTES_MAX + 256;
/// Bytes of an encoded name; file systems take 255.
const NAME_BYTES_MAX: usize = 200;

/// Why metadata could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum MetaError {
    /// The value is too long.
    #[error("a metadata value has at most {} bytes", limits::META_VALUE_BYTES_MAX)]
    ValueTooLong,
    /// There are too many keys.
    #[error(
        "there are {} metadata keys already, which is the limit; remove some first",
        limits::META_KEYS_MAX
    )]
    TooManyKeys,
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] Failed),
}

/// A metadata map that was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MetaMap {
    /// Keys and values, newest key first.
    pub entries: Vec<(MetaKey, Vec<u8>)>,
    /// Files that were left out, each with what is wrong.
    pub notices: Vec<String>,
}

/// Places of the keys, kept in memory once a map was read.
#[derive(Debug, Default)]
pub(crate) struct Index {
    maps: BTreeMap<MetaKind, BTreeMap<MetaKey, u64>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    version: u32,
    place: u64,
    key: String,
    sha256: ObjectId,
}

impl<D: Disk> Store<D> {
    /// Reads a map.
    ///
    /// # Errors
    /// The folder cannot be listed. A file that cannot be read is left out and named.
    pub fn load_meta(&self, kind: MetaKind) -> Result<MetaMap, Failed> {
        let mut index = lock(&self.inner.metadata);
        self.inner.load_meta(kind, &mut index)
    }

    /// Sets a value, durably.
    ///
    /// # Errors
    /// Over a limit, or the disk failed: it is the old value or the new one then.
    pub fn put_meta(&self, kind: MetaKind, key: &MetaKey, value: &[u8]) -> Result<(), MetaError> {
        if value.len() > limits::META_VALUE_BYTES_MAX {
            return Err(MetaError::ValueTooLong);
        }
        let inner = &self.inner;
        let mut index = lock(&inner.metadata);
        let places = inner.places(kind, &mut index)?;
        let place = match places.get(key) {
            Some(place) => *place,
            None if places.len() >= limits::META_KEYS_MAX => return Err(MetaError::TooManyKeys),
            None => places.values().max().map_or(0, |newest| newest + 1),
        };
        inner.replace(&path(kind, key), &render(place, key, value))?;
        places.insert(key.clone(), place);
        Ok(())
    }

    /// Removes a value, durably; whether it was there.
    ///
    /// # Errors
    /// The disk failed.
    pub fn delete_meta(&self, kind: MetaKind, key: &MetaKey) -> Result<bool, Failed> {
        let inner = &self.inner;
        let mut index = lock(&inner.metadata);
        let places = inner.places(kind, &mut index)?;
        if !places.contains_key(key) {
            return Ok(false);
        }
        inner.remove_file(&path(kind, key))?;
        inner.sync_dir(&layout::meta(kind))?;
        places.remove(key);
        Ok(true)
    }
}

impl<D: Disk> Inner<D> {
    fn places<'a>(
        &self,
        kind: MetaKind,
        index: &'a mut Index,
    ) -> Result<&'a mut BTreeMap<MetaKey, u64>, Failed> {
        if !index.maps.contains_key(&kind) {
            self.load_meta(kind, index)?;
        }
        Ok(index.maps.entry(kind).or_default())
    }

    fn load_meta(&self, kind: MetaKind, index: &mut Index) -> Result<MetaMap, Failed> {
        let mut found: Vec<(u64, MetaKey, Vec<u8>)> = Vec::new();
        let mut map = MetaMap::default();
        let folder = layout::meta(kind);
        for entry in self.list(&folder)? {
            if entry.kind != EntryKind::File || entry.name.starts_with(layout::TEMP_PREFIX) {
                continue;
            }
            if found.len() == limits::META_KEYS_MAX {
                map.notices.push(format!(
                    "{} has more than {} keys; the rest was left out",
                    folder.display(),
                    limits::META_KEYS_MAX
                ));
                break;
            }
            let path = folder.join(&entry.name);
            match self.read(&path, FILE_BYTES_MAX) {
                Ok(Some(bytes)) => match parse(&bytes) {
                    Ok((place, key, value)) if file_name(&key) == entry.name => {
                        found.push((place, key, value));
                    }
                    Ok(_) => map
                        .notices
                        .push(format!("{} holds another key", path.display())),
                    Err(problem) => map.notices.push(format!("{}: {problem}", path.display())),
                },
                Ok(None) => {}
                Err(error) => map.notices.push(explain(&error)),
            }
        }
        // Two files have one place only when a file was copied by hand; the key then decides.
        found.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        let places = found.iter().map(|(place, key, _)| (key.clone(), *place));
        index.maps.insert(kind, places.collect());
        map.entries = found
            .into_iter()
            .map(|(_, key, value)| (key, value))
            .collect();
        Ok(map)
    }
}

fn path(kind: MetaKind, key: &MetaKey) -> PathBuf {
    layout::meta(kind).join(file_name(key))
}

/// The file that holds a key. Different keys have different files, and no key can leave the folder or clash with a temporary file.
pub fn file_name(key: &MetaKey) -> String {
    let mut name = String::new();
    for (place, byte) in key.as_str().bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'_')
            || (byte == b'.' && place > 0);
        if plain {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02X}"));
        }
    }
    if name.len() > NAME_BYTES_MAX {
        // No encoded key has "%-" in it.
        name = format!("%-{}", ObjectId::of(key.as_str().as_bytes()));
    }
    name
}

fn render(place: u64, key: &MetaKey, value: &[u8]) -> Vec<u8> {
    let header = Header {
        version: VERSION,
        place,
        key: key.as_str().to_owned(),
        sha256: ObjectId::of(value),
    };
    let mut bytes = serde_json::to_vec(&header).expect("strings and numbers always serialise");
    bytes.push(b'\n');
    bytes.extend_from_slice(value);
    bytes
}

fn parse(bytes: &[u8]) -> Result<(u64, MetaKey, Vec<u8>), String> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return Err("it has no header".to_owned());
    };
    let (header, value) = (&bytes[..end], &bytes[end + 1..]);
    let header: Header = serde_json::from_slice(header).map_err(|error| error.to_string())?;
    if header.version != VERSION {
        return Err(format!("it has the unknown format {}", header.version));
    }
    if value.len() > limits::META_VALUE_BYTES_MAX || ObjectId::of(value) != header.sha256 {
        return Err("its checksum is wrong".to_owned());
    }
    let key = header.key.parse().map_err(|error| format!("{error}"))?;
    Ok((header.place, key, value.to_vec()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(text: &str) -> MetaKey {
        text.parse().unwrap()
    }

    #[test]
    fn names() {
        for (given, wanted) in [
            ("a", "a"),
            ("web.key", "web.key"),
            ("..", "%2E."),
            (".tmp-1", "%2Etmp-1"),
            ("a%2Fb", "a%252Fb"),
            ("a?x=1", "a%3Fx%3D1"),
            ("ü", "%C3%BC"),
        ] {
            assert_eq!(file_name(&key(given)), wanted);
        }
        assert_eq!(file_name(&key(&"%".repeat(255))).len(), 66);
    }

    proptest! {
        #[test]
        fn names_are_safe_and_differ(a in "[^/\0]{1,60}", b in "[a-b.%]{1,5}", c in "[a-b.%]{1,5}") {
            let name = file_name(&key(&a));
            prop_assert!(name.len() <= 255);
            prop_assert!(!name.starts_with('.') && !name.contains('/'));
            prop_assert!(name.is_ascii());
            prop_assert_eq!(b == c, file_name(&key(&b)) == file_name(&key(&c)));
        }

        #[test]
        fn files_are_read_back(
            text in "[^/\0]{1,60}",
            value in proptest::collection::vec(any::<u8>(), 0..200),
            place in any::<u64>(),
        ) {
            let key = key(&text);
            let bytes = render(place, &key, &value);
            prop_assert!(bytes.len() <= FILE_BYTES_MAX);
            prop_assert_eq!(parse(&bytes), Ok((place, key, value)));
        }

        #[test]
        fn damage_is_noticed(value in "[a-z]{0,50}", flip in any::<proptest::sample::Index>(), bit in 0..8u8) {
            let good = render(7, &key("k"), value.as_bytes());
            let mut bytes = good.clone();
            let place = flip.index(bytes.len());
            bytes[place] ^= 1 << bit;
            // The key and the place are checked by nothing but their form: the file's name stands for the key.
            if let Ok((_, key, found)) = parse(&bytes) {
                prop_assert!(found == value.as_bytes() || file_name(&key) != "k");
            }
        }
    }
}
