//! Claims on a whole device: what they keep others from, what they do not, and what becomes of them over starts.

use device::Settings;
use device::handle::{Action, Answer, ClaimView, Command, Refusal, Request};
use model::claim::{Client, Wanted};
use model::metadata::MetaKind;

use crate::world::{Rig, id};
use crate::{READY, settled};

fn client(name: &str) -> Client {
    name.parse().unwrap()
}

fn claim(rig: &mut Rig, name: &str, parts: &[&str], priority: u64) -> Result<ClaimView, Refusal> {
    let parts = parts.iter().map(|part| part.parse().unwrap()).collect();
    let wanted = Wanted::new(parts, priority, 60).unwrap();
    let client = client(name);
    match rig.ask(Request::Claim { client, wanted })? {
        Answer::Claimed(shown) => Ok(*shown),
        other => panic!("{other:?}"),
    }
}

fn by(rig: &mut Rig, name: &str, request: Request) -> Result<Answer, Refusal> {
    rig.ask(Request::As {
        client: client(name),
        request: Box::new(request),
    })
}

fn run(revision: &str) -> Request {
    Request::Command(Command::Run {
        revision: id(revision),
        again: false,
    })
}

fn control(container: &str) -> Request {
    Request::Control {
        container: container.parse().unwrap(),
        action: Action::Restart,
    }
}

/// Who stands in the way, of what; empty when nobody does.
fn refused(answer: Result<Answer, Refusal>) -> String {
    match answer {
        Ok(_) => String::new(),
        Err(Refusal::Claimed(conflict)) => format!("{}: {}", conflict.claim.client, conflict.what),
        Err(other) => panic!("{other}"),
    }
}

/// What was told of claims since the last time.
fn told(rig: &Rig, after: &mut u64) -> Vec<String> {
    let events = rig.handle.events_since(*after);
    *after = events.last;
    let claims = events.events.into_iter().filter(|it| it.kind == "claim");
    claims.map(|it| it.message).collect()
}

/// A device that runs `locals/one`, with `locals/web` and `locals/db` that change one container each.
fn with_two_updates() -> Rig {
    let mut rig = settled();
    rig.put(
        "locals/web",
        &[("db", "run", ""), ("web", "ready 7", READY)],
    );
    rig.put(
        "locals/db",
        &[("db", "run 2", ""), ("web", "ready 5", READY)],
    );
    rig
}

#[test]
fn a_claim_keeps_others_from_its_part_and_from_no_other() {
    let mut rig = with_two_updates();
    claim(&mut rig, "container:hawkbit", &["container:web"], 100).unwrap();
    let other = "host:azure";
    assert_eq!(
        refused(by(&mut rig, other, run("locals/web"))),
        "container:hawkbit: container web"
    );
    assert_eq!(
        refused(by(&mut rig, other, control("web"))),
        "container:hawkbit: container web"
    );
    assert_eq!(
        refused(by(
            &mut rig,
            other,
            Request::DeleteRevision(id("locals/web"))
        )),
        "container:hawkbit: container web"
    );
    let manifest = rig.manifest(&[("db", "run 3", "")]);
    let replace = |revision: &str, manifest: &[u8]| Request::PutRevision {
        revision: id(revision),
        manifest: manifest.to_vec(),
    };
    assert_eq!(
        refused(by(&mut rig, other, replace("locals/web", &manifest))),
        "container:hawkbit: container web"
    );
    // Nothing of it was done.
    assert!(rig.take_log().is_empty());
    // The same bytes again, a new name, what is not a part, what only restarts, and the other container.
    let same = rig.store.read_manifest(&id("locals/web")).unwrap();
    for request in [
        replace("locals/web", &same),
        replace("locals/new", &manifest),
        replace("locals/db2", &manifest),
        Request::DeleteRevision(id("locals/db2")),
        Request::PutCommitMessage {
            revision: id("locals/web"),
            message: b"x".to_vec(),
        },
        Request::PutMeta {
            kind: MetaKind::User,
            key: "web.key".parse().unwrap(),
            value: b"x".to_vec(),
        },
        Request::Collect,
        control("db"),
        run("locals/db"),
    ] {
        // locals/db2 lacks `web`, so its removal touches it.
        let touches = matches!(request, Request::DeleteRevision(_));
        let answer = refused(by(&mut rig, other, request.clone()));
        assert_eq!(answer.is_empty(), !touches, "{request:?}: {answer}");
    }
    rig.advance(1000);
    // The owner may, once the other update has ended.
    rig.advance(60_000);
    claim(&mut rig, "container:hawkbit", &["container:web"], 100).unwrap();
    assert_eq!(rig.running(), "locals/db");
    assert_eq!(
        refused(by(&mut rig, "container:hawkbit", control("web"))),
        ""
    );
}

