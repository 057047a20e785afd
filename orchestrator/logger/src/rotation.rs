//! One container's files: `console.log` is written to, older parts are `console.log.1.gz` and up, the newest first.
//!
//! A full file is first renamed to `console.log.0`, the next one made, then the old one packed and removed: whatever is cut, no line is
//! lost that was written, and the next start goes on from there.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::limits;

const CURRENT: &str = "console.log";

/// The files of one container in one revision.
#[derive(Debug)]
pub(crate) struct Rotated {
    folder: PathBuf,
    file: Option<(File, u64)>,
}

impl Rotated {
    /// In this folder, which is made when something is written.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, file: None }
    }

    /// The file that is written to.
    pub(crate) fn current(&self) -> PathBuf {
        self.folder.join(CURRENT)
    }

    /// Writes whole lines, all of them or none. `true` when a part was packed. Beyond `bytes_max` the file is rotated first.
    pub(crate) fn append(&mut self, lines: &[u8], bytes_max: u64, parts: u32) -> io::Result<bool> {
        let (_, size) = self.open(parts)?;
        let rotated = *size > 0 && *size + lines.len() as u64 > bytes_max;
        if rotated {
            self.rotate(parts)?;
        }
        let (file, size) = self.open(parts)?;
        if let Err(error) = file.write_all(lines) {
            // Half a line would be read as one of another form.
            file.set_len(*size).ok();
            return Err(error);
        }
        *size += lines.len() as u64;
        Ok(rotated)
    }

    fn open(&mut self, parts: u32) -> io::Result<&mut (File, u64)> {
        if self.file.is_none() {
            fs::create_dir_all(&self.folder)?;
            // A start before this one was cut in the middle.
            if self.folder.join(part_name(0)).exists() {
                self.pack(parts);
            }
            let path = self.folder.join(CURRENT);
            let mut file = File::options().create(true).append(true).open(path)?;
            let mut size = file.metadata()?.len();
            if size > 0 && !ends_with_line(&self.folder.join(CURRENT), size) {
                file.write_all(b"\n")?;
                size += 1;
            }
            self.file = Some((file, size));
        }
        Ok(self.file.as_mut().expect("it was set in the lines above"))
    }

    /// Who reads finds a file to read at any moment: the next one is made before this one is packed.
    fn rotate(&mut self, parts: u32) -> io::Result<()> {
        let current = self.current();
        self.file = None;
        fs::rename(&current, self.folder.join(part_name(0)))?;
        let next = File::options().create(true).append(true).open(&current)?;
        self.file = Some((next, 0));
        self.pack(parts);
        Ok(())
    }

    /// Makes `console.log.0` the newest part. Without room for that it is given up: a full disk is worse than a lost log.
    fn pack(&self, parts: u32) {
        let old = self.folder.join(part_name(0));
        let new = self.folder.join(".packing");
        let packed = || -> io::Result<()> {
            pack(&old, &new)?;
            self.shift(parts)?;
            fs::rename(&new, self.folder.join(packed_name(1)))
        };
        if parts > 0
            && let Err(error) = packed()
        {
            tracing::warn!(folder = %self.folder.display(), %error, "a part of a log is given up");
            fs::remove_file(&new).ok();
        }
        // What cannot be removed is replaced by the next one.
        fs::remove_file(&old).ok();
    }

    /// Makes place for part 1; what is one too many is removed.
    fn shift(&self, parts: u32) -> io::Result<()> {
        for number in (1..=limits::PARTS_MAX).rev() {
            for name in [packed_name, part_name] {
                let from = self.folder.join(name(number));
                let moved = if number >= parts {
                    fs::remove_file(&from)
                } else {
                    fs::rename(&from, self.folder.join(name(number + 1)))
                };
                match moved {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    Ok(()) | Err(_) => {}
                }
            }
        }
        Ok(())
    }
}

fn part_name(number: u32) -> String {
    format!("{CURRENT}.{number}")
}

fn packed_name(number: u32) -> String {
    format!("{CURRENT}.{number}.gz")
}

fn ends_with_line(path: &Path, size: u64) -> bool {
    use std::os::unix::fs::FileExt as _;
    let mut last = [0];
    let read = File::open(path).and_then(|file| file.read_exact_at(&mut last, size - 1));
    read.is_ok() && last == *b"\n"
}

/// The part keeps the time of the last line: by it, a reader finds where it was.
fn pack(from: &Path, to: &Path) -> io::Result<()> {
    let mut from = File::open(from)?;
    let mut packer = GzEncoder::new(File::create(to)?, Compression::fast());
    io::copy(&mut from, &mut packer)?;
    let packed = packer.finish()?;
    packed.set_modified(from.metadata()?.modified()?)
}

