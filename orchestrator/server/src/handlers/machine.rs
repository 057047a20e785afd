//! The machine below: drivers of the caller's container, daemons of the host, what Pantavisor has beside them.

use std::sync::Arc;

use api::messages::pantavisor::{Driver, DriverKind, DriverStatus, Wakelocks};
use api::{Code, Problem, call};
use model::Manifest;
use model::manifest::{self, Need};

use super::{Asked, to_json};
use crate::callers::Caller;
use crate::http1::answer::Answer;
use crate::machine::Machine;
use crate::refusal;

/// Drivers that the caller's container names; the host names none.
async fn drivers(asked: &Asked<'_, '_>) -> Result<Vec<manifest::Driver>, Problem> {
    let container = match asked.caller {
        Caller::Container(container) => container.clone(),
        Caller::Host { .. } | Caller::Unknown => return Ok(Vec::new()),
    };
    let Some(revision) = asked.view()?.running.clone() else {
        return Ok(Vec::new());
    };
    let manifest = asked.read(move |storage| storage.manifest(&revision));
    let Some(bytes) = manifest.await? else {
        return Ok(Vec::new());
    };
    let manifest = Manifest::parse(&bytes).map_err(|rejected| refusal::bad_manifest(&rejected))?;
    Ok(manifest.drivers(&container))
}

pub(super) async fn list_drivers(asked: &Asked<'_, '_>) -> Result<Answer, Problem> {
    let drivers = drivers(asked).await?;
    if drivers.is_empty() {
        return Ok(Answer::json("{}"));
    }
    let listed = asked
        .machine(move |machine| {
            let listed = drivers.into_iter().map(|driver| Driver {
                kind: match driver.need {
                    Need::Required => DriverKind::Required,
                    Need::Optional => DriverKind::Optional,
                    Need::Manual => DriverKind::Manual,
                },
                status: match machine.is_loaded(&driver) {
                    Some(true) => DriverStatus::Loaded,
                    Some(false) => DriverStatus::Unloaded,
                    None => DriverStatus::Unknown,
                },
                name: driver.name,
            });
            listed.collect::<Vec<_>>()
        })
        .await?;
    Ok(to_json(&listed))
}

/// A name that the container does not have is no error: as recorded, there is nothing to load then.
pub(super) async fn drive(
    asked: &Asked<'_, '_>,
    name: Option<String>,
    load: bool,
) -> Result<Answer, Problem> {
    let mut drivers = drivers(asked).await?;
    let all = name.is_none();
    if let Some(name) = name {
        drivers.retain(|driver| driver.name == name);
    }
    let failed = asked
        .machine(move |machine| {
            let drive = |driver: &manifest::Driver| {
                if load {
                    machine.load(driver).err()
                } else {
                    machine.unload(driver);
                    None
                }
            };
            drivers.iter().filter_map(drive).collect::<Vec<_>>()
        })
        .await?;
    if failed.is_empty() {
        return Ok(Answer::done());
    }
    let problem = Problem::new(Code::DriverFailed, failed.join("; "))
        .remedy("see that the module is below /lib/modules, and the kernel's log (dmesg)");
    Err(if all {
        problem.pantavisor("Error loading drivers")
    } else {
        problem
    })
}

pub(super) async fn daemons(asked: &Asked<'_, '_>) -> Result<Answer, Problem> {
    let daemons = asked.machine(|machine| machine.daemons()).await?;
    Ok(to_json(&daemons))
}

/// The checks run in Pantavisor's order: name, body.
pub(super) async fn control_daemon(
    asked: &mut Asked<'_, '_>,
    daemon: String,
) -> Result<Answer, Problem> {
    let known = asked.machine(|machine| machine.daemons()).await?;
    let missing = || {
        let remedy = "see GET /daemons for those there are";
        Problem::new(Code::NoSuchDaemon, "there is no daemon of this name").remedy(remedy)
    };
    if known.iter().all(|known| known.name != daemon) {
        return Err(missing());
    }
    let body = asked.whole_body().await?;
    if body.is_empty() {
        return Err(Problem::new(Code::NoAction, "there is no body").pantavisor("No data"));
    }
    let action = call::parse_daemon_action(&body)?;
    let done = asked.machine(move |machine| machine.control_daemon(&daemon, action));
    match done.await? {
        Some(Ok(())) => Ok(Answer::done()),
        Some(Err(error)) => Err(Problem::new(Code::DaemonFailed, error)),
        None => Err(missing()),
    }
}

/// Pantavisor's answer of a build without it: containers here reach each other over networks and shared volumes.
pub(super) fn connections() -> Problem {
    Problem::new(
        Code::NoXconnect,
        "the orchestrator does not connect services of containers",
    )
    .remedy("share a volume or a network between the containers")
}

/// The orchestrator neither suspends the machine nor keeps it awake.
pub(super) fn wakelocks() -> Answer {
    to_json(&Wakelocks {
        mode: "disabled".to_owned(),
        ..Wakelocks::default()
    })
}

impl Asked<'_, '_> {
    /// Asks the machine, on a thread that may wait.
    pub(super) async fn machine<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Machine) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let machine = Arc::clone(&self.shared.machine);
        tokio::task::spawn_blocking(move || work(machine.as_ref()))
            .await
            .map_err(|_| Problem::new(Code::Internal, "the work on the machine was cut off"))
    }
}
