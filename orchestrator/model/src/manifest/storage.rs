//! Root images and writable volumes of a container.

use std::collections::BTreeMap;

use super::Value;
use super::json::{Data, Node};
use super::keys::missing_key_remedy;
use super::problems::{Reader, Shown, suggestion};
use super::run::Context;
use crate::container::{ImageFormat, Persistence, RootVolume, Verity, Volume};
use crate::{Key, limits};

const PERSISTENCE: [(&str, Persistence); 3] = [
    ("permanent", Persistence::Permanent),
    ("revision", Persistence::Revision),
    ("boot", Persistence::Boot),
];

/// Every field of a volume.
pub(super) const FIELDS: [&str; 3] = ["persistence", "path", "disk"];

/// The writable layer over the root file system.
const OVERLAY: &str = "lxc-overlay";

/// An image of the container, `[handler:]name`.
pub(super) fn read_image<'a>(
    reader: &mut Reader<'a, '_>,
    node: &'a Node,
    context: &Context<'_>,
) -> Option<RootVolume> {
    let text = reader.text(node)?;
    let (handler, name) = match text.split_once(':') {
        Some((handler, name)) => (Some(handler), name),
        None => (None, text),
    };
    let (key, object) = read_reference(reader, node, name, context)?;
    let object = match object {
        Value::Object(object) => *object,
        Value::Inline(_) => {
            reader.report(
                node,
                "image-not-object",
                format_args!("{} is inline JSON, not an image", Shown(name)),
                format_args!("name a key whose value is an object"),
            );
            return None;
        }
    };
    let format = match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("squashfs") => ImageFormat::Squashfs,
        Some("erofs") => ImageFormat::Erofs,
        Some("ext4") => ImageFormat::Ext4,
        Some(_) | None => {
            reader.report(
                node,
                "unknown-image-format",
                format_args!(
                    "the ending of {} names no format that can be mounted",
                    Shown(name)
                ),
                format_args!("use an image that ends in .squashfs, .erofs or .ext4"),
            );
            return None;
        }
    };
    let verity = match handler {
        Some("dm") => Some(read_verity(reader, node, name, context)?),
        Some(_) | None => None,
    };
    Some(RootVolume {
        key,
        object,
        format,
        handler: handler.map(str::to_owned),
        verity,
    })
}

/// `_dm/<image>.json`.
fn read_verity<'a>(
    reader: &mut Reader<'a, '_>,
    node: &'a Node,
    image: &str,
    context: &Context<'_>,
) -> Option<Verity> {
    let name = format!("_dm/{image}.json");
    let (key, value) = read_reference(reader, node, &name, context)?;
    let mut wrong = |what: &str| {
        reader.report(
            node,
            "bad-verity",
            format_args!("{}: {what}", Shown(key.as_str())),
            format_args!("make it anew, with \"pvr dm-convert\" or \"coxctl\""),
        );
    };
    let text = match value {
        Value::Inline(text) if text.len() <= limits::INLINE_READ_BYTES_MAX => text,
        Value::Inline(_) | Value::Object(_) => {
            wrong("it must be inline JSON of at most 256 KiB");
            return None;
        }
    };
    let Ok(descriptor) = Node::parse(text) else {
        wrong("it is no valid JSON");
        return None;
    };
    let field = |name: &str| match descriptor.get(name).map(|node| &node.data) {
        Some(Data::Text(text)) if !text.is_empty() => Some(text.as_str()),
        Some(_) | None => None,
    };
    if field("type") != Some("dm-verity") {
        wrong("\"type\" is not \"dm-verity\"");
        return None;
    }
    if field("data_device") != Some(image) {
        wrong("\"data_device\" is not the image of this volume");
        return None;
    }
    let Some(root_hash) = field("root_hash") else {
        wrong("it has no \"root_hash\"");
        return None;
    };
    let Some(hashes) = field("hash_device") else {
        wrong("it has no \"hash_device\"");
        return None;
    };
    let root_hash = root_hash.to_owned();
    match read_reference(reader, node, hashes, context)?.1 {
        Value::Object(hashes) => Some(Verity {
            hashes: *hashes,
            root_hash,
        }),
        Value::Inline(_) => {
            reader.report(
                node,
                "image-not-object",
                format_args!("{} is inline JSON, not a tree of hashes", Shown(hashes)),
                format_args!("name a key whose value is an object"),
            );
            None
        }
    }
}

/// A key of this container that run.json names.
pub(super) fn read_reference<'a, 'm>(
    reader: &mut Reader<'a, '_>,
    node: &'a Node,
    name: &str,
    context: &Context<'m>,
) -> Option<(Key, &'m Value)> {
    let full = format!("{}/{name}", context.name);
    let found = full.parse::<Key>().ok().and_then(|key| {
        let value = context.entries.get(&key)?;
        Some((key, value))
    });
    if found.is_none() {
        let remedy = missing_key_remedy(
            &Shown(name).to_string(),
            context.name.as_str(),
            context.own_keys(),
        );
        reader.report(
            node,
            "missing-key",
            format_args!("the manifest has no key {}", Shown(&full)),
            format_args!("{remedy}"),
        );
    }
    found
}

