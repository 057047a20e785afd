//! Machines with a boot loader each: a disk that can be cut, our adapter, and what the boot loader itself does when the machine
//! starts. The boot loaders here are written from their own documentation and share no code with the adapters' formats.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use device::ports::Bootloader;
use linux::bootloader::area::{Area, FileArea};
use linux::bootloader::block::BlockFile;
use linux::bootloader::systemd_boot::SystemdBoot;
use linux::bootloader::tryboot::{REBOOT_ARGUMENT, TryBoot};
use linux::bootloader::uboot::Uboot;
use linux::bootloader::uboot_txt::UbootTxt;
use linux::bootloader::{Environment, Loader, entry_format, token};
use model::RevisionId;
use simulator::bugs::Bug;
use simulator::disk::{Disk, Plan, Spread};
use simulator::power::Kind;
use store::disk::{Disk as _, WriteFile as _};
use tempfile::TempDir;

pub(crate) fn id(text: &str) -> RevisionId {
    text.parse().unwrap()
}

/// How the machine came to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restart {
    /// Somebody restarted it in order.
    Asked,
    /// The power was gone.
    PowerCut,
}

/// What a boot loader starts, as it is written there: first what it tries first, then what it falls back to.
pub(crate) type Started = Vec<String>;

pub(crate) trait Machine {
    /// The port of a system that was booted into this revision.
    fn port(&self, booted: Option<RevisionId>) -> Box<dyn Bootloader>;
    /// The boot loader chooses, and notes what it has to note.
    fn choose(&self, restart: Restart) -> Started;
    /// What it starts; it must be told a revision.
    fn start(&self, restart: Restart) -> Option<RevisionId> {
        let first = self.choose(restart).into_iter().next()?;
        let revision = token::revision(&first);
        Some(revision.unwrap_or_else(|| panic!("the boot loader is told to start {first:?}")))
    }
    /// What it starts when only these revisions have a kernel: the last resort of every boot script is the factory revision.
    fn start_one_of(&self, kernels: &[RevisionId]) -> RevisionId {
        let chosen = self.choose(Restart::Asked).into_iter();
        let mut known = chosen.filter_map(|name| token::revision(&name));
        let found = known.find(|revision| kernels.contains(revision));
        found.unwrap_or_else(RevisionId::factory)
    }
    /// What lies where only the boot loader and we read and write.
    fn files(&self) -> Vec<(String, Vec<u8>)>;
    /// Changes such a file behind everybody's back.
    fn damage(&self, file: &str, bytes: &[u8]);
    /// The power is cut before the write with this number.
    fn cut_at(&self, operation: Option<u64>);
    fn is_cut(&self) -> bool;
    /// The power is back.
    fn crash(&self, choose: &mut dyn FnMut(usize) -> usize);
    /// The write with this number fails once.
    fn fail_at(&self, operation: Option<u64>);
    /// A fallback boot that finds the loader's leftovers of an older trial may come between arming and the trial.
    fn may_need_two_arms(&self) -> bool {
        false
    }
}

/// Makes a machine as it leaves the factory.
pub(crate) type Make = fn() -> Box<dyn Machine>;

/// Every machine, by name.
pub(crate) fn machines() -> Vec<(&'static str, Make)> {
    vec![
        ("simulator", || Box::new(Simulated::new(Kind::Once))),
        ("simulator, Pantavisor's script", || {
            Box::new(Simulated::new(Kind::Alternates))
        }),
        ("file", || Box::new(Block::new("boot/loader"))),
        ("grub", || Box::new(Block::new("grub/grubenv"))),
        ("uboot, two raw copies", || Box::new(UbootRaw::new())),
        ("uboot, one file", || Box::new(UbootFiles::new(1))),
        ("uboot, two files", || Box::new(UbootFiles::new(2))),
        ("uboot-pantavisor", || Box::new(Pantavisor::default())),
        ("systemd-boot", || Box::new(Systemd::new())),
        ("tryboot", || Box::new(RaspberryPi::new())),
    ]
}

