//! What is done to a device in a life, and a life as a whole.
//!
//! Whoever asks behaves as a client does: a request whose answer was lost with the orchestrator is asked again, a bounded number of
//! times. Everything else happens once.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use device::Settings;
use device::handle::{Command, Request};
use model::progress::{Progress, State, message};
use model::{ObjectId, RevisionId};
use store::disk::{Disk as _, WriteFile as _};
use store::{Begun, HashedUpload, NewRevision, Options, Store};

use crate::bugs::Bug;
use crate::checkers::{Known, Violation};
use crate::choices::Choices;
use crate::disk::{Contents, Disk, Plan, Spread};
use crate::power::Kind;
use crate::software::Revision;
use crate::world::{Counts, Loss, Start, World};

/// A client asks so often before it gives up.
const ASKED_MAX: u32 = 4;
/// A client waits so long for an answer.
const ANSWER_LIMIT_MS: u64 = 60_000;
/// A client waits so long for a final progress.
const FINAL_LIMIT_MS: u64 = 10 * 60_000;

/// One thing that is done to a device.
#[derive(Debug, Clone)]
pub enum Act {
    /// Every object of this software is uploaded.
    Upload(Rc<Revision>),
    /// So many bytes of the object with this number are uploaded, then the client is gone.
    UploadPart(Rc<Revision>, usize, usize),
    /// It is installed under this name.
    Put(RevisionId, Rc<Revision>),
    /// It is to run.
    Run {
        /// Which.
        revision: RevisionId,
        /// Also when it failed before.
        again: bool,
        /// By a reboot.
        by_reboot: bool,
    },
    /// Anything else that can be asked.
    Ask(Request),
    /// Asked once, and not waited for.
    AskOnce(Request),
    /// Time passes.
    Wait(u64),
    /// Time passes until the progress of this revision is final.
    WaitFinal(RevisionId),
    /// The orchestrator is killed.
    Kill,
    /// The power is cut.
    Cut,
    /// The run time goes away (`false`) or comes back.
    Link(bool),
    /// The wall clock is so far ahead of true time from now on.
    Wall(i64),
    /// A durable object is changed (`true`) or lost, behind everybody's back.
    Damage(ObjectId, bool),
    /// A durable object is changed and has lost its seal: somebody has written it anew.
    Rewrite(ObjectId),
    /// A container has filled the disk: what is removed from now on is free again.
    Fill,
    /// The disk is full whatever is removed, or not any more.
    Full(bool),
    /// The disk is read-only, or not any more.
    ReadOnly(bool),
    /// This revision must run now, with all its containers.
    MustRun(RevisionId),
    /// The disk operation that comes after so many others fails once.
    Fail(u64),
    /// The run time begins or stops to lie.
    Lie(bool),
    /// The boot loader's variables cannot be written, or can again.
    BreakLoader(bool),
}

/// When the disk cuts the power by itself, counted in its operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cuts {
    /// Before the operation with this number from the first act on.
    pub first: Option<u64>,
    /// Before the operation with this number after the first cut.
    pub second: Option<u64>,
    /// Operation from the first act on that fails once.
    pub fail: Option<u64>,
    /// Kill the orchestrator after so many events.
    pub kill: Option<u64>,
    /// What a cut takes with it.
    pub loss: Loss,
}

/// What a life is made of.
#[derive(Debug, Clone)]
pub struct Life {
    /// What is on the disk at first.
    pub base: Base,
    /// What is done.
    pub acts: Vec<Act>,
    /// Software that the acts bring, beside what is on the disk.
    pub software: Vec<Rc<Revision>>,
    /// Settings of the loop.
    pub settings: Settings,
    /// The boot loader.
    pub boot_loader: Kind,
    /// How the outcome of each power cut is chosen.
    pub spread: Spread,
    /// A mistake that is made on purpose.
    pub bug: Bug,
    /// Whether cuts begin with the first start, not after it.
    pub from_start: bool,
}

/// A disk to start from, and what lies on it.
#[derive(Debug, Clone)]
pub struct Base {
    /// Everything on it.
    pub contents: Contents,
    /// Its revisions.
    pub revisions: Vec<(RevisionId, Rc<Revision>)>,
    /// What the boot loader starts first, when that is not revision 0.
    pub armed: Option<RevisionId>,
}

/// What came of a life.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What was counted.
    pub counts: Counts,
    /// What the checkers found.
    pub violations: Vec<Violation>,
    /// What happened, when it was logged.
    pub log: String,
    /// The revision to boot at the end.
    pub committed: Option<RevisionId>,
    /// Progress of each revision at the end.
    pub progress: BTreeMap<RevisionId, (String, String)>,
    /// Runs that were answered with success.
    pub accepted: BTreeSet<RevisionId>,
    /// Disk operations from the first act to the rest.
    pub operations: u64,
    /// Disk operations after the first cut.
    pub operations_after_cut: u64,
    /// The disk at the end.
    pub contents: Contents,
}

