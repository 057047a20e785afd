//! Every way in which a call can fail, so that a caller can decide: try again, tell a person, or give up.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use api::Code;
use api::problem::ManifestProblem;

/// A call that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The path cannot be the path of a socket.
    #[error("{path:?} cannot be the path of a control socket: {reason}")]
    BadSocketPath {
        /// As given.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Nobody listens there, or we may not connect.
    #[error("cannot connect to the control socket {}", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The answer, or the rest of it, did not come in time. Whether a change was made is not known.
    #[error("{call}: no answer within {} s", .after.as_secs())]
    Timeout {
        /// What was asked.
        call: String,
        /// How long nothing was heard.
        after: Duration,
    },
    /// The connection broke before the answer was complete. Whether a change was made is not known.
    #[error("{call}: the connection broke before the answer was complete")]
    Broken {
        /// What was asked.
        call: String,
        /// How.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server understood and refused.
    #[error("{call}: {refusal}")]
    Refused {
        /// What was asked.
        call: String,
        /// With which words.
        refusal: Box<Refusal>,
    },
    /// What came is not an answer to what was asked.
    #[error("{call}: the answer cannot be understood: {reason}")]
    BadAnswer {
        /// What was asked.
        call: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A name that no request line can carry.
    #[error("{name:?} cannot be part of a request: {reason}")]
    Unsendable {
        /// The name.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// What was to be sent could not be read.
    #[error("cannot read {what}")]
    Source {
        /// File or stream.
        what: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// The refusal, when the server refused.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal),
            Self::BadSocketPath { .. }
            | Self::Connect { .. }
            | Self::Timeout { .. }
            | Self::Broken { .. }
            | Self::BadAnswer { .. }
            | Self::Unsendable { .. }
            | Self::Source { .. } => None,
        }
    }

    /// The code of the refusal, when the server refused with a known one.
    pub fn code(&self) -> Option<Code> {
        self.refusal().and_then(|refusal| refusal.code)
    }

    /// Whether the transport failed, so that asking again may succeed without anything being changed here.
    pub fn is_transport(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Timeout { .. } | Self::Broken { .. } => true,
            Self::BadSocketPath { .. }
            | Self::Refused { .. }
            | Self::BadAnswer { .. }
            | Self::Unsendable { .. }
            | Self::Source { .. } => false,
        }
    }
}

/// A refusal in the server's words. Texts are as sent: clean them before they reach a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// What went wrong, for programs; `None` when the server sent none or one that is not known here.
    pub code: Option<Code>,
    /// The code as sent.
    pub code_word: Option<String>,
    /// What failed, on what, why.
    pub detail: String,
    /// What to do about it.
    pub remedy: Option<String>,
    /// After which time asking again may help.
    pub retry_after: Option<Duration>,
    /// Everything that is wrong with a manifest.
    pub problems: Vec<ManifestProblem>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "refused: {}", self.detail)?;
        match &self.code_word {
            Some(word) => write!(f, " ({word}, HTTP {})", self.status),
            None => write!(f, " (HTTP {})", self.status),
        }
    }
}

/// What is understood of an RFC 9457 body; everything may be missing.
#[derive(serde::Deserialize)]
struct LenientProblem {
    code: Option<String>,
    title: Option<String>,
    detail: Option<String>,
    remedy: Option<String>,
    retry_after_s: Option<u32>,
    #[serde(default)]
    problems: Vec<ManifestProblem>,
}

impl Refusal {
    /// From what a server sent with a status of 300 or more. `code_word` is the header `Coxswain-Problem`.
    pub(crate) fn parse(
        status: u16,
        code_word: Option<&str>,
        retry_after: Option<&str>,
        body: &[u8],
    ) -> Self {
        let mut refusal = Self {
            status,
            code: None,
            code_word: code_word.map(str::to_owned),
            detail: String::new(),
            remedy: None,
            retry_after: retry_after
                .and_then(|text| text.trim().parse().ok())
                .map(Duration::from_secs),
            problems: Vec::new(),
        };
        if let Ok(body) = serde_json::from_slice::<api::problem::PantavisorError>(body) {
            refusal.detail = body.error;
        } else if let Ok(body) = serde_json::from_slice::<LenientProblem>(body) {
            refusal.detail = body.detail.or(body.title).unwrap_or_default();
            refusal.remedy = body.remedy;
            refusal.problems = body.problems;
            refusal.code_word = body.code.or(refusal.code_word);
            refusal.retry_after = refusal.retry_after.or(body
                .retry_after_s
                .map(|s| Duration::from_secs(u64::from(s))));
        } else {
            refusal.detail = String::from_utf8_lossy(body)
                .trim()
                .chars()
                .take(200)
                .collect();
        }
        refusal.code = refusal.code_word.as_deref().and_then(Code::parse);
        if refusal.detail.is_empty() {
            refusal.detail = match refusal.code {
                Some(code) => code.title().to_owned(),
                None => "the server gave no reason".to_owned(),
            };
        }
        refusal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_shapes_of_refusals() {
        let pantavisor = Refusal::parse(
            404,
            Some("no-such-container"),
            None,
            br#"{"Error":"Container not found"}"#,
        );
        assert_eq!(pantavisor.code, Some(Code::NoSuchContainer));
        assert_eq!(
            pantavisor.to_string(),
            "refused: Container not found (no-such-container, HTTP 404)"
        );

        let ours = Refusal::parse(
            409,
            None,
            Some("7"),
            br#"{"code":"revision-in-use","detail":"revision 0 is the factory revision","remedy":"keep it",
                "retry_after_s":9,"problems":[],"new":1}"#,
        );
        assert_eq!(ours.code, Some(Code::RevisionInUse));
        assert_eq!(ours.retry_after, Some(Duration::from_secs(7)));
        assert_eq!(ours.remedy.as_deref(), Some("keep it"));

        let unknown = Refusal::parse(418, Some("teapot"), Some("soon"), b"<html>");
        assert_eq!((unknown.code, unknown.retry_after), (None, None));
        assert_eq!(unknown.to_string(), "refused: <html> (teapot, HTTP 418)");

        for nothing in [&b""[..], b"{}", b"\xff\xfe", b"{\"Error\":\"\"}"] {
            let refusal = Refusal::parse(500, None, None, nothing);
            assert!(!refusal.detail.is_empty(), "{nothing:?}");
        }
    }
}