fn disk_plan(disk: &Disk, cut_at: Option<u64>, fail_at: Option<u64>) {
    disk.plan(Plan { cut_at, fail_at });
}

macro_rules! disk_faults {
    () => {
        fn cut_at(&self, operation: Option<u64>) {
            disk_plan(&self.disk, operation, None);
        }
        fn is_cut(&self) -> bool {
            self.disk.is_cut()
        }
        fn crash(&self, choose: &mut dyn FnMut(usize) -> usize) {
            self.disk.crash(Spread::Every, choose);
            disk_plan(&self.disk, None, None);
        }
        fn fail_at(&self, operation: Option<u64>) {
            disk_plan(&self.disk, None, operation);
        }
        fn files(&self) -> Vec<(String, Vec<u8>)> {
            // Not the kernels: what is on a boot partition beside them.
            let names = self.disk.durable_files().into_iter().map(|(name, _)| name);
            let names = names.filter(|name| !name.starts_with("coxswain/"));
            names
                .map(|name| {
                    (
                        name.clone(),
                        self.disk.durable_file(&name).unwrap().to_vec(),
                    )
                })
                .collect()
        }
        fn damage(&self, file: &str, bytes: &[u8]) {
            self.disk.damage(file, Some(bytes));
        }
    };
}

/// The fake that simulated devices boot with.
struct Simulated(RefCell<simulator::power::Bootloader>, Kind);

impl Simulated {
    fn new(kind: Kind) -> Self {
        Self(
            RefCell::new(simulator::power::Bootloader::new(kind, Bug::None)),
            kind,
        )
    }
}

impl Machine for Simulated {
    fn port(&self, booted: Option<RevisionId>) -> Box<dyn Bootloader> {
        if let Some(booted) = booted {
            assert_eq!(self.0.borrow().booted(), Some(booted));
        }
        Box::new(self.0.borrow().clone())
    }
    fn choose(&self, _restart: Restart) -> Started {
        self.0.borrow_mut().boot();
        let booted = self.0.borrow().booted();
        booted.iter().map(token::token).collect()
    }
    fn files(&self) -> Vec<(String, Vec<u8>)> {
        Vec::new()
    }
    fn damage(&self, _file: &str, _bytes: &[u8]) {}
    fn cut_at(&self, _operation: Option<u64>) {}
    fn is_cut(&self) -> bool {
        false
    }
    fn crash(&self, _choose: &mut dyn FnMut(usize) -> usize) {}
    fn fail_at(&self, _operation: Option<u64>) {}
    fn may_need_two_arms(&self) -> bool {
        self.1 == Kind::Alternates
    }
}

/// GRUB with `rootfs/boot/grub/grub.cfg`: reads the block line by line, sets `pv_tried` in place.
struct Block {
    disk: Disk,
    path: &'static str,
}

impl Block {
    fn new(path: &'static str) -> Self {
        let disk = Disk::default();
        Self { disk, path }
    }
}

impl Machine for Block {
    fn port(&self, booted: Option<RevisionId>) -> Box<dyn Bootloader> {
        let file = FileArea {
            disk: Arc::new(self.disk.clone()),
            path: self.path.into(),
        };
        Box::new(Loader::new(Box::new(BlockFile { file }), booted))
    }

    fn choose(&self, _restart: Restart) -> Started {
        let Some(block) = self.disk.durable_file(self.path) else {
            return Vec::new();
        };
        let mut block = block.to_vec();
        let text = String::from_utf8_lossy(&block).into_owned();
        if block.len() != 1024 || !text.starts_with("# GRUB Environment Block\n") {
            return Vec::new();
        }
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let values: BTreeMap<_, _> = lines.filter_map(|line| line.split_once('=')).collect();
        let value = |name: &str| values.get(name).copied().unwrap_or_default().to_owned();
        let mut started = Vec::new();
        if !value("pv_try").is_empty() && value("pv_tried") == "0" {
            let flag = b"pv_tried=0";
            let at = block.windows(10).position(|window| window == flag).unwrap() + 9;
            assert!(at < 512, "the flag is in the first sector");
            block[at] = b'1';
            self.disk.damage(self.path, Some(&block));
            started.push(value("pv_try"));
        }
        started.push(value("pv_rev"));
        started.retain(|name| !name.is_empty());
        started
    }

