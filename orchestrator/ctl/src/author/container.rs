//! `add-container`: options to a `run.json` and a root image.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value, json};

use super::tree::Tree;
use super::working::{Working, scratch_beside};
use super::{AuthorError, image, oci_image};

/// Adds a container to a working folder.
#[derive(Debug, Args)]
pub(crate) struct AddContainer {
    /// The working folder.
    pub(super) dir: PathBuf,
    /// Name of the container.
    pub(super) name: String,
    /// Root file system, as a folder.
    #[arg(
        long,
        value_name = "FOLDER",
        conflicts_with = "oci",
        required_unless_present = "oci"
    )]
    rootfs: Option<PathBuf>,
    /// Root file system, as an OCI image: an OCI layout (tar or folder), or what `docker save` writes.
    #[arg(long, value_name = "ARCHIVE")]
    oci: Option<PathBuf>,
    /// Which image of an archive that holds several, such as linux/arm64.
    #[arg(long, requires = "oci")]
    platform: Option<String>,
    /// Replace the container of this name. What set-config laid over it stays.
    #[arg(long)]
    replace: bool,
    /// Keep the owners of the folder's files instead of giving all to root; those of an OCI image are always kept.
    #[arg(long, conflicts_with = "oci")]
    keep_owners: bool,
    /// Program and arguments, one option each; or all of them after `--`.
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    command: Vec<String>,
    /// Program and arguments.
    #[arg(last = true, conflicts_with = "command", value_name = "COMMAND")]
    words: Vec<String>,
    /// Environment.
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Working directory.
    #[arg(long, value_name = "PATH")]
    workdir: Option<String>,
    /// User, with or without group, by name or number.
    #[arg(long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Host name; the container's name when absent.
    #[arg(long)]
    hostname: Option<String>,
    /// Group of device.json; app when there is no device.json, else the last one.
    #[arg(long)]
    group: Option<String>,
    /// How far it must come to count as good: MOUNTED, STARTED, READY.
    #[arg(long)]
    goal: Option<String>,
    /// Who may control it: system (nobody), container (everybody with the role mgmt).
    #[arg(long, value_name = "WHO")]
    restart_policy: Option<String>,
    /// When it is started again: no, always, on-failure, unless-stopped.
    #[arg(long, value_name = "WHEN")]
    restart: Option<String>,
    /// Retries before the back-off policy holds; 0 is no limit.
    #[arg(long, value_name = "NUMBER")]
    max_retries: Option<u32>,
    /// Pause before the first retry, such as 5s.
    #[arg(long, value_name = "TIME")]
    retry_delay: Option<String>,
    /// When all retries are used up: reboot, never, or a pause such as 10min.
    #[arg(long, value_name = "WHAT")]
    backoff_policy: Option<String>,
    /// How long it must run to count as stable.
    #[arg(long, value_name = "TIME")]
    stable_timeout: Option<String>,
    /// Role on the control socket: mgmt, monitor. Without any it has none.
    #[arg(long, value_name = "ROLE")]
    role: Vec<String>,
    /// Ask it over HTTP whether it is well.
    #[arg(long, value_name = "PORT[/PATH]", group = "health")]
    health_http: Option<String>,
    /// Ask it by a TCP connection whether it is well.
    #[arg(long, value_name = "PORT", group = "health")]
    health_tcp: Option<u16>,
    /// Ask it by a command whether it is well, one option a word.
    #[arg(
        long,
        value_name = "WORD",
        group = "health",
        allow_hyphen_values = true
    )]
    health_exec: Vec<String>,
    /// Pause between two questions.
    #[arg(long, value_name = "TIME", requires = "health")]
    health_interval: Option<String>,
    /// How long an answer may take.
    #[arg(long, value_name = "TIME", requires = "health")]
    health_timeout: Option<String>,
    /// Failures in a row that make it sick.
    #[arg(long, value_name = "NUMBER", requires = "health")]
    health_retries: Option<u32>,
    /// Time after the start in which failures do not count.
    #[arg(long, value_name = "TIME", requires = "health")]
    health_start_period: Option<String>,
    /// Root file system without a writable layer.
    #[arg(long)]
    read_only: bool,
    /// How long changes of the root file system are kept: permanent, revision, boot.
    #[arg(long, value_name = "PERSISTENCE")]
    overlay: Option<String>,
    /// Writable volume; persistence is permanent (when absent), revision or boot.
    #[arg(long, value_name = "NAME:PATH[:PERSISTENCE]")]
    volume: Vec<String>,
    /// Bind mount from the host.
    #[arg(long, value_name = "SOURCE:TARGET[:ro]")]
    mount: Vec<String>,
    /// Device node of the host.
    #[arg(long, value_name = "PATH[:ACCESS]")]
    device: Vec<String>,
    /// Capability to add.
    #[arg(long, value_name = "NAME")]
    cap_add: Vec<String>,
    /// Capability to drop, or ALL.
    #[arg(long, value_name = "NAME")]
    cap_drop: Vec<String>,
    /// System call filter: default, unconfined.
    #[arg(long)]
    seccomp: Option<String>,
    /// Own user namespace.
    #[arg(long)]
    user_namespace: bool,
    /// Limit of memory, such as 64M.
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// Limit of processors, such as 1.5.
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<f64>,
    /// Limit of processes and threads.
    #[arg(long, value_name = "NUMBER")]
    pids: Option<u32>,
    /// Weight of disk requests, 1 to 1000.
    #[arg(long, value_name = "WEIGHT")]
    io: Option<u32>,
    /// host, none, or a pool of device.json with or without an address.
    #[arg(long, value_name = "host|none|POOL[:IP]")]
    network: Option<String>,
    /// Container that must have reached its goal first.
    #[arg(long, value_name = "NAME")]
    depends_on: Vec<String>,
    /// Signal that asks it to stop.
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// How long it may take to stop.
    #[arg(long, value_name = "TIME")]
    stop_timeout: Option<String>,
}

