//! When a container is asked whether it is well, and what its answers mean.
//!
//! One question is under way at a time. A question that is never answered counts as a failure, so that a run time that
//! swallows questions cannot make a sick container look well.

use std::time::Duration;

use model::Instant;
use model::container::Health;

/// An answer may come this much later than the probe's own time-out before it counts as lost.
const ANSWER_GRACE: Duration = Duration::from_secs(5);
/// A question is not asked more often than this, whatever the manifest says.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Health checks of one run of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checks {
    started: Instant,
    asked: Option<Instant>,
    next: Instant,
    failures: u32,
    /// What the last failed check said; `None` after one that passed.
    pub problem: Option<String>,
}

/// What an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is well.
    Well,
    /// It failed, which does not count yet.
    Failing,
    /// It failed too often: it is to be restarted.
    Sick,
}

impl Checks {
    /// Checks of a run that started at `started`; the first question is asked at `now`.
    pub fn new(started: Instant, now: Instant) -> Self {
        Self {
            started,
            asked: None,
            next: now,
            failures: 0,
            problem: None,
        }
    }

    /// Whether a question is to be asked now; if so it counts as asked.
    pub fn ask(&mut self, now: Instant) -> bool {
        let due = self.asked.is_none() && now >= self.next;
        if due {
            self.asked = Some(now);
        }
        due
    }

    /// Takes an answer. One that nobody waits for is [`Verdict::Failing`] without effect.
    pub fn answered(
        &mut self,
        now: Instant,
        health: &Health,
        outcome: Result<(), String>,
    ) -> Verdict {
        let Some(asked) = self.asked.take() else {
            return Verdict::Failing;
        };
        self.next = (asked + health.interval.max(INTERVAL_MIN)).max(now);
        let problem = match outcome {
            Ok(()) => {
                self.failures = 0;
                self.problem = None;
                return Verdict::Well;
            }
            Err(problem) => problem,
        };
        self.problem = Some(problem);
        if asked.since(self.started) < health.start_period {
            return Verdict::Failing;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures >= health.retries.max(1) {
            Verdict::Sick
        } else {
            Verdict::Failing
        }
    }

    /// Counts a question that was not answered in time as failed; `None` when none is overdue.
    pub fn overdue(&mut self, now: Instant, health: &Health) -> Option<Verdict> {
        let deadline = self.asked? + health.timeout + ANSWER_GRACE;
        (now >= deadline).then(|| {
            let problem = format!("no answer within {} s", health.timeout.as_secs());
            self.answered(now, health, Err(problem))
        })
    }

    /// Forgets the question under way: the run time was away, which is not the container's fault.
    pub fn forget_question(&mut self, now: Instant) {
        if self.asked.take().is_some() {
            self.next = now;
        }
    }

    /// When something is due next.
    pub fn next_wake(&self, health: &Health) -> Instant {
        match self.asked {
            Some(asked) => asked + health.timeout + ANSWER_GRACE,
            None => self.next,
        }
    }
}

#[cfg(test)]
mod tests {
    use model::container::Probe;

    use super::*;

    fn health() -> Health {
        Health {
            probe: Probe::Tcp { port: 80 },
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(2),
            retries: 2,
            start_period: Duration::from_secs(15),
        }
    }

    fn bad() -> Result<(), String> {
        Err("refused".to_owned())
    }

    #[test]
    fn failures_count_after_the_start_period_and_in_a_row() {
        let health = health();
        let mut checks = Checks::new(Instant(0), Instant(0));
        for (second, outcome, verdict) in [
            (0, bad(), Verdict::Failing),
            (10, bad(), Verdict::Failing),
            (20, bad(), Verdict::Failing),
            (30, Ok(()), Verdict::Well),
            (40, bad(), Verdict::Failing),
            (50, bad(), Verdict::Sick),
        ] {
            let now = Instant(second * 1000);
            assert!(!checks.ask(Instant((second * 1000).saturating_sub(1))) || second == 0);
            assert!(checks.ask(now) || second == 0, "{second}");
            assert!(!checks.ask(now), "one question at a time");
            assert_eq!(checks.answered(now, &health, outcome), verdict, "{second}");
        }
        assert_eq!(checks.problem.as_deref(), Some("refused"));
    }

    #[test]
    fn a_lost_answer_is_a_failure_and_a_stray_one_is_nothing() {
        let health = health();
        let mut checks = Checks::new(Instant(0), Instant(20_000));
        assert_eq!(
            checks.answered(Instant(20_000), &health, bad()),
            Verdict::Failing
        );
        assert!(checks.ask(Instant(20_000)));
        assert_eq!(checks.overdue(Instant(26_999), &health), None);
        assert_eq!(
            checks.overdue(Instant(27_000), &health),
            Some(Verdict::Failing)
        );
        assert!(!checks.ask(Instant(29_999)));
        assert!(checks.ask(Instant(30_000)));
        assert_eq!(
            checks.overdue(Instant(99_000), &health),
            Some(Verdict::Sick)
        );
    }

    #[test]
    fn an_outage_of_the_run_time_is_not_held_against_the_container() {
        let health = health();
        let mut checks = Checks::new(Instant(0), Instant(20_000));
        assert!(checks.ask(Instant(20_000)));
        checks.forget_question(Instant(90_000));
        assert_eq!(checks.overdue(Instant(90_000), &health), None);
        assert!(checks.ask(Instant(90_000)));
    }
}
