//! One simulated device: the production store, life cycle and loop on one thread, over everything that is simulated.
//!
//! The world moves time, hands things to the loop, cuts the power, kills the orchestrator, starts it again, and calls the checkers
//! after each of these. It decides nothing by itself: what happens is in [`crate::acts`] and in the choices.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use device::handle::{Action, Answer, Command, Refusal, Reply, Request};
use device::ports::{self, Clock as _, Ending, Ports, RuntimeEvent};
use device::{Device, Event, Handle, Settings};
use model::{ContainerName, Goal, Instant, Status};
use store::{Options, Store};

use crate::bugs::Bug;
use crate::checkers::records::MARKERS;
use crate::checkers::{Checkers, Image, Known, Moment, Rest, Violation};
use crate::choices::Choices;
use crate::clock::Clock;
use crate::disk::{Contents, Disk, Plan, Spread};
use crate::inspect::inspector;
use crate::jobs::Jobs;
use crate::machine::{Happening, Machine, TrueTime};
use crate::power::{Bootloader, Gauges, Kind, Power, Watchdog};
use crate::runtime::Runtime;

/// How long a device may take to come to rest, once faults have stopped.
const REST_LIMIT_MS: u64 = 30 * 60 * 1000;
/// Nothing may happen for so long, which is longer than a group may take and than the loop waits to write again, before a device is at rest.
const REST_MS: u64 = 12_000;
/// A kernel keeps what was not synced no longer than this.
const WRITE_BACK_MS: u64 = 30_000;
/// How fast a clock is that runs too fast.
const FAST: u64 = 30;
/// Events of one life; more than this is a loop that does not end.
const EVENTS_MAX: u64 = 200_000;

/// The ports, simulated.
#[derive(Debug)]
pub struct Simulated;

impl ports::World for Simulated {
    type Disk = Disk;
    type Runtime = Runtime;
    type Jobs = Jobs;
    type Clock = Clock;
    type Bootloader = Bootloader;
    type Power = Power;
    type Gauges = Gauges;
    type Watchdog = Watchdog;
}

/// What a life begins with.
#[derive(Debug, Clone)]
pub struct Start {
    /// What is on the disk.
    pub contents: Contents,
    /// Settings of the loop.
    pub settings: Settings,
    /// The boot loader.
    pub boot_loader: Kind,
    /// How the outcome of each power cut is chosen.
    pub spread: Spread,
    /// A mistake that is made on purpose.
    pub bug: Bug,
    /// Whether to keep a log.
    pub logged: bool,
}

/// What happened in a life, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Power cuts.
    pub cuts: u64,
    /// Kills of the orchestrator alone.
    pub kills: u64,
    /// Starts of the orchestrator.
    pub starts: u64,
    /// Things that were handed to the loop.
    pub events: u64,
    /// Changes of the disk.
    pub operations: u64,
    /// Requests that were answered with success.
    pub accepted: u64,
    /// Requests that were refused.
    pub refused: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.cuts += other.cuts;
        self.kills += other.kills;
        self.starts += other.starts;
        self.events += other.events;
        self.operations += other.operations;
        self.accepted += other.accepted;
        self.refused += other.refused;
    }
}

/// What ends when the disk is told to cut the power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Loss {
    /// The whole machine.
    #[default]
    Power,
    /// The orchestrator alone, as by `kill -9`: what it wrote stays.
    Orchestrator,
}

type Answers = Arc<Mutex<Vec<(u64, Result<Answer, Refusal>)>>>;

