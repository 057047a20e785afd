//! One method for each route that is not a stream. Names are parsed types, so that no call can leave its resource.

use std::collections::BTreeMap;

use api::call::LogForm;
use api::messages::plan::Plan;
use api::messages::{ours, pantavisor};
use api::routes::Method;
use bytes::Bytes;
use model::failure::Failure;
use model::log::Level;
use model::metadata::{MetaKey, MetaKind};
use model::{ContainerName, ObjectId, Progress, RevisionId};

use crate::error::Error;
use crate::limits;
use crate::outgoing::Outgoing;
use crate::transport::{Ask, Client, encode};

/// What `why` is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject<'a> {
    /// The device.
    Device,
    /// A container of the running revision.
    Container(&'a ContainerName),
    /// A revision.
    Revision(&'a RevisionId),
}

/// Which lines of a log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogQuery {
    /// Lines from the end; the server's default when `None`.
    pub tail: Option<u32>,
    /// Go on with what is written from now on.
    pub follow: bool,
    /// Of which revision; where it wrote last when `None`.
    pub revision: Option<RevisionId>,
    /// From when on: a time, or how long ago (`90s`, `10min`, `2h`, `7d`).
    pub since: Option<String>,
    /// This level and worse ones.
    pub level: Option<Level>,
    /// How they are shown; as they were written when `None`.
    pub form: Option<LogForm>,
}

/// Reading.
impl Client {
    async fn get<T: serde::de::DeserializeOwned>(
        &self,
        path: impl Into<String>,
    ) -> Result<T, Error> {
        self.send(Ask::new(Method::Get, path))
            .await?
            .accepted()
            .await?
            .json()
            .await
    }

    async fn get_text(&self, path: impl Into<String>) -> Result<String, Error> {
        self.send(Ask::new(Method::Get, path))
            .await?
            .accepted()
            .await?
            .text()
            .await
    }

    /// The whole device on one screen.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn status(&self) -> Result<ours::DeviceStatus, Error> {
        self.get("/status").await
    }

    /// Whether the device does what it should. An unwell device answers 503 with the same message.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn health(&self) -> Result<ours::Health, Error> {
        let reply = self.send(Ask::new(Method::Get, "/healthz")).await?;
        if reply.response.status() == http::StatusCode::SERVICE_UNAVAILABLE
            && !reply.response.headers().contains_key(api::problem::HEADER)
        {
            return reply.json().await;
        }
        reply.accepted().await?.json().await
    }

    /// Name and version of the orchestrator.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn version(&self) -> Result<ours::Version, Error> {
        self.get("/version").await
    }

    /// What containers and the machine use now.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn usage(&self) -> Result<model::usage::Usage, Error> {
        self.get("/usage").await
    }

    /// Figures for monitors, in the OpenMetrics format.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn metrics(&self) -> Result<String, Error> {
        self.get_text("/metrics").await
    }

    /// The OpenAPI document.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn openapi(&self) -> Result<serde_json::Value, Error> {
        self.get("/openapi.json").await
    }

    /// Containers of the running revision, as Pantavisor shows them.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn containers(&self) -> Result<Vec<pantavisor::Container>, Error> {
        self.get("/containers").await
    }

    /// Groups of the running revision, as Pantavisor shows them.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn groups(&self) -> Result<Vec<pantavisor::Group>, Error> {
        self.get("/groups").await
    }

    /// Complete objects.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn objects(&self) -> Result<Vec<pantavisor::Object>, Error> {
        self.get("/objects").await
    }

    /// Revisions with message and progress.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn revisions(&self) -> Result<Vec<pantavisor::Step>, Error> {
        self.get("/steps").await
    }

    /// Manifest of a revision, byte for byte; of the running one when `None`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn manifest(&self, revision: Option<&RevisionId>) -> Result<Bytes, Error> {
        let name = revision.map_or("current", RevisionId::as_str);
        let ask = Ask::new(Method::Get, format!("/steps/{name}"));
        self.send(ask)
            .await?
            .accepted()
            .await?
            .bytes(limits::ANSWER_BYTES_MAX)
            .await
    }

    /// Progress of a revision.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn progress(&self, revision: &RevisionId) -> Result<Progress, Error> {
        self.get(format!("/steps/{revision}/progress")).await
    }

    /// Commit message of a revision; may be empty.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn commit_message(&self, revision: &RevisionId) -> Result<String, Error> {
        self.get_text(format!("/steps/{revision}/commitmsg")).await
    }

    /// Metadata: values that are a JSON object or array as they are, all others as strings.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn metadata(
        &self,
        kind: MetaKind,
    ) -> Result<BTreeMap<String, serde_json::Value>, Error> {
        self.get(metadata_path(kind)).await
    }

    /// What the orchestrator was built from.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn build_info(&self) -> Result<String, Error> {
        self.get_text("/buildinfo").await
    }

    /// Configuration under Pantavisor's older names.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn configuration_aliases(
        &self,
    ) -> Result<BTreeMap<String, serde_json::Value>, Error> {
        self.get("/config").await
    }

    /// Configuration, each value with where it comes from.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn configuration(&self) -> Result<Vec<pantavisor::ConfigEntry>, Error> {
        self.get("/config2").await
    }

    /// What running an installed revision would do; of the running one when `None`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn plan(&self, revision: Option<&RevisionId>) -> Result<Plan, Error> {
        let name = revision.map_or("current", RevisionId::as_str);
        let ask = Ask::new(Method::Post, format!("/steps/{name}/plan")).work();
        self.send(ask).await?.accepted().await?.json().await
    }

    /// What running this manifest would do. Tell the plan the sizes of the objects that it misses ([`Plan::know_sizes`]).
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn plan_manifest(&self, manifest: Bytes) -> Result<Plan, Error> {
        let ask = Ask::new(Method::Post, "/plan")
            .body(Outgoing::bytes(manifest))
            .work();
        self.send(ask).await?.accepted().await?.json().await
    }

    /// Uploads under way, and those that can be resumed.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn uploads(&self) -> Result<Vec<ours::Upload>, Error> {
        self.get("/uploads").await
    }

    /// Drivers of the calling container.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn drivers(&self) -> Result<pantavisor::Drivers, Error> {
        self.get("/drivers").await
    }

    /// Daemons that the orchestrator runs on the host.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn daemons(&self) -> Result<Vec<pantavisor::Daemon>, Error> {
        self.get("/daemons").await
    }

    /// What keeps the machine from suspending.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn wakelocks(&self) -> Result<pantavisor::Wakelocks, Error> {
        self.get("/wakelocks").await
    }

    /// What clients have claimed of the device.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn claims(&self) -> Result<ours::Claims, Error> {
        self.get("/claims").await
    }

    /// Failures, newest first.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn failures(&self) -> Result<ours::Failures, Error> {
        self.get("/failures").await
    }

    /// One failure record, whole.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn failure(&self, id: u64) -> Result<Failure, Error> {
        self.get(format!("/failures/{id}")).await
    }

    /// Why the subject is where it is.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn why(&self, subject: Subject<'_>) -> Result<ours::Why, Error> {
        let path = match subject {
            Subject::Device => "/why".to_owned(),
            Subject::Container(name) => format!("/why/{}", encode(name.as_str())),
            Subject::Revision(revision) => match revision.as_str().strip_prefix("locals/") {
                Some(name) => format!("/why/locals/{}", encode(name)),
                None => format!("/why/{revision}"),
            },
        };
        self.get(path).await
    }
}

