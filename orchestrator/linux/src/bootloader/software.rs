//! Kernels of revisions where boot loaders find them: links in the storage for boot loaders that read its file system, copies on the boot
//! partition for those that do not.
//!
//! Links have Pantavisor's names, `trails/<rev>/.pv/{pv-kernel.img,pv-initrd.img[.N],pv-fdt.dtb,pantavisor.fit}`. Copies lie in
//! `coxswain/<short name>/{linux,initrd[.N],devicetree}`; each is synced before it gets its name, so a name stands for the whole file.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::RevisionId;
use store::disk::{Disk, ReadFile as _, WriteFile as _};

use super::Kernels;
use super::efi_program;
use super::token::short_name;
use crate::replace::{folder_of, make_folders};

/// What a boot file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The kernel.
    Linux,
    /// The first initial file system.
    Initrd,
    /// One more, loaded behind the others.
    Addon(usize),
    /// The device tree.
    DeviceTree,
    /// Kernel, initial file system and device tree in one.
    Fit,
}

/// Further initial file systems that boot scripts load.
pub const ADDONS_MAX: usize = 8;

impl Role {
    /// Initial file systems, in the order in which they are loaded.
    pub fn initrds() -> impl Iterator<Item = Self> {
        [Self::Initrd]
            .into_iter()
            .chain((0..ADDONS_MAX).map(Self::Addon))
    }

    /// Pantavisor's name of a link to it.
    pub fn link_name(self) -> String {
        match self {
            Self::Linux => "pv-kernel.img".to_owned(),
            Self::Initrd => "pv-initrd.img".to_owned(),
            Self::Addon(number) => format!("pv-initrd.img.{number}"),
            Self::DeviceTree => "pv-fdt.dtb".to_owned(),
            Self::Fit => "pantavisor.fit".to_owned(),
        }
    }

    /// Name of a copy of it.
    pub fn copy_name(self) -> String {
        match self {
            Self::Linux => "linux".to_owned(),
            Self::Initrd => "initrd".to_owned(),
            Self::Addon(number) => format!("initrd.{number}"),
            Self::DeviceTree => "devicetree".to_owned(),
            Self::Fit => "fit".to_owned(),
        }
    }
}

/// One boot file: what it is for, and its object's path below the storage root.
pub type BootFile = (Role, PathBuf);

/// Boot files of revisions.
pub trait Software: fmt::Debug + Send {
    /// What the manifest's `bsp/` names; empty when there is nothing.
    ///
    /// # Errors
    /// The manifest cannot be read, or names what is not there.
    fn boot_files(&self, revision: &RevisionId) -> Result<Vec<BootFile>, String>;
}

/// Links in the storage.
#[derive(Debug)]
pub struct Links<D> {
    /// The storage.
    pub storage: Arc<D>,
    /// What to link.
    pub software: Box<dyn Software>,
    /// What the boot loader can start: a revision without any of these has no kernel for it.
    pub starts: &'static [Role],
}

impl<D: Disk + fmt::Debug> Kernels for Links<D> {
    fn put(&mut self, revision: &RevisionId) -> Result<bool, String> {
        let files = self.software.boot_files(revision)?;
        let folder = PathBuf::from(format!("trails/{revision}/.pv"));
        let up: PathBuf = folder.components().map(|_| "..").collect();
        for (role, object) in &files {
            let path = folder.join(role.link_name());
            let target = up.join(object);
            let made = link(&*self.storage, &target, &path);
            made.map_err(|error| {
                format!(
                    "cannot link {} for the boot loader: {error}",
                    path.display()
                )
            })?;
        }
        if !files.is_empty() {
            // Also when they were there: who made them may have been cut before this.
            self.storage.sync_dir(&folder).map_err(|error| {
                format!(
                    "cannot make the folder {} durable: {error}",
                    folder.display()
                )
            })?;
        }
        Ok(files.iter().any(|(role, _)| self.starts.contains(role)))
    }

    fn keep_only(&mut self, _revisions: &[&RevisionId]) {
        // Links go with their revisions.
    }
}

/// Makes a link that points to `target`, unless it is there.
fn link<D: Disk>(disk: &D, target: &Path, path: &Path) -> io::Result<()> {
    if disk.read_link(path).is_ok_and(|found| found == target) {
        return Ok(());
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let temp = PathBuf::from(name);
    match disk.remove_file(&temp) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    disk.symlink(target, &temp)?;
    disk.rename(&temp, path)
}

/// Copies on the boot partition.
#[derive(Debug)]
pub struct Copies<S, D> {
    /// Where the objects are.
    pub storage: Arc<S>,
    /// The boot partition.
    pub boot: Arc<D>,
    /// What to copy.
    pub software: Box<dyn Software>,
    /// Whether UEFI starts the kernels, and takes only what is a program of its own.
    pub are_efi: bool,
}

const COPIES: &str = "coxswain";
const COPY_STEP_BYTES: usize = 256 << 10;
/// So much of a copy is written before it is waited for: one sync of a whole kernel on a slow card takes longer than a watchdog waits.
const SYNC_STEP_BYTES: u64 = 4 << 20;

/// What was copied of a revision.
#[derive(Debug)]
pub(super) struct Copied {
    /// Its folder on the boot partition.
    pub(super) folder: PathBuf,
    names: BTreeSet<String>,
}

impl Copied {
    /// Looks on the boot partition.
    ///
    /// # Errors
    /// It cannot be read, or has no kernel of this revision.
    pub(super) fn of<D: Disk>(boot: &D, revision: &RevisionId) -> Result<Self, String> {
        let folder = folder_of_copies(revision);
        let files = match boot.list(&folder) {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                let folder = folder.display();
                return Err(format!(
                    "cannot list {folder} on the boot partition: {error}"
                ));
            }
        };
        let names = files.into_iter().map(|file| file.name).collect();
        let copied = Self { folder, names };
        if !copied.has(Role::Linux) {
            return Err(format!(
                "there is no kernel of revision {revision} in {} on the boot partition",
                copied.folder.display()
            ));
        }
        Ok(copied)
    }

    /// Whether there is a file of this kind.
    pub(super) fn has(&self, role: Role) -> bool {
        self.names.contains(&role.copy_name())
    }
}

