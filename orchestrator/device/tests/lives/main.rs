//! Lives of a device, told step by step: the loop, the life cycle and the store together, against a run time that behaves.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, unreachable_pub)]

mod claims;
mod loader;
mod memory;
mod reset;
mod sick;
mod world;

use device::Settings;
use device::handle::{Action, Command, Refusal, Request};
use device::ports::{Ending, RuntimeEvent};
use model::failure::Cause;
use model::metadata::MetaKind;
use world::{Coming, Rig, id};

const READY: &str = r#","status_goal":"READY""#;
const NO: &str = r#","auto_recovery":{"policy":"no"}"#;

/// A device that runs `locals/one` (db and web), committed.
fn settled() -> Rig {
    settled_with(Settings::default())
}

fn settled_with(settings: Settings) -> Rig {
    let mut rig = Rig::new(settings);
    rig.put(
        "locals/one",
        &[("db", "run", ""), ("web", "ready 5", READY)],
    );
    rig.run("locals/one").unwrap();
    rig.advance(60_000);
    assert_eq!(
        rig.told("locals/one"),
        "DONE Update finished, revision set as rollback point"
    );
    assert_eq!(rig.committed().as_deref(), Some("locals/one"));
    rig.take_log();
    rig
}

#[test]
fn an_empty_device_stays_up_and_takes_its_first_revision() {
    let mut rig = Rig::new(Settings::default());
    assert_eq!(rig.running(), "nothing");
    rig.put(
        "locals/one",
        &[("db", "run", ""), ("web", "ready 5", READY)],
    );
    assert_eq!(rig.told("locals/one"), "NEW Update ready to be run");
    rig.run("locals/one").unwrap();
    assert_eq!(rig.told("locals/one"), "INPROGRESS Trying new revision");
    rig.advance(1000);
    assert_eq!(
        rig.told("locals/one"),
        "TESTING Awaiting to see if update is stable"
    );
    assert_eq!(rig.statuses(), "db=STARTED web=READY");
    rig.advance(25_000);
    assert_eq!(
        rig.told("locals/one"),
        "TESTING Waiting for all containers to become stable"
    );
    assert_eq!(rig.committed(), None);
    rig.advance(5000);
    assert_eq!(
        rig.told("locals/one"),
        "DONE Update finished, revision set as rollback point"
    );
    assert_eq!(rig.committed().as_deref(), Some("locals/one"));
    assert_eq!(rig.view().trial, None);
}

#[test]
fn an_update_touches_only_what_changed() {
    let mut rig = settled();
    let (db, web) = (rig.pid("db"), rig.pid("web"));
    rig.put(
        "locals/two",
        &[
            ("db", "run", ""),
            ("web", "ready 6", READY),
            ("new", "run", ""),
        ],
    );
    rig.run("locals/two").unwrap();
    rig.advance(60_000);
    assert_eq!(rig.take_log(), ["stop web", "start new", "start web"]);
    assert_eq!(rig.pid("db"), db);
    assert_ne!(rig.pid("web"), web);
    assert_eq!(
        rig.told("locals/two"),
        "DONE Update finished, revision set as rollback point"
    );
    assert_eq!(rig.committed().as_deref(), Some("locals/two"));
    // Back to the first by hand: its progress stays DONE all the time.
    rig.ask(Request::Command(Command::Rollback)).unwrap();
    assert_eq!(
        rig.told("locals/one"),
        "DONE Update finished, revision set as rollback point"
    );
    rig.advance(60_000);
    assert_eq!(rig.committed().as_deref(), Some("locals/one"));
    assert_eq!(rig.statuses(), "db=STARTED web=READY");
    assert_eq!(rig.pid("db"), db);
}

#[test]
fn one_revision_at_a_time_and_a_trial_can_be_given_up() {
    let mut rig = settled();
    rig.put("locals/two", &[("web", "run", READY)]);
    rig.put("locals/three", &[("web", "ready 5", READY)]);
    rig.run("locals/two").unwrap();
    let busy = Err(Refusal::UpdateInProgress {
        trial: id("locals/two"),
    });
    assert_eq!(rig.run("locals/three"), busy);
    assert_eq!(
        rig.ask(Request::Command(Command::Reboot(String::new()))),
        busy
    );
    rig.ask(Request::Command(Command::Rollback)).unwrap();
    assert_eq!(rig.told("locals/two"), "ERROR Update aborted");
    rig.advance(1000);
    assert_eq!(rig.statuses(), "db=STARTED web=READY");
    rig.run("locals/three").unwrap();
    rig.run("locals/two").unwrap_err();
}

