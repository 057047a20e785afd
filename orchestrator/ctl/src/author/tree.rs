//! A file system tree in memory: names, modes and kinds; the bytes of files stay where they are.
//!
//! Both sources of a container image end here, a folder and the layers of an OCI image, so that the image is built in one
//! way. Paths are relative and clean; the empty path is the root. Time stamps are not kept: images are reproducible.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::AuthorError;

/// Files, folders and everything else in one image.
pub(super) const ENTRIES_MAX: usize = 1_000_000;
/// Symbolic links that are followed in one path, as Linux does.
const LINKS_MAX: usize = 40;

/// A tree.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) entries: BTreeMap<PathBuf, Entry>,
    /// What was left out, for people.
    pub(super) notes: Vec<String>,
}

/// One entry.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Permission bits with set-uid, set-gid and sticky.
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) kind: Kind,
    /// The layer that it came with.
    pub(super) layer: usize,
}

/// What an entry is.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    Directory,
    File(Content),
    Symlink(PathBuf),
    Character(u32),
    Block(u32),
    Fifo,
}

/// Where a file's bytes are.
#[derive(Debug, Clone)]
pub(super) enum Content {
    Path(PathBuf),
    Slice(Slice),
}

/// A part of a file that is shared by many.
#[derive(Debug, Clone)]
pub(super) struct Slice {
    pub(super) file: Arc<File>,
    pub(super) start: u64,
    pub(super) bytes: u64,
}

impl io::Read for Slice {
    fn read(&mut self, chunk: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.bytes)
            .unwrap_or(usize::MAX)
            .min(chunk.len());
        if want == 0 {
            return Ok(0);
        }
        let read = self.file.read_at(&mut chunk[..want], self.start)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.start += read as u64;
        self.bytes -= read as u64;
        Ok(read)
    }
}

