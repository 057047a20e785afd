//! Reading requests from a connection and writing answers to it, within limits and times.
//!
//! A body is read only as far as the one who asked for it goes on asking; what is left over is skipped or ends the connection.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::answer::{self, Answer, Framing};
use super::head::{self, Expect, Head, Length, Rejected, Version};
use crate::limits;

/// Bytes that are read at once while nothing large is expected.
const SMALL_READ: usize = 8 << 10;

/// One connection.
#[derive(Debug)]
pub struct Wire {
    stream: UnixStream,
    buffer: BytesMut,
    rare_heads: Arc<Semaphore>,
}

/// Why no request came.
#[derive(Debug)]
pub enum HeadError {
    /// The client closed, or went away.
    Gone,
    /// The head did not come in time.
    TooSlow,
    /// It gets libevent's own error page.
    Rejected(Rejected),
}

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The client closed its side before the announced end.
    #[error("the body ended before what was announced")]
    Incomplete,
    /// No byte came for too long.
    #[error("no byte of the body came in time")]
    TooSlow,
    /// A chunk was malformed.
    #[error("a chunk of the body is malformed")]
    BadChunk,
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[source] io::Error),
}

impl Wire {
    /// Takes a connection over. `rare_heads` is shared by all connections.
    pub fn new(stream: UnixStream, rare_heads: Arc<Semaphore>) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            rare_heads,
        }
    }

    /// Waits for the first byte of the next request; `false` when the client closed.
    pub async fn wait(&mut self) -> bool {
        if !self.buffer.is_empty() {
            return true;
        }
        // An idle connection keeps no memory.
        self.buffer = BytesMut::new();
        if self.stream.readable().await.is_err() {
            return false;
        }
        self.fill(SMALL_READ).await.is_ok_and(|read| read > 0)
    }

    async fn fill(&mut self, room: usize) -> io::Result<usize> {
        if self.buffer.capacity() - self.buffer.len() < room / 2 {
            self.buffer.reserve(room);
        }
        self.stream.read_buf(&mut self.buffer).await
    }

    /// Reads a head; its first byte is there already.
    ///
    /// # Errors
    /// See [`HeadError`].
    pub async fn head(&mut self, patience: Duration) -> Result<Head, HeadError> {
        if let Some(end) = head::end(&self.buffer, 0) {
            return self.parse(end);
        }
        timeout(patience, self.head_slowly())
            .await
            .map_err(|_| HeadError::TooSlow)?
    }

    async fn head_slowly(&mut self) -> Result<Head, HeadError> {
        let mut permit: Option<OwnedSemaphorePermit> = None;
        loop {
            let searched = self.buffer.len();
            match self.fill(SMALL_READ).await {
                Ok(0) | Err(_) => return Err(HeadError::Gone),
                Ok(_) => {}
            }
            if let Some(end) = head::end(&self.buffer, searched) {
                return self.parse(end);
            }
            let too_long = HeadError::Rejected(Rejected {
                status: 413,
                version: Version::HTTP_11,
            });
            if self.buffer.len() > limits::HEAD_BYTES_MAX_RARE {
                return Err(too_long);
            }
            if self.buffer.len() > limits::HEAD_BYTES_MAX && permit.is_none() {
                permit = Arc::clone(&self.rare_heads).try_acquire_owned().ok();
                if permit.is_none() {
                    return Err(too_long);
                }
            }
        }
    }

    fn parse(&mut self, end: usize) -> Result<Head, HeadError> {
        let head = head::parse(&self.buffer[..end]).map_err(HeadError::Rejected);
        self.buffer.advance(end);
        head
    }

    /// Writes an answer. Returns whether the connection may go on.
    ///
    /// # Errors
    /// The client went away, did not take the answer in time, or the source of a stream failed.
    pub async fn answer(
        &mut self,
        framing: Framing,
        answer: Answer,
        patience: Duration,
    ) -> io::Result<bool> {
        let goes_on = !framing.closes(&answer);
        let chunked = framing.chunked(&answer);
        let with_body = framing.has_body(&answer);
        let mut head = Vec::with_capacity(256);
        framing.write_head(&answer, &mut head);
        match answer.body {
            answer::Body::Bytes(body) if with_body && body.len() <= SMALL_READ => {
                head.extend_from_slice(&body);
                self.write(&head, patience).await?;
            }
            answer::Body::Bytes(body) => {
                self.write(&head, patience).await?;
                if with_body {
                    self.write(&body, patience).await?;
                }
            }
            answer::Body::Empty => self.write(&head, patience).await?,
            answer::Body::Stream { pieces, length } => {
                self.write(&head, patience).await?;
                if with_body {
                    self.make_room_to_send();
                    self.stream_pieces(pieces, length, chunked, patience)
                        .await?;
                }
            }
        }
        Ok(goes_on)
    }

    /// Lets the kernel take several pieces at once, so that sending a long answer is not a switch of threads for each part of a piece.
    fn make_room_to_send(&self) {
        use rustix::net::sockopt;
        let room = limits::SEND_BUFFER_BYTES;
        if sockopt::set_socket_send_buffer_size_force(&self.stream, room).is_err()
            && let Err(error) = sockopt::set_socket_send_buffer_size(&self.stream, room)
        {
            tracing::debug!(%error, "an answer is sent through a small buffer");
        }
    }

    async fn stream_pieces(
        &mut self,
        mut pieces: tokio::sync::mpsc::Receiver<io::Result<Bytes>>,
        length: Option<u64>,
        chunked: bool,
        patience: Duration,
    ) -> io::Result<()> {
        let mut left = length;
        while let Some(piece) = pieces.recv().await {
            let piece = piece?;
            if piece.is_empty() {
                continue;
            }
            if let Some(left) = &mut left {
                *left = left
                    .checked_sub(piece.len() as u64)
                    .ok_or(io::ErrorKind::InvalidData)?;
            }
            if chunked {
                let line = format!("{:X}\r\n", piece.len());
                self.write(line.as_bytes(), patience).await?;
                self.write(&piece, patience).await?;
                self.write(b"\r\n", patience).await?;
            } else {
                self.write(&piece, patience).await?;
            }
        }
        if left.is_some_and(|left| left > 0) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if chunked {
            self.write(b"0\r\n\r\n", patience).await?;
        }
        Ok(())
    }

    async fn write(&mut self, mut bytes: &[u8], patience: Duration) -> io::Result<()> {
        // Most answers fit the socket's buffer: no timer is set up for them.
        while !bytes.is_empty() {
            match self.stream.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    timeout(patience, self.stream.writable())
                        .await
                        .map_err(|_| io::ErrorKind::TimedOut)??;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Ends the connection so that the client can still read what was written: nothing more is sent, and what it still sends is
    /// thrown away until it closes, stops sending, or has sent `most` bytes.
    pub async fn close_gently(&mut self, most: u64, patience: Duration) {
        if self.stream.shutdown().await.is_err() {
            return;
        }
        let mut thrown = self.buffer.len() as u64;
        while thrown < most {
            self.buffer.clear();
            match timeout(patience, self.fill(limits::PIECE_BYTES)).await {
                Ok(Ok(read)) if read > 0 => thrown += read as u64,
                Ok(Ok(_) | Err(_)) | Err(_) => return,
            }
        }
    }
}

/// The body of one request, read on demand.
#[derive(Debug)]
pub struct RequestBody<'a> {
    wire: &'a mut Wire,
    left: Left,
    continue_pending: bool,
    announced: Option<u64>,
    patience: Duration,
}

