//! What real containers write: every way of writing, a flood, followers over rotations, and kills of the process that keeps it.
//!
//! `FLOOD_SECONDS=n` and `FLOOD_MB=n` set how long and how much the flood is (default 10 s of 100 MB).

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use acceptance::device::Device;
use acceptance::image::{binary, busybox_that_asks};
use acceptance::manifest::Manifest;
use acceptance::needs_containers;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// A device with one container that runs this shell script.
fn device(settings: &[(&str, &str)], name: &str, script: &str, mut run: Value) -> Device {
    let device = Device::start_with(settings);
    let image = busybox_that_asks();
    run["storage"] = json!({"perm": {"persistence": "permanent", "path": "/perm"}});
    let manifest = Manifest::new().container(name, &image, &["/bin/sh", "-c", script], run);
    let done = device.update("locals/one", &manifest, &[&image]);
    assert_eq!(done.0, "DONE", "{}", done.1);
    device
}

fn log(device: &Device, target: &str) -> String {
    let answer = device.socket.get(target).expect("an answer");
    assert_eq!(answer.status, 200, "{target}: {}", answer.text());
    answer.text()
}

/// The log process of a device, by its command line.
fn log_process(device: &Device) -> Option<u32> {
    let spool = device.run_dir().join("output");
    let processes = fs::read_dir("/proc").expect("proc is mounted");
    let mut numbers = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.find(|pid: &u32| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = arguments.split(|byte| *byte == 0);
        words.next() == Some(b"coxswain-logger")
            && words.any(|word| word == spool.as_os_str().as_encoded_bytes())
    })
}

fn kill_log_process(device: &Device) -> u32 {
    let pid = device.wait("the log process runs", Duration::from_secs(20), || {
        log_process(device)
    });
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
    kill_process(number.expect("a number"), Signal::KILL).expect("it is ours");
    pid
}

#[test]
fn every_way_of_writing_reaches_the_log_with_its_level() {
    needs_containers!();
    let script =
        "echo out; echo bad >&2; echo '<3>broken'; echo early > /perm/app.log; exec sleep 1000";
    let run = json!({"dev-log": true, "logs": {"follow": ["/perm/app.log"]}});
    let device = device(&[], "talk", script, run);
    let begun = Instant::now();
    let inside = |script: &str| {
        let done = device.inside("talk", &["/bin/sh", "-c", script]);
        assert!(done.status.success(), "{script}: {done:?}");
    };
    for (what, message) in [
        ("log /dev/log", "<11>Nov 21 10:20:30 web[7]: of rfc 3164"),
        (
            "log /dev/log",
            "<15>1 2026-11-21T10:20:30Z host app 9 - - of rfc 5424",
        ),
        (
            "say /pantavisor/pv-ctrl-log",
            r#"{"version":"0","level":0,"source":"cloud","message":"of json"}"#,
        ),
        (
            "say /pantavisor/pv-ctrl-log",
            "<12>Nov 21 10:20:30 x: of syslog",
        ),
        (
            "say /pantavisor/pv-ctrl-log",
            "level=4 source=s message=of pairs",
        ),
        // A header of 27 bytes that follow; "other" is not who says it.
        (
            "say /pantavisor/pv-ctrl-log",
            r"\000\000\000\000\033\000\000\0001\000other\000module\000of binary\n\n\n",
        ),
    ] {
        inside(&format!("printf '{message}' | /bin/inside {what}"));
    }
    // A file that is there when it is looked for first is old; what is added is new, also after it was replaced.
    std::thread::sleep(Duration::from_millis(1500));
    inside("echo grown >> /perm/app.log");
    inside("echo ERROR: new > /perm/new && busybox mv /perm/new /perm/app.log");
    let expected: BTreeSet<_> = [
        ("info", "stdout", "out"),
        ("warn", "stderr", "bad"),
        ("error", "stdout", "broken"),
        ("error", "syslog", "web[7]: of rfc 3164"),
        ("debug", "syslog", "app[9]: of rfc 5424"),
        ("fatal", "cloud", "of json"),
        ("warn", "pv-ctrl-log", "x: of syslog"),
        ("debug", "s", "of pairs"),
        ("error", "module", "of binary"),
        ("info", "/perm/app.log", "grown"),
        ("error", "/perm/app.log", "ERROR: new"),
    ]
    .map(|(level, source, text)| [level, source, text].map(str::to_owned))
    .into();
    let seen = || -> BTreeSet<[String; 3]> {
        let text = log(&device, "/logs/talk?format=json");
        let lines = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"));
        lines
            .map(|line: Value| {
                assert_eq!(line["container"], "talk");
                assert!(line["time"].is_string(), "{line}");
                ["level", "source", "text"].map(|key| line[key].as_str().expect("text").to_owned())
            })
            .filter(|[_, _, text]| text != "early")
            .collect()
    };
    let end = Instant::now() + Duration::from_secs(15);
    while seen() != expected && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(seen(), expected);

    // Filters: level, time, revision, number of lines.
    let errors = log(&device, "/logs/talk?level=error");
    assert!(
        errors.contains("broken") && errors.contains("of json"),
        "{errors}"
    );
    assert!(
        !errors.contains("bad") && !errors.contains("of pairs"),
        "{errors}"
    );
    let seconds = begun.elapsed().as_millis().div_ceil(1000) + 3600;
    assert_eq!(
        log(&device, &format!("/logs/talk?since={seconds}s&tail=1")),
        log(&device, "/logs/talk?tail=1")
    );
    assert_eq!(log(&device, "/logs/talk?since=0s"), "");
    assert_eq!(
        log(&device, "/logs/talk?revision=locals/one"),
        log(&device, "/logs/talk")
    );
    let none = device
        .socket
        .get("/logs/talk?revision=0")
        .expect("an answer");
    assert_eq!(none.status, 404);
}

