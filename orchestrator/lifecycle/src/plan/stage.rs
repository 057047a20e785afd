//! The stage of a rehearsal: copies of the machines that decide, a run time that does what it is told, and time that only moves
//! from one event to the next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use model::container::{Container, Goal, Kind};
use model::{ContainerName, Instant, Manifest, RevisionId, limits};

use crate::containers::{Containers, Mode, Target, Took};
use crate::runtime::{Ending, Instance, RuntimeCommand, RuntimeEvent};
use crate::update::{self, Effect, Phase, Update, Write};

/// Turns of the stage; each container takes a few, so this is far more than any update needs.
const TURNS_MAX: usize = 64 * limits::CONTAINERS_MAX;

/// Something that is done during an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    /// Time from the beginning of the update.
    pub at: Duration,
    /// What.
    pub deed: Deed,
    /// How long that takes is not known, or known only from a time-out.
    pub guessed: bool,
}

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// This container is asked to stop.
    Stop(ContainerName),
    /// It is started.
    Start(ContainerName),
    /// Its volumes are mounted.
    Mount(ContainerName),
    /// The machine restarts.
    Reboot,
}

enum Coming {
    Event(RuntimeEvent),
    Ready(ContainerName),
}

pub(super) struct Stage<'a> {
    pub(super) now: Instant,
    pub(super) began: Instant,
    pub(super) containers: Containers,
    pub(super) update: Update,
    /// What is known of how long things take.
    times: &'a Containers,
    next: (&'a RevisionId, &'a Manifest),
    coming: BTreeMap<(Instant, u64), Coming>,
    asked: u64,
    /// Nothing was asked in this turn.
    quiet: bool,
    pub(super) acts: Vec<Act>,
    /// When each container reached its goal after its last start.
    pub(super) up: BTreeMap<ContainerName, Instant>,
    /// What the stops and starts of each container took by themselves.
    pub(super) own: BTreeMap<ContainerName, Duration>,
    /// When it is committed, if it is.
    pub(super) committed: Option<Instant>,
    /// Whether room is made then.
    pub(super) retains: bool,
    /// Something runs on of which nobody knows when it says that it is ready.
    pub(super) unsure: bool,
    /// When the orchestrator starts again, if the machine restarts.
    pub(super) restarted: Option<Instant>,
    pub(super) ended: Option<Ending>,
    pub(super) refused: Option<update::Refused>,
}

impl<'a> Stage<'a> {
    pub(super) fn new(
        now: Instant,
        containers: &'a Containers,
        update: &Update,
        running: Option<&Manifest>,
        next: (&'a RevisionId, &'a Manifest),
    ) -> Self {
        let mut stage = Self {
            now,
            began: now,
            containers: containers.clone(),
            update: update.clone(),
            times: containers,
            next,
            coming: BTreeMap::new(),
            asked: 0,
            quiet: false,
            acts: Vec::new(),
            up: BTreeMap::new(),
            own: BTreeMap::new(),
            committed: None,
            retains: false,
            unsure: false,
            restarted: None,
            ended: None,
            refused: None,
        };
        stage.containers.assume_connected(now);
        let (starting, stopping) = containers.under_way();
        for instance in starting {
            let goal = running
                .and_then(|running| running.container(&instance.container))
                .map_or(Goal::Started, |spec| spec.goal);
            stage.starts(instance, goal, Took::default());
        }
        for instance in stopping {
            stage.later(
                Duration::ZERO,
                Coming::Event(RuntimeEvent::Stopped(instance)),
            );
        }
        stage
    }

    /// Tells the life cycle something and does what it wants.
    pub(super) fn tell(&mut self, event: update::Event) {
        let effects = self.update.step(self.now, event);
        self.carry(effects);
    }

