//! The configuration: one table, layered sources, parsed once.
//!
//! Layers, lowest first: default, file, kernel command line (`coxswain.name=value`), environment (`COXSWAIN_NAME`), command
//! line, user metadata (only settings marked so). Every value remembers where it came from. [`table::SETTINGS`] is the only list
//! of settings: the command line, `/config2`, `coxctl config` and the reference page are all made from it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) mod pantavisor;
pub mod sources;
pub mod table;
mod value;

pub use sources::Source;
pub use table::{Kind, SETTINGS, Setting};
pub use value::Value;

/// A setting was refused; the text names the source, the setting, the value and what is accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The configuration file cannot be read.
    #[error("cannot read the configuration file {path}: {error}; create it, or leave --config out")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: String,
    },
    /// The configuration file is not TOML, or not a flat table.
    #[error("{path} is not a configuration file: {error}")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Where and what.
        error: String,
    },
    /// There is no such setting.
    #[error("{origin}: there is no setting {name:?}{hint}")]
    Unknown {
        /// Where it was given.
        origin: Source,
        /// The name as given.
        name: String,
        /// `; did you mean ...?`, or empty.
        hint: String,
    },
    /// The value does not fit the setting.
    #[error("{origin}: {name} = {value:?} is refused: {reason}")]
    Invalid {
        /// Where it was given.
        origin: Source,
        /// The setting.
        name: &'static str,
        /// The value as given (cut after 100 characters).
        value: String,
        /// What is accepted.
        reason: String,
    },
}

/// A value and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The value, checked.
    pub value: Value,
    /// The layer that set it.
    pub source: Source,
}

/// All settings, each with a value and its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    values: BTreeMap<&'static str, Origin>,
}

impl Config {
    /// The defaults of the table.
    pub fn defaults() -> Self {
        let values = SETTINGS.iter().map(|setting| {
            let value = Value::parse(setting.kind, setting.default)
                .expect("a test parses the default of each setting");
            (
                setting.name,
                Origin {
                    value,
                    source: Source::Default,
                },
            )
        });
        Self {
            values: values.collect(),
        }
    }

    /// The defaults of a machine whose init this is, with the file and the kernel command line laid over them; and what of those
    /// cannot be used. Nothing that stands in them stops a start.
    pub fn of_init(cmdline: &str) -> (Self, Vec<ConfigError>) {
        let mut config = Self::defaults();
        for (name, value) in [("storage", "/storage"), ("watchdog", "always")] {
            config
                .set(name, value, Source::Default)
                .expect("a test sets them");
        }
        let mut problems =
            sources::add_file_as_far_as_good(&mut config, crate::cli::CONFIG_FILE.as_ref());
        problems.extend(sources::add_kernel_command_line(&mut config, cmdline));
        (config, problems)
    }

    /// Sets one value.
    ///
    /// # Errors
    /// [`ConfigError::Unknown`] and [`ConfigError::Invalid`]; nothing is changed then.
    pub fn set(&mut self, name: &str, text: &str, source: Source) -> Result<(), ConfigError> {
        let Some(setting) = table::find(name) else {
            let hint = table::nearest(name).map(|near| format!("; did you mean {near:?}?"));
            let hint = hint.unwrap_or_default();
            return Err(ConfigError::Unknown {
                origin: source,
                name: name.to_owned(),
                hint,
            });
        };
        let is_ours = name.to_ascii_lowercase().replace('_', "-") == setting.name;
        let text = if is_ours {
            text
        } else {
            pantavisor::our_word(setting.name, text)
        };
        let value = Value::parse(setting.kind, text).map_err(|reason| ConfigError::Invalid {
            origin: source.clone(),
            name: setting.name,
            value: text.chars().take(100).collect(),
            reason,
        })?;
        self.values.insert(setting.name, Origin { value, source });
        Ok(())
    }

