//! The machine by itself: the ways through it, and properties over any sequence of events.

use model::{ObjectId, Progress, RevisionId};
use proptest::prelude::*;

use super::*;

mod crashes;

fn id(text: &str) -> DeploymentId {
    text.parse().unwrap()
}

fn terms(name: &str) -> Terms {
    Terms {
        id: id(name),
        content: ObjectId::of(name.as_bytes()),
        download: Gate::Now,
        install: Gate::Now,
        again: false,
    }
}

fn wait(reason: &str) -> Gate {
    Gate::Wait {
        reason: reason.to_owned(),
    }
}

fn revision(name: &str) -> RevisionId {
    format!("locals/{name}").parse().unwrap()
}

fn prepared(name: &str) -> Event {
    Event::Prepared {
        revision: revision(name),
        manifest: ObjectId::of(name.as_bytes()),
        base: None,
    }
}

fn fetched() -> Event {
    Event::Fetched(Fetched::default())
}

fn told(name: &str, status: State) -> Event {
    Event::Told(Box::new(Told {
        revision: revision(name),
        progress: Some(Progress::new(status, "as it is", 0)),
        trouble: None,
    }))
}

fn trouble(code: Code) -> Trouble {
    Trouble::new(code, "so it is")
}

/// Steps through events with a cloud that takes everything at once; what was told, in words.
fn run(machine: &mut Machine, events: impl IntoIterator<Item = Event>) -> Vec<String> {
    let mut told = Vec::new();
    for event in events {
        machine.step(Instant::ZERO, event);
        while let Some(report) = machine.next_report().cloned() {
            told.push(report.text());
            machine.step(
                Instant::ZERO,
                Event::Reported {
                    number: report.number,
                    how: Reported::Taken,
                },
            );
        }
    }
    told
}

fn fresh() -> Machine {
    Machine::new(Record::default())
}

fn phase(machine: &Machine) -> Option<Phase> {
    machine.current().map(|held| held.phase)
}

#[test]
fn the_whole_way() {
    let mut machine = fresh();
    let news = run(
        &mut machine,
        [
            Event::Started,
            Event::Offered(terms("8")),
            prepared("a"),
            fetched(),
            Event::Accepted,
            told("a", State::InProgress),
            told("a", State::Testing),
            told("a", State::Updated),
            told("other", State::Done),
        ],
    );
    assert_eq!(phase(&machine), Some(Phase::Observing));
    assert_eq!(
        news,
        [
            "the deployment is accepted",
            "everything is on the device and verified",
            "revision locals/a is being installed",
            "revision locals/a runs and is observed before it is committed",
        ]
    );
    let news = run(&mut machine, [told("a", State::Done)]);
    assert_eq!(news, ["revision locals/a runs and is committed"]);
    assert_eq!(machine.current(), None);
}

#[test]
fn a_rollback_is_told_with_its_cause_and_not_tried_again() {
    let mut machine = fresh();
    let sick = Event::Told(Box::new(Told {
        revision: revision("a"),
        progress: Some(Progress::new(State::Error, "Update aborted", 0)),
        trouble: Some(Trouble::new(Code::Exited, "container web: it ended")),
    }));
    let way = [
        Event::Offered(terms("8")),
        prepared("a"),
        fetched(),
        Event::Accepted,
        told("a", State::Testing),
        sick,
    ];
    let news = run(&mut machine, way);
    assert_eq!(news.last().unwrap(), "container web: it ended");
    let effects = machine.step(Instant::ZERO, Event::Offered(terms("8")));
    assert!(!effects.contains(&Effect::Fetch), "{effects:?}");
    assert_eq!(run(&mut machine, []), Vec::<String>::new());
    let news = run(&mut machine, [Event::Started]);
    assert_eq!(news, ["container web: it ended"]);
    let mut again = terms("8");
    again.again = true;
    machine.step(Instant::ZERO, Event::Offered(again));
    assert_eq!(phase(&machine), Some(Phase::Downloading));
}

