//! The handle that the loop holds, and the queue behind it.
//!
//! Commands for one container are carried out one after the other, in order; different containers at once, with a limit on
//! the starts. A question (list, probe) does not wait behind a stop. How a command is carried out stands in `instance.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use device::ports::{Instance, Runtime, RuntimeCommand, RuntimeEvent};
use linux::cgroup::Cgroups;
use model::{ContainerName, RevisionId};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tonic::metadata::AsciiMetadataValue;

use crate::callers::Callers;
use crate::config::{Address, Config};
use crate::link::{self, Link, Private, Stopper};
use crate::logs::{Limits, LogKeeper};
use crate::output::Output;
use crate::registry::Registry;
use crate::rootfs::{self, RootError};
use crate::{instance, probe};

/// Containers that are set up at the same time: more only makes each of them slower.
const STARTS_AT_ONCE_MAX: usize = 8;
/// Probes that run at the same time.
const PROBES_AT_ONCE_MAX: usize = 32;
/// How long a private containerd may take to start or end when that was asked for.
const PRIVATE_PATIENCE: Duration = Duration::from_secs(12);
/// What a private containerd may log: bytes, and files besides the current one.
const CONTAINERD_LOG: Limits = Limits {
    max_bytes: 128 << 10,
    files: 1,
};

/// Why the adapter could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The run folder could not be prepared.
    #[error("cannot prepare the run folder: {0}")]
    RunDir(String),
    /// The control groups could not be found.
    #[error("cannot find the control groups of this machine")]
    Cgroups(#[source] io::Error),
    /// The log thread could not be started.
    #[error("cannot follow log files")]
    Logs(#[source] io::Error),
    /// containerd does not take this namespace.
    #[error("{0:?} is not a namespace of containerd: use letters, digits and single '-', '_', '.'")]
    Namespace(String),
    /// Control groups are found by this path.
    #[error("{0:?} is not a control group: use an absolute path such as /coxswain")]
    CgroupParent(String),
}

impl From<RootError> for StartError {
    fn from(error: RootError) -> Self {
        Self::RunDir(error.to_string())
    }
}

/// What all parts of the adapter share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) namespace: AsciiMetadataValue,
    pub(crate) link: Link,
    /// The private containerd, when there is one.
    pub(crate) private: watch::Sender<Private>,
    pub(crate) logs: LogKeeper,
    pub(crate) output: Output,
    pub(crate) cgroups: Cgroups,
    /// Held while an image is mounted, or found unused and unmounted.
    pub(crate) images: Mutex<()>,
    pub(crate) starts: Semaphore,
    probes: Semaphore,
    registry: Mutex<Registry>,
    work: mpsc::UnboundedSender<Work>,
    events: Box<dyn Fn(RuntimeEvent) + Send + Sync>,
    before_start: OnceLock<Box<BeforeStart>>,
}

/// Told before each start of a container, on a thread that may wait; an error is why it cannot start.
type BeforeStart = dyn Fn(&RevisionId, &ContainerName) -> Result<(), String> + Send + Sync;

/// What is queued.
pub(crate) enum Work {
    /// From the loop.
    Command(RuntimeCommand),
    /// An instance ended: free what it used, keep its record.
    Clean { id: String, instance: Instance },
}

impl Shared {
    pub(crate) fn tell(&self, event: RuntimeEvent) {
        (self.events)(event);
    }

    pub(crate) fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the rest of the machine must do before a container starts.
    pub(crate) fn prepare(
        &self,
        revision: &RevisionId,
        container: &ContainerName,
    ) -> Result<(), String> {
        match self.before_start.get() {
            Some(prepare) => prepare(revision, container),
            None => Ok(()),
        }
    }

    pub(crate) fn queue(&self, work: Work) {
        // The receiver is gone only when the program ends.
        self.work.send(work).ok();
    }
}

/// Containers on containerd. Dropping it leaves everything running.
pub struct ContainerdRuntime {
    shared: Arc<Shared>,
    stopper: Stopper,
}

impl std::fmt::Debug for ContainerdRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContainerdRuntime")
            .field("config", &self.shared.config)
            .finish()
    }
}

