//! The configuration of a cloud client: one table, layered sources, parsed once.
//!
//! Layers, lowest first: default, file, environment (`COXSWAIN_<CLIENT>_NAME`), command line (`--name value`), user metadata (keys
//! `<client>.name`, only settings marked so). [`table::SETTINGS`] is what every client has; a client adds its own table. The
//! reference page is made from the same tables by [`page`]. Values that are secret are never shown.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::limits;

pub mod table;
mod value;

pub use table::{Kind, SETTINGS, Setting};
pub use value::Value;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The table.
    Default,
    /// A file.
    File(PathBuf),
    /// The environment.
    Environment,
    /// The command line.
    CommandLine,
    /// User metadata.
    UserMeta,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment => f.write_str("environment"),
            Self::CommandLine => f.write_str("command line"),
            Self::UserMeta => f.write_str("user metadata"),
        }
    }
}

/// A setting was refused, or a file cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read {path}: {error}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: String,
    },
    /// The configuration file is not TOML, or not a flat table.
    #[error("{path} is not a configuration file: {error}")]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Where and what.
        error: String,
    },
    /// There is no such setting.
    #[error("{origin}: there is no setting {name:?}{hint}")]
    Unknown {
        /// Where it was given.
        origin: Source,
        /// As given.
        name: String,
        /// `; did you mean ...?`, or empty.
        hint: String,
    },
    /// The value does not fit. The value of a secret setting is not in here.
    #[error("{origin}: {name} = {value} is refused: {reason}")]
    Invalid {
        /// Where it was given.
        origin: Source,
        /// The setting.
        name: &'static str,
        /// As given (cut after 100 characters), or `***`.
        value: String,
        /// What is accepted.
        reason: String,
    },
    /// A setting that must have a value has none.
    #[error("{name} is not set: {doc}")]
    Missing {
        /// The setting.
        name: &'static str,
        /// Its documentation.
        doc: &'static str,
    },
}

/// All settings of a client, each with a value and its origin.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    client: &'static str,
    values: BTreeMap<&'static str, (Setting, Value, Source)>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.shown().map(|(name, value, _)| (name, value)))
            .finish()
    }
}

impl Config {
    /// The defaults. `client` is the short name (`hawkbit`), `own` the client's own table.
    pub fn defaults(client: &'static str, own: &[Setting]) -> Self {
        let values = SETTINGS.iter().chain(own).map(|setting| {
            let value = Value::parse(setting.kind, setting.default)
                .expect("a test parses the default of each setting");
            (setting.name, (*setting, value, Source::Default))
        });
        Self {
            client,
            values: values.collect(),
        }
    }

