//! The superblock of ext4: what an init must know before it mounts, and nothing else. The bytes are hostile.

/// Where it stands on the device.
pub const OFFSET: u64 = 1024;
/// Its size.
pub const BYTES: usize = 1024;

const MAGIC: u16 = 0xEF53;
const STATE_VALID: u16 = 1;
const STATE_ERRORS: u16 = 2;
const COMPAT_JOURNAL: u32 = 0x4;
const INCOMPAT_RECOVER: u32 = 0x4;
const INCOMPAT_64BIT: u32 = 0x80;
const RO_COMPAT_METADATA_CSUM: u32 = 0x400;

/// What it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// The volume's label; empty when it has none. What is not UTF-8 is replaced.
    pub label: String,
    /// Its UUID, lower case with hyphens.
    pub uuid: String,
    /// Bytes of the file system.
    pub bytes: u64,
    /// Whether only a check can say that it is sound.
    pub needs_check: Option<&'static str>,
    /// Whether its journal must be replayed; mounting does that.
    pub needs_recovery: bool,
}

impl Superblock {
    /// Reads it; `None` when it is none. One whose checksum is wrong needs a check: a power cut may have torn it, and its names must
    /// still be found then (decisions/0105).
    pub fn parse(bytes: &[u8; BYTES]) -> Option<Self> {
        if u16_at(bytes, 0x38)? != MAGIC {
            return None;
        }
        let (compat, incompat, ro_compat) = (
            u32_at(bytes, 0x5C)?,
            u32_at(bytes, 0x60)?,
            u32_at(bytes, 0x64)?,
        );
        let is_torn = ro_compat & RO_COMPAT_METADATA_CSUM != 0
            && u32_at(bytes, 0x3FC)? != !crc32c(bytes.get(..0x3FC)?);
        let high = if incompat & INCOMPAT_64BIT != 0 {
            u64::from(u32_at(bytes, 0x150)?)
        } else {
            0
        };
        let blocks = high << 32 | u64::from(u32_at(bytes, 0x4)?);
        // 1 KiB to 64 KiB.
        let shift = u32_at(bytes, 0x18)?;
        if shift > 6 {
            return None;
        }
        let label = bytes.get(0x78..0x88)?;
        let end = label.iter().position(|byte| *byte == 0).unwrap_or(16);
        let needs_recovery = incompat & INCOMPAT_RECOVER != 0;
        let has_journal = compat & COMPAT_JOURNAL != 0;
        Some(Self {
            label: String::from_utf8_lossy(label.get(..end)?).into_owned(),
            uuid: uuid(bytes.get(0x68..0x78)?.try_into().ok()?),
            bytes: blocks.checked_mul(1024 << shift)?,
            needs_check: if is_torn {
                Some("its superblock has a wrong checksum")
            } else {
                needs_check(bytes, has_journal)?
            },
            needs_recovery,
        })
    }
}

/// Why a check is due. With a journal, a file system that was not unmounted is sound once it is replayed.
fn needs_check(bytes: &[u8; BYTES], has_journal: bool) -> Option<Option<&'static str>> {
    let state = u16_at(bytes, 0x3A)?;
    let mounts = u16_at(bytes, 0x34)?;
    // Zero and negative numbers mean never.
    let mounts_max = u16_at(bytes, 0x36)?;
    let errors = u32_at(bytes, 0x194)?;
    Some(if state & STATE_ERRORS != 0 || errors > 0 {
        Some("the kernel found errors in it")
    } else if state & STATE_VALID == 0 && !has_journal {
        Some("it has no journal and was not unmounted")
    } else if (1..0x8000).contains(&mounts_max) && mounts >= mounts_max {
        Some("it was mounted as often as it may be without a check")
    } else {
        None
    })
}

