//! Who may do what on the socket, from inside real containers.

use std::time::Duration;

use acceptance::device::Device;
use acceptance::image::busybox;
use acceptance::manifest::Manifest;
use acceptance::needs_containers;
use serde_json::json;

#[test]
fn only_a_container_with_goal_ready_is_heard() {
    needs_containers!();
    let device = Device::start();
    let image = busybox(&[(
        "bin/tells",
        "#!/bin/sh\n/bin/ready > /perm/answer 2>&1; echo $? > /perm/code; exec sleep 1000\n",
    )]);
    let storage = json!({"perm": {"persistence": "permanent", "path": "/perm"}});
    let manifest = Manifest::new()
        .container(
            "expected",
            &image,
            &["/bin/tells"],
            json!({"status_goal": "READY", "storage": storage}),
        )
        .container(
            "unexpected",
            &image,
            &["/bin/tells"],
            json!({"storage": storage}),
        );
    assert_eq!(device.update("locals/one", &manifest, &[&image]).0, "DONE");
    let code = |name: &str| {
        let path = device
            .storage()
            .join("disks/perm")
            .join(name)
            .join("perm/code");
        device.wait("the container has told", Duration::from_secs(20), || {
            std::fs::read_to_string(&path)
                .ok()
                .filter(|text| text.ends_with('\n'))
        })
    };
    assert_eq!(code("expected"), "0\n");
    assert_eq!(code("unexpected"), "1\n");
    let answer =
        std::fs::read_to_string(device.storage().join("disks/perm/unexpected/perm/answer"))
            .expect("an answer");
    assert!(
        answer.contains("Signal not expected from this platform"),
        "{answer}"
    );
}
