//! What is told to a cloud about a deployment. A report is durable before it is told and stays until the cloud has it.

use model::RevisionId;
use model::failure::{Cause, Failure};
use serde::{Deserialize, Serialize};

use super::words::Fetched;
use crate::limits;
use crate::offer::DeploymentId;

/// One thing that is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Its number; never used for another report. 0 for reports that are told at most once ([`News::Progress`]).
    pub number: u64,
    /// What it is about.
    pub deployment: DeploymentId,
    /// What is told.
    pub news: News,
}

impl Report {
    /// Whether it is the last word about its deployment.
    pub fn is_final(&self) -> bool {
        match &self.news {
            News::Done { .. }
            | News::DownloadedOnly
            | News::Failed { .. }
            | News::Refused { .. }
            | News::Cancelled => true,
            News::Accepted
            | News::Waiting { .. }
            | News::Progress(_)
            | News::Downloaded
            | News::Installing { .. }
            | News::Observing { .. }
            | News::CancelRefused { .. } => false,
        }
    }

    /// One sentence for people.
    pub fn text(&self) -> String {
        match &self.news {
            News::Accepted => "the deployment is accepted".to_owned(),
            News::Waiting { reason } => format!("waiting: {reason}"),
            News::Progress(fetched) => {
                let Fetched {
                    bytes,
                    bytes_total,
                    objects,
                    objects_total,
                } = fetched;
                let of = bytes_total.map_or(String::new(), |total| format!(" of {total}"));
                format!("downloading: {objects} of {objects_total} objects, {bytes}{of} bytes")
            }
            News::Downloaded => "everything is on the device and verified".to_owned(),
            News::DownloadedOnly => {
                "everything is on the device and verified; it is not installed".to_owned()
            }
            News::Installing { revision } => format!("revision {revision} is being installed"),
            News::Observing { revision } => {
                format!("revision {revision} runs and is observed before it is committed")
            }
            News::Done {
                revision,
                ran_already: false,
            } => format!("revision {revision} runs and is committed"),
            News::Done {
                revision,
                ran_already: true,
            } => format!("revision {revision} runs already, with just this content"),
            News::Failed { trouble } | News::Refused { trouble } => trouble.summary.clone(),
            News::Cancelled => "given up, as asked; nothing was changed".to_owned(),
            News::CancelRefused { phase } => {
                format!("too late to cancel: the deployment is {phase}")
            }
        }
    }
}

/// What is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum News {
    /// The device takes the deployment on.
    Accepted,
    /// Nothing can be done yet.
    Waiting {
        /// For what.
        reason: String,
    },
    /// How far the download is; only the newest is told.
    Progress(Fetched),
    /// Everything is there; more follows.
    Downloaded,
    /// Everything is there, and more was not asked for. Final.
    DownloadedOnly,
    /// The device was told to run the revision.
    Installing {
        /// Its name.
        revision: RevisionId,
    },
    /// It runs and is watched.
    Observing {
        /// Its name.
        revision: RevisionId,
    },
    /// The device has committed the revision. Final.
    Done {
        /// Its name.
        revision: RevisionId,
        /// It ran before the deployment came.
        ran_already: bool,
    },
    /// It was tried in vain; what ran before runs again. Final.
    Failed {
        /// Why.
        trouble: Trouble,
    },
    /// It was not tried. Final.
    Refused {
        /// Why.
        trouble: Trouble,
    },
    /// Given up as asked. Final.
    Cancelled,
    /// A cancel came too late; the deployment goes on.
    CancelRefused {
        /// Where the deployment is.
        phase: String,
    },
}

/// What went wrong, for programs: stable numbers, sent where a cloud has room for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The offer or its payload cannot be understood.
    BadOffer,
    /// What was fetched has another hash or length.
    BadHash,
    /// The storage has no room.
    NoSpace,
    /// The device refuses the manifest.
    BadManifest,
    /// An object of the manifest is nowhere to be had.
    MissingObject,
    /// An artifact cannot be fetched.
    Unreachable,
    /// The same manifest has failed before.
    FailedBefore,
    /// Another client has claimed what would be changed.
    Claimed,
    /// A person has not agreed.
    Denied,
    /// The device refuses for another reason.
    NotAccepted,
    /// A container ended.
    Exited,
    /// A container could not be started.
    StartFailed,
    /// A goal was not reached in time.
    GoalNotReached,
    /// A health check failed.
    Unhealthy,
    /// Objects are missing or corrupt on the device.
    BadObjects,
    /// The machine or the orchestrator stopped during every try.
    TriesUsedUp,
    /// Somebody asked for the rollback.
    RolledBack,
    /// Something else, which the text says; also what a newer version has a word for.
    #[serde(other)]
    Other,
}

