//! How fast and how much may be downloaded. Pure: time comes in, pauses and what is to be kept go out.
//!
//! A window begins with its first byte and ends after its time, whatever happens meanwhile. What was spent of it outlives a restart:
//! it is kept a little ahead of the bytes, so that a cut never makes a budget larger than it is. How old a kept window is by now
//! follows from two [`Moment`]s, which never claim more time than has surely passed.

use std::time::Duration;

use model::Instant;
use serde::{Deserialize, Serialize};

use crate::clock::Moment;

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
    /// What was kept as spent.
    kept: u64,
    /// The window was so old …
    age: Duration,
    /// … at this time.
    since: Instant,
}

/// What is kept of a budget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// Bytes of the window that count as taken.
    pub bytes: u64,
    /// Age of the window in milliseconds.
    pub age_ms: u64,
    /// When it had this age.
    pub at: Moment,
}

/// Time for which bytes may come at once before the rate holds them up.
const BURST: Duration = Duration::from_millis(250);
/// So many writes a budget costs at most, as long as that makes steps of these sizes.
const STEPS: u64 = 256;
const STEP_MIN: u64 = 64 << 10;
const STEP_MAX: u64 = 16 << 20;

impl Budget {
    /// A budget that is full.
    pub fn new(rate: u64, bytes: u64, window: Duration, now: Instant) -> Self {
        Self {
            rate,
            bytes,
            window,
            paid: now,
            spent: 0,
            kept: 0,
            age: Duration::ZERO,
            since: now,
        }
    }

    /// With what an earlier life of the client has spent.
    #[must_use]
    pub fn with_spent(mut self, spent: &Spent, at: &Moment, now: Instant) -> Self {
        (self.spent, self.kept) = (spent.bytes, spent.bytes);
        self.age = Duration::from_millis(spent.age_ms).saturating_add(at.since(&spent.at));
        self.since = now;
        self
    }

    /// Settings that have changed; what was spent stays spent.
    pub fn set(&mut self, rate: u64, bytes: u64, window: Duration) {
        (self.rate, self.bytes, self.window) = (rate, bytes, window);
    }

    /// Bytes have come: how long to wait before more are taken, by the rate. While somebody waits the connection's own flow control
    /// holds the sender up.
    pub fn took(&mut self, now: Instant, bytes: u64) -> Duration {
        let mut wait = Duration::ZERO;
        if let Some(price) = bytes.saturating_mul(1000).checked_div(self.rate) {
            self.paid = self.paid.max(now) + Duration::from_millis(price);
            wait = self.paid.since(now).saturating_sub(BURST);
        }
        if self.spent == 0 || self.age_at(now) >= self.window {
            (self.spent, self.kept) = (0, 0);
            (self.age, self.since) = (Duration::ZERO, now);
        }
        self.spent = self.spent.saturating_add(bytes);
        wait
    }

    /// How long nothing more may be taken, when the budget is used up.
    pub fn rest(&self, now: Instant) -> Option<Duration> {
        let rest = self.window.saturating_sub(self.age_at(now));
        (self.bytes > 0 && self.spent >= self.bytes && !rest.is_zero()).then_some(rest)
    }

    /// What must be durable before more is taken: when what was kept last does not cover what was taken, it goes a step ahead.
    /// Without a limit nothing is kept.
    pub fn to_keep(&mut self, now: Instant, at: impl FnOnce() -> Moment) -> Option<Spent> {
        if self.bytes == 0 || self.spent <= self.kept {
            return None;
        }
        let step = (self.bytes / STEPS).clamp(STEP_MIN, STEP_MAX);
        let ahead = step.min(self.bytes.saturating_sub(self.spent));
        Some(self.keep(self.spent.saturating_add(ahead), now, at()))
    }

    /// At an orderly end: what was spent exactly, if that is not what was kept.
    pub fn to_settle(&mut self, now: Instant, at: impl FnOnce() -> Moment) -> Option<Spent> {
        if self.bytes == 0 || self.spent == self.kept {
            return None;
        }
        Some(self.keep(self.spent, now, at()))
    }

    fn keep(&mut self, bytes: u64, now: Instant, at: Moment) -> Spent {
        self.kept = bytes;
        let age_ms = u64::try_from(self.age_at(now).as_millis()).unwrap_or(u64::MAX);
        Spent { bytes, age_ms, at }
    }

