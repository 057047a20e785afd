//! Containers on a real containerd: start, end, stop, restart of either side, loss of containerd's store.

#[allow(dead_code, reason = "each test program uses its own part")]
mod device;

use std::time::Duration;

use ::device::ports::{Condition, Exit, RuntimeCommand, RuntimeEvent};

use crate::device::{Device, container, only, possible, running, until};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn starts_ends_and_leaves_nothing() {
    if !possible() {
        return;
    }
    let mut device = Device::new("basic");
    let hello = container("hello", "echo out; echo err >&2; exit 7");
    let (instance, pid) = device.start(&hello);
    assert!(pid > 1);
    assert_eq!(
        device.exited(&instance),
        Exit {
            code: 7,
            out_of_memory: false
        }
    );
    device.wait_log(&hello, "out\n");
    device.wait_log(&hello, "err\n");
    // What an ended container used is freed at once; only its record stays.
    until("no shim", || device.shims().is_empty());
    until("no mounts", || device.mounts().is_empty());
    let found = device.list();
    assert_eq!(
        only(&found).condition,
        Condition::Ended(Exit {
            code: 7,
            out_of_memory: false
        })
    );
    device.stop(&instance, SECOND);
    assert_eq!(device.list(), []);
    // Also what does not exist is stopped.
    device.stop(&instance, SECOND);
}
