//! The binary coxctl against a whole device: real server, store and life cycle in this process, pretended containers.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test that panics has failed; nothing here is a library"
)]

#[path = "device.rs"]
mod test_device;

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use model::ObjectId;
use serde_json::{Value, json};
use test_device::TestDevice;

struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl Ended {
    fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self.out
    }

    fn json(self) -> Value {
        serde_json::from_str(&self.ok()).unwrap()
    }

    fn fails(self, code: i32, words: &str) {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        assert!(
            self.err.contains(words),
            "{words:?} is not in: {}",
            self.err
        );
    }
}

fn coxctl(socket: &Path, line: &[&str]) -> Ended {
    let output = command(socket, line).output().unwrap();
    Ended {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn command(socket: &Path, line: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coxctl"));
    command
        .args(line)
        .env("COXSWAIN_SOCKET", socket)
        .stdin(Stdio::null());
    command
}

/// A working folder with a revision: containers with the bytes of their root file system.
fn folder(parent: &Path, name: &str, containers: &[(&str, &[u8])]) -> PathBuf {
    let path = parent.join(name);
    std::fs::create_dir_all(path.join("objects")).unwrap();
    let mut manifest = json!({
        "#spec": "pantavisor-service-system@1",
        "device.json": {"groups": [
            {"name": "app", "status_goal": "STARTED", "restart_policy": "container", "timeout": 5}]},
    });
    for (container, image) in containers {
        let object = ObjectId::of(image);
        std::fs::write(path.join("objects").join(object.to_string()), image).unwrap();
        manifest[format!("{container}/root.squashfs")] = json!(object);
        manifest[format!("{container}/run.json")] = json!({
            "#spec": "service-manifest-run@1", "name": container, "type": "oci",
            "root-volume": "root.squashfs", "command": ["/x"], "auto_recovery": {"policy": "no"},
        });
    }
    std::fs::write(path.join("manifest.json"), manifest.to_string()).unwrap();
    path
}

fn archive(folder: &Path) -> PathBuf {
    let file = folder.with_extension("tgz");
    std::fs::rename(folder.join("manifest.json"), folder.join("json")).unwrap();
    let status = Command::new("tar")
        .arg("-czf")
        .args([
            &file,
            Path::new("-C"),
            folder,
            Path::new("json"),
            Path::new("objects"),
        ])
        .status()
        .unwrap();
    assert!(status.success());
    file
}

#[test]
fn a_life_with_a_device() {
    let device = TestDevice::new();
    let socket = device.socket();
    let run = |line: &[&str]| coxctl(&socket, line);
    let work = device.folder.path().join("work");

    // Installed from a folder, run, committed.
    let big = vec![7_u8; 3_000_000];
    let one = folder(&work, "one", &[("web", b"web 1"), ("db", &big)]);
    let one = one.to_str().unwrap();
    let told = run(&[
        "install",
        one,
        "--name",
        "locals/one",
        "-m",
        "first",
        "--run",
        "--wait",
    ])
    .ok();
    assert!(told.contains("2 objects, 2 uploaded (2.8 MiB)"), "{told}");
    assert!(told.contains("locals/one runs and is committed"), "{told}");
    let status = run(&["status"]).ok();
    for words in ["locals/one (manifest ", "committed)", "web", "db", "4711"] {
        assert!(status.contains(words), "{words:?} is not in:\n{status}");
    }
    assert_eq!(run(&["--json", "status"]).json()["condition"], "good");
    assert_eq!(run(&["--json", "ps"]).json()[0]["status"], "STARTED");
    assert!(run(&["ps"]).ok().contains("app"));
    assert!(run(&["groups"]).ok().contains("READY"));
    let steps = run(&["steps"]).ok();
    assert!(
        steps.contains("running,committed") && steps.contains("first"),
        "{steps}"
    );
    let shown = run(&["steps", "show", "locals/one"]).ok();
    assert_eq!(
        shown,
        std::fs::read_to_string(Path::new(one).join("manifest.json")).unwrap()
    );

    // The same objects are not sent again; the name is made from the manifest.
    let again = run(&["--json", "install", one]).json();
    assert_eq!(
        again["objects"],
        json!({"needed": 2, "uploaded": 0, "bytes": 0})
    );
    let digest = ObjectId::of(shown.as_bytes());
    assert_eq!(again["revision"], format!("locals/{}", digest.short()));
    run(&["delete", &format!("locals/{}", digest.short())]).ok();

    // From an archive; only the changed container is uploaded.
    let two = archive(&folder(&work, "two", &[("web", b"web 2"), ("db", &big)]));
    let two = two.to_str().unwrap();
    let told = run(&[
        "--json",
        "install",
        two,
        "--name",
        "locals/two",
        "--run",
        "--wait",
    ])
    .json();
    assert_eq!(told["objects"]["uploaded"], 1);
    assert_eq!(told["result"]["outcome"], "good");
    assert_eq!(told["result"]["progress"]["status"], "DONE");

    // A sick one is rolled back, says why, and is not tried again unasked.
    let three = folder(&work, "three", &[("sick", b"x")]);
    let three = three.to_str().unwrap();
    let line = [
        "install",
        three,
        "--name",
        "locals/three",
        "--run",
        "--wait",
    ];
    let sick = run(&line);
    assert_eq!(sick.code, 6, "{}{}", sick.out, sick.err);
    assert!(
        sick.out.contains("locals/three was rolled back"),
        "{}",
        sick.out
    );
    assert!(sick.out.contains("exit code 3"), "{}", sick.out);
    assert_eq!(run(&["--json", "status"]).json()["running"], "locals/two");
    run(&["run", "locals/three"]).fails(4, "--again");
    let insisted = run(&["--json", "run", "locals/three", "--again", "--wait"]);
    assert_eq!(insisted.code, 6);
    let judged: Value = serde_json::from_str(&insisted.out).unwrap();
    assert_eq!(judged["outcome"], "rolled-back");
    assert_eq!(run(&["progress", "locals/three", "--wait"]).code, 6);
    assert!(run(&["why", "locals/three"]).ok().contains("exit code 3"));
    assert!(run(&["failures"]).ok().contains("locals/three"));
    let id = run(&["--json", "failures"]).json()[0]["id"].to_string();
    assert!(
        run(&["failures", &id])
            .ok()
            .contains("Rolled back to locals/two")
    );
    run(&["failures", "999"]).fails(3, "999");

    // Back to the one before, and on again: an old DONE is not taken for a new one.
    let back = run(&["rollback", "--wait"]);
    assert!(
        back.out.contains("locals/one runs and is committed"),
        "{}{}",
        back.out,
        back.err
    );
    run(&["run", "locals/two", "--wait"]).ok();
    assert_eq!(run(&["--json", "status"]).json()["committed"], "locals/two");
    run(&["run", "locals/two", "--in-place", "--wait"]).ok();
    assert!(
        run(&["progress", "locals/one", "--wait"])
            .ok()
            .starts_with("DONE")
    );

    // Containers.
    run(&["stop", "web"]).ok();
    assert!(run(&["ps"]).ok().contains("STOPP"));
    run(&["start", "web"]).ok();
    run(&["restart", "none"]).fails(3, "none");
    assert!(run(&["why", "web"]).ok().starts_with("web "));
    run(&["why", "none"]).fails(3, "none");
    assert!(!run(&["why"]).ok().is_empty());

    // Metadata, configuration, events, objects, collection.
    run(&["meta", "user", "set", "key", "a\u{1b}[31mb"]).ok();
    assert_eq!(run(&["meta", "user", "get", "key"]).ok(), "a\\u{1b}[31mb\n");
    assert_eq!(
        run(&["--json", "meta", "user", "ls"]).json(),
        json!({"key": "a\u{1b}[31mb"})
    );
    run(&["meta", "user", "rm", "key"]).ok();
    run(&["meta", "user", "get", "key"]).fails(3, "key");
    run(&["meta", "user", "rm", "key"]).fails(3, "");
    assert!(run(&["config"]).ok().contains("PV_UPDATER_COMMIT_DELAY"));
    assert!(run(&["events"]).ok().contains("locals/three"));
    let object = ObjectId::of(b"web 2").to_string();
    assert_eq!(run(&["objects", "get", &object]).ok(), "web 2");
    assert!(run(&["objects"]).ok().contains(&object));
    run(&["objects", "rm", &object]).fails(4, "");
    run(&["objects", "get", &"0".repeat(64)]).fails(3, "");
    run(&["delete", "locals/two"]).fails(4, "locals/two");
    run(&["delete", "locals/three"]).ok();
    run(&["gc"]).ok();
    run(&["progress", "locals/nothing"]).fails(3, "locals/nothing");
    run(&["run", "locals/nothing", "--wait"]).fails(3, "locals/nothing");
}

#[test]
fn logs_reach_a_pipe_whole_and_a_reader_that_leaves_is_no_error() {
    let device = TestDevice::new();
    let socket = device.socket();
    let work = device.folder.path().join("work");
    let one = folder(&work, "one", &[("web", b"1"), ("db", b"2")]);
    coxctl(
        &socket,
        &[
            "install",
            one.to_str().unwrap(),
            "--name",
            "locals/one",
            "--run",
            "--wait",
        ],
    )
    .ok();
    device.log("locals/one", "web", b"one\n\x1b[31mtwo\x1b[0m\n");
    let web = coxctl(&socket, &["logs", "web", "-n", "1"]).ok();
    assert_eq!(
        web, "\u{1b}[31mtwo\u{1b}[0m\n",
        "a pipe gets the bytes as they are"
    );
    let all = coxctl(&socket, &["logs"]).ok();
    assert!(all.contains("web | one\n"), "{all}");
    let lines = coxctl(&socket, &["--json", "logs", "web"]).ok();
    assert_eq!(
        lines.lines().next(),
        Some(r#"{"container":"web","level":"info","source":"","text":"one"}"#)
    );
    coxctl(&socket, &["logs", "none"]).fails(3, "none");

    device.log("locals/one", "db", &b"a line\n".repeat(200_000));
    let mut child = command(&socket, &["logs", "db", "-n", "10000", "-f"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut few = [0; 7];
    child.stdout.take().unwrap().read_exact(&mut few).unwrap();
    assert_eq!(&few, b"a line\n");
    // The pipe is closed now; the next line that the container writes ends the command.
    let path = device
        .folder
        .path()
        .join("storage/logs/locals/one/db/console.log");
    let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
    for _ in 0..100 {
        file.write_all(b"one more\n").unwrap();
        if child.try_wait().unwrap().is_some() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), output.stderr.as_slice()),
        (Some(0), &b""[..])
    );
}

#[test]
fn bad_bundles_change_nothing() {
    let device = TestDevice::new();
    let socket = device.socket();
    let run = |line: &[&str]| coxctl(&socket, line);
    let work = device.folder.path().join("work");
    run(&["install", "/nonexistent/x.tgz"]).fails(3, "/nonexistent/x.tgz");

    let missing = folder(&work, "missing", &[("web", b"1")]);
    std::fs::remove_dir_all(missing.join("objects")).unwrap();
    run(&["install", missing.to_str().unwrap()]).fails(8, "web/root.squashfs");

    let corrupt = folder(&work, "corrupt", &[("web", b"1")]);
    let object = corrupt.join("objects").join(ObjectId::of(b"1").to_string());
    std::fs::write(object, b"2").unwrap();
    run(&["install", corrupt.to_str().unwrap()]).fails(8, "corrupt");

    let wrong = folder(&work, "wrong", &[]);
    let text = r#"{"#.to_owned() + r##""#spec":"other","../x":1}"##;
    std::fs::write(wrong.join("manifest.json"), text).unwrap();
    let refused = run(&["--json", "install", wrong.to_str().unwrap()]);
    assert_eq!(refused.code, 8);
    let error: Value = serde_json::from_str(&refused.err).unwrap();
    assert!(
        error["error"]["problems"].as_array().unwrap().len() >= 2,
        "{error}"
    );

    let garbage = work.join("x.tgz");
    std::fs::write(&garbage, [0x1f, 0x8b, 1, 2, 3]).unwrap();
    run(&["install", garbage.to_str().unwrap()]).fails(8, "x.tgz");

    let long = "m".repeat(257);
    let good = folder(&work, "good", &[("web", b"1")]);
    run(&["install", good.to_str().unwrap(), "-m", &long]).fails(2, "256");
    assert_eq!(run(&["--json", "steps"]).json(), json!([]));
    assert_eq!(run(&["--json", "objects"]).json(), json!([]));
    let left: Vec<_> = std::fs::read_dir(&work)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert!(
        left.iter()
            .all(|name| !name.to_string_lossy().starts_with('.')),
        "{left:?}"
    );
}

#[test]
fn the_machine_below() {
    let device = TestDevice::new();
    let socket = device.socket();
    let shown = coxctl(&socket, &["daemons"]).ok();
    assert!(shown.contains("lamp    812  runs"), "{shown}");
    coxctl(&socket, &["daemons", "stop", "lamp"]).ok();
    let daemons = coxctl(&socket, &["--json", "daemons"]).json();
    assert_eq!(
        daemons,
        json!([{"name": "lamp", "pid": -1, "respawn": false}])
    );
    coxctl(&socket, &["daemons", "start", "lamp"]).ok();
    let shown = coxctl(&socket, &["daemons"]).ok();
    assert!(shown.contains("runs"), "{shown}");
    // A name is one segment of the path, whatever is in it.
    coxctl(&socket, &["daemons", "stop", "../steps/0"]).fails(3, "no daemon of this name");
    assert!(coxctl(&socket, &["drivers"]).ok().starts_with("no drivers"));
    assert_eq!(coxctl(&socket, &["uploads"]).ok(), "no uploads\n");
    assert_eq!(
        coxctl(&socket, &["wakelocks"]).ok(),
        "mode disabled; nothing is held\n"
    );
}

#[test]
fn nobody_there() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("none");
    for line in [
        &["status"][..],
        &["logs", "-f"],
        &["events", "-f"],
        &["run", "0", "--wait"],
    ] {
        coxctl(&socket, line).fails(5, "start coxswain");
    }
    let ended = coxctl(&socket, &["--json", "ps"]);
    let error: Value = serde_json::from_str(&ended.err).unwrap();
    assert_eq!(
        (ended.code, &error["error"]["kind"]),
        (5, &json!("unreachable"))
    );
    coxctl(&socket, &["status", "--socket", &"x".repeat(200)]).fails(2, "107");
    coxctl(&socket, &["frobnicate"]).fails(2, "");
    let pages = folder.path().join("man");
    coxctl(&socket, &["man", pages.to_str().unwrap()]).ok();
    assert!(pages.join("coxctl-meta-user-set.1").exists());
}

#[test]
fn an_interrupted_command_says_what_goes_on() {
    let device = TestDevice::new();
    let socket = device.socket();
    let work = device.folder.path().join("work");
    let one = folder(&work, "one", &[("web", b"1")]);
    coxctl(
        &socket,
        &[
            "install",
            one.to_str().unwrap(),
            "--name",
            "locals/one",
            "--run",
            "--wait",
        ],
    )
    .ok();
    // Nothing writes to this log: the command waits until it is interrupted.
    device.log("locals/one", "web", b"line\n");
    let mut child = command(&socket, &["logs", "web", "-f"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0; 5];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut line)
        .unwrap();
    let status = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(status.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "coxctl: interrupted\n"
    );
}
