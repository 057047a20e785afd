//! What `rootfs/build` makes, once for each test process, and revisions that are made from it.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use acceptance::image::binary;

/// An architecture that images are made for, with its boot loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chain {
    Grub,
    SystemdBoot,
    Uboot,
    /// With U-Boot's own environment, in two copies; a person brings that U-Boot.
    UbootCopies,
}

/// A U-Boot that starts from an SD card and keeps its environment where `FW_ENV` says.
pub(crate) fn uboot_bin() -> Option<PathBuf> {
    let path = std::env::var_os("UBOOT_BIN").filter(|path| !path.is_empty());
    path.map(PathBuf::from)
}

/// Where each copy of the environment is on the disk, and how long it is: below the first partition.
pub(crate) const COPIES_AT: [u64; 2] = [0x3f_8000, 0x3f_c000];
pub(crate) const COPY_BYTES: usize = 0x4000;

impl Chain {
    pub(crate) fn arch(self) -> &'static str {
        match self {
            Self::Grub | Self::SystemdBoot => "x86-64",
            Self::Uboot | Self::UbootCopies => "arm64",
        }
    }

    /// As `rootfs/build` calls it.
    pub(crate) fn bootloader(self) -> &'static str {
        match self {
            Self::Grub => "grub",
            Self::SystemdBoot => "systemd-boot",
            Self::Uboot => "uboot-pantavisor",
            Self::UbootCopies => "uboot",
        }
    }

    fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Grub => &["qemu-system-x86_64", "grub-mkimage"],
            Self::SystemdBoot => &["qemu-system-x86_64"],
            Self::Uboot | Self::UbootCopies => &["qemu-system-aarch64", "mkimage"],
        }
    }

    fn firmware(self) -> PathBuf {
        match self {
            Self::Grub | Self::SystemdBoot => "/usr/share/ovmf/OVMF.fd".into(),
            Self::Uboot => "/usr/lib/u-boot/qemu_arm64/u-boot.bin".into(),
            Self::UbootCopies => uboot_bin().unwrap_or_default(),
        }
    }

    /// What `rootfs/run` must be told of the machine.
    pub(crate) fn machine(self) -> Vec<OsString> {
        match self {
            Self::Grub | Self::SystemdBoot | Self::Uboot => Vec::new(),
            Self::UbootCopies => {
                vec!["--card".into(), "--firmware".into(), self.firmware().into()]
            }
        }
    }

    /// A static program for the machine that ends at once.
    fn ready(self) -> PathBuf {
        match self {
            Self::Grub | Self::SystemdBoot => binary("ready"),
            Self::Uboot | Self::UbootCopies => arm_binaries().join("ready"),
        }
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grub | Self::Uboot => f.write_str(self.arch()),
            Self::SystemdBoot => write!(f, "{} by systemd-boot", self.arch()),
            Self::UbootCopies => write!(f, "{} with two copies", self.arch()),
        }
    }
}

fn arm_binaries() -> PathBuf {
    std::env::var_os("COXSWAIN_BIN_DIR_ARM64").map_or_else(
        || top().join("target/aarch64-unknown-linux-gnu/release"),
        PathBuf::from,
    )
}

/// The checkout.
pub(crate) fn top() -> PathBuf {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::canonicalize(top).expect("the checkout is there")
}

/// Why images of this architecture cannot be made or run here, if they cannot.
pub(crate) fn missing(chain: Chain) -> Option<String> {
    let common = [
        "sfdisk",
        "mcopy",
        "mkfs.vfat",
        "debugfs",
        "mksquashfs",
        "cpio",
        "depmod",
    ];
    let folders = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];
    let is_there = |name: &&str| folders.iter().any(|dir| Path::new(dir).join(name).exists());
    let mut needed = common.iter().chain(chain.programs()).copied();
    if let Some(name) = needed.find(|name| !is_there(name)) {
        return Some(format!("{name} is not installed (tests/packages test)"));
    }
    let firmware = chain.firmware();
    if !firmware.exists() {
        return Some(format!(
            "{} is not there (tests/packages test)",
            firmware.display()
        ));
    }
    let program = chain.ready();
    (!program.exists()).then(|| {
        format!(
            "{} is not built (tests/static --arch {} coxswain ready)",
            program.display(),
            chain.arch()
        )
    })
}

/// An image and what it was made of.
#[derive(Debug)]
pub(crate) struct Built {
    /// The image.
    pub(crate) image: PathBuf,
    /// `rootfs/build --keep`.
    pub(crate) kept: PathBuf,
    chain: Chain,
}

