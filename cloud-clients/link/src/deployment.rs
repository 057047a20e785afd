//! The life of a deployment: one machine, one step from an event to effects. Pure; the record is all that it knows.
//!
//! ```text
//!             offer                download allowed          all there            install allowed
//!   (nothing) ─────► Offered ─────────────────► Downloading ─────────► Downloaded ─────────────► Installing
//!                      │  ▲   not any more ◄────────┘ │                    │  │                    │ the device took it
//!                      │  └───────────────────────────┘                    │  └ download only      ▼
//!            cancel, withdrawn, superseded ────────────────────────────────┤        │           Running
//!                      ▼                                                   ▼        ▼              │ goals reached
//!                  Refused (bad, no room, denied)                      Cancelled   Done            ▼
//!                                                                                   ▲          Observing
//!                                                     DONE of this very revision ───┴──────────────┤
//!                                                     ERROR, WONTGO, gone ─────────► Failed ◄──────┘
//! ```
//!
//! Invariants, each a test: success is told only after the device has committed this revision; after [`Phase::Installing`] was saved
//! a cancel is refused; what is told is durable first and stays until the cloud has it; a deployment that was tried and failed is
//! not tried again under the same id; whatever is cut, a restart with the record goes on to the same end. The client may be
//! part of the revision that it installs: nothing here waits in memory for anything.

use model::Instant;
use model::progress::State;

mod report;
mod words;

pub use report::{Code, News, Report, Trouble, line};
pub use words::{Asking, Deployment, Effect, Event, Fetched, Past, Phase, Record, Told};

use crate::cloud::Reported;
use crate::limits;
use crate::offer::{DeploymentId, Gate, Terms};

#[cfg(test)]
mod tests;

/// The machine.
#[derive(Debug, Clone)]
pub struct Machine {
    record: Record,
    /// Whether somebody was told to fetch and has not answered.
    fetching: bool,
    /// The newest word about a download; lost at a restart.
    progress: Option<Report>,
    progressed: Option<Instant>,
}

type Effects = Vec<Effect>;

impl Machine {
    /// With the record that was found; [`Event::Started`] comes first.
    pub fn new(record: Record) -> Self {
        Self {
            record,
            fetching: false,
            progress: None,
            progressed: None,
        }
    }

    /// What [`Effect::Save`] makes durable.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The deployment that the device holds.
    pub fn current(&self) -> Option<&Deployment> {
        self.record.current.as_ref()
    }

    /// What is to be told next.
    pub fn next_report(&self) -> Option<&Report> {
        self.record.outbox.front().or(self.progress.as_ref())
    }

    /// What follows from an event at this time.
    pub fn step(&mut self, now: Instant, event: Event) -> Effects {
        let mut effects = Vec::new();
        let out = &mut effects;
        match event {
            Event::Started => self.started(out),
            Event::Offered(terms) => self.offered(terms, out),
            Event::Unreadable { id, trouble } => self.unreadable(id, trouble, out),
            Event::Withdrawn => self.withdrawn(out),
            Event::CancelAsked(id) => self.cancel_asked(id, out),
            Event::Consent { id, given } => self.consent(&id, given, out),
            Event::Prepared {
                revision,
                manifest,
                base,
            } => {
                if let Some(held) = self.in_phase(Phase::Downloading) {
                    let old = held.revision.replace(revision.clone());
                    held.manifest = Some(manifest);
                    held.base = base;
                    out.push(Effect::Save);
                    out.extend(old.filter(|old| *old != revision).map(Effect::Remove));
                }
            }
            Event::RunsAlready { revision, manifest } => {
                if let Some(held) = self.in_phase(Phase::Downloading) {
                    let old = held.revision.replace(revision.clone());
                    held.manifest = Some(manifest);
                    let unused = old.filter(|old| *old != revision);
                    let news = News::Done {
                        revision,
                        ran_already: true,
                    };
                    self.end(Phase::Done, news, out);
                    out.extend(unused.map(Effect::Remove));
                }
            }
            Event::Progressed(fetched) => self.progressed(now, fetched, out),
            Event::Fetched(_) => self.fetched(out),
            Event::Rejected(trouble) => self.rejected(trouble, out),
            Event::Accepted => {
                if let Some(held) = self.in_phase(Phase::Installing) {
                    held.phase = Phase::Running;
                    out.push(Effect::Save);
                    self.observe(out);
                }
            }
            Event::Vanished => self.vanished(out),
            Event::Told(told) => self.told(*told, out),
            Event::Reported { number, how } => self.reported(number, how, out),
        }
        // One write holds all that this step has changed, and nothing is done before it.
        let saves = effects.contains(&Effect::Save);
        effects.retain(|effect| *effect != Effect::Save);
        if saves {
            effects.insert(0, Effect::Save);
        }
        effects
    }

