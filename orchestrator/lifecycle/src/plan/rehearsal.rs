//! An update played through from the request to the commit, without doing any of it.
//!
//! Taken for granted: every object is there and whole, every write succeeds, every container starts, reaches its goal and holds
//! it. How long things take is what was seen last; see [`Basis`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::container::{Container, Goal};
use model::manifest::Changes;
use model::marker::Marker;
use model::progress::{Progress, State, message};
use model::{ContainerName, Instant, Manifest, RevisionId};

use super::fate::{Basis, Fate, Fated, Lasts, Reason};
use super::stage::{Act, Deed, Stage};
use crate::boot::{self, Decision, Facts, Known, Start, Verdict};
use crate::containers::{Containers, Mode, Summary};
use crate::runtime::Instance;
use crate::update::{Event, Phase, Refused, Update, Wanted};

/// What a rehearsal begins with.
#[derive(Debug)]
pub struct Scene<'a> {
    /// Now.
    pub now: Instant,
    /// The containers as they are.
    pub containers: &'a Containers,
    /// The life cycle as it is.
    pub update: &'a Update,
    /// Manifest of the running revision.
    pub running: Option<&'a Manifest>,
    /// Manifest of the revision that may run next.
    pub next: &'a Manifest,
    /// The request to run it.
    pub wanted: Wanted,
    /// Time from the start of the kernel to that of the orchestrator, as seen at this boot.
    pub boot_takes: Option<Duration>,
    /// Containers that a person stopped and that stay so over a restart.
    pub stopped: &'a [ContainerName],
}

/// How an update is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Not at all: the revision runs already.
    Nothing,
    /// Containers are changed while the machine runs.
    InPlace,
    /// The machine restarts.
    Reboot,
}

/// What an update will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rehearsal {
    /// How it is applied.
    pub way: Way,
    /// The same manifest failed before (number of the record): a run is refused unless somebody insists.
    pub failed_before: Option<u64>,
    /// Keys below `bsp/` that differ from the running revision's.
    pub boot_changes: Vec<String>,
    /// What becomes of each container: those of the next revision in text order, then those that go.
    pub containers: Vec<Fated>,
    /// What is done, in order.
    pub acts: Vec<Act>,
    /// When every goal is reached, from the request on; `None` when that does not come by itself.
    pub goals_after: Option<Lasts>,
    /// When the orchestrator starts again, from the request on, if the machine restarts.
    pub starts_again_after: Option<Duration>,
    /// When it is committed, from the request on; `None` when it waits for a start or a person.
    pub committed_after: Option<Duration>,
    /// What a rollback returns to while it is being tried.
    pub trial_base: Option<RevisionId>,
    /// The marker at the end.
    pub marker: Marker,
    /// Whether room is made at the commit: revisions that are not kept go, and with them their objects. Those whose containers or
    /// volumes are in use then.
    pub makes_room: Option<BTreeSet<RevisionId>>,
}

/// Plays an update through.
///
/// # Errors
/// A run would be refused now, for another reason than an earlier failure.
pub fn rehearse(scene: &Scene<'_>) -> Result<Rehearsal, Refused> {
    let revision = &scene.wanted.revision;
    let mut stage = Stage::new(
        scene.now,
        scene.containers,
        scene.update,
        scene.running,
        (revision, scene.next),
    );
    stage.tell(Event::Run(scene.wanted.clone()));
    let failed_before = match stage.refused.take() {
        None => None,
        Some(Refused::FailedBefore { failure, .. }) => {
            let again = true;
            let wanted = scene.wanted.clone();
            stage.tell(Event::Run(Wanted { again, ..wanted }));
            Some(failure)
        }
        Some(
            refused @ (Refused::UpdateInProgress(_)
            | Refused::ShuttingDown
            | Refused::NoTrial
            | Refused::NotDurable(_)),
        ) => return Err(refused),
    };
    let way = match stage.update.phase() {
        Phase::Verifying { wanted, .. } if wanted.by_reboot => Way::Reboot,
        Phase::Verifying { .. } => Way::InPlace,
        Phase::Settled
        | Phase::Starting(_)
        | Phase::Observing { .. }
        | Phase::RollingBack { .. }
        | Phase::ShuttingDown { .. }
        | Phase::Clearing { .. } => Way::Nothing,
    };
    if way != Way::Nothing {
        let (revision, bad) = (revision.clone(), Vec::new());
        stage.tell(Event::Verified { revision, bad });
        if way == Way::Reboot {
            stage.play(|stage| stage.ended.is_some());
            boot(&mut stage, scene);
        }
        stage.play(|stage| stage.is_idle() && (stage.is_observed() || stage.committed.is_some()));
    }
    Ok(told(scene, stage, way, failed_before))
}

