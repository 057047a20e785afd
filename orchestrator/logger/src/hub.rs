//! What the threads of the process share: the sources that are taken up, each with its queue.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use linux::pipes::Waker;
use model::WallTime;

use crate::limits;
use crate::queue::{Block, Origin, Queue};
use crate::spool::{Settings, Source, Spool};

/// A source that was taken up.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) name: String,
    pub(crate) source: Source,
    pub(crate) queue: Mutex<Queue>,
    /// Nothing comes any more: when the queue is empty, all is written.
    closed: AtomicBool,
}

impl Channel {
    fn new(name: String, source: Source) -> Self {
        Self {
            name,
            source,
            queue: Mutex::new(Queue::new(limits::QUEUE_BYTES_MAX)),
            closed: AtomicBool::new(false),
        }
    }

    pub(crate) fn queue(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }

    pub(crate) fn hold_up(&self, now: Instant) -> Duration {
        self.queue().hold_up(now)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

#[derive(Debug, Default)]
struct Work {
    waiting: bool,
    /// Somebody waits for an end: not gathered any longer.
    urgent: bool,
    stopping: bool,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Write what waits.
    Write,
    /// Write what waits; then end.
    Stop,
}

/// Shared by all threads.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) spool: Spool,
    /// Wakes the thread that takes what comes.
    pub(crate) intake: Waker,
    settings: Mutex<Settings>,
    channels: Mutex<BTreeMap<String, Arc<Channel>>>,
    work: Mutex<Work>,
    worked: Condvar,
    /// A source is done: another one may have its name by now.
    forgotten: AtomicBool,
}

impl Hub {
    pub(crate) fn new(spool: Spool, settings: Settings) -> io::Result<Self> {
        Ok(Self {
            spool,
            intake: Waker::new()?,
            settings: Mutex::new(settings),
            channels: Mutex::default(),
            work: Mutex::default(),
            worked: Condvar::new(),
            forgotten: AtomicBool::new(false),
        })
    }

    pub(crate) fn settings(&self) -> Settings {
        lock(&self.settings).clone()
    }

    pub(crate) fn set_settings(&self, settings: Settings) {
        *lock(&self.settings) = settings;
    }

    pub(crate) fn channels(&self) -> Vec<Arc<Channel>> {
        lock(&self.channels).values().cloned().collect()
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<Channel>> {
        lock(&self.channels).get(name).cloned()
    }

    /// The newest source of a control group.
    pub(crate) fn of_group(&self, id: &str) -> Option<Arc<Channel>> {
        let channels = lock(&self.channels);
        let of_id = channels.values().filter(|channel| channel.source.id == id);
        let newest = of_id.max_by_key(|channel| {
            let generation = channel.name.rsplit_once('.').map(|(_, number)| number);
            generation.and_then(|number| number.parse::<u64>().ok())
        });
        newest.cloned()
    }

    pub(crate) fn add(&self, name: String, source: Source) -> Arc<Channel> {
        let channel = Arc::new(Channel::new(name.clone(), source));
        let mut channels = lock(&self.channels);
        channels.insert(name, Arc::clone(&channel));
        share(&channels);
        channel
    }

    pub(crate) fn forget(&self, name: &str) {
        let mut channels = lock(&self.channels);
        channels.remove(name);
        share(&channels);
        drop(channels);
        self.forgotten.store(true, Ordering::Release);
        self.intake.wake();
    }

    /// Whether a source was forgotten since this was asked last.
    pub(crate) fn has_forgotten(&self) -> bool {
        self.forgotten.swap(false, Ordering::AcqRel)
    }

    /// Queues what came from a source.
    pub(crate) fn push(&self, channel: &Channel, origin: Origin, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let block = Block {
            time: now(),
            origin,
            bytes,
        };
        channel.queue().push(block);
        self.work(false);
    }

    /// Nothing comes from a source any more.
    pub(crate) fn close(&self, channel: &Channel) {
        channel.closed.store(true, Ordering::Release);
        self.work(true);
    }

    pub(crate) fn stop(&self) {
        lock(&self.work).stopping = true;
        self.worked.notify_one();
    }

    fn work(&self, urgent: bool) {
        let mut work = lock(&self.work);
        let told = work.waiting && (work.urgent || !urgent);
        work.waiting = true;
        work.urgent |= urgent;
        drop(work);
        if !told {
            self.worked.notify_one();
        }
    }

    /// Waits for work, at most so long; gathers it for a moment unless somebody waits for it.
    pub(crate) fn next(&self, at_most: Option<Duration>) -> Turn {
        let idle = |work: &mut Work| !work.waiting && !work.stopping;
        let work = lock(&self.work);
        let work = match at_most {
            None => self.worked.wait_while(work, idle),
            Some(time) => match self.worked.wait_timeout_while(work, time, idle) {
                Ok((work, _)) => Ok(work),
                Err(poisoned) => Ok(poisoned.into_inner().0),
            },
        };
        let work = work.unwrap_or_else(PoisonError::into_inner);
        let calm = |work: &mut Work| !work.urgent && !work.stopping;
        let gathered = self.worked.wait_timeout_while(work, limits::BATCH, calm);
        let mut work = match gathered {
            Ok((work, _)) => work,
            Err(poisoned) => poisoned.into_inner().0,
        };
        (work.waiting, work.urgent) = (false, false);
        if work.stopping {
            Turn::Stop
        } else {
            Turn::Write
        }
    }
}

/// Gives each source its share of the memory for queues.
fn share(channels: &BTreeMap<String, Arc<Channel>>) {
    let each = limits::QUEUES_BYTES_MAX / channels.len().max(1);
    let each = each.clamp(limits::QUEUE_BYTES_MIN, limits::QUEUE_BYTES_MAX);
    for channel in channels.values() {
        channel.queue().set_max(each);
    }
}

pub(crate) fn now() -> WallTime {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    WallTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// What a panic of another thread leaves is whole: each change is one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
