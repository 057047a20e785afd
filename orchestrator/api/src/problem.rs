//! Everything that the socket can refuse, each with a stable code, a status and a text.
//!
//! On Pantavisor's resources a problem is `{"Error":"<text>"}`, exactly Pantavisor's text, with the code in the header
//! `Coxswain-Problem`; on ours, and wherever a client accepts `application/problem+json`, it is an RFC 9457 problem that also
//! says what to do. Codes are never renamed or given another meaning.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::messages::ours::Claim;

/// Name of the header by which a program of the host says who it is, for claims. A container needs none and can say none.
pub const CLIENT_HEADER: &str = "Coxswain-Client";
/// Name of the header that carries the code beside Pantavisor's error body.
pub const HEADER: &str = "Coxswain-Problem";
/// Media type of an RFC 9457 problem.
pub const MEDIA_TYPE: &str = "application/problem+json";

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $status:literal, $title:literal, $pantavisor:literal;)*) => {
        /// What went wrong, for programs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// All codes, in the order of the reference.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable word on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The HTTP status that goes with it, unless a route says otherwise.
            pub fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// What it is about, the same for every occurrence.
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }

            /// Pantavisor's text, unless the place of the problem has another one.
            pub fn pantavisor(self) -> &'static str {
                match self { $(Self::$name => $pantavisor,)* }
            }

            /// The code of this word.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$name),)* _ => None }
            }
        }
    };
}

