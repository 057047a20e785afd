//! `plan`: asked of the loop, measured on the disk past it, worded by [`crate::plan`].

use api::Problem;
use api::call::RevisionRef;
use device::handle::{Answer as Done, PlanOf, Request};

use super::{Asked, revisions, to_json};
use crate::http1::answer::Answer;
use crate::refusal;

pub(super) async fn plan(
    asked: &mut Asked<'_, '_>,
    revision: Option<RevisionRef>,
) -> Result<Answer, Problem> {
    let of = match revision {
        Some(revision) => PlanOf::Revision(revisions::resolve(asked, revision)?),
        None => PlanOf::Manifest(asked.whole_body().await?.to_vec()),
    };
    let planned = match asked.ask(Request::Plan(of)).await? {
        Done::Planned(planned) => planned,
        Done::Done | Done::Collected { .. } | Done::Claimed(_) => return Err(refusal::unanswered()),
    };
    let (planned, measured) = asked
        .read(move |storage| {
            let measured = storage.measure(&planned)?;
            Ok::<_, store::Failed>((planned, measured))
        })
        .await?;
    Ok(to_json(&crate::plan::render(*planned, measured)))
}
