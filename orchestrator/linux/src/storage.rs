//! Mounting the storage of an init, and letting it grow.
#![allow(unsafe_code)] // one ioctl that rustix has no function for

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::io::Errno;
use rustix::ioctl::{self, Setter};
use rustix::mount::MountFlags;

use crate::mounts::MountError;

/// `EXT4_IOC_RESIZE_FS`: to so many blocks.
const EXT4_IOC_RESIZE_FS: ioctl::Opcode = ioctl::opcode::write::<u64>(b'f', 16);

/// How a storage could be mounted.
#[derive(Debug)]
pub enum Access {
    /// It can be written.
    Full,
    /// It cannot, and why.
    ReadOnly(MountError),
}

/// Mounts a storage: no devices, no programs with their owner's rights, no writes for reads. ext4 becomes read-only when it finds an error
/// in itself. A device that takes no writes is mounted read-only, if need be without replaying its journal.
///
/// # Errors
/// [`MountError::Mount`] of the last attempt.
pub fn mount(device: &Path, target: &Path, kind: &str) -> Result<Access, MountError> {
    let why = match mount_writable(device, target, kind) {
        Ok(()) => return Ok(Access::Full),
        Err(why) => why,
    };
    let options: &[&str] = if kind == "ext4" {
        &["", "noload"]
    } else {
        &[""]
    };
    let mut last = None;
    for options in options {
        match attempt(device, target, kind, (SAFE | MountFlags::RDONLY, options)) {
            Ok(()) => return Ok(Access::ReadOnly(why)),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or(why))
}

/// The same, writable or not at all.
///
/// # Errors
/// [`MountError::Mount`].
pub fn mount_writable(device: &Path, target: &Path, kind: &str) -> Result<(), MountError> {
    let options = if kind == "ext4" {
        "errors=remount-ro,data=ordered"
    } else {
        ""
    };
    attempt(device, target, kind, (SAFE, options))
}

/// Mounts a boot partition: FAT, which knows no owners, so that only root may read it. It becomes read-only when an error is found in it.
/// Entries go to the disk at once (`dirsync`): a rename writes the new one, with where the file begins, before the old one goes.
///
/// # Errors
/// [`MountError::Mount`].
pub fn mount_boot(device: &Path, target: &Path) -> Result<(), MountError> {
    let flags = SAFE | MountFlags::NOEXEC | MountFlags::DIRSYNC;
    let options = "umask=0077,shortname=mixed,errors=remount-ro";
    attempt(device, target, "vfat", (flags, options))
}

/// Whether it is the file system that is damaged, and not the device that takes no writes.
pub fn is_damage(error: &MountError) -> bool {
    let MountError::Mount { source, .. } = error else {
        return false;
    };
    let damage = [Errno::UCLEAN, Errno::BADMSG].map(|errno| Some(errno.raw_os_error()));
    damage.contains(&source.raw_os_error())
}

const SAFE: MountFlags = MountFlags::NODEV
    .union(MountFlags::NOSUID)
    .union(MountFlags::NOATIME);

fn attempt(
    device: &Path,
    target: &Path,
    kind: &str,
    (flags, options): (MountFlags, &str),
) -> Result<(), MountError> {
    let options = std::ffi::CString::new(options).unwrap_or_default();
    let mounted = rustix::mount::mount(device, target, kind, flags, options.as_c_str());
    mounted.map_err(|errno: Errno| MountError::Mount {
        what: format!("{} ({kind})", device.display()),
        target: target.to_owned(),
        source: errno.into(),
    })
}

/// Lets the mounted ext4 grow to so many bytes, while it is in use.
///
/// # Errors
/// As the kernel gives them.
pub fn grow(mounted: &Path, bytes: u64) -> io::Result<()> {
    let folder = File::open(mounted)?;
    let block = rustix::fs::fstatvfs(&folder)?.f_bsize.max(1);
    // SAFETY: the call reads one `__u64`.
    unsafe {
        ioctl::ioctl(
            &folder,
            Setter::<EXT4_IOC_RESIZE_FS, u64>::new(bytes / block),
        )
    }?;
    Ok(())
}
