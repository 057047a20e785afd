//! A client that is killed again and again, wherever it happens to be and at every single point; and an orchestrator that is, at every
//! phase: the deployment ends right, once, and is told once.

use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use acceptance::device::Device;
use acceptance::image::{busybox, sha256};
use acceptance::manifest::Manifest;
use acceptance::needs_containers;
use serde_json::json;

use crate::cloud::{Place, last_word, reports};
use crate::dying::POINT;
use crate::server::Server;
use crate::stage::Stage;

#[test]
fn killed_wherever_it_is() {
    needs_containers!();
    let device = Device::start();
    let image = busybox(&[("etc/version", "link")]);
    let server = Server::start(100_000, 4_000_000);
    let home = tempfile::tempdir().expect("a temporary folder");
    let place = Place {
        folder: home.path().to_owned(),
        socket: device.run_dir().join("control.sock"),
    };
    for (round, sick) in [("1", false), ("2", true)] {
        // The record stays from round to round; what was told begins anew.
        std::fs::remove_file(home.path().join("reports")).ok();
        let command = if sick {
            "exit 7"
        } else {
            "while :; do sleep 1; done"
        };
        let run = json!({"status_goal": "READY", "env": [format!("ROUND={round}")]});
        let run = if sick {
            run
        } else {
            json!({"env": [format!("ROUND={round}")]})
        };
        let text = Manifest::new()
            .container("web", &image, &["/bin/busybox", "sh", "-c", command], run)
            .text();
        let files = [
            (
                "manifest.json".to_owned(),
                server.bytes(&format!("m{round}"), text.clone().into_bytes()),
                text.len() as u64,
                sha256(text.as_bytes()),
            ),
            (
                "root.squashfs".to_owned(),
                server.bytes("root", image.bytes.clone()),
                image.bytes.len() as u64,
                image.sha256.clone(),
            ),
        ];
        place.offer(round, &files);
        let end = Instant::now() + Duration::from_secs(180);
        let mut lives: u64 = 0;
        while last_word(home.path()).is_none() {
            assert!(
                Instant::now() < end,
                "no end: {:?}\n{}",
                reports(home.path()),
                device.log_end()
            );
            let mut child = place.start(&[]);
            // Lives of all lengths up to two seconds and a bit.
            std::thread::sleep(Duration::from_millis(150 + lives * 337 % 2100));
            child.kill().expect("our own child");
            child.wait().expect("our own child");
            lives += 1;
        }
        let last = last_word(home.path()).expect("just seen");
        let text = last["text"].as_str().unwrap_or_default();
        println!("round {round}: {lives} lives, {text}");
        if sick {
            assert_eq!(last["report"]["news"]["kind"], "failed", "{last}");
            let trouble = &last["report"]["news"]["trouble"];
            let summary = trouble["summary"].to_string();
            assert!(trouble["failure"].is_u64(), "{trouble}");
            assert!(
                summary.contains("web: it ended with exit code 7"),
                "{trouble}"
            );
        } else {
            assert_eq!(last["report"]["news"]["kind"], "done", "{last}");
        }
        let told = reports(home.path());
        let last_words: Vec<_> = told
            .iter()
            .filter(|report| report["final"] == true)
            .collect();
        assert!(
            last_words
                .iter()
                .all(|report| report["number"] == last["number"]),
            "{last_words:?}"
        );
        // Whatever was told twice is the same report.
        for report in &told {
            let same = told
                .iter()
                .filter(|other| other["number"] == report["number"]);
            assert!(
                report["number"] == 0 || same.clone().all(|other| other == report),
                "{told:?}"
            );
        }
        let steps = device.socket.get("/steps").expect("an answer").json();
        let of_files = steps.as_array().expect("a list").iter();
        let of_files: Vec<_> = of_files
            .filter(|step| {
                step["name"]
                    .as_str()
                    .is_some_and(|name| name.contains("files-"))
            })
            .collect();
        let rounds = if sick { 2 } else { 1 };
        assert_eq!(of_files.len(), rounds, "one revision a deployment: {steps}");
    }
    let running = device.running().expect("something runs");
    assert!(
        running.contains("files-"),
        "the good one runs again: {running}"
    );
}

/// What a client asks of cloud and device in a deployment, in its order; `during:append` lies in the middle of the object, a word behind
/// `progress` is what the device had reached.
const ASKED: [&str; 23] = [
    "before:poll",
    "after:poll",
    "before:status",
    "after:status",
    "before:plan",
    "after:plan",
    "before:progress",
    "after:progress",
    "before:put-manifest",
    "after:put-manifest",
    "before:put-message",
    "after:put-message",
    "before:find",
    "after:find",
    "before:append",
    "during:append",
    "after:append",
    "before:manifest",
    "after:manifest",
    "before:run",
    "after:run",
    "after:progress:TESTING",
    "after:progress:DONE",
];
/// What it tells, which goes on beside the work.
const TOLD: [&str; 10] = [
    "before:report:accepted",
    "after:report:accepted",
    "before:report:downloaded",
    "after:report:downloaded",
    "before:report:installing",
    "after:report:installing",
    "before:report:observing",
    "after:report:observing",
    "before:report:done",
    "after:report:done",
];
/// What follows a rollback.
const FAILED: [&str; 9] = [
    "after:progress:ERROR",
    "before:failures",
    "after:failures",
    "before:failure",
    "after:failure",
    "before:why",
    "after:why",
    "before:report:failed",
    "after:report:failed",
];