    disk_faults!();
}

/// The two copies of U-Boot's environment as U-Boot handles them.
fn uboot_start(areas: &mut [Box<dyn Area>]) -> Started {
    let redundant = areas.len() > 1;
    let header = if redundant { 5 } else { 4 };
    let mut good: Vec<(usize, u8, Vec<u8>)> = Vec::new();
    for (index, area) in areas.iter().enumerate() {
        let Ok(bytes) = area.read() else { continue };
        if bytes.len() < SIZE {
            continue;
        }
        let crc = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        if crc == crc32fast::hash(&bytes[header..SIZE]) {
            let flag = if redundant { bytes[4] } else { 0 };
            good.push((index, flag, bytes[header..SIZE].to_vec()));
        }
    }
    let (index, flag, data) = match good.as_slice() {
        // The built-in environment.
        [] => (1, 0, b"bootcmd=run x\0\0".to_vec()),
        [only] => only.clone(),
        [one, two] if one.1 == 255 && two.1 == 0 => two.clone(),
        [one, two] if one.1 == 0 && two.1 == 255 => one.clone(),
        [one, two] if two.1 > one.1 => two.clone(),
        [one, ..] => one.clone(),
    };
    let mut values: BTreeMap<String, String> = data
        .split(|byte| *byte == 0)
        .take_while(|entry| !entry.is_empty())
        .map(|entry| String::from_utf8(entry.to_vec()).unwrap())
        .map(|entry| {
            let (name, value) = entry.split_once('=').unwrap();
            (name.to_owned(), value.to_owned())
        })
        .collect();
    assert_eq!(values.get("bootcmd").map(String::as_str), Some("run x"));
    let mut save = |values: &BTreeMap<String, String>| {
        let mut data = Vec::new();
        for (name, value) in values {
            data.extend(format!("{name}={value}\0").bytes());
        }
        data.resize(SIZE - header, 0);
        let mut copy = crc32fast::hash(&data).to_le_bytes().to_vec();
        if redundant {
            copy.push(flag.wrapping_add(1));
        }
        copy.extend(data);
        let other = if redundant { 1 - index } else { 0 };
        areas[other].write(&copy).is_ok()
    };
    let value = |name: &str| values.get(name).cloned().unwrap_or_default();
    let (trial, is_tried) = (value("pv_try"), value("pv_tried") == "1");
    let mut started = Vec::new();
    if value("pv_rev").is_empty() {
        values.insert("pv_rev".into(), "0".into());
        save(&values);
    } else if !trial.is_empty() && !is_tried {
        values.insert("pv_tried".into(), "1".into());
        if save(&values) {
            started.push(trial);
        }
    }
    started.extend(values.remove("pv_rev"));
    started
}

const SIZE: usize = 1536;

/// An environment with what a board has in it before we come.
fn uboot_factory(flag: Option<u8>) -> Vec<u8> {
    let header = if flag.is_some() { 5 } else { 4 };
    let mut data = b"bootcmd=run x\0ethaddr=02:00:00:00:00:01\0".to_vec();
    data.resize(SIZE - header, 0);
    let mut copy = crc32fast::hash(&data).to_le_bytes().to_vec();
    copy.extend(flag);
    copy.extend(data);
    copy
}

/// A flash that tears: when the power is cut, each sector of what is being written is the old or the new one.
#[derive(Debug, Default)]
struct Flash {
    copies: [Vec<u8>; 2],
    /// What was being written when the power went.
    torn: Option<(usize, Vec<u8>)>,
    count: u64,
    cut_at: Option<u64>,
    fail_at: Option<u64>,
    cut: bool,
}

