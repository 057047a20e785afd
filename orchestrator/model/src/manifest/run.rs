//! `<container>/run.json`: what both kinds of container say, and the container that comes out.
//!
//! Reading has two steps, because a container without a group is placed only when all containers are known:
//! [`read`] makes a [`Draft`], [`Draft::finish`] fills in what the group decides.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::groups::{self, DeviceFile};
use super::health;
use super::json::{Data, Node};
use super::problems::{Problems, Reader, Shown, suggestion};
use super::storage;
use super::{Value, drivers, fingerprint, lxc, network, oci, recovery};
use crate::container::{
    Container, Goal, Group, Kind, Network, Overlay, Recovery, RestartPolicy, Roles, RootVolume,
    Volume,
};
use crate::{ContainerName, GroupName, Key, ObjectId};

/// What Pantavisor sends to stop a container: SIGPWR, and SIGKILL five seconds later.
const LXC_STOP: (u32, Duration) = (30, Duration::from_secs(5));
/// As containers elsewhere: SIGTERM, and SIGKILL ten seconds later.
const OCI_STOP: (u32, Duration) = (15, Duration::from_secs(10));

/// What a container's file is read against.
pub(super) struct Context<'m> {
    pub(super) name: &'m ContainerName,
    pub(super) entries: &'m BTreeMap<Key, Value>,
    /// Keys below the container.
    pub(super) own: &'m [(&'m Key, &'m Value)],
    /// Keys below `_config/<container>`.
    pub(super) overlays: &'m [(&'m Key, &'m Value)],
    pub(super) device: &'m DeviceFile,
}

impl<'m> Context<'m> {
    pub(super) fn own_keys(&self) -> impl Iterator<Item = &'m Key> {
        self.own.iter().map(|(key, _)| *key)
    }

    pub(super) fn own_entries(&self) -> impl Iterator<Item = (&'m Key, &'m Value)> {
        self.own.iter().copied()
    }

    pub(super) fn overlay_entries(&self) -> impl Iterator<Item = (&'m Key, &'m Value)> {
        self.overlays.iter().copied()
    }
}

/// A container before its group is known.
pub(super) struct Draft {
    /// Number of its run.json in the text.
    pub(super) entry: usize,
    pub(super) name: ContainerName,
    kind: Kind,
    pub(super) group: Option<GroupName>,
    goal: Option<Goal>,
    restart_policy: Option<RestartPolicy>,
    roles: Roles,
    recovery: Option<Recovery>,
    has_root_field: bool,
    root: Option<RootVolume>,
    volumes: Vec<Volume>,
    overlays: BTreeMap<String, Overlay>,
    /// Names as they stand, each with its place and its index in the list.
    pub(super) depends_on: Vec<Dependency>,
    /// A fixed address in a pool, with its place.
    pub(super) address: Option<(String, IpAddr, u32)>,
    stop: (u32, Duration),
    fingerprint: ObjectId,
    /// Whether anything says what to start.
    has_command: bool,
    /// The lxc configuration that is not there.
    missing_config: Option<String>,
}

/// One item of `depends-on`.
pub(super) struct Dependency {
    pub(super) name: ContainerName,
    pub(super) at: u32,
    pub(super) index: usize,
}

