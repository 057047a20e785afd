//! Scripted containers behind the production port: they start late, end, loop, hang, lie and kill the machine.
//!
//! Keeps the port's promises and no more: commands for one container are carried out in order, different containers at once;
//! answers come later. What an honest run time may still do, this one does when its lies are on: tell a start twice, tell
//! the end of an instance that is long gone, list strangers, lose its event stream (told by `Disconnected`, later `Connected`).
//! Containers outlive the orchestrator; nothing outlives the power.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use device::ports::{
    Condition, Exit, Found, Instance, Runtime as Port, RuntimeCommand, RuntimeEvent, StartSpec,
};
use model::{ContainerName, ObjectId, RevisionId};

use crate::bugs::Bug;
use crate::inspect::{Bytes, Inspect};
use crate::machine::{Happening, Machine, Markers, Seen, TrueTime};
use crate::script::Script;

/// From an event until the loop is told.
const TELL_MS: u64 = 2;
/// A list or a probe takes so long.
const ANSWER_MS: u64 = 5;

/// A container sends its READY signal again after this, until it is answered with success.
const SIGNAL_AGAIN_MS: u64 = 1000;

/// Reads both copies of the marker as they are durable.
pub type ReadMarkers = Rc<dyn Fn() -> Markers>;
/// Chooses one of so many.
pub type Choose = Rc<dyn Fn(usize) -> usize>;

/// A container that exists.
#[derive(Debug, Clone)]
struct Process {
    number: u32,
    instance: Instance,
    revision: RevisionId,
    script: Script,
    started: TrueTime,
    condition: Alive,
    ready: bool,
    signalled: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Alive {
    Mounted,
    Running,
    Ended(Exit),
}

#[derive(Default)]
struct Containers {
    processes: BTreeMap<ContainerName, Process>,
    queues: BTreeMap<ContainerName, VecDeque<RuntimeCommand>>,
    waiting: Vec<RuntimeCommand>,
    starts: BTreeMap<ObjectId, u32>,
    gone: Option<Instance>,
    connected: bool,
    next_number: u32,
}

/// The run time; clones share it.
#[derive(Clone)]
pub struct Runtime {
    machine: Rc<Machine>,
    containers: Rc<RefCell<Containers>>,
    inspect: Inspect,
    read_markers: ReadMarkers,
    choose: Choose,
    lies: Rc<Cell<bool>>,
    bug: Rc<Cell<Bug>>,
    specs: Rc<RefCell<BTreeMap<ContainerName, Vec<StartSpec>>>>,
    signals: Rc<RefCell<Vec<ContainerName>>>,
}

impl Runtime {
    /// A run time without containers.
    pub fn new(
        machine: Rc<Machine>,
        inspect: Inspect,
        read_markers: ReadMarkers,
        choose: Choose,
    ) -> Self {
        Self {
            machine,
            containers: Rc::new(RefCell::new(Containers {
                connected: true,
                ..Containers::default()
            })),
            inspect,
            read_markers,
            choose,
            lies: Rc::default(),
            bug: Rc::default(),
            specs: Rc::default(),
            signals: Rc::default(),
        }
    }

    /// Makes it make a mistake.
    pub(crate) fn set_bug(&self, bug: Bug) {
        self.bug.set(bug);
    }

    /// Whether it lies from now on.
    pub fn set_lies(&self, lies: bool) {
        self.lies.set(lies);
    }

    /// Every container is gone, as after a power cut. How often each version was started is remembered: a script may depend on it.
    pub(crate) fn lose_power(&self) {
        let mut containers = self.containers.borrow_mut();
        let starts = std::mem::take(&mut containers.starts);
        let next_number = containers.next_number;
        *containers = Containers {
            connected: true,
            starts,
            next_number,
            ..Containers::default()
        };
        self.signals.borrow_mut().clear();
    }

    /// The orchestrator is gone: what it asked for is carried out or not, what runs goes on.
    pub(crate) fn lose_orchestrator(&self) {
        let queues = std::mem::take(&mut self.containers.borrow_mut().queues);
        for (_, mut queue) in queues {
            // The command under way had reached containerd or it had not.
            if let Some(command) = queue.pop_front()
                && (self.choose)(2) == 1
            {
                self.carry_out(command);
            }
        }
        let mut containers = self.containers.borrow_mut();
        containers.waiting.clear();
        containers.connected = true;
        self.signals.borrow_mut().clear();
    }