/// 16 bytes as `8-4-4-4-12` digits.
fn uuid(bytes: [u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

fn u16_at(bytes: &[u8; BYTES], offset: usize) -> Option<u16> {
    let part = bytes.get(offset..offset + 2)?;
    Some(u16::from_le_bytes(part.try_into().ok()?))
}

fn u32_at(bytes: &[u8; BYTES], offset: usize) -> Option<u32> {
    let part = bytes.get(offset..offset + 4)?;
    Some(u32::from_le_bytes(part.try_into().ok()?))
}

/// CRC-32C (Castagnoli), bit by bit: it runs over a kilobyte a boot.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let low = crc & 1;
            crc >>= 1;
            if low == 1 {
                crc ^= 0x82F6_3B78;
            }
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// A file system as mke2fs makes it; `None` where that is not installed.
    fn made(options: &[&str]) -> Option<[u8; BYTES]> {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(8 << 20).unwrap();
        let output = Command::new("/sbin/mke2fs")
            .args(["-q", "-F", "-t", "ext4"])
            .args(options)
            .arg(file.path())
            .output();
        let Ok(output) = output else {
            eprintln!("SKIPPED {}: mke2fs is not installed", module_path!());
            return None;
        };
        assert!(output.status.success(), "{output:?}");
        let bytes = std::fs::read(file.path()).unwrap();
        let from = usize::try_from(OFFSET).unwrap();
        Some(bytes[from..from + BYTES].try_into().unwrap())
    }

    #[test]
    fn what_mke2fs_makes_is_read() {
        let uuid = "1b4e28ba-2fa1-11d2-883f-0016d3cca427";
        for options in [
            vec!["-L", "storage", "-U", uuid],
            vec!["-L", "storage", "-U", uuid, "-b", "1024", "-O", "^64bit"],
            vec!["-L", "storage", "-U", uuid, "-O", "^metadata_csum"],
        ] {
            let Some(bytes) = made(&options) else { return };
            let found = Superblock::parse(&bytes).unwrap();
            assert_eq!(
                (found.label.as_str(), found.uuid.as_str()),
                ("storage", uuid)
            );
            assert_eq!(found.bytes, 8 << 20, "{options:?}");
            assert_eq!((found.needs_check, found.needs_recovery), (None, false));
        }
    }

    #[test]
    fn what_is_wrong_is_seen() {
        let Some(bytes) = made(&["-O", "^metadata_csum"]) else {
            return;
        };
        let with = |offset: usize, value: &[u8]| {
            let mut bytes = bytes;
            bytes[offset..offset + value.len()].copy_from_slice(value);
            Superblock::parse(&bytes)
        };
        assert!(with(0x3A, &[3, 0]).unwrap().needs_check.is_some(), "errors");
        assert!(
            with(0x194, &[1]).unwrap().needs_check.is_some(),
            "error count"
        );
        assert!(
            with(0x34, &[9, 0, 9, 0]).unwrap().needs_check.is_some(),
            "mounts"
        );
        assert!(
            with(0x34, &[9, 0, 0xFF, 0xFF])
                .unwrap()
                .needs_check
                .is_none(),
            "never"
        );
        assert_eq!(with(0x38, &[0, 0]), None, "magic");
        assert_eq!(with(0x18, &[9]), None, "size of a block");
        assert_eq!(
            with(0x60, &[0x84]).map(|found| found.needs_recovery),
            Some(true)
        );
        let huge = [&[0xFF; 4][..]].concat();
        assert!(with(0x150, &huge).is_none_or(|found| found.bytes > 0));
    }

    #[test]
    fn a_changed_byte_is_seen_where_there_is_a_checksum() {
        let Some(bytes) = made(&[]) else { return };
        for offset in [0x4, 0x68, 0x78, 0x200] {
            let mut changed = bytes;
            changed[offset] ^= 1;
            let found = Superblock::parse(&changed).unwrap();
            assert!(found.needs_check.is_some(), "{offset:#x}");
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut bytes = [0xFF; BYTES];
        drop(Superblock::parse(&bytes));
        bytes[0x38..0x3A].copy_from_slice(&MAGIC.to_le_bytes());
        for fill in [0, 1, 0x7F, 0xFF] {
            for hole in (0..BYTES).step_by(3) {
                let mut bytes = bytes;
                bytes[hole] = fill;
                drop(Superblock::parse(&bytes));
            }
        }
    }

    #[test]
    fn the_known_answer_of_crc32c() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    }
}