    fn in_phase(&mut self, phase: Phase) -> Option<&mut Deployment> {
        self.record
            .current
            .as_mut()
            .filter(|held| held.phase == phase)
    }

    fn started(&mut self, out: &mut Effects) {
        self.fetching = false;
        self.progress = None;
        if let Some(held) = &self.record.current {
            match held.phase {
                Phase::Offered | Phase::Downloading => out.push(Effect::Ask(Asking::Links)),
                Phase::Downloaded => {
                    out.push(Effect::Ask(Asking::Links));
                    self.proceed(out);
                }
                Phase::Installing => out.extend(held.revision.clone().map(Effect::Install)),
                Phase::Running | Phase::Observing => self.observe(out),
                Phase::Done | Phase::Failed | Phase::Cancelled | Phase::Refused => {}
            }
        }
        self.report_if_any(out);
    }

    fn observe(&self, out: &mut Effects) {
        let revision = self.current().and_then(|held| held.revision.clone());
        out.extend(revision.map(Effect::Observe));
    }

    fn report_if_any(&self, out: &mut Effects) {
        if self.next_report().is_some() && !out.contains(&Effect::Report) {
            out.push(Effect::Report);
        }
    }

    fn offered(&mut self, terms: Terms, out: &mut Effects) {
        let Some(held) = &mut self.record.current else {
            return self.take(terms, out);
        };
        if held.id != terms.id {
            return self.superseded(out);
        }
        if held.content != terms.content {
            // The same name for something else: what can still be given up begins anew.
            if held.phase.can_be_cancelled() {
                self.give_up_silently(out);
                self.take(terms, out);
            }
            return;
        }
        let before = held.clone();
        held.download = terms.download;
        held.install = terms.install;
        held.again |= terms.again;
        held.cancel_refused = false;
        if *held != before {
            out.push(Effect::Save);
        }
        match held.phase {
            Phase::Offered | Phase::Downloaded => self.proceed(out),
            Phase::Downloading => match permission(&held.download, held.consent) {
                Permission::Given if self.fetching => {}
                Permission::Given => {
                    self.fetching = true;
                    out.push(Effect::Fetch);
                }
                Permission::NotYet(_) | Permission::Never => {
                    held.phase = Phase::Offered;
                    self.stop_fetching(out);
                    self.proceed(out);
                }
            },
            Phase::Installing | Phase::Running | Phase::Observing => {}
            Phase::Done | Phase::Failed | Phase::Cancelled | Phase::Refused => {
                self.report_if_any(out);
            }
        }
    }

    /// Another deployment is wanted: the one that is held gives way while it can; the other one is offered again.
    fn superseded(&mut self, out: &mut Effects) {
        let held = self.record.current.as_ref();
        if held.is_some_and(|held| held.phase.can_be_cancelled()) {
            self.cancel(out);
        } else {
            self.report_if_any(out);
        }
    }

    fn take(&mut self, terms: Terms, out: &mut Effects) {
        let before = self
            .record
            .past
            .iter()
            .rev()
            .find(|past| past.id == terms.id && past.content == terms.content);
        let failed = before
            .filter(|past| past.phase == Phase::Failed && past.ran && !terms.again)
            .cloned();
        let mut held = Deployment {
            id: terms.id,
            content: terms.content,
            phase: Phase::Offered,
            download: terms.download,
            install: terms.install,
            consent: false,
            revision: None,
            manifest: None,
            base: None,
            cancel_refused: false,
            waits_for: None,
            ran: false,
            again: terms.again,
            trouble: None,
        };
        if let Some(past) = failed {
            held.ran = true;
            held.revision = past.revision;
            self.record.current = Some(held);
            let trouble = past.trouble.unwrap_or_else(|| {
                Trouble::new(Code::FailedBefore, "this deployment was tried and failed")
            });
            self.fail(Phase::Failed, trouble, out);
            return;
        }
        self.record.current = Some(held);
        self.tell(News::Accepted, out);
        self.proceed(out);
    }