    /// Whether no command waits or is being carried out.
    pub(crate) fn is_idle(&self) -> bool {
        let containers = self.containers.borrow();
        containers.waiting.is_empty() && containers.queues.values().all(VecDeque::is_empty)
    }

    /// What really runs.
    pub(crate) fn running(&self) -> Vec<Instance> {
        let containers = self.containers.borrow();
        let running = containers.processes.values();
        running
            .filter(|process| process.condition == Alive::Running)
            .map(|process| process.instance.clone())
            .collect()
    }

    /// What is there of each container: running or mounted.
    pub(crate) fn alive(&self) -> BTreeMap<ContainerName, Instance> {
        let containers = self.containers.borrow();
        let alive = containers
            .processes
            .iter()
            .filter(|(_, process)| !matches!(process.condition, Alive::Ended(_)));
        alive
            .map(|(name, process)| (name.clone(), process.instance.clone()))
            .collect()
    }

    /// Containers that sent a READY signal since the last call.
    pub(crate) fn take_signals(&self) -> Vec<ContainerName> {
        std::mem::take(&mut self.signals.borrow_mut())
    }

    /// A READY signal was answered with success: it is not sent again.
    pub(crate) fn signal_taken(&self, name: &ContainerName) {
        if let Some(process) = self.containers.borrow_mut().processes.get_mut(name) {
            process.signalled = true;
        }
    }

    /// The run time goes away or comes back.
    pub(crate) fn set_link(&self, connected: bool) {
        if self.containers.borrow().connected == connected {
            return;
        }
        self.containers.borrow_mut().connected = connected;
        if connected {
            self.machine
                .after(TELL_MS, Happening::Told(RuntimeEvent::Connected));
            let waiting = std::mem::take(&mut self.containers.borrow_mut().waiting);
            for command in waiting {
                self.take(command);
            }
            let names: Vec<_> = self.containers.borrow().queues.keys().cloned().collect();
            names.iter().for_each(|name| self.begin(name));
        } else {
            let reason = "connection refused".to_owned();
            self.machine.after(
                TELL_MS,
                Happening::Told(RuntimeEvent::Disconnected { reason }),
            );
        }
    }

    /// The command at the head of a queue is done.
    pub(crate) fn carried(&self, name: &ContainerName) {
        if !self.containers.borrow().connected {
            return; // begun anew when it is back
        }
        let command = self
            .containers
            .borrow_mut()
            .queues
            .get_mut(name)
            .and_then(VecDeque::pop_front);
        if let Some(command) = command {
            self.carry_out(command);
        }
        self.begin(name);
    }

    /// A process gets to a point of its script.
    pub(crate) fn process_due(&self, number: u32) {
        let now = self.machine.now();
        let mut containers = self.containers.borrow_mut();
        let Some(process) = containers
            .processes
            .values_mut()
            .find(|process| process.number == number)
        else {
            return;
        };
        if process.condition != Alive::Running {
            return;
        }
        let uptime = now - process.started;
        if process.script.kills_machine.is_some_and(|at| uptime >= at) {
            let instance = process.instance.clone();
            self.machine
                .note(|| format!("{} kills the machine", shown(&instance)));
            self.machine.lose_power();
            return;
        }
        if process.script.ready.is_some_and(|at| uptime >= at) && !process.signalled {
            self.signals
                .borrow_mut()
                .push(process.instance.container.clone());
            self.machine
                .after(SIGNAL_AGAIN_MS, Happening::Process(number));
        }
        if let Some((at, code)) = process.script.exit
            && uptime >= at
        {
            let exit = Exit {
                code: if process.script.out_of_memory {
                    137
                } else {
                    code
                },
                out_of_memory: process.script.out_of_memory,
                damaged: None,
            };
            process.condition = Alive::Ended(exit);
            let instance = process.instance.clone();
            drop(containers);
            self.ended(instance, exit);
        }
    }

