//! What happens to a revision: boot, update, containers, health, retention; and who may change what. Pure.
//!
//! Everything here is a function of values: no files, sockets, clocks or threads (`clippy.toml` beside this crate
//! enforces it). The loop in `device` carries out what is decided here and tells what came of it.

#![forbid(unsafe_code)]

pub mod boot;
pub mod claims;
pub mod containers;
pub mod health;
pub mod plan;
pub mod restart;
pub mod retention;
pub mod runtime;
pub mod touch;
pub mod update;
