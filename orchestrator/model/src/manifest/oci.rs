//! What only our own kind of container says in `run.json`.
//!
//! Everything is checked here, so that a container that is accepted fails later only for reasons outside its manifest.
//! A field that is not known is a problem: here a typing error would silently weaken the container.

use super::Value;
use super::health::read_health;
use super::host::{read_capabilities, read_devices, read_mounts};
use super::json::{Data, Node};
use super::problems::{Reader, Shown};
use super::run::Context;
use super::storage::{read_path, read_reference};
use crate::Key;
use crate::container::{FollowedFile, ImageConfig, Logs, Network, Oci, Resources, Seccomp, Volume};
use crate::limits;

/// Every field of `run.json` for this kind.
pub(super) const FIELDS: [&str; 40] = [
    "#spec",
    "name",
    "type",
    "group",
    "runlevel",
    "status_goal",
    "restart_policy",
    "auto_recovery",
    "roles",
    "root-volume",
    "volumes",
    "storage",
    "image-config",
    "command",
    "env",
    "workdir",
    "user",
    "hostname",
    "mounts",
    "devices",
    "capabilities",
    "seccomp",
    "read-only",
    "user-namespace",
    "resources",
    "network",
    "health",
    "depends-on",
    "stop-signal",
    "stop-timeout",
    "logs",
    "config",
    "share",
    "dev-log",
    "drivers",
    "services",
    "exports",
    "automodfw",
    "conditions",
    "description",
];

/// Every field of `resources`.
pub(super) const RESOURCES: [&str; 4] = ["memory", "cpu", "pids", "io"];
/// Every field of our form of `logs`.
pub(super) const LOGS: [&str; 3] = ["max-size", "files", "follow"];
/// Size at which Pantavisor empties a file that it collects.
const COLLECTED_BYTES: u64 = 2 << 20;

/// Reads the fields of our kind; also whether anything says what to start.
pub(super) fn read(
    reader: &mut Reader<'_, '_>,
    context: &Context<'_>,
    network: Network,
    volumes: &[Volume],
) -> (Oci, bool) {
    let root = reader.root;
    reader.only(root, &FIELDS);
    let mut oci = Oci {
        network,
        ..Oci::default()
    };
    // What image-config says is known only when it is inline; an object may say what to start.
    let mut has_command = false;
    if let Some(node) = root.get("image-config") {
        oci.image_config = read_image_config(reader, node, context, &mut has_command);
        has_command |= oci.image_config.is_none();
    }
    if let Some(node) = root.get("command") {
        has_command = true;
        oci.command = read_command(reader, node);
    }
    if let Some(node) = root.get("env") {
        oci.env = read_env(reader, node);
    }
    if let Some(node) = root.get("workdir") {
        let is_root = node.data == Data::Text("/".to_owned());
        oci.workdir = if is_root {
            Some("/".to_owned())
        } else {
            read_path(reader, node)
        };
    }
    oci.user = root.get("user").and_then(|node| read_user(reader, node));
    oci.hostname = root
        .get("hostname")
        .or_else(|| {
            root.get("network")
                .and_then(|network| network.get("hostname"))
        })
        .and_then(|node| read_hostname(reader, node));
    oci.mounts = read_mounts(reader, volumes);
    oci.devices = read_devices(reader);
    if let Some(node) = root.get("capabilities") {
        oci.capabilities = read_capabilities(reader, node);
    }
    if let Some(node) = root.get("seccomp") {
        let choices = [
            ("default", Seccomp::Default),
            ("unconfined", Seccomp::Unconfined),
        ];
        oci.seccomp = reader
            .choice(node, "unknown-seccomp", &choices)
            .unwrap_or_default();
    }
    for (name, field) in [
        ("read-only", &mut oci.read_only),
        ("user-namespace", &mut oci.user_namespace),
    ] {
        if let Some(flag) = root.get(name).and_then(|node| reader.flag(node)) {
            *field = flag;
        }
    }
    if let Some(node) = root.get("resources") {
        oci.resources = read_resources(reader, node);
    }
    oci.health = root
        .get("health")
        .and_then(|node| read_health(reader, node));
    oci.logs = read_logs(reader, false);
    (oci, has_command)
}

fn read_image_config<'a>(
    reader: &mut Reader<'a, '_>,
    node: &'a Node,
    context: &Context<'_>,
    has_command: &mut bool,
) -> Option<ImageConfig> {
    if let Data::Object(_) = node.data {
        *has_command = check_image_config(reader, node);
        return Some(ImageConfig::Inline(node.canonical()));
    }
    let name = reader.text(node)?;
    let (key, value) = read_reference(reader, node, name, context)?;
    match value {
        Value::Object(object) => {
            *has_command = true;
            Some(ImageConfig::Object(*object))
        }
        Value::Inline(text) => {
            let parsed = (text.len() <= limits::INLINE_READ_BYTES_MAX)
                .then(|| Node::parse(text).ok())
                .flatten();
            match parsed.as_ref().and_then(starts_something) {
                Some(starts) => *has_command = starts,
                None => {
                    reader.report(
                        node,
                        "bad-image-config",
                        format_args!("{} is no OCI image configuration", Shown(key.as_str())),
                        format_args!("give an object with \"config\": {{\"Entrypoint\": […]}}"),
                    );
                }
            }
            Some(ImageConfig::Inline(text.clone()))
        }
    }
}

