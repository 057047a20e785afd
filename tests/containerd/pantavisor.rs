//! Pantavisor's factory revision: the recorded one when the recording is there, and one of the same shape always.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use acceptance::device::Device;
use acceptance::image::{Image, busybox, object};
use acceptance::manifest::Manifest;
use acceptance::needs_containers;
use serde_json::{Value, json};

/// As pvr's template writes it.
fn conf(container: &str) -> Image {
    object(
        format!(
            "lxc.tty.max = 8\nlxc.pty.max = 1024\nlxc.cgroup.devices.allow = a\n\
             lxc.rootfs.path = overlayfs:/volumes/{container}/root.squashfs:/volumes/{container}/lxc-overlay/upper\n\
             lxc.init.cmd = /init\n\
             lxc.environment = PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
             lxc.namespace.keep = user net ipc\nlxc.mount.auto = proc sys:rw cgroup:mixed\n\
             lxc.mount.entry = tmpfs run tmpfs rw,nodev,relatime,create=dir,mode=755 0 0\n"
        )
        .as_bytes(),
    )
}

/// Folder of the recording: `COXSWAIN_PANTAVISOR_FIXTURES`, or `shared/fixtures/pantavisor` beside the repository.
fn recording() -> Option<PathBuf> {
    let folder = std::env::var_os("COXSWAIN_PANTAVISOR_FIXTURES").map_or_else(
        || {
            PathBuf::from(env!("CARGO_MANIFEST_DIR"))
                .join("../..")
                .join("shared/fixtures/pantavisor")
        },
        PathBuf::from,
    );
    folder.join("objects").is_dir().then_some(folder)
}

