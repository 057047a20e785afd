//! Refusals and failures as problems: the only place where they become statuses and texts.
//!
//! Matches have no wildcard: a new refusal must be given its status here before anything compiles.

use api::messages::pantavisor::Action as WireAction;
use api::problem::ManifestProblem;
use api::{Code, Problem};
use device::handle::{Action, Refusal};
use store::{Failed, UploadError};

use crate::storage::ReadError;

/// `Retry-After` while an update is ongoing (Pantavisor's).
const UPDATE_RETRY_S: u32 = 600;
/// `Retry-After` while the same work is being done (Pantavisor's).
const BUSY_RETRY_S: u32 = 120;
/// `Retry-After` while the device starts or stops.
const MOMENT_RETRY_S: u32 = 10;

/// What the loop refused.
pub(crate) fn problem(refusal: Refusal) -> Problem {
    let detail = refusal.to_string();
    let new = |code| Problem::new(code, detail.clone());
    match refusal {
        Refusal::UpdateInProgress { trial } => new(Code::UpdateInProgress)
            .retry_after(UPDATE_RETRY_S)
            .remedy(format!(
                "follow GET /steps/{trial}/progress, or send the command ROLLBACK"
            )),
        Refusal::FactoryIncomplete(_) => {
            new(Code::FactoryIncomplete).remedy("put the missing objects, then ask again")
        }
        Refusal::ShuttingDown | Refusal::Resetting => {
            new(Code::ShuttingDown).retry_after(MOMENT_RETRY_S)
        }
        Refusal::NotReady | Refusal::NotListed => new(Code::NotReady).retry_after(MOMENT_RETRY_S),
        Refusal::NoSuchRevision(_) => new(Code::NoSuchRevision),
        Refusal::NoSuchContainer(_) => new(Code::NoSuchContainer).remedy("see GET /containers"),
        Refusal::SystemContainer(_) => new(Code::SystemContainer)
            .remedy("give it the restart_policy 'container' in its run.json"),
        Refusal::WrongStatus { action, .. } => wrong_status(new(Code::WrongStatus), action),
        Refusal::SignalNotExpected(_) => new(Code::SignalNotExpected)
            .remedy("set \"status_goal\":\"READY\" in the container's run.json"),
        Refusal::BadManifest(rejected) => bad_manifest(&rejected),
        Refusal::RevisionInUse { .. } => new(Code::RevisionInUse),
        Refusal::FailedBefore { failure, .. } => new(Code::FailedBefore).remedy(format!(
            "see GET /failures/{failure}; send the command with \"again\":true to try it once more"
        )),
        Refusal::NeedsReboot(_) => {
            new(Code::NeedsReboot).remedy("send LOCAL_RUN: it restarts the machine for the change")
        }
        Refusal::NothingToRollBack => new(Code::NothingToRollBack),
        Refusal::Claimed(conflict) => {
            let (id, client) = (conflict.claim.id, &conflict.claim.client);
            let left = u32::try_from(conflict.left.as_secs()).unwrap_or(u32::MAX);
            new(Code::Claimed).retry_after(left.max(1)).remedy(format!(
                "let {client} do it, wait, or claim it with a higher priority; root of the host can end claim {id}"
            ))
        }
        Refusal::NoSuchClaim(_) => new(Code::NoSuchClaim).remedy("see GET /claims"),
        Refusal::NotYourClaim { .. } => new(Code::NotYourClaim)
            .remedy("only its client can renew it; its client and root of the host can end it"),
        Refusal::NoSuchMeta => new(Code::NoSuchMeta),
        Refusal::Limit(_) => new(Code::LimitReached),
        Refusal::NoSpace(_) => {
            new(Code::NoSpace).remedy("collect (POST /storage/gc) or remove revisions")
        }
        Refusal::Busy => new(Code::Busy).retry_after(BUSY_RETRY_S),
        Refusal::Internal(_) => new(Code::Internal),
    }
}

fn wrong_status(problem: Problem, action: Action) -> Problem {
    match action {
        Action::Start => problem
            .pantavisor("Container must be in STOPPED, STOPPING, or RECOVERING state to start"),
        Action::Stop => problem.pantavisor("Container state does not allow stop"),
        Action::Restart => problem.pantavisor("Container state does not allow restart"),
    }
}

/// What is wrong with a manifest, all of it.
pub(crate) fn bad_manifest(rejected: &model::manifest::Rejected) -> Problem {
    let mut problem = Problem::new(Code::BadManifest, rejected.to_string())
        .remedy("accept application/problem+json to be told every problem with its place");
    problem.manifest = rejected
        .problems
        .iter()
        .map(ManifestProblem::from)
        .collect();
    problem
}

/// The loop ended before it answered.
pub(crate) fn unanswered() -> Problem {
    Problem::new(
        Code::ShuttingDown,
        "the device stopped before it answered; whether it was done is not known",
    )
    .retry_after(MOMENT_RETRY_S)
    .remedy("look at the result before you ask again")
}

/// The disk failed.
pub(crate) fn disk(error: &Failed) -> Problem {
    let detail = store::explain(error);
    if error.is_full() {
        Problem::new(Code::NoSpace, detail).remedy("collect (POST /storage/gc) or remove revisions")
    } else if error.is_read_only() {
        Problem::new(Code::Internal, detail).remedy(
            "the storage is read-only: check its file system (e2fsck), then restart the device",
        )
    } else {
        Problem::new(Code::Internal, detail)
    }
}

/// Something could not be read.
pub(crate) fn read(error: &ReadError) -> Problem {
    match error {
        ReadError::Disk(error) => disk(error),
        ReadError::Damaged(detail) => Problem::new(Code::Internal, detail),
    }
}

/// An upload failed.
pub(crate) fn upload(error: &UploadError) -> Problem {
    let new = |code| Problem::new(code, error.to_string());
    match error {
        UploadError::NoSpace { .. } => new(Code::NoSpace),
        UploadError::WrongHash { .. } => {
            new(Code::BadChecksum).remedy("send the bytes whose SHA-256 is the object's name")
        }
        UploadError::Short { .. } => new(Code::BodyIncomplete),
        UploadError::TooLong { .. } => new(Code::BodyTooLarge).status(400),
        UploadError::WrongOffset { kept } => new(Code::WrongOffset).remedy(format!(
            "go on with Upload-Offset: {kept}, or send the whole object with PUT"
        )),
        UploadError::Busy => new(Code::UploadBusy).retry_after(MOMENT_RETRY_S),
        UploadError::Disk(error) => disk(error),
    }
}

/// Too many upload or download already, and none of them ended in time.
pub(crate) fn too_many_transfers() -> Problem {
    Problem::new(
        Code::Busy,
        "too many objects are being uploaded or downloaded already",
    )
    .retry_after(MOMENT_RETRY_S)
}

/// Too many follow already.
pub(crate) fn too_many_followers() -> Problem {
    Problem::new(Code::Busy, "too many clients follow events or logs already")
        .retry_after(MOMENT_RETRY_S)
        .remedy("close one of them")
}

/// The action of a request body as the loop knows it.
pub(crate) fn action(action: WireAction) -> Action {
    match action {
        WireAction::Start => Action::Start,
        WireAction::Stop => Action::Stop,
        WireAction::Restart => Action::Restart,
    }
}
