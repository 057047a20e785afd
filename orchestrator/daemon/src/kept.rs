//! What a machine without a clock and with little chance keeps from one boot to the next: the time, and a seed of random numbers.
//!
//! Both lie in `boot/` of the storage. Time never goes back over a boot: it is at least what was kept and at least what the system was
//! built at. A seed counts as random only once: it is replaced durably before it is used.

use std::path::Path;
use std::time::Duration;

use linux::clock::SystemClock;
use linux::disk::LinuxDisk;
use linux::entropy::{self, SEED_BYTES};
use store::disk::Disk as _;

/// Seconds since 1970 and a newline.
const CLOCK: &str = "boot/clock";
/// The seed; with one more byte, 1, when it was made by a pool in good order.
const SEED: &str = "boot/seed";
/// When the system was built, seconds since 1970; in its image.
const BUILT: &str = "/etc/coxswain/build-time";
/// Bytes of either file.
const FILE_BYTES_MAX: usize = 64;
/// A time after this, the year 2200, is a mistake.
const SECONDS_MAX: u64 = 7_258_118_400;
/// How often a running device keeps its time: little to write, little to lose.
pub(crate) const INTERVAL: Duration = Duration::from_secs(600);

/// The time that a boot must not be before, seconds since 1970; zero when nothing is known.
pub(crate) fn time_floor(storage: &Path) -> u64 {
    let kept = LinuxDisk::open(storage).and_then(|disk| disk.read(CLOCK.as_ref(), FILE_BYTES_MAX));
    let built = std::fs::read(BUILT);
    kept.ok()
        .and_then(|text| seconds(&text))
        .max(built.ok().and_then(|text| seconds(&text)))
        .unwrap_or(0)
}

fn seconds(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text.get(..text.len().min(FILE_BYTES_MAX))?).ok()?;
    let seconds = text.trim().parse().ok()?;
    (seconds <= SECONDS_MAX).then_some(seconds)
}

/// Keeps the time as it is now.
///
/// # Errors
/// As the disk gives them.
pub(crate) fn keep_time(storage: &Path) -> std::io::Result<()> {
    use device::ports::Clock as _;
    let now = SystemClock.wall().0 / 1000;
    let disk = LinuxDisk::open(storage)?;
    let kept = disk.read(CLOCK.as_ref(), FILE_BYTES_MAX);
    // A clock that was set back, by a mistake or by a person, is not kept over a boot before it passes what is kept.
    if kept
        .ok()
        .and_then(|text| seconds(&text))
        .is_some_and(|kept| kept >= now)
    {
        return Ok(());
    }
    linux::replace::replace(&disk, CLOCK.as_ref(), format!("{now}\n").as_bytes())
}

/// Takes the seed of the boot before and puts a fresh one in its place; tells the bytes, and whether they count as random.
/// `None` when there is none.
///
/// # Errors
/// As the disk gives them; the seed may then be used, and does not count.
pub(crate) fn exchange_seed(storage: &Path) -> std::io::Result<Option<([u8; SEED_BYTES], bool)>> {
    let disk = LinuxDisk::open(storage)?;
    let old = disk.read(SEED.as_ref(), FILE_BYTES_MAX).unwrap_or_default();
    let (mut next, good) = entropy::fresh();
    // Not less random than either of them.
    for (next, old) in next.iter_mut().zip(&old) {
        *next ^= old;
    }
    let was_good = old.get(SEED_BYTES) == Some(&1);
    write_seed(&disk, &next, good || was_good)?;
    let seed = old.get(..SEED_BYTES).and_then(|seed| seed.try_into().ok());
    Ok(seed.map(|seed| (seed, was_good)))
}

/// Keeps a fresh seed for the next boot.
///
/// # Errors
/// As the disk gives them.
pub(crate) fn keep_seed(storage: &Path) -> std::io::Result<()> {
    exchange_seed(storage).map(drop)
}

fn write_seed(disk: &LinuxDisk, seed: &[u8], good: bool) -> std::io::Result<()> {
    let mut bytes = seed.to_vec();
    bytes.push(u8::from(good));
    linux::replace::replace(disk, SEED.as_ref(), &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_kept_and_never_goes_back() {
        let storage = tempfile::tempdir().unwrap();
        assert_eq!(time_floor(storage.path()), 0);
        keep_time(storage.path()).unwrap();
        let kept = time_floor(storage.path());
        assert!(kept > 1_700_000_000);
        // A clock that is behind what is kept leaves it.
        let file = storage.path().join(CLOCK);
        std::fs::write(&file, format!("{}\n", kept + 1_000_000)).unwrap();
        keep_time(storage.path()).unwrap();
        assert_eq!(time_floor(storage.path()), kept + 1_000_000);
        for bad in ["", "x", "-1", "99999999999999999999", "7258118401", "1e9"] {
            std::fs::write(&file, bad).unwrap();
            assert_eq!(time_floor(storage.path()), 0, "{bad:?}");
            keep_time(storage.path()).unwrap();
            assert!(time_floor(storage.path()) >= kept, "{bad:?}");
        }
    }

    #[test]
    fn a_seed_is_used_once() {
        let storage = tempfile::tempdir().unwrap();
        let exchanged = || exchange_seed(storage.path()).unwrap();
        assert_eq!(exchanged(), None);
        let (first, good) = exchanged().unwrap();
        assert!(good, "this machine's pool is in order");
        let (second, _) = exchanged().unwrap();
        assert_ne!(first, second);
        // One that somebody put there, as in an image that many devices get, does not count.
        std::fs::write(storage.path().join(SEED), [7; SEED_BYTES]).unwrap();
        assert_eq!(
            exchange_seed(storage.path()).unwrap(),
            Some(([7; SEED_BYTES], false))
        );
        std::fs::write(storage.path().join(SEED), [7; 3]).unwrap();
        assert_eq!(exchange_seed(storage.path()).unwrap(), None);
    }
}
