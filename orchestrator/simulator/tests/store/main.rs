//! The store on disks that keep no more than they promise.
//!
//! `operations`: every store operation with every power cut (up to two) and every disk operation that fails; `lives` is how, `broken`
//! the disk between. `bugs`: seeded bugs that these checks must notice. `readers`: nobody is told what a cut could still take away.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "tests; most bugs leave most operations alone"
)]

mod broken;
mod bugs;
mod lives;
mod operations;
mod readers;
