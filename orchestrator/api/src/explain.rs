//! Why something is where it is, in words: from what the device shows and the failure records, to sentences for a person.
//!
//! Pure: the same facts give the same words. The nearest cause comes first; causes of causes follow.

use model::failure::{BadObject, Cause, Failure};
use model::progress::message;
use model::{Goal, Manifest, ObjectId, Progress, RevisionId, State, Status};

use self::chain::Chain;
use crate::call::Subject;
use crate::messages::ours::{Condition, ContainerStatus, DeviceStatus, FailureSummary, Why};

mod chain;
#[cfg(test)]
mod situations;

/// Missing objects that are named; the others are counted.
const MISSING_NAMED: usize = 3;

/// What is known about a revision beyond the device's status.
#[derive(Debug, Clone, PartialEq)]
pub struct RevisionFacts<'a> {
    /// Its progress.
    pub progress: Option<&'a Progress>,
    /// The newest failure record of it or of the same manifest.
    pub failure: Option<&'a Failure>,
    /// Manifest of the running revision.
    pub running: Option<&'a Manifest>,
    /// Manifest of the revision itself.
    pub manifest: Option<&'a Manifest>,
    /// Objects that it needs and that are not there.
    pub missing: &'a [BadObject],
}

/// What happened, without who: "ended with exit code 3 after 1 s".
pub fn cause(cause: &Cause) -> String {
    match cause {
        Cause::Exited {
            code,
            out_of_memory,
            damaged,
            uptime_s,
        } => {
            let how = exit(*code, *out_of_memory);
            let why = damaged.map_or_else(String::new, |object| format!("; {}", damage(&object)));
            format!("{how}, {uptime_s} s after its start, and no retry was left{why}")
        }
        Cause::StartFailed { error } => format!("could not be started: {error}"),
        Cause::GoalNotReached {
            goal,
            status,
            timeout_s,
            probe,
        } => {
            let probe = match probe {
                Some(probe) => format!("; its health check said: {probe}"),
                None => String::new(),
            };
            format!("was {status} and not {goal} after {timeout_s} s{probe}")
        }
        Cause::Unhealthy { probe } => format!("failed its health check too often: {probe}"),
        Cause::BadObjects { objects } => {
            let first = objects
                .first()
                .map(|bad| {
                    format!(
                        "; {} (needed by {}) is {}",
                        bad.object, bad.key, bad.problem
                    )
                })
                .unwrap_or_default();
            format!("{} object(s) cannot be used{first}", objects.len())
        }
        Cause::TriesUsedUp { tries } => format!(
            "the orchestrator or the machine stopped during each of {tries} tries, before the revision was committed"
        ),
        Cause::UnexpectedRollback => {
            "the boot loader did not start the revision, or fell back to the one before".to_owned()
        }
        Cause::BadManifest { error } => format!("its manifest could not be read back: {error}"),
        Cause::Asked => "a person or a client asked for the rollback".to_owned(),
        Cause::Internal { error } => format!("the device failed: {error}"),
    }
}

fn exit(code: u32, out_of_memory: bool) -> String {
    match code {
        _ if out_of_memory => "was killed because it used more memory than it may".to_owned(),
        255 => "ended, and how is not known".to_owned(),
        129..=192 => format!("was ended by signal {}", code - 128),
        code => format!("ended with exit code {code}"),
    }
}

/// What dm-verity has met.
fn damage(object: &ObjectId) -> String {
    format!(
        "a block of its root file system, object {}, does not match its hash: dm-verity answers reading it with an I/O error",
        object.short()
    )
}

/// A failure in one sentence, for lists.
pub fn failure_sentence(failure: &Failure) -> String {
    match &failure.container {
        Some(container) => format!("container {container} {}", cause(&failure.cause)),
        None => cause(&failure.cause),
    }
}

/// A failure as an entry of a list.
pub fn summary(failure: &Failure) -> FailureSummary {
    FailureSummary {
        id: failure.id,
        revision: failure.revision.clone(),
        time: failure.time.to_string(),
        summary: failure_sentence(failure),
    }
}

