//! Situations that a device can be in, each with its whole explanation as a golden.

use expect_test::expect_file;
use model::failure::{BadObject, Cause, ContainerAtFailure, Failure, Pressure};
use model::progress::message;
use model::{Goal, Manifest, ObjectId, Progress, RevisionId, State, Status};
use serde_json::{Value, json};

use super::tests::{container, status};
use super::{RevisionFacts, explain};
use crate::call::Subject;
use crate::messages::ours::{ContainerStatus, DeviceStatus, Trial};

/// `db` in group data, `cache` and `web` in group app; `web` depends on `cache`.
fn manifest() -> Manifest {
    let run = |name: &str, group: &str, more: Value| {
        let mut run = json!({
            "#spec": "service-manifest-run@1", "name": name, "type": "oci", "root-volume": "root.squashfs",
            "command": ["/run"], "group": group, "status_goal": "READY",
        });
        for (key, value) in more.as_object().unwrap() {
            run[key] = value.clone();
        }
        run
    };
    let group = |name: &str| json!({"name": name, "status_goal": "STARTED", "restart_policy": "container", "timeout": 30});
    let image = "1".repeat(64);
    let text = json!({
        "#spec": "pantavisor-service-system@1",
        "device.json": {"groups": [group("data"), group("app")]},
        "db/run.json": run("db", "data", json!({"resources": {"memory": "64M"}})),
        "db/root.squashfs": image,
        "cache/run.json": run("cache", "app", json!({})),
        "cache/root.squashfs": image,
        "web/run.json": run("web", "app", json!({"depends-on": ["cache"]})),
        "web/root.squashfs": image,
    });
    Manifest::parse(text.to_string().as_bytes()).unwrap()
}

fn device() -> DeviceStatus {
    let mut status = status();
    status.groups[0].name = "data".parse().unwrap();
    status.containers = vec![
        container("db", "data", Status::Ready, Goal::Ready),
        container("cache", "app", Status::Ready, Goal::Ready),
        container("web", "app", Status::Ready, Goal::Ready),
    ];
    status
}

fn named<'a>(status: &'a mut DeviceStatus, name: &str) -> &'a mut ContainerStatus {
    let found = status.containers.iter_mut();
    found
        .into_iter()
        .find(|it| it.name.as_str() == name)
        .unwrap()
}

fn down(status: &mut DeviceStatus, name: &str, is: Status, reason: &str) {
    let container = named(status, name);
    container.status = is;
    container.good = false;
    container.pid = None;
    container.uptime_s = None;
    container.reason = reason.to_owned();
}

/// The database was killed for memory three times; all others wait for it.
fn out_of_memory() -> DeviceStatus {
    let mut status = device();
    down(
        &mut status,
        "db",
        Status::Recovering,
        "retry 3 of 5 in 20 s after exit code 137 (out of memory)",
    );
    let db = named(&mut status, "db");
    (db.exit_code, db.out_of_memory, db.restarts, db.retries) = (Some(137), true, 2, 3);
    down(
        &mut status,
        "cache",
        Status::Blocked,
        "waits for group data: db is RECOVERING, goal READY",
    );
    down(
        &mut status,
        "web",
        Status::Blocked,
        "waits for group data: db is RECOVERING, goal READY",
    );
    status
}

/// The cache runs and is not ready; web depends on it.
fn unhealthy() -> DeviceStatus {
    let mut status = device();
    let cache = named(&mut status, "cache");
    cache.status = Status::Started;
    cache.good = false;
    cache.reason = "started 9 s ago and not ready: health check says connection refused".to_owned();
    cache.health_problem = Some("connection refused".to_owned());
    down(
        &mut status,
        "web",
        Status::Blocked,
        "depends on cache, which is STARTED, goal READY",
    );
    status
}

fn failure(cause: Cause, container: Option<&str>) -> Failure {
    Failure {
        containers: vec![ContainerAtFailure {
            name: "web".parse().unwrap(),
            status: Status::Blocked,
            goal: Goal::Ready,
            retries: 0,
            exit_code: None,
        }],
        log: vec!["last words".to_owned()],
        pressure: Pressure::default(),
        ..super::tests::failure(cause, container)
    }
}

