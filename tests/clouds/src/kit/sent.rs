//! What a client sent during a case, and what the server and the client each took for the answer.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use crate::hawkbit::{Request, decode};

/// One exchange.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// When, in milliseconds since the case began.
    pub at_ms: u128,
    /// What the client sent.
    pub request: Request,
    /// Status of the server's own answer: whether it took a report.
    pub own: u16,
    /// Status that the client saw.
    pub status: u16,
    /// Length of the body that the client saw.
    pub bytes: usize,
}

/// Everything that a client sends during a case.
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
    /// To the server.
    pub all: Vec<Exchange>,
    /// To the other host.
    pub elsewhere: Vec<Exchange>,
    /// Name and length of each file of the newest set: what is to be installed.
    pub files: Vec<(String, usize)>,
}

fn is_report(one: &Exchange) -> bool {
    one.request.path.ends_with("/feedback") && one.request.method == "POST"
}

/// The last part of the path.
pub(super) fn last(request: &Request) -> &str {
    request.path.rsplit('/').next().unwrap_or_default()
}

fn json(one: &Exchange) -> Value {
    serde_json::from_slice(&one.request.body).unwrap_or_default()
}

fn word(body: &Value) -> String {
    let execution = body["status"]["execution"].as_str().unwrap_or("?");
    let finished = body["status"]["result"]["finished"].as_str().unwrap_or("?");
    format!("{execution}/{finished}")
}

impl Sent {
    /// Of these logs.
    pub fn new(log: &Log, elsewhere: &Log, files: Vec<(String, usize)>) -> Self {
        Self {
            all: log.all(),
            elsewhere: elsewhere.all(),
            files,
        }
    }

    /// The files that were not read to the end by this time. What is read twice counts twice: no client can get by with less.
    pub(super) fn unread(&self, by_ms: u128) -> Vec<&str> {
        let read = |name: &str| -> usize {
            let all = self.all.iter().chain(&self.elsewhere);
            all.filter(|one| one.at_ms <= by_ms && one.request.method == "GET")
                .filter(|one| one.status < 300 && decode(last(&one.request)) == name)
                .map(|one| one.bytes)
                .sum()
        };
        let left = self.files.iter().filter(|(name, size)| read(name) < *size);
        left.map(|(name, _)| name.as_str()).collect()
    }

    /// When the server first took this word on the deployment's channel.
    pub(super) fn taken_at(&self, wanted: &str) -> Option<u128> {
        let mut all = self.all.iter().filter(|one| {
            is_report(one) && one.own < 300 && one.request.path.contains("/deploymentBase/")
        });
        all.find(|one| word(&json(one)) == wanted)
            .map(|one| one.at_ms)
    }

    /// Actions whose cancel was answered with `closed`.
    pub(super) fn cancelled(&self) -> BTreeSet<&str> {
        let answers = self.all.iter().filter(|one| {
            is_report(one) && one.status < 300 && word(&json(one)) == "closed/success"
        });
        answers
            .filter_map(|one| one.request.path.split_once("/cancelAction/"))
            .filter_map(|(_, rest)| rest.strip_suffix("/feedback"))
            .collect()
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

    /// Bodies of all reports, taken or not.
    pub fn reports(&self) -> Vec<Value> {
        self.all
            .iter()
            .filter(|one| is_report(one))
            .map(json)
            .collect()
    }

    /// Reports that the server took on a channel, as `execution/finished`.
    pub fn words(&self, channel: &str) -> Vec<String> {
        let mark = format!("/{channel}/");
        let taken = self
            .all
            .iter()
            .filter(|one| is_report(one) && one.request.path.contains(&mark) && one.own < 300);
        taken.map(|one| word(&json(one))).collect()
    }

    /// How often a word was sent on any channel, taken or not.
    pub fn sent_words(&self, wanted: &str) -> usize {
        let reports = self.reports();
        reports.iter().filter(|body| word(body) == wanted).count()
    }

    /// Reads of an action's details after it was closed.
    pub fn reads_after_the_end(&self) -> usize {
        let closed = |one: &Exchange| {
            let is_deployment = one.request.path.contains("/deploymentBase/");
            is_deployment && is_report(one) && word(&json(one)).starts_with("closed/")
        };
        let Some(place) = self.all.iter().position(|one| closed(one) && one.own < 300) else {
            return 0;
        };
        let path = self.all[place].request.path.trim_end_matches("/feedback");
        let later = self.all.iter().skip(place + 1);
        later
            .filter(|one| one.request.method == "GET" && one.request.path == path)
            .count()
    }

    /// Reports that the server refused because of a quota.
    pub(super) fn refused(&self) -> usize {
        let refused = |one: &&Exchange| is_report(one) && matches!(one.own, 403 | 429);
        self.all.iter().filter(refused).count()
    }

    /// Whether a word was taken on a channel.
    pub fn has(&self, channel: &str, word: &str) -> bool {
        self.words(channel).iter().any(|found| found == word)
    }

    pub(super) fn must(&self, channel: &str, word: &str) -> Result<(), String> {
        if self.has(channel, word) {
            return Ok(());
        }
        Err(format!("no {word} on {channel}: {}", self.story()))
    }

    pub(super) fn must_not(&self, channel: &str, word: &str) -> Result<(), String> {
        if !self.has(channel, word) {
            return Ok(());
        }
        Err(format!("{word} on {channel}: {}", self.story()))
    }

    /// All that was asked and said, with times, for who has to find out why.
    pub(super) fn story(&self) -> String {
        let mut text = String::new();
        for (place, all) in [("", &self.all), ("elsewhere ", &self.elsewhere)] {
            for one in all {
                let body = String::from_utf8_lossy(&one.request.body);
                text.push_str(&format!(
                    "\n    {:>6} ms {place}{} {} {} {}",
                    one.at_ms,
                    one.request.method,
                    one.request.path,
                    one.status,
                    body.chars().take(600).collect::<String>()
                ));
            }
        }
        text
    }
}
