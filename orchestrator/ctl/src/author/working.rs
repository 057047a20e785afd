//! A working folder: `manifest.json` beside `objects/`. It is what the commands change and what is exported.
//!
//! A change is checked before it is written, so a folder that was right stays right. Values that a command does not
//! concern keep their exact text; keys are written in order, so the same content gives the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use client::bundle::{self, Packing};
use client::{Bundle, BundleError};
use model::manifest::Value;
use model::{Manifest, ObjectId};
use serde_json::value::RawValue;

use super::AuthorError;

const SPEC: &str = "\"pantavisor-service-system@1\"";

/// A revision in the making.
pub(super) struct Working {
    path: PathBuf,
    keys: BTreeMap<String, Box<RawValue>>,
    /// Whether the manifest had problems before any change.
    was_rejected: bool,
}

impl Working {
    /// Makes a new folder, empty or from a bundle.
    pub(super) fn create(path: &Path, from: Option<&Path>) -> Result<Self, AuthorError> {
        let unwritable = |source| AuthorError::Write {
            path: path.to_owned(),
            source,
        };
        if path.join("manifest.json").exists() {
            return Err(AuthorError::Exists {
                path: path.to_owned(),
            });
        }
        let bundle = from.map(Bundle::open).transpose()?;
        let objects = path.join("objects");
        std::fs::create_dir_all(&objects).map_err(unwritable)?;
        let bytes = match &bundle {
            None => format!("{{\"#spec\":{SPEC}}}").into_bytes(),
            Some(bundle) => {
                let all: BTreeSet<ObjectId> = bundle.manifest().objects().into_keys().collect();
                let files = bundle.unpack(&all, &objects)?;
                for (object, file) in files {
                    let target = objects.join(object.to_string());
                    if file != target {
                        super::image::add_file(&file, &objects)?;
                    }
                }
                bundle.manifest().bytes().to_vec()
            }
        };
        replace(&path.join("manifest.json"), &bytes)?;
        Self::open(path)
    }

    /// Opens a folder.
    pub(super) fn open(path: &Path) -> Result<Self, AuthorError> {
        let file = path.join("manifest.json");
        let bytes = std::fs::read(&file).map_err(|source| AuthorError::NoWorking {
            path: path.to_owned(),
            source,
        })?;
        let was_rejected = Manifest::parse(&bytes).is_err();
        let keys = serde_json::from_slice(&bytes)
            .map_err(|source| AuthorError::BadJson { path: file, source })?;
        Ok(Self {
            path: path.to_owned(),
            keys,
            was_rejected,
        })
    }

    /// Where its objects are.
    pub(super) fn objects(&self) -> PathBuf {
        self.path.join("objects")
    }

    /// The exact text of a key's value.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.keys.get(key).map(|text| text.get())
    }

    /// Sets a key to an object.
    pub(super) fn set_object(&mut self, key: String, object: ObjectId) {
        let text = RawValue::from_string(format!("\"{object}\"")).expect("hex in quotes is JSON");
        self.keys.insert(key, text);
    }

    /// Sets a key to inline JSON.
    pub(super) fn set_inline(&mut self, key: String, value: &serde_json::Value) {
        let text = RawValue::from_string(value.to_string()).expect("a value's text is JSON");
        self.keys.insert(key, text);
    }

    /// Sets a key to the exact text of inline JSON.
    pub(super) fn set_text(&mut self, key: String, text: Box<RawValue>) {
        self.keys.insert(key, text);
    }

    /// Removes a key; whether it was there.
    pub(super) fn remove(&mut self, key: &str) -> bool {
        self.keys.remove(key).is_some()
    }

    /// Removes every key below a folder; how many there were.
    pub(super) fn remove_below(&mut self, folder: &str) -> usize {
        let prefix = format!("{folder}/");
        let before = self.keys.len();
        self.keys.retain(|key, _| !key.starts_with(&prefix));
        before - self.keys.len()
    }

    /// Whether there is this container.
    pub(super) fn has_container(&self, name: &str) -> bool {
        self.keys.contains_key(&format!("{name}/run.json"))
    }

    /// Whether the manifest names groups of its own.
    pub(super) fn has_groups(&self) -> bool {
        ["device.json", "groups.json"]
            .iter()
            .any(|key| self.keys.contains_key(*key))
    }

    /// Checks and writes, and drops objects that nothing names any more. A manifest that was right is never replaced by
    /// one that is not.
    pub(super) fn save(&self) -> Result<(), AuthorError> {
        let text = serde_json::to_string(&self.keys).expect("texts and JSON are JSON");
        match Manifest::parse(text.as_bytes()) {
            Ok(manifest) => {
                replace(&self.path.join("manifest.json"), text.as_bytes())?;
                self.drop_unnamed(&manifest)
            }
            Err(_) if self.was_rejected => {
                replace(&self.path.join("manifest.json"), text.as_bytes())
            }
            Err(rejected) => Err(AuthorError::Rejected(rejected)),
        }
    }

    fn drop_unnamed(&self, manifest: &Manifest) -> Result<(), AuthorError> {
        let needed = manifest.objects();
        let objects = self.objects();
        let unreadable = |source| AuthorError::Read {
            path: objects.clone(),
            source,
        };
        for entry in std::fs::read_dir(&objects).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let object = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<ObjectId>().ok());
            if object.is_some_and(|object| !needed.contains_key(&object)) {
                std::fs::remove_file(entry.path()).map_err(|source| AuthorError::Write {
                    path: entry.path(),
                    source,
                })?;
            }
        }
        Ok(())
    }
}

