//! What a start of the orchestrator runs: a total function of the marker and of what is on the storage.
//!
//! ```text
//! trial in the marker ── its progress is final ───────────────► forget it ─┐
//!    │                ── no try left, wrong kernel, bad bytes ─► give it up ┤
//!    │                ── never booted, boot loader elsewhere ──► arm it again, restart the machine
//!    └── else count the try, then run it                                    ▼
//!                 committed, previous, DONE ones (newest first), factory, UPDATED ones: the first that is complete runs
//!                 none: nothing runs, the device stays up and says so
//!
//! reset to factory ─ revision 0 is complete ──► marker, boot loader, removal, in this order; it runs; else: forget the reset
//! ```
//!
//! [`decide`] is called again with more [`Verdict`]s until it no longer asks for one. Nothing runs that was not verified; a
//! revision that was never asked for is never run.

use std::collections::BTreeMap;

use model::failure::{BadObject, Cause};
use model::marker::{Marker, Trial};
use model::progress::{Progress, State, message};
use model::{ObjectId, Reset, RevisionId};

use crate::update::{Attempt, Effect, Failing, Gate, Running, Write, is_remembered, message_of};

/// A revision on the storage.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// Its name.
    pub revision: RevisionId,
    /// Digest of its manifest, when that is there.
    pub digest: Option<ObjectId>,
    /// What is told about it.
    pub progress: Option<Progress>,
    /// Whether it was committed once.
    pub done: bool,
    /// When it last changed, milliseconds since 1970; only to tell newer from older.
    pub changed_ms: u64,
}

/// What looking at a revision's bytes showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The manifest is good and every object is there and is what its name says.
    Good {
        /// Digest of the manifest.
        digest: ObjectId,
        /// [`model::Manifest::boot_fingerprint`].
        boot: ObjectId,
    },
    /// There is no such revision, or its manifest cannot be read or has problems: in words.
    BadManifest(String),
    /// These objects are missing or corrupt.
    BadObjects(Vec<BadObject>),
}

/// Everything that the decision depends on.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// What is durable; `None` when there is none or it cannot be read.
    pub marker: Option<Marker>,
    /// All revisions.
    pub revisions: Vec<Known>,
    /// The revision whose kernel runs; `None` when no boot loader has a part in it.
    pub booted: Option<RevisionId>,
    /// Boot fingerprint of that revision, when its manifest can be read.
    pub booted_fingerprint: Option<ObjectId>,
    /// Part of what the boot loader keeps is damaged.
    pub loader_damaged: bool,
    /// What is known about the bytes of revisions.
    pub verdicts: BTreeMap<RevisionId, Verdict>,
    /// Tries that a trial has at first.
    pub tries: u32,
    /// The marker cannot be written, and why: no try can be counted.
    pub cannot_count: Option<String>,
    /// Number of the next failure record.
    pub next_failure: u64,
    /// A reset to the factory revision that was accepted and is not carried out. Nothing runs.
    pub reset: Option<Reset>,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Verify this revision, then ask again.
    Verify(RevisionId),
    /// Carry this out.
    Boot(Box<Boot>),
}

/// The decision.
#[derive(Debug, Clone, PartialEq)]
pub struct Boot {
    /// Durable effects, in order. A [`Gate::Trial`] that fails means: ask again with [`Facts::cannot_count`].
    pub effects: Vec<Effect>,
    /// The marker as it is after the effects.
    pub marker: Marker,
    /// What runs.
    pub start: Start,
    /// What a person should know.
    pub notices: Vec<String>,
    /// Number of the next failure record after the effects.
    pub next_failure: u64,
}

/// What runs after a boot.
#[derive(Debug, Clone, PartialEq)]
pub enum Start {
    /// The trial; its try is counted by the effects. `base` is what to go back to.
    Trial {
        /// The trial.
        attempt: Attempt,
        /// What to go back to, if anything is complete.
        base: Option<Running>,
    },
    /// This revision, which is known to be good.
    Run(Running),
    /// Nothing: the machine restarts at once to get the right kernel.
    Reboot,
    /// Nothing: there is no complete revision.
    Nothing,
}

