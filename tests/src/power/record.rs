//! A recording of all that happened to a disk, and of what the machine told meanwhile; and the disk as it may be after a cut.
//!
//! The recording is made where the disk is served, in the order in which the disk saw it. What the machine told lies between two
//! entries: it was told after the first and before the second was asked for, or later (a line travels for a moment), so it is never
//! taken for told too early. [`Player`] goes through the entries once and knows at each what is durable and what only cached.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::SECTOR;
use super::moments::Moments;

/// What is looked at together.
pub const BLOCK: usize = 4096;

/// One sector.
pub type Sector = [u8; SECTOR];

/// What happened to the disk.
#[derive(Debug, Clone)]
pub enum Entry {
    /// Bytes were written at this offset, for good or into the cache.
    Write {
        /// Where.
        offset: u64,
        /// What.
        data: Vec<u8>,
        /// With forced unit access.
        durable: bool,
    },
    /// All that was answered before is durable.
    Flush,
    /// The power was cut: of the cache these sectors reached the medium.
    Cut(Vec<(u64, Sector)>),
}

/// A disk's history.
#[derive(Debug, Default)]
pub struct Recording {
    /// What happened, in order.
    pub entries: Vec<Entry>,
    /// What the machine told, and how many entries there were.
    pub told: Vec<(usize, String)>,
}

/// Where a recording is made; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Recorder(Arc<Mutex<Recording>>);

impl Recorder {
    fn recording(&self) -> MutexGuard<'_, Recording> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A write arrived.
    pub fn write(&self, offset: u64, data: &[u8], durable: bool) {
        let data = data.to_vec();
        self.recording().entries.push(Entry::Write {
            offset,
            data,
            durable,
        });
    }

    /// A flush was carried out.
    pub fn flush(&self) {
        self.recording().entries.push(Entry::Flush);
    }

    /// The power was cut.
    pub fn cut(&self, kept: Vec<(u64, Sector)>) {
        self.recording().entries.push(Entry::Cut(kept));
    }

    /// The machine told this.
    pub fn told(&self, line: String) {
        let mut recording = self.recording();
        let place = recording.entries.len();
        recording.told.push((place, line));
    }

    /// The end: takes what was recorded.
    pub fn take(&self) -> Recording {
        std::mem::take(&mut *self.recording())
    }
}

/// What of the cache reaches the medium when the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nothing.
    Lost,
    /// All of it.
    Kept,
    /// Each write by itself, in any order: of two that overlap either may be the one that stays.
    Writes,
    /// Each sector by itself, in any of its versions: writes are torn.
    Sectors,
}

/// A disk that goes through a recording.
#[derive(Debug)]
pub struct Player<'a> {
    entries: &'a [Entry],
    next: usize,
    /// What is durable.
    medium: Vec<u8>,
    /// Which blocks of it are not all zero.
    used: Vec<bool>,
    /// Writes in the cache, oldest first.
    cached: Vec<(u64, &'a [u8])>,
    /// A disk that lies loses a flush now and then: one of so many is carried out; 1 is an honest one.
    honest_one_of: usize,
    flushes: usize,
}

impl<'a> Player<'a> {
    /// The disk as it was when the recording began.
    pub fn new(medium: Vec<u8>, entries: &'a [Entry]) -> Self {
        Self {
            entries,
            next: 0,
            used: used(&medium),
            medium,
            cached: Vec::new(),
            honest_one_of: 1,
            flushes: 0,
        }
    }

    /// Carries out one flush of so many, and says that it carried out all.
    pub fn lying(mut self, honest_one_of: usize) -> Self {
        self.honest_one_of = honest_one_of;
        self
    }

    /// Goes on to where so many entries have happened.
    pub fn go_to(&mut self, place: usize) {
        while self.next < place.min(self.entries.len()) {
            match &self.entries[self.next] {
                Entry::Write {
                    offset,
                    data,
                    durable: false,
                } => self.cached.push((*offset, data)),
                Entry::Write {
                    offset,
                    data,
                    durable: true,
                } => {
                    // What it overwrites in the cache must not come back over it; whole pieces only, as file systems write blocks.
                    let end = offset + data.len() as u64;
                    self.cached.retain(|(at, old)| {
                        let inside = at >= offset && at + old.len() as u64 <= end;
                        !inside
                    });
                    self.put(*offset, data);
                }
                Entry::Flush => {
                    self.flushes += 1;
                    if self.flushes.is_multiple_of(self.honest_one_of) {
                        for (offset, data) in std::mem::take(&mut self.cached) {
                            self.put(offset, data);
                        }
                    }
                }
                Entry::Cut(kept) => {
                    self.cached.clear();
                    for (sector, data) in kept {
                        self.put(sector * SECTOR as u64, data);
                    }
                }
            }
            self.next += 1;
        }
    }

    fn put(&mut self, offset: u64, data: &[u8]) {
        put(&mut self.medium, offset, data);
        let start = usize::try_from(offset).expect("a disk fits into memory");
        let blocks = start / BLOCK..(start + data.len()).div_ceil(BLOCK);
        self.used[blocks].fill(true);
    }

