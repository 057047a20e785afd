//! DDI: what a device may ask. Each handler answers as the real server does, side effects included.

use serde_json::{Map, Value, json};

use super::Hawkbit;
use super::life::Feedback;
use super::records::{Action, AutoConfirm, Force, Stamp, Status, Target, UpdateStatus};
use super::wire::{Answer, Fault, Good, Request, encode};

/// Stands for `null` among messages.
pub(crate) const NO_TEXT: &str = "\u{0}";

type Key = (String, String);

impl Hawkbit {
    pub(crate) fn device(
        &mut self,
        tenant: &str,
        id: &str,
        rest: &[&str],
        peer: &str,
        request: &Request,
    ) -> Answer {
        let key = (tenant.to_uppercase(), id.to_owned());
        let base = format!(
            "{}/{tenant}/controller/v1/{}",
            self.base(request),
            encode(id, false)
        );
        let method = match request.method.as_str() {
            "HEAD" => "GET",
            other => other,
        };
        match (method, rest) {
            ("GET", []) => self.root(&key, &base, peer, request),
            ("OPTIONS", []) => Ok(Good::Raw(
                super::Response::empty(200).with("Allow", "GET,HEAD,OPTIONS"),
            )),
            (_, []) => Err(Fault::method("GET")),
            ("PUT", ["configData"]) => self.attributes_from(&key, request),
            (_, ["configData"]) => Err(Fault::method("PUT")),
            ("GET", ["deploymentBase", action]) => self.deployment(&key, &base, action, request),
            ("POST", ["deploymentBase", action, "feedback"]) => {
                self.deployment_feedback(&key, action, request)
            }
            ("GET", ["cancelAction", action]) => self.cancel_details(&key, action),
            ("POST", ["cancelAction", action, "feedback"]) => {
                let feedback = feedback(request);
                needs_body(request)?;
                let action = self.action_of(&key, action);
                let (feedback, action) = (feedback?, action?);
                self.report_cancel(action, &feedback)?;
                Ok(Good::Empty(200))
            }
            (_, ["deploymentBase" | "cancelAction", _, "feedback"]) => Err(Fault::method("POST")),
            (_, ["deploymentBase" | "cancelAction", _]) => Err(Fault::method("GET")),
            ("GET", ["installedBase", action]) => self.installed(&key, &base, action, request),
            ("PUT", ["installedBase"]) => self.state_installed(&key, request),
            (_, ["installedBase"]) => Err(Fault::method("PUT")),
            ("GET", ["confirmationBase"]) => self.confirmation(&key, &base, peer, request),
            ("POST", ["confirmationBase", "activateAutoConfirm"]) => {
                self.activate_from_device(&key, request)
            }
            ("POST", ["confirmationBase", "deactivateAutoConfirm"]) => {
                self.target(&key)?;
                if let Some(target) = self.targets.get_mut(&key) {
                    target.auto_confirm = None;
                }
                Ok(Good::Empty(200))
            }
            ("GET", ["confirmationBase", action]) => {
                let (_, history) = parameters(request)?;
                let action = self.action_of(&key, action)?;
                self.cancel_if_lapsed(Some(action));
                if !self.actions[&action].is_waiting() {
                    return Err(Fault::Empty(404));
                }
                let body = self.details(&base, action, history, "confirmation");
                Ok(Good::Json(200, body))
            }
            ("POST", ["confirmationBase", action, "feedback"]) => {
                self.confirmation_feedback(&key, action, request)
            }
            ("GET", ["softwaremodules", module, "artifacts"]) => self.files(&key, &base, module),
            ("GET", ["softwaremodules", module, "artifacts", file]) => {
                self.file(&key, module, file, request)
            }
            (_, ["softwaremodules", _, "artifacts", _]) => Err(Fault::method("GET")),
            _ => Err(Fault::not_found()),
        }
    }

    pub(crate) fn target(&self, key: &Key) -> Result<&Target, Fault> {
        self.targets
            .get(key)
            .ok_or_else(|| Fault::missing("Target", &key.1, json!(key.1)))
    }

