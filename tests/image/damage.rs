//! The boot loader's environment, torn and corrupted on the disk while the machine is off: it boots, and mends what was damaged.
//!
//! Every byte range is swept in the adapters' own tests (`linux/tests/bootloaders`); here the real boot loaders read a sample.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::built::{COPIES_AT, COPY_BYTES, Chain};
use crate::machine::Machine;

const BLOCK: u64 = 4096;
/// Where `rootfs/build` puts the storage, and the note on arm64.
const STORAGE_AT: u64 = 40 << 20;
const NOTE_AT: u64 = 36 << 20;
/// And the partition that systemd-boot reads, as mtools call it.
const BOOT_AT: &str = "@@4M";

type Damage = (&'static str, fn(&Environment));

/// The worst first.
const DAMAGES: &[Damage] = &[
    ("all zero", |place| place.write(0, &[0; 1024])),
    ("a trial that does not exist", |place| {
        place.replace("pv_rev=", "pv_try=")
    }),
    ("noise", |place| {
        let noise: Vec<u8> = (0..1024u32)
            .map(|n| (n.wrapping_mul(0x9E37_79B1) >> 24) as u8)
            .collect();
        place.write(0, &noise);
    }),
    ("torn in the middle", |place| place.write(24, &[0xFF; 1000])),
    ("one bit of the name", |place| place.flip("pv_rev=")),
    ("quotes and commands", |place| {
        place.write(8, b"\npv_rev=$(reboot);\"'${x}\npv_tried=0\npv_try=;;\n")
    }),
];

/// The bytes of the environment on the disk.
struct Environment {
    disk: File,
    at: u64,
}

impl Environment {
    fn of(name: &str, disk: &Path) -> Self {
        // Its journal is empty: the boot loader's reader does not know it either.
        let place = format!("{}?offset={STORAGE_AT}", disk.display());
        let output = Command::new("debugfs")
            .args(["-R", &format!("blocks {name}"), &place])
            .output()
            .expect("e2fsprogs are installed");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let block: u64 = text.trim().parse().unwrap_or_else(|_| {
            panic!(
                "{name} is not one block: {text}{}",
                String::from_utf8_lossy(&output.stderr)
            )
        });
        let disk = OpenOptions::new()
            .read(true)
            .write(true)
            .open(disk)
            .expect("the disk");
        Self {
            disk,
            at: STORAGE_AT + block * BLOCK,
        }
    }

    fn read(&self) -> Vec<u8> {
        let mut bytes = vec![0; 1024];
        self.disk
            .read_exact_at(&mut bytes, self.at)
            .expect("the disk can be read");
        bytes
    }

    fn write(&self, offset: u64, bytes: &[u8]) {
        self.disk
            .write_all_at(bytes, self.at + offset)
            .expect("the disk can be written");
    }

    fn find(&self, text: &str) -> u64 {
        let bytes = self.read();
        let at = bytes
            .windows(text.len())
            .position(|window| window == text.as_bytes());
        at.unwrap_or_else(|| panic!("{text} is not in the environment")) as u64
    }

    fn replace(&self, from: &str, to: &str) {
        self.write(self.find(from), to.as_bytes());
    }

    /// One bit of the byte behind this text.
    fn flip(&self, text: &str) {
        let at = self.find(text) + text.len() as u64;
        let byte = self.read()[usize::try_from(at).expect("it is short")];
        self.write(at, &[byte ^ 1]);
    }
}

/// Damages what the boot loader reads, in the way with this number; `None` when there are no more.
fn damage(chain: Chain, disk: &Path, number: usize) -> Option<&'static str> {
    let file = match chain {
        Chain::Grub => "/boot/grubenv",
        Chain::Uboot => "/boot/uboot.txt",
        Chain::SystemdBoot => {
            let (name, bytes) = *ENTRIES.get(number)?;
            replace_entry(disk, bytes);
            return Some(name);
        }
        Chain::UbootCopies => {
            let (name, copies) = *COPIES.get(number)?;
            tear_copies(disk, copies);
            return Some(name);
        }
    };
    let (name, damage) = DAMAGES.get(number)?;
    let environment = Environment::of(file, disk);
    damage(&environment);
    if chain == Chain::Uboot {
        // The note as well: it costs at most one start of a trial, and there is none.
        environment
            .disk
            .write_all_at(&[0xA5; 512], NOTE_AT)
            .expect("the disk can be written");
    }
    Some(name)
}

