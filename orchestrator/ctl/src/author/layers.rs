//! The layers of an OCI image, laid over each other into one tree.
//!
//! Archives are hostile until proven otherwise: a member that is absolute, leads out of the root or runs through a file is
//! refused, and names, entries and bytes are bounded before they are kept. Bytes go to one scratch file, modes and owners
//! only into the tree, so nothing here needs root and nothing is ever written to a path that an archive chose.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write as _};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;
use model::ObjectId;
use sha2::Digest as _;
use tar::EntryType;

use super::AuthorError;
use super::tree::{Content, Entry, Kind, Slice, Tree, device_number, mode_of};

/// Bytes of all layers when unpacked.
pub(super) const BYTES_MAX: u64 = 16 << 30;
/// Bytes of a long name or of extended headers.
const HEADER_BYTES_MAX: u64 = 1 << 20;
const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";

/// Lays layers over each other.
pub(super) struct Flattening {
    tree: Tree,
    spool: BufWriter<File>,
    shared: Arc<File>,
    /// Bytes in the spool.
    spooled: u64,
    layer: usize,
    keep_owners: bool,
    attributes: usize,
}

impl Flattening {
    /// Starts with nothing; the files' bytes go to a scratch file without a name in `scratch`.
    pub(super) fn new(scratch: &Path, keep_owners: bool) -> Result<Self, AuthorError> {
        let unwritable = |source| AuthorError::Write {
            path: scratch.to_owned(),
            source,
        };
        let spool = tempfile::tempfile_in(scratch).map_err(unwritable)?;
        let shared = Arc::new(spool.try_clone().map_err(unwritable)?);
        let mut tree = Tree::default();
        tree.make_parents(Path::new("x"), 0);
        Ok(Self {
            tree,
            spool: BufWriter::with_capacity(1 << 20, spool),
            shared,
            spooled: 0,
            layer: 0,
            keep_owners,
            attributes: 0,
        })
    }