/// `storage`.
pub(super) fn read_volumes<'a>(
    reader: &mut Reader<'a, '_>,
    node: &'a Node,
    context: &Context<'_>,
    is_oci: bool,
) -> Vec<Volume> {
    let Some(fields) = reader.object(node) else {
        return Vec::new();
    };
    if fields.len() > limits::VOLUMES_MAX {
        reader.report(
            node,
            "too-many-volumes",
            format_args!("there are {} volumes", fields.len()),
            format_args!("use at most {}", limits::VOLUMES_MAX),
        );
        return Vec::new();
    }
    let mut volumes = Vec::new();
    let mut taken: BTreeMap<String, &str> = BTreeMap::new();
    for (name, item) in fields {
        let Some(volume) = read_volume(reader, (name, item), context, is_oci) else {
            continue;
        };
        if let Some(path) = &volume.path
            && let Some(other) = taken.insert(path.clone(), name)
        {
            reader.report(
                item,
                "path-conflict",
                format_args!(
                    "{} and {} are both mounted at {path}",
                    Shown(other),
                    Shown(name)
                ),
                format_args!("give one of the two another path"),
            );
        }
        volumes.push(volume);
    }
    volumes
}

fn read_volume<'a>(
    reader: &mut Reader<'a, '_>,
    (name, node): (&'a str, &'a Node),
    context: &Context<'_>,
    is_oci: bool,
) -> Option<Volume> {
    let is_clean = name.parse::<Key>().is_ok() && !name.contains('/');
    if !is_clean {
        reader.report(
            node,
            "bad-volume-name",
            format_args!("{} is no name for a volume", Shown(name)),
            format_args!("use one path segment such as \"data\""),
        );
        return None;
    }
    reader.object(node)?;
    if is_oci {
        reader.only(node, &FIELDS);
    }
    let persistence = match node.get("persistence") {
        // What pvr writes for a volume that nobody said anything about; Pantavisor takes it for boot.
        Some(Node {
            data: Data::Text(word),
            ..
        }) if !is_oci && word == "built-in" => Some(Persistence::Boot),
        Some(node) => reader.choice(node, "unknown-persistence", &PERSISTENCE),
        None => {
            reader.report(
                node,
                "missing-persistence",
                format_args!("the volume {} does not say how long it lives", Shown(name)),
                format_args!("add \"persistence\": \"permanent\", \"revision\" or \"boot\""),
            );
            None
        }
    };
    let disk = node
        .get("disk")
        .and_then(|node| read_disk(reader, node, context));
    let given = node.get("path").and_then(|node| read_path(reader, node));
    let path = if name == OVERLAY {
        None
    } else {
        given.or_else(|| name.strip_prefix("docker--").and_then(path_of))
    };
    if is_oci && path.is_none() && name != OVERLAY && node.get("path").is_none() {
        reader.report(
            node,
            "missing-path",
            format_args!(
                "the volume {} does not say where it is mounted",
                Shown(name)
            ),
            format_args!("add \"path\", such as \"/data\""),
        );
    }
    Some(Volume {
        name: name.to_owned(),
        path,
        persistence: persistence?,
        disk,
    })
}

/// `etc-foo` is `/etc/foo`.
fn path_of(name: &str) -> Option<String> {
    let parts: Vec<&str> = name.split('-').filter(|part| !part.is_empty()).collect();
    let is_clean = !parts.is_empty() && !parts.iter().any(|part| matches!(*part, "." | ".."));
    is_clean.then(|| format!("/{}", parts.join("/")))
}

/// An absolute, clean path; the root itself is none.
pub(super) fn read_path<'a>(reader: &mut Reader<'a, '_>, node: &'a Node) -> Option<String> {
    let text = reader.text(node)?;
    let clean = text
        .strip_prefix('/')
        .map(|rest| rest.strip_suffix('/').unwrap_or(rest));
    match clean.filter(|rest| rest.parse::<Key>().is_ok()) {
        Some(rest) => Some(format!("/{rest}")),
        None => {
            reader.report(
                node,
                "bad-path",
                format_args!("{} is no clean absolute path", Shown(text)),
                format_args!("use one such as \"/var/lib/web\", without \"..\""),
            );
            None
        }
    }
}

fn read_disk<'a>(
    reader: &mut Reader<'a, '_>,
    node: &'a Node,
    context: &Context<'_>,
) -> Option<String> {
    let name = reader.text(node)?;
    if !context.device.disks.contains_key(name) {
        let remedy = suggestion(name, context.device.disks.keys().map(String::as_str));
        reader.report(
            node,
            "unknown-disk",
            format_args!("device.json has no disk {}", Shown(name)),
            format_args!("add it to \"disks\" of device.json; {remedy}"),
        );
        return None;
    }
    Some(name.to_owned())
}
