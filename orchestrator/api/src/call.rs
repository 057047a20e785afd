//! A request as a value: what was asked, with every name parsed. One variant per row of the table; a body is parsed by the
//! functions at the end, after the caller was found to have the right.

use model::claim::Wanted;
use model::log::Level;
use model::metadata::{MetaKey, MetaKind};
use model::{ContainerName, ObjectId, RevisionId};

use crate::limits;
use crate::messages::ours::{ClaimBody, LeaseBody};
use crate::messages::pantavisor::{Action, CommandBody, DaemonAction, Signal};
use crate::problem::{Code, Problem};
use crate::routes::{self, Method, Params};

pub(crate) const USER: MetaKind = MetaKind::User;
pub(crate) const DEVICE: MetaKind = MetaKind::Device;

/// Everything that can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// `GET /containers`
    ListContainers,
    /// `PUT /containers/{name}`
    Control {
        /// Which; `None` when no container can have this name.
        container: Option<ContainerName>,
    },
    /// `GET /groups`
    ListGroups,
    /// `POST /signal`
    Signal,
    /// `POST /commands`
    Command,
    /// `GET /objects`
    ListObjects,
    /// `GET /objects/{sha256}`
    GetObject(ObjectId),
    /// `HEAD /objects/{sha256}`
    HeadObject(ObjectId),
    /// `PUT /objects/{sha256}`
    PutObject(ObjectId),
    /// `PATCH /objects/{sha256}`
    PatchObject(ObjectId),
    /// `DELETE /objects/{sha256}`
    DeleteObject(ObjectId),
    /// `GET /uploads`
    ListUploads,
    /// `GET /steps`
    ListRevisions,
    /// `GET /steps/{rev}`
    GetRevision(RevisionRef),
    /// `PUT /steps/locals/{name}`
    PutRevision(RevisionId),
    /// `DELETE /steps/{rev}`
    DeleteRevision(RevisionRef),
    /// `GET /steps/{rev}/progress`
    Progress(RevisionRef),
    /// `GET /steps/{rev}/commitmsg`
    CommitMessage(RevisionRef),
    /// `PUT /steps/{rev}/commitmsg`
    PutCommitMessage(RevisionRef),
    /// `POST /steps/{rev}/plan`; of the manifest in the body when `None`: `POST /plan`
    Plan(Option<RevisionRef>),
    /// `GET /user-meta`, `GET /device-meta`
    ListMeta(MetaKind),
    /// `PUT /user-meta/{key}`, `PUT /device-meta/{key}`
    PutMeta {
        /// Which map.
        kind: MetaKind,
        /// Key.
        key: MetaKey,
    },
    /// `DELETE /user-meta/{key}`, `DELETE /device-meta/{key}`
    DeleteMeta {
        /// Which map.
        kind: MetaKind,
        /// Key.
        key: MetaKey,
    },
    /// `GET /buildinfo`
    BuildInfo,
    /// `GET /config`
    Config,
    /// `GET /config2`
    Config2,
    /// `GET /drivers`
    ListDrivers,
    /// `PUT /drivers/load` and the like
    Drive {
        /// Which driver of the caller's container; all of them when `None`.
        driver: Option<String>,
        /// Load or unload.
        load: bool,
    },
    /// `GET /daemons`
    ListDaemons,
    /// `PUT /daemons/{name}`
    ControlDaemon {
        /// Which.
        daemon: String,
    },
    /// `GET /xconnect-graph`
    Connections,
    /// `GET /wakelocks`
    Wakelocks,
    /// `POST /storage/gc`
    Collect,
    /// `GET /status`
    Status,
    /// `GET /healthz`
    Health,
    /// `GET /metrics`
    Metrics,
    /// `GET /usage`
    Usage,
    /// `GET /version`
    Version,
    /// `GET /openapi.json`
    OpenApi,
    /// `GET /events`
    Events {
        /// Id of the last event that was seen.
        since: Option<String>,
    },
    /// `GET /claims`
    ListClaims,
    /// `POST /claims`
    Claim,
    /// `PUT /claims/{id}`
    RenewClaim(u64),
    /// `DELETE /claims/{id}`
    ReleaseClaim(u64),
    /// `GET /failures`
    ListFailures,
    /// `GET /failures/{id}`
    GetFailure(u64),
    /// `GET /why` and below
    Why(Subject),
    /// `GET /logs/{container}`
    Logs {
        /// Whose.
        container: ContainerName,
        /// Which lines.
        query: LogQuery,
    },
}

