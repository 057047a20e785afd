//! Bodies of requests and answers.
//!
//! [`pantavisor`] holds what its clients know: key order, string-booleans and sizes as decimal strings are theirs and fixed.
//! [`ours`] and [`plan`] hold the rest. Times of ours are RFC 3339 in UTC, units stand in the names.

pub mod ours;
pub mod pantavisor;
pub mod plan;
