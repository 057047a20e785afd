//! "What it says is what then happens", on real containers: each of ten updates is planned, run, and compared by process.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;

use acceptance::device::Device;
use acceptance::image::busybox;
use acceptance::manifest::Manifest;
use acceptance::needs_containers;
use serde_json::{Value, json};

/// Process of each container that runs.
fn processes(device: &Device) -> BTreeMap<String, u64> {
    let status = device.socket.get("/status").expect("an answer").json();
    let containers = status["containers"].as_array().expect("a list");
    let running = containers.iter().filter_map(|container| {
        let name = container["name"].as_str()?.to_owned();
        Some((name, container["pid"].as_u64()?))
    });
    running.collect()
}

fn objects(device: &Device) -> usize {
    let list = device.socket.get("/objects").expect("an answer").json();
    list.as_array().expect("a list").len()
}

/// The plan, once containerd has said what runs.
fn plan(device: &Device, revision: &str) -> Value {
    let path = format!("/steps/{revision}/plan");
    for _ in 0..300 {
        let answer = device.socket.post(&path, "").expect("an answer");
        if answer.status == 200 {
            return answer.json();
        }
        assert!(
            answer.text().contains("has not said yet"),
            "{}",
            answer.text()
        );
        sleep(Duration::from_millis(100));
    }
    panic!("containerd did not answer within 30 s");
}

/// Each next revision, from the containers that it has: name, argument of `sleep`, and what else is in its run.json.
fn revisions() -> Vec<Vec<(&'static str, &'static str, Value)>> {
    let plain = || json!({});
    vec![
        vec![("a", "1000", plain()), ("b", "1000", plain())],
        // Changed.
        vec![("a", "1001", plain()), ("b", "1000", plain())],
        // One more.
        vec![
            ("a", "1001", plain()),
            ("b", "1000", plain()),
            ("c", "1000", plain()),
        ],
        // One less.
        vec![("a", "1001", plain()), ("c", "1000", plain())],
        // Other settings only.
        vec![
            ("a", "1001", json!({"stop-timeout": 3})),
            ("c", "1000", json!({"depends-on": ["a"]})),
        ],
        // Nothing.
        vec![
            ("a", "1001", json!({"stop-timeout": 3})),
            ("c", "1000", json!({"depends-on": ["a"]})),
        ],
        // All of it.
        vec![
            ("a", "1002", plain()),
            ("c", "1001", json!({"depends-on": ["a"]})),
        ],
        // Environment, and one that comes back.
        vec![
            ("a", "1002", json!({"env": ["A=1"]})),
            ("b", "1000", plain()),
            ("c", "1001", plain()),
        ],
        // Others altogether.
        vec![
            ("x", "1000", plain()),
            ("y", "1000", json!({"depends-on": ["x"]})),
        ],
        // Back.
        vec![("a", "1000", plain()), ("b", "1000", plain())],
        // Read-only root, and limits.
        vec![
            ("a", "1000", json!({"read-only": true})),
            ("b", "1000", json!({"resources": {"pids": 50}})),
        ],
    ]
}

#[test]
fn ten_updates_do_what_their_plans_say() {
    needs_containers!();
    let device = Device::start();
    let image = busybox(&[]);
    device.put_object(&image);
    let mut compared = BTreeMap::new();
    for (number, parts) in revisions().into_iter().enumerate() {
        let revision = format!("locals/r{number}");
        let mut manifest = Manifest::new();
        for (name, time, run) in parts {
            manifest = manifest.container(name, &image, &["/bin/sleep", time], run);
        }
        // Text order of two manifests with the same keys is the same: a note makes another revision of equal containers.
        let manifest = manifest.key("note.json", json!({"revision": number}));
        device.put_revision(&revision, &manifest);
        let plan = plan(&device, &revision);
        let (before, had) = (processes(&device), objects(&device));
        device.run(&revision);
        assert_eq!(device.wait_final(&revision).0, "DONE");
        let (after, has) = (processes(&device), objects(&device));
        let mut told = BTreeMap::new();
        for container in plan["containers"].as_array().expect("a list") {
            let name = container["name"].as_str().expect("a name").to_owned();
            told.insert(name, container["fate"].as_str().expect("a fate").to_owned());
        }
        let mut real = BTreeMap::new();
        for name in before.keys().chain(after.keys()) {
            let fate = match (before.get(name), after.get(name)) {
                (Some(one), Some(other)) if one == other => "kept",
                (Some(_), Some(_)) => "restarted",
                (None, _) => "started",
                (Some(_), None) => "stopped",
            };
            real.insert(name.clone(), fate.to_owned());
        }
        assert_eq!(told, real, "{revision}: {plan}");
        assert_eq!(plan["way"], "in-place");
        assert_eq!(plan["objects"]["missing"], json!([]));
        assert_eq!(plan["space"]["freed_objects"], json!(had - has));
        for fate in real.into_values() {
            *compared.entry(fate).or_insert(0) += 1;
        }
    }
    for fate in ["kept", "restarted", "started", "stopped"] {
        assert!(
            compared.get(fate).is_some_and(|count| *count > 2),
            "{compared:?}"
        );
    }
}
