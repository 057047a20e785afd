//! Invariant 1: answered means durable.
//!
//! Every promise that an answer made must stand on the durable disk at the moment of the answer, and on the real disk after each
//! power cut, until something was asked that may take it back.

use std::collections::BTreeMap;

use device::handle::{Answer, Command, Refusal, Request};
use model::{ObjectId, RevisionId};

use super::{Checker, Facts};

/// What an answer promised about one path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Promise {
    Is(Vec<u8>),
    /// A header of one line, then this.
    EndsWith(Vec<u8>),
    Absent,
}

/// See the file.
#[derive(Debug, Default)]
pub struct Answered {
    files: BTreeMap<String, Promise>,
    objects: BTreeMap<ObjectId, u64>,
    accepted: Option<RevisionId>,
    /// What revision 0 is to be, by request.
    factory: BTreeMap<u64, ObjectId>,
}

impl Answered {
    fn holds(&self, facts: &Facts<'_>, path: &str, promise: &Promise) -> Result<(), String> {
        let found = facts.image.file(path);
        match (promise, found) {
            (Promise::Is(bytes), Some(found)) if found[..] == bytes[..] => Ok(()),
            (Promise::EndsWith(bytes), Some(found))
                if found.strip_suffix(&bytes[..]).and_then(<[u8]>::last) == Some(&b'\n') =>
            {
                Ok(())
            }
            (Promise::Absent, None) => Ok(()),
            (Promise::Is(_) | Promise::EndsWith(_), Some(_)) => Err(format!(
                "{path} was answered with success, and is something else"
            )),
            (Promise::Is(_) | Promise::EndsWith(_), None) => Err(format!(
                "{path} was answered with success, and is not there"
            )),
            (Promise::Absent, Some(_)) => Err(format!(
                "the removal of {path} was answered with success, and it is there"
            )),
        }
    }

    fn all_hold(&self, facts: &Facts<'_>) -> Result<(), String> {
        for (path, promise) in &self.files {
            // A message goes with its revision, when that is collected.
            let collected = path
                .strip_suffix(".pv/commitmsg")
                .is_some_and(|folder| !facts.image.exists(&format!("{folder}.pvr/json")));
            if collected {
                continue;
            }
            self.holds(facts, path, promise)?;
        }
        for (object, until) in &self.objects {
            let leased = facts.now < *until && !facts.known.damaged.contains(object);
            if leased && let Some(problem) = facts.object_problem(object) {
                return Err(format!(
                    "the upload of {object} was answered with success, and it is {problem}"
                ));
            }
        }
        // One that failed before anything was changed may be collected before its last progress could be written.
        let kept = self
            .accepted
            .as_ref()
            .filter(|revision| facts.image.exists(&format!("trails/{revision}/.pvr/json")));
        if let Some(revision) = kept {
            let progress = facts.progress.get(revision);
            if progress.is_none_or(|progress| matches!(progress.status.as_str(), "" | "NEW")) {
                return Err(format!(
                    "the run of {revision} was answered with success, and its progress does not tell of it"
                ));
            }
        }
        Ok(())
    }

    /// What a request may change once it is carried out is promised no longer.
    fn take_back(&mut self, request: &Request) {
        match request {
            Request::PutRevision { revision, .. } | Request::DeleteRevision(revision) => {
                self.forget_revision(revision);
            }
            Request::PutCommitMessage { revision, .. } => {
                self.files
                    .remove(&format!("trails/{revision}/.pv/commitmsg"));
            }
            Request::PutMeta { kind, key, .. } | Request::DeleteMeta { kind, key } => {
                self.files
                    .remove(&format!("meta/{}/{}", kind.folder(), key.as_str()));
            }
            Request::Command(Command::MakeFactory(_)) => {
                self.forget_revision(&RevisionId::factory());
            }
            Request::Command(Command::FactoryReset { wipe_volumes }) => {
                self.accepted = None;
                self.files.retain(|path, promise| {
                    let goes =
                        path.starts_with("trails/") || *wipe_volumes && path.starts_with("meta/");
                    *promise == Promise::Absent || !goes
                });
            }
            Request::Command(Command::UpdateMetadata(map)) => {
                for key in map.keys() {
                    self.files.remove(&format!("meta/device/{}", key.as_str()));
                }
            }
            Request::Command(
                Command::Run { revision, .. }
                | Command::RunCommit { revision, .. }
                | Command::Apply { revision, .. },
            ) => {
                // What was run is kept by other rules than what was only installed.
                self.forget_revision(revision);
            }
            Request::Command(
                Command::Rollback | Command::Reboot(_) | Command::PowerOff(_) | Command::Collect,
            )
            | Request::Claim { .. }
            | Request::RenewClaim { .. }
            | Request::ReleaseClaim { .. }
            | Request::As { .. }
            | Request::Collect
            | Request::Plan(_)
            | Request::Control { .. }
            | Request::Ready(_)
            | Request::Stop { .. } => {}
        }
    }

