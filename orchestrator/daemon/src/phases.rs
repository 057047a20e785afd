//! Phases: what an init does, as data. Each list is in order; each phase has a name, a bounded time and what its failure means.
//!
//! A phase that may hang does its work in a child ([`Limit::run`]), so that a dying disk costs the phase's time and no more. While a phase
//! waits, the watchdog is kicked: a list of phases always comes to its end. What runs between the lists is in [`crate::init`].

use std::time::{Duration, Instant};

use linux::children::{ChildError, in_child};

use crate::config::Config;

pub(crate) mod boot;
pub(crate) mod shutdown;
mod storage;

/// How long a phase may take.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Time {
    /// So long.
    Seconds(u64),
    /// As this setting says.
    Setting(&'static str),
}

/// What a failure means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It is told, and the next phase comes.
    GoOn,
    /// The list ends here: the machine cannot run a device.
    End,
}

/// What a phase did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Done {
    /// Its work.
    Yes,
    /// Its work, of which this is worth telling.
    Told(String),
    /// Nothing: there was nothing to do, or a setting says so.
    Skipped,
}

/// What a phase works on.
pub(crate) trait Subject {
    /// For times that are settings.
    fn config(&self) -> &Config;
    /// Postpones the reset.
    fn kick(&mut self);
}

/// One phase.
#[derive(Debug)]
pub(crate) struct Phase<S> {
    /// For the log.
    pub(crate) name: &'static str,
    /// How long it may take.
    pub(crate) time: Time,
    /// What its failure means.
    pub(crate) failure: Failure,
    /// Its work. The error is a sentence for a person.
    pub(crate) run: fn(&mut S, &Limit) -> Result<Done, String>,
}

/// The end of a phase's time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    end: Instant,
}

impl Limit {
    pub(crate) fn of(time: Duration) -> Self {
        Self {
            end: Instant::now() + time,
        }
    }

    pub(crate) fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    pub(crate) fn is_over(&self) -> bool {
        self.left().is_zero()
    }

    /// Does work that may hang, in a child, for as long as is left.
    pub(crate) fn run<S: Subject>(
        &self,
        subject: &mut S,
        work: impl FnOnce() -> Result<String, String>,
    ) -> Result<String, String> {
        in_child(self.left(), &mut || subject.kick(), work).map_err(|error| match &error {
            ChildError::Failed(said) => said.clone(),
            ChildError::Start(_) | ChildError::TooSlow { .. } | ChildError::Died => {
                store::explain(&error)
            }
        })
    }
}

/// Runs the phases in order. The error is the name of the phase that ended the list.
pub(crate) fn run<S: Subject>(phases: &[Phase<S>], subject: &mut S) -> Result<(), &'static str> {
    for phase in phases {
        let time = match phase.time {
            Time::Seconds(seconds) => Duration::from_secs(seconds),
            Time::Setting(name) => subject.config().duration(name),
        };
        let from = Instant::now();
        let result = (phase.run)(subject, &Limit::of(time));
        subject.kick();
        let (name, took) = (phase.name, from.elapsed().as_millis());
        match (result, phase.failure) {
            (Ok(Done::Yes), _) => tracing::debug!("{name}: done in {took} ms"),
            (Ok(Done::Told(told)), _) => tracing::info!("{name}: {told} ({took} ms)"),
            (Ok(Done::Skipped), _) => tracing::debug!("{name}: skipped"),
            (Err(error), Failure::GoOn) => tracing::warn!("{name}: {error} ({took} ms); going on"),
            (Err(error), Failure::End) => {
                tracing::error!("{name}: {error} ({took} ms)");
                return Err(name);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counted {
        config: Config,
        ran: Vec<&'static str>,
        kicks: u32,
    }

    impl Subject for Counted {
        fn config(&self) -> &Config {
            &self.config
        }
        fn kick(&mut self) {
            self.kicks += 1;
        }
    }

    fn counted() -> Counted {
        let mut config = Config::defaults();
        config
            .set("storage-wait", "1s", crate::config::Source::CommandLine)
            .unwrap();
        Counted {
            config,
            ran: Vec::new(),
            kicks: 0,
        }
    }

    const fn phase(
        failure: Failure,
        run: fn(&mut Counted, &Limit) -> Result<Done, String>,
    ) -> Phase<Counted> {
        Phase {
            name: "phase",
            time: Time::Setting("storage-wait"),
            failure,
            run,
        }
    }

    fn good(subject: &mut Counted, _: &Limit) -> Result<Done, String> {
        subject.ran.push("good");
        Ok(Done::Yes)
    }

    fn bad(subject: &mut Counted, _: &Limit) -> Result<Done, String> {
        subject.ran.push("bad");
        Err("it is broken".to_owned())
    }

    fn hangs(subject: &mut Counted, limit: &Limit) -> Result<Done, String> {
        subject.ran.push("hangs");
        let said = limit.run(subject, || {
            std::thread::sleep(Duration::from_secs(60));
            Ok(String::new())
        });
        Ok(Done::Told(said.unwrap_err()))
    }

    #[test]
    fn a_failure_goes_on_or_ends() {
        let mut subject = counted();
        let list = [
            phase(Failure::End, good),
            phase(Failure::GoOn, bad),
            phase(Failure::GoOn, good),
            phase(Failure::End, bad),
            phase(Failure::GoOn, good),
        ];
        assert_eq!(run(&list, &mut subject), Err("phase"));
        assert_eq!(subject.ran, ["good", "bad", "good", "bad"]);
        assert_eq!(subject.kicks, 4);
    }

    #[test]
    fn a_hang_leads_to_the_next_phase() {
        let mut subject = counted();
        let from = Instant::now();
        let list = [phase(Failure::End, hangs), phase(Failure::End, good)];
        assert_eq!(run(&list, &mut subject), Ok(()));
        assert_eq!(subject.ran, ["hangs", "good"]);
        assert!(from.elapsed() >= Duration::from_secs(1));
        assert!(from.elapsed() < Duration::from_secs(30));
        assert!(subject.kicks >= 3, "it is kicked while it hangs");
    }
}
