//! What a cloud offers: a deployment, its artifacts and where they can be had, and what the device may do with it already.
//!
//! Everything in here comes from outside: names are texts, never paths; hashes may be missing; links may be dead. Links and credentials
//! are never kept on disk: after a restart the cloud is asked again.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use model::ObjectId;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use crate::limits;

/// A deployment's name, as the cloud gives it: 1 to 256 bytes without control characters. The same name is the same deployment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeploymentId(String);

/// Not the name of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not the id of a deployment: it must have 1 to 256 bytes without control characters")]
pub struct InvalidId;

impl DeploymentId {
    /// The name as given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DeploymentId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let valid = !text.is_empty()
            && text.len() <= limits::DEPLOYMENT_ID_BYTES_MAX
            && !text.chars().any(char::is_control);
        valid.then(|| Self(text.to_owned())).ok_or(InvalidId)
    }
}

impl TryFrom<String> for DeploymentId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<DeploymentId> for String {
    fn from(id: DeploymentId) -> Self {
        id.0
    }
}

impl fmt::Display for DeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a step of a deployment may be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "gate", rename_all = "kebab-case")]
pub enum Gate {
    /// Do it.
    Now,
    /// Not yet: a maintenance window is closed, the cloud waits for somebody.
    Wait {
        /// For what, in words.
        reason: String,
    },
    /// Only when a person (or the setting `consent`) has agreed.
    Ask,
    /// Never with this deployment. Of an installation: fetch everything and be done (download only).
    Never,
}

/// What the deployment machine has to know of an offer: no links, no credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The deployment.
    pub id: DeploymentId,
    /// What is in it: equal for the same artifacts with the same hashes, whatever their links.
    pub content: ObjectId,
    /// Whether artifacts may be fetched.
    pub download: Gate,
    /// Whether the revision may be run once everything is there.
    pub install: Gate,
    /// Somebody has explicitly asked for another try of a deployment that has failed.
    pub again: bool,
}

/// A deployment that a cloud wants.
#[derive(Debug, Clone)]
pub struct Offer {
    /// Its name.
    pub id: DeploymentId,
    /// For people, if the cloud has one: becomes the revision's commit message.
    pub title: Option<String>,
    /// What there is to fetch; what form of payload it is, is decided by their names (see `payload`).
    pub artifacts: Vec<Artifact>,
    /// Whether artifacts may be fetched.
    pub download: Gate,
    /// Whether the revision may be run once everything is there.
    pub install: Gate,
    /// Somebody has explicitly asked for another try of a deployment that has failed.
    pub again: bool,
    /// Rules for plain artifacts that come with the offer (metadata of a module, say), in the form of the setting `map`.
    pub map: Vec<String>,
}

impl Offer {
    /// An offer that may be carried out at once.
    pub fn new(id: DeploymentId, artifacts: Vec<Artifact>) -> Self {
        Self {
            id,
            title: None,
            artifacts,
            download: Gate::Now,
            install: Gate::Now,
            again: false,
            map: Vec::new(),
        }
    }

    /// What the machine has to know.
    pub fn terms(&self) -> Terms {
        Terms {
            id: self.id.clone(),
            content: self.content(),
            download: self.download.clone(),
            install: self.install.clone(),
            again: self.again,
        }
    }

    /// A digest of what is in it: modules, names, sizes and hashes in any order; not the links.
    pub fn content(&self) -> ObjectId {
        let mut lines: Vec<String> = self
            .artifacts
            .iter()
            .map(|artifact| {
                format!(
                    "{:?} {:?} {:?} {:?}\n",
                    artifact.module, artifact.name, artifact.bytes, artifact.hashes
                )
            })
            .collect();
        lines.sort_unstable();
        let mut hash = sha2::Sha256::new();
        for line in lines.iter().chain(&self.map) {
            hash.update(line.as_bytes());
        }
        ObjectId::from_digest(hash.finalize().into())
    }