/// Which lines of a log, and how they are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogQuery {
    /// Lines from the end; of those that are wanted.
    pub tail: u32,
    /// Whether to go on with what is written from now on.
    pub follow: bool,
    /// Of which revision; where the container wrote last when `None`.
    pub revision: Option<RevisionId>,
    /// From when on: a time, or how long ago.
    pub since: Option<String>,
    /// This level and worse ones.
    pub level: Option<Level>,
    /// How they are shown.
    pub form: LogForm,
}

/// How lines of a log are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogForm {
    /// As the container wrote them.
    Raw,
    /// With time, level and source before the text.
    Text,
    /// As lines of JSON.
    Json,
}

impl Call {
    /// The call of a request. The server checks the caller's right between [`routes::find`] and [`routes::Match::call`]; this is both
    /// in one for those who need no check.
    ///
    /// # Errors
    /// Unknown resource or method, bad name, bad query; with Pantavisor's texts.
    pub fn parse(method: Method, target: &str) -> Result<Self, Problem> {
        routes::find(method, target)?.call()
    }
}

/// A revision as named in a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevisionRef {
    /// `current`: the running one.
    Current,
    /// By its name.
    Named(RevisionId),
}

/// What `why` is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// The device.
    Device,
    /// A revision.
    Revision(RevisionId),
    /// A container.
    Container(ContainerName),
}

type Parsed = Result<Call, Problem>;

fn segment<'a>(params: &'a Params<'_>) -> &'a str {
    params
        .segments
        .first()
        .map(AsRef::as_ref)
        .unwrap_or_default()
}

pub(crate) fn control(params: &Params<'_>) -> Parsed {
    Ok(Call::Control {
        container: segment(params).parse().ok(),
    })
}

pub(crate) fn load_all(_params: &Params<'_>) -> Parsed {
    Ok(drive(None, true))
}

pub(crate) fn unload_all(_params: &Params<'_>) -> Parsed {
    Ok(drive(None, false))
}

pub(crate) fn load_driver(params: &Params<'_>) -> Parsed {
    Ok(drive(Some(segment(params)), true))
}

pub(crate) fn unload_driver(params: &Params<'_>) -> Parsed {
    Ok(drive(Some(segment(params)), false))
}

fn drive(driver: Option<&str>, load: bool) -> Call {
    Call::Drive {
        driver: driver.map(str::to_owned),
        load,
    }
}

pub(crate) fn control_daemon(params: &Params<'_>) -> Parsed {
    Ok(Call::ControlDaemon {
        daemon: segment(params).to_owned(),
    })
}

fn object(params: &Params<'_>) -> Result<ObjectId, Problem> {
    segment(params)
        .parse()
        .map_err(|error: model::id::InvalidName| {
            Problem::new(Code::BadObjectName, error.to_string())
        })
}

pub(crate) fn get_object(params: &Params<'_>) -> Parsed {
    Ok(Call::GetObject(object(params)?))
}

pub(crate) fn head_object(params: &Params<'_>) -> Parsed {
    Ok(Call::HeadObject(object(params)?))
}

pub(crate) fn put_object(params: &Params<'_>) -> Parsed {
    // Pantavisor compares names as text: an upper-case name of the right length is a checksum that cannot match.
    let name = segment(params);
    if name.len() == 64 && name.parse::<ObjectId>().is_err() {
        return Err(Problem::new(
            Code::BadChecksum,
            format!("{name:?} can be the name of no object: use 64 lower-case hexadecimal digits"),
        ));
    }
    Ok(Call::PutObject(object(params)?))
}

pub(crate) fn patch_object(params: &Params<'_>) -> Parsed {
    Ok(Call::PatchObject(object(params)?))
}

pub(crate) fn delete_object(params: &Params<'_>) -> Parsed {
    Ok(Call::DeleteObject(object(params)?))
}

fn local_name(params: &Params<'_>) -> Result<RevisionId, model::id::InvalidName> {
    format!("locals/{}", segment(params)).parse()
}

fn no_such_revision(error: &model::id::InvalidName) -> Problem {
    Problem::new(Code::NoSuchRevision, error.to_string())
        .remedy("see GET /steps for those there are")
}