    /// The target, made if there was none, with the time of this poll.
    fn find_or_register(&mut self, key: &Key, peer: &str, request: &Request) -> Result<(), Fault> {
        let invalid = |text: &str| {
            Fault::of(
                400,
                "jakarta.validation.ConstraintViolationException",
                "repo.constraintViolation",
                text,
            )
        };
        let address = request.header("x-forwarded-for").unwrap_or(peer).to_owned();
        let now = self.now;
        if let Some(target) = self.targets.get_mut(key) {
            if target.address.as_deref() != Some(&address) {
                target.address = Some(address);
            }
            if target.status == UpdateStatus::Unknown {
                target.status = UpdateStatus::Registered;
            }
            target.polled_at = Some(now);
            return Ok(());
        }
        let id = key.1.as_str();
        if id.chars().any(char::is_whitespace) {
            return Err(invalid(
                "controllerId has whitespaces which are not allowed.",
            ));
        }
        match id.chars().count() {
            0..=128 => {}
            129..=256 => return Err(invalid("name size must be between 1 and 128.")),
            _ => {
                return Err(invalid(
                    "controllerId size must be between 1 and 256. name size must be between 1 and 128.",
                ));
            }
        }
        let target = Target {
            number: self.next_id("target"),
            id: id.to_owned(),
            name: id.to_owned(),
            description: Some(format!("Plug and Play target: {id}")),
            token: self.new_token(),
            stamp: Stamp::new("CONTROLLER_PLUG_AND_PLAY", now),
            status: UpdateStatus::Registered,
            polled_at: Some(now),
            installed_at: None,
            address: Some(address),
            wants_attributes: true,
            attributes: std::collections::BTreeMap::new(),
            assigned: None,
            installed: None,
            auto_confirm: None,
        };
        self.targets.insert(key.clone(), target);
        Ok(())
    }

