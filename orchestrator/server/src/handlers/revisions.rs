//! Revisions: read from the store, changed by the loop.

use api::call::RevisionRef;
use api::messages::pantavisor::steps_text;
use api::{Code, Problem};
use device::handle::{Refusal, Request};
use model::RevisionId;

use super::Asked;
use crate::http1::answer::Answer;
use crate::refusal;

pub(super) async fn list(asked: &Asked<'_, '_>) -> Result<Answer, Problem> {
    let revisions = asked.read(|storage| storage.revisions()).await?;
    let steps: Vec<_> = revisions
        .into_iter()
        .map(|summary| {
            let date = summary.date.to_string();
            (summary.revision, date, summary.message, summary.progress)
        })
        .collect();
    Ok(Answer::json(steps_text(&steps)))
}

pub(super) fn resolve(asked: &Asked<'_, '_>, revision: RevisionRef) -> Result<RevisionId, Problem> {
    match revision {
        RevisionRef::Named(revision) => Ok(revision),
        RevisionRef::Current => {
            let view = asked.view()?;
            view.running
                .clone()
                .ok_or_else(|| Problem::new(Code::NoSuchRevision, "no revision runs"))
        }
    }
}

fn missing(revision: RevisionId) -> Problem {
    refusal::problem(Refusal::NoSuchRevision(revision))
}

pub(super) async fn manifest(
    asked: &Asked<'_, '_>,
    revision: RevisionRef,
) -> Result<Answer, Problem> {
    let revision = resolve(asked, revision)?;
    let wanted = revision.clone();
    let manifest = asked.read(move |storage| storage.manifest(&wanted)).await?;
    manifest.map(Answer::json).ok_or_else(|| missing(revision))
}

pub(super) async fn progress(
    asked: &Asked<'_, '_>,
    revision: RevisionRef,
) -> Result<Answer, Problem> {
    let revision = resolve(asked, revision)?;
    let wanted = revision.clone();
    let progress = asked.read(move |storage| storage.progress(&wanted)).await?;
    progress.map(Answer::json).ok_or_else(|| missing(revision))
}

pub(super) async fn message(
    asked: &Asked<'_, '_>,
    revision: RevisionRef,
) -> Result<Answer, Problem> {
    let revision = resolve(asked, revision)?;
    let wanted = revision.clone();
    let message = asked
        .read(move |storage| storage.commit_message(&wanted))
        .await?;
    message.map(super::text).ok_or_else(|| missing(revision))
}

pub(super) async fn put(
    asked: &mut Asked<'_, '_>,
    revision: RevisionId,
) -> Result<Answer, Problem> {
    let manifest = asked.whole_body().await?.to_vec();
    asked
        .ask(Request::PutRevision { revision, manifest })
        .await?;
    Ok(Answer::done())
}

pub(super) async fn put_message(
    asked: &mut Asked<'_, '_>,
    revision: RevisionRef,
) -> Result<Answer, Problem> {
    let message = asked.whole_body().await?.to_vec();
    if message.is_empty() {
        return Err(Problem::new(Code::BadCommitMessage, "the message is empty"));
    }
    let revision = resolve(asked, revision)?;
    asked
        .ask(Request::PutCommitMessage { revision, message })
        .await?;
    Ok(Answer::done())
}

pub(super) async fn delete(
    asked: &Asked<'_, '_>,
    revision: RevisionRef,
) -> Result<Answer, Problem> {
    let revision = resolve(asked, revision)?;
    asked.ask(Request::DeleteRevision(revision)).await?;
    Ok(Answer::done())
}
