//! Carries commands out: one call or a few, then a table, a text, or JSON.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use api::messages::pantavisor::{Action, CommandBody, Op};
use client::{Client, Events, Subject, Timeouts};
use model::metadata::MetaKind;
use model::{ContainerName, RevisionId};
use serde::Serialize;

use crate::cli::{
    Cli, Command, DeviceCommand, EventsArgs, Global, LocalCommand, MetaAction, MetaCommand, Signal,
    StepsCommand, SubjectName,
};
use crate::failure::{Exit, Failure};
use crate::terminal::{Look, clean_lines, print, print_bytes};
use crate::{claims, follow, generate, install, logs, machine, objects, plan, screen, top};

/// Where the control socket is, first one first.
const SOCKETS: [&str; 2] = ["/run/coxswain/control.sock", "/pantavisor/pv-ctrl"];
/// How long `events` without `--follow` waits for one more event that is kept.
const EVENTS_QUIET: std::time::Duration = std::time::Duration::from_millis(500);

/// What every command needs.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) look: Look,
    pub(crate) json: bool,
    /// What a person must know when the command is interrupted.
    pub(crate) interrupted: RefCell<String>,
}

impl Context {
    /// Prints a message for a program, or a text for a person.
    pub(crate) fn show<T: Serialize + ?Sized>(
        &self,
        message: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        if self.json {
            print(&json_line(message))?;
        } else {
            print(&text(message))?;
        }
        Ok(())
    }

    /// Says that something was done.
    pub(crate) fn done(&self, text: &str) -> Result<(), Failure> {
        self.show(&serde_json::json!({ "done": true }), |_| {
            format!("{text}\n")
        })
    }
}

/// One line of JSON.
pub(crate) fn json_line<T: Serialize + ?Sized>(message: &T) -> String {
    let mut line =
        serde_json::to_string(message).expect("messages are made of strings, numbers and lists");
    line.push('\n');
    line
}

/// Carries a command line out.
pub(crate) fn run(cli: Cli) -> Result<Exit, Failure> {
    match cli.command {
        Command::Local(command) => local(&cli.global, command),
        Command::Device(command) => on_device(cli.global, command),
    }
}

fn local(global: &Global, command: LocalCommand) -> Result<Exit, Failure> {
    match command {
        LocalCommand::Completions { shell } => print_bytes(&generate::completions(shell))?,
        LocalCommand::Man {
            folder: Some(folder),
        } => generate::man_pages(&folder)?,
        LocalCommand::Man { folder: None } => print_bytes(&generate::man()?)?,
        LocalCommand::Reference => print(&generate::reference())?,
        LocalCommand::Revision(command) => {
            let lines = command.run()?;
            print(&if global.json {
                json_line(&serde_json::json!({ "done": true, "lines": lines }))
            } else {
                lines.iter().map(|line| clean_lines(line) + "\n").collect()
            })?;
        }
        LocalCommand::Payload(command) => {
            let made = command.run()?;
            print(&if global.json {
                json_line(&made)
            } else {
                let lines = made.lines();
                lines.iter().map(|line| clean_lines(line) + "\n").collect()
            })?;
        }
    }
    Ok(Exit::Good)
}

fn on_device(global: Global, command: DeviceCommand) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failed, "cannot start").because(error.to_string()))?;
    let result = runtime.block_on(async {
        let mut client = Client::new(socket(global.socket), Timeouts::default())?;
        if let Some(program) = &global.program {
            client = client.named(program)?;
        }
        let context = Context {
            client,
            look: Look::new(global.color),
            json: global.json,
            interrupted: RefCell::default(),
        };
        tokio::select! {
            result = dispatch(&context, command) => result,
            _ = tokio::signal::ctrl_c() => {
                let mut failure = Failure::new(Exit::Interrupted, "interrupted");
                let hint = context.interrupted.take();
                if !hint.is_empty() {
                    failure = failure.remedy(hint);
                }
                Err(failure)
            }
        }
    });
    // A reader thread may still wait for a slow disk; nothing of it is wanted any more.
    runtime.shutdown_background();
    result
}

