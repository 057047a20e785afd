//! Monotonic time and chance, at the edge: what decides gets both as values.

use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::OnceLock;

use model::Instant;

/// Milliseconds since this process first asked; never goes back, never jumps with the wall clock.
pub fn now() -> Instant {
    static START: OnceLock<std::time::Instant> = OnceLock::new();
    let passed = START.get_or_init(std::time::Instant::now).elapsed();
    Instant(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX))
}

/// A number that nobody can foresee well enough to align a fleet by; no secret.
pub fn random() -> u64 {
    // Keys of the standard library's hash maps come from the kernel and differ with each call.
    let mut hasher = std::hash::RandomState::new().build_hasher();
    hasher.write_u64(now().0);
    hasher.finish()
}
