//! Limits on what comes from a cloud and on what is kept, in one place.

use std::time::Duration;

/// Bytes of a deployment's id.
pub const DEPLOYMENT_ID_BYTES_MAX: usize = 256;
/// Artifacts of one offer.
pub const ARTIFACTS_MAX: usize = 10_000;
/// Links of one artifact.
pub const LINKS_MAX: usize = 16;
/// Bytes of a link.
pub const LINK_BYTES_MAX: usize = 8 << 10;
/// Bytes of an artifact's name.
pub const NAME_BYTES_MAX: usize = 1024;
/// Bytes of one line that is told to a cloud.
pub const LINE_BYTES_MAX: usize = 500;
/// Lines of one report.
pub const LINES_MAX: usize = 40;
/// Reports that wait for the cloud; of those that are not the last word the oldest goes first.
pub const REPORTS_MAX: usize = 16;
/// Deployments that are remembered after their end.
pub const PAST_MAX: usize = 32;
/// Lines of a failure that are remembered after a deployment's end.
pub const PAST_LINES_MAX: usize = 8;
/// Bytes of the record on disk; more than the limits above can make of it.
pub const RECORD_BYTES_MAX: u64 = 1 << 20;
/// Shortest time between two reports that only tell how far a download is.
pub const PROGRESS_INTERVAL: Duration = Duration::from_secs(30);
/// Bytes of a configuration file.
pub const CONFIG_BYTES_MAX: u64 = 64 << 10;
/// Bytes of a file that holds a secret, a key or certificates.
pub const SECRET_BYTES_MAX: u64 = 256 << 10;
/// Bytes of a file of certificate authorities: a system's whole store is about 250 KiB.
pub const AUTHORITIES_BYTES_MAX: u64 = 4 << 20;
/// Redirects that are followed.
pub const REDIRECTS_MAX: usize = 5;
/// Connections that are kept open while they are idle.
pub const IDLE_CONNECTIONS_MAX: usize = 4;
/// How long an idle connection is kept.
pub const IDLE_CONNECTION_TIME: Duration = Duration::from_secs(60);
/// Bytes of the head of an answer, and of what is read from a connection at once.
pub const CONNECTION_BUFFER_BYTES: usize = 64 << 10;
/// How often in a row all links of an artifact may be dead before it counts as gone.
pub const STALE_ROUNDS_MAX: u32 = 10;
/// How long fresh links are waited for before the dead ones are tried again.
pub const LINKS_PATIENCE: Duration = Duration::from_secs(120);
/// How often bytes with a wrong hash are fetched again.
pub const BAD_HASHES_MAX: u32 = 3;
/// How often objects that went away meanwhile are fetched again.
pub const ROUNDS_MAX: u32 = 3;
/// How long an upload stays open while nothing comes; the device ends it after a minute.
pub const UPLOAD_WAITS: Duration = Duration::from_secs(20);
/// Longest pause while the disk does not take what must be kept.
pub const KEEP_PAUSE_MAX: Duration = Duration::from_secs(15);
/// How often is looked whether a byte budget that was used up is full again.
pub const BUDGET_LOOK: Duration = Duration::from_secs(30);
