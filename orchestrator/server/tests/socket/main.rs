//! The server over real sockets: as recorded from Pantavisor, under bad input, and with real clients.

#![allow(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it should be"
)]

mod claims;
mod contract;
mod device;
mod figures;
mod hostile;
mod plans;
mod recordings;
mod reference;
mod transfers;
mod wire;
