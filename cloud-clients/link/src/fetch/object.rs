//! One object from an artifact: from where the device's part ends, into an upload that stays open while bytes come.

use bytes::Bytes;
use client::{ChunkSender, Error, Found};
use model::ObjectId;
use tokio::task::JoinHandle;

use api::Code as Refusal;

use super::reader::{Hindered, Key, Reader};
use super::{Worker, passes, trouble_of};
use crate::backoff::Backoff;
use crate::clock;
use crate::deployment::{Code, Trouble};
use crate::device::Device;
use crate::limits;
use crate::offer::Artifact;

/// An upload under way.
pub(super) struct Upload {
    sender: Option<ChunkSender>,
    task: JoinHandle<Result<(), Error>>,
}

impl Upload {
    pub(super) fn start<D: Device>(device: &D, object: ObjectId, offset: u64, total: u64) -> Self {
        let (sender, body) = client::chunks(total.saturating_sub(offset));
        let device = device.clone();
        let task = tokio::spawn(async move { device.append_object(&object, offset, body).await });
        Self {
            sender: Some(sender),
            task,
        }
    }

    /// Hands bytes on; false when the device wants no more: [`Upload::end`] says why.
    pub(super) async fn send(&self, piece: Bytes) -> bool {
        match &self.sender {
            Some(sender) => sender.send_soon(piece).await.is_ok(),
            None => false,
        }
    }

    /// Waits for the device's answer. When less was sent than announced the device keeps it as a part.
    pub(super) async fn end(mut self) -> Result<(), Error> {
        self.sender = None;
        match (&mut self.task).await {
            Ok(answer) => answer,
            // It was cancelled with the run time: nobody waits for this either.
            Err(error) => Err(Error::BadAnswer {
                call: "the upload".to_owned(),
                reason: error.to_string(),
            }),
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // Only whoever gave up drops it before its end; bytes that have arrived stay on the device.
        if self.sender.is_some() {
            self.task.abort();
        }
    }
}

/// What the device said to the end of an upload.
pub(super) enum Ended {
    /// It has the whole object, or a part: it will say which.
    Look,
    /// What was sent is not the object.
    WrongBytes,
    /// It is busy.
    Wait,
}

/// Sorts the answer to an upload.
pub(super) fn judge(answer: Result<(), Error>) -> Result<Ended, Trouble> {
    match answer {
        Ok(()) => Ok(Ended::Look),
        Err(error) if error.code() == Some(Refusal::BadChecksum) => Ok(Ended::WrongBytes),
        // The stream broke on our side.
        Err(Error::Source { .. }) => Ok(Ended::Look),
        Err(error) if passes(&error) => {
            tracing::debug!("{error}");
            Ok(Ended::Wait)
        }
        Err(error) => Err(trouble_of(&error)),
    }
}

impl<D: Device> Worker<D> {
    /// Has the device hold this object.
    pub(super) async fn object(
        &mut self,
        object: ObjectId,
        artifact: &Artifact,
    ) -> Result<(), Trouble> {
        let mut reader = Reader::new(self.fetching.clone(), Key::of(artifact));
        let mut wrong = 0;
        let mut backoff = Backoff::new(self.fetching.policy.back_off_max);
        let before = self.fetched.bytes;
        loop {
            let there = self.insist(|| self.device.find_object(&object)).await?;
            let total = match (there, reader.total().await) {
                (Found::Whole, _) => {
                    self.fetched.objects += 1;
                    self.tell_progress();
                    return Ok(());
                }
                (_, Ok(total)) => total,
                (_, Err(hindered)) => {
                    reader.recover(hindered).await?;
                    continue;
                }
            };
            let offset = match there {
                Found::Part { bytes } if bytes <= total => bytes,
                // A part that is longer belongs to other bytes.
                Found::Part { .. } | Found::Nothing | Found::Whole => 0,
            };
            reader.seek(offset);
            self.fetched.bytes = before + offset;
            let upload = Upload::start(&self.device, object, offset, total);
            let hindered = self.pump(&mut reader, &upload).await;
            match judge(upload.end().await)? {
                Ended::Look => {}
                Ended::Wait => {
                    let pause = backoff.failed(clock::random(), None);
                    tokio::time::sleep(pause).await;
                }
                Ended::WrongBytes => {
                    wrong += 1;
                    if wrong >= limits::BAD_HASHES_MAX {
                        let why = format!(
                            "artifact {:?} has another SHA-256 than {}",
                            artifact.name,
                            object.short()
                        );
                        return Err(Trouble::new(Code::BadHash, why));
                    }
                    reader.distrust();
                }
            }
            if let Some(hindered) = hindered {
                reader.recover(hindered).await?;
            }
        }
    }

    /// From the network into the upload, until the end, a hindrance, or the device has enough.
    async fn pump(&mut self, reader: &mut Reader, upload: &Upload) -> Option<Hindered> {
        loop {
            match reader.next().await {
                Ok(Some(piece)) => {
                    let length = piece.len() as u64;
                    if !upload.send(piece).await {
                        return None;
                    }
                    self.fetched.bytes += length;
                    self.tell_progress();
                }
                Ok(None) => return None,
                Err(hindered) => return Some(hindered),
            }
        }
    }
}
