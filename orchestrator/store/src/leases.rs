//! What is known of objects in memory: which are leased, which were verified since the start, which are being uploaded.
//!
//! One lock around this table makes "it exists, so lease it" and "it is not leased, so unlink it" atomic to each other. It is
//! bounded: when it is full it forgets single leases and leases everything instead, which is always safe.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::{Instant, ObjectId};

/// Objects of which something is remembered; about 100 bytes each.
const KNOWN_MAX: usize = 32_768;

#[derive(Debug, Clone, Copy, Default)]
struct Known {
    leased_until: Instant,
    /// The stamp that its file had when it was verified.
    verified: Option<u64>,
    /// Its name was synced since it was verified.
    durable: bool,
    /// It could not be read when it was verified last.
    unreadable: bool,
}

/// An upload that is under way.
#[derive(Debug)]
pub struct Active {
    /// What is being uploaded.
    pub object: ObjectId,
    /// Its size, when the client has told it.
    pub expected: Option<u64>,
    /// Whether it writes to a file of its own, because another upload of the same object came first.
    pub(crate) private: bool,
    pub(crate) written: AtomicU64,
}

impl Active {
    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Bytes that are still to come, as far as the size is known.
    pub fn remaining(&self) -> u64 {
        self.expected.unwrap_or(0).saturating_sub(self.written())
    }
}

#[derive(Debug)]
pub(crate) struct Table {
    known: BTreeMap<ObjectId, Known>,
    /// Until then every object is leased, known or not.
    everything_until: Instant,
    active: Vec<Arc<Active>>,
    /// Objects that have just got their name, until that is durable; as many as uploads end at once, and those whose sync failed.
    settling: BTreeSet<ObjectId>,
    /// The latest time that a caller has told.
    now: Instant,
}

impl Table {
    pub(crate) fn new(now: Instant, everything_until: Instant) -> Self {
        Self {
            known: BTreeMap::new(),
            everything_until,
            active: Vec::new(),
            settling: BTreeSet::new(),
            now,
        }
    }

    /// Callers are different threads, so times may come out of order; the latest counts.
    pub(crate) fn tick(&mut self, now: Instant) -> Instant {
        self.now = self.now.max(now);
        self.now
    }

    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    pub(crate) fn lease(&mut self, object: ObjectId, until: Instant) {
        if !self.make_room(&object) {
            self.everything_until = self.everything_until.max(until);
            return;
        }
        let known = self.known.entry(object).or_default();
        known.leased_until = known.leased_until.max(until);
    }

    pub(crate) fn is_leased(&self, object: &ObjectId, now: Instant) -> bool {
        now < self.everything_until
            || self.is_active(object)
            || self
                .known
                .get(object)
                .is_some_and(|known| now < known.leased_until)
    }

    /// The object was found whole when its file had this stamp.
    pub(crate) fn set_verified(&mut self, object: ObjectId, stamp: u64) {
        if self.make_room(&object) {
            let known = self.known.entry(object).or_default();
            known.verified = Some(stamp);
            known.durable = false;
            known.unreadable = false;
        }
    }

    /// The object is there and cannot be read.
    pub(crate) fn set_unreadable(&mut self, object: ObjectId) {
        if self.make_room(&object) {
            self.known.entry(object).or_default().unreadable = true;
        }
    }

    /// Whether it could not be read when it was verified last.
    pub(crate) fn is_unreadable(&self, object: &ObjectId) -> bool {
        self.known.get(object).is_some_and(|known| known.unreadable)
    }

    /// The object gets its name now.
    pub(crate) fn set_settling(&mut self, object: ObjectId) {
        self.settling.insert(object);
    }

    /// Whether it has its name, and a power cut could take it away again.
    pub(crate) fn is_settling(&self, object: &ObjectId) -> bool {
        self.settling.contains(object)
    }

    /// The name of an object has been synced.
    pub(crate) fn set_durable(&mut self, object: &ObjectId) {
        self.settling.remove(object);
        if let Some(known) = self.known.get_mut(object) {
            known.durable = known.verified.is_some();
        }
    }

    pub(crate) fn is_durable(&self, object: &ObjectId) -> bool {
        self.known.get(object).is_some_and(|known| known.durable)
    }

