//! The port to the device, owned here and implemented by the typed client of the control socket. A test, or a thousand simulated
//! devices in one process, implements it in memory.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use api::messages::ours::{Claim, ClaimBody, DeviceStatus, Failures, Why};
use api::messages::plan::Plan;
use bytes::Bytes;
use client::{Client, Error, Found, Outgoing, Subject};
use model::failure::Failure;
use model::metadata::{MetaKey, MetaKind};
use model::{ObjectId, Progress, RevisionId};
use tokio::sync::mpsc;

/// The bytes of an object on the device, piece by piece.
pub trait Pieces: Send {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// As the client's.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, Error>> + Send;
}

impl Pieces for client::Download {
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, Error>> + Send {
        Self::next(self)
    }
}

/// Something has happened on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happened {
    /// A revision's progress.
    Progress,
    /// Metadata was changed.
    Metadata,
}

/// Pause before events are asked for again when the device does not tell them.
const WATCH_PAUSE: Duration = Duration::from_secs(15);

/// What a cloud client needs of a device. Each method is the call of the same name of [`client::Client`], with its promises: an answer
/// to a change means that the change is durable.
#[allow(missing_docs, reason = "each is documented at the client")]
pub trait Device: Clone + Send + Sync + 'static {
    /// See [`Pieces`].
    type Pieces: Pieces;

    fn status(&self) -> impl Future<Output = Result<DeviceStatus, Error>> + Send;
    fn manifest(
        &self,
        revision: Option<&RevisionId>,
    ) -> impl Future<Output = Result<Bytes, Error>> + Send;
    fn plan_manifest(&self, manifest: Bytes) -> impl Future<Output = Result<Plan, Error>> + Send;
    fn collect(&self) -> impl Future<Output = Result<u64, Error>> + Send;
    fn find_object(&self, object: &ObjectId) -> impl Future<Output = Result<Found, Error>> + Send;
    fn append_object(
        &self,
        object: &ObjectId,
        offset: u64,
        body: Outgoing,
    ) -> impl Future<Output = Result<(), Error>> + Send;
    fn download(
        &self,
        object: &ObjectId,
        offset: u64,
    ) -> impl Future<Output = Result<Self::Pieces, Error>> + Send;
    fn put_manifest(
        &self,
        revision: &RevisionId,
        manifest: Bytes,
    ) -> impl Future<Output = Result<(), Error>> + Send;
    fn put_commit_message(
        &self,
        revision: &RevisionId,
        message: &str,
    ) -> impl Future<Output = Result<(), Error>> + Send;
    fn delete_revision(
        &self,
        revision: &RevisionId,
    ) -> impl Future<Output = Result<(), Error>> + Send;
    fn run(
        &self,
        revision: &RevisionId,
        again: bool,
    ) -> impl Future<Output = Result<(), Error>> + Send;
    fn progress(
        &self,
        revision: &RevisionId,
    ) -> impl Future<Output = Result<Progress, Error>> + Send;
    fn why_revision(
        &self,
        revision: &RevisionId,
    ) -> impl Future<Output = Result<Why, Error>> + Send;
    fn failures(&self) -> impl Future<Output = Result<Failures, Error>> + Send;
    fn failure(&self, id: u64) -> impl Future<Output = Result<Failure, Error>> + Send;
    fn metadata(
        &self,
        kind: MetaKind,
    ) -> impl Future<Output = Result<BTreeMap<String, serde_json::Value>, Error>> + Send;
    fn put_metadata(
        &self,
        kind: MetaKind,
        key: &MetaKey,
        value: Bytes,
    ) -> impl Future<Output = Result<(), Error>> + Send;
    fn claim(&self, wanted: &ClaimBody) -> impl Future<Output = Result<Claim, Error>> + Send;

    /// Tells what happens, for ever; when there is no room what was told before says enough. Only a hint, so that a client need not wait
    /// for its next look: whoever tells nothing is looked at all the same.
    fn watch(&self, _happened: mpsc::Sender<Happened>) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

impl Device for Client {
    type Pieces = client::Download;

    async fn status(&self) -> Result<DeviceStatus, Error> {
        Self::status(self).await
    }

    async fn manifest(&self, revision: Option<&RevisionId>) -> Result<Bytes, Error> {
        Self::manifest(self, revision).await
    }

    async fn plan_manifest(&self, manifest: Bytes) -> Result<Plan, Error> {
        Self::plan_manifest(self, manifest).await
    }

    async fn collect(&self) -> Result<u64, Error> {
        Self::collect(self).await
    }

    async fn find_object(&self, object: &ObjectId) -> Result<Found, Error> {
        Self::find_object(self, object).await
    }

    async fn append_object(
        &self,
        object: &ObjectId,
        offset: u64,
        body: Outgoing,
    ) -> Result<(), Error> {
        Self::append_object(self, object, offset, body).await
    }

    async fn download(&self, object: &ObjectId, offset: u64) -> Result<client::Download, Error> {
        Self::download(self, object, offset).await
    }

    async fn put_manifest(&self, revision: &RevisionId, manifest: Bytes) -> Result<(), Error> {
        Self::put_manifest(self, revision, manifest).await
    }

    async fn put_commit_message(&self, revision: &RevisionId, message: &str) -> Result<(), Error> {
        Self::put_commit_message(self, revision, message).await
    }

    async fn delete_revision(&self, revision: &RevisionId) -> Result<(), Error> {
        Self::delete_revision(self, revision).await
    }

    async fn run(&self, revision: &RevisionId, again: bool) -> Result<(), Error> {
        Self::run(self, revision, again).await
    }

    async fn progress(&self, revision: &RevisionId) -> Result<Progress, Error> {
        Self::progress(self, revision).await
    }

    async fn why_revision(&self, revision: &RevisionId) -> Result<Why, Error> {
        Self::why(self, Subject::Revision(revision)).await
    }

    async fn failures(&self) -> Result<Failures, Error> {
        Self::failures(self).await
    }

    async fn failure(&self, id: u64) -> Result<Failure, Error> {
        Self::failure(self, id).await
    }

    async fn metadata(&self, kind: MetaKind) -> Result<BTreeMap<String, serde_json::Value>, Error> {
        Self::metadata(self, kind).await
    }

    async fn put_metadata(&self, kind: MetaKind, key: &MetaKey, value: Bytes) -> Result<(), Error> {
        Self::put_metadata(self, kind, key, value).await
    }

    async fn claim(&self, wanted: &ClaimBody) -> Result<Claim, Error> {
        Self::claim(self, wanted).await
    }

    async fn watch(&self, happened: mpsc::Sender<Happened>) {
        // When there is no room, it was told already.
        let tell = |what| happened.try_send(what).ok();
        loop {
            if let Ok(mut events) = self.events(None, None).await {
                while let Ok(event) = events.next().await {
                    match event.kind.as_str() {
                        "progress" => tell(Happened::Progress),
                        "meta" => tell(Happened::Metadata),
                        "lost" => tell(Happened::Progress).and_then(|()| tell(Happened::Metadata)),
                        _ => None,
                    };
                }
            }
            tokio::time::sleep(WATCH_PAUSE).await;
        }
    }
}
