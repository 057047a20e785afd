//! The only way to change a small file: write a temporary file in the same folder, sync it, rename it, sync the folder.
//!
//! After a power cut the file is the old one or the new one, whole. When the call has returned without an error it is the new one.
//! After an error it is either; a caller that must know reads it again. Between rename and sync nobody is told of it.

use std::path::Path;

use crate::disk::{Disk, WriteFile as _};
use crate::{Failed, Inner, failed, layout, lock};

/// Durable folders that are remembered; the memory is only to save syncs.
const FOLDERS_REMEMBERED_MAX: usize = 256;

impl<D: Disk> Inner<D> {
    /// Replaces a file, or creates it with the folders above it. On a full storage the spare is given up for what a boot needs.
    pub(crate) fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), Failed> {
        match self.replace_once(path, bytes) {
            Err(error) if error.is_full() && self.give_up_spare(path)? => {
                self.replace_once(path, bytes)
            }
            other => other,
        }
    }

    fn replace_once(&self, path: &Path, bytes: &[u8]) -> Result<(), Failed> {
        let folder = layout::parent(path);
        self.make_folder(folder)?;
        let temp = folder.join(format!("{}{}", layout::TEMP_PREFIX, self.unique()));
        let result = self.write_synced(&temp, bytes).and_then(|()| {
            let _settling = self.settle();
            self.rename(&temp, path)?;
            self.sync_dir(folder)
        });
        if result.is_err() {
            // It is there only when the rename was not made. Open and collect remove it later if this fails too.
            drop(self.disk.remove_file(&temp));
        }
        result
    }

    /// Writes a new file and makes its content, not its name, durable.
    pub(crate) fn write_synced(&self, path: &Path, bytes: &[u8]) -> Result<(), Failed> {
        let mut file = self.disk.create(path).map_err(failed("create", path))?;
        file.append(bytes).map_err(failed("write", path))?;
        file.sync().map_err(failed("sync", path))
    }

    /// Makes sure that a folder and those above it are there, and durably so.
    ///
    /// That a folder exists does not say that its name is durable: another thread may have made it a moment ago, or an earlier
    /// sync may have failed. Hence one lock, and a memory only of what was synced.
    pub(crate) fn make_folder(&self, path: &Path) -> Result<(), Failed> {
        let mut durable = lock(&self.folders);
        if path == Path::new(".") || durable.contains(path) {
            return Ok(());
        }
        self.disk
            .create_dir_all(path)
            .map_err(failed("create folder", path))?;
        let mut above: Vec<&Path> = path
            .ancestors()
            .filter(|folder| !folder.as_os_str().is_empty())
            .take_while(|folder| !durable.contains(*folder))
            .collect();
        above.reverse();
        for folder in &above {
            self.sync_dir(layout::parent(folder))?;
        }
        let made: Vec<_> = above.into_iter().map(Path::to_owned).collect();
        if durable.len() + made.len() > FOLDERS_REMEMBERED_MAX {
            durable.clear();
        }
        durable.extend(made);
        Ok(())
    }

    /// Must be called before a folder gets another name or is removed, or what is put in its place would not be synced.
    pub(crate) fn forget_folder(&self, path: &Path) {
        lock(&self.folders).retain(|folder| !folder.starts_with(path));
    }
}
