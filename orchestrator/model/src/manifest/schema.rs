//! The shape of a manifest as types, from which the published JSON Schema is made (`manifest.schema.json`).
//!
//! The parser does not read through these types: it reports every problem with its place, which no derived reader does.
//! A test holds the two together: every field that the parser knows is here and the other way round.

#![allow(dead_code)] // never built: their shape is their use

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, json_schema};

use crate::container::{
    Capabilities, Device, Goal, Mount, Persistence, RecoveryPolicy, RestartPolicy, Seccomp,
};

/// Seconds as a number, or a text: `500ms`, `5s`, `2min`, `1h`.
#[derive(JsonSchema)]
#[serde(untagged)]
enum Time {
    /// Seconds.
    Seconds(f64),
    /// With a unit.
    Text(String),
}

/// Bytes as a number, or a text: `64K`, `64M`, `1G` (powers of 1024).
#[derive(JsonSchema)]
#[serde(untagged)]
enum Size {
    /// Bytes.
    Bytes(u64),
    /// With a unit.
    Text(String),
}

/// Name or number of a signal: `TERM`, `SIGTERM`, `RTMIN+3`, 15.
#[derive(JsonSchema)]
#[serde(untagged)]
enum SignalName {
    /// Its number, 1 to 64.
    Number(u32),
    /// Its name.
    Name(String),
}

/// `auto_recovery`: when a container that ended is started again.
#[derive(JsonSchema)]
struct AutoRecovery {
    /// When. Absent: on-failure.
    policy: Option<RecoveryPolicy>,
    /// Retries before backoff_policy; 0 is no limit. Absent: 5.
    max_retries: Option<u32>,
    /// Pause before the first retry. Absent: 5 s.
    retry_delay: Option<Time>,
    /// Each pause is this many times the one before, 1 to 100. Absent: 2.
    backoff_factor: Option<f64>,
    /// An exit after more than this uptime forgets the retries before it; 0: never. Absent: 300 s.
    reset_window: Option<Time>,
    /// Uptime after which it counts as stable; gates the commit. Absent: 30 s.
    stable_timeout: Option<Time>,
    /// When all retries are used up: `reboot`, `never`, or a pause such as `10min`. Absent: reboot.
    backoff_policy: Option<Time>,
}

/// Roles on the control socket.
#[derive(JsonSchema)]
#[serde(untagged)]
enum Roles {
    /// `mgmt`, `monitor`; other names give nothing.
    List(Vec<String>),
    /// Old form: a name counts unless it is false.
    Object(BTreeMap<String, serde_json::Value>),
}

/// A writable volume.
#[derive(JsonSchema)]
pub(super) struct Volume {
    /// How long its content is kept.
    persistence: Persistence,
    /// Where it is mounted; `docker--etc-foo` is `/etc/foo` by its name, `lxc-overlay` has none.
    path: Option<String>,
    /// Name of a disk of device.json.
    disk: Option<String>,
}

/// `network`.
#[derive(JsonSchema)]
pub(super) struct Network {
    /// `host` (absent: this), `none`, `pool`.
    mode: Option<String>,
    /// A pool of device.json.
    pool: Option<String>,
    /// A fixed address of the pool.
    ip: Option<String>,
    /// A fixed hardware address.
    mac: Option<String>,
    /// Host name.
    hostname: Option<String>,
}

/// `image-config`.
#[derive(JsonSchema)]
#[serde(untagged)]
enum ImageConfig {
    /// A key of this container: an object or inline JSON.
    Key(String),
    /// An OCI image configuration.
    Inline(BTreeMap<String, serde_json::Value>),
}

/// A device node.
#[derive(JsonSchema)]
#[serde(untagged)]
enum DeviceNode {
    /// Its path, with all access.
    Path(String),
    /// With access.
    Access(Device),
}

/// `resources`; what is absent is not limited.
#[derive(JsonSchema)]
pub(super) struct Resources {
    /// Memory, from 1M.
    memory: Option<Size>,
    /// Processors: 1.5 is one and a half.
    cpu: Option<f64>,
    /// Processes and threads.
    pids: Option<u32>,
    /// Weight of disk requests, 1 to 1000.
    io: Option<u16>,
}

/// `http` of a health check: GET; 2xx and 3xx are well.
#[derive(JsonSchema)]
struct HttpProbe {
    /// TCP port.
    port: u16,
    /// Path with query. Absent: `/`.
    path: Option<String>,
}

