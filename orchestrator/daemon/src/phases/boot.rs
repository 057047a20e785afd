//! From the kernel's hand-over to the start of the device.

use std::fs;
use std::path::Path;

use linux::early::{self, EarlyMount};
use linux::module_tree::ModuleTree;
use linux::watchdog::Hardware;
use linux::{ending, entropy, network, new_root, terminal};

use super::{Done, Failure, Limit, Phase, Time, storage};
use crate::config::Config;
use crate::init::Init;
use crate::kept;

/// In order.
pub(crate) const BOOT: &[Phase<Init>] = &[
    phase("first mounts", 5, Failure::End, first_mounts),
    phase("kernel", 5, Failure::GoOn, kernel),
    phase("system", 60, Failure::End, system),
    phase("mounts", 5, Failure::GoOn, mounts),
    phase("settings", 5, Failure::GoOn, settings),
    phase("modules", 60, Failure::GoOn, modules),
    phase("watchdog", 5, Failure::GoOn, watchdog),
    phase("names and limits", 5, Failure::GoOn, names),
    Phase {
        name: "storage device",
        time: Time::Setting("storage-wait"),
        failure: Failure::End,
        run: storage::find,
    },
    phase(
        "partition growth",
        30,
        Failure::GoOn,
        storage::grow_partition,
    ),
    phase("storage check", 1800, Failure::GoOn, storage::check),
    phase("storage", 1800, Failure::End, storage::mount),
    phase("storage growth", 120, Failure::GoOn, storage::grow),
    phase("boot partition", 30, Failure::GoOn, storage::boot_partition),
    phase("clock", 10, Failure::GoOn, clock),
    phase("random seed", 10, Failure::GoOn, seed),
];

const fn phase(
    name: &'static str,
    seconds: u64,
    failure: Failure,
    run: fn(&mut Init, &Limit) -> Result<Done, String>,
) -> Phase<Init> {
    Phase {
        name,
        time: Time::Seconds(seconds),
        failure,
        run,
    }
}

/// The system that leaves the initramfs, in it.
const SYSTEM: &str = "/system.squashfs";
/// This program there.
const PROGRAM: &str = "/init";
/// Where the system shows it: an empty file.
const SHOWN: &str = "/usr/bin/coxswain";
/// Modules that the system's own mount needs, where the kernel does not have them built in.
const FOR_THE_SYSTEM: [&str; 2] = ["loop", "squashfs"];
/// One module a line, with its parameters; `#` begins a comment.
const MODULES: &str = "/etc/coxswain/modules";
/// Bytes of that list.
const MODULES_BYTES_MAX: usize = 64 << 10;
/// Folders of the root that programs write to, when the root cannot be written.
const WRITABLE: [&str; 2] = ["/var", "/root"];
const NAME_BYTES_MAX: usize = 64;
/// Seconds after a panic; a kernel command line that says more or less is left alone.
const PANIC_SECONDS: &str = "5";

/// Settings of the kernel that an init owes to a machine that nobody looks at.
const KERNEL: &[(&str, &str)] = &[
    // What is wrong in the kernel itself does not go on working on the disk.
    ("kernel/panic_on_oops", "1"),
    // Our lines are the boot's log, and none may be lost.
    ("kernel/printk_devkmsg", "on\n"),
    ("fs/protected_hardlinks", "1"),
    ("fs/protected_symlinks", "1"),
    ("fs/protected_fifos", "1"),
    ("fs/protected_regular", "2"),
];
/// Files that one process may have open.
const OPEN_FILES: u64 = 1 << 20;

fn failed(list: Vec<(EarlyMount, std::io::Error)>) -> Result<Done, String> {
    let list: Vec<String> = list
        .iter()
        .map(|(one, error)| format!("cannot mount {} at {}: {error}", one.kind, one.target))
        .collect();
    if list.is_empty() {
        Ok(Done::Yes)
    } else {
        Err(list.join("; "))
    }
}

fn first_mounts(init: &mut Init, _: &Limit) -> Result<Done, String> {
    let mounted = failed(early::mount_all(early::FIRST));
    // Before anything is told, so that it has somewhere to go.
    terminal::adopt(Path::new("/dev/console")).ok();
    init.listen();
    mounted
}

