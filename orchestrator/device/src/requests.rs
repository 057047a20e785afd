//! Every change that may be asked for. Each answers once, after what it promises is durable.

use std::collections::BTreeSet;

use lifecycle::containers::{self, ControlError};
use lifecycle::update::{self, Phase, Update};
use model::metadata::{MetaKey, MetaKind};
use model::progress::{Progress, State, message};
use model::{ContainerName, Instant, Manifest, RevisionId, limits};
use store::{Failed, MetaError, NewRevision, RevisionError, explain};

use crate::device::{Device, Stage};
use crate::handle::{Action, Answer, Command, Refusal, Reply, Request};
use crate::ports::{Ending, World};

impl<W: World> Device<W> {
    pub(crate) fn on_request(&mut self, now: Instant, request: Request, reply: Reply) {
        if let Some(refusal) = self.not_now(&request) {
            reply(Err(refusal));
            return;
        }
        if let Request::As { client, request } = request {
            return match self.claimed(now, &client, &request) {
                Some(refusal) => reply(Err(refusal)),
                None => self.on_request(now, *request, reply),
            };
        }
        // What the life cycle decides answers by `Effect::Answer`, what is decided here by what this returns.
        self.asker = Some(reply);
        let answer = match request {
            Request::PutRevision { revision, manifest } => {
                Some(self.put_revision(now, &revision, &manifest))
            }
            Request::DeleteRevision(revision) => Some(self.delete_revision(&revision)),
            Request::PutCommitMessage { revision, message } => Some(
                self.store
                    .set_commit_message(&revision, &message)
                    .map_err(revision_refusal),
            ),
            Request::Command(command) => self.on_command(now, command),
            Request::Control { container, action } => Some(self.control(&container, action)),
            Request::Ready(container) => Some(self.ready(container)),
            Request::PutMeta { kind, key, value } => Some(self.put_meta(kind, key, value)),
            Request::DeleteMeta { kind, key } => Some(self.delete_meta(kind, &key)),
            Request::Collect => {
                let asker = self.asker.take();
                match self.collect(asker) {
                    Ok(()) => None,
                    Err(refusal) => Some(Err(refusal)),
                }
            }
            Request::Plan(of) => {
                let answer = self.plan(now, of);
                if let Some(reply) = self.asker.take() {
                    reply(answer.map(|planned| Answer::Planned(Box::new(planned))));
                }
                None
            }
            Request::Claim { client, wanted } => {
                let answer = self.on_claim(now, &client, wanted);
                self.answer_shown(now, answer)
            }
            Request::RenewClaim {
                client,
                id,
                lease_s,
            } => {
                let answer = self.on_renew(now, &client, id, lease_s);
                self.answer_shown(now, answer)
            }
            Request::ReleaseClaim { client, id } => {
                let answer = self.on_release(&client, id);
                self.answer_shown(now, answer)
            }
            // Unwrapped above.
            Request::As { .. } => None,
            Request::Stop {
                containers_keep_running,
            } => {
                self.shut_down(now, containers_keep_running);
                None
            }
        };
        if let Some(answer) = answer
            && let Some(reply) = self.asker.take()
        {
            reply(answer.map(|()| Answer::Done));
        }
        self.defer();
    }

    /// Answers with something that is to be seen in the view when the asker looks.
    fn answer_shown(
        &mut self,
        now: Instant,
        answer: Result<Answer, Refusal>,
    ) -> Option<Result<(), Refusal>> {
        self.publish(now);
        if let Some(reply) = self.asker.take() {
            reply(answer);
        }
        None
    }

    /// A run that has not been answered waits until its trial is durable; anything else that was not answered is a defect here and
    /// says so.
    fn defer(&mut self) {
        let verifying = match &self.stage {
            Stage::Up(update) => matches!(
                update.phase(),
                Phase::Verifying {
                    answered: false,
                    ..
                }
            ),
            Stage::New | Stage::Booting(_) | Stage::Ended(_) => false,
        };
        if let Some(reply) = self.asker.take() {
            if verifying {
                self.deferred = Some(reply);
            } else {
                reply(Err(Refusal::Internal(
                    "the request was not answered".to_owned(),
                )));
            }
        }
        if !verifying && let Some(reply) = self.deferred.take() {
            reply(Err(Refusal::Internal("the run was given up".to_owned())));
        }
    }

