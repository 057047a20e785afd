//! The chain of causes: from a container that is below its goal to what it waits for, and from there on.
//!
//! Bounded in depth and length; a container that was told of is not told of again, so a cycle ends.

use std::collections::BTreeSet;

use model::container::{Container, Kind};
use model::{ContainerName, Manifest, Status};

use super::{container_sentence, damage, exit};
use crate::messages::ours::{ContainerStatus, DeviceStatus, WhyLink};

/// Links from the subject to the last cause.
const DEPTH_MAX: u32 = 16;
/// Links of one answer.
const LINKS_MAX: usize = 64;

/// Follows causes.
pub(super) struct Chain<'a> {
    status: &'a DeviceStatus,
    /// Of the running revision, or of the one being tried.
    manifest: Option<&'a Manifest>,
    told: BTreeSet<ContainerName>,
    pub(super) links: Vec<WhyLink>,
}

impl<'a> Chain<'a> {
    pub(super) fn new(status: &'a DeviceStatus, manifest: Option<&'a Manifest>) -> Self {
        Self {
            status,
            manifest,
            told: BTreeSet::new(),
            links: Vec::new(),
        }
    }

    fn push(&mut self, depth: u32, about: impl ToString, text: String) {
        if self.links.len() < LINKS_MAX {
            self.links.push(WhyLink {
                depth,
                about: about.to_string(),
                text,
            });
        }
    }

    /// A container as a cause, and its own causes below it.
    pub(super) fn container(&mut self, depth: u32, container: &ContainerStatus) {
        self.push(depth, &container.name, container_sentence(container));
        self.causes_of(depth + 1, container);
    }

    /// What made a container what it is; nothing when it was told already.
    pub(super) fn causes_of(&mut self, depth: u32, container: &ContainerStatus) {
        if depth > DEPTH_MAX || !self.told.insert(container.name.clone()) {
            return;
        }
        let name = &container.name;
        if let Some(text) = ends(container) {
            self.push(depth, name, text);
        }
        if container.out_of_memory {
            let spec = self.manifest.and_then(|it| it.container(name));
            self.push(depth, name, memory(name, spec));
        }
        if let Some(object) = &container.damaged {
            let text = format!("{}; put the object again", damage(object));
            self.push(depth, name, text);
        }
        if let Some(problem) = &container.health_problem {
            let text = format!("the last failing health check of {name} said: {problem}");
            self.push(depth, name, text);
        }
        if container.retries > 0 {
            let of = match container.max_retries {
                0 => String::new(),
                most => format!(" of {most}"),
            };
            let text = format!("{}{of} retries of {name} are used", container.retries);
            self.push(depth, name, text);
        }
        if matches!(
            container.status,
            Status::Blocked | Status::Installed | Status::None
        ) {
            self.waits_of(depth, container);
        }
    }

    fn waits_of(&mut self, depth: u32, container: &ContainerStatus) {
        let status = self.status;
        let named = |name: &ContainerName| status.containers.iter().find(|it| it.name == *name);
        let spec = self.manifest.and_then(|it| it.container(&container.name));
        for name in spec
            .map(|spec| spec.depends_on.as_slice())
            .unwrap_or_default()
        {
            if let Some(other) = named(name).filter(|other| !other.good) {
                let text = format!(
                    "{} depends on {name}, whose goal is {}",
                    container.name, other.goal
                );
                self.push(depth, &container.name, text);
                self.container(depth + 1, other);
            }
        }
        let own = status
            .groups
            .iter()
            .position(|it| it.name == container.group);
        for group in &status.groups[..own.unwrap_or(0)] {
            let members: Vec<_> = status
                .containers
                .iter()
                .filter(|it| it.group == group.name && !it.good)
                .collect();
            if members.is_empty() {
                continue;
            }
            let text = format!("{} waits for group {}", container.name, group.name);
            self.push(depth, &container.name, text);
            for member in members {
                self.container(depth + 1, member);
            }
        }
    }
}

/// "ended three times, the last time with exit code 1".
fn ends(container: &ContainerStatus) -> Option<String> {
    let code = container.exit_code?;
    let running = container.pid.is_some();
    let ended = container
        .restarts
        .saturating_add(u32::from(!running))
        .max(1);
    let how = exit(code, container.out_of_memory);
    let name = &container.name;
    Some(match ended {
        1 => format!("the last run of {name} {how}"),
        _ => format!("{name} ended {}; its last run {how}", times(ended)),
    })
}

fn times(count: u32) -> String {
    match count {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        3 => "three times".to_owned(),
        count => format!("{count} times"),
    }
}

/// The limit that was hit, as the manifest gives it.
pub(super) fn memory(name: &ContainerName, spec: Option<&Container>) -> String {
    let Some(spec) = spec else {
        return format!("how much memory {name} may use is not known here");
    };
    let limit = match &spec.kind {
        Kind::Oci(oci) => oci.resources.memory_bytes,
        Kind::Lxc { .. } => None,
    };
    match limit {
        Some(bytes) => format!(
            "its memory limit of {} was hit (resources.memory in {name}/run.json)",
            size(bytes)
        ),
        None => format!("{name} has no memory limit of its own: the machine was out of memory"),
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        bytes if bytes > 0 && bytes % (1 << 30) == 0 => format!("{}G", bytes >> 30),
        bytes if bytes > 0 && bytes % (1 << 20) == 0 => format!("{}M", bytes >> 20),
        bytes => format!("{bytes} bytes"),
    }
}
