//! Plans held against what then happens: pairs of revisions drawn from one number, planned, then really run.
//!
//! Nothing fails here: a plan tells of an update that goes well. What is compared is what the simulated machine did, not what the
//! loop says that it did: processes by their instance, objects on the disk, starts of the machine, the durable marker.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Duration;

use device::handle::{Action, Answer, Command, PlanOf, Request};
use device::plan::update::{Basis, Fate, Way};
use device::plan::{Measured, Planned};
use model::{Goal, ObjectId, RevisionId};

use crate::acts::{Act, Base, Life, quick_settings};
use crate::bugs::Bug;
use crate::choices::Choices;
use crate::disk::Spread;
use crate::machine::TrueTime;
use crate::power::Kind;
use crate::software::{Part, Revision};
use crate::world::World;

/// Names that containers of generated revisions have: those of group platform, then those of group app.
const NAMES: [&str; 6] = ["base", "net", "api", "db", "log", "web"];
const PLATFORM: usize = 2;
/// A time that rests on what was seen is at most this wrong: answers of the run time and steps of jobs take a little.
const TOLERANCE: Duration = Duration::from_millis(300);
/// Not reached by an update that goes well.
const LIMIT_MS: u64 = 10 * 60_000;

/// What was compared, for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compared {
    /// Pairs.
    pub pairs: u64,
    /// Updates that needed a restart of the machine.
    pub reboots: u64,
    /// Containers that went on.
    pub kept: u64,
    /// Containers that were restarted.
    pub restarted: u64,
    /// Containers that were started.
    pub started: u64,
    /// Containers that were stopped.
    pub stopped: u64,
    /// Objects that were collected.
    pub collected: u64,
    /// Revisions that were removed.
    pub removed: u64,
    /// Times of a commit that rested on what was seen.
    pub timed: u64,
    /// Rollbacks after the commit.
    pub rollbacks: u64,
}

impl std::ops::AddAssign for Compared {
    fn add_assign(&mut self, other: Self) {
        self.pairs += other.pairs;
        self.reboots += other.reboots;
        self.kept += other.kept;
        self.restarted += other.restarted;
        self.started += other.started;
        self.stopped += other.stopped;
        self.collected += other.collected;
        self.removed += other.removed;
        self.timed += other.timed;
        self.rollbacks += other.rollbacks;
    }
}

struct Drawn(Choices);

impl Drawn {
    fn below(&mut self, options: usize) -> usize {
        self.0.choose(options)
    }

    fn one_in(&mut self, options: usize) -> bool {
        self.0.one_in(options)
    }

    /// A container with this number of [`NAMES`].
    fn part(&mut self, number: usize) -> Part {
        let words = ["ready=100", "ready=300 start=200", "ready=40 stop=700"];
        // Versions of a container take the same time, so that what was seen of one can be held against the next.
        let mut part = Part::good(NAMES[number], self.version()).does(words[number % 3]);
        if number < PLATFORM {
            part.group = "platform";
        }
        self.settle(&mut part);
        part
    }

    fn version(&mut self) -> u32 {
        u32::try_from(self.below(40)).unwrap_or(0)
    }

    /// Draws what is applied to a container without restarting it.
    fn settle(&mut self, part: &mut Part) {
        part.goal = match self.below(6) {
            0 => Goal::Mounted,
            1 | 2 => Goal::Ready,
            _ => Goal::Started,
        };
        // Always or never, as by a check it is ready sooner than by its signal.
        part.probed = part.goal != Goal::Mounted && matches!(part.name, "net" | "web");
        part.recovery = [
            "",
            r#"{"policy":"no"}"#,
            r#"{"policy":"unless-stopped","stable_timeout":2}"#,
        ][self.below(3)];
    }

    /// Dependencies go to containers before, so they have no cycle and no later group.
    fn connect(&mut self, parts: &mut [Part]) {
        for number in 1..parts.len() {
            let before = self.below(number);
            parts[number].depends_on = self.one_in(3).then_some(parts[before].name);
        }
        if let Some(first) = parts.first_mut() {
            first.depends_on = None;
        }
    }

