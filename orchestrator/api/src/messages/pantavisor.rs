//! Bodies of Pantavisor's resources, in its exact key order.
//!
//! What a client may send is parsed leniently where Pantavisor's own clients need it and strictly elsewhere; what we send
//! is byte for byte what Pantavisor sends for the same condition.

use model::container::{BackoffPolicy, RecoveryPolicy, RestartPolicy};
use model::{ContainerName, Goal, GroupName, ObjectId, Progress, RevisionId, Status};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A boolean that Pantavisor writes as a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TextBool {
    /// `"true"`
    True,
    /// `"false"`
    False,
}

impl From<bool> for TextBool {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

impl From<TextBool> for bool {
    fn from(value: TextBool) -> Self {
        match value {
            TextBool::True => true,
            TextBool::False => false,
        }
    }
}

/// One entry of `GET /containers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Container {
    /// Its name.
    #[schemars(with = "String")]
    pub name: ContainerName,
    /// Its group.
    #[schemars(with = "String")]
    pub group: GroupName,
    /// Where it is.
    pub status: Status,
    /// Its goal.
    pub status_goal: Goal,
    /// Who may control it.
    pub restart_policy: RestartPolicy,
    /// What it may do on the socket: `mgmt`, `monitor`.
    pub roles: Vec<String>,
    /// Only when its policy is not `no`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_recovery: Option<AutoRecovery>,
    /// Whether a person stopped it; only when it may be controlled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_stopped: Option<TextBool>,
}

/// Recovery of a container in `GET /containers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AutoRecovery {
    /// When it is started again.
    pub policy: RecoveryPolicy,
    /// Retries before the back-off policy; 0 is no limit.
    pub max_retries: u32,
    /// Retries used.
    pub current_retries: u32,
    /// Seconds of uptime that count as stable.
    pub stable_timeout: u64,
    /// Whether it has run that long.
    pub is_stable: TextBool,
    /// `reboot`, `never`, or a pause such as `600s`.
    pub backoff_policy: String,
}

/// Text of a back-off policy on the wire.
pub fn backoff_text(policy: BackoffPolicy) -> String {
    match policy {
        BackoffPolicy::Reboot => "reboot".to_owned(),
        BackoffPolicy::Never => "never".to_owned(),
        BackoffPolicy::Pause(pause) => format!("{}s", pause.as_secs()),
    }
}

/// One entry of `GET /groups`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Group {
    /// Its name.
    #[schemars(with = "String")]
    pub name: GroupName,
    /// Default goal of its containers.
    pub status_goal: Goal,
    /// Default policy of its containers.
    pub restart_policy: RestartPolicy,
    /// READY when every member has reached its own goal, else the lowest status of those that have not.
    pub status: Status,
    /// Default recovery of its containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_recovery: Option<GroupRecovery>,
}

/// Recovery of a group in `GET /groups`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GroupRecovery {
    /// Retries before the back-off policy; 0 is no limit.
    pub max_retries: u32,
    /// Seconds of uptime that count as stable.
    pub stable_timeout: u64,
    /// `reboot`, `never`, or a pause such as `600s`.
    pub backoff_policy: String,
}

/// Body of `PUT /containers/{name}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Control {
    /// What to do.
    pub action: Action,
}

/// What to do with a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Start it, forget its retries.
    Start,
    /// Stop it and keep it stopped.
    Stop,
    /// Stop and start it, forget its retries.
    Restart,
}

/// Body of `POST /signal`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Signal {
    /// Only `ready` is expected.
    #[serde(rename = "type")]
    pub kind: String,
    /// Ignored.
    #[serde(default)]
    pub payload: serde_json::Value,
}

/// Body of `POST /commands`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CommandBody {
    /// Which command.
    pub op: Op,
    /// What it is about; may be empty. Numbers, null and objects are taken as their text.
    pub payload: serde_json::Value,
    /// Ours: run the revision also when the same manifest failed before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
}

