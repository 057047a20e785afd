//! The connection to containerd: made, watched, made again.
//!
//! Whoever needs containerd asks for the connection and waits until there is one; whoever finds it lost says so. One task makes it
//! again. Before the first one is given out, what is on the machine was compared with what containerd knows.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use device::ports::RuntimeEvent;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::{mpsc, watch};

use crate::client::{CallError, Client};
use crate::config::Address;
use crate::runtime::Shared;
use crate::supervise::Supervisor;

/// Pause between two attempts to connect once the socket was made: between that and the first answer there is next to nothing.
const POLL: Duration = Duration::from_millis(3);
/// For so long after it was made.
const POLL_FOR: Duration = Duration::from_millis(100);
/// And without news of the socket: each attempt takes the processor away from the containerd that starts.
const POLL_SLOW: Duration = Duration::from_millis(200);
/// Silence after which the loop is told, when there was no connection yet.
const TELL_AFTER: Duration = Duration::from_secs(2);
/// Silence after which a private containerd that runs is killed.
const HANGS_AFTER: Duration = Duration::from_secs(20);

/// A connection, and which one it is.
#[derive(Debug, Clone)]
pub(crate) struct Up {
    pub(crate) client: Client,
    pub(crate) epoch: u64,
}

/// The connection as everybody sees it.
#[derive(Debug)]
pub(crate) struct Link {
    up: watch::Sender<Option<Up>>,
    lost: mpsc::UnboundedSender<(u64, String)>,
}

/// The other end, for the task that makes it.
pub(crate) struct Maker {
    lost: mpsc::UnboundedReceiver<(u64, String)>,
    stop: mpsc::Receiver<tokio::sync::oneshot::Sender<()>>,
}

/// Stops the task and a private containerd.
pub(crate) type Stopper = mpsc::Sender<tokio::sync::oneshot::Sender<()>>;

/// The process of a private containerd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Private {
    /// 0 when it was never started, -1 when it has ended.
    pub pid: i32,
    /// Whether it is started, and started again when it ends.
    pub wanted: bool,
}

impl Link {
    pub(crate) fn new() -> (Self, Maker, Stopper) {
        let (lost, told) = mpsc::unbounded_channel();
        let (stopper, stop) = mpsc::channel(1);
        (
            Self {
                up: watch::Sender::new(None),
                lost,
            },
            Maker { lost: told, stop },
            stopper,
        )
    }

    /// Waits for a connection.
    pub(crate) async fn up(&self) -> Up {
        let mut seen = self.up.subscribe();
        loop {
            if let Some(up) = seen.borrow_and_update().clone() {
                return up;
            }
            // The sender lives in `self`.
            seen.changed().await.ok();
        }
    }

    /// Says that a connection is lost.
    pub(crate) fn lost(&self, epoch: u64, error: &CallError) {
        self.up.send_if_modified(|up| {
            let ours = up.as_ref().is_some_and(|up| up.epoch == epoch);
            if ours {
                *up = None;
            }
            ours
        });
        // The task is gone only when the program ends.
        self.lost.send((epoch, error.to_string())).ok();
    }
}

/// Makes and watches connections until it is told to stop.
pub(crate) async fn run(shared: Arc<Shared>, mut maker: Maker) {
    let mut supervisor = match &shared.config.address {
        Address::Spawn(spawn) => Some(Supervisor::new(spawn.clone())),
        Address::Connect(_) => None,
    };
    let mut epoch = 0;
    let mut told = false;
    loop {
        if supervisor.is_some() && !shared.private.borrow().wanted {
            supervisor = rest(&shared, supervisor).await;
            told = true;
            tokio::select! {
                () = until_wanted(&shared, true) => continue,
                Some(done) = maker.stop.recv() => return stop(supervisor, done),
            }
        }
        let client = tokio::select! {
            client = connect(&shared, &mut supervisor, &mut told) => client,
            () = until_wanted(&shared, false), if supervisor.is_some() => continue,
            Some(done) = maker.stop.recv() => return stop(supervisor, done),
        };
        epoch += 1;
        if epoch == 1
            && let Err(error) = crate::recover::recover(&shared, &client).await
        {
            tracing::warn!(%error, "cannot look at what runs; trying again");
            epoch = 0;
            tokio::time::sleep(POLL_SLOW).await;
            continue;
        }
        shared.link.up.send_replace(Some(Up {
            client: client.clone(),
            epoch,
        }));
        shared.tell(RuntimeEvent::Connected);
        let reason = tokio::select! {
            error = client.until_lost() => error.to_string(),
            reason = lost(&mut maker.lost, epoch) => reason,
            () = until_wanted(&shared, false), if supervisor.is_some() => {
                shared.link.up.send_replace(None);
                continue;
            }
            Some(done) = maker.stop.recv() => {
                shared.link.up.send_replace(None);
                return stop(supervisor, done);
            }
        };
        shared.link.up.send_replace(None);
        if let Some(supervisor) = &supervisor {
            show(&shared, Some(supervisor));
        }
        tracing::warn!(reason, "connection to containerd lost");
        told = true;
        shared.tell(RuntimeEvent::Disconnected { reason });
    }
}