/// What is to be done about the trial of the marker.
enum Judged {
    None,
    Try {
        digest: ObjectId,
    },
    Arm,
    Forget,
    GiveUp(Cause),
    /// It waits for a boot that can count.
    Skip(String),
    Verify(RevisionId),
}

/// Decides what runs.
pub fn decide(facts: &Facts) -> Decision {
    let marker = facts.marker.clone().unwrap_or_default();
    let judged = match &marker.trial {
        // A reset gives it up without a word: it goes with everything else.
        Some(_) if facts.resets() => Judged::None,
        Some(trial) => judge(facts, trial),
        None => Judged::None,
    };
    if let Judged::Verify(revision) = judged {
        return Decision::Verify(revision);
    }
    let mut boot = Boot {
        effects: Vec::new(),
        marker,
        start: Start::Nothing,
        notices: Vec::new(),
        next_failure: facts.next_failure,
    };
    match reset(facts, &mut boot) {
        Resetting::No => {}
        Resetting::Carried => return Decision::Boot(Box::new(boot)),
        Resetting::Verify(revision) => return Decision::Verify(revision),
    }
    let base = match choose(facts, &boot.marker, &mut boot.notices) {
        Ok(base) => base,
        Err(revision) => return Decision::Verify(revision),
    };
    match (judged, boot.marker.trial.clone()) {
        (Judged::Try { digest }, Some(trial)) => try_it(facts, &mut boot, trial, digest, base),
        (Judged::Arm, Some(trial)) => arm_again(&mut boot, trial),
        (Judged::GiveUp(cause), Some(trial)) => {
            give_up(facts, &mut boot, trial, cause, base.as_ref());
            run(facts, &mut boot, base);
        }
        (Judged::Forget, Some(trial)) => {
            forget(facts, &mut boot, &trial, base.as_ref());
            run(facts, &mut boot, base);
        }
        (Judged::Skip(why), Some(trial)) => {
            boot.notices.push(format!(
                "revision {} is not tried at this start because the try cannot be counted: {why}",
                trial.revision
            ));
            run(facts, &mut boot, base);
        }
        (
            Judged::None
            | Judged::Verify(_)
            | Judged::Try { .. }
            | Judged::Arm
            | Judged::GiveUp(_)
            | Judged::Forget
            | Judged::Skip(_),
            _,
        ) => run(facts, &mut boot, base),
    }
    Decision::Boot(Box::new(boot))
}

enum Resetting {
    No,
    Carried,
    Verify(RevisionId),
}

/// Carries a reset out when revision 0 is complete. The marker and the boot loader name revision 0 before the first thing is removed,
/// and the record of the reset goes last: cut anywhere, the next start does it again.
fn reset(facts: &Facts, boot: &mut Boot) -> Resetting {
    let Some(reset) = facts.reset else {
        return Resetting::No;
    };
    if let Some(why) = &facts.cannot_count {
        boot.notices
            .push(format!("the reset to the factory revision waits: {why}"));
        return Resetting::No;
    }
    let factory = RevisionId::factory();
    let problem = match facts.verdicts.get(&factory) {
        None => return Resetting::Verify(factory),
        Some(Verdict::Good { digest, .. }) => {
            let digest = *digest;
            carry_reset(
                facts,
                boot,
                reset,
                Running {
                    revision: factory,
                    digest,
                },
            );
            return Resetting::Carried;
        }
        Some(Verdict::BadManifest(error)) => format!("its manifest is bad: {error}"),
        Some(Verdict::BadObjects(objects)) => bad_objects_in_words(objects),
    };
    boot.notices.push(format!(
        "the device was not reset: revision 0 cannot run: {problem}; put its objects again, then ask for the reset again"
    ));
    boot.effects.push(Effect::Owe(Write::ForgetReset));
    Resetting::No
}