/// `health`: exactly one of exec, http, tcp, ready.
#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Health {
    /// A command inside; exit code 0 is well.
    exec: Option<Vec<String>>,
    /// An HTTP request.
    http: Option<HttpProbe>,
    /// A TCP connection to this port.
    tcp: Option<u16>,
    /// The READY signal alone.
    ready: Option<bool>,
    /// Pause between two questions. Absent: 10 s.
    interval: Option<Time>,
    /// How long an answer may take. Absent: 5 s.
    timeout: Option<Time>,
    /// Failures in a row that make the container sick. Absent: 3.
    retries: Option<u32>,
    /// Failures within this time after the start do not count. Absent: 0.
    start_period: Option<Time>,
}

/// `logs`.
#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Logs {
    /// Size at which a file is rotated. Absent: 1M.
    max_size: Option<Size>,
    /// Rotated files that are kept. Absent: 3.
    files: Option<u32>,
    /// Files of the container, by path, whose lines are collected too.
    follow: Option<Vec<String>>,
}

/// `logs` of either kind.
#[derive(JsonSchema)]
#[serde(untagged)]
enum AnyLogs {
    /// Ours.
    Settings(Logs),
    /// Pantavisor's list of further files to collect.
    Files(Vec<BTreeMap<String, String>>),
}

/// `<container>/run.json`. Fields below `image-config` are of the kind `oci` only.
#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Run {
    /// `service-manifest-run@1`; not checked.
    #[serde(rename = "#spec")]
    spec: Option<String>,
    /// The folder's name.
    name: String,
    /// `lxc` (absent: this) as pvr makes it, `oci` ours.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// For people.
    description: Option<String>,
    /// A group of the device. Absent: the last one; with the built-in groups `root` for the first, `platform` for the rest.
    group: Option<String>,
    /// Old name of group.
    runlevel: Option<String>,
    /// Absent: the group's.
    #[serde(rename = "status_goal")]
    status_goal: Option<Goal>,
    /// Absent: the group's.
    #[serde(rename = "restart_policy")]
    restart_policy: Option<RestartPolicy>,
    /// Absent: the group's.
    #[serde(rename = "auto_recovery")]
    auto_recovery: Option<AutoRecovery>,
    /// Absent: none, unless the device's settings say otherwise.
    roles: Option<Roles>,
    /// Root image, a key of this container that ends in .squashfs, .erofs or .ext4; a handler such as `dm:` may stand before it.
    root_volume: Option<String>,
    /// More images, keys of this container.
    volumes: Option<Vec<String>>,
    /// Writable volumes by name.
    storage: Option<BTreeMap<String, Volume>>,
    /// Network.
    network: Option<Network>,
    /// Containers that must have reached their goal first.
    depends_on: Option<Vec<String>>,
    /// Asks it to stop. Absent: TERM; for lxc PWR.
    stop_signal: Option<SignalName>,
    /// How long it may take to stop. Absent: 10 s; for lxc 5 s.
    stop_timeout: Option<Time>,
    /// Log settings.
    logs: Option<AnyLogs>,
    /// lxc: its configuration, a key of this container. Absent: lxc.container.conf.
    config: Option<String>,
    /// Pantavisor's; not used.
    share: Option<String>,
    /// Provide /dev/log. Absent: true for lxc, else false.
    dev_log: Option<bool>,
    /// Pantavisor's: drivers by abstract name.
    drivers: Option<BTreeMap<String, serde_json::Value>>,
    /// Pantavisor's: services that it uses.
    services: Option<BTreeMap<String, serde_json::Value>>,
    /// Pantavisor's: paths that others see.
    exports: Option<Vec<String>>,
    /// Pantavisor's: `no` stops the automatic mounts of modules and firmware.
    automodfw: Option<String>,
    /// Pantavisor's; not used.
    conditions: Option<serde_json::Value>,
    /// OCI image configuration.
    image_config: Option<ImageConfig>,
    /// Replaces entrypoint and cmd of the image configuration.
    command: Option<Vec<String>>,
    /// `NAME=value`, added to the image configuration's.
    env: Option<Vec<String>>,
    /// Working directory.
    workdir: Option<String>,
    /// `user[:group]`, by name or number.
    user: Option<String>,
    /// Host name. Absent: the container's name.
    hostname: Option<String>,
    /// Bind mounts from the host.
    mounts: Option<Vec<Mount>>,
    /// Device nodes below /dev.
    devices: Option<Vec<DeviceNode>>,
    /// Change to the default set.
    capabilities: Option<Capabilities>,
    /// System call filter.
    seccomp: Option<Seccomp>,
    /// Root file system without a writable layer.
    read_only: Option<bool>,
    /// Own user namespace.
    user_namespace: Option<bool>,
    /// Limits.
    resources: Option<Resources>,
    /// Health check.
    health: Option<Health>,
}