/// One life after the other, each killed (SIGKILL) at its point; then one that may live. The last word.
fn lives(stage: &Stage, id: &str, points: &[&str]) -> serde_json::Value {
    for name in points {
        let mut client = stage.start(&[], &[(POINT, name)]);
        let end = Instant::now() + Duration::from_secs(60);
        let status = loop {
            if let Some(status) = client.0.try_wait().expect("our own child") {
                break status;
            }
            assert!(
                Instant::now() < end,
                "{name} did not come\n{}",
                stage.place.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(status.signal(), Some(9), "{name}\n{}", stage.place.log());
    }
    let client = stage.start(&[], &[]);
    stage.until("it is over", || stage.is_over(id));
    drop(client);
    let last = stage.last_words(id);
    for told in stage.server.told(id) {
        let of_it = stage.server.told(id);
        let mut same = of_it.iter().filter(|one| one["number"] == told["number"]);
        // A download's progress has number 0 and is told as it is.
        assert!(
            told["number"] == 0 || same.all(|one| *one == told),
            "{of_it:?}"
        );
    }
    // Killed between telling and remembering it tells again, and the cloud knows the number.
    assert!(
        last.iter().all(|word| word["number"] == last[0]["number"]),
        "{last:?}"
    );
    assert!(last.len() <= 2, "{last:?}");
    last[0].clone()
}

#[test]
fn killed_at_each_question() {
    needs_containers!();
    let mut stage = Stage::new(&[("commit-delay", "6s")], 1_000_000);
    let (id, object) = stage.offer(None);
    let last = lives(&stage, &id, &ASKED);
    assert_eq!(last["news"]["kind"], "done", "{last}");
    stage.is_the_only_one(&last, &object);
    // Bytes that were there were not fetched again.
    let sent = stage.server.sent.load(std::sync::atomic::Ordering::Relaxed);
    assert!(sent < 3_500_000, "{sent}");
}

#[test]
fn killed_at_each_report() {
    needs_containers!();
    let mut stage = Stage::new(&[("commit-delay", "8s")], 0);
    let (id, object) = stage.offer(None);
    let last = lives(&stage, &id, &TOLD);
    assert_eq!(last["news"]["kind"], "done", "{last}");
    stage.is_the_only_one(&last, &object);
}

#[test]
fn killed_at_each_step_after_a_rollback() {
    needs_containers!();
    let mut stage = Stage::new(&[], 0);
    let image = busybox(&[("etc/version", "sick")]);
    let run = json!({"status_goal": "READY"});
    let command = ["/bin/busybox", "sh", "-c", "echo cannot bind; exit 7"];
    let manifest = Manifest::new().container("web", &image, &command, run);
    let id = stage.offer_revision(manifest.text(), image.bytes.clone(), None);
    let last = lives(&stage, &id, &FAILED);
    assert_eq!(last["news"]["kind"], "failed", "{last}");
    let trouble = &last["news"]["trouble"];
    assert_eq!(trouble["failure"], 1, "{trouble}");
    let words = trouble.to_string();
    assert!(
        words.contains("exit code 7") && words.contains("cannot bind"),
        "{words}"
    );
}

#[test]
fn an_orchestrator_killed_at_each_phase() {
    needs_containers!();
    // Each kill in the trial costs a try.
    let mut stage = Stage::new(&[("commit-delay", "3s"), ("tries", "9")], 700_000);
    let (id, object) = stage.offer(None);
    let client = stage.start(&[], &[]);
    for kind in ["accepted", "part", "downloaded", "installing", "observing"] {
        stage.until(kind, || match kind {
            "part" => stage.part(&object) > 0,
            _ => {
                let told = stage.server.told(&id);
                told.iter().any(|told| told["news"]["kind"] == kind)
            }
        });
        stage.device.kill();
        std::thread::sleep(Duration::from_millis(300));
        stage.device.spawn();
        stage.device.wait_until_it_answers();
    }
    stage.runs(&id, &object);
    drop(client);
}

/// Events of the device are heard: nobody waits for the next look at metadata, which is an hour away.
#[test]
fn what_people_say_is_heard_by_events() {
    needs_containers!();
    let stage = Stage::new(&[], 0);
    let client = stage.start(&[("metadata-interval", "3600s")], &[]);
    let polls = || stage.server.asked("get /offer");
    stage.until("it polls each second", || polls() >= 3);
    let path = "/user-meta/files.poll-min";
    let answer = stage.device.socket.put(path, b"3600s");
    assert_eq!(answer.expect("an answer").status, 200);
    let quiet = || {
        let before = polls();
        std::thread::sleep(Duration::from_secs(3));
        polls() == before
    };
    stage.until("it polls each hour", quiet);
    drop(client);
}