#[test]
fn a_killed_orchestrator_finds_its_containers_again() {
    let mut rig = settled();
    let pids = (rig.pid("db"), rig.pid("web"));
    for _ in 0..5 {
        rig = rig.kill();
        rig.advance(1000);
        assert_eq!((rig.pid("db"), rig.pid("web")), pids);
        assert_eq!(rig.statuses(), "db=STARTED web=READY");
        assert_eq!(rig.running(), "locals/one");
    }
    assert!(rig.take_log().is_empty());
}

#[test]
fn a_trial_goes_on_after_kills_until_its_tries_are_used_up() {
    let mut rig = settled();
    rig.put(
        "locals/two",
        &[("db", "run", ""), ("web", "ready 6", READY)],
    );
    rig.run("locals/two").unwrap();
    rig.advance(1000);
    let pid = rig.pid("web");
    for retries in [1, 2] {
        rig = rig.kill();
        rig.advance(1000);
        assert_eq!(
            rig.pid("web"),
            pid,
            "the trial's containers are found again"
        );
        assert_eq!(rig.told("locals/two").split(' ').next(), Some("TESTING"));
        assert_eq!(rig.progress("locals/two").retries, retries);
    }
    let mut other = rig.kill();
    other.advance(1000);
    assert_eq!(other.told("locals/two"), "ERROR Unexpected rollback");
    assert!(matches!(
        other.failure(1).cause,
        Cause::TriesUsedUp { tries: 3 }
    ));
    assert_eq!(other.running(), "locals/one");
    assert_eq!(other.statuses(), "db=STARTED web=READY");
}

#[test]
fn a_trial_survives_reboots_and_is_committed() {
    let mut rig = settled();
    rig.put(
        "locals/two",
        &[("db", "run", ""), ("web", "ready 6", READY)],
    );
    rig.run("locals/two").unwrap();
    rig.advance(10_000);
    let mut rig = rig.reboot();
    rig.advance(60_000);
    assert_eq!(
        rig.told("locals/two"),
        "DONE Update finished, revision set as rollback point"
    );
    assert_eq!(rig.committed().as_deref(), Some("locals/two"));
}

#[test]
fn a_corrupt_committed_revision_gives_way_to_the_one_before() {
    let mut rig = settled();
    let extra = rig.object(b"two's own");
    let text = String::from_utf8(rig.manifest(&[("db", "run", "")])).unwrap();
    let manifest = text.replacen(
        &model::ObjectId::of(b"image").to_string(),
        &extra.to_string(),
        1,
    );
    let put = Request::PutRevision {
        revision: id("locals/two"),
        manifest: manifest.into_bytes(),
    };
    rig.ask(put).unwrap();
    rig.run("locals/two").unwrap();
    rig.advance(60_000);
    assert_eq!(rig.committed().as_deref(), Some("locals/two"));
    rig.disk.damage(&format!("objects/{extra}"));
    let mut rig = rig.reboot();
    rig.advance(1000);
    assert_eq!(rig.running(), "locals/one");
    assert_eq!(rig.statuses(), "db=STARTED web=READY");
    assert_eq!(
        rig.committed().as_deref(),
        Some("locals/two"),
        "put it again and it boots again"
    );
    assert!(
        rig.view()
            .notices
            .iter()
            .any(|n| n.contains("locals/two cannot run")),
        "{:?}",
        rig.view().notices
    );
}

