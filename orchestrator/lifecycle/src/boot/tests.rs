//! One row for every case of the decision.

#![allow(clippy::wildcard_enum_match_arm)]

use super::*;
use crate::update::Running;

fn id(text: &str) -> RevisionId {
    text.parse().unwrap()
}

fn digest(revision: &str) -> ObjectId {
    ObjectId::of(revision.as_bytes())
}

fn known(revision: &str, status: Option<State>, done: bool, changed_ms: u64) -> Known {
    Known {
        revision: id(revision),
        digest: Some(digest(revision)),
        progress: status.map(|status| Progress::new(status, "", 0)),
        done,
        changed_ms,
    }
}

fn good(revision: &str, boot: &str) -> (RevisionId, Verdict) {
    let verdict = Verdict::Good {
        digest: digest(revision),
        boot: ObjectId::of(boot.as_bytes()),
    };
    (id(revision), verdict)
}

fn bad(revision: &str) -> (RevisionId, Verdict) {
    let object = BadObject {
        object: ObjectId::of(b"x"),
        key: "web/root.squashfs".to_owned(),
        problem: "corrupt".to_owned(),
    };
    (id(revision), Verdict::BadObjects(vec![object]))
}

/// Committed `c` after `p`, trial `t` with two of three tries left, factory `0`; all good, no boot loader.
fn facts() -> Facts {
    Facts {
        marker: Some(Marker {
            committed: Some(id("locals/c")),
            previous: Some(id("locals/p")),
            trial: Some(Trial {
                revision: id("locals/t"),
                tries_left: 2,
                by_reboot: false,
            }),
            ..Marker::default()
        }),
        revisions: vec![
            known("0", Some(State::Done), true, 1),
            known("locals/p", Some(State::Done), true, 2),
            known("locals/c", Some(State::Done), true, 3),
            known("locals/t", Some(State::InProgress), false, 4),
            known("locals/new", Some(State::New), false, 5),
        ],
        verdicts: [
            good("0", "k"),
            good("locals/p", "k"),
            good("locals/c", "k"),
            good("locals/t", "k"),
        ]
        .into(),
        tries: 3,
        next_failure: 7,
        ..Facts::default()
    }
}

fn boot(facts: &Facts) -> Boot {
    match decide(facts) {
        Decision::Boot(boot) => *boot,
        Decision::Verify(revision) => panic!("wants {revision} verified"),
    }
}

fn started(boot: &Boot) -> String {
    match &boot.start {
        Start::Trial { attempt, base } => {
            let base = base.as_ref().map(|base| base.revision.to_string());
            format!("try {} from {base:?}", attempt.revision)
        }
        Start::Run(Running { revision, .. }) => format!("run {revision}"),
        Start::Reboot => "reboot".to_owned(),
        Start::Nothing => "nothing".to_owned(),
    }
}

/// Effects in short: what is written, in order.
fn written(boot: &Boot) -> Vec<String> {
    boot.effects
        .iter()
        .map(|effect| match effect {
            Effect::Gate(_, write) => format!("gate {}", short(write)),
            Effect::Owe(write) => short(write),
            Effect::Tell(kind, ..) => format!("tell {kind}"),
            Effect::Verify(_)
            | Effect::Run(..)
            | Effect::Settle
            | Effect::StopAll
            | Effect::End(_)
            | Effect::StartAgain
            | Effect::Answer(_) => panic!("not at a boot: {effect:?}"),
            Effect::Retain => "retain".to_owned(),
        })
        .collect()
}

fn short(write: &Write) -> String {
    match write {
        Write::Marker(marker) => {
            let trial = marker.trial.as_ref();
            let trial = trial.map(|trial| format!("{}/{}", trial.revision, trial.tries_left));
            format!("marker {trial:?}")
        }
        Write::Progress(revision, progress) => {
            format!("{revision} {} {}", progress.status, progress.retries)
        }
        Write::Done(revision) => format!("done {revision}"),
        Write::Current(revision) => format!("current {revision}"),
        Write::Failure(failing) => format!("failure {} of {}", failing.id, failing.revision),
        Write::Confirm(revision) => format!("confirm {revision}"),
        Write::Arm(revision) => format!("arm {revision}"),
        Write::Reset(reset) => format!("reset, wiped {}", reset.wipe_volumes),
        Write::ForgetReset => "forget reset".to_owned(),
    }
}

