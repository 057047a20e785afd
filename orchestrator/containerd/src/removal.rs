//! Taking an instance away: task, processes, mounts, record. Every step can be repeated over what a kill left half done.

use std::path::Path;
use std::sync::Arc;

use linux::process;
use model::ObjectId;
use tonic::Code;

use crate::client::{CallError, Client, gone_is_fine};
use crate::instance::{Failure, KILL, SIGKILL, blocking, until_answered};
use crate::record::Record;
use crate::rootfs;
use crate::runtime::Shared;

/// What stays of an instance that is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Nothing but its volumes.
    Nothing,
    /// The record of how it ended.
    Record,
}

/// Removes an instance on whatever connection there is; what cannot be removed is told to the log and tried again at the next start.
pub(crate) async fn remove_surely(shared: &Arc<Shared>, id: &str, keep: Keep) {
    let removed = until_answered(shared, |client| async move {
        remove(shared, &client, id, keep).await
    })
    .await;
    if let Err(error) = removed {
        tracing::error!(id, %error, "cannot remove all of an instance");
    }
}

/// Takes an instance away: task, container, processes, mounts, and its record unless that is kept.
pub(crate) async fn remove(
    shared: &Arc<Shared>,
    client: &Client,
    id: &str,
    keep: Keep,
) -> Result<(), Failure> {
    let known = remove_task(client, id).await?;
    let (name, image) = (id.to_owned(), shared.registry().image_of(id));
    // What containerd does not know may run all the same: its store was deleted, or its shim was killed.
    blocking(shared, move |shared| end_processes(shared, &name, known)).await?;
    gone_is_fine(client.delete_container(id).await)?;
    let name = id.to_owned();
    let taken = blocking(shared, move |shared| take_down(shared, &name, image, keep)).await?;
    if keep == Keep::Nothing {
        shared.registry().remove(id);
    }
    taken
}

/// Ends and deletes a task; `false` when containerd does not know it or cannot end it.
pub(crate) async fn remove_task(client: &Client, id: &str) -> Result<bool, CallError> {
    match client.delete_task(id).await {
        Ok(()) => return Ok(true),
        Err(error) if error.is_lost() => return Err(error),
        Err(error) if error.is(Code::NotFound) => return Ok(false),
        // It runs.
        Err(_) => {}
    }
    for attempt in [
        client.kill(id, "", SIGKILL).await,
        wait_bounded(client, id).await,
    ] {
        match attempt {
            Err(error) if error.is_lost() => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    match client.delete_task(id).await {
        Ok(()) => Ok(true),
        Err(error) if error.is_lost() => Err(error),
        Err(error) => {
            tracing::warn!(id, %error, "containerd cannot delete a task");
            Ok(false)
        }
    }
}

async fn wait_bounded(client: &Client, id: &str) -> Result<(), CallError> {
    match tokio::time::timeout(KILL, client.wait(id, "")).await {
        Ok(ended) => ended.map(drop),
        Err(_) => Ok(()),
    }
}

/// Ends whatever is left in the control group, and the shim when containerd has no hold on it. Blocks.
fn end_processes(shared: &Shared, id: &str, known: bool) {
    let group = shared.config.cgroup(id);
    if !known {
        let socket = shared.config.address.socket();
        for shim in process::find(|arguments| is_shim(arguments, &socket, &shared.config, id)) {
            tracing::warn!(
                id,
                pid = shim.pid(),
                "ending a shim that containerd has lost"
            );
            if let Err(error) = shim.kill().and_then(|()| shim.wait(KILL)) {
                tracing::error!(id, %error, "cannot end a shim");
            }
        }
    }
    if let Err(error) = shared.cgroups.kill(&group, KILL) {
        tracing::error!(id, %error, "cannot end the processes of a container");
    }
    if let Err(error) = shared.cgroups.remove(&group) {
        tracing::debug!(id, %error, "control group stays");
    }
    if !known && let Err(error) = rootfs::forget_in_runc(&shared.config, id) {
        tracing::warn!(id, %error, "cannot clean up after runc");
    }
}

/// `containerd-shim-runc-v2 -namespace <ns> -id <id> -address <socket> …`
fn is_shim(arguments: &[Vec<u8>], socket: &Path, config: &crate::config::Config, id: &str) -> bool {
    let Some((program, flags)) = arguments.split_first() else {
        return false;
    };
    let has = |flag: &[u8], value: &[u8]| {
        flags
            .windows(2)
            .any(|pair| matches!(pair, [a, b] if a == flag && b == value))
    };
    program.windows(15).any(|part| part == b"containerd-shim")
        && has(b"-namespace", config.namespace.as_bytes())
        && has(b"-id", id.as_bytes())
        && has(b"-address", socket.as_os_str().as_encoded_bytes())
}

/// Takes the mounts of an instance away, and its image when nothing else uses it. Blocks.
fn take_down(
    shared: &Shared,
    id: &str,
    image: Option<ObjectId>,
    keep: Keep,
) -> Result<(), Failure> {
    let config = &shared.config;
    let record = Record::read(&config.instance(id));
    match keep {
        Keep::Nothing => rootfs::take_down(config, id)?,
        Keep::Record => rootfs::unmount_root(config, id)?,
    }
    if let Some(record) = record {
        shared.output.end(&record.instance());
    }
    let Some(image) = image else {
        return Ok(());
    };
    let _images = shared
        .images
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let used = {
        let mut registry = shared.registry();
        registry.release_image(id);
        registry.uses(image)
    };
    if !used {
        rootfs::unmount_image(config, image)?;
    }
    Ok(())
}
