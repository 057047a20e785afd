//! What a person sees: messages of the api turned into texts. Pure, so that goldens can hold every screen.

use std::collections::BTreeMap;

use api::messages::ours::{
    Condition, ContainerStatus, DeviceStatus, Event, FailureSummary, GroupStatus, Why,
};
use api::messages::pantavisor::{ConfigEntry, Step, StepProgress};
use model::failure::{Failure, Pressure};
use model::{Progress, RevisionId, State, Status};

use crate::table::{Cell, Table, cell, long, maybe, number, text, toned};
use crate::terminal::{Look, Tone, clean};
use crate::units;

/// `coxctl status`.
pub(crate) fn status(status: &DeviceStatus, look: &Look) -> String {
    let (word, tone) = condition(status.condition);
    let mut lines = format!(
        "{}  {}  (Coxswain {}, device time {}, up {})\n\n",
        look.paint(Tone::Strong, "Device"),
        look.paint(tone, word),
        clean(&status.version),
        clean(&status.time),
        units::seconds(status.uptime_s),
    );
    let mut fact = |name: &str, tone: Tone, value: String| {
        lines.push_str(&look.paint(Tone::Faint, &format!("{name:<11}")));
        lines.push_str(&format!("{}\n", look.paint(tone, &clean(&value))));
    };
    fact("Running", Tone::Strong, running(status));
    let returns = |revision: &RevisionId| format!("{revision} (`coxctl rollback` returns to it)");
    if let Some(committed) = status.committed.as_ref().filter(|_| status.trial.is_some()) {
        fact("Committed", Tone::Plain, returns(committed));
    } else if status.committed != status.running {
        fact("Committed", Tone::Plain, name(status.committed.as_ref()));
    }
    if let Some(previous) = &status.previous {
        let value = if status.trial.is_some() {
            previous.to_string()
        } else {
            returns(previous)
        };
        fact("Previous", Tone::Plain, value);
    }
    if let Some(trial) = &status.trial {
        let mut value = format!("{}: {}", trial.revision, trial.phase);
        if let Some(left) = trial.commit_in_s {
            value.push_str(&format!(", committed in {}", units::seconds(left)));
        }
        value.push_str(&format!(", {} tries left", trial.tries_left));
        fact("Trial", Tone::Busy, value);
    }
    if let Some(storage) = status.storage {
        let percent = u128::from(storage.free_bytes) * 100 / u128::from(storage.total_bytes.max(1));
        let tone = if percent < 5 { Tone::Bad } else { Tone::Plain };
        let (free, total) = (
            units::bytes(storage.free_bytes),
            units::bytes(storage.total_bytes),
        );
        fact(
            "Storage",
            tone,
            format!("{free} of {total} free ({percent} %)"),
        );
    }
    if let Some(problem) = &status.runtime_problem {
        fact("Run time", Tone::Bad, problem.clone());
    }
    for notice in &status.notices {
        fact("Notice", Tone::Bad, notice.clone());
    }
    if let Some(failure) = &status.last_failure {
        fact(
            "Failed",
            Tone::Bad,
            format!(
                "{}: {} (record {}, {})",
                failure.revision, failure.summary, failure.id, failure.time
            ),
        );
    }
    for table in [
        groups(&status.groups, look),
        containers(&status.containers, look),
    ] {
        lines.push('\n');
        lines.push_str(&table);
    }
    lines
}

fn condition(condition: Condition) -> (&'static str, Tone) {
    match condition {
        Condition::Starting => ("starting", Tone::Busy),
        Condition::Good => ("good", Tone::Good),
        Condition::Updating => ("updating", Tone::Busy),
        Condition::Degraded => ("degraded", Tone::Bad),
        Condition::ShuttingDown => ("shutting down", Tone::Busy),
    }
}

fn name(revision: Option<&RevisionId>) -> String {
    revision.map_or_else(|| "none".to_owned(), ToString::to_string)
}

fn running(status: &DeviceStatus) -> String {
    let mut value = name(status.running.as_ref());
    let mut notes = Vec::new();
    if let Some(manifest) = &status.manifest {
        notes.push(format!("manifest {}", manifest.short()));
    }
    if status.running.is_some() {
        notes.push(
            if status.running == status.committed {
                "committed"
            } else {
                "not committed"
            }
            .to_owned(),
        );
    }
    if !notes.is_empty() {
        value.push_str(&format!(" ({})", notes.join(", ")));
    }
    value
}

