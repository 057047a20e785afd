//! Revisions that do not come up, or not for long: each is undone in place, says why, and is remembered.

use device::handle::{Command, Refusal, Request};
use model::failure::Cause;

use crate::world::id;
use crate::{NO, READY, settled};

/// A sick revision: its `web`, seconds until it is given up at most, the message, whether the cause is right.
fn is_rolled_back(web: (&str, &str), seconds: u64, message: &str, cause: fn(&Cause) -> bool) {
    let mut rig = settled();
    let (db, web_before) = (rig.pid("db"), rig.pid("web"));
    assert!(web_before.is_some());
    rig.put("locals/three", &[("db", "run", ""), ("web", web.0, web.1)]);
    rig.run("locals/three").unwrap();
    rig.advance(seconds * 1000);
    assert_eq!(
        rig.told("locals/three"),
        format!("ERROR {message}"),
        "{web:?}"
    );
    rig.advance(1000);
    assert_eq!(rig.running(), "locals/one");
    assert_eq!(rig.statuses(), "db=STARTED web=READY", "{web:?}");
    assert_eq!(rig.pid("db"), db, "the unchanged one kept its process");
    assert_eq!(rig.committed().as_deref(), Some("locals/one"));
    assert_eq!(rig.with(|o| o.ending), None, "rolled back in place");
    let failure = rig.failure(1);
    assert!(cause(&failure.cause), "{web:?}: {:?}", failure.cause);
    assert_eq!(failure.container.unwrap().as_str(), "web");
    assert_eq!(failure.rolled_back_to, Some(id("locals/one")));
    assert_eq!(failure.containers.len(), 2);
    assert_eq!(rig.store.failures().unwrap(), [1], "one record");
    assert_eq!(
        rig.run("locals/three"),
        Err(Refusal::FailedBefore {
            revision: id("locals/three"),
            failure: 1
        })
    );
    rig.advance(100_000);
    assert_eq!(rig.running(), "locals/one");
    let again = Command::Run {
        revision: id("locals/three"),
        again: true,
    };
    rig.ask(Request::Command(again)).unwrap();
    assert_eq!(rig.told("locals/three"), "INPROGRESS Trying new revision");
}

#[test]
fn sick_revisions_are_rolled_back_in_place() {
    let start = "A container could not be started";
    let goal = "Status goal not reached";
    let retry = r#","status_goal":"READY","auto_recovery":{"policy":"on-failure","max_retries":1,"retry_delay":1}"#;
    let health =
        r#","status_goal":"READY","health":{"tcp":80,"interval":2,"retries":3,"start-period":4}"#;
    is_rolled_back(("exit 3 0", NO), 1, start, |cause| {
        matches!(cause, Cause::Exited { code: 3, .. })
    });
    is_rolled_back(("exit 3 0", retry), 5, start, |cause| {
        matches!(cause, Cause::Exited { .. })
    });
    is_rolled_back(("fail", retry), 5, start, |cause| {
        matches!(cause, Cause::StartFailed { .. })
    });
    is_rolled_back(("run", READY), 31, goal, |cause| {
        matches!(cause, Cause::GoalNotReached { timeout_s: 30, .. })
    });
    is_rolled_back(("ready 5 9000", retry), 25, start, |cause| {
        matches!(cause, Cause::Exited { uptime_s: 8, .. })
    });
    is_rolled_back(("healthy 9999999", health), 31, goal, |cause| match cause {
        Cause::GoalNotReached { probe, .. } => probe.as_deref() == Some("refused"),
        _ => false,
    });
}

#[test]
fn a_container_that_never_gets_well_is_restarted_and_then_given_up() {
    let mut rig = settled();
    let health = r#","status_goal":"READY","auto_recovery":{"policy":"no"},"health":{"tcp":80,"interval":2,"retries":3,"start-period":0}"#;
    rig.put(
        "locals/two",
        &[("db", "run", ""), ("web", "healthy 99999999", health)],
    );
    rig.run("locals/two").unwrap();
    rig.advance(10_000);
    assert_eq!(rig.told("locals/two"), "ERROR Status goal not reached");
    assert!(matches!(rig.failure(1).cause, Cause::Unhealthy { .. }));
    rig.put(
        "locals/three",
        &[("db", "run", ""), ("web", "healthy 3000", health)],
    );
    rig.run("locals/three").unwrap();
    rig.advance(5000);
    assert_eq!(rig.statuses(), "db=STARTED web=READY");
}

#[test]
fn a_goal_that_is_lost_and_found_starts_the_observation_over() {
    let mut rig = settled();
    let retry = r#","status_goal":"READY","auto_recovery":{"policy":"on-failure","max_retries":0,"retry_delay":1,"backoff_factor":1,"stable_timeout":5}"#;
    // It dies after 20 s, again and again: never long enough for the commit delay.
    rig.put(
        "locals/two",
        &[("db", "run", ""), ("web", "ready 5 20000", retry)],
    );
    rig.run("locals/two").unwrap();
    rig.advance(60_000);
    assert_eq!(
        rig.told("locals/two"),
        "TESTING Awaiting to see if update is stable"
    );
    rig.advance(120_000);
    assert_eq!(
        rig.told("locals/two"),
        "ERROR A container could not be started"
    );
    assert_eq!(rig.running(), "locals/one");
}

#[test]
fn bad_objects_and_manifests_are_refused_before_anything_is_touched() {
    let mut rig = settled();
    let missing = model::ObjectId::of(b"not there");
    let text = String::from_utf8(rig.manifest(&[("db", "run", "")])).unwrap();
    let manifest = text.replace(
        &model::ObjectId::of(b"image").to_string(),
        &missing.to_string(),
    );
    let put = Request::PutRevision {
        revision: id("locals/bad"),
        manifest: manifest.into_bytes(),
    };
    rig.ask(put).unwrap();
    rig.run("locals/bad").unwrap();
    rig.advance(100);
    assert_eq!(rig.told("locals/bad"), "ERROR Object validation went wrong");
    assert!(rig.take_log().is_empty());
    assert!(matches!(&rig.failure(1).cause, Cause::BadObjects { objects } if objects.len() == 1));
    // With the object in place the same request works.
    rig.object(b"not there");
    rig.run("locals/bad").unwrap();
    rig.advance(60_000);
    assert_eq!(rig.committed().as_deref(), Some("locals/bad"));
    assert_eq!(
        rig.run("locals/none"),
        Err(Refusal::NoSuchRevision(id("locals/none")))
    );
    let bad = Request::PutRevision {
        revision: id("locals/x"),
        manifest: b"{".to_vec(),
    };
    assert!(matches!(rig.ask(bad), Err(Refusal::BadManifest(_))));
}
