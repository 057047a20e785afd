//! The loop that carries decisions out.
//!
//! [`ports`] is what the loop needs from the world, [`handle`] what the world may ask of the loop. The loop itself is
//! synchronous and runs on one thread: short, durable work is a port call, long work is a command out and an event back.
//! Nothing here knows HTTP, containerd or Linux.

#![forbid(unsafe_code)]

mod carry;
mod claims;
mod device;
pub mod handle;
pub mod plan;
pub mod ports;
mod requests;
mod reset;
mod room;
mod sealing;
pub mod settings;
pub mod shared;
mod show;
mod start;
mod takeover;
pub mod updates;

pub use device::{Device, Event};
pub use settings::Settings;
pub use shared::Handle;
