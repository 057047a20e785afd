//! What is told about containers and groups: status, numbers, and the reason in words.

use std::sync::Arc;

use model::container::{Container, Group};
use model::failure::{Cause, ContainerAtFailure};
use model::{ContainerName, Goal, GroupName, Instant, ObjectId, Status};

use super::reconcile::Wait;
use super::{Containers, Entry, Outcome, Run};

/// A container of the target, as shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// What it is.
    pub spec: Arc<Container>,
    /// Where it is.
    pub status: Status,
    /// Retries used.
    pub retries: u32,
    /// Whether it has run its stable time.
    pub is_stable: bool,
    /// Whether a person stopped it.
    pub user_stopped: bool,
    /// First process.
    pub pid: Option<u32>,
    /// When it was started last.
    pub started_at: Option<Instant>,
    /// Starts since the revision began to run, minus one.
    pub restarts: u32,
    /// Exit code of its last end.
    pub exit_code: Option<u32>,
    /// Whether its last end was a kill because it used more memory than it may.
    pub out_of_memory: bool,
    /// The object of its root file system of which a block did not match its hash when it ended last.
    pub damaged: Option<ObjectId>,
    /// Why it is not further, in words; empty when it has reached its goal.
    pub reason: String,
    /// What the last health check said when it failed.
    pub health_problem: Option<String>,
}

/// A group of the target, as shown.
#[derive(Debug, Clone, PartialEq)]
pub struct ShownGroup {
    /// What it is.
    pub group: Group,
    /// READY when every member has reached its own goal, else the lowest status of those that have not.
    pub status: Status,
    /// It was let pass although it had not reached its goal in time.
    pub timed_out: bool,
}

impl Containers {
    /// Containers of the target, text order.
    pub fn shown(&self, now: Instant) -> Vec<Shown> {
        self.order
            .iter()
            .filter_map(|name| {
                let entry = self.entries.get(name)?;
                let spec = entry.spec.clone()?;
                let (pid, started_at) = match &entry.run {
                    Run::Running { pid, since, .. } => (Some(*pid), Some(*since)),
                    Run::Absent
                    | Run::Starting { .. }
                    | Run::Mounted { .. }
                    | Run::Ended { .. }
                    | Run::Stopping { .. } => (None, None),
                };
                Some(Shown {
                    status: self.status(name),
                    retries: entry.retries,
                    is_stable: entry.stable_at().map_or(entry.was_stable, |at| now >= at),
                    user_stopped: entry.user_stopped,
                    pid,
                    started_at,
                    restarts: entry.starts.saturating_sub(1),
                    exit_code: entry.exit.map(|exit| exit.code),
                    out_of_memory: entry.exit.is_some_and(|exit| exit.out_of_memory),
                    damaged: entry.exit.and_then(|exit| exit.damaged),
                    reason: self.reason(name, entry, &spec, now),
                    health_problem: entry.problem(),
                    spec,
                })
            })
            .collect()
    }

    /// Groups of the target, start order.
    pub fn shown_groups(&self) -> Vec<ShownGroup> {
        self.groups
            .iter()
            .map(|run| ShownGroup {
                status: self.group_status(&run.group.name),
                group: run.group.clone(),
                timed_out: run.timed_out,
            })
            .collect()
    }

    fn group_status(&self, group: &GroupName) -> Status {
        self.entries
            .iter()
            .filter(|(_, entry)| {
                let member = entry.spec.as_ref().is_some_and(|spec| spec.group == *group);
                member && !entry.reached()
            })
            .map(|(name, _)| self.status(name))
            .min()
            .unwrap_or(Status::Ready)
    }

    /// What a failure record tells about every container of the target.
    pub fn at_failure(&self) -> Vec<ContainerAtFailure> {
        self.order
            .iter()
            .filter_map(|name| {
                let entry = self.entries.get(name)?;
                Some(ContainerAtFailure {
                    name: name.clone(),
                    status: self.status(name),
                    goal: entry.spec.as_ref()?.goal,
                    retries: entry.retries,
                    exit_code: entry.exit.map(|exit| exit.code),
                })
            })
            .collect()
    }

    /// Where a container is; [`Status::None`] when it is not known.
    pub fn status(&self, name: &ContainerName) -> Status {
        let Some(entry) = self.entries.get(name) else {
            return Status::None;
        };
        match (&entry.run, &entry.outcome) {
            (Run::Starting { .. }, _) => Status::Starting,
            (Run::Mounted { .. }, _) => Status::Mounted,
            (Run::Running { ready: true, .. }, _) => Status::Ready,
            (Run::Running { ready: false, .. }, _) => Status::Started,
            // What is left of an ended container is being cleared away: that is no news to anybody.
            (_, Outcome::GaveUp { .. } | Outcome::Completed { .. }) => Status::Stopped,
            (_, Outcome::Waiting { .. }) if !entry.user_stopped => Status::Recovering,
            (Run::Stopping { .. }, _) => Status::Stopping,
            (Run::Absent | Run::Ended { .. }, _) if entry.user_stopped => Status::Stopped,
            (Run::Absent | Run::Ended { .. }, _) => {
                let blocked = match entry.spec.as_ref().and_then(|spec| self.wait(spec)) {
                    Some(Wait::Group(_) | Wait::Dependency(_)) => true,
                    Some(Wait::RuntimeAway | Wait::Removal(_)) | None => false,
                };
                if blocked {
                    Status::Blocked
                } else {
                    Status::Installed
                }
            }
        }
    }

