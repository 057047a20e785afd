//! What differs between two manifests, in words of their keys: why a container is another one, why a boot is needed.
//!
//! Whether a container is the same is decided by its fingerprint alone; what stands here only explains it. A container whose
//! fingerprint differs has at least one change here, one whose fingerprint is equal has only settings (a test holds both).

use std::collections::{BTreeMap, BTreeSet};

use super::json::{Data, Node};
use super::{Manifest, Value, fingerprint};
use crate::container::{Container, Health, Kind};
use crate::{ContainerName, Key};

/// What differs in one container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// The image of its root file system.
    pub root: bool,
    /// Fields of `run.json` that shape its processes.
    pub fields: Vec<String>,
    /// Other keys of it (`lxc.container.conf`) and files laid over its root file system (`_config/web/etc/x`).
    pub files: Vec<String>,
    /// Definitions in `device.json` of pools or disks that it uses.
    pub shared: bool,
    /// What the orchestrator applies without restarting it: `goal`, `health`, `depends-on`, …
    pub settings: Vec<&'static str>,
}

impl Changes {
    /// Whether it is another container: what runs cannot become this.
    pub fn makes_another(&self) -> bool {
        self.root || self.shared || !self.fields.is_empty() || !self.files.is_empty()
    }
}

type Keys<'m> = BTreeMap<&'m Key, &'m Value>;

impl Manifest {
    /// What differs in each container that both have; containers without any difference are left out.
    pub fn changes_since(&self, before: &Self) -> BTreeMap<ContainerName, Changes> {
        let (old_keys, new_keys) = (keys_of_containers(before), keys_of_containers(self));
        let none = Keys::new();
        let mut all = BTreeMap::new();
        for new in self.containers() {
            let Some(old) = before.container(&new.name) else {
                continue;
            };
            let mut changes = Changes {
                settings: settings(old, new),
                ..Changes::default()
            };
            if old.fingerprint != new.fingerprint {
                let name = new.name.as_str();
                let old_keys = old_keys.get(name).unwrap_or(&none);
                let new_keys = new_keys.get(name).unwrap_or(&none);
                explain(&mut changes, (old, old_keys), (new, new_keys));
            }
            if changes != Changes::default() {
                all.insert(new.name.clone(), changes);
            }
        }
        all
    }

    /// Keys below `bsp/` that only a boot can bring in, or take away.
    pub fn boot_changes_since(&self, before: &Self) -> Vec<String> {
        let old: Keys<'_> = before.boot_entries().collect();
        let new: Keys<'_> = self.boot_entries().collect();
        differing(&old, &new).map(ToString::to_string).collect()
    }
}

/// Keys of each container: its own, and what `_config/` lays over its root file system.
fn keys_of_containers(manifest: &Manifest) -> BTreeMap<&str, Keys<'_>> {
    let mut containers: BTreeMap<&str, Keys<'_>> = BTreeMap::new();
    for (key, value) in &manifest.entries {
        let Some((first, rest)) = key.split_first() else {
            continue;
        };
        let name = match first {
            "_config" => rest.split('/').next().unwrap_or_default(),
            name => name,
        };
        containers.entry(name).or_default().insert(key, value);
    }
    containers
}

fn differing<'m>(old: &Keys<'m>, new: &Keys<'m>) -> impl Iterator<Item = &'m Key> {
    let names: BTreeSet<&'m Key> = old.keys().chain(new.keys()).copied().collect();
    names
        .into_iter()
        .filter(|name| old.get(name) != new.get(name))
        .collect::<Vec<_>>()
        .into_iter()
}

