//! `coxswain`: the orchestrator. Reads the command line and its configuration, runs the device, leaves with the code that says why.

use std::io::Write as _;
use std::process::ExitCode;

use daemon::cli::{self, CliError, Environment, Invocation};
use daemon::config::Config;
use linux::kmsg::{self, Kmsg};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Wrong usage or configuration.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    if daemon::modprobe::is_meant(arguments.next().as_ref()) {
        return daemon::modprobe::run(arguments);
    }
    // The kernel gives an init words of its command line as arguments, which are none of ours.
    let is_asked = arguments
        .next()
        .is_some_and(|argument| argument == cli::INIT);
    if linux::early::is_init() || is_asked && std::process::id() == 1 {
        daemon::init::run(tell_kernel);
    }
    let environment = Environment {
        variables: std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
        kernel_command_line: cli::kernel_command_line(),
    };
    match cli::parse(std::env::args_os(), environment) {
        Ok(Invocation::Run(config)) => run(*config),
        Ok(Invocation::Device { config, watchdog }) => device(*config, watchdog),
        Ok(Invocation::Logger { folder }) => keep_logs(folder),
        Ok(Invocation::Check { storage, json }) => {
            let (text, code) = daemon::check::check(&storage, json);
            // A reader that went away wants no more text; the code still tells.
            drop(std::io::stdout().write_all(text.as_bytes()));
            code
        }
        Ok(Invocation::MakeStorage { config, folder }) => {
            match daemon::make_storage::make(&config, &folder) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    complain(&error);
                    ExitCode::FAILURE
                }
            }
        }
        Err(CliError::Usage(error)) => {
            drop(error.print());
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE))
        }
        Err(error @ CliError::Config(_)) => {
            complain(&error);
            ExitCode::from(USAGE)
        }
    }
}

/// The log process: a program of its own that outlives the orchestrator.
fn keep_logs(folder: std::path::PathBuf) -> ExitCode {
    tell("warn");
    // It leads a session already when a person started it.
    drop(linux::process::new_session());
    // Three and more for each container; with fewer, the last containers wait for a place.
    drop(linux::process::raise_open_files());
    match logger::run(folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn tell(level: &str) {
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        // Whoever read them is gone: no reason to end.
        .log_internal_errors(false);
    tracing_subscriber::registry()
        .with(lines)
        .with(levels(level))
        .init();
}

fn run(config: Config) -> ExitCode {
    tell(config.text("log-level"));
    match daemon::run(config) {
        Ok(ending) => daemon::exit_code(ending),
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// The device below our own init.
fn device(config: Config, watchdog: Option<i32>) -> ExitCode {
    tell_kernel(config.text("log-level"));
    match daemon::run_below_init(config, watchdog) {
        Ok(ending) => daemon::exit_code(ending),
        Err(error) => {
            tracing::error!("{}", explain(&error));
            ExitCode::FAILURE
        }
    }
}

/// To the kernel's log, each line with its own level; to standard error where that cannot be had.
fn tell_kernel(level: &str) {
    let Ok(log) = Kmsg::open() else {
        tell(level);
        return;
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(KernelLog(log))
        .with_ansi(false)
        .without_time()
        .with_level(false)
        .with_target(false)
        .log_internal_errors(false);
    tracing_subscriber::registry()
        .with(lines)
        .with(levels(level))
        .init();
}

struct KernelLog(Kmsg);

impl<'a> MakeWriter<'a> for KernelLog {
    type Writer = kmsg::Lines;

    fn make_writer(&'a self) -> Self::Writer {
        self.0.at(kmsg::Level::Info)
    }

    fn make_writer_for(&'a self, about: &tracing::Metadata<'_>) -> Self::Writer {
        self.0.at(match *about.level() {
            tracing::Level::ERROR => kmsg::Level::Error,
            tracing::Level::WARN => kmsg::Level::Warning,
            tracing::Level::INFO => kmsg::Level::Info,
            tracing::Level::DEBUG | tracing::Level::TRACE => kmsg::Level::Debug,
        })
    }
}

/// Our own crates at the level that was asked for; libraries stay at warnings.
fn levels(level: &str) -> Targets {
    let level = level.parse().unwrap_or(LevelFilter::INFO);
    let ours = [
        "coxswain",
        "daemon",
        "device",
        "server",
        "containerd",
        "linux",
        "logger",
        "store",
    ];
    Targets::new()
        .with_default(LevelFilter::WARN)
        .with_targets(ours.map(|name| (name, level)))
}

fn complain(error: &dyn std::error::Error) {
    daemon::complain(&explain(error));
}

fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