fn local(params: &Params<'_>) -> Result<RevisionRef, Problem> {
    local_name(params)
        .map(RevisionRef::Named)
        .map_err(|error| no_such_revision(&error))
}

fn revision(params: &Params<'_>) -> Result<RevisionRef, Problem> {
    match segment(params) {
        "current" => Ok(RevisionRef::Current),
        name => name
            .parse()
            .map(RevisionRef::Named)
            .map_err(|error| no_such_revision(&error)),
    }
}

pub(crate) fn get_local(params: &Params<'_>) -> Parsed {
    Ok(Call::GetRevision(local(params)?))
}

pub(crate) fn put_local(params: &Params<'_>) -> Parsed {
    local_name(params)
        .map(Call::PutRevision)
        .map_err(|error| Problem::new(Code::BadRevisionName, error.to_string()))
}

pub(crate) fn delete_local(params: &Params<'_>) -> Parsed {
    Ok(Call::DeleteRevision(local(params)?))
}

pub(crate) fn get_revision(params: &Params<'_>) -> Parsed {
    Ok(Call::GetRevision(revision(params)?))
}

pub(crate) fn delete_revision(params: &Params<'_>) -> Parsed {
    Ok(Call::DeleteRevision(revision(params)?))
}

pub(crate) fn local_progress(params: &Params<'_>) -> Parsed {
    Ok(Call::Progress(local(params)?))
}

pub(crate) fn revision_progress(params: &Params<'_>) -> Parsed {
    Ok(Call::Progress(revision(params)?))
}

pub(crate) fn local_message(params: &Params<'_>) -> Parsed {
    Ok(Call::CommitMessage(local(params)?))
}

pub(crate) fn revision_message(params: &Params<'_>) -> Parsed {
    Ok(Call::CommitMessage(revision(params)?))
}

pub(crate) fn put_local_message(params: &Params<'_>) -> Parsed {
    Ok(Call::PutCommitMessage(local(params)?))
}

pub(crate) fn put_revision_message(params: &Params<'_>) -> Parsed {
    Ok(Call::PutCommitMessage(revision(params)?))
}

pub(crate) fn plan_local(params: &Params<'_>) -> Parsed {
    Ok(Call::Plan(Some(local(params)?)))
}

pub(crate) fn plan_revision(params: &Params<'_>) -> Parsed {
    Ok(Call::Plan(Some(revision(params)?)))
}

/// Pantavisor's text for a value or key that it does not take.
pub fn bad_meta(kind: MetaKind, detail: impl Into<String>) -> Problem {
    Problem::new(Code::BadMeta, detail).pantavisor(match kind {
        MetaKind::User => "Cannot add or update user meta",
        MetaKind::Device => "Cannot add or update device meta",
    })
}

fn meta_key(kind: MetaKind, params: &Params<'_>) -> Result<MetaKey, Problem> {
    segment(params)
        .parse()
        .map_err(|error: model::metadata::InvalidMetaKey| bad_meta(kind, error.to_string()))
}

pub(crate) fn put_user_meta(params: &Params<'_>) -> Parsed {
    Ok(Call::PutMeta {
        kind: USER,
        key: meta_key(USER, params)?,
    })
}

pub(crate) fn delete_user_meta(params: &Params<'_>) -> Parsed {
    Ok(Call::DeleteMeta {
        kind: USER,
        key: meta_key(USER, params)?,
    })
}

pub(crate) fn put_device_meta(params: &Params<'_>) -> Parsed {
    Ok(Call::PutMeta {
        kind: DEVICE,
        key: meta_key(DEVICE, params)?,
    })
}

pub(crate) fn delete_device_meta(params: &Params<'_>) -> Parsed {
    Ok(Call::DeleteMeta {
        kind: DEVICE,
        key: meta_key(DEVICE, params)?,
    })
}

/// The pairs of a query, decoded.
fn pairs(params: &Params<'_>, known: &[&str]) -> Result<Vec<(String, String)>, Problem> {
    let mut pairs = Vec::new();
    for pair in params
        .query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
    {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let bad = |why: &str| {
            Problem::new(Code::BadQuery, format!("query parameter {name:?}: {why}"))
                .remedy(format!("this resource knows: {}", known.join(", ")))
        };
        if !known.contains(&name) {
            return Err(bad("not known"));
        }
        let value = routes::percent_decode(value).ok_or_else(|| bad("not UTF-8"))?;
        pairs.push((name.to_owned(), value.into_owned()));
    }
    Ok(pairs)
}

