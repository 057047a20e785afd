//! Carries the connections of a UNIX socket over one byte stream: the serial port between a virtual machine and its host.
//!
//! The host listens and opens channels; the machine connects each to its control socket. A machine that restarts cuts the stream anywhere, so
//! frames are found again behind garbage ([`frame`]), and each side greets when it starts: a greeting ends every channel. Each channel has a window,
//! so one that nobody reads holds no other up. Deliberately not here: who may do so. A port with this name is the host's own doing,
//! and a host can do anything with its machine.

#![forbid(unsafe_code)]

pub mod frame;
mod link;

pub use link::{Connect, Link, carry};

/// Name of the serial port in the machine.
pub const PORT: &str = "org.coxswain.control";
