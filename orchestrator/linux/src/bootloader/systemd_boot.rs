//! systemd-boot with counted tries (any boot loader that follows the Boot Loader Specification and its boot counting).
//!
//! Two entries: `coxswain.conf` for what is committed, and `coxswain-trial+1.conf`, newer by its version, for a trial with one try. The boot
//! loader itself renames the latter to `coxswain-trial+0-1.conf` before it starts it; an entry without tries left sorts last. Kernels lie in
//! `coxswain/<short name>/` ([`super::software`]).

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::RevisionId;
use store::disk::Disk;

use super::entry_format::{ENTRY_BYTES_MAX, counter, open, seal};
use super::software::{Copied, Role};
use super::token::token;
use super::{Choice, Environment, Found};
use crate::replace::replace;

const ENTRIES: &str = "loader/entries";
const COMMITTED: &str = "coxswain.conf";
const TRIAL: &str = "coxswain-trial";
/// What an armed trial is called.
const ARMED: &str = "coxswain-trial+1.conf";

/// The boot partition of systemd-boot.
#[derive(Debug)]
pub struct SystemdBoot<D> {
    /// The partition that holds `loader/entries`.
    pub disk: Arc<D>,
    /// Kernel options of every entry.
    pub options: String,
}

/// An entry of ours that was found.
struct Entry {
    path: PathBuf,
    /// `None` when it is not whole.
    revision: Option<RevisionId>,
    left: u32,
}

impl<D: Disk + fmt::Debug> SystemdBoot<D> {
    fn entry(
        &self,
        name: &str,
        notices: &mut Vec<String>,
    ) -> Result<Option<RevisionId>, io::Error> {
        let path = Path::new(ENTRIES).join(name);
        match self.disk.read(&path, ENTRY_BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(error),
            Err(error) => {
                notices.push(format!(
                    "boot entry {} cannot be read: {error}",
                    path.display()
                ));
                Ok(None)
            }
            Ok(bytes) => Ok(match open(&bytes) {
                Ok(revision) => Some(revision),
                Err(problem) => {
                    notices.push(format!(
                        "boot entry {} cannot be used: {problem}",
                        path.display()
                    ));
                    None
                }
            }),
        }
    }

    /// Entries of trials, the ones with tries left first.
    fn trials(&self, notices: &mut Vec<String>) -> io::Result<Vec<Entry>> {
        let listed = match self.disk.list(Path::new(ENTRIES)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            listed => listed?,
        };
        let mut trials = Vec::new();
        for item in listed {
            let Some(counter) = counter(&item.name, TRIAL) else {
                continue;
            };
            trials.push(Entry {
                path: Path::new(ENTRIES).join(&item.name),
                revision: self.entry(&item.name, notices).unwrap_or(None),
                left: counter.left,
            });
        }
        trials.sort_by_key(|entry| std::cmp::Reverse(entry.left));
        Ok(trials)
    }

    fn write_entry(&self, name: &str, revision: &RevisionId, version: u8) -> Result<(), String> {
        let path = Path::new(ENTRIES).join(name);
        let failed =
            |error: io::Error| format!("cannot write the boot entry {}: {error}", path.display());
        let copied = Copied::of(&*self.disk, revision)?;
        let mut body = format!(
            "title Coxswain {}\nversion {version}\nsort-key coxswain\n",
            token(revision)
        );
        let keys = [("linux", Role::Linux), ("devicetree", Role::DeviceTree)];
        let initrds = Role::initrds().map(|role| ("initrd", role));
        for (key, role) in keys.into_iter().chain(initrds) {
            if copied.has(role) {
                let file = copied.folder.join(role.copy_name());
                body.push_str(&format!("{key} /{}\n", file.display()));
            }
        }
        body.push_str(&format!(
            "options {} coxswain.booted={}\n",
            self.options,
            token(revision)
        ));
        replace(&*self.disk, &path, seal(revision, &body).as_bytes()).map_err(failed)
    }

    fn remove(&self, trials: &[Entry], kept: Option<&str>) -> Result<(), String> {
        let kept = kept.map(|name| Path::new(ENTRIES).join(name));
        let mut removed = false;
        for trial in trials
            .iter()
            .filter(|trial| Some(&trial.path) != kept.as_ref())
        {
            match self.disk.remove_file(&trial.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(format!(
                        "cannot remove the boot entry {}: {error}",
                        trial.path.display()
                    ));
                }
                Ok(()) | Err(_) => removed = true,
            }
        }
        if removed {
            self.disk
                .sync_dir(Path::new(ENTRIES))
                .map_err(|error| format!("cannot make the folder {ENTRIES} durable: {error}"))?;
        }
        Ok(())
    }
}

impl<D: Disk + fmt::Debug> Environment for SystemdBoot<D> {
    fn read(&self) -> Found {
        let mut notices = Vec::new();
        // Nobody but us writes it, and the image builder did first: one that is gone was lost.
        let committed = self.entry(COMMITTED, &mut notices).unwrap_or_else(|_| {
            notices.push(format!("there is no boot entry {ENTRIES}/{COMMITTED}"));
            None
        });
        let trials = self.trials(&mut notices).unwrap_or_else(|error| {
            notices.push(format!("the folder {ENTRIES} cannot be read: {error}"));
            Vec::new()
        });
        let trial = trials
            .into_iter()
            .find_map(|entry| Some((entry.revision?, entry.left)));
        let choice = Choice {
            committed,
            tried: trial.as_ref().is_some_and(|(_, left)| *left == 0),
            trial: trial.map(|(revision, _)| revision),
        };
        let is_known = choice.committed.is_some() || choice.trial.is_some();
        Found {
            choice: is_known.then_some(choice),
            notices,
        }
    }

    fn write(&mut self, choice: &Choice) -> Result<(), String> {
        let mut ignored = Vec::new();
        let trials = self
            .trials(&mut ignored)
            .map_err(|error| format!("the folder {ENTRIES} cannot be read: {error}"))?;
        let was = self.entry(COMMITTED, &mut ignored).unwrap_or(None);
        match &choice.trial {
            Some(trial) if !choice.tried => {
                // What is to be fallen back to first. It is there already but for the first time, and when it was damaged.
                if let Some(committed) = choice
                    .committed
                    .as_ref()
                    .filter(|committed| was.as_ref() != Some(*committed))
                {
                    self.write_entry(COMMITTED, committed, 1)?;
                }
                self.write_entry(ARMED, trial, 2)?;
                self.remove(&trials, Some(ARMED))
            }
            Some(_) | None => {
                // A commit keeps its trial's entry until the other one is durable; a rollback takes it away first.
                let armed = trials.iter().find(|entry| entry.left > 0);
                let is_commit = armed.is_none_or(|entry| entry.revision == choice.committed);
                if !is_commit {
                    self.remove(&trials, None)?;
                }
                if let Some(committed) = &choice.committed {
                    self.write_entry(COMMITTED, committed, 1)?;
                }
                self.remove(&trials, None)
            }
        }
    }
}
