//! The one table of everything that can be asked over the socket.
//!
//! Routing, access, body limits, the OpenAPI document, the reference and the contract tests are made from [`ROUTES`]. Order
//! matters only between paths that fit the same request: the first row wins.

use std::borrow::Cow;

use schemars::generate::SchemaGenerator;
use schemars::{JsonSchema, Schema};

use crate::call::{self, Call};
use crate::limits;
use crate::messages::{ours, pantavisor, plan};
use crate::problem::{Code, Problem};

/// Methods that some route knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// Read.
    Get,
    /// Look without reading.
    Head,
    /// Set.
    Put,
    /// Ask for.
    Post,
    /// Continue an upload.
    Patch,
    /// Remove.
    Delete,
}

impl Method {
    /// The word in the request line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Put => "PUT",
            Self::Post => "POST",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    /// The method of this word; upper case only.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "PUT" => Self::Put,
            "POST" => Self::Post,
            "PATCH" => Self::Patch,
            "DELETE" => Self::Delete,
            _ => return None,
        })
    }
}

/// Who may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// The host and every container of the running revision.
    Anyone,
    /// As [`Access::Monitor`], and the container whose name is in the path.
    Own,
    /// Who has the role `monitor` or `mgmt`, and the host's root.
    Monitor,
    /// Who has the role `mgmt`, and the host's root.
    Mgmt,
}

/// How a path is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// The whole path, after percent-decoding and without query and fragment.
    Plain,
    /// Segment by segment as Pantavisor does: repeated inner `/` collapse, a trailing one is ignored, nothing is decoded, a
    /// query is part of the last segment.
    Segments,
    /// Segment by segment after percent-decoding, without query.
    Decoded,
}

/// Whose error bodies a resource has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `{"Error":"<text>"}`.
    Pantavisor,
    /// RFC 9457.
    Ours,
}

/// What body a request has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// None is read; what is sent is skipped.
    None,
    /// At most so many bytes, read before the call is made.
    Limit(usize),
    /// As long as there is space; written while it is read.
    Stream,
}

/// What a successful answer holds.
#[derive(Debug, Clone, Copy)]
pub enum Answer {
    /// Nothing.
    Empty,
    /// JSON of this type.
    Json(fn(&mut SchemaGenerator) -> Schema),
    /// Bytes of an object; `Range` is honoured.
    Bytes,
    /// The manifest, byte for byte.
    Manifest,
    /// Plain text.
    Text,
    /// Text in the OpenMetrics format.
    Metrics,
    /// Server-sent events; each one's data is an `Event`.
    Events,
}

/// A parameter of the query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query {
    /// Its name.
    pub name: &'static str,
    /// Whether its value is a number.
    pub number: bool,
    /// What it does.
    pub summary: &'static str,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// Method.
    pub method: Method,
    /// Path; `{name}` stands for one segment.
    pub path: &'static str,
    /// How the path is compared.
    pub style: Style,
    /// Whose error bodies it has.
    pub shape: Shape,
    /// Who may call.
    pub access: Access,
    /// What body the request has.
    pub body: Body,
    /// Type of a JSON request body, for the reference.
    pub request: Option<fn(&mut SchemaGenerator) -> Schema>,
    /// What a successful answer holds.
    pub answer: Answer,
    /// Other statuses that are no problem, each with what it means.
    pub also: &'static [(u16, &'static str)],
    /// What it may be refused with, beside what every route may be refused with.
    pub problems: &'static [Code],
    /// Parameters of the query.
    pub query: &'static [Query],
    /// One line for people.
    pub summary: &'static str,
    /// Makes the call.
    pub call: fn(&Params<'_>) -> Result<Call, Problem>,
}

/// What the path and the query of a request hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Params<'a> {
    /// The segments that stand where the route has `{}`.
    pub segments: Vec<Cow<'a, str>>,
    /// The query, without `?`.
    pub query: Option<&'a str>,
}

/// A request that fits a route.
#[derive(Debug, Clone)]
pub struct Match<'a> {
    /// The route.
    pub route: &'static Route,
    /// What its path holds.
    pub params: Params<'a>,
}

impl Match<'_> {
    /// Makes the call.
    ///
    /// # Errors
    /// What is wrong with a name or the query.
    pub fn call(&self) -> Result<Call, Problem> {
        (self.route.call)(&self.params)
    }
}

