//! The words of the deployment machine: phases, events, effects, and the record that outlives a restart.
//!
//! The record is read by other versions of the client too, since an update may replace the client and a rollback may bring the old one
//! back: fields are only ever added, readers ignore what they do not know.

use std::collections::VecDeque;

use model::{ObjectId, Progress, RevisionId};
use serde::{Deserialize, Serialize};

use super::report::{Report, Trouble};
use crate::cloud::Reported;
use crate::offer::{DeploymentId, Gate, Terms};

/// Where a deployment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Known; nothing has been done yet.
    Offered,
    /// It is looked at, and what the device lacks is fetched into the object store.
    Downloading,
    /// Everything is on the device; nothing runs yet.
    Downloaded,
    /// The device is being asked to run the revision; from here on it cannot be cancelled.
    Installing,
    /// The device has accepted: the revision is being started.
    Running,
    /// The revision runs and is watched by the device until it is committed.
    Observing,
    /// Committed, or done in the way that was asked for. Final.
    Done,
    /// Tried in vain. Final.
    Failed,
    /// Given up because somebody asked. Final.
    Cancelled,
    /// Not tried. Final.
    Refused,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Offered,
        Self::Downloading,
        Self::Downloaded,
        Self::Installing,
        Self::Running,
        Self::Observing,
        Self::Done,
        Self::Failed,
        Self::Cancelled,
        Self::Refused,
    ];

    /// Whether nothing more happens to the deployment than that its last report is told.
    pub fn is_final(self) -> bool {
        match self {
            Self::Done | Self::Failed | Self::Cancelled | Self::Refused => true,
            Self::Offered
            | Self::Downloading
            | Self::Downloaded
            | Self::Installing
            | Self::Running
            | Self::Observing => false,
        }
    }

    /// Whether the deployment can still be given up without a trace.
    pub fn can_be_cancelled(self) -> bool {
        match self {
            Self::Offered | Self::Downloading | Self::Downloaded => true,
            Self::Installing
            | Self::Running
            | Self::Observing
            | Self::Done
            | Self::Failed
            | Self::Cancelled
            | Self::Refused => false,
        }
    }

    /// The word for people and metadata.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Offered => "offered",
            Self::Downloading => "downloading",
            Self::Downloaded => "downloaded",
            Self::Installing => "installing",
            Self::Running => "running",
            Self::Observing => "observing",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Refused => "refused",
        }
    }
}

/// How far a download is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// Bytes that are on the device, of those that it lacked.
    pub bytes: u64,
    /// Bytes that it lacked, when that is known.
    pub bytes_total: Option<u64>,
    /// Objects that are on the device, of those that it lacked.
    pub objects: u64,
    /// Objects that it lacked.
    pub objects_total: u64,
}

/// What happens to the machine.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The client has started, with the record that it found.
    Started,
    /// The cloud wants this.
    Offered(Terms),
    /// What the cloud wants cannot be understood.
    Unreadable {
        /// Which deployment.
        id: DeploymentId,
        /// Why.
        trouble: Trouble,
    },
    /// The cloud wants nothing any more.
    Withdrawn,
    /// The cloud wants this deployment to be stopped.
    CancelAsked(DeploymentId),
    /// A person has agreed to a deployment, or not.
    Consent {
        /// Which.
        id: DeploymentId,
        /// Whether.
        given: bool,
    },
    /// The manifest is known and on the device under this name.
    Prepared {
        /// Its name.
        revision: RevisionId,
        /// Its SHA-256.
        manifest: ObjectId,
        /// SHA-256 of the running manifest that it was made from, when it was made from that.
        base: Option<ObjectId>,
    },
    /// The device runs and has committed just this manifest already.
    RunsAlready {
        /// The running revision.
        revision: RevisionId,
        /// SHA-256 of its manifest.
        manifest: ObjectId,
    },
    /// How far the download is.
    Progressed(Fetched),
    /// Everything is on the device.
    Fetched(Fetched),
    /// It cannot be had, or the device does not take it. Nothing was changed.
    Rejected(Trouble),
    /// The device has taken the order to run the revision; that is durable.
    Accepted,
    /// Objects or the revision have gone from the device since they were fetched.
    Vanished,
    /// What the device tells about the revision.
    Told(Box<Told>),
    /// A report has arrived.
    Reported {
        /// Its number.
        number: u64,
        /// How.
        how: Reported,
    },
}