impl AddContainer {
    /// Builds the image and changes the folder.
    pub(super) fn run(&self, time: u32) -> Result<Vec<String>, AuthorError> {
        self.name
            .parse::<model::ContainerName>()
            .map_err(AuthorError::Name)?;
        let mut working = Working::open(&self.dir)?;
        if working.has_container(&self.name) && !self.replace {
            return Err(AuthorError::ContainerExists {
                name: self.name.clone(),
            });
        }
        let mut run = self.run_json();
        if !working.has_groups() {
            // Pantavisor's old rule would make it a system container, which nobody may restart.
            run.entry("group").or_insert_with(|| json!("app"));
        }
        let tree = match (&self.rootfs, &self.oci) {
            (Some(folder), _) => Tree::of_folder(folder, self.keep_owners)?,
            (None, Some(archive)) => {
                let scratch = scratch_beside(archive)?;
                let platform = self.platform.as_deref();
                let image = oci_image::read(archive, platform, scratch.path(), true)?;
                run.insert("image-config".to_owned(), image.config);
                image.tree
            }
            (None, None) => return Err(AuthorError::NoRoot),
        };
        let object = image::build(&tree, &working.objects(), time)?;
        working.remove_below(&self.name);
        working.set_object(format!("{}/root.squashfs", self.name), object);
        working.set_inline(format!("{}/run.json", self.name), &run.into());
        working.save()?;
        Ok(tree.notes)
    }

