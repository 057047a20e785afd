//! Root images made from Debian's busybox and our `ready`, one squashfs for each content, built once for each test process.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use sha2::Digest as _;

/// An image: its bytes and their name.
#[derive(Debug, Clone)]
pub struct Image {
    /// The squashfs.
    pub bytes: Vec<u8>,
    /// Lower-case hexadecimal SHA-256.
    pub sha256: String,
}

/// SHA-256 as lower-case hexadecimal text.
pub fn sha256(bytes: &[u8]) -> String {
    sha2::Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Any bytes as an object.
pub fn object(bytes: &[u8]) -> Image {
    Image {
        bytes: bytes.to_vec(),
        sha256: sha256(bytes),
    }
}

/// Where cargo put the binaries that the tests run: `COXSWAIN_BIN_DIR`, or `target/release`.
///
/// # Panics
/// When the binary is not there, with the command that builds it.
pub fn binary(name: &str) -> PathBuf {
    let folder = std::env::var_os("COXSWAIN_BIN_DIR")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release"));
    let path = folder.join(name);
    assert!(
        path.exists(),
        "{} is not built: run `cargo build --release` (tests/run does)",
        path.display()
    );
    path
}

/// A root file system with busybox, `/bin/ready`, and these files (path without leading slash, content, executable).
///
/// # Panics
/// When busybox-static or squashfs-tools are missing.
pub fn busybox(files: &[(&str, &str)]) -> Image {
    made_of(&["ready"], files)
}

/// The same with `/bin/inside`, which asks the control socket what a test tells it to.
///
/// # Panics
/// As [`busybox`].
pub fn busybox_that_asks() -> Image {
    made_of(&["ready", "inside"], &[])
}

/// The same with `coxswain-hawkbit`, and this text in `/etc/version`.
///
/// # Panics
/// As [`busybox`].
pub fn busybox_with_hawkbit(version: &str) -> Image {
    made_of(&["coxswain-hawkbit"], &[("etc/version", version)])
}

fn made_of(programs: &[&str], files: &[(&str, &str)]) -> Image {
    static BUILT: Mutex<BTreeMap<String, Image>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    built
        .entry(format!("{programs:?} {files:?}"))
        .or_insert_with(|| build(programs, files))
        .clone()
}

fn build(programs: &[&str], files: &[(&str, &str)]) -> Image {
    let folder = tempfile::Builder::new()
        .prefix("cx-image-")
        .tempdir()
        .expect("a temporary folder");
    let root = folder.path().join("root");
    for name in [
        "bin", "dev", "etc", "proc", "run", "sys", "tmp", "var", "data",
    ] {
        fs::create_dir_all(root.join(name)).expect("a folder for the image");
    }
    fs::copy("/bin/busybox", root.join("bin/busybox"))
        .expect("Debian's busybox-static is installed");
    for applet in [
        "sh", "sleep", "cat", "echo", "httpd", "kill", "true", "false", "ls", "mkdir", "dd", "seq",
        "wget", "nc", "touch", "rm", "id", "hostname", "env", "stat", "date", "trap", "test", "ps",
        "yes", "head", "tail",
    ] {
        symlink("busybox", root.join("bin").join(applet)).expect("a link in the image");
    }
    for name in programs {
        fs::copy(binary(name), root.join("bin").join(name)).expect("our static programs");
    }
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    )
    .expect("passwd");
    fs::write(root.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n").expect("group");
    for (path, content) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a file has a folder"))
            .expect("a folder for the image");
        fs::write(&path, content).expect("a file for the image");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
    }
    let target = folder.path().join("root.squashfs");
    let output = Command::new("mksquashfs")
        .arg(&root)
        .arg(&target)
        .args([
            "-noappend",
            "-no-progress",
            "-quiet",
            "-all-root",
            "-all-time",
            "0",
            "-mkfs-time",
            "0",
            "-comp",
            "gzip",
            "-Xcompression-level",
            "1",
            "-processors",
            "1",
        ])
        .output()
        .expect("Debian's squashfs-tools are installed");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let bytes = fs::read(&target).expect("the image was written");
    Image {
        sha256: sha256(&bytes),
        bytes,
    }
}
