//! Revisions: a folder each, with the manifest as it came, its progress, its commit message.
//!
//! A revision is there wholly or not at all. It is built in a folder of its own, synced from the leaves up, and renamed into place.
//! One that exists is *exchanged* for the new folder, so that every reader and every boot finds the old one or the new one; on a file
//! system that cannot exchange, the old one is moved away first, and a power cut between the two steps leaves none (callers never
//! replace a revision that a boot may need). Deleting is one rename out of the way; the folder is taken apart by `collect`.
//! `current` is a link that is replaced by a rename. Which revision may be replaced or deleted is decided by the caller.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use model::{ObjectId, Progress, RevisionId, limits};

use crate::disk::{Disk, EntryKind};
use crate::{Failed, Inner, Store, absent, failed, layout, lock};

/// Bytes of a progress file that is read back.
pub(crate) const PROGRESS_BYTES_MAX: usize = 64 << 10;

/// Why a revision could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum RevisionError {
    /// There is no such revision.
    #[error("there is no revision {0}")]
    Missing(RevisionId),
    /// The manifest is not what was put: the disk has changed it.
    #[error(
        "the manifest of revision {revision} is damaged: its hash is {found}, it was put as {expected}; install the revision again"
    )]
    Damaged {
        /// Which.
        revision: RevisionId,
        /// Digest when it was put.
        expected: ObjectId,
        /// Digest now.
        found: ObjectId,
    },
    /// The commit message is too long.
    #[error(
        "a commit message has at most {} bytes",
        limits::COMMIT_MESSAGE_BYTES_MAX
    )]
    MessageTooLong,
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] Failed),
}

/// A revision to be put.
#[derive(Debug, Clone, Copy)]
pub struct NewRevision<'a> {
    /// Its name.
    pub revision: &'a RevisionId,
    /// Its manifest, exact bytes.
    pub manifest: &'a [u8],
    /// Its first progress.
    pub progress: &'a Progress,
    /// Its commit message, if it has one already.
    pub commit_message: Option<&'a [u8]>,
}

/// A revision as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevisionEntry {
    /// Its name.
    pub revision: RevisionId,
    /// When it was put, wall clock, milliseconds since 1970.
    pub modified_ms: u64,
    /// Its commit message; empty when it has none.
    pub commit_message: Vec<u8>,
    /// Its progress file as it stands; `None` when it has none.
    pub progress: Option<Vec<u8>>,
    /// Whether it was committed once.
    pub done: bool,
}

impl<D: Disk> Store<D> {
    /// Puts a revision, or replaces it as a whole. Durable when it returns.
    ///
    /// # Errors
    /// The message is too long, or the disk failed: then the old one or none is there.
    pub fn put_revision(&self, new: NewRevision<'_>) -> Result<(), RevisionError> {
        if new
            .commit_message
            .is_some_and(|message| message.len() > limits::COMMIT_MESSAGE_BYTES_MAX)
        {
            return Err(RevisionError::MessageTooLong);
        }
        let inner = &self.inner;
        let _guard = lock(&inner.revisions);
        // Beside its place, so that giving it its name touches one folder only.
        let place = layout::revision(new.revision);
        let name = format!("{}{}", layout::BUILD_PREFIX, inner.unique());
        let build = layout::parent(&place).join(name);
        if let Err(error) = inner.build_revision(&build, new) {
            drop(inner.disk.remove_dir_all(&build));
            return Err(error.into());
        }
        inner.place_revision(&build, new.revision)?;
        // What was replaced. Only now: while the exchange is not durable, a cut may give it its name back. What stays is collected.
        drop(inner.disk.remove_dir_all(&build));
        Ok(())
    }

    /// The manifest, exact bytes, compared with the digest that it had when it was put (Pantavisor's revisions have none).
    ///
    /// # Errors
    /// No such revision, damaged, or the disk failed.
    pub fn read_manifest(&self, revision: &RevisionId) -> Result<Vec<u8>, RevisionError> {
        let path = layout::manifest(revision);
        let _settled = self.inner.settled();
        let bytes = self
            .inner
            .read(&path, limits::MANIFEST_BYTES_MAX)?
            .ok_or_else(|| RevisionError::Missing(revision.clone()))?;
        if let Some(expected) = self.manifest_digest(revision)? {
            let found = ObjectId::of(&bytes);
            if found != expected {
                return Err(RevisionError::Damaged {
                    revision: revision.clone(),
                    expected,
                    found,
                });
            }
        }
        Ok(bytes)
    }

