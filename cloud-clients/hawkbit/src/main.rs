//! coxswain-hawkbit: reads its settings, opens the control socket, and lets `link` run.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::process::ExitCode;

use client::{Client, Timeouts};
use hawkbit::Hawkbit;
use hawkbit::settings::{CLIENT, SETTINGS};
use link::Agent;
use link::config::Config;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Wrong usage or configuration.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments = std::env::args_os().skip(1).map(OsString::into_string);
    let arguments: Vec<String> = match arguments.collect() {
        Ok(arguments) => arguments,
        Err(word) => {
            eprintln!("coxswain-hawkbit: {word:?} is no text; see --help");
            return ExitCode::from(USAGE);
        }
    };
    let first = arguments.first().map(String::as_str);
    if matches!(first, Some("--help" | "-h")) {
        println!("coxswain-hawkbit [--config FILE] [--SETTING VALUE]...\n");
        for setting in SETTINGS.iter().chain(link::config::SETTINGS) {
            println!(
                "  --{:<20} {} [{}]",
                setting.name, setting.doc, setting.default
            );
        }
        return ExitCode::SUCCESS;
    }
    if first == Some("--version") {
        println!("coxswain-hawkbit {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    // A variable that is no text is none of ours.
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let config = match Config::load(CLIENT, SETTINGS, &arguments, variables) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("coxswain-hawkbit: {error}");
            return ExitCode::from(USAGE);
        }
    };
    log(config.text("log-level"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(run(config)),
        Err(error) => Err(format!("no run time: {error}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("coxswain-hawkbit: {reason}");
            ExitCode::from(USAGE)
        }
    }
}

fn log(level: &str) {
    let level: LevelFilter = level.parse().unwrap_or(LevelFilter::INFO);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .log_internal_errors(false);
    let ours = Targets::new()
        .with_target("link", level)
        .with_target("hawkbit", level)
        .with_target("coxswain_hawkbit", level)
        .with_default(LevelFilter::WARN);
    tracing_subscriber::registry().with(lines).with(ours).init();
}

async fn run(config: Config) -> Result<(), String> {
    let socket = config.text("socket").to_owned();
    let device = Client::new(socket, Timeouts::default())
        .and_then(|client| client.named("coxswain-hawkbit"))
        .map_err(|error| format!("socket: {error}"))?;
    let agent = Agent::open(config, device).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        format!("{error}{}", cause.unwrap_or_default())
    })?;
    let ends = |kind| signal(kind).map_err(|error| format!("no signals: {error}"));
    let mut term = ends(SignalKind::terminate())?;
    let mut int = ends(SignalKind::interrupt())?;
    let stop = async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    };
    agent.run(Hawkbit::new(), stop).await;
    Ok(())
}