async fn lost(told: &mut mpsc::UnboundedReceiver<(u64, String)>, epoch: u64) -> String {
    loop {
        match told.recv().await {
            Some((of, reason)) if of == epoch => return reason,
            // News of an earlier connection.
            Some(_) => {}
            None => std::future::pending().await,
        }
    }
}

/// Stops containerd because somebody asked for it; what runs goes on without it.
async fn rest(shared: &Arc<Shared>, supervisor: Option<Supervisor>) -> Option<Supervisor> {
    // It waits for the process.
    let stopped = tokio::task::spawn_blocking(move || {
        let mut supervisor = supervisor;
        if let Some(supervisor) = &mut supervisor {
            supervisor.stop();
        }
        supervisor
    });
    // A panic ends the program in release builds.
    let supervisor = stopped.await.ok().flatten();
    show(shared, supervisor.as_ref());
    let reason = "containerd was stopped on request (PUT /daemons/containerd)".to_owned();
    shared.tell(RuntimeEvent::Disconnected { reason });
    supervisor
}

async fn until_wanted(shared: &Shared, wanted: bool) {
    let mut seen = shared.private.subscribe();
    // The sender lives in `shared`.
    seen.wait_for(|private| private.wanted == wanted).await.ok();
}

/// Shows the process to those who ask for it.
fn show(shared: &Shared, supervisor: Option<&Supervisor>) {
    let pid = supervisor
        .and_then(Supervisor::pid)
        .and_then(|pid| i32::try_from(pid).ok());
    shared.private.send_if_modified(|private| {
        let shown = match (pid, private.pid) {
            (Some(pid), _) => pid,
            (None, 0) => 0,
            (None, _) => -1,
        };
        let changed = private.pid != shown;
        private.pid = shown;
        changed
    });
}

fn stop(supervisor: Option<Supervisor>, done: tokio::sync::oneshot::Sender<()>) {
    if let Some(mut supervisor) = supervisor {
        supervisor.stop();
    }
    // Nobody waits when this fails.
    done.send(()).ok();
}

async fn connect(shared: &Shared, supervisor: &mut Option<Supervisor>, told: &mut bool) -> Client {
    let socket = shared.config.address.socket();
    let since = Instant::now();
    let mut hangs_since = Instant::now();
    let mut made: Option<Instant> = None;
    let mut news = SocketNews::default();
    loop {
        let mut problem = None;
        if let Some(supervisor) = supervisor {
            tokio::time::sleep(supervisor.pause()).await;
            if let Err(error) = supervisor.ensure() {
                problem = Some(error.to_string());
            }
            show(shared, Some(supervisor));
        }
        // Before the attempt, so that a socket which is made after it is seen.
        news.watch(&socket);
        match Client::connect(&socket, shared.namespace.clone()).await {
            Ok(client) => return client,
            Err(error) => {
                let problem = problem.unwrap_or_else(|| error.to_string());
                if !*told && since.elapsed() > TELL_AFTER {
                    *told = true;
                    shared.tell(RuntimeEvent::Disconnected { reason: problem });
                }
            }
        }
        if let Some(supervisor) = supervisor
            && hangs_since.elapsed() > HANGS_AFTER
        {
            supervisor.kill();
            hangs_since = Instant::now();
        }
        if made.is_some_and(|made| made.elapsed() < POLL_FOR) {
            tokio::time::sleep(POLL).await;
        } else if tokio::time::timeout(POLL_SLOW, news.come()).await.is_ok() {
            made = Some(Instant::now());
        }
    }
}

/// Tells when something changes in the folder of a socket; never, where that cannot be watched.
#[derive(Default)]
struct SocketNews(Option<Receiver>);

impl SocketNews {
    /// Watches, from the first time on that the folder is there.
    fn watch(&mut self, socket: &Path) {
        if self.0.is_none() {
            let folder = socket.parent().unwrap_or(Path::new("/"));
            let changes = linux::watch::changes_in(folder).ok();
            self.0 = changes.and_then(|changes| Receiver::from_owned_fd_unchecked(changes).ok());
        }
    }

    async fn come(&self) {
        let Some(changes) = &self.0 else {
            return std::future::pending().await;
        };
        if changes.readable().await.is_err() {
            return std::future::pending().await;
        }
        // What it says does not matter, only that it is not said again.
        while changes.try_read(&mut [0; 4096]).is_ok_and(|read| read > 0) {}
    }
}
