//! The loop: one event in, everything that follows from it out, in order, before the next event is looked at.
//!
//! It decides nothing itself: `lifecycle` does, and what it wants done is carried out in `carry`. Invariants: a reply is called
//! only after what it promises is durable; nothing here waits for a container or for hashing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use lifecycle::boot;
use lifecycle::containers::Containers;
use lifecycle::update::{self, Update};
use model::{ContainerName, Instant, Manifest, Marker, RevisionId, Status};
use store::{Opened, Store};

use crate::carry::Owed;
use crate::handle::{Happened, Reply, Request};
use crate::ports::{
    Bootloader as _, Clock as _, Ending, JobEvent, Ports, Runtime as _, RuntimeCommand,
    RuntimeEvent, Watchdog as _, World,
};
use crate::settings::Settings;
use crate::shared::Handle;

/// Steps of the life cycle that one event may cause; each leads to another phase, so a few are enough.
const STEPS_MAX: usize = 64;

/// What the loop is told.
pub enum Event {
    /// The first event: read the storage and start what is to run.
    Start,
    /// Somebody asks for a change.
    Request(Request, Reply),
    /// Something happened to containers.
    Runtime(RuntimeEvent),
    /// Long work on the storage is done.
    Job(JobEvent),
    /// Settings changed while the device runs; they count from the next decision on.
    Settings(Settings),
    /// Time passed: at [`Device::next_wake`], or earlier. Also kicks the watchdog.
    Tick,
}

/// The device. One thread owns it.
pub struct Device<W: World> {
    pub(crate) store: Store<W::Disk>,
    pub(crate) ports: Ports<W>,
    pub(crate) settings: Settings,
    pub(crate) handle: Handle,
    pub(crate) stage: Stage,
    pub(crate) containers: Containers,
    /// Parsed manifests of the running revision, the one before, and the one being installed.
    pub(crate) manifests: BTreeMap<RevisionId, Arc<Manifest>>,
    pub(crate) booted: Option<RevisionId>,
    /// The marker as it was last read or written. While a later one is owed, a power cut brings this one back: what it names stays.
    pub(crate) durable: Marker,
    /// When this orchestrator was started.
    pub(crate) born: Instant,
    pub(crate) owed: VecDeque<Owed>,
    pub(crate) owed_retry: Option<Instant>,
    /// A trial or an accepted request could not be taken up, because the storage took no writes: the start is gone through again
    /// at this time.
    pub(crate) start_again: Option<Instant>,
    /// What waits for that.
    pub(crate) waiting: Option<RevisionId>,
    /// Verifications under way; only the answer to the last one asked for counts, as an earlier one may be of other objects.
    pub(crate) verifications: u32,
    /// Generations below this one are reserved durably.
    pub(crate) generations_reserved: u64,
    /// Who asked for what is being handled.
    pub(crate) asker: Option<Reply>,
    /// Who asked for a run that is answered when its trial is durable.
    pub(crate) deferred: Option<Reply>,
    /// Who waits for the collection that is under way; `None` when there is none.
    pub(crate) collecting: Option<Vec<Reply>>,
    pub(crate) meta: crate::show::Meta,
    pub(crate) last_failure: Option<u64>,
    /// Last log lines of the newest failure, for the progress of its revision.
    pub(crate) failure_log: Option<(RevisionId, String)>,
    pub(crate) notices: Vec<String>,
    pub(crate) runtime_problem: Option<String>,
    pub(crate) shown: BTreeMap<ContainerName, Status>,
    pub(crate) register: crate::claims::Register,
    pub(crate) resetting: crate::reset::Resetting,
    pub(crate) sealing: crate::sealing::Queue,
    pub(crate) told: bool,
    pub(crate) updates: crate::updates::UpdateCounter,
}

/// How far the start has come.
pub(crate) enum Stage {
    /// Nothing was read yet.
    New,
    /// Revisions are being verified before one is chosen.
    Booting(Box<boot::Facts>),
    /// Running.
    Up(Box<Update>),
    /// The boot has ended; nothing is handled any more.
    Ended(Ending),
}

impl<W: World> Device<W> {
    /// A device over an opened storage. Nothing happens before [`Event::Start`].
    pub fn new(
        opened: Opened<W::Disk>,
        ports: Ports<W>,
        settings: Settings,
        handle: Handle,
    ) -> Self {
        let now = ports.clock.now();
        Self {
            store: opened.store,
            booted: ports.bootloader.booted(),
            born: now,
            ports,
            settings,
            handle,
            stage: Stage::New,
            containers: Containers::new(now, 0),
            manifests: BTreeMap::new(),
            durable: Marker::default(),
            owed: VecDeque::new(),
            owed_retry: None,
            start_again: None,
            waiting: None,
            verifications: 0,
            generations_reserved: 0,
            asker: None,
            deferred: None,
            collecting: None,
            meta: crate::show::Meta::default(),
            last_failure: None,
            failure_log: None,
            notices: opened.notices,
            runtime_problem: None,
            shown: BTreeMap::new(),
            register: crate::claims::Register::default(),
            resetting: crate::reset::Resetting::default(),
            sealing: crate::sealing::Queue::default(),
            told: false,
            updates: crate::updates::UpdateCounter::default(),
        }
    }

