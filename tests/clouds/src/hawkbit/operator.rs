//! The management calls that the scenarios and the recordings use.

use serde_json::{Map, Value, json};

use super::device::any_body;
use super::life::Order;
use super::records::{Action, Force, Kind, Module, Set, Stamp, Target, UpdateStatus};
use super::schedule::Window;
use super::views::page;
use super::wire::{Answer, Fault, Good, Request, decode};
use super::{Hawkbit, Release};

type Key = (String, String);

fn key(id: &str) -> Key {
    ("DEFAULT".to_owned(), decode(id))
}

/// A body that is a list.
fn list(request: &Request) -> Result<Vec<Value>, Fault> {
    let Value::Array(list) = any_body(request)? else {
        return Err(Fault::unreadable());
    };
    Ok(list)
}

impl Hawkbit {
    pub(crate) fn operator(&mut self, rest: &[&str], request: &Request) -> Answer {
        let method = request.method.as_str();
        match (method, rest) {
            (_, ["targets", ..]) => self.target_calls(method, &rest[1..], request),
            (_, ["softwaremodules", ..]) => self.module_calls(method, &rest[1..], request),
            (_, ["distributionsets", ..]) => self.set_calls(method, &rest[1..], request),
            (_, ["rollouts", ..]) => self.rollout_calls(method, &rest[1..], request),
            (_, ["system", "configs", ..]) => self.setting_calls(method, &rest[2..], request),
            ("POST", ["softwaremoduletypes" | "distributionsettypes"]) => {
                self.new_kinds(rest[0], request)
            }
            _ => Err(Fault::not_found()),
        }
    }

    fn done(&self) -> Good {
        Good::Empty(match self.setup.release {
            Release::V0_9_0 => 200,
            Release::V1_0_4 => 204,
        })
    }

    fn target_calls(&mut self, method: &str, rest: &[&str], request: &Request) -> Answer {
        match (method, rest) {
            ("POST", []) => self.new_targets(request),
            ("GET", []) => {
                let limit = request.parameter("limit").and_then(|l| l.parse().ok());
                let mut found: Vec<&Target> = self
                    .targets
                    .iter()
                    .filter(|((tenant, _), _)| tenant == "DEFAULT")
                    .map(|(_, target)| target)
                    .collect();
                // Asked for ids, the real server sorts by controller id.
                found.sort_by(|a, b| a.id.cmp(&b.id));
                let total = found.len();
                let shown = found
                    .into_iter()
                    .take(limit.unwrap_or(50))
                    .map(|target| self.target_view(target, false, request))
                    .collect();
                Ok(Good::Json(200, page(shown, total)))
            }
            ("GET", [id]) => {
                let target = self.target(&key(id))?;
                Ok(Good::Json(200, self.target_view(target, true, request)))
            }
            ("PUT", [id]) => {
                let body = any_body(request)?;
                let key = key(id);
                self.target(&key)?;
                let now = self.now;
                if let Some(target) = self.targets.get_mut(&key) {
                    if let Some(token) = body["securityToken"].as_str() {
                        token.clone_into(&mut target.token);
                    }
                    if let Some(asks) = body["requestAttributes"].as_bool() {
                        target.wants_attributes |= asks;
                    }
                    target.stamp.modified_at = now;
                }
                let target = self.target(&key)?;
                Ok(Good::Json(200, self.target_view(target, true, request)))
            }
            ("DELETE", [id]) => {
                let key = key(id);
                self.target(&key)?;
                self.targets.remove(&key);
                self.actions.retain(|_, action| action.target != key);
                Ok(self.done())
            }
            ("GET", [id, "attributes"]) => {
                let target = self.target(&key(id))?;
                if target.attributes.is_empty() {
                    return Ok(Good::Empty(204));
                }
                Ok(Good::Json(200, json!(target.attributes)))
            }
            ("GET", [id, which @ ("assignedDS" | "installedDS")]) => {
                let target = self.target(&key(id))?;
                let set = if *which == "assignedDS" {
                    target.assigned
                } else {
                    target.installed
                };
                match set.and_then(|set| self.sets.get(&set)) {
                    Some(set) => Ok(Good::Json(200, self.set_view(set, true, request))),
                    None => Ok(Good::Empty(204)),
                }
            }
            ("POST", [id, "assignedDS"]) => self.assign_from_target(&key(id), request),
            (_, [id, "autoConfirm", ..]) => {
                self.auto_confirm_calls(method, &key(id), &rest[2..], request)
            }
            (_, [id, "actions", ..]) => self.action_calls(method, &key(id), &rest[2..], request),
            _ => Err(Fault::not_found()),
        }
    }