/// Answers `why`. `None` when nothing has this name: a revision without progress that is not the running one is not known.
pub fn explain(status: &DeviceStatus, facts: &RevisionFacts<'_>, subject: &Subject) -> Option<Why> {
    match subject {
        Subject::Device => Some(device(status, facts)),
        Subject::Container(name) => {
            let container = status
                .containers
                .iter()
                .find(|container| container.name == *name);
            match container {
                Some(container) => Some(container_why(status, facts, container)),
                None => group_why(status, facts, name.as_str()),
            }
        }
        Subject::Revision(revision) => revision_why(status, facts, revision),
    }
}

fn empty(subject: impl ToString, summary: String) -> Why {
    Why {
        subject: subject.to_string(),
        summary,
        because: Vec::new(),
        chain: Vec::new(),
        remedy: Vec::new(),
        failure: None,
        log: Vec::new(),
    }
}

fn device(status: &DeviceStatus, facts: &RevisionFacts<'_>) -> Why {
    let running = match &status.running {
        Some(revision) => format!("revision {revision} runs"),
        None => "no revision runs".to_owned(),
    };
    let condition = match status.condition {
        Condition::Starting => "the device is starting",
        Condition::Good => "all is well",
        Condition::Updating => "an update is under way",
        Condition::Degraded => "something that should run does not",
        Condition::ShuttingDown => "the device is shutting down",
    };
    let mut why = empty("device", format!("{condition}; {running}"));
    if let Some(trial) = &status.trial {
        why.because.push(trial_sentence(trial));
    }
    if let Some(problem) = &status.runtime_problem {
        why.because
            .push(format!("the run time does not answer: {problem}"));
        why.remedy
            .push("see that containerd runs; containers go on running meanwhile".to_owned());
    }
    below_goal(&mut why, status, facts.running);
    why.because.extend(status.notices.iter().cloned());
    if let Some(failure) = facts.failure {
        let what = failure_sentence(failure);
        why.because.push(format!(
            "last failure: revision {}: {what}",
            failure.revision
        ));
        why.failure = Some(failure.id);
        why.log.clone_from(&failure.log);
    }
    why
}

fn trial_sentence(trial: &crate::messages::ours::Trial) -> String {
    let commit = match trial.commit_in_s {
        Some(seconds) => format!("; it is committed in {seconds} s if nothing happens"),
        None => String::new(),
    };
    format!(
        "revision {} is being tried ({}), {} tries are left after this one{commit}",
        trial.revision, trial.phase, trial.tries_left
    )
}

fn container_sentence(container: &ContainerStatus) -> String {
    let reason = match container.reason.as_str() {
        "" => String::new(),
        reason => format!(": {reason}"),
    };
    format!(
        "container {} is {} and not {}{reason}",
        container.name, container.status, container.goal
    )
}

/// Adds the chain to what is told.
fn add_chain(why: &mut Why, chain: Chain<'_>) {
    let texts = chain.links.iter().map(|link| link.text.clone());
    why.because.extend(texts);
    why.chain.extend(chain.links);
}

/// Every container that is below its goal, with what it waits for.
fn below_goal(why: &mut Why, status: &DeviceStatus, manifest: Option<&Manifest>) {
    let mut chain = Chain::new(status, manifest);
    for container in status.containers.iter().filter(|container| !container.good) {
        chain.container(0, container);
    }
    add_chain(why, chain);
}

fn container_why(
    status: &DeviceStatus,
    facts: &RevisionFacts<'_>,
    container: &ContainerStatus,
) -> Why {
    let since = match container.uptime_s {
        Some(seconds) if container.pid.is_some() => format!(" since {seconds} s"),
        Some(_) | None => String::new(),
    };
    let summary = if container.user_stopped {
        format!(
            "{} is {} because a person stopped it",
            container.name, container.status
        )
    } else if container.good {
        format!(
            "{} is {}{since}, as it should be",
            container.name, container.status
        )
    } else {
        container_sentence(container)
    };
    let mut why = empty(&container.name, summary);
    if container.user_stopped {
        why.remedy.push(format!("coxctl start {}", container.name));
    }
    let mut chain = Chain::new(status, facts.running);
    chain.causes_of(0, container);
    add_chain(&mut why, chain);
    if !container.good && !container.user_stopped {
        why.remedy.push(format!("coxctl logs {}", container.name));
    }
    if let Some(problem) = &status.runtime_problem {
        why.because
            .push(format!("the run time does not answer: {problem}"));
    }
    why
}

