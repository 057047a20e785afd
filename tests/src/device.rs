//! A device of a test's own: the real `coxswain` with a private containerd, in a folder of its own, gone when it is dropped.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::http::{Answer, Socket};
use crate::image::{Image, binary};
use crate::manifest::Manifest;

/// A device under test.
#[derive(Debug)]
pub struct Device {
    folder: tempfile::TempDir,
    options: Vec<(String, String)>,
    process: Option<Child>,
    /// Its control socket.
    pub socket: Socket,
}

/// Why a test cannot run here, if it cannot.
pub fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("it needs root".to_owned());
    }
    let absent = ["containerd", "runc", "mksquashfs"].iter().find(|tool| {
        !["/usr/bin", "/usr/sbin", "/bin", "/sbin"]
            .iter()
            .any(|dir| Path::new(dir).join(tool).exists())
    });
    absent.map(|tool| format!("{tool} is not installed"))
}

/// Ends the test with a loud `SKIPPED` when real containers cannot run here. In CI that is a failure.
#[macro_export]
macro_rules! needs_containers {
    () => {
        if let Some(why) = $crate::device::missing() {
            assert!(
                std::env::var_os("CI").is_none(),
                "CI must run this test, but {why}"
            );
            eprintln!("SKIPPED {}: {why}", module_path!());
            return;
        }
    };
}

impl Device {
    /// Starts a device with short times: commit delay 1 s.
    ///
    /// # Panics
    /// When it does not answer within 30 s.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a device with these settings.
    ///
    /// # Panics
    /// When it does not answer within 30 s.
    pub fn start_with(settings: &[(&str, &str)]) -> Self {
        Self::start_on(settings, |_| {})
    }