    fn new_targets(&mut self, request: &Request) -> Answer {
        let list = list(request)?;
        let mut shown = Vec::new();
        for body in list {
            let id = body["controllerId"]
                .as_str()
                .ok_or_else(Fault::unreadable)?;
            let key = ("DEFAULT".to_owned(), id.to_owned());
            if self.targets.contains_key(&key) {
                return Err(Fault::of(
                    409,
                    "EntityAlreadyExistsException",
                    "repo.entityAlreadyExists",
                    "The given entity already exists in database",
                ));
            }
            let token = match body["securityToken"].as_str() {
                Some(token) => token.to_owned(),
                None => self.new_token(),
            };
            let target = Target {
                number: self.next_id("target"),
                id: id.to_owned(),
                name: body["name"].as_str().unwrap_or(id).to_owned(),
                description: body["description"].as_str().map(str::to_owned),
                token,
                stamp: Stamp::new(&self.setup.user, self.now),
                status: UpdateStatus::Unknown,
                polled_at: None,
                installed_at: None,
                address: None,
                wants_attributes: true,
                attributes: std::collections::BTreeMap::new(),
                assigned: None,
                installed: None,
                auto_confirm: None,
            };
            shown.push(self.target_view(&target, false, request));
            self.targets.insert(key, target);
        }
        Ok(Good::Json(201, json!(shown)))
    }

    fn auto_confirm_calls(
        &mut self,
        method: &str,
        key: &Key,
        rest: &[&str],
        request: &Request,
    ) -> Answer {
        self.target(key)?;
        match (method, rest) {
            ("GET", []) => {
                let own = format!(
                    "{}/rest/v1/targets/{}/autoConfirm",
                    self.base(request),
                    key.1
                );
                let target = self.target(key)?;
                let mut view = json!({"active": target.auto_confirm.is_some()});
                let verb = match &target.auto_confirm {
                    Some(auto) => {
                        view["activatedAt"] = json!(auto.at);
                        let texts = [("initiator", &auto.initiator), ("remark", &auto.remark)];
                        for (name, text) in texts {
                            if let Some(text) = text {
                                view[name] = json!(text);
                            }
                        }
                        "deactivate"
                    }
                    None => "activate",
                };
                view["_links"] = json!({verb: {"href": format!("{own}/{verb}")}});
                Ok(Good::Json(200, view))
            }
            ("POST", ["activate"]) => {
                let body = any_body(request).unwrap_or_default();
                let text = |name: &str| body[name].as_str().map(str::to_owned);
                self.activate(key, text("initiator"), text("remark"), "admin")?;
                Ok(self.done())
            }
            ("POST", ["deactivate"]) => {
                if let Some(target) = self.targets.get_mut(key) {
                    target.auto_confirm = None;
                }
                Ok(self.done())
            }
            _ => Err(Fault::not_found()),
        }
    }