    /// Goes on from where permission is needed.
    fn proceed(&mut self, out: &mut Effects) {
        let Some(held) = &mut self.record.current else {
            return;
        };
        match held.phase {
            Phase::Offered => match permission(&held.download, held.consent) {
                Permission::Given => {
                    held.phase = Phase::Downloading;
                    held.waits_for = None;
                    self.fetching = true;
                    out.extend([Effect::Save, Effect::Fetch]);
                }
                Permission::NotYet(reason) => self.wait(reason, out),
                Permission::Never => {
                    let why = "the cloud allows neither to fetch the deployment nor to install it";
                    self.fail(Phase::Refused, Trouble::new(Code::BadOffer, why), out);
                }
            },
            Phase::Downloaded => match permission(&held.install, held.consent) {
                Permission::Given => self.install(out),
                Permission::NotYet(reason) => self.wait(reason, out),
                Permission::Never => self.end(Phase::Done, News::DownloadedOnly, out),
            },
            Phase::Downloading
            | Phase::Installing
            | Phase::Running
            | Phase::Observing
            | Phase::Done
            | Phase::Failed
            | Phase::Cancelled
            | Phase::Refused => {}
        }
    }

    fn install(&mut self, out: &mut Effects) {
        let Some(held) = &mut self.record.current else {
            return;
        };
        let Some(revision) = held.revision.clone() else {
            // A record that somebody has changed by hand: begin anew.
            held.phase = Phase::Downloading;
            return self.refetch(out);
        };
        held.phase = Phase::Installing;
        held.ran = true;
        held.waits_for = None;
        let news = News::Installing {
            revision: revision.clone(),
        };
        self.tell(news, out);
        out.push(Effect::Install(revision));
    }

    fn wait(&mut self, reason: String, out: &mut Effects) {
        let Some(held) = &mut self.record.current else {
            return;
        };
        if held.waits_for.as_ref() != Some(&reason) {
            held.waits_for = Some(reason.clone());
            self.tell(News::Waiting { reason }, out);
        }
    }

    fn progressed(&mut self, now: Instant, fetched: Fetched, out: &mut Effects) {
        let early = self
            .progressed
            .is_some_and(|last| now.since(last) < limits::PROGRESS_INTERVAL);
        let Some(held) = self.in_phase(Phase::Downloading) else {
            return;
        };
        if early {
            return;
        }
        let report = Report {
            number: 0,
            deployment: held.id.clone(),
            news: News::Progress(fetched),
        };
        self.progress = Some(report);
        self.progressed = Some(now);
        out.push(Effect::Report);
    }

    fn fetched(&mut self, out: &mut Effects) {
        let Some(held) = self.in_phase(Phase::Downloading) else {
            return;
        };
        if held.revision.is_none() {
            let why = "everything was fetched, but no revision came of it";
            return self.rejected(Trouble::new(Code::Other, why), out);
        }
        held.phase = Phase::Downloaded;
        let only = held.install == Gate::Never;
        self.fetching = false;
        self.progress = None;
        if !only {
            self.tell(News::Downloaded, out);
        }
        self.proceed(out);
    }

    fn rejected(&mut self, trouble: Trouble, out: &mut Effects) {
        let Some(held) = &mut self.record.current else {
            return;
        };
        match held.phase {
            Phase::Offered | Phase::Downloading | Phase::Downloaded | Phase::Installing => {
                held.ran = false;
                let unused = held.revision.clone();
                let phase = match trouble.code {
                    Code::BadHash | Code::MissingObject | Code::Unreachable => Phase::Failed,
                    Code::BadOffer
                    | Code::NoSpace
                    | Code::BadManifest
                    | Code::FailedBefore
                    | Code::Claimed
                    | Code::Denied
                    | Code::NotAccepted
                    | Code::Exited
                    | Code::StartFailed
                    | Code::GoalNotReached
                    | Code::Unhealthy
                    | Code::BadObjects
                    | Code::TriesUsedUp
                    | Code::RolledBack
                    | Code::Other => Phase::Refused,
                };
                self.fail(phase, trouble, out);
                out.extend(unused.map(Effect::Remove));
            }
            Phase::Running
            | Phase::Observing
            | Phase::Done
            | Phase::Failed
            | Phase::Cancelled
            | Phase::Refused => {}
        }
    }

    fn vanished(&mut self, out: &mut Effects) {
        let Some(held) = &mut self.record.current else {
            return;
        };
        match held.phase {
            Phase::Downloaded | Phase::Installing => {
                held.phase = Phase::Downloading;
                held.ran = false;
                self.refetch(out);
            }
            Phase::Offered
            | Phase::Downloading
            | Phase::Running
            | Phase::Observing
            | Phase::Done
            | Phase::Failed
            | Phase::Cancelled
            | Phase::Refused => {}
        }
    }

    /// The links are as old as the download was: the cloud is asked, and its offer starts the fetching.
    fn refetch(&mut self, out: &mut Effects) {
        self.fetching = false;
        out.extend([Effect::Save, Effect::Ask(Asking::Links)]);
    }

