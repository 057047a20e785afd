//! dm-verity devices: a block device that shows an image and refuses to read what does not match its tree of hashes.
//!
//! Spoken to by `ioctl` on `/dev/mapper/control`, as much of it as this needs. A device lives as long as something uses it: its removal is
//! asked for at once, and the kernel carries it out with the last user (`DM_DEFERRED_REMOVE`), so a kill leaves none behind for long.
#![allow(unsafe_code)] // one ioctl, which rustix has no function for

use std::ffi::c_void;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use model::verity::{Superblock, hex};
use rustix::io::Errno;
use rustix::ioctl::{self, Ioctl, IoctlOutput, Opcode};

const CONTROL: &str = "/dev/mapper/control";
const HEADER: usize = 312;
const TARGET: usize = 40;
/// Header, one target and its parameters.
const BUFFER: usize = 4096;

const CREATE: u8 = 3;
const REMOVE: u8 = 4;
const SUSPEND: u8 = 6;
const LOAD: u8 = 9;
const STATUS: u8 = 12;

const READ_ONLY: u32 = 1;
const STATUS_TABLE: u32 = 1 << 4;
const DEFERRED_REMOVE: u32 = 1 << 17;

/// Why there is no such device.
#[derive(Debug, thiserror::Error)]
pub enum VerityError {
    /// The kernel has no device mapper, or no dm-verity.
    #[error("this kernel has no dm-verity (module dm_verity)")]
    NotThere,
    /// A part that cannot be opened.
    #[error("cannot use {path}")]
    Part {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The root is no hash.
    #[error("root_hash {0:?} is not the hexadecimal digits of a hash")]
    BadRoot(String),
    /// A step that the kernel refused.
    #[error("the device mapper cannot {step} the verity device {name}")]
    Refused {
        /// What.
        step: &'static str,
        /// Which device.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A device that shows an image through its tree.
#[derive(Debug)]
pub struct VerityDevice {
    name: String,
    path: PathBuf,
}

impl VerityDevice {
    /// Makes the device of this name from two block devices.
    ///
    /// # Errors
    /// See [`VerityError`]; nothing is left behind.
    pub fn make(
        name: &str,
        data: &Path,
        hashes: &Path,
        superblock: &Superblock,
        root_hash: &str,
    ) -> Result<Self, VerityError> {
        let digits = root_hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !digits || !root_hash.len().is_multiple_of(2) || root_hash.len() > 128 {
            return Err(VerityError::BadRoot(root_hash.to_owned()));
        }
        let control = control()?;
        let (data, hashes) = (number(data)?, number(hashes)?);
        let salt = match superblock.salt.is_empty() {
            true => "-".to_owned(),
            false => hex(&superblock.salt),
        };
        let parameters = format!(
            "1 {data} {hashes} {} {} {} 1 {} {root_hash} {salt}",
            superblock.data_block,
            superblock.hash_block,
            superblock.data_blocks,
            superblock.algorithm
        );
        let refused = |step| {
            let name = name.to_owned();
            move |errno: Errno| VerityError::Refused {
                step,
                name,
                source: errno.into(),
            }
        };
        let made = call(&control, CREATE, name, READ_ONLY, &[]);
        let made = match made {
            Err(Errno::BUSY) => {
                // One that a kill left, which nobody uses; else one that something still shows, such as a container that ends slowly.
                drop(call(&control, REMOVE, name, 0, &[]));
                match call(&control, CREATE, name, READ_ONLY, &[]) {
                    Err(Errno::BUSY) if is_good(&control, name, root_hash) => {
                        let header = call(&control, STATUS, name, 0, &[]);
                        return Ok(Self::of(name, &header.map_err(refused("find"))?));
                    }
                    other => other,
                }
            }
            other => other,
        };
        let header = made.map_err(refused("make"))?;
        let device = Self::of(name, &header);
        let target = target(superblock.data_bytes() / 512, &parameters);
        let loaded = call(&control, LOAD, name, READ_ONLY, &target)
            .map_err(|errno| match errno {
                // The kernel's word for "no such kind of target", and for parameters that it does not like.
                Errno::INVAL if !has_verity(&control) => VerityError::NotThere,
                errno => refused("load the table of")(errno),
            })
            .and_then(|_| {
                let resumed = call(&control, SUSPEND, name, 0, &[]);
                resumed.map_err(refused("start"))
            });
        match loaded {
            Ok(_) => Ok(device),
            Err(error) => {
                drop(call(&control, REMOVE, name, 0, &[]));
                Err(error)
            }
        }
    }

    fn of(name: &str, header: &[u8]) -> Self {
        Self {
            name: name.to_owned(),
            path: PathBuf::from(format!("/dev/dm-{}", minor(device_of(header)))),
        }
    }

    /// The block device.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets the kernel remove it with its last user.
    ///
    /// # Errors
    /// As the kernel gives them.
    pub fn release(self) -> io::Result<()> {
        let control = control().map_err(io::Error::other)?;
        call(&control, REMOVE, &self.name, DEFERRED_REMOVE, &[])?;
        Ok(())
    }
}

/// Whether a verity device has met a block that does not match; `None` when there is no such device.
pub fn is_corrupted(name: &str) -> Option<bool> {
    let control = control().ok()?;
    let answer = call(&control, STATUS, name, 0, &[]).ok()?;
    let status = answer.get(HEADER + TARGET..)?;
    Some(status.first() == Some(&b'C'))
}

/// Whether the device of this name checks against this root and has met no damage.
fn is_good(control: &File, name: &str, root_hash: &str) -> bool {
    let table = call(control, STATUS, name, STATUS_TABLE, &[]).unwrap_or_default();
    let parameters = table.get(HEADER + TARGET..).unwrap_or_default();
    let mut words = parameters.split(|byte| matches!(byte, b' ' | 0));
    words.any(|word| word == root_hash.as_bytes()) && is_corrupted(name) == Some(false)
}

/// Device number of the verity device of this name, as `stat` tells it of what is mounted from it; `None` when there is none.
pub(crate) fn number_of(name: &str) -> Option<u64> {
    let control = control().ok()?;
    let device = device_of(&call(&control, STATUS, name, 0, &[]).ok()?);
    let major = u32::try_from((device >> 8) & 0xfff).ok()?;
    let minor = u32::try_from(minor(device)).ok()?;
    Some(rustix::fs::makedev(major, minor))
}

fn control() -> Result<File, VerityError> {
    match OpenOptions::new().read(true).write(true).open(CONTROL) {
        Ok(file) => Ok(file),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound) => Err(VerityError::NotThere),
        Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => {
            Err(VerityError::NotThere)
        }
        Err(source) => Err(VerityError::Part {
            path: CONTROL.into(),
            source,
        }),
    }
}

/// Whether a table with a verity target would be understood: asked by its list of targets.
fn has_verity(control: &File) -> bool {
    const LIST_VERSIONS: u8 = 13;
    let listed = call(control, LIST_VERSIONS, "", 0, &[]);
    listed.is_ok_and(|answer| answer.windows(7).any(|name| name == b"verity\0"))
}

/// `major:minor` of a block device.
fn number(path: &Path) -> Result<String, VerityError> {
    let part = |source| VerityError::Part {
        path: path.to_owned(),
        source,
    };
    let found = std::fs::metadata(path).map_err(part)?;
    if !found.file_type().is_block_device() {
        return Err(part(io::ErrorKind::InvalidInput.into()));
    }
    let device = found.rdev();
    Ok(format!(
        "{}:{}",
        rustix::fs::major(device),
        rustix::fs::minor(device)
    ))
}

fn target(sectors: u64, parameters: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let len = (TARGET + parameters.len() + 1).next_multiple_of(8);
    bytes.extend_from_slice(&0u64.to_ne_bytes());
    bytes.extend_from_slice(&sectors.to_ne_bytes());
    bytes.extend_from_slice(&0i32.to_ne_bytes());
    bytes.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_ne_bytes());
    bytes.extend_from_slice(b"verity\0\0\0\0\0\0\0\0\0\0");
    bytes.extend_from_slice(parameters.as_bytes());
    bytes.resize(len, 0);
    bytes
}

/// `struct dm_ioctl` and what follows it, read and written by the kernel.
struct Call {
    code: Opcode,
    buffer: Box<[u64; BUFFER / 8]>,
}

// SAFETY: every command takes a `struct dm_ioctl` whose `data_size` says how long the memory is that the kernel may read and write; it is the
// length of the buffer, which is aligned for it and lives through the call.
unsafe impl Ioctl for Call {
    type Output = Vec<u8>;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.code
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.buffer.as_mut_ptr().cast()
    }