fn check_image_config<'a>(reader: &mut Reader<'a, '_>, node: &'a Node) -> bool {
    match starts_something(node) {
        Some(starts) => starts,
        None => {
            reader.report(
                node,
                "bad-image-config",
                format_args!("this is no OCI image configuration"),
                format_args!("give an object with \"config\": {{\"Entrypoint\": […]}}"),
            );
            true
        }
    }
}

/// Whether an OCI image configuration has an entrypoint or a cmd; `None` when it is none.
fn starts_something(node: &Node) -> Option<bool> {
    let Data::Object(_) = node.data else {
        return None;
    };
    let Some(config) = node.get("config") else {
        return Some(false);
    };
    let Data::Object(_) = config.data else {
        return None;
    };
    let mut starts = false;
    for name in ["Entrypoint", "Cmd", "Env"] {
        match config.get(name).map(|node| &node.data) {
            None => {}
            Some(Data::List(items)) => {
                if !items.iter().all(|item| matches!(item.data, Data::Text(_))) {
                    return None;
                }
                starts |= name != "Env" && !items.is_empty();
            }
            Some(_) => return None,
        }
    }
    for name in ["User", "WorkingDir"] {
        match config.get(name).map(|node| &node.data) {
            None | Some(Data::Text(_)) => {}
            Some(_) => return None,
        }
    }
    Some(starts)
}

/// A program and its arguments.
pub(super) fn read_command<'a>(reader: &mut Reader<'a, '_>, node: &'a Node) -> Option<Vec<String>> {
    let items = reader.list(node)?;
    if items.is_empty() || matches!(&items[0].data, Data::Text(first) if first.is_empty()) {
        reader.report(
            node,
            "empty-command",
            format_args!("the command has no program"),
            format_args!("name the program first, such as [\"/bin/web\"]"),
        );
        return None;
    }
    Some(reader.texts(node).into_iter().map(str::to_owned).collect())
}

fn read_env<'a>(reader: &mut Reader<'a, '_>, node: &'a Node) -> Vec<String> {
    let mut env = Vec::new();
    for item in reader.list(node).unwrap_or_default() {
        let Some(text) = reader.text(item) else {
            continue;
        };
        if text
            .split_once('=')
            .is_some_and(|(name, _)| !name.is_empty())
        {
            env.push(text.to_owned());
        } else {
            reader.report(
                item,
                "bad-env",
                format_args!("{} is no NAME=value", Shown(text)),
                format_args!("write it as \"NAME=value\""),
            );
        }
    }
    env
}

fn read_user<'a>(reader: &mut Reader<'a, '_>, node: &'a Node) -> Option<String> {
    if let Data::Number(_) = node.data {
        return reader
            .whole(node, 0, u64::from(u32::MAX) - 1)
            .map(|id| id.to_string());
    }
    let text = reader.text(node)?;
    let is_part = |part: &str| {
        let is_word = part
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-.$".contains(&b));
        let is_number = part.bytes().all(|b| b.is_ascii_digit());
        let fits = !is_number || part.parse::<u32>().is_ok_and(|id| id < u32::MAX);
        !part.is_empty() && part.len() <= 32 && is_word && fits
    };
    if text.split(':').count() <= 2 && text.split(':').all(is_part) {
        return Some(text.to_owned());
    }
    reader.report(
        node,
        "bad-user",
        format_args!("{} is no user", Shown(text)),
        format_args!("use \"user\" or \"user:group\", by name or by number"),
    );
    None
}

/// A host name.
pub(super) fn read_hostname<'a>(reader: &mut Reader<'a, '_>, node: &'a Node) -> Option<String> {
    let text = reader.text(node)?;
    let is_label = |label: &str| {
        let is_word = label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        !label.is_empty() && is_word && !label.starts_with('-') && !label.ends_with('-')
    };
    if text.len() <= 64 && text.split('.').all(is_label) {
        return Some(text.to_owned());
    }
    reader.report(
        node,
        "bad-hostname",
        format_args!("{} is no host name", Shown(text)),
        format_args!("use up to 64 letters, digits, '-', '_' and '.'"),
    );
    None
}

