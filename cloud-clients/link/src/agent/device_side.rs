//! What the loop asks of the device: run a revision, look at its progress, hold the claim, publish.

use api::Code as Refusal;
use api::messages::ours::ClaimBody;
use client::Error;
use model::claim::Part;
use model::progress::State;
use model::{Progress, RevisionId};

use super::{Agent, LOOK, LOOK_MAX, Running, Timer};
use crate::clock;
use crate::deployment::{Code, Event, Phase, Told, Trouble};
use crate::device::Device;
use crate::fetch::{passes, trouble_of};

impl<D: Device> Agent<D> {
    /// Installs or observes, whichever is due.
    pub(super) async fn work(&mut self, now: &mut Running) {
        now.work = Timer::default();
        let event = if let Some(revision) = now.install.clone() {
            self.install(&revision).await
        } else if let Some(revision) = now.observe.clone() {
            self.observe(&revision).await
        } else {
            return;
        };
        match event {
            Ok(event) => {
                now.working.reset();
                self.step(now, event).await;
                let phase = self.machine.current().map(|held| held.phase);
                if phase != Some(Phase::Installing) {
                    now.install = None;
                }
                if !matches!(phase, Some(Phase::Running | Phase::Observing)) {
                    now.observe = None;
                }
                if now.work.0.is_none() && (now.install.is_some() || now.observe.is_some()) {
                    now.work = Timer::after(LOOK);
                }
            }
            Err(error) => {
                // The device restarts, perhaps with what it was asked to run: it comes back.
                tracing::debug!("{error}");
                let pause = now.working.failed(clock::random(), Some(LOOK));
                now.work = Timer::after(pause.min(LOOK_MAX));
            }
        }
    }

    /// Asks the device to run a revision, unless it was asked already and the answer got lost.
    async fn install(&self, revision: &RevisionId) -> Result<Event, Error> {
        match self.device.progress(revision).await {
            Ok(progress) if progress.status == State::New => {}
            Ok(_) => return Ok(Event::Accepted),
            Err(error) if error.code() == Some(Refusal::NoSuchRevision) => {
                return Ok(Event::Vanished);
            }
            Err(error) => return Err(error),
        }
        let held = self.machine.current();
        let base = held.and_then(|held| held.base);
        if base.is_some() && self.device.status().await?.manifest != base {
            tracing::info!("another revision runs than the deployment was made for: made anew");
            return Ok(Event::Vanished);
        }
        let manifest = self.device.manifest(Some(revision)).await?;
        let plan = self.device.plan_manifest(manifest).await;
        if plan.is_ok_and(|plan| !plan.objects.missing.is_empty()) {
            tracing::info!("objects of {revision} are gone from the device: fetched again");
            return Ok(Event::Vanished);
        }
        let again =
            held.is_some_and(|held| held.again) || self.config.text("failed-again") == "retry";
        match self.device.run(revision, again).await {
            Ok(()) => Ok(Event::Accepted),
            Err(error) if passes(&error) => Err(error),
            Err(error) => Ok(Event::Rejected(trouble_of(&error))),
        }
    }

    async fn observe(&self, revision: &RevisionId) -> Result<Event, Error> {
        let progress = match self.device.progress(revision).await {
            Ok(progress) => Some(progress),
            Err(error) if error.code() == Some(Refusal::NoSuchRevision) => None,
            Err(error) => return Err(error),
        };
        let failed = progress
            .as_ref()
            .is_some_and(|progress| matches!(progress.status, State::Error | State::WontGo));
        let trouble = match &progress {
            Some(progress) if failed => Some(self.trouble(revision, progress).await?),
            Some(_) | None => None,
        };
        Ok(Event::Told(Box::new(Told {
            revision: revision.clone(),
            progress,
            trouble,
        })))
    }

    /// The device's own words for a failure: its record, and the chain of causes. The record is there when the progress says ERROR: the
    /// device makes it durable first, and both are read from its store. What was refused before it ran has none.
    async fn trouble(&self, revision: &RevisionId, progress: &Progress) -> Result<Trouble, Error> {
        let failures = said(self.device.failures().await)?.unwrap_or_default();
        let record = failures.iter().find(|found| found.revision == *revision);
        let failure = match record {
            Some(record) => said(self.device.failure(record.id).await)?,
            None => None,
        };
        let why = said(self.device.why_revision(revision).await)?;
        let trouble = match (&failure, why) {
            (Some(failure), why) => {
                // Asked while the device goes back it speaks of the trial.
                let why = why.filter(|why| why.failure == Some(failure.id));
                let because = why.map(|why| why.because).unwrap_or_default();
                Trouble::from_failure(failure).with_details(because)
            }
            (None, Some(why)) => Trouble::new(Code::Other, why.summary)
                .with_details(why.because)
                .with_details(why.log),
            (None, None) => Trouble::new(Code::Other, progress.message.clone()),
        };
        let told = format!("{}: {}", progress.status, progress.message);
        Ok(trouble.with_details([told]))
    }

    /// Claims the client's part of the device, or renews the claim.
    pub(super) async fn claim(&mut self, now: &mut Running) {
        let lease = self.config.duration("claim-lease");
        now.claim = Timer::after(lease / 3);
        let mut parts = std::collections::BTreeSet::new();
        for text in self.config.list("claim") {
            match text.parse::<Part>() {
                Ok(part) => {
                    parts.insert(part);
                }
                Err(error) => tracing::error!("setting claim: {text:?}: {error}"),
            }
        }
        if parts.is_empty() {
            now.claim = Timer::default();
            return;
        }
        let wanted = ClaimBody {
            parts,
            priority: Some(self.config.number("claim-priority")),
            lease_s: Some(lease.as_secs()),
        };
        match self.device.claim(&wanted).await {
            Ok(claim) => {
                if let Some(other) = claim.overruled_by {
                    tracing::warn!("claim {other} of another client has its way before ours");
                }
            }
            Err(error) if error.is_transport() => now.claim = Timer::after(LOOK_MAX),
            Err(error) => tracing::warn!("the client's part of the device is not claimed: {error}"),
        }
    }
}

/// What the device knows; `None` when it refuses to tell, an error when it should be asked again.
fn said<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if passes(&error) => Err(error),
        Err(error) => {
            tracing::debug!("{error}");
            Ok(None)
        }
    }
}
