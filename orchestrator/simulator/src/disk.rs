//! A disk in memory that keeps no more than `store::disk` promises.
//!
//! The fault model:
//! - What was appended to a file is durable after `sync` of the file; before that a power cut leaves what was durable before, all
//!   of it, a part, or zeros in its place.
//! - Names (create, rename, link, remove) are durable after `sync_dir` of their folder; before that a power cut keeps any of
//!   these changes and loses any other, in any combination. A rename is one change: the thing never loses both names, and a
//!   name never stands for part of anything. Between folders both names may be left.
//! - The power can be cut before any operation; every operation after that fails, and changes nothing.
//! - An operation may fail once, reads may fail, and the disk may be full or read-only.
//! - Where files can be sealed, a seal is there after a power cut or not; what a sealed file's bytes were not cannot be read.
//! - What is durable is changed only by [`Disk::damage`].
//!
//! Contents are shared and copied on write, so an image costs little to clone.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

mod contents;

pub use contents::Contents;
use contents::{File, Folder, Id, Node, ROOT, check_replacement, error, kind, parts};

use model::ObjectId;
use store::disk::{Disk as Port, Entry, Metadata, ReadFile, Seal, Space, WriteFile};

/// How the outcome of a power cut is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// Each change that is not durable is kept or lost on its own, each content in every way: 2 to the power of their number.
    Every,
    /// All are kept, none, all but one, or only one; contents in every way, but all in the same.
    Single,
    /// All are kept or none; contents as they are or not at all.
    Ends,
}
/// What goes wrong, and when. Operations are counted from the last [`Disk::plan`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Plan {
    /// The power is cut before the operation with this number (0 is the first).
    pub cut_at: Option<u64>,
    /// The operation with this number fails once.
    pub fail_at: Option<u64>,
}

/// What a disk in a bad device does instead of what it promises; for tests that the checkers notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fault {
    /// It keeps its promises.
    #[default]
    None,
    /// `sync` of files does nothing.
    NoFileSync,
    /// `sync_dir` does nothing.
    NoFolderSync,
    /// A rename is first a removal of what had the new name, then the rename.
    RenameInTwoSteps,
    /// `sync_dir` of this folder does nothing.
    NoFolderSyncOf(&'static str),
    /// A rename to a path that has this in it loses the file.
    Drops(&'static str),
    /// What is sealed can be read whatever it is.
    SealsCheckNothing,
    /// A file that has lost its seal is said to bear it still.
    RemembersSeals,
}

#[derive(Debug, Default)]
struct Inner {
    contents: Contents,
    plan: Plan,
    fault: Fault,
    count: u64,
    total: u64,
    cut: bool,
    full: bool,
    read_only: bool,
    /// Grows whenever something durable changes.
    generation: u64,
}

/// A simulated disk; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    inner: Arc<Mutex<Inner>>,
}

fn gone() -> io::Error {
    io::Error::other("the power is gone")
}