#[test]
fn a_full_disk_refuses_an_update_and_cannot_stop_a_rollback() {
    let mut rig = settled();
    rig.put("locals/two", &[("db", "run", ""), ("web", "run", READY)]);
    rig.disk.refuse_writes(true);
    assert!(matches!(rig.run("locals/two"), Err(Refusal::Internal(_))));
    assert!(rig.take_log().is_empty());
    rig.disk.refuse_writes(false);
    rig.run("locals/two").unwrap();
    rig.advance(1000);
    rig.disk.refuse_writes(true);
    rig.advance(60_000);
    assert_eq!(
        rig.running(),
        "locals/one",
        "rolled back although nothing could be written"
    );
    assert_eq!(rig.statuses(), "db=STARTED web=READY");
    assert_eq!(rig.told("locals/two"), "INPROGRESS Trying new revision");
    rig.disk.refuse_writes(false);
    rig.advance(6000);
    assert_eq!(rig.told("locals/two"), "ERROR Status goal not reached");
    assert_eq!(rig.store.failures().unwrap(), [1]);
}

#[test]
fn a_full_disk_holds_up_a_commit_until_it_can_be_written() {
    let mut rig = settled();
    rig.put(
        "locals/two",
        &[("db", "run", ""), ("web", "ready 6", READY)],
    );
    rig.run("locals/two").unwrap();
    rig.advance(1000);
    rig.disk.refuse_writes(true);
    rig.advance(60_000);
    assert_eq!(rig.running(), "locals/two");
    rig.disk.refuse_writes(false);
    assert_eq!(rig.committed().as_deref(), Some("locals/one"));
    rig.advance(11_000);
    assert_eq!(rig.committed().as_deref(), Some("locals/two"));
    assert_eq!(
        rig.told("locals/two"),
        "DONE Update finished, revision set as rollback point"
    );
}

#[test]
fn groups_start_in_order_and_stop_in_reverse() {
    let mut rig = Rig::new(Settings::default());
    let base = r#","group":"base","status_goal":"READY""#;
    let dep = r#","group":"app","depends-on":["b"]"#;
    let app = r#","group":"app","status_goal":"READY""#;
    rig.put(
        "locals/one",
        &[
            ("c", "run", dep),
            ("b", "ready 50", app),
            ("a", "ready 50", base),
        ],
    );
    rig.run("locals/one").unwrap();
    rig.advance(20);
    assert_eq!(rig.statuses(), "c=BLOCKED b=BLOCKED a=STARTED");
    let reason = rig.view().containers[1].reason.clone();
    assert_eq!(reason, "waits for group base: a is STARTED, goal READY");
    rig.advance(1000);
    assert_eq!(rig.take_log(), ["start a", "start b", "start c"]);
    rig.advance(60_000);
    rig.ask(Request::Command(Command::PowerOff("bye".to_owned())))
        .unwrap();
    assert!(rig.view().shutting_down);
    rig.advance(10_000);
    assert_eq!(rig.take_log(), ["stop c", "stop b", "stop a"]);
    assert_eq!(rig.with(|o| o.ending), Some(Ending::PowerOff));
}

#[test]
fn containers_can_be_controlled_and_unless_stopped_is_remembered() {
    let mut rig = Rig::new(Settings::default());
    let keep = r#","auto_recovery":{"policy":"unless-stopped"}"#;
    rig.put("locals/one", &[("a", "run", keep), ("b", "run", "")]);
    rig.run("locals/one").unwrap();
    rig.advance(60_000);
    let control = |rig: &mut Rig, name: &str, action| {
        let container = name.parse().unwrap();
        rig.ask(Request::Control { container, action })
    };
    for name in ["a", "b"] {
        control(&mut rig, name, Action::Stop).unwrap();
        control(&mut rig, name, Action::Stop).unwrap();
    }
    assert_eq!(rig.statuses(), "a=STOPPING b=STOPPING");
    rig.advance(1000);
    assert_eq!(rig.statuses(), "a=STOPPED b=STOPPED");
    assert!(
        rig.view()
            .groups
            .iter()
            .all(|g| g.status == model::Status::Ready)
    );
    let mut rig = rig.kill();
    rig.advance(1000);
    assert_eq!(rig.statuses(), "a=STOPPED b=STARTED");
    control(&mut rig, "a", Action::Start).unwrap();
    rig.advance(1000);
    let pid = rig.pid("a");
    control(&mut rig, "a", Action::Restart).unwrap();
    rig.advance(1000);
    assert_ne!(rig.pid("a"), pid);
    assert!(rig.pid("a").is_some());
    let none = control(&mut rig, "zzz", Action::Start);
    assert!(matches!(none, Err(Refusal::NoSuchContainer(_))));
}