    pub(crate) fn new_token(&mut self) -> String {
        let mut text = String::new();
        for _ in 0..32 {
            let index = self.chance() * 32.0;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "it is between 0 and 31"
            )]
            text.push(char::from(
                b"abcdefghijklmnopqrstuvwxyz234567"[index as usize],
            ));
        }
        text
    }

    fn cancel_if_lapsed(&mut self, action: Option<u64>) {
        let Some(action) = action else { return };
        let lapsed = self.actions[&action]
            .window
            .as_ref()
            .is_some_and(|window| window.is_lapsed(self.now));
        if lapsed && self.actions[&action].active {
            // One that is cancelled already cannot be cancelled again; that is no fault here.
            drop(self.cancel(action, false));
        }
    }

    fn sleep(&mut self, key: &Key, action: Option<u64>) -> String {
        if let Some(foretold) = self.foretold.sleep.take()
            && self.polling().deviates()
        {
            return foretold;
        }
        let chance = self.chance();
        let normal = self.polling().sleep(&key.1, chance, &self.bounds);
        let window = action.and_then(|action| self.actions[&action].window.clone());
        let seconds = match window.and_then(|window| window.start(self.now)) {
            Some(start) if start > self.now => {
                #[expect(clippy::cast_precision_loss, reason = "days, not centuries")]
                let left = ((start - self.now) / 1000) as f64;
                let count = self
                    .setting("maintenanceWindowPollCount")
                    .as_f64()
                    .unwrap_or(3.0);
                #[expect(clippy::cast_precision_loss, reason = "days, not centuries")]
                let least = self.bounds.min_s as f64;
                (left / count).floor().clamp(least.min(normal), normal)
            }
            _ => normal,
        };
        super::polling::write(seconds)
    }

    fn polling(&self) -> super::polling::Polling {
        let setting = self.setting("pollingTime");
        let text = setting.as_str().unwrap_or_default().to_owned();
        let parse =
            |text: &str| super::polling::Polling::parse(text, self.setup.release, &self.bounds);
        parse(&text)
            .or_else(|_| parse("00:05:00"))
            .expect("the setting was checked when it was made")
    }

    fn action_link(&self, base: &str, action: &Action) -> (&'static str, Value) {
        let href = |name: &str| {
            let marker = self.marker(action);
            json!({"href": format!("{base}/{name}/{}?c={marker}", action.id)})
        };
        if action.is_waiting() {
            ("confirmationBase", href("confirmationBase"))
        } else if action.is_cancelling_or_cancelled() {
            (
                "cancelAction",
                json!({"href": format!("{base}/cancelAction/{}", action.id)}),
            )
        } else {
            ("deploymentBase", href("deploymentBase"))
        }
    }

    /// The closed action that put the installed set there.
    fn installed_action(&self, key: &Key) -> Option<&Action> {
        let installed = self.targets.get(key)?.installed?;
        self.actions.values().rev().find(|action| {
            action.target == *key && action.set == installed && action.status == Status::Finished
        })
    }

    fn root(&mut self, key: &Key, base: &str, peer: &str, request: &Request) -> Answer {
        self.find_or_register(key, peer, request)?;
        let active = self.active_actions(key).first().map(|action| action.id);
        let installed = self.installed_action(key).map(|action| action.id);
        self.cancel_if_lapsed(active);
        let sleep = self.sleep(key, active);
        let mut links = Map::new();
        if let Some(action) = active {
            let (rel, link) = self.action_link(base, &self.actions[&action]);
            links.insert(rel.to_owned(), link);
        }
        if let Some(installed) = installed {
            links.insert(
                "installedBase".to_owned(),
                json!({"href": format!("{base}/installedBase/{installed}")}),
            );
        }
        if self.targets[key].wants_attributes {
            links.insert(
                "configData".to_owned(),
                json!({"href": format!("{base}/configData")}),
            );
        }
        let mut body = json!({"config": {"polling": {"sleep": sleep}}});
        if !links.is_empty() {
            body["_links"] = Value::Object(links);
        }
        Ok(Good::Json(200, body))
    }

    fn attributes_from(&mut self, key: &Key, request: &Request) -> Answer {
        needs_body(request)?;
        let body = body(request)?;
        let mode = match body.get("mode") {
            None | Some(Value::Null) => "merge".to_owned(),
            Some(Value::String(word))
                if ["merge", "replace", "remove"].contains(&word.as_str()) =>
            {
                word.clone()
            }
            Some(_) => return Err(Fault::unreadable()),
        };
        let Some(Value::Object(data)) = body.get("data") else {
            return Err(Fault::unreadable());
        };
        if data.is_empty() {
            return Err(Fault::unreadable());
        }
        let mut changes = Vec::new();
        for (name, value) in data {
            let value = match value {
                Value::Null => None,
                Value::String(text) => Some(text.clone()),
                Value::Number(number) => Some(number.to_string()),
                Value::Bool(flag) => Some(flag.to_string()),
                Value::Array(_) | Value::Object(_) => return Err(Fault::unreadable()),
            };
            changes.push((name.clone(), value));
        }
        let good = |text: &str| {
            text.chars().count() <= 128
                && text.chars().all(|letter| {
                    letter.is_ascii_alphanumeric()
                        || matches!(letter, ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}')
                        || "_-!@#$%^&*()+=[]{}|;:'\",.<>/\\?".contains(letter)
                })
        };
        if changes
            .iter()
            .any(|(name, value)| !good(name) || value.as_deref().is_some_and(|v| !good(v)))
        {
            return Err(Fault::of(
                400,
                "InvalidTargetAttributeException",
                "repo.invalidTargetAttributes",
                "The given target attributes are invalid",
            ));
        }
        let target = self.target(key)?;
        let mut attributes = match mode.as_str() {
            "replace" => std::collections::BTreeMap::new(),
            _ => target.attributes.clone(),
        };
        for (name, value) in changes {
            match value {
                Some(value) if mode != "remove" => {
                    attributes.insert(name, value);
                }
                _ => {
                    attributes.remove(&name);
                }
            }
        }
        if attributes.len() > self.setup.attributes_max {
            return Err(Fault::quota(
                self.setup.release.quota_status(),
                "Attribute",
                "Target",
                &target.number.to_string(),
                attributes.len(),
                self.setup.attributes_max,
            ));
        }
        if let Some(target) = self.targets.get_mut(key) {
            target.attributes = attributes;
            if mode != "remove" {
                target.wants_attributes = false;
            }
        }
        Ok(Good::Empty(200))
    }

    /// The action of this number, if it is this target's.
    fn action_of(&self, key: &Key, action: &str) -> Result<u64, Fault> {
        let id: i64 = action.parse().map_err(|_| Fault::unreadable())?;
        self.target(key)?;
        let id = u64::try_from(id).unwrap_or_default();
        let found = self.actions.get(&id).ok_or_else(|| Fault::no_action(id))?;
        if found.target == *key {
            Ok(id)
        } else {
            Err(Fault::not_the_targets(id, &key.1))
        }
    }

    fn deployment(&mut self, key: &Key, base: &str, action: &str, request: &Request) -> Answer {
        let (_, history) = parameters(request)?;
        let action = self.action_of(key, action)?;
        self.cancel_if_lapsed(Some(action));
        let found = &self.actions[&action];
        if found.is_cancelling_or_cancelled() || found.is_waiting() {
            return Err(Fault::Empty(404));
        }
        let body = self.details(base, action, history, "deployment");
        self.retrieved(
            action,
            "Target retrieved update action and should start now the download.",
        );
        Ok(Good::Json(200, body))
    }

    fn details(&self, base: &str, id: u64, history: i64, name: &str) -> Value {
        let action = &self.actions[&id];
        let download = match action.force {
            Force::DownloadOnly => "forced",
            Force::Forced | Force::Soft | Force::Timed(_) => {
                if action.is_forced(self.now) {
                    "forced"
                } else {
                    "attempt"
                }
            }
        };
        let window = action
            .window
            .as_ref()
            .map(|window| window.is_open(self.now));
        let update = match (action.force, window) {
            (Force::DownloadOnly, _) | (_, Some(false)) => "skip",
            (Force::Forced | Force::Soft | Force::Timed(_), _) => download,
        };
        let mut deployment = json!({"download": download, "update": update});
        if let Some(open) = window {
            let word = if open { "available" } else { "unavailable" };
            deployment["maintenanceWindow"] = json!(word);
        }
        let modules = self.sets.get(&action.set).map(|set| set.modules.clone());
        let chunks: Vec<Value> = modules
            .unwrap_or_default()
            .iter()
            .filter_map(|module| self.chunk(base, *module))
            .collect();
        deployment["chunks"] = json!(chunks);
        let mut body = json!({"id": id.to_string(), name: deployment});
        let messages = past(action, history);
        if !messages.is_empty() {
            body["actionHistory"] = json!({
                "status": action.status.word().to_uppercase(),
                "messages": messages,
            });
        }
        body
    }

    fn chunk(&self, base: &str, module: u64) -> Option<Value> {
        let module = self.modules.get(&module)?;
        let part = match module.kind.as_str() {
            "application" => "bApp",
            "runtime" => "jvm",
            other => other,
        };
        let mut chunk = json!({
            "part": part,
            "name": module.name,
            "version": module.version,
            "artifacts": self.file_list(base, module.id),
        });
        if module.encrypted {
            chunk["encrypted"] = json!(true);
        }
        let seen: Vec<Value> = module
            .metadata
            .iter()
            .filter(|(_, _, visible)| *visible)
            .map(|(key, value, _)| json!({"key": key, "value": value}))
            .collect();
        if !seen.is_empty() {
            chunk["metadata"] = json!(seen);
        }
        Some(chunk)
    }

    pub(crate) fn file_list(&self, base: &str, module: u64) -> Vec<Value> {
        let module = &self.modules[&module];
        let files = module.artifacts.iter().map(|artifact| {
            let href = format!(
                "{base}/softwaremodules/{}/artifacts/{}",
                module.id,
                encode(&artifact.name, true)
            );
            json!({
                "filename": artifact.name,
                "hashes": {
                    "sha1": artifact.sha1, "md5": artifact.md5, "sha256": artifact.sha256,
                },
                "size": artifact.bytes.len(),
                "_links": {
                    "download-http": {"href": href},
                    "md5sum-http": {"href": format!("{href}.MD5SUM")},
                },
            })
        });
        files.collect()
    }

    fn deployment_feedback(&mut self, key: &Key, action: &str, request: &Request) -> Answer {
        needs_body(request)?;
        let feedback = feedback(request)?;
        let action = self.action_of(key, action)?;
        let found = &self.actions[&action];
        if found.is_waiting() {
            return Err(Fault::Empty(404));
        }
        if !found.active {
            return Err(Fault::Empty(410));
        }
        self.report(action, &feedback)?;
        Ok(Good::Empty(200))
    }

    fn cancel_details(&mut self, key: &Key, action: &str) -> Answer {
        let action = self.action_of(key, action)?;
        if !self.actions[&action].is_cancelling_or_cancelled() {
            return Err(Fault::Empty(404));
        }
        self.retrieved(
            action,
            "Target retrieved cancel action and should start now the cancellation.",
        );
        let id = action.to_string();
        Ok(Good::Json(
            200,
            json!({"id": id, "cancelAction": {"stopId": id}}),
        ))
    }

    fn installed(&mut self, key: &Key, base: &str, action: &str, request: &Request) -> Answer {
        let (_, history) = parameters(request)?;
        let action = self.action_of(key, action)?;
        let found = &self.actions[&action];
        if found.active || found.is_cancelling_or_cancelled() {
            return Err(Fault::Empty(404));
        }
        Ok(Good::Json(
            200,
            self.details(base, action, history, "deployment"),
        ))
    }

    fn state_installed(&mut self, key: &Key, request: &Request) -> Answer {
        needs_body(request)?;
        let body = body(request)?;
        let text = |name: &str| match body.get(name) {
            Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
            _ => Err(Fault::unreadable()),
        };
        let (name, version) = (text("name")?, text("version")?);
        let set = self
            .sets
            .values()
            .find(|set| set.name == name && set.version == version && !set.deleted);
        let Some(set) = set.map(|set| set.id) else {
            let id = format!("{name}={version}");
            return Err(Fault::missing(
                "DistributionSet",
                &id,
                json!({name: version}),
            ));
        };
        if !self.targets.contains_key(key) {
            return Err(Fault::Framework {
                status: 500,
                error: "Internal Server Error",
                allow: None,
            });
        }
        let known = self.targets[key].assigned == Some(set);
        let pending = self.targets[key].status == UpdateStatus::Pending;
        let by = match self.setup.release {
            super::Release::V0_9_0 => "system",
            super::Release::V1_0_4 => key.1.as_str(),
        };
        let made = self.install_offline(key, set, by).is_some();
        let status = if made || !(known || pending) {
            201
        } else {
            200
        };
        Ok(Good::Empty(status))
    }

    fn confirmation(&mut self, key: &Key, base: &str, peer: &str, request: &Request) -> Answer {
        self.find_or_register(key, peer, request)?;
        let target = &self.targets[key];
        let mut links = Map::new();
        let mut auto = json!({"active": target.auto_confirm.is_some(), "activatedAt": 0});
        let verb = match &target.auto_confirm {
            Some(given) => {
                auto["activatedAt"] = json!(given.at);
                for (name, value) in [("initiator", &given.initiator), ("remark", &given.remark)] {
                    if let Some(value) = value {
                        auto[name] = json!(value);
                    }
                }
                "deactivateAutoConfirm"
            }
            None => "activateAutoConfirm",
        };
        links.insert(
            verb.to_owned(),
            json!({"href": format!("{base}/confirmationBase/{verb}")}),
        );
        if let Some(action) = self.active_actions(key).first()
            && action.is_waiting()
        {
            let (rel, link) = self.action_link(base, action);
            links.insert(rel.to_owned(), link);
        }
        Ok(Good::Json(
            200,
            json!({"autoConfirm": auto, "_links": links}),
        ))
    }

    fn activate_from_device(&mut self, key: &Key, request: &Request) -> Answer {
        needs_body(request)?;
        let empty = request.body.iter().all(u8::is_ascii_whitespace);
        let body = if empty {
            Value::Null
        } else {
            any_body(request)?
        };
        let fallback =
            "Initiated using the Device Direct Integration API without providing a remark.";
        let text = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
        let remark = if body.is_null() {
            Some(fallback.to_owned())
        } else {
            text("remark")
        };
        self.activate(key, text("initiator"), remark, "CONTROLLER_PLUG_AND_PLAY")?;
        Ok(Good::Empty(200))
    }

    pub(crate) fn activate(
        &mut self,
        key: &Key,
        initiator: Option<String>,
        remark: Option<String>,
        by: &'static str,
    ) -> Result<(), Fault> {
        if self.target(key)?.auto_confirm.is_some() {
            return Err(Fault::of(
                409,
                "AutoConfirmationAlreadyActiveException",
                "repo.autoConfAlreadyActive",
                format!("Auto confirmation is already active for device {}", key.1),
            ));
        }
        let at = self.now;
        if let Some(target) = self.targets.get_mut(key) {
            target.auto_confirm = Some(AutoConfirm {
                initiator,
                remark,
                at,
                by,
            });
        }
        self.confirm_all(key);
        Ok(())
    }

    fn confirmation_feedback(&mut self, key: &Key, action: &str, request: &Request) -> Answer {
        needs_body(request)?;
        let body = body(request)?;
        let yes = match body.get("confirmation").and_then(Value::as_str) {
            Some("confirmed") => true,
            Some("denied") => false,
            _ => return Err(Fault::unreadable()),
        };
        let (code, details) = (code(&body)?, details(&body)?);
        let action = self.action_of(key, action)?;
        self.confirm(action, yes, code, &details)?;
        Ok(Good::Empty(200))
    }
}