/// Finds the route of a request. `target` is the request target as sent (without scheme and host).
///
/// # Errors
/// [`Code::UnknownEndpoint`] or [`Code::WrongMethod`], with Pantavisor's texts; these are told to any caller.
pub fn find(method: Method, target: &str) -> Result<Match<'_>, Problem> {
    let mut known = false;
    for route in ROUTES {
        let Some(params) = fit(route, target) else {
            continue;
        };
        known = true;
        if route.method == method {
            return Ok(Match { route, params });
        }
    }
    if known {
        return Err(Problem::new(
            Code::WrongMethod,
            format!("{} is not supported for {target}", method.as_str()),
        )
        .remedy("see GET /openapi.json for the methods of each resource"));
    }
    Err(Problem::new(
        Code::UnknownEndpoint,
        format!("there is no resource {target}"),
    )
    .pantavisor(format!("unknown endpoint: {target}"))
    .remedy("see GET /openapi.json for the resources there are"))
}

fn fit<'a>(route: &Route, target: &'a str) -> Option<Params<'a>> {
    let (without_fragment, _) = target.split_once('#').unwrap_or((target, ""));
    let (path, query) = match without_fragment.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (without_fragment, None),
    };
    match route.style {
        Style::Plain => (percent_decode(path)? == route.path).then(|| Params {
            segments: Vec::new(),
            query,
        }),
        Style::Segments => Some(Params {
            segments: fit_segments(route.path, target, |segment| Some(Cow::Borrowed(segment)))?,
            query: None,
        }),
        Style::Decoded => Some(Params {
            segments: fit_segments(route.path, path, percent_decode)?,
            query,
        }),
    }
}

fn fit_segments<'a>(
    template: &str,
    path: &'a str,
    decode: impl Fn(&'a str) -> Option<Cow<'a, str>>,
) -> Option<Vec<Cow<'a, str>>> {
    let mut given = path
        .strip_prefix('/')?
        .split('/')
        .filter(|segment| !segment.is_empty());
    let mut held = Vec::new();
    for (index, wanted) in template[1..].split('/').enumerate() {
        let segment = given.next()?;
        if index >= limits::PATH_SEGMENTS_MAX || segment.len() >= limits::PATH_SEGMENT_BYTES_MAX {
            return None;
        }
        if wanted.starts_with('{') {
            held.push(decode(segment)?);
        } else if decode(segment)? != wanted {
            return None;
        }
    }
    given.next().is_none().then_some(held)
}

/// Decodes `%XX`; a `%` that is not followed by two hexadecimal digits stands for itself, as in libevent. `None` when the
/// result is not UTF-8.
pub(crate) fn percent_decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while let Some(&byte) = bytes.get(index) {
        let digits = bytes.get(index + 1..index + 3).and_then(|pair| {
            let text = std::str::from_utf8(pair).ok()?;
            if !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            u8::from_str_radix(text, 16).ok()
        });
        match (byte, digits) {
            (b'%', Some(value)) => {
                decoded.push(value);
                index += 3;
            }
            (other, Some(_) | None) => {
                decoded.push(other);
                index += 1;
            }
        }
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

/// Types are only described where the reference is rendered; a device would carry it all for nothing.
fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    if cfg!(test) {
        generator.subschema_for::<T>()
    } else {
        Schema::default()
    }
}

const NO_QUERY: &[Query] = &[];

/// A row of Pantavisor's resources.
const fn theirs(
    method: Method,
    path: &'static str,
    call: fn(&Params<'_>) -> Result<Call, Problem>,
    summary: &'static str,
) -> Route {
    let mut style = Style::Plain;
    let bytes = path.as_bytes();
    let mut index = 0;
    while index < bytes.len() {
        if bytes[index] == b'{' {
            style = Style::Segments;
        }
        index += 1;
    }
    let access = match method {
        Method::Get | Method::Head => Access::Monitor,
        Method::Put | Method::Post | Method::Patch | Method::Delete => Access::Mgmt,
    };
    Route {
        method,
        path,
        style,
        shape: Shape::Pantavisor,
        access,
        body: Body::None,
        request: None,
        answer: Answer::Empty,
        also: &[],
        problems: &[],
        query: NO_QUERY,
        summary,
        call,
    }
}

/// A row of our own resources.
const fn ours(
    method: Method,
    path: &'static str,
    call: fn(&Params<'_>) -> Result<Call, Problem>,
    summary: &'static str,
) -> Route {
    let mut route = theirs(method, path, call, summary);
    if matches!(route.style, Style::Segments) {
        route.style = Style::Decoded;
    }
    route.shape = Shape::Ours;
    route
}

impl Route {
    const fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    const fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    const fn takes(mut self, request: fn(&mut SchemaGenerator) -> Schema) -> Self {
        self.request = Some(request);
        self
    }

    const fn answers(mut self, answer: Answer) -> Self {
        self.answer = answer;
        self
    }

    const fn also(mut self, also: &'static [(u16, &'static str)]) -> Self {
        self.also = also;
        self
    }

    const fn refuses(mut self, problems: &'static [Code]) -> Self {
        self.problems = problems;
        self
    }

    const fn query(mut self, query: &'static [Query]) -> Self {
        self.query = query;
        self
    }
}

