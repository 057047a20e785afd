//! Boot loaders behind the port `device::ports::Bootloader`: one [`Loader`], and one [`Environment`] for each kind of boot loader.
//!
//! An environment keeps a [`Choice`] where the boot loader reads it. Formats are pure and have files of their own; whatever bytes are
//! found, reading never panics, never invents a trial, and says in a notice what was wrong. Nothing that could tear is written in
//! place: redundant copies are written one after the other, everything else is replaced by a rename. How the boot scripts use
//! what is kept: `orchestrator/linux/bootloaders.md`. Deliberately not here: what to boot (the marker says that).

use std::fmt;
use std::path::PathBuf;

use device::ports::Bootloader;
use model::RevisionId;

pub mod area;
pub mod block;
pub mod block_format;
pub mod efi_program;
pub mod entry_format;
pub mod fw_env;
pub mod journal;
pub mod software;
pub mod systemd_boot;
pub mod token;
pub mod tryboot;
pub mod uboot;
pub mod uboot_format;
pub mod uboot_txt;

/// What a boot loader is told to start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Choice {
    /// Starts whenever no trial is armed.
    pub committed: Option<RevisionId>,
    /// Starts once.
    pub trial: Option<RevisionId>,
    /// The boot loader has started the trial; it does not do so again.
    pub tried: bool,
}

/// What an environment holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// `None` when nothing can be used.
    pub choice: Option<Choice>,
    /// What was found wrong, in words for a person.
    pub notices: Vec<String>,
}

impl Found {
    pub(crate) fn nothing(notice: String) -> Self {
        Self {
            choice: None,
            notices: vec![notice],
        }
    }
}

/// Where a boot loader keeps its choice.
pub trait Environment: fmt::Debug + Send {
    /// Reads it. Bad bytes are no error, only notices.
    fn read(&self) -> Found;

    /// Makes the choice durable. Cut anywhere, the boot loader finds the choice from before or this one.
    ///
    /// # Errors
    /// What could not be written, and why; the choice is then the one from before or this one.
    fn write(&mut self, choice: &Choice) -> Result<(), String>;
}

/// Puts kernels where a boot loader can load them.
pub trait Kernels: fmt::Debug + Send {
    /// Makes the boot files of a revision durable where the boot loader looks; false when it has none below `bsp/`.
    ///
    /// # Errors
    /// What is missing or could not be written.
    fn put(&mut self, revision: &RevisionId) -> Result<bool, String>;

    /// Removes what belongs to no revision in the list. Best effort: what stays costs only room.
    fn keep_only(&mut self, revisions: &[&RevisionId]);
}

/// A boot loader.
#[derive(Debug)]
pub struct Loader {
    environment: Box<dyn Environment>,
    kernels: Option<Box<dyn Kernels>>,
    booted: Option<RevisionId>,
    /// Folders on file systems that the boot loader reads without their journal.
    journals: Vec<PathBuf>,
}

impl Loader {
    /// `booted` is what the kernel command line says ([`booted`]); without it no kernel is taken for a wrong one.
    pub fn new(environment: Box<dyn Environment>, booted: Option<RevisionId>) -> Self {
        Self {
            environment,
            kernels: None,
            booted,
            journals: Vec::new(),
        }
    }

    /// With folders whose file systems are brought in order after each write, for a boot loader that knows no journal.
    #[must_use]
    pub fn with_journals(mut self, folders: Vec<PathBuf>) -> Self {
        self.journals = folders;
        self
    }

    /// What failed here is durable all the same, only not yet seen by every boot loader.
    fn settle(&self) {
        for folder in &self.journals {
            if let Err(error) = journal::settle(folder) {
                tracing::warn!(
                    "cannot empty the journal below {}: {error}",
                    folder.display()
                );
            }
        }
    }

    /// With somebody who puts kernels where the boot loader finds them.
    #[must_use]
    pub fn with_kernels(mut self, kernels: Box<dyn Kernels>) -> Self {
        self.kernels = Some(kernels);
        self
    }