/// Asks from inside a container; `sk` copies between its input and a socket.
fn ask_from(device: &Device, container: &str, target: &str) -> String {
    let script = format!(
        "printf 'GET {target} HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' | sk /pantavisor/pv-ctrl"
    );
    let output = device.inside(container, &["/bin/sh", "-c", &script]);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The running revision's containers; none before a revision is loaded, which is Pantavisor's 500.
fn containers(device: &Device) -> Vec<Value> {
    let answer = device.socket.get("/containers").expect("an answer");
    if answer.status == 500 {
        assert_eq!(answer.json()["Error"], "State not loaded yet");
        return Vec::new();
    }
    assert_eq!(answer.status, 200);
    let Value::Array(all) = answer.json() else {
        panic!("no list of containers: {}", answer.json());
    };
    all
}

#[test]
fn the_recorded_factory_revision_starts() {
    needs_containers!();
    let Some(folder) = recording() else {
        eprintln!(
            "SKIPPED the_recorded_factory_revision_starts: no recording of Pantavisor's objects; \
             set COXSWAIN_PANTAVISOR_FIXTURES to the folder that holds `objects` and `steps.jsonl`"
        );
        return;
    };
    let device = Device::start();
    for entry in fs::read_dir(folder.join("objects")).expect("the recording can be read") {
        let path = entry.expect("the recording can be read").path();
        let image = object(&fs::read(&path).expect("an object can be read"));
        assert_eq!(path.file_name(), Some(image.sha256.as_ref()));
        device.put_object(&image);
    }
    let steps = fs::read_to_string(folder.join("steps.jsonl")).expect("the recording has steps");
    let factory = steps
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"))
        .find(|exchange| exchange["step"] == "get revision 0")
        .expect("the recording has revision 0");
    let text = factory["response"]["body"].as_str().expect("its text");
    device.put_revision("locals/factory", &Manifest::from_text(text));
    device.run("locals/factory");
    device.wait("sensor is ready", Duration::from_secs(40), || {
        let all = containers(&device);
        let is = |name: &str, status: &str| {
            all.iter()
                .any(|entry| entry["name"] == name && entry["status"] == status)
        };
        (is("sensor", "READY") && is("web", "STARTED") && is("pvr-sdk", "STARTED")).then_some(())
    });
    let sdk = ask_from(&device, "pvr-sdk", "/containers");
    assert!(sdk.starts_with("HTTP/1.1 200 "), "{sdk}");
    assert!(sdk.contains("\"name\":\"sensor\""), "{sdk}");
    for other in ["web", "sensor"] {
        let answer = ask_from(&device, other, "/containers");
        assert!(
            answer.ends_with(r#"{"Error":"Request not sent from a mgmt platform"}"#),
            "{answer}"
        );
    }
    // Stable after 30 s by its device.json: only then is it good.
    assert_eq!(device.wait_final("locals/factory").0, "DONE");
}

#[test]
fn a_revision_of_its_shape_starts_and_shows_what_pantavisor_shows() {
    needs_containers!();
    let device = Device::start();
    let plain = busybox(&[(
        "init",
        "#!/bin/sh\ntrap 'exit 0' PWR TERM INT\necho hello from $0\nsleep 360000 &\nwait\n",
    )]);
    let sensor = busybox(&[(
        "init",
        "#!/bin/sh\ntrap 'exit 0' PWR TERM INT\nsleep 1\n/bin/ready && echo signalled\nsleep 360000 &\nwait\n",
    )]);
    let confs = ["pvr-sdk", "web", "sensor"].map(conf);
    let recovery = json!({"policy": "on-failure", "max_retries": 5, "retry_delay": 5, "backoff_factor": 2.0,
        "stable_timeout": 1, "backoff_policy": "reboot"});
    let groups = json!({"groups": [
        {"name": "data", "status_goal": "MOUNTED", "restart_policy": "system", "timeout": 30},
        {"name": "root", "status_goal": "STARTED", "restart_policy": "system", "timeout": 30},
        {"name": "platform", "status_goal": "STARTED", "restart_policy": "system", "timeout": 30},
        {"name": "app", "status_goal": "STARTED", "restart_policy": "container", "timeout": 30, "auto_recovery": recovery},
    ]});
    let unset = json!({"auto_recovery": null, "stop-timeout": null});
    let with = |fields: Value| {
        let mut all = unset.clone();
        let object = all.as_object_mut().expect("an object");
        object.extend(fields.as_object().expect("an object").clone());
        all
    };
    let manifest = Manifest::new()
        .key("device.json", groups)
        .lxc(
            "pvr-sdk",
            &plain,
            &confs[0],
            with(json!({"group": "platform", "roles": ["mgmt"]})),
        )
        .lxc(
            "sensor",
            &sensor,
            &confs[2],
            with(json!({"group": "app", "roles": [], "status_goal": "READY"})),
        )
        .lxc(
            "web",
            &plain,
            &confs[1],
            with(json!({"group": "app", "roles": []})),
        );
    let [one, two, three] = &confs;
    let images = [&plain, &sensor, one, two, three];
    let (status, message) = device.update("locals/factory", &manifest, &images);
    let log = device
        .storage()
        .join("logs/locals/factory/sensor/console.log");
    let said = fs::read_to_string(&log).unwrap_or_default();
    assert_eq!(status, "DONE", "{message}; sensor: {said}");
    let all = containers(&device);
    let shown: Vec<_> = all
        .iter()
        .map(|entry| {
            let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
            [
                text("name"),
                text("group"),
                text("status"),
                text("restart_policy"),
            ]
            .join(" ")
        })
        .collect();
    assert_eq!(
        shown,
        [
            "pvr-sdk platform STARTED system",
            "sensor app READY container",
            "web app STARTED container",
        ]
    );
    device.wait("its log", Duration::from_secs(10), || {
        fs::read_to_string(&log)
            .ok()
            .filter(|text| text.contains("signalled"))
    });
    // What each may: `nc` of busybox speaks no UNIX sockets, `ready` tells what it is answered.
    let allowed = |name: &str| device.inside(name, &["/bin/ready"]);
    assert!(allowed("sensor").status.success());
    assert!(!allowed("web").status.success());
}
