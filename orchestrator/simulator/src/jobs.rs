//! Long work on the storage, one step at a time between the events of the loop, as a thread of its own would do it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use device::ports::{Job, JobEvent, Jobs as Port};
use model::failure::BadObject;
use store::Store;

use crate::bugs::Bug;
use crate::disk::Disk;
use crate::machine::{Happening, Machine};
use device::ports::Clock as _;

/// Until the next step of a job.
const STEP_MS: u64 = 3;

#[derive(Debug)]
struct UnderWay {
    job: Job,
    done: usize,
    bad: Vec<BadObject>,
}

/// The queue of jobs; clones share it.
#[derive(Debug, Clone)]
pub struct Jobs {
    machine: Rc<Machine>,
    queue: Rc<RefCell<VecDeque<UnderWay>>>,
    bug: Bug,
}

impl Jobs {
    /// No jobs.
    pub fn new(machine: Rc<Machine>, bug: Bug) -> Self {
        Self {
            machine,
            queue: Rc::default(),
            bug,
        }
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.borrow().is_empty()
    }

    /// All jobs are gone, with the orchestrator.
    pub(crate) fn forget(&self) {
        self.queue.borrow_mut().clear();
    }

    /// Does one step; tells what came of the job when it was the last.
    pub(crate) fn step(&self, store: &Store<Disk>) -> Option<JobEvent> {
        let mut queue = self.queue.borrow_mut();
        let work = queue.front_mut()?;
        let event = match &work.job {
            Job::Verify {
                revision,
                objects,
                reading,
            } => match objects.get(work.done) {
                Some(object) => {
                    if self.bug != Bug::VerifiesNothing {
                        let bad = store.verify_objects(std::slice::from_ref(object), *reading);
                        work.bad.extend(bad);
                    }
                    work.done += 1;
                    None
                }
                None => Some(JobEvent::Verified {
                    revision: revision.clone(),
                    bad: std::mem::take(&mut work.bad),
                }),
            },
            Job::Seal { objects, last } => {
                Some(JobEvent::Sealed(store.seal_objects(objects, *last)))
            }
            Job::Collect { keep } => {
                let now = crate::clock::Clock(Rc::clone(&self.machine)).now();
                let keep = if self.bug == Bug::CollectsEverything {
                    &[]
                } else {
                    &keep[..]
                };
                let result = store.collect(keep, now);
                Some(JobEvent::Collected {
                    result: result
                        .map(|collected| collected.bytes)
                        .map_err(|error| store::explain(&error)),
                })
            }
        };
        if event.is_some() {
            queue.pop_front();
        }
        if !queue.is_empty() {
            self.machine.after(STEP_MS, Happening::Job);
        }
        event
    }
}

impl Port for Jobs {
    fn submit(&mut self, job: Job) {
        let mut queue = self.queue.borrow_mut();
        if queue.is_empty() {
            self.machine.after(STEP_MS, Happening::Job);
        }
        queue.push_back(UnderWay {
            job,
            done: 0,
            bad: Vec::new(),
        });
    }
}