/// Numbers of the lines `line <number>`.
fn numbers(text: &str) -> Vec<u64> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("line "));
    lines
        .map(|rest| {
            let number = rest.split(' ').next().expect("a word");
            number.parse().expect("a number")
        })
        .collect()
}

const COUNTING: &str = "i=0; while :; do i=$((i+1)); echo line $i; busybox usleep 2000; done";

#[test]
fn kills_of_the_log_process_and_of_the_orchestrator_hold_no_container_up() {
    needs_containers!();
    let mut device = device(&[], "count", COUNTING, json!({}));
    let pid = device.container_pid("count").expect("it runs");
    let newest = |device: &Device| {
        let text = log(device, "/logs/count?tail=3");
        numbers(&text).last().copied()
    };
    let goes_on = |device: &Device, what: &str| {
        let before = newest(device).unwrap_or_default();
        device.wait(what, Duration::from_secs(20), || {
            (newest(device)? > before + 20).then_some(())
        });
        // Lines come before an orchestrator that was started again has asked what runs.
        let found = device.wait("it is found", Duration::from_secs(20), || {
            device.container_pid("count")
        });
        assert_eq!(found, pid, "{what}");
    };
    goes_on(&device, "lines come");
    for _ in 0..3 {
        let killed = kill_log_process(&device);
        goes_on(&device, "lines come after the log process was killed");
        assert_ne!(log_process(&device), Some(killed));
    }
    device.kill();
    let keeper = log_process(&device);
    assert!(keeper.is_some(), "it outlives the orchestrator");
    device.spawn();
    device.wait_until_it_answers();
    goes_on(&device, "lines come after the orchestrator was killed");
    assert_eq!(log_process(&device), keeper, "the same one");
    device.kill();
    kill_log_process(&device);
    // More than 100 lines wait in the pipe.
    std::thread::sleep(Duration::from_millis(500));
    device.spawn();
    device.wait_until_it_answers();
    goes_on(&device, "lines come after both were killed");
    // At most a batch of 20 ms is lost by each of the four kills, and nothing of the pipes.
    let all = numbers(&log(&device, "/logs/count?tail=10000"));
    assert!(
        all.windows(2).all(|pair| pair[0] < pair[1]),
        "in order, none twice"
    );
    let missing: u64 = all.windows(2).map(|pair| pair[1] - pair[0] - 1).sum();
    println!("{} lines, {missing} lost by four kills", all.len());
    assert!(missing <= 4 * 40, "{missing} lines are missing");
}

