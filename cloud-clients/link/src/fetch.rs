//! From an offer to a revision on the device: get the manifest, ask for space, stream what is missing into the object store.
//!
//! Nothing is kept on a disk of ours: a manifest is held in memory, every other byte goes from the network into an upload of the
//! device, which hashes it and keeps the part when something breaks. Whatever is done here can be done again from the start at any
//! time: what is on the device already is found there. What comes of it is told to the deployment machine as events.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::Code as Refusal;
use bytes::Bytes;
use client::Error;
use model::progress::State;
use model::{Manifest, ObjectId, RevisionId};
use sha2::Digest as _;
use tokio::sync::{mpsc, watch};

use crate::backoff::Backoff;
use crate::clock;
use crate::config::Config;
use crate::deployment::{Code, Event, Fetched, Trouble};
use crate::device::Device;
use crate::limits;
use crate::offer::{Artifact, Hashes, Offer};
use crate::payload::{self, Form, Patch, Rules, plain};
use crate::web::Web;

mod budget;
mod bundle;
mod meter;
mod object;
mod reader;
#[cfg(test)]
mod tests;

pub use budget::{Budget, Spent};
pub use meter::Meter;
use reader::{Key, Reader};

/// How to fetch.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Connections for one artifact.
    pub parallel: usize,
    /// Attempts in a row that bring nothing before it is given up.
    pub attempts: u64,
    /// Bytes per second below which a connection counts as dead …
    pub min_rate: u64,
    /// … after this time.
    pub stall_timeout: Duration,
    /// Longest pause between two attempts.
    pub back_off_max: Duration,
    /// Short name of the client; part of the names of its revisions.
    pub client: &'static str,
    /// Rules for plain artifacts, from the settings.
    pub rules: Vec<String>,
}

impl Policy {
    /// From the settings.
    pub fn from_config(config: &Config) -> Self {
        Self {
            parallel: usize::try_from(config.number("parallel")).unwrap_or(1),
            attempts: config.number("fetch-attempts"),
            min_rate: config.number("min-rate"),
            stall_timeout: config.duration("stall-timeout"),
            back_off_max: config.duration("back-off-max"),
            client: config.client(),
            rules: config.list("map").map(str::to_owned).collect(),
        }
    }
}

/// What all parts of a download share. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Fetching {
    /// The door to the web.
    pub web: Web,
    /// How.
    pub policy: Arc<Policy>,
    /// Rate and budget, shared by all downloads of the client.
    pub meter: Meter,
    /// The offer with its newest links.
    pub offers: watch::Receiver<Arc<Offer>>,
    /// Told when links are dead; whoever holds the other end asks the cloud.
    pub stale: mpsc::Sender<()>,
    /// Bytes that have come over the network.
    pub taken: Arc<AtomicU64>,
}

impl Fetching {
    async fn take(&self, bytes: u64) {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        self.meter.took(bytes).await;
    }

    /// Asks for fresh links and waits until they have come, or for a while.
    async fn fresh_links(&self) {
        let mut offers = self.offers.clone();
        offers.mark_unchanged();
        // When it is full, somebody has asked already.
        self.stale.try_send(()).ok();
        // When nobody sends any more, this task is about to be ended.
        tokio::time::timeout(limits::LINKS_PATIENCE, offers.changed())
            .await
            .ok();
    }
}

