//! Log files that other programs write by themselves (a private containerd), kept within their size.
//!
//! One thread is told by the kernel (inotify) when a file grows. The front of a file over its limit is copied to `<name>.1` and taken out in
//! place, because its writer keeps the file open. Where the file system cannot do that (tmpfs), the file is emptied, and lines of the
//! microseconds between copy and emptying are lost. Output of containers does not come this way: see `output.rs`.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use linux::watch::{self, FileWatch};

/// Pause after a round of rotations: bounds the work that a container can cause, and with its speed the overshoot.
const PAUSE: Duration = Duration::from_millis(10);

/// How large a file may grow, and how many older parts are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) max_bytes: u64,
    pub(crate) files: u32,
}

/// Keeps files within their size.
#[derive(Debug, Clone)]
pub(crate) struct LogKeeper {
    watch: Arc<FileWatch>,
    files: Arc<Mutex<BTreeMap<i32, (PathBuf, Limits)>>>,
}

impl LogKeeper {
    /// Starts the thread. It lives as long as the program.
    pub(crate) fn start() -> io::Result<Self> {
        let keeper = Self {
            watch: Arc::new(FileWatch::new()?),
            files: Arc::default(),
        };
        let thread = keeper.clone();
        std::thread::Builder::new()
            .name("logs".to_owned())
            .stack_size(64 << 10)
            .spawn(move || thread.run())?;
        Ok(keeper)
    }

    /// Makes the file when it is not there, and keeps it within its size from now on.
    pub(crate) fn follow(&self, path: &Path, limits: Limits) -> io::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        OpenOptions::new().create(true).append(true).open(path)?;
        let watch = self.watch.add(path)?;
        self.files().insert(watch, (path.to_owned(), limits));
        rotate_if_full(path, limits)
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<i32, (PathBuf, Limits)>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        loop {
            let changed = match self.watch.wait() {
                Ok(changed) => changed,
                Err(error) => {
                    tracing::error!(%error, "log files are no longer kept within their size");
                    return;
                }
            };
            for watch in changed {
                let found = self.files().get(&watch).cloned();
                if let Some((path, limits)) = found
                    && let Err(error) = rotate_if_full(&path, limits)
                {
                    tracing::warn!(path = %path.display(), %error, "cannot rotate a log file");
                }
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// Keeps `path` below its size: its content goes to `path.1`, that to `path.2`, and so on.
fn rotate_if_full(path: &Path, limits: Limits) -> io::Result<()> {
    let found = match fs::metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if found.len() <= limits.max_bytes {
        return Ok(());
    }
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    // Whole blocks, and not all of the file: what is left is its newest part.
    let block = found.blksize().max(1);
    let front = (found.len() - 1) / block * block;
    if front > 0 {
        let mut copied = keep_copy(path, &mut file, front, limits);
        match watch::remove_front(&file, front) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                copied = copied.and_then(|()| catch_up(path, &mut file, front, limits));
            }
            // Also when there was no room for a copy: a full disk is worse than a lost log.
            removed => return removed.and(copied),
        }
        file.set_len(0)?;
        return copied;
    }
    let copied = keep_copy(path, &mut file, found.len(), limits);
    file.set_len(0)?;
    copied
}

/// Copies the newest `max_bytes` of the first `length` bytes of the file.
fn keep_copy(path: &Path, file: &mut File, length: u64, limits: Limits) -> io::Result<()> {
    if limits.files == 0 {
        return Ok(());
    }
    let new = numbered(path, 0);
    let count = length.min(limits.max_bytes);
    file.seek(SeekFrom::Start(length - count))?;
    let written =
        File::create(&new).and_then(|mut copy| io::copy(&mut file.by_ref().take(count), &mut copy));
    if let Err(error) = written {
        fs::remove_file(&new).ok();
        return Err(error);
    }
    for number in (1..limits.files).rev() {
        match fs::rename(numbered(path, number), numbered(path, number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    fs::rename(&new, numbered(path, 1))
}

/// Adds what was written after the copy was made, so that little is lost where the file can only be emptied as a whole.
fn catch_up(path: &Path, file: &mut File, from: u64, limits: Limits) -> io::Result<()> {
    if limits.files == 0 {
        return Ok(());
    }
    let mut copy = OpenOptions::new().append(true).open(numbered(path, 1))?;
    file.seek(SeekFrom::Start(from))?;
    io::copy(&mut file.by_ref().take(limits.max_bytes), &mut copy)?;
    Ok(())
}

/// `console.log.<n>`; 0 is the copy that is being written.
fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    match number {
        0 => name.push(".new"),
        number => name.push(format!(".{number}")),
    }
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn folder(name: &str) -> PathBuf {
        let folder =
            std::env::temp_dir().join(format!("coxswain-logs-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn rotates_in_place_and_loses_nothing() {
        let folder = folder("rotate");
        let path = folder.join("console.log");
        let limits = Limits {
            max_bytes: 20_000,
            files: 2,
        };
        let mut writer = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap();
        let mut all = String::new();
        for number in 0..5000 {
            let line = format!("line {number}\n");
            all.push_str(&line);
            writer.write_all(line.as_bytes()).unwrap();
            rotate_if_full(&path, limits).unwrap();
        }
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        let kept = read("console.log.2") + &read("console.log.1") + &read("console.log");
        assert!(all.ends_with(&kept));
        assert!(kept.len() > 30_000, "{}", kept.len());
        assert!(!folder.join("console.log.3").exists());
        assert!(!folder.join("console.log.new").exists());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn small_and_unkept_logs_are_emptied() {
        let folder = folder("small");
        let path = folder.join("console.log");
        fs::write(&path, "0123456789ab").unwrap();
        rotate_if_full(
            &path,
            Limits {
                max_bytes: 10,
                files: 1,
            },
        )
        .unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
        assert_eq!(
            fs::read_to_string(numbered(&path, 1)).unwrap(),
            "23456789ab"
        );
        fs::write(&path, [b'x'; 50_000]).unwrap();
        rotate_if_full(
            &path,
            Limits {
                max_bytes: 10_000,
                files: 0,
            },
        )
        .unwrap();
        assert!(fs::metadata(&path).unwrap().len() <= 4096);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_flood_stays_near_its_limit() {
        let folder = folder("flood");
        let path = folder.join("console.log");
        let keeper = LogKeeper::start().unwrap();
        keeper
            .follow(
                &path,
                Limits {
                    max_bytes: 4096,
                    files: 1,
                },
            )
            .unwrap();
        let mut writer = OpenOptions::new().append(true).open(&path).unwrap();
        for _ in 0..100 {
            writer.write_all(&[b'x'; 1024]).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
        let end = std::time::Instant::now() + Duration::from_secs(10);
        while fs::metadata(&path).unwrap().len() > 4096 {
            assert!(std::time::Instant::now() < end, "not rotated");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(fs::metadata(numbered(&path, 1)).unwrap().len() <= 4096);
        fs::remove_dir_all(&folder).unwrap();
    }
}
