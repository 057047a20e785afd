//! What is announced for each kind of change, as goldens, and that a run time which does what it is told then does just that.

use expect_test::{Expect, expect};
use model::ObjectId;
use serde_json::{Value, json};

use super::*;
use crate::containers::{Action, Target};
use crate::runtime::{RuntimeCommand, RuntimeEvent};
use crate::update::{Running, Settings};

fn run_json(name: &str) -> Value {
    json!({
        "#spec": "service-manifest-run@1", "name": name, "type": "oci", "root-volume": "root.squashfs",
        "group": "app", "command": ["/run"], "stop-timeout": 2,
    })
}

/// `db` in group data, `web` and `worker` in group app; `web` depends on nothing.
fn manifest(change: impl FnOnce(&mut Value)) -> Manifest {
    parse(change).expect("a valid manifest")
}

fn parse(change: impl FnOnce(&mut Value)) -> Result<Manifest, model::manifest::Rejected> {
    let group = |name: &str| json!({"name": name, "status_goal": "STARTED", "restart_policy": "container", "timeout": 30});
    let mut json = json!({
        "#spec": "pantavisor-service-system@1",
        "bsp/run.json": {"fit": "pv.fit"},
        "bsp/pv.fit": "1".repeat(64),
        "device.json": {"groups": [group("data"), group("app")]},
    });
    for name in ["db", "web", "worker"] {
        json[format!("{name}/run.json")] = run_json(name);
        json[format!("{name}/root.squashfs")] = json!(ObjectId::of(name.as_bytes()).to_string());
    }
    json["db/run.json"]["group"] = json!("data");
    change(&mut json);
    Manifest::parse(json.to_string().as_bytes())
}

fn id(text: &str) -> RevisionId {
    text.parse().unwrap()
}

/// A device on which a revision runs, and what its run time did.
struct Rig {
    containers: Containers,
    update: Update,
    now: Instant,
    running: Manifest,
    did: Vec<String>,
}

const STOP_MS: u64 = 300;
const START_MS: u64 = 70;
const READY_MS: u64 = 500;

impl Rig {
    fn new(running: Manifest) -> Self {
        let committed = Running {
            revision: id("locals/one"),
            digest: running.digest(),
        };
        let marker = Marker {
            committed: Some(id("locals/one")),
            previous: Some(id("0")),
            ..Marker::default()
        };
        let settings = Settings {
            commit_delay: Duration::from_secs(10),
            tries: 3,
            exact_commit: false,
            goal_losses_max: 2,
            shutdown_limit: Duration::from_secs(60),
        };
        let mut rig = Self {
            containers: Containers::new(Instant(0), 0),
            update: Update::settled(settings, marker, Some(committed), 1),
            now: Instant(0),
            running,
            did: Vec::new(),
        };
        rig.aim("locals/one", &rig.running.clone());
        rig
    }

    fn aim(&mut self, revision: &str, manifest: &Manifest) {
        let target = Target::of(id(revision), manifest);
        self.containers.set_target(&target, Mode::Normal, self.now);
        self.play(manifest);
    }

    /// Does what is asked, each thing in its time, until nothing is asked any more.
    fn play(&mut self, manifest: &Manifest) {
        let mut coming: Vec<(Instant, Result<RuntimeEvent, ContainerName>)> = Vec::new();
        // What goes on running says so when that becomes its goal.
        for spec in manifest
            .containers()
            .filter(|spec| spec.goal == Goal::Ready)
        {
            coming.push((self.now, Err(spec.name.clone())));
        }
        loop {
            for command in self.containers.reconcile(self.now) {
                let at = |after: u64| self.now + Duration::from_millis(after);
                match command {
                    RuntimeCommand::List => {
                        coming.push((at(0), Ok(RuntimeEvent::Listed(Vec::new()))));
                    }
                    RuntimeCommand::Start(spec) => {
                        let (instance, name) = (spec.instance, spec.container.name.clone());
                        self.did.push(format!("start {name}"));
                        coming.push((at(START_MS), Ok(RuntimeEvent::Started { instance, pid: 1 })));
                        if spec.container.goal == Goal::Ready {
                            coming.push((at(READY_MS), Err(name)));
                        }
                    }
                    RuntimeCommand::Mount(spec) => {
                        self.did.push(format!("mount {}", spec.container.name));
                        coming.push((at(START_MS), Ok(RuntimeEvent::Mounted(spec.instance))));
                    }
                    RuntimeCommand::Stop { instance, .. } => {
                        self.did.push(format!("stop {}", instance.container));
                        coming.push((at(STOP_MS), Ok(RuntimeEvent::Stopped(instance))));
                    }
                    RuntimeCommand::MarkReady(_) | RuntimeCommand::Probe { .. } => {}
                }
            }
            coming.sort_by_key(|(at, _)| *at);
            if coming.is_empty() {
                break;
            }
            let (at, event) = coming.remove(0);
            self.now = at;
            match event {
                Ok(event) => self.containers.handle(at, event),
                Err(name) => drop(self.containers.ready(&name)),
            }
        }
        assert!(self.containers.summary(self.now).reached);
    }