#[derive(Debug, Clone, Copy)]
enum Left {
    /// So many bytes.
    Bytes(u64),
    /// So many bytes of this chunk; then its line end.
    Chunk(u64),
    /// The line in front of a chunk comes next.
    ChunkLine,
}

impl<'a> RequestBody<'a> {
    /// The body that follows this head.
    pub fn new(wire: &'a mut Wire, head: &Head, patience: Duration) -> Self {
        let (left, announced) = match head.length {
            Length::None => (Left::Bytes(0), None),
            Length::Bytes(bytes) => (Left::Bytes(bytes), Some(bytes)),
            Length::Chunked => (Left::ChunkLine, None),
        };
        Self {
            wire,
            left,
            continue_pending: head.expect == Expect::Continue && !head.length.is_empty(),
            announced,
            patience,
        }
    }

    /// The length that was announced.
    pub fn announced(&self) -> Option<u64> {
        self.announced
    }

    /// Whether everything was read.
    pub fn is_finished(&self) -> bool {
        matches!(self.left, Left::Bytes(0))
    }

    /// The next bytes, `None` at the end.
    ///
    /// # Errors
    /// See [`BodyError`]; afterwards the connection cannot go on.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, BodyError> {
        if self.is_finished() {
            return Ok(None);
        }
        if self.continue_pending {
            self.continue_pending = false;
            self.wire
                .write(b"HTTP/1.1 100 Continue\r\n\r\n", self.patience)
                .await
                .map_err(BodyError::Io)?;
        }
        loop {
            match self.left {
                Left::Bytes(0) => return Ok(None),
                Left::Bytes(left) => {
                    let piece = self.take(left).await?;
                    self.left = Left::Bytes(left - piece.len() as u64);
                    return Ok(Some(piece));
                }
                Left::Chunk(0) => self.left = Left::ChunkLine,
                Left::Chunk(left) => {
                    let piece = self.take(left).await?;
                    self.left = Left::Chunk(left - piece.len() as u64);
                    return Ok(Some(piece));
                }
                Left::ChunkLine => self.chunk_line().await?,
            }
        }
    }

    /// All of it, when it is not longer than `limit`; `None` when it is.
    ///
    /// # Errors
    /// See [`BodyError`].
    pub async fn whole(&mut self, limit: usize) -> Result<Option<Bytes>, BodyError> {
        if self.announced.is_some_and(|bytes| bytes > limit as u64) {
            return Ok(None);
        }
        let mut whole = BytesMut::new();
        while let Some(piece) = self.piece().await? {
            if whole.len() + piece.len() > limit {
                return Ok(None);
            }
            if whole.is_empty() && self.is_finished() {
                return Ok(Some(piece));
            }
            whole.extend_from_slice(&piece);
        }
        Ok(Some(whole.freeze()))
    }

    /// Reads what is left and throws it away, when it is little and comes soon. Returns whether the next request may follow.
    pub async fn skip(&mut self) -> bool {
        if self.is_finished() {
            return true;
        }
        let much = matches!(self.left, Left::Bytes(left) if left > limits::SKIP_BYTES_MAX);
        // A client that still waits for `100 Continue` may send the body or not: only a new connection is sure.
        if self.continue_pending || much {
            return false;
        }
        timeout(limits::SKIP_PATIENCE, self.skip_little())
            .await
            .unwrap_or(false)
    }

    async fn skip_little(&mut self) -> bool {
        let mut skipped = 0;
        while let Ok(Some(piece)) = self.piece().await {
            skipped += piece.len() as u64;
            if skipped > limits::SKIP_BYTES_MAX {
                return false;
            }
        }
        self.is_finished()
    }

    async fn take(&mut self, most: u64) -> Result<Bytes, BodyError> {
        if self.wire.buffer.is_empty() {
            let room = usize::try_from(most).unwrap_or(usize::MAX);
            self.more(room.clamp(SMALL_READ, limits::PIECE_BYTES))
                .await?;
        }
        let there = self.wire.buffer.len();
        let take = usize::try_from(most).map_or(there, |most| most.min(there));
        Ok(self.wire.buffer.split_to(take).freeze())
    }

    async fn more(&mut self, room: usize) -> Result<(), BodyError> {
        match timeout(self.patience, self.wire.fill(room)).await {
            Err(_) => Err(BodyError::TooSlow),
            Ok(Err(error)) => Err(BodyError::Io(error)),
            Ok(Ok(0)) => Err(BodyError::Incomplete),
            Ok(Ok(_)) => Ok(()),
        }
    }

    /// A line without its end; bounded.
    async fn line(&mut self, most: usize) -> Result<Bytes, BodyError> {
        loop {
            if let Some(length) = self.wire.buffer.iter().position(|byte| *byte == b'\n') {
                let mut line = self.wire.buffer.split_to(length + 1);
                line.truncate(length);
                while line.last() == Some(&b'\r') {
                    line.truncate(line.len() - 1);
                }
                return if line.len() > most {
                    Err(BodyError::BadChunk)
                } else {
                    Ok(line.freeze())
                };
            }
            if self.wire.buffer.len() > most {
                return Err(BodyError::BadChunk);
            }
            self.more(SMALL_READ).await?;
        }
    }

    async fn chunk_line(&mut self) -> Result<(), BodyError> {
        let mut line = self.line(limits::CHUNK_LINE_BYTES_MAX).await?;
        if line.is_empty() {
            // The end of the chunk before.
            line = self.line(limits::CHUNK_LINE_BYTES_MAX).await?;
        }
        let digits = line.trim_ascii_end();
        let valid = (1..=15).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
        let size = std::str::from_utf8(digits)
            .ok()
            .filter(|_| valid)
            .and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .ok_or(BodyError::BadChunk)?;
        if size > 0 {
            self.left = Left::Chunk(size);
            return Ok(());
        }
        let mut trailers = 0;
        loop {
            let line = self.line(limits::TRAILER_BYTES_MAX).await?;
            trailers += line.len();
            if line.is_empty() {
                self.left = Left::Bytes(0);
                return Ok(());
            }
            if trailers > limits::TRAILER_BYTES_MAX {
                return Err(BodyError::BadChunk);
            }
        }
    }
}