#[test]
fn a_follower_sees_every_line_over_rotations() {
    needs_containers!();
    let script = format!(
        "sleep 2; i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo line $i {}; busybox usleep 500; done; exec sleep 1000",
        "x".repeat(60)
    );
    let run = json!({"logs": {"max-size": "32KiB", "files": 2}});
    let device = device(&[], "turn", &script, run);
    let mut follower = device.socket.connect().expect("a connection");
    follower
        .write_all(b"GET /logs/turn?follow=1&tail=10000 HTTP/1.0\r\n\r\n")
        .expect("it is sent");
    let mut text = String::new();
    let mut piece = [0; 4096];
    while !text.contains("line 3000 ") {
        let length = follower.read(&mut piece).expect("it goes on");
        assert!(length > 0, "the stream ended after {text}");
        text.push_str(std::str::from_utf8(&piece[..length]).expect("text"));
    }
    let seen = numbers(&text);
    assert_eq!(seen, (seen[0]..=3000).collect::<Vec<_>>());
    assert!(seen[0] < 1500, "it saw several rotations: {}", seen[0]);
    let folder = device.storage().join("logs/locals/one/turn");
    for part in ["console.log.1.gz", "console.log.2.gz"] {
        let packed = fs::metadata(folder.join(part))
            .expect("a packed part")
            .len();
        assert!(packed < 16 << 10, "{part}: {packed} bytes of 32 KiB");
    }
    assert!(!folder.join("console.log.3.gz").exists());
    // What is kept is read through all parts, packed or not.
    let kept = numbers(&log(&device, "/logs/turn?tail=10000"));
    assert_eq!(kept, (kept[0]..=3000).collect::<Vec<_>>());
    assert!(kept.len() > 600, "{}", kept.len());
}

/// A `coxctl` that goes on until it is dropped; what it prints is kept.
struct Following {
    process: Child,
    printed: Arc<Mutex<String>>,
}

