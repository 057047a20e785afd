//! A hawkBit server of our own: DDI and the management calls that the scenarios use, as a value. Time comes in with each request,
//! so a recording of an hour replays in a moment; `serve` puts it on a loopback address.
//!
//! What it must be is not decided here but by the recordings of real servers of two releases (`recordings/hawkbit`), which
//! `tests/replay` puts to it exchange by exchange. Not here: DMF, tags, target types, tenants beyond what a device can make.

mod access;
mod cbor;
mod device;
mod download;
mod life;
mod operator;
mod polling;
mod records;
mod rollouts;
mod schedule;
mod serve;
mod upload;
mod views;
mod wire;

use std::collections::{BTreeMap, VecDeque};

pub use access::base64;
pub use cbor::read as read_cbor;
pub use download::md5 as digest;
pub use serve::{Hook, Served, serve, serve_with};
pub use wire::{Request, Response, decode};

use polling::Bounds;
use records::{Action, Kind, Module, Set, Target};
use rollouts::Rollout;

/// The framework's guard where a path ends in what looks like a file.
const GUARD: &str = "inline;filename=f.txt";

/// The releases whose behaviour is known from recordings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// 0.9.0, June 2025.
    V0_9_0,
    /// 1.0.4, June 2026.
    V1_0_4,
}

impl Release {
    /// Status of a refusal because of a quota.
    pub(crate) fn quota_status(self) -> u16 {
        match self {
            Self::V0_9_0 => 403,
            Self::V1_0_4 => 429,
        }
    }

    /// Its number.
    pub fn number(self) -> &'static str {
        match self {
            Self::V0_9_0 => "0.9.0",
            Self::V1_0_4 => "1.0.4",
        }
    }
}

/// How a server is started: what a real one takes as properties.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The release to be.
    pub release: Release,
    /// Operator's login.
    pub user: String,
    /// Operator's password.
    pub password: String,
    /// Gateway token of all tenants.
    pub gateway_token: String,
    /// Rows an action may have.
    pub rows_max: usize,
    /// Messages a row may have.
    pub messages_max: usize,
    /// Attributes a target may have.
    pub attributes_max: usize,
    /// Actions a target may have.
    pub actions_max: usize,
    /// Reads and writes that one address may send in a second; `None`: any number.
    pub rate: Option<(u32, u32)>,
    /// Addresses that are refused.
    pub blocked: Vec<String>,
    /// Shortest polling interval in seconds.
    pub polling_min_s: i64,
    /// Longest polling interval in seconds.
    pub polling_max_s: i64,
    /// Whether links follow `X-Forwarded-Proto` and `-Host`.
    pub forwarded: bool,
    /// The polling interval until the operator sets another.
    pub polling: String,
}

impl Setup {
    /// A stock server with target tokens and gateway token switched on, and the rate filter off.
    pub fn stock(release: Release) -> Self {
        Self {
            release,
            user: "admin".to_owned(),
            password: "admin".to_owned(),
            gateway_token: "gwsecret".to_owned(),
            rows_max: 1000,
            messages_max: 50,
            attributes_max: 100,
            actions_max: 2000,
            rate: None,
            blocked: Vec::new(),
            polling_min_s: 30,
            polling_max_s: 86399,
            forwarded: false,
            polling: "00:05:00".to_owned(),
        }
    }
}

/// Identifiers that are to come, for a replay: a real server's depend on all that it did before.
#[derive(Debug, Default)]
pub struct Foretold {
    /// Actions by controller id, in order.
    pub actions: BTreeMap<String, VecDeque<u64>>,
    /// Members of each group of a rollout.
    pub groups: Vec<Vec<String>>,
    /// The next module, artifact, set and rollout.
    pub next: BTreeMap<&'static str, u64>,
    /// What chance yields.
    pub sleep: Option<String>,
}

