//! OCI image archives: an OCI layout (folder or tar) or what `docker save` writes, to a tree and an image configuration.
//!
//! Every blob is checked against the digest that names it, every layer against the image configuration. Members of the
//! archive are spooled to numbered scratch files: no name in an archive ever becomes a path.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use client::bundle::copy_hashed;
use flate2::bufread::MultiGzDecoder;
use model::{Key, ObjectId};
use serde::Deserialize;

use super::AuthorError;
use super::layers::{self, Flattening};
use super::tree::Tree;

/// Members of an image archive.
const MEMBERS_MAX: usize = 10_000;
/// Bytes of a JSON file in an image archive.
const JSON_BYTES_MAX: u64 = 4 << 20;
/// Layers of an image.
const LAYERS_MAX: usize = 500;
/// An index may name an index; deeper nesting has no use.
const INDEX_DEPTH_MAX: usize = 4;

/// An image.
pub(super) struct Image {
    pub(super) tree: Tree,
    /// The OCI image configuration, reduced to what running needs.
    pub(super) config: serde_json::Value,
}

/// Reads the image at `path`; `platform` (`linux/arm64`) chooses when there are several.
pub(super) fn read(
    path: &Path,
    platform: Option<&str>,
    scratch: &Path,
    keep_owners: bool,
) -> Result<Image, AuthorError> {
    let files = Files::open(path, scratch)?;
    let (config, layers) = if files.find("index.json").is_some() {
        of_layout(&files, platform)?
    } else if files.find("manifest.json").is_some() {
        of_docker(&files)?
    } else {
        return Err(AuthorError::NoImage {
            path: path.to_owned(),
        });
    };
    let config: ImageConfig = parse(&config, "the image configuration")?;
    if layers.len() > LAYERS_MAX {
        return Err(AuthorError::TooLarge { what: "500 layers" });
    }
    let hashes = config
        .rootfs
        .map(|rootfs| rootfs.diff_ids)
        .unwrap_or_default();
    if !hashes.is_empty() && hashes.len() != layers.len() {
        return Err(AuthorError::OddImage {
            reason: format!(
                "it has {} layers, its configuration names {}",
                layers.len(),
                hashes.len()
            ),
        });
    }
    let mut flattening = Flattening::new(scratch, keep_owners)?;
    for (number, layer) in layers.iter().enumerate() {
        let expected = match hashes.get(number) {
            Some(digest) => Some(hash_of(digest)?),
            None => None,
        };
        flattening.add(layer, expected)?;
    }
    let mut reduced = serde_json::Map::new();
    for (name, value) in [("architecture", config.architecture), ("os", config.os)] {
        if let Some(value) = value {
            reduced.insert(name.to_owned(), value.into());
        }
    }
    let run = config.config.unwrap_or_default();
    reduced.insert("config".to_owned(), run.into());
    Ok(Image {
        tree: flattening.finish()?,
        config: reduced.into(),
    })
}

#[derive(Deserialize)]
struct ImageConfig {
    architecture: Option<String>,
    os: Option<String>,
    config: Option<serde_json::Map<String, serde_json::Value>>,
    rootfs: Option<RootFs>,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl Platform {
    fn matches(&self, wanted: &str) -> bool {
        let name = format!("{}/{}", self.os, self.architecture);
        let full = self
            .variant
            .as_ref()
            .map(|variant| format!("{name}/{variant}"));
        wanted == name || full.as_deref() == Some(wanted)
    }
}

/// An image manifest, or an index: what has layers is a manifest.
#[derive(Deserialize)]
struct ManifestOrIndex {
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    layers: Vec<String>,
}

fn of_layout(
    files: &Files,
    platform: Option<&str>,
) -> Result<(Vec<u8>, Vec<PathBuf>), AuthorError> {
    let index: Index = parse(&files.json("index.json")?, "index.json")?;
    let mut manifests = index.manifests;
    for _ in 0..INDEX_DEPTH_MAX {
        let chosen = choose(&manifests, platform)?;
        let bytes = files.blob_json(&chosen.digest)?;
        let found: ManifestOrIndex = parse(&bytes, &chosen.digest)?;
        if let Some(inner) = found.manifests {
            manifests = inner;
            continue;
        }
        let (Some(config), Some(layers)) = (found.config, found.layers) else {
            return Err(AuthorError::OddImage {
                reason: format!("{} is no image manifest", chosen.digest),
            });
        };
        let config = files.blob_json(&config.digest)?;
        let layers = layers.iter().map(|layer| files.blob(&layer.digest));
        return Ok((config, layers.collect::<Result<_, _>>()?));
    }
    Err(AuthorError::OddImage {
        reason: "its indexes are nested too deep".to_owned(),
    })
}

fn choose<'d>(
    manifests: &'d [Descriptor],
    platform: Option<&str>,
) -> Result<&'d Descriptor, AuthorError> {
    // Attestations stand beside images, and are none.
    let is_image = |descriptor: &&Descriptor| {
        let kind = descriptor
            .annotations
            .as_ref()
            .and_then(|all| all.get("vnd.docker.reference.type"));
        kind.is_none()
    };
    let images: Vec<&Descriptor> = manifests.iter().filter(is_image).collect();
    let wanted = images
        .iter()
        .filter(|descriptor| match (platform, &descriptor.platform) {
            (Some(wanted), Some(platform)) => platform.matches(wanted),
            (Some(_), None) => images.len() == 1,
            (None, _) => true,
        });
    let wanted: Vec<&Descriptor> = wanted.copied().collect();
    match wanted.as_slice() {
        [one] => Ok(one),
        _ => {
            let names = images
                .iter()
                .filter_map(|descriptor| descriptor.platform.as_ref());
            let names: Vec<String> = names
                .map(|platform| format!("{}/{}", platform.os, platform.architecture))
                .collect();
            Err(AuthorError::OddImage {
                reason: format!(
                    "it holds {} images that fit ({}); choose one with --platform",
                    wanted.len(),
                    names.join(", ")
                ),
            })
        }
    }
}

