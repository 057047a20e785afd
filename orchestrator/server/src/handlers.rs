//! What each call does. A handler is small: it parses its body, asks the loop or the store, and words the answer.

use api::routes::Match;
use api::{Call, Code, Problem};
use bytes::Bytes;
use device::handle::{Answer as Done, Refusal, Request, View};
use model::claim::Client;

use crate::Shared;
use crate::callers::Caller;
use crate::http1::answer::{Answer, Body, PLAIN};
use crate::http1::head::Head;
use crate::http1::wire::{BodyError, RequestBody};
use crate::refusal;
use crate::storage::ReadError;

mod claims;
mod containers;
mod events;
mod logs;
mod machine;
mod meta;
mod objects;
mod plan;
mod revisions;
mod whole;

pub(crate) use events::Epoch;

/// A request whose caller has the right to it.
pub(crate) struct Asked<'a, 'w> {
    pub(crate) shared: &'a Shared,
    pub(crate) caller: &'a Caller,
    pub(crate) head: &'a Head,
    pub(crate) body: &'a mut RequestBody<'w>,
    /// Bytes that the route takes.
    pub(crate) limit: usize,
}

/// Carries a call out.
pub(crate) async fn carry_out(
    found: &Match<'_>,
    mut asked: Asked<'_, '_>,
) -> Result<Answer, Problem> {
    let asked = &mut asked;
    match found.call()? {
        Call::ListContainers => containers::list(asked),
        Call::Control { container } => containers::control(asked, container).await,
        Call::ListGroups => containers::groups(asked),
        Call::Signal => containers::signal(asked).await,
        Call::Command => whole::command(asked).await,
        Call::ListObjects => objects::list(asked).await,
        Call::GetObject(object) => objects::get(asked, object).await,
        Call::HeadObject(object) => objects::head(asked, object).await,
        Call::PutObject(object) => objects::put(asked, object).await,
        Call::PatchObject(object) => objects::patch(asked, object).await,
        Call::DeleteObject(object) => objects::delete(asked, object).await,
        Call::ListUploads => objects::uploads(asked).await,
        Call::ListRevisions => revisions::list(asked).await,
        Call::GetRevision(revision) => revisions::manifest(asked, revision).await,
        Call::PutRevision(revision) => revisions::put(asked, revision).await,
        Call::DeleteRevision(revision) => revisions::delete(asked, revision).await,
        Call::Progress(revision) => revisions::progress(asked, revision).await,
        Call::CommitMessage(revision) => revisions::message(asked, revision).await,
        Call::PutCommitMessage(revision) => revisions::put_message(asked, revision).await,
        Call::Plan(revision) => plan::plan(asked, revision).await,
        Call::ListMeta(kind) => meta::list(asked, kind).await,
        Call::PutMeta { kind, key } => meta::put(asked, kind, key).await,
        Call::DeleteMeta { kind, key } => meta::delete(asked, kind, key).await,
        Call::BuildInfo => Ok(whole::build_info(asked)),
        Call::Config => Ok(whole::config(asked)),
        Call::Config2 => Ok(whole::config2(asked)),
        Call::ListDrivers => machine::list_drivers(asked).await,
        Call::Drive { driver, load } => machine::drive(asked, driver, load).await,
        Call::ListDaemons => machine::daemons(asked).await,
        Call::ControlDaemon { daemon } => machine::control_daemon(asked, daemon).await,
        Call::Connections => Err(machine::connections()),
        Call::Wakelocks => Ok(machine::wakelocks()),
        Call::Collect => whole::collect(asked).await,
        Call::Status => whole::status(asked).await,
        Call::Health => Ok(whole::health(asked)),
        Call::Metrics => whole::metrics(asked).await,
        Call::Usage => whole::usage(asked).await,
        Call::Version => Ok(whole::version()),
        Call::OpenApi => Ok(Answer::json(Bytes::from_static(
            api::openapi::TEXT.as_bytes(),
        ))),
        Call::Events { since } => events::follow(asked, since),
        Call::ListClaims => Ok(claims::list(asked)),
        Call::Claim => claims::claim(asked).await,
        Call::RenewClaim(id) => claims::renew(asked, id).await,
        Call::ReleaseClaim(id) => claims::release(asked, id).await,
        Call::ListFailures => whole::failures(asked).await,
        Call::GetFailure(id) => whole::failure(asked, id).await,
        Call::Why(subject) => whole::why(asked, subject).await,
        Call::Logs { container, query } => logs::show(asked, container, query).await,
    }
}