impl Code {
    /// The number on the wire: 1xx nothing was changed, 2xx the revision was tried.
    pub fn number(self) -> i32 {
        match self {
            Self::BadOffer => 101,
            Self::BadHash => 102,
            Self::NoSpace => 103,
            Self::BadManifest => 104,
            Self::MissingObject => 105,
            Self::Unreachable => 106,
            Self::FailedBefore => 107,
            Self::Claimed => 108,
            Self::Denied => 109,
            Self::NotAccepted => 110,
            Self::Exited => 201,
            Self::StartFailed => 202,
            Self::GoalNotReached => 203,
            Self::Unhealthy => 204,
            Self::BadObjects => 205,
            Self::TriesUsedUp => 206,
            Self::RolledBack => 207,
            Self::Other => 299,
        }
    }
}

/// Why a deployment did not come to a good end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// For programs.
    pub code: Code,
    /// In one sentence.
    pub summary: String,
    /// More lines for people: the chain of causes, then the last lines of a log.
    #[serde(default)]
    pub details: Vec<String>,
    /// Number of the device's failure record.
    #[serde(default)]
    pub failure: Option<u64>,
}

impl Trouble {
    /// Trouble in one sentence, cut where it is longer than clouds take.
    pub fn new(code: Code, summary: impl Into<String>) -> Self {
        Self {
            code,
            summary: line(&summary.into()),
            details: Vec::new(),
            failure: None,
        }
    }

    /// With more lines; those beyond the limit are left out.
    #[must_use]
    pub fn with_details<T: AsRef<str>>(mut self, details: impl IntoIterator<Item = T>) -> Self {
        let room = limits::LINES_MAX.saturating_sub(self.details.len());
        let lines = details.into_iter().map(|text| line(text.as_ref()));
        self.details
            .extend(lines.filter(|text| !text.is_empty()).take(room));
        self
    }

    /// From the record that the device made of a failure.
    pub fn from_failure(failure: &Failure) -> Self {
        let code = match &failure.cause {
            Cause::Exited { .. } => Code::Exited,
            Cause::StartFailed { .. } => Code::StartFailed,
            Cause::GoalNotReached { .. } => Code::GoalNotReached,
            Cause::Unhealthy { .. } => Code::Unhealthy,
            Cause::BadObjects { .. } => Code::BadObjects,
            Cause::TriesUsedUp { .. } | Cause::UnexpectedRollback => Code::TriesUsedUp,
            Cause::Asked => Code::RolledBack,
            Cause::BadManifest { .. } => Code::BadManifest,
            Cause::Internal { .. } => Code::Other,
        };
        let container = match &failure.container {
            Some(name) => format!("container {name}: "),
            None => String::new(),
        };
        let summary = format!("{container}{}", cause_text(&failure.cause));
        let mut trouble = Self::new(code, summary);
        trouble.failure = Some(failure.id);
        let back = failure
            .rolled_back_to
            .as_ref()
            .map(|revision| format!("revision {revision} runs instead"));
        let tried = format!(
            "revision {}: {} ({} tries)",
            failure.revision, failure.message, failure.tries
        );
        trouble = trouble.with_details(std::iter::once(tried).chain(back));
        let last = failure.log.len().saturating_sub(10);
        trouble.with_details(failure.log.iter().skip(last))
    }
}

fn cause_text(cause: &Cause) -> String {
    match cause {
        Cause::Exited {
            code,
            damaged: Some(object),
            uptime_s,
            ..
        } => format!(
            "it ended with exit code {code} after {uptime_s} s; a block of its root file system, object {}, does not match its hash",
            object.short()
        ),
        Cause::Exited {
            code,
            out_of_memory: true,
            damaged: None,
            uptime_s,
        } => format!("it was killed for its memory after {uptime_s} s (exit code {code})"),
        Cause::Exited {
            code,
            out_of_memory: false,
            damaged: None,
            uptime_s,
        } => format!("it ended with exit code {code} after {uptime_s} s"),
        Cause::StartFailed { error } => format!("it could not be started: {error}"),
        Cause::GoalNotReached {
            goal,
            status,
            timeout_s,
            probe,
        } => {
            let probe = probe
                .as_ref()
                .map_or(String::new(), |said| format!("; {said}"));
            format!("it is {status} and did not reach {goal} within {timeout_s} s{probe}")
        }
        Cause::Unhealthy { probe } => format!("its health check failed: {probe}"),
        Cause::BadObjects { objects } => match objects.first() {
            Some(first) => format!(
                "{} objects cannot be used; first {} ({}): {}",
                objects.len(),
                first.object.short(),
                first.key,
                first.problem
            ),
            None => "objects cannot be used".to_owned(),
        },
        Cause::TriesUsedUp { tries } => {
            format!("the device stopped during each of {tries} tries")
        }
        Cause::UnexpectedRollback => {
            "the boot loader did not start the revision, or went back".to_owned()
        }
        Cause::BadManifest { error } => format!("its manifest cannot be used: {error}"),
        Cause::Asked => "somebody asked for the rollback".to_owned(),
        Cause::Internal { error } => error.clone(),
    }
}

/// One line as clouds take it: no control characters, cut at a length.
pub fn line(text: &str) -> String {
    let mut line = String::new();
    for sign in text.chars() {
        let sign = if sign.is_control() { ' ' } else { sign };
        if line.len() + sign.len_utf8() > limits::LINE_BYTES_MAX {
            break;
        }
        line.push(sign);
    }
    line.trim_end().to_owned()
}