    /// Requests that cannot even be looked at now.
    fn not_now(&self, request: &Request) -> Option<Refusal> {
        let always = match request {
            Request::As { request, .. } => return self.not_now(request),
            Request::PutMeta { .. }
            | Request::DeleteMeta { .. }
            | Request::Ready(_)
            | Request::Stop { .. } => true,
            Request::PutRevision { .. }
            | Request::DeleteRevision(_)
            | Request::PutCommitMessage { .. }
            | Request::Command(_)
            | Request::Control { .. }
            | Request::Claim { .. }
            | Request::RenewClaim { .. }
            | Request::ReleaseClaim { .. }
            | Request::Collect
            | Request::Plan(_) => false,
        };
        if self.resetting.accepted.is_some() {
            let harmless = matches!(request, Request::Ready(_) | Request::Stop { .. });
            return (!harmless).then_some(Refusal::Resetting);
        }
        match &self.stage {
            Stage::New | Stage::Booting(_) if !always => Some(Refusal::NotReady),
            Stage::New | Stage::Booting(_) => None,
            Stage::Up(update) => match update.phase() {
                Phase::ShuttingDown { .. } if !always => Some(Refusal::ShuttingDown),
                Phase::ShuttingDown { .. }
                | Phase::Clearing { .. }
                | Phase::Settled
                | Phase::Verifying { .. }
                | Phase::Starting(_)
                | Phase::Observing { .. }
                | Phase::RollingBack { .. } => None,
            },
            Stage::Ended(_) => Some(Refusal::ShuttingDown),
        }
    }

    pub(crate) fn update(&self) -> Option<&Update> {
        match &self.stage {
            Stage::Up(update) => Some(update),
            Stage::New | Stage::Booting(_) | Stage::Ended(_) => None,
        }
    }

    /// `None`: the life cycle answers, or has answered.
    fn on_command(&mut self, now: Instant, command: Command) -> Option<Result<(), Refusal>> {
        match command {
            Command::Run { revision, again } => self.run_asked(now, &revision, false, again),
            Command::Apply { revision, again } => self.apply(now, &revision, again),
            Command::RunCommit { revision, again } => self.run_asked(now, &revision, true, again),
            Command::Rollback => self.roll_back(now),
            Command::Reboot(words) => {
                self.end_asked(now, Ending::Reboot, &words);
                None
            }
            Command::PowerOff(words) => {
                self.end_asked(now, Ending::PowerOff, &words);
                None
            }
            Command::MakeFactory(revision) => self.make_factory(now, revision),
            Command::FactoryReset { wipe_volumes } => Some(self.reset_asked(now, wipe_volumes)),
            Command::Collect => Some(self.collect(None)),
            Command::UpdateMetadata(map) => Some(self.update_metadata(map)),
        }
    }

    fn run_asked(
        &mut self,
        now: Instant,
        revision: &RevisionId,
        commit: bool,
        again: bool,
    ) -> Option<Result<(), Refusal>> {
        if let Some(trial) = self.waiting.clone() {
            return Some(Err(Refusal::UpdateInProgress { trial }));
        }
        match self.store.has_revision(revision) {
            Ok(true) => {
                self.run_revision(now, revision, commit, again, 0);
                None
            }
            Ok(false) => Some(Err(Refusal::NoSuchRevision(revision.clone()))),
            Err(error) => Some(Err(disk_refusal(&error))),
        }
    }

    /// As a run, but refused when the machine would restart for it.
    fn apply(
        &mut self,
        now: Instant,
        revision: &RevisionId,
        again: bool,
    ) -> Option<Result<(), Refusal>> {
        // What is under way is told first, as for every run.
        let idle = self.waiting.is_none()
            && self.update().is_some_and(|update| {
                matches!(update.phase(), Phase::Settled | Phase::RollingBack { .. })
            });
        if idle
            && let Ok(manifest) = self.store.read_manifest(revision)
            && let Ok(manifest) = Manifest::parse(&manifest)
            && self.by_reboot(&manifest)
        {
            return Some(Err(Refusal::NeedsReboot(revision.clone())));
        }
        self.run_asked(now, revision, false, again)
    }