impl CommandBody {
    /// A command with a text payload.
    pub fn new(op: Op, payload: &str) -> Self {
        Self {
            op,
            payload: serde_json::Value::String(payload.to_owned()),
            again: false,
        }
    }

    /// The payload as text.
    pub fn payload_text(&self) -> String {
        match &self.payload {
            serde_json::Value::String(text) => text.clone(),
            other @ (serde_json::Value::Null
            | serde_json::Value::Bool(_)
            | serde_json::Value::Number(_)
            | serde_json::Value::Array(_)
            | serde_json::Value::Object(_)) => other.to_string(),
        }
    }
}

/// Commands. All of Pantavisor's are known; which of them are carried out stands at each.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Op {
    /// Merge a JSON object of texts into the device metadata.
    UpdateMetadata,
    /// Restart the device; the payload is a message.
    RebootDevice,
    /// Switch the device off; the payload is a message.
    PoweroffDevice,
    /// Refused: every trial ends by a commit or a rollback.
    TryOnce,
    /// Run a revision.
    LocalRun,
    /// Make a revision (the running one when the payload is empty) revision 0.
    MakeFactory,
    /// Collect what no revision needs.
    RunGc,
    /// Refused: Coxswain has no SSH server.
    EnableSsh,
    /// Accepted: there is no SSH server to disable.
    DisableSsh,
    /// Refused: there is no mode to leave; any client may talk to a cloud.
    GoRemote,
    /// Refused: there is no debug shell.
    DeferReboot,
    /// Run a revision by a reboot.
    LocalRunCommit,
    /// Run a revision whose changes need no reboot; refused when they do.
    LocalApply,
    /// Refused: services of containers are not connected by the orchestrator.
    XconnectGraph,
    /// Answered 204: the orchestrator is never claimed; cloud clients keep their own credentials.
    Unclaim,
    /// Ours: give up the running trial, or go back to the revision committed before this one.
    Rollback,
    /// Ours: go back to revision 0 alone. The payload is empty or `keep-volumes`, or `wipe-volumes` to remove all that was written since.
    FactoryReset,
}

/// One entry of `GET /objects`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Object {
    /// Its name.
    #[schemars(with = "String")]
    pub sha256: ObjectId,
    /// Bytes, as a decimal string.
    pub size: String,
}

/// One entry of `GET /steps`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Step {
    /// Its name.
    #[schemars(with = "String")]
    pub name: RevisionId,
    /// When it was installed, RFC 3339.
    pub date: String,
    /// Its message; may be empty.
    pub commitmsg: String,
    /// Its progress; `{}` when it has none.
    pub progress: StepProgress,
}

/// The progress of an entry of `GET /steps`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum StepProgress {
    /// As `GET /steps/{rev}/progress` shows it.
    Known(#[schemars(with = "ProgressBody")] Progress),
    /// `{}`
    None {},
}

/// Body of `GET /steps/{rev}/progress`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Progress")]
pub struct ProgressBody {
    /// `NEW`, `QUEUED`, `DOWNLOADING`, `INPROGRESS`, `TESTING`, `UPDATED`, `DONE`, `WONTGO` or `ERROR`.
    pub status: String,
    /// Pantavisor's message.
    #[serde(rename = "status-msg")]
    pub message: String,
    /// 0 to 100.
    pub progress: u8,
    /// Tries used before this one.
    pub retries: u32,
    /// While downloading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downloads: Option<serde_json::Value>,
    /// The last error lines, one JSON object a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs: Option<String>,
}

/// Answer of `POST /storage/gc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reclaimed {
    /// Bytes.
    pub reclaimed: u64,
}

/// One entry of `GET /config2`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigEntry {
    /// Name of the setting.
    pub key: String,
    /// Its value as text; `(null)` when it is not set, `***` when it is secret.
    pub value: String,
    /// Where the value comes from: `default`, `pv conf file`, `pv cmdline`, `env`, `args`, `metadata`, …
    pub modified: String,
}

