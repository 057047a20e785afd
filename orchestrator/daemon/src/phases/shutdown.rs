//! From the end of the device to the end of the machine. Nothing here may keep the machine from ending: each phase goes on.

use std::path::Path;
use std::time::{Duration, Instant};

use linux::ending::{self, Safe};
use linux::{children, process};

use super::{Done, Failure, Limit, Phase, Time};
use crate::init::{Init, Last};
use crate::kept;

/// In order.
pub(crate) const SHUTDOWN: &[Phase<Init>] = &[
    phase("watchdog", 5, watchdog),
    phase("processes", 10, processes),
    phase("clock and seed", 10, keep),
    phase("file systems", 30, file_systems),
    phase("emergency", 10, emergency),
];

const fn phase(
    name: &'static str,
    seconds: u64,
    run: fn(&mut Init, &Limit) -> Result<Done, String>,
) -> Phase<Init> {
    Phase {
        name,
        time: Time::Seconds(seconds),
        failure: Failure::GoOn,
        run,
    }
}

/// Time that processes get to end by themselves; containers were stopped before.
const GENTLE: Duration = Duration::from_secs(3);
const TURN: Duration = Duration::from_millis(20);
/// A file of this boot only: what the firmware is told with a restart.
const REBOOT_ARGUMENT: &str = "reboot-param";
const ARGUMENT_BYTES_MAX: usize = 256;

/// A shutdown that hangs is a machine that is gone: whatever the mode, but disabled, the watchdog sees to its end.
fn watchdog(init: &mut Init, _: &Limit) -> Result<Done, String> {
    if let Some(watchdog) = &init.watchdog {
        // The device may have stopped it.
        watchdog.start();
        return Ok(Done::Yes);
    }
    if init.config.text("watchdog") == "disabled" {
        return Ok(Done::Skipped);
    }
    super::boot::arm(init)
}

fn processes(init: &mut Init, limit: &Limit) -> Result<Done, String> {
    ending::signal_all(false);
    let gentle = Instant::now() + GENTLE;
    if wait_until_alone(init, || Instant::now() >= gentle || limit.is_over()) {
        return Ok(Done::Yes);
    }
    let left = left_over();
    ending::signal_all(true);
    if wait_until_alone(init, || limit.is_over()) {
        return Ok(Done::Told(format!("killed {}", left.join(", "))));
    }
    Err(format!(
        "still there after SIGKILL: {}",
        left_over().join(", ")
    ))
}

fn wait_until_alone(init: &mut Init, is_over: impl Fn() -> bool) -> bool {
    use super::Subject as _;
    loop {
        while children::reap().is_some() {}
        if left_over().is_empty() {
            return true;
        }
        if is_over() {
            return false;
        }
        init.kick();
        std::thread::sleep(TURN);
    }
}

/// Programs that run beside us.
fn left_over() -> Vec<String> {
    let us = std::process::id();
    let others = process::programs();
    let others = others.iter().filter(|(pid, _)| *pid != us);
    others
        .map(|(pid, name)| format!("{name} ({pid})"))
        .collect()
}

fn keep(init: &mut Init, limit: &Limit) -> Result<Done, String> {
    if !init.has_storage() {
        return Ok(Done::Skipped);
    }
    let storage = init.config.path("storage");
    limit.run(init, move || {
        let failed = |what: &'static str| {
            move |error: std::io::Error| format!("cannot keep {what} for the next boot: {error}")
        };
        kept::keep_time(&storage).map_err(failed("the time"))?;
        kept::keep_seed(&storage).map_err(failed("a seed"))?;
        Ok(String::new())
    })?;
    Ok(Done::Yes)
}

fn file_systems(init: &mut Init, limit: &Limit) -> Result<Done, String> {
    // Read while the folder is still there.
    init.argument = argument(&init.config.path("run-dir").join(REBOOT_ARGUMENT));
    let said = limit.run(init, || {
        let mut said = Vec::new();
        for target in ending::mounts_to_end() {
            match ending::make_safe(&target) {
                Ok(Safe::Unmounted) => {}
                Ok(Safe::ReadOnly) => {
                    said.push(format!("{} is held by something", target.display()))
                }
                Err(error) => said.push(format!("{}: {error}", target.display())),
            }
        }
        if let Err(error) = ending::make_root_safe() {
            said.push(format!("the root cannot be made read-only: {error}"));
        }
        Ok(said.join("; "))
    })?;
    if said.is_empty() {
        init.is_safe = true;
        Ok(Done::Yes)
    } else {
        Err(format!("not everything could be unmounted: {said}"))
    }
}

fn argument(file: &Path) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let is_short = (1..=ARGUMENT_BYTES_MAX).contains(&text.len());
    is_short.then_some(text)
}

/// The kernel's own way to make everything read-only, when ours failed.
fn emergency(init: &mut Init, limit: &Limit) -> Result<Done, String> {
    if init.is_safe {
        return Ok(Done::Skipped);
    }
    let frozen = limit.run(init, || {
        ending::sync();
        ending::freeze_all().map_err(|error| error.to_string())?;
        Ok(String::new())
    });
    frozen.map_err(|error| format!("cannot make file systems read-only by force: {error}"))?;
    Ok(Done::Told(
        "everything that was left is read-only by force".to_owned(),
    ))
}

/// What the kernel is asked for at last.
pub(crate) fn last(init: &Init) -> ending::Last {
    match init.last {
        Last::PowerOff => ending::Last::PowerOff,
        Last::Reboot if init.config.flag("reboot-kexec") && ending::is_kexec_loaded() => {
            ending::Last::Kexec
        }
        Last::Reboot => ending::Last::Restart(init.argument.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_phase_of_a_shutdown_ends_it() {
        let mut seconds = 0;
        for phase in SHUTDOWN {
            assert_eq!(phase.failure, Failure::GoOn, "{}", phase.name);
            match phase.time {
                Time::Seconds(time) => seconds += time,
                Time::Setting(name) => panic!("{name} may be set to hours"),
            }
        }
        assert!(seconds <= 70, "{seconds}");
    }

    #[test]
    fn arguments_of_a_restart_are_short() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, expected) in [("0 tryboot", Some("0 tryboot")), ("", None)] {
            std::fs::write(file.path(), text).unwrap();
            assert_eq!(argument(file.path()).as_deref(), expected);
        }
        std::fs::write(file.path(), "x".repeat(1000)).unwrap();
        assert_eq!(argument(file.path()), None);
        assert_eq!(argument(Path::new("/nowhere")), None);
    }
}
