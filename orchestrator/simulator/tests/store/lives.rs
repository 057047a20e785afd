//! Lives one operation in every way: to its end, with a disk operation that fails, with a power cut before every disk operation, and
//! after the reboot again with every second cut. After each reboot, and after a last cut when all is done, the storage is judged.
//!
//! What a life knows is [`Seen`]: what was answered must be there; what was asked for and not answered may be.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;

use model::claim::Kept;
use model::{Instant, ObjectId, RevisionId};
use simulator::choices::Choices;
use simulator::disk::{Contents, Disk as Sim, Plan, Spread};
use store::disk::{Disk as _, EntryKind};
use store::{Options, Store};

use crate::broken::{Broken, Bug, read_all};

pub(crate) type TestStore = Store<Broken>;

/// Outcomes of one cut beyond which not every combination is tried.
const OUTCOMES_MAX: usize = 64;

/// Something that is replaced as a whole; `None` is its absence.
#[derive(Debug, Clone, Default)]
pub(crate) struct Register {
    pub(crate) certain: Option<Vec<u8>>,
    pub(crate) attempted: Vec<Option<Vec<u8>>>,
}

/// What a client knows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Steps that were answered.
    pub(crate) done: BTreeSet<&'static str>,
    /// Objects whose upload was answered.
    pub(crate) objects: BTreeSet<ObjectId>,
    /// Objects that were corrupt from the beginning: they may be so until their upload is answered.
    pub(crate) rotten: BTreeSet<ObjectId>,
    /// Things with one value each, by the names that [`observe`] knows.
    pub(crate) registers: BTreeMap<String, Register>,
}

impl Seen {
    /// A change is asked for.
    pub(crate) fn attempt(&mut self, name: &str, value: Option<&[u8]>) {
        let register = self.registers.entry(name.to_owned()).or_default();
        register.attempted.push(value.map(<[u8]>::to_vec));
    }

    /// The change was answered.
    pub(crate) fn answered(&mut self, name: &str, value: Option<&[u8]>) {
        let register = self.registers.entry(name.to_owned()).or_default();
        register.certain = value.map(<[u8]>::to_vec);
        register.attempted.clear();
    }
}

/// One store operation, as a client sees it: tried until it is answered.
#[derive(Clone, Copy)]
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    /// What is there before; no faults.
    pub(crate) prepare: fn(&TestStore, &mut Seen),
    /// Makes the next attempt; whether all was answered. Called again after a reboot or an error.
    pub(crate) act: fn(&TestStore, &mut Seen) -> bool,
    pub(crate) options: fn() -> Options,
}

pub(crate) struct Found {
    pub(crate) what: String,
    /// How to get there: operations at which the power was cut or an operation failed, and the outcomes.
    pub(crate) path: String,
}

pub(crate) struct Explorer {
    pub(crate) operation: Operation,
    pub(crate) bug: Bug,
    pub(crate) runs: u64,
    /// What was judged and gone on from already. A boot knows nothing but the storage, so the same storage and the same client
    /// have the same future.
    known: HashSet<(u32, u64)>,
}

struct Run {
    contents: Contents,
    seen: Seen,
    operations: u64,
    is_cut: bool,
}

/// Long after the start, when nothing is leased because of it.
pub(crate) const LATER: Instant = Instant(10_000_000);

impl Explorer {
    pub(crate) fn new(operation: Operation, bug: Bug) -> Self {
        Self {
            operation,
            bug,
            runs: 0,
            known: HashSet::new(),
        }
    }

    /// Everything up to so many cuts.
    pub(crate) fn explore(&mut self, cuts: u32) -> Result<(), Found> {
        let disk = Sim::default();
        let mut seen = Seen::default();
        {
            let store = Store::open(
                Broken::new(disk.clone(), Bug::None),
                (self.operation.options)(),
                Instant(0),
            );
            assert_eq!(store.notices, [] as [&str; 0]);
            (self.operation.prepare)(&store.store, &mut seen);
        }
        disk.crash(Spread::Ends, &mut |_| 1);
        let contents = disk.contents();
        self.live(&contents, &seen, cuts, "")?;
        self.live_with_errors(&contents, &seen)
    }

    fn live(
        &mut self,
        contents: &Contents,
        seen: &Seen,
        cuts: u32,
        path: &str,
    ) -> Result<(), Found> {
        let whole = self.run(contents, seen, Plan::default(), path)?;
        self.judge_outcomes(&whole, 0, &format!("{path} end"), &mut |_, _, _, _| Ok(()))?;
        if cuts == 0 {
            return Ok(());
        }
        for number in 0..whole.operations {
            let plan = Plan {
                cut_at: Some(number),
                fail_at: None,
            };
            let run = self.run(contents, seen, plan, path)?;
            let path = format!("{path} cut {number}");
            self.judge_outcomes(&run, cuts, &path, &mut |this, contents, seen, path| {
                this.live(contents, seen, cuts - 1, path)
            })?;
        }
        Ok(())
    }

