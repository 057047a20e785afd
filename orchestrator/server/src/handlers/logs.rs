//! What containers wrote, from the files that the run time keeps: `logs/<revision>/<container>/console.log`, older parts in
//! `console.log.1` and up. When the file in use is full, its front is moved to
//! `console.log.1`; where the file system cannot do that, all of it.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use api::call::no_such_log;
use api::{Code, Problem};
use bytes::Bytes;
use model::{ContainerName, RevisionId};
use tokio::sync::{mpsc, watch};

use super::{Asked, text};
use crate::http1::answer::{Answer, Body, PLAIN};
use crate::limits;

/// Name of the file in use.
const CURRENT: &str = "console.log";
/// Older parts that are looked at.
const PARTS_MAX: u32 = 100;
/// Bytes of the end of one part that are looked at for lines.
const TAIL_BYTES_MAX: u64 = 4 << 20;
/// Pause between two looks at a file that is followed.
const FOLLOW_PAUSE: Duration = Duration::from_millis(200);

pub(super) async fn show(
    asked: &Asked<'_, '_>,
    container: ContainerName,
    revision: Option<RevisionId>,
    lines: u32,
    follow: bool,
) -> Result<Answer, Problem> {
    let root = asked.shared.logs.clone();
    let found = asked
        .blocking(move |_| {
            let folder = match revision {
                Some(revision) => Some(root.join(revision.as_str()).join(container.as_str())),
                None => newest(&root, &container),
            };
            let folder = folder.filter(|folder| folder.join(CURRENT).exists());
            let folder = folder.ok_or_else(|| no_such_log(&container))?;
            let lines = usize::try_from(lines).unwrap_or(usize::MAX);
            let (tail, end) = tail(&folder, lines).map_err(|error| {
                Problem::new(Code::Internal, format!("cannot read the log: {error}"))
            })?;
            Ok((folder, tail, end))
        })
        .await?;
    let (folder, tail, end) = found?;
    if !follow {
        return Ok(text(tail));
    }
    let place = asked.shared.follower()?;
    let (sender, pieces) = mpsc::channel(1);
    let stopping = asked.shared.stopping.clone();
    tokio::spawn(async move {
        if tail.is_empty() || sender.send(Ok(tail.into())).await.is_ok() {
            go_on(folder, end, sender, stopping).await;
        }
        drop(place);
    });
    let mut answer = Answer::new(
        200,
        PLAIN,
        Body::Stream {
            pieces,
            length: None,
        },
    );
    answer.close = true;
    Ok(answer)
}

/// The folder in which this container wrote last: an unchanged container goes on writing where it was started.
fn newest(root: &Path, container: &ContainerName) -> Option<PathBuf> {
    let mut newest: Option<(SystemTime, PathBuf)> = None;
    for parent in [root.to_owned(), root.join("locals")] {
        for entry in parent.read_dir().into_iter().flatten().flatten() {
            let folder = entry.path().join(container.as_str());
            let Ok(changed) = folder
                .join(CURRENT)
                .metadata()
                .and_then(|found| found.modified())
            else {
                continue;
            };
            if newest.as_ref().is_none_or(|(time, _)| *time < changed) {
                newest = Some((changed, folder));
            }
        }
    }
    newest.map(|(_, folder)| folder)
}

