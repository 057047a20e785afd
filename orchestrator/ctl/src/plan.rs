//! `coxctl plan`: what running a revision would do, as a diff that a person reads.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use api::messages::plan::{
    Basis, Deed, Expected, Fate, MissingObject, Plan, PlannedContainer, Reason, Signatures, Way,
};
use client::Bundle;
use model::{ObjectId, RevisionId};

use crate::commands::Context;
use crate::failure::{Exit, Failure};
use crate::install::{blocking, bundle_failure};
use crate::terminal::{Look, Tone, clean};
use crate::units;

/// Missing objects that are named; the others are counted.
const MISSING_SHOWN: usize = 10;

/// What a file or folder holds.
struct Source {
    manifest: Vec<u8>,
    sizes: BTreeMap<ObjectId, u64>,
}

/// `coxctl plan`.
pub(crate) async fn plan(context: &Context, what: PathBuf) -> Result<(), Failure> {
    let plan = if what.exists() {
        let source = blocking(move || open(&what)).await??;
        let mut plan = context.client.plan_manifest(source.manifest.into()).await?;
        plan.know_sizes(&source.sizes);
        plan
    } else {
        let name = what.to_string_lossy();
        if name == "current" {
            context.client.plan(None).await?
        } else {
            let revision: RevisionId = name.parse().map_err(|error| {
                Failure::new(
                    Exit::Usage,
                    format!("{name} is neither a file nor a revision: {error}"),
                )
                .remedy("see `coxctl steps`, or give a bundle, a folder or a manifest")
            })?;
            context.client.plan(Some(&revision)).await?
        }
    };
    context.show(&plan, |plan| render(plan, &context.look))
}

fn open(path: &Path) -> Result<Source, Failure> {
    if path.is_file() {
        let unreadable = |error| Failure::file("read", path, &error);
        let mut file = std::fs::File::open(path).map_err(unreadable)?;
        let mut bytes = [0];
        let read = file.read(&mut bytes).map_err(unreadable)?;
        if bytes.get(..read) == Some(b"{") {
            let mut manifest = bytes.to_vec();
            let max = model::limits::MANIFEST_BYTES_MAX as u64;
            file.take(max)
                .read_to_end(&mut manifest)
                .map_err(unreadable)?;
            let sizes = BTreeMap::new();
            return Ok(Source { manifest, sizes });
        }
    }
    let bundle = Bundle::open(path).map_err(bundle_failure)?;
    Ok(Source {
        sizes: bundle.sizes().map_err(bundle_failure)?,
        manifest: bundle.manifest().bytes().to_vec(),
    })
}

fn name(revision: Option<&RevisionId>) -> String {
    revision.map_or_else(|| "nothing".to_owned(), ToString::to_string)
}

/// The plan for a person.
pub(crate) fn render(plan: &Plan, look: &Look) -> String {
    let what = match &plan.revision {
        Some(revision) => revision.to_string(),
        None => "a manifest that is not installed".to_owned(),
    };
    let title = format!("Plan of {what} (manifest {})", plan.manifest.short());
    let mut text = format!(
        "{}, {} runs now\n",
        look.paint(Tone::Strong, &clean(&title)),
        clean(&name(plan.running.as_ref()))
    );
    text.push_str(&way(plan, look));
    if let Some(refused) = &plan.refused {
        let line = format!("Refused as things are: {}", clean(refused));
        text.push_str(&format!("{}\n", look.paint(Tone::Bad, &line)));
    }
    text.push('\n');
    let width = plan.containers.iter().map(|it| it.name.as_str().len());
    let width = width.max().unwrap_or(0);
    for container in &plan.containers {
        text.push_str(&line(container, width, look));
    }
    if !plan.containers.is_empty() {
        text.push('\n');
    }
    let mut fact = |name: &str, tone: Tone, value: &str| {
        text.push_str(&look.paint(Tone::Faint, &format!("{name:<11}")));
        text.push_str(&format!("{}\n", look.paint(tone, &clean(value))));
    };
    let (tone, value) = fetch(plan);
    fact("Fetch", tone, &value);
    let (tone, value) = space(plan);
    fact("Space", tone, &value);
    if let Some(value) = freed(plan) {
        fact("Frees", Tone::Plain, &value);
    }
    if plan.way != Way::Nothing {
        fact("Time", Tone::Plain, &time(plan));
        fact("Rollback", Tone::Plain, &rollback(plan));
    }
    let signatures = match plan.signatures {
        Signatures::NotChecked => "not checked: this version verifies none",
    };
    fact("Signatures", Tone::Plain, signatures);
    text.push_str(&missing(&plan.objects.missing, look));
    text.push_str(&steps(plan, look));
    text
}