    /// Which blocks of the medium are not all zero.
    pub fn used(&self) -> &[bool] {
        &self.used
    }

    /// How many writes are in the cache.
    pub fn cached(&self) -> usize {
        self.cached.len()
    }

    /// What is durable.
    pub fn medium(&self) -> &[u8] {
        &self.medium
    }

    /// What a cut would add to the medium now, in the order in which it is to be written.
    pub fn survivors(&self, fate: Fate, moments: &mut Moments) -> Vec<(u64, &'a [u8])> {
        match fate {
            Fate::Lost => Vec::new(),
            Fate::Kept => self.cached.clone(),
            Fate::Writes => {
                let mut chosen: Vec<_> = self.cached.clone();
                chosen.retain(|_| moments.below(2) == 0);
                for last in (1..chosen.len()).rev() {
                    let other = usize::try_from(moments.below(last as u64 + 1)).unwrap_or(last);
                    chosen.swap(last, other);
                }
                chosen
            }
            Fate::Sectors => {
                let mut versions: BTreeMap<u64, Vec<&'a [u8]>> = BTreeMap::new();
                for (offset, data) in &self.cached {
                    let first = offset / SECTOR as u64;
                    for (sector, part) in (first..).zip(data.chunks(SECTOR)) {
                        versions.entry(sector).or_default().push(part);
                    }
                }
                let mut chosen = Vec::new();
                for (sector, versions) in versions {
                    // One more than there are: the sector as it was.
                    let version = moments.below(versions.len() as u64 + 1);
                    let version = usize::try_from(version).unwrap_or(usize::MAX);
                    if let Some(data) = versions.get(version) {
                        chosen.push((sector * SECTOR as u64, *data));
                    }
                }
                chosen
            }
        }
    }
}

/// Which blocks are not all zero.
pub fn used(medium: &[u8]) -> Vec<bool> {
    let zero = [0; BLOCK];
    let blocks = medium.chunks(BLOCK);
    blocks.map(|block| *block != zero[..block.len()]).collect()
}

fn put(medium: &mut [u8], offset: u64, data: &[u8]) {
    let start = usize::try_from(offset).expect("a disk fits into memory");
    let place = medium.get_mut(start..start + data.len());
    place
        .expect("the disk refused writes behind its end")
        .copy_from_slice(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(sector: u64, byte: u8, durable: bool) -> Entry {
        Entry::Write {
            offset: sector * SECTOR as u64,
            data: vec![byte; 2 * SECTOR],
            durable,
        }
    }

    /// The first byte of each sector after a cut.
    fn after(player: &Player<'_>, fate: Fate, moments: &mut Moments) -> Vec<u8> {
        let mut medium = player.medium().to_vec();
        for (offset, data) in player.survivors(fate, moments) {
            put(&mut medium, offset, data);
        }
        medium.chunks(SECTOR).map(|sector| sector[0]).collect()
    }

    #[test]
    fn a_cut_leaves_every_mixture_of_what_was_not_flushed_and_nothing_else() {
        let entries = [
            write(0, 1, false),
            Entry::Flush,
            write(0, 2, false),
            write(1, 3, false),
        ];
        let mut player = Player::new(vec![0; 4 * SECTOR], &entries);
        let mut moments = Moments::from_seed(3);
        player.go_to(4);
        let mut seen = std::collections::BTreeSet::new();
        for fate in [Fate::Lost, Fate::Kept, Fate::Writes, Fate::Sectors] {
            for _ in 0..200 {
                seen.insert((fate as u8, after(&player, fate, &mut moments)));
            }
        }
        let of = |fate: Fate| -> Vec<Vec<u8>> {
            let all = seen.iter().filter(|(of, _)| *of == fate as u8);
            all.map(|(_, found)| found.clone()).collect()
        };
        assert_eq!(of(Fate::Lost), [[1, 1, 0, 0]]);
        assert_eq!(of(Fate::Kept), [[2, 3, 3, 0]]);
        // None, the first, the second, both, and both the other way round.
        let expected = [
            [1, 1, 0, 0],
            [1, 3, 3, 0],
            [2, 2, 0, 0],
            [2, 2, 3, 0],
            [2, 3, 3, 0],
        ];
        assert_eq!(of(Fate::Writes), expected);
        // The first sector old or new, the second in three versions, the third old or new.
        assert_eq!(of(Fate::Sectors).len(), 2 * 3 * 2);
    }

    #[test]
    fn a_flush_is_durable_unless_the_disk_lies() {
        let entries = [write(0, 1, false), Entry::Flush, write(2, 2, true)];
        let mut moments = Moments::from_seed(3);
        let mut honest = Player::new(vec![0; 4 * SECTOR], &entries);
        honest.go_to(3);
        assert_eq!(honest.cached(), 0);
        assert_eq!(after(&honest, Fate::Lost, &mut moments), [1, 1, 2, 2]);
        let mut liar = Player::new(vec![0; 4 * SECTOR], &entries).lying(2);
        liar.go_to(3);
        assert_eq!(after(&liar, Fate::Lost, &mut moments), [0, 0, 2, 2]);
        assert_eq!(after(&liar, Fate::Kept, &mut moments), [1, 1, 2, 2]);
    }
}