fn carry_reset(facts: &Facts, boot: &mut Boot, reset: Reset, factory: Running) {
    let revision = factory.revision.clone();
    boot.marker = Marker {
        sequence: boot.marker.sequence,
        generations_reserved: boot.marker.generations_reserved,
        committed: Some(revision.clone()),
        ..Marker::default()
    };
    let gate = |write| Effect::Gate(Gate::Trial, write);
    boot.effects.push(gate(Write::Marker(boot.marker.clone())));
    if facts.booted.is_some() {
        boot.effects.push(gate(Write::Confirm(revision.clone())));
    }
    boot.effects.push(gate(Write::Reset(reset)));
    repair_progress(facts, boot, &revision);
    let what = if reset.wipe_volumes {
        "reset to it; volumes were wiped"
    } else {
        "reset to it; volumes were kept"
    };
    boot.effects.extend([
        Effect::Owe(Write::Current(revision.clone())),
        Effect::Tell("reset", revision.clone(), what.to_owned()),
    ]);
    boot.start = match facts.verdicts.get(&revision) {
        Some(Verdict::Good { boot, .. })
            if facts
                .booted
                .as_ref()
                .is_some_and(|booted| *booted != revision)
                && facts.booted_fingerprint != Some(*boot) =>
        {
            Start::Reboot
        }
        Some(Verdict::Good { .. } | Verdict::BadManifest(_) | Verdict::BadObjects(_)) | None => {
            boot.effects.push(Effect::Retain);
            Start::Run(factory)
        }
    };
}

fn judge(facts: &Facts, trial: &Trial) -> Judged {
    let known = facts.known(&trial.revision);
    let failed = known
        .and_then(|known| known.progress.as_ref())
        .is_some_and(|progress| matches!(progress.status, State::Error | State::WontGo));
    if failed {
        return Judged::Forget;
    }
    let other_kernel = facts
        .booted
        .as_ref()
        .is_some_and(|booted| trial.by_reboot && *booted != trial.revision);
    if other_kernel && trial.tries_left < facts.tries.max(1) {
        let marker = facts.marker.as_ref();
        if marker.is_some_and(|marker| marker.committed.as_ref() == Some(&trial.revision)) {
            // It was to run again after it could not; it is what runs without a trial too.
            return Judged::Forget;
        }
        return Judged::GiveUp(Cause::UnexpectedRollback);
    }
    if trial.tries_left == 0 {
        let tries = facts.tries.max(1);
        return Judged::GiveUp(Cause::TriesUsedUp { tries });
    }
    if let Some(why) = &facts.cannot_count {
        return Judged::Skip(why.clone());
    }
    if other_kernel {
        return Judged::Arm;
    }
    match facts.verdicts.get(&trial.revision) {
        None => Judged::Verify(trial.revision.clone()),
        Some(Verdict::Good { digest, .. }) => Judged::Try { digest: *digest },
        Some(Verdict::BadManifest(error)) => Judged::GiveUp(Cause::BadManifest {
            error: error.clone(),
        }),
        Some(Verdict::BadObjects(objects)) => Judged::GiveUp(Cause::BadObjects {
            objects: objects.clone(),
        }),
    }
}

/// The best complete revision that is not the trial; `Err` names one that must be verified first.
fn choose(
    facts: &Facts,
    marker: &Marker,
    notices: &mut Vec<String>,
) -> Result<Option<Running>, RevisionId> {
    let trial = marker.trial.as_ref().map(|trial| &trial.revision);
    let mut candidates: Vec<&RevisionId> = Vec::new();
    candidates.extend(&marker.committed);
    candidates.extend(&marker.previous);
    let mut others: Vec<_> = facts
        .revisions
        .iter()
        .filter(|known| Some(&known.revision) != trial)
        .filter_map(|known| Some((known.rank()?, known.changed_ms, &known.revision)))
        .collect();
    others.sort_by(|a, b| (a.0, b.1, b.2).cmp(&(b.0, a.1, a.2)));
    candidates.extend(others.into_iter().map(|(_, _, revision)| revision));
    let mut seen = Vec::new();
    for revision in candidates {
        if seen.contains(&revision) {
            continue;
        }
        seen.push(revision);
        let problem = match facts.verdicts.get(revision) {
            None => return Err(revision.clone()),
            Some(Verdict::Good { digest, .. }) => {
                return Ok(Some(Running {
                    revision: revision.clone(),
                    digest: *digest,
                }));
            }
            Some(Verdict::BadManifest(error)) => format!("its manifest is bad: {error}"),
            Some(Verdict::BadObjects(objects)) => bad_objects_in_words(objects),
        };
        notices.push(format!(
            "revision {revision} cannot run: {problem}; put its objects again to repair it"
        ));
    }
    Ok(None)
}

