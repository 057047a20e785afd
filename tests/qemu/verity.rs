//! Root file systems that are read through dm-verity, with a real kernel: they run beside plain ones, a block that rots makes the trial fail
//! and the device says why, and nothing of them stays behind.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use acceptance::image::{Image, binary, busybox, object, sha256};
use acceptance::manifest::Manifest;
use serde_json::json;

use crate::machine::Machine;
use crate::system::Revision;

/// So much from the end of the image lies within the payload: it is written last, and only small tables come after it.
const BEFORE_THE_END: usize = 600 << 10;
const SETTLES: Duration = Duration::from_secs(60);

/// Text that hardly compresses, so that it takes much of the image.
fn payload(seed: &str) -> String {
    let mut word = sha256(seed.as_bytes());
    let mut text = String::new();
    while text.len() < 2 << 20 {
        word = sha256(word.as_bytes());
        text.push_str(&word);
    }
    text
}

/// An image whose service is ready when it was told to go on and has read its payload.
fn image(seed: &str) -> Image {
    let service = "#!/bin/sh\nuntil [ -e /data/go ]; do sleep 0.2; done\n\
                   cat /var/payload >/dev/null || { echo unreadable; exit 5; }\nexec /bin/ready -- /bin/sleep 5000\n";
    let payload = payload(seed);
    busybox(&[("bin/service", service), ("var/payload", payload.as_str())])
}

/// A revision as `coxctl` authors it: `checked` through dm-verity, `plain` as it is, `same` an image of `checked` without verity.
fn authored(folder: &Path, name: &str, checked: &Image, plain: &Image) -> (Manifest, Vec<Image>) {
    let dir = folder.join(name);
    let volume = json!({"data": {"persistence": "permanent", "path": "/data"}});
    let run = json!({"storage": volume, "status_goal": "READY"});
    let manifest = Manifest::with_groups(&[("app", "STARTED", 60)])
        .container("checked", checked, &["/bin/service"], run)
        .container("plain", plain, &["/bin/sleep", "5000"], json!({}))
        .container("same", checked, &["/bin/sleep", "5000"], json!({}));
    fs::create_dir_all(dir.join("objects")).expect("a folder");
    for image in [checked, plain] {
        fs::write(dir.join("objects").join(&image.sha256), &image.bytes).expect("the image");
    }
    fs::write(dir.join("manifest.json"), manifest.text()).expect("the manifest");
    let output = Command::new(binary("coxctl"))
        .args(["revision", "verity"])
        .arg(&dir)
        .arg("checked")
        .output()
        .expect("coxctl runs");
    assert!(output.status.success(), "{output:?}");
    let text = fs::read_to_string(dir.join("manifest.json")).expect("the manifest");
    assert!(text.contains("dm:root.squashfs"), "{text}");
    let objects = fs::read_dir(dir.join("objects")).expect("objects");
    let objects = objects
        .map(|entry| object(&fs::read(entry.expect("an object").path()).expect("its bytes")));
    (Manifest::from_text(&text), objects.collect())
}

/// Names of the device mapper's devices, and what loop devices show.
fn devices(machine: &mut Machine) -> (Vec<String>, Vec<String>) {
    let lines = |text: String| text.lines().map(str::to_owned).collect();
    (
        lines(machine.must("cat /sys/block/dm-*/dm/name 2>/dev/null | sort -u")),
        // A plain mount of the same image may lie below or not, by who came first.
        lines(machine.must("cat /sys/block/loop*/loop/backing_file 2>/dev/null | sort -u")),
    )
}