/// Settings under which a simulated trial is short.
pub fn quick_settings() -> Settings {
    Settings {
        commit_delay: Duration::from_secs(3),
        shutdown_limit: Duration::from_secs(10),
        goal_losses_max: 2,
        ..Settings::default()
    }
}

impl Base {
    /// A disk with nothing on it.
    pub fn empty() -> Self {
        Self {
            contents: Contents::default(),
            revisions: Vec::new(),
            armed: None,
        }
    }

    /// A disk as the factory makes it: revision 0 with its objects, never started.
    ///
    /// # Panics
    /// When the store does not take it.
    pub fn factory(software: &Rc<Revision>) -> Self {
        let disk = Disk::default();
        let now = model::Instant::ZERO;
        let store = Store::open(disk.clone(), Options::default(), now).store;
        for (object, bytes) in &software.objects {
            upload(&store, *object, bytes, now).expect("an empty disk takes it");
        }
        let revision = RevisionId::factory();
        let new = NewRevision {
            revision: &revision,
            manifest: &software.bytes,
            progress: &Progress::new(State::Done, message::FACTORY, 0),
            commit_message: None,
        };
        store.put_revision(new).expect("an empty disk takes it");
        drop(store);
        disk.crash(Spread::Ends, &mut |options| options - 1);
        Self {
            contents: disk.contents(),
            revisions: vec![(revision, Rc::clone(software))],
            armed: None,
        }
    }

    /// The same disk as Pantavisor leaves it when it restarts into `trial`, by which Coxswain comes.
    ///
    /// # Panics
    /// When the disk does not take it.
    pub fn left_by_pantavisor(&self, trial: &RevisionId, software: &Rc<Revision>) -> Self {
        let disk = Disk::with(self.contents.clone());
        let now = model::Instant::ZERO;
        let store = Store::open(disk.clone(), Options::default(), now).store;
        for (object, bytes) in &software.objects {
            upload(&store, *object, bytes, now).expect("it takes it");
        }
        let new = NewRevision {
            revision: trial,
            manifest: &software.bytes,
            progress: &Progress::new(State::InProgress, message::TRYING, 0),
            commit_message: None,
        };
        store.put_revision(new).expect("it takes it");
        drop(store);
        for folder in ["failures", "meta"] {
            disk.remove_dir_all(std::path::Path::new(folder))
                .expect("it is there");
        }
        for revision in ["0", trial.as_str()] {
            // Pantavisor does not keep it.
            disk.damage(&format!("trails/{revision}/.pvr/json.sha256"), None);
        }
        let variables = format!("pv_rev=0\0pv_try={trial}\0\0");
        let mut revisions = self.revisions.clone();
        revisions.push((trial.clone(), Rc::clone(software)));
        let base = Self {
            contents: disk.contents(),
            revisions,
            armed: Some(trial.clone()),
        };
        base.with_file("boot/uboot.txt", variables.as_bytes())
            .with_file("cache/usrmeta/place", b"cellar")
            .with_file("cache/devmeta/sysinfo", b"old")
            .with_file(crate::checkers::reset::VOLUME, b"written")
    }

    /// The same with one more file, as a container writes it into a volume.
    ///
    /// # Panics
    /// When the disk does not take it.
    pub fn with_file(&self, path: &str, bytes: &[u8]) -> Self {
        let disk = Disk::with(self.contents.clone());
        let path = std::path::Path::new(path);
        let folder = path.parent().expect("it lies in a folder");
        disk.create_dir_all(folder).expect("it takes it");
        let mut file = disk.create(path).expect("it takes it");
        file.append(bytes).expect("it takes it");
        disk.write_back();
        Self {
            contents: disk.contents(),
            revisions: self.revisions.clone(),
            armed: self.armed.clone(),
        }
    }

    /// The same after these acts, at rest.
    ///
    /// # Panics
    /// When a checker finds something on the way.
    pub fn after(&self, acts: Vec<Act>, brought: &[(RevisionId, Rc<Revision>)]) -> Self {
        let life = Life {
            base: self.clone(),
            acts,
            software: brought.iter().map(|(_, it)| Rc::clone(it)).collect(),
            settings: quick_settings(),
            boot_loader: Kind::None,
            spread: Spread::Ends,
            bug: Bug::None,
            from_start: false,
        };
        let choices = Rc::new(RefCell::new(Choices::replay(&[])));
        let outcome = life.live(&choices, Cuts::default(), true);
        assert!(
            outcome.violations.is_empty(),
            "{:#?}\n{}",
            outcome.violations,
            outcome.log
        );
        let disk = Disk::with(outcome.contents);
        disk.crash(Spread::Ends, &mut |options| options - 1);
        let mut revisions = self.revisions.clone();
        revisions.extend(brought.iter().cloned());
        Self {
            contents: disk.contents(),
            revisions,
            armed: None,
        }
    }
}

