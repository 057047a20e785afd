//! The one thread that decides: takes an event, lets the device handle it, sleeps until the next one or until the device wants to be
//! woken.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use device::ports::{Clock as _, Ending, World};
use device::{Device, Event};
use linux::clock::SystemClock;

use crate::power::ProcessPower;
use crate::watchdog::LoopWatchdog;

/// The longest sleep: the watchdog is kicked at each turn.
const SLEEP_MAX: Duration = Duration::from_secs(5);

/// Runs the device until it has ended.
pub(crate) fn run<W: World>(
    mut device: Device<W>,
    events: &Receiver<Event>,
    power: &ProcessPower,
    watchdog: &LoopWatchdog,
) -> Ending {
    let sleep_max = watchdog
        .sleep_max()
        .map_or(SLEEP_MAX, |sleep| sleep.min(SLEEP_MAX));
    watchdog.follow_disk();
    device.handle(Event::Start);
    loop {
        if let Some(ending) = power.ended() {
            return ending;
        }
        if device.is_up() {
            watchdog.device_is_up();
        }
        let now = SystemClock.now();
        let sleep = device
            .next_wake()
            .map_or(sleep_max, |wake| wake.since(now).min(sleep_max));
        match events.recv_timeout(sleep) {
            Ok(event) => device.handle(event),
            Err(RecvTimeoutError::Timeout) => device.handle(Event::Tick),
            // Every sender is gone: nobody can ask anything any more. Containers run on.
            Err(RecvTimeoutError::Disconnected) => {
                return Ending::Stop {
                    containers_keep_running: true,
                };
            }
        }
    }
}
