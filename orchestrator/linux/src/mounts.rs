//! Mounts that containers stand on: images, overlays, binds, tmpfs; and what is mounted now.
//!
//! Every function names what it mounts in its error. Unmounting what is not mounted is no error, so that cleaning up can be
//! repeated. Who mounts what where, and when, is decided by the callers.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use model::verity::Superblock;

use crate::device_mapper::{self, VerityDevice, VerityError};
use crate::loop_device::LoopDevice;

/// Bytes of mount data that the kernel takes.
const OPTIONS_BYTES_MAX: usize = 4095;

/// What could not be mounted, unmounted or read.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// No loop device for an image.
    #[error("cannot attach {image} to a loop device")]
    Attach {
        /// The file.
        image: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No verity device for an image.
    #[error("cannot check {image} by its tree of hashes")]
    Verity {
        /// The file.
        image: PathBuf,
        /// Why.
        #[source]
        source: Box<VerityError>,
    },
    /// The tree of hashes cannot be used.
    #[error("the tree of hashes {hashes} cannot be used")]
    Tree {
        /// The file.
        hashes: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The mount call failed.
    #[error("cannot mount {what} at {target}")]
    Mount {
        /// File system and source.
        what: String,
        /// Where.
        target: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Paths that do not fit in the kernel's page of options.
    #[error("the paths of the overlay at {target} are longer than the kernel takes (4095 bytes)")]
    OptionsTooLong {
        /// Where.
        target: PathBuf,
    },
    /// The unmount call failed.
    #[error("cannot unmount {target}")]
    Unmount {
        /// What.
        target: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The mount table could not be read.
    #[error("cannot read /proc/self/mountinfo")]
    Table(#[source] io::Error),
}

/// Mounts an image file read-only through a loop device of its own.
///
/// # Errors
/// [`MountError::Attach`], [`MountError::Mount`] (`EINVAL`: not an image of this kind).
pub fn mount_image(image: &Path, file_system: &str, target: &Path) -> Result<(), MountError> {
    let device = LoopDevice::attach_read_only(image).map_err(|source| MountError::Attach {
        image: image.to_owned(),
        source,
    })?;
    mount_device(image, device.path(), file_system, target)
}

/// Mounts an image file read-only through dm-verity: a block that does not match its hash is an error to who reads it. `name` is the device
/// mapper's name for it; it must be this mount's own.
///
/// # Errors
/// [`MountError::Verity`] with [`VerityError::NotThere`] when the kernel has none; else as [`mount_image`].
pub fn mount_verity(
    image: &Path,
    hashes: &Path,
    root_hash: &str,
    name: &str,
    file_system: &str,
    target: &Path,
) -> Result<(), MountError> {
    let tree = |source| MountError::Tree {
        hashes: hashes.to_owned(),
        source,
    };
    let superblock = read_superblock(hashes).map_err(tree)?;
    let len = fs::metadata(image).map_or(0, |found| found.len());
    if superblock.data_bytes() > len {
        let text = format!(
            "it covers {} bytes, the image has {len}",
            superblock.data_bytes()
        );
        return Err(tree(io::Error::other(text)));
    }
    let attach = |file: &Path| {
        LoopDevice::attach_read_only(file).map_err(|source| MountError::Attach {
            image: file.to_owned(),
            source,
        })
    };
    let (data, tree) = (attach(image)?, attach(hashes)?);
    let checked = |source| MountError::Verity {
        image: image.to_owned(),
        source: Box::new(source),
    };
    let device = VerityDevice::make(name, data.path(), tree.path(), &superblock, root_hash)
        .map_err(checked)?;
    let mounted = mount_device(image, device.path(), file_system, target);
    // From here on the mount holds it.
    if let Err(error) = device.release() {
        tracing::warn!(%error, name, "a verity device stays after its mount");
    }
    mounted
}

/// Whether what is mounted uppermost at `target` is the verity device of this name.
pub fn is_mount_of(target: &Path, name: &str) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let number = device_mapper::number_of(name);
    number.is_some() && fs::metadata(target).map(|found| found.dev()).ok() == number
}

fn read_superblock(hashes: &Path) -> io::Result<Superblock> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    fs::File::open(hashes)?.take(4096).read_to_end(&mut bytes)?;
    Superblock::parse(&bytes).map_err(io::Error::other)
}

fn mount_device(
    image: &Path,
    device: &Path,
    file_system: &str,
    target: &Path,
) -> Result<(), MountError> {
    // A journal that was not replayed cannot be on a read-only device.
    let data = match file_system {
        "ext4" => Some(c"noload"),
        _ => None,
    };
    rustix::mount::mount(
        device,
        target,
        file_system,
        MountFlags::RDONLY | MountFlags::NODEV,
        data,
    )
    .map_err(|errno| {
        failed(
            format!("{} ({file_system})", image.display()),
            target,
            errno,
        )
    })
}

/// What device nodes on a file system are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nodes {
    /// Devices, for who may use them.
    Work,
    /// Nothing but names.
    Dead,
}

/// Mounts an overlay: `lower` from top to bottom, and a writable layer when `upper` (upper, work) is given.
///
/// # Errors
/// [`MountError::OptionsTooLong`], [`MountError::Mount`].
pub fn mount_overlay(
    lower: &[&Path],
    upper: Option<(&Path, &Path)>,
    nodes: Nodes,
    target: &Path,
) -> Result<(), MountError> {
    let mut options = b"lowerdir=".to_vec();
    for (index, path) in lower.iter().enumerate() {
        if index > 0 {
            options.push(b':');
        }
        escape(path, &mut options);
    }
    if let Some((upper, work)) = upper {
        options.extend_from_slice(b",upperdir=");
        escape(upper, &mut options);
        options.extend_from_slice(b",workdir=");
        escape(work, &mut options);
    }
    if options.len() > OPTIONS_BYTES_MAX {
        return Err(MountError::OptionsTooLong {
            target: target.to_owned(),
        });
    }
    let access = match upper {
        Some(_) => MountFlags::empty(),
        None => MountFlags::RDONLY,
    };
    let flags = match nodes {
        Nodes::Work => access,
        Nodes::Dead => access | MountFlags::NODEV,
    };
    let options =
        CString::new(options).map_err(|_| failed("overlay".to_owned(), target, Errno::INVAL))?;
    rustix::mount::mount("overlay", target, "overlay", flags, options.as_c_str())
        .map_err(|errno| failed("overlay".to_owned(), target, errno))
}

/// Colons and commas end a path in the options of an overlay.
fn escape(path: &Path, options: &mut Vec<u8>) {
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b':' | b',' | b'\\') {
            options.push(b'\\');
        }
        options.push(*byte);
    }
}

