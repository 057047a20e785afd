//! What the server keeps: targets, modules with artifacts, sets, actions with their status rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::schedule::Window;

/// Who wrote a record, and when, in milliseconds.
#[derive(Debug, Clone)]
pub(crate) struct Stamp {
    pub(crate) created_by: String,
    pub(crate) created_at: i64,
    pub(crate) modified_by: String,
    pub(crate) modified_at: i64,
}

impl Stamp {
    pub(crate) fn new(by: &str, at: i64) -> Self {
        Self {
            created_by: by.to_owned(),
            created_at: at,
            modified_by: by.to_owned(),
            modified_at: at,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UpdateStatus {
    Unknown,
    Registered,
    Pending,
    InSync,
    Error,
}

impl UpdateStatus {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Registered => "registered",
            Self::Pending => "pending",
            Self::InSync => "in_sync",
            Self::Error => "error",
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct AutoConfirm {
    pub(crate) initiator: Option<String>,
    pub(crate) remark: Option<String>,
    pub(crate) at: i64,
    pub(crate) by: &'static str,
}

#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) number: u64,
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    pub(crate) token: String,
    pub(crate) stamp: Stamp,
    pub(crate) status: UpdateStatus,
    pub(crate) polled_at: Option<i64>,
    pub(crate) installed_at: Option<i64>,
    pub(crate) address: Option<String>,
    pub(crate) wants_attributes: bool,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) assigned: Option<u64>,
    pub(crate) installed: Option<u64>,
    pub(crate) auto_confirm: Option<AutoConfirm>,
}

#[derive(Debug, Clone)]
pub(crate) struct Artifact {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) bytes: Arc<[u8]>,
    pub(crate) sha1: String,
    pub(crate) md5: String,
    pub(crate) sha256: String,
    pub(crate) stamp: Stamp,
}

#[derive(Debug, Clone)]
pub(crate) struct Module {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) kind_name: String,
    pub(crate) locked: bool,
    pub(crate) encrypted: bool,
    pub(crate) artifacts: Vec<Artifact>,
    /// Key, value, visible to the device.
    pub(crate) metadata: Vec<(String, String, bool)>,
    pub(crate) stamp: Stamp,
}

#[derive(Debug, Clone)]
pub(crate) struct Set {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) locked: bool,
    pub(crate) deleted: bool,
    pub(crate) migration_step: bool,
    pub(crate) modules: Vec<u64>,
    pub(crate) stamp: Stamp,
}

/// A type of modules or sets.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    pub(crate) id: u64,
    pub(crate) key: String,
    pub(crate) name: String,
    pub(crate) max: u64,
    /// Module types that a set of this type must have; empty for a module's type.
    pub(crate) mandatory: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Force {
    Forced,
    Soft,
    /// Forced from this time on.
    Timed(i64),
    DownloadOnly,
}

impl Force {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Forced => "forced",
            Self::Soft => "soft",
            Self::Timed(_) => "timeforced",
            Self::DownloadOnly => "downloadonly",
        }
    }
}

/// The types of a status row; the same words are the states of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Running,
    Retrieved,
    Download,
    Downloaded,
    Finished,
    Error,
    Warning,
    Canceling,
    Canceled,
    CancelRejected,
    Waiting,
    Scheduled,
}

impl Status {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Retrieved => "retrieved",
            Self::Download => "download",
            Self::Downloaded => "downloaded",
            Self::Finished => "finished",
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Canceling => "canceling",
            Self::Canceled => "canceled",
            Self::CancelRejected => "cancel_rejected",
            Self::Waiting => "wait_for_confirmation",
            Self::Scheduled => "scheduled",
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) id: u64,
    pub(crate) kind: Status,
    pub(crate) messages: Vec<String>,
    pub(crate) code: Option<i64>,
    pub(crate) timestamp: i64,
    pub(crate) reported_at: i64,
}

#[derive(Debug, Clone)]
pub(crate) struct Action {
    pub(crate) id: u64,
    /// Key of the target: tenant and controller id.
    pub(crate) target: (String, String),
    pub(crate) set: u64,
    pub(crate) force: Force,
    pub(crate) weight: i64,
    pub(crate) status: Status,
    pub(crate) active: bool,
    pub(crate) last_code: Option<i64>,
    pub(crate) window: Option<Window>,
    pub(crate) rows: Vec<Row>,
    /// Number of changes of the row in the database; part of `c`.
    pub(crate) revision: i64,
    /// Rollout and group.
    pub(crate) rollout: Option<(u64, u64)>,
    pub(crate) stamp: Stamp,
}

impl Action {
    pub(crate) fn is_cancelling_or_cancelled(&self) -> bool {
        matches!(self.status, Status::Canceling | Status::Canceled)
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.status == Status::Waiting
    }

    pub(crate) fn is_forced(&self, now: i64) -> bool {
        match self.force {
            Force::Forced => true,
            Force::Timed(from) => now >= from,
            Force::Soft | Force::DownloadOnly => false,
        }
    }
}
