//! The containers of the device: desired (the target revision) against observed (what the run time told).
//!
//! Level-triggered: events only update what is known, [`Containers::reconcile`] then derives every command from it, so a
//! lost or doubled event is made good by the next list. Invariants: at most one instance of a container is alive; a
//! container starts only when all groups before its own have passed and all it depends on reached their goals; a version
//! that changed is stopped only when its successor may start. Deciding what a failure means for the revision is `update`'s.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use model::container::{Container, Goal, Group, Kind, RecoveryPolicy};
use model::failure::Cause;
use model::{ContainerName, Instant, Manifest, RevisionId};

use crate::health::Checks;
use crate::runtime::{Exit, Instance, RuntimeCommand};

mod control;
mod events;
mod reconcile;
mod show;
mod timing;

pub use control::{Action, ControlError};
pub use show::{Shown, ShownGroup};
pub use timing::Took;

/// While the run time does not answer, goals are not judged for at most this long.
pub const OUTAGE_MAX: Duration = Duration::from_secs(120);

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
    timing: timing::Timing,
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
                let far_enough = match spec.goal {
                    // It is to be stopped and only mounted.
                    Goal::Mounted => false,
                    Goal::Started => true,
                    Goal::Ready => *ready,
                };
                self.is_current() && far_enough
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
            Kind::Lxc(_) => None,
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
            timing: timing::Timing::default(),
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

    /// How long a container took when that was seen last, running or only mounted.
    pub fn took(&self, name: &ContainerName, mounted: bool) -> Took {
        self.timing.of(name, mounted)
    }

    /// Whether it is only mounted now.
    pub(crate) fn is_mounted(&self, name: &ContainerName) -> bool {
        let entry = self.entries.get(name);
        entry.is_some_and(|entry| matches!(entry.run, Run::Mounted { .. }))
    }

    /// What is alive of each container: running, mounted or on its way to either.
    pub fn alive(&self) -> BTreeMap<ContainerName, Instance> {
        let alive = self
            .entries
            .iter()
            .filter_map(|(name, entry)| match &entry.run {
                Run::Starting { instance, .. }
                | Run::Mounted { instance }
                | Run::Running { instance, .. } => Some((name.clone(), instance.clone())),
                Run::Absent | Run::Ended { .. } | Run::Stopping { .. } => None,
            });
        alive.collect()
    }

    /// Whether a container of the target has reached its goal.
    pub(crate) fn has_reached(&self, name: &ContainerName) -> bool {
        self.entries
            .get(name)
            .is_some_and(|entry| entry.spec.is_some() && entry.reached())
    }

    /// Whether the run time has said what runs since the start.
    pub fn is_listed(&self) -> bool {
        self.listed
    }

    /// Takes for granted that the run time answers again, and that what ran goes on.
    pub(crate) fn assume_connected(&mut self, now: Instant) {
        self.end_outage(now);
        self.expected.clear();
        self.commands
            .retain(|command| !matches!(command, RuntimeCommand::List));
    }

    /// Commands that were given and not answered yet.
    pub(crate) fn under_way(&self) -> (Vec<Instance>, Vec<Instance>) {
        let (mut starting, mut stopping) = (Vec::new(), Vec::new());
        for entry in self.entries.values() {
            match &entry.run {
                Run::Starting { instance, .. } => starting.push(instance.clone()),
                Run::Stopping { instance, .. } => stopping.push(instance.clone()),
                Run::Absent | Run::Mounted { .. } | Run::Running { .. } | Run::Ended { .. } => {}
            }
        }
        (starting, stopping)
    }

    /// When the last one that holds up a commit has run its stable time, if nothing happens.
    pub(crate) fn settled_at(&self, now: Instant) -> Instant {
        self.entries
            .values()
            .filter(|entry| !entry.is_settled(now))
            .filter_map(Entry::stable_at)
            .fold(now, Instant::max)
    }

    /// The number that the next instance gets.
    pub fn next_generation(&self) -> u64 {
        self.next_generation
    }
}

#[cfg(test)]
mod tests;
