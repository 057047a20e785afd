//! What a client sent during a case, and what the server and the client each took for the answer.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use crate::hawkbit::Request;

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
}

fn is_report(one: &Exchange) -> bool {
    one.request.path.ends_with("/feedback") && one.request.method == "POST"
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
    pub fn new(log: &Log, elsewhere: &Log) -> Self {
        Self {
            all: log.all(),
            elsewhere: elsewhere.all(),
        }
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
        let closed = |one: &Exchange| is_report(one) && word(&json(one)).starts_with("closed/");
        let Some(place) = self.all.iter().position(|one| closed(one) && one.own < 300) else {
            return 0;
        };
        let path = self.all[place].request.path.trim_end_matches("/feedback");
        let later = self.all.iter().skip(place + 1);
        later
            .filter(|one| one.request.method == "GET" && one.request.path == path)
            .count()
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
