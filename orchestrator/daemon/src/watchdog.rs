//! The watchdog as the loop kicks it: only the loop's own thread, at its turns, so that a loop that is stuck is one that is not heard.
//!
//! Under another init there is none. In the mode `startup` it is let go of once the device is up; in `always` never.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use device::ports::Watchdog;
use linux::watchdog::Hardware;

/// A kick so soon after another one is saved.
const KICK_AGAIN: Duration = Duration::from_millis(500);

/// Kicked by the loop. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct LoopWatchdog(Option<Arc<Mutex<Armed>>>);

#[derive(Debug)]
struct Armed {
    hardware: Hardware,
    kicked: Option<Instant>,
    until_up: bool,
    is_up: bool,
}

impl LoopWatchdog {
    /// One that the init has armed; `until_up`: only until the device is up.
    pub(crate) fn over(hardware: Hardware, until_up: bool) -> Self {
        Self(Some(Arc::new(Mutex::new(Armed {
            hardware,
            kicked: None,
            until_up,
            is_up: false,
        }))))
    }

    /// How long the loop may sleep.
    pub(crate) fn sleep_max(&self) -> Option<Duration> {
        self.with(|armed| Some(armed.hardware.timeout() / 4))
    }

    /// The device is up.
    pub(crate) fn device_is_up(&self) {
        self.with(|armed| {
            if armed.until_up && !std::mem::replace(&mut armed.is_up, true) && !armed.hardware.stop() {
                tracing::warn!(
                    "this watchdog cannot be stopped again: it stays armed, as with watchdog = always"
                );
                armed.until_up = false;
            }
            None::<()>
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut Armed) -> Option<T>) -> Option<T> {
        let armed = self.0.as_ref()?;
        act(&mut armed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Watchdog for LoopWatchdog {
    fn kick(&mut self) {
        self.with(|armed| {
            // A stopped one needs none.
            let is_over = armed.until_up && armed.is_up;
            let is_due = armed
                .kicked
                .is_none_or(|kicked| kicked.elapsed() >= KICK_AGAIN);
            if is_due && !is_over {
                armed.hardware.kick();
                armed.kicked = Some(Instant::now());
            }
            None::<()>
        });
    }
}
