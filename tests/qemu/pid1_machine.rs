//! A machine that boots the initramfs of a device (`rootfs/initramfs/build`) with coxswain as its init: an emulated processor, one disk,
//! nothing of this machine but binaries. Its shell, where its settings open one, is the emergency console on the second serial port.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use acceptance::image::binary;
use serde_json::Value;

use crate::kernel::Kernel;
use crate::machine::qemu;
use crate::serial::{Output, Serial};
use crate::system::Revision;

/// What the console runs: lines in, what they say and their exit codes out.
const SHELL: &str = "#!/bin/sh
stty raw -echo
echo '@up'
while IFS= read -r line; do
    sh -c \"$line\" </dev/null >/run/answer 2>&1
    code=$?
    cat /run/answer
    printf '\\n@end %s\\n' \"$code\"
done
";
/// Opens that shell on the second serial port.
pub(crate) const CONSOLE: &str = "coxswain.console=/dev/ttyS1 coxswain.console-when=always \
    coxswain.console-program=/usr/bin/test-shell";
const DISK_BYTES: u64 = 256 << 20;
const ANSWER: Duration = Duration::from_secs(120);

/// `/init` of somebody else's initramfs, as distributions have it: it mounts the root and goes to this program there.
pub(crate) fn init_of_others(program: &str) -> String {
    format!(
        "#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
$b modprobe -a loop squashfs
$b mkdir /new
$b mount -t squashfs -o loop,ro /system.squashfs /new
for folder in proc sys dev; do $b mount -o move /$folder /new/$folder; done
exec $b switch_root /new {program}
"
    )
}

/// Kernel, initramfs and disk of one device.
#[derive(Debug)]
pub(crate) struct Device {
    folder: tempfile::TempDir,
    kernel: PathBuf,
}