impl ContainerdRuntime {
    /// Starts the adapter on `runtime` and returns at once; [`RuntimeEvent::Connected`] tells when containerd answers.
    /// `events` is called from threads of `runtime` and must not block.
    ///
    /// # Errors
    /// When the run folder, the control groups or the settings cannot be used.
    pub fn start(
        config: Config,
        runtime: &tokio::runtime::Handle,
        events: impl Fn(RuntimeEvent) + Send + Sync + 'static,
    ) -> Result<Self, StartError> {
        let namespace = AsciiMetadataValue::try_from(config.namespace.as_str())
            .ok()
            .filter(|_| !config.namespace.is_empty())
            .ok_or_else(|| StartError::Namespace(config.namespace.clone()))?;
        let parent = &config.cgroup_parent;
        if !parent.starts_with('/') || parent.ends_with('/') || parent.contains("..") {
            return Err(StartError::CgroupParent(parent.clone()));
        }
        rootfs::prepare_run_dir(&config)?;
        let (link, maker, stopper) = Link::new();
        let (work, queue) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            namespace,
            link,
            private: watch::Sender::new(Private {
                pid: 0,
                wanted: true,
            }),
            logs: LogKeeper::start().map_err(StartError::Logs)?,
            output: Output::prepare(&config).map_err(StartError::Logs)?,
            cgroups: Cgroups::find().map_err(StartError::Cgroups)?,
            images: Mutex::new(()),
            starts: Semaphore::new(STARTS_AT_ONCE_MAX),
            probes: Semaphore::new(PROBES_AT_ONCE_MAX),
            registry: Mutex::default(),
            work,
            events: Box::new(events),
            before_start: OnceLock::new(),
            config,
        });
        if let Address::Spawn(spawn) = &shared.config.address {
            shared
                .logs
                .follow(&spawn.log_file(), CONTAINERD_LOG)
                .map_err(StartError::Logs)?;
        }
        runtime.spawn(link::run(Arc::clone(&shared), maker));
        runtime.spawn(carry_out(Arc::clone(&shared), queue));
        Ok(Self { shared, stopper })
    }

    /// Has `prepare` called before each start of a container, on a thread that may wait, with its revision and name; an error is why
    /// it cannot start. Only the first one given counts.
    pub fn before_start(
        &self,
        prepare: impl Fn(&RevisionId, &ContainerName) -> Result<(), String> + Send + Sync + 'static,
    ) {
        if self.shared.before_start.set(Box::new(prepare)).is_err() {
            tracing::error!("what is to be done before a start was given twice");
        }
    }

    /// Who a process belongs to, for the server.
    ///
    /// # Errors
    /// When /proc does not tell our own name space.
    pub fn callers(&self) -> io::Result<Callers> {
        Callers::new(Arc::clone(&self.shared))
    }

    /// What stops the adapter after the loop, which owns this, has ended; and what controls a private containerd.
    pub fn control(&self) -> Control {
        Control {
            shared: Arc::clone(&self.shared),
            stopper: self.stopper.clone(),
        }
    }
}

/// Stops the adapter, or its private containerd. Cheap to clone.
#[derive(Clone)]
pub struct Control {
    shared: Arc<Shared>,
    stopper: Stopper,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

impl Control {
    /// The private containerd; `None` when somebody else runs containerd.
    pub fn private(&self) -> Option<Private> {
        match self.shared.config.address {
            Address::Spawn(_) => Some(*self.shared.private.borrow()),
            Address::Connect(_) => None,
        }
    }

    /// Starts the private containerd or asks it to end, from now on until it is told otherwise or this program starts again. Containers
    /// go on. Returns when it has started or ended; `false` when it had not after a while.
    pub async fn want_private(&self, wanted: bool) -> bool {
        let private = &self.shared.private;
        private.send_if_modified(|private| {
            let changed = private.wanted != wanted;
            private.wanted = wanted;
            changed
        });
        let mut seen = private.subscribe();
        let there = seen.wait_for(|private| (private.pid > 0) == wanted);
        tokio::time::timeout(PRIVATE_PATIENCE, there)
            .await
            .is_ok_and(|seen| seen.is_ok())
    }

