//! What a change touches, part by part, as claims see it.
//!
//! Not the same as `plan`: there only counts what a running process notices, here whatever was written by somebody: a role, a goal, or
//! the provenance of a container is that container's as well.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use model::manifest::Value;
use model::{ContainerName, GroupName, Key, Manifest};

/// One part that is touched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Touch {
    /// Something below `bsp/`.
    Bsp,
    /// A container.
    Container {
        /// Which.
        name: ContainerName,
        /// The groups it is in, before and after.
        groups: BTreeSet<GroupName>,
    },
    /// The definition of a group.
    Group(GroupName),
    /// What belongs to no container, to no group and not to `bsp/`.
    Rest,
}

impl fmt::Display for Touch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bsp => f.write_str("bsp"),
            Self::Container { name, .. } => write!(f, "container {name}"),
            Self::Group(name) => write!(f, "group {name}"),
            Self::Rest => f.write_str("what belongs to the whole device"),
        }
    }
}

/// Control of one container.
pub fn by_control(name: &ContainerName, group: &GroupName) -> BTreeSet<Touch> {
    BTreeSet::from([Touch::Container {
        name: name.clone(),
        groups: BTreeSet::from([group.clone()]),
    }])
}

/// Running `next` in the place of `running`; everything in it when nothing runs. A revision that differs in nothing touches
/// [`Touch::Rest`]: it is another name to boot.
pub fn by_run(running: Option<&Manifest>, next: &Manifest) -> BTreeSet<Touch> {
    let mut touched = containers(running, next);
    if below(running, "bsp") != below(Some(next), "bsp") {
        touched.insert(Touch::Bsp);
    }
    touched.extend(groups(running, next).into_iter().map(Touch::Group));
    let rest = match running {
        Some(running) => {
            running.rest_fingerprint() != next.rest_fingerprint() || reordered(running, next)
        }
        None => true,
    };
    if rest || touched.is_empty() {
        touched.insert(Touch::Rest);
    }
    touched
}

fn below<'a>(manifest: Option<&'a Manifest>, folder: &str) -> BTreeMap<&'a Key, &'a Value> {
    let entries = manifest.map(Manifest::entries).into_iter().flatten();
    entries
        .filter(|(key, _)| key.split_first().is_some_and(|(first, _)| first == folder))
        .collect()
}

/// Keys and values by the container that they belong to.
fn by_container(manifest: &Manifest) -> BTreeMap<&str, BTreeMap<&Key, &Value>> {
    let mut all: BTreeMap<&str, BTreeMap<&Key, &Value>> = BTreeMap::new();
    for (key, value) in manifest.entries() {
        let Some((first, rest)) = key.split_first() else {
            continue;
        };
        let name = match first {
            "_config" => rest.split_once('/').map_or(rest, |(name, _)| name),
            _ => first,
        };
        all.entry(name).or_default().insert(key, value);
    }
    all
}

fn containers(running: Option<&Manifest>, next: &Manifest) -> BTreeSet<Touch> {
    let before = running.map(by_container).unwrap_or_default();
    let after = by_container(next);
    let old = running.into_iter().flat_map(Manifest::containers);
    let names: BTreeSet<_> = next
        .containers()
        .chain(old)
        .map(|spec| &spec.name)
        .collect();
    names
        .into_iter()
        .filter_map(|name| {
            let old = running.and_then(|running| running.container(name));
            let new = next.container(name);
            let same = match (old, new) {
                (Some(old), Some(new)) => {
                    // What it uses of the device counts by its fingerprint.
                    old.fingerprint == new.fingerprint
                        && old.group == new.group
                        && before.get(name.as_str()) == after.get(name.as_str())
                }
                (Some(_) | None, Some(_) | None) => false,
            };
            (!same).then(|| Touch::Container {
                name: name.clone(),
                groups: old
                    .into_iter()
                    .chain(new)
                    .map(|spec| spec.group.clone())
                    .collect(),
            })
        })
        .collect()
}

fn groups(running: Option<&Manifest>, next: &Manifest) -> BTreeSet<GroupName> {
    let old = running.map(Manifest::groups).unwrap_or_default();
    let all = old.iter().chain(next.groups());
    all.filter(|group| {
        let before = running.and_then(|running| running.group(&group.name));
        before != next.group(&group.name)
    })
    .map(|group| group.name.clone())
    .collect()
}

