//! Every truncation, every single flipped bit, every mix of old and new sectors, of every format: reading never panics, never invents a
//! revision, uses the good copy or nothing, and says so.

use std::path::Path;
use std::sync::{Arc, Mutex};

use linux::bootloader::area::{Area, FileArea};
use linux::bootloader::block::BlockFile;
use linux::bootloader::systemd_boot::SystemdBoot;
use linux::bootloader::tryboot::TryBoot;
use linux::bootloader::uboot::Uboot;
use linux::bootloader::uboot_format::Variables;
use linux::bootloader::uboot_txt::{self, UbootTxt};
use linux::bootloader::{Choice, Environment, Found, block_format};
use simulator::disk::Disk;
use store::disk::{Disk as _, WriteFile as _};

use super::machines::{Machine, Restart, id, machines};

fn choice(committed: &str, trial: Option<&str>) -> Choice {
    Choice {
        committed: Some(id(committed)),
        trial: trial.map(id),
        tried: false,
    }
}

/// What was written before, and what after it.
fn old_and_new() -> (Choice, Choice) {
    (choice("5", None), choice("5", Some("locals/next one")))
}

/// Every damage of `new`, which was written over `old`.
fn damages(old: &[u8], new: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut damages = Vec::new();
    for len in 0..new.len() {
        damages.push((format!("cut to {len} bytes"), new[..len].to_vec()));
    }
    for bit in 0..new.len() * 8 {
        let mut bytes = new.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        damages.push((format!("bit {bit} flipped"), bytes));
    }
    // What was not written reads as zeros or ones, from anywhere to anywhere in steps of a sector's part.
    for start in (0..new.len()).step_by(32) {
        for end in (start + 32..=new.len()).step_by(32) {
            for filler in [0, 0xff] {
                let mut bytes = new.to_vec();
                bytes[start..end].fill(filler);
                damages.push((format!("{filler:#x} from {start} to {end}"), bytes));
            }
        }
    }
    if old.len() == new.len() {
        let sectors = new.len().div_ceil(512);
        for mix in 0..1_usize << sectors {
            let mut bytes = old.to_vec();
            for sector in (0..sectors).filter(|sector| mix >> sector & 1 == 1) {
                let range = sector * 512..((sector + 1) * 512).min(new.len());
                bytes[range.clone()].copy_from_slice(&new[range]);
            }
            damages.push((format!("sectors {mix:b} are new"), bytes));
        }
    }
    damages
}

/// A choice may be lost in parts, but never holds what was not written.
fn assert_not_invented(what: &str, found: &Found) {
    let (old, new) = old_and_new();
    let Some(choice) = &found.choice else {
        return;
    };
    let is_known = choice.committed.is_none() || choice.committed == new.committed;
    assert!(is_known, "{what}: {choice:?} invents a revision");
    let trial = choice.trial.is_none() || choice.trial == new.trial || choice.trial == old.trial;
    assert!(trial, "{what}: {choice:?} invents a trial");
}

fn put(disk: &Disk, path: &str, bytes: &[u8]) {
    let mut file = disk.create(Path::new(path)).unwrap();
    file.append(bytes).unwrap();
}

fn file(disk: &Disk, path: &str) -> FileArea<Disk> {
    FileArea {
        disk: Arc::new(disk.clone()),
        path: path.into(),
    }
}

#[test]
fn grub_block() {
    let (old, new) = old_and_new();
    let others = [b"saved_entry=a\\\nb\n".to_vec(), b"next_entry=\n".to_vec()];
    let (old, new_bytes) = (
        block_format::format(&old, &others).unwrap(),
        block_format::format(&new, &others).unwrap(),
    );
    let disk = Disk::default();
    let block = BlockFile {
        file: file(&disk, "grubenv"),
    };
    for (what, bytes) in damages(&old, &new_bytes) {
        put(&disk, "grubenv", &bytes);
        let found = block.read();
        assert_not_invented(&what, &found);
        if bytes.len() != new_bytes.len() {
            assert!(
                found.choice.is_none() && !found.notices.is_empty(),
                "{what}"
            );
        }
        // Whatever was there, what is written next is whole.
        if what.contains("sectors") {
            assert!(
                found.choice.is_some(),
                "{what}: both sectors hold a whole choice"
            );
        }
    }
    put(&disk, "grubenv", &new_bytes);
    assert_eq!(
        block.read(),
        Found {
            choice: Some(new),
            notices: vec![]
        }
    );
}