fn group_why(status: &DeviceStatus, facts: &RevisionFacts<'_>, name: &str) -> Option<Why> {
    let group = status
        .groups
        .iter()
        .find(|group| group.name.as_str() == name)?;
    let members = || status.containers.iter().filter(|it| it.group == group.name);
    let below: Vec<_> = members().filter(|it| !it.good).collect();
    let all = members().count();
    if below.is_empty() {
        let summary = format!("group {name}: all {all} container(s) are as they should be");
        return Some(empty(name, summary));
    }
    let count = below.len();
    let summary = format!(
        "group {name} is {}: {count} of {all} container(s) are below their goals",
        group.status
    );
    let mut why = empty(name, summary);
    let mut chain = Chain::new(status, facts.running);
    for container in below {
        chain.container(0, container);
    }
    add_chain(&mut why, chain);
    why.remedy
        .push(format!("coxctl why CONTAINER, for one of group {name}"));
    Some(why)
}

fn revision_why(
    status: &DeviceStatus,
    facts: &RevisionFacts<'_>,
    revision: &RevisionId,
) -> Option<Why> {
    let running = status.running.as_ref() == Some(revision);
    if let Some(trial) = status
        .trial
        .as_ref()
        .filter(|trial| trial.revision == *revision)
    {
        let mut why = empty(revision, trial_sentence(trial));
        below_goal(&mut why, status, facts.manifest.or(facts.running));
        return Some(why);
    }
    let Some(progress) = facts.progress else {
        return running.then(|| empty(revision, format!("revision {revision} runs")));
    };
    let state = progress.status;
    let summary = match state {
        State::Done | State::Updated if running => format!("{revision} runs and is committed"),
        State::Done | State::Updated => {
            format!("{revision} was committed once; another revision runs now")
        }
        State::New => format!("{revision} is installed and was never run"),
        State::Queued | State::Downloading | State::InProgress | State::Testing => {
            match status.trial.as_ref().map(|trial| &trial.revision) {
                Some(other) => format!("{revision} waits until {other} has been tried"),
                None => format!("{revision} is under way: {}", progress.message),
            }
        }
        State::WontGo => format!(
            "{revision} was refused before anything was changed: {}",
            progress.message
        ),
        State::Error => error_summary(status, facts.failure, revision, &progress.message),
    };
    let mut why = empty(revision, summary);
    match state {
        State::New => never_run(&mut why, facts, revision),
        State::Error | State::WontGo => {
            if let Some(remedy) = refusal_remedy(&progress.message) {
                why.remedy.push(remedy.to_owned());
            }
            missing_lines(&mut why, facts);
            if let Some(failure) = facts.failure {
                memory_line(&mut why, facts, failure);
                failure_lines(&mut why, failure, status);
            }
        }
        State::Queued
        | State::Downloading
        | State::InProgress
        | State::Testing
        | State::Updated
        | State::Done => {}
    }
    Some(why)
}

/// Installed, and not asked for yet: what stands in the way of a run.
fn never_run(why: &mut Why, facts: &RevisionFacts<'_>, revision: &RevisionId) {
    missing_lines(why, facts);
    match facts.failure {
        Some(failure) => {
            why.because.push(format!(
                "the same manifest failed before as {} (failure {}): {}",
                failure.revision,
                failure.id,
                failure_sentence(failure)
            ));
            why.failure = Some(failure.id);
            why.remedy.push(format!("coxctl run --again {revision}"));
        }
        None => why.remedy.push(format!("coxctl run {revision}")),
    }
}

fn missing_lines(why: &mut Why, facts: &RevisionFacts<'_>) {
    for bad in facts.missing.iter().take(MISSING_NAMED) {
        why.because.push(format!(
            "object {} (needed by {}) is {}",
            bad.object, bad.key, bad.problem
        ));
    }
    if let Some(more) = facts.missing.len().checked_sub(MISSING_NAMED + 1) {
        why.because.push(format!("and {} more objects", more + 1));
    }
    if !facts.missing.is_empty() {
        why.remedy
            .push("upload the missing objects: `coxctl install` does".to_owned());
    }
}

