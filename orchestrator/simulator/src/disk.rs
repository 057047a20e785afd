//! A disk in memory that keeps no more than `store::disk` promises.
//!
//! The fault model:
//! - What was appended to a file is durable after `sync` of the file; before that a power cut leaves what was durable before, all
//!   of it, a part, or zeros in its place.
//! - Names (create, rename, link, remove) are durable after `sync_dir` of their folder; before that a power cut keeps any of
//!   these changes and loses any other, in any combination. A rename is one change: the thing never loses both names, and a
//!   name never stands for part of anything. Between folders both names may be left.
//! - The power can be cut before any operation; every operation after that fails, and changes nothing.
//! - An operation may fail once, reads may fail, and the disk may be full.
//! - What is durable is changed only by [`Disk::damage`].
//!
//! Contents are shared and copied on write, so an image costs little to clone.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use store::disk::{Disk as Port, Entry, EntryKind, Metadata, ReadFile, Space, WriteFile};

type Id = usize;
const ROOT: Id = 0;

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

#[derive(Debug, Clone)]
enum Node {
    File(File),
    Folder(Folder),
    Link(Arc<str>),
}

#[derive(Debug, Clone, Default)]
struct File {
    live: Arc<[u8]>,
    durable: Arc<[u8]>,
    modified_ms: u64,
    /// Bytes appended since `live` was last made whole: appending to a shared slice would copy it each time.
    tail: Vec<u8>,
}

impl File {
    fn settle(&mut self) -> &Arc<[u8]> {
        if !self.tail.is_empty() {
            let mut whole = self.live.to_vec();
            whole.append(&mut self.tail);
            self.live = whole.into();
        }
        &self.live
    }
}

#[derive(Debug, Clone, Default)]
struct Folder {
    live: BTreeMap<Arc<str>, Id>,
    durable: BTreeMap<Arc<str>, Id>,
    pending: Vec<Change>,
    modified_ms: u64,
}

/// A change of names that is not durable yet.
#[derive(Debug, Clone)]
struct Change {
    name: Arc<str>,
    to: Option<Id>,
    /// Changes of one operation have the same number.
    operation: u64,
    /// The removal of the old name by a rename into another folder.
    is_old_name: bool,
}

/// Everything on a disk, durable or not. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Contents {
    nodes: Vec<Node>,
    operation: u64,
    capacity: u64,
    time_ms: u64,
}