fn explain(
    changes: &mut Changes,
    (old, old_keys): (&Container, &Keys<'_>),
    (new, new_keys): (&Container, &Keys<'_>),
) {
    let image = |container: &Container| container.root.as_ref().map(|root| root.object);
    changes.root = image(old) != image(new);
    let roots: Vec<&str> = [old, new]
        .into_iter()
        .filter_map(|container| container.root.as_ref())
        .map(|root| root.key.as_str())
        .collect();
    for key in differing(old_keys, new_keys) {
        let own = key
            .split_first()
            .filter(|(first, _)| *first == new.name.as_str());
        let before = old_keys.get(key).copied();
        let after = new_keys.get(key).copied();
        match own {
            Some((_, "run.json")) => changes.fields = fields(before, after),
            Some((_, "build.json")) => {}
            Some((_, "src.json")) if !shapes(new, before, after) => {}
            Some((_, rest)) if rest.ends_with(".docker-digest") => {}
            Some(_) if changes.root && roots.contains(&key.as_str()) => {}
            Some((_, rest)) => changes.files.push(rest.to_owned()),
            None => changes.files.push(key.to_string()),
        }
    }
    // All else that a fingerprint counts are the definitions that it uses.
    changes.shared = !changes.makes_another();
}

/// Whether provenance counts: only that of an lxc container can, by its image configuration.
fn shapes(new: &Container, before: Option<&Value>, after: Option<&Value>) -> bool {
    let config = |value: Option<&Value>| match value {
        Some(Value::Inline(text)) => Node::parse(text)
            .ok()
            .and_then(|source| source.get("docker_config").map(Node::canonical)),
        Some(Value::Object(_)) | None => None,
    };
    match new.kind {
        Kind::Lxc { .. } => config(before) != config(after),
        Kind::Oci(_) => false,
    }
}

fn fields(before: Option<&Value>, after: Option<&Value>) -> Vec<String> {
    let read = |value: Option<&Value>| -> BTreeMap<String, String> {
        let Some(Value::Inline(text)) = value else {
            return BTreeMap::new();
        };
        match Node::parse(text).map(|node| node.data) {
            Ok(Data::Object(fields)) => fields
                .into_iter()
                .filter(|(name, _)| !fingerprint::NOT_COUNTED.contains(&name.as_str()))
                .map(|(name, node)| (name, node.canonical()))
                .collect(),
            Ok(Data::Null | Data::Bool(_) | Data::Number(_) | Data::Text(_) | Data::List(_))
            | Err(_) => BTreeMap::new(),
        }
    };
    let (old, new) = (read(before), read(after));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    names
        .into_iter()
        .filter(|name| old.get(*name) != new.get(*name))
        .cloned()
        .collect()
}

fn settings(old: &Container, new: &Container) -> Vec<&'static str> {
    fn health(container: &Container) -> Option<&Health> {
        match &container.kind {
            Kind::Oci(oci) => oci.health.as_ref(),
            Kind::Lxc { .. } => None,
        }
    }
    [
        ("group", old.group != new.group),
        ("status_goal", old.goal != new.goal),
        (
            "time-out of its group",
            old.goal_timeout != new.goal_timeout,
        ),
        ("restart_policy", old.restart_policy != new.restart_policy),
        ("roles", old.roles != new.roles),
        ("auto_recovery", old.recovery != new.recovery),
        ("depends-on", old.depends_on != new.depends_on),
        ("health", health(old) != health(new)),
        ("stop-signal", old.stop_signal != new.stop_signal),
        ("stop-timeout", old.stop_timeout != new.stop_timeout),
    ]
    .into_iter()
    .filter_map(|(name, differs)| differs.then_some(name))
    .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    fn manifest(change: impl FnOnce(&mut Json)) -> Manifest {
        let mut json = json!({
            "#spec": "pantavisor-service-system@1",
            "bsp/run.json": {"fit": "pv.fit"},
            "bsp/pv.fit": "1".repeat(64),
            "bsp/build.json": {"by": "me"},
            "device.json": {
                "groups": [{"name": "app", "status_goal": "STARTED", "restart_policy": "container", "timeout": 30}],
                "network": {"pools": {"lan": {"type": "bridge", "subnet": "10.0.5.0/24"}}},
            },
            "web/run.json": {
                "#spec": "service-manifest-run@1", "name": "web", "type": "oci", "root-volume": "root.squashfs",
                "group": "app", "command": ["/web"], "network": {"pool": "lan"},
            },
            "web/root.squashfs": "2".repeat(64),
            "web/src.json": {"docker_config": {"Cmd": ["/web"]}},
            "_config/web/etc/web.json": {"port": 80},
            "old/run.json": {
                "#spec": "service-manifest-run@1", "name": "old", "type": "lxc", "root-volume": "root.squashfs",
                "config": "lxc.container.conf",
            },
            "old/root.squashfs": "3".repeat(64),
            "old/lxc.container.conf": "4".repeat(64),
            "old/src.json": {"docker_config": {"Cmd": ["/old"]}, "when": 1},
        });
        change(&mut json);
        Manifest::parse(json.to_string().as_bytes()).unwrap()
    }

    /// Each difference in words, and that it explains the fingerprints.
    fn difference(change: impl FnOnce(&mut Json)) -> String {
        let (before, after) = (manifest(|_| {}), manifest(change));
        let mut words = Vec::new();
        let changes = after.changes_since(&before);
        for new in after.containers() {
            let Some(old) = before.container(&new.name) else {
                continue;
            };
            let none = Changes::default();
            let change = changes.get(&new.name).unwrap_or(&none);
            assert_eq!(
                change.makes_another(),
                old.fingerprint != new.fingerprint,
                "{}: {change:?}",
                new.name
            );
            let mut push = |what: &str, names: &[String]| {
                if !names.is_empty() {
                    words.push(format!("{} {what} {}", new.name, names.join(",")));
                }
            };
            push("fields", &change.fields);
            push("files", &change.files);
            let settings: Vec<_> = change.settings.iter().map(ToString::to_string).collect();
            push("settings", &settings);
            if change.root {
                words.push(format!("{} root", new.name));
            }
            if change.shared {
                words.push(format!("{} shared", new.name));
            }
        }
        let boot = after.boot_changes_since(&before);
        assert_eq!(
            boot.is_empty(),
            before.boot_fingerprint() == after.boot_fingerprint()
        );
        words.extend(boot);
        words.join("; ")
    }

    #[test]
    fn each_change_is_explained_and_explains_the_fingerprint() {
        type Change = fn(&mut Json);
        let table: &[(Change, &str)] = &[
            (|_| {}, ""),
            (
                |it| it["web/root.squashfs"] = json!("5".repeat(64)),
                "web root",
            ),
            (
                |it| it["web/run.json"]["command"] = json!(["/web", "-v"]),
                "web fields command",
            ),
            (
                |it| {
                    it["web/run.json"]["env"] = json!(["A=1"]);
                    it["web/run.json"]["read-only"] = json!(true);
                },
                "web fields env,read-only",
            ),
            (
                |it| it["web/run.json"]["stop-timeout"] = json!(3),
                "web settings stop-timeout",
            ),
            (
                |it| it["web/run.json"]["status_goal"] = json!("READY"),
                "web settings status_goal",
            ),
            (
                |it| {
                    it["web/run.json"]["health"] = json!({"tcp": {"port": 80}});
                    it["web/run.json"]["depends-on"] = json!(["old"]);
                },
                "web settings depends-on,health",
            ),
            (
                |it| it["device.json"]["groups"][0]["timeout"] = json!(60),
                "old settings time-out of its group; web settings time-out of its group",
            ),
            (
                |it| it["device.json"]["network"]["pools"]["lan"]["subnet"] = json!("10.0.6.0/24"),
                "web shared",
            ),
            (
                |it| it["_config/web/etc/web.json"] = json!({"port": 81}),
                "web files _config/web/etc/web.json",
            ),
            (
                |it| it["_config/web/etc/more"] = json!("6".repeat(64)),
                "web files _config/web/etc/more",
            ),
            (|it| it["web/src.json"] = json!({"when": 2}), ""),
            (
                |it| it["old/src.json"]["docker_config"]["Cmd"] = json!(["/new"]),
                "old files src.json",
            ),
            (|it| it["old/src.json"]["when"] = json!(2), ""),
            (
                |it| it["old/lxc.container.conf"] = json!("7".repeat(64)),
                "old files lxc.container.conf",
            ),
            (|it| it["bsp/pv.fit"] = json!("8".repeat(64)), "bsp/pv.fit"),
            (
                |it| it["bsp/firmware.squashfs"] = json!("9".repeat(64)),
                "bsp/firmware.squashfs",
            ),
            (|it| it["bsp/build.json"] = json!({"by": "you"}), ""),
        ];
        for (index, (change, words)) in table.iter().enumerate() {
            assert_eq!(difference(change), *words, "row {index}");
        }
    }
}
