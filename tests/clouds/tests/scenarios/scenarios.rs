//! The scenarios.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use acceptance::device::Device;
use acceptance::image::{Image, busybox, object};
use acceptance::manifest::Manifest;
use clouds::call;
use clouds::client::Client;
use clouds::management::{Ability, Access, How, Management, Outcome, Seen, schedule_at};
use clouds::wait;
use serde_json::{Value, json};

mod certificate;
mod container;

pub(crate) type Scenario = fn(&dyn Management);

/// Name, what the server must be able to do, the scenario.
pub(crate) const ALL: &[(&str, &[Ability], Scenario)] = &[
    ("the whole path", &[Ability::Rollouts], whole_path),
    ("a sick revision", &[], sick),
    (
        "the same again after a failure",
        &[Ability::SameAgain],
        same_again,
    ),
    ("another one during the download", &[], another),
    ("attributes after the end", &[], attributes_later),
    ("a set from the factory", &[Ability::Stated], factory),
    (
        "cancel before the download",
        &[Ability::Cancel],
        cancel_before,
    ),
    (
        "cancel during the download",
        &[Ability::Cancel],
        cancel_during,
    ),
    (
        "cancel after the download",
        &[Ability::Cancel, Ability::Window],
        cancel_after,
    ),
    ("cancel too late", &[Ability::Cancel], cancel_too_late),
    ("confirmation", &[Ability::Confirmation], confirmation),
    ("maintenance window", &[Ability::Window], window),
    (
        "download only, then forced",
        &[Ability::Kinds],
        download_only,
    ),
    ("soft", &[Ability::Kinds], soft),
    ("killed at every phase", &[], killed),
    ("as a container", &[], container::in_a_container),
    (
        "by certificate",
        &[Ability::Certificates],
        certificate::by_certificate,
    ),
    (
        "a rollout that stops on errors",
        &[Ability::Rollouts, Ability::Groups],
        rollout,
    ),
];

const PATIENCE: u64 = 120;
/// The client's last word about a deployment that went well.
const COMMITTED: &str = "runs and is committed";

/// A name that no earlier run on the same server has used.
fn fresh(name: &str) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock");
    format!("{name}-{:x}", now.as_millis() & 0xffff_ffff)
}

struct Payload {
    manifest: String,
    objects: Vec<Image>,
}

impl Payload {
    /// A revision with a container that runs this command.
    fn new(mark: &str, command: &[&str], run: Value) -> Self {
        let image = busybox(&[]);
        // A busy machine is no sick revision.
        let manifest = Manifest::with_groups(&[("app", "STARTED", 60)])
            .key("build.json", json!({"mark": mark}))
            .container("web", &image, command, run);
        Self {
            manifest: manifest.text(),
            objects: vec![image],
        }
    }

    fn good(mark: &str) -> Self {
        Self::new(mark, &["/bin/sleep", "1000"], json!({"group": "app"}))
    }

    /// A good one with an object that takes a while to fetch.
    fn large(mark: &str, bytes: usize) -> Self {
        let image = busybox(&[]);
        let filler: Vec<u8> = (0..=250_u8).cycle().take(bytes).collect();
        let mut filler = filler;
        filler.extend_from_slice(mark.as_bytes());
        let filler = object(&filler);
        let manifest = Manifest::with_groups(&[("app", "STARTED", 60)])
            .container(
                "web",
                &image,
                &["/bin/sleep", "1000"],
                json!({"group": "app"}),
            )
            .key("web/filler.bin", json!(filler.sha256));
        Self {
            manifest: manifest.text(),
            objects: vec![image, filler],
        }
    }

    fn publish(&self, server: &dyn Management, name: &str) -> u64 {
        let mut files: Vec<(&str, &[u8])> = vec![("manifest.json", self.manifest.as_bytes())];
        for object in &self.objects {
            files.push((&object.sha256, &object.bytes));
        }
        server.publish(name, &files)
    }
}

struct Rig {
    device: Device,
    access: Access,
    name: String,
    before: Option<String>,
}

impl Rig {
    fn new(server: &dyn Management, name: &str, settings: &[(&str, &str)]) -> Self {
        let name = fresh(name);
        let device = Device::start_with(settings);
        let before = device.running();
        let access = server.add_device(&name);
        Self {
            device,
            access,
            name,
            before,
        }
    }

