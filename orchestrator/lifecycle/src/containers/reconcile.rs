//! From what is known to what is to be done: groups, order, starts, stops, probes, and when to look again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::container::{Container, Goal, Group};
use model::failure::Cause;
use model::{ContainerName, Instant};

use super::{Containers, Entry, Failed, GroupRun, Mode, OUTAGE_MAX, Outcome, Run, Target};
use crate::runtime::{Instance, RuntimeCommand, StartSpec};

/// How a stray is stopped, of which nothing is known.
const STRAY_SIGNAL: u32 = 15;
const STRAY_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a container may not be started now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wait {
    /// The run time does not answer.
    RuntimeAway,
    /// A container that is not part of the revision must go first.
    Removal(ContainerName),
    /// An earlier group has not passed.
    Group(model::GroupName),
    /// One that it depends on has not reached its goal.
    Dependency(ContainerName),
}

impl GroupRun {
    pub(super) fn new(group: Group) -> Self {
        Self {
            group,
            passed: false,
            timed_out: false,
            below_since: None,
            put_off: Duration::ZERO,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        Some(self.below_since? + self.group.timeout + self.put_off)
    }
}

/// Position of each container in the start order: groups one after the other, inside a group what is depended on first.
pub(super) fn waves(target: &Target) -> BTreeMap<ContainerName, u32> {
    let specs: BTreeMap<_, _> = target.containers.iter().map(|c| (&c.name, c)).collect();
    let mut waves = BTreeMap::new();
    let mut base = 0;
    for group in &target.groups {
        let members: Vec<_> = target
            .containers
            .iter()
            .filter(|c| c.group == group.name)
            .collect();
        // Each pass settles at least one more container; a cycle (which parsing refuses) ends with the passes.
        for _ in 0..members.len() {
            let mut changed = false;
            for spec in &members {
                let depth = spec
                    .depends_on
                    .iter()
                    .filter(|name| specs.get(name).is_some_and(|dep| dep.group == group.name))
                    .filter_map(|name| waves.get(name))
                    .map(|wave| wave + 1)
                    .max()
                    .unwrap_or(base);
                changed |= waves.insert(spec.name.clone(), depth) != Some(depth);
            }
            if !changed {
                break;
            }
        }
        base = members
            .iter()
            .filter_map(|spec| waves.get(&spec.name))
            .map(|wave| wave + 1)
            .max()
            .unwrap_or(base);
    }
    waves
}

/// The command that stops an instance, as its own version wants to be stopped when that is known.
pub(super) fn stop(instance: &Instance, spec: Option<&Container>) -> RuntimeCommand {
    RuntimeCommand::Stop {
        instance: instance.clone(),
        signal: spec.map_or(STRAY_SIGNAL, |spec| spec.stop_signal),
        timeout: spec.map_or(STRAY_TIMEOUT, |spec| spec.stop_timeout),
    }
}

impl Containers {
    /// Everything that is to be done now, in order.
    pub fn reconcile(&mut self, now: Instant) -> Vec<RuntimeCommand> {
        if self.decided {
            self.update_groups(now);
            if self.listed {
                self.stop_removed();
                self.start_and_replace(now);
            }
        }
        self.check_health(now);
        let commands = std::mem::take(&mut self.commands);
        for command in &commands {
            self.timing.asked(now, command);
        }
        commands
    }

    fn update_groups(&mut self, now: Instant) {
        let away = self
            .away_since
            .is_some_and(|since| now < since + OUTAGE_MAX);
        let mut unlocked = true;
        for index in 0..self.groups.len() {
            let missing = self.first_missing(&self.groups[index].group.name);
            let group = &mut self.groups[index];
            if !unlocked {
                group.below_since = None;
                continue;
            }
            match missing {
                None => {
                    group.passed = true;
                    group.below_since = None;
                }
                Some(name) => {
                    group.below_since.get_or_insert(now);
                    let late = group.deadline().is_some_and(|deadline| now >= deadline);
                    if late && !away {
                        group.timed_out |= !group.passed;
                        if self.mode == Mode::Normal {
                            group.passed = true;
                        } else {
                            self.goal_missed(&name, index);
                        }
                    }
                }
            }
            unlocked &= self.groups[index].passed;
        }
    }

