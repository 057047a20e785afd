//! `manifest.md`, the reference page: made from the schema and the list of codes, so that it cannot lag behind.
//! `UPDATE_EXPECT=1 cargo test -p model` writes it anew.

// Helpers of tests; the crate under test stays pure.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use expect_test::expect_file;
use model::{limits, manifest};
use serde_json::Value;

const PREFACE: &str = r##"# Manifest

*Made by `UPDATE_EXPECT=1 cargo test -p model` from the types; the same shape for programs is in
[manifest.schema.json](manifest.schema.json). `coxctl revision check FILE` says everything that is wrong with one.*

A manifest is one flat JSON object. A key is a clean relative path; its value is an object's name (the 64 lower-case
hexadecimal digits of its SHA-256) or inline JSON. The exact bytes are kept; digest and signatures are over them.

```json
{
  "#spec": "pantavisor-service-system@1",
  "web/root.squashfs": "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",
  "web/run.json": {
    "name": "web", "type": "oci", "group": "app", "status_goal": "READY",
    "root-volume": "root.squashfs", "command": ["/bin/web", "--port", "80"],
    "storage": {"data": {"persistence": "permanent", "path": "/data"}},
    "health": {"http": {"port": 80, "path": "/healthz"}, "interval": "5s"}
  },
  "_config/web/etc/web.conf": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
}
```

| key | meaning |
|---|---|
| `#spec` | `pantavisor-service-system@1`, or the older `pantavisor-multi-platform@1` |
| `<container>/run.json` | makes the folder a container |
| `<container>/…` | its image, configuration and other files |
| `_config/<container>/<path>` | appears at `/<path>` in the container |
| `device.json` | groups, disks and address pools of the device |
| `groups.json`, `disks.json`, `disks_v3.json` | older split files; `groups.json` counts only without `device.json` |
| `bsp/…` | kernel, initramfs, modules: a change of these needs a reboot |
| `_sigs/…`, `_hostconfig/…`, anything else | kept; a folder without `run.json` is no container |

## Rules

- Groups start in order. Without groups of its own a device has `data` (MOUNTED), `root`, `platform` (STARTED, system) and `app`
  (STARTED, container, recovery on-failure), each with 30 seconds.
- A container without group lands in the last one. With the built-in groups, the alphabetically first becomes `root` when nothing
  is there, the others `platform`.
- `auto_recovery` is inherited as a whole from the group. Where neither has one: on-failure, 5 retries, 5 s, factor 2.
- Two revisions share a running container when its *fingerprint* is equal. It counts the container's keys and values, its
  `_config/`, its pool and disks, and of `run.json` all but: `#spec`, name, group, runlevel, status_goal, restart_policy, roles (but for
  whether it has `mgmt` or `monitor`, and sees by it all metadata and logs below `/pantavisor`),
  auto_recovery, conditions, depends-on, health, stop-signal, stop-timeout. These hold at once, without a restart. Of
  `src.json` only `docker_config` counts, for containers of kind `lxc`; `build.json` and `*.docker-digest` do not.

A container of kind `lxc` is described by `lxc.container.conf` too; which of its keys count, and how, says
[lxc-keys.md](../containerd/lxc-keys.md). `dm:` before the root image needs `_dm/<image>.json`. `"persistence": "built-in"` is `boot` there.

Stricter than Pantavisor: keys that are no clean paths, values that are neither, references to keys that are not there, fields
that are not known in an `oci` container. Different from it: `"policy": "no"` in `run.json` really switches recovery off, and a
container without `auto_recovery` is restarted with pauses before anything happens to the device.
"##;

/// The name of a definition that a schema refers to.
fn reference(schema: &Value) -> Option<String> {
    let direct = schema.get("$ref").and_then(Value::as_str);
    let any = schema.get("anyOf").and_then(Value::as_array);
    let nested = any.and_then(|all| all.iter().find_map(|one| one.get("$ref")?.as_str()));
    let name = direct.or(nested)?.strip_prefix("#/$defs/")?;
    Some(name.to_owned())
}

