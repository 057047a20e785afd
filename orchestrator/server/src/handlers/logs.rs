//! What containers wrote: `logs/<revision>/<container>/console.log` and its older parts `console.log.1.gz` and up.
//!
//! Files are read from the newest part backwards until there is enough, with a bound on what is read. A follower waits for the kernel to
//! tell that something was written; a file that was rotated meanwhile is read to its end first, because it is still held open, then the
//! parts that came after it.

mod parts;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use api::call::{LogForm, LogQuery, no_such_log};
use api::messages::ours::LogLine;
use api::{Code, Problem};
use bytes::Bytes;
use model::ContainerName;
use model::log::{Level, Line, Stamp};
use model::{RevisionId, WallTime};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::{mpsc, watch};

use self::parts::{
    CURRENT, Names, PARTS_MAX, Part, ROTATION_PAUSE, ROTATIONS_MAX, open_newest, open_part, written,
};
use super::Asked;
use crate::http1::answer::{Answer, Body, PLAIN};
use crate::limits;

/// Bytes of one part that are read.
const PART_BYTES_MAX: u64 = 64 << 20;
/// Bytes of lines that are held for one answer; the newest of them.
const LINES_BYTES_MAX: usize = 8 << 20;
/// Media type of lines of JSON.
const JSON_LINES: &str = "application/x-ndjson";

pub(super) async fn show(
    asked: &Asked<'_, '_>,
    container: ContainerName,
    query: LogQuery,
) -> Result<Answer, Problem> {
    let root = asked.shared.logs.clone();
    let wanted = Wanted::new(&container, &query, asked.shared.clock.wall())?;
    let (follow, media) = (query.follow, media(query.form));
    let changes = asked.shared.log_changes;
    let found = asked
        .blocking(move |_| -> Result<_, Problem> {
            let missing = || no_such_log(&container);
            let folder = folder_of(&root, &container, query.revision.as_ref());
            let folder = folder.ok_or_else(missing)?;
            let failed = |error: io::Error| {
                Problem::new(Code::Internal, format!("cannot read the log: {error}"))
            };
            // Watched before it is read, so that nothing falls between.
            let changes = match follow {
                true => Some(changes(&folder).map_err(failed)?),
                false => None,
            };
            let mut reader = Reader::open(folder, wanted).map_err(failed)?;
            let tail = reader.tail(query.tail).map_err(failed)?;
            Ok((reader, tail, changes))
        })
        .await?;
    let (reader, tail, changes) = found?;
    let Some(changes) = changes else {
        return Ok(Answer::new(200, media, Body::Bytes(tail.into())));
    };
    // Not a pipe, but read as one: it becomes readable, and reading it does not wait.
    let changes = Receiver::from_owned_fd_unchecked(changes)
        .map_err(|error| Problem::new(Code::Internal, format!("cannot follow the log: {error}")))?;
    let place = asked.shared.follower()?;
    let (sender, pieces) = mpsc::channel(1);
    let stopping = asked.shared.stopping.clone();
    tokio::spawn(async move {
        if tail.is_empty() || sender.send(Ok(tail.into())).await.is_ok() {
            go_on(reader, changes, sender, stopping).await;
        }
        drop(place);
    });
    let body = Body::Stream {
        pieces,
        length: None,
    };
    let mut answer = Answer::new(200, media, body);
    answer.close = true;
    Ok(answer)
}

fn media(form: LogForm) -> &'static str {
    match form {
        LogForm::Raw | LogForm::Text => PLAIN,
        LogForm::Json => JSON_LINES,
    }
}

fn folder_of(
    root: &Path,
    container: &ContainerName,
    revision: Option<&RevisionId>,
) -> Option<PathBuf> {
    let folder = match revision {
        Some(revision) => root.join(revision.as_str()).join(container.as_str()),
        None => newest(root, container)?,
    };
    written(&folder).map(|_| folder)
}

/// The folder in which this container wrote last: an unchanged container goes on writing where it was started.
fn newest(root: &Path, container: &ContainerName) -> Option<PathBuf> {
    let mut newest: Option<(SystemTime, PathBuf)> = None;
    for parent in [root.to_owned(), root.join("locals")] {
        for entry in parent.read_dir().into_iter().flatten().flatten() {
            let folder = entry.path().join(container.as_str());
            let Some(changed) = written(&folder) else {
                continue;
            };
            if newest.as_ref().is_none_or(|(time, _)| *time < changed) {
                newest = Some((changed, folder));
            }
        }
    }
    newest.map(|(_, folder)| folder)
}

