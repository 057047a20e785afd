//! Partition tables on a disk that is larger than they say: what to write so that the last partition reaches the disk's end. Pure; the
//! bytes are hostile.
//!
//! The table is whole at every instant. A GPT's second copy goes to the disk's new end, and its new entries to a place where nothing is;
//! then one sector, the first header, changes from the old entries to the new ones. An MBR is one sector. A table that has no place for
//! a second array of entries is left alone: other ways have an instant without a table.

/// Partitions begin and end at multiples of this.
const ALIGNMENT: u64 = 1 << 20;
/// What is gained must be worth a change of the table.
const GROWTH_BYTES_MIN: u64 = 16 << 20;
const HEADER_BYTES: usize = 92;
const ENTRY_BYTES: u32 = 128;
const ENTRY_BYTES_MAX: u32 = 4096;
const ENTRIES_MAX: u32 = 256;
/// Where the four entries of an MBR begin, and their length.
const MBR_ENTRIES: usize = 446;
const MBR_ENTRY: usize = 16;
/// Of an MBR: what stands for a whole GPT, and what holds further partitions.
const PROTECTIVE: u8 = 0xEE;
const EXTENDED: [u8; 3] = [0x05, 0x0F, 0x85];

/// What is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Larger {
    /// Offsets and bytes that are written first, in any order, and made durable.
    pub(super) first: Vec<(u64, Vec<u8>)>,
    /// One sector, written last.
    pub(super) last: (u64, Vec<u8>),
    /// Where the partition begins, in bytes.
    pub(super) start: u64,
    /// Its new length in bytes.
    pub(super) bytes: u64,
}

/// Why a partition stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No table, or one that is damaged.
    #[error("the disk has no partition table that is whole")]
    Table,
    /// The table does not have it, or it is none that holds a file system.
    #[error("the partition table has no such partition")]
    Entry,
    /// Another one begins behind it.
    #[error("it is not the last partition of its disk")]
    NotLast,
    /// The entries lie where they cannot be replaced in one step.
    #[error(
        "the partition table has no room for a second array of entries; enlarge the partition with sgdisk -e and parted, or make the table with few entries"
    )]
    Room,
}

type Read<'a> = &'a dyn Fn(u64, usize) -> Option<Vec<u8>>;

/// What lets the partition with this number, counted from 1, reach the end of a disk of `disk` bytes in sectors of `sector` bytes; `None`
/// when it does already. `read` gives bytes at an offset of the disk.
///
/// # Errors
/// Why it cannot.
pub(super) fn plan(
    read: Read<'_>,
    disk: u64,
    sector: u64,
    number: u32,
) -> Result<Option<Larger>, Refused> {
    let usual = (512..=4096).contains(&sector) && sector.is_power_of_two();
    let bytes = usize::try_from(sector).map_err(|_| Refused::Table)?;
    if !usual || disk < 4 * ALIGNMENT {
        return Err(Refused::Table);
    }
    match read(sector, bytes) {
        Some(header) if header.get(..8) == Some(b"EFI PART") => {
            let table = Gpt::read(read, header, sector).ok_or(Refused::Table)?;
            table.plan(read, disk, number)
        }
        Some(_) | None => mbr(read, disk, sector, number),
    }
}

/// The last sector of a partition that ends at `ALIGNMENT`, with `limit` sectors below it; `None` when that is not worth it.
fn new_end(limit: u64, old_end: u64, sector: u64) -> Option<u64> {
    let alignment = ALIGNMENT / sector;
    let end = (limit / alignment * alignment).checked_sub(1)?;
    let gained = end.checked_sub(old_end)?.checked_mul(sector)?;
    (gained >= GROWTH_BYTES_MIN).then_some(end)
}

/// A GPT that is whole.
struct Gpt {
    sector: u64,
    header: Vec<u8>,
    /// The entries, filled up to whole sectors.
    array: Vec<u8>,
    entry: usize,
    count: usize,
    /// First sector of the entries.
    at: u64,
}

