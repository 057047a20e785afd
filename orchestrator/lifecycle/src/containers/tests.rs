//! What lists, lost events and changed versions do; whole lives are in `device/tests/lives`.

use std::collections::BTreeMap;
use std::time::Duration;

use model::container::{BackoffPolicy, Oci, Persistence, Recovery, RestartPolicy, Roles, Volume};
use model::{GroupName, ObjectId, Status};

use super::*;
use crate::runtime::{Condition, Found, RuntimeEvent, StartSpec};

fn name(text: &str) -> ContainerName {
    text.parse().unwrap()
}

fn group() -> GroupName {
    "app".parse().unwrap()
}

fn spec(container: &str, version: u8, goal: Goal) -> Arc<Container> {
    Arc::new(Container {
        name: name(container),
        kind: Kind::Oci(Box::<Oci>::default()),
        group: group(),
        goal,
        goal_timeout: Duration::from_secs(30),
        restart_policy: RestartPolicy::Container,
        roles: Roles {
            given: false,
            mgmt: false,
            monitor: false,
        },
        recovery: Recovery {
            policy: RecoveryPolicy::OnFailure,
            max_retries: 5,
            retry_delay: Duration::from_secs(5),
            backoff_factor: 2.0,
            reset_window: Duration::from_secs(300),
            stable_timeout: Duration::from_secs(30),
            backoff: BackoffPolicy::Never,
        },
        recovery_given: true,
        root: None,
        volumes: vec![Volume {
            name: "lxc-overlay".to_owned(),
            path: None,
            persistence: Persistence::Revision,
            disk: None,
        }],
        overlays: BTreeMap::new(),
        depends_on: Vec::new(),
        stop_signal: 15,
        stop_timeout: Duration::from_secs(10),
        fingerprint: ObjectId::of(&[version]),
    })
}

fn target(revision: &str, containers: &[Arc<Container>]) -> Target {
    Target {
        revision: revision.parse().unwrap(),
        groups: vec![Group {
            name: group(),
            description: String::new(),
            goal: Goal::Started,
            restart_policy: RestartPolicy::Container,
            timeout: Duration::from_secs(30),
            recovery: None,
        }],
        containers: containers.to_vec(),
    }
}

/// Commands in short, instances by container and generation.
fn commands(containers: &mut Containers, now: u64) -> Vec<String> {
    let short = |instance: &Instance| format!("{}#{}", instance.container, instance.generation);
    containers
        .reconcile(Instant(now))
        .iter()
        .map(|command| match command {
            RuntimeCommand::List => "list".to_owned(),
            RuntimeCommand::Mount(StartSpec { instance, .. }) => {
                format!("mount {}", short(instance))
            }
            RuntimeCommand::Start(StartSpec {
                instance, revision, ..
            }) => {
                format!("start {} for {revision}", short(instance))
            }
            RuntimeCommand::Stop { instance, .. } => format!("stop {}", short(instance)),
            RuntimeCommand::MarkReady(instance) => format!("ready {}", short(instance)),
            RuntimeCommand::Probe { instance, .. } => format!("probe {}", short(instance)),
        })
        .collect()
}

fn instance(container: &str, version: u8, generation: u64) -> Instance {
    Instance {
        container: name(container),
        fingerprint: ObjectId::of(&[version]),
        generation,
    }
}

fn found(container: &str, version: u8, generation: u64, condition: Condition) -> Found {
    Found {
        instance: instance(container, version, generation),
        revision: "locals/old".parse().unwrap(),
        condition,
        ready: true,
    }
}

const UP: Condition = Condition::Running {
    pid: 7,
    uptime: Duration::from_secs(60),
};

fn started(containers: &mut Containers, now: u64, instance: Instance) {
    containers.handle(Instant(now), RuntimeEvent::Started { instance, pid: 1 });
}

fn listed(containers: &mut Containers, now: u64, found: Vec<Found>) {
    containers.handle(Instant(now), RuntimeEvent::Listed(found));
}

