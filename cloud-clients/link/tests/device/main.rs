//! Cloud clients' shared part on a real device: the four payload forms with real containers, a client that is killed in the middle, and a
//! large object over a bad link with the client's memory measured.
//!
//! The cloud is a few lines in here; protocols are tests/clouds' matter. Needs root and containerd; says SKIPPED where it cannot run.

mod big;
mod cloud;
mod forms;
mod restarts;
mod server;
