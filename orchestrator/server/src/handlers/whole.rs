//! The device as a whole: commands, collection, status, health, configuration, failures, why.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::call::{Subject, no_such_failure, no_such_subject};
use api::explain::{self, RevisionFacts};
use api::messages::ours::{Health, Version};
use api::messages::pantavisor::{CommandBody, Op};
use api::{Code, Problem, call};
use device::handle::{Answer as Done, Command, Refusal, Request};
use model::failure::{BadObject, Failure};
use model::metadata::MetaKey;
use model::usage::Usage;
use model::{Manifest, ObjectId, Progress, RevisionId};

use super::{Asked, text, to_json};
use crate::http1::answer::{Answer, Body, JSON};
use crate::metrics;
use crate::refusal;
use crate::status;
use crate::storage::ReadError;

/// Name in `GET /version`.
const NAME: &str = "coxswain";

pub(super) async fn command(asked: &mut Asked<'_, '_>) -> Result<Answer, Problem> {
    let body = asked.whole_body().await?;
    let body = call::parse_command(&body)?;
    let command = match body.op {
        Op::LocalRun => Command::Run {
            revision: revision(&body)?,
            again: body.again,
        },
        Op::LocalApply => Command::Apply {
            revision: revision(&body)?,
            again: body.again,
        },
        Op::LocalRunCommit => Command::RunCommit {
            revision: revision(&body)?,
            again: body.again,
        },
        Op::MakeFactory if body.payload_text().is_empty() => Command::MakeFactory(None),
        Op::MakeFactory => Command::MakeFactory(Some(revision(&body)?)),
        Op::RebootDevice => Command::Reboot(body.payload_text()),
        Op::PoweroffDevice => Command::PowerOff(body.payload_text()),
        Op::RunGc => Command::Collect,
        Op::UpdateMetadata => Command::UpdateMetadata(metadata(&body)?),
        Op::Rollback => Command::Rollback,
        Op::FactoryReset => Command::FactoryReset {
            wipe_volumes: wipes_volumes(&body)?,
        },
        Op::DisableSsh => return Ok(Answer::done()),
        Op::Unclaim => return unclaim(asked),
        Op::EnableSsh => {
            return Err(unsupported(
                "Coxswain has no SSH server",
                "run one as a container",
            ));
        }
        Op::GoRemote => {
            return Err(
                unsupported("there is no remote mode", "run a cloud client instead")
                    .pantavisor("Cannot do this operation when remote mode is disabled by config"),
            );
        }
        Op::DeferReboot => {
            return Err(
                unsupported("there is no debug shell", "do not ask for the reboot yet")
                    .pantavisor("Cannot do this operation when debug shell is not active"),
            );
        }
        Op::TryOnce => {
            return Err(unsupported(
                "there are no trials that end without a commit",
                "send LOCAL_RUN: it tries the revision and rolls back when it is sick; ROLLBACK goes back later",
            ));
        }
        Op::XconnectGraph => {
            return Err(unsupported(
                "the orchestrator does not connect services of containers",
                "share a volume or a network between the containers",
            ));
        }
    };
    asked.ask(Request::Command(command)).await?;
    Ok(Answer::done())
}

fn unsupported(detail: &str, remedy: &str) -> Problem {
    Problem::new(Code::CommandNotSupported, detail).remedy(remedy)
}

fn revision(body: &CommandBody) -> Result<RevisionId, Problem> {
    let payload = body.payload_text();
    payload.parse().map_err(|error: model::id::InvalidName| {
        Problem::new(
            Code::BadCommand,
            format!("the payload is no revision: {error}"),
        )
    })
}

fn wipes_volumes(body: &CommandBody) -> Result<bool, Problem> {
    match body.payload_text().as_str() {
        "" | "keep-volumes" => Ok(false),
        "wipe-volumes" => Ok(true),
        _ => {
            let detail = "the payload of FACTORY_RESET is keep-volumes or wipe-volumes";
            Err(Problem::new(Code::BadCommand, detail))
        }
    }
}

