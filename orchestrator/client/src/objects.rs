//! Objects in both directions, streamed. An upload that broke goes on where the server's part ends.

use std::io::{self, Read as _, Seek as _};
use std::path::Path;
use std::sync::Arc;

use api::Code;
use api::routes::Method;
use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use model::ObjectId;

use crate::error::Error;
use crate::limits;
use crate::outgoing::{Outgoing, chunks};
use crate::transport::{Ask, Client, Pieces, Reply};

const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");

/// What the server has of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// The first bytes; an upload can go on after them.
    Part {
        /// How many.
        bytes: u64,
    },
    /// All of it.
    Whole,
}

/// How an upload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uploaded {
    /// It was there already; nothing was sent.
    WasThere,
    /// It is there now and durable.
    Sent,
}

impl Client {
    /// What the server has of an object.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn find_object(&self, object: &ObjectId) -> Result<Found, Error> {
        let ask = Ask::new(Method::Head, format!("/objects/{object}"));
        let reply = match self.send(ask).await?.accepted().await {
            Ok(reply) => reply,
            // The answer to HEAD has no body: the status must do when there is no code.
            Err(error) => {
                let missing = error.code() == Some(Code::NoSuchObject)
                    || error.refusal().is_some_and(|refusal| refusal.status == 404);
                return if missing {
                    Ok(Found::Nothing)
                } else {
                    Err(error)
                };
            }
        };
        found(&reply)
    }

    /// Uploads an object from any stream of known length, from its first byte.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Source`] when the stream failed.
    pub async fn put_object(&self, object: &ObjectId, body: Outgoing) -> Result<(), Error> {
        let ask = Ask::new(Method::Put, format!("/objects/{object}")).body(body);
        self.upload(ask).await
    }

    /// Goes on with an upload at `offset`, which is what [`Client::find_object`] told, to the end of the object. What arrives of a
    /// stream that breaks stays on the device.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Source`] when the stream failed.
    pub async fn append_object(
        &self,
        object: &ObjectId,
        offset: u64,
        body: Outgoing,
    ) -> Result<(), Error> {
        if offset == 0 {
            return self.put_object(object, body).await;
        }
        let ask = Ask::new(Method::Patch, format!("/objects/{object}"))
            .body(body)
            .header(UPLOAD_OFFSET, HeaderValue::from(offset));
        self.upload(ask).await
    }

    /// Uploads a file as this object, goes on after a part that is there, and takes the upload up again when the connection
    /// breaks. `progress` is called with the number of bytes that are there; it goes back when a broken attempt lost some.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Source`] when the file cannot be read.
    pub async fn upload_file(
        &self,
        object: &ObjectId,
        path: &Path,
        progress: Arc<dyn Fn(u64) + Send + Sync>,
    ) -> Result<Uploaded, Error> {
        let unreadable = |source| Error::Source {
            what: path.display().to_string(),
            source,
        };
        let size = tokio::fs::metadata(path).await.map_err(unreadable)?.len();
        let mut resumes = 0;
        loop {
            let offset = match self.find_object(object).await? {
                Found::Whole => {
                    progress(size);
                    return Ok(if resumes > 0 {
                        Uploaded::Sent
                    } else {
                        Uploaded::WasThere
                    });
                }
                // A part that is longer than the file belongs to other bytes; the server drops it at a new PUT.
                Found::Part { bytes } if bytes < size => bytes,
                Found::Part { .. } | Found::Nothing => 0,
            };
            progress(offset);
            let result = self
                .send_file(object, path, offset, size, Arc::clone(&progress))
                .await;
            let error = match result {
                Ok(()) => return Ok(Uploaded::Sent),
                Err(error) => error,
            };
            // The server may not yet have noticed that the broken attempt is over.
            let again = error.is_transport()
                || matches!(error.code(), Some(Code::WrongOffset | Code::UploadBusy));
            resumes += 1;
            if !again || resumes > limits::UPLOAD_RESUMES_MAX {
                return Err(error);
            }
            tokio::time::sleep(limits::RESUME_PAUSE_MIN).await;
        }
    }

    async fn send_file(
        &self,
        object: &ObjectId,
        path: &Path,
        offset: u64,
        size: u64,
        progress: Arc<dyn Fn(u64) + Send + Sync>,
    ) -> Result<(), Error> {
        let (sender, body) = chunks(size - offset);
        let file = path.to_owned();
        let reader = tokio::task::spawn_blocking(move || {
            let opened = std::fs::File::open(&file).and_then(|mut file| {
                file.seek(io::SeekFrom::Start(offset))?;
                Ok(file)
            });
            match opened {
                // When nobody wants more, the request has ended with an error of its own.
                Ok(file) => sender.pump(&mut file.take(size - offset)).ok(),
                Err(error) => {
                    sender.fail(error);
                    None
                }
            };
        });
        let mut done = offset;
        let body = body.on_progress(move |bytes| {
            done += bytes;
            progress(done);
        });
        let mut ask = Ask::new(Method::Put, format!("/objects/{object}")).body(body);
        if offset > 0 {
            ask.method = Method::Patch;
            ask = ask.header(UPLOAD_OFFSET, HeaderValue::from(offset));
        }
        let result = self.upload(ask).await.map_err(|error| match error {
            Error::Source { source, .. } => Error::Source {
                what: path.display().to_string(),
                source,
            },
            other @ (Error::BadSocketPath { .. }
            | Error::Connect { .. }
            | Error::Timeout { .. }
            | Error::Broken { .. }
            | Error::Refused { .. }
            | Error::BadAnswer { .. }
            | Error::Unsendable { .. }) => other,
        });
        // It ends by itself: its channel is closed. A panic in it would have shown as a cut source above.
        reader.await.ok();
        result
    }

    async fn upload(&self, ask: Ask) -> Result<(), Error> {
        let ask = ask
            .header(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/octet-stream"),
            )
            .work();
        let reply = self.send(ask).await?.accepted().await?;
        reply.bytes(limits::ANSWER_BYTES_MAX).await.map(drop)
    }

    /// Downloads an object from `offset` on.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn download(&self, object: &ObjectId, offset: u64) -> Result<Download, Error> {
        let mut ask = Ask::new(Method::Get, format!("/objects/{object}"));
        if offset > 0 {
            let range = HeaderValue::try_from(format!("bytes={offset}-"))
                .expect("digits are a header value");
            ask = ask.header(header::RANGE, range);
        }
        let reply = self.send(ask).await?.accepted().await?;
        if offset > 0 && reply.response.status() != http::StatusCode::PARTIAL_CONTENT {
            return Err(Error::BadAnswer {
                call: reply.call,
                reason: "a range was asked for and the whole object came".to_owned(),
            });
        }
        let length = number(&reply, &header::CONTENT_LENGTH);
        Ok(Download {
            length,
            pieces: reply.pieces(Some(self.timeouts.answer)),
        })
    }
}

fn found(reply: &Reply) -> Result<Found, Error> {
    let headers = reply.response.headers();
    match headers.get(&UPLOAD_OFFSET) {
        None => Ok(Found::Whole),
        Some(_)
            if headers
                .get("upload-complete")
                .is_some_and(|value| value == "?1") =>
        {
            Ok(Found::Whole)
        }
        Some(_) => match number(reply, &UPLOAD_OFFSET) {
            Some(bytes) => Ok(Found::Part { bytes }),
            None => Err(Error::BadAnswer {
                call: reply.call.clone(),
                reason: "its Upload-Offset is not a number".to_owned(),
            }),
        },
    }
}

fn number(reply: &Reply, name: &HeaderName) -> Option<u64> {
    reply
        .response
        .headers()
        .get(name)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// The bytes of an object, piece by piece.
#[derive(Debug)]
pub struct Download {
    length: Option<u64>,
    pieces: Pieces,
}

impl Download {
    /// How many bytes come, when the server told it.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::Broken`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        self.pieces.next().await
    }
}
