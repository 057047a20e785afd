//! The table: each problem code with a manifest that shows it, and where.

use model::{Manifest, limits};
use serde_json::{Value, json};

use crate::build::*;

/// Fields of run.json: code, pointer below it, fields.
pub fn run_cases() -> Vec<(&'static str, &'static str, Value)> {
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
        (
            "bad-driver-name",
            "/drivers/optional/1",
            json!({"drivers": {"required": [], "optional": ["wifi", "a/b"]}}),
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

/// Keys of the manifest: code, pointer, entries.
pub fn entry_cases() -> Vec<(&'static str, &'static str, Value)> {
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
            "bad-verity",
            "/db~1run.json/root-volume",
            json!({
                "db/root.squashfs": "0".repeat(64),
                "db/_dm/root.squashfs.json": {"type": "dm-verity", "data_device": "other.squashfs"},
                "db/run.json": {"name": "db", "type": "oci", "command": ["x"], "root-volume": "dm:root.squashfs"},
            }),
        ),
        (
            "config-not-object",
            "/db~1run.json/config",
            json!({
                "db/root.squashfs": "0".repeat(64),
                "db/x.json": {},
                "db/run.json": {"name": "db", "type": "lxc", "config": "x.json", "root-volume": "root.squashfs"},
            }),
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
pub fn text_cases() -> Vec<(&'static str, &'static str, Vec<u8>)> {
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
