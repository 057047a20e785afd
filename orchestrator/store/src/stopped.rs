//! The containers that a person stopped and that stay stopped over a restart (policy `unless-stopped`). One small file.

use std::collections::BTreeSet;
use std::path::Path;

use model::{ContainerName, limits};

use crate::disk::Disk;
use crate::{Failed, Store, layout};

/// Bytes of the file: every name of the largest manifest, each character escaped.
const BYTES_MAX: usize = limits::CONTAINERS_MAX * (6 * limits::CONTAINER_NAME_BYTES_MAX + 4);

impl<D: Disk> Store<D> {
    /// Containers that are to stay stopped. A file that cannot be understood counts as empty: starting too much is what the
    /// revision asks for anyway.
    ///
    /// # Errors
    /// The disk failed.
    pub fn stopped(&self) -> Result<BTreeSet<ContainerName>, Failed> {
        let bytes = self.inner.read(Path::new(layout::STOPPED), BYTES_MAX)?;
        Ok(bytes
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default())
    }

    /// Sets them, durably.
    ///
    /// # Errors
    /// The disk failed: it is the old set or the new one.
    pub fn set_stopped(&self, containers: &BTreeSet<ContainerName>) -> Result<(), Failed> {
        let bytes = serde_json::to_vec(containers).expect("strings always serialise");
        self.inner.replace(Path::new(layout::STOPPED), &bytes)
    }
}