    fn plan_of(&self, next: &Manifest, boot_loader: bool) -> Result<Rehearsal, Refused> {
        let by_reboot =
            super::super::Plan::between(Some(&self.running), next).by_reboot(boot_loader);
        rehearse(&Scene {
            now: self.now,
            containers: &self.containers,
            update: &self.update,
            running: Some(&self.running),
            next,
            wanted: Wanted {
                revision: id("locals/two"),
                digest: next.digest(),
                was_done: false,
                by_reboot,
                commit: false,
                again: false,
                retries: 0,
            },
            boot_takes: Some(Duration::from_secs(9)),
            stopped: &self.containers.user_stopped(),
        })
    }

    fn check(&self, next: &Manifest, boot_loader: bool, expected: &Expect) {
        let plan = self.plan_of(next, boot_loader).expect("not refused");
        expected.assert_eq(&in_words(&plan));
    }
}

fn lasts(lasts: Lasts) -> String {
    format!("{} ms {:?}", lasts.time.as_millis(), lasts.basis)
}

fn deed(act: &Act) -> String {
    match &act.deed {
        Deed::Stop(name) => format!("stop {name}"),
        Deed::Start(name) => format!("start {name}"),
        Deed::Mount(name) => format!("mount {name}"),
        Deed::Reboot => "reboot".to_owned(),
    }
}

fn in_words(plan: &Rehearsal) -> String {
    let mut text = format!("{:?}", plan.way);
    if let Some(failure) = plan.failed_before {
        text += &format!(", failed before ({failure})");
    }
    if !plan.boot_changes.is_empty() {
        text += &format!(", bsp: {}", plan.boot_changes.join(" "));
    }
    text.push('\n');
    for fated in &plan.containers {
        text += &format!("{} {:?} {:?}", fated.name, fated.fate, fated.reason);
        if !fated.settings.is_empty() {
            text += &format!(" settings {:?}", fated.settings);
        }
        if let Some(time) = fated.downtime {
            text += &format!(" away {}", lasts(time));
        }
        text.push('\n');
    }
    for act in &plan.acts {
        let guessed = if act.guessed { " (guessed)" } else { "" };
        text += &format!("{:>6} {}{guessed}\n", act.at.as_millis(), deed(act));
    }
    if let Some(goals) = plan.goals_after {
        text += &format!("goals after {}\n", lasts(goals));
    }
    text += &format!(
        "committed after {:?}, trial goes back to {}, then {}; makes room: {}\n",
        plan.committed_after,
        plan.trial_base
            .as_ref()
            .map_or("nothing", RevisionId::as_str),
        plan.marker
            .previous
            .as_ref()
            .map_or("nothing", RevisionId::as_str),
        plan.makes_room.is_some(),
    );
    text
}

