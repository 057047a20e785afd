//! A machine in QEMU with the image's real boot chain, driven through the doors that a person has: `rootfs/run`, the control socket, the
//! console. Killed when it is dropped.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use acceptance::http::Socket;
use acceptance::image::binary;
use acceptance::power::disk::{Cut, Disk, Fuse, serve};
use acceptance::power::moments::Moments;
use rustix::process::Pid;
use serde_json::Value;

use crate::built::{Chain, top};

/// A boot takes 20 s on an idle machine, and CI's is not idle; a sick revision needs four.
pub(crate) const LIMIT: Duration = Duration::from_secs(600);

/// A machine that runs, or has just been switched on.
#[derive(Debug)]
pub(crate) struct Machine {
    qemu: Child,
    console: PathBuf,
    started: Instant,
    /// Its control socket.
    pub(crate) socket: Socket,
    socket_path: PathBuf,
    /// Serves its disk, if that is one that loses what was not flushed.
    disk: Option<JoinHandle<Disk>>,
    fuse: Fuse,
}

impl Machine {
    /// Switches a machine with this disk on.
    pub(crate) fn on(chain: Chain, disk: &Path) -> Self {
        Self::with(chain, disk, "--disk", disk)
    }

    /// Switches a machine on whose disk loses what was not flushed.
    pub(crate) fn on_volatile(chain: Chain, disk: Disk) -> Self {
        let place = disk.path().to_owned();
        let served = place.with_extension("nbd");
        fs::remove_file(&served).ok();
        let listener = UnixListener::bind(&served).expect("a socket for the disk");
        listener.set_nonblocking(true).expect("a socket of our own");
        let mut machine = Self::with(chain, &place, "--nbd", &served);
        let (stream, _) = machine.wait("QEMU asks for its disk", |_| listener.accept().ok());
        stream.set_nonblocking(false).expect("a socket of our own");
        // `rootfs/run` has become QEMU.
        let qemu = Pid::from_child(&machine.qemu);
        machine.disk = Some(serve(stream, disk, qemu, machine.fuse.clone()));
        machine
    }

    fn with(chain: Chain, place: &Path, option: &str, disk: &Path) -> Self {
        let console = place.with_extension("console");
        let socket_path = place.with_extension("sock");
        let program = binary("bridge");
        let qemu = Command::new(top().join("rootfs/run"))
            .arg(chain.arch())
            .args([option.as_ref(), disk])
            .args(["--console".as_ref(), console.as_path()])
            .args(["--socket".as_ref(), socket_path.as_path()])
            .args(chain.machine())
            .env(
                "COXSWAIN_BIN_DIR",
                program.parent().expect("it is in a folder"),
            )
            .stdin(Stdio::null())
            .spawn()
            .expect("rootfs/run starts");
        Self {
            qemu,
            console,
            started: Instant::now(),
            socket: Socket::new(&socket_path),
            socket_path,
            disk: None,
            fuse: Fuse::default(),
        }
    }

    /// Time since it was switched on.
    pub(crate) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// What it wrote on its console so far, over all boots since it was switched on.
    pub(crate) fn console(&self) -> String {
        let bytes = fs::read(&self.console).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\r', "")
    }

