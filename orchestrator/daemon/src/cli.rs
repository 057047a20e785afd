//! The command line of `coxswain`. Its options are the settings of the table, so the two cannot differ.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command, ValueHint};

use crate::config::sources::{add_environment, add_file, add_kernel_command_line};
use crate::config::{Config, ConfigError, Kind, SETTINGS, Source};

/// Where the configuration file is when none is named.
pub const CONFIG_FILE: &str = "/etc/coxswain/coxswain.toml";

/// What was asked on the command line.
#[derive(Debug, Clone)]
pub enum Invocation {
    /// Run the device.
    Run(Box<Config>),
    /// Judge a storage tree without a running device.
    Check {
        /// The tree.
        storage: PathBuf,
        /// As JSON instead of text.
        json: bool,
    },
    /// Make a storage tree for an image, in the configuration's storage.
    MakeStorage {
        /// Storage and boot loader.
        config: Box<Config>,
        /// The working folder of the factory revision.
        folder: PathBuf,
    },
    /// Run the device below our own init.
    Device {
        /// What the init sees as well.
        config: Box<Config>,
        /// The open watchdog's descriptor.
        watchdog: Option<i32>,
    },
    /// Be the log process.
    Logger {
        /// The folder in which it meets the orchestrator.
        folder: PathBuf,
    },
}

/// The subcommand with which this program starts itself as the log process.
pub const LOGGER: &str = "logger";

/// The subcommand with which the init starts itself as the device process; its one argument is the watchdog's descriptor.
pub(crate) const DEVICE: &str = "device";
/// What makes the first process of a container an init.
pub const INIT: &str = "--init";
/// Exit code: the device asks for the machine to be switched off.
pub(crate) const EXIT_POWER_OFF: i32 = 3;
/// Exit code: the device asks for the machine to be started again.
pub(crate) const EXIT_REBOOT: i32 = 4;

/// `/proc/cmdline`; empty where it may not be read. What is not UTF-8 is replaced, so that the rest of it counts.
pub fn kernel_command_line() -> String {
    let bytes = std::fs::read("/proc/cmdline").unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The command as clap knows it; also the source of the man page.
pub fn command() -> Command {
    let mut command = Command::new("coxswain")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Runs a device: installs revisions, runs their containers, commits what is healthy, rolls back what is not")
        .after_help(
            "Exit codes: 0 stopped, 1 failed, 2 wrong usage or configuration, 3 power-off asked for, 4 reboot asked for.\n\
             Signals: SIGTERM stops and leaves containers running, SIGINT stops the containers too.",
        )
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .value_hint(ValueHint::FilePath)
                .help(format!("Configuration file [default: {CONFIG_FILE}, if it is there]")),
        )
        .subcommand(
            Command::new("check")
                .about("Judges a storage tree without a running device; changes nothing")
                .after_help("Exit codes: 0 the next boot runs a complete, verified revision; 1 it does not, or the tree cannot be read.")
                .arg(
                    Arg::new("storage")
                        .long("storage")
                        .value_name("DIR")
                        .required(true)
                        .value_hint(ValueHint::DirPath)
                        .help("The storage tree"),
                )
                .arg(
                    Arg::new("json")
                        .long("json")
                        .action(clap::ArgAction::SetTrue)
                        .help("Print the findings as JSON"),
                ),
        );
    command = command.subcommand(make_storage());
    command = command.subcommand(
        Command::new(LOGGER)
            .about("Keeps what containers write; started by coxswain itself")
            .hide(true)
            .arg(
                Arg::new("folder")
                    .required(true)
                    .value_hint(ValueHint::DirPath),
            ),
    );
    command = command.subcommand(
        Command::new(DEVICE)
            .about("Runs the device below our own init; started by coxswain itself")
            .hide(true)
            .arg(Arg::new("watchdog").value_parser(clap::value_parser!(i32))),
    );
    for setting in SETTINGS {
        let value_name = match setting.kind {
            Kind::Text => "TEXT",
            Kind::Path => "PATH",
            Kind::Number(..) => "NUMBER",
            Kind::Duration(..) => "TIME",
            Kind::Flag => "true|false",
            Kind::Word(_) => "WORD",
            Kind::Device => "DEVICE",
        };
        let default = if setting.default.is_empty() {
            "none"
        } else {
            setting.default
        };
        command = command.arg(
            Arg::new(setting.name)
                .long(setting.name)
                .value_name(value_name)
                .help(format!("{} [default: {default}]", setting.doc)),
        );
    }
    command
}

/// Settings that an image's storage depends on.
const OF_AN_IMAGE: [&str; 4] = [
    "storage",
    "bootloader",
    "bootloader-path",
    "bootloader-options",
];

fn make_storage() -> Command {
    let mut command = Command::new("make-storage")
        .about("Makes a storage tree with a factory revision, for whoever builds an image; no device runs")
        .after_help(
            "The same revision gives the same tree. Exit codes: 0 made; 1 not made, the folder must be thrown away.",
        )
        .arg(
            Arg::new("folder")
                .value_name("REVISION")
                .required(true)
                .value_hint(ValueHint::DirPath)
                .help("The revision: a working folder of `coxctl revision`"),
        );
    for name in OF_AN_IMAGE {
        let setting = crate::config::table::find(name).expect("the table has these settings");
        command = command.arg(
            Arg::new(name)
                .long(name)
                .value_name("VALUE")
                .required(name == "storage")
                .help(setting.doc),
        );
    }
    command
}

