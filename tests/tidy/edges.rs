//! Who may depend on whom: `model <- lifecycle <- device`, `model <- store <- device`, `model <- api <- {server, client}`;
//! adapters implement ports that their user owns; cloud clients know only `api`, `client` and `link`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Every edge between crates of the workspace that is allowed (normal and build dependencies).
const ALLOWED: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("lifecycle", &["model"]),
    ("api", &["model"]),
    ("store", &["model"]),
    ("device", &["lifecycle", "model", "store"]),
    ("server", &["api", "device", "model", "store"]),
    ("client", &["api", "model"]),
    ("linux", &["device", "model", "store"]),
    ("logger", &["linux", "model"]),
    ("containerd", &["device", "linux", "logger", "model"]),
    ("simulator", &["device", "lifecycle", "model", "store"]),
    (
        "coxswain",
        &[
            "api",
            "bridge",
            "containerd",
            "device",
            "linux",
            "logger",
            "model",
            "server",
            "store",
        ],
    ),
    ("coxctl", &["api", "client", "model"]),
    ("link", &["api", "client", "model"]),
    ("coxswain-hawkbit", &["client", "link", "model"]),
    ("ready", &[]),
    ("bridge", &[]),
    ("inside", &[]),
    ("acceptance", &[]),
    ("clouds", &["acceptance", "coxswain-hawkbit", "link"]),
    ("benches", &["acceptance", "lifecycle", "model"]),
];

/// Crates that may not touch files, sockets, clocks, threads or an async run time, and what they may use from outside.
const PURE: &[(&str, &[&str])] = &[
    (
        "model",
        &[
            "schemars",
            "serde",
            "serde_json",
            "sha2",
            "strsim",
            "thiserror",
        ],
    ),
    ("lifecycle", &["serde", "thiserror"]),
    ("api", &["schemars", "serde", "serde_json", "thiserror"]),
];

fn normal_dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs: it started this test");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let packages = metadata["packages"]
        .as_array()
        .expect("cargo metadata lists packages");
    let dependencies = packages.iter().map(|package| {
        let all = package["dependencies"]
            .as_array()
            .expect("each package lists dependencies");
        let normal = all.iter().filter(|dependency| dependency["kind"] != "dev");
        let names = normal.filter_map(|dependency| dependency["name"].as_str().map(str::to_owned));
        (
            package["name"].as_str().unwrap_or_default().to_owned(),
            names.collect(),
        )
    });
    dependencies.collect()
}

#[test]
fn crates_depend_one_way() {
    let dependencies = normal_dependencies();
    let ours: BTreeSet<&str> = dependencies.keys().map(String::as_str).collect();
    let mut wrong = Vec::new();
    let mut listed = BTreeSet::new();
    for (name, _) in ALLOWED {
        if !ours.contains(name) {
            wrong.push(format!("{name} is listed and is no crate of the workspace"));
        }
        if !listed.insert(name) {
            wrong.push(format!("{name} is listed twice"));
        }
    }
    for (name, uses) in &dependencies {
        let Some((_, allowed)) = ALLOWED.iter().find(|(crate_name, _)| crate_name == name) else {
            wrong.push(format!(
                "{name} is not in the list of tests/tidy/edges.rs: add it with its edges"
            ));
            continue;
        };
        for used in uses.iter().filter(|used| ours.contains(used.as_str())) {
            if !allowed.contains(&used.as_str()) {
                wrong.push(format!("{name} -> {used} is not an allowed edge"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pure_crates_use_only_pure_crates() {
    let dependencies = normal_dependencies();
    let ours: BTreeSet<&str> = dependencies.keys().map(String::as_str).collect();
    for (name, allowed) in PURE {
        for used in dependencies[*name]
            .iter()
            .filter(|used| !ours.contains(used.as_str()))
        {
            assert!(
                allowed.contains(&used.as_str()),
                "{name} is pure and may not use {used}"
            );
        }
    }
}

#[test]
fn pure_crates_are_guarded_by_clippy() {
    for (name, _) in PURE {
        let path = format!(
            "{}/../orchestrator/{name}/clippy.toml",
            env!("CARGO_MANIFEST_DIR")
        );
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        for banned in [
            "std::fs",
            "std::net",
            "std::time::Instant::now",
            "std::thread::spawn",
            "std::env::var",
        ] {
            assert!(text.contains(banned), "{path} does not ban {banned}");
        }
    }
}