/// Reads one run.json. `None` when nothing of it can be used; why is reported.
pub(super) fn read(reader: &mut Reader<'_, '_>, context: &Context<'_>) -> Option<Draft> {
    let root = reader.root;
    reader.object(root)?;
    check_name(reader, context);
    let is_oci = read_type(reader)?;
    let group = read_group(reader, context);
    let goal = root
        .get("status_goal")
        .and_then(|node| reader.choice(node, "unknown-goal", &groups::GOALS));
    let restart_policy = root
        .get("restart_policy")
        .and_then(|node| reader.choice(node, "unknown-restart-policy", &groups::RESTART_POLICIES));
    let image = root
        .get("root-volume")
        .and_then(|node| storage::read_image(reader, node, context));
    let images = root.get("volumes").and_then(|node| reader.list(node));
    for node in images.unwrap_or_default() {
        check_extra_image(reader, node, context);
    }
    let volumes = root
        .get("storage")
        .map(|node| storage::read_volumes(reader, node, context, is_oci))
        .unwrap_or_default();
    let recovery = root
        .get("auto_recovery")
        .and_then(|node| recovery::read(reader, node));
    let roles = read_roles(reader);
    check_shapes(reader);
    let network = network::read(reader, context);
    let mut draft = Draft {
        entry: reader.entry,
        name: context.name.clone(),
        kind: Kind::Oci(Box::default()),
        group,
        goal,
        restart_policy,
        roles,
        recovery,
        has_root_field: root.get("root-volume").is_some(),
        root: image,
        volumes,
        overlays: overlays(context),
        depends_on: read_depends_on(reader),
        address: network.address,
        stop: if is_oci { OCI_STOP } else { LXC_STOP },
        fingerprint: ObjectId::of(b""),
        has_command: true,
        missing_config: None,
    };
    read_stop(reader, &mut draft.stop);
    if is_oci {
        let (oci, has_command) = oci::read(reader, context, network.network, &draft.volumes);
        draft.kind = Kind::Oci(Box::new(oci));
        draft.has_command = has_command;
    } else {
        draft.read_lxc(reader, context, network.network)?;
    }
    let pool = root.get("network").and_then(|network| network.get("pool"));
    let pool = pool.and_then(|pool| match &pool.data {
        Data::Text(name) => context.device.pools.get(name),
        Data::Null | Data::Bool(_) | Data::Number(_) | Data::List(_) | Data::Object(_) => None,
    });
    let pool = pool.map(|pool| format!("{pool:?}"));
    let disks = draft
        .volumes
        .iter()
        .filter_map(|volume| volume.disk.as_deref());
    let disks = disks.filter_map(|disk| context.device.disks.get(disk).map(AsRef::as_ref));
    let uses: Vec<&str> = pool.as_deref().into_iter().chain(disks).collect();
    draft.fingerprint = fingerprint::of(context, root, &draft.kind, &uses);
    Some(draft)
}

impl Draft {
    fn read_lxc<'a>(
        &mut self,
        reader: &mut Reader<'a, '_>,
        context: &Context<'_>,
        network: Network,
    ) -> Option<()> {
        let lxc = lxc::read(reader, context, network)?;
        if lxc.config.is_none() {
            self.missing_config = Some(lxc.key.to_string());
        }
        self.kind = Kind::Lxc(Box::new(lxc));
        Some(())
    }

    /// The container, now that its group is known.
    pub(super) fn finish(self, group: &Group, problems: &mut Problems) -> Container {
        let goal = self.goal.unwrap_or(group.goal);
        let key = format!("{}/run.json", self.name);
        let mut missing = |code, detail: std::fmt::Arguments<'_>, remedy: &str| {
            let remedy = format_args!("{remedy}");
            problems.add_entry((self.entry, &key), code, detail, remedy);
        };
        if goal > Goal::Mounted {
            if !self.has_root_field {
                missing(
                    "missing-root-volume",
                    format_args!("the container is to be started but has no root file system"),
                    "add \"root-volume\", or set \"status_goal\" to \"MOUNTED\"",
                );
            }
            if !self.has_command {
                missing(
                    "missing-command",
                    format_args!("neither command nor image-config says what to start"),
                    "add \"command\", such as [\"/bin/web\", \"--port\", \"80\"]",
                );
            }
            if let Some(config) = &self.missing_config {
                missing(
                    "missing-key",
                    format_args!("the container has no configuration {}", Shown(config)),
                    "add that key, or set \"type\" to \"oci\" and add \"command\"",
                );
            }
        }
        Container {
            name: self.name,
            kind: self.kind,
            group: group.name.clone(),
            goal,
            goal_timeout: group.timeout,
            restart_policy: self.restart_policy.unwrap_or(group.restart_policy),
            roles: self.roles,
            recovery: self
                .recovery
                .or(group.recovery)
                .unwrap_or(recovery::DEFAULT),
            recovery_given: self.recovery.or(group.recovery).is_some(),
            root: self.root,
            volumes: self.volumes,
            overlays: self.overlays,
            depends_on: self
                .depends_on
                .into_iter()
                .map(|dependency| dependency.name)
                .collect(),
            stop_signal: self.stop.0,
            stop_timeout: self.stop.1,
            fingerprint: self.fingerprint,
        }
    }
}

fn check_name(reader: &mut Reader<'_, '_>, context: &Context<'_>) {
    let root = reader.root;
    let expected = context.name.as_str();
    match root.get("name") {
        None => reader.report(
            root,
            "missing-name",
            format_args!("run.json has no name"),
            format_args!("add \"name\": \"{expected}\""),
        ),
        Some(node) => match reader.text(node) {
            Some(name) if name != expected => reader.report(
                node,
                "wrong-name",
                format_args!("the name {} is not that of the folder", Shown(name)),
                format_args!("use {expected:?}, or rename the folder"),
            ),
            Some(_) | None => {}
        },
    }
}

