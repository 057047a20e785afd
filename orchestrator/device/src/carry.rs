//! Carries out what the life cycle wants done, in its order.
//!
//! A gate is written now or its step is undone. What is owed is written now or kept, and tried again every few seconds, in the
//! order in which it was owed; while anything is owed no gate opens, so nothing new begins on a storage that takes no writes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use lifecycle::containers::Target;
use lifecycle::update::{self, Effect, Failing, Refused, Write};
use model::failure::Failure;
use model::marker::Marker;
use model::{Instant, Manifest, Progress, RevisionId, State};
use store::{MarkerError, Reading, RevisionError, explain};

use crate::device::{Device, Stage};
use crate::handle::{Answer, Refusal};
use crate::ports::{Bootloader as _, Clock as _, Gauges as _, Job, Jobs as _, Power as _, World};

/// What is owed is tried again after this.
const RETRY: Duration = Duration::from_secs(5);
/// Generations that are reserved at once: one write covers as many starts of containers.
const GENERATIONS: u64 = 1 << 20;
/// Log lines of a failure record.
const LOG_LINES: usize = 100;
/// Bytes of log lines that go into a progress: it is read often.
const PROGRESS_LOG_BYTES: usize = 4 << 10;

/// Why something was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unwritten {
    /// The storage did not take it.
    #[error("{0}")]
    Storage(String),
    /// The boot loader's own place did not take it, or has nothing to start.
    #[error(
        "the boot loader could not be told what to start: {0}; mount its partition so that it can be written, or mend the settings that begin with bootloader"
    )]
    BootLoader(String),
    /// It can never be written.
    #[error("revision {0} is not on the storage any more; put it again")]
    Gone(RevisionId),
}

/// Something that is true and not yet durable.
#[derive(Debug)]
pub(crate) enum Owed {
    /// As the life cycle put it.
    Write(Write),
    /// A failure record, complete.
    Failure(Box<Failure>),
}

impl<W: World> Device<W> {
    /// Steps the life cycle and carries out what comes of it.
    pub(crate) fn step(&mut self, now: Instant, event: update::Event) {
        if let Stage::Up(update) = &mut self.stage {
            let effects = update.step(now, event);
            self.carry(now, effects);
        }
    }