codes! {
    /// No resource has this path.
    UnknownEndpoint = "unknown-endpoint", 400, "No such resource", "unknown endpoint";
    /// The resource does not know the method.
    WrongMethod = "wrong-method", 400, "Method not supported", "Method not supported for this endpoint";
    /// The caller is neither the host nor a container of the running revision.
    UnknownCaller = "unknown-caller", 500, "Unknown caller", "Internal Error";
    /// The caller has not the role that the resource asks for.
    NotAllowed = "not-allowed", 403, "Not allowed", "Request not sent from a mgmt platform";
    /// The body is longer than the resource takes.
    BodyTooLarge = "body-too-large", 413, "Body too large", "Not enough disk space available";
    /// The body ended before what was announced.
    BodyIncomplete = "body-incomplete", 400, "Body incomplete", "Request body ended early";
    /// A chunk of the body is malformed.
    BadChunk = "bad-chunk", 413, "Bad chunk", "Unsupported protocol";
    /// The body did not come in time.
    BodyTimeout = "body-timeout", 408, "Body too slow", "Request body came too slowly";
    /// The query has an unknown or malformed part.
    BadQuery = "bad-query", 400, "Bad query", "Request has bad query";
    /// A header that the resource reads has a malformed value.
    BadHeader = "bad-header", 400, "Bad header", "Request has bad header";

    /// Not 64 lower-case hexadecimal digits.
    BadObjectName = "bad-object-name", 400, "Bad object name", "Request has bad object name";
    /// There is no such object.
    NoSuchObject = "no-such-object", 404, "No such object", "Request has bad object name";
    /// What was uploaded has another hash.
    BadChecksum = "bad-checksum", 422, "Bad checksum", "Object has bad checksum";
    /// The storage has no room, or only its reserve.
    NoSpace = "no-space", 507, "No space left", "Not enough disk space available";
    /// A revision needs the object.
    ObjectInUse = "object-in-use", 409, "Object in use", "Object is in use";
    /// Somebody else is uploading the object.
    UploadBusy = "upload-busy", 409, "Upload under way", "Object is being uploaded";
    /// The upload does not continue where the part ends.
    WrongOffset = "wrong-offset", 409, "Wrong upload offset", "Upload has bad offset";
    /// No byte of the range exists.
    BadRange = "bad-range", 416, "Range not satisfiable", "Request has bad range";

    /// The name of a revision is not acceptable.
    BadRevisionName = "bad-revision-name", 400, "Bad revision name", "Request has bas step name";
    /// There is no such revision.
    NoSuchRevision = "no-such-revision", 404, "No such revision", "Resource does not exist";
    /// The manifest has problems.
    BadManifest = "bad-manifest", 422, "Bad manifest", "Parser: State JSON has bad format";
    /// The revision may not be removed or replaced.
    RevisionInUse = "revision-in-use", 409, "Revision in use", "Revision is in use";
    /// The same manifest failed before.
    FailedBefore = "failed-before", 409, "Failed before", "Revision failed before";
    /// There is no commit message, or it is empty.
    BadCommitMessage = "bad-commit-message", 400, "No commit message", "No commit message";
    /// Revision 0 is not complete.
    FactoryIncomplete = "factory-incomplete", 409, "Factory revision incomplete", "Factory revision is incomplete";
    /// There is no earlier revision.
    NothingToRollBack = "nothing-to-roll-back", 409, "Nothing to roll back", "Nothing to roll back";

    /// Not before the update has ended.
    UpdateInProgress = "update-in-progress", 503, "Update in progress", "Cannot do this operation while update is ongoing";
    /// The same work is being done already.
    Busy = "busy", 503, "Busy", "A command is already in progress. Try again";
    /// A shutdown is under way.
    ShuttingDown = "shutting-down", 503, "Shutting down", "Device is shutting down";
    /// The storage has not been read yet.
    NotReady = "not-ready", 500, "Still starting", "State not loaded yet";
    /// Not a command.
    BadCommand = "bad-command", 400, "Bad command", "Command has bad format";
    /// A command that this device does not carry out.
    CommandNotSupported = "command-not-supported", 409, "Command not supported", "Cannot do this operation on this device";

    /// There is no such container in the running revision.
    NoSuchContainer = "no-such-container", 404, "No such container", "Container not found";
    /// Its policy forbids control over the socket.
    SystemContainer = "system-container", 403, "Container is part of the system", "Container has restart_policy 'system' and cannot be controlled via API";
    /// There is no action in the body.
    NoAction = "no-action", 400, "No action", "Missing 'action' field";
    /// Not an action.
    BadAction = "bad-action", 400, "Bad action", "Invalid action. Use 'start', 'stop', or 'restart'";
    /// The container is where the action cannot be done.
    WrongStatus = "wrong-status", 400, "Container status does not allow this", "Container state does not allow restart";
    /// Not a signal.
    BadSignal = "bad-signal", 400, "Bad signal", "Signal has bad format";
    /// The caller is no container with the goal READY.
    SignalNotExpected = "signal-not-expected", 500, "Signal not expected", "Signal not expected from this platform";

    /// Not a metadata key or value.
    BadMeta = "bad-meta", 400, "Bad metadata", "Cannot add or update meta";
    /// There is no such key.
    NoSuchMeta = "no-such-meta", 404, "No such key", "Meta does not exist";
    /// A limit on the number of things was reached.
    LimitReached = "limit-reached", 507, "Limit reached", "Not enough disk space available";

    /// There is no such daemon.
    NoSuchDaemon = "no-such-daemon", 404, "No such daemon", "Daemon not found";
    /// The daemon could not be started or stopped.
    DaemonFailed = "daemon-failed", 500, "Daemon cannot be controlled", "Cannot control daemon";
    /// A module of a driver could not be loaded.
    DriverFailed = "driver-failed", 400, "Driver cannot be loaded", "Error loading driver";
    /// Services of containers are not connected by the orchestrator.
    NoXconnect = "no-xconnect", 404, "No service mesh", "xconnect not enabled at build time";
    /// The change cannot be made while the machine runs.
    NeedsReboot = "needs-reboot", 409, "Needs a reboot", "Cannot apply revision without a reboot";
    /// Another client has claimed what would be changed.
    Claimed = "claimed", 409, "Claimed by another client", "Claimed by another client";
    /// Not a claim.
    BadClaim = "bad-claim", 400, "Bad claim", "Claim has bad format";
    /// There is no such claim.
    NoSuchClaim = "no-such-claim", 404, "No such claim", "Resource does not exist";
    /// The claim is another client's.
    NotYourClaim = "not-your-claim", 403, "Claim of another client", "Claim of another client";

    /// There is no such failure record.
    NoSuchFailure = "no-such-failure", 404, "No such failure record", "Resource does not exist";
    /// Nothing has this name.
    NoSuchSubject = "no-such-subject", 404, "Nothing of that name", "Resource does not exist";
    /// There is no log of this container.
    NoSuchLog = "no-such-log", 404, "No log", "Resource does not exist";
    /// What was asked could not be done: the storage failed, or a defect.
    Internal = "internal", 500, "Internal error", "Internal Error";
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing that was refused, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What, for programs.
    pub code: Code,
    /// HTTP status.
    pub status: u16,
    /// Pantavisor's text.
    pub pantavisor: String,
    /// What failed, on what, why.
    pub detail: String,
    /// What to do about it.
    pub remedy: Option<String>,
    /// Seconds after which trying again may help (`Retry-After`).
    pub retry_after_s: Option<u32>,
    /// Everything that is wrong with a manifest.
    pub manifest: Vec<ManifestProblem>,
    /// The claim that stands in the way.
    pub claim: Option<Box<Claim>>,
}