/// Whether the container is of our own kind.
fn read_type(reader: &mut Reader<'_, '_>) -> Option<bool> {
    match reader.root.get("type") {
        Some(node) => reader.choice(node, "unknown-type", &[("lxc", false), ("oci", true)]),
        None => Some(false),
    }
}

fn read_group(reader: &mut Reader<'_, '_>, context: &Context<'_>) -> Option<GroupName> {
    let root = reader.root;
    let node = root.get("group").or_else(|| root.get("runlevel"))?;
    let name = reader.text(node)?;
    let group = context.device.group(name);
    if group.is_none() {
        let groups = context.device.groups.iter();
        let remedy = suggestion(name, groups.map(|group| group.name.as_str()));
        reader.report(
            node,
            "unknown-group",
            format_args!("there is no group {}", Shown(name)),
            format_args!("{remedy}"),
        );
    }
    group.map(|group| group.name.clone())
}

fn check_extra_image<'a>(reader: &mut Reader<'a, '_>, node: &'a Node, context: &Context<'_>) {
    let Some(text) = reader.text(node) else {
        return;
    };
    let name = text.split_once(':').map_or(text, |(_, name)| name);
    // What kind of image it is, is the run time's business: `.bind` and `.data` exist too.
    let _found = storage::read_reference(reader, node, name, context);
}

fn read_roles(reader: &mut Reader<'_, '_>) -> Roles {
    let mut roles = Roles {
        given: false,
        mgmt: false,
        monitor: false,
    };
    let Some(node) = reader.root.get("roles") else {
        return roles;
    };
    roles.given = true;
    let names: Vec<&str> = match &node.data {
        // As pvr once wrote it: a name counts unless it is switched off.
        Data::Object(fields) => fields
            .iter()
            .filter(|(_, value)| !matches!(value.data, Data::Bool(false) | Data::Null))
            .map(|(name, _)| name.as_str())
            .collect(),
        Data::Null | Data::Bool(_) | Data::Number(_) | Data::Text(_) | Data::List(_) => {
            reader.texts(node)
        }
    };
    // Other names are let pass, as Pantavisor does: they give nothing.
    roles.mgmt = names.contains(&"mgmt");
    roles.monitor = names.contains(&"monitor");
    roles
}

/// Pantavisor's fields that this model does not look into must at least be of the right type.
fn check_shapes(reader: &mut Reader<'_, '_>) {
    let root = reader.root;
    drivers::check(reader);
    if let Some(node) = root.get("services") {
        reader.object(node);
    }
    if let Some(node) = root.get("exports") {
        reader.texts(node);
    }
    if let Some(node) = root.get("dev-log") {
        reader.flag(node);
    }
}

fn overlays(context: &Context<'_>) -> BTreeMap<String, Overlay> {
    let path_of = |key: &Key| {
        let rest = key.as_str().strip_prefix("_config/")?;
        rest.split_once('/').map(|(_, path)| path.to_owned())
    };
    context
        .overlay_entries()
        .filter_map(|(key, value)| {
            let overlay = match value {
                Value::Object(object) => Overlay::Object(*object),
                Value::Inline(text) => Overlay::Inline(text.clone()),
            };
            path_of(key).map(|path| (path, overlay))
        })
        .collect()
}

fn read_depends_on(reader: &mut Reader<'_, '_>) -> Vec<Dependency> {
    let Some(items) = reader
        .root
        .get("depends-on")
        .and_then(|node| reader.list(node))
    else {
        return Vec::new();
    };
    let mut dependencies = Vec::new();
    for (index, item) in items.iter().enumerate() {
        match reader.text(item).map(str::parse) {
            Some(Ok(name)) => dependencies.push(Dependency {
                name,
                at: item.at,
                index,
            }),
            Some(Err(error)) => reader.report(
                item,
                "unknown-dependency",
                format_args!("{error}"),
                format_args!("name a container of this manifest"),
            ),
            None => {}
        }
    }
    dependencies
}

fn read_stop(reader: &mut Reader<'_, '_>, stop: &mut (u32, Duration)) {
    let root = reader.root;
    if let Some(signal) = root
        .get("stop-signal")
        .and_then(|node| health::read_signal(reader, node))
    {
        stop.0 = signal;
    }
    if let Some(timeout) = root
        .get("stop-timeout")
        .and_then(|node| reader.duration(node))
    {
        stop.1 = timeout;
    }
}
