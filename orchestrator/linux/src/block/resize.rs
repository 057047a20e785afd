//! Lets the last partition of a disk reach the disk's end, and tells the kernel, while the partition is in use.
#![allow(unsafe_code)] // one ioctl that rustix has no function for

use std::ffi::c_void;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::ioctl::{self, Setter};

use super::larger::{self, Larger, Refused};
use super::{devices, size};

const BLKPG: ioctl::Opcode = 0x1269;
/// `BLKPG_RESIZE_PARTITION`: another length, the same start.
const RESIZE: i32 = 3;

/// `struct blkpg_partition`.
#[repr(C)]
struct Resized {
    start: i64,
    bytes: i64,
    number: i32,
    names: [[u8; 64]; 2],
}

/// `struct blkpg_ioctl_arg`.
#[repr(C)]
struct Argument {
    operation: i32,
    flags: i32,
    length: i32,
    data: *mut c_void,
}

/// Why a partition is as large as it was.
#[derive(Debug, thiserror::Error)]
pub enum ResizeError {
    /// A disk that cannot be read or written.
    #[error("cannot {operation} {}", path.display())]
    Disk {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Its table cannot be changed.
    #[error("{} stays as it is", path.display())]
    Refused {
        /// The partition.
        path: PathBuf,
        /// Why.
        #[source]
        source: Refused,
    },
}

/// Lets a partition reach the end of its disk, durably. Its new length in bytes; `None` when there is nothing to gain, or when
/// the device is no partition.
///
/// # Errors
/// [`ResizeError`]. When only the kernel could not be told, the next start sees the new length.
pub fn grow_partition(device: &Path) -> Result<Option<u64>, ResizeError> {
    let real = fs::canonicalize(device).unwrap_or_else(|_| device.to_owned());
    let found = devices().into_iter().find(|one| one.path == real);
    let Some((disk, number)) = found.and_then(|one| one.part_of) else {
        return Ok(None);
    };
    let failed = |operation| {
        let path = disk.clone();
        move |source| ResizeError::Disk {
            operation,
            path,
            source,
        }
    };
    let bytes = size(&disk).map_err(failed("find the length of"))?;
    let file = File::open(&disk).map_err(failed("open"))?;
    let read = |offset: u64, length: usize| {
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, offset).ok()?;
        Some(bytes)
    };
    let planned = larger::plan(&read, bytes, sector(&disk), number);
    let planned = planned.map_err(|source| ResizeError::Refused {
        path: device.to_owned(),
        source,
    })?;
    let Some(plan) = planned else {
        return Ok(None);
    };
    write(&disk, &plan).map_err(failed("write the partition table of"))?;
    tell(&file, number, &plan).map_err(failed("tell the kernel of a longer partition of"))?;
    Ok(Some(plan.bytes))
}

/// Bytes of a sector.
fn sector(disk: &Path) -> u64 {
    let name = disk.file_name().unwrap_or_default();
    let file = Path::new("/sys/class/block").join(name);
    let text = fs::read_to_string(file.join("queue/logical_block_size")).unwrap_or_default();
    text.trim().parse().unwrap_or(512)
}

fn write(disk: &Path, plan: &Larger) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(disk)?;
    for (offset, bytes) in &plan.first {
        file.write_all_at(bytes, *offset)?;
    }
    file.sync_all()?;
    let (offset, sector) = &plan.last;
    file.write_all_at(sector, *offset)?;
    file.sync_all()
}

fn tell(disk: &File, number: u32, plan: &Larger) -> io::Result<()> {
    let signed = |value: u64| i64::try_from(value).map_err(|_| io::ErrorKind::InvalidInput);
    let mut resized = Resized {
        start: signed(plan.start)?,
        bytes: signed(plan.bytes)?,
        number: i32::try_from(number).map_err(|_| io::ErrorKind::InvalidInput)?,
        names: [[0; 64]; 2],
    };
    let argument = Argument {
        operation: RESIZE,
        flags: 0,
        length: i32::try_from(size_of::<Resized>()).map_err(|_| io::ErrorKind::InvalidInput)?,
        data: (&raw mut resized).cast(),
    };
    // SAFETY: the call reads one `struct blkpg_ioctl_arg` and the `struct blkpg_partition` that it points to, which lives until it is back.
    unsafe { ioctl::ioctl(disk, Setter::<BLKPG, Argument>::new(argument)) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_partition_stays() {
        assert!(matches!(grow_partition(Path::new("/dev/null")), Ok(None)));
        assert!(matches!(grow_partition(Path::new("/nowhere")), Ok(None)));
    }
}
