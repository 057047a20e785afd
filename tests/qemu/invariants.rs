//! What must hold of a storage after a power cut, read from the files themselves: the store's code has no part in it.
//!
//! Everything under a final name is whole; what was answered is there; the marker names only revisions that are whole; the revision to
//! boot is not older than the newest that was told to be done; no progress is behind what was told. Each violation is a line.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use acceptance::image::sha256;
use serde_json::Value;

use crate::ledger::{Ledger, Place, Revision, rank};

/// What was found on a storage.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// What must not be.
    pub(crate) violations: Vec<String>,
    /// The marker's revision to boot.
    pub(crate) committed: Option<String>,
    /// The marker's trial.
    pub(crate) trial: Option<String>,
    /// The marker's number.
    pub(crate) sequence: u64,
    /// Each revision with its status.
    pub(crate) progress: Vec<(String, String)>,
}

impl Findings {
    fn must(&mut self, holds: bool, told: impl FnOnce() -> String) {
        if !holds {
            self.violations.push(told());
        }
    }

    /// What is wrong when the disk goes on from an earlier state to this one.
    pub(crate) fn after(&self, earlier: &Self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.sequence < earlier.sequence {
            wrong.push(format!(
                "the marker went back from number {} to {}",
                earlier.sequence, self.sequence
            ));
        }
        for (name, before) in &earlier.progress {
            let now = self.progress.iter().find(|(known, _)| known == name);
            if let Some((_, now)) = now
                && now != before
                && (rank(before) == Some(6) || rank(now) < rank(before))
            {
                wrong.push(format!("{name} went back from {before} to {now}"));
            }
        }
        wrong
    }
}

/// When a tree is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// Right after the cut.
    AtOnce,
    /// After one more start: what was only leased may have been collected since.
    Later,
}

/// Looks at a tree after the power was cut at a place in time.
pub(crate) fn inspect(root: &Path, ledger: &Ledger, at: Place, when: When) -> Findings {
    let mut findings = Findings::default();
    objects(root, ledger, at, when, &mut findings);
    revisions(root, ledger, at, &mut findings);
    marker(root, ledger, at, &mut findings);
    metadata(root, ledger, at, &mut findings);
    claims(root, ledger, at, when, &mut findings);
    failures(root, ledger, at, &mut findings);
    findings
}

/// A file, `None` when there is none.
fn read(path: &Path, findings: &mut Findings) -> Option<Vec<u8>> {
    match fs::read(path) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            let line = format!("{} cannot be read: {error}", path.display());
            findings.violations.push(line);
            None
        }
    }
}

/// Names in a folder, without what is temporary; none when it is not there.
fn names(folder: &Path, findings: &mut Findings) -> Vec<String> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            let line = format!("{} cannot be listed: {error}", folder.display());
            findings.violations.push(line);
            return Vec::new();
        }
    };
    let mut names = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) => names.push(entry.file_name().to_string_lossy().into_owned()),
            Err(error) => findings.violations.push(format!(
                "{} cannot be listed to its end: {error}",
                folder.display()
            )),
        }
    }
    names.retain(|name| !name.starts_with(".pv-"));
    names.sort_unstable();
    names
}

fn objects(root: &Path, ledger: &Ledger, at: Place, when: When, findings: &mut Findings) {
    let folder = root.join("objects");
    let found = names(&folder, findings);
    for name in found.iter().filter(|name| !name.starts_with('.')) {
        let bytes = read(&folder.join(name), findings).unwrap_or_default();
        match ledger.known_object(name) {
            // To be equal to what was sent is to have the hash.
            Some(known) => findings.must(known.bytes == bytes, || {
                format!("object {name} is not what its name says")
            }),
            None => findings.must(false, || format!("object {name} was never sent")),
        }
    }
    let quarantine = names(&folder.join(".quarantine"), findings);
    findings.must(quarantine.is_empty(), || {
        format!("in quarantine: {quarantine:?}")
    });
    let leased = (when == When::AtOnce).then(|| ledger.objects_due(at));
    for name in leased.into_iter().flatten() {
        findings.must(found.binary_search(name).is_ok(), || {
            format!("object {name} was answered and is not there")
        });
    }
}