/// Why fetching has ended before everything was there.
#[derive(Debug)]
enum Stop {
    /// In vain.
    Trouble(Trouble),
    /// There is nothing to do.
    RunsAlready {
        revision: RevisionId,
        manifest: ObjectId,
    },
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

/// Fetches a deployment; tells what comes of it. Ends early only when nobody listens any more.
pub async fn carry_out<D: Device>(
    device: D,
    fetching: Fetching,
    known: Option<RevisionId>,
    events: mpsc::Sender<Event>,
) {
    let mut worker = Worker {
        device,
        fetching,
        known,
        events: events.clone(),
        manifest: None,
        sizes: BTreeMap::new(),
        fetched: Fetched::default(),
    };
    let mut outcome = worker.fetch().await;
    if worker.has_made_room(&outcome).await {
        outcome = worker.fetch().await;
    }
    let event = match outcome {
        Ok(()) => Event::Fetched(worker.fetched),
        Err(Stop::RunsAlready { revision, manifest }) => Event::RunsAlready { revision, manifest },
        Err(Stop::Trouble(trouble)) => Event::Rejected(trouble),
    };
    // Nobody listens when the deployment was given up meanwhile.
    events.send(event).await.ok();
}

struct Worker<D> {
    device: D,
    fetching: Fetching,
    /// The revision that an earlier attempt has put on the device.
    known: Option<RevisionId>,
    events: mpsc::Sender<Event>,
    manifest: Option<Manifest>,
    /// Sizes of objects, as far as the cloud tells them.
    sizes: BTreeMap<ObjectId, u64>,
    fetched: Fetched,
}

impl<D: Device> Worker<D> {
    async fn fetch(&mut self) -> Result<(), Stop> {
        let offer = Arc::clone(&self.fetching.offers.borrow());
        let bad = |why: String| Trouble::new(Code::BadOffer, why);
        let given = offer.map.iter().chain(&self.fetching.policy.rules);
        let rules = Rules::parse(given.map(String::as_str)).map_err(bad)?;
        let form = Form::of(&offer, &rules).map_err(bad)?;
        let objects = payload::objects(&offer);
        self.sizes = objects
            .iter()
            .filter_map(|(object, place)| Some((*object, offer.artifacts[*place].bytes?)))
            .collect();
        match form {
            Form::Bundle { archive } => {
                let artifact = offer.artifacts[archive].clone();
                self.bundle(&offer, &artifact).await?;
            }
            Form::Separate { manifest } => {
                let bytes = self.small(&offer.artifacts[manifest]).await?;
                self.prepare(&offer, bytes.to_vec(), None).await?;
            }
            Form::Patch { patch } => {
                let bytes = self.small(&offer.artifacts[patch]).await?;
                let patch = Patch::parse(&bytes).map_err(|error| bad(error.to_string()))?;
                let base = self.running().await?;
                let merged = patch.merge(&base).map_err(|error| bad(error.to_string()))?;
                self.prepare(&offer, merged, Some(ObjectId::of(&base)))
                    .await?;
            }
            Form::Plain { files } => {
                let base = self.running().await?;
                let mut places = Vec::new();
                for (place, target) in files {
                    let artifact = &offer.artifacts[place];
                    let object = artifact.hashes.sha256.ok_or_else(|| {
                        bad(format!(
                            "the cloud tells no SHA-256 of artifact {:?}: a plain artifact needs one, a bundle does not",
                            artifact.name
                        ))
                    })?;
                    places.push((target, object));
                }
                let merged = plain::apply(&base, &places).map_err(bad)?;
                self.prepare(&offer, merged, Some(ObjectId::of(&base)))
                    .await?;
            }
        }
        self.missing(&offer, &objects).await
    }

    /// Whether there is room again where there was none: others write too while a download goes on, and what the device can do without
    /// goes when it is asked to. What has arrived stays.
    async fn has_made_room(&self, outcome: &Result<(), Stop>) -> bool {
        let Err(Stop::Trouble(trouble)) = outcome else {
            return false;
        };
        if trouble.code != Code::NoSpace {
            return false;
        }
        let collected = self.insist(|| self.device.collect()).await;
        collected.is_ok_and(|bytes| bytes > 0)
    }

    /// The manifest that runs.
    async fn running(&self) -> Result<Bytes, Trouble> {
        self.insist(|| self.device.manifest(None)).await
    }

    /// A small artifact, whole and verified.
    async fn small(&self, artifact: &Artifact) -> Result<Bytes, Trouble> {
        let max = model::limits::MANIFEST_BYTES_MAX as u64;
        let name = &artifact.name;
        let mut reader = Reader::new(self.fetching.clone(), Key::of(artifact));
        for _ in 0..limits::BAD_HASHES_MAX {
            let mut bytes = Vec::new();
            loop {
                match reader.next().await {
                    Ok(Some(piece)) => bytes.extend_from_slice(&piece),
                    Ok(None) => break,
                    Err(hindered) => reader.recover(hindered).await?,
                }
                if bytes.len() as u64 > max {
                    let why =
                        format!("artifact {name:?} is longer than the {max} bytes of a manifest");
                    return Err(Trouble::new(Code::BadManifest, why));
                }
            }
            let mut hasher = Hasher::new(&artifact.hashes);
            hasher.update(&bytes);
            if hasher.fits() {
                return Ok(bytes.into());
            }
            reader.distrust();
        }
        let why = format!("artifact {name:?} has another hash than the cloud says");
        Err(Trouble::new(Code::BadHash, why))
    }

