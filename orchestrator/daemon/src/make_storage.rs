//! `coxswain make-storage`: a storage tree with a factory revision, for whoever builds an image. No device runs.
//!
//! Everything goes through the store, as on a device: objects are hashed while they are written, the marker comes last. The tree depends on
//! the revision and on the boot loader alone, so that images can be built twice to the same bytes. Deliberately not here: file
//! systems and partitions (`rootfs/build`).

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use device::ports::Bootloader as _;
use linux::disk::LinuxDisk;
use model::manifest::Rejected;
use model::progress::{Progress, State, message};
use model::{Instant, Manifest, Marker, ObjectId, RevisionId, limits};
use store::{
    Begun, Failed, HashedUpload, MarkerError, NewRevision, Options, RevisionError, Store,
    UploadError,
};

use crate::config::Config;
use crate::loader::{self, LoaderError};

const STEP_BYTES: usize = 256 << 10;

/// Why there is no storage tree.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// A file or folder that cannot be read or made.
    #[error("cannot {operation} {}", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is a device on it.
    #[error("{} holds revisions already; name a folder that does not", storage.display())]
    Used {
        /// The folder.
        storage: PathBuf,
    },
    /// The manifest has problems.
    #[error("the manifest {} is not acceptable", path.display())]
    Rejected {
        /// Its file.
        path: PathBuf,
        /// All of them.
        #[source]
        source: Rejected,
    },
    /// An object could not be taken.
    #[error("cannot take the object {object} for {key}")]
    Object {
        /// Which.
        object: ObjectId,
        /// A key of the manifest that needs it.
        key: String,
        /// Why not.
        #[source]
        source: Box<UploadError>,
    },
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] Failed),
    /// The revision could not be put.
    #[error(transparent)]
    Revision(#[from] RevisionError),
    /// The marker could not be written.
    #[error(transparent)]
    Marker(#[from] MarkerError),
    /// The boot loader cannot be set up.
    #[error(transparent)]
    Loader(#[from] LoaderError),
    /// The boot loader cannot be told.
    #[error("the boot loader cannot be told to start revision 0: {0}")]
    Told(String),
}

/// Makes the tree in `config`'s storage from a working folder (`manifest.json` and `objects/`), and tells `config`'s boot loader.
///
/// # Errors
/// What was wrong; the folder then holds no marker, and must be thrown away.
pub fn make(config: &Config, folder: &Path) -> Result<(), MakeError> {
    let storage = config.path("storage");
    std::fs::create_dir_all(&storage).map_err(|source| MakeError::File {
        operation: "make the folder",
        path: storage.clone(),
        source,
    })?;
    let disk = LinuxDisk::open(&storage).map_err(|source| MakeError::File {
        operation: "open the folder",
        path: storage.clone(),
        source,
    })?;
    // Nothing but the image stands on this file system: no reserve is kept of the build machine's.
    let options = Options {
        reserve_percent: 0,
        ..Options::default()
    };
    let store = Store::open(disk, options, Instant::default()).store;
    if !store.revisions()?.is_empty() {
        return Err(MakeError::Used { storage });
    }
    let path = folder.join("manifest.json");
    let bytes = read(&path)?;
    let manifest =
        Manifest::parse(&bytes).map_err(|source| MakeError::Rejected { path, source })?;
    for (object, key) in manifest.objects() {
        take(&store, object, key.as_str(), folder)?;
    }
    let factory = RevisionId::factory();
    store.put_revision(NewRevision {
        revision: &factory,
        manifest: &bytes,
        progress: &Progress::new(State::Done, message::FACTORY, 0),
        commit_message: None,
    })?;
    store.set_done(&factory)?;
    store.set_current(&factory)?;
    let mut loader = loader::for_image(config, &store)?;
    loader.confirm(&factory).map_err(MakeError::Told)?;
    store.write_marker(&Marker {
        committed: Some(factory),
        ..Marker::default()
    })?;
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, MakeError> {
    let read = || {
        let mut bytes = Vec::new();
        // One more than is allowed, so that the parser says what is wrong.
        let limit = limits::MANIFEST_BYTES_MAX as u64 + 1;
        File::open(path)?.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|source| MakeError::File {
        operation: "read",
        path: path.to_owned(),
        source,
    })
}

fn take(
    store: &Store<LinuxDisk>,
    object: ObjectId,
    key: &str,
    folder: &Path,
) -> Result<(), MakeError> {
    let path = folder.join("objects").join(object.to_string());
    let unreadable = |source| MakeError::File {
        operation: "read",
        path: path.clone(),
        source,
    };
    let refused = |source| MakeError::Object {
        object,
        key: key.to_owned(),
        source: Box::new(source),
    };
    let mut file = File::open(&path).map_err(unreadable)?;
    let now = Instant::default();
    let begun = store.begin_upload(object, None, now).map_err(refused)?;
    let Begun::Upload(incoming) = begun else {
        return Ok(());
    };
    let mut upload = HashedUpload::new(incoming)?;
    let mut buffer = vec![0; STEP_BYTES];
    loop {
        let count = file.read(&mut buffer).map_err(unreadable)?;
        if count == 0 {
            return upload.finish(now).map_err(refused);
        }
        upload.append(&buffer[..count]).map_err(refused)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;

    fn config(storage: &Path, bootloader: &str) -> Config {
        let mut config = Config::defaults();
        for (name, value) in [
            ("storage", storage.to_str().unwrap()),
            ("bootloader", bootloader),
        ] {
            config.set(name, value, Source::CommandLine).unwrap();
        }
        config
    }

    /// A working folder with a kernel, an initial file system and nothing else.
    fn revision(folder: &Path) -> ObjectId {
        let kernel = ObjectId::of(b"kernel");
        std::fs::create_dir_all(folder.join("objects")).unwrap();
        std::fs::write(folder.join("objects").join(kernel.to_string()), "kernel").unwrap();
        let manifest = format!(
            r##"{{"#spec":"pantavisor-service-system@1","bsp/k":"{kernel}","bsp/run.json":{{"linux":"k","initrd":"k"}}}}"##
        );
        std::fs::write(folder.join("manifest.json"), manifest).unwrap();
        kernel
    }

    fn files(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let kind = std::fs::symlink_metadata(&path).unwrap();
                if kind.is_dir() {
                    folders.push(path);
                } else {
                    let content = match std::fs::read_link(&path) {
                        Ok(target) => target.into_os_string().into_encoded_bytes(),
                        Err(_) => std::fs::read(&path).unwrap(),
                    };
                    found.push((path.strip_prefix(root).unwrap().to_owned(), content));
                }
            }
        }
        found.sort();
        found
    }

    #[test]
    fn a_tree_boots_its_factory_revision_and_is_made_twice_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let kernel = revision(&folder.path().join("revision"));
        for bootloader in ["none", "file", "grub", "uboot-pantavisor", "uboot"] {
            let trees = ["one", "two"].map(|name| {
                let storage = folder.path().join(format!("{bootloader}-{name}"));
                make(
                    &config(&storage, bootloader),
                    &folder.path().join("revision"),
                )
                .unwrap();
                storage
            });
            let (text, _) = crate::check::check(&trees[0], false);
            assert!(text.starts_with("the next boot runs 0\n"), "{text}");
            let found = trees.each_ref().map(|tree| files(tree));
            assert_eq!(found[0], found[1]);
            let linked = trees[0].join("trails/0/.pv/pv-kernel.img");
            let has_links = matches!(bootloader, "grub" | "uboot-pantavisor" | "uboot");
            assert_eq!(
                std::fs::read(linked).ok(),
                has_links.then(|| b"kernel".to_vec())
            );
        }
        let object = folder.path().join(format!("none-one/objects/{kernel}"));
        assert_eq!(std::fs::read(object).unwrap(), b"kernel");
    }

    #[test]
    fn the_environment_of_the_machine_that_builds_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        revision(&folder.path().join("revision"));
        let (environment, fw_env) = (
            folder.path().join("uboot.env"),
            folder.path().join("fw_env.config"),
        );
        let line = format!("{} 0 0x1000 # a=b\n", environment.display());
        std::fs::write(&fw_env, line).unwrap();
        let mut config = config(&folder.path().join("storage"), "uboot");
        for (name, value) in [
            ("bootloader-uboot-config", &fw_env),
            // With this one, an environment could be made from nothing.
            ("bootloader-uboot-initial", &fw_env),
        ] {
            let value = value.to_str().unwrap();
            config.set(name, value, Source::CommandLine).unwrap();
        }
        make(&config, &folder.path().join("revision")).unwrap();
        assert!(!environment.exists());
    }

    #[test]
    fn what_is_wrong_is_said_and_leaves_no_marker() {
        let folder = tempfile::tempdir().unwrap();
        let from = folder.path().join("revision");
        let kernel = revision(&from);
        let storage = folder.path().join("storage");
        let told = |error: MakeError| store::explain(&error);
        let object = from.join("objects").join(kernel.to_string());
        std::fs::write(&object, "karnel").unwrap();
        let wrong = told(make(&config(&storage, "none"), &from).unwrap_err());
        assert!(wrong.contains("bsp/k") && wrong.contains("hash"), "{wrong}");
        std::fs::remove_file(&object).unwrap();
        let missing = told(make(&config(&storage, "none"), &from).unwrap_err());
        assert!(missing.contains(&kernel.to_string()), "{missing}");
        assert!(!storage.join("boot/marker").exists());
        revision(&from);
        make(&config(&storage, "none"), &from).unwrap();
        let again = told(make(&config(&storage, "none"), &from).unwrap_err());
        assert!(again.contains("holds revisions already"), "{again}");
    }
}
