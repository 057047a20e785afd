//! What may be set about the loop. The daemon fills it from its configuration; nothing here is read from outside.

use std::time::Duration;

/// Settings of the loop, by value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How long a trial must hold its goals before it is committed (Pantavisor's PV_UPDATER_COMMIT_DELAY).
    pub commit_delay: Duration,
    /// How often a trial may be tried, at least 1.
    pub tries: u32,
    /// Pantavisor's exact behaviour: what was applied in place ends UPDATED and is committed by the trial after the next start.
    pub exact_commit: bool,
    /// How often a goal may be lost and found again while a trial is observed, before it is rolled back.
    pub goal_losses_max: u32,
    /// Revisions that are kept beside those that must be (committed, previous, factory, trial, running).
    pub keep_revisions: usize,
    /// How long a revision that was never run, and the objects that it names, are kept from collection.
    pub lease: Duration,
    /// How long a shutdown may take before the machine ends with containers still running.
    pub shutdown_limit: Duration,
    /// How long after the start, or after a commit, objects of what runs are sealed and read as a whole; zero: never.
    pub seal_after: Duration,
    /// Whether a container whose manifest says nothing about roles gets `mgmt`.
    pub default_role_mgmt: bool,
    /// Told as `pantavisor.arch`, such as `x86_64/64/EL`.
    pub arch: String,
    /// Told as `pantavisor.version`.
    pub version: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            commit_delay: Duration::from_secs(25),
            tries: 3,
            exact_commit: false,
            goal_losses_max: 5,
            keep_revisions: 2,
            lease: Duration::from_secs(24 * 60 * 60),
            shutdown_limit: Duration::from_secs(60),
            seal_after: Duration::ZERO,
            default_role_mgmt: false,
            arch: String::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}