fn revisions(root: &Path, ledger: &Ledger, at: Place, findings: &mut Findings) {
    let trails = root.join("trails");
    let mut found: Vec<String> = names(&trails, findings);
    found.retain(|name| !["current", "locals"].contains(&name.as_str()));
    let locals = names(&trails.join("locals"), findings);
    found.extend(locals.into_iter().map(|name| format!("locals/{name}")));
    for name in &found {
        match ledger.revision(name) {
            Some(known) => revision(&trails.join(name), name, known, at, findings),
            None => findings.must(false, || format!("revision {name} was never put")),
        }
    }
    for (name, revision) in ledger.revisions_due(at) {
        findings.must(found.contains(name), || {
            format!("revision {name} was answered and is not there")
        });
        // What is there was compared with what was sent.
        for object in &revision.objects {
            findings.must(root.join("objects").join(object).is_file(), || {
                format!("object {object} of {name} is not there")
            });
        }
    }
    match fs::read_link(trails.join("current")) {
        Ok(target) => {
            let name = target.to_string_lossy().into_owned();
            findings.must(found.contains(&name), || {
                format!("current names {name}, which is not there")
            });
        }
        Err(error) => findings.must(error.kind() == io::ErrorKind::NotFound, || {
            format!("current cannot be read: {error}")
        }),
    }
}

fn revision(folder: &Path, name: &str, known: &Revision, at: Place, findings: &mut Findings) {
    let manifest = read(&folder.join(".pvr/json"), findings);
    findings.must(manifest.as_ref() == Some(&known.manifest), || {
        format!("the manifest of {name} is not what was put")
    });
    if let Some(digest) = read(&folder.join(".pvr/json.sha256"), findings) {
        let digest = String::from_utf8_lossy(&digest).trim().to_owned();
        findings.must(digest == known.digest, || {
            format!("the digest of {name} is {digest:?}")
        });
    } else {
        // The factory's revision comes without one.
        findings.must(known.number == 0, || format!("{name} has no digest"));
    }
    match read(&folder.join(".pv/commitmsg"), findings) {
        Some(message) => findings.must(message == format!("message of {name}").as_bytes(), || {
            format!("the message of {name} is another one")
        }),
        None => findings.must(!known.has_message(at), || {
            format!("the message of {name} was answered and is not there")
        }),
    }
    let told = known.told(at);
    let Some(bytes) = read(&folder.join(".pv/progress"), findings) else {
        findings.must(told.is_none() && known.number == 0, || {
            format!("{name} has no progress, told was {told:?}")
        });
        return;
    };
    let progress: Option<Value> = serde_json::from_slice(&bytes).ok();
    let status = progress.and_then(|progress| Some(progress["status"].as_str()?.to_owned()));
    let Some(status) = status else {
        findings.must(false, || format!("the progress of {name} is torn"));
        return;
    };
    if let Some(told) = told {
        let behind = rank(&status) < rank(told) || (rank(told) == Some(6) && status != told);
        findings.must(!behind, || {
            format!("{name} was told to be {told} and is {status}")
        });
    }
    findings.progress.push((name.to_owned(), status));
}

/// A marker's file: its number and itself.
fn marker_in(path: &Path, findings: &mut Findings) -> Option<(u64, Value)> {
    let bytes = read(path, findings)?;
    let text = String::from_utf8_lossy(&bytes);
    let whole = || {
        let (head, rest) = text.split_once("\"marker\":")?;
        let inner = rest.strip_suffix("}\n")?;
        let digest = head.split_once("\"sha256\":\"")?.1.get(..64)?;
        let value: Value = serde_json::from_str(inner).ok()?;
        let is_whole = sha256(inner.as_bytes()) == digest;
        is_whole.then_some((value["sequence"].as_u64()?, value))
    };
    let found = whole();
    findings.must(found.is_some(), || {
        format!("{} is torn: {text:?}", path.display())
    });
    found
}