fn read_resources<'a>(reader: &mut Reader<'a, '_>, node: &'a Node) -> Resources {
    let mut resources = Resources::default();
    if reader.object(node).is_none() {
        return resources;
    }
    reader.only(node, &RESOURCES);
    resources.memory_bytes = node.get("memory").and_then(|node| {
        // Below this no process starts; above it no machine is.
        read_bytes(reader, node, 1 << 20, 1 << 50)
    });
    resources.cpus = node
        .get("cpu")
        .and_then(|node| reader.real(node, 0.001, 4096.0));
    resources.pids = node
        .get("pids")
        .and_then(|node| reader.whole(node, 1, 4_194_304))
        .and_then(|pids| u32::try_from(pids).ok());
    resources.io_weight = node
        .get("io")
        .and_then(|node| reader.whole(node, 1, 1_000))
        .and_then(|weight| u16::try_from(weight).ok());
    resources
}

/// `65536`, `"64K"`, `"64M"`, `"1G"`, also with `i` or `iB`; always powers of 1024.
fn read_bytes<'a>(reader: &mut Reader<'a, '_>, node: &'a Node, min: u64, max: u64) -> Option<u64> {
    let Data::Text(text) = &node.data else {
        return reader.whole(node, min, max);
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim_end_matches('B').trim_end_matches('i') {
        "" => Some(0),
        "k" | "K" => Some(10),
        "m" | "M" => Some(20),
        "g" | "G" => Some(30),
        _ => None,
    };
    let bytes = shift.and_then(|shift| number.parse::<u64>().ok()?.checked_mul(1 << shift));
    match bytes.filter(|bytes| (min..=max).contains(bytes)) {
        Some(bytes) => Some(bytes),
        None => {
            reader.report(
                node,
                "bad-size",
                format_args!("{} is no size from {min} to {max} bytes", Shown(text)),
                format_args!("use bytes, or a text such as \"64M\""),
            );
            None
        }
    }
}

/// `logs` and `dev-log`. `dev_log`: whether it has /dev/log when nothing is said.
pub(super) fn read_logs(reader: &mut Reader<'_, '_>, dev_log: bool) -> Logs {
    let root = reader.root;
    let mut logs = Logs {
        // A flag of another type is reported where all shapes are checked.
        dev_log: match root.get("dev-log").map(|node| &node.data) {
            Some(Data::Bool(flag)) => *flag,
            Some(
                Data::Null | Data::Number(_) | Data::Text(_) | Data::List(_) | Data::Object(_),
            )
            | None => dev_log,
        },
        ..Logs::default()
    };
    let Some(node) = root.get("logs") else {
        return logs;
    };
    if let Data::List(items) = &node.data {
        logs.follow = items
            .iter()
            .filter_map(read_collected)
            .take(limits::FOLLOWED_FILES_MAX)
            .collect();
        return logs;
    }
    if reader.object(node).is_none() {
        return logs;
    }
    reader.only(node, &LOGS);
    if let Some(node) = node.get("max-size") {
        logs.max_bytes = read_bytes(reader, node, 4096, 1 << 40).unwrap_or(logs.max_bytes);
    }
    if let Some(node) = node.get("files") {
        let files = reader
            .whole(node, 0, 100)
            .and_then(|files| u32::try_from(files).ok());
        logs.files = files.unwrap_or(logs.files);
    }
    if let Some(node) = node.get("follow") {
        logs.follow = read_followed(reader, node);
    }
    logs
}

/// An item of Pantavisor's list: `{"file":"/var/log/x.log","truncate":"true","maxsize":"2097152"}`. Items about consoles are of no
/// meaning here, and what is malformed is let pass as Pantavisor does.
fn read_collected(node: &Node) -> Option<FollowedFile> {
    let text = |name: &str| match node.get(name).map(|node| &node.data) {
        Some(Data::Text(text)) => Some(text.as_str()),
        Some(Data::Null | Data::Bool(_) | Data::Number(_) | Data::List(_) | Data::Object(_))
        | None => None,
    };
    let path = text("file")?;
    let clean = path.strip_prefix('/')?;
    clean.parse::<Key>().ok()?;
    let truncate = text("truncate") == Some("true");
    let size = text("maxsize").and_then(|size| size.parse().ok());
    Some(FollowedFile {
        path: path.to_owned(),
        truncate_bytes: truncate.then(|| size.unwrap_or(COLLECTED_BYTES)),
    })
}

fn read_followed<'a>(reader: &mut Reader<'a, '_>, node: &'a Node) -> Vec<FollowedFile> {
    let items = reader.list(node).unwrap_or_default();
    if items.len() > limits::FOLLOWED_FILES_MAX {
        reader.report(
            node,
            "too-many-items",
            format_args!("{} files are followed", items.len()),
            format_args!("keep it to {}", limits::FOLLOWED_FILES_MAX),
        );
        return Vec::new();
    }
    items
        .iter()
        .filter_map(|node| read_path(reader, node))
        .map(|path| FollowedFile {
            path,
            truncate_bytes: None,
        })
        .collect()
}
