//! A device in this process: the real loop, store and server over a folder; only containers are pretended.
//!
//! A container named `sick…` ends with exit code 3 as soon as it was started; every other one runs until it is stopped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use api::messages::pantavisor::ConfigEntry;
use device::ports::{
    Bootloader, Clock as _, Ending, Exit, Gauges, Job, JobEvent, Jobs, Ports, Power, Runtime,
    RuntimeCommand, RuntimeEvent, Watchdog, World,
};
use device::{Device, Event};
use device::{Handle, Settings};
use linux::clock::SystemClock;
use linux::disk::LinuxDisk as Disk;
use model::failure::Pressure;
use model::usage::{ContainerUsage, MachineUsage};
use model::{ContainerName, RevisionId};
use server::{Caller, Identify, Peer, Running, Server, Socket, Timeouts};
use store::Store;

pub struct TestDevice {
    pub folder: tempfile::TempDir,
    running: Option<Running>,
    runtime: tokio::runtime::Runtime,
    events: Sender<Event>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl TestDevice {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (events, received) = channel();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let storage = folder.path().join("storage");
        std::fs::create_dir(&storage).unwrap();
        let sender = events.clone();
        let handle = Handle::new(move |request, reply| {
            // Without a loop the reply is dropped, as the handle wants it.
            sender.send(Event::Request(request, reply)).ok();
        });
        let (store_out, store_in) = channel();
        let thread = std::thread::spawn({
            let (events, handle) = (events.clone(), handle.clone());
            move || turn(&storage, events, &received, handle, &store_out)
        });
        let store: Store<Disk> = store_in.recv().unwrap();
        let socket = folder.path().join("socket");
        let server = Server {
            sockets: vec![Socket {
                path: socket,
                mode: 0o600,
            }],
            handle,
            storage: Arc::new(store),
            identify: Arc::new(Root),
            settings: Arc::new(NoSettings),
            clock: Arc::new(SystemClock),
            logs: folder.path().join("storage/logs"),
            log_changes: linux::watch::changes_in,
            figures: Arc::new(RealMachine),
            machine: Arc::new(PretendedMachine::default()),
            timeouts: Timeouts::default(),
        };
        let entered = runtime.enter();
        let running = server.start().unwrap();
        drop(entered);
        Self {
            folder,
            running: Some(running),
            runtime,
            events,
            thread: Some(thread),
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// Lets a container have written this.
    pub fn log(&self, revision: &str, container: &str, text: &[u8]) {
        let folder = self
            .folder
            .path()
            .join("storage/logs")
            .join(revision)
            .join(container);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("console.log"), text).unwrap();
    }
}

impl Drop for TestDevice {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            self.runtime.block_on(running.stop());
        }
        let stop = device::handle::Request::Stop {
            containers_keep_running: true,
        };
        self.events.send(Event::Request(stop, Box::new(drop))).ok();
        if let Some(thread) = self.thread.take()
            && let Err(panic) = thread.join()
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

fn turn(
    storage: &Path,
    events: Sender<Event>,
    received: &Receiver<Event>,
    handle: Handle,
    store_out: &Sender<Store<Disk>>,
) {
    let clock = SystemClock;
    let disk = Disk::open(storage).unwrap();
    let opened = Store::open(disk, store::Options::default(), clock.now());
    store_out.send(opened.store.clone()).unwrap();
    let ports = Ports {
        runtime: Pretended {
            events: events.clone(),
        },
        jobs: RealJobs {
            store: opened.store.clone(),
            events,
        },
        clock,
        bootloader: NoBootloader,
        power: NoPower,
        gauges: NoGauges,
        watchdog: NoWatchdog,
    };
    let settings = Settings {
        commit_delay: Duration::from_millis(300),
        ..Settings::default()
    };
    let mut device: Device<Pretence> = Device::new(opened, ports, settings, handle);
    device.handle(Event::Start);
    while device.ended().is_none() {
        let wait = match device.next_wake() {
            Some(wake) => wake.since(clock.now()),
            None => Duration::from_secs(3600),
        };
        match received.recv_timeout(wait) {
            Ok(event) => device.handle(event),
            Err(RecvTimeoutError::Timeout) => device.handle(Event::Tick),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

struct Pretence;

impl World for Pretence {
    type Disk = Disk;
    type Runtime = Pretended;
    type Jobs = RealJobs;
    type Clock = SystemClock;
    type Bootloader = NoBootloader;
    type Power = NoPower;
    type Gauges = NoGauges;
    type Watchdog = NoWatchdog;
}

struct Pretended {
    events: Sender<Event>,
}

impl Runtime for Pretended {
    fn submit(&mut self, command: RuntimeCommand) {
        let answers = match command {
            RuntimeCommand::List => vec![RuntimeEvent::Listed(Vec::new())],
            RuntimeCommand::Mount(spec) => vec![RuntimeEvent::Mounted(spec.instance)],
            RuntimeCommand::Start(spec) => {
                let instance = spec.instance;
                let mut answers = vec![RuntimeEvent::Started {
                    instance: instance.clone(),
                    pid: 4711,
                }];
                if instance.container.as_str().starts_with("sick") {
                    let exit = Exit {
                        code: 3,
                        out_of_memory: false,
                        damaged: None,
                    };
                    answers.push(RuntimeEvent::Exited { instance, exit });
                }
                answers
            }
            RuntimeCommand::Stop { instance, .. } => vec![RuntimeEvent::Stopped(instance)],
            RuntimeCommand::MarkReady(_) => Vec::new(),
            RuntimeCommand::Probe { instance, .. } => {
                vec![RuntimeEvent::Probed {
                    instance,
                    outcome: Ok(()),
                }]
            }
        };
        for answer in answers {
            self.events.send(Event::Runtime(answer)).ok();
        }
    }
}

struct RealJobs {
    store: Store<Disk>,
    events: Sender<Event>,
}

impl Jobs for RealJobs {
    fn submit(&mut self, job: Job) {
        let answer = match job {
            Job::Verify {
                revision,
                objects,
                reading,
            } => {
                let bad = self.store.verify_objects(&objects, reading);
                JobEvent::Verified { revision, bad }
            }
            Job::Seal { objects, last } => {
                JobEvent::Sealed(self.store.seal_objects(&objects, last))
            }
            Job::Collect { keep } => JobEvent::Collected {
                result: self
                    .store
                    .collect(&keep, SystemClock.now())
                    .map(|collected| collected.bytes)
                    .map_err(|error| error.to_string()),
            },
        };
        self.events.send(Event::Job(answer)).ok();
    }
}

struct NoBootloader;

impl Bootloader for NoBootloader {
    fn booted(&self) -> Option<RevisionId> {
        None
    }
    fn is_damaged(&self) -> bool {
        false
    }

    fn arm(&mut self, _trial: &RevisionId) -> Result<(), String> {
        Ok(())
    }

    fn confirm(&mut self, _committed: &RevisionId) -> Result<(), String> {
        Ok(())
    }
}

struct NoPower;

impl Power for NoPower {
    fn end(&mut self, _ending: Ending) {}
}

struct NoGauges;

/// A host with one daemon and no drivers.
#[derive(Default)]
struct PretendedMachine {
    stopped: std::sync::atomic::AtomicBool,
}

impl server::Machine for PretendedMachine {
    fn facts(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    fn daemons(&self) -> Vec<api::messages::pantavisor::Daemon> {
        let stopped = self.stopped.load(std::sync::atomic::Ordering::SeqCst);
        vec![api::messages::pantavisor::Daemon {
            name: "lamp".to_owned(),
            pid: if stopped { -1 } else { 812 },
            respawn: !stopped,
        }]
    }

    fn control_daemon(
        &self,
        daemon: &str,
        action: api::messages::pantavisor::DaemonAction,
    ) -> Option<Result<(), String>> {
        use api::messages::pantavisor::DaemonAction;
        let stopped = match action {
            DaemonAction::Start => false,
            DaemonAction::Stop => true,
        };
        (daemon == "lamp").then(|| {
            self.stopped
                .store(stopped, std::sync::atomic::Ordering::SeqCst);
            Ok(())
        })
    }

    fn is_loaded(&self, _: &model::manifest::Driver) -> Option<bool> {
        None
    }

    fn load(&self, driver: &model::manifest::Driver) -> Result<(), String> {
        Err(format!("there is no driver {}", driver.name))
    }

    fn unload(&self, _: &model::manifest::Driver) {}
}

impl Gauges for NoGauges {
    fn pressure(&self) -> Pressure {
        Pressure::default()
    }
}

struct NoWatchdog;

impl Watchdog for NoWatchdog {
    fn kick(&mut self) {}
}

/// Everybody is the host's root, so that the tests need not be.
struct Root;

impl Identify for Root {
    fn caller(&self, _peer: &Peer<'_>) -> Caller {
        Caller::Host { uid: 0 }
    }
}

/// Real figures of the machine; of the containers, which are not real, those of one.
struct RealMachine;

impl server::Figures for RealMachine {
    fn containers(&self) -> BTreeMap<ContainerName, ContainerUsage> {
        let used = ContainerUsage {
            cpu_us: Some(2_000_000),
            memory_bytes: Some(3 << 20),
            memory_working_set_bytes: Some(2 << 20),
            pids: Some(4),
            ..ContainerUsage::default()
        };
        BTreeMap::from([("web".parse().unwrap(), used)])
    }

    fn machine(&self) -> MachineUsage {
        linux::usage::of_machine()
    }
}

struct NoSettings;

impl server::Settings for NoSettings {
    fn legacy(&self) -> Vec<(String, serde_json::Value)> {
        Vec::new()
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        vec![ConfigEntry {
            key: "PV_UPDATER_COMMIT_DELAY".to_owned(),
            value: "25".to_owned(),
            modified: "default".to_owned(),
        }]
    }

    fn build_info(&self) -> String {
        String::new()
    }
}
