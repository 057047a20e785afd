//! Objects sealed with fs-verity, on ext4 with a real kernel: the next start does not read them, nobody can write to them, and a block that
//! rots is found soon after the start, which is then gone through again.
//!
//! `SEAL_MIB`: size of what the factory's revision holds (default 32).

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use acceptance::image::{Image, binary, busybox, object, sha256};
use acceptance::manifest::Manifest;
use serde_json::{Value, json};

use crate::machine::Machine;
use crate::system::Revision;
use acceptance::power::disk::Disk;
use acceptance::power::moments::Moments;

const SETTLES: Duration = Duration::from_secs(180);
const BLOCK: u64 = 4096;
/// Bytes of one of the large objects.
const LARGE: usize = 16 << 20;

/// Bytes that no file system stores as a hole.
fn noise(seed: &str, len: usize) -> Image {
    let mut word = u64::from_str_radix(&sha256(seed.as_bytes())[..16], 16).expect("digits") | 1;
    let words = (0..len / 8).flat_map(|_| {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        word.to_le_bytes()
    });
    object(&words.collect::<Vec<u8>>())
}

fn revision(image: &Image, objects: &[Image]) -> Manifest {
    let manifest = Manifest::with_groups(&[("app", "STARTED", 60)]).container(
        "web",
        image,
        &["/bin/sleep", "5000"],
        json!({}),
    );
    objects
        .iter()
        .enumerate()
        .fold(manifest, |manifest, (number, object)| {
            manifest.key(&format!("web/data{number}"), json!(object.sha256))
        })
}

/// A storage as an image of ours has it: made by `coxswain make-storage`, on a file system that can seal.
fn storage(folder: &Path, factory: &Revision<'_>, mib: usize) -> Disk {
    factory.write(folder);
    let tree = folder.join("tree");
    let made = Command::new(binary("coxswain"))
        .args(["make-storage", "--storage"])
        .arg(&tree)
        .arg(folder.join(factory.name))
        .output()
        .expect("coxswain runs");
    assert!(made.status.success(), "{made:?}");
    let path = folder.join("disk");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rootfs/filesystem");
    let made = Command::new(script)
        .args([&tree, &path])
        .args([
            &mib.to_string(),
            "storage",
            "636f7873-7761-496e-a073-746f72616765",
        ])
        .env("FILESYSTEM_FEATURES", "verity")
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .output()
        .expect("a shell");
    assert!(made.status.success(), "{made:?}");
    fs::remove_dir_all(tree).expect("our own folder");
    Disk::on(&path)
}

/// Milliseconds that the first verification of this start took.
fn verified_ms(machine: &Machine) -> u64 {
    let console = machine.console();
    let mut lines = console.lines().filter(|line| line.contains("verified"));
    let figure = lines.find_map(|line| {
        let rest = line.split_once("ms=")?.1;
        let digits = rest.split(|letter: char| !letter.is_ascii_digit()).next()?;
        digits.parse().ok()
    });
    figure.unwrap_or_else(|| panic!("no figure in {console}"))
}

fn status(machine: &mut Machine) -> Value {
    serde_json::from_str(&machine.must("coxctl --json status")).expect("JSON of the status")
}

fn runs(machine: &mut Machine, revision: &str) {
    machine.wait(revision, SETTLES, |machine| {
        let status = status(machine);
        let mut containers = status["containers"].as_array()?.iter();
        (status["running"] == revision && containers.all(|one| one["good"] == true)).then_some(())
    });
}

fn is_sealed(machine: &mut Machine, object: &Image) -> bool {
    let seals = machine.run("cat /storage/boot/seals").text;
    seals.contains(&object.sha256)
}

/// Overwrites a block in the middle of a file, behind the back of every file system.
fn rot(disk: &Disk, path: &str) {
    let output = Command::new("debugfs")
        .args(["-R", &format!("blocks {path}")])
        .arg(disk.path())
        .output()
        .expect("Debian's e2fsprogs is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let blocks: Vec<u64> = text
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let block = blocks[blocks.len() / 3];
    let file = fs::OpenOptions::new().write(true).open(disk.path());
    let file = file.expect("the disk's file");
    file.write_all_at(&[0x5a; 512], block * BLOCK)
        .expect("the disk's file");
}

#[test]
fn sealed_objects_are_not_read_and_one_that_rots_is_found() {
    if crate::kernel().is_err() {
        drop(crate::bench(&[]));
        return;
    }
    let mib: usize = std::env::var("SEAL_MIB").map_or(32, |text| text.parse().expect("a number"));
    let image = busybox(&[("etc/sealed", "sealed")]);
    let large: Vec<Image> = (0..mib.div_ceil(LARGE >> 20))
        .map(|number| noise(&format!("large {number}"), LARGE))
        .collect();
    let small = noise("small", 1 << 20);
    let factory = revision(&image, &large);
    let next = revision(&image, std::slice::from_ref(&small));
    let next = Revision {
        name: "next",
        manifest: &next,
        images: &[&image, &small],
    };
    let Some((mut bench, _)) = crate::bench(&[next]) else {
        return;
    };
    bench.parts.options = format!("{} coxswain.seal-after=1s", crate::OPTIONS);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let images: Vec<&Image> = large.iter().chain([&image]).collect();
    let factory = Revision {
        name: "factory",
        manifest: &factory,
        images: &images,
    };
    let disk = storage(folder.path(), &factory, 2 * mib + 64);

    let mut machine = bench.boot(disk);
    runs(&mut machine, "0");
    let without = verified_ms(&machine);
    machine.wait("the factory's objects are sealed", SETTLES, |machine| {
        is_sealed(machine, &image).then_some(())
    });
    machine.must("coxctl install /revisions/next --name locals/next --run --wait --timeout 60");
    machine.wait("the new object is sealed", SETTLES, |machine| {
        is_sealed(machine, &small).then_some(())
    });
    let written = machine.run(&format!("echo x >>/storage/objects/{}", small.sha256));
    assert_ne!(written.code, 0, "a sealed object was written to");

    // A cut, and another start of the factory's revision: nothing of it is read.
    machine.must("coxctl run 0 --again --wait --timeout 60");
    machine.must("sync");
    let (disk, _) = machine.cut(&mut Moments::from_seed(1));
    let mut machine = bench.boot(disk);
    runs(&mut machine, "0");
    let with = verified_ms(&machine);
    println!("verifying {mib} MiB at a start: {without} ms without seals, {with} ms with them");
    assert!(with * 5 < without, "{with} ms against {without} ms");
    machine.must("coxctl run locals/next --again --wait --timeout 60");
    machine.must("coxctl poweroff");
    let disk = machine.wait_for_end(Duration::from_secs(60));
    assert_eq!(disk.damage(), None);

    rot(&disk, &format!("/objects/{}", small.sha256));
    let mut machine = bench.boot(disk);
    runs(&mut machine, "0");
    let events = machine.must("coxctl --json events");
    let found = events.contains(&small.sha256[..12]) && events.contains("unreadable");
    assert!(found, "the damage was told: {events}");
    // Whoever puts it again mends it.
    machine.must("coxctl install /revisions/next --name locals/mended --run --wait --timeout 60");
    machine.must(&format!(
        "sha256sum /storage/objects/{} | grep ^{}",
        small.sha256, small.sha256
    ));
}
