//! What the operator is shown of each record.

use serde_json::{Map, Value, json};

use super::device::NO_TEXT;
use super::records::{Action, Artifact, Force, Module, Set, Stamp, Status, Target};
use super::rollouts::{Group, Rollout};
use super::wire::{Request, encode};
use super::{Hawkbit, Release};

pub(crate) fn stamped(stamp: &Stamp, mut view: Value) -> Value {
    view["createdBy"] = json!(stamp.created_by);
    view["createdAt"] = json!(stamp.created_at);
    view["lastModifiedBy"] = json!(stamp.modified_by);
    view["lastModifiedAt"] = json!(stamp.modified_at);
    view
}

/// A list as the management API pages it.
pub(crate) fn page(content: Vec<Value>, total: usize) -> Value {
    let size = content.len();
    json!({"content": content, "total": total, "size": size})
}

impl Hawkbit {
    fn rest(&self, request: &Request) -> String {
        format!("{}/rest/v1", self.base(request))
    }

    /// A target; `whole` adds the links of a single one.
    pub(crate) fn target_view(&self, target: &Target, whole: bool, request: &Request) -> Value {
        let own = format!(
            "{}/targets/{}",
            self.rest(request),
            encode(&target.id, false)
        );
        let mut view = stamped(
            &target.stamp,
            json!({
                "name": target.name,
                "controllerId": target.id,
                "updateStatus": target.status.word(),
                "securityToken": target.token,
                "requestAttributes": target.wants_attributes,
            }),
        );
        if let Some(description) = &target.description {
            view["description"] = json!(description);
        }
        if self.is_set("user.confirmation.flow.enabled") {
            view["autoConfirmActive"] = json!(target.auto_confirm.is_some());
        }
        if let Some(at) = target.polled_at {
            let next = at + 300_000;
            view["lastControllerRequestAt"] = json!(at);
            view["pollStatus"] = json!({
                "lastRequestAt": at, "nextExpectedRequestAt": next,
                "overdue": self.now > next + 300_000,
            });
        }
        if let Some(at) = target.installed_at {
            view["installedAt"] = json!(at);
        }
        if let Some(address) = &target.address {
            view["ipAddress"] = json!(address);
            view["address"] = json!(format!("http://{address}"));
        }
        let mut links = json!({"self": {"href": own}});
        if whole {
            links["assignedDS"] = json!({"href": format!("{own}/assignedDS")});
            links["installedDS"] = json!({"href": format!("{own}/installedDS")});
            links["attributes"] = json!({"href": format!("{own}/attributes")});
            links["actions"] =
                json!({"href": format!("{own}/actions?offset=0&limit=50&sort=id%3ADESC")});
            links["metadata"] = json!({"href": format!("{own}/metadata")});
            if self.is_set("user.confirmation.flow.enabled") {
                links["autoConfirm"] = json!({"href": format!("{own}/autoConfirm")});
            }
        }
        view["_links"] = links;
        view
    }

    pub(crate) fn module_view(&self, module: &Module, request: &Request) -> Value {
        let own = format!("{}/softwaremodules/{}", self.rest(request), module.id);
        let mut view = stamped(
            &module.stamp,
            json!({
                "name": module.name, "id": module.id, "version": module.version,
                "type": module.kind, "typeName": module.kind_name,
                "encrypted": module.encrypted, "locked": module.locked, "deleted": false,
                "_links": {"self": {"href": own}},
            }),
        );
        if self.setup.release != Release::V0_9_0 {
            view["complete"] = json!(true);
        }
        view
    }

    pub(crate) fn artifact_view(
        &self,
        module: u64,
        artifact: &Artifact,
        request: &Request,
    ) -> Value {
        let own = format!(
            "{}/softwaremodules/{module}/artifacts/{}",
            self.rest(request),
            artifact.id
        );
        stamped(
            &artifact.stamp,
            json!({
                "id": artifact.id,
                "hashes": {
                    "sha1": artifact.sha1, "md5": artifact.md5, "sha256": artifact.sha256,
                },
                "providedFilename": artifact.name,
                "size": artifact.bytes.len(),
                "_links": {
                    "self": {"href": own}, "download": {"href": format!("{own}/download")},
                },
            }),
        )
    }

