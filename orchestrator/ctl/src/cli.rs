//! The command line as types. The reference page, the man pages and the shell completions are made from it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use model::claim::Part;
use model::log::Level;
use model::metadata::MetaKey;
use model::{ContainerName, ObjectId, RevisionId};

use crate::failure::exit_help;
use crate::terminal::Colour;

/// Operate a device that runs Coxswain.
#[derive(Debug, Parser)]
#[command(
    name = "coxctl",
    version,
    after_help = exit_help(),
    arg_required_else_help = true,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command understands.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Control socket of the orchestrator [default: /run/coxswain/control.sock, then
    /// /pantavisor/pv-ctrl].
    #[arg(
        long,
        global = true,
        env = "COXSWAIN_SOCKET",
        value_name = "PATH",
        hide_env_values = true
    )]
    pub(crate) socket: Option<PathBuf>,
    /// Print JSON for programs: the messages of the control socket's reference. Errors are one
    /// line of JSON on standard error.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Ask in the name of this program, on whose claims the answer depends; without it as a person.
    #[arg(
        long = "as",
        global = true,
        env = "COXSWAIN_CLIENT",
        value_name = "PROGRAM",
        hide_env_values = true
    )]
    pub(crate) program: Option<String>,
    /// When to use colours.
    #[arg(long, global = true, value_enum, default_value_t = Colour::Auto, value_name = "WHEN")]
    pub(crate) color: Colour,
}

/// What can be asked for.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    Device(DeviceCommand),
    #[command(flatten)]
    Local(LocalCommand),
}

/// What is asked of a device.
#[derive(Debug, Subcommand)]
pub(crate) enum DeviceCommand {
    /// Show the whole device on one screen.
    Status,
    /// List the containers of the running revision.
    Ps,
    /// List the groups of the running revision.
    Groups,
    /// List revisions, or look at one.
    #[command(visible_alias = "revisions")]
    Steps {
        #[command(subcommand)]
        command: Option<StepsCommand>,
    },
    /// List objects, fetch or remove one.
    Objects {
        #[command(subcommand)]
        command: Option<ObjectsCommand>,
    },
    /// Upload a revision from a bundle or a folder; run it with --run.
    ///
    /// FILE is a bundle (.tgz with `json` and `objects/`); a folder holds `manifest.json` (or
    /// `json`) and `objects/`. Only objects that the device does not have are uploaded; an upload
    /// that was interrupted goes on where it ended.
    Install(InstallArgs),
    /// Tell what running a revision would do, without doing any of it.
    ///
    /// What is named is a revision on the device, a bundle (.tgz), a folder with `manifest.json` and
    /// `objects/`, or a file with a manifest alone. A file or folder of that name comes first.
    Plan {
        /// Revision, bundle, folder or manifest.
        #[arg(value_name = "REVISION|FILE|DIR")]
        what: PathBuf,
    },
    /// Run a revision: try it, commit it when it holds its goals, else roll it back.
    Run(RunArgs),
    /// Give up the running trial, or go back to the revision that was committed before.
    Rollback(WaitArgs),
    /// Show the progress of a revision.
    Progress(ProgressArgs),
    /// Show what containers wrote.
    Logs(LogsArgs),
    /// Show what containers use, again and again; once when the output is no terminal.
    Top(TopArgs),
    /// Print the figures for monitors, in the OpenMetrics format.
    Metrics,
    /// Show what happened on the device.
    Events(EventsArgs),
    /// Explain in words why the device, a container, a group or a revision is where it is.
    Why {
        /// Container, group or revision; the device when not given.
        subject: Option<SubjectName>,
    },
    /// List failures, or show the record of one.
    Failures {
        /// Number of the record.
        id: Option<u64>,
    },
    /// List what clients have claimed of the device; claim, renew, release.
    Claims {
        #[command(subcommand)]
        command: Option<ClaimsCommand>,
    },
    /// List uploads of objects under way, and those that can be resumed.
    Uploads,
    /// List the drivers of the container in which this runs; load or unload them.
    Drivers {
        #[command(subcommand)]
        command: Option<DriversCommand>,
    },
    /// List the daemons that the orchestrator runs on the host; start or stop one.
    Daemons {
        #[command(subcommand)]
        command: Option<DaemonsCommand>,
    },
    /// Show what keeps the machine from suspending.
    Wakelocks,
    /// Read and change metadata.
    #[command(subcommand)]
    Meta(MetaCommand),
    /// Remove what no revision needs, now.
    Gc,
    /// Start a container.
    Start(ContainerArg),
    /// Stop a container and keep it stopped.
    Stop(ContainerArg),
    /// Restart a container.
    Restart(ContainerArg),
    /// Show the configuration and where each value comes from.
    Config,
    /// Restart the device.
    Reboot(PowerArgs),
    /// Switch the device off.
    Poweroff(PowerArgs),
    /// Make a revision revision 0, which a factory reset returns to.
    MakeFactory {
        /// The revision; the running one when not given.
        revision: Option<RevisionId>,
    },
    /// Go back to revision 0 and remove every other one. Everything is stopped for it; it is done even if the power is cut.
    FactoryReset {
        /// Remove volumes, metadata, logs and failure records too: all that was written since the device left the factory.
        #[arg(long)]
        wipe_volumes: bool,
    },
    /// Remove a revision.
    Delete {
        /// The revision.
        revision: RevisionId,
    },
    /// Send a signal as the container in which this runs.
    Signal {
        /// The signal.
        signal: Signal,
    },
}

