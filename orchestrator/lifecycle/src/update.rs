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
//! ```
//!
//! Two kinds of durable effects: a *gate* must be durable before anything after it is done, and when it fails the step is
//! undone; what is *owed* is true already and is written as soon as the storage takes it, in order.
//! Not here: which containers start when (`containers`), what a boot chooses (`boot`).

use std::time::Duration;

use model::failure::{BadObject, Cause};
use model::marker::{Marker, Trial};
use model::progress::{Progress, State, message};
use model::{ContainerName, Instant, ObjectId, RevisionId};

use crate::containers::{Failed, Mode, Summary};
use crate::runtime::Ending;

/// A gate that failed is tried again after this.
const RETRY: Duration = Duration::from_secs(5);

/// What may be set about updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How long a trial must hold its goals before it is committed.
    pub commit_delay: Duration,
    /// How often a trial may be tried, at least 1.
    pub tries: u32,
    /// What was applied in place ends UPDATED and is committed after the next start.
    pub exact_commit: bool,
    /// How often a goal may be lost and found again while a trial is observed.
    pub goal_losses_max: u32,
    /// How long a shutdown may take.
    pub shutdown_limit: Duration,
}

/// A revision that somebody wants to run, looked up and parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Which.
    pub revision: RevisionId,
    /// Digest of its manifest.
    pub digest: ObjectId,
    /// Its progress is DONE already, and stays so.
    pub was_done: bool,
    /// Only a boot can bring it in.
    pub by_reboot: bool,
    /// It is to end DONE, whatever [`Settings::exact_commit`] says.
    pub commit: bool,
    /// Run it also when the same manifest failed before.
    pub again: bool,
    /// Times that this request was taken up before.
    pub retries: u32,
}

/// Why a revision cannot even be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    /// It has no manifest.
    Missing,
    /// Its manifest has problems.
    Bad,
}

/// A trial while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Which revision.
    pub revision: RevisionId,
    /// Digest of its manifest.
    pub digest: ObjectId,
    /// Its progress was DONE when it was asked for, and stays so unless it fails.
    pub was_done: bool,
    /// It is to end DONE.
    pub commit: bool,
    /// A start of the orchestrator took it up, not a request.
    pub by_boot: bool,
    /// The machine runs its kernel: going back needs a boot.
    pub booted: bool,
    /// Tries used before this one.
    pub retries: u32,
}

/// Where the device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// What runs is what is to run.
    Settled,
    /// Objects of the wanted revision are being verified; nothing was touched.
    Verifying {
        /// The revision.
        wanted: Wanted,
        /// The one who asked has his answer.
        answered: bool,
    },
    /// The trial's containers are on their way to their goals.
    Starting(Attempt),
    /// All goals were reached; they must hold.
    Observing {
        /// The trial.
        attempt: Attempt,
        /// Since when every goal is reached; `None` while one is lost.
        since: Option<Instant>,
        /// How often one was lost.
        losses: u32,
        /// The progress says that containers must become stable.
        told_waiting: bool,
        /// The commit could not be written; not before this again.
        not_before: Instant,
    },
    /// The containers of the revision before are on their way back.
    RollingBack {
        /// What was given up.
        failed: RevisionId,
    },
    /// Containers are being stopped, then the boot ends.
    ShuttingDown {
        /// How.
        ending: Ending,
        /// Not waited for longer than this.
        until: Instant,
    },
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Somebody wants a revision to run.
    Run(Wanted),
    /// Somebody wants a revision to run that cannot be.
    RunUnusable(RevisionId, Unusable),
    /// Somebody gives up the trial.
    GiveUp,
    /// Objects were verified; `bad` is empty when all is well.
    Verified {
        /// Of this revision.
        revision: RevisionId,
        /// What cannot be used.
        bad: Vec<BadObject>,
    },
    /// What the containers are doing, told after each change and at each [`Update::next_wake`].
    Containers(Summary),
    /// A gate did not become durable; no effect after it was carried out.
    GateFailed(Gate, String),
    /// The boot is to end.
    Shutdown(Ending),
}

/// Which step waits for a durable write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// A request becomes visible as accepted.
    Accept,
    /// The trial and its try stand in the marker.
    Trial,
    /// The boot loader starts the trial next.
    Arm,
    /// The trial becomes the revision to boot.
    Commit,
}

/// Something that is to be durable.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// What to boot.
    Marker(Marker),
    /// What is told about a revision.
    Progress(RevisionId, Progress),
    /// The mark of a revision that was committed.
    Done(RevisionId),
    /// `trails/current`.
    Current(RevisionId),
    /// A failure record; the loop adds logs, pressure and containers as they are at this moment.
    Failure(Box<Failing>),
    /// The boot loader starts this one from now on.
    Confirm(RevisionId),
    /// The boot loader starts this one next, once.
    Arm(RevisionId),
}

