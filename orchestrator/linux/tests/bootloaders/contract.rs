//! The contract of `device::ports::Bootloader`: what is armed starts once, what is confirmed starts from then on, and whatever is cut or
//! fails in between, the machine starts the one or the other.

use model::RevisionId;
use simulator::choices::Choices;

use super::machines::{Machine, Make, Restart, id, machines};

/// Arms, restarts in order, and returns what started.
fn arm_and_start(machine: &dyn Machine, booted: &RevisionId, trial: &RevisionId) -> RevisionId {
    machine.port(Some(booted.clone())).arm(trial).unwrap();
    let started = machine.start(Restart::Asked).unwrap();
    if started != *trial && machine.may_need_two_arms() {
        machine.port(Some(started)).arm(trial).unwrap();
        return machine.start(Restart::Asked).unwrap();
    }
    started
}

/// A machine that runs the committed revision 0.
fn with_factory(make: Make) -> Box<dyn Machine> {
    let machine = make();
    machine.port(None).confirm(&id("0")).unwrap();
    assert_eq!(machine.start(Restart::PowerCut), Some(id("0")));
    machine
}

#[test]
fn what_is_armed_starts_once() {
    for (name, make) in machines() {
        let (zero, one) = (id("0"), id("1"));
        let machine = with_factory(make);
        assert_eq!(
            machine.port(Some(zero.clone())).booted(),
            Some(zero.clone()),
            "{name}"
        );
        for _ in 0..3 {
            assert_eq!(arm_and_start(&*machine, &zero, &one), one, "{name}");
            for _ in 0..2 {
                let started = machine.start(Restart::PowerCut).unwrap();
                assert_eq!(started, zero, "{name}: the trial was not confirmed");
                machine.port(Some(started)).confirm(&zero).unwrap();
            }
        }
        assert_eq!(arm_and_start(&*machine, &zero, &one), one, "{name}");
        machine.port(Some(one.clone())).confirm(&one).unwrap();
        for restart in [Restart::Asked, Restart::PowerCut, Restart::Asked] {
            assert_eq!(
                machine.start(restart),
                Some(one.clone()),
                "{name}: it was confirmed"
            );
        }
        // And back again.
        assert_eq!(arm_and_start(&*machine, &one, &zero), zero, "{name}");
        assert_eq!(machine.start(Restart::Asked), Some(one.clone()), "{name}");
        machine.port(Some(one.clone())).confirm(&one).unwrap();
        assert_eq!(machine.start(Restart::Asked), Some(one), "{name}");
    }
}

#[test]
fn an_armed_trial_can_be_given_up_or_replaced_before_it_starts() {
    for (name, make) in machines() {
        let machine = with_factory(make);
        machine.port(Some(id("0"))).arm(&id("1")).unwrap();
        machine.port(Some(id("0"))).confirm(&id("0")).unwrap();
        assert_eq!(machine.start(Restart::Asked), Some(id("0")), "{name}");
        machine.port(Some(id("0"))).arm(&id("1")).unwrap();
        assert_eq!(
            arm_and_start(&*machine, &id("0"), &id("2")),
            id("2"),
            "{name}"
        );
        assert_eq!(machine.start(Restart::Asked), Some(id("0")), "{name}");
    }
}

#[test]
fn any_name_can_be_tried() {
    for (name, make) in machines() {
        let odd = id("locals/a b");
        let machine = with_factory(make);
        assert_eq!(arm_and_start(&*machine, &id("0"), &odd), odd, "{name}");
        machine.port(Some(odd.clone())).confirm(&odd).unwrap();
        assert_eq!(machine.start(Restart::PowerCut), Some(odd), "{name}");
    }
}

/// What is done when the power goes, and what may start afterwards.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Act {
    Arm,
    CommitTrial,
    GiveUpUnstarted,
    GiveUpStarted,
    /// The boot loader itself writes.
    Start,
}

const ACTS: [Act; 5] = [
    Act::Arm,
    Act::CommitTrial,
    Act::GiveUpUnstarted,
    Act::GiveUpStarted,
    Act::Start,
];

/// Brings a machine to where the act begins.
fn before(act: Act, machine: &dyn Machine) {
    match act {
        Act::Arm => {}
        Act::GiveUpUnstarted | Act::Start => machine.port(Some(id("0"))).arm(&id("1")).unwrap(),
        Act::CommitTrial => assert_eq!(arm_and_start(machine, &id("0"), &id("1")), id("1")),
        Act::GiveUpStarted => {
            assert_eq!(arm_and_start(machine, &id("0"), &id("1")), id("1"));
            assert_eq!(machine.start(Restart::PowerCut), Some(id("0")));
        }
    }
}