    fn client(&self, settings: &[(&str, &str)]) -> Client {
        let socket = self.device.run_dir().join("control.sock");
        Client::start(&socket, &self.access, settings)
    }

    /// A person at the device agrees.
    fn agree(&self, action: u64) {
        let (path, id) = ("/user-meta/hawkbit.consent", action.to_string());
        let answer = self.device.socket.put(path, id.as_bytes());
        assert_eq!(answer.expect("an answer").status, 200);
    }

    fn unchanged(&self) {
        assert_eq!(self.device.running(), self.before, "nothing else runs");
    }

    fn changed(&self) {
        assert_ne!(self.device.running(), self.before, "the new revision runs");
        assert!(
            self.device.container_pid("web").is_some(),
            "its container runs"
        );
    }
}

fn ended(server: &dyn Management, rig: &Rig, action: u64, expected: Outcome) -> Seen {
    let seen = wait(&format!("action {action} ends"), PATIENCE, || {
        let seen = server.see(&rig.name, action);
        (seen.outcome != Outcome::Open).then_some(seen)
    });
    assert_eq!(seen.outcome, expected, "{:?}", seen.rows);
    seen
}

fn has_row(server: &dyn Management, rig: &Rig, action: u64, kind: &str) {
    wait(&format!("the device reports {kind}"), PATIENCE, || {
        let seen = server.see(&rig.name, action);
        assert!(
            seen.outcome == Outcome::Open || seen.rows.iter().any(|(found, _)| found == kind),
            "it ended before it reported {kind}: {:?}",
            seen.rows
        );
        seen.rows
            .iter()
            .any(|(found, _)| found == kind)
            .then_some(())
    });
}

fn has_line(server: &dyn Management, rig: &Rig, action: u64, text: &str) {
    wait(&format!("the device reports {text:?}"), PATIENCE, || {
        let seen = server.see(&rig.name, action);
        let found = seen.rows.iter().any(|(_, said)| said.contains(text));
        assert!(
            seen.outcome == Outcome::Open || found,
            "it ended before: {:?}",
            seen.rows
        );
        found.then_some(())
    });
}

/// The line, and its place.
fn once(seen: &Seen, text: &str) -> usize {
    let all = seen.rows.iter().enumerate();
    let mut found = all.filter(|(_, (_, said))| said.contains(text));
    let place = found.next().map(|(place, _)| place);
    assert_eq!(found.count(), 0, "{text:?} twice: {:?}", seen.rows);
    place.unwrap_or_else(|| panic!("nobody says {text:?}: {:?}", seen.rows))
}

fn says(seen: &Seen, text: &str) {
    assert!(
        seen.rows.iter().any(|(_, said)| said.contains(text)),
        "nobody says {text:?}: {:?}",
        seen.rows
    );
}

/// From nothing to a rollout that is finished and a device that runs the new revision.
fn whole_path(server: &dyn Management) {
    // The client looks at the device every second, and shall see that it is observed.
    let rig = Rig::new(server, "whole", &[("commit-delay", "5s")]);
    let _client = rig.client(&[]);
    let set = Payload::good(&rig.name).publish(server, &rig.name);
    let rollout = server.rollout(&rig.name, &rig.name, set, 1, 50);
    let state = wait("the rollout is finished", PATIENCE, || {
        let (state, counts) = server.see_rollout(rollout);
        assert_eq!(counts[3], 0, "no error");
        (state == "finished").then_some(state)
    });
    assert_eq!(state, "finished");
    let action = *server.actions(&rig.name).last().expect("an action");
    let seen = server.see(&rig.name, action);
    assert_eq!(seen.outcome, Outcome::Finished);
    // In this order, each once.
    if server.lacks(Ability::Rows).is_none() {
        let kinds: Vec<&str> = seen.rows.iter().map(|(kind, _)| kind.as_str()).collect();
        let place = |kind: &str| kinds.iter().position(|found| *found == kind);
        assert!(place("downloaded") > place("retrieved"), "{kinds:?}");
        assert_eq!(kinds.last(), Some(&"finished"), "{kinds:?}");
    }
    let accepted = once(&seen, "the deployment is accepted");
    let observed = once(&seen, "is observed before it is committed");
    let committed = once(&seen, COMMITTED);
    assert!(
        accepted < observed && observed < committed,
        "{:?}",
        seen.rows
    );
    rig.changed();
}