    fn parts(&mut self) -> Vec<Part> {
        let mut parts = Vec::new();
        for number in 0..NAMES.len() {
            if !self.one_in(3) {
                parts.push(self.part(number));
            }
        }
        if parts.is_empty() {
            parts.push(self.part(0));
        }
        self.connect(&mut parts);
        parts
    }

    /// The next revision: each container goes, stays, has other settings, or is another one; some are new.
    fn next(&mut self, before: &[Part]) -> Vec<Part> {
        let mut parts = Vec::new();
        for (number, name) in NAMES.iter().enumerate() {
            let known = before.iter().find(|part| part.name == *name);
            let part = match (known, self.below(8)) {
                (Some(_), 0) => None,
                (Some(known), 1..=3) => Some(known.clone()),
                (Some(known), 4 | 5) => {
                    let mut part = known.clone();
                    self.settle(&mut part);
                    Some(part)
                }
                (Some(_), _) | (None, 0 | 1) => Some(self.part(number)),
                (None, _) => None,
            };
            parts.extend(part);
        }
        if parts.is_empty() {
            parts.push(self.part(0));
        }
        self.connect(&mut parts);
        parts
    }
}

/// Plans one pair of revisions, runs it, and compares.
///
/// # Errors
/// What was announced and did not happen, with the log of the life when `logged`.
pub fn hold(seed: u64, logged: bool) -> Result<Compared, String> {
    let mut drawn = Drawn(Choices::seeded(seed));
    let boot_loader = [Kind::None, Kind::Once][drawn.below(2)];
    let mut board = 1;
    let mut parts = drawn.parts();
    let factory = Revision::of(&parts, board, true);
    let mut history = Vec::new();
    for _ in 0..2 + drawn.below(4) {
        parts = drawn.next(&parts);
        board += u32::from(drawn.one_in(4));
        history.push(Revision::of(&parts, board, true));
    }
    let mut settings = quick_settings();
    settings.keep_revisions = drawn.below(2);
    let life = Life {
        base: Base::factory(&factory),
        acts: Vec::new(),
        software: history.clone(),
        settings,
        boot_loader,
        spread: Spread::Ends,
        bug: Bug::None,
        from_start: false,
    };
    let choices = Rc::new(RefCell::new(Choices::seeded(seed ^ 1)));
    let mut world = life.world(&choices, logged);
    world.known.upload_lease = Duration::from_secs([1, 1, 600][drawn.below(3)]);
    let compared = live(&mut world, &mut drawn, &history);
    let violations = world.violations();
    if !violations.is_empty() {
        return Err(format!("seed {seed}: {violations:?}\n{}", world.log()));
    }
    compared.map_err(|error| format!("seed {seed}: {error}\n{}", world.log()))
}

fn live(
    world: &mut World,
    drawn: &mut Drawn,
    history: &[Rc<Revision>],
) -> Result<Compared, String> {
    let mut accepted = BTreeSet::new();
    world.ensure_started();
    world.run(world.machine.now() + 20_000, |_| false);
    let mut compared = Compared::default();
    for (number, software) in history.iter().enumerate() {
        let revision: RevisionId = format!("locals/r{number}").parse().expect("a valid name");
        let installed = drawn.one_in(2);
        let posted = PlanOf::Manifest(software.bytes.to_vec());
        if !installed {
            // What is posted is planned before anything of it is there.
            let planned = plan(world, posted)?;
            let missing = planned.1.objects.iter().filter(|it| it.bytes.is_none());
            let truth = software
                .objects
                .iter()
                .filter(|(object, _)| world.disk.live_file(&format!("objects/{object}")).is_none());
            same("missing objects", missing.count(), truth.count())?;
        }
        Act::Upload(Rc::clone(software)).perform(world, &mut accepted);
        Act::Put(revision.clone(), Rc::clone(software)).perform(world, &mut accepted);
        if drawn.one_in(4) {
            stop_one(world, drawn, &mut accepted);
        }
        Act::Wait(2000).perform(world, &mut accepted);
        compared += update(world, drawn, &revision)?;
    }
    Ok(compared)
}

