//! Where settings come from, and reading each source.

use std::fmt;
use std::path::{Path, PathBuf};

use super::{Config, ConfigError, SETTINGS, table};

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

/// Bytes of a kernel command line; the kernel's own limit is a quarter of it.
const CMDLINE_BYTES_MAX: usize = 16 << 10;

/// Adds the file's layer. A file that must be there (it was named on the command line) is an error when it is not.
///
/// # Errors
/// The first problem, with the place.
pub fn add_file(config: &mut Config, path: &Path, must_exist: bool) -> Result<(), ConfigError> {
    for (name, value) in entries(path, must_exist)? {
        config.set(&name, &value?, Source::File(path.to_owned()))?;
    }
    Ok(())
}

/// Adds the file's layer as far as it can be used, and tells the rest: a device must start also with a mistyped file.
pub fn add_file_as_far_as_good(config: &mut Config, path: &Path) -> Vec<ConfigError> {
    match entries(path, false) {
        Err(error) => vec![error],
        Ok(entries) => entries
            .into_iter()
            .filter_map(|(name, value)| {
                let set = |value: String| config.set(&name, &value, Source::File(path.to_owned()));
                value.and_then(set).err()
            })
            .collect(),
    }
}

type Entry = (String, Result<String, ConfigError>);

fn entries(path: &Path, must_exist: bool) -> Result<Vec<Entry>, ConfigError> {
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
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(unreadable(error.to_string())),
    }
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    let table: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| malformed(error.to_string()))?;
    let entries = table.into_iter().map(|(name, value)| {
        let text = match value {
            toml::Value::String(text) => Ok(text),
            toml::Value::Integer(number) => Ok(number.to_string()),
            toml::Value::Boolean(flag) => Ok(flag.to_string()),
            toml::Value::Float(_)
            | toml::Value::Datetime(_)
            | toml::Value::Array(_)
            | toml::Value::Table(_) => Err(malformed(format!(
                "{name} must be text, a whole number, true or false"
            ))),
        };
        (name, text)
    });
    Ok(entries.collect())
}

/// Adds the layer of the kernel command line: words `coxswain.name=value`, and Pantavisor's `pv_name=value`. A wrong one is reported
/// and left out: a device must start also with a mistyped boot argument. Words of Pantavisor that mean nothing here are no mistake.
pub fn add_kernel_command_line(config: &mut Config, cmdline: &str) -> Vec<ConfigError> {
    let mut problems = Vec::new();
    for word in words(cmdline) {
        let Some((name, value)) = word.split_once('=') else {
            continue;
        };
        let name = match name.strip_prefix("coxswain.") {
            Some(name) => Some(name),
            None => theirs(name),
        };
        if let Some(name) = name
            && let Err(problem) = config.set(name, value, Source::KernelCommandLine)
        {
            problems.push(problem);
        }
    }
    problems
}

/// Pantavisor's name of a setting of ours: `PV_STORAGE_DEVICE`, or its older form `pv_storage.device`.
fn theirs(name: &str) -> Option<&str> {
    let (start, rest) = name.split_at_checked("pv_".len())?;
    if !start.eq_ignore_ascii_case("pv_") {
        return None;
    }
    [name, rest].into_iter().find(|name| {
        table::find(name).is_some_and(|found| found.pantavisor().is_some() && found.name != *name)
    })
}

