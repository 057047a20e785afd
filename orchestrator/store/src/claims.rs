//! Claims, over a restart. One small file, written when a claim is made, changed, ended, or renewed for the first time since a start.

use std::path::Path;

use model::claim::Kept;
use model::limits::{CLAIM_PARTS_MAX, CLAIMS_MAX, CONTAINER_NAME_BYTES_MAX};

use crate::disk::Disk;
use crate::{Failed, Store, layout};

/// Bytes of the file: as many claims of as many parts as there may be, each name as long and as much escaped as it may be.
const BYTES_MAX: usize = CLAIMS_MAX * (CLAIM_PARTS_MAX + 2) * (6 * CONTAINER_NAME_BYTES_MAX + 64);

impl<D: Disk> Store<D> {
    /// The claims that are kept; none when none ever was. The second is what is wrong with the file: it counts as none then, as
    /// clients claim again what they lost.
    ///
    /// # Errors
    /// The disk failed.
    pub fn claims(&self) -> Result<(Kept, Option<String>), Failed> {
        let Some(bytes) = self.inner.read(Path::new(layout::CLAIMS), BYTES_MAX)? else {
            return Ok((Kept::default(), None));
        };
        Ok(match serde_json::from_slice(&bytes) {
            Ok(kept) => (kept, None),
            Err(error) => {
                let text = format!(
                    "{} cannot be read and counts as empty: {error}",
                    layout::CLAIMS
                );
                (Kept::default(), Some(text))
            }
        })
    }

    /// Keeps them, durably.
    ///
    /// # Errors
    /// The disk failed: it is the old ones or the new ones.
    pub fn set_claims(&self, claims: &Kept) -> Result<(), Failed> {
        let bytes = serde_json::to_vec(claims).expect("names and numbers always serialise");
        self.inner.replace(Path::new(layout::CLAIMS), &bytes)
    }
}
