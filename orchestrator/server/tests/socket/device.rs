//! A device behind a real socket: the server on the real store, over a folder, with a loop that keeps metadata and revisions and
//! starts and stops containers at once. It decides nothing about health: that is the loop's own tests' matter.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use api::messages::pantavisor::{Daemon, DaemonAction};
use device::Handle;
use device::handle::{
    Action, Answer, Command, ContainerView, GroupView, Happened, PlanOf, RecoveryView, Refusal,
    Reply, Request, View,
};
use device::plan::Planned;
use device::plan::update::{Fate, Fated, Reason, Rehearsal, Way};
use device::ports::Clock;
use linux::disk::LinuxDisk;
use model::container::{BackoffPolicy, RecoveryPolicy, RestartPolicy};
use model::failure::{Cause, Failure, Pressure};
use model::manifest::Driver;
use model::metadata::MetaKind;
use model::progress::message;
use model::usage::{ContainerUsage, MachineUsage};
use model::{Goal, Instant, Manifest, ObjectId, Progress, RevisionId, State, Status, WallTime};
use server::{Caller, Identify, Peer, Running, Server, Settings, Socket, Timeouts};
use store::{NewRevision, Options, Store};

use crate::claims::Register;

/// Text of revision 0: the recordings' own.
pub(crate) const FACTORY: &str = include_str!("../recordings/factory.json");

