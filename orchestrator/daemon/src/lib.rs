//! What the binary `coxswain` is made of: configuration, then adapters, then the loop; nothing is decided here.

#![forbid(unsafe_code)]

pub mod check;
pub mod cli;
pub mod config;
mod event_loop;
mod figures;
mod identify;
mod jobs;
mod loader;
mod machine;
pub mod make_storage;
mod meta_files;
mod power;
mod run;
mod service;
mod shown;

pub use power::exit_code;
pub use run::{RunError, run};