pub(crate) fn events(params: &Params<'_>) -> Parsed {
    let since = pairs(params, &["since"])?.pop().map(|(_, value)| value);
    Ok(Call::Events { since })
}

pub(crate) fn failure(params: &Params<'_>) -> Parsed {
    let id = segment(params);
    id.parse()
        .map(Call::GetFailure)
        .map_err(|_| no_such_failure(id))
}

fn claim(params: &Params<'_>) -> Result<u64, Problem> {
    let id = segment(params);
    id.parse().map_err(|_| {
        Problem::new(Code::NoSuchClaim, format!("there is no claim {id}"))
            .remedy("see GET /claims for those there are")
    })
}

pub(crate) fn renew_claim(params: &Params<'_>) -> Parsed {
    claim(params).map(Call::RenewClaim)
}

pub(crate) fn release_claim(params: &Params<'_>) -> Parsed {
    claim(params).map(Call::ReleaseClaim)
}

/// There is no failure record of this number.
pub fn no_such_failure(id: impl std::fmt::Display) -> Problem {
    Problem::new(
        Code::NoSuchFailure,
        format!("there is no failure record {id}"),
    )
    .remedy("see GET /failures for those there are; the oldest ones are removed")
}

/// Nothing that `why` could be asked about has this name.
pub fn no_such_subject(name: impl std::fmt::Display) -> Problem {
    Problem::new(
        Code::NoSuchSubject,
        format!(
            "neither a container or group of the running revision nor a revision is called {name}"
        ),
    )
    .remedy("see GET /containers and GET /steps")
}

pub(crate) fn why_local(params: &Params<'_>) -> Parsed {
    local_name(params)
        .map(|revision| Call::Why(Subject::Revision(revision)))
        .map_err(|_| no_such_subject(format_args!("locals/{}", segment(params))))
}

pub(crate) fn why(params: &Params<'_>) -> Parsed {
    let name = segment(params);
    if let Ok(revision) = name.parse() {
        return Ok(Call::Why(Subject::Revision(revision)));
    }
    name.parse()
        .map(|container| Call::Why(Subject::Container(container)))
        .map_err(|_| no_such_subject(name))
}

pub(crate) fn logs(params: &Params<'_>) -> Parsed {
    let bad = |name: &str, value: &str, expected: &str| {
        Problem::new(
            Code::BadQuery,
            format!("query parameter {name}={value:?}: {expected}"),
        )
    };
    let container = segment(params)
        .parse()
        .map_err(|_| no_such_log(segment(params)))?;
    let mut query = LogQuery {
        tail: limits::LOG_TAIL_LINES_DEFAULT,
        follow: false,
        revision: None,
        since: None,
        level: None,
        form: LogForm::Raw,
    };
    let known = ["tail", "follow", "revision", "since", "level", "format"];
    let mut tail = None;
    for (name, value) in pairs(params, &known)? {
        match name.as_str() {
            "tail" => {
                let lines = value
                    .parse()
                    .ok()
                    .filter(|lines| *lines <= limits::LOG_TAIL_LINES_MAX);
                tail =
                    Some(lines.ok_or_else(|| bad("tail", &value, "use a number from 0 to 10000"))?);
            }
            "follow" => {
                query.follow = match value.as_str() {
                    "" | "1" | "true" => true,
                    "0" | "false" => false,
                    _ => return Err(bad("follow", &value, "use 1 or 0")),
                };
            }
            "level" => {
                let expected = "use fatal, error, warn, info or debug";
                query.level = Some(value.parse().map_err(|()| bad("level", &value, expected))?);
            }
            // Read against the device's clock where that is known.
            "since" => query.since = Some(value),
            "format" => {
                query.form = match value.as_str() {
                    "raw" => LogForm::Raw,
                    "text" => LogForm::Text,
                    "json" => LogForm::Json,
                    _ => return Err(bad("format", &value, "use raw, text or json")),
                };
            }
            _ => {
                query.revision = Some(
                    value
                        .parse()
                        .map_err(|_| bad("revision", &value, "not the name of a revision"))?,
                );
            }
        }
    }
    // Who asks from when on wants all of that.
    query.tail = tail.unwrap_or(match query.since {
        Some(_) => limits::LOG_TAIL_LINES_MAX,
        None => limits::LOG_TAIL_LINES_DEFAULT,
    });
    Ok(Call::Logs { container, query })
}

