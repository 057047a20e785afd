//! One connection, request after request: read, route, check the caller, carry out, answer.

use std::sync::Arc;

use api::routes::{self, Body as RouteBody, Match, Shape};
use api::{Code, Problem};
use bytes::Bytes;
use tokio::net::UnixStream;

use crate::Shared;
use crate::callers::{self, Caller};
use crate::handlers::{self, Asked};
use crate::http1::answer::{Answer, Body, Framing, JSON};
use crate::http1::head::{Head, Rejected};
use crate::http1::wire::{HeadError, RequestBody, Wire};
use crate::listen::Place;

/// Bytes that are thrown away while a connection is closed after an early answer: clients that cannot stop sending are let finish.
const DRAIN_BYTES_MAX: u64 = 64 << 30;

/// Serves a connection to its end.
pub(crate) async fn serve(shared: Arc<Shared>, stream: UnixStream, caller: Caller, place: Place) {
    let mut wire = Wire::new(stream, Arc::clone(&shared.rare_heads));
    loop {
        place.idle();
        let came = tokio::select! {
            biased;
            came = tokio::time::timeout(shared.timeouts.idle, wire.wait()) => came.unwrap_or(false),
            () = place.evicted() => false,
        };
        if !came {
            return;
        }
        place.busy();
        let head = match wire.head(shared.timeouts.head).await {
            Ok(head) => head,
            Err(error) => {
                reject(&shared, &mut wire, &error).await;
                return;
            }
        };
        if head.foreign_host {
            return;
        }
        match request(&shared, &mut wire, &caller, &head).await {
            After::Next => {}
            After::End => return,
            After::Drain => {
                // It has its answer: from here on it makes room for others as an idle one does.
                place.idle();
                tokio::select! {
                    () = wire.close_gently(DRAIN_BYTES_MAX, shared.timeouts.stop) => {}
                    () = place.evicted() => {}
                }
                return;
            }
        }
    }
}

async fn reject(shared: &Shared, wire: &mut Wire, error: &HeadError) {
    let rejected = match error {
        HeadError::Gone => return,
        HeadError::TooSlow => Rejected {
            status: 408,
            version: crate::http1::head::Version::HTTP_11,
        },
        HeadError::Rejected(rejected) => *rejected,
    };
    let answer = Answer::rejected(rejected.status);
    let framing = Framing::of_rejected(rejected);
    if wire
        .answer(framing, answer, shared.timeouts.write)
        .await
        .is_ok()
    {
        wire.close_gently(crate::limits::SKIP_BYTES_MAX, shared.timeouts.stop)
            .await;
    }
}

/// What follows an answer.
enum After {
    /// The next request.
    Next,
    /// Nothing: the connection is closed.
    End,
    /// The connection is closed when the client has stopped sending.
    Drain,
}

/// Serves one request.
async fn request(shared: &Shared, wire: &mut Wire, caller: &Caller, head: &Head) -> After {
    let mut body = RequestBody::new(wire, head, shared.timeouts.body);
    let mut answer = answer(shared, caller, head, &mut body).await;
    // What the client still sends would be taken for its next request: little is read away, else the connection ends here.
    answer.close = answer.close || !body.skip().await;
    let finished = body.is_finished();
    let framing = Framing::of(head);
    tracing::debug!(
        method = head.method.as_str(),
        target = head.target,
        status = answer.status
    );
    match wire.answer(framing, answer, shared.timeouts.write).await {
        Ok(true) => After::Next,
        // Nothing is on its way: the client has its answer, whole.
        Ok(false) if finished => After::End,
        Ok(false) => After::Drain,
        Err(error) => {
            tracing::debug!(%error, "the client did not take its answer");
            After::End
        }
    }
}

async fn answer(
    shared: &Shared,
    caller: &Caller,
    head: &Head,
    body: &mut RequestBody<'_>,
) -> Answer {
    let found = match routes::find(head.method, &head.target) {
        Ok(found) => found,
        // Where no route knows PATCH, it is a method that Pantavisor does not know.
        Err(_) if head.method == api::Method::Patch => return Answer::rejected(501),
        Err(problem) => return refused(&problem, Shape::Pantavisor, head),
    };
    let began = std::time::Instant::now();
    let answer = match checked(shared, caller, head, body, &found).await {
        Ok(answer) => answer,
        Err(problem) if problem.code == Code::BadChunk => Answer::rejected(413),
        Err(problem) => refused(&problem, found.route.shape, head),
    };
    shared
        .calls
        .note(found.route, answer.status, began.elapsed());
    answer
}

async fn checked(
    shared: &Shared,
    caller: &Caller,
    head: &Head,
    body: &mut RequestBody<'_>,
    found: &Match<'_>,
) -> Result<Answer, Problem> {
    callers::check(caller, &shared.handle.view(), found)?;
    let limit = match found.route.body {
        RouteBody::None => 0,
        RouteBody::Limit(bytes) => bytes,
        RouteBody::Stream => usize::MAX,
    };
    let asked = Asked {
        shared,
        caller,
        head,
        body,
        limit,
    };
    handlers::carry_out(found, asked).await
}

/// A problem as an answer: Pantavisor's body, or RFC 9457 on our resources and for who accepts it.
fn refused(problem: &Problem, shape: Shape, head: &Head) -> Answer {
    let (media, body) = match (shape, head.wants_problem) {
        (Shape::Pantavisor, false) => (JSON, problem.pantavisor_body()),
        (Shape::Pantavisor, true) | (Shape::Ours, _) => {
            let body = serde_json::to_string(&problem.body());
            (
                api::problem::MEDIA_TYPE,
                body.expect("messages have text keys and finite numbers"),
            )
        }
    };
    let mut answer = Answer::new(problem.status, media, Body::Bytes(Bytes::from(body)))
        .with(api::problem::HEADER, problem.code.as_str());
    if let Some(seconds) = problem.retry_after_s {
        answer.before.push(("Retry-After", seconds.to_string()));
    }
    answer
}