    /// The manifest is known: is it good, is there space, and under which name does it go onto the device?
    async fn prepare(
        &mut self,
        offer: &Offer,
        bytes: Vec<u8>,
        base: Option<ObjectId>,
    ) -> Result<(), Stop> {
        let manifest = payload::parse_manifest(&bytes).map_err(|problems| {
            let why = format!("the manifest has {} problems", problems.len());
            Trouble::new(Code::BadManifest, why).with_details(problems)
        })?;
        let digest = manifest.digest();
        let status = self.insist(|| self.device.status()).await?;
        if status.manifest == Some(digest)
            && status.trial.is_none()
            && status.running == status.committed
            && let Some(revision) = status.running
        {
            return Err(Stop::RunsAlready {
                revision,
                manifest: digest,
            });
        }
        let bytes = Bytes::from(bytes);
        self.ask_for_space(&bytes).await?;
        let revision = self.name(digest, &bytes).await?;
        self.insist(|| self.device.put_manifest(&revision, bytes.clone()))
            .await?;
        if let Some(title) = &offer.title {
            let message = commit_message(title);
            if !message.is_empty() {
                self.insist(|| self.device.put_commit_message(&revision, &message))
                    .await?;
            }
        }
        self.known = Some(revision.clone());
        self.manifest = Some(manifest);
        let prepared = Event::Prepared {
            revision,
            manifest: digest,
            base,
        };
        self.events.send(prepared).await.ok();
        Ok(())
    }

    async fn ask_for_space(&mut self, manifest: &Bytes) -> Result<(), Trouble> {
        for collected in [false, true] {
            let mut plan = self
                .insist(|| self.device.plan_manifest(manifest.clone()))
                .await?;
            plan.know_sizes(&self.sizes);
            self.fetched = Fetched {
                bytes_total: plan.objects.fetch_bytes,
                objects_total: plan.objects.missing.len() as u64,
                ..Fetched::default()
            };
            if plan.space.enough != Some(false) {
                return Ok(());
            }
            let needed = plan.space.needed_bytes.unwrap_or_default();
            let available = plan.space.available_bytes;
            if collected {
                let why = format!(
                    "the device has no space: {needed} bytes are needed, {available} can be had"
                );
                return Err(Trouble::new(Code::NoSpace, why));
            }
            self.insist(|| self.device.collect()).await?;
        }
        Ok(())
    }

    /// A name that no other revision has: progress is of a name, and an earlier deployment's must not be taken for this one's.
    async fn name(&self, digest: ObjectId, bytes: &Bytes) -> Result<RevisionId, Trouble> {
        let client = self.fetching.policy.client;
        for number in 1..10_000 {
            let name = format!("locals/{client}-{}-{number}", digest.short());
            let name: RevisionId = name
                .parse()
                .map_err(|_| Trouble::new(Code::Other, format!("{name} can be no revision")))?;
            let progress = self
                .insist_or(|| self.device.progress(&name), Refusal::NoSuchRevision)
                .await?;
            let Some(progress) = progress else {
                return Ok(name);
            };
            if progress.status == State::New {
                let there = self
                    .insist_or(
                        || self.device.manifest(Some(&name)),
                        Refusal::NoSuchRevision,
                    )
                    .await?;
                if there.is_none_or(|there| there == *bytes) {
                    return Ok(name);
                }
            }
        }
        let why = "the device holds ten thousand revisions of this manifest".to_owned();
        Err(Trouble::new(Code::Other, why))
    }

    /// Fetches what the device lacks, until it lacks nothing.
    async fn missing(
        &mut self,
        offer: &Offer,
        objects: &BTreeMap<ObjectId, payload::Place>,
    ) -> Result<(), Stop> {
        let manifest = self.manifest.as_ref().expect("it was prepared");
        let bytes = Bytes::copy_from_slice(manifest.bytes());
        let mut failed_before: Option<ObjectId> = None;
        for _ in 0..limits::ROUNDS_MAX {
            let plan = self
                .insist(|| self.device.plan_manifest(bytes.clone()))
                .await?;
            if plan.objects.missing.is_empty() {
                return Ok(());
            }
            for missing in &plan.objects.missing {
                let object = missing.object;
                let Some(place) = objects.get(&object) else {
                    let why = format!(
                        "object {} ({}) is neither on the device nor in the deployment",
                        object.short(),
                        missing.key
                    );
                    return Err(Trouble::new(Code::MissingObject, why).into());
                };
                failed_before = Some(object);
                self.object(object, &offer.artifacts[*place]).await?;
            }
        }
        let object = failed_before.map(|object| object.short());
        let why = format!(
            "objects disappear from the device while they are fetched ({})",
            object.unwrap_or_default()
        );
        Err(Trouble::new(Code::Other, why).into())
    }

    fn tell_progress(&self) {
        // Only the newest counts, and the machine takes one now and then: when there is no room, this one is left out.
        self.events.try_send(Event::Progressed(self.fetched)).ok();
    }

    /// Calls the device until it answers; a refusal for good is trouble.
    async fn insist<T, F>(&self, call: impl Fn() -> F) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, Error>>,
    {
        insist(&call, self.fetching.policy.back_off_max).await
    }

