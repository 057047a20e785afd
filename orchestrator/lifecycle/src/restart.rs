//! When a container that ended is started again: the policy as one total function of values.
//!
//! Whether running out of retries fails a trial or asks for the back-off policy is decided by the caller
//! (`containers`), not here.

use std::time::Duration;

use model::container::{Recovery, RecoveryPolicy};

/// No pause between two starts is longer than this.
pub const DELAY_MAX: Duration = Duration::from_secs(300);

/// What is to be done about a container that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Start it again.
    Retry {
        /// Which retry this is, 1 for the first.
        retry: u32,
        /// How long to wait before.
        delay: Duration,
    },
    /// It ended as it should; nothing more to do.
    Completed,
    /// Its policy is not to start it again.
    Stay,
    /// Every retry was used.
    Exhausted,
}

/// Decides after an end. `failed` is false only for exit code 0; `retries` are those used so far; `uptime` is how long it
/// ran, zero when it could not be started.
pub fn after_end(recovery: &Recovery, failed: bool, retries: u32, uptime: Duration) -> Next {
    match recovery.policy {
        RecoveryPolicy::No => return Next::Stay,
        RecoveryPolicy::OnFailure if !failed => return Next::Completed,
        RecoveryPolicy::Always | RecoveryPolicy::OnFailure | RecoveryPolicy::UnlessStopped => {}
    }
    // A window of zero would forget every retry: it stands for "never forget".
    let forgotten = !recovery.reset_window.is_zero() && uptime > recovery.reset_window;
    let retry = if forgotten {
        1
    } else {
        retries.saturating_add(1)
    };
    if recovery.max_retries != 0 && retry > recovery.max_retries {
        return Next::Exhausted;
    }
    Next::Retry {
        retry,
        delay: delay(recovery, retry),
    }
}

/// Pause before retry number `retry` (1 is the first): `retry_delay * factor^(retry - 1)`, at most [`DELAY_MAX`].
pub fn delay(recovery: &Recovery, retry: u32) -> Duration {
    let factor = recovery.backoff_factor.max(1.0);
    let exponent = i32::try_from(retry.saturating_sub(1)).unwrap_or(i32::MAX);
    let seconds = recovery.retry_delay.as_secs_f64() * factor.powi(exponent);
    // NaN (0 * infinity) compares false with everything and so gives no pause.
    if seconds >= DELAY_MAX.as_secs_f64() {
        DELAY_MAX
    } else if seconds > 0.0 {
        Duration::from_secs_f64(seconds)
    } else {
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use model::container::BackoffPolicy;

    use super::*;

    fn recovery(policy: RecoveryPolicy, max_retries: u32) -> Recovery {
        Recovery {
            policy,
            max_retries,
            retry_delay: Duration::from_secs(5),
            backoff_factor: 2.0,
            reset_window: Duration::from_secs(60),
            stable_timeout: Duration::from_secs(30),
            backoff: BackoffPolicy::Reboot,
        }
    }

    #[test]
    fn policies() {
        use RecoveryPolicy::{Always, No, OnFailure, UnlessStopped};
        let retry = |retry, seconds| Next::Retry {
            retry,
            delay: Duration::from_secs(seconds),
        };
        for (policy, max, failed, retries, uptime, next) in [
            (No, 5, true, 0, 0, Next::Stay),
            (No, 5, false, 0, 0, Next::Stay),
            (OnFailure, 5, false, 0, 0, Next::Completed),
            (OnFailure, 5, true, 0, 0, retry(1, 5)),
            (OnFailure, 5, true, 4, 60, retry(5, 80)),
            (OnFailure, 5, true, 5, 60, Next::Exhausted),
            (OnFailure, 5, true, 5, 61, retry(1, 5)),
            (Always, 1, false, 0, 0, retry(1, 5)),
            (Always, 1, false, 1, 0, Next::Exhausted),
            (Always, 0, true, 1_000_000, 0, retry(1_000_001, 300)),
            (Always, 0, true, u32::MAX, 0, retry(u32::MAX, 300)),
            (UnlessStopped, 2, false, 1, 0, retry(2, 10)),
        ] {
            let got = after_end(
                &recovery(policy, max),
                failed,
                retries,
                Duration::from_secs(uptime),
            );
            assert_eq!(got, next, "{policy} {max} {failed} {retries} {uptime}");
        }
    }

    #[test]
    fn delays_are_bounded_for_any_numbers() {
        for factor in [0.0, 0.5, 1.0, 1e300, f64::INFINITY, f64::NAN, -3.0] {
            for seconds in [0, 1, 400, u64::MAX] {
                let mut recovery = recovery(RecoveryPolicy::Always, 0);
                recovery.backoff_factor = factor;
                recovery.retry_delay = Duration::from_secs(seconds);
                for retry in [0, 1, 2, 50, u32::MAX] {
                    assert!(delay(&recovery, retry) <= DELAY_MAX);
                }
            }
        }
    }

    #[test]
    fn no_reset_window_never_forgets() {
        let mut recovery = recovery(RecoveryPolicy::Always, 3);
        recovery.reset_window = Duration::ZERO;
        assert_eq!(
            after_end(&recovery, true, 3, Duration::from_secs(9999)),
            Next::Exhausted
        );
    }
}
