//! Plain artifacts: files that a fleet publishes already, mapped to containers of the running revision by rules.
//!
//! A rule is `[MODULE/]FILE=CONTAINER[/KEY]`; `*` stands for any text. Without KEY the file replaces what the container's
//! `root-volume` names. The first rule that fits counts.

use std::str::FromStr;

use model::{ContainerName, ObjectId};
use serde_json::value::RawValue;

use super::ordered::Ordered;
use crate::offer::Artifact;

/// What a file becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The container.
    pub container: ContainerName,
    /// A key below the container; what its `root-volume` names when `None`.
    pub key: Option<String>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    module: Option<String>,
    file: String,
    target: Target,
}

/// All rules, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules(Vec<Rule>);

/// Rules of one setting.
const RULES_MAX: usize = 256;

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = |why: &str| format!("{text:?} is no rule [MODULE/]FILE=CONTAINER[/KEY]: {why}");
        let (from, to) = text.split_once('=').ok_or_else(|| bad("there is no '='"))?;
        let (from, to) = (from.trim(), to.trim());
        let (module, file) = match from.rsplit_once('/') {
            Some((module, file)) => (Some(module.to_owned()), file),
            None => (None, from),
        };
        if file.is_empty() {
            return Err(bad("there is no FILE"));
        }
        let (container, key) = match to.split_once('/') {
            Some((container, key)) => (container, Some(key)),
            None => (to, None),
        };
        let clean = |key: &str| {
            key.len() <= model::limits::KEY_BYTES_MAX
                && key
                    .split('/')
                    .all(|part| !part.is_empty() && part != "." && part != "..")
        };
        if !key.is_none_or(clean) {
            return Err(bad("KEY is no clean relative path"));
        }
        Ok(Self {
            module,
            file: file.to_owned(),
            target: Target {
                container: container
                    .parse()
                    .map_err(|_| bad("CONTAINER is no name of a container"))?,
                key: key.map(str::to_owned),
            },
        })
    }
}

impl FromStr for Rules {
    type Err = String;

    /// Rules separated by commas or white space.
    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(
            text.split(|sign: char| sign == ',' || sign.is_whitespace())
                .filter(|rule| !rule.is_empty()),
        )
    }
}

impl Rules {
    /// Parses each rule.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn parse<'a>(rules: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let rules: Result<Vec<Rule>, String> = rules.map(str::parse).collect();
        let rules = rules?;
        if rules.len() > RULES_MAX {
            return Err(format!("there are more than {RULES_MAX} rules"));
        }
        Ok(Self(rules))
    }

    /// What an artifact becomes, if a rule fits.
    pub fn target(&self, artifact: &Artifact) -> Option<Target> {
        self.0
            .iter()
            .find(|rule| {
                let module = rule.module.as_ref();
                module.is_none_or(|module| fits(module, &artifact.module))
                    && fits(&rule.file, &artifact.name)
            })
            .map(|rule| rule.target.clone())
    }
}

/// Whether a text is what a pattern with `*` says.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.find(part) {
            Some(place) => rest = &rest[place + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// The running manifest with files in the places that targets name.
///
/// # Errors
/// In words: the container is not there, or has no image of its own.
pub fn apply(base: &[u8], files: &[(Target, ObjectId)]) -> Result<Vec<u8>, String> {
    let mut merged = Ordered::parse(base)
        .map_err(|error| format!("the running revision's manifest cannot be read: {error}"))?;
    for (target, object) in files {
        let container = &target.container;
        let run = merged
            .get(&format!("{container}/run.json"))
            .ok_or_else(|| {
                format!("the running revision has no container {container}, which a rule names")
            })?;
        let key = match &target.key {
            Some(key) => key.clone(),
            None => root_volume(run.get()).ok_or_else(|| {
                format!("container {container} names no single root-volume: give the rule a KEY")
            })?,
        };
        let value = RawValue::from_string(format!("\"{object}\""))
            .expect("hexadecimal digits in quotes are JSON");
        merged.set(&format!("{container}/{key}"), value);
    }
    Ok(merged.to_bytes())
}

fn root_volume(run: &str) -> Option<String> {
    let run: serde_json::Value = serde_json::from_str(run).ok()?;
    let volume = run.get("root-volume")?.as_str()?;
    // Pantavisor's form may name a device mapper's kind before the file.
    let file = volume.rsplit(':').next()?;
    Some(file.to_owned()).filter(|file| !file.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offer::Hashes;

    fn target(rules: &str, module: &str, name: &str) -> Option<String> {
        let rules: Rules = rules.parse().unwrap();
        let artifact = Artifact {
            module: module.to_owned(),
            name: name.to_owned(),
            bytes: None,
            hashes: Hashes::default(),
            links: Vec::new(),
        };
        rules.target(&artifact).map(|target| match target.key {
            Some(key) => format!("{}/{key}", target.container),
            None => target.container.to_string(),
        })
    }

    #[test]
    fn rules_fit_or_not() {
        let rules = "os/root.squashfs=os,*/web-*.img=web/image.img root*=other";
        for (module, name, expected) in [
            ("os", "root.squashfs", Some("os")),
            ("app", "root.squashfs", Some("other")),
            ("app", "web-1.2.img", Some("web/image.img")),
            ("app", "web.img", None),
            ("", "rooted", Some("other")),
        ] {
            assert_eq!(
                target(rules, module, name).as_deref(),
                expected,
                "{module}/{name}"
            );
        }
        for (pattern, text, expected) in [
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "acb", false),
            ("*", "", true),
            ("a", "ab", false),
            ("*b", "ab", true),
            ("a*a", "a", false),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn bad_rules_are_refused() {
        for bad in ["x", "=web", "x=", "x=web/../y", "x=web/", "x=We b/"] {
            assert!(bad.parse::<Rule>().is_err(), "{bad}");
        }
    }

    #[test]
    fn files_take_their_places() {
        let base = br#"{"web/run.json":{"root-volume":"root.squashfs"},"web/root.squashfs":"a","app/run.json":{}}"#;
        let object = ObjectId::of(b"new");
        let to = |text: &str| -> Target { text.parse::<Rule>().unwrap().target };
        let merged = apply(base, &[(to("x=web"), object)]).unwrap();
        assert_eq!(
            String::from_utf8(merged).unwrap(),
            format!(
                r#"{{"web/run.json":{{"root-volume":"root.squashfs"}},"web/root.squashfs":"{object}","app/run.json":{{}}}}"#
            )
        );
        assert!(apply(base, &[(to("x=app"), object)]).is_err());
        assert!(apply(base, &[(to("x=none"), object)]).is_err());
        assert!(apply(base, &[(to("x=app/lib.so"), object)]).is_ok());
    }
}