    /// The end of that.
    pub(crate) fn console_end(&self) -> String {
        let text = self.console();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(80)..].join("\n")
    }

    /// How many kernels it has started, by the revision that each was told.
    pub(crate) fn boots(&self, revision: &str) -> usize {
        let word = format!("coxswain.booted={revision}");
        let text = self.console();
        let lines = text
            .lines()
            .filter(|line| line.contains("Kernel command line:"));
        lines
            .filter(|line| line.split_ascii_whitespace().any(|found| found == word))
            .count()
    }

    /// `GET` of a resource; `None` while the machine is not up.
    pub(crate) fn get(&self, target: &str) -> Option<Value> {
        let answer = self.socket.get(target).ok()?;
        (answer.status == 200).then(|| answer.json())
    }

    /// Asks until there is an answer.
    ///
    /// # Panics
    /// After [`LIMIT`], or when QEMU has ended; with the end of the console.
    pub(crate) fn wait<T>(&mut self, what: &str, mut ask: impl FnMut(&Self) -> Option<T>) -> T {
        let end = Instant::now() + LIMIT;
        loop {
            if let Some(found) = ask(self) {
                return found;
            }
            let ended = self.qemu.try_wait().expect("our own child can be asked");
            if ended.is_some() || Instant::now() > end {
                panic!(
                    "not within {LIMIT:?}: {what} (QEMU: {ended:?})\nstatus: {:?}\n{}",
                    self.get("/status").map(|status| status.to_string()),
                    self.console_end()
                );
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Waits until this revision is committed and runs, with every container good, below this revision's kernel.
    pub(crate) fn wait_until_good(&mut self, revision: &str, kernel: &str) {
        self.wait(
            &format!("{revision} runs, below the kernel of {kernel}"),
            |machine| {
                let status = machine.get("/status")?;
                let mut containers = status["containers"].as_array()?.iter();
                let is_good = status["running"] == revision
                    && status["committed"] == revision
                    && status["trial"].is_null()
                    && containers.all(|one| one["good"] == true);
                (is_good && machine.booted()? == kernel).then_some(())
            },
        );
    }

    /// The revision whose kernel runs.
    pub(crate) fn booted(&self) -> Option<String> {
        let settings = self.get("/config2")?;
        let settings = settings.as_array()?.clone();
        let mut found = settings
            .iter()
            .filter(|one| one["key"] == "coxswain.booted");
        Some(found.next()?["value"].as_str()?.to_owned())
    }

    /// Waits until the revision's progress is final, and returns status and message.
    pub(crate) fn wait_final(&mut self, revision: &str) -> (String, String) {
        self.wait(&format!("final progress of {revision}"), |machine| {
            let progress = machine.get(&format!("/steps/{revision}/progress"))?;
            let status = progress["status"].as_str()?;
            let message = progress["status-msg"].as_str()?;
            matches!(status, "DONE" | "ERROR" | "WONTGO")
                .then(|| (status.to_owned(), message.to_owned()))
        })
    }

    /// `coxctl` with these words; what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub(crate) fn coxctl(&self, words: &[&str]) -> String {
        let said = self.try_coxctl(words);
        said.unwrap_or_else(|why| panic!("coxctl {words:?}: {why}\n{}", self.console_end()))
    }

    /// The same on a machine that may go away meanwhile.
    fn try_coxctl(&self, words: &[&str]) -> Result<String, String> {
        let output = Command::new(binary("coxctl"))
            .arg("--socket")
            .arg(&self.socket_path)
            .args(words)
            .output()
            .expect("coxctl starts");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(said);
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        Err(format!("{said}{errors}"))
    }

    /// Installs a working folder under this name and runs it.
    pub(crate) fn run(&self, folder: &Path, name: &str) {
        let said = self.try_run(folder, name);
        said.unwrap_or_else(|why| panic!("{name}: {why}\n{}", self.console_end()));
    }

    /// The same on a machine that may go away meanwhile.
    pub(crate) fn try_run(&self, folder: &Path, name: &str) -> Result<(), String> {
        let folder = folder.to_str().expect("a temporary folder's path is text");
        self.try_coxctl(&["install", folder, "--name", name, "--run"])
            .map(drop)
    }

    /// What cuts its power at a flush of its disk.
    pub(crate) fn fuse(&self) -> &Fuse {
        &self.fuse
    }

    /// Whether the fuse has blown, or QEMU has ended by itself.
    pub(crate) fn is_off(&self) -> bool {
        self.disk.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// The power goes, unless the fuse has blown before; what became of the disk.
    pub(crate) fn cut_volatile(mut self, moments: &mut Moments) -> (Disk, Cut) {
        let mut disk = self
            .end()
            .expect("it has such a disk, and its thread ends with QEMU");
        let cut = disk.cut(moments);
        (disk, cut)
    }

    /// The same when it has switched itself off in order: the disk does so too.
    pub(crate) fn wait_for_end_volatile(mut self) -> Disk {
        let end = Instant::now() + LIMIT;
        while !self.is_off() {
            assert!(
                Instant::now() < end,
                "it still runs\n{}",
                self.console_end()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        let mut disk = self
            .end()
            .expect("it has such a disk, and its thread ends with QEMU");
        disk.settle();
        disk
    }

    /// Waits until it has switched itself off.
    ///
    /// # Panics
    /// When it has not within [`LIMIT`].
    pub(crate) fn wait_for_end(mut self) {
        let end = Instant::now() + LIMIT;
        while self
            .qemu
            .try_wait()
            .expect("our own child can be asked")
            .is_none()
        {
            assert!(
                Instant::now() < end,
                "it still runs\n{}",
                self.console_end()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The power goes, now.
    pub(crate) fn cut(mut self) {
        self.end();
    }

    fn end(&mut self) -> Option<Disk> {
        // `rootfs/run` has become QEMU. It may have ended by itself.
        self.qemu.kill().ok();
        // It may still want to kill QEMU, which must not have been reaped then.
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
