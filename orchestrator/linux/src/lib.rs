//! The machine: every system call of the workspace is here.

pub mod bootloader;
pub mod cgroup;
pub mod clock;
pub mod disk;
pub mod facts;
pub mod gauges;
pub mod loop_device;
pub mod modules;
pub mod mounts;
pub mod peer;
pub mod pipes;
pub mod process;
pub mod usage;
pub mod watch;
