//! What a revision is: identifiers, manifest, containers, progress, metadata, failure records.
//!
//! This crate is pure: no files, sockets, clocks, threads or environment (`clippy.toml` beside this crate
//! enforces it). Everything that comes from outside is parsed here once, into types that cannot hold what is
//! wrong, so that the rest of the workspace does not check again.

#![forbid(unsafe_code)]

pub mod claim;
pub mod container;
pub mod failure;
pub mod id;
pub mod limits;
pub mod log;
pub mod manifest;
pub mod marker;
pub mod metadata;
pub mod progress;
pub mod reset;
pub mod signal;
pub mod time;
pub mod usage;
pub mod verity;

pub use container::{Container, Goal, Group, Status};
pub use id::{ContainerName, GroupName, Key, ObjectId, RevisionId};
pub use manifest::Manifest;
pub use marker::Marker;
pub use progress::{Progress, State};
pub use reset::Reset;
pub use time::{Instant, WallTime};
