//! The real [`Disk`]: a folder of the machine, opened once.
//!
//! Every path is resolved below that folder's descriptor, and the kernel refuses to leave it (`openat2`, `RESOLVE_BENEATH`); kernels
//! without that call get no links followed at the last step instead. What is durable when is said at [`Disk`]; here it is `fsync`.

use std::ffi::OsStr;
use std::io;
use std::num::NonZeroU64;
use std::ops::ControlFlow;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    Advice, AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, RenameFlags, ResolveFlags,
    Stat,
};
use rustix::io::Errno;
use store::disk::{Disk, Entry, EntryKind, Metadata, ReadFile, Seal, Space, WriteFile};

use crate::fs_verity;

use crate::progress::{self, if_done};

/// Only root needs to look into the storage; objects become readable for all when they are complete.
const FILE_MODE: Mode = Mode::from_raw_mode(0o600);
const DIR_MODE: Mode = Mode::from_raw_mode(0o755);
/// A file that is read whole gets a buffer of at most this size before its length is believed.
const READ_AHEAD_BYTES: usize = 64 << 10;
/// `MSDOS_SUPER_MAGIC`, of vfat too.
const FAT: rustix::fs::FsWord = 0x4D44;

/// A storage root on a file system of the machine.
#[derive(Debug)]
pub struct LinuxDisk {
    root: OwnedFd,
    /// Whether the kernel knows `openat2`.
    beneath: bool,
    /// Whether it is FAT: there a file's length and place stand in its folder, and go to the disk with the file, not with the folder.
    is_fat: bool,
}

impl LinuxDisk {
    /// Opens the folder, which must be there.
    ///
    /// # Errors
    /// As the operating system gives them.
    pub fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, root, flags, Mode::empty())?;
        let probe = rustix::fs::openat2(&root, ".", flags, Mode::empty(), ResolveFlags::BENEATH);
        // Old container run times answer calls that they do not know with "not permitted".
        let beneath = !matches!(probe, Err(Errno::NOSYS | Errno::PERM));
        let is_fat = rustix::fs::fstatfs(&root).is_ok_and(|found| found.f_type == FAT);
        Ok(Self {
            root,
            beneath,
            is_fat,
        })
    }

    /// Takes the storage for this process until the disk is dropped. Two orchestrators on one storage would undo each other's work.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when another process has it.
    pub fn lock(&self) -> io::Result<()> {
        Ok(rustix::fs::flock(
            &self.root,
            FlockOperation::NonBlockingLockExclusive,
        )?)
    }

    fn open_path(&self, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        check(path)?;
        let flags = flags | OFlags::CLOEXEC;
        let opened = if self.beneath {
            // A rename elsewhere may make the kernel unsure for a moment.
            loop {
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
                match rustix::fs::openat2(&self.root, path, flags, mode, resolve) {
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    other => break other,
                }
            }
        } else {
            rustix::fs::openat(&self.root, path, flags | OFlags::NOFOLLOW, mode)
        };
        Ok(if_done(opened)?)
    }

    fn open_dir(&self, path: &Path) -> io::Result<OwnedFd> {
        self.open_path(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
    }

    /// The folder that a name lies in, opened only to reach it, and the name.
    fn parent<'a>(&self, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
        check(path)?;
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            Some(_) | None => Path::new("."),
        };
        let folder = self.open_path(parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
        Ok((folder, name))
    }

    fn rename_with(&self, from: &Path, to: &Path, flags: RenameFlags) -> io::Result<()> {
        let (from_folder, from_name) = self.parent(from)?;
        let (to_folder, to_name) = self.parent(to)?;
        rustix::fs::renameat_with(&from_folder, from_name, &to_folder, to_name, flags)?;
        Ok(())
    }
}

/// Paths are built from parsed names, so anything else is a mistake of ours, and is stopped here.
fn check(path: &Path) -> io::Result<()> {
    let is_clean = path
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if is_clean && !path.as_os_str().is_empty() {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidInput.into())
    }
}

/// A file of the machine that is appended to.
#[derive(Debug)]
pub struct LinuxWrite {
    file: OwnedFd,
    written: u64,
    write_back_from: u64,
}