/// Everything that is wrong with a bundle, a working folder or a manifest's file.
pub(super) fn check(path: &Path) -> Result<Manifest, AuthorError> {
    let is_text = path.is_file() && path.extension().is_some_and(|ending| ending == "json");
    if is_text {
        let bytes = std::fs::read(path).map_err(|source| AuthorError::Read {
            path: path.to_owned(),
            source,
        })?;
        return Manifest::parse(&bytes).map_err(AuthorError::Rejected);
    }
    let bundle = match Bundle::open(path) {
        Err(BundleError::Manifest { source, .. }) => return Err(AuthorError::Rejected(source)),
        other => other?,
    };
    let scratch = scratch_beside(path)?;
    let all: BTreeSet<ObjectId> = bundle.manifest().objects().into_keys().collect();
    bundle.unpack(&all, scratch.path())?;
    Ok(bundle.manifest().clone())
}

/// A scratch folder in the temporary folder (`TMPDIR`).
pub(super) fn scratch_beside(path: &Path) -> Result<tempfile::TempDir, AuthorError> {
    tempfile::Builder::new()
        .prefix("coxctl-")
        .tempdir()
        .map_err(|source| AuthorError::Write {
            path: path.to_owned(),
            source,
        })
}

/// Writes a bundle.
pub(super) fn export(path: &Path, out: &Path, packing: Packing) -> Result<Manifest, AuthorError> {
    let bundle = match Bundle::open(path) {
        Err(BundleError::Manifest { source, .. }) => return Err(AuthorError::Rejected(source)),
        other => other?,
    };
    let scratch = scratch_beside(out)?;
    let all: BTreeSet<ObjectId> = bundle.manifest().objects().into_keys().collect();
    let files = bundle.unpack(&all, scratch.path())?;
    bundle::write(bundle.manifest(), &files, out, packing)?;
    Ok(bundle.manifest().clone())
}

/// What differs, a line each, by key.
pub(super) fn differences(one: &Manifest, other: &Manifest) -> Vec<String> {
    let keys: BTreeSet<_> = one.entries().keys().chain(other.entries().keys()).collect();
    let shown = |value: &Value| match value {
        Value::Object(object) => object.short(),
        Value::Inline(text) => format!("inline, {} bytes", text.len()),
    };
    keys.into_iter()
        .filter_map(
            |key| match (one.entries().get(key), other.entries().get(key)) {
                (Some(before), Some(after)) if before == after => None,
                (Some(before), Some(after)) => {
                    Some(format!("~ {key}  {} -> {}", shown(before), shown(after)))
                }
                (Some(before), None) => Some(format!("- {key}  {}", shown(before))),
                (None, Some(after)) => Some(format!("+ {key}  {}", shown(after))),
                (None, None) => None,
            },
        )
        .collect()
}

/// Replaces a file as a whole.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), AuthorError> {
    let unwritable = |source| AuthorError::Write {
        path: path.to_owned(),
        source,
    };
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(unwritable)?;
    file.write_all(bytes).map_err(unwritable)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(mode).map_err(unwritable)?;
    file.persist(path)
        .map_err(|error| unwritable(error.error))?;
    Ok(())
}