#[test]
fn a_damaged_block_can_be_written_again_and_keeps_what_is_not_ours() {
    let (_, new) = old_and_new();
    let others = [b"saved_entry=x\n".to_vec()];
    let good = block_format::format(&new, &others).unwrap();
    let disk = Disk::default();
    let mut block = BlockFile {
        file: file(&disk, "grubenv"),
    };
    for (what, bytes) in damages(&good, &good).into_iter().step_by(97) {
        put(&disk, "grubenv", &bytes);
        block.write(&new).unwrap();
        assert_eq!(block.read().choice.as_ref(), Some(&new), "{what}");
    }
    put(&disk, "grubenv", &good);
    block.write(&choice("6", None)).unwrap();
    let text = String::from_utf8(disk.live_file("grubenv").unwrap().to_vec()).unwrap();
    assert!(
        text.contains("\nsaved_entry=x\n") && text.contains("\npv_rev=6\n"),
        "{text}"
    );
    assert_eq!(text.len(), 1024);
}

#[test]
fn uboot_txt() {
    let (old, new) = old_and_new();
    let board = Variables::from_list(b"pv_quickboot=1\0\0");
    let old = uboot_txt::format(&old, board.clone()).unwrap();
    let new_bytes = uboot_txt::format(&new, board).unwrap();
    let disk = Disk::default();
    let txt = UbootTxt {
        file: file(&disk, "uboot.txt"),
    };
    for (what, bytes) in damages(&old, &new_bytes) {
        put(&disk, "uboot.txt", &bytes);
        assert_not_invented(&what, &txt.read());
    }
    put(&disk, "uboot.txt", &new_bytes);
    assert_eq!(
        txt.read(),
        Found {
            choice: Some(new),
            notices: vec![]
        }
    );
}

#[test]
fn uboot_txt_as_pantavisor_leaves_it() {
    let mut bytes = b"pv_rev=7\0pv_try=\0\0".to_vec();
    bytes.resize(64 << 10, 0);
    let (found, _) = uboot_txt::parse(&bytes);
    assert_eq!(
        (found.choice, found.notices),
        (Some(choice("7", None)), vec![])
    );
    let (found, _) = uboot_txt::parse(b"pv_rev=7\0pv_try=8\0\0");
    assert_eq!(
        found.choice,
        Some(choice("7", None)),
        "a trial without a checksum is not believed"
    );
    assert_eq!(found.notices.len(), 1);
}

#[derive(Debug, Clone)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Area for Memory {
    fn read(&self) -> std::io::Result<Vec<u8>> {
        Ok(self.0.lock().unwrap().clone())
    }
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        *self.0.lock().unwrap() = bytes.to_vec();
        Ok(())
    }
    fn is_atomic(&self) -> bool {
        false
    }
    fn place(&self) -> String {
        "memory".into()
    }
}

const SIZE: usize = 1024;

fn uboot() -> (Uboot, [Memory; 2]) {
    let memory = [0, 1].map(|_| Memory(Arc::new(Mutex::new(vec![0xff; SIZE]))));
    let areas = memory
        .iter()
        .map(|area| Box::new(area.clone()) as Box<dyn Area>)
        .collect();
    let initial = b"bootcmd=run distro_bootcmd\nbootdelay=2\n".to_vec();
    (Uboot::new(areas, SIZE, Some(initial)).unwrap(), memory)
}