fn bad_objects_in_words(objects: &[BadObject]) -> String {
    match objects {
        [] => "its objects are bad".to_owned(),
        [first, rest @ ..] => {
            let more = match rest.len() {
                0 => String::new(),
                n => format!(" and {n} more"),
            };
            format!(
                "object {} for {} is {}{more}",
                first.object.short(),
                first.key,
                first.problem
            )
        }
    }
}

fn try_it(facts: &Facts, boot: &mut Boot, trial: Trial, digest: ObjectId, base: Option<Running>) {
    let known = facts.known(&trial.revision);
    let progress = known.and_then(|known| known.progress.as_ref());
    let status = progress.map(|progress| progress.status);
    let retries = facts.tries.max(1).saturating_sub(trial.tries_left);
    boot.marker.trial = Some(Trial {
        tries_left: trial.tries_left.saturating_sub(1),
        ..trial.clone()
    });
    let count = Write::Marker(boot.marker.clone());
    boot.effects.push(Effect::Gate(Gate::Trial, count));
    let was_done = status == Some(State::Done);
    if !was_done {
        // Progress never goes back: what was told as TESTING stays so, only the tries change.
        let (status, text) = match status {
            Some(State::Testing) => (State::Testing, message::AWAITING_ROLLBACK_POINT),
            Some(
                State::New
                | State::Queued
                | State::Downloading
                | State::InProgress
                | State::Updated
                | State::Done
                | State::WontGo
                | State::Error,
            )
            | None => (State::InProgress, message::TRYING),
        };
        let progress = Progress::new(status, text, retries);
        let write = Write::Progress(trial.revision.clone(), progress);
        boot.effects.push(Effect::Owe(write));
    }
    let current = Write::Current(trial.revision.clone());
    boot.effects.push(Effect::Owe(current));
    boot.start = Start::Trial {
        attempt: Attempt {
            digest,
            was_done,
            commit: true,
            by_boot: true,
            booted: trial.by_reboot && facts.booted.as_ref() == Some(&trial.revision),
            retries,
            revision: trial.revision,
        },
        base,
    };
}

/// The marker was written, the boot loader was not: the power was cut between the two.
fn arm_again(boot: &mut Boot, trial: Trial) {
    boot.marker.trial = Some(Trial {
        tries_left: trial.tries_left.saturating_sub(1),
        ..trial.clone()
    });
    boot.effects = vec![
        Effect::Gate(Gate::Trial, Write::Marker(boot.marker.clone())),
        Effect::Gate(Gate::Trial, Write::Arm(trial.revision)),
    ];
    boot.start = Start::Reboot;
}

fn give_up(facts: &Facts, boot: &mut Boot, trial: Trial, cause: Cause, base: Option<&Running>) {
    let message = message_of(&cause);
    let digest = facts.digest(&trial.revision);
    let id = boot.next_failure;
    boot.next_failure += 1;
    boot.marker.trial = None;
    if is_remembered(&cause)
        && let Some(digest) = digest
    {
        boot.marker.remember_failed(digest, id);
    }
    let used = facts.tries.max(1).saturating_sub(trial.tries_left);
    boot.notices.push(format!(
        "revision {} was given up at this start: {message}; see failure {id}",
        trial.revision
    ));
    let failing = Failing {
        id,
        revision: trial.revision.clone(),
        manifest: digest,
        rolled_back_to: base.map(|base| base.revision.clone()),
        container: None,
        cause,
        message,
        tries: used,
    };
    let progress = Progress::new(State::Error, message, used.saturating_sub(1));
    boot.effects.extend([
        Effect::Owe(Write::Failure(Box::new(failing))),
        Effect::Owe(Write::Progress(trial.revision.clone(), progress)),
    ]);
    boot.effects.extend(disarm(facts, &trial, base));
    boot.effects.extend([
        Effect::Owe(Write::Marker(boot.marker.clone())),
        Effect::Tell("rollback", trial.revision, format!("given up: {message}")),
    ]);
}

/// The boot loader may still be told to start the trial, also when it started something else now. It forgets before the marker does: cut
/// between the two, the next start finds the trial in the marker and comes here again.
fn disarm(facts: &Facts, trial: &Trial, base: Option<&Running>) -> Option<Effect> {
    let base = base.filter(|_| trial.by_reboot && facts.booted.is_some())?;
    Some(Effect::Owe(Write::Confirm(base.revision.clone())))
}

