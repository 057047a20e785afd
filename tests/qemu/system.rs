//! What the machine boots: a small initramfs, and the system as a read-only squashfs with busybox, containerd, runc, our static
//! binaries and the revisions to install. Built by every run from what is installed here; needs no root.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use acceptance::image::{Image, binary};
use acceptance::manifest::Manifest;

use crate::kernel::Kernel;

/// Everything else that the machine needs is in Debian's kernel itself.
const MODULES: [&str; 6] = [
    "virtio_pci",
    "virtio_blk",
    "squashfs",
    "overlay",
    "loop",
    "dm_verity",
];
const SEARCHED: [&str; 4] = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];

/// A revision on the system's disk, as `coxctl install` takes it.
#[derive(Debug)]
pub(crate) struct Revision<'a> {
    /// Its folder below `/revisions`.
    pub(crate) name: &'a str,
    /// What runs.
    pub(crate) manifest: &'a Manifest,
    /// The objects that it names.
    pub(crate) images: &'a [&'a Image],
}

/// Programs of this machine that the test needs, besides those that [`acceptance::device::missing`] looks for.
pub(crate) fn missing_program() -> Option<&'static str> {
    let needed = [
        "qemu-system-x86_64",
        "containerd",
        "containerd-shim-runc-v2",
        "runc",
        "busybox",
        "mksquashfs",
        "mkfs.ext4",
        "e2fsck",
        "cpio",
        "modprobe",
        "depmod",
    ];
    needed.into_iter().find(|name| found(name).is_none())
}

fn found(name: &str) -> Option<PathBuf> {
    let folders = SEARCHED.iter().map(|folder| Path::new(folder).join(name));
    folders.into_iter().find(|path| path.exists())
}

/// Writes the initramfs to `target`.
pub(crate) fn initramfs(kernel: &Kernel, target: &Path) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path();
    folders(root, &["bin", "proc", "dev", "system", "modules"]);
    busybox(root);
    script(&root.join("init"), include_str!("early.sh"));
    let mut order = String::new();
    for module in kernel.modules(&MODULES) {
        let name = module.file_name().expect("a module is a file");
        fs::copy(&module, root.join("modules").join(name)).expect("a module");
        order.push_str(&name.to_string_lossy());
        order.push('\n');
    }
    fs::write(root.join("modules/order"), order).expect("the order of the modules");
    let made = Command::new("sh")
        .args(["-c", "find . | cpio --quiet -o -H newc -R 0:0 >\"$0\""])
        .arg(target)
        .current_dir(root)
        .status()
        .expect("a shell");
    assert!(made.success(), "cpio failed");
}

/// Writes the system to `target`.
pub(crate) fn squashfs(revisions: &[Revision<'_>], target: &Path) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path();
    folders(
        root,
        &[
            "bin", "dev", "etc", "proc", "run", "storage", "sys", "tmp", "usr", "var",
        ],
    );
    busybox(root);
    script(&root.join("init"), include_str!("init.sh"));
    for name in ["coxswain", "coxctl", "inside"] {
        fs::copy(binary(name), root.join("bin").join(name)).expect("our binary");
    }
    for name in ["containerd", "containerd-shim-runc-v2", "runc", "e2fsck"] {
        let path = found(name).expect("it was looked for before");
        fs::copy(&path, root.join("bin").join(name)).expect("a program");
        for library in libraries(&path) {
            let copy = root.join(library.strip_prefix("/").expect("ldd tells absolute paths"));
            fs::create_dir_all(copy.parent().expect("a library is in a folder")).expect("a folder");
            fs::copy(&library, copy).expect("a library");
        }
    }
    for revision in revisions {
        revision.write(&root.join("revisions"));
    }
    // Not compressed: the machine is emulated, its disk is not slow.
    let output = Command::new("mksquashfs")
        .arg(root)
        .arg(target)
        .args([
            "-noappend",
            "-quiet",
            "-no-progress",
            "-all-root",
            "-noI",
            "-noD",
            "-noF",
            "-noX",
        ])
        .output()
        .expect("Debian's squashfs-tools are installed");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

impl Revision<'_> {
    /// Writes its folder below `revisions`.
    pub(crate) fn write(&self, revisions: &Path) {
        let folder = revisions.join(self.name);
        fs::create_dir_all(folder.join("objects")).expect("a folder for the revision");
        fs::write(folder.join("manifest.json"), self.manifest.text()).expect("the manifest");
        for image in self.images {
            let path = folder.join("objects").join(&image.sha256);
            fs::write(path, &image.bytes).expect("an object");
        }
    }
}

fn folders(root: &Path, names: &[&str]) {
    for name in names {
        fs::create_dir_all(root.join(name)).expect("a folder");
    }
}

/// Busybox under every name that it knows.
fn busybox(root: &Path) {
    let program = found("busybox").expect("it was looked for before");
    let output = Command::new(&program)
        .arg("--list")
        .output()
        .expect("busybox runs");
    fs::copy(&program, root.join("bin/busybox")).expect("busybox");
    for applet in String::from_utf8_lossy(&output.stdout).lines() {
        if applet != "busybox" {
            symlink("busybox", root.join("bin").join(applet)).expect("a link");
        }
    }
}

fn script(path: &Path, text: &str) {
    fs::write(path, text).expect("a script");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a mode");
}

/// The shared libraries and the loader that a program needs.
fn libraries(program: &Path) -> BTreeSet<PathBuf> {
    let output = Command::new("ldd").arg(program).output().expect("ldd runs");
    String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}
