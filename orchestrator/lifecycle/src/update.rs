//! The life of a revision: one machine, one step from an event to effects.
//!
//! ```text
//!                 run (verify first: nothing that runs is touched)
//!   Settled ───────────────────────────► Verifying ──bad object / asked──► Settled
//!      ▲  ▲                                 │ trial and its first try are in the marker
//!      │  │ groups passed                   ├── needs a boot ──► ShuttingDown ──► machine restarts
//!      │  └──── RollingBack                 ▼
//!      │             ▲                   Starting ◄── boot with a trial in the marker (a try is counted first)
//!      │             │ cause recorded       │ all goals reached
//!      │             ├──────────────────────┤
//!      │             │                      ▼
//!      └── commit ───┼────────────────── Observing (commit delay, then stable; a lost goal starts it over)
//!                    │
//!              (a trial that needed a boot: ShuttingDown instead, the boot loader goes back)
//!
//!   any ──reset to factory is durable──► Clearing ──nothing runs──► the start again, which carries it out (`boot`)
//! ```
//!
//! Two kinds of durable effects: a *gate* must be durable before anything after it is done, and when it fails the step is
//! undone; what is *owed* is true already and is written as soon as the storage takes it, in order.
//! Not here: which containers start when (`containers`), what a boot chooses (`boot`).

use std::time::Duration;

use model::failure::{BadObject, Cause};
use model::marker::{Marker, Trial};
use model::progress::{Progress, State, message};
use model::{Instant, RevisionId};

use crate::containers::{Failed, Mode, Summary};
use crate::runtime::Ending;

mod give_up;
mod words;

pub use give_up::{is_remembered, message_of};
pub use words::{
    Attempt, Effect, Event, Failing, Gate, Phase, Refused, Running, Settings, Unusable, Wanted,
    Write,
};

/// A gate that failed is tried again after this.
const RETRY: Duration = Duration::from_secs(5);

/// The machine.
#[derive(Debug, Clone)]
pub struct Update {
    settings: Settings,
    marker: Marker,
    phase: Phase,
    running: Option<Running>,
    /// What to go back to when the running trial fails.
    base: Option<Running>,
    next_failure: u64,
    undo: Option<Box<Undo>>,
}

/// What a step changed, for the case that its gate fails.
#[derive(Debug, Clone)]
struct Undo {
    marker: Marker,
    phase: Phase,
    running: Option<Running>,
    base: Option<Running>,
}

impl Update {
    /// After a boot that runs `running` without a trial. `marker` is what is durable; failure records get `next_failure` and
    /// higher numbers.
    pub fn settled(
        settings: Settings,
        marker: Marker,
        running: Option<Running>,
        next_failure: u64,
    ) -> Self {
        Self {
            settings,
            marker,
            phase: Phase::Settled,
            base: running.clone(),
            running,
            next_failure,
            undo: None,
        }
    }

    /// The settings as they are now.
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// Settings that changed meanwhile. A trial under way keeps the tries that it was given.
    pub fn set_settings(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// After a boot that runs a trial, whose try was counted, with `base` to go back to.
    pub fn trying(
        settings: Settings,
        marker: Marker,
        attempt: Attempt,
        base: Option<Running>,
        next_failure: u64,
    ) -> Self {
        Self {
            settings,
            marker,
            running: Some(Running {
                revision: attempt.revision.clone(),
                digest: attempt.digest,
            }),
            phase: Phase::Starting(attempt),
            base,
            next_failure,
            undo: None,
        }
    }

    /// Where the device is.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// The marker as it is durable, or owed.
    pub fn marker(&self) -> &Marker {
        &self.marker
    }

    /// What runs, or is being started.
    pub fn running(&self) -> Option<&Running> {
        self.running.as_ref()
    }

    /// What to go back to when the running trial fails.
    pub fn base(&self) -> Option<&Running> {
        self.base.as_ref()
    }

    /// The revision that is being installed, from the request to the end of the trial.
    pub fn installing(&self) -> Option<&RevisionId> {
        match &self.phase {
            Phase::Verifying { wanted, .. } => Some(&wanted.revision),
            Phase::Starting(attempt) | Phase::Observing { attempt, .. } => Some(&attempt.revision),
            Phase::Settled
            | Phase::RollingBack { .. }
            | Phase::ShuttingDown { .. }
            | Phase::Clearing { .. } => None,
        }
    }

    /// When it will be committed if nothing happens and all containers are stable.
    pub fn commit_at(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Observing { since, .. } => Some((*since)? + self.settings.commit_delay),
            Phase::Settled
            | Phase::Verifying { .. }
            | Phase::Starting(_)
            | Phase::RollingBack { .. }
            | Phase::ShuttingDown { .. }
            | Phase::Clearing { .. } => None,
        }
    }

