//! Judges that do not know our code: U-Boot's `mkenvimage`, `fw_printenv` and `fw_setenv`, GRUB's `grub-editenv` and
//! `grub-script-check`, and the boot scripts in `rootfs/boot` run by a shell. A judge that is missing is SKIPPED, loudly.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use linux::bootloader::area::{Area, FileArea, RawArea};
use linux::bootloader::block::BlockFile;
use linux::bootloader::uboot::Uboot;
use linux::bootloader::{Choice, Environment, Found, fw_env};
use linux::disk::LinuxDisk;
use tempfile::TempDir;

use super::machines::id;

/// The output of a judge; `None` when it is not installed.
fn judge(program: &str, arguments: &[&str]) -> Option<String> {
    match Command::new(program).args(arguments).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("SKIPPED: {program} is missing; run tests/packages test");
            None
        }
        Err(error) => panic!("{program}: {error}"),
        Ok(output) => {
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{program} {arguments:?}: {error}");
            Some(String::from_utf8(output.stdout).unwrap())
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn boot_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../rootfs/boot")
}

fn armed() -> Choice {
    Choice {
        committed: Some(id("5")),
        trial: Some(id("locals/next one")),
        tried: false,
    }
}

const SIZE: usize = 0x2000;

#[test]
fn uboot_tools_and_we_read_each_other() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("initial"), "bootcmd=run distro_bootcmd\nbootdelay=2\n").unwrap();
    let size = SIZE.to_string();
    let (initial, image) = (path("initial"), path("image"));
    // U-Boot's own padding is zeros, that of mkenvimage ones: both must be read.
    for padding in ["0x00", "0xff"] {
        let arguments = [
            "-r",
            "-s",
            &size,
            "-p",
            padding,
            "-o",
            text(&image),
            text(&initial),
        ];
        if judge("mkenvimage", &arguments).is_none() {
            return;
        }
        // Two copies behind each other on a device.
        let copy = fs::read(&image).unwrap();
        let mut device = vec![0xff; 512];
        device.extend(&copy);
        device.extend(&copy);
        fs::write(path("device"), &device).unwrap();
        // The tools take a size without 0x for hexadecimal too.
        let place = |offset: usize| format!("{} {offset} {SIZE:x}\n", path("device").display());
        let config = place(512) + &place(512 + SIZE);
        fs::write(path("fw_env.config"), &config).unwrap();
        let areas = fw_env::parse(&config).unwrap().into_iter().map(|place| {
            Box::new(RawArea {
                device: place.path,
                offset: place.offset,
                len: place.size,
            }) as Box<dyn Area>
        });
        let mut uboot = Uboot::new(areas.collect(), SIZE, None).unwrap();
        let nothing = Choice::default();
        assert_eq!(
            uboot.read(),
            Found {
                choice: Some(nothing),
                notices: vec![]
            }
        );
        for _ in 0..130 {
            // Each write counts up twice: past the flag's wrap at 255.
            uboot.write(&armed()).unwrap();
        }
        assert_eq!(
            fs::metadata(path("device")).unwrap().len(),
            512 + 2 * SIZE as u64
        );
        assert_eq!(fs::read(path("device")).unwrap()[..512], [0xff; 512]);
        let config = path("fw_env.config");
        let Some(printed) = judge("fw_printenv", &["-c", text(&config)]) else {
            return;
        };
        let mut lines: Vec<_> = printed.lines().collect();
        lines.sort_unstable();
        let expected = [
            "bootcmd=run distro_bootcmd",
            "bootdelay=2",
            "pv_rev=5",
            "pv_try=locals/next%20one",
        ];
        assert_eq!(lines, expected);
        // And the other way: what they write is what we read, as U-Boot's saveenv in the boot script.
        judge("fw_setenv", &["-c", text(&config), "pv_tried", "1"]).unwrap();
        let choice = uboot.read().choice.unwrap();
        assert_eq!(
            choice,
            Choice {
                tried: true,
                ..armed()
            }
        );
        uboot.write(&armed()).unwrap();
        judge("fw_setenv", &["-c", text(&config), "bootdelay", "0"]).unwrap();
        assert_eq!(uboot.read().choice, Some(armed()));
    }
}