fn carry_out(act: Act, machine: &dyn Machine) -> Result<(), String> {
    match act {
        Act::Arm => machine.port(Some(id("0"))).arm(&id("1")),
        Act::CommitTrial => machine.port(Some(id("1"))).confirm(&id("1")),
        Act::GiveUpUnstarted | Act::GiveUpStarted => machine.port(Some(id("0"))).confirm(&id("0")),
        Act::Start => machine
            .start(Restart::Asked)
            .map(|_| ())
            .ok_or_else(String::new),
    }
}

/// Whatever happened: 0 or 1 starts, a trial at most once, and the device can go on as if nothing had been.
fn still_works(name: &str, act: Act, machine: &dyn Machine, done: bool) {
    let first = machine
        .start(Restart::PowerCut)
        .unwrap_or_else(|| panic!("{name}, {act:?}: nothing starts"));
    let second = machine.start(Restart::PowerCut).unwrap();
    let (zero, one) = (id("0"), id("1"));
    let allowed: &[(&RevisionId, &RevisionId)] = match (act, done) {
        (Act::CommitTrial, true) => &[(&one, &one)],
        (Act::CommitTrial, false) => &[(&zero, &zero), (&one, &one), (&one, &zero)],
        (Act::GiveUpUnstarted | Act::GiveUpStarted, true) => &[(&zero, &zero)],
        (Act::GiveUpStarted, false) => &[(&zero, &zero)],
        (Act::Arm | Act::GiveUpUnstarted | Act::Start, _) => &[(&zero, &zero), (&one, &zero)],
    };
    // The script of Pantavisor forgets at the fallback that it has tried, unless the system gives the trial up.
    let pantavisor = machine.may_need_two_arms();
    assert!(
        pantavisor || allowed.contains(&(&first, &second)),
        "{name}, {act:?} (done: {done}): {first} started, then {second}"
    );
    machine.port(Some(second.clone())).confirm(&second).unwrap();
    assert_eq!(
        machine.start(Restart::Asked),
        Some(second.clone()),
        "{name}, {act:?}"
    );
    let other = if second == zero { one } else { zero };
    assert_eq!(
        arm_and_start(machine, &second, &other),
        other,
        "{name}, {act:?}"
    );
    machine.port(Some(other.clone())).confirm(&other).unwrap();
    assert_eq!(
        machine.start(Restart::PowerCut),
        Some(other),
        "{name}, {act:?}"
    );
}

#[test]
fn power_cut_at_every_write() {
    let mut runs = 0;
    for (name, make) in machines() {
        for act in ACTS {
            for operation in 0.. {
                let mut choices = Choices::every();
                let was_cut = loop {
                    let machine = with_factory(make);
                    before(act, &*machine);
                    machine.cut_at(Some(operation));
                    let result = carry_out(act, &*machine);
                    let was_cut = machine.is_cut();
                    machine.crash(&mut |options| choices.choose(options));
                    still_works(name, act, &*machine, result.is_ok());
                    runs += 1;
                    if !choices.advance() {
                        break was_cut;
                    }
                };
                if !was_cut {
                    break;
                }
            }
        }
    }
    assert!(runs > 200, "only {runs} runs");
    eprintln!("{runs} power cuts");
}

#[test]
fn failure_at_every_write() {
    for (name, make) in machines() {
        for act in ACTS.into_iter().filter(|act| *act != Act::Start) {
            for operation in 0..60 {
                let machine = with_factory(make);
                before(act, &*machine);
                machine.fail_at(Some(operation));
                let result = carry_out(act, &*machine);
                machine.fail_at(None);
                still_works(name, act, &*machine, result.is_ok());
            }
        }
    }
}

/// What the device asks again after a start that found the write not made.
#[test]
fn asking_again_changes_nothing() {
    for (name, make) in machines() {
        let machine = with_factory(make);
        for _ in 0..3 {
            machine.port(Some(id("0"))).confirm(&id("0")).unwrap();
            machine.port(Some(id("0"))).arm(&id("1")).unwrap();
            machine.port(Some(id("0"))).arm(&id("1")).unwrap();
        }
        assert_eq!(machine.start(Restart::Asked), Some(id("1")), "{name}");
        assert_eq!(machine.start(Restart::Asked), Some(id("0")), "{name}");
    }
}