#[test]
fn a_cancel_before_during_and_after_the_download_and_too_late() {
    let way = [
        Event::Offered(Terms {
            download: wait("the window is closed"),
            ..terms("8")
        }),
        Event::Offered(terms("8")),
        prepared("a"),
        fetched(),
        Event::Accepted,
        told("a", State::Testing),
    ];
    for steps in 1..=way.len() {
        let mut machine = fresh();
        let mut events = way[..steps].to_vec();
        // The download ends while the window is closed.
        if steps == 4 {
            events.insert(
                2,
                Event::Offered(Terms {
                    install: wait("later"),
                    ..terms("8")
                }),
            );
        }
        run(&mut machine, events);
        let before = phase(&machine).unwrap();
        let news = run(
            &mut machine,
            [Event::CancelAsked(id("8")), Event::CancelAsked(id("8"))],
        );
        if before.can_be_cancelled() {
            assert!(steps <= 4);
            assert!(news[0].starts_with("given up"), "{news:?}");
            assert_eq!(phase(&machine), None);
        } else {
            assert_eq!(news.len(), 1, "told once: {news:?}");
            assert!(news[0].starts_with("too late"), "{news:?}");
            // The cloud has understood, offers it again, and asks once more.
            let news = run(
                &mut machine,
                [
                    Event::Offered(terms("8")),
                    Event::CancelAsked(id("8")),
                    Event::Accepted,
                    told("a", State::Done),
                ],
            );
            assert!(news[0].starts_with("too late"), "{news:?}");
            assert!(news.last().unwrap().ends_with("committed"), "{news:?}");
        }
    }
    let mut machine = fresh();
    let news = run(
        &mut machine,
        [Event::CancelAsked(id("7")), Event::CancelAsked(id("7"))],
    );
    assert!(
        news.iter().all(|text| text.starts_with("given up")) && !news.is_empty(),
        "what is not known is given up"
    );
}

#[test]
fn gates() {
    let closed = |name: &str| Terms {
        install: wait("the maintenance window is closed"),
        ..terms(name)
    };
    let mut machine = fresh();
    let news = run(
        &mut machine,
        [
            Event::Offered(closed("8")),
            prepared("a"),
            fetched(),
            Event::Offered(closed("8")),
        ],
    );
    assert_eq!(
        news.last().unwrap(),
        "waiting: the maintenance window is closed"
    );
    assert_eq!(phase(&machine), Some(Phase::Downloaded));
    let effects = machine.step(Instant::ZERO, Event::Offered(terms("8")));
    assert!(effects.contains(&Effect::Install(revision("a"))));

    // Download only.
    let mut machine = fresh();
    let only = Terms {
        install: Gate::Never,
        ..terms("9")
    };
    let news = run(
        &mut machine,
        [Event::Offered(only), prepared("a"), fetched()],
    );
    assert!(
        news.last().unwrap().ends_with("it is not installed"),
        "{news:?}"
    );

    // A person is asked.
    for given in [true, false] {
        let mut machine = fresh();
        let ask = Terms {
            download: Gate::Ask,
            install: Gate::Ask,
            ..terms("10")
        };
        let news = run(&mut machine, [Event::Offered(ask)]);
        assert!(news.last().unwrap().contains("must agree"), "{news:?}");
        let news = run(
            &mut machine,
            [
                Event::Consent {
                    id: id("11"),
                    given,
                },
                Event::Consent {
                    id: id("10"),
                    given,
                },
            ],
        );
        if given {
            assert_eq!(phase(&machine), Some(Phase::Downloading));
            run(&mut machine, [prepared("a"), fetched()]);
            assert_eq!(phase(&machine), Some(Phase::Installing), "asked once");
        } else {
            assert!(news[0].contains("not agreed"), "{news:?}");
        }
    }

    // A window that closes while the download goes on.
    let mut machine = fresh();
    run(&mut machine, [Event::Offered(terms("8"))]);
    let later = Terms {
        download: wait("not now"),
        ..terms("8")
    };
    let effects = machine.step(Instant::ZERO, Event::Offered(later));
    assert!(effects.contains(&Effect::StopFetching), "{effects:?}");
    assert_eq!(phase(&machine), Some(Phase::Offered));
}

#[test]
fn another_deployment_waits_until_the_first_has_given_way_or_ended() {
    let mut machine = fresh();
    run(&mut machine, [Event::Offered(terms("8")), prepared("a")]);
    let effects = machine.step(Instant::ZERO, Event::Offered(terms("9")));
    assert_eq!(
        effects,
        [
            Effect::Save,
            Effect::StopFetching,
            Effect::Report,
            Effect::Remove(revision("a")),
        ]
    );
    let number = machine.next_report().unwrap().number;
    let how = Reported::Gone;
    let effects = machine.step(Instant::ZERO, Event::Reported { number, how });
    assert_eq!(effects, [Effect::Save, Effect::Ask(Asking::Next)]);

    run(
        &mut machine,
        [Event::Offered(terms("9")), prepared("b"), fetched()],
    );
    run(
        &mut machine,
        [Event::Offered(terms("10")), Event::Withdrawn],
    );
    assert_eq!(machine.current().unwrap().id, id("9"), "past the point");
    let news = run(&mut machine, [Event::Accepted, told("b", State::Done)]);
    assert!(news[0].ends_with("committed"), "{news:?}");
}