fn way(plan: &Plan, look: &Look) -> String {
    let changed = plan.boot_changes.join(", ");
    let (tone, line) = match plan.way {
        Way::Nothing => (Tone::Good, "It runs already: nothing is done".to_owned()),
        Way::InPlace if changed.is_empty() => (
            Tone::Good,
            "In place: the machine goes on running".to_owned(),
        ),
        Way::InPlace => (
            Tone::Good,
            format!(
                "In place: no boot loader follows the revisions, so {changed} changes nothing here"
            ),
        ),
        Way::Reboot => (
            Tone::Bad,
            format!("The machine restarts, because of {changed}"),
        ),
    };
    format!("{}\n", look.paint(tone, &clean(&line)))
}

fn line(container: &PlannedContainer, width: usize, look: &Look) -> String {
    let (mark, tone) = match container.fate {
        Fate::Kept => ('=', Tone::Faint),
        Fate::Restarted => ('~', Tone::Busy),
        Fate::Started => ('+', Tone::Good),
        Fate::Stopped => ('-', Tone::Bad),
        Fate::Down => ('.', Tone::Faint),
    };
    let mut why = match container.reason {
        Reason::New => "new".to_owned(),
        Reason::Removed => "removed".to_owned(),
        Reason::Changed => format!("changed: {}", container.changes.join("; ")),
        Reason::GoalMoved => "its goal moves to or from MOUNTED".to_owned(),
        Reason::Unchanged => "unchanged, goes on".to_owned(),
        Reason::NotRunning => match container.status {
            Some(status) => format!("unchanged, is {status} now"),
            None => "unchanged, does not run now".to_owned(),
        },
        Reason::MachineRestarts => "unchanged, restarts with the machine".to_owned(),
        Reason::StoppedByPerson => "unchanged, stays stopped: a person stopped it".to_owned(),
    };
    if !container.depends_on.is_empty() && matches!(container.fate, Fate::Started | Fate::Restarted)
    {
        let names: Vec<_> = container
            .depends_on
            .iter()
            .map(ToString::to_string)
            .collect();
        why.push_str(&format!("; depends on {}", names.join(", ")));
    }
    if !container.settings.is_empty() {
        why.push_str(&format!(
            "; applied as it runs: {}",
            container.settings.join(", ")
        ));
    }
    if let Some(downtime) = container.downtime {
        why.push_str(&format!("; away {}", expected(downtime)));
    }
    let name = format!("{mark} {:<width$}", clean(container.name.as_str()));
    format!("  {}  {}\n", look.paint(tone, &name), clean(&why))
}

fn seconds(ms: u64) -> String {
    if ms < 60_000 {
        format!("{}.{}s", ms / 1000, ms % 1000 / 100)
    } else {
        units::seconds(ms / 1000)
    }
}

fn expected(expected: Expected) -> String {
    match expected.basis {
        Basis::Observed => format!("about {} (seen before)", seconds(expected.ms)),
        Basis::Configured => format!("up to {} (by configured time-outs)", seconds(expected.ms)),
    }
}

fn fetch(plan: &Plan) -> (Tone, String) {
    let objects = &plan.objects;
    let all = format!("of {}", units::count(usize_of(objects.needed), "object"));
    let count = objects.missing.len();
    match (count, objects.fetch_bytes) {
        (0, _) => (
            Tone::Good,
            format!("nothing: all {} are there", all.trim_start_matches("of ")),
        ),
        (_, Some(bytes)) => (
            Tone::Busy,
            format!("{count} {all}, {}", units::bytes(bytes)),
        ),
        (_, None) => {
            let what = format!("{count} {all}; the manifest does not tell their sizes");
            (Tone::Busy, what)
        }
    }
}

