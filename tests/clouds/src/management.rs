//! The management side of an update server, as far as the scenarios need it: one port, one implementation for each kind of server.
//! Ours and the real hawkBit are the same kind.

use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::call;

/// How a device reaches a server.
#[derive(Debug, Clone)]
pub struct Access {
    /// `http://host:port`.
    pub url: String,
    /// Tenant.
    pub tenant: String,
    /// Name of the device.
    pub controller: String,
    /// Its target token.
    pub token: String,
}

/// How an assignment is meant.
#[derive(Debug, Clone)]
pub enum How {
    /// Now.
    Forced,
    /// When it suits.
    Soft,
    /// Fetch only.
    DownloadOnly,
    /// Within a window: schedule, duration.
    Window(String, String),
}

/// Where an action stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The device has not ended it.
    Open,
    /// Success.
    Finished,
    /// Failure.
    Error,
    /// Cancelled.
    Cancelled,
    /// Fetched, and more was not asked for.
    Downloaded,
}

/// What the operator sees of an action.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Where it stands.
    pub outcome: Outcome,
    /// Type and messages of each report, oldest first.
    pub rows: Vec<(String, String)>,
    /// The last code.
    pub code: Option<i64>,
}

/// What not every server can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ability {
    /// Take an action back.
    Cancel,
    /// Ask for consent.
    Confirmation,
    /// Maintenance windows.
    Window,
    /// Download only, soft.
    Kinds,
    /// Rollouts.
    Rollouts,
    /// Rollouts with groups and a threshold.
    Groups,
    /// Keep each report with its kind and code, not only its lines.
    Rows,
    /// Give the same software to a device once more.
    SameAgain,
    /// Believe a proxy that has checked a device's certificate.
    Certificates,
    /// Believe a device that tells which set it has already.
    Stated,
}

/// A schedule for one point in time.
pub fn schedule_at(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs();
    let day = i64::try_from(seconds / 86400).expect("a date") + 719_468;
    let era = day / 146_097;
    let of_era = day % 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year + era * 400 + i64::from(month <= 2);
    format!(
        "{} {} {} {} {month} ? {year}",
        seconds % 60,
        seconds / 60 % 60,
        seconds / 3600 % 24,
        of_year - (153 * shifted + 2) / 5 + 1
    )
}

/// The management side of a server. Failures are panics: a scenario cannot go on.
pub trait Management: Sync {
    /// What it is, for the table.
    fn name(&self) -> String;
    /// Why it cannot do something, if it cannot.
    fn lacks(&self, ability: Ability) -> Option<&'static str>;
    /// A new device.
    fn add_device(&self, id: &str) -> Access;
    /// Publishes files under a name; the identifier of what can be assigned.
    fn publish(&self, name: &str, files: &[(&str, &[u8])]) -> u64;
    /// Assigns it to a device; the action.
    fn assign(&self, device: &str, set: u64, how: &How) -> u64;
    /// What the operator sees.
    fn see(&self, device: &str, action: u64) -> Seen;
    /// Takes an action back.
    fn cancel(&self, device: &str, action: u64);
    /// Switches consent on or off.
    fn ask_for_consent(&self, on: bool);
    /// Lets devices in for which a proxy vouches by this word.
    fn trust_proxy(&self, word: &str);
    /// Starts a rollout to devices whose names begin so; its identifier.
    fn rollout(&self, name: &str, devices: &str, set: u64, groups: u32, error_percent: u32) -> u64;
    /// State of a rollout and actions per state (running, scheduled, finished, error).
    fn see_rollout(&self, rollout: u64) -> (String, [u64; 4]);
    /// The set that is installed, as the operator sees it.
    fn installed(&self, device: &str) -> Option<u64>;
    /// Actions of a device, newest last.
    fn actions(&self, device: &str) -> Vec<u64>;
}

/// A hawkBit server, ours or a real one.
#[derive(Debug)]
pub struct Hawkbit {
    url: String,
    authorization: String,
    label: String,
    /// What to undo at the end, oldest first: method, path, body.
    undo: Mutex<Vec<(&'static str, String, Value)>>,
    is_somebody_elses: bool,
}

impl Hawkbit {
    /// With an operator's login. Sets what the scenarios rely on: target tokens, polling every second.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn new(url: &str, user: &str, password: &str, label: &str) -> Self {
        let hawkbit = Self::reached(url, user, password, label);
        hawkbit.set_up();
        hawkbit
    }

