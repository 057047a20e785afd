//! A device made of temporary folders, a private containerd and an image of busybox, that cleans up after itself.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a module of test programs, each of which uses its own part"
)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use containerd::{Address, Config, ContainerdRuntime};
use device::ports::{
    Condition, Exit, Found, Instance, Runtime as _, RuntimeCommand, RuntimeEvent, StartSpec,
};
use linux::cgroup::Cgroups;
use linux::{mounts, process};
use model::container::{
    BackoffPolicy, ImageFormat, Kind, Oci, Recovery, RecoveryPolicy, RestartPolicy, Roles,
    RootVolume,
};
use model::{Container, Goal, ObjectId};

/// Longer than anything here takes on a loaded machine.
const LONG: Duration = Duration::from_secs(60);

/// Whether real containers can be made here; says loudly why not.
pub fn possible() -> bool {
    let missing = if !rustix_is_root() {
        Some("needs root")
    } else {
        ["containerd", "runc", "mksquashfs", "busybox"]
            .into_iter()
            .find(|program| {
                !std::env::var("PATH")
                    .unwrap_or_default()
                    .split(':')
                    .any(|folder| Path::new(folder).join(program).exists())
            })
    };
    if let Some(missing) = missing {
        eprintln!("SKIPPED: real containers: {missing} is missing");
    }
    missing.is_none()
}

fn rustix_is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// A squashfs with busybox and its usual links; made once.
fn image() -> &'static (Vec<u8>, ObjectId) {
    static IMAGE: OnceLock<(Vec<u8>, ObjectId)> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("cx-image-{}", std::process::id()));
        let root = folder.join("root");
        for below in ["bin", "etc", "proc", "sys", "dev", "tmp", "run", "data"] {
            fs::create_dir_all(root.join(below)).unwrap();
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"]
            .into_iter()
            .find(|path| Path::new(path).exists())
            .unwrap();
        fs::copy(busybox, root.join("bin/busybox")).unwrap();
        for name in [
            "sh", "sleep", "cat", "echo", "id", "nc", "httpd", "head", "dd", "yes", "test",
        ] {
            symlink("busybox", root.join("bin").join(name)).unwrap();
        }
        fs::write(
            root.join("etc/passwd"),
            "root:x:0:0:root:/:/bin/sh\nweb:x:33:34::/data:\n",
        )
        .unwrap();
        fs::write(
            root.join("etc/group"),
            "root:x:0:\nweb:x:34:\nvideo:x:44:web\n",
        )
        .unwrap();
        let file = folder.join("root.squashfs");
        let made = Command::new("mksquashfs")
            .args([&root, &file])
            .args([
                "-noappend",
                "-quiet",
                "-no-progress",
                "-all-root",
                "-comp",
                "gzip",
            ])
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success());
        let bytes = fs::read(&file).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        let object = ObjectId::of(&bytes);
        (bytes, object)
    })
}

/// One device.
pub struct Device {
    pub folder: PathBuf,
    pub config: Config,
    runtime: tokio::runtime::Runtime,
    pub adapter: Option<ContainerdRuntime>,
    events: Receiver<RuntimeEvent>,
    /// Events that were taken out of the channel while another one was waited for.
    seen: Vec<RuntimeEvent>,
    generation: u64,
}

