//! What a deployment's artifacts are, whatever cloud they come from. Pure: names and bytes in, manifests out.
//!
//! Four forms, told apart by names: a *bundle* (one archive of a whole revision), *separate* (a manifest and its objects), a *patch*
//! (parts to merge into the revision that runs) and *plain* files that rules map to containers. Reference: `payloads.md` beside this
//! crate. Whatever comes out is a manifest that the device judges; nothing here decides what is good for a device.

use std::collections::BTreeMap;

use model::{Manifest, ObjectId};

use crate::offer::{Artifact, Offer};

pub mod archive;
pub mod ordered;
pub mod patch;
pub mod plain;

pub use patch::{Patch, PatchError};
pub use plain::{Rule, Rules};

/// Which artifact of an offer: its place in the list.
pub type Place = usize;

/// What an offer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// One archive with everything.
    Bundle {
        /// The archive.
        archive: Place,
    },
    /// A manifest, and objects by what they are.
    Separate {
        /// The manifest.
        manifest: Place,
    },
    /// A patch, and objects by what they are.
    Patch {
        /// The patch.
        patch: Place,
    },
    /// Files that replace images of containers of the running revision.
    Plain {
        /// Each file with the key of the manifest that it becomes.
        files: Vec<(Place, plain::Target)>,
    },
}

/// Names of a manifest among the artifacts.
const MANIFESTS: [&str; 3] = ["manifest.json", "json", "state.json"];
/// Name of a patch among the artifacts.
const PATCH: &str = "patch.json";
/// Endings of archives.
const ARCHIVES: [&str; 5] = [".tar", ".tgz", ".tar.gz", ".swu", ".cpio"];

impl Form {
    /// What an offer is.
    ///
    /// # Errors
    /// In words, when it is none of the forms, or more than one.
    pub fn of(offer: &Offer, rules: &Rules) -> Result<Self, String> {
        offer.check()?;
        let artifacts = &offer.artifacts;
        // Names are texts: what looks like a folder before them does not count.
        let last = |artifact: &Artifact| {
            let name = artifact.name.rsplit(['/', '\\']).next().unwrap_or_default();
            name.to_ascii_lowercase()
        };
        let find = |fits: &dyn Fn(&str) -> bool| -> Vec<Place> {
            (0..artifacts.len())
                .filter(|place| fits(&last(&artifacts[*place])))
                .collect()
        };
        let manifests = find(&|name| MANIFESTS.contains(&name));
        let patches = find(&|name| name == PATCH);
        let archives = find(&|name| ARCHIVES.iter().any(|ending| name.ends_with(ending)));
        match (&manifests[..], &patches[..], &archives[..]) {
            (&[manifest], [], _) => Ok(Self::Separate { manifest }),
            ([], &[patch], _) => Ok(Self::Patch { patch }),
            ([], [], &[archive]) if rules.target(&artifacts[archive]).is_none() => {
                Ok(Self::Bundle { archive })
            }
            ([], [], _) => {
                let mut files = Vec::new();
                for (place, artifact) in artifacts.iter().enumerate() {
                    if let Some(target) = rules.target(artifact) {
                        files.push((place, target));
                    }
                }
                if files.is_empty() {
                    let names: Vec<&str> = artifacts
                        .iter()
                        .take(5)
                        .map(|artifact| artifact.name.as_str())
                        .collect();
                    return Err(format!(
                        "none of the artifacts ({}) is a manifest.json, a patch.json or a bundle, and no rule of the setting `map` fits",
                        names.join(", ")
                    ));
                }
                Ok(Self::Plain { files })
            }
            (_, _, _) => Err(
                "the deployment has more than one manifest or patch: one deployment is one of them"
                    .to_owned(),
            ),
        }
    }
}

/// Where each object of a manifest can be had among the artifacts: by its SHA-256, or by a name that is the SHA-256.
pub fn objects(offer: &Offer) -> BTreeMap<ObjectId, Place> {
    let mut objects = BTreeMap::new();
    for (place, artifact) in offer.artifacts.iter().enumerate() {
        let last = artifact.name.rsplit(['/', '\\']).next().unwrap_or_default();
        let stem = last.split('.').next().unwrap_or_default();
        let named = stem.parse::<ObjectId>().ok();
        if let Some(object) = artifact.hashes.sha256.or(named) {
            objects.entry(object).or_insert(place);
        }
    }
    objects
}

/// Parses a manifest; every problem of a bad one in words.
///
/// # Errors
/// The problems, each a line.
pub fn parse_manifest(bytes: &[u8]) -> Result<Manifest, Vec<String>> {
    Manifest::parse(bytes).map_err(|rejected| {
        let problems = rejected.problems.iter();
        problems
            .map(|problem| format!("{}: {}", problem.pointer, problem.detail))
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offer::{Hashes, Link};

    fn offer(names: &[&str]) -> Offer {
        let artifacts = names.iter().map(|name| Artifact {
            module: "os".to_owned(),
            name: (*name).to_owned(),
            bytes: None,
            hashes: Hashes::default(),
            links: vec![Link::open("http://x/")],
        });
        Offer::new("1".parse().unwrap(), artifacts.collect())
    }

    #[test]
    fn forms_by_names() {
        let rules: Rules = "os/root*.squashfs=web, app.tar=app/layer".parse().unwrap();
        for (names, form) in [
            (&["a.tgz"][..], Some(Form::Bundle { archive: 0 })),
            (&["x.SWU"], Some(Form::Bundle { archive: 0 })),
            (
                &["x", "Manifest.json"],
                Some(Form::Separate { manifest: 1 }),
            ),
            (&["../json"], Some(Form::Separate { manifest: 0 })),
            (&["patch.json", "a.tar"], Some(Form::Patch { patch: 0 })),
            (&["patch.json", "json"], None),
            (&["json", "state.json"], None),
            (&["unknown"], None),
            (&["a.tar", "b.tar"], None),
            (&[], None),
        ] {
            assert_eq!(Form::of(&offer(names), &rules).ok(), form, "{names:?}");
        }
        let Ok(Form::Plain { files }) = Form::of(&offer(&["note", "root-2.squashfs"]), &rules)
        else {
            panic!("plain");
        };
        assert_eq!(files[0].0, 1);
        let mapped = Form::of(&offer(&["app.tar"]), &rules);
        assert!(
            matches!(mapped, Ok(Form::Plain { .. })),
            "a rule comes first"
        );
    }

    #[test]
    fn objects_by_hash_or_name() {
        let one = ObjectId::of(b"1");
        let two = ObjectId::of(b"2");
        let mut offer = offer(&["a", &format!("dir/{two}.bin"), "b"]);
        offer.artifacts[0].hashes.sha256 = Some(one);
        assert_eq!(objects(&offer), BTreeMap::from([(one, 0), (two, 1)]));
    }
}
