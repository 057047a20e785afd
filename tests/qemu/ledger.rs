//! What a device was asked for and what it answered, kept outside of it: the lines of `inside drive`, each with its place in time.
//!
//! What was answered at a place must be on the disk from there on. What was asked may be there: a line is written before the request
//! is sent, so nothing can be on the disk that was never asked for. Nothing here knows how the store works.

use std::collections::BTreeMap;

use acceptance::image::sha256;

/// A place in time: entries of a recording that had happened.
pub(crate) type Place = usize;

/// A device leases each object for 10 s after its upload; ten are not waited for, as a clock may be read late.
const LEASE_MS: u64 = 8_000;
/// A line may be written down this much later than what its request did to the disk.
const LATE: Place = 200;

/// The device's clock: which session, and milliseconds in it.
type Time = (u64, u64);

/// Something asked for, and whether it was answered well.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Promise {
    kept_from: Option<Place>,
}

impl Promise {
    /// Whether it had been answered.
    pub(crate) fn holds(&self, at: Place) -> bool {
        self.kept_from.is_some_and(|from| from <= at)
    }
}

/// Bytes that were uploaded under their hash.
#[derive(Debug)]
pub(crate) struct Object {
    /// What they are.
    pub(crate) bytes: Vec<u8>,
    /// When it was answered.
    answered: Vec<(Place, Time)>,
}

/// A revision that was put.
#[derive(Debug)]
pub(crate) struct Revision {
    /// Its number in the loop; 0 is the factory's.
    pub(crate) number: u64,
    /// Whether it was made to fail.
    pub(crate) sick: bool,
    /// Its manifest.
    pub(crate) manifest: Vec<u8>,
    /// Hash of that.
    pub(crate) digest: String,
    /// Objects that it names.
    pub(crate) objects: Vec<String>,
    put: Promise,
    run: Option<Promise>,
    dropped: Option<Promise>,
    message: Option<Promise>,
    told: Vec<(Place, String)>,
}

/// A value that was set or removed.
#[derive(Debug)]
struct Change {
    value: Option<Vec<u8>>,
    promise: Promise,
}

/// A claim that was given.
#[derive(Debug)]
struct Claim {
    promise: Promise,
    ended: Option<Place>,
}

/// What waits for its answer.
#[derive(Debug, Clone)]
enum Asked {
    Object(String),
    Step(String),
    Message(String),
    Run(String),
    Drop(String),
    Value(String, usize),
    NoValue(String, usize),
    Claim,
    /// Nothing has to be remembered.
    Other,
}

impl Asked {
    fn removes(&self) -> bool {
        matches!(self, Self::Drop(_) | Self::NoValue(..))
    }
}

/// All that is known.
#[derive(Debug)]
pub(crate) struct Ledger {
    template: String,
    images: BTreeMap<String, Vec<u8>>,
    objects: BTreeMap<String, Object>,
    revisions: BTreeMap<String, Revision>,
    values: BTreeMap<String, Vec<Change>>,
    claims: BTreeMap<u64, Claim>,
    /// The clock as it was told.
    clock: Vec<(Place, Time)>,
    committed: Vec<(Place, String)>,
    starts: Vec<Place>,
    waiting: BTreeMap<u64, (Place, Asked)>,
    /// Requests that were refused, with the answer.
    pub(crate) refused: Vec<String>,
    /// What was told although something else had been told before.
    pub(crate) contradictions: Vec<String>,
}

/// How far a revision is.
pub(crate) fn rank(status: &str) -> Option<u8> {
    let order = [
        "NEW",
        "QUEUED",
        "DOWNLOADING",
        "INPROGRESS",
        "TESTING",
        "UPDATED",
    ];
    match order.iter().position(|known| *known == status) {
        Some(place) => u8::try_from(place).ok(),
        None => ["DONE", "ERROR", "WONTGO"].contains(&status).then_some(6),
    }
}

/// The bytes of a seed and a length, as `inside drive` makes them.
pub(crate) fn content(seed: u64, length: u64) -> Vec<u8> {
    let lines = length.div_ceil(26);
    let lines = (0..lines).map(|line| format!("{seed:016x} {line:08}\n"));
    let mut bytes = lines.collect::<String>().into_bytes();
    bytes.truncate(usize::try_from(length).expect("objects are small"));
    bytes
}