impl Device {
    /// Builds the initramfs, with these revisions in it, and an empty disk with a label and this UUID.
    pub(crate) fn build(kernel: &Kernel, revisions: &[Revision<'_>], uuid: &str) -> Self {
        Self::build_with(kernel, revisions, uuid, &[], &[])
    }

    /// The same, with programs of this machine and scripts in the system.
    pub(crate) fn build_with(
        kernel: &Kernel,
        revisions: &[Revision<'_>],
        uuid: &str,
        programs: &[&str],
        scripts: &[(&str, &str)],
    ) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("cx-pid1-")
            .tempdir()
            .expect("a temporary folder");
        let added = folder.path().join("added");
        fs::create_dir_all(added.join("usr/bin")).expect("a folder");
        for (name, text) in scripts.iter().chain(&[("test-shell", SHELL)]) {
            script(&added.join("usr/bin").join(name), text);
        }
        for program in programs {
            // By its path where it is not a program of this machine.
            let path = Path::new("/usr/bin").join(program);
            let name = path.file_name().expect("a program has a name");
            fs::copy(&path, added.join("usr/bin").join(name)).expect("a program");
        }
        fs::copy(binary("coxctl"), added.join("usr/bin/coxctl")).expect("our binary");
        for revision in revisions {
            revision.write(&added.join("revisions"));
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let built = Command::new(root.join("rootfs/initramfs/build"))
            .args(["x86-64"])
            .arg(folder.path().join("initramfs"))
            .arg("--coxswain")
            .arg(binary("coxswain"))
            .arg("--kernel")
            .arg(kernel.folder())
            .args(["--quick", "--busybox", "--add"])
            .arg(&added)
            .output()
            .expect("bash runs");
        assert!(
            built.status.success(),
            "{}",
            String::from_utf8_lossy(&built.stderr)
        );
        let device = Self {
            folder,
            kernel: kernel.image(),
        };
        device.format(uuid, &[]);
        device
    }

    /// Makes the disk anew, with these further words to mkfs.
    fn format(&self, uuid: &str, words: &[&OsStr]) {
        let disk = self.disk();
        let file = fs::File::create(&disk).expect("a file for the disk");
        file.set_len(DISK_BYTES).expect("a sparse file");
        let made = Command::new("mkfs.ext4")
            .args(["-q", "-F", "-L", "storage", "-U", uuid])
            .args(words)
            .arg(&disk)
            // A part of the disk: the file system has room to grow.
            .arg(format!("{}k", (DISK_BYTES - (64 << 20)) >> 10))
            .status()
            .expect("Debian's e2fsprogs is installed");
        assert!(made.success(), "mkfs.ext4 failed");
    }

    fn disk(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    /// Makes the disk anew, as an image is made: this is its factory revision.
    pub(crate) fn fill(&self, revision: &Revision<'_>, uuid: &str) {
        let (factory, storage) = (
            self.folder.path().join("factory"),
            self.folder
                .path()
                .join(format!("storage-{}", revision.name)),
        );
        revision.write(&factory);
        let made = Command::new(binary("coxswain"))
            .args(["make-storage", "--storage"])
            .args([&storage, &factory.join(revision.name)])
            .output()
            .expect("our binary runs");
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "{said}");
        self.format(uuid, &["-d".as_ref(), storage.as_os_str()]);
    }

    /// Breaks the file system in a way that only `e2fsck -y` mends, and says so in its superblock, as the kernel does that finds it.
    pub(crate) fn break_file_system(&self) {
        let junk = self.folder.path().join("junk");
        fs::write(&junk, "lost").expect("a file");
        let write = format!("write {} boot/junk", junk.display());
        for request in [
            write.as_str(),
            // The head of its list of extents.
            "sif boot/junk block[0] 0x12345678",
            // Not in good order.
            "ssv state 2",
        ] {
            let done = Command::new("debugfs")
                .args(["-w", "-R", request])
                .arg(self.disk())
                .output()
                .expect("Debian's e2fsprogs is installed");
            assert!(done.status.success(), "{request}");
        }
        let gentle = Command::new("e2fsck")
            .args(["-f", "-n"])
            .arg(self.disk())
            .output();
        let code = gentle.expect("e2fsck runs").status.code();
        assert_eq!(code, Some(4), "the disk is not broken");
    }

    /// Puts another init into the initramfs, `/NAME`, with busybox to run it.
    pub(crate) fn append(&self, name: &str, text: &str) {
        let folder = self.folder.path().join("appended");
        fs::create_dir_all(folder.join("bin")).expect("a folder");
        fs::copy("/usr/bin/busybox", folder.join("bin/busybox")).expect("busybox");
        script(&folder.join(name), text);
        let made = Command::new("sh")
            .args(["-c", "find . | cpio --quiet -o -H newc -R 0:0 >>\"$0\""])
            .arg(self.folder.path().join("initramfs"))
            .current_dir(&folder)
            .status();
        assert!(made.expect("a shell").success(), "cpio failed");
    }

    /// Boots with these words on the kernel command line, and these options of QEMU.
    pub(crate) fn boot(&self, words: &str, options: &[&str]) -> Guest {
        self.boot_with(words, options, "")
    }

    /// The same with a disk that takes no writes.
    pub(crate) fn boot_read_only(&self, words: &str) -> Guest {
        self.boot_with(words, &[], ",readonly=on")
    }

    fn boot_with(&self, words: &str, options: &[&str], drive: &str) -> Guest {
        let path = |name: &str| self.folder.path().join(name);
        let socket = path("shell");
        fs::remove_file(&socket).ok();
        let listener = UnixListener::bind(&socket).expect("a socket for QEMU");
        let console = path("console");
        fs::remove_file(&console).ok();
        let qemu = qemu(&self.kernel, &path("initramfs"), words, &console, &socket)
            .arg("-drive")
            .arg(format!(
                "file={},format=raw,if=virtio{drive}",
                self.disk().display()
            ))
            .args(options)
            .spawn()
            .expect("QEMU starts");
        let shell = Serial::accept(&listener);
        Guest {
            qemu,
            shell,
            console,
        }
    }

    /// What the file system's check says of the disk as it is, journal included; `None` when nothing is wrong and nothing is to be replayed.
    pub(crate) fn damage(&self) -> Option<String> {
        let judged = Command::new("e2fsck")
            .args(["-f", "-n"])
            .arg(self.disk())
            .output()
            .expect("e2fsck runs");
        let text = String::from_utf8_lossy(&judged.stdout).into_owned()
            + &String::from_utf8_lossy(&judged.stderr);
        let replay = text.contains("recover");
        (!judged.status.success() || replay).then_some(text)
    }
}

fn script(path: &Path, text: &str) {
    fs::write(path, text).expect("a script");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a mode");
}

/// A machine that runs; killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Guest {
    qemu: Child,
    shell: Serial,
    console: PathBuf,
}

impl Guest {
    /// Everything that it wrote on its console so far.
    pub(crate) fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.console).unwrap_or_default()).into_owned()
    }

    /// Waits until its console says this.
    pub(crate) fn wait_for(&mut self, text: &str, limit: Duration) {
        let end = Instant::now() + limit;
        while !self.console().contains(text) {
            assert!(
                Instant::now() < end && !self.has_ended(),
                "its console does not say {text:?}\n{}",
                self.console()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Waits for the shell.
    pub(crate) fn wait_for_shell(&mut self, limit: Duration) {
        self.line_starting("@up", limit);
    }

    /// Whether somebody answers on the second serial port.
    pub(crate) fn answers(&mut self) -> bool {
        self.tell("\necho @here");
        let patience = Duration::from_secs(5);
        self.shell.line_starting("@here", patience).is_some()
    }

    /// Runs a line in its shell.
    pub(crate) fn run(&mut self, line: &str) -> Output {
        let answer = self.shell.ask(line, ANSWER);
        answer.unwrap_or_else(|| panic!("no answer to {line:?}\n{}", self.console()))
    }

    /// Gives it a line whose answer may never come.
    pub(crate) fn tell(&mut self, line: &str) {
        self.shell.tell(line);
    }

    /// Runs a line that must succeed.
    pub(crate) fn must(&mut self, line: &str) -> String {
        let output = self.run(line);
        assert_eq!(
            output.code,
            0,
            "{line}: {}\n{}",
            output.text,
            self.console()
        );
        output.text
    }

    /// Runs a line until it succeeds.
    pub(crate) fn until(&mut self, line: &str, limit: Duration) -> String {
        let end = Instant::now() + limit;
        loop {
            let output = self.run(line);
            if output.code == 0 {
                return output.text;
            }
            assert!(
                Instant::now() < end,
                "not within {limit:?}: {line}: {}\n{}",
                output.text,
                self.console()
            );
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// Waits until it is switched off or starts again, which ends QEMU; gives what its console said.
    pub(crate) fn wait_for_end(mut self, limit: Duration) -> String {
        let end = Instant::now() + limit;
        while !self.has_ended() {
            assert!(
                Instant::now() < end,
                "it still runs after {limit:?}\n{}",
                self.console()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        self.console()
    }

    fn has_ended(&mut self) -> bool {
        self.qemu
            .try_wait()
            .expect("our own child can be waited for")
            .is_some()
    }

    /// Waits for a line on the second serial port that starts so.
    pub(crate) fn line_starting(&mut self, start: &str, limit: Duration) -> String {
        let line = self.shell.line_starting(start, limit);
        line.unwrap_or_else(|| panic!("no {start:?} within {limit:?}\n{}", self.console()))
    }

    /// Waits until a container runs and the shell answers; the first container's process.
    pub(crate) fn first_container(&mut self, limit: Duration) -> u64 {
        self.wait_for(" STARTED kind=\"container-status\"", limit);
        self.wait_for_shell(limit);
        let pid = self.container_pid(limit);
        pid.unwrap_or_else(|| panic!("no container\n{}", self.console()))
    }

    /// Process of the first container.
    pub(crate) fn container_pid(&mut self, limit: Duration) -> Option<u64> {
        let text = self.until("coxctl --json status", limit);
        let status: Value = serde_json::from_str(&text).expect("JSON of the status");
        status["containers"][0]["pid"].as_u64()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.qemu.kill().ok();
        self.qemu.wait().ok();
    }
}