    /// Replaces what the loop itself keeps in the marker (generations), once that is durable.
    pub fn set_generations_reserved(&mut self, reserved: u64) {
        self.marker.generations_reserved = reserved;
    }

    /// When [`Event::Containers`] is to be told although nothing happens.
    pub fn next_wake(&self, now: Instant) -> Option<Instant> {
        let at = match &self.phase {
            Phase::Observing {
                since, not_before, ..
            } => (*since).map(|since| (since + self.settings.commit_delay).max(*not_before)),
            Phase::ShuttingDown { until, .. } | Phase::Clearing { until } => Some(*until),
            Phase::Settled
            | Phase::Verifying { .. }
            | Phase::Starting(_)
            | Phase::RollingBack { .. } => None,
        };
        at.filter(|at| *at > now)
    }

    /// One step.
    pub fn step(&mut self, now: Instant, event: Event) -> Vec<Effect> {
        match event {
            Event::Run(wanted) => self.on_run(now, wanted),
            Event::RunUnusable(revision, unusable) => self.on_unusable(revision, unusable),
            Event::GiveUp => self.on_give_up(now),
            Event::Verified { revision, bad } => self.on_verified(now, &revision, bad),
            Event::Containers(summary) => self.on_summary(now, summary),
            Event::GateFailed(gate, error) => self.on_gate_failed(now, gate, error),
            Event::Shutdown(ending) => self.on_shutdown(now, ending),
            Event::Clear => self.on_clear(now),
        }
    }

    fn save(&mut self) {
        self.undo = Some(Box::new(Undo {
            marker: self.marker.clone(),
            phase: self.phase.clone(),
            running: self.running.clone(),
            base: self.base.clone(),
        }));
    }

    /// Why nothing new may begin now.
    fn busy(&self) -> Option<Refused> {
        match &self.phase {
            Phase::Settled | Phase::RollingBack { .. } => None,
            Phase::Verifying { wanted, .. } => {
                Some(Refused::UpdateInProgress(wanted.revision.clone()))
            }
            Phase::Starting(attempt) | Phase::Observing { attempt, .. } => {
                Some(Refused::UpdateInProgress(attempt.revision.clone()))
            }
            Phase::ShuttingDown { .. } | Phase::Clearing { .. } => Some(Refused::ShuttingDown),
        }
    }

    /// Whether what runs was applied and waits for the start that commits it.
    fn is_applied(&self) -> bool {
        let trial = self.marker.trial.as_ref().map(|trial| &trial.revision);
        let running = self.running.as_ref().map(|running| &running.revision);
        self.phase == Phase::Settled && trial.is_some() && trial == running
    }

    fn on_run(&mut self, now: Instant, wanted: Wanted) -> Vec<Effect> {
        if let Some(refused) = self.busy() {
            return vec![Effect::Answer(Err(refused))];
        }
        let runs = self.running.as_ref().is_some_and(|running| {
            running.revision == wanted.revision && running.digest == wanted.digest
        });
        if runs {
            return vec![Effect::Answer(Ok(()))];
        }
        // An applied revision that is not committed, and what it would go back to is asked for: that is giving it up.
        let goes_back = self
            .base
            .as_ref()
            .is_some_and(|base| base.revision == wanted.revision && base.digest == wanted.digest);
        if goes_back && self.is_applied() {
            return self.on_give_up(now);
        }
        if let Some(failure) = self.marker.failure_of(wanted.digest)
            && !wanted.again
        {
            let revision = wanted.revision;
            return vec![Effect::Answer(Err(Refused::FailedBefore {
                revision,
                failure,
            }))];
        }
        self.save();
        let mut effects = Vec::new();
        let answered = !wanted.was_done;
        if answered {
            let progress = Progress::new(State::InProgress, message::TRYING, wanted.retries);
            let write = Write::Progress(wanted.revision.clone(), progress);
            effects.push(Effect::Gate(Gate::Accept, write));
            effects.push(Effect::Answer(Ok(())));
        }
        effects.push(Effect::Verify(wanted.revision.clone()));
        self.phase = Phase::Verifying { wanted, answered };
        effects
    }

