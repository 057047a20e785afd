//! Where everything lies, relative to the storage root. One function or constant per place, nothing else.
//!
//! The layout is Pantavisor's, so that its trees can be taken over. What is temporary is named `.pv-…`, as
//! no revision can be (a local one may start with any other dot).

use std::path::{Path, PathBuf};

use model::metadata::MetaKind;
use model::{ContainerName, ObjectId, RevisionId};

/// Objects, each named by its digest.
pub const OBJECTS: &str = "objects";
/// Parts of objects that are being uploaded.
pub const INCOMING: &str = "objects/.incoming";
/// Objects that were found corrupt.
pub const QUARANTINE: &str = "objects/.quarantine";
/// Revisions.
pub const TRAILS: &str = "trails";
/// Revisions with a name of their own.
pub const LOCALS: &str = "trails/locals";
/// Link to the running revision.
pub const CURRENT: &str = "trails/current";
/// Files of boot loaders, and the marker.
pub const BOOT: &str = "boot";
/// What to boot.
pub const MARKER: &str = "boot/marker";
/// The same, again.
pub const MARKER_COPY: &str = "boot/marker.copy";
/// Containers that a person stopped.
pub const STOPPED: &str = "boot/stopped";
/// What clients have claimed.
pub const CLAIMS: &str = "boot/claims";
/// A reset to the factory revision that was accepted.
pub const RESET: &str = "boot/reset";
/// What is given up when the storage is full.
pub const SPARE: &str = "boot/spare";
/// The seals of objects.
pub const SEALS: &str = "boot/seals";
/// Which takeover from Pantavisor the marker is of.
pub const TAKEOVER: &str = "boot/takeover";
/// Failure records.
pub const FAILURES: &str = "failures";
/// Logs of containers.
pub const LOGS: &str = "logs";
/// Volumes.
pub const DISKS: &str = "disks";
/// Volumes that live as long as their revision.
pub const DISKS_REV: &str = "disks/rev";
/// Volumes that live for ever.
pub const DISKS_PERM: &str = "disks/perm";

/// What temporary files start with.
pub const TEMP_PREFIX: &str = ".pv-tmp-";
/// What folders start with in which a revision is being built, or lies that was exchanged for another.
pub const BUILD_PREFIX: &str = ".pv-incoming-";
/// What removed folders start with until they are gone.
pub const TRASH_PREFIX: &str = ".pv-trash-";

/// An object.
pub fn object(object: &ObjectId) -> PathBuf {
    Path::new(OBJECTS).join(object.to_string())
}

/// What is there of an object whose upload was interrupted.
pub fn part(object: &ObjectId) -> PathBuf {
    Path::new(INCOMING).join(object.to_string())
}

/// The folder of a revision.
pub fn revision(revision: &RevisionId) -> PathBuf {
    Path::new(TRAILS).join(revision.as_str())
}

/// A revision's manifest.
pub fn manifest(revision: &RevisionId) -> PathBuf {
    self::revision(revision).join(".pvr/json")
}

/// The digest that the manifest had when it was put; missing where Pantavisor put it.
pub fn manifest_digest(revision: &RevisionId) -> PathBuf {
    self::revision(revision).join(".pvr/json.sha256")
}

/// A revision's progress.
pub fn progress(revision: &RevisionId) -> PathBuf {
    self::revision(revision).join(".pv/progress")
}

/// A revision's commit message.
pub fn commit_message(revision: &RevisionId) -> PathBuf {
    self::revision(revision).join(".pv/commitmsg")
}

/// Says that a revision was committed once.
pub fn done(revision: &RevisionId) -> PathBuf {
    self::revision(revision).join(".pv/done")
}

/// Metadata.
pub const META: &str = "meta";

/// A metadata map.
pub fn meta(kind: MetaKind) -> PathBuf {
    Path::new(META).join(kind.folder())
}

/// A failure record.
pub fn failure(id: u64) -> PathBuf {
    Path::new(FAILURES).join(format!("{id}.json"))
}

/// Logs of one container in one revision.
pub fn logs(revision: &RevisionId, container: &ContainerName) -> PathBuf {
    Path::new(LOGS)
        .join(revision.as_str())
        .join(container.as_str())
}

/// The folder that a path lies in; the root for a path of one part.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}