    fn ended(&self, instance: Instance, exit: Exit) {
        self.machine
            .note(|| format!("{} ended {exit:?}", shown(&instance)));
        self.machine.saw(Seen::Ended {
            instance: instance.clone(),
            exit,
        });
        self.tell(RuntimeEvent::Exited { instance, exit });
    }

    /// Tells the loop soon; nobody is told while the event stream is down.
    fn tell(&self, event: RuntimeEvent) {
        if !self.containers.borrow().connected {
            return;
        }
        let lie = self.lies.get() && (self.choose)(8) == 0;
        if lie {
            self.lie_about(&event);
        }
        self.machine.after(TELL_MS, Happening::Told(event));
    }

    fn lie_about(&self, event: &RuntimeEvent) {
        match event {
            RuntimeEvent::Started { .. } | RuntimeEvent::Stopped(_) => {
                self.machine.after(TELL_MS, Happening::Told(event.clone()));
            }
            RuntimeEvent::Listed(_)
            | RuntimeEvent::Mounted(_)
            | RuntimeEvent::StartFailed { .. }
            | RuntimeEvent::Exited { .. }
            | RuntimeEvent::Probed { .. }
            | RuntimeEvent::Disconnected { .. }
            | RuntimeEvent::Connected => {}
        }
        if let Some(instance) = self.containers.borrow().gone.clone() {
            let exit = Exit {
                code: 1,
                out_of_memory: false,
                damaged: None,
            };
            self.machine.after(
                TELL_MS,
                Happening::Told(RuntimeEvent::Exited { instance, exit }),
            );
        }
    }

    fn take(&self, command: RuntimeCommand) {
        let name = match &command {
            RuntimeCommand::List => {
                let found = self.list();
                self.machine
                    .after(ANSWER_MS, Happening::Told(RuntimeEvent::Listed(found)));
                return;
            }
            RuntimeCommand::MarkReady(_) => return,
            RuntimeCommand::Probe { instance, .. } => {
                self.probe(instance.clone());
                return;
            }
            RuntimeCommand::Mount(spec) | RuntimeCommand::Start(spec) => {
                spec.instance.container.clone()
            }
            RuntimeCommand::Stop { instance, .. } => instance.container.clone(),
        };
        let mut containers = self.containers.borrow_mut();
        let queue = containers.queues.entry(name.clone()).or_default();
        queue.push_back(command);
        let first = queue.len() == 1;
        drop(containers);
        if first {
            self.begin(&name);
        }
    }

    /// Begins the command at the head of a queue: it is done when its time is over.
    fn begin(&self, name: &ContainerName) {
        let containers = self.containers.borrow();
        let Some(command) = containers.queues.get(name).and_then(VecDeque::front) else {
            return;
        };
        let process = containers.processes.get(name);
        let takes = match command {
            RuntimeCommand::Start(spec) | RuntimeCommand::Mount(spec) => {
                Script::of(&spec.container).start
            }
            RuntimeCommand::Stop {
                instance, timeout, ..
            } => process
                .filter(|process| {
                    process.instance == *instance && process.condition == Alive::Running
                })
                .map_or(1, |process| stop_time(&process.script, *timeout)),
            RuntimeCommand::List | RuntimeCommand::MarkReady(_) | RuntimeCommand::Probe { .. } => 0,
        };
        self.machine.after(takes, Happening::Carried(name.clone()));
    }

    /// What a cache that is not refreshed would do: a container's third start gets the version of its second.
    fn make_a_mistake(&self, command: RuntimeCommand) -> RuntimeCommand {
        let RuntimeCommand::Start(spec) = &command else {
            return command;
        };
        if self.bug.get() != Bug::StartsStaleVersion {
            return command;
        }
        let mut specs = self.specs.borrow_mut();
        let known = specs.entry(spec.instance.container.clone()).or_default();
        known.push(spec.clone());
        let versions_differ = |other: &&StartSpec| {
            other.instance.fingerprint != spec.instance.fingerprint && known.len() > 2
        };
        let stale = known.iter().rev().find(versions_differ).cloned();
        stale.map_or(command, RuntimeCommand::Start)
    }

    fn carry_out(&self, command: RuntimeCommand) {
        match command {
            RuntimeCommand::Start(spec) => self.start(&spec),
            RuntimeCommand::Mount(spec) => self.mount(&spec),
            RuntimeCommand::Stop { instance, .. } => self.stop(instance),
            RuntimeCommand::List | RuntimeCommand::MarkReady(_) | RuntimeCommand::Probe { .. } => {}
        }
    }