#[test]
fn grub_editenv_and_we_read_each_other() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("grubenv");
    let file = text(&path);
    if judge("grub-editenv", &[file, "create"]).is_none() {
        return;
    }
    let mut block = BlockFile {
        file: FileArea {
            disk: Arc::new(LinuxDisk::open(folder.path()).unwrap()),
            path: "grubenv".into(),
        },
    };
    assert_eq!(block.read(), Found::default());
    judge(
        "grub-editenv",
        &[file, "set", "saved_entry=a b\\c", "pv_rev=4"],
    )
    .unwrap();
    assert_eq!(
        block.read().choice.unwrap().committed,
        Some(id("4")),
        "an image builder wrote it"
    );
    block.write(&armed()).unwrap();
    let listed = judge("grub-editenv", &[file, "list"]).unwrap();
    for line in [
        "saved_entry=a b\\c",
        "pv_tried=0",
        "pv_rev=5",
        "pv_try=locals/next%20one",
    ] {
        assert!(
            listed.lines().any(|found| found == line),
            "{line}: {listed}"
        );
    }
    // What GRUB's save_env does: one byte changes.
    let before = fs::read(&path).unwrap();
    judge("grub-editenv", &[file, "set", "pv_tried=1"]).unwrap();
    let after = fs::read(&path).unwrap();
    let changed: Vec<_> = (0..1024).filter(|at| before[*at] != after[*at]).collect();
    assert_eq!(changed.len(), 1);
    assert!(changed[0] < 512);
    assert_eq!(
        block.read().choice,
        Some(Choice {
            tried: true,
            ..armed()
        })
    );
    // A trial that somebody else sets has no checksum that fits.
    judge("grub-editenv", &[file, "set", "pv_try=9"]).unwrap();
    assert_eq!(block.read().choice, None);
    assert_eq!(block.read().notices.len(), 1);
}

#[test]
fn boot_scripts_are_well_formed() {
    judge(
        "grub-script-check",
        &[text(&boot_folder().join("grub/grub.cfg"))],
    );
    judge("sh", &["-n", text(&boot_folder().join("uboot/boot.cmd"))]);
    judge("sh", &["-n", text(&boot_folder().join("file/next-boot"))]);
    let image = TempDir::new().unwrap();
    let script = image.path().join("boot.scr");
    let (source, script) = (
        boot_folder().join("uboot/boot.cmd"),
        text(&script).to_owned(),
    );
    judge(
        "mkimage",
        &["-A", "arm64", "-T", "script", "-d", text(&source), &script],
    );
}

/// U-Boot's commands for a shell: its hush understands the part of the shell's language that the script uses. Kernels are files in a folder;
/// `booti` and `bootm` say which revision's kernel runs, and come back when it is marked as one that does not start.
const UBOOT: &str = r#"
cd "$FOLDER"
devtype=mmc devnum=0 kernel_addr_r=k ramdisk_addr_r=4000 fdt_addr_r=f fdtcontroladdr=c
setenv() { name=$1; shift; eval "$name=\"\$*\""; }
saveenv() {
    [ ! -e readonly ] || return 1
    for name in pv_rev pv_try pv_tried; do eval "echo \"$name='\$$name'\""; done >env.new && mv env.new env
}
load() { [ -e "storage$4" ] || return 1; filesize=10; loaded=$4; }
setexpr() { eval "$1=$(printf %x $((0x${2#0x} + 0x$4)))"; }
run() { eval "eval \"\$$1\""; }
start() { [ ! -e "storage${cx_dir}/bad" ] || return 1; echo "$1 $bootargs"; exit 0; }
booti() { start "$2"; }
bootm() { start "$1"; }
part() { eval "$5=99"; }
mmc() {
    case $1 in
    read) [ -e note ] && cp note memory ;;
    write) [ ! -e readonly ] && mv memory note ;;
    esac
}
env() {
    case "$1 $2" in
    "import -b") . "storage$loaded" ;;
    "import -c") . ./memory ;;
    "export -c") echo "cx_note='$cx_note'" >memory ;;
    esac
}
sleep() { :; }
reset() { echo reset; exit 0; }
[ ! -e env ] || . ./env
. "$SCRIPT"
"#;

/// A machine with these commands.
struct Emulated(TempDir);

impl Emulated {
    fn new(revisions: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        for revision in revisions {
            let trail = folder.path().join(format!("storage/trails/{revision}/.pv"));
            fs::create_dir_all(&trail).unwrap();
            fs::write(trail.join("pv-kernel.img"), "").unwrap();
        }
        Self(folder)
    }

    fn env(&self, text: &str) -> &Self {
        fs::write(self.0.path().join("env"), text).unwrap();
        self
    }

    /// With `boot/uboot.txt` and a partition for the note.
    fn txt(&self, text: &str) -> &Self {
        fs::create_dir_all(self.0.path().join("storage/boot")).unwrap();
        fs::write(self.0.path().join("storage/boot/uboot.txt"), text).unwrap();
        self.env("cx_note_part=3\n")
    }

    fn touch(&self, name: &str) -> &Self {
        fs::write(self.0.path().join(name), "").unwrap();
        self
    }