#[test]
fn what_is_found_is_adopted_replaced_or_stopped() {
    let mut containers = Containers::new(Instant(0), 5);
    assert_eq!(commands(&mut containers, 0), ["list"]);
    listed(
        &mut containers,
        10,
        vec![
            found("same", 1, 40, UP),
            found("same", 1, 39, UP),
            found("changed", 1, 41, UP),
            found("gone", 1, 42, UP),
        ],
    );
    assert_eq!(
        commands(&mut containers, 20),
        ["stop same#39"],
        "nothing else before it is decided what runs"
    );
    let specs = [
        spec("same", 1, Goal::Ready),
        spec("changed", 2, Goal::Started),
        spec("new", 1, Goal::Started),
    ];
    containers.set_target(&target("locals/new", &specs), Mode::Normal, Instant(20));
    assert_eq!(containers.status(&name("same")), Status::Ready);
    assert_eq!(
        commands(&mut containers, 30),
        ["stop gone#42"],
        "it must go first"
    );
    let stopped = RuntimeEvent::Stopped(instance("gone", 1, 42));
    containers.handle(Instant(40), stopped);
    assert_eq!(
        commands(&mut containers, 40),
        ["stop changed#41", "start new#1066 for locals/new"],
        "numbers go on clear of the highest that was found"
    );
    let stopped = RuntimeEvent::Stopped(instance("changed", 1, 41));
    containers.handle(Instant(50), stopped);
    assert_eq!(
        commands(&mut containers, 50),
        ["start changed#1067 for locals/new"]
    );
    assert_eq!(
        containers.started_for(&name("same")),
        Some(&"locals/old".parse().unwrap()),
        "an unchanged container keeps its revision volumes"
    );
    assert_eq!(containers.revisions_in_use().len(), 2);
}

#[test]
fn a_changed_version_gets_its_own_volumes_when_the_old_one_is_found_late() {
    for condition in [UP, Condition::Mounted] {
        let mut containers = Containers::new(Instant(0), 5);
        assert_eq!(commands(&mut containers, 0), ["list"]);
        let specs = [spec("changed", 2, Goal::Started)];
        containers.set_target(&target("locals/new", &specs), Mode::Normal, Instant(0));
        listed(
            &mut containers,
            10,
            vec![found("changed", 1, 41, condition)],
        );
        assert_eq!(commands(&mut containers, 10), ["stop changed#41"]);
        let stopped = RuntimeEvent::Stopped(instance("changed", 1, 41));
        containers.handle(Instant(20), stopped);
        assert_eq!(
            commands(&mut containers, 20),
            ["start changed#1065 for locals/new"]
        );
    }
}

#[test]
fn only_what_ran_before_the_list_was_asked_for_can_have_vanished() {
    let mut containers = Containers::new(Instant(0), 0);
    let specs = [spec("a", 1, Goal::Started), spec("b", 1, Goal::Started)];
    containers.set_target(&target("locals/x", &specs), Mode::Normal, Instant(0));
    commands(&mut containers, 0);
    listed(&mut containers, 0, Vec::new());
    assert_eq!(commands(&mut containers, 0).len(), 2);
    started(&mut containers, 5, instance("a", 1, 0));
    containers.handle(Instant(6), RuntimeEvent::Connected);
    started(&mut containers, 7, instance("b", 1, 1));
    // The list was made when `a` was gone and `b` not yet there.
    listed(&mut containers, 8, Vec::new());
    assert_eq!(containers.status(&name("a")), Status::Recovering);
    assert_eq!(containers.status(&name("b")), Status::Started);
    let shown = containers.shown(Instant(8));
    assert_eq!(shown[0].exit_code, Some(255));
    assert_eq!(shown[0].reason, "retry 1 of 5 in 5 s after exit code 255");
}

#[test]
fn events_of_another_run_change_nothing() {
    let mut containers = Containers::new(Instant(0), 0);
    let specs = [spec("a", 1, Goal::Ready)];
    containers.set_target(&target("locals/x", &specs), Mode::Trial, Instant(0));
    commands(&mut containers, 0);
    listed(&mut containers, 0, Vec::new());
    commands(&mut containers, 0);
    let other = instance("a", 1, 99);
    let exit = Exit {
        code: 1,
        out_of_memory: false,
        damaged: None,
    };
    for event in [
        RuntimeEvent::Exited {
            instance: other.clone(),
            exit,
        },
        RuntimeEvent::Stopped(other.clone()),
        RuntimeEvent::StartFailed {
            instance: other.clone(),
            error: "x".to_owned(),
        },
        RuntimeEvent::Started {
            instance: other.clone(),
            pid: 3,
        },
        RuntimeEvent::Probed {
            instance: other,
            outcome: Ok(()),
        },
    ] {
        containers.handle(Instant(1), event);
        assert_eq!(containers.status(&name("a")), Status::Starting);
    }
    // READY may overtake the news of the start.
    containers.ready(&name("a")).unwrap();
    started(&mut containers, 2, instance("a", 1, 0));
    assert_eq!(containers.status(&name("a")), Status::Ready);
    assert_eq!(commands(&mut containers, 2), ["ready a#0", "ready a#0"]);
}

