//! How a command ends: the exit codes, and what a person is told when something failed.
//!
//! A failure says what failed, why (the chain of causes) and what to do. Exit codes are a promise to scripts: none is
//! renamed or given another meaning.

use std::io;

use api::Code;
use api::problem::ManifestProblem;
use client::{Error, Refusal};
use serde::Serialize;

macro_rules! exits {
    ($($name:ident = $code:literal, $word:literal, $meaning:literal;)*) => {
        /// How coxctl ends.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Exit {
            $(#[doc = $meaning] $name,)*
        }

        impl Exit {
            /// All of them, in the order of the reference.
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)*];

            /// The number for the shell.
            pub(crate) fn code(self) -> u8 {
                match self { $(Self::$name => $code,)* }
            }

            /// The word in `--json` errors.
            pub(crate) fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// What it means.
            pub(crate) fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)* }
            }
        }
    };
}

exits! {
    Good = 0, "good", "done; with --wait: the revision runs";
    Failed = 1, "failed", "failed for a reason that has no code of its own";
    Usage = 2, "usage", "the command line is wrong";
    NotFound = 3, "not-found", "there is no such revision, container, object, key or record";
    Refused = 4, "refused", "not now or not allowed: busy, in use, failed before, no right";
    Unreachable = 5, "unreachable", "the control socket cannot be reached, or the connection broke";
    RolledBack = 6, "rolled-back", "with --wait: the revision was refused or rolled back";
    NoSpace = 7, "no-space", "the device has not enough space";
    Unacceptable = 8, "unacceptable", "the bundle, manifest or object is not acceptable";
    TimedOut = 9, "timed-out", "with --wait: no result within --timeout; the device goes on";
    Interrupted = 130, "interrupted", "interrupted by Ctrl-C; what the device began, it goes on with";
}

/// The part of `--help` about exit codes.
pub(crate) fn exit_help() -> String {
    let mut text = String::from("Exit codes:\n");
    for exit in Exit::ALL {
        text.push_str(&format!("  {:>3}  {}\n", exit.code(), exit.meaning()));
    }
    text
}

/// A command that did not do what it was asked to.
#[derive(Debug)]
pub(crate) struct Failure(Box<Told>);

/// What is told of a failure.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) exit: Exit,
    /// What failed, on what.
    pub(crate) what: String,
    /// Why, nearest cause first.
    pub(crate) because: Vec<String>,
    /// What to do.
    pub(crate) remedy: Option<String>,
    /// The server's code.
    pub(crate) code: Option<String>,
    /// Everything that is wrong with a manifest.
    pub(crate) problems: Vec<ManifestProblem>,
    /// Nobody reads what we write: end without a word.
    pub(crate) quiet: bool,
}

impl std::ops::Deref for Failure {
    type Target = Told;

    fn deref(&self) -> &Told {
        &self.0
    }
}

impl std::ops::DerefMut for Failure {
    fn deref_mut(&mut self) -> &mut Told {
        &mut self.0
    }
}

/// What `--json` shows of a failure, on standard error.
#[derive(Serialize)]
struct Shown<'a> {
    exit: u8,
    kind: &'static str,
    message: &'a str,
    because: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    problems: &'a [ManifestProblem],
}

impl Failure {
    pub(crate) fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self(Box::new(Told {
            exit,
            what: what.into(),
            because: Vec::new(),
            remedy: None,
            code: None,
            problems: Vec::new(),
            quiet: false,
        }))
    }

    pub(crate) fn because(mut self, cause: impl Into<String>) -> Self {
        self.because.push(cause.into());
        self
    }

    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// With the causes of an error, nearest first.
    pub(crate) fn caused_by(mut self, error: &dyn std::error::Error) -> Self {
        let mut cause = Some(error);
        while let Some(error) = cause {
            let text = error.to_string();
            // hyper's errors repeat the text of their source.
            if self.because.last().is_none_or(|last| !last.contains(&text)) {
                self.because.push(text);
            }
            cause = error.source();
        }
        self
    }

    /// A file of ours that cannot be read or written.
    pub(crate) fn file(verb: &str, path: &std::path::Path, error: &io::Error) -> Self {
        let exit = if error.kind() == io::ErrorKind::NotFound {
            Exit::NotFound
        } else if error.kind() == io::ErrorKind::StorageFull {
            Exit::NoSpace
        } else {
            Exit::Failed
        };
        Self::new(exit, format!("cannot {verb} {}", path.display())).because(error.to_string())
    }

    /// For a person, without the name of the program.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{}\n", self.what);
        for cause in &self.because {
            text.push_str(&format!("  because: {cause}\n"));
        }
        for problem in &self.problems {
            text.push_str(&format!("  at {}: {}\n", problem.pointer, problem.detail));
            text.push_str(&format!("     {}\n", problem.remedy));
        }
        if let Some(remedy) = &self.remedy {
            text.push_str(&format!("  to do: {remedy}\n"));
        }
        text
    }

    /// For a program: one line.
    pub(crate) fn json(&self) -> String {
        let shown = Shown {
            exit: self.exit.code(),
            kind: self.exit.word(),
            message: &self.what,
            because: &self.because,
            remedy: self.remedy.as_deref(),
            code: self.code.as_deref(),
            problems: &self.problems,
        };
        let error = serde_json::to_string(&shown).expect("strings and numbers always serialise");
        format!("{{\"error\":{error}}}")
    }
}