impl Disk {
    /// A disk with these contents.
    pub fn with(contents: Contents) -> Self {
        let inner = Inner {
            contents,
            ..Inner::default()
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of everything on it.
    pub fn contents(&self) -> Contents {
        self.lock().contents.clone()
    }

    /// Puts other contents on it; what was planned stays.
    pub fn set_contents(&self, contents: Contents) {
        let mut inner = self.lock();
        inner.contents = contents;
        inner.generation += 1;
    }

    /// Sets what goes wrong from now on, and counts operations anew.
    pub fn plan(&self, plan: Plan) {
        let mut inner = self.lock();
        inner.plan = plan;
        inner.count = 0;
    }

    /// Makes it break its promises.
    pub fn set_fault(&self, fault: Fault) {
        self.lock().fault = fault;
    }

    /// Operations since the last plan.
    pub fn operations(&self) -> u64 {
        self.lock().count
    }

    /// Operations since it was made.
    pub fn operations_ever(&self) -> u64 {
        self.lock().total
    }

    /// Whether the power was cut.
    pub fn is_cut(&self) -> bool {
        self.lock().cut
    }

    /// Cuts the power now.
    pub fn cut(&self) {
        self.lock().cut = true;
    }

    /// Full from now on, or not any more.
    pub fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// What a store on it is to keep as a spare.
    pub(crate) fn spare_bytes(&self) -> u32 {
        self.lock().contents.spare_bytes
    }

    /// Somebody takes all the space that is free now.
    pub fn fill(&self) {
        self.lock().contents.fill();
    }

    /// Read-only from now on, or not any more.
    pub fn set_read_only_mount(&self, read_only: bool) {
        self.lock().read_only = read_only;
    }

    /// Files written from now on were changed at this time.
    pub fn set_time(&self, time_ms: u64) {
        self.lock().contents.time_ms = time_ms;
    }

    /// Grows whenever something durable changes.
    pub fn generation(&self) -> u64 {
        self.lock().generation
    }

    /// Power comes back: what was not durable is kept, lost or torn as `choose` says, and the rest is all there is.
    pub fn crash(&self, spread: Spread, choose: &mut dyn FnMut(usize) -> usize) {
        let mut inner = self.lock();
        inner.contents.crash(spread, choose);
        inner.cut = false;
        inner.generation += 1;
    }

    /// The program that used it was killed; what it wrote is in the machine's memory and stays.
    pub fn revive(&self) {
        self.lock().cut = false;
    }

    /// Makes everything durable, as a kernel does by itself after half a minute.
    pub fn write_back(&self) {
        let mut inner = self.lock();
        inner.generation += 1;
        for node in &mut inner.contents.nodes {
            match node {
                Node::File(file) => {
                    file.durable = Arc::clone(file.settle());
                    file.durable_seal = file.seal;
                }
                Node::Folder(folder) => {
                    folder.pending.clear();
                    folder.durable = folder.live.clone();
                }
                Node::Link(_) => {}
            }
        }
    }

    /// Changes the durable content of a file behind everybody's back; `None` removes it. Whether there was such a file.
    pub fn damage(&self, path: &str, bytes: Option<&[u8]>) -> bool {
        let mut inner = self.lock();
        inner.generation += 1;
        inner.contents.damage(path, bytes)
    }

    /// Takes the seal of a durable file away behind everybody's back.
    pub fn unseal(&self, path: &str) {
        self.lock().contents.unseal(path);
    }

    /// The durable content of a file.
    pub fn durable_file(&self, path: &str) -> Option<Arc<[u8]>> {
        self.lock().contents.durable_file(path)
    }

    /// The content of a file as programs see it now.
    pub fn live_file(&self, path: &str) -> Option<Arc<[u8]>> {
        let mut inner = self.lock();
        let id = inner.contents.find(Path::new(path)).ok()?;
        match &mut inner.contents.nodes[id] {
            Node::File(file) => Some(Arc::clone(file.settle())),
            Node::Folder(_) | Node::Link(_) => None,
        }
    }

    /// Whether reading a file is an error because it is not what was sealed.
    pub fn refuses(&self, path: &str) -> bool {
        let mut inner = self.lock();
        let checks = inner.fault != Fault::SealsCheckNothing;
        let Ok(id) = inner.contents.find(Path::new(path)) else {
            return false;
        };
        let file = inner.contents.file_mut(id);
        file.is_ok_and(|file| file.read(checks).is_err())
    }

    /// Whether there is durably something of this name.
    pub fn durably_exists(&self, path: &str) -> bool {
        self.lock().contents.durable_id(path).is_some()
    }

    /// Every durable file with its length, sorted.
    pub fn durable_files(&self) -> Vec<(String, usize)> {
        let inner = self.lock();
        let mut files = Vec::new();
        inner.contents.durable_below(ROOT, "", &mut files);
        files
    }

    /// Counts an operation; tells whether it may go on.
    fn step(&self) -> io::Result<MutexGuard<'_, Inner>> {
        let mut inner = self.lock();
        let number = inner.count;
        inner.count += 1;
        inner.total += 1;
        if inner.plan.cut_at == Some(number) {
            inner.plan.cut_at = None;
            inner.cut = true;
        }
        if inner.cut {
            return Err(gone());
        }
        if inner.read_only {
            return Err(error(io::ErrorKind::ReadOnlyFilesystem));
        }
        if inner.plan.fail_at == Some(number) {
            return Err(io::Error::other("input/output error"));
        }
        Ok(inner)
    }

    /// Reads are not points at which a cut differs from one at the next write.
    fn look(&self) -> io::Result<MutexGuard<'_, Inner>> {
        let inner = self.lock();
        if inner.cut { Err(gone()) } else { Ok(inner) }
    }
}