#[test]
fn uboot_one_copy_of_two_may_be_anything() {
    let (old, new) = old_and_new();
    let (mut environment, memory) = uboot();
    assert_eq!(environment.read().choice, None);
    assert_eq!(
        environment.read().notices.len(),
        2,
        "both copies are erased flash"
    );
    environment.write(&old).unwrap();
    let before = memory.each_ref().map(|area| area.read().unwrap());
    environment.write(&new).unwrap();
    let after = memory.each_ref().map(|area| area.read().unwrap());
    for index in [0, 1] {
        for (what, bytes) in damages(&before[index], &after[index]) {
            *memory[index].0.lock().unwrap() = bytes.clone();
            let found = environment.read();
            // Both copies say the same, so whichever one is used, nothing is lost; unless the copy is the whole old one.
            let is_old = bytes == before[index];
            let is_new = found.choice.as_ref() == Some(&new);
            assert!(is_new || is_old, "copy {index}, {what}: {found:?}");
            let flag_only = bytes.len() == SIZE
                && bytes[5..] == after[index][5..]
                && bytes[..4] == after[index][..4];
            assert_eq!(
                found.notices.is_empty(),
                flag_only || is_old,
                "copy {index}, {what}"
            );
        }
        *memory[index].0.lock().unwrap() = after[index].clone();
    }
}

/// The moment between the two writes: one copy is the new one, the other the old one, and the cut tears either.
#[test]
fn uboot_copies_of_different_age() {
    let (old, new) = old_and_new();
    let (mut environment, memory) = uboot();
    environment.write(&old).unwrap();
    let before = memory.each_ref().map(|area| area.read().unwrap());
    environment.write(&new).unwrap();
    let after = memory.each_ref().map(|area| area.read().unwrap());
    // Of two copies with flags 1 and 2 the second is in use, so the first is written first.
    *memory[1].0.lock().unwrap() = before[1].clone();
    assert_eq!(environment.read().choice, Some(new.clone()));
    for (what, bytes) in damages(&before[0], &after[0]) {
        *memory[0].0.lock().unwrap() = bytes;
        let found = environment.read().choice;
        assert!(
            found.as_ref() == Some(&old) || found.as_ref() == Some(&new),
            "{what}"
        );
    }
    *memory[0].0.lock().unwrap() = after[0].clone();
    for (what, bytes) in damages(&before[1], &after[1]) {
        *memory[1].0.lock().unwrap() = bytes;
        let found = environment.read().choice;
        assert!(
            found.as_ref() == Some(&old) || found.as_ref() == Some(&new),
            "{what}"
        );
    }
}

#[test]
fn uboot_both_copies_lost() {
    let (_, new) = old_and_new();
    let area = |bytes: Vec<u8>| Memory(Arc::new(Mutex::new(bytes)));
    let memory = [area(vec![0; SIZE]), area(vec![])];
    let areas = || {
        memory
            .iter()
            .map(|area| Box::new(area.clone()) as Box<dyn Area>)
            .collect()
    };
    let mut bare = Uboot::new(areas(), SIZE, None).unwrap();
    let error = bare.write(&new).unwrap_err();
    assert!(error.contains("u-boot-initial-env"), "{error}");
    assert_eq!(
        memory[0].read().unwrap(),
        vec![0; SIZE],
        "U-Boot keeps its built-in environment"
    );
    let mut mended = Uboot::new(areas(), SIZE, Some(b"bootcmd=run a\n".to_vec())).unwrap();
    mended.write(&new).unwrap();
    assert_eq!(
        mended.read(),
        Found {
            choice: Some(new),
            notices: vec![]
        }
    );
    let bytes = memory[0].read().unwrap();
    assert!(bytes.windows(14).any(|window| window == b"bootcmd=run a\0"));
    // One copy that is written in place could tear.
    let one: Vec<Box<dyn Area>> = vec![Box::new(memory[0].clone())];
    assert!(Uboot::new(one, SIZE, None).is_err());
}

/// Makes a machine that has come so far.
type Build<'a> = dyn Fn() -> Box<dyn Machine> + 'a;