fn socket(given: Option<PathBuf>) -> PathBuf {
    given.unwrap_or_else(|| {
        let there = SOCKETS.iter().find(|path| Path::new(path).exists());
        there.unwrap_or(&SOCKETS[0]).into()
    })
}

async fn dispatch(context: &Context, command: DeviceCommand) -> Result<Exit, Failure> {
    let client = &context.client;
    let look = &context.look;
    match command {
        DeviceCommand::Status => {
            context.show(&client.status().await?, |status| {
                screen::status(status, look)
            })?;
        }
        DeviceCommand::Ps => {
            let status = client.status().await?;
            context.show(&status.containers, |list| screen::containers(list, look))?;
        }
        DeviceCommand::Groups => {
            let status = client.status().await?;
            context.show(&status.groups, |list| screen::groups(list, look))?;
        }
        DeviceCommand::Steps { command: None } => {
            let steps = client.revisions().await?;
            let status = if context.json {
                None
            } else {
                Some(client.status().await?)
            };
            context.show(&steps, |steps| screen::steps(steps, status.as_ref(), look))?;
        }
        DeviceCommand::Steps {
            command: Some(StepsCommand::Show { revision }),
        } => {
            print_bytes(&client.manifest(revision.as_ref()).await?)?;
        }
        DeviceCommand::Steps {
            command: Some(StepsCommand::Progress(args)),
        }
        | DeviceCommand::Progress(args) => return follow::progress(context, args).await,
        DeviceCommand::Objects { command } => objects::objects(context, command).await?,
        DeviceCommand::Install(args) => return install::install(context, args).await,
        DeviceCommand::Plan { what } => plan::plan(context, what).await?,
        DeviceCommand::Run(args) => return follow::run(context, args).await,
        DeviceCommand::Rollback(args) => return follow::roll_back(context, args).await,
        DeviceCommand::Logs(args) => logs::logs(context, args).await?,
        DeviceCommand::Top(args) => top::top(context, args).await?,
        DeviceCommand::Metrics => print(&client.metrics().await?)?,
        DeviceCommand::Events(args) => events(context, args).await?,
        DeviceCommand::Why { subject } => {
            let subject = match &subject {
                None => Subject::Device,
                Some(SubjectName::Container(name)) => Subject::Container(name),
                Some(SubjectName::Revision(name)) => Subject::Revision(name),
            };
            context.show(&client.why(subject).await?, |why| screen::why(why, look))?;
        }
        DeviceCommand::Failures { id: None } => {
            context.show(&client.failures().await?, |list| {
                screen::failures(list, look)
            })?;
        }
        DeviceCommand::Failures { id: Some(id) } => {
            context.show(&client.failure(id).await?, |failure| {
                screen::failure(failure, look)
            })?;
        }
        DeviceCommand::Claims { command } => claims::claims(context, command).await?,
        DeviceCommand::Uploads => objects::uploads(context).await?,
        DeviceCommand::Drivers { command } => machine::drivers(context, command).await?,
        DeviceCommand::Daemons { command } => machine::daemons(context, command).await?,
        DeviceCommand::Wakelocks => machine::wakelocks(context).await?,
        DeviceCommand::Meta(command) => meta(context, command).await?,
        DeviceCommand::Gc => {
            let reclaimed = client.collect().await?;
            let message = api::messages::pantavisor::Reclaimed { reclaimed };
            context.show(&message, |_| {
                format!("freed {}\n", crate::units::bytes(reclaimed))
            })?;
        }
        DeviceCommand::Start(args) => control(context, &args.container, Action::Start).await?,
        DeviceCommand::Stop(args) => control(context, &args.container, Action::Stop).await?,
        DeviceCommand::Restart(args) => control(context, &args.container, Action::Restart).await?,
        DeviceCommand::Config => {
            context.show(&client.configuration().await?, |list| {
                screen::config(list, look)
            })?;
        }
        DeviceCommand::Reboot(args) => {
            client
                .command(&CommandBody::new(Op::RebootDevice, &args.message))
                .await?;
            context.done("the device restarts")?;
        }
        DeviceCommand::Poweroff(args) => {
            client
                .command(&CommandBody::new(Op::PoweroffDevice, &args.message))
                .await?;
            context.done("the device switches itself off")?;
        }
        DeviceCommand::MakeFactory { revision } => {
            let name = revision.as_ref().map_or("", RevisionId::as_str);
            client
                .command(&CommandBody::new(Op::MakeFactory, name))
                .await?;
            let name = revision
                .as_ref()
                .map_or("the running revision", RevisionId::as_str);
            context.done(&format!("{name} becomes revision 0"))?;
        }
        DeviceCommand::FactoryReset { wipe_volumes } => {
            let (payload, volumes) = match wipe_volumes {
                true => ("wipe-volumes", "wiped"),
                false => ("keep-volumes", "kept"),
            };
            client
                .command(&CommandBody::new(Op::FactoryReset, payload))
                .await?;
            context.done(&format!(
                "the device goes back to revision 0; volumes are {volumes}"
            ))?;
        }
        DeviceCommand::Delete { revision } => {
            client.delete_revision(&revision).await?;
            context.done(&format!(
                "removed {revision}; `coxctl gc` frees its objects"
            ))?;
        }
        DeviceCommand::Signal {
            signal: Signal::Ready,
        } => {
            client.signal_ready().await?;
            context.done("told that this container is ready")?;
        }
    }
    Ok(Exit::Good)
}

