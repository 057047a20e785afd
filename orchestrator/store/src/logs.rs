//! Reading the end of containers' logs, for failure records. Who writes and rotates them is elsewhere.

use std::path::{Path, PathBuf};

use model::log::Line;
use model::{ContainerName, RevisionId};

use crate::disk::{Disk, EntryKind, ReadFile as _};
use crate::{Failed, Inner, Store, failed, layout};

/// Files of one container that are looked at.
const FILES_MAX: usize = 64;

/// A log file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    /// Its path below the storage root.
    pub path: PathBuf,
    /// Bytes.
    pub len: u64,
    /// Wall clock time of the last line, milliseconds since 1970.
    pub modified_ms: u64,
}

impl<D: Disk> Store<D> {
    /// Log files of a container in a revision, newest first; compressed ones too. At most 64, and one folder deep.
    ///
    /// # Errors
    /// The disk failed.
    pub fn logs(
        &self,
        revision: &RevisionId,
        container: &ContainerName,
    ) -> Result<Vec<LogFile>, Failed> {
        let folder = layout::logs(revision, container);
        let mut files = Vec::new();
        for entry in self.inner.list(&folder)? {
            let path = folder.join(&entry.name);
            match entry.kind {
                EntryKind::File => self.inner.push_log(path, &mut files)?,
                EntryKind::Dir => {
                    for below in self.inner.list(&path)? {
                        if below.kind == EntryKind::File {
                            self.inner.push_log(path.join(below.name), &mut files)?;
                        }
                    }
                }
                EntryKind::Link | EntryKind::Other => {}
            }
        }
        files.sort_by(|a, b| {
            let by_time = b.modified_ms.cmp(&a.modified_ms);
            by_time.then_with(|| a.path.cmp(&b.path))
        });
        files.truncate(FILES_MAX);
        Ok(files)
    }

    /// The last lines that a container wrote, oldest first, from its newest file and, when that is short, from the one before. At
    /// most `lines` of them and `bytes` in all; a first line that was cut by the limit is left out.
    ///
    /// # Errors
    /// The disk failed.
    pub fn tail_log(
        &self,
        revision: &RevisionId,
        container: &ContainerName,
        lines: usize,
        bytes: usize,
    ) -> Result<Vec<String>, Failed> {
        let mut tail: Vec<String> = Vec::new();
        let mut left = bytes;
        for file in self.logs(revision, container)? {
            let compressed = file.path.extension().is_some_and(|end| end == "gz");
            if compressed || file.len == 0 {
                continue;
            }
            let mut found = self.inner.tail_of(&file, left)?;
            let surplus = (found.len() + tail.len()).saturating_sub(lines);
            found.drain(..surplus.min(found.len()));
            let was_cut = file.len > left as u64 || surplus > 0;
            left = left.saturating_sub(found.iter().map(|line| line.len() + 1).sum());
            found.append(&mut tail);
            tail = found;
            if was_cut {
                break;
            }
        }
        Ok(tail)
    }
}

impl<D: Disk> Inner<D> {
    fn push_log(&self, path: PathBuf, files: &mut Vec<LogFile>) -> Result<(), Failed> {
        if let Some(found) = self.metadata_of(&path)? {
            files.push(LogFile {
                path,
                len: found.len,
                modified_ms: found.modified_ms,
            });
        }
        Ok(())
    }

    /// The whole lines within the last bytes of a file.
    fn tail_of(&self, log: &LogFile, bytes: usize) -> Result<Vec<String>, Failed> {
        let path: &Path = &log.path;
        let Some(mut file) = crate::absent(self.disk.open(path)).map_err(failed("open", path))?
        else {
            return Ok(Vec::new());
        };
        let start = log.len.saturating_sub(bytes as u64);
        let mut buffer = vec![0; usize::try_from(log.len - start).unwrap_or(bytes)];
        let mut count = 0;
        while count < buffer.len() {
            let read = file
                .read_at(start + count as u64, &mut buffer[count..])
                .map_err(failed("read", path))?;
            if read == 0 {
                break;
            }
            count += read;
        }
        let text = buffer.get(..count).unwrap_or_default();
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let skipped = usize::from(start > 0);
        let lines = text.split(|byte| *byte == b'\n').skip(skipped);
        // What the container wrote, without the time that was written before it.
        let texts = lines.map(|line| String::from_utf8_lossy(Line::parse(line).text).into_owned());
        Ok(texts.collect())
    }
}
