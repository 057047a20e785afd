//! What the binary `coxswain` is made of: configuration, then adapters, then the loop; nothing is decided here.

#![forbid(unsafe_code)]

pub mod check;
pub mod cli;
pub mod config;
mod daemons;
mod event_loop;
mod figures;
mod host_port;
mod identify;
pub mod init;
mod jobs;
mod kept;
mod loader;
mod machine;
pub mod make_storage;
mod meta_files;
pub mod modprobe;
mod phases;
mod power;
mod run;
mod service;
mod shown;
mod watchdog;

pub use power::exit_code;
pub use run::{RunError, run, run_below_init};

/// Tells a person what is wrong, on standard error.
pub fn complain(text: &str) {
    use std::io::Write as _;
    // Nobody may be there to read it.
    drop(writeln!(std::io::stderr(), "coxswain: {text}"));
}