/// What must hold even if the next phase is the last.
fn kernel(_: &mut Init, _: &Limit) -> Result<Done, String> {
    let mut problems = Vec::new();
    if early::kernel_setting("kernel/panic").as_deref() == Some("0") {
        set(&mut problems, "kernel/panic", PANIC_SECONDS);
    }
    for (name, value) in KERNEL {
        set(&mut problems, name, value);
    }
    if let Err(error) = ending::take_ctrl_alt_del() {
        problems.push(format!("cannot take Ctrl-Alt-Del: {error}"));
    }
    all(problems)
}

fn set(problems: &mut Vec<String>, name: &str, value: &str) {
    if let Err(error) = early::set_kernel(name, value) {
        problems.push(format!("cannot set {name} to {value:?}: {error}"));
    }
}

fn all(problems: Vec<String>) -> Result<Done, String> {
    if problems.is_empty() {
        Ok(Done::Yes)
    } else {
        Err(problems.join("; "))
    }
}

fn system(_: &mut Init, _: &Limit) -> Result<Done, String> {
    if !new_root::is_initramfs() {
        return Ok(Done::Skipped);
    }
    let image = Path::new(SYSTEM);
    if !image.exists() {
        return Err(format!(
            "there is no {SYSTEM}: the initramfs must bring the system (rootfs/initramfs), or a root must be mounted before us"
        ));
    }
    let tree = ModuleTree::of_this_kernel();
    for name in FOR_THE_SYSTEM {
        // One that is built in may be in no list; if it is missing, the mount fails and says so.
        tree.load(name, "").ok();
    }
    new_root::enter(image, &["/proc", "/sys", "/dev"], Path::new(PROGRAM), SHOWN)
        .map_err(|error| store::explain(&error))?;
    Ok(Done::Yes)
}

fn mounts(_: &mut Init, _: &Limit) -> Result<Done, String> {
    let mut problems = match failed(early::mount_all(early::SECOND)) {
        Ok(_) => Vec::new(),
        Err(error) => vec![error],
    };
    for folder in WRITABLE {
        let path = Path::new(folder);
        if path.is_dir()
            && !linux::disk::is_writable(path)
            && let Err(error) = linux::mounts::mount_tmpfs(path, "50%", 0o755)
        {
            problems.push(store::explain(&error));
        }
    }
    for folder in ["/var/lib", "/var/tmp", "/var/log"] {
        // Who needs one that cannot be made will say so.
        fs::create_dir_all(folder).ok();
    }
    all(problems)
}

fn settings(init: &mut Init, _: &Limit) -> Result<Done, String> {
    let (config, problems) = Config::of_init(&init.cmdline);
    init.config = config;
    all(problems.iter().map(ToString::to_string).collect())
}

fn modules(init: &mut Init, limit: &Limit) -> Result<Done, String> {
    let tree = ModuleTree::of_this_kernel();
    if tree.is_empty() {
        return Ok(Done::Skipped);
    }
    let listed = fs::read(MODULES).unwrap_or_default();
    let listed = listed.get(..listed.len().min(MODULES_BYTES_MAX));
    let text = String::from_utf8_lossy(listed.unwrap_or_default()).into_owned();
    let text = format!("{text}\n{}", init.config.text("modules").replace(',', "\n"));
    let coldplug = init.config.flag("module-coldplug");
    let said = limit.run(init, move || {
        let mut said = Vec::new();
        for (name, parameters) in module_lines(&text) {
            if let Err(error) = tree.load(&name, &parameters) {
                said.push(store::explain(&error));
            }
        }
        if coldplug {
            let (_, refused) = tree.load_for_devices();
            said.extend(refused.iter().map(|error| store::explain(error)));
        }
        Ok(said.join("; "))
    })?;
    if said.is_empty() {
        Ok(Done::Yes)
    } else {
        Err(said)
    }
}

/// Names with their parameters.
fn module_lines(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().map(|line| {
        let line = line.split('#').next().unwrap_or_default().trim();
        let (name, parameters) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        (name.to_owned(), parameters.trim().to_owned())
    });
    lines.filter(|(name, _)| !name.is_empty()).collect()
}