    pub(crate) fn carry(&mut self, now: Instant, effects: Vec<Effect>) {
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::Gate(gate, write) => {
                    if let Err(error) = self.write_gate(now, &write)
                        && let Stage::Up(update) = &mut self.stage
                    {
                        let event = update::Event::GateFailed(gate, error);
                        effects = update.step(now, event).into();
                    }
                }
                Effect::Owe(write) => self.owe(now, write),
                Effect::Verify(revision) => self.verify(now, revision),
                Effect::Run(Some(revision), mode) => match self.manifest(&revision) {
                    Ok(manifest) => {
                        let target = Target::of(revision, &manifest);
                        self.containers.set_target(&target, mode, now);
                    }
                    // Kept in memory since it was verified; only a defect here loses it.
                    Err(error) => self.notice(format!("revision {revision} cannot run: {error}")),
                },
                Effect::Run(None, _) | Effect::StopAll => self.containers.stop_all(),
                Effect::Settle => {
                    self.containers
                        .set_mode(lifecycle::containers::Mode::Normal);
                }
                Effect::End(ending) => {
                    // What stays owed is found out by the next start.
                    self.pay(now).ok();
                    self.stage = Stage::Ended(ending);
                    self.ports.power.end(ending);
                    return;
                }
                Effect::StartAgain => {
                    self.resetting.cleared = true;
                    self.stage = Stage::New;
                    self.start(now);
                    return;
                }
                Effect::Answer(answer) => self.answer(answer),
                Effect::Retain => {
                    if self.collecting.is_none()
                        && let Err(error) = self.collect(None)
                    {
                        self.notice(format!("cannot make room: {error}"));
                    }
                }
                Effect::Tell(kind, revision, text) => self.tell(kind, Some(revision), None, text),
            }
        }
        self.forget_manifests();
    }

    /// Answers the one whose request is being handled, else the one who waits for a durable trial.
    pub(crate) fn answer(&mut self, answer: Result<(), Refused>) {
        let Some(reply) = self.asker.take().or_else(|| self.deferred.take()) else {
            return;
        };
        reply(answer.map(|()| Answer::Done).map_err(refusal));
    }

    fn verify(&mut self, now: Instant, revision: RevisionId) {
        match self.manifest(&revision) {
            Ok(manifest) => {
                let objects = objects_of(&manifest);
                self.verifications += 1;
                // What was read since the start and has not been written to is not read once more: a small change to a large
                // revision would wait for all of it. A seal alone is not enough to begin something new.
                self.ports.jobs.submit(Job::Verify {
                    revision,
                    objects,
                    reading: Reading::Once,
                });
            }
            Err(error) => {
                self.notice(format!("revision {revision} cannot be verified: {error}"));
                self.step(now, update::Event::GiveUp);
            }
        }
    }

    /// A manifest, from memory when it is one of those that matter now.
    pub(crate) fn manifest(&mut self, revision: &RevisionId) -> Result<Arc<Manifest>, String> {
        if let Some(manifest) = self.manifests.get(revision) {
            return Ok(Arc::clone(manifest));
        }
        let bytes = self
            .store
            .read_manifest(revision)
            .map_err(|error| explain(&error))?;
        let manifest = Manifest::parse(&bytes).map_err(|error| explain(&error))?;
        let manifest = Arc::new(manifest);
        self.manifests
            .insert(revision.clone(), Arc::clone(&manifest));
        Ok(manifest)
    }

    /// Keeps only the manifests that may be needed without a disk that can be read.
    fn forget_manifests(&mut self) {
        let Stage::Up(update) = &self.stage else {
            return;
        };
        let base = update.base().map(|base| &base.revision);
        let running = update.running().map(|running| &running.revision);
        let installing = update.installing();
        let trial = update.marker().trial.as_ref().map(|trial| &trial.revision);
        self.manifests
            .retain(|revision, _| [base, running, installing, trial].contains(&Some(revision)));
    }

    fn write_gate(&mut self, now: Instant, write: &Write) -> Result<(), String> {
        self.pay_all(now)?;
        self.write(write).map_err(|error| error.to_string())
    }

    /// Writes all that is owed, or says why nothing new may begin.
    pub(crate) fn pay_all(&mut self, now: Instant) -> Result<(), String> {
        match self.pay(now) {
            Ok(()) => Ok(()),
            Err(Unwritten::Storage(error)) => Err(format!(
                "earlier writes could not be made yet: {error}; make room on the storage or check the disk"
            )),
            Err(error @ (Unwritten::BootLoader(_) | Unwritten::Gone(_))) => {
                Err(format!("earlier writes could not be made yet: {error}"))
            }
        }
    }

    /// One durable write.
    pub(crate) fn write(&mut self, write: &Write) -> Result<(), Unwritten> {
        let storage = Unwritten::Storage;
        match write {
            Write::Marker(marker) => self.write_marker(marker.clone()),
            Write::Progress(revision, progress) => {
                let progress = self.with_log(revision, progress);
                or_gone(self.store.set_progress(revision, &progress)).map_err(storage)?;
                let now = self.ports.clock.now();
                self.updates.note(revision, progress.status, now);
                let text = format!("{} {}", progress.status, progress.message);
                self.tell("progress", Some(revision.clone()), None, text);
                Ok(())
            }
            Write::Done(revision) => or_gone(self.store.set_done(revision)).map_err(storage),
            Write::Current(revision) => self
                .store
                .set_current(revision)
                .map_err(|error| storage(explain(&error))),
            Write::Failure(failing) => {
                let failure = self.failure(failing);
                self.write_failure(&failure)
            }
            Write::Confirm(revision) => {
                let told = self.ports.bootloader.confirm(revision);
                told.map_err(Unwritten::BootLoader)
            }
            Write::Arm(revision) => {
                let told = self.ports.bootloader.arm(revision);
                told.map_err(Unwritten::BootLoader)
            }
            Write::Reset(reset) => self.write_reset(reset).map_err(storage),
            Write::ForgetReset => self.forget_reset().map_err(storage),
        }
    }

    fn write_marker(&mut self, mut marker: Marker) -> Result<(), Unwritten> {
        marker.generations_reserved = marker.generations_reserved.max(self.generations_reserved);
        match self.store.write_marker(&marker) {
            Ok(_) => {
                self.durable = marker;
                Ok(())
            }
            Err(MarkerError::NamesMissing(revision)) => Err(Unwritten::Gone(revision)),
            Err(error) => Err(Unwritten::Storage(explain(&error))),
        }
    }

    fn write_failure(&mut self, failure: &Failure) -> Result<(), Unwritten> {
        let id = self
            .store
            .add_failure(failure)
            .map_err(|error| Unwritten::Storage(explain(&error)))?;
        self.last_failure = Some(id);
        Ok(())
    }

    pub(crate) fn owe(&mut self, now: Instant, write: Write) {
        // A failure is described as things are now, before the rollback changes them.
        let owed = match write {
            Write::Failure(failing) => Owed::Failure(Box::new(self.failure(&failing))),
            Write::Marker(_)
            | Write::Progress(..)
            | Write::Done(_)
            | Write::Current(_)
            | Write::Confirm(_)
            | Write::Arm(_)
            | Write::Reset(_)
            | Write::ForgetReset => Owed::Write(write),
        };
        self.owed.push_back(owed);
        if self.owed.len() == 1 {
            // What fails is told, and tried again.
            self.pay(now).ok();
        }
    }

    pub(crate) fn pay_when_due(&mut self, now: Instant) {
        if self.owed_retry.is_some_and(|at| now >= at) {
            self.pay(now).ok();
        }
    }

    /// Writes what is owed, as far as it can be. What cannot is told, and tried again later; the error says what the first of it waits for.
    pub(crate) fn pay(&mut self, now: Instant) -> Result<(), Unwritten> {
        self.owed_retry = None;
        while let Some(owed) = self.owed.pop_front() {
            let paid = match &owed {
                Owed::Write(write) => self.write(write),
                Owed::Failure(failure) => self.write_failure(failure),
            };
            let Err(error) = paid else { continue };
            tracing::warn!("not durable yet: {error}");
            let again = RETRY.as_secs();
            self.notice(match &error {
                Unwritten::Storage(error) => format!(
                    "the storage did not take a write ({error}); it is tried again every {again} s"
                ),
                Unwritten::BootLoader(_) | Unwritten::Gone(_) => {
                    format!("{error}; it is tried again every {again} s")
                }
            });
            self.owed.push_front(owed);
            self.owed_retry = Some(now + RETRY);
            return Err(error);
        }
        Ok(())
    }

    /// Reserves numbers for instances. When that fails they are used all the same: a device that cannot write must still run,
    /// and after a boot no instance of before is left that could have the same number.
    pub(crate) fn reserve_generations(&mut self) {
        let next = self.containers.next_generation();
        let Stage::Up(update) = &mut self.stage else {
            return;
        };
        if next < self.generations_reserved {
            return;
        }
        let reserved = next.saturating_add(GENERATIONS);
        self.generations_reserved = reserved;
        update.set_generations_reserved(reserved);
        // Not what the update wants it to be: writes that are owed come before that.
        let marker = self.durable.clone();
        if let Err(error) = self.write_marker(marker) {
            self.notice(format!(
                "numbers of container instances are not kept: {error}"
            ));
        }
    }

    fn failure(&mut self, failing: &Failing) -> Failure {
        let log = match &failing.container {
            Some(container) => {
                let revision = self
                    .containers
                    .started_for(container)
                    .unwrap_or(&failing.revision);
                self.store
                    .tail_log(
                        revision,
                        container,
                        LOG_LINES,
                        model::limits::FAILURE_LOG_BYTES_MAX,
                    )
                    .unwrap_or_else(|error| vec![format!("(no log: {})", explain(&error))])
            }
            None => Vec::new(),
        };
        let time = self.ports.clock.wall();
        let text = progress_log(failing, &log, time.0);
        self.failure_log = Some((failing.revision.clone(), text));
        Failure {
            version: 1,
            id: failing.id,
            revision: failing.revision.clone(),
            manifest: failing.manifest,
            rolled_back_to: failing.rolled_back_to.clone(),
            container: failing.container.clone(),
            cause: failing.cause.clone(),
            message: failing.message.to_owned(),
            time,
            tries: failing.tries,
            containers: self.containers.at_failure(),
            log,
            pressure: self.ports.gauges.pressure(),
        }
    }

    fn with_log(&self, revision: &RevisionId, progress: &Progress) -> Progress {
        let mut progress = progress.clone();
        if progress.status == State::Error
            && let Some((failed, log)) = &self.failure_log
            && failed == revision
            && !log.is_empty()
        {
            progress.logs = Some(log.clone());
        }
        progress
    }
}