    fn reason(
        &self,
        name: &ContainerName,
        entry: &Entry,
        spec: &Container,
        now: Instant,
    ) -> String {
        if entry.user_stopped {
            return "stopped on request".to_owned();
        }
        match &entry.outcome {
            Outcome::Going => self.reason_to_wait(name, entry, spec, now),
            Outcome::Completed { .. } => {
                "ended with exit code 0; its policy is not to start it again then".to_owned()
            }
            Outcome::GaveUp { cause } if entry.retries == 0 => {
                format!("{}; its policy is not to start it again", in_words(cause))
            }
            Outcome::GaveUp { cause } => {
                format!(
                    "{}; all {} retries are used up",
                    in_words(cause),
                    entry.retries
                )
            }
            Outcome::Waiting {
                until,
                retry: Some(retry),
                cause,
            } => {
                let of = match spec.recovery.max_retries {
                    0 => String::new(),
                    max => format!(" of {max}"),
                };
                format!(
                    "retry {retry}{of} {} after {}",
                    wait_words(*until, now),
                    in_words(cause)
                )
            }
            Outcome::Waiting {
                until,
                retry: None,
                cause,
            } => format!(
                "retries are used up and start over {} after {}",
                wait_words(*until, now),
                in_words(cause)
            ),
        }
    }

    fn reason_to_wait(
        &self,
        name: &ContainerName,
        entry: &Entry,
        spec: &Container,
        now: Instant,
    ) -> String {
        match &entry.run {
            Run::Starting { .. } => "being started".to_owned(),
            Run::Stopping {
                sick: Some((problem, _)),
                ..
            } => {
                format!("being stopped because its health check fails: {problem}")
            }
            Run::Stopping { .. } => "being stopped".to_owned(),
            Run::Running {
                ready: false,
                since,
                ..
            } if spec.goal == Goal::Ready => {
                let seconds = now.since(*since).as_secs();
                match entry.problem() {
                    Some(problem) => format!(
                        "started {seconds} s ago and not ready: health check says {problem}"
                    ),
                    None => format!("started {seconds} s ago and has not said that it is ready"),
                }
            }
            Run::Running { .. } | Run::Mounted { .. } => match entry.problem() {
                Some(problem) => format!("its health check fails: {problem}"),
                None => String::new(),
            },
            Run::Absent | Run::Ended { .. } => self.waiting_words(name, spec),
        }
    }

    fn waiting_words(&self, name: &ContainerName, spec: &Container) -> String {
        match self.wait(spec) {
            None => "about to be started".to_owned(),
            Some(Wait::RuntimeAway) => "waits for the container run time to answer".to_owned(),
            Some(Wait::Removal(other)) => {
                format!("waits until {other} has stopped, which is not part of the revision")
            }
            Some(Wait::Dependency(dep)) => {
                let goal = self.goal_of(&dep);
                format!(
                    "depends on {dep}, which is {}, goal {goal}",
                    self.status(&dep)
                )
            }
            Some(Wait::Group(group)) => {
                let blocking = self.order.iter().find(|other| {
                    *other != name
                        && self.entries.get(*other).is_some_and(|entry| {
                            !entry.reached()
                                && entry.spec.as_ref().is_some_and(|spec| spec.group == group)
                        })
                });
                match blocking {
                    Some(other) => format!(
                        "waits for group {group}: {other} is {}, goal {}",
                        self.status(other),
                        self.goal_of(other)
                    ),
                    None => format!("waits for group {group}"),
                }
            }
        }
    }

    fn goal_of(&self, name: &ContainerName) -> Goal {
        self.entries
            .get(name)
            .and_then(|entry| entry.spec.as_ref())
            .map_or(Goal::Started, |spec| spec.goal)
    }
}

fn wait_words(until: Instant, now: Instant) -> String {
    if until > now {
        format!("in {} s", until.since(now).as_millis().div_ceil(1000))
    } else {
        "as soon as it may start,".to_owned()
    }
}

/// What happened, in words that fit after "after".
pub(crate) fn in_words(cause: &Cause) -> String {
    match cause {
        Cause::Exited {
            code,
            damaged: Some(object),
            ..
        } => format!(
            "exit code {code} (a block of object {} does not match its hash)",
            object.short()
        ),
        Cause::Exited {
            code,
            out_of_memory: false,
            ..
        } => format!("exit code {code}"),
        Cause::Exited {
            code,
            out_of_memory: true,
            ..
        } => format!("exit code {code} (out of memory)"),
        Cause::StartFailed { error } => format!("a start that failed: {error}"),
        Cause::GoalNotReached {
            goal,
            status,
            timeout_s,
            ..
        } => format!("goal {goal} not reached in {timeout_s} s (it was {status})"),
        Cause::Unhealthy { probe } => format!("a health check that failed: {probe}"),
        Cause::BadObjects { objects } => format!("{} bad object(s)", objects.len()),
        Cause::TriesUsedUp { tries } => format!("{tries} tries that never came to an end"),
        Cause::UnexpectedRollback => "the boot loader started another revision".to_owned(),
        Cause::BadManifest { error } => format!("a manifest that cannot be read: {error}"),
        Cause::Asked => "a request to roll back".to_owned(),
        Cause::Internal { error } => format!("an internal error: {error}"),
    }
}