#[test]
fn in_place() {
    let rig = Rig::new(manifest(|_| {}));
    let next = manifest(|it| {
        it["web/root.squashfs"] = json!("5".repeat(64));
        it["web/run.json"]["status_goal"] = json!("READY");
        it["db/run.json"]["stop-timeout"] = json!(7);
        it.as_object_mut()
            .unwrap()
            .retain(|key, _| !key.starts_with("worker/"));
        it["log/run.json"] = run_json("log");
        it["log/run.json"]["depends-on"] = json!(["web"]);
        it["log/root.squashfs"] = json!("6".repeat(64));
    });
    rig.check(&next, false, &expect![[r#"
        InPlace
        db Kept Unchanged settings ["stop-timeout"]
        log Started New
        web Restarted Changed(Changes { root: true, fields: [], files: [], shared: false, settings: ["status_goal"] }) settings ["status_goal"] away 2070 ms Configured
        worker Stopped Removed
             0 stop worker (guessed)
          2000 stop web (guessed)
          4000 start web (guessed)
          4070 start log (guessed)
        goals after 4070 ms Configured
        committed after Some(34.07s), trial goes back to locals/one, then locals/one; makes room: true
    "#]]);
}

#[test]
fn by_reboot() {
    let rig = Rig::new(manifest(|_| {}));
    let next = manifest(|it| {
        it["bsp/pv.fit"] = json!("7".repeat(64));
        it["web/run.json"]["env"] = json!(["A=1"]);
    });
    rig.check(&next, true, &expect![[r#"
        Reboot, bsp: bsp/pv.fit
        db Restarted MachineRestarts away 11070 ms Configured
        web Restarted Changed(Changes { root: false, fields: ["env"], files: [], shared: false, settings: [] }) away 13140 ms Configured
        worker Restarted MachineRestarts away 13140 ms Configured
             0 stop web (guessed)
             0 stop worker (guessed)
          2000 stop db (guessed)
          4000 reboot (guessed)
         13000 start db
         13070 start web
         13070 start worker
        goals after 13140 ms Configured
        committed after Some(43.14s), trial goes back to locals/one, then locals/one; makes room: true
    "#]]);
    rig.check(&next, false, &expect![[r#"
        InPlace, bsp: bsp/pv.fit
        db Kept Unchanged
        web Restarted Changed(Changes { root: false, fields: ["env"], files: [], shared: false, settings: [] }) away 2070 ms Configured
        worker Kept Unchanged
             0 stop web (guessed)
          2000 start web
        goals after 2070 ms Configured
        committed after Some(32.07s), trial goes back to locals/one, then locals/one; makes room: true
    "#]]);
}

#[test]
fn a_run_time_that_is_away_comes_back() {
    let mut rig = Rig::new(manifest(|_| {}));
    let next = manifest(|it| it["web/run.json"]["env"] = json!(["A=1"]));
    let there = rig.plan_of(&next, false).expect("not refused");
    let reason = "killed".to_owned();
    rig.containers
        .handle(rig.now, RuntimeEvent::Disconnected { reason });
    let away = rig.plan_of(&next, false).expect("not refused");
    assert_eq!(away, there);
    rig.containers.handle(rig.now, RuntimeEvent::Connected);
    let back = rig.plan_of(&next, false).expect("not refused");
    assert_eq!(back, there);
}

#[test]
fn what_is_not_running_or_stopped_by_a_person() {
    let mut rig = Rig::new(manifest(|it| {
        it["web/run.json"]["auto_recovery"] = json!({"policy": "unless-stopped"});
    }));
    let now = rig.now;
    let running = rig.running.clone();
    for name in ["web", "worker"] {
        let name = name.parse().unwrap();
        rig.containers.control(&name, Action::Stop).unwrap();
    }
    rig.play(&running);
    assert!(rig.now > now);
    let next = manifest(|it| {
        it["web/run.json"]["auto_recovery"] = json!({"policy": "unless-stopped"});
        it["worker/run.json"]["env"] = json!(["A=1"]);
        it["db/run.json"]["status_goal"] = json!("MOUNTED");
    });
    rig.check(&next, false, &expect![[r#"
        InPlace
        db Restarted GoalMoved settings ["status_goal"] away 2000 ms Configured
        web Down StoppedByPerson
        worker Started Changed(Changes { root: false, fields: ["env"], files: [], shared: false, settings: [] })
             0 stop db (guessed)
          2000 mount db (guessed)
          2000 start worker
        goals after 2070 ms Configured
        committed after Some(32.07s), trial goes back to locals/one, then locals/one; makes room: true
    "#]]);
}

#[test]
fn nothing_to_do_and_refusals() {
    let mut rig = Rig::new(manifest(|_| {}));
    let same = rig.plan_of(&manifest(|_| {}), false).expect("not refused");
    assert_eq!(
        same.way,
        Way::InPlace,
        "another name, so a revision of its own"
    );
    assert!(same.acts.is_empty() && same.containers.iter().all(|it| it.fate == Fate::Kept));
    let next = manifest(|it| it["web/run.json"]["env"] = json!(["A=1"]));
    let mut marker = rig.update.marker().clone();
    marker.remember_failed(next.digest(), 7);
    let running = rig.update.running().cloned();
    rig.update = Update::settled(rig.update.settings(), marker, running, 8);
    let failed = rig.plan_of(&next, false).expect("told, not refused");
    assert_eq!((failed.failed_before, failed.way), (Some(7), Way::InPlace));
    let wanted = Wanted {
        revision: id("locals/one"),
        digest: rig.running.digest(),
        was_done: true,
        by_reboot: false,
        commit: false,
        again: false,
        retries: 0,
    };
    let scene = |wanted| Scene {
        now: rig.now,
        containers: &rig.containers,
        update: &rig.update,
        running: Some(&rig.running),
        next: &rig.running,
        wanted,
        boot_takes: None,
        stopped: &[],
    };
    let plan = rehearse(&scene(wanted.clone())).expect("not refused");
    assert_eq!(plan.way, Way::Nothing);
    assert!(plan.acts.is_empty() && plan.makes_room.is_none());
    let mut busy = rig.update.clone();
    let revision = id("locals/busy");
    busy.step(
        rig.now,
        Event::Run(Wanted {
            revision,
            ..wanted.clone()
        }),
    );
    let refused = rehearse(&Scene {
        update: &busy,
        ..scene(wanted)
    });
    assert_eq!(refused, Err(Refused::UpdateInProgress(id("locals/busy"))));
}

/// Every pair of some revisions: what is played is what is done, in the same order.
#[test]
fn what_is_announced_is_what_is_done() {
    type Change = fn(&mut Value);
    let changes: &[Change] = &[
        |_| {},
        |it| it["web/run.json"]["env"] = json!(["A=1"]),
        |it| it["db/root.squashfs"] = json!("5".repeat(64)),
        |it| it["worker/run.json"]["depends-on"] = json!(["web"]),
        |it| it["worker/run.json"]["group"] = json!("data"),
        |it| it["web/run.json"]["status_goal"] = json!("READY"),
        |it| it["db/run.json"]["status_goal"] = json!("MOUNTED"),
        |it| {
            it.as_object_mut()
                .unwrap()
                .retain(|key, _| !key.starts_with("db/"))
        },
        |it| {
            it.as_object_mut()
                .unwrap()
                .retain(|key, _| !key.starts_with("w"))
        },
    ];
    let mut pairs = 0;
    for one in changes {
        for two in changes {
            for three in changes {
                let next = parse(|it| {
                    two(it);
                    if it.get("web/run.json").is_some() && it.get("db/run.json").is_some() {
                        three(it);
                    }
                });
                // A worker in an earlier group cannot wait for web, nor for what is not there.
                let Ok(next) = next else { continue };
                let mut rig = Rig::new(manifest(one));
                let plan = rig.plan_of(&next, false).expect("not refused");
                let before = rig.containers.alive();
                rig.did.clear();
                let began = rig.now;
                rig.aim("locals/two", &next);
                let after = rig.containers.alive();
                let announced: Vec<_> = plan.acts.iter().map(deed).collect();
                assert_eq!(announced, rig.did);
                for fated in &plan.containers {
                    let (old, new) = (before.get(&fated.name), after.get(&fated.name));
                    let fate = match fated.fate {
                        Fate::Kept => old == new && old.is_some(),
                        Fate::Restarted => old.is_some() && new.is_some() && old != new,
                        Fate::Started => old.is_none() && new.is_some(),
                        Fate::Stopped => old.is_some() && new.is_none(),
                        Fate::Down => old.is_none() && new.is_none(),
                    };
                    assert!(fate, "{fated:?} {old:?} {new:?}");
                }
                if let Some(Lasts {
                    time,
                    basis: Basis::Observed,
                }) = plan.goals_after
                {
                    assert_eq!(time, rig.now.since(began), "times that were seen before");
                }
                pairs += 1;
            }
        }
    }
    assert!(pairs > 600, "{pairs}");
}
