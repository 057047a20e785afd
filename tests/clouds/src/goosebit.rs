//! gooseBit, an independent DDI server from PyPI: started on 127.0.0.1 from where `tests/python-tools goosebit` has put it, and its
//! management side. An action is named after its software there, and has no life of its own: what the operator sees is the device's.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use acceptance::http::Answer;
use acceptance::image::binary;
use serde_json::{Value, json};

use crate::call;
use crate::management::{Ability, Access, How, Management, Outcome, Seen};
use crate::server::Server;

/// Makes the tables, which the wheel does not do by itself, and serves on loopback only, which `python -m goosebit` does not.
const START: &str = r#"
import asyncio, sys, uvicorn
from tortoise import Tortoise
from goosebit.db.config import TORTOISE_CONF

async def tables():
    await Tortoise.init(config=TORTOISE_CONF)
    await Tortoise.generate_schemas()
    await Tortoise.close_connections()

asyncio.run(tables())
from goosebit import app
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
"#;

/// What the server keeps of a device's token.
const TOKEN_CHARS_MAX: usize = 32;

/// A running server, ended with this value.
#[derive(Debug)]
pub struct Goosebit {
    server: Server,
    authorization: String,
    published: AtomicU32,
}

/// Its Python, if it is installed.
pub fn python() -> Option<PathBuf> {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or("target".into());
    let python = checkout.join(target).join("goosebit/bin/python");
    python.exists().then_some(python)
}

impl Goosebit {
    /// Starts it and makes an operator.
    ///
    /// # Panics
    /// When it does not answer within two minutes.
    pub fn start(python: &Path) -> Self {
        let patience = Duration::from_secs(120);
        let server = Server::start("goosebit", "/login", patience, |folder, port| {
            let path = |name: &str| folder.join(name).display().to_string();
            let strict = r#"{"enable": true, "mode": "strict"}"#;
            let mut command = Command::new(python);
            command
                .args(["-c", START, &port.to_string()])
                .env("GOOSEBIT_DB_URI", format!("sqlite:///{}", path("db")))
                .env("GOOSEBIT_ARTIFACTS_DIR", path("artifacts"))
                .env("GOOSEBIT_POLL_TIME", "00:00:01")
                .env("GOOSEBIT_DEVICE_AUTH", strict)
                .env("PYTHONDONTWRITEBYTECODE", "1");
            command
        });
        let form = [("Content-Type", "application/x-www-form-urlencoded")];
        let body = b"username=operator%40example.org&password=secret";
        let answer = call::call(&server.url, "POST", "/setup", &form, body);
        let said: Value = answer.as_ref().map(Answer::json).unwrap_or_default();
        let token = said["access_token"].as_str();
        let token = token.unwrap_or_else(|| panic!("no operator: {answer:?}\n{}", server.log()));
        Self {
            authorization: format!("Bearer {token}"),
            server,
            published: AtomicU32::new(0),
        }
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let target = format!("/api/v1{path}");
        call::json(&self.server.url, method, &target, &self.authorization, body)
            .unwrap_or_else(|error| panic!("gooseBit: {error}\n{}", self.server.log()))
    }

    fn devices(&self) -> Vec<Value> {
        let list = self.ask("GET", "/devices", &Value::Null);
        list["devices"].as_array().cloned().unwrap_or_default()
    }

    fn device(&self, id: &str) -> Value {
        let all = self.devices().into_iter();
        let found = all.into_iter().find(|device| device["id"] == id);
        found.unwrap_or_else(|| panic!("gooseBit does not know {id}"))
    }

    fn version(&self, software: u64) -> String {
        let list = self.ask("GET", "/software", &Value::Null);
        let all = list["software"].as_array().into_iter().flatten();
        let mut named = all.filter(|one| one["id"] == software);
        let version = named.next().and_then(|one| one["version"].as_str());
        version.expect("it was published").to_owned()
    }
}

/// What is published, as the one kind of file that the server takes: by the example that people are pointed to.
fn update_file(version: &str, files: &[(&str, &[u8])]) -> Vec<u8> {
    let folder = tempfile::Builder::new()
        .prefix("cx-swu-")
        .tempdir()
        .expect("a temporary folder");
    let parts = folder.path().join("parts");
    std::fs::create_dir_all(parts.join("objects")).expect("a folder");
    for (name, bytes) in files {
        let path = match *name {
            "manifest.json" => parts.join("json"),
            object => parts.join("objects").join(object),
        };
        std::fs::write(path, bytes).expect("a file");
    }
    let done = |command: &mut Command| {
        let output = command.output().expect("it can be run");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {said}");
    };
    let bundle = folder.path().join("new");
    done(
        Command::new("tar")
            .arg("-C")
            .arg(&parts)
            .arg("-cf")
            .arg(&bundle)
            .args(["json", "objects"]),
    );
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/payloads/swu");
    done(
        Command::new(script)
            .arg(folder.path())
            .arg(version)
            .env("COXCTL", binary("coxctl")),
    );
    let upload = folder.path().join("upload");
    let mut made = std::fs::read_dir(upload).expect("the example has made it");
    let file = made.next().expect("one file").expect("one file").path();
    std::fs::read(file).expect("the file")
}

impl Management for Goosebit {
    fn name(&self) -> String {
        "gooseBit".to_owned()
    }