/// Which lines, and how they are shown.
#[derive(Debug, Clone)]
struct Wanted {
    container: ContainerName,
    since: Option<WallTime>,
    level: Option<Level>,
    form: LogForm,
}

impl Wanted {
    fn new(container: &ContainerName, query: &LogQuery, now: WallTime) -> Result<Self, Problem> {
        let since = match &query.since {
            None => None,
            Some(text) => Some(model::log::parse_since(text, now).ok_or_else(|| {
                Problem::new(
                    Code::BadQuery,
                    format!("query parameter since={text:?}: use a time such as 2026-11-21T10:20:30Z, or how long ago: 90s, 10min, 2h, 7d"),
                )
            })?),
        };
        Ok(Self {
            container: container.clone(),
            since,
            level: query.level,
            form: query.form,
        })
    }

    /// The line as it is shown; `None` when it is not wanted. A line of unknown time is of the time of its neighbours: it is shown.
    fn show(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let line = Line::parse(bytes);
        let early = self
            .since
            .zip(line.time)
            .is_some_and(|(since, time)| time < since);
        if early || self.level.is_some_and(|level| line.level > level) {
            return None;
        }
        let mut shown = match self.form {
            LogForm::Raw => line.text.to_vec(),
            LogForm::Text => bytes.to_vec(),
            LogForm::Json => {
                let message = LogLine {
                    container: self.container.clone(),
                    time: line.time.map(|time| time.with_millis()),
                    level: line.level,
                    source: line.source.to_owned(),
                    text: String::from_utf8_lossy(line.text).into_owned(),
                };
                serde_json::to_vec(&message).expect("messages have text keys and finite numbers")
            }
        };
        shown.push(b'\n');
        Some(shown)
    }

    /// A line that says that some are missing after this time; whatever lines are wanted.
    fn gap(&self, after: SystemTime) -> Vec<u8> {
        let since = after
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let time = WallTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        let mut line = Vec::new();
        let text =
            b"lines after this one are missing: they were removed before this reader took them";
        Stamp::new(time).push(&mut line, Level::Warn, "coxswain", text);
        line.pop();
        let all = Self {
            since: None,
            level: None,
            ..self.clone()
        };
        all.show(&line).unwrap_or_default()
    }

    /// Whether all of a file that was written last at this time is too early.
    fn is_before(&self, changed: SystemTime) -> bool {
        let Some(since) = self.since else {
            return false;
        };
        let changed = changed
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        changed.as_millis() < u128::from(since.0)
    }
}

/// The newest lines of what was read so far.
#[derive(Debug, Default)]
struct Newest {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Newest {
    fn push(&mut self, line: Vec<u8>, lines_max: usize) {
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.lines.len() > lines_max || self.bytes > LINES_BYTES_MAX {
            let Some(oldest) = self.lines.pop_front() else {
                return;
            };
            self.bytes -= oldest.len();
        }
    }
}

/// Reads one container's log.
#[derive(Debug)]
struct Reader {
    folder: PathBuf,
    wanted: Wanted,
    file: File,
    /// What comes before `file`, when this reader is slower than the log is rotated.
    parts: VecDeque<Part>,
    /// The beginning of a line whose end was not written yet.
    partial: Vec<u8>,
}

impl Reader {
    fn open(folder: PathBuf, wanted: Wanted) -> io::Result<Self> {
        let file = open_newest(&folder)?;
        Ok(Self {
            folder,
            wanted,
            file,
            parts: VecDeque::new(),
            partial: Vec::new(),
        })
    }

    /// The last lines that are wanted, over all parts; then the file in use has been read to its end. Read again when the files were rotated
    /// meanwhile, so that no line is there twice.
    fn tail(&mut self, lines: u32) -> io::Result<Vec<u8>> {
        for _ in 0..ROTATIONS_MAX {
            let before = Names::of(&self.folder);
            let text = self.tail_once(lines)?;
            if before.is_calm(&self.file) && before == Names::of(&self.folder) {
                return Ok(text);
            }
            std::thread::sleep(ROTATION_PAUSE);
            self.file = open_newest(&self.folder)?;
        }
        self.tail_once(lines)
    }