    /// Handles one event and everything that follows from it.
    pub fn handle(&mut self, event: Event) {
        if let Stage::Ended(_) = self.stage {
            return;
        }
        self.ports.watchdog.kick();
        let now = self.ports.clock.now();
        self.expire_claims(now);
        match event {
            Event::Start => self.start(now),
            Event::Request(request, reply) => self.on_request(now, request, reply),
            Event::Runtime(event) => self.on_runtime(now, event),
            Event::Job(event) => self.on_job(now, event),
            Event::Settings(settings) => self.on_settings(settings),
            Event::Tick => {}
        }
        self.settle(now);
        self.publish(now);
    }

    /// When [`Event::Tick`] is due although nothing happens; `None`: never. May be in the past: then at once.
    pub fn next_wake(&self) -> Option<Instant> {
        let now = self.ports.clock.now();
        let update = match &self.stage {
            Stage::Up(update) => update.next_wake(now),
            Stage::New | Stage::Booting(_) => None,
            Stage::Ended(_) => return None,
        };
        let containers = self.containers.next_wake(now);
        let claims = self.register.next_wake();
        let (owed, start) = (self.owed_retry, self.start_again);
        let sealing = self.sealing.next_wake();
        [update, containers, claims, owed, start, sealing]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether it is decided what runs.
    pub fn is_up(&self) -> bool {
        match &self.stage {
            Stage::Up(_) => true,
            Stage::New | Stage::Booting(_) | Stage::Ended(_) => false,
        }
    }

    /// How the boot ended, once it has.
    pub fn ended(&self) -> Option<Ending> {
        match &self.stage {
            Stage::Ended(ending) => Some(*ending),
            Stage::New | Stage::Booting(_) | Stage::Up(_) => None,
        }
    }

    /// Lets containers and life cycle react to each other until nothing changes.
    fn settle(&mut self, now: Instant) {
        self.pay_when_due(now);
        self.start_again_when_due(now);
        self.seal_when_due(now);
        for _ in 0..STEPS_MAX {
            self.submit_commands(now);
            let Stage::Up(update) = &mut self.stage else {
                return;
            };
            let before = update.phase().clone();
            let summary = self.containers.summary(now);
            let effects = update.step(now, update::Event::Containers(summary));
            let same = effects.is_empty() && *update.phase() == before;
            self.carry(now, effects);
            if same {
                return;
            }
        }
        tracing::error!("the life cycle does not come to rest; waiting for the next event");
    }

    fn submit_commands(&mut self, now: Instant) {
        let commands = self.containers.reconcile(now);
        let starts = commands.iter().any(|command| match command {
            RuntimeCommand::Start(_) | RuntimeCommand::Mount(_) => true,
            RuntimeCommand::List
            | RuntimeCommand::Stop { .. }
            | RuntimeCommand::MarkReady(_)
            | RuntimeCommand::Probe { .. } => false,
        });
        if starts {
            self.reserve_generations();
        }
        for command in commands {
            self.ports.runtime.submit(command);
        }
    }

    fn on_runtime(&mut self, now: Instant, event: RuntimeEvent) {
        match &event {
            RuntimeEvent::Disconnected { reason } => {
                self.tell(
                    "runtime",
                    None,
                    None,
                    format!("the run time is away: {reason}"),
                );
                self.runtime_problem = Some(reason.clone());
            }
            RuntimeEvent::Connected => {
                if self.runtime_problem.take().is_some() {
                    let text = "the run time answers again".to_owned();
                    self.tell("runtime", None, None, text);
                }
            }
            RuntimeEvent::Listed(_) => self.runtime_problem = None,
            RuntimeEvent::Mounted(_)
            | RuntimeEvent::Started { .. }
            | RuntimeEvent::StartFailed { .. }
            | RuntimeEvent::Exited { .. }
            | RuntimeEvent::Stopped(_)
            | RuntimeEvent::Probed { .. } => {}
        }
        self.containers.handle(now, event);
    }

    fn on_job(&mut self, now: Instant, event: JobEvent) {
        match event {
            JobEvent::Verified { revision, bad } => {
                self.verifications = self.verifications.saturating_sub(1);
                if self.verifications == 0 {
                    self.on_verified(now, revision, bad);
                }
            }
            JobEvent::Sealed(sealing) => self.on_sealed(now, sealing),
            JobEvent::Collected { result } => self.on_collected(result),
        }
    }

    /// Keeps an event for those who follow.
    pub(crate) fn tell(
        &mut self,
        kind: &'static str,
        revision: Option<RevisionId>,
        container: Option<ContainerName>,
        message: String,
    ) {
        tracing::info!(kind, ?revision, ?container, "{message}");
        self.told = true;
        self.handle.record(Happened {
            id: 0,
            time: self.ports.clock.wall(),
            kind,
            revision,
            container,
            message,
        });
    }

    /// A notice stays in the view until the next start.
    pub(crate) fn notice(&mut self, text: String) {
        const NOTICES_MAX: usize = 64;
        if self.notices.contains(&text) {
            return;
        }
        self.tell("notice", None, None, text.clone());
        if self.notices.len() == NOTICES_MAX {
            self.notices.remove(0);
        }
        self.notices.push(text);
    }
}
