//! Partition tables: the name and the UUID of one partition, from GPT or MBR. The bytes are hostile.

/// A partition's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// GPT only.
    pub name: Option<String>,
    /// GPT's, or disk signature and number of an MBR (`1234abcd-02`), lower case.
    pub uuid: String,
}

const ENTRY_BYTES: usize = 128;
const ENTRY_BYTES_MAX: u32 = 4096;
/// Partitions of a table that are looked at.
const ENTRIES_MAX: u32 = 256;

/// Reads the table's entry with this number, counted from 1. `read` gives bytes at an offset of the disk.
pub fn find(read: &dyn Fn(u64, usize) -> Option<Vec<u8>>, number: u32) -> Option<Partition> {
    // Sectors of 512 bytes, and of 4096 as some flash has them.
    [512, 4096]
        .into_iter()
        .find_map(|sector| gpt(read, sector, number))
        .or_else(|| mbr(read, number))
}

fn gpt(
    read: &dyn Fn(u64, usize) -> Option<Vec<u8>>,
    sector: u64,
    number: u32,
) -> Option<Partition> {
    let header = read(sector, 92)?;
    if header.get(..8)? != b"EFI PART" {
        return None;
    }
    // The sum is made with zeros in its own place.
    let mut plain = header.clone();
    plain.get_mut(16..20)?.fill(0);
    if u32_at(&header, 12)? != 92 || crc32fast::hash(&plain) != u32_at(&header, 16)? {
        return None;
    }
    let (count, bytes) = (u32_at(&header, 80)?, u32_at(&header, 84)?);
    let fits =
        (1..=count.min(ENTRIES_MAX)).contains(&number) && (128..=ENTRY_BYTES_MAX).contains(&bytes);
    if !fits {
        return None;
    }
    let first = u64::from_le_bytes(header.get(72..80)?.try_into().ok()?);
    let place = first
        .checked_mul(sector)?
        .checked_add(u64::from(number - 1) * u64::from(bytes))?;
    let entry = read(place, ENTRY_BYTES)?;
    let uuid = entry.get(16..32)?;
    if uuid.iter().all(|byte| *byte == 0) {
        return None;
    }
    let name: Vec<u16> = entry
        .get(56..128)?
        .chunks_exact(2)
        .filter_map(|pair| Some(u16::from_le_bytes(pair.try_into().ok()?)))
        .take_while(|unit| *unit != 0)
        .collect();
    Some(Partition {
        name: Some(String::from_utf16_lossy(&name)),
        uuid: guid(uuid)?,
    })
}

/// The first three parts are little endian.
fn guid(bytes: &[u8]) -> Option<String> {
    let hex = |range: &[usize]| -> Option<String> {
        range
            .iter()
            .map(|index| Some(format!("{:02x}", bytes.get(*index)?)))
            .collect()
    };
    Some(format!(
        "{}-{}-{}-{}-{}",
        hex(&[3, 2, 1, 0])?,
        hex(&[5, 4])?,
        hex(&[7, 6])?,
        hex(&[8, 9])?,
        hex(&[10, 11, 12, 13, 14, 15])?
    ))
}

fn mbr(read: &dyn Fn(u64, usize) -> Option<Vec<u8>>, number: u32) -> Option<Partition> {
    let sector = read(0, 512)?;
    let signature = u32_at(&sector, 440)?;
    if sector.get(510..512)? != [0x55, 0xAA] || signature == 0 {
        return None;
    }
    Some(Partition {
        name: None,
        uuid: format!("{signature:08x}-{number:02x}"),
    })
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let part = bytes.get(offset..offset.checked_add(4)?)?;
    Some(u32::from_le_bytes(part.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk_with_gpt() -> Vec<u8> {
        let mut disk = vec![0; 64 << 10];
        let mut entry = [0; ENTRY_BYTES];
        entry[..16].fill(7);
        entry[16..32].copy_from_slice(&[
            0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd,
            0xee, 0xff,
        ]);
        for (place, unit) in "storage".encode_utf16().enumerate() {
            entry[56 + 2 * place..58 + 2 * place].copy_from_slice(&unit.to_le_bytes());
        }
        disk[1024 + ENTRY_BYTES..1024 + 2 * ENTRY_BYTES].copy_from_slice(&entry);
        let mut header = [0; 92];
        header[..8].copy_from_slice(b"EFI PART");
        header[12..16].copy_from_slice(&92_u32.to_le_bytes());
        header[72..80].copy_from_slice(&2_u64.to_le_bytes());
        header[80..84].copy_from_slice(&128_u32.to_le_bytes());
        header[84..88].copy_from_slice(&128_u32.to_le_bytes());
        let sum = crc32fast::hash(&header);
        header[16..20].copy_from_slice(&sum.to_le_bytes());
        disk[512..604].copy_from_slice(&header);
        disk
    }

    fn find_on(disk: &[u8], number: u32) -> Option<Partition> {
        let read = |offset: u64, length: usize| {
            let from = usize::try_from(offset).ok()?;
            Some(disk.get(from..from.checked_add(length)?)?.to_vec())
        };
        find(&read, number)
    }

    #[test]
    fn gpt_names() {
        let disk = disk_with_gpt();
        assert_eq!(
            find_on(&disk, 2),
            Some(Partition {
                name: Some("storage".to_owned()),
                uuid: "00112233-4455-6677-8899-aabbccddeeff".to_owned(),
            })
        );
        for none in [0, 1, 3, 129, u32::MAX] {
            assert_eq!(find_on(&disk, none), None, "{none}");
        }
    }

    #[test]
    fn a_damaged_table_names_nothing() {
        let whole = disk_with_gpt();
        for place in 512..604 {
            let mut disk = whole.clone();
            disk[place] ^= 0x80;
            assert_eq!(find_on(&disk, 2), None, "{place}");
        }
        for length in [0, 1, 511, 600, 1100] {
            assert_eq!(find_on(&whole[..length], 2), None, "{length}");
        }
    }

    #[test]
    fn mbr_names() {
        let mut disk = vec![0; 512];
        disk[440..444].copy_from_slice(&0x1234_abcd_u32.to_le_bytes());
        disk[510..].copy_from_slice(&[0x55, 0xAA]);
        let found = find_on(&disk, 2).unwrap();
        assert_eq!((found.name, found.uuid.as_str()), (None, "1234abcd-02"));
    }
}