    /// The client's short name.
    pub fn client(&self) -> &'static str {
        self.client
    }

    /// Sets one value. `_` counts as `-`, and case does not count.
    ///
    /// # Errors
    /// [`ConfigError::Unknown`] and [`ConfigError::Invalid`]; nothing is changed then.
    pub fn set(&mut self, name: &str, text: &str, source: Source) -> Result<(), ConfigError> {
        let plain = name.to_ascii_lowercase().replace('_', "-");
        let Some((setting, value, origin)) = self.values.get_mut(plain.as_str()) else {
            let near = self
                .values
                .keys()
                .map(|known| (strsim::osa_distance(known, &plain), *known))
                .min()
                .filter(|(distance, _)| *distance <= 3);
            let hint = near.map(|(_, near)| format!("; did you mean {near:?}?"));
            return Err(ConfigError::Unknown {
                origin: source,
                name: name.chars().take(100).collect(),
                hint: hint.unwrap_or_default(),
            });
        };
        let parsed = Value::parse(setting.kind, text).map_err(|reason| ConfigError::Invalid {
            origin: source.clone(),
            name: setting.name,
            value: if setting.secret {
                "***".to_owned()
            } else {
                format!("{:?}", text.chars().take(100).collect::<String>())
            },
            reason,
        })?;
        *value = parsed;
        *origin = source;
        Ok(())
    }

    /// Adds a file's layer: a flat TOML table. `must_exist`: it was named by a person.
    ///
    /// # Errors
    /// The first problem, with the place.
    pub fn add_file(&mut self, path: &Path, must_exist: bool) -> Result<(), ConfigError> {
        let text = match read_bounded(path, limits::CONFIG_BYTES_MAX) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => {
                return Ok(());
            }
            Err(error) => {
                return Err(ConfigError::Unreadable {
                    path: path.to_owned(),
                    error: error.to_string(),
                });
            }
        };
        let malformed = |error: String| ConfigError::Malformed {
            path: path.to_owned(),
            error,
        };
        let table: toml::Table = text
            .parse()
            .map_err(|error: toml::de::Error| malformed(placed(&text, &error)))?;
        for (name, value) in &table {
            let text = match value {
                toml::Value::String(text) => text.clone(),
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Boolean(flag) => flag.to_string(),
                toml::Value::Array(items) if items.iter().all(|item| item.as_str().is_some()) => {
                    let items: Vec<&str> = items.iter().filter_map(toml::Value::as_str).collect();
                    items.join(",")
                }
                toml::Value::Float(_)
                | toml::Value::Datetime(_)
                | toml::Value::Array(_)
                | toml::Value::Table(_) => {
                    return Err(malformed(format!(
                        "{name} must be text, a list of texts, a whole number, true or false"
                    )));
                }
            };
            self.set(name, &text, Source::File(path.to_owned()))?;
        }
        Ok(())
    }

    /// Adds the environment's layer: `COXSWAIN_<CLIENT>_NAME`; of the shared `COXSWAIN_SOCKET` too.
    ///
    /// # Errors
    /// The first value that is refused. Variables that name no setting are left alone.
    pub fn add_environment(
        &mut self,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<(), ConfigError> {
        let prefix = format!("COXSWAIN_{}_", self.client.to_ascii_uppercase());
        for (variable, value) in variables {
            let name = if variable == "COXSWAIN_SOCKET" {
                "SOCKET"
            } else if let Some(name) = variable.strip_prefix(&prefix) {
                name
            } else {
                continue;
            };
            let plain = name.to_ascii_lowercase().replace('_', "-");
            if self.values.contains_key(plain.as_str()) {
                self.set(&plain, &value, Source::Environment)?;
            }
        }
        Ok(())
    }

    /// Adds the command line's layer: `--name value` or `--name=value`; only a flag may stand alone. `--config FILE` was read before.
    ///
    /// # Errors
    /// The first word that is refused.
    pub fn add_arguments(
        &mut self,
        arguments: impl Iterator<Item = String>,
    ) -> Result<(), ConfigError> {
        let mut arguments = arguments.peekable();
        while let Some(word) = arguments.next() {
            let Some(named) = word.strip_prefix("--") else {
                return Err(ConfigError::Unknown {
                    origin: Source::CommandLine,
                    name: word.chars().take(100).collect(),
                    hint: "; settings are given as --name value".to_owned(),
                });
            };
            let (name, value) = match named.split_once('=') {
                Some((name, value)) => (name.to_owned(), value.to_owned()),
                None => match arguments.next_if(|next| !next.starts_with("--")) {
                    Some(value) => (named.to_owned(), value),
                    None => (named.to_owned(), self.alone(named)?.to_owned()),
                },
            };
            if name != "config" {
                self.set(&name, &value, Source::CommandLine)?;
            }
        }
        Ok(())
    }

    /// What a setting without a value means on the command line: yes, or that somebody has forgotten the value.
    fn alone(&self, named: &str) -> Result<&'static str, ConfigError> {
        let plain = named.to_ascii_lowercase().replace('_', "-");
        match self.values.get(plain.as_str()) {
            Some((setting, ..)) if setting.kind != Kind::Flag => Err(ConfigError::Invalid {
                origin: Source::CommandLine,
                name: setting.name,
                value: "nothing".to_owned(),
                reason: format!("use --{} VALUE", setting.name),
            }),
            None if plain == "config" => Err(ConfigError::Invalid {
                origin: Source::CommandLine,
                name: "config",
                value: "nothing".to_owned(),
                reason: "use --config FILE".to_owned(),
            }),
            // What is no setting is told as that.
            Some(_) | None => Ok("true"),
        }
    }

    /// All layers but user metadata, from where a program finds them: `--config FILE` or `/etc/coxswain/<client>.toml`, the
    /// environment, the arguments (without the program's name).
    ///
    /// # Errors
    /// The first problem.
    pub fn load(
        client: &'static str,
        own: &[Setting],
        arguments: &[String],
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut config = Self::defaults(client, own);
        let mut named = None;
        for (place, word) in arguments.iter().enumerate() {
            if word == "--config" {
                named = arguments.get(place + 1).cloned();
            } else if let Some(path) = word.strip_prefix("--config=") {
                named = Some(path.to_owned());
            }
        }
        match named {
            Some(path) => config.add_file(Path::new(&path), true)?,
            None => config.add_file(
                &PathBuf::from(format!("/etc/coxswain/{client}.toml")),
                false,
            )?,
        }
        config.add_environment(variables)?;
        config.add_arguments(arguments.iter().cloned())?;
        Ok(config)
    }

    /// This configuration with user metadata laid over it; keys that are no setting, not marked for it or not acceptable are left
    /// out: metadata belongs to everybody, and a wrong value must not stop a device.
    #[must_use]
    pub fn with_user_meta<'a>(&self, meta: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut config = self.clone();
        for (key, text) in meta {
            let Some(name) = key
                .strip_prefix(self.client)
                .and_then(|rest| rest.strip_prefix('.'))
            else {
                continue;
            };
            let allowed = self
                .values
                .get(name)
                .is_some_and(|(setting, ..)| setting.from_meta);
            if allowed && let Err(error) = config.set(name, text, Source::UserMeta) {
                tracing::warn!("user metadata is ignored: {error}");
            }
        }
        config
    }

    /// Name, value for people and origin of each setting.
    pub fn shown(&self) -> impl Iterator<Item = (&'static str, String, &Source)> {
        self.values.iter().map(|(name, (setting, value, source))| {
            let shown = if setting.secret && !value.to_string().is_empty() {
                "***".to_owned()
            } else {
                value.to_string()
            };
            (*name, shown, source)
        })
    }

    fn value(&self, name: &'static str) -> &Value {
        let (_, value, _) = self
            .values
            .get(name)
            .unwrap_or_else(|| unreachable!("{name} is in no table"));
        value
    }

    /// The text of a setting that is text, a path, a list or a word.
    pub fn text(&self, name: &'static str) -> &str {
        match self.value(name) {
            Value::Text(text) => text,
            Value::Number(_) | Value::Duration(_) | Value::Flag(_) => {
                unreachable!("{name} is not text")
            }
        }
    }

    /// A path; `None` when it is empty.
    pub fn path(&self, name: &'static str) -> Option<PathBuf> {
        Some(self.text(name))
            .filter(|text| !text.is_empty())
            .map(PathBuf::from)
    }

    /// The items of a list: separated by commas or white space.
    pub fn list(&self, name: &'static str) -> impl Iterator<Item = &str> {
        self.text(name)
            .split(|sign: char| sign == ',' || sign.is_whitespace())
            .filter(|item| !item.is_empty())
    }

    /// A number.
    pub fn number(&self, name: &'static str) -> u64 {
        match self.value(name) {
            Value::Number(number) => *number,
            Value::Text(_) | Value::Duration(_) | Value::Flag(_) => {
                unreachable!("{name} is not a number")
            }
        }
    }

    /// A time.
    pub fn duration(&self, name: &'static str) -> Duration {
        match self.value(name) {
            Value::Duration(time) => *time,
            Value::Text(_) | Value::Number(_) | Value::Flag(_) => {
                unreachable!("{name} is not a time")
            }
        }
    }

    /// Yes or no.
    pub fn flag(&self, name: &'static str) -> bool {
        match self.value(name) {
            Value::Flag(flag) => *flag,
            Value::Text(_) | Value::Number(_) | Value::Duration(_) => {
                unreachable!("{name} is not a flag")
            }
        }
    }

    /// What a setting that may name a file holds: the text itself, or with `file:/path` the file's, without white space at its
    /// ends. Read anew each time, so that a secret can be changed while the client runs. `None` when it is empty.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`].
    pub fn read(&self, name: &'static str) -> Result<Option<String>, ConfigError> {
        let text = self.text(name);
        let text = match text.strip_prefix("file:") {
            Some(path) => read_bounded(Path::new(path), limits::SECRET_BYTES_MAX)
                .map_err(|error| ConfigError::Unreadable {
                    path: path.into(),
                    error: error.to_string(),
                })?
                .trim()
                .to_owned(),
            None => text.to_owned(),
        };
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    /// As [`Config::read`], of a setting that must have a value.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`], [`ConfigError::Missing`].
    pub fn read_needed(&self, name: &'static str) -> Result<String, ConfigError> {
        self.read(name)?.ok_or_else(|| {
            let (setting, ..) = self.values[name];
            ConfigError::Missing {
                name,
                doc: setting.doc,
            }
        })
    }
}

