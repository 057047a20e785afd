//! Containers on a real containerd: start, end, stop, probes, limits, logs.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

mod device;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ::device::ports::{Condition, Exit, Instance, RuntimeCommand, RuntimeEvent};
use containerd::Caller;
use model::container::{Logs, Network, Oci, Probe, Resources};

use crate::device::{Device, container, only, possible, running, until, with};

const SECOND: Duration = Duration::from_secs(1);

fn shell(script: &str) -> Option<Vec<String>> {
    Some(["/bin/sh", "-c", script].map(str::to_owned).to_vec())
}

#[test]
fn starts_ends_and_leaves_nothing() {
    if !possible() {
        return;
    }
    let mut device = Device::new("basic");
    let hello = container("hello", "echo out; echo err >&2; exit 7");
    let (instance, pid) = device.start(&hello);
    assert!(pid > 1);
    let ended = Exit {
        code: 7,
        out_of_memory: false,
        damaged: None,
    };
    assert_eq!(device.exited(&instance), ended);
    device.wait_log(&hello, "out\n");
    device.wait_log(&hello, "err\n");
    // What an ended container used is freed at once; only its record stays.
    until("no shim", || device.shims().is_empty());
    until("no mounts", || device.mounts().is_empty());
    assert_eq!(only(&device.list()).condition, Condition::Ended(ended));
    device.stop(&instance, SECOND);
    assert_eq!(device.list(), []);
    // Also what does not exist is stopped.
    device.stop(&instance, SECOND);
}

#[test]
fn stops_by_signal_or_by_force() {
    if !possible() {
        return;
    }
    let mut device = Device::new("stop");
    let polite = container(
        "polite",
        "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done",
    );
    let deaf = container(
        "deaf",
        "trap '' TERM; echo up; while :; do sleep 0.05; done",
    );
    let (first, _) = device.start(&polite);
    let (second, pid) = device.start(&deaf);
    device.wait_log(&polite, "up");
    device.wait_log(&deaf, "up");
    let begun = Instant::now();
    device.stop(&first, Duration::from_secs(30));
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(device.exited(&first).code, 3);
    assert!(device.written(&polite).ends_with("bye\n"));
    let begun = Instant::now();
    device.stop(&second, Duration::from_millis(300));
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!(device.exited(&second).code, 137);
    assert!(!PathBuf::from(format!("/proc/{pid}")).exists());
    assert_eq!(device.list(), []);
    assert_eq!(device.mounts(), Vec::<PathBuf>::new());
}

#[test]
fn a_new_start_replaces_what_runs() {
    if !possible() {
        return;
    }
    let mut device = Device::new("again");
    let old = container("app", "echo old; sleep 1000");
    let new = container("app", "echo new; sleep 1000");
    let (_, pid) = device.start(&old);
    let (same, pid_same) = device.start(&old);
    assert_ne!(pid, pid_same);
    assert_eq!(only(&device.list()).instance, same);
    let (changed, _) = device.start(&new);
    let found = device.list();
    assert_eq!(only(&found).instance, changed);
    assert!(!PathBuf::from(format!("/proc/{pid_same}")).exists());
    // The one that was replaced is gone already; it takes nothing with it.
    device.stop(&same, SECOND);
    assert!(running(only(&device.list())).is_some());
}