fn marker(root: &Path, ledger: &Ledger, at: Place, findings: &mut Findings) {
    let mut found: Vec<(u64, Value)> = Vec::new();
    for name in ["boot/marker", "boot/marker.copy"] {
        found.extend(marker_in(&root.join(name), findings));
    }
    let newest = found.into_iter().max_by_key(|(sequence, _)| *sequence);
    if let Some((sequence, marker)) = newest {
        let named = |value: &Value| value.as_str().map(str::to_owned);
        findings.sequence = sequence;
        findings.committed = named(&marker["committed"]);
        findings.trial = named(&marker["trial"]["revision"]);
        let previous = named(&marker["previous"]);
        for (role, name) in [
            ("to boot", findings.committed.clone()),
            ("before", previous),
            ("being tried", findings.trial.clone()),
        ] {
            if let Some(name) = name {
                named_by_marker(root, ledger, role, &name, findings);
            }
        }
        let committed = findings.committed.clone();
        let healthy = committed.and_then(|name| ledger.revision(&name));
        findings.must(!healthy.is_some_and(|one| one.sick), || {
            "a revision that never was healthy is committed".to_owned()
        });
    }
    let due = ledger.committed(at);
    if let Some((name, due)) = due {
        let committed = findings.committed.clone();
        let number = committed.as_ref().and_then(|name| ledger.revision(name));
        findings.must(number.is_some_and(|one| one.number >= due.number), || {
            format!("{name} was told to be done and {committed:?} is to boot")
        });
    } else if let Some(factory) = ledger.revision("0") {
        named_by_marker(root, ledger, "of the factory", "0", findings);
        findings.must(factory.may_run(), || "the factory's may run".to_owned());
    }
}

/// What the marker names is whole.
fn named_by_marker(root: &Path, ledger: &Ledger, role: &str, name: &str, findings: &mut Findings) {
    let Some(known) = ledger.revision(name) else {
        findings.must(false, || {
            format!("the revision {role}, {name}, was never put")
        });
        return;
    };
    findings.must(known.may_run(), || {
        format!("the revision {role}, {name}, was never asked to run")
    });
    let manifest = read(&root.join("trails").join(name).join(".pvr/json"), findings);
    findings.must(manifest.as_ref() == Some(&known.manifest), || {
        format!("the revision {role}, {name}, is not whole")
    });
    // What is there was compared with what was sent.
    for object in &known.objects {
        findings.must(root.join("objects").join(object).is_file(), || {
            format!("object {object} of the revision {role}, {name}, is not there")
        });
    }
}

fn metadata(root: &Path, ledger: &Ledger, at: Place, findings: &mut Findings) {
    for (key, allowed) in ledger.values_due(at) {
        let path = root.join("meta").join(key);
        let value = read(&path, findings);
        let value = match &value {
            None => None,
            Some(bytes) => match value_in(bytes) {
                Some(value) => Some(value),
                None => {
                    findings.must(false, || format!("{} is torn", path.display()));
                    continue;
                }
            },
        };
        findings.must(allowed.contains(&value), || {
            let found =
                value.map(|bytes| String::from_utf8_lossy(bytes.get(..25).unwrap_or(bytes)));
            format!("{key} is {found:?}: neither what was answered nor what was asked for since")
        });
    }
}

/// A line of JSON with the hash of what follows, and what follows.
fn value_in(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let header: Value = serde_json::from_slice(&bytes[..end]).ok()?;
    let value = &bytes[end + 1..];
    (header["sha256"].as_str()? == sha256(value)).then_some(value)
}

fn claims(root: &Path, ledger: &Ledger, at: Place, when: When, findings: &mut Findings) {
    let path: PathBuf = root.join("boot/claims");
    let found = match read(&path, findings) {
        None => Vec::new(),
        Some(bytes) => match serde_json::from_slice::<Value>(&bytes) {
            Ok(kept) => {
                let claims = kept["claims"].as_array().cloned().unwrap_or_default();
                claims.iter().filter_map(|one| one["id"].as_u64()).collect()
            }
            Err(_) => {
                findings.must(false, || "the claims are torn".to_owned());
                return;
            }
        },
    };
    let starts = usize::from(when == When::Later);
    for id in ledger.claims_due(at, starts) {
        findings.must(found.contains(&id), || {
            format!("claim {id} was answered and is not there")
        });
    }
}

fn failures(root: &Path, ledger: &Ledger, at: Place, findings: &mut Findings) {
    let folder = root.join("failures");
    let mut records = Vec::new();
    for name in names(&folder, findings) {
        let bytes = read(&folder.join(&name), findings).unwrap_or_default();
        match serde_json::from_slice::<Value>(&bytes) {
            Ok(record) => records.push(record["revision"].as_str().unwrap_or_default().to_owned()),
            Err(_) => findings.must(false, || format!("failure record {name} is torn")),
        }
    }
    for name in ledger.failed(at) {
        findings.must(records.contains(name), || {
            format!("{name} was told to have failed, and there is no record of it")
        });
    }
}
