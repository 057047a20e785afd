//! The start: read what is durable, verify what may run, let `boot` choose, hand over to `update`.
//!
//! While revisions are verified, containers that were found running are left alone; the ones that belong to what is chosen
//! then go on running (decisions/0013).

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use lifecycle::boot::{self, Boot, Decision, Facts, Known, Pending, Start, Verdict};
use lifecycle::containers::{Containers, Mode, Target};
use lifecycle::plan::Plan;
use lifecycle::update::{self, Effect, Running, Update, Write};
use model::failure::BadObject;
use model::{Instant, Manifest, Marker, ObjectId, Progress, RevisionId};
use store::{Reading, RevisionError, explain};

use crate::carry::objects_of;
use crate::device::{Device, Stage};
use crate::ports::{Bootloader as _, Ending, Job, Jobs as _, World};
use crate::settings::Settings;

/// What could not be taken up at the start is tried again after this.
const AGAIN: Duration = Duration::from_secs(5);

/// A start believes seals about what the marker names; what it shall name instead is read, as before a trial.
fn reading(decision: &Decision, marker: Option<&Marker>) -> Reading {
    let Decision::Verify(wanted) = decision else {
        return Reading::Once;
    };
    let is_named = marker.is_some_and(|marker| {
        let trial = marker.trial.as_ref().map(|trial| &trial.revision);
        [marker.committed.as_ref(), trial].contains(&Some(wanted))
    });
    if is_named {
        Reading::Believing
    } else {
        Reading::Once
    }
}

impl<W: World> Device<W> {
    /// Reads the storage and begins to choose.
    pub(crate) fn start(&mut self, now: Instant) {
        if !matches!(self.stage, Stage::New) {
            return;
        }
        self.load_meta();
        self.read_claims(now);
        let marker = match self.store.read_marker() {
            Ok(read) => {
                self.notices.extend(read.notice);
                self.taken_over(read.marker)
            }
            Err(error) => {
                let error = explain(&error);
                self.notice(format!(
                    "{error}; the newest complete revision is run instead"
                ));
                None
            }
        };
        self.durable = marker.clone().unwrap_or_default();
        self.last_failure = match self.store.failures() {
            Ok(ids) => ids.last().copied(),
            Err(error) => {
                self.notice(explain(&error));
                None
            }
        };
        self.generations_reserved = marker
            .as_ref()
            .map_or(0, |marker| marker.generations_reserved);
        self.containers = Containers::new(now, self.generations_reserved);
        if self.clears_first(now) {
            return;
        }
        let revisions = self.known_revisions();
        let booted_fingerprint = self
            .booted
            .clone()
            .and_then(|booted| self.manifest(&booted).ok())
            .map(|manifest| manifest.boot_fingerprint());
        self.stage = Stage::Booting(Box::new(Facts {
            marker,
            revisions,
            booted: self.booted.clone(),
            booted_fingerprint,
            loader_damaged: self.ports.bootloader.is_damaged(),
            verdicts: BTreeMap::new(),
            tries: self.settings.tries.max(1),
            cannot_count: None,
            next_failure: self.last_failure.map_or(1, |last| last + 1),
            reset: self.reset_to_carry_out(),
        }));
        self.choose(now);
    }

    fn known_revisions(&mut self) -> Vec<Known> {
        let mut revisions = Vec::new();
        let store = self.store.clone();
        let listed = store.visit_revisions(&mut |entry| {
            let progress = entry.progress.as_deref();
            let digest = store.manifest_digest(&entry.revision).ok().flatten();
            // Where Pantavisor put it nobody noted the digest.
            let found = || Some(ObjectId::of(&store.read_manifest(&entry.revision).ok()?));
            revisions.push(Known {
                digest: digest.or_else(found),
                progress: progress.and_then(|bytes| serde_json::from_slice(bytes).ok()),
                done: entry.done,
                changed_ms: entry.modified_ms,
                revision: entry.revision,
            });
            ControlFlow::Continue(())
        });
        if let Err(error) = listed {
            self.notice(explain(&error));
        }
        revisions
    }

    /// Asks `boot` until it has chosen, or wants something verified.
    fn choose(&mut self, now: Instant) {
        loop {
            let Stage::Booting(facts) = &self.stage else {
                return;
            };
            let decision = boot::decide(facts);
            let reading = reading(&decision, facts.marker.as_ref());
            match decision {
                Decision::Verify(revision) => match self.manifest(&revision) {
                    Ok(manifest) => {
                        let objects = objects_of(&manifest);
                        self.verifications += 1;
                        self.ports.jobs.submit(Job::Verify {
                            revision,
                            objects,
                            reading,
                        });
                        return;
                    }
                    Err(error) => self.judge(revision, Verdict::BadManifest(error)),
                },
                Decision::Boot(boot) => {
                    if self.boot(now, *boot) {
                        return;
                    }
                }
            }
        }
    }

    fn judge(&mut self, revision: RevisionId, verdict: Verdict) {
        if let Stage::Booting(facts) = &mut self.stage {
            facts.verdicts.insert(revision, verdict);
        }
    }

