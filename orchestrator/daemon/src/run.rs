//! Configuration to adapters to loop: everything is made here, once, in order, and taken down in the reverse order.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use containerd::{Address, ContainerdRuntime, Spawn};
use device::handle::Request;
use device::ports::{Clock as _, Ending, Ports, Watchdog as _, World};
use device::{Device, Event, Handle, Settings};
use linux::clock::SystemClock;
use linux::disk::LinuxDisk;
use linux::facts::Facts;
use linux::gauges::MachineGauges;
use linux::watchdog::Hardware;
use server::{Server, Socket, Timeouts};
use store::Store;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::config::Config;
use crate::daemons::{self, Daemons};
use crate::event_loop;
use crate::figures::KernelFigures;
use crate::host_port;
use crate::identify::ByPlace;
use crate::jobs::Worker;
use crate::kept;
use crate::loader::{self, LoaderError, MachineLoader};
use crate::machine::{Drivers, Host};
use crate::meta_files;
use crate::power::ProcessPower;
use crate::shown::{ShownSettings, with_user_meta};
use crate::watchdog::LoopWatchdog;

/// Why the device could not be brought up.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A folder could not be made.
    #[error("cannot make the folder {}; check its parent and that this runs as root", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Another orchestrator uses the storage.
    #[error("another coxswain uses the storage {}; stop it first, or name another folder", .0.display())]
    Taken(PathBuf),
    /// The storage could not be opened.
    #[error("cannot open the storage {}", path.display())]
    Storage {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A thread or the asynchronous run time could not be started.
    #[error("cannot start {what}")]
    Start {
        /// What.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The adapter of containerd could not be started.
    #[error("cannot use containerd")]
    Containerd(#[from] containerd::StartError),
    /// The boot loader of the settings cannot be used.
    #[error("cannot use the boot loader of the setting `bootloader`")]
    Loader(#[from] LoaderError),
    /// A socket could not be bound.
    #[error(transparent)]
    Server(#[from] server::StartError),
}

/// The machine, whoever its init is.
#[derive(Debug)]
struct Machine;

impl World for Machine {
    type Disk = LinuxDisk;
    type Runtime = ContainerdRuntime;
    type Jobs = Worker;
    type Clock = SystemClock;
    type Bootloader = MachineLoader;
    type Power = ProcessPower;
    type Gauges = MachineGauges;
    type Watchdog = LoopWatchdog;
}

/// What only a device below our own init has.
#[derive(Debug, Default)]
struct OfInit {
    watchdog: LoopWatchdog,
    others: Daemons,
}

/// Runs the device until it has ended.
///
/// # Errors
/// Something that the device cannot do without could not be made.
pub fn run(config: Config) -> Result<Ending, RunError> {
    run_with(Arc::new(config), OfInit::default())
}

/// The same below our own init, which hands over the open watchdog.
///
/// # Errors
/// As [`run`].
pub fn run_below_init(config: Config, watchdog: Option<i32>) -> Result<Ending, RunError> {
    let until_up = config.text("watchdog") == "startup";
    let mut watchdog = match watchdog.map(Hardware::adopt) {
        None => LoopWatchdog::default(),
        Some(Ok(hardware)) => LoopWatchdog::over(hardware, until_up),
        Some(Err(error)) => {
            tracing::error!("no watchdog: {}", store::explain(&error));
            LoopWatchdog::default()
        }
    };
    // Until the loop runs, what is made for it is its first turn.
    watchdog.kick();
    watchdog.follow_disk();
    keep_time(config.path("storage"));
    host_port::serve(config.path("socket"));
    let others = Daemons::start(daemons::FILE.as_ref()).unwrap_or_else(|error| {
        tracing::error!(%error, "the programs of {} are not started", daemons::FILE);
        Daemons::default()
    });
    run_with(Arc::new(config), OfInit { watchdog, others })
}

/// Keeps the time for the next boot, every now and then. The thread ends with the process.
fn keep_time(storage: PathBuf) {
    let keep = move || {
        loop {
            thread::sleep(kept::INTERVAL);
            if let Err(error) = kept::keep_time(&storage) {
                tracing::warn!(%error, "cannot keep the time for the next boot");
            }
        }
    };
    if let Err(error) = thread::Builder::new().name("clock".to_owned()).spawn(keep) {
        tracing::warn!(%error, "the time is kept only at the end of a boot");
    }
}

fn run_with(config: Arc<Config>, of_init: OfInit) -> Result<Ending, RunError> {
    let storage = config.path("storage");
    let run_dir = config.path("run-dir");
    let socket = config.path("socket");
    make_folder(&storage, 0o755)?;
    make_folder(&run_dir, 0o755)?;
    if let Some(folder) = socket.parent() {
        make_folder(folder, 0o755)?;
    }

    let unusable = |source| RunError::Storage {
        path: storage.clone(),
        source,
    };
    let disk = LinuxDisk::open(&storage).map_err(unusable)?;
    disk.lock().map_err(|error| {
        if error.kind() == io::ErrorKind::WouldBlock {
            RunError::Taken(storage.clone())
        } else {
            unusable(error)
        }
    })?;
    let options = store::Options {
        reserve_percent: u8::try_from(config.number("storage-reserve")).unwrap_or(u8::MAX),
        lease: config.duration("object-lease"),
        objects_dir: storage.join("objects").display().to_string(),
        seals: !config.duration("seal-after").is_zero(),
        spare_bytes: SPARE_BYTES,
    };
    let opened = Store::open(disk, options, SystemClock.now());
    for notice in &opened.notices {
        tracing::warn!("{notice}");
    }

    // Two workers: one connection that is busy with a long list does not hold the other ones up.
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(64)
        .thread_keep_alive(Duration::from_secs(2))
        .thread_name("server")
        .enable_all()
        .build()
        .map_err(|source| RunError::Start {
            what: "the asynchronous run time",
            source,
        })?;
    let ending = bring_up(&config, &tokio, opened, &run_dir, of_init);
    // What is still running on it is idle connections and followers; they end with it.
    tokio.shutdown_timeout(Duration::from_millis(500));
    ending
}

fn bring_up(
    config: &Arc<Config>,
    tokio: &tokio::runtime::Runtime,
    opened: store::Opened<LinuxDisk>,
    run_dir: &Path,
    of_init: OfInit,
) -> Result<Ending, RunError> {
    let (storage, socket) = (config.path("storage"), config.path("socket"));
    let OfInit { watchdog, others } = of_init;
    let (events, queue) = channel();
    let sender = events.clone();
    let handle = Handle::new(move |request, reply| {
        // When the loop has ended nobody answers; the dropped reply says so.
        sender.send(Event::Request(request, reply)).ok();
    });

    let adapter = containerd_config(config, &storage, run_dir);
    let (sockets_dir, meta) = (adapter.sockets_dir.clone(), adapter.meta());
    let sender = events.clone();
    let runtime = ContainerdRuntime::start(adapter, tokio.handle(), move |event| {
        sender.send(Event::Runtime(event)).ok();
    })?;
    let callers = runtime.callers().map_err(|source| RunError::Start {
        what: "telling callers apart: is /proc mounted?",
        source,
    })?;
    let control = runtime.control();
    let drivers = Drivers::new(config.text("modprobe-binary").as_ref(), handle.clone());
    let (loader, manifests) = (drivers.clone(), opened.store.clone());
    runtime.before_start(move |revision, container| {
        loader.before_start(&manifests, revision, container)
    });

    let sender = events.clone();
    let jobs = Worker::start(opened.store.clone(), move |event| {
        sender.send(Event::Job(event)).ok();
    })
    .map_err(|source| RunError::Start {
        what: "the worker for the storage",
        source,
    })?;

    let power = ProcessPower::default();
    let cmdline = crate::cli::kernel_command_line();
    let bootloader = loader::set_up(config, &opened.store, &cmdline)?;
    let ports: Ports<Machine> = Ports {
        runtime,
        jobs,
        clock: SystemClock,
        bootloader,
        power: power.clone(),
        gauges: MachineGauges::new(&storage),
        watchdog: watchdog.clone(),
    };
    let store = opened.store.clone();
    let device = Device::new(opened, ports, settings(config), handle.clone());
    let _files = meta_files::follow(meta, &handle).map_err(|source| RunError::Start {
        what: "the thread that shows metadata to containers",
        source,
    })?;
    let _registration = follow_user_meta(config, &handle, events.clone());

    linux::progress::leave();
    let (ended, end) = oneshot::channel();
    let loop_thread = thread::Builder::new()
        .name("loop".to_owned())
        .spawn(move || {
            // The receiver waits until this is told; it is gone only when the process ends.
            ended
                .send(event_loop::run(device, &queue, &power, &watchdog))
                .ok();
        })
        .map_err(|source| RunError::Start {
            what: "the loop",
            source,
        })?;

    let server = Server {
        // Who may do what is decided for each call, so everybody may connect.
        sockets: vec![
            Socket {
                path: socket,
                mode: 0o666,
            },
            Socket {
                path: sockets_dir.join("control.sock"),
                mode: 0o666,
            },
        ],
        handle: handle.clone(),
        storage: Arc::new(store),
        figures: Arc::new(KernelFigures::find(callers.clone()).map_err(|source| {
            RunError::Start {
                what: "reading control groups",
                source,
            }
        })?),
        identify: Arc::new(ByPlace::new(callers)),
        settings: Arc::new(ShownSettings::new(Arc::clone(config), handle.clone())),
        machine: Arc::new(Host {
            facts: Facts::new(&storage, config.number("storage-reserve")),
            drivers,
            containerd: control.clone(),
            others,
            tokio: tokio.handle().clone(),
        }),
        clock: Arc::new(SystemClock),
        logs: storage.join("logs"),
        log_changes: linux::watch::changes_in,
        timeouts: Timeouts::default(),
    };
    let ending = tokio.block_on(async {
        let serving = server.start()?;
        tracing::info!("coxswain {} is up", env!("CARGO_PKG_VERSION"));
        let ending = until_ended(&handle, end).await;
        serving.stop().await;
        match ending {
            Ending::Stop {
                containers_keep_running: true,
            } => {}
            Ending::Stop {
                containers_keep_running: false,
            }
            | Ending::Reboot
            | Ending::PowerOff => {
                control.stop_containerd().await;
            }
        }
        Ok::<_, RunError>(ending)
    });
    if ending.is_ok() && loop_thread.join().is_err() {
        tracing::error!("the loop ended by a panic");
    }
    ending
}

/// Waits for the loop's end; SIGTERM asks it to stop and leave containers running, SIGINT to stop them too.
async fn until_ended(handle: &Handle, end: oneshot::Receiver<Ending>) -> Ending {
    let mut terminate = signal(SignalKind::terminate()).ok();
    let mut interrupt = signal(SignalKind::interrupt()).ok();
    tokio::pin!(end);
    loop {
        let containers_keep_running = tokio::select! {
            ending = &mut end => {
                // A loop that is gone without a word has panicked; what runs goes on.
                return ending.unwrap_or(Ending::Stop { containers_keep_running: true });
            }
            () = received(&mut terminate) => true,
            () = received(&mut interrupt) => false,
        };
        tracing::info!(containers_keep_running, "asked to stop");
        let reply = |answer: Result<_, device::handle::Refusal>| {
            if let Err(refusal) = answer {
                tracing::warn!("cannot stop: {refusal}");
            }
        };
        handle.send(
            Request::Stop {
                containers_keep_running,
            },
            Box::new(reply),
        );
    }
}

async fn received(signal: &mut Option<tokio::signal::unix::Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Tells the loop its settings anew when the user metadata changes them.
fn follow_user_meta(
    config: &Arc<Config>,
    handle: &Handle,
    events: Sender<Event>,
) -> device::shared::Registration {
    let config = Arc::clone(config);
    let follower = handle.clone();
    let last = Mutex::new((handle.view().user_meta.clone(), settings(&config)));
    handle.on_event(move || {
        let meta = follower.view().user_meta.clone();
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&last.0, &meta) {
            return;
        }
        let now = settings(&with_user_meta(&config, &follower));
        if last.1 != now {
            events.send(Event::Settings(now.clone())).ok();
        }
        *last = (meta, now);
    })
}

/// What a full storage gives up for the marker, progress and the record of a reset; some writes of 4 KiB each.
const SPARE_BYTES: u32 = 256 << 10;

/// The loop's part of the configuration.
fn settings(config: &Config) -> Settings {
    Settings {
        commit_delay: config.duration("commit-delay"),
        tries: u32::try_from(config.number("tries")).unwrap_or(u32::MAX),
        exact_commit: config.flag("pantavisor-exact-commit"),
        keep_revisions: usize::try_from(config.number("keep-revisions")).unwrap_or(usize::MAX),
        lease: config.duration("object-lease"),
        seal_after: config.duration("seal-after"),
        shutdown_limit: config.duration("stop-timeout"),
        default_role_mgmt: config.flag("pantavisor-default-roles"),
        arch: format!(
            "{}/{}/{}",
            std::env::consts::ARCH,
            usize::BITS,
            if cfg!(target_endian = "little") {
                "EL"
            } else {
                "EB"
            }
        ),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Settings::default()
    }
}

fn containerd_config(config: &Config, storage: &Path, run_dir: &Path) -> containerd::Config {
    let mut adapter = containerd::Config::new(storage.to_owned(), run_dir.to_owned());
    adapter.default_role_mgmt = config.flag("pantavisor-default-roles");
    adapter.namespace = config.text("containerd-namespace").to_owned();
    adapter.logs = containerd::LogSettings {
        quota_bytes: config.number("log-quota") << 20,
        rate_bytes: config.number("log-rate") << 10,
        // This very program, also when its file was replaced meanwhile.
        program: Some(logger::Program {
            path: "/proc/self/exe".into(),
            name: "coxswain-logger".into(),
            arguments: vec![crate::cli::LOGGER.into()],
        }),
    };
    adapter.address = match config.text("containerd") {
        "spawn" => Address::Spawn(Spawn {
            program: config.text("containerd-binary").into(),
            // Its store is a cache: where the storage takes no writes, memory does for this boot.
            root: if linux::disk::is_writable(storage) {
                storage.join("containerd")
            } else {
                run_dir.join("containerd-store")
            },
            state: run_dir.join("containerd"),
        }),
        address => Address::Connect(address.into()),
    };
    // Two devices on one machine (tests, a laptop) must not take each other's containers for strangers.
    if run_dir != Path::new("/run/coxswain") {
        let name = model::ObjectId::of(run_dir.as_os_str().as_encoded_bytes());
        adapter.cgroup_parent = format!("/coxswain-{}", name.short());
    }
    adapter
}

fn make_folder(path: &Path, mode: u32) -> Result<(), RunError> {
    match DirBuilder::new().recursive(true).mode(mode).create(path) {
        Ok(()) => Ok(()),
        Err(_) if fs::metadata(path).is_ok_and(|metadata| metadata.is_dir()) => Ok(()),
        Err(source) => Err(RunError::Folder {
            path: path.to_owned(),
            source,
        }),
    }
}