/// The entry of what is committed: gone, or with another content.
const ENTRIES: &[(&str, Option<&[u8]>)] = &[
    ("no entry", None),
    ("an entry of noise", Some(&[0xA5; 700])),
    ("an empty entry", Some(&[])),
];

/// The copies of U-Boot's environment that are torn.
const COPIES: &[(&str, &[usize])] = &[
    ("both copies torn", &[0, 1]),
    ("the first copy torn", &[0]),
    ("the second copy torn", &[1]),
];

fn tear_copies(disk: &Path, copies: &[usize]) {
    let disk = OpenOptions::new().write(true).open(disk);
    let disk = disk.expect("the disk");
    for copy in copies {
        let middle = COPIES_AT[*copy] + COPY_BYTES as u64 / 2;
        disk.write_all_at(&[0xA5; COPY_BYTES / 2], middle)
            .expect("the disk can be written");
    }
}

fn replace_entry(disk: &Path, bytes: Option<&[u8]>) {
    let disk = format!("{}{BOOT_AT}", disk.display());
    let entry = "::loader/entries/coxswain.conf";
    let mtool = |words: &[&str]| {
        let status = Command::new(words[0]).args(&words[1..]).status();
        let status = status.expect("mtools are installed");
        assert!(status.success(), "{words:?}");
    };
    mtool(&["mdel", "-i", &disk, entry]);
    if let Some(bytes) = bytes {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), bytes).expect("a file");
        let path = file
            .path()
            .to_str()
            .expect("a temporary file's path is text");
        mtool(&["mcopy", "-i", &disk, path, entry]);
    }
}

/// Boots a machine once for each kind of damage. `runs` is what is committed, and whose kernel ran below it.
pub(crate) fn boots(chain: Chain, disk: &Path, runs: &(String, String)) {
    let count = std::env::var("IMAGE_DAMAGES")
        .ok()
        .and_then(|text| text.parse().ok());
    let usual = match chain {
        Chain::Grub => 2,
        Chain::SystemdBoot | Chain::Uboot => 1,
        Chain::UbootCopies => 3,
    };
    for number in 0..count.unwrap_or(usual) {
        let from = Instant::now();
        let Some(name) = damage(chain, disk, number) else {
            break;
        };
        let mut machine = Machine::on(chain, disk);
        let committed = &runs.0;
        let kernel = machine.wait("what is committed runs", |machine| {
            let status = machine.get("/status")?;
            let mut containers = status["containers"].as_array()?.iter();
            let is_good = status["running"] == committed.as_str()
                && status["trial"].is_null()
                && containers.all(|one| one["good"] == true);
            is_good.then(|| machine.booted())?
        });
        assert!(
            kernel == "0" || kernel == runs.1,
            "{name}: the kernel of {kernel} runs"
        );
        // It was written anew: the next boot has its own kernel again.
        machine.coxctl(&["reboot"]);
        machine.wait("its own kernel is back", |machine| {
            (machine.boots(&runs.1) > usize::from(kernel == runs.1)).then_some(())
        });
        machine.wait_until_good(committed, &runs.1);
        machine.coxctl(&["poweroff"]);
        machine.wait_for_end();
        println!(
            "{chain}: environment damaged ({name}): the kernel of {kernel} ran, then that of {}; {:.0} s",
            runs.1,
            from.elapsed().as_secs_f64()
        );
    }
}
