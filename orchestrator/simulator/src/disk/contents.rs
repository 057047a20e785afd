//! Everything on a simulated disk, durable or not, and what a power cut makes of it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use model::ObjectId;
use store::disk::EntryKind;

use super::Spread;

pub(super) type Id = usize;
pub(super) const ROOT: Id = 0;

pub(super) fn error(kind: io::ErrorKind) -> io::Error {
    io::Error::from(kind)
}

#[derive(Debug, Clone)]
pub(super) enum Node {
    File(File),
    Folder(Folder),
    Link(Arc<str>),
}

#[derive(Debug, Clone, Default)]
pub(super) struct File {
    pub(super) live: Arc<[u8]>,
    pub(super) durable: Arc<[u8]>,
    pub(super) modified_ms: u64,
    /// What its bytes were when it was sealed; and durably.
    pub(super) seal: Option<ObjectId>,
    pub(super) durable_seal: Option<ObjectId>,
    /// How often it was damaged: the file system's own record of changes tells, as ctime does.
    pub(super) damages: u64,
    /// Bytes appended since `live` was last made whole: appending to a shared slice would copy it each time.
    pub(super) tail: Vec<u8>,
}

impl File {
    pub(super) fn settle(&mut self) -> &Arc<[u8]> {
        if !self.tail.is_empty() {
            let mut whole = self.live.to_vec();
            whole.append(&mut self.tail);
            self.live = whole.into();
        }
        &self.live
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Folder {
    pub(super) live: BTreeMap<Arc<str>, Id>,
    pub(super) durable: BTreeMap<Arc<str>, Id>,
    pub(super) pending: Vec<Change>,
    pub(super) modified_ms: u64,
}

/// A change of names that is not durable yet.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) name: Arc<str>,
    pub(super) to: Option<Id>,
    /// Changes of one operation have the same number.
    pub(super) operation: u64,
    /// The removal of the old name by a rename into another folder.
    pub(super) is_old_name: bool,
}

/// Everything on a disk, durable or not. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Contents {
    pub(super) nodes: Vec<Node>,
    pub(super) operation: u64,
    pub(super) capacity: u64,
    pub(super) time_ms: u64,
    /// Whether files can be sealed.
    pub(super) seals: bool,
    /// Bytes that somebody else has taken.
    pub(super) filled: u64,
    /// What a store on it is to keep as a spare.
    pub(crate) spare_bytes: u32,
}

impl Default for Contents {
    fn default() -> Self {
        Self {
            nodes: vec![Node::Folder(Folder::default())],
            operation: 0,
            capacity: 64 << 20,
            time_ms: 0,
            seals: false,
            filled: 0,
            spare_bytes: 0,
        }
    }
}

pub(super) fn parts(path: &Path) -> impl Iterator<Item = &str> {
    let text = path.to_str().expect("paths of the store are UTF-8");
    text.split('/')
        .filter(|part| !part.is_empty() && *part != ".")
}

impl Contents {
    /// Files can be sealed from now on.
    pub fn allow_seals(&mut self) {
        self.seals = true;
    }

    /// A store on it keeps a spare from now on.
    pub fn keep_spare(&mut self) {
        self.spare_bytes = 16 << 10;
    }

    /// How many bytes fit.
    pub fn set_capacity(&mut self, bytes: u64) {
        self.capacity = bytes;
    }

    pub(super) fn folder(&self, id: Id) -> io::Result<&Folder> {
        match &self.nodes[id] {
            Node::Folder(folder) => Ok(folder),
            Node::File(_) | Node::Link(_) => Err(error(io::ErrorKind::NotADirectory)),
        }
    }

    pub(super) fn folder_mut(&mut self, id: Id) -> io::Result<&mut Folder> {
        match &mut self.nodes[id] {
            Node::Folder(folder) => Ok(folder),
            Node::File(_) | Node::Link(_) => Err(error(io::ErrorKind::NotADirectory)),
        }
    }

    pub(super) fn file_mut(&mut self, id: Id) -> io::Result<&mut File> {
        match &mut self.nodes[id] {
            Node::File(file) => Ok(file),
            Node::Folder(_) => Err(error(io::ErrorKind::IsADirectory)),
            Node::Link(_) => Err(error(io::ErrorKind::InvalidInput)),
        }
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<Id> {
        let mut id = ROOT;
        for part in parts(path) {
            let next = self.folder(id)?.live.get(part);
            id = *next.ok_or_else(|| error(io::ErrorKind::NotFound))?;
        }
        Ok(id)
    }

    /// The folder and name of a path that may not exist.
    pub(super) fn place<'p>(&self, path: &'p Path) -> io::Result<(Id, &'p str)> {
        let name = parts(path)
            .last()
            .ok_or_else(|| error(io::ErrorKind::InvalidInput))?;
        let folder = self.find(path.parent().unwrap_or(Path::new("")))?;
        self.folder(folder)?;
        Ok((folder, name))
    }

