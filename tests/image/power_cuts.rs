//! The power is cut at random moments of an endless update loop, with Coxswain as init below a real boot loader: while firmware, boot
//! loader and kernel start, while the partition grows, while kernels and what the boot loader reads are written, while a trial runs. Each
//! second update brings another kernel and another initramfs. `CUTS_IMAGE=n` says how often.
//!
//! The disk loses what was not flushed ([`Disk`]). After each cut the partition table and the storage are judged on this machine (sfdisk,
//! e2fsck, `coxswain check`); then it boots, and must come to a committed revision that is not older than what was told to be done, below
//! the kernel of that revision. What every single answer promises is looked after by the power cuts of `qemu`, which know more of the
//! device and less of the boot.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use acceptance::power::disk::Disk;
use acceptance::power::medium::{Medium, Replay, coxswain_check};
use acceptance::power::moments::Moments;
use acceptance::power::record::used;

use crate::bench;
use crate::built::{Built, Chain, build};
use crate::machine::{LIMIT, Machine};
use crate::scenarios::{lengthen, reaches_the_end, storage_place};

/// A fuse that does not blow in this time is not waited for.
const LONGEST: Duration = Duration::from_secs(120);

/// When the power goes.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// So long after it was switched on.
    BootTime(Duration),
    /// Just before a flush while it boots, after so many.
    BootFlush(u64),
    /// So long after it has settled.
    Time(Duration),
    /// Just before a flush after it has settled, after so many.
    Flush(u64),
}

impl Moment {
    /// One of them; a boot takes so long.
    fn random(moments: &mut Moments, boot: Duration) -> Self {
        let millis = u64::try_from(boot.as_millis()).unwrap_or(20_000).max(1);
        match moments.below(10) {
            0 => Self::BootTime(Duration::from_millis(moments.below(millis))),
            1 | 2 => Self::BootFlush(moments.below(40)),
            3 | 4 => Self::Time(Duration::from_millis(moments.below(60_000))),
            _ => Self::Flush(moments.below(300)),
        }
    }

    fn at_boot(self) -> bool {
        matches!(self, Self::BootTime(_) | Self::BootFlush(_))
    }

    /// Arms the machine's fuse; says when to cut at the latest.
    fn arm(self, machine: &Machine) -> Instant {
        match self {
            Self::BootTime(time) | Self::Time(time) => Instant::now() + time,
            Self::BootFlush(flushes) | Self::Flush(flushes) => {
                machine.fuse().arm(flushes);
                Instant::now() + LONGEST
            }
        }
    }
}

/// A device, and what the host knows of it.
struct Device<'a> {
    chain: Chain,
    built: &'a Built,
    folder: &'a Path,
    /// The last update that was begun.
    newest: u64,
    /// The newest that was told to be done; 0 is the factory revision.
    done: u64,
    /// How many were done in all.
    updates: usize,
    boot: Duration,
    lost: usize,
}

/// The number of an update; the factory revision has 0.
fn number(revision: &str) -> u64 {
    let number = revision.strip_prefix("locals/u").unwrap_or(revision);
    let number = number.parse();
    number.unwrap_or_else(|_| panic!("{revision} runs, which was never put"))
}

/// Which of two kernels an update has: two updates after each other share one.
fn kernel(update: u64) -> u64 {
    update.div_ceil(2) % 2
}

