//! What everything simulated hangs on: true time, what is due, what was seen, how the boot ends.
//!
//! True time runs from the start of a life and never jumps; what the device sees of it is in `clock`. Nothing here is random and
//! nothing waits: the world takes the next due thing and moves time to it.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::rc::Rc;
use std::sync::Arc;

use device::ports::{Ending, Exit, Instance, RuntimeEvent};
use model::{ContainerName, Instant, RevisionId};

/// The bytes of both copies of the marker.
pub type Markers = [Option<Arc<[u8]>>; 2];

/// Milliseconds since the start of a life.
pub type TrueTime = u64;

/// Something that happens at a time, by itself.
#[derive(Debug, Clone, PartialEq)]
pub enum Happening {
    /// The loop is told; lost when the orchestrator is killed before.
    Told(RuntimeEvent),
    /// The command at the head of this container's queue is done.
    Carried(ContainerName),
    /// A process gets to a point of its script; by its number.
    Process(u32),
    /// The run time goes away (`false`) or comes back.
    Link(bool),
    /// The job at the head of the queue goes on.
    Job,
}

/// What checkers may look at beside the disk: the truth, not what the loop believes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// The loop asked for a start or a mount.
    StartAsked {
        /// Which.
        instance: Instance,
        /// For which revision.
        revision: RevisionId,
        /// Both copies of the marker as they were durable at that moment.
        markers: Markers,
    },
    /// The loop asked for a stop.
    StopAsked {
        /// Which.
        instance: Instance,
        /// Both copies of the marker as they were durable at that moment.
        markers: Markers,
    },
    /// A first process runs.
    Ran {
        /// Which.
        instance: Instance,
        /// For which revision.
        revision: RevisionId,
        /// What is wrong with the objects that it runs from, if anything.
        damaged: Option<String>,
    },
    /// A first process ended.
    Ended {
        /// Which.
        instance: Instance,
        /// How.
        exit: Exit,
    },
}

#[derive(Debug)]
struct Due {
    at: TrueTime,
    sequence: u64,
    what: Happening,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    /// The earliest, then the one put in first, is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

/// The machine; shared by all ports of one life.
#[derive(Debug, Default)]
pub struct Machine {
    now: Cell<TrueTime>,
    booted_at: Cell<TrueTime>,
    wall_offset: Cell<i64>,
    clock_factor: Cell<u64>,
    sequence: Cell<u64>,
    due: RefCell<BinaryHeap<Due>>,
    seen: RefCell<Vec<Seen>>,
    ending: Cell<Option<Ending>>,
    power_lost: Cell<bool>,
    log: RefCell<Option<Vec<String>>>,
}

impl Machine {
    /// A machine at time zero; with a log of what happens when `logged`.
    pub fn new(logged: bool) -> Rc<Self> {
        Rc::new(Self {
            log: RefCell::new(logged.then(Vec::new)),
            wall_offset: Cell::new(1_790_000_000_000),
            clock_factor: Cell::new(1),
            ..Self::default()
        })
    }

    /// True time.
    pub fn now(&self) -> TrueTime {
        self.now.get()
    }

    /// True time of the last boot.
    pub fn booted_at(&self) -> TrueTime {
        self.booted_at.get()
    }

    /// The monotonic clock as the device reads it: it may run too fast.
    pub fn clock(&self) -> Instant {
        let uptime = self.now().saturating_sub(self.booted_at());
        Instant(uptime.saturating_mul(self.clock_factor.get().max(1)))
    }

    /// When the device's clock will show this.
    pub(crate) fn true_time(&self, at: Instant) -> TrueTime {
        self.booted_at() + at.0.div_ceil(self.clock_factor.get().max(1))
    }

    /// Makes the device's clock run so many times too fast.
    pub(crate) fn set_clock_factor(&self, factor: u64) {
        self.clock_factor.set(factor);
    }

    /// What the wall clock is ahead of true time.
    pub fn wall_offset(&self) -> i64 {
        self.wall_offset.get()
    }

    /// Makes the wall clock jump.
    pub fn set_wall_offset(&self, offset: i64) {
        self.wall_offset.set(offset);
    }

