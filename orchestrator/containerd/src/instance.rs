//! The life of one instance: set up, run, watched, stopped, taken away.
//!
//! Every step can be repeated. When containerd is lost in between, the whole command is done again on the next connection,
//! beginning with the removal of what the first attempt left.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use device::ports::{Exit, Instance, RuntimeEvent, StartSpec};
use linux::peer::PidNamespace;
use model::log::{Level, Stamp};
use model::{ObjectId, WallTime};
use tokio::sync::watch;
use tonic::Code;

use crate::client::{CallError, Client, gone_is_fine};
use crate::names::instance_id;
use crate::record::{Phase, Record};
use crate::removal::{Keep, remove, remove_surely, remove_task};
use crate::rootfs::{self, RootError};
use crate::runtime::{Shared, Work};
use crate::setup;

/// Time for processes to go after SIGKILL.
pub(crate) const KILL: Duration = Duration::from_secs(10);
/// Exit code when none is known.
const UNKNOWN_EXIT: u32 = 255;
pub(crate) const SIGKILL: u32 = 9;
const SIGPWR: u32 = 30;
/// Pause before a question is asked again that containerd refused without a reason we know.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// How long what a killed predecessor asked for may be in the way.
const REMNANT: Duration = Duration::from_secs(5);

/// What is written beside a container in containerd's store.
pub(crate) mod label {
    pub(crate) const CONTAINER: &str = "coxswain.container";
    pub(crate) const FINGERPRINT: &str = "coxswain.fingerprint";
    pub(crate) const GENERATION: &str = "coxswain.generation";
    pub(crate) const REVISION: &str = "coxswain.revision";
    pub(crate) const READY: &str = "coxswain.ready";
    pub(crate) const IMAGE: &str = "coxswain.image";
}

/// Why a step had no success.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Root(#[from] RootError),
    #[error("{0}")]
    Other(String),
}

/// Carries `attempt` out, again on each new connection while the one before was lost.
pub(crate) async fn until_answered<T, F: Future<Output = Result<T, Failure>>>(
    shared: &Shared,
    mut attempt: impl FnMut(Client) -> F,
) -> Result<T, Failure> {
    loop {
        let up = shared.link.up().await;
        match attempt(up.client).await {
            Err(Failure::Call(error)) if error.is_lost() => shared.link.lost(up.epoch, &error),
            other => return other,
        }
    }
}

/// Runs what blocks on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(
    shared: &Arc<Shared>,
    work: impl FnOnce(&Shared) -> T + Send + 'static,
) -> Result<T, Failure> {
    let shared = Arc::clone(shared);
    tokio::task::spawn_blocking(move || work(&shared))
        .await
        .map_err(|error| Failure::Other(format!("a step was not carried out: {error}")))
}

/// Carries [`device::ports::RuntimeCommand::Start`] out.
pub(crate) async fn start(shared: &Arc<Shared>, spec: StartSpec) {
    let id = instance_id(&spec.instance.container, spec.instance.fingerprint);
    let permit = shared.starts.acquire().await;
    let started = until_answered(shared, |client| attempt_start(shared, client, &id, &spec)).await;
    drop(permit);
    match started {
        Ok(pid) => {
            let instance = spec.instance;
            shared.tell(RuntimeEvent::Started {
                instance: instance.clone(),
                pid,
            });
            follow(shared, id, instance);
        }
        Err(error) => fail(shared, &id, spec.instance, &error).await,
    }
}

