//! The misbehaving-server kit: what hawkBit servers do that surprises clients, one case each, for any DDI client. Each case is our
//! faithful server with one thing changed on the way out; the client is judged by what it sent.
//!
//! Run by `tests/clouds` against our client, and for any other by the command `ddi-kit` (see its `--help`).

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use crate::hawkbit::{Request, Response};

/// One exchange, as the client saw it.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// When, in milliseconds since the case began.
    pub at_ms: u128,
    /// What it sent.
    pub request: Request,
    /// Status of the answer.
    pub status: u16,
}

/// Everything that a client sent during a case.
#[derive(Debug, Clone, Default)]
pub struct Log(pub Arc<Mutex<Vec<Exchange>>>);

impl Log {
    /// A copy.
    pub fn all(&self) -> Vec<Exchange> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// What the judge looks at.
#[derive(Debug)]
pub struct Sent {
    all: Vec<Exchange>,
}

impl Sent {
    /// Of this log.
    pub fn new(log: &Log) -> Self {
        Self { all: log.all() }
    }

    /// How often a resource was asked for: part of the path, method.
    pub fn count(&self, method: &str, part: &str) -> usize {
        let fits =
            |one: &&Exchange| one.request.method == method && one.request.path.contains(part);
        self.all.iter().filter(fits).count()
    }

    /// Polls of the root.
    pub fn polls(&self) -> usize {
        let root = |one: &&Exchange| one.request.path.split('/').count() == 5;
        self.all.iter().filter(root).count()
    }

    /// Reports that the server took on a channel, as `execution/finished`.
    pub fn words(&self, channel: &str) -> Vec<String> {
        let mark = format!("/{channel}/");
        let mut words = Vec::new();
        for one in &self.all {
            let is_report = one.request.path.contains(&mark) && one.request.method == "POST";
            if !is_report || one.status >= 300 {
                continue;
            }
            let body: Value = serde_json::from_slice(&one.request.body).unwrap_or_default();
            let execution = body["status"]["execution"].as_str().unwrap_or("?");
            let finished = body["status"]["result"]["finished"].as_str().unwrap_or("?");
            words.push(format!("{execution}/{finished}"));
        }
        words
    }

    fn has(&self, channel: &str, word: &str) -> bool {
        self.words(channel).iter().any(|found| found == word)
    }

    fn must(&self, channel: &str, word: &str) -> Result<(), String> {
        if self.has(channel, word) {
            return Ok(());
        }
        Err(format!("no {word} on {channel}: {:?}", self.words(channel)))
    }

    fn must_not(&self, channel: &str, word: &str) -> Result<(), String> {
        if !self.has(channel, word) {
            return Ok(());
        }
        Err(format!("{word} on {channel}: {:?}", self.words(channel)))
    }
}

/// How the server is set up before the client starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Nothing is assigned.
    Nothing,
    /// A set, forced.
    Forced,
    /// A set, to be fetched only.
    DownloadOnly,
    /// A set whose window is closed.
    Closed,
    /// A set that is cancelled already, and another one behind it.
    Superseded,
}

/// When a case is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// After this many seconds.
    Seconds(u64),
    /// When a report with this word was taken on `deploymentBase`, or after two minutes.
    Said(&'static str),
}

/// Changes an answer: the request, the answer, how many requests came before it.
pub type Mangle = fn(&Request, Response, usize) -> Response;

/// One case.
#[derive(Debug)]
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// What the server does, and what a client must make of it.
    pub what: &'static str,
    /// What is assigned.
    pub stage: Stage,
    /// What is changed.
    pub mangle: Mangle,
    /// When it is over.
    pub until: Until,
    /// The judgement.
    pub judge: fn(&Sent) -> Result<(), String>,
}

fn as_it_is(_: &Request, answer: Response, _: usize) -> Response {
    answer
}

fn is_root(request: &Request) -> bool {
    request.path.split('/').count() == 5
}

