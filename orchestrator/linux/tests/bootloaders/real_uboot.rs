//! A real U-Boot that keeps its environment in two copies, run in QEMU with the whole boot script: it and the adapter read each other, agree
//! on the newer copy, and do without either.
//!
//! Debian's U-Boot for QEMU keeps one copy in flash, so a person brings another: `UBOOT_BIN=u-boot.bin cargo test -p linux --test bootloaders
//! real_uboot`; how it is configured stands in `bootloaders.md`. No kernel is on the card: the script says which revisions it tries, and the
//! machine ends where it resets. Real kernels behind it: `tests/image`.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use linux::bootloader::area::{Area, RawArea};
use linux::bootloader::uboot::Uboot;
use linux::bootloader::uboot_format::{Copy, Variables, decode, encode};
use linux::bootloader::{Choice, Environment as _};
use tempfile::TempDir;

use super::machines::id;

/// As `CONFIG_ENV_OFFSET`, `CONFIG_ENV_OFFSET_REDUND` and `CONFIG_ENV_SIZE`.
const PLACES: [u64; 2] = [0x3f_8000, 0x3f_c000];
const SIZE: usize = 0x4000;
/// QEMU has only cards whose size is a power of two.
const CARD_BYTES: u64 = 64 << 20;
/// Where the partition with the script begins.
const BOOT_AT: &str = "4M";
/// Five seconds of a boot are the script's own pause; the rest is for a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// An SD card, and the U-Boot that starts from it.
struct Card {
    uboot: PathBuf,
    folder: TempDir,
}

/// Ends with the test, however that ends.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// What one boot printed.
struct Boot(String);

impl Boot {
    /// The revisions whose kernels the script looked for, in order.
    fn tried(&self) -> Vec<&str> {
        let lines = self.0.lines();
        lines
            .filter_map(|line| line.strip_prefix("Coxswain: revision "))
            .filter_map(|line| line.strip_suffix(" has no kernel that starts"))
            .collect()
    }

    fn lost_its_environment(&self) -> bool {
        self.0.contains("bad CRC, using default environment")
    }
}

fn run(program: &str, arguments: &[&str]) {
    // Some are where only root's PATH leads.
    let folders = ["/usr/bin", "/usr/sbin"].map(|folder| Path::new(folder).join(program));
    let path = folders.iter().find(|path| path.exists());
    let path = path.unwrap_or_else(|| panic!("{program} is missing (tests/packages test)"));
    let output = Command::new(path).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {error}");
}

