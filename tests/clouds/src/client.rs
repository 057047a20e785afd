//! The client under test as a process: `coxswain-hawkbit` with short times, killed when it is dropped.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use acceptance::image::binary;
use acceptance::log_end;

use crate::management::Access;

/// A running client.
#[derive(Debug)]
pub struct Client {
    process: Option<Child>,
    arguments: Vec<String>,
    folder: tempfile::TempDir,
}

impl Client {
    /// Starts it for the device behind this socket.
    ///
    /// # Panics
    /// When the binary cannot be started.
    pub fn start(socket: &Path, access: &Access, settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("cx-client-")
            .tempdir()
            .expect("a temporary folder");
        let mut all: std::collections::BTreeMap<&str, String> = [
            ("socket", socket.display().to_string()),
            ("folder", folder.path().join("record").display().to_string()),
            ("server", access.url.clone()),
            ("tenant", access.tenant.clone()),
            ("controller-id", access.controller.clone()),
            ("target-token", access.token.clone()),
            ("poll-interval", "1s".to_owned()),
            ("poll-min", "1s".to_owned()),
            ("poll-max", "2s".to_owned()),
            ("poll-busy", "1s".to_owned()),
            ("metadata-interval", "1s".to_owned()),
            ("back-off-max", "2s".to_owned()),
            ("log-level", "debug".to_owned()),
            ("proxy", "none".to_owned()),
        ]
        .into();
        for (name, value) in settings {
            all.insert(name, (*value).to_owned());
        }
        let arguments = all
            .into_iter()
            .map(|(name, value)| format!("--{name}={value}"))
            .collect();
        let mut client = Self {
            process: None,
            arguments,
            folder,
        };
        client.spawn();
        client
    }

    /// Starts the process again.
    ///
    /// # Panics
    /// When the binary cannot be started.
    pub fn spawn(&mut self) {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_file())
            .expect("a log file");
        let child = Command::new(binary("coxswain-hawkbit"))
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.process = Some(child.expect("the client starts"));
    }

    /// Kills it at once, as a power cut would.
    ///
    /// # Panics
    /// When it was not running.
    pub fn kill(&mut self) {
        let mut child = self.process.take().expect("it was running");
        child.kill().expect("our own child can be killed");
        child.wait().expect("our own child can be waited for");
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// The end of its log.
    pub fn log_end(&self) -> String {
        log_end(&self.log_file(), 40)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.kill();
        }
        if std::thread::panicking() {
            eprintln!("--- end of the client's log\n{}", self.log_end());
        }
    }
}