#[test]
fn a_run_of_both_parts_needs_both() {
    let mut rig = with_two_updates();
    rig.put(
        "locals/both",
        &[("db", "run 2", ""), ("web", "ready 7", READY)],
    );
    claim(&mut rig, "host:one", &["container:web"], 100).unwrap();
    claim(&mut rig, "host:two", &["container:db"], 100).unwrap();
    assert_eq!(
        refused(by(&mut rig, "host:one", run("locals/both"))),
        "host:two: container db"
    );
    assert_eq!(
        refused(by(&mut rig, "host:two", run("locals/both"))),
        "host:one: container web"
    );
    assert_eq!(refused(by(&mut rig, "host:one", run("locals/web"))), "");
}

#[test]
fn giving_up_touches_what_the_trial_changed_and_the_device_by_itself_is_free() {
    let mut rig = with_two_updates();
    claim(&mut rig, "host:one", &["container:web"], 100).unwrap();
    assert_eq!(refused(by(&mut rig, "host:one", run("locals/web"))), "");
    rig.advance(1000);
    let rollback = || Request::Command(Command::Rollback);
    assert_eq!(
        refused(by(&mut rig, "host:two", rollback())),
        "host:one: container web"
    );
    assert_eq!(refused(by(&mut rig, "host:one", rollback())), "");
    rig.advance(2000);
    assert_eq!(rig.running(), "locals/one");
    // Sick: rolled back whoever holds what.
    rig.put("locals/sick", &[("db", "run", ""), ("web", "run", READY)]);
    assert_eq!(refused(by(&mut rig, "host:one", run("locals/sick"))), "");
    rig.advance(1000);
    claim(&mut rig, "host:two", &["*"], 1000).unwrap();
    rig.advance(50_000);
    assert_eq!(rig.running(), "locals/one");
    assert_eq!(rig.told("locals/sick"), "ERROR Status goal not reached");
    // Back to an earlier revision, and to the factory's.
    assert_eq!(
        refused(by(&mut rig, "host:one", control("web"))),
        "host:two: container web"
    );
    let factory = Request::Command(Command::MakeFactory(None));
    assert_eq!(
        refused(by(&mut rig, "host:one", factory)),
        "host:two: what belongs to the whole device"
    );
    // A restart of the machine is no change.
    let reboot = Request::Command(Command::Reboot(String::new()));
    assert_eq!(refused(by(&mut rig, "host:one", reboot)), "");
}

