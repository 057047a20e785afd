//! What the world may ask of the loop, and what it may look at without asking.
//!
//! Changes are [`Request`]s: each is answered once, when what the answer promises is durable. Reading goes past the loop: the
//! loop publishes a [`View`] after each event, and revisions and objects are read from the store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use lifecycle::claims::Conflict;
use model::claim::{Claim, Client, Wanted};
use model::container::{BackoffPolicy, RecoveryPolicy, RestartPolicy};
use model::metadata::{MetaKey, MetaKind};
use model::{ContainerName, Goal, GroupName, Instant, ObjectId, RevisionId, Status, WallTime};

use crate::plan::Planned;

/// A change that somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Install a manifest under this name. Answered by [`Answer::Done`] when it is durable.
    PutRevision {
        /// Its name.
        revision: RevisionId,
        /// The manifest, exact bytes.
        manifest: Vec<u8>,
    },
    /// Remove a revision.
    DeleteRevision(RevisionId),
    /// Set the message of a revision.
    PutCommitMessage {
        /// Which.
        revision: RevisionId,
        /// At most 256 bytes.
        message: Vec<u8>,
    },
    /// A command of `POST /commands`.
    Command(Command),
    /// Start, stop or restart a container.
    Control {
        /// Which.
        container: ContainerName,
        /// What.
        action: Action,
    },
    /// A container says that it is ready.
    Ready(ContainerName),
    /// Set a metadata value.
    PutMeta {
        /// Which map.
        kind: MetaKind,
        /// Key.
        key: MetaKey,
        /// Value.
        value: Vec<u8>,
    },
    /// Remove a metadata value.
    DeleteMeta {
        /// Which map.
        kind: MetaKind,
        /// Key.
        key: MetaKey,
    },
    /// Collect now; answered by [`Answer::Collected`] when it is done.
    Collect,
    /// Tell what running a revision would do; answered by [`Answer::Planned`]. Changes nothing.
    Plan(PlanOf),
    /// Claim parts of the device. Answered by [`Answer::Claimed`] when it is durable.
    Claim {
        /// For whom.
        client: Client,
        /// What.
        wanted: Wanted,
    },
    /// Let the lease of a claim begin anew. Answered by [`Answer::Claimed`].
    RenewClaim {
        /// Whose it is.
        client: Client,
        /// Which.
        id: u64,
        /// Its length from now on, in seconds; as before when `None`.
        lease_s: Option<u32>,
    },
    /// End a claim.
    ReleaseClaim {
        /// Who asks.
        client: Client,
        /// Which.
        id: u64,
    },
    /// A request of somebody whom claims of others may keep from it. Without this around it no claim is looked at.
    As {
        /// Who asks.
        client: Client,
        /// For what.
        request: Box<Request>,
    },
    /// Stop the orchestrator (signals).
    Stop {
        /// Whether containers keep running.
        containers_keep_running: bool,
    },
}

/// Whose plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlanOf {
    /// Of a revision that is installed.
    Revision(RevisionId),
    /// Of a manifest that is not: its exact bytes.
    Manifest(Vec<u8>),
}

/// A command of `POST /commands`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Run this revision; it is committed when it holds its goals.
    Run {
        /// Which.
        revision: RevisionId,
        /// Run it also when the same manifest failed before.
        again: bool,
    },
    /// Run this revision if that needs no restart of the machine.
    Apply {
        /// Which.
        revision: RevisionId,
        /// Run it also when the same manifest failed before.
        again: bool,
    },
    /// Run this revision by a reboot, so that it ends DONE in Pantavisor's exact way too.
    RunCommit {
        /// Which.
        revision: RevisionId,
        /// Run it also when the same manifest failed before.
        again: bool,
    },
    /// Give up the running trial, or go back to the revision that was committed before this one.
    Rollback,
    /// Restart the machine.
    Reboot(String),
    /// Switch the machine off.
    PowerOff(String),
    /// Make this revision (the running one when `None`) revision 0.
    MakeFactory(Option<RevisionId>),
    /// Go back to revision 0 alone. Answered when it will be done whatever happens; it is done by the start that follows.
    FactoryReset {
        /// Whether everything that was written since goes: volumes, metadata, logs, failure records.
        wipe_volumes: bool,
    },
    /// Collect; not waited for.
    Collect,
    /// Merge into the device metadata.
    UpdateMetadata(BTreeMap<MetaKey, Vec<u8>>),
}

