//! The smallest cloud: one offer in a file, what is reported into another one. And the client as a process of its own, which is this
//! test binary started again.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use link::Agent;
use link::cloud::{Cloud, CloudError, News, Polled, Reported, Situation};
use link::config::{Config, Source};
use link::deployment::Report;
use link::offer::{Artifact, Hashes, Link, Offer};
use serde_json::{Value, json};

const FOLDER: &str = "COXSWAIN_TEST_CLIENT";

/// Where a client keeps its record, its offer and what it has told.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The folder.
    pub(crate) folder: PathBuf,
    /// The device's control socket.
    pub(crate) socket: PathBuf,
}

/// A cloud of files.
struct Files {
    folder: PathBuf,
}

impl Files {
    fn offer(&self) -> Option<Offer> {
        let text = std::fs::read_to_string(self.folder.join("offer.json")).ok()?;
        let offer: Value = serde_json::from_str(&text).expect("the test wrote it");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let artifacts = offer["artifacts"].as_array().expect("a list").iter();
        let artifacts = artifacts.map(|artifact| Artifact {
            module: "os".to_owned(),
            name: text(&artifact["name"]),
            bytes: artifact["bytes"].as_u64(),
            hashes: Hashes {
                sha256: artifact["sha256"]
                    .as_str()
                    .and_then(|hash| hash.parse().ok()),
                ..Hashes::default()
            },
            links: vec![Link::open(text(&artifact["url"]))],
        });
        let id = text(&offer["id"]).parse().expect("an id");
        Some(Offer::new(id, artifacts.collect()))
    }
}

impl Cloud for Files {
    async fn poll(&mut self, _: &Situation) -> Result<Polled, CloudError> {
        let cancel = std::fs::read_to_string(self.folder.join("cancel")).ok();
        let news = match (cancel, self.offer()) {
            _ if is_final(&self.folder) => News::Nothing,
            (Some(id), _) => News::Cancel(id.parse().expect("an id")),
            (None, Some(offer)) => News::Offer(Box::new(offer)),
            (None, None) => News::Nothing,
        };
        Ok(Polled {
            news,
            interval: None,
        })
    }

    async fn report(&mut self, report: &Report) -> Result<Reported, CloudError> {
        let line = json!({
            "number": report.number,
            "final": report.is_final(),
            "text": report.text(),
            "report": report,
        });
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.join("reports"))
            .expect("the folder is the test's");
        // One write: a process that is killed leaves a whole line or none.
        file.write_all(format!("{line}\n").as_bytes())
            .expect("there is space");
        Ok(Reported::Taken)
    }
}

fn is_final(folder: &Path) -> bool {
    reports(folder).iter().any(|report| report["final"] == true)
}

/// What was reported so far.
pub(crate) fn reports(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("reports")).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).expect("whole lines"))
        .collect()
}

/// What was told last.
pub(crate) fn last_word(folder: &Path) -> Option<Value> {
    reports(folder)
        .into_iter()
        .find(|report| report["final"] == true)
}

impl Place {
    /// Offers files: name, URL, length, SHA-256.
    pub(crate) fn offer(&self, id: &str, files: &[(String, String, u64, String)]) {
        let artifacts: Vec<Value> = files
            .iter()
            .map(|(name, url, bytes, sha256)| {
                json!({"name": name, "url": url, "bytes": bytes, "sha256": sha256})
            })
            .collect();
        let text = json!({"id": id, "artifacts": artifacts}).to_string();
        std::fs::write(self.folder.join("offer.json"), text).expect("the folder is the test's");
    }

    /// The client as a process of its own.
    pub(crate) fn start(&self, settings: &[(&str, &str)]) -> Child {
        let settings: Vec<String> = settings
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.join("log"))
            .expect("the folder is the test's");
        Command::new(std::env::current_exe().expect("this test is a file"))
            .args([
                "--exact",
                "cloud::the_client",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(FOLDER, &self.folder)
            .env("COXSWAIN_TEST_SOCKET", &self.socket)
            .env("COXSWAIN_TEST_SETTINGS", settings.join("\n"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("this test can be started again")
    }
}

/// Not a test by itself: the process that [`Place::start`] starts. Ends when the last word was told, and writes down its memory.
#[test]
fn the_client() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        return;
    };
    let mut config = Config::defaults("files", &[]);
    let socket = std::env::var("COXSWAIN_TEST_SOCKET").expect("it was set");
    let given = std::env::var("COXSWAIN_TEST_SETTINGS").unwrap_or_default();
    let kept = folder.join("record").display().to_string();
    let all = [
        ("folder", kept.as_str()),
        ("device-id", "device-1"),
        ("poll-interval", "1s"),
        ("poll-min", "1s"),
        ("poll-busy", "1s"),
        ("back-off-max", "1s"),
        ("proxy", "none"),
    ];
    let given = given.lines().filter_map(|line| line.split_once('='));
    for (name, value) in all.into_iter().chain(given) {
        config
            .set(name, value, Source::CommandLine)
            .expect("settings of the test");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a run time");
    runtime.block_on(async {
        let device = client::Client::new(socket, client::Timeouts::default())
            .and_then(|client| client.named("files"))
            .expect("a path of a socket");
        let agent = Agent::open(config, device).expect("settings of the test");
        let taken = agent.taken();
        let place = folder.clone();
        let ended = async move {
            while !is_final(&place) {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        };
        agent
            .run(
                Files {
                    folder: folder.clone(),
                },
                ended,
            )
            .await;
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.unwrap_or_default().trim().trim_end_matches(" kB");
        let figures = json!({
            "peak_kb": peak.parse::<u64>().unwrap_or(0),
            "taken": taken.load(std::sync::atomic::Ordering::Relaxed),
        });
        std::fs::write(folder.join("figures"), figures.to_string()).expect("the folder is there");
    });
}
