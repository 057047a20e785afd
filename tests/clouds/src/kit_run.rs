//! Carries out cases of the kit: a fresh server for each, the client started by whoever asks, the judgement as a line of a table.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use acceptance::image::object;
use acceptance::manifest::Manifest;
use serde_json::json;

use crate::hawkbit::{Hawkbit as Ours, Hook, Release, Request, Response, Setup, serve_with};
use crate::kit::{Case, Exchange, Log, OPENS_AFTER, Scene, Sent, Stage, Until, always};
use crate::management::{Access, Hawkbit, How, Management as _, schedule_at};

/// Longest time that a case waits for a word. On an idle machine no case needs a quarter of it.
const PATIENCE: Duration = Duration::from_secs(180);
/// What a client does after the word counts too.
const AFTERWARDS: Duration = Duration::from_secs(3);
const DEVICE: &str = "device";

type Files = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Stand<'a> {
    operator: &'a Hawkbit,
    files: &'a Files,
    /// Name and length of each file of the newest set.
    newest: Vec<(String, usize)>,
    began: SystemTime,
    /// The same in milliseconds since 1970: what tells this run's files from an earlier one's.
    mark: i64,
}

impl Stand<'_> {
    /// A revision without containers: it is the client that is judged, not how fast a machine starts them. No earlier run has had it.
    fn publish(&mut self, name: &str, stage: Stage) -> u64 {
        let mark = format!("{name} {}", self.mark);
        let objects =
            ["one", "two"].map(|part| object(format!("{part} of {mark}").repeat(400).as_bytes()));
        let manifest = Manifest::new()
            .key("build.json", json!({"case": mark}))
            .key("board/one.bin", json!(objects[0].sha256))
            .key("board/two.bin", json!(objects[1].sha256))
            .text();
        let second = match stage {
            Stage::OddName => "the second+last (of 2).bin",
            Stage::BadName => "100%; the second.bin",
            Stage::Nothing
            | Stage::Forced
            | Stage::DownloadOnly
            | Stage::Closed
            | Stage::Opens
            | Stage::Lapsed
            | Stage::Consent
            | Stage::Superseded
            | Stage::CancelledLater => &objects[1].sha256,
        };
        let all: [(&str, &[u8]); 3] = [
            ("manifest.json", manifest.as_bytes()),
            (&objects[0].sha256, &objects[0].bytes),
            (second, &objects[1].bytes),
        ];
        for (name, bytes) in all {
            locked(self.files).insert(name.to_owned(), bytes.to_vec());
        }
        self.newest = all
            .map(|(name, bytes)| (name.to_owned(), bytes.len()))
            .to_vec();
        self.operator.publish(name, &all)
    }

    fn assign(&mut self, name: &str, stage: Stage, how: &How) -> u64 {
        let set = self.publish(name, stage);
        self.operator.assign(DEVICE, set, how)
    }

    /// What the case begins with; the action.
    fn set(&mut self, case: &Case) -> Option<u64> {
        let (name, stage) = (case.name, case.stage);
        let window = |opens, duration: &str| How::Window(schedule_at(opens), duration.to_owned());
        let how = match stage {
            Stage::Nothing => return None,
            Stage::Forced | Stage::OddName | Stage::BadName | Stage::CancelledLater => How::Forced,
            Stage::DownloadOnly => How::DownloadOnly,
            // The first of January: closed on every other day.
            Stage::Closed => How::Window("0 0 3 1 1 ? *".to_owned(), "00:00:01".to_owned()),
            Stage::Opens => window(self.began + OPENS_AFTER, "01:00:00"),
            Stage::Lapsed => window(SystemTime::now() + Duration::from_secs(3), "00:00:01"),
            Stage::Consent => {
                self.operator.ask_for_consent(true);
                How::Forced
            }
            Stage::Superseded => {
                for number in 1..=2 {
                    self.assign(&format!("{name}-old-{number}"), stage, &How::Forced);
                }
                How::Forced
            }
        };
        let action = self.assign(name, stage, &how);
        if stage == Stage::Lapsed {
            std::thread::sleep(Duration::from_secs(6));
        }
        Some(action)
    }
}

/// The other host: every file by its name, whoever asks. Asked with `?breaks`, it sends the first half at first, and then knows no ranges.
fn elsewhere(files: Files, log: Log, began: Instant) -> Hook {
    Arc::new(move |request, _| {
        let name = request.path.rsplit('/').next().unwrap_or_default();
        let found = locked(&files).get(name).cloned();
        let breaks = request.query == "breaks";
        let is_first = !locked(&log.0)
            .iter()
            .any(|one| one.request.path == request.path);
        let answer = match found {
            Some(bytes) if breaks && is_first => part(&bytes, Some(0..bytes.len() / 2)),
            Some(bytes) if breaks => part(&bytes, None),
            Some(bytes) => {
                let from = wanted_from(request).filter(|from| *from < bytes.len());
                part(&bytes, from.map(|from| from..bytes.len()))
            }
            None => Response {
                status: 404,
                ..Response::default()
            },
        };
        note(&log, began, request, answer.status, &answer);
        answer
    })
}

