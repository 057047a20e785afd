//! Containers and groups of the running revision. Lists are rendered once per view, not once per request.

use std::sync::Arc;

use api::messages::pantavisor::{AutoRecovery, Container, Group, GroupRecovery, backoff_text};
use api::{Code, Problem, call};
use device::handle::{ContainerView, GroupView, Request, View};
use model::ContainerName;
use model::container::{RecoveryPolicy, RestartPolicy};

use super::Asked;
use crate::callers::Caller;
use crate::http1::answer::Answer;
use crate::refusal;

pub(super) fn list(asked: &Asked<'_, '_>) -> Result<Answer, Problem> {
    let view = asked.view()?;
    Ok(Answer::json(
        asked.shared.rendered.containers(&view, render_containers),
    ))
}

pub(super) fn groups(asked: &Asked<'_, '_>) -> Result<Answer, Problem> {
    let view = asked.view()?;
    Ok(Answer::json(
        asked.shared.rendered.groups(&view, render_groups),
    ))
}

fn render_containers(view: &Arc<View>) -> Vec<u8> {
    let containers: Vec<Container> = view.containers.iter().map(container).collect();
    serde_json::to_vec(&containers).expect("messages have text keys and finite numbers")
}

fn render_groups(view: &Arc<View>) -> Vec<u8> {
    let groups: Vec<Group> = view.groups.iter().map(group).collect();
    serde_json::to_vec(&groups).expect("messages have text keys and finite numbers")
}

fn container(view: &ContainerView) -> Container {
    let recovery = &view.recovery;
    let auto_recovery = match recovery.policy {
        RecoveryPolicy::No => None,
        RecoveryPolicy::Always | RecoveryPolicy::OnFailure | RecoveryPolicy::UnlessStopped => {
            Some(AutoRecovery {
                policy: recovery.policy,
                max_retries: recovery.max_retries,
                current_retries: recovery.current_retries,
                stable_timeout: recovery.stable_timeout.as_secs(),
                is_stable: recovery.is_stable.into(),
                backoff_policy: backoff_text(recovery.backoff),
            })
        }
    };
    let user_stopped = match view.restart_policy {
        RestartPolicy::System => None,
        RestartPolicy::Container => Some(view.user_stopped.into()),
    };
    Container {
        name: view.name.clone(),
        group: view.group.clone(),
        status: view.status,
        status_goal: view.goal,
        restart_policy: view.restart_policy,
        roles: view.roles.iter().map(|role| (*role).to_owned()).collect(),
        auto_recovery,
        user_stopped,
    }
}

fn group(view: &GroupView) -> Group {
    Group {
        name: view.name.clone(),
        status_goal: view.goal,
        restart_policy: view.restart_policy,
        status: view.status,
        auto_recovery: view
            .recovery
            .map(|(max_retries, stable, backoff)| GroupRecovery {
                max_retries,
                stable_timeout: stable.as_secs(),
                backoff_policy: backoff_text(backoff),
            }),
    }
}

/// The checks run in Pantavisor's order: name, policy, body.
pub(super) async fn control(
    asked: &mut Asked<'_, '_>,
    name: Option<ContainerName>,
) -> Result<Answer, Problem> {
    let view = asked.view()?;
    let unknown = || Problem::new(Code::NoSuchContainer, "no container can have this name");
    let name = name.ok_or_else(unknown)?;
    let container = view
        .containers
        .iter()
        .find(|container| container.name == name)
        .ok_or_else(|| refusal::problem(device::handle::Refusal::NoSuchContainer(name.clone())))?;
    if container.restart_policy == RestartPolicy::System {
        return Err(refusal::problem(device::handle::Refusal::SystemContainer(
            name,
        )));
    }
    let body = asked.whole_body().await?;
    if body.is_empty() {
        return Err(Problem::new(Code::NoAction, "there is no body").pantavisor("No data"));
    }
    let action = refusal::action(call::parse_action(&body)?);
    asked
        .ask(Request::Control {
            container: name,
            action,
        })
        .await?;
    Ok(Answer::done())
}

pub(super) async fn signal(asked: &mut Asked<'_, '_>) -> Result<Answer, Problem> {
    let body = asked.whole_body().await?;
    call::parse_signal(&body)?;
    let name = match asked.caller {
        Caller::Container(name) => name.clone(),
        Caller::Host { .. } | Caller::Unknown => {
            return Err(Problem::new(
                Code::SignalNotExpected,
                "the signal came from the host and not from a container",
            ));
        }
    };
    asked.view()?;
    asked.ask(Request::Ready(name)).await?;
    Ok(Answer::done())
}