    /// As [`Worker::insist`]; `None` for one refusal that is an answer.
    async fn insist_or<T, F>(
        &self,
        call: impl Fn() -> F,
        answer: Refusal,
    ) -> Result<Option<T>, Trouble>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let optional = || async {
            match call().await {
                Ok(value) => Ok(Some(value)),
                Err(error) if error.code() == Some(answer) => Ok(None),
                Err(error) => Err(error),
            }
        };
        insist(&optional, self.fetching.policy.back_off_max).await
    }
}

/// Calls the device until it answers.
pub(crate) async fn insist<T, F>(call: &impl Fn() -> F, pause_max: Duration) -> Result<T, Trouble>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut backoff = Backoff::new(pause_max.min(Duration::from_secs(60)));
    loop {
        let error = match call().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if !passes(&error) {
            return Err(trouble_of(&error));
        }
        let asked = error.refusal().and_then(|refusal| refusal.retry_after);
        let pause = backoff.failed(clock::random(), asked);
        tracing::debug!("{error}; again in {pause:?}");
        tokio::time::sleep(pause).await;
    }
}

/// Whether a call to the device may succeed later without anything being changed here.
pub(crate) fn passes(error: &Error) -> bool {
    let code = match error.code() {
        None => return error.is_transport() || error.refusal().is_some_and(|r| r.status >= 500),
        Some(code) => code,
    };
    matches!(
        code,
        Refusal::UpdateInProgress
            | Refusal::Busy
            | Refusal::ShuttingDown
            | Refusal::NotReady
            | Refusal::UploadBusy
            | Refusal::WrongOffset
            | Refusal::BodyIncomplete
            | Refusal::BodyTimeout
            | Refusal::UnknownCaller
    )
}

/// A refusal of the device in the words of a cloud client.
pub(crate) fn trouble_of(error: &Error) -> Trouble {
    let code = error.code();
    let sort = if code == Some(Refusal::NoSpace) || code == Some(Refusal::LimitReached) {
        Code::NoSpace
    } else if code == Some(Refusal::BadManifest) {
        Code::BadManifest
    } else if code == Some(Refusal::Claimed) {
        Code::Claimed
    } else if code == Some(Refusal::FailedBefore) {
        Code::FailedBefore
    } else if code == Some(Refusal::BadChecksum) {
        Code::BadHash
    } else {
        Code::NotAccepted
    };
    let Some(refusal) = error.refusal() else {
        return Trouble::new(sort, error.to_string());
    };
    let mut trouble = Trouble::new(sort, format!("the device refuses: {}", refusal.detail));
    if code == Some(Refusal::NotAllowed) {
        trouble = trouble.with_details(["the client's container needs the role mgmt"]);
    }
    let problems = refusal
        .problems
        .iter()
        .map(|problem| format!("{}: {}", problem.pointer, problem.detail));
    trouble.with_details(refusal.remedy.clone().into_iter().chain(problems))
}

/// A title as a commit message: cut at the limit, never empty when the title says something.
fn commit_message(title: &str) -> String {
    let mut message = String::new();
    for sign in title.chars().filter(|sign| !sign.is_control()) {
        if message.len() + sign.len_utf8() > model::limits::COMMIT_MESSAGE_BYTES_MAX {
            break;
        }
        message.push(sign);
    }
    message.trim().to_owned()
}

/// The strongest hash that the cloud tells, computed on the way.
enum Hasher {
    Sha256(sha2::Sha256, ObjectId),
    Sha1(sha1::Sha1, [u8; 20]),
    Md5(md5::Md5, [u8; 16]),
    None,
}

impl Hasher {
    fn new(hashes: &Hashes) -> Self {
        match (hashes.sha256, hashes.sha1, hashes.md5) {
            (Some(expected), _, _) => Self::Sha256(sha2::Sha256::new(), expected),
            (None, Some(expected), _) => Self::Sha1(sha1::Sha1::new(), expected),
            (None, None, Some(expected)) => Self::Md5(md5::Md5::new(), expected),
            (None, None, None) => Self::None,
        }
    }

    fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash, _) => hash.update(bytes),
            Self::Sha1(hash, _) => hash.update(bytes),
            Self::Md5(hash, _) => hash.update(bytes),
            Self::None => {}
        }
    }

    /// Whether what was hashed is what it should be; true when the cloud told no hash.
    fn fits(self) -> bool {
        match self {
            Self::Sha256(hash, expected) => hash.finalize()[..] == expected.digest()[..],
            Self::Sha1(hash, expected) => hash.finalize()[..] == expected,
            Self::Md5(hash, expected) => hash.finalize()[..] == expected,
            Self::None => true,
        }
    }
}