    fn action_calls(
        &mut self,
        method: &str,
        key: &Key,
        rest: &[&str],
        request: &Request,
    ) -> Answer {
        self.target(key)?;
        let [number, more @ ..] = rest else {
            let mut found: Vec<&Action> = self
                .actions
                .values()
                .filter(|action| action.target == *key)
                .filter(|action| {
                    let query = request.parameter("q").unwrap_or_default();
                    let wanted = query.strip_prefix("status==").map(str::to_lowercase);
                    // The older release asks for "finished" and means "not active".
                    let old = self.setup.release == Release::V0_9_0;
                    wanted.is_none_or(|wanted| {
                        action.status.word() == wanted
                            || old && wanted == "finished" && !action.active
                    })
                })
                .collect();
            if request
                .parameter("sort")
                .is_some_and(|sort| sort.ends_with("DESC"))
            {
                found.reverse();
            }
            let total = found.len();
            let shown = found
                .into_iter()
                .map(|action| self.action_view(action, false, request))
                .collect();
            return Ok(Good::Json(200, page(shown, total)));
        };
        let id: u64 = number.parse().map_err(|_| Fault::unreadable())?;
        let action = self
            .actions
            .get(&id)
            .filter(|action| action.target == *key)
            .ok_or_else(|| Fault::no_action(id))?;
        match (method, more) {
            ("GET", []) => Ok(Good::Json(200, self.action_view(action, true, request))),
            ("GET", ["status"]) => Ok(Good::Json(200, self.rows_view(action, request))),
            ("PUT", []) => {
                let body = any_body(request)?;
                if body["forceType"] != "forced" {
                    return Err(Fault::of(
                        400,
                        "jakarta.validation.ValidationException",
                        "repo.constraintViolation",
                        "Resource supports only switch to FORCED.",
                    ));
                }
                if let Some(action) = self.actions.get_mut(&id) {
                    action.force = Force::Forced;
                    action.revision += 1;
                }
                Ok(Good::Json(
                    200,
                    self.action_view(&self.actions[&id], true, request),
                ))
            }
            ("DELETE", []) => {
                if request.parameter("force").as_deref() == Some("true") {
                    self.force_quit(id)?;
                } else {
                    self.cancel(id, true)?;
                }
                Ok(Good::Empty(204))
            }
            ("PUT", ["confirmation"]) => {
                let body = any_body(request)?;
                let details: Vec<String> = body["details"]
                    .as_array()
                    .map(|list| {
                        let texts = list.iter().filter_map(Value::as_str);
                        texts.map(str::to_owned).collect()
                    })
                    .unwrap_or_default();
                let yes = body["confirmation"] == "confirmed";
                self.confirm(id, yes, body["code"].as_i64(), &details)?;
                Ok(self.done())
            }
            _ => Err(Fault::not_found()),
        }
    }

    fn module_calls(&mut self, method: &str, rest: &[&str], request: &Request) -> Answer {
        if let ("POST", []) = (method, rest) {
            let list = list(request)?;
            let mut shown = Vec::new();
            for body in list {
                let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
                let kind = self
                    .module_kinds
                    .iter()
                    .find(|kind| kind.key == text("type"))
                    .ok_or_else(Fault::unreadable)?
                    .clone();
                let module = Module {
                    id: self.next_id("module"),
                    name: text("name"),
                    version: text("version"),
                    kind: kind.key,
                    kind_name: kind.name,
                    locked: false,
                    encrypted: body["encrypted"] == true,
                    artifacts: Vec::new(),
                    metadata: Vec::new(),
                    stamp: Stamp::new(&self.setup.user, self.now),
                };
                shown.push(self.module_view(&module, request));
                self.modules.insert(module.id, module);
            }
            return Ok(Good::Json(201, json!(shown)));
        }
        let [number, more @ ..] = rest else {
            return Err(Fault::not_found());
        };
        let id: u64 = number.parse().map_err(|_| Fault::unreadable())?;
        let module = self
            .modules
            .get(&id)
            .ok_or_else(|| Fault::missing("SoftwareModule", number, json!(id)))?;
        match (method, more) {
            ("GET", []) => Ok(Good::Json(200, self.module_view(module, request))),
            ("POST", ["artifacts"]) => self.upload(id, request),
            ("GET", ["artifacts"]) => {
                let shown: Vec<Value> = module
                    .artifacts
                    .iter()
                    .map(|artifact| {
                        let mut view = self.artifact_view(id, artifact, request);
                        if let Some(links) = view["_links"].as_object_mut() {
                            links.remove("download");
                        }
                        view
                    })
                    .collect();
                Ok(Good::Json(200, json!(shown)))
            }
            ("POST", ["metadata"]) => {
                let list = list(request)?;
                let entries = list.iter().map(|entry| {
                    let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
                    (text("key"), text("value"), entry["targetVisible"] == true)
                });
                let entries: Vec<_> = entries.collect();
                if let Some(module) = self.modules.get_mut(&id) {
                    module.metadata.extend(entries);
                }
                Ok(Good::Empty(201))
            }
            _ => Err(Fault::not_found()),
        }
    }