    fn mount(&self, spec: &StartSpec) {
        self.remove_remnant(&spec.instance.container);
        let process = self.new_process(spec, Alive::Mounted);
        self.keep(process);
        self.tell(RuntimeEvent::Mounted(spec.instance.clone()));
    }

    fn start(&self, spec: &StartSpec) {
        self.remove_remnant(&spec.instance.container);
        if self.bug.get() == Bug::ForgetsStarts {
            let instance = spec.instance.clone();
            self.tell(RuntimeEvent::Started { instance, pid: 1 });
            return;
        }
        if self.bug.get() == Bug::RestartsOthers {
            self.restart_others(&spec.instance.container);
        }
        let damaged = match (self.inspect)(&spec.container) {
            Bytes::Whole => None,
            Bytes::Damaged(problem) => Some(problem),
            Bytes::Unreadable(error) => {
                let instance = spec.instance.clone();
                self.machine
                    .note(|| format!("{} cannot start: {error}", shown(&instance)));
                self.tell(RuntimeEvent::StartFailed { instance, error });
                return;
            }
        };
        let mut process = self.new_process(spec, Alive::Running);
        let starts = {
            let mut containers = self.containers.borrow_mut();
            let count = containers
                .starts
                .entry(spec.instance.fingerprint)
                .or_default();
            *count += 1;
            *count - 1
        };
        process.script = process.script.for_start(starts);
        let script = process.script;
        let instance = spec.instance.clone();
        self.machine
            .note(|| format!("{} runs for {}", shown(&instance), spec.revision));
        self.machine.saw(Seen::Ran {
            instance: instance.clone(),
            revision: spec.revision.clone(),
            damaged,
        });
        if script.start_fails {
            let error = "exec /sim: exec format error".to_owned();
            let exit = Exit {
                code: 255,
                out_of_memory: false,
                damaged: None,
            };
            self.machine.saw(Seen::Ended {
                instance: instance.clone(),
                exit,
            });
            self.tell(RuntimeEvent::StartFailed { instance, error });
            return;
        }
        let number = process.number;
        let points = [
            script.ready,
            script.kills_machine,
            script.exit.map(|(at, _)| at),
        ];
        self.keep(process);
        self.tell(RuntimeEvent::Started {
            instance,
            pid: 1000 + number,
        });
        for at in points.into_iter().flatten() {
            self.machine.after(at, Happening::Process(number));
        }
    }

    /// A mistake on purpose: every other container that runs is started anew.
    fn restart_others(&self, name: &ContainerName) {
        let containers = self.containers.borrow();
        let others = containers.processes.values();
        for process in others.filter(|process| process.instance.container != *name) {
            self.machine.saw(Seen::Ran {
                instance: process.instance.clone(),
                revision: process.revision.clone(),
                damaged: None,
            });
        }
    }

    fn stop(&self, instance: Instance) {
        if self.bug.get() == Bug::IgnoresStops {
            self.tell(RuntimeEvent::Stopped(instance));
            return;
        }
        let process = {
            let mut containers = self.containers.borrow_mut();
            let known = containers.processes.get(&instance.container);
            if known.is_some_and(|process| process.instance == instance) {
                containers.processes.remove(&instance.container)
            } else {
                None
            }
        };
        if let Some(process) = process
            && process.condition == Alive::Running
        {
            let code = if process.script.stop.is_some() {
                0
            } else {
                137
            };
            self.ended(
                instance.clone(),
                Exit {
                    code,
                    out_of_memory: false,
                    damaged: None,
                },
            );
        }
        self.containers.borrow_mut().gone = Some(instance.clone());
        self.tell(RuntimeEvent::Stopped(instance));
    }

    fn remove_remnant(&self, name: &ContainerName) {
        let remnant = self.containers.borrow_mut().processes.remove(name);
        if let Some(process) = remnant
            && process.condition == Alive::Running
        {
            let exit = Exit {
                code: 137,
                out_of_memory: false,
                damaged: None,
            };
            self.ended(process.instance, exit);
        }
    }

