//! What a device must live through with its real boot chain, in one row on one machine for each architecture: each scenario starts from what
//! the one before has left, which is always a committed revision that runs.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::bench;
use crate::built::{Built, Chain, archive, build};
use crate::damage;
use crate::machine::Machine;

/// What the scenarios share.
struct Course<'a> {
    chain: Chain,
    built: &'a Built,
    folder: &'a Path,
    machine: Machine,
    /// The committed revision, and the one whose kernel runs below it.
    runs: (String, String),
}

impl Course<'_> {
    /// Runs a revision, which becomes the committed one.
    fn update(&mut self, folder: &Path, name: &str, by_reboot: bool) {
        self.machine.run(folder, name);
        let (status, message) = self.machine.wait_final(name);
        assert_eq!(status, "DONE", "{message}\n{}", self.machine.console_end());
        self.runs.0 = name.to_owned();
        if by_reboot {
            self.runs.1 = name.to_owned();
        }
        self.settle();
    }

    /// Runs a revision that must fall back by itself, after its kernel was started `starts` times. What the device says of it.
    fn fall_back(&mut self, folder: &Path, name: &str, starts: usize) -> String {
        self.machine.run(folder, name);
        let (status, message) = self.machine.wait_final(name);
        assert_eq!(status, "ERROR", "{message}\n{}", self.machine.console_end());
        self.settle();
        let started = self.machine.boots(name);
        assert_eq!(started, starts, "{}", self.machine.console_end());
        self.machine.coxctl(&["why", name])
    }

    fn settle(&mut self) {
        let (revision, kernel) = self.runs.clone();
        self.machine.wait_until_good(&revision, &kernel);
    }
}

type Scenario = (&'static str, fn(&mut Course<'_>));

/// In order.
const SCENARIOS: &[Scenario] = &[
    ("built-twice", built_twice),
    ("in-place", in_place),
    ("kernel-and-init", kernel_and_init),
    ("sick-kernel", sick_kernel),
    ("sick-init", sick_init),
    ("no-kernel", no_kernel),
    ("sick-container", sick_container),
    ("reboot", reboot),
];

/// What is run unless `IMAGE_SCENARIOS` says otherwise; `all` is everything. CI has no time for more with the slower machines, and the rest
/// differs from these only in what runs behind the boot loader.
fn usual(chain: Chain, name: &str) -> bool {
    match chain {
        Chain::Grub => true,
        Chain::SystemdBoot | Chain::Uboot | Chain::UbootCopies => {
            ["kernel-and-init", "sick-kernel"].contains(&name)
        }
    }
}

/// Built again, in another folder and at another time: the same bytes.
fn built_twice(course: &mut Course<'_>) {
    let folder = course.folder.join("again");
    fs::create_dir(&folder).expect("a folder");
    let again = build(course.chain, &folder);
    // What it is made of first: that says where the difference is.
    for name in ["kernel.img", "initrd.img"] {
        let read = |built: &Built| fs::read(built.kept.join(name)).expect("it was kept");
        let same = read(course.built) == read(&again);
        assert!(same, "{name}, built twice, is not the same");
    }
    let output = Command::new("sha256sum")
        .args([&course.built.image, &again.image])
        .output()
        .expect("coreutils are installed");
    let text = String::from_utf8_lossy(&output.stdout);
    let sums: Vec<&str> = text.lines().map(|line| &line[..64]).collect();
    assert_eq!(sums.len(), 2, "{text}");
    assert_eq!(sums[0], sums[1], "built twice");
    println!("{}: {}", course.chain, sums[0]);
    fs::remove_dir_all(&folder).expect("our own folder can be removed");
}

