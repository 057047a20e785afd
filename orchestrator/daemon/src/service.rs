//! Ports of a device that runs under another init: no boot loader of ours, no hardware watchdog.

use device::ports::{Bootloader, Watchdog};
use model::RevisionId;

/// The machine's boot loader is not ours. The marker alone says what runs; a revision that changes `bsp/` is refused nothing here, its
/// kernel is simply not what boots.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct NoBootloader;

impl Bootloader for NoBootloader {
    fn booted(&self) -> Option<RevisionId> {
        None
    }
    fn is_damaged(&self) -> bool {
        false
    }

    fn arm(&mut self, _trial: &RevisionId) -> Result<(), String> {
        Ok(())
    }

    fn confirm(&mut self, _committed: &RevisionId) -> Result<(), String> {
        Ok(())
    }
}

/// The other init has the watchdog.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct NoWatchdog;

impl Watchdog for NoWatchdog {
    fn kick(&mut self) {}
}
