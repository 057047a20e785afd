//! The device on one screen: from the loop's view to what `GET /status` and `GET /healthz` say. Pure.

use api::explain;
use api::messages::ours::{Condition, ContainerStatus, DeviceStatus, GroupStatus, Storage, Trial};
use device::handle::{ContainerView, View};
use model::failure::Failure;
use model::{Goal, Instant, Status, WallTime};
use store::SpaceLeft;

/// Renders the status.
pub fn render(
    view: &View,
    now: Instant,
    wall: WallTime,
    space: Option<SpaceLeft>,
    failure: Option<&Failure>,
) -> DeviceStatus {
    let containers: Vec<_> = view
        .containers
        .iter()
        .map(|one| container(one, now))
        .collect();
    DeviceStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        time: wall.to_string(),
        uptime_s: now.since(Instant::ZERO).as_secs(),
        condition: condition(view, &containers),
        running: view.running.clone(),
        manifest: view.manifest,
        committed: view.committed.clone(),
        previous: view.previous.clone(),
        trial: view.trial.as_ref().map(|trial| Trial {
            revision: trial.revision.clone(),
            phase: trial.phase.to_owned(),
            tries_left: trial.tries_left,
            commit_in_s: trial.commit_at.map(|at| at.since(now).as_secs()),
        }),
        groups: view
            .groups
            .iter()
            .map(|group| GroupStatus {
                name: group.name.clone(),
                goal: group.goal,
                status: group.status,
                containers: containers
                    .iter()
                    .filter(|one| one.group == group.name)
                    .count(),
            })
            .collect(),
        containers,
        storage: space.map(|space| Storage {
            total_bytes: space.total,
            free_bytes: space.free,
        }),
        last_failure: failure.map(explain::summary),
        runtime_problem: view.runtime_problem.clone(),
        notices: view.notices.clone(),
    }
}

fn container(view: &ContainerView, now: Instant) -> ContainerStatus {
    let reached = match view.goal {
        Goal::Mounted => view.status == Status::Mounted,
        Goal::Started => matches!(view.status, Status::Started | Status::Ready),
        Goal::Ready => view.status == Status::Ready,
    };
    ContainerStatus {
        name: view.name.clone(),
        group: view.group.clone(),
        status: view.status,
        goal: view.goal,
        good: reached || view.user_stopped,
        restart_policy: view.restart_policy,
        roles: view.roles.iter().map(|role| (*role).to_owned()).collect(),
        recovery: view.recovery.policy,
        retries: view.recovery.current_retries,
        max_retries: view.recovery.max_retries,
        stable: view.recovery.is_stable,
        user_stopped: view.user_stopped,
        pid: view.pid,
        uptime_s: view
            .started_at
            .filter(|_| view.pid.is_some())
            .map(|started| now.since(started).as_secs()),
        restarts: view.restarts,
        exit_code: view.exit_code,
        out_of_memory: view.out_of_memory,
        damaged: view.damaged,
        reason: view.reason.clone(),
        health_problem: view.health_problem.clone(),
        fingerprint: view.fingerprint,
    }
}

fn condition(view: &View, containers: &[ContainerStatus]) -> Condition {
    if view.shutting_down {
        return Condition::ShuttingDown;
    }
    if view.running.is_none() {
        return Condition::Starting;
    }
    if view.trial.is_some() {
        return Condition::Updating;
    }
    if view.runtime_problem.is_some() {
        return Condition::Degraded;
    }
    let sick = containers.iter().filter(|one| !one.good).any(|one| {
        one.health_problem.is_some()
            || one.retries > 0
            || matches!(
                one.status,
                Status::Recovering | Status::Stopping | Status::Stopped
            )
    });
    if sick {
        Condition::Degraded
    } else if containers.iter().all(|one| one.good) {
        Condition::Good
    } else {
        Condition::Starting
    }
}

/// What is wrong, in words; empty when the device does what it should.
pub fn problems(status: &DeviceStatus) -> Vec<String> {
    let mut problems = Vec::new();
    if let Some(problem) = &status.runtime_problem {
        problems.push(format!("the run time does not answer: {problem}"));
    }
    match status.condition {
        Condition::Good | Condition::Updating => {}
        Condition::ShuttingDown => problems.push("the device is shutting down".to_owned()),
        Condition::Starting | Condition::Degraded => {
            if status.running.is_none() {
                problems.push("no revision runs yet".to_owned());
            }
            for container in status.containers.iter().filter(|container| !container.good) {
                problems.push(format!(
                    "container {} is {} and not {}",
                    container.name, container.status, container.goal
                ));
            }
        }
    }
    problems
}
