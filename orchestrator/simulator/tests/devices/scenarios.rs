//! Single updates: as they must end, and at every point at which they can be cut, killed or failed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use simulator::scenarios::{Sweep, Tally, all};

/// Scenarios are shared out to so many threads; each builds its own, because nothing in a simulated device leaves its thread.
fn sweep_all(sweep: Sweep, wanted: fn(&simulator::scenarios::Scenario) -> bool) -> Tally {
    let began = Instant::now();
    let next = AtomicUsize::new(0);
    let work = || {
        let scenarios: Vec<_> = all().into_iter().filter(wanted).collect();
        let mut tally = Tally::default();
        while let Some(scenario) = scenarios.get(next.fetch_add(1, Ordering::Relaxed)) {
            tally.merge(scenario.sweep(sweep));
        }
        tally
    };
    let tally = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        let mut tally = Tally::default();
        for thread in threads {
            tally.merge(thread.join().expect("a simulation does not panic"));
        }
        tally
    });
    println!("{sweep:?}: {tally}, {:.1} s", began.elapsed().as_secs_f64());
    assert!(
        tally.violations.is_empty(),
        "{}",
        tally.violations.join("\n\n")
    );
    tally
}

#[test]
fn every_scenario_ends_as_it_must() {
    let scenarios = all();
    assert!(scenarios.len() >= 30);
    let wrong: Vec<_> = scenarios
        .iter()
        .filter_map(|scenario| scenario.plain().err())
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn the_power_is_cut_at_every_operation() {
    let tally = sweep_all(Sweep::Cut, |_| true);
    // The last operations of some lives come when faults have stopped already.
    assert!(tally.lives_cut * 100 > tally.lives * 99);
}

#[test]
fn the_orchestrator_is_killed_at_every_operation() {
    sweep_all(Sweep::KillAtOperation, |_| true);
}

#[test]
fn the_orchestrator_is_killed_after_every_event() {
    sweep_all(Sweep::KillAtEvent, |_| true);
}

#[test]
fn every_operation_fails_once() {
    sweep_all(Sweep::Fail, |_| true);
}

/// Half a minute in profile `simulation`; too long for a debug build.
#[test]
fn the_power_is_cut_twice() {
    if std::env::var_os("LIVES").is_none() {
        println!("left out: set LIVES to cut twice, as tests/run does");
        return;
    }
    sweep_all(Sweep::CutTwice, |scenario| scenario.two_cuts);
}