impl Life {
    /// Lives it: boot, acts, faults stop, rest.
    pub fn live(&self, choices: &Rc<RefCell<Choices>>, cuts: Cuts, logged: bool) -> Outcome {
        let mut world = self.world(choices, logged);
        if !self.from_start {
            world.ensure_started();
            world.run(world.machine.now() + 2000, |world| world.is_quiet());
        }
        world.disk.plan(Plan {
            cut_at: cuts.first,
            fail_at: cuts.fail,
        });
        world.set_loss(cuts.loss);
        world.kill_at_event = cuts.kill.map(|kill| world.counts().events + kill);
        world.second_cut = cuts.second;
        let before = world.disk.operations_ever();
        let mut accepted = BTreeSet::new();
        for act in &self.acts {
            act.perform(&mut world, &mut accepted);
        }
        world.come_to_rest();
        let outcome_of = |record: &crate::checkers::records::ProgressRecord| {
            (record.status.clone(), record.message.clone())
        };
        let progress = world.checkers.progress().iter();
        Outcome {
            violations: world.violations().to_vec(),
            log: world.log(),
            committed: world
                .checkers
                .marker()
                .and_then(|marker| marker.committed.clone()),
            progress: progress
                .map(|(revision, record)| (revision.clone(), outcome_of(record)))
                .collect(),
            accepted,
            operations: world.disk.operations_ever() - before,
            operations_after_cut: world
                .first_cut_operation
                .map_or(0, |at| world.disk.operations_ever() - at),
            counts: world.counts(),
            contents: world.disk.contents(),
        }
    }

    pub(crate) fn world(&self, choices: &Rc<RefCell<Choices>>, logged: bool) -> World {
        let mut known = Known {
            tries: self.settings.tries,
            exact_commit: self.settings.exact_commit,
            commit_delay: self.settings.commit_delay,
            upload_lease: Options::default().lease,
            ..Known::default()
        };
        let on_disk = self.base.revisions.iter().map(|(_, software)| software);
        for software in on_disk.chain(&self.software) {
            known.software.insert(software.digest, Rc::clone(software));
        }
        let start = Start {
            contents: self.base.contents.clone(),
            settings: self.settings.clone(),
            boot_loader: self.boot_loader,
            spread: self.spread,
            bug: self.bug,
            logged,
        };
        let mut world = World::new(start, known, Rc::clone(choices));
        for (revision, _) in &self.base.revisions {
            world.checkers.knows(revision);
        }
        if world.loader.is_present() {
            world.loader.is_set_to(&RevisionId::factory());
            if let Some(armed) = &self.base.armed {
                world.loader.has_started(armed);
            }
        }
        world
    }
}

impl Act {
    pub(crate) fn perform(&self, world: &mut World, accepted: &mut BTreeSet<RevisionId>) {
        world.machine.note(|| format!("act: {}", self.in_short()));
        match self {
            Self::Upload(software) => {
                for (object, bytes) in &software.objects {
                    upload_as_client(world, *object, bytes);
                }
            }
            Self::UploadPart(software, number, len) => {
                let (object, bytes) = &software.objects[*number % software.objects.len()];
                upload_part(world, *object, &bytes[..(*len).min(bytes.len())]);
            }
            Self::Put(revision, software) => {
                let request = Request::PutRevision {
                    revision: revision.clone(),
                    manifest: software.bytes.to_vec(),
                };
                ask_as_client(world, &request);
            }
            Self::Run {
                revision,
                again,
                by_reboot,
            } => {
                let (revision, again) = (revision.clone(), *again);
                let name = revision.clone();
                let command = if *by_reboot {
                    Command::RunCommit { revision, again }
                } else {
                    Command::Run { revision, again }
                };
                if ask_as_client(world, &Request::Command(command)) {
                    accepted.insert(name);
                }
            }
            Self::Ask(request) => {
                ask_as_client(world, request);
            }
            Self::AskOnce(request) => {
                world.ask(request.clone());
            }
            Self::Wait(time) => world.run(world.machine.now() + time, |_| false),
            Self::WaitFinal(revision) => {
                world.run(world.machine.now() + FINAL_LIMIT_MS, |world| {
                    let progress = world.checkers.progress().get(revision);
                    progress.is_some_and(|progress| progress.is_final() || !progress.exists())
                        && world.is_quiet()
                });
            }
            Self::Kill => world.kill(),
            Self::Cut => world.cut(),
            Self::Link(connected) => world.runtime.set_link(*connected),
            Self::Wall(offset) => world.machine.set_wall_offset(*offset),
            Self::Damage(object, changed) => damage(world, object, *changed),
            Self::Rewrite(object) => {
                world.disk.unseal(&format!("objects/{object}"));
                damage(world, object, true);
            }
            Self::Fill => world.disk.fill(),
            Self::Full(full) => world.disk.set_full(*full),
            Self::ReadOnly(read_only) => world.disk.set_read_only_mount(*read_only),
            Self::MustRun(revision) => world.must_run(revision),
            Self::Fail(after) => world.disk.plan(Plan {
                cut_at: None,
                fail_at: Some(*after),
            }),
            Self::Lie(lies) => world.runtime.set_lies(*lies),
            Self::BreakLoader(broken) => world.loader.set_broken(*broken),
        }
    }

