//! `coxctl revision`: making revisions on a developer's machine, without a device and without root.
//!
//! Everything works on a working folder (`manifest.json` and `objects/`), which `coxctl install` takes as it is and `export`
//! turns into a single file. Images are built by this program alone, so the same input gives the same hash anywhere.

mod container;
mod image;
mod layers;
mod oci_image;
mod payload;
#[cfg(test)]
mod tests;
mod tree;
mod verity;
mod working;

use std::io;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use client::BundleError;
use client::bundle::Packing;
use model::manifest::Rejected;
use model::{Manifest, ObjectId};

pub(crate) use payload::PayloadCommand;
use working::Working;

use crate::failure::{Exit, Failure};
use crate::install;

/// What can be done with a revision in the making.
#[derive(Debug, Subcommand)]
pub(crate) enum RevisionCommand {
    /// Make a working folder, empty or from a bundle or another folder.
    New {
        /// The folder to make.
        dir: PathBuf,
        /// A bundle, or a working folder, to start from.
        #[arg(long, value_name = "BUNDLE")]
        from: Option<PathBuf>,
    },
    /// Add a container from a folder or an OCI image.
    AddContainer(Box<container::AddContainer>),
    /// Remove a container, with what is laid over it.
    RemoveContainer {
        /// The working folder.
        dir: PathBuf,
        /// Name of the container.
        name: String,
    },
    /// Lay a file over a container's root file system.
    SetConfig {
        /// The working folder.
        dir: PathBuf,
        /// Name of the container.
        name: String,
        /// Where it appears in the container, such as /etc/web.conf.
        path: String,
        /// The file; without it, what was laid there is removed.
        file: Option<PathBuf>,
    },
    /// Set any key of the manifest: inline JSON when the key ends in .json, else an object.
    Set {
        /// The working folder.
        dir: PathBuf,
        /// The key, such as device.json or bsp/kernel.img.
        key: String,
        /// The file; without it, the key is removed.
        file: Option<PathBuf>,
    },
    /// Give the root image of a container a tree of hashes: devices whose kernel has dm-verity check each block when it is read.
    Verity {
        /// The working folder.
        dir: PathBuf,
        /// Name of the container.
        name: String,
    },
    /// Say everything that is wrong with a working folder, a bundle or a manifest.
    Check {
        /// A working folder, a bundle, or a manifest (*.json).
        path: PathBuf,
    },
    /// Show what a revision consists of.
    Show {
        /// A working folder, a bundle, or a manifest (*.json).
        path: PathBuf,
    },
    /// Show what differs between two revisions.
    Diff {
        /// A working folder, a bundle, or a manifest (*.json).
        one: PathBuf,
        /// The other one.
        other: PathBuf,
    },
    /// Write a revision into one file, as `pvr export` does. The same revision gives the same bytes.
    Export {
        /// A working folder.
        dir: PathBuf,
        /// The file to write, *.tgz.
        out: PathBuf,
    },
    /// Make a working folder from a bundle.
    Import {
        /// The bundle.
        file: PathBuf,
        /// The folder to make.
        dir: PathBuf,
    },
}