    fn live_with_errors(&mut self, contents: &Contents, seen: &Seen) -> Result<(), Found> {
        let whole = self.run(contents, seen, Plan::default(), "")?;
        for number in 0..whole.operations {
            let plan = Plan {
                cut_at: None,
                fail_at: Some(number),
            };
            let path = format!("fail {number}");
            let run = self.run(contents, seen, plan, &path)?;
            self.judge_outcomes(&run, 0, &path, &mut |_, _, _, _| Ok(()))?;
        }
        Ok(())
    }

    fn run(
        &mut self,
        contents: &Contents,
        seen: &Seen,
        plan: Plan,
        path: &str,
    ) -> Result<Run, Found> {
        self.runs += 1;
        let disk = Sim::with(contents.clone());
        disk.plan(plan);
        let mut seen = seen.clone();
        let broken = Broken::new(disk.clone(), self.bug);
        let store = Store::open(broken, (self.operation.options)(), Instant(0)).store;
        let mut attempts = 0;
        while !(self.operation.act)(&store, &mut seen) && !disk.is_cut() {
            attempts += 1;
            if attempts > 4 {
                return Err(Found {
                    what: "it is never answered".to_owned(),
                    path: path.to_owned(),
                });
            }
        }
        drop(store);
        Ok(Run {
            operations: disk.operations(),
            is_cut: disk.is_cut(),
            contents: disk.contents(),
            seen,
        })
    }

    /// Cuts the power (again, if it is not) and judges everything that may be left.
    #[allow(clippy::type_complexity)]
    fn judge_outcomes(
        &mut self,
        run: &Run,
        cuts: u32,
        path: &str,
        then: &mut dyn FnMut(&mut Self, &Contents, &Seen, &str) -> Result<(), Found>,
    ) -> Result<(), Found> {
        debug_assert!(!run.is_cut || path.contains("cut"));
        let spread = match count_outcomes(&run.contents) {
            0..=OUTCOMES_MAX => Spread::Every,
            _ => Spread::Single,
        };
        let mut choices = Choices::every();
        loop {
            let disk = Sim::with(run.contents.clone());
            disk.cut();
            disk.crash(spread, &mut |count| choices.choose(count));
            let mut seen = run.seen.clone();
            if self.known.insert((cuts, fingerprint(&disk, &seen))) {
                let path = format!("{path} [{choices}]");
                let contents = disk.contents();
                judge(&contents, &mut seen).map_err(|what| Found {
                    what,
                    path: path.clone(),
                })?;
                then(self, &contents, &seen, &path)?;
            }
            if !choices.advance() {
                return Ok(());
            }
        }
    }
}

/// A number for everything that a storage and a client know.
fn fingerprint(disk: &Sim, seen: &Seen) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut folders = vec![std::path::PathBuf::from(".")];
    while let Some(folder) = folders.pop() {
        for entry in disk.list(&folder).expect("it was listed just now") {
            let path = folder.join(&entry.name);
            path.hash(&mut hasher);
            match entry.kind {
                EntryKind::Dir => folders.push(path),
                EntryKind::File => disk.read(&path, usize::MAX).ok().hash(&mut hasher),
                EntryKind::Link => disk.read_link(&path).ok().hash(&mut hasher),
                EntryKind::Other => {}
            }
        }
    }
    format!("{seen:?}").hash(&mut hasher);
    hasher.finish()
}

fn count_outcomes(contents: &Contents) -> usize {
    let mut choices = Choices::every();
    let mut count = 0;
    loop {
        let disk = Sim::with(contents.clone());
        disk.crash(Spread::Every, &mut |of| choices.choose(of));
        count += 1;
        if count > OUTCOMES_MAX || !choices.advance() {
            return count;
        }
    }
}

/// Judges what a reboot finds. What it finds is certain from then on.
pub(crate) fn judge(contents: &Contents, seen: &mut Seen) -> Result<(), String> {
    let disk = Sim::with(contents.clone());
    for entry in list(&disk, "objects")? {
        if let Ok(object) = entry.parse::<ObjectId>() {
            let bytes = disk.read(&Path::new("objects").join(&entry), usize::MAX);
            let is_whole = bytes.is_ok_and(|bytes| ObjectId::of(&bytes) == object);
            if !is_whole && !seen.rotten.contains(&object) {
                return Err(format!("object {object} is not whole"));
            }
        }
    }
    let opened = Store::open(Broken::new(disk, Bug::None), Options::default(), Instant(0));
    let store = opened.store;
    for object in &seen.objects {
        let file = store.open_object(object).map_err(|e| e.to_string())?;
        let Some(mut file) = file else {
            return Err(format!("object {object} was answered and is not there"));
        };
        if read_all(&mut file).map(|bytes| ObjectId::of(&bytes)).ok() != Some(*object) {
            return Err(format!("object {object} was answered and is damaged"));
        }
    }
    judge_revisions(&store)?;
    for (name, register) in &mut seen.registers {
        let found = observe(&store, name)?;
        if found != register.certain && !register.attempted.contains(&found) {
            return Err(format!(
                "{name} is {:?}, not {:?} or one of {} attempts",
                found.as_deref().map(String::from_utf8_lossy),
                register.certain.as_deref().map(String::from_utf8_lossy),
                register.attempted.len()
            ));
        }
        register.certain = found;
        register.attempted.clear();
    }
    judge_marker(&store)
}