/// One device.
pub struct World {
    pub(crate) machine: Rc<Machine>,
    pub(crate) disk: Disk,
    pub(crate) runtime: Runtime,
    pub(crate) loader: Bootloader,
    pub(crate) choices: Rc<RefCell<Choices>>,
    pub(crate) known: Known,
    pub(crate) checkers: Checkers,
    jobs: Jobs,
    settings: Settings,
    spread: Spread,
    device: Option<Device<Simulated>>,
    handle: Option<Handle>,
    store: Option<Store<Disk>>,
    answers: Answers,
    open: BTreeMap<u64, Request>,
    last_answers: BTreeMap<u64, Result<Answer, Refusal>>,
    next_request: u64,
    start: u32,
    generation_seen: u64,
    loss: Loss,
    stopped: BTreeSet<ContainerName>,
    counts: Counts,
    /// Kill the orchestrator when so many events were handed to it.
    pub(crate) kill_at_event: Option<u64>,
    /// Cut the power again, before the disk operation with this number after the first cut.
    pub(crate) second_cut: Option<u64>,
    /// Disk operations before the first cut.
    pub(crate) first_cut_operation: Option<u64>,
    losses: u64,
    bug: Bug,
    /// When the kernel has written back by itself what a killed orchestrator did not sync.
    write_back_at: Option<TrueTime>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World")
            .field("now", &self.machine.now())
            .field("start", &self.start)
            .finish_non_exhaustive()
    }
}

impl Image for Disk {
    fn file(&self, path: &str) -> Option<Arc<[u8]>> {
        self.durable_file(path)
    }

    fn exists(&self, path: &str) -> bool {
        self.durably_exists(path)
    }
}

impl World {
    /// A machine that is off.
    pub fn new(start: Start, known: Known, choices: Rc<RefCell<Choices>>) -> Self {
        let machine = Machine::new(start.logged);
        let disk = Disk::with(start.contents);
        if let Bug::Disk(fault) = start.bug {
            disk.set_fault(fault);
        }
        if start.bug == Bug::ClockRunsFast {
            machine.set_clock_factor(FAST);
        }
        let inspect = inspector(disk.clone());
        let chooser = Rc::clone(&choices);
        let choose = Rc::new(move |options| chooser.borrow_mut().choose(options));
        let marked = disk.clone();
        let read_markers = Rc::new(move || MARKERS.map(|path| marked.durable_file(path)));
        let runtime = Runtime::new(Rc::clone(&machine), inspect, read_markers, choose);
        runtime.set_bug(start.bug);
        Self {
            jobs: Jobs::new(Rc::clone(&machine), start.bug),
            loader: Bootloader::new(start.boot_loader, start.bug),
            machine,
            disk,
            runtime,
            choices,
            known,
            checkers: Checkers::default(),
            settings: start.settings,
            spread: start.spread,
            device: None,
            handle: None,
            store: None,
            answers: Answers::default(),
            open: BTreeMap::new(),
            last_answers: BTreeMap::new(),
            next_request: 0,
            start: 0,
            generation_seen: u64::MAX,
            loss: Loss::Power,
            stopped: BTreeSet::new(),
            counts: Counts::default(),
            kill_at_event: None,
            second_cut: None,
            first_cut_operation: None,
            losses: 0,
            bug: start.bug,
            write_back_at: None,
        }
    }

    /// How often the orchestrator was lost.
    pub(crate) fn losses(&self) -> u64 {
        self.losses
    }

    /// What was counted.
    pub fn counts(&self) -> Counts {
        Counts {
            operations: self.disk.operations_ever(),
            ..self.counts
        }
    }

    /// What the checkers found.
    pub fn violations(&self) -> &[Violation] {
        self.checkers.violations()
    }

    /// The log; empty when none was to be kept.
    pub fn log(&self) -> String {
        self.machine.log()
    }

    /// What a planned cut of the disk takes with it.
    pub fn set_loss(&mut self, loss: Loss) {
        self.loss = loss;
    }

    /// The store as the server uses it; `None` while nothing is started.
    pub(crate) fn store(&self) -> Option<&Store<Disk>> {
        self.store.as_ref()
    }

    /// What the loop shows.
    pub(crate) fn view(&self) -> Option<Arc<device::handle::View>> {
        self.handle.as_ref().map(Handle::view)
    }

    /// What happened since the start of the orchestrator, as far as it is kept.
    pub(crate) fn happened(&self) -> Vec<device::handle::Happened> {
        let handle = self.handle.as_ref();
        handle.map_or_else(Vec::new, |handle| handle.events_since(0).events)
    }

    /// Monotonic time of the device.
    pub(crate) fn device_now(&self) -> Instant {
        Clock(Rc::clone(&self.machine)).now()
    }

