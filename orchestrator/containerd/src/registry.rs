//! What the adapter knows of its instances while it runs.
//!
//! There is an entry for everything that has a record or is being made, so that a process in one of our control groups can
//! always be told from one of the host.

use std::collections::BTreeMap;

use device::ports::{Condition, Exit, Found, Instance};
use model::{ContainerName, ObjectId};
use tokio::sync::watch;

use crate::config::Config;
use crate::record::{Phase, Record};

/// One instance.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) record: Record,
    /// Its first process when it runs.
    pub(crate) pid: Option<u32>,
    /// How its first process ended; set once, after that was told.
    pub(crate) exited: watch::Sender<Option<Exit>>,
}

/// All of them, by id.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    entries: BTreeMap<String, Entry>,
}

impl Registry {
    pub(crate) fn insert(&mut self, id: &str, record: Record) {
        let entry = Entry {
            record,
            pid: None,
            exited: watch::Sender::new(None),
        };
        self.entries.insert(id.to_owned(), entry);
    }

    pub(crate) fn remove(&mut self, id: &str) {
        self.entries.remove(id);
    }

    /// Whatever instance has this id now.
    pub(crate) fn get(&self, id: &str) -> Option<&Entry> {
        self.entries.get(id)
    }

    /// The entry, when it is of this very instance.
    pub(crate) fn of_mut(&mut self, id: &str, instance: &Instance) -> Option<&mut Entry> {
        self.entries
            .get_mut(id)
            .filter(|entry| entry.record.instance() == *instance)
    }

    /// Every version of a container.
    pub(crate) fn ids_of(&self, container: &ContainerName) -> Vec<String> {
        self.entries
            .iter()
            .filter(|(_, entry)| entry.record.container == *container)
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// Whether something has this image mounted.
    pub(crate) fn uses(&self, image: ObjectId) -> bool {
        self.entries
            .values()
            .any(|entry| entry.record.image == Some(image))
    }

    pub(crate) fn image_of(&self, id: &str) -> Option<ObjectId> {
        self.entries.get(id)?.record.image
    }

    /// Notes that this instance does not use its image any more.
    pub(crate) fn release_image(&mut self, id: &str) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.record.image = None;
        }
    }

    /// The control group of each container that runs.
    pub(crate) fn running_groups(&self, config: &Config) -> BTreeMap<ContainerName, String> {
        let running = self.entries.iter().filter(|(_, entry)| entry.pid.is_some());
        running
            .map(|(id, entry)| (entry.record.container.clone(), config.cgroup(id)))
            .collect()
    }

    /// Everything that exists and is not just being made.
    pub(crate) fn found(&self) -> Vec<Found> {
        self.entries.values().filter_map(found).collect()
    }
}

fn found(entry: &Entry) -> Option<Found> {
    let condition = match (entry.record.phase, entry.pid) {
        (Phase::Preparing, _) => return None,
        (Phase::Mounted, _) => Condition::Mounted,
        (Phase::Running, Some(pid)) => Condition::Running {
            pid,
            uptime: linux::process::uptime(pid).unwrap_or_default(),
        },
        (Phase::Running, None) => Condition::Ended(Exit {
            code: 255,
            out_of_memory: false,
            damaged: None,
        }),
        (
            Phase::Ended {
                code,
                out_of_memory,
                damaged,
            },
            _,
        ) => Condition::Ended(Exit {
            code,
            out_of_memory,
            damaged,
        }),
    };
    Some(Found {
        instance: entry.record.instance(),
        revision: entry.record.revision.clone(),
        condition,
        ready: entry.record.ready,
    })
}