    fn told(&mut self, told: Told, out: &mut Effects) {
        let Some(held) = &mut self.record.current else {
            return;
        };
        let Told {
            revision,
            progress,
            trouble,
        } = told;
        let watched = match held.phase {
            Phase::Running | Phase::Observing => held.revision.as_ref() == Some(&revision),
            Phase::Offered
            | Phase::Downloading
            | Phase::Downloaded
            | Phase::Installing
            | Phase::Done
            | Phase::Failed
            | Phase::Cancelled
            | Phase::Refused => false,
        };
        if !watched {
            return;
        }
        let Some(progress) = progress else {
            let why = format!("revision {revision} is no longer on the device");
            return self.fail(Phase::Failed, Trouble::new(Code::Other, why), out);
        };
        match progress.status {
            // The order got lost with the device's storage: it is given again.
            State::New => {
                if held.phase == Phase::Running {
                    held.phase = Phase::Installing;
                    out.extend([Effect::Save, Effect::Install(revision)]);
                }
            }
            State::Queued | State::Downloading | State::InProgress => {}
            State::Testing | State::Updated => {
                if held.phase == Phase::Running {
                    held.phase = Phase::Observing;
                    self.tell(News::Observing { revision }, out);
                }
            }
            State::Done => {
                let news = News::Done {
                    revision,
                    ran_already: false,
                };
                self.end(Phase::Done, news, out);
            }
            State::WontGo | State::Error => {
                let trouble = trouble.unwrap_or_else(|| {
                    let why = format!(
                        "revision {revision}: {} ({})",
                        progress.message, progress.status
                    );
                    Trouble::new(Code::Other, why)
                });
                self.fail(Phase::Failed, trouble, out);
            }
        }
    }

    fn cancel_asked(&mut self, id: DeploymentId, out: &mut Effects) {
        let Some(held) = self.record.current.as_mut().filter(|held| held.id == id) else {
            return self.cancel_unknown(id, out);
        };
        match held.phase {
            Phase::Offered | Phase::Downloading | Phase::Downloaded => self.cancel(out),
            Phase::Installing | Phase::Running | Phase::Observing => {
                if !held.cancel_refused {
                    held.cancel_refused = true;
                    let phase = held.phase.as_str().to_owned();
                    self.tell(News::CancelRefused { phase }, out);
                }
            }
            Phase::Done | Phase::Failed | Phase::Cancelled | Phase::Refused => {
                self.report_if_any(out);
            }
        }
    }

    /// A cloud that wants something stopped that the device does not hold gets what it wants, or it asks for ever.
    fn cancel_unknown(&mut self, id: DeploymentId, out: &mut Effects) {
        let told = self
            .record
            .outbox
            .iter()
            .any(|report| report.deployment == id && report.is_final());
        if !told && self.record.outbox.len() < limits::REPORTS_MAX {
            self.push(id, News::Cancelled);
            out.push(Effect::Save);
        }
        self.report_if_any(out);
    }

    fn cancel(&mut self, out: &mut Effects) {
        let unused = self.current().and_then(|held| held.revision.clone());
        self.stop_fetching(out);
        self.end(Phase::Cancelled, News::Cancelled, out);
        out.extend(unused.map(Effect::Remove));
    }

    fn withdrawn(&mut self, out: &mut Effects) {
        let held = self.record.current.as_ref();
        if held.is_some_and(|held| held.phase.can_be_cancelled()) {
            self.give_up_silently(out);
        }
    }

    /// The cloud wants to hear no more of it.
    fn give_up_silently(&mut self, out: &mut Effects) {
        let Some(mut held) = self.record.current.take() else {
            return;
        };
        self.stop_fetching(out);
        self.record
            .outbox
            .retain(|report| report.deployment != held.id);
        let unused = held.revision.clone();
        held.phase = Phase::Cancelled;
        self.remember(held);
        out.push(Effect::Save);
        out.extend(unused.map(Effect::Remove));
    }

    fn unreadable(&mut self, id: DeploymentId, trouble: Trouble, out: &mut Effects) {
        match &self.record.current {
            None => {
                let terms = Terms {
                    content: model::ObjectId::of(id.as_str().as_bytes()),
                    id,
                    download: Gate::Now,
                    install: Gate::Now,
                    again: true,
                };
                self.take(terms, &mut Vec::new());
                self.fetching = false;
                self.fail(Phase::Refused, trouble, out);
            }
            Some(held) if held.id == id => {
                if held.phase.can_be_cancelled() {
                    self.stop_fetching(out);
                    self.rejected(trouble, out);
                } else {
                    self.report_if_any(out);
                }
            }
            Some(_) => self.superseded(out),
        }
    }

