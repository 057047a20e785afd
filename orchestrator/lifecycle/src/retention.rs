//! Which revisions stay when room is made. Objects follow: those that a kept revision names stay.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::RevisionId;
use model::marker::Marker;

/// What is known about a revision on the storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its name.
    pub revision: RevisionId,
    /// Whether it was ever run (its progress is beyond NEW).
    pub was_run: bool,
    /// Whether it was committed once.
    pub done: bool,
    /// When it last changed, milliseconds since 1970; only to tell newer from older.
    pub changed_ms: u64,
}

/// Revisions that stay, each with the reason in words. `in_use`: those whose containers run or whose volumes are mounted.
///
/// `now_ms` is wall clock time; a revision from the future counts as new, so a clock that jumps back removes nothing early.
pub fn keep(
    revisions: &[Kept],
    marker: &Marker,
    in_use: &BTreeSet<RevisionId>,
    keep_others: usize,
    lease: Duration,
    now_ms: u64,
) -> BTreeMap<RevisionId, &'static str> {
    let lease_ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
    let trial = marker.trial.as_ref().map(|trial| &trial.revision);
    let mut kept = BTreeMap::new();
    for known in revisions {
        let id = &known.revision;
        let why = if marker.committed.as_ref() == Some(id) {
            "the revision to boot"
        } else if trial == Some(id) {
            "the revision being tried"
        } else if in_use.contains(id) {
            "a revision whose containers run"
        } else if id.is_factory() {
            "the factory revision"
        } else if marker.previous.as_ref() == Some(id) {
            "the revision to go back to"
        } else if !known.was_run && now_ms.saturating_sub(known.changed_ms) < lease_ms {
            "not run yet"
        } else {
            continue;
        };
        kept.insert(id.clone(), why);
    }
    // Of the others the proven ones first, then the newest.
    let mut others: Vec<_> = revisions
        .iter()
        .filter(|known| !kept.contains_key(&known.revision))
        .collect();
    others.sort_by(|a, b| {
        (b.done, b.changed_ms, &b.revision).cmp(&(a.done, a.changed_ms, &a.revision))
    });
    for known in others.into_iter().take(keep_others) {
        kept.insert(known.revision.clone(), "among the newest");
    }
    kept
}

#[cfg(test)]
mod tests {
    use model::marker::Trial;

    use super::*;

    fn id(text: &str) -> RevisionId {
        text.parse().unwrap()
    }

    fn known(text: &str, was_run: bool, done: bool, changed_ms: u64) -> Kept {
        Kept {
            revision: id(text),
            was_run,
            done,
            changed_ms,
        }
    }

    #[test]
    fn what_is_needed_stays_and_of_the_rest_the_newest() {
        let marker = Marker {
            committed: Some(id("locals/c")),
            previous: Some(id("locals/p")),
            trial: Some(Trial {
                revision: id("locals/t"),
                tries_left: 1,
                by_reboot: false,
            }),
            ..Marker::default()
        };
        let revisions = [
            known("0", true, true, 1),
            known("locals/c", true, true, 2),
            known("locals/p", true, true, 3),
            known("locals/t", true, false, 4),
            known("locals/running", true, true, 5),
            known("locals/new", false, false, 95_000),
            known("locals/forgotten", false, false, 6),
            known("locals/future", false, false, 999_000),
            known("locals/done", true, true, 7),
            known("locals/failed", true, false, 90_000),
        ];
        let in_use = BTreeSet::from([id("locals/running")]);
        let names = |others| {
            keep(
                &revisions,
                &marker,
                &in_use,
                others,
                Duration::from_secs(10),
                100_000,
            )
            .into_keys()
            .map(|id| id.to_string())
            .collect::<Vec<_>>()
        };
        let needed = [
            "0",
            "locals/c",
            "locals/future",
            "locals/new",
            "locals/p",
            "locals/running",
            "locals/t",
        ];
        assert_eq!(names(0), needed);
        assert!(names(1).contains(&"locals/done".to_owned()));
        assert!(!names(1).contains(&"locals/failed".to_owned()));
        assert!(names(2).contains(&"locals/failed".to_owned()));
        assert_eq!(names(99).len(), revisions.len());
    }
}