#[derive(Debug, Clone)]
struct FlashArea(Arc<Mutex<Flash>>, usize);

impl Area for FlashArea {
    fn read(&self) -> io::Result<Vec<u8>> {
        let flash = self.0.lock().unwrap();
        if flash.cut {
            return Err(io::Error::other("the power is gone"));
        }
        Ok(flash.copies[self.1].clone())
    }
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut flash = self.0.lock().unwrap();
        let number = flash.count;
        flash.count += 1;
        if flash.cut || flash.cut_at == Some(number) {
            if !flash.cut {
                flash.torn = Some((self.1, bytes.to_vec()));
            }
            flash.cut = true;
            return Err(io::Error::other("the power is gone"));
        }
        if flash.fail_at == Some(number) {
            // The worst that a failing write does: half of it.
            let half = bytes.len() / 2;
            flash.copies[self.1][..half].copy_from_slice(&bytes[..half]);
            return Err(io::Error::other("input/output error"));
        }
        flash.copies[self.1] = bytes.to_vec();
        Ok(())
    }
    fn is_atomic(&self) -> bool {
        false
    }
    fn place(&self) -> String {
        format!("flash {}", self.1)
    }
}

struct UbootRaw(Arc<Mutex<Flash>>);

impl UbootRaw {
    fn new() -> Self {
        let copies = [uboot_factory(Some(254)), uboot_factory(Some(253))];
        Self(Arc::new(Mutex::new(Flash {
            copies,
            ..Flash::default()
        })))
    }
    fn areas(&self) -> Vec<Box<dyn Area>> {
        let area = |index| Box::new(FlashArea(Arc::clone(&self.0), index)) as Box<dyn Area>;
        vec![area(0), area(1)]
    }
}

impl Machine for UbootRaw {
    fn port(&self, booted: Option<RevisionId>) -> Box<dyn Bootloader> {
        let uboot = Uboot::new(self.areas(), SIZE, None).unwrap();
        Box::new(Loader::new(Box::new(uboot), booted))
    }
    fn choose(&self, _restart: Restart) -> Started {
        uboot_start(&mut self.areas())
    }
    fn cut_at(&self, operation: Option<u64>) {
        let mut flash = self.0.lock().unwrap();
        (flash.cut_at, flash.fail_at, flash.count) = (operation, None, 0);
    }
    fn is_cut(&self) -> bool {
        self.0.lock().unwrap().cut
    }
    fn crash(&self, choose: &mut dyn FnMut(usize) -> usize) {
        let mut flash = self.0.lock().unwrap();
        (flash.cut, flash.cut_at) = (false, None);
        if let Some((index, bytes)) = flash.torn.take() {
            for at in (0..SIZE).step_by(512) {
                if choose(2) == 1 {
                    flash.copies[index][at..at + 512].copy_from_slice(&bytes[at..at + 512]);
                }
            }
        }
    }
    fn fail_at(&self, operation: Option<u64>) {
        let mut flash = self.0.lock().unwrap();
        (flash.cut_at, flash.fail_at, flash.count) = (None, operation, 0);
    }
    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let flash = self.0.lock().unwrap();
        let copies = flash.copies.iter().cloned().enumerate();
        copies.map(|(at, copy)| (at.to_string(), copy)).collect()
    }
    fn damage(&self, file: &str, bytes: &[u8]) {
        let mut flash = self.0.lock().unwrap();
        flash.copies[file.parse::<usize>().unwrap()] = bytes.to_vec();
    }
}

struct UbootFiles {
    disk: Disk,
    copies: usize,
}

const FILES: [&str; 2] = ["uboot.env", "uboot-redund.env"];

fn put(disk: &Disk, path: &str, bytes: &[u8]) {
    let path = Path::new(path);
    let folder = path.parent().unwrap();
    if folder != Path::new("") {
        disk.create_dir_all(folder).unwrap();
    }
    let mut file = disk.create(path).unwrap();
    file.append(bytes).unwrap();
    file.sync().unwrap();
    disk.write_back();
}

