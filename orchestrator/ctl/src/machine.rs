//! `coxctl drivers`, `daemons` and `wakelocks`: the machine below the containers.

use api::messages::pantavisor::{
    Daemon, DaemonAction, DriverKind, DriverStatus, Drivers, HeldWakelocks, Wakelocks,
};

use crate::cli::{DaemonsCommand, DriversCommand};
use crate::commands::Context;
use crate::failure::Failure;
use crate::table::{Table, cell, number, text};
use crate::terminal::{Look, clean};

pub(crate) async fn drivers(
    context: &Context,
    command: Option<DriversCommand>,
) -> Result<(), Failure> {
    let client = &context.client;
    let (driver, load) = match &command {
        None => {
            return context.show(&client.drivers().await?, |drivers| {
                drivers_table(drivers, &context.look)
            });
        }
        Some(DriversCommand::Load { driver }) => (driver.as_deref(), true),
        Some(DriversCommand::Unload { driver }) => (driver.as_deref(), false),
    };
    client.drive(driver, load).await?;
    let what = driver.map_or_else(|| "all drivers".to_owned(), clean);
    let done = if load { "loaded" } else { "unloaded" };
    context.done(&format!("{done} {what}"))
}

pub(crate) async fn daemons(
    context: &Context,
    command: Option<DaemonsCommand>,
) -> Result<(), Failure> {
    let client = &context.client;
    let (daemon, action) = match command {
        None => {
            return context.show(&client.daemons().await?, |daemons| {
                daemons_table(daemons, &context.look)
            });
        }
        Some(DaemonsCommand::Start { daemon }) => (daemon, DaemonAction::Start),
        Some(DaemonsCommand::Stop { daemon }) => (daemon, DaemonAction::Stop),
    };
    client.control_daemon(&daemon, action).await?;
    let done = match action {
        DaemonAction::Start => "started",
        DaemonAction::Stop => "stopped",
    };
    context.done(&format!("{} is being {done}", clean(&daemon)))
}

pub(crate) async fn wakelocks(context: &Context) -> Result<(), Failure> {
    context.show(&context.client.wakelocks().await?, wakelocks_text)
}

fn drivers_table(drivers: &Drivers, look: &Look) -> String {
    let list = match drivers {
        Drivers::Listed(list) => list.as_slice(),
        Drivers::None {} => &[],
    };
    let mut table = Table::new(&[text("DRIVER"), text("LOADED WHEN"), text("STATUS")]);
    for driver in list {
        let when = match driver.kind {
            DriverKind::Required => "its container starts; needed",
            DriverKind::Optional => "its container starts; not needed",
            DriverKind::Manual => "somebody asks",
        };
        let status = match driver.status {
            DriverStatus::Loaded => "loaded",
            DriverStatus::Unloaded => "not loaded",
            DriverStatus::Unknown => "not in bsp/drivers.json",
        };
        table.row([cell(&driver.name), cell(when), cell(status)]);
    }
    if table.is_empty() {
        return "no drivers: the container in which this runs names none in its run.json\n"
            .to_owned();
    }
    table.render(look)
}

fn daemons_table(daemons: &[Daemon], look: &Look) -> String {
    let mut table = Table::new(&[text("DAEMON"), number("PID"), text("STATUS")]);
    for daemon in daemons {
        let (pid, status) = match (daemon.pid, daemon.respawn) {
            (1.., true) => (cell(daemon.pid), "runs"),
            (1.., false) => (cell(daemon.pid), "runs, and is not started again"),
            (..=0, true) => (cell(""), "ended; is being started again"),
            (0, false) => (cell(""), "was never started"),
            (..0, false) => (cell(""), "stopped"),
        };
        table.row([cell(&daemon.name), pid, cell(status)]);
    }
    if table.is_empty() {
        return "no daemons\n".to_owned();
    }
    table.render(look)
}

fn wakelocks_text(locks: &Wakelocks) -> String {
    let HeldWakelocks {
        boot,
        update,
        update_check,
        devmeta,
        usrmeta,
        shutdown,
        debug_shell,
        poll,
    } = locks.held;
    let held = [
        (boot, "start"),
        (update, "update"),
        (update_check, "question for updates"),
        (devmeta, "device metadata"),
        (usrmeta, "user metadata"),
        (shutdown, "shutdown"),
        (debug_shell, "debug shell"),
        (poll, "question to a cloud"),
    ];
    let held: Vec<_> = held.iter().filter(|(held, _)| *held).collect();
    let mut text = format!("mode {}", clean(&locks.mode));
    if held.is_empty() {
        text.push_str("; nothing is held");
    } else {
        let names: Vec<_> = held.iter().map(|(_, name)| *name).collect();
        text.push_str(&format!("; held: {}", names.join(", ")));
    }
    if locks.degraded {
        text.push_str("; the kernel lacks what this mode needs");
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use api::messages::pantavisor::Driver;

    use super::*;
    use crate::terminal::Colour;

    #[test]
    fn tables() {
        let look = Look::new(Colour::Never);
        let driver = |name: &str, kind, status| Driver {
            name: name.to_owned(),
            kind,
            status,
        };
        let list = Drivers::Listed(vec![
            driver("wifi", DriverKind::Required, DriverStatus::Loaded),
            driver("bluetooth", DriverKind::Manual, DriverStatus::Unloaded),
            driver("radio", DriverKind::Optional, DriverStatus::Unknown),
        ]);
        expect_test::expect![[r#"
            DRIVER     LOADED WHEN                       STATUS
            wifi       its container starts; needed      loaded
            bluetooth  somebody asks                     not loaded
            radio      its container starts; not needed  not in bsp/drivers.json
        "#]]
        .assert_eq(&drivers_table(&list, &look));
        assert!(drivers_table(&Drivers::None {}, &look).starts_with("no drivers"));
        let daemon = |name: &str, pid, respawn| Daemon {
            name: name.to_owned(),
            pid,
            respawn,
        };
        let list = [
            daemon("containerd", 812, true),
            daemon("once", 813, false),
            daemon("again", -1, true),
            daemon("never", 0, false),
            daemon("stopped", -1, false),
        ];
        expect_test::expect![[r#"
            DAEMON      PID  STATUS
            containerd  812  runs
            once        813  runs, and is not started again
            again            ended; is being started again
            never            was never started
            stopped          stopped
        "#]]
        .assert_eq(&daemons_table(&list, &look));
        let mut locks = Wakelocks {
            mode: "disabled".to_owned(),
            ..Wakelocks::default()
        };
        assert_eq!(wakelocks_text(&locks), "mode disabled; nothing is held\n");
        locks.held.update = true;
        locks.degraded = true;
        assert_eq!(
            wakelocks_text(&locks),
            "mode disabled; held: update; the kernel lacks what this mode needs\n"
        );
    }
}