/// There is no log of this container.
pub fn no_such_log(name: impl std::fmt::Display) -> Problem {
    Problem::new(
        Code::NoSuchLog,
        format!("there is no log of a container {name}"),
    )
    .remedy("see GET /containers; a container that was never started has no log")
}

/// Reads the body of `PUT /containers/{name}`.
///
/// # Errors
/// [`Code::NoAction`], [`Code::BadAction`].
pub fn parse_action(body: &[u8]) -> Result<Action, Problem> {
    action(body, "\"start\", \"stop\" or \"restart\"")
}

/// Reads the body of `PUT /daemons/{name}`. Pantavisor takes any text and does nothing when it is no action; that would be told as done.
///
/// # Errors
/// [`Code::NoAction`], [`Code::BadAction`].
pub fn parse_daemon_action(body: &[u8]) -> Result<DaemonAction, Problem> {
    action(body, "\"start\" or \"stop\"").map_err(|problem| {
        if problem.code == Code::BadAction {
            problem.pantavisor("Invalid action. Use 'start' or 'stop'")
        } else {
            problem
        }
    })
}

fn action<T: serde::de::DeserializeOwned>(body: &[u8], known: &str) -> Result<T, Problem> {
    let no_action = || {
        Problem::new(
            Code::NoAction,
            "the body is no JSON object with the key \"action\"",
        )
        .remedy(format!("send {{\"action\":…}} with {known}"))
    };
    let value: serde_json::Value = serde_json::from_slice(body).map_err(|_| no_action())?;
    let action = value.get("action").ok_or_else(no_action)?;
    serde_json::from_value(action.clone()).map_err(|_| {
        Problem::new(Code::BadAction, format!("{action} is not an action"))
            .remedy(format!("use {known}"))
    })
}

/// Reads the body of `POST /commands`.
///
/// # Errors
/// [`Code::BadCommand`].
pub fn parse_command(body: &[u8]) -> Result<CommandBody, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        Problem::new(
            Code::BadCommand,
            format!("the body is not a command: {error}"),
        )
        .remedy("send {\"op\":\"LOCAL_RUN\",\"payload\":\"locals/x\"}; both keys must be there")
    })
}

fn bad_claim(detail: impl std::fmt::Display) -> Problem {
    Problem::new(Code::BadClaim, format!("the body is not a claim: {detail}"))
        .remedy("send {\"parts\":[\"container:web\"],\"priority\":100,\"lease_s\":300}")
}

/// Reads the body of `POST /claims`.
///
/// # Errors
/// [`Code::BadClaim`].
pub fn parse_claim(body: &[u8]) -> Result<Wanted, Problem> {
    let body: ClaimBody = serde_json::from_slice(body).map_err(bad_claim)?;
    let priority = body.priority.unwrap_or(limits::CLAIM_PRIORITY_DEFAULT);
    let lease_s = body.lease_s.unwrap_or(limits::CLAIM_LEASE_S_DEFAULT);
    Wanted::new(body.parts, priority, lease_s).map_err(bad_claim)
}

/// Reads the body of `PUT /claims/{id}`: the length of the lease in seconds, when it says one.
///
/// # Errors
/// [`Code::BadClaim`].
pub fn parse_lease(body: &[u8]) -> Result<Option<u32>, Problem> {
    if body.is_empty() {
        return Ok(None);
    }
    let body: LeaseBody = serde_json::from_slice(body).map_err(bad_claim)?;
    let lease = body.lease_s.map(model::claim::lease);
    lease.transpose().map_err(bad_claim)
}

/// Reads the body of `POST /signal`; only `ready` passes.
///
/// # Errors
/// [`Code::BadSignal`], [`Code::SignalNotExpected`].
pub fn parse_signal(body: &[u8]) -> Result<(), Problem> {
    let signal: Signal = serde_json::from_slice(body).map_err(|error| {
        Problem::new(
            Code::BadSignal,
            format!("the body is not a signal: {error}"),
        )
        .remedy("send {\"type\":\"ready\",\"payload\":\"\"}")
    })?;
    if signal.kind == "ready" {
        Ok(())
    } else {
        Err(Problem::new(
            Code::SignalNotExpected,
            format!("there is no signal {:?}", signal.kind),
        )
        .remedy("the only signal is \"ready\""))
    }
}
