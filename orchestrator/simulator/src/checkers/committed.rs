//! Invariant 3: `committed` moves only to a revision that was observed healthy.
//!
//! Follows what the loop was really told about each container. When the durable marker commits a revision that was not committed
//! before, each of its containers must have held its goal for the commit delay, by that account.

use std::collections::{BTreeMap, BTreeSet};

use device::ports::{Condition, Instance, RuntimeEvent};
use model::{ContainerName, Goal, RevisionId};

use super::{Checker, Facts, Rest};
use crate::machine::TrueTime;
use device::handle::{Action, Command, Request};

#[derive(Debug, Clone)]
struct Held {
    instance: Instance,
    goal: Goal,
    /// Since when it has been at this goal.
    since: TrueTime,
    running_since: TrueTime,
    completed: bool,
}

/// See the file.
#[derive(Debug, Default)]
pub struct Committed {
    held: BTreeMap<ContainerName, Held>,
    stopped: BTreeSet<ContainerName>,
    committed: Option<RevisionId>,
    ever: BTreeSet<RevisionId>,
    seen_marker: bool,
}

impl Committed {
    fn begin(&mut self, instance: &Instance, goal: Goal, since: TrueTime, running_since: TrueTime) {
        let held = Held {
            instance: instance.clone(),
            goal,
            since,
            running_since,
            completed: false,
        };
        self.held.insert(instance.container.clone(), held);
    }

    fn ready(&mut self, name: &ContainerName, now: TrueTime) {
        if let Some(held) = self.held.get_mut(name)
            && held.goal == Goal::Started
            && !held.completed
        {
            held.goal = Goal::Ready;
            held.since = now;
        }
    }

    fn end(&mut self, instance: &Instance, completed: bool) {
        if let Some(held) = self.held.get_mut(&instance.container)
            && held.instance == *instance
        {
            if completed || held.completed {
                held.completed = true;
            } else {
                self.held.remove(&instance.container);
            }
        }
    }

    fn look(&mut self, facts: &Facts<'_>) -> Result<(), String> {
        let Some(marker) = facts.marker else {
            return Ok(());
        };
        let first = !std::mem::replace(&mut self.seen_marker, true);
        let updated = facts
            .progress
            .iter()
            .filter(|(revision, progress)| {
                progress.status == "UPDATED" && !self.ever.contains(*revision)
            })
            .map(|(revision, _)| revision.clone());
        for revision in updated.collect::<Vec<_>>() {
            self.ever.insert(revision.clone());
            self.judge(facts, &revision)?;
        }
        if marker.committed == self.committed {
            return Ok(());
        }
        self.committed = marker.committed.clone();
        let Some(revision) = &marker.committed else {
            return Ok(());
        };
        // What a device finds at its first start, and what was good before, needs no trial.
        if !self.ever.insert(revision.clone()) || first {
            return Ok(());
        }
        self.judge(facts, revision)
    }

    /// Whether every container of a revision holds its goal for long enough.
    fn judge(&self, facts: &Facts<'_>, revision: &RevisionId) -> Result<(), String> {
        let Some(software) = facts.software(revision) else {
            return Ok(()); // invariant 2 tells of it
        };
        let delay = u64::try_from(facts.known.commit_delay.as_millis()).unwrap_or(u64::MAX);
        for piece in &software.pieces {
            if self.stopped.contains(&piece.name) {
                continue;
            }
            let held = self.held.get(&piece.name);
            let good = held.is_some_and(|held| {
                let since = if piece.goal == Goal::Ready {
                    held.since
                } else {
                    held.running_since
                };
                held.instance.fingerprint == piece.fingerprint
                    && held.goal >= piece.goal
                    && since + delay <= facts.now
            });
            if !good {
                return Err(format!(
                    "{revision} was committed, and its container {} had not held {} for {delay} ms: {held:?}",
                    piece.name, piece.goal
                ));
            }
        }
        Ok(())
    }
}

impl Checker for Committed {
    fn invariant(&self) -> u8 {
        3
    }

    fn asked(&mut self, _: &Facts<'_>, _: u64, request: &Request) {
        if let Request::Control { container, action } = request {
            match action {
                Action::Stop => self.stopped.insert(container.clone()),
                Action::Start | Action::Restart => self.stopped.remove(container),
            };
        }
        if let Request::Command(Command::FactoryReset { .. }) = request {
            // Proven when it was made revision 0, in this life or at the factory.
            self.ever.insert(RevisionId::factory());
        }
    }

    fn told(&mut self, facts: &Facts<'_>, event: &RuntimeEvent) {
        match event {
            RuntimeEvent::Started { instance, .. } => {
                let known = self.held.get(&instance.container);
                let again = known.is_some_and(|held| {
                    held.instance == *instance || held.instance.generation > instance.generation
                });
                if !again {
                    self.begin(instance, Goal::Started, facts.now, facts.now);
                }
            }
            RuntimeEvent::Mounted(instance) => {
                self.begin(instance, Goal::Mounted, facts.now, facts.now);
            }
            RuntimeEvent::Exited { instance, exit } => self.end(instance, exit.code == 0),
            RuntimeEvent::Stopped(instance) => {
                let known = self.held.get(&instance.container);
                // What ended as it should is tidied up.
                if known.is_some_and(|held| !held.completed) {
                    self.end(instance, false);
                }
            }
            RuntimeEvent::StartFailed { instance, .. } => self.end(instance, false),
            RuntimeEvent::Probed { instance, outcome } => {
                if outcome.is_ok() {
                    self.ready(&instance.container.clone(), facts.now);
                }
            }
            RuntimeEvent::Listed(found) => {
                self.held.retain(|_, held| {
                    held.completed || found.iter().any(|it| it.instance == held.instance)
                });
                for found in found {
                    let known = self.held.get(&found.instance.container);
                    if known.is_some_and(|held| held.instance == found.instance) {
                        if let Condition::Ended(exit) = found.condition {
                            self.end(&found.instance, exit.code == 0);
                        }
                        continue;
                    }
                    match found.condition {
                        Condition::Running { uptime, .. } => {
                            let uptime = u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX);
                            let since = facts.now.saturating_sub(uptime);
                            let goal = if found.ready {
                                Goal::Ready
                            } else {
                                Goal::Started
                            };
                            self.begin(&found.instance, goal, since, since);
                        }
                        Condition::Mounted => {
                            self.begin(&found.instance, Goal::Mounted, facts.now, facts.now);
                        }
                        Condition::Ended(exit) if exit.code == 0 => {
                            self.begin(&found.instance, Goal::Started, facts.now, facts.now);
                            self.end(&found.instance, true);
                        }
                        Condition::Ended(_) => {}
                    }
                }
            }
            RuntimeEvent::Disconnected { .. } | RuntimeEvent::Connected => {}
        }
    }

    fn signalled(&mut self, facts: &Facts<'_>, container: &ContainerName) {
        self.ready(container, facts.now);
    }

    fn changed(&mut self, facts: &Facts<'_>) -> Result<(), String> {
        self.look(facts)
    }

    fn started(&mut self, facts: &Facts<'_>, cut: bool) -> Result<(), String> {
        // The marker that a boot finds may have become durable only in the power cut itself: judged by what was held then.
        let result = self.look(facts);
        if cut {
            self.held.clear();
        }
        result
    }

    fn settled(&mut self, facts: &Facts<'_>, _: &Rest) -> Result<(), String> {
        self.look(facts)
    }
}
