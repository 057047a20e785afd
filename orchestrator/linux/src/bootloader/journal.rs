//! Brings what is durable in ext4's journal to its final place, because boot loaders read ext4 without replaying the journal.
//!
//! A kernel older than 5.14 and other file systems cannot be asked; then a boot loader may see what was there before until the next
//! mount, which costs a restart and never a device (decisions/0060).

#![allow(unsafe_code)] // one ioctl that rustix has no function for

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::io::Errno;
use rustix::ioctl::{Opcode, Setter, ioctl, opcode};

/// `EXT4_IOC_CHECKPOINT` of the kernel's `fs/ext4/ext4.h`.
const CHECKPOINT: Opcode = opcode::write::<u32>(b'f', 43);

/// Empties the journal of the file system that a folder lies on; whether that could be asked for.
///
/// # Errors
/// The folder cannot be opened, or the file system failed.
pub fn settle(folder: &Path) -> io::Result<bool> {
    let folder = File::open(folder)?;
    // SAFETY: the request reads one u32 of flags, which the setter holds for the call; none are set.
    let settled = unsafe { ioctl(&folder, Setter::<CHECKPOINT, u32>::new(0)) };
    match crate::progress::if_done(settled) {
        Ok(()) => Ok(true),
        Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::INVAL | Errno::PERM | Errno::NODEV) => {
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_that_cannot_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        eprintln!("ext4 with checkpoints: {}", settle(folder.path()).unwrap());
        assert!(!settle(Path::new("/proc")).unwrap());
        assert!(settle(&folder.path().join("gone")).is_err());
    }
}