/// What needs no device.
#[derive(Debug, Subcommand)]
pub(crate) enum LocalCommand {
    /// Make a revision on this machine: containers from folders or OCI images, bundles to install.
    #[command(subcommand)]
    Revision(crate::author::RevisionCommand),
    /// Make what is uploaded to a cloud, in one of the forms that every cloud client understands.
    #[command(subcommand)]
    Payload(crate::author::PayloadCommand),
    /// Print the completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write all pages into a folder.
    Man {
        /// The folder; made when it does not exist.
        folder: Option<PathBuf>,
    },
    /// Print the reference of the command line as Markdown.
    #[command(hide = true)]
    Reference,
}

/// What can be done with revisions.
#[derive(Debug, Subcommand)]
pub(crate) enum StepsCommand {
    /// Print the manifest of a revision, byte for byte.
    Show {
        /// The revision; the running one when not given.
        revision: Option<RevisionId>,
    },
    /// Show the progress of a revision.
    Progress(ProgressArgs),
}

/// What can be done with objects.
#[derive(Debug, Subcommand)]
pub(crate) enum ObjectsCommand {
    /// Fetch an object.
    Get {
        /// Its SHA-256.
        object: ObjectId,
        /// Write it here instead of to standard output.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Remove an object that no revision needs.
    Rm {
        /// Its SHA-256.
        object: ObjectId,
    },
}

/// What can be done with claims.
#[derive(Debug, Subcommand)]
pub(crate) enum ClaimsCommand {
    /// Claim parts of the device: nobody else changes them as long as the lease is renewed.
    Take {
        /// `*`, `bsp`, `container:NAME` or `group:NAME`.
        #[arg(required = true, value_name = "PART")]
        parts: Vec<Part>,
        /// 0 to 1000; the higher one has its way [default: 100].
        #[arg(long, value_name = "N")]
        priority: Option<u64>,
        /// How long it holds without being renewed, 5 to 86400 [default: 300].
        #[arg(long, value_name = "SECONDS")]
        lease: Option<u64>,
    },
    /// Let the lease of a claim begin anew.
    Renew {
        /// Number of the claim.
        id: u64,
        /// Its length from now on; as before when not given.
        #[arg(long, value_name = "SECONDS")]
        lease: Option<u64>,
    },
    /// End a claim; as root of the host, without --as, any claim.
    Release {
        /// Number of the claim.
        id: u64,
    },
}

/// What can be done with drivers.
#[derive(Debug, Subcommand)]
pub(crate) enum DriversCommand {
    /// Load a driver, or all.
    Load {
        /// Its name in the container's run.json; all of them when not given.
        driver: Option<String>,
    },
    /// Unload a driver, or all.
    Unload {
        /// Its name in the container's run.json; all of them when not given.
        driver: Option<String>,
    },
}

/// What can be done with daemons.
#[derive(Debug, Subcommand)]
pub(crate) enum DaemonsCommand {
    /// Start a daemon, and again whenever it ends.
    Start {
        /// Its name.
        daemon: String,
    },
    /// Ask a daemon to end, and do not start it again.
    Stop {
        /// Its name.
        daemon: String,
    },
}

/// How to wait for a result.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct WaitArgs {
    /// Wait until it is committed or rolled back; the exit code tells which.
    #[arg(long)]
    pub(crate) wait: bool,
    /// Seconds after which waiting ends; the device goes on.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 1800,
        requires = "wait"
    )]
    pub(crate) timeout: u64,
}

