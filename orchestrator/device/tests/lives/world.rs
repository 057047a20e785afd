//! A whole machine for the loop: a run time whose containers do what their command says, jobs on the real store, a clock that
//! only moves when told.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use device::handle::{Answer, Command, Refusal, Request, View};
use device::ports::*;
use device::{Device, Event, Handle, Settings};
use model::container::Kind;
use model::failure::{Failure, Pressure};
use model::{Instant, ObjectId, Progress, RevisionId, WallTime};
use store::{Options, Store};

use super::memory::MemoryDisk;

pub struct Fake;

impl World for Fake {
    type Disk = MemoryDisk;
    type Runtime = Shared;
    type Jobs = Shared;
    type Clock = Shared;
    type Bootloader = Shared;
    type Power = Shared;
    type Gauges = Shared;
    type Watchdog = Shared;
}

/// What is outside of the loop.
#[derive(Default)]
pub struct Outside {
    pub now: u64,
    pub instances: BTreeMap<Instance, Running>,
    /// Due at, in order of arrival.
    pub coming: Vec<(u64, Coming)>,
    pub jobs: VecDeque<Job>,
    pub log: Vec<String>,
    pub next_pid: u32,
    pub booted: Option<RevisionId>,
    pub armed: Option<RevisionId>,
    pub confirmed: Option<RevisionId>,
    /// Why the boot loader's place takes no writes.
    pub unwritable: Option<String>,
    pub ending: Option<Ending>,
    pub away: bool,
    pub kept: Vec<RuntimeCommand>,
}

pub struct Running {
    pub revision: RevisionId,
    pub pid: u32,
    pub since: u64,
    pub ready: bool,
    pub mounted_only: bool,
    pub healthy_from: Option<u64>,
}

pub enum Coming {
    Runtime(RuntimeEvent),
    Ready(model::ContainerName),
}

#[derive(Clone, Default)]
pub struct Shared(pub Arc<Mutex<Outside>>);

impl Outside {
    fn soon(&mut self, after_ms: u64, coming: Coming) {
        let due = self.now + after_ms;
        self.coming.push((due, coming));
    }

    fn carry_out(&mut self, command: RuntimeCommand) {
        match command {
            RuntimeCommand::List => {
                let found = self
                    .instances
                    .iter()
                    .map(|(instance, running)| Found {
                        instance: instance.clone(),
                        revision: running.revision.clone(),
                        condition: if running.mounted_only {
                            Condition::Mounted
                        } else {
                            Condition::Running {
                                pid: running.pid,
                                uptime: Duration::from_millis(self.now - running.since),
                            }
                        },
                        ready: running.ready,
                    })
                    .collect();
                self.soon(0, Coming::Runtime(RuntimeEvent::Listed(found)));
            }
            RuntimeCommand::Mount(start) => {
                self.log.push(format!("mount {}", start.instance.container));
                self.insert(&start, true);
                self.soon(1, Coming::Runtime(RuntimeEvent::Mounted(start.instance)));
            }
            RuntimeCommand::Start(start) => self.start(start),
            RuntimeCommand::Stop { instance, .. } => {
                self.log.push(format!("stop {}", instance.container));
                self.instances.remove(&instance);
                self.soon(100, Coming::Runtime(RuntimeEvent::Stopped(instance)));
            }
            RuntimeCommand::MarkReady(instance) => {
                if let Some(running) = self.instances.get_mut(&instance) {
                    running.ready = true;
                }
            }
            RuntimeCommand::Probe { instance, .. } => {
                let well = self.instances.get(&instance).is_some_and(|running| {
                    running.healthy_from.is_some_and(|from| self.now >= from)
                });
                let outcome = if well {
                    Ok(())
                } else {
                    Err("refused".to_owned())
                };
                self.soon(
                    1,
                    Coming::Runtime(RuntimeEvent::Probed { instance, outcome }),
                );
            }
        }
    }

    fn insert(&mut self, start: &StartSpec, mounted_only: bool) {
        self.next_pid += 1;
        let running = Running {
            revision: start.revision.clone(),
            pid: self.next_pid,
            since: self.now,
            ready: false,
            mounted_only,
            healthy_from: None,
        };
        self.instances.insert(start.instance.clone(), running);
    }

