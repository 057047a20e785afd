//! One record of one failure: what was tried, what went wrong, what was seen at that moment (`failures/<n>.json`).
//!
//! A record is written before the rollback it explains, survives it, and is what `coxctl why` puts into words.

use serde::{Deserialize, Serialize};

use crate::{ContainerName, Goal, ObjectId, RevisionId, Status, WallTime};

/// Why a revision was given up, or a container could not be kept running.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Cause {
    /// The container ended and no retry was left.
    Exited {
        /// Exit code, 128 + n for signal n.
        code: u32,
        /// Killed because it used more memory than it may.
        out_of_memory: bool,
        /// The object of its root file system of which a block did not match its hash (dm-verity).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<String>")]
        damaged: Option<ObjectId>,
        /// Seconds it had run.
        uptime_s: u64,
    },
    /// The run time could not start it.
    StartFailed {
        /// The run time's words.
        error: String,
    },
    /// The goal was not reached in time.
    GoalNotReached {
        /// The goal.
        goal: Goal,
        /// Where it was.
        status: Status,
        /// The time-out.
        timeout_s: u64,
        /// What the last health check said.
        probe: Option<String>,
    },
    /// The health check failed too often.
    Unhealthy {
        /// What the last health check said.
        probe: String,
    },
    /// Objects are missing or corrupt.
    BadObjects {
        /// Their names with the key that needs each.
        objects: Vec<BadObject>,
    },
    /// The orchestrator or the machine stopped during every try.
    TriesUsedUp {
        /// How many there were.
        tries: u32,
    },
    /// The bootloader did not start the revision, or fell back.
    UnexpectedRollback,
    /// The manifest could not be read back.
    BadManifest {
        /// What is wrong with it.
        error: String,
    },
    /// A person or a client asked for the rollback.
    Asked,
    /// A port failed.
    Internal {
        /// Which and how.
        error: String,
    },
}

/// An object that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct BadObject {
    /// Its name.
    #[schemars(with = "String")]
    pub object: ObjectId,
    /// The manifest key that needs it.
    pub key: String,
    /// `missing`, `corrupt` or `unreadable: …`.
    pub problem: String,
}

/// What a container was doing when the failure was noticed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ContainerAtFailure {
    /// Its name.
    #[schemars(with = "String")]
    pub name: ContainerName,
    /// Its status.
    pub status: Status,
    /// Its goal.
    pub goal: Goal,
    /// Retries used.
    pub retries: u32,
    /// Exit code of its last end, if it ended.
    pub exit_code: Option<u32>,
}

/// Pressure figures of the machine (`/proc/pressure`, ten-second averages in percent) and its memory.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Pressure {
    /// Time in which something waited for a processor.
    pub cpu_some_avg10: Option<f64>,
    /// Time in which something waited for memory.
    pub memory_some_avg10: Option<f64>,
    /// Time in which something waited for the disk.
    pub io_some_avg10: Option<f64>,
    /// Bytes of memory that could be used.
    pub memory_available_bytes: Option<u64>,
    /// Bytes free on the storage.
    pub storage_free_bytes: Option<u64>,
}

/// One failure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Failure {
    /// Format of this record.
    pub version: u32,
    /// Number of the record; the next one is one higher.
    pub id: u64,
    /// The revision that failed.
    #[schemars(with = "String")]
    pub revision: RevisionId,
    /// Digest of its manifest: the same bytes under another name are the same failure.
    #[schemars(with = "Option<String>")]
    pub manifest: Option<ObjectId>,
    /// The revision that runs instead.
    #[schemars(with = "Option<String>")]
    pub rolled_back_to: Option<RevisionId>,
    /// The container that caused it, if one did.
    #[schemars(with = "Option<String>")]
    pub container: Option<ContainerName>,
    /// What happened.
    pub cause: Cause,
    /// The message that stands in the revision's progress.
    pub message: String,
    /// When it was noticed; may be wrong on a device without a clock.
    #[schemars(with = "u64")]
    pub time: WallTime,
    /// Tries used, this one included.
    pub tries: u32,
    /// All containers at that moment.
    pub containers: Vec<ContainerAtFailure>,
    /// The last lines of the container that caused it.
    pub log: Vec<String>,
    /// Pressure figures at that moment.
    pub pressure: Pressure,
}