    /// The digest that the manifest had when it was put; `None` when that is not known.
    ///
    /// # Errors
    /// The disk failed.
    pub fn manifest_digest(&self, revision: &RevisionId) -> Result<Option<ObjectId>, Failed> {
        let bytes = self.inner.read(&layout::manifest_digest(revision), 80)?;
        Ok(bytes.and_then(|bytes| std::str::from_utf8(&bytes).ok()?.trim_end().parse().ok()))
    }

    /// Whether there is such a revision.
    ///
    /// # Errors
    /// The disk failed.
    pub fn has_revision(&self, revision: &RevisionId) -> Result<bool, Failed> {
        let _settled = self.inner.settled();
        self.inner.has_revision(revision)
    }

    /// Names of all revisions, sorted as text.
    ///
    /// # Errors
    /// The disk failed.
    pub fn revisions(&self) -> Result<Vec<RevisionId>, Failed> {
        let _settled = self.inner.settled();
        self.inner.revisions()
    }

    /// Shows every revision, sorted by name as text. Only the names are in memory at once.
    ///
    /// # Errors
    /// The disk failed to list; a revision that cannot be read is shown without what is missing.
    pub fn visit_revisions(
        &self,
        visitor: &mut dyn FnMut(RevisionEntry) -> ControlFlow<()>,
    ) -> Result<(), Failed> {
        for revision in self.revisions()? {
            if let Some(entry) = self.revision(&revision)?
                && visitor(entry).is_break()
            {
                break;
            }
        }
        Ok(())
    }

    /// One revision as listed; `None` when it is not there.
    ///
    /// # Errors
    /// The disk failed.
    pub fn revision(&self, revision: &RevisionId) -> Result<Option<RevisionEntry>, Failed> {
        let inner = &self.inner;
        let _settled = inner.settled();
        let Some(folder) = inner.metadata_of(&layout::revision(revision))? else {
            return Ok(None);
        };
        // A damaged small file must not hide the revision.
        let small = |path: PathBuf, limit| inner.read(&path, limit).ok().flatten();
        Ok(Some(RevisionEntry {
            revision: revision.clone(),
            modified_ms: folder.modified_ms,
            commit_message: small(
                layout::commit_message(revision),
                limits::COMMIT_MESSAGE_BYTES_MAX,
            )
            .unwrap_or_default(),
            progress: small(layout::progress(revision), PROGRESS_BYTES_MAX),
            done: inner.metadata_of(&layout::done(revision))?.is_some(),
        }))
    }

    /// The progress file as it stands; `None` when there is none.
    ///
    /// # Errors
    /// The disk failed.
    pub fn progress_bytes(&self, revision: &RevisionId) -> Result<Option<Vec<u8>>, Failed> {
        let _settled = self.inner.settled();
        self.inner
            .read(&layout::progress(revision), PROGRESS_BYTES_MAX)
    }