/// Why authoring failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthorError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not a working folder.
    #[error(
        "{path} is no working folder (it has no manifest.json); make one with \"coxctl revision new {path}\""
    )]
    NoWorking {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is one already.
    #[error("{path} holds a revision already; remove it first or take another folder")]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// A root file system that is no folder.
    #[error("{path} is not a folder; --rootfs takes a folder, --oci an image archive")]
    NoFolder {
        /// The path.
        path: PathBuf,
    },
    /// JSON that is none.
    #[error("{path} is not valid JSON")]
    BadJson {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A name that is none.
    #[error(transparent)]
    Name(model::id::InvalidName),
    /// The container is there.
    #[error("there is a container {name} already; use --replace to replace it")]
    ContainerExists {
        /// Its name.
        name: String,
    },
    /// The container is not there.
    #[error("there is no container {name}; \"coxctl revision show\" lists them")]
    NoContainer {
        /// Its name.
        name: String,
    },
    /// The key is not there.
    #[error("there is no key {key}")]
    NoKey {
        /// The key.
        key: String,
    },
    /// What a payload was to be made of.
    #[error("{reason}")]
    NoPayload {
        /// What is missing.
        reason: String,
    },
    /// Neither folder nor image.
    #[error("give the root file system with --rootfs or --oci")]
    NoRoot,
    /// The manifest would have problems.
    #[error("the manifest has {} problem(s); nothing was changed", .0.total)]
    Rejected(Rejected),
    /// A bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The image could not be built.
    #[error("cannot build the squashfs image")]
    Image {
        /// Why.
        #[source]
        source: backhand::BackhandError,
    },
    /// The archive is no image.
    #[error(
        "{path} is no OCI image: it holds neither index.json nor manifest.json; make one with \"skopeo copy docker://IMAGE oci-archive:FILE\""
    )]
    NoImage {
        /// The archive.
        path: PathBuf,
    },
    /// The image is wrong.
    #[error("the OCI image is refused: {reason}")]
    OddImage {
        /// What is wrong.
        reason: String,
    },
    /// A layer cannot be read.
    #[error("a layer of the OCI image cannot be read; is the archive complete?")]
    Layer {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A layer has other bytes than the configuration says.
    #[error(
        "layer {layer} of the OCI image is corrupt: its bytes have the hash {found}, not {expected}"
    )]
    LayerHash {
        /// Which one, from 1.
        layer: usize,
        /// What was said.
        expected: ObjectId,
        /// What it is.
        found: ObjectId,
    },
    /// A layer in a compression that is not read.
    #[error(
        "a layer of the OCI image is compressed with zstd; convert it with \"skopeo copy --dest-compress-format gzip ...\""
    )]
    Zstd,
    /// A hostile or odd member.
    #[error("the OCI image is refused: {name:?}: {reason}")]
    BadMember {
        /// Its name.
        name: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// Over a limit.
    #[error("refused: more than {what}")]
    TooLarge {
        /// The limit.
        what: &'static str,
    },
}

/// The exit code and what to do are in the words of the whole program.
impl From<AuthorError> for Failure {
    fn from(error: AuthorError) -> Self {
        if let AuthorError::Bundle(bundle) = error {
            return install::bundle_failure(bundle);
        }
        let exit = match &error {
            AuthorError::Bundle(_) => Exit::Failed,
            AuthorError::Rejected(rejected) => {
                return install::rejected(error.to_string(), rejected);
            }
            AuthorError::Read { path, source } => return Self::file("read", path, source),
            AuthorError::Write { path, source } => return Self::file("write", path, source),
            AuthorError::NoWorking { .. }
            | AuthorError::NoContainer { .. }
            | AuthorError::NoKey { .. }
            | AuthorError::NoFolder { .. } => Exit::NotFound,
            AuthorError::Exists { .. } | AuthorError::ContainerExists { .. } => Exit::Refused,
            AuthorError::Name(_) | AuthorError::NoRoot | AuthorError::NoPayload { .. } => {
                Exit::Usage
            }
            AuthorError::BadJson { .. }
            | AuthorError::NoImage { .. }
            | AuthorError::OddImage { .. }
            | AuthorError::Layer { .. }
            | AuthorError::LayerHash { .. }
            | AuthorError::Zstd
            | AuthorError::BadMember { .. }
            | AuthorError::TooLarge { .. } => Exit::Unacceptable,
            AuthorError::Image { .. } => Exit::Failed,
        };
        let failure = Self::new(exit, error.to_string());
        match std::error::Error::source(&error) {
            Some(source) => failure.caused_by(source),
            None => failure,
        }
    }
}

