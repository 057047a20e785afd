//! The file systems of an instance: image, files laid over it, writable layer, volumes; set up and taken away.
//!
//! `<run>/instances/<id>/`: `record.json`, `config/` (files laid over the image), `rootfs/` (mounted overlay).
//! `<run>/images/<sha256>`: one mount per image, shared by all instances that use it. `<run>/boot/<id>/`: what is kept until the
//! next boot. Every step can be repeated over what a kill left half done. All of it blocks: not for an async thread.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use linux::device_mapper::{self, VerityError};
use linux::mounts::{self, MountError, Nodes};
use model::container::{ImageFormat, Kind, Oci, Overlay, Persistence, RootVolume, Volume};
use model::{Container, ObjectId, RevisionId};

use crate::config::Config;
use crate::{inside, own, sees, spec};

/// Bytes of a configuration that is an object and is read.
const CONFIG_BYTES_MAX: u64 = 4 << 20;

/// What could not be set up or taken away.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootError {
    #[error("object {object} ({key}) cannot be mounted: {source}", source = chain(.source))]
    Image {
        object: ObjectId,
        key: String,
        source: MountError,
    },
    #[error("{}", chain(.0))]
    Mount(#[from] MountError),
    #[error("{operation} {path}: {source}")]
    File {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("container has no root-volume; only one with goal MOUNTED may lack it")]
    NoRoot,
    #[error("configuration {object} is larger than 4 MiB")]
    ConfigTooLarge { object: ObjectId },
    #[error("handler {handler:?} of the root volume is not supported by this build")]
    Handler { handler: String },
    #[error(transparent)]
    Spec(#[from] spec::SpecError),
}

fn chain(error: &MountError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(next) = source {
        text = format!("{text}: {next}");
        source = next.source();
    }
    text
}

fn file(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RootError {
    move |source| RootError::File {
        operation,
        path: path.to_owned(),
        source,
    }
}

/// The folders of an instance that is set up.
#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) rootfs: PathBuf,
    /// Every volume but the writable layer.
    pub(crate) volumes: Vec<VolumePlace>,
}

/// Where a volume is.
#[derive(Debug)]
pub(crate) struct VolumePlace {
    pub(crate) name: String,
    /// Its folder on the host.
    pub(crate) host: PathBuf,
    /// Where it is mounted in the container, unless the container's configuration says that.
    pub(crate) path: Option<String>,
}

/// Folders and the tmpfs that every instance needs; the sockets' folder with its second name.
pub(crate) fn prepare_run_dir(config: &Config) -> Result<(), RootError> {
    for (path, mode) in [
        (config.run_dir.clone(), 0o755),
        (config.images(), 0o700),
        (config.instances(), 0o700),
        (config.boot(), 0o700),
        (config.runc_root(), 0o700),
        (config.sockets_dir.clone(), 0o755),
        (config.meta(), 0o700),
    ] {
        make_dir(&path, mode)?;
    }
    for point in sees::POINTS {
        make_dir(&config.sockets_dir.join(point), 0o755)?;
    }
    let boot = config.boot();
    if !mounts::is_mount_point(&boot)? {
        mounts::mount_tmpfs(&boot, "50%", 0o700)?;
    }
    let link = config.sockets_dir.join("pv-ctrl");
    match std::os::unix::fs::symlink("control.sock", &link) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(file("cannot make link", &link)),
    }
}

fn make_dir(path: &Path, mode: u32) -> Result<(), RootError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(file("cannot make folder", path))
}

/// Mounts an image unless it is mounted. The caller holds the lock over images.
pub(crate) fn mount_image(config: &Config, root: &RootVolume) -> Result<(), RootError> {
    if let (Some(handler), None) = (&root.handler, &root.verity) {
        return Err(RootError::Handler {
            handler: handler.clone(),
        });
    }
    let target = config.image(root.object);
    make_dir(&target, 0o755)?;
    let is_mounted = mounts::is_mount_point(&target)?;
    let is_checked = || is_mounted && mounts::is_mount_of(&target, &verity_name(root.object));
    if is_mounted && (root.verity.is_none() || is_checked()) {
        return Ok(());
    }
    let format = match root.format {
        ImageFormat::Squashfs => "squashfs",
        ImageFormat::Erofs => "erofs",
        ImageFormat::Ext4 => "ext4",
    };
    let image = config.object(root.object);
    let mounted = match &root.verity {
        None => mounts::mount_image(&image, format, &target),
        Some(verity) => {
            let (hashes, name) = (config.object(verity.hashes), verity_name(root.object));
            match mounts::mount_verity(&image, &hashes, &verity.root_hash, &name, format, &target) {
                // Over the plain mount of a container that did not ask for it, which goes on with that one; who comes later gets this one.
                Ok(()) => Ok(()),
                Err(MountError::Verity { source, .. })
                    if matches!(*source, VerityError::NotThere) =>
                {
                    if is_mounted {
                        return Ok(());
                    }
                    // It was hashed as a whole when it came and at this boot; see decision 0097.
                    tracing::warn!(key = %root.key, "mounted without dm-verity, which this kernel has not");
                    mounts::mount_image(&image, format, &target)
                }
                Err(error) => Err(error),
            }
        }
    };
    mounted.map_err(|source| RootError::Image {
        object: root.object,
        key: root.key.to_string(),
        source,
    })
}

