//! A plan in the words of the api: from what the loop and the store know to what is answered. Pure.

use std::time::Duration;

use api::messages::plan::{
    Basis, Deed, Expected, Fate, MissingObject, Plan, PlannedContainer, PlannedObjects,
    PlannedSpace, PlannedStep, Reason, Rollback, Signatures, Way,
};
use device::plan::{Measured, Planned, update};
use model::manifest::Changes;

/// Renders a plan.
pub fn render(planned: Planned, measured: Measured) -> Plan {
    let rehearsal = planned.rehearsal;
    let containers: Vec<_> = rehearsal.containers.into_iter().map(container).collect();
    let needed = u64::try_from(measured.objects.len()).unwrap_or(u64::MAX);
    let there = measured.objects.iter().filter_map(|object| object.bytes);
    let there_bytes = there.fold(0, u64::saturating_add);
    let missing = measured
        .objects
        .into_iter()
        .filter(|object| object.bytes.is_none())
        .map(|object| MissingObject {
            object: object.object,
            key: object.key,
            bytes: None,
            uploaded: object.uploaded,
        });
    let installed = planned.revision.is_some();
    let collectable = measured.collectable;
    let mut plan = Plan {
        manifest: planned.manifest,
        running: planned.running,
        way: match rehearsal.way {
            update::Way::Nothing => Way::Nothing,
            update::Way::InPlace => Way::InPlace,
            update::Way::Reboot => Way::Reboot,
        },
        refused: rehearsal.failed_before.map(|failure| {
            format!(
                "the same manifest failed before (failure {failure}); ask for it again explicitly to try once more"
            )
        }),
        boot_changes: rehearsal.boot_changes,
        downtime: longest(&containers),
        containers,
        steps: rehearsal.acts.into_iter().map(step).collect(),
        goals_after: rehearsal.goals_after.map(expected),
        committed_after_ms: rehearsal.committed_after.map(millis),
        objects: PlannedObjects {
            needed,
            there_bytes,
            missing: missing.collect(),
            fetch_bytes: None,
        },
        space: PlannedSpace {
            manifest_bytes: if installed { 0 } else { planned.manifest_bytes },
            needed_bytes: None,
            available_bytes: measured.space.available,
            enough: None,
            removed: planned.removed,
            freed_objects: collectable.now.objects,
            freed_bytes: collectable.now.bytes.saturating_add(measured.left),
            freed_later_bytes: collectable.leased.bytes,
        },
        rollback: Rollback {
            during_trial: rehearsal.trial_base,
            after_commit: rehearsal.marker.previous,
        },
        signatures: Signatures::NotChecked,
        revision: planned.revision,
    };
    plan.add_up();
    plan
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn expected(lasts: update::Lasts) -> Expected {
    Expected {
        ms: millis(lasts.time),
        basis: match lasts.basis {
            update::Basis::Observed => Basis::Observed,
            update::Basis::Configured => Basis::Configured,
        },
    }
}

fn longest(containers: &[PlannedContainer]) -> Option<Expected> {
    let times = containers.iter().filter_map(|container| container.downtime);
    times.max_by_key(|expected| expected.ms)
}

fn step(act: update::Act) -> PlannedStep {
    let (what, container) = match act.deed {
        update::Deed::Stop(name) => (Deed::Stop, Some(name)),
        update::Deed::Start(name) => (Deed::Start, Some(name)),
        update::Deed::Mount(name) => (Deed::Mount, Some(name)),
        update::Deed::Reboot => (Deed::Reboot, None),
    };
    PlannedStep {
        after_ms: millis(act.at),
        what,
        container,
    }
}

fn container(fated: update::Fated) -> PlannedContainer {
    let mut status = None;
    let (reason, changes) = match fated.reason {
        update::Reason::New => (Reason::New, Vec::new()),
        update::Reason::Removed => (Reason::Removed, Vec::new()),
        update::Reason::Changed(changes) => (Reason::Changed, in_words(changes)),
        update::Reason::GoalMoved => (Reason::GoalMoved, Vec::new()),
        update::Reason::Unchanged => (Reason::Unchanged, Vec::new()),
        update::Reason::NotRunning(now) => {
            status = Some(now);
            (Reason::NotRunning, Vec::new())
        }
        update::Reason::MachineRestarts => (Reason::MachineRestarts, Vec::new()),
        update::Reason::StoppedByPerson => (Reason::StoppedByPerson, Vec::new()),
    };
    PlannedContainer {
        name: fated.name,
        group: fated.group,
        fate: match fated.fate {
            update::Fate::Kept => Fate::Kept,
            update::Fate::Restarted => Fate::Restarted,
            update::Fate::Started => Fate::Started,
            update::Fate::Stopped => Fate::Stopped,
            update::Fate::Down => Fate::Down,
        },
        reason,
        changes,
        settings: fated.settings.iter().map(ToString::to_string).collect(),
        status,
        depends_on: fated.depends_on,
        downtime: fated.downtime.map(expected),
    }
}

fn in_words(changes: Changes) -> Vec<String> {
    let mut words = Vec::new();
    if changes.root {
        words.push("root file system".to_owned());
    }
    if !changes.fields.is_empty() {
        words.push(format!("run.json: {}", changes.fields.join(", ")));
    }
    words.extend(changes.files);
    if changes.shared {
        words.push("device.json: a pool or disk that it uses".to_owned());
    }
    words
}