    fn consent(&mut self, id: &DeploymentId, given: bool, out: &mut Effects) {
        let Some(held) = self
            .record
            .current
            .as_mut()
            .filter(|held| held.id == *id && !held.consent)
        else {
            return;
        };
        let asked = match held.phase {
            Phase::Offered => held.download == Gate::Ask,
            Phase::Downloaded => held.install == Gate::Ask,
            Phase::Downloading => held.install == Gate::Ask && given,
            Phase::Installing
            | Phase::Running
            | Phase::Observing
            | Phase::Done
            | Phase::Failed
            | Phase::Cancelled
            | Phase::Refused => false,
        };
        if !asked {
            return;
        }
        if given {
            held.consent = true;
            out.push(Effect::Save);
            self.proceed(out);
        } else {
            let why = "a person at the device has not agreed to the deployment";
            self.rejected(Trouble::new(Code::Denied, why), out);
        }
    }

    fn reported(&mut self, number: u64, how: Reported, out: &mut Effects) {
        let told = if number == 0 {
            self.progress.take()
        } else {
            let place = self
                .record
                .outbox
                .iter()
                .position(|report| report.number == number);
            place.and_then(|place| self.record.outbox.remove(place))
        };
        let Some(told) = told else {
            return self.report_if_any(out);
        };
        let about_held = self
            .record
            .current
            .as_ref()
            .filter(|held| held.id == told.deployment);
        if let Some(held) = about_held {
            if told.is_final() && held.phase.is_final() {
                let held = self.record.current.take().expect("it was just looked at");
                self.remember(held);
                out.extend([Effect::Save, Effect::Ask(Asking::Next)]);
                return self.report_if_any(out);
            }
            if how == Reported::Gone && held.phase.can_be_cancelled() {
                self.give_up_silently(out);
                out.push(Effect::Ask(Asking::Next));
                return self.report_if_any(out);
            }
        }
        if number != 0 {
            out.push(Effect::Save);
        }
        self.report_if_any(out);
    }

    fn stop_fetching(&mut self, out: &mut Effects) {
        self.progress = None;
        if std::mem::take(&mut self.fetching) {
            out.push(Effect::StopFetching);
        }
    }

    fn fail(&mut self, phase: Phase, trouble: Trouble, out: &mut Effects) {
        if let Some(held) = &mut self.record.current {
            held.trouble = Some(trouble.clone());
        }
        let news = if phase == Phase::Refused {
            News::Refused { trouble }
        } else {
            News::Failed { trouble }
        };
        self.end(phase, news, out);
    }

    fn end(&mut self, phase: Phase, news: News, out: &mut Effects) {
        self.fetching = false;
        self.progress = None;
        if let Some(held) = &mut self.record.current {
            held.phase = phase;
        }
        self.tell(news, out);
    }

    /// Puts a report about the deployment that is held into the outbox, durably.
    fn tell(&mut self, news: News, out: &mut Effects) {
        let Some(held) = &self.record.current else {
            return;
        };
        let id = held.id.clone();
        self.push(id, news);
        out.push(Effect::Save);
        self.report_if_any(out);
    }

    fn push(&mut self, deployment: DeploymentId, news: News) {
        let outbox = &mut self.record.outbox;
        if outbox.len() >= limits::REPORTS_MAX {
            let dispensable = outbox.iter().position(|report| !report.is_final());
            outbox.remove(dispensable.unwrap_or(0));
        }
        outbox.push_back(Report {
            number: self.record.next_report,
            deployment,
            news,
        });
        self.record.next_report += 1;
    }

    fn remember(&mut self, held: Deployment) {
        let trouble = held.trouble.map(|mut trouble| {
            trouble.details.truncate(limits::PAST_LINES_MAX);
            trouble
        });
        let past = &mut self.record.past;
        past.retain(|past| past.id != held.id);
        while past.len() >= limits::PAST_MAX {
            past.pop_front();
        }
        past.push_back(Past {
            id: held.id,
            content: held.content,
            phase: held.phase,
            ran: held.ran,
            revision: held.revision,
            trouble,
        });
    }
}

enum Permission {
    Given,
    NotYet(String),
    Never,
}

fn permission(gate: &Gate, consent: bool) -> Permission {
    match gate {
        Gate::Now => Permission::Given,
        Gate::Ask if consent => Permission::Given,
        Gate::Ask => Permission::NotYet("somebody at the device must agree".to_owned()),
        Gate::Wait { reason } => Permission::NotYet(reason.clone()),
        Gate::Never => Permission::Never,
    }
}