/// A device number as squashfs stores it (the kernel's `new_encode_dev`).
pub(super) fn device_number(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

impl Tree {
    /// The tree of a folder. Links are not followed; sockets are left out.
    pub(super) fn of_folder(root: &Path, keep_owners: bool) -> Result<Self, AuthorError> {
        let unreadable = |path: &Path, source| AuthorError::Read {
            path: path.to_owned(),
            source,
        };
        if !root.is_dir() {
            return Err(AuthorError::NoFolder {
                path: root.to_owned(),
            });
        }
        let mut tree = Self::default();
        let mut open = vec![PathBuf::new()];
        while let Some(path) = open.pop() {
            let full = root.join(&path);
            // The root itself may be given by a link.
            let metadata = if path.as_os_str().is_empty() {
                std::fs::metadata(&full)
            } else {
                std::fs::symlink_metadata(&full)
            };
            let metadata = metadata.map_err(|error| unreadable(&full, error))?;
            let kind = metadata.file_type();
            let number = || {
                let device = metadata.rdev();
                let major = ((device >> 8) & 0xfff) | ((device >> 32) & !0xfff);
                let minor = (device & 0xff) | ((device >> 12) & !0xff);
                device_number(narrow(major), narrow(minor))
            };
            let kind = if kind.is_dir() {
                let children =
                    std::fs::read_dir(&full).map_err(|error| unreadable(&full, error))?;
                for child in children {
                    let child = child.map_err(|error| unreadable(&full, error))?;
                    open.push(path.join(child.file_name()));
                }
                Kind::Directory
            } else if kind.is_file() {
                Kind::File(Content::Path(full))
            } else if kind.is_symlink() {
                Kind::Symlink(std::fs::read_link(&full).map_err(|error| unreadable(&full, error))?)
            } else if kind.is_char_device() {
                Kind::Character(number())
            } else if kind.is_block_device() {
                Kind::Block(number())
            } else if kind.is_fifo() {
                Kind::Fifo
            } else {
                tree.notes
                    .push(format!("left out {}: it is a socket", path.display()));
                continue;
            };
            let owner = if keep_owners {
                (metadata.uid(), metadata.gid())
            } else {
                (0, 0)
            };
            let entry = Entry {
                mode: mode_of(metadata.mode()),
                uid: owner.0,
                gid: owner.1,
                kind,
                layer: 0,
            };
            tree.entries.insert(path, entry);
            tree.check_size()?;
        }
        Ok(tree)
    }

    /// An error when there are too many entries.
    pub(super) fn check_size(&self) -> Result<(), AuthorError> {
        if self.entries.len() > ENTRIES_MAX {
            return Err(AuthorError::TooLarge {
                what: "1,000,000 files",
            });
        }
        Ok(())
    }

    /// Puts an entry, as unpacking over what is there would: a folder over a folder keeps what is in it.
    pub(super) fn put(&mut self, path: PathBuf, entry: Entry) {
        let is_folder = matches!(entry.kind, Kind::Directory);
        let was_folder = self
            .entries
            .get(&path)
            .is_some_and(|old| matches!(old.kind, Kind::Directory));
        if was_folder && !is_folder {
            self.remove_below(&path, usize::MAX);
        }
        self.entries.insert(path, entry);
    }

    /// Removes what layers before `layer` put at a path and below it.
    pub(super) fn remove(&mut self, path: &Path, layer: usize) {
        self.remove_below(path, layer);
        let has_children = self.below(path).next().is_some();
        let is_older = self
            .entries
            .get(path)
            .is_some_and(|entry| entry.layer < layer);
        if is_older && !has_children {
            self.entries.remove(path);
        }
    }

    /// Removes what layers before `layer` put below a path. A folder that still holds something stays.
    pub(super) fn remove_below(&mut self, path: &Path, layer: usize) {
        let mut old: Vec<PathBuf> = self
            .below(path)
            .filter(|(_, entry)| entry.layer < layer)
            .map(|(path, _)| path.clone())
            .collect();
        // Children before their folder.
        old.reverse();
        for path in old {
            if self.below(&path).next().is_none() {
                self.entries.remove(&path);
            }
        }
    }

    fn below<'t>(&'t self, path: &'t Path) -> impl Iterator<Item = (&'t PathBuf, &'t Entry)> {
        self.entries
            .range::<Path, _>((std::ops::Bound::Excluded(path), std::ops::Bound::Unbounded))
            .take_while(move |(other, _)| other.starts_with(path))
    }

    /// Where a path leads when the links in its folders are followed, never out of the root. Folders that are missing are
    /// made by [`make_parents`](Self::make_parents).
    pub(super) fn resolve(&self, path: &Path) -> Result<PathBuf, AuthorError> {
        let part_name = |part: Component<'_>| part.as_os_str().to_owned();
        let mut open: Vec<std::ffi::OsString> = path.components().rev().map(part_name).collect();
        let mut links = 0;
        let mut resolved = PathBuf::new();
        while let Some(part) = open.pop() {
            if part == ".." {
                resolved.pop();
                continue;
            }
            let next = resolved.join(&part);
            let is_last = open.is_empty();
            match self.entries.get(&next).map(|entry| &entry.kind) {
                Some(Kind::Symlink(target)) if !is_last => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(AuthorError::BadMember {
                            name: path.display().to_string(),
                            reason: "its folders are links in a circle",
                        });
                    }
                    if target.is_absolute() {
                        resolved = PathBuf::new();
                    }
                    let parts = target.components().rev().filter_map(|part| match part {
                        Component::Normal(_) | Component::ParentDir => {
                            Some(part.as_os_str().to_owned())
                        }
                        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
                    });
                    open.extend(parts);
                }
                Some(Kind::Directory) | None => resolved = next,
                Some(_) if is_last => resolved = next,
                Some(_) => {
                    return Err(AuthorError::BadMember {
                        name: path.display().to_string(),
                        reason: "one of its folders is a file",
                    });
                }
            }
        }
        Ok(resolved)
    }

    /// Makes the folders above a path that are missing.
    pub(super) fn make_parents(&mut self, path: &Path, layer: usize) {
        for above in path.ancestors().skip(1) {
            if self.entries.contains_key(above) {
                break;
            }
            let entry = Entry {
                mode: 0o755,
                uid: 0,
                gid: 0,
                kind: Kind::Directory,
                layer,
            };
            self.entries.insert(above.to_owned(), entry);
        }
    }
}

/// The permission bits of a mode.
pub(super) fn mode_of(mode: u32) -> u16 {
    u16::try_from(mode & 0o7777).expect("twelve bits fit")
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).expect("32 bits fit")
}
