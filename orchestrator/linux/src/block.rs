//! Block devices: found by what stands on them, and what an ext4 superblock says.
//!
//! What is read from a device is hostile: sizes are bounded, checksums checked where there are any, and a device that cannot be read
//! is passed over. Nothing is mounted here, and nothing written but the partition table of a disk that has become larger.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

pub mod ext4;
mod larger;
pub mod partitions;
mod resize;

pub use larger::Refused;
pub use resize::{ResizeError, grow_partition};

use ext4::Superblock;

/// Devices that are looked at; a machine has a few dozen.
const DEVICES_MAX: usize = 512;
/// Bytes of a name, so of the text that names a device.
const NAME_BYTES_MAX: usize = 4096;

/// How a device is named in a setting or on the kernel command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// The file system's label.
    Label(String),
    /// The file system's UUID, lower case.
    Uuid(String),
    /// The partition's name (GPT).
    PartLabel(String),
    /// The partition's UUID (GPT), or disk signature and number (MBR), lower case.
    PartUuid(String),
    /// Its node.
    Path(PathBuf),
}

/// Why a text names no device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no device: use LABEL=, UUID=, PARTLABEL=, PARTUUID= or a path below /dev")]
pub struct NoDevice(String);

impl std::str::FromStr for Wanted {
    type Err = NoDevice;

    fn from_str(text: &str) -> Result<Self, NoDevice> {
        let refused = || NoDevice(text.chars().take(100).collect());
        if text.len() > NAME_BYTES_MAX || text.chars().any(char::is_control) {
            return Err(refused());
        }
        if text.starts_with("/dev/") {
            let path = PathBuf::from(text);
            let goes_up = path.components().any(|part| part.as_os_str() == "..");
            return if goes_up {
                Err(refused())
            } else {
                Ok(Self::Path(path))
            };
        }
        let (kind, value) = text.split_once('=').ok_or_else(refused)?;
        // As udev and mount(8) write them.
        let value = value.trim_matches('"');
        if value.is_empty() {
            return Err(refused());
        }
        match kind.to_ascii_uppercase().as_str() {
            "LABEL" => Ok(Self::Label(value.to_owned())),
            "UUID" => Ok(Self::Uuid(value.to_ascii_lowercase())),
            "PARTLABEL" => Ok(Self::PartLabel(value.to_owned())),
            "PARTUUID" => Ok(Self::PartUuid(value.to_ascii_lowercase())),
            _ => Err(refused()),
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(value) => write!(f, "LABEL={value}"),
            Self::Uuid(value) => write!(f, "UUID={value}"),
            Self::PartLabel(value) => write!(f, "PARTLABEL={value}"),
            Self::PartUuid(value) => write!(f, "PARTUUID={value}"),
            Self::Path(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A block device as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its node.
    pub path: PathBuf,
    /// The disk's node and the partition's number, when it is a partition.
    pub part_of: Option<(PathBuf, u32)>,
}

/// Every block device that can hold something, in the order of their names; loop devices and RAM disks are not looked at.
pub fn devices() -> Vec<Device> {
    listed(Path::new("/sys/class/block"))
}

fn listed(folder: &Path) -> Vec<Device> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| {
            !["loop", "ram", "zram"]
                .iter()
                .any(|kind| name.starts_with(kind))
        })
        .take(DEVICES_MAX)
        .collect();
    names.sort();
    let device = |name: String| {
        let link = folder.join(&name);
        let number = fs::read_to_string(link.join("partition")).ok();
        let number = number.and_then(|text| text.trim().parse().ok());
        let part_of = number.and_then(|number| {
            let real = fs::canonicalize(&link).ok()?;
            let disk = real.parent()?.file_name()?;
            Some((Path::new("/dev").join(disk), number))
        });
        // The kernel writes `!` for a slash.
        let path = Path::new("/dev").join(name.replace('!', "/"));
        Device { path, part_of }
    };
    names.into_iter().map(device).collect()
}

/// The device that is wanted, and others that could be meant as well; the first in the order of names is taken.
pub fn find(wanted: &Wanted) -> Option<(PathBuf, Vec<PathBuf>)> {
    if let Wanted::Path(path) = wanted {
        return is_block(path).then(|| (path.clone(), Vec::new()));
    }
    let mut found = devices()
        .into_iter()
        .filter(|device| fits(wanted, device))
        .map(|device| device.path);
    Some((found.next()?, found.collect()))
}

fn is_block(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_block_device())
}