impl Ledger {
    /// Knows the manifest's template and the images that every revision names.
    pub(crate) fn new(template: &str, images: BTreeMap<String, Vec<u8>>) -> Self {
        Self {
            template: template.to_owned(),
            images,
            objects: BTreeMap::new(),
            revisions: BTreeMap::new(),
            values: BTreeMap::new(),
            claims: BTreeMap::new(),
            clock: Vec::new(),
            committed: Vec::new(),
            starts: Vec::new(),
            waiting: BTreeMap::new(),
            refused: Vec::new(),
            contradictions: Vec::new(),
        }
    }

    /// A revision that the disk has from the beginning, with the images and an object of its own.
    pub(crate) fn factory(&mut self, manifest: &str, name: &str, bytes: Vec<u8>) {
        let promise = Promise { kept_from: Some(0) };
        let mut objects = self.images.clone();
        objects.insert(name.to_owned(), bytes);
        let names = objects.keys().cloned().collect();
        for (name, bytes) in objects {
            let answered = Vec::new();
            self.objects.insert(name, Object { bytes, answered });
        }
        let revision = Revision {
            number: 0,
            sick: false,
            manifest: manifest.as_bytes().to_vec(),
            digest: sha256(manifest.as_bytes()),
            objects: names,
            put: promise,
            run: Some(promise),
            dropped: None,
            message: None,
            told: Vec::new(),
        };
        self.revisions.insert("0".to_owned(), revision);
    }

