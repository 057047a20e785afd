//! Running a revision and waiting until the device has judged it.
//!
//! A revision that ran before keeps its old, final progress until the new try has begun. So a final progress counts only when
//! something has moved since the command was accepted, or when all stands still for a while. The socket may go away meanwhile
//! (the device restarts): waiting goes on until the time is over.

use std::time::{Duration, Instant};

use api::messages::ours::{Condition, DeviceStatus, Why};
use client::Subject;
use model::{Progress, RevisionId, State};
use serde::Serialize;

use crate::cli::{ProgressArgs, RunArgs, WaitArgs};
use crate::commands::Context;
use crate::failure::{Exit, Failure};
use crate::screen;
use crate::terminal::{Tone, clean, print};

/// How often the device is asked.
const INTERVAL: Duration = Duration::from_millis(200);
/// How long all must stand still before a result that was there before counts as the new one.
const STILL: Duration = Duration::from_secs(3);

/// What became of a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// It runs.
    Good,
    /// It was refused or rolled back.
    RolledBack,
}

/// The result of waiting, as `--json` shows it.
#[derive(Debug, Serialize)]
pub(crate) struct Judged {
    pub(crate) revision: RevisionId,
    pub(crate) outcome: Outcome,
    pub(crate) progress: Progress,
    pub(crate) why: Option<Why>,
}

impl Judged {
    pub(crate) fn exit(&self) -> Exit {
        match self.outcome {
            Outcome::Good => Exit::Good,
            Outcome::RolledBack => Exit::RolledBack,
        }
    }
}

/// How a revision is run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct How {
    /// Also when the same manifest failed before.
    pub(crate) again: bool,
    /// Only without a restart of the machine.
    pub(crate) in_place: bool,
}

/// `coxctl run`.
pub(crate) async fn run(context: &Context, args: RunArgs) -> Result<Exit, Failure> {
    let revision = args.revision;
    let how = How {
        again: args.again,
        in_place: args.in_place,
    };
    let watch = start(context, &revision, how).await?;
    if !args.wait.wait {
        context.done(&format!(
            "{revision} is being tried; `coxctl progress {revision} --wait` waits for the result"
        ))?;
        return Ok(Exit::Good);
    }
    let judged = watch
        .wait(context, Duration::from_secs(args.wait.timeout))
        .await?;
    context.show(&judged, |judged| sentence(context, judged))?;
    Ok(judged.exit())
}

/// Asks for a revision to be run and remembers how things stood before.
pub(crate) async fn start(
    context: &Context,
    revision: &RevisionId,
    how: How,
) -> Result<Watch, Failure> {
    // A revision without a readable progress is the server's to judge.
    let before = context.client.progress(revision).await.ok();
    let client = &context.client;
    let result = if how.in_place {
        client.apply(revision, how.again).await
    } else {
        client.run(revision, how.again).await
    };
    if let Err(error) = result {
        let failed_before = error.code() == Some(api::Code::FailedBefore);
        let mut failure = Failure::from(error);
        if failed_before {
            failure.remedy = Some(format!(
                "see `coxctl why {revision}`; `coxctl run {revision} --again` tries it once more"
            ));
        }
        return Err(failure);
    }
    Ok(Watch {
        revision: revision.clone(),
        before,
    })
}

/// `coxctl progress`.
pub(crate) async fn progress(context: &Context, args: ProgressArgs) -> Result<Exit, Failure> {
    let progress = context.client.progress(&args.revision).await?;
    if !args.wait.wait {
        context.show(&progress, |progress| {
            screen::progress(progress, &context.look)
        })?;
        return Ok(Exit::Good);
    }
    if progress.status == State::New {
        let what = format!("revision {} was installed and never run", args.revision);
        return Err(Failure::new(Exit::Refused, what)
            .remedy(format!("run it: coxctl run {} --wait", args.revision)));
    }
    let was_over = progress.status.is_final();
    // Nothing was asked for just now: what is final already is the result.
    let watch = Watch {
        revision: args.revision,
        before: None,
    };
    let judged = watch
        .wait(context, Duration::from_secs(args.wait.timeout))
        .await?;
    // An old result was told by its progress; it may not be what runs now.
    let told = was_over && judged.outcome == Outcome::Good && !context.json;
    if !told {
        context.show(&judged, |judged| sentence(context, judged))?;
    }
    Ok(judged.exit())
}

