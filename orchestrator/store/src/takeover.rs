//! A storage as Pantavisor leaves it: recognised, and taken over where it lies.
//!
//! The layout is the same, so revisions, objects, volumes and progress stay untouched. What is taken out of Pantavisor's files: which
//! revision is committed and which one is tried (its boot loader's variables), and metadata. Nothing of Pantavisor's is changed or
//! removed here, so its own revision runs again when the boot loader goes back to it. The marker is what makes a storage ours; it is
//! written last, by the caller, and until then all of this may be done again.

use std::path::{Path, PathBuf};

use model::marker::Trial;
use model::metadata::{MetaKey, MetaKind};
use model::{Marker, RevisionId, limits};
use serde::{Deserialize, Serialize};

use crate::disk::{Disk, EntryKind};
use crate::{Failed, Store, absent, explain, failed, layout};

/// Variables of its boot loaders, where they are files of the storage.
const VARIABLES: [&str; 2] = ["boot/uboot.txt", "boot/grubenv"];
/// Bytes of these; it writes 64 KiB.
const VARIABLES_BYTES_MAX: usize = 256 << 10;
/// Bytes of our own record.
const RECORD_BYTES_MAX: usize = 4 << 10;
/// Metadata that it publishes by itself, which would only be old.
const OWN_META: [&str; 4] = ["interfaces", "storage", "sysinfo", "time"];
/// The same, by the beginning of the key.
const OWN_META_PREFIXES: [&str; 2] = ["pantavisor.", "pantahub."];

/// What Pantavisor's files say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pantavisor {
    /// Its committed revision (`pv_rev`).
    pub committed: Option<RevisionId>,
    /// The one that it tries (`pv_try`).
    pub trial: Option<RevisionId>,
    /// What is odd, in words.
    pub odd: Vec<String>,
}

/// Which takeover the marker is of, until a revision is committed here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TakeoverRecord {
    version: u32,
    /// The revision by which Coxswain came.
    pub trial: Option<RevisionId>,
}

impl TakeoverRecord {
    /// A takeover by this revision.
    pub fn new(trial: Option<RevisionId>) -> Self {
        Self { version: 1, trial }
    }

    /// Whether Pantavisor has had the device since that marker was written: nothing was committed here, and the machine runs a
    /// revision that the marker does not know.
    pub fn is_stale(&self, marker: &Marker, booted: Option<&RevisionId>) -> bool {
        let committed_here = self.trial.is_some() && marker.committed == self.trial;
        let knows = |booted| marker.revisions().any(|named| named == booted);
        !committed_here && booted.is_some_and(|booted| !knows(booted))
    }
}

impl Pantavisor {
    /// The marker with which the device goes on: what it has committed stays so, what came by its trial is tried.
    pub fn marker(&self, booted: Option<&RevisionId>, tries: u32) -> Marker {
        let trial = match (booted, &self.trial) {
            // The boot loader has started it: this is the one try that it gives.
            (Some(booted), trial) if Some(booted) != self.committed.as_ref() => trial
                .as_ref()
                .filter(|trial| *trial == booted)
                .or(Some(booted)),
            // It fell back from the trial.
            (Some(_), _) => None,
            (None, trial) => trial.as_ref(),
        };
        let trial = trial.filter(|trial| Some(*trial) != self.committed.as_ref());
        Marker {
            committed: self.committed.clone(),
            trial: trial.map(|revision| Trial {
                revision: revision.clone(),
                tries_left: tries.max(1),
                by_reboot: booted.is_some(),
            }),
            ..Marker::default()
        }
    }
}

/// Looks for Pantavisor's files; `None` when it has never had this storage. Changes nothing.
///
/// # Errors
/// The disk failed.
pub(crate) fn find<D: Disk>(disk: &D) -> Result<Option<Pantavisor>, Failed> {
    let mut found = Pantavisor::default();
    let mut is_there = false;
    for path in VARIABLES.map(Path::new) {
        let bytes = absent(disk.read(path, VARIABLES_BYTES_MAX)).map_err(failed("read", path))?;
        let Some(bytes) = bytes else { continue };
        let committed = found.variable(path, &bytes, "pv_rev");
        let trial = found.variable(path, &bytes, "pv_try");
        is_there |= committed.is_some();
        if found.committed.is_none() {
            (found.committed, found.trial) = (committed, trial);
        }
    }
    for path in [".pvmounted", "config/pantahub.config"].map(Path::new) {
        is_there |= absent(disk.metadata(path))
            .map_err(failed("look at", path))?
            .is_some();
    }
    if !is_there {
        return Ok(None);
    }
    for (what, revision) in [
        ("pv_rev", &mut found.committed),
        ("pv_try", &mut found.trial),
    ] {
        let Some(named) = revision.take() else {
            continue;
        };
        let manifest = layout::manifest(&named);
        match absent(disk.metadata(&manifest)).map_err(failed("look at", &manifest))? {
            Some(_) => *revision = Some(named),
            None => found
                .odd
                .push(format!("{what} names revision {named}, which is not there")),
        }
    }
    Ok(Some(found))
}

impl Pantavisor {
    fn variable(&mut self, path: &Path, bytes: &[u8], name: &str) -> Option<RevisionId> {
        let mut entries = bytes.split(|byte| matches!(byte, 0 | b'\n'));
        let value =
            entries.find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
        let text = String::from_utf8_lossy(value);
        if text.is_empty() {
            return None;
        }
        // A boot loader keeps a name with a slash in it as it is, or as one word.
        let parsed = text.parse().ok();
        if parsed.is_none() {
            let path = path.display();
            self.odd
                .push(format!("{path}: {name} is {text:?}, which is no revision"));
        }
        parsed
    }
}

