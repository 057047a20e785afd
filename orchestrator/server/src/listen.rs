//! Sockets and connections: bind, accept, count, stop.
//!
//! At most `CONNECTIONS_MAX` connections are open. When one more comes, the one that has been idle longest is closed for it, so that a
//! thousand silent clients keep nobody out; the same holds for the connections of one caller among themselves.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;

use crate::callers::{Caller, Identify, Peer};
use crate::handlers::Epoch;
use crate::metrics::Calls;
use crate::{Rendered, Server, Shared, limits, respond};

/// Pause after the system has no more file descriptors or memory for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A path to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    /// Where; a socket that is there already is replaced.
    pub path: PathBuf,
    /// Permissions, such as 0o666 for a socket that containers see (who may do what is decided per call).
    pub mode: u32,
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A socket could not be bound.
    #[error("cannot listen on {}", path.display())]
    Bind {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A server that is listening. Dropping it stops at once; [`Running::stop`] lets requests end.
#[derive(Debug)]
pub struct Running {
    stop: watch::Sender<bool>,
    acceptors: JoinSet<()>,
    paths: Vec<PathBuf>,
}

impl Running {
    /// Takes no more requests, lets those under way end for a short while, and removes the sockets.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        for path in &self.paths {
            // It is gone already when somebody replaced the folder.
            drop(std::fs::remove_file(path));
        }
        while self.acceptors.join_next().await.is_some() {}
    }
}

pub(crate) fn start(server: Server) -> Result<Running, StartError> {
    let wall = server.clock.wall();
    let (stop, stopping) = watch::channel(false);
    let shared = Arc::new(Shared {
        handle: server.handle,
        storage: server.storage,
        settings: server.settings,
        machine: server.machine,
        clock: server.clock,
        logs: server.logs,
        log_changes: server.log_changes,
        timeouts: server.timeouts,
        rendered: Rendered::default(),
        figures: server.figures,
        calls: Arc::new(Calls::new()),
        epoch: Epoch::new(wall.0),
        stopping: stopping.clone(),
        rare_heads: Arc::new(Semaphore::new(limits::RARE_HEADS_MAX)),
        transfers: Arc::new(Semaphore::new(limits::TRANSFERS_MAX)),
        followers: Arc::new(Semaphore::new(limits::FOLLOWERS_MAX)),
    });
    let connections = Arc::new(Connections::default());
    let mut acceptors = JoinSet::new();
    let mut paths = Vec::new();
    for socket in &server.sockets {
        let listener = bind(socket).map_err(|source| StartError::Bind {
            path: socket.path.clone(),
            source,
        })?;
        paths.push(socket.path.clone());
        let acceptor = Acceptor {
            shared: Arc::clone(&shared),
            identify: Arc::clone(&server.identify),
            connections: Arc::clone(&connections),
            stopping: stopping.clone(),
        };
        acceptors.spawn(acceptor.run(listener));
    }
    Ok(Running {
        stop,
        acceptors,
        paths,
    })
}

/// Binds under another name and renames, so that there is always a socket under the path that somebody listens on.
fn bind(socket: &Socket) -> io::Result<UnixListener> {
    let folder = socket.path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut name = std::ffi::OsString::from(".");
    name.push(socket.path.file_name().ok_or(io::ErrorKind::InvalidInput)?);
    let early = folder.join(name);
    match std::fs::remove_file(&early) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&early)?;
    std::fs::set_permissions(&early, std::fs::Permissions::from_mode(socket.mode))?;
    std::fs::rename(&early, &socket.path)?;
    Ok(listener)
}

struct Acceptor {
    shared: Arc<Shared>,
    identify: Arc<dyn Identify>,
    connections: Arc<Connections>,
    stopping: watch::Receiver<bool>,
}