fn status_cell(status: Status, good: bool) -> Cell {
    let tone = match status {
        _ if good => Tone::Good,
        Status::Recovering | Status::Stopped | Status::None => Tone::Bad,
        Status::Installed
        | Status::Mounted
        | Status::Blocked
        | Status::Starting
        | Status::Started
        | Status::Ready
        | Status::Stopping => Tone::Busy,
    };
    toned(tone, status)
}

/// `coxctl groups`.
pub(crate) fn groups(groups: &[GroupStatus], look: &Look) -> String {
    if groups.is_empty() {
        return "no groups\n".to_owned();
    }
    let mut table = Table::new(&[
        long("GROUP"),
        text("STATUS"),
        text("GOAL"),
        number("CONTAINERS"),
    ]);
    for group in groups {
        table.row([
            cell(&group.name),
            status_cell(group.status, group.status == Status::Ready),
            cell(group.goal),
            cell(group.containers),
        ]);
    }
    table.render(look)
}

/// `coxctl ps`.
pub(crate) fn containers(containers: &[ContainerStatus], look: &Look) -> String {
    if containers.is_empty() {
        return "no containers\n".to_owned();
    }
    let mut table = Table::new(&[
        long("CONTAINER"),
        long("GROUP"),
        text("STATUS"),
        text("GOAL"),
        number("PID"),
        number("UPTIME"),
        number("RESTARTS"),
        long("REASON"),
    ]);
    for container in containers {
        let mut reasons = Vec::new();
        if !container.reason.is_empty() {
            reasons.push(container.reason.clone());
        } else if container.user_stopped {
            reasons.push("stopped by a person".to_owned());
        }
        if let Some(problem) = &container.health_problem {
            reasons.push(format!("health: {problem}"));
        }
        table.row([
            cell(&container.name),
            cell(&container.group),
            status_cell(container.status, container.good),
            cell(container.goal),
            maybe(container.pid),
            maybe(
                container
                    .uptime_s
                    .filter(|_| container.pid.is_some())
                    .map(units::seconds),
            ),
            cell(container.restarts),
            cell(reasons.join("; ")),
        ]);
    }
    table.render(look)
}

/// `coxctl steps`.
pub(crate) fn steps(steps: &[Step], status: Option<&DeviceStatus>, look: &Look) -> String {
    let mut table = Table::new(&[
        long("REVISION"),
        text("IS"),
        text("STATUS"),
        text("INSTALLED"),
        long("MESSAGE"),
        long("COMMIT MESSAGE"),
    ]);
    for step in steps {
        let (state, message) = match &step.progress {
            StepProgress::Known(progress) => {
                (state_cell(progress.status), progress.message.as_str())
            }
            StepProgress::None {} => (cell("-"), ""),
        };
        table.row([
            cell(&step.name),
            cell(status.map_or_else(String::new, |status| part(status, &step.name))),
            state,
            cell(&step.date),
            cell(message),
            cell(&step.commitmsg),
        ]);
    }
    if table.is_empty() {
        return "no revisions\n".to_owned();
    }
    table.render(look)
}

/// What a revision is to the device: `running, committed`.
fn part(status: &DeviceStatus, revision: &RevisionId) -> String {
    let parts = [
        ("running", status.running.as_ref()),
        ("committed", status.committed.as_ref()),
        ("previous", status.previous.as_ref()),
        ("trial", status.trial.as_ref().map(|trial| &trial.revision)),
    ];
    let words: Vec<&str> = parts
        .into_iter()
        .filter(|(_, named)| *named == Some(revision))
        .map(|(word, _)| word)
        .collect();
    words.join(",")
}

fn state_tone(state: State) -> Tone {
    match state {
        State::Done | State::Updated => Tone::Good,
        State::Error | State::WontGo => Tone::Bad,
        State::InProgress | State::Testing | State::Downloading => Tone::Busy,
        State::New | State::Queued => Tone::Plain,
    }
}

fn state_cell(state: State) -> Cell {
    toned(state_tone(state), state)
}

/// `coxctl progress`, and each step of waiting.
pub(crate) fn progress(progress: &Progress, look: &Look) -> String {
    let mut line = format!(
        "{} {}",
        look.paint(
            state_tone(progress.status),
            &format!("{:<10}", progress.status.to_string())
        ),
        clean(&progress.message)
    );
    if progress.retries > 0 {
        line.push_str(&format!(" (try {})", u64::from(progress.retries) + 1));
    }
    line.push('\n');
    line
}