    /// The same for a server that is there for others too: what is set is set back at the end, and what is made is deleted.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn of_somebody(url: &str, user: &str, password: &str, label: &str) -> Self {
        let mut hawkbit = Self::reached(url, user, password, label);
        hawkbit.is_somebody_elses = true;
        hawkbit.set_up();
        hawkbit
    }

    fn reached(url: &str, user: &str, password: &str, label: &str) -> Self {
        let pair = format!("{user}:{password}");
        Self {
            url: url.trim_end_matches('/').to_owned(),
            authorization: format!("Basic {}", crate::hawkbit::base64(pair.as_bytes())),
            label: label.to_owned(),
            undo: Mutex::default(),
            is_somebody_elses: false,
        }
    }

    fn set_up(&self) {
        self.set("authentication.targettoken.enabled", &json!(true));
        self.set("user.confirmation.flow.enabled", &json!(false));
        // A server of somebody else may not allow so short a time.
        for time in ["00:00:01", "00:00:05", "00:00:30"] {
            if self.try_set("pollingTime", &json!(time)).is_ok() {
                break;
            }
        }
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let target = format!("/rest/v1{path}");
        call::json(&self.url, method, &target, &self.authorization, body)
    }

    fn must(&self, method: &str, path: &str, body: &Value) -> Value {
        self.ask(method, path, body)
            .unwrap_or_else(|error| panic!("{}: {error}", self.label))
    }

    fn set(&self, name: &str, value: &Value) {
        self.try_set(name, value)
            .unwrap_or_else(|error| panic!("{}: {error}", self.label));
    }

    fn try_set(&self, name: &str, value: &Value) -> Result<(), String> {
        let path = format!("/system/configs/{name}");
        if self.is_somebody_elses {
            let before = self.ask("GET", &path, &Value::Null)?;
            let back = match before["global"] == true {
                true => ("DELETE", path.clone(), Value::Null),
                false => ("PUT", path.clone(), json!({"value": before["value"]})),
            };
            self.undo_at_the_end(back);
        }
        self.ask("PUT", &path, &json!({"value": value})).map(drop)
    }

    /// Something that was made is to be deleted.
    fn made(&self, path: String) {
        self.undo_at_the_end(("DELETE", path, Value::Null));
    }

    fn undo_at_the_end(&self, what: (&'static str, String, Value)) {
        let mut undo = self.undo.lock().unwrap_or_else(PoisonError::into_inner);
        undo.push(what);
    }
}

impl Drop for Hawkbit {
    fn drop(&mut self) {
        if !self.is_somebody_elses {
            return;
        }
        let undo = self.undo.get_mut().unwrap_or_else(PoisonError::into_inner);
        let undo = std::mem::take(undo);
        for (method, path, body) in undo.iter().rev() {
            if let Err(error) = self.ask(method, path, body) {
                eprintln!("{}: not undone: {error}", self.label);
            }
        }
    }
}

fn id(value: &Value) -> u64 {
    value["id"].as_u64().expect("a record has an id")
}

impl Management for Hawkbit {
    fn name(&self) -> String {
        self.label.clone()
    }