fn edit(mut answer: Response, change: impl Fn(&mut Value)) -> Response {
    if let Ok(mut value) = serde_json::from_slice::<Value>(&answer.body) {
        change(&mut value);
        answer.body = value.to_string().into_bytes();
        // Another body, another tag.
        let tag = format!("\"{}\"", crate::hawkbit::digest(&answer.body));
        answer
            .headers
            .retain(|(name, _)| !name.eq_ignore_ascii_case("etag"));
        answer.headers.push(("ETag".to_owned(), tag));
    }
    answer
}

fn sleep(answer: Response, request: &Request, text: &str) -> Response {
    if !is_root(request) || answer.status != 200 {
        return answer;
    }
    edit(answer, |root| {
        root["config"]["polling"]["sleep"] = json!(text)
    })
}

fn each_file(answer: Response, request: &Request, change: impl Fn(&mut Value)) -> Response {
    if !request.path.contains("/deploymentBase/") || request.method != "GET" {
        return answer;
    }
    edit(answer, |body| {
        let chunks = body["deployment"]["chunks"].as_array_mut();
        for chunk in chunks.into_iter().flatten() {
            for file in chunk["artifacts"].as_array_mut().into_iter().flatten() {
                change(file);
            }
        }
    })
}

fn plain(status: u16, body: &str) -> Response {
    let mut answer = Response {
        status,
        ..Response::default()
    };
    if !body.is_empty() {
        answer
            .headers
            .push(("Content-Type".to_owned(), "application/json".to_owned()));
    }
    answer.body = body.as_bytes().to_vec();
    answer
}

const QUOTA: &str = r#"{"exceptionClass":"org.eclipse.hawkbit.repository.exception.AssignmentQuotaExceededException","errorCode":"hawkbit.server.error.quota.tooManyEntries","message":"Quota exceeded: Cannot assign 1 more ActionStatus entities to Action '1'. The maximum is 1000."}"#;

fn is_intermediate(request: &Request) -> bool {
    let text = String::from_utf8_lossy(&request.body).into_owned();
    request.method == "POST" && request.path.ends_with("/feedback") && !text.contains("\"closed\"")
}

fn success(sent: &Sent) -> Result<(), String> {
    sent.must("deploymentBase", "closed/success")
}

fn few_polls(sent: &Sent) -> Result<(), String> {
    match sent.polls() {
        1..=4 => Ok(()),
        count => Err(format!("{count} polls in 8 s")),
    }
}

