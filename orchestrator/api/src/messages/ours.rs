//! Bodies of our own resources.
//!
//! New fields may be added; none is removed or given another meaning. Readers ignore fields that they do not know.

use std::collections::BTreeSet;

use model::claim::{Client, Part};
use model::container::{RecoveryPolicy, RestartPolicy};
use model::log::Level;
use model::{ContainerName, Goal, GroupName, ObjectId, RevisionId, Status};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One entry of `GET /uploads`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Upload {
    /// Name of the object.
    #[schemars(with = "String")]
    pub sha256: ObjectId,
    /// Bytes that are there; where `PATCH /objects/{sha256}` goes on when it is not active.
    pub bytes: u64,
    /// Bytes of the whole object, when it is being uploaded by a client that has told it.
    pub expected_bytes: Option<u64>,
    /// Whether it is being uploaded now.
    pub active: bool,
}

/// Answer of `GET /version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Version {
    /// `coxswain`.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// Answer of `GET /healthz`: 200 when `ok`, else 503.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// Whether the device does what it should.
    pub ok: bool,
    /// What is wrong, in words; empty when all is well.
    pub problems: Vec<String>,
}

/// The whole device in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// No revision was chosen yet, or its containers are being started.
    Starting,
    /// Every group has reached its goal.
    Good,
    /// A revision is being tried.
    Updating,
    /// Something that should run does not.
    Degraded,
    /// A shutdown is under way.
    ShuttingDown,
}

/// Answer of `GET /status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceStatus {
    /// Version of the orchestrator.
    pub version: String,
    /// Wall clock time of the device.
    pub time: String,
    /// Seconds since the machine's boot.
    pub uptime_s: u64,
    /// The device in one word.
    pub condition: Condition,
    /// The running revision.
    #[schemars(with = "Option<String>")]
    pub running: Option<RevisionId>,
    /// SHA-256 of its manifest.
    #[schemars(with = "Option<String>")]
    pub manifest: Option<ObjectId>,
    /// The revision that the next boot starts.
    #[schemars(with = "Option<String>")]
    pub committed: Option<RevisionId>,
    /// What a rollback returns to.
    #[schemars(with = "Option<String>")]
    pub previous: Option<RevisionId>,
    /// The revision being tried.
    pub trial: Option<Trial>,
    /// Groups in start order.
    pub groups: Vec<GroupStatus>,
    /// Containers in text order.
    pub containers: Vec<ContainerStatus>,
    /// Space on the storage.
    pub storage: Option<Storage>,
    /// The newest failure.
    pub last_failure: Option<FailureSummary>,
    /// Why the run time does not answer.
    pub runtime_problem: Option<String>,
    /// What needs a person.
    pub notices: Vec<String>,
}

/// A revision being tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Trial {
    /// Which.
    #[schemars(with = "String")]
    pub revision: RevisionId,
    /// What is being done.
    pub phase: String,
    /// Tries that are left after this one.
    pub tries_left: u32,
    /// Seconds until it is committed if nothing happens.
    pub commit_in_s: Option<u64>,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GroupStatus {
    /// Its name.
    #[schemars(with = "String")]
    pub name: GroupName,
    /// Its goal.
    pub goal: Goal,
    /// READY when every member has reached its own goal.
    pub status: Status,
    /// Number of members.
    pub containers: usize,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ContainerStatus {
    /// Its name.
    #[schemars(with = "String")]
    pub name: ContainerName,
    /// Its group.
    #[schemars(with = "String")]
    pub group: GroupName,
    /// Where it is.
    pub status: Status,
    /// Its goal.
    pub goal: Goal,
    /// Whether it has reached its goal, or was stopped by a person.
    pub good: bool,
    /// Who may control it.
    pub restart_policy: RestartPolicy,
    /// Roles on the socket.
    pub roles: Vec<String>,
    /// When it is started again.
    pub recovery: RecoveryPolicy,
    /// Retries used.
    pub retries: u32,
    /// Retries it has; 0 is no limit.
    pub max_retries: u32,
    /// Whether it has run long enough to count as stable.
    pub stable: bool,
    /// Whether a person stopped it.
    pub user_stopped: bool,
    /// First process, in the host's numbers.
    pub pid: Option<u32>,
    /// Seconds since its last start.
    pub uptime_s: Option<u64>,
    /// Starts since the revision began to run, minus one.
    pub restarts: u32,
    /// Exit code of its last end.
    pub exit_code: Option<u32>,
    /// Whether its last end was a kill because it used more memory than it may.
    #[serde(default)]
    pub out_of_memory: bool,
    /// The object of its root file system of which a block did not match its hash (dm-verity) when it ended last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub damaged: Option<ObjectId>,
    /// Why it is not further, in words.
    pub reason: String,
    /// What the last failing health check said.
    pub health_problem: Option<String>,
    /// Version: equal in two revisions that share the running container.
    #[schemars(with = "String")]
    pub fingerprint: ObjectId,
}

/// Space on the storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Storage {
    /// Size in bytes.
    pub total_bytes: u64,
    /// Bytes free.
    pub free_bytes: u64,
}