impl Device<'_> {
    /// From switching on to the cut; what happened, in words.
    fn one(&mut self, disk: Disk, moments: &mut Moments) -> (Disk, String) {
        let moment = Moment::random(moments, self.boot);
        let mut machine = Machine::on_volatile(self.chain, disk);
        let mut told = format!("{moment:?}");
        if moment.at_boot() {
            let end = moment.arm(&machine);
            while !machine.is_off() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(20));
            }
        } else {
            let runs = self.settled(&mut machine);
            self.boot = machine.age();
            let seconds = self.boot.as_secs_f64();
            told = format!("u{runs} settled after {seconds:.0} s, {told}");
            let end = moment.arm(&machine);
            while self.update(&machine, end) {}
        }
        let (disk, cut) = machine.cut_volatile(moments);
        self.lost += cut.lost;
        (disk, format!("{told}, {cut:?}"))
    }

    /// Puts and runs the next update, and waits for its end; whether there is power left.
    fn update(&mut self, machine: &Machine, end: Instant) -> bool {
        let is_over = || machine.is_off() || Instant::now() >= end;
        self.newest += 1;
        let name = format!("locals/u{}", self.newest);
        let folder = self.folder.join(format!("u{}", self.newest));
        let asked = machine.try_run(&self.revision(&folder, self.newest), &name);
        fs::remove_dir_all(&folder).expect("our own folder can be removed");
        if let Err(why) = asked {
            assert!(is_over(), "{name}: {why}\n{}", machine.console_end());
            return false;
        }
        let limit = Instant::now() + LIMIT;
        while !is_over() {
            let progress = machine.get(&format!("/steps/{name}/progress"));
            let status = progress.as_ref().and_then(|found| found["status"].as_str());
            if status == Some("DONE") {
                self.done = self.newest;
                self.updates += 1;
                return true;
            }
            let is_lost = matches!(status, Some("ERROR" | "WONTGO")) || Instant::now() > limit;
            assert!(!is_lost, "{name}: {progress:?}\n{}", machine.console_end());
            std::thread::sleep(Duration::from_millis(200));
        }
        false
    }

    /// The update with this number, as a working folder.
    fn revision(&self, folder: &Path, number: u64) -> PathBuf {
        self.built.revision(folder, |change| {
            let page = format!("<h1>{number}</h1>");
            change.set("_config/web/www/index.html", page.as_bytes());
            if kernel(number) == 1 {
                let mut kernel = change.kernel();
                kernel.extend([0; 4096]);
                change.set("bsp/kernel.img", &kernel);
                let mut initrd = change.initrd();
                initrd.resize(initrd.len().next_multiple_of(512) + 512, 0);
                change.set("bsp/initrd.img", &initrd);
            }
        })
    }

    /// The device comes to a committed revision that is not older than what was told to be done, below its kernel; its number.
    fn settled(&self, machine: &mut Machine) -> u64 {
        let (runs, booted) = machine.wait("it settles", |machine| {
            let status = machine.get("/status")?;
            let containers = status["containers"].as_array()?;
            let is_good = status["running"] == status["committed"]
                && status["trial"].is_null()
                && !containers.is_empty()
                && containers.iter().all(|one| one["good"] == true);
            let runs = status["running"].as_str()?.to_owned();
            is_good.then_some((runs, machine.booted()?))
        });
        let update = number(&runs);
        let (done, console) = (self.done, machine.console_end());
        assert!(update >= done, "{runs} runs, u{done} was done\n{console}");
        assert_eq!(
            kernel(number(&booted)),
            kernel(update),
            "{runs} runs below the kernel of {booted}\n{console}"
        );
        update
    }

    /// The medium as it is after a cut; the revision that boots next.
    fn judge(disk: &Disk, moments: &mut Moments) -> String {
        let replay = [Replay::Kernel, Replay::E2fsck][usize::from(moments.below(2) == 0)];
        let bytes = fs::read(disk.path()).expect("the disk's file");
        let storage = &bytes[storage_place(disk.path())];
        let medium = Medium::new(storage.len() as u64);
        medium.load(storage, &used(storage), &[]);
        let looked = medium.judge(replay, coxswain_check);
        let looked = looked.unwrap_or_else(|why| panic!("{why}"));
        looked.found.unwrap_or_else(|why| panic!("{why}"))
    }
}

fn cut_by_cut(chain: Chain) {
    let named = std::env::var("CUTS_IMAGE").ok();
    let Some(wanted) = named.and_then(|text| text.parse::<u64>().ok()) else {
        eprintln!("SKIPPED power cuts with {chain}: CUTS_IMAGE=n cuts n times (tests/cuts image)");
        return;
    };
    let Some(_one) = bench(chain) else { return };
    let folder = tempfile::Builder::new()
        .prefix("cx-image-")
        .tempdir()
        .expect("a folder");
    let built = build(chain, folder.path());
    let path = folder.path().join("disk");
    fs::copy(&built.image, &path).expect("room for a disk");
    lengthen(chain, &path);
    let mut disk = Disk::on(&path);
    let mut moments = Moments::from_environment();
    let mut device = Device {
        chain,
        built: &built,
        folder: folder.path(),
        newest: 0,
        done: 0,
        updates: 0,
        boot: Duration::from_secs(30),
        lost: 0,
    };
    let from = Instant::now();
    for cut in 1..=wanted {
        let started = Instant::now();
        let (left, told) = device.one(disk, &mut moments);
        disk = left;
        let boots = Device::judge(&disk, &mut moments);
        println!(
            "{chain}: cut {cut} after {:.0} s: {told}; {boots} boots next",
            started.elapsed().as_secs_f64()
        );
    }
    // The last cut is judged by a boot too.
    let mut machine = Machine::on_volatile(chain, disk);
    device.settled(&mut machine);
    machine.coxctl(&["poweroff"]);
    let disk = machine.wait_for_end_volatile();
    Device::judge(&disk, &mut moments);
    reaches_the_end(disk.path());
    println!(
        "{chain}: {wanted} power cuts in {:.0} s took {} sectors; {} updates were done, the device settled each time",
        from.elapsed().as_secs_f64(),
        device.lost,
        device.updates,
    );
}

#[test]
fn power_cuts_with_grub() {
    cut_by_cut(Chain::Grub);
}

#[test]
fn power_cuts_with_systemd_boot() {
    cut_by_cut(Chain::SystemdBoot);
}

#[test]
fn power_cuts_with_u_boot() {
    cut_by_cut(Chain::Uboot);
}