impl UbootFiles {
    fn new(copies: usize) -> Self {
        let disk = Disk::default();
        for name in FILES.iter().take(copies) {
            put(&disk, name, &uboot_factory((copies > 1).then_some(1)));
        }
        Self { disk, copies }
    }
    fn areas(&self) -> Vec<Box<dyn Area>> {
        let area = |name: &&str| {
            Box::new(FileArea {
                disk: Arc::new(self.disk.clone()),
                path: PathBuf::from(name),
            }) as Box<dyn Area>
        };
        FILES.iter().take(self.copies).map(area).collect()
    }
}

impl Machine for UbootFiles {
    fn port(&self, booted: Option<RevisionId>) -> Box<dyn Bootloader> {
        let uboot = Uboot::new(self.areas(), SIZE, None).unwrap();
        Box::new(Loader::new(Box::new(uboot), booted))
    }
    fn choose(&self, _restart: Restart) -> Started {
        uboot_start(&mut self.areas())
    }
    disk_faults!();
}

/// Pantavisor's generic script: `pv_trying` in a file of the boot partition.
#[derive(Default)]
struct Pantavisor {
    disk: Disk,
    trying: RefCell<String>,
}

impl Machine for Pantavisor {
    fn port(&self, booted: Option<RevisionId>) -> Box<dyn Bootloader> {
        let file = FileArea {
            disk: Arc::new(self.disk.clone()),
            path: "boot/uboot.txt".into(),
        };
        Box::new(Loader::new(Box::new(UbootTxt { file }), booted))
    }
    fn choose(&self, _restart: Restart) -> Started {
        let Some(bytes) = self.disk.durable_file("boot/uboot.txt") else {
            return Vec::new();
        };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let entries = text.split('\0').take_while(|entry| !entry.is_empty());
        let values: BTreeMap<_, _> = entries.filter_map(|entry| entry.split_once('=')).collect();
        let committed = values.get("pv_rev").map(|name| (*name).to_owned());
        let mut trying = self.trying.borrow_mut();
        match values.get("pv_try").filter(|trial| !trial.is_empty()) {
            Some(trial) if *trial == *trying => trying.clear(),
            Some(trial) => {
                *trying = (*trial).to_owned();
                return [trying.clone()].into_iter().chain(committed).collect();
            }
            None => {}
        }
        committed.into_iter().collect()
    }
    fn may_need_two_arms(&self) -> bool {
        true
    }
    disk_faults!();
}

/// systemd-boot: takes the first entry in its order, counts by renaming.
struct Systemd {
    disk: Disk,
}

const KERNELS: [&str; 4] = ["0", "1", "2", "locals/a b"];

fn put_kernels(disk: &Disk) {
    for name in KERNELS {
        let folder = format!("coxswain/{}", token::short_name(&id(name)));
        for file in ["linux", "initrd", "devicetree"] {
            put(disk, &format!("{folder}/{file}"), file.as_bytes());
        }
    }
}

/// The name of the revision that a kernel on the boot partition belongs to.
fn kernel_of(disk: &Disk, path: &str) -> Option<String> {
    let path = path.trim_start_matches('/');
    disk.durable_file(path)?;
    let is_of = |name: &&str| path.contains(&token::short_name(&id(name)));
    Some(token::token(&id(KERNELS.iter().copied().find(is_of)?)))
}

impl Systemd {
    fn new() -> Self {
        let disk = Disk::default();
        put_kernels(&disk);
        disk.create_dir_all(Path::new("loader/entries")).unwrap();
        disk.write_back();
        Self { disk }
    }
}

