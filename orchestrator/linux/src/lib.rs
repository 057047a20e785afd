//! The machine: every system call of the workspace is here.

pub mod clock;
pub mod gauges;
