//! Every limit of the transport. Bodies have theirs in the table of routes.

use std::time::Duration;

/// Bytes of a request head that every connection may have.
pub const HEAD_BYTES_MAX: usize = 64 << 10;
/// Bytes of a rare large head: Pantavisor has no limit, and 1 MiB was seen to work.
pub const HEAD_BYTES_MAX_RARE: usize = 2 << 20;
/// Rare large heads at the same time.
pub const RARE_HEADS_MAX: usize = 4;
/// Connections at the same time, over all sockets.
pub const CONNECTIONS_MAX: usize = 1024;
/// Connections of one container, or of one user of the host other than root.
pub const CONNECTIONS_PER_CALLER_MAX: usize = 128;
/// An unread body up to this size is skipped after an early answer, and the connection goes on; with a longer one, it is closed.
pub const SKIP_BYTES_MAX: u64 = 64 << 10;
/// Time for it to come.
pub const SKIP_PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of one line in front of a chunk.
pub const CHUNK_LINE_BYTES_MAX: usize = 256;
/// Bytes of trailers after the last chunk.
pub const TRAILER_BYTES_MAX: usize = 16 << 10;
/// Bytes that are moved at once between socket and disk.
pub const PIECE_BYTES: usize = 256 << 10;
/// Pieces of one upload or download between two of its threads.
pub const PIECES_IN_FLIGHT: usize = 2;
/// Bytes of a long answer that the kernel may hold until the client takes them.
pub const SEND_BUFFER_BYTES: usize = 1 << 20;
/// Uploads and downloads at the same time; with a few pieces each, they take 24 MiB at most. One more waits.
pub const TRANSFERS_MAX: usize = 16;
/// How long an upload or download waits for its turn.
pub const TRANSFER_PATIENCE: Duration = Duration::from_secs(30);
/// Objects are counted for monitors again when the last count is older.
pub const OBJECT_COUNT_AGE: Duration = Duration::from_secs(5);
/// Followers of events and logs at the same time.
pub const FOLLOWERS_MAX: usize = 64;

/// Times after which the server does not wait any longer.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// Between two requests, and before the first.
    pub idle: Duration,
    /// From the first byte of a request until the end of its head.
    pub head: Duration,
    /// Between two pieces of a body.
    pub body: Duration,
    /// Until the client takes the next piece of an answer.
    pub write: Duration,
    /// For connections that are in the middle of something when the server stops.
    pub stop: Duration,
    /// Between two comments that keep a stream of events alive.
    pub heartbeat: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(600),
            head: Duration::from_secs(30),
            body: Duration::from_secs(60),
            write: Duration::from_secs(60),
            stop: Duration::from_secs(5),
            heartbeat: Duration::from_secs(15),
        }
    }
}
