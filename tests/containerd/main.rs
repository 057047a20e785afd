//! The main job on real parts: `coxswain`, containerd, runc, squashfs. Needs root; says SKIPPED where it cannot run.

mod callers;
mod found_again;
mod hostile;
mod kills;
mod logs;
mod machine;
mod pantavisor;
mod pantavisor_containers;
mod plans;
mod sick;
mod sockets;
mod takeover;
mod updates;
