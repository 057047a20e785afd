//! Every problem code has a case that shows it, at its exact place, and every limit a case that is still accepted.

// Helpers of tests; the crate under test stays pure.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm
)]

use std::collections::BTreeSet;

use model::manifest::{CODES, Problem, Rejected};
use model::{Manifest, limits};
use proptest::prelude::*;
use serde_json::{Value, json};

const HASH: &str = "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";
const SPEC: &str = "\"#spec\":\"pantavisor-service-system@1\"";

/// A container `web` of our kind that nothing is wrong with, changed by `run`.
fn web(run: &Value) -> Value {
    let mut base = json!({
        "#spec": "service-manifest-run@1", "name": "web", "type": "oci",
        "root-volume": "root.squashfs", "command": ["/bin/web"],
    });
    merge(&mut base, run);
    base
}

/// A manifest with `web` and a device.json, changed by `run` and `entries`; `null` removes.
fn manifest(run: &Value, entries: &Value) -> Value {
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

fn merge(base: &mut Value, change: &Value) {
    for (name, value) in change.as_object().unwrap() {
        match value {
            Value::Null => drop(base.as_object_mut().unwrap().remove(name)),
            value => base[name] = value.clone(),
        }
    }
}

fn other(name: &str, run: &Value) -> Value {
    let mut base = web(&json!({"name": name, "root-volume": null, "status_goal": "MOUNTED"}));
    merge(&mut base, run);
    base
}

fn parse(manifest: &Value) -> Result<Manifest, Rejected> {
    Manifest::parse(manifest.to_string().as_bytes())
}

fn problems(text: &[u8]) -> Vec<Problem> {
    Manifest::parse(text)
        .expect_err("there is a problem")
        .problems
}

/// Asserts that this is the one problem.
fn assert_only(problems: &[Problem], code: &str, pointer: &str) {
    let found: Vec<_> = problems
        .iter()
        .map(|p| (p.code, p.pointer.as_str()))
        .collect();
    assert_eq!(found, [(code, pointer)], "{problems:#?}");
    assert!(!problems[0].detail.is_empty() && !problems[0].remedy.is_empty());
}

/// Fields of run.json: code, pointer below it, fields.
fn run_cases() -> Vec<(&'static str, &'static str, Value)> {
    let long = "a".repeat(256);
    vec![
        ("missing-name", "", json!({"name": null})),
        ("wrong-name", "/name", json!({"name": "wep"})),
        ("wrong-type", "/name", json!({"name": 5})),
        ("unknown-type", "/type", json!({"type": "docker"})),
        ("unknown-group", "/group", json!({"group": "ap"})),
        ("unknown-group", "/runlevel", json!({"runlevel": "root"})),
        (
            "unknown-goal",
            "/status_goal",
            json!({"status_goal": "started"}),
        ),
        (
            "unknown-restart-policy",
            "/restart_policy",
            json!({"restart_policy": "always"}),
        ),
        (
            "unknown-recovery-policy",
            "/auto_recovery/policy",
            json!({"auto_recovery": {"policy": "on-fail"}}),
        ),
        (
            "out-of-range",
            "/auto_recovery/max_retries",
            json!({"auto_recovery": {"max_retries": -1}}),
        ),
        (
            "out-of-range",
            "/auto_recovery/backoff_factor",
            json!({"auto_recovery": {"backoff_factor": 0.5}}),
        ),
        (
            "bad-duration",
            "/auto_recovery/retry_delay",
            json!({"auto_recovery": {"retry_delay": "5d"}}),
        ),
        (
            "bad-duration",
            "/auto_recovery/stable_timeout",
            json!({"auto_recovery": {"stable_timeout": -1}}),
        ),
        (
            "bad-backoff-policy",
            "/auto_recovery/backoff_policy",
            json!({"auto_recovery": {"backoff_policy": "later"}}),
        ),
        ("wrong-type", "/auto_recovery", json!({"auto_recovery": []})),
        ("wrong-type", "/roles/1", json!({"roles": ["mgmt", 5]})),
        (
            "missing-key",
            "/root-volume",
            json!({"root-volume": "root.squash"}),
        ),
        (
            "missing-key",
            "/root-volume",
            json!({"root-volume": "../web/root.squashfs"}),
        ),
        (
            "missing-key",
            "/volumes/0",
            json!({"volumes": ["more.squashfs"]}),
        ),
        ("missing-root-volume", "", json!({"root-volume": null})),
        ("missing-command", "", json!({"command": null})),
        (
            "missing-command",
            "",
            json!({"command": null, "image-config": {"config": {"Cmd": []}}}),
        ),
        ("empty-command", "/command", json!({"command": []})),
        ("wrong-type", "/command/1", json!({"command": ["a", 1]})),
        ("nul-byte", "/command/1", json!({"command": ["a", "b\0"]})),
        (
            "too-many-items",
            "/command",
            json!({"command": vec!["a"; limits::LIST_ITEMS_MAX + 1]}),
        ),
        (
            "bad-image-config",
            "/image-config",
            json!({"image-config": {"config": {"Cmd": "sh"}}}),
        ),
        ("bad-env", "/env/1", json!({"env": ["A=", "B"]})),
        ("bad-env", "/env/0", json!({"env": ["=x"]})),
        ("bad-path", "/workdir", json!({"workdir": "tmp"})),
        ("bad-user", "/user", json!({"user": "a:b:c"})),
        ("bad-user", "/user", json!({"user": "4294967295"})),
        ("bad-hostname", "/hostname", json!({"hostname": "-a"})),
        (
            "bad-path",
            "/mounts/0/source",
            json!({"mounts": [{"source": "/a/../b", "target": "/b"}]}),
        ),
        (
            "missing-path",
            "/mounts/0",
            json!({"mounts": [{"source": "/a"}]}),
        ),
        (
            "unknown-field",
            "/mounts/0/readonly",
            json!({"mounts": [{"source": "/a", "target": "/b", "readonly": true}]}),
        ),
        (
            "path-conflict",
            "/mounts/1",
            json!({"mounts": [{"source": "/a", "target": "/b"}, {"source": "/c", "target": "/b/"}]}),
        ),
        (
            "path-conflict",
            "/mounts/0",
            json!({
                "storage": {"data": {"persistence": "boot", "path": "/b"}},
                "mounts": [{"source": "/a", "target": "/b"}],
            }),
        ),
        (
            "path-conflict",
            "/storage/docker--b",
            json!({"storage": {
                "data": {"persistence": "boot", "path": "/b"}, "docker--b": {"persistence": "boot"},
            }}),
        ),
        ("bad-device", "/devices/0", json!({"devices": ["/sys/x"]})),
        (
            "bad-path",
            "/devices/0/path",
            json!({"devices": [{"path": "/dev/../mem"}]}),
        ),
        (
            "bad-access",
            "/devices/0/access",
            json!({"devices": [{"path": "/dev/a", "access": "rr"}]}),
        ),
        (
            "unknown-capability",
            "/capabilities/add/0",
            json!({"capabilities": {"add": ["CAP_NET_ADMINS"]}}),
        ),
        ("unknown-seccomp", "/seccomp", json!({"seccomp": "off"})),
        ("wrong-type", "/read-only", json!({"read-only": "yes"})),
        (
            "bad-size",
            "/resources/memory",
            json!({"resources": {"memory": "64Q"}}),
        ),
        (
            "bad-size",
            "/resources/memory",
            json!({"resources": {"memory": "1023K"}}),
        ),
        (
            "out-of-range",
            "/resources/memory",
            json!({"resources": {"memory": 1_048_575}}),
        ),
        (
            "out-of-range",
            "/resources/cpu",
            json!({"resources": {"cpu": 0}}),
        ),
        (
            "out-of-range",
            "/resources/pids",
            json!({"resources": {"pids": 0}}),
        ),
        (
            "out-of-range",
            "/resources/io",
            json!({"resources": {"io": 1001}}),
        ),
        (
            "unknown-network-mode",
            "/network/mode",
            json!({"network": {"mode": "bridge"}}),
        ),
        (
            "missing-pool",
            "/network",
            json!({"network": {"mode": "pool"}}),
        ),
        (
            "unknown-pool",
            "/network/pool",
            json!({"network": {"pool": "wan"}}),
        ),
        (
            "address-outside-pool",
            "/network/ip",
            json!({"network": {"pool": "lan", "ip": "10.0.4.1"}}),
        ),
        (
            "address-outside-pool",
            "/network/ip",
            json!({"network": {"pool": "lan", "ip": "10.0.3.1"}}),
        ),
        (
            "bad-address",
            "/network/ip",
            json!({"network": {"pool": "lan", "ip": "10.0.3"}}),
        ),
        (
            "bad-mac",
            "/network/mac",
            json!({"network": {"pool": "lan", "mac": "01:00:00:00:00:00"}}),
        ),
        ("bad-health", "/health", json!({"health": {}})),
        (
            "bad-health",
            "/health",
            json!({"health": {"tcp": 1, "ready": true}}),
        ),
        (
            "out-of-range",
            "/health/tcp",
            json!({"health": {"tcp": 65_536}}),
        ),
        (
            "bad-path",
            "/health/http/path",
            json!({"health": {"http": {"port": 1, "path": "x y"}}}),
        ),
        (
            "out-of-range",
            "/health/interval",
            json!({"health": {"tcp": 1, "interval": 0}}),
        ),
        (
            "out-of-range",
            "/health/retries",
            json!({"health": {"tcp": 1, "retries": 0}}),
        ),
        (
            "unknown-dependency",
            "/depends-on/0",
            json!({"depends-on": ["db"]}),
        ),
        (
            "unknown-dependency",
            "/depends-on/0",
            json!({"depends-on": ["../x"]}),
        ),
        (
            "dependency-cycle",
            "/depends-on/0",
            json!({"depends-on": ["web"]}),
        ),
        (
            "unknown-signal",
            "/stop-signal",
            json!({"stop-signal": "SIGTREM"}),
        ),
        ("out-of-range", "/stop-signal", json!({"stop-signal": 65})),
        (
            "bad-duration",
            "/stop-timeout",
            json!({"stop-timeout": "366000000s"}),
        ),
        (
            "out-of-range",
            "/logs/files",
            json!({"logs": {"files": 101}}),
        ),
        ("unknown-field", "/comand", json!({"comand": ["x"]})),
        (
            "missing-persistence",
            "/storage/data",
            json!({"storage": {"data": {"path": "/data"}}}),
        ),
        (
            "unknown-persistence",
            "/storage/data/persistence",
            json!({"storage": {"data": {"path": "/data", "persistence": "forever"}}}),
        ),
        (
            "missing-path",
            "/storage/data",
            json!({"storage": {"data": {"persistence": "boot"}}}),
        ),
        (
            "bad-volume-name",
            "/storage/..",
            json!({"storage": {"..": {"persistence": "boot", "path": "/x"}}}),
        ),
        (
            "bad-volume-name",
            &*Box::leak(format!("/storage/{long}").into_boxed_str()),
            json!({"storage": {&*long: {"persistence": "boot", "path": "/x"}}}),
        ),
        (
            "bad-path",
            "/storage/data/path",
            json!({"storage": {"data": {"persistence": "boot", "path": "/"}}}),
        ),
        (
            "unknown-disk",
            "/storage/data/disk",
            json!({"storage": {"data": {"persistence": "boot", "path": "/x", "disk": "secret"}}}),
        ),
        (
            "too-many-volumes",
            "/storage",
            json!({"storage": many_volumes(limits::VOLUMES_MAX + 1)}),
        ),
    ]
}

fn many_volumes(count: usize) -> Value {
    let volume = |n| {
        (
            format!("v{n}"),
            json!({"persistence": "boot", "path": format!("/v{n}")}),
        )
    };
    Value::Object((0..count).map(volume).collect())
}

fn many_groups(count: usize) -> Value {
    Value::Array(
        (0..count)
            .map(|n| json!({"name": format!("g{n}")}))
            .collect(),
    )
}

fn many_containers(count: usize) -> Value {
    let run = |n| {
        (
            format!("c{n}/run.json"),
            other(&format!("c{n}"), &json!({})),
        )
    };
    Value::Object((0..count).map(run).collect())
}

fn nested(depth: usize) -> Value {
    (0..depth).fold(json!(1), |inner, _| json!([inner]))
}

/// Keys of the manifest: code, pointer, entries.
fn entry_cases() -> Vec<(&'static str, &'static str, Value)> {
    let device = |fields: Value| {
        let mut base = json!({"groups": [{"name": "app"}]});
        merge(&mut base, &fields);
        json!({"device.json": base})
    };
    let pool = |fields: Value| device(json!({"network": {"pools": {"lan": fields}}}));
    let long_name = "c".repeat(65);
    vec![
        ("missing-spec", "", json!({"#spec": null})),
        (
            "unknown-spec",
            "/#spec",
            json!({"#spec": "pantavisor-service-system@2"}),
        ),
        ("unknown-spec", "/#spec", json!({"#spec": 1})),
        ("unclean-key", "/..~1x", json!({"../x": HASH})),
        ("unclean-key", "/~1x", json!({"/x": HASH})),
        ("unclean-key", "/a~1~1x", json!({"a//x": HASH})),
        ("unclean-key", "/a\0x", json!({"a\0x": HASH})),
        ("unclean-key", "/", json!({"": HASH})),
        (
            "unclean-key",
            &*Box::leak(format!("/{}", "x".repeat(256)).into_boxed_str()),
            json!({"x".repeat(256): HASH}),
        ),
        ("reserved-path", "/.pvr~1json", json!({".pvr/json": HASH})),
        ("bad-value", "/web~1x", json!({"web/x": 5})),
        ("bad-value", "/web~1x", json!({"web/x": true})),
        ("bad-object-name", "/web~1x", json!({"web/x": "abc"})),
        (
            "bad-object-name",
            "/web~1x",
            json!({"web/x": HASH.to_uppercase()}),
        ),
        (
            "bad-object-name",
            "/web~1x.json",
            json!({"web/x.json": "abc"}),
        ),
        (
            "path-conflict",
            "/web~1root.squashfs~1x",
            json!({"web/root.squashfs/x": HASH}),
        ),
        (
            "path-conflict",
            "/_config~1web~1x~1y~1z",
            json!({"_config/web/x": HASH, "_config/web/x-": HASH, "_config/web/x/y/z": {}}),
        ),
        (
            "too-deep",
            "/web~1x.json",
            json!({"web/x.json": nested(limits::JSON_DEPTH_MAX + 1)}),
        ),
        ("not-inline", "/db~1run.json", json!({"db/run.json": HASH})),
        ("not-inline", "/device.json", json!({"device.json": HASH})),
        ("wrong-type", "/db~1run.json", json!({"db/run.json": []})),
        (
            "bad-container-name",
            &*Box::leak(format!("/{long_name}~1run.json").into_boxed_str()),
            json!({format!("{long_name}/run.json"): {}}),
        ),
        (
            "file-too-large",
            "/db~1run.json",
            json!({"db/run.json": {"x": "y".repeat(limits::INLINE_READ_BYTES_MAX)}}),
        ),
        (
            "image-not-object",
            "/web~1run.json/root-volume",
            json!({"web/root.squashfs": {}}),
        ),
        (
            "unknown-image-format",
            "/web~1run.json/root-volume",
            json!({
                "web/root.tar": HASH, "web/run.json": web(&json!({"root-volume": "root.tar"})),
            }),
        ),
        (
            "missing-key",
            "/db~1run.json",
            json!({"db/run.json": {"name": "db", "root-volume": "r.erofs"}, "db/r.erofs": HASH}),
        ),
        (
            "missing-key",
            "/db~1run.json/config",
            json!({"db/run.json": {"name": "db", "config": "x", "status_goal": "MOUNTED"}}),
        ),
        (
            "later-dependency",
            "/web~1run.json/depends-on/0",
            json!({
                "db/run.json": other("db", &json!({"group": "app"})),
                "web/run.json": web(&json!({"group": "base", "depends-on": ["db"]})),
            }),
        ),
        (
            "address-conflict",
            "/web~1run.json/network/ip",
            json!({
                "db/run.json": other("db", &json!({"network": {"pool": "lan", "ip": "10.0.3.9"}})),
                "web/run.json": web(&json!({"network": {"pool": "lan", "ip": "10.0.3.9"}})),
            }),
        ),
        (
            "missing-name",
            "/device.json/groups/0",
            device(json!({"groups": [{}, {"name": "a"}]})),
        ),
        (
            "bad-group-name",
            "/device.json/groups/0/name",
            device(json!({"groups": [{"name": "a/b"}]})),
        ),
        (
            "duplicate-group",
            "/device.json/groups/1/name",
            device(json!({"groups": [{"name": "a"}, {"name": "a"}]})),
        ),
        (
            "unknown-goal",
            "/device.json/groups/0/status_goal",
            device(json!({"groups": [{"name": "a", "status_goal": "X"}]})),
        ),
        (
            "bad-duration",
            "/device.json/groups/0/timeout",
            device(json!({"groups": [{"name": "a", "timeout": "x"}]})),
        ),
        (
            "too-many-groups",
            "/device.json/groups",
            device(json!({"groups": many_groups(limits::GROUPS_MAX + 1)})),
        ),
        (
            "missing-name",
            "/device.json/disks/0",
            device(json!({"disks": [{}]})),
        ),
        (
            "missing-subnet",
            "/device.json/network/pools/lan",
            pool(json!({})),
        ),
        (
            "bad-subnet",
            "/device.json/network/pools/lan/subnet",
            pool(json!({"subnet": "10.0.3.0/33"})),
        ),
        (
            "unknown-pool-type",
            "/device.json/network/pools/lan/type",
            pool(json!({"subnet": "10.0.3.0/24", "type": "vlan"})),
        ),
        (
            "address-outside-pool",
            "/device.json/network/pools/lan/gateway",
            pool(json!({"subnet": "10.0.3.0/24", "gateway": "10.0.4.1"})),
        ),
        (
            "bad-pool-name",
            "/device.json/network/pools/",
            device(json!({"network": {"pools": {"": {}}}})),
        ),
        (
            "too-many-containers",
            "/web~1run.json",
            many_containers(limits::CONTAINERS_MAX),
        ),
    ]
}

/// Texts that are no value tree: code, pointer, text.
fn text_cases() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let keys = |count: usize| {
        let keys: String = (1..count)
            .map(|n| format!(",\"k/{n}\":\"{HASH}\""))
            .collect();
        format!("{{{SPEC}{keys}}}").into_bytes()
    };
    let sized = |bytes: usize| {
        let mut text = format!("{{{SPEC}}}").into_bytes();
        text.resize(bytes, b' ');
        text
    };
    assert!(Manifest::parse(&keys(limits::MANIFEST_KEYS_MAX)).is_ok());
    assert!(Manifest::parse(&sized(limits::MANIFEST_BYTES_MAX)).is_ok());
    vec![
        ("too-many-keys", "", keys(limits::MANIFEST_KEYS_MAX + 1)),
        (
            "manifest-too-large",
            "",
            sized(limits::MANIFEST_BYTES_MAX + 1),
        ),
        ("invalid-json", "", b"".to_vec()),
        ("invalid-json", "", b"{\"#spec\":".to_vec()),
        ("invalid-json", "", b"[]".to_vec()),
        ("invalid-json", "", format!("{{{SPEC}}}x").into_bytes()),
        (
            "invalid-json",
            "/a~1run.json",
            format!("{{{SPEC},\"a/run.json\":{{\"x\":\"\\ud800\"}}}}").into_bytes(),
        ),
        ("not-utf8", "", b"{\"\xff\":1}".to_vec()),
        (
            "duplicate-key",
            "/a",
            format!("{{{SPEC},\"a\":\"{HASH}\",\"b\":\"{HASH}\",\"a\":\"{HASH}\"}}").into_bytes(),
        ),
        (
            "duplicate-key",
            "/#spec",
            format!("{{{SPEC},{SPEC}}}").into_bytes(),
        ),
        (
            "duplicate-field",
            "/device.json/groups/0/name",
            format!(
                "{{{SPEC},\"device.json\":{{\"groups\":[{{\"name\":\"a\",\"name\":\"a\"}}]}}}}"
            )
            .into_bytes(),
        ),
    ]
}

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