fn metadata(body: &CommandBody) -> Result<BTreeMap<MetaKey, Vec<u8>>, Problem> {
    let bad = |detail: String| {
        Problem::new(Code::BadCommand, detail)
            .remedy("send a JSON object of texts, as a string: \"{\\\"key\\\":\\\"value\\\"}\"")
    };
    let payload: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(&body.payload_text())
            .map_err(|error| bad(format!("the payload is no JSON object: {error}")))?;
    payload
        .into_iter()
        .map(|(key, value)| {
            let parsed: MetaKey = key.parse().map_err(|_| bad(format!("{key:?} is no key")))?;
            let value = match value {
                serde_json::Value::String(text) => text,
                other @ (serde_json::Value::Null
                | serde_json::Value::Bool(_)
                | serde_json::Value::Number(_)
                | serde_json::Value::Array(_)
                | serde_json::Value::Object(_)) => other.to_string(),
            };
            if value.len() > model::limits::META_VALUE_BYTES_MAX {
                return Err(bad(format!(
                    "the value of {key:?} is longer than 4096 bytes"
                )));
            }
            Ok((parsed, value.into_bytes()))
        })
        .collect()
}

/// The orchestrator is never claimed, so that it is unclaimed already; during an update Pantavisor refuses before it looks.
fn unclaim(asked: &Asked<'_, '_>) -> Result<Answer, Problem> {
    match &asked.shared.handle.view().trial {
        Some(trial) => Err(refusal::problem(Refusal::UpdateInProgress {
            trial: trial.revision.clone(),
        })),
        None => Ok(Answer::new(204, JSON, Body::Empty)),
    }
}

pub(super) async fn collect(asked: &Asked<'_, '_>) -> Result<Answer, Problem> {
    let reclaimed = match asked.ask(Request::Collect).await? {
        Done::Collected { reclaimed } => reclaimed,
        Done::Done | Done::Planned(_) | Done::Claimed(_) => 0,
    };
    // The space is Pantavisor's.
    Ok(Answer::json(format!("{{\"reclaimed\": {reclaimed}}}")))
}

pub(super) fn build_info(asked: &Asked<'_, '_>) -> Answer {
    let mut answer = text(asked.shared.settings.build_info());
    answer.lower_case = true;
    answer
}

pub(super) fn config(asked: &Asked<'_, '_>) -> Answer {
    let mut body = String::from("{");
    for (alias, value) in asked.shared.settings.legacy() {
        if body.len() > 1 {
            body.push(',');
        }
        body.push_str(&serde_json::Value::String(alias).to_string());
        body.push(':');
        body.push_str(&value.to_string());
    }
    body.push('}');
    Answer::json(body)
}

pub(super) fn config2(asked: &Asked<'_, '_>) -> Answer {
    to_json(&asked.shared.settings.entries())
}

pub(super) async fn status(asked: &Asked<'_, '_>) -> Result<Answer, Problem> {
    Ok(to_json(&whole_status(asked).await?))
}

async fn whole_status(asked: &Asked<'_, '_>) -> Result<api::messages::ours::DeviceStatus, Problem> {
    let view = asked.shared.handle.view();
    let last = view.last_failure;
    let (space, failure) = asked
        .read(move |storage| -> Result<_, ReadError> {
            let failure = match last {
                Some(id) => storage.failure(id)?,
                None => None,
            };
            Ok((storage.space()?, failure))
        })
        .await?;
    let clock = &asked.shared.clock;
    Ok(status::render(
        &view,
        clock.now(),
        clock.wall(),
        Some(space),
        failure.as_ref(),
    ))
}

/// Asked by watchdogs of others: answered from memory.
pub(super) fn health(asked: &Asked<'_, '_>) -> Answer {
    let view = asked.shared.handle.view();
    let clock = &asked.shared.clock;
    let status = status::render(&view, clock.now(), clock.wall(), None, None);
    let problems = status::problems(&status);
    let health = Health {
        ok: problems.is_empty(),
        problems,
    };
    let mut answer = to_json(&health);
    if !health.ok {
        answer.status = 503;
    }
    answer
}

/// Reads what everything uses, where waiting is allowed.
async fn used(asked: &Asked<'_, '_>) -> Result<Usage, Problem> {
    let figures = Arc::clone(&asked.shared.figures);
    let at_ms = asked.shared.clock.now().0;
    asked
        .blocking(move |_| Usage {
            at_ms,
            machine: figures.machine(),
            containers: figures.containers(),
        })
        .await
}

pub(super) async fn usage(asked: &Asked<'_, '_>) -> Result<Answer, Problem> {
    Ok(to_json(&used(asked).await?))
}

