//! Every limit on what comes from outside, in one place. All are tested at the limit and one past it.

/// Bytes of a manifest: 4 MiB (Pantavisor has no limit; the largest known is below 1 MB).
pub const MANIFEST_BYTES_MAX: usize = 4 << 20;
/// Keys of a manifest.
pub const MANIFEST_KEYS_MAX: usize = 20_000;
/// Containers of a manifest.
pub const CONTAINERS_MAX: usize = 256;
/// Groups of a manifest.
pub const GROUPS_MAX: usize = 64;
/// Depth of inline JSON.
pub const JSON_DEPTH_MAX: usize = 64;
/// Problems that one parse reports; the rest is counted.
pub const PROBLEMS_MAX: usize = 100;
/// Bytes of a manifest key.
pub const KEY_BYTES_MAX: usize = 1024;
/// Bytes of one part of a path (Linux NAME_MAX).
pub const PATH_PART_BYTES_MAX: usize = 255;
/// Characters of a local revision's name, after `locals/` (Pantavisor's limit).
pub const REVISION_NAME_CHARS_MAX: usize = 64;
/// Digits of a numbered revision.
pub const REVISION_DIGITS_MAX: usize = 18;
/// Bytes of a container's or a group's name.
pub const CONTAINER_NAME_BYTES_MAX: usize = 64;
/// Bytes of a metadata value (Pantavisor's limit).
pub const META_VALUE_BYTES_MAX: usize = 4096;
/// Bytes of a metadata key.
pub const META_KEY_BYTES_MAX: usize = 255;
/// Keys of one metadata map.
pub const META_KEYS_MAX: usize = 1024;
/// Bytes of a commit message (Pantavisor's limit).
pub const COMMIT_MESSAGE_BYTES_MAX: usize = 256;
/// Bytes of the log lines that a progress or a failure record carries.
pub const FAILURE_LOG_BYTES_MAX: usize = 16 << 10;
/// Failure records that are kept; the oldest goes first.
pub const FAILURES_MAX: usize = 64;
/// Manifests that are remembered as failed; the oldest is forgotten first.
pub const FAILED_MANIFESTS_MAX: usize = 64;
/// Bytes of the name of a driver.
pub const DRIVER_NAME_BYTES_MAX: usize = 64;
/// Bytes of one inline JSON file that is read (`run.json`, `device.json`, ...), not only kept.
pub const INLINE_READ_BYTES_MAX: usize = 256 << 10;
/// Items of one list in such a file.
pub const LIST_ITEMS_MAX: usize = 1024;
/// Any configured time.
pub const DURATION_MAX: std::time::Duration = std::time::Duration::from_secs(365 * 24 * 3600);
/// Log files inside one container that are followed.
pub const FOLLOWED_FILES_MAX: usize = 16;
/// Writable volumes of one container.
pub const VOLUMES_MAX: usize = 128;
/// Claims of all clients together.
pub const CLAIMS_MAX: usize = 64;
/// Claims of one client.
pub const CLAIMS_OF_CLIENT_MAX: usize = 16;
/// Parts of one claim.
pub const CLAIM_PARTS_MAX: usize = 64;
/// Highest priority of a claim.
pub const CLAIM_PRIORITY_MAX: u16 = 1000;
/// Shortest lease of a claim, in seconds.
pub const CLAIM_LEASE_S_MIN: u32 = 5;
/// Longest lease of a claim, in seconds: a day. It bounds how long a client that is gone can stand in the way.
pub const CLAIM_LEASE_S_MAX: u32 = 24 * 3600;
/// Bytes of the name that a program of the host gives itself.
pub const CLIENT_NAME_BYTES_MAX: usize = 64;
