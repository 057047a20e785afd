//! Rollouts: groups of targets, one after another, as far as successes and failures allow. A scheduler that runs every two
//! seconds moves them; nothing else does.

use serde_json::Value;

use super::Hawkbit;
use super::life::Order;
use super::records::{Force, Stamp, Status};
use super::wire::{Answer, Fault, Good, Request};

const PERIOD_MS: i64 = 2000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Creating,
    Ready,
    Starting,
    Running,
    Scheduled,
    Paused,
    Finished,
    Error,
    Deleting,
    Deleted,
}

impl State {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Ready => "ready",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Scheduled => "scheduled",
            Self::Paused => "paused",
            Self::Finished => "finished",
            Self::Error => "error",
            Self::Deleting => "deleting",
            Self::Deleted => "deleted",
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) state: State,
    pub(crate) percent: f64,
    pub(crate) members: Vec<String>,
    pub(crate) stamp: Stamp,
}

#[derive(Debug, Clone)]
pub(crate) struct Rollout {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) filter: String,
    pub(crate) set: u64,
    pub(crate) force: Force,
    pub(crate) weight: i64,
    pub(crate) success: String,
    pub(crate) error: String,
    pub(crate) state: State,
    pub(crate) total: usize,
    pub(crate) groups: Vec<Group>,
    pub(crate) stamp: Stamp,
}

impl Rollout {
    pub(crate) fn is_deleted(&self) -> bool {
        self.state == State::Deleted
    }
}

impl Hawkbit {
    /// Runs the scheduler as often as it would have run since it was last looked at.
    pub(crate) fn run_scheduler(&mut self) {
        if self.now - self.ticked > 100 * PERIOD_MS {
            // Nothing moves that far without a request between; the rest of the ticks would find nothing to do.
            self.ticked = self.now - 100 * PERIOD_MS;
        }
        while self.ticked + PERIOD_MS <= self.now {
            self.ticked += PERIOD_MS;
            let ids: Vec<u64> = self.rollouts.keys().copied().collect();
            for id in ids {
                self.tick(id);
            }
        }
    }

    fn tick(&mut self, id: u64) {
        match self.rollouts[&id].state {
            State::Creating => self.fill(id),
            State::Starting => self.start(id),
            State::Running => self.advance(id),
            State::Deleting => self.set_state(id, State::Deleted, "system"),
            State::Ready
            | State::Scheduled
            | State::Paused
            | State::Finished
            | State::Error
            | State::Deleted => {}
        }
    }

    fn set_state(&mut self, id: u64, state: State, by: &str) {
        if let Some(rollout) = self.rollouts.get_mut(&id) {
            rollout.state = state;
            by.clone_into(&mut rollout.stamp.modified_by);
        }
    }

    fn set_group(&mut self, id: u64, group: usize, state: State) {
        let by = match state {
            // These are done in the name of whoever made the rollout.
            State::Scheduled | State::Error | State::Finished => self.setup.user.clone(),
            State::Creating
            | State::Ready
            | State::Starting
            | State::Running
            | State::Paused
            | State::Deleting
            | State::Deleted => "system".to_owned(),
        };
        if let Some(group) = self
            .rollouts
            .get_mut(&id)
            .and_then(|r| r.groups.get_mut(group))
        {
            group.state = state;
            group.stamp.modified_by = by;
        }
    }

    fn members(&self, filter: &str) -> Vec<String> {
        self.targets
            .iter()
            .filter(|((tenant, id), _)| {
                tenant == "DEFAULT" && super::polling::matches_target(filter, id)
            })
            .map(|((_, id), _)| id.clone())
            .collect()
    }

    /// Puts targets into groups.
    fn fill(&mut self, id: u64) {
        let rollout = &self.rollouts[&id];
        let mut left = self.members(&rollout.filter);
        // In no visible order, as on the real server; but the same in each run.
        left.sort_by_key(|name| super::download::md5(name.as_bytes()));
        let count = rollout.groups.len();
        let mut filled: Vec<Vec<String>> = Vec::new();
        for group in 0..count {
            match self.foretold.groups.get(group) {
                Some(told) => {
                    left.retain(|one| !told.contains(one));
                    filled.push(told.clone());
                }
                None => {
                    let share = left.len().div_ceil(count - group);
                    filled.push(left.drain(..share).collect());
                }
            }
        }
        if let Some(rollout) = self.rollouts.get_mut(&id) {
            for (group, members) in rollout.groups.iter_mut().zip(filled) {
                group.members = members;
                group.state = State::Ready;
                "system".clone_into(&mut group.stamp.modified_by);
            }
            rollout.state = State::Ready;
            "system".clone_into(&mut rollout.stamp.modified_by);
        }
    }