#[test]
fn no_container_is_stopped_out_of_a_trial() {
    let mut rig = Rig::new(Settings::default());
    rig.put("locals/one", &[("a", "run", "")]);
    rig.run("locals/one").unwrap();
    rig.advance(1000);
    let control = |rig: &mut Rig, action| {
        let container = "a".parse().unwrap();
        rig.ask(Request::Control { container, action })
    };
    let refused = control(&mut rig, Action::Stop);
    assert!(
        matches!(&refused, Err(Refusal::UpdateInProgress { trial }) if trial.as_str() == "locals/one"),
        "{refused:?}"
    );
    control(&mut rig, Action::Restart).unwrap();
    rig.advance(60_000);
    control(&mut rig, Action::Stop).unwrap();
    rig.advance(1000);
    assert_eq!(rig.statuses(), "a=STOPPED");
}

#[test]
fn a_run_time_that_goes_away_loses_nothing() {
    let mut rig = settled();
    let pids = (rig.pid("db"), rig.pid("web"));
    let away = RuntimeEvent::Disconnected {
        reason: "killed".to_owned(),
    };
    rig.with(|o| o.away = true);
    rig.with(|o| o.coming.push((o.now, Coming::Runtime(away))));
    rig.advance(10_000);
    assert_eq!(rig.view().runtime_problem.as_deref(), Some("killed"));
    assert_eq!(rig.statuses(), "db=STARTED web=READY");
    // `db` ended unseen.
    rig.with(|o| o.instances.retain(|i, _| i.container.as_str() != "db"));
    rig.with(|o| {
        o.away = false;
        o.coming
            .push((o.now, Coming::Runtime(RuntimeEvent::Connected)));
    });
    rig.advance(100);
    assert_eq!(rig.statuses(), "db=RECOVERING web=READY");
    rig.advance(10_000);
    assert_eq!(rig.statuses(), "db=STARTED web=READY");
    assert_eq!(rig.pid("web"), pids.1);
    assert_eq!(rig.view().runtime_problem, None);
}

#[test]
fn in_steady_state_a_crash_is_retried_and_then_the_back_off_policy_decides() {
    let mut rig = Rig::new(Settings::default());
    let retry = |backoff: &str| {
        format!(
            r#","auto_recovery":{{"policy":"on-failure","max_retries":1,"retry_delay":1,"stable_timeout":1,"reset_window":300,"backoff_policy":"{backoff}"}}"#
        )
    };
    let (never, pause, reboot) = (retry("never"), retry("60s"), retry("reboot"));
    rig.put(
        "locals/one",
        &[
            ("n", "exit 1 40000", &never),
            ("p", "exit 1 40000", &pause),
            ("no", "exit 0 40000", NO),
        ],
    );
    rig.run("locals/one").unwrap();
    rig.advance(39_000);
    assert_eq!(rig.committed().as_deref(), Some("locals/one"));
    rig.advance(1500);
    assert_eq!(rig.statuses(), "n=RECOVERING p=RECOVERING no=STOPPED");
    assert_eq!(
        rig.view().containers[0].reason,
        "retry 1 of 1 in 1 s after exit code 1"
    );
    rig.advance(42_000);
    assert_eq!(rig.statuses(), "n=STOPPED p=RECOVERING no=STOPPED");
    rig.advance(60_000);
    assert_eq!(rig.statuses(), "n=STOPPED p=STARTED no=STOPPED");
    assert_eq!(rig.with(|o| o.ending), None);
    rig.put("locals/two", &[("r", "exit 1 40000", &reboot)]);
    rig.run("locals/two").unwrap();
    rig.advance(100_000);
    assert_eq!(rig.with(|o| o.ending), Some(Ending::Reboot));
}