/// Mounts a tmpfs of at most `size` (as the kernel writes it: `64m`, `50%`).
///
/// # Errors
/// [`MountError::Mount`].
pub fn mount_tmpfs(target: &Path, size: &str, mode: u32) -> Result<(), MountError> {
    let options = CString::new(format!("size={size},mode={mode:o}"))
        .map_err(|_| failed("tmpfs".to_owned(), target, Errno::INVAL))?;
    rustix::mount::mount(
        "tmpfs",
        target,
        "tmpfs",
        MountFlags::NODEV | MountFlags::NOSUID,
        options.as_c_str(),
    )
    .map_err(|errno| failed("tmpfs".to_owned(), target, errno))
}

/// Shows a file or folder a second time, with what is mounted below it.
///
/// # Errors
/// [`MountError::Mount`].
pub fn bind(source: &Path, target: &Path) -> Result<(), MountError> {
    rustix::mount::mount_bind_recursive(source, target)
        .map_err(|errno| failed(source.display().to_string(), target, errno))
}

/// Keeps mounts below `target` (a mount point) to this mount namespace, and those of others out of it.
///
/// # Errors
/// [`MountError::Mount`].
pub fn make_private(target: &Path) -> Result<(), MountError> {
    rustix::mount::mount_change(
        target,
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .map_err(|errno| failed("private propagation".to_owned(), target, errno))
}

/// Takes away everything that is mounted exactly at `target`, also in several layers; what still uses it keeps it until it ends.
///
/// # Errors
/// [`MountError::Unmount`], except that nothing is mounted there or that it does not exist.
pub fn unmount(target: &Path) -> Result<(), MountError> {
    loop {
        match rustix::mount::unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            // Not a mount point; or gone.
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(errno) => {
                return Err(MountError::Unmount {
                    target: target.to_owned(),
                    source: errno.into(),
                });
            }
        }
    }
}

