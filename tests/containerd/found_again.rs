//! What survives: containers when the orchestrator or containerd goes away, the device when containerd's store does.

use std::fs;
use std::path::Path;
use std::time::Duration;

use acceptance::device::Device;
use acceptance::image::busybox;
use acceptance::manifest::Manifest;
use acceptance::needs_containers;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

fn running_device() -> (Device, [u32; 2]) {
    let device = Device::start();
    let image = busybox(&[(
        "bin/service",
        "#!/bin/sh\nexec /bin/ready -- /bin/sleep 1000\n",
    )]);
    let manifest = Manifest::new()
        .container("one", &image, &["/bin/sleep", "1000"], json!({}))
        .container(
            "two",
            &image,
            &["/bin/service"],
            json!({"status_goal": "READY"}),
        );
    assert_eq!(device.update("locals/one", &manifest, &[&image]).0, "DONE");
    let pids = pids(&device);
    (device, pids)
}

fn pids(device: &Device) -> [u32; 2] {
    ["one", "two"].map(|name| {
        device.wait(&format!("{name} runs"), Duration::from_secs(30), || {
            device.container_pid(name)
        })
    })
}

fn good(device: &Device) {
    device.wait("every container is good", Duration::from_secs(40), || {
        let one = device.container("one")?;
        let two = device.container("two")?;
        (one["status"] == "STARTED" && two["status"] == "READY").then_some(())
    });
}

/// Containers run while no orchestrator does, and the next one takes them over.
fn found_by_the_next(device: &mut Device, before: &[u32]) {
    let runs = |pid: &u32| Path::new(&format!("/proc/{pid}")).exists();
    assert!(before.iter().all(runs));
    device.spawn();
    device.wait_until_it_answers();
    good(device);
    assert_eq!(pids(device), before);
}

#[test]
fn containers_run_on_when_the_orchestrator_is_killed() {
    needs_containers!();
    let (mut device, before) = running_device();
    device.kill();
    found_by_the_next(&mut device, &before);
}

#[test]
fn containers_run_on_when_the_orchestrator_is_terminated() {
    needs_containers!();
    let (mut device, before) = running_device();
    device.signal(Signal::TERM);
    assert_eq!(device.wait_for_end(Duration::from_secs(20)).code(), Some(0));
    found_by_the_next(&mut device, &before);
}

#[test]
fn containers_are_found_again_when_containerd_is_killed() {
    needs_containers!();
    let (device, before) = running_device();
    let containerd = device
        .containerd_pid()
        .expect("the private containerd has a pid file");
    kill_process(
        Pid::from_raw(containerd as i32).expect("a pid"),
        Signal::KILL,
    )
    .expect("it runs");
    device.wait("another containerd", Duration::from_secs(30), || {
        device.containerd_pid().filter(|pid| *pid != containerd)
    });
    good(&device);
    assert_eq!(pids(&device), before);
    let action = device
        .socket
        .put("/containers/one", br#"{"action":"restart"}"#)
        .expect("an answer");
    assert_eq!(action.status, 200);
    device.wait("one runs anew", Duration::from_secs(30), || {
        device.container_pid("one").filter(|pid| *pid != before[0])
    });
}

#[test]
fn the_device_is_rebuilt_without_containerds_store() {
    needs_containers!();
    let (mut device, before) = running_device();
    device.signal(Signal::INT);
    assert_eq!(device.wait_for_end(Duration::from_secs(40)).code(), Some(0));
    assert!(
        before
            .iter()
            .all(|pid| !Path::new(&format!("/proc/{pid}")).exists()),
        "SIGINT stops containers"
    );
    device.forget_boot_volumes();
    fs::remove_dir_all(device.run_dir()).expect("nothing is mounted below the run folder any more");
    for folder in ["containerd", "cache"] {
        let path = device.storage().join(folder);
        if path.exists() {
            fs::remove_dir_all(path).expect("a cache can be removed");
        }
    }
    device.spawn();
    device.wait_until_it_answers();
    good(&device);
    assert_eq!(device.running().as_deref(), Some("locals/one"));
}

#[test]
fn containerd_killed_and_its_store_deleted_while_containers_run() {
    needs_containers!();
    let (mut device, before) = running_device();
    device.kill();
    let containerd = device
        .containerd_pid()
        .expect("the private containerd has a pid file");
    kill_process(
        Pid::from_raw(containerd as i32).expect("a pid"),
        Signal::KILL,
    )
    .expect("it runs");
    std::thread::sleep(Duration::from_millis(200));
    for folder in ["containerd/root", "containerd/state"] {
        // State may hold mounts of the running tasks; what can be removed is.
        drop(fs::remove_dir_all(device.run_dir().join(folder)));
    }
    device.spawn();
    device.wait_until_it_answers();
    good(&device);
    for (name, old) in ["one", "two"].iter().zip(before) {
        let now = device.container_pid(name).expect("it runs");
        let alive = Path::new(&format!("/proc/{old}")).exists();
        assert!(
            now == old || !alive,
            "{name}: {old} was left behind beside {now}"
        );
    }
}