/// What the life cycle knows of a failure.
#[derive(Debug, Clone, PartialEq)]
pub struct Failing {
    /// Number of the record.
    pub id: u64,
    /// What failed.
    pub revision: RevisionId,
    /// Digest of its manifest, when it is known.
    pub manifest: Option<ObjectId>,
    /// What runs instead.
    pub rolled_back_to: Option<RevisionId>,
    /// Who caused it.
    pub container: Option<ContainerName>,
    /// What happened.
    pub cause: Cause,
    /// What the progress says.
    pub message: &'static str,
    /// Tries used, this one included.
    pub tries: u32,
}

/// Why a request was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// One revision at a time.
    UpdateInProgress(RevisionId),
    /// The boot is ending.
    ShuttingDown,
    /// The same manifest failed before.
    FailedBefore {
        /// Which was asked for.
        revision: RevisionId,
        /// Number of the failure record.
        failure: u64,
    },
    /// There is no trial to give up.
    NoTrial,
    /// The storage did not take it.
    NotDurable(String),
}

/// What is to be done, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Must be durable before the next effect; else [`Event::GateFailed`] and nothing after it.
    Gate(Gate, Write),
    /// Is durable as soon as the storage takes it, in the order in which it was owed.
    Owe(Write),
    /// Hash the objects of a revision.
    Verify(RevisionId),
    /// These containers are to run; of nothing when `None`.
    Run(Option<RevisionId>, Mode),
    /// What runs is no trial any more.
    Settle,
    /// Stop all containers, in reverse order.
    StopAll,
    /// End the boot.
    End(Ending),
    /// Tell the one who asked.
    Answer(Result<(), Refused>),
    /// Remove what is not needed any more.
    Retain,
    /// For those who follow events: kind, revision, words.
    Tell(&'static str, RevisionId, String),
}

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

/// A revision that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Which.
    pub revision: RevisionId,
    /// Digest of its manifest.
    pub digest: ObjectId,
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
            Phase::Settled | Phase::RollingBack { .. } | Phase::ShuttingDown { .. } => None,
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
            | Phase::ShuttingDown { .. } => None,
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
            Phase::ShuttingDown { until, .. } => Some(*until),
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
            Event::Run(wanted) => self.on_run(wanted),
            Event::RunUnusable(revision, unusable) => self.on_unusable(revision, unusable),
            Event::GiveUp => self.on_give_up(now),
            Event::Verified { revision, bad } => self.on_verified(now, &revision, bad),
            Event::Containers(summary) => self.on_summary(now, summary),
            Event::GateFailed(gate, error) => self.on_gate_failed(now, gate, error),
            Event::Shutdown(ending) => self.on_shutdown(now, ending),
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
            Phase::ShuttingDown { .. } => Some(Refused::ShuttingDown),
        }
    }

    fn on_run(&mut self, wanted: Wanted) -> Vec<Effect> {
        if let Some(refused) = self.busy() {
            return vec![Effect::Answer(Err(refused))];
        }
        let runs = self.running.as_ref().is_some_and(|running| {
            running.revision == wanted.revision && running.digest == wanted.digest
        });
        if runs {
            return vec![Effect::Answer(Ok(()))];
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

    fn on_give_up(&mut self, now: Instant) -> Vec<Effect> {
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
            Phase::ShuttingDown { .. } => vec![Effect::Answer(Err(Refused::ShuttingDown))],
        }
    }

    fn give_up_asked(&mut self, now: Instant, attempt: Attempt) -> Vec<Effect> {
        let mut effects = self.fail(now, attempt, Cause::Asked, None);
        effects.push(Effect::Answer(Ok(())));
        effects
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
            | Phase::ShuttingDown { .. } => return Vec::new(),
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
            Phase::ShuttingDown { ending, until } => {
                if summary.gone || now >= until {
                    vec![Effect::End(ending)]
                } else {
                    Vec::new()
                }
            }
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

    fn take_failure(&mut self) -> u64 {
        let id = self.next_failure;
        self.next_failure += 1;
        id
    }

    /// The wanted revision is given up before anything was changed for it.
    fn fail_untouched(&mut self, wanted: Wanted, cause: Cause) -> Vec<Effect> {
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

    fn fail(
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
            Effect::Owe(Write::Marker(self.marker.clone())),
            Effect::Tell("rollback", attempt.revision.clone(), text),
        ];
        match back_to {
            Some(base) if attempt.booted => {
                effects.push(Effect::Owe(Write::Confirm(base)));
                effects.extend(self.end(now, Ending::Reboot));
            }
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

    fn on_gate_failed(&mut self, now: Instant, gate: Gate, error: String) -> Vec<Effect> {
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
                | Phase::ShuttingDown { .. },
            ) => Vec::new(),
        }
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

#[cfg(test)]
mod tests;
