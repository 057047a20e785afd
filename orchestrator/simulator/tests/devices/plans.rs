//! "What it says is what then happens": plans of generated pairs of revisions against the simulated device.

use simulator::plans::{Compared, hold};

/// Pairs; at least 200 must have been compared.
const SEEDS: u64 = 200;

#[test]
fn what_a_plan_says_is_what_then_happens() {
    let first = std::env::var("SEED").map_or(0, |seed| seed.parse().expect("a number"));
    let mut all = Compared::default();
    for seed in first..first + SEEDS {
        match hold(seed, false) {
            Ok(compared) => all += compared,
            Err(_) => panic!("{}", hold(seed, true).expect_err("it failed just now")),
        }
    }
    println!("{all:?}");
    assert!(all.pairs >= 200, "{all:?}");
    // A comparison of nothing with nothing shows nothing.
    for (what, count, least) in [
        ("reboots", all.reboots, 20),
        ("kept", all.kept, 100),
        ("restarted", all.restarted, 100),
        ("started", all.started, 50),
        ("stopped", all.stopped, 50),
        ("collected objects", all.collected, 50),
        ("removed revisions", all.removed, 20),
        ("timed commits", all.timed, 10),
        ("rollbacks", all.rollbacks, 20),
    ] {
        assert!(count >= least, "only {count} {what}: {all:?}");
    }
}
