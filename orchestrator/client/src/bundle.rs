//! Bundles: a whole revision in one file, or in a working folder. The file is what `pvr export` writes and
//! `pvcontrol steps install` takes: a tar archive, gzip or plain, with `json` (the manifest, exact bytes) and `objects/<sha256>`.
//!
//! Reading trusts nothing: sizes are bounded, names are matched, never joined to a path, and an object is handed out only
//! after its bytes were hashed. Writing is reproducible: the same revision gives the same bytes. Everything here blocks;
//! asynchronous callers use `spawn_blocking`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use model::manifest::Rejected;
use model::{Manifest, ObjectId};
use sha2::Digest as _;

use crate::limits;

/// Why a bundle could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A file cannot be read.
    #[error("cannot read {path}: is it a bundle (tar.gz) and complete?")]
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
    /// No manifest.
    #[error(
        "{path} holds no manifest: a bundle has a member \"json\", a working folder a file manifest.json"
    )]
    NoManifest {
        /// The bundle.
        path: PathBuf,
    },
    /// The manifest is wrong.
    #[error("the manifest in {path} is refused")]
    Manifest {
        /// The bundle.
        path: PathBuf,
        /// Every problem.
        #[source]
        source: Rejected,
    },
    /// Bytes that do not have the hash that they are named by.
    #[error(
        "object {object} in {path} is corrupt: its bytes have the hash {found}; export it again"
    )]
    Corrupt {
        /// The bundle.
        path: PathBuf,
        /// The name.
        object: ObjectId,
        /// What the bytes are.
        found: ObjectId,
    },
    /// An object that is not there.
    #[error("object {object} (key {key}) is not in {path}; export it again, with all objects")]
    Missing {
        /// The bundle.
        path: PathBuf,
        /// The object.
        object: ObjectId,
        /// A key that needs it.
        key: String,
    },
    /// Over a limit.
    #[error("{path} is refused: it has more than {what}")]
    TooLarge {
        /// The bundle.
        path: PathBuf,
        /// The limit.
        what: &'static str,
    },
}

/// A revision that waits in a file or folder.
#[derive(Debug)]
pub struct Bundle {
    path: PathBuf,
    /// The folder of objects, when the bundle is a folder.
    folder: Option<PathBuf>,
    manifest: Manifest,
}

