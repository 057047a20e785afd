//! Every problem code has a case that shows it, at its exact place, and every limit a case that is still accepted.

// Helpers of tests; the crate under test stays pure.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    unreachable_pub,
    missing_docs
)]

mod build;
mod cases;
mod hostile;

use std::collections::BTreeSet;

use model::manifest::CODES;
use model::{Manifest, limits};
use serde_json::json;

use build::*;
use cases::{entry_cases, run_cases, text_cases};

#[test]
fn every_code_at_its_place() {
    let mut shown = BTreeSet::new();
    for (code, pointer, run) in run_cases() {
        let text = manifest(&run, &json!({})).to_string();
        assert_only(
            &problems(text.as_bytes()),
            code,
            &format!("/web~1run.json{pointer}"),
        );
        shown.insert(code);
    }
    for (code, pointer, entries) in entry_cases() {
        let text = manifest(&json!({}), &entries).to_string();
        assert_only(&problems(text.as_bytes()), code, pointer);
        shown.insert(code);
    }
    for (code, pointer, text) in text_cases() {
        assert_only(&problems(&text), code, pointer);
        shown.insert(code);
    }
    let all: BTreeSet<&str> = CODES.iter().map(|(code, _)| *code).collect();
    assert_eq!(shown, all);
}

#[test]
fn accepted_at_the_limit() {
    for run in [
        json!({"command": vec!["a"; limits::LIST_ITEMS_MAX]}),
        json!({"storage": many_volumes(limits::VOLUMES_MAX)}),
        json!({"resources": {"memory": "1M", "cpu": 0.001, "pids": 1, "io": 1000}}),
        json!({"resources": {"memory": 1_048_576_u64}}),
        json!({"stop-signal": 64, "stop-timeout": "365h"}),
        json!({"stop-signal": "SIGRTMIN+3", "stop-timeout": 31_536_000}),
        json!({"health": {"tcp": 65_535, "interval": "1ms", "retries": 1}}),
        json!({"user": "4294967294:0"}),
        json!({"user": 0}),
        json!({"env": ["A="]}),
        json!({"workdir": "/"}),
        json!({"devices": ["/dev/ttyS0", {"path": "/dev/bus/usb", "access": "r"}]}),
        json!({"capabilities": {"add": ["NET_ADMIN", "CAP_SYS_TIME"], "drop": ["ALL"]}}),
        json!({"network": {"pool": "lan", "ip": "10.0.3.254", "mac": "02:00:0A:00:03:14"}}),
        json!({"network": {"mode": "none"}}),
        json!({"logs": {"max-size": "4K", "files": 0}}),
        json!({"logs": [{"file": "/var/log/x.log", "truncate": "true"}]}),
        json!({"roles": ["mgmt", "unknown"]}),
        json!({"roles": {"mgmt": true}}),
        json!({"command": null, "image-config": {"config": {"Entrypoint": ["/x"], "Cmd": null}}}),
        json!({"group": null, "volumes": null}),
        json!({"auto_recovery": {"max_retries": 4_294_967_295_u64, "backoff_policy": "10min"}}),
    ] {
        let result = parse(&manifest(&run, &json!({})));
        assert!(result.is_ok(), "{run}: {result:#?}");
    }
    for entries in [
        json!({"x".repeat(255): HASH}),
        json!({"web/x.json": nested(limits::JSON_DEPTH_MAX)}),
        json!({"web/number.json": 5, "web/null.json": null, "web/list": []}),
        json!({"a": HASH, "a-/b": HASH, "a.b/c": HASH}),
        json!({"bsp/run.json": {"linux": "k"}, "_hostconfig/x": HASH, "ACME/default.config": HASH}),
        json!({format!("{}/run.json", "c".repeat(64)): other(&"c".repeat(64), &json!({}))}),
        json!({"dropped/root.squashfs": HASH}),
        json!({"#spec": "pantavisor-multi-platform@1"}),
        many_containers(limits::CONTAINERS_MAX - 1),
        json!({"device.json": {"groups": many_groups(limits::GROUPS_MAX)}}),
    ] {
        let result = parse(&manifest(&json!({}), &entries));
        assert!(result.is_ok(), "{entries}: {result:#?}");
    }
}

#[test]
fn all_at_once_in_text_order() {
    let text = format!(
        r#"{{{SPEC},"z":1,"web/run.json":{{"type":"oci","group":"nope","name":"x","command":["a"],
        "root-volume":"r.squashfs","depends-on":["b","web"]}},"../up":"{HASH}","a":"short"}}"#
    );
    let codes: Vec<_> = problems(text.as_bytes())
        .into_iter()
        .map(|p| p.code)
        .collect();
    assert_eq!(
        codes,
        [
            "bad-value",
            "unknown-group",
            "wrong-name",
            "missing-key",
            "unknown-dependency",
            "dependency-cycle",
            "unclean-key",
            "bad-object-name"
        ]
    );
}

#[test]
fn problems_are_counted_and_cut() {
    let keys: String = (0..5_000).map(|n| format!(",\"k{n}\":1")).collect();
    let rejected = Manifest::parse(format!("{{{SPEC}{keys}}}").as_bytes()).unwrap_err();
    assert_eq!(rejected.total, 5_000);
    assert_eq!(rejected.problems.len(), limits::PROBLEMS_MAX);
    assert_eq!(rejected.problems[0].pointer, "/k0");
    assert_eq!(rejected.problems[99].pointer, "/k99");
}

#[test]
fn longer_circles_are_found() {
    let ring = 40;
    let mut entries = json!({});
    for n in 0..ring {
        let next = format!("c{}", (n + 1) % ring);
        entries[format!("c{n}/run.json")] = other(&format!("c{n}"), &json!({"depends-on": [next]}));
    }
    // Outside the circle, waiting for it: no problem of its own.
    entries["web/run.json"] = web(&json!({"depends-on": ["c0"]}));
    let rejected = parse(&manifest(&json!({}), &entries)).unwrap_err();
    assert_eq!(rejected.total, ring);
    assert!(
        rejected
            .problems
            .iter()
            .all(|p| p.code == "dependency-cycle")
    );
}