/// The device mapper's name for an image; one mount for each.
fn verity_name(object: ObjectId) -> String {
    format!("coxswain-{object}")
}

/// Whether a block of a mounted image did not match its hash.
pub(crate) fn is_corrupted(object: ObjectId) -> bool {
    device_mapper::is_corrupted(&verity_name(object)) == Some(true)
}

/// Takes an image away. The caller holds the lock over images and knows that no instance uses it.
pub(crate) fn unmount_image(config: &Config, object: ObjectId) -> Result<(), RootError> {
    let target = config.image(object);
    mounts::unmount(&target)?;
    remove_dir(&target)
}

/// Sets an instance up whose image is mounted already.
pub(crate) fn set_up(
    config: &Config,
    id: &str,
    revision: &RevisionId,
    container: &Container,
) -> Result<Root, RootError> {
    let folder = config.instance(id);
    let oci = match &container.kind {
        Kind::Oci(oci) => Some(oci.as_ref()),
        Kind::Lxc(_) => None,
    };
    let rootfs = folder.join("rootfs");
    if let Some(root) = &container.root {
        make_dir(&rootfs, 0o755)?;
        let image = config.image(root.object);
        let layer = spec::writable_layer(container, oci);
        let over = folder.join("config");
        let laid = lay_over(config, container, oci, layer.is_none(), &image, &over)?;
        let lower: Vec<&Path> = if laid {
            vec![&over, &image]
        } else {
            vec![&image]
        };
        // Pantavisor's containers may have their devices in the image; device rules say which they may use.
        let nodes = match &container.kind {
            Kind::Oci(_) => Nodes::Dead,
            Kind::Lxc(_) => Nodes::Work,
        };
        match layer {
            None => mounts::mount_overlay(&lower, None, nodes, &rootfs)?,
            Some(persistence) => {
                let kept = volume_folder(config, id, revision, container, persistence)
                    .join(spec::WRITABLE_LAYER);
                let (upper, work) = (kept.join("upper"), kept.join("work"));
                make_dir(&upper, 0o755)?;
                make_dir(&work, 0o755)?;
                like_the_image(&image, &upper)?;
                mounts::mount_overlay(&lower, Some((&upper, &work)), nodes, &rootfs)?;
            }
        }
    }
    let mut volumes = Vec::new();
    for volume in &container.volumes {
        volumes.extend(set_up_volume(config, id, revision, container, volume)?);
    }
    Ok(Root { rootfs, volumes })
}

fn set_up_volume(
    config: &Config,
    id: &str,
    revision: &RevisionId,
    container: &Container,
    volume: &Volume,
) -> Result<Option<VolumePlace>, RootError> {
    if let Some(disk) = &volume.disk {
        return Err(spec::SpecError::Disk {
            volume: volume.name.clone(),
            disk: disk.clone(),
        }
        .into());
    }
    if volume.name == spec::WRITABLE_LAYER {
        return Ok(None);
    }
    let host =
        volume_folder(config, id, revision, container, volume.persistence).join(&volume.name);
    make_dir(&host, 0o755)?;
    Ok(Some(VolumePlace {
        name: volume.name.clone(),
        host,
        path: volume.path.clone(),
    }))
}

fn volume_folder(
    config: &Config,
    id: &str,
    revision: &RevisionId,
    container: &Container,
    persistence: Persistence,
) -> PathBuf {
    let disks = config.storage.join("disks");
    match persistence {
        Persistence::Permanent => disks.join("perm").join(container.name.as_str()),
        Persistence::Revision => disks
            .join("rev")
            .join(revision.as_str())
            .join(container.name.as_str()),
        Persistence::Boot => config.boot().join(id),
    }
}