impl Bundle {
    /// Opens an archive, or a folder with `manifest.json` (or `json`) and `objects/`, and checks its manifest.
    ///
    /// # Errors
    /// See [`BundleError`]; a manifest with problems comes back with all of them.
    pub fn open(path: &Path) -> Result<Self, BundleError> {
        let (bytes, folder) = if path.is_dir() {
            (read_folder_manifest(path)?, Some(path.join("objects")))
        } else {
            (read_archive_manifest(path)?, None)
        };
        let manifest = Manifest::parse(&bytes).map_err(|source| BundleError::Manifest {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            path: path.to_owned(),
            folder,
            manifest,
        })
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Sizes of the objects that it has, as its folder or archive tells them; their bytes are not read.
    ///
    /// # Errors
    /// See [`BundleError`].
    pub fn sizes(&self) -> Result<BTreeMap<ObjectId, u64>, BundleError> {
        let needed = self.manifest.objects();
        let mut sizes = BTreeMap::new();
        match &self.folder {
            Some(folder) => {
                for object in needed.into_keys() {
                    // What is not there has no size; installing says so.
                    if let Ok(found) = std::fs::metadata(folder.join(object.to_string())) {
                        sizes.insert(object, found.len());
                    }
                }
            }
            None => each_member(&self.path, |name, _, size| {
                if let Some(Ok(object)) = name.strip_prefix("objects/").map(str::parse)
                    && needed.contains_key(&object)
                {
                    sizes.insert(object, size);
                }
                Ok(Go::On)
            })?,
        }
        Ok(sizes)
    }

    /// Makes the wanted objects, each verified, available as files: those of a folder where they are, those of an archive
    /// unpacked into `scratch` (a folder that exists; removing it is the caller's).
    ///
    /// Objects that are wanted and not in the manifest are ignored; one that the bundle lacks is an error.
    ///
    /// # Errors
    /// See [`BundleError`].
    pub fn unpack(
        &self,
        wanted: &BTreeSet<ObjectId>,
        scratch: &Path,
    ) -> Result<BTreeMap<ObjectId, PathBuf>, BundleError> {
        let needed = self.manifest.objects();
        let mut files = BTreeMap::new();
        let wanted: BTreeMap<ObjectId, String> = needed
            .into_iter()
            .filter(|(object, _)| wanted.contains(object))
            .map(|(object, key)| (object, key.to_string()))
            .collect();
        match &self.folder {
            Some(folder) => {
                for object in wanted.keys() {
                    let file = folder.join(object.to_string());
                    if file.is_file() {
                        self.verify(*object, &file)?;
                        files.insert(*object, file);
                    }
                }
            }
            None => self.unpack_archive(&wanted, scratch, &mut files)?,
        }
        match wanted
            .iter()
            .find(|(object, _)| !files.contains_key(object))
        {
            None => Ok(files),
            Some((object, key)) => Err(BundleError::Missing {
                path: self.path.clone(),
                object: *object,
                key: key.clone(),
            }),
        }
    }

    fn verify(&self, object: ObjectId, file: &Path) -> Result<(), BundleError> {
        let unreadable = |source| BundleError::Read {
            path: file.to_owned(),
            source,
        };
        let mut reader = File::open(file).map_err(unreadable)?;
        let found = copy_hashed(&mut reader, &mut io::sink()).map_err(unreadable)?;
        self.expect(object, found)
    }

    fn expect(&self, object: ObjectId, found: ObjectId) -> Result<(), BundleError> {
        if object == found {
            return Ok(());
        }
        Err(BundleError::Corrupt {
            path: self.path.clone(),
            object,
            found,
        })
    }

    fn unpack_archive(
        &self,
        wanted: &BTreeMap<ObjectId, String>,
        scratch: &Path,
        files: &mut BTreeMap<ObjectId, PathBuf>,
    ) -> Result<(), BundleError> {
        each_member(&self.path, |name, member, _| {
            let object = name.strip_prefix("objects/").map(str::parse::<ObjectId>);
            let Some(Ok(object)) = object else {
                return Ok(Go::On);
            };
            if !wanted.contains_key(&object) || files.contains_key(&object) {
                return Ok(Go::On);
            }
            let target = scratch.join(object.to_string());
            let written = File::create(&target)
                .and_then(|file| {
                    let mut file = BufWriter::new(file);
                    let found = copy_hashed(member, &mut file)?;
                    file.flush()?;
                    Ok(found)
                })
                .map_err(|source| BundleError::Write {
                    path: target.clone(),
                    source,
                })?;
            self.expect(object, written)?;
            files.insert(object, target);
            // All there: what follows is not read.
            Ok(if files.len() == wanted.len() {
                Go::Stop
            } else {
                Go::On
            })
        })
    }
}

fn read_folder_manifest(path: &Path) -> Result<Vec<u8>, BundleError> {
    for name in ["manifest.json", "json"] {
        let file = path.join(name);
        match File::open(&file) {
            Ok(mut reader) => return read_manifest(&mut reader, &file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(BundleError::Read { path: file, source }),
        }
    }
    Err(BundleError::NoManifest {
        path: path.to_owned(),
    })
}

fn read_archive_manifest(path: &Path) -> Result<Vec<u8>, BundleError> {
    let mut manifest = None;
    each_member(path, |name, member, _| {
        if name != "json" {
            return Ok(Go::On);
        }
        manifest = Some(read_manifest(member, path)?);
        Ok(Go::Stop)
    })?;
    manifest.ok_or_else(|| BundleError::NoManifest {
        path: path.to_owned(),
    })
}

/// One byte past the limit is read, so that the parser says what is wrong.
fn read_manifest(reader: &mut dyn Read, path: &Path) -> Result<Vec<u8>, BundleError> {
    let mut bytes = Vec::new();
    reader
        .take(model::limits::MANIFEST_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| BundleError::Read {
            path: path.to_owned(),
            source,
        })?;
    Ok(bytes)
}

/// Whether the rest of an archive is read.
enum Go {
    On,
    Stop,
}

/// Calls `take` with name, bytes and size of each plain file of an archive.
fn each_member(
    path: &Path,
    mut take: impl FnMut(&str, &mut dyn Read, u64) -> Result<Go, BundleError>,
) -> Result<(), BundleError> {
    let unreadable = |source| BundleError::Read {
        path: path.to_owned(),
        source,
    };
    let too_large = |what| BundleError::TooLarge {
        path: path.to_owned(),
        what,
    };
    let mut file =
        BufReader::with_capacity(limits::CHUNK_BYTES, File::open(path).map_err(unreadable)?);
    let is_gzip = file
        .fill_buf()
        .map_err(unreadable)?
        .starts_with(&[0x1f, 0x8b]);
    let plain: Box<dyn Read> = if is_gzip {
        Box::new(MultiGzDecoder::new(file))
    } else {
        Box::new(file)
    };
    // Raw: long names, which no member that counts has, are not gathered in memory.
    let mut archive = tar::Archive::new(plain.take(limits::BUNDLE_BYTES_MAX));
    let mut bytes = 0_u64;
    for (count, member) in archive.entries().map_err(unreadable)?.raw(true).enumerate() {
        let mut member = member.map_err(unreadable)?;
        if count >= limits::BUNDLE_MEMBERS_MAX {
            return Err(too_large("100,000 members"));
        }
        let size = member.header().entry_size().map_err(unreadable)?;
        bytes = bytes.saturating_add(size);
        if bytes > limits::BUNDLE_BYTES_MAX {
            return Err(too_large("64 GiB"));
        }
        if !member.header().entry_type().is_file() {
            continue;
        }
        let name = member.path_bytes().into_owned();
        let Ok(name) = std::str::from_utf8(&name) else {
            continue;
        };
        match take(name.strip_prefix("./").unwrap_or(name), &mut member, size)? {
            Go::On => {}
            Go::Stop => break,
        }
    }
    Ok(())
}

/// Copies everything and hashes it on the way.
///
/// # Errors
/// Whichever of the two sides failed.
pub fn copy_hashed(from: &mut dyn Read, to: &mut dyn Write) -> io::Result<ObjectId> {
    let mut hash = sha2::Sha256::new();
    let mut chunk = vec![0; limits::CHUNK_BYTES];
    loop {
        let bytes = match from.read(&mut chunk) {
            Ok(0) => return Ok(ObjectId::from_digest(hash.finalize().into())),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hash.update(&chunk[..bytes]);
        to.write_all(&chunk[..bytes])?;
    }
}

/// How a bundle is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// As it is: a reader can pass over what it has.
    Plain,
    /// Gzip, as `pvr export` does.
    Gzip,
}

/// Writes a bundle: the manifest first, then each object once, in the order of their names.
///
/// # Errors
/// [`BundleError::Missing`] when `objects` lacks one, [`BundleError::Corrupt`] when a file has other bytes than it should.
pub fn write(
    manifest: &Manifest,
    objects: &BTreeMap<ObjectId, PathBuf>,
    path: &Path,
    packing: Packing,
) -> Result<(), BundleError> {
    let unwritable = |source| BundleError::Write {
        path: path.to_owned(),
        source,
    };
    let mut file = BufWriter::new(File::create(path).map_err(unwritable)?);
    match packing {
        Packing::Plain => write_members(manifest, objects, path, &mut file)?,
        Packing::Gzip => {
            // No name, no time, no operating system in the header: the same revision gives the same bytes.
            let mut gzip = flate2::GzBuilder::new()
                .operating_system(255)
                .write(&mut file, flate2::Compression::default());
            write_members(manifest, objects, path, &mut gzip)?;
            gzip.finish().map_err(unwritable)?;
        }
    }
    file.flush().map_err(unwritable)
}

fn write_members(
    manifest: &Manifest,
    objects: &BTreeMap<ObjectId, PathBuf>,
    path: &Path,
    to: &mut dyn Write,
) -> Result<(), BundleError> {
    let unwritable = |source| BundleError::Write {
        path: path.to_owned(),
        source,
    };
    let mut archive = tar::Builder::new(to);
    let size = manifest.bytes().len() as u64;
    archive
        .append(&header("json", size).map_err(unwritable)?, manifest.bytes())
        .map_err(unwritable)?;
    for (object, key) in manifest.objects() {
        let source = objects.get(&object).ok_or_else(|| BundleError::Missing {
            path: path.to_owned(),
            object,
            key: key.to_string(),
        })?;
        append_object(&mut archive, object, source, path)?;
    }
    archive.finish().map_err(unwritable)
}

fn append_object(
    archive: &mut tar::Builder<impl Write>,
    object: ObjectId,
    source: &Path,
    path: &Path,
) -> Result<(), BundleError> {
    let unreadable = |error| BundleError::Read {
        path: source.to_owned(),
        source: error,
    };
    let file = File::open(source).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?.len();
    let mut reader = Hashing {
        inner: file.take(size),
        hash: sha2::Sha256::new(),
    };
    header(&format!("objects/{object}"), size)
        .and_then(|header| archive.append(&header, &mut reader))
        .map_err(|source| BundleError::Write {
            path: path.to_owned(),
            source,
        })?;
    let found = ObjectId::from_digest(reader.hash.finalize().into());
    if found == object {
        return Ok(());
    }
    Err(BundleError::Corrupt {
        path: source.to_owned(),
        object,
        found,
    })
}

fn header(name: &str, size: u64) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_gnu();
    header.set_path(name)?;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    Ok(header)
}

struct Hashing<R> {
    inner: R,
    hash: sha2::Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, chunk: &mut [u8]) -> io::Result<usize> {
        let bytes = self.inner.read(chunk)?;
        self.hash.update(&chunk[..bytes]);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(objects: &[ObjectId]) -> Manifest {
        let keys: String = objects
            .iter()
            .enumerate()
            .map(|(n, o)| format!(",\"x/{n}\":\"{o}\""))
            .collect();
        let text = format!("{{\"#spec\":\"pantavisor-service-system@1\"{keys}}}");
        Manifest::parse(text.as_bytes()).unwrap()
    }

    fn archive(path: &Path, members: &[(&str, &[u8])]) {
        let mut builder = tar::Builder::new(File::create(path).unwrap());
        for (name, bytes) in members {
            builder
                .append(&header(name, bytes.len() as u64).unwrap(), *bytes)
                .unwrap();
        }
        builder.into_inner().unwrap();
    }

    #[test]
    fn there_and_back_with_the_same_bytes() {
        let home = tempfile::tempdir().unwrap();
        let (one, two) = (home.path().join("one"), home.path().join("two"));
        std::fs::write(&one, b"first").unwrap();
        std::fs::write(&two, vec![7; 1 << 20]).unwrap();
        let ids = [ObjectId::of(b"first"), ObjectId::of(&vec![7; 1 << 20])];
        let manifest = manifest(&ids);
        let objects = BTreeMap::from([(ids[0], one.clone()), (ids[1], two)]);
        let (file, again) = (home.path().join("a.tgz"), home.path().join("b.tgz"));
        write(&manifest, &objects, &file, Packing::Gzip).unwrap();
        write(&manifest, &objects, &again, Packing::Gzip).unwrap();
        assert_eq!(
            std::fs::read(&file).unwrap(),
            std::fs::read(&again).unwrap()
        );

        let bundle = Bundle::open(&file).unwrap();
        assert_eq!(bundle.manifest(), &manifest);
        let scratch = tempfile::tempdir().unwrap();
        let wanted = BTreeSet::from([ids[0], ObjectId::of(b"of no interest")]);
        let files = bundle.unpack(&wanted, scratch.path()).unwrap();
        assert_eq!(files.keys().collect::<Vec<_>>(), [&ids[0]]);
        assert_eq!(std::fs::read(&files[&ids[0]]).unwrap(), b"first");

        write(&manifest, &objects, &again, Packing::Plain).unwrap();
        let plain = std::fs::read(&again).unwrap();
        assert!(plain.starts_with(b"json\0") && plain.len() % 512 == 0);
        let bundle = Bundle::open(&again).unwrap();
        assert_eq!(bundle.unpack(&wanted, scratch.path()).unwrap().len(), 1);

        std::fs::write(&one, b"changed").unwrap();
        assert!(matches!(
            write(&manifest, &objects, &file, Packing::Gzip),
            Err(BundleError::Corrupt { .. })
        ));
    }

    #[test]
    fn manifest_may_come_last_and_names_may_start_with_a_dot() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("x.tar");
        let id = ObjectId::of(b"abc");
        let manifest = manifest(&[id]);
        archive(
            &path,
            &[
                (&format!("./objects/{id}"), b"abc"),
                ("./json", manifest.bytes()),
            ],
        );
        let bundle = Bundle::open(&path).unwrap();
        let files = bundle.unpack(&BTreeSet::from([id]), home.path()).unwrap();
        assert_eq!(std::fs::read(&files[&id]).unwrap(), b"abc");
    }

