//! The loop that joins a cloud, the deployment machine, downloads and the device.
//!
//! One task decides; a download is a second one. Whatever the machine wants done is done in its order, and nothing behind a `Save`
//! before the record is durable. The loop may be dropped, or the process killed, at any point: it goes on from the record. Who is
//! offline polls with growing pauses; what is under way on the device goes on without the cloud, and its reports wait.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use model::RevisionId;
use model::metadata::MetaKind;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::clock;
use crate::cloud::{Cloud, CloudError, News, Situation, Why};
use crate::config::{Config, ConfigError};
use crate::deployment::{Asking, Code, Effect, Event, Machine, Phase, Trouble};
use crate::device::{Device, Happened};
use crate::fetch::{Budget, Fetching, Meter, Policy, carry_out};
use crate::keep::{Keep, KeepError};
use crate::offer::{DeploymentId, Gate, Offer};
use crate::schedule::{Bounds, Schedule};
use crate::web::{Web, WebError, WebSettings, tls};

mod device_side;
#[cfg(test)]
mod tests;
mod told;

use told::{Published, Wishes};

/// The client cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A setting is missing or wrong.
    #[error("a setting cannot be used")]
    Config(#[from] ConfigError),
    /// TLS or a proxy cannot be used as the settings say.
    #[error("the settings for the network cannot be used")]
    Web(#[from] WebError),
    /// The client's folder cannot be used.
    #[error("the client's folder cannot be used; it needs a volume of its own (setting `folder`)")]
    Keep(#[from] KeepError),
}

/// A client, ready to run.
#[derive(Debug)]
pub struct Agent<D> {
    device: D,
    keep: Keep,
    machine: Machine,
    time: tls::Time,
    /// Without user metadata.
    base: Config,
    config: Config,
    web: Web,
    schedule: Schedule,
    meter: Meter,
    taken: Arc<AtomicU64>,
}

/// What goes on while the loop runs.
struct Running {
    offers: watch::Sender<Arc<Offer>>,
    /// Of the download that is under way, and of no earlier one.
    events: mpsc::Sender<Event>,
    happened: mpsc::Receiver<Event>,
    stale: mpsc::Sender<()>,
    download: Option<JoinHandle<()>>,
    poll: Timer,
    why: Why,
    polls: u64,
    polling: Backoff,
    /// Polls that come early, in a row: a cloud that offers again and again what has just ended is not asked without a pause.
    early: Backoff,
    report: Timer,
    reporting: Backoff,
    work: Timer,
    working: Backoff,
    /// A revision that the device is to run.
    install: Option<RevisionId>,
    /// A revision whose progress is looked at.
    observe: Option<RevisionId>,
    metadata: Timer,
    claim: Timer,
    wishes: Wishes,
    attributes: BTreeMap<String, String>,
    published: Published,
    problem: Option<String>,
    unusable: Option<String>,
}

impl Running {
    /// Ends the download that is under way. What it has still said is not heard: by then it would be taken for the next one's.
    fn end_download(&mut self) {
        if let Some(download) = self.download.take() {
            download.abort();
        }
        (self.events, self.happened) = mpsc::channel(EVENTS_MAX);
    }

    /// The cloud is asked soon, without waiting for the interval; later each time, as long as it has nothing new to say.
    fn ask_soon(&mut self) {
        let pause = self.early.failed(clock::random(), None);
        self.poll = self.poll.or_after(pause);
    }

    /// What has happened is looked at now, and metadata soon: every client's own words are metadata too.
    fn device_says(&mut self, what: Happened) {
        match what {
            Happened::Progress if self.observe.is_some() => self.work = Timer::now(),
            Happened::Progress => {}
            Happened::Metadata => self.metadata = self.metadata.or_after(LOOK),
        }
    }
}

/// A point in time, or never.
#[derive(Debug, Clone, Copy, Default)]
struct Timer(Option<Instant>);

impl Timer {
    fn after(pause: Duration) -> Self {
        Self(Instant::now().checked_add(pause))
    }

    fn now() -> Self {
        Self::after(Duration::ZERO)
    }

    /// The earlier of both.
    fn or_after(self, pause: Duration) -> Self {
        let other = Self::after(pause);
        match (self.0, other.0) {
            (Some(this), Some(that)) => Self(Some(this.min(that))),
            (this, that) => Self(this.or(that)),
        }
    }

    async fn wait(self) {
        match self.0 {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}

/// Longest time that a cloud's call may take, whatever it does.
const CALL_PATIENCE: Duration = Duration::from_secs(600);
/// Pause between two looks at a revision's progress.
const LOOK: Duration = Duration::from_secs(1);
/// Longest pause between two looks while the device does not answer.
const LOOK_MAX: Duration = Duration::from_secs(15);
/// Longest pause before a poll that should come early; the interval is shorter.
const EARLY_MAX: Duration = Duration::from_secs(24 * 3600);
/// What a download may say before somebody listens.
const EVENTS_MAX: usize = 64;

impl<D: Device> Agent<D> {
    /// Reads the record and prepares for TLS.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub fn open(config: Config, device: D) -> Result<Self, AgentError> {
        let folder = config.path("folder").ok_or(ConfigError::Missing {
            name: "folder",
            doc: "the client must keep its record somewhere",
        })?;
        let keep = Keep::open(&folder)?;
        let time = tls::Time::default();
        time.is_at_least(keep.time());
        let name = config.read("device-id").unwrap_or_default();
        let web = web(&config, &time)?;
        let budget = Budget::new(
            config.number("rate-limit"),
            config.number("byte-budget"),
            config.duration("byte-budget-time"),
            clock::now(),
        );
        let meter = Meter::kept(budget, keep.clone(), time.clone());
        Ok(Self {
            machine: Machine::new(keep.record()?),
            schedule: Schedule::new(&name.unwrap_or_default(), bounds(&config)),
            device,
            keep,
            time,
            base: config.clone(),
            config,
            web,
            meter,
            taken: Arc::default(),
        })
    }

    /// The door to the web as the settings want it; a cloud uses it for its own protocol.
    pub fn web(&self) -> &Web {
        &self.web
    }

    /// The settings that hold.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Counts the bytes that downloads take from the network.
    pub fn taken(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.taken)
    }

    /// Runs until `stop` returns. The device goes on with what it was told.
    pub async fn run<C: Cloud>(mut self, mut cloud: C, stop: impl Future<Output = ()>) {
        tokio::select! {
            () = stop => {}
            () = self.serve(&mut cloud) => {}
        }
        self.meter.settle();
    }

    async fn serve<C: Cloud>(&mut self, cloud: &mut C) {
        let (events, happened) = mpsc::channel(EVENTS_MAX);
        let (stale, mut dead) = mpsc::channel(1);
        let nothing = Offer::new("none".parse().expect("a word is an id"), Vec::new());
        let back_off_max = self.config.duration("back-off-max");
        let mut now = Running {
            offers: watch::Sender::new(Arc::new(nothing)),
            events,
            happened,
            stale,
            download: None,
            poll: Timer::after(self.schedule.first()),
            why: Why::Start,
            polls: 0,
            polling: Backoff::new(back_off_max),
            early: Backoff::new(EARLY_MAX),
            report: Timer::default(),
            reporting: Backoff::new(back_off_max),
            work: Timer::default(),
            working: Backoff::new(LOOK_MAX),
            install: None,
            observe: None,
            metadata: Timer::now(),
            claim: Timer::now(),
            wishes: Wishes::default(),
            attributes: BTreeMap::new(),
            published: Published::default(),
            problem: None,
            unusable: None,
        };
        now.unusable = cloud.configure(&self.config, &self.web).err();
        let (happens, mut device_says) = mpsc::channel(4);
        let device = self.device.clone();
        let mut watching = std::pin::pin!(device.watch(happens));
        self.step(&mut now, Event::Started).await;
        loop {
            tokio::select! {
                () = &mut watching => {}
                Some(what) = device_says.recv() => now.device_says(what),
                Some(event) = now.happened.recv() => self.step(&mut now, event).await,
                Some(()) = dead.recv() => {
                    now.why = Why::Links;
                    self.poll(cloud, &mut now).await;
                }
                () = now.metadata.wait() => self.look_at_metadata(cloud, &mut now).await,
                () = now.claim.wait() => self.claim(&mut now).await,
                () = now.work.wait() => self.work(&mut now).await,
                () = now.report.wait() => self.report(cloud, &mut now).await,
                () = now.poll.wait() => self.poll(cloud, &mut now).await,
                () = cloud.wake() => {
                    now.why = Why::Woken;
                    self.poll(cloud, &mut now).await;
                }
            }
            self.publish(&mut now).await;
        }
    }

    /// One event, and everything that follows from it.
    async fn step(&mut self, now: &mut Running, event: Event) {
        tracing::debug!("{event:?}");
        let before = self.machine.current().map(|held| held.phase);
        let effects = self.machine.step(clock::now(), event);
        if let Some(held) = self.machine.current()
            && before != Some(held.phase)
        {
            tracing::info!("deployment {} is {}", held.id, held.phase.as_str());
        }
        for effect in effects {
            self.carry_out(now, effect).await;
        }
    }

    async fn carry_out(&mut self, now: &mut Running, effect: Effect) {
        match effect {
            Effect::Save => {
                let mut backoff = Backoff::new(LOOK_MAX);
                while let Err(error) = self.keep.save(self.machine.record()) {
                    let why = std::error::Error::source(&error);
                    let why = why.map(ToString::to_string).unwrap_or_default();
                    tracing::error!("{error}: {why}; nothing goes on before that is done");
                    tokio::time::sleep(backoff.failed(clock::random(), Some(LOOK))).await;
                }
            }
            Effect::Ask(Asking::Links) => {
                now.why = Why::Restarted;
                // Right after a start a whole fleet asks: then it waits for its place.
                if now.polls > 0 {
                    now.ask_soon();
                }
            }
            Effect::Ask(Asking::Next) => {
                now.why = Why::Closed;
                now.ask_soon();
            }
            Effect::Fetch => self.fetch(now),
            Effect::StopFetching => now.end_download(),
            Effect::Install(revision) => {
                now.observe = None;
                now.install = Some(revision);
                now.work = Timer::now();
            }
            Effect::Observe(revision) => {
                now.install = None;
                now.observe = Some(revision);
                now.work = Timer::now();
            }
            Effect::Remove(revision) => {
                // Best effort: what stays is removed by the device's own retention.
                if let Err(error) = self.device.delete_revision(&revision).await {
                    tracing::debug!("{error}");
                }
            }
            Effect::Report => {
                if now.reporting.failures() == 0 {
                    now.report = Timer::now();
                }
            }
        }
    }

    fn fetch(&mut self, now: &mut Running) {
        now.end_download();
        let fetching = Fetching {
            web: self.web.clone(),
            policy: Arc::new(Policy::from_config(&self.config)),
            meter: self.meter.clone(),
            offers: now.offers.subscribe(),
            stale: now.stale.clone(),
            taken: Arc::clone(&self.taken),
        };
        let known = self
            .machine
            .current()
            .and_then(|held| held.revision.clone());
        let task = carry_out(self.device.clone(), fetching, known, now.events.clone());
        now.download = Some(tokio::spawn(task));
    }

    async fn poll<C: Cloud>(&mut self, cloud: &mut C, now: &mut Running) {
        now.poll = Timer::default();
        if let Some(why) = &now.unusable {
            now.problem = Some(why.clone());
            tracing::error!("the cloud is not asked: {why}");
            now.poll = Timer::after(self.schedule.interval());
            return;
        }
        let situation = Situation {
            why: now.why,
            held: self
                .machine
                .current()
                .map(|held| (held.id.clone(), held.phase)),
            consents: now.wishes.consents.clone(),
            attributes: now.attributes.clone(),
        };
        let answer = tokio::time::timeout(CALL_PATIENCE, cloud.poll(&situation)).await;
        let answer = answer.unwrap_or_else(|_| Err(too_long()));
        let first = now.polls == 0;
        match answer {
            Ok(polled) => {
                now.polls += 1;
                if now.polling.failures() > 0 {
                    tracing::info!("the cloud answers again");
                }
                now.polling.reset();
                now.problem = None;
                now.why = Why::Interval;
                if matches!(polled.news, News::Nothing) {
                    now.early.reset();
                }
                self.schedule.said(polled.interval);
                self.keep_time();
                self.news(now, polled.news).await;
                // What the news led to may want it earlier.
                let next = self.schedule.next(clock::random(), self.is_busy(), first);
                now.poll = now.poll.or_after(next);
            }
            Err(error) => {
                let pause = self.pause(&mut now.polling, &error);
                tracing::warn!("{error}; asked again in {} s", pause.as_secs());
                now.problem = Some(error.to_string());
                now.poll = Timer::after(pause);
            }
        }
    }

    /// Whether a deployment is under way that the cloud could stop.
    fn is_busy(&self) -> bool {
        self.machine
            .current()
            .is_some_and(|held| held.phase == Phase::Downloading)
    }

    fn pause(&self, backoff: &mut Backoff, error: &CloudError) -> Duration {
        match error {
            CloudError::Unreachable { retry_after, .. } => {
                backoff.failed(clock::random(), *retry_after)
            }
            CloudError::BadAnswer { .. } => backoff.failed(clock::random(), None),
            CloudError::NotAllowed { .. } => {
                let max = self.config.duration("back-off-max");
                backoff.failed(clock::random(), Some(max / 2))
            }
        }
    }

    async fn news(&mut self, now: &mut Running, news: News) {
        let event = match news {
            News::NoChange => return,
            News::Nothing => Event::Withdrawn,
            News::Cancel(id) => Event::CancelAsked(id),
            News::Unreadable { id, reason } => Event::Unreadable {
                id,
                trouble: Trouble::new(Code::BadOffer, reason),
            },
            News::Offer(offer) => match self.understood(now, *offer) {
                Ok(event) => event,
                Err((id, reason)) => Event::Unreadable {
                    id,
                    trouble: Trouble::new(Code::BadOffer, reason),
                },
            },
        };
        self.step(now, event).await;
        self.consents(now).await;
    }

    fn understood(
        &mut self,
        now: &mut Running,
        mut offer: Offer,
    ) -> Result<Event, (DeploymentId, String)> {
        offer.check().map_err(|reason| (offer.id.clone(), reason))?;
        if self.config.text("consent") == "auto" {
            for gate in [&mut offer.download, &mut offer.install] {
                if *gate == Gate::Ask {
                    *gate = Gate::Now;
                }
            }
        }
        let terms = offer.terms();
        let held = self.machine.current();
        if held.is_none_or(|held| held.id == offer.id) {
            now.offers.send_replace(Arc::new(offer));
        }
        Ok(Event::Offered(terms))
    }

    async fn consents(&mut self, now: &mut Running) {
        for (id, given) in now.wishes.consents.clone() {
            let held = self.machine.current().map(|held| held.id.clone());
            if held.as_ref() == Some(&id) {
                self.step(now, Event::Consent { id, given }).await;
            }
        }
    }

    async fn report<C: Cloud>(&mut self, cloud: &mut C, now: &mut Running) {
        now.report = Timer::default();
        let Some(report) = self.machine.next_report().cloned() else {
            return;
        };
        if now.unusable.is_some() {
            now.report = Timer::after(self.schedule.interval());
            return;
        }
        let answer = tokio::time::timeout(CALL_PATIENCE, cloud.report(&report)).await;
        match answer.unwrap_or_else(|_| Err(too_long())) {
            Ok(how) => {
                now.reporting.reset();
                let number = report.number;
                self.step(now, Event::Reported { number, how }).await;
            }
            Err(error) => {
                let pause = self.pause(&mut now.reporting, &error);
                tracing::warn!(
                    "cannot report ({}): {error}; again in {} s",
                    report.text(),
                    pause.as_secs()
                );
                now.problem = Some(error.to_string());
                now.report = Timer::after(pause);
            }
        }
    }

    /// Remembers what a verified server has said about the time, for a device that starts in 1970. Once a day: flash wears.
    fn keep_time(&self) {
        let known = self.time.known();
        if known > self.keep.time() + 24 * 3600
            && let Err(error) = self.keep.save_time(known)
        {
            tracing::warn!("{error}");
        }
    }

    async fn look_at_metadata<C: Cloud>(&mut self, cloud: &mut C, now: &mut Running) {
        now.metadata = Timer::after(self.config.duration("metadata-interval"));
        if let Ok(meta) = self.device.metadata(MetaKind::Device).await {
            now.attributes = told::attributes(&meta);
        }
        let Ok(meta) = self.device.metadata(MetaKind::User).await else {
            return;
        };
        let texts = meta
            .iter()
            .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)));
        let config = self.base.with_user_meta(texts);
        if config != self.config {
            self.set_config(config);
            now.unusable = cloud.configure(&self.config, &self.web).err();
        }
        let wishes = Wishes::read(self.config.client(), &meta);
        let asked = wishes.poll != now.wishes.poll && now.polls > 0;
        now.wishes = wishes;
        if asked {
            now.why = Why::Asked;
            now.poll = Timer::now();
        }
        self.consents(now).await;
    }

    fn set_config(&mut self, config: Config) {
        match web(&config, &self.time) {
            Ok(web) => self.web = web,
            Err(error) => tracing::warn!(
                "user metadata changes settings of the network that cannot be used: {}",
                error.whole()
            ),
        }
        self.meter.set(
            config.number("rate-limit"),
            config.number("byte-budget"),
            config.duration("byte-budget-time"),
        );
        self.schedule.set_bounds(bounds(&config));
        self.config = config;
    }

    /// Bytes that downloads have taken.
    fn taken_now(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

fn too_long() -> CloudError {
    CloudError::Unreachable {
        reason: format!("no answer within {} s", CALL_PATIENCE.as_secs()),
        retry_after: None,
    }
}

fn web(config: &Config, time: &tls::Time) -> Result<Web, WebError> {
    let settings = WebSettings::from_config(config, |name| std::env::var(name).ok())?;
    Web::new(settings, time.clone())
}

fn bounds(config: &Config) -> Bounds {
    Bounds {
        usual: config.duration("poll-interval"),
        min: config.duration("poll-min"),
        max: config.duration("poll-max"),
        busy: config.duration("poll-busy"),
    }
}