    fn on_unusable(&mut self, revision: RevisionId, unusable: Unusable) -> Vec<Effect> {
        if let Some(refused) = self.busy() {
            return vec![Effect::Answer(Err(refused))];
        }
        self.save();
        let text = match unusable {
            Unusable::Missing => message::NOT_FOUND,
            Unusable::Bad => message::BAD_FORMAT,
        };
        let progress = Progress::new(State::WontGo, text, 0);
        vec![
            Effect::Gate(Gate::Accept, Write::Progress(revision, progress)),
            Effect::Answer(Ok(())),
        ]
    }

    fn on_verified(
        &mut self,
        now: Instant,
        revision: &RevisionId,
        bad: Vec<BadObject>,
    ) -> Vec<Effect> {
        let (wanted, answered) = match &self.phase {
            Phase::Verifying { wanted, answered } if wanted.revision == *revision => {
                (wanted.clone(), *answered)
            }
            // The answer to a question that was given up meanwhile.
            Phase::Verifying { .. }
            | Phase::Settled
            | Phase::Starting(_)
            | Phase::Observing { .. }
            | Phase::RollingBack { .. }
            | Phase::ShuttingDown { .. }
            | Phase::Clearing { .. } => return Vec::new(),
        };
        if !bad.is_empty() {
            let mut effects = self.fail_untouched(wanted, Cause::BadObjects { objects: bad });
            if !answered {
                effects.push(Effect::Answer(Ok(())));
            }
            return effects;
        }
        self.save();
        self.marker.forget_failed(wanted.digest);
        let first_try = u32::from(!wanted.by_reboot);
        self.marker.trial = Some(Trial {
            revision: wanted.revision.clone(),
            tries_left: self.settings.tries.max(1) - first_try,
            by_reboot: wanted.by_reboot,
        });
        let marker = Effect::Gate(Gate::Trial, Write::Marker(self.marker.clone()));
        let mut effects = vec![marker];
        if wanted.by_reboot {
            let write = Write::Arm(wanted.revision.clone());
            effects.push(Effect::Gate(Gate::Arm, write));
        }
        if !answered {
            effects.push(Effect::Answer(Ok(())));
        }
        if wanted.by_reboot {
            effects.extend(self.reboot_into(now, wanted));
        } else {
            effects.extend(self.start_in_place(wanted));
        }
        effects
    }

    fn reboot_into(&mut self, now: Instant, wanted: Wanted) -> Vec<Effect> {
        let mut effects = Vec::new();
        if !wanted.was_done {
            let progress = Progress::new(State::InProgress, message::REBOOTING, wanted.retries);
            let write = Write::Progress(wanted.revision.clone(), progress);
            effects.push(Effect::Owe(write));
        }
        let text = "restarting the machine to try it".to_owned();
        effects.push(Effect::Tell("progress", wanted.revision, text));
        effects.extend(self.end(now, Ending::Reboot));
        effects
    }

    fn start_in_place(&mut self, wanted: Wanted) -> Vec<Effect> {
        let running = Running {
            revision: wanted.revision.clone(),
            digest: wanted.digest,
        };
        // UPDATED but never committed is nothing to go back to.
        let uncommitted = self
            .undo
            .as_ref()
            .and_then(|undo| undo.marker.trial.as_ref())
            .is_some();
        if !uncommitted {
            self.base = self.running.take();
        }
        self.running = Some(running);
        self.phase = Phase::Starting(Attempt {
            revision: wanted.revision.clone(),
            digest: wanted.digest,
            was_done: wanted.was_done,
            commit: wanted.commit,
            by_boot: false,
            booted: false,
            retries: wanted.retries,
        });
        let text = "changing its containers in place".to_owned();
        vec![
            Effect::Owe(Write::Current(wanted.revision.clone())),
            Effect::Run(Some(wanted.revision.clone()), Mode::Trial),
            Effect::Tell("progress", wanted.revision, text),
        ]
    }