async fn attempt_start(
    shared: &Arc<Shared>,
    client: Client,
    id: &str,
    spec: &StartSpec,
) -> Result<u32, Failure> {
    remove_versions(shared, &client, &spec.instance, id).await?;
    let (described, pipes) = {
        let (id, spec) = (id.to_owned(), spec.clone());
        blocking(shared, move |shared| {
            shared
                .prepare(&spec.revision, &spec.container.name)
                .map_err(Failure::Other)?;
            setup::to_run(shared, &id, &spec)
        })
        .await??
    };
    let labels = labels(spec);
    let runc_root = shared.config.runc_root();
    client
        .create_container(id, labels, described.spec, &runc_root)
        .await?;
    let output = [text(&pipes.stdout)?, text(&pipes.stderr)?];
    let pid = create_task(&client, id, &output).await?;
    shared.output.running(&spec.instance, pid, pipes);
    // Known before its first instruction: it may call us with it.
    set_running(shared, id, &spec.instance, pid);
    client.start(id, "").await?;
    Ok(pid)
}

/// A start that a killed predecessor asked for may be under way in containerd still, and be finished or undone only now.
async fn create_task(
    client: &Client,
    id: &str,
    [stdout, stderr]: &[String; 2],
) -> Result<u32, CallError> {
    let until = tokio::time::Instant::now() + REMNANT;
    loop {
        match client.create_task(id, stdout, stderr).await {
            Err(error) if error.is_in_the_way() && tokio::time::Instant::now() < until => {
                tracing::warn!(id, %error, "a start of before is in the way; it is removed");
                remove_task(client, id).await?;
                tokio::time::sleep(ASK_AGAIN).await;
            }
            other => return other,
        }
    }
}

fn set_running(shared: &Shared, id: &str, instance: &Instance, pid: u32) {
    if let Some(entry) = shared.registry().of_mut(id, instance) {
        entry.pid = Some(pid);
        entry.record.phase = Phase::Running;
        entry.record.pid_namespace = match PidNamespace::of(pid) {
            Ok(namespace) => Some(namespace.numbers()),
            Err(error) => {
                tracing::warn!(id, %error, "cannot tell the name space of its processes; its calls are refused");
                None
            }
        };
        write_record(shared, id, &entry.record);
    }
}

fn write_record(shared: &Shared, id: &str, record: &Record) {
    if let Err(error) = record.write(&shared.config.instance(id)) {
        // It is known in memory; lost only if we are killed before it changes again.
        tracing::warn!(id, %error, "cannot write the record of an instance");
    }
}

fn labels(spec: &StartSpec) -> HashMap<String, String> {
    let mut labels = HashMap::from([
        (
            label::CONTAINER.to_owned(),
            spec.instance.container.to_string(),
        ),
        (
            label::FINGERPRINT.to_owned(),
            spec.instance.fingerprint.to_string(),
        ),
        (
            label::GENERATION.to_owned(),
            spec.instance.generation.to_string(),
        ),
        (label::REVISION.to_owned(), spec.revision.to_string()),
        (label::READY.to_owned(), "false".to_owned()),
    ]);
    if let Some(root) = &spec.container.root {
        labels.insert(label::IMAGE.to_owned(), root.object.to_string());
    }
    labels
}

/// A path as containerd takes it.
fn text(path: &Path) -> Result<String, Failure> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Failure::Other(format!("{} is no UTF-8", path.display())))
}

/// Carries [`device::ports::RuntimeCommand::Mount`] out.
pub(crate) async fn mount(shared: &Arc<Shared>, spec: StartSpec) {
    let id = instance_id(&spec.instance.container, spec.instance.fingerprint);
    let mounted = until_answered(shared, |client| attempt_mount(shared, client, &id, &spec)).await;
    match mounted {
        Ok(()) => {
            if let Some(entry) = shared.registry().of_mut(&id, &spec.instance) {
                entry.record.phase = Phase::Mounted;
                write_record(shared, &id, &entry.record);
            }
            shared.tell(RuntimeEvent::Mounted(spec.instance));
        }
        Err(error) => fail(shared, &id, spec.instance, &error).await,
    }
}

async fn attempt_mount(
    shared: &Arc<Shared>,
    client: Client,
    id: &str,
    spec: &StartSpec,
) -> Result<(), Failure> {
    remove_versions(shared, &client, &spec.instance, id).await?;
    let (id, spec) = (id.to_owned(), spec.clone());
    blocking(shared, move |shared| setup::to_mount(shared, &id, &spec)).await?
}

