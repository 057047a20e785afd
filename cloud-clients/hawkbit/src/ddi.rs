//! DDI, hawkBit's protocol for devices, as types: what a server says is parsed here once, with bounds, and what a device says is
//! written here. Pure; nothing here calls anybody.
//!
//! Reading is lenient where servers differ (releases of hawkBit, gooseBit, hosted ones): any member may be missing but the id of an
//! action, names of files and one link; unknown words have the meaning that does least. Writing is strict: only what every
//! release takes, within the quotas of all.

mod deployment;
mod feedback;
mod root;
mod sleep;

use std::fmt;

use serde_json::Value;

pub use deployment::{Chunk, Confirmation, Deployment, File, Handling, Window};
pub use feedback::{Channel, Consent, Execution, Feedback, Finished};
pub use root::{ActionLink, Root, stop_id};
pub use sleep::parse as parse_sleep;

/// Bytes of an answer that describes a deployment: 100 modules of 50 files with all that is told of each.
pub const DETAILS_BYTES_MAX: usize = 8 << 20;
/// Bytes of any other answer.
pub const ANSWER_BYTES_MAX: usize = 256 << 10;
/// Characters of an action's id: 64 bit in decimal digits, with room.
pub const ACTION_ID_CHARS_MAX: usize = 32;
/// Modules of a set.
pub const CHUNKS_MAX: usize = 1000;

/// What a server said cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DdiError {
    /// Not JSON, or cut off.
    #[error("{what} is no JSON: {reason}")]
    NotJson {
        /// Which resource.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// Something that must be there is not, or is of another kind.
    #[error("{what}: {member} {reason}")]
    Member {
        /// Which resource.
        what: &'static str,
        /// Which member.
        member: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// An action's name: made of digits on hawkBit, of whatever other servers like.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActionId(String);

impl ActionId {
    /// A name of letters, digits, `-` and `_`; `None` for anything else, since it becomes a part of paths.
    pub fn parse(text: &str) -> Option<Self> {
        let good = !text.is_empty()
            && text.len() <= ACTION_ID_CHARS_MAX
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        good.then(|| Self(text.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ActionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a refusal says, as far as it says something.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refusal {
    /// `hawkbit.server.error.…`.
    pub code: Option<String>,
    /// In words, at most 300 characters.
    pub message: Option<String>,
}

impl Refusal {
    /// Reads the body of a refusal: hawkBit's, the framework's, gooseBit's, or nothing that is known.
    pub fn parse(body: &[u8]) -> Self {
        let Ok(Value::Object(members)) = serde_json::from_slice::<Value>(body) else {
            return Self::default();
        };
        let text = |name: &str| {
            let text = members.get(name)?.as_str()?;
            Some(text.chars().filter(|c| !c.is_control()).take(300).collect())
        };
        Self {
            code: text("errorCode"),
            message: text("message").or(text("detail")).or(text("error")),
        }
    }

    /// Whether a quota is used up: what was refused will never be taken for this action.
    pub fn is_quota(&self) -> bool {
        self.code
            .as_deref()
            .is_some_and(|code| code.ends_with("quota.tooManyEntries"))
    }
}

fn json(what: &'static str, body: &[u8]) -> Result<Value, DdiError> {
    serde_json::from_slice(body).map_err(|error| DdiError::NotJson {
        what,
        reason: error.to_string(),
    })
}

fn wrong(what: &'static str, member: impl Into<String>, reason: &'static str) -> DdiError {
    DdiError::Member {
        what,
        member: member.into(),
        reason,
    }
}

/// The address of a link; `_links` of JSON and `links` of CBOR's shape alike.
fn href<'a>(value: &'a Value, rel: &str) -> Option<&'a str> {
    let object = value["_links"][rel]["href"].as_str();
    let list = || {
        let list = value["links"].as_array()?;
        let link = list.iter().find(|link| link["rel"] == rel)?;
        link["href"].as_str()
    };
    object
        .or_else(list)
        .filter(|href| !href.is_empty() && href.len() <= link::limits::LINK_BYTES_MAX)
}

#[cfg(test)]
mod recordings;