    fn lacks(&self, ability: Ability) -> Option<&'static str> {
        match ability {
            Ability::Cancel => Some("it has no cancel"),
            Ability::Confirmation => Some("it does not ask for consent"),
            Ability::Window => Some("it has no maintenance windows"),
            Ability::Kinds => Some("every update of it is forced"),
            Ability::Rows => Some("it keeps the lines of reports, not their kinds and codes"),
            Ability::Groups => Some("its rollouts have neither groups nor thresholds"),
            Ability::Certificates => Some("it knows devices by tokens only"),
            Ability::Stated => Some("a device cannot tell it what is installed"),
            Ability::Rollouts | Ability::SameAgain => None,
        }
    }

    fn add_device(&self, device: &str) -> Access {
        let token: String = device
            .chars()
            .rev()
            .chain("-token".chars())
            .take(TOKEN_CHARS_MAX)
            .collect();
        let body = json!({"devices": [device], "auth_token": token});
        self.ask("PUT", "/devices", &body);
        Access {
            url: self.server.url.clone(),
            tenant: "DEFAULT".to_owned(),
            controller: device.to_owned(),
            token,
        }
    }

    fn publish(&self, name: &str, files: &[(&str, &[u8])]) -> u64 {
        // Two with the same version are refused.
        let number = self.published.fetch_add(1, Ordering::Relaxed) + 1;
        let bytes = update_file(&format!("1.0.{number}"), files);
        let file = format!("{name}.swu");
        let target = "/api/v1/software";
        let authorization = &self.authorization;
        let said = call::upload(
            &self.server.url,
            "PUT",
            target,
            authorization,
            &file,
            &bytes,
        );
        let said = said.unwrap_or_else(|error| panic!("gooseBit: {error}\n{}", self.server.log()));
        said["id"].as_u64().expect("it has a number")
    }

    fn assign(&self, device: &str, set: u64, _: &How) -> u64 {
        let mut body = json!({"devices": [device], "software": set.to_string()});
        // A device that has failed is offered nothing until somebody says that it shall be.
        if self.device(device)["last_state"] == "Error" {
            body["force_update"] = json!(true);
        }
        self.ask("PATCH", "/devices", &body);
        set
    }

    fn see(&self, device: &str, action: u64) -> Seen {
        let log = || {
            let answer = self.ask("GET", &format!("/devices/{device}/log"), &Value::Null);
            answer["log"].as_str().unwrap_or_default().to_owned()
        };
        let view = self.device(device);
        let is_current = view["assigned_software"]["id"] == action;
        let installed = view["sw_version"].as_str() == Some(&self.version(action));
        let outcome = match view["last_state"].as_str() {
            _ if view["force_update"] == true => Outcome::Open,
            Some("Finished") if installed => Outcome::Finished,
            Some("Error") if is_current => Outcome::Error,
            _ => Outcome::Open,
        };
        let mut text = log();
        if outcome != Outcome::Open {
            // The lines of a report come a little after what it did to the device.
            loop {
                std::thread::sleep(std::time::Duration::from_millis(300));
                let before = std::mem::replace(&mut text, log());
                if text == before {
                    break;
                }
            }
        }
        let rows = text.lines().map(|line| (String::new(), line.to_owned()));
        Seen {
            outcome,
            rows: rows.collect(),
            code: None,
        }
    }

    fn cancel(&self, _: &str, _: u64) {
        unreachable!("it lacks Ability::Cancel");
    }

    fn ask_for_consent(&self, _: bool) {
        unreachable!("it lacks Ability::Confirmation");
    }

    fn trust_proxy(&self, _: &str) {
        unreachable!("it lacks Ability::Certificates");
    }

    fn rollout(&self, name: &str, devices: &str, set: u64, _: u32, _: u32) -> u64 {
        let all = self.devices();
        let ids = all.iter().filter_map(|device| device["id"].as_str());
        let wanted: Vec<&str> = ids.filter(|id| id.starts_with(devices)).collect();
        let body = json!({"devices": wanted, "feed": name, "software": "rollout"});
        self.ask("PATCH", "/devices", &body);
        let body = json!({"name": name, "feed": name, "software_id": set});
        let said = self.ask("PUT", "/rollouts", &body);
        said["id"].as_u64().expect("it has a number")
    }

    fn see_rollout(&self, rollout: u64) -> (String, [u64; 4]) {
        let list = self.ask("GET", "/rollouts", &Value::Null);
        let all = list["rollouts"].as_array().into_iter().flatten();
        let found = all.into_iter().find(|one| one["id"] == rollout);
        let found = found.expect("it was started");
        let members = self.devices();
        let members = members.iter().filter(|one| one["feed"] == found["feed"]);
        let members = u64::try_from(members.count()).unwrap_or(u64::MAX);
        let count = |name: &str| found[name].as_u64().unwrap_or_default();
        let (finished, error) = (count("success_count"), count("failure_count"));
        let running = members.saturating_sub(finished + error);
        let state = if running == 0 { "finished" } else { "running" };
        (state.to_owned(), [running, 0, finished, error])
    }

    fn installed(&self, _: &str) -> Option<u64> {
        unreachable!("it lacks Ability::Stated");
    }

    fn actions(&self, device: &str) -> Vec<u64> {
        let assigned = self.device(device)["assigned_software"]["id"].as_u64();
        assigned.into_iter().collect()
    }
}
