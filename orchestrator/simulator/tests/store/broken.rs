//! A disk that breaks one promise, between the store and the simulated disk; or none.

use std::collections::BTreeSet;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use simulator::disk::{Disk as Sim, Reading, Writing};
use store::disk::{Disk, Entry, Metadata, ReadFile as _, Space, WriteFile};

/// Which promise is broken: each stands for a mistake that a store, an adapter or a disk could have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    None,
    /// Not a bug: a file system that cannot exchange names.
    CannotExchange,
    /// Files are never synced.
    NoFileSync,
    /// Folders are never synced.
    NoFolderSync,
    /// The folder of the objects is not synced.
    NoObjectsFolderSync,
    /// New folders are made without syncing the one above.
    NoParentFolderSync,
    /// A folder is synced before the rename into it, not after.
    FolderSyncBeforeRename,
    /// A file is renamed first and synced then, as Pantavisor's copy does.
    FileSyncAfterRename,
    /// A rename is a copy.
    RenameByCopy,
    /// A rename first removes what it replaces.
    RenameByRemove,
    /// An exchange is a removal and a rename.
    ExchangeByRemove,
    /// Moving a folder away is taking it apart.
    TrashInPlace,
    /// Small files are written in place.
    WriteInPlace,
    /// A short write is not noticed.
    ShortWrite,
    /// Errors of syncs are swallowed.
    SyncErrorsSwallowed,
    /// Errors of folder syncs are swallowed.
    FolderSyncErrorsSwallowed,
}

#[derive(Debug, Clone)]
pub(crate) struct Broken {
    pub(crate) disk: Sim,
    pub(crate) bug: Bug,
    /// Folders whose next sync was done too early.
    early: Arc<Mutex<BTreeSet<PathBuf>>>,
    /// What happens just before a folder is synced.
    pub(crate) before_sync: BeforeSync,
}

/// Something that is done with the folder's path.
#[derive(Clone, Default)]
pub(crate) struct BeforeSync(pub(crate) Arc<Mutex<Option<Act>>>);

pub(crate) type Act = Box<dyn FnMut(&Path) + Send>;

impl std::fmt::Debug for BeforeSync {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BeforeSync")
    }
}

impl Broken {
    pub(crate) fn new(disk: Sim, bug: Bug) -> Self {
        Self {
            disk,
            bug,
            early: Arc::default(),
            before_sync: BeforeSync::default(),
        }
    }

    fn copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        let bytes = self.disk.read(from, usize::MAX)?;
        let mut file = self.disk.create(to)?;
        file.append(&bytes)?;
        file.sync()
    }
}

pub(crate) struct BrokenWrite {
    file: Writing,
    bug: Bug,
}

impl WriteFile for BrokenWrite {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut count = bytes.len();
        if self.bug == Bug::ShortWrite && count > 8 {
            count -= 1;
        }
        self.file.append(&bytes[..count])
    }

    fn sync(&mut self) -> io::Result<()> {
        match self.bug {
            Bug::NoFileSync | Bug::FileSyncAfterRename => Ok(()),
            Bug::SyncErrorsSwallowed => {
                drop(self.file.sync());
                Ok(())
            }
            _ => self.file.sync(),
        }
    }
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn is_temporary(path: &Path) -> bool {
    path.to_str().is_some_and(|path| path.contains(".pv-tmp-"))
}

impl Disk for Broken {
    type Write = BrokenWrite;
    type Read = Reading;

    fn create(&self, path: &Path) -> io::Result<BrokenWrite> {
        let file = self.disk.create(path)?;
        Ok(BrokenWrite {
            file,
            bug: self.bug,
        })
    }

    fn open_append(&self, path: &Path) -> io::Result<BrokenWrite> {
        let file = self.disk.open_append(path)?;
        Ok(BrokenWrite {
            file,
            bug: self.bug,
        })
    }

    fn open(&self, path: &Path) -> io::Result<Reading> {
        self.disk.open(path)
    }

    fn read(&self, path: &Path, limit: usize) -> io::Result<Vec<u8>> {
        self.disk.read(path, limit)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        match self.bug {
            Bug::FolderSyncBeforeRename => {
                self.disk.sync_dir(&parent(to))?;
                self.disk.rename(from, to)?;
                self.early.lock().unwrap().insert(parent(to));
                Ok(())
            }
            Bug::FileSyncAfterRename => {
                self.disk.rename(from, to)?;
                match self.disk.open_append(to) {
                    Ok(mut file) => file.sync(),
                    // A folder or a link.
                    Err(_) => Ok(()),
                }
            }
            Bug::RenameByCopy if self.disk.open(from).is_ok() => {
                self.copy(from, to)?;
                self.disk.remove_file(from)
            }
            Bug::WriteInPlace if is_temporary(from) && self.disk.open(from).is_ok() => {
                self.copy(from, to)?;
                self.disk.remove_file(from)
            }
            Bug::RenameByRemove if self.disk.metadata(to).is_ok() => {
                self.disk.remove_file(to)?;
                self.disk.rename(from, to)
            }
            Bug::TrashInPlace if to.to_str().is_some_and(|to| to.contains(".pv-trash-")) => {
                self.disk.remove_dir_all(from)
            }
            _ => self.disk.rename(from, to),
        }
    }

    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        if self.bug == Bug::ExchangeByRemove {
            self.disk.remove_dir_all(other)?;
            return self.disk.rename(one, other);
        }
        if self.bug == Bug::CannotExchange {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.disk.exchange(one, other)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        if let Some(act) = self.before_sync.0.lock().unwrap().as_mut() {
            act(path);
        }
        match self.bug {
            Bug::NoFolderSync => Ok(()),
            Bug::NoObjectsFolderSync if path == Path::new("objects") => Ok(()),
            Bug::NoParentFolderSync
                if matches!(path.to_str(), Some("." | "meta" | "trails" | "objects")) =>
            {
                Ok(())
            }
            Bug::FolderSyncBeforeRename if self.early.lock().unwrap().remove(path) => Ok(()),
            Bug::SyncErrorsSwallowed | Bug::FolderSyncErrorsSwallowed => {
                drop(self.disk.sync_dir(path));
                Ok(())
            }
            _ => self.disk.sync_dir(path),
        }
    }

    fn sync_all(&self) -> io::Result<()> {
        self.disk.sync_all()
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }

    fn symlink(&self, target: &Path, path: &Path) -> io::Result<()> {
        self.disk.symlink(target, path)
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        self.disk.read_link(path)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir_all(path)
    }

    fn visit(
        &self,
        path: &Path,
        visitor: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> io::Result<()> {
        self.disk.visit(path, visitor)
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.disk.metadata(path)
    }

    fn set_read_only(&self, path: &Path) -> io::Result<()> {
        self.disk.set_read_only(path)
    }

    fn space(&self) -> io::Result<Space> {
        self.disk.space()
    }
}

/// All bytes of an open file.
pub(crate) fn read_all(file: &mut Reading) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(file.len()?).unwrap_or(usize::MAX)];
    let count = file.read_at(0, &mut bytes)?;
    bytes.truncate(count);
    Ok(bytes)
}