    unsafe fn output_from_ptr(
        _: IoctlOutput,
        written: *mut c_void,
    ) -> rustix::io::Result<Self::Output> {
        // SAFETY: it is the buffer of `as_ptr`, which is that long and still there.
        let written = unsafe { std::slice::from_raw_parts(written.cast::<u8>(), BUFFER) };
        Ok(written.to_vec())
    }
}

/// One command; what the kernel wrote.
fn call(
    control: &File,
    command: u8,
    name: &str,
    flags: u32,
    payload: &[u8],
) -> rustix::io::Result<Vec<u8>> {
    let mut bytes = vec![0u8; BUFFER];
    if name.len() >= 128 || HEADER + payload.len() > BUFFER {
        return Err(Errno::NAMETOOLONG);
    }
    let word = |value: usize| u32::try_from(value).unwrap_or(u32::MAX).to_ne_bytes();
    for (at, field) in [
        (0, 4u32.to_ne_bytes()),
        (12, word(BUFFER)),
        (16, word(HEADER)),
        (20, word(usize::from(!payload.is_empty()))),
        (28, flags.to_ne_bytes()),
    ] {
        bytes[at..at + 4].copy_from_slice(&field);
    }
    bytes[48..48 + name.len()].copy_from_slice(name.as_bytes());
    bytes[HEADER..HEADER + payload.len()].copy_from_slice(payload);
    let mut buffer = Box::new([0u64; BUFFER / 8]);
    for (to, from) in buffer.iter_mut().zip(bytes.chunks_exact(8)) {
        *to = u64::from_ne_bytes(from.try_into().expect("eight bytes"));
    }
    let code = ioctl::opcode::read_write::<[u8; HEADER]>(0xfd, command);
    // SAFETY: see `Call`.
    unsafe { ioctl::ioctl(control, Call { code, buffer }) }
}

fn device_of(header: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&header[40..48]);
    u64::from_ne_bytes(bytes)
}

/// The kernel's own packing of a device number in 64 bits (`huge_encode_dev`).
fn minor(device: u64) -> u64 {
    device & 0xff | (device >> 12) & 0x000f_ff00
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_packed_as_the_kernel_reads_it() {
        let packed = target(16, "1 7:0 7:1");
        assert_eq!(packed.len(), 56);
        assert_eq!(packed[8], 16);
        assert_eq!(packed[20], 56, "where the next one would be");
        assert_eq!(&packed[24..31], b"verity\0");
        assert_eq!(&packed[40..50], b"1 7:0 7:1\0");
    }

    #[test]
    fn the_commands_have_the_numbers_of_the_header() {
        assert_eq!(
            ioctl::opcode::read_write::<[u8; HEADER]>(0xfd, CREATE),
            0xC138_FD03
        );
        assert_eq!(minor(0x0010_fd05), 0x105);
    }
}