    /// This configuration with the user metadata laid over it: keys that are not settings, not marked for it or not
    /// acceptable are left out (metadata belongs to everybody; a wrong value must not stop a device).
    pub fn with_user_meta<'a>(&self, meta: impl Iterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut config = self.clone();
        for (key, value) in meta {
            let named = key.strip_prefix("coxswain.").unwrap_or(key);
            let Some(setting) = table::find(named).filter(|setting| setting.from_meta) else {
                continue;
            };
            let Ok(text) = std::str::from_utf8(value) else {
                continue;
            };
            if let Err(error) = config.set(setting.name, text, Source::UserMeta) {
                tracing::warn!("user metadata is ignored: {error}");
            }
        }
        config
    }

    /// Every setting with its value, in the order of the table.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Setting, &Origin)> {
        SETTINGS
            .iter()
            .map(|setting| (setting, self.get(setting.name)))
    }

    /// A setting's value and where it came from.
    pub(crate) fn get(&self, name: &'static str) -> &Origin {
        self.values
            .get(name)
            .expect("every setting of the table has a value from the start")
    }

    /// The text of a setting that is text, a path or one of several words.
    pub fn text(&self, name: &'static str) -> &str {
        self.get(name)
            .value
            .as_text()
            .unwrap_or_else(|| unreachable!("{name} is not text"))
    }

    /// The value of a setting that is a path.
    pub fn path(&self, name: &'static str) -> PathBuf {
        PathBuf::from(self.text(name))
    }

    /// The value of a setting that is a number.
    pub fn number(&self, name: &'static str) -> u64 {
        self.get(name)
            .value
            .as_number()
            .unwrap_or_else(|| unreachable!("{name} is not a number"))
    }

    /// The value of a setting that is a time.
    pub fn duration(&self, name: &'static str) -> Duration {
        self.get(name)
            .value
            .as_duration()
            .unwrap_or_else(|| unreachable!("{name} is not a time"))
    }

    /// The value of a setting that is yes or no.
    pub fn flag(&self, name: &'static str) -> bool {
        self.get(name)
            .value
            .as_flag()
            .unwrap_or_else(|| unreachable!("{name} is not a flag"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_layers_win_and_are_remembered() {
        let mut config = Config::defaults();
        config
            .set("commit-delay", "10s", Source::File("/etc/x.toml".into()))
            .unwrap();
        config
            .set("commit_delay", "7", Source::Environment)
            .unwrap();
        assert_eq!(config.duration("commit-delay"), Duration::from_secs(7));
        assert_eq!(config.get("commit-delay").source, Source::Environment);
        assert_eq!(config.get("tries").source, Source::Default);
    }

    #[test]
    fn an_init_has_defaults_of_its_own() {
        let (config, problems) = Config::of_init("coxswain.tries=0 coxswain.watchdog-timeout=12s");
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(config.text("storage"), "/storage");
        assert_eq!(config.get("storage").source, Source::Default);
        assert_eq!(config.text("watchdog"), "always");
        assert_eq!(config.duration("watchdog-timeout").as_secs(), 12);
    }

    #[test]
    fn boot_loaders_have_other_words_under_the_key_of_pantavisor() {
        for (name, word, expected) in [
            ("PV_BOOTLOADER_TYPE", "uboot", "uboot-pantavisor"),
            ("bootloader.type", "uboot-pvk", "uboot"),
            ("PV_BOOTLOADER_TYPE", "grub", "grub"),
            ("bootloader", "uboot", "uboot"),
        ] {
            let mut config = Config::defaults();
            config.set(name, word, Source::CommandLine).unwrap();
            assert_eq!(config.text("bootloader"), expected, "{name} {word}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let mut config = Config::defaults();
        let error = config
            .set("comit-delay", "1", Source::Environment)
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "environment: there is no setting \"comit-delay\"; did you mean \"commit-delay\"?"
        );
        let error = config
            .set("tries", "0", Source::CommandLine)
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "command line: tries = \"0\" is refused: use a whole number from 1 to 100"
        );
        assert_eq!(config, Config::defaults());
    }

    #[test]
    fn user_metadata_sets_only_what_is_marked() {
        let base = Config::defaults();
        let meta: [(&str, &[u8]); 4] = [
            ("commit-delay", b"3s"),
            ("storage", b"/tmp"),
            ("tries", b"many"),
            ("updater.commit.delay", b"\xff"),
        ];
        let config = base.with_user_meta(meta.into_iter());
        assert_eq!(config.duration("commit-delay"), Duration::from_secs(3));
        assert_eq!(config.text("storage"), base.text("storage"));
        assert_eq!(config.number("tries"), 3);
    }
}