/// What to do about a refusal, by the message that Pantavisor's clients know.
fn refusal_remedy(text: &str) -> Option<&'static str> {
    [
        (
            message::NOT_FOUND,
            "install the revision, then run it again",
        ),
        (
            message::BAD_FORMAT,
            "correct the manifest: `coxctl plan FILE` tells every problem with its place",
        ),
        (
            message::ABORTED,
            "it was called off before it began: run it again",
        ),
    ]
    .into_iter()
    .find_map(|(known, remedy)| (known == text).then_some(remedy))
}

/// The limit that the container hit which failed the revision.
fn memory_line(why: &mut Why, facts: &RevisionFacts<'_>, failure: &Failure) {
    if let Cause::Exited {
        out_of_memory: true,
        damaged: None,
        ..
    } = failure.cause
        && let Some(name) = &failure.container
    {
        let spec = facts.manifest.and_then(|manifest| manifest.container(name));
        why.because.push(chain::memory(name, spec));
    }
}

fn error_summary(
    status: &DeviceStatus,
    failure: Option<&Failure>,
    revision: &RevisionId,
    message: &str,
) -> String {
    let now = match failure.and_then(|failure| failure.rolled_back_to.as_ref()) {
        Some(to) => format!("; {to} runs since"),
        None => match &status.running {
            Some(running) => format!("; {running} runs"),
            None => String::new(),
        },
    };
    match failure {
        Some(failure) => {
            format!(
                "{revision} was rolled back: {}{now}",
                failure_sentence(failure)
            )
        }
        None => format!("{revision} was rolled back: {message}{now}"),
    }
}

fn failure_lines(why: &mut Why, failure: &Failure, status: &DeviceStatus) {
    why.failure = Some(failure.id);
    why.log.clone_from(&failure.log);
    if failure.revision.to_string() != why.subject {
        why.because.push(format!(
            "the same manifest failed before as revision {}",
            failure.revision
        ));
    }
    why.because
        .push(format!("it was tried {} time(s)", failure.tries));
    for container in &failure.containers {
        let own = failure.container.as_ref() == Some(&container.name);
        let reached = match container.goal {
            Goal::Mounted => container.status >= Status::Mounted,
            Goal::Started => matches!(container.status, Status::Started | Status::Ready),
            Goal::Ready => container.status == Status::Ready,
        };
        if own || reached {
            continue;
        }
        let code = match container.exit_code {
            Some(code) => format!("; its last run {}", exit(code, false)),
            None => String::new(),
        };
        why.because.push(format!(
            "at that time container {} was {} and not {}{code}",
            container.name, container.status, container.goal
        ));
    }
    pressure_lines(why, failure);
    if let Cause::BadObjects { .. } = failure.cause {
        why.remedy
            .push("upload the objects again, then run the revision again".to_owned());
    }
    if status.running.as_ref() != Some(&failure.revision) {
        why.remedy.push(format!(
            "install a corrected revision; to try this one once more: coxctl run --again {}",
            why.subject
        ));
    }
}