    fn lacks(&self, _: Ability) -> Option<&'static str> {
        None
    }

    fn add_device(&self, device: &str) -> Access {
        let token = format!("token-of-{device}");
        let body = json!([{"controllerId": device, "name": device, "securityToken": token}]);
        self.must("POST", "/targets", &body);
        self.made(format!("/targets/{device}"));
        Access {
            url: self.url.clone(),
            tenant: "DEFAULT".to_owned(),
            controller: device.to_owned(),
            token,
        }
    }

    fn publish(&self, name: &str, files: &[(&str, &[u8])]) -> u64 {
        let body = json!([{"name": name, "version": "1", "type": "os"}]);
        let module = id(&self.must("POST", "/softwaremodules", &body)[0]);
        self.made(format!("/softwaremodules/{module}"));
        for (file, bytes) in files {
            let target = format!("/rest/v1/softwaremodules/{module}/artifacts");
            call::upload(&self.url, "POST", &target, &self.authorization, file, bytes)
                .unwrap_or_else(|error| panic!("{}: {error}", self.label));
        }
        let body =
            json!([{"name": name, "version": "1", "type": "os", "modules": [{"id": module}]}]);
        let set = id(&self.must("POST", "/distributionsets", &body)[0]);
        self.made(format!("/distributionsets/{set}"));
        set
    }

    fn assign(&self, device: &str, set: u64, how: &How) -> u64 {
        let mut order = json!({"id": device});
        match how {
            How::Forced => order["type"] = json!("forced"),
            How::Soft => order["type"] = json!("soft"),
            How::DownloadOnly => order["type"] = json!("downloadonly"),
            How::Window(schedule, duration) => {
                order["type"] = json!("forced");
                order["maintenanceWindow"] =
                    json!({"schedule": schedule, "duration": duration, "timezone": "+00:00"});
            }
        }
        let path = format!("/distributionsets/{set}/assignedTargets");
        let answer = self.must("POST", &path, &json!([order]));
        id(&answer["assignedActions"][0])
    }

    fn see(&self, device: &str, action: u64) -> Seen {
        let path = format!("/targets/{device}/actions/{action}");
        let view = self.must("GET", &path, &Value::Null);
        // Newer releases tell the true state in `status`, older ones in `detailStatus`.
        let state = view["detailStatus"].as_str().or(view["status"].as_str());
        let active = view["active"]
            .as_bool()
            .unwrap_or(view["status"] == "pending");
        let outcome = match state {
            Some("finished") => Outcome::Finished,
            Some("error") => Outcome::Error,
            Some("canceled") => Outcome::Cancelled,
            Some("downloaded") if !active => Outcome::Downloaded,
            _ => Outcome::Open,
        };
        let list = self.must(
            "GET",
            &format!("{path}/status?sort=id:ASC&limit=200"),
            &Value::Null,
        );
        let rows = list["content"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|row| {
                let messages: Vec<&str> = row["messages"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .collect();
                (
                    row["type"].as_str().unwrap_or_default().to_owned(),
                    messages.join(" | "),
                )
            });
        Seen {
            outcome,
            rows: rows.collect(),
            code: view["lastStatusCode"].as_i64(),
        }
    }

    fn cancel(&self, device: &str, action: u64) {
        let path = format!("/targets/{device}/actions/{action}");
        self.must("DELETE", &path, &Value::Null);
    }

    fn ask_for_consent(&self, on: bool) {
        self.set("user.confirmation.flow.enabled", &json!(on));
    }

    fn trust_proxy(&self, word: &str) {
        self.set("authentication.header.enabled", &json!(true));
        self.set("authentication.header.authority", &json!(word));
    }

    fn rollout(&self, name: &str, devices: &str, set: u64, groups: u32, error_percent: u32) -> u64 {
        let body = json!({
            "name": name, "distributionSetId": set,
            "targetFilterQuery": format!("controllerId=={devices}*"),
            "amountGroups": groups, "type": "forced",
            "successCondition": {"condition": "THRESHOLD", "expression": "50"},
            "successAction": {"action": "NEXTGROUP", "expression": ""},
            "errorCondition":
                {"condition": "THRESHOLD", "expression": error_percent.to_string()},
            "errorAction": {"action": "PAUSE", "expression": ""},
        });
        let rollout = id(&self.must("POST", "/rollouts", &body));
        self.made(format!("/rollouts/{rollout}"));
        crate::wait(&format!("rollout {name} is ready"), 60, || {
            (self.see_rollout(rollout).0 == "ready").then_some(())
        });
        self.must("POST", &format!("/rollouts/{rollout}/start"), &Value::Null);
        rollout
    }

    fn see_rollout(&self, rollout: u64) -> (String, [u64; 4]) {
        let view = self.must("GET", &format!("/rollouts/{rollout}"), &Value::Null);
        let count = |name: &str| {
            view["totalTargetsPerStatus"][name]
                .as_u64()
                .unwrap_or_default()
        };
        let counts = ["running", "scheduled", "finished", "error"].map(count);
        (
            view["status"].as_str().unwrap_or_default().to_owned(),
            counts,
        )
    }

    fn installed(&self, device: &str) -> Option<u64> {
        let path = format!("/targets/{device}/installedDS");
        self.must("GET", &path, &Value::Null)["id"].as_u64()
    }

    fn actions(&self, device: &str) -> Vec<u64> {
        let path = format!("/targets/{device}/actions?sort=id:ASC");
        let list = self.must("GET", &path, &Value::Null);
        list["content"]
            .as_array()
            .into_iter()
            .flatten()
            .map(id)
            .collect()
    }
}
