//! Every way to give a revision up: what is recorded, what is remembered, what runs instead.

use model::failure::Cause;
use model::progress::{Progress, State, message};
use model::{ContainerName, Instant};

use super::{Attempt, Effect, Failing, Gate, Phase, RETRY, Refused, Update, Wanted, Write};
use crate::containers::Mode;
use crate::runtime::Ending;

impl Update {
    pub(super) fn on_give_up(&mut self, now: Instant) -> Vec<Effect> {
        match self.phase.clone() {
            Phase::Settled => match (&self.running, &self.marker.trial) {
                // UPDATED: applied, not committed.
                (Some(running), Some(trial)) if running.revision == trial.revision => {
                    let attempt = Attempt {
                        revision: running.revision.clone(),
                        digest: running.digest,
                        was_done: false,
                        commit: false,
                        by_boot: false,
                        booted: false,
                        retries: 0,
                    };
                    self.give_up_asked(now, attempt)
                }
                (Some(_) | None, Some(_) | None) => {
                    vec![Effect::Answer(Err(Refused::NoTrial))]
                }
            },
            Phase::Verifying { wanted, .. } => {
                self.phase = Phase::Settled;
                let mut effects = Vec::new();
                if !wanted.was_done {
                    let progress = Progress::new(State::WontGo, message::ABORTED, wanted.retries);
                    effects.push(Effect::Owe(Write::Progress(wanted.revision, progress)));
                }
                effects.push(Effect::Answer(Ok(())));
                effects
            }
            Phase::Starting(attempt) | Phase::Observing { attempt, .. } => {
                self.give_up_asked(now, attempt)
            }
            Phase::RollingBack { .. } => vec![Effect::Answer(Ok(()))],
            Phase::ShuttingDown { .. } | Phase::Clearing { .. } => {
                vec![Effect::Answer(Err(Refused::ShuttingDown))]
            }
        }
    }

    pub(super) fn give_up_asked(&mut self, now: Instant, attempt: Attempt) -> Vec<Effect> {
        let mut effects = self.fail(now, attempt, Cause::Asked, None);
        effects.push(Effect::Answer(Ok(())));
        effects
    }

    pub(super) fn take_failure(&mut self) -> u64 {
        let id = self.next_failure;
        self.next_failure += 1;
        id
    }

    /// The wanted revision is given up before anything was changed for it.
    pub(super) fn fail_untouched(&mut self, wanted: Wanted, cause: Cause) -> Vec<Effect> {
        self.phase = Phase::Settled;
        let message = message_of(&cause);
        let failing = Failing {
            id: self.take_failure(),
            revision: wanted.revision.clone(),
            manifest: Some(wanted.digest),
            rolled_back_to: self
                .running
                .as_ref()
                .map(|running| running.revision.clone()),
            container: None,
            cause,
            message,
            tries: wanted.retries + 1,
        };
        let progress = Progress::new(State::Error, message, wanted.retries);
        let text = format!("given up before anything was changed: {message}");
        vec![
            Effect::Owe(Write::Failure(Box::new(failing))),
            Effect::Owe(Write::Progress(wanted.revision.clone(), progress)),
            Effect::Tell("rollback", wanted.revision, text),
        ]
    }

    pub(super) fn fail(
        &mut self,
        now: Instant,
        attempt: Attempt,
        cause: Cause,
        container: Option<ContainerName>,
    ) -> Vec<Effect> {
        let message = message_of(&cause);
        let id = self.take_failure();
        self.marker.trial = None;
        if is_remembered(&cause) {
            self.marker.remember_failed(attempt.digest, id);
        }
        let base = self.base.clone();
        let back_to = base.as_ref().map(|base| base.revision.clone());
        let failing = Failing {
            id,
            revision: attempt.revision.clone(),
            manifest: Some(attempt.digest),
            rolled_back_to: back_to.clone(),
            container,
            cause,
            message,
            tries: attempt.retries + 1,
        };
        let progress = Progress::new(State::Error, message, attempt.retries);
        let text = match &back_to {
            Some(base) => format!("given up: {message}; going back to {base}"),
            None => format!("given up: {message}; there is nothing to go back to"),
        };
        let mut effects = vec![
            Effect::Owe(Write::Failure(Box::new(failing))),
            Effect::Owe(Write::Progress(attempt.revision.clone(), progress)),
        ];
        // The boot loader forgets before the marker does: a start that finds the trial in the marker tells it once more.
        let disarmed = back_to.as_ref().filter(|_| attempt.booted);
        effects.extend(disarmed.map(|base| Effect::Owe(Write::Confirm(base.clone()))));
        effects.extend([
            Effect::Owe(Write::Marker(self.marker.clone())),
            Effect::Tell("rollback", attempt.revision.clone(), text),
        ]);
        match back_to {
            Some(_) if attempt.booted => effects.extend(self.end(now, Ending::Reboot)),
            back_to => {
                self.running = base;
                effects.extend(
                    back_to
                        .clone()
                        .map(|base| Effect::Owe(Write::Current(base))),
                );
                effects.push(Effect::Run(back_to, Mode::Normal));
                let failed = attempt.revision;
                self.phase = Phase::RollingBack { failed };
            }
        }
        effects
    }