    fn set_calls(&mut self, method: &str, rest: &[&str], request: &Request) -> Answer {
        if let ("POST", []) = (method, rest) {
            return self.new_sets(request);
        }
        let [number, more @ ..] = rest else {
            return Err(Fault::not_found());
        };
        let id: u64 = number.parse().map_err(|_| Fault::unreadable())?;
        let set = self
            .sets
            .get(&id)
            .ok_or_else(|| Fault::missing("DistributionSet", number, json!(id)))?;
        match (method, more) {
            ("GET", []) => Ok(Good::Json(200, self.set_view(set, true, request))),
            ("PUT", []) => {
                let body = any_body(request)?;
                if let Some(set) = self.sets.get_mut(&id) {
                    set.migration_step = body["requiredMigrationStep"] == true;
                }
                let set = &self.sets[&id];
                Ok(Good::Json(200, self.set_view(set, true, request)))
            }
            ("DELETE", []) => {
                if let Some(set) = self.sets.get_mut(&id) {
                    set.deleted = true;
                }
                Ok(self.done())
            }
            ("POST", ["assignedTargets"]) => {
                let list = list(request)?;
                let mut wanted = Vec::new();
                for one in &list {
                    let id = one["id"].as_str().ok_or_else(Fault::unreadable)?;
                    wanted.push((("DEFAULT".to_owned(), id.to_owned()), self.order(one)?));
                }
                self.assign_answer(id, &wanted, request)
            }
            _ => Err(Fault::not_found()),
        }
    }

    fn new_sets(&mut self, request: &Request) -> Answer {
        let list = list(request)?;
        let mut shown = Vec::new();
        for body in list {
            let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
            let modules = body["modules"].as_array().cloned().unwrap_or_default();
            let set = Set {
                id: self.next_id("set"),
                name: text("name"),
                version: text("version"),
                kind: text("type"),
                locked: false,
                deleted: false,
                migration_step: body["requiredMigrationStep"] == true,
                modules: modules.iter().filter_map(|m| m["id"].as_u64()).collect(),
                stamp: Stamp::new(&self.setup.user, self.now),
            };
            shown.push(self.set_view(&set, false, request));
            self.sets.insert(set.id, set);
        }
        Ok(Good::Json(201, json!(shown)))
    }

    fn order(&self, body: &Value) -> Result<Order, Fault> {
        let force = match body["type"].as_str() {
            Some("soft") => Force::Soft,
            Some("downloadonly") => Force::DownloadOnly,
            Some("timeforced") => Force::Timed(body["forcetime"].as_i64().unwrap_or_default()),
            _ => Force::Forced,
        };
        let invalid = |text: String| {
            Fault::of(
                400,
                "InvalidMaintenanceScheduleException",
                "maintenanceScheduleInvalid",
                text,
            )
        };
        let window = match body
            .get("maintenanceWindow")
            .filter(|given| !given.is_null())
        {
            None => None,
            Some(given) => {
                let text = |name: &str| given[name].as_str();
                let (Some(schedule), Some(duration), Some(timezone)) =
                    (text("schedule"), text("duration"), text("timezone"))
                else {
                    return Err(invalid(
                        "All of schedule, duration and timezone should either be null or non empty."
                            .to_owned(),
                    ));
                };
                let window = Window::parse(schedule, duration, timezone).map_err(invalid)?;
                if window.is_lapsed(self.now) {
                    return Err(invalid(
                        "No valid maintenance window available after current time".to_owned(),
                    ));
                }
                Some(window)
            }
        };
        Ok(Order {
            force,
            weight: body["weight"].as_i64(),
            confirmation: body["confirmationRequired"] != false,
            window,
            rollout: None,
        })
    }

    fn assign_from_target(&mut self, key: &Key, request: &Request) -> Answer {
        self.target(key)?;
        let body = any_body(request)?;
        let list = match body.as_array() {
            Some(list) => list.clone(),
            None => vec![body],
        };
        let offline = request.parameter("offline").as_deref() == Some("true");
        let mut made = Vec::new();
        let mut already = 0;
        for one in &list {
            let set = one["id"].as_u64().ok_or_else(Fault::unreadable)?;
            if !self.sets.contains_key(&set) {
                return Err(Fault::missing(
                    "DistributionSet",
                    &set.to_string(),
                    json!(set),
                ));
            }
            if offline {
                match self.install_offline(key, set, &self.setup.user.clone()) {
                    Some(action) => made.push(action),
                    None => already += 1,
                }
            } else {
                let order = self.order(one)?;
                let (new, old) = self.assign(set, &[(key.clone(), order)])?;
                made.extend(new);
                already += old;
            }
        }
        Ok(self.assigned_view(&made, already, request))
    }