    /// What is wrong with the environment now, for the log.
    pub fn notices(&self) -> Vec<String> {
        self.environment.read().notices
    }

    /// What the boot loader will do now.
    pub fn choice(&self) -> Option<Choice> {
        self.environment.read().choice
    }

    /// Whether the boot loader can start this revision.
    fn put(&mut self, revision: &RevisionId) -> Result<bool, String> {
        match &mut self.kernels {
            Some(kernels) => kernels.put(revision),
            None => Ok(true),
        }
    }
}

impl Bootloader for Loader {
    fn booted(&self) -> Option<RevisionId> {
        self.booted.clone()
    }

    fn is_damaged(&self) -> bool {
        !self.notices().is_empty()
    }

    fn arm(&mut self, trial: &RevisionId) -> Result<(), String> {
        if !self.put(trial)? {
            return Err(format!(
                "revision {trial} has no kernel below bsp/, so the boot loader cannot start it"
            ));
        }
        let known = self.environment.read().choice.unwrap_or_default();
        // When the environment is lost, what runs now is known to boot.
        let committed = known.committed.or_else(|| self.booted.clone());
        // The kernels before the environment that names them.
        self.settle();
        self.environment.write(&Choice {
            committed,
            trial: Some(trial.clone()),
            tried: false,
        })?;
        self.settle();
        Ok(())
    }

    fn confirm(&mut self, committed: &RevisionId) -> Result<(), String> {
        let found = self.environment.read();
        let starts = if self.put(committed)? {
            Some(committed.clone())
        } else {
            // It brings no kernel: the one that is there goes on to be used.
            let known = found.choice.as_ref();
            known.and_then(|choice| choice.committed.clone())
        };
        let wanted = Choice {
            committed: starts.clone(),
            trial: None,
            tried: false,
        };
        // Also when this is what is read: an earlier write may have failed after it could be seen and before it was durable.
        self.settle();
        self.environment.write(&wanted)?;
        self.settle();
        // What starts next is not known while the environment names nothing; then nothing is thrown away.
        if let (Some(kernels), Some(starts)) = (&mut self.kernels, &starts) {
            let kept: Vec<_> = self.booted.iter().chain([starts]).collect();
            kernels.keep_only(&kept);
        }
        Ok(())
    }
}

/// The revision whose kernel runs: what the setting `booted` says, else the word `pv_rev=` that Pantavisor's boot scripts put on the
/// kernel command line (the revision that they load, also when it is a trial). The second part says why nothing is known.
pub fn booted(setting: &str, cmdline: &str) -> (Option<RevisionId>, Option<String>) {
    let word = |name: &str| {
        let mut words = cmdline.split_ascii_whitespace();
        words.find_map(|word| word.strip_prefix(name))
    };
    let text = match setting {
        "" => word("pv_rev=").unwrap_or_default(),
        text => text,
    };
    if text.is_empty() {
        let why = "the kernel command line does not name the revision that was booted: let the boot script add \
                   coxswain.booted=REVISION (linux/bootloaders.md); until then a trial of another kernel is not told apart";
        return (None, Some(why.to_owned()));
    }
    match token::revision(text) {
        Some(revision) => (Some(revision), None),
        None => (
            None,
            Some(format!(
                "the kernel command line names {text:?} as the revision that was booted, which is no revision; check the boot script"
            )),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_booted_revision_is_on_the_kernel_command_line() {
        let id = |text: &str| Some(text.parse::<RevisionId>().unwrap());
        for (setting, cmdline, expected) in [
            ("5", "pv_rev=4", id("5")),
            ("locals/a%20b", "", id("locals/a b")),
            ("", "quiet pv_try= pv_rev=7 panic=2", id("7")),
            ("", "pv_try=8 pv_rev=8", id("8")),
            ("", "pv_try=8 pv_rev=7", id("7")),
            ("", "quiet", None),
            ("", "pv_rev=", None),
            ("../x", "", None),
        ] {
            let (revision, notice) = booted(setting, cmdline);
            assert_eq!(revision, expected, "{setting} {cmdline}");
            assert_eq!(notice.is_some(), expected.is_none());
        }
    }
}