    /// The command of a container says what it does: `run`, `exit CODE AFTER_MS`, `ready AFTER_MS [EXIT_MS]`, `fail`,
    /// `healthy AFTER_MS`.
    fn start(&mut self, start: StartSpec) {
        let StartSpec {
            instance,
            container,
            ..
        } = &start;
        let Kind::Oci(oci) = &container.kind else {
            panic!("only our kind here")
        };
        let words: Vec<_> = oci.command.clone().unwrap();
        let number = |n: usize| words.get(n).map(|word| word.parse::<u64>().unwrap());
        self.log.push(format!("start {}", instance.container));
        if words[0] == "fail" {
            let error = "no such program".to_owned();
            let instance = instance.clone();
            return self.soon(
                10,
                Coming::Runtime(RuntimeEvent::StartFailed { instance, error }),
            );
        }
        self.insert(&start, false);
        let pid = self.next_pid;
        let instance = instance.clone();
        self.soon(
            10,
            Coming::Runtime(RuntimeEvent::Started {
                instance: instance.clone(),
                pid,
            }),
        );
        let exit = |code| {
            let instance = instance.clone();
            let exit = Exit {
                code,
                out_of_memory: false,
                damaged: None,
            };
            Coming::Runtime(RuntimeEvent::Exited { instance, exit })
        };
        match words[0].as_str() {
            "run" => {}
            "exit" => {
                let code = u32::try_from(number(1).unwrap()).unwrap();
                self.soon(20 + number(2).unwrap_or(0), exit(code));
            }
            "ready" => {
                // A signal may overtake the news of the start.
                self.soon(
                    number(1).unwrap(),
                    Coming::Ready(instance.container.clone()),
                );
                if let Some(after) = number(2) {
                    self.soon(after, exit(1));
                }
            }
            "healthy" => {
                let from = self.now + number(1).unwrap();
                self.instances.get_mut(&instance).unwrap().healthy_from = Some(from);
            }
            other => panic!("unknown command {other}"),
        }
    }
}

impl Runtime for Shared {
    fn submit(&mut self, command: RuntimeCommand) {
        let mut outside = self.0.lock().unwrap();
        if outside.away {
            outside.kept.push(command);
        } else {
            outside.carry_out(command);
        }
    }
}

impl Jobs for Shared {
    fn submit(&mut self, job: Job) {
        self.0.lock().unwrap().jobs.push_back(job);
    }
}

impl Clock for Shared {
    fn now(&self) -> Instant {
        Instant(self.0.lock().unwrap().now)
    }

    fn wall(&self) -> WallTime {
        WallTime(self.now().0)
    }
}

impl Bootloader for Shared {
    fn booted(&self) -> Option<RevisionId> {
        self.0.lock().unwrap().booted.clone()
    }

    fn is_damaged(&self) -> bool {
        false
    }

    fn arm(&mut self, trial: &RevisionId) -> Result<(), String> {
        let mut outside = self.0.lock().unwrap();
        if let Some(why) = outside.unwritable.clone() {
            return Err(why);
        }
        outside.armed = Some(trial.clone());
        Ok(())
    }

    fn confirm(&mut self, committed: &RevisionId) -> Result<(), String> {
        let mut outside = self.0.lock().unwrap();
        if let Some(why) = outside.unwritable.clone() {
            return Err(why);
        }
        outside.armed = None;
        outside.confirmed = Some(committed.clone());
        Ok(())
    }
}

impl Power for Shared {
    fn end(&mut self, ending: Ending) {
        self.0.lock().unwrap().ending = Some(ending);
    }
}

impl Gauges for Shared {
    fn pressure(&self) -> Pressure {
        Pressure::default()
    }
}

impl Watchdog for Shared {
    fn kick(&mut self) {}
}

/// The machine with its loop.
pub struct Rig {
    pub disk: MemoryDisk,
    pub outside: Shared,
    pub device: Device<Fake>,
    pub handle: Handle,
    pub settings: Settings,
    pub store: Store<MemoryDisk>,
}

pub fn id(text: &str) -> RevisionId {
    text.parse().unwrap()
}

impl Rig {
    pub fn new(settings: Settings) -> Self {
        Self::on(MemoryDisk::default(), Shared::default(), settings)
    }