/// Changing. A method that returns `Ok` means that the change is durable.
impl Client {
    async fn change(&self, ask: Ask) -> Result<(), Error> {
        let reply = self.send(ask).await?.accepted().await?;
        // Read to its end so that the connection can be used again.
        reply.bytes(limits::ANSWER_BYTES_MAX).await.map(drop)
    }

    /// Starts, stops or restarts a container.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn control(
        &self,
        container: &ContainerName,
        action: pantavisor::Action,
    ) -> Result<(), Error> {
        let body = json(&pantavisor::Control { action });
        let ask = Ask::new(Method::Put, format!("/containers/{container}"));
        self.change(ask.body(body).work()).await
    }

    /// Tells that the calling container is ready.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn signal_ready(&self) -> Result<(), Error> {
        let signal = pantavisor::Signal {
            kind: "ready".to_owned(),
            payload: serde_json::Value::String(String::new()),
        };
        self.change(Ask::new(Method::Post, "/signal").body(json(&signal)))
            .await
    }

    /// Claims parts of the device for this client, or renews its claim on just these parts.
    ///
    /// # Errors
    /// See [`Error`]; a refusal with the code `claimed` names the claim that stands in the way.
    pub async fn claim(&self, wanted: &ours::ClaimBody) -> Result<ours::Claim, Error> {
        let ask = Ask::new(Method::Post, "/claims").body(json(wanted));
        self.send(ask).await?.accepted().await?.json().await
    }

    /// Lets the lease of a claim begin anew, with another length if one is given.
    ///
    /// # Errors
    /// See [`Error`]; `no-such-claim` when its lease ran out before.
    pub async fn renew_claim(&self, id: u64, lease_s: Option<u64>) -> Result<ours::Claim, Error> {
        let body = json(&ours::LeaseBody { lease_s });
        let ask = Ask::new(Method::Put, format!("/claims/{id}")).body(body);
        self.send(ask).await?.accepted().await?.json().await
    }

    /// Ends a claim.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn release_claim(&self, id: u64) -> Result<(), Error> {
        self.change(Ask::new(Method::Delete, format!("/claims/{id}")))
            .await
    }

    /// Gives a command. `Ok` means accepted and durable, not carried out; follow the progress or the events.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn command(&self, command: &pantavisor::CommandBody) -> Result<(), Error> {
        self.change(
            Ask::new(Method::Post, "/commands")
                .body(json(command))
                .work(),
        )
        .await
    }

    /// Runs a revision: in place where nothing needs a reboot. `again` insists when the same manifest failed before.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn run(&self, revision: &RevisionId, again: bool) -> Result<(), Error> {
        let mut command = pantavisor::CommandBody::new(pantavisor::Op::LocalRun, revision.as_str());
        command.again = again;
        self.command(&command).await
    }

    /// As [`Client::run`], and refused when a change needs a restart of the machine.
    ///
    /// # Errors
    /// See [`Error`]; `needs-reboot` when a change needs a restart.
    pub async fn apply(&self, revision: &RevisionId, again: bool) -> Result<(), Error> {
        let op = pantavisor::Op::LocalApply;
        let mut command = pantavisor::CommandBody::new(op, revision.as_str());
        command.again = again;
        self.command(&command).await
    }

    /// Loads or unloads a driver of the calling container, or all of them.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn drive(&self, driver: Option<&str>, load: bool) -> Result<(), Error> {
        let verb = if load { "load" } else { "unload" };
        let path = match driver {
            Some(driver) => format!("/drivers/{}/{verb}", encode(driver)),
            None => format!("/drivers/{verb}"),
        };
        self.change(Ask::new(Method::Put, path).work()).await
    }

    /// Starts or stops a daemon of the host.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn control_daemon(
        &self,
        daemon: &str,
        action: pantavisor::DaemonAction,
    ) -> Result<(), Error> {
        let ask = Ask::new(Method::Put, format!("/daemons/{}", encode(daemon)));
        let body = json(&pantavisor::DaemonControl { action });
        self.change(ask.body(body).work()).await
    }

    /// Gives up the trial, or goes back to the revision that was committed before this one.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn roll_back(&self) -> Result<(), Error> {
        self.command(&pantavisor::CommandBody::new(pantavisor::Op::Rollback, ""))
            .await
    }

    /// Collects what no revision needs and waits for the end; bytes that were freed.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn collect(&self) -> Result<u64, Error> {
        let ask = Ask::new(Method::Post, "/storage/gc").work();
        let answer: pantavisor::Reclaimed = self.send(ask).await?.accepted().await?.json().await?;
        Ok(answer.reclaimed)
    }

    /// Installs a manifest under a local name; nothing is run. Its objects may come before or after it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn put_manifest(&self, revision: &RevisionId, manifest: Bytes) -> Result<(), Error> {
        let ask = Ask::new(Method::Put, format!("/steps/{revision}"));
        self.change(ask.body(Outgoing::bytes(manifest)).work())
            .await
    }

    /// Sets the commit message of a revision.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn put_commit_message(
        &self,
        revision: &RevisionId,
        message: &str,
    ) -> Result<(), Error> {
        let ask = Ask::new(Method::Put, format!("/steps/{revision}/commitmsg"));
        self.change(ask.body(Outgoing::bytes(message.to_owned())))
            .await
    }

    /// Removes a revision.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete_revision(&self, revision: &RevisionId) -> Result<(), Error> {
        self.change(Ask::new(Method::Delete, format!("/steps/{revision}")))
            .await
    }

    /// Removes an object that no revision needs.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete_object(&self, object: &ObjectId) -> Result<(), Error> {
        self.change(Ask::new(Method::Delete, format!("/objects/{object}")))
            .await
    }

    /// Sets a metadata value.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn put_metadata(
        &self,
        kind: MetaKind,
        key: &MetaKey,
        value: Bytes,
    ) -> Result<(), Error> {
        let ask = Ask::new(
            Method::Put,
            format!("{}/{}", metadata_path(kind), key.as_str()),
        );
        self.change(ask.body(Outgoing::bytes(value))).await
    }

    /// Removes a metadata value.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete_metadata(&self, kind: MetaKind, key: &MetaKey) -> Result<(), Error> {
        let path = format!("{}/{}", metadata_path(kind), key.as_str());
        self.change(Ask::new(Method::Delete, path)).await
    }
}

fn metadata_path(kind: MetaKind) -> &'static str {
    match kind {
        MetaKind::User => "/user-meta",
        MetaKind::Device => "/device-meta",
    }
}

fn json(message: &impl serde::Serialize) -> Outgoing {
    let bytes = serde_json::to_vec(message).expect("messages are structs of strings and numbers");
    Outgoing::bytes(bytes)
}
