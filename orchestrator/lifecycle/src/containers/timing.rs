//! How long each container took to stop, to start and to become ready when that was seen last. A plan expects the same next time.
//!
//! Known since the start of the orchestrator, not kept on the disk. Clearing up what had ended by itself counts as no stop. Times of
//! a container that is only mounted are its own: unmounting is quicker than stopping.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{ContainerName, Goal, Instant, limits};

use crate::runtime::{Condition, Instance, RuntimeCommand, RuntimeEvent};

/// Containers of which times are kept: those of two revisions without a name in common.
const SEEN_MAX: usize = 2 * limits::CONTAINERS_MAX;

/// What was seen last of one container; `None`: never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Took {
    /// From the request to stop until nothing was left of it.
    pub stop: Option<Duration>,
    /// From the request to start until its first process ran, or its volumes were mounted.
    pub start: Option<Duration>,
    /// From the request to start until it was ready.
    pub ready: Option<Duration>,
}

#[derive(Debug, Clone, Default)]
struct Seen {
    running: Took,
    mounted: Took,
    /// Whether the newest instance was to be ready from its start on: one that had to be so later may have been long before.
    is_to_be_ready: bool,
    /// Whether the newest instance is only mounted.
    is_mounted: bool,
    /// Generation and time of the last request to start.
    start: Option<(u64, Instant)>,
    /// The same of the last request to stop.
    stop: Option<(u64, Instant)>,
    /// The generation that ended by itself.
    ended: Option<u64>,
}

impl Seen {
    fn took(&mut self) -> &mut Took {
        if self.is_mounted {
            &mut self.mounted
        } else {
            &mut self.running
        }
    }
}

/// The times of all containers.
#[derive(Debug, Clone, Default)]
pub(super) struct Timing(BTreeMap<ContainerName, Seen>);

impl Timing {
    /// As one that runs, or is only mounted.
    pub(super) fn of(&self, name: &ContainerName, mounted: bool) -> Took {
        let seen = self.0.get(name);
        seen.map(|seen| match mounted {
            true => seen.mounted,
            false => seen.running,
        })
        .unwrap_or_default()
    }

    /// The loop hands this command to the run time now.
    pub(super) fn asked(&mut self, now: Instant, command: &RuntimeCommand) {
        match command {
            RuntimeCommand::Start(spec) | RuntimeCommand::Mount(spec) => {
                let generation = spec.instance.generation;
                if let Some(seen) = self.seen(&spec.instance) {
                    seen.start = Some((generation, now));
                    seen.is_to_be_ready = spec.container.goal == Goal::Ready;
                    seen.is_mounted = matches!(command, RuntimeCommand::Mount(_));
                }
            }
            RuntimeCommand::Stop { instance, .. } => {
                if let Some(seen) = self.seen(instance) {
                    let running = seen.ended != Some(instance.generation);
                    seen.stop = running.then_some((instance.generation, now));
                }
            }
            RuntimeCommand::MarkReady(instance) => {
                if let Some(seen) = self.seen(instance)
                    && seen.is_to_be_ready
                    && let Some(took) = since(seen.start, instance, now)
                {
                    seen.took().ready = Some(took);
                }
            }
            RuntimeCommand::List | RuntimeCommand::Probe { .. } => {}
        }
    }

    /// The run time tells this now.
    pub(super) fn told(&mut self, now: Instant, event: &RuntimeEvent) {
        match event {
            RuntimeEvent::Mounted(instance) | RuntimeEvent::Started { instance, .. } => {
                if let Some(seen) = self.seen(instance)
                    && let Some(took) = since(seen.start, instance, now)
                {
                    seen.took().start = Some(took);
                }
            }
            RuntimeEvent::Exited { instance, .. } => {
                if let Some(seen) = self.seen(instance)
                    && since(seen.stop, instance, now).is_none()
                {
                    seen.ended = Some(instance.generation);
                }
            }
            RuntimeEvent::Stopped(instance) => {
                if let Some(seen) = self.seen(instance)
                    && let Some(took) = since(seen.stop, instance, now)
                {
                    seen.took().stop = Some(took);
                    seen.stop = None;
                }
            }
            RuntimeEvent::Listed(found) => {
                for found in found {
                    if let Some(seen) = self.seen(&found.instance)
                        && seen.start.is_none()
                    {
                        seen.is_mounted = found.condition == Condition::Mounted;
                    }
                }
            }
            RuntimeEvent::StartFailed { .. }
            | RuntimeEvent::Probed { .. }
            | RuntimeEvent::Disconnected { .. }
            | RuntimeEvent::Connected => {}
        }
    }

    /// When there is no room for another one, it is not remembered.
    fn seen(&mut self, instance: &Instance) -> Option<&mut Seen> {
        if self.0.len() >= SEEN_MAX && !self.0.contains_key(&instance.container) {
            self.0.retain(|_, seen| seen.stop.is_some());
            if self.0.len() >= SEEN_MAX {
                return None;
            }
        }
        Some(self.0.entry(instance.container.clone()).or_default())
    }
}

fn since(asked: Option<(u64, Instant)>, instance: &Instance, now: Instant) -> Option<Duration> {
    asked
        .filter(|(generation, _)| *generation == instance.generation)
        .map(|(_, at)| now.since(at))
}

#[cfg(test)]
mod tests {
    use model::ObjectId;

    use super::*;
    use crate::runtime::Exit;

    fn instance(name: &str, generation: u64) -> Instance {
        Instance {
            container: name.parse().unwrap(),
            fingerprint: ObjectId::of(b""),
            generation,
        }
    }

    fn stop(name: &str, generation: u64) -> RuntimeCommand {
        RuntimeCommand::Stop {
            instance: instance(name, generation),
            signal: 15,
            timeout: Duration::from_secs(1),
        }
    }

    #[test]
    fn a_stop_counts_unless_it_only_clears_up() {
        let mut timing = Timing::default();
        let web: ContainerName = "web".parse().unwrap();
        timing.asked(Instant(10), &stop("web", 1));
        timing.told(Instant(15), &RuntimeEvent::Stopped(instance("web", 2)));
        assert_eq!(
            timing.of(&web, false),
            Took::default(),
            "of another instance"
        );
        timing.told(Instant(30), &RuntimeEvent::Stopped(instance("web", 1)));
        assert_eq!(timing.of(&web, false).stop, Some(Duration::from_millis(20)));
        let exit = Exit {
            code: 1,
            out_of_memory: false,
            damaged: None,
        };
        let ended = RuntimeEvent::Exited {
            instance: instance("web", 2),
            exit,
        };
        timing.told(Instant(40), &ended);
        timing.asked(Instant(50), &stop("web", 2));
        timing.told(Instant(51), &RuntimeEvent::Stopped(instance("web", 2)));
        assert_eq!(timing.of(&web, false).stop, Some(Duration::from_millis(20)));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut timing = Timing::default();
        for n in 0..SEEN_MAX + 10 {
            timing.asked(Instant(0), &stop(&format!("c{n}"), 1));
        }
        assert_eq!(timing.0.len(), SEEN_MAX);
        for n in 0..SEEN_MAX {
            let gone = RuntimeEvent::Stopped(instance(&format!("c{n}"), 1));
            timing.told(Instant(1), &gone);
        }
        timing.asked(Instant(2), &stop("new", 1));
        timing.told(Instant(5), &RuntimeEvent::Stopped(instance("new", 1)));
        let new = timing.of(&"new".parse().unwrap(), false);
        assert_eq!(new.stop, Some(Duration::from_millis(3)));
    }
}