impl Device {
    /// A device with an image in its storage, running.
    pub fn new(name: &str) -> Self {
        // Short: a socket's path has 107 bytes.
        let folder = PathBuf::from(format!("/tmp/cx-{name}-{}", std::process::id()));
        let storage = folder.join("storage");
        let run = folder.join("run");
        fs::create_dir_all(storage.join("objects")).unwrap();
        let (bytes, object) = image();
        fs::write(storage.join("objects").join(object.to_string()), bytes).unwrap();
        let mut config = Config::new(storage, run);
        config.namespace = format!("cx-{name}-{}", std::process::id());
        config.cgroup_parent = format!("/{}", config.namespace);
        // The log process, as a thread of the test: it ends with its folder.
        let spool = config.spool();
        fs::create_dir_all(&spool).unwrap();
        std::thread::spawn(move || {
            while spool.is_dir() {
                // Without settings yet, or its folder is being removed.
                if logger::run(spool.clone()).is_err() {
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        });
        let (_, events) = channel();
        let mut device = Self {
            folder,
            config,
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap(),
            adapter: None,
            events,
            seen: Vec::new(),
            generation: 0,
        };
        device.boot();
        device
    }

    /// Starts the adapter anew, as a restarted orchestrator does; the one before is forgotten without a word.
    pub fn boot(&mut self) {
        self.halt();
        let (tell, events) = channel();
        let tell = Mutex::new(tell);
        self.adapter = Some(
            ContainerdRuntime::start(self.config.clone(), self.runtime.handle(), move |event| {
                drop(tell.lock().unwrap().send(event))
            })
            .unwrap(),
        );
        self.events = events;
        self.seen.clear();
        self.wait("Connected", |event| {
            (*event == RuntimeEvent::Connected).then_some(())
        });
    }

    /// Ends the adapter in the middle of whatever it does, as a kill does.
    pub fn halt(&mut self) {
        self.adapter = None;
        let fresh = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        std::mem::replace(&mut self.runtime, fresh).shutdown_timeout(LONG);
    }

    /// Waits for an event that fits; events that do not stay for later.
    pub fn wait<T>(&mut self, what: &str, fits: impl Fn(&RuntimeEvent) -> Option<T>) -> T {
        let end = Instant::now() + LONG;
        let mut looked_at = 0;
        loop {
            while let Some(event) = self.seen.get(looked_at) {
                if let Some(value) = fits(event) {
                    self.seen.remove(looked_at);
                    return value;
                }
                looked_at += 1;
            }
            match self
                .events
                .recv_timeout(end.saturating_duration_since(Instant::now()))
            {
                Ok(event) => self.seen.push(event),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("no event {what}; there were {:?}", self.seen)
                }
            }
        }
    }

    /// Whether an event that fits is there already.
    pub fn has(&mut self, fits: impl Fn(&RuntimeEvent) -> bool) -> bool {
        self.seen.extend(self.events.try_iter());
        self.seen.iter().any(fits)
    }

    pub fn submit(&mut self, command: RuntimeCommand) {
        self.adapter.as_mut().unwrap().submit(command);
    }

    /// What starts this container next.
    pub fn spec(&mut self, container: &Container) -> StartSpec {
        self.generation += 1;
        StartSpec {
            instance: Instance {
                container: container.name.clone(),
                fingerprint: container.fingerprint,
                generation: self.generation,
            },
            revision: "locals/one".parse().unwrap(),
            container: Arc::new(container.clone()),
        }
    }

    /// Starts a container and waits for it.
    pub fn start(&mut self, container: &Container) -> (Instance, u32) {
        let spec = self.spec(container);
        let instance = spec.instance.clone();
        self.submit(RuntimeCommand::Start(spec));
        let pid = self.started(&instance);
        (instance, pid)
    }

    pub fn started(&mut self, instance: &Instance) -> u32 {
        match self.outcome(instance) {
            Ok(pid) => pid,
            Err(error) => panic!("{}: {error}", instance.container),
        }
    }

    /// Waits for `Started` or `StartFailed`.
    pub fn outcome(&mut self, instance: &Instance) -> Result<u32, String> {
        self.wait("Started", |event| match event {
            RuntimeEvent::Started { instance: i, pid } if i == instance => Some(Ok(*pid)),
            RuntimeEvent::StartFailed { instance: i, error } if i == instance => {
                Some(Err(error.clone()))
            }
            _ => None,
        })
    }

    pub fn exited(&mut self, instance: &Instance) -> Exit {
        self.wait("Exited", |event| match event {
            RuntimeEvent::Exited { instance: i, exit } if i == instance => Some(*exit),
            _ => None,
        })
    }

    /// Stops a container and waits until it is gone.
    pub fn stop(&mut self, instance: &Instance, timeout: Duration) {
        self.submit(RuntimeCommand::Stop {
            instance: instance.clone(),
            signal: 15,
            timeout,
        });
        self.wait("Stopped", |event| {
            (*event == RuntimeEvent::Stopped(instance.clone())).then_some(())
        });
    }

    pub fn list(&mut self) -> Vec<Found> {
        self.submit(RuntimeCommand::List);
        self.wait("Listed", |event| match event {
            RuntimeEvent::Listed(found) => Some(found.clone()),
            _ => None,
        })
    }

    /// Runs a container to its end; what it wrote and its exit code.
    pub fn run(&mut self, container: &Container) -> (String, Exit) {
        let (instance, _) = self.start(container);
        let exit = self.exited(&instance);
        let log = self.written(container);
        self.stop(&instance, Duration::ZERO);
        (log, exit)
    }

    /// What it wrote, as it wrote it.
    pub fn written(&self, container: &Container) -> String {
        let log = fs::read(self.log(container)).unwrap_or_default();
        let lines = log.split_inclusive(|byte| *byte == b'\n');
        lines
            .map(|line| String::from_utf8_lossy(model::log::Line::parse(line).text).into_owned())
            .collect()
    }

    pub fn log(&self, container: &Container) -> PathBuf {
        self.config
            .console_log(&"locals/one".parse().unwrap(), &container.name)
    }

    /// Waits until the log holds a text.
    pub fn wait_log(&self, container: &Container, text: &str) {
        until(text, || self.written(container).contains(text));
    }

    /// The private containerd's process.
    pub fn containerd(&self) -> process::Process {
        let Address::Spawn(spawn) = &self.config.address else {
            panic!()
        };
        let config = spawn.state.join("config.toml");
        let config = config.as_os_str().as_encoded_bytes().to_vec();
        process::find(|args| args.last() == Some(&config))
            .pop()
            .unwrap()
    }

    pub fn shims(&self) -> Vec<process::Process> {
        let namespace = self.config.namespace.clone().into_bytes();
        process::find(|args| {
            args.first()
                .is_some_and(|program| program.ends_with(b"containerd-shim-runc-v2"))
                && args.contains(&namespace)
        })
    }

    /// What is mounted below the run folder, without the tmpfs of boot volumes.
    pub fn mounts(&self) -> Vec<PathBuf> {
        let mut mounts = mounts::mounted_below(&self.config.run_dir).unwrap();
        mounts.retain(|path| *path != self.config.run_dir.join("boot"));
        mounts
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.halt();
        let Address::Spawn(spawn) = &self.config.address else {
            return;
        };
        let config = spawn
            .state
            .join("config.toml")
            .into_os_string()
            .into_encoded_bytes();
        for found in process::find(|args| args.last() == Some(&config)) {
            found.kill().ok();
            found.wait(Duration::from_secs(5)).ok();
        }
        for shim in self.shims() {
            shim.kill().ok();
            shim.wait(Duration::from_secs(5)).ok();
        }
        let cgroups = Cgroups::find().unwrap();
        cgroups
            .kill(&self.config.cgroup_parent, Duration::from_secs(5))
            .ok();
        cgroups.remove(&self.config.cgroup_parent).ok();
        // The kernel takes what uses the mounts away a moment after the kill.
        mounts::unmount_below(&self.folder).ok();
        fs::remove_dir_all(&self.folder).ok();
    }
}

/// Waits until something is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A container that runs this shell script.
pub fn container(name: &str, script: &str) -> Container {
    let oci = Oci {
        command: Some(["/bin/sh", "-c", script].map(str::to_owned).to_vec()),
        ..Oci::default()
    };
    with(name, oci)
}

/// A container of our kind.
pub fn with(name: &str, oci: Oci) -> Container {
    let (_, object) = image();
    let fingerprint = ObjectId::of(format!("{name}{oci:?}").as_bytes());
    Container {
        name: name.parse().unwrap(),
        kind: Kind::Oci(Box::new(oci)),
        group: "app".parse().unwrap(),
        goal: Goal::Started,
        goal_timeout: Duration::from_secs(30),
        restart_policy: RestartPolicy::Container,
        roles: Roles {
            given: false,
            mgmt: false,
            monitor: false,
        },
        recovery: Recovery {
            policy: RecoveryPolicy::No,
            max_retries: 0,
            retry_delay: Duration::ZERO,
            backoff_factor: 1.0,
            reset_window: Duration::ZERO,
            stable_timeout: Duration::ZERO,
            backoff: BackoffPolicy::Never,
        },
        recovery_given: false,
        root: Some(RootVolume {
            key: "root.squashfs".parse().unwrap(),
            object: *object,
            format: ImageFormat::Squashfs,
            handler: None,
            verity: None,
        }),
        volumes: Vec::new(),
        overlays: Default::default(),
        depends_on: Vec::new(),
        stop_signal: 15,
        stop_timeout: Duration::from_secs(5),
        fingerprint,
    }
}

/// The only one of a list.
pub fn only(found: &[Found]) -> &Found {
    let [one] = found else { panic!("{found:?}") };
    one
}

/// Its process number when it runs.
pub fn running(found: &Found) -> Option<u32> {
    match found.condition {
        Condition::Running { pid, .. } => Some(pid),
        Condition::Mounted | Condition::Ended(_) => None,
    }
}
