//! Texts that were made to hurt, and texts that chance made: no panic, no stack overflow, no waiting.

use model::Manifest;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::build::*;

/// Nesting far beyond any stack.
#[test]
fn deep_text_is_refused_flatly() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let depth = 500_000;
        let inner = format!("{}1{}", open.repeat(depth), close.repeat(depth));
        let text = format!("{{{SPEC},\"a/run.json\":{inner}}}");
        assert_only(&problems(text.as_bytes()), "too-deep", "/a~1run.json");
        assert_only(
            &problems(&text.as_bytes()[..text.len() / 2]),
            "invalid-json",
            "",
        );
    }
}

/// The worst texts found so far; each must be judged within a time that no caller notices.
#[test]
fn hostile_texts_are_judged_quickly() {
    let mut dense = json!({});
    let names: Vec<String> = (0..120).map(|n| format!("c{n}")).collect();
    for name in &names {
        dense[format!("{name}/run.json")] = other(name, &json!({"depends-on": names}));
    }
    let slashes: String = (0..4_000)
        .map(|n| format!(",\"{}{n}\":\"{HASH}\"", "a/".repeat(480)))
        .collect();
    let fields: String = (0..20_000).map(|n| format!(",\"f{n}\":0")).collect();
    for text in [
        manifest(&json!({}), &dense).to_string(),
        format!("{{{SPEC}{slashes}}}"),
        format!("{{{SPEC},\"a/run.json\":{{\"type\":\"oci\"{fields}}}}}"),
        format!("{{{SPEC},\"a/run.json\":[{}0]}}", "0,".repeat(100_000)),
        format!("{{{SPEC},\"a\":[{}0]}}", "0,".repeat(2_000_000)),
    ] {
        let start = std::time::Instant::now();
        let _verdict = Manifest::parse(text.as_bytes());
        let took = start.elapsed();
        assert!(took.as_secs() < 3, "{took:?} for {} bytes", text.len());
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let words = prop::sample::select(vec![
        "web",
        "app",
        "lxc",
        "oci",
        "MOUNTED",
        "5s",
        "../x",
        "/a",
        "root.squashfs",
        HASH,
        "",
        "lan",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        words.prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        let names = prop::sample::select(vec![
            "name",
            "type",
            "group",
            "groups",
            "storage",
            "network",
            "pool",
            "health",
            "http",
            "command",
            "image-config",
            "config",
            "auto_recovery",
            "roles",
            "mounts",
            "logs",
            "depends-on",
            "capabilities",
            "resources",
            "root-volume",
            "persistence",
            "path",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::vec((names, inner), 0..6).prop_map(|fields| {
                Value::Object(fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
            }),
        ]
    })
}

proptest! {
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _verdict = Manifest::parse(&bytes);
    }

    /// Any JSON in the places that are read: no panic, and every pointer leads somewhere.
    #[test]
    fn any_files(run in any_json(), device in any_json(), more in any_json()) {
        let value = json!({
            "#spec": "pantavisor-service-system@1", "device.json": device, "web/run.json": run,
            "web/root.squashfs": HASH, "db/run.json": more,
        });
        if let Err(rejected) = parse(&value) {
            prop_assert!(rejected.total >= rejected.problems.len());
            for problem in rejected.problems {
                prop_assert!(value.pointer(&problem.pointer).is_some(), "{}", problem.pointer);
            }
        }
    }

    /// A good container with one field replaced by anything.
    #[test]
    fn any_field(index in 0..200usize, value in any_json()) {
        let mut run = web(&json!({
            "group": "app", "storage": {"data": {"persistence": "boot", "path": "/d"}},
            "network": {"pool": "lan", "ip": "10.0.3.7"}, "depends-on": [], "env": ["A=b"],
            "health": {"http": {"port": 80}, "interval": "5s"}, "stop-signal": "TERM",
            "resources": {"memory": "64M"}, "auto_recovery": {"policy": "always"}, "logs": {},
            "mounts": [{"source": "/a", "target": "/b"}], "devices": ["/dev/null"], "user": "0",
        }));
        let fields = run.as_object_mut().unwrap();
        let index = index % fields.len();
        *fields.values_mut().nth(index).unwrap() = value;
        let _verdict = parse(&manifest(&run, &json!({})));
    }

    /// A manifest cut anywhere is refused, never half read.
    #[test]
    fn any_cut(at in 0..1000usize) {
        let text = manifest(&json!({}), &json!({})).to_string();
        let at = at % text.len();
        prop_assert!(Manifest::parse(&text.as_bytes()[..at]).is_err());
    }
}