/// What to do with a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start it, forget its retries.
    Start,
    /// Stop it and keep it stopped.
    Stop,
    /// Stop and start it, forget its retries.
    Restart,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is done, or accepted and durable.
    Done,
    /// Collection freed so many bytes.
    Collected {
        /// Bytes.
        reclaimed: u64,
    },
    /// What running a revision would do.
    Planned(Box<Planned>),
    /// The claim as it holds now.
    Claimed(Box<ClaimView>),
}

/// Why nothing was done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not before an update has ended.
    #[error(
        "revision {trial} is being installed; wait until its progress is final, or roll it back first"
    )]
    UpdateInProgress {
        /// What is being installed.
        trial: RevisionId,
    },
    /// A shutdown is under way.
    #[error("the device is shutting down; nothing new is accepted")]
    ShuttingDown,
    /// The device has not read its storage yet.
    #[error("the device is still starting; try again in a moment")]
    NotReady,
    /// The run time has not said yet what runs.
    #[error(
        "containerd has not said yet which containers run, so what an update would change is not known; try again in a moment; \
         if this stays, runtime_problem in GET /status says why"
    )]
    NotListed,
    /// There is no such revision.
    #[error("there is no revision {0}; see GET /steps for those there are")]
    NoSuchRevision(RevisionId),
    /// There is no such container in the running revision.
    #[error("there is no container {0} in the running revision")]
    NoSuchContainer(ContainerName),
    /// Its `restart_policy` is `system`.
    #[error("container {0} has restart_policy 'system' and cannot be controlled over the socket")]
    SystemContainer(ContainerName),
    /// The container is not in a state that allows this.
    #[error("container {container} is {status}, which does not allow this")]
    WrongStatus {
        /// Which.
        container: ContainerName,
        /// Where it is.
        status: Status,
        /// What was asked.
        action: Action,
    },
    /// READY came from a container whose goal is not READY.
    #[error("container {0} has no goal READY; a signal is not expected from it")]
    SignalNotExpected(ContainerName),
    /// The manifest has problems.
    #[error(transparent)]
    BadManifest(#[from] model::manifest::Rejected),
    /// The revision may not be removed or replaced.
    #[error("revision {revision} cannot be removed or replaced: it is {why}")]
    RevisionInUse {
        /// Which.
        revision: RevisionId,
        /// `the running revision`, `the factory revision`, …
        why: &'static str,
    },
    /// The same manifest failed before.
    #[error(
        "revision {revision} failed before (failure {failure}); ask for it again explicitly to try once more"
    )]
    FailedBefore {
        /// Which.
        revision: RevisionId,
        /// Number of the failure record.
        failure: u64,
    },
    /// It cannot be brought in while the machine runs.
    #[error(
        "revision {0} changes what only a restart of the machine brings in; run it with LOCAL_RUN"
    )]
    NeedsReboot(RevisionId),
    /// Revision 0 cannot be gone back to.
    #[error("the factory revision cannot run: {0}; upload it again")]
    FactoryIncomplete(String),
    /// A reset was accepted.
    #[error(
        "the device is being reset to its factory revision; nothing new is accepted until that is done"
    )]
    Resetting,
    /// There is nothing to go back to.
    #[error("there is no earlier revision to go back to")]
    NothingToRollBack,
    /// Another client has claimed what would be changed.
    #[error("{}", crate::claims::in_words(.0))]
    Claimed(Box<Conflict>),
    /// There is no such claim.
    #[error("there is no claim {0}: it never was, was released, or its lease ran out; claim again")]
    NoSuchClaim(u64),
    /// The claim is another client's.
    #[error("claim {id} is {client}'s")]
    NotYourClaim {
        /// Which.
        id: u64,
        /// Whose.
        client: Client,
    },
    /// There is no such key.
    #[error("there is no such metadata key")]
    NoSuchMeta,
    /// A limit was reached.
    #[error("{0}")]
    Limit(String),
    /// No room.
    #[error("not enough disk space: {0}")]
    NoSpace(String),
    /// Collection is running already.
    #[error("a collection is running already; try again when it has ended")]
    Busy,
    /// The store failed.
    #[error("{0}")]
    Internal(String),
}

/// Called once with the answer; never called when the power is cut before.
pub type Reply = Box<dyn FnOnce(Result<Answer, Refusal>) + Send>;