/// Writing to standard output failed. A reader that went away, as `head` does, is no failure.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let quiet = error.kind() == io::ErrorKind::BrokenPipe;
        let exit = if quiet { Exit::Good } else { Exit::Failed };
        let mut failure = Self::new(exit, "cannot write to standard output");
        failure.quiet = quiet;
        failure.because(error.to_string())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match &error {
            Error::Refused { refusal, .. } => refused(refusal),
            Error::Connect { socket, source } => {
                let what = format!("cannot connect to the control socket {}", socket.display());
                Self::new(Exit::Unreachable, what)
                    .because(source.to_string())
                    .remedy(connect_remedy(source.kind()))
            }
            Error::Timeout { .. } => Self::new(Exit::Unreachable, error.to_string()).remedy(
                "look at the orchestrator's log; a change that was asked for may have been made",
            ),
            Error::Broken { source, .. } => Self::new(Exit::Unreachable, error.to_string())
                .caused_by(source.as_ref())
                .remedy("try again: the orchestrator was stopped or restarted meanwhile"),
            Error::BadSocketPath { .. } => Self::new(Exit::Usage, error.to_string())
                .remedy("give the socket's path with --socket or COXSWAIN_SOCKET"),
            Error::Unsendable { .. } => Self::new(Exit::Usage, error.to_string())
                .remedy("use a name of letters, digits, '-', '_' and '.'"),
            Error::BadAnswer { .. } => Self::new(Exit::Failed, error.to_string()).remedy(
                "check that the socket is Coxswain's, and that coxctl is of the same version",
            ),
            Error::Source { what, source } => {
                Self::new(Exit::Failed, format!("cannot read {what}")).because(source.to_string())
            }
        }
    }
}

fn connect_remedy(kind: io::ErrorKind) -> &'static str {
    [
        (
            io::ErrorKind::NotFound,
            "start coxswain, or name its socket with --socket PATH or COXSWAIN_SOCKET",
        ),
        (io::ErrorKind::PermissionDenied, "run coxctl as root"),
        (
            io::ErrorKind::ConnectionRefused,
            "the socket was left by an orchestrator that has ended: start coxswain again",
        ),
        (
            io::ErrorKind::TimedOut,
            "the orchestrator takes no connections: look at its log",
        ),
    ]
    .into_iter()
    .find(|(known, _)| *known == kind)
    .map_or(
        "check the path given with --socket or COXSWAIN_SOCKET",
        |(_, remedy)| remedy,
    )
}

fn refused(refusal: &Refusal) -> Failure {
    let exit = match refusal.code {
        Some(code) => exit_of_code(code),
        None => match refusal.status {
            404 => Exit::NotFound,
            403 | 409 | 429 | 503 => Exit::Refused,
            422 => Exit::Unacceptable,
            507 => Exit::NoSpace,
            _ => Exit::Failed,
        },
    };
    let mut failure = Failure::new(exit, refusal.detail.clone());
    failure.remedy.clone_from(&refusal.remedy);
    if let (None, Some(pause)) = (&failure.remedy, refusal.retry_after) {
        failure.remedy = Some(format!("try again in {} s", pause.as_secs()));
    }
    failure.code.clone_from(&refusal.code_word);
    failure.problems.clone_from(&refusal.problems);
    failure
}

fn exit_of_code(code: Code) -> Exit {
    match code {
        Code::NoSuchObject
        | Code::NoSuchRevision
        | Code::NoSuchContainer
        | Code::NoSuchMeta
        | Code::NoSuchFailure
        | Code::NoSuchClaim
        | Code::NoSuchSubject
        | Code::NoSuchLog
        | Code::NoSuchDaemon
        | Code::NoXconnect => Exit::NotFound,
        Code::NotAllowed
        | Code::UnknownCaller
        | Code::ObjectInUse
        | Code::UploadBusy
        | Code::WrongOffset
        | Code::RevisionInUse
        | Code::FailedBefore
        | Code::Claimed
        | Code::NotYourClaim
        | Code::NothingToRollBack
        | Code::FactoryIncomplete
        | Code::NeedsReboot
        | Code::UpdateInProgress
        | Code::Busy
        | Code::ShuttingDown
        | Code::NotReady
        | Code::CommandNotSupported
        | Code::SystemContainer
        | Code::WrongStatus
        | Code::SignalNotExpected
        | Code::LimitReached => Exit::Refused,
        Code::NoSpace => Exit::NoSpace,
        Code::BodyTooLarge
        | Code::BadObjectName
        | Code::BadChecksum
        | Code::BadRevisionName
        | Code::BadManifest
        | Code::BadMeta
        | Code::BadClaim
        | Code::BadCommitMessage => Exit::Unacceptable,
        Code::UnknownEndpoint
        | Code::WrongMethod
        | Code::BodyIncomplete
        | Code::BodyTimeout
        | Code::BadQuery
        | Code::BadHeader
        | Code::BadChunk
        | Code::BadRange
        | Code::BadCommand
        | Code::NoAction
        | Code::BadAction
        | Code::BadSignal
        | Code::DaemonFailed
        | Code::DriverFailed
        | Code::Internal => Exit::Failed,
    }
}