impl Gpt {
    fn read(read: Read<'_>, header: Vec<u8>, sector: u64) -> Option<Self> {
        let own = header.get(..HEADER_BYTES)?;
        let mut plain = own.to_vec();
        plain.get_mut(16..20)?.fill(0);
        let is_whole = u32_at(own, 12)? as usize == HEADER_BYTES
            && crc32fast::hash(&plain) == u32_at(own, 16)?
            && u64_at(own, 24)? == 1;
        let (count, entry) = (u32_at(own, 80)?, u32_at(own, 84)?);
        let is_usual =
            (1..=ENTRIES_MAX).contains(&count) && (ENTRY_BYTES..=ENTRY_BYTES_MAX).contains(&entry);
        if !is_whole || !is_usual {
            return None;
        }
        let at = u64_at(own, 72)?;
        let (count, entry) = (count as usize, entry as usize);
        let mut array = read(at.checked_mul(sector)?, count * entry)?;
        if array.len() != count * entry || crc32fast::hash(&array) != u32_at(own, 88)? {
            return None;
        }
        array.resize(
            array.len().next_multiple_of(usize::try_from(sector).ok()?),
            0,
        );
        Some(Self {
            sector,
            header,
            array,
            entry,
            count,
            at,
        })
    }

    /// Sectors of the entries.
    fn length(&self) -> u64 {
        self.array.len() as u64 / self.sector
    }

    /// Type and identity of an entry; `None` when it is not in use.
    fn identity<'a>(&self, array: &'a [u8], index: usize) -> Option<&'a [u8]> {
        let identity = array.get(index * self.entry..)?.get(..32)?;
        identity[..16]
            .iter()
            .any(|byte| *byte != 0)
            .then_some(identity)
    }

    /// First and last sector of an entry that is in use.
    fn sectors(&self, index: usize) -> Option<(u64, u64)> {
        self.identity(&self.array, index)?;
        let at = index * self.entry;
        Some((u64_at(&self.array, at + 32)?, u64_at(&self.array, at + 40)?))
    }

    fn plan(&self, read: Read<'_>, disk: u64, number: u32) -> Result<Option<Larger>, Refused> {
        let index = (number as usize)
            .checked_sub(1)
            .filter(|at| *at < self.count);
        let index = index.ok_or(Refused::Entry)?;
        let (start, old_end) = self
            .sectors(index)
            .filter(|(start, end)| *start > 1 && start <= end)
            .ok_or(Refused::Entry)?;
        let used = || (0..self.count).filter_map(|at| Some((at, self.sectors(at)?)));
        if used().any(|(at, (_, end))| at != index && end > start) {
            return Err(Refused::NotLast);
        }
        let header_at = disk / self.sector - 1;
        let array_at = header_at.checked_sub(self.length()).ok_or(Refused::Table)?;
        let Some(end) = new_end(array_at, old_end, self.sector) else {
            return Ok(None);
        };
        let lowest = used().map(|(_, (first, _))| first).min().unwrap_or(start);
        let place = self.place(read, lowest).ok_or(Refused::Room)?;

        let mut array = self.array.clone();
        put(&mut array, index * self.entry + 40, &end.to_le_bytes());
        let header = |own: u64, other: u64, entries: u64| {
            let mut header = self.header.clone();
            put(&mut header, 24, &own.to_le_bytes());
            put(&mut header, 32, &other.to_le_bytes());
            put(&mut header, 48, &(array_at - 1).to_le_bytes());
            put(&mut header, 72, &entries.to_le_bytes());
            let sum = crc32fast::hash(&array[..self.count * self.entry]);
            put(&mut header, 88, &sum.to_le_bytes());
            put(&mut header, 16, &[0; 4]);
            let sum = crc32fast::hash(&header[..HEADER_BYTES]);
            put(&mut header, 16, &sum.to_le_bytes());
            header
        };
        let at = |sectors: u64| sectors * self.sector;
        let mut first = vec![
            (at(place), array.clone()),
            (at(array_at), array.clone()),
            (at(header_at), header(header_at, 1, array_at)),
        ];
        first.extend(protective(read, header_at).map(|sector| (0, sector)));
        Ok(Some(Larger {
            first,
            last: (at(1), header(1, header_at, place)),
            start: at(start),
            bytes: at(end + 1 - start),
        }))
    }

    /// Where other entries can lie in front of the partitions: behind the header, or behind the entries that are used now.
    fn place(&self, read: Read<'_>, lowest: u64) -> Option<u64> {
        let limit = lowest.min(u64_at(&self.header, 40)?);
        let length = self.length();
        [2, self.at.checked_add(length)?].into_iter().find(|place| {
            let is_apart = place + length <= self.at || *place >= self.at + length;
            is_apart && place.saturating_add(length) <= limit && self.is_free(read, *place)
        })
    }

    /// Whether nothing is there, or an older array of this table; boards keep boot loaders in front of partitions.
    fn is_free(&self, read: Read<'_>, place: u64) -> bool {
        let Some(there) = read(place * self.sector, self.array.len()) else {
            return false;
        };
        let is_older = |at| self.identity(&there, at) == self.identity(&self.array, at);
        there.iter().all(|byte| *byte == 0) || (0..self.count).all(is_older)
    }
}