/// What is known of a revision, owned.
#[derive(Default)]
struct Known {
    progress: Option<Progress>,
    failure: Option<Failure>,
    missing: Vec<BadObject>,
}

fn told(page: &mut String, title: &str, status: &DeviceStatus, known: &Known, subject: &str) {
    let manifest = manifest();
    let facts = RevisionFacts {
        progress: known.progress.as_ref(),
        failure: known.failure.as_ref(),
        running: Some(&manifest),
        manifest: Some(&manifest),
        missing: &known.missing,
    };
    let subject = match subject {
        "device" => Subject::Device,
        name => match name.parse::<RevisionId>() {
            Ok(revision) => Subject::Revision(revision),
            Err(_) => Subject::Container(name.parse().unwrap()),
        },
    };
    *page += &format!("# {title}\n");
    let Some(why) = explain(status, &facts, &subject) else {
        *page += "not found\n\n";
        return;
    };
    *page += &format!("{}\n", why.summary);
    let mut links = why.chain.iter().peekable();
    for line in &why.because {
        // Lines of the chain stand as deep as they are.
        let depth = match links.next_if(|link| link.text == *line) {
            Some(link) => link.depth as usize,
            None => 0,
        };
        *page += &format!("  because {}{line}\n", "  ".repeat(depth));
    }
    for line in &why.remedy {
        *page += &format!("  remedy  {line}\n");
    }
    page.push('\n');
}

#[test]
fn situations() {
    let mut page = String::new();
    let nothing = Known::default();
    let mut of = |title: &str, status: &DeviceStatus, subject: &str| {
        told(&mut page, title, status, &nothing, subject);
    };
    of("all is well: device", &device(), "device");
    of("all is well: container", &device(), "web");
    of("all is well: group", &device(), "app");
    of(
        "killed for memory: what waits for its group",
        &out_of_memory(),
        "web",
    );
    of("killed for memory: itself", &out_of_memory(), "db");
    of("killed for memory: its group", &out_of_memory(), "data");
    of(
        "killed for memory: the group that waits",
        &out_of_memory(),
        "app",
    );
    of("killed for memory: the device", &out_of_memory(), "device");
    let mut machine = out_of_memory();
    named(&mut machine, "cache").out_of_memory = true;
    named(&mut machine, "cache").exit_code = Some(137);
    of("killed for memory without a limit", &machine, "cache");
    of("not ready: what depends on it", &unhealthy(), "web");
    of("not ready: itself", &unhealthy(), "cache");
    let mut stopped = device();
    down(&mut stopped, "cache", Status::Stopped, "stopped on request");
    named(&mut stopped, "cache").user_stopped = true;
    named(&mut stopped, "cache").good = true;
    of("stopped by a person", &stopped, "cache");
    let mut gave_up = device();
    down(
        &mut gave_up,
        "db",
        Status::Stopped,
        "exit code 1; all 5 retries are used up",
    );
    let db = named(&mut gave_up, "db");
    (db.exit_code, db.restarts, db.retries) = (Some(1), 5, 5);
    of("gave up", &gave_up, "db");
    let mut signal = device();
    down(
        &mut signal,
        "db",
        Status::Recovering,
        "retry 1 of 5 in 5 s after exit code 139",
    );
    named(&mut signal, "db").exit_code = Some(139);
    named(&mut signal, "db").retries = 1;
    of("ended by a signal", &signal, "db");
    let mut failed_start = device();
    let reason = "retry 2 of 5 in 10 s after a start that failed: no such file: /run";
    down(&mut failed_start, "web", Status::Recovering, reason);
    named(&mut failed_start, "web").retries = 2;
    of("could not be started", &failed_start, "web");
    let mut came_back = device();
    (
        named(&mut came_back, "db").exit_code,
        named(&mut came_back, "db").restarts,
    ) = (Some(1), 1);
    of("runs again after an end", &came_back, "db");
    let mut away = device();
    away.runtime_problem = Some("connection refused".to_owned());
    of("the run time is away", &away, "web");
    of("unknown container", &device(), "nobody");
    of("unknown revision", &device(), "locals/nobody");
    of("the running revision", &device(), "locals/two");
    revisions(&mut page);
    assert!(page.matches("# ").count() >= 32);
    expect_file!["situations.txt"].assert_eq(&page);
}

