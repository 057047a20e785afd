//! Lives of a device that are recorded write by write: from an empty disk, or from one with a factory revision.
//!
//! What the device is made to do stands in `inside drive`; here it is started, cut, started again and switched off.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use acceptance::image::{Image, busybox, sha256};
use acceptance::manifest::Manifest;
use serde_json::{Value, json};

use crate::BOOT;
use crate::ledger::{Ledger, content};
use crate::machine::{Machine, Parts};
use acceptance::power::disk::Disk;
use acceptance::power::moments::Moments;
use acceptance::power::record::{BLOCK, Recorder, Recording};

/// Small, so that an image is made and checked in milliseconds; blocks as large as on a large disk, and as many groups of them
/// (128 MiB each) as it takes to have a second superblock.
pub(crate) const DISK_BYTES: u64 = 144 << 20;
const FORMAT: [&str; 4] = ["-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
pub(crate) const OPTIONS: &str = "coxswain.log-level=info coxswain.commit-delay=500ms coxswain.keep-revisions=1 \
     coxswain.object-lease=10s";
/// What the device does in the recording, at most.
const SESSION: Duration = Duration::from_secs(180);

/// A recorded life.
pub(crate) struct Life {
    /// From what it began.
    pub(crate) name: &'static str,
    /// The disk at its beginning.
    pub(crate) medium: Vec<u8>,
    /// What happened to the disk.
    pub(crate) recording: Recording,
    /// What was answered.
    pub(crate) ledger: Ledger,
}

/// What the revisions of the lives are made of.
pub(crate) fn template() -> (Manifest, Image) {
    let image = busybox(&[(
        "bin/service",
        "#!/bin/sh\nexec /bin/ready -- /bin/sleep \"$1\"\n",
    )]);
    let manifest = Manifest::with_groups(&[("app", "STARTED", 30)])
        .container("steady", &image, &["/bin/sleep", "5000"], json!({}))
        .container(
            "changing",
            &image,
            &["@PROGRAM@", "@NUMBER@"],
            json!({"status_goal": "READY"}),
        )
        .key("changing/blob", json!("@BLOB@"));
    (manifest, image)
}

/// Waits until the device has settled; which revision runs.
pub(crate) fn settle(machine: &mut Machine) -> String {
    let Some(output) = machine.ask("inside settle", BOOT) else {
        panic!("no answer to inside settle\n{}", machine.console_end());
    };
    assert_eq!(output.code, 0, "{}\n{}", output.text, machine.console_end());
    let status: Value = serde_json::from_str(&output.text).expect("JSON of the status");
    assert_eq!(status["running"], status["committed"]);
    let running = status["running"].as_str();
    running.expect("something runs").to_owned()
}

/// Drives the machine; whether it came to the end of the updates.
pub(crate) fn drive(
    machine: &mut Machine,
    session: u64,
    (first, updates): (u64, u64),
    end: Instant,
    mut each: impl FnMut(&str),
) -> bool {
    let line = format!("inside drive /revisions/loop {session} {first} {updates} >/dev/ttyS1 2>&1");
    let code = machine.listen(&line, end, |line| {
        if line.starts_with('@') {
            each(line);
        } else if !line.is_empty() {
            println!("drive: {line}");
        }
    });
    code == Some(0)
}

/// Whether a line is of the driver's, and not of the shell's or an error's.
pub(crate) fn is_told(line: &str) -> bool {
    ["@a ", "@d ", "@s ", "@c ", "@b"]
        .iter()
        .any(|start| line.starts_with(start))
}

/// Where each machine of a test has its own sockets.
pub(crate) fn parts_in(shared: &Parts, name: &str, options: &str) -> Parts {
    let folder = shared.folder.join(name);
    fs::create_dir_all(&folder).expect("a folder for a machine");
    Parts {
        kernel: shared.kernel.clone(),
        initramfs: shared.initramfs.clone(),
        system: shared.system.clone(),
        options: options.to_owned(),
        folder,
    }
}

/// Switches it on and waits until coxswain answers.
pub(crate) fn boot(parts: &Parts, disk: Disk) -> Machine {
    let mut machine = Machine::on(parts, disk);
    boot_until(&mut machine);
    machine
}

/// Waits until coxswain answers.
pub(crate) fn boot_until(machine: &mut Machine) {
    machine.wait_for_shell(BOOT);
    machine.wait("coxswain answers", BOOT, |machine| {
        (machine.run("coxctl --json status").code == 0).then_some(())
    });
}

/// Number of the seed of the factory's own object.
const FACTORY_SEED: u64 = 7;

/// A storage as an image builder leaves it: the factory's manifest and its objects, and nothing else.
fn factory_tree(tree: &Path, manifest: &Manifest, image: &Image, ledger: &mut Ledger) {
    let object = content(FACTORY_SEED, 9_000);
    let name = sha256(&object);
    let text = manifest
        .text()
        .replace("@PROGRAM@", "/bin/service")
        .replace("@NUMBER@", "100000")
        .replace("@BLOB@", &name);
    let folder = |name: &str| {
        let path = tree.join(name);
        fs::create_dir_all(&path).expect("a folder of the factory's");
        path
    };
    fs::write(folder("trails/0/.pvr").join("json"), &text).expect("the factory's manifest");
    for (name, bytes) in [(&name, &object), (&image.sha256, &image.bytes)] {
        fs::write(folder("objects").join(name), bytes).expect("an object of the factory's");
    }
    ledger.factory(&text, &name, object);
}

/// The ledger of a device that was never asked for anything.
pub(crate) fn ledger_of((manifest, image): (&Manifest, &Image)) -> Ledger {
    let images = BTreeMap::from([(image.sha256.clone(), image.bytes.clone())]);
    Ledger::new(&manifest.text(), images)
}

/// The disk of a device that leaves the factory.
pub(crate) fn factory_disk(
    parts: &Parts,
    (manifest, image): (&Manifest, &Image),
    ledger: &mut Ledger,
) -> Disk {
    let tree = parts.folder.join("tree");
    factory_tree(&tree, manifest, image, ledger);
    format(parts, &["-d", &tree.display().to_string()])
}

/// A disk that was used before: its journal is full of what somebody else wrote, so a block of it that is torn is not half empty.
fn format(parts: &Parts, options: &[&str]) -> Disk {
    let path = parts.folder.join("storage");
    let options: Vec<&str> = FORMAT.iter().chain(options).copied().collect();
    let disk = Disk::format(&path, DISK_BYTES, &options);
    let listed = Command::new("debugfs")
        .args(["-R", "blocks <8>"])
        .arg(&path)
        .output();
    let listed = listed.expect("Debian's e2fsprogs is installed");
    let blocks = String::from_utf8_lossy(&listed.stdout).into_owned();
    let file = File::options()
        .write(true)
        .open(&path)
        .expect("the disk's file");
    // The first one is the journal's superblock.
    for block in blocks.split_whitespace().skip(1) {
        let number: u64 = block.parse().expect("debugfs lists numbers");
        let old = content(number, BLOCK as u64);
        file.write_all_at(&old, number * BLOCK as u64)
            .expect("the disk's file takes it");
    }
    disk
}

/// A life from an empty disk: first start, uploads, updates good and bad, collections; a cut in the middle; more of it; switched off.
/// From a disk with a factory revision: its first start, and the same.
pub(crate) fn live(parts: &Parts, factory: bool, made: (&Manifest, &Image), seed: u64) -> Life {
    let name = if factory { "factory" } else { "empty" };
    let mut ledger = ledger_of(made);
    let mut disk = if factory {
        factory_disk(parts, made, &mut ledger)
    } else {
        format(parts, &[])
    };
    let medium = fs::read(disk.path()).expect("the disk's file");
    let recorder = Recorder::default();
    disk.record(recorder.clone());
    let tell = |line: &str| recorder.told(line.to_owned());
    let mut machine = boot(parts, disk);
    if factory {
        let running = settle(&mut machine);
        tell(&format!("@c {running}"));
    }
    let end = || Instant::now() + SESSION;
    assert!(
        drive(&mut machine, 1, (1, 4), end(), tell),
        "the first session\n{}",
        machine.console_end()
    );
    // The power is cut in the middle of something, and recovery is recorded too.
    let mut moments = Moments::from_seed(seed);
    machine.fuse().arm(40 + moments.below(60));
    drive(&mut machine, 2, (5, 3), end(), tell);
    let (disk, cut) = machine.cut_and_hear(&mut moments, tell);
    println!("{name}: cut in the middle of the recording: {cut:?}");
    tell("@b");
    let mut machine = boot(parts, disk);
    let running = settle(&mut machine);
    tell(&format!("@c {running}"));
    assert!(
        drive(&mut machine, 3, (8, 3), end(), tell),
        "the second session\n{}",
        machine.console_end()
    );
    machine.must("coxctl poweroff");
    machine.wait_for_end(Duration::from_secs(60));
    let recording = recorder.take();
    for (place, line) in &recording.told {
        if is_told(line) {
            ledger.told(*place, line);
        }
    }
    Life {
        name,
        medium,
        recording,
        ledger,
    }
}
