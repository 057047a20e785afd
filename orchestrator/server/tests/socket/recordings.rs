//! Exchanges recorded from a real Pantavisor (029-32-g303584a7), replayed against the server.
//!
//! Status, header names and values (not `Date`), their order, and bodies must be the same. What differs on purpose stands with its
//! reason in `recordings/differences.md`; what stands there and does not differ any more fails too.

use std::collections::BTreeMap;
use std::time::Duration;

use model::ObjectId;
use serde_json::Value;
use server::Caller;

use crate::device::Bench;
use crate::wire::{Got, Line};

const DIFFERENCES: &str = include_str!("../recordings/differences.md");

/// Headers that ours has and Pantavisor has not.
const ADDED: [&str; 3] = ["Coxswain-Problem", "ETag", "Accept-Ranges"];

fn differences(file: &str) -> BTreeMap<String, String> {
    let rows = DIFFERENCES.lines().filter_map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        match cells[..] {
            [of, step, reason] if of == file => Some((step.to_owned(), reason.to_owned())),
            _ => None,
        }
    });
    rows.collect()
}

fn caller(text: &str) -> Caller {
    match text.strip_prefix("container ") {
        Some("stranger") => Caller::Unknown,
        Some(name) => Caller::Container(name.parse().unwrap()),
        None if text.starts_with("host") => Caller::Host { uid: 0 },
        None => Caller::Unknown,
    }
}

/// The bytes that were sent. Long ones are kept as their hash, and built anew from their parts; `None` for an image, whose bytes are
/// not in the repository.
fn raw(request: &Value) -> Option<Vec<u8>> {
    if let Some(text) = request["raw"].as_str() {
        return Some(match request["raw_encoding"].as_str() {
            Some("latin-1") => text
                .chars()
                .map(|char| u8::try_from(u32::from(char)).unwrap())
                .collect(),
            _ => text.as_bytes().to_vec(),
        });
    }
    let word = |name: &str| request[name].as_str().unwrap().to_owned();
    let mut bytes = format!("{} {} HTTP/1.1\r\n", word("method"), word("path"));
    for pair in request["headers"].as_array().unwrap() {
        let value = repeated(&pair[1], "all");
        bytes.push_str(&format!("{}: {value}\r\n", pair[0].as_str().unwrap()));
    }
    bytes.push_str("\r\n");
    bytes.push_str(&repeated(&request["body"], "head_latin1"));
    let digest = ObjectId::of(bytes.as_bytes()).to_string();
    (request["raw"]["sha256"] == digest.as_str()).then(|| bytes.into_bytes())
}

/// A text, or one that repeats its start.
fn repeated(value: &Value, start: &str) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None => {
            let length = usize::try_from(value["len"].as_u64().unwrap()).unwrap();
            let start = value[start].as_str().unwrap();
            start.chars().cycle().take(length).collect()
        }
    }
}

fn send(line: &mut Line, request: &Value, bytes: &[u8]) {
    if request["body_sent_after_first_response"] == true {
        let head = bytes
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .unwrap()
            + 4;
        line.send(&bytes[..head]);
        return;
    }
    match request["sent_in_parts"].as_array() {
        None => line.send(bytes),
        Some(parts) => {
            let mut from = 0;
            for part in parts {
                let length = usize::try_from(part[0].as_u64().unwrap()).unwrap();
                line.send(&bytes[from..from + length]);
                from += length;
                let pause = part[1].as_f64().unwrap_or_default().min(0.05);
                std::thread::sleep(Duration::from_secs_f64(pause));
            }
        }
    }
    if request["half_close"] == true {
        line.half_close();
    }
}

/// A date differs from one run to the next.
fn without_dates(text: &str) -> String {
    let mut parts = text.split("\"date\":\"");
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        whole.push_str("\"date\":\"…");
        whole.push_str(part.get(20..).unwrap_or_default());
    }
    whole
}

fn shown(status_line: &str, headers: &[(String, String)], body: &str) -> String {
    let mut text = format!("{status_line}\n");
    for (name, value) in headers {
        let value = if name == "Date" { "…" } else { value };
        if !ADDED.contains(&name.as_str()) {
            text.push_str(&format!("{name}: {value}\n"));
        }
    }
    text + &without_dates(body)
}

