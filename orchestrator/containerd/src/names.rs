//! Names of instances in containerd, on the run folder and in control groups.

use model::{ContainerName, ObjectId};

/// Characters of the container's name that are kept (containerd takes 76 in all).
const NAME_CHARS_MAX: usize = 50;

/// The id of a version of a container: its name as containerd takes it, then twelve digits of its fingerprint.
///
/// containerd takes letters and digits with single `.`, `_` or `-` between them. A name that had to be changed gets some digits
/// of its hash, so that different containers never share an id.
pub(crate) fn instance_id(container: &ContainerName, fingerprint: ObjectId) -> String {
    let name = container.as_str();
    let mut clean = String::with_capacity(NAME_CHARS_MAX);
    for char in name.chars() {
        if clean.len() == NAME_CHARS_MAX {
            break;
        }
        if char.is_ascii_alphanumeric() {
            clean.push(char);
        } else if clean.ends_with(|last: char| last.is_ascii_alphanumeric()) {
            clean.push(if matches!(char, '.' | '_') { char } else { '-' });
        }
    }
    let clean = clean.trim_end_matches(['.', '_', '-']);
    if clean == name {
        return format!("{clean}-{}", fingerprint.short());
    }
    let hash = ObjectId::of(name.as_bytes()).to_string();
    let hash = hash.get(..8).unwrap_or(&hash);
    let clean = if clean.is_empty() { "c" } else { clean };
    format!("{clean}-{hash}-{}", fingerprint.short())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn id(name: &str) -> String {
        instance_id(&name.parse().unwrap(), ObjectId::of(b""))
    }

    #[test]
    fn plain_names_are_kept() {
        assert_eq!(id("web"), "web-e3b0c44298fc");
        assert_eq!(id("pvr-sdk"), "pvr-sdk-e3b0c44298fc");
        assert_eq!(id("a.b_c"), "a.b_c-e3b0c44298fc");
    }

    #[test]
    fn every_name_becomes_a_valid_and_distinct_id() {
        let long = "x".repeat(64);
        let almost = format!("{}y", "x".repeat(63));
        let names = [
            "a b", "a-b", "a--b", "-", "--", "a-", "-a", "ü", "ö", "a.-b", "a\\b", &long, &almost,
        ];
        let ids: BTreeSet<_> = names.iter().map(|name| id(name)).collect();
        assert_eq!(ids.len(), names.len());
        for id in ids {
            assert!(id.len() <= 76, "{id}");
            assert!(
                id.chars()
                    .all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c)),
                "{id}"
            );
            let separators = |c: char| ".-_".contains(c);
            assert!(
                !id.starts_with(separators) && !id.ends_with(separators),
                "{id}"
            );
            assert!(
                !id.as_bytes()
                    .windows(2)
                    .any(|w| w.iter().all(|b| b".-_".contains(b))),
                "{id}"
            );
        }
    }
}