    fn in_short(&self) -> String {
        match self {
            Self::Upload(software) => format!("upload objects of {}", software.digest.short()),
            Self::UploadPart(software, number, len) => {
                format!(
                    "upload {len} bytes of object {number} of {}",
                    software.digest.short()
                )
            }
            Self::Put(revision, software) => {
                format!("put {revision} ({})", software.digest.short())
            }
            Self::Ask(request) | Self::AskOnce(request) => format!("ask {request:?}"),
            Self::Run { .. }
            | Self::Wait(_)
            | Self::WaitFinal(_)
            | Self::Kill
            | Self::Cut
            | Self::Link(_)
            | Self::Wall(_)
            | Self::Damage(..)
            | Self::Fill
            | Self::Full(_)
            | Self::ReadOnly(_)
            | Self::MustRun(_)
            | Self::Fail(_)
            | Self::Lie(_)
            | Self::BreakLoader(_)
            | Self::Rewrite(_) => format!("{self:?}"),
        }
    }
}

/// Asks until there is an answer. Whether it was a good one.
fn ask_as_client(world: &mut World, request: &Request) -> bool {
    for _ in 0..ASKED_MAX {
        let Some(id) = world.ask(request.clone()) else {
            continue;
        };
        let lost = world.losses();
        world.run(world.machine.now() + ANSWER_LIMIT_MS, |world| {
            world.answer(id).is_some() || world.losses() != lost
        });
        if let Some(answer) = world.answer(id) {
            return answer.is_ok();
        }
    }
    false
}

fn upload_as_client(world: &mut World, object: ObjectId, bytes: &Arc<[u8]>) {
    for _ in 0..ASKED_MAX {
        if !world.ensure_started() {
            continue;
        }
        let now = world.device_now();
        let Some(store) = world.store().cloned() else {
            continue;
        };
        let result = upload(&store, object, bytes, now);
        world
            .machine
            .note(|| format!("upload of {}: {result:?}", object.short()));
        drop(store);
        if result.is_ok() {
            world.known.damaged.remove(&object);
            world.with_checkers(|checkers, moment| checkers.uploaded(moment, &object));
        }
        world.after_event();
        if result.is_ok() {
            return;
        }
    }
}

fn upload(
    store: &Store<Disk>,
    object: ObjectId,
    bytes: &[u8],
    now: model::Instant,
) -> Result<(), String> {
    let explain = |error: &store::UploadError| store::explain(error);
    let size = Some(bytes.len() as u64);
    let incoming = match store.begin_upload(object, size, now) {
        Ok(Begun::Exists) => return Ok(()),
        Ok(Begun::Upload(incoming)) => incoming,
        Err(error) => return Err(explain(&error)),
    };
    let mut upload = HashedUpload::new(incoming).map_err(|error| store::explain(&error))?;
    let (head, tail) = bytes.split_at(bytes.len() / 2);
    for chunk in [head, tail] {
        upload.append(chunk).map_err(|error| explain(&error))?;
    }
    upload.finish(now).map_err(|error| explain(&error))
}

fn upload_part(world: &mut World, object: ObjectId, bytes: &[u8]) {
    let now = world.device_now();
    if let Some(store) = world.store().cloned()
        && let Ok(Begun::Upload(incoming)) = store.begin_upload(object, None, now)
        && let Ok(mut upload) = HashedUpload::new(incoming)
    {
        // A client that goes away in the middle: what came stays as a part.
        drop(upload.append(bytes));
    }
    world.after_event();
}

fn damage(world: &mut World, object: &ObjectId, changed: bool) {
    let path = format!("objects/{object}");
    let bytes = changed.then_some(&b"not what it was"[..]);
    if world.disk.damage(&path, bytes) {
        world.known.damaged.insert(*object);
        world.known.ever_damaged.insert(*object);
    }
}