    fn tail_once(&mut self, lines: u32) -> io::Result<Vec<u8>> {
        let lines_max = usize::try_from(lines).unwrap_or(usize::MAX);
        let mut newest = Newest::default();
        let length = self.file.metadata()?.len();
        if lines_max == 0 {
            self.file.seek(SeekFrom::Start(length))?;
            return Ok(Vec::new());
        }
        let from = length.saturating_sub(PART_BYTES_MAX);
        self.file.seek(SeekFrom::Start(from))?;
        // A file that goes on growing has an end here.
        let current = (&self.file).take(length - from);
        self.partial = collect(current, &self.wanted, lines_max, from > 0, &mut newest)?;
        let mut text: VecDeque<Vec<u8>> = newest.lines;
        let mut bytes = newest.bytes;
        for number in 0..=PARTS_MAX {
            let room = lines_max.saturating_sub(text.len());
            if room == 0 || bytes >= LINES_BYTES_MAX {
                break;
            }
            let Some(mut part) = self.part(number, room)? else {
                // Part 0 is there only while it is packed.
                if number == 0 {
                    continue;
                }
                break;
            };
            bytes += part.bytes;
            part.lines.append(&mut text);
            text = part.lines;
        }
        let mut all: Vec<u8> = text.into_iter().flatten().collect();
        // The writer writes whole lines; another one's last line is shown as far as it came.
        if let Some(mut rest) = (!self.partial.is_empty())
            .then(|| self.wanted.show(&self.partial))
            .flatten()
        {
            rest.pop();
            all.append(&mut rest);
        }
        Ok(all)
    }

    /// An older part; `None` when there is none, or when all of it is too early.
    fn part(&self, number: u32, lines_max: usize) -> io::Result<Option<Newest>> {
        let Some((part, changed)) = open_part(&self.folder, number)? else {
            return Ok(None);
        };
        if self.wanted.is_before(changed) {
            return Ok(None);
        }
        let mut newest = Newest::default();
        let part = part.take(PART_BYTES_MAX);
        let read = collect(part, &self.wanted, lines_max, false, &mut newest);
        match read {
            Ok(rest) => {
                if !rest.is_empty()
                    && let Some(line) = self.wanted.show(&rest)
                {
                    newest.push(line, lines_max);
                }
            }
            // A damaged part does not hide the others.
            Err(error) => {
                tracing::warn!(folder = %self.folder.display(), number, %error, "a part of a log cannot be read")
            }
        }
        Ok(Some(newest))
    }

    /// What is new, in the file that is held and then in what came after it; `None` when nothing is.
    fn news(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut shown = Vec::new();
        let mut bytes = self.older();
        if bytes.is_empty() {
            bytes = piece(&self.file)?;
        }
        if bytes.is_empty() {
            let held = self.file.metadata()?;
            let found = match self.folder.join(CURRENT).metadata() {
                Ok(found) => found,
                // Between two files, or removed with its revision.
                Err(_) if self.folder.exists() => return Ok(None),
                Err(error) => return Err(error),
            };
            if (held.dev(), held.ino()) != (found.dev(), found.ino()) {
                // What was written between the look and the change of names; nothing comes to it any more.
                bytes = piece(&self.file)?;
                if bytes.is_empty() {
                    let following = parts::after(&self.folder, &self.file)?;
                    if following.gap {
                        shown = self.wanted.gap(held.modified()?);
                    }
                    (self.parts, self.file) = (following.parts, following.current);
                    bytes = self.older();
                    if bytes.is_empty() {
                        bytes = piece(&self.file)?;
                    }
                }
            } else if held.len() < self.file.stream_position()? {
                // Somebody emptied it.
                self.file.seek(SeekFrom::Start(0))?;
                self.partial.clear();
                bytes = piece(&self.file)?;
            }
        }
        if bytes.is_empty() && shown.is_empty() {
            return Ok(None);
        }
        self.partial.append(&mut bytes);
        let mut rest = self.partial.as_slice();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = rest.split_at(end);
            if let Some(mut line) = self.wanted.show(line) {
                shown.append(&mut line);
            }
            rest = after.get(1..).unwrap_or_default();
        }
        self.partial = rest.to_vec();
        Ok(Some(shown))
    }