impl<D: Disk> Store<D> {
    /// What Pantavisor's files say; `None` when it has never had this storage.
    ///
    /// # Errors
    /// The disk failed.
    pub fn pantavisor(&self) -> Result<Option<Pantavisor>, Failed> {
        find(&self.inner.disk)
    }

    /// The takeover that the marker is of, when there was one.
    ///
    /// # Errors
    /// The disk failed.
    pub fn takeover(&self) -> Result<Option<TakeoverRecord>, Failed> {
        let bytes = self
            .inner
            .read(Path::new(layout::TAKEOVER), RECORD_BYTES_MAX)?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// Remembers, durably, which takeover the marker that is written next is of.
    ///
    /// # Errors
    /// The disk failed: it is the old record or the new one.
    pub fn set_takeover(&self, record: &TakeoverRecord) -> Result<(), Failed> {
        let bytes = serde_json::to_vec(record).expect("names and numbers always serialise");
        self.inner.replace(Path::new(layout::TAKEOVER), &bytes)
    }

    /// Copies metadata that Pantavisor keeps into ours, as far as there is no value of that key already. What could not be copied is
    /// told and stays where it is.
    ///
    /// # Errors
    /// The disk failed; what was copied until then is copied.
    pub fn import_metadata(&self) -> Result<Vec<String>, Failed> {
        let mut odd = Vec::new();
        for (folder, kind) in [
            ("cache/usrmeta", MetaKind::User),
            ("cache/meta", MetaKind::User),
            ("cache/devmeta", MetaKind::Device),
        ] {
            self.import_folder(Path::new(folder), kind, &mut odd)?;
        }
        Ok(odd)
    }

    fn import_folder(
        &self,
        folder: &Path,
        kind: MetaKind,
        odd: &mut Vec<String>,
    ) -> Result<(), Failed> {
        let known = self.load_meta(kind)?;
        let mut files: Vec<(u64, String, PathBuf)> = Vec::new();
        for entry in self.inner.list(folder)? {
            let path = folder.join(&entry.name);
            if entry.kind != EntryKind::File {
                odd.push(format!(
                    "{} is no file and was left where it is",
                    path.display()
                ));
                continue;
            }
            let modified = self
                .inner
                .metadata_of(&path)?
                .map_or(0, |file| file.modified_ms);
            files.push((modified, entry.name, path));
        }
        // The oldest first: what is put last is shown first.
        files.sort();
        for (_, name, path) in files {
            let own = OWN_META.contains(&name.as_str())
                || OWN_META_PREFIXES.iter().any(|own| name.starts_with(own));
            if own && kind == MetaKind::Device {
                continue;
            }
            if let Err(problem) = self.import_key(kind, &name, &path, &known.entries) {
                odd.push(format!("{} was not taken over: {problem}", path.display()));
            }
        }
        Ok(())
    }

    fn import_key(
        &self,
        kind: MetaKind,
        name: &str,
        path: &Path,
        known: &[(MetaKey, Vec<u8>)],
    ) -> Result<(), String> {
        let key: MetaKey = name.parse().map_err(|_| "its name is no key".to_owned())?;
        if known.iter().any(|(known, _)| *known == key) {
            return Ok(());
        }
        let value = self.inner.read(path, limits::META_VALUE_BYTES_MAX);
        let value = value.map_err(|error| explain(&error))?.unwrap_or_default();
        self.put_meta(kind, &key, &value)
            .map_err(|error| explain(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> RevisionId {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_tried_and_what_is_gone_back_to() {
        // pv_rev, pv_try, booted; committed, trial, whether by a boot
        let rows = [
            (
                "0",
                "locals/c",
                "locals/c",
                Some("0"),
                Some("locals/c"),
                true,
            ),
            ("0", "", "locals/c", Some("0"), Some("locals/c"), true),
            ("0", "locals/c", "0", Some("0"), None, false),
            ("0", "", "0", Some("0"), None, false),
            ("", "", "locals/c", None, Some("locals/c"), true),
            // No boot loader of ours: the next start tries what Pantavisor would have tried.
            ("0", "locals/c", "", Some("0"), Some("locals/c"), false),
            ("0", "0", "", Some("0"), None, false),
            ("0", "", "", Some("0"), None, false),
            ("", "", "", None, None, false),
        ];
        for (rev, tried, booted, committed, trial, by_reboot) in rows {
            let found = Pantavisor {
                committed: rev.parse().ok(),
                trial: tried.parse().ok(),
                odd: Vec::new(),
            };
            let marker = found.marker(booted.parse().ok().as_ref(), 3);
            let row = (rev, tried, booted);
            assert_eq!(marker.committed, committed.map(id), "{row:?}");
            let expected = trial.map(|trial| Trial {
                revision: id(trial),
                tries_left: 3,
                by_reboot,
            });
            assert_eq!(marker.trial, expected, "{row:?}");
        }
    }

    #[test]
    fn a_marker_is_stale_when_pantavisor_had_the_device_since() {
        let record = TakeoverRecord::new(Some(id("locals/c")));
        let marker = |committed: &str| Marker {
            committed: committed.parse().ok(),
            ..Marker::default()
        };
        for (committed, booted, stale) in [
            ("0", "locals/d", true),
            ("0", "0", false),
            ("locals/c", "locals/d", false),
            ("0", "", false),
        ] {
            let booted = booted.parse().ok();
            assert_eq!(record.is_stale(&marker(committed), booted.as_ref()), stale);
        }
    }
}
