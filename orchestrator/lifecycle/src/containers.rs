//! The containers of the device: desired (the target revision) against observed (what the run time told).
//!
//! Level-triggered: events only update what is known, [`Containers::reconcile`] then derives every command from it, so a
//! lost or doubled event is made good by the next list. Invariants: at most one instance of a container is alive; a
//! container starts only when all groups before its own have passed and all it depends on reached their goals; a version
//! that changed is stopped only when its successor may start. Deciding what a failure means for the revision is `update`'s.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use model::container::{BackoffPolicy, Container, Goal, Group, Kind, RecoveryPolicy};
use model::failure::Cause;
use model::{ContainerName, Instant, Manifest, RevisionId};

use crate::health::{Checks, Verdict};
use crate::restart::{self, Next};
use crate::runtime::{Condition, Exit, Found, Instance, RuntimeCommand, RuntimeEvent};

mod control;
mod reconcile;
mod show;

pub use control::{Action, ControlError};
pub use show::{Shown, ShownGroup};

/// While the run time does not answer, goals are not judged for at most this long.
pub const OUTAGE_MAX: Duration = Duration::from_secs(120);

/// Exit code of an instance that vanished.
const CODE_UNKNOWN: u32 = 255;

/// What is to run.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// The revision.
    pub revision: RevisionId,
    /// Its groups, start order.
    pub groups: Vec<Group>,
    /// Its containers, text order.
    pub containers: Vec<Arc<Container>>,
}

impl Target {
    /// Everything of a manifest that is to run.
    pub fn of(revision: RevisionId, manifest: &Manifest) -> Self {
        Self {
            revision,
            groups: manifest.groups().to_vec(),
            containers: manifest.containers().cloned().map(Arc::new).collect(),
        }
    }
}

/// What a failure of a container means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The target is known to be good: goals that are missed are told, retries that are used up go to the back-off policy.
    Normal,
    /// The target is on trial: either one fails it.
    Trial,
}

/// A container that fails the trial.
#[derive(Debug, Clone, PartialEq)]
pub struct Failed {
    /// Which.
    pub container: ContainerName,
    /// What happened to it.
    pub cause: Cause,
}

/// What `update` has to know about all containers together.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Every container of the target has reached its goal.
    pub reached: bool,
    /// ... and each that is started again by policy has run its stable time.
    pub stable: bool,
    /// Every group has reached its goal once, or was let pass after its time-out.
    pub passed: bool,
    /// Why the trial failed; only in [`Mode::Trial`].
    pub failure: Option<Failed>,
    /// A container that is below its goal now, and why as far as that is known.
    pub below: Option<Failed>,
    /// The container whose back-off policy asks for a restart of the machine; only in [`Mode::Normal`].
    pub reboot: Option<Failed>,
    /// Nothing is left of any container.
    pub gone: bool,
}

/// All containers.
#[derive(Debug, Clone)]
pub struct Containers {
    entries: BTreeMap<ContainerName, Entry>,
    /// Names of the target in text order.
    order: Vec<ContainerName>,
    groups: Vec<GroupRun>,
    target: Option<RevisionId>,
    mode: Mode,
    /// Whether anything may be started or stopped at all: a target was set, or everything is to be stopped.
    decided: bool,
    listed: bool,
    /// Since when the run time has not answered.
    away_since: Option<Instant>,
    /// Instances that the next list must name, else they vanished.
    expected: BTreeSet<Instance>,
    next_generation: u64,
    failure: Option<Failed>,
    reboot: Option<Failed>,
    commands: Vec<RuntimeCommand>,
}

#[derive(Debug, Clone, PartialEq)]
struct GroupRun {
    group: Group,
    /// Reached its goal once, or was let pass.
    passed: bool,
    timed_out: bool,
    /// Since when a member is below its goal; `None` when none is, or the group is not unlocked.
    below_since: Option<Instant>,
    /// By how much an outage of the run time has put the deadline off.
    put_off: Duration,
}

#[derive(Debug, Clone, PartialEq)]
struct Entry {
    /// The version that is to run; `None`: it is to go.
    spec: Option<Arc<Container>>,
    /// The version that was started last, when it is known: says how to stop it.
    version: Option<Arc<Container>>,
    /// Containers start in rising and stop in falling order of it.
    wave: u32,
    run: Run,
    /// The revision for which this version was started first: its revision volumes stay with it.
    volumes_of: Option<RevisionId>,
    outcome: Outcome,
    retries: u32,
    exit: Option<Exit>,
    starts: u32,
    was_stable: bool,
    user_stopped: bool,
}

/// What is known about the newest instance.
#[derive(Debug, Clone, PartialEq)]
enum Run {
    Absent,
    Starting {
        instance: Instance,
        /// It said that it is ready before the run time told of the start.
        ready: bool,
    },
    Mounted {
        instance: Instance,
    },
    Running {
        instance: Instance,
        pid: u32,
        since: Instant,
        ready: bool,
        checks: Option<Checks>,
    },
    /// Its process is gone, its mounts may be there.
    Ended {
        instance: Instance,
    },
    Stopping {
        instance: Instance,
        /// What its last health check said, when that is why it is stopped.
        sick: Option<(String, Instant)>,
    },
}

