//! Debian's kernel, unpacked from its package without installing it: nothing on this machine changes, and the bytes are those that
//! devices run. Kept below `target/qemu`, one folder a version; a folder without its last file is thrown away and made again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The package that always depends on the newest kernel for virtual machines: few drivers, quick to start.
const NEWEST: &str = "linux-image-cloud-amd64";

/// A kernel and its modules.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    folder: PathBuf,
    version: String,
}

impl Kernel {
    /// Takes the unpacked one, or fetches it.
    ///
    /// # Errors
    /// Why it cannot be had here, for a person.
    pub(crate) fn have(cache: &Path) -> Result<Self, String> {
        match package_name() {
            Ok(package) => Self::unpacked(&cache.join(&package), &package),
            // Without the lists of packages, one from an earlier run does.
            Err(why) => Self::earlier(cache).ok_or(why),
        }
    }

    fn unpacked(folder: &Path, package: &str) -> Result<Self, String> {
        let complete = folder.join("complete");
        if !complete.exists() {
            let told = |what: &str| format!("cannot unpack {package}: {what}");
            fs::remove_dir_all(folder).ok();
            fs::create_dir_all(folder).map_err(|error| told(&error.to_string()))?;
            if download(folder, package).is_err() {
                // A security update took the version in our lists away.
                run(Command::new("apt-get").args(["update", "-qq"]))?;
                download(folder, package)?;
            }
            let archive = only_file(folder, "deb").map_err(|error| told(&error.to_string()))?;
            run(Command::new("dpkg").arg("-x").arg(&archive).arg(folder))?;
            fs::remove_file(&archive).map_err(|error| told(&error.to_string()))?;
            let kernel = Self::in_folder(folder).ok_or_else(|| told("it holds no kernel"))?;
            run(Command::new("depmod")
                .arg("-b")
                .arg(folder)
                .arg(&kernel.version))?;
            fs::write(&complete, "").map_err(|error| told(&error.to_string()))?;
        }
        Self::in_folder(folder).ok_or_else(|| format!("{} holds no kernel", folder.display()))
    }

    fn earlier(cache: &Path) -> Option<Self> {
        let folders = fs::read_dir(cache).ok()?.filter_map(|entry| {
            let path = entry.ok()?.path();
            path.join("complete").exists().then_some(path)
        });
        Self::in_folder(&folders.max()?)
    }

    fn in_folder(folder: &Path) -> Option<Self> {
        let modules = fs::read_dir(folder.join("lib/modules")).ok()?.next()?;
        let version = modules.ok()?.file_name().into_string().ok()?;
        let kernel = Self {
            folder: folder.to_owned(),
            version,
        };
        kernel.image().exists().then_some(kernel)
    }

    /// The compressed kernel, as a boot loader loads it.
    pub(crate) fn image(&self) -> PathBuf {
        self.folder.join(format!("boot/vmlinuz-{}", self.version))
    }

    /// Where it was unpacked: `boot` and `lib/modules` are there.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its version, as `uname -r` tells it.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// The files to load for these modules and all that they need, in an order in which `insmod` takes them.
    pub(crate) fn modules(&self, names: &[&str]) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for name in names {
            let output = Command::new("modprobe")
                .arg("-d")
                .arg(&self.folder)
                .args(["-S", &self.version, "--show-depends", name])
                .output()
                .expect("Debian's kmod is installed");
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            let text = String::from_utf8(output.stdout).expect("paths of modules are text");
            // `builtin ext4` needs no file.
            let needed = text.lines().filter_map(|line| line.strip_prefix("insmod "));
            for file in needed.map(|rest| PathBuf::from(rest.trim())) {
                if !files.contains(&file) {
                    files.push(file);
                }
            }
        }
        files
    }
}

fn package_name() -> Result<String, String> {
    let output = Command::new("apt-cache")
        .args(["depends", NEWEST])
        .output()
        .map_err(|error| format!("apt-cache does not run ({error}); this needs Debian"))?;
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .find_map(|line| {
            line.trim()
                .strip_prefix("Depends: linux-image-")
                .map(|rest| format!("linux-image-{rest}"))
        })
        .ok_or_else(|| format!("apt knows no package {NEWEST}; run apt-get update"))
}

fn download(folder: &Path, package: &str) -> Result<(), String> {
    // As whoever we are: apt's own user cannot write into our folder, and apt warns of it.
    run(Command::new("apt-get")
        .args(["-qq", "-o", "APT::Sandbox::User=root", "download", package])
        .current_dir(folder))
}

fn only_file(folder: &Path, extension: &str) -> io::Result<PathBuf> {
    let files = fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    files
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .max()
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no .{extension} file")))
}

fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!(
            "{program} failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => Err(format!("{program} does not run: {error}")),
    }
}
