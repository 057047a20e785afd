//! What containers write: taken from them by a process of its own and kept in files.
//!
//! The process outlives the orchestrator, so that a restart of it neither loses a line nor holds a container up. The two meet in a folder
//! ([`spool`]): the orchestrator puts a source there, the process takes it up; either may be killed and started at any time.
//! One thread takes what comes and never waits for the disk (`intake`), one writes (`keeper`); between them is a bounded
//! queue that gives up its oldest lines and counts them (`queue`). Nothing here knows containerd or HTTP.

#![forbid(unsafe_code)]

mod followed;
mod hub;
mod intake;
mod keeper;
pub mod limits;
mod process;
mod queue;
mod rotation;
pub mod spool;
mod starter;

pub use process::run;
pub use spool::{Readers, Registered, Settings, Source, Spool};
pub use starter::{Program, Starter};