/// The server says error, with the cause that the device recorded.
fn sick(server: &dyn Management) {
    let rig = Rig::new(server, "sick", &[]);
    let _client = rig.client(&[]);
    let good = Payload::good(&rig.name).publish(server, &format!("{}-good", rig.name));
    let first = server.assign(&rig.name, good, &How::Forced);
    ended(server, &rig, first, Outcome::Finished);
    let running = rig.device.running();
    let payload = Payload::new(
        &rig.name,
        &["/bin/sh", "-c", "echo no licence found; exit 23"],
        json!({"group": "app"}),
    );
    let set = payload.publish(server, &rig.name);
    let action = server.assign(&rig.name, set, &How::Forced);
    let seen = ended(server, &rig, action, Outcome::Error);
    says(&seen, "container web");
    says(&seen, "exit code 23");
    says(&seen, "no licence found");
    if server.lacks(Ability::Rows).is_none() {
        assert_eq!(seen.code, Some(201), "the code of a container that ended");
    }
    assert_eq!(rig.device.running(), running, "the old revision runs again");
}

/// A container that fails once, and never again: what was tried is not tried again, unless a person has set that it is.
fn same_again(server: &dyn Management) {
    let rig = Rig::new(server, "again", &[]);
    let client = rig.client(&[]);
    let payload = Payload::new(
        &rig.name,
        &[
            "/bin/sh",
            "-c",
            "test -e /data/tried && exec sleep 1000; touch /data/tried; exit 23",
        ],
        json!({"group": "app", "storage": {"data": {"persistence": "permanent", "path": "/data"}}}),
    );
    let set = payload.publish(server, &rig.name);
    let action = server.assign(&rig.name, set, &How::Forced);
    let seen = ended(server, &rig, action, Outcome::Error);
    says(&seen, "exit code 23");
    let action = server.assign(&rig.name, set, &How::Forced);
    ended(server, &rig, action, Outcome::Error);
    rig.unchanged();
    drop(client);
    let _client = rig.client(&[("failed-again", "retry")]);
    let action = server.assign(&rig.name, set, &How::Forced);
    ended(server, &rig, action, Outcome::Finished);
    rig.changed();
}

/// The first gives way without a trace.
fn another(server: &dyn Management) {
    let rig = Rig::new(server, "another", &[]);
    let _client = rig.client(&[("rate-limit", "200000")]);
    let set = Payload::large(&rig.name, 12 << 20).publish(server, &rig.name);
    let first = server.assign(&rig.name, set, &How::Forced);
    has_line(server, &rig, first, "downloading: ");
    let set = Payload::good(&rig.name).publish(server, &format!("{}-next", rig.name));
    let next = server.assign(&rig.name, set, &How::Forced);
    ended(server, &rig, next, Outcome::Finished);
    rig.changed();
    let outcome = server.see(&rig.name, first).outcome;
    assert!(
        matches!(outcome, Outcome::Cancelled | Outcome::Open),
        "{outcome:?}"
    );
    let kept = rig.device.socket.get("/steps").expect("an answer").json();
    let kept = kept.as_array().map_or(0, Vec::len);
    assert!(kept <= 2, "the first one is still on the device: {kept}");
}

/// What a server makes of attributes that come later is its own affair: gooseBit forgets what is installed, and offers it once more.
fn attributes_later(server: &dyn Management) {
    let rig = Rig::new(server, "told", &[]);
    // Nor has this device any to tell, for which a server may wait.
    let _client = rig.client(&[("attributes", "there.is.none")]);
    let set = Payload::good(&rig.name).publish(server, &rig.name);
    let action = server.assign(&rig.name, set, &How::Forced);
    ended(server, &rig, action, Outcome::Finished);
    let (running, container) = (rig.device.running(), rig.device.container_pid("web"));
    let token = format!("TargetToken {}", rig.access.token);
    let path = format!(
        "/{}/controller/v1/{}/configData",
        rig.access.tenant, rig.access.controller
    );
    let body = json!({"data": {"colour": "green"}});
    call::json(&rig.access.url, "PUT", &path, &token, &body).expect("it is taken");
    std::thread::sleep(Duration::from_secs(3));
    ended(server, &rig, action, Outcome::Finished);
    assert_eq!(rig.device.running(), running, "nothing is installed again");
    assert_eq!(rig.device.container_pid("web"), container, "nor restarted");
}