    /// Adds the next layer, plain or gzip; the hash of its plain bytes must be `expected`, when that is known.
    pub(super) fn add(
        &mut self,
        path: &Path,
        expected: Option<ObjectId>,
    ) -> Result<(), AuthorError> {
        let unreadable = |source| AuthorError::Read {
            path: path.to_owned(),
            source,
        };
        self.layer += 1;
        let mut file = BufReader::with_capacity(1 << 18, File::open(path).map_err(unreadable)?);
        let start = file.fill_buf().map_err(unreadable)?;
        if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            return Err(AuthorError::Zstd);
        }
        let plain: Box<dyn Read> = if start.starts_with(&[0x1f, 0x8b]) {
            Box::new(MultiGzDecoder::new(file))
        } else {
            Box::new(file)
        };
        let mut plain = Hashing {
            inner: plain.take(BYTES_MAX),
            hash: sha2::Sha256::new(),
        };
        self.read_layer(&mut plain)?;
        // What follows the end mark of the archive belongs to the layer's hash too.
        io::copy(&mut plain, &mut io::sink()).map_err(unreadable)?;
        let found = ObjectId::from_digest(plain.hash.finalize().into());
        match expected {
            Some(expected) if expected != found => Err(AuthorError::LayerHash {
                layer: self.layer,
                expected,
                found,
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// The tree of all layers.
    pub(super) fn finish(mut self) -> Result<Tree, AuthorError> {
        self.spool.flush().map_err(|source| AuthorError::Write {
            path: "a scratch file".into(),
            source,
        })?;
        if self.attributes > 0 {
            self.tree.notes.push(format!(
                "left out the extended attributes of {} files (file capabilities are among them)",
                self.attributes
            ));
        }
        Ok(self.tree)
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "of the kinds of a tar archive few count"
    )]
    fn read_layer(&mut self, plain: &mut dyn Read) -> Result<(), AuthorError> {
        let broken = |source| AuthorError::Layer { source };
        let mut archive = tar::Archive::new(plain);
        let mut extended = Extended::default();
        // Raw: long names are gathered here, within bounds, not by the library without any.
        for member in archive.entries().map_err(broken)?.raw(true) {
            let mut member = member.map_err(broken)?;
            let kind = member.header().entry_type();
            match kind {
                EntryType::GNULongName => extended.path = Some(read_name(&mut member)?),
                EntryType::GNULongLink => extended.link = Some(read_name(&mut member)?),
                EntryType::XHeader => extended.read(&mut member)?,
                EntryType::XGlobalHeader => {}
                _ => self.add_member(&mut member, std::mem::take(&mut extended))?,
            }
        }
        Ok(())
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "of the kinds of a tar archive few count"
    )]
    fn add_member(
        &mut self,
        member: &mut tar::Entry<'_, impl Read>,
        extended: Extended,
    ) -> Result<(), AuthorError> {
        let name = extended
            .path
            .unwrap_or_else(|| member.path_bytes().into_owned());
        let path = clean(&name)?;
        let header = member.header().clone();
        let broken = |source| AuthorError::Layer { source };
        let kind = header.entry_type();
        if extended
            .size
            .is_some_and(|size| header.entry_size().is_ok_and(|own| own != size))
        {
            return Err(bad(
                &name,
                "its size needs an extended header (8 GiB or more)",
            ));
        }
        if let Some(file_name) = path.file_name().and_then(|name| name.to_str()) {
            if file_name == OPAQUE {
                let folder = self.tree.resolve(path.parent().unwrap_or(Path::new("")))?;
                self.tree.remove_below(&folder, self.layer);
                return Ok(());
            }
            if let Some(hidden) = file_name.strip_prefix(WHITEOUT) {
                if matches!(hidden, "" | "." | "..") {
                    return Err(bad(&name, "it hides nothing that can be hidden"));
                }
                let hidden = self.tree.resolve(&path.with_file_name(hidden))?;
                self.tree.remove(&hidden, self.layer);
                return Ok(());
            }
        }
        let path = self.tree.resolve(&path)?;
        self.attributes += usize::from(extended.has_attributes);
        let number = || -> Result<u32, AuthorError> {
            let part = |part: io::Result<Option<u32>>| part.map(Option::unwrap_or_default);
            let major = part(header.device_major()).map_err(broken)?;
            let minor = part(header.device_minor()).map_err(broken)?;
            Ok(device_number(major, minor))
        };
        let entry_kind = match kind {
            EntryType::Regular | EntryType::Continuous => Kind::File(self.spool(member, &name)?),
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink(link_of(member, extended.link)),
            EntryType::Char => Kind::Character(number()?),
            EntryType::Block => Kind::Block(number()?),
            EntryType::Fifo => Kind::Fifo,
            EntryType::Link => {
                return self.add_hard_link(path, &link_of(member, extended.link), &name);
            }
            _ => return Err(bad(&name, "its kind is not one that layers have")),
        };
        let owner = |given: Option<u32>, own: io::Result<u64>| -> Result<u32, AuthorError> {
            if !self.keep_owners {
                return Ok(0);
            }
            match given {
                Some(id) => Ok(id),
                None => u32::try_from(own.map_err(broken)?)
                    .map_err(|_| bad(&name, "its owner is out of range")),
            }
        };
        let entry = Entry {
            mode: mode_of(header.mode().map_err(broken)?),
            uid: owner(extended.uid, header.uid())?,
            gid: owner(extended.gid, header.gid())?,
            kind: entry_kind,
            layer: self.layer,
        };
        if path.as_os_str().is_empty() && !matches!(entry.kind, Kind::Directory) {
            return Err(bad(&name, "it would replace the root"));
        }
        self.tree.make_parents(&path, self.layer);
        self.tree.put(path, entry);
        self.tree.check_size()
    }

    fn add_hard_link(
        &mut self,
        path: PathBuf,
        target: &Path,
        name: &[u8],
    ) -> Result<(), AuthorError> {
        use std::os::unix::ffi::OsStrExt as _;
        let target = self.tree.resolve(&clean(target.as_os_str().as_bytes())?)?;
        let entry = match self.tree.entries.get(&target) {
            Some(entry) if !matches!(entry.kind, Kind::Directory) => Entry {
                layer: self.layer,
                ..entry.clone()
            },
            Some(_) | None => return Err(bad(name, "it is a hard link to what is not there")),
        };
        self.tree.make_parents(&path, self.layer);
        self.tree.put(path, entry);
        self.tree.check_size()
    }

    fn spool(&mut self, member: &mut impl Read, name: &[u8]) -> Result<Content, AuthorError> {
        let start = self.spooled;
        let left = BYTES_MAX - start;
        let bytes = io::copy(&mut member.take(left + 1), &mut self.spool)
            .map_err(|source| AuthorError::Layer { source })?;
        if bytes > left {
            return Err(bad(name, "the layers have more than 16 GiB"));
        }
        self.spooled += bytes;
        Ok(Content::Slice(Slice {
            file: Arc::clone(&self.shared),
            start,
            bytes,
        }))
    }
}

/// What stands before a member about it.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    has_attributes: bool,
}