impl Card {
    /// Both copies have never been written.
    fn blank(uboot: PathBuf) -> Self {
        let folder = TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let card = fs::File::create(path("card")).unwrap();
        card.set_len(CARD_BYTES).unwrap();
        fs::write(
            path("table"),
            format!("label: dos\nstart={BOOT_AT}iB, type=c, bootable\n"),
        )
        .unwrap();
        let table = fs::File::open(path("table")).unwrap();
        let sfdisk = Command::new("/usr/sbin/sfdisk")
            .args(["-q", &path("card")])
            .stdin(table)
            .status();
        assert!(sfdisk.unwrap().success());
        let whole = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../rootfs/boot/uboot/boot.cmd");
        let (script, compiled) = (path("boot.cmd"), path("boot.scr"));
        fs::copy(whole, &script).unwrap();
        run(
            "mkimage",
            &["-A", "arm64", "-T", "script", "-d", &script, &compiled],
        );
        let fat = path("fat");
        fs::File::create(&fat).unwrap().set_len(16 << 20).unwrap();
        run("mkfs.vfat", &[&fat]);
        run("mcopy", &["-i", &fat, &compiled, "::boot.scr"]);
        let fat = fs::read(&fat).unwrap();
        card.write_all_at(&fat, 4 << 20).unwrap();
        Self { uboot, folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("card")
    }

    /// From power on until the script resets the machine.
    fn boot(&self) -> Boot {
        let console = self.folder.path().join("console");
        let card = format!(
            "driver=file,node-name=file,filename={}",
            self.path().display()
        );
        let arguments = [
            "-accel",
            "tcg",
            "-machine",
            "virt",
            "-cpu",
            "cortex-a57",
            "-m",
            "256",
        ];
        let mut qemu = Command::new("qemu-system-aarch64")
            .args(arguments)
            .args(["-nodefaults", "-no-user-config", "-display", "none"])
            .args(["-nic", "none", "-monitor", "none", "-no-reboot", "-bios"])
            .arg(&self.uboot)
            .args(["-serial", &format!("file:{}", console.display())])
            .args(["-blockdev", &card])
            .args(["-blockdev", "driver=raw,node-name=card,file=file"])
            .args(["-device", "sdhci-pci", "-device", "sd-card,drive=card"])
            .stdin(Stdio::null())
            .spawn()
            .map(Qemu)
            .expect("qemu-system-aarch64 is installed (tests/packages test)");
        let end = Instant::now() + LIMIT;
        let read = || {
            let bytes = fs::read(&console).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\r', "")
        };
        while qemu.0.try_wait().unwrap().is_none() {
            assert!(Instant::now() < end, "it does not end:\n{}", read());
            std::thread::sleep(Duration::from_millis(50));
        }
        let boot = Boot(read());
        assert_eq!(boot.tried().last(), Some(&"0"), "{}", boot.0);
        boot
    }

    fn adapter(&self) -> Uboot {
        let area = |offset| {
            let device = self.path();
            Box::new(RawArea {
                device,
                offset,
                len: SIZE,
            }) as Box<dyn Area>
        };
        Uboot::new(PLACES.map(area).into(), SIZE, None).unwrap()
    }

    /// What the adapter finds, and how many copies it cannot use.
    fn found(&self) -> (Option<Choice>, usize) {
        let found = self.adapter().read();
        (found.choice, found.notices.len())
    }

    fn bytes(&self, index: usize) -> Vec<u8> {
        let mut bytes = vec![0; SIZE];
        let card = fs::File::open(self.path()).unwrap();
        card.read_exact_at(&mut bytes, PLACES[index]).unwrap();
        bytes
    }

    fn put(&self, index: usize, bytes: &[u8]) {
        let card = OpenOptions::new().write(true).open(self.path()).unwrap();
        card.write_all_at(bytes, PLACES[index]).unwrap();
    }

    fn copy(&self, index: usize) -> Copy {
        decode(&self.bytes(index), SIZE, true).unwrap()
    }
}

fn choice(committed: &str, trial: Option<&str>, tried: bool) -> Choice {
    Choice {
        committed: Some(id(committed)),
        trial: trial.map(id),
        tried,
    }
}

/// Everything that is not the adapter's own.
fn others(variables: &Variables) -> Variables {
    let mut others = variables.clone();
    for name in ["pv_rev", "pv_try", "pv_tried"] {
        others.set(name, "");
    }
    others
}

/// A first boot, a trial, its start, and a commit.
fn each_reads_what_the_other_wrote(card: &Card) {
    let boot = card.boot();
    assert!(boot.lost_its_environment(), "{}", boot.0);
    assert_eq!(boot.tried(), ["0", "0"], "pv_rev, then the last resort");
    // It has saved its built-in environment, in one place.
    assert_eq!(card.found(), (Some(choice("0", None, false)), 1));
    let index = usize::from(decode(&card.bytes(0), SIZE, true).is_err());
    let saved = card.copy(index).variables;
    assert!(saved.get("bootcmd").is_some(), "{saved:?}");

    card.adapter()
        .write(&choice("5", Some("locals/a b"), false))
        .unwrap();
    assert_eq!(
        card.found(),
        (Some(choice("5", Some("locals/a b"), false)), 0)
    );
    for index in [0, 1] {
        assert_eq!(others(&card.copy(index).variables), others(&saved));
    }
    let boot = card.boot();
    assert!(!boot.lost_its_environment(), "{}", boot.0);
    assert_eq!(boot.tried(), ["locals/a%20b", "5", "0"]);
    assert_eq!(
        card.found(),
        (Some(choice("5", Some("locals/a b"), true)), 0)
    );
    assert_eq!(card.boot().tried(), ["5", "0"], "a trial starts once");
    card.adapter()
        .write(&choice("locals/a b", None, false))
        .unwrap();
    assert_eq!(card.boot().tried(), ["locals/a%20b", "0"]);
}

/// Whichever copy is newer, it is the one that both believe.
fn both_believe_the_newer_copy(card: &Card) {
    let common = others(&card.copy(0).variables);
    let with = |revision: &str, flag: u8| {
        let mut variables = common.clone();
        variables.set("pv_rev", revision);
        encode(&variables, SIZE, Some(flag)).unwrap()
    };
    // 0 comes after 255, but only then; of two with one flag it is the first.
    for (first, second, winner) in [
        (4, 3, "1"),
        (3, 4, "2"),
        (255, 0, "2"),
        (0, 255, "1"),
        (254, 0, "1"),
        (7, 7, "1"),
    ] {
        card.put(0, &with("1", first));
        card.put(1, &with("2", second));
        assert_eq!(card.boot().tried(), [winner, "0"], "{first}, {second}");
        assert_eq!(
            card.found(),
            (Some(choice(winner, None, false)), 0),
            "{first}, {second}"
        );
    }
}

/// A copy that a power cut tore, at either place, also when it would be the newer one.
fn either_copy_may_be_torn(card: &Card) {
    card.adapter().write(&choice("5", None, false)).unwrap();
    let whole = [card.bytes(0), card.bytes(1)];
    type Tear = (&'static str, fn(&mut [u8]));
    let tears: [Tear; 4] = [
        ("its first sector is of another write", |copy| {
            copy[..512].fill(0xA5)
        }),
        ("only its first sector was written", |copy| {
            copy[512..].fill(0xFF)
        }),
        ("one bit", |copy| copy[SIZE - 1] ^= 1),
        ("nothing is there", |copy| copy.fill(0)),
    ];
    for (index, (how, tear)) in (0..2).flat_map(|index| tears.map(|tear| (index, tear))) {
        let mut variables = card.copy(1 - index).variables;
        variables.set("pv_rev", "9");
        let mut torn = encode(&variables, SIZE, Some(200)).unwrap();
        tear(&mut torn);
        card.put(1 - index, &whole[1 - index]);
        card.put(index, &torn);
        let boot = card.boot();
        assert_eq!(boot.tried(), ["5", "0"], "{index}: {how}: {}", boot.0);
        assert!(!boot.lost_its_environment(), "{index}: {how}: {}", boot.0);
        assert_eq!(
            card.found(),
            (Some(choice("5", None, false)), 1),
            "{index}: {how}"
        );
        // A trial goes where the damage is; then both are whole again.
        card.adapter()
            .write(&choice("5", Some("6"), false))
            .unwrap();
        assert_eq!(card.found().1, 0, "{index}: {how}");
    }
    assert_eq!(card.boot().tried(), ["6", "5", "0"]);

    // Both: U-Boot falls back to its built-in environment, and the script saves that. The adapter never makes one from nothing.
    for index in [0, 1] {
        card.put(index, &[0xA5; SIZE]);
    }
    assert_eq!(card.found(), (None, 2));
    card.adapter().write(&choice("5", None, false)).unwrap_err();
    let boot = card.boot();
    assert!(boot.lost_its_environment(), "{}", boot.0);
    assert_eq!(boot.tried(), ["0", "0"]);
    assert_eq!(card.found(), (Some(choice("0", None, false)), 1));
    card.adapter().write(&choice("5", None, false)).unwrap();
    assert_eq!(card.boot().tried(), ["5", "0"]);
}

#[test]
fn real_uboot_with_two_copies() {
    let Some(uboot) = std::env::var_os("UBOOT_BIN").filter(|path| !path.is_empty()) else {
        eprintln!(
            "SKIPPED real_uboot: UBOOT_BIN names no U-Boot with an environment in two copies"
        );
        return;
    };
    let card = Card::blank(uboot.into());
    each_reads_what_the_other_wrote(&card);
    both_believe_the_newer_copy(&card);
    either_copy_may_be_torn(&card);
}