    fn roll_back(&mut self, now: Instant) -> Option<Result<(), Refusal>> {
        let update = self.update()?;
        let running = update.running().map(|running| &running.revision);
        let uncommitted = update
            .marker()
            .trial
            .as_ref()
            .is_some_and(|trial| Some(&trial.revision) == running);
        let rolling_back = matches!(update.phase(), Phase::RollingBack { .. });
        if update.installing().is_some() || uncommitted || rolling_back {
            self.step(now, update::Event::GiveUp);
            return None;
        }
        match update.marker().previous.clone() {
            Some(previous) if Some(&previous) != running => {
                self.run_asked(now, &previous, true, true)
            }
            Some(_) | None => Some(Err(Refusal::NothingToRollBack)),
        }
    }

    fn end_asked(&mut self, now: Instant, ending: Ending, words: &str) {
        if self
            .update()
            .is_some_and(|update| update.installing().is_none())
        {
            let words: String = words.chars().take(256).collect();
            let what = match ending {
                Ending::Reboot => "restart of the machine",
                Ending::PowerOff => "power-off",
                Ending::Stop { .. } => "stop",
            };
            self.tell("shutdown", None, None, format!("{what} asked for: {words}"));
        }
        self.step(now, update::Event::Shutdown(ending));
    }

    /// Always possible: signals are not argued with.
    fn shut_down(&mut self, now: Instant, containers_keep_running: bool) {
        if !matches!(self.stage, Stage::Up(_)) {
            // Nothing was begun; what runs from before is only stopped when that was asked for.
            let settings = self.update_settings();
            let update = Update::settled(settings, model::Marker::default(), None, 0);
            self.stage = Stage::Up(Box::new(update));
        }
        let ending = Ending::Stop {
            containers_keep_running,
        };
        self.step(now, update::Event::Shutdown(ending));
    }

    fn put_revision(
        &mut self,
        now: Instant,
        revision: &RevisionId,
        bytes: &[u8],
    ) -> Result<(), Refusal> {
        if bytes.len() > limits::MANIFEST_BYTES_MAX {
            let (have, max) = (bytes.len(), limits::MANIFEST_BYTES_MAX);
            return Err(Refusal::Limit(format!(
                "the manifest has {have} bytes; at most {max} are taken"
            )));
        }
        let manifest = Manifest::parse(bytes)?;
        // What is still owed does not keep a revision from being put; it may even wait for one.
        self.pay(now).ok();
        if let Some(why) = self.in_use(revision) {
            let same = self
                .store
                .read_manifest(revision)
                .is_ok_and(|known| known == bytes);
            return if same {
                Ok(())
            } else {
                Err(Refusal::RevisionInUse {
                    revision: revision.clone(),
                    why,
                })
            };
        }
        self.store
            .lease_objects(manifest.objects().into_keys(), now);
        let progress = Progress::new(State::New, message::READY_TO_RUN, 0);
        self.store
            .put_revision(NewRevision {
                revision,
                manifest: bytes,
                progress: &progress,
                commit_message: None,
            })
            .map_err(revision_refusal)?;
        self.manifests.remove(revision);
        let text = format!("{} {}", progress.status, progress.message);
        self.tell("progress", Some(revision.clone()), None, text);
        Ok(())
    }