    /// The stamp at which it was verified, if it was.
    pub(crate) fn verified(&self, object: &ObjectId) -> Option<u64> {
        self.known.get(object)?.verified
    }

    /// The object is gone, or not what it was.
    pub(crate) fn forget_verified(&mut self, object: &ObjectId) {
        if let Some(known) = self.known.get_mut(object) {
            known.verified = None;
            known.durable = false;
        }
    }

    /// Whether there is an entry for the object or room for one.
    fn make_room(&mut self, object: &ObjectId) -> bool {
        if self.known.len() < KNOWN_MAX || self.known.contains_key(object) {
            return true;
        }
        let now = self.now;
        self.known.retain(|_, known| {
            known.verified.is_some() || known.unreadable || now < known.leased_until
        });
        self.known.len() < KNOWN_MAX
    }

    /// Drops what no longer says anything.
    pub(crate) fn prune(&mut self) {
        let now = self.now;
        self.known.retain(|_, known| {
            known.verified.is_some() || known.unreadable || now < known.leased_until
        });
    }

    /// An upload begins, with `kept` bytes there already. It has the resumable part unless another one has it.
    pub(crate) fn start(
        &mut self,
        object: ObjectId,
        expected: Option<u64>,
        kept: u64,
    ) -> Arc<Active> {
        let active = Arc::new(Active {
            object,
            expected,
            private: self.part_is_taken(&object),
            written: AtomicU64::new(kept),
        });
        self.active.push(Arc::clone(&active));
        active
    }

    pub(crate) fn end(&mut self, ended: &Arc<Active>) {
        self.active.retain(|active| !Arc::ptr_eq(active, ended));
    }

    pub(crate) fn is_active(&self, object: &ObjectId) -> bool {
        self.active.iter().any(|active| active.object == *object)
    }

    /// Whether somebody writes to the resumable part of the object.
    pub(crate) fn part_is_taken(&self, object: &ObjectId) -> bool {
        self.active
            .iter()
            .any(|active| active.object == *object && !active.private)
    }

    /// Bytes that running uploads will still write, as far as their sizes are known.
    pub(crate) fn promised(&self) -> u64 {
        self.active
            .iter()
            .map(|active| active.remaining())
            .fold(0, u64::saturating_add)
    }

    pub(crate) fn active(&self) -> &[Arc<Active>] {
        &self.active
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn object(n: usize) -> ObjectId {
        ObjectId::of(&n.to_le_bytes())
    }

    #[test]
    fn a_lease_ends_and_is_forgotten() {
        let mut table = Table::new(Instant(0), Instant(10));
        assert!(
            table.is_leased(&object(1), Instant(9)),
            "everything at start"
        );
        assert!(!table.is_leased(&object(1), Instant(10)));
        table.lease(object(1), Instant(20));
        table.lease(object(1), Instant(15));
        assert!(table.is_leased(&object(1), Instant(19)), "never shortened");
        assert!(!table.is_leased(&object(2), Instant(19)));
        table.tick(Instant(20));
        table.prune();
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn a_full_table_leases_everything() {
        let mut table = Table::new(Instant(0), Instant(0));
        for n in 0..KNOWN_MAX + 5 {
            table.lease(object(n), Instant(100));
        }
        assert_eq!(table.len(), KNOWN_MAX);
        assert!(table.is_leased(&object(KNOWN_MAX + 4), Instant(99)));
        assert!(!table.is_leased(&object(KNOWN_MAX + 4), Instant(100)));
        table.tick(Instant(100) + Duration::from_millis(1));
        table.lease(object(usize::MAX), Instant(200));
        assert_eq!(table.len(), 1, "expired leases made room");
    }

    #[test]
    fn the_second_upload_of_an_object_is_private() {
        let mut table = Table::new(Instant(0), Instant(0));
        let first = table.start(object(1), Some(10), 4);
        let second = table.start(object(1), Some(10), 0);
        assert!(!first.private && second.private);
        assert_eq!(table.promised(), 6 + 10);
        table.end(&first);
        assert!(table.is_leased(&object(1), Instant(5)), "one goes on");
        assert!(!table.part_is_taken(&object(1)));
        table.end(&second);
        assert!(!table.is_leased(&object(1), Instant(5)));
    }
}