fn pressure_lines(why: &mut Why, failure: &Failure) {
    let pressure = &failure.pressure;
    for (what, value) in [
        ("a processor", pressure.cpu_some_avg10),
        ("memory", pressure.memory_some_avg10),
        ("the disk", pressure.io_some_avg10),
    ] {
        if let Some(percent) = value.filter(|percent| *percent >= 20.0) {
            why.because.push(format!(
                "the machine was short of resources: in {percent:.0} % of the time something waited for {what}"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::ours::{GroupStatus, Trial};
    use expect_test::{Expect, expect};
    use model::container::{RecoveryPolicy, RestartPolicy};
    use model::failure::{BadObject, ContainerAtFailure, Pressure};
    use model::progress::message;
    use model::{ObjectId, WallTime};

    pub(super) fn container(
        name: &str,
        group: &str,
        status: Status,
        goal: Goal,
    ) -> ContainerStatus {
        ContainerStatus {
            name: name.parse().unwrap(),
            group: group.parse().unwrap(),
            status,
            goal,
            good: matches!(status, Status::Started | Status::Ready),
            restart_policy: RestartPolicy::Container,
            roles: Vec::new(),
            recovery: RecoveryPolicy::OnFailure,
            retries: 0,
            max_retries: 5,
            stable: true,
            user_stopped: false,
            pid: Some(7),
            uptime_s: Some(90),
            restarts: 0,
            exit_code: None,
            out_of_memory: false,
            damaged: None,
            reason: String::new(),
            health_problem: None,
            fingerprint: ObjectId::of(name.as_bytes()),
        }
    }

    pub(super) fn status() -> DeviceStatus {
        let group = |name: &str, status| GroupStatus {
            name: name.parse().unwrap(),
            goal: Goal::Started,
            status,
            containers: 1,
        };
        DeviceStatus {
            version: "0".to_owned(),
            time: String::new(),
            uptime_s: 100,
            condition: Condition::Good,
            running: Some("locals/two".parse().unwrap()),
            manifest: None,
            committed: Some("locals/two".parse().unwrap()),
            previous: Some("locals/one".parse().unwrap()),
            trial: None,
            groups: vec![
                group("platform", Status::Ready),
                group("app", Status::Ready),
            ],
            containers: vec![
                container("db", "platform", Status::Started, Goal::Started),
                container("web", "app", Status::Ready, Goal::Ready),
            ],
            storage: None,
            last_failure: None,
            runtime_problem: None,
            notices: Vec::new(),
        }
    }

    pub(super) fn failure(cause: Cause, container: Option<&str>) -> Failure {
        Failure {
            version: 1,
            id: 3,
            revision: "locals/three".parse().unwrap(),
            manifest: None,
            rolled_back_to: Some("locals/two".parse().unwrap()),
            container: container.map(|name| name.parse().unwrap()),
            cause,
            message: message::CONTAINER_NOT_STARTED.to_owned(),
            time: WallTime(0),
            tries: 1,
            containers: vec![ContainerAtFailure {
                name: "db".parse().unwrap(),
                status: Status::Recovering,
                goal: Goal::Started,
                retries: 2,
                exit_code: Some(137),
            }],
            log: vec!["cannot open /data".to_owned()],
            pressure: Pressure {
                io_some_avg10: Some(63.2),
                ..Pressure::default()
            },
        }
    }

    fn check(status: &DeviceStatus, facts: &RevisionFacts<'_>, subject: &str, expected: &Expect) {
        let subject = match subject {
            "device" => Subject::Device,
            name => match name.parse() {
                Ok(revision) => Subject::Revision(revision),
                Err(_) => Subject::Container(name.parse().unwrap()),
            },
        };
        let why = explain(status, facts, &subject).expect("it is known");
        let mut text = format!("{}\n", why.summary);
        for (mark, lines) in [
            ("because", &why.because),
            ("remedy", &why.remedy),
            ("log", &why.log),
        ] {
            for line in lines {
                text.push_str(&format!("  {mark}: {line}\n"));
            }
        }
        expected.assert_eq(&text);
    }

    const NOTHING: RevisionFacts<'static> = RevisionFacts {
        progress: None,
        failure: None,
        running: None,
        manifest: None,
        missing: &[],
    };

    #[test]
    fn a_rolled_back_revision() {
        let error = Progress::new(State::Error, message::CONTAINER_NOT_STARTED, 0);
        let exited = Cause::Exited {
            code: 3,
            out_of_memory: false,
            damaged: None,
            uptime_s: 1,
        };
        let failure = failure(exited, Some("web"));
        let facts = RevisionFacts {
            progress: Some(&error),
            failure: Some(&failure),
            ..NOTHING
        };
        check(
            &status(),
            &facts,
            "locals/three",
            &expect![[r#"
                locals/three was rolled back: container web ended with exit code 3, 1 s after its start, and no retry was left; locals/two runs since
                  because: it was tried 1 time(s)
                  because: at that time container db was RECOVERING and not STARTED; its last run was ended by signal 9
                  because: the machine was short of resources: in 63 % of the time something waited for the disk
                  remedy: install a corrected revision; to try this one once more: coxctl run --again locals/three
                  log: cannot open /data
            "#]],
        );
        check(
            &status(),
            &facts,
            "locals/four",
            &expect![[r#"
                locals/four was rolled back: container web ended with exit code 3, 1 s after its start, and no retry was left; locals/two runs since
                  because: the same manifest failed before as revision locals/three
                  because: it was tried 1 time(s)
                  because: at that time container db was RECOVERING and not STARTED; its last run was ended by signal 9
                  because: the machine was short of resources: in 63 % of the time something waited for the disk
                  remedy: install a corrected revision; to try this one once more: coxctl run --again locals/four
                  log: cannot open /data
            "#]],
        );
    }

    #[test]
    fn other_causes() {
        let bad = BadObject {
            object: ObjectId::of(b""),
            key: "web/root.squashfs".to_owned(),
            problem: "corrupt".to_owned(),
        };
        for (one, expected) in [
            (
                Cause::GoalNotReached {
                    goal: Goal::Ready,
                    status: Status::Started,
                    timeout_s: 30,
                    probe: Some("connection refused".to_owned()),
                },
                "was STARTED and not READY after 30 s; its health check said: connection refused",
            ),
            (
                Cause::BadObjects { objects: vec![bad] },
                "1 object(s) cannot be used; e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 (needed by web/root.squashfs) is corrupt",
            ),
            (
                Cause::Exited {
                    code: 137,
                    out_of_memory: true,
                    damaged: None,
                    uptime_s: 9,
                },
                "was killed because it used more memory than it may, 9 s after its start, and no retry was left",
            ),
            (
                Cause::TriesUsedUp { tries: 3 },
                "the orchestrator or the machine stopped during each of 3 tries, before the revision was committed",
            ),
        ] {
            assert_eq!(cause(&one), expected);
        }
    }

    #[test]
    fn a_container_that_waits_for_another_one() {
        let mut status = status();
        status.condition = Condition::Degraded;
        let db = &mut status.containers[0];
        db.status = Status::Recovering;
        db.good = false;
        db.pid = None;
        db.exit_code = Some(137);
        db.retries = 3;
        db.reason = "retry in 20 s after exit code 137".to_owned();
        let web = &mut status.containers[1];
        web.status = Status::Blocked;
        web.good = false;
        web.pid = None;
        web.reason = "waits for group platform".to_owned();
        check(
            &status,
            &NOTHING,
            "web",
            &expect![[r#"
                container web is BLOCKED and not READY: waits for group platform
                  because: web waits for group platform
                  because: container db is RECOVERING and not STARTED: retry in 20 s after exit code 137
                  because: the last run of db was ended by signal 9
                  because: 3 of 5 retries of db are used
                  remedy: coxctl logs web
            "#]],
        );
        check(
            &status,
            &NOTHING,
            "db",
            &expect![[r#"
                container db is RECOVERING and not STARTED: retry in 20 s after exit code 137
                  because: the last run of db was ended by signal 9
                  because: 3 of 5 retries of db are used
                  remedy: coxctl logs db
            "#]],
        );
        check(
            &status,
            &NOTHING,
            "device",
            &expect![[r#"
                something that should run does not; revision locals/two runs
                  because: container db is RECOVERING and not STARTED: retry in 20 s after exit code 137
                  because: the last run of db was ended by signal 9
                  because: 3 of 5 retries of db are used
                  because: container web is BLOCKED and not READY: waits for group platform
                  because: web waits for group platform
                  because: container db is RECOVERING and not STARTED: retry in 20 s after exit code 137
            "#]],
        );
    }

    #[test]
    fn what_is_well_and_what_is_not_known() {
        check(
            &status(),
            &NOTHING,
            "web",
            &expect![[r#"
            web is READY since 90 s, as it should be
        "#]],
        );
        check(
            &status(),
            &NOTHING,
            "locals/two",
            &expect![[r#"
            revision locals/two runs
        "#]],
        );
        let new = Progress::new(State::New, message::READY_TO_RUN, 0);
        let facts = RevisionFacts {
            progress: Some(&new),
            failure: None,
            ..NOTHING
        };
        check(
            &status(),
            &facts,
            "locals/five",
            &expect![[r#"
            locals/five is installed and was never run
              remedy: coxctl run locals/five
        "#]],
        );
        let mut trying = status();
        trying.trial = Some(Trial {
            revision: "locals/five".parse().unwrap(),
            phase: "observing".to_owned(),
            tries_left: 2,
            commit_in_s: Some(4),
        });
        check(
            &trying,
            &facts,
            "locals/five",
            &expect![[r#"
            revision locals/five is being tried (observing), 2 tries are left after this one; it is committed in 4 s if nothing happens
        "#]],
        );
        let nobody = Subject::Container("nobody".parse().unwrap());
        assert_eq!(explain(&status(), &NOTHING, &nobody), None);
        let nothing = Subject::Revision("9".parse().unwrap());
        assert_eq!(explain(&status(), &NOTHING, &nothing), None);
    }
}
