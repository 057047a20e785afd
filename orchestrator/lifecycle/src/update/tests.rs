//! Any order of events, against a model that keeps only what the invariants need.

use std::collections::BTreeMap;

use model::failure::{BadObject, Cause};
use model::{Goal, ObjectId, Status};
use proptest::prelude::*;

use super::*;

const SETTINGS: Settings = Settings {
    commit_delay: Duration::from_secs(25),
    tries: 3,
    exact_commit: false,
    goal_losses_max: 2,
    shutdown_limit: Duration::from_secs(60),
};

fn id(n: u8) -> RevisionId {
    format!("locals/r{n}").parse().unwrap()
}

fn running(n: u8) -> Running {
    Running {
        revision: id(n),
        digest: ObjectId::of(&[n]),
    }
}

fn wanted(n: u8) -> Wanted {
    Wanted {
        revision: id(n),
        digest: ObjectId::of(&[n]),
        was_done: n == 0,
        by_reboot: false,
        commit: false,
        again: false,
        retries: 0,
    }
}

fn summary(reached: bool, stable: bool) -> Summary {
    Summary {
        reached,
        stable: reached && stable,
        passed: reached,
        failure: None,
        below: None,
        reboot: None,
        gone: false,
    }
}

fn failed() -> Summary {
    Summary {
        failure: Some(Failed {
            container: "web".parse().unwrap(),
            cause: Cause::GoalNotReached {
                goal: Goal::Ready,
                status: Status::Started,
                timeout_s: 30,
                probe: None,
            },
        }),
        ..summary(false, false)
    }
}

#[derive(Debug, Clone)]
enum Act {
    Run(u8, bool, bool),
    Unusable,
    GiveUp,
    Verified(u8, bool),
    Containers(u8),
    Shutdown(u8),
    Wait(u16),
    /// The next gate fails.
    Refuse,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (0..4u8, any::<bool>(), any::<bool>()).prop_map(|(n, again, by)| Act::Run(n, again, by)),
        1 => Just(Act::Unusable),
        1 => Just(Act::GiveUp),
        5 => (0..4u8, prop::bool::weighted(0.2)).prop_map(|(n, bad)| Act::Verified(n, bad)),
        8 => (0..6u8).prop_map(Act::Containers),
        1 => (0..3u8).prop_map(Act::Shutdown),
        6 => (0..30_000u16).prop_map(Act::Wait),
        1 => Just(Act::Refuse),
    ];
    prop::collection::vec(act, 1..60)
}

/// What a world outside sees: the durable marker, the durable progress, what was started.
struct Witness {
    update: Update,
    durable: Marker,
    progress: BTreeMap<RevisionId, State>,
    /// Since when this trial has held all its goals, as told to the machine.
    held: Option<(RevisionId, u64)>,
    now: u64,
    refuse: bool,
    ended: bool,
    requests_open: i32,
    /// `again` was given with the last run.
    insisted: bool,
}

impl Witness {
    fn act(&mut self, act: &Act) {
        let event = match act {
            Act::Wait(ms) => {
                self.now += u64::from(*ms);
                return;
            }
            Act::Refuse => {
                self.refuse = true;
                return;
            }
            Act::Run(n, again, by_reboot) => {
                self.insisted = *again;
                self.requests_open += 1;
                Event::Run(Wanted {
                    again: *again,
                    by_reboot: *by_reboot,
                    ..wanted(*n)
                })
            }
            Act::Unusable => {
                self.requests_open += 1;
                Event::RunUnusable(id(9), Unusable::Missing)
            }
            Act::GiveUp => {
                self.requests_open += 1;
                Event::GiveUp
            }
            Act::Verified(n, bad) => {
                let object = BadObject {
                    object: ObjectId::of(b"x"),
                    key: "k".to_owned(),
                    problem: "missing".to_owned(),
                };
                let bad = if *bad { vec![object] } else { Vec::new() };
                Event::Verified {
                    revision: id(*n),
                    bad,
                }
            }
            Act::Containers(kind) => {
                let summary = match kind {
                    0 => summary(false, false),
                    1 => failed(),
                    2 => summary(true, false),
                    _ => summary(true, true),
                };
                self.watch(&summary);
                Event::Containers(summary)
            }
            Act::Shutdown(kind) => {
                self.requests_open += 1;
                Event::Shutdown(match kind {
                    0 => Ending::Reboot,
                    1 => Ending::PowerOff,
                    _ => Ending::Stop {
                        containers_keep_running: true,
                    },
                })
            }
        };
        let now = Instant(self.now);
        let effects = self.update.step(now, event);
        self.carry(effects);
    }

    fn watch(&mut self, summary: &Summary) {
        let trial = match self.update.phase() {
            Phase::Starting(attempt) | Phase::Observing { attempt, .. } => {
                Some(attempt.revision.clone())
            }
            Phase::Settled
            | Phase::Verifying { .. }
            | Phase::RollingBack { .. }
            | Phase::ShuttingDown { .. }
            | Phase::Clearing { .. } => None,
        };
        self.held = match (trial, summary.reached, self.held.take()) {
            (Some(trial), true, Some((held, since))) if held == trial => Some((trial, since)),
            (Some(trial), true, _) => Some((trial, self.now)),
            (Some(_), false, _) | (None, _, _) => None,
        };
    }

