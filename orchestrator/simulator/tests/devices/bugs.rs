//! Mistakes on purpose: each must be noticed by a checker, or the checkers prove nothing.

use simulator::bugs::ALL;
use simulator::scenarios::all;

#[test]
fn every_bug_of_a_device_is_noticed() {
    let scenarios = all();
    let mut missed = Vec::new();
    for seeded in &ALL {
        match seeded.noticed(&scenarios) {
            Some(words) => println!("{}: {words}", seeded.what),
            None => missed.push(seeded.what),
        }
    }
    println!("{} seeded bugs, {} missed", ALL.len(), missed.len());
    assert!(missed.is_empty(), "nobody noticed: {missed:?}");
}
