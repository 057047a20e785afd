//! The misbehaving-server kit: what hawkBit servers do that surprises clients, one case each, for any DDI client. Each case is our
//! faithful server, set up so that it does that, or with one thing changed on the way out; the client is judged by what it sent.
//!
//! Run by `tests/clouds` against our client, and for any other by the command `ddi-kit` (see its `--help`). No case counts on how
//! fast anything is: a case that waits for a word has minutes, one that counts requests counts them over a fixed time.

use std::time::Duration;

use serde_json::{Value, json};

use crate::hawkbit::{Request, Response, Setup};

mod actions;
mod answers;
mod files;
mod sent;

pub use sent::{Exchange, Log, Sent};

/// When the window of [`Stage::Opens`] opens.
pub const OPENS_AFTER: Duration = Duration::from_secs(12);

/// How the server is set up before the client starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Nothing is assigned.
    Nothing,
    /// A set, forced.
    Forced,
    /// The same, with a file whose name a link has to encode.
    OddName,
    /// The same, with a file whose name makes a link that the server itself refuses.
    BadName,
    /// A set, to be fetched only.
    DownloadOnly,
    /// A set whose window is closed.
    Closed,
    /// A set whose window opens [`OPENS_AFTER`] the beginning.
    Opens,
    /// A set whose window was over before the device came.
    Lapsed,
    /// A set that needs consent.
    Consent,
    /// Two sets that are cancelled already, and another one behind them.
    Superseded,
    /// A set, forced; it is cancelled when its files are being read.
    CancelledLater,
}

/// When a case is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// After this many seconds.
    Seconds(u64),
    /// When the server took a report with this word on this channel, or after minutes.
    Said(&'static str, &'static str),
    /// When this word was sent so often, taken or not, or after minutes.
    Sent(&'static str, usize),
}

/// What a change of an answer may look at.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// Requests before this one.
    pub before: usize,
    /// Requests before this one with its method and path.
    pub same: usize,
    /// Another host, which serves the same files without asking who wants them, and is no business of the client's token.
    pub elsewhere: &'a str,
}

/// Changes an answer.
pub type Mangle = fn(&Request, Response, &Scene<'_>) -> Response;

/// One case.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// What the server does, and what a client must make of it.
    pub what: &'static str,
    /// What is assigned.
    pub stage: Stage,
    /// How the server is started.
    pub setup: fn(&mut Setup),
    /// What is changed.
    pub mangle: Mangle,
    /// When it is over.
    pub until: Until,
    /// The judgement, beside what holds for every case.
    pub judge: fn(&Sent) -> Result<(), String>,
}

/// A set is assigned, nothing is odd, and the client installs it.
const PLAIN: Case = Case {
    name: "",
    what: "",
    stage: Stage::Forced,
    setup: |_| {},
    mangle: |_, answer, _| answer,
    until: Until::Said("deploymentBase", "closed/success"),
    judge: success,
};

/// Every case.
pub fn cases() -> impl Iterator<Item = &'static Case> {
    [answers::CASES, files::CASES, actions::CASES]
        .into_iter()
        .flatten()
}

/// What no client may do, whatever the server does.
///
/// # Errors
/// What it did.
pub fn always(sent: &Sent) -> Result<(), String> {
    if sent.polls() == 0 {
        return Err("it never polled".to_owned());
    }
    for channel in ["deploymentBase", "cancelAction"] {
        // The server takes it for success.
        sent.must_not(channel, "closed/none")?;
    }
    for finished in ["success", "failure", "none"] {
        // Answered so, a cancel is served for ever.
        sent.must_not("cancelAction", &format!("canceled/{finished}"))?;
    }
    for word in ["closed/success", "downloaded/none"] {
        let unread = sent.taken_at(word).map(|at| sent.unread(at));
        if let Some(unread) = unread.filter(|unread| !unread.is_empty()) {
            let story = sent.story();
            return Err(format!("{word} before {unread:?} were read: {story}"));
        }
    }
    // That reopens it.
    if sent.reads_after_the_end() > 0 {
        return Err(format!("details read after the end: {}", sent.story()));
    }
    for report in sent.reports() {
        let lines = report["status"]["details"].as_array();
        let lines = lines.map_or(&[][..], Vec::as_slice);
        let longest = lines.iter().filter_map(Value::as_str).map(str::len).max();
        if lines.len() > 49 || longest.unwrap_or_default() > 512 {
            return Err(format!("a report beyond the quotas: {report}"));
        }
    }
    let told = sent
        .elsewhere
        .iter()
        .filter(|one| one.request.header("authorization").is_some());
    match told.count() {
        0 => Ok(()),
        count => Err(format!("another host was told the token {count} times")),
    }
}

fn success(sent: &Sent) -> Result<(), String> {
    sent.must("deploymentBase", "closed/success")
}

fn is_root(request: &Request) -> bool {
    request.path.split('/').count() == 5
}

fn is_details(request: &Request) -> bool {
    request.path.contains("/deploymentBase/") && request.method == "GET"
}

/// Of the objects, not of the manifest.
fn is_object(request: &Request) -> bool {
    request.path.contains("/artifacts/") && sent::last(request).len() == 64
}

/// Instead of an object, this status.
fn no_object(answer: Response, request: &Request, status: u16) -> Response {
    if is_object(request) {
        plain(status, "")
    } else {
        answer
    }
}

/// An object with another last byte.
fn spoiled(mut answer: Response, request: &Request) -> Response {
    if is_object(request)
        && let Some(byte) = answer.body.last_mut()
    {
        *byte ^= 1;
    }
    answer
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

fn each_file(answer: Response, request: &Request, change: impl Fn(&mut Value)) -> Response {
    if !is_details(request) {
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

fn with_file(answer: Response, request: &Request, name: &str, size: u64) -> Response {
    if !is_details(request) {
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

fn leads_to(address: String) -> Response {
    let mut answer = plain(302, "");
    answer.headers.push(("Location".to_owned(), address));
    answer
}
