//! The recordings as values.

use std::path::Path;

use serde_json::Value;

/// One file: a scenario.
#[derive(Debug)]
pub(crate) struct Recording {
    pub(crate) name: String,
    /// Which of the three servers it ran on.
    pub(crate) server: &'static str,
    /// When it began, in milliseconds since 1970.
    pub(crate) began: i64,
    pub(crate) exchanges: Vec<Exchange>,
}

#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) step: String,
    /// Milliseconds since the beginning.
    pub(crate) at: i64,
    pub(crate) method: String,
    /// Path and query as sent.
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Option<Value>,
    pub(crate) status: u16,
    pub(crate) answer_headers: Vec<(String, String)>,
    pub(crate) answer: Option<Value>,
}

fn headers(value: &Value) -> Vec<(String, String)> {
    let members = value.as_object().expect("headers are an object");
    let pairs = members
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().expect("text").to_owned()));
    pairs.collect()
}

fn server_of(name: &str) -> &'static str {
    let q = [
        "polling-time-long",
        "forwarded-links",
        "gzip-and-etag",
        "multi-assignment",
    ];
    if name == "rate-limit" {
        "R"
    } else if name.starts_with("quota-") || q.contains(&name) {
        "Q"
    } else {
        "A"
    }
}

/// Every file of a folder, in the order in which they were made.
pub(crate) fn read_all(folder: &Path) -> Vec<Recording> {
    let mut files: Vec<Recording> = std::fs::read_dir(folder)
        .expect("the recordings are there")
        .map(|entry| read(&entry.expect("a readable folder").path()))
        .collect();
    files.sort_by_key(|file| file.began);
    files
}

fn read(path: &Path) -> Recording {
    let text = std::fs::read_to_string(path).expect("a readable recording");
    let name = path
        .file_stem()
        .expect("it has a name")
        .to_string_lossy()
        .into_owned();
    let mut began: Option<i64> = None;
    let mut exchanges = Vec::new();
    for line in text.lines() {
        let value: Value = serde_json::from_str(line).expect("one JSON object a line");
        #[expect(clippy::cast_possible_truncation, reason = "seconds of a scenario")]
        let at = (value["t"].as_f64().expect("a time") * 1000.0) as i64;
        let (request, response) = (&value["request"], &value["response"]);
        let created = response
            .pointer("/body/0/createdAt")
            .or(response.pointer("/body/createdAt"))
            .and_then(Value::as_i64)
            .filter(|_| request["method"] == "POST");
        // The request was sent a little before the record was made: the smallest difference is the nearest.
        if let Some(created) = created {
            began = Some(began.unwrap_or(i64::MAX).min(created - at));
        }
        exchanges.push(Exchange {
            step: value["step"].as_str().expect("a step").to_owned(),
            at,
            method: request["method"].as_str().expect("a method").to_owned(),
            target: request["path"].as_str().expect("a path").to_owned(),
            headers: headers(&request["headers"]),
            body: request.get("body").cloned(),
            status: u16::try_from(response["status"].as_u64().expect("a status")).expect("small"),
            answer_headers: headers(&response["headers"]),
            answer: response.get("body").cloned(),
        });
    }
    // The first requests to a cold server took longer than what they were answered with tells.
    let cold = if name == "first-poll" { 1600 } else { 0 };
    Recording {
        server: server_of(&name),
        // What creates nothing is told by its neighbours: the last of its server.
        began: began.unwrap_or(1_795_253_873_350) - cold,
        name,
        exchanges,
    }
}
