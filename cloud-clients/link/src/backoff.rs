//! Pauses after calls that failed: growing, and random over their whole length ("full jitter"), so that a fleet whose server was
//! away does not come back at once. Pure: randomness comes in.

use std::time::Duration;

/// First upper bound of a pause.
pub const FIRST: Duration = Duration::from_secs(1);

/// Counts failures in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
    max: Duration,
}

impl Backoff {
    /// With pauses of at most `max`.
    pub fn new(max: Duration) -> Self {
        Self { failures: 0, max }
    }

    /// Something succeeded.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Something failed: how long to wait. `random` is any number; `asked` is what the other side asked for, which is the least.
    pub fn failed(&mut self, random: u64, asked: Option<Duration>) -> Duration {
        let bound = FIRST
            .saturating_mul(1_u32.checked_shl(self.failures.min(20)).unwrap_or(u32::MAX))
            .min(self.max.max(FIRST));
        self.failures = self.failures.saturating_add(1);
        let own = part_of(bound, random);
        // Who was told a time comes after it, and not together with all who were told the same.
        match asked {
            Some(asked) => asked.min(ASKED_MAX) + own,
            None => own,
        }
    }
}

/// The longest pause that is believed of a server.
const ASKED_MAX: Duration = Duration::from_secs(24 * 3600);

/// A random part of a time: from nothing to all of it.
pub fn part_of(time: Duration, random: u64) -> Duration {
    let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(random % ms.saturating_add(1).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_double_up_to_the_limit_and_pauses_fill_them() {
        let mut backoff = Backoff::new(Duration::from_secs(60));
        let mut bounds = Vec::new();
        for _ in 0..9 {
            let mut probe = backoff;
            let longest = (0..2000)
                .map(|n: u64| {
                    let mut one = backoff;
                    one.failed(n.wrapping_mul(0x9e37_79b9_7f4a_7c15), None)
                })
                .max()
                .unwrap();
            bounds.push(longest.as_millis().div_ceil(1000));
            probe.failed(0, None);
            backoff = probe;
        }
        assert_eq!(bounds, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(backoff.failures(), 9);
        backoff.reset();
        assert!(backoff.failed(u64::MAX, None) <= FIRST);
    }

    #[test]
    fn what_the_server_asks_is_the_least() {
        let mut backoff = Backoff::new(Duration::from_secs(60));
        let asked = Some(Duration::from_secs(120));
        assert!(backoff.failed(999, asked) >= Duration::from_secs(120));
        let week = Some(Duration::from_secs(7 * 24 * 3600));
        assert!(backoff.failed(999, week) <= Duration::from_secs(24 * 3600 + 60));
    }
}