    /// Starts a device on a storage that somebody else has filled: `fill` is given its folder, which is there and empty.
    ///
    /// # Panics
    /// When it does not answer within 30 s.
    pub fn start_on(settings: &[(&str, &str)], fill: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("cx-")
            .tempdir()
            .expect("a temporary folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let mut options: BTreeMap<String, String> = [
            ("storage", path("storage")),
            ("run-dir", path("run")),
            ("socket", path("run/control.sock")),
            ("commit-delay", "1s".to_owned()),
            ("log-level", "debug".to_owned()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        options.extend(
            settings
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        let socket = Socket::new(Path::new(&options["socket"]));
        let mut device = Self {
            folder,
            options: options.into_iter().collect(),
            process: None,
            socket,
        };
        fs::create_dir(device.storage()).expect("a folder");
        fill(&device.storage());
        device.spawn();
        device.wait_until_it_answers();
        device
    }

    /// The storage tree.
    pub fn storage(&self) -> PathBuf {
        self.folder.path().join("storage")
    }

    /// The folder for what does not outlive a boot.
    pub fn run_dir(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// Process id of `coxswain`.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Starts the process, without waiting.
    ///
    /// # Panics
    /// When the binary cannot be started.
    pub fn spawn(&mut self) {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.path().join("coxswain.log"))
            .expect("a log file");
        let errors = log.try_clone().expect("a second handle of the log");
        let mut command = Command::new(binary("coxswain"));
        for (name, value) in &self.options {
            command.arg(format!("--{name}")).arg(value);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn();
        self.process = Some(child.expect("coxswain starts"));
    }

    /// Waits until the socket answers.
    ///
    /// # Panics
    /// After 30 s, with the end of the log.
    pub fn wait_until_it_answers(&mut self) {
        let socket = self.socket.clone();
        self.wait("the socket answers", Duration::from_secs(30), || {
            socket
                .get("/version")
                .is_ok_and(|answer| answer.status == 200)
                .then_some(())
        });
    }

    /// Asks again and again until there is an answer.
    ///
    /// # Panics
    /// After `limit`, with the end of the log and the status.
    pub fn wait<T>(&self, what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
        let end = Instant::now() + limit;
        loop {
            if let Some(found) = ask() {
                return found;
            }
            if Instant::now() > end {
                let status = self.socket.get("/status").map(|answer| answer.text());
                panic!(
                    "not within {limit:?}: {what}\nstatus: {status:?}\n{}",
                    self.log_end()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The last lines of `coxswain`'s own log.
    pub fn log_end(&self) -> String {
        crate::log_end(&self.folder.path().join("coxswain.log"), 60)
    }

    /// Kills `coxswain` at once (SIGKILL) and reaps it. Containers and containerd go on.
    ///
    /// # Panics
    /// When it was not running.
    pub fn kill(&mut self) {
        let mut child = self.process.take().expect("it was running");
        child.kill().expect("our own child can be killed");
        child.wait().expect("our own child can be waited for");
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When it is not running.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = self
            .pid()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.expect("it is running"), signal)
            .expect("our own child takes signals");
    }

    /// Waits until `coxswain` has ended by itself.
    ///
    /// # Panics
    /// When it has not within `limit`.
    pub fn wait_for_end(&mut self, limit: Duration) -> ExitStatus {
        let end = Instant::now() + limit;
        let mut child = self.process.take().expect("it was running");
        loop {
            if let Some(status) = child.try_wait().expect("our own child can be waited for") {
                return status;
            }
            if Instant::now() > end {
                self.process = Some(child);
                panic!(
                    "coxswain has not ended within {limit:?}\n{}",
                    self.log_end()
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Unmounts the tmpfs of volumes with persistence boot, as a reboot does: it outlives the orchestrator on purpose.
    pub fn forget_boot_volumes(&self) {
        let boot = self.run_dir().join("boot");
        // It is not mounted when no container was ever started.
        rustix::mount::unmount(&boot, rustix::mount::UnmountFlags::empty()).ok();
    }

    /// Process id of the private containerd, by its command line.
    pub fn containerd_pid(&self) -> Option<u32> {
        let config = self.run_dir().join("containerd/config.toml");
        let mut found = processes().filter(|pid| {
            let arguments = command_line(*pid);
            let mut words = arguments.split(|byte| *byte == 0);
            words
                .next()
                .is_some_and(|program| program.ends_with(b"containerd"))
                && words.any(|word| word == config.as_os_str().as_encoded_bytes())
        });
        found.next()
    }

    fn has_ended(&mut self) -> bool {
        let running = |child: &mut Child| child.try_wait().is_ok_and(|status| status.is_none());
        !self.process.as_mut().is_some_and(running)
    }

    /// Mounts in the device's folder.
    fn mounts(&self) -> Vec<PathBuf> {
        let folder = self.folder.path();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        let ours = points.map(PathBuf::from);
        ours.filter(|point| point.starts_with(folder)).collect()
    }

    /// containerd, its shims and the first processes of containers, as far as they still run.
    fn helpers(&self) -> Vec<u32> {
        let folder = self.folder.path().as_os_str().as_encoded_bytes();
        let is_helper = |pid: &u32| {
            let arguments = command_line(*pid);
            let program = arguments.split(|byte| *byte == 0).next();
            program.is_some_and(|program| {
                program.ends_with(b"containerd") || program.ends_with(b"containerd-shim-runc-v2")
            }) && arguments.windows(folder.len()).any(|part| part == folder)
        };
        let mut found: Vec<u32> = processes().filter(is_helper).collect();
        let containers = fs::read_dir(self.run_dir().join("runc/coxswain"));
        for container in containers.into_iter().flatten().flatten() {
            let text = fs::read(container.path().join("state.json")).unwrap_or_default();
            let runc: Value = serde_json::from_slice(&text).unwrap_or_default();
            let pid = runc["init_process_pid"].as_u64();
            let pid = pid.and_then(|pid| u32::try_from(pid).ok());
            // A number that another process has by now is none of ours.
            let began = pid.and_then(start_ticks);
            found.extend(pid.filter(|_| began == runc["init_process_start"].as_u64()));
        }
        found
    }

    /// Ends what a device has left, so that no test harms those after it.
    fn clear_away(&self) {
        for pid in self.helpers() {
            let pid = i32::try_from(pid)
                .ok()
                .and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid {
                // It may have ended meanwhile.
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
            }
        }
        for mount in self.mounts().iter().rev() {
            rustix::mount::unmount(mount, rustix::mount::UnmountFlags::DETACH).ok();
        }
    }

    /// PUT of an object.
    ///
    /// # Panics
    /// Unless it is answered 200.
    pub fn put_object(&self, image: &Image) {
        let answer = self
            .socket
            .put(&format!("/objects/{}", image.sha256), &image.bytes)
            .expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// PUT of a revision.
    ///
    /// # Panics
    /// Unless it is answered 200.
    pub fn put_revision(&self, revision: &str, manifest: &Manifest) {
        let answer = self
            .socket
            .put(&format!("/steps/{revision}"), manifest.text().as_bytes())
            .expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// A command.
    ///
    /// # Panics
    /// When there is no answer.
    pub fn command(&self, op: &str, payload: &str) -> Answer {
        let body = serde_json::json!({"op": op, "payload": payload}).to_string();
        self.socket.post("/commands", &body).expect("an answer")
    }

    /// LOCAL_RUN.
    ///
    /// # Panics
    /// Unless it is answered 200.
    pub fn run(&self, revision: &str) {
        let answer = self.command("LOCAL_RUN", revision);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// Progress of a revision: status and message.
    pub fn progress(&self, revision: &str) -> Option<(String, String)> {
        let answer = self
            .socket
            .get(&format!("/steps/{revision}/progress"))
            .ok()?;
        let progress: Value = serde_json::from_slice(&answer.body).ok()?;
        Some((
            progress["status"].as_str()?.to_owned(),
            progress["status-msg"].as_str()?.to_owned(),
        ))
    }

    /// Waits until a revision's progress is one of DONE, ERROR, WONTGO, and returns it.
    ///
    /// # Panics
    /// After a minute.
    pub fn wait_final(&self, revision: &str) -> (String, String) {
        self.wait(
            &format!("final progress of {revision}"),
            Duration::from_secs(60),
            || {
                self.progress(revision)
                    .filter(|(status, _)| matches!(status.as_str(), "DONE" | "ERROR" | "WONTGO"))
            },
        )
    }

    /// Installs, runs and waits for the end of an update.
    ///
    /// # Panics
    /// When a request is refused, or after a minute.
    pub fn update(
        &self,
        revision: &str,
        manifest: &Manifest,
        images: &[&Image],
    ) -> (String, String) {
        for image in images {
            self.put_object(image);
        }
        self.put_revision(revision, manifest);
        self.run(revision);
        self.wait_final(revision)
    }

    /// The container's entry of GET /status.
    pub fn container(&self, name: &str) -> Option<Value> {
        let status = self.socket.get("/status").ok()?.json();
        status["containers"]
            .as_array()?
            .iter()
            .find(|container| container["name"] == name)
            .cloned()
    }

    /// First process of a container.
    pub fn container_pid(&self, name: &str) -> Option<u32> {
        self.container(name)?["pid"]
            .as_u64()
            .and_then(|pid| u32::try_from(pid).ok())
    }

    /// Runs a command inside a container that runs, and waits for its end.
    ///
    /// # Panics
    /// When the container does not run, or runc cannot be started.
    pub fn inside(&self, name: &str, command: &[&str]) -> std::process::Output {
        let root = self.run_dir().join("runc/coxswain");
        let entries = fs::read_dir(&root).expect("runc knows containers");
        let id = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .find(|id| {
                id.rsplit_once('-')
                    .is_some_and(|(container, _)| container == name)
            });
        Command::new("runc")
            .arg("--root")
            .arg(&root)
            .arg("exec")
            .arg(id.expect("the container runs"))
            .args(command)
            .stdin(Stdio::null())
            .output()
            .expect("runc is installed")
    }

    /// Ends the orchestrator with its containers, forgets what a reboot forgets, and starts it again.
    ///
    /// # Panics
    /// When it does not end, or does not answer again.
    pub fn reboot(&mut self) {
        self.signal(rustix::process::Signal::INT);
        self.wait_for_end(Duration::from_secs(40));
        self.forget_boot_volumes();
        self.spawn();
        self.wait_until_it_answers();
    }

    /// The running revision.
    pub fn running(&self) -> Option<String> {
        let status = self.socket.get("/status").ok()?.json();
        status["running"].as_str().map(str::to_owned)
    }
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn command_line(pid: u32) -> Vec<u8> {
    fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

/// When a process began, in ticks since the machine did; `None` when there is none.
fn start_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

impl Drop for Device {
    fn drop(&mut self) {
        // Only a coxswain that runs can end its containers: one that was killed, or fell over, is started again for that.
        if self.has_ended() {
            self.spawn();
            let end = Instant::now() + Duration::from_secs(20);
            while self.socket.get("/version").is_err() && !self.has_ended() && Instant::now() < end
            {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        if !self.has_ended() {
            self.signal(rustix::process::Signal::INT);
        }
        let end = Instant::now() + Duration::from_secs(40);
        while Instant::now() < end && !self.has_ended() {
            std::thread::sleep(Duration::from_millis(20));
        }
        if std::thread::panicking() {
            eprintln!("--- end of coxswain.log\n{}", self.log_end());
        }
        if !self.has_ended() {
            eprintln!("coxswain did not end by SIGINT; killed");
            if let Some(mut child) = self.process.take() {
                drop(child.kill());
                drop(child.wait());
            }
        }
        self.forget_boot_volumes();
        let mounts = self.mounts();
        // A shim ends a moment after its container.
        let end = Instant::now() + Duration::from_secs(5);
        while !self.helpers().is_empty() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(50));
        }
        let helpers = self.helpers();
        if !helpers.is_empty() {
            eprintln!("the device left processes behind, now killed: {helpers:?}");
        }
        self.clear_away();
        if !mounts.is_empty() && !std::thread::panicking() {
            let log = self.log_end();
            panic!("the device left mounts behind: {mounts:?}\n{log}");
        }
    }
}
