//! A spare: some space that is taken while there is room, and given up when the storage is full and something small must be written all the
//! same, such as the marker or that a reset was accepted, which is what makes room again.
//!
//! Its content means nothing, so a cut while it is made costs only its size.

use std::path::Path;

use crate::disk::{Disk, WriteFile as _};
use crate::{Failed, Inner, failed, layout};

/// What is written for the spare to be given up: what a boot needs, and what tells of it.
const FOR: [&str; 3] = [layout::BOOT, layout::TRAILS, layout::FAILURES];
/// Room that must be left besides, in spares, or it is not made.
const ROOM: u64 = 16;

impl<D: Disk> Inner<D> {
    /// Gives the spare up for a write to `path` that found the storage full. Whether there is room now.
    pub(crate) fn give_up_spare(&self, path: &Path) -> Result<bool, Failed> {
        if !FOR.iter().any(|folder| path.starts_with(folder)) {
            return Ok(false);
        }
        let was_there = self.remove_file(Path::new(layout::SPARE))?;
        if was_there {
            // A file system gives space away again only when its removal is durable.
            self.sync_dir(Path::new(layout::BOOT))?;
        }
        Ok(was_there)
    }

    /// Makes the spare when it is not there and there is room for it.
    pub(crate) fn make_spare(&self) -> Result<(), Failed> {
        let (path, bytes) = (Path::new(layout::SPARE), self.options.spare_bytes);
        if bytes == 0
            || self.metadata_of(path)?.is_some()
            || self.space_left(0)?.available < ROOM * u64::from(bytes)
        {
            return Ok(());
        }
        let zeros = vec![0; 4096];
        let mut file = self.disk.create(path).map_err(failed("create", path))?;
        for _ in 0..bytes.div_ceil(4096) {
            if let Err(source) = file.append(&zeros) {
                drop(file);
                self.remove_file(path)?;
                return Err(failed("write", path)(source));
            }
        }
        file.sync().map_err(failed("sync", path))
    }
}
