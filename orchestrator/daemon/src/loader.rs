//! The setting `bootloader` to the adapter behind the port, and what the manifest's `bsp/` gives it to start.
//!
//! Settings that make no boot loader stop the orchestrator's start. A place that is gone (a boot partition that cannot be mounted any more)
//! stops only a trial, which must not be committed without it: what is committed runs, nothing new begins, and every answer says why.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use device::ports::Bootloader;
use linux::bootloader::area::{Area, FileArea, RawArea};
use linux::bootloader::block::BlockFile;
use linux::bootloader::software::{ADDONS_MAX, BootFile, Copies, Links, Role, Software};
use linux::bootloader::systemd_boot::SystemdBoot;
use linux::bootloader::tryboot::TryBoot;
use linux::bootloader::uboot::{Uboot, UbootError};
use linux::bootloader::uboot_txt::UbootTxt;
use linux::bootloader::{Choice, Environment, Found, Kernels, Loader, booted, fw_env};
use linux::disk::LinuxDisk;
use model::manifest::Value;
use model::{Manifest, RevisionId};
use store::{Store, explain};

use crate::config::Config;
use crate::service::NoBootloader;

/// Bytes of `fw_env.config` and of `u-boot-initial-env`.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The machine's boot loader, when we have a part in it.
#[derive(Debug)]
pub(crate) enum MachineLoader {
    /// The marker alone says what runs.
    None(NoBootloader),
    /// One of ours.
    Some(Loader),
    /// Its place cannot be opened.
    Away {
        /// What the kernel command line says.
        booted: Option<RevisionId>,
        /// What is wrong.
        why: String,
    },
}

impl Bootloader for MachineLoader {
    fn booted(&self) -> Option<RevisionId> {
        match self {
            Self::None(none) => none.booted(),
            Self::Some(loader) => loader.booted(),
            Self::Away { booted, .. } => booted.clone(),
        }
    }

    fn is_damaged(&self) -> bool {
        match self {
            Self::None(none) => none.is_damaged(),
            Self::Some(loader) => loader.is_damaged(),
            // So that it is told at the start, and not only when a revision is tried.
            Self::Away { .. } => true,
        }
    }

    fn arm(&mut self, trial: &RevisionId) -> Result<(), String> {
        match self {
            Self::None(none) => none.arm(trial),
            Self::Some(loader) => loader.arm(trial),
            Self::Away { why, .. } => Err(why.clone()),
        }
    }

    fn confirm(&mut self, committed: &RevisionId) -> Result<(), String> {
        match self {
            Self::None(none) => none.confirm(committed),
            Self::Some(loader) => loader.confirm(committed),
            Self::Away { why, .. } => Err(why.clone()),
        }
    }
}

/// Why the boot loader of the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoaderError {
    /// A file or folder that it needs.
    #[error("cannot open {} for the boot loader; is the partition mounted?", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// `fw_env.config` is wrong.
    #[error("{} cannot be used", path.display())]
    FwEnv {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: fw_env::FwEnvError,
    },
    /// The environment cannot be written safely.
    #[error(transparent)]
    Uboot(#[from] UbootError),
    /// A setting is missing.
    #[error("bootloader = {bootloader} needs bootloader-path: {what}")]
    Path {
        /// The boot loader.
        bootloader: String,
        /// What the path names.
        what: &'static str,
    },
}

/// Whose boot loader it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    /// That of this machine.
    Machine,
    /// That of the device whose storage is being made here.
    Image,
}

/// U-Boot's environment of a device that is not here: it names no revision yet, and the boot script then starts the factory revision.
#[derive(Debug)]
struct Elsewhere;

impl Environment for Elsewhere {
    fn read(&self) -> Found {
        Found::default()
    }

    fn write(&mut self, _choice: &Choice) -> Result<(), String> {
        Ok(())
    }
}

/// What the settings make of a boot loader.
struct Parts {
    environment: Box<dyn Environment>,
    kernels: Option<Box<dyn Kernels>>,
    /// Where files lie that the boot loader reads without the journal.
    journals: Vec<PathBuf>,
}

/// Sets up the boot loader that the settings name.
pub(crate) fn set_up(
    config: &Config,
    store: &Store<LinuxDisk>,
    cmdline: &str,
) -> Result<MachineLoader, LoaderError> {
    let parts = match parts(config, store, Of::Machine) {
        Ok(Some(parts)) => parts,
        Ok(None) => return Ok(MachineLoader::None(NoBootloader)),
        Err(error @ LoaderError::Open { .. }) => return away(config, store, cmdline, error),
        Err(error) => return Err(error),
    };
    let (revision, notice) = booted(config.text("booted"), cmdline);
    if let Some(notice) = notice {
        tracing::warn!("{notice}");
    }
    let mut loader = Loader::new(parts.environment, revision).with_journals(parts.journals);
    if let Some(kernels) = parts.kernels {
        loader = loader.with_kernels(kernels);
    }
    for notice in loader.notices() {
        tracing::warn!("boot loader: {notice}");
    }
    let bootloader = config.text("bootloader");
    tracing::info!(bootloader, choice = ?loader.choice(), "boot loader");
    Ok(MachineLoader::Some(loader))
}