/// Takes what a failed start left away, then says that it failed.
async fn fail(shared: &Arc<Shared>, id: &str, instance: Instance, error: &Failure) {
    let mut reason = error.to_string();
    let object = shared
        .registry()
        .of_mut(id, &instance)
        .and_then(|entry| damaged(&entry.record));
    if let Some(object) = object {
        reason = format!("{} ({reason})", damage(object));
    }
    tracing::warn!(container = %instance.container, reason, "container could not be started");
    remove_surely(shared, id, Keep::Nothing).await;
    shared.tell(RuntimeEvent::StartFailed {
        instance,
        error: reason,
    });
}

/// The image of an instance, when dm-verity has met a block of it that does not match.
pub(crate) fn damaged(record: &Record) -> Option<ObjectId> {
    record.image.filter(|image| rootfs::is_corrupted(*image))
}

fn damage(image: ObjectId) -> String {
    format!(
        "its root file system is damaged: a block of object {} does not match its hash (dm-verity); reading it is an I/O error. \
         Put the object again",
        image.short()
    )
}

/// Adds a line of ours to what the container wrote, which is complete by now. Best effort: the journal has it too.
fn note(path: &Path, text: &str) {
    use std::io::Write as _;
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let millis = since.map_or(0, |since| since.as_millis());
    let stamp = Stamp::new(WallTime(u64::try_from(millis).unwrap_or(u64::MAX)));
    let mut line = Vec::new();
    stamp.push(&mut line, Level::Error, "coxswain", text.as_bytes());
    let file = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path);
    if let Err(error) = file.and_then(|mut file| file.write_all(&line)) {
        tracing::warn!(%error, path = %path.display(), "cannot add to a container's log");
    }
}

/// Takes everything of the same container away that is there, whatever its version.
async fn remove_versions(
    shared: &Arc<Shared>,
    client: &Client,
    instance: &Instance,
    id: &str,
) -> Result<(), Failure> {
    let versions = shared.registry().ids_of(&instance.container);
    for version in versions {
        remove(shared, client, &version, Keep::Nothing).await?;
        if version != id {
            blocking(shared, move |shared| {
                rootfs::forget_boot_volumes(&shared.config, &version)
            })
            .await??;
        }
    }
    Ok(())
}

/// Waits for the end of an instance's first process and tells it.
pub(crate) fn follow(shared: &Arc<Shared>, id: String, instance: Instance) {
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let code = loop {
            let up = shared.link.up().await;
            match up.client.wait(&id, "").await {
                Ok(code) => break code,
                Err(error) if error.is_lost() => shared.link.lost(up.epoch, &error),
                // containerd lost its store: what is left of it is cleaned up like any other end.
                Err(error) if error.is(Code::NotFound) => break UNKNOWN_EXIT,
                Err(error) => {
                    tracing::warn!(id, %error, "cannot wait for a container; asking again");
                    tokio::time::sleep(ASK_AGAIN).await;
                }
            }
            // Removed by a stop or by a new start meanwhile.
            if shared.registry().of_mut(&id, &instance).is_none() {
                return;
            }
        };
        shared.output.end_and_wait(&instance).await;
        ended(&shared, &id, instance, code);
    });
}

fn ended(shared: &Shared, id: &str, instance: Instance, code: u32) {
    let out_of_memory = shared.cgroups.ran_out_of_memory(&shared.config.cgroup(id));
    let (exit, told) = {
        let mut registry = shared.registry();
        let Some(entry) = registry.of_mut(id, &instance) else {
            return;
        };
        let exit = Exit {
            code,
            out_of_memory,
            damaged: damaged(&entry.record),
        };
        if let Some(object) = exit.damaged {
            let damage = damage(object);
            tracing::error!(container = %instance.container, code, "{damage}");
            let path = shared
                .config
                .console_log(&entry.record.revision, &instance.container);
            note(&path, &damage);
        }
        entry.record.phase = Phase::ended(exit);
        entry.pid = None;
        // Its number may be given to another one now.
        entry.record.pid_namespace = None;
        write_record(shared, id, &entry.record);
        (exit, entry.exited.clone())
    };
    // In line before a restart can be, so that this is done while the loop thinks.
    shared.queue(Work::Clean {
        id: id.to_owned(),
        instance: instance.clone(),
    });
    shared.tell(RuntimeEvent::Exited { instance, exit });
    told.send_replace(Some(exit));
}

