//! The client as a container of the revision that it updates (`examples/hawkbit`).

use std::path::Path;

use acceptance::image::{Image, binary, busybox, busybox_with_hawkbit};
use acceptance::manifest::Manifest;
use clouds::management::{How, Management, Outcome};
use serde_json::{Value, json};

use super::{COMMITTED, Payload, Rig, ended, has_line, once};

/// Memory that the client may have used at most, in KiB.
const MEMORY_KIB_MAX: u64 = 12 << 10;

/// The example, for this device: nothing of it is changed but names of places, and times.
fn manifest(rig: &Rig, image: &Image) -> Manifest {
    let text = include_str!("../../../../../examples/hawkbit/manifest.json")
        .replace("SHA256_OF_ROOT", &image.sha256)
        .replace("https://hawkbit.example", &rig.access.url)
        .replace("DEVICE", &rig.access.controller)
        .replace("TOKEN\"", &format!("{}\"", rig.access.token));
    let value: Value = serde_json::from_str(&text).expect("the example is JSON");
    let mut run = value["hawkbit/run.json"].clone();
    let env = run["env"].as_array_mut().expect("a list");
    for setting in [
        "POLL_INTERVAL=1s",
        "POLL_MIN=1s",
        "POLL_MAX=2s",
        "POLL_BUSY=1s",
        "METADATA_INTERVAL=1s",
        "BACK_OFF_MAX=2s",
        "PROXY=none",
    ] {
        env.push(json!(format!("COXSWAIN_HAWKBIT_{setting}")));
    }
    run["auto_recovery"] = json!({"policy": "always", "stable_timeout": 3});
    Manifest::from_text(&text).key("hawkbit/run.json", run)
}

/// Peak of a process's memory.
fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).expect("kB")
}

/// Whether the program needs no library, so that it runs in an image that has none.
pub(crate) fn is_static(program: &Path) -> bool {
    let bytes = std::fs::read(program).expect("the client is built");
    let word = |at: usize, length: usize| {
        let bytes = bytes.get(at..at + length).unwrap_or_default();
        let number = bytes.iter().rev();
        number.fold(0_usize, |all, byte| all << 8 | usize::from(*byte))
    };
    // ELF, 64 bit: a program header of type 3 names the loader of shared libraries.
    let (headers, size, count) = (word(32, 8), word(54, 2), word(56, 2));
    (0..count).all(|at| word(headers + at * size, 4) != 3)
}

/// It installs a revision that brings it along and adds another container, then one with a new version of itself.
pub(super) fn in_a_container(server: &dyn Management) {
    let client = binary("coxswain-hawkbit");
    if !is_static(&client) {
        assert!(std::env::var_os("CI").is_none(), "CI has a static client");
        eprintln!("SKIPPED in a container: {} is not static", client.display());
        return;
    }
    let rig = Rig::new(server, "inside", &[]);
    let image = busybox_with_hawkbit("1");
    let first = manifest(&rig, &image);
    let (status, said) = rig.device.update("locals/factory", &first, &[&image]);
    assert_eq!(status, "DONE", "{said}");
    let pid = || rig.device.container_pid("hawkbit").expect("it runs");
    let began_as = pid();

    let web = busybox(&[]);
    let sleeps = ["/bin/sleep", "1000"];
    let run = json!({"group": "app"});
    let second = first.container("web", &web, &sleeps, run.clone());
    let filler = Payload::large(&rig.name, 8 << 20).objects.remove(1);
    let second = second.key("web/filler.bin", json!(filler.sha256));
    let text = second.text();
    let files: [(&str, &[u8]); 4] = [
        ("manifest.json", text.as_bytes()),
        (&image.sha256, &image.bytes),
        (&web.sha256, &web.bytes),
        (&filler.sha256, &filler.bytes),
    ];
    let set = server.publish(&rig.name, &files);
    let action = server.assign(&rig.name, set, &How::Forced);
    ended(server, &rig, action, Outcome::Finished);
    rig.changed();
    assert_eq!(pid(), began_as, "it was not restarted");
    let peak = peak_kib(began_as);
    eprintln!("the client as a container: {peak} KiB at most, 8 MiB fetched");
    assert!(peak < MEMORY_KIB_MAX, "{peak} KiB");

    let newer = busybox_with_hawkbit("2");
    let third = manifest(&rig, &newer)
        .container("web", &web, &sleeps, run)
        .key("web/filler.bin", json!(filler.sha256));
    let text = third.text();
    let files: [(&str, &[u8]); 4] = [
        ("manifest.json", text.as_bytes()),
        (&newer.sha256, &newer.bytes),
        (&web.sha256, &web.bytes),
        (&filler.sha256, &filler.bytes),
    ];
    let set = server.publish(&format!("{}-newer", rig.name), &files);
    let action = server.assign(&rig.name, set, &How::Forced);
    has_line(server, &rig, action, "is being installed");
    let seen = ended(server, &rig, action, Outcome::Finished);
    once(&seen, "the deployment is accepted");
    once(&seen, COMMITTED);
    assert_ne!(pid(), began_as, "the new version runs");
    let marked = rig.device.inside("hawkbit", &["/bin/cat", "/etc/version"]);
    assert_eq!(String::from_utf8_lossy(&marked.stdout).trim(), "2");
    let peak = peak_kib(pid());
    assert!(peak < MEMORY_KIB_MAX, "{peak} KiB");
}
