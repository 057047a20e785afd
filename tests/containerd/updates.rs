//! Updates that go well: what runs, what is kept, what is told.

use std::time::Duration;

use acceptance::device::Device;
use acceptance::image::busybox;
use acceptance::manifest::Manifest;
use acceptance::needs_containers;
use serde_json::json;

const SERVICE: &[(&str, &str)] = &[(
    "bin/service",
    "#!/bin/sh\nmkdir -p /tmp/www; echo hello > /tmp/www/index.html\nexec /bin/ready -- /bin/busybox httpd -f -p 127.0.0.1:0 -h /tmp/www\n",
)];

#[test]
fn an_update_changes_only_what_changed() {
    needs_containers!();
    let device = Device::start();
    let plain = busybox(&[]);
    let service = busybox(SERVICE);
    let web = |manifest: Manifest| {
        manifest.container(
            "web",
            &service,
            &["/bin/service"],
            json!({"status_goal": "READY"}),
        )
    };
    let one = web(Manifest::new()).container("worker", &plain, &["/bin/sleep", "1000"], json!({}));
    assert_eq!(
        device.update("locals/one", &one, &[&plain, &service]),
        (
            "DONE".to_owned(),
            "Update finished, revision set as rollback point".to_owned()
        )
    );
    assert_eq!(device.running().as_deref(), Some("locals/one"));
    let web_pid = device.container_pid("web").expect("web runs");
    let worker_pid = device.container_pid("worker").expect("worker runs");

    let two = web(Manifest::new()).container("worker", &plain, &["/bin/sleep", "2000"], json!({}));
    assert_eq!(device.update("locals/two", &two, &[]).0, "DONE");
    assert_eq!(
        device.container_pid("web"),
        Some(web_pid),
        "web was not changed"
    );
    assert_ne!(
        device.container_pid("worker"),
        Some(worker_pid),
        "worker was"
    );
    let web_entry = device.container("web").expect("web is there");
    assert_eq!(
        (&web_entry["status"], &web_entry["goal"]),
        (&json!("READY"), &json!("READY"))
    );
    assert_eq!(
        std::fs::read_link(device.storage().join("trails/current")).ok(),
        Some("locals/two".into())
    );
    assert_eq!(
        device
            .socket
            .get("/steps/current")
            .expect("an answer")
            .text(),
        two.text(),
        "the exact bytes are kept"
    );
}

#[test]
fn a_removed_container_is_gone_and_an_added_one_runs() {
    needs_containers!();
    let device = Device::start();
    let image = busybox(&[]);
    let sleeper = |manifest: Manifest, name: &str| {
        manifest.container(name, &image, &["/bin/sleep", "1000"], json!({}))
    };
    assert_eq!(
        device
            .update(
                "locals/a",
                &sleeper(sleeper(Manifest::new(), "x"), "y"),
                &[&image]
            )
            .0,
        "DONE"
    );
    let kept = device.container_pid("y").expect("y runs");
    assert_eq!(
        device
            .update(
                "locals/b",
                &sleeper(sleeper(Manifest::new(), "y"), "z"),
                &[]
            )
            .0,
        "DONE"
    );
    assert!(device.container("x").is_none());
    assert_eq!(device.container_pid("y"), Some(kept));
    assert!(device.container_pid("z").is_some());
}

#[test]
fn volumes_keep_what_their_persistence_promises() {
    needs_containers!();
    let device = Device::start();
    let image = busybox(&[(
        "bin/note",
        "#!/bin/sh\necho \"$1\" >> /perm/notes; echo \"$1\" >> /rev/notes; echo \"$1\" >> /boot-volume/notes; echo \"$1\" >> /var/notes\n\
         cat /perm/notes > /perm/seen; cat /rev/notes > /perm/seen-rev; cat /var/notes > /perm/seen-root\nexec sleep 1000\n",
    )]);
    let manifest = |note: &str| {
        Manifest::new().container(
            "keeper",
            &image,
            &["/bin/note", note],
            json!({"storage": {
                "perm": {"persistence": "permanent", "path": "/perm"},
                "rev": {"persistence": "revision", "path": "/rev"},
                "boot-volume": {"persistence": "boot", "path": "/boot-volume"},
            }}),
        )
    };
    let read = |name: &str| {
        let text =
            std::fs::read_to_string(device.storage().join("disks/perm/keeper/perm").join(name));
        text.unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        device.update("locals/one", &manifest("first"), &[&image]).0,
        "DONE"
    );
    assert_eq!(read("seen"), ["first"]);
    assert_eq!(
        device.update("locals/two", &manifest("second"), &[]).0,
        "DONE"
    );
    assert_eq!(
        read("seen"),
        ["first", "second"],
        "permanent survives an update"
    );
    assert_eq!(
        read("seen-rev"),
        ["second"],
        "a revision's volume is its own"
    );
    assert_eq!(
        read("seen-root"),
        ["second"],
        "the layer over the root file system is gone by default"
    );
}

#[test]
fn groups_start_in_order_and_dependencies_are_waited_for() {
    needs_containers!();
    let device = Device::start();
    let image = busybox(&[(
        "bin/slow",
        "#!/bin/sh\nsleep 1\nexec /bin/ready -- /bin/sleep 1000\n",
    )]);
    let manifest = Manifest::with_groups(&[("data", "READY", 10), ("app", "STARTED", 10)])
        .container(
            "db",
            &image,
            &["/bin/slow"],
            json!({"group": "data", "status_goal": "READY"}),
        )
        .container(
            "app",
            &image,
            &["/bin/sleep", "1000"],
            json!({"group": "app", "depends-on": ["db"]}),
        );
    device.put_object(&image);
    device.put_revision("locals/one", &manifest);
    device.run("locals/one");
    device.wait("db is started", Duration::from_secs(20), || {
        device.container_pid("db")
    });
    assert_eq!(
        device.container_pid("app"),
        None,
        "app waits for the goal of the group before it"
    );
    let reason = device.container("app").expect("app is known")["reason"].to_string();
    assert!(reason.contains("data") || reason.contains("db"), "{reason}");
    assert_eq!(device.wait_final("locals/one").0, "DONE");
    assert!(device.container_pid("app").is_some());
}

#[test]
fn a_container_is_stopped_started_and_restarted_over_the_socket() {
    needs_containers!();
    let device = Device::start();
    let image = busybox(&[]);
    let manifest = Manifest::new().container("job", &image, &["/bin/sleep", "1000"], json!({}));
    assert_eq!(device.update("locals/one", &manifest, &[&image]).0, "DONE");
    let first = device.container_pid("job").expect("job runs");
    let act = |action: &str| {
        let body = json!({"action": action}).to_string();
        device
            .socket
            .put("/containers/job", body.as_bytes())
            .expect("an answer")
            .status
    };
    assert_eq!(act("restart"), 200);
    let second = device.wait("another process", Duration::from_secs(20), || {
        device.container_pid("job").filter(|pid| *pid != first)
    });
    assert_eq!(act("stop"), 200);
    device.wait("stopped", Duration::from_secs(20), || {
        device
            .container("job")
            .filter(|job| job["status"] == "STOPPED" && job["user_stopped"] == true)
    });
    assert!(!std::path::Path::new(&format!("/proc/{second}")).exists());
    assert_eq!(act("start"), 200);
    device.wait("running again", Duration::from_secs(20), || {
        device.container_pid("job")
    });
    assert_eq!(act("dance"), 400);
}