/// The last lines, over all parts, and where the file in use ended.
fn tail(folder: &Path, lines: usize) -> io::Result<(Vec<u8>, u64)> {
    let (mut text, end) = last_lines(&folder.join(CURRENT), lines)?;
    for part in 1..=PARTS_MAX {
        let missing = lines.saturating_sub(count_lines(&text));
        if missing == 0 {
            break;
        }
        match last_lines(&folder.join(format!("{CURRENT}.{part}")), missing) {
            Ok((mut older, _)) => {
                older.append(&mut text);
                text = older;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        }
    }
    Ok((text, end))
}

fn count_lines(text: &[u8]) -> usize {
    let ends = text.iter().filter(|byte| **byte == b'\n').count();
    ends + usize::from(text.last().is_some_and(|last| *last != b'\n'))
}

fn last_lines(path: &Path, lines: usize) -> io::Result<(Vec<u8>, u64)> {
    let mut file = File::open(path)?;
    let end = file.metadata()?.len();
    let from = end.saturating_sub(TAIL_BYTES_MAX);
    file.seek(SeekFrom::Start(from))?;
    let mut text = Vec::new();
    file.take(end - from).read_to_end(&mut text)?;
    let end = from + text.len() as u64;
    let body = text.strip_suffix(b"\n").unwrap_or(&text).len();
    let mut start = if lines == 0 { text.len() } else { 0 };
    let mut left = lines;
    for (index, byte) in text[..body].iter().enumerate().rev() {
        if *byte == b'\n' {
            left = left.saturating_sub(1);
            if left == 0 {
                start = start.max(index + 1);
                break;
            }
        }
    }
    text.drain(..start);
    Ok((text, end))
}

/// Sends what is written from `end` on, until the client is gone or the server stops.
async fn go_on(
    folder: PathBuf,
    mut end: u64,
    sender: mpsc::Sender<io::Result<Bytes>>,
    mut stopping: watch::Receiver<bool>,
) {
    loop {
        let path = folder.clone();
        let read = tokio::task::spawn_blocking(move || news(&path, end)).await;
        match read {
            Ok(Ok((piece, new_end))) => {
                end = new_end;
                if !piece.is_empty() {
                    if sender.send(Ok(piece.into())).await.is_err() {
                        return;
                    }
                    continue;
                }
            }
            // The log was removed with its revision, or the server stops.
            Ok(Err(_)) | Err(_) => return,
        }
        tokio::select! {
            () = sender.closed() => return,
            _ = stopping.wait_for(|stopping| *stopping) => return,
            () = tokio::time::sleep(FOLLOW_PAUSE) => {}
        }
    }
}

/// What was written after `end`. When the file has been emptied meanwhile, what was not seen of it is at the end of the newest part.
fn news(folder: &Path, end: u64) -> io::Result<(Vec<u8>, u64)> {
    let mut file = File::open(folder.join(CURRENT))?;
    let len = file.metadata()?.len();
    let mut text = Vec::new();
    let mut from = end;
    if len < end {
        if let Ok(mut part) = File::open(folder.join(format!("{CURRENT}.1"))) {
            // Where the front was taken out, what is in use now goes on where the part ends.
            from = end.saturating_sub(part.metadata()?.len()).min(len);
            part.seek(SeekFrom::Start(end))?;
            part.take(limits::PIECE_BYTES as u64)
                .read_to_end(&mut text)?;
        } else {
            from = 0;
        }
    }
    file.seek(SeekFrom::Start(from))?;
    let read = file
        .take(limits::PIECE_BYTES as u64)
        .read_to_end(&mut text)?;
    let read = u64::try_from(read).unwrap_or(u64::MAX);
    Ok((text, from + read))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(folder: &Path, lines: usize) -> String {
        String::from_utf8(tail(folder, lines).unwrap().0).unwrap()
    }

    #[test]
    fn tails_over_parts_and_follows_over_rotation() {
        let folder = crate::tests::Scratch::new();
        let folder = folder.path();
        std::fs::write(folder.join("console.log.2"), "a\nb\n").unwrap();
        std::fs::write(folder.join("console.log.1"), "c\nd\n").unwrap();
        std::fs::write(folder.join(CURRENT), "e\nf").unwrap();
        for (lines, expected) in [
            (0, ""),
            (1, "f"),
            (2, "e\nf"),
            (3, "d\ne\nf"),
            (5, "b\nc\nd\ne\nf"),
            (99, "a\nb\nc\nd\ne\nf"),
        ] {
            assert_eq!(shown(folder, lines), expected, "{lines}");
        }
        assert_eq!(news(folder, 3).unwrap(), (Vec::new(), 3));
        std::fs::write(folder.join(CURRENT), "e\nfg\n").unwrap();
        assert_eq!(news(folder, 3).unwrap(), (b"g\n".to_vec(), 5));
        // Rotated: "h" was written before, "i" after the file was emptied.
        std::fs::write(folder.join("console.log.1"), "e\nfg\nh\n").unwrap();
        std::fs::write(folder.join(CURRENT), "i\n").unwrap();
        assert_eq!(news(folder, 5).unwrap(), (b"h\ni\n".to_vec(), 2));
    }
}