    fn start(&mut self, id: u64) {
        let rollout = self.rollouts[&id].clone();
        for (index, group) in rollout.groups.iter().enumerate() {
            for member in &group.members {
                let key = ("DEFAULT".to_owned(), member.clone());
                let order = Order {
                    force: rollout.force,
                    weight: Some(rollout.weight),
                    confirmation: false,
                    window: None,
                    rollout: Some((id, group.id)),
                };
                let action = self.new_action(&key, rollout.set, &order);
                if let Some(action) = self.actions.get_mut(&action) {
                    action.active = false;
                    action.status = Status::Scheduled;
                }
            }
            self.set_group(id, index, State::Scheduled);
        }
        let user = self.setup.user.clone();
        self.lock(rollout.set, &user);
        self.set_state(id, State::Running, "system");
        self.start_group(id, 0, "system");
    }

    fn start_group(&mut self, id: u64, index: usize, by: &str) {
        let rollout = self.rollouts[&id].clone();
        let Some(group) = rollout.groups.get(index) else {
            return;
        };
        let waits = self.is_set("user.confirmation.flow.enabled");
        let actions: Vec<u64> = self
            .actions
            .values()
            .filter(|action| action.rollout == Some((id, group.id)))
            .filter(|action| action.status == Status::Scheduled)
            .map(|action| action.id)
            .collect();
        for action in actions {
            let key = self.actions[&action].target.clone();
            self.retire(&key);
            let status = if waits {
                Status::Waiting
            } else {
                Status::Running
            };
            if let Some(action) = self.actions.get_mut(&action) {
                action.active = true;
                action.status = status;
                action.revision += 1;
            }
            let text = format!(
                "Initiated by Rollout Group '{}' [Rollout {}:{id}]",
                group.name, rollout.name
            );
            self.row(action, status, vec![text], None, None);
            self.attach(&key, rollout.set);
        }
        self.set_group(id, index, State::Running);
        if let Some(group) = self
            .rollouts
            .get_mut(&id)
            .and_then(|r| r.groups.get_mut(index))
        {
            by.clone_into(&mut group.stamp.modified_by);
        }
    }

    fn advance(&mut self, id: u64) {
        let rollout = self.rollouts[&id].clone();
        let mut next = None;
        let mut running = false;
        for (index, group) in rollout.groups.iter().enumerate() {
            if group.state != State::Running && group.state != State::Error {
                continue;
            }
            let counts = self.group_counts(id, group.id);
            if group.state == State::Running {
                running = true;
                if exceeds(counts.failed, group.members.len(), &rollout.error) {
                    self.set_group(id, index, State::Error);
                    let user = self.setup.user.clone();
                    self.set_state(id, State::Paused, &user);
                    return;
                }
                if counts.open == 0 {
                    self.set_group(id, index, State::Finished);
                }
                if reaches(counts.finished, group.members.len(), &rollout.success) {
                    next = Some(index + 1);
                }
            }
        }
        let waiting = rollout
            .groups
            .iter()
            .position(|group| group.state == State::Scheduled);
        let user = self.setup.user.clone();
        match (waiting, next, running) {
            (Some(group), Some(allowed), _) if group <= allowed => {
                self.start_group(id, group, &user)
            }
            // After an error pause was lifted nothing runs: the next one starts whatever the first did.
            (Some(group), None, false) => self.start_group(id, group, &user),
            (None, _, _) => {
                let open: usize = rollout
                    .groups
                    .iter()
                    .map(|group| self.group_counts(id, group.id).open)
                    .sum();
                if open == 0 {
                    self.set_state(id, State::Finished, "system");
                }
            }
            (Some(_), _, _) => {}
        }
    }

    fn group_counts(&self, rollout: u64, group: u64) -> Counts {
        let mut counts = Counts::default();
        for action in self.actions.values() {
            if action.rollout != Some((rollout, group)) {
                continue;
            }
            match action.status {
                Status::Finished => counts.finished += 1,
                Status::Downloaded if !action.active => counts.finished += 1,
                Status::Error => counts.failed += 1,
                Status::Canceled => {}
                Status::Running
                | Status::Retrieved
                | Status::Download
                | Status::Downloaded
                | Status::Warning
                | Status::Canceling
                | Status::CancelRejected
                | Status::Waiting
                | Status::Scheduled => counts.open += 1,
            }
        }
        counts
    }

