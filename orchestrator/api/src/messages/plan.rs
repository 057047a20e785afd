//! Answer of `POST /plan` and `POST /steps/{rev}/plan`: what running a revision would do.
//!
//! Taken for granted: missing objects are uploaded first, every container starts and reaches its goal. New fields may be added.

use std::collections::BTreeMap;

use model::{ContainerName, GroupName, ObjectId, RevisionId, Status};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What running a revision would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Plan {
    /// The revision; null when its manifest was only posted.
    #[schemars(with = "Option<String>")]
    pub revision: Option<RevisionId>,
    /// SHA-256 of its manifest.
    #[schemars(with = "String")]
    pub manifest: ObjectId,
    /// The revision that runs now.
    #[schemars(with = "Option<String>")]
    pub running: Option<RevisionId>,
    /// How it would be applied.
    pub way: Way,
    /// Why a run would be refused as things are; what stands beside it is what happens once that is mended.
    pub refused: Option<String>,
    /// Keys below `bsp/` that differ. They need a restart of the machine where a boot loader follows the revisions.
    pub boot_changes: Vec<String>,
    /// What becomes of each container: those of the revision in the order of its manifest, then those that go.
    pub containers: Vec<PlannedContainer>,
    /// What is done, in order.
    pub steps: Vec<PlannedStep>,
    /// From the request until every container has reached its goal; null when that is not to be expected.
    pub goals_after: Option<Expected>,
    /// From the request until it is committed; null when it is not committed by itself.
    pub committed_after_ms: Option<u64>,
    /// The longest time that a container is away.
    pub downtime: Option<Expected>,
    /// Its objects.
    pub objects: PlannedObjects,
    /// Space on the storage.
    pub space: PlannedSpace,
    /// What a rollback returns to.
    pub rollback: Rollback,
    /// Whether its signatures are good.
    pub signatures: Signatures,
}

/// How a revision is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// It runs already: nothing is done.
    Nothing,
    /// Containers are changed while the machine runs.
    InPlace,
    /// The machine restarts.
    Reboot,
}

/// What becomes of a container's processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// They go on.
    Kept,
    /// They are stopped, and others are started.
    Restarted,
    /// There are none now; they are started.
    Started,
    /// They are stopped for good.
    Stopped,
    /// There are none now and none then.
    Down,
}

/// Why that becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The running revision has none of this name.
    New,
    /// The revision has none of this name.
    Removed,
    /// It differs; `changes` says in what.
    Changed,
    /// Its goal moves to MOUNTED or away from it.
    GoalMoved,
    /// It is the same.
    Unchanged,
    /// It is the same and does not run now.
    NotRunning,
    /// It is the same, and the machine restarts.
    MachineRestarts,
    /// A person stopped it, and it stays so.
    StoppedByPerson,
}

/// What becomes of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedContainer {
    /// Its name.
    #[schemars(with = "String")]
    pub name: ContainerName,
    /// Its group.
    #[schemars(with = "String")]
    pub group: GroupName,
    /// What becomes of it.
    pub fate: Fate,
    /// Why.
    pub reason: Reason,
    /// What differs, in words: `root file system`, `run.json: command, env`, `_config/web/etc/x`.
    pub changes: Vec<String>,
    /// What is applied to it without touching its processes: `health`, `depends-on`.
    pub settings: Vec<String>,
    /// Where it is now, when it is not running.
    pub status: Option<Status>,
    /// Containers that must have reached their goals before it is started.
    #[schemars(with = "Vec<String>")]
    pub depends_on: Vec<ContainerName>,
    /// From its stop until it reaches its goal again; only when it is restarted.
    pub downtime: Option<Expected>,
}

/// How long something is expected to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Expected {
    /// Milliseconds.
    pub ms: u64,
    /// What that rests on.
    pub basis: Basis,
}

/// What an expected time rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// Each part was seen before, since the start of the orchestrator.
    Observed,
    /// At least one part was not: a stop counts with its configured time-out, a start with nothing, a boot without firmware and boot loader.
    Configured,
}

/// One thing that is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedStep {
    /// Milliseconds after the request.
    pub after_ms: u64,
    /// What.
    pub what: Deed,
    /// To which container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub container: Option<ContainerName>,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Deed {
    /// The container is asked to stop.
    Stop,
    /// It is started.
    Start,
    /// Its volumes are mounted.
    Mount,
    /// The machine restarts.
    Reboot,
}

/// Objects of a revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedObjects {
    /// How many it needs.
    pub needed: u64,
    /// Bytes of those that are there.
    pub there_bytes: u64,
    /// Those that are not there, by the keys that need them.
    pub missing: Vec<MissingObject>,
    /// Bytes that are still to be fetched; null while the size of a missing object is not known: a manifest does not tell it.
    pub fetch_bytes: Option<u64>,
}