/// What the device tells about a revision.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// Which.
    pub revision: RevisionId,
    /// Its progress; `None` when the device knows no such revision.
    pub progress: Option<Progress>,
    /// Why it failed, when it did and the device says so.
    pub trouble: Option<Trouble>,
}

/// What is to be done, in order. What stands behind a [`Effect::Save`] may only be done when that was durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Make the record durable.
    Save,
    /// Ask the cloud soon: links are needed, or it may have something new.
    Ask(Asking),
    /// Get the payload ready and fetch what the device lacks; answered by `Prepared` and `Fetched`, `RunsAlready` or `Rejected`.
    Fetch,
    /// Stop fetching; what is on the device stays as an upload that can go on.
    StopFetching,
    /// Ask the device to run the revision; answered by `Accepted`, `Vanished` or `Rejected`. Asked again until it is answered.
    Install(RevisionId),
    /// Look at the progress of the revision until it is final; answered by `Told`, again and again.
    Observe(RevisionId),
    /// Remove a revision that will not be run.
    Remove(RevisionId),
    /// There is something to tell the cloud: [`super::Machine::next_report`].
    Report,
}

/// Why the cloud is to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asking {
    /// A deployment from before the restart needs its links.
    Links,
    /// The last deployment is closed.
    Next,
}

/// The deployment that the device holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deployment {
    /// Its name.
    pub id: DeploymentId,
    /// What is in it.
    pub content: ObjectId,
    /// Where it is.
    pub phase: Phase,
    /// Whether it may be fetched.
    pub download: Gate,
    /// Whether it may be run.
    pub install: Gate,
    /// Whether a person agreed.
    #[serde(default)]
    pub consent: bool,
    /// Its revision, once it is on the device.
    #[serde(default)]
    pub revision: Option<RevisionId>,
    /// SHA-256 of its manifest.
    #[serde(default)]
    pub manifest: Option<ObjectId>,
    /// SHA-256 of the running manifest that it was made from: it is made anew when another one runs by then.
    #[serde(default)]
    pub base: Option<ObjectId>,
    /// Whether a cancel that came too late was answered.
    #[serde(default)]
    pub cancel_refused: bool,
    /// What it waited for when that was last told.
    #[serde(default)]
    pub waits_for: Option<String>,
    /// Whether the device was ever asked to run it.
    #[serde(default)]
    pub ran: bool,
    /// Whether it is to be tried although the device remembers that the same manifest has failed.
    #[serde(default)]
    pub again: bool,
    /// Why it failed or was refused.
    #[serde(default)]
    pub trouble: Option<Trouble>,
}

/// A deployment that has ended and whose last report has arrived.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Past {
    /// Its name.
    pub id: DeploymentId,
    /// What was in it.
    pub content: ObjectId,
    /// How it ended: a final phase.
    pub phase: Phase,
    /// Whether the device was asked to run it.
    #[serde(default)]
    pub ran: bool,
    /// Its revision.
    #[serde(default)]
    pub revision: Option<RevisionId>,
    /// Why it failed.
    #[serde(default)]
    pub trouble: Option<Trouble>,
}

/// All that outlives a restart. Without links and credentials.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Format of the record: 1. A reader takes what it knows of a higher one.
    pub format: u32,
    /// What the device holds.
    #[serde(default)]
    pub current: Option<Deployment>,
    /// What is still to be told, oldest first.
    #[serde(default)]
    pub outbox: VecDeque<Report>,
    /// Number of the next report.
    #[serde(default)]
    pub next_report: u64,
    /// Deployments that have ended, oldest first.
    #[serde(default)]
    pub past: VecDeque<Past>,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            format: 1,
            current: None,
            outbox: VecDeque::new(),
            next_report: 1,
            past: VecDeque::new(),
        }
    }
}