    pub(super) fn add(&mut self, node: Node) -> Id {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    pub(super) fn change(&mut self, folder: Id, name: &str, to: Option<Id>, is_old_name: bool) {
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

    pub(super) fn used(&self) -> u64 {
        let len = |node: &Node| match node {
            Node::File(file) => (file.live.len() + file.tail.len()) as u64,
            Node::Folder(_) | Node::Link(_) => 0,
        };
        if self.filled == 0 {
            // What is removed is counted until the next cut: there is room enough, and this is asked often.
            return self.nodes.iter().map(len).sum();
        }
        let reachable = self.reachable();
        let there = self
            .nodes
            .iter()
            .zip(reachable)
            .filter(|(_, reachable)| *reachable);
        self.filled + there.map(|(node, _)| len(node)).sum::<u64>()
    }

    /// Somebody takes all the space that is free now; what is removed from now on, durably, is free again.
    pub(super) fn fill(&mut self) {
        self.filled = 1;
        self.filled += self.capacity.saturating_sub(self.used());
    }

    pub(super) fn sync_folder(&mut self, id: Id) -> io::Result<()> {
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

    pub(super) fn is_pending_elsewhere(&self, not_in: Id, operation: u64) -> bool {
        self.nodes.iter().enumerate().any(|(id, node)| match node {
            Node::Folder(folder) if id != not_in => folder
                .pending
                .iter()
                .any(|change| change.operation == operation && !change.is_old_name),
            Node::Folder(_) | Node::File(_) | Node::Link(_) => false,
        })
    }

    pub(super) fn crash(&mut self, spread: Spread, choose: &mut dyn FnMut(usize) -> usize) {
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
    pub(super) fn choose_changes(
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
    pub(super) fn choose_contents(
        &mut self,
        spread: Spread,
        choose: &mut dyn FnMut(usize) -> usize,
    ) {
        let mut common = None;
        let reachable = self.reachable();
        for (id, node) in self.nodes.iter_mut().enumerate() {
            let Node::File(file) = node else { continue };
            file.settle();
            if file.seal != file.durable_seal {
                // It is there or not, whatever becomes of the rest.
                let survives = reachable[id] && choose(2) == 1;
                file.durable_seal = file.seal.filter(|_| survives);
                file.seal = file.durable_seal;
            }
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

    pub(super) fn reachable(&self) -> Vec<bool> {
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
    pub(super) fn forget_unreachable(&mut self) {
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

    pub(super) fn durable_id(&self, path: &str) -> Option<Id> {
        let mut id = ROOT;
        for part in path.split('/') {
            match &self.nodes[id] {
                Node::Folder(folder) => id = *folder.durable.get(part)?,
                Node::File(_) | Node::Link(_) => return None,
            }
        }
        Some(id)
    }

    pub(super) fn durable_file(&self, path: &str) -> Option<Arc<[u8]>> {
        match &self.nodes[self.durable_id(path)?] {
            Node::File(file) => Some(Arc::clone(&file.durable)),
            Node::Folder(_) | Node::Link(_) => None,
        }
    }

    pub(super) fn durable_below(&self, id: Id, prefix: &str, files: &mut Vec<(String, usize)>) {
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

    pub(super) fn unseal(&mut self, path: &str) {
        if let Some(id) = self.durable_id(path)
            && let Node::File(file) = &mut self.nodes[id]
        {
            (file.seal, file.durable_seal) = (None, None);
        }
    }

    pub(super) fn damage(&mut self, path: &str, bytes: Option<&[u8]>) -> bool {
        let Some(id) = self.durable_id(path) else {
            return false;
        };
        match bytes {
            Some(bytes) => {
                if let Node::File(file) = &mut self.nodes[id] {
                    file.tail.clear();
                    file.durable = bytes.into();
                    file.live = Arc::clone(&file.durable);
                    file.damages += 1;
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

impl File {
    /// What a program that reads it is given: what a seal does not stand for is an error.
    pub(super) fn read(&mut self, checks: bool) -> io::Result<&Arc<[u8]>> {
        let seal = self.seal.filter(|_| checks);
        let bytes = self.settle();
        match seal {
            Some(seal) if ObjectId::of(bytes) != seal => Err(io::Error::other(
                "input/output error: a sealed block differs",
            )),
            Some(_) | None => Ok(bytes),
        }
    }
}

pub(super) fn apply(names: &mut BTreeMap<Arc<str>, Id>, change: &Change) {
    match change.to {
        Some(id) => names.insert(Arc::clone(&change.name), id),
        None => names.remove(&change.name),
    };
}

pub(super) fn kind(node: &Node) -> EntryKind {
    match node {
        Node::File(_) => EntryKind::File,
        Node::Folder(_) => EntryKind::Dir,
        Node::Link(_) => EntryKind::Link,
    }
}

pub(super) fn check_replacement(new: &Node, old: &Node) -> io::Result<()> {
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