    fn goal_missed(&mut self, name: &ContainerName, group: usize) {
        let Some(entry) = self.entries.get(name) else {
            return;
        };
        let cause = Cause::GoalNotReached {
            goal: entry.spec.as_ref().map_or(Goal::Started, |spec| spec.goal),
            status: self.status(name),
            timeout_s: self.groups[group].group.timeout.as_secs(),
            probe: entry.problem(),
        };
        let container = name.clone();
        self.failure.get_or_insert(Failed { container, cause });
    }

    fn first_missing(&self, group: &model::GroupName) -> Option<ContainerName> {
        self.order
            .iter()
            .find(|name| {
                self.entries.get(*name).is_some_and(|entry| {
                    !entry.reached() && entry.spec.as_ref().is_some_and(|spec| spec.group == *group)
                })
            })
            .cloned()
    }

    /// Stops what is not part of the target, the last started first.
    fn stop_removed(&mut self) {
        let last = self
            .entries
            .values()
            .filter(|entry| entry.spec.is_none() && entry.run != Run::Absent)
            .map(|entry| entry.wave)
            .max();
        for entry in self.entries.values_mut() {
            if entry.spec.is_none() && Some(entry.wave) == last {
                Self::stop_entry(entry, &mut self.commands);
            }
        }
    }

    fn stop_entry(entry: &mut Entry, commands: &mut Vec<RuntimeCommand>) {
        match &entry.run {
            Run::Absent | Run::Stopping { .. } => {}
            Run::Starting { instance, .. }
            | Run::Mounted { instance }
            | Run::Running { instance, .. }
            | Run::Ended { instance } => {
                let instance = instance.clone();
                commands.push(stop(&instance, entry.version.as_deref()));
                entry.run = Run::Stopping {
                    instance,
                    sick: None,
                };
            }
        }
    }

    fn start_and_replace(&mut self, now: Instant) {
        for name in self.order.clone() {
            let Some(entry) = self.entries.get(&name) else {
                continue;
            };
            let Some(spec) = entry.spec.clone() else {
                continue;
            };
            let wanted = !entry.user_stopped && entry.is_due(now);
            let alive = match &entry.run {
                Run::Absent | Run::Ended { .. } => false,
                Run::Starting { .. }
                | Run::Mounted { .. }
                | Run::Running { .. }
                | Run::Stopping { .. } => true,
            };
            let replace = match &entry.run {
                Run::Absent | Run::Ended { .. } | Run::Stopping { .. } => false,
                // A goal may change between MOUNTED and the others although the container is the same.
                Run::Mounted { .. } => !entry.is_current() || spec.goal != Goal::Mounted,
                Run::Running { .. } => !entry.is_current() || spec.goal == Goal::Mounted,
                Run::Starting { .. } => !entry.is_current(),
            };
            if wanted && (!alive || replace) {
                if self.wait(&spec).is_none() {
                    if replace {
                        self.stop_named(&name);
                    } else {
                        self.start(&name, &spec);
                    }
                }
            } else if entry.is_to_be_cleared() {
                self.stop_named(&name);
            }
        }
    }

    fn stop_named(&mut self, name: &ContainerName) {
        if let Some(entry) = self.entries.get_mut(name) {
            Self::stop_entry(entry, &mut self.commands);
        }
    }

    fn start(&mut self, name: &ContainerName, spec: &Arc<Container>) {
        let Some(target) = self.target.clone() else {
            return;
        };
        let instance = Instance {
            container: name.clone(),
            fingerprint: spec.fingerprint,
            generation: self.next_generation,
        };
        self.next_generation += 1;
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        entry.starts = entry.starts.saturating_add(1);
        entry.outcome = Outcome::Going;
        entry.version = Some(Arc::clone(spec));
        entry.was_stable = false;
        entry.run = Run::Starting {
            instance: instance.clone(),
            ready: false,
        };
        let revision = entry.volumes_of.get_or_insert(target).clone();
        let start = StartSpec {
            instance,
            revision,
            container: Arc::clone(spec),
        };
        self.commands.push(match spec.goal {
            Goal::Mounted => RuntimeCommand::Mount(start),
            Goal::Started | Goal::Ready => RuntimeCommand::Start(start),
        });
    }

