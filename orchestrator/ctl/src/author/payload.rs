//! `coxctl payload`: what is uploaded to a cloud, from a working folder or a bundle, in the forms that every cloud client
//! understands (cloud-clients/link/payloads.md). No cloud is spoken to: the files are uploaded by its own tools.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use client::Bundle;
use client::bundle::Packing;
use model::manifest::Value;
use model::{ContainerName, Manifest, ObjectId};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{AuthorError, manifest_of, working};

/// Which form.
#[derive(Debug, Subcommand)]
pub(crate) enum PayloadCommand {
    /// One file with a whole revision. A device fetches only the parts of it that it lacks.
    Bundle {
        /// A working folder, or a bundle.
        dir: PathBuf,
        /// The file to write: *.tar, or with --gzip *.tgz.
        out: PathBuf,
        /// Pack it: smaller where images are not packed already; a device then fetches all of it.
        #[arg(long)]
        gzip: bool,
    },
    /// The manifest and its objects as files of their own, named by their SHA-256.
    Separate {
        /// A working folder, or a bundle.
        dir: PathBuf,
        /// The folder to make.
        out: PathBuf,
        /// Leave out the objects of this revision, which all devices have.
        #[arg(long, value_name = "BUNDLE|DIR|FILE")]
        base: Option<PathBuf>,
    },
    /// Parts of a revision, to be merged into what each device runs.
    Patch {
        /// A working folder, or a bundle, with the new parts.
        dir: PathBuf,
        /// The folder to make.
        out: PathBuf,
        /// All that differs from this revision.
        #[arg(long, value_name = "BUNDLE|DIR|FILE")]
        base: Option<PathBuf>,
        /// This container as a whole, with its configuration; may be given again.
        #[arg(long = "container", value_name = "NAME", conflicts_with = "base")]
        containers: Vec<ContainerName>,
        /// Remove this container, folder or key from the devices; may be given again.
        #[arg(long, value_name = "NAME")]
        remove: Vec<String>,
    },
    /// The image of one container as a plain file, for devices with a rule for it.
    Plain {
        /// A working folder, or a bundle.
        dir: PathBuf,
        /// The folder to make.
        out: PathBuf,
        /// The container.
        container: ContainerName,
        /// Name of the file [default: the container's name and the ending of its image].
        #[arg(long, value_name = "FILE")]
        name: Option<String>,
    },
}

/// What was made.
#[derive(Debug, Serialize)]
pub(crate) struct Made {
    /// `bundle`, `separate`, `patch` or `plain`.
    form: &'static str,
    /// What is to be uploaded.
    files: Vec<Upload>,
    /// The rule that devices need (setting `map`), for a plain file.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
}

/// One file to upload.
#[derive(Debug, Serialize)]
struct Upload {
    /// Where it is.
    path: PathBuf,
    /// Its length.
    bytes: u64,
    /// Its SHA-256.
    sha256: ObjectId,
}

impl Made {
    /// For people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let files = self.files.iter().map(|file| {
            format!(
                "{}  {} bytes, sha256 {}",
                file.path.display(),
                file.bytes,
                file.sha256
            )
        });
        let rule = self
            .rule
            .iter()
            .map(|rule| format!("devices need the rule  map = \"{rule}\""));
        files.chain(rule).collect()
    }
}

impl PayloadCommand {
    /// Makes the files.
    pub(crate) fn run(self) -> Result<Made, AuthorError> {
        match self {
            Self::Bundle { dir, out, gzip } => {
                let packing = if gzip { Packing::Gzip } else { Packing::Plain };
                working::export(&dir, &out, packing)?;
                Ok(Made {
                    form: "bundle",
                    files: vec![upload(out)?],
                    rule: None,
                })
            }
            Self::Separate { dir, out, base } => separate(&dir, &out, base.as_deref()),
            Self::Patch {
                dir,
                out,
                base,
                containers,
                remove,
            } => patch(&dir, &out, base.as_deref(), &containers, remove),
            Self::Plain {
                dir,
                out,
                container,
                name,
            } => plain(&dir, &out, &container, name),
        }
    }
}