    fn assign_answer(&mut self, set: u64, wanted: &[(Key, Order)], request: &Request) -> Answer {
        let found = &self.sets[&set];
        if !self.is_complete(found) {
            return Err(Fault::of(
                400,
                "IncompleteDistributionSetException",
                "distributionset.incomplete",
                format!(
                    "Distribution set of type {} is incomplete: {set}",
                    found.kind
                ),
            ));
        }
        let (made, already) = self.assign(set, wanted)?;
        Ok(self.assigned_view(&made, already, request))
    }

    fn assigned_view(&self, made: &[u64], already: usize, request: &Request) -> Good {
        let base = self.base(request);
        let actions: Vec<Value> = made
            .iter()
            .map(|id| {
                let target = &self.actions[id].target.1;
                let href = format!("{base}/rest/v1/targets/{target}/actions/{id}");
                json!({"id": id, "_links": {"self": {"href": href}}})
            })
            .collect();
        Good::Json(
            200,
            json!({
                "alreadyAssigned": already, "assignedActions": actions,
                "assigned": made.len(), "total": made.len() + already,
            }),
        )
    }

    fn rollout_calls(&mut self, method: &str, rest: &[&str], request: &Request) -> Answer {
        if let ("POST", []) = (method, rest) {
            let body = any_body(request)?;
            return self.new_rollout(&body, request);
        }
        let [number, more @ ..] = rest else {
            return Err(Fault::not_found());
        };
        let id: u64 = number.parse().map_err(|_| Fault::unreadable())?;
        let rollout = self
            .rollouts
            .get(&id)
            .ok_or_else(|| Fault::missing("Rollout", number, json!(id)))?;
        match (method, more) {
            ("GET", []) => Ok(Good::Json(200, self.rollout_view(rollout, request))),
            ("DELETE", []) => {
                self.delete_rollout(id);
                Ok(self.done())
            }
            ("GET", ["deploygroups"]) => {
                let shown: Vec<Value> = rollout
                    .groups
                    .iter()
                    .map(|group| self.group_view(rollout, group, request))
                    .collect();
                let total = shown.len();
                Ok(Good::Json(200, page(shown, total)))
            }
            ("GET", ["deploygroups", group, "targets"]) => {
                let group = rollout
                    .groups
                    .iter()
                    .find(|one| one.id.to_string() == *group);
                let members = group.map(|group| group.members.clone()).unwrap_or_default();
                let shown: Vec<Value> = members
                    .iter()
                    .filter_map(|id| self.targets.get(&("DEFAULT".to_owned(), id.clone())))
                    .map(|target| self.target_view(target, false, request))
                    .collect();
                let total = shown.len();
                Ok(Good::Json(200, page(shown, total)))
            }
            ("POST", [verb]) => self.rollout_verb(id, verb),
            _ => Err(Fault::not_found()),
        }
    }

    fn setting_calls(&mut self, method: &str, rest: &[&str], request: &Request) -> Answer {
        let unknown = |name: &str| {
            Fault::of(
                400,
                "InvalidTenantConfigurationKeyException",
                "configKeyInvalid",
                format!("The given configuration key {name} does not exist."),
            )
        };
        let [name] = rest else {
            return Err(Fault::not_found());
        };
        let default = self.default_setting(name).ok_or_else(|| unknown(name))?;
        match method {
            "GET" => Ok(Good::Json(200, self.setting_view(name, request))),
            "DELETE" => {
                self.settings.remove(*name);
                Ok(self.done())
            }
            "PUT" => {
                let body = any_body(request)?;
                let value = match body.get("value") {
                    None | Some(Value::Null) => return Err(Fault::unreadable()),
                    Some(value) => value.clone(),
                };
                let value = self.checked(name, &default, value)?;
                let new = Stamp::new(&self.setup.user, self.now);
                let kept = self.settings.entry((*name).to_owned());
                let kept = kept.or_insert_with(|| (value.clone(), new.clone()));
                kept.0 = value;
                kept.1.modified_at = new.modified_at;
                if self.setup.release == Release::V0_9_0 {
                    return Ok(Good::Json(200, self.setting_view(name, request)));
                }
                Ok(Good::Empty(204))
            }
            _ => Err(Fault::not_found()),
        }
    }