    pub(crate) fn on_verified(&mut self, now: Instant, revision: RevisionId, bad: Vec<BadObject>) {
        for object in &bad {
            self.notice(format!(
                "object {} of revision {revision} ({}) is {}",
                object.object.short(),
                object.key,
                object.problem
            ));
        }
        match &self.stage {
            Stage::Booting(_) => {
                let verdict = match self.manifest(&revision) {
                    Err(error) => Verdict::BadManifest(error),
                    Ok(_) if !bad.is_empty() => Verdict::BadObjects(bad),
                    Ok(manifest) => Verdict::Good {
                        digest: manifest.digest(),
                        boot: manifest.boot_fingerprint(),
                    },
                };
                self.judge(revision, verdict);
                self.choose(now);
            }
            Stage::Up(_) => self.step(now, update::Event::Verified { revision, bad }),
            Stage::New | Stage::Ended(_) => {}
        }
    }

    /// Carries the choice out; false when a gate failed and must be chosen again.
    fn boot(&mut self, now: Instant, boot: Boot) -> bool {
        let mut owed = Vec::new();
        for effect in boot.effects {
            let Effect::Gate(_, write) = effect else {
                owed.push(effect);
                continue;
            };
            if let Err(error) = self.write(&write) {
                if let Stage::Booting(facts) = &mut self.stage {
                    facts.cannot_count = Some(error.to_string());
                }
                return false;
            }
            self.remember_marker(&write);
        }
        for notice in boot.notices {
            self.notice(notice);
        }
        let settings = self.update_settings();
        let (marker, next_failure) = (boot.marker.clone(), boot.next_failure);
        let settled = |running| Update::settled(settings, marker.clone(), running, next_failure);
        let update = match &boot.start {
            Start::Trial { attempt, base } => Update::trying(
                settings,
                marker.clone(),
                attempt.clone(),
                base.clone(),
                next_failure,
            ),
            Start::Run(running) => settled(Some(running.clone())),
            Start::Reboot | Start::Nothing => settled(None),
        };
        let Stage::Booting(facts) = std::mem::replace(&mut self.stage, Stage::Up(Box::new(update)))
        else {
            return true;
        };
        self.carry(now, owed);
        self.after_choice(now);
        match boot.start {
            Start::Trial { attempt, .. } => {
                self.run(now, &attempt.revision, Mode::Trial);
                let open = boot::pending(
                    &facts.revisions,
                    &marker,
                    Some(&attempt.revision),
                    self.settings.tries,
                );
                if let Some(Pending::Resume { revision, .. }) = open.into_iter().next() {
                    // Accepted while this one waited for its start: its turn comes when the trial has ended.
                    self.waiting = Some(revision);
                    self.start_again = Some(now + AGAIN);
                }
            }
            Start::Run(Running { revision, .. }) => {
                self.run(now, &revision, Mode::Normal);
                self.take_up_pending(now, &facts);
            }
            Start::Reboot => self.step(now, update::Event::Shutdown(Ending::Reboot)),
            Start::Nothing => {
                if !facts.revisions.is_empty() {
                    self.notice(
                        "no revision is complete: nothing is started; install one and run it"
                            .to_owned(),
                    );
                }
                self.take_up_pending(now, &facts);
            }
        }
        true
    }

    fn remember_marker(&mut self, write: &Write) {
        if let (Stage::Booting(facts), Write::Marker(marker)) = (&mut self.stage, write) {
            facts.marker = Some(marker.clone());
        }
    }

    fn run(&mut self, now: Instant, revision: &RevisionId, mode: Mode) {
        match self.manifest(revision) {
            Ok(manifest) => {
                let target = Target::of(revision.clone(), &manifest);
                self.containers.set_target(&target, mode, now);
                match self.store.stopped() {
                    Ok(stopped) => {
                        let stopped: Vec<_> = stopped.into_iter().collect();
                        self.containers.restore_user_stopped(&stopped);
                    }
                    Err(error) => self.notice(explain(&error)),
                }
            }
            Err(error) => self.notice(format!("revision {revision} cannot run: {error}")),
        }
    }

    /// Requests that were accepted and then cut come to an end.
    fn take_up_pending(&mut self, now: Instant, facts: &Facts) {
        let Stage::Up(update) = &self.stage else {
            return;
        };
        if facts.cannot_count.is_some() {
            let trial = update.marker().trial.as_ref();
            self.waiting = trial.map(|trial| trial.revision.clone());
            self.start_again = Some(now + AGAIN);
            return;
        }
        let marker = update.marker().clone();
        let running = update.running().map(|running| running.revision.clone());
        let tries = self.settings.tries;
        for pending in boot::pending(&facts.revisions, &marker, running.as_ref(), tries) {
            match pending {
                Pending::Close { revision, progress } => {
                    if progress.status == model::State::Error {
                        self.owe_unexpected_rollback(now, facts, &revision, &progress);
                    }
                    self.owe(now, Write::Progress(revision, progress));
                }
                Pending::Resume { revision, retries } => {
                    self.run_revision(now, &revision, false, true, retries);
                    let taken_up = match &self.stage {
                        Stage::Up(update) => update.installing().is_some(),
                        Stage::New | Stage::Booting(_) | Stage::Ended(_) => true,
                    };
                    if !taken_up {
                        self.waiting = Some(revision);
                        self.start_again = Some(now + AGAIN);
                    }
                }
            }
        }
    }