/// A type in a few words.
fn words(schema: &Value, definitions: &Value) -> String {
    if let Some(name) = reference(schema) {
        let definition = &definitions[&name];
        if let Some(options) = options(definition) {
            return options;
        }
        return match definition.get("properties") {
            Some(_) => format!("[{name}](#{})", name.to_lowercase()),
            None => name,
        };
    }
    let kind = match schema.get("type") {
        Some(Value::String(kind)) => kind.clone(),
        Some(Value::Array(kinds)) => kinds[0].as_str().unwrap().to_owned(),
        _ => return "anything".to_owned(),
    };
    match kind.as_str() {
        "array" => format!("list of {}", words(&schema["items"], definitions)),
        "object" => match schema.get("additionalProperties") {
            Some(inner) => format!("object of {}", words(inner, definitions)),
            None => "object".to_owned(),
        },
        "boolean" => "true or false".to_owned(),
        "string" => "text".to_owned(),
        "integer" => "whole number".to_owned(),
        other => other.to_owned(),
    }
}

/// The words of an enumeration.
fn options(definition: &Value) -> Option<String> {
    let all = match (definition.get("oneOf"), definition.get("enum")) {
        (Some(Value::Array(all)), _) => all.iter().map(|one| one["const"].as_str()).collect(),
        (_, Some(Value::Array(all))) => all.iter().map(Value::as_str).collect(),
        _ => None::<Vec<&str>>,
    }?;
    Some(format!("`{}`", all.join("`, `")))
}

fn line(text: &str) -> String {
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace('|', "\\|")
}

fn section(name: &str, definition: &Value, definitions: &Value) -> String {
    let mut text = format!("\n## {name}\n\n");
    if let Some(about) = definition["description"].as_str() {
        text += &format!("{}\n\n", line(about));
    }
    text += "| field | type | meaning |\n|---|---|---|\n";
    let required: Vec<&str> = definition["required"]
        .as_array()
        .map(|all| all.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    for (field, schema) in definition["properties"].as_object().unwrap() {
        let must = if required.contains(&field.as_str()) {
            " (needed)"
        } else {
            ""
        };
        let about = line(schema["description"].as_str().unwrap_or_default());
        text += &format!(
            "| `{field}`{must} | {} | {about} |\n",
            words(schema, definitions)
        );
    }
    text
}

#[test]
fn reference_is_fresh() {
    let schema = manifest::schema();
    let schema = schema.as_value();
    let definitions = &schema["$defs"];
    let mut text = PREFACE.to_owned();
    let mut names = vec!["Run".to_owned(), "DeviceFile".to_owned()];
    for name in definitions.as_object().unwrap().keys() {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    for name in &names {
        if definitions[name].get("properties").is_some() {
            text += &section(name, &definitions[name], definitions);
        }
    }
    text += "\nA *Time* is seconds as a number, or a text: `500ms`, `5s`, `2min`, `1h`. A *Size* is bytes as a number, or a text: `64K`,\n`64M`, `1G`, powers of 1024. A *SignalName* is a number or a name: 15, `TERM`, `SIGTERM`, `RTMIN+3`.\n";
    text += "\n## Limits\n\n| what | at most |\n|---|---|\n";
    for (what, most) in [
        ("bytes of a manifest", limits::MANIFEST_BYTES_MAX),
        ("keys", limits::MANIFEST_KEYS_MAX),
        ("containers", limits::CONTAINERS_MAX),
        ("groups", limits::GROUPS_MAX),
        ("depth of inline JSON", limits::JSON_DEPTH_MAX),
        ("bytes of a key", limits::KEY_BYTES_MAX),
        ("bytes of one part of a path", limits::PATH_PART_BYTES_MAX),
        (
            "bytes of an inline file that is read",
            limits::INLINE_READ_BYTES_MAX,
        ),
        ("items of a list", limits::LIST_ITEMS_MAX),
        ("volumes of a container", limits::VOLUMES_MAX),
    ] {
        text += &format!("| {what} | {most} |\n");
    }
    text += "\n## Problems\n\nA manifest that is refused comes back with all its problems, each with place, code, detail and remedy.\n\n| code | meaning |\n|---|---|\n";
    for (code, meaning) in manifest::CODES {
        text += &format!("| `{code}` | {meaning} |\n");
    }
    expect_file!["../manifest.md"].assert_eq(&text);
}