fn of_docker(files: &Files) -> Result<(Vec<u8>, Vec<PathBuf>), AuthorError> {
    let images: Vec<DockerImage> = parse(&files.json("manifest.json")?, "manifest.json")?;
    let [image] = images.as_slice() else {
        return Err(AuthorError::OddImage {
            reason: format!("it holds {} images; save one at a time", images.len()),
        });
    };
    let config = files.json(&image.config)?;
    let layers = image.layers.iter().map(|layer| files.need(layer));
    Ok((config, layers.collect::<Result<_, _>>()?))
}

fn parse<'b, T: Deserialize<'b>>(bytes: &'b [u8], what: &str) -> Result<T, AuthorError> {
    serde_json::from_slice(bytes).map_err(|error| AuthorError::OddImage {
        reason: format!("{what} cannot be read: {error}"),
    })
}

fn hash_of(digest: &str) -> Result<ObjectId, AuthorError> {
    let hash = digest
        .strip_prefix("sha256:")
        .and_then(|hash| hash.parse().ok());
    hash.ok_or_else(|| AuthorError::OddImage {
        reason: format!("{digest:?} is no sha256 digest"),
    })
}

/// The files of an image archive, by name.
enum Files {
    Folder(PathBuf),
    Spooled(BTreeMap<String, PathBuf>),
}

impl Files {
    fn open(path: &Path, scratch: &Path) -> Result<Self, AuthorError> {
        if path.is_dir() {
            return Ok(Self::Folder(path.to_owned()));
        }
        let unreadable = |source| AuthorError::Read {
            path: path.to_owned(),
            source,
        };
        let mut file = BufReader::new(File::open(path).map_err(unreadable)?);
        let is_gzip = file
            .fill_buf()
            .map_err(unreadable)?
            .starts_with(&[0x1f, 0x8b]);
        let plain: Box<dyn Read> = if is_gzip {
            Box::new(MultiGzDecoder::new(file))
        } else {
            Box::new(file)
        };
        let mut archive = tar::Archive::new(plain.take(layers::BYTES_MAX));
        let mut files = BTreeMap::new();
        let mut links = Vec::new();
        for (number, member) in archive.entries().map_err(unreadable)?.raw(true).enumerate() {
            let mut member = member.map_err(unreadable)?;
            if number >= MEMBERS_MAX {
                return Err(AuthorError::TooLarge {
                    what: "10,000 members",
                });
            }
            let name = String::from_utf8_lossy(&member.path_bytes()).into_owned();
            let name = name.strip_prefix("./").unwrap_or(&name).to_owned();
            if member.header().entry_type().is_file() {
                let target = scratch.join(format!("member-{number}"));
                let mut out = File::create(&target).map_err(|source| AuthorError::Write {
                    path: target.clone(),
                    source,
                })?;
                io::copy(&mut member, &mut out).map_err(unreadable)?;
                files.insert(name, target);
            } else if member.header().entry_type().is_symlink() {
                // Old versions of Docker save a layer that is there twice as a link to the first.
                let link = member
                    .link_name_bytes()
                    .map(|link| String::from_utf8_lossy(&link).into_owned());
                links.push((name, link.unwrap_or_default()));
            }
        }
        for (name, link) in links {
            let target = link.rsplit("../").next().unwrap_or_default();
            if let Some(file) = files.get(target).cloned() {
                files.insert(name, file);
            }
        }
        Ok(Self::Spooled(files))
    }

    fn find(&self, name: &str) -> Option<PathBuf> {
        match self {
            Self::Folder(root) => {
                let name: Key = name.parse().ok()?;
                let path = root.join(name.as_str());
                path.is_file().then_some(path)
            }
            Self::Spooled(files) => files.get(name).cloned(),
        }
    }

    fn need(&self, name: &str) -> Result<PathBuf, AuthorError> {
        self.find(name).ok_or_else(|| AuthorError::OddImage {
            reason: format!("{name:?} is not in it; is the archive complete?"),
        })
    }

    fn json(&self, name: &str) -> Result<Vec<u8>, AuthorError> {
        read_json(&self.need(name)?)
    }

    /// The file of a blob, checked against its digest.
    fn blob(&self, digest: &str) -> Result<PathBuf, AuthorError> {
        let hash = hash_of(digest)?;
        let path = self.need(&format!("blobs/sha256/{hash}"))?;
        let unreadable = |source| AuthorError::Read {
            path: path.clone(),
            source,
        };
        let mut file = File::open(&path).map_err(unreadable)?;
        let found = copy_hashed(&mut file, &mut io::sink()).map_err(unreadable)?;
        if found != hash {
            return Err(AuthorError::OddImage {
                reason: format!("blob {hash} is corrupt: its bytes have the hash {found}"),
            });
        }
        Ok(path)
    }

    fn blob_json(&self, digest: &str) -> Result<Vec<u8>, AuthorError> {
        read_json(&self.blob(digest)?)
    }
}

fn read_json(path: &Path) -> Result<Vec<u8>, AuthorError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(JSON_BYTES_MAX).read_to_end(&mut bytes))
        .map_err(|source| AuthorError::Read {
            path: path.to_owned(),
            source,
        })?;
    Ok(bytes)
}
