//! The api on UNIX sockets.
//!
//! [`http1`] speaks HTTP as Pantavisor's clients do, [`callers`] tells who calls, `handlers` carry calls out: changes go to the loop
//! through `device::Handle`, reading goes to its view and to the store. No connection can hold another one up: each is a task,
//! waiting for the disk happens on threads made for it, and everything has a limit ([`limits`]).

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::sync::Arc;

use api::Problem;
use api::messages::pantavisor::ConfigEntry;
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use device::Handle;
use device::handle::View;
use device::ports::Clock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

pub mod callers;
mod handlers;
pub mod http1;
pub mod limits;
mod listen;
pub mod machine;
mod metrics;
pub mod plan;
mod refusal;
mod respond;
pub mod status;
pub mod storage;
#[cfg(test)]
mod tests;

pub use callers::{Caller, Identify, Peer};
pub use limits::Timeouts;
pub use listen::{Running, Socket, StartError};
pub use machine::Machine;
pub use metrics::Figures;
pub use storage::Storage;

/// What the daemon tells about itself.
pub trait Settings: Send + Sync + 'static {
    /// Pairs of `GET /config`: Pantavisor's older names, in its order.
    fn legacy(&self) -> Vec<(String, serde_json::Value)>;
    /// Entries of `GET /config2`, in order; secrets are masked already.
    fn entries(&self) -> Vec<ConfigEntry>;
    /// Text of `GET /buildinfo`.
    fn build_info(&self) -> String;
}

/// Watches a folder. The descriptor is closed when nobody wants to know any more.
pub type LogChanges = fn(&std::path::Path) -> std::io::Result<std::os::fd::OwnedFd>;

/// Everything that the server needs.
pub struct Server {
    /// Where it listens.
    pub sockets: Vec<Socket>,
    /// The loop.
    pub handle: Handle,
    /// Objects and revisions.
    pub storage: Arc<dyn Storage>,
    /// Tells callers apart.
    pub identify: Arc<dyn Identify>,
    /// Configuration.
    pub settings: Arc<dyn Settings>,
    /// The machine below.
    pub machine: Arc<dyn Machine>,
    /// Time.
    pub clock: Arc<dyn Clock + Send + Sync>,
    /// The folder of the logs of containers.
    pub logs: PathBuf,
    /// Tells by becoming readable, without waiting, that something in a folder was written or made; given by the daemon.
    pub log_changes: LogChanges,
    /// What containers and the machine use.
    pub figures: Arc<dyn Figures>,
    /// Time-outs.
    pub timeouts: Timeouts,
}

impl Server {
    /// Starts to listen; must be called in a tokio run time with I/O and time enabled. It serves until [`Running::stop`].
    ///
    /// # Errors
    /// A socket could not be bound.
    pub fn start(self) -> Result<Running, StartError> {
        listen::start(self)
    }
}

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) handle: Handle,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) settings: Arc<dyn Settings>,
    pub(crate) machine: Arc<dyn Machine>,
    pub(crate) clock: Arc<dyn Clock + Send + Sync>,
    pub(crate) logs: PathBuf,
    pub(crate) log_changes: LogChanges,
    pub(crate) timeouts: Timeouts,
    pub(crate) rendered: Rendered,
    pub(crate) figures: Arc<dyn Figures>,
    pub(crate) calls: Arc<metrics::Calls>,
    pub(crate) epoch: handlers::Epoch,
    pub(crate) rare_heads: Arc<Semaphore>,
    /// Becomes true when the server stops: streams without an end have theirs then.
    pub(crate) stopping: watch::Receiver<bool>,
    transfers: Arc<Semaphore>,
    followers: Arc<Semaphore>,
}

impl Shared {
    /// A place for an upload or download; waits for one, not for ever.
    pub(crate) async fn transfer(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let turn = Arc::clone(&self.transfers).acquire_owned();
        match tokio::time::timeout(limits::TRANSFER_PATIENCE, turn).await {
            Ok(place) => Ok(place.expect("the semaphore is never closed")),
            Err(_) => Err(refusal::too_many_transfers()),
        }
    }

    /// A place for a follower of events or logs.
    pub(crate) fn follower(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.followers)
            .try_acquire_owned()
            .map_err(|_| refusal::too_many_followers())
    }
}

/// Lists that were rendered from a view, kept as long as it is the newest.
#[derive(Default)]
pub(crate) struct Rendered {
    containers: ArcSwapOption<(Arc<View>, Bytes)>,
    groups: ArcSwapOption<(Arc<View>, Bytes)>,
}

impl Rendered {
    pub(crate) fn containers(&self, view: &Arc<View>, render: fn(&Arc<View>) -> Vec<u8>) -> Bytes {
        Self::once(&self.containers, view, render)
    }

    pub(crate) fn groups(&self, view: &Arc<View>, render: fn(&Arc<View>) -> Vec<u8>) -> Bytes {
        Self::once(&self.groups, view, render)
    }

    fn once(
        kept: &ArcSwapOption<(Arc<View>, Bytes)>,
        view: &Arc<View>,
        render: fn(&Arc<View>) -> Vec<u8>,
    ) -> Bytes {
        if let Some(known) = kept.load().as_deref()
            && Arc::ptr_eq(&known.0, view)
        {
            return known.1.clone();
        }
        let text = Bytes::from(render(view));
        kept.store(Some(Arc::new((Arc::clone(view), text.clone()))));
        text
    }
}
