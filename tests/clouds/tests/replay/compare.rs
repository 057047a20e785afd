//! When two answers are the same. Not compared: times beyond their plausibility (and when a poll was last written down, which the
//! real server does every ten seconds), ids of status rows, the header `Vary`. Compared up to a one-to-one renaming: change
//! markers (`c=`), ETags of JSON, dates of files, tokens. Compared without order: messages of one row, chunks, artifacts.

use std::collections::BTreeMap;

use clouds::hawkbit::Response;
use serde_json::Value;

use crate::recording::Exchange;

/// A one-to-one relation between recorded texts and ours.
#[derive(Debug, Default)]
pub(crate) struct Renaming {
    ours: BTreeMap<String, String>,
    theirs: BTreeMap<String, String>,
}

impl Renaming {
    /// Whether the two may stand for each other, from now on.
    pub(crate) fn join(&mut self, theirs: &str, ours: &str) -> bool {
        let a = self
            .ours
            .entry(theirs.to_owned())
            .or_insert_with(|| ours.to_owned())
            == ours;
        let b = self
            .theirs
            .entry(ours.to_owned())
            .or_insert_with(|| theirs.to_owned())
            == theirs;
        a && b
    }

    /// Ours for a recorded one.
    pub(crate) fn ours(&self, theirs: &str) -> Option<&str> {
        self.ours.get(theirs).map(String::as_str)
    }
}

/// What was learnt so far.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) markers: Renaming,
    pub(crate) tags: Renaming,
    pub(crate) dates: BTreeMap<String, String>,
}

const HEADERS: &[&str] = &[
    "Content-Type",
    "Content-Range",
    "Accept-Ranges",
    "Content-Disposition",
    "Allow",
    "WWW-Authenticate",
    "Location",
    "Retry-After",
];

/// What differs, in words.
pub(crate) fn differences(known: &mut Known, exchange: &Exchange, ours: &Response) -> Vec<String> {
    let mut found = Vec::new();
    if exchange.status != ours.status {
        let text = String::from_utf8_lossy(&ours.body).into_owned();
        let text: String = text.chars().take(300).collect();
        return vec![format!(
            "status {} instead of {} {text}",
            ours.status, exchange.status
        )];
    }
    let theirs = |name: &str| {
        let mut headers = exchange.answer_headers.iter();
        headers
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    };
    for name in HEADERS {
        let ours = ours.header(name);
        if theirs(name) != ours {
            found.push(format!("{name}: {ours:?} instead of {:?}", theirs(name)));
        }
    }
    let is_json = theirs("content-type").is_some_and(|kind| kind.contains("json"))
        || theirs("content-type")
            .is_some_and(|kind| kind.contains("html") || kind.contains("cbor"));
    if let (Some(length), false) = (theirs("content-length"), is_json) {
        let own = match ours.header("content-length") {
            Some(own) => own.to_owned(),
            None => ours.body.len().to_string(),
        };
        if own != length {
            found.push(format!("Content-Length: {own} instead of {length}"));
        }
    }
    // The operator's view of a target has the time of a poll in it, which is written down late.
    let own_tag =
        !exchange.target.starts_with("/rest/v1/targets/") || exchange.target.contains("/actions");
    if own_tag || theirs("etag").is_none() || ours.header("etag").is_none() {
        compare_tags(
            known,
            theirs("etag"),
            theirs("last-modified"),
            ours,
            &mut found,
        );
    }
    compare_bodies(known, exchange, ours, &mut found);
    found
}

fn compare_tags(
    known: &mut Known,
    tag: Option<&str>,
    date: Option<&str>,
    ours: &Response,
    found: &mut Vec<String>,
) {
    match (tag, ours.header("etag")) {
        (None, None) => {}
        (Some(theirs), Some(own)) if ours.header("accept-ranges").is_some() => {
            if theirs != own {
                found.push(format!("ETag: {own} instead of {theirs}"));
            }
        }
        (Some(theirs), Some(own)) => {
            if !known.tags.join(theirs, own) {
                found.push(format!("ETag: {own} does not change as {theirs} does"));
            }
        }
        (theirs, own) => found.push(format!("ETag: {own:?} instead of {theirs:?}")),
    }
    match (date, ours.header("last-modified")) {
        (None, None) => {}
        (Some(theirs), Some(own)) => {
            known.dates.insert(theirs.to_owned(), own.to_owned());
        }
        (theirs, own) => found.push(format!("Last-Modified: {own:?} instead of {theirs:?}")),
    }
}

