//! Runtime over containerd 1.6 and 2.x: containers from images of ours, without unpacking.
//!
//! An image object is mounted read-only where it lies, one mount for all containers that use it, with an overlay on top; containerd
//! gets a finished root file system and an OCI specification, so that its own store holds nothing that could not be made
//! again. What runs goes on running when this program or containerd is killed, and is found again.
//!
//! Which container runs when is not decided here; see `lifecycle`.

#![forbid(unsafe_code)]

mod callers;
mod client;
mod config;
mod image;
mod inside;
mod instance;
mod link;
mod logs;
mod lxc;
mod names;
mod output;
mod own;
mod probe;
mod record;
mod recover;
mod registry;
mod removal;
mod rootfs;
mod runtime;
mod seccomp;
mod sees;
mod setup;
mod spec;
mod supervise;
mod user;

pub use callers::{Caller, Callers};
pub use config::{Address, Config, LogSettings, Spawn};
pub use link::Private;
pub use runtime::{ContainerdRuntime, Control, StartError};