impl Machine for Systemd {
    fn port(&self, booted: Option<RevisionId>) -> Box<dyn Bootloader> {
        let environment = SystemdBoot {
            disk: Arc::new(self.disk.clone()),
            options: "quiet".into(),
        };
        Box::new(Loader::new(Box::new(environment), booted))
    }
    fn choose(&self, _restart: Restart) -> Started {
        let folder = Path::new("loader/entries");
        let mut entries = Vec::new();
        for entry in self.disk.list(folder).unwrap_or_default() {
            let Some(stem) = entry.name.strip_suffix(".conf") else {
                continue;
            };
            let (base, counter) = stem
                .split_once('+')
                .map_or((stem, None), |(base, counter)| (base, Some(counter)));
            let counter: Option<(u32, u32)> = counter.map(|text| {
                let (left, done) = text.split_once('-').unwrap_or((text, "0"));
                (left.parse().unwrap(), done.parse().unwrap())
            });
            let bytes = self.disk.read(&folder.join(&entry.name), 1 << 16).unwrap();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let value = |key: &str| {
                let mut lines = text.lines().filter_map(|line| line.split_once(' '));
                lines.find(|(name, _)| *name == key).map(|(_, value)| value)
            };
            // An entry without a kernel that is there is not shown.
            let Some(started) = value("linux").and_then(|path| kernel_of(&self.disk, path)) else {
                continue;
            };
            if entry_format::open(&bytes).is_ok() {
                let word = format!("coxswain.booted={started}");
                assert!(value("options").unwrap().ends_with(&word), "{text}");
            }
            let is_bad = counter.is_some_and(|(left, _)| left == 0);
            let version = value("version").unwrap_or_default().to_owned();
            let order = (is_bad, std::cmp::Reverse(version), base.to_owned());
            entries.push((order, counter, started, entry.name));
        }
        entries.sort();
        if let Some(((_, _, base), Some((left, done)), _, name)) = entries.first()
            && *left > 0
        {
            let counted = folder.join(format!("{base}+{}-{}.conf", left - 1, done + 1));
            let counted = self.disk.rename(&folder.join(name), &counted);
            if counted.and_then(|()| self.disk.sync_dir(folder)).is_err() {
                return Vec::new();
            }
        }
        entries
            .into_iter()
            .map(|(_, _, started, _)| started)
            .collect()
    }
    disk_faults!();
}

/// A Raspberry Pi: the argument of the restart chooses the file.
struct RaspberryPi {
    disk: Disk,
    run: Rc<TempDir>,
}

impl RaspberryPi {
    fn new() -> Self {
        let disk = Disk::default();
        put_kernels(&disk);
        Self {
            disk,
            run: Rc::new(TempDir::new().unwrap()),
        }
    }
}

impl Machine for RaspberryPi {
    fn port(&self, booted: Option<RevisionId>) -> Box<dyn Bootloader> {
        let environment = TryBoot {
            disk: Arc::new(self.disk.clone()),
            options: "quiet".into(),
            argument: self.run.path().join("reboot-param"),
        };
        let environment: Box<dyn Environment> = Box::new(environment);
        Box::new(Loader::new(environment, booted))
    }
    fn choose(&self, restart: Restart) -> Started {
        let argument = self.run.path().join("reboot-param");
        let asked = std::fs::read_to_string(&argument).is_ok_and(|text| text == REBOOT_ARGUMENT);
        std::fs::remove_file(&argument).ok();
        let included = if asked && restart == Restart::Asked {
            "coxswain-try.txt"
        } else {
            "coxswain.txt"
        };
        let Some(bytes) = self.disk.durable_file(included) else {
            return Vec::new();
        };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
        // A folder without the kernel and the device tree is ignored.
        let prefix = value("os_prefix=").unwrap_or_default();
        let file = |key: &str| format!("{prefix}{}", value(key).unwrap_or_default());
        let Some(started) = kernel_of(&self.disk, &file("kernel="))
            .filter(|_| kernel_of(&self.disk, &file("device_tree=")).is_some())
        else {
            return Vec::new();
        };
        if entry_format::open(&bytes).is_ok() {
            let cmdline = self.disk.durable_file(&file("cmdline=")).unwrap();
            let word = format!("coxswain.booted={started}\n");
            assert!(String::from_utf8_lossy(&cmdline).ends_with(&word));
        }
        vec![started]
    }
    disk_faults!();
}