/// A group of containers.
#[derive(JsonSchema)]
struct Group {
    /// Its name.
    name: String,
    /// For people.
    description: Option<String>,
    /// Default goal of its containers. Absent: STARTED.
    status_goal: Option<Goal>,
    /// Default of its containers. Absent: container.
    restart_policy: Option<RestartPolicy>,
    /// How long its containers may take to reach their goals. Absent: 120 s.
    timeout: Option<Time>,
    /// Default of its containers.
    auto_recovery: Option<AutoRecovery>,
}

/// A disk; more fields are Pantavisor's and let pass.
#[derive(JsonSchema)]
struct Disk {
    /// Its name.
    name: String,
    /// More names.
    aliases: Option<Vec<String>>,
}

/// A pool of addresses.
#[derive(JsonSchema)]
struct Pool {
    /// `bridge` (absent: this) or `macvlan`.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// Name of the bridge.
    bridge: Option<String>,
    /// Interface that a macvlan sits on.
    parent: Option<String>,
    /// Network address and length of its prefix.
    subnet: String,
    /// The gateway's address.
    gateway: Option<String>,
    /// Whether containers reach the outside through the host's address.
    nat: Option<bool>,
}

/// `network` of device.json.
#[derive(JsonSchema)]
struct DeviceNetwork {
    /// Pools by name.
    pools: Option<BTreeMap<String, Pool>>,
}

/// `device.json`.
#[derive(JsonSchema)]
pub(super) struct DeviceFile {
    /// In start order. Absent: the built-in groups data, root, platform, app.
    groups: Option<Vec<Group>>,
    /// Disks by name.
    disks: Option<Vec<Disk>>,
    /// Address pools.
    network: Option<DeviceNetwork>,
    /// Pantavisor's internal volumes; let pass.
    volumes: Option<BTreeMap<String, serde_json::Value>>,
}

/// The JSON Schema of a manifest, as published in `manifest.schema.json`.
///
/// It says what shape a manifest has. What only the whole shows (references, groups, paths that collide) is checked by
/// [`Manifest::parse`](super::Manifest::parse).
pub fn schema() -> Schema {
    let mut generator = schemars::generate::SchemaSettings::draft2020_12().into_generator();
    let run = generator.subschema_for::<Run>();
    let device = generator.subschema_for::<DeviceFile>();
    let definitions = generator.take_definitions(true);
    json_schema!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Manifest of a revision",
        "description": "One flat object: keys are paths, values are names of objects or inline JSON.",
        "type": "object",
        "required": ["#spec"],
        "properties": {
            "#spec": { "enum": [super::keys::SPEC, super::keys::SPEC_LEGACY] },
            "device.json": device,
        },
        "patternProperties": { "^(?!bsp/)[^_.#/][^/]*/run\\.json$": run },
        "additionalProperties": {
            "anyOf": [
                { "type": "string", "pattern": "^[0-9a-f]{64}$", "description": "The SHA-256 of an object." },
                { "type": ["object", "array"], "description": "Inline JSON." },
                { "type": ["number", "boolean", "null"], "description": "Inline JSON; only for keys that end in .json." },
            ],
        },
        "$defs": definitions,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use expect_test::expect_file;

    use super::*;

    fn fields<T: JsonSchema>() -> BTreeSet<String> {
        let schema = schemars::schema_for!(T);
        schema
            .get("properties")
            .unwrap()
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect()
    }

    fn known(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn published_schema_is_fresh() {
        let text = serde_json::to_string_pretty(schema().as_value()).unwrap() + "\n";
        expect_file!["../../manifest.schema.json"].assert_eq(&text);
    }

    /// The parser knows exactly the fields of the schema.
    #[test]
    fn parser_and_schema_agree() {
        use crate::manifest::{health, network, oci, storage};
        assert_eq!(fields::<Run>(), known(&oci::FIELDS));
        assert_eq!(fields::<Network>(), known(&network::FIELDS));
        assert_eq!(fields::<Health>(), known(&health::FIELDS));
        assert_eq!(fields::<Volume>(), known(&storage::FIELDS));
        assert_eq!(fields::<Resources>(), known(&oci::RESOURCES));
        assert_eq!(fields::<Logs>(), known(&oci::LOGS));
    }
}