    /// Starts the orchestrator if it does not run. Returns whether it runs then.
    pub(crate) fn ensure_started(&mut self) -> bool {
        if self.device.is_some() {
            return true;
        }
        self.start += 1;
        self.counts.starts += 1;
        self.machine
            .note(|| format!("--- start {} ---", self.start));
        let clock = Clock(Rc::clone(&self.machine));
        self.disk.set_time(clock.wall().0);
        let options = Options {
            lease: self.known.upload_lease,
            seals: !self.settings.seal_after.is_zero(),
            spare_bytes: self.disk.spare_bytes(),
            ..Options::default()
        };
        let opened = Store::open(self.disk.clone(), options, clock.now());
        self.store = Some(opened.store.clone());
        let ports = Ports {
            runtime: self.runtime.clone(),
            jobs: self.jobs.clone(),
            clock,
            bootloader: self.loader.clone(),
            power: Power(Rc::clone(&self.machine)),
            gauges: Gauges,
            watchdog: Watchdog::default(),
        };
        let handle = Handle::new(|_, _| {});
        self.handle = Some(handle.clone());
        self.device = Some(Device::new(opened, ports, self.settings.clone(), handle));
        self.handle_event(Event::Start);
        self.device.is_some()
    }

    /// Hands a request to the loop; its number, to look for the answer.
    pub(crate) fn ask(&mut self, request: Request) -> Option<u64> {
        if !self.ensure_started() {
            return None;
        }
        // Who signals is a process of the container; the server finds no sender otherwise.
        let nobody = |name: &ContainerName| {
            !self
                .runtime
                .running()
                .iter()
                .any(|it| it.container == *name)
        };
        if let Request::Ready(name) = &request
            && nobody(name)
        {
            return None;
        }
        let id = self.next_request;
        self.next_request += 1;
        self.machine
            .note(|| format!("asked {id}: {}", in_short(&request)));
        if let Request::Control { container, action } = &request {
            match action {
                Action::Stop => self.stopped.insert(container.clone()),
                Action::Start | Action::Restart => self.stopped.remove(container),
            };
        }
        let answers = Arc::clone(&self.answers);
        let reply: Reply = Box::new(move |answer| {
            let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
            answers.push((id, answer));
        });
        self.with_checkers(|checkers, moment| checkers.asked(moment, id, inner(&request)));
        if let Request::Ready(name) = &request {
            self.with_checkers(|checkers, moment| checkers.signalled(moment, name));
        }
        self.open.insert(id, request.clone());
        if let Some(reply) = self.make_a_mistake(&request, reply) {
            let request = self.mistaken(request);
            self.handle_event(Event::Request(request, reply));
        }
        Some(id)
    }

    /// Another request than the one that was asked.
    fn mistaken(&self, request: Request) -> Request {
        let is_reset = matches!(request, Request::Command(Command::FactoryReset { .. }));
        if is_reset && self.bug == Bug::WipesAnyway {
            let wipe_volumes = true;
            return Request::Command(Command::FactoryReset { wipe_volumes });
        }
        request
    }

    /// Answers a request in a wrong way, or gives the reply back.
    fn make_a_mistake(&mut self, request: &Request, reply: Reply) -> Option<Reply> {
        let second_run = matches!(request, Request::Command(Command::Run { .. }))
            && self.view().is_some_and(|view| view.trial.is_some());
        match self.bug {
            Bug::AnswersEarly => {
                reply(Ok(Answer::Done));
                self.take_answers();
                Some(Box::new(|_| {}))
            }
            Bug::AcceptsSecondRun if second_run => {
                reply(Ok(Answer::Done));
                self.take_answers();
                None
            }
            Bug::ForgetsSecondRun if second_run => None,
            Bug::ForgetsSecondRun
            | Bug::AcceptsSecondRun
            | Bug::None
            | Bug::Disk(_)
            | Bug::ClockRunsFast
            | Bug::VerifiesNothing
            | Bug::CollectsEverything
            | Bug::StartsStaleVersion
            | Bug::RestartsOthers
            | Bug::IgnoresStops
            | Bug::ForgetsStarts
            | Bug::WipesAnyway
            | Bug::ConfirmsNothing => Some(reply),
        }
    }