#[test]
fn metadata_is_kept_and_shown_newest_first() {
    let mut rig = settled();
    for (key, value) in [
        ("a", "1"),
        ("b", "2"),
        ("a", "3"),
        ("pantavisor.mode", "mine"),
    ] {
        rig.ask(Request::PutMeta {
            kind: MetaKind::Device,
            key: key.parse().unwrap(),
            value: value.as_bytes().to_vec(),
        })
        .unwrap();
    }
    let shown = |rig: &Rig| -> Vec<(String, String)> {
        let view = rig.view();
        let text = |v: &Vec<u8>| String::from_utf8(v.clone()).unwrap();
        view.device_meta
            .iter()
            .map(|(k, v)| (k.clone(), text(v)))
            .collect()
    };
    let first = shown(&rig);
    assert_eq!(first[0], ("pantavisor.mode".to_owned(), "mine".to_owned()));
    assert_eq!(first[1], ("b".to_owned(), "2".to_owned()));
    assert_eq!(first[2], ("a".to_owned(), "3".to_owned()));
    assert!(first.contains(&("pantavisor.revision".to_owned(), "locals/one".to_owned())));
    assert!(first.contains(&("pantavisor.status".to_owned(), "READY".to_owned())));
    let mut rig = rig.kill();
    rig.advance(10);
    assert_eq!(shown(&rig), first);
    let delete = |key: &str| Request::DeleteMeta {
        kind: MetaKind::Device,
        key: key.parse().unwrap(),
    };
    rig.ask(delete("a")).unwrap();
    assert_eq!(rig.ask(delete("a")), Err(Refusal::NoSuchMeta));
}

#[test]
fn revisions_in_use_stay_and_the_factory_is_never_lost() {
    let mut rig = settled();
    let delete = |name: &str| Request::DeleteRevision(id(name));
    assert!(matches!(
        rig.ask(delete("locals/one")),
        Err(Refusal::RevisionInUse { .. })
    ));
    let other = rig.manifest(&[("x", "run", "")]);
    let put = Request::PutRevision {
        revision: id("locals/one"),
        manifest: other,
    };
    assert!(matches!(rig.ask(put), Err(Refusal::RevisionInUse { .. })));
    let make = |name: &str| Request::Command(Command::MakeFactory(Some(id(name))));
    assert!(matches!(
        rig.ask(make("locals/none")),
        Err(Refusal::NoSuchRevision(_))
    ));
    rig.put("locals/two", &[("web", "ready 5", READY)]);
    assert!(
        matches!(
            rig.ask(make("locals/two")),
            Err(Refusal::RevisionInUse { .. })
        ),
        "never proven"
    );
    let pid = rig.pid("db");
    rig.ask(Request::Command(Command::MakeFactory(None)))
        .unwrap();
    assert_eq!(rig.told("0"), "DONE Factory revision");
    rig.advance(60_000);
    assert_eq!(rig.running(), "0");
    assert_eq!(rig.pid("db"), pid);
    assert!(matches!(
        rig.ask(delete("0")),
        Err(Refusal::RevisionInUse { .. })
    ));
    rig.ask(delete("locals/two")).unwrap();
}

#[test]
fn collection_keeps_what_may_be_needed() {
    let settings = Settings {
        keep_revisions: 0,
        lease: std::time::Duration::from_secs(1),
        ..Settings::default()
    };
    let mut rig = settled_with(settings);
    let unneeded = rig.object(b"nobody names this");
    for name in ["locals/two", "locals/three"] {
        rig.put(name, &[("db", "run", ""), (&name[7..], "ready 6", READY)]);
        rig.run(name).unwrap();
        rig.advance(700_000);
        assert_eq!(rig.committed().as_deref(), Some(name));
    }
    let answer = rig.ask(Request::Collect).unwrap();
    // The commits have made room already.
    assert_eq!(answer, device::handle::Answer::Collected { reclaimed: 0 });
    assert!(!rig.store.has_object(&unneeded).unwrap());
    assert!(
        rig.store
            .has_object(&model::ObjectId::of(b"image"))
            .unwrap()
    );
    let names: Vec<_> = rig
        .store
        .revisions()
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect();
    // `db` runs since locals/one, so that one stays too.
    assert_eq!(names, ["locals/one", "locals/three", "locals/two"]);
}