#[test]
fn a_block_that_rots_rolls_back_and_is_told() {
    // Asked first: authoring takes a while, and without a kernel there is nothing to do.
    if crate::kernel().is_err() {
        drop(crate::bench(&[]));
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let plain = busybox(&[("etc/plain", "plain")]);
    let [good, rots] = [image("one"), image("two")];
    let (one, one_objects) = authored(folder.path(), "one", &good, &plain);
    let (two, two_objects) = authored(folder.path(), "two", &rots, &plain);
    let one_objects: Vec<_> = one_objects.iter().collect();
    let two_objects: Vec<_> = two_objects.iter().collect();
    let revisions = [("one", &one, &one_objects), ("two", &two, &two_objects)].map(
        |(name, manifest, images)| Revision {
            name,
            manifest,
            images,
        },
    );
    let Some((bench, disk)) = crate::bench(&revisions) else {
        return;
    };
    let mut machine = bench.boot(disk);
    machine.must(
        "mkdir -p /storage/disks/perm/checked/data && touch /storage/disks/perm/checked/data/go",
    );
    machine.must("coxctl install /revisions/one --name locals/one --run --wait --timeout 60");
    let before = devices(&mut machine);
    assert_eq!(before.0, [format!("coxswain-{}", good.sha256)]);
    assert_shown_through_verity(&mut machine);

    // The orchestrator is killed and comes again: what runs goes on, and there is no device more.
    assert_restart_leaves(&mut machine, &before);

    machine.must("rm /storage/disks/perm/checked/data/go");
    machine.must("coxctl install /revisions/two --name locals/two --run");
    machine.wait("two is tried", SETTLES, |machine| {
        let names = devices(machine).0;
        names
            .contains(&format!("coxswain-{}", rots.sha256))
            .then_some(())
    });
    let block = (rots.bytes.len() - BEFORE_THE_END) / 4096;
    machine.must(&format!(
        "dd if=/dev/zero of=/storage/objects/{} bs=4096 seek={block} count=1 conv=notrunc && sync",
        rots.sha256
    ));
    machine.must("echo 3 >/proc/sys/vm/drop_caches");
    machine.must("touch /storage/disks/perm/checked/data/go");
    machine.wait("locals/one runs again", SETTLES, |machine| {
        let status = machine.must("coxctl --json status");
        let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
        let mut containers = status["containers"].as_array()?.iter();
        (status["running"] == "locals/one" && containers.all(|one| one["good"] == true))
            .then_some(())
    });
    let why = machine.must("coxctl why locals/two");
    println!("{why}");
    for word in ["checked", "exit code 5", "dm-verity", &rots.sha256[..8]] {
        assert!(why.contains(word), "{word:?} is not in: {why}");
    }
    let log = machine.must("coxctl logs checked --revision locals/two");
    assert!(
        log.contains("unreadable") && log.contains("does not match its hash"),
        "{log}"
    );
    machine.wait("what the trial had is gone", SETTLES, |machine| {
        (devices(machine) == before).then_some(())
    });

    machine.must("coxctl poweroff");
    let disk = machine.wait_for_end(Duration::from_secs(60));
    assert_eq!(disk.damage(), None);
}

fn assert_shown_through_verity(machine: &mut Machine) {
    let mounts = machine.must("grep squashfs /proc/mounts");
    assert!(mounts.contains("/dev/dm-0"), "through dm-verity: {mounts}");
    assert!(mounts.contains("/dev/loop"), "and a plain one: {mounts}");
    let read = machine.must("dd if=/dev/dm-0 of=/dev/null bs=64k 2>&1");
    assert!(!read.contains("error"), "every block matches: {read}");
}

/// A kill of the orchestrator leaves containers and devices as they are, and no device is left when the containers are stopped.
fn assert_restart_leaves(machine: &mut Machine, before: &(Vec<String>, Vec<String>)) {
    let pids =
        |machine: &mut Machine| machine.must("coxctl --json status | tr , '\\n' | grep '\"pid\"'");
    let running = pids(machine);
    machine.must("kill -9 $(pidof coxswain)");
    machine.wait("coxswain answers again", SETTLES, |machine| {
        (machine.run("coxctl --json status").code == 0).then_some(())
    });
    machine.wait("all are found again", SETTLES, |machine| {
        (pids(machine) == running).then_some(())
    });
    assert_eq!(&devices(machine), before);
    for name in ["checked", "same", "plain"] {
        machine.must(&format!("coxctl stop {name}"));
    }
    machine.wait("nothing is left", SETTLES, |machine| {
        let (mapped, looped) = devices(machine);
        (mapped.is_empty() && looped.iter().all(|file| !file.starts_with("/storage/")))
            .then_some(())
    });
    for name in ["checked", "same", "plain"] {
        machine.must(&format!("coxctl start {name}"));
    }
    machine.wait("they run again", SETTLES, |machine| {
        (&devices(machine) == before).then_some(())
    });
}
