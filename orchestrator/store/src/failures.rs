//! Failure records: one file each, numbered. The oldest go first when there are too many; a number is never given out twice,
//! because the newest record is never removed.

use std::path::Path;

use model::failure::Failure;
use model::limits;

use crate::disk::Disk;
use crate::{Failed, Inner, Store, layout, lock};

/// Bytes of a record that is read: log lines may be escaped to six times their size.
const RECORD_BYTES_MAX: usize = 6 * limits::FAILURE_LOG_BYTES_MAX + (256 << 10);

/// Why a record could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FailureError {
    /// It cannot be understood.
    #[error("failure record {id} is damaged ({problem})")]
    Damaged {
        /// Which.
        id: u64,
        /// What is wrong.
        problem: String,
    },
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] Failed),
}

impl<D: Disk> Store<D> {
    /// Keeps a failure, durably, under the next number, which is returned and set in the record (whatever stands there).
    ///
    /// # Errors
    /// The disk failed; the number may be used up.
    pub fn add_failure(&self, failure: &Failure) -> Result<u64, Failed> {
        let inner = &self.inner;
        let _guard = lock(&inner.failures);
        let mut known = inner.failure_ids()?;
        let id = known.last().map_or(1, |newest| newest + 1);
        let failure = Failure {
            id,
            ..failure.clone()
        };
        let bytes = serde_json::to_vec(&failure).expect("strings and numbers always serialise");
        inner.replace(&layout::failure(id), &bytes)?;
        known.push(id);
        let surplus = known.len().saturating_sub(limits::FAILURES_MAX);
        for old in &known[..surplus] {
            // One that stays is removed with the next record.
            drop(inner.disk.remove_file(&layout::failure(*old)));
        }
        Ok(id)
    }

    /// Numbers of the records, oldest first.
    ///
    /// # Errors
    /// The disk failed.
    pub fn failures(&self) -> Result<Vec<u64>, Failed> {
        let _settled = self.inner.settled();
        self.inner.failure_ids()
    }

    /// One record; `None` when it is not there.
    ///
    /// # Errors
    /// It is damaged, or the disk failed.
    pub fn failure(&self, id: u64) -> Result<Option<Failure>, FailureError> {
        let _settled = self.inner.settled();
        let Some(bytes) = self.inner.read(&layout::failure(id), RECORD_BYTES_MAX)? else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| FailureError::Damaged {
                id,
                problem: error.to_string(),
            })
    }
}

impl<D: Disk> Inner<D> {
    fn failure_ids(&self) -> Result<Vec<u64>, Failed> {
        let mut ids: Vec<u64> = self
            .list(Path::new(layout::FAILURES))?
            .iter()
            .filter_map(|entry| entry.name.strip_suffix(".json")?.parse().ok())
            .collect();
        ids.sort_unstable();
        Ok(ids)
    }
}