impl Run {
    fn instance(&self) -> Option<&Instance> {
        match self {
            Self::Absent => None,
            Self::Starting { instance, .. }
            | Self::Mounted { instance }
            | Self::Running { instance, .. }
            | Self::Ended { instance }
            | Self::Stopping { instance, .. } => Some(instance),
        }
    }
}

/// What its restart policy made of its last end.
#[derive(Debug, Clone, PartialEq)]
enum Outcome {
    /// To be started, or running.
    Going,
    /// To be started again later.
    Waiting {
        until: Instant,
        /// Which retry comes; `None` in the pause of the back-off policy.
        retry: Option<u32>,
        cause: Cause,
    },
    /// Ended as it should.
    Completed { was_ready: bool },
    /// Not started again.
    GaveUp { cause: Cause },
}

impl Entry {
    fn unknown() -> Self {
        Self {
            spec: None,
            version: None,
            wave: 0,
            run: Run::Absent,
            volumes_of: None,
            outcome: Outcome::Going,
            retries: 0,
            exit: None,
            starts: 0,
            was_stable: false,
            user_stopped: false,
        }
    }

    /// Whether the newest instance is of the version that is to run.
    fn is_current(&self) -> bool {
        match (&self.spec, self.run.instance()) {
            (Some(spec), Some(instance)) => spec.fingerprint == instance.fingerprint,
            (Some(_) | None, None) | (None, Some(_)) => false,
        }
    }

    fn reached(&self) -> bool {
        let Some(spec) = &self.spec else { return true };
        if self.user_stopped {
            return true;
        }
        match (&self.outcome, &self.run) {
            (Outcome::Completed { was_ready }, _) => *was_ready || spec.goal < Goal::Ready,
            (Outcome::GaveUp { .. } | Outcome::Waiting { .. }, _) => false,
            (Outcome::Going, Run::Mounted { .. }) => {
                self.is_current() && spec.goal == Goal::Mounted
            }
            (Outcome::Going, Run::Running { ready, .. }) => {
                self.is_current() && (*ready || spec.goal < Goal::Ready)
            }
            (
                Outcome::Going,
                Run::Absent | Run::Starting { .. } | Run::Ended { .. } | Run::Stopping { .. },
            ) => false,
        }
    }

    fn stable_at(&self) -> Option<Instant> {
        let spec = self.spec.as_ref()?;
        match &self.run {
            Run::Running { since, .. } => Some(*since + spec.recovery.stable_timeout),
            Run::Absent
            | Run::Starting { .. }
            | Run::Mounted { .. }
            | Run::Ended { .. }
            | Run::Stopping { .. } => None,
        }
    }

    /// Whether it holds up no commit.
    fn is_settled(&self, now: Instant) -> bool {
        let Some(spec) = &self.spec else { return true };
        let unguarded = spec.recovery.policy == RecoveryPolicy::No
            || spec.goal == Goal::Mounted
            || self.user_stopped
            || matches!(self.outcome, Outcome::Completed { .. });
        unguarded || self.stable_at().is_some_and(|at| now >= at)
    }

    fn health(&self) -> Option<&model::container::Health> {
        match &self.spec.as_ref()?.kind {
            Kind::Lxc { .. } => None,
            Kind::Oci(oci) => oci.health.as_ref(),
        }
    }
}

impl Containers {
    /// Nothing known, nothing wanted. The first command lists what there is; the first instance gets `next_generation`
    /// or a higher number.
    pub fn new(now: Instant, next_generation: u64) -> Self {
        Self {
            entries: BTreeMap::new(),
            order: Vec::new(),
            groups: Vec::new(),
            target: None,
            mode: Mode::Normal,
            decided: false,
            listed: false,
            away_since: Some(now),
            expected: BTreeSet::new(),
            next_generation,
            failure: None,
            reboot: None,
            commands: vec![RuntimeCommand::List],
        }
    }

    /// Sets what is to run from now on. Containers that are the same in it keep running; retries start over.
    pub fn set_target(&mut self, target: &Target, mode: Mode, now: Instant) {
        let waves = reconcile::waves(target);
        self.target = Some(target.revision.clone());
        self.order = target.containers.iter().map(|c| c.name.clone()).collect();
        self.groups = target.groups.iter().cloned().map(GroupRun::new).collect();
        self.set_mode(mode);
        self.decided = true;
        for entry in self.entries.values_mut() {
            entry.spec = None;
        }
        for spec in &target.containers {
            let entry = self
                .entries
                .entry(spec.name.clone())
                .or_insert_with(Entry::unknown);
            entry.spec = Some(Arc::clone(spec));
            entry.wave = waves.get(&spec.name).copied().unwrap_or_default();
            entry.outcome = Outcome::Going;
            entry.retries = 0;
            entry.starts = u32::from(entry.is_current());
            if entry.is_current() {
                entry.version = Some(Arc::clone(spec));
            } else {
                entry.exit = None;
                entry.was_stable = false;
                entry.volumes_of = None;
                entry.user_stopped &= spec.recovery.policy == RecoveryPolicy::UnlessStopped;
            }
            Self::start_checks(entry, now);
        }
    }