    fn on_summary(&mut self, now: Instant, summary: Summary) -> Vec<Effect> {
        match self.phase.clone() {
            Phase::Settled | Phase::Verifying { .. } => self.steady(now, summary),
            Phase::RollingBack { failed } => {
                let effects = self.steady(now, summary.clone());
                if effects.is_empty() && summary.passed {
                    self.phase = Phase::Settled;
                    let text = "rolled back".to_owned();
                    return vec![Effect::Tell("rollback", failed, text)];
                }
                effects
            }
            Phase::Starting(attempt) => match summary.failure {
                Some(Failed { container, cause }) => {
                    self.fail(now, attempt, cause, Some(container))
                }
                None if summary.reached => self.observe(now, attempt),
                None => Vec::new(),
            },
            Phase::Observing {
                attempt,
                since,
                losses,
                told_waiting,
                not_before,
            } => {
                if let Some(Failed { container, cause }) = summary.failure {
                    return self.fail(now, attempt, cause, Some(container));
                }
                let observed = Observed {
                    since,
                    losses,
                    told_waiting,
                    not_before,
                };
                self.hold(now, attempt, observed, summary)
            }
            Phase::ShuttingDown { ending, until } if summary.gone || now >= until => {
                vec![Effect::End(ending)]
            }
            Phase::Clearing { until } if summary.gone || now >= until => vec![Effect::StartAgain],
            Phase::ShuttingDown { .. } | Phase::Clearing { .. } => Vec::new(),
        }
    }

    /// No trial runs: only a back-off policy may ask for something.
    fn steady(&mut self, now: Instant, summary: Summary) -> Vec<Effect> {
        let (Some(Failed { container, cause }), Some(running)) =
            (summary.reboot, self.running.clone())
        else {
            return Vec::new();
        };
        let failing = Failing {
            id: self.take_failure(),
            revision: running.revision.clone(),
            manifest: Some(running.digest),
            rolled_back_to: None,
            container: Some(container.clone()),
            cause,
            message: message::CONTAINER_NOT_STARTED,
            tries: 1,
        };
        let text =
            format!("restarting the machine: the back-off policy of {container} asks for it");
        let mut effects = vec![
            Effect::Owe(Write::Failure(Box::new(failing))),
            Effect::Tell("shutdown", running.revision, text),
        ];
        effects.extend(self.end(now, Ending::Reboot));
        effects
    }

    fn observe(&mut self, now: Instant, attempt: Attempt) -> Vec<Effect> {
        let text = if attempt.by_boot {
            message::AWAITING_ROLLBACK_POINT
        } else {
            message::AWAITING_STABLE
        };
        let effects = told(&attempt, State::Testing, text);
        self.phase = Phase::Observing {
            attempt,
            since: Some(now),
            losses: 0,
            told_waiting: false,
            not_before: now,
        };
        effects
    }

    fn hold(
        &mut self,
        now: Instant,
        attempt: Attempt,
        mut observed: Observed,
        summary: Summary,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        match (summary.reached, observed.since) {
            (false, None) => {}
            (false, Some(_)) => {
                observed.since = None;
                observed.losses += 1;
                if observed.losses > self.settings.goal_losses_max {
                    let (container, cause) = match summary.below {
                        Some(Failed { container, cause }) => (Some(container), cause),
                        None => (
                            None,
                            Cause::Internal {
                                error: "goals were lost".to_owned(),
                            },
                        ),
                    };
                    return self.fail(now, attempt, cause, container);
                }
            }
            (true, None) => observed.since = Some(now),
            (true, Some(since)) => {
                let held = now >= since + self.settings.commit_delay;
                if held && summary.stable && now >= observed.not_before {
                    return self.commit(attempt);
                }
                if held && !summary.stable && !observed.told_waiting {
                    observed.told_waiting = true;
                    effects = told(&attempt, State::Testing, message::WAITING_CONTAINERS);
                }
            }
        }
        self.phase = observed.into_phase(attempt);
        effects
    }