/// `coxctl rollback`.
pub(crate) async fn roll_back(context: &Context, args: WaitArgs) -> Result<Exit, Failure> {
    let before = context.client.status().await?;
    context.client.roll_back().await?;
    if !args.wait {
        let text = match (&before.trial, &before.previous) {
            (Some(trial), _) => format!("the trial of {} is being given up", trial.revision),
            (None, Some(previous)) => format!("the device goes back to {previous}"),
            (None, None) => "the device rolls back".to_owned(),
        };
        context.done(&text)?;
        return Ok(Exit::Good);
    }
    let target = match (&before.trial, &before.committed, &before.previous) {
        (Some(_), Some(committed), _) => committed.clone(),
        (None, _, Some(previous)) => previous.clone(),
        (Some(_) | None, _, _) => {
            return Err(Failure::new(
                Exit::Failed,
                "the device does not tell what it goes back to",
            )
            .remedy("see `coxctl status`"));
        }
    };
    let before = context.client.progress(&target).await.ok();
    let watch = Watch {
        revision: target,
        before,
    };
    let judged = watch
        .wait(context, Duration::from_secs(args.timeout))
        .await?;
    context.show(&judged, |judged| sentence(context, judged))?;
    Ok(judged.exit())
}

/// What a person is told at the end.
pub(crate) fn sentence(context: &Context, judged: &Judged) -> String {
    let look = &context.look;
    match (judged.outcome, &judged.why) {
        (Outcome::Good, _) => {
            let what = match judged.progress.status {
                State::Updated => "runs; the next boot tries it once more before it is committed",
                State::New
                | State::Queued
                | State::Downloading
                | State::InProgress
                | State::Testing
                | State::Done
                | State::WontGo
                | State::Error => "runs and is committed",
            };
            let line = format!("{} {what}", clean(judged.revision.as_str()));
            format!("{}\n", look.paint(Tone::Good, &line))
        }
        (Outcome::RolledBack, why) => {
            let refused = judged.progress.status == State::WontGo;
            let what = if refused {
                "was refused"
            } else {
                "was rolled back"
            };
            let line = format!("{} {what}", clean(judged.revision.as_str()));
            let line = format!("{}\n", look.paint(Tone::Bad, &line));
            match why {
                Some(why) => line + &screen::why(why, look),
                None => line + &screen::progress(&judged.progress, look),
            }
        }
    }
}

/// A revision that is waited for.
#[derive(Debug)]
pub(crate) struct Watch {
    revision: RevisionId,
    before: Option<Progress>,
}

