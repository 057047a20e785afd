//! Limits of bodies and lists on the socket. Pantavisor's own limits keep their values, because its clients know them.

/// Bytes of the body of `PUT /containers/{name}` (Pantavisor's limit).
pub const CONTROL_BODY_BYTES_MAX: usize = 1024;
/// Bytes of the body of `PUT /daemons/{name}` (Pantavisor's limit).
pub const DAEMON_BODY_BYTES_MAX: usize = 1024;
/// Bytes of the body of `POST /signal` (Pantavisor's limit).
pub const SIGNAL_BODY_BYTES_MAX: usize = 4096;
/// Bytes of the body of `POST /claims`: as many parts as a claim may have, each with the longest name, escaped.
pub const CLAIM_BODY_BYTES_MAX: usize = 32 << 10;
/// Bytes of the body of `PUT /claims/{id}`.
pub const LEASE_BODY_BYTES_MAX: usize = 1024;
/// Priority of a claim that says none.
pub const CLAIM_PRIORITY_DEFAULT: u64 = 100;
/// Lease in seconds of a claim that says none.
pub const CLAIM_LEASE_S_DEFAULT: u64 = 300;
/// Bytes of the body of `POST /commands` (Pantavisor's limit).
pub const COMMAND_BODY_BYTES_MAX: usize = 4096;
/// Lines that `GET /logs/{container}` shows when it is not told how many.
pub const LOG_TAIL_LINES_DEFAULT: u32 = 100;
/// Lines that `GET /logs/{container}` shows at most before it follows.
pub const LOG_TAIL_LINES_MAX: u32 = 10_000;
/// Segments of a path with parameters (Pantavisor's limit).
pub const PATH_SEGMENTS_MAX: usize = 10;
/// Bytes of one segment of a path with parameters (Pantavisor's limit: below NAME_MAX).
pub const PATH_SEGMENT_BYTES_MAX: usize = 255;
