//! Plans over the socket: what is missing, what is wrong, what is not there.

use api::messages::plan::{Fate, Plan, Reason, Signatures, Way};
use model::ObjectId;
use serde_json::json;

use crate::device::Bench;
use crate::wire::send;

fn manifest(object: &ObjectId) -> String {
    json!({
        "#spec": "pantavisor-service-system@1",
        "device.json": {"groups": [
            {"name": "app", "status_goal": "STARTED", "restart_policy": "container", "timeout": 30}
        ]},
        "web/run.json": {
            "#spec": "service-manifest-run@1", "name": "web", "type": "oci", "root-volume": "root.squashfs",
            "command": ["/web"],
        },
        "web/root.squashfs": object.to_string(),
    })
    .to_string()
}

fn plan(bench: &Bench, target: &str, body: &str) -> Plan {
    let got = send(&bench.socket, "POST", target, body.as_bytes());
    assert_eq!(got.status(), 200, "{}", got.text());
    serde_json::from_slice(&got.body).expect("a plan")
}

#[test]
fn of_a_posted_and_of_an_installed_manifest() {
    let bench = Bench::start();
    let bytes = b"the root file system";
    let object = ObjectId::of(bytes);
    let text = manifest(&object);
    let posted = plan(&bench, "/plan", &text);
    assert_eq!((posted.revision, posted.way), (None, Way::InPlace));
    assert_eq!(posted.manifest, ObjectId::of(text.as_bytes()));
    let missing = &posted.objects.missing;
    assert_eq!(missing.len(), 1);
    assert_eq!(
        (missing[0].object, missing[0].key.as_str(), missing[0].bytes),
        (object, "web/root.squashfs", None)
    );
    assert_eq!(posted.objects.fetch_bytes, None, "nobody knows its size");
    assert_eq!(posted.space.manifest_bytes, text.len() as u64);
    assert_eq!(posted.signatures, Signatures::NotChecked);
    let web = &posted.containers[0];
    assert_eq!((web.fate, web.reason), (Fate::Started, Reason::New));

    let target = format!("/objects/{object}");
    assert_eq!(send(&bench.socket, "PUT", &target, bytes).status(), 200);
    let put = send(&bench.socket, "PUT", "/steps/locals/next", text.as_bytes());
    assert_eq!(put.status(), 200);
    let installed = plan(&bench, "/steps/locals/next/plan", "");
    assert_eq!(installed.revision, Some("locals/next".parse().unwrap()));
    assert!(installed.objects.missing.is_empty());
    assert_eq!(installed.objects.there_bytes, bytes.len() as u64);
    assert_eq!(installed.space.needed_bytes, Some(0));
    assert_eq!(installed.space.enough, Some(true));
    let current = plan(&bench, "/steps/current/plan", "");
    assert_eq!(current.revision, current.running);
}

#[test]
fn refusals() {
    let bench = Bench::start();
    for (target, body, status, code) in [
        ("/plan", "", 422, "bad-manifest"),
        ("/plan", "{\"#spec\":\"other@1\"}", 422, "bad-manifest"),
        ("/steps/locals/none/plan", "", 404, "no-such-revision"),
        ("/steps/99/plan", "", 404, "no-such-revision"),
        ("/steps/bad name/plan", "", 404, "no-such-revision"),
    ] {
        let target = target.replace(' ', "%20");
        let got = send(&bench.socket, "POST", &target, body.as_bytes());
        let told = got.header("Coxswain-Problem").unwrap_or_default();
        assert_eq!((got.status(), told), (status, code), "{target}");
    }
    let long = vec![b' '; model::limits::MANIFEST_BYTES_MAX + 1];
    assert_eq!(send(&bench.socket, "POST", "/plan", &long).status(), 507);
}
