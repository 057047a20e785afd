//! Updates since this start, counted for monitors. Nothing is decided by it and nothing is kept over a start.

use std::time::Duration;

use model::{Instant, RevisionId, State};

/// How updates ended since this start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Updates {
    /// Ended as the revision to boot.
    pub done: u64,
    /// Applied; to be committed at the next start.
    pub updated: u64,
    /// Refused before anything was changed.
    pub refused: u64,
    /// Failed and rolled back.
    pub failed: u64,
    /// Durations of those that began since this start, added up.
    pub time: Duration,
    /// How many these are.
    pub timed: u64,
    /// Duration of the newest of them.
    pub last: Option<Duration>,
}

/// Watches progress for [`Updates`].
#[derive(Debug, Default)]
pub(crate) struct UpdateCounter {
    pub(crate) seen: Updates,
    under_way: Option<(RevisionId, Instant)>,
}

impl UpdateCounter {
    /// A progress became durable.
    pub(crate) fn note(&mut self, revision: &RevisionId, state: State, now: Instant) {
        let known = self
            .under_way
            .as_ref()
            .is_some_and(|(known, _)| known == revision);
        let ended = match state {
            State::New => return,
            State::Queued | State::Downloading | State::InProgress | State::Testing => {
                if !known {
                    self.under_way = Some((revision.clone(), now));
                }
                return;
            }
            State::Updated => &mut self.seen.updated,
            State::Done => &mut self.seen.done,
            State::WontGo => &mut self.seen.refused,
            State::Error => &mut self.seen.failed,
        };
        *ended += 1;
        if known && let Some((_, began)) = self.under_way.take() {
            let took = now.since(began);
            self.seen.time = self.seen.time.saturating_add(took);
            self.seen.timed += 1;
            self.seen.last = Some(took);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_and_times() {
        let mut counter = UpdateCounter::default();
        let one: RevisionId = "locals/one".parse().unwrap();
        let two: RevisionId = "locals/two".parse().unwrap();
        counter.note(&one, State::New, Instant(0));
        counter.note(&one, State::InProgress, Instant(1000));
        counter.note(&one, State::Testing, Instant(3000));
        counter.note(&one, State::Done, Instant(6000));
        // Began before this start: counted, but nobody knows how long it took.
        counter.note(&two, State::Error, Instant(7000));
        counter.note(&two, State::Queued, Instant(8000));
        counter.note(&two, State::WontGo, Instant(9000));
        let expected = Updates {
            done: 1,
            updated: 0,
            refused: 1,
            failed: 1,
            time: Duration::from_secs(6),
            timed: 2,
            last: Some(Duration::from_secs(1)),
        };
        assert_eq!(counter.seen, expected);
    }
}
