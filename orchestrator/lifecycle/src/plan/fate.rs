//! What becomes of one container in an update, why, and how long it is away.

use std::time::Duration;

use model::manifest::Changes;
use model::{ContainerName, GroupName, Status};

/// What becomes of a container's processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// They go on.
    Kept,
    /// They are stopped, and others are started.
    Restarted,
    /// There are none now; they are started.
    Started,
    /// They are stopped for good.
    Stopped,
    /// There are none now and none then.
    Down,
}

/// Why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The running revision has none of this name.
    New,
    /// The next revision has none of this name.
    Removed,
    /// It is another container under the same name.
    Changed(Changes),
    /// It is the same, and its goal moved to MOUNTED or away from it.
    GoalMoved,
    /// It is the same.
    Unchanged,
    /// It is the same; it is not running now: where it is.
    NotRunning(Status),
    /// It is the same; the machine restarts.
    MachineRestarts,
    /// A person stopped it, and it stays so.
    StoppedByPerson,
}

/// What an expected time rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// Each part was seen before, since the start of the orchestrator.
    Observed,
    /// At least one part was not: a stop counts with its time-out, a start with nothing, a boot with what came after the kernel's start
    /// the last time.
    Configured,
}

/// How long something is expected to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lasts {
    /// So long.
    pub time: Duration,
    /// What that rests on.
    pub basis: Basis,
}

/// What becomes of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fated {
    /// Which.
    pub name: ContainerName,
    /// Its group, in the next revision if it is part of that.
    pub group: GroupName,
    /// What becomes of it.
    pub fate: Fate,
    /// Why.
    pub reason: Reason,
    /// What is applied to it without touching its processes.
    pub settings: Vec<&'static str>,
    /// Containers that must have reached their goals before it is started.
    pub depends_on: Vec<ContainerName>,
    /// From its stop until it reaches its goal again; only when it is restarted.
    pub downtime: Option<Lasts>,
}