fn compare_bodies(
    known: &mut Known,
    exchange: &Exchange,
    ours: &Response,
    found: &mut Vec<String>,
) {
    let Some(theirs) = &exchange.answer else {
        if !ours.body.is_empty() {
            let text = String::from_utf8_lossy(&ours.body).into_owned();
            found.push(format!("a body where there is none: {text}"));
        }
        return;
    };
    if let Some(decoded) = theirs.get("decoded") {
        match clouds::hawkbit::read_cbor(&ours.body) {
            Some(own) => compare(known, "", decoded, &own, found),
            None => found.push("no CBOR".to_owned()),
        }
        return;
    }
    if theirs.get("hex").is_some() {
        compare_bytes(theirs, &ours.body, found);
        return;
    }
    let text = String::from_utf8_lossy(&ours.body).into_owned();
    match (theirs, serde_json::from_str::<Value>(&text)) {
        // Pages in HTML are compared by their type alone.
        (Value::String(page), _) if page.contains("<html") => {}
        (Value::String(plain), _) => {
            if *plain != text {
                found.push(format!("{text:?} instead of {plain:?}"));
            }
        }
        (_, Ok(own)) => compare(known, "", theirs, &own, found),
        (_, Err(_)) => found.push(format!("no JSON: {text}")),
    }
}

fn compare_bytes(theirs: &Value, own: &[u8], found: &mut Vec<String>) {
    let length = theirs["length"].as_u64().unwrap_or_default();
    if length != own.len() as u64 {
        found.push(format!("{} bytes instead of {length}", own.len()));
    }
    if let Some(sha256) = theirs["sha256"].as_str() {
        let own = crate::player::sha256(own);
        if own != sha256 {
            found.push(format!("bytes with the hash {own} instead of {sha256}"));
        }
    }
}

const POLL_TIMES: &[&str] = &["lastControllerRequestAt", "pollStatus"];

fn compare(known: &mut Known, at: &str, theirs: &Value, own: &Value, found: &mut Vec<String>) {
    let key = at.rsplit('/').next().unwrap_or_default();
    match (theirs, own) {
        (Value::Object(a), Value::Object(b)) => {
            for (name, value) in a {
                let at = format!("{at}/{name}");
                match b.get(name) {
                    Some(own) if POLL_TIMES.contains(&name.as_str()) => {
                        let _ = (value, own);
                    }
                    Some(own) => compare(known, &at, value, own, found),
                    None => found.push(format!("{at} is missing: {value}")),
                }
            }
            for (name, own) in b {
                if !a.contains_key(name) {
                    found.push(format!("{at}/{name} is too much: {own}"));
                }
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            let order = |list: &[Value]| {
                let mut list = list.to_vec();
                match key {
                    "messages" => list.sort_by_key(Value::to_string),
                    "links" => list.sort_by_key(|link| link["rel"].to_string()),
                    "chunks" => list.sort_by_key(|c| format!("{}{}", c["part"], c["name"])),
                    "artifacts" => list.sort_by_key(|c| c["filename"].to_string()),
                    _ => {}
                }
                list
            };
            let (a, b) = (order(a), order(b));
            if a.len() != b.len() {
                found.push(format!(
                    "{at} has {} items instead of {}: {b:?}",
                    b.len(),
                    a.len()
                ));
            }
            if at.starts_with("/actionHistory") {
                // Which lines of one report survive a small number is chance.
                return;
            }
            for (index, (a, b)) in a.iter().zip(&b).enumerate() {
                compare(known, &format!("{at}/{index}"), a, b, found);
            }
        }
        (Value::Number(a), Value::Number(b)) => {
            let is_time = |number: &serde_json::Number| {
                number
                    .as_i64()
                    .filter(|time| (1_700_000_000_000..1_900_000_000_000).contains(time))
            };
            let same = match (is_time(a), is_time(b)) {
                (Some(a), Some(b)) => {
                    key != "nextStartAt" && key != "forceTime" && (a - b).abs() < 60_000 || a == b
                }
                _ if key == "id" && at.starts_with("/content/") && !at.contains("_links") => true,
                _ => a.as_f64() == b.as_f64(),
            };
            if !same {
                found.push(format!("{at}: {b} instead of {a}"));
            }
        }
        (Value::String(a), Value::String(b)) => compare_texts(known, at, key, a, b, found),
        (a, b) if a == b => {}
        (a, b) => found.push(format!("{at}: {b} instead of {a}")),
    }
}

fn compare_texts(
    known: &mut Known,
    at: &str,
    key: &str,
    theirs: &str,
    own: &str,
    found: &mut Vec<String>,
) {
    if key == "securityToken" || key == "timestamp" {
        return;
    }
    let own = own.replace("https://device-proxy.example:PORT", "https://HOST");
    if let (Some((a, marker_a)), Some((b, marker_b))) =
        (theirs.split_once("?c="), own.split_once("?c="))
    {
        if a != b || !known.markers.join(theirs, &own) {
            found.push(format!(
                "{at}: {b}?c={marker_b} does not change as {a}?c={marker_a} does"
            ));
        }
        return;
    }
    // The number of a target in the database is nowhere else to be seen.
    let plain = |text: &str| match text.starts_with("Quota exceeded") {
        true => text
            .split('\'')
            .enumerate()
            .filter(|(i, _)| *i != 1)
            .map(|(_, t)| t)
            .collect(),
        false => text.to_owned(),
    };
    if plain(theirs) != plain(&own) {
        found.push(format!("{at}: {own:?} instead of {theirs:?}"));
    }
}