    fn carry(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Run(Some(revision), mode) if revision == *self.next.0 => self.aim(mode),
                // Only a rollback runs another one, and nothing fails here.
                Effect::Run(Some(_) | None, _) => {}
                Effect::StopAll => self.containers.stop_all(),
                Effect::Settle => self.containers.set_mode(Mode::Normal),
                Effect::End(ending) => self.ended = Some(ending),
                Effect::Retain => self.retains = true,
                Effect::Gate(update::Gate::Commit, Write::Marker(marker)) => {
                    self.committed = marker.trial.is_none().then_some(self.now);
                }
                Effect::Answer(Err(refused)) => self.refused = Some(refused),
                Effect::Answer(Ok(()))
                | Effect::Gate(..)
                | Effect::Owe(_)
                | Effect::StartAgain
                | Effect::Verify(_)
                | Effect::Tell(..) => {}
            }
        }
    }

    /// Revisions whose containers or volumes are in use.
    pub(super) fn in_use(&self) -> BTreeSet<RevisionId> {
        let mut in_use = self.containers.revisions_in_use();
        let update = &self.update;
        let running = update.running().into_iter().chain(update.base());
        in_use.extend(running.map(|running| running.revision.clone()));
        in_use
    }

    /// From now on the containers of the next revision are to run.
    pub(super) fn aim(&mut self, mode: Mode) {
        let (revision, manifest) = self.next;
        let mut target = Target::of(revision.clone(), manifest);
        for spec in &mut target.containers {
            unprobed(spec);
        }
        for group in &mut target.groups {
            // Whether a goal is reached in time is not for a plan to say.
            group.timeout = limits::DURATION_MAX;
        }
        self.containers.set_target(&target, mode, self.now);
        let kept: Vec<_> = self.containers.alive().into_keys().collect();
        for name in kept {
            let is_ready_goal = manifest
                .container(&name)
                .is_some_and(|spec| spec.goal == Goal::Ready);
            if is_ready_goal && !self.containers.has_reached(&name) {
                self.unsure = true;
                self.later(Duration::ZERO, Coming::Ready(name));
            }
        }
    }

    /// The machine has restarted: nothing runs.
    pub(super) fn restart(&mut self, takes: Option<Duration>, update: Update) {
        self.acts.push(Act {
            at: self.now.since(self.began),
            deed: Deed::Reboot,
            // What firmware and boot loader take is never seen.
            guessed: true,
        });
        self.now = self.now + takes.unwrap_or_default();
        self.restarted = Some(self.now);
        self.coming.clear();
        self.ended = None;
        self.update = update;
        self.containers = Containers::new(self.now, self.containers.next_generation());
    }

    /// Goes on until `done`, or until nothing more happens by itself.
    pub(super) fn play(&mut self, done: impl Fn(&Self) -> bool) {
        for _ in 0..TURNS_MAX {
            let commands = self.containers.reconcile(self.now);
            self.quiet = commands.is_empty();
            for command in commands {
                self.ask(command);
            }
            self.note_goals();
            let before = self.update.phase().clone();
            let summary = self.containers.summary(self.now);
            self.tell(update::Event::Containers(summary));
            if done(self) {
                return;
            }
            if !self.quiet || *self.update.phase() != before {
                continue;
            }
            let wakes = [
                self.containers.next_wake(self.now),
                self.update.next_wake(self.now),
            ];
            let wake = wakes.into_iter().flatten().min();
            let next = self.coming.first_entry();
            let next = next.filter(|next| wake.is_none_or(|wake| next.key().0 <= wake));
            let Some(next) = next else {
                match wake {
                    Some(at) => self.now = at,
                    None => return,
                }
                continue;
            };
            let ((at, _), coming) = next.remove_entry();
            self.now = self.now.max(at);
            match coming {
                Coming::Event(event) => self.containers.handle(self.now, event),
                // One whose goal is another in the next revision does not say so; that is no matter here.
                Coming::Ready(name) => drop(self.containers.ready(&name)),
            }
        }
    }

    /// Whether nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.quiet && self.coming.is_empty()
    }

    /// Whether every goal is reached and must only hold.
    pub(super) fn is_observed(&self) -> bool {
        matches!(self.update.phase(), Phase::Observing { .. })
    }

    /// When the last container of the next revision reached its goal; `None` when one has not.
    pub(super) fn goals_at(&self, began: Instant) -> Option<Instant> {
        let began = self.restarted.unwrap_or(began);
        self.next.1.containers().try_fold(began, |last, spec| {
            Some(last.max(*self.up.get(&spec.name)?))
        })
    }

    fn note_goals(&mut self) {
        let (containers, now) = (&self.containers, self.now);
        for spec in self.next.1.containers() {
            if !self.up.contains_key(&spec.name) && containers.has_reached(&spec.name) {
                self.up.insert(spec.name.clone(), now);
            }
        }
    }

    fn ask(&mut self, command: RuntimeCommand) {
        match command {
            RuntimeCommand::List => {
                self.later(
                    Duration::ZERO,
                    Coming::Event(RuntimeEvent::Listed(Vec::new())),
                );
            }
            RuntimeCommand::Mount(spec) => {
                let took = self.times.took(&spec.instance.container, true);
                self.act(Deed::Mount(spec.instance.container.clone()), took.start);
                self.starts(spec.instance, Goal::Mounted, took);
            }
            RuntimeCommand::Start(spec) => {
                let took = self.times.took(&spec.instance.container, false);
                let goal = spec.container.goal;
                let until = match goal {
                    Goal::Ready => took.ready,
                    Goal::Mounted | Goal::Started => took.start,
                };
                self.act(Deed::Start(spec.instance.container.clone()), until);
                self.up.remove(&spec.instance.container);
                self.starts(spec.instance, goal, took);
            }
            RuntimeCommand::Stop {
                instance, timeout, ..
            } => {
                let mounted = self.times.is_mounted(&instance.container);
                let took = self.times.took(&instance.container, mounted).stop;
                // What had ended by itself is only cleared up.
                let lives = self.times.alive().get(&instance.container) == Some(&instance);
                let name = instance.container.clone();
                self.up.remove(&name);
                let takes = if lives {
                    took.unwrap_or(timeout)
                } else {
                    Duration::ZERO
                };
                if lives {
                    self.act(Deed::Stop(name.clone()), took);
                    *self.own.entry(name).or_default() += took.map_or(timeout, |_| Duration::ZERO);
                }
                self.later(takes, Coming::Event(RuntimeEvent::Stopped(instance)));
            }
            // Nothing is probed here: see `unprobed`.
            RuntimeCommand::MarkReady(_) | RuntimeCommand::Probe { .. } => {}
        }
    }

    fn starts(&mut self, instance: Instance, goal: Goal, took: Took) {
        let start = took.start.unwrap_or_default();
        let name = instance.container.clone();
        let event = match goal {
            Goal::Mounted => RuntimeEvent::Mounted(instance),
            Goal::Started | Goal::Ready => RuntimeEvent::Started { instance, pid: 0 },
        };
        self.later(start, Coming::Event(event));
        if goal == Goal::Ready {
            let ready = took.ready.unwrap_or_default().max(start);
            self.later(ready, Coming::Ready(name));
        }
    }

    fn act(&mut self, deed: Deed, took: Option<Duration>) {
        if let Deed::Stop(name) | Deed::Start(name) | Deed::Mount(name) = &deed {
            *self.own.entry(name.clone()).or_default() += took.unwrap_or_default();
        }
        self.acts.push(Act {
            at: self.now.since(self.began),
            deed,
            guessed: took.is_none(),
        });
    }

    fn later(&mut self, after: Duration, coming: Coming) {
        self.asked += 1;
        self.coming.insert((self.now + after, self.asked), coming);
    }
}

/// Health checks neither start nor stop anything in an update that goes well; READY comes when it came the last time.
fn unprobed(spec: &mut Arc<Container>) {
    if let Kind::Oci(oci) = &spec.kind
        && oci.health.is_some()
    {
        let spec = Arc::make_mut(spec);
        if let Kind::Oci(oci) = &mut spec.kind {
            oci.health = None;
        }
    }
}
