//! Request bodies: nothing, bytes, or a stream of pieces that a blocking reader fills.
//!
//! A stream has a known length; a reader that yields less or fails breaks the request, so that the server never takes a cut
//! body for a whole one.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use crate::limits;

/// When a body moved last, so that a slow upload is not taken for a dead server.
#[derive(Debug, Clone)]
pub(crate) struct Activity {
    start: Instant,
    last_ms: Arc<AtomicU64>,
}

impl Activity {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            last_ms: Arc::default(),
        }
    }

    fn touch(&self) {
        let elapsed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(elapsed, Ordering::Relaxed);
    }

    pub(crate) fn last(&self) -> Instant {
        self.start + Duration::from_millis(self.last_ms.load(Ordering::Relaxed))
    }
}

/// The reader of the other end of [`chunks`] went away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the upload was given up")]
pub struct Gone;

/// The sender of a stream went away before everything was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the source ended before its announced length")]
pub struct Closed;

/// Feeds a stream. Dropping it before everything was sent breaks the request.
#[derive(Debug)]
pub struct ChunkSender(mpsc::Sender<io::Result<Bytes>>);

impl ChunkSender {
    /// Hands one piece on; waits while enough pieces are waiting. Must not be called on an async worker thread.
    ///
    /// # Errors
    /// Nobody wants more.
    pub fn send(&self, piece: Bytes) -> Result<(), Gone> {
        self.0.blocking_send(Ok(piece)).map_err(|_| Gone)
    }

    /// As [`ChunkSender::send`], for asynchronous code.
    ///
    /// # Errors
    /// Nobody wants more.
    pub async fn send_soon(&self, piece: Bytes) -> Result<(), Gone> {
        self.0.send(Ok(piece)).await.map_err(|_| Gone)
    }

    /// Breaks the request because the source failed.
    pub fn fail(&self, error: io::Error) {
        // When nobody listens the request has ended already, with an error of its own.
        self.0.blocking_send(Err(error)).ok();
    }

    /// Hands on what `reader` yields, until its end.
    ///
    /// # Errors
    /// Nobody wants more. An error of the reader goes to the request instead.
    pub fn pump(&self, reader: &mut dyn io::Read) -> Result<(), Gone> {
        loop {
            let mut piece = vec![0; limits::CHUNK_BYTES];
            match fill(reader, &mut piece) {
                Ok(0) => return Ok(()),
                Ok(length) => {
                    piece.truncate(length);
                    self.send(piece.into())?;
                }
                Err(error) => {
                    self.fail(error);
                    return Ok(());
                }
            }
        }
    }
}

fn fill(reader: &mut dyn io::Read, piece: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while let Some(rest) = piece.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// A stream of exactly `length` bytes, and the end that feeds it.
pub fn chunks(length: u64) -> (ChunkSender, Outgoing) {
    let (sender, receiver) = mpsc::channel(limits::CHUNKS_AHEAD);
    let stream = Stream {
        receiver,
        left: length,
        failure: Arc::default(),
        progress: None,
    };
    (
        ChunkSender(sender),
        Outgoing {
            kind: Kind::Stream(stream),
            activity: Activity::new(),
        },
    )
}

pub(crate) type Failure = Arc<Mutex<Option<io::Error>>>;
type Progress = Box<dyn FnMut(u64) + Send>;

struct Stream {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    left: u64,
    failure: Failure,
    progress: Option<Progress>,
}

enum Kind {
    Bytes(Option<Bytes>),
    Stream(Stream),
}

/// A request body.
pub struct Outgoing {
    kind: Kind,
    activity: Activity,
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing")
            .field("length", &self.size_hint().exact())
            .finish()
    }
}

impl Outgoing {
    /// Bytes; no body at all when there are none.
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        let bytes = Some(bytes.into()).filter(|bytes| !bytes.is_empty());
        Self {
            kind: Kind::Bytes(bytes),
            activity: Activity::new(),
        }
    }

    /// Has `progress` called with the length of each piece that goes out.
    #[must_use]
    pub fn on_progress(mut self, progress: impl FnMut(u64) + Send + 'static) -> Self {
        if let Kind::Stream(stream) = &mut self.kind {
            stream.progress = Some(Box::new(progress));
        }
        self
    }

    pub(crate) fn activity(&self) -> Activity {
        self.activity.clone()
    }

    /// Where an error of the source is left, so that it can be told apart from one of the connection.
    pub(crate) fn failure(&self) -> Option<Failure> {
        match &self.kind {
            Kind::Bytes(_) => None,
            Kind::Stream(stream) => Some(Arc::clone(&stream.failure)),
        }
    }
}

impl Stream {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let next = std::task::ready!(self.receiver.poll_recv(context));
        let error = match next {
            Some(Ok(mut piece)) => {
                // A file that grew meanwhile: what was announced is sent, the server's hash decides.
                let length = u64::try_from(piece.len())
                    .unwrap_or(u64::MAX)
                    .min(self.left);
                piece.truncate(usize::try_from(length).unwrap_or(usize::MAX));
                self.left -= length;
                if let Some(progress) = &mut self.progress {
                    progress(length);
                }
                return Poll::Ready(Some(Ok(piece)));
            }
            Some(Err(error)) => error,
            None => io::Error::new(io::ErrorKind::UnexpectedEof, Closed),
        };
        let told = io::Error::new(error.kind(), error.to_string());
        if let Ok(mut failure) = self.failure.lock() {
            *failure = Some(error);
        }
        Poll::Ready(Some(Err(told)))
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.activity.touch();
        let next = match &mut self.kind {
            Kind::Bytes(bytes) => Poll::Ready(bytes.take().map(Ok)),
            Kind::Stream(stream) => stream.poll(context),
        };
        next.map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Bytes(bytes) => bytes.is_none(),
            Kind::Stream(stream) => stream.left == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match &self.kind {
            Kind::Bytes(bytes) => bytes
                .as_ref()
                .map_or(0, |bytes| u64::try_from(bytes.len()).unwrap_or(u64::MAX)),
            Kind::Stream(stream) => stream.left,
        })
    }
}