fn upload(path: PathBuf) -> Result<Upload, AuthorError> {
    let unreadable = |source| AuthorError::Read {
        path: path.clone(),
        source,
    };
    let mut file = std::fs::File::open(&path).map_err(unreadable)?;
    let bytes = file.metadata().map_err(unreadable)?.len();
    let sha256 =
        client::bundle::copy_hashed(&mut file, &mut std::io::sink()).map_err(unreadable)?;
    Ok(Upload {
        path,
        bytes,
        sha256,
    })
}

/// A new folder: files of an earlier payload must not be uploaded with this one.
fn folder(out: &Path) -> Result<(), AuthorError> {
    let unwritable = |source| AuthorError::Write {
        path: out.to_owned(),
        source,
    };
    std::fs::create_dir_all(out).map_err(unwritable)?;
    let mut there = std::fs::read_dir(out).map_err(unwritable)?;
    if there.next().is_some() {
        return Err(AuthorError::Exists {
            path: out.to_owned(),
        });
    }
    Ok(())
}

fn write(path: PathBuf, bytes: &[u8]) -> Result<Upload, AuthorError> {
    std::fs::write(&path, bytes).map_err(|source| AuthorError::Write {
        path: path.clone(),
        source,
    })?;
    upload(path)
}

/// Copies objects, verified, each under the name that `name` gives it.
fn copy(
    bundle: &Bundle,
    wanted: &BTreeSet<ObjectId>,
    out: &Path,
    name: impl Fn(ObjectId) -> String,
) -> Result<Vec<Upload>, AuthorError> {
    let scratch = working::scratch_beside(out)?;
    let files = bundle.unpack(wanted, scratch.path())?;
    let mut uploads = Vec::new();
    for (object, source) in files {
        let path = out.join(name(object));
        std::fs::copy(&source, &path).map_err(|source| AuthorError::Write {
            path: path.clone(),
            source,
        })?;
        uploads.push(upload(path)?);
    }
    Ok(uploads)
}

fn separate(dir: &Path, out: &Path, base: Option<&Path>) -> Result<Made, AuthorError> {
    let bundle = Bundle::open(dir)?;
    let mut wanted: BTreeSet<ObjectId> = bundle.manifest().objects().into_keys().collect();
    if let Some(base) = base {
        let base = manifest_of(base)?;
        wanted.retain(|object| !base.objects().contains_key(object));
    }
    folder(out)?;
    let mut files = vec![write(out.join("manifest.json"), bundle.manifest().bytes())?];
    files.extend(copy(&bundle, &wanted, out, |object| object.to_string())?);
    Ok(Made {
        form: "separate",
        files,
        rule: None,
    })
}