use Answer::{Bytes, Events, Json, Manifest, Metrics, Text};
use Method::{Delete, Get, Head, Patch, Post, Put};

const MANIFEST_PROBLEMS: &[Code] = &[
    Code::BadRevisionName,
    Code::BadManifest,
    Code::NoSpace,
    Code::UpdateInProgress,
    Code::RevisionInUse,
    Code::LimitReached,
    Code::ShuttingDown,
    Code::Claimed,
];
const COMMAND_PROBLEMS: &[Code] = &[
    Code::BadCommand,
    Code::UpdateInProgress,
    Code::Busy,
    Code::FailedBefore,
    Code::NothingToRollBack,
    Code::FactoryIncomplete,
    Code::NoSuchRevision,
    Code::CommandNotSupported,
    Code::NeedsReboot,
    Code::LimitReached,
    Code::NoSpace,
    Code::ShuttingDown,
    Code::Claimed,
];
const CLAIM_PROBLEMS: &[Code] = &[
    Code::BadClaim,
    Code::Claimed,
    Code::NoSuchClaim,
    Code::NotYourClaim,
    Code::LimitReached,
    Code::NoSpace,
    Code::NotReady,
    Code::ShuttingDown,
];
const PLAN_PROBLEMS: &[Code] = &[
    Code::NoSuchRevision,
    Code::BadManifest,
    Code::UpdateInProgress,
    Code::LimitReached,
    Code::NotReady,
    Code::ShuttingDown,
];
const META_PROBLEMS: &[Code] = &[Code::BadMeta, Code::LimitReached, Code::NoSpace];
const UPLOAD_PROBLEMS: &[Code] = &[
    Code::BadObjectName,
    Code::BadChecksum,
    Code::NoSpace,
    Code::UploadBusy,
    Code::BodyIncomplete,
    Code::BodyTimeout,
];

