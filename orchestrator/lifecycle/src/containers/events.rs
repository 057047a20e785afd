//! What the run time tells, taken into what is known. Commands are derived from that in `reconcile`.

use std::sync::Arc;
use std::time::Duration;

use model::container::{BackoffPolicy, Goal};
use model::failure::Cause;
use model::{ContainerName, Instant};

use super::{Containers, Entry, Failed, Mode, OUTAGE_MAX, Outcome, Run, reconcile};
use crate::health::Verdict;
use crate::restart::{self, Next};
use crate::runtime::{Condition, Exit, Found, Instance, RuntimeCommand, RuntimeEvent};

/// Exit code of an instance that vanished.
const CODE_UNKNOWN: u32 = 255;
/// More starts than can be under way at once.
const GENERATION_GAP: u64 = 1024;

impl Containers {
    /// Takes what the run time told. Events of instances that are not the newest of their container are ignored.
    pub fn handle(&mut self, now: Instant, event: RuntimeEvent) {
        self.timing.told(now, &event);
        match event {
            RuntimeEvent::Listed(found) => self.on_listed(now, found),
            RuntimeEvent::Mounted(instance) => {
                if let Some(entry) = self.starting(&instance) {
                    entry.run = Run::Mounted { instance };
                }
            }
            RuntimeEvent::Started { instance, pid } => self.on_started(now, instance, pid),
            RuntimeEvent::StartFailed { instance, error } => {
                if let Some(entry) = self.starting(&instance) {
                    entry.run = Run::Absent;
                    let name = instance.container.clone();
                    self.on_end(
                        now,
                        &name,
                        Cause::StartFailed { error },
                        true,
                        Duration::ZERO,
                    );
                }
            }
            RuntimeEvent::Exited { instance, exit } => self.on_exited(now, &instance, exit),
            RuntimeEvent::Stopped(instance) => self.on_stopped(now, &instance),
            RuntimeEvent::Probed { instance, outcome } => self.on_probed(now, &instance, outcome),
            RuntimeEvent::Disconnected { reason: _ } => {
                self.away_since.get_or_insert(now);
            }
            RuntimeEvent::Connected => self.list(),
        }
    }

