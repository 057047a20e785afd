//! What the loop needs from the world. Adapters (`linux`, `containerd`, `simulator`) implement these traits.

use std::sync::Arc;
use std::time::Duration;

use model::container::{Container, Probe};
use model::failure::{BadObject, Pressure};
use model::{ContainerName, Instant, ObjectId, RevisionId, WallTime};

/// The kinds of the ports that one device is built from: real ones, or the simulator's.
pub trait World: 'static {
    /// The storage.
    type Disk: store::disk::Disk;
    /// Containers.
    type Runtime: Runtime;
    /// Long work on the storage.
    type Jobs: Jobs;
    /// Time.
    type Clock: Clock;
    /// What the boot loader starts.
    type Bootloader: Bootloader;
    /// How the boot ends.
    type Power: Power;
    /// Figures of the machine.
    type Gauges: Gauges;
    /// The hardware watchdog.
    type Watchdog: Watchdog;
}

/// Everything that the loop reaches the world through, but the store.
#[derive(Debug)]
pub struct Ports<W: World> {
    /// Containers.
    pub runtime: W::Runtime,
    /// Long work on the storage.
    pub jobs: W::Jobs,
    /// Time.
    pub clock: W::Clock,
    /// What the boot loader starts.
    pub bootloader: W::Bootloader,
    /// How the boot ends.
    pub power: W::Power,
    /// Figures of the machine.
    pub gauges: W::Gauges,
    /// The hardware watchdog.
    pub watchdog: W::Watchdog,
}

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

/// Containers. Answers come back later as [`RuntimeEvent`]s.
pub trait Runtime {
    /// Queues a command and returns at once. Commands for one container are carried out in order; different containers at once.
    fn submit(&mut self, command: RuntimeCommand);
}

/// Long work on the storage. Answers come back later as [`JobEvent`]s; jobs may run at the same time as the loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// Read and hash these objects (objects verified since the start are not read again when `again` is false).
    Verify {
        /// Told back.
        revision: RevisionId,
        /// Each with the key that needs it.
        objects: Vec<(ObjectId, String)>,
        /// Read also what was verified since the start.
        again: bool,
    },
    /// Remove every object that is not in the list, not leased and not being uploaded, then what removed revisions left.
    Collect {
        /// Objects that stay.
        keep: Vec<ObjectId>,
    },
}

/// Answers of jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEvent {
    /// Corrupt objects have been moved to quarantine when this is told.
    Verified {
        /// As asked.
        revision: RevisionId,
        /// What cannot be used; empty when all is well.
        bad: Vec<BadObject>,
    },
    /// Collection is done.
    Collected {
        /// Bytes that were freed, or why it stopped early.
        result: Result<u64, String>,
    },
}

/// Runs jobs, one after the other, in the order in which they were submitted.
pub trait Jobs {
    /// Queues a job and returns at once.
    fn submit(&mut self, job: Job);
}

/// Time. Monotonic time decides, wall time is only told.
pub trait Clock {
    /// Monotonic time since the machine's boot.
    fn now(&self) -> Instant;
    /// Wall clock time.
    fn wall(&self) -> WallTime;
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

/// Ends the boot. The loop has stopped what had to be stopped before it calls this, and handles nothing after it.
pub trait Power {
    /// Carries the ending out; under another init this ends the process.
    fn end(&mut self, ending: Ending);
}

/// What the boot loader starts next. The marker is the truth; this mirrors it for revisions whose `bsp` differs.
pub trait Bootloader {
    /// The revision whose kernel and init run now; `None` when the boot loader has no part in it (service mode).
    fn booted(&self) -> Option<RevisionId>;
    /// The next boot, and only that one, starts `trial`.
    ///
    /// # Errors
    /// What could not be written, and why.
    fn arm(&mut self, trial: &RevisionId) -> Result<(), String>;
    /// Boots start `committed` from now on; no trial is armed.
    ///
    /// # Errors
    /// What could not be written, and why.
    fn confirm(&mut self, committed: &RevisionId) -> Result<(), String>;
}

/// Figures for failure records.
pub trait Gauges {
    /// Pressure of the machine now.
    fn pressure(&self) -> Pressure;
}

/// The hardware watchdog, kicked by the loop at each turn.
pub trait Watchdog {
    /// Postpones the reset.
    fn kick(&mut self);
}
