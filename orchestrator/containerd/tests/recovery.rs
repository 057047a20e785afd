//! Either side is killed, and what either side knows is lost: containers go on or come back, nothing is left over.
#![allow(clippy::unwrap_used, reason = "tests")]

mod device;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use ::device::ports::{Condition, Exit, RuntimeCommand, RuntimeEvent};
use containerd::Address;

use crate::device::{Device, container, only, possible, running, until};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_restarted_orchestrator_finds_what_runs_and_what_ended() {
    if !possible() {
        return;
    }
    let mut device = Device::new("found");
    let stays = container("stays", "echo one; sleep 1000");
    let ends = container(
        "ends",
        "while ! test -f /data/go; do sleep 0.02; done; exit 5",
    );
    let (first, pid) = device.start(&stays);
    let (second, _) = device.start(&ends);
    device.submit(RuntimeCommand::MarkReady(first.clone()));
    until("marked", || device.list().iter().any(|found| found.ready));
    let containerd = device.containerd().pid();
    // It ends while nobody looks.
    device.halt();
    let upper = device.config.run_dir.join("boot");
    let upper = fs::read_dir(&upper)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let upper = upper
        .into_iter()
        .find(|path| path.to_string_lossy().contains("ends-"))
        .unwrap();
    fs::create_dir_all(upper.join("lxc-overlay/upper/data")).unwrap();
    let rootfs = fs::read_dir(device.config.run_dir.join("instances")).unwrap();
    let rootfs = rootfs
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().contains("ends-"))
        .unwrap();
    fs::write(rootfs.join("rootfs/data/go"), "").unwrap();
    device.boot();
    assert_eq!(device.containerd().pid(), containerd);
    until("its end is known", || {
        device.list().iter().any(|found| {
            found.condition
                == Condition::Ended(Exit {
                    code: 5,
                    out_of_memory: false,
                    damaged: None,
                })
        })
    });
    let found = device.list();
    let found = found.iter().find(|found| found.instance == first).unwrap();
    assert_eq!(running(found), Some(pid));
    assert!(found.ready);
    assert_eq!(found.revision.as_str(), "locals/one");
    // It is watched again.
    device.stop(&second, SECOND);
    linux::process::Process::open(pid).unwrap().kill().unwrap();
    assert_eq!(device.exited(&first).code, 137);
}

#[test]
fn containerd_is_killed_and_comes_back() {
    if !possible() {
        return;
    }
    let mut device = Device::new("killed");
    let (first, pid) = device.start(&container("first", "sleep 1000"));
    device.containerd().kill().unwrap();
    device.wait("Disconnected", |event| {
        matches!(event, RuntimeEvent::Disconnected { .. }).then_some(())
    });
    // Given while it is away, carried out when it is back.
    let spec = device.spec(&container("second", "sleep 1000"));
    let second = spec.instance.clone();
    device.submit(RuntimeCommand::Start(spec));
    device.wait("Connected", |event| {
        (*event == RuntimeEvent::Connected).then_some(())
    });
    device.started(&second);
    let found = device.list();
    assert_eq!(found.len(), 2);
    let kept = found.iter().find(|found| found.instance == first).unwrap();
    assert_eq!(running(kept), Some(pid));
    device.stop(&first, SECOND);
    device.stop(&second, SECOND);
    assert_eq!(device.list(), []);
    assert!(device.shims().is_empty());
}

#[test]
fn an_end_while_containerd_is_away_is_told() {
    if !possible() {
        return;
    }
    let mut device = Device::new("away");
    let (instance, pid) = device.start(&container("app", "sleep 1000"));
    device.containerd().kill().unwrap();
    linux::process::Process::open(pid).unwrap().kill().unwrap();
    assert_eq!(
        device.exited(&instance),
        Exit {
            code: 137,
            out_of_memory: false,
            damaged: None,
        }
    );
}

#[test]
fn containerds_store_is_deleted_while_everything_is_stopped() {
    if !possible() {
        return;
    }
    let mut device = Device::new("store");
    let app = container("app", "echo here > /data/file; sleep 1000");
    let (_, pid) = device.start(&app);
    device.halt();
    let containerd = device.containerd();
    containerd.kill().unwrap();
    containerd.wait(Duration::from_secs(5)).unwrap();
    let Address::Spawn(spawn) = device.config.address.clone() else {
        panic!()
    };
    fs::remove_dir_all(&spawn.root).unwrap();
    linux::mounts::unmount_below(&spawn.state).unwrap();
    fs::remove_dir_all(&spawn.state).unwrap();
    device.boot();
    // Nobody can hold it any more: it is ended, and started again as if new.
    assert_eq!(device.list(), []);
    until("the lost process is gone", || {
        !PathBuf::from(format!("/proc/{pid}")).exists()
    });
    assert!(device.shims().is_empty());
    assert_eq!(device.mounts(), Vec::<PathBuf>::new());
    let (instance, _) = device.start(&app);
    assert_eq!(only(&device.list()).instance, instance);
}

#[test]
fn containerds_store_is_deleted_under_our_hands() {
    if !possible() {
        return;
    }
    let mut device = Device::new("under");
    let app = container("app", "sleep 1000");
    let (instance, pid) = device.start(&app);
    let Address::Spawn(spawn) = device.config.address.clone() else {
        panic!()
    };
    let containerd = device.containerd();
    // Stopped, so that it cannot be started again before its store is gone.
    fs::rename(&spawn.root, device.folder.join("gone")).unwrap();
    containerd.kill().unwrap();
    assert_eq!(device.exited(&instance).code, 255);
    until("the lost process is gone", || {
        !PathBuf::from(format!("/proc/{pid}")).exists()
    });
    until("no shim", || device.shims().is_empty());
    let (again, _) = device.start(&app);
    assert_eq!(only(&device.list()).instance, again);
}

#[test]
fn remnants_of_a_kill_are_removed() {
    if !possible() {
        return;
    }
    let mut device = Device::new("half");
    let app = container("app", "sleep 1000");
    for round in 0..6_u64 {
        let spec = device.spec(&app);
        device.submit(RuntimeCommand::Start(spec));
        // As a kill -9 at some moment of the start: nothing is finished after it.
        std::thread::sleep(Duration::from_millis(round * 15));
        device.boot();
        for found in device.list() {
            assert!(running(&found).is_some(), "{found:?}");
        }
    }
    let (instance, _) = device.start(&app);
    device.stop(&instance, SECOND);
    assert_eq!(device.list(), []);
    until("no shim", || device.shims().is_empty());
    assert_eq!(device.mounts(), Vec::<PathBuf>::new());
}

#[test]
fn a_killed_shim_is_an_end() {
    if !possible() {
        return;
    }
    let mut device = Device::new("shim");
    let app = container("app", "sleep 1000");
    let (instance, pid) = device.start(&app);
    for shim in device.shims() {
        shim.kill().unwrap();
    }
    device.exited(&instance);
    until("its process is gone", || {
        !PathBuf::from(format!("/proc/{pid}")).exists()
    });
    let (again, _) = device.start(&app);
    device.stop(&again, SECOND);
    assert_eq!(device.mounts(), Vec::<PathBuf>::new());
}
