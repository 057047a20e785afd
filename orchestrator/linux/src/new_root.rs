//! From the initramfs to the root that stays: runc cannot `pivot_root` while `/` is the initramfs itself.
//!
//! The system is an image in the initramfs, mounted where it lies. This program, which is `/init` there, shows up in the system by a bind
//! mount, so its bytes are in memory once. Everything else in the initramfs is removed.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::statfs;
use rustix::mount::{mount_bind, mount_move};

use crate::mounts::{self, MountError};

/// `statfs` types of what an initramfs is unpacked to.
const RAMFS: i64 = 0x8584_58F6;
const TMPFS: i64 = 0x0102_1994;

/// Why the root could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum NewRootError {
    /// The image.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// A step.
    #[error("cannot {what}")]
    Step {
        /// What was to be done.
        what: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Whether `/` is an initramfs.
pub fn is_initramfs() -> bool {
    statfs("/").is_ok_and(|found| {
        // The width of the field differs between machines.
        #[allow(clippy::unnecessary_cast)]
        let kind = found.f_type as i64 & 0xFFFF_FFFF;
        kind == RAMFS || kind == TMPFS
    })
}

/// Mounts `image` and makes it the root; `moved` are mounts that go along, `program` is ours in the initramfs and `shown` where the
/// system has an empty file for it.
///
/// # Errors
/// See [`NewRootError`]; before the last step the old root is still in use.
pub fn enter(
    image: &Path,
    moved: &[&str],
    program: &Path,
    shown: &str,
) -> Result<(), NewRootError> {
    let root = PathBuf::from("/new-root");
    step("make /new-root", fs::create_dir_all(&root))?;
    mounts::mount_image(image, "squashfs", &root)?;
    let below = |path: &str| root.join(path.trim_start_matches('/'));
    let place = below(shown);
    // A system may bring a program of its own.
    if fs::metadata(&place).is_ok_and(|metadata| metadata.len() == 0) {
        step(
            "show this program in the system",
            mount_bind(program, &place).map_err(Into::into),
        )?;
    }
    for path in moved {
        let moved = mount_move(*path, below(path)).map_err(Into::into);
        step(&format!("move {path}"), moved)?;
    }
    remove_all_but(&[program, image, &root]);
    step("go to the new root", std::env::set_current_dir(&root))?;
    step(
        "put it over the old one",
        mount_move(".", "/").map_err(Into::into),
    )?;
    // The kernel's own threads share this root: its helpers, as `modprobe`, are found in the system from now on.
    step(
        "change the root",
        rustix::process::chroot(".").map_err(Into::into),
    )?;
    step("go to /", std::env::set_current_dir("/"))
}

fn step(what: &str, result: io::Result<()>) -> Result<(), NewRootError> {
    result.map_err(|source| NewRootError::Step {
        what: what.to_owned(),
        source,
    })
}

/// Frees what the initramfs takes. What cannot be removed costs memory, no more.
fn remove_all_but(kept: &[&Path]) {
    let Ok(root) = fs::metadata("/") else {
        return;
    };
    for entry in fs::read_dir("/").into_iter().flatten().flatten() {
        let path = entry.path();
        if kept.contains(&path.as_path()) {
            continue;
        }
        // Never into another file system, whatever is mounted there.
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.dev() != root.dev() => {}
            Ok(metadata) if metadata.is_dir() => remove_tree(&path, root.dev()),
            Ok(_) => drop(fs::remove_file(&path)),
            Err(_) => {}
        }
    }
}

fn remove_tree(folder: &Path, device: u64) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.dev() != device => {}
            Ok(metadata) if metadata.is_dir() => remove_tree(&path, device),
            Ok(_) => drop(fs::remove_file(&path)),
            Err(_) => {}
        }
    }
    drop(fs::remove_dir(folder));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removal_stays_on_its_file_system() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(tree.join("a/b/file"), "x").unwrap();
        let device = fs::metadata(&tree).unwrap().dev();
        remove_tree(&tree, device + 1);
        assert!(tree.join("a/b/file").exists());
        std::os::unix::fs::symlink("/etc", tree.join("link")).unwrap();
        remove_tree(&tree, device);
        assert!(!tree.exists());
        assert!(Path::new("/etc/passwd").exists());
    }
}