impl Asked<'_, '_> {
    /// What the loop shows now, once it has chosen a revision.
    fn view(&self) -> Result<std::sync::Arc<View>, Problem> {
        let view = self.shared.handle.view();
        if view.running.is_none() {
            return Err(refusal::problem(Refusal::NotReady));
        }
        Ok(view)
    }

    /// Who asks, as claims know him.
    fn client(&self) -> Result<Client, Problem> {
        let name = match self.caller {
            Caller::Container(name) => return Ok(Client::Container(name.clone())),
            Caller::Host { .. } | Caller::Unknown => self.head.client.as_ref(),
        };
        let Some(name) = name else {
            return Ok(Client::Host);
        };
        name.parse()
            .map(Client::Program)
            .map_err(|error: model::claim::InvalidClaim| {
                let header = api::problem::CLIENT_HEADER;
                Problem::new(Code::BadHeader, format!("{header}: {error}"))
            })
    }

    /// Asks the loop, in the name of the client, and waits for its answer.
    async fn ask(&self, request: Request) -> Result<Done, Problem> {
        let request = Request::As {
            client: self.client()?,
            request: Box::new(request),
        };
        let (sender, answer) = tokio::sync::oneshot::channel();
        let reply = Box::new(move |result| {
            // Nobody waits any longer when the server is being stopped.
            drop(sender.send(result));
        });
        self.shared.handle.send(request, reply);
        match answer.await {
            Ok(Err(Refusal::Claimed(conflict))) => {
                let claim = claims::in_the_way(self.shared, &conflict);
                Err(refusal::problem(Refusal::Claimed(conflict)).claim(claim))
            }
            Ok(result) => result.map_err(refusal::problem),
            Err(_) => Err(refusal::unanswered()),
        }
    }

    /// Runs something that may wait for the disk.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn crate::Storage) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let storage = std::sync::Arc::clone(&self.shared.storage);
        tokio::task::spawn_blocking(move || work(storage.as_ref()))
            .await
            .map_err(|_| Problem::new(Code::Internal, "the work on the storage was cut off"))
    }

    /// Reads from the store.
    async fn read<T, E>(
        &self,
        work: impl FnOnce(&dyn crate::Storage) -> Result<T, E> + Send + 'static,
    ) -> Result<T, Problem>
    where
        T: Send + 'static,
        E: Into<ReadError> + Send + 'static,
    {
        self.blocking(work)
            .await?
            .map_err(|error| refusal::read(&error.into()))
    }

    /// The whole body, within the limit of the route.
    async fn whole_body(&mut self) -> Result<Bytes, Problem> {
        match self.body.whole(self.limit).await {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(Problem::new(
                Code::BodyTooLarge,
                format!(
                    "the body is longer than the {} bytes that this resource takes",
                    self.limit
                ),
            )
            .status(507)),
            Err(error) => Err(body_problem(&error)),
        }
    }
}

/// A body that could not be read.
pub(crate) fn body_problem(error: &BodyError) -> Problem {
    let code = match error {
        BodyError::Incomplete | BodyError::Io(_) => Code::BodyIncomplete,
        BodyError::TooSlow => Code::BodyTimeout,
        BodyError::BadChunk => Code::BadChunk,
    };
    Problem::new(code, error.to_string())
}

fn text(body: impl Into<Bytes>) -> Answer {
    Answer::new(200, PLAIN, Body::Bytes(body.into()))
}

fn to_json(value: &impl serde::Serialize) -> Answer {
    let text = serde_json::to_vec(value).expect("messages have text keys and finite numbers");
    Answer::json(text)
}