impl Extended {
    fn read(&mut self, member: &mut impl Read) -> Result<(), AuthorError> {
        let bytes = read_header(member)?;
        for pair in tar::PaxExtensions::new(&bytes) {
            let pair = pair.map_err(|source| AuthorError::Layer { source })?;
            let value = pair.value_bytes();
            let number = || {
                std::str::from_utf8(value)
                    .ok()
                    .and_then(|text| text.parse::<u64>().ok())
            };
            let id = || number().and_then(|id| u32::try_from(id).ok());
            match pair.key_bytes() {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = number(),
                b"uid" => self.uid = id(),
                b"gid" => self.gid = id(),
                key => self.has_attributes |= key.starts_with(b"SCHILY.xattr."),
            }
        }
        Ok(())
    }
}

fn read_header(member: &mut impl Read) -> Result<Vec<u8>, AuthorError> {
    let mut bytes = Vec::new();
    member
        .take(HEADER_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| AuthorError::Layer { source })?;
    if bytes.len() as u64 > HEADER_BYTES_MAX {
        return Err(AuthorError::TooLarge {
            what: "1 MiB in one name",
        });
    }
    Ok(bytes)
}

fn read_name(member: &mut impl Read) -> Result<Vec<u8>, AuthorError> {
    let mut name = read_header(member)?;
    while name.last() == Some(&0) {
        name.pop();
    }
    Ok(name)
}

fn link_of(member: &tar::Entry<'_, impl Read>, given: Option<Vec<u8>>) -> PathBuf {
    use std::os::unix::ffi::OsStringExt as _;
    let name = given.or_else(|| member.link_name_bytes().map(|name| name.into_owned()));
    PathBuf::from(std::ffi::OsString::from_vec(name.unwrap_or_default()))
}

/// A member's name as a path below the root.
fn clean(name: &[u8]) -> Result<PathBuf, AuthorError> {
    use std::os::unix::ffi::OsStrExt as _;
    if name.contains(&0) {
        return Err(bad(name, "its name holds a NUL byte"));
    }
    let mut path = PathBuf::new();
    for part in Path::new(std::ffi::OsStr::from_bytes(name)).components() {
        match part {
            Component::Normal(part) if part.len() > model::limits::PATH_PART_BYTES_MAX => {
                return Err(bad(name, "a part of its name has more than 255 bytes"));
            }
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            Component::ParentDir => return Err(bad(name, "its name leads out of the root (..)")),
            Component::RootDir | Component::Prefix(_) => {
                return Err(bad(name, "its name is absolute"));
            }
        }
    }
    if path.as_os_str().len() > 4096 {
        return Err(bad(name, "its name has more than 4096 bytes"));
    }
    Ok(path)
}

fn bad(name: &[u8], reason: &'static str) -> AuthorError {
    let name = String::from_utf8_lossy(name).chars().take(200).collect();
    AuthorError::BadMember { name, reason }
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