    fn age_at(&self, now: Instant) -> Duration {
        self.age.saturating_add(now.since(self.since))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Instant {
        Instant(ms)
    }

    fn moment(boot: &str, uptime_ms: u64, wall_s: u64) -> Moment {
        Moment {
            boot: boot.to_owned(),
            uptime_ms,
            wall_s,
        }
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
        let rest = |budget: &Budget, ms| budget.rest(at(ms)).map(|rest| rest.as_millis());
        // The window begins with its first byte.
        budget.took(at(5_000), 999);
        assert_eq!(rest(&budget, 5_000), None);
        budget.took(at(15_000), 1);
        assert_eq!(rest(&budget, 15_000), Some(50_000));
        assert_eq!(rest(&budget, 65_000), None);
        budget.took(at(65_000), 500);
        assert_eq!(rest(&budget, 65_000), None);
        budget.took(at(66_000), 500);
        assert_eq!(rest(&budget, 66_000), Some(59_000));
        // A person raises it, or makes the window shorter: that holds at once.
        budget.set(0, 2000, Duration::from_secs(60));
        assert_eq!(rest(&budget, 66_000), None);
        budget.set(0, 1000, Duration::from_secs(10));
        assert_eq!(rest(&budget, 66_000), Some(9_000));
        budget.set(0, 0, Duration::from_secs(60));
        budget.took(at(66_000), u64::MAX);
        assert_eq!(rest(&budget, 66_000), None);
        assert_eq!(budget.to_keep(at(66_000), || unreachable!()), None);
    }

    /// `(boot, uptime in s, clock)` before and after a restart that took an hour, and what is left to wait of a day's window.
    #[test]
    fn what_was_spent_outlives_a_restart_whatever_the_clock_says() {
        const SET: u64 = 1_800_000_000;
        const DAY: u64 = 24 * 3600;
        let hours = |before: (&str, u64, u64), after: (&str, u64, u64)| {
            let window = Duration::from_secs(DAY);
            let mut budget = Budget::new(0, 1000, window, at(0));
            budget.took(at(0), 1000);
            let (boot, uptime, wall) = before;
            let spent = budget.to_keep(at(2 * 3600 * 1000), || moment(boot, uptime * 1000, wall));
            let (boot, uptime, wall) = after;
            let later = Budget::new(0, 1000, window, at(7)).with_spent(
                &spent.unwrap(),
                &moment(boot, uptime * 1000, wall),
                at(7),
            );
            later.rest(at(7)).map_or(0, |rest| rest.as_secs() / 3600)
        };
        // The client alone was restarted: the clock is not asked, wherever it jumps.
        assert_eq!(hours(("a", 10_000, SET), ("a", 13_600, SET + 3600)), 21);
        assert_eq!(hours(("a", 10_000, SET), ("a", 13_600, 0)), 21);
        assert_eq!(hours(("a", 10_000, 0), ("a", 13_600, SET * 2)), 21);
        // The device was: the clock counts when it was set both times and went forward.
        assert_eq!(hours(("a", 10_000, SET), ("b", 60, SET + 3600)), 21);
        assert_eq!(hours(("a", 10_000, SET), ("b", 60, SET + 30 * DAY)), 0);
        // It was never set, is unset now, or went back: only the time since the boot has surely passed.
        assert_eq!(hours(("a", 10_000, 0), ("b", 3600, SET)), 21);
        assert_eq!(hours(("a", 10_000, SET), ("b", 3600, 60)), 21);
        assert_eq!(hours(("a", 10_000, SET), ("b", 3600, SET - 30 * DAY)), 21);
        // Nothing is known about boots: no time has surely passed.
        assert_eq!(hours(("", 0, 0), ("", 0, 0)), 22);
    }

    proptest! {
        /// Whenever the client is cut, all its lives together take no more than the budget and what was under way at each cut.
        #[test]
        fn cuts_never_make_a_budget_larger(
            pieces in prop::collection::vec((1_u64..70_000, any::<bool>()), 1..400),
            limit in 100_000_u64..20_000_000,
        ) {
            let window = Duration::from_secs(1000);
            let fresh = || Budget::new(0, limit, window, at(0));
            let (mut budget, mut kept, mut writes) = (fresh(), None, 0_u64);
            let (mut taken, mut cuts) = (0, 0);
            for (bytes, cut) in pieces {
                if budget.rest(at(0)).is_some() {
                    break;
                }
                budget.took(at(0), bytes);
                taken += bytes;
                if let Some(spent) = budget.to_keep(at(0), || moment("a", 0, 0)) {
                    prop_assert!(spent.bytes >= budget.spent && spent.bytes <= limit.max(budget.spent));
                    kept = Some(spent);
                    writes += 1;
                }
                if cut {
                    cuts += 1;
                    let spent: Spent = kept.clone().unwrap();
                    budget = fresh().with_spent(&spent, &moment("a", 0, 0), at(0));
                }
            }
            prop_assert!(taken < limit + 70_000, "{taken} of {limit}");
            let steps = limit / (limit / STEPS).clamp(STEP_MIN, STEP_MAX) + 1;
            prop_assert!(writes <= steps + cuts + 1, "{writes} writes");
            // An orderly end gives back what was kept ahead.
            if let Some(spent) = budget.to_settle(at(0), || moment("a", 0, 0)) {
                prop_assert_eq!(spent.bytes, budget.spent);
            }
        }
    }
}