impl Watch {
    /// Waits until the device has judged the revision; tells each step on the way.
    pub(crate) async fn wait(
        self,
        context: &Context,
        patience: Duration,
    ) -> Result<Judged, Failure> {
        let revision = self.revision.clone();
        context.interrupted.replace(format!(
            "the device goes on; `coxctl progress {revision} --wait` waits again, `coxctl rollback` gives it up"
        ));
        let was_done = self
            .before
            .as_ref()
            .is_some_and(|before| before.status == State::Done);
        let start = Instant::now();
        let mut still_since = start;
        let mut moved = self.before.is_none();
        let mut last: Option<(Progress, DeviceStatus)> = None;
        let mut shown = self.before.clone();
        let mut away = false;
        loop {
            match self.look(context).await {
                Ok((progress, status)) => {
                    if away {
                        tell(context, "the device answers again\n")?;
                        away = false;
                    }
                    if shown.as_ref() != Some(&progress) {
                        tell(context, &screen::progress(&progress, &context.look))?;
                        shown = Some(progress.clone());
                    }
                    let same = last.as_ref().is_some_and(|(known, device)| {
                        *known == progress && same_place(device, &status)
                    });
                    if !same {
                        still_since = Instant::now();
                    }
                    moved |= self.before.as_ref() != Some(&progress) || self.is_trial(&status);
                    let settled = moved || still_since.elapsed() >= STILL;
                    if let Some(outcome) =
                        judge(&self.revision, was_done, &progress, &status).filter(|_| settled)
                    {
                        return Ok(self.judged(context, outcome, progress).await);
                    }
                    last = Some((progress, status));
                }
                Err(error) if comes_back(&error) => {
                    if !away {
                        tell(
                            context,
                            "the device does not answer; waiting until it is back\n",
                        )?;
                        away = true;
                    }
                    still_since = Instant::now();
                }
                Err(error) => return Err(error.into()),
            }
            if start.elapsed() >= patience {
                let what = format!("{revision} has no result after {} s", patience.as_secs());
                return Err(Failure::new(Exit::TimedOut, what).remedy(format!(
                    "the device goes on; see `coxctl status` and `coxctl why {revision}`"
                )));
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    async fn look(&self, context: &Context) -> Result<(Progress, DeviceStatus), client::Error> {
        // In this order: the progress is written before what follows from it is shown.
        let status = context.client.status().await?;
        let progress = context.client.progress(&self.revision).await?;
        Ok((progress, status))
    }

    fn is_trial(&self, status: &DeviceStatus) -> bool {
        status
            .trial
            .as_ref()
            .is_some_and(|trial| trial.revision == self.revision)
    }

    async fn judged(self, context: &Context, outcome: Outcome, progress: Progress) -> Judged {
        let why = match outcome {
            Outcome::Good => None,
            // Without the explanation the outcome is still known.
            Outcome::RolledBack => context
                .client
                .why(Subject::Revision(&self.revision))
                .await
                .ok(),
        };
        Judged {
            revision: self.revision,
            outcome,
            progress,
            why,
        }
    }
}

fn tell(context: &Context, text: &str) -> Result<(), Failure> {
    if !context.json {
        print(text)?;
    }
    Ok(())
}

fn comes_back(error: &client::Error) -> bool {
    error.is_transport()
        || matches!(
            error.code(),
            Some(api::Code::NotReady | api::Code::ShuttingDown | api::Code::Busy)
        )
}

fn same_place(one: &DeviceStatus, other: &DeviceStatus) -> bool {
    one.running == other.running
        && one.committed == other.committed
        && one.condition == other.condition
        && one.trial.as_ref().map(|t| (&t.revision, &t.phase))
            == other.trial.as_ref().map(|t| (&t.revision, &t.phase))
}

/// What became of the revision, when it is over. `was_done`: its progress was DONE before it was asked for.
fn judge(
    revision: &RevisionId,
    was_done: bool,
    progress: &Progress,
    status: &DeviceStatus,
) -> Option<Outcome> {
    let is_trial = status
        .trial
        .as_ref()
        .is_some_and(|trial| trial.revision == *revision);
    let runs = status.running.as_ref() == Some(revision);
    match progress.status {
        State::New | State::Queued | State::Downloading | State::InProgress | State::Testing => {
            None
        }
        // Rolled back is over when the other revision runs again.
        State::Error if is_trial || (runs && status.committed.as_ref() != Some(revision)) => None,
        State::Error | State::WontGo if !is_trial => Some(Outcome::RolledBack),
        State::Error | State::WontGo => None,
        State::Updated => runs.then_some(Outcome::Good),
        State::Done if is_trial || (runs && status.condition == Condition::Starting) => None,
        State::Done if runs || !was_done => Some(Outcome::Good),
        // An older revision that ran well once keeps its DONE also when it fails now.
        State::Done => Some(Outcome::RolledBack),
    }
}

#[cfg(test)]
mod tests {
    use api::messages::ours::Trial;

    use super::*;

    fn status(running: &str, committed: &str, trial: Option<&str>) -> DeviceStatus {
        let mut status = crate::screen::tests::device();
        status.running = Some(running.parse().unwrap());
        status.committed = Some(committed.parse().unwrap());
        status.trial = trial.map(|revision| Trial {
            revision: revision.parse().unwrap(),
            phase: "observing".to_owned(),
            tries_left: 1,
            commit_in_s: None,
        });
        status
    }

    #[test]
    fn every_end_is_told_from_every_way() {
        let cases = [
            // progress of 5, was DONE before, running, committed, trial, outcome
            (State::New, false, "0", "0", None, None),
            (State::InProgress, false, "5", "0", Some("5"), None),
            (State::Testing, false, "5", "0", Some("5"), None),
            (
                State::Updated,
                false,
                "5",
                "0",
                Some("5"),
                Some(Outcome::Good),
            ),
            (State::Done, false, "5", "0", Some("5"), None),
            (State::Done, false, "5", "5", None, Some(Outcome::Good)),
            (State::Done, false, "6", "6", None, Some(Outcome::Good)),
            (State::Done, true, "0", "0", None, Some(Outcome::RolledBack)),
            (State::Done, true, "5", "0", Some("5"), None),
            (State::Done, true, "5", "5", None, Some(Outcome::Good)),
            (State::Error, false, "5", "0", Some("5"), None),
            (State::Error, false, "5", "0", None, None),
            (State::Error, false, "0", "0", Some("5"), None),
            (
                State::Error,
                false,
                "0",
                "0",
                None,
                Some(Outcome::RolledBack),
            ),
            (
                State::Error,
                false,
                "0",
                "0",
                Some("6"),
                Some(Outcome::RolledBack),
            ),
            (
                State::WontGo,
                false,
                "0",
                "0",
                None,
                Some(Outcome::RolledBack),
            ),
        ];
        for (state, was_done, running, committed, trial, expected) in cases {
            let progress = Progress::new(state, "", 0);
            let status = status(running, committed, trial);
            let outcome = judge(&"5".parse().unwrap(), was_done, &progress, &status);
            assert_eq!(outcome, expected, "{state} {running} {committed} {trial:?}");
        }
    }
}