async fn control(
    context: &Context,
    container: &ContainerName,
    action: Action,
) -> Result<(), Failure> {
    context.client.control(container, action).await?;
    let done = match action {
        Action::Start => "started",
        Action::Stop => "stopped",
        Action::Restart => "restarted",
    };
    context.done(&format!("{container} is being {done}"))
}

async fn meta(context: &Context, command: MetaCommand) -> Result<(), Failure> {
    let client = &context.client;
    let (kind, action) = match command {
        MetaCommand::User(action) => (MetaKind::User, action),
        MetaCommand::Device(action) => (MetaKind::Device, action),
    };
    match action {
        MetaAction::Ls => {
            let map = client.metadata(kind).await?;
            context.show(&map, |map| screen::metadata(map, &context.look))
        }
        MetaAction::Get { key } => {
            let mut map = client.metadata(kind).await?;
            let value = map.remove(key.as_str()).ok_or_else(|| {
                let what = format!("there is no key {:?}", key.as_str());
                Failure::new(Exit::NotFound, what)
                    .remedy("see `coxctl meta user ls` and `coxctl meta device ls`")
            })?;
            context.show(&value, |value| {
                clean_lines(&screen::metadata_value(value)) + "\n"
            })
        }
        MetaAction::Set { key, value } => {
            client.put_metadata(kind, &key, value.into()).await?;
            context.done(&format!("set {}", key.as_str()))
        }
        MetaAction::Rm { key } => {
            client.delete_metadata(kind, &key).await?;
            context.done(&format!("removed {}", key.as_str()))
        }
    }
}

async fn events(context: &Context, args: EventsArgs) -> Result<(), Failure> {
    let since = args
        .since
        .or_else(|| (!args.follow).then(|| "0".to_owned()));
    let mut events: Events = context.client.events(since, None).await?;
    loop {
        let event = if args.follow {
            events.next().await?
        } else {
            match tokio::time::timeout(EVENTS_QUIET, events.next()).await {
                Ok(event) => event?,
                Err(_) => return Ok(()),
            }
        };
        context.show(&event, |event| screen::event(event, &context.look))?;
    }
}