/// Its failure is on record, and the power was cut before the marker said so; or it is committed and needs no trial.
fn forget(facts: &Facts, boot: &mut Boot, trial: &Trial, base: Option<&Running>) {
    boot.marker.trial = None;
    let failed = boot.marker.committed.as_ref() != Some(&trial.revision);
    if let (true, Some(digest), Some(id)) = (
        failed,
        facts.digest(&trial.revision),
        facts.next_failure.checked_sub(1),
    ) {
        boot.marker.remember_failed(digest, id);
    }
    boot.effects.extend(disarm(facts, trial, base));
    let marker = Write::Marker(boot.marker.clone());
    boot.effects.push(Effect::Owe(marker));
}

fn run(facts: &Facts, boot: &mut Boot, base: Option<Running>) {
    let Some(base) = base else {
        boot.start = Start::Nothing;
        return;
    };
    let revision = base.revision.clone();
    let first = boot.marker.committed.is_none();
    if first {
        boot.marker.committed = Some(revision.clone());
        let marker = Write::Marker(boot.marker.clone());
        boot.effects.push(Effect::Owe(marker));
    }
    let commit = boot.effects.len();
    let repaired = boot.marker.committed.as_ref() == Some(&revision)
        && repair_progress(facts, boot, &revision);
    let current = Write::Current(revision.clone());
    boot.effects.push(Effect::Owe(current));
    boot.start = Start::Run(base);
    let Some(booted) = &facts.booted else { return };
    let confirm = Effect::Owe(Write::Confirm(revision.clone()));
    let is_told = boot.effects.contains(&confirm);
    if *booted == revision {
        if (repaired || facts.loader_damaged) && !is_told {
            // Before the progress that is repaired: what is told as done was confirmed.
            boot.effects.insert(commit, confirm);
        }
        return;
    }
    if !is_told {
        // Behind it: a boot loader that cannot be written must not keep the progress from ending the row of restarts.
        boot.effects.push(confirm);
    }
    let wanted = match facts.verdicts.get(&revision) {
        Some(Verdict::Good { boot, .. }) => Some(*boot),
        Some(Verdict::BadManifest(_) | Verdict::BadObjects(_)) | None => None,
    };
    if wanted == facts.booted_fingerprint {
        return;
    }
    // The commit, or giving up, was cut before the boot loader knew. Each writes something once, so that a boot loader
    // that does not obey leads to one restart, not to an endless row.
    let given_up = boot
        .effects
        .iter()
        .any(|effect| matches!(effect, Effect::Owe(Write::Failure(_))));
    match &facts.cannot_count {
        None if repaired || given_up => {
            before_restart(&mut boot.effects);
            boot.start = Start::Reboot;
        }
        Some(why) if repaired || given_up => boot.notices.push(format!(
            "the kernel of revision {booted} runs although {revision} is the one to boot, and the machine is not restarted for it \
             because it would be again and again while this cannot be written: {why}; mend that, then restart"
        )),
        Some(_) | None => boot.notices.push(format!(
            "the boot loader started the kernel of revision {booted} although {revision} is the one to boot; \
             check the boot loader's files, then restart"
        )),
    }
}

/// What makes the next start see that there was a restart for this is durable before it, or there is none: a storage that takes no writes
/// would show every start the same.
fn before_restart(effects: &mut [Effect]) {
    let tells = |effect: &Effect| matches!(effect, Effect::Owe(Write::Progress(..)));
    let Some(last) = effects.iter().rposition(tells) else {
        return;
    };
    for effect in effects.iter_mut().take(last + 1) {
        if let Effect::Owe(write) = effect {
            *effect = Effect::Gate(Gate::Trial, write.clone());
        }
    }
}