    /// Moves time forward; never back.
    pub(crate) fn advance_to(&self, at: TrueTime) {
        self.now.set(at.max(self.now.get()));
    }

    /// Lets something happen after so many milliseconds.
    pub fn after(&self, delay: u64, what: Happening) {
        self.at(self.now().saturating_add(delay), what);
    }

    /// Lets something happen at a time.
    pub(crate) fn at(&self, at: TrueTime, what: Happening) {
        let sequence = self.sequence.get();
        self.sequence.set(sequence + 1);
        self.due.borrow_mut().push(Due { at, sequence, what });
    }

    /// When the next thing happens.
    pub(crate) fn next_due(&self) -> Option<TrueTime> {
        self.due.borrow().peek().map(|due| due.at)
    }

    /// Takes the next thing if it is due by now.
    pub(crate) fn take_due(&self) -> Option<Happening> {
        let mut due = self.due.borrow_mut();
        if due.peek()?.at > self.now() {
            return None;
        }
        due.pop().map(|due| due.what)
    }

    /// Power is gone: nothing that was due happens, the monotonic clock starts over.
    pub(crate) fn start_over(&self) {
        self.due.borrow_mut().clear();
        self.booted_at.set(self.now());
        self.ending.set(None);
        self.power_lost.set(false);
    }

    /// The orchestrator is gone: what it would have been told, and its jobs, are lost.
    pub(crate) fn forget_orchestrator(&self) {
        self.due
            .borrow_mut()
            .retain(|due| matches!(due.what, Happening::Process(_)));
        self.ending.set(None);
    }

    /// Shows something to the checkers.
    pub(crate) fn saw(&self, seen: Seen) {
        self.seen.borrow_mut().push(seen);
    }

    /// What was seen since the last call.
    pub(crate) fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.borrow_mut())
    }

    /// The loop ended the boot.
    pub(crate) fn end(&self, ending: Ending) {
        self.ending.set(Some(ending));
    }

    /// How the loop ended the boot, if it did.
    pub(crate) fn ending(&self) -> Option<Ending> {
        self.ending.get()
    }

    /// The power is lost now: a container killed the machine.
    pub(crate) fn lose_power(&self) {
        self.power_lost.set(true);
    }

    /// Whether the power was lost since the last boot.
    pub(crate) fn power_lost(&self) -> bool {
        self.power_lost.get()
    }

    /// Notes a line; made only when this life is logged, because a million lives are not.
    pub fn note(&self, line: impl FnOnce() -> String) {
        if let Some(log) = self.log.borrow_mut().as_mut() {
            let now = self.now();
            let line = line();
            log.push(format!("{:>9}.{:03} {}", now / 1000, now % 1000, line));
        }
    }

    /// The log so far.
    pub fn log(&self) -> String {
        self.log
            .borrow()
            .as_ref()
            .map(|lines| lines.join("\n"))
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_happen_in_order_of_time_then_of_asking() {
        let machine = Machine::new(false);
        machine.after(10, Happening::Process(1));
        machine.after(5, Happening::Process(2));
        machine.after(10, Happening::Process(3));
        assert_eq!(machine.take_due(), None);
        machine.advance_to(10);
        let order: Vec<_> = std::iter::from_fn(|| machine.take_due()).collect();
        assert_eq!(
            order,
            [
                Happening::Process(2),
                Happening::Process(1),
                Happening::Process(3)
            ]
        );
        machine.advance_to(3);
        assert_eq!(machine.now(), 10, "time does not go back");
    }

    #[test]
    fn processes_outlive_the_orchestrator_and_nothing_outlives_the_power() {
        let machine = Machine::new(false);
        machine.after(1, Happening::Job);
        machine.after(1, Happening::Process(1));
        machine.forget_orchestrator();
        machine.advance_to(1);
        assert_eq!(machine.take_due(), Some(Happening::Process(1)));
        machine.after(1, Happening::Process(1));
        machine.start_over();
        assert_eq!(machine.next_due(), None);
        assert_eq!(machine.booted_at(), 1);
    }
}
