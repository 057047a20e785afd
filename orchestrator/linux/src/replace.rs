//! Replacing one small file outside the store, as on a boot partition: written beside it, synced, renamed, the folder synced.
//!
//! The temporary name is the file's own with `.new` behind it, so that a cut leaves at most one such file, which the next write
//! empties. Boot loaders read no file of such a name.

use std::io;
use std::path::{Path, PathBuf};

use store::disk::{Disk, WriteFile as _};

/// Replaces a file, or creates it with the folders above it.
///
/// # Errors
/// As the disk gives them; the file is then the one from before or this one.
pub fn replace<D: Disk>(disk: &D, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = folder_of(path);
    make_folders(disk, folder)?;
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let temp = PathBuf::from(name);
    let mut file = disk.create(&temp)?;
    file.append(bytes)?;
    file.sync()?;
    drop(file);
    disk.rename(&temp, path)?;
    disk.sync_dir(folder)
}

/// The folder that a name lies in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

/// Makes sure that a folder and those above it are there, durably.
pub(crate) fn make_folders<D: Disk>(disk: &D, folder: &Path) -> io::Result<()> {
    if folder == Path::new(".") {
        return Ok(());
    }
    disk.create_dir_all(folder)?;
    let above = folder
        .ancestors()
        .filter(|path| !path.as_os_str().is_empty());
    let mut above: Vec<_> = above.collect();
    above.reverse();
    above
        .into_iter()
        .try_for_each(|path| disk.sync_dir(folder_of(path)))
}