/// The sector that shows a GPT as one partition to those who know no GPT, with its new length; `None` where it needs no change.
fn protective(read: Read<'_>, header_at: u64) -> Option<Vec<u8>> {
    let mut sector = read(0, 512)?;
    let place = (0..4)
        .map(|at| MBR_ENTRIES + at * MBR_ENTRY)
        .find(|place| sector.get(place + 4) == Some(&PROTECTIVE))?;
    let is_mbr = sector.get(510..512)? == [0x55, 0xAA] && u32_at(&sector, place + 8)? == 1;
    let length = u32::try_from(header_at).unwrap_or(u32::MAX);
    let old = u32_at(&sector, place + 12)?;
    if !is_mbr || old == length || old == u32::MAX {
        return None;
    }
    put(&mut sector, place + 12, &length.to_le_bytes());
    Some(sector)
}

fn mbr(read: Read<'_>, disk: u64, sector: u64, number: u32) -> Result<Option<Larger>, Refused> {
    let mut table = read(0, 512).ok_or(Refused::Table)?;
    if table.get(510..512) != Some(&[0x55, 0xAA]) {
        return Err(Refused::Table);
    }
    let entries: Vec<(u8, u32, u32)> = (0..4)
        .map(|at| MBR_ENTRIES + at * MBR_ENTRY)
        .filter_map(|at| {
            Some((
                *table.get(at + 4)?,
                u32_at(&table, at + 8)?,
                u32_at(&table, at + 12)?,
            ))
        })
        .collect();
    if entries.iter().any(|(kind, ..)| *kind == PROTECTIVE) {
        return Err(Refused::Table);
    }
    let index = (number as usize).checked_sub(1).ok_or(Refused::Entry)?;
    let (kind, start, length) = *entries.get(index).ok_or(Refused::Entry)?;
    if kind == 0 || EXTENDED.contains(&kind) || start == 0 || length == 0 {
        return Err(Refused::Entry);
    }
    if entries
        .iter()
        .any(|(kind, first, _)| *kind != 0 && *first > start)
    {
        return Err(Refused::NotLast);
    }
    let start = u64::from(start);
    // Its numbers have 32 bits.
    let limit = (disk / sector).min(start + u64::from(u32::MAX));
    let Some(end) = new_end(limit, start + u64::from(length) - 1, sector) else {
        return Ok(None);
    };
    let length = u32::try_from(end + 1 - start).map_err(|_| Refused::Table)?;
    let place = MBR_ENTRIES + index * MBR_ENTRY;
    put(&mut table, place + 12, &length.to_le_bytes());
    // The end in cylinders, heads and sectors: further than they can say.
    put(&mut table, place + 5, &[0xFE, 0xFF, 0xFF]);
    Ok(Some(Larger {
        first: Vec::new(),
        last: (0, table),
        start: start * sector,
        bytes: u64::from(length) * sector,
    }))
}