/// A boot loader whose place cannot be opened, unless the kernel that runs is on trial: then the start ends here, the machine is started
/// again, and the boot loader falls back by itself.
fn away(
    config: &Config,
    store: &Store<LinuxDisk>,
    cmdline: &str,
    error: LoaderError,
) -> Result<MachineLoader, LoaderError> {
    let (booted, _) = booted(config.text("booted"), cmdline);
    let trial = store.read_marker().ok().and_then(|read| read.marker?.trial);
    if trial.is_some_and(|trial| trial.by_reboot && Some(trial.revision) == booted) {
        return Err(error);
    }
    let why = explain(&error);
    tracing::error!("{why}: what is committed runs, and nothing new is begun");
    Ok(MachineLoader::Away { booted, why })
}

/// The same for a storage that is being made on another machine: its file system's journal is not ours to empty, nothing was booted, and
/// what lies outside that storage and `bootloader-path` is not the device's.
pub(crate) fn for_image(
    config: &Config,
    store: &Store<LinuxDisk>,
) -> Result<MachineLoader, LoaderError> {
    let Some(parts) = parts(config, store, Of::Image)? else {
        return Ok(MachineLoader::None(NoBootloader));
    };
    let mut loader = Loader::new(parts.environment, None);
    if let Some(kernels) = parts.kernels {
        loader = loader.with_kernels(kernels);
    }
    Ok(MachineLoader::Some(loader))
}

fn parts(config: &Config, store: &Store<LinuxDisk>, of: Of) -> Result<Option<Parts>, LoaderError> {
    let bootloader = config.text("bootloader");
    if bootloader == "none" {
        return Ok(None);
    }
    let storage = config.path("storage");
    let path = match config.text("bootloader-path") {
        "" => default_path(bootloader, &storage)?,
        path => path.into(),
    };
    let links = |starts| -> Result<Box<dyn Kernels>, LoaderError> {
        Ok(Box::new(Links {
            storage: open(&storage)?,
            software: Box::new(BootFiles(store.clone())),
            starts,
        }))
    };
    let copies = |boot: &Arc<LinuxDisk>| -> Result<Box<dyn Kernels>, LoaderError> {
        Ok(Box::new(Copies {
            storage: open(&storage)?,
            boot: Arc::clone(boot),
            software: Box::new(BootFiles(store.clone())),
            are_efi: bootloader == "systemd-boot",
        }))
    };
    let options = config.text("bootloader-options").to_owned();
    let mut journals = vec![storage.clone()];
    let on_fat = matches!(bootloader, "systemd-boot" | "tryboot");
    journals.extend(path.parent().filter(|_| !on_fat).map(Path::to_owned));
    let (environment, kernels): (Box<dyn Environment>, Option<Box<dyn Kernels>>) = match bootloader
    {
        "file" => (Box::new(BlockFile { file: file(&path)? }), None),
        "grub" => (
            Box::new(BlockFile { file: file(&path)? }),
            Some(links(&[Role::Linux])?),
        ),
        "uboot-pantavisor" => (
            Box::new(UbootTxt { file: file(&path)? }),
            Some(links(&[Role::Linux, Role::Fit])?),
        ),
        "uboot" => {
            let environment: Box<dyn Environment> = match of {
                Of::Machine => Box::new(uboot(config, &mut journals)?),
                // This machine's fw_env.config names its own.
                Of::Image => Box::new(Elsewhere),
            };
            (environment, Some(links(&[Role::Linux, Role::Fit])?))
        }
        "systemd-boot" => {
            let disk = open(&path)?;
            let kernels = copies(&disk)?;
            (Box::new(SystemdBoot { disk, options }), Some(kernels))
        }
        "tryboot" => {
            let disk = open(&path)?;
            let kernels = copies(&disk)?;
            let argument = config.path("run-dir").join("reboot-param");
            (
                Box::new(TryBoot {
                    disk,
                    options,
                    argument,
                }),
                Some(kernels),
            )
        }
        other => unreachable!("the table of settings knows no boot loader {other}"),
    };
    Ok(Some(Parts {
        environment,
        kernels,
        journals,
    }))
}