    fn carry(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Gate(gate, write) => {
                    if std::mem::take(&mut self.refuse) {
                        let event = Event::GateFailed(gate, "disk full".to_owned());
                        let effects = self.update.step(Instant(self.now), event);
                        self.carry(effects);
                        return;
                    }
                    self.write(write);
                }
                Effect::Owe(write) => self.write(write),
                Effect::Run(Some(revision), Mode::Trial) => {
                    let trial = self
                        .durable
                        .trial
                        .as_ref()
                        .expect("in the marker before it runs");
                    assert_eq!(trial.revision, revision);
                    assert!(trial.tries_left < SETTINGS.tries, "counted before it runs");
                }
                Effect::Run(revision, Mode::Normal) => {
                    assert_eq!(
                        self.durable.trial, None,
                        "nothing is tried after a rollback"
                    );
                    let back = revision.expect("there is something to go back to");
                    assert_ne!(self.progress.get(&back), Some(&State::InProgress));
                }
                Effect::Run(None, Mode::Trial) => panic!("nothing cannot be tried"),
                Effect::Answer(_) => self.requests_open -= 1,
                Effect::End(_) => self.ended = true,
                Effect::Verify(_)
                | Effect::Settle
                | Effect::StopAll
                | Effect::StartAgain
                | Effect::Retain
                | Effect::Tell(..) => {}
            }
        }
    }

    fn write(&mut self, write: Write) {
        match write {
            Write::Marker(marker) => {
                if marker.committed != self.durable.committed {
                    let (held, since) = self.held.clone().expect("was observed healthy");
                    assert_eq!(Some(held), marker.committed);
                    let long = self.now - since;
                    assert!(
                        u128::from(long) >= SETTINGS.commit_delay.as_millis(),
                        "{long}"
                    );
                    assert_eq!(marker.previous, self.durable.committed);
                    assert_eq!(marker.trial, None);
                }
                self.durable = marker;
            }
            Write::Progress(revision, progress) => {
                let before = self.progress.insert(revision.clone(), progress.status);
                if let Some(before) = before {
                    let anew = matches!(progress.status, State::InProgress | State::WontGo)
                        && before.is_final();
                    let failed = progress.status == State::Error;
                    assert!(
                        progress.status.percent() >= before.percent() || anew || failed,
                        "{revision}: {before} to {}",
                        progress.status
                    );
                }
            }
            Write::Done(revision) => assert_eq!(self.durable.committed, Some(revision)),
            Write::Confirm(_)
            | Write::Arm(_)
            | Write::Reset(_)
            | Write::ForgetReset
            | Write::Current(_)
            | Write::Failure(_) => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn no_order_of_events_breaks_an_invariant(acts in acts()) {
        let durable = Marker { committed: Some(id(0)), ..Marker::default() };
        let mut witness = Witness {
            update: Update::settled(SETTINGS, durable.clone(), Some(running(0)), 1),
            durable,
            progress: BTreeMap::from([(id(0), State::Done)]),
            held: None,
            now: 0,
            refuse: false,
            ended: false,
            requests_open: 0,
            insisted: false,
        };
        for act in &acts {
            if witness.ended {
                break;
            }
            witness.act(act);
            let deferred = matches!(
                witness.update.phase(),
                Phase::Verifying { answered: false, .. }
            );
            // The loop closes a deferred request that was given up; here it is only counted.
            if !deferred {
                prop_assert!(witness.requests_open >= 0, "answered twice");
                witness.requests_open = 0;
            }
            if let Some(wake) = witness.update.next_wake(Instant(witness.now)) {
                prop_assert!(wake > Instant(witness.now));
            }
        }
        // When nothing goes wrong any more, it comes to rest.
        let mut quiet = 0;
        while quiet < 200 && !witness.ended {
            witness.refuse = false;
            if let Phase::Verifying { wanted, .. } = witness.update.phase().clone() {
                let event = Event::Verified { revision: wanted.revision, bad: Vec::new() };
                let effects = witness.update.step(Instant(witness.now), event);
                witness.carry(effects);
            }
            witness.act(&Act::Containers(5));
            witness.now += 30_000;
            quiet += 1;
            if *witness.update.phase() == Phase::Settled {
                break;
            }
        }
        prop_assert!(witness.ended || *witness.update.phase() == Phase::Settled);
        prop_assert_eq!(&witness.durable, witness.update.marker());
        let open = witness.progress.iter().find(|(_, state)| !state.is_final());
        prop_assert!(witness.ended || open.is_none(), "{open:?} never ended");
    }
}

#[test]
fn running_what_runs_is_accepted_and_does_nothing() {
    let marker = Marker {
        committed: Some(id(0)),
        ..Marker::default()
    };
    let mut update = Update::settled(SETTINGS, marker, Some(running(0)), 1);
    let effects = update.step(Instant(0), Event::Run(wanted(0)));
    assert_eq!(effects, [Effect::Answer(Ok(()))]);
    assert_eq!(*update.phase(), Phase::Settled);
}

#[test]
fn a_back_off_policy_restarts_the_machine_with_a_record() {
    let marker = Marker::default();
    let mut update = Update::settled(SETTINGS, marker, Some(running(0)), 5);
    let mut summary = summary(false, false);
    summary.reboot = failed().failure;
    let effects = update.step(Instant(0), Event::Containers(summary));
    assert!(
        matches!(&effects[0], Effect::Owe(Write::Failure(failing)) if failing.id == 5),
        "{effects:?}"
    );
    assert_eq!(effects.last(), Some(&Effect::StopAll));
    let gone = Summary {
        gone: true,
        ..self::summary(false, false)
    };
    let effects = update.step(Instant(1), Event::Containers(gone));
    assert_eq!(effects, [Effect::End(Ending::Reboot)]);
}