/// What the loop shows without being asked. Small: it does not grow with revisions or objects.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct View {
    /// The running revision; `None` until one was chosen.
    pub running: Option<RevisionId>,
    /// Digest of its manifest.
    pub manifest: Option<ObjectId>,
    /// The revision to boot.
    pub committed: Option<RevisionId>,
    /// The one committed before it.
    pub previous: Option<RevisionId>,
    /// The revision being tried.
    pub trial: Option<TrialView>,
    /// Containers of the running revision, text order.
    pub containers: Vec<ContainerView>,
    /// Groups of the running revision, start order.
    pub groups: Vec<GroupView>,
    /// User metadata, newest key first.
    pub user_meta: Arc<Vec<(String, Vec<u8>)>>,
    /// Device metadata, newest key first.
    pub device_meta: Arc<Vec<(String, Vec<u8>)>>,
    /// Claims of clients, by number.
    pub claims: Arc<Vec<ClaimView>>,
    /// Number of the newest failure record.
    pub last_failure: Option<u64>,
    /// Whether the run time answers; else why not.
    pub runtime_problem: Option<String>,
    /// What was found at start and needs a person: quarantined objects, a fallback that was taken.
    pub notices: Vec<String>,
    /// Whether a shutdown is under way.
    pub shutting_down: bool,
    /// How updates ended since this start.
    pub updates: crate::updates::Updates,
}

/// A claim, as shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimView {
    /// The claim.
    pub claim: Claim,
    /// When it ends unless it is renewed.
    pub expires: Instant,
    /// The claim of another client that counts where both overlap.
    pub overruled_by: Option<u64>,
}

/// A trial, as shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrialView {
    /// Which revision.
    pub revision: RevisionId,
    /// Tries that are left after this one.
    pub tries_left: u32,
    /// `verifying`, `waiting for a reboot`, `starting`, `observing`, `rolling back`.
    pub phase: &'static str,
    /// When it will be committed if nothing happens.
    pub commit_at: Option<Instant>,
}

/// A container, as shown.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerView {
    /// Its name.
    pub name: ContainerName,
    /// Its group.
    pub group: GroupName,
    /// Where it is.
    pub status: Status,
    /// Its goal.
    pub goal: Goal,
    /// Who may control it.
    pub restart_policy: RestartPolicy,
    /// Roles on the socket.
    pub roles: Vec<&'static str>,
    /// Recovery settings and counters; Pantavisor's lists leave it out when the policy is `no`.
    pub recovery: RecoveryView,
    /// Whether a person stopped it.
    pub user_stopped: bool,
    /// First process.
    pub pid: Option<u32>,
    /// When it was started last.
    pub started_at: Option<Instant>,
    /// Starts since the revision began to run, minus one.
    pub restarts: u32,
    /// Exit code of its last end.
    pub exit_code: Option<u32>,
    /// Whether its last end was a kill because it used more memory than it may.
    pub out_of_memory: bool,
    /// The object of its root file system of which a block did not match its hash when it ended last.
    pub damaged: Option<ObjectId>,
    /// Version.
    pub fingerprint: ObjectId,
    /// Why it is not further, in words: "waits for group app", "retry in 5 s after exit code 1".
    pub reason: String,
    /// What the last health check said when it failed.
    pub health_problem: Option<String>,
}

/// Recovery, as shown.
#[derive(Debug, Clone, PartialEq)]
pub struct RecoveryView {
    /// Policy.
    pub policy: RecoveryPolicy,
    /// Retries before the back-off policy.
    pub max_retries: u32,
    /// Retries used.
    pub current_retries: u32,
    /// Uptime that counts as stable.
    pub stable_timeout: Duration,
    /// Whether it has run that long.
    pub is_stable: bool,
    /// When the retries are used up.
    pub backoff: BackoffPolicy,
}

/// A group, as shown.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupView {
    /// Its name.
    pub name: GroupName,
    /// Its goal.
    pub goal: Goal,
    /// Default policy.
    pub restart_policy: RestartPolicy,
    /// READY when every member has reached its own goal, else the lowest status of those that have not.
    pub status: Status,
    /// Default recovery: retries, stable time, back-off; `None` when the group sets none.
    pub recovery: Option<(u32, Duration, BackoffPolicy)>,
}

/// One thing that happened, for `/events`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happened {
    /// Grows by one with each event of this start of the orchestrator.
    pub id: u64,
    /// When.
    pub time: WallTime,
    /// Stable word: `container-status`, `progress`, `rollback`, `commit`, `removed`, `claim`, `meta`, `reset`, `takeover`, `runtime`, `collected`, `notice`, `shutdown`.
    pub kind: &'static str,
    /// The revision it is about.
    pub revision: Option<RevisionId>,
    /// The container it is about.
    pub container: Option<ContainerName>,
    /// In words.
    pub message: String,
}
