//! A virtual machine: QEMU without acceleration, one processor, no network, killed when it is dropped. What it says goes to a file;
//! commands go to its shell over the second serial port.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use acceptance::power::disk::{Cut, Disk, Fuse, serve};
use acceptance::power::moments::Moments;

use crate::serial::{Output, Serial};

/// What every boot shares.
#[derive(Debug)]
pub(crate) struct Parts {
    /// The kernel.
    pub(crate) kernel: PathBuf,
    /// The initramfs.
    pub(crate) initramfs: PathBuf,
    /// The read-only system.
    pub(crate) system: PathBuf,
    /// Settings of coxswain on the kernel's command line.
    pub(crate) options: String,
    /// A folder for sockets and the console.
    pub(crate) folder: PathBuf,
}

/// A machine that runs.
#[derive(Debug)]
pub(crate) struct Machine {
    qemu: Child,
    disk: Option<JoinHandle<Disk>>,
    fuse: Fuse,
    shell: Serial,
    console: PathBuf,
    started: Instant,
}

/// QEMU with one processor and no network: the kernel's console in a file, the second serial port at a socket. A machine that starts
/// again ends.
pub(crate) fn qemu(
    kernel: &Path,
    initramfs: &Path,
    words: &str,
    console: &Path,
    shell: &Path,
) -> Command {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-accel", "tcg", "-cpu", "max", "-m", "512", "-smp", "1"])
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        .args(["-no-reboot", "-nic", "none"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        // A machine that is starved of its processor while the kernel tries its timer is taken for one without.
        .arg("-append")
        .arg(format!(
            "console=ttyS0 no_timer_check random.trust_cpu=on mitigations=off {words}"
        ))
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .arg("-serial")
        .arg(format!("unix:{}", shell.display()))
        .stdin(Stdio::null());
    qemu
}

impl Machine {
    /// Switches it on; it has not booted yet.
    pub(crate) fn on(parts: &Parts, disk: Disk) -> Self {
        let socket = |name: &str| {
            let path = parts.folder.join(name);
            // Of the boot before.
            fs::remove_file(&path).ok();
            let listener = UnixListener::bind(&path).expect("a socket for QEMU");
            (path, listener)
        };
        let (disk_path, disk_listener) = socket("disk");
        let (shell_path, shell_listener) = socket("shell");
        let console = parts.folder.join("console");
        let words = format!("quiet panic=-1 {}", parts.options);
        let qemu = qemu(
            &parts.kernel,
            &parts.initramfs,
            &words,
            &console,
            &shell_path,
        )
        .arg("-blockdev")
        .arg(format!(
            "driver=file,node-name=system,read-only=on,filename={}",
            parts.system.display()
        ))
        .args(["-device", "virtio-blk-pci,drive=system"])
        .arg("-blockdev")
        .arg(format!(
            "driver=nbd,node-name=storage,server.type=unix,server.path={}",
            disk_path.display()
        ))
        .args(["-device", "virtio-blk-pci,drive=storage,write-cache=on"])
        .spawn()
        .expect("QEMU starts");
        let started = Instant::now();
        let fuse = Fuse::default();
        let pid = Pid::from_child(&qemu);
        let (stream, _) = disk_listener.accept().expect("QEMU connects");
        let disk = serve(stream, disk, pid, fuse.clone());
        let shell = Serial::accept(&shell_listener);
        Self {
            qemu,
            disk: Some(disk),
            fuse,
            shell,
            console,
            started,
        }
    }

    /// What cuts its power at a flush of the disk.
    pub(crate) fn fuse(&self) -> &Fuse {
        &self.fuse
    }

    /// Time since it was switched on.
    pub(crate) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Waits for the shell.
    pub(crate) fn wait_for_shell(&mut self, limit: Duration) {
        if self.shell.line_starting("@up", limit).is_none() {
            panic!("no shell within {limit:?}\n{}", self.console_end());
        }
    }

    /// Runs a line in the machine's shell; `None` when there is no answer within `limit`, and then none can be asked for again.
    pub(crate) fn ask(&mut self, line: &str, limit: Duration) -> Option<Output> {
        self.shell.ask(line, limit)
    }

    /// Runs a line and gives away each line of its answer as it comes. Its exit code; `None` when it has not ended at `end`, or the
    /// machine is gone.
    pub(crate) fn listen(
        &mut self,
        line: &str,
        end: Instant,
        each: impl FnMut(&str),
    ) -> Option<i32> {
        self.shell.listen(line, end, each)
    }

    /// Runs a line and expects an answer.
    ///
    /// # Panics
    /// When there is none within a minute, with the end of the console.
    pub(crate) fn run(&mut self, line: &str) -> Output {
        match self.ask(line, Duration::from_secs(60)) {
            Some(output) => output,
            None => panic!("no answer to {line:?}\n{}", self.console_end()),
        }
    }

    /// Runs a line that must succeed.
    ///
    /// # Panics
    /// When it does not.
    pub(crate) fn must(&mut self, line: &str) -> String {
        let output = self.run(line);
        assert_eq!(
            output.code,
            0,
            "{line}: {}\n{}",
            output.text,
            self.console_end()
        );
        output.text
    }

    /// Asks until there is an answer.
    ///
    /// # Panics
    /// After `limit`, with the end of the console.
    pub(crate) fn wait<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut ask: impl FnMut(&mut Self) -> Option<T>,
    ) -> T {
        let end = Instant::now() + limit;
        loop {
            if let Some(found) = ask(self) {
                return found;
            }
            if Instant::now() > end {
                let status = self.run("coxctl --json status").text;
                panic!(
                    "not within {limit:?}: {what}\nstatus: {status}\n{}",
                    self.console_end()
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until the fuse has blown, at most until `end`.
    pub(crate) fn wait_for_cut(&mut self, end: Instant) {
        // The shell's port ends with QEMU.
        while self.shell.line(end).is_some() {}
    }

    /// The power goes, now.
    pub(crate) fn cut(self, moments: &mut Moments) -> (Disk, Cut) {
        self.cut_and_hear(moments, |_| {})
    }

    /// The power goes, now; what the machine had said before that and nobody has heard yet is given away.
    pub(crate) fn cut_and_hear(
        mut self,
        moments: &mut Moments,
        mut each: impl FnMut(&str),
    ) -> (Disk, Cut) {
        let mut disk = self.end().expect("the disk's thread ends with QEMU");
        let end = Instant::now() + Duration::from_secs(5);
        while let Some(line) = self.shell.line(end) {
            each(&line);
        }
        let cut = disk.cut(moments);
        (disk, cut)
    }

    /// Waits until it has switched itself off (or asked for a restart, which we answer by switching it on again).
    ///
    /// # Panics
    /// When it has not within `limit`.
    pub(crate) fn wait_for_end(mut self, limit: Duration) -> Disk {
        let end = Instant::now() + limit;
        while !self.disk.as_ref().is_some_and(JoinHandle::is_finished) {
            assert!(
                Instant::now() < end,
                "it still runs after {limit:?}\n{}",
                self.console_end()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut disk = self.end().expect("the disk's thread ends with QEMU");
        disk.settle();
        disk
    }

    /// Everything that it wrote on its console since it was switched on.
    pub(crate) fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.console).unwrap_or_default()).into_owned()
    }

    /// The last lines that it wrote on its console.
    pub(crate) fn console_end(&self) -> String {
        acceptance::log_end(&self.console, 80)
    }

    /// Kills QEMU, waits until the disk's thread has seen its end, and only then reaps it: the thread may still want to kill it.
    fn end(&mut self) -> Option<Disk> {
        // It may have ended by itself, and then there is nothing to kill.
        self.qemu.kill().ok();
        let disk = self.disk.take().and_then(|disk| disk.join().ok());
        self.qemu.wait().expect("our own child can be waited for");
        disk
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.end();
    }
}