/// Damages of the files in which a machine's boot loader and we keep what to start, one at a time: cut, flipped, zeroed, old and new mixed.
/// Something starts, and what the orchestrator then asks for starts from then on.
#[test]
fn whatever_is_damaged_the_machine_boots_and_mends() {
    let (zero, one, two) = (id("0"), id("1"), id("2"));
    let kernels = [zero.clone(), one.clone(), two.clone()];
    let mut boots = 0;
    for (name, make) in machines() {
        let committed = || {
            let machine = make();
            machine.port(None).confirm(&one).unwrap();
            machine
        };
        let armed = || {
            let machine = committed();
            machine.start(Restart::Asked).unwrap();
            machine.port(Some(one.clone())).arm(&two).unwrap();
            machine
        };
        let started = || {
            let machine = armed();
            machine.start(Restart::Asked).unwrap();
            machine
        };
        let lives: [(&str, &Build<'_>); 3] = [
            ("committed", &committed),
            ("armed", &armed),
            ("started", &started),
        ];
        for (life, build) in lives {
            let before = committed().files();
            for (file, bytes) in build().files() {
                let old = before.iter().find(|(name, _)| *name == file);
                let old = old.map_or(bytes.as_slice(), |(_, bytes)| bytes);
                // Every cut; of the many flipped bits and fillings one in seven, another one in each file.
                let damages = damages(old, &bytes).into_iter().enumerate();
                for (_, (what, damaged)) in damages.filter(|(n, _)| *n < bytes.len() || n % 7 == 0)
                {
                    let machine = build();
                    machine.damage(&file, &damaged);
                    let booted = machine.start_one_of(&kernels);
                    let place = format!("{name}, {life}, {file}, {what}: {booted} booted");
                    let mended = machine.port(Some(booted)).confirm(&one);
                    mended.unwrap_or_else(|error| panic!("{place}: {error}"));
                    assert_eq!(machine.start(Restart::Asked), Some(one.clone()), "{place}");
                    boots += 1;
                }
            }
        }
    }
    eprintln!("{boots} boots with damage");
    assert!(boots > 10_000);
}

/// What lies on a FAT partition: an entry, or a part of config.txt, is the whole one or is not used.
#[test]
fn files_of_systemd_boot_and_tryboot() {
    let run = tempfile::tempdir().unwrap();
    let (_, new) = old_and_new();
    let disk = Disk::default();
    for name in ["5", "locals/next one"] {
        let folder = format!(
            "coxswain/{}",
            linux::bootloader::token::short_name(&id(name))
        );
        disk.create_dir_all(Path::new(&folder)).unwrap();
        for file in ["linux", "devicetree"] {
            put(&disk, &format!("{folder}/{file}"), file.as_bytes());
        }
    }
    let shared = Arc::new(disk.clone());
    let systemd = SystemdBoot {
        disk: Arc::clone(&shared),
        options: "quiet".into(),
    };
    let tryboot = TryBoot {
        disk: shared,
        options: "quiet".into(),
        argument: run.path().join("argument"),
    };
    let environments: [(Box<dyn Environment>, [&str; 2]); 2] = [
        (
            Box::new(systemd),
            [
                "loader/entries/coxswain.conf",
                "loader/entries/coxswain-trial+1.conf",
            ],
        ),
        (Box::new(tryboot), ["coxswain.txt", "coxswain-try.txt"]),
    ];
    for (mut environment, paths) in environments {
        environment.write(&new).unwrap();
        assert_eq!(
            environment.read(),
            Found {
                choice: Some(new.clone()),
                notices: vec![]
            }
        );
        for (index, path) in paths.iter().enumerate() {
            let good = disk.live_file(path).unwrap();
            for (what, bytes) in damages(&good, &good) {
                put(&disk, path, &bytes);
                let found = environment.read();
                assert_not_invented(&what, &found);
                if bytes[..] != good[..] {
                    let kept = found.choice.unwrap();
                    let lost = if index == 0 {
                        kept.committed
                    } else {
                        kept.trial
                    };
                    assert_eq!(lost, None, "{path}, {what}");
                    assert!(!found.notices.is_empty(), "{path}, {what}");
                }
            }
            environment.write(&new).unwrap();
            assert_eq!(
                environment.read().choice.as_ref(),
                Some(&new),
                "{path} is mended"
            );
        }
    }
}
