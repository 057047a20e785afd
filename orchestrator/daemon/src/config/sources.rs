//! Where settings come from, and reading each source.

use std::fmt;
use std::path::{Path, PathBuf};

use super::{Config, ConfigError, SETTINGS};

/// A layer of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The table.
    Default,
    /// A file.
    File(PathBuf),
    /// The kernel command line.
    KernelCommandLine,
    /// The environment.
    Environment,
    /// The command line.
    CommandLine,
    /// User metadata.
    UserMeta,
}

impl Source {
    /// Pantavisor's word for the layer, for `/config2`.
    pub fn pantavisor(&self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File(_) => "pv conf file",
            Self::KernelCommandLine => "pv cmdline",
            Self::Environment => "env",
            Self::CommandLine => "args",
            Self::UserMeta => "metadata",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::KernelCommandLine => f.write_str("kernel command line"),
            Self::Environment => f.write_str("environment"),
            Self::CommandLine => f.write_str("command line"),
            Self::UserMeta => f.write_str("user metadata"),
        }
    }
}

/// Bytes of a configuration file.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Adds the file's layer. A file that must be there (it was named on the command line) is an error when it is not.
///
/// # Errors
/// The first problem, with the place.
pub fn add_file(config: &mut Config, path: &Path, must_exist: bool) -> Result<(), ConfigError> {
    let unreadable = |error: String| ConfigError::Unreadable {
        path: path.to_owned(),
        error,
    };
    let malformed = |error: String| ConfigError::Malformed {
        path: path.to_owned(),
        error,
    };
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.len() > FILE_BYTES_MAX => {
            return Err(malformed(format!(
                "it is longer than {FILE_BYTES_MAX} bytes"
            )));
        }
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => return Ok(()),
        Err(error) => return Err(unreadable(error.to_string())),
    }
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    let table: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| malformed(error.to_string()))?;
    for (name, value) in &table {
        let text = match value {
            toml::Value::String(text) => text.clone(),
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(flag) => flag.to_string(),
            toml::Value::Float(_)
            | toml::Value::Datetime(_)
            | toml::Value::Array(_)
            | toml::Value::Table(_) => {
                return Err(malformed(format!(
                    "{name} must be text, a whole number, true or false"
                )));
            }
        };
        config.set(name, &text, Source::File(path.to_owned()))?;
    }
    Ok(())
}

/// Adds the layer of the kernel command line: words `coxswain.name=value`. A wrong one is reported and left out: a device must
/// start also with a mistyped boot argument.
pub fn add_kernel_command_line(config: &mut Config, cmdline: &str) -> Vec<ConfigError> {
    let settings = cmdline.split_ascii_whitespace().filter_map(|word| {
        let (name, value) = word.strip_prefix("coxswain.")?.split_once('=')?;
        Some((name, value))
    });
    settings
        .filter_map(|(name, value)| config.set(name, value, Source::KernelCommandLine).err())
        .collect()
}

/// Adds the environment's layer: `COXSWAIN_NAME`.
///
/// # Errors
/// The first value that is refused. Variables that name no setting are left alone.
pub fn add_environment(
    config: &mut Config,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<(), ConfigError> {
    for (variable, value) in variables {
        let Some(name) = variable.strip_prefix("COXSWAIN_") else {
            continue;
        };
        let plain = name.to_ascii_lowercase().replace('_', "-");
        if SETTINGS.iter().any(|setting| setting.name == plain) {
            config.set(&plain, &value, Source::Environment)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_command_line() {
        let mut config = Config::defaults();
        let problems = add_kernel_command_line(
            &mut config,
            "root=/dev/ram coxswain.tries=5 quiet coxswain.commit-delay=x coxswain.flag coxswain.nothing=1",
        );
        assert_eq!(config.number("tries"), 5);
        assert_eq!(problems.len(), 2);
    }

    #[test]
    fn environment() {
        let mut config = Config::defaults();
        let variables = [
            ("COXSWAIN_COMMIT_DELAY", "1s"),
            ("COXSWAIN_OTHER", "x"),
            ("HOME", "/root"),
        ];
        add_environment(
            &mut config,
            variables
                .iter()
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned())),
        )
        .unwrap();
        assert_eq!(config.duration("commit-delay").as_secs(), 1);
    }

    #[test]
    fn files() {
        let dir = std::env::temp_dir().join(format!("coxswain-config-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("c.toml");
        let mut config = Config::defaults();
        assert_eq!(add_file(&mut config, &path, false), Ok(()));
        assert!(
            add_file(&mut config, &path, true)
                .unwrap_err()
                .to_string()
                .contains("cannot read")
        );
        std::fs::write(
            &path,
            "tries = 4\ncommit-delay = \"2s\"\npantavisor-exact-commit = true\n",
        )
        .unwrap();
        add_file(&mut config, &path, true).unwrap();
        assert_eq!(
            (
                config.number("tries"),
                config.flag("pantavisor-exact-commit")
            ),
            (4, true)
        );
        for bad in ["tries = ", "tries = [1]", "trys = 4", "tries = -1"] {
            std::fs::write(&path, bad).unwrap();
            assert!(add_file(&mut config, &path, true).is_err(), "{bad}");
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