/// A file being written.
#[derive(Debug)]
pub struct Writing {
    disk: Disk,
    id: Id,
}

impl WriteFile for Writing {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.disk.step()?;
        let left = inner
            .contents
            .capacity
            .saturating_sub(inner.contents.used());
        if inner.full || left < bytes.len() as u64 {
            return Err(error(io::ErrorKind::StorageFull));
        }
        let time = inner.contents.time_ms;
        let file = inner.contents.file_mut(self.id)?;
        file.tail.extend_from_slice(bytes);
        file.modified_ms = time;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut inner = self.disk.step()?;
        inner.generation += 1;
        if inner.fault == Fault::NoFileSync {
            return Ok(());
        }
        let file = inner.contents.file_mut(self.id)?;
        file.durable = Arc::clone(file.settle());
        Ok(())
    }
}

/// A file being read: as it was when it was opened, as far as it is not written to.
#[derive(Debug)]
pub struct Reading {
    disk: Disk,
    id: Id,
}

impl ReadFile for Reading {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut inner = self.disk.look()?;
        let checks = inner.fault != Fault::SealsCheckNothing;
        let bytes = inner.contents.file_mut(self.id)?.read(checks)?;
        let offset = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        let count = buffer.len().min(bytes.len() - offset);
        buffer[..count].copy_from_slice(&bytes[offset..offset + count]);
        Ok(count)
    }

    fn len(&mut self) -> io::Result<u64> {
        let mut inner = self.disk.look()?;
        Ok(inner.contents.file_mut(self.id)?.settle().len() as u64)
    }
}

impl Port for Disk {
    type Write = Writing;
    type Read = Reading;

    fn create(&self, path: &Path) -> io::Result<Writing> {
        let mut inner = self.step()?;
        if inner.full {
            return Err(error(io::ErrorKind::StorageFull));
        }
        let time = inner.contents.time_ms;
        let contents = &mut inner.contents;
        let (folder, name) = contents.place(path)?;
        let id = match contents.folder(folder)?.live.get(name).copied() {
            Some(id) => {
                let file = contents.file_mut(id)?;
                if file.seal.is_some() {
                    return Err(error(io::ErrorKind::PermissionDenied));
                }
                file.tail.clear();
                file.live = Arc::default();
                id
            }
            None => {
                contents.operation += 1;
                let id = contents.add(Node::File(File::default()));
                contents.change(folder, name, Some(id), false);
                id
            }
        };
        contents.file_mut(id)?.modified_ms = time;
        let disk = self.clone();
        Ok(Writing { disk, id })
    }

    fn open_append(&self, path: &Path) -> io::Result<Writing> {
        let mut inner = self.look()?;
        let id = inner.contents.find(path)?;
        if inner.contents.file_mut(id)?.seal.is_some() {
            return Err(error(io::ErrorKind::PermissionDenied));
        }
        let disk = self.clone();
        Ok(Writing { disk, id })
    }

    fn open(&self, path: &Path) -> io::Result<Reading> {
        let mut inner = self.look()?;
        let id = inner.contents.find(path)?;
        inner.contents.file_mut(id)?;
        let disk = self.clone();
        Ok(Reading { disk, id })
    }