#[test]
fn events_tell_both_and_leases_run_out_by_the_monotonic_clock() {
    let mut rig = settled();
    let mut after = rig.handle.events_since(0).last;
    let low = claim(&mut rig, "container:low", &["*"], 10).unwrap();
    assert_eq!(low.overruled_by, None);
    rig.advance(30_000);
    let high = claim(&mut rig, "host:high", &["container:web"], 20).unwrap();
    assert_eq!(
        told(&rig, &mut after),
        [
            "claim 1 of container:low on * with priority 10 holds for 60 s unless it is renewed",
            "claim 2 of host:high on container:web with priority 20 holds for 60 s unless it is renewed",
            "claim 1 of container:low on * with priority 10 gives way to claim 2 where both overlap",
        ]
    );
    let shown = rig.view().claims.clone();
    assert_eq!(shown[0].overruled_by, Some(high.claim.id));
    assert_eq!(shown[1].overruled_by, None);
    // Renewing is silent.
    let renew = Request::RenewClaim {
        client: client("container:low"),
        id: 1,
        lease_s: None,
    };
    assert!(rig.ask(renew).is_ok());
    assert!(told(&rig, &mut after).is_empty());
    rig.advance(59_999);
    assert_eq!(rig.view().claims.len(), 2);
    rig.advance(1);
    // Both leases end in this moment: one was renewed when the other was made.
    assert_eq!(rig.view().claims.len(), 0);
    assert_eq!(
        told(&rig, &mut after),
        [
            "claim 1 of container:low on * with priority 10 was not renewed; it has ended",
            "claim 2 of host:high on container:web with priority 20 was not renewed; it has ended",
        ]
    );
    // Released: the other one is told that it counts again.
    claim(&mut rig, "container:low", &["*"], 10).unwrap();
    let id = claim(&mut rig, "host:high", &["bsp"], 20).unwrap().claim.id;
    told(&rig, &mut after);
    let release = |name: &str| Request::ReleaseClaim {
        client: client(name),
        id,
    };
    assert!(matches!(
        rig.ask(release("container:low")),
        Err(Refusal::NotYourClaim { .. })
    ));
    assert_eq!(rig.ask(release("host")), Ok(Answer::Done));
    assert_eq!(
        told(&rig, &mut after),
        [
            "claim 4 of host:high on bsp with priority 20 was ended by host",
            "claim 3 of container:low on * with priority 10 counts for all of it again",
        ]
    );
    assert_eq!(rig.ask(release("host")), Err(Refusal::NoSuchClaim(id)));
}

#[test]
fn claims_live_through_a_kill_and_one_reboot_without_renewal() {
    let mut rig = with_two_updates();
    claim(&mut rig, "container:hawkbit", &["container:web"], 100).unwrap();
    rig.advance(50_000);
    rig = rig.kill();
    rig.advance(1000);
    // A lease anew: not shorter than it was promised.
    assert_eq!(
        refused(by(&mut rig, "host:azure", run("locals/web"))),
        "container:hawkbit: container web"
    );
    rig.advance(50_000);
    assert_eq!(rig.view().claims.len(), 1);
    let renew = Request::RenewClaim {
        client: client("container:hawkbit"),
        id: 1,
        lease_s: Some(30),
    };
    assert!(rig.ask(renew).is_ok());
    rig = rig.reboot();
    rig.advance(20_000);
    assert_eq!(rig.view().claims.len(), 1);
    // Nobody has renewed it since: a device that restarts again and again keeps nobody out for ever.
    rig = rig.reboot();
    rig.advance(1000);
    assert_eq!(rig.view().claims.len(), 0);
    assert_eq!(refused(by(&mut rig, "host:azure", run("locals/web"))), "");
    // What has ended does not come back.
    claim(&mut rig, "container:hawkbit", &["bsp"], 100).unwrap();
    rig.advance(61_000);
    rig = rig.kill();
    assert_eq!(rig.view().claims.len(), 0);
}

#[test]
fn what_cannot_be_kept_is_not_promised() {
    let mut rig = settled();
    claim(&mut rig, "host:one", &["bsp"], 100).unwrap();
    rig.disk.refuse_writes(true);
    assert!(claim(&mut rig, "host:one", &["container:web"], 100).is_err());
    let release = Request::ReleaseClaim {
        client: client("host:one"),
        id: 1,
    };
    assert!(rig.ask(release.clone()).is_err());
    assert_eq!(rig.view().claims.len(), 1);
    // A renewal needs no write.
    claim(&mut rig, "host:one", &["bsp"], 100).unwrap();
    rig.disk.refuse_writes(false);
    assert!(rig.ask(release).is_ok());
    assert_eq!(rig.view().claims.len(), 0);
}

#[test]
fn what_no_revision_has_yet_can_be_claimed() {
    let mut rig = Rig::new(Settings::default());
    claim(&mut rig, "host:one", &["container:web"], 100).unwrap();
    rig.put("locals/one", &[("web", "ready 5", READY)]);
    assert_eq!(
        refused(by(&mut rig, "host:two", run("locals/one"))),
        "host:one: container web"
    );
    // Nobody has claimed the rest.
    assert_eq!(refused(by(&mut rig, "host:one", run("locals/one"))), "");
}