#[test]
fn a_changed_kernel_is_tried_by_a_reboot() {
    let rig = Rig::new(Settings::default());
    rig.with(|o| o.booted = Some(id("locals/one")));
    let mut rig = rig.kill();
    let bsp = loader::manifest_with_kernel;
    let one = bsp(&mut rig, "k1", "ready 5");
    rig.ask(Request::PutRevision {
        revision: id("locals/one"),
        manifest: one,
    })
    .unwrap();
    rig.run("locals/one").unwrap();
    rig.advance(60_000);
    assert_eq!(rig.committed().as_deref(), Some("locals/one"));
    let two = bsp(&mut rig, "k2", "ready 6");
    rig.ask(Request::PutRevision {
        revision: id("locals/two"),
        manifest: two,
    })
    .unwrap();
    rig.run("locals/two").unwrap();
    rig.advance(5000);
    assert_eq!(rig.with(|o| o.ending.take()), Some(Ending::Reboot));
    assert_eq!(rig.with(|o| o.armed.clone()), Some(id("locals/two")));
    assert_eq!(rig.told("locals/two"), "INPROGRESS Rebooting");
    let mut rig = rig.reboot();
    rig.advance(1000);
    assert_eq!(
        rig.told("locals/two"),
        "TESTING Awaiting to set rollback point if update is stable"
    );
    rig.advance(60_000);
    assert_eq!(
        rig.told("locals/two"),
        "DONE Update finished, revision set as rollback point"
    );
    assert_eq!(rig.with(|o| o.confirmed.clone()), Some(id("locals/two")));
    // A kernel that dies: the boot loader goes back by itself, and that is noticed.
    let three = bsp(&mut rig, "k3", "ready 7");
    rig.ask(Request::PutRevision {
        revision: id("locals/three"),
        manifest: three,
    })
    .unwrap();
    rig.run("locals/three").unwrap();
    rig.advance(5000);
    let rig = rig.reboot();
    assert_eq!(rig.with(|o| o.booted.clone()), Some(id("locals/three")));
    let mut rig = rig.reboot();
    rig.advance(1000);
    assert_eq!(rig.told("locals/three"), "ERROR Unexpected rollback");
    assert_eq!(rig.running(), "locals/two");
    // One whose containers are sick goes back by a reboot.
    let four = bsp(&mut rig, "k4", "run");
    rig.ask(Request::PutRevision {
        revision: id("locals/four"),
        manifest: four,
    })
    .unwrap();
    rig.run("locals/four").unwrap();
    rig.advance(5000);
    let mut rig = rig.reboot();
    rig.advance(40_000);
    assert_eq!(rig.told("locals/four"), "ERROR Status goal not reached");
    assert_eq!(rig.with(|o| o.ending.take()), Some(Ending::Reboot));
    let mut rig = rig.reboot();
    rig.advance(1000);
    assert_eq!(rig.with(|o| o.booted.clone()), Some(id("locals/two")));
    assert_eq!(
        (rig.running(), rig.statuses()),
        ("locals/two".to_owned(), "web=READY".to_owned())
    );
}

#[test]
fn exactly_as_pantavisor_an_update_in_place_ends_updated() {
    let settings = Settings {
        exact_commit: true,
        ..Settings::default()
    };
    let mut rig = Rig::new(settings);
    rig.put("locals/one", &[("web", "ready 5", READY)]);
    rig.run("locals/one").unwrap();
    rig.advance(60_000);
    assert_eq!(
        rig.told("locals/one"),
        "UPDATED Update finished, revision not set as rollback point"
    );
    assert_eq!(rig.committed(), None);
    let mut rig = rig.reboot();
    rig.advance(60_000);
    assert_eq!(
        rig.told("locals/one"),
        "DONE Update finished, revision set as rollback point"
    );
    rig.put("locals/two", &[("web", "ready 6", READY)]);
    rig.ask(Request::Command(Command::RunCommit {
        revision: id("locals/two"),
        again: false,
    }))
    .unwrap();
    rig.advance(60_000);
    assert_eq!(rig.committed().as_deref(), Some("locals/two"));
}

#[test]
fn stopping_leaves_containers_running_or_not_as_asked() {
    for keep in [true, false] {
        let mut rig = settled();
        rig.ask(Request::Stop {
            containers_keep_running: keep,
        })
        .unwrap();
        rig.advance(10_000);
        let ending = Ending::Stop {
            containers_keep_running: keep,
        };
        assert_eq!(rig.device.ended(), Some(ending));
        assert_eq!(rig.with(|o| o.instances.len()), if keep { 2 } else { 0 });
    }
}