/// The top folder of an overlay shows the mode and owner of its uppermost layer.
fn like_the_image(image: &Path, folder: &Path) -> Result<(), RootError> {
    let wanted = fs::metadata(image).map_err(file("cannot look at", image))?;
    fs::set_permissions(folder, fs::Permissions::from_mode(wanted.mode() & 0o7777))
        .and_then(|()| std::os::unix::fs::chown(folder, Some(wanted.uid()), Some(wanted.gid())))
        .map_err(file("cannot set mode and owner of", folder))
}

/// Files of the manifest, and the mount points that a root file system without a writable layer lacks. Tells whether there are any.
fn lay_over(
    config: &Config,
    container: &Container,
    oci: Option<&Oci>,
    read_only: bool,
    image: &Path,
    over: &Path,
) -> Result<bool, RootError> {
    let points = match oci {
        Some(oci) if read_only => own::mount_points(container, oci),
        Some(_) | None => Vec::new(),
    };
    // An overlay without a writable layer needs two lower ones.
    if container.overlays.is_empty() && !read_only {
        return Ok(false);
    }
    make_dir(over, 0o755)?;
    like_the_image(image, over)?;
    for (path, content) in &container.overlays {
        let target = place(image, over, path)?;
        match content {
            Overlay::Inline(text) => {
                fs::write(&target, text).map_err(file("cannot write", &target))?;
            }
            Overlay::Object(object) => {
                let source = config.object(*object);
                fs::copy(&source, &target).map_err(file("cannot copy", &source))?;
            }
        }
        let mode = fs::Permissions::from_mode(0o644);
        fs::set_permissions(&target, mode).map_err(file("cannot set the mode of", &target))?;
    }
    for (path, is_folder) in points {
        let inside = inside::resolve(image, Path::new(&path))
            .map_err(file("cannot resolve", Path::new(&path)))?;
        if image.join(&inside).exists() {
            continue;
        }
        let target = place(image, over, &path)?;
        if is_folder {
            make_dir(&target, 0o755)?;
        } else if !target.exists() {
            fs::write(&target, b"").map_err(file("cannot write", &target))?;
        }
    }
    Ok(true)
}

/// Where `path` of the image goes in the layer over it; makes the folders above it, each like the image's own.
fn place(image: &Path, over: &Path, path: &str) -> Result<PathBuf, RootError> {
    let inside =
        inside::resolve(image, Path::new(path)).map_err(file("cannot resolve", Path::new(path)))?;
    let mut folder = PathBuf::new();
    for part in inside.parent().into_iter().flat_map(Path::components) {
        folder.push(part);
        let (below, above) = (image.join(&folder), over.join(&folder));
        match fs::create_dir(&above) {
            Ok(()) if below.is_dir() => like_the_image(&below, &above)?,
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(file("cannot make folder", &above)(error)),
        }
    }
    Ok(over.join(inside))
}

/// Reads the bytes of a configuration that is an object.
pub(crate) fn read_config(config: &Config, object: ObjectId) -> Result<Vec<u8>, RootError> {
    let path = config.object(object);
    let found = fs::metadata(&path).map_err(file("cannot read", &path))?;
    if found.len() > CONFIG_BYTES_MAX {
        return Err(RootError::ConfigTooLarge { object });
    }
    fs::read(&path).map_err(file("cannot read", &path))
}

/// Takes the mounts and the folder of an instance away; its volumes stay.
pub(crate) fn take_down(config: &Config, id: &str) -> Result<(), RootError> {
    let folder = config.instance(id);
    unmount_root(config, id)?;
    // Never walk into something that is still mounted: it may be somebody's data.
    if let Some(left) = mounts::mounted_below(&folder)?.first() {
        return Err(RootError::File {
            operation: "cannot remove, still mounted:",
            path: left.clone(),
            source: io::Error::from(io::ErrorKind::ResourceBusy),
        });
    }
    remove_dir(&folder)
}

/// Takes the root file system of an instance away; its folder stays.
pub(crate) fn unmount_root(config: &Config, id: &str) -> Result<(), RootError> {
    Ok(mounts::unmount(&config.instance(id).join("rootfs"))?)
}

/// Forgets what a version of a container kept until the next boot.
pub(crate) fn forget_boot_volumes(config: &Config, id: &str) -> Result<(), RootError> {
    remove_dir(&config.boot().join(id))
}

/// What runc remembers of a container; removed when its containerd cannot do it any more.
pub(crate) fn forget_in_runc(config: &Config, id: &str) -> Result<(), RootError> {
    remove_dir(&config.runc_root().join(&config.namespace).join(id))
}

fn remove_dir(path: &Path) -> Result<(), RootError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(file("cannot remove", path)),
    }
}