/// Answer of `GET /drivers`: a list, or `{}` when the caller's container names no drivers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Drivers {
    /// Those that the container names in its `run.json`.
    Listed(Vec<Driver>),
    /// `{}`
    None {},
}

/// One entry of `GET /drivers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Driver {
    /// Its abstract name, as in `run.json`.
    pub name: String,
    /// When it is loaded.
    #[serde(rename = "type")]
    pub kind: DriverKind,
    /// Where its modules are.
    pub status: DriverStatus,
}

/// When a driver is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum DriverKind {
    /// Before the container starts, which fails without it.
    Required,
    /// Before the container starts, if that can be.
    Optional,
    /// When somebody asks.
    Manual,
}

/// Where the modules of a driver are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum DriverStatus {
    /// In the kernel, all of them.
    Loaded,
    /// Not all of them are in the kernel.
    Unloaded,
    /// The running revision's `bsp/drivers.json` does not say which modules it has.
    Unknown,
}

/// One entry of `GET /daemons`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Daemon {
    /// Its name.
    pub name: String,
    /// Its process; 0 when it was never started, -1 when it has ended.
    pub pid: i32,
    /// Whether it is started again when it ends.
    pub respawn: bool,
}

/// Body of `PUT /daemons/{name}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DaemonControl {
    /// What to do.
    pub action: DaemonAction,
}

/// What to do with a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DaemonAction {
    /// Start it, and again whenever it ends.
    Start,
    /// Ask it to end, and do not start it again.
    Stop,
}

/// One entry of `GET /xconnect-graph`: a service of one container that another one uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Connection {
    /// Who uses it.
    pub consumer: String,
    /// Its process.
    pub consumer_pid: i32,
    /// Who offers it.
    pub provider: String,
    /// Its process.
    pub provider_pid: i32,
    /// Name of the service.
    pub name: String,
    /// `unix`, `rest`, `dbus`, `drm`, `wayland` or `input`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Role of the consumer.
    pub role: String,
    /// Interface.
    pub interface: String,
    /// Where the consumer finds it.
    pub target: String,
    /// Where the provider has it.
    pub socket: String,
}

/// Answer of `GET /wakelocks`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(clippy::struct_excessive_bools, reason = "as Pantavisor writes it")]
pub struct Wakelocks {
    /// `disabled`: the orchestrator neither suspends the machine nor keeps it awake.
    pub mode: String,
    /// Locks that are held.
    pub count: u32,
    /// Whether the kernel lacks what the mode needs.
    pub degraded: bool,
    /// Whether the kernel suspends by itself.
    pub autosleep: bool,
    /// Whether the time after a start runs, in which nothing is suspended.
    pub settling: bool,
    /// Whether a cloud is being asked.
    pub polling: bool,
    /// Whether the window after a wake-up is open.
    pub run_window: bool,
    /// Which locks are held.
    pub held: HeldWakelocks,
}

/// The locks that Pantavisor has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(clippy::struct_excessive_bools, reason = "as Pantavisor writes it")]
pub struct HeldWakelocks {
    /// During a start.
    pub boot: bool,
    /// During an update.
    pub update: bool,
    /// While a cloud is asked for updates.
    pub update_check: bool,
    /// While device metadata is sent.
    pub devmeta: bool,
    /// While user metadata is fetched.
    pub usrmeta: bool,
    /// During a shutdown.
    pub shutdown: bool,
    /// While somebody uses the debug shell.
    pub debug_shell: bool,
    /// While a cloud is asked.
    pub poll: bool,
}

