//! A device in memory for the tests of this crate: it holds objects, parts and revisions, and tells what it was asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use api::Code;
use api::messages::ours::{
    Claim, ClaimBody, Condition, DeviceStatus, FailureSummary, Failures, Why,
};
use api::messages::plan::{
    MissingObject, Plan, PlannedObjects, PlannedSpace, Rollback, Signatures, Way,
};
use bytes::Bytes;
use client::{Error, Found, Outgoing, Refusal};
use http_body_util::BodyExt as _;
use model::failure::{Cause, Failure, Pressure};
use model::metadata::{MetaKey, MetaKind};
use model::progress::State;
use model::{Manifest, ObjectId, Progress, RevisionId, WallTime};

use crate::device::{Device, Pieces};

/// What is in it.
#[derive(Debug, Default)]
pub(crate) struct Inside {
    pub(crate) objects: BTreeMap<ObjectId, Bytes>,
    pub(crate) parts: BTreeMap<ObjectId, Vec<u8>>,
    pub(crate) revisions: BTreeMap<RevisionId, (Bytes, Progress, String)>,
    pub(crate) running: Option<RevisionId>,
    pub(crate) user_meta: BTreeMap<String, serde_json::Value>,
    pub(crate) device_meta: BTreeMap<String, serde_json::Value>,
    pub(crate) free_bytes: u64,
    /// Uploads break after so many bytes, once.
    pub(crate) break_after: Option<usize>,
    /// Uploads find no room beyond so many bytes …
    pub(crate) full_after: Option<usize>,
    /// … until so many bytes that nobody needs are collected.
    pub(crate) rubbish: u64,
    pub(crate) collections: u32,
    /// What a revision becomes: progress at each look after it was run.
    pub(crate) fate: Vec<State>,
    pub(crate) runs: Vec<(RevisionId, bool)>,
    pub(crate) claims: u32,
    pub(crate) failed: Vec<ObjectId>,
    /// Failure records, by their number.
    pub(crate) failures: BTreeMap<u64, Failure>,
    /// So many questions for a failure are not answered: the device is going back.
    pub(crate) mute: u32,
}

/// The device.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fake(pub(crate) Arc<Mutex<Inside>>);

/// Bytes of an object.
pub(crate) struct Whole(Option<Bytes>);

impl Pieces for Whole {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        Ok(self.0.take())
    }
}

fn refused(code: Code) -> Error {
    Error::Refused {
        call: "fake".to_owned(),
        refusal: Box::new(Refusal {
            status: code.status(),
            code: Some(code),
            code_word: Some(code.as_str().to_owned()),
            detail: code.title().to_owned(),
            remedy: None,
            retry_after: None,
            problems: Vec::new(),
        }),
    }
}

/// The record of a container that ended by itself.
fn failure(id: u64, revision: &RevisionId) -> Failure {
    Failure {
        version: 1,
        id,
        revision: revision.clone(),
        manifest: None,
        rolled_back_to: Some(RevisionId::factory()),
        container: Some("web".parse().unwrap()),
        cause: Cause::Exited {
            code: 7,
            out_of_memory: false,
            damaged: None,
            uptime_s: 1,
        },
        message: "Container not started".to_owned(),
        time: WallTime(0),
        tries: 1,
        containers: Vec::new(),
        log: vec!["cannot bind".to_owned()],
        pressure: Pressure::default(),
    }
}

impl Fake {
    pub(crate) fn new() -> Self {
        let fake = Self::default();
        fake.inside().free_bytes = u64::MAX;
        fake.inside().fate = vec![
            State::InProgress,
            State::Testing,
            State::Updated,
            State::Done,
        ];
        fake
    }

    pub(crate) fn inside(&self) -> std::sync::MutexGuard<'_, Inside> {
        self.0.lock().unwrap()
    }

    /// Has a revision run, committed, with all its objects.
    pub(crate) fn runs(&self, manifest: &[u8], objects: &[&[u8]]) {
        let mut inside = self.inside();
        let name = RevisionId::factory();
        let done = Progress::new(State::Done, "", 0);
        inside.revisions.insert(
            name.clone(),
            (Bytes::copy_from_slice(manifest), done, String::new()),
        );
        inside.running = Some(name);
        for bytes in objects {
            inside
                .objects
                .insert(ObjectId::of(bytes), Bytes::copy_from_slice(bytes));
        }
    }
}

impl Device for Fake {
    type Pieces = Whole;