/// The table.
pub static ROUTES: &[Route] = &[
    // Containers and groups.
    theirs(Get, "/containers", |_| Ok(Call::ListContainers), "Containers of the running revision")
        .answers(Json(schema::<Vec<pantavisor::Container>>)),
    theirs(Put, "/containers/{name}", call::control, "Start, stop or restart a container")
        .body(Body::Limit(limits::CONTROL_BODY_BYTES_MAX))
        .takes(schema::<pantavisor::Control>)
        .refuses(&[
            Code::NoSuchContainer,
            Code::SystemContainer,
            Code::NoAction,
            Code::BadAction,
            Code::WrongStatus,
            Code::UpdateInProgress,
            Code::NotReady,
            Code::Claimed,
        ]),
    theirs(Get, "/groups", |_| Ok(Call::ListGroups), "Groups of the running revision")
        .answers(Json(schema::<Vec<pantavisor::Group>>)),
    theirs(Post, "/signal", |_| Ok(Call::Signal), "A container says that it is ready")
        .access(Access::Anyone)
        .body(Body::Limit(limits::SIGNAL_BODY_BYTES_MAX))
        .takes(schema::<pantavisor::Signal>)
        .refuses(&[Code::BadSignal, Code::SignalNotExpected, Code::NotReady]),
    theirs(Post, "/commands", |_| Ok(Call::Command), "Run, roll back, collect, reboot, power off")
        .body(Body::Limit(limits::COMMAND_BODY_BYTES_MAX))
        .takes(schema::<pantavisor::CommandBody>)
        .also(&[(204, "UNCLAIM: there is nothing to unclaim")])
        .refuses(COMMAND_PROBLEMS),
    // Objects.
    theirs(Get, "/objects", |_| Ok(Call::ListObjects), "Complete objects")
        .answers(Json(schema::<Vec<pantavisor::Object>>)),
    theirs(Get, "/objects/{sha256}", call::get_object, "Bytes of an object")
        .answers(Bytes)
        .also(&[(206, "The part that `Range` names"), (304, "`If-None-Match` names it")])
        .refuses(&[Code::BadObjectName, Code::NoSuchObject, Code::BadRange]),
    theirs(Head, "/objects/{sha256}", call::head_object, "Size of an object, or how much of it was uploaded")
        .also(&[(204, "A part was uploaded: `Upload-Offset` says how much")])
        .refuses(&[Code::BadObjectName, Code::NoSuchObject]),
    theirs(Put, "/objects/{sha256}", call::put_object, "Upload an object; durable when it is answered")
        .body(Body::Stream)
        .refuses(UPLOAD_PROBLEMS),
    theirs(Patch, "/objects/{sha256}", call::patch_object, "Continue an upload at `Upload-Offset`")
        .also(&[(204, "`Upload-Complete: ?0` was sent: `Upload-Offset` says how much is there")])
        .body(Body::Stream)
        .refuses(&[
            Code::BadObjectName,
            Code::BadChecksum,
            Code::NoSpace,
            Code::UploadBusy,
            Code::WrongOffset,
            Code::BadHeader,
            Code::BodyIncomplete,
            Code::BodyTimeout,
        ]),
    theirs(Delete, "/objects/{sha256}", call::delete_object, "Remove an object that no revision needs")
        .refuses(&[Code::BadObjectName, Code::NoSuchObject, Code::ObjectInUse]),
    // Revisions.
    theirs(Get, "/steps", |_| Ok(Call::ListRevisions), "Revisions with message and progress")
        .answers(Json(schema::<Vec<pantavisor::Step>>)),
    theirs(Get, "/steps/locals/{name}", call::get_local, "Manifest of a local revision")
        .answers(Manifest)
        .refuses(&[Code::NoSuchRevision]),
    theirs(Put, "/steps/locals/{name}", call::put_local, "Install a manifest; nothing is run")
        .body(Body::Limit(model::limits::MANIFEST_BYTES_MAX))
        .refuses(MANIFEST_PROBLEMS),
    theirs(Delete, "/steps/locals/{name}", call::delete_local, "Remove a local revision")
        .refuses(&[Code::NoSuchRevision, Code::RevisionInUse, Code::UpdateInProgress, Code::Claimed]),
    theirs(Get, "/steps/{rev}", call::get_revision, "Manifest of a revision; `current` is the running one")
        .answers(Manifest)
        .refuses(&[Code::NoSuchRevision]),
    theirs(Delete, "/steps/{rev}", call::delete_revision, "Remove a revision")
        .refuses(&[Code::NoSuchRevision, Code::RevisionInUse, Code::UpdateInProgress, Code::Claimed]),
    theirs(Get, "/steps/locals/{name}/progress", call::local_progress, "Progress of a local revision")
        .answers(Json(schema::<pantavisor::ProgressBody>))
        .refuses(&[Code::NoSuchRevision]),
    theirs(Get, "/steps/{rev}/progress", call::revision_progress, "Progress of a revision")
        .answers(Json(schema::<pantavisor::ProgressBody>))
        .refuses(&[Code::NoSuchRevision]),
    theirs(Get, "/steps/locals/{name}/commitmsg", call::local_message, "Message of a local revision")
        .answers(Text)
        .refuses(&[Code::NoSuchRevision]),
    theirs(Put, "/steps/locals/{name}/commitmsg", call::put_local_message, "Set the message of a local revision")
        .body(Body::Limit(model::limits::COMMIT_MESSAGE_BYTES_MAX))
        .refuses(&[Code::NoSuchRevision, Code::BadCommitMessage, Code::NoSpace]),
    theirs(Get, "/steps/{rev}/commitmsg", call::revision_message, "Message of a revision")
        .answers(Text)
        .refuses(&[Code::NoSuchRevision]),
    theirs(Put, "/steps/{rev}/commitmsg", call::put_revision_message, "Set the message of a revision")
        .body(Body::Limit(model::limits::COMMIT_MESSAGE_BYTES_MAX))
        .refuses(&[Code::NoSuchRevision, Code::BadCommitMessage, Code::NoSpace]),
    // Metadata.
    theirs(Get, "/user-meta", |_| Ok(Call::ListMeta(call::USER)), "User metadata, newest key first")
        .answers(Json(schema::<std::collections::BTreeMap<String, serde_json::Value>>)),
    theirs(Put, "/user-meta/{key}", call::put_user_meta, "Set a value")
        .body(Body::Limit(model::limits::META_VALUE_BYTES_MAX))
        .refuses(META_PROBLEMS),
    theirs(Delete, "/user-meta/{key}", call::delete_user_meta, "Remove a key")
        .refuses(&[Code::NoSuchMeta, Code::BadMeta]),
    theirs(Get, "/device-meta", |_| Ok(Call::ListMeta(call::DEVICE)), "Device metadata, newest key first")
        .answers(Json(schema::<std::collections::BTreeMap<String, serde_json::Value>>)),
    theirs(Put, "/device-meta/{key}", call::put_device_meta, "Set a value")
        .body(Body::Limit(model::limits::META_VALUE_BYTES_MAX))
        .refuses(META_PROBLEMS),
    theirs(Delete, "/device-meta/{key}", call::delete_device_meta, "Remove a key")
        .refuses(&[Code::NoSuchMeta, Code::BadMeta]),
    // The device.
    theirs(Get, "/buildinfo", |_| Ok(Call::BuildInfo), "What this build was made from")
        .answers(Text),
    theirs(Get, "/config", |_| Ok(Call::Config), "Configuration under Pantavisor's older names")
        .answers(Json(schema::<std::collections::BTreeMap<String, serde_json::Value>>)),
    theirs(Get, "/config2", |_| Ok(Call::Config2), "Configuration, each value with where it comes from")
        .answers(Json(schema::<Vec<pantavisor::ConfigEntry>>)),
    theirs(Get, "/drivers", |_| Ok(Call::ListDrivers), "Drivers of the caller's container; `{}` when it has none")
        .answers(Json(schema::<pantavisor::Drivers>)),
    theirs(Put, "/drivers/load", call::load_all, "Load all drivers of the caller's container")
        .refuses(&[Code::DriverFailed]),
    theirs(Put, "/drivers/unload", call::unload_all, "Unload all drivers of the caller's container"),
    theirs(Put, "/drivers/{name}/load", call::load_driver, "Load a driver of the caller's container")
        .refuses(&[Code::DriverFailed]),
    theirs(Put, "/drivers/{name}/unload", call::unload_driver, "Unload a driver of the caller's container"),
    theirs(Get, "/daemons", |_| Ok(Call::ListDaemons), "Daemons that the orchestrator runs on the host")
        .answers(Json(schema::<Vec<pantavisor::Daemon>>)),
    theirs(Put, "/daemons/{name}", call::control_daemon, "Start or stop a daemon")
        .body(Body::Limit(limits::DAEMON_BODY_BYTES_MAX))
        .takes(schema::<pantavisor::DaemonControl>)
        .refuses(&[Code::NoSuchDaemon, Code::NoAction, Code::BadAction, Code::DaemonFailed]),
    theirs(Get, "/xconnect-graph", |_| Ok(Call::Connections), "Services of containers that others use")
        .answers(Json(schema::<Vec<pantavisor::Connection>>))
        .refuses(&[Code::NoXconnect]),
    theirs(Get, "/wakelocks", |_| Ok(Call::Wakelocks), "What keeps the machine from suspending")
        .answers(Json(schema::<pantavisor::Wakelocks>)),
    theirs(Post, "/storage/gc", |_| Ok(Call::Collect), "Collect what no revision needs, now")
        .answers(Json(schema::<pantavisor::Reclaimed>))
        .refuses(&[Code::Busy, Code::UpdateInProgress, Code::NotReady, Code::ShuttingDown]),
    // Ours.
    ours(Get, "/status", |_| Ok(Call::Status), "The whole device on one screen")
        .answers(Json(schema::<ours::DeviceStatus>)),
    ours(Get, "/healthz", |_| Ok(Call::Health), "200 when the device does what it should, else 503")
        .access(Access::Anyone)
        .also(&[(503, "The same body; `ok` is false")])
        .answers(Json(schema::<ours::Health>)),
    ours(Get, "/metrics", |_| Ok(Call::Metrics), "Figures for monitors, in the OpenMetrics format")
        .answers(Metrics),
    ours(Get, "/usage", |_| Ok(Call::Usage), "What containers and the machine use now")
        .answers(Json(schema::<model::usage::Usage>)),
    ours(Get, "/version", |_| Ok(Call::Version), "Name and version of the orchestrator")
        .access(Access::Anyone)
        .answers(Json(schema::<ours::Version>)),
    ours(Get, "/openapi.json", |_| Ok(Call::OpenApi), "This reference, for programs")
        .access(Access::Anyone)
        .answers(Json(schema::<serde_json::Value>)),
    ours(Post, "/plan", |_| Ok(Call::Plan(None)), "What running the manifest in the body would do; nothing is changed")
        .access(Access::Monitor)
        .body(Body::Limit(model::limits::MANIFEST_BYTES_MAX))
        .takes(schema::<std::collections::BTreeMap<String, serde_json::Value>>)
        .answers(Json(schema::<plan::Plan>))
        .refuses(PLAN_PROBLEMS),
    ours(Post, "/steps/locals/{name}/plan", call::plan_local, "What running a local revision would do")
        .access(Access::Monitor)
        .answers(Json(schema::<plan::Plan>))
        .refuses(PLAN_PROBLEMS),
    ours(Post, "/steps/{rev}/plan", call::plan_revision, "What running a revision would do; nothing is changed")
        .access(Access::Monitor)
        .answers(Json(schema::<plan::Plan>))
        .refuses(PLAN_PROBLEMS),
    ours(Get, "/events", call::events, "All that happens, as server-sent events; resume with `Last-Event-ID`")
        .answers(Events)
        .query(&[Query {
            name: "since",
            number: false,
            summary: "id of the last event that was seen; events after it come first; `0` asks for all that are kept",
        }])
        .refuses(&[Code::BadQuery]),
    ours(Get, "/claims", |_| Ok(Call::ListClaims), "What clients have claimed of the device")
        .answers(Json(schema::<ours::Claims>)),
    ours(Post, "/claims", |_| Ok(Call::Claim), "Claim parts of the device, or renew the claim on just these parts")
        .body(Body::Limit(limits::CLAIM_BODY_BYTES_MAX))
        .takes(schema::<ours::ClaimBody>)
        .answers(Json(schema::<ours::Claim>))
        .refuses(CLAIM_PROBLEMS),
    ours(Put, "/claims/{id}", call::renew_claim, "Let the lease of a claim begin anew")
        .body(Body::Limit(limits::LEASE_BODY_BYTES_MAX))
        .takes(schema::<ours::LeaseBody>)
        .answers(Json(schema::<ours::Claim>))
        .refuses(CLAIM_PROBLEMS),
    ours(Delete, "/claims/{id}", call::release_claim, "End a claim; root of the host may end any")
        .refuses(CLAIM_PROBLEMS),
    ours(Get, "/uploads", |_| Ok(Call::ListUploads), "Uploads under way, and those that can be resumed")
        .answers(Json(schema::<Vec<ours::Upload>>)),
    ours(Get, "/failures", |_| Ok(Call::ListFailures), "Failure records, newest first")
        .answers(Json(schema::<ours::Failures>)),
    ours(Get, "/failures/{id}", call::failure, "One failure record, whole")
        .answers(Json(schema::<model::failure::Failure>))
        .refuses(&[Code::NoSuchFailure]),
    ours(Get, "/why", |_| Ok(Call::Why(call::Subject::Device)), "Why the device is where it is, in words")
        .answers(Json(schema::<ours::Why>)),
    ours(Get, "/why/locals/{name}", call::why_local, "Why a local revision is where it is, in words")
        .answers(Json(schema::<ours::Why>))
        .refuses(&[Code::NoSuchSubject]),
    ours(Get, "/why/{subject}", call::why, "Why a container, a group or a revision is where it is, in words")
        .answers(Json(schema::<ours::Why>))
        .refuses(&[Code::NoSuchSubject]),
    ours(Get, "/logs/{container}", call::logs, "What a container wrote")
        .access(Access::Own)
        .answers(Text)
        .query(&[
            Query { name: "tail", number: true, summary: "lines from the end; 100 when not given" },
            Query { name: "follow", number: true, summary: "1: go on with what is written from now on" },
            Query { name: "revision", number: false, summary: "of this revision; where it wrote last when not given" },
            Query { name: "since", number: false, summary: "from then on: a time (2026-11-21T10:20:30Z), or how long ago (90s, 10min, 2h, 7d)" },
            Query { name: "level", number: false, summary: "this level and worse: fatal, error, warn, info, debug" },
            Query { name: "format", number: false, summary: "raw (as it was written), text (with time, level, source), json (a LogLine a line); raw when not given" },
        ])
        .refuses(&[Code::NoSuchLog, Code::BadQuery]),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: Method, target: &str) -> String {
        match find(method, target) {
            Ok(found) => format!("{} {:?}", found.route.path, found.params.segments),
            Err(problem) => problem.pantavisor,
        }
    }

    #[test]
    fn routing_as_recorded() {
        for (method, target, expected) in [
            (Get, "/groups", "/groups []"),
            (Get, "/groups?x=1", "/groups []"),
            (Get, "/groups#x", "/groups []"),
            (Get, "/gr%6fups", "/groups []"),
            (Get, "/groups/", "unknown endpoint: /groups/"),
            (Get, "/", "unknown endpoint: /"),
            (Get, "/nothing", "unknown endpoint: /nothing"),
            (Put, "/nothing/here", "unknown endpoint: /nothing/here"),
            (
                Get,
                "/storage%2fgc",
                "Method not supported for this endpoint",
            ),
            (
                Post,
                "/containers",
                "Method not supported for this endpoint",
            ),
            (
                Get,
                "/containers/web",
                "Method not supported for this endpoint",
            ),
            (Head, "/groups", "Method not supported for this endpoint"),
            (
                Get,
                "/user-meta/somekey",
                "Method not supported for this endpoint",
            ),
            (Put, "/steps/5", "Method not supported for this endpoint"),
            (Get, "/steps///0/progress", "/steps/{rev}/progress [\"0\"]"),
            (
                Get,
                "/st%65ps/0/progress",
                "unknown endpoint: /st%65ps/0/progress",
            ),
            (Get, "/steps/0/", "/steps/{rev} [\"0\"]"),
            (Get, "/steps/0?x=1", "/steps/{rev} [\"0?x=1\"]"),
            (
                Get,
                "/steps/locals/a%2Fb",
                "/steps/locals/{name} [\"a%2Fb\"]",
            ),
            (
                Put,
                "/steps/locals/a/b",
                "unknown endpoint: /steps/locals/a/b",
            ),
            (
                Put,
                "/steps/locals/progress",
                "/steps/locals/{name} [\"progress\"]",
            ),
            (Put, "/user-meta/", "unknown endpoint: /user-meta/"),
            (Put, "/user-meta/a/b", "unknown endpoint: /user-meta/a/b"),
            (
                Put,
                "/user-meta/a%20b?x=1",
                "/user-meta/{key} [\"a%20b?x=1\"]",
            ),
            (Get, "/why/a%20b?x=1", "/why/{subject} [\"a b\"]"),
            (Get, "/logs/web?tail=5", "/logs/{container} [\"web\"]"),
        ] {
            assert_eq!(found(method, target), expected, "{method:?} {target}");
        }
        let long = format!("/user-meta/{}", "k".repeat(255));
        assert_eq!(found(Put, &long), format!("unknown endpoint: {long}"));
        assert!(find(Put, &long[..long.len() - 1]).is_ok());
    }

    #[test]
    fn percent_decoding() {
        for (text, expected) in [
            ("a%20b", Some("a b")),
            ("a%2", Some("a%2")),
            ("%zz", Some("%zz")),
            ("%c3%bc", Some("ü")),
            ("%+1", Some("%+1")),
            ("%ff", None),
        ] {
            assert_eq!(percent_decode(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn rows_are_unique_and_well_formed() {
        for (index, route) in ROUTES.iter().enumerate() {
            assert!(
                ROUTES[..index]
                    .iter()
                    .all(|other| (other.method, other.path) != (route.method, route.path)),
                "{} {}",
                route.method.as_str(),
                route.path
            );
            assert!(!route.summary.ends_with('.') && !route.summary.is_empty());
            assert_eq!(
                route.style == Style::Plain,
                !route.path.contains('{'),
                "{}",
                route.path
            );
            // Only changes may be refused because of what the device is doing.
            if matches!(route.method, Get | Head) {
                assert_ne!(route.access, Access::Mgmt, "{}", route.path);
            }
        }
    }
}
