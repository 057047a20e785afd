//! Monotonic time and chance, at the edge: what decides gets both as values.

use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::OnceLock;

use std::time::Duration;

use model::Instant;
use serde::{Deserialize, Serialize};

/// Milliseconds since this process first asked; never goes back, never jumps with the wall clock.
pub fn now() -> Instant {
    static START: OnceLock<std::time::Instant> = OnceLock::new();
    let passed = START.get_or_init(std::time::Instant::now).elapsed();
    Instant(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX))
}

/// A number that nobody can foresee well enough to align a fleet by; no secret.
pub fn random() -> u64 {
    // Keys of the standard library's hash maps come from the kernel and differ with each call.
    let mut hasher = std::hash::RandomState::new().build_hasher();
    hasher.write_u64(now().0);
    hasher.finish()
}

/// A point in time that can be compared with one of an earlier process or boot, as far as a device can know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Which boot; empty when the kernel does not say.
    pub boot: String,
    /// Time since that boot.
    pub uptime_ms: u64,
    /// Seconds since 1970, by a clock that may never have been set.
    pub wall_s: u64,
}

/// Before this (2024-01-01) a clock is taken for one that was never set.
pub const UNSET_BEFORE_S: u64 = 1_704_067_200;

impl Moment {
    /// Now; the wall clock comes from the caller.
    pub fn now(wall_s: u64) -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let uptime = read("/proc/uptime");
        let uptime = uptime.split(' ').next().and_then(|text| text.parse().ok());
        let uptime = Duration::try_from_secs_f64(uptime.unwrap_or_default());
        let boot = read("/proc/sys/kernel/random/boot_id");
        Self {
            boot: boot.trim().to_owned(),
            uptime_ms: u64::try_from(uptime.unwrap_or_default().as_millis()).unwrap_or(u64::MAX),
            wall_s,
        }
    }

    /// The time that has surely passed since an earlier moment. Within a boot the wall clock is not asked; after one it counts only
    /// when it was set both times.
    pub fn since(&self, earlier: &Self) -> Duration {
        let uptime = Duration::from_millis(self.uptime_ms);
        if !self.boot.is_empty() && self.boot == earlier.boot {
            return uptime.saturating_sub(Duration::from_millis(earlier.uptime_ms));
        }
        let both_set = self.wall_s.min(earlier.wall_s) >= UNSET_BEFORE_S;
        let by_clock = self.wall_s.saturating_sub(earlier.wall_s);
        uptime.max(Duration::from_secs(if both_set { by_clock } else { 0 }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_knows_its_boot() {
        let first = Moment::now(0);
        assert!(first.boot.len() > 30, "{first:?}");
        assert!(first.uptime_ms > 0, "{first:?}");
        std::thread::sleep(Duration::from_millis(30));
        let passed = Moment::now(0).since(&first);
        assert!(passed >= Duration::from_millis(20) && passed < Duration::from_secs(60));
    }
}