impl WriteFile for LinuxWrite {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match rustix::io::write(&self.file, rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.written += count as u64;
                    rest = &rest[count..];
                    progress::made();
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn start_writeback(&mut self) {
        // For pages that are dirty this advice starts to write them and keeps them (only clean ones are dropped); it needs no unsafe
        // call as sync_file_range would. It is a hint, so a refusal does not matter.
        let (from, len) = (self.write_back_from, self.written - self.write_back_from);
        if let Some(len) = NonZeroU64::new(len)
            && rustix::fs::fadvise(&self.file, from, Some(len), Advice::DontNeed).is_ok()
        {
            self.write_back_from = self.written;
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(if_done(rustix::fs::fsync(&self.file))?)
    }
}

/// A file of the machine that is read.
#[derive(Debug)]
pub struct LinuxRead {
    file: OwnedFd,
}

impl LinuxRead {
    /// The descriptor, for calls such as `sendfile`.
    pub fn into_fd(self) -> OwnedFd {
        self.file
    }
}

impl ReadFile for LinuxRead {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match rustix::io::pread(&self.file, &mut *buffer, offset) {
                Err(Errno::INTR) => {}
                Ok(count) => {
                    if count > 0 {
                        progress::made();
                    }
                    return Ok(count);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn len(&mut self) -> io::Result<u64> {
        let stat = rustix::fs::fstat(&self.file)?;
        Ok(u64::try_from(stat.st_size).unwrap_or(0))
    }
}

impl Disk for LinuxDisk {
    type Write = LinuxWrite;
    type Read = LinuxRead;

    fn create(&self, path: &Path) -> io::Result<LinuxWrite> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        let file = self.open_path(path, flags, FILE_MODE)?;
        Ok(LinuxWrite {
            file,
            written: 0,
            write_back_from: 0,
        })
    }

    fn open_append(&self, path: &Path) -> io::Result<LinuxWrite> {
        let flags = OFlags::WRONLY | OFlags::APPEND;
        let file = self.open_path(path, flags, Mode::empty())?;
        let len = u64::try_from(rustix::fs::fstat(&file)?.st_size).unwrap_or(0);
        Ok(LinuxWrite {
            file,
            written: len,
            write_back_from: len,
        })
    }

    fn open(&self, path: &Path) -> io::Result<LinuxRead> {
        // A pipe that somebody put there must not make us wait.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let file = self.open_path(path, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&file)?;
        match kind_of(FileType::from_raw_mode(stat.st_mode)) {
            EntryKind::File => Ok(LinuxRead { file }),
            EntryKind::Dir => Err(io::ErrorKind::IsADirectory.into()),
            EntryKind::Link | EntryKind::Other => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn read(&self, path: &Path, limit: usize) -> io::Result<Vec<u8>> {
        let mut file = self.open(path)?;
        let len = usize::try_from(file.len()?).unwrap_or(usize::MAX);
        if len > limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut bytes = Vec::with_capacity(len.saturating_add(1));
        loop {
            let have = bytes.len();
            bytes.resize(have + (len + 1 - have.min(len)).min(READ_AHEAD_BYTES), 0);
            let count = file.read_at(have as u64, &mut bytes[have..])?;
            bytes.truncate(have + count);
            if count == 0 {
                return Ok(bytes);
            }
            if bytes.len() > limit {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.rename_with(from, to, RenameFlags::empty())
    }

    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        let result = self.rename_with(one, other, RenameFlags::EXCHANGE);
        match result {
            // So say file systems and kernels that do not know the flag.
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                Err(io::ErrorKind::Unsupported.into())
            }
            other => other,
        }
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        if self.is_fat {
            // A renamed file's new entry would say where it begins only later, and its old one is gone already. This writes it; what
            // follows empties the device's cache.
            if_done(rustix::fs::syncfs(&self.root))?;
        }
        Ok(if_done(rustix::fs::fsync(self.open_dir(path)?))?)
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(if_done(rustix::fs::syncfs(&self.root))?)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        check(path)?;
        let mut made = PathBuf::new();
        for part in path.components() {
            made.push(part);
            if made == Path::new(".") {
                continue;
            }
            let (folder, name) = self.parent(&made)?;
            match rustix::fs::mkdirat(&folder, name, DIR_MODE) {
                Ok(()) => {}
                // Opening it as a folder says whether it is one.
                Err(Errno::EXIST) => drop(self.open_dir(&made)?),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn symlink(&self, target: &Path, path: &Path) -> io::Result<()> {
        let (folder, name) = self.parent(path)?;
        Ok(rustix::fs::symlinkat(target, &folder, name)?)
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        let (folder, name) = self.parent(path)?;
        let target = rustix::fs::readlinkat(&folder, name, Vec::new())?;
        Ok(PathBuf::from(OsStr::from_bytes(target.as_bytes())))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let (folder, name) = self.parent(path)?;
        Ok(rustix::fs::unlinkat(&folder, name, AtFlags::empty())?)
    }

    /// Folders may be nested deeper than there are descriptors or stack (a container made them), so each inner folder is first moved
    /// up beside the others.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let top = rustix::fs::openat(&parent, name, flags, Mode::empty())?;
        let mut moved: u64 = 0;
        loop {
            let inner = remove_files(&top)?;
            if inner.is_empty() {
                break;
            }
            for name in inner {
                let folder = rustix::fs::openat(&top, name.as_c_str(), flags, Mode::empty())?;
                loop {
                    let inner = remove_files(&folder)?;
                    if inner.is_empty() {
                        break;
                    }
                    for below in inner {
                        move_up(&folder, &below, &top, &mut moved)?;
                    }
                }
                rustix::fs::unlinkat(&top, name.as_c_str(), AtFlags::REMOVEDIR)?;
            }
        }
        Ok(rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR)?)
    }

    fn visit(
        &self,
        path: &Path,
        visitor: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> io::Result<()> {
        let folder = self.open_dir(path)?;
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            if matches!(name, "." | "..") {
                continue;
            }
            let mut kind = entry.file_type();
            if kind == FileType::Unknown {
                let Some(stat) = lookup(&folder, name)? else {
                    continue;
                };
                kind = FileType::from_raw_mode(stat.st_mode);
            }
            let entry = Entry {
                name: name.to_owned(),
                kind: kind_of(kind),
            };
            progress::made();
            if visitor(entry).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let (folder, name) = self.parent(path)?;
        let stat = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let seconds = u64::try_from(stat.st_mtime).unwrap_or(0);
        #[allow(clippy::useless_conversion, reason = "signed on some machines")]
        let nanoseconds = u64::try_from(stat.st_mtime_nsec).unwrap_or(0);
        Ok(Metadata {
            kind: kind_of(FileType::from_raw_mode(stat.st_mode)),
            len: u64::try_from(stat.st_size).unwrap_or(0),
            modified_ms: seconds.saturating_mul(1000) + nanoseconds / 1_000_000,
            stamp: stamp(&stat),
        })
    }

    fn set_read_only(&self, path: &Path) -> io::Result<()> {
        let file = self.open_path(path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
        match rustix::fs::fchmod(&file, Mode::from_raw_mode(0o444)) {
            // File systems without modes.
            Err(Errno::PERM | Errno::NOTSUP | Errno::NOSYS) => Ok(()),
            other => Ok(other?),
        }
    }

    fn seal(&self, path: &Path) -> io::Result<()> {
        let file = self.open(path)?;
        fs_verity::enable(file.file.as_fd())?;
        Ok(rustix::fs::fsync(&file.file)?)
    }

    fn sealed(&self, path: &Path) -> io::Result<Option<Seal>> {
        fs_verity::measure(self.open(path)?.file.as_fd())
    }

    fn space(&self) -> io::Result<Space> {
        let space = rustix::fs::fstatvfs(&self.root)?;
        Ok(Space {
            total: space.f_blocks.saturating_mul(space.f_frsize),
            free: space.f_bavail.saturating_mul(space.f_frsize),
        })
    }
}

/// Removes what is not a folder from a folder; the names of the folders in it, at most some thousands at a time.
fn remove_files(folder: &OwnedFd) -> io::Result<Vec<std::ffi::CString>> {
    const FOLDERS_MAX: usize = 4096;
    let mut folders = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match if_done(rustix::fs::unlinkat(folder, name, AtFlags::empty())) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM) => {
                folders.push(name.to_owned());
                if folders.len() == FOLDERS_MAX {
                    break;
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(folders)
}

/// Moves a folder from an inner folder up to the top one, under a name that is free there.
fn move_up(
    folder: &OwnedFd,
    name: &std::ffi::CStr,
    top: &OwnedFd,
    moved: &mut u64,
) -> io::Result<()> {
    loop {
        let up = format!(".up-{moved}");
        *moved += 1;
        match rustix::fs::renameat_with(folder, name, top, &up, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(()),
            Err(Errno::EXIST | Errno::NOTEMPTY) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn lookup(folder: &OwnedFd, name: &str) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn kind_of(kind: FileType) -> EntryKind {
    match kind {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Dir,
        FileType::Symlink => EntryKind::Link,
        FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => EntryKind::Other,
    }
}

/// Inode, size and times of change as one number.
fn stamp(stat: &rustix::fs::Stat) -> u64 {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    (stat.st_ino, stat.st_size, stat.st_mtime, stat.st_mtime_nsec).hash(&mut hasher);
    (stat.st_ctime, stat.st_ctime_nsec).hash(&mut hasher);
    hasher.finish()
}

/// Whether the file system of a folder can be written at all.
pub fn is_writable(folder: &Path) -> bool {
    rustix::fs::statvfs(folder)
        .is_ok_and(|found| !found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}