    /// The progress; `None` when there is none, or none that can be understood.
    ///
    /// # Errors
    /// The disk failed.
    pub fn progress(&self, revision: &RevisionId) -> Result<Option<Progress>, Failed> {
        let bytes = self.progress_bytes(revision)?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// Sets the progress, durably.
    ///
    /// # Errors
    /// No such revision, or the disk failed.
    pub fn set_progress(
        &self,
        revision: &RevisionId,
        progress: &Progress,
    ) -> Result<(), RevisionError> {
        let text = progress.to_json();
        self.put_beside(revision, &layout::progress(revision), text.as_bytes())
    }

    /// Sets the commit message, durably.
    ///
    /// # Errors
    /// No such revision, too long, or the disk failed.
    pub fn set_commit_message(
        &self,
        revision: &RevisionId,
        message: &[u8],
    ) -> Result<(), RevisionError> {
        if message.len() > limits::COMMIT_MESSAGE_BYTES_MAX {
            return Err(RevisionError::MessageTooLong);
        }
        self.put_beside(revision, &layout::commit_message(revision), message)
    }

    /// Remembers, durably, that the revision was committed.
    ///
    /// # Errors
    /// No such revision, or the disk failed.
    pub fn set_done(&self, revision: &RevisionId) -> Result<(), RevisionError> {
        self.put_beside(revision, &layout::done(revision), b"")
    }

    /// Whether the revision was committed once.
    ///
    /// # Errors
    /// The disk failed.
    pub fn is_done(&self, revision: &RevisionId) -> Result<bool, Failed> {
        let _settled = self.inner.settled();
        Ok(self.inner.metadata_of(&layout::done(revision))?.is_some())
    }

    /// Takes a revision away, durably; whether it was there. Its volumes and logs go with it; its objects go at the next
    /// collection, if nothing else needs them.
    ///
    /// # Errors
    /// The disk failed: it is there or not.
    pub fn delete_revision(&self, revision: &RevisionId) -> Result<bool, Failed> {
        let inner = &self.inner;
        let _guard = lock(&inner.revisions);
        let folder = layout::revision(revision);
        if inner.metadata_of(&folder)?.is_none() {
            // An earlier attempt may have failed after its rename; what is answered now must be durable too.
            absent(inner.disk.sync_dir(layout::parent(&folder)))
                .map_err(failed("sync", &folder))?;
            return Ok(false);
        }
        inner.throw_away(&folder)?;
        // Only after the revision is durably gone; what stays for any reason is collected later.
        drop(inner.throw_away_leftovers(revision));
        Ok(true)
    }

    /// Lets `trails/current` name this revision, durably.
    ///
    /// # Errors
    /// The disk failed: it is the old one or the new one.
    pub fn set_current(&self, revision: &RevisionId) -> Result<(), Failed> {
        let inner = &self.inner;
        let trails = Path::new(layout::TRAILS);
        inner.make_folder(trails)?;
        let temp = trails.join(format!("{}{}", layout::TEMP_PREFIX, inner.unique()));
        inner.remove_file(&temp)?;
        inner
            .disk
            .symlink(Path::new(revision.as_str()), &temp)
            .map_err(failed("create link", &temp))?;
        let _settling = inner.settle();
        if let Err(error) = inner.rename(&temp, Path::new(layout::CURRENT)) {
            drop(inner.disk.remove_file(&temp));
            return Err(error);
        }
        inner.sync_dir(trails)
    }

    /// What `trails/current` names; `None` when it is missing or names no revision.
    ///
    /// # Errors
    /// The disk failed.
    pub fn current(&self) -> Result<Option<RevisionId>, Failed> {
        let path = Path::new(layout::CURRENT);
        let _settled = self.inner.settled();
        let target = match absent(self.inner.disk.read_link(path)) {
            Ok(target) => target,
            // Somebody's folder or file of this name.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => None,
            Err(error) => return Err(failed("read link", path)(error)),
        };
        Ok(target.and_then(|target| target.to_str()?.parse().ok()))
    }

    fn put_beside(
        &self,
        revision: &RevisionId,
        path: &Path,
        bytes: &[u8],
    ) -> Result<(), RevisionError> {
        // Else the revision could be deleted or exchanged between the look and the write.
        let _guard = lock(&self.inner.revisions);
        if !self.inner.has_revision(revision)? {
            return Err(RevisionError::Missing(revision.clone()));
        }
        Ok(self.inner.replace(path, bytes)?)
    }
}

impl<D: Disk> Inner<D> {
    pub(crate) fn has_revision(&self, revision: &RevisionId) -> Result<bool, Failed> {
        Ok(self.metadata_of(&layout::manifest(revision))?.is_some())
    }