/// What is wrong with a file and where; without its text, which may be a secret.
fn placed(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = before.map(|before| before.matches('\n').count() + 1);
    let line = line.map_or(String::new(), |line| format!("line {line}: "));
    format!("{line}{}", error.message())
}

/// A whole file of text, when it is not longer than this.
pub(crate) fn read_bounded(path: &Path, bytes_max: u64) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    let read = file.take(bytes_max + 1).read_to_string(&mut text)?;
    if read as u64 > bytes_max {
        let why = format!("it is longer than {bytes_max} bytes");
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, why));
    }
    Ok(text)
}

/// The reference page of a client, in Markdown: what all clients have, then its own table.
pub fn page(client: &str, own: &[Setting]) -> String {
    let mut page = format!(
        "# Settings of coxswain-{client}\n\n\
         Generated from its tables; do not edit.\n\n\
         Layers, lowest first: default, file (`/etc/coxswain/{client}.toml`, or `--config FILE`), environment\n\
         (`COXSWAIN_{}_NAME`), command line (`--name value`), user metadata (key `{client}.name`, only where the table says so;\n\
         holds at once). Where a value may be a file, `file:/path` reads it from there.\n",
        client.to_ascii_uppercase()
    );
    for (title, table) in [("Of this client", own), ("Of every client", SETTINGS)] {
        if table.is_empty() {
            continue;
        }
        write!(
            page,
            "\n## {title}\n\n| setting | default | accepts | user metadata | meaning |\n|---|---|---|---|---|\n"
        )
        .expect("a string takes every text");
        for setting in table {
            writeln!(
                page,
                "| `{}` | {} | {} | {} | {} |",
                setting.name,
                if setting.default.is_empty() {
                    String::new()
                } else {
                    format!("`{}`", setting.default)
                },
                setting.kind,
                if setting.from_meta { "yes" } else { "no" },
                setting.doc
            )
            .expect("a string takes every text");
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &[Setting] =
        &[
            Setting::new("target-token", Kind::TextOrFile, "", "Proves who asks.")
                .with_meta()
                .secret(),
        ];

    #[test]
    fn layers_and_origins() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("c.toml");
        std::fs::write(
            &file,
            "poll-interval = \"1min\"\nmap = [\"a=b\", \"c=d\"]\nparallel = 3\n",
        )
        .unwrap();
        let arguments = [
            "--config".to_owned(),
            file.display().to_string(),
            "--parallel=4".to_owned(),
        ];
        let variables = [
            ("COXSWAIN_HAWKBIT_POLL_MIN", "5s"),
            ("COXSWAIN_SOCKET", "/tmp/x.sock"),
            ("COXSWAIN_OTHER", "x"),
        ];
        let variables = variables.map(|(n, v)| (n.to_owned(), v.to_owned()));
        let config = Config::load("hawkbit", OWN, &arguments, variables.into_iter()).unwrap();
        assert_eq!(config.duration("poll-interval"), Duration::from_secs(60));
        assert_eq!(config.duration("poll-min"), Duration::from_secs(5));
        assert_eq!(config.text("socket"), "/tmp/x.sock");
        assert_eq!(config.number("parallel"), 4);
        assert_eq!(config.list("map").collect::<Vec<_>>(), ["a=b", "c=d"]);

        let meta = [
            ("hawkbit.parallel", "2"),
            ("hawkbit.target-token", "abc"),
            ("hawkbit.socket", "/evil"),
            ("kaa.parallel", "1"),
            ("hawkbit.poll-max", "never"),
        ];
        let config = config.with_user_meta(meta.into_iter());
        assert_eq!(config.read("target-token").unwrap().unwrap(), "abc");
        assert_eq!(config.text("socket"), "/tmp/x.sock");
        assert!(!format!("{config:?}").contains("abc"));
    }

    #[test]
    fn secrets_come_from_files_and_are_not_in_errors() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("token");
        std::fs::write(&file, "s3cret\n").unwrap();
        let mut config = Config::defaults("hawkbit", OWN);
        assert!(matches!(
            config.read_needed("target-token"),
            Err(ConfigError::Missing { .. })
        ));
        let named = format!("file:{}", file.display());
        config
            .set("target_token", &named, Source::CommandLine)
            .unwrap();
        assert_eq!(config.read_needed("target-token").unwrap(), "s3cret");
        let error = config
            .set("target-token", "s3cret\n", Source::CommandLine)
            .unwrap_err();
        assert!(!error.to_string().contains("s3cret"), "{error}");
        std::fs::remove_file(&file).unwrap();
        assert!(config.read("target-token").is_err());
        for bad in [
            "target-token = \"s3cret",
            "target-token = s3cret",
            "target-token = 's3cret' x",
        ] {
            std::fs::write(&file, format!("parallel = 1\n{bad}\n")).unwrap();
            let error = config.add_file(&file, true).unwrap_err().to_string();
            assert!(!error.contains("s3cret"), "{error}");
            assert!(error.contains(": line 2: "), "{error}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let mut config = Config::defaults("hawkbit", OWN);
        let error = config
            .set("pol-interval", "1", Source::Environment)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "environment: there is no setting \"pol-interval\"; did you mean \"poll-interval\"?"
        );
        assert!(
            config
                .set("poll-interval", "0", Source::Environment)
                .is_err()
        );
        assert!(config.add_arguments(["x".to_owned()].into_iter()).is_err());
        // A value that was forgotten is no value.
        let mut given = |words: &[&str]| {
            let words = words.iter().map(|word| (*word).to_owned());
            config
                .add_arguments(words)
                .map_err(|error| error.to_string())
        };
        assert_eq!(
            given(&["--target-token", "--publish"]).unwrap_err(),
            "command line: target-token = nothing is refused: use --target-token VALUE"
        );
        assert!(
            given(&["--publish", "--config"])
                .unwrap_err()
                .contains("--config FILE")
        );
        given(&["--publish", "--no-proxy="]).unwrap();
    }

    #[test]
    fn every_default_is_accepted_and_every_line_ends() {
        for setting in SETTINGS {
            assert!(
                Value::parse(setting.kind, setting.default).is_ok(),
                "{}",
                setting.name
            );
            assert!(setting.doc.ends_with('.'), "{}", setting.name);
        }
    }

    #[test]
    fn the_page_is_fresh() {
        expect_test::expect_file!["../settings.md"].assert_eq(&page("<cloud>", &[]));
    }
}