    fn new_process(&self, spec: &StartSpec, condition: Alive) -> Process {
        let mut containers = self.containers.borrow_mut();
        containers.next_number += 1;
        Process {
            number: containers.next_number,
            instance: spec.instance.clone(),
            revision: spec.revision.clone(),
            script: Script::of(&spec.container),
            started: self.machine.now(),
            condition,
            ready: false,
            signalled: false,
        }
    }

    fn keep(&self, process: Process) {
        let name = process.instance.container.clone();
        self.containers.borrow_mut().processes.insert(name, process);
    }

    fn probe(&self, instance: Instance) {
        let now = self.machine.now();
        let containers = self.containers.borrow();
        let process = containers.processes.get(&instance.container);
        let outcome = match process {
            Some(process)
                if process.instance == instance && process.condition == Alive::Running =>
            {
                if process.script.silent {
                    return;
                }
                let uptime = now - process.started;
                let sick = process.script.sick_from.is_some_and(|from| uptime >= from);
                if uptime < process.script.well_from || sick {
                    Err("connection refused".to_owned())
                } else {
                    Ok(())
                }
            }
            _ => Err("it does not run".to_owned()),
        };
        self.machine.after(
            ANSWER_MS,
            Happening::Told(RuntimeEvent::Probed { instance, outcome }),
        );
    }

    fn list(&self) -> Vec<Found> {
        let now = self.machine.now();
        let containers = self.containers.borrow();
        let found = containers.processes.values().map(|process| Found {
            instance: process.instance.clone(),
            revision: process.revision.clone(),
            condition: match process.condition {
                Alive::Mounted => Condition::Mounted,
                Alive::Running => Condition::Running {
                    pid: 1000 + process.number,
                    uptime: Duration::from_millis(now - process.started),
                },
                Alive::Ended(exit) => Condition::Ended(exit),
            },
            ready: process.ready,
        });
        let mut found: Vec<_> = found.collect();
        drop(containers);
        if self.lies.get() && (self.choose)(4) == 0 {
            found.push(stranger());
        }
        found
    }
}

impl Port for Runtime {
    fn submit(&mut self, command: RuntimeCommand) {
        let command = self.make_a_mistake(command);
        match &command {
            RuntimeCommand::Start(spec) | RuntimeCommand::Mount(spec) => {
                self.machine.note(|| {
                    format!(
                        "loop asks to start {} for {}",
                        shown(&spec.instance),
                        spec.revision
                    )
                });
                self.machine.saw(Seen::StartAsked {
                    instance: spec.instance.clone(),
                    revision: spec.revision.clone(),
                    markers: (self.read_markers)(),
                });
            }
            RuntimeCommand::Stop { instance, .. } => {
                self.machine
                    .note(|| format!("loop asks to stop {}", shown(instance)));
                self.machine.saw(Seen::StopAsked {
                    instance: instance.clone(),
                    markers: (self.read_markers)(),
                });
            }
            // Kept beside the run time, whether that answers or not.
            RuntimeCommand::MarkReady(instance) => {
                let mut containers = self.containers.borrow_mut();
                if let Some(process) = containers.processes.get_mut(&instance.container)
                    && process.instance == *instance
                {
                    process.ready = true;
                }
            }
            RuntimeCommand::List | RuntimeCommand::Probe { .. } => {}
        }
        if self.containers.borrow().connected {
            self.take(command);
        } else {
            self.containers.borrow_mut().waiting.push(command);
        }
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime")
            .field("processes", &self.containers.borrow().processes)
            .finish_non_exhaustive()
    }
}

fn stop_time(script: &Script, timeout: Duration) -> u64 {
    let timeout = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    script.stop.map_or(timeout, |stop| stop.min(timeout))
}

fn stranger() -> Found {
    Found {
        instance: Instance {
            container: "stranger".parse().expect("a clean name"),
            fingerprint: ObjectId::of(b"stranger"),
            generation: 0,
        },
        revision: RevisionId::factory(),
        condition: Condition::Mounted,
        ready: false,
    }
}

/// An instance in a log line.
pub(crate) fn shown(instance: &Instance) -> String {
    format!(
        "{}#{} ({})",
        instance.container,
        instance.generation,
        &instance.fingerprint.short()[..6]
    )
}