/// The server.
#[derive(Debug)]
pub struct Hawkbit {
    setup: Setup,
    bounds: Bounds,
    now: i64,
    ticked: i64,
    targets: BTreeMap<(String, String), Target>,
    modules: BTreeMap<u64, Module>,
    module_kinds: Vec<Kind>,
    set_kinds: Vec<Kind>,
    sets: BTreeMap<u64, Set>,
    actions: BTreeMap<u64, Action>,
    rollouts: BTreeMap<u64, Rollout>,
    settings: BTreeMap<String, (serde_json::Value, records::Stamp)>,
    counters: BTreeMap<&'static str, u64>,
    seed: u64,
    rates: BTreeMap<(String, bool), (i64, u32)>,
    /// What a replay knows beforehand.
    pub foretold: Foretold,
}

impl Hawkbit {
    /// A fresh server, started at `now` (milliseconds since 1970).
    pub fn new(setup: Setup, now: i64) -> Self {
        let kind = |id, key: &str, name: &str, mandatory: &[&str]| Kind {
            id,
            key: key.to_owned(),
            name: name.to_owned(),
            max: 1,
            mandatory: mandatory.iter().map(|&one| one.to_owned()).collect(),
        };
        let bounds = Bounds {
            min_s: setup.polling_min_s,
            max_s: setup.polling_max_s,
        };
        // The order in which each release makes its default types differs, and with it their numbers.
        let os_only = if setup.release == Release::V0_9_0 {
            1
        } else {
            2
        };
        Self {
            bounds,
            now,
            // The scheduler's phase against the start is chance; a second is what the recordings show.
            ticked: now - 1000,
            targets: BTreeMap::new(),
            modules: BTreeMap::new(),
            module_kinds: vec![
                kind(1, "os", "OS", &[]),
                kind(2, "application", "Application", &[]),
            ],
            set_kinds: vec![
                kind(os_only, "os", "OS only", &["os"]),
                kind(3 - os_only, "app", "App only", &["application"]),
                kind(3, "os_app", "OS with app(s)", &["os"]),
            ],
            sets: BTreeMap::new(),
            actions: BTreeMap::new(),
            rollouts: BTreeMap::new(),
            settings: BTreeMap::new(),
            counters: BTreeMap::new(),
            seed: now.unsigned_abs() | 1,
            rates: BTreeMap::new(),
            foretold: Foretold::default(),
            setup,
        }
    }

    /// Answers a request that comes at `now` from this address.
    pub fn answer(&mut self, now: i64, peer: &str, request: &Request) -> Response {
        self.now = self.now.max(now);
        self.run_scheduler();
        let mut response = self.route(peer, request);
        if request.method == "HEAD" {
            response.body.clear();
        }
        response
    }