fn watchdog(init: &mut Init, _: &Limit) -> Result<Done, String> {
    match init.config.text("watchdog") {
        "startup" | "always" => {}
        _ => return Ok(Done::Skipped),
    }
    arm(init)
}

/// Opens the hardware watchdog of the settings.
pub(super) fn arm(init: &mut Init) -> Result<Done, String> {
    let device = init.config.path("watchdog-device");
    let wanted = init.config.duration("watchdog-timeout");
    let watchdog = Hardware::open(&device, wanted).map_err(|error| store::explain(&error))?;
    let (is, identity) = (watchdog.timeout(), watchdog.identity().to_owned());
    init.watchdog = Some(watchdog);
    let other = if is == wanted {
        String::new()
    } else {
        format!(", not the {} s of the settings", wanted.as_secs())
    };
    Ok(Done::Told(format!(
        "{identity} resets the machine after {} s without a turn of the loop{other}",
        is.as_secs()
    )))
}

fn names(init: &mut Init, _: &Limit) -> Result<Done, String> {
    let mut problems = Vec::new();
    let etc = fs::read_to_string("/etc/hostname").unwrap_or_default();
    let wanted = [init.config.text("hostname"), etc.trim(), "coxswain"];
    let name = wanted.into_iter().find(|name| is_hostname(name));
    if let Err(error) = early::set_hostname(name.unwrap_or("coxswain")) {
        problems.push(format!("cannot name the machine: {error}"));
    }
    if let Err(error) = network::loopback_up() {
        problems.push(format!("cannot bring the loopback interface up: {error}"));
    }
    if let Err(error) = early::set_limits(OPEN_FILES) {
        problems.push(format!("cannot set limits: {error}"));
    }
    all(problems)
}

fn is_hostname(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
        && !name.starts_with(['-', '.'])
}

/// Time that never goes back: at least what was kept, at least when the system was built.
fn clock(init: &mut Init, limit: &Limit) -> Result<Done, String> {
    let storage = init.config.path("storage");
    let floor = limit.run(init, move || Ok(kept::time_floor(&storage).to_string()))?;
    let floor: u64 = floor.parse().map_err(|_| "the kept time is lost")?;
    use device::ports::Clock as _;
    let now = linux::clock::SystemClock.wall().0 / 1000;
    if now >= floor {
        return Ok(Done::Yes);
    }
    linux::clock::set_wall(floor).map_err(|error| format!("cannot set the clock: {error}"))?;
    Ok(Done::Told(format!(
        "set from {now} to {floor}: the machine's own clock was behind what was kept"
    )))
}

fn seed(init: &mut Init, limit: &Limit) -> Result<Done, String> {
    let storage = init.config.path("storage");
    let said = limit.run(init, move || {
        let failed = |error: std::io::Error| format!("cannot carry the seed over: {error}");
        let Some((seed, counts)) = kept::exchange_seed(&storage).map_err(failed)? else {
            return Ok(String::new());
        };
        entropy::add(&seed, counts).map_err(failed)?;
        Ok("used".to_owned())
    })?;
    Ok(if said.is_empty() {
        Done::Skipped
    } else {
        Done::Yes
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_modules() {
        let text = "# for the board\nsoftdog\n\n loop  max_loop=64 x=1 # eight are few\n#\n";
        let one = |name: &str, parameters: &str| (name.to_owned(), parameters.to_owned());
        assert_eq!(
            module_lines(text),
            [one("softdog", ""), one("loop", "max_loop=64 x=1")]
        );
    }

    #[test]
    fn names_of_machines() {
        for (name, expected) in [
            ("device-1.example", true),
            ("", false),
            ("-x", false),
            ("a b", false),
            ("a\nb", false),
            ("é", false),
        ] {
            assert_eq!(is_hostname(name), expected, "{name:?}");
        }
        assert!(!is_hostname(&"x".repeat(65)));
    }

    #[test]
    fn phases_have_names_of_their_own_and_bounded_times() {
        let mut names = std::collections::BTreeSet::new();
        for phase in BOOT {
            assert!(names.insert(phase.name), "{}", phase.name);
            match phase.time {
                Time::Seconds(seconds) => assert!((1..=3600).contains(&seconds)),
                Time::Setting(name) => drop(Config::defaults().duration(name)),
            }
        }
    }
}
