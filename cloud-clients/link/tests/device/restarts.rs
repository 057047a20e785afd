//! A client that is killed again and again, wherever it happens to be: the deployment ends right, once, and is told once.

use std::time::{Duration, Instant};

use acceptance::device::Device;
use acceptance::image::{busybox, sha256};
use acceptance::manifest::Manifest;
use acceptance::needs_containers;
use serde_json::json;

use crate::cloud::{Place, last_word, reports};
use crate::server::Server;

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
            let details = last["report"]["news"]["trouble"].to_string();
            assert!(
                details.contains("web") && details.contains('7'),
                "{details}"
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