impl RevisionCommand {
    /// Carries the command out; the lines are for people.
    pub(crate) fn run(self) -> Result<Vec<String>, AuthorError> {
        match self {
            Self::New { dir, from } => {
                Working::create(&dir, from.as_deref())?;
                Ok(vec![format!("made {}", dir.display())])
            }
            Self::AddContainer(add) => {
                let mut lines = add.run(image_time())?;
                lines.push(format!(
                    "container {} is in {}",
                    add.name,
                    add.dir.display()
                ));
                Ok(lines)
            }
            Self::RemoveContainer { dir, name } => remove_container(&dir, &name),
            Self::SetConfig {
                dir,
                name,
                path,
                file,
            } => {
                let key = format!("_config/{name}/{}", path.trim_start_matches('/'));
                let mut working = Working::open(&dir)?;
                if !working.has_container(&name) {
                    return Err(AuthorError::NoContainer { name });
                }
                set(&mut working, key, file.as_deref(), false)
            }
            Self::Set { dir, key, file } => {
                let is_inline = key.ends_with(".json");
                set(&mut Working::open(&dir)?, key, file.as_deref(), is_inline)
            }
            Self::Verity { dir, name } => verity::add(&dir, &name),
            Self::Check { path } => {
                let manifest = working::check(&path)?;
                Ok(vec![format!(
                    "{}: fine, {}",
                    path.display(),
                    summary(&manifest)
                )])
            }
            Self::Show { path } => Ok(show(&manifest_of(&path)?)),
            Self::Diff { one, other } => Ok(working::differences(
                &manifest_of(&one)?,
                &manifest_of(&other)?,
            )),
            Self::Export { dir, out } => {
                let manifest = working::export(&dir, &out, Packing::Gzip)?;
                Ok(vec![format!(
                    "wrote {}: {}",
                    out.display(),
                    summary(&manifest)
                )])
            }
            Self::Import { file, dir } => {
                Working::create(&dir, Some(&file))?;
                Ok(vec![format!("made {}", dir.display())])
            }
        }
    }
}

/// The time that images carry: SOURCE_DATE_EPOCH, else 0.
fn image_time() -> u32 {
    let given = std::env::var("SOURCE_DATE_EPOCH").ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn manifest_of(path: &Path) -> Result<Manifest, AuthorError> {
    if path.is_file() && path.extension().is_some_and(|ending| ending == "json") {
        return working::check(path);
    }
    match client::Bundle::open(path) {
        Ok(bundle) => Ok(bundle.manifest().clone()),
        Err(BundleError::Manifest { source, .. }) => Err(AuthorError::Rejected(source)),
        Err(error) => Err(error.into()),
    }
}

fn remove_container(dir: &Path, name: &str) -> Result<Vec<String>, AuthorError> {
    let mut working = Working::open(dir)?;
    if !working.has_container(name) {
        return Err(AuthorError::NoContainer {
            name: name.to_owned(),
        });
    }
    let keys = working.remove_below(name) + working.remove_below(&format!("_config/{name}"));
    // A signature over what is gone has nothing to say.
    working.remove(&format!("_sigs/{name}.json"));
    working.save()?;
    Ok(vec![format!("removed {name}: {keys} keys")])
}

fn set(
    working: &mut Working,
    key: String,
    file: Option<&Path>,
    is_inline: bool,
) -> Result<Vec<String>, AuthorError> {
    let Some(file) = file else {
        if !working.remove(&key) {
            return Err(AuthorError::NoKey { key });
        }
        working.save()?;
        return Ok(vec![format!("removed {key}")]);
    };
    if is_inline {
        let text = std::fs::read_to_string(file).map_err(|source| AuthorError::Read {
            path: file.to_owned(),
            source,
        })?;
        let text =
            serde_json::value::RawValue::from_string(text.trim().to_owned()).map_err(|source| {
                AuthorError::BadJson {
                    path: file.to_owned(),
                    source,
                }
            })?;
        working.set_text(key.clone(), text);
    } else {
        let object = image::add_file(file, &working.objects())?;
        working.set_object(key.clone(), object);
    }
    working.save()?;
    Ok(vec![format!("set {key}")])
}

fn summary(manifest: &Manifest) -> String {
    format!(
        "{} containers, {} keys, {} objects, {}",
        manifest.containers().count(),
        manifest.entries().len(),
        manifest.objects().len(),
        manifest.digest().short()
    )
}

fn show(manifest: &Manifest) -> Vec<String> {
    let mut lines = vec![summary(manifest)];
    for group in manifest.groups() {
        let members: Vec<_> = manifest
            .containers()
            .filter(|c| c.group == group.name)
            .collect();
        let seconds = group.timeout.as_secs();
        lines.push(format!(
            "group {} (goal {}, {seconds} s)",
            group.name, group.goal
        ));
        for container in members {
            let image = container.root.as_ref().map(|root| root.object.short());
            lines.push(format!(
                "  {}  goal {}, restart {}, image {}, fingerprint {}",
                container.name,
                container.goal,
                container.recovery.policy,
                image.as_deref().unwrap_or("none"),
                container.fingerprint.short()
            ));
        }
    }
    lines
}
