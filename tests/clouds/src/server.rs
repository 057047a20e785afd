//! A server that somebody else wrote, as a process of ours: on a free port of 127.0.0.1, in a folder of its own, ended with this value.

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use acceptance::log_end;

use crate::call;

/// A running server.
#[derive(Debug)]
pub struct Server {
    process: Child,
    folder: tempfile::TempDir,
    /// `http://127.0.0.1:port`.
    pub url: String,
}

impl Server {
    /// Starts the command for this folder and this port, and waits until `path` is answered.
    ///
    /// # Panics
    /// When it cannot be started, ends, or does not answer within `patience`.
    pub fn start(
        name: &str,
        path: &str,
        patience: Duration,
        command: impl FnOnce(&Path, u16) -> Command,
    ) -> Self {
        let folder = tempfile::Builder::new()
            .prefix(&format!("cx-{name}-"))
            .tempdir()
            .expect("a temporary folder");
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let log = File::create(folder.path().join("log")).expect("a log file");
        let errors = log.try_clone().expect("a second handle");
        let mut command = command(folder.path(), port);
        let started = command
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn();
        let mut server = Self {
            process: started.unwrap_or_else(|error| panic!("{command:?}: {error}")),
            folder,
            url: format!("http://127.0.0.1:{port}"),
        };
        let end = std::time::Instant::now() + patience;
        while call::call(&server.url, "GET", path, &[], b"").is_err() {
            if let Ok(Some(status)) = server.process.try_wait() {
                panic!("{name} ended ({status}):\n{}", server.log());
            }
            let in_time = std::time::Instant::now() < end;
            assert!(in_time, "{name} does not answer:\n{}", server.log());
            std::thread::sleep(Duration::from_millis(500));
        }
        server
    }

    /// The end of what it wrote.
    pub fn log(&self) -> String {
        log_end(&self.folder.path().join("log"), 30)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It keeps nothing that matters.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