fn folder_of_copies(revision: &RevisionId) -> PathBuf {
    Path::new(COPIES).join(short_name(revision))
}

impl<S: Disk, D: Disk> Copies<S, D> {
    /// Copies unless it is there with the same bytes: a boot partition has no checksums of its own.
    fn copy(&self, object: &Path, to: &Path) -> io::Result<()> {
        make_folders(&*self.boot, folder_of(to))?;
        if self.is_same(object, to)? {
            // Who made it may have been cut before its name was durable.
            return self.boot.sync_dir(folder_of(to));
        }
        let mut name = to.as_os_str().to_owned();
        name.push(".new");
        let temp = PathBuf::from(name);
        if let Err(error) = self.copy_whole(object, &temp) {
            // A boot partition that is full must not stay so because of what was not finished.
            self.boot.remove_file(&temp).ok();
            return Err(error);
        }
        self.boot.rename(&temp, to)?;
        self.boot.sync_dir(folder_of(to))
    }

    fn copy_whole(&self, object: &Path, to: &Path) -> io::Result<()> {
        let mut from = self.storage.open(object)?;
        let mut file = self.boot.create(to)?;
        let (mut buffer, mut offset, mut synced) = (vec![0; COPY_STEP_BYTES], 0, 0);
        loop {
            let count = from.read_at(offset, &mut buffer)?;
            if count == 0 {
                return file.sync();
            }
            file.append(&buffer[..count])?;
            offset += count as u64;
            if offset - synced >= SYNC_STEP_BYTES {
                file.sync()?;
                synced = offset;
            }
        }
    }

    /// A kernel that the boot loader could not start must not be there for it.
    fn judge(&self, object: &Path) -> io::Result<Option<&'static str>> {
        if !self.are_efi {
            return Ok(None);
        }
        let mut file = self.storage.open(object)?;
        let (mut head, mut filled) = (vec![0; efi_program::HEAD_BYTES], 0);
        loop {
            match file.read_at(filled as u64, &mut head[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        Ok(efi_program::problem(&head[..filled], file.len()?))
    }

    fn is_same(&self, object: &Path, copy: &Path) -> io::Result<bool> {
        let mut copy = match self.boot.open(copy) {
            Ok(copy) => copy,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let mut object = self.storage.open(object)?;
        if copy.len()? != object.len()? {
            return Ok(false);
        }
        let (mut one, mut other) = (vec![0; COPY_STEP_BYTES], vec![0; COPY_STEP_BYTES]);
        let mut offset = 0;
        loop {
            let count = object.read_at(offset, &mut one)?;
            if count == 0 {
                return Ok(true);
            }
            let mut filled = 0;
            while filled < count {
                match copy.read_at(offset + filled as u64, &mut other[filled..count]) {
                    Ok(0) => return Ok(false),
                    Ok(more) => filled += more,
                    // What cannot be read is written anew.
                    Err(_) => return Ok(false),
                }
            }
            if one[..count] != other[..count] {
                return Ok(false);
            }
            offset += count as u64;
        }
    }
}

impl<S: Disk + fmt::Debug, D: Disk + fmt::Debug> Kernels for Copies<S, D> {
    fn put(&mut self, revision: &RevisionId) -> Result<bool, String> {
        let files = self.software.boot_files(revision)?;
        let folder = folder_of_copies(revision);
        for (_, object) in files.iter().filter(|(role, _)| *role == Role::Linux) {
            let problem = self
                .judge(object)
                .map_err(|error| format!("cannot read {}: {error}", object.display()))?;
            if let Some(problem) = problem {
                return Err(format!(
                    "the kernel of revision {revision} cannot be started: {problem}"
                ));
            }
        }
        for (role, object) in &files {
            let to = folder.join(role.copy_name());
            self.copy(object, &to).map_err(|error| {
                format!(
                    "cannot copy {} of revision {revision} to {} on the boot partition: {error}",
                    object.display(),
                    to.display()
                )
            })?;
        }
        Ok(files.iter().any(|(role, _)| *role == Role::Linux))
    }

    fn keep_only(&mut self, revisions: &[&RevisionId]) {
        let Ok(found) = self.boot.list(Path::new(COPIES)) else {
            return;
        };
        let kept: Vec<_> = revisions
            .iter()
            .map(|revision| short_name(revision))
            .collect();
        for entry in found {
            let is_ours =
                entry.name.len() == 16 && entry.name.bytes().all(|byte| byte.is_ascii_hexdigit());
            if is_ours && !kept.contains(&entry.name) {
                let path = Path::new(COPIES).join(&entry.name);
                if let Err(error) = self.boot.remove_dir_all(&path) {
                    tracing::warn!(
                        "cannot remove {} from the boot partition: {error}",
                        path.display()
                    );
                }
            }
        }
    }
}
