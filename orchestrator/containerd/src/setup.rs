//! Everything on this machine that an instance needs before containerd is asked: record, mounts, description, pipes.
//!
//! All of it blocks, and can be repeated over what a kill left half done.

use device::ports::StartSpec;
use logger::Registered;
use model::Container;
use model::container::{ImageConfig as ImageConfigOf, Kind, Lxc, Oci};

use crate::image::ImageConfig;
use crate::instance::Failure;
use crate::lxc::{self, Conf};
use crate::own;
use crate::record::{Phase, Record};
use crate::rootfs::{self, RootError};
use crate::runtime::Shared;
use crate::sees;
use crate::spec::{self, Described, Places, SpecError};

/// Sets up an instance that is only to be mounted.
pub(crate) fn to_mount(shared: &Shared, id: &str, spec: &StartSpec) -> Result<(), Failure> {
    keep_record(shared, id, spec, None)?;
    mount(shared, id, spec).map(drop)
}

/// Sets up an instance that is to run, and describes it.
///
/// The pipes for its output are held open until it has them open itself.
pub(crate) fn to_run(
    shared: &Shared,
    id: &str,
    spec: &StartSpec,
) -> Result<(Described, Registered), Failure> {
    let config = &shared.config;
    let container = &spec.container;
    let kind = read(shared, container)?;
    keep_record(shared, id, spec, kind.halt_signal())?;
    let root = mount(shared, id, spec)?;
    if container.root.is_none() {
        return Err(RootError::NoRoot.into());
    }
    let cgroup = config.cgroup(id);
    let sees = sees::folders(config, &spec.revision, container).map_err(|error| {
        Failure::Other(format!("cannot make a folder for what it sees: {error}"))
    })?;
    let log = config.console_log(&spec.revision, &container.name);
    let pipes = shared
        .output
        .open(&spec.instance, &spec.revision, container.logs(), &log)
        .map_err(|error| Failure::Other(format!("cannot take its output: {error}")))?;
    let places = Places {
        dev_log: pipes.dev_log.as_deref(),
        rootfs: &root.rootfs,
        storage: &config.storage,
        cgroup: &cgroup,
        sockets: &config.sockets_dir,
        sees: &sees,
        volumes: &root.volumes,
        shim_group: config.share_shims.then(|| container.group.to_string()),
    };
    let described = match &kind {
        Configured::Own { oci, image } => own::wanted(container, oci, image, &places),
        Configured::Lxc { lxc, conf, image } => lxc::wanted(container, lxc, conf, image, &places),
    }
    .and_then(|wanted| spec::describe(&wanted, &places))
    .map_err(RootError::from)?;
    let file = config.instance(id).join("process.json");
    std::fs::write(&file, &described.process).map_err(cannot_write(&file))?;
    Ok((described, pipes))
}

fn cannot_write(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Failure {
    move |error| Failure::Other(format!("cannot write {}: {error}", path.display()))
}

/// What the objects say that configure a container.
enum Configured<'c> {
    Own {
        oci: &'c Oci,
        image: ImageConfig,
    },
    Lxc {
        lxc: &'c Lxc,
        conf: Box<Conf>,
        image: ImageConfig,
    },
}

impl Configured<'_> {
    /// The signal that asks it to stop, when run.json names none.
    fn halt_signal(&self) -> Option<u32> {
        match self {
            Self::Own { .. } => None,
            Self::Lxc { lxc, conf, image } => {
                let of_image = || model::signal::number(image.stop_signal.as_deref()?);
                let signal = conf.halt_signal.or_else(of_image);
                signal.filter(|_| !lxc.stop_signal_given)
            }
        }
    }
}

fn read<'c>(shared: &Shared, container: &'c Container) -> Result<Configured<'c>, Failure> {
    match &container.kind {
        Kind::Oci(oci) => Ok(Configured::Own {
            oci,
            image: image_config(shared, container, oci)?,
        }),
        Kind::Lxc(lxc) => {
            if !lxc.required_services.is_empty() {
                tracing::warn!(
                    container = %container.name,
                    services = ?lxc.required_services,
                    "services of other containers are not connected by this build"
                );
            }
            let Some(config) = lxc.config else {
                return Err(Failure::Other(format!("there is no {}", lxc.key)));
            };
            let bytes = rootfs::read_config(&shared.config, config)?;
            let about = lxc::About {
                container: container.name.as_str(),
                root_name: lxc.root_name.as_deref().unwrap_or_default(),
            };
            let conf = Conf::read(&bytes, about).map_err(|problems| {
                RootError::from(SpecError::Lxc {
                    key: lxc.key.to_string(),
                    problems,
                })
            })?;
            let image = match &lxc.image_config {
                None => ImageConfig::default(),
                Some(text) => ImageConfig::parse_inner(text)
                    .map_err(|error| unreadable(container, "docker_config of src.json", &error))?,
            };
            Ok(Configured::Lxc {
                lxc,
                conf: Box::new(conf),
                image,
            })
        }
    }
}

fn image_config(shared: &Shared, container: &Container, oci: &Oci) -> Result<ImageConfig, Failure> {
    let (bytes, name) = match &oci.image_config {
        None => return Ok(ImageConfig::default()),
        Some(ImageConfigOf::Inline(text)) => (text.clone().into_bytes(), "inline".to_owned()),
        Some(ImageConfigOf::Object(object)) => (
            rootfs::read_config(&shared.config, *object)?,
            object.to_string(),
        ),
    };
    ImageConfig::parse(&bytes).map_err(|error| unreadable(container, &name, &error))
}

fn unreadable(container: &Container, name: &str, error: &serde_json::Error) -> Failure {
    Failure::Other(format!(
        "image configuration of {} ({name}) cannot be read: {error}",
        container.name
    ))
}

/// Before the first mount, so that all of it is found after a kill.
fn keep_record(
    shared: &Shared,
    id: &str,
    spec: &StartSpec,
    halt_signal: Option<u32>,
) -> Result<(), Failure> {
    let record = Record {
        container: spec.instance.container.clone(),
        fingerprint: spec.instance.fingerprint,
        generation: spec.instance.generation,
        revision: spec.revision.clone(),
        phase: Phase::Preparing,
        ready: false,
        pid_namespace: None,
        halt_signal,
        image: spec.container.root.as_ref().map(|root| root.object),
    };
    let folder = shared.config.instance(id);
    std::fs::create_dir_all(&folder).map_err(cannot_write(&folder))?;
    record.write(&folder).map_err(cannot_write(&folder))?;
    shared.registry().insert(id, record);
    Ok(())
}

fn mount(shared: &Shared, id: &str, spec: &StartSpec) -> Result<rootfs::Root, Failure> {
    if let Some(root) = &spec.container.root {
        let _images = shared
            .images
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        rootfs::mount_image(&shared.config, root)?;
    }
    Ok(rootfs::set_up(
        &shared.config,
        id,
        &spec.revision,
        &spec.container,
    )?)
}
