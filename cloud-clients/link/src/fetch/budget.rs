//! How fast and how much may be downloaded. Pure: time comes in, pauses go out.

use std::time::Duration;

use model::Instant;

/// A rate and a budget.
#[derive(Debug, Clone)]
pub struct Budget {
    /// Bytes per second; 0 for no limit.
    rate: u64,
    /// Bytes within `window`; 0 for no limit.
    bytes: u64,
    window: Duration,
    /// When what was taken so far is paid for.
    paid: Instant,
    spent: u64,
    since: Instant,
}

/// Time for which bytes may come at once before the rate holds them up.
const BURST: Duration = Duration::from_millis(250);

impl Budget {
    /// A budget that is full.
    pub fn new(rate: u64, bytes: u64, window: Duration, now: Instant) -> Self {
        Self {
            rate,
            bytes,
            window,
            paid: now,
            spent: 0,
            since: now,
        }
    }

    /// Settings that have changed; what was spent stays spent.
    pub fn set(&mut self, rate: u64, bytes: u64, window: Duration) {
        (self.rate, self.bytes, self.window) = (rate, bytes, window);
    }

    /// Bytes have come: how long to wait before more are taken. While somebody waits the connection's own flow control holds the
    /// sender up.
    pub fn took(&mut self, now: Instant, bytes: u64) -> Duration {
        let mut wait = Duration::ZERO;
        if let Some(price) = bytes.saturating_mul(1000).checked_div(self.rate) {
            self.paid = self.paid.max(now) + Duration::from_millis(price);
            wait = self.paid.since(now).saturating_sub(BURST);
        }
        if now.since(self.since) >= self.window {
            self.since = now;
            self.spent = 0;
        }
        self.spent = self.spent.saturating_add(bytes);
        if self.bytes > 0 && self.spent >= self.bytes {
            wait = wait.max((self.since + self.window).since(now));
        }
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant(ms)
    }

    #[test]
    fn a_rate_is_held_over_time() {
        let mut budget = Budget::new(100_000, 0, Duration::from_secs(60), at(0));
        let (mut now, mut bytes) = (0, 0_u64);
        while bytes < 5_000_000 {
            bytes += 16_384;
            let wait = budget.took(at(now), 16_384);
            now += u64::try_from(wait.as_millis()).unwrap();
        }
        let seconds = bytes / 100_000;
        assert!((seconds - 1..=seconds + 1).contains(&(now / 1000)), "{now}");
    }

    #[test]
    fn a_budget_is_full_again_after_its_time() {
        let mut budget = Budget::new(0, 1000, Duration::from_secs(60), at(0));
        assert_eq!(budget.took(at(0), 999), Duration::ZERO);
        assert_eq!(budget.took(at(10_000), 1), Duration::from_secs(50));
        assert_eq!(budget.took(at(60_000), 500), Duration::ZERO);
        assert_eq!(budget.took(at(61_000), 500), Duration::from_secs(59));
        budget.set(0, 0, Duration::from_secs(60));
        assert_eq!(budget.took(at(61_000), u64::MAX), Duration::ZERO);
    }
}