/// The machine starts again, and the boot decides as it will.
fn boot(stage: &mut Stage<'_>, scene: &Scene<'_>) {
    let marker = stage.update.marker().clone();
    let settings = stage.update.settings();
    let digest = scene.wanted.digest;
    let running = scene.update.running().cloned();
    let progress = if scene.wanted.was_done {
        Progress::new(State::Done, message::DONE, 0)
    } else {
        Progress::new(State::InProgress, message::REBOOTING, 0)
    };
    let next = Known {
        revision: scene.wanted.revision.clone(),
        digest: Some(digest),
        progress: Some(progress),
        done: scene.wanted.was_done,
        changed_ms: 0,
    };
    let good = Verdict::Good {
        digest,
        boot: scene.next.boot_fingerprint(),
    };
    let mut verdicts = BTreeMap::from([(scene.wanted.revision.clone(), good)]);
    for known in marker.revisions() {
        let digest = running
            .as_ref()
            .filter(|running| running.revision == *known)
            .map_or(digest, |running| running.digest);
        let boot = scene.running.unwrap_or(scene.next).boot_fingerprint();
        verdicts
            .entry(known.clone())
            .or_insert(Verdict::Good { digest, boot });
    }
    let decision = boot::decide(&Facts {
        marker: Some(marker),
        revisions: vec![next],
        booted: Some(scene.wanted.revision.clone()),
        booted_fingerprint: Some(scene.next.boot_fingerprint()),
        loader_damaged: false,
        verdicts,
        tries: settings.tries,
        cannot_count: None,
        next_failure: 0,
        reset: None,
    });
    let Decision::Boot(boot) = decision else {
        return;
    };
    let Start::Trial { attempt, base } = boot.start else {
        return;
    };
    let update = Update::trying(settings, boot.marker, attempt, base, boot.next_failure);
    stage.restart(scene.boot_takes, update);
    stage.aim(Mode::Trial);
    stage.containers.restore_user_stopped(scene.stopped);
}

fn told(
    scene: &Scene<'_>,
    mut stage: Stage<'_>,
    way: Way,
    failed_before: Option<u64>,
) -> Rehearsal {
    let before = scene.containers.alive();
    let after = stage.containers.alive();
    let trial_base = match stage.committed {
        // It was committed while what it removes was still being stopped; then its base was moved.
        Some(_) => stage.update.marker().previous.clone(),
        None => stage.update.base().map(|base| base.revision.clone()),
    };
    if way != Way::Nothing && stage.is_observed() {
        hold(&mut stage);
    }
    let began = scene.now;
    let goals_at = (way != Way::Nothing)
        .then(|| stage.goals_at(began))
        .flatten();
    let everything = goals_at.map(|at| Lasts {
        time: at.since(began),
        basis: match stage.unsure {
            true => Basis::Configured,
            false => basis(stage.acts.iter()),
        },
    });
    Rehearsal {
        way,
        failed_before,
        boot_changes: scene
            .running
            .map(|running| scene.next.boot_changes_since(running))
            .unwrap_or_default(),
        containers: fates(scene, &stage, way, (&before, &after)),
        goals_after: everything,
        starts_again_after: stage.restarted.map(|at| at.since(began)),
        committed_after: stage.committed.map(|at| at.since(began)),
        trial_base: if way == Way::Nothing {
            None
        } else {
            trial_base
        },
        marker: stage.update.marker().clone(),
        // A stop whose time is only guessed should not seem to outlast the commit.
        makes_room: stage.retains.then(|| stage.in_use()),
        acts: stage.acts,
    }
}

