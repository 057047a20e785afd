//! What the loop needs from the world. Adapters (`linux`, `containerd`, `simulator`) implement these traits.

use model::failure::{BadObject, Pressure};
use model::{Instant, ObjectId, RevisionId, WallTime};

pub use store::{Reading, Sealing};

pub use lifecycle::runtime::{
    Condition, Ending, Exit, Found, Instance, RuntimeCommand, RuntimeEvent, StartSpec,
};

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

/// Containers. Answers come back later as [`RuntimeEvent`]s.
pub trait Runtime {
    /// Queues a command and returns at once. Commands for one container are carried out in order; different containers at once.
    fn submit(&mut self, command: RuntimeCommand);
}

/// Long work on the storage. Answers come back later as [`JobEvent`]s; jobs may run at the same time as the loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// Verify these objects.
    Verify {
        /// Told back.
        revision: RevisionId,
        /// Each with the key that needs it.
        objects: Vec<(ObjectId, String)>,
        /// What need not be read.
        reading: Reading,
    },
    /// Seal these objects where the file system can, and read each as a whole.
    Seal {
        /// Each with the key that needs it.
        objects: Vec<(ObjectId, String)>,
        /// They are the last of several, so their seals become durable.
        last: bool,
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
    /// As many were sealed as can be.
    Sealed(Sealing),
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

/// Ends the boot. The loop has stopped what had to be stopped before it calls this, and handles nothing after it.
pub trait Power {
    /// Carries the ending out; under another init this ends the process.
    fn end(&mut self, ending: Ending);
}

/// What the boot loader starts next. The marker is the truth; this mirrors it for revisions whose `bsp` differs.
pub trait Bootloader {
    /// The revision whose kernel and init run now; `None` when the boot loader has no part in it (service mode).
    fn booted(&self) -> Option<RevisionId>;
    /// Whether what it keeps is damaged in a part, so that the next damage could cost the choice. A confirm mends it.
    fn is_damaged(&self) -> bool;
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