/// The text of `GET /steps`: Pantavisor puts a space after the commas inside an entry, none between entries.
pub fn steps_text(steps: &[(RevisionId, String, Vec<u8>, Option<String>)]) -> Vec<u8> {
    let mut text = b"[".to_vec();
    for (index, (name, date, message, progress)) in steps.iter().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        text.extend_from_slice(b"{\"name\":");
        push_string(&mut text, name.as_str().as_bytes());
        text.extend_from_slice(b", \"date\":");
        push_string(&mut text, date.as_bytes());
        text.extend_from_slice(b", \"commitmsg\":");
        push_string(&mut text, message);
        text.extend_from_slice(b", \"progress\":");
        text.extend_from_slice(progress.as_deref().unwrap_or("{}").as_bytes());
        text.push(b'}');
    }
    text.push(b']');
    text
}

/// The text of `GET /user-meta` and `GET /device-meta`: values that are a JSON object or array stand as they are, every
/// other value is a string.
pub fn metadata_text(pairs: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut text = b"{".to_vec();
    for (index, (key, value)) in pairs.iter().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        push_string(&mut text, key.as_bytes());
        text.push(b':');
        // Pantavisor looks at the first bytes only, so that `{"a":1}x` makes its whole answer invalid; we look at all.
        let raw = matches!(value.first(), Some(b'{' | b'['))
            && serde_json::from_slice::<serde::de::IgnoredAny>(value).is_ok();
        if raw {
            text.extend_from_slice(value);
        } else {
            push_string(&mut text, value);
        }
    }
    text.push(b'}');
    text
}