    #[test]
    fn what_is_wrong_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("x.tar");
        let id = ObjectId::of(b"abc");
        let manifest = manifest(&[id]);
        let all = BTreeSet::from([id]);
        let unpack = |members: &[(&str, &[u8])]| {
            archive(&path, members);
            Bundle::open(&path).and_then(|bundle| bundle.unpack(&all, home.path()))
        };
        let name = format!("objects/{id}");
        let json = ("json", manifest.bytes());
        assert!(unpack(&[json, (&name, b"abc")]).is_ok());
        assert!(matches!(
            unpack(&[json, (&name, b"abd")]),
            Err(BundleError::Corrupt { .. })
        ));
        assert!(matches!(unpack(&[json]), Err(BundleError::Missing { .. })));
        assert!(matches!(
            unpack(&[(&name, b"abc")]),
            Err(BundleError::NoManifest { .. })
        ));
        assert!(matches!(
            unpack(&[("json", b"{}")]),
            Err(BundleError::Manifest { .. })
        ));
        std::fs::write(&path, b"no archive at all").unwrap();
        assert!(matches!(
            Bundle::open(&path),
            Err(BundleError::Read { .. } | BundleError::NoManifest { .. })
        ));
        let mut whole = Vec::new();
        archive(&path, &[json, (&name, b"abc")]);
        File::open(&path).unwrap().read_to_end(&mut whole).unwrap();
        for cut in [0, 100, 511, 513, 1100] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let result = Bundle::open(&path).and_then(|bundle| bundle.unpack(&all, home.path()));
            assert!(result.is_err(), "cut at {cut}");
        }
    }
}