    fn commit(&mut self, attempt: Attempt) -> Vec<Effect> {
        self.save();
        let revision = attempt.revision.clone();
        let exact = self.settings.exact_commit && !attempt.commit && !attempt.by_boot;
        self.phase = Phase::Settled;
        if exact {
            if let Some(trial) = &mut self.marker.trial {
                trial.tries_left = self.settings.tries.max(1);
            }
            let marker = Write::Marker(self.marker.clone());
            let mut effects = vec![Effect::Gate(Gate::Commit, marker)];
            effects.extend(told(&attempt, State::Updated, message::UPDATED));
            effects.push(Effect::Settle);
            return effects;
        }
        if self.marker.committed.as_ref() != Some(&revision) {
            self.marker.previous = self.marker.committed.replace(revision.clone());
        }
        self.marker.trial = None;
        self.marker.forget_failed(attempt.digest);
        self.base = self.running.clone();
        let marker = Write::Marker(self.marker.clone());
        let mut effects = vec![
            Effect::Gate(Gate::Commit, marker),
            Effect::Owe(Write::Confirm(revision.clone())),
        ];
        effects.extend(told(&attempt, State::Done, message::DONE));
        effects.extend([
            Effect::Owe(Write::Done(revision.clone())),
            Effect::Settle,
            Effect::Tell("commit", revision, "is the revision to boot".to_owned()),
            Effect::Retain,
        ]);
        effects
    }

    fn on_shutdown(&mut self, now: Instant, ending: Ending) -> Vec<Effect> {
        let asked = match (&ending, &self.phase) {
            (_, Phase::ShuttingDown { .. }) => Some(Refused::ShuttingDown),
            (Ending::Stop { .. }, _) => None,
            (Ending::Reboot | Ending::PowerOff, _) => self.busy(),
        };
        if let Some(refused) = asked {
            return vec![Effect::Answer(Err(refused))];
        }
        let mut effects = vec![Effect::Answer(Ok(()))];
        effects.extend(self.end(now, ending));
        effects
    }

    /// A shutdown that is under way goes on: the next start finds the reset.
    fn on_clear(&mut self, now: Instant) -> Vec<Effect> {
        if let Phase::ShuttingDown { .. } | Phase::Clearing { .. } = self.phase {
            return Vec::new();
        }
        let until = now + self.settings.shutdown_limit;
        self.phase = Phase::Clearing { until };
        vec![Effect::StopAll]
    }

    fn end(&mut self, now: Instant, ending: Ending) -> Vec<Effect> {
        let until = now + self.settings.shutdown_limit;
        self.phase = Phase::ShuttingDown { ending, until };
        match ending {
            Ending::Stop {
                containers_keep_running: true,
            } => vec![Effect::End(ending)],
            Ending::Stop {
                containers_keep_running: false,
            }
            | Ending::Reboot
            | Ending::PowerOff => vec![Effect::StopAll],
        }
    }
}

/// The changing part of [`Phase::Observing`].
struct Observed {
    since: Option<Instant>,
    losses: u32,
    told_waiting: bool,
    not_before: Instant,
}

impl Observed {
    fn into_phase(self, attempt: Attempt) -> Phase {
        Phase::Observing {
            attempt,
            since: self.since,
            losses: self.losses,
            told_waiting: self.told_waiting,
            not_before: self.not_before,
        }
    }
}

/// A progress of a trial; a revision that was DONE when it was asked for keeps its own.
fn told(attempt: &Attempt, status: State, text: &str) -> Vec<Effect> {
    if attempt.was_done {
        return Vec::new();
    }
    let progress = Progress::new(status, text, attempt.retries);
    vec![Effect::Owe(Write::Progress(
        attempt.revision.clone(),
        progress,
    ))]
}

#[cfg(test)]
mod tests;