    fn route(&mut self, peer: &str, request: &Request) -> Response {
        let now = schedule::iso(self.now);
        if let Some(refused) = self.filtered(peer, request) {
            return refused;
        }
        if wire::is_suspicious(&request.path) {
            return wire::render(Err(wire::Fault::Page), request, &now, false);
        }
        let path = request.path.clone();
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        match segments[..] {
            ["rest", "v1", ref rest @ ..] => {
                if !self.is_operator(request) {
                    let fault = wire::Fault::Framework {
                        status: 401,
                        error: "Unauthorized",
                        allow: None,
                    };
                    return wire::render(Err(fault), request, &now, false)
                        .with("WWW-Authenticate", "Basic realm=\"hawkBit\"");
                }
                let answer = self.operator(rest, request);
                let response = wire::render(answer, request, &now, true);
                let looks_like_a_file = rest.last().is_some_and(|last| last.contains('.'));
                let has_body = !response.body.is_empty();
                if looks_like_a_file && has_body && request.method == "PUT" {
                    return response.with("Content-Disposition", GUARD);
                }
                response
            }
            [tenant, "controller", "v1", id, ref rest @ ..] => {
                let id = wire::decode(id);
                if !self.is_device(tenant, &id, peer, request) {
                    return Response::empty(401);
                }
                let files = matches!(rest, ["softwaremodules", _, "artifacts", _]);
                let tagged = !matches!(rest, ["softwaremodules", ..]);
                let answer = self.device(tenant, &id, rest, peer, request);
                let mut response = wire::render(answer, request, &now, tagged);
                let json = response
                    .header("content-type")
                    .is_some_and(|kind| kind.contains("json"));
                if files && json {
                    response = response.with("Content-Disposition", GUARD);
                }
                response
            }
            ["actuator", "health"] => {
                let (status, word) = match self.setup.release {
                    Release::V0_9_0 => (503, "DOWN"),
                    Release::V1_0_4 => (200, "UP"),
                };
                let body = format!("{{\"status\":\"{word}\"}}").into_bytes();
                let kind = "application/vnd.spring-boot.actuator.v3+json;charset=UTF-8";
                let mut response = Response::empty(status).with("Content-Type", kind);
                if status == 200 {
                    let tag = format!("\"0{}\"", download::md5(&body));
                    response = response.with("ETag", tag);
                }
                response.body = body;
                response
            }
            [""] => Response::empty(302).with(
                "Location",
                format!("{}/swagger-ui/index.html", self.base(request)),
            ),
            _ => wire::render(Err(wire::Fault::not_found()), request, &now, false),
        }
    }

    /// Says when the scheduler of rollouts runs: at this time, and every two seconds before and after it.
    pub fn align_scheduler(&mut self, at: i64) {
        self.ticked = self.now - (self.now - at).rem_euclid(2000);
    }

    /// Scheme and authority that links begin with.
    pub(crate) fn base(&self, request: &Request) -> String {
        let forwarded = |name| request.header(name).filter(|_| self.setup.forwarded);
        let scheme = forwarded("x-forwarded-proto").unwrap_or("http");
        let host = forwarded("x-forwarded-host")
            .or_else(|| request.header("host"))
            .unwrap_or("localhost");
        format!("{scheme}://{host}")
    }

    pub(crate) fn next_id(&mut self, kind: &'static str) -> u64 {
        if let Some(id) = self.foretold.next.remove(kind) {
            self.counters.insert(kind, id);
            return id;
        }
        let counter = self.counters.entry(kind).or_default();
        *counter += 1;
        *counter
    }

    /// A number between 0 and 1, from a generator of our own so that a run can be repeated.
    pub(crate) fn chance(&mut self) -> f64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        f64::from(u32::try_from(self.seed >> 40).unwrap_or_default()) / f64::from(1_u32 << 24)
    }

    pub(crate) fn setting(&self, name: &str) -> serde_json::Value {
        self.settings
            .get(name)
            .map(|(value, _)| value.clone())
            .unwrap_or_else(|| self.default_setting(name).unwrap_or_default())
    }

    pub(crate) fn default_setting(&self, name: &str) -> Option<serde_json::Value> {
        use serde_json::json;
        let overdue = "00:05:00";
        Some(match name {
            "authentication.targettoken.enabled" | "authentication.gatewaytoken.enabled" => {
                json!(true)
            }
            "authentication.gatewaytoken.key" => json!(self.setup.gateway_token),
            "authentication.header.enabled"
            | "user.confirmation.flow.enabled"
            | "repository.actions.autoclose.enabled"
            | "multi.assignments.enabled"
            | "rollout.approval.enabled" => json!(false),
            "authentication.header.authority" => json!(""),
            "pollingTime" => json!(self.setup.polling),
            "pollingOverdueTime" => json!(overdue),
            "maintenanceWindowPollCount" => json!(3),
            "minPollingTime" if self.setup.release == Release::V0_9_0 => {
                json!(format!("00:00:{:02}", self.setup.polling_min_s))
            }
            _ => return None,
        })
    }

    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.setting(name) == serde_json::Value::Bool(true)
    }
}