fn patch(
    dir: &Path,
    out: &Path,
    base: Option<&Path>,
    containers: &[ContainerName],
    mut remove: Vec<String>,
) -> Result<Made, AuthorError> {
    let bundle = Bundle::open(dir)?;
    let new = bundle.manifest();
    let mut keys: BTreeSet<String> = BTreeSet::new();
    let mut known = BTreeSet::new();
    if let Some(base) = base {
        let base = manifest_of(base)?;
        known = base.objects().into_keys().collect();
        for (key, value) in new.entries() {
            if base.entries().get(key) != Some(value) {
                keys.insert(key.to_string());
            }
        }
        let gone = base.entries().keys();
        let gone = gone.filter(|key| !new.entries().contains_key(*key));
        remove.extend(gone.map(ToString::to_string));
    }
    for container in containers {
        if new.container(container).is_none() {
            return Err(AuthorError::NoContainer {
                name: container.to_string(),
            });
        }
        let own = [format!("{container}/"), format!("_config/{container}/")];
        let signature = format!("_sigs/{container}.json");
        let of = |key: &str| own.iter().any(|own| key.starts_with(own)) || key == signature;
        let all = new.entries().keys().map(ToString::to_string);
        keys.extend(all.filter(|key| of(key)));
    }
    if keys.is_empty() && remove.is_empty() {
        let reason = "the patch would change nothing: give --base, --container or --remove";
        return Err(AuthorError::NoPayload {
            reason: reason.to_owned(),
        });
    }
    folder(out)?;
    let text = patch_text(new, &keys, containers, &remove);
    let mut files = vec![write(out.join("patch.json"), text.as_bytes())?];
    let wanted: BTreeSet<ObjectId> = new
        .entries()
        .iter()
        .filter(|(key, _)| keys.contains(key.as_str()))
        .filter_map(|(_, value)| match value {
            Value::Object(object) => Some(*object),
            Value::Inline(_) => None,
        })
        .filter(|object| !known.contains(object))
        .collect();
    files.extend(copy(&bundle, &wanted, out, |object| object.to_string())?);
    Ok(Made {
        form: "patch",
        files,
        rule: None,
    })
}

/// The patch, with the exact text of inline values.
fn patch_text(
    new: &Manifest,
    keys: &BTreeSet<String>,
    replace: &[ContainerName],
    remove: &[String],
) -> String {
    #[derive(Serialize)]
    struct Patch<'a> {
        #[serde(rename = "#spec")]
        spec: &'static str,
        #[serde(rename = "#replace", skip_serializing_if = "Vec::is_empty")]
        replace: Vec<&'a str>,
        #[serde(rename = "#remove", skip_serializing_if = "<[_]>::is_empty")]
        remove: &'a [String],
        #[serde(flatten)]
        keys: BTreeMap<&'a str, &'a RawValue>,
    }
    let texts: BTreeMap<String, Box<RawValue>> =
        serde_json::from_slice(new.bytes()).expect("a manifest that was parsed is a JSON object");
    let patch = Patch {
        spec: "coxswain-patch@1",
        replace: replace.iter().map(ContainerName::as_str).collect(),
        remove,
        keys: texts
            .iter()
            .filter(|(key, _)| keys.contains(*key))
            .map(|(key, text)| (key.as_str(), text.as_ref()))
            .collect(),
    };
    serde_json::to_string_pretty(&patch).expect("texts and JSON are JSON") + "\n"
}

fn plain(
    dir: &Path,
    out: &Path,
    container: &ContainerName,
    name: Option<String>,
) -> Result<Made, AuthorError> {
    let bundle = Bundle::open(dir)?;
    let found = bundle.manifest().container(container);
    let found = found.ok_or_else(|| AuthorError::NoContainer {
        name: container.to_string(),
    })?;
    let root = found.root.as_ref().ok_or_else(|| AuthorError::NoPayload {
        reason: format!("container {container} has no root image of one file"),
    })?;
    let object = root.object;
    let key = bundle
        .manifest()
        .entries()
        .iter()
        .find(|(key, value)| {
            key.as_str().starts_with(&format!("{container}/")) && **value == Value::Object(object)
        })
        .map(|(key, _)| key.to_string());
    let ending = key
        .as_deref()
        .and_then(|key| key.rsplit_once('.'))
        .map_or("img", |(_, ending)| ending);
    let name = name.unwrap_or_else(|| format!("{container}.{ending}"));
    if name.contains(['/', ',', '=', '*']) || name.contains(char::is_whitespace) {
        return Err(AuthorError::NoPayload {
            reason: format!(
                "{name:?} can be no FILE of a rule: use no '/', ',', '=', '*' or space"
            ),
        });
    }
    folder(out)?;
    let files = copy(&bundle, &BTreeSet::from([object]), out, |_| name.clone())?;
    Ok(Made {
        form: "plain",
        files,
        rule: Some(format!("{name}={container}")),
    })
}