#[test]
fn what_cannot_start_says_why_and_leaves_nothing() {
    if !possible() {
        return;
    }
    let mut device = Device::new("fail");
    let mut cases = Vec::new();
    let missing = Oci {
        command: Some(vec!["/nothing".to_owned()]),
        ..Oci::default()
    };
    cases.push((with("missing", missing), "/nothing"));
    cases.push((with("nothing", Oci::default()), "nothing to run"));
    let user = Oci {
        command: shell("id"),
        user: Some("nobody-here".into()),
        ..Oci::default()
    };
    cases.push((with("user", user), "nobody-here"));
    let mut corrupt = container("corrupt", "id");
    let object = model::ObjectId::of(b"not an image");
    fs::write(
        device
            .config
            .storage
            .join("objects")
            .join(object.to_string()),
        [0; 8192],
    )
    .unwrap();
    corrupt.root.as_mut().unwrap().object = object;
    cases.push((corrupt, "cannot be mounted"));
    let mut absent = container("absent", "id");
    absent.root.as_mut().unwrap().object = model::ObjectId::of(b"absent");
    cases.push((absent, "No such file"));
    for (container, expected) in cases {
        let spec = device.spec(&container);
        let instance = spec.instance.clone();
        device.submit(RuntimeCommand::Start(spec));
        let error = device.outcome(&instance).unwrap_err();
        assert!(error.contains(expected), "{}: {error}", container.name);
    }
    assert_eq!(device.list(), []);
    assert_eq!(device.mounts(), Vec::<PathBuf>::new());
    assert!(device.shims().is_empty());
}

#[test]
fn mounts_only() {
    if !possible() {
        return;
    }
    let mut device = Device::new("mount");
    let data = container("data", "true");
    let spec = device.spec(&data);
    let instance = spec.instance.clone();
    device.submit(RuntimeCommand::Mount(spec));
    let mounted =
        |event: &RuntimeEvent| (*event == RuntimeEvent::Mounted(instance.clone())).then_some(());
    device.wait("Mounted", mounted);
    assert_eq!(only(&device.list()).condition, Condition::Mounted);
    assert_eq!(device.mounts().len(), 2);
    device.boot();
    assert_eq!(only(&device.list()).condition, Condition::Mounted);
    device.stop(&instance, SECOND);
    assert_eq!(device.mounts(), Vec::<PathBuf>::new());
    assert_eq!(device.list(), []);
}

#[test]
fn out_of_memory_is_told() {
    if !possible() {
        return;
    }
    let mut device = Device::new("oom");
    let resources = Resources {
        memory_bytes: Some(16 << 20),
        ..Resources::default()
    };
    let greedy = Oci {
        // dd holds its whole buffer in memory.
        command: shell("exec dd if=/dev/zero of=/dev/null bs=64M count=1"),
        resources,
        ..Oci::default()
    };
    let (instance, _) = device.start(&with("greedy", greedy));
    assert_eq!(
        device.exited(&instance),
        Exit {
            code: 137,
            out_of_memory: true,
            damaged: None,
        }
    );
}

fn probed(device: &mut Device, instance: &Instance, probe: Probe) -> Result<(), String> {
    device.submit(RuntimeCommand::Probe {
        instance: instance.clone(),
        probe,
        timeout: Duration::from_secs(2),
    });
    device.wait("Probed", |event| match event {
        RuntimeEvent::Probed {
            instance: i,
            outcome,
        } if i == instance => Some(outcome.clone()),
        _ => None,
    })
}

#[test]
fn probes() {
    if !possible() {
        return;
    }
    let mut device = Device::new("probe");
    let server = Oci {
        command: shell("echo hello > /data/index.html; exec httpd -f -p 8099 -h /data"),
        // A network of its own: the probe must be asked in there.
        network: Network::None,
        ..Oci::default()
    };
    let server = with("server", server);
    let (instance, _) = device.start(&server);
    let tcp = |port| Probe::Tcp { port };
    until("it serves", || {
        probed(&mut device, &instance, tcp(8099)).is_ok()
    });
    assert!(
        probed(&mut device, &instance, tcp(8098))
            .unwrap_err()
            .contains("8098")
    );
    let http = |path: &str| Probe::Http {
        port: 8099,
        path: path.to_owned(),
    };
    assert_eq!(probed(&mut device, &instance, http("/index.html")), Ok(()));
    assert!(
        probed(&mut device, &instance, http("/none"))
            .unwrap_err()
            .contains("404")
    );
    let exec = |script: &str| Probe::Exec(shell(script).unwrap());
    assert_eq!(
        probed(&mut device, &instance, exec("test -f /data/index.html")),
        Ok(())
    );
    assert!(
        probed(&mut device, &instance, exec("exit 4"))
            .unwrap_err()
            .contains("code 4")
    );
    let slow = probed(&mut device, &instance, exec("sleep 77")).unwrap_err();
    assert!(slow.contains("longer than"), "{slow}");
    until("the slow command is gone", || {
        linux::process::find(|args| args == [b"sleep".to_vec(), b"77".to_vec()]).is_empty()
    });
    device.stop(&instance, SECOND);
    assert!(probed(&mut device, &instance, tcp(8099)).is_err());
}

