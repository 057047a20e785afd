//! A reset to the factory revision, once it was accepted: what a start has to finish, however often it is cut.

use serde::{Deserialize, Serialize};

/// The format that is written.
const VERSION: u32 = 1;

/// An accepted reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reset {
    /// Format of the record; only [`Reset::is_known`] ones are carried out.
    version: u32,
    /// Whether everything goes that was written since the device left the factory: volumes, metadata, logs, failure records. Else
    /// permanent volumes and those of revision 0 stay, as do user metadata and failure records.
    pub wipe_volumes: bool,
}

impl Reset {
    /// A reset that keeps or wipes volumes.
    pub fn new(wipe_volumes: bool) -> Self {
        Self {
            version: VERSION,
            wipe_volumes,
        }
    }

    /// Whether this program knows what the record means.
    pub fn is_known(&self) -> bool {
        self.version == VERSION
    }
}