impl Acceptor {
    async fn run(mut self, listener: UnixListener) {
        let mut serving = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = self.stopping.wait_for(|stopping| *stopping) => break,
                Some(_) = serving.join_next() => continue,
            };
            match accepted {
                Ok((stream, _)) => self.take(stream, &mut serving),
                Err(error) => {
                    // Out of file descriptors or memory: make room, and do not spin.
                    tracing::warn!(%error, "cannot accept a connection");
                    self.connections.evict_idlest(None);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        self.connections.evict_all();
        let ended = async { while serving.join_next().await.is_some() {} };
        if tokio::time::timeout(self.shared.timeouts.stop, ended)
            .await
            .is_err()
        {
            tracing::warn!(
                count = serving.len(),
                "connections were cut off at the stop"
            );
        }
    }

    fn take(&self, stream: UnixStream, serving: &mut JoinSet<()>) {
        let Ok(credentials) = stream.peer_cred() else {
            return;
        };
        let peer = Peer {
            pid: credentials
                .pid()
                .and_then(|pid| u32::try_from(pid).ok())
                .filter(|pid| *pid > 0),
            uid: credentials.uid(),
            socket: stream.as_fd(),
        };
        let caller = self.identify.caller(&peer);
        let Some(place) = self.connections.admit(&caller) else {
            tracing::warn!(
                ?caller,
                "refused a connection: too many, and none of them is idle"
            );
            return;
        };
        serving.spawn(respond::serve(
            Arc::clone(&self.shared),
            stream,
            caller,
            place,
        ));
    }
}

/// The open connections.
#[derive(Debug, Default)]
struct Connections {
    open: Mutex<BTreeMap<u64, Arc<Connection>>>,
    next: AtomicU64,
    /// Grows with each time that a connection becomes idle: the lowest has been idle longest.
    turns: AtomicU64,
}

#[derive(Debug)]
struct Connection {
    caller: Caller,
    /// 0 while it is busy, else its turn.
    idle: AtomicU64,
    evict: Notify,
}

/// A connection's place among the open ones; given back when dropped.
pub(crate) struct Place {
    connections: Arc<Connections>,
    connection: Arc<Connection>,
    number: u64,
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Connection>>> {
        // Each change is a single insert or remove: a panic leaves the map whole.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(self: &Arc<Self>, caller: &Caller) -> Option<Place> {
        let (total, own) = {
            let open = self.lock();
            let own = open
                .values()
                .filter(|connection| connection.caller == *caller)
                .count();
            (open.len(), own)
        };
        let privileged = matches!(caller, Caller::Host { uid: 0 });
        let crowded = !privileged && own >= limits::CONNECTIONS_PER_CALLER_MAX;
        if crowded && !self.evict_idlest(Some(caller)) {
            return None;
        }
        if total >= limits::CONNECTIONS_MAX && !self.evict_idlest(None) {
            return None;
        }
        let connection = Arc::new(Connection {
            caller: caller.clone(),
            idle: AtomicU64::new(0),
            evict: Notify::new(),
        });
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(number, Arc::clone(&connection));
        Some(Place {
            connections: Arc::clone(self),
            connection,
            number,
        })
    }

    /// Closes the connection that has been idle longest (of this caller, when given). Whether there was one.
    fn evict_idlest(&self, caller: Option<&Caller>) -> bool {
        let mut open = self.lock();
        let idlest = open
            .iter()
            .filter(|(_, connection)| caller.is_none_or(|caller| connection.caller == *caller))
            .map(|(number, connection)| (connection.idle.load(Ordering::Relaxed), *number))
            .filter(|(turn, _)| *turn > 0)
            .min();
        let Some((_, number)) = idlest else {
            return false;
        };
        if let Some(connection) = open.remove(&number) {
            connection.evict.notify_one();
        }
        true
    }

    fn evict_all(&self) {
        for connection in self.lock().values() {
            connection.evict.notify_one();
        }
    }
}

impl Place {
    pub(crate) fn idle(&self) {
        let turn = self.connections.turns.fetch_add(1, Ordering::Relaxed) + 1;
        self.connection.idle.store(turn, Ordering::Relaxed);
    }

    pub(crate) fn busy(&self) {
        self.connection.idle.store(0, Ordering::Relaxed);
    }

    pub(crate) async fn evicted(&self) {
        self.connection.evict.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.lock().remove(&self.number);
    }
}