/// An object that is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MissingObject {
    /// Its SHA-256.
    #[schemars(with = "String")]
    pub object: ObjectId,
    /// A key that needs it.
    pub key: String,
    /// Its size, when that is known.
    pub bytes: Option<u64>,
    /// Bytes of an interrupted upload, which goes on there.
    pub uploaded: u64,
}

/// Space on the storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedSpace {
    /// Bytes of the manifest, when it is not installed yet.
    pub manifest_bytes: u64,
    /// Bytes that it needs on the storage; null while the size of a missing object is not known.
    pub needed_bytes: Option<u64>,
    /// Bytes that uploads may take.
    pub available_bytes: u64,
    /// Whether that is enough; null while it is not known.
    pub enough: Option<bool>,
    /// Revisions that are removed after the commit.
    #[schemars(with = "Vec<String>")]
    pub removed: Vec<RevisionId>,
    /// Objects that are collected then.
    pub freed_objects: u64,
    /// Bytes that are freed then: objects, and volumes and logs of the removed revisions as they are now.
    pub freed_bytes: u64,
    /// Bytes that nobody needs then either, and that a lease keeps from collection for a while: a later one frees them.
    pub freed_later_bytes: u64,
}

/// What a rollback returns to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rollback {
    /// While it is being tried.
    #[schemars(with = "Option<String>")]
    pub during_trial: Option<RevisionId>,
    /// After it was committed.
    #[schemars(with = "Option<String>")]
    pub after_commit: Option<RevisionId>,
}

/// Whether signatures are good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Signatures {
    /// Nobody has looked: this version verifies no signatures.
    NotChecked,
}

impl Plan {
    /// Tells it sizes of missing objects, by who has them: a manifest names objects without their sizes.
    pub fn know_sizes(&mut self, sizes: &BTreeMap<ObjectId, u64>) {
        for missing in &mut self.objects.missing {
            missing.bytes = missing
                .bytes
                .or_else(|| sizes.get(&missing.object).copied());
        }
        self.add_up();
    }

    /// Adds up what follows from the sizes of the missing objects.
    pub fn add_up(&mut self) {
        let fetch = self.objects.missing.iter().try_fold(0_u64, |sum, missing| {
            let left = missing.bytes?.saturating_sub(missing.uploaded);
            Some(sum.saturating_add(left))
        });
        self.objects.fetch_bytes = fetch;
        let space = &mut self.space;
        space.needed_bytes = fetch.map(|fetch| fetch.saturating_add(space.manifest_bytes));
        space.enough = space
            .needed_bytes
            .map(|needed| needed <= space.available_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(bytes: Option<u64>, uploaded: u64) -> MissingObject {
        MissingObject {
            object: ObjectId::of(&uploaded.to_le_bytes()),
            key: "web/root.squashfs".to_owned(),
            bytes,
            uploaded,
        }
    }

    fn plan(missing: Vec<MissingObject>) -> Plan {
        Plan {
            revision: None,
            manifest: ObjectId::of(b""),
            running: None,
            way: Way::InPlace,
            refused: None,
            boot_changes: Vec::new(),
            containers: Vec::new(),
            steps: Vec::new(),
            goals_after: None,
            committed_after_ms: None,
            downtime: None,
            objects: PlannedObjects {
                needed: 3,
                there_bytes: 5,
                missing,
                fetch_bytes: None,
            },
            space: PlannedSpace {
                manifest_bytes: 100,
                needed_bytes: None,
                available_bytes: 1000,
                enough: None,
                removed: Vec::new(),
                freed_objects: 0,
                freed_bytes: 0,
                freed_later_bytes: 0,
            },
            rollback: Rollback {
                during_trial: None,
                after_commit: None,
            },
            signatures: Signatures::NotChecked,
        }
    }

    #[test]
    fn sums_need_every_size() {
        let mut plan = plan(vec![missing(None, 0), missing(Some(40), 10)]);
        plan.add_up();
        assert_eq!((plan.objects.fetch_bytes, plan.space.enough), (None, None));
        let first = plan.objects.missing[0].object;
        plan.know_sizes(&BTreeMap::from([(first, 870)]));
        assert_eq!(plan.objects.fetch_bytes, Some(900));
        assert_eq!(plan.space.needed_bytes, Some(1000));
        assert_eq!(plan.space.enough, Some(true));
        plan.space.available_bytes = 999;
        plan.add_up();
        assert_eq!(plan.space.enough, Some(false));
    }

    #[test]
    fn nothing_missing_needs_nothing_but_the_manifest() {
        let mut plan = plan(Vec::new());
        plan.add_up();
        assert_eq!(plan.objects.fetch_bytes, Some(0));
        assert_eq!(plan.space.needed_bytes, Some(100));
    }
}
