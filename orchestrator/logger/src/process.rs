//! The life of the process: one for each spool, as long as there are sources.

use std::fs::{File, TryLockError};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::hub::Hub;
use crate::intake::Intake;
use crate::keeper::Keeper;
use crate::spool::Spool;

/// Attempts to take the lock: who only looks whether it is held holds it for a moment.
const LOCK_ATTEMPTS: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Runs the process for the spool in `folder` until there has been no source for a while, or the folder is gone.
///
/// # Errors
/// The spool cannot be read or written.
pub fn run(folder: PathBuf) -> io::Result<()> {
    let spool = Spool::new(folder);
    while spool.folder().is_dir() {
        let Some(lock) = take_lock(&spool)? else {
            return Ok(());
        };
        let hub = Arc::new(Hub::new(spool.clone(), spool.settings()?)?);
        let keeper = Keeper::new(Arc::clone(&hub));
        let writer = std::thread::Builder::new()
            .name("keeper".to_owned())
            .stack_size(256 << 10)
            .spawn(move || keeper.run())?;
        let result = Intake::new(Arc::clone(&hub))?.run();
        hub.stop();
        if writer.join().is_err() {
            return Err(io::Error::other("the thread that writes the logs is gone"));
        }
        result?;
        drop(lock);
        // A source that came while the lock was held and nobody looked any more.
        if spool.names().is_empty() {
            return Ok(());
        }
    }
    Ok(())
}

fn take_lock(spool: &Spool) -> io::Result<Option<File>> {
    let file = spool.lock_file()?;
    for _ in 0..LOCK_ATTEMPTS {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(None)
}