/// Frees what an instance used that ended by itself.
pub(crate) async fn clean(shared: &Arc<Shared>, id: &str, instance: &Instance) {
    if shared.registry().of_mut(id, instance).is_some() {
        remove_surely(shared, id, Keep::Record).await;
    }
}

/// Carries [`device::ports::RuntimeCommand::Stop`] out.
pub(crate) async fn stop(shared: &Arc<Shared>, instance: Instance, signal: u32, timeout: Duration) {
    let id = instance_id(&instance.container, instance.fingerprint);
    // What was found at the first connection is known only then.
    shared.link.up().await;
    let running = {
        let mut registry = shared.registry();
        match registry.of_mut(&id, &instance) {
            Some(entry) => Some((
                entry.pid.is_some(),
                entry.exited.subscribe(),
                entry.record.halt_signal,
            )),
            None => None,
        }
    };
    let Some((runs, mut exited, halt_signal)) = running else {
        shared.tell(RuntimeEvent::Stopped(instance));
        return;
    };
    if runs {
        // Only what Pantavisor sends by default gives way to what the container's own configuration says.
        let signal = halt_signal.filter(|_| signal == SIGPWR).unwrap_or(signal);
        send(shared, &id, signal).await;
        if !has_ended(&mut exited, timeout).await {
            send(shared, &id, SIGKILL).await;
            if !has_ended(&mut exited, KILL).await {
                tracing::warn!(id, "container does not end after SIGKILL");
            }
        }
    }
    remove_surely(shared, &id, Keep::Nothing).await;
    shared.tell(RuntimeEvent::Stopped(instance));
}

/// Sends a signal; when that cannot be done, the harder way comes next.
async fn send(shared: &Shared, id: &str, signal: u32) {
    let sent = until_answered(shared, |client| async move {
        Ok(client.kill(id, "", signal).await?)
    })
    .await;
    if let Err(error) = sent {
        tracing::warn!(id, signal, %error, "cannot signal a container");
    }
}

async fn has_ended(exited: &mut watch::Receiver<Option<Exit>>, within: Duration) -> bool {
    tokio::time::timeout(within, exited.wait_for(Option::is_some))
        .await
        .is_ok()
}

/// Keeps that a container is ready where a restarted orchestrator finds it; `None` when there is no such instance, else whether it runs.
pub(crate) fn record_ready(shared: &Arc<Shared>, instance: &Instance) -> Option<bool> {
    let id = instance_id(&instance.container, instance.fingerprint);
    let mut registry = shared.registry();
    let entry = registry.of_mut(&id, instance)?;
    if !entry.record.ready {
        entry.record.ready = true;
        write_record(shared, &id, &entry.record);
    }
    Some(entry.pid.is_some())
}

/// Carries [`device::ports::RuntimeCommand::MarkReady`] out.
pub(crate) async fn mark_ready(shared: &Arc<Shared>, instance: &Instance) {
    let id = instance_id(&instance.container, instance.fingerprint);
    shared.link.up().await;
    if record_ready(shared, instance) != Some(true) {
        return;
    }
    let id = id.as_str();
    let marked = until_answered(shared, |client| async move {
        let labelled = client.set_label(id, label::READY, "true").await;
        Ok(gone_is_fine(labelled)?)
    })
    .await;
    if let Err(error) = marked {
        tracing::warn!(id, %error, "cannot mark a container as ready in containerd");
    }
}