    /// What makes it unacceptable, whatever is in it.
    ///
    /// # Errors
    /// In words.
    pub fn check(&self) -> Result<(), String> {
        if self.artifacts.is_empty() {
            return Err("the deployment has no artifact".to_owned());
        }
        if self.artifacts.len() > limits::ARTIFACTS_MAX {
            return Err(format!(
                "the deployment has {} artifacts; at most {} are taken",
                self.artifacts.len(),
                limits::ARTIFACTS_MAX
            ));
        }
        for artifact in &self.artifacts {
            let name = &artifact.name;
            if name.is_empty()
                || name.len() > limits::NAME_BYTES_MAX
                || artifact.module.len() > limits::NAME_BYTES_MAX
            {
                return Err("an artifact has no name, or one that is too long".to_owned());
            }
            if artifact.links.len() > limits::LINKS_MAX {
                return Err(format!("artifact {name:?} has too many links"));
            }
            if let Some(link) = artifact
                .links
                .iter()
                .find(|link| link.url.len() > limits::LINK_BYTES_MAX)
            {
                return Err(format!(
                    "artifact {name:?} has a link of {} bytes",
                    link.url.len()
                ));
            }
        }
        Ok(())
    }
}

/// Hashes of an artifact; any may be missing. The strongest one that is there is checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hashes {
    /// SHA-256.
    pub sha256: Option<ObjectId>,
    /// SHA-1, against accidents only.
    pub sha1: Option<[u8; 20]>,
    /// MD5, against accidents only.
    pub md5: Option<[u8; 16]>,
}

/// One file of a deployment.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// What it belongs to in the cloud (software module, component); empty when the cloud has nothing like that.
    pub module: String,
    /// Its name. Anything: `../x` too. Never used as a path.
    pub name: String,
    /// Its length in bytes, when the cloud tells it.
    pub bytes: Option<u64>,
    /// Its hashes.
    pub hashes: Hashes,
    /// Where it can be had, best first.
    pub links: Vec<Link>,
}

/// One place of an artifact.
#[derive(Clone)]
pub struct Link {
    /// `http://` or `https://`.
    pub url: String,
    /// Sent to the origin (scheme, host, port) of `url` only: a redirect to another origin goes without it.
    pub credentials: Option<Credentials>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A link may be a secret itself: what follows `?` is left out.
        let shown = self.url.split('?').next().unwrap_or_default();
        write!(f, "Link({shown})")
    }
}

impl Link {
    /// A link that anybody may follow.
    pub fn open(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            credentials: None,
        }
    }
}

/// Value of a header that proves who asks. Never shown, never kept on disk.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    header: &'static str,
    value: Arc<str>,
}

impl Credentials {
    /// The value of `Authorization`, as in `TargetToken s3cret`.
    pub fn authorization(value: &str) -> Self {
        Self {
            header: "authorization",
            value: value.into(),
        }
    }

    /// The value of another header, in lower case.
    pub fn header(header: &'static str, value: &str) -> Self {
        Self {
            header,
            value: value.into(),
        }
    }

    /// Name and value of the header.
    pub fn expose(&self) -> (&'static str, &str) {
        (self.header, &self.value)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({}: ***)", self.header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact(name: &str, link: &str) -> Artifact {
        Artifact {
            module: "os".to_owned(),
            name: name.to_owned(),
            bytes: Some(3),
            hashes: Hashes {
                sha256: Some(ObjectId::of(name.as_bytes())),
                ..Hashes::default()
            },
            links: vec![Link {
                url: link.to_owned(),
                credentials: Some(Credentials::authorization("TargetToken s3cret")),
            }],
        }
    }

    #[test]
    fn content_is_what_is_in_it() {
        let id: DeploymentId = "8".parse().unwrap();
        let one = Offer::new(
            id.clone(),
            vec![artifact("a", "http://x/"), artifact("b", "http://x/")],
        );
        let moved = Offer::new(
            id.clone(),
            vec![artifact("b", "http://y/"), artifact("a", "http://y/")],
        );
        assert_eq!(one.content(), moved.content());
        let other = Offer::new(id, vec![artifact("a", "http://x/")]);
        assert_ne!(one.content(), other.content());
    }

    #[test]
    fn secrets_are_not_shown() {
        let offer = Offer::new(
            "8".parse().unwrap(),
            vec![artifact("a", "https://cdn/x?sig=abc")],
        );
        let shown = format!("{offer:?}");
        assert!(
            !shown.contains("s3cret") && !shown.contains("sig=abc"),
            "{shown}"
        );
    }

    #[test]
    fn ids() {
        for (text, good) in [("8", true), ("ü", true), ("", false), ("a\nb", false)] {
            assert_eq!(text.parse::<DeploymentId>().is_ok(), good, "{text:?}");
        }
        assert!("x".repeat(256).parse::<DeploymentId>().is_ok());
        assert!("x".repeat(257).parse::<DeploymentId>().is_err());
        assert!(serde_json::from_str::<DeploymentId>("\"\"").is_err());
    }
}