/// What to install, and how.
#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    /// Bundle or folder.
    #[arg(value_name = "FILE|DIR")]
    pub(crate) source: PathBuf,
    /// Name of the revision [default: locals/ and the first 12 digits of the manifest's SHA-256].
    #[arg(long, value_name = "REVISION")]
    pub(crate) name: Option<RevisionId>,
    /// Commit message, shown by `coxctl steps`.
    #[arg(short, long, value_name = "TEXT")]
    pub(crate) message: Option<String>,
    /// Run it when it is installed.
    #[arg(long)]
    pub(crate) run: bool,
    /// With --run: also when the same manifest failed before.
    #[arg(long, requires = "run")]
    pub(crate) again: bool,
    /// With --run: wait until it is committed or rolled back; the exit code tells which.
    #[arg(long, requires = "run")]
    pub(crate) wait: bool,
    /// Seconds after which waiting ends; the device goes on.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 1800,
        requires = "wait"
    )]
    pub(crate) timeout: u64,
}

/// What to run.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The revision.
    pub(crate) revision: RevisionId,
    /// Also when the same manifest failed before.
    #[arg(long)]
    pub(crate) again: bool,
    /// Only without a restart of the machine: refused when its changes need one.
    #[arg(long)]
    pub(crate) in_place: bool,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// Whose progress.
#[derive(Debug, Args)]
pub(crate) struct ProgressArgs {
    /// The revision.
    pub(crate) revision: RevisionId,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// Which lines.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The container; all containers, each line with its name, when not given.
    pub(crate) container: Option<ContainerName>,
    /// Go on with what is written from now on.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Lines from the end, at most 10000 [default: 100].
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=10_000))]
    pub(crate) lines: Option<u32>,
    /// Of this revision; where the container wrote last when not given.
    #[arg(long, value_name = "REVISION")]
    pub(crate) revision: Option<RevisionId>,
    /// From then on: a time (2026-11-21T10:20:30Z), or how long ago (90s, 10min, 2h, 7d).
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub(crate) since: Option<String>,
    /// This level and worse ones: fatal, error, warn, info, debug.
    #[arg(long, value_name = "LEVEL", value_parser = level)]
    pub(crate) level: Option<Level>,
    /// Show time, level and source before each line.
    #[arg(short, long)]
    pub(crate) times: bool,
}

fn level(text: &str) -> Result<Level, String> {
    let level = text.parse();
    level.map_err(|()| "use fatal, error, warn, info or debug".to_owned())
}

/// Checked here so that a mistyped one is told at once; read against the device's clock.
fn since(text: &str) -> Result<String, String> {
    match model::log::parse_since(text, model::WallTime(u64::MAX)) {
        Some(_) => Ok(text.to_owned()),
        None => Err("use a time such as 2026-11-21T10:20:30Z, or 90s, 10min, 2h, 7d".to_owned()),
    }
}

/// How often.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct TopArgs {
    /// Seconds between two looks, 1 to 3600.
    #[arg(short = 'd', long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) delay: u64,
    /// Show it once and end.
    #[arg(long)]
    pub(crate) once: bool,
}