/// A person stops a container.
fn stop_one(world: &mut World, drawn: &mut Drawn, accepted: &mut BTreeSet<RevisionId>) {
    let names: Vec<_> = world.runtime.alive().into_keys().collect();
    if names.is_empty() {
        return;
    }
    let container = names[drawn.below(names.len())].clone();
    let action = Action::Stop;
    Act::Ask(Request::Control { container, action }).perform(world, accepted);
}

fn plan(world: &mut World, of: PlanOf) -> Result<(Planned, Measured), String> {
    let id = world.ask(Request::Plan(of)).ok_or("nobody runs")?;
    let planned = match world.answer(id) {
        Some(Ok(Answer::Planned(planned))) => planned.as_ref().clone(),
        other => return Err(format!("a plan was answered with {other:?}")),
    };
    let store = world.store().ok_or("nobody runs")?;
    let measured = planned
        .measure(store)
        .map_err(|error| store::explain(&error))?;
    Ok((planned, measured))
}

/// Everything on the disk that a plan tells of.
struct Kept {
    objects: BTreeMap<ObjectId, u64>,
    revisions: BTreeSet<RevisionId>,
    starts: u64,
}

fn kept(world: &World) -> Result<Kept, String> {
    let store = world.store().ok_or("nobody runs")?;
    let (mut objects, mut revisions) = (BTreeMap::new(), BTreeSet::new());
    store
        .visit_objects(&mut |object, len| {
            objects.insert(object, len);
            ControlFlow::Continue(())
        })
        .map_err(|error| store::explain(&error))?;
    store
        .visit_revisions(&mut |entry| {
            revisions.insert(entry.revision);
            ControlFlow::Continue(())
        })
        .map_err(|error| store::explain(&error))?;
    Ok(Kept {
        objects,
        revisions,
        starts: world.counts().starts,
    })
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, planned: T, real: T) -> Result<(), String> {
    if planned == real {
        Ok(())
    } else {
        Err(format!("{what}: planned {planned:?}, and it was {real:?}"))
    }
}

fn update(world: &mut World, drawn: &mut Drawn, revision: &RevisionId) -> Result<Compared, String> {
    let (planned, measured) = plan(world, PlanOf::Revision(revision.clone()))?;
    let (before, alive) = (kept(world)?, world.runtime.alive());
    let began = world.machine.now();
    let committed_at = run(world, revision)?;
    let (after, lives) = (kept(world)?, world.runtime.alive());
    let mut compared = Compared {
        pairs: 1,
        ..Compared::default()
    };
    for fated in &planned.rehearsal.containers {
        let name = &fated.name;
        let fate = match (alive.get(name), lives.get(name)) {
            (Some(one), Some(other)) if one == other => Fate::Kept,
            (Some(_), Some(_)) => Fate::Restarted,
            (None, Some(_)) => Fate::Started,
            (Some(_), None) => Fate::Stopped,
            (None, None) => Fate::Down,
        };
        same(&format!("{name} ({:?})", fated.reason), fated.fate, fate)?;
        match fate {
            Fate::Kept => compared.kept += 1,
            Fate::Restarted => compared.restarted += 1,
            Fate::Started => compared.started += 1,
            Fate::Stopped => compared.stopped += 1,
            Fate::Down => {}
        }
    }
    let told: BTreeSet<_> = planned
        .rehearsal
        .containers
        .iter()
        .map(|it| &it.name)
        .collect();
    let all: BTreeSet<_> = alive.keys().chain(lives.keys()).collect();
    same("containers that are told of", all.is_subset(&told), true)?;
    let way = planned.rehearsal.way;
    compared.reboots = after.starts - before.starts;
    same("restarts", u64::from(way == Way::Reboot), compared.reboots)?;
    compare_room(&planned, &measured, &before, &after, &mut compared)?;
    compare_events(world, &measured)?;
    let marker = world.checkers.marker().ok_or("no marker")?.clone();
    same("committed", Some(revision), marker.committed.as_ref())?;
    let returns = planned.rehearsal.marker.previous.clone();
    compared.timed = u64::from(compare_time(&planned, committed_at - began)?);
    if drawn.one_in(4) && returns.is_some() {
        compared.rollbacks = 1;
        roll_back(world, returns.as_ref())?;
    }
    Ok(compared)
}