    /// The answer to a request, once it was given.
    pub(crate) fn answer(&self, id: u64) -> Option<&Result<Answer, Refusal>> {
        self.last_answers.get(&id)
    }

    fn handle_event(&mut self, event: Event) {
        self.counts.events += 1;
        let wall = Clock(Rc::clone(&self.machine)).wall();
        self.disk.set_time(wall.0);
        if let Some(device) = &mut self.device {
            device.handle(event);
        }
        self.after_event();
    }

    /// Goes on until `until`, or until `done` says so after an event.
    pub(crate) fn run(&mut self, until: TrueTime, mut done: impl FnMut(&Self) -> bool) {
        loop {
            if !self.ensure_started() {
                continue;
            }
            if done(self) || self.counts.events > EVENTS_MAX {
                return;
            }
            let wake = self.device.as_ref().and_then(Device::next_wake);
            let wake = wake.map(|at| self.machine.true_time(at));
            let next = [wake, self.machine.next_due()].into_iter().flatten().min();
            match next {
                Some(at) if at <= until => {
                    self.machine.advance_to(at);
                    self.write_back_when_due();
                    self.step(wake == Some(at));
                }
                Some(_) | None => {
                    self.machine.advance_to(until);
                    self.write_back_when_due();
                    return;
                }
            }
        }
    }

    fn write_back_when_due(&mut self) {
        if self
            .write_back_at
            .is_some_and(|at| self.machine.now() >= at)
        {
            self.write_back_at = None;
            self.disk.write_back();
        }
    }

    /// Does what is due, or wakes the loop.
    fn step(&mut self, wake: bool) {
        match self.machine.take_due() {
            Some(happening) => self.happen(happening),
            None if wake => self.handle_event(Event::Tick),
            None => {}
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Told(event) => {
                self.machine
                    .note(|| format!("told {}", told_in_short(&event)));
                self.with_checkers(|checkers, moment| checkers.told(moment, &event));
                self.handle_event(Event::Runtime(event));
            }
            Happening::Carried(name) => {
                self.runtime.carried(&name);
                self.after_event();
            }
            Happening::Process(number) => {
                self.runtime.process_due(number);
                self.after_event();
                for name in self.runtime.take_signals() {
                    self.ask(Request::Ready(name));
                }
            }
            Happening::Link(connected) => {
                self.machine
                    .note(|| format!("run time answers: {connected}"));
                self.runtime.set_link(connected);
            }
            Happening::Job => {
                let Some(store) = &self.store else { return };
                if let Some(event) = self.jobs.step(store) {
                    self.handle_event(Event::Job(event));
                } else {
                    self.after_event();
                }
            }
        }
    }

    /// After anything that may have changed something: checkers, then what the event led to.
    pub(crate) fn after_event(&mut self) {
        for seen in self.machine.take_seen() {
            self.with_checkers(|checkers, moment| checkers.seen(moment, &seen));
        }
        self.take_answers();
        if self.disk.is_cut() || self.machine.power_lost() {
            match self.loss {
                Loss::Orchestrator if !self.machine.power_lost() => self.kill(),
                Loss::Orchestrator | Loss::Power => self.cut(),
            }
            return;
        }
        let generation = self.disk.generation();
        if generation != self.generation_seen {
            self.generation_seen = generation;
            self.with_checkers(|checkers, moment| checkers.changed(moment));
            self.machine.note(|| self.checkers.in_short());
        }
        if let Some(ending) = self.machine.ending() {
            self.end(ending);
        } else if self
            .kill_at_event
            .is_some_and(|at| self.counts.events >= at)
        {
            self.kill_at_event = None;
            self.kill();
        }
    }

