//! The first look at the machine: what an earlier start left, running or half done.
//!
//! Truth is what runs. A task with a record or with our labels is taken over; an instance that is only mounted, or that ended, is
//! known by its record; everything else that bears a name of ours is removed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::sync::Arc;

use device::ports::Exit;

use crate::client::{Client, TaskPhase};
use crate::instance::{self, Failure, label};
use crate::record::{Phase, Record};
use crate::removal::{self, Keep};
use crate::rootfs;
use crate::runtime::{Shared, Work};

/// Fills the registry and removes remnants.
pub(crate) async fn recover(shared: &Arc<Shared>, client: &Client) -> Result<(), Failure> {
    let tasks: BTreeMap<_, _> = client
        .tasks()
        .await?
        .into_iter()
        .map(|(id, phase, pid)| (id, (phase, pid)))
        .collect();
    let mut records = instance::blocking(shared, read_records).await?;
    let mut ids: BTreeSet<String> = instance::blocking(shared, left_behind).await?;
    ids.extend(records.keys().cloned());
    ids.extend(tasks.keys().cloned());
    for listed in client.containers().await? {
        if !records.contains_key(&listed.id)
            && let Some(record) = from_labels(&listed.labels)
        {
            records.insert(listed.id.clone(), record);
        }
        ids.insert(listed.id);
    }
    for (id, record) in &records {
        shared.registry().insert(id, record.clone());
    }
    let mut running = Vec::new();
    for id in ids {
        let task = tasks.get(&id).copied();
        match (records.remove(&id), task) {
            (Some(record), Some((TaskPhase::Running, pid))) => {
                running.push(record.instance());
                take_over(shared, &id, record, pid);
            }
            (Some(record), Some((TaskPhase::Stopped { exit }, _))) => {
                end(shared, &id, record, exit);
            }
            (Some(record), None) if is_whole(shared, &id, &record) => {}
            // Half made, or not ours any more.
            (Some(_), Some((TaskPhase::Created, _)) | None) | (None, _) => {
                tracing::info!(id, "removing what an earlier start left");
                removal::remove(shared, client, &id, Keep::Nothing).await?;
            }
        }
    }
    let kept = instance::blocking(shared, move |shared| shared.output.keep(&running)).await?;
    if let Err(error) = kept {
        tracing::error!(%error, "the output of containers that run is not kept");
    }
    instance::blocking(shared, unmount_unused_images).await?;
    Ok(())
}

fn take_over(shared: &Arc<Shared>, id: &str, record: Record, pid: u32) {
    let instance = record.instance();
    if let Some(entry) = shared.registry().of_mut(id, &instance) {
        entry.pid = Some(pid);
        entry.record.phase = Phase::Running;
        if entry.record.pid_namespace.is_none() {
            entry.record.pid_namespace = pid_namespace(shared, id, pid);
        }
    }
    instance::follow(shared, id.to_owned(), instance);
}

/// The name space of a first process whose number comes from containerd: only when it is in the control group of its instance now.
fn pid_namespace(shared: &Shared, id: &str, pid: u32) -> Option<(u64, u64)> {
    let process = linux::process::Process::open(pid).ok()?;
    let place = linux::peer::place(&process).ok()?;
    let groups = place.groups_below(&shared.config.cgroup_parent);
    if !groups.into_iter().eq([id]) {
        tracing::warn!(id, pid, "not in its control group; its calls are refused");
        return None;
    }
    Some(place.pid_namespaces.first()?.numbers())
}

/// It ended while nobody looked.
fn end(shared: &Arc<Shared>, id: &str, record: Record, code: u32) {
    let out_of_memory = shared.cgroups.ran_out_of_memory(&shared.config.cgroup(id));
    let instance = record.instance();
    let damaged = instance::damaged(&record);
    if let Some(entry) = shared.registry().of_mut(id, &instance) {
        entry.record.phase = Phase::ended(Exit {
            code,
            out_of_memory,
            damaged,
        });
        if let Err(error) = entry.record.write(&shared.config.instance(id)) {
            tracing::warn!(id, %error, "cannot write the record of an instance");
        }
    }
    shared.queue(Work::Clean {
        id: id.to_owned(),
        instance,
    });
}

/// Whether a record without a task tells of something that may stay.
fn is_whole(shared: &Shared, id: &str, record: &Record) -> bool {
    match record.phase {
        Phase::Ended { .. } => true,
        Phase::Mounted => {
            record.image.is_none()
                || linux::mounts::is_mount_point(&shared.config.instance(id).join("rootfs"))
                    .unwrap_or(false)
        }
        Phase::Preparing | Phase::Running => false,
    }
}

fn read_records(shared: &Shared) -> BTreeMap<String, Record> {
    let folder = shared.config.instances();
    names_in(&folder)
        .into_iter()
        .filter_map(|id| Some((id.clone(), Record::read(&folder.join(id))?)))
        .collect()
}

/// Ids that something on this machine bears: folders of instances, control groups, runc's records.
fn left_behind(shared: &Shared) -> BTreeSet<String> {
    let config = &shared.config;
    let mut ids = names_in(&config.instances());
    ids.extend(names_in(&config.runc_root().join(&config.namespace)));
    ids.extend(shared.cgroups.children(&config.cgroup_parent));
    ids
}

fn names_in(folder: &std::path::Path) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return BTreeSet::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect()
}

fn unmount_unused_images(shared: &Shared) {
    let _images = shared
        .images
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    for name in names_in(&shared.config.images()) {
        let Ok(image) = name.parse() else { continue };
        if !shared.registry().uses(image)
            && let Err(error) = rootfs::unmount_image(&shared.config, image)
        {
            tracing::warn!(image = name, %error, "cannot unmount an image that nothing uses");
        }
    }
}

fn from_labels(labels: &HashMap<String, String>) -> Option<Record> {
    Some(Record {
        container: labels.get(label::CONTAINER)?.parse().ok()?,
        fingerprint: labels.get(label::FINGERPRINT)?.parse().ok()?,
        generation: labels.get(label::GENERATION)?.parse().ok()?,
        revision: labels.get(label::REVISION)?.parse().ok()?,
        phase: Phase::Running,
        ready: labels
            .get(label::READY)
            .is_some_and(|ready| ready == "true"),
        image: labels
            .get(label::IMAGE)
            .and_then(|image| image.parse().ok()),
        pid_namespace: None,
        halt_signal: None,
    })
}