    fn starting(&mut self, instance: &Instance) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(&instance.container)?;
        match &entry.run {
            Run::Starting {
                instance: newest, ..
            } if newest == instance => Some(entry),
            Run::Starting { .. }
            | Run::Absent
            | Run::Mounted { .. }
            | Run::Running { .. }
            | Run::Ended { .. }
            | Run::Stopping { .. } => None,
        }
    }

    fn list(&mut self) {
        self.expected = self
            .entries
            .values()
            .filter_map(|entry| match &entry.run {
                Run::Running { instance, .. } | Run::Mounted { instance } => Some(instance.clone()),
                Run::Absent | Run::Starting { .. } | Run::Ended { .. } | Run::Stopping { .. } => {
                    None
                }
            })
            .collect();
        self.commands.push(RuntimeCommand::List);
    }

    fn on_started(&mut self, now: Instant, instance: Instance, pid: u32) {
        let Some(entry) = self.starting(&instance) else {
            return;
        };
        let early = matches!(entry.run, Run::Starting { ready: true, .. });
        let name = instance.container.clone();
        entry.run = Run::Running {
            instance,
            pid,
            since: now,
            ready: false,
            checks: None,
        };
        Self::start_checks(entry, now);
        if early {
            self.mark_ready(&name);
        }
    }

    fn on_exited(&mut self, now: Instant, instance: &Instance, exit: Exit) {
        let Some(entry) = self.entries.get_mut(&instance.container) else {
            return;
        };
        if entry.run.instance() != Some(instance) {
            return;
        }
        let uptime = match &entry.run {
            Run::Running { since, .. } => now.since(*since),
            // `Exited` overtook `Started`: it ran, for no time worth counting.
            Run::Starting { .. } | Run::Mounted { .. } => Duration::ZERO,
            Run::Stopping { .. } => {
                entry.exit = Some(exit);
                return;
            }
            Run::Absent | Run::Ended { .. } => return,
        };
        entry.exit = Some(exit);
        let judged = entry.is_current() && !entry.user_stopped;
        let was_ready = matches!(entry.run, Run::Running { ready: true, .. });
        entry.was_stable = entry.stable_at().is_some_and(|at| now >= at);
        entry.run = Run::Ended {
            instance: instance.clone(),
        };
        if judged {
            let cause = Cause::Exited {
                code: exit.code,
                out_of_memory: exit.out_of_memory,
                damaged: exit.damaged,
                uptime_s: uptime.as_secs(),
            };
            self.on_end(now, &instance.container, cause, exit.code != 0, uptime);
            if let Some(entry) = self.entries.get_mut(&instance.container)
                && entry.outcome == (Outcome::Completed { was_ready: false })
            {
                entry.outcome = Outcome::Completed { was_ready };
            }
        }
    }

    fn on_stopped(&mut self, now: Instant, instance: &Instance) {
        let Some(entry) = self.entries.get_mut(&instance.container) else {
            return;
        };
        if entry.run.instance() != Some(instance) {
            return;
        }
        let run = std::mem::replace(&mut entry.run, Run::Absent);
        let judged = entry
            .spec
            .as_ref()
            .is_some_and(|spec| spec.fingerprint == instance.fingerprint)
            && !entry.user_stopped;
        if let Run::Stopping {
            sick: Some((probe, since)),
            ..
        } = run
            && judged
        {
            let name = instance.container.clone();
            let cause = Cause::Unhealthy { probe };
            self.on_end(now, &name, cause, true, now.since(since));
        }
        if self
            .entries
            .get(&instance.container)
            .is_some_and(|entry| entry.spec.is_none() && entry.run == Run::Absent)
        {
            self.entries.remove(&instance.container);
        }
    }

    fn on_probed(&mut self, now: Instant, instance: &Instance, outcome: Result<(), String>) {
        let Some(entry) = self.entries.get_mut(&instance.container) else {
            return;
        };
        let Some(health) = entry.health().cloned() else {
            return;
        };
        let Run::Running {
            instance: newest,
            checks: Some(checks),
            ..
        } = &mut entry.run
        else {
            return;
        };
        if newest != instance {
            return;
        }
        let verdict = checks.answered(now, &health, outcome);
        self.on_verdict(&instance.container, verdict);
    }

    pub(super) fn on_verdict(&mut self, name: &ContainerName, verdict: Verdict) {
        match verdict {
            Verdict::Failing => {}
            Verdict::Well => {
                let wants_ready = self
                    .entries
                    .get(name)
                    .and_then(|entry| entry.spec.as_ref())
                    .is_some_and(|spec| spec.goal == Goal::Ready);
                if wants_ready {
                    self.mark_ready(name);
                }
            }
            Verdict::Sick => self.stop_sick(name),
        }
    }

    fn stop_sick(&mut self, name: &ContainerName) {
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        if let Run::Running {
            instance,
            since,
            checks: Some(checks),
            ..
        } = &entry.run
        {
            let problem = checks.problem.clone().unwrap_or_default();
            let (instance, sick) = (instance.clone(), Some((problem, *since)));
            self.commands
                .push(reconcile::stop(&instance, entry.spec.as_deref()));
            entry.run = Run::Stopping { instance, sick };
        }
    }

    /// Moves a running container to READY, and has the run time remember it.
    pub(super) fn mark_ready(&mut self, name: &ContainerName) {
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        match &mut entry.run {
            // Kept at once also while it starts, or stops and may yet be found running: who signalled was answered, and does not
            // signal again after a restart of the orchestrator.
            Run::Starting {
                instance, ready, ..
            } if !*ready => {
                *ready = true;
                self.commands
                    .push(RuntimeCommand::MarkReady(instance.clone()));
            }
            Run::Stopping { instance, .. } => {
                self.commands
                    .push(RuntimeCommand::MarkReady(instance.clone()));
            }
            Run::Running {
                instance, ready, ..
            } if !*ready => {
                *ready = true;
                self.commands
                    .push(RuntimeCommand::MarkReady(instance.clone()));
            }
            Run::Running { .. }
            | Run::Starting { .. }
            | Run::Absent
            | Run::Mounted { .. }
            | Run::Ended { .. } => {}
        }
    }

    /// Applies the restart policy to an end that nobody asked for.
    fn on_end(
        &mut self,
        now: Instant,
        name: &ContainerName,
        cause: Cause,
        failed: bool,
        uptime: Duration,
    ) {
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        let Some(recovery) = entry.spec.as_ref().map(|spec| spec.recovery) else {
            return;
        };
        if entry.user_stopped {
            return;
        }
        let gave_up = Outcome::GaveUp {
            cause: cause.clone(),
        };
        let next = restart::after_end(&recovery, failed, entry.retries, uptime);
        let trial = self.mode == Mode::Trial;
        entry.outcome = match next {
            Next::Retry { retry, delay } => {
                entry.retries = retry;
                Outcome::Waiting {
                    until: now + delay,
                    retry: Some(retry),
                    cause: cause.clone(),
                }
            }
            Next::Completed => Outcome::Completed { was_ready: false },
            Next::Stay => gave_up,
            Next::Exhausted if trial => gave_up,
            Next::Exhausted => match recovery.backoff {
                BackoffPolicy::Never => gave_up,
                BackoffPolicy::Reboot => {
                    self.reboot.get_or_insert(Failed {
                        container: name.clone(),
                        cause: cause.clone(),
                    });
                    gave_up
                }
                BackoffPolicy::Pause(pause) => {
                    entry.retries = 0;
                    Outcome::Waiting {
                        until: now + pause.max(Duration::from_secs(1)),
                        retry: None,
                        cause: cause.clone(),
                    }
                }
            },
        };
        if trial && matches!(entry.outcome, Outcome::GaveUp { .. }) {
            let container = name.clone();
            self.failure.get_or_insert(Failed { container, cause });
        }
    }

    fn on_listed(&mut self, now: Instant, mut found: Vec<Found>) {
        self.end_outage(now);
        self.listed = true;
        // Of several instances of one container the one that can go on running is taken, the others are strays.
        found.sort_by_key(|found| {
            let current = self
                .entries
                .get(&found.instance.container)
                .and_then(|entry| entry.spec.as_ref())
                .is_some_and(|spec| spec.fingerprint == found.instance.fingerprint);
            let alive = !matches!(found.condition, Condition::Ended(_));
            (
                !(current && alive),
                !alive,
                u64::MAX - found.instance.generation,
            )
        });
        let mut expected = std::mem::take(&mut self.expected);
        for found in found {
            expected.remove(&found.instance);
            // Its number was never reserved durably, nor were those of starts that are not in the list because they are under way.
            if found.instance.generation >= self.next_generation {
                self.next_generation = found.instance.generation.saturating_add(GENERATION_GAP);
            }
            self.on_found(now, found);
        }
        let vanished = Exit {
            code: CODE_UNKNOWN,
            out_of_memory: false,
            damaged: None,
        };
        for instance in expected {
            let entry = self.entries.get_mut(&instance.container);
            match entry.map(|entry| {
                (
                    entry.run
                        == Run::Mounted {
                            instance: instance.clone(),
                        },
                    entry,
                )
            }) {
                // Mounts that are gone are simply made again.
                Some((true, entry)) => entry.run = Run::Absent,
                Some((false, _)) => self.on_exited(now, &instance, vanished),
                None => {}
            }
        }
        self.entries
            .retain(|_, entry| entry.spec.is_some() || entry.run != Run::Absent);
    }

    fn on_found(&mut self, now: Instant, found: Found) {
        let Found {
            instance,
            revision,
            condition,
            ready,
        } = found;
        let entry = self
            .entries
            .entry(instance.container.clone())
            .or_insert_with(Entry::unknown);
        if entry.run.instance().is_some_and(|known| *known != instance) {
            self.commands.push(reconcile::stop(&instance, None));
            return;
        }
        // A changed version gets the volumes of its own revision, also when the old one is found only after that was decided.
        let is_wanted = entry
            .spec
            .as_ref()
            .is_none_or(|spec| spec.fingerprint == instance.fingerprint);
        let volumes_of = is_wanted.then_some(revision);
        match (&entry.run, condition) {
            (Run::Absent, Condition::Mounted) => {
                entry.volumes_of = volumes_of;
                entry.run = Run::Mounted { instance };
            }
            (Run::Absent, Condition::Running { pid, uptime }) => {
                let since = Instant(
                    now.0
                        .saturating_sub(u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX)),
                );
                entry.volumes_of = volumes_of;
                entry.starts = entry.starts.max(1);
                if let Some(spec) = &entry.spec
                    && spec.fingerprint == instance.fingerprint
                {
                    entry.version = Some(Arc::clone(spec));
                }
                entry.run = Run::Running {
                    instance,
                    pid,
                    since,
                    ready,
                    checks: None,
                };
                Self::start_checks(entry, now);
            }
            (Run::Absent, Condition::Ended(exit)) => {
                entry.exit = Some(exit);
                entry.run = Run::Ended { instance };
            }
            (Run::Starting { .. }, Condition::Running { pid, .. }) => {
                self.on_started(now, instance, pid);
            }
            (Run::Running { .. }, Condition::Ended(exit)) => self.on_exited(now, &instance, exit),
            // A start or stop that is under way is answered by its own event; the rest is as known.
            (
                Run::Starting { .. }
                | Run::Running { .. }
                | Run::Mounted { .. }
                | Run::Ended { .. }
                | Run::Stopping { .. },
                Condition::Mounted | Condition::Running { .. } | Condition::Ended(_),
            ) => {}
        }
    }

    /// What the outage took is not held against the goals, up to [`OUTAGE_MAX`], nor against health checks.
    pub(super) fn end_outage(&mut self, now: Instant) {
        let Some(since) = self.away_since.take() else {
            return;
        };
        for group in &mut self.groups {
            if let Some(below) = group.below_since {
                group.put_off = (group.put_off + now.since(since.max(below))).min(OUTAGE_MAX);
            }
        }
        for entry in self.entries.values_mut() {
            if let Run::Running {
                checks: Some(checks),
                ..
            } = &mut entry.run
            {
                checks.forget_question(now);
            }
        }
    }
}
