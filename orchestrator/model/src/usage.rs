//! What containers and the machine use: figures as the kernel counts them, nothing derived.
//!
//! Times are microseconds, amounts bytes. What a kernel does not tell (a controller that is off, version 1 of control groups) is left
//! out and never guessed. Counters grow from the start of the container or of the machine.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ContainerName;

/// Answer of `GET /usage`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// Monotonic time of the reading, milliseconds since the machine's boot: what to divide differences of two readings by.
    pub at_ms: u64,
    /// The machine.
    pub machine: MachineUsage,
    /// Containers that run, by name.
    #[schemars(with = "BTreeMap<String, ContainerUsage>")]
    pub containers: BTreeMap<ContainerName, ContainerUsage>,
}

/// What one container uses, with all its processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ContainerUsage {
    /// Processor time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_us: Option<u64>,
    /// Time in which it was held back by its processor limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_throttled_us: Option<u64>,
    /// Memory, with the page cache of its files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Memory without the page cache that the kernel can take back at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_working_set_bytes: Option<u64>,
    /// What it may use; left out when there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<u64>,
    /// Processes that the kernel killed because it used more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_kills: Option<u64>,
    /// Read from block devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_read_bytes: Option<u64>,
    /// Written to block devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_write_bytes: Option<u64>,
    /// Processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
    /// How many it may have; left out when there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<u64>,
    /// Time lost by waiting for something scarce.
    #[serde(default, skip_serializing_if = "Stalls::is_empty")]
    pub pressure: Stalls,
}

/// What the machine uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct MachineUsage {
    /// Processors.
    pub cpus: u32,
    /// Time in which processors were busy, all of them added up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_busy_us: Option<u64>,
    /// Memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_total_bytes: Option<u64>,
    /// Memory that can be had without swapping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_available_bytes: Option<u64>,
    /// Time lost by waiting for something scarce.
    #[serde(default, skip_serializing_if = "Stalls::is_empty")]
    pub pressure: Stalls,
    /// The orchestrator itself.
    pub orchestrator: ProcessUsage,
}

/// What one process uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ProcessUsage {
    /// Processor time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_us: Option<u64>,
    /// Resident memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resident_bytes: Option<u64>,
    /// Open files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
}

/// Pressure stall information, by what was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Stalls {
    /// For a processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Stall>,
    /// For memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Stall>,
    /// For input and output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io: Option<Stall>,
}

impl Stalls {
    /// Whether the kernel tells nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Each with its name.
    pub fn named(&self) -> [(&'static str, Option<Stall>); 3] {
        [("cpu", self.cpu), ("memory", self.memory), ("io", self.io)]
    }
}

/// Time in which tasks waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Stall {
    /// In which at least one waited.
    pub some_us: u64,
    /// In which all waited; 0 where the kernel does not tell.
    pub full_us: u64,
}