fn default_path(bootloader: &str, storage: &Path) -> Result<PathBuf, LoaderError> {
    Ok(match bootloader {
        "file" => storage.join("boot/loader"),
        "uboot-pantavisor" => storage.join("boot/uboot.txt"),
        "grub" => storage.join("boot/grubenv"),
        "uboot" => PathBuf::new(),
        _ => {
            return Err(LoaderError::Path {
                bootloader: bootloader.to_owned(),
                what: "the folder where the boot partition is mounted",
            });
        }
    })
}

fn open(folder: &Path) -> Result<Arc<LinuxDisk>, LoaderError> {
    let disk = LinuxDisk::open(folder).map_err(|source| LoaderError::Open {
        path: folder.to_owned(),
        source,
    })?;
    Ok(Arc::new(disk))
}

/// A file by its absolute path; its folder must be there, or can be made.
fn file(path: &Path) -> Result<FileArea<LinuxDisk>, LoaderError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder).map_err(|source| LoaderError::Open {
        path: folder.to_owned(),
        source,
    })?;
    Ok(FileArea {
        disk: open(folder)?,
        path: path.file_name().unwrap_or_default().into(),
    })
}

fn uboot(config: &Config, journals: &mut Vec<PathBuf>) -> Result<Uboot, LoaderError> {
    let path = config.path("bootloader-uboot-config");
    let text = read(&path).map_err(|source| LoaderError::Open {
        path: path.clone(),
        source,
    })?;
    let parsed = fw_env::parse(&String::from_utf8_lossy(&text));
    let places = parsed.map_err(|source| LoaderError::FwEnv { path, source })?;
    let size = places.first().map_or(0, |place| place.size);
    let mut areas: Vec<Box<dyn Area>> = Vec::new();
    for place in places {
        let is_file = std::fs::metadata(&place.path).is_ok_and(|metadata| metadata.is_file());
        // What is at an offset of a file stays where it is: only a file that is the copy itself can be replaced.
        if is_file && place.offset == 0 {
            journals.extend(place.path.parent().map(Path::to_owned));
            areas.push(Box::new(file(&place.path)?));
        } else {
            areas.push(Box::new(RawArea {
                device: place.path,
                offset: place.offset,
                len: place.size,
            }));
        }
    }
    let initial = read(&config.path("bootloader-uboot-initial")).ok();
    Ok(Uboot::new(areas, size, initial)?)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    use io::Read as _;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What manifests in the store name below `bsp/`.
struct BootFiles(Store<LinuxDisk>);

impl fmt::Debug for BootFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BootFiles")
    }
}

impl Software for BootFiles {
    fn boot_files(&self, revision: &RevisionId) -> Result<Vec<BootFile>, String> {
        let bytes = self
            .0
            .read_manifest(revision)
            .map_err(|error| explain(&error))?;
        let manifest = Manifest::parse(&bytes).map_err(|error| explain(&error))?;
        boot_files(&manifest)
    }
}