    fn on(disk: MemoryDisk, outside: Shared, settings: Settings) -> Self {
        let now = Instant(outside.0.lock().unwrap().now);
        let opened = Store::open(disk.clone(), Options::default(), now);
        let store = opened.store.clone();
        let handle = Handle::new(|_, _| unreachable!("tests ask the loop itself"));
        let ports = Ports {
            runtime: outside.clone(),
            jobs: outside.clone(),
            clock: outside.clone(),
            bootloader: outside.clone(),
            power: outside.clone(),
            gauges: outside.clone(),
            watchdog: outside.clone(),
        };
        let device = Device::new(opened, ports, settings.clone(), handle.clone());
        let mut rig = Self {
            disk,
            outside,
            device,
            handle,
            settings,
            store,
        };
        rig.device.handle(Event::Start);
        rig.advance(0);
        rig
    }

    /// The orchestrator dies and starts again; containers go on running.
    pub fn kill(self) -> Self {
        {
            let mut outside = self.outside.0.lock().unwrap();
            outside.jobs.clear();
            outside.ending = None;
        }
        Self::on(self.disk, self.outside, self.settings)
    }

    /// The machine restarts: nothing runs any more.
    pub fn reboot(self) -> Self {
        {
            let mut outside = self.outside.0.lock().unwrap();
            outside.instances.clear();
            outside.coming.clear();
            outside.kept.clear();
            outside.now = 0;
            if let Some(armed) = outside.armed.take() {
                outside.booted = Some(armed);
            } else if outside.booted.is_some() {
                outside.booted = outside.confirmed.clone().or(outside.booted.clone());
            }
        }
        self.kill()
    }

    /// Lets this many milliseconds pass.
    pub fn advance(&mut self, ms: u64) {
        let until = self.now() + ms;
        for _ in 0..100_000 {
            if self.one_job() || self.one_event() {
                continue;
            }
            let next_event = self.with(|o| o.coming.iter().map(|(due, _)| *due).min());
            let wake = self.device.next_wake().map(|at| at.0.max(self.now()));
            let next = [next_event, wake].into_iter().flatten().min();
            match next {
                Some(next) if next <= until => {
                    self.with(|o| o.now = o.now.max(next));
                    if wake.is_some_and(|wake| wake <= next) {
                        self.device.handle(Event::Tick);
                        let again = self.device.next_wake();
                        assert!(
                            again.is_none_or(|at| at.0 > next),
                            "asks to be woken at {again:?} again and again"
                        );
                    }
                }
                Some(_) | None => {
                    self.with(|o| o.now = until);
                    return;
                }
            }
        }
        panic!("the machine does not come to rest");
    }

    fn one_job(&mut self) -> bool {
        let Some(job) = self.with(|o| o.jobs.pop_front()) else {
            return false;
        };
        let event = match job {
            Job::Verify {
                revision,
                objects,
                reading,
            } => JobEvent::Verified {
                bad: self.store.verify_objects(&objects, reading),
                revision,
            },
            Job::Seal { objects, last } => {
                JobEvent::Sealed(self.store.seal_objects(&objects, last))
            }
            Job::Collect { keep } => JobEvent::Collected {
                result: self
                    .store
                    .collect(&keep, Instant(self.now()))
                    .map(|collected| collected.bytes)
                    .map_err(|error| error.to_string()),
            },
        };
        self.device.handle(Event::Job(event));
        true
    }

    fn one_event(&mut self) -> bool {
        let coming = self.with(|o| {
            let place = o
                .coming
                .iter()
                .enumerate()
                .filter(|(_, (due, _))| *due <= o.now)
                .min_by_key(|(place, (due, _))| (*due, *place))
                .map(|(place, _)| place)?;
            Some(o.coming.remove(place).1)
        });
        match coming {
            None => return false,
            Some(Coming::Ready(name)) => {
                self.device
                    .handle(Event::Request(Request::Ready(name), Box::new(|_| {})));
            }
            Some(Coming::Runtime(event)) => {
                let alive = |o: &mut Outside, i: &Instance| o.instances.contains_key(i);
                let happens = match &event {
                    RuntimeEvent::Started { instance, .. } => self.with(|o| alive(o, instance)),
                    RuntimeEvent::Exited { instance, .. } => {
                        self.with(|o| o.instances.remove(instance).is_some())
                    }
                    RuntimeEvent::Listed(_)
                    | RuntimeEvent::Mounted(_)
                    | RuntimeEvent::StartFailed { .. }
                    | RuntimeEvent::Stopped(_)
                    | RuntimeEvent::Probed { .. }
                    | RuntimeEvent::Disconnected { .. }
                    | RuntimeEvent::Connected => true,
                };
                if happens {
                    self.device.handle(Event::Runtime(event));
                }
            }
        }
        true
    }

