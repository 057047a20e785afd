//! The four forms of payloads: made by the examples with coxctl, offered by a cloud, run on a device with real containers.

use std::path::Path;
use std::process::Command;

use acceptance::device::Device;
use acceptance::image::{binary, sha256};
use acceptance::needs_containers;

use crate::cloud::{Place, last_word};
use crate::server::Server;

fn example(name: &str, folder: &Path) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../examples/payloads")
        .join(name);
    let output = Command::new(&script)
        .arg(folder)
        .env("COXCTL", binary("coxctl"))
        .output()
        .expect("examples can be run");
    assert!(
        output.status.success(),
        "{}: {}",
        script.display(),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn coxctl(device: &Device, words: &[&str]) {
    let output = Command::new(binary("coxctl"))
        .arg("--socket")
        .arg(device.run_dir().join("control.sock"))
        .args(words)
        .output()
        .expect("coxctl can be run");
    assert!(
        output.status.success(),
        "{words:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn version(device: &Device, container: &str) -> String {
    let output = device.inside(container, &["/bin/busybox", "cat", "/etc/version"]);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn deploy(form: &str) {
    let device = Device::start();
    let home = tempfile::tempdir().expect("a temporary folder");
    let made = home.path().join("made");
    std::fs::create_dir(&made).expect("a fresh folder");
    example("revisions", &made);
    example(form, &made);
    let base = made.join("base").display().to_string();
    coxctl(
        &device,
        &["install", &base, "--run", "--wait", "--timeout", "60"],
    );
    let app = device.container_pid("app").expect("app runs");
    assert_eq!(version(&device, "web"), "1");

    let server = Server::start(u64::MAX, 0);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(made.join("upload")).expect("the example has made it") {
        let path = entry.expect("a file").path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .expect("plain names");
        let bytes = std::fs::read(&path).expect("a file");
        let (length, hash) = (bytes.len() as u64, sha256(&bytes));
        files.push((name.to_owned(), server.bytes(name, bytes), length, hash));
    }
    let place = Place {
        folder: home.path().to_owned(),
        socket: device.run_dir().join("control.sock"),
    };
    place.offer("8", &files);
    let mut child = place.start(&[("map", "root.squashfs=web")]);
    let status = child.wait().expect("our own child");
    let log = std::fs::read_to_string(home.path().join("log")).unwrap_or_default();
    assert!(status.success(), "{form}: {log}");
    let last = last_word(home.path()).expect("it ends with the last word");
    assert_eq!(
        last["report"]["news"]["kind"], "done",
        "{form}: {last}\n{log}"
    );
    let running = device.running().expect("something runs");
    assert!(running.contains("files-"), "{form}: {running}");
    assert_eq!(version(&device, "web"), "2", "{form}");
    assert_eq!(version(&device, "app"), "1", "{form}");
    assert_eq!(
        device.container_pid("app"),
        Some(app),
        "{form}: app was left alone"
    );
    let sent = server.sent.load(std::sync::atomic::Ordering::Relaxed);
    let all: u64 = files.iter().map(|(_, _, length, _)| length).sum();
    println!("{form}: {sent} of {all} bytes fetched");
}

#[test]
fn bundle() {
    needs_containers!();
    deploy("bundle");
}

#[test]
fn separate() {
    needs_containers!();
    deploy("separate");
}

#[test]
fn patch() {
    needs_containers!();
    deploy("patch");
}

#[test]
fn plain() {
    needs_containers!();
    deploy("plain");
}