impl Default for Contents {
    fn default() -> Self {
        Self {
            nodes: vec![Node::Folder(Folder::default())],
            operation: 0,
            capacity: 64 << 20,
            time_ms: 0,
        }
    }
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

fn error(kind: io::ErrorKind) -> io::Error {
    io::Error::from(kind)
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
                Node::File(file) => file.durable = Arc::clone(file.settle()),
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

fn parts(path: &Path) -> impl Iterator<Item = &str> {
    let text = path.to_str().expect("paths of the store are UTF-8");
    text.split('/')
        .filter(|part| !part.is_empty() && *part != ".")
}

impl Contents {
    /// How many bytes fit.
    pub fn set_capacity(&mut self, bytes: u64) {
        self.capacity = bytes;
    }

    fn folder(&self, id: Id) -> io::Result<&Folder> {
        match &self.nodes[id] {
            Node::Folder(folder) => Ok(folder),
            Node::File(_) | Node::Link(_) => Err(error(io::ErrorKind::NotADirectory)),
        }
    }

    fn folder_mut(&mut self, id: Id) -> io::Result<&mut Folder> {
        match &mut self.nodes[id] {
            Node::Folder(folder) => Ok(folder),
            Node::File(_) | Node::Link(_) => Err(error(io::ErrorKind::NotADirectory)),
        }
    }

    fn file_mut(&mut self, id: Id) -> io::Result<&mut File> {
        match &mut self.nodes[id] {
            Node::File(file) => Ok(file),
            Node::Folder(_) => Err(error(io::ErrorKind::IsADirectory)),
            Node::Link(_) => Err(error(io::ErrorKind::InvalidInput)),
        }
    }

    fn find(&self, path: &Path) -> io::Result<Id> {
        let mut id = ROOT;
        for part in parts(path) {
            let next = self.folder(id)?.live.get(part);
            id = *next.ok_or_else(|| error(io::ErrorKind::NotFound))?;
        }
        Ok(id)
    }

    /// The folder and name of a path that may not exist.
    fn place<'p>(&self, path: &'p Path) -> io::Result<(Id, &'p str)> {
        let name = parts(path)
            .last()
            .ok_or_else(|| error(io::ErrorKind::InvalidInput))?;
        let folder = self.find(path.parent().unwrap_or(Path::new("")))?;
        self.folder(folder)?;
        Ok((folder, name))
    }

    fn add(&mut self, node: Node) -> Id {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn change(&mut self, folder: Id, name: &str, to: Option<Id>, is_old_name: bool) {
        let (operation, modified_ms) = (self.operation, self.time_ms);
        let Node::Folder(folder) = &mut self.nodes[folder] else {
            unreachable!("callers found a folder");
        };
        folder.modified_ms = modified_ms;
        let name: Arc<str> = name.into();
        match to {
            Some(id) => folder.live.insert(Arc::clone(&name), id),
            None => folder.live.remove(&name),
        };
        folder.pending.push(Change {
            name,
            to,
            operation,
            is_old_name,
        });
    }

    fn used(&self) -> u64 {
        let lens = self.nodes.iter().map(|node| match node {
            Node::File(file) => (file.live.len() + file.tail.len()) as u64,
            Node::Folder(_) | Node::Link(_) => 0,
        });
        lens.sum()
    }

    fn sync_folder(&mut self, id: Id) -> io::Result<()> {
        let pending = std::mem::take(&mut self.folder_mut(id)?.pending);
        let mut kept = Vec::new();
        let mut applied = Vec::new();
        for change in pending {
            // The old name goes for good only when the new one is there for good.
            let waits = change.is_old_name && self.is_pending_elsewhere(id, change.operation);
            if waits {
                kept.push(change);
            } else {
                applied.push(change);
            }
        }
        // A name that stands for something newer by now is not removed any more.
        kept.retain(|waiting: &Change| {
            let mut newer = applied.iter();
            !newer.any(|change| change.name == waiting.name && change.operation > waiting.operation)
        });
        let folder = self.folder_mut(id)?;
        for change in applied {
            apply(&mut folder.durable, &change);
        }
        folder.pending = kept;
        Ok(())
    }

    fn is_pending_elsewhere(&self, not_in: Id, operation: u64) -> bool {
        self.nodes.iter().enumerate().any(|(id, node)| match node {
            Node::Folder(folder) if id != not_in => folder
                .pending
                .iter()
                .any(|change| change.operation == operation && !change.is_old_name),
            Node::Folder(_) | Node::File(_) | Node::Link(_) => false,
        })
    }

    fn crash(&mut self, spread: Spread, choose: &mut dyn FnMut(usize) -> usize) {
        let keep = self.choose_changes(spread, choose);
        for node in &mut self.nodes {
            if let Node::Folder(folder) = node {
                for change in std::mem::take(&mut folder.pending) {
                    if keep(&change) {
                        apply(&mut folder.durable, &change);
                    }
                }
                folder.live = folder.durable.clone();
            }
        }
        self.choose_contents(spread, choose);
        self.forget_unreachable();
    }

    /// Which changes of names survive.
    fn choose_changes(
        &self,
        spread: Spread,
        choose: &mut dyn FnMut(usize) -> usize,
    ) -> impl Fn(&Change) -> bool + use<> {
        let mut operations: Vec<(u64, bool)> = Vec::new();
        for node in &self.nodes {
            if let Node::Folder(folder) = node {
                let ids = folder.pending.iter();
                operations.extend(ids.map(|change| (change.operation, change.is_old_name)));
            }
        }
        operations.sort_unstable();
        operations.dedup();
        let count = operations.len();
        let kept: Vec<bool> = if count == 0 {
            Vec::new()
        } else {
            match spread {
                Spread::Every => (0..count).map(|_| choose(2) == 1).collect(),
                Spread::Single => {
                    let choice = if count == 1 {
                        choose(2)
                    } else {
                        choose(2 + 2 * count)
                    };
                    (0..count)
                        .map(|n| match choice {
                            0 => false,
                            1 => true,
                            other if other < 2 + count => n != other - 2,
                            other => n == other - 2 - count,
                        })
                        .collect()
                }
                Spread::Ends => vec![choose(2) == 1; count],
            }
        };
        let all: BTreeMap<(u64, bool), bool> = operations.into_iter().zip(kept).collect();
        move |change| {
            let own = all.get(&(change.operation, change.is_old_name));
            let own = own.copied().unwrap_or(false);
            // Without the new name the old one stays.
            let new_name = all.get(&(change.operation, false)).copied();
            own && (!change.is_old_name || new_name.unwrap_or(true))
        }
    }

    /// What is in files that were not synced.
    fn choose_contents(&mut self, spread: Spread, choose: &mut dyn FnMut(usize) -> usize) {
        let mut common = None;
        let reachable = self.reachable();
        for (id, node) in self.nodes.iter_mut().enumerate() {
            let Node::File(file) = node else { continue };
            file.settle();
            if Arc::ptr_eq(&file.live, &file.durable) || file.live == file.durable {
                continue;
            }
            let choice = if !reachable[id] {
                0
            } else {
                match spread {
                    Spread::Every => choose(4),
                    Spread::Single => *common.get_or_insert_with(|| choose(4)),
                    Spread::Ends => *common.get_or_insert_with(|| choose(2)),
                }
            };
            match choice {
                0 => {}
                1 => file.durable = Arc::clone(&file.live),
                2 => file.durable = file.live[..file.live.len() / 2].into(),
                _ => file.durable = vec![0; file.live.len()].into(),
            }
            file.live = Arc::clone(&file.durable);
        }
    }

    fn reachable(&self) -> Vec<bool> {
        let mut reachable = vec![false; self.nodes.len()];
        let mut todo = vec![ROOT];
        while let Some(id) = todo.pop() {
            if std::mem::replace(&mut reachable[id], true) {
                continue;
            }
            if let Node::Folder(folder) = &self.nodes[id] {
                todo.extend(folder.live.values().chain(folder.durable.values()));
            }
        }
        reachable
    }

    /// Removed things cost memory until the next power cut; then nobody can have them open.
    fn forget_unreachable(&mut self) {
        let reachable = self.reachable();
        let dead = reachable.iter().filter(|reachable| !**reachable).count();
        if dead < 64 {
            return;
        }
        let mut moved = vec![ROOT; self.nodes.len()];
        let mut next = 0;
        for (id, reachable) in reachable.iter().enumerate() {
            if *reachable {
                moved[id] = next;
                next += 1;
            }
        }
        let mut id = 0;
        self.nodes.retain_mut(|node| {
            let keep = reachable[id];
            id += 1;
            if let Node::Folder(folder) = node
                && keep
            {
                let ids = folder.live.values_mut().chain(folder.durable.values_mut());
                ids.for_each(|id| *id = moved[*id]);
            }
            keep
        });
    }

    fn durable_id(&self, path: &str) -> Option<Id> {
        let mut id = ROOT;
        for part in path.split('/') {
            match &self.nodes[id] {
                Node::Folder(folder) => id = *folder.durable.get(part)?,
                Node::File(_) | Node::Link(_) => return None,
            }
        }
        Some(id)
    }

    fn durable_file(&self, path: &str) -> Option<Arc<[u8]>> {
        match &self.nodes[self.durable_id(path)?] {
            Node::File(file) => Some(Arc::clone(&file.durable)),
            Node::Folder(_) | Node::Link(_) => None,
        }
    }

    fn durable_below(&self, id: Id, prefix: &str, files: &mut Vec<(String, usize)>) {
        let Node::Folder(folder) = &self.nodes[id] else {
            return;
        };
        for (name, id) in &folder.durable {
            let path = if prefix.is_empty() {
                name.to_string()
            } else {
                format!("{prefix}/{name}")
            };
            match &self.nodes[*id] {
                Node::File(file) => files.push((path, file.durable.len())),
                Node::Link(target) => files.push((format!("{path} -> {target}"), 0)),
                Node::Folder(_) => self.durable_below(*id, &path, files),
            }
        }
    }

    fn damage(&mut self, path: &str, bytes: Option<&[u8]>) -> bool {
        let Some(id) = self.durable_id(path) else {
            return false;
        };
        match bytes {
            Some(bytes) => {
                if let Node::File(file) = &mut self.nodes[id] {
                    file.tail.clear();
                    file.durable = bytes.into();
                    file.live = Arc::clone(&file.durable);
                }
            }
            None => {
                let place = self.place(Path::new(path));
                if let Ok((folder, name)) = place
                    && let Node::Folder(folder) = &mut self.nodes[folder]
                {
                    folder.live.remove(name);
                    folder.durable.remove(name);
                    folder.pending.retain(|change| &*change.name != name);
                }
            }
        }
        true
    }
}

fn apply(names: &mut BTreeMap<Arc<str>, Id>, change: &Change) {
    match change.to {
        Some(id) => names.insert(Arc::clone(&change.name), id),
        None => names.remove(&change.name),
    };
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
        let bytes = inner.contents.file_mut(self.id)?.settle();
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
        inner.contents.file_mut(id)?;
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
        let in_two_steps = self.lock().fault == Fault::RenameInTwoSteps;
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
        contents.change(new, new_name, Some(id), false);
        contents.change(old, old_name, None, old != new);
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
        if inner.fault == Fault::NoFolderSync {
            return Ok(());
        }
        inner.contents.sync_folder(id)
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
        let (len, modified_ms) = match node {
            Node::File(file) => ((file.live.len() + file.tail.len()) as u64, file.modified_ms),
            Node::Folder(folder) => (0, folder.modified_ms),
            Node::Link(_) => (0, 0),
        };
        Ok(Metadata {
            kind: kind(node),
            len,
            modified_ms,
            stamp: (id as u64) << 40 ^ modified_ms << 8 ^ len,
        })
    }

    fn set_read_only(&self, path: &Path) -> io::Result<()> {
        self.look()?.contents.find(path).map(drop)
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

fn kind(node: &Node) -> EntryKind {
    match node {
        Node::File(_) => EntryKind::File,
        Node::Folder(_) => EntryKind::Dir,
        Node::Link(_) => EntryKind::Link,
    }
}

fn check_replacement(new: &Node, old: &Node) -> io::Result<()> {
    match (new, old) {
        (Node::Folder(_), Node::Folder(folder)) if folder.live.is_empty() => Ok(()),
        (Node::Folder(_), Node::Folder(_)) => Err(error(io::ErrorKind::DirectoryNotEmpty)),
        (Node::Folder(_), Node::File(_) | Node::Link(_)) => {
            Err(error(io::ErrorKind::NotADirectory))
        }
        (Node::File(_) | Node::Link(_), Node::Folder(_)) => Err(error(io::ErrorKind::IsADirectory)),
        (Node::File(_) | Node::Link(_), Node::File(_) | Node::Link(_)) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
