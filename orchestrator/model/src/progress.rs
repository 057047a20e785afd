//! What is told about a revision: `trails/<rev>/.pv/progress`, and the same bytes on the wire.
//!
//! Statuses and messages are Pantavisor's (protocols/pantavisor.md sections 3.1 to 3.3), because its clients match them.
//! Key order is fixed: status, status-msg, progress, retries, downloads, logs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Status of a revision, in Pantavisor's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum State {
    /// Known, not processed.
    New,
    /// Accepted, waiting.
    Queued,
    /// Metadata and objects are being fetched.
    Downloading,
    /// Installed, transition running.
    InProgress,
    /// Goals reached, commit delay running.
    Testing,
    /// Running, not yet the revision to boot.
    Updated,
    /// Running and the revision to boot.
    Done,
    /// Refused before anything was changed.
    WontGo,
    /// Failed after its start; rolled back.
    Error,
}

impl State {
    /// The number that goes with the status.
    pub fn percent(self) -> u8 {
        match self {
            Self::New => 0,
            Self::Queued => 5,
            Self::Downloading => 25,
            Self::InProgress => 50,
            Self::Testing => 75,
            Self::Updated | Self::Done | Self::WontGo | Self::Error => 100,
        }
    }

    /// Whether nothing more comes without a new request. `Updated` is final for a client but may still become `Done`.
    pub fn is_final(self) -> bool {
        self.percent() == 100
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::New => "NEW",
            Self::Queued => "QUEUED",
            Self::Downloading => "DOWNLOADING",
            Self::InProgress => "INPROGRESS",
            Self::Testing => "TESTING",
            Self::Updated => "UPDATED",
            Self::Done => "DONE",
            Self::WontGo => "WONTGO",
            Self::Error => "ERROR",
        })
    }
}

/// Pantavisor's status messages, exact.
pub mod message {
    #![allow(missing_docs, reason = "each name says its text")]
    pub const NOT_YET_INSTALLED: &str = "Update not yet installed";
    pub const READY_TO_RUN: &str = "Update ready to be run";
    pub const APPLIED: &str = "Update applied";
    pub const TRYING: &str = "Trying new revision";
    pub const IN_PLACE: &str = "Transitioning to new revision without rebooting";
    pub const REBOOTING: &str = "Rebooting";
    pub const AWAITING_ROLLBACK_POINT: &str = "Awaiting to set rollback point if update is stable";
    pub const AWAITING_STABLE: &str = "Awaiting to see if update is stable";
    pub const WAITING_CONTAINERS: &str = "Waiting for all containers to become stable";
    pub const UPDATED: &str = "Update finished, revision not set as rollback point";
    pub const DONE: &str = "Update finished, revision set as rollback point";
    pub const FACTORY: &str = "Factory revision";
    pub const ABORTED: &str = "Update aborted";
    pub const NOT_FOUND: &str = "State JSON not found";
    pub const BAD_FORMAT: &str = "State JSON has bad format";
    pub const MAX_RETRIES: &str = "Max update processing retries reached";
    pub const SIGNATURE: &str = "Signature validation failed";
    pub const NOT_COVERED: &str = "State not fully covered by signatures";
    pub const BAD_OBJECT: &str = "Object validation went wrong";
    pub const GOAL_NOT_REACHED: &str = "Status goal not reached";
    pub const CONTAINER_NOT_STARTED: &str = "A container could not be started";
    pub const STALE: &str = "Stale revision";
    pub const UNEXPECTED_ROLLBACK: &str = "Unexpected rollback";
    pub const INTERNAL: &str = "Internal error";
}

/// Progress of one revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Status.
    pub status: State,
    /// One of [`message`], or a message with numbers in it.
    #[serde(rename = "status-msg")]
    pub message: String,
    /// [`State::percent`].
    pub progress: u8,
    /// How many tries were used before this one.
    #[serde(default)]
    pub retries: u32,
    /// Only while downloading; kept as delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downloads: Option<serde_json::Value>,
    /// The last error lines, one JSON object a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs: Option<String>,
}

impl Progress {
    /// A progress without downloads and logs.
    pub fn new(status: State, message: &str, retries: u32) -> Self {
        Self {
            status,
            message: message.to_owned(),
            progress: status.percent(),
            retries,
            downloads: None,
            logs: None,
        }
    }

    /// The exact text for disk and wire.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers always serialise")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_pantavisors() {
        let progress = Progress::new(State::Testing, message::AWAITING_STABLE, 0);
        assert_eq!(
            progress.to_json(),
            r#"{"status":"TESTING","status-msg":"Awaiting to see if update is stable","progress":75,"retries":0}"#
        );
        assert_eq!(
            serde_json::from_str::<Progress>(&progress.to_json()).unwrap(),
            progress
        );
    }
}
