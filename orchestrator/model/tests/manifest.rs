//! Whole manifests: what Pantavisor's tools make is accepted, and read as Pantavisor reads it.

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
    assert!(
        matches!(&web.kind, Kind::Lxc { config } if config.as_str() == "web/lxc.container.conf")
    );
    assert!(manifest.pools().contains_key("lan"));
}