    fn read(&self, path: &Path, limit: usize) -> io::Result<Vec<u8>> {
        let mut inner = self.look()?;
        let id = inner.contents.find(path)?;
        let bytes = inner.contents.file_mut(id)?.settle();
        if bytes.len() > limit {
            return Err(error(io::ErrorKind::FileTooLarge));
        }
        Ok(bytes.to_vec())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let fault = self.lock().fault;
        let in_two_steps = fault == Fault::RenameInTwoSteps;
        let drops = match fault {
            Fault::Drops(part) => to.to_str().is_some_and(|to| to.contains(part)),
            Fault::None
            | Fault::NoFileSync
            | Fault::NoFolderSync
            | Fault::NoFolderSyncOf(_)
            | Fault::SealsCheckNothing
            | Fault::RemembersSeals
            | Fault::RenameInTwoSteps => false,
        };
        if in_two_steps && self.lock().contents.find(to).is_ok() {
            let mut inner = self.step()?;
            let (folder, name) = inner.contents.place(to)?;
            inner.contents.operation += 1;
            inner.contents.change(folder, name, None, false);
        }
        let mut inner = self.step()?;
        let contents = &mut inner.contents;
        let id = contents.find(from)?;
        let (old, old_name) = contents.place(from)?;
        let (new, new_name) = contents.place(to)?;
        let replaced = contents.folder(new)?.live.get(new_name).copied();
        if let Some(replaced) = replaced {
            check_replacement(&contents.nodes[id], &contents.nodes[replaced])?;
        }
        contents.operation += 1;
        if !drops {
            contents.change(new, new_name, Some(id), false);
        }
        contents.change(old, old_name, None, old != new && !drops);
        Ok(())
    }

    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        let mut inner = self.step()?;
        let contents = &mut inner.contents;
        let (one_id, other_id) = (contents.find(one)?, contents.find(other)?);
        let (one_folder, one_name) = contents.place(one)?;
        let (other_folder, other_name) = contents.place(other)?;
        if one_folder != other_folder {
            return Err(error(io::ErrorKind::Unsupported));
        }
        contents.operation += 1;
        contents.change(one_folder, one_name, Some(other_id), false);
        contents.change(other_folder, other_name, Some(one_id), false);
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.step()?;
        inner.generation += 1;
        let id = inner.contents.find(path)?;
        let skips = match inner.fault {
            Fault::NoFolderSync => true,
            Fault::NoFolderSyncOf(folder) => path == Path::new(folder),
            Fault::None
            | Fault::NoFileSync
            | Fault::RenameInTwoSteps
            | Fault::SealsCheckNothing
            | Fault::RemembersSeals
            | Fault::Drops(_) => false,
        };
        if skips {
            return Ok(());
        }
        inner.contents.sync_folder(id)
    }

    fn sync_all(&self) -> io::Result<()> {
        let inner = self.step()?;
        let fault = inner.fault;
        drop(inner);
        match fault {
            Fault::NoFileSync | Fault::NoFolderSync | Fault::NoFolderSyncOf(_) => {}
            Fault::None
            | Fault::RenameInTwoSteps
            | Fault::SealsCheckNothing
            | Fault::RemembersSeals
            | Fault::Drops(_) => self.write_back(),
        }
        Ok(())
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let found = self.look()?.contents.find(path);
        if let Ok(id) = found {
            return self.look()?.contents.folder(id).map(drop);
        }
        let mut inner = self.step()?;
        if inner.full {
            return Err(error(io::ErrorKind::StorageFull));
        }
        let contents = &mut inner.contents;
        let mut id = ROOT;
        for part in parts(path) {
            id = match contents.folder(id)?.live.get(part) {
                Some(next) => *next,
                None => {
                    contents.operation += 1;
                    let new = contents.add(Node::Folder(Folder::default()));
                    contents.change(id, part, Some(new), false);
                    new
                }
            };
        }
        Ok(())
    }

    fn symlink(&self, target: &Path, path: &Path) -> io::Result<()> {
        let mut inner = self.step()?;
        let contents = &mut inner.contents;
        let (folder, name) = contents.place(path)?;
        if contents.folder(folder)?.live.contains_key(name) {
            return Err(error(io::ErrorKind::AlreadyExists));
        }
        let target = target.to_str().expect("paths of the store are UTF-8");
        contents.operation += 1;
        let id = contents.add(Node::Link(target.into()));
        contents.change(folder, name, Some(id), false);
        Ok(())
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        let inner = self.look()?;
        let id = inner.contents.find(path)?;
        match &inner.contents.nodes[id] {
            Node::Link(target) => Ok(PathBuf::from(&**target)),
            Node::File(_) | Node::Folder(_) => Err(error(io::ErrorKind::InvalidInput)),
        }
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.step()?;
        let contents = &mut inner.contents;
        let id = contents.find(path)?;
        if let Node::Folder(_) = contents.nodes[id] {
            return Err(error(io::ErrorKind::IsADirectory));
        }
        let (folder, name) = contents.place(path)?;
        contents.operation += 1;
        contents.change(folder, name, None, false);
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        // One operation for each thing in it, deepest first, so that a cut leaves part of it.
        let names: Vec<String> = {
            let inner = self.look()?;
            let id = inner.contents.find(path)?;
            let names = inner.contents.folder(id)?.live.keys();
            names.map(|name| name.to_string()).collect()
        };
        for name in names {
            let below = path.join(name);
            let is_folder = {
                let inner = self.look()?;
                let id = inner.contents.find(&below)?;
                matches!(inner.contents.nodes[id], Node::Folder(_))
            };
            if is_folder {
                self.remove_dir_all(&below)?;
            } else {
                self.remove_file(&below)?;
            }
        }
        let mut inner = self.step()?;
        let (folder, name) = inner.contents.place(path)?;
        inner.contents.operation += 1;
        inner.contents.change(folder, name, None, false);
        Ok(())
    }

    fn visit(
        &self,
        path: &Path,
        visitor: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> io::Result<()> {
        let entries: Vec<Entry> = {
            let inner = self.look()?;
            let id = inner.contents.find(path)?;
            let names = inner.contents.folder(id)?.live.iter();
            names
                .map(|(name, id)| Entry {
                    name: name.to_string(),
                    kind: kind(&inner.contents.nodes[*id]),
                })
                .collect()
        };
        // The visitor may use the disk.
        for entry in entries {
            if visitor(entry).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let inner = self.look()?;
        let id = inner.contents.find(path)?;
        let node = &inner.contents.nodes[id];
        let (len, modified_ms, damages) = match node {
            Node::File(file) => {
                let len = (file.live.len() + file.tail.len()) as u64;
                (len, file.modified_ms, file.damages)
            }
            Node::Folder(folder) => (0, folder.modified_ms, 0),
            Node::Link(_) => (0, 0, 0),
        };
        Ok(Metadata {
            kind: kind(node),
            len,
            modified_ms,
            stamp: (id as u64) << 40 ^ damages << 32 ^ modified_ms << 8 ^ len,
        })
    }

    fn set_read_only(&self, path: &Path) -> io::Result<()> {
        self.look()?.contents.find(path).map(drop)
    }

    fn seal(&self, path: &Path) -> io::Result<()> {
        if !self.look()?.contents.seals {
            return Err(error(io::ErrorKind::Unsupported));
        }
        let mut inner = self.step()?;
        if inner.full {
            return Err(error(io::ErrorKind::StorageFull));
        }
        let id = inner.contents.find(path)?;
        let file = inner.contents.file_mut(id)?;
        file.seal = Some(ObjectId::of(file.settle()));
        // The file system's record of changes tells of it or not; nobody may rely on either.
        file.damages += 1;
        drop(inner);
        // A cut from here on may undo it.
        let mut inner = self.step()?;
        inner.generation += 1;
        let file = inner.contents.file_mut(id)?;
        file.durable_seal = file.seal;
        Ok(())
    }

    fn sealed(&self, path: &Path) -> io::Result<Option<Seal>> {
        let mut inner = self.look()?;
        let remembers = inner.fault == Fault::RemembersSeals;
        let id = inner.contents.find(path)?;
        let name = path
            .file_name()
            .and_then(|name| name.to_str()?.parse().ok());
        let seal = inner.contents.file_mut(id)?.seal;
        let seal = seal.or(name.filter(|_| remembers));
        Ok(seal.map(|seal: ObjectId| Seal::new(1, seal.to_string().as_bytes())))
    }

    fn space(&self) -> io::Result<Space> {
        let inner = self.look()?;
        let total = inner.contents.capacity;
        let free = if inner.full {
            0
        } else {
            total.saturating_sub(inner.contents.used())
        };
        Ok(Space { total, free })
    }
}

#[cfg(test)]
mod tests;
