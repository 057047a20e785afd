//! User and device metadata.

use api::call::bad_meta;
use api::messages::pantavisor::metadata_text;
use api::{Code, Problem};
use device::handle::Request;
use model::metadata::{MetaKey, MetaKind};

use super::Asked;
use crate::http1::answer::Answer;

pub(super) fn list(asked: &Asked<'_, '_>, kind: MetaKind) -> Answer {
    let view = asked.shared.handle.view();
    Answer::json(metadata_text(match kind {
        MetaKind::User => &view.user_meta,
        MetaKind::Device => &view.device_meta,
    }))
}

pub(super) async fn put(
    asked: &mut Asked<'_, '_>,
    kind: MetaKind,
    key: MetaKey,
) -> Result<Answer, Problem> {
    // Pantavisor takes no value without a length, hence no chunked one and no empty one; its clients rely on neither.
    if asked.body.announced().unwrap_or(0) == 0 {
        return Err(bad_meta(
            kind,
            "the value is empty or has no Content-Length",
        ));
    }
    let value = asked.whole_body().await?.to_vec();
    asked
        .ask(Request::PutMeta { kind, key, value })
        .await
        .map_err(|problem| worded(problem, kind))?;
    Ok(Answer::done())
}

pub(super) async fn delete(
    asked: &mut Asked<'_, '_>,
    kind: MetaKind,
    key: MetaKey,
) -> Result<Answer, Problem> {
    asked
        .ask(Request::DeleteMeta { kind, key })
        .await
        .map_err(|problem| worded(problem, kind))?;
    Ok(Answer::done())
}

/// Pantavisor's text names the map.
fn worded(problem: Problem, kind: MetaKind) -> Problem {
    if problem.code != Code::NoSuchMeta {
        return problem;
    }
    problem.pantavisor(match kind {
        MetaKind::User => "User meta does not exist",
        MetaKind::Device => "Device meta does not exist",
    })
}