/// Why nothing was run.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Wrong usage, or help and version (clap knows which, and the exit code).
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// A configuration source holds something wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// What the sources of the configuration hold, read by the caller.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// Environment variables.
    pub variables: Vec<(String, String)>,
    /// `/proc/cmdline`, when it may be read.
    pub kernel_command_line: String,
}

/// Reads the command line and all layers below it.
///
/// # Errors
/// Wrong usage, or the first setting that is refused, with its source.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: Environment,
) -> Result<Invocation, CliError> {
    let matches = command().try_get_matches_from(arguments)?;
    if let Some(("check", check)) = matches.subcommand() {
        let storage = check
            .get_one::<String>("storage")
            .map(PathBuf::from)
            .unwrap_or_default();
        return Ok(Invocation::Check {
            storage,
            json: check.get_flag("json"),
        });
    }
    if let Some(("make-storage", make)) = matches.subcommand() {
        // Of the command line alone: an image must not depend on the machine that builds it.
        let mut config = Config::defaults();
        for name in OF_AN_IMAGE {
            if let Some(text) = make.get_one::<String>(name) {
                config.set(name, text, Source::CommandLine)?;
            }
        }
        let folder = make.get_one::<String>("folder").map(PathBuf::from);
        return Ok(Invocation::MakeStorage {
            config: Box::new(config),
            folder: folder.unwrap_or_default(),
        });
    }
    if let Some((LOGGER, logger)) = matches.subcommand() {
        let folder = logger.get_one::<String>("folder");
        return Ok(Invocation::Logger {
            folder: folder.map(PathBuf::from).unwrap_or_default(),
        });
    }
    if let Some((DEVICE, device)) = matches.subcommand() {
        // The init has told what is wrong with them.
        let (config, _) = Config::of_init(&environment.kernel_command_line);
        return Ok(Invocation::Device {
            config: Box::new(config),
            watchdog: device.get_one::<i32>("watchdog").copied(),
        });
    }
    Ok(Invocation::Run(Box::new(layers(&matches, environment)?)))
}

fn layers(matches: &ArgMatches, environment: Environment) -> Result<Config, ConfigError> {
    let mut config = Config::defaults();
    match matches.get_one::<String>("config") {
        Some(path) => add_file(&mut config, path.as_ref(), true)?,
        None => add_file(&mut config, CONFIG_FILE.as_ref(), false)?,
    }
    for problem in add_kernel_command_line(&mut config, &environment.kernel_command_line) {
        tracing::warn!("{problem}");
    }
    add_environment(&mut config, environment.variables.into_iter())?;
    for setting in SETTINGS {
        if let Some(text) = matches.get_one::<String>(setting.name) {
            config.set(setting.name, text, Source::CommandLine)?;
        }
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Config, String> {
        let arguments = std::iter::once("coxswain")
            .chain(arguments.iter().copied())
            .map(OsString::from);
        let environment = Environment {
            variables: variables
                .iter()
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
                .collect(),
            kernel_command_line: "coxswain.tries=7".to_owned(),
        };
        match parse(arguments, environment).map_err(|error| error.to_string())? {
            Invocation::Run(config) => Ok(*config),
            Invocation::Check { .. } => Err("check".to_owned()),
            Invocation::Logger { .. } => Err("logger".to_owned()),
            Invocation::MakeStorage { config, folder } => Err(format!(
                "make {} from {}",
                config.text("storage"),
                folder.display()
            )),
            Invocation::Device { config, .. } => Ok(*config),
        }
    }

    #[test]
    fn the_command_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn layers_in_order() {
        let config = run(
            &["--commit-delay", "2s"],
            &[("COXSWAIN_COMMIT_DELAY", "9s")],
        )
        .unwrap();
        assert_eq!(config.duration("commit-delay").as_secs(), 2);
        assert_eq!(config.number("tries"), 7);
    }

    #[test]
    fn below_our_own_init() {
        let config = run(&["device", "7"], &[("COXSWAIN_TRIES", "no")]).unwrap();
        assert_eq!(config.text("storage"), "/storage");
        assert_eq!(config.number("tries"), 7);
        assert!(run(&["device", "x"], &[]).is_err());
    }

    #[test]
    fn what_is_wrong_is_refused() {
        assert!(
            run(&["--storage", "relative"], &[])
                .unwrap_err()
                .contains("use an absolute path")
        );
        assert!(run(&["--nothing"], &[]).is_err());
        assert!(
            run(&[], &[("COXSWAIN_TRIES", "no")])
                .unwrap_err()
                .starts_with("environment:")
        );
        assert!(
            run(&["--config", "/nowhere.toml"], &[])
                .unwrap_err()
                .contains("/nowhere.toml")
        );
        assert_eq!(
            run(&["check", "--storage", "/x"], &[]).unwrap_err(),
            "check"
        );
        let make = ["make-storage", "--storage", "/x", "folder"];
        assert_eq!(run(&make, &[]).unwrap_err(), "make /x from folder");
    }
}
