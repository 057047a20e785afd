//! What the binary `coxswain` is made of: configuration, then adapters, then the loop.

#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
