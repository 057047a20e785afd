//! Where one copy of a boot loader's environment lies: a file on a file system, or a range of a device.
//!
//! A file is replaced by a rename, so it is the old or the new one. A range is written in place and may tear; it is only ever used
//! where another copy is good.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use store::disk::Disk;

use crate::replace::replace;

/// Bytes of one copy; U-Boot's are between 4 KiB and 256 KiB.
pub const AREA_BYTES_MAX: usize = 1 << 20;

/// One copy.
pub trait Area: fmt::Debug + Send {
    /// What is there, at most [`AREA_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// As the operating system gives them.
    fn read(&self) -> io::Result<Vec<u8>>;

    /// Writes it durably.
    ///
    /// # Errors
    /// As the operating system gives them.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Whether a write that is cut leaves the old bytes or the new ones, never a mix.
    fn is_atomic(&self) -> bool;

    /// Where it is, for people.
    fn place(&self) -> String;
}

/// A file.
#[derive(Debug)]
pub struct FileArea<D> {
    /// The file system.
    pub disk: Arc<D>,
    /// The file, below the disk's root.
    pub path: PathBuf,
}

impl<D: Disk + fmt::Debug> Area for FileArea<D> {
    fn read(&self) -> io::Result<Vec<u8>> {
        self.disk.read(&self.path, AREA_BYTES_MAX)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        replace(&*self.disk, &self.path, bytes)
    }

    fn is_atomic(&self) -> bool {
        true
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }
}

/// A range of a block device (or of a file that the boot loader reads by its place on the device).
#[derive(Debug)]
pub struct RawArea {
    /// The device.
    pub device: PathBuf,
    /// Bytes from its start.
    pub offset: u64,
    /// Bytes of the range, at most [`AREA_BYTES_MAX`].
    pub len: usize,
}

impl Area for RawArea {
    fn read(&self) -> io::Result<Vec<u8>> {
        let file = File::open(&self.device)?;
        let mut bytes = vec![0; self.len.min(AREA_BYTES_MAX)];
        file.read_exact_at(&mut bytes, self.offset)?;
        Ok(bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() > self.len {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let file = OpenOptions::new().write(true).open(&self.device)?;
        file.write_all_at(bytes, self.offset)?;
        file.sync_all()?;
        // Who reads it back reads the medium, not our own page cache. Only a hint: a file system may not know it.
        rustix::fs::fadvise(
            &file,
            self.offset,
            NonZeroU64::new(bytes.len() as u64),
            rustix::fs::Advice::DontNeed,
        )
        .ok();
        Ok(())
    }

    fn is_atomic(&self) -> bool {
        false
    }

    fn place(&self) -> String {
        format!("{} at {:#x}", self.device.display(), self.offset)
    }
}