/// Builds the image into a folder.
pub(crate) fn build(chain: Chain, folder: &Path) -> Built {
    let (image, kept) = (folder.join("image"), folder.join("kept"));
    let binaries = binary("coxswain");
    let mut command = Command::new(top().join("rootfs/build"));
    if chain == Chain::UbootCopies {
        let fw_env = folder.join("fw_env.config");
        let lines = COPIES_AT.map(|at| format!("/dev/mmcblk0 {at:#x} {COPY_BYTES:#x}\n"));
        fs::write(&fw_env, lines.concat()).expect("a file");
        // The kernel for virtual machines knows no cards.
        command
            .arg(chain.arch())
            .arg("--fw-env")
            .arg(fw_env)
            .env("KERNEL", "generic");
    } else {
        command.arg(chain.arch());
    }
    checked(
        command
            .args(["--bootloader", chain.bootloader()])
            .args(["--out".as_ref(), image.as_path()])
            .args(["--keep".as_ref(), kept.as_path()])
            // An emulated timer that comes late under load must not look like a sick kernel. On a busy machine a second passes before a
            // container's end is seen.
            .args(["--options", "coxswain.commit-delay=5s no_timer_check"])
            .env(
                "COXSWAIN_BIN_DIR",
                binaries.parent().expect("it is in a folder"),
            )
            .env("COXSWAIN_BIN_DIR_ARM64", arm_binaries()),
    );
    Built { image, kept, chain }
}

fn checked(command: &mut Command) -> Output {
    let output = command.output().expect("the program starts");
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

impl Built {
    /// A working folder like the factory revision's, changed by `change`.
    pub(crate) fn revision(&self, folder: &Path, change: impl FnOnce(&Change<'_>)) -> PathBuf {
        fs::create_dir_all(folder).expect("a folder");
        let target = folder.join("revision");
        checked(
            Command::new(binary("coxctl"))
                .args(["revision", "new"])
                .arg(&target)
                .arg("--from")
                .arg(self.kept.join("revision")),
        );
        change(&Change {
            built: self,
            folder,
        });
        target
    }
}

/// A revision that is being changed.
#[derive(Debug)]
pub(crate) struct Change<'a> {
    built: &'a Built,
    folder: &'a Path,
}

impl Change<'_> {
    /// Sets a key to these bytes.
    pub(crate) fn set(&self, key: &str, bytes: &[u8]) {
        let file = self.folder.join("value");
        fs::write(&file, bytes).expect("a file");
        self.coxctl(&["set"], &[key.as_ref(), file.as_path()]);
    }

    /// A container that ends at once, and shall be there.
    pub(crate) fn sick_container(&self) {
        let words = ["--restart", "no", "--rootfs", "-", "--", "/bin/false"];
        let root = self.folder.join("root");
        fs::create_dir_all(root.join("bin")).expect("a folder");
        let program = self.built.chain.ready();
        fs::copy(program, root.join("bin/false")).expect("a program");
        let words: Vec<&Path> = words
            .iter()
            .map(|word| {
                if *word == "-" {
                    root.as_path()
                } else {
                    Path::new(word)
                }
            })
            .collect();
        let mut all = vec![Path::new("sick")];
        all.extend(words);
        self.coxctl(&["add-container"], &all);
    }

    fn coxctl(&self, command: &[&str], words: &[&Path]) {
        checked(
            Command::new(binary("coxctl"))
                .arg("revision")
                .args(command)
                .arg(self.folder.join("revision"))
                .args(words),
        );
    }

    /// The factory revision's kernel.
    pub(crate) fn kernel(&self) -> Vec<u8> {
        fs::read(self.built.kept.join("kernel.img")).expect("the kernel was kept")
    }

    /// The factory revision's initramfs.
    pub(crate) fn initrd(&self) -> Vec<u8> {
        fs::read(self.built.kept.join("initrd.img")).expect("the initramfs was kept")
    }

    /// An initramfs with one program as its init, which ends at once.
    pub(crate) fn initrd_that_ends(&self) -> Vec<u8> {
        let program = fs::read(self.built.chain.ready()).expect("a program");
        archive(&[("dev", 0o040_755, &[]), ("init", 0o100_755, &program)])
    }
}

/// A cpio archive (newc) of these files: name, mode, bytes.
pub(crate) fn archive(files: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let number = |count: usize| u32::try_from(count).expect("archives of tests are small");
    let end: (&str, u32, &[u8]) = ("TRAILER!!!", 0, &[]);
    for (index, (name, mode, content)) in files.iter().chain([&end]).enumerate() {
        let fields = [
            number(index) + 1,
            *mode,
            0,
            0,
            1,
            0,
            number(content.len()),
            0,
            0,
            0,
            0,
            number(name.len()) + 1,
            0,
        ];
        bytes.extend(b"070701");
        bytes.extend(
            fields
                .iter()
                .flat_map(|field| format!("{field:08x}").into_bytes()),
        );
        bytes.extend(name.as_bytes());
        bytes.push(0);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(*content);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}
