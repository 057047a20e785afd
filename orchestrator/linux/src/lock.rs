//! One orchestrator for one storage: a lock that the kernel gives back when its holder dies, however it dies.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it.
    #[error("another coxswain uses {}; stop it first, or name another folder", .0.display())]
    Taken(PathBuf),
    /// The folder cannot be opened or locked.
    #[error("cannot lock {}", path.display())]
    Failed {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A folder that is ours as long as this lives.
#[derive(Debug)]
pub struct FolderLock {
    _folder: File,
}

impl FolderLock {
    /// Takes the lock without waiting.
    ///
    /// # Errors
    /// It is taken, or the folder cannot be locked.
    pub fn take(folder: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Failed {
            path: folder.to_owned(),
            source,
        };
        let opened = File::open(folder).map_err(failed)?;
        match flock(&opened, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _folder: opened }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(LockError::Taken(folder.to_owned())),
            Err(error) => Err(failed(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_at_a_time() {
        let folder = std::env::temp_dir().join(format!("coxswain-lock-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let held = FolderLock::take(&folder).unwrap();
        assert!(matches!(
            FolderLock::take(&folder),
            Err(LockError::Taken(_))
        ));
        drop(held);
        drop(FolderLock::take(&folder).unwrap());
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(matches!(
            FolderLock::take(&folder),
            Err(LockError::Failed { .. })
        ));
    }
}