    fn take_answers(&mut self) {
        let answers = {
            let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *answers)
        };
        let died = self.disk.is_cut();
        for (id, answer) in answers {
            if died && answer.is_err() {
                continue; // nobody is left who could have sent it
            }
            self.machine.note(|| format!("answered {id}: {answer:?}"));
            match &answer {
                Ok(_) => self.counts.accepted += 1,
                Err(_) => self.counts.refused += 1,
            }
            if let Some(request) = self.open.remove(&id) {
                if let (Request::Ready(name), Ok(_)) = (&request, &answer) {
                    self.runtime.signal_taken(name);
                }
                self.with_checkers(|checkers, moment| {
                    checkers.answered(moment, id, inner(&request), &answer);
                });
            }
            self.last_answers.insert(id, answer);
        }
    }

    pub(crate) fn with_checkers(&mut self, look: impl FnOnce(&mut Checkers, Moment<'_>)) {
        let moment = Moment {
            image: &self.disk,
            now: self.machine.now(),
            start: self.start,
            shutting_down: self.view().is_some_and(|view| view.shutting_down),
            known: &self.known,
        };
        let before = self.checkers.violations().len();
        look(&mut self.checkers, moment);
        for violation in &self.checkers.violations()[before..] {
            self.machine
                .note(|| format!("!!! invariant {}: {}", violation.invariant, violation.what));
        }
    }

    /// The loop ended the boot itself.
    fn end(&mut self, ending: Ending) {
        match ending {
            Ending::Reboot | Ending::PowerOff => {
                // A machine that is shut down in order writes everything back.
                self.lose_machine(Spread::Ends, &mut |options| options - 1);
            }
            Ending::Stop {
                containers_keep_running: _,
            } => self.lose_orchestrator(),
        }
    }

    /// The power is cut now.
    pub(crate) fn cut(&mut self) {
        self.counts.cuts += 1;
        self.machine.note(|| "*** the power is cut ***".to_owned());
        self.disk.cut();
        let choices = Rc::clone(&self.choices);
        let spread = self.spread;
        self.lose_machine(spread, &mut |options| choices.borrow_mut().choose(options));
        self.plan_second_cut();
    }

    fn lose_machine(&mut self, spread: Spread, choose: &mut dyn FnMut(usize) -> usize) {
        self.drop_device();
        self.runtime.lose_power();
        drop(self.machine.take_seen());
        self.machine.start_over();
        self.machine.advance_to(self.machine.now() + 1000);
        self.machine.start_over();
        self.loader.boot();
        self.disk.crash(spread, choose);
        self.write_back_at = None;
        self.stopped.clear();
        self.with_checkers(|checkers, moment| checkers.started(moment, true));
    }

    /// The orchestrator is killed now; the machine and its containers go on.
    pub(crate) fn kill(&mut self) {
        self.counts.kills += 1;
        self.machine
            .note(|| "*** the orchestrator is killed ***".to_owned());
        self.lose_orchestrator();
        self.plan_second_cut();
    }

    fn lose_orchestrator(&mut self) {
        self.drop_device();
        self.machine.forget_orchestrator();
        self.runtime.lose_orchestrator();
        drop(self.machine.take_seen());
        self.disk.revive();
        self.write_back_at = Some(self.machine.now() + WRITE_BACK_MS);
        self.machine.advance_to(self.machine.now() + 200);
        self.with_checkers(|checkers, moment| checkers.started(moment, false));
    }

    fn plan_second_cut(&mut self) {
        if self.first_cut_operation.is_none() {
            self.first_cut_operation = Some(self.disk.operations_ever());
            self.disk.plan(Plan {
                cut_at: self.second_cut,
                fail_at: None,
            });
        }
    }

    fn drop_device(&mut self) {
        self.losses += 1;
        self.device = None;
        self.store = None;
        self.handle = None;
        self.jobs.forget();
        self.open.clear();
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.clear();
    }

    /// Faults stop; the device comes to rest, and is judged.
    pub fn come_to_rest(&mut self) -> Rest {
        self.disk.plan(Plan::default());
        self.disk.set_full(false);
        self.disk.set_read_only_mount(false);
        self.loader.set_broken(false);
        self.runtime.set_lies(false);
        self.runtime.set_link(true);
        self.kill_at_event = None;
        let start = self.start;
        let limit = self.machine.now() + REST_LIMIT_MS;
        loop {
            self.run(limit, Self::is_quiet);
            let still = (self.machine.now() + REST_MS).min(limit);
            self.run(still, |world| !world.is_quiet());
            let over = self.machine.now() >= limit || self.counts.events > EVENTS_MAX;
            if self.is_quiet() || over {
                break;
            }
        }
        if self.write_back_at.take().is_some() {
            self.disk.write_back();
        }
        let rest = Rest {
            running: self.view().and_then(|view| view.running.clone()),
            processes: self
                .runtime
                .running()
                .into_iter()
                .map(|instance| (instance.container, instance.fingerprint))
                .collect(),
            stopped: self.stopped.clone(),
            boots: self.start - start,
            next_boot: self.loader.next(),
            quiet: self.is_quiet(),
        };
        self.machine.note(|| format!("at rest: {rest:?}"));
        self.with_checkers(|checkers, moment| checkers.settled(moment, &rest));
        rest
    }

    /// Complains when this revision does not run, or one of its containers does not.
    pub(crate) fn must_run(&mut self, revision: &model::RevisionId) {
        let view = self.view();
        let running = view.as_ref().and_then(|view| view.running.as_ref());
        let up = view.as_ref().is_some_and(|view| {
            let mut containers = view.containers.iter();
            containers.all(|container| match container.goal {
                Goal::Mounted => container.status == Status::Mounted,
                Goal::Started => matches!(container.status, Status::Started | Status::Ready),
                Goal::Ready => container.status == Status::Ready,
            })
        });
        if running != Some(revision) || !up {
            let what = format!("{revision} must run, and {running:?} does (all up: {up})");
            self.checkers.complain(8, what);
        }
    }

    /// Whether nothing is under way that ends by itself.
    pub(crate) fn is_quiet(&self) -> bool {
        let Some(view) = self.view() else {
            return false;
        };
        let steady = |status: Status| match status {
            Status::Starting | Status::Recovering | Status::Stopping => false,
            Status::None
            | Status::Installed
            | Status::Mounted
            | Status::Blocked
            | Status::Started
            | Status::Ready
            | Status::Stopped => true,
        };
        let updated = |revision| {
            let progress = self.checkers.progress().get(revision);
            progress.is_some_and(|progress| progress.is_final() && !progress.is_failed())
        };
        view.trial
            .as_ref()
            .is_none_or(|trial| updated(&trial.revision))
            && !view.shutting_down
            && self.jobs.is_idle()
            && self.runtime.is_idle()
            && self.open.is_empty()
            && view
                .containers
                .iter()
                .all(|container| steady(container.status))
    }
}

