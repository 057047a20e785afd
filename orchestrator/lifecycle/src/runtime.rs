//! The words between the life cycle and whatever runs containers: commands out, events back.
//!
//! Only values; the port that carries them (`device::ports::Runtime`) gives them out again under its own name.

use std::sync::Arc;
use std::time::Duration;

use model::container::{Container, Probe};
use model::{ContainerName, ObjectId, RevisionId};

/// One run of one version of a container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance {
    /// The container.
    pub container: ContainerName,
    /// Its version: [`Container::fingerprint`].
    pub fingerprint: ObjectId,
    /// Which start this is; grows with every start that the device ever makes, also over restarts of the orchestrator.
    pub generation: u64,
}

/// Everything that the run time needs to start a container.
#[derive(Debug, Clone, PartialEq)]
pub struct StartSpec {
    /// Which run this will be.
    pub instance: Instance,
    /// The revision it is started for: names its revision volumes and its log folder.
    pub revision: RevisionId,
    /// The container.
    pub container: Arc<Container>,
}

/// What the loop asks of the run time.
#[derive(Debug, Clone, PartialEq)]
pub enum RuntimeCommand {
    /// Tell every instance that exists, running or not: answered by [`RuntimeEvent::Listed`].
    List,
    /// Mount the volumes only (goal MOUNTED): `Mounted` or `StartFailed`.
    Mount(StartSpec),
    /// Mount, create and start: `Started` or `StartFailed`. A remnant of an earlier instance of the same container is removed first.
    Start(StartSpec),
    /// Ask to stop by signal, kill after the time-out, remove everything that was set up: always answered by `Stopped`, also when
    /// the instance does not exist.
    Stop {
        /// Which.
        instance: Instance,
        /// Signal number that asks.
        signal: u32,
        /// Time until SIGKILL.
        timeout: Duration,
    },
    /// Remember beside the instance that it is ready, so that a restarted orchestrator finds it so ([`Found::ready`]). Not answered.
    MarkReady(Instance),
    /// Ask a running instance whether it is well: `Probed`.
    Probe {
        /// Which.
        instance: Instance,
        /// How.
        probe: Probe,
        /// How long an answer may take.
        timeout: Duration,
    },
}

/// How an instance ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Exit {
    /// Exit code, 128 + n for signal n; 255 when it is not known.
    pub code: u32,
    /// Killed because it used more memory than it may.
    pub out_of_memory: bool,
    /// The object of its root file system of which it may have read a block that does not match its hash (dm-verity).
    pub damaged: Option<ObjectId>,
}

/// An instance that the run time knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Which.
    pub instance: Instance,
    /// The revision it was started for.
    pub revision: RevisionId,
    /// What it is doing.
    pub condition: Condition,
    /// Whether it was marked ready.
    pub ready: bool,
}

/// What an instance is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Its volumes are mounted, nothing runs.
    Mounted,
    /// It runs.
    Running {
        /// Its first process, in the host's numbers.
        pid: u32,
        /// How long it has been running.
        uptime: Duration,
    },
    /// It ended, or it was created and never started.
    Ended(Exit),
}

/// What the run time tells the loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuntimeEvent {
    /// Answer to [`RuntimeCommand::List`]: everything there is.
    Listed(Vec<Found>),
    /// Volumes are mounted.
    Mounted(Instance),
    /// The first process runs.
    Started {
        /// Which.
        instance: Instance,
        /// Its first process, in the host's numbers.
        pid: u32,
    },
    /// It could not be mounted or started; nothing of it is left.
    StartFailed {
        /// Which.
        instance: Instance,
        /// What failed, on what, why.
        error: String,
    },
    /// Its first process ended (also after a stop was asked; then `Stopped` follows).
    Exited {
        /// Which.
        instance: Instance,
        /// How.
        exit: Exit,
    },
    /// It is gone, with its mounts.
    Stopped(Instance),
    /// Answer of a probe: `Err` says what was wrong.
    Probed {
        /// Which.
        instance: Instance,
        /// The answer.
        outcome: Result<(), String>,
    },
    /// The run time does not answer; what runs goes on running. Commands are kept and carried out when it is back.
    Disconnected {
        /// Why.
        reason: String,
    },
    /// The run time answers (again). The loop lists next.
    Connected,
}

/// How the loop ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The orchestrator stops; the machine goes on. Containers keep running when `containers` is true.
    Stop {
        /// Whether containers keep running.
        containers_keep_running: bool,
    },
    /// The machine restarts (exit code 4 under another init).
    Reboot,
    /// The machine is switched off (exit code 3 under another init).
    PowerOff,
}
