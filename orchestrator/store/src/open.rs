//! Opening a storage: makes what is missing, removes what a cut left, and never refuses.
//!
//! A device must boot from a read-only or full disk too, so everything that fails here is a notice. Neither objects nor manifests are
//! read; the time grows with the number of names in a few folders only.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use model::metadata::MetaKind;
use model::{Instant, ObjectId};

use crate::disk::Disk;
use crate::{Failed, Inner, Options, Store, explain, layout};

/// A store, and what went wrong while it was opened.
pub struct Opened<D: Disk> {
    /// The store; it can be read whatever went wrong.
    pub store: Store<D>,
    /// What a person should know, in words.
    pub notices: Vec<String>,
}

impl<D: Disk> Store<D> {
    /// Opens a storage, be it empty, cut while it was written, or left by Pantavisor. `now` is the time at which every object that
    /// exists becomes leased, as an upload may have been answered just before the start.
    pub fn open(disk: D, options: Options, now: Instant) -> Opened<D> {
        let store = Self::new(disk, options, now);
        let mut notices = Vec::new();
        let inner = &store.inner;
        let mut note = |result: Result<(), Failed>| {
            if let Err(error) = result {
                notices.push(explain(&error));
            }
        };
        // What is read from now on may be what a killed predecessor wrote and did not make durable: nothing may build on that.
        note(inner.disk.sync_all().map_err(|source| Failed {
            operation: "sync",
            path: PathBuf::from("."),
            source,
        }));
        note(inner.skip_used_numbers());
        for folder in folders() {
            note(inner.make_missing(&folder));
        }
        for folder in folders_of_small_files() {
            note(inner.remove_temporary(&folder));
        }
        note(inner.remove_private_parts());
        match store.repair_marker_copy() {
            Ok(false) => {}
            Ok(true) => notices.push("the marker and its copy differed; repaired".to_owned()),
            Err(error) => notices.push(explain(&error)),
        }
        if let Err(error) = store.inner.make_spare() {
            notices.push(explain(&error));
        }
        Opened { store, notices }
    }
}

/// Every folder that a person expects to find.
fn folders() -> impl Iterator<Item = PathBuf> {
    let fixed = [
        layout::BOOT,
        layout::INCOMING,
        layout::LOCALS,
        layout::FAILURES,
        layout::LOGS,
        layout::DISKS_REV,
        layout::DISKS_PERM,
    ];
    let fixed = fixed.into_iter().map(PathBuf::from);
    fixed.chain([MetaKind::User, MetaKind::Device].map(layout::meta))
}

fn folders_of_small_files() -> impl Iterator<Item = PathBuf> {
    let fixed = [layout::BOOT, layout::FAILURES, layout::TRAILS].into_iter();
    fixed
        .map(PathBuf::from)
        .chain([MetaKind::User, MetaKind::Device].map(layout::meta))
}

impl<D: Disk> Inner<D> {
    fn make_missing(&self, folder: &Path) -> Result<(), Failed> {
        if self.metadata_of(folder)?.is_some() {
            return Ok(());
        }
        self.make_folder(folder)
    }

    /// Names that an earlier start left must not be used again for something else.
    fn skip_used_numbers(&self) -> Result<(), Failed> {
        for folder in crate::collect::folders_with_trash() {
            let shown = self.disk.visit(&folder, &mut |entry| {
                let number = [
                    layout::TEMP_PREFIX,
                    layout::BUILD_PREFIX,
                    layout::TRASH_PREFIX,
                ]
                .into_iter()
                .find_map(|prefix| entry.name.strip_prefix(prefix)?.parse::<u64>().ok());
                if let Some(number) = number {
                    let next = number.saturating_add(1);
                    self.counter.fetch_max(next, Ordering::Relaxed);
                }
                ControlFlow::Continue(())
            });
            crate::absent(shown).map_err(crate::failed("list", &folder))?;
        }
        Ok(())
    }

    /// Removes temporary files of `replace`. Only while nobody writes to the folder.
    pub(crate) fn remove_temporary(&self, folder: &Path) -> Result<(), Failed> {
        let mut found = Vec::new();
        let shown = self.disk.visit(folder, &mut |entry| {
            if entry.name.starts_with(layout::TEMP_PREFIX) {
                found.push(entry.name);
            }
            ControlFlow::Continue(())
        });
        crate::absent(shown).map_err(crate::failed("list", folder))?;
        for name in found {
            self.remove_file(&folder.join(name))?;
        }
        Ok(())
    }

    /// Second uploads of one object cannot be resumed.
    fn remove_private_parts(&self) -> Result<(), Failed> {
        let folder = Path::new(layout::INCOMING);
        for entry in self.list(folder)? {
            if entry.name.parse::<ObjectId>().is_err() {
                self.remove_file(&folder.join(entry.name))?;
            }
        }
        Ok(())
    }
}