/// A failure, short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FailureSummary {
    /// Number of the record.
    pub id: u64,
    /// The revision that failed.
    #[schemars(with = "String")]
    pub revision: RevisionId,
    /// When, by the device's clock.
    pub time: String,
    /// In one sentence.
    pub summary: String,
}

/// Answer of `GET /failures`: newest first.
pub type Failures = Vec<FailureSummary>;

/// Answer of `GET /why` and what is below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Why {
    /// What was asked about: `device`, a container's or a revision's name.
    pub subject: String,
    /// The answer in one sentence.
    pub summary: String,
    /// The chain of causes, nearest first; each line is a sentence.
    pub because: Vec<String>,
    /// The same chain with its shape: what is a cause of what.
    #[serde(default)]
    pub chain: Vec<WhyLink>,
    /// What a person can do about it.
    pub remedy: Vec<String>,
    /// Number of the failure record that this rests on.
    pub failure: Option<u64>,
    /// The last lines of the container that caused it.
    pub log: Vec<String>,
}

/// Body of `POST /claims`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClaimBody {
    /// `*`, `bsp`, `container:<name>`, `group:<name>`: 1 to 64 of them. They need not exist yet.
    #[schemars(with = "Vec<String>")]
    pub parts: BTreeSet<Part>,
    /// 0 to 1000, the higher one has its way; 100 when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u64>,
    /// How long it holds without being renewed, 5 to 86400 s; 300 when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_s: Option<u64>,
}

/// Body of `PUT /claims/{id}`; may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct LeaseBody {
    /// The length of the lease from now on; as before when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_s: Option<u64>,
}

/// A claim; answer of `POST /claims` and `PUT /claims/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Claim {
    /// Its number.
    pub id: u64,
    /// Whose it is: `container:<name>`, `host:<program>` or `host`.
    #[schemars(with = "String")]
    pub client: Client,
    /// What it is for.
    #[schemars(with = "Vec<String>")]
    pub parts: BTreeSet<Part>,
    /// The higher one has its way.
    pub priority: u16,
    /// How long it holds without being renewed.
    pub lease_s: u32,
    /// Seconds that are left of the lease.
    pub left_s: u64,
    /// When the lease ends, by the device's clock.
    pub until: String,
    /// The claim of another client that counts where both overlap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overruled_by: Option<u64>,
}

/// Answer of `GET /claims`: by number.
pub type Claims = Vec<Claim>;

/// One cause in a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WhyLink {
    /// A cause of the nearest link before it with a smaller number; 0 is a cause of the subject itself.
    pub depth: u32,
    /// The container, group or revision that it is about.
    pub about: String,
    /// In a sentence.
    pub text: String,
}

/// One line of `GET /logs/{container}` with `format=json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogLine {
    /// Whose.
    #[schemars(with = "String")]
    pub container: ContainerName,
    /// When it came, by the device's clock; left out when it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// How bad it is.
    pub level: Level,
    /// `stdout`, `stderr`, `syslog`, `coxswain`, or the path of a file in the container.
    pub source: String,
    /// What was written.
    pub text: String,
}

/// Data of one event of `GET /events`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// Where to resume: `Last-Event-ID` or `?since=`.
    pub id: String,
    /// When, by the device's clock.
    pub time: String,
    /// Stable word; also the name of the event. `lost` says that events before this one are no longer kept.
    pub kind: String,
    /// The revision it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub revision: Option<RevisionId>,
    /// The container it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub container: Option<ContainerName>,
    /// In words.
    pub message: String,
}