/// `c` and `actionHistory`.
fn parameters(request: &Request) -> Result<(i64, i64), Fault> {
    let number = |name: &str| match request.parameter(name).as_deref() {
        None | Some("") => Ok(0),
        Some(text) => text.parse::<i64>().map_err(|_| Fault::unreadable()),
    };
    Ok((number("c")?, number("actionHistory")?))
}

fn past(action: &Action, count: i64) -> Vec<String> {
    let count = match usize::try_from(count) {
        Ok(count) => count.min(100),
        Err(_) => 100,
    };
    let mut rows: Vec<_> = action.rows.iter().collect();
    rows.sort_by_key(|row| (-row.timestamp, std::cmp::Reverse(row.id)));
    rows.into_iter()
        .flat_map(|row| row.messages.iter())
        .filter(|text| !text.starts_with("Update Server: ") && *text != NO_TEXT)
        .take(count)
        .cloned()
        .collect()
}

/// A body must be named as JSON or CBOR.
fn needs_body(request: &Request) -> Result<(), Fault> {
    let kind = request.header("content-type").unwrap_or_default();
    let plain = kind.split(';').next().unwrap_or_default().trim();
    if ["application/json", "application/cbor"].contains(&plain) {
        return Ok(());
    }
    Err(Fault::Framework {
        status: 415,
        error: "Unsupported Media Type",
        allow: None,
    })
}