    fn forget_revision(&mut self, revision: &RevisionId) {
        self.files.remove(&format!("trails/{revision}/.pvr/json"));
        self.files
            .remove(&format!("trails/{revision}/.pv/commitmsg"));
        if self.accepted.as_ref() == Some(revision) {
            self.accepted = None;
        }
    }

    fn promise(&mut self, facts: &Facts<'_>, request: &Request) {
        match request {
            Request::PutRevision { revision, manifest } => {
                let progress = facts.progress.get(revision);
                if progress.is_some_and(|progress| progress.status != "NEW") {
                    return; // It was there and was run: it is kept, or makes room, as such a one.
                }
                let promise = Promise::Is(manifest.clone());
                self.files
                    .insert(format!("trails/{revision}/.pvr/json"), promise);
            }
            Request::DeleteRevision(revision) => {
                self.files
                    .insert(format!("trails/{revision}/.pvr/json"), Promise::Absent);
            }
            Request::PutCommitMessage { revision, message } => {
                let promise = Promise::Is(message.clone());
                self.files
                    .insert(format!("trails/{revision}/.pv/commitmsg"), promise);
            }
            Request::PutMeta { kind, key, value } => {
                let path = format!("meta/{}/{}", kind.folder(), key.as_str());
                self.files.insert(path, Promise::EndsWith(value.clone()));
            }
            Request::DeleteMeta { kind, key } => {
                let path = format!("meta/{}/{}", kind.folder(), key.as_str());
                self.files.insert(path, Promise::Absent);
            }
            Request::Command(
                Command::Run { revision, .. }
                | Command::RunCommit { revision, .. }
                | Command::Apply { revision, .. },
            ) => {
                self.accepted = Some(revision.clone());
            }
            Request::Command(Command::UpdateMetadata(map)) => {
                for (key, value) in map {
                    let path = format!("meta/device/{}", key.as_str());
                    self.files.insert(path, Promise::EndsWith(value.clone()));
                }
            }
            Request::Command(
                Command::Rollback
                | Command::Reboot(_)
                | Command::PowerOff(_)
                | Command::MakeFactory(_)
                | Command::FactoryReset { .. }
                | Command::Collect,
            )
            | Request::Control { .. }
            | Request::Ready(_)
            | Request::Claim { .. }
            | Request::RenewClaim { .. }
            | Request::ReleaseClaim { .. }
            | Request::As { .. }
            | Request::Collect
            | Request::Plan(_)
            | Request::Stop { .. } => {}
        }
    }
}

impl Checker for Answered {
    fn invariant(&self) -> u8 {
        1
    }

    fn asked(&mut self, facts: &Facts<'_>, id: u64, request: &Request) {
        self.take_back(request);
        if let Request::Command(Command::MakeFactory(Some(revision))) = request
            && let Some(source) = facts.software(revision)
        {
            self.factory.insert(id, source.digest);
        }
    }

    fn answered(
        &mut self,
        facts: &Facts<'_>,
        id: u64,
        request: &Request,
        answer: &Result<Answer, Refusal>,
    ) -> Result<(), String> {
        let source = self.factory.remove(&id);
        if answer.is_err() {
            return Ok(());
        }
        self.promise(facts, request);
        if let Request::Command(Command::MakeFactory(Some(revision))) = request {
            let factory = facts.software(&RevisionId::factory()).map(|it| it.digest);
            if factory != source {
                return Err(format!(
                    "{revision} was made factory, and revision 0 differs"
                ));
            }
        }
        self.all_hold(facts)
    }

    fn uploaded(&mut self, facts: &Facts<'_>, object: &ObjectId) -> Result<(), String> {
        let lease = u64::try_from(facts.known.upload_lease.as_millis()).unwrap_or(u64::MAX);
        self.objects
            .insert(*object, facts.now.saturating_add(lease));
        self.all_hold(facts)
    }

    fn changed(&mut self, facts: &Facts<'_>) -> Result<(), String> {
        let progress = |revision| facts.progress.get(revision);
        let ended = self.accepted.as_ref().and_then(progress);
        if ended.is_some_and(super::records::ProgressRecord::is_final) {
            self.accepted = None;
        }
        Ok(())
    }

    fn started(&mut self, facts: &Facts<'_>, _: bool) -> Result<(), String> {
        self.all_hold(facts)
    }

    fn settled(&mut self, facts: &Facts<'_>, _: &super::Rest) -> Result<(), String> {
        self.all_hold(facts)
    }
}