/// Unmounts `target` only when nothing uses it; tells whether it did.
///
/// # Errors
/// [`MountError::Unmount`].
pub fn unmount_if_idle(target: &Path) -> Result<bool, MountError> {
    match rustix::mount::unmount(target, UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(true),
        Err(Errno::BUSY) => Ok(false),
        Err(Errno::INVAL | Errno::NOENT) => Ok(true),
        Err(errno) => Err(MountError::Unmount {
            target: target.to_owned(),
            source: errno.into(),
        }),
    }
}

/// Takes away all mounts at and below `folder`, newest first.
///
/// # Errors
/// [`MountError::Table`], [`MountError::Unmount`].
pub fn unmount_below(folder: &Path) -> Result<(), MountError> {
    for target in mounted_below(folder)?.iter().rev() {
        unmount(target)?;
    }
    Ok(())
}

/// Mount points at and below `folder`, oldest first.
///
/// # Errors
/// [`MountError::Table`].
pub fn mounted_below(folder: &Path) -> Result<Vec<PathBuf>, MountError> {
    let table = fs::read("/proc/self/mountinfo").map_err(MountError::Table)?;
    Ok(mount_points(&table)
        .filter(|point| point.starts_with(folder))
        .collect())
}

/// Whether something is mounted at `target`.
///
/// # Errors
/// [`MountError::Table`].
pub fn is_mount_point(target: &Path) -> Result<bool, MountError> {
    let table = fs::read("/proc/self/mountinfo").map_err(MountError::Table)?;
    Ok(mount_points(&table).any(|point| point == target))
}

/// Fifth field of each line, where the kernel writes space, tab, newline and backslash as `\ooo`.
fn mount_points(table: &[u8]) -> impl Iterator<Item = PathBuf> {
    table.split(|byte| *byte == b'\n').filter_map(|line| {
        let field = line.split(|byte| *byte == b' ').nth(4)?;
        Some(PathBuf::from(std::ffi::OsString::from_vec(unescape(field))))
    })
}

/// Mount point and kind of file system of a line of mountinfo.
pub(crate) fn of_line(line: &[u8]) -> Option<(PathBuf, String)> {
    let mut fields = line.split(|byte| *byte == b' ');
    let target = unescape(fields.nth(4)?);
    let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
    let kind = String::from_utf8_lossy(kind).into_owned();
    Some((PathBuf::from(std::ffi::OsString::from_vec(target)), kind))
}

fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, after)) = rest.split_first() {
        let octal = match after {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] if *byte == b'\\' => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        match octal {
            Some(value) => {
                out.push(value);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                out.push(*byte);
                rest = after;
            }
        }
    }
    out
}

fn failed(what: String, target: &Path, errno: Errno) -> MountError {
    MountError::Mount {
        what,
        target: target.to_owned(),
        source: errno.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_with_odd_names() {
        let table = b"36 35 98:0 /a /mnt\\0402/x\\134y rw,noatime master:1 - ext3 /dev/root rw\n\
                      37 35 98:0 / /run rw - tmpfs tmpfs rw\n\n";
        let points: Vec<_> = mount_points(table).collect();
        assert_eq!(
            points,
            [PathBuf::from("/mnt 2/x\\y"), PathBuf::from("/run")]
        );
    }

    #[test]
    fn overlay_paths_are_escaped() {
        let mut options = Vec::new();
        escape(Path::new("/a:b,c\\d"), &mut options);
        assert_eq!(options, b"/a\\:b\\,c\\\\d");
    }

    #[test]
    fn unmounting_nothing_is_no_error() {
        assert!(unmount(Path::new("/nonexistent/coxswain")).is_ok());
    }
}