/// Whether groups that stay have changed places: they start in order.
fn reordered(running: &Manifest, next: &Manifest) -> bool {
    let staying = |of: &'_ Manifest, other: &Manifest| -> Vec<GroupName> {
        let names = of.groups().iter().map(|group| group.name.clone());
        names.filter(|name| other.group(name).is_some()).collect()
    };
    staying(running, next) != staying(next, running)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const DB: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    fn run(name: &str, group: &str, more: &str) -> String {
        format!(
            r##""{name}/run.json":{{"#spec":"service-manifest-run@1","name":"{name}","type":"oci","command":["/x"],
            "root-volume":"root.squashfs","group":"{group}"{more}}},"{name}/root.squashfs":"{WEB}""##
        )
    }

    fn groups(names: &[&str], more: &str) -> String {
        let list: Vec<_> = names
            .iter()
            .map(|name| format!(r#"{{"name":"{name}","status_goal":"STARTED","restart_policy":"container","timeout":30}}"#))
            .collect();
        format!(r#""device.json":{{"groups":[{}]{more}}}"#, list.join(","))
    }

    fn manifest(parts: &[String]) -> Manifest {
        let text = format!(
            r##"{{"#spec":"pantavisor-service-system@1",{}}}"##,
            parts.join(",")
        );
        Manifest::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    fn told(running: Option<&Manifest>, next: &Manifest) -> String {
        let all: Vec<_> = by_run(running, next)
            .iter()
            .map(|touch| match touch {
                Touch::Container { name, groups } => {
                    let groups: Vec<_> = groups.iter().map(GroupName::as_str).collect();
                    format!("{name}({})", groups.join(" "))
                }
                Touch::Bsp | Touch::Group(_) | Touch::Rest => touch.to_string(),
            })
            .collect();
        all.join(", ")
    }

    #[test]
    fn each_change_touches_its_own_part_and_no_other() {
        let bsp = |value: &str| format!(r#""bsp/kernel":"{value}""#);
        let both = |web: &str, device: String, more: &[String]| {
            let mut parts = vec![device, run("web", "app", web), run("db", "app", "")];
            parts.extend(more.iter().cloned());
            manifest(&parts)
        };
        let plain = || groups(&["root", "app"], "");
        let base = both("", plain(), &[bsp(WEB)]);
        let text = |key: &str, value: &str| format!(r#""{key}":{value}"#);
        for (what, next, expected) in [
            (
                "nothing",
                both("", plain(), &[bsp(WEB)]),
                "what belongs to the whole device",
            ),
            ("kernel", both("", plain(), &[bsp(DB)]), "bsp"),
            ("no bsp", both("", plain(), &[]), "bsp"),
            (
                "role",
                both(r#","roles":["mgmt"]"#, plain(), &[bsp(WEB)]),
                "web(app)",
            ),
            (
                "goal",
                both(r#","status_goal":"READY""#, plain(), &[bsp(WEB)]),
                "web(app)",
            ),
            (
                "provenance",
                both(
                    "",
                    plain(),
                    &[bsp(WEB), text("web/build.json", r#"{"commit":"x"}"#)],
                ),
                "web(app)",
            ),
            (
                "overlay",
                both(
                    "",
                    plain(),
                    &[bsp(WEB), text("_config/web/etc/x", &format!("{DB:?}"))],
                ),
                "web(app)",
            ),
            (
                "another one",
                both("", plain(), &[bsp(WEB), run("more", "root", "")]),
                "more(root)",
            ),
            (
                "one less",
                manifest(&[plain(), run("db", "app", ""), bsp(WEB)]),
                "web(app)",
            ),
            (
                "moved",
                manifest(&[
                    plain(),
                    run("web", "root", ""),
                    run("db", "app", ""),
                    bsp(WEB),
                ]),
                "web(app root)",
            ),
            (
                "a new group",
                both("", groups(&["root", "app", "extra"], ""), &[bsp(WEB)]),
                "group extra",
            ),
            (
                "groups in another order",
                both("", groups(&["app", "root"], ""), &[bsp(WEB)]),
                "what belongs to the whole device",
            ),
            (
                "a pool",
                both(
                    "",
                    groups(&["root", "app"], r#","network":{"pools":{}}"#),
                    &[bsp(WEB)],
                ),
                "what belongs to the whole device",
            ),
        ] {
            assert_eq!(told(Some(&base), &next), expected, "{what}");
            // The way back touches the same.
            assert_eq!(told(Some(&next), &base), expected, "{what}, back");
        }
    }

    #[test]
    fn without_a_running_revision_everything_is_touched() {
        let next = manifest(&[
            groups(&["app"], ""),
            run("web", "app", ""),
            format!(r#""bsp/kernel":"{WEB}""#),
        ]);
        assert_eq!(
            told(None, &next),
            "bsp, web(app), group app, what belongs to the whole device"
        );
    }

    #[test]
    fn a_group_that_changes_does_not_touch_its_containers() {
        let slow = groups(&["app"], "").replace("30", "60");
        let one = manifest(&[groups(&["app"], ""), run("web", "app", "")]);
        let other = manifest(&[slow, run("web", "app", "")]);
        assert_eq!(told(Some(&one), &other), "group app");
    }
}
