//! Memory of a process, as the kernel counts it.

use std::fs;

/// One figure of `/proc/PID/smaps_rollup`, in bytes.
fn rollup(pid: u32, field: &str) -> u64 {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
        .unwrap_or_else(|| panic!("{path} has no {field}"));
    let kib: u64 = line
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap_or_else(|error| panic!("{path}: {line:?}: {error}"));
    kib * 1024
}

/// Proportional set size: what the process costs the machine.
pub(crate) fn proportional(pid: u32) -> u64 {
    rollup(pid, "Pss")
}

/// Resident set size.
pub(crate) fn resident(pid: u32) -> u64 {
    rollup(pid, "Rss")
}

/// The part of it that no file backs: heap and stacks.
pub(crate) fn anonymous(pid: u32) -> u64 {
    rollup(pid, "Anonymous")
}
