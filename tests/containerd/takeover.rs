//! A storage as Pantavisor leaves it, with a revision on trial: taken over where it lies, and its containers run.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use acceptance::device::Device;
use acceptance::image::{Image, busybox, object};
use acceptance::manifest::Manifest;
use acceptance::needs_containers;
use serde_json::json;

const CONF: &str = "lxc.tty.max = 8\nlxc.pty.max = 1024\n\
     lxc.rootfs.path = overlayfs:/volumes/web/root.squashfs:/volumes/web/lxc-overlay/upper\n\
     lxc.init.cmd = /init\nlxc.namespace.keep = user net ipc\nlxc.mount.auto = proc sys:rw cgroup:mixed\n\
     lxc.mount.entry = /volumes/web/docker--data data none bind,rw,create=dir 0 0\n";
const PROGRESS: &str = r#"{"status":"DONE","status-msg":"Factory revision","progress":100}"#;
const VARIABLES: &[u8] = b"pv_rev=0\0pv_try=5\0\0";

fn write(storage: &Path, path: &str, bytes: &[u8]) {
    let path = storage.join(path);
    fs::create_dir_all(path.parent().expect("it has one")).expect("a folder");
    fs::write(path, bytes).expect("a file");
}

/// A revision as Pantavisor puts it: the exact manifest, its progress, and each object as a hard link.
fn put(storage: &Path, revision: &str, manifest: &Manifest, objects: &[(&str, &Image)]) {
    let folder = format!("trails/{revision}");
    write(
        storage,
        &format!("{folder}/.pvr/json"),
        manifest.text().as_bytes(),
    );
    write(
        storage,
        &format!("{folder}/.pvr/config"),
        br#"{"ObjectsDir": "/storage/objects"}"#,
    );
    write(
        storage,
        &format!("{folder}/.pv/progress"),
        PROGRESS.as_bytes(),
    );
    for (key, image) in objects {
        let object = storage.join("objects").join(&image.sha256);
        if !object.exists() {
            write(storage, &format!("objects/{}", image.sha256), &image.bytes);
        }
        let link = storage.join(&folder).join(key);
        fs::create_dir_all(link.parent().expect("it has one")).expect("a folder");
        fs::hard_link(object, link).expect("a hard link");
    }
}

#[test]
fn a_storage_of_pantavisor_goes_on_where_it_lies() {
    needs_containers!();
    let service = |word: &str| {
        let text = format!(
            "#!/bin/sh\ntrap 'exit 0' PWR TERM INT\necho {word} $(cat /data/written)\necho {word} >>/data/written\n\
             sleep 360000 &\nwait\n"
        );
        busybox(&[("init", text.as_str())])
    };
    let [old, new] = ["old", "new"].map(service);
    let conf = object(CONF.as_bytes());
    let manifest = |image: &Image| {
        let volume = json!({"docker--data": {"persistence": "permanent"}, "lxc-overlay": {"persistence": "boot"}});
        Manifest::with_groups(&[("app", "STARTED", 30)]).lxc(
            "web",
            image,
            &conf,
            json!({"group": "app", "storage": volume}),
        )
    };
    let (factory, trial) = (manifest(&old), manifest(&new));
    let mut inode = 0;
    let mut device = Device::start_on(&[("bootloader", "none")], |storage| {
        for (revision, manifest, image) in [("0", &factory, &old), ("5", &trial, &new)] {
            let objects = [
                ("web/root.squashfs", image),
                ("web/lxc.container.conf", &conf),
            ];
            put(storage, revision, manifest, &objects);
        }
        write(storage, ".pvmounted", b"");
        write(storage, "boot/uboot.txt", VARIABLES);
        write(
            storage,
            "config/pantahub.config",
            b"PH_CREDS_ID=prn:::devices:/1\n",
        );
        write(storage, "cache/usrmeta/place", b"cellar");
        write(storage, "cache/devmeta/sysinfo", b"{}");
        write(
            storage,
            "disks/perm/web/docker--data/written",
            b"by Pantavisor\n",
        );
        std::os::unix::fs::symlink("0", storage.join("trails/current")).expect("a link");
        let object = storage.join("objects").join(&new.sha256);
        inode = fs::metadata(object).expect("it was written").ino();
    });
    let storage = device.storage();
    let log = |device: &Device| {
        device.wait("what web says", Duration::from_secs(40), || {
            let text = fs::read_to_string(device.storage().join("logs/5/web/console.log")).ok()?;
            text.contains("new").then_some(text)
        })
    };
    assert_eq!(device.wait_final("5").0, "DONE");
    let said = log(&device);
    assert!(
        said.contains("new by Pantavisor"),
        "its volume is there: {said}"
    );

    // Nothing of Pantavisor's was moved, copied or changed.
    let object = storage.join("objects").join(&new.sha256);
    let found = fs::metadata(&object).expect("it is there");
    assert_eq!((found.ino(), found.nlink()), (inode, 2));
    let read = |path: &str| fs::read(storage.join(path)).expect("it is there");
    assert_eq!(
        read("boot/uboot.txt"),
        VARIABLES,
        "without a boot loader of ours"
    );
    assert_eq!(
        read("config/pantahub.config"),
        b"PH_CREDS_ID=prn:::devices:/1\n"
    );
    assert_eq!(read("trails/0/.pvr/json"), factory.text().as_bytes());
    let meta = device.socket.get("/user-meta").expect("an answer");
    assert_eq!(meta.json()["place"], "cellar");

    // Another start is none of a takeover: what was committed here runs on.
    let pid = device.socket.get("/containers").expect("an answer").text();
    device.kill();
    device.spawn();
    device.wait_until_it_answers();
    device.wait("web is found again", Duration::from_secs(30), || {
        (device.socket.get("/containers").ok()?.text() == pid).then_some(())
    });
    assert_eq!(device.progress("5").expect("it has one").0, "DONE");
    let said = log(&device);
    assert_eq!(
        said.matches("new by").count(),
        1,
        "it was not started again: {said}"
    );
}
