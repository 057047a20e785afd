//! Whole manifests: what Pantavisor's tools make is accepted, and read as Pantavisor reads it.

// Helpers of tests; the crate under test stays pure.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use model::container::{Goal, ImageFormat, Kind, RecoveryPolicy, RestartPolicy};
use model::{Container, Manifest};

fn fixture(name: &str) -> Manifest {
    let path = format!("{}/tests/fixtures/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(path).unwrap();
    let manifest = Manifest::parse(&bytes).unwrap_or_else(|error| panic!("{name}: {error:#?}"));
    assert_eq!(manifest.bytes(), bytes);
    manifest
}

fn container<'m>(manifest: &'m Manifest, name: &str) -> &'m Container {
    manifest.container(&name.parse().unwrap()).unwrap()
}

#[test]
fn recorded_factory_revision() {
    let manifest = fixture("pantavisor-factory");
    let names: Vec<_> = manifest.containers().map(|c| c.name.to_string()).collect();
    assert_eq!(names, ["pvr-sdk", "sensor", "web"]);
    let sdk = container(&manifest, "pvr-sdk");
    assert_eq!(sdk.group.as_str(), "platform");
    assert!(sdk.roles.given && sdk.roles.mgmt);
    assert!(!sdk.recovery_given);
    assert_eq!(sdk.stop_signal, 30);
    let sensor = container(&manifest, "sensor");
    assert_eq!(sensor.goal, Goal::Ready);
    assert!(sensor.recovery_given);
    assert_eq!(sensor.recovery.policy, RecoveryPolicy::OnFailure);
    assert_eq!(manifest.groups().len(), 4);
    assert_eq!(manifest.objects().len(), 5);
}

#[test]
fn minimal_without_device_json() {
    let manifest = fixture("pantavisor-minimal");
    let hello = container(&manifest, "hello");
    assert_eq!(hello.group.as_str(), "root");
    assert_eq!(hello.goal, Goal::Started);
    assert_eq!(hello.restart_policy, RestartPolicy::System);
    assert!(!hello.roles.given);
    let root = hello.root.as_ref().unwrap();
    assert_eq!(root.format, ImageFormat::Squashfs);
    assert_eq!(root.handler, None);
}

#[test]
fn full_example() {
    let manifest = fixture("pantavisor-full");
    let web = container(&manifest, "web");
    assert_eq!(web.goal_timeout.as_secs(), 60);
    assert_eq!(web.root.as_ref().unwrap().handler.as_deref(), Some("dm"));
    let paths: Vec<_> = web.volumes.iter().map(|v| v.path.as_deref()).collect();
    assert_eq!(paths, [None, Some("/var/lib/web")]);
    assert_eq!(web.volumes[1].disk.as_deref(), Some("secrets"));
    assert_eq!(
        web.overlays.keys().map(String::as_str).collect::<Vec<_>>(),
        ["etc/web/limits.json", "etc/web/web.conf"]
    );
    assert!(web.roles.given && !web.roles.mgmt);
    let Kind::Lxc(lxc) = &web.kind else {
        panic!("{:?}", web.kind)
    };
    assert_eq!(lxc.key.as_str(), "web/lxc.container.conf");
    assert!(lxc.config.is_some() && lxc.image_config.is_none() && lxc.host_modules);
    assert_eq!(lxc.root_name.as_deref(), Some("root.squashfs"));
    assert_eq!(lxc.hostname.as_deref(), Some("web"));
    assert_eq!(lxc.required_services, ["netctl"]);
    assert!(web.root.as_ref().unwrap().verity.is_some());
    assert!(web.objects().any(|object| Some(object) == lxc.config));
    assert!(manifest.pools().contains_key("lan"));
}

const HASHES: [&str; 2] = [
    "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",
    "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
];

/// The fingerprint of `web` with these fields of run.json and these further keys.
fn fingerprint(fields: &str, keys: &str) -> model::ObjectId {
    let text = format!(
        r##"{{"#spec":"pantavisor-service-system@1",
        "device.json":{{"groups":[{{"name":"one"}},{{"name":"two"}}]}},
        "db/run.json":{{"name":"db","type":"oci","status_goal":"MOUNTED"}},
        "web/root.squashfs":"{}",
        "web/run.json":{{"name":"web","type":"oci","command":["x"],"root-volume":"root.squashfs"{fields}}}{keys}}}"##,
        HASHES[0]
    );
    let manifest = Manifest::parse(text.as_bytes()).unwrap();
    container(&manifest, "web").fingerprint
}

