//! What the socket shows of the configuration: `/config`, `/config2`, `/buildinfo`.

use std::path::PathBuf;
use std::sync::Arc;

use api::messages::pantavisor::ConfigEntry;
use device::Handle;
use server::Settings;

use crate::config::{Config, Value};

/// Bytes of `/buildinfo` that are read.
const BUILD_INFO_BYTES_MAX: u64 = 64 << 10;

/// Shows the configuration with the user metadata of the moment laid over it.
#[derive(Debug)]
pub struct ShownSettings {
    config: Arc<Config>,
    handle: Handle,
}

impl ShownSettings {
    /// Shows this configuration.
    pub fn new(config: Arc<Config>, handle: Handle) -> Self {
        Self { config, handle }
    }

    fn now(&self) -> Config {
        with_user_meta(&self.config, &self.handle)
    }
}

/// The configuration with the device's user metadata laid over it.
pub fn with_user_meta(config: &Config, handle: &Handle) -> Config {
    let view = handle.view();
    config.with_user_meta(
        view.user_meta
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_slice())),
    )
}

impl Settings for ShownSettings {
    fn legacy(&self) -> Vec<(String, serde_json::Value)> {
        let config = self.now();
        let known = config.iter().filter_map(|(setting, origin)| {
            let alias = setting
                .pantavisor?
                .strip_prefix("PV_")?
                .to_ascii_lowercase()
                .replace('_', ".");
            let value = match &origin.value {
                Value::Text(text) if text.is_empty() => serde_json::Value::Null,
                Value::Text(text) => text.as_str().into(),
                Value::Number(number) => (*number).into(),
                Value::Duration(time) => time.as_secs().into(),
                Value::Flag(flag) => (*flag).into(),
            };
            Some((alias, value))
        });
        known.collect()
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        let config = self.now();
        let entries = config.iter().map(|(setting, origin)| ConfigEntry {
            key: setting.name.to_owned(),
            value: if setting.secret {
                "***".to_owned()
            } else {
                origin.value.to_string()
            },
            modified: origin.source.pantavisor().to_owned(),
        });
        entries.collect()
    }

    fn build_info(&self) -> String {
        use std::io::Read as _;
        let path: PathBuf = self.config.path("buildinfo");
        let mut text = String::new();
        // Not having the file is the usual case, and a damaged one must not break the socket.
        let read = std::fs::File::open(path)
            .and_then(|file| file.take(BUILD_INFO_BYTES_MAX).read_to_string(&mut text));
        if read.is_err() {
            text.clear();
        }
        text
    }
}