pub(crate) fn any_body(request: &Request) -> Result<Value, Fault> {
    let is_cbor = request
        .header("content-type")
        .is_some_and(|kind| kind.starts_with("application/cbor"));
    let value = if is_cbor {
        super::cbor::read(&request.body)
    } else {
        serde_json::from_slice(&request.body).ok()
    };
    value.ok_or_else(Fault::unreadable)
}

pub(crate) fn body(request: &Request) -> Result<Value, Fault> {
    let value = any_body(request)?;
    if value.is_object() {
        Ok(value)
    } else {
        Err(Fault::unreadable())
    }
}

fn integer(value: Option<&Value>) -> Result<Option<i64>, Fault> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the real server drops what follows the point"
    )]
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Ok(Some(whole)),
            (None, Some(part)) => Ok(Some(part as i64)),
            (None, None) => Err(Fault::unreadable()),
        },
        Some(Value::String(text)) => text.parse().map(Some).map_err(|_| Fault::unreadable()),
        Some(Value::Bool(_) | Value::Array(_) | Value::Object(_)) => Err(Fault::unreadable()),
    }
}

fn code(body: &Value) -> Result<Option<i64>, Fault> {
    let code = integer(body.get("code"))?;
    match code {
        Some(code) if i32::try_from(code).is_err() => Err(Fault::unreadable()),
        code => Ok(code),
    }
}