fn list(disk: &Sim, folder: &str) -> Result<Vec<String>, String> {
    match disk.list(Path::new(folder)) {
        Ok(entries) => Ok(entries.into_iter().map(|entry| entry.name).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error.to_string()),
    }
}

/// A revision that can be seen is whole.
fn judge_revisions(store: &TestStore) -> Result<(), String> {
    for revision in store.revisions().map_err(|e| e.to_string())? {
        let whole = store.read_manifest(&revision);
        whole.map_err(|error| format!("{revision} is there and not whole: {error}"))?;
        let progress = store.progress(&revision).map_err(|e| e.to_string())?;
        if progress.is_none() {
            return Err(format!("{revision} has no progress that can be read"));
        }
        if store.manifest_digest(&revision).ok().flatten().is_none() {
            return Err(format!("the digest of {revision} is lost"));
        }
    }
    Ok(())
}

/// The marker can be read, and names only what is there with all of its objects.
fn judge_marker(store: &TestStore) -> Result<(), String> {
    let read = store.read_marker().map_err(|error| error.to_string())?;
    for revision in read.marker.iter().flat_map(|marker| marker.revisions()) {
        let manifest = store.read_manifest(revision);
        let manifest = manifest.map_err(|error| format!("the marker names {revision}: {error}"))?;
        for object in objects_of(&manifest) {
            if !store.has_object(&object).map_err(|e| e.to_string())? {
                return Err(format!("the marker names {revision}, {object} is missing"));
            }
        }
    }
    Ok(())
}

/// Everything in a text that looks like an object; deliberately not the parser under test.
fn objects_of(manifest: &[u8]) -> Vec<ObjectId> {
    let text = String::from_utf8_lossy(manifest);
    text.split('"')
        .filter_map(|word| word.parse().ok())
        .collect()
}

/// The value that a name of [`Seen::registers`] stands for.
fn observe(store: &TestStore, name: &str) -> Result<Option<Vec<u8>>, String> {
    let (kind, rest) = name.split_once(':').unwrap_or((name, ""));
    let revision = || rest.parse::<RevisionId>().expect("tests use good names");
    let text = |error: &dyn std::error::Error| format!("{name}: {error}");
    match kind {
        "manifest" => match store.read_manifest(&revision()) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(store::RevisionError::Missing(_)) => Ok(None),
            Err(error) => Err(text(&error)),
        },
        "progress" => store.progress_bytes(&revision()).map_err(|e| text(&e)),
        "message" => {
            let entry = store.revision(&revision()).map_err(|e| text(&e))?;
            Ok(entry
                .map(|entry| entry.commit_message)
                .filter(|message| !message.is_empty()))
        }
        "done" => {
            let done = store.is_done(&revision()).map_err(|e| text(&e))?;
            Ok(done.then(Vec::new))
        }
        "current" => {
            let current = store.current().map_err(|e| text(&e))?;
            Ok(current.map(|current| current.as_str().into()))
        }
        "stopped" => {
            let stopped = store.stopped().map_err(|e| text(&e))?;
            let names: Vec<_> = stopped.iter().map(|name| name.as_str()).collect();
            Ok((!names.is_empty()).then(|| names.join(",").into_bytes()))
        }
        "claims" => {
            let (kept, notice) = store.claims().map_err(|e| text(&e))?;
            if let Some(notice) = notice {
                return Err(notice);
            }
            let ids: Vec<_> = kept
                .claims
                .iter()
                .map(|claim| claim.id.to_string())
                .collect();
            let text = format!("{}:{}", kept.next, ids.join(","));
            Ok((kept != Kept::default()).then(|| text.into_bytes()))
        }
        "meta" => {
            let map = store.load_meta(model::metadata::MetaKind::User);
            let map = map.map_err(|e| text(&e))?;
            if !map.notices.is_empty() {
                return Err(map.notices.join("; "));
            }
            let mut entries = map.entries.into_iter();
            Ok(entries
                .find(|(key, _)| key.as_str() == rest)
                .map(|(_, value)| value))
        }
        "marker" => {
            let read = store.read_marker().map_err(|e| text(&e))?;
            Ok(read
                .marker
                .and_then(|marker| marker.committed)
                .map(|committed| committed.as_str().into()))
        }
        "failure" => {
            let id = rest.parse().expect("tests use numbers");
            let failure = store.failure(id).map_err(|e| text(&e))?;
            Ok(failure.map(|failure| failure.message.into_bytes()))
        }
        other => panic!("no such register: {other}"),
    }
}