    /// Why a revision must stay as it is.
    fn in_use(&self, revision: &RevisionId) -> Option<&'static str> {
        let update = self.update()?;
        let marker = update.marker();
        let trial = marker.trial.as_ref().map(|trial| &trial.revision);
        let is = |named: Option<&RevisionId>| named == Some(revision);
        if is(update.running().map(|running| &running.revision)) {
            Some("the running revision")
        } else if is(update.installing()) || is(trial) {
            Some("the revision being tried")
        } else if is(marker.committed.as_ref()) {
            Some("the revision to boot")
        } else if is(marker.previous.as_ref()) || is(update.base().map(|base| &base.revision)) {
            Some("the revision to go back to")
        } else if revision.is_factory() && self.store.has_revision(revision).unwrap_or(true) {
            Some("the factory revision")
        } else if self.containers.revisions_in_use().contains(revision) {
            Some("a revision whose containers still run")
        } else if is(self.waiting.as_ref()) {
            Some("a revision that waits to be run")
        } else if self.durably_named().any(|named| named == revision) {
            Some(
                "one that the storage still names as a revision to boot; what replaces that could not be written yet",
            )
        } else {
            None
        }
    }

    fn delete_revision(&mut self, revision: &RevisionId) -> Result<(), Refusal> {
        if let Some(why) = self.in_use(revision) {
            return Err(Refusal::RevisionInUse {
                revision: revision.clone(),
                why,
            });
        }
        match self.store.delete_revision(revision) {
            Ok(true) => {
                let text = "was removed".to_owned();
                self.tell("removed", Some(revision.clone()), None, text);
                Ok(())
            }
            Ok(false) => Err(Refusal::NoSuchRevision(revision.clone())),
            Err(error) => Err(disk_refusal(&error)),
        }
    }

    /// Copies a proven revision to 0, whole or not at all, then runs 0 as Pantavisor does.
    fn make_factory(
        &mut self,
        now: Instant,
        revision: Option<RevisionId>,
    ) -> Option<Result<(), Refusal>> {
        let update = self.update()?;
        if let Some(trial) = update.installing() {
            let trial = trial.clone();
            return Some(Err(Refusal::UpdateInProgress { trial }));
        }
        let running = update.running().map(|running| running.revision.clone());
        let Some(revision) = revision.or(running) else {
            return Some(Err(Refusal::NoSuchRevision(RevisionId::factory())));
        };
        match self.copy_to_factory(now, &revision) {
            Ok(()) => self.run_asked(now, &RevisionId::factory(), true, true),
            Err(refusal) => Some(Err(refusal)),
        }
    }

    fn copy_to_factory(&mut self, now: Instant, revision: &RevisionId) -> Result<(), Refusal> {
        let factory = RevisionId::factory();
        let manifest = self
            .store
            .read_manifest(revision)
            .map_err(revision_refusal)?;
        let existing = self.store.read_manifest(&factory);
        if existing.is_ok_and(|existing| existing == manifest) {
            return Ok(());
        }
        if !self
            .store
            .is_done(revision)
            .map_err(|error| disk_refusal(&error))?
        {
            return Err(Refusal::RevisionInUse {
                revision: factory,
                why: "the last resort, and only a revision that was committed may take its place",
            });
        }
        let named = self.in_use(&factory);
        if let Some(why) = named
            && why != "the factory revision"
        {
            return Err(Refusal::RevisionInUse {
                revision: factory,
                why,
            });
        }
        let parsed = Manifest::parse(&manifest)?;
        self.store.lease_objects(parsed.objects().into_keys(), now);
        self.store
            .put_revision(NewRevision {
                revision: &factory,
                manifest: &manifest,
                progress: &Progress::new(State::Done, message::FACTORY, 0),
                commit_message: None,
            })
            .and_then(|()| self.store.set_done(&factory))
            .map_err(revision_refusal)?;
        self.manifests.remove(&factory);
        Ok(())
    }

    fn ready(&mut self, container: ContainerName) -> Result<(), Refusal> {
        let starting = !matches!(self.stage, Stage::Up(_));
        self.containers.ready(&container).map_err(|error| {
            if starting {
                Refusal::NotReady
            } else {
                control_refusal(error, container, Action::Start)
            }
        })
    }

    fn control(&mut self, container: &ContainerName, action: Action) -> Result<(), Refusal> {
        // A trial without one of its containers proves nothing about it, and would be committed all the same.
        if action == Action::Stop
            && let Some(trial) = self.update().and_then(|up| up.marker().trial.as_ref())
        {
            let trial = trial.revision.clone();
            return Err(Refusal::UpdateInProgress { trial });
        }
        let wanted = match action {
            Action::Start => containers::Action::Start,
            Action::Stop => containers::Action::Stop,
            Action::Restart => containers::Action::Restart,
        };
        let before = self.containers.clone();
        self.containers
            .control(container, wanted)
            .map_err(|error| control_refusal(error, container.clone(), action))?;
        let stopped: BTreeSet<_> = self.containers.user_stopped().into_iter().collect();
        if stopped != before.user_stopped().into_iter().collect()
            && let Err(error) = self.store.set_stopped(&stopped)
        {
            self.containers = before;
            return Err(disk_refusal(&error));
        }
        Ok(())
    }

    fn put_meta(&mut self, kind: MetaKind, key: MetaKey, value: Vec<u8>) -> Result<(), Refusal> {
        self.store
            .put_meta(kind, &key, &value)
            .map_err(|error| match error {
                MetaError::ValueTooLong | MetaError::TooManyKeys => {
                    Refusal::Limit(error.to_string())
                }
                MetaError::Disk(error) => disk_refusal(&error),
            })?;
        let text = format!("{} {} set", kind.folder(), key.as_str());
        let map = self.meta.map(kind);
        match map.iter_mut().find(|(known, _)| *known == key) {
            Some((_, known)) => *known = value,
            None => map.insert(0, (key, value)),
        }
        self.tell("meta", None, None, text);
        Ok(())
    }

    fn delete_meta(&mut self, kind: MetaKind, key: &MetaKey) -> Result<(), Refusal> {
        let was_there = self
            .store
            .delete_meta(kind, key)
            .map_err(|error| disk_refusal(&error))?;
        self.meta.map(kind).retain(|(known, _)| known != key);
        if !was_there {
            return Err(Refusal::NoSuchMeta);
        }
        let text = format!("{} {} removed", kind.folder(), key.as_str());
        self.tell("meta", None, None, text);
        Ok(())
    }

    /// All limits are looked at before the first key is written.
    fn update_metadata(
        &mut self,
        map: std::collections::BTreeMap<MetaKey, Vec<u8>>,
    ) -> Result<(), Refusal> {
        let known = &self.meta.device;
        let new = map
            .keys()
            .filter(|key| !known.iter().any(|(known, _)| known == *key))
            .count();
        if known.len() + new > limits::META_KEYS_MAX {
            return Err(Refusal::Limit(MetaError::TooManyKeys.to_string()));
        }
        if map
            .values()
            .any(|value| value.len() > limits::META_VALUE_BYTES_MAX)
        {
            return Err(Refusal::Limit(MetaError::ValueTooLong.to_string()));
        }
        map.into_iter()
            .try_for_each(|(key, value)| self.put_meta(MetaKind::Device, key, value))
    }
}

