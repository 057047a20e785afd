//! The words of the machine: what happens to it, what it wants done, where it is.

use std::time::Duration;

use model::failure::{BadObject, Cause};
use model::marker::Marker;
use model::progress::Progress;
use model::{ContainerName, Instant, ObjectId, Reset, RevisionId};

use crate::containers::{Mode, Summary};
use crate::runtime::Ending;

/// What may be set about updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How long a trial must hold its goals before it is committed.
    pub commit_delay: Duration,
    /// How often a trial may be tried, at least 1.
    pub tries: u32,
    /// What was applied in place ends UPDATED and is committed after the next start.
    pub exact_commit: bool,
    /// How often a goal may be lost and found again while a trial is observed.
    pub goal_losses_max: u32,
    /// How long a shutdown may take.
    pub shutdown_limit: Duration,
}

/// A revision that somebody wants to run, looked up and parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Which.
    pub revision: RevisionId,
    /// Digest of its manifest.
    pub digest: ObjectId,
    /// Its progress is DONE already, and stays so.
    pub was_done: bool,
    /// Only a boot can bring it in.
    pub by_reboot: bool,
    /// It is to end DONE, whatever [`Settings::exact_commit`] says.
    pub commit: bool,
    /// Run it also when the same manifest failed before.
    pub again: bool,
    /// Times that this request was taken up before.
    pub retries: u32,
}

/// Why a revision cannot even be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    /// It has no manifest.
    Missing,
    /// Its manifest has problems.
    Bad,
}

/// A trial while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Which revision.
    pub revision: RevisionId,
    /// Digest of its manifest.
    pub digest: ObjectId,
    /// Its progress was DONE when it was asked for, and stays so unless it fails.
    pub was_done: bool,
    /// It is to end DONE.
    pub commit: bool,
    /// A start of the orchestrator took it up, not a request.
    pub by_boot: bool,
    /// The machine runs its kernel: going back needs a boot.
    pub booted: bool,
    /// Tries used before this one.
    pub retries: u32,
}

/// Where the device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// What runs is what is to run.
    Settled,
    /// Objects of the wanted revision are being verified; nothing was touched.
    Verifying {
        /// The revision.
        wanted: Wanted,
        /// The one who asked has his answer.
        answered: bool,
    },
    /// The trial's containers are on their way to their goals.
    Starting(Attempt),
    /// All goals were reached; they must hold.
    Observing {
        /// The trial.
        attempt: Attempt,
        /// Since when every goal is reached; `None` while one is lost.
        since: Option<Instant>,
        /// How often one was lost.
        losses: u32,
        /// The progress says that containers must become stable.
        told_waiting: bool,
        /// The commit could not be written; not before this again.
        not_before: Instant,
    },
    /// The containers of the revision before are on their way back.
    RollingBack {
        /// What was given up.
        failed: RevisionId,
    },
    /// Containers are being stopped, then the boot ends.
    ShuttingDown {
        /// How.
        ending: Ending,
        /// Not waited for longer than this.
        until: Instant,
    },
    /// Containers are being stopped, then the start is gone through again, which carries out a reset.
    Clearing {
        /// Not waited for longer than this.
        until: Instant,
    },
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Somebody wants a revision to run.
    Run(Wanted),
    /// Somebody wants a revision to run that cannot be.
    RunUnusable(RevisionId, Unusable),
    /// Somebody gives up the trial.
    GiveUp,
    /// Objects were verified; `bad` is empty when all is well.
    Verified {
        /// Of this revision.
        revision: RevisionId,
        /// What cannot be used.
        bad: Vec<BadObject>,
    },
    /// What the containers are doing, told after each change and at each [`super::Update::next_wake`].
    Containers(Summary),
    /// A gate did not become durable; no effect after it was carried out.
    GateFailed(Gate, String),
    /// The boot is to end.
    Shutdown(Ending),
    /// A reset to the factory revision is durable: nothing may run while it is carried out.
    Clear,
}

/// Which step waits for a durable write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// A request becomes visible as accepted.
    Accept,
    /// The trial and its try stand in the marker.
    Trial,
    /// The boot loader starts the trial next.
    Arm,
    /// The trial becomes the revision to boot.
    Commit,
}

/// Something that is to be durable.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// What to boot.
    Marker(Marker),
    /// What is told about a revision.
    Progress(RevisionId, Progress),
    /// The mark of a revision that was committed.
    Done(RevisionId),
    /// `trails/current`.
    Current(RevisionId),
    /// A failure record; the loop adds logs, pressure and containers as they are at this moment.
    Failure(Box<Failing>),
    /// The boot loader starts this one from now on.
    Confirm(RevisionId),
    /// The boot loader starts this one next, once.
    Arm(RevisionId),
    /// What a reset removes is gone, and the record of the reset after it.
    Reset(Reset),
    /// The record of a reset is gone, and nothing was removed for it.
    ForgetReset,
}

/// What the life cycle knows of a failure.
#[derive(Debug, Clone, PartialEq)]
pub struct Failing {
    /// Number of the record.
    pub id: u64,
    /// What failed.
    pub revision: RevisionId,
    /// Digest of its manifest, when it is known.
    pub manifest: Option<ObjectId>,
    /// What runs instead.
    pub rolled_back_to: Option<RevisionId>,
    /// Who caused it.
    pub container: Option<ContainerName>,
    /// What happened.
    pub cause: Cause,
    /// What the progress says.
    pub message: &'static str,
    /// Tries used, this one included.
    pub tries: u32,
}

/// Why a request was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// One revision at a time.
    UpdateInProgress(RevisionId),
    /// The boot is ending.
    ShuttingDown,
    /// The same manifest failed before.
    FailedBefore {
        /// Which was asked for.
        revision: RevisionId,
        /// Number of the failure record.
        failure: u64,
    },
    /// There is no trial to give up.
    NoTrial,
    /// The storage did not take it.
    NotDurable(String),
}

/// What is to be done, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Must be durable before the next effect; else [`Event::GateFailed`] and nothing after it.
    Gate(Gate, Write),
    /// Is durable as soon as the storage takes it, in the order in which it was owed.
    Owe(Write),
    /// Hash the objects of a revision.
    Verify(RevisionId),
    /// These containers are to run; of nothing when `None`.
    Run(Option<RevisionId>, Mode),
    /// What runs is no trial any more.
    Settle,
    /// Stop all containers, in reverse order.
    StopAll,
    /// End the boot.
    End(Ending),
    /// Go through the start again: nothing runs any more, or not for long.
    StartAgain,
    /// Tell the one who asked.
    Answer(Result<(), Refused>),
    /// Remove what is not needed any more.
    Retain,
    /// For those who follow events: kind, revision, words.
    Tell(&'static str, RevisionId, String),
}

/// A revision that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Which.
    pub revision: RevisionId,
    /// Digest of its manifest.
    pub digest: ObjectId,
}