/// The commit was cut before its progress was written. Returns whether there was something to repair.
fn repair_progress(facts: &Facts, boot: &mut Boot, revision: &RevisionId) -> bool {
    let known = facts.known(revision);
    let status = known.and_then(|known| known.progress.as_ref());
    let is_final = status.is_some_and(|progress| match progress.status {
        State::Done | State::Error | State::WontGo => true,
        State::New
        | State::Queued
        | State::Downloading
        | State::InProgress
        | State::Testing
        | State::Updated => false,
    });
    if is_final && known.is_some_and(|known| known.done) {
        return false;
    }
    if !is_final {
        let text = if revision.is_factory() && status.is_none() {
            message::FACTORY
        } else {
            message::DONE
        };
        let retries = status.map_or(0, |progress| progress.retries);
        let progress = Progress::new(State::Done, text, retries);
        let write = Write::Progress(revision.clone(), progress);
        boot.effects.push(Effect::Owe(write));
    }
    boot.effects
        .push(Effect::Owe(Write::Done(revision.clone())));
    !is_final
}

/// What becomes of a request that was accepted and cut before its trial stood in the marker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pending {
    /// Take it up again.
    Resume {
        /// Which.
        revision: RevisionId,
        /// Times it was taken up before.
        retries: u32,
    },
    /// It was taken up too often, or another one came after it.
    Close {
        /// Which.
        revision: RevisionId,
        /// Its last progress.
        progress: Progress,
    },
}

/// Accepted requests that never came to an end, the one to resume first. `marker` is the one after the boot's effects,
/// `running` what it chose.
pub fn pending(
    revisions: &[Known],
    marker: &Marker,
    running: Option<&RevisionId>,
    tries: u32,
) -> Vec<Pending> {
    // What is on trial or runs has its end elsewhere; another that the marker names may have been asked for again.
    let trial = marker.trial.as_ref().map(|trial| &trial.revision);
    let decided = [trial, running];
    let mut open: Vec<_> = revisions
        .iter()
        .filter(|known| !decided.contains(&Some(&known.revision)))
        .filter_map(|known| {
            let progress = known.progress.as_ref()?;
            match progress.status {
                State::InProgress | State::Testing | State::Queued => Some((known, progress)),
                State::New
                | State::Downloading
                | State::Updated
                | State::Done
                | State::WontGo
                | State::Error => None,
            }
        })
        .collect();
    open.sort_by(|(a, _), (b, _)| (b.changed_ms, &b.revision).cmp(&(a.changed_ms, &a.revision)));
    let mut resumed = false;
    open.into_iter()
        .map(|(known, progress)| {
            let revision = known.revision.clone();
            let retries = progress.retries.saturating_add(1);
            let failed = known
                .digest
                .is_some_and(|digest| marker.failure_of(digest).is_some());
            let text = if failed {
                message::UNEXPECTED_ROLLBACK
            } else if retries >= tries.max(1) {
                message::MAX_RETRIES
            } else if resumed {
                message::ABORTED
            } else {
                resumed = true;
                return Pending::Resume { revision, retries };
            };
            let status = if failed { State::Error } else { State::WontGo };
            Pending::Close {
                revision,
                progress: Progress::new(status, text, progress.retries),
            }
        })
        .collect()
}

impl Known {
    /// Rank as something to fall back to, best first; `None` for what was never proven nor delivered with the device.
    fn rank(&self) -> Option<u8> {
        let status = self.progress.as_ref().map(|progress| progress.status);
        match status {
            Some(State::Done) => Some(0),
            _ if self.done => Some(0),
            _ if self.revision.is_factory() => Some(1),
            Some(State::Updated) => Some(2),
            Some(
                State::New
                | State::Queued
                | State::Downloading
                | State::InProgress
                | State::Testing
                | State::WontGo
                | State::Error,
            )
            | None => None,
        }
    }
}

impl Facts {
    /// Whether this start carries a reset out, if revision 0 is complete.
    fn resets(&self) -> bool {
        let factory = self.verdicts.get(&RevisionId::factory());
        let complete = matches!(factory, None | Some(Verdict::Good { .. }));
        self.reset.is_some() && self.cannot_count.is_none() && complete
    }

    fn known(&self, revision: &RevisionId) -> Option<&Known> {
        self.revisions
            .iter()
            .find(|known| known.revision == *revision)
    }

    fn digest(&self, revision: &RevisionId) -> Option<ObjectId> {
        match self.verdicts.get(revision) {
            Some(Verdict::Good { digest, .. }) => Some(*digest),
            Some(Verdict::BadManifest(_) | Verdict::BadObjects(_)) | None => {
                self.known(revision)?.digest
            }
        }
    }
}

#[cfg(test)]
mod tests;
