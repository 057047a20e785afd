//! Whether UEFI can start a file: the parts of a PE image that it looks at before it gives the file the machine. Pure; the bytes are hostile.
//!
//! systemd-boot gives up when it cannot start what it has chosen, and leaves the machine in the firmware's hands, which may wait for a
//! person. So a kernel that is none must never be armed.

/// Bytes of a file's beginning in which everything lies that is looked at.
pub const HEAD_BYTES: usize = 64 << 10;
const SECTION_BYTES: usize = 40;

/// Why UEFI cannot start a file with this beginning and this length in bytes; `None` when it should.
pub fn problem(head: &[u8], length: u64) -> Option<&'static str> {
    let none = "it is no EFI program; the kernel must be built with CONFIG_EFI_STUB, and not be compressed by others than itself";
    if head.get(..2) != Some(b"MZ") {
        return Some(none);
    }
    let Some(end) = end_of_sections(head) else {
        return Some(none);
    };
    (end > length).then_some("it is shorter than it says: its end is missing")
}

/// Where the last section ends in the file; `None` when this is no PE image.
fn end_of_sections(head: &[u8]) -> Option<u64> {
    let number = |at: usize| {
        let bytes = head.get(at..at.checked_add(4)?)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    let short = |at: usize| Some(number(at)? as usize & 0xFFFF);
    let header = number(0x3C)? as usize;
    if head.get(header..header.checked_add(4)?)? != b"PE\0\0" {
        return None;
    }
    let (count, optional) = (short(header + 6)?, short(header + 20)?);
    let first = header + 24 + optional;
    let ends = (0..count).map(|at| {
        let section = first + at * SECTION_BYTES;
        Some(u64::from(number(section + 16)?) + u64::from(number(section + 20)?))
    });
    // One without sections has nothing to run.
    ends.collect::<Option<Vec<u64>>>()?.into_iter().max()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program of two sections, 600 bytes long.
    fn program() -> Vec<u8> {
        let mut bytes = vec![0; 600];
        bytes[..2].copy_from_slice(b"MZ");
        bytes[0x3C] = 0x40;
        bytes[0x40..0x44].copy_from_slice(b"PE\0\0");
        bytes[0x46] = 2;
        bytes[0x54] = 16;
        let sections = 0x40 + 24 + 16;
        for (at, size, offset) in [(0, 100_u32, 300_u32), (1, 200, 400)] {
            let section = sections + at * SECTION_BYTES;
            bytes[section + 16..section + 20].copy_from_slice(&size.to_le_bytes());
            bytes[section + 20..section + 24].copy_from_slice(&offset.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn programs_and_others() {
        let whole = program();
        assert_eq!(problem(&whole, 600), None);
        assert!(problem(&whole, 599).unwrap().contains("shorter"));
        for other in [
            &b""[..],
            b"M",
            b"MZ",
            b"this is no kernel",
            b"\x1f\x8b\x08 gzip",
        ] {
            assert!(
                problem(other, other.len() as u64)
                    .unwrap()
                    .contains("no EFI")
            );
        }
    }

    #[test]
    fn a_head_that_is_cut_anywhere_is_none() {
        let whole = program();
        for length in 0..0x40 + 24 + 16 + 2 * SECTION_BYTES - 16 {
            assert!(problem(&whole[..length], 600).is_some(), "{length}");
        }
        let mut endless = whole;
        endless[0x3C..0x40].fill(0xFF);
        assert!(problem(&endless, 600).is_some());
    }
}
