//! What other threads hold of the loop: a handle to ask, to look, and to follow events.
//!
//! Looking never waits for the loop: the view is swapped whole after each event. Events are kept in a ring of
//! [`EVENTS_KEPT`]; who is slower than that learns that it missed some. Nothing here decides anything.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::handle::{Happened, Reply, Request, View};
use arc_swap::ArcSwap;

/// Events that are kept for clients that come back.
pub const EVENTS_KEPT: usize = 1024;

type Wake = dyn Fn() + Send + Sync;
type Sender = dyn Fn(Request, Reply) + Send + Sync;

/// A handle to the loop, cheap to clone.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    send: Arc<Sender>,
}

struct Shared {
    view: ArcSwap<View>,
    ring: Mutex<Ring>,
    wakes: Mutex<Vec<Weak<Wake>>>,
}

#[derive(Default)]
struct Ring {
    events: VecDeque<Happened>,
    last: u64,
}

/// Events after a given id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Events {
    /// Oldest first.
    pub events: Vec<Happened>,
    /// Whether events after the given id are not kept any more, or the id is not of this start.
    pub lost: bool,
    /// Id of the newest event there is; pass it next time.
    pub last: u64,
}

/// Keeps a wake callback registered; dropping it ends that.
#[must_use = "the callback is called only as long as this lives"]
pub struct Registration {
    _wake: Arc<Wake>,
}

impl Handle {
    /// A handle whose requests go through `send` to the loop. `send` must not wait for the loop; when the loop has ended
    /// it drops the reply, which the asker must take as "not known whether it was done".
    pub fn new(send: impl Fn(Request, Reply) + Send + Sync + 'static) -> Self {
        Self {
            shared: Arc::new(Shared {
                view: ArcSwap::from_pointee(View::default()),
                ring: Mutex::default(),
                wakes: Mutex::default(),
            }),
            send: Arc::new(send),
        }
    }

    /// What the loop shows now. Never waits.
    pub fn view(&self) -> Arc<View> {
        self.shared.view.load_full()
    }

    /// Asks for a change; `reply` is called once, on the loop's thread, and must not block.
    pub fn send(&self, request: Request, reply: Reply) {
        (self.send)(request, reply);
    }

    /// Events with an id above `id`, oldest first. 0 gives all that are kept.
    pub fn events_since(&self, id: u64) -> Events {
        let ring = lock(&self.shared.ring);
        let oldest = ring.events.front().map_or(ring.last + 1, |event| event.id);
        Events {
            events: ring
                .events
                .iter()
                .filter(|event| event.id > id)
                .cloned()
                .collect(),
            lost: id > ring.last || id + 1 < oldest,
            last: ring.last,
        }
    }

    /// Calls `wake` after each turn of the loop that brought events, on the loop's thread; it must not block.
    pub fn on_event(&self, wake: impl Fn() + Send + Sync + 'static) -> Registration {
        let wake: Arc<Wake> = Arc::new(wake);
        lock(&self.shared.wakes).push(Arc::downgrade(&wake));
        Registration { _wake: wake }
    }

    /// Shows a new view (the loop only, and fakes of it).
    pub fn publish(&self, view: View) {
        self.shared.view.store(Arc::new(view));
    }

    /// Keeps an event and gives it its id (the loop only, and fakes of it).
    pub fn record(&self, mut happened: Happened) {
        let mut ring = lock(&self.shared.ring);
        ring.last += 1;
        happened.id = ring.last;
        if ring.events.len() == EVENTS_KEPT {
            ring.events.pop_front();
        }
        ring.events.push_back(happened);
    }

    /// Wakes those who follow events (the loop only, and fakes of it).
    pub fn wake(&self) {
        let wakes: Vec<_> = {
            let mut wakes = lock(&self.shared.wakes);
            wakes.retain(|wake| wake.strong_count() > 0);
            wakes.iter().filter_map(Weak::upgrade).collect()
        };
        for wake in wakes {
            wake();
        }
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration").finish_non_exhaustive()
    }
}

/// A panic of another thread while it held the lock leaves the data whole: each change here is a single push.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn handle() -> Handle {
        Handle::new(|_, reply| reply(Ok(crate::handle::Answer::Done)))
    }

    fn happen(handle: &Handle, count: usize) {
        for n in 0..count {
            handle.record(Happened {
                id: 0,
                time: model::WallTime(0),
                kind: "notice",
                revision: None,
                container: None,
                message: n.to_string(),
            });
        }
    }

    #[test]
    fn events_resume_and_say_when_some_are_lost() {
        let handle = handle();
        assert_eq!(handle.events_since(0), Events::default());
        happen(&handle, 3);
        let two = handle.events_since(1);
        assert_eq!(
            (two.events.len(), two.events[0].id, two.lost, two.last),
            (2, 2, false, 3)
        );
        assert!(handle.events_since(4).lost, "an id of another start");
        happen(&handle, EVENTS_KEPT);
        assert!(handle.events_since(2).lost);
        let all = handle.events_since(3);
        assert!(!all.lost);
        assert_eq!(all.events.len(), EVENTS_KEPT);
    }

    #[test]
    fn a_dropped_registration_is_not_called() {
        let handle = handle();
        let calls = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&calls);
        let registration = handle.on_event(move || {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        handle.wake();
        drop(registration);
        handle.wake();
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }
}