#[test]
fn fingerprint_counts_what_the_process_sees() {
    let base = fingerprint("", "");
    for same in [
        fingerprint(r#","group":"one""#, ""),
        fingerprint(r#","status_goal":"READY""#, ""),
        fingerprint(
            r#","auto_recovery":{"policy":"always"},"depends-on":["db"]"#,
            "",
        ),
        fingerprint(
            r#","health":{"tcp":80},"stop-signal":"INT","stop-timeout":3"#,
            "",
        ),
        fingerprint(
            "",
            r#","web/src.json":{"docker_tag":"2"},"web/build.json":{}"#,
        ),
        fingerprint(
            "",
            r#","_config/db/x":"2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824""#,
        ),
        fingerprint("", r#","_sigs/web.json":{"a":1}"#),
    ] {
        assert_eq!(same, base);
    }
    // A right on the socket holds at once; what is mounted for it, from the next start on.
    let with = |roles: &str| fingerprint(&format!(r#","roles":{roles}"#), "");
    assert_eq!(with(r#"["mgmt"]"#), with(r#"["monitor","mgmt"]"#));
    let mut seen = std::collections::BTreeSet::from([base, with("[]"), with(r#"["mgmt"]"#)]);
    assert_eq!(seen.len(), 3);
    for other in [
        fingerprint(r#","env":["A=1"]"#, ""),
        fingerprint(r#","env":["A=2"]"#, ""),
        fingerprint(r#","read-only":true"#, ""),
        fingerprint(
            r#","storage":{"data":{"persistence":"boot","path":"/d"}}"#,
            "",
        ),
        fingerprint(
            "",
            r#","_config/web/x":"2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824""#,
        ),
        fingerprint("", r#","_config/web/x.json":{"a":1}"#),
        fingerprint("", r#","_config/web/x.json":{"a": 1}"#),
        fingerprint("", r#","web/mdev.json":{}"#),
    ] {
        assert!(seen.insert(other));
    }
}

/// `runlevel`, roles, explicit `no`, inheritance, and the group of those who name none.
#[test]
fn groups_and_inheritance() {
    let text = format!(
        r##"{{"#spec":"pantavisor-service-system@1",
        "b/root.squashfs":"{0}","b/lxc.container.conf":"{1}",
        "b/run.json":{{"name":"b","type":"lxc","root-volume":"root.squashfs"}},
        "a/root.squashfs":"{0}","a/lxc.container.conf":"{1}",
        "a/run.json":{{"name":"a","type":"lxc","root-volume":"root.squashfs"}},
        "c/root.squashfs":"{0}","c/lxc.container.conf":"{1}",
        "c/run.json":{{"name":"c","type":"lxc","root-volume":"root.squashfs","runlevel":"app","auto_recovery":{{"policy":"no"}}}}}}"##,
        HASHES[0], HASHES[1]
    );
    let manifest = Manifest::parse(text.as_bytes()).unwrap();
    let group = |name| container(&manifest, name).group.to_string();
    assert_eq!(
        [group("a"), group("b"), group("c")],
        ["root", "platform", "app"]
    );
    let order: Vec<_> = manifest.containers().map(|c| c.name.to_string()).collect();
    assert_eq!(order, ["b", "a", "c"]);
    let c = container(&manifest, "c");
    assert_eq!(c.recovery.policy, RecoveryPolicy::No);
    assert!(c.recovery_given);
    assert_eq!(c.restart_policy, RestartPolicy::Container);
    assert_eq!(c.goal_timeout.as_secs(), 30);

    let with_groups = text.replacen(
        "\"b/root",
        r#""groups.json":[{"name":"first"},{"name":"app","status_goal":"READY"}],"b/root"#,
        1,
    );
    let manifest = Manifest::parse(with_groups.as_bytes()).unwrap();
    let b = container(&manifest, "b");
    assert_eq!(b.group.as_str(), "app");
    assert_eq!(b.goal, Goal::Ready);
    assert_eq!(b.goal_timeout.as_secs(), 120);
}
