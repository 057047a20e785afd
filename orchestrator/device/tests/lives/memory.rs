//! A disk in memory that forgets nothing and can be made to refuse writes. Losing unsynced writes is the simulator's business.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use store::disk::{Disk, Entry, EntryKind, Metadata, ReadFile, Space, WriteFile};

enum Node {
    File(Arc<Mutex<Vec<u8>>>),
    Dir,
    Link(PathBuf),
}

#[derive(Default)]
struct Tree {
    nodes: BTreeMap<PathBuf, Node>,
    refusing: bool,
    writes: u64,
}

#[derive(Clone, Default)]
pub struct MemoryDisk(Arc<Mutex<Tree>>);

impl MemoryDisk {
    /// From now on every write fails as on a full disk, or works again.
    pub fn refuse_writes(&self, refusing: bool) {
        self.0.lock().unwrap().refusing = refusing;
    }

    pub fn damage(&self, path: &str) {
        let tree = self.0.lock().unwrap();
        match tree.nodes.get(Path::new(path)) {
            Some(Node::File(bytes)) => bytes.lock().unwrap().push(b'!'),
            Some(Node::Dir | Node::Link(_)) | None => panic!("no file {path}"),
        }
    }

    /// Whether a write may be made now.
    fn write(&self) -> io::Result<std::sync::MutexGuard<'_, Tree>> {
        let mut tree = self.0.lock().unwrap();
        if tree.refusing {
            return Err(io::ErrorKind::StorageFull.into());
        }
        tree.writes += 1;
        Ok(tree)
    }
}

pub struct Writing {
    bytes: Arc<Mutex<Vec<u8>>>,
    disk: MemoryDisk,
}

impl WriteFile for Writing {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        drop(self.disk.write()?);
        self.bytes.lock().unwrap().extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        drop(self.disk.write()?);
        Ok(())
    }
}

pub struct Reading(Arc<Mutex<Vec<u8>>>);

impl ReadFile for Reading {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.0.lock().unwrap();
        let rest = bytes
            .get(usize::try_from(offset).unwrap()..)
            .unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn len(&mut self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk for MemoryDisk {
    type Write = Writing;
    type Read = Reading;

    fn create(&self, path: &Path) -> io::Result<Writing> {
        let bytes = Arc::default();
        let node = Node::File(Arc::clone(&bytes));
        self.write()?.nodes.insert(path.to_owned(), node);
        let disk = self.clone();
        Ok(Writing { bytes, disk })
    }

    fn open_append(&self, path: &Path) -> io::Result<Writing> {
        let disk = self.clone();
        let bytes = self.open(path)?.0;
        Ok(Writing { bytes, disk })
    }

    fn open(&self, path: &Path) -> io::Result<Reading> {
        match self.0.lock().unwrap().nodes.get(path) {
            Some(Node::File(bytes)) => Ok(Reading(Arc::clone(bytes))),
            Some(Node::Dir | Node::Link(_)) | None => Err(missing()),
        }
    }

    fn read(&self, path: &Path, limit: usize) -> io::Result<Vec<u8>> {
        let bytes = self.open(path)?.0.lock().unwrap().clone();
        if bytes.len() > limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(bytes)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut tree = self.write()?;
        let moved: Vec<_> = tree
            .nodes
            .keys()
            .filter(|path| path.starts_with(from))
            .cloned()
            .collect();
        if moved.is_empty() {
            return Err(missing());
        }
        tree.nodes.retain(|path, _| !path.starts_with(to));
        for path in moved {
            let node = tree.nodes.remove(&path).unwrap();
            let rest = path.strip_prefix(from).unwrap();
            let path = if rest == Path::new("") {
                to.to_owned()
            } else {
                to.join(rest)
            };
            tree.nodes.insert(path, node);
        }
        Ok(())
    }

    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        drop(self.write()?);
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        drop(self.write()?);
        Ok(())
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut tree = self.write()?;
        for folder in path.ancestors().filter(|folder| *folder != Path::new("")) {
            tree.nodes.entry(folder.to_owned()).or_insert(Node::Dir);
        }
        Ok(())
    }

    fn symlink(&self, target: &Path, path: &Path) -> io::Result<()> {
        let node = Node::Link(target.to_owned());
        self.write()?.nodes.insert(path.to_owned(), node);
        Ok(())
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        match self.0.lock().unwrap().nodes.get(path) {
            Some(Node::Link(target)) => Ok(target.clone()),
            Some(Node::File(_) | Node::Dir) => Err(io::ErrorKind::InvalidInput.into()),
            None => Err(missing()),
        }
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.write()?
            .nodes
            .remove(path)
            .map(drop)
            .ok_or_else(missing)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut tree = self.write()?;
        let before = tree.nodes.len();
        tree.nodes.retain(|known, _| !known.starts_with(path));
        if tree.nodes.len() == before {
            Err(missing())
        } else {
            Ok(())
        }
    }

    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        let aside = Path::new("exchange.aside");
        self.rename(one, aside)?;
        self.rename(other, one)?;
        self.rename(aside, other)
    }

    fn visit(
        &self,
        path: &Path,
        visitor: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> io::Result<()> {
        for entry in self.list(path)? {
            if visitor(entry).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let tree = self.0.lock().unwrap();
        if path != Path::new("") && !tree.nodes.contains_key(path) {
            return Err(missing());
        }
        Ok(tree
            .nodes
            .iter()
            .filter(|(known, _)| known.parent() == Some(path))
            .map(|(known, node)| Entry {
                name: known.file_name().unwrap().to_str().unwrap().to_owned(),
                kind: kind(node),
            })
            .collect())
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let tree = self.0.lock().unwrap();
        let node = tree.nodes.get(path).ok_or_else(missing)?;
        Ok(Metadata {
            kind: kind(node),
            len: match node {
                Node::File(bytes) => bytes.lock().unwrap().len() as u64,
                Node::Dir | Node::Link(_) => 0,
            },
            modified_ms: 0,
            stamp: 0,
        })
    }

    fn set_read_only(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn space(&self) -> io::Result<Space> {
        Ok(Space {
            total: 1 << 30,
            free: 1 << 29,
        })
    }
}

fn kind(node: &Node) -> EntryKind {
    match node {
        Node::File(_) => EntryKind::File,
        Node::Dir => EntryKind::Dir,
        Node::Link(_) => EntryKind::Link,
    }
}