impl Problem {
    /// A problem with the status and Pantavisor text of its code.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            status: code.status(),
            pantavisor: code.pantavisor().to_owned(),
            detail: detail.into(),
            remedy: None,
            retry_after_s: None,
            manifest: Vec::new(),
            claim: None,
        }
    }

    /// With another status: Pantavisor uses some where nobody would expect them.
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// With another Pantavisor text.
    #[must_use]
    pub fn pantavisor(mut self, text: impl Into<String>) -> Self {
        self.pantavisor = text.into();
        self
    }

    /// With what to do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// With a time after which trying again may help.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// With the claim that stands in the way.
    #[must_use]
    pub fn claim(mut self, claim: Claim) -> Self {
        self.claim = Some(Box::new(claim));
        self
    }

    /// The body on Pantavisor's resources.
    pub fn pantavisor_body(&self) -> String {
        let text = serde_json::Value::String(self.pantavisor.clone());
        format!("{{\"Error\":{text}}}")
    }

    /// The body on our resources.
    pub fn body(&self) -> ProblemBody {
        ProblemBody {
            kind: format!("urn:coxswain:problem:{}", self.code),
            title: self.code.title().to_owned(),
            status: self.status,
            code: self.code.as_str().to_owned(),
            detail: self.detail.clone(),
            remedy: self.remedy.clone(),
            retry_after_s: self.retry_after_s,
            problems: self.manifest.clone(),
            claim: self.claim.as_deref().cloned(),
        }
    }
}

/// An RFC 9457 problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub struct ProblemBody {
    /// `urn:coxswain:problem:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it is about, the same for every occurrence.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// Stable word for programs.
    pub code: String,
    /// What failed, on what, why.
    pub detail: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// Seconds after which trying again may help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u32>,
    /// Everything that is wrong with a manifest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<ManifestProblem>,
    /// The claim that stands in the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
}

/// One thing that is wrong with a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ManifestProblem {
    /// RFC 6901 pointer to the place.
    pub pointer: String,
    /// Stable word for programs, such as `unknown-group`.
    pub code: String,
    /// What is wrong.
    pub detail: String,
    /// What to do about it.
    pub remedy: String,
}

impl From<&model::manifest::Problem> for ManifestProblem {
    fn from(problem: &model::manifest::Problem) -> Self {
        Self {
            pointer: problem.pointer.clone(),
            code: problem.code.to_owned(),
            detail: problem.detail.clone(),
            remedy: problem.remedy.clone(),
        }
    }
}

/// Body of an error on Pantavisor's resources.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PantavisorError {
    /// Pantavisor's text.
    #[serde(rename = "Error")]
    pub error: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_parse_back() {
        for (index, code) in Code::ALL.iter().enumerate() {
            assert_eq!(Code::parse(code.as_str()), Some(*code));
            assert!(
                Code::ALL[..index]
                    .iter()
                    .all(|other| other.as_str() != code.as_str()),
                "{code}"
            );
            assert!((400..600).contains(&code.status()), "{code}");
        }
        assert_eq!(Code::parse("nonsense"), None);
    }

    #[test]
    fn both_bodies() {
        let problem = Problem::new(Code::UnknownEndpoint, "no resource has the path /a\"b")
            .pantavisor("unknown endpoint: /a\"b");
        assert_eq!(
            problem.pantavisor_body(),
            r#"{"Error":"unknown endpoint: /a\"b"}"#
        );
        assert_eq!(
            serde_json::to_string(&problem.body()).unwrap(),
            r#"{"type":"urn:coxswain:problem:unknown-endpoint","title":"No such resource","status":400,"code":"unknown-endpoint","detail":"no resource has the path /a\"b"}"#
        );
    }
}
