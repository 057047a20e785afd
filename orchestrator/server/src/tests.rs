//! Shared by the tests beside the code.

#![allow(clippy::unwrap_used, reason = "only tests use this")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use device::handle::{ContainerView, GroupView, RecoveryView, View};
use model::container::{BackoffPolicy, RecoveryPolicy, RestartPolicy};
use model::{Goal, Instant, ObjectId, RevisionId, Status};

/// A folder that is removed with the test.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("coxswain-server-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("the temporary folder can be written");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn container(name: &str, group: &str, goal: Goal, roles: &[&'static str]) -> ContainerView {
    let app = group == "app";
    ContainerView {
        name: name.parse().unwrap(),
        group: group.parse().unwrap(),
        status: match goal {
            Goal::Mounted => Status::Mounted,
            Goal::Started => Status::Started,
            Goal::Ready => Status::Ready,
        },
        goal,
        restart_policy: if app {
            RestartPolicy::Container
        } else {
            RestartPolicy::System
        },
        roles: roles.to_vec(),
        recovery: RecoveryView {
            policy: if app {
                RecoveryPolicy::OnFailure
            } else {
                RecoveryPolicy::No
            },
            max_retries: 5,
            current_retries: 0,
            stable_timeout: Duration::from_secs(30),
            is_stable: true,
            backoff: BackoffPolicy::Reboot,
        },
        user_stopped: false,
        pid: Some(100),
        started_at: Some(Instant(0)),
        restarts: 0,
        exit_code: None,
        out_of_memory: false,
        damaged: None,
        fingerprint: ObjectId::of(name.as_bytes()),
        reason: String::new(),
        health_problem: None,
    }
}

fn group(name: &str, goal: Goal, recovery: bool) -> GroupView {
    GroupView {
        name: name.parse().unwrap(),
        goal,
        restart_policy: if recovery {
            RestartPolicy::Container
        } else {
            RestartPolicy::System
        },
        status: Status::Ready,
        recovery: recovery.then_some((5, Duration::from_secs(30), BackoffPolicy::Reboot)),
    }
}

/// The revision of the recordings, running.
pub(crate) fn view() -> View {
    View {
        running: Some(RevisionId::factory()),
        committed: Some(RevisionId::factory()),
        containers: vec![
            container("pvr-sdk", "platform", Goal::Started, &["mgmt"]),
            container("sensor", "app", Goal::Ready, &[]),
            container("watcher", "app", Goal::Started, &["monitor"]),
            container("web", "app", Goal::Started, &[]),
        ],
        groups: vec![
            group("data", Goal::Mounted, false),
            group("root", Goal::Started, false),
            group("platform", Goal::Started, false),
            group("app", Goal::Started, true),
        ],
        ..View::default()
    }
}
