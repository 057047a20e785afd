//! The smallest clouds: one offer in a file and what is reported into another one; or both at a server. And the client as a process of
//! its own, which is this test binary started again.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use http::Method;
use link::Agent;
use link::cloud::{Cloud, CloudError, News, Polled, Reported, Situation};
use link::config::{Config, Source};
use link::deployment::Report;
use link::offer::{Artifact, Credentials, Hashes, Link, Offer};
use link::web::{Address, Call, Web};
use serde_json::{Value, json};

use crate::dying::{self, Dying};

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
        Some(parse(&text, None))
    }
}

fn parse(text: &str, credentials: Option<&Credentials>) -> Offer {
    let offer: Value = serde_json::from_str(text).expect("the test wrote it");
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
        links: vec![Link {
            url: text(&artifact["url"]),
            credentials: credentials.cloned(),
        }],
    });
    let id = text(&offer["id"]).parse().expect("an id");
    let mut offer = Offer::new(id, artifacts.collect());
    offer.title = Some("a test".to_owned());
    offer
}

/// What is offered, as text.
pub(crate) fn offer_text(id: &str, files: &[(String, String, u64, String)]) -> String {
    let artifacts: Vec<Value> = files
        .iter()
        .map(|(name, url, bytes, sha256)| {
            json!({"name": name, "url": url, "bytes": bytes, "sha256": sha256})
        })
        .collect();
    json!({"id": id, "artifacts": artifacts}).to_string()
}

/// The secret of the client; only its own server may see it.
pub(crate) const TOKEN: &str = "targettoken s3cret";

/// A cloud behind HTTP: `GET /offer`, `POST /reports`.
struct Wire {
    at: String,
    web: Option<Web>,
}

impl Wire {
    async fn call(&self, call: Call) -> Result<link::web::Answer, CloudError> {
        let call = call.credentials(Some(Credentials::authorization(TOKEN)));
        let web = self.web.as_ref().expect("it was configured");
        let answer = web.call(&call, 64 << 10).await;
        let answer = answer.map_err(|error| CloudError::Unreachable {
            reason: error.whole(),
            retry_after: None,
        })?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        Err(CloudError::BadAnswer {
            reason: answer.status.to_string(),
        })
    }

    fn address(&self, path: &str) -> Address {
        Address::parse(&format!("{}{path}", self.at)).expect("the test's own server")
    }
}

impl Cloud for Wire {
    fn configure(&mut self, _: &Config, web: &Web) -> Result<(), String> {
        self.web = Some(web.clone());
        Ok(())
    }

    async fn poll(&mut self, _: &Situation) -> Result<Polled, CloudError> {
        dying::point("before:poll");
        let answer = self
            .call(Call::new(Method::GET, self.address("/offer")))
            .await?;
        dying::point("after:poll");
        let news = match std::str::from_utf8(&answer.body) {
            Ok("") => News::Nothing,
            Ok(text) if text.starts_with('{') => {
                let credentials = Credentials::authorization(TOKEN);
                News::Offer(Box::new(parse(text, Some(&credentials))))
            }
            Ok(_) | Err(_) => {
                return Err(CloudError::BadAnswer {
                    reason: "this is no offer".to_owned(),
                });
            }
        };
        Ok(Polled {
            news,
            interval: None,
        })
    }

    async fn report(&mut self, report: &Report) -> Result<Reported, CloudError> {
        let told = json!({
            "number": report.number,
            "deployment": report.deployment.as_str(),
            "final": report.is_final(),
            "text": report.text(),
            "news": report.news,
        });
        let kind = told["news"]["kind"].as_str().unwrap_or_default().to_owned();
        dying::point(&format!("before:report:{kind}"));
        let call = Call::new(Method::POST, self.address("/reports")).json(&told);
        self.call(call).await?;
        dying::point(&format!("after:report:{kind}"));
        Ok(Reported::Taken)
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
        let text = offer_text(id, files);
        std::fs::write(self.folder.join("offer.json"), text).expect("the folder is the test's");
    }

    /// The client as a process of its own.
    pub(crate) fn start(&self, settings: &[(&str, &str)]) -> Child {
        self.command(settings)
            .spawn()
            .expect("this test can be started again")
    }

    /// The client with the cloud at a server; ended when it is dropped. `environment` is added to what it has.
    pub(crate) fn start_at(
        &self,
        server: &str,
        settings: &[(&str, &str)],
        environment: &[(&str, &str)],
    ) -> Client {
        let mut command = self.command(settings);
        command.env("COXSWAIN_TEST_CLOUD", server);
        command.envs(environment.iter().copied());
        Client(command.spawn().expect("this test can be started again"))
    }

    fn command(&self, settings: &[(&str, &str)]) -> Command {
        let settings: Vec<String> = settings
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.join("log"))
            .expect("the folder is the test's");
        let mut command = Command::new(std::env::current_exe().expect("this test is a file"));
        command
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
            .stderr(log);
        command
    }

    /// What clients of this place have logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

/// A client that runs; killed (SIGKILL) when it is dropped.
pub(crate) struct Client(pub(crate) Child);

impl Drop for Client {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.0.kill().ok();
        self.0.wait().ok();
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
        if let Ok(at) = std::env::var("COXSWAIN_TEST_CLOUD") {
            let log = tracing_subscriber::fmt().with_writer(std::io::stderr);
            log.with_ansi(false).init();
            let agent = Agent::open(config, Dying(device)).expect("settings of the test");
            let cloud = Wire { at, web: None };
            return agent.run(cloud, std::future::pending()).await;
        }
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