    /// What keeps a container from being started now.
    pub(super) fn wait(&self, spec: &Container) -> Option<Wait> {
        if !self.listed {
            return Some(Wait::RuntimeAway);
        }
        let removal = self
            .entries
            .iter()
            .find(|(_, entry)| entry.spec.is_none() && entry.run != Run::Absent);
        if let Some((name, _)) = removal {
            return Some(Wait::Removal(name.clone()));
        }
        let earlier = self
            .groups
            .iter()
            .take_while(|group| group.group.name != spec.group)
            .find(|group| !group.passed);
        if let Some(group) = earlier {
            return Some(Wait::Group(group.group.name.clone()));
        }
        spec.depends_on
            .iter()
            .find(|name| self.entries.get(*name).is_some_and(|dep| !dep.reached()))
            .map(|name| Wait::Dependency(name.clone()))
    }

    fn check_health(&mut self, now: Instant) {
        if self.away_since.is_some() {
            return;
        }
        let names: Vec<_> = self.entries.keys().cloned().collect();
        for name in names {
            let Some(entry) = self.entries.get_mut(&name) else {
                continue;
            };
            let Some(health) = entry.health().cloned() else {
                continue;
            };
            let Run::Running {
                instance,
                checks: Some(checks),
                ..
            } = &mut entry.run
            else {
                continue;
            };
            let overdue = checks.overdue(now, &health);
            if checks.ask(now) {
                self.commands.push(RuntimeCommand::Probe {
                    instance: instance.clone(),
                    probe: health.probe.clone(),
                    timeout: health.timeout,
                });
            }
            if let Some(verdict) = overdue {
                self.on_verdict(&name, verdict);
            }
        }
    }

    /// When [`Containers::reconcile`] has something to do although nothing happens. Always after `now`.
    pub fn next_wake(&self, now: Instant) -> Option<Instant> {
        let away_until = self.away_since.map(|since| since + OUTAGE_MAX);
        let judged = |group: &&GroupRun| match self.mode {
            Mode::Normal => !group.passed,
            Mode::Trial => self.failure.is_none(),
        };
        let deadlines = self
            .groups
            .iter()
            .filter(judged)
            .filter_map(GroupRun::deadline)
            .map(|deadline| away_until.map_or(deadline, |until| deadline.max(until)));
        let entries = self.entries.values().flat_map(|entry| {
            let retry = match &entry.outcome {
                Outcome::Waiting { until, .. } => Some(*until),
                Outcome::Going | Outcome::Completed { .. } | Outcome::GaveUp { .. } => None,
            };
            let probe = match (&entry.run, entry.health()) {
                (
                    Run::Running {
                        checks: Some(checks),
                        ..
                    },
                    Some(health),
                ) if self.away_since.is_none() => Some(checks.next_wake(health)),
                _ => None,
            };
            [retry, probe, entry.stable_at()].into_iter().flatten()
        });
        deadlines.chain(entries).filter(|at| *at > now).min()
    }
}

impl Entry {
    /// Whether its restart policy lets it run now.
    fn is_due(&self, now: Instant) -> bool {
        match &self.outcome {
            Outcome::Going => true,
            Outcome::Waiting { until, .. } => now >= *until,
            Outcome::Completed { .. } | Outcome::GaveUp { .. } => false,
        }
    }

    /// Whether something of it is there although it is not to be started again.
    fn is_to_be_cleared(&self) -> bool {
        match (&self.run, &self.outcome) {
            (Run::Absent | Run::Stopping { .. }, _) => false,
            (Run::Ended { .. }, Outcome::Completed { .. } | Outcome::GaveUp { .. }) => true,
            (Run::Ended { .. }, Outcome::Going | Outcome::Waiting { .. }) => self.user_stopped,
            (Run::Starting { .. } | Run::Mounted { .. } | Run::Running { .. }, _) => {
                self.user_stopped
            }
        }
    }

    /// What its last health check said when it failed.
    pub(super) fn problem(&self) -> Option<String> {
        match &self.run {
            Run::Running { checks, .. } => {
                checks.as_ref().and_then(|checks| checks.problem.clone())
            }
            Run::Stopping { sick, .. } => sick.as_ref().map(|(problem, _)| problem.clone()),
            Run::Absent | Run::Starting { .. } | Run::Mounted { .. } | Run::Ended { .. } => {
                match &self.outcome {
                    Outcome::Waiting {
                        cause: Cause::Unhealthy { probe },
                        ..
                    }
                    | Outcome::GaveUp {
                        cause: Cause::Unhealthy { probe },
                    } => Some(probe.clone()),
                    Outcome::Going
                    | Outcome::Completed { .. }
                    | Outcome::Waiting { .. }
                    | Outcome::GaveUp { .. } => None,
                }
            }
        }
    }
}