    pub fn with<T>(&self, look: impl FnOnce(&mut Outside) -> T) -> T {
        look(&mut self.outside.0.lock().unwrap())
    }

    pub fn now(&self) -> u64 {
        self.with(|o| o.now)
    }

    /// Asks, and tells the answer once it is there (work that takes no time is let happen).
    pub fn ask(&mut self, request: Request) -> Result<Answer, Refusal> {
        let answer = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&answer);
        let reply = move |given| {
            let earlier = slot.lock().unwrap().replace(given);
            assert!(earlier.is_none(), "answered twice");
        };
        self.device.handle(Event::Request(request, Box::new(reply)));
        self.advance(0);
        let answer = answer.lock().unwrap().take();
        answer.expect("every request is answered")
    }

    pub fn object(&mut self, bytes: &[u8]) -> ObjectId {
        let object = ObjectId::of(bytes);
        let now = Instant(self.now());
        match self
            .store
            .begin_upload(object, Some(bytes.len() as u64), now)
            .unwrap()
        {
            store::Begun::Exists => {}
            store::Begun::Upload(upload) => {
                let mut upload = store::HashedUpload::new(upload).unwrap();
                upload.append(bytes).unwrap();
                upload.finish(now).unwrap();
            }
        }
        object
    }

    /// Installs a revision of these containers: name, command, further fields of run.json.
    pub fn put(&mut self, revision: &str, containers: &[(&str, &str, &str)]) {
        let manifest = self.manifest(containers);
        self.ask(Request::PutRevision {
            revision: id(revision),
            manifest,
        })
        .unwrap();
    }

    pub fn manifest(&mut self, containers: &[(&str, &str, &str)]) -> Vec<u8> {
        let image = self.object(b"image");
        let mut text = r##"{"#spec":"pantavisor-service-system@1","device.json":{"groups":[
            {"name":"base","timeout":30,"restart_policy":"container"},
            {"name":"app","timeout":30,"restart_policy":"container"}]}"##
            .to_owned();
        for (name, command, fields) in containers {
            let words: Vec<_> = command.split(' ').map(|word| format!("{word:?}")).collect();
            let command = words.join(",");
            text.push_str(&format!(
                r#","{name}/root.squashfs":"{image}","{name}/run.json":{{"name":"{name}","type":"oci","root-volume":"root.squashfs","command":[{command}]{fields}}}"#
            ));
        }
        text.push('}');
        text.into_bytes()
    }

    pub fn run(&mut self, revision: &str) -> Result<Answer, Refusal> {
        self.ask(Request::Command(Command::Run {
            revision: id(revision),
            again: false,
        }))
    }

    pub fn progress(&self, revision: &str) -> Progress {
        self.store.progress(&id(revision)).unwrap().unwrap()
    }

    /// `STATUS message` of a revision.
    pub fn told(&self, revision: &str) -> String {
        let progress = self.progress(revision);
        format!("{} {}", progress.status, progress.message)
    }

    pub fn view(&self) -> Arc<View> {
        self.handle.view()
    }

    pub fn pid(&self, container: &str) -> Option<u32> {
        let view = self.view();
        let found = view
            .containers
            .iter()
            .find(|c| c.name.as_str() == container);
        found.and_then(|c| c.pid)
    }

    pub fn statuses(&self) -> String {
        let view = self.view();
        let words: Vec<_> = view
            .containers
            .iter()
            .map(|c| format!("{}={}", c.name, c.status))
            .collect();
        words.join(" ")
    }

    pub fn failure(&self, id: u64) -> Failure {
        self.store.failure(id).unwrap().unwrap()
    }

    pub fn take_log(&self) -> Vec<String> {
        self.with(|o| std::mem::take(&mut o.log))
    }

    pub fn running(&self) -> String {
        self.view()
            .running
            .as_ref()
            .map_or_else(|| "nothing".to_owned(), ToString::to_string)
    }

    pub fn committed(&self) -> Option<String> {
        let marker = self.store.read_marker().unwrap().marker;
        marker
            .and_then(|marker| marker.committed)
            .map(|id| id.to_string())
    }
}
