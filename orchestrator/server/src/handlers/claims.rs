//! Claims: what clients have claimed of the device.

use std::time::Duration;

use api::messages::ours::Claim;
use api::{Code, Problem, call};
use device::handle::{Answer as Done, ClaimView, Conflict, Request};
use model::WallTime;

use super::{Asked, to_json};
use crate::Shared;
use crate::http1::answer::Answer;

pub(super) fn list(asked: &Asked<'_, '_>) -> Answer {
    let view = asked.shared.handle.view();
    let claims: Vec<Claim> = view
        .claims
        .iter()
        .map(|shown| told(asked.shared, shown))
        .collect();
    to_json(&claims)
}

pub(super) async fn claim(asked: &mut Asked<'_, '_>) -> Result<Answer, Problem> {
    let body = asked.whole_body().await?;
    let request = Request::Claim {
        client: asked.client()?,
        wanted: call::parse_claim(&body)?,
    };
    held(asked, request).await
}

pub(super) async fn renew(asked: &mut Asked<'_, '_>, id: u64) -> Result<Answer, Problem> {
    let body = asked.whole_body().await?;
    let request = Request::RenewClaim {
        client: asked.client()?,
        id,
        lease_s: call::parse_lease(&body)?,
    };
    held(asked, request).await
}

pub(super) async fn release(asked: &Asked<'_, '_>, id: u64) -> Result<Answer, Problem> {
    let client = asked.client()?;
    asked.ask(Request::ReleaseClaim { client, id }).await?;
    Ok(Answer::done())
}

async fn held(asked: &Asked<'_, '_>, request: Request) -> Result<Answer, Problem> {
    match asked.ask(request).await? {
        Done::Claimed(shown) => Ok(to_json(&told(asked.shared, &shown))),
        Done::Done | Done::Collected { .. } | Done::Planned(_) => Err(Problem::new(
            Code::Internal,
            "the loop did not tell the claim; see GET /claims",
        )),
    }
}

fn told(shared: &Shared, shown: &ClaimView) -> Claim {
    let left = shown.expires.since(shared.clock.now());
    message(shared, &shown.claim, left, shown.overruled_by)
}

/// The claim that stands in the way of a request.
pub(super) fn in_the_way(shared: &Shared, conflict: &Conflict) -> Claim {
    let view = shared.handle.view();
    let id = conflict.claim.id;
    let overruled_by = view
        .claims
        .iter()
        .find(|shown| shown.claim.id == id)
        .and_then(|shown| shown.overruled_by);
    message(shared, &conflict.claim, conflict.left, overruled_by)
}

fn message(
    shared: &Shared,
    claim: &model::claim::Claim,
    left: Duration,
    overruled_by: Option<u64>,
) -> Claim {
    let left_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    let until = shared.clock.wall().0.saturating_add(left_ms);
    Claim {
        id: claim.id,
        client: claim.client.clone(),
        parts: claim.parts.clone(),
        priority: claim.priority,
        lease_s: claim.lease_s,
        left_s: left.as_secs(),
        until: WallTime(until).to_string(),
        overruled_by,
    }
}
