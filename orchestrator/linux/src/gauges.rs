//! Pressure figures for failure records, from `/proc/pressure`, `/proc/meminfo` and the storage.

use std::fs;
use std::path::{Path, PathBuf};

use device::ports::Gauges;
use model::failure::Pressure;

/// Reads the machine's figures; what a kernel does not offer is left out.
#[derive(Debug, Clone)]
pub struct MachineGauges {
    storage: PathBuf,
}

impl MachineGauges {
    /// Gauges of this machine, with the free space of this folder's file system.
    pub fn new(storage: &Path) -> Self {
        Self {
            storage: storage.to_owned(),
        }
    }
}

impl Gauges for MachineGauges {
    fn pressure(&self) -> Pressure {
        Pressure {
            cpu_some_avg10: some_avg10("cpu"),
            memory_some_avg10: some_avg10("memory"),
            io_some_avg10: some_avg10("io"),
            memory_available_bytes: fs::read_to_string("/proc/meminfo")
                .ok()
                .and_then(|t| memory_available(&t)),
            storage_free_bytes: rustix::fs::statvfs(&self.storage)
                .ok()
                .map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize)),
        }
    }
}

fn some_avg10(resource: &str) -> Option<f64> {
    average(&fs::read_to_string(format!("/proc/pressure/{resource}")).ok()?)
}

/// `some avg10=0.12 avg60=…` to 0.12
fn average(text: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with("some "))?;
    line.split_ascii_whitespace()
        .find_map(|word| word.strip_prefix("avg10="))?
        .parse()
        .ok()
}

/// `MemAvailable:   123 kB` to bytes
fn memory_available(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read() {
        let text = "some avg10=1.25 avg60=0.00 avg300=0.00 total=1\nfull avg10=9.00 avg60=0 avg300=0 total=0\n";
        assert_eq!(average(text), Some(1.25));
        assert_eq!(average("full avg10=1.0"), None);
        assert_eq!(
            memory_available("MemTotal: 5 kB\nMemAvailable:    100 kB\n"),
            Some(102_400)
        );
        let figures = MachineGauges::new(Path::new("/")).pressure();
        assert!(
            figures
                .memory_available_bytes
                .is_some_and(|bytes| bytes > 0)
        );
        assert!(figures.storage_free_bytes.is_some());
    }
}
