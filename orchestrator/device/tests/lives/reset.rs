//! Resets to the factory revision, told step by step.

use device::handle::{Answer, Command, Refusal, Request};
use model::claim::Wanted;
use model::metadata::MetaKind;

use super::world::{Rig, id};
use super::{READY, settled};

fn reset(wipe_volumes: bool) -> Request {
    Request::Command(Command::FactoryReset { wipe_volumes })
}

fn put_meta(rig: &mut Rig, value: &str) -> Result<Answer, Refusal> {
    rig.ask(Request::PutMeta {
        kind: MetaKind::User,
        key: "place".parse().unwrap(),
        value: value.into(),
    })
}

fn meta(rig: &Rig) -> Vec<String> {
    let view = rig.view();
    let keys = view.user_meta.iter().map(|(key, _)| key.clone());
    keys.collect()
}

/// Revision 0 with db and web; `locals/two` runs, which has web alone.
fn updated() -> Rig {
    let mut rig = settled();
    rig.ask(Request::Command(Command::MakeFactory(None)))
        .unwrap();
    rig.advance(60_000);
    rig.put("locals/two", &[("web", "ready 7", READY)]);
    rig.run("locals/two").unwrap();
    rig.advance(60_000);
    assert_eq!(rig.committed().as_deref(), Some("locals/two"));
    put_meta(&mut rig, "cellar").unwrap();
    rig
}

fn revisions(rig: &Rig) -> Vec<String> {
    let all = rig.store.revisions().unwrap();
    all.iter().map(ToString::to_string).collect()
}

#[test]
fn a_reset_leaves_the_factory_revision_alone() {
    let mut rig = updated();
    rig.take_log();
    rig.ask(reset(false)).unwrap();
    assert!(rig.view().shutting_down);
    assert_eq!(
        put_meta(&mut rig, "attic"),
        Err(Refusal::Resetting),
        "it might be removed in a moment"
    );
    rig.advance(60_000);
    assert_eq!(rig.running(), "0");
    assert_eq!(rig.committed().as_deref(), Some("0"));
    assert_eq!(rig.view().previous, None);
    assert_eq!(rig.told("0"), "DONE Factory revision");
    assert_eq!(rig.statuses(), "db=STARTED web=READY");
    assert_eq!(revisions(&rig), ["0"]);
    assert_eq!(meta(&rig), ["place"], "only wiping removes it");
    assert_eq!(rig.take_log()[0], "stop web", "nothing ran meanwhile");
    // It is a device like any other.
    rig.put("locals/three", &[("web", "ready 9", READY)]);
    rig.run("locals/three").unwrap();
    rig.advance(60_000);
    assert_eq!(rig.committed().as_deref(), Some("locals/three"));
}

#[test]
fn a_reset_that_wipes_removes_what_was_written() {
    let mut rig = updated();
    rig.ask(reset(true)).unwrap();
    rig.advance(60_000);
    assert_eq!(rig.running(), "0");
    assert_eq!(meta(&rig), Vec::<String>::new());
}

#[test]
fn a_reset_is_finished_by_the_next_start() {
    for rebooted in [false, true] {
        let mut rig = updated();
        rig.ask(reset(true)).unwrap();
        let mut rig = if rebooted { rig.reboot() } else { rig.kill() };
        rig.advance(60_000);
        assert_eq!(rig.running(), "0");
        assert_eq!(revisions(&rig), ["0"]);
        assert_eq!(meta(&rig), Vec::<String>::new());
    }
}

#[test]
fn a_reset_that_cannot_be_done_is_refused() {
    let mut rig = settled();
    assert_eq!(
        rig.ask(reset(false)),
        Err(Refusal::NoSuchRevision(id("0"))),
        "there is no factory revision"
    );
    let mut rig = updated();
    rig.put("locals/three", &[("web", "ready 9", READY)]);
    rig.run("locals/three").unwrap();
    assert!(matches!(
        rig.ask(reset(false)),
        Err(Refusal::UpdateInProgress { .. })
    ));
    rig.advance(60_000);
    let cloud = "host:cloud".parse().unwrap();
    let wanted = Wanted::new(["container:db".parse().unwrap()].into(), 100, 600).unwrap();
    rig.ask(Request::Claim {
        client: cloud,
        wanted,
    })
    .unwrap();
    let asked = Request::As {
        client: "host:other".parse().unwrap(),
        request: Box::new(reset(false)),
    };
    assert!(
        matches!(rig.ask(asked), Err(Refusal::Claimed(_))),
        "db comes with revision 0"
    );
    assert_eq!(rig.running(), "locals/three");
}

#[test]
fn a_factory_revision_that_rotted_is_not_gone_back_to() {
    let mut rig = updated();
    rig.ask(reset(true)).unwrap();
    rig.disk.damage("trails/0/.pvr/json");
    let mut rig = rig.reboot();
    rig.advance(60_000);
    assert_eq!(rig.running(), "locals/two");
    assert_eq!(meta(&rig), ["place"], "nothing was removed");
    let view = rig.view();
    assert!(
        view.notices.iter().any(|it| it.contains("was not reset")),
        "{:?}",
        view.notices
    );
    put_meta(&mut rig, "attic").unwrap();
}

#[test]
fn a_storage_that_takes_no_writes_refuses_a_reset() {
    let mut rig = updated();
    rig.disk.refuse_writes(true);
    assert!(matches!(rig.ask(reset(false)), Err(Refusal::NoSpace(_))));
    assert_eq!(rig.running(), "locals/two");
    rig.disk.refuse_writes(false);
    rig.advance(10_000);
    put_meta(&mut rig, "attic").unwrap();
    let mut rig = rig.reboot();
    rig.advance(60_000);
    assert_eq!(
        rig.running(),
        "locals/two",
        "what was refused is not done later"
    );
}
