//! Every limit of the log process.

use std::time::Duration;

/// Bytes that are taken from a pipe at once.
pub const PIECE_BYTES: usize = 64 << 10;
/// Bytes that a pipe takes while nobody reads: the log process is started again, or the whole orchestrator.
pub const PIPE_BYTES: usize = 1 << 20;
/// Bytes of one source that wait to be written.
pub const QUEUE_BYTES_MAX: usize = 512 << 10;
/// The same, over all sources; each gets its share.
pub const QUEUES_BYTES_MAX: usize = 8 << 20;
/// A smaller share makes no sense.
pub const QUEUE_BYTES_MIN: usize = 2 * PIECE_BYTES;
/// A line without an end is cut here.
pub const LINE_BYTES_MAX: usize = model::log::TEXT_BYTES_MAX;
/// How long a container may be held up because its queue is full and the disk slow; then its oldest lines are given up.
pub const HOLD_UP_MAX: Duration = Duration::from_millis(200);
/// How long lines are gathered before they are written.
pub const BATCH: Duration = Duration::from_millis(20);
/// Bytes that a source may write at once before its rate counts.
pub const BURST_BYTES: u64 = 16 << 20;
/// After the end of a container, how long its pipes may stay open (a process that was left behind holds them).
pub const END_PATIENCE: Duration = Duration::from_millis(300);
/// Without a source, the process ends after this.
pub const IDLE: Duration = Duration::from_secs(5);
/// Connections to Pantavisor's log socket at the same time.
pub const CONNECTIONS_MAX: usize = 32;
/// Bytes of one message on it.
pub const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// Time for one message on it.
pub const MESSAGE_PATIENCE: Duration = Duration::from_secs(5);
/// Datagrams of one socket that are taken before the others have their turn.
pub const DATAGRAMS_AT_ONCE: usize = 64;
/// Bytes of one datagram.
pub const DATAGRAM_BYTES_MAX: usize = 16 << 10;
/// Between two looks whether a followed file appeared or was replaced.
pub const FOLLOW_LOOK: Duration = Duration::from_secs(1);
/// Bytes of a followed file that are taken before the others have their turn.
pub const FOLLOW_BYTES: usize = 256 << 10;
/// Whatever happens, the spool is looked at so often: it may be gone.
pub const LOOK: Duration = Duration::from_secs(10);
/// The same where the kernel does not tell of changes.
pub const LOOK_WITHOUT_WATCH: Duration = Duration::from_millis(100);
/// Sources at the same time.
pub const SOURCES_MAX: usize = 512;
/// Bytes of a description in the spool.
pub const DESCRIPTION_BYTES_MAX: u64 = 256 << 10;
/// The smallest size at which a file is rotated, whatever the quota says.
pub const FILE_BYTES_MIN: u64 = 16 << 10;
/// Bytes written between two looks at the quota.
pub const QUOTA_LOOK_BYTES: u64 = 256 << 10;
/// Rotated files of one container that are known.
pub const PARTS_MAX: u32 = 100;