fn in_short(request: &Request) -> String {
    match request {
        Request::PutRevision { revision, .. } => format!("put {revision}"),
        Request::DeleteRevision(_)
        | Request::PutCommitMessage { .. }
        | Request::Command(_)
        | Request::Control { .. }
        | Request::Ready(_)
        | Request::PutMeta { .. }
        | Request::DeleteMeta { .. }
        | Request::Claim { .. }
        | Request::RenewClaim { .. }
        | Request::ReleaseClaim { .. }
        | Request::As { .. }
        | Request::Collect
        | Request::Plan(_)
        | Request::Stop { .. } => format!("{request:?}"),
    }
}

fn told_in_short(event: &RuntimeEvent) -> String {
    use crate::runtime::shown;
    match event {
        RuntimeEvent::Listed(found) => {
            let names = found.iter().map(|found| shown(&found.instance));
            format!("listed {}", names.collect::<Vec<_>>().join(", "))
        }
        RuntimeEvent::Mounted(instance) => format!("mounted {}", shown(instance)),
        RuntimeEvent::Started { instance, .. } => format!("started {}", shown(instance)),
        RuntimeEvent::StartFailed { instance, error } => {
            format!("start of {} failed: {error}", shown(instance))
        }
        RuntimeEvent::Exited { instance, exit } => {
            format!("{} exited {}", shown(instance), exit.code)
        }
        RuntimeEvent::Stopped(instance) => format!("stopped {}", shown(instance)),
        RuntimeEvent::Probed { instance, outcome } => {
            format!("probed {}: {outcome:?}", shown(instance))
        }
        RuntimeEvent::Disconnected { reason } => format!("disconnected: {reason}"),
        RuntimeEvent::Connected => "connected".to_owned(),
    }
}

/// What is asked for, whoever asks.
fn inner(request: &Request) -> &Request {
    if let Request::As { request, .. } = request {
        inner(request)
    } else {
        request
    }
}