    /// Settings that changed while the device runs.
    pub(crate) fn on_settings(&mut self, settings: Settings) {
        self.settings = settings;
        let settings = self.update_settings();
        if let Stage::Up(update) = &mut self.stage {
            update.set_settings(settings);
        }
    }

    /// The trial ended without a trace of how: the record says at least that.
    fn owe_unexpected_rollback(
        &mut self,
        now: Instant,
        facts: &Facts,
        revision: &RevisionId,
        progress: &Progress,
    ) {
        let Stage::Up(update) = &self.stage else {
            return;
        };
        let known = facts.revisions.iter().find(|it| it.revision == *revision);
        let failing = update::Failing {
            id: facts.next_failure,
            revision: revision.clone(),
            manifest: known.and_then(|known| known.digest),
            rolled_back_to: update.running().map(|running| running.revision.clone()),
            container: None,
            cause: model::failure::Cause::UnexpectedRollback,
            message: model::progress::message::UNEXPECTED_ROLLBACK,
            tries: progress.retries + 1,
        };
        self.owe(now, Write::Failure(Box::new(failing)));
    }

    /// Goes through the start again, once the storage takes writes: what runs is found and goes on running, as after a restart of
    /// the orchestrator.
    pub(crate) fn start_again_when_due(&mut self, now: Instant) {
        if self.start_again.is_none_or(|at| now < at) {
            return;
        }
        self.start_again = Some(now + AGAIN);
        let Stage::Up(update) = &self.stage else {
            return;
        };
        if *update.phase() != update::Phase::Settled || !self.owed.is_empty() {
            return;
        }
        let marker = update.marker().clone();
        if self.write(&Write::Marker(marker)).is_ok() {
            self.start_again = None;
            self.waiting = None;
            self.stage = Stage::New;
            self.start(now);
        }
    }

    pub(crate) fn update_settings(&self) -> update::Settings {
        update::Settings {
            commit_delay: self.settings.commit_delay,
            tries: self.settings.tries.max(1),
            exact_commit: self.settings.exact_commit,
            goal_losses_max: self.settings.goal_losses_max,
            shutdown_limit: self.settings.shutdown_limit,
        }
    }

    /// Looks a revision up and lets the life cycle run it. The answer goes to the one who asked.
    pub(crate) fn run_revision(
        &mut self,
        now: Instant,
        revision: &RevisionId,
        commit: bool,
        again: bool,
        retries: u32,
    ) {
        let event = match self.look_up(revision) {
            Err(unusable) => update::Event::RunUnusable(revision.clone(), unusable),
            Ok((manifest, progress)) => {
                let wanted = self.wanted(revision, &manifest, progress.as_ref());
                update::Event::Run(update::Wanted {
                    commit,
                    again,
                    retries,
                    ..wanted
                })
            }
        };
        self.step(now, event);
    }

    /// The request to run this manifest under this name, as the life cycle takes it.
    pub(crate) fn wanted(
        &mut self,
        revision: &RevisionId,
        manifest: &Manifest,
        progress: Option<&Progress>,
    ) -> update::Wanted {
        update::Wanted {
            revision: revision.clone(),
            digest: manifest.digest(),
            was_done: progress.is_some_and(|progress| progress.status == model::State::Done),
            by_reboot: self.by_reboot(manifest),
            commit: false,
            again: false,
            retries: 0,
        }
    }

    fn look_up(
        &mut self,
        revision: &RevisionId,
    ) -> Result<(Arc<Manifest>, Option<Progress>), update::Unusable> {
        // Read anew: what is in memory may be older than what was put under this name.
        let bytes = match self.store.read_manifest(revision) {
            Ok(bytes) => bytes,
            Err(RevisionError::Missing(_)) => return Err(update::Unusable::Missing),
            Err(error) => {
                self.notice(explain(&error));
                return Err(update::Unusable::Bad);
            }
        };
        let manifest = Manifest::parse(&bytes).map_err(|_| update::Unusable::Bad)?;
        let manifest = Arc::new(manifest);
        self.manifests
            .insert(revision.clone(), Arc::clone(&manifest));
        let progress = self.store.progress(revision).ok().flatten();
        Ok((manifest, progress))
    }

    /// Whether running this manifest next needs a restart of the machine.
    pub(crate) fn by_reboot(&mut self, next: &Manifest) -> bool {
        let Stage::Up(update) = &self.stage else {
            return false;
        };
        let running = update.running().map(|running| running.revision.clone());
        let running = running.and_then(|running| self.manifest(&running).ok());
        Plan::between(running.as_deref(), next).by_reboot(self.booted.is_some())
    }
}