/// Another configuration of one container: no reboot, the other container goes on.
fn in_place(course: &mut Course<'_>) {
    let pid = |machine: &Machine, name: &str| {
        let status = machine.get("/status").expect("the machine is up");
        let containers = status["containers"].as_array().cloned().unwrap_or_default();
        let found = containers.iter().find(|one| one["name"] == name).cloned();
        found.and_then(|one| one["pid"].as_u64()).expect("it runs")
    };
    let (web, clock) = (pid(&course.machine, "web"), pid(&course.machine, "clock"));
    let folder = course
        .built
        .revision(&course.folder.join("in-place"), |change| {
            change.set("_config/web/www/index.html", b"<h1>updated</h1>");
        });
    course.update(&folder, "locals/in-place", false);
    assert_eq!(pid(&course.machine, "clock"), clock, "it was not changed");
    assert_ne!(pid(&course.machine, "web"), web, "it was changed");
}

/// Another kernel and another init, by one reboot.
fn kernel_and_init(course: &mut Course<'_>) {
    let folder = course
        .built
        .revision(&course.folder.join("kernel"), |change| {
            let mut kernel = change.kernel();
            kernel.extend([0; 4096]);
            change.set("bsp/kernel.img", &kernel);
            // Unpacked over the first one.
            let mut initrd = change.initrd();
            initrd.resize(initrd.len().next_multiple_of(4), 0);
            initrd.extend(archive(&[("update", 0o100_644, b"here")]));
            change.set("bsp/initrd.img", &initrd);
        });
    course.update(&folder, "locals/kernel", true);
    assert_eq!(course.machine.boots("locals/kernel"), 1);
}

/// A kernel that panics: it finds no init. It is started once for each arming, of which the first may have been lost.
fn sick_kernel(course: &mut Course<'_>) {
    let folder = course
        .built
        .revision(&course.folder.join("sick-kernel"), |change| {
            change.set("bsp/initrd.img", &archive(&[("dev", 0o040_755, &[])]));
        });
    let why = course.fall_back(&folder, "locals/sick-kernel", 2);
    assert!(why.contains("boot"), "{why}");
}

/// An init that exits.
fn sick_init(course: &mut Course<'_>) {
    let folder = course
        .built
        .revision(&course.folder.join("sick-init"), |change| {
            change.set("bsp/initrd.img", &change.initrd_that_ends());
        });
    course.fall_back(&folder, "locals/sick-init", 2);
    assert!(course.machine.console().contains("Attempted to kill init"));
}

/// What the boot loader cannot start at all: it goes on to the committed one in the same boot.
fn no_kernel(course: &mut Course<'_>) {
    let folder = course
        .built
        .revision(&course.folder.join("no-kernel"), |change| {
            change.set("bsp/kernel.img", b"this is no kernel");
        });
    course.fall_back(&folder, "locals/no-kernel", 0);
}

/// A container that ends: rolled back in place, by the same kernel.
fn sick_container(course: &mut Course<'_>) {
    // From the running revision, whose kernel goes on.
    let folder = course.folder.join("sick-container");
    let running = course.machine.coxctl(&["steps", "show", &course.runs.0]);
    let folder = course.built.revision(&folder, |change| {
        let running: serde_json::Value = serde_json::from_str(&running).expect("a manifest");
        for key in ["bsp/kernel.img", "bsp/initrd.img"] {
            let object = running[key].as_str().expect("an object");
            let bytes = course.machine.socket.get(&format!("/objects/{object}"));
            change.set(key, &bytes.expect("the machine is up").body);
        }
        change.sick_container();
    });
    let boots = course.machine.boots(&course.runs.1);
    let why = course.fall_back(&folder, "locals/sick-container", 0);
    assert!(why.contains("sick"), "{why}");
    assert_eq!(
        course.machine.boots(&course.runs.1),
        boots,
        "nothing was restarted"
    );
}

/// Asked for: what is committed runs again.
fn reboot(course: &mut Course<'_>) {
    let boots = course.machine.boots(&course.runs.1);
    course.machine.coxctl(&["reboot"]);
    let kernel = course.runs.1.clone();
    course.machine.wait("it starts again", |machine| {
        (machine.boots(&kernel) == boots + 1).then_some(())
    });
    course.settle();
}