    async fn status(&self) -> Result<DeviceStatus, Error> {
        let inside = self.inside();
        let manifest = inside
            .running
            .as_ref()
            .and_then(|name| inside.revisions.get(name));
        Ok(DeviceStatus {
            version: String::new(),
            time: String::new(),
            uptime_s: 0,
            condition: Condition::Good,
            running: inside.running.clone(),
            manifest: manifest.map(|(bytes, ..)| ObjectId::of(bytes)),
            committed: inside.running.clone(),
            previous: None,
            trial: None,
            groups: Vec::new(),
            containers: Vec::new(),
            storage: None,
            last_failure: None,
            runtime_problem: None,
            notices: Vec::new(),
        })
    }

    async fn manifest(&self, revision: Option<&RevisionId>) -> Result<Bytes, Error> {
        let inside = self.inside();
        let name = revision.or(inside.running.as_ref());
        let found = name.and_then(|name| inside.revisions.get(name));
        found
            .map(|(bytes, ..)| bytes.clone())
            .ok_or_else(|| refused(Code::NoSuchRevision))
    }

    async fn plan_manifest(&self, manifest: Bytes) -> Result<Plan, Error> {
        let manifest = Manifest::parse(&manifest).map_err(|_| refused(Code::BadManifest))?;
        let inside = self.inside();
        let missing = manifest
            .objects()
            .into_iter()
            .filter(|(object, _)| !inside.objects.contains_key(object))
            .map(|(object, key)| MissingObject {
                object,
                key: key.to_string(),
                bytes: None,
                uploaded: inside
                    .parts
                    .get(&object)
                    .map_or(0, |part| part.len() as u64),
            });
        let mut plan = Plan {
            revision: None,
            manifest: manifest.digest(),
            running: inside.running.clone(),
            way: Way::InPlace,
            refused: None,
            boot_changes: Vec::new(),
            containers: Vec::new(),
            steps: Vec::new(),
            goals_after: None,
            committed_after_ms: None,
            downtime: None,
            objects: PlannedObjects {
                needed: manifest.objects().len() as u64,
                there_bytes: 0,
                missing: missing.collect(),
                fetch_bytes: None,
            },
            space: PlannedSpace {
                manifest_bytes: manifest.bytes().len() as u64,
                needed_bytes: None,
                available_bytes: inside.free_bytes,
                enough: None,
                removed: Vec::new(),
                freed_objects: 0,
                freed_bytes: 0,
                freed_later_bytes: 0,
            },
            rollback: Rollback {
                during_trial: None,
                after_commit: None,
            },
            signatures: Signatures::NotChecked,
        };
        plan.add_up();
        Ok(plan)
    }

    async fn collect(&self) -> Result<u64, Error> {
        let mut inside = self.inside();
        inside.collections += 1;
        let bytes = std::mem::take(&mut inside.rubbish);
        if bytes > 0 {
            inside.full_after = None;
        }
        Ok(bytes)
    }

    async fn find_object(&self, object: &ObjectId) -> Result<Found, Error> {
        let inside = self.inside();
        Ok(if inside.objects.contains_key(object) {
            Found::Whole
        } else {
            match inside.parts.get(object) {
                Some(part) => Found::Part {
                    bytes: part.len() as u64,
                },
                None => Found::Nothing,
            }
        })
    }

    async fn append_object(
        &self,
        object: &ObjectId,
        offset: u64,
        mut body: Outgoing,
    ) -> Result<(), Error> {
        let mut part = self.inside().parts.remove(object).unwrap_or_default();
        part.truncate(usize::try_from(offset).unwrap());
        assert_eq!(
            part.len() as u64,
            offset,
            "a part begins where the last one ended"
        );
        let mut got = 0;
        loop {
            let limit = self.inside().break_after;
            let broken = match body.frame().await {
                None => break,
                Some(Ok(frame)) => {
                    let piece = frame.into_data().unwrap();
                    got += piece.len();
                    part.extend_from_slice(&piece);
                    limit.is_some_and(|limit| got > limit)
                }
                Some(Err(source)) => {
                    self.inside().parts.insert(*object, part);
                    return Err(Error::Source {
                        what: "body".to_owned(),
                        source,
                    });
                }
            };
            if self.inside().full_after.is_some_and(|room| got > room) {
                self.inside().parts.insert(*object, part);
                return Err(refused(Code::NoSpace));
            }
            if broken {
                let mut inside = self.inside();
                inside.break_after = None;
                inside.parts.insert(*object, part);
                return Err(Error::Broken {
                    call: "fake".to_owned(),
                    source: "cut".into(),
                });
            }
        }
        if ObjectId::of(&part) != *object {
            return Err(refused(Code::BadChecksum));
        }
        self.inside().objects.insert(*object, part.into());
        Ok(())
    }

