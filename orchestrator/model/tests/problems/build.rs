//! Manifests to be wrong in one way: one good manifest, and what changes it.

use model::Manifest;
use model::manifest::{Problem, Rejected};
use serde_json::{Value, json};

pub const HASH: &str = "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";
pub const SPEC: &str = "\"#spec\":\"pantavisor-service-system@1\"";

/// A container `web` of our kind that nothing is wrong with, changed by `run`.
pub fn web(run: &Value) -> Value {
    let mut base = json!({
        "#spec": "service-manifest-run@1", "name": "web", "type": "oci",
        "root-volume": "root.squashfs", "command": ["/bin/web"],
    });
    merge(&mut base, run);
    base
}

/// A manifest with `web` and a device.json, changed by `run` and `entries`; `null` removes.
pub fn manifest(run: &Value, entries: &Value) -> Value {
    let mut base = json!({
        "#spec": "pantavisor-service-system@1",
        "device.json": {
            "groups": [{"name": "base"}, {"name": "app"}],
            "disks": [{"name": "secrets"}],
            "network": {"pools": {"lan": {
                "type": "bridge", "subnet": "10.0.3.0/24", "gateway": "10.0.3.1",
            }}},
        },
        "web/root.squashfs": HASH,
        "web/run.json": web(run),
    });
    merge(&mut base, entries);
    base
}

pub fn merge(base: &mut Value, change: &Value) {
    for (name, value) in change.as_object().unwrap() {
        match value {
            Value::Null => drop(base.as_object_mut().unwrap().remove(name)),
            value => base[name] = value.clone(),
        }
    }
}

pub fn other(name: &str, run: &Value) -> Value {
    let mut base = web(&json!({"name": name, "root-volume": null, "status_goal": "MOUNTED"}));
    merge(&mut base, run);
    base
}

pub fn parse(manifest: &Value) -> Result<Manifest, Rejected> {
    Manifest::parse(manifest.to_string().as_bytes())
}

pub fn problems(text: &[u8]) -> Vec<Problem> {
    Manifest::parse(text)
        .expect_err("there is a problem")
        .problems
}

/// Asserts that this is the one problem.
pub fn assert_only(problems: &[Problem], code: &str, pointer: &str) {
    let found: Vec<_> = problems
        .iter()
        .map(|p| (p.code, p.pointer.as_str()))
        .collect();
    assert_eq!(found, [(code, pointer)], "{problems:#?}");
    assert!(!problems[0].detail.is_empty() && !problems[0].remedy.is_empty());
}

pub fn many_volumes(count: usize) -> Value {
    let volume = |n| {
        (
            format!("v{n}"),
            json!({"persistence": "boot", "path": format!("/v{n}")}),
        )
    };
    Value::Object((0..count).map(volume).collect())
}

pub fn many_groups(count: usize) -> Value {
    Value::Array(
        (0..count)
            .map(|n| json!({"name": format!("g{n}")}))
            .collect(),
    )
}

pub fn many_containers(count: usize) -> Value {
    let run = |n| {
        (
            format!("c{n}/run.json"),
            other(&format!("c{n}"), &json!({})),
        )
    };
    Value::Object((0..count).map(run).collect())
}

pub fn nested(depth: usize) -> Value {
    (0..depth).fold(json!(1), |inner, _| json!([inner]))
}
