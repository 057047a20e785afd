//! What acceptance tests share: a device of their own (real `coxswain`, real containerd), images, manifests, disks that lose
//! what was not flushed, and a client of the socket that has nothing in common with the code under test.

pub mod device;
pub mod http;
pub mod image;
pub mod manifest;
pub mod power;

/// The last lines of a file, for a test that failed; nothing when there is no such file.
pub fn log_end(file: &std::path::Path, lines: usize) -> String {
    let bytes = std::fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