/// A JSON string with Pantavisor's escapes: always `\u00XX` with upper-case digits. Bytes that are not UTF-8 become U+FFFD,
/// so that the answer stays valid JSON.
fn push_string(text: &mut Vec<u8>, value: &[u8]) {
    text.push(b'"');
    for char in String::from_utf8_lossy(value).chars() {
        if matches!(char, '"' | '\\') || char < ' ' {
            text.extend_from_slice(format!("\\u{:04X}", u32::from(char)).as_bytes());
        } else {
            text.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    text.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::progress::message;

    /// Recorded from Pantavisor 029 (`info`, "GET /containers").
    const CONTAINERS: &str = r#"[{"name":"pvr-sdk","group":"platform","status":"STARTED","status_goal":"STARTED","restart_policy":"system","roles":["mgmt"]},{"name":"web","group":"app","status":"STARTED","status_goal":"STARTED","restart_policy":"container","roles":[],"auto_recovery":{"policy":"on-failure","max_retries":5,"current_retries":0,"stable_timeout":30,"is_stable":"true","backoff_policy":"reboot"},"user_stopped":"false"}]"#;
    /// Recorded from Pantavisor 029 (`info`, "GET /groups").
    const GROUPS: &str = r#"[{"name":"data","status_goal":"MOUNTED","restart_policy":"system","status":"READY"},{"name":"app","status_goal":"STARTED","restart_policy":"container","status":"READY","auto_recovery":{"max_retries":5,"stable_timeout":30,"backoff_policy":"reboot"}}]"#;
    /// Recorded from Pantavisor 029 (`steps`, "list after that").
    const STEPS: &str = r#"[{"name":"0", "date":"2026-11-21T09:43:23Z", "commitmsg":"", "progress":{"status":"DONE","status-msg":"Factory revision","progress":100,"retries":0}},{"name":"locals/fixture-a", "date":"2026-11-21T09:46:46Z", "commitmsg":"first \u0022message\u0022 with a quote", "progress":{"status":"NEW","status-msg":"Update ready to be run","progress":0,"retries":0}}]"#;

    #[test]
    fn recorded_lists_are_reproduced_byte_for_byte() {
        let containers: Vec<Container> = serde_json::from_str(CONTAINERS).unwrap();
        assert_eq!(serde_json::to_string(&containers).unwrap(), CONTAINERS);
        let groups: Vec<Group> = serde_json::from_str(GROUPS).unwrap();
        assert_eq!(serde_json::to_string(&groups).unwrap(), GROUPS);
    }

    #[test]
    fn steps_are_reproduced_byte_for_byte() {
        let factory = Progress::new(model::State::Done, message::FACTORY, 0);
        let new = Progress::new(model::State::New, message::READY_TO_RUN, 0);
        let steps = [
            (
                RevisionId::factory(),
                "2026-11-21T09:43:23Z".to_owned(),
                Vec::new(),
                Some(factory.to_json()),
            ),
            (
                "locals/fixture-a".parse().unwrap(),
                "2026-11-21T09:46:46Z".to_owned(),
                b"first \"message\" with a quote".to_vec(),
                Some(new.to_json()),
            ),
        ];
        assert_eq!(String::from_utf8(steps_text(&steps)).unwrap(), STEPS);
        let parsed: Vec<Step> = serde_json::from_str(STEPS).unwrap();
        assert_eq!(parsed[1].commitmsg, "first \"message\" with a quote");
        assert_eq!(parsed[1].progress, StepProgress::Known(new));

        let bare = steps_text(&[(RevisionId::factory(), "d".to_owned(), Vec::new(), None)]);
        let parsed: Vec<Step> = serde_json::from_slice(&bare).unwrap();
        assert_eq!(parsed[0].progress, StepProgress::None {});
    }

    #[test]
    fn metadata_is_reproduced_byte_for_byte() {
        // Recorded from Pantavisor 029 (`user-meta`, "list after puts").
        let pairs: Vec<(String, Vec<u8>)> = [
            ("fixture.utf8", "grüße ☃"),
            ("fixture.num", "42"),
            ("fixture.arr", "[1,2]"),
            ("fixture.obj", r#"{"a":1,"b":[true,null]}"#),
            ("fixture.esc", "a \"b\" \\ c\nd\te"),
            ("fixture.key", "value two"),
        ]
        .map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec()))
        .to_vec();
        assert_eq!(
            String::from_utf8(metadata_text(&pairs)).unwrap(),
            r#"{"fixture.utf8":"grüße ☃","fixture.num":"42","fixture.arr":[1,2],"fixture.obj":{"a":1,"b":[true,null]},"fixture.esc":"a \u0022b\u0022 \u005C c\u000Ad\u0009e","fixture.key":"value two"}"#
        );
        let odd = [
            ("cut".to_owned(), b"{\"a\":1}x".to_vec()),
            ("bytes".to_owned(), b"a\xff".to_vec()),
        ];
        let parsed: serde_json::Value = serde_json::from_slice(&metadata_text(&odd)).unwrap();
        assert_eq!(parsed["cut"], "{\"a\":1}x");
        assert_eq!(parsed["bytes"], "a\u{fffd}");
        assert_eq!(metadata_text(&[]), b"{}");
    }

    #[test]
    fn commands() {
        let body: CommandBody =
            serde_json::from_str(r#"{"op": "LOCAL_RUN", "payload": "locals/x"}"#).unwrap();
        assert_eq!(body, CommandBody::new(Op::LocalRun, "locals/x"));
        assert_eq!(
            serde_json::to_string(&body).unwrap(),
            r#"{"op":"LOCAL_RUN","payload":"locals/x"}"#
        );
        let again: CommandBody =
            serde_json::from_str(r#"{"op":"LOCAL_RUN","payload":5,"again":true}"#).unwrap();
        assert_eq!((again.again, again.payload_text().as_str()), (true, "5"));
        for bad in [
            r#"{"op":"RUN_GC"}"#,
            r#"{"payload":"x"}"#,
            r#"{"op":"RUN","payload":""}"#,
            r#"{"op":"","payload":""}"#,
            "RUN_GC",
            "",
            "[]",
            r#"{"op":"RUN_GC","payload":"#,
        ] {
            assert!(serde_json::from_str::<CommandBody>(bad).is_err(), "{bad}");
        }
    }
}
