//! Raspberry Pi's `tryboot`: the firmware reads `tryboot.txt` instead of `config.txt` for one boot when the machine is restarted with the
//! argument `0 tryboot`; any other start, also after a power cut, reads `config.txt`. Nothing has to count.
//!
//! Both files belong to the board and never change; they end with `include coxswain.txt` and `include coxswain-try.txt`, which are
//! ours and choose a folder with `os_prefix`. Who restarts the machine must pass the argument: while a trial is armed it stands in a
//! file ([`TryBoot::argument`]).

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::RevisionId;
use store::disk::Disk;

use super::entry_format::{ENTRY_BYTES_MAX, open, seal};
use super::software::{Copied, Role};
use super::token::token;
use super::{Choice, Environment, Found};
use crate::replace::replace;

/// What to pass to `reboot`.
pub const REBOOT_ARGUMENT: &str = "0 tryboot";
const COMMITTED: &str = "coxswain.txt";
const TRIAL: &str = "coxswain-try.txt";

/// The boot partition of a Raspberry Pi.
#[derive(Debug)]
pub struct TryBoot<D> {
    /// The partition.
    pub disk: Arc<D>,
    /// Kernel options.
    pub options: String,
    /// A file of this boot only that holds [`REBOOT_ARGUMENT`] while a trial is armed.
    pub argument: PathBuf,
}

impl<D: Disk + fmt::Debug> TryBoot<D> {
    fn part(&self, name: &str, notices: &mut Vec<String>) -> Option<RevisionId> {
        let problem = match self.disk.read(Path::new(name), ENTRY_BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => error.to_string(),
            Ok(bytes) => match open(&bytes) {
                Ok(revision) => return Some(revision),
                Err(problem) => problem,
            },
        };
        notices.push(format!(
            "{name} on the boot partition cannot be used: {problem}"
        ));
        None
    }

    fn write_part(&self, name: &str, revision: &RevisionId) -> Result<(), String> {
        let copied = Copied::of(&*self.disk, revision)?;
        let folder = &copied.folder;
        let failed =
            |error: io::Error| format!("cannot write {name} on the boot partition: {error}");
        let mut body = format!(
            "[all]\nos_prefix={}/\nkernel=linux\ncmdline=cmdline.txt\n",
            folder.display()
        );
        let initrds: Vec<_> = Role::initrds()
            .filter(|role| copied.has(*role))
            .map(Role::copy_name)
            .collect();
        if !initrds.is_empty() {
            body.push_str(&format!("initramfs {} followkernel\n", initrds.join(",")));
        }
        // The firmware ignores a folder in which it does not find both, and starts what lies beside it.
        if !copied.has(Role::DeviceTree) {
            return Err(format!(
                "revision {revision} has no device tree (fdt in bsp/run.json), and without one the firmware ignores its kernel"
            ));
        }
        body.push_str("device_tree=devicetree\n");
        let cmdline = format!("{} coxswain.booted={}\n", self.options, token(revision));
        replace(&*self.disk, &folder.join("cmdline.txt"), cmdline.as_bytes()).map_err(failed)?;
        replace(
            &*self.disk,
            Path::new(name),
            seal(revision, &body).as_bytes(),
        )
        .map_err(failed)
    }

    /// Of this boot only, so neither durable nor replaced.
    fn set_argument(&self, armed: bool) -> Result<(), String> {
        let result = if armed {
            fs::write(&self.argument, REBOOT_ARGUMENT)
        } else {
            match fs::remove_file(&self.argument) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            }
        };
        result.map_err(|error| format!("cannot change {}: {error}", self.argument.display()))
    }
}

impl<D: Disk + fmt::Debug> Environment for TryBoot<D> {
    fn read(&self) -> Found {
        let mut notices = Vec::new();
        let committed = self.part(COMMITTED, &mut notices);
        let trial = self
            .part(TRIAL, &mut notices)
            .filter(|trial| Some(trial) != committed.as_ref());
        let choice = Choice {
            // The firmware forgets by itself, so only the argument tells an armed trial from one that was started.
            tried: trial.is_some() && !self.argument.exists(),
            committed,
            trial,
        };
        let is_known = choice.committed.is_some() || choice.trial.is_some();
        Found {
            choice: is_known.then_some(choice),
            notices,
        }
    }

    fn write(&mut self, choice: &Choice) -> Result<(), String> {
        let mut ignored = Vec::new();
        let was = (
            self.part(COMMITTED, &mut ignored),
            self.part(TRIAL, &mut ignored),
        );
        let armed = choice.trial.as_ref().filter(|_| !choice.tried);
        if armed.is_none() {
            self.set_argument(false)?;
        }
        if let Some(committed) = choice
            .committed
            .as_ref()
            .filter(|it| was.0.as_ref() != Some(*it))
        {
            self.write_part(COMMITTED, committed)?;
        }
        // tryboot.txt includes it always, so it must always name something that boots.
        if let Some(trial) = armed.or(choice.committed.as_ref()) {
            self.write_part(TRIAL, trial)?;
        }
        match armed {
            Some(_) => self.set_argument(true),
            None => Ok(()),
        }
    }
}