/// What a device came with is told to the server, which then shows it as installed and offers nothing.
fn factory(server: &dyn Management) {
    let rig = Rig::new(server, "factory", &[]);
    let set = Payload::good(&rig.name).publish(server, &rig.name);
    assert_eq!(server.installed(&rig.name), None);
    let _client = rig.client(&[("installed-set", &format!("{}:1", rig.name))]);
    wait("the server knows what is installed", PATIENCE, || {
        (server.installed(&rig.name) == Some(set)).then_some(())
    });
    rig.unchanged();
}

fn cancel_before(server: &dyn Management) {
    let rig = Rig::new(server, "before", &[]);
    let set = Payload::good(&rig.name).publish(server, &rig.name);
    let action = server.assign(&rig.name, set, &How::Forced);
    server.cancel(&rig.name, action);
    let _client = rig.client(&[]);
    ended(server, &rig, action, Outcome::Cancelled);
    rig.unchanged();
}

fn cancel_during(server: &dyn Management) {
    let rig = Rig::new(server, "during", &[]);
    let _client = rig.client(&[("rate-limit", "200000")]);
    let set = Payload::large(&rig.name, 12 << 20).publish(server, &rig.name);
    let action = server.assign(&rig.name, set, &How::Forced);
    has_row(server, &rig, action, "download");
    server.cancel(&rig.name, action);
    ended(server, &rig, action, Outcome::Cancelled);
    rig.unchanged();
    // And the next one is not held up.
    let set = Payload::good(&rig.name).publish(server, &format!("{}-next", rig.name));
    let action = server.assign(&rig.name, set, &How::Forced);
    ended(server, &rig, action, Outcome::Finished);
    rig.changed();
}

fn cancel_after(server: &dyn Management) {
    let rig = Rig::new(server, "after", &[]);
    let _client = rig.client(&[]);
    let set = Payload::good(&rig.name).publish(server, &rig.name);
    let how = How::Window(at(now_s() + 36_000), "01:00:00".to_owned());
    let action = server.assign(&rig.name, set, &how);
    has_row(server, &rig, action, "downloaded");
    server.cancel(&rig.name, action);
    ended(server, &rig, action, Outcome::Cancelled);
    rig.unchanged();
}

fn cancel_too_late(server: &dyn Management) {
    let rig = Rig::new(server, "late", &[("commit-delay", "20s")]);
    let _client = rig.client(&[]);
    let set = Payload::good(&rig.name).publish(server, &rig.name);
    let action = server.assign(&rig.name, set, &How::Forced);
    has_line(server, &rig, action, "is observed");
    server.cancel(&rig.name, action);
    let seen = ended(server, &rig, action, Outcome::Finished);
    assert!(
        seen.rows.iter().any(|(kind, _)| kind == "cancel_rejected"),
        "{:?}",
        seen.rows
    );
    says(&seen, "too late to cancel");
    rig.changed();
}

fn confirmation(server: &dyn Management) {
    server.ask_for_consent(true);
    let rig = Rig::new(server, "consent", &[]);
    let _client = rig.client(&[("consent", "ask")]);
    let set = Payload::good(&rig.name).publish(server, &rig.name);
    let action = server.assign(&rig.name, set, &How::Forced);
    // The device says what it waits for, where a person looks.
    wait("the device asks", PATIENCE, || {
        let meta = rig.device.socket.get("/device-meta").ok()?.text();
        meta.contains("hawkbit.consent").then_some(())
    });
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(server.see(&rig.name, action).outcome, Outcome::Open);
    rig.unchanged();
    rig.agree(action);
    let seen = ended(server, &rig, action, Outcome::Finished);
    says(&seen, "a person at the device agrees");
    rig.changed();
    server.ask_for_consent(false);
}

/// A schedule for this many seconds after 1970.
fn at(seconds: u64) -> String {
    schedule_at(UNIX_EPOCH + Duration::from_secs(seconds))
}

fn now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock")
        .as_secs()
}

fn window(server: &dyn Management) {
    let rig = Rig::new(server, "window", &[]);
    let _client = rig.client(&[]);
    let set = Payload::good(&rig.name).publish(server, &rig.name);
    let opens = now_s() + 30;
    let how = How::Window(at(opens), "00:30:00".to_owned());
    let action = server.assign(&rig.name, set, &how);
    has_row(server, &rig, action, "downloaded");
    let early = now_s() < opens;
    if early {
        rig.unchanged();
        assert_eq!(server.see(&rig.name, action).outcome, Outcome::Open);
    }
    let seen = ended(server, &rig, action, Outcome::Finished);
    assert!(now_s() >= opens, "installed before the window opened");
    if early {
        says(&seen, "the maintenance window is closed");
    }
    rig.changed();
}