/// Runs a revision until it is committed and all is quiet; when it was committed.
fn run(world: &mut World, revision: &RevisionId) -> Result<TrueTime, String> {
    let act = Act::Run {
        revision: revision.clone(),
        again: false,
        by_reboot: false,
    };
    act.perform(world, &mut BTreeSet::new());
    let limit = world.machine.now() + LIMIT_MS;
    let committed = |world: &World| {
        let view = world.view();
        view.is_some_and(|view| view.trial.is_none() && view.committed.as_ref() == Some(revision))
    };
    world.run(limit, committed);
    let at = world.machine.now();
    world.run(limit, World::is_quiet);
    let progress = world.checkers.progress().get(revision);
    let status = progress.map(|progress| progress.status.clone());
    same("status", Some("DONE"), status.as_deref())?;
    Ok(at)
}

fn compare_room(
    planned: &Planned,
    measured: &Measured,
    before: &Kept,
    after: &Kept,
    compared: &mut Compared,
) -> Result<(), String> {
    let gone: BTreeMap<_, _> = before
        .objects
        .iter()
        .filter(|(object, _)| !after.objects.contains_key(*object))
        .collect();
    let objects = u64::try_from(gone.len()).unwrap_or(u64::MAX);
    same(
        "objects collected",
        measured.collectable.now.objects,
        objects,
    )?;
    same(
        "bytes of them",
        measured.collectable.now.bytes,
        gone.into_values().sum(),
    )?;
    let removed: BTreeSet<_> = before.revisions.difference(&after.revisions).collect();
    same(
        "revisions removed",
        planned.removed.iter().collect(),
        removed,
    )?;
    compared.collected = objects;
    compared.removed = u64::try_from(planned.removed.len()).unwrap_or(u64::MAX);
    Ok(())
}

/// The device says the same as the disk.
fn compare_events(world: &World, measured: &Measured) -> Result<(), String> {
    let happened = world.happened();
    let told = happened
        .iter()
        .rev()
        .find(|happened| happened.kind == "collected" && happened.message.ends_with("freed"));
    let expected = measured.collectable.now.bytes + measured.left;
    same(
        "bytes freed",
        Some(format!("{expected} bytes freed").as_str()),
        told.map(|happened| happened.message.as_str()),
    )
}

/// A time that was seen before comes again. Whether it was.
fn compare_time(planned: &Planned, took_ms: u64) -> Result<bool, String> {
    let rehearsal = &planned.rehearsal;
    let observed = rehearsal
        .goals_after
        .is_some_and(|goals| goals.basis == Basis::Observed);
    if !observed {
        return Ok(false);
    }
    let expected = rehearsal.committed_after.ok_or("no time of the commit")?;
    let took = Duration::from_millis(took_ms);
    if expected.abs_diff(took) > TOLERANCE {
        return Err(format!("committed after {took:?}, planned {expected:?}"));
    }
    Ok(true)
}

/// What is told of a rollback after the commit.
fn roll_back(world: &mut World, returns: Option<&RevisionId>) -> Result<(), String> {
    let command = Request::Command(Command::Rollback);
    Act::Ask(command).perform(world, &mut BTreeSet::new());
    let limit = world.machine.now() + LIMIT_MS;
    world.run(limit, |world| {
        let view = world.view();
        view.is_some_and(|view| view.running.as_ref() == returns && view.trial.is_none())
            && world.is_quiet()
    });
    let running = world.view().and_then(|view| view.running.clone());
    same("rollback returns to", returns, running.as_ref())
}