fn usize_of(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn space(plan: &Plan) -> (Tone, String) {
    let available = units::bytes(plan.space.available_bytes);
    match (plan.space.needed_bytes, plan.space.enough) {
        (Some(needed), Some(false)) => {
            let needed = units::bytes(needed);
            (
                Tone::Bad,
                format!("{needed} needed, only {available} available: run `coxctl gc`"),
            )
        }
        (Some(needed), _) => {
            let needed = units::bytes(needed);
            (
                Tone::Plain,
                format!("{needed} needed, {available} available"),
            )
        }
        (None, _) => (Tone::Plain, format!("{available} available")),
    }
}

fn freed(plan: &Plan) -> Option<String> {
    let space = &plan.space;
    if space.freed_bytes == 0 && space.freed_later_bytes == 0 && space.removed.is_empty() {
        return None;
    }
    let objects = units::count(usize_of(space.freed_objects), "object");
    let mut value = format!(
        "{} when it is committed ({objects}",
        units::bytes(space.freed_bytes)
    );
    if !space.removed.is_empty() {
        let names: Vec<_> = space.removed.iter().map(ToString::to_string).collect();
        value.push_str(&format!("; removes {}", names.join(", ")));
    }
    value.push(')');
    if space.freed_later_bytes > 0 {
        let later = units::bytes(space.freed_later_bytes);
        value.push_str(&format!(", {later} later, when no lease keeps it"));
    }
    Some(value)
}

fn time(plan: &Plan) -> String {
    let goals = plan.goals_after.map_or_else(
        || "when all goals are reached cannot be told".to_owned(),
        |goals| format!("all goals reached after {}", expected(goals)),
    );
    match plan.committed_after_ms {
        Some(ms) => format!("{goals}, committed after {}", seconds(ms)),
        None => format!("{goals}; not committed before the next start"),
    }
}

fn rollback(plan: &Plan) -> String {
    format!(
        "to {} while it is tried, to {} once it is committed",
        name(plan.rollback.during_trial.as_ref()),
        name(plan.rollback.after_commit.as_ref())
    )
}

fn missing(missing: &[MissingObject], look: &Look) -> String {
    if missing.is_empty() {
        return String::new();
    }
    let mut text = format!("\n{}\n", look.paint(Tone::Faint, "Not there yet"));
    for object in missing.iter().take(MISSING_SHOWN) {
        let mut line = format!("{}  {}", object.object.short(), object.key);
        if let Some(bytes) = object.bytes {
            line.push_str(&format!(", {}", units::bytes(bytes)));
        }
        if object.uploaded > 0 {
            line.push_str(&format!(", {} of it came", units::bytes(object.uploaded)));
        }
        text.push_str(&format!("  {}\n", clean(&line)));
    }
    if let Some(more) = missing
        .len()
        .checked_sub(MISSING_SHOWN)
        .filter(|more| *more > 0)
    {
        text.push_str(&format!("  and {more} more\n"));
    }
    text
}

fn steps(plan: &Plan, look: &Look) -> String {
    if plan.steps.is_empty() {
        return String::new();
    }
    let mut text = format!("\n{}\n", look.paint(Tone::Faint, "Steps"));
    for step in &plan.steps {
        let what = match step.what {
            Deed::Stop => "stop",
            Deed::Start => "start",
            Deed::Mount => "mount",
            Deed::Reboot => "restart the machine",
        };
        let name = step.container.as_ref();
        let name = name.map(|name| format!(" {name}")).unwrap_or_default();
        let line = format!("{:>7}  {what}{name}", seconds(step.after_ms));
        text.push_str(&format!("  {}\n", clean(&line)));
    }
    text
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn plan(change: impl FnOnce(&mut Plan)) -> Plan {
        let text = r#"{"revision":"locals/two","manifest":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "running":"locals/one","way":"in-place","refused":null,"boot_changes":[],"containers":[
            {"name":"db","group":"data","fate":"kept","reason":"unchanged","changes":[],"settings":["health"],
             "status":null,"depends_on":[],"downtime":null},
            {"name":"web","group":"app","fate":"restarted","reason":"changed","changes":["root file system","run.json: env"],
             "settings":[],"status":null,"depends_on":["db"],"downtime":{"ms":412,"basis":"observed"}},
            {"name":"logger","group":"app","fate":"started","reason":"new","changes":[],"settings":[],
             "status":null,"depends_on":["web"],"downtime":null},
            {"name":"old","group":"app","fate":"stopped","reason":"removed","changes":[],"settings":[],
             "status":null,"depends_on":[],"downtime":null}],
            "steps":[{"after_ms":0,"what":"stop","container":"old"},{"after_ms":300,"what":"stop","container":"web"},
             {"after_ms":412,"what":"start","container":"web"}],
            "goals_after":{"ms":712,"basis":"configured"},"committed_after_ms":75712,"downtime":{"ms":412,"basis":"observed"},
            "objects":{"needed":5,"there_bytes":1000,"missing":[],"fetch_bytes":0},
            "space":{"manifest_bytes":0,"needed_bytes":0,"available_bytes":3000000000,"enough":true,"removed":["locals/zero"],
             "freed_objects":2,"freed_bytes":800000,"freed_later_bytes":100},
            "rollback":{"during_trial":"locals/one","after_commit":"locals/one"},"signatures":"not-checked"}"#;
        let mut plan = serde_json::from_str(text).expect("a plan");
        change(&mut plan);
        plan
    }

    fn check(plan: &Plan, expected: &Expect) {
        let look = Look {
            width: Some(80),
            colour: false,
        };
        let text = render(plan, &look);
        let coloured = render(
            plan,
            &Look {
                colour: true,
                ..look
            },
        );
        assert!(!text.contains('\u{1b}') && coloured.contains('\u{1b}'));
        expected.assert_eq(&text);
    }

    #[test]
    fn in_place() {
        check(
            &plan(|_| {}),
            &expect![[r#"
            Plan of locals/two (manifest e3b0c44298fc), locals/one runs now
            In place: the machine goes on running

              = db      unchanged, goes on; applied as it runs: health
              ~ web     changed: root file system; run.json: env; depends on db; away about 0.4s (seen before)
              + logger  new; depends on web
              - old     removed

            Fetch      nothing: all 5 objects are there
            Space      0 B needed, 2.7 GiB available
            Frees      781 KiB when it is committed (2 objects; removes locals/zero), 100 B later, when no lease keeps it
            Time       all goals reached after up to 0.7s (by configured time-outs), committed after 1m15s
            Rollback   to locals/one while it is tried, to locals/one once it is committed
            Signatures not checked: this version verifies none

            Steps
                 0.0s  stop old
                 0.3s  stop web
                 0.4s  start web
        "#]],
        );
    }

    #[test]
    fn of_what_is_not_installed_and_does_not_fit() {
        let object = ObjectId::of(b"");
        check(
            &plan(|plan| {
                plan.revision = None;
                plan.way = Way::Reboot;
                plan.boot_changes = vec!["bsp/pv.fit".to_owned()];
                plan.refused = Some("the same manifest failed before (failure 3)".to_owned());
                plan.containers.truncate(1);
                plan.containers[0].fate = Fate::Restarted;
                plan.containers[0].reason = Reason::MachineRestarts;
                plan.containers[0].settings.clear();
                plan.containers[0].downtime = Some(Expected {
                    ms: 61_000,
                    basis: Basis::Configured,
                });
                plan.steps = vec![];
                plan.objects.missing = vec![MissingObject {
                    object,
                    key: "db/root\u{1b}[2J.squashfs".to_owned(),
                    bytes: Some(5_000_000_000),
                    uploaded: 1024,
                }];
                plan.add_up();
                plan.space.removed = vec![];
                (plan.space.freed_bytes, plan.space.freed_later_bytes) = (0, 0);
                plan.committed_after_ms = None;
            }),
            &expect![[r#"
                Plan of a manifest that is not installed (manifest e3b0c44298fc), locals/one runs now
                The machine restarts, because of bsp/pv.fit
                Refused as things are: the same manifest failed before (failure 3)

                  ~ db  unchanged, restarts with the machine; away up to 1m01s (by configured time-outs)

                Fetch      1 of 5 objects, 4.6 GiB
                Space      4.6 GiB needed, only 2.7 GiB available: run `coxctl gc`
                Time       all goals reached after up to 0.7s (by configured time-outs); not committed before the next start
                Rollback   to locals/one while it is tried, to locals/one once it is committed
                Signatures not checked: this version verifies none

                Not there yet
                  e3b0c44298fc  db/root\u{1b}[2J.squashfs, 4.6 GiB, 1.0 KiB of it came
            "#]],
        );
        check(
            &plan(|plan| {
                plan.way = Way::Nothing;
                plan.containers.clear();
                plan.steps.clear();
                plan.objects.missing = vec![MissingObject {
                    object,
                    key: "db/root.squashfs".to_owned(),
                    bytes: None,
                    uploaded: 0,
                }];
                plan.add_up();
            }),
            &expect![[r#"
                Plan of locals/two (manifest e3b0c44298fc), locals/one runs now
                It runs already: nothing is done

                Fetch      1 of 5 objects; the manifest does not tell their sizes
                Space      2.7 GiB available
                Frees      781 KiB when it is committed (2 objects; removes locals/zero), 100 B later, when no lease keeps it
                Signatures not checked: this version verifies none

                Not there yet
                  e3b0c44298fc  db/root.squashfs
            "#]],
        );
    }
}