    async fn download(&self, object: &ObjectId, offset: u64) -> Result<Whole, Error> {
        let inside = self.inside();
        let bytes = inside
            .objects
            .get(object)
            .ok_or_else(|| refused(Code::NoSuchObject))?;
        Ok(Whole(Some(bytes.slice(usize::try_from(offset).unwrap()..))))
    }

    async fn put_manifest(&self, revision: &RevisionId, manifest: Bytes) -> Result<(), Error> {
        Manifest::parse(&manifest).map_err(|_| refused(Code::BadManifest))?;
        let fresh = Progress::new(State::New, "", 0);
        let revisions = &mut self.inside().revisions;
        revisions.insert(revision.clone(), (manifest, fresh, String::new()));
        Ok(())
    }

    async fn put_commit_message(&self, revision: &RevisionId, message: &str) -> Result<(), Error> {
        let mut inside = self.inside();
        let revision = inside.revisions.get_mut(revision);
        revision.ok_or_else(|| refused(Code::NoSuchRevision))?.2 = message.to_owned();
        Ok(())
    }

    async fn delete_revision(&self, revision: &RevisionId) -> Result<(), Error> {
        self.inside().revisions.remove(revision);
        Ok(())
    }

    async fn run(&self, revision: &RevisionId, again: bool) -> Result<(), Error> {
        let mut inside = self.inside();
        inside.runs.push((revision.clone(), again));
        let failed = inside.failed.clone();
        let found = inside.revisions.get_mut(revision);
        let (bytes, progress, _) = found.ok_or_else(|| refused(Code::NoSuchRevision))?;
        if failed.contains(&ObjectId::of(bytes)) && !again {
            return Err(refused(Code::FailedBefore));
        }
        progress.status = State::Queued;
        Ok(())
    }

    async fn progress(&self, revision: &RevisionId) -> Result<Progress, Error> {
        let mut inside = self.inside();
        let fate = inside.fate.clone();
        let found = inside.revisions.get_mut(revision);
        let (_, progress, _) = found.ok_or_else(|| refused(Code::NoSuchRevision))?;
        let now = progress.clone();
        if now.status != State::New && !matches!(now.status, State::Done | State::Error) {
            let place = fate.iter().position(|state| *state == now.status);
            let next = fate[place.map_or(0, |place| place + 1)];
            progress.status = next;
            if next == State::Done {
                inside.running = Some(revision.clone());
            }
            if next == State::Error {
                // The record is durable before the progress.
                let id = inside.failures.len() as u64 + 1;
                inside.failures.insert(id, failure(id, revision));
            }
        }
        Ok(now)
    }

    async fn failures(&self) -> Result<Failures, Error> {
        let inside = self.inside();
        let short = inside
            .failures
            .values()
            .rev()
            .map(|failure| FailureSummary {
                id: failure.id,
                revision: failure.revision.clone(),
                time: String::new(),
                summary: String::new(),
            });
        Ok(short.collect())
    }

    async fn why_revision(&self, revision: &RevisionId) -> Result<Why, Error> {
        let mut inside = self.inside();
        if inside.mute > 0 {
            inside.mute -= 1;
            return Err(refused(Code::ShuttingDown));
        }
        let mut failures = inside.failures.values().rev();
        let failure = failures.find(|failure| failure.revision == *revision);
        Ok(Why {
            subject: revision.to_string(),
            summary: "it was given up".to_owned(),
            because: vec!["it was started 3 times".to_owned()],
            chain: Vec::new(),
            remedy: Vec::new(),
            failure: failure.map(|failure| failure.id),
            log: Vec::new(),
        })
    }

    async fn failure(&self, id: u64) -> Result<Failure, Error> {
        let failure = self.inside().failures.get(&id).cloned();
        failure.ok_or_else(|| refused(Code::NoSuchFailure))
    }

    async fn metadata(&self, kind: MetaKind) -> Result<BTreeMap<String, serde_json::Value>, Error> {
        Ok(match kind {
            MetaKind::User => self.inside().user_meta.clone(),
            MetaKind::Device => self.inside().device_meta.clone(),
        })
    }

    async fn put_metadata(&self, kind: MetaKind, key: &MetaKey, value: Bytes) -> Result<(), Error> {
        let text = String::from_utf8(value.to_vec()).unwrap();
        let value = serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text));
        let mut inside = self.inside();
        let map = match kind {
            MetaKind::User => &mut inside.user_meta,
            MetaKind::Device => &mut inside.device_meta,
        };
        map.insert(key.as_str().to_owned(), value);
        Ok(())
    }

    async fn claim(&self, _wanted: &ClaimBody) -> Result<Claim, Error> {
        self.inside().claims += 1;
        Err(refused(Code::Claimed))
    }
}