    /// Remembers over a restart of the orchestrator which containers a person stopped; call it after the target was set.
    pub fn restore_user_stopped(&mut self, names: &[ContainerName]) {
        for name in names {
            if let Some(entry) = self.entries.get_mut(name)
                && let Some(spec) = &entry.spec
                && spec.recovery.policy == RecoveryPolicy::UnlessStopped
            {
                entry.user_stopped = true;
            }
        }
    }

    /// Containers that a person stopped and that stay so over restarts of the orchestrator.
    pub fn user_stopped(&self) -> Vec<ContainerName> {
        self.entries
            .iter()
            .filter(|(_, entry)| {
                let policy = entry.spec.as_ref().map(|spec| spec.recovery.policy);
                entry.user_stopped && policy == Some(RecoveryPolicy::UnlessStopped)
            })
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Changes what a failure means, without touching what runs.
    pub fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
        self.failure = None;
        self.reboot = None;
    }

    /// Stops everything, in reverse order, for good.
    pub fn stop_all(&mut self) {
        self.decided = true;
        self.target = None;
        self.order.clear();
        self.groups.clear();
        self.set_mode(Mode::Normal);
        for entry in self.entries.values_mut() {
            entry.spec = None;
        }
    }

    /// Takes what the run time told. Events of instances that are not the newest of their container are ignored.
    pub fn handle(&mut self, now: Instant, event: RuntimeEvent) {
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

    /// Begins or ends health checks, after a start or a change of the version that is to run.
    fn start_checks(entry: &mut Entry, now: Instant) {
        let wanted = entry.is_current() && entry.health().is_some();
        if let Run::Running { since, checks, .. } = &mut entry.run {
            match (wanted, checks.is_some()) {
                (true, false) => *checks = Some(Checks::new(*since, now)),
                (false, true) => *checks = None,
                (true, true) | (false, false) => {}
            }
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

    fn on_verdict(&mut self, name: &ContainerName, verdict: Verdict) {
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
    fn mark_ready(&mut self, name: &ContainerName) {
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        match &mut entry.run {
            Run::Starting { ready, .. } => *ready = true,
            Run::Running {
                instance, ready, ..
            } if !*ready => {
                *ready = true;
                self.commands
                    .push(RuntimeCommand::MarkReady(instance.clone()));
            }
            Run::Running { .. }
            | Run::Absent
            | Run::Mounted { .. }
            | Run::Ended { .. }
            | Run::Stopping { .. } => {}
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
            self.next_generation = self
                .next_generation
                .max(found.instance.generation.saturating_add(1));
            self.on_found(now, found);
        }
        let vanished = Exit {
            code: CODE_UNKNOWN,
            out_of_memory: false,
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
        match (&entry.run, condition) {
            (Run::Absent, Condition::Mounted) => {
                entry.volumes_of = Some(revision);
                entry.run = Run::Mounted { instance };
            }
            (Run::Absent, Condition::Running { pid, uptime }) => {
                let since = Instant(
                    now.0
                        .saturating_sub(u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX)),
                );
                entry.volumes_of = Some(revision);
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
    fn end_outage(&mut self, now: Instant) {
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

    /// What `update` has to know.
    pub fn summary(&self, now: Instant) -> Summary {
        let reached = self.decided && self.entries.values().all(Entry::reached);
        Summary {
            reached,
            stable: reached && self.entries.values().all(|entry| entry.is_settled(now)),
            passed: self.decided && self.groups.iter().all(|group| group.passed),
            failure: self.failure.clone(),
            below: self.below(),
            reboot: self.reboot.clone(),
            gone: self.listed && self.entries.values().all(|entry| entry.run == Run::Absent),
        }
    }

    fn below(&self) -> Option<Failed> {
        let (name, entry) = self.entries.iter().find(|(_, entry)| !entry.reached())?;
        let cause = match &entry.outcome {
            Outcome::Waiting { cause, .. } | Outcome::GaveUp { cause } => cause.clone(),
            Outcome::Going | Outcome::Completed { .. } => Cause::GoalNotReached {
                goal: entry.spec.as_ref()?.goal,
                status: self.status(name),
                timeout_s: 0,
                probe: entry.problem(),
            },
        };
        let container = name.clone();
        Some(Failed { container, cause })
    }

    /// Revisions whose containers run or whose volumes are mounted now: they must stay.
    pub fn revisions_in_use(&self) -> BTreeSet<RevisionId> {
        self.entries
            .values()
            .filter(|entry| entry.run != Run::Absent)
            .filter_map(|entry| entry.volumes_of.clone())
            .chain(self.target.clone())
            .collect()
    }

    /// The revision for which a container was started: where its logs and revision volumes are.
    pub fn started_for(&self, name: &ContainerName) -> Option<&RevisionId> {
        self.entries.get(name)?.volumes_of.as_ref()
    }

    /// The number that the next instance gets.
    pub fn next_generation(&self) -> u64 {
        self.next_generation
    }
}

#[cfg(test)]
mod tests;
