//! The outer layer of a manifest: one flat object, read in one pass with the raw text of each value kept.
//!
//! Found here: text that is no JSON, keys that are no clean relative paths, values that are neither object names nor
//! inline JSON, two things that claim one path, and everything over the limits of the whole.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::problems::{Problems, Shown, suggestion};
use super::{Value, json};
use crate::{Key, ObjectId, limits};

/// The specification that today's manifests name.
pub(super) const SPEC: &str = "pantavisor-service-system@1";
/// Read as the same.
pub(super) const SPEC_LEGACY: &str = "pantavisor-multi-platform@1";

/// One key and its value as they stand in the text.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) key: Cow<'a, str>,
    pub(super) raw: &'a str,
}

/// Reads the outer object.
///
/// # Errors
/// The one problem that makes everything after it unreadable.
pub(super) fn read<'a>(bytes: &'a [u8], problems: &mut Problems) -> Option<Vec<Entry<'a>>> {
    let mut whole = |code, detail: fmt::Arguments<'_>, remedy: fmt::Arguments<'_>| {
        problems.add((0, 0), code, String::new, detail, remedy);
    };
    if bytes.len() > limits::MANIFEST_BYTES_MAX {
        whole(
            "manifest-too-large",
            format_args!("the manifest has {} bytes", bytes.len()),
            format_args!(
                "keep it to {} bytes: move inline JSON into objects",
                limits::MANIFEST_BYTES_MAX
            ),
        );
        return None;
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            whole(
                "not-utf8",
                format_args!("byte {} is not UTF-8", error.valid_up_to()),
                format_args!("send the manifest as UTF-8 text"),
            );
            return None;
        }
    };
    let mut source = serde_json::Deserializer::from_str(text);
    let outer = Outer::deserialize(&mut source).and_then(|outer| source.end().map(|()| outer));
    match outer {
        Ok(Outer(entries)) if entries.len() > limits::MANIFEST_KEYS_MAX => {
            whole(
                "too-many-keys",
                format_args!(
                    "the manifest has more than {} keys",
                    limits::MANIFEST_KEYS_MAX
                ),
                format_args!("put files that belong together into one image"),
            );
            None
        }
        Ok(Outer(entries)) => Some(entries),
        Err(error) => {
            whole(
                "invalid-json",
                format_args!("the manifest is not one JSON object: {error}"),
                format_args!("send the whole file, unchanged, as it was exported"),
            );
            None
        }
    }
}

/// The outer object; reading stops one past the limit.
struct Outer<'a>(Vec<Entry<'a>>);

impl<'de> Deserialize<'de> for Outer<'de> {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        source.deserialize_map(OuterVisitor)
    }
}

struct OuterVisitor;

impl<'de> Visitor<'de> for OuterVisitor {
    type Value = Outer<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of paths")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut source: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(KeyText(key)) = source.next_key()? {
            let raw = source.next_value::<&'de RawValue>()?.get();
            // Past the limit the rest is only checked for being JSON.
            if entries.len() <= limits::MANIFEST_KEYS_MAX {
                entries.push(Entry { key, raw });
            }
        }
        Ok(Outer(entries))
    }
}

/// A key, borrowed unless it has escapes.
struct KeyText<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for KeyText<'de> {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = KeyText<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(KeyText(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(KeyText(Cow::Owned(text.to_owned())))
            }
        }
        source.deserialize_str(Text)
    }
}