fn revisions(page: &mut String) {
    let progress = |state, text| Some(Progress::new(state, text, 0));
    let exited = |out_of_memory| Cause::Exited {
        code: 137,
        out_of_memory,
        damaged: None,
        uptime_s: 4,
    };
    let missing: Vec<_> = (0..5)
        .map(|number: usize| BadObject {
            object: ObjectId::of(&number.to_le_bytes()),
            key: format!("web/layer{number}"),
            problem: "missing".to_owned(),
        })
        .collect();
    let new = || Known {
        progress: progress(State::New, message::READY_TO_RUN),
        ..Known::default()
    };
    let failed = |cause, container| Known {
        progress: progress(State::Error, message::CONTAINER_NOT_STARTED),
        failure: Some(failure(cause, container)),
        ..Known::default()
    };
    let trial = |revision: &str| {
        let mut status = out_of_memory();
        status.trial = Some(Trial {
            revision: revision.parse().unwrap(),
            phase: "starting".to_owned(),
            tries_left: 2,
            commit_in_s: None,
        });
        status
    };
    let (three, four) = ("locals/three", "locals/four");
    let mut of = |title: &str, status: &DeviceStatus, known: &Known, subject: &str| {
        told(page, title, status, known, subject);
    };
    of("never run", &device(), &new(), four);
    let lacks = Known { missing, ..new() };
    of("never run, objects are missing", &device(), &lacks, four);
    let before = Known {
        failure: Some(failure(exited(true), Some("db"))),
        ..new()
    };
    of(
        "never run, the same manifest failed before",
        &device(),
        &before,
        four,
    );
    let wants = || Known {
        progress: progress(State::InProgress, message::TRYING),
        ..Known::default()
    };
    of("waits for another one", &trial(three), &wants(), four);
    of("being tried", &trial(four), &wants(), four);
    of("under way", &device(), &wants(), four);
    for text in [message::NOT_FOUND, message::BAD_FORMAT, message::ABORTED] {
        let known = Known {
            progress: progress(State::WontGo, text),
            ..Known::default()
        };
        of("refused", &device(), &known, four);
    }
    let memory = failed(exited(true), Some("db"));
    of("rolled back, killed for memory", &device(), &memory, three);
    of(
        "rolled back, ended",
        &device(),
        &failed(exited(false), Some("db")),
        three,
    );
    let goal = Cause::GoalNotReached {
        goal: Goal::Ready,
        status: Status::Started,
        timeout_s: 30,
        probe: None,
    };
    of(
        "rolled back, never ready",
        &device(),
        &failed(goal, Some("web")),
        three,
    );
    let tries = Cause::TriesUsedUp { tries: 3 };
    of(
        "rolled back, tries used up",
        &device(),
        &failed(tries, None),
        three,
    );
    of(
        "rolled back on request",
        &device(),
        &failed(Cause::Asked, None),
        three,
    );
}

/// A manifest that names itself cannot be parsed, but the chain must end on any status.
#[test]
fn cycles_and_long_chains_end() {
    let mut status = device();
    for name in ["db", "cache", "web"] {
        down(&mut status, name, Status::Blocked, "waits");
    }
    status.groups.reverse();
    let many: Vec<_> = (0..200)
        .map(|number| {
            let mut one = container(&format!("c{number}"), "app", Status::Blocked, Goal::Ready);
            one.good = false;
            one
        })
        .collect();
    status.containers.extend(many);
    let manifest = manifest();
    let facts = RevisionFacts {
        progress: None,
        failure: None,
        running: Some(&manifest),
        manifest: None,
        missing: &[],
    };
    for subject in [Subject::Device, Subject::Container("db".parse().unwrap())] {
        let why = explain(&status, &facts, &subject).unwrap();
        assert!(why.chain.len() <= 64, "{}", why.chain.len());
    }
}