fn set_trial(facts: &mut Facts, change: impl FnOnce(&mut Trial)) {
    let marker = facts.marker.as_mut().unwrap();
    change(marker.trial.as_mut().unwrap());
}

fn no_trial(facts: &mut Facts) {
    facts.marker.as_mut().unwrap().trial = None;
}

#[test]
fn a_trial_is_counted_before_it_runs() {
    let boot = boot(&facts());
    assert_eq!(started(&boot), r#"try locals/t from Some("locals/c")"#);
    assert_eq!(
        written(&boot),
        [
            r#"gate marker Some("locals/t/1")"#,
            "locals/t INPROGRESS 1",
            "current locals/t"
        ]
    );
    assert_eq!(boot.marker.trial.unwrap().tries_left, 1);
}

#[test]
fn progress_of_a_trial_never_goes_back() {
    for (status, told) in [
        (State::Testing, Some("locals/t TESTING 1")),
        (State::Updated, Some("locals/t INPROGRESS 1")),
        (State::Done, None),
    ] {
        let mut facts = facts();
        facts.revisions[3] = known("locals/t", Some(status), false, 4);
        let written = written(&boot(&facts));
        assert_eq!(
            written
                .get(1)
                .filter(|w| w.contains("locals/t "))
                .map(String::as_str),
            told
        );
    }
}

#[test]
fn everything_that_may_run_is_verified_first() {
    let mut facts = facts();
    let mut asked = Vec::new();
    let verdicts = std::mem::take(&mut facts.verdicts);
    while let Decision::Verify(revision) = decide(&facts) {
        let verdict = verdicts.get(&revision).unwrap().clone();
        asked.push(revision.to_string());
        facts.verdicts.insert(revision, verdict);
    }
    assert_eq!(asked, ["locals/t", "locals/c"]);
}

#[test]
fn a_trial_that_cannot_be_run_is_given_up() {
    let given_up = |change: &dyn Fn(&mut Facts), cause: fn(&Cause) -> bool, remembered: bool| {
        let mut facts = facts();
        change(&mut facts);
        let boot = boot(&facts);
        assert_eq!(started(&boot), "run locals/c");
        let mut written = written(&boot);
        assert_eq!(written[0], "failure 7 of locals/t");
        assert!(written[1].starts_with("locals/t ERROR"), "{written:?}");
        if facts.booted.is_some() {
            assert_eq!(written.remove(2), "confirm locals/c");
        }
        assert_eq!(
            written[2], "marker None",
            "last: what it names is on record"
        );
        let Effect::Owe(Write::Failure(failing)) = &boot.effects[0] else {
            panic!("a failure comes first");
        };
        assert!(cause(&failing.cause), "{:?}", failing.cause);
        assert_eq!(failing.rolled_back_to, Some(id("locals/c")));
        assert_eq!(
            boot.marker.failure_of(digest("locals/t")),
            remembered.then_some(7)
        );
        assert_eq!(boot.next_failure, 8);
    };
    given_up(
        &|facts| set_trial(facts, |trial| trial.tries_left = 0),
        |cause| matches!(cause, Cause::TriesUsedUp { tries: 3 }),
        true,
    );
    given_up(
        &|facts| facts.verdicts.extend([bad("locals/t")]),
        |cause| matches!(cause, Cause::BadObjects { .. }),
        false,
    );
    given_up(
        &|facts| {
            let verdict = Verdict::BadManifest("torn".to_owned());
            facts.verdicts.insert(id("locals/t"), verdict);
        },
        |cause| matches!(cause, Cause::BadManifest { .. }),
        false,
    );
    given_up(
        &|facts| {
            set_trial(facts, |trial| trial.by_reboot = true);
            facts.booted = Some(id("locals/c"));
        },
        |cause| matches!(cause, Cause::UnexpectedRollback),
        true,
    );
}

#[test]
fn a_trial_that_was_never_booted_is_armed_again_and_counted() {
    let mut facts = facts();
    set_trial(&mut facts, |trial| {
        trial.by_reboot = true;
        trial.tries_left = 3;
    });
    facts.booted = Some(id("locals/c"));
    let boot = boot(&facts);
    assert_eq!(started(&boot), "reboot");
    assert_eq!(
        written(&boot),
        [r#"gate marker Some("locals/t/2")"#, "gate arm locals/t"]
    );
}

/// Some boot loaders start a trial again at the boot after the fallback, unless they are told.
#[test]
fn a_boot_loader_forgets_a_trial_before_the_marker_does() {
    for (status, booted, expected) in [
        (State::InProgress, "locals/c", 2),
        (State::InProgress, "locals/t", 2),
        (State::Error, "locals/c", 0),
        (State::Error, "locals/t", 0),
    ] {
        let mut facts = facts();
        set_trial(&mut facts, |trial| {
            trial.by_reboot = true;
            trial.tries_left = 0;
        });
        facts.revisions[3] = known("locals/t", Some(status), false, 4);
        facts.booted = Some(id(booted));
        facts.booted_fingerprint = Some(ObjectId::of(b"k"));
        let written = written(&boot(&facts));
        assert_eq!(
            written[expected..expected + 2],
            ["confirm locals/c", "marker None"],
            "{status}, {booted} was booted"
        );
        let confirms = written.iter().filter(|write| write.starts_with("confirm"));
        assert_eq!(confirms.count(), 1, "once is enough");
    }
}

#[test]
fn what_is_committed_does_not_fail_because_its_trial_was_cut() {
    let mut facts = facts();
    set_trial(&mut facts, |trial| {
        trial.by_reboot = true;
        trial.revision = id("locals/c");
    });
    facts.booted = Some(id("locals/p"));
    facts.booted_fingerprint = Some(ObjectId::of(b"k"));
    let boot = boot(&facts);
    assert_eq!(started(&boot), "run locals/c");
    assert_eq!(
        written(&boot),
        ["confirm locals/c", "marker None", "current locals/c"]
    );
    assert_eq!(boot.marker.failure_of(digest("locals/c")), None);
}

#[test]
fn a_trial_that_failed_already_is_only_forgotten() {
    let mut facts = facts();
    facts.revisions[3] = known("locals/t", Some(State::Error), false, 4);
    let boot = boot(&facts);
    assert_eq!(started(&boot), "run locals/c");
    assert_eq!(written(&boot), ["marker None", "current locals/c"]);
    assert_eq!(boot.marker.failure_of(digest("locals/t")), Some(6));
}

#[test]
fn a_try_that_cannot_be_counted_is_not_made() {
    let mut facts = facts();
    facts.cannot_count = Some("read-only".to_owned());
    let boot = boot(&facts);
    assert_eq!(started(&boot), "run locals/c");
    assert_eq!(
        boot.marker,
        facts.marker.unwrap(),
        "it is tried at a later start"
    );
    assert_eq!(boot.notices.len(), 1);
}

#[test]
fn what_is_corrupt_gives_way_in_this_order() {
    let mut facts = facts();
    no_trial(&mut facts);
    facts.revisions.extend([
        known("locals/older", Some(State::Done), true, 10),
        known("locals/newer", Some(State::Error), true, 20),
        known("locals/updated", Some(State::Updated), false, 99),
        known("locals/failed", Some(State::Error), false, 99),
    ]);
    facts.verdicts.extend([
        good("locals/older", "k"),
        good("locals/newer", "k"),
        good("locals/updated", "k"),
    ]);
    let marker = facts.marker.clone().unwrap();
    let mut order = Vec::new();
    loop {
        let boot = boot(&facts);
        assert_eq!(
            boot.marker, marker,
            "a fallback does not move what is committed"
        );
        assert_eq!(boot.notices.len(), order.len());
        let Start::Run(running) = boot.start else {
            break;
        };
        order.push(running.revision.to_string());
        facts.verdicts.extend([bad(running.revision.as_str())]);
    }
    assert_eq!(
        order,
        [
            "locals/c",
            "locals/p",
            "locals/newer",
            "locals/older",
            "0",
            "locals/updated"
        ]
    );
}

#[test]
fn a_first_start_runs_the_factory_and_never_what_nobody_asked_for() {
    let mut facts = Facts {
        revisions: vec![known("locals/new", Some(State::New), false, 5)],
        tries: 3,
        next_failure: 1,
        ..Facts::default()
    };
    assert_eq!(
        started(&boot(&Facts {
            tries: 3,
            ..Facts::default()
        })),
        "nothing"
    );
    assert_eq!(started(&boot(&facts)), "nothing");
    facts.revisions.push(known("0", None, false, 1));
    facts.verdicts.extend([good("0", "k")]);
    let boot = boot(&facts);
    assert_eq!(started(&boot), "run 0");
    assert_eq!(
        written(&boot),
        ["marker None", "0 DONE 0", "done 0", "current 0"]
    );
    assert_eq!(boot.marker.committed, Some(id("0")));
    let told = boot.effects.iter().find_map(|effect| match effect {
        Effect::Owe(Write::Progress(_, progress)) => Some(progress.message.as_str()),
        _ => None,
    });
    assert_eq!(told, Some(message::FACTORY));
}

#[test]
fn a_commit_that_was_cut_is_completed() {
    let mut facts = facts();
    no_trial(&mut facts);
    facts.revisions[2] = known("locals/c", Some(State::Testing), false, 3);
    let boot = boot(&facts);
    assert_eq!(
        written(&boot),
        ["locals/c DONE 0", "done locals/c", "current locals/c"]
    );
}

/// The orchestrator ended between the marker and the boot loader, and the machine went on.
#[test]
fn a_commit_that_was_cut_is_confirmed_before_it_is_told() {
    let mut facts = facts();
    no_trial(&mut facts);
    facts.revisions[2] = known("locals/c", Some(State::Testing), false, 3);
    facts.booted = Some(id("locals/c"));
    let boot = boot(&facts);
    assert_eq!(started(&boot), "run locals/c");
    assert_eq!(
        written(&boot),
        [
            "confirm locals/c",
            "locals/c DONE 0",
            "done locals/c",
            "current locals/c"
        ]
    );
}

#[test]
fn a_boot_loader_that_is_damaged_is_mended_by_a_start_that_is_no_trial() {
    let mut facts = facts();
    facts.loader_damaged = true;
    facts.booted = Some(id("locals/t"));
    assert!(!written(&boot(&facts)).contains(&"confirm locals/t".to_owned()));
    no_trial(&mut facts);
    facts.booted = Some(id("locals/c"));
    assert_eq!(
        written(&boot(&facts)),
        ["confirm locals/c", "current locals/c"]
    );
}

#[test]
fn a_boot_loader_that_is_behind_is_told_and_obeyed_once() {
    let kernel = |name: &str| Some(ObjectId::of(name.as_bytes()));
    let mut facts = facts();
    no_trial(&mut facts);
    facts.booted = Some(id("locals/p"));
    // The same kernel: nothing to restart for.
    facts.booted_fingerprint = kernel("k");
    assert_eq!(started(&boot(&facts)), "run locals/c");
    assert!(written(&boot(&facts)).contains(&"confirm locals/c".to_owned()));
    // Another one, and the commit was cut: restart.
    facts.booted_fingerprint = kernel("old");
    facts.revisions[2] = known("locals/c", Some(State::Testing), false, 3);
    let restart = boot(&facts);
    assert_eq!(started(&restart), "reboot");
    // What ends the row of restarts is durable before the first one.
    assert_eq!(
        written(&restart),
        [
            "gate locals/c DONE 0",
            "done locals/c",
            "current locals/c",
            "confirm locals/c"
        ]
    );
    // Still another one after that: run, and say so.
    facts.revisions[2] = known("locals/c", Some(State::Done), true, 3);
    let stubborn = boot(&facts);
    assert_eq!(started(&stubborn), "run locals/c");
    assert_eq!(stubborn.notices.len(), 1);
}

#[test]
fn nothing_is_restarted_for_while_the_storage_takes_no_writes() {
    let kernel = |name: &str| Some(ObjectId::of(name.as_bytes()));
    // A commit that was cut.
    let mut cut = facts();
    no_trial(&mut cut);
    cut.booted = Some(id("locals/p"));
    cut.booted_fingerprint = kernel("old");
    cut.revisions[2] = known("locals/c", Some(State::Testing), false, 3);
    // A trial that has no tries left, and a boot loader that goes on starting it.
    let mut given_up = facts();
    set_trial(&mut given_up, |trial| {
        trial.by_reboot = true;
        trial.tries_left = 0;
    });
    given_up.booted = Some(id("locals/t"));
    given_up.booted_fingerprint = kernel("sick");
    for mut facts in [cut, given_up] {
        assert_eq!(started(&boot(&facts)), "reboot");
        facts.cannot_count = Some("read-only".to_owned());
        let stays = boot(&facts);
        assert_eq!(started(&stays), "run locals/c");
        assert!(
            !written(&stays)
                .iter()
                .any(|write| write.starts_with("gate"))
        );
        let told =
            |notice: &String| notice.contains("not restarted") && notice.contains("read-only");
        assert!(stays.notices.iter().any(told), "{:?}", stays.notices);
    }
}

#[test]
fn open_requests_are_resumed_a_bounded_number_of_times() {
    let mut marker = facts().marker.unwrap();
    let mut open = known("locals/open", Some(State::InProgress), false, 9);
    let older = known("locals/older", Some(State::InProgress), false, 8);
    let resume = Pending::Resume {
        revision: id("locals/open"),
        retries: 1,
    };
    let all = [
        open.clone(),
        older,
        known("locals/t", Some(State::Testing), false, 99),
    ];
    let pending_all = pending(&all, &marker, marker.committed.as_ref(), 3);
    assert_eq!(pending_all[0], resume);
    assert!(
        matches!(&pending_all[1..], [Pending::Close { progress, .. }] if progress.status == State::WontGo),
        "{pending_all:?}"
    );
    open.progress.as_mut().unwrap().retries = 2;
    let given_up = pending(&[open.clone()], &marker, marker.committed.as_ref(), 3);
    assert!(
        matches!(&given_up[..], [Pending::Close { progress, .. }] if progress.message == message::MAX_RETRIES)
    );
    open.progress.as_mut().unwrap().retries = 0;
    marker.remember_failed(digest("locals/open"), 4);
    let failed = pending(&[open], &marker, marker.committed.as_ref(), 3);
    assert!(
        matches!(&failed[..], [Pending::Close { progress, .. }] if progress.status == State::Error)
    );
}

fn reset_of(facts: &mut Facts, wiped: bool) {
    facts.reset = Some(Reset::new(wiped));
}

#[test]
fn a_reset_names_the_factory_before_it_removes_anything() {
    let mut facts = facts();
    reset_of(&mut facts, true);
    let boot = boot(&facts);
    assert_eq!(started(&boot), "run 0", "the trial goes without a word");
    assert_eq!(
        written(&boot),
        [
            "gate marker None",
            "gate reset, wiped true",
            "current 0",
            "tell reset",
            "retain"
        ]
    );
    let marker = Marker {
        committed: Some(id("0")),
        ..Marker::default()
    };
    assert_eq!(boot.marker, marker, "nothing else is named any more");
}

#[test]
fn a_reset_tells_the_boot_loader_and_restarts_for_another_kernel() {
    for (kernel, expected) in [("k", "run 0"), ("other", "reboot")] {
        let mut facts = facts();
        reset_of(&mut facts, false);
        facts.booted = Some(id("locals/c"));
        facts.booted_fingerprint = Some(ObjectId::of(kernel.as_bytes()));
        let boot = boot(&facts);
        assert_eq!(started(&boot), expected);
        let written = written(&boot);
        let gates = [
            "gate marker None",
            "gate confirm 0",
            "gate reset, wiped false",
        ];
        assert_eq!(written[..3], gates, "in this order");
    }
}

#[test]
fn a_reset_verifies_the_factory_and_is_forgotten_when_that_is_not_complete() {
    let mut facts = facts();
    reset_of(&mut facts, true);
    facts.verdicts.remove(&id("0"));
    assert_eq!(decide(&facts), Decision::Verify(id("0")));
    facts.verdicts.extend([bad("0")]);
    let boot = boot(&facts);
    assert_eq!(started(&boot), r#"try locals/t from Some("locals/c")"#);
    assert!(written(&boot).contains(&"forget reset".to_owned()));
    assert!(
        boot.notices[0].contains("was not reset"),
        "{:?}",
        boot.notices
    );
}

#[test]
fn a_reset_waits_for_a_storage_that_takes_writes() {
    let mut facts = facts();
    reset_of(&mut facts, true);
    facts.cannot_count = Some("read-only".to_owned());
    let boot = boot(&facts);
    assert_eq!(started(&boot), "run locals/c");
    assert!(!written(&boot).iter().any(|write| write.contains("reset")));
    assert!(boot.notices[0].contains("waits"), "{:?}", boot.notices);
}

/// What a boot finds in the marker, what the boot loader started, which revisions are complete; and what runs.
#[test]
fn the_newest_complete_revision_runs_whatever_marker_and_boot_loader_say() {
    let complete = |text: &str| -> Vec<String> {
        let words = text.split_whitespace();
        words.map(|word| word.replace('~', "locals/")).collect()
    };
    // marker (committed, previous), booted ("-": no boot loader), complete ones, expected
    let rows = [
        ("c p", "-", "0 ~p ~c", "run locals/c"),
        ("c p", "-", "0 ~p", "run locals/p"),
        ("c p", "-", "0", "run 0"),
        ("c p", "-", "", "nothing"),
        ("c p", "c", "0 ~p ~c", "run locals/c"),
        ("c p", "p", "0 ~p ~c", "run locals/c"),
        ("c p", "0", "0 ~p ~c", "run locals/c"),
        ("c p", "gone", "0 ~p ~c", "run locals/c"),
        ("c p", "p", "0 ~p", "run locals/p"),
        ("c p", "0", "0", "run 0"),
        ("gone p", "-", "0 ~p ~c", "run locals/p"),
        ("gone p", "c", "0 ~p ~c", "run locals/p"),
        ("gone gone2", "-", "0 ~p ~c", "run locals/c"),
        // No marker: the newest that was committed once, whatever the boot loader started.
        ("", "-", "0 ~p ~c", "run locals/c"),
        ("", "-", "0 ~p", "run locals/p"),
        ("", "-", "0", "run 0"),
        ("", "-", "", "nothing"),
        ("", "c", "0 ~p ~c", "run locals/c"),
        ("", "0", "0 ~p ~c", "run locals/c"),
        ("", "gone", "0 ~p", "run locals/p"),
        ("", "gone", "", "nothing"),
    ];
    for (marker, booted, good_ones, expected) in rows {
        let names = ["0", "locals/p", "locals/c"];
        let good_ones = complete(good_ones);
        let local = |name: &str| id(&format!("locals/{name}"));
        let mut named = marker.split_whitespace().map(local);
        let marked = Marker {
            committed: named.next(),
            previous: named.next(),
            ..Marker::default()
        };
        let verdicts = names.map(|name| match good_ones.iter().any(|good| good == name) {
            true => good(name, "k"),
            false => bad(name),
        });
        let missing = ["gone", "gone2"].map(|name| {
            let verdict = Verdict::BadManifest("it is not there".to_owned());
            (local(name), verdict)
        });
        let facts = Facts {
            marker: (!marker.is_empty()).then_some(marked),
            booted: match booted {
                "-" => None,
                "0" => Some(id("0")),
                name => Some(local(name)),
            },
            // One kernel for all: which one runs is told by another table.
            booted_fingerprint: Some(ObjectId::of(b"k")),
            verdicts: verdicts.into_iter().chain(missing).collect(),
            ..facts()
        };
        let row = format!("marker {marker:?}, booted {booted}, complete {good_ones:?}");
        let boot = boot(&facts);
        assert_eq!(started(&boot), expected, "{row}");
        let confirmed = written(&boot).iter().any(|it| it.starts_with("confirm"));
        let runs = expected.strip_prefix("run ");
        let other = booted != "-"
            && runs.is_some()
            && facts.booted.as_ref().map(RevisionId::as_str) != runs;
        assert_eq!(confirmed, other, "the boot loader is told of it: {row}");
    }
}