fn recorded(response: &Value, head_only: bool) -> String {
    let headers: Vec<(String, String)> = response["headers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pair| {
            (
                pair[0].as_str().unwrap().to_owned(),
                pair[1].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    let body = match (
        response["body"].as_str(),
        response["body"]["sha256"].as_str(),
    ) {
        (Some(_), _) if head_only => String::new(),
        (Some(text), _) => text.to_owned(),
        (None, digest) => digest.unwrap_or_default().to_owned(),
    };
    shown(response["status_line"].as_str().unwrap(), &headers, &body)
}

fn ours(got: &Got, response: &Value) -> String {
    let body = if response["body"].is_object() {
        ObjectId::of(&got.body).to_string()
    } else {
        String::from_utf8_lossy(&got.body).into_owned()
    };
    shown(&got.status_line, &got.headers, &body)
}

/// What differs in one exchange; `None` when nothing does.
fn replay(bench: &Bench, exchange: &Value, bytes: &[u8]) -> Option<String> {
    bench.call_as(caller(exchange["caller"].as_str().unwrap()));
    let request = &exchange["request"];
    let mut line = Line::open(&bench.socket);
    send(&mut line, request, bytes);
    let head_only = bytes.starts_with(b"HEAD");
    let first = &exchange["response"];
    if first["none"] == true {
        let quiet = line.is_silent(Duration::from_millis(100)) || line.is_closed();
        return (!quiet).then(|| "something was answered".to_owned());
    }
    let more = exchange["more_responses"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    // Second answers to one request are a defect of Pantavisor that nobody can rely on (section 1.3 of its reference).
    let more = more
        .iter()
        .filter(|response| response["unexpected"] != true);
    let mut closed = false;
    for response in std::iter::once(first).chain(more) {
        let expected = recorded(response, head_only);
        let answer = line.answer(head_only);
        if request["body_sent_after_first_response"] == true
            && answer.as_ref().is_some_and(|got| got.status() == 100)
        {
            let head = bytes
                .windows(4)
                .position(|four| four == b"\r\n\r\n")
                .unwrap()
                + 4;
            line.send(&bytes[head..]);
        }
        let Some(got) = answer else {
            return Some(format!("expected:\n{expected}\ngot: nothing"));
        };
        let found = ours(&got, response);
        if found != expected {
            return Some(format!("expected:\n{expected}\ngot:\n{found}"));
        }
        closed |= response["closed"] == true;
    }
    // A close may take a moment on a busy machine; that a connection stays open is only looked at for a moment.
    let same = if closed {
        line.is_closed()
    } else {
        line.is_silent(Duration::from_millis(20))
    };
    (!same).then(|| format!("closed by Pantavisor: {closed}, by us: {}", !closed))
}

fn replay_file(file: &str, text: &str) {
    let bench = Bench::start();
    let meant = differences(file);
    let mut wrong = Vec::new();
    let mut replayed = 0;
    for line in text.lines() {
        let exchange: Value = serde_json::from_str(line).unwrap();
        // Transcripts have lines between the exchanges that tell what was seen meanwhile.
        let Some(step) = exchange["step"].as_str() else {
            continue;
        };
        replayed += 1;
        // Between two lines another revision was run.
        if step == "mgmt container with one optional and one manual driver: list" {
            bench.run_with_drivers();
        }
        let difference = match raw(&exchange["request"]) {
            Some(bytes) => replay(&bench, &exchange, &bytes),
            None => Some("cannot be sent again: its bytes are not known".to_owned()),
        };
        match (difference, meant.get(step)) {
            (None, None) | (Some(_), Some(_)) => {}
            (Some(difference), None) => wrong.push(format!("== {step}\n{difference}")),
            (None, Some(reason)) => wrong.push(format!("== {step} no longer differs ({reason})")),
        }
    }
    assert!(replayed > 0, "{file}: nothing was replayed");
    for step in meant.keys() {
        assert!(
            text.contains(&format!("{{\"step\": {}", Value::from(step.as_str())))
                || text.contains(&format!("{{\"step\":{}", Value::from(step.as_str()))),
            "{file}: there is no step {step:?}"
        );
    }
    assert!(
        wrong.is_empty(),
        "{file}: {} of {replayed} differ\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

macro_rules! recordings {
    ($($test:ident $file:literal),*) => {
        const REPLAYED: &[&str] = &[$($file),*];
        $(
        #[test]
        fn $test() {
            replay_file($file, include_str!(concat!("../recordings/", $file, ".jsonl")));
        }
    )*};
}

recordings! {
    http_basics "http-basics",
    http_more "http-more",
    roles "roles",
    containers "containers",
    signal "signal",
    steps "steps",
    objects "objects",
    commands "commands",
    user_meta "user-meta",
    device_meta "device-meta",
    info "info",
    daemons "daemons",
    drivers "drivers",
    storage_gc "storage-gc",
    commands_remote_mode "commands-remote-mode",
    lifecycle_commit "lifecycle-commit",
    lifecycle_commit_missing "lifecycle-commit-missing",
    lifecycle_fail_bad_init "lifecycle-fail-bad-init",
    lifecycle_fail_goal "lifecycle-fail-goal",
    lifecycle_fail_system_exit "lifecycle-fail-system-exit",
    lifecycle_good_no_reboot "lifecycle-good-no-reboot",
    lifecycle_good_reboot "lifecycle-good-reboot",
    lifecycle_missing_object "lifecycle-missing-object",
    lifecycle_reboot_poweroff "lifecycle-reboot-poweroff",
    lifecycle_wontgo "lifecycle-wontgo"
}

/// A recording that is in the folder and not replayed proves nothing.
#[test]
fn every_recording_is_replayed() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recordings");
    let files = std::fs::read_dir(folder).unwrap();
    for file in files.map(|file| file.unwrap().file_name().into_string().unwrap()) {
        if let Some(name) = file.strip_suffix(".jsonl") {
            assert!(REPLAYED.contains(&name), "{name} is not replayed");
        }
    }
}
