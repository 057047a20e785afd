//! What every cloud client shares, so that the next one is small: the life of a deployment, downloads straight into the object
//! store, TLS and proxies, polling that spreads a fleet, claims, configuration.
//!
//! [`deployment`], [`payload`], [`backoff`] and [`schedule`] decide and touch nothing; [`fetch`], [`web`] and [`keep`] are the doors to
//! the world; [`agent`] joins them with a cloud that implements [`cloud::Cloud`]. Nothing here knows any cloud's protocol, and
//! nothing needs more of the device than its control socket.

#![forbid(unsafe_code)]

pub mod agent;
pub mod backoff;
pub mod clock;
pub mod cloud;
pub mod config;
pub mod deployment;
pub mod device;
#[cfg(test)]
mod fake;
pub mod fetch;
pub mod keep;
pub mod limits;
pub mod offer;
pub mod payload;
pub mod schedule;
pub mod web;

pub use agent::Agent;
pub use cloud::{Cloud, CloudError, News, Polled, Reported};
pub use deployment::{Machine, Record};
pub use offer::{Artifact, DeploymentId, Gate, Link, Offer};