pub(crate) fn disk_refusal(error: &Failed) -> Refusal {
    if error.is_full() {
        Refusal::NoSpace(explain(error))
    } else if error.is_read_only() {
        Refusal::Internal(format!(
            "{}: the storage is read-only, so nothing can be changed; what runs goes on. \
             Check its file system (e2fsck), then restart the device",
            explain(error)
        ))
    } else {
        Refusal::Internal(explain(error))
    }
}

pub(crate) fn revision_refusal(error: RevisionError) -> Refusal {
    match error {
        RevisionError::Missing(revision) => Refusal::NoSuchRevision(revision),
        RevisionError::MessageTooLong => Refusal::Limit(error.to_string()),
        RevisionError::Damaged { .. } => Refusal::Internal(explain(&error)),
        RevisionError::Disk(error) => disk_refusal(&error),
    }
}

fn control_refusal(error: ControlError, container: ContainerName, action: Action) -> Refusal {
    match error {
        ControlError::NoSuchContainer => Refusal::NoSuchContainer(container),
        ControlError::System => Refusal::SystemContainer(container),
        ControlError::WrongStatus(status) => Refusal::WrongStatus {
            container,
            status,
            action,
        },
        ControlError::SignalNotExpected => Refusal::SignalNotExpected(container),
    }
}