fn details(body: &Value) -> Result<Vec<String>, Fault> {
    let list = match body.get("details") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(Fault::unreadable()),
    };
    list.iter()
        .map(|item| match item {
            Value::String(text) => Ok(Some(text.clone())),
            Value::Null => Ok(None),
            Value::Number(number) => Ok(Some(number.to_string())),
            Value::Bool(flag) => Ok(Some(flag.to_string())),
            Value::Array(_) | Value::Object(_) => Err(Fault::unreadable()),
        })
        .filter_map(Result::transpose)
        .collect()
}

const EXECUTIONS: &[&str] = &[
    "closed",
    "proceeding",
    "canceled",
    "scheduled",
    "rejected",
    "resumed",
    "downloaded",
    "download",
];

fn feedback(request: &Request) -> Result<Feedback, Fault> {
    let body = body(request)?;
    let status = body
        .get("status")
        .filter(|status| status.is_object())
        .ok_or_else(Fault::unreadable)?;
    let execution = status
        .get("execution")
        .and_then(Value::as_str)
        .filter(|word| EXECUTIONS.contains(word))
        .ok_or_else(Fault::unreadable)?;
    let finished = status
        .pointer("/result/finished")
        .and_then(Value::as_str)
        .filter(|word| ["success", "failure", "none"].contains(word))
        .ok_or_else(Fault::unreadable)?;
    Ok(Feedback {
        execution: execution.to_owned(),
        failed: finished == "failure",
        code: code(status)?,
        details: details(status)?,
        timestamp: integer(body.get("timestamp"))?,
    })
}