/// The last lines in Pantavisor's form: one JSON object a line, ending with a newline.
fn progress_log(failing: &Failing, log: &[String], time_ms: u64) -> String {
    let platform = failing
        .container
        .as_ref()
        .map_or("pantavisor", |container| container.as_str());
    let mut lines = Vec::new();
    let mut bytes = 0;
    for message in log.iter().rev() {
        let line = serde_json::json!({
            "tsec": time_ms / 1000,
            "tnano": time_ms % 1000 * 1_000_000,
            "platform": platform,
            "lvl": "ERROR",
            "src": "console",
            "msg": message,
        })
        .to_string();
        bytes += line.len() + 1;
        if bytes > PROGRESS_LOG_BYTES {
            break;
        }
        lines.push(line);
    }
    lines.reverse();
    lines.into_iter().map(|line| line + "\n").collect()
}

/// What belongs to a revision that is gone meanwhile needs no writing.
fn or_gone(result: Result<(), RevisionError>) -> Result<(), String> {
    match result {
        Ok(()) | Err(RevisionError::Missing(_)) => Ok(()),
        Err(error) => Err(explain(&error)),
    }
}

/// Every object of a manifest with the key that needs it.
pub(crate) fn objects_of(manifest: &Manifest) -> Vec<(model::ObjectId, String)> {
    manifest
        .objects()
        .into_iter()
        .map(|(object, key)| (object, key.to_string()))
        .collect()
}

pub(crate) fn refusal(refused: Refused) -> Refusal {
    match refused {
        Refused::UpdateInProgress(trial) => Refusal::UpdateInProgress { trial },
        Refused::ShuttingDown => Refusal::ShuttingDown,
        Refused::FailedBefore { revision, failure } => Refusal::FailedBefore { revision, failure },
        Refused::NoTrial => Refusal::NothingToRollBack,
        Refused::NotDurable(error) => Refusal::Internal(error),
    }
}