fn download_only(server: &dyn Management) {
    let rig = Rig::new(server, "fetch", &[]);
    let _client = rig.client(&[]);
    let payload = Payload::good(&rig.name);
    let set = payload.publish(server, &rig.name);
    let action = server.assign(&rig.name, set, &How::DownloadOnly);
    ended(server, &rig, action, Outcome::Downloaded);
    rig.unchanged();
    // hawkBit offers a set once that was fetched: the same content under another name.
    let set = payload.publish(server, &format!("{}-now", rig.name));
    let action = server.assign(&rig.name, set, &How::Forced);
    ended(server, &rig, action, Outcome::Finished);
    rig.changed();
}

fn soft(server: &dyn Management) {
    let rig = Rig::new(server, "soft", &[]);
    let _client = rig.client(&[("consent", "ask")]);
    let set = Payload::good(&rig.name).publish(server, &rig.name);
    let action = server.assign(&rig.name, set, &How::Soft);
    has_row(server, &rig, action, "downloaded");
    rig.unchanged();
    rig.agree(action);
    ended(server, &rig, action, Outcome::Finished);
    rig.changed();
}

/// SIGKILL of the client again and again, wherever it is: the deployment ends right, once, and is reported once.
fn killed(server: &dyn Management) {
    let rig = Rig::new(server, "killed", &[("commit-delay", "4s")]);
    let mut client = rig.client(&[("rate-limit", "2000000")]);
    let set = Payload::large(&rig.name, 6 << 20).publish(server, &rig.name);
    let action = server.assign(&rig.name, set, &How::Forced);
    for pause_ms in [700, 1500, 2300, 900, 3100, 1200, 2700, 1900] {
        std::thread::sleep(Duration::from_millis(pause_ms));
        client.kill();
        client.spawn();
    }
    let seen = ended(server, &rig, action, Outcome::Finished);
    if server.lacks(Ability::Rows).is_none() {
        once(&seen, COMMITTED);
    } else {
        // It takes a report twice, when the client was killed before it knew that it was taken.
        says(&seen, COMMITTED);
    }
    rig.changed();
}

/// What a simulated device does: takes what is offered and says how it went.
fn simulated(access: &Access, good: bool) -> bool {
    let token = format!("TargetToken {}", access.token);
    let root = format!("/{}/controller/v1/{}", access.tenant, access.controller);
    let said = call::json(&access.url, "GET", &root, &token, &Value::Null).expect("a poll");
    let Some(href) = said["_links"]["deploymentBase"]["href"].as_str() else {
        return false;
    };
    let action = href.split("deploymentBase/").nth(1).expect("an action");
    let action = action.split('?').next().unwrap_or_default();
    let finished = if good { "success" } else { "failure" };
    let body = json!({"status": {"execution": "closed", "result": {"finished": finished},
        "details": ["simulated"]}});
    let target = format!("{root}/deploymentBase/{action}/feedback");
    call::json(&access.url, "POST", &target, &token, &body).expect("a report");
    true
}

/// 20 devices in two groups, at most 20 % errors: 3 of 10 stop it, and the second group sees nothing.
fn rollout(server: &dyn Management) {
    let name = fresh("fleet");
    let devices: Vec<Access> = (0..20)
        .map(|n| server.add_device(&format!("{name}-{n:02}")))
        .collect();
    let set = Payload::good(&name).publish(server, &name);
    let rollout = server.rollout(&name, &name, set, 2, 20);
    wait("the first group runs", PATIENCE, || {
        let (state, counts) = server.see_rollout(rollout);
        (state == "running" && counts[0] == 10 && counts[1] == 10).then_some(())
    });
    let mut failed = 0;
    for access in &devices {
        if failed < 3 && simulated(access, false) {
            failed += 1;
        }
    }
    assert_eq!(failed, 3);
    wait("the rollout is paused", PATIENCE, || {
        (server.see_rollout(rollout).0 == "paused").then_some(())
    });
    let rest = devices
        .iter()
        .filter(|access| simulated(access, true))
        .count();
    assert_eq!(rest, 7, "the first group goes on, the second sees nothing");
    let (state, counts) = server.see_rollout(rollout);
    assert_eq!((state.as_str(), counts), ("paused", [0, 10, 7, 3]));
}