/// Both are as long as their readers have checked.
fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(
        bytes.get(at..at.checked_add(4)?)?.try_into().ok()?,
    ))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(
        bytes.get(at..at.checked_add(8)?)?.try_into().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A disk with holes: what was never written is zero.
    #[derive(Clone, Default)]
    struct Disk {
        sectors: std::collections::BTreeMap<u64, Vec<u8>>,
        bytes: u64,
    }

    impl Disk {
        fn read(&self, offset: u64, length: usize) -> Option<Vec<u8>> {
            if offset.checked_add(length as u64)? > self.bytes {
                return None;
            }
            let mut bytes = Vec::new();
            let mut at = offset;
            while bytes.len() < length {
                let sector = self.sectors.get(&(at / 512)).cloned();
                bytes.extend_from_slice(&sector.unwrap_or(vec![0; 512])[(at % 512) as usize..]);
                at = at / 512 * 512 + 512;
            }
            bytes.truncate(length);
            Some(bytes)
        }

        fn write(&mut self, offset: u64, bytes: &[u8]) {
            assert_eq!(offset % 512, 0);
            for (at, sector) in bytes.chunks(512).enumerate() {
                let mut whole = sector.to_vec();
                whole.resize(512, 0);
                self.sectors.insert(offset / 512 + at as u64, whole);
            }
        }

        fn plan(&self, number: u32) -> Result<Option<Larger>, Refused> {
            plan(
                &|offset, length| self.read(offset, length),
                self.bytes,
                512,
                number,
            )
        }

        /// Sectors of each partition, as somebody sees them who trusts only what is whole: by the first header, else not at all.
        fn partitions(&self) -> Option<Vec<(u64, u64)>> {
            let read: Read<'_> = &|offset, length| self.read(offset, length);
            let table = Gpt::read(read, self.read(512, 512)?, 512)?;
            Some(
                (0..table.count)
                    .filter_map(|at| table.sectors(at))
                    .collect(),
            )
        }

        /// The same by the second header, which the first one names.
        fn second(&self) -> Option<Vec<(u64, u64)>> {
            let read: Read<'_> = &|offset, length| self.read(offset, length);
            let at = u64_at(&self.read(512, 512)?, 32)?;
            let mut header = self.read(at * 512, 512)?;
            assert_eq!((u64_at(&header, 24)?, u64_at(&header, 32)?), (at, 1));
            // As a first header would be.
            put(&mut header, 24, &1_u64.to_le_bytes());
            put(&mut header, 16, &[0; 4]);
            let sum = crc32fast::hash(&header[..HEADER_BYTES]);
            put(&mut header, 16, &sum.to_le_bytes());
            let table = Gpt::read(read, header, 512)?;
            Some(
                (0..table.count)
                    .filter_map(|at| table.sectors(at))
                    .collect(),
            )
        }
    }

    /// As `rootfs/build` makes it: few entries, the storage second, in MiB.
    fn image(count: u32, partitions: &[(u64, u64)], mib: u64) -> Disk {
        let mut disk = Disk {
            bytes: mib * MIB,
            ..Disk::default()
        };
        let mut mbr = vec![0; 512];
        mbr[446 + 4] = PROTECTIVE;
        mbr[446 + 8] = 1;
        put(&mut mbr, 446 + 12, &1000_u32.to_le_bytes());
        mbr[510..].copy_from_slice(&[0x55, 0xAA]);
        disk.write(0, &mbr);
        let mut array = vec![0; count as usize * 128];
        for (at, (start, end)) in partitions.iter().enumerate() {
            let entry = &mut array[at * 128..at * 128 + 128];
            entry[..32].fill([7, 8, 9][at]);
            put(entry, 32, &(start * 2048).to_le_bytes());
            put(entry, 40, &(end * 2048 - 1).to_le_bytes());
        }
        let length = array.len().div_ceil(512) as u64;
        for (own, other, entries) in [
            (1, mib * 2048 - 1, 2),
            (mib * 2048 - 1, 1, mib * 2048 - 1 - length),
        ] {
            let mut header = vec![0; 512];
            header[..8].copy_from_slice(b"EFI PART");
            put(&mut header, 8, &[0, 0, 1, 0, 92, 0, 0, 0]);
            put(&mut header, 24, &u64::to_le_bytes(own));
            put(&mut header, 32, &u64::to_le_bytes(other));
            put(&mut header, 40, &(2 + length).max(64).to_le_bytes());
            put(&mut header, 48, &(mib * 2048 - 2 - length).to_le_bytes());
            put(&mut header, 72, &u64::to_le_bytes(entries));
            put(&mut header, 80, &count.to_le_bytes());
            put(&mut header, 84, &128_u32.to_le_bytes());
            put(&mut header, 88, &crc32fast::hash(&array).to_le_bytes());
            let sum = crc32fast::hash(&header[..HEADER_BYTES]);
            put(&mut header, 16, &sum.to_le_bytes());
            disk.write(own * 512, &header);
            disk.write(entries * 512, &array);
        }
        disk
    }

    const BOOT_AND_STORAGE: &[(u64, u64)] = &[(4, 36), (40, 808), (36, 37)];

    #[test]
    fn the_last_partition_reaches_the_end_again_and_again() {
        let mut disk = image(8, BOOT_AND_STORAGE, 809);
        assert_eq!(disk.plan(2), Ok(None));
        for mib in [1000, 1100, 4000, 5_000_000] {
            disk.bytes = mib * MIB + 4096;
            let larger = disk.plan(2).unwrap().unwrap();
            for (offset, bytes) in larger.first.iter().chain([&larger.last]) {
                disk.write(*offset, bytes);
            }
            // As much as is left below the second table, in whole MiB.
            let end = (mib - u64::from(mib * MIB + 4096 - 1536 < mib * MIB)) * 2048 - 1;
            assert_eq!(disk.partitions().unwrap()[1], (40 * 2048, end));
            assert_eq!(disk.partitions(), disk.second());
            assert_eq!(
                (larger.start, larger.bytes),
                (40 * MIB, (end + 1) * 512 - 40 * MIB)
            );
            assert_eq!(disk.plan(2), Ok(None));
        }
    }

    #[test]
    fn whatever_is_cut_the_table_is_the_old_one_or_the_new_one() {
        let mut disk = image(8, BOOT_AND_STORAGE, 809);
        disk.bytes = 1000 * MIB;
        let larger = disk.plan(2).unwrap().unwrap();
        let sectors: Vec<(u64, &[u8])> = larger
            .first
            .iter()
            .flat_map(|(offset, bytes)| {
                let sectors = bytes.chunks(512).enumerate();
                sectors.map(move |(at, sector)| (offset + 512 * at as u64, sector))
            })
            .collect();
        assert!(sectors.len() < 16, "every subset is tried");
        let old = disk.partitions();
        assert_eq!(disk.second(), old);
        for kept in 0..1_u32 << sectors.len() {
            let mut cut = disk.clone();
            for (at, (offset, sector)) in sectors.iter().enumerate() {
                if kept & (1 << at) != 0 {
                    cut.write(*offset, sector);
                }
            }
            assert_eq!(
                (cut.partitions(), cut.second()),
                (old.clone(), old.clone()),
                "{kept:b}"
            );
            // Begun anew at the next start.
            let again = cut.plan(2).unwrap().unwrap();
            assert_eq!(
                (&again.last, again.bytes),
                (&larger.last, larger.bytes),
                "{kept:b}"
            );
        }
        assert_eq!(larger.last.1.len(), 512);
    }

    #[test]
    fn what_cannot_be_changed_in_one_step_stays() {
        // The usual 128 entries leave no room below the first partition's sectors.
        let mut usual = image(128, BOOT_AND_STORAGE, 809);
        usual.bytes = 1000 * MIB;
        put(
            usual.sectors.get_mut(&1).unwrap(),
            40,
            &34_u64.to_le_bytes(),
        );
        let mut header = usual.sectors[&1].clone();
        put(&mut header, 16, &[0; 4]);
        let sum = crc32fast::hash(&header[..HEADER_BYTES]);
        put(usual.sectors.get_mut(&1).unwrap(), 16, &sum.to_le_bytes());
        assert_eq!(usual.plan(2), Err(Refused::Room));

        // A boot loader lies there.
        let mut taken = image(8, BOOT_AND_STORAGE, 809);
        taken.bytes = 1000 * MIB;
        taken.write(4 * 512, &[0xEA; 512]);
        assert_eq!(taken.plan(2), Err(Refused::Room));
    }

    #[test]
    fn what_is_damaged_or_not_the_last_stays() {
        let mut disk = image(8, BOOT_AND_STORAGE, 809);
        disk.bytes = 1000 * MIB;
        assert_eq!(disk.plan(1), Err(Refused::NotLast));
        assert_eq!(disk.plan(3), Err(Refused::NotLast));
        for none in [0, 4, 8, 9, u32::MAX] {
            assert_eq!(disk.plan(none), Err(Refused::Entry), "{none}");
        }
        for (sector, bytes) in [(1, HEADER_BYTES), (2, 512), (3, 512)] {
            for at in 8..bytes {
                let mut damaged = disk.clone();
                damaged.sectors.get_mut(&sector).unwrap()[at] ^= 0x10;
                assert_eq!(damaged.plan(2), Err(Refused::Table), "{sector} {at}");
            }
        }
        disk.bytes = 100;
        assert_eq!(disk.plan(2), Err(Refused::Table));
    }

    #[test]
    fn an_mbr() {
        let mut disk = Disk {
            bytes: 1000 * MIB,
            ..Disk::default()
        };
        let mut table = vec![0; 512];
        table[510..].copy_from_slice(&[0x55, 0xAA]);
        for (at, (kind, start, length)) in [(0x0C, 2048_u32, 8192_u32), (0x83, 10240, 20480)]
            .into_iter()
            .enumerate()
        {
            let place = MBR_ENTRIES + at * MBR_ENTRY;
            table[place + 4] = kind;
            put(&mut table, place + 8, &start.to_le_bytes());
            put(&mut table, place + 12, &length.to_le_bytes());
        }
        disk.write(0, &table);
        assert_eq!(disk.plan(1), Err(Refused::NotLast));
        assert_eq!(disk.plan(3), Err(Refused::Entry));
        let larger = disk.plan(2).unwrap().unwrap();
        assert!(larger.first.is_empty());
        assert_eq!((larger.start, larger.bytes), (5 * MIB, 995 * MIB));
        disk.write(0, &larger.last.1);
        assert_eq!(disk.plan(2), Ok(None));
        // Larger than its numbers can say.
        disk.bytes = 5000 << 30;
        let larger = disk.plan(2).unwrap().unwrap();
        assert!(
            larger.bytes <= u64::from(u32::MAX) * 512,
            "{}",
            larger.bytes
        );
        // An extended partition is none.
        table[MBR_ENTRIES + MBR_ENTRY + 4] = 0x0F;
        disk.write(0, &table);
        assert_eq!(disk.plan(2), Err(Refused::Entry));
    }
}