/// Removes the oldest files below `logs` until all of them together take at most `bytes`; those in `active` stay. What is left, bytes.
pub(crate) fn keep_within(logs: &Path, bytes: u64, active: &[PathBuf]) -> u64 {
    let mut files = Vec::new();
    collect(logs, 0, &mut files);
    let mut total: u64 = files.iter().map(|(_, size, _)| size).sum();
    if total <= bytes {
        return total;
    }
    files.retain(|(_, _, path)| !active.contains(path));
    files.sort_unstable();
    for (_, size, path) in files {
        if total <= bytes {
            break;
        }
        if fs::remove_file(&path).is_ok() {
            total -= size;
            // Only an empty folder goes.
            path.parent().map(|parent| fs::remove_dir(parent).ok());
        }
    }
    total
}

/// Every file with its time and size: `logs/[locals/]<revision>/<container>/[<source>/]<file>`.
fn collect(folder: &Path, depth: u32, files: &mut Vec<(std::time::SystemTime, u64, PathBuf)>) {
    const DEPTH_MAX: u32 = 5;
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        // Links are not followed.
        let Ok(found) = entry.metadata() else {
            continue;
        };
        if found.is_dir() && depth < DEPTH_MAX {
            collect(&entry.path(), depth + 1, files);
        } else if found.is_file() {
            let changed = found.modified().unwrap_or(std::time::UNIX_EPOCH);
            files.push((changed, found.len(), entry.path()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn scratch(name: &str) -> PathBuf {
        let folder =
            std::env::temp_dir().join(format!("coxswain-rotation-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn unpacked(path: &Path) -> String {
        let mut text = String::new();
        flate2::read::GzDecoder::new(File::open(path).unwrap())
            .read_to_string(&mut text)
            .unwrap();
        text
    }

    #[test]
    fn rotates_packs_and_keeps_the_newest() {
        let folder = scratch("parts");
        let mut files = Rotated::new(folder.clone());
        let mut all = String::new();
        for number in 0..5000 {
            let line = format!("line {number}\n");
            all.push_str(&line);
            files.append(line.as_bytes(), 10_000, 2).unwrap();
        }
        let current = fs::read_to_string(files.current()).unwrap();
        let kept = unpacked(&folder.join("console.log.2.gz"))
            + &unpacked(&folder.join("console.log.1.gz"))
            + &current;
        assert!(
            all.ends_with(&kept) && kept.len() > 20_000,
            "{}",
            kept.len()
        );
        let mut names: Vec<_> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(
            names,
            ["console.log", "console.log.1.gz", "console.log.2.gz"]
        );
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_was_cut_is_taken_up() {
        let folder = scratch("cut");
        fs::write(folder.join("console.log.0"), "old\n").unwrap();
        fs::write(folder.join("console.log.1"), "older\n").unwrap();
        fs::write(folder.join(".packing"), "rubbish").unwrap();
        fs::write(folder.join("console.log"), "half a li").unwrap();
        let mut files = Rotated::new(folder.clone());
        files.append(b"next\n", 10_000, 3).unwrap();
        assert_eq!(unpacked(&folder.join("console.log.1.gz")), "old\n");
        assert_eq!(
            fs::read_to_string(folder.join("console.log.2")).unwrap(),
            "older\n"
        );
        assert_eq!(
            fs::read_to_string(files.current()).unwrap(),
            "half a li\nnext\n"
        );
        assert!(!folder.join("console.log.0").exists());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn without_parts_only_the_file_in_use_is_there() {
        let folder = scratch("none");
        let mut files = Rotated::new(folder.clone());
        for _ in 0..100 {
            files.append(&[b'x'; 1000], 10_000, 0).unwrap();
        }
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        assert!(fs::metadata(files.current()).unwrap().len() <= 10_000);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn the_oldest_go_first_and_what_is_written_to_stays() {
        let logs = scratch("quota");
        let mut paths = Vec::new();
        for (number, name) in ["0/a", "locals/x/b", "1/c", "1/d"].into_iter().enumerate() {
            let folder = logs.join(name);
            fs::create_dir_all(&folder).unwrap();
            let path = folder.join("console.log");
            fs::write(&path, [b'x'; 100]).unwrap();
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(number as u64);
            File::options()
                .append(true)
                .open(&path)
                .unwrap()
                .set_modified(time)
                .unwrap();
            paths.push(path);
        }
        assert_eq!(keep_within(&logs, 400, &[]), 400);
        assert_eq!(keep_within(&logs, 250, &paths[..1]), 200);
        let left: Vec<_> = paths.iter().map(|path| path.exists()).collect();
        assert_eq!(left, [true, false, false, true]);
        assert!(!logs.join("1/c").exists() && logs.join("1").exists());
        assert_eq!(keep_within(&logs, 0, &paths), 200);
        fs::remove_dir_all(&logs).unwrap();
    }
}
