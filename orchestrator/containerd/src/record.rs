//! What is known about an instance, beside its mounts: `<run>/instances/<id>/record.json`.
//!
//! It is written before the first mount, so that whatever a kill leaves is found by it; it lies on a tmpfs, because
//! after a reboot there is nothing to find.

use std::fs;
use std::io;
use std::path::Path;

use device::ports::{Exit, Instance};
use model::{ContainerName, ObjectId, RevisionId};
use serde::{Deserialize, Serialize};

/// Bytes of a record that are read; ours stay below a tenth of it.
const RECORD_BYTES_MAX: u64 = 1 << 20;

/// How far an instance came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// Being set up; a remnant when nobody is at it.
    Preparing,
    /// Volumes mounted, nothing more is wanted.
    Mounted,
    /// containerd was asked to run it.
    Running,
    /// Its first process ended and containerd has forgotten it.
    Ended {
        /// As in [`Exit`].
        code: u32,
        /// As in [`Exit`].
        out_of_memory: bool,
        /// As in [`Exit`].
        #[serde(default)]
        damaged: Option<ObjectId>,
    },
}

impl Phase {
    pub(crate) fn ended(exit: Exit) -> Self {
        Self::Ended {
            code: exit.code,
            out_of_memory: exit.out_of_memory,
            damaged: exit.damaged,
        }
    }
}

/// One instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) container: ContainerName,
    pub(crate) fingerprint: ObjectId,
    pub(crate) generation: u64,
    pub(crate) revision: RevisionId,
    pub(crate) phase: Phase,
    pub(crate) ready: bool,
    /// Device and inode of the name space of its processes while it runs.
    #[serde(default)]
    pub(crate) pid_namespace: Option<(u64, u64)>,
    /// The signal that asks it to stop when run.json names none.
    #[serde(default)]
    pub(crate) halt_signal: Option<u32>,
    /// The image that it has mounted.
    pub(crate) image: Option<ObjectId>,
}

impl Record {
    pub(crate) fn instance(&self) -> Instance {
        Instance {
            container: self.container.clone(),
            fingerprint: self.fingerprint,
            generation: self.generation,
        }
    }

    /// Writes it below the folder of its instance; a reader sees the old one or this one.
    pub(crate) fn write(&self, folder: &Path) -> io::Result<()> {
        let bytes = serde_json::to_vec(self).map_err(io::Error::other)?;
        let new = folder.join("record.new");
        fs::write(&new, bytes)?;
        fs::rename(&new, folder.join("record.json"))
    }

    /// Reads the one of an instance's folder; `None` when there is none that can be used.
    pub(crate) fn read(folder: &Path) -> Option<Self> {
        let path = folder.join("record.json");
        if fs::metadata(&path).ok()?.len() > RECORD_BYTES_MAX {
            return None;
        }
        serde_json::from_slice(&fs::read(&path).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_writing_and_reading() {
        let folder = std::env::temp_dir().join(format!("coxswain-record-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let record = Record {
            container: "web".parse().unwrap(),
            fingerprint: ObjectId::of(b"x"),
            generation: u64::MAX,
            revision: "locals/ü".parse().unwrap(),
            phase: Phase::Ended {
                code: 137,
                out_of_memory: true,
                damaged: Some(ObjectId::of(b"y")),
            },
            ready: true,
            pid_namespace: Some((4, 4_026_531_836)),
            halt_signal: Some(15),
            image: None,
        };
        record.write(&folder).unwrap();
        assert_eq!(Record::read(&folder), Some(record));
        fs::write(folder.join("record.json"), b"{").unwrap();
        assert_eq!(Record::read(&folder), None);
        fs::remove_dir_all(&folder).unwrap();
    }
}
