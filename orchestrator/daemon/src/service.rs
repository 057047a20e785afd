//! Port of a device whose boot loader is not ours.

use device::ports::Bootloader;
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