#[test]
fn an_outage_of_the_run_time_is_not_held_against_a_goal() {
    let mut containers = Containers::new(Instant(0), 0);
    let specs = [spec("a", 1, Goal::Ready)];
    containers.set_target(&target("locals/x", &specs), Mode::Trial, Instant(0));
    commands(&mut containers, 0);
    listed(&mut containers, 0, Vec::new());
    commands(&mut containers, 0);
    started(&mut containers, 1, instance("a", 1, 0));
    let away = |containers: &mut Containers, now| {
        let reason = "killed".to_owned();
        containers.handle(Instant(now), RuntimeEvent::Disconnected { reason });
    };
    away(&mut containers, 20_000);
    commands(&mut containers, 60_000);
    assert_eq!(containers.summary(Instant(60_000)).failure, None);
    containers.handle(Instant(70_000), RuntimeEvent::Connected);
    listed(&mut containers, 70_000, vec![found("a", 1, 0, UP)]);
    commands(&mut containers, 79_999);
    assert_eq!(containers.summary(Instant(79_999)).failure, None);
    commands(&mut containers, 80_000);
    let failure = containers.summary(Instant(80_000)).failure.unwrap();
    assert!(matches!(failure.cause, Cause::GoalNotReached { .. }));
    // One that never ends is.
    containers.set_target(&target("locals/x", &specs), Mode::Trial, Instant(80_000));
    commands(&mut containers, 80_000);
    away(&mut containers, 80_000);
    commands(&mut containers, 80_000 + 119_999);
    assert_eq!(containers.summary(Instant(199_999)).failure, None);
    commands(&mut containers, 80_000 + 120_000);
    assert!(containers.summary(Instant(200_000)).failure.is_some());
}

#[test]
fn at_a_normal_boot_a_goal_that_is_missed_holds_nobody_up_for_ever() {
    let mut containers = Containers::new(Instant(0), 0);
    let mut late = spec("late", 1, Goal::Started).as_ref().clone();
    late.group = "late".parse().unwrap();
    let mut target = target("locals/x", &[spec("a", 1, Goal::Ready), Arc::new(late)]);
    let mut second = target.groups[0].clone();
    second.name = "late".parse().unwrap();
    target.groups.push(second);
    containers.set_target(&target, Mode::Normal, Instant(0));
    commands(&mut containers, 0);
    listed(&mut containers, 0, Vec::new());
    assert_eq!(commands(&mut containers, 0), ["start a#0 for locals/x"]);
    started(&mut containers, 1, instance("a", 1, 0));
    assert_eq!(containers.status(&name("late")), Status::Blocked);
    assert_eq!(containers.next_wake(Instant(1)), Some(Instant(30_000)));
    assert_eq!(
        commands(&mut containers, 30_000),
        ["start late#1 for locals/x"]
    );
    assert!(containers.shown_groups()[0].timed_out);
}

#[test]
fn a_goal_may_change_although_the_container_does_not() {
    let mut containers = Containers::new(Instant(0), 0);
    let mounted = target("locals/x", &[spec("a", 1, Goal::Mounted)]);
    containers.set_target(&mounted, Mode::Normal, Instant(0));
    commands(&mut containers, 0);
    listed(&mut containers, 0, Vec::new());
    assert_eq!(commands(&mut containers, 0), ["mount a#0"]);
    let event = RuntimeEvent::Mounted(instance("a", 1, 0));
    containers.handle(Instant(1), event);
    assert!(containers.summary(Instant(1)).reached);
    let started = target("locals/y", &[spec("a", 1, Goal::Started)]);
    containers.set_target(&started, Mode::Normal, Instant(2));
    assert!(!containers.summary(Instant(2)).reached);
    assert_eq!(commands(&mut containers, 2), ["stop a#0"]);
    let event = RuntimeEvent::Stopped(instance("a", 1, 0));
    containers.handle(Instant(3), event);
    assert_eq!(commands(&mut containers, 3), ["start a#1 for locals/x"]);
}
