//! A whole device in memory, with everything that can go wrong around it.
//!
//! The store, the life cycle and the loop are the production ones, unmodified, on one thread with one source of choice; disk,
//! run time, clocks, boot loader and power are simulated. `checkers` watch the invariants.

#![forbid(unsafe_code)]

pub mod acts;
pub mod bugs;
pub mod catalogue;
pub mod checkers;
pub mod choices;
pub mod clock;
pub mod disk;
pub mod inspect;
pub mod jobs;
pub mod lives;
pub mod machine;
pub mod plans;
pub mod power;
pub mod runtime;
pub mod scenarios;
pub mod script;
pub mod software;
pub mod world;
