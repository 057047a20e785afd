//! Seeded lives, by the thousand here and by the million in CI.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use simulator::acts::Outcome;
use simulator::lives::{Length, Lives};
use simulator::scenarios::Tally;

const LIVES_DEFAULT: u64 = 300;

fn wanted() -> u64 {
    std::env::var("LIVES").map_or(LIVES_DEFAULT, |text| {
        text.parse().expect("LIVES is a number of lives")
    })
}

fn report(seed: u64, length: Length, outcome: &Outcome) -> String {
    let violation = &outcome.violations[0];
    let word = match length {
        Length::Short => "short",
        Length::Long => "long",
    };
    format!(
        "invariant {}: {}\nreplay with\n  SEED={seed} LENGTH={word} cargo test --profile simulation -p simulator --test devices -- replay --nocapture\n{}",
        violation.invariant, violation.what, outcome.log
    )
}

/// Lives seeds from `first` on until so many lives had a power cut.
fn live_many(first: u64, wanted: u64, length: Length) -> Tally {
    let began = Instant::now();
    let (seed, cut) = (AtomicU64::new(first), AtomicU64::new(0));
    let (stop, total) = (AtomicBool::new(false), Mutex::new(Tally::default()));
    let work = || {
        let lives = Lives::new();
        let mut tally = Tally::default();
        while cut.load(Ordering::Relaxed) < wanted && !stop.load(Ordering::Relaxed) {
            let seed = seed.fetch_add(1, Ordering::Relaxed);
            let outcome = lives.live(seed, length, false);
            tally.add(&outcome);
            cut.fetch_add(u64::from(outcome.counts.cuts > 0), Ordering::Relaxed);
            if !outcome.violations.is_empty() {
                let logged = lives.live(seed, length, true);
                tally.report(report(seed, length, &logged));
                stop.store(true, Ordering::Relaxed);
            }
        }
        total.lock().expect("nobody panics with it").merge(tally);
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(work);
        }
    });
    let tally = total.into_inner().expect("nobody panics with it");
    let seconds = began.elapsed().as_secs_f64();
    println!("{length:?} lives: {tally}, {seconds:.1} s");
    assert!(
        tally.violations.is_empty(),
        "{}",
        tally.violations.join("\n\n")
    );
    tally
}

#[test]
fn short_lives() {
    let wanted = wanted();
    let tally = live_many(0, wanted, Length::Short);
    assert!(tally.lives_cut >= wanted);
}

#[test]
fn long_lives() {
    live_many(1 << 40, wanted().div_ceil(500), Length::Long);
}

/// Lives again what `SEED` says, and prints all that happened.
#[test]
fn replay() {
    let Ok(seed) = std::env::var("SEED") else {
        return;
    };
    let seed = seed.parse().expect("SEED is a number");
    let length = match std::env::var("LENGTH").as_deref() {
        Ok("long") => Length::Long,
        Ok(_) | Err(_) => Length::Short,
    };
    let outcome = Lives::new().live(seed, length, true);
    println!("{}\n{:?}", outcome.log, outcome.counts);
    assert!(outcome.violations.is_empty(), "{:#?}", outcome.violations);
}