pub(super) async fn metrics(asked: &Asked<'_, '_>) -> Result<Answer, Problem> {
    let usage = used(asked).await?;
    let view = asked.shared.handle.view();
    let clock = &asked.shared.clock;
    let (now, wall) = (clock.now(), clock.wall());
    let calls = Arc::clone(&asked.shared.calls);
    let text = asked
        .blocking(move |storage| {
            // A disk that does not tell leaves its figures out; the others are wanted all the more.
            let space = storage.space().ok();
            let status = status::render(&view, now, wall, space, None);
            metrics::text(&metrics::Facts {
                healthy: status::problems(&status).is_empty(),
                status: &status,
                view: &view,
                usage: &usage,
                space,
                objects: calls.objects(storage, now),
                calls: &calls,
            })
        })
        .await?;
    Ok(Answer::new(
        200,
        api::openmetrics::MEDIA_TYPE,
        Body::Bytes(text.into()),
    ))
}

pub(super) fn version() -> Answer {
    to_json(&Version {
        name: NAME.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

pub(super) async fn failures(asked: &Asked<'_, '_>) -> Result<Answer, Problem> {
    let failures = asked.read(|storage| storage.failures()).await?;
    let summaries: Vec<_> = failures.iter().map(explain::summary).collect();
    Ok(to_json(&summaries))
}

pub(super) async fn failure(asked: &Asked<'_, '_>, id: u64) -> Result<Answer, Problem> {
    let failure = asked.read(move |storage| storage.failure(id)).await?;
    failure
        .map(|failure| to_json(&failure))
        .ok_or_else(|| no_such_failure(id))
}

/// What the store knows of what `why` was asked about.
struct Facts {
    progress: Option<Progress>,
    failure: Option<Failure>,
    running: Option<Manifest>,
    manifest: Option<Manifest>,
    missing: Vec<BadObject>,
}

/// Missing objects that are looked for; more of them say no more.
const MISSING_MAX: usize = 64;

/// Objects of a manifest that are not there.
fn missing(storage: &dyn crate::Storage, manifest: &Manifest) -> Result<Vec<BadObject>, ReadError> {
    let mut missing = Vec::new();
    for (object, key) in manifest.objects() {
        if missing.len() < MISSING_MAX && storage.object_len(&object)?.is_none() {
            missing.push(BadObject {
                object,
                key: key.to_string(),
                problem: "missing".to_owned(),
            });
        }
    }
    Ok(missing)
}

fn facts(
    storage: &dyn crate::Storage,
    running: Option<&RevisionId>,
    subject: &Subject,
) -> Result<Facts, ReadError> {
    let running = match running {
        Some(running) => storage.manifest(running)?,
        None => None,
    };
    let running = running.and_then(|bytes| Manifest::parse(&bytes).ok());
    let failures = storage.failures()?;
    let Subject::Revision(revision) = subject else {
        return Ok(Facts {
            progress: None,
            failure: failures.into_iter().next(),
            running,
            manifest: None,
            missing: Vec::new(),
        });
    };
    let progress = storage.progress(revision)?;
    let bytes = storage.manifest(revision)?;
    let digest = bytes.as_deref().map(ObjectId::of);
    let manifest = bytes.and_then(|bytes| Manifest::parse(&bytes).ok());
    let missing = match &manifest {
        Some(manifest) => missing(storage, manifest)?,
        None => Vec::new(),
    };
    let failure = failures.into_iter().find(|failure| {
        failure.revision == *revision || (digest.is_some() && failure.manifest == digest)
    });
    Ok(Facts {
        progress: progress.and_then(|bytes| serde_json::from_slice(&bytes).ok()),
        failure,
        running,
        manifest,
        missing,
    })
}

pub(super) async fn why(asked: &Asked<'_, '_>, subject: Subject) -> Result<Answer, Problem> {
    let status = whole_status(asked).await?;
    let about = subject.clone();
    let running = status.running.clone();
    let facts = asked
        .read(move |storage| facts(storage, running.as_ref(), &about))
        .await?;
    let known = RevisionFacts {
        progress: facts.progress.as_ref(),
        failure: facts.failure.as_ref(),
        running: facts.running.as_ref(),
        manifest: facts.manifest.as_ref(),
        missing: &facts.missing,
    };
    let answer = explain::explain(&status, &known, &subject).or_else(|| {
        // A container may be called `5`, as a revision may.
        let Subject::Revision(revision) = &subject else {
            return None;
        };
        let container = revision.as_str().parse().ok()?;
        explain::explain(&status, &known, &Subject::Container(container))
    });
    let name = match &subject {
        Subject::Device => "the device".to_owned(),
        Subject::Revision(revision) => revision.to_string(),
        Subject::Container(container) => container.to_string(),
    };
    answer
        .map(|why| to_json(&why))
        .ok_or_else(|| no_such_subject(name))
}