/// Nobody flashes a disk that is as large as the image. QEMU's cards have a power of two.
pub(crate) fn lengthen(chain: Chain, disk: &Path) {
    let file = fs::OpenOptions::new()
        .write(true)
        .open(disk)
        .expect("our own disk");
    let length = file.metadata().expect("our own disk").len();
    let length = length + (128 << 20);
    let length = match chain {
        Chain::Grub | Chain::SystemdBoot | Chain::Uboot => length,
        Chain::UbootCopies => length.next_power_of_two(),
    };
    file.set_len(length).expect("room for a hole");
}

/// What this says of a disk.
fn sfdisk(word: &str, disk: &Path) -> (Vec<u8>, String) {
    let mut command = Command::new("/usr/sbin/sfdisk");
    let output = command.arg(word).arg(disk).output();
    let output = output.expect("sfdisk is installed");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "sfdisk {word}: {said}");
    (output.stdout, said)
}

/// Where the storage is on a disk, in bytes.
pub(crate) fn storage_place(disk: &Path) -> Range<usize> {
    let (table, _) = sfdisk("--json", disk);
    let table: serde_json::Value = serde_json::from_slice(&table).expect("JSON");
    let storage = &table["partitiontable"]["partitions"][1];
    let bytes = |key: &str| {
        let sectors = storage[key].as_u64().expect("a number of sectors");
        usize::try_from(sectors * 512).expect("a disk of a test is short")
    };
    bytes("start")..bytes("start") + bytes("size")
}

/// The storage's partition was enlarged, and others than we take the table for a good one.
pub(crate) fn reaches_the_end(disk: &Path) {
    let (verified, said) = sfdisk("--verify", disk);
    let verified = String::from_utf8_lossy(&verified).into_owned();
    assert!(verified.contains("No errors detected"), "{verified}{said}");
    let length = fs::metadata(disk).expect("our own disk").len();
    let end = storage_place(disk).end as u64;
    assert_eq!(end, length - (1 << 20));
}

fn all(chain: Chain) {
    let Some(_one) = bench(chain) else { return };
    let folder = tempfile::Builder::new()
        .prefix("cx-image-")
        .tempdir()
        .expect("a folder");
    let seconds = |from: Instant| from.elapsed().as_secs_f64();
    let started = Instant::now();
    let built = build(chain, folder.path());
    println!("{chain}: built in {:.0} s", seconds(started));

    let disk = folder.path().join("disk");
    fs::copy(&built.image, &disk).expect("room for a disk");
    lengthen(chain, &disk);
    let mut course = Course {
        chain,
        built: &built,
        folder: folder.path(),
        machine: Machine::on(chain, &disk),
        runs: ("0".to_owned(), "0".to_owned()),
    };
    course.settle();
    let age = course.machine.age().as_secs_f64();
    println!("{chain}: factory boot: {age:.0} s from power on to good");
    let console = course.machine.console();
    assert!(console.contains("storage growth: grew from"), "{console}");

    let wanted = std::env::var("IMAGE_SCENARIOS").unwrap_or_default();
    for (name, scenario) in SCENARIOS {
        let is_wanted = match wanted.as_str() {
            "all" => true,
            "" => usual(chain, name),
            list => list.split(',').any(|one| one == *name),
        };
        if !is_wanted {
            println!("{chain}: {name}: left out (IMAGE_SCENARIOS)");
            continue;
        }
        let from = Instant::now();
        scenario(&mut course);
        println!("{chain}: {name}: {:.0} s", seconds(from));
    }
    let runs = course.runs.clone();
    course.machine.cut();
    reaches_the_end(&disk);
    damage::boots(chain, &disk, &runs);
}

#[test]
fn x86_64_by_grub() {
    all(Chain::Grub);
}

#[test]
fn x86_64_by_systemd_boot() {
    all(Chain::SystemdBoot);
}

#[test]
fn arm64_by_u_boot() {
    all(Chain::Uboot);
}

#[test]
fn arm64_by_u_boot_with_two_copies() {
    all(Chain::UbootCopies);
}