    fn checked(&self, name: &str, default: &Value, value: Value) -> Result<Value, Fault> {
        let old = self.setup.release == Release::V0_9_0;
        let value = match (default, value) {
            (Value::String(_), Value::Number(number)) if old => {
                return Err(Fault::of(
                    400,
                    "TenantConfigurationValidatorException",
                    "configValueInvalid",
                    format!(
                        "Cannot parse the value {number} of type class java.lang.Integer into the type class java.lang.String defined by the configuration key."
                    ),
                ));
            }
            (Value::String(_), Value::Number(number)) => json!(number.to_string()),
            (_, value) => value,
        };
        if name == "multi.assignments.enabled" && self.is_set(name) && value == Value::Bool(false) {
            return Err(Fault::of(
                403,
                "TenantConfigurationValueChangeNotAllowedException",
                "repo.tenantConfigurationValueChangeNotAllowed",
                "The requested tenant configuration value modification is not allowed.",
            ));
        }
        if let ("pollingTime", Some(text)) = (name, value.as_str()) {
            super::polling::Polling::parse(text, self.setup.release, &self.bounds)?;
        }
        Ok(value)
    }

    fn setting_view(&self, name: &str, request: &Request) -> Value {
        let href = format!("{}/rest/v1/system/configs/{name}", self.base(request));
        let view = json!({
            "value": self.setting(name),
            "global": !self.settings.contains_key(name),
            "_links": {"self": {"href": href}},
        });
        match self.settings.get(name) {
            Some((_, stamp)) => super::views::stamped(stamp, view),
            None => view,
        }
    }

    fn new_kinds(&mut self, of: &str, request: &Request) -> Answer {
        let list = list(request)?;
        let mut shown = Vec::new();
        for body in list {
            let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
            let keys = |name: &str| -> Vec<String> {
                let list = body[name].as_array().cloned().unwrap_or_default();
                list.iter()
                    .filter_map(|one| {
                        let id = one["id"].as_u64()?;
                        let kind = self.module_kinds.iter().find(|kind| kind.id == id)?;
                        Some(kind.key.clone())
                    })
                    .collect()
            };
            let modules = of == "softwaremoduletypes";
            let mandatory = keys("mandatorymodules");
            let count = if modules {
                self.module_kinds.len()
            } else {
                self.set_kinds.len()
            };
            let next = match self.foretold.next.remove("kind") {
                Some(id) => id,
                None => u64::try_from(count).unwrap_or_default() + 1,
            };
            let kind = Kind {
                id: next,
                key: text("key"),
                name: text("name"),
                max: body["maxAssignments"].as_u64().unwrap_or(1),
                mandatory,
            };
            let own = format!("{}/rest/v1/{of}/{}", self.base(request), kind.id);
            let mut view = Map::new();
            view.insert("id".into(), json!(kind.id));
            view.insert("key".into(), json!(kind.key));
            view.insert("name".into(), json!(kind.name));
            view.insert("deleted".into(), json!(false));
            view.insert("createdBy".into(), json!(self.setup.user));
            view.insert("createdAt".into(), json!(self.now));
            view.insert("lastModifiedBy".into(), json!(self.setup.user));
            view.insert("lastModifiedAt".into(), json!(self.now));
            if modules {
                view.insert("maxAssignments".into(), json!(kind.max));
                if self.setup.release != Release::V0_9_0 {
                    view.insert("minArtifacts".into(), json!(0));
                }
                view.insert("_links".into(), json!({"self": {"href": own}}));
                self.module_kinds.push(kind);
            } else {
                view.insert("_links".into(), json!({"self": {"href": own}}));
                self.set_kinds.push(kind);
            }
            shown.push(Value::Object(view));
        }
        Ok(Good::Json(201, json!(shown)))
    }
}
