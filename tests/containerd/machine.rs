//! The machine below the device: its facts, its daemons, modules of drivers.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use acceptance::device::Device;
use acceptance::image::busybox;
use acceptance::manifest::Manifest;
use acceptance::needs_containers;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

fn get(device: &Device, target: &str) -> Value {
    device.socket.get(target).expect("an answer").json()
}

fn control(device: &Device, action: &str) -> u16 {
    let body = format!("{{\"action\":\"{action}\"}}");
    let answer = device
        .socket
        .put("/daemons/containerd", body.as_bytes())
        .expect("an answer");
    answer.status
}

#[test]
fn containerd_is_stopped_and_started_and_containers_go_on() {
    needs_containers!();
    let device = Device::start();
    let image = busybox(&[]);
    let manifest = Manifest::new().container(
        "web",
        &image,
        &["/bin/sleep", "1000"],
        json!({"group": "app"}),
    );
    assert_eq!(device.update("locals/one", &manifest, &[&image]).0, "DONE");
    let web = device.container_pid("web").expect("it runs");
    let shown = get(&device, "/daemons");
    let pid = device.containerd_pid().expect("containerd runs");
    assert_eq!(
        shown,
        json!([{"name": "containerd", "pid": pid, "respawn": true}])
    );

    assert_eq!(control(&device, "stop"), 200);
    assert_eq!(
        get(&device, "/daemons"),
        json!([{"name": "containerd", "pid": -1, "respawn": false}])
    );
    assert_eq!(device.containerd_pid(), None);
    // It stays so, and what runs goes on.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(device.containerd_pid(), None);
    assert!(std::path::Path::new(&format!("/proc/{web}")).exists());
    assert_eq!(control(&device, "stop"), 200);

    assert_eq!(control(&device, "start"), 200);
    let again = device.wait("containerd is there", PATIENCE, || device.containerd_pid());
    assert_ne!(again, pid);
    assert_eq!(get(&device, "/daemons")[0]["pid"], again);
    let restart = device
        .socket
        .put("/containers/web", b"{\"action\":\"restart\"}")
        .expect("an answer");
    assert_eq!(restart.status, 200);
    device.wait("it was restarted by the new one", PATIENCE, || {
        device.container_pid("web").filter(|pid| *pid != web)
    });
}

#[test]
fn the_machine_tells_of_itself() {
    needs_containers!();
    let device = Device::start();
    let told = get(&device, "/device-meta");
    for key in [
        "storage",
        "interfaces",
        "sysinfo",
        "time",
        "pantavisor.uname",
        "pantavisor.cpumodel",
        "pantavisor.arch",
        "pantavisor.mode",
        "pantavisor.status",
        "pantavisor.version",
    ] {
        assert!(!told[key].is_null(), "{key}: {told}");
    }
    assert!(told["storage"]["total"].as_u64().expect("a number") > 0);
    assert!(told["sysinfo"]["uptime"].as_u64().expect("a number") > 0);
}

/// `modprobe` of this test writes down what it is asked, and knows no module called `nowhere`.
#[test]
fn drivers_are_loaded_before_their_container() {
    needs_containers!();
    let folder = tempfile::tempdir().expect("a folder");
    let modprobe = folder.path().join("modprobe");
    let script = "#!/bin/sh\necho \"$@\" >>\"$(dirname \"$0\")/asked\"\n[ \"$2\" != nowhere ]\n";
    std::fs::write(&modprobe, script).expect("it is written");
    std::fs::set_permissions(&modprobe, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    let device = Device::start_with(&[(
        "modprobe-binary",
        modprobe.to_str().expect("a path of text"),
    )]);
    device
        .socket
        .put("/user-meta/wifi.debug", b"7")
        .expect("an answer");
    let image = busybox(&[]);
    let with = |required: &str| {
        Manifest::new()
            .key(
                "bsp/drivers.json",
                json!({"#spec": "driver-aliases@1", "all": {
                    "wifi": ["cox_wifi debug=${user-meta:wifi.debug}"],
                    "gone": ["nowhere"],
                    "gpio": ["cox_gpio"],
                }}),
            )
            .container(
                "web",
                &image,
                &["/bin/sleep", "1000"],
                json!({"drivers": {"required": [required], "optional": ["gone"], "manual": ["gpio"]}}),
            )
    };
    assert_eq!(
        device.update("locals/one", &with("wifi"), &[&image]).0,
        "DONE"
    );
    let asked = std::fs::read_to_string(folder.path().join("asked")).expect("it was asked");
    assert_eq!(asked, "-- cox_wifi debug=7\n-- nowhere\n");
    // Without a driver that it requires, a container cannot start, and the revision is given up.
    let ended = device.update("locals/two", &with("gone"), &[&image]);
    assert_eq!(ended.0, "ERROR", "{ended:?}");
    let failures = get(&device, "/failures");
    assert!(
        failures.to_string().contains("modprobe nowhere failed"),
        "{failures}"
    );
}