/// Checks `#spec`: exactly one, known.
pub(super) fn check_spec(entries: &[Entry<'_>], problems: &mut Problems) {
    let mut found = false;
    for (number, entry) in entries.iter().enumerate() {
        if entry.key != "#spec" {
            continue;
        }
        if found {
            // Reported as a duplicate by `check_claims`.
            continue;
        }
        found = true;
        let spec: Option<String> = serde_json::from_str(entry.raw).ok();
        if !matches!(spec.as_deref(), Some(SPEC | SPEC_LEGACY)) {
            problems.add_entry(
                (number, "#spec"),
                "unknown-spec",
                format_args!("the specification {} is not known", Shown(entry.raw)),
                format_args!("use \"{SPEC}\""),
            );
        }
    }
    if !found {
        problems.add(
            (0, 0),
            "missing-spec",
            String::new,
            format_args!("there is no #spec"),
            format_args!("add \"#spec\":\"{SPEC}\""),
        );
    }
}

/// The key as a clean path; what the store itself keeps in a revision's folder is refused.
pub(super) fn check_key(number: usize, entry: &Entry<'_>, problems: &mut Problems) -> Option<Key> {
    let text = entry.key.as_ref();
    let key: Key = match text.parse() {
        Ok(key) => key,
        Err(error) => {
            problems.add_entry(
                (number, text),
                "unclean-key",
                format_args!("{error}"),
                format_args!("use a relative path such as \"web/root.squashfs\""),
            );
            return None;
        }
    };
    let first = key.split_first().map_or(key.as_str(), |(first, _)| first);
    if matches!(first, ".pvr" | ".pv") {
        problems.add_entry(
            (number, text),
            "reserved-path",
            format_args!("{first:?} in a revision's folder belongs to the orchestrator"),
            format_args!("use another folder"),
        );
        return None;
    }
    Some(key)
}

/// The value: an object's name, or inline JSON.
pub(super) fn check_value(
    number: usize,
    entry: &Entry<'_>,
    problems: &mut Problems,
) -> Option<Value> {
    let mut wrong = |code, detail: fmt::Arguments<'_>, remedy: &str| {
        let place = (number, entry.key.as_ref());
        problems.add_entry(place, code, detail, format_args!("{remedy}"));
    };
    let is_json_file = entry.key.ends_with(".json");
    match entry.raw.as_bytes().first() {
        Some(b'"') => {
            let object = hex_of(entry.raw).and_then(|text| text.parse::<ObjectId>().ok());
            if object.is_some() {
                return object.map(Value::Object);
            }
            let is_upper = hex_of(entry.raw)
                .is_some_and(|text| text.to_ascii_lowercase().parse::<ObjectId>().is_ok());
            let remedy = if is_upper {
                "write the SHA-256 in lower case"
            } else {
                "use the 64 lower-case hexadecimal digits of the object's SHA-256, or inline JSON"
            };
            let shown = Shown(entry.raw);
            wrong(
                "bad-object-name",
                format_args!("{shown} is not an object's name"),
                remedy,
            );
            None
        }
        Some(b'{' | b'[') => {
            let depth = json::depth(entry.raw);
            if depth > limits::JSON_DEPTH_MAX {
                let detail = format_args!("the inline JSON is nested {depth} deep");
                wrong(
                    "too-deep",
                    detail,
                    "keep it to 64 levels, or make it an object",
                );
                return None;
            }
            Some(Value::Inline(entry.raw.to_owned()))
        }
        Some(_) if is_json_file => Some(Value::Inline(entry.raw.to_owned())),
        Some(_) | None => {
            wrong(
                "bad-value",
                format_args!(
                    "{} is neither an object's name nor inline JSON",
                    Shown(entry.raw)
                ),
                "use the 64 lower-case hexadecimal digits of the object's SHA-256, or inline JSON",
            );
            None
        }
    }
}

/// What is between the quotes of a JSON text without escapes.
fn hex_of(raw: &str) -> Option<&str> {
    let text = raw.strip_prefix('"')?.strip_suffix('"')?;
    (text.len() == 64).then_some(text)
}

/// Reports each key that is there twice, or whose path runs through another key as if that were a folder.
pub(super) fn check_claims(entries: &[Entry<'_>], problems: &mut Problems) {
    let mut order: Vec<usize> = (0..entries.len()).collect();
    // With `/` first, what is below a path follows it at once.
    let rank = |byte: u8| if byte == b'/' { 0 } else { u16::from(byte) + 1 };
    order.sort_by(|&one, &other| {
        let (left, right) = (&entries[one].key, &entries[other].key);
        left.bytes()
            .map(rank)
            .cmp(right.bytes().map(rank))
            .then(one.cmp(&other))
    });
    let mut folders: Vec<usize> = Vec::new();
    for number in order {
        let key = entries[number].key.as_ref();
        while let Some(&folder) = folders.last() {
            let above = entries[folder].key.as_ref();
            if key == above || is_below(key, above) {
                break;
            }
            folders.pop();
        }
        match folders.last() {
            Some(&first) if entries[first].key == key => problems.add_entry(
                (number, key),
                "duplicate-key",
                format_args!("this key stands twice"),
                format_args!("keep one of the two"),
            ),
            Some(&above) => {
                let above = Shown(&entries[above].key);
                problems.add_entry(
                    (number, key),
                    "path-conflict",
                    format_args!("{above} is a file, so nothing can be below it"),
                    format_args!("rename one of the two"),
                );
            }
            None => folders.push(number),
        }
    }
}

fn is_below(key: &str, above: &str) -> bool {
    key.strip_prefix(above)
        .is_some_and(|rest| rest.starts_with('/'))
}

/// Reports a reference to a key of the container that is not there.
pub(super) fn missing_key_remedy<'a>(
    name: &str,
    container: &str,
    keys: impl Iterator<Item = &'a Key>,
) -> String {
    let own = keys.filter_map(|key| match key.split_first() {
        Some((first, rest)) if first == container && rest != "run.json" => Some(rest),
        Some(_) | None => None,
    });
    format!(
        "add the key \"{container}/{name}\"; {}",
        suggestion(name, own)
    )
}
