//! Carries out cases of the kit: a fresh server for each, the client started by whoever asks, the judgement as a line of a table.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use acceptance::image::object;
use acceptance::manifest::Manifest;
use serde_json::json;

use crate::hawkbit::{Hawkbit as Ours, Hook, Release, Request, Response, Setup, serve_with};
use crate::kit::{Case, Exchange, Log, Scene, Sent, Stage, Until, always};
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
}

impl Stand<'_> {
    /// A revision without containers: it is the client that is judged, not how fast a machine starts them.
    fn publish(&self, name: &str, odd: bool) -> u64 {
        let objects =
            ["one", "two"].map(|part| object(format!("{part} of {name}").repeat(900).as_bytes()));
        let manifest = Manifest::new()
            .key("build.json", json!({"case": name}))
            .key("board/one.bin", json!(objects[0].sha256))
            .key("board/two.bin", json!(objects[1].sha256))
            .text();
        let second = if odd {
            "the second+last (of 2).bin"
        } else {
            &objects[1].sha256
        };
        let all: [(&str, &[u8]); 3] = [
            ("manifest.json", manifest.as_bytes()),
            (&objects[0].sha256, &objects[0].bytes),
            (second, &objects[1].bytes),
        ];
        for (name, bytes) in all {
            locked(self.files).insert(name.to_owned(), bytes.to_vec());
        }
        self.operator.publish(name, &all)
    }

    /// What the case begins with; the action.
    fn set(&self, case: &Case) -> Option<u64> {
        let name = case.name;
        let assign = |name: &str, how: &How| {
            let set = self.publish(name, case.stage == Stage::OddName);
            Some(self.operator.assign(DEVICE, set, how))
        };
        match case.stage {
            Stage::Nothing => None,
            Stage::Forced | Stage::OddName | Stage::CancelledLater => assign(name, &How::Forced),
            Stage::DownloadOnly => assign(name, &How::DownloadOnly),
            // The first of January: closed on every other day.
            Stage::Closed => assign(
                name,
                &How::Window("0 0 3 1 1 ? *".to_owned(), "00:00:01".to_owned()),
            ),
            Stage::Lapsed => {
                let opens = SystemTime::now() + Duration::from_secs(3);
                let how = How::Window(schedule_at(opens), "00:00:01".to_owned());
                let action = assign(name, &how);
                std::thread::sleep(Duration::from_secs(6));
                action
            }
            Stage::Consent => {
                self.operator.ask_for_consent(true);
                assign(name, &How::Forced)
            }
            Stage::Superseded => {
                assign(&format!("{name}-old"), &How::Forced);
                assign(name, &How::Forced)
            }
        }
    }
}

/// The other host: every file by its name, whoever asks.
fn elsewhere(files: Files, log: Log, began: Instant) -> Hook {
    Arc::new(move |request, _| {
        let name = request.path.rsplit('/').next().unwrap_or_default();
        let found = locked(&files).get(name).cloned();
        let answer = match found {
            Some(bytes) => part(request, &bytes),
            None => Response {
                status: 404,
                ..Response::default()
            },
        };
        note(&log, began, request, answer.status, answer.status);
        answer
    })
}

fn part(request: &Request, bytes: &[u8]) -> Response {
    let from = request
        .header("range")
        .and_then(|range| {
            range
                .strip_prefix("bytes=")?
                .split_once('-')?
                .0
                .parse()
                .ok()
        })
        .filter(|from: &usize| *from < bytes.len());
    let header = |name: &str, value: String| (name.to_owned(), value);
    let mut headers = vec![header(
        "ETag",
        format!("\"{}\"", crate::hawkbit::digest(bytes)),
    )];
    if let Some(from) = from {
        let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
        headers.push(header("Content-Range", range));
    }
    Response {
        status: if from.is_some() { 206 } else { 200 },
        headers,
        body: bytes[from.unwrap_or_default()..].to_vec(),
    }
}

fn note(log: &Log, began: Instant, request: &Request, own: u16, status: u16) {
    locked(&log.0).push(Exchange {
        at_ms: began.elapsed().as_millis(),
        request: request.clone(),
        own,
        status,
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
        note(&log, began, request, own, answer.status);
        answer
    })
}

/// Runs a case; `start` starts the client and gives back what ends it when it is dropped.
///
/// # Errors
/// What the client did wrong.
///
/// # Panics
/// When no server can be started.
pub fn run<C>(case: &Case, start: impl FnOnce(&Access) -> C) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a run time");
    let (log, other) = (Log::default(), Log::default());
    let began = Instant::now();
    let files = Files::default();
    let now = SystemTime::now()
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
    let stand = Stand {
        operator: &operator,
        files: &files,
    };
    let mut to_cancel = stand
        .set(case)
        .filter(|_| case.stage == Stage::CancelledLater);
    let client = start(&access);
    let started = Instant::now();
    loop {
        let sent = Sent::new(&log, &other);
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
    let sent = Sent::new(&log, &other);
    always(&sent)?;
    (case.judge)(&sent)
}