    pub(crate) fn new_rollout(&mut self, body: &Value, request: &Request) -> Answer {
        let text = |pointer: &str, default: &str| {
            let found = body.pointer(pointer).and_then(Value::as_str);
            found.unwrap_or(default).to_owned()
        };
        let set = body["distributionSetId"].as_u64().unwrap_or_default();
        if !self.sets.contains_key(&set) {
            return Err(Fault::missing(
                "DistributionSet",
                &set.to_string(),
                body["distributionSetId"].clone(),
            ));
        }
        let filter = text("/targetFilterQuery", "");
        let stamp = Stamp::new(&self.setup.user, self.now);
        let count = body["amountGroups"].as_u64().unwrap_or(1).max(1);
        let mut groups = Vec::new();
        for index in 0..count {
            let left = u32::try_from(count - index).unwrap_or(1);
            groups.push(Group {
                id: self.next_id("group"),
                name: format!("group-{}", index + 1),
                state: State::Creating,
                percent: 100.0 / f64::from(left),
                members: Vec::new(),
                stamp: stamp.clone(),
            });
        }
        // The last of two is half of the whole in the recordings, not all of the rest.
        let whole = u32::try_from(count).unwrap_or(1);
        for group in &mut groups {
            group.percent = 100.0 / f64::from(whole);
        }
        let rollout = Rollout {
            id: self.next_id("rollout"),
            name: text("/name", "rollout"),
            total: self.members(&filter).len(),
            filter,
            set,
            force: match text("/type", "forced").as_str() {
                "soft" => Force::Soft,
                "downloadonly" => Force::DownloadOnly,
                _ => Force::Forced,
            },
            weight: body["weight"].as_i64().unwrap_or(1000),
            success: text("/successCondition/expression", "50"),
            error: text("/errorCondition/expression", "80"),
            state: State::Creating,
            groups,
            stamp,
        };
        let view = self.rollout_view(&rollout, request);
        self.rollouts.insert(rollout.id, rollout);
        Ok(Good::Json(201, view))
    }

    pub(crate) fn rollout_verb(&mut self, id: u64, verb: &str) -> Answer {
        let illegal = |text: &str| {
            Fault::of(
                400,
                "RolloutIllegalStateException",
                "rollout.illegalState",
                text,
            )
        };
        let state = self.rollouts[&id].state;
        let next = match (verb, state) {
            ("start", State::Ready) => State::Starting,
            ("pause", State::Running) => State::Paused,
            ("resume", State::Paused) => State::Running,
            ("triggerNextGroup", State::Running) => {
                let waiting = self.rollouts[&id]
                    .groups
                    .iter()
                    .position(|group| group.state == State::Scheduled);
                let group = waiting.ok_or_else(|| {
                    illegal("Rollout does not have any groups left to be triggered")
                })?;
                let user = self.setup.user.clone();
                self.start_group(id, group, &user);
                State::Running
            }
            _ => return Err(illegal("Rollout is not in a state that allows this")),
        };
        let user = self.setup.user.clone();
        self.set_state(id, next, &user);
        let old = self.setup.release == super::Release::V0_9_0;
        Ok(Good::Empty(if old { 200 } else { 204 }))
    }

    pub(crate) fn delete_rollout(&mut self, id: u64) {
        self.set_state(id, State::Deleting, "system");
        if self.setup.release == super::Release::V0_9_0 {
            return;
        }
        let open: Vec<u64> = self
            .actions
            .values()
            .filter(|action| action.rollout.is_some_and(|(of, _)| of == id))
            .filter(|action| action.active || action.status == Status::Scheduled)
            .map(|action| action.id)
            .collect();
        for action in open {
            if let Some(action) = self.actions.get_mut(&action) {
                action.active = false;
                action.status = Status::Canceled;
            }
        }
    }
}

#[derive(Debug, Default)]
struct Counts {
    open: usize,
    finished: usize,
    failed: usize,
}

fn exceeds(count: usize, of: usize, percent: &str) -> bool {
    let percent: usize = percent.parse().unwrap_or(100);
    of > 0 && count * 100 > percent * of
}

fn reaches(count: usize, of: usize, percent: &str) -> bool {
    let percent: usize = percent.parse().unwrap_or(100);
    count * 100 >= percent * of
}