    pub(crate) fn revisions(&self) -> Result<Vec<RevisionId>, Failed> {
        let mut revisions = Vec::new();
        self.visit_folders(Path::new(layout::TRAILS), &mut |name| {
            revisions.extend(name.parse::<RevisionId>());
        })?;
        self.visit_folders(Path::new(layout::LOCALS), &mut |name| {
            revisions.extend(format!("locals/{name}").parse::<RevisionId>());
        })?;
        revisions.sort_unstable();
        Ok(revisions)
    }

    /// Names of folders in a folder; none when it is not there.
    pub(crate) fn visit_folders(
        &self,
        path: &Path,
        visitor: &mut dyn FnMut(&str),
    ) -> Result<(), Failed> {
        let shown = self.disk.visit(path, &mut |entry| {
            if entry.kind == EntryKind::Dir {
                visitor(&entry.name);
            }
            ControlFlow::Continue(())
        });
        absent(shown).map_err(failed("list", path))?;
        Ok(())
    }

    /// Writes a revision's files into a new folder and makes them durable, from the leaves up.
    fn build_revision(&self, build: &Path, new: NewRevision<'_>) -> Result<(), Failed> {
        let (pvr, pv) = (build.join(".pvr"), build.join(".pv"));
        self.make_folder(layout::parent(build))?;
        for folder in [&pvr, &pv] {
            self.disk
                .create_dir_all(folder)
                .map_err(failed("create folder", folder))?;
        }
        let config = serde_json::json!({ "ObjectsDir": self.options.objects_dir }).to_string();
        let digest = ObjectId::of(new.manifest).to_string();
        self.write_synced(&pvr.join("json"), new.manifest)?;
        self.write_synced(&pvr.join("json.sha256"), digest.as_bytes())?;
        self.write_synced(&pvr.join("config"), config.as_bytes())?;
        self.write_synced(&pv.join("progress"), new.progress.to_json().as_bytes())?;
        if let Some(message) = new.commit_message {
            self.write_synced(&pv.join("commitmsg"), message)?;
        }
        for folder in [&pvr, &pv, build] {
            self.sync_dir(folder)?;
        }
        Ok(())
    }

    /// Gives a built folder the revision's name.
    fn place_revision(&self, build: &Path, revision: &RevisionId) -> Result<(), Failed> {
        let place = layout::revision(revision);
        self.forget_folder(&place);
        let is_new = self.metadata_of(&place)?.is_none();
        if is_new {
            // Volumes and logs of a revision of this name that was deleted must not become those of the new one.
            self.throw_away_leftovers(revision)?;
        }
        let _settling = self.settle();
        if is_new {
            self.rename(build, &place)?;
        } else {
            match self.disk.exchange(build, &place) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                    self.move_away(&place)?;
                    self.rename(build, &place)?;
                }
                Err(error) => return Err(failed("exchange", &place)(error)),
            }
        }
        self.sync_dir(layout::parent(&place))
    }

    /// Moves a folder out of the way, durably, to be taken apart by collect.
    pub(crate) fn throw_away(&self, path: &Path) -> Result<(), Failed> {
        let _settling = self.settle();
        self.move_away(path)
    }

    /// The same for who has seen to it that nobody is told meanwhile.
    fn move_away(&self, path: &Path) -> Result<(), Failed> {
        self.forget_folder(path);
        let folder = layout::parent(path);
        // Trash of nested names lies beside its parent's other names, so that one sync makes both sides durable.
        let trash = folder.join(format!("{}{}", layout::TRASH_PREFIX, self.unique()));
        self.rename(path, &trash)?;
        self.sync_dir(folder)
    }

    /// Leaves an empty folder where one with something in it was.
    pub(crate) fn replace_folder(&self, path: &Path) -> Result<(), Failed> {
        if self.metadata_of(path)?.is_some() {
            self.throw_away(path)?;
        }
        self.make_folder(path)
    }

    /// Moves the volumes and logs away that a deleted revision left.
    fn throw_away_leftovers(&self, revision: &RevisionId) -> Result<(), Failed> {
        for root in [layout::DISKS_REV, layout::LOGS] {
            let path = Path::new(root).join(revision.as_str());
            if self.metadata_of(&path)?.is_some() {
                self.throw_away(&path)?;
            }
        }
        Ok(())
    }
}
