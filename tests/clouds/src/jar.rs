//! A real hawkBit server from a jar that somebody has: started on 127.0.0.1 with its embedded database, ended with this value.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::call;

/// A running server.
#[derive(Debug)]
pub struct Jar {
    process: Child,
    folder: tempfile::TempDir,
    /// `http://127.0.0.1:port`.
    pub url: String,
}

impl Jar {
    /// Starts `java -jar` and waits until it answers.
    ///
    /// # Panics
    /// When there is no java, or no answer within four minutes.
    pub fn start(jar: &Path) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("cx-hawkbit-")
            .tempdir()
            .expect("a temporary folder");
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let log = std::fs::File::create(folder.path().join("log")).expect("a log file");
        let errors = log.try_clone().expect("a second handle");
        let ddi = "--hawkbit.server.ddi.security.authentication";
        let process = Command::new("java")
            .arg("-Xmx768m")
            .arg("-jar")
            .arg(std::fs::canonicalize(jar).expect("the jar is there"))
            .arg("--server.address=127.0.0.1")
            .arg(format!("--server.port={port}"))
            .arg("--hawkbit.dmf.rabbitmq.enabled=false")
            .arg("--hawkbit.server.security.dos.filter.enabled=false")
            .arg(format!("{ddi}.targettoken.enabled=true"))
            .arg(format!("{ddi}.gatewaytoken.enabled=true"))
            .arg(format!("{ddi}.gatewaytoken.key=gwsecret"))
            .arg("--hawkbit.controller.minPollingTime=00:00:01")
            .arg("--server.forward-headers-strategy=NATIVE")
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .expect("java is installed");
        let url = format!("http://127.0.0.1:{port}");
        let mut jar = Self {
            process,
            folder,
            url,
        };
        for _ in 0..480 {
            if call::call(&jar.url, "HEAD", "/", &[], b"").is_ok() {
                return jar;
            }
            if let Ok(Some(status)) = jar.process.try_wait() {
                panic!("the server ended ({status}):\n{}", jar.log());
            }
            std::thread::sleep(std::time::Duration::from_millis(500));
        }
        panic!("the server does not answer:\n{}", jar.log());
    }

    fn log(&self) -> String {
        let text = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Jar {
    fn drop(&mut self) {
        // It keeps nothing that matters.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
