//! What only Pantavisor's kind of container says in `run.json`, and where its configuration is.
//!
//! `lxc.container.conf` is an object, so nothing of it can be judged here; the run time translates it. Fields that are not known are let
//! pass, as Pantavisor does: its tools write some that nobody reads.

use super::Value;
use super::json::{Data, Node};
use super::oci::{read_hostname, read_logs};
use super::problems::{Reader, Shown};
use super::run::Context;
use super::storage::read_reference;
use crate::container::{Lxc, Network};
use crate::{Key, limits};

const DEFAULT_CONFIG: &str = "lxc.container.conf";

/// Reads the fields of this kind. `None` when it cannot be used; why is reported.
pub(super) fn read(
    reader: &mut Reader<'_, '_>,
    context: &Context<'_>,
    network: Network,
) -> Option<Lxc> {
    let root = reader.root;
    let (key, config) = read_config(reader, context)?;
    let root_name = root
        .get("root-volume")
        .and_then(|node| match &node.data {
            Data::Text(text) => Some(text.as_str()),
            // Reported where the image is read.
            Data::Null | Data::Bool(_) | Data::Number(_) | Data::List(_) | Data::Object(_) => None,
        })
        .map(|text| text.split_once(':').map_or(text, |(_, name)| name));
    let hostname = root
        .get("network")
        .and_then(|network| network.get("hostname"))
        .and_then(|node| read_hostname(reader, node));
    // Pantavisor's setting PV_LOG_AUTO_DEVLOG is on by default.
    let logs = read_logs(reader, true);
    let host_modules = match root.get("automodfw") {
        Some(node) => reader.text(node) != Some("no"),
        None => true,
    };
    Some(Lxc {
        key,
        config,
        image_config: read_image_config(reader, context),
        root_name: root_name.map(str::to_owned),
        stop_signal_given: root.get("stop-signal").is_some(),
        network,
        hostname,
        host_modules,
        required_services: required_services(root),
        logs,
    })
}

/// A service is an object with a name, or the name alone.
fn required_services(root: &Node) -> Vec<String> {
    let required = root
        .get("services")
        .and_then(|services| services.get("required"));
    let Some(Data::List(items)) = required.map(|node| &node.data) else {
        return Vec::new();
    };
    let names = items.iter().take(limits::LIST_ITEMS_MAX);
    let names = names.filter_map(|item| match &item.get("name").unwrap_or(item).data {
        Data::Text(name) => Some(name.clone()),
        Data::Null | Data::Bool(_) | Data::Number(_) | Data::List(_) | Data::Object(_) => None,
    });
    names.collect()
}

/// The configuration's key, and its object when it is there.
fn read_config(
    reader: &mut Reader<'_, '_>,
    context: &Context<'_>,
) -> Option<(Key, Option<crate::ObjectId>)> {
    let root = reader.root;
    let given = root.get("config");
    let (key, value) = match given {
        Some(node) => {
            let name = reader.text(node)?;
            let (key, value) = read_reference(reader, node, name, context)?;
            (key, Some(value))
        }
        None => {
            let key = format!("{}/{DEFAULT_CONFIG}", context.name);
            let key: Key = key
                .parse()
                .expect("a container's name and a fixed ending are a key");
            let value = context.entries.get(&key);
            (key, value)
        }
    };
    match value {
        None => Some((key, None)),
        Some(Value::Object(object)) => Some((key, Some(*object))),
        Some(Value::Inline(_)) => {
            reader.report(
                given.unwrap_or(root),
                "config-not-object",
                format_args!("{} is inline JSON", Shown(key.as_str())),
                format_args!("make the configuration's text an object"),
            );
            None
        }
    }
}

/// `docker_config` of `src.json`.
fn read_image_config(reader: &mut Reader<'_, '_>, context: &Context<'_>) -> Option<String> {
    let key: Key = format!("{}/src.json", context.name).parse().ok()?;
    let Value::Inline(text) = context.entries.get(&key)? else {
        return None;
    };
    if text.len() > limits::INLINE_READ_BYTES_MAX {
        reader.report(
            reader.root,
            "file-too-large",
            format_args!("{} has {} bytes", Shown(key.as_str()), text.len()),
            format_args!("keep it to {} bytes", limits::INLINE_READ_BYTES_MAX),
        );
        return None;
    }
    // Provenance that cannot be read is not in the way of a container that has a configuration.
    let source = Node::parse(text).ok()?;
    let config = source.get("docker_config")?;
    matches!(config.data, Data::Object(_)).then(|| config.canonical())
}