    pub(super) fn on_gate_failed(
        &mut self,
        now: Instant,
        gate: Gate,
        error: String,
    ) -> Vec<Effect> {
        let Some(undo) = self.undo.take() else {
            return Vec::new();
        };
        self.marker = undo.marker;
        self.phase = undo.phase;
        self.running = undo.running;
        self.base = undo.base;
        match (gate, self.phase.clone()) {
            (Gate::Accept, _) => vec![Effect::Answer(Err(Refused::NotDurable(error)))],
            (Gate::Trial | Gate::Arm, Phase::Verifying { wanted, answered }) => {
                // What stands on the disk now is not known: the old one or the new one.
                let mut effects = vec![Effect::Owe(Write::Marker(self.marker.clone()))];
                let base = self.base.as_ref().filter(|_| gate == Gate::Arm);
                effects.extend(base.map(|base| Effect::Owe(Write::Confirm(base.revision.clone()))));
                if answered {
                    effects.extend(self.fail_untouched(wanted, Cause::Internal { error }));
                } else {
                    self.phase = Phase::Settled;
                    effects.push(Effect::Answer(Err(Refused::NotDurable(error))));
                }
                effects
            }
            (
                Gate::Commit,
                Phase::Observing {
                    attempt,
                    since,
                    losses,
                    told_waiting,
                    not_before: _,
                },
            ) => {
                self.phase = Phase::Observing {
                    attempt,
                    since,
                    losses,
                    told_waiting,
                    not_before: now + RETRY,
                };
                Vec::new()
            }
            // A gate is only ever pushed from the phases above.
            (
                Gate::Trial | Gate::Arm | Gate::Commit,
                Phase::Settled
                | Phase::Verifying { .. }
                | Phase::Starting(_)
                | Phase::Observing { .. }
                | Phase::RollingBack { .. }
                | Phase::ShuttingDown { .. }
                | Phase::Clearing { .. },
            ) => Vec::new(),
        }
    }
}

/// The message of a revision that failed by this cause.
pub fn message_of(cause: &Cause) -> &'static str {
    match cause {
        Cause::Exited { .. } | Cause::StartFailed { .. } => message::CONTAINER_NOT_STARTED,
        Cause::GoalNotReached { .. } | Cause::Unhealthy { .. } => message::GOAL_NOT_REACHED,
        Cause::BadObjects { .. } => message::BAD_OBJECT,
        Cause::TriesUsedUp { .. } | Cause::UnexpectedRollback => message::UNEXPECTED_ROLLBACK,
        Cause::BadManifest { .. } => message::BAD_FORMAT,
        Cause::Asked => message::ABORTED,
        Cause::Internal { .. } => message::INTERNAL,
    }
}

/// Whether a manifest that failed so is run again only on explicit request: its own code or images must be the cause, not what
/// can be mended without changing it.
pub fn is_remembered(cause: &Cause) -> bool {
    match cause {
        Cause::Exited { .. }
        | Cause::StartFailed { .. }
        | Cause::GoalNotReached { .. }
        | Cause::Unhealthy { .. }
        | Cause::TriesUsedUp { .. }
        | Cause::UnexpectedRollback => true,
        Cause::BadObjects { .. }
        | Cause::BadManifest { .. }
        | Cause::Asked
        | Cause::Internal { .. } => false,
    }
}
