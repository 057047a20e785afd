//! A patch: parts of a manifest to merge into the revision that runs, so that one application of many can be updated by who knows
//! nothing of the others.
//!
//! ```json
//! {"#spec": "coxswain-patch@1",
//!  "#replace": ["web"], "#remove": ["old", "_config/app/etc/x.conf"],
//!  "web/run.json": {…}, "web/root.squashfs": "<sha256>", "_config/web/etc/web.conf": "<sha256>"}
//! ```
//!
//! `#replace` takes a container's old keys (with its `_config` and `_sigs`) away before the new ones come; `#remove` takes containers,
//! folders or keys away; every other key is set; `null` removes it. What is not spoken of stays byte for byte and where it stands. The same patch
//! on the same revision gives the same bytes, and a patch that is merged already changes nothing. Signatures (`_sigs/…`) are keys
//! like others: a patch that changes what is signed has to bring the new ones.

use serde_json::value::RawValue;

use super::ordered::Ordered;

/// The format that is understood.
pub const SPEC: &str = "coxswain-patch@1";

/// Why a patch cannot be merged.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// It cannot be parsed.
    #[error("the patch is no JSON object of keys: {reason}")]
    Malformed {
        /// Where and what.
        reason: String,
    },
    /// Another format.
    #[error("the patch is no {SPEC}: its \"#spec\" is {found}")]
    OtherSpec {
        /// What it says.
        found: String,
    },
    /// A word with `#` that is not known: it could mean anything.
    #[error("the patch holds {key:?}, which this version does not know")]
    UnknownWord {
        /// Which.
        key: String,
    },
    /// An entry of `#replace` or `#remove` that names nothing that could be meant.
    #[error("{list} holds {name:?}: {reason}")]
    BadName {
        /// Which list.
        list: &'static str,
        /// The entry.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// What runs cannot be parsed.
    #[error("the running revision's manifest cannot be read: {reason}")]
    BadBase {
        /// Where and what.
        reason: String,
    },
    /// It says nothing.
    #[error("the patch changes nothing: it has neither keys nor removals")]
    Empty,
}

/// A patch that was parsed.
#[derive(Debug, Clone)]
pub struct Patch {
    replace: Vec<String>,
    remove: Vec<String>,
    /// Without the words with `#`.
    set: Ordered,
}

impl Patch {
    /// Parses a patch.
    ///
    /// # Errors
    /// See [`PatchError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, PatchError> {
        let mut set = Ordered::parse(bytes).map_err(|error| PatchError::Malformed {
            reason: error.to_string(),
        })?;
        let spec = set.get("#spec").map_or("missing", RawValue::get);
        if spec != format!("{SPEC:?}") {
            return Err(PatchError::OtherSpec {
                found: spec.chars().take(100).collect(),
            });
        }
        let known = ["#spec", "#replace", "#remove"];
        let unknown = set
            .iter()
            .find(|(key, _)| key.starts_with('#') && !known.contains(key));
        if let Some((key, _)) = unknown {
            return Err(PatchError::UnknownWord {
                key: key.to_owned(),
            });
        }
        let names = |list: &'static str| -> Result<Vec<String>, PatchError> {
            match set.get(list) {
                None => Ok(Vec::new()),
                Some(value) => {
                    serde_json::from_str(value.get()).map_err(|error| PatchError::Malformed {
                        reason: format!("{list} is no list of texts: {error}"),
                    })
                }
            }
        };
        let (replace, remove) = (names("#replace")?, names("#remove")?);
        for (list, names) in [("#replace", &replace), ("#remove", &remove)] {
            for name in names {
                check_name(list, name)?;
            }
        }
        set.retain(|key| !key.starts_with('#'));
        if replace.is_empty() && remove.is_empty() && set.iter().next().is_none() {
            return Err(PatchError::Empty);
        }
        Ok(Self {
            replace,
            remove,
            set,
        })
    }

    /// The manifest that comes of it. It is checked by who installs it.
    ///
    /// # Errors
    /// [`PatchError::BadBase`].
    pub fn merge(&self, base: &[u8]) -> Result<Vec<u8>, PatchError> {
        let mut merged = Ordered::parse(base).map_err(|error| PatchError::BadBase {
            reason: error.to_string(),
        })?;
        for name in &self.remove {
            merged.retain(|key| !is_of(key, name));
        }
        for name in &self.replace {
            // A key that is set again keeps its place, and with it the container its place in the order.
            merged.retain(|key| !is_of(key, name) || self.set.get(key).is_some());
        }
        for (key, value) in self.set.iter() {
            if value.get() == "null" {
                merged.retain(|known| known != key);
            } else {
                merged.set(key, value.to_owned());
            }
        }
        Ok(merged.to_bytes())
    }
}

fn check_name(list: &'static str, name: &str) -> Result<(), PatchError> {
    let bad = |reason| PatchError::BadName {
        list,
        name: name.chars().take(100).collect(),
        reason,
    };
    let plain = name.strip_suffix('/').unwrap_or(name);
    if plain.is_empty() || plain.starts_with('#') || plain.len() > model::limits::KEY_BYTES_MAX {
        return Err(bad("name a container, a folder or a key"));
    }
    if plain
        .split('/')
        .any(|part| part.is_empty() || part == "." || part == "..")
    {
        return Err(bad("it is no clean relative path"));
    }
    if list == "#replace" && (plain.contains('/') || plain.starts_with('_') || plain == "bsp") {
        return Err(bad("only containers can be replaced"));
    }
    Ok(())
}