/// `coxctl config`.
pub(crate) fn config(entries: &[ConfigEntry], look: &Look) -> String {
    let mut table = Table::new(&[text("KEY"), long("VALUE"), text("FROM")]);
    for entry in entries {
        let tone = if entry.modified == "default" {
            Tone::Faint
        } else {
            Tone::Plain
        };
        table.row([
            cell(&entry.key),
            toned(tone, &entry.value),
            toned(tone, &entry.modified),
        ]);
    }
    table.render(look)
}

/// `coxctl meta … ls`.
pub(crate) fn metadata(map: &BTreeMap<String, serde_json::Value>, look: &Look) -> String {
    let mut table = Table::new(&[long("KEY"), long("VALUE")]);
    for (key, value) in map {
        table.row([cell(key), cell(metadata_value(value))]);
    }
    if table.is_empty() {
        return "no metadata\n".to_owned();
    }
    table.render(look)
}

/// A metadata value as it was set.
pub(crate) fn metadata_value(value: &serde_json::Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// One line of `coxctl events`.
pub(crate) fn event(event: &Event, look: &Look) -> String {
    let tone = match event.kind.as_str() {
        "rollback" | "notice" | "lost" => Tone::Bad,
        "commit" => Tone::Good,
        _ => Tone::Plain,
    };
    let about = [
        event.revision.as_ref().map(ToString::to_string),
        event.container.as_ref().map(ToString::to_string),
    ];
    let about: Vec<String> = about
        .into_iter()
        .flatten()
        .map(|name| clean(&name))
        .collect();
    format!(
        "{}  {}  {}{}{}\n",
        look.paint(Tone::Faint, &clean(&event.time)),
        look.paint(tone, &format!("{:<16}", clean(&event.kind))),
        about.join(" "),
        if about.is_empty() { "" } else { ": " },
        clean(&event.message),
    )
}

/// Deeper links of a chain are not indented further.
const WHY_DEPTH_MAX: u32 = 16;

/// `coxctl why`.
pub(crate) fn why(why: &Why, look: &Look) -> String {
    // The summary is a sentence that names its subject.
    let mut lines = format!("{}\n", look.paint(Tone::Strong, &clean(&why.summary)));
    let mut part = |title: &str, items: &[String]| {
        if items.is_empty() {
            return;
        }
        lines.push_str(&format!("\n{}\n", look.paint(Tone::Faint, title)));
        for item in items {
            lines.push_str(&format!("  {}\n", clean(item)));
        }
    };
    let mut links = why.chain.iter().peekable();
    let because: Vec<String> = why
        .because
        .iter()
        .map(|line| {
            // The chain is a part of these lines, in the same order; each of its links stands below what it is a cause of.
            let link = links.next_if(|link| link.text == *line);
            let depth = link.map_or(0, |link| link.depth.min(WHY_DEPTH_MAX));
            let indent = "  ".repeat(usize::try_from(depth).unwrap_or(0));
            format!("{indent}{line}")
        })
        .collect();
    part("Because", &because);
    part("Last lines of its log", &why.log);
    part("What to do", &why.remedy);
    if let Some(id) = why.failure {
        lines.push_str(&format!("\nThe whole record: coxctl failures {id}\n"));
    }
    lines
}

/// `coxctl failures`.
pub(crate) fn failures(failures: &[FailureSummary], look: &Look) -> String {
    let mut table = Table::new(&[number("ID"), text("TIME"), long("REVISION"), long("WHAT")]);
    for failure in failures {
        table.row([
            cell(failure.id),
            cell(&failure.time),
            cell(&failure.revision),
            cell(&failure.summary),
        ]);
    }
    if table.is_empty() {
        return "no failures\n".to_owned();
    }
    table.render(look)
}

/// `coxctl failures ID`.
pub(crate) fn failure(failure: &Failure, look: &Look) -> String {
    let mut lines = format!(
        "{}\n\n",
        look.paint(
            Tone::Strong,
            &format!(
                "Failure {} of {}: {}",
                failure.id,
                clean(failure.revision.as_str()),
                clean(&api::explain::failure_sentence(failure))
            )
        )
    );
    let mut fact = |name: &str, value: String| {
        lines.push_str(&look.paint(Tone::Faint, &format!("{name:<15}")));
        lines.push_str(&format!("{}\n", clean(&value)));
    };
    fact("Time", failure.time.to_string());
    fact("Progress", failure.message.clone());
    fact("Tries", failure.tries.to_string());
    fact("Rolled back to", name(failure.rolled_back_to.as_ref()));
    if let Some(manifest) = &failure.manifest {
        fact("Manifest", manifest.to_string());
    }
    let pressure = pressure(&failure.pressure);
    if !pressure.is_empty() {
        fact("Pressure", pressure);
    }
    if !failure.containers.is_empty() {
        let mut table = Table::new(&[
            long("CONTAINER"),
            text("STATUS"),
            text("GOAL"),
            number("RETRIES"),
            number("EXIT"),
        ]);
        for container in &failure.containers {
            table.row([
                cell(&container.name),
                cell(container.status),
                cell(container.goal),
                cell(container.retries),
                maybe(container.exit_code),
            ]);
        }
        lines.push_str(&format!("\n{}", table.render(look)));
    }
    if !failure.log.is_empty() {
        lines.push_str(&format!(
            "\n{}\n",
            look.paint(Tone::Faint, "Last lines of its log")
        ));
        for line in &failure.log {
            lines.push_str(&format!("  {}\n", clean(line)));
        }
    }
    lines
}

fn pressure(pressure: &Pressure) -> String {
    let percent = |name: &str, value: Option<f64>| value.map(|value| format!("{name} {value} %"));
    let size = |name: &str, value: Option<u64>| {
        value.map(|value| format!("{} of {name}", units::bytes(value)))
    };
    let parts = [
        percent("processor", pressure.cpu_some_avg10),
        percent("memory", pressure.memory_some_avg10),
        percent("disk", pressure.io_some_avg10),
        size("memory available", pressure.memory_available_bytes),
        size("storage free", pressure.storage_free_bytes),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
pub(crate) mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    /// A device with something of everything, and names that try to write to the terminal.
    pub(crate) fn device() -> DeviceStatus {
        serde_json::from_value(serde_json::json!({
            "version": "0.1.0", "time": "2026-11-21T10:20:30Z", "uptime_s": 273_600,
            "condition": "degraded", "running": "locals/two",
            "manifest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "committed": "locals/one", "previous": "0",
            "trial": {"revision": "locals/two", "phase": "observing", "tries_left": 2, "commit_in_s": 75},
            "groups": [
                {"name": "data", "goal": "MOUNTED", "status": "READY", "containers": 0},
                {"name": "app", "goal": "STARTED", "status": "RECOVERING", "containers": 3}],
            "containers": [
                {"name": "web", "group": "app", "status": "READY", "goal": "READY", "good": true,
                 "restart_policy": "container", "roles": [], "recovery": "always", "retries": 0,
                 "max_retries": 5, "stable": true, "user_stopped": false, "pid": 4711, "uptime_s": 3700,
                 "restarts": 0, "exit_code": null, "reason": "", "health_problem": null,
                 "fingerprint": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"},
                {"name": "sick\u{202e}", "group": "app", "status": "RECOVERING", "goal": "STARTED", "good": false,
                 "restart_policy": "container", "roles": ["mgmt"], "recovery": "on-failure", "retries": 3,
                 "max_retries": 5, "stable": false, "user_stopped": false, "pid": null, "uptime_s": 1,
                 "restarts": 3, "exit_code": 3, "reason": "retry in 5 s after exit code 3",
                 "health_problem": "HTTP 500 \u{1b}[2J",
                 "fingerprint": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"},
                {"name": "off", "group": "app", "status": "STOPPED", "goal": "STARTED", "good": true,
                 "restart_policy": "container", "roles": [], "recovery": "no", "retries": 0,
                 "max_retries": 0, "stable": false, "user_stopped": true, "pid": null, "uptime_s": null,
                 "restarts": 0, "exit_code": 0, "reason": "", "health_problem": null,
                 "fingerprint": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"}],
            "storage": {"total_bytes": 8_589_934_592u64, "free_bytes": 300_000_000},
            "last_failure": {"id": 7, "revision": "locals/three", "time": "2026-11-20T08:00:00Z",
                "summary": "container web ended with exit code 3 1 s after its start, and no retry was left"},
            "runtime_problem": null,
            "notices": ["object 9f86d081884c was corrupt and is in quarantine"]
        }))
        .expect("a valid message")
    }

    fn check(width: Option<usize>, text: impl Fn(&Look) -> String, expected: Expect) {
        let plain = text(&Look {
            width,
            colour: false,
        });
        expected.assert_eq(&plain);
        let coloured = text(&Look {
            width,
            colour: true,
        });
        let known = ["0", "1", "2", "31", "32", "33"].map(|code| format!("\u{1b}[{code}m"));
        let bare = known.iter().fold(coloured, |text, sequence| {
            text.replace(sequence.as_str(), "")
        });
        assert!(
            !bare.contains('\u{1b}'),
            "only our own sequences reach a terminal: {bare:?}"
        );
    }

    fn parsed<T: serde::de::DeserializeOwned>(text: &str) -> T {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn status_says_all() {
        check(
            None,
            |look| status(&device(), look),
            expect![[r#"
                Device  degraded  (Coxswain 0.1.0, device time 2026-11-21T10:20:30Z, up 3d04h)

                Running    locals/two (manifest 9f86d081884c, not committed)
                Committed  locals/one (`coxctl rollback` returns to it)
                Previous   0
                Trial      locals/two: observing, committed in 1m15s, 2 tries left
                Storage    286 MiB of 8.0 GiB free (3 %)
                Notice     object 9f86d081884c was corrupt and is in quarantine
                Failed     locals/three: container web ended with exit code 3 1 s after its start, and no retry was left (record 7, 2026-11-20T08:00:00Z)

                GROUP  STATUS      GOAL     CONTAINERS
                data   READY       MOUNTED           0
                app    RECOVERING  STARTED           3

                CONTAINER     GROUP  STATUS      GOAL      PID  UPTIME  RESTARTS  REASON
                web           app    READY       READY    4711   1h01m         0
                sick\u{202e}  app    RECOVERING  STARTED     -       -         3  retry in 5 s after exit code 3; health: HTTP 500 \u{1b}[2J
                off           app    STOPPED     STARTED     -       -         0  stopped by a person
            "#]],
        );
        check(
            Some(80),
            |look| status(&device(), look),
            expect![[r#"
                Device  degraded  (Coxswain 0.1.0, device time 2026-11-21T10:20:30Z, up 3d04h)

                Running    locals/two (manifest 9f86d081884c, not committed)
                Committed  locals/one (`coxctl rollback` returns to it)
                Previous   0
                Trial      locals/two: observing, committed in 1m15s, 2 tries left
                Storage    286 MiB of 8.0 GiB free (3 %)
                Notice     object 9f86d081884c was corrupt and is in quarantine
                Failed     locals/three: container web ended with exit code 3 1 s after its start, and no retry was left (record 7, 2026-11-20T08:00:00Z)

                GROUP  STATUS      GOAL     CONTAINERS
                data   READY       MOUNTED           0
                app    RECOVERING  STARTED           3

                CONTAINER     GROUP  STATUS      GOAL      PID  UPTIME  RESTARTS  REASON
                web           app    READY       READY    4711   1h01m         0
                sick\u{202e}  app    RECOVERING  STARTED     -       -         3  retry in 5 s …
                off           app    STOPPED     STARTED     -       -         0  stopped by a …
            "#]],
        );
    }

    #[test]
    fn status_of_a_device_that_has_nothing() {
        let mut nothing = device();
        nothing.condition = Condition::Starting;
        (nothing.running, nothing.committed, nothing.previous) = (None, None, None);
        (nothing.trial, nothing.storage, nothing.last_failure) = (None, None, None);
        nothing.manifest = None;
        nothing.runtime_problem = Some("containerd does not answer\non its socket".to_owned());
        (nothing.groups, nothing.containers, nothing.notices) = (vec![], vec![], vec![]);
        check(
            Some(80),
            |look| status(&nothing, look),
            expect![[r#"
            Device  starting  (Coxswain 0.1.0, device time 2026-11-21T10:20:30Z, up 3d04h)

            Running    none
            Run time   containerd does not answer\u{a}on its socket

            no groups

            no containers
        "#]],
        );
    }

    #[test]
    fn lists() {
        let list: Vec<Step> = parsed(
            r#"[{"name":"0", "date":"2026-01-01T00:00:00Z", "commitmsg":"", "progress":{"status":"DONE",
                "status-msg":"Factory revision","progress":100,"retries":0}},
                {"name":"locals/two", "date":"2026-11-21T09:46:46Z", "commitmsg":"faster \u001bweb",
                 "progress":{"status":"TESTING","status-msg":"Awaiting to see if update is stable","progress":75,"retries":0}},
                {"name":"locals/bare", "date":"2026-11-21T09:46:46Z", "commitmsg":"", "progress":{}}]"#,
        );
        check(
            Some(100),
            |look| steps(&list, Some(&device()), look),
            expect![[r#"
                REVISION     IS             STATUS   INSTALLED             MESSAGE                  COMMIT MESSAGE
                0            previous       DONE     2026-01-01T00:00:00Z  Factory revision
                locals/two   running,trial  TESTING  2026-11-21T09:46:46Z  Awaiting to see if upd…  faster \u{1b}web
                locals/bare                 -        2026-11-21T09:46:46Z
            "#]],
        );
        let list: Vec<ConfigEntry> = parsed(
            r#"[{"key":"PV_UPDATER_COMMIT_DELAY","value":"25","modified":"default"},
                {"key":"PH_CREDS_SECRET","value":"***","modified":"env"}]"#,
        );
        check(
            None,
            |look| config(&list, look),
            expect![[r#"
            KEY                      VALUE  FROM
            PV_UPDATER_COMMIT_DELAY  25     default
            PH_CREDS_SECRET          ***    env
        "#]],
        );
        let map = parsed(r#"{"b":"two\nlines","a":{"x":[1,null]}}"#);
        check(
            None,
            |look| metadata(&map, look),
            expect![[r#"
            KEY  VALUE
            a    {"x":[1,null]}
            b    two\u{a}lines
        "#]],
        );
    }

    #[test]
    fn explanations() {
        let answer: Why = parsed(
            r#"{"subject":"locals/three","summary":"locals/three was rolled back","because":["container web ended",
                "exit code 3"],"chain":[{"depth":0,"about":"web","text":"container web ended"},{"depth":1,"about":"web","text":"exit code 3"}],"remedy":["correct it"],"failure":7,"log":["panic \u001b[31m"]}"#,
        );
        check(
            Some(80),
            |look| why(&answer, look),
            expect![[r#"
                locals/three was rolled back

                Because
                  container web ended
                    exit code 3

                Last lines of its log
                  panic \u{1b}[31m

                What to do
                  correct it

                The whole record: coxctl failures 7
            "#]],
        );
        let record: Failure = parsed(
            r#"{"version":1,"id":7,"revision":"locals/three","manifest":null,"rolled_back_to":"locals/two",
                "container":"web","cause":{"kind":"exited","code":137,"out_of_memory":true,"uptime_s":2},
                "message":"A container could not be started","time":1795000000000,"tries":1,
                "containers":[{"name":"web","status":"STOPPED","goal":"READY","retries":5,"exit_code":137}],
                "log":["last words"],"pressure":{"cpu_some_avg10":1.5,"memory_some_avg10":80.0,
                "io_some_avg10":null,"memory_available_bytes":1000000,"storage_free_bytes":null}}"#,
        );
        check(
            Some(80),
            |look| failure(&record, look),
            expect![[r#"
                Failure 7 of locals/three: container web was killed because it used more memory than it may, 2 s after its start, and no retry was left

                Time           2026-11-18T11:06:40Z
                Progress       A container could not be started
                Tries          1
                Rolled back to locals/two
                Pressure       processor 1.5 %, memory 80 %, 976 KiB of memory available

                CONTAINER  STATUS   GOAL   RETRIES  EXIT
                web        STOPPED  READY        5   137

                Last lines of its log
                  last words
            "#]],
        );
        let list = vec![api::explain::summary(&record)];
        check(
            Some(60),
            |look| failures(&list, look),
            expect![[r#"
            ID  TIME                  REVISION      WHAT
             7  2026-11-18T11:06:40Z  locals/three  container web was k…
        "#]],
        );
    }

    #[test]
    fn happenings() {
        let happened: Event = parsed(
            r#"{"id":"1","time":"2026-11-21T10:20:30Z","kind":"rollback","revision":"locals/three",
                "container":"web","message":"gives up\u0007"}"#,
        );
        check(
            None,
            |look| event(&happened, look),
            expect![[r#"
            2026-11-21T10:20:30Z  rollback          locals/three web: gives up\u{7}
        "#]],
        );
        let try_two = Progress::new(State::Testing, "Awaiting", 1);
        check(
            None,
            |look| progress(&try_two, look),
            expect![[r#"
            TESTING    Awaiting (try 2)
        "#]],
        );
    }
}
