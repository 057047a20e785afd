//! A machine in QEMU with the image's real boot chain, driven through the doors that a person has: `rootfs/run`, the control socket, the
//! console. Killed when it is dropped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use acceptance::http::Socket;
use acceptance::image::binary;
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
}

impl Machine {
    /// Switches a machine with this disk on.
    pub(crate) fn on(chain: Chain, disk: &Path) -> Self {
        let console = disk.with_extension("console");
        let socket_path = disk.with_extension("sock");
        let program = binary("bridge");
        let qemu = Command::new(top().join("rootfs/run"))
            .arg(chain.arch())
            .args(["--disk".as_ref(), disk])
            .args(["--console".as_ref(), console.as_path()])
            .args(["--socket".as_ref(), socket_path.as_path()])
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
        let output = Command::new(binary("coxctl"))
            .arg("--socket")
            .arg(&self.socket_path)
            .args(words)
            .output()
            .expect("coxctl starts");
        assert!(
            output.status.success(),
            "coxctl {words:?}: {}{}\n{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            self.console_end()
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Installs a working folder under this name and runs it.
    pub(crate) fn run(&self, folder: &Path, name: &str) {
        let folder = folder.to_str().expect("a temporary folder's path is text");
        self.coxctl(&["install", folder, "--name", name, "--run"]);
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

    fn end(&mut self) {
        // `rootfs/run` has become QEMU. It may have ended by itself.
        self.qemu.kill().ok();
        self.qemu.wait().expect("our own child can be waited for");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.end();
    }
}
