//! What a container sees of the device under `/pantavisor`, beside the sockets (protocols/pantavisor.md section 1.13): metadata and logs,
//! all of them with the role `mgmt` or `monitor`, else its own. Always read-only.
//!
//! Mounted when the container starts, so roles count for its fingerprint. The files are written by the daemon and by the logs.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use model::{Container, RevisionId};

use crate::config::Config;

/// Folders below `/pantavisor` that are mount points.
pub(crate) const POINTS: [&str; 3] = ["user-meta", "device-meta", "logs"];

/// What is mounted on each of [`POINTS`], in that order; the folders are there when this is answered.
///
/// # Errors
/// A folder could not be made.
pub(crate) fn folders(
    config: &Config,
    revision: &RevisionId,
    container: &Container,
) -> io::Result<[PathBuf; 3]> {
    let name = &container.name;
    let logs = config.storage.join("logs");
    let meta = config.meta();
    let folders = if sees_all(config, container) {
        [meta.join("user-meta"), meta.join("device-meta"), logs]
    } else {
        [
            meta.join(format!("user-meta.{name}")),
            meta.join(format!("device-meta.{name}")),
            logs.join(revision.as_str()).join(name.as_str()),
        ]
    };
    for folder in &folders {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(folder)?;
    }
    Ok(folders)
}

fn sees_all(config: &Config, container: &Container) -> bool {
    let roles = &container.roles;
    roles.mgmt || roles.monitor || (!roles.given && config.default_role_mgmt)
}
