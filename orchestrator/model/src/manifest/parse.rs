//! From bytes to a [`Manifest`], or to every problem at once.
//!
//! Order: the outer object, each key and value, `#spec`, the device's files, each container, then what only all
//! containers together show. Every step goes on past problems; each looks at its input a bounded number of times.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::groups::{self, DeviceFile};
use super::json::Node;
use super::keys::{self, Entry};
use super::problems::{Problems, Reader, Shown, pointer_to, suggestion};
use super::run::{self, Context, Draft};
use super::{Manifest, Rejected, Value};
use crate::container::Container;
use crate::{ContainerName, GroupName, Key, ObjectId, limits};

/// Files of the outer object that say something about the whole device.
const DEVICE_FILES: [&str; 4] = ["device.json", "groups.json", "disks.json", "disks_v3.json"];

/// Folders that hold no container, whatever is in them.
fn is_container_folder(folder: &str) -> bool {
    folder != "bsp" && !folder.starts_with(['_', '.', '#'])
}

/// Parses and checks.
pub(super) fn parse(bytes: &[u8]) -> Result<Manifest, Rejected> {
    let mut problems = Problems::default();
    let Some(texts) = keys::read(bytes, &mut problems) else {
        return Err(problems
            .into_result()
            .expect_err("nothing was read, so a problem was reported"));
    };
    keys::check_spec(&texts, &mut problems);
    keys::check_claims(&texts, &mut problems);
    let entries = read_entries(&texts, &mut problems);
    let device = read_device(&texts, &entries, &mut problems);
    let order = container_order(&texts, &entries, &mut problems);
    let drafts = read_containers(&order, &entries, &device, &mut problems);
    let containers = finish(drafts, &device, &mut problems);
    problems.into_result()?;
    Ok(Manifest {
        bytes: bytes.to_vec(),
        digest: ObjectId::of(bytes),
        entries,
        groups: device.groups,
        order: order.into_iter().map(|(_, name)| name).collect(),
        containers,
        pools: device.pools,
    })
}