/// The boot files that `bsp/run.json` names, each with its object.
fn boot_files(manifest: &Manifest) -> Result<Vec<BootFile>, String> {
    let entry = |name: &str| {
        let mut entries = manifest.entries().iter();
        entries
            .find(|(key, _)| key.as_str() == name)
            .map(|(_, value)| value)
    };
    let Some(Value::Inline(text)) = entry("bsp/run.json") else {
        return Ok(Vec::new());
    };
    let run: serde_json::Value =
        serde_json::from_str(text).map_err(|error| format!("bsp/run.json: {error}"))?;
    let mut named: Vec<(Role, &str)> = Vec::new();
    for (field, role) in [
        ("linux", Role::Linux),
        ("initrd", Role::Initrd),
        ("fdt", Role::DeviceTree),
        ("fit", Role::Fit),
    ] {
        named.extend(
            run.get(field)
                .and_then(|name| name.as_str())
                .map(|name| (role, name)),
        );
    }
    let addons = run.get("addons").and_then(|addons| addons.as_array());
    let addons: Vec<_> = addons.into_iter().flatten().collect();
    if addons.len() > ADDONS_MAX {
        return Err(format!(
            "bsp/run.json names {} addons, and boot loaders load {ADDONS_MAX}",
            addons.len()
        ));
    }
    for (number, addon) in addons.into_iter().enumerate() {
        named.extend(addon.as_str().map(|name| (Role::Addon(number), name)));
    }
    let files = named
        .into_iter()
        .map(|(role, name)| match entry(&format!("bsp/{name}")) {
            Some(Value::Object(object)) => Ok((role, store::layout::object(object))),
            Some(Value::Inline(_)) | None => Err(format!(
                "bsp/run.json names {name:?}, but the manifest has no object bsp/{name}"
            )),
        });
    files.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_files_come_from_bsp() {
        let files = |run: &str| {
            let (a, b) = ("a".repeat(64), "b".repeat(64));
            let manifest = format!(
                r##"{{"#spec":"pantavisor-service-system@1","bsp/k":"{a}","bsp/i":"{b}","bsp/run.json":{run}}}"##
            );
            boot_files(&Manifest::parse(manifest.as_bytes()).unwrap())
        };
        let found = files(r#"{"linux":"k","initrd":"i","addons":["i"]}"#).unwrap();
        let roles: Vec<_> = found.iter().map(|(role, _)| *role).collect();
        assert_eq!(roles, [Role::Linux, Role::Initrd, Role::Addon(0)]);
        assert_eq!(
            found[0].1,
            PathBuf::from(format!("objects/{}", "a".repeat(64)))
        );
        assert_eq!(files("{}").unwrap(), []);
        assert!(
            files(r#"{"linux":"gone"}"#)
                .unwrap_err()
                .contains("bsp/gone")
        );
    }

    #[test]
    fn every_boot_loader_of_the_table_is_set_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        for name in ["storage", "boot", "run"] {
            std::fs::create_dir(path(name)).unwrap();
        }
        std::fs::write(path("uboot.env"), [0; 4096]).unwrap();
        std::fs::write(
            path("fw_env.config"),
            format!("{} 0 0x1000\n", path("uboot.env")),
        )
        .unwrap();
        let opened = Store::open(
            LinuxDisk::open(Path::new(&path("storage"))).unwrap(),
            store::Options::default(),
            model::Instant::default(),
        );
        let crate::config::Kind::Word(words) =
            crate::config::table::find("bootloader").unwrap().kind
        else {
            panic!("the boot loader is one of several words");
        };
        for word in words {
            let mut config = Config::defaults();
            let source = crate::config::Source::CommandLine;
            for (name, value) in [
                ("bootloader", (*word).to_owned()),
                ("storage", path("storage")),
                ("run-dir", path("run")),
                ("bootloader-uboot-config", path("fw_env.config")),
                ("booted", "7".to_owned()),
            ] {
                config.set(name, &value, source.clone()).unwrap();
            }
            if matches!(*word, "systemd-boot" | "tryboot") {
                assert!(
                    set_up(&config, &opened.store, "").is_err(),
                    "{word} needs a path"
                );
                config
                    .set("bootloader-path", &path("boot"), source.clone())
                    .unwrap();
            }
            let loader = set_up(&config, &opened.store, "").unwrap();
            let seven: RevisionId = "7".parse().unwrap();
            assert_eq!(
                loader.booted(),
                (*word != "none").then_some(seven),
                "{word}"
            );
        }
    }

    /// A boot partition that died must not keep a device from running what it has; a trial that cannot reach it is none.
    #[test]
    fn a_place_that_is_gone_stops_only_the_trial_of_a_kernel() {
        let storage = tempfile::tempdir().unwrap();
        let opened = Store::open(
            LinuxDisk::open(storage.path()).unwrap(),
            store::Options::default(),
            model::Instant::default(),
        );
        let mut config = Config::defaults();
        let source = crate::config::Source::CommandLine;
        let gone = storage.path().join("no-such-partition");
        for (name, value) in [
            ("bootloader", "systemd-boot".to_owned()),
            ("bootloader-path", gone.display().to_string()),
            ("storage", storage.path().display().to_string()),
        ] {
            config.set(name, &value, source.clone()).unwrap();
        }
        let manifest = br##"{"#spec":"pantavisor-service-system@1"}"##;
        let (one, two): (RevisionId, RevisionId) = ("1".parse().unwrap(), "2".parse().unwrap());
        for revision in [&one, &two] {
            let progress = model::Progress::new(model::State::Done, "", 0);
            let new = store::NewRevision {
                revision,
                manifest,
                progress: &progress,
                commit_message: None,
            };
            opened.store.put_revision(new).unwrap();
        }
        let mut marker = model::Marker {
            committed: Some(one.clone()),
            ..model::Marker::default()
        };
        let up = |cmdline: &str| set_up(&config, &opened.store, cmdline);
        opened.store.write_marker(&marker).unwrap();
        let mut loader = up("coxswain.booted=1 pv_rev=1").unwrap();
        assert_eq!(loader.booted(), Some(one.clone()));
        assert!(loader.is_damaged());
        for told in [loader.confirm(&one), loader.arm(&two)] {
            assert!(told.unwrap_err().contains("no-such-partition"));
        }
        marker.trial = Some(model::marker::Trial {
            revision: two.clone(),
            tries_left: 3,
            by_reboot: true,
        });
        opened.store.write_marker(&marker).unwrap();
        assert!(up("pv_rev=1").is_ok(), "the fallback runs");
        assert!(up("pv_rev=2").is_err(), "the trial does not");
    }
}