    fn run_json(&self) -> Map<String, Value> {
        let command = if self.command.is_empty() {
            &self.words
        } else {
            &self.command
        };
        let mut run = Map::new();
        let mut put = |name: &str, value: Value| {
            let is_nothing = match &value {
                Value::Null => true,
                Value::Array(items) => items.is_empty(),
                Value::Object(fields) => fields.is_empty(),
                Value::Bool(flag) => !flag,
                Value::Number(_) | Value::String(_) => false,
            };
            if !is_nothing {
                run.insert(name.to_owned(), value);
            }
        };
        put("#spec", json!("service-manifest-run@1"));
        put("name", json!(self.name));
        put("type", json!("oci"));
        put("root-volume", json!("root.squashfs"));
        put("command", json!(command));
        put("env", json!(self.env));
        put("workdir", json!(self.workdir));
        put("user", json!(self.user));
        put("hostname", json!(self.hostname));
        put("group", json!(self.group));
        put("status_goal", json!(self.goal));
        put("restart_policy", json!(self.restart_policy));
        put("auto_recovery", self.recovery());
        put("health", self.health());
        put("read-only", json!(self.read_only));
        put("storage", self.storage());
        put(
            "mounts",
            self.mount.iter().map(|text| mount(text)).collect(),
        );
        put(
            "devices",
            self.device.iter().map(|text| device(text)).collect(),
        );
        let capabilities = [("add", json!(self.cap_add)), ("drop", json!(self.cap_drop))];
        put("capabilities", without_nothing(capabilities));
        put("seccomp", json!(self.seccomp));
        put("user-namespace", json!(self.user_namespace));
        let resources = [
            ("memory", json!(self.memory)),
            ("cpu", json!(self.cpus)),
            ("pids", json!(self.pids)),
            ("io", json!(self.io)),
        ];
        put("resources", without_nothing(resources));
        put(
            "network",
            self.network.as_deref().map_or(Value::Null, network),
        );
        put("depends-on", json!(self.depends_on));
        put("stop-signal", json!(self.stop_signal));
        put("stop-timeout", json!(self.stop_timeout));
        // Said even when empty: a container without the key may be given a role by the device's settings.
        run.insert("roles".to_owned(), json!(self.role));
        run
    }

    fn recovery(&self) -> Value {
        without_nothing([
            ("policy", json!(self.restart)),
            ("max_retries", json!(self.max_retries)),
            ("retry_delay", json!(self.retry_delay)),
            ("backoff_policy", json!(self.backoff_policy)),
            ("stable_timeout", json!(self.stable_timeout)),
        ])
    }

    fn health(&self) -> Value {
        let http = self.health_http.as_deref().map(|text| {
            let (port, path) = text.split_once('/').unwrap_or((text, ""));
            // What is no number is left to the check of the manifest, which says what is wrong with it.
            let port = port
                .parse::<u64>()
                .map_or_else(|_| json!(port), |port| json!(port));
            json!({"port": port, "path": format!("/{path}")})
        });
        without_nothing([
            ("http", json!(http)),
            ("tcp", json!(self.health_tcp)),
            ("exec", json!(self.health_exec)),
            ("interval", json!(self.health_interval)),
            ("timeout", json!(self.health_timeout)),
            ("retries", json!(self.health_retries)),
            ("start-period", json!(self.health_start_period)),
        ])
    }

    fn storage(&self) -> Value {
        let mut storage = Map::new();
        if let Some(persistence) = &self.overlay {
            storage.insert(
                "lxc-overlay".to_owned(),
                json!({"persistence": persistence}),
            );
        }
        for text in &self.volume {
            let mut parts = text.splitn(3, ':');
            let name = parts.next().unwrap_or_default();
            let path = parts.next().unwrap_or_default();
            let persistence = parts.next().unwrap_or("permanent");
            storage.insert(
                name.to_owned(),
                json!({"path": path, "persistence": persistence}),
            );
        }
        storage.into()
    }
}

fn without_nothing<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let is_something = |value: &Value| *value != Value::Null && *value != json!([]);
    let fields = fields.into_iter().filter(|(_, value)| is_something(value));
    Value::Object(
        fields
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    )
}

fn mount(text: &str) -> Value {
    let mut parts = text.splitn(3, ':');
    let (source, target) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    match parts.next() {
        None | Some("rw") => json!({"source": source, "target": target}),
        Some("ro") => json!({"source": source, "target": target, "read-only": true}),
        Some(other) => json!({"source": source, "target": target, "read-only": other}),
    }
}

fn device(text: &str) -> Value {
    match text.split_once(':') {
        Some((path, access)) => json!({"path": path, "access": access}),
        None => json!(text),
    }
}

fn network(text: &str) -> Value {
    match text.split_once(':') {
        None if matches!(text, "host" | "none") => json!({"mode": text}),
        None => json!({"mode": "pool", "pool": text}),
        Some((pool, ip)) => json!({"mode": "pool", "pool": pool, "ip": ip}),
    }
}