/// Where the range begins that a request asks for.
fn wanted_from(request: &Request) -> Option<usize> {
    let range = request.header("range")?.strip_prefix("bytes=")?;
    range.split_once('-')?.0.parse().ok()
}

/// Part of a file, or the whole of it.
fn part(bytes: &[u8], range: Option<Range<usize>>) -> Response {
    let mut headers = vec![(
        "ETag".to_owned(),
        format!("\"{}\"", crate::hawkbit::digest(bytes)),
    )];
    let Some(range) = range else {
        return Response {
            status: 200,
            headers,
            body: bytes.to_vec(),
        };
    };
    let told = format!("bytes {}-{}/{}", range.start, range.end - 1, bytes.len());
    headers.push(("Content-Range".to_owned(), told));
    Response {
        status: 206,
        headers,
        body: bytes[range].to_vec(),
    }
}

fn note(log: &Log, began: Instant, request: &Request, own: u16, answer: &Response) {
    locked(&log.0).push(Exchange {
        at_ms: began.elapsed().as_millis(),
        request: request.clone(),
        own,
        status: answer.status,
        bytes: answer.body.len(),
    });
}

/// The server itself, with what the case changes.
fn changed(case: &Case, log: Log, began: Instant, elsewhere: String) -> Hook {
    let mangle = case.mangle;
    Arc::new(move |request, answer| {
        let own = answer.status;
        let scene = {
            let all = locked(&log.0);
            let same = |one: &&Exchange| {
                one.request.path == request.path && one.request.method == request.method
            };
            Scene {
                before: all.len(),
                same: all.iter().filter(same).count(),
                elsewhere: &elsewhere,
            }
        };
        let answer = mangle(request, answer, &scene);
        note(&log, began, request, own, &answer);
        answer
    })
}

/// Files that a client has put beside the folder that it was given.
fn strays(work: &Path) -> Vec<String> {
    let beside = |folder: &Path, own: &str| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name != own).collect::<Vec<_>>()
    };
    let mut found = beside(work, "a");
    found.extend(beside(&work.join("a"), "b"));
    found
}

/// Runs a case; `start` starts the client, which may write into this folder only, and gives back what ends it when it is dropped.
///
/// # Errors
/// What the client did wrong.
///
/// # Panics
/// When no server can be started.
pub fn run<C>(case: &Case, start: impl FnOnce(&Access, &Path) -> C) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a run time");
    let work = tempfile::Builder::new()
        .prefix("cx-kit-")
        .tempdir()
        .expect("a temporary folder");
    // Two deep, so that what climbs out of it is seen, and goes with the rest.
    let folder = work.path().join("a/b");
    std::fs::create_dir_all(&folder).expect("a folder");
    let (log, other) = (Log::default(), Log::default());
    let (began, since) = (Instant::now(), SystemTime::now());
    let files = Files::default();
    let now = since
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis());
    let now = i64::try_from(now).unwrap_or_default();
    let mut setup = Setup::stock(Release::V1_0_4);
    setup.polling_min_s = 1;
    let host = Ours::new(setup.clone(), now);
    let hook = elsewhere(Arc::clone(&files), other.clone(), began);
    let host = runtime.block_on(serve_with(host, hook)).expect("a port");
    (case.setup)(&mut setup);
    let hook = changed(case, log.clone(), began, host.url());
    let served = runtime
        .block_on(serve_with(Ours::new(setup, now), hook))
        .expect("a port");
    let operator = Hawkbit::new(&served.url(), "admin", "admin", "the kit's server");
    let access = operator.add_device(DEVICE);
    let mut stand = Stand {
        operator: &operator,
        files: &files,
        newest: Vec::new(),
        began: since,
        mark: now,
    };
    let mut to_cancel = stand
        .set(case)
        .filter(|_| case.stage == Stage::CancelledLater);
    let client = start(&access, &folder);
    let started = Instant::now();
    loop {
        let sent = Sent::new(&log, &other, stand.newest.clone());
        if let Some(action) = to_cancel.filter(|_| sent.count("GET", "/artifacts/") > 0) {
            operator.cancel(DEVICE, action);
            to_cancel = None;
        }
        let (over, limit) = match case.until {
            Until::Seconds(seconds) => (false, Duration::from_secs(seconds)),
            Until::Said(channel, word) => (sent.has(channel, word), PATIENCE),
            Until::Sent(word, count) => (sent.sent_words(word) >= count, PATIENCE),
        };
        if over || started.elapsed() >= limit {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    if !matches!(case.until, Until::Seconds(_)) {
        std::thread::sleep(AFTERWARDS);
    }
    drop(client);
    let sent = Sent::new(&log, &other, stand.newest);
    let strays = strays(work.path());
    if !strays.is_empty() {
        return Err(format!("it wrote {strays:?} outside of its folder"));
    }
    always(&sent)?;
    (case.judge)(&sent)
}
