//! What the socket shows of the configuration: `/config`, `/config2`, `/buildinfo`.

use std::path::PathBuf;
use std::sync::Arc;

use api::messages::pantavisor::ConfigEntry;
use device::Handle;
use server::Settings;

use crate::config::pantavisor::{Form, KEYS, Key, Shows, their_word};
use crate::config::{Config, Value};

/// Bytes of `/buildinfo` that are read.
const BUILD_INFO_BYTES_MAX: u64 = 64 << 10;

/// Shows the configuration with the user metadata of the moment laid over it.
#[derive(Debug)]
pub(crate) struct ShownSettings {
    config: Arc<Config>,
    handle: Handle,
}

impl ShownSettings {
    /// Shows this configuration.
    pub(crate) fn new(config: Arc<Config>, handle: Handle) -> Self {
        Self { config, handle }
    }

    fn now(&self) -> Config {
        with_user_meta(&self.config, &self.handle)
    }
}

/// The value of one of Pantavisor's keys, and the layer that set it.
fn shown(config: &Config, key: &Key) -> (Option<String>, &'static str) {
    match key.value {
        Shows::Ours(name) => {
            let origin = config.get(name);
            let value = plain(&origin.value);
            let value = their_word(name, &value).to_owned();
            (Some(value), origin.source.pantavisor())
        }
        Shows::InStorage(below) => {
            let path = config.path("storage").join(below);
            (
                Some(path.display().to_string()),
                config.get("storage").source.pantavisor(),
            )
        }
        Shows::Fixed(text) => (Some(text.to_owned()), "default"),
        Shows::Unset => (None, "default"),
    }
}

/// Pantavisor's way to write a value: times in whole seconds, flags as 0 and 1, log levels as numbers.
fn plain(value: &Value) -> String {
    match value {
        Value::Text(text) => match text.as_str() {
            "error" => "1".to_owned(),
            "warn" => "2".to_owned(),
            "info" => "3".to_owned(),
            "debug" => "4".to_owned(),
            "trace" => "5".to_owned(),
            text => text.to_owned(),
        },
        Value::Number(number) => number.to_string(),
        Value::Duration(time) => time.as_secs().to_string(),
        Value::Flag(flag) => u8::from(*flag).to_string(),
    }
}

fn legacy_form(key: &Key, value: Option<String>) -> serde_json::Value {
    let Some(text) = value else {
        return serde_json::Value::Null;
    };
    match key.form {
        Form::Text => text.into(),
        Form::Number => text
            .parse::<i64>()
            .map_or_else(|_| text.clone().into(), Into::into),
        Form::Flag => (text == "1").into(),
        Form::Word(number) => number.into(),
    }
}

/// The configuration with the device's user metadata laid over it.
pub(crate) fn with_user_meta(config: &Config, handle: &Handle) -> Config {
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
        let pairs = KEYS.iter().filter_map(|key| {
            let (value, _) = shown(&config, key);
            Some((key.alias?.to_owned(), legacy_form(key, value)))
        });
        pairs.collect()
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        let config = self.now();
        let theirs = KEYS.iter().map(|key| {
            let (value, modified) = shown(&config, key);
            ConfigEntry {
                key: key.key.to_owned(),
                value: value.unwrap_or_else(|| "(null)".to_owned()),
                modified: modified.to_owned(),
            }
        });
        let ours = config.iter().map(|(setting, origin)| ConfigEntry {
            key: format!("coxswain.{}", setting.name),
            value: if setting.secret {
                "***".to_owned()
            } else {
                origin.value.to_string()
            },
            modified: origin.source.pantavisor().to_owned(),
        });
        theirs.chain(ours).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_pantavisors_and_ours_come_last() {
        let handle = Handle::new(|_, _| {});
        let mut config = Config::defaults();
        config
            .set("commit-delay", "5s", crate::config::Source::Environment)
            .unwrap();
        config
            .set("storage", "/data", crate::config::Source::CommandLine)
            .unwrap();
        let shown = ShownSettings::new(Arc::new(config), handle);
        let entries = shown.entries();
        let find = |key: &str| {
            let entry = entries
                .iter()
                .find(|entry| entry.key == key)
                .expect("the key is there");
            (entry.value.clone(), entry.modified.clone())
        };
        assert_eq!(entries[0].key, "PH_CREDS_HOST");
        assert_eq!(
            find("PV_UPDATER_COMMIT_DELAY"),
            ("5".to_owned(), "env".to_owned())
        );
        assert_eq!(
            find("PV_LOG_DIR"),
            ("/data/logs".to_owned(), "args".to_owned())
        );
        assert_eq!(find("PV_LOG_LEVEL"), ("3".to_owned(), "default".to_owned()));
        assert_eq!(
            find("PV_OEM_NAME"),
            ("(null)".to_owned(), "default".to_owned())
        );
        assert_eq!(
            find("coxswain.commit-delay"),
            ("5s".to_owned(), "env".to_owned())
        );
        let legacy = shown.legacy();
        assert_eq!(legacy.len(), 90);
        assert!(legacy.contains(&("updater.commit.delay".to_owned(), 5.into())));
        assert!(legacy.contains(&("system.init.mode".to_owned(), 2.into())));
        assert!(legacy.contains(&("control.remote".to_owned(), false.into())));
    }

    /// A recording of Pantavisor 029, one exchange a line.
    const RECORDED: &str = include_str!("../../server/tests/recordings/info.jsonl");

    fn recorded(step: &str) -> serde_json::Value {
        let exchanges = RECORDED
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let exchange = exchanges
            .into_iter()
            .find(|exchange| exchange["step"] == step);
        exchange.unwrap()["response"]["body"].clone()
    }

    /// Keys of a JSON object in the order of its text.
    fn keys(text: &str) -> Vec<String> {
        let pairs = text.trim_matches(['{', '}']).split(",\"");
        pairs
            .map(|pair| {
                pair.split("\":")
                    .next()
                    .unwrap()
                    .trim_matches('"')
                    .to_owned()
            })
            .collect()
    }

    #[test]
    fn keys_and_their_order_are_as_recorded() {
        let shown = ShownSettings::new(Arc::new(Config::defaults()), Handle::new(|_, _| {}));
        let config2: Vec<ConfigEntry> =
            serde_json::from_str(recorded("GET /config2").as_str().unwrap()).unwrap();
        let theirs: Vec<_> = config2.iter().map(|entry| entry.key.as_str()).collect();
        let entries = shown.entries();
        let ours: Vec<_> = entries.iter().map(|entry| entry.key.as_str()).collect();
        assert_eq!(ours[..theirs.len()], theirs);
        assert!(
            ours[theirs.len()..]
                .iter()
                .all(|key| key.starts_with("coxswain."))
        );
        let legacy = shown.legacy();
        let ours: Vec<_> = legacy.iter().map(|(alias, _)| alias.as_str()).collect();
        assert_eq!(ours, keys(recorded("GET /config").as_str().unwrap()));
    }

    #[test]
    fn every_key_of_ours_is_a_setting() {
        let config = Config::defaults();
        for key in KEYS {
            shown(&config, key);
        }
    }
}
