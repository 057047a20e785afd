//! Manifests for tests, written out as JSON text.

use serde_json::{Map, Value, json};

use crate::image::Image;

/// A manifest that grows by containers.
#[derive(Debug, Clone)]
pub struct Manifest {
    keys: Map<String, Value>,
}

impl Default for Manifest {
    fn default() -> Self {
        Self::new()
    }
}

impl Manifest {
    /// A manifest with one group `app` (time-out 6 s) and nothing in it.
    pub fn new() -> Self {
        Self::with_groups(&[("app", "STARTED", 6)])
    }

    /// A manifest with these groups: name, goal, time-out in seconds.
    pub fn with_groups(groups: &[(&str, &str, u64)]) -> Self {
        let groups: Vec<Value> = groups
            .iter()
            .map(|(name, goal, timeout)| {
                json!({"name": name, "status_goal": goal, "restart_policy": "container", "timeout": timeout})
            })
            .collect();
        let mut keys = Map::new();
        keys.insert("#spec".into(), json!("pantavisor-service-system@1"));
        keys.insert("device.json".into(), json!({"groups": groups}));
        Self { keys }
    }

    /// Adds a container of type `oci` in group `app`; `run` is merged over what every container has.
    #[must_use]
    pub fn container(self, name: &str, image: &Image, command: &[&str], run: Value) -> Self {
        let all = json!({
            "#spec": "service-manifest-run@1",
            "name": name,
            "type": "oci",
            "root-volume": "root.squashfs",
            "command": command,
            "stop-timeout": 2,
            "auto_recovery": {"policy": "no"},
        });
        self.with_run(name, image, all, &run)
    }

    /// Adds a container as pvr makes it, with this `lxc.container.conf`; `run` is merged over what every container has.
    #[must_use]
    pub fn lxc(mut self, name: &str, image: &Image, conf: &Image, run: Value) -> Self {
        let all = json!({
            "#spec": "service-manifest-run@1",
            "name": name,
            "type": "lxc",
            "config": "lxc.container.conf",
            "root-volume": "root.squashfs",
            "storage": {"lxc-overlay": {"persistence": "boot"}},
            "volumes": [],
            "stop-timeout": 2,
            "auto_recovery": {"policy": "no"},
        });
        self.keys
            .insert(format!("{name}/lxc.container.conf"), json!(conf.sha256));
        self.with_run(name, image, all, &run)
    }

    fn with_run(mut self, name: &str, image: &Image, mut all: Value, run: &Value) -> Self {
        let object = all.as_object_mut().expect("an object");
        for (key, value) in run.as_object().expect("run is an object") {
            object.insert(key.clone(), value.clone());
        }
        self.keys
            .insert(format!("{name}/root.squashfs"), json!(image.sha256));
        self.keys.insert(format!("{name}/run.json"), all);
        self
    }

    /// Sets any key.
    #[must_use]
    pub fn key(mut self, key: &str, value: Value) -> Self {
        self.keys.insert(key.to_owned(), value);
        self
    }

    /// A manifest by its text.
    ///
    /// # Panics
    /// When it is no JSON object.
    pub fn from_text(text: &str) -> Self {
        let keys = serde_json::from_str(text).expect("a JSON object");
        Self { keys }
    }

    /// The text.
    pub fn text(&self) -> String {
        Value::Object(self.keys.clone()).to_string()
    }
}
