//! The marker: what to boot. Plain data; `store::marker` knows its file, `lifecycle` decides what stands in it.
//!
//! It names only revisions that are durable and verified, and it is written whole, last, in one replace.

use serde::{Deserialize, Serialize};

use crate::{ObjectId, RevisionId, limits};

/// What the next boot runs, and what was learnt so far.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Marker {
    /// Grows by one with each write (the store counts); of two copies the higher one is the truth.
    pub sequence: u64,
    /// The revision to boot; `None` on a device that has never committed one.
    pub committed: Option<RevisionId>,
    /// The one that was committed before it.
    pub previous: Option<RevisionId>,
    /// The revision being tried.
    pub trial: Option<Trial>,
    /// Manifests that failed, oldest first, each once; at most [`limits::FAILED_MANIFESTS_MAX`].
    pub failed: Vec<FailedManifest>,
    /// Every generation number of container instances below this one may have been given out.
    pub generations_reserved: u64,
}

/// A revision that is being tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// Which.
    pub revision: RevisionId,
    /// Tries that are left; counted down durably before a try starts.
    pub tries_left: u32,
    /// Whether it is started by a reboot (its `bsp` differs, or it was asked for so).
    pub by_reboot: bool,
}

/// A manifest that is not run again unless somebody insists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailedManifest {
    /// Digest of its bytes.
    pub manifest: ObjectId,
    /// Number of the failure record.
    pub failure: u64,
}

impl Marker {
    /// Remembers that a manifest failed; forgets the oldest one when there are too many.
    pub fn remember_failed(&mut self, manifest: ObjectId, failure: u64) {
        self.forget_failed(manifest);
        self.failed.push(FailedManifest { manifest, failure });
        let surplus = self
            .failed
            .len()
            .saturating_sub(limits::FAILED_MANIFESTS_MAX);
        self.failed.drain(..surplus);
    }

    /// Forgets that a manifest failed: somebody insists on running it, or it was committed.
    pub fn forget_failed(&mut self, manifest: ObjectId) {
        self.failed.retain(|known| known.manifest != manifest);
    }

    /// Number of the failure record of a manifest that failed.
    pub fn failure_of(&self, manifest: ObjectId) -> Option<u64> {
        self.failed
            .iter()
            .find(|known| known.manifest == manifest)
            .map(|known| known.failure)
    }

    /// Every revision that it names: committed, previous, trial.
    pub fn revisions(&self) -> impl Iterator<Item = &RevisionId> {
        let trial = self.trial.as_ref().map(|trial| &trial.revision);
        self.committed.iter().chain(&self.previous).chain(trial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_manifests_are_bounded_and_unique() {
        let mut marker = Marker::default();
        let digest = |n: usize| ObjectId::of(&n.to_le_bytes());
        for n in 0..limits::FAILED_MANIFESTS_MAX + 3 {
            marker.remember_failed(digest(n), n as u64);
        }
        assert_eq!(marker.failed.len(), limits::FAILED_MANIFESTS_MAX);
        assert_eq!(marker.failure_of(digest(2)), None, "the oldest went first");
        assert_eq!(marker.failure_of(digest(3)), Some(3));
        marker.remember_failed(digest(3), 99);
        assert_eq!(marker.failure_of(digest(3)), Some(99));
        assert_eq!(marker.failed.len(), limits::FAILED_MANIFESTS_MAX);
        marker.forget_failed(digest(3));
        assert_eq!(marker.failure_of(digest(3)), None);
    }
}
