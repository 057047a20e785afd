//! Kernel modules: which are in the kernel, and how one gets in or out. Loading is `modprobe`'s business: it knows dependencies, aliases
//! and blacklists.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::process::Process;

/// Time that `modprobe` gets: a driver may wait for its hardware.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of what it says that are kept.
const SAID_BYTES_MAX: u64 = 1 << 10;
/// Bytes of a module's name.
const NAME_BYTES_MAX: usize = 64;

/// Why a module was not loaded or unloaded.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// This cannot be a module.
    #[error("{0:?} is no name of a kernel module")]
    Name(String),
    /// The program could not be run.
    #[error("cannot run {}; install kmod, or set modprobe-binary", program.display())]
    Run {
        /// Which.
        program: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It did not end.
    #[error("modprobe {0} did not end in {limit} s and was killed", limit = PATIENCE.as_secs())]
    TooSlow(String),
    /// It failed.
    #[error("modprobe {module} failed: {said}")]
    Failed {
        /// Which module.
        module: String,
        /// What it said.
        said: String,
    },
}

/// Loads and unloads modules.
#[derive(Debug, Clone)]
pub struct Modules {
    modprobe: PathBuf,
}

impl Modules {
    /// With this `modprobe`: a path, or a name to find in PATH.
    pub fn new(modprobe: PathBuf) -> Self {
        Self { modprobe }
    }

    /// Loads a module with its parameters; that it is in the kernel already is no error. Waits.
    ///
    /// # Errors
    /// See [`ModuleError`].
    pub fn load(&self, module: &str, parameters: &[String]) -> Result<(), ModuleError> {
        self.run(&[], module, parameters)
    }

    /// Takes a module out of the kernel, and those that only it needed. Waits.
    ///
    /// # Errors
    /// See [`ModuleError`]; one that is in use stays.
    pub fn unload(&self, module: &str) -> Result<(), ModuleError> {
        self.run(&["-r"], module, &[])
    }

    fn run(&self, flags: &[&str], module: &str, parameters: &[String]) -> Result<(), ModuleError> {
        if !is_name(module) {
            return Err(ModuleError::Name(module.to_owned()));
        }
        let failed = |source| ModuleError::Run {
            program: self.modprobe.clone(),
            source,
        };
        let mut child = Command::new(&self.modprobe)
            .args(flags)
            .arg("--")
            .arg(module)
            .args(parameters)
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let process = Process::open(child.id()).map_err(failed)?;
        // Waited for without being reaped: its status is read below.
        let ended = process.wait_without_reaping(PATIENCE).map_err(failed)?;
        if !ended {
            child.kill().and_then(|()| child.wait()).map_err(failed)?;
            return Err(ModuleError::TooSlow(module.to_owned()));
        }
        let status = child.wait().map_err(failed)?;
        if status.success() {
            return Ok(());
        }
        let mut said = String::new();
        if let Some(output) = child.stderr.take() {
            // What it said only explains; that it failed is known.
            output.take(SAID_BYTES_MAX).read_to_string(&mut said).ok();
        }
        Err(ModuleError::Failed {
            module: module.to_owned(),
            said: match said.trim() {
                "" => status.to_string(),
                said => said.to_owned(),
            },
        })
    }
}

/// Whether a module is in the kernel, loaded or built in.
pub fn is_loaded(module: &str) -> bool {
    if !is_name(module) {
        return false;
    }
    let plain = module.replace('-', "_");
    if Path::new("/sys/module").join(&plain).is_dir() {
        return true;
    }
    // One that is built in and has no parameters is not in /sys.
    let release = rustix::system::uname();
    let Ok(release) = release.release().to_str() else {
        return false;
    };
    let list = Path::new("/lib/modules")
        .join(release)
        .join("modules.builtin");
    fs::read_to_string(list).is_ok_and(|list| is_built_in(&list, &plain))
}

/// Lines such as `kernel/fs/ext4/ext4.ko`.
fn is_built_in(list: &str, plain: &str) -> bool {
    list.lines().any(|line| {
        let file = line.rsplit('/').next().unwrap_or(line);
        let name = file.split('.').next().unwrap_or(file);
        name.replace('-', "_") == plain
    })
}

/// Letters, digits, `-` and `_`; no flag.
fn is_name(module: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&module.len())
        && !module.starts_with('-')
        && module
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    /// A `modprobe` that writes down what it was asked.
    fn fake(script: &str) -> (tempfile::TempDir, Modules) {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("modprobe");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        // While another test starts a program, its child may hold our file open for writing for a moment.
        while let Err(error) = Command::new(&program).stderr(Stdio::null()).status() {
            assert_eq!(error.kind(), io::ErrorKind::ExecutableFileBusy);
        }
        (folder, Modules::new(program))
    }

    #[test]
    fn modprobe_gets_module_and_parameters() {
        let (folder, modules) = fake("[ $# -eq 0 ] || echo \"$@\" >>\"$(dirname \"$0\")\"/asked");
        modules
            .load("brcmfmac", &["debug=1".to_owned(), "a=b c".to_owned()])
            .unwrap();
        modules.unload("brcmfmac").unwrap();
        let asked = fs::read_to_string(folder.path().join("asked")).unwrap();
        assert_eq!(asked, "-- brcmfmac debug=1 a=b c\n-r -- brcmfmac\n");
    }

    #[test]
    fn what_fails_is_told() {
        let (_folder, modules) = fake("echo no such module >&2; exit 1");
        let error = modules.load("nothing", &[]).unwrap_err();
        assert_eq!(error.to_string(), "modprobe nothing failed: no such module");
        for name in ["", "-r", "a/b", "a b", "../x"] {
            let error = modules.load(name, &[]).unwrap_err();
            assert!(matches!(error, ModuleError::Name(_)), "{name}: {error}");
            assert!(!is_loaded(name), "{name}");
        }
        let missing = Modules::new("/nowhere/modprobe".into());
        assert!(matches!(
            missing.load("loop", &[]),
            Err(ModuleError::Run { .. })
        ));
    }

    #[test]
    fn built_in_modules_are_there() {
        let list = "kernel/fs/ext4/ext4.ko\nkernel/drivers/snd-hda.ko\n";
        assert!(is_built_in(list, "ext4"));
        assert!(is_built_in(list, "snd_hda"));
        assert!(!is_built_in(list, "ext"));
        assert!(!is_loaded("no_such_module_anywhere"));
    }
}