/// Every case.
pub const CASES: &[Case] = &[
    Case {
        name: "sleep-iso",
        what: "sleep is PT24H40M58.491S: a day, not a hot loop",
        stage: Stage::Nothing,
        mangle: |request, answer, _| sleep(answer, request, "PT24H40M58.491S"),
        until: Until::Seconds(8),
        judge: few_polls,
    },
    Case {
        name: "sleep-garbage",
        what: "sleep cannot be read: an interval of the client's own, not 0",
        stage: Stage::Nothing,
        mangle: |request, answer, _| sleep(answer, request, "aa:bb:cc"),
        until: Until::Seconds(8),
        judge: few_polls,
    },
    Case {
        name: "sleep-zero",
        what: "sleep is 00:00:00: an interval of the client's own",
        stage: Stage::Nothing,
        mangle: |request, answer, _| sleep(answer, request, "00:00:00"),
        until: Until::Seconds(8),
        judge: few_polls,
    },
    Case {
        name: "cancel-closed",
        what: "a cancel hides the next deployment until it is answered with closed",
        stage: Stage::Superseded,
        mangle: as_it_is,
        until: Until::Said("closed/success"),
        judge: |sent| {
            sent.must("cancelAction", "closed/success")?;
            success(sent)
        },
    },
    Case {
        name: "no-timestamp",
        what: "a timestamp becomes the date of installation: better none than a wrong one",
        stage: Stage::Forced,
        mangle: as_it_is,
        until: Until::Said("closed/success"),
        judge: |sent| {
            success(sent)?;
            let any = sent.all.iter().any(|one| {
                let body: Value = serde_json::from_slice(&one.request.body).unwrap_or_default();
                body.get("timestamp").is_some()
            });
            if any {
                Err("a timestamp was sent".to_owned())
            } else {
                Ok(())
            }
        },
    },
    Case {
        name: "range-always",
        what: "a read without Range costs a row of the action's quota",
        stage: Stage::Forced,
        mangle: as_it_is,
        until: Until::Said("closed/success"),
        judge: |sent| {
            success(sent)?;
            let bare = sent.all.iter().filter(|one| {
                one.request.path.contains("/artifacts/") && one.request.header("range").is_none()
            });
            match bare.count() {
                0 => Ok(()),
                count => Err(format!("{count} reads without Range")),
            }
        },
    },
    Case {
        name: "range-200",
        what: "a Range that covers the whole file is answered 200 by older servers",
        stage: Stage::Forced,
        mangle: |_, mut answer, _| {
            let whole = answer
                .header("content-range")
                .is_some_and(|range| range.starts_with("bytes 0-"));
            if answer.status == 206 && whole {
                answer.status = 200;
            }
            answer
        },
        until: Until::Said("closed/success"),
        judge: success,
    },
    Case {
        name: "quota-429",
        what: "rows are used up (429): no more progress, but the end is told",
        stage: Stage::Forced,
        mangle: |request, answer, _| {
            if is_intermediate(request) {
                plain(429, QUOTA)
            } else {
                answer
            }
        },
        until: Until::Said("closed/success"),
        judge: success,
    },
    Case {
        name: "quota-403",
        what: "rows are used up (403 before 0.10.0): the same, and no slow mode",
        stage: Stage::Forced,
        mangle: |request, answer, _| {
            if is_intermediate(request) {
                plain(403, QUOTA)
            } else {
                answer
            }
        },
        until: Until::Said("closed/success"),
        judge: success,
    },
    Case {
        name: "skip-window",
        what: "update is skip because the window is closed: fetch, never close",
        stage: Stage::Closed,
        mangle: as_it_is,
        until: Until::Seconds(15),
        judge: |sent| {
            sent.must("deploymentBase", "downloaded/none")?;
            sent.must_not("deploymentBase", "closed/success")?;
            sent.must_not("deploymentBase", "closed/failure")
        },
    },
    Case {
        name: "download-only",
        what: "download only: downloaded ends it; closed would mark it as installed",
        stage: Stage::DownloadOnly,
        mangle: as_it_is,
        until: Until::Said("downloaded/none"),
        judge: |sent| {
            sent.must("deploymentBase", "downloaded/none")?;
            sent.must_not("deploymentBase", "closed/success")
        },
    },
    Case {
        name: "no-refetch",
        what: "the details of an action that was closed are never read again: that reopens it",
        stage: Stage::Forced,
        mangle: as_it_is,
        until: Until::Said("closed/success"),
        judge: |sent| {
            success(sent)?;
            let closed = sent
                .all
                .iter()
                .position(|one| String::from_utf8_lossy(&one.request.body).contains("\"closed\""));
            let later = sent.all.iter().skip(closed.unwrap_or_default());
            let again = later.filter(|one| {
                one.request.method == "GET" && one.request.path.contains("/deploymentBase/")
            });
            match again.count() {
                0 => Ok(()),
                count => Err(format!("read {count} times after the end")),
            }
        },
    },
    Case {
        name: "only-sha1",
        what: "hashes are missing but sha1 (gooseBit, old data)",
        stage: Stage::Forced,
        mangle: |request, answer, _| {
            each_file(answer, request, |file| {
                let sha1 = file["hashes"]["sha1"].clone();
                file["hashes"] = json!({"sha1": sha1});
            })
        },
        until: Until::Said("closed/success"),
        judge: success,
    },
    Case {
        name: "wrong-hash",
        what: "a file is not what its hash says: an error, never success",
        stage: Stage::Forced,
        mangle: |request, mut answer, _| {
            let object = request
                .path
                .split('/')
                .next_back()
                .is_some_and(|name| name.len() == 64);
            if object && let Some(byte) = answer.body.last_mut() {
                *byte ^= 1;
            }
            answer
        },
        until: Until::Said("closed/failure"),
        judge: |sent| {
            sent.must("deploymentBase", "closed/failure")?;
            sent.must_not("deploymentBase", "closed/success")
        },
    },
    Case {
        name: "five-gigabytes",
        what: "a file of 5,000,000,000 bytes that is not needed makes nothing unreadable",
        stage: Stage::Forced,
        mangle: |request, answer, _| with_file(answer, request, "other.bin", 5_000_000_000),
        until: Until::Said("closed/success"),
        judge: success,
    },
    Case {
        name: "file-name-path",
        what: "a file is called ../../x: a text, not a path",
        stage: Stage::Forced,
        mangle: |request, answer, _| with_file(answer, request, "../../x", 3),
        until: Until::Said("closed/success"),
        judge: success,
    },
    Case {
        name: "unknown-words",
        what: "words that nobody knows allow nothing",
        stage: Stage::Forced,
        mangle: |request, answer, _| {
            if !request.path.contains("/deploymentBase/") || request.method != "GET" {
                return answer;
            }
            edit(answer, |body| {
                body["deployment"]["download"] = json!("perhaps");
                body["deployment"]["update"] = json!("perhaps");
            })
        },
        until: Until::Seconds(10),
        judge: |sent| {
            sent.must_not("deploymentBase", "closed/success")?;
            match sent.count("GET", "/artifacts/") {
                0 => Ok(()),
                count => Err(format!("{count} reads of files")),
            }
        },
    },
    Case {
        name: "unauthorized",
        what: "401 without a word: slow and loud, not a flood",
        stage: Stage::Forced,
        mangle: |_, _, _| plain(401, ""),
        until: Until::Seconds(8),
        judge: |sent| match sent.all.len() {
            1..=4 => Ok(()),
            count => Err(format!("{count} requests in 8 s")),
        },
    },
    Case {
        name: "too-many",
        what: "429 without body, the rate filter: wait, then go on",
        stage: Stage::Forced,
        mangle: |_, answer, before| {
            // Twice: the pause after each is the client's own, and may be half a minute.
            if matches!(before, 1 | 4) {
                plain(429, "")
            } else {
                answer
            }
        },
        until: Until::Said("closed/success"),
        judge: success,
    },
    Case {
        name: "broken-server",
        what: "500 and garbage now and then: tried again",
        stage: Stage::Forced,
        mangle: |_, answer, before| match before % 5 {
            2 => plain(500, ""),
            4 => plain(200, "<html>proxy error</html>"),
            _ => answer,
        },
        until: Until::Said("closed/success"),
        judge: |sent| {
            // A report may be lost in an answer that was mangled: what counts is that it came.
            let text = |one: &Exchange| String::from_utf8_lossy(&one.request.body).into_owned();
            let came = sent.all.iter().any(|one| text(one).contains("\"success\""));
            if came { Ok(()) } else { success(sent) }
        },
    },
    Case {
        name: "links-gone",
        what: "a file is 404 at first: ask what is wanted, do not hammer",
        stage: Stage::Forced,
        mangle: |request, answer, before| {
            if request.path.contains("/artifacts/") && before < 8 {
                plain(404, "")
            } else {
                answer
            }
        },
        until: Until::Said("closed/success"),
        judge: success,
    },
    Case {
        name: "no-details",
        what: "modules without name, version and links of their own kind are no reason to fail",
        stage: Stage::Forced,
        mangle: |request, answer, _| {
            if !request.path.contains("/deploymentBase/") || request.method != "GET" {
                return answer;
            }
            edit(answer, |body| {
                let chunks = body["deployment"]["chunks"].as_array_mut();
                for chunk in chunks.into_iter().flatten() {
                    if let Some(chunk) = chunk.as_object_mut() {
                        chunk.remove("version");
                        chunk.insert("surprise".to_owned(), json!([1, {"a": null}]));
                    }
                }
            })
        },
        until: Until::Said("closed/success"),
        judge: success,
    },
];

fn with_file(answer: Response, request: &Request, name: &str, size: u64) -> Response {
    if !request.path.contains("/deploymentBase/") || request.method != "GET" {
        return answer;
    }
    edit(answer, |body| {
        let files = body.pointer_mut("/deployment/chunks/0/artifacts");
        if let Some(files) = files.and_then(Value::as_array_mut) {
            files.push(json!({
                "filename": name, "size": size, "hashes": {"sha1": "0".repeat(40)},
                "_links": {"download-http": {"href": "http://127.0.0.1:9/none"}},
            }));
        }
    })
}
