//! Clouds for tests: servers of our own that behave as the real ones were recorded to, ways to start independent and real ones,
//! and one management side for all of them, so that a scenario is written once.

#![forbid(unsafe_code)]

pub mod hawkbit;