impl Following {
    fn start(device: &Device, words: &[&str]) -> Self {
        let mut process = coxctl(device, words)
            .stdout(Stdio::piped())
            .spawn()
            .expect("coxctl starts");
        let printed = Arc::<Mutex<String>>::default();
        let (lines, kept) = (process.stdout.take().expect("a pipe"), Arc::clone(&printed));
        std::thread::spawn(move || {
            for line in BufReader::new(lines).lines().map_while(Result::ok) {
                let mut kept = kept.lock().expect("no panic while it is held");
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        Self { process, printed }
    }

    fn printed(&self) -> String {
        self.printed
            .lock()
            .expect("no panic while it is held")
            .clone()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn coxctl(device: &Device, words: &[&str]) -> Command {
    let mut command = Command::new(binary("coxctl"));
    let socket = device.run_dir().join("control.sock");
    command.arg("--socket").arg(socket).args(words);
    command.stdin(Stdio::null());
    command
}

fn printed(device: &Device, words: &[&str]) -> String {
    let output = coxctl(device, words).output().expect("coxctl starts");
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn coxctl_shows_logs_and_use_and_follows_events_over_a_restart() {
    needs_containers!();
    let script = "echo ERROR: one; echo two; while :; do :; done";
    let mut device = device(&[], "busy", script, json!({}));
    // With no event before the first restart: it goes on where it was connected.
    let following = Following::start(&device, &["events", "-f"]);
    std::thread::sleep(Duration::from_millis(500));
    for (kills, revision) in [(1, "locals/two"), (2, "locals/three")] {
        device.kill();
        device.spawn();
        device.wait_until_it_answers();
        let image = busybox_that_asks();
        let manifest = Manifest::new().container(
            "busy",
            &image,
            &["/bin/sh", "-c", script],
            json!({"env": [format!("N={kills}")]}),
        );
        assert_eq!(device.update(revision, &manifest, &[]).0, "DONE");
        let is_done = |line: &str| line.contains(revision) && line.contains("DONE");
        let end = Instant::now() + Duration::from_secs(20);
        while !following.printed().lines().any(is_done) {
            assert!(
                Instant::now() < end,
                "no DONE of {revision}: {}",
                following.printed()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        let told = following.printed();
        assert_eq!(
            told.matches("no longer kept").count(),
            kills,
            "each restart is told once: {told}"
        );
    }
    assert_eq!(
        printed(&device, &["logs", "busy", "--level", "error"]),
        "ERROR: one\n"
    );
    assert_eq!(
        printed(&device, &["logs", "busy", "--since", "1h"]),
        "ERROR: one\ntwo\n"
    );
    assert_eq!(printed(&device, &["logs", "busy", "--since", "0s"]), "");
    // Each version in the folder of its revision, whatever was killed meanwhile.
    for revision in ["locals/one", "locals/two", "locals/three"] {
        let words = ["logs", "busy", "--revision", revision];
        assert_eq!(printed(&device, &words), "ERROR: one\ntwo\n", "{revision}");
    }
    let times = printed(&device, &["logs", "busy", "--times", "-n", "1"]);
    assert!(
        times.ends_with(" I stdout two\n") && times.starts_with("20"),
        "{times}"
    );
    assert!(
        !coxctl(&device, &["logs", "--since", "yesterday"])
            .output()
            .expect("coxctl starts")
            .status
            .success()
    );

    let shown = printed(&device, &["top", "--once"]);
    assert!(
        shown.contains("locals/three") && shown.contains("busy"),
        "{shown}"
    );
    let screen = printed(&device, &["--json", "top", "--once"]);
    let screen: Value = serde_json::from_str(&screen).expect("JSON");
    let cpu = |reading: &str| {
        let used = &screen[reading]["containers"]["busy"]["cpu_us"];
        used.as_u64().unwrap_or_else(|| panic!("{screen}"))
    };
    assert!(cpu("usage") > cpu("before"), "it turns in a loop: {screen}");
}

fn bytes_in(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => bytes_in(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .sum()
}

/// The most memory that a process ever had in use.
fn most_memory_kib(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

fn number_of(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn a_flood_disturbs_nobody_and_keeps_its_newest_lines() {
    needs_containers!();
    const QUOTA: u64 = 8 << 20;
    let (rate, seconds) = (number_of("FLOOD_MB", 100), number_of("FLOOD_SECONDS", 10));
    let script = format!(
        "while [ ! -e /perm/go ]; do sleep 0.1; done; /bin/inside flood {rate} {seconds}; exec sleep 1000"
    );
    let run = json!({"logs": {"max-size": "4MiB", "files": 3}});
    let device = device(
        &[("log-quota", "8"), ("log-level", "info")],
        "flood",
        &script,
        run,
    );
    let go = device.storage().join("disks/perm/flood/perm/go");
    fs::write(go, "").expect("the volume of the container");
    let logs = device.storage().join("logs");
    let end = Instant::now() + Duration::from_secs(4 * seconds + 20);
    let (mut took, mut most) = (Vec::new(), 0);
    let told = loop {
        for target in [
            "/status",
            "/steps",
            "/containers",
            "/steps/locals/one/progress",
        ] {
            let begun = Instant::now();
            let answer = device.socket.get(target).expect("an answer");
            took.push(begun.elapsed());
            assert_eq!(answer.status, 200);
        }
        most = most.max(bytes_in(&logs));
        let newest = log(&device, "/logs/flood?tail=5");
        if let Some(told) = newest.lines().find(|line| line.starts_with("flood: ")) {
            break told.to_owned();
        }
        assert!(Instant::now() < end, "no end of the flood; {newest}");
        std::thread::sleep(Duration::from_millis(10));
    };
    took.sort();
    let p99 = took[took.len() * 99 / 100];
    let newest = numbers(&log(&device, "/logs/flood?tail=100"));
    let memory = log_process(&device)
        .and_then(most_memory_kib)
        .expect("it runs");
    println!(
        "{told}; {} requests, p50 {:?}, p99 {p99:?}; at most {most} bytes on disk and {memory} KiB of memory",
        took.len(),
        took[took.len() / 2]
    );
    let lines = rate * seconds * 10_000;
    assert_eq!(newest.last(), Some(&lines), "the newest line is kept");
    assert!(newest.len() > 90 && newest.windows(2).all(|pair| pair[1] == pair[0] + 1));
    let text = log(&device, "/logs/flood?tail=10000&level=warn");
    assert!(
        text.contains("were dropped: it wrote more than"),
        "losses are told: {text}"
    );
    assert!(most <= QUOTA, "{most} bytes");
    assert!(memory < 16 << 10, "{memory} KiB");
    let words: Vec<&str> = told.split([' ', ',']).collect();
    let ms = |at: usize| words[at].parse::<u64>().expect("a number");
    assert!(
        ms(4) < 2 * 1000 * seconds,
        "the container was held up: {told}"
    );
    assert!(
        ms(words.len() - 2) < 1000,
        "the container was held up: {told}"
    );
    assert!(
        p99 < Duration::from_millis(20),
        "p99 {p99:?} of {} requests",
        took.len()
    );
}
