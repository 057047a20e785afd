//! Limits of the client: on what it believes from a server, and on how much it keeps in memory.

use std::time::Duration;

/// Bytes of a JSON or text answer. A device with 100,000 objects answers with about 10 MiB.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Bytes of the body of a refusal.
pub const REFUSAL_BYTES_MAX: usize = 1 << 20;
/// Bytes of one server-sent event.
pub const EVENT_BYTES_MAX: usize = 1 << 20;
/// Bytes of one piece of an upload.
pub const CHUNK_BYTES: usize = 256 << 10;
/// Pieces of an upload that are read ahead.
pub const CHUNKS_AHEAD: usize = 4;
/// How often an upload is taken up again after the connection broke.
pub const UPLOAD_RESUMES_MAX: u32 = 3;
/// Bytes of a socket's path (Linux `sun_path`, without its NUL).
pub const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Shortest pause before an event stream is taken up again.
pub const RESUME_PAUSE_MIN: Duration = Duration::from_millis(200);
/// Longest pause before an event stream is taken up again.
pub const RESUME_PAUSE_MAX: Duration = Duration::from_secs(10);
/// Bytes of a bundle when unpacked, members that do not count included.
pub const BUNDLE_BYTES_MAX: u64 = 64 << 30;
/// Members of a bundle.
pub const BUNDLE_MEMBERS_MAX: usize = 100_000;