#[test]
fn what_the_cloud_forgets_is_forgotten() {
    for gone in [true, false] {
        let mut machine = fresh();
        machine.step(Instant::ZERO, Event::Offered(terms("8")));
        let effects = if gone {
            let number = machine.next_report().unwrap().number;
            let how = Reported::Gone;
            machine.step(Instant::ZERO, Event::Reported { number, how })
        } else {
            machine.step(Instant::ZERO, Event::Withdrawn)
        };
        assert!(effects.contains(&Effect::StopFetching), "{effects:?}");
        assert_eq!(machine.current(), None);
        assert_eq!(machine.next_report(), None);
    }
}

#[test]
fn what_vanishes_before_it_runs_is_fetched_again() {
    let mut machine = fresh();
    run(
        &mut machine,
        [Event::Offered(terms("8")), prepared("a"), fetched()],
    );
    let effects = machine.step(Instant::ZERO, Event::Vanished);
    assert_eq!(effects, [Effect::Save, Effect::Ask(Asking::Links)]);
    let effects = machine.step(Instant::ZERO, Event::Offered(terms("8")));
    assert_eq!(effects, [Effect::Fetch]);
    let effects = machine.step(Instant::ZERO, prepared("b"));
    assert_eq!(effects, [Effect::Save, Effect::Remove(revision("a"))]);
    // An order that the device has forgotten is given again.
    run(&mut machine, [fetched(), Event::Accepted]);
    let effects = machine.step(Instant::ZERO, told("b", State::New));
    assert_eq!(effects, [Effect::Save, Effect::Install(revision("b"))]);
}

#[test]
fn progress_is_told_now_and_then_and_never_kept() {
    let mut machine = fresh();
    run(&mut machine, [Event::Offered(terms("8"))]);
    let mut told = 0;
    for second in 0..100 {
        let fetched = Fetched {
            bytes: second,
            ..Fetched::default()
        };
        let at = Instant(second * 1000);
        let effects = machine.step(at, Event::Progressed(fetched));
        assert!(!effects.contains(&Effect::Save));
        told += effects.len();
    }
    assert_eq!(told, 4);
    assert_eq!(machine.next_report().unwrap().number, 0);
    assert!(machine.record().outbox.is_empty());
}

#[test]
fn the_outbox_is_bounded_and_keeps_the_last_word() {
    let mut machine = fresh();
    machine.step(Instant::ZERO, Event::Offered(terms("8")));
    for number in 0..100 {
        let gate = wait(&format!("{number}"));
        let waits = Terms {
            download: gate,
            ..terms("8")
        };
        machine.step(Instant::ZERO, Event::Offered(waits));
        machine.step(Instant::ZERO, Event::CancelAsked(id(&format!("x{number}"))));
    }
    machine.step(Instant::ZERO, Event::CancelAsked(id("8")));
    let outbox = &machine.record().outbox;
    assert!(outbox.len() <= limits::REPORTS_MAX);
    assert!(
        outbox
            .iter()
            .any(|report| report.deployment == id("8") && report.is_final())
    );
}

/// What cannot be read again is as good as lost, and the last word with it.
#[test]
fn whatever_is_remembered_can_be_read_again() {
    let loud = || {
        // Each sign takes two bytes in JSON.
        let line = "\"".repeat(2 * limits::LINE_BYTES_MAX);
        Trouble::new(Code::Other, &line).with_details(vec![line; 2 * limits::LINES_MAX])
    };
    let mut machine = fresh();
    for number in 0..2 * limits::PAST_MAX {
        let name = format!("{number:\"<256}");
        let unreadable = Event::Unreadable {
            id: id(&name),
            trouble: loud(),
        };
        run(&mut machine, [unreadable]);
    }
    let last = Event::Unreadable {
        id: id("last"),
        trouble: loud(),
    };
    machine.step(Instant::ZERO, last);
    for number in 0..limits::REPORTS_MAX {
        let name = format!("{number:\"<256}");
        machine.step(Instant::ZERO, Event::CancelAsked(id(&name)));
    }
    assert_eq!(machine.record().past.len(), limits::PAST_MAX);
    assert_eq!(machine.record().outbox.len(), limits::REPORTS_MAX);
    let home = tempfile::tempdir().unwrap();
    let keep = crate::keep::Keep::open(home.path()).unwrap();
    keep.save(machine.record()).unwrap();
    assert!(keep.record().unwrap() == *machine.record());
}

/// A version that is older than the record may meet words that it does not know.
#[test]
fn a_cause_that_is_not_known_is_some_other_one() {
    let text = r#"{"code":"eaten-by-a-bear","summary":"it is gone"}"#;
    let trouble: Trouble = serde_json::from_str(text).unwrap();
    assert_eq!(trouble.code, Code::Other);
}

