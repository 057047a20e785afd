//! Monotonic time since the machine's boot (time asleep included) and wall clock time.

use std::time::{SystemTime, UNIX_EPOCH};

use device::ports::Clock;
use model::{Instant, WallTime};
use rustix::time::{ClockId, clock_gettime};

/// The machine's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        let time = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let millis = u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000;
        Instant(seconds.saturating_mul(1000).saturating_add(millis))
    }

    fn wall(&self) -> WallTime {
        // A clock before 1970 is told as 1970; nothing is decided by it.
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        WallTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// Sets the wall clock.
///
/// # Errors
/// We may not, or the kernel refuses the time.
pub fn set_wall(seconds: u64) -> std::io::Result<()> {
    let time = rustix::time::Timespec {
        tv_sec: i64::try_from(seconds).map_err(|_| std::io::ErrorKind::InvalidInput)?,
        tv_nsec: 0,
    };
    Ok(rustix::time::clock_settime(ClockId::Realtime, time)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_does_not_go_back() {
        let clock = SystemClock;
        let earlier = clock.now();
        assert!(earlier > Instant::ZERO);
        assert!(clock.now() >= earlier);
        assert!(clock.wall() > WallTime(1_700_000_000_000));
    }
}