/// Goals hold until the commit.
fn hold(stage: &mut Stage<'_>) {
    let Some(at) = stage.update.commit_at() else {
        return;
    };
    stage.now = at.max(stage.containers.settled_at(stage.now));
    let holds = Summary {
        reached: true,
        stable: true,
        passed: true,
        failure: None,
        below: None,
        reboot: None,
        gone: false,
    };
    stage.tell(Event::Containers(holds));
}

fn basis<'a>(mut acts: impl Iterator<Item = &'a Act>) -> Basis {
    if acts.any(|act| act.guessed) {
        Basis::Configured
    } else {
        Basis::Observed
    }
}

type Alive = BTreeMap<ContainerName, Instance>;

fn fates(
    scene: &Scene<'_>,
    stage: &Stage<'_>,
    way: Way,
    (before, after): (&Alive, &Alive),
) -> Vec<Fated> {
    let changes = match scene.running {
        Some(running) => scene.next.changes_since(running),
        None => BTreeMap::new(),
    };
    let old = |name: &ContainerName| scene.running.and_then(|running| running.container(name));
    let went = scene.running.into_iter().flat_map(Manifest::containers);
    let went = went.filter(|spec| scene.next.container(&spec.name).is_none());
    // What runs and belongs to no revision is stopped too; there is no more to tell of it.
    scene
        .next
        .containers()
        .map(|spec| (spec, true))
        .chain(went.map(|spec| (spec, false)))
        .map(|(spec, stays)| {
            let name = &spec.name;
            let fate = match (before.get(name), after.get(name)) {
                (Some(one), Some(other)) if one == other => Fate::Kept,
                (Some(_), Some(_)) => Fate::Restarted,
                (None, Some(_)) => Fate::Started,
                (Some(_), None) => Fate::Stopped,
                (None, None) => Fate::Down,
            };
            let change = changes.get(name).cloned().unwrap_or_default();
            let settings = change.settings.clone();
            let reason = match (stays, old(name)) {
                (false, _) => Reason::Removed,
                (true, None) => Reason::New,
                (true, Some(old)) => reason(scene, (old, spec), way, fate, change),
            };
            let downtime = (fate == Fate::Restarted).then(|| downtime(stage, name));
            Fated {
                name: name.clone(),
                group: spec.group.clone(),
                fate,
                reason,
                settings: if stays { settings } else { Vec::new() },
                depends_on: if stays {
                    spec.depends_on.clone()
                } else {
                    Vec::new()
                },
                downtime: downtime.flatten(),
            }
        })
        .collect()
}

fn reason(
    scene: &Scene<'_>,
    (old, new): (&Container, &Container),
    way: Way,
    fate: Fate,
    changes: Changes,
) -> Reason {
    if old.fingerprint != new.fingerprint {
        return Reason::Changed(changes);
    }
    let moved = (old.goal == Goal::Mounted) != (new.goal == Goal::Mounted);
    match fate {
        Fate::Kept => Reason::Unchanged,
        Fate::Restarted if way == Way::Reboot => Reason::MachineRestarts,
        Fate::Restarted | Fate::Started if moved => Reason::GoalMoved,
        // The running process is of another version than the running revision names: it had not been replaced yet.
        Fate::Restarted => Reason::Changed(changes),
        Fate::Started => Reason::NotRunning(scene.containers.status(&new.name)),
        Fate::Stopped | Fate::Down => Reason::StoppedByPerson,
    }
}

fn downtime(stage: &Stage<'_>, name: &ContainerName) -> Option<Lasts> {
    let of = |act: &&Act| match &act.deed {
        Deed::Stop(other) | Deed::Start(other) | Deed::Mount(other) => other == name,
        Deed::Reboot => false,
    };
    let stop = stage.acts.iter().find(of)?;
    let up = stage.up.get(name)?.since(stage.began);
    let time = up.saturating_sub(stop.at);
    let own = stage.own.get(name).copied().unwrap_or_default();
    // While it waited for others, their times count as well.
    let counted = stage
        .acts
        .iter()
        .filter(|act| of(act) || (time > own && act.at <= up));
    Some(Lasts {
        time,
        basis: basis(counted),
    })
}

#[cfg(test)]
mod tests;