fn any_event() -> impl Strategy<Value = Event> {
    let name = prop::sample::select(vec!["a", "b"]);
    let gate = prop::sample::select(vec![
        Gate::Now,
        Gate::Ask,
        Gate::Never,
        wait("x"),
        wait("y"),
    ]);
    let any_id = prop::sample::select(vec!["8", "9"]);
    let status = prop::sample::select(vec![
        State::New,
        State::Queued,
        State::InProgress,
        State::Testing,
        State::Updated,
        State::Done,
        State::WontGo,
        State::Error,
    ]);
    prop_oneof![
        1 => Just(Event::Started),
        4 => (any_id.clone(), gate.clone(), gate, any::<bool>()).prop_map(|(name, download, install, again)| {
            Event::Offered(Terms { download, install, again, ..terms(name) })
        }),
        3 => any_id.clone().prop_map(|name| Event::Offered(terms(name))),
        1 => Just(Event::Withdrawn),
        1 => any_id.clone().prop_map(|name| Event::CancelAsked(id(name))),
        1 => (any_id.clone(), any::<bool>()).prop_map(|(name, given)| Event::Consent { id: id(name), given }),
        1 => any_id.prop_map(|name| Event::Unreadable { id: id(name), trouble: trouble(Code::BadOffer) }),
        3 => name.clone().prop_map(prepared),
        1 => name.clone().prop_map(|name| Event::RunsAlready { revision: revision(name), manifest: ObjectId::of(b"") }),
        1 => Just(Event::Progressed(Fetched::default())),
        3 => Just(fetched()),
        1 => prop::sample::select(vec![Code::NoSpace, Code::Unreachable]).prop_map(|code| Event::Rejected(trouble(code))),
        3 => Just(Event::Accepted),
        1 => Just(Event::Vanished),
        6 => (name, status).prop_map(|(name, status)| told(name, status)),
        6 => (0_u64..40, any::<bool>()).prop_map(|(number, gone)| Event::Reported {
            number,
            how: if gone { Reported::Gone } else { Reported::Taken },
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// The invariants that the head of the module names, over anything that could happen.
    #[test]
    fn whatever_happens(events in prop::collection::vec(any_event(), 0..60)) {
        let mut machine = fresh();
        let mut highest = 0;
        for event in events {
            let before = machine.clone();
            let effects = machine.step(Instant::ZERO, event.clone());
            let (was, is) = (before.current(), machine.current());

            // What is remembered is durable before anything else is done.
            let changed = before.record() != machine.record();
            prop_assert!(!changed || effects.first() == Some(&Effect::Save), "{:?} {:?}", event, effects);
            prop_assert!(!effects.iter().skip(1).any(|effect| *effect == Effect::Save));
            let text = serde_json::to_string(machine.record()).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Record>(&text).unwrap(), machine.record());

            // Numbers are used once.
            for report in machine.record().outbox.iter().filter(|report| !before.record().outbox.contains(report)) {
                prop_assert!(report.number > highest);
                highest = report.number;
                // Success only after the device has committed this very revision, or has run it before.
                if let News::Done { revision, ran_already } = &report.news {
                    if let Event::Told(told) = &event {
                        prop_assert!(!ran_already);
                        prop_assert_eq!(&told.revision, revision);
                        prop_assert_eq!(told.progress.as_ref().unwrap().status, State::Done);
                        prop_assert_eq!(was.unwrap().revision.as_ref(), Some(revision));
                    } else {
                        prop_assert!(*ran_already);
                        let runs = matches!(event, Event::RunsAlready { .. });
                        prop_assert!(runs, "{:?} is told as done", event);
                    }
                }
                // Past the point of no return nothing is told as given up.
                if report.news == News::Cancelled
                    && let Some(was) = was.filter(|was| was.id == report.deployment)
                {
                    prop_assert!(was.phase.can_be_cancelled());
                }
            }
            prop_assert!(machine.record().outbox.len() <= limits::REPORTS_MAX);
            prop_assert!(machine.record().past.len() <= limits::PAST_MAX);

            // Only what is held and allowed is installed, and a final phase is left only by its last report.
            for effect in &effects {
                if let Effect::Install(revision) = effect {
                    prop_assert_eq!(is.unwrap().revision.as_ref(), Some(revision));
                    prop_assert_eq!(is.unwrap().phase, Phase::Installing);
                }
                if let Effect::Remove(revision) = effect
                    && let Some(is) = is.filter(|is| !is.phase.is_final())
                {
                    prop_assert!(is.revision.as_ref() != Some(revision));
                }
            }
            if let (Some(was), Some(is)) = (was, is)
                && was.phase.is_final()
                && was.id == is.id
            {
                prop_assert_eq!(was.phase, is.phase);
            }
            // A final phase has its last word in the outbox.
            if let Some(is) = is.filter(|is| is.phase.is_final()) {
                prop_assert!(machine.record().outbox.iter().any(|report| report.is_final() && report.deployment == is.id));
            }
        }
    }
}
