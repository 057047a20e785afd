//! Clouds for tests: servers of our own that behave as the real ones were recorded to, ways to start independent and real ones,
//! and one management side for all of them, so that a scenario is written once.

#![forbid(unsafe_code)]

pub mod call;
pub mod client;
pub mod fleet;
pub mod goosebit;
pub mod hawkbit;
pub mod jar;
pub mod kit;
pub mod kit_run;
pub mod management;
pub mod server;

/// Asks again and again until there is an answer.
///
/// # Panics
/// After `seconds`.
pub fn wait<T>(what: &str, seconds: u64, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(seconds);
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(
            std::time::Instant::now() < end,
            "not within {seconds} s: {what}"
        );
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}
