//! A client that kills itself (SIGKILL) at a point that a test has named: before or after any call to the device or the cloud. Whatever
//! happens inside the client between two calls, its record included, lies between two points.

use std::collections::BTreeMap;

use api::messages::ours::{Claim, ClaimBody, DeviceStatus, Failures, Why};
use api::messages::plan::Plan;
use bytes::Bytes;
use client::{Download, Error, Found, Outgoing};
use link::device::{Device, Happened};
use model::failure::Failure;
use model::metadata::{MetaKey, MetaKind};
use model::{ObjectId, Progress, RevisionId};

/// The environment variable that names the point.
pub(crate) const POINT: &str = "COXSWAIN_TEST_DIE";

/// The process ends here if this is the point.
pub(crate) fn point(name: &str) {
    if std::env::var(POINT).is_ok_and(|wanted| wanted == name) {
        let me = rustix::process::getpid();
        rustix::process::kill_process(me, rustix::process::Signal::KILL).expect("our own process");
        // The signal is on its way.
        std::thread::sleep(std::time::Duration::from_secs(10));
    }
}

/// A device whose client dies.
#[derive(Debug, Clone)]
pub(crate) struct Dying(pub(crate) client::Client);

async fn around<T>(name: &str, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    point(&format!("before:{name}"));
    let answer = call.await;
    point(&format!("after:{name}"));
    answer
}

impl Device for Dying {
    type Pieces = Download;

    async fn status(&self) -> Result<DeviceStatus, Error> {
        around("status", self.0.status()).await
    }

    async fn manifest(&self, revision: Option<&RevisionId>) -> Result<Bytes, Error> {
        around("manifest", self.0.manifest(revision)).await
    }

    async fn plan_manifest(&self, manifest: Bytes) -> Result<Plan, Error> {
        around("plan", self.0.plan_manifest(manifest)).await
    }

    async fn collect(&self) -> Result<u64, Error> {
        around("collect", self.0.collect()).await
    }

    async fn find_object(&self, object: &ObjectId) -> Result<Found, Error> {
        around("find", self.0.find_object(object)).await
    }

    async fn append_object(
        &self,
        object: &ObjectId,
        offset: u64,
        body: Outgoing,
    ) -> Result<(), Error> {
        // In the middle: the device has a part by then, since the server is slow.
        let middle = tokio::time::sleep(std::time::Duration::from_millis(300));
        let middle = tokio::spawn(async move {
            middle.await;
            point("during:append");
        });
        let answer = around("append", self.0.append_object(object, offset, body)).await;
        middle.abort();
        answer
    }

    async fn download(&self, object: &ObjectId, offset: u64) -> Result<Download, Error> {
        self.0.download(object, offset).await
    }

    async fn put_manifest(&self, revision: &RevisionId, manifest: Bytes) -> Result<(), Error> {
        around("put-manifest", self.0.put_manifest(revision, manifest)).await
    }

    async fn put_commit_message(&self, revision: &RevisionId, message: &str) -> Result<(), Error> {
        let call = self.0.put_commit_message(revision, message);
        around("put-message", call).await
    }

    async fn delete_revision(&self, revision: &RevisionId) -> Result<(), Error> {
        around("delete-revision", self.0.delete_revision(revision)).await
    }

    async fn run(&self, revision: &RevisionId, again: bool) -> Result<(), Error> {
        around("run", self.0.run(revision, again)).await
    }

    async fn progress(&self, revision: &RevisionId) -> Result<Progress, Error> {
        let answer = around("progress", self.0.progress(revision)).await;
        if let Ok(progress) = &answer {
            point(&format!("after:progress:{}", progress.status));
        }
        answer
    }

    async fn why_revision(&self, revision: &RevisionId) -> Result<Why, Error> {
        around("why", Device::why_revision(&self.0, revision)).await
    }

    async fn failures(&self) -> Result<Failures, Error> {
        around("failures", self.0.failures()).await
    }

    async fn failure(&self, id: u64) -> Result<Failure, Error> {
        around("failure", self.0.failure(id)).await
    }

    async fn metadata(&self, kind: MetaKind) -> Result<BTreeMap<String, serde_json::Value>, Error> {
        self.0.metadata(kind).await
    }

    async fn put_metadata(&self, kind: MetaKind, key: &MetaKey, value: Bytes) -> Result<(), Error> {
        self.0.put_metadata(kind, key, value).await
    }

    async fn claim(&self, wanted: &ClaimBody) -> Result<Claim, Error> {
        self.0.claim(wanted).await
    }

    async fn watch(&self, happened: tokio::sync::mpsc::Sender<Happened>) {
        self.0.watch(happened).await;
    }
}
