//! What the server asks of the machine below: facts for the device metadata, daemons of the host, kernel modules. One trait, given by
//! the daemon.
//!
//! Every method may wait (for a process, for the kernel): handlers call them on threads where that is allowed.

use api::messages::pantavisor::{Daemon, DaemonAction};
use model::manifest::Driver;

/// The machine below.
pub trait Machine: Send + Sync + 'static {
    /// Pantavisor's keys that the machine itself tells, with their values now.
    fn facts(&self) -> Vec<(&'static str, String)>;

    /// Daemons that the orchestrator runs on the host.
    fn daemons(&self) -> Vec<Daemon>;

    /// Starts or stops a daemon, and keeps it so; `None` when there is none of this name. Returns when that is done.
    fn control_daemon(&self, name: &str, action: DaemonAction) -> Option<Result<(), String>>;

    /// Whether all modules of a driver are in the kernel; `None` when its modules are not known.
    fn is_loaded(&self, driver: &Driver) -> Option<bool>;

    /// Loads the modules of a driver.
    ///
    /// # Errors
    /// Its modules are not known, or the first one that could not be loaded, and why.
    fn load(&self, driver: &Driver) -> Result<(), String>;

    /// Unloads the modules of a driver, as far as nobody uses them.
    fn unload(&self, driver: &Driver);
}