/// Which events.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Go on with what happens from now on.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only events after this one [default: all that are kept; with --follow only new ones].
    #[arg(long, value_name = "ID")]
    pub(crate) since: Option<String>,
}

/// Which container.
#[derive(Debug, Args)]
pub(crate) struct ContainerArg {
    /// The container.
    pub(crate) container: ContainerName,
}

/// Why the device goes down.
#[derive(Debug, Args)]
pub(crate) struct PowerArgs {
    /// Message for the log.
    #[arg(default_value = "")]
    pub(crate) message: String,
}

/// Which metadata.
#[derive(Debug, Subcommand)]
pub(crate) enum MetaCommand {
    /// Metadata set by whoever owns the device.
    #[command(subcommand)]
    User(MetaAction),
    /// Metadata told by the device.
    #[command(subcommand)]
    Device(MetaAction),
}

/// What to do with metadata.
#[derive(Debug, Subcommand)]
pub(crate) enum MetaAction {
    /// List all keys and values.
    Ls,
    /// Print one value.
    Get {
        /// Key.
        key: MetaKey,
    },
    /// Set a value.
    Set {
        /// Key.
        key: MetaKey,
        /// Value, at most 4096 bytes.
        value: String,
    },
    /// Remove a key.
    Rm {
        /// Key.
        key: MetaKey,
    },
}

/// Signals.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Signal {
    /// The container has reached its goal READY.
    Ready,
}

/// Something that `why` can be asked about.
#[derive(Debug, Clone)]
pub(crate) enum SubjectName {
    Revision(RevisionId),
    Container(ContainerName),
}

impl std::str::FromStr for SubjectName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(revision) = text.parse() {
            return Ok(Self::Revision(revision));
        }
        text.parse().map(Self::Container).map_err(|_| {
            "neither a revision (\"5\", \"locals/x\") nor the name of a container".to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn lines_that_are_understood() {
        for line in [
            "status",
            "--json --socket /x status",
            "ps --json --color never",
            "steps",
            "steps show",
            "steps show locals/x",
            "steps progress 5 --wait",
            "objects",
            "install x.tgz",
            "install dir --name locals/x -m text --run --again --wait --timeout 5",
            "run locals/x --wait",
            "run 0 --again",
            "rollback",
            "logs",
            "logs web -f -n 5 --revision locals/x",
            "events -f --since 1-2",
            "why",
            "why web",
            "why locals/x",
            "failures",
            "failures 3",
            "claims",
            "claims take bsp container:web group:app --priority 5 --lease 60",
            "claims take * --as hawkbit",
            "claims renew 3 --lease 60",
            "claims release 3",
            "meta user ls",
            "meta device set key value",
            "gc",
            "start web",
            "reboot",
            "reboot for_a_reason",
            "make-factory",
            "make-factory 5",
            "factory-reset",
            "factory-reset --wipe-volumes",
            "delete locals/x",
            "signal ready",
            "payload bundle dir out.tar",
            "payload separate dir out --base old.tgz",
            "payload patch dir out --container web --remove old",
            "payload patch dir out --base old",
            "payload plain dir out web --name root.squashfs",
            "completions bash",
            "man",
        ] {
            let words = std::iter::once("coxctl").chain(line.split(' '));
            if let Err(error) = Cli::try_parse_from(words) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn lines_that_are_not_understood() {
        for line in [
            "",
            "stat",
            "run",
            "run ../x",
            "run locals/a/b",
            "run locals/x --timeout 5",
            "install",
            "install x --wait",
            "install x --again",
            "install x --name x",
            "logs a/b",
            "logs web -n 10001",
            "logs web -n -1",
            "failures x",
            "claims take",
            "claims take web",
            "claims renew",
            "claims release x",
            "payload patch dir",
            "payload plain dir out a/b",
            "meta user get",
            "meta user get a/b",
            "meta other ls",
            "signal alive",
            "objects get abc",
            "status --color sometimes",
            "delete",
        ] {
            let words = std::iter::once("coxctl").chain(line.split(' ').filter(|w| !w.is_empty()));
            let error = Cli::try_parse_from(words).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