    /// Whether a set has every module that its type demands.
    pub(crate) fn is_complete(&self, set: &Set) -> bool {
        let Some(kind) = self.set_kinds.iter().find(|kind| kind.key == set.kind) else {
            return false;
        };
        kind.mandatory.iter().all(|wanted| {
            set.modules
                .iter()
                .any(|module| self.modules[module].kind == *wanted)
        })
    }

    pub(crate) fn set_view(&self, set: &Set, whole: bool, request: &Request) -> Value {
        let own = format!("{}/distributionsets/{}", self.rest(request), set.id);
        let kind = self.set_kinds.iter().find(|kind| kind.key == set.kind);
        let modules: Vec<Value> = set
            .modules
            .iter()
            .map(|module| self.module_view(&self.modules[module], request))
            .collect();
        let mut links = json!({"self": {"href": own}});
        if whole {
            links["modules"] = json!({"href": format!("{own}/assignedSM?offset=0&limit=50")});
            links["metadata"] = json!({"href": format!("{own}/metadata")});
            links["type"] = json!({"href": format!(
                "{}/distributionsettypes/{}",
                self.rest(request),
                kind.map_or(0, |kind| kind.id)
            )});
        }
        stamped(
            &set.stamp,
            json!({
                "name": set.name, "id": set.id, "version": set.version,
                "type": set.kind, "typeName": kind.map(|kind| kind.name.clone()),
                "complete": self.is_complete(set), "locked": set.locked,
                "deleted": set.deleted, "valid": true,
                "requiredMigrationStep": set.migration_step,
                "modules": modules, "_links": links,
            }),
        )
    }

    pub(crate) fn action_view(&self, action: &Action, whole: bool, request: &Request) -> Value {
        let rest = self.rest(request);
        let of = format!("{rest}/targets/{}", encode(&action.target.1, false));
        let own = format!("{of}/actions/{}", action.id);
        let cancels = action.is_cancelling_or_cancelled();
        let mut view = stamped(
            &action.stamp,
            json!({
                "id": action.id,
                "type": if cancels { "cancel" } else { "update" },
                "forceType": action.force.word(),
                "weight": action.weight,
            }),
        );
        match self.setup.release {
            Release::V0_9_0 => {
                view["status"] = json!(if action.active { "pending" } else { "finished" });
                view["detailStatus"] = json!(action.status.word());
            }
            Release::V1_0_4 => {
                view["active"] = json!(action.active);
                view["status"] = json!(action.status.word());
            }
        }
        if let Force::Timed(at) = action.force {
            view["forceTime"] = json!(at);
        }
        if let Some(code) = action.last_code {
            view["lastStatusCode"] = json!(code);
        }
        if let Some(window) = &action.window {
            view["maintenanceWindow"] = json!({
                "schedule": window.schedule, "duration": window.duration,
                "timezone": window.timezone,
                "nextStartAt": window.start(self.now).unwrap_or_default(),
            });
        }
        if let Some((rollout, _)) = action.rollout {
            view["rollout"] = json!(rollout);
            view["rolloutName"] = json!(self.rollouts.get(&rollout).map(|r| r.name.clone()));
        }
        let mut links = json!({"self": {"href": own}});
        if whole {
            let target = self.targets.get(&action.target);
            let set = self.sets.get(&action.set);
            if cancels {
                links["canceledaction"] = json!({"href": own});
            }
            links["target"] = json!({"href": of, "name": target.map(|t| t.name.clone())});
            links["distributionset"] = json!({
                "href": format!("{rest}/distributionsets/{}", action.set),
                "name": set.map(|set| format!("{}:{}", set.name, set.version)),
            });
            links["status"] =
                json!({"href": format!("{own}/status?offset=0&limit=50&sort=id%3ADESC")});
            if let Some((rollout, _)) = action.rollout {
                links["rollout"] = json!({
                    "href": format!("{rest}/rollouts/{rollout}"),
                    "name": self.rollouts.get(&rollout).map(|r| r.name.clone()),
                });
            }
        }
        view["_links"] = links;
        view
    }