#[test]
fn logs_stay_within_their_size() {
    if !possible() {
        return;
    }
    let mut device = Device::new("logs");
    let noisy = Oci {
        command: shell("yes 0123456789abcdef | head -c 20000000; echo end; sleep 1000"),
        logs: Logs {
            max_bytes: 100_000,
            files: 2,
            ..Logs::default()
        },
        ..Oci::default()
    };
    let noisy = with("noisy", noisy);
    let (instance, _) = device.start(&noisy);
    let log = device.log(&noisy);
    let folder = log.parent().unwrap().to_owned();
    let total = || -> u64 {
        let files = fs::read_dir(&folder).unwrap();
        files
            .filter_map(|file| file.ok()?.metadata().ok())
            .map(|found| found.len())
            .sum()
    };
    until("the end is in the log", || {
        fs::read_to_string(&log).is_ok_and(|text| text.ends_with("end\n"))
    });
    until("rotated", || total() <= 300_000);
    assert!(!folder.join("console.log.3").exists());
    device.stop(&instance, SECOND);
}

#[test]
fn callers_are_known_by_their_control_group() {
    if !possible() {
        return;
    }
    let mut device = Device::new("caller");
    let (instance, pid) = device.start(&container("app", "sleep 1000 & sleep 1000"));
    let callers = device.adapter.as_ref().unwrap().callers().unwrap();
    let identify = |pid: u32| {
        let held = linux::process::Process::open(pid);
        held.and_then(|held| linux::peer::place(&held))
            .map_or(Caller::Unknown, |place| callers.identify(&place))
    };
    let app = Caller::Container("app".parse().unwrap());
    assert_eq!(identify(pid), app);
    let child = |pid: u32| {
        let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        list.split_whitespace()
            .next()
            .map(|pid| pid.parse::<u32>().unwrap())
    };
    until("it has a child", || child(pid).is_some());
    assert_eq!(identify(child(pid).unwrap()), app);
    assert_eq!(identify(std::process::id()), Caller::Host);
    assert_eq!(identify(u32::MAX / 2), Caller::Unknown);
    device.stop(&instance, SECOND);
    assert_eq!(identify(pid), Caller::Unknown);
}

#[test]
fn twenty_at_once() {
    if !possible() {
        return;
    }
    let mut device = Device::new("twenty");
    let begun = Instant::now();
    let instances: Vec<_> = (0..20)
        .map(|number| {
            let spec = device.spec(&container(&format!("c{number}"), "sleep 1000"));
            let instance = spec.instance.clone();
            device.submit(RuntimeCommand::Start(spec));
            instance
        })
        .collect();
    for instance in &instances {
        device.started(instance);
    }
    eprintln!("20 containers running after {:?}", begun.elapsed());
    let found = device.list();
    assert_eq!(found.len(), 20);
    assert!(found.iter().all(|found| running(found).is_some()));
    // One mount of the image for all of them.
    let images = device.config.run_dir.join("images");
    assert_eq!(
        device
            .mounts()
            .iter()
            .filter(|path| path.starts_with(&images))
            .count(),
        1
    );
    let begun = Instant::now();
    for instance in &instances {
        device.submit(RuntimeCommand::Stop {
            instance: instance.clone(),
            signal: 9,
            timeout: SECOND,
        });
    }
    for instance in &instances {
        let gone = RuntimeEvent::Stopped(instance.clone());
        device.wait("Stopped", |event| (*event == gone).then_some(()));
    }
    eprintln!("and gone after {:?}", begun.elapsed());
    assert_eq!(device.mounts(), Vec::<PathBuf>::new());
}