fn read_entries(texts: &[Entry<'_>], problems: &mut Problems) -> BTreeMap<Key, Value> {
    let mut entries = BTreeMap::new();
    for (number, entry) in texts.iter().enumerate() {
        if entry.key == "#spec" {
            continue;
        }
        let key = keys::check_key(number, entry, problems);
        let value = keys::check_value(number, entry, problems);
        if let (Some(key), Some(value)) = (key, value) {
            entries.insert(key, value);
        }
    }
    entries
}

/// The tree of an inline file that is to be read; `None` when it cannot be, which is reported.
fn read_inline(
    (number, key): (usize, &str),
    value: &Value,
    problems: &mut Problems,
) -> Option<Node> {
    let text = match value {
        Value::Inline(text) => text,
        Value::Object(_) => {
            problems.add_entry(
                (number, key),
                "not-inline",
                format_args!("{} must be inline JSON, not an object", Shown(key)),
                format_args!("put the file's content into the manifest"),
            );
            return None;
        }
    };
    if text.len() > limits::INLINE_READ_BYTES_MAX {
        problems.add_entry(
            (number, key),
            "file-too-large",
            format_args!("{} has {} bytes", Shown(key), text.len()),
            format_args!("keep it to {} bytes", limits::INLINE_READ_BYTES_MAX),
        );
        return None;
    }
    match Node::parse(text) {
        Ok(node) => Some(node),
        Err(error) => {
            problems.add_entry(
                (number, key),
                "invalid-json",
                format_args!("{} is no valid JSON: {error}", Shown(key)),
                format_args!("correct the text there"),
            );
            None
        }
    }
}

fn read_device(
    texts: &[Entry<'_>],
    entries: &BTreeMap<Key, Value>,
    problems: &mut Problems,
) -> DeviceFile {
    let mut files = Vec::new();
    for (number, entry) in texts.iter().enumerate() {
        let key = entry.key.as_ref();
        if !DEVICE_FILES.contains(&key) || files.iter().any(|(_, other, _)| *other == key) {
            continue;
        }
        let value = key.parse::<Key>().ok().and_then(|key| entries.get(&key));
        if let Some(root) = value.and_then(|value| read_inline((number, key), value, problems)) {
            files.push((number, key, root));
        }
    }
    let files: Vec<_> = files
        .iter()
        .map(|(entry, key, root)| groups::File {
            entry: *entry,
            key,
            root,
        })
        .collect();
    groups::read(&files, problems)
}

/// Names of the containers, those folders that have a `run.json`, in the order in which the text first names them;
/// each with the number of its `run.json`.
fn container_order(
    texts: &[Entry<'_>],
    entries: &BTreeMap<Key, Value>,
    problems: &mut Problems,
) -> Vec<(usize, ContainerName)> {
    let mut first_seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut found: Vec<(usize, usize, ContainerName)> = Vec::new();
    for (number, entry) in texts.iter().enumerate() {
        let Some((folder, rest)) = entry.key.split_once('/') else {
            continue;
        };
        let seen = *first_seen.entry(folder).or_insert(number);
        if rest != "run.json" || !is_container_folder(folder) {
            continue;
        }
        if !entry
            .key
            .parse()
            .is_ok_and(|key: Key| entries.contains_key(&key))
        {
            continue;
        }
        match folder.parse() {
            Ok(name) if found.iter().any(|(_, _, other)| *other == name) => {}
            Ok(_) if found.len() == limits::CONTAINERS_MAX => problems.add_entry(
                (number, &entry.key),
                "too-many-containers",
                format_args!("there are more than {} containers", limits::CONTAINERS_MAX),
                format_args!("put several processes into one container"),
            ),
            Ok(name) => found.push((seen, number, name)),
            Err(error) => problems.add_entry(
                (number, &entry.key),
                "bad-container-name",
                format_args!("{error}"),
                format_args!("rename the folder to a short word such as \"web\""),
            ),
        }
    }
    found.sort_by_key(|(seen, _, _)| *seen);
    found
        .into_iter()
        .map(|(_, number, name)| (number, name))
        .collect()
}

/// Keys below a container, and below its part of `_config/`.
#[derive(Default)]
struct Folder<'m> {
    own: Vec<(&'m Key, &'m Value)>,
    overlays: Vec<(&'m Key, &'m Value)>,
}

fn read_containers(
    order: &[(usize, ContainerName)],
    entries: &BTreeMap<Key, Value>,
    device: &DeviceFile,
    problems: &mut Problems,
) -> Vec<Draft> {
    let mut folders: BTreeMap<&str, Folder<'_>> = BTreeMap::new();
    for (key, value) in entries {
        match key.split_first() {
            Some(("_config", rest)) => {
                if let Some((name, _)) = rest.split_once('/') {
                    folders.entry(name).or_default().overlays.push((key, value));
                }
            }
            Some((name, _)) => folders.entry(name).or_default().own.push((key, value)),
            None => {}
        }
    }
    let mut drafts = Vec::new();
    for (number, name) in order {
        let folder = folders.remove(name.as_str()).unwrap_or_default();
        let key = format!("{name}/run.json");
        let value = folder
            .own
            .iter()
            .find(|(own, _)| own.as_str() == key)
            .map(|(_, value)| *value);
        let Some(root) = value.and_then(|value| read_inline((*number, &key), value, problems))
        else {
            continue;
        };
        let context = Context {
            name,
            entries,
            own: &folder.own,
            overlays: &folder.overlays,
            device,
        };
        let mut reader = Reader::new(*number, &key, &root, problems);
        drafts.extend(run::read(&mut reader, &context));
    }
    drafts
}

fn finish(
    drafts: Vec<Draft>,
    device: &DeviceFile,
    problems: &mut Problems,
) -> BTreeMap<ContainerName, Container> {
    let placed = place_ungrouped(&drafts, device);
    let group_of = |draft: &Draft| -> GroupName {
        draft
            .group
            .clone()
            .unwrap_or_else(|| placed[&draft.name].clone())
    };
    let rank_of = |name: &GroupName| device.groups.iter().position(|group| group.name == *name);
    let ranks: BTreeMap<ContainerName, Option<usize>> = drafts
        .iter()
        .map(|draft| (draft.name.clone(), rank_of(&group_of(draft))))
        .collect();
    check_dependencies(&drafts, &ranks, problems);
    check_addresses(&drafts, problems);
    let mut containers = BTreeMap::new();
    for draft in drafts {
        let group = device
            .group(group_of(&draft).as_str())
            .unwrap_or(&device.groups[0]);
        containers.insert(draft.name.clone(), draft.finish(group, problems));
    }
    containers
}

/// Where containers without a group go: into the last group; with the built-in groups, the alphabetically first into
/// `root` when nothing is there, the rest into `platform`.
fn place_ungrouped(drafts: &[Draft], device: &DeviceFile) -> BTreeMap<ContainerName, GroupName> {
    let mut ungrouped: Vec<&ContainerName> = drafts
        .iter()
        .filter(|draft| draft.group.is_none())
        .map(|draft| &draft.name)
        .collect();
    ungrouped.sort();
    let last = &device.groups.last().expect("there is always a group").name;
    let has_root = drafts.iter().any(|draft| {
        draft
            .group
            .as_ref()
            .is_some_and(|group| group.as_str() == "root")
    });
    let name_of = |text: &str| device.group(text).map_or(last, |group| &group.name).clone();
    ungrouped
        .into_iter()
        .enumerate()
        .map(|(index, name)| {
            let group = match (device.is_built_in, index == 0 && !has_root) {
                (false, _) => last.clone(),
                (true, true) => name_of("root"),
                (true, false) => name_of("platform"),
            };
            (name.clone(), group)
        })
        .collect()
}

/// A dependency must exist, must not start in a later group, and must not lead back.
fn check_dependencies(
    drafts: &[Draft],
    ranks: &BTreeMap<ContainerName, Option<usize>>,
    problems: &mut Problems,
) {
    let circles = Circles::of(drafts);
    for draft in drafts {
        for edge in &draft.depends_on {
            let place = (draft.entry, edge.at);
            let pointer = || {
                let file = pointer_to(&format!("{}/run.json", draft.name));
                format!("{file}/depends-on/{}", edge.index)
            };
            let target = edge.name.as_str();
            let Some(rank) = ranks.get(&edge.name) else {
                let remedy = suggestion(target, ranks.keys().map(ContainerName::as_str));
                problems.add(
                    place,
                    "unknown-dependency",
                    pointer,
                    format_args!("there is no container {}", Shown(target)),
                    format_args!("{remedy}"),
                );
                continue;
            };
            if *rank > ranks[&draft.name] {
                problems.add(
                    place,
                    "later-dependency",
                    pointer,
                    format_args!("{} starts in a later group", Shown(target)),
                    format_args!("move one of the two, or drop the dependency"),
                );
            } else if circles.lead_back(&draft.name, &edge.name) {
                problems.add(
                    place,
                    "dependency-cycle",
                    pointer,
                    format_args!("{} waits for {}", Shown(target), Shown(draft.name.as_str())),
                    format_args!("drop one dependency of the circle"),
                );
            }
        }
    }
}

/// Which container waits, over any number of steps, for which.
struct Circles<'d> {
    numbers: BTreeMap<&'d ContainerName, usize>,
    /// `waits[one][other]`; a square of at most `limits::CONTAINERS_MAX`.
    waits: Vec<Vec<bool>>,
}

impl<'d> Circles<'d> {
    fn of(drafts: &'d [Draft]) -> Self {
        let numbers: BTreeMap<&ContainerName, usize> = drafts
            .iter()
            .enumerate()
            .map(|(number, draft)| (&draft.name, number))
            .collect();
        let mut waits = vec![vec![false; drafts.len()]; drafts.len()];
        for (row, draft) in waits.iter_mut().zip(drafts) {
            for edge in &draft.depends_on {
                if let Some(&other) = numbers.get(&edge.name) {
                    row[other] = true;
                }
            }
        }
        // Warshall: what `middle` waits for, everything that waits for `middle` waits for too.
        for middle in 0..drafts.len() {
            let beyond = waits[middle].clone();
            for row in waits.iter_mut().filter(|row| row[middle]) {
                for (waits, is_beyond) in row.iter_mut().zip(&beyond) {
                    *waits |= is_beyond;
                }
            }
        }
        Self { numbers, waits }
    }

    /// Whether `other`, for which `one` waits, waits for `one` too.
    fn lead_back(&self, one: &ContainerName, other: &ContainerName) -> bool {
        one == other || self.waits[self.numbers[other]][self.numbers[one]]
    }
}

/// Two containers must not ask for one address.
fn check_addresses(drafts: &[Draft], problems: &mut Problems) {
    let mut taken: BTreeMap<(&str, IpAddr), &ContainerName> = BTreeMap::new();
    for draft in drafts {
        let Some((pool, address, at)) = &draft.address else {
            continue;
        };
        let Some(other) = taken.insert((pool, *address), &draft.name) else {
            continue;
        };
        problems.add(
            (draft.entry, *at),
            "address-conflict",
            || {
                format!(
                    "{}/network/ip",
                    pointer_to(&format!("{}/run.json", draft.name))
                )
            },
            format_args!("{address} is that of container {}", Shown(other.as_str())),
            format_args!("give one of the two another address"),
        );
    }
}