    /// Writes a line down.
    ///
    /// # Panics
    /// When it is none of the protocol's.
    pub(crate) fn told(&mut self, place: Place, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["@a", id, millis, ref asked @ ..] => {
                self.tick(place, id, millis);
                let asked = self.asked(place, asked);
                self.waiting.insert(number(id), (place, asked));
            }
            ["@d", id, millis, status, ref rest @ ..] => {
                self.tick(place, id, millis);
                let waiting = self.waiting.remove(&number(id));
                let (_, asked) = waiting.expect("an answer follows a question");
                // What is not there need not be removed.
                if status.starts_with('2') || (status == "404" && asked.removes()) {
                    self.answered(place, asked, rest.first().copied().unwrap_or_default());
                } else {
                    self.refused.push(format!("{asked:?}: {line}"));
                }
            }
            ["@s", revision, status] => {
                self.progress(place, revision, status);
                if status == "DONE" {
                    self.committed.push((place, revision.to_owned()));
                }
            }
            // Seen as the revision to boot.
            ["@c", revision] => self.committed.push((place, revision.to_owned())),
            // The machine was switched on.
            ["@b"] => self.starts.push(place),
            ["@over"] => {}
            _ => panic!("{line:?} is no line of the ledger"),
        }
    }

    /// Numbers of a session's requests have its number in front.
    fn tick(&mut self, place: Place, id: &str, millis: &str) {
        let time = (number(id) / 100_000, number(millis));
        self.clock.push((place, time));
    }

    fn asked(&mut self, place: Place, words: &[&str]) -> Asked {
        let promise = Promise { kept_from: None };
        match *words {
            ["image", name] => {
                let bytes = self.images.get(name).expect("an image of ours").clone();
                self.object(name, bytes)
            }
            ["object", name, seed, length] => {
                let bytes = content(number(seed), number(length));
                assert_eq!(sha256(&bytes), name, "both sides make the same bytes");
                self.object(name, bytes)
            }
            ["part", _] => Asked::Other,
            ["step", name, count, blob, kind] => {
                let sick = kind == "sick";
                let program = ["/bin/service", "/bin/false"][usize::from(sick)];
                let manifest = self
                    .template
                    .replace("@PROGRAM@", program)
                    .replace("@NUMBER@", &(100_000 + number(count)).to_string())
                    .replace("@BLOB@", blob);
                let mut objects: Vec<String> = self.images.keys().cloned().collect();
                objects.push(blob.to_owned());
                let revision = Revision {
                    number: number(count),
                    sick,
                    digest: sha256(manifest.as_bytes()),
                    manifest: manifest.into_bytes(),
                    objects,
                    put: promise,
                    run: None,
                    dropped: None,
                    message: None,
                    told: Vec::new(),
                };
                self.revisions.insert(name.to_owned(), revision);
                Asked::Step(name.to_owned())
            }
            ["message", name] => {
                self.of(name).message = Some(promise);
                Asked::Message(name.to_owned())
            }
            ["run", name] => {
                self.of(name).run = Some(promise);
                Asked::Run(name.to_owned())
            }
            ["drop", name] => {
                self.of(name).dropped = Some(promise);
                Asked::Drop(name.to_owned())
            }
            ["meta", key, seed, length] => {
                let value = content(number(seed), number(length));
                self.value(key, Some(value), promise)
            }
            ["unmeta", key] => self.value(key, None, promise),
            ["claim"] => Asked::Claim,
            ["unclaim", id] => {
                if let Some(claim) = self.claims.get_mut(&number(id)) {
                    claim.ended = Some(place);
                }
                Asked::Other
            }
            ["gc"] => Asked::Other,
            _ => panic!("{words:?} is nothing to ask for"),
        }
    }

    fn object(&mut self, name: &str, bytes: Vec<u8>) -> Asked {
        let known = self.objects.entry(name.to_owned());
        known.or_insert_with(|| Object {
            bytes,
            answered: Vec::new(),
        });
        Asked::Object(name.to_owned())
    }

    fn value(&mut self, key: &str, value: Option<Vec<u8>>, promise: Promise) -> Asked {
        let changes = self.values.entry(key.to_owned()).or_default();
        let (key, index) = (key.to_owned(), changes.len());
        let asked = match value {
            Some(_) => Asked::Value(key, index),
            None => Asked::NoValue(key, index),
        };
        changes.push(Change { value, promise });
        asked
    }

    fn answered(&mut self, place: Place, asked: Asked, word: &str) {
        let kept = |promise: Option<&mut Promise>| {
            promise.expect("it was asked for").kept_from = Some(place);
        };
        match asked {
            Asked::Object(name) => {
                let object = self.objects.get_mut(&name).expect("it was asked for");
                let now = self.clock.last().expect("each line has the time");
                object.answered.push((place, now.1));
            }
            Asked::Step(name) => kept(Some(&mut self.of(&name).put)),
            Asked::Message(name) => kept(self.of(&name).message.as_mut()),
            Asked::Run(name) => kept(self.of(&name).run.as_mut()),
            Asked::Drop(name) => kept(self.of(&name).dropped.as_mut()),
            Asked::Value(key, index) | Asked::NoValue(key, index) => {
                let changes = self.values.get_mut(&key).expect("it was asked for");
                kept(changes.get_mut(index).map(|change| &mut change.promise));
            }
            Asked::Claim => {
                let promise = Promise {
                    kept_from: Some(place),
                };
                let claim = Claim {
                    promise,
                    ended: None,
                };
                self.claims.insert(number(word), claim);
            }
            Asked::Other => {}
        }
    }

    /// A progress was seen.
    fn progress(&mut self, place: Place, revision: &str, status: &str) {
        let found = rank(status).unwrap_or_else(|| panic!("{status:?} is no status"));
        let known = self.of(revision);
        if let Some((_, before)) = known.told.last()
            && before != status
            && rank(before).is_some_and(|before| before == 6 || before > found)
        {
            let line = format!("{revision} was told to be {before}, later {status}");
            self.contradictions.push(line);
            return;
        }
        known.told.push((place, status.to_owned()));
    }

    fn of(&mut self, revision: &str) -> &mut Revision {
        let found = self.revisions.get_mut(revision);
        found.unwrap_or_else(|| panic!("{revision} was never put"))
    }

    /// A revision of this name.
    pub(crate) fn revision(&self, name: &str) -> Option<&Revision> {
        self.revisions.get(name)
    }

    /// An object of this name.
    pub(crate) fn known_object(&self, name: &str) -> Option<&Object> {
        self.objects.get(name)
    }

    /// Number of the last revision that was put.
    pub(crate) fn newest(&self) -> u64 {
        let numbers = self.revisions.values().map(|revision| revision.number);
        numbers.max().unwrap_or(0)
    }

    /// How many answers were promises.
    pub(crate) fn promises(&self) -> usize {
        let end = Place::MAX;
        let objects = self.objects.values().map(|object| object.answered.len());
        let values = self.values.values().flatten().map(|change| &change.promise);
        let revisions = self.revisions.values().flat_map(|one| {
            let others = [&one.run, &one.dropped, &one.message];
            std::iter::once(&one.put).chain(others.into_iter().flatten())
        });
        let claims = self.claims.values().map(|claim| &claim.promise);
        let others = values.chain(revisions).chain(claims);
        objects.sum::<usize>() + others.filter(|promise| promise.holds(end)).count()
    }

    /// The clock at a place is not later than what is told next; after a cut a machine has another clock.
    fn now(&self, at: Place) -> Option<Time> {
        let next = self.clock.partition_point(|(place, _)| *place < at);
        self.clock.get(next).map(|(_, time)| *time)
    }

    /// Objects that must be there: those with a lease. What revisions need is asked for with them.
    pub(crate) fn objects_due(&self, at: Place) -> impl Iterator<Item = &String> {
        let now = self.now(at);
        self.objects.iter().filter_map(move |(name, object)| {
            let (session, millis) = now?;
            let mut held = object.answered.iter();
            held.any(|(from, time)| *from <= at && time.0 == session && millis <= time.1 + LEASE_MS)
                .then_some(name)
        })
    }

    /// Revisions that must be there, whole: the factory's, the one to boot, and the one that was put last and is not through. Others may
    /// have been collected.
    pub(crate) fn revisions_due(&self, at: Place) -> impl Iterator<Item = (&String, &Revision)> {
        let committed = self.committed(at).map(|(name, _)| name);
        let put = self
            .revisions
            .iter()
            .filter(move |(_, revision)| revision.put.holds(at));
        let newest = put.clone().map(|(_, revision)| revision.number).max();
        put.filter(move |(name, revision)| {
            let told = revision.told(at).and_then(rank);
            let under_way = Some(revision.number) == newest && told < Some(6);
            revision.number == 0 || committed == Some(*name) || under_way
        })
    }

    /// Revisions that were told to have failed.
    pub(crate) fn failed(&self, at: Place) -> impl Iterator<Item = &String> {
        let failed = self.revisions.iter();
        let failed = failed.filter(move |(_, revision)| revision.told(at) == Some("ERROR"));
        failed.map(|(name, _)| name)
    }

    /// The newest revision that was told to be done, or to be the one to boot: the one to boot is not older.
    pub(crate) fn committed(&self, at: Place) -> Option<(&String, &Revision)> {
        let told = self.committed.iter().filter(|(place, _)| *place <= at);
        let told = told.filter_map(|(_, name)| self.revisions.get_key_value(name));
        told.max_by_key(|(_, revision)| revision.number)
    }

    /// Whether there must be something to boot.
    pub(crate) fn must_boot(&self, at: Place) -> bool {
        self.revisions.contains_key("0") || self.committed(at).is_some()
    }

    /// Keys of metadata with the values that each may have: the last one that was answered, and what was asked for since.
    pub(crate) fn values_due(&self, at: Place) -> BTreeMap<&str, Vec<Option<&[u8]>>> {
        let of = |changes: &'_ [Change]| changes.iter().rposition(|one| one.promise.holds(at));
        let due = self.values.iter().map(|(key, changes)| {
            let last = of(changes);
            let since = &changes[last.unwrap_or(0)..];
            let mut values: Vec<Option<&[u8]>> =
                since.iter().map(|one| one.value.as_deref()).collect();
            if last.is_none() {
                values.push(None);
            }
            (key.as_str(), values)
        });
        due.collect()
    }

    /// Claims that must be there: a claim that nobody renews holds over one start and not over two. `more` starts have been made since.
    pub(crate) fn claims_due(&self, at: Place, more: usize) -> impl Iterator<Item = u64> {
        let due = self.claims.iter().filter(move |(_, claim)| {
            let from = claim.promise.kept_from.unwrap_or(0);
            let starts = self
                .starts
                .iter()
                .filter(|start| (from..=at).contains(start));
            if starts.count() + more > 1 {
                return false;
            }
            let ended = claim
                .ended
                .is_some_and(|ended| ended <= at.saturating_add(LATE));
            claim.promise.holds(at) && !ended
        });
        due.map(|(id, _)| *id)
    }
}

impl Revision {
    /// The furthest that was told.
    pub(crate) fn told(&self, at: Place) -> Option<&str> {
        let mut told = self.told.iter().filter(|(place, _)| *place <= at);
        told.next_back().map(|(_, status)| status.as_str())
    }

    /// Whether it may have been asked to run.
    pub(crate) fn may_run(&self) -> bool {
        self.run.is_some()
    }

    /// Whether its message was answered.
    pub(crate) fn has_message(&self, at: Place) -> bool {
        self.message
            .as_ref()
            .is_some_and(|promise| promise.holds(at))
    }
}

fn number(word: &str) -> u64 {
    word.parse()
        .unwrap_or_else(|_| panic!("{word:?} is no number"))
}