/// A running server. Everything is removed when it is dropped.
pub(crate) struct Bench {
    pub(crate) socket: PathBuf,
    pub(crate) handle: Handle,
    pub(crate) folder: PathBuf,
    store: Store<LinuxDisk>,
    caller: Arc<Mutex<Caller>>,
    running: Option<Running>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Bench {
    pub(crate) fn start() -> Self {
        Self::start_with(Timeouts::default())
    }

    pub(crate) fn start_with(timeouts: Timeouts) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("coxswain-socket-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::create_dir_all(folder.join("storage")).unwrap();
        let disk = LinuxDisk::open(&folder.join("storage")).unwrap();
        // Leases would keep objects from being removed.
        let options = Options {
            lease: Duration::ZERO,
            reserve_percent: 0,
            ..Options::default()
        };
        let store = Store::open(disk, options, Instant(0)).store;
        let factory = Progress::new(State::Done, message::FACTORY, 0);
        store
            .put_revision(NewRevision {
                revision: &RevisionId::factory(),
                manifest: FACTORY.as_bytes(),
                progress: &factory,
                commit_message: None,
            })
            .unwrap();
        let (sender, requests) = mpsc::channel::<(Request, Reply)>();
        let handle = Handle::new(move |request, reply| drop(sender.send((request, reply))));
        handle.publish(view());
        let keeper = Keeper {
            handle: handle.clone(),
            store: store.clone(),
            claims: Register::default(),
        };
        std::thread::spawn(move || keeper.run(&requests));
        let caller = Arc::new(Mutex::new(Caller::Host { uid: 0 }));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let socket = folder.join("run/control.sock");
        let server = Server {
            sockets: vec![Socket {
                path: socket.clone(),
                mode: 0o666,
            }],
            handle: handle.clone(),
            storage: Arc::new(store.clone()),
            identify: Arc::new(Told(Arc::clone(&caller))),
            settings: Arc::new(NoSettings),
            clock: Arc::new(Ticking(std::time::Instant::now())),
            logs: folder.join("storage/logs"),
            log_changes: linux::watch::changes_in,
            figures: Arc::new(NoFigures),
            machine: Arc::new(FakeMachine::default()),
            timeouts,
        };
        let running = {
            let _inside = runtime.enter();
            server.start().unwrap()
        };
        Self {
            socket,
            handle,
            folder,
            store,
            caller,
            running: Some(running),
            runtime: Some(runtime),
        }
    }

    /// Installs the factory's manifest under another name.
    pub(crate) fn keep(&self, revision: &str) {
        let progress = Progress::new(State::New, message::READY_TO_RUN, 0);
        self.store
            .put_revision(NewRevision {
                revision: &revision.parse().unwrap(),
                manifest: FACTORY.as_bytes(),
                progress: &progress,
                commit_message: None,
            })
            .unwrap();
    }

    /// Leaves a failure record, the first one.
    pub(crate) fn fail_once(&self) {
        let failure = Failure {
            version: 1,
            id: 1,
            revision: "locals/kept".parse().unwrap(),
            manifest: Some(ObjectId::of(FACTORY.as_bytes())),
            rolled_back_to: Some(RevisionId::factory()),
            container: Some("web".parse().unwrap()),
            cause: Cause::GoalNotReached {
                goal: Goal::Ready,
                status: Status::Started,
                timeout_s: 30,
                probe: None,
            },
            message: message::GOAL_NOT_REACHED.to_owned(),
            time: WallTime(1_795_254_546_000),
            tries: 1,
            containers: Vec::new(),
            log: vec!["last words".to_owned()],
            pressure: Pressure::default(),
        };
        self.store.add_failure(&failure).unwrap();
    }

    /// Has the running revision name two drivers for `pvr-sdk`, whose modules are nowhere.
    pub(crate) fn run_with_drivers(&self) {
        let mut manifest: serde_json::Value = serde_json::from_str(FACTORY).unwrap();
        manifest["bsp/drivers.json"] = serde_json::json!({
            "#spec": "driver-aliases@1",
            "all": {"wifi": ["missing"], "gpio": ["missing"]},
        });
        manifest["pvr-sdk/run.json"]["drivers"] =
            serde_json::json!({"required": [], "optional": ["wifi"], "manual": ["gpio"]});
        let revision: RevisionId = "locals/drivers".parse().unwrap();
        let progress = Progress::new(State::Done, message::FACTORY, 0);
        self.store
            .put_revision(NewRevision {
                revision: &revision,
                manifest: manifest.to_string().as_bytes(),
                progress: &progress,
                commit_message: None,
            })
            .unwrap();
        let mut view = View::clone(&self.handle.view());
        view.running = Some(revision);
        self.handle.publish(view);
    }

    /// Connections that are opened from now on come from this caller.
    pub(crate) fn call_as(&self, caller: Caller) {
        *self.caller.lock().unwrap() = caller;
    }

    pub(crate) fn stop(&mut self) {
        if let (Some(running), Some(runtime)) = (self.running.take(), &self.runtime) {
            runtime.block_on(running.stop());
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

struct Told(Arc<Mutex<Caller>>);

impl Identify for Told {
    fn caller(&self, peer: &Peer<'_>) -> Caller {
        assert!(
            peer.pid.is_some(),
            "the kernel tells who is at the other end"
        );
        self.0.lock().unwrap().clone()
    }
}

struct NoFigures;

impl server::Figures for NoFigures {
    fn containers(&self) -> std::collections::BTreeMap<model::ContainerName, ContainerUsage> {
        let used = ContainerUsage {
            cpu_us: Some(5),
            ..ContainerUsage::default()
        };
        std::collections::BTreeMap::from([("web".parse().unwrap(), used)])
    }

    fn machine(&self) -> MachineUsage {
        MachineUsage::default()
    }
}

/// A machine with a daemon that starts and stops at once, and drivers whose modules are where somebody put them; a module called
/// `missing` is nowhere.
#[derive(Default)]
struct FakeMachine {
    stopped: AtomicBool,
    loaded: Mutex<BTreeSet<String>>,
}

impl server::Machine for FakeMachine {
    fn facts(&self) -> Vec<(&'static str, String)> {
        vec![
            ("storage", r#"{"total":4,"free":3}"#.to_owned()),
            ("sysinfo", r#"{"uptime":1}"#.to_owned()),
        ]
    }

    fn daemons(&self) -> Vec<Daemon> {
        let stopped = self.stopped.load(Ordering::SeqCst);
        vec![Daemon {
            name: "containerd".to_owned(),
            pid: if stopped { -1 } else { 1090 },
            respawn: !stopped,
        }]
    }

    fn control_daemon(&self, name: &str, action: DaemonAction) -> Option<Result<(), String>> {
        let stop = action == DaemonAction::Stop;
        (name == "containerd").then(|| {
            self.stopped.store(stop, Ordering::SeqCst);
            Ok(())
        })
    }

    fn is_loaded(&self, driver: &Driver) -> Option<bool> {
        let loaded = self.loaded.lock().unwrap();
        let modules = driver.modules.as_ref()?;
        Some(modules.iter().all(|module| loaded.contains(module)))
    }

    fn load(&self, driver: &Driver) -> Result<(), String> {
        for module in driver.modules.iter().flatten() {
            if module == "missing" {
                return Err("modprobe missing failed".to_owned());
            }
            self.loaded.lock().unwrap().insert(module.clone());
        }
        Ok(())
    }

    fn unload(&self, driver: &Driver) {
        let mut loaded = self.loaded.lock().unwrap();
        for module in driver.modules.iter().flatten() {
            loaded.remove(module);
        }
    }
}

struct NoSettings;

impl Settings for NoSettings {
    fn legacy(&self) -> Vec<(String, serde_json::Value)> {
        vec![("updater.commit.delay".to_owned(), 5.into())]
    }

    fn entries(&self) -> Vec<api::messages::pantavisor::ConfigEntry> {
        Vec::new()
    }

    fn build_info(&self) -> String {
        String::new()
    }
}

struct Ticking(std::time::Instant);

impl Clock for Ticking {
    fn now(&self) -> Instant {
        Instant(u64::try_from(self.0.elapsed().as_millis()).unwrap())
    }

    fn wall(&self) -> WallTime {
        WallTime(1_795_254_546_000)
    }
}

fn container(name: &str, group: &str, goal: Goal, roles: &[&'static str]) -> ContainerView {
    let app = group == "app";
    ContainerView {
        name: name.parse().unwrap(),
        group: group.parse().unwrap(),
        status: if goal == Goal::Ready {
            Status::Ready
        } else {
            Status::Started
        },
        goal,
        restart_policy: if app {
            RestartPolicy::Container
        } else {
            RestartPolicy::System
        },
        roles: roles.to_vec(),
        recovery: RecoveryView {
            policy: if app {
                RecoveryPolicy::OnFailure
            } else {
                RecoveryPolicy::No
            },
            max_retries: 5,
            current_retries: 0,
            stable_timeout: Duration::from_secs(30),
            is_stable: true,
            backoff: BackoffPolicy::Reboot,
        },
        user_stopped: false,
        pid: Some(100),
        started_at: Some(Instant(0)),
        restarts: 0,
        exit_code: None,
        out_of_memory: false,
        damaged: None,
        fingerprint: ObjectId::of(name.as_bytes()),
        reason: String::new(),
        health_problem: None,
    }
}

fn group(name: &str, goal: Goal) -> GroupView {
    let app = name == "app";
    GroupView {
        name: name.parse().unwrap(),
        goal,
        restart_policy: if app {
            RestartPolicy::Container
        } else {
            RestartPolicy::System
        },
        status: Status::Ready,
        recovery: app.then_some((5, Duration::from_secs(30), BackoffPolicy::Reboot)),
    }
}

fn view() -> View {
    View {
        running: Some(RevisionId::factory()),
        manifest: Some(ObjectId::of(FACTORY.as_bytes())),
        committed: Some(RevisionId::factory()),
        containers: vec![
            container("pvr-sdk", "platform", Goal::Started, &["mgmt"]),
            container("sensor", "app", Goal::Ready, &[]),
            container("web", "app", Goal::Started, &[]),
        ],
        groups: vec![
            group("data", Goal::Mounted),
            group("root", Goal::Started),
            group("platform", Goal::Started),
            group("app", Goal::Started),
        ],
        ..View::default()
    }
}

/// Lets something happen, for those who follow events.
pub(crate) fn happen(handle: &Handle, message: &str) {
    handle.record(Happened {
        id: 0,
        time: WallTime(0),
        kind: "notice",
        revision: None,
        container: None,
        message: message.to_owned(),
    });
    handle.wake();
}

/// Stands for the loop.
struct Keeper {
    handle: Handle,
    store: Store<LinuxDisk>,
    claims: Register,
}

impl Keeper {
    fn run(&self, requests: &mpsc::Receiver<(Request, Reply)>) {
        while let Ok((request, reply)) = requests.recv() {
            reply(self.carry_out(request));
        }
    }

    fn carry_out(&self, request: Request) -> Result<Answer, Refusal> {
        if let Request::As { client, request } = request {
            self.claims.refuses(&client, &request)?;
            return self.carry_out(*request);
        }
        let mut view = View::clone(&self.handle.view());
        let internal = |error: &dyn std::error::Error| Refusal::Internal(error.to_string());
        match request {
            Request::PutRevision { revision, manifest } => {
                Manifest::parse(&manifest)?;
                let progress = Progress::new(State::New, message::READY_TO_RUN, 0);
                let new = NewRevision {
                    revision: &revision,
                    manifest: &manifest,
                    progress: &progress,
                    commit_message: None,
                };
                self.store
                    .put_revision(new)
                    .map_err(|error| internal(&error))?;
            }
            Request::DeleteRevision(revision) => {
                let why = if view.running.as_ref() == Some(&revision) {
                    Some("the running revision")
                } else if revision.is_factory() {
                    Some("the factory revision")
                } else {
                    None
                };
                if let Some(why) = why {
                    return Err(Refusal::RevisionInUse { revision, why });
                }
                if !self
                    .store
                    .delete_revision(&revision)
                    .map_err(|error| internal(&error))?
                {
                    return Err(Refusal::NoSuchRevision(revision));
                }
            }
            Request::PutCommitMessage { revision, message } => {
                self.store
                    .set_commit_message(&revision, &message)
                    .map_err(|_| Refusal::NoSuchRevision(revision))?;
            }
            Request::Command(command) => self.command(command, &view)?,
            Request::Control { container, action } => control(&mut view, &container, action),
            Request::Ready(name) => {
                let container = view
                    .containers
                    .iter()
                    .find(|container| container.name == name);
                if container.is_none_or(|container| container.goal != Goal::Ready) {
                    return Err(Refusal::SignalNotExpected(name));
                }
            }
            Request::PutMeta { kind, key, value } => {
                self.store
                    .put_meta(kind, &key, &value)
                    .map_err(|error| internal(&error))?;
            }
            Request::DeleteMeta { kind, key } => {
                if !self
                    .store
                    .delete_meta(kind, &key)
                    .map_err(|error| internal(&error))?
                {
                    return Err(Refusal::NoSuchMeta);
                }
            }
            Request::As { .. } => unreachable!("a name within a name"),
            Request::Claim { .. } | Request::RenewClaim { .. } | Request::ReleaseClaim { .. } => {
                let answer = self.claims.carry_out(request)?;
                view.claims = Arc::new(self.claims.shown());
                self.handle.publish(view);
                return Ok(answer);
            }
            Request::Collect => return self.collect(),
            Request::Plan(of) => return self.plan(of, &view),
            Request::Stop { .. } => {}
        }
        let pairs = |kind| Arc::new(self.pairs(kind));
        view.user_meta = pairs(MetaKind::User);
        view.device_meta = pairs(MetaKind::Device);
        self.handle.publish(view);
        Ok(Answer::Done)
    }

    /// As of a device on which nothing runs: what is asked for is started.
    fn plan(&self, of: PlanOf, view: &View) -> Result<Answer, Refusal> {
        let (revision, bytes) = match of {
            PlanOf::Revision(revision) => {
                let bytes = self.store.read_manifest(&revision);
                let bytes = bytes.map_err(|_| Refusal::NoSuchRevision(revision.clone()))?;
                (Some(revision), bytes)
            }
            PlanOf::Manifest(bytes) => (None, bytes),
        };
        let manifest = model::Manifest::parse(&bytes)?;
        let containers = manifest.containers().map(|spec| Fated {
            name: spec.name.clone(),
            group: spec.group.clone(),
            fate: Fate::Started,
            reason: Reason::New,
            settings: Vec::new(),
            depends_on: spec.depends_on.clone(),
            downtime: None,
        });
        let rehearsal = Rehearsal {
            way: Way::InPlace,
            failed_before: None,
            boot_changes: Vec::new(),
            containers: containers.collect(),
            acts: Vec::new(),
            goals_after: None,
            starts_again_after: None,
            committed_after: None,
            trial_base: view.running.clone(),
            marker: model::Marker::default(),
            makes_room: None,
        };
        let objects = manifest.objects().into_iter();
        Ok(Answer::Planned(Box::new(Planned {
            revision,
            manifest: manifest.digest(),
            manifest_bytes: bytes.len() as u64,
            running: view.running.clone(),
            rehearsal,
            objects: objects.map(|(id, key)| (id, key.to_string())).collect(),
            removed: Vec::new(),
            keep: Vec::new(),
            commits_at: None,
        })))
    }

    /// Objects that no revision names.
    fn collect(&self) -> Result<Answer, Refusal> {
        let mut keep = Vec::new();
        let mut names = Vec::new();
        self.store
            .visit_revisions(&mut |entry| {
                names.push(entry.revision);
                ControlFlow::Continue(())
            })
            .unwrap();
        for name in names {
            let manifest = self.store.read_manifest(&name).unwrap();
            keep.extend(Manifest::parse(&manifest).unwrap().objects().into_keys());
        }
        // Later than every lease that the uploads before it were given.
        let collected = self.store.collect(&keep, Instant(1 << 40)).unwrap();
        Ok(Answer::Collected {
            reclaimed: collected.bytes,
        })
    }

    fn pairs(&self, kind: MetaKind) -> Vec<(String, Vec<u8>)> {
        let map = self.store.load_meta(kind).unwrap();
        map.entries
            .into_iter()
            .map(|(key, value)| (key.as_str().to_owned(), value))
            .collect()
    }

    fn command(&self, command: Command, view: &View) -> Result<(), Refusal> {
        if let Some(trial) = &view.trial {
            return Err(Refusal::UpdateInProgress {
                trial: trial.revision.clone(),
            });
        }
        match command {
            Command::Run { revision, again }
            | Command::RunCommit { revision, again }
            | Command::Apply { revision, again } => {
                if !self.store.has_revision(&revision).unwrap() {
                    return Err(Refusal::NoSuchRevision(revision));
                }
                let sick = revision.as_str() == "locals/sick";
                if sick && !again {
                    return Err(Refusal::FailedBefore {
                        revision,
                        failure: 1,
                    });
                }
            }
            Command::Rollback => return Err(Refusal::NothingToRollBack),
            Command::Reboot(_)
            | Command::PowerOff(_)
            | Command::MakeFactory(_)
            | Command::FactoryReset { .. }
            | Command::Collect
            | Command::UpdateMetadata(_) => {}
        }
        happen(&self.handle, "command");
        Ok(())
    }
}

fn control(view: &mut View, name: &model::ContainerName, action: Action) {
    let container = view
        .containers
        .iter_mut()
        .find(|container| container.name == *name)
        .unwrap();
    container.user_stopped = action == Action::Stop;
    container.status = match action {
        Action::Stop => Status::Stopped,
        Action::Start | Action::Restart => Status::Started,
    };
}