    /// What the script and the commands print; the last line says what is started.
    fn printed(&self) -> String {
        let output = Command::new("sh")
            .args(["-c", UBOOT])
            .env("FOLDER", self.0.path())
            .env(
                "SCRIPT",
                fs::canonicalize(boot_folder().join("uboot/boot.cmd")).unwrap(),
            )
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.is_empty(), "{error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The revision that is started, or "reset".
    fn start(&self) -> String {
        let printed = self.printed();
        let last = printed.lines().last().unwrap_or_default().to_owned();
        match last.split_once("coxswain.booted=") {
            Some((_, revision)) => revision.to_owned(),
            None => last,
        }
    }
}

#[test]
fn uboot_script_with_a_note() {
    let all = || Emulated::new(&["0", "5", "locals/x"]);
    let armed = |number: u32| format!("pv_rev=5 pv_try=locals/x cx_arm={number}\n");
    let machine = all();
    machine.env("cx_note_part=3\n");
    assert_eq!(machine.start(), "0", "there is no boot/uboot.txt");
    machine.txt("pv_rev=5 pv_try= cx_arm=7\n");
    assert_eq!((machine.start(), machine.start()), ("5".into(), "5".into()));
    machine.txt(&armed(8));
    assert_eq!(machine.start(), "locals/x");
    for _ in 0..3 {
        assert_eq!(machine.start(), "5", "a trial starts once");
    }
    machine.txt(&armed(9));
    assert_eq!(machine.start(), "locals/x", "it is armed again");
    assert_eq!(machine.start(), "5");
    // A note that is lost costs one more start.
    machine.touch("note");
    assert_eq!(machine.start(), "locals/x");
    assert_eq!(machine.start(), "5");
    machine.txt(&armed(10)).touch("readonly");
    assert_eq!(machine.start(), "5", "what cannot be noted does not start");
    let machine = all();
    machine
        .txt(&armed(1))
        .touch("storage/trails/locals/x/.pv/bad");
    assert_eq!(machine.start(), "5");
}

#[test]
fn uboot_script() {
    let armed = "pv_rev=5\npv_try='locals/x'\n";
    let all = || Emulated::new(&["0", "5", "locals/x"]);
    let machine = all();
    assert_eq!(machine.start(), "0", "a first boot has no environment");
    assert_eq!(machine.start(), "0");
    let machine = all();
    machine.env("pv_rev=5\n");
    assert_eq!((machine.start(), machine.start()), ("5".into(), "5".into()));
    machine.env(armed);
    assert_eq!(machine.start(), "locals/x");
    assert_eq!(
        (machine.start(), machine.start()),
        ("5".into(), "5".into()),
        "once"
    );
    machine.env(armed).touch("readonly");
    assert_eq!(
        machine.start(),
        "5",
        "a try that cannot be counted is not made"
    );
    let machine = Emulated::new(&["0", "5"]);
    assert_eq!(machine.env(armed).start(), "5", "the trial has no kernel");
    let machine = all();
    machine.env(armed).touch("storage/trails/locals/x/.pv/bad");
    assert_eq!(machine.start(), "5", "the trial's kernel does not start");
    machine.touch("storage/trails/5/.pv/bad");
    assert_eq!(machine.start(), "0", "nor does the committed one");
    machine.touch("storage/trails/0/.pv/bad");
    assert_eq!(machine.start(), "reset");
    let addons = all();
    for name in ["pv-initrd.img", "pv-initrd.img.0", "pv-initrd.img.1"] {
        addons.touch(&format!("storage/trails/5/.pv/{name}"));
    }
    assert_eq!(addons.env("pv_rev=5\n").start(), "5");
    assert!(addons.printed().contains("4000:30 "), "three files in one");
    let fit = all();
    fit.touch("storage/trails/5/.pv/pantavisor.fit");
    assert_eq!(fit.env("pv_rev=5\n").start(), "5");
}

#[test]
fn script_of_the_boot_loader_file() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("loader");
    let script = boot_folder().join("file/next-boot");
    let next = || {
        let output = Command::new("sh").arg(&script).arg(&path).output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout)
                .unwrap()
                .trim_end()
                .to_owned(),
        )
    };
    assert_eq!(next(), (Some(1), String::new()), "no file");
    let mut block = BlockFile {
        file: FileArea {
            disk: Arc::new(LinuxDisk::open(folder.path()).unwrap()),
            path: "loader".into(),
        },
    };
    block.write(&armed()).unwrap();
    assert_eq!(next(), (Some(0), "locals/next%20one".to_owned()));
    assert_eq!(
        block.read().choice,
        Some(Choice {
            tried: true,
            ..armed()
        })
    );
    assert_eq!(next(), (Some(0), "5".to_owned()));
    assert_eq!(fs::metadata(&path).unwrap().len(), 1024);
    fs::write(&path, "rubbish").unwrap();
    assert_eq!(next(), (Some(1), String::new()));
}