/// Whether a key is what a name says: the key itself, what is below the folder, and of a container its configuration and signature too.
fn is_of(key: &str, name: &str) -> bool {
    let name = name.strip_suffix('/').unwrap_or(name);
    let below = |key: &str| {
        key == name
            || key
                .strip_prefix(name)
                .is_some_and(|rest| rest.starts_with('/'))
    };
    let signature = || {
        let signed = key.strip_prefix("_sigs/");
        signed.and_then(|signed| signed.strip_suffix(".json")) == Some(name)
    };
    // A signature over what is gone has nothing to say.
    below(key)
        || (!name.contains('/') && (key.strip_prefix("_config/").is_some_and(below) || signature()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BASE: &str = r##"{"#spec":"pantavisor-service-system@1","web/run.json":{"n": 1},"web/root.squashfs":"a","app/run.json":{},"_config/web/etc/x":"b","_config/app/etc/y":"c","device.json":{ "g":[1.0] }}"##;

    fn merged(patch: &str) -> String {
        let patch = Patch::parse(patch.as_bytes()).unwrap();
        String::from_utf8(patch.merge(BASE.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn one_application_of_many() {
        assert_eq!(
            merged(
                r##"{"#spec":"coxswain-patch@1","web/root.squashfs":"z","_config/web/etc/x":"y","new/run.json":{}}"##
            ),
            r##"{"#spec":"pantavisor-service-system@1","web/run.json":{"n": 1},"web/root.squashfs":"z","app/run.json":{},"_config/web/etc/x":"y","_config/app/etc/y":"c","device.json":{ "g":[1.0] },"new/run.json":{}}"##
        );
    }

    #[test]
    fn a_container_as_a_whole() {
        assert_eq!(
            merged(
                r##"{"#spec":"coxswain-patch@1","#replace":["web"],"web/run.json":{"n":2},"web/root.erofs":"z"}"##
            ),
            r##"{"#spec":"pantavisor-service-system@1","web/run.json":{"n":2},"app/run.json":{},"_config/app/etc/y":"c","device.json":{ "g":[1.0] },"web/root.erofs":"z"}"##
        );
    }

    #[test]
    fn removal() {
        assert_eq!(
            merged(
                r##"{"#spec":"coxswain-patch@1","#remove":["web","_config/app/","nothing"],"device.json":null}"##
            ),
            r##"{"#spec":"pantavisor-service-system@1","app/run.json":{}}"##
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (patch, words) in [
            ("[]", "no JSON object"),
            ("{}", "\"#spec\" is missing"),
            (r##"{"#spec":"pantavisor-service-system@1"}"##, "pantavisor"),
            (r##"{"#spec":"coxswain-patch@1"}"##, "changes nothing"),
            (r##"{"#spec":"coxswain-patch@1","#merge":[]}"##, "#merge"),
            (
                r##"{"#spec":"coxswain-patch@1","#remove":"web"}"##,
                "no list",
            ),
            (
                r##"{"#spec":"coxswain-patch@1","#remove":["../x"]}"##,
                "clean",
            ),
            (r##"{"#spec":"coxswain-patch@1","#remove":[""]}"##, "name a"),
            (
                r##"{"#spec":"coxswain-patch@1","#remove":["#spec"]}"##,
                "name a",
            ),
            (
                r##"{"#spec":"coxswain-patch@1","#replace":["_config"]}"##,
                "only containers",
            ),
            (
                r##"{"#spec":"coxswain-patch@1","#replace":["bsp"]}"##,
                "only containers",
            ),
        ] {
            let error = Patch::parse(patch.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(words), "{patch}: {error}");
        }
        let patch = Patch::parse(br##"{"#spec":"coxswain-patch@1","a/b":1}"##).unwrap();
        assert!(patch.merge(b"no manifest").is_err());
    }

    proptest! {
        #[test]
        fn merging_twice_is_merging_once(
            keys in proptest::collection::btree_map("(web|app|new|_config/web)/[a-c]", 0_u8..3, 0..6),
            remove in proptest::collection::vec("web|app|_config/app|web/a|device.json", 0..3),
            replace in proptest::collection::vec("web|app|new", 0..2),
        ) {
            let mut patch = serde_json::Map::new();
            patch.insert("#spec".into(), SPEC.into());
            patch.insert("#remove".into(), remove.clone().into());
            patch.insert("#replace".into(), replace.into());
            for (key, value) in &keys {
                let value = if *value == 0 { serde_json::Value::Null } else { (*value).into() };
                patch.insert(key.clone(), value);
            }
            let text = serde_json::to_vec(&patch).unwrap();
            if let Ok(patch) = Patch::parse(&text) {
                let once = patch.merge(BASE.as_bytes()).unwrap();
                let twice = patch.merge(&once).unwrap();
                let (a, b): (serde_json::Value, serde_json::Value) =
                    (serde_json::from_slice(&once).unwrap(), serde_json::from_slice(&twice).unwrap());
                prop_assert_eq!(&a, &b);
                for (key, value) in &keys {
                    prop_assert_eq!(a.get(key).is_some(), *value != 0, "{}", key);
                }
                prop_assert!(a.get("#spec").is_some());
            }
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in ".{0,200}") {
            drop(Patch::parse(text.as_bytes()));
        }
    }
}