/// Words as the kernel splits them: a blank between quotes divides nothing. What is too long is cut.
fn words(cmdline: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    let mut end = cmdline.len().min(CMDLINE_BYTES_MAX);
    while !cmdline.is_char_boundary(end) {
        end -= 1;
    }
    for char in cmdline.get(..end).unwrap_or_default().chars() {
        match char {
            '"' => quoted = !quoted,
            blank if blank.is_ascii_whitespace() && !quoted => {
                words.push(std::mem::take(&mut word));
            }
            other => word.push(other),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
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
    fn pantavisors_words_on_the_kernel_command_line() {
        for (cmdline, name, expected, problems) in [
            (
                "pv_storage.device=LABEL=pvroot",
                "storage-device",
                "LABEL=pvroot",
                0,
            ),
            (
                "PV_STORAGE_DEVICE=/dev/sda2",
                "storage-device",
                "/dev/sda2",
                0,
            ),
            (
                "pv_storage.fstype=ext4 pv_storage.wait=30",
                "storage-wait",
                "30s",
                0,
            ),
            ("pv_wdt.mode=startup", "watchdog", "startup", 0),
            ("PV_WDT_MODE=sometimes", "watchdog", "disabled", 1),
            ("pv_wdt.timeout=0", "watchdog-timeout", "30s", 1),
            (
                "pv_try= pv_rev=5 pv_quickboot pv_fdt.n=1 pv_x=",
                "booted",
                "",
                0,
            ),
            ("pv_storage-device=/dev/sda", "storage-device", "", 0),
            ("pv_=1 pv_ PV_", "storage-device", "", 0),
        ] {
            let mut config = Config::defaults();
            let found = add_kernel_command_line(&mut config, cmdline);
            let setting = SETTINGS
                .iter()
                .find(|setting| setting.name == name)
                .unwrap();
            assert_eq!(
                config.get(setting.name).value.to_string(),
                expected,
                "{cmdline}"
            );
            assert_eq!(found.len(), problems, "{cmdline}: {found:?}");
        }
    }

    #[test]
    fn hostile_kernel_command_lines() {
        let long = format!("coxswain.hostname={}", "x".repeat(1 << 20));
        let split = format!("{}é coxswain.tries=9", " ".repeat(CMDLINE_BYTES_MAX - 1));
        for (cmdline, problems) in [
            ("", 0),
            ("\"", 0),
            ("coxswain.", 0),
            ("coxswain.=", 1),
            ("coxswain.tries=", 1),
            (
                "coxswain.tries=-1 coxswain.tries=1e9 coxswain.tries=99999999999999999999",
                3,
            ),
            ("coxswain.storage=relative coxswain.storage=/a\0b", 2),
            (
                "coxswain.storage-device=LABEL= coxswain.storage-device=/etc/passwd",
                2,
            ),
            ("coxswain.hostname=\"a b\"", 0),
            ("coxswain.hostname=\"a\u{1b}[2J\"", 1),
            ("coxswain.watchdog=ALWAYS", 1),
            (long.as_str(), 0),
            (split.as_str(), 0),
        ] {
            let mut config = Config::defaults();
            let found = add_kernel_command_line(&mut config, cmdline);
            let short: String = cmdline.chars().take(80).collect();
            assert_eq!(found.len(), problems, "{short}: {found:?}");
            assert!(config.text("hostname").len() <= CMDLINE_BYTES_MAX);
            assert_eq!(config.number("tries"), 3, "{short}");
        }
        let mut config = Config::defaults();
        add_kernel_command_line(&mut config, "x coxswain.hostname=\"a b\" coxswain.tries=4");
        assert_eq!(
            (config.text("hostname"), config.number("tries")),
            ("a b", 4)
        );
    }

    proptest::proptest! {
        #[test]
        fn no_kernel_command_line_stops_a_start(cmdline in "(coxswain\\.|pv_|PV_)?[a-z.-]{0,20}[=\" ]?\\PC{0,40}") {
            let mut config = Config::defaults();
            for problem in add_kernel_command_line(&mut config, &cmdline) {
                assert!(problem.to_string().starts_with("kernel command line: "), "{problem}");
            }
        }
    }

    #[test]
    fn a_file_is_used_as_far_as_it_is_good() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        std::fs::write(
            &path,
            "tries = 0\nwatchdog = \"startup\"\nnone = 1\nhostname = [1]\n",
        )
        .unwrap();
        let mut config = Config::defaults();
        assert_eq!(add_file_as_far_as_good(&mut config, &path).len(), 3);
        assert_eq!(config.text("watchdog"), "startup");
        std::fs::write(&path, "tries = = 1").unwrap();
        assert_eq!(add_file_as_far_as_good(&mut config, &path).len(), 1);
        assert_eq!(
            add_file_as_far_as_good(&mut config, Path::new("/nowhere")).len(),
            0
        );
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