    /// A piece of the oldest part that is held; empty when there is none.
    fn older(&mut self) -> Vec<u8> {
        while let Some(part) = self.parts.front_mut() {
            match piece(part) {
                Ok(bytes) if !bytes.is_empty() => return bytes,
                Ok(_) => {}
                // A damaged part does not hide the others.
                Err(error) => {
                    tracing::warn!(folder = %self.folder.display(), %error, "a part of a log cannot be read");
                }
            }
            self.parts.pop_front();
        }
        Vec::new()
    }
}

fn piece(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(limits::PIECE_BYTES as u64)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Adds the wanted lines; what is left is the beginning of a line without its end. `cut`: the first line is not whole.
fn collect(
    from: impl Read,
    wanted: &Wanted,
    lines_max: usize,
    cut: bool,
    newest: &mut Newest,
) -> io::Result<Vec<u8>> {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    let mut first = cut;
    loop {
        line.clear();
        from.read_until(b'\n', &mut line)?;
        if line.pop_if(|last| *last == b'\n').is_none() {
            return Ok(line);
        }
        if !std::mem::take(&mut first)
            && let Some(line) = wanted.show(&line)
        {
            newest.push(line, lines_max);
        }
    }
}

/// Sends what is written from now on, until the client is gone, the log is removed or the server stops.
async fn go_on(
    mut reader: Reader,
    changes: Receiver,
    sender: mpsc::Sender<io::Result<Bytes>>,
    mut stopping: watch::Receiver<bool>,
) {
    loop {
        // Taken before the file is read: a change after that comes again.
        let read = tokio::task::spawn_blocking(move || {
            let news = reader.news();
            (reader, news)
        });
        let Ok((back, Ok(news))) = read.await else {
            return;
        };
        reader = back;
        if let Some(news) = news {
            if !news.is_empty() && sender.send(Ok(news.into())).await.is_err() {
                return;
            }
            continue;
        }
        let changed = tokio::select! {
            () = sender.closed() => return,
            _ = stopping.wait_for(|stopping| *stopping) => return,
            changed = changes.readable() => changed,
        };
        if changed.is_err() {
            return;
        }
        // What changed is seen by reading the file; only that something did counts.
        match changes.try_read(&mut [0; 4096]) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
            Ok(_) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(since: Option<u64>, level: Option<Level>, form: LogForm) -> Wanted {
        Wanted {
            container: "web".parse().unwrap(),
            since: since.map(WallTime),
            level,
            form,
        }
    }

    fn tail(folder: &Path, wanted: Wanted, lines: u32) -> String {
        let mut reader = Reader::open(folder.to_owned(), wanted).unwrap();
        String::from_utf8(reader.tail(lines).unwrap()).unwrap()
    }

    fn pack(path: &Path, text: &str) {
        use std::io::Write as _;
        let file = File::create(path).unwrap();
        let mut packer = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        packer.write_all(text.as_bytes()).unwrap();
        packer.finish().unwrap();
    }

    #[test]
    fn tails_over_parts_packed_or_not() {
        let folder = crate::tests::Scratch::new();
        let folder = folder.path();
        pack(&folder.join("console.log.2.gz"), "a\nb\n");
        std::fs::write(folder.join("console.log.1"), "c\nd\n").unwrap();
        std::fs::write(folder.join(CURRENT), "e\nf\n").unwrap();
        for (lines, expected) in [
            (0, ""),
            (1, "f\n"),
            (3, "d\ne\nf\n"),
            (5, "b\nc\nd\ne\nf\n"),
            (99, "a\nb\nc\nd\ne\nf\n"),
        ] {
            let all = wanted(None, None, LogForm::Raw);
            assert_eq!(tail(folder, all, lines), expected, "{lines}");
        }
        // A damaged part does not hide the others.
        std::fs::write(folder.join("console.log.2.gz"), "rubbish").unwrap();
        let all = wanted(None, None, LogForm::Raw);
        assert_eq!(tail(folder, all, 99), "c\nd\ne\nf\n");
    }

    #[test]
    fn filters_and_forms() {
        let folder = crate::tests::Scratch::new();
        let folder = folder.path();
        let lines = "1970-01-01T00:00:01.000Z I stdout one\n\
                     1970-01-01T00:00:02.000Z E stderr two\n\
                     1970-01-01T00:00:03.000Z W stderr three\n\
                     other form\n";
        std::fs::write(folder.join(CURRENT), lines).unwrap();
        let shown = |since, level, form| tail(folder, wanted(since, level, form), 99);
        let raw = LogForm::Raw;
        assert_eq!(shown(None, None, raw), "one\ntwo\nthree\nother form\n");
        assert_eq!(shown(Some(2000), None, raw), "two\nthree\nother form\n");
        assert_eq!(shown(None, Some(Level::Warn), raw), "two\nthree\n");
        assert_eq!(shown(Some(2001), Some(Level::Error), raw), "");
        assert_eq!(shown(None, None, LogForm::Text), lines);
        let json = shown(None, Some(Level::Error), LogForm::Json);
        assert_eq!(
            json,
            "{\"container\":\"web\",\"time\":\"1970-01-01T00:00:02.000Z\",\"level\":\"error\",\"source\":\"stderr\",\"text\":\"two\"}\n"
        );
        // The last lines of those that are wanted, not the wanted ones of the last.
        assert_eq!(
            tail(folder, wanted(None, Some(Level::Error), raw), 1),
            "two\n"
        );
    }

    #[test]
    fn follows_over_rotation_and_emptying() {
        use std::io::Write as _;
        let folder = crate::tests::Scratch::new();
        let folder = folder.path();
        let current = folder.join(CURRENT);
        let append = |text: &str| {
            let file = File::options().create(true).append(true).open(&current);
            file.unwrap().write_all(text.as_bytes()).unwrap();
        };
        append("a\n");
        let mut reader = Reader::open(folder.to_owned(), wanted(None, None, LogForm::Raw)).unwrap();
        assert_eq!(reader.tail(10).unwrap(), b"a\n");
        assert_eq!(reader.news().unwrap(), None);
        append("b\nc");
        assert_eq!(reader.news().unwrap().unwrap(), b"b\n");
        append("c\n");
        std::fs::rename(&current, folder.join("console.log.0")).unwrap();
        append("d\n");
        assert_eq!(reader.news().unwrap().unwrap(), b"cc\n");
        assert_eq!(reader.news().unwrap().unwrap(), b"d\n");
        std::fs::remove_file(folder.join("console.log.0")).unwrap();
        File::create(&current).unwrap();
        append("e\n");
        // Shorter or as long as before: as long is taken for unchanged, which the writer never makes.
        append("f\n");
        assert!(reader.news().unwrap().unwrap().ends_with(b"f\n"));
    }

    #[test]
    fn a_slow_follower_goes_on_through_packed_parts_or_is_told_what_is_missing() {
        let folder = crate::tests::Scratch::new();
        let folder = folder.path();
        let current = folder.join(CURRENT);
        let mut seconds = 0;
        // As the writer does it: the part keeps the time of the file that it was.
        let mut rotate = |text: &str| {
            for number in (1..4).rev() {
                let part = |number| folder.join(format!("{CURRENT}.{number}.gz"));
                std::fs::rename(part(number), part(number + 1)).ok();
            }
            seconds += 1;
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            let old = std::fs::read_to_string(&current).unwrap();
            File::options()
                .append(true)
                .open(&current)
                .unwrap()
                .set_modified(time)
                .unwrap();
            let part = folder.join(format!("{CURRENT}.1.gz"));
            pack(&part, &old);
            File::options()
                .append(true)
                .open(&part)
                .unwrap()
                .set_modified(time)
                .unwrap();
            std::fs::remove_file(&current).unwrap();
            std::fs::write(&current, text).unwrap();
        };
        std::fs::write(&current, "a\n").unwrap();
        let mut reader = Reader::open(folder.to_owned(), wanted(None, None, LogForm::Raw)).unwrap();
        assert_eq!(reader.tail(10).unwrap(), b"a\n");
        let all = |reader: &mut Reader| {
            let mut text = String::new();
            while let Some(news) = reader.news().unwrap() {
                text.push_str(std::str::from_utf8(&news).unwrap());
            }
            text
        };
        for text in ["b\n", "c\n", "d\n"] {
            rotate(text);
        }
        assert_eq!(all(&mut reader), "b\nc\nd\n");
        rotate("e\n");
        assert_eq!(all(&mut reader), "e\n");
        // The part that it had read last is gone.
        for text in ["f\n", "g\n", "h\n", "i\n", "j\n"] {
            rotate(text);
        }
        let text = all(&mut reader);
        let (told, rest) = text.split_once('\n').unwrap();
        assert!(told.contains("are missing"), "{text}");
        assert_eq!(rest, "f\ng\nh\ni\nj\n");
    }
}
