//! When to poll, so that a fleet never comes at the same moment: each device has its own place within the interval, made from its
//! name, and every interval is spread a little. Pure; monotonic time only, so that a clock at 1970 or one that jumps is no matter.
//!
//! A fleet that is switched on at once (a power cut of a town) comes spread over [`START_MAX`] at first and over its interval from then
//! on; a restart keeps the device's place and does not align it with others.

use std::time::Duration;

use sha2::Digest as _;

use crate::backoff::part_of;

/// The first poll comes within this after the start, or within the interval when that is shorter.
pub const START_MAX: Duration = Duration::from_secs(60);

/// Times between polls that are acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// When the cloud says nothing.
    pub usual: Duration,
    /// Shortest.
    pub min: Duration,
    /// Longest.
    pub max: Duration,
    /// While a deployment can still be cancelled.
    pub busy: Duration,
}

/// The polling of one device.
#[derive(Debug, Clone)]
pub struct Schedule {
    bounds: Bounds,
    /// The device's place in every interval: 0 to 2^32 - 1.
    place: u32,
    said: Option<Duration>,
}

impl Schedule {
    /// For the device of this name.
    pub fn new(device: &str, bounds: Bounds) -> Self {
        let digest: [u8; 32] = sha2::Sha256::digest(device.as_bytes()).into();
        let place = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
        Self {
            bounds,
            place,
            said: None,
        }
    }

    /// Settings that have changed.
    pub fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
    }

    /// What the cloud said; `None` leaves what it said before.
    pub fn said(&mut self, interval: Option<Duration>) {
        self.said = interval.or(self.said);
    }

    /// The interval that holds now.
    pub fn interval(&self) -> Duration {
        let Bounds {
            usual, min, max, ..
        } = self.bounds;
        self.said.unwrap_or(usual).min(max).max(min)
    }

    /// Time from the start to the first poll.
    pub fn first(&self) -> Duration {
        scale(self.interval().min(START_MAX), self.place)
    }

    /// Time to the next poll. `first_pause`: it is the second poll since the start; its length makes the fleet take its places in the
    /// whole interval.
    pub fn next(&self, random: u64, busy: bool, first_pause: bool) -> Duration {
        let interval = self.interval();
        if busy {
            let busy = self.bounds.busy.min(interval);
            return spread(busy, random);
        }
        if first_pause {
            // Between half an interval and one and a half, by the device's place.
            return interval / 2 + scale(interval, self.place.rotate_left(16));
        }
        spread(interval, random)
    }
}

/// A tenth less to a tenth more.
fn spread(time: Duration, random: u64) -> Duration {
    time - time / 10 + part_of(time / 5, random)
}

fn scale(time: Duration, place: u32) -> Duration {
    let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX >> 33);
    Duration::from_millis(ms.min(u64::MAX >> 33).saturating_mul(u64::from(place)) >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        usual: Duration::from_secs(300),
        min: Duration::from_secs(30),
        max: Duration::from_secs(86_400),
        busy: Duration::from_secs(20),
    };

    fn random(seed: &mut u64) -> u64 {
        *seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        *seed >> 11
    }

    /// Polls in each second of an hour, of a fleet that starts at the same moment.
    fn fleet(devices: usize, restarts: bool) -> Vec<u32> {
        let mut seconds = vec![0_u32; 3600];
        let mut seed = 7;
        for device in 0..devices {
            let mut schedule = Schedule::new(&format!("device-{device}"), BOUNDS);
            schedule.said(Some(Duration::from_secs(300)));
            let mut at = schedule.first();
            let mut polls = 0;
            while at.as_secs() < 3600 {
                seconds[usize::try_from(at.as_secs()).unwrap()] += 1;
                polls += 1;
                at += schedule.next(random(&mut seed), false, polls == 1);
                // Half way the whole fleet is restarted at the same moment.
                if restarts && at.as_secs() > 1800 && polls < 1000 {
                    polls = 1000;
                    at = Duration::from_secs(1800) + schedule.first();
                }
            }
        }
        seconds
    }

    #[test]
    fn a_fleet_never_stampedes() {
        for restarts in [false, true] {
            let seconds = fleet(10_000, restarts);
            // 10,000 devices in a first minute are 167 a second; later 33 a second on average.
            let first = seconds[..60].iter().max().unwrap();
            assert!(*first < 230, "{first} in a second after the start");
            let later = seconds[900..1800].iter().max().unwrap();
            assert!(*later < 90, "{later} in a second later");
            assert!(seconds[900..1800].iter().all(|count| *count > 5));
        }
    }

    #[test]
    fn intervals_are_bounded_and_spread() {
        let mut schedule = Schedule::new("x", BOUNDS);
        assert_eq!(schedule.interval(), Duration::from_secs(300));
        for (said, holds) in [(1, 30), (0, 30), (60, 60), (1_000_000, 86_400)] {
            schedule.said(Some(Duration::from_secs(said)));
            assert_eq!(schedule.interval(), Duration::from_secs(holds));
        }
        schedule.said(None);
        assert_eq!(schedule.interval(), Duration::from_secs(86_400));
        schedule.said(Some(Duration::from_secs(100)));
        for n in 0..1000 {
            let mut seed = n;
            let next = schedule.next(random(&mut seed), false, false);
            assert!((Duration::from_secs(90)..=Duration::from_secs(110)).contains(&next));
            let busy = schedule.next(random(&mut seed), true, false);
            assert!((Duration::from_secs(18)..=Duration::from_secs(22)).contains(&busy));
        }
        assert!(schedule.first() <= START_MAX);
        assert_eq!(schedule.first(), Schedule::new("x", BOUNDS).first());
    }
}