    /// Stops to use containerd, and stops a private one in good order; containers that run go on. For a machine that is about to go
    /// down, after the containers were stopped.
    pub async fn stop_containerd(&self) {
        let (done, stopped) = oneshot::channel();
        if self.stopper.send(done).await.is_ok() {
            // Without an answer it was stopped before.
            stopped.await.ok();
        }
    }
}

impl Runtime for ContainerdRuntime {
    fn submit(&mut self, command: RuntimeCommand) {
        if let RuntimeCommand::MarkReady(instance) = &command {
            // Not in the container's line, nor when containerd answers again: the signal was answered.
            instance::record_ready(&self.shared, instance);
        }
        self.shared.queue(Work::Command(command));
    }
}

/// Takes work from the queue, in order for each container.
async fn carry_out(shared: Arc<Shared>, mut queue: mpsc::UnboundedReceiver<Work>) {
    let mut waiting: BTreeMap<ContainerName, VecDeque<Work>> = BTreeMap::new();
    let mut busy: JoinSet<ContainerName> = JoinSet::new();
    loop {
        tokio::select! {
            work = queue.recv() => {
                let Some(work) = work else { return };
                let Some(container) = container_of(&work) else {
                    question(&shared, work);
                    continue;
                };
                match waiting.get_mut(&container) {
                    Some(line) => line.push_back(work),
                    None => {
                        waiting.insert(container.clone(), VecDeque::new());
                        begin(&shared, &mut busy, container, work);
                    }
                }
            }
            Some(done) = busy.join_next() => {
                // A panic ends the program in release builds; here its container stays blocked.
                let Ok(container) = done else { continue };
                match waiting.get_mut(&container).and_then(VecDeque::pop_front) {
                    Some(next) => begin(&shared, &mut busy, container, next),
                    None => drop(waiting.remove(&container)),
                }
            }
        }
    }
}

fn begin(
    shared: &Arc<Shared>,
    busy: &mut JoinSet<ContainerName>,
    container: ContainerName,
    work: Work,
) {
    let shared = Arc::clone(shared);
    busy.spawn(async move {
        match work {
            Work::Clean { id, instance } => instance::clean(&shared, &id, &instance).await,
            Work::Command(command) => match command {
                RuntimeCommand::Start(spec) => instance::start(&shared, spec).await,
                RuntimeCommand::Mount(spec) => instance::mount(&shared, spec).await,
                RuntimeCommand::Stop {
                    instance,
                    signal,
                    timeout,
                } => {
                    instance::stop(&shared, instance, signal, timeout).await;
                }
                RuntimeCommand::MarkReady(instance) => {
                    instance::mark_ready(&shared, &instance).await;
                }
                // Not in a container's line, see `container_of`.
                RuntimeCommand::List | RuntimeCommand::Probe { .. } => {}
            },
        }
        container
    });
}

/// In whose line a piece of work waits; `None` for questions.
fn container_of(work: &Work) -> Option<ContainerName> {
    match work {
        Work::Clean { instance, .. } => Some(instance.container.clone()),
        Work::Command(command) => match command {
            RuntimeCommand::List | RuntimeCommand::Probe { .. } => None,
            RuntimeCommand::Start(spec) | RuntimeCommand::Mount(spec) => {
                Some(spec.instance.container.clone())
            }
            RuntimeCommand::Stop { instance, .. } | RuntimeCommand::MarkReady(instance) => {
                Some(instance.container.clone())
            }
        },
    }
}

fn question(shared: &Arc<Shared>, work: Work) {
    let shared = Arc::clone(shared);
    match work {
        Work::Command(RuntimeCommand::List) => {
            tokio::spawn(async move {
                shared.link.up().await;
                let found = shared.registry().found();
                shared.tell(RuntimeEvent::Listed(found));
            });
        }
        Work::Command(RuntimeCommand::Probe {
            instance,
            probe,
            timeout,
        }) => {
            tokio::spawn(async move {
                let outcome = match shared.probes.try_acquire() {
                    Ok(_permit) => probe::ask(&shared, &instance, &probe, timeout).await,
                    Err(_) => Err("too many probes at the same time".to_owned()),
                };
                shared.tell(RuntimeEvent::Probed { instance, outcome });
            });
        }
        Work::Command(
            RuntimeCommand::Start(_)
            | RuntimeCommand::Mount(_)
            | RuntimeCommand::Stop { .. }
            | RuntimeCommand::MarkReady(_),
        )
        | Work::Clean { .. } => {}
    }
}
