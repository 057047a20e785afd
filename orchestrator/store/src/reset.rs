//! A reset to the factory revision: the record of one that was accepted, and what it removes.
//!
//! The record is one small file. It is written before anything is removed and goes last, so a reset that was cut is done again from
//! its beginning; each step of it may be done twice. What is removed is moved out of the way first and taken apart by `collect`.
//! That revision 0 is what the marker and the boot loader name by then is the caller's care.

use std::path::Path;

use model::{Reset, RevisionId};

use crate::disk::Disk;
use crate::{Failed, Store, absent, failed, layout, lock};

/// Bytes of the record.
const BYTES_MAX: usize = 4 << 10;

impl<D: Disk> Store<D> {
    /// The reset that was accepted and is not carried out; the second is what is wrong with the record, which counts as none then.
    ///
    /// # Errors
    /// The disk failed.
    pub fn reset(&self) -> Result<(Option<Reset>, Option<String>), Failed> {
        let Some(bytes) = self.inner.read(Path::new(layout::RESET), BYTES_MAX)? else {
            return Ok((None, None));
        };
        let problem = match serde_json::from_slice::<Reset>(&bytes) {
            Ok(reset) if reset.is_known() => return Ok((Some(reset), None)),
            Ok(_) => "a newer version of this program wrote it".to_owned(),
            Err(error) => error.to_string(),
        };
        let text = format!(
            "{} cannot be understood, so the device is not reset; ask for the reset again: {problem}",
            layout::RESET
        );
        Ok((None, Some(text)))
    }

    /// Remembers, durably, that a reset was accepted.
    ///
    /// # Errors
    /// The disk failed: it is remembered or not.
    pub fn set_reset(&self, reset: &Reset) -> Result<(), Failed> {
        let bytes = serde_json::to_vec(reset).expect("numbers always serialise");
        self.inner.replace(Path::new(layout::RESET), &bytes)
    }

    /// Forgets it, durably.
    ///
    /// # Errors
    /// The disk failed: it is remembered or not.
    pub fn forget_reset(&self) -> Result<(), Failed> {
        self.inner.remove_file(Path::new(layout::RESET))?;
        self.inner.sync_dir(Path::new(layout::BOOT))
    }

    /// Removes what a reset removes, then its record. Nothing may run that uses volumes, and the marker must name revision 0 alone.
    ///
    /// # Errors
    /// The disk failed: the record stands, and this must be called again.
    pub fn carry_out_reset(&self, reset: &Reset) -> Result<(), Failed> {
        let inner = &self.inner;
        let factory = RevisionId::factory();
        for revision in self.revisions()? {
            if revision != factory {
                self.delete_revision(&revision)?;
            }
        }
        for folder in [layout::TRAILS, layout::LOCALS].map(Path::new) {
            // An earlier attempt may have moved one away that is not seen any more, and a cut would bring it back.
            absent(inner.disk.sync_dir(folder)).map_err(failed("sync", folder))?;
        }
        inner.remove_file(Path::new(layout::STOPPED))?;
        inner.sync_dir(Path::new(layout::BOOT))?;
        if reset.wipe_volumes {
            let mut index = lock(&inner.metadata);
            let _failures = lock(&inner.failures);
            for folder in [
                layout::DISKS_PERM,
                layout::DISKS_REV,
                layout::LOGS,
                layout::META,
                layout::FAILURES,
            ] {
                inner.replace_folder(Path::new(folder))?;
            }
            *index = crate::metadata::Index::default();
        }
        self.forget_reset()
    }
}
