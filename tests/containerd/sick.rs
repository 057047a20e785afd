//! Revisions that are sick in every way of the issue: the old one runs again in place, and the device says why.

use std::time::Duration;

use acceptance::device::Device;
use acceptance::image::{Image, busybox};
use acceptance::manifest::Manifest;
use acceptance::needs_containers;
use serde_json::{Value, json};

struct Case {
    device: Device,
    image: Image,
    steady_pid: u32,
}

fn good(image: &Image) -> Manifest {
    Manifest::new()
        .container("steady", image, &["/bin/sleep", "1000"], json!({}))
        .container("victim", image, &["/bin/sleep", "2000"], json!({}))
}

fn sick(image: &Image, command: &[&str], run: Value) -> Manifest {
    Manifest::new()
        .container("steady", image, &["/bin/sleep", "1000"], json!({}))
        .container("victim", image, command, run)
}

/// A device that runs a good revision.
fn device_in_good_health() -> Case {
    let device = Device::start_with(&[("commit-delay", "3s")]);
    let image = busybox(&[(
        "bin/dies-after-ready",
        "#!/bin/sh\n/bin/ready\nsleep 1\nexit 3\n",
    )]);
    assert_eq!(
        device.update("locals/two", &good(&image), &[&image]).0,
        "DONE"
    );
    let steady_pid = device.container_pid("steady").expect("steady runs");
    Case {
        device,
        image,
        steady_pid,
    }
}

impl Case {
    /// Runs this revision, and checks what must hold after every rollback in place.
    fn rolls_back(&self, manifest: &Manifest, message: &str, cause: &str, words: &[&str]) {
        let device = &self.device;
        device.put_revision("locals/three", manifest);
        device.run("locals/three");
        assert_eq!(
            device.wait_final("locals/three"),
            ("ERROR".to_owned(), message.to_owned())
        );
        device.wait(
            "the old revision runs again",
            Duration::from_secs(30),
            || {
                let victim = device.container("victim")?;
                let status = device.socket.get("/status").ok()?.json();
                let back = status["running"] == "locals/two" && status["trial"].is_null();
                (back && victim["status"] == "STARTED").then_some(())
            },
        );
        assert_eq!(
            device.container_pid("steady"),
            Some(self.steady_pid),
            "unchanged containers keep their PID"
        );
        let failures = device.socket.get("/failures").expect("an answer").json();
        let list = failures.as_array().expect("a list");
        assert_eq!(list.len(), 1, "one record: {failures}");
        let record = device
            .socket
            .get(&format!("/failures/{}", list[0]["id"]))
            .expect("an answer")
            .json();
        assert_eq!(record["revision"], "locals/three");
        assert_eq!(record["cause"]["kind"], cause, "{record}");
        assert_eq!(record["message"], message);
        let why = device
            .socket
            .get("/why/locals/three")
            .expect("an answer")
            .text();
        for word in words {
            assert!(why.contains(word), "{word:?} is not in {why}");
        }
        if cause == "bad-objects" {
            // Not the manifest's fault: upload what is missing and run it again.
            return;
        }
        let again = device.command("LOCAL_RUN", "locals/three");
        assert_eq!(
            again.status,
            409,
            "a failed revision needs an explicit request: {}",
            again.text()
        );
    }
}

#[test]
fn a_container_that_exits_at_once() {
    needs_containers!();
    let case = device_in_good_health();
    let manifest = sick(
        &case.image,
        &["/bin/sh", "-c", "echo cannot find my configuration; exit 7"],
        json!({}),
    );
    case.rolls_back(
        &manifest,
        "A container could not be started",
        "exited",
        &["victim", "7", "locals/two", "cannot find my configuration"],
    );
}

#[test]
fn a_container_that_is_never_ready() {
    needs_containers!();
    let case = device_in_good_health();
    let manifest = sick(
        &case.image,
        &["/bin/sleep", "3000"],
        json!({"status_goal": "READY"}),
    );
    case.rolls_back(
        &manifest,
        "Status goal not reached",
        "goal-not-reached",
        &["victim", "READY", "locals/two"],
    );
}

#[test]
fn a_container_that_dies_after_ready() {
    needs_containers!();
    let case = device_in_good_health();
    let manifest = sick(
        &case.image,
        &["/bin/dies-after-ready"],
        json!({"status_goal": "READY"}),
    );
    case.rolls_back(
        &manifest,
        "A container could not be started",
        "exited",
        &["victim", "3", "locals/two"],
    );
}

#[test]
fn a_root_image_that_is_corrupt_on_disk() {
    needs_containers!();
    let case = device_in_good_health();
    let other = busybox(&[("bin/other", "#!/bin/sh\nexec sleep 1000\n")]);
    case.device.put_object(&other);
    let path = case.device.storage().join("objects").join(&other.sha256);
    let mut bytes = other.bytes.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    // Another way to write it than the device's own, as a failing flash would.
    std::fs::remove_file(&path).expect("an answer");
    std::fs::write(&path, &bytes).expect("an answer");
    let manifest = sick(&other, &["/bin/other"], json!({}));
    let manifest = manifest.container("steady", &case.image, &["/bin/sleep", "1000"], json!({}));
    case.rolls_back(
        &manifest,
        "Object validation went wrong",
        "bad-objects",
        &[&other.sha256[..12], "corrupt", "locals/two"],
    );
}

#[test]
fn a_container_whose_health_is_never_reached() {
    needs_containers!();
    let case = device_in_good_health();
    let manifest = sick(
        &case.image,
        &["/bin/sleep", "3000"],
        json!({"status_goal": "READY", "health": {"exec": ["/bin/sh", "-c", "echo database is away; exit 1"], "interval": "500ms", "retries": 100, "start-period": "60s"}}),
    );
    case.rolls_back(
        &manifest,
        "Status goal not reached",
        "goal-not-reached",
        &["victim", "READY", "locals/two"],
    );
}

#[test]
fn a_revision_without_one_of_its_objects() {
    needs_containers!();
    let case = device_in_good_health();
    let absent = Image {
        bytes: Vec::new(),
        sha256: "ab".repeat(32),
    };
    let manifest = sick(&absent, &["/bin/sleep", "1"], json!({})).container(
        "steady",
        &case.image,
        &["/bin/sleep", "1000"],
        json!({}),
    );
    case.rolls_back(
        &manifest,
        "Object validation went wrong",
        "bad-objects",
        &["missing", "locals/two"],
    );
}

#[test]
fn a_revision_that_does_not_exist() {
    needs_containers!();
    let device = Device::start();
    let answer = device.command("LOCAL_RUN", "locals/nowhere");
    // Pantavisor answers 200 and then says WONTGO; a client sees either way that it will not run.
    if answer.status == 200 {
        assert_eq!(
            device.wait_final("locals/nowhere"),
            ("WONTGO".to_owned(), "State JSON not found".to_owned())
        );
    } else {
        assert_eq!(answer.status, 404, "{}", answer.text());
    }
    assert_eq!(device.running(), None);
}