fn fits(wanted: &Wanted, device: &Device) -> bool {
    match wanted {
        Wanted::Path(path) => *path == device.path,
        Wanted::Label(label) => superblock(&device.path).is_ok_and(|found| found.label == *label),
        Wanted::Uuid(uuid) => superblock(&device.path).is_ok_and(|found| found.uuid == *uuid),
        Wanted::PartLabel(_) | Wanted::PartUuid(_) => {
            let Some((disk, number)) = &device.part_of else {
                return false;
            };
            let Some(partition) = partition(disk, *number) else {
                return false;
            };
            match wanted {
                Wanted::PartLabel(name) => partition.name.as_deref() == Some(name),
                Wanted::PartUuid(uuid) => partition.uuid == *uuid,
                Wanted::Path(_) | Wanted::Label(_) | Wanted::Uuid(_) => false,
            }
        }
    }
}

/// Reads the superblock of an ext4 (or ext3, ext2) file system.
///
/// # Errors
/// As the kernel gives them; `InvalidData` when there is none.
pub fn superblock(device: &Path) -> io::Result<Superblock> {
    let mut bytes = [0; ext4::BYTES];
    File::open(device)?.read_exact_at(&mut bytes, ext4::OFFSET)?;
    Superblock::parse(&bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn partition(disk: &Path, number: u32) -> Option<partitions::Partition> {
    let disk = File::open(disk).ok()?;
    let read = |offset: u64, length: usize| {
        let mut bytes = vec![0; length];
        disk.read_exact_at(&mut bytes, offset).ok()?;
        Some(bytes)
    };
    partitions::find(&read, number)
}

/// Bytes of a block device.
///
/// # Errors
/// As the kernel gives them.
pub fn size(device: &Path) -> io::Result<u64> {
    use std::io::{Seek as _, SeekFrom};
    File::open(device)?.seek(SeekFrom::End(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_devices() {
        for (text, shown) in [
            ("LABEL=storage", "LABEL=storage"),
            ("label=\"my disk\"", "LABEL=my disk"),
            ("UUID=ABCD-12", "UUID=abcd-12"),
            ("PARTLABEL=data", "PARTLABEL=data"),
            ("PARTUUID=1234ABCD-02", "PARTUUID=1234abcd-02"),
            ("/dev/mmcblk0p2", "/dev/mmcblk0p2"),
            ("/dev/disk/by-x/y", "/dev/disk/by-x/y"),
        ] {
            assert_eq!(text.parse::<Wanted>().unwrap().to_string(), shown);
        }
        let long = format!("LABEL={}", "x".repeat(NAME_BYTES_MAX));
        for bad in [
            "",
            "x",
            "LABEL=",
            "LABEL=\"\"",
            "DISK=1",
            "/etc/passwd",
            "/dev/../etc/passwd",
            "LABEL=a\nb",
            "=x",
            long.as_str(),
        ] {
            assert!(bad.parse::<Wanted>().is_err(), "{bad}");
        }
    }

    #[test]
    fn partitions_know_their_disk() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().join("devices/virtio0/block/vda");
        fs::create_dir_all(real.join("vda2")).unwrap();
        fs::write(real.join("vda2/partition"), "2\n").unwrap();
        let class = folder.path().join("class");
        fs::create_dir_all(&class).unwrap();
        for (name, target) in [
            ("vda", real.clone()),
            ("vda2", real.join("vda2")),
            ("loop0", real),
        ] {
            std::os::unix::fs::symlink(target, class.join(name)).unwrap();
        }
        let found = listed(&class);
        assert_eq!(
            found,
            [
                Device {
                    path: "/dev/vda".into(),
                    part_of: None
                },
                Device {
                    path: "/dev/vda2".into(),
                    part_of: Some(("/dev/vda".into(), 2))
                },
            ]
        );
    }

    #[test]
    fn a_file_is_no_device() {
        assert_eq!(find(&Wanted::Path("/dev/null".into())), None);
        assert_eq!(find(&Wanted::Path("/dev/nothing".into())), None);
    }
}