    pub(crate) fn rows_view(&self, action: &Action, request: &Request) -> Value {
        let mut rows: Vec<Value> = action
            .rows
            .iter()
            .map(|row| {
                let messages: Vec<Value> = row
                    .messages
                    .iter()
                    .map(|text| {
                        if text == NO_TEXT {
                            Value::Null
                        } else {
                            json!(text)
                        }
                    })
                    .collect();
                let mut view = json!({
                    "id": row.id, "type": row.kind.word(), "messages": messages,
                    "reportedAt": row.reported_at, "timestamp": row.timestamp,
                });
                if let Some(code) = row.code {
                    view["code"] = json!(code);
                }
                view
            })
            .collect();
        let total = rows.len();
        if request
            .parameter("sort")
            .is_none_or(|sort| !sort.ends_with("ASC"))
        {
            rows.reverse();
        }
        let limit = request
            .parameter("limit")
            .and_then(|limit| limit.parse().ok());
        rows.truncate(limit.unwrap_or(50));
        page(rows, total)
    }

    fn counts(&self, actions: &[&Action], missing: usize) -> Value {
        let count = |fits: &dyn Fn(Status) -> bool| {
            actions.iter().filter(|action| fits(action.status)).count()
        };
        json!({
            "running": count(&|s| matches!(
                s,
                Status::Running | Status::Retrieved | Status::Download | Status::Downloaded
                    | Status::Warning | Status::Canceling | Status::CancelRejected | Status::Waiting
            )),
            "notstarted": missing,
            "scheduled": count(&|s| s == Status::Scheduled),
            "cancelled": count(&|s| s == Status::Canceled),
            "finished": count(&|s| s == Status::Finished),
            "error": count(&|s| s == Status::Error),
        })
    }

    pub(crate) fn rollout_view(&self, rollout: &Rollout, request: &Request) -> Value {
        let rest = self.rest(request);
        let own = format!("{rest}/rollouts/{}", rollout.id);
        let actions: Vec<&Action> = self
            .actions
            .values()
            .filter(|action| action.rollout.is_some_and(|(id, _)| id == rollout.id))
            .collect();
        let set = self.sets.get(&rollout.set);
        let mut links = Map::new();
        for verb in [
            "start",
            "pause",
            "resume",
            "triggerNextGroup",
            "approve",
            "deny",
        ] {
            links.insert(verb.to_owned(), json!({"href": format!("{own}/{verb}")}));
        }
        links.insert(
            "groups".to_owned(),
            json!({"href": format!("{own}/deploygroups?offset=0&limit=50")}),
        );
        links.insert(
            "distributionset".to_owned(),
            json!({
                "href": format!("{rest}/distributionsets/{}", rollout.set),
                "name": set.map(|set| format!("{}:{}", set.name, set.version)),
            }),
        );
        links.insert("self".to_owned(), json!({"href": own}));
        stamped(
            &rollout.stamp,
            json!({
                "name": rollout.name, "id": rollout.id,
                "targetFilterQuery": rollout.filter, "distributionSetId": rollout.set,
                "status": rollout.state.word(),
                "totalTargets": rollout.total,
                "totalTargetsPerStatus":
                    self.counts(&actions, rollout.total.saturating_sub(actions.len())),
                "totalGroups": rollout.groups.len(), "forcetime": 0,
                "deleted": rollout.is_deleted(), "type": rollout.force.word(),
                "weight": rollout.weight, "dynamic": false, "_links": links,
            }),
        )
    }

    pub(crate) fn group_view(&self, rollout: &Rollout, group: &Group, request: &Request) -> Value {
        let actions: Vec<&Action> = self
            .actions
            .values()
            .filter(|action| action.rollout == Some((rollout.id, group.id)))
            .collect();
        stamped(
            &group.stamp,
            json!({
                "name": group.name, "description": group.name,
                "successCondition": {"condition": "THRESHOLD", "expression": rollout.success},
                "successAction": {"action": "NEXTGROUP", "expression": ""},
                "errorCondition": {"condition": "THRESHOLD", "expression": rollout.error},
                "errorAction": {"action": "PAUSE", "expression": ""},
                "targetFilterQuery": "", "targetPercentage": group.percent,
                "id": group.id, "dynamic": false, "status": group.state.word(),
                "totalTargets": group.members.len(),
                "totalTargetsPerStatus":
                    self.counts(&actions, group.members.len().saturating_sub(actions.len())),
                "_links": {"self": {"href": format!(
                    "{}/rollouts/{}/deploygroups/{}",
                    self.rest(request), rollout.id, group.id
                )}},
            }),
        )
    }
}
