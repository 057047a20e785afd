//! Drivers that containers name in `run.json`, with the kernel modules that `bsp/drivers.json` gives for the names. Read when they are
//! needed and not kept: a device asks rarely.

use super::json::{Data, Node};
use super::problems::{Reader, Shown};
use super::{Manifest, Value};
use crate::{ContainerName, limits};

/// When a driver is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Before the container starts, which fails without it.
    Required,
    /// Before the container starts, if that can be.
    Optional,
    /// When somebody asks.
    Manual,
}

/// A driver of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Driver {
    /// Its abstract name.
    pub name: String,
    /// When it is loaded.
    pub need: Need,
    /// A module and its parameters each, such as `brcmfmac debug=${user-meta:wifi.debug}`; `None` when the manifest gives none.
    pub modules: Option<Vec<String>>,
}

const NEEDS: [(&str, Need); 3] = [
    ("required", Need::Required),
    ("optional", Need::Optional),
    ("manual", Need::Manual),
];

impl Manifest {
    /// Drivers of a container: required ones first, then optional, then manual ones, each in the order of its list. A name
    /// that stands twice counts once, where it stands first.
    pub fn drivers(&self, container: &ContainerName) -> Vec<Driver> {
        let Some(run) = self.inline(&format!("{container}/run.json")) else {
            return Vec::new();
        };
        let aliases = self.inline("bsp/drivers.json");
        let aliases = aliases.as_ref().and_then(|file| file.get("all"));
        let mut drivers: Vec<Driver> = Vec::new();
        for (field, need) in NEEDS {
            let names = run.get("drivers").and_then(|drivers| drivers.get(field));
            for name in names.map(texts).unwrap_or_default() {
                if drivers.iter().any(|driver| driver.name == name) {
                    continue;
                }
                let modules = aliases.and_then(|aliases| aliases.get(name));
                drivers.push(Driver {
                    name: name.to_owned(),
                    need,
                    modules: modules
                        .map(|modules| texts(modules).into_iter().map(str::to_owned).collect()),
                });
            }
        }
        drivers
    }

    fn inline(&self, key: &str) -> Option<Node> {
        match self.entries.get(&key.parse().ok()?)? {
            Value::Inline(text) if text.len() <= limits::INLINE_READ_BYTES_MAX => {
                Node::parse(text).ok()
            }
            Value::Inline(_) | Value::Object(_) => None,
        }
    }
}

/// A text, or the texts of a list.
fn texts(node: &Node) -> Vec<&str> {
    match &node.data {
        Data::List(items) => items.iter().filter_map(text).collect(),
        Data::Null | Data::Bool(_) | Data::Number(_) | Data::Text(_) | Data::Object(_) => {
            text(node).into_iter().collect()
        }
    }
}

fn text(node: &Node) -> Option<&str> {
    match &node.data {
        Data::Text(text) => Some(text),
        Data::Null | Data::Bool(_) | Data::Number(_) | Data::List(_) | Data::Object(_) => None,
    }
}

/// `drivers` of `run.json`: three lists of names, none of them another one's.
pub(super) fn check(reader: &mut Reader<'_, '_>) {
    let Some(node) = reader.root.get("drivers") else {
        return;
    };
    if reader.object(node).is_none() {
        return;
    }
    for (field, _) in NEEDS {
        let Some(names) = node.get(field).and_then(|names| reader.list(names)) else {
            continue;
        };
        for item in names {
            let Some(name) = reader.text(item) else {
                continue;
            };
            if name.is_empty() || name.contains('/') || name.len() > limits::DRIVER_NAME_BYTES_MAX {
                reader.report(
                    item,
                    "bad-driver-name",
                    format_args!("{} is no name of a driver", Shown(name)),
                    format_args!("use a short word without '/', such as \"wifi\""),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drivers(run: &str, bsp: &str) -> Vec<(String, Need, Option<Vec<String>>)> {
        let text = format!(
            r##"{{"#spec":"pantavisor-service-system@1",{bsp}"os/run.json":{{"name":"os","type":"oci","status_goal":"MOUNTED"{run}}}}}"##
        );
        let manifest = Manifest::parse(text.as_bytes()).unwrap();
        manifest
            .drivers(&"os".parse().unwrap())
            .into_iter()
            .map(|driver| (driver.name, driver.need, driver.modules))
            .collect()
    }

    #[test]
    fn names_get_their_modules() {
        let bsp = r##""bsp/drivers.json":{"#spec":"driver-aliases@1","all":{"wifi":["cfg80211","brcmfmac debug=1"],"gpio":"gpio_mock"}},"##;
        let run =
            r#","drivers":{"manual":["gpio"],"required":["wifi","wifi"],"optional":["bluetooth"]}"#;
        assert_eq!(
            drivers(run, bsp),
            [
                (
                    "wifi".to_owned(),
                    Need::Required,
                    Some(vec!["cfg80211".to_owned(), "brcmfmac debug=1".to_owned()])
                ),
                ("bluetooth".to_owned(), Need::Optional, None),
                (
                    "gpio".to_owned(),
                    Need::Manual,
                    Some(vec!["gpio_mock".to_owned()])
                ),
            ]
        );
        assert_eq!(drivers("", bsp), []);
        assert_eq!(drivers(run, "").len(), 3);
    }

    #[test]
    fn what_is_wrong_is_reported() {
        for (field, pointer) in [
            (r#"{"required":["a/b"]}"#, "/required/0"),
            (r#"{"required":"wifi"}"#, "/required"),
            (r#"[]"#, ""),
        ] {
            let text = format!(
                r##"{{"#spec":"pantavisor-service-system@1","os/run.json":{{"name":"os","status_goal":"MOUNTED","type":"oci","drivers":{field}}}}}"##
            );
            let rejected = Manifest::parse(text.as_bytes()).unwrap_err();
            let place = format!("/os~1run.json/drivers{pointer}");
            assert!(
                rejected
                    .problems
                    .iter()
                    .any(|problem| problem.pointer == place),
                "{field}: {rejected:?}"
            );
        }
    }
}
