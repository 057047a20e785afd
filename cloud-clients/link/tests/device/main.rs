//! Cloud clients' shared part on a real device: the four payload forms with real containers, every fault of the world around, a client and
//! an orchestrator that are killed at every phase, and a large object over a bad link with the client's memory measured.
//!
//! The cloud is a few lines in here; protocols are tests/clouds' matter. Needs root and containerd; says SKIPPED where it cannot run.

mod big;
mod cloud;
mod dying;
mod faults;
mod forms;
mod pki;
mod restarts;
mod server;
mod stage;
mod token;
