//! Start of the daemon on a full storage, until the socket answers, and what the fullness costs in memory.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use acceptance::image::sha256;
use acceptance::manifest::Manifest;
use serde_json::json;

use crate::Options;
use crate::figure::{Figure, time as shown};
use crate::samples::Samples;
use crate::subject::Subject;
use crate::{interrupt, memory};

const REVISIONS: u32 = 1_000;
const OBJECTS: u32 = 10_000;

pub(crate) fn measure(options: &Options) -> Vec<Figure> {
    let settings = [("keep-revisions", "1000")];
    let mut empty = Subject::start(&settings);
    let mut full = Subject::start(&settings);
    for subject in [&mut empty, &mut full] {
        let manifest = subject.sleeper(Manifest::new(), "one", json!({}));
        subject.install("locals/running", &manifest);
    }
    fill(&full);
    let (mut empty_times, mut full_times) = <(Samples, Samples)>::default();
    let (mut empty_bytes, mut full_bytes) = <(Samples, Samples)>::default();
    for _ in 0..options.repeat {
        for (subject, times, bytes) in [
            (&mut empty, &mut empty_times, &mut empty_bytes),
            (&mut full, &mut full_times, &mut full_bytes),
        ] {
            interrupt::check();
            times.push_time(restart(subject));
            std::thread::sleep(Duration::from_secs(2));
            let pid = subject.device.pid().expect("coxswain runs");
            let kib = u32::try_from(memory::anonymous(pid) / 1024).unwrap_or(u32::MAX);
            bytes.push(f64::from(kib) * 1024.0);
        }
    }
    let each = (full_bytes.median() - empty_bytes.median()) / f64::from(REVISIONS + OBJECTS);
    vec![
        Figure {
            what: format!(
                "start with {REVISIONS} revisions and {OBJECTS} objects, until the socket answers"
            ),
            ours: shown(full_times.median()),
            peer: format!("with one of each {}", shown(empty_times.median())),
            ratio: None,
            to_reach: "<= 300 ms".to_owned(),
            verdict: (full_times.median() <= 0.3).into(),
        },
        Figure {
            what: "memory for each revision or object".to_owned(),
            ours: format!("{each:.0} B"),
            peer: "limit".to_owned(),
            ratio: None,
            to_reach: "<= 100 B".to_owned(),
            verdict: (each <= 100.0).into(),
        },
    ]
}

/// Revisions through the socket; objects as files, for ten thousand uploads would take minutes.
fn fill(subject: &Subject) {
    let objects = subject.device.storage().join("objects");
    let each = OBJECTS / REVISIONS;
    for n in 0..REVISIONS {
        interrupt::check();
        let mut manifest = subject.sleeper(Manifest::new(), "one", json!({}));
        for m in 0..each {
            let bytes = format!("object {m} of revision {n}").into_bytes();
            let name = sha256(&bytes);
            let path = objects.join(&name);
            fs::write(&path, &bytes)
                .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o444)))
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            manifest = manifest.key(&format!("_config/one/etc/{m}"), json!(name));
        }
        subject
            .device
            .put_revision(&format!("locals/r{n}"), &manifest);
    }
}

/// Stops the orchestrator, not the containers; starts it and waits for its first answer.
fn restart(subject: &mut Subject) -> Duration {
    let device = &mut subject.device;
    device.signal(rustix::process::Signal::TERM);
    device.wait_for_end(Duration::from_secs(30));
    let start = Instant::now();
    device.spawn();
    let end = start + Duration::from_secs(60);
    while !device.socket.get("/version").is_ok_and(|a| a.status == 200) {
        assert!(Instant::now() < end, "no answer: {}", device.log_end());
        std::thread::sleep(Duration::from_millis(1));
    }
    start.elapsed()
}
