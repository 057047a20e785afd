//! The table of settings. Adding a line here is all that a new setting needs before somebody reads it.

use super::pantavisor;

/// What a setting accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text without control characters.
    Text,
    /// An absolute path, or empty for none.
    Path,
    /// A whole number from .. to.
    Number(u64, u64),
    /// A time: `250ms`, `25s`, `10min`, `1h`, or seconds; from .. to in seconds.
    Duration(u64, u64),
    /// true/false, yes/no, on/off, 1/0.
    Flag,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A block device: LABEL=, UUID=, PARTLABEL=, PARTUUID= or a path below /dev; or empty for none.
    Device,
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Its name, in words joined by hyphens.
    pub name: &'static str,
    /// What it accepts.
    pub kind: Kind,
    /// Its default, as a person would type it.
    pub default: &'static str,
    /// One line of documentation.
    pub doc: &'static str,
    /// Whether user metadata may set it while the device runs.
    pub from_meta: bool,
    /// Whether its value is never shown.
    pub secret: bool,
}

const fn setting(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    doc: &'static str,
) -> Setting {
    Setting {
        name,
        kind,
        default,
        doc,
        from_meta: false,
        secret: false,
    }
}

impl Setting {
    /// Pantavisor's key of the same meaning, accepted wherever the name is.
    pub fn pantavisor(&self) -> Option<&'static str> {
        let same = |key: &&pantavisor::Key| key.value == pantavisor::Shows::Ours(self.name);
        pantavisor::KEYS.iter().find(same).map(|key| key.key)
    }

    const fn with_meta(mut self) -> Self {
        self.from_meta = true;
        self
    }
}

const HOUR: u64 = 3600;

/// Every setting, in the order in which it is shown.
pub const SETTINGS: &[Setting] = &[
    setting(
        "storage",
        Kind::Path,
        "/var/lib/coxswain",
        "Folder that holds revisions, objects, volumes and logs.",
    ),
    setting(
        "run-dir",
        Kind::Path,
        "/run/coxswain",
        "Folder for what does not outlive a boot: sockets, mounts, the private containerd.",
    ),
    setting(
        "socket",
        Kind::Path,
        "/run/coxswain/control.sock",
        "The control socket on the host.",
    ),
    setting(
        "containerd",
        Kind::Text,
        "spawn",
        "Address of a running containerd, or `spawn` to start a private one.",
    ),
    setting(
        "containerd-binary",
        Kind::Text,
        "containerd",
        "The containerd to spawn: a name on PATH, or an absolute path.",
    ),
    setting(
        "containerd-namespace",
        Kind::Text,
        "coxswain",
        "Our namespace in containerd.",
    ),
    setting(
        "modprobe-binary",
        Kind::Text,
        "modprobe",
        "What loads kernel modules of drivers: a name on PATH, or an absolute path.",
    ),
    setting(
        "log-level",
        Kind::Word(&["error", "warn", "info", "debug", "trace"]),
        "info",
        "How much the orchestrator itself logs.",
    ),
    setting(
        "log-quota",
        Kind::Number(1, 1 << 20),
        "64",
        "What the logs of all containers together may take on the storage, MiB; the oldest go first.",
    ),
    setting(
        "log-rate",
        Kind::Number(16, 1 << 20),
        "4096",
        "What one container may log in the long run, KiB a second; more is dropped and counted. Bursts of 16 MiB are let pass.",
    ),
    setting(
        "commit-delay",
        Kind::Duration(0, 24 * HOUR),
        "25s",
        "How long a trial must hold its goals before it is committed.",
    )
    .with_meta(),
    setting(
        "tries",
        Kind::Number(1, 100),
        "3",
        "Starts that a trial gets before it is rolled back.",
    )
    .with_meta(),
    setting(
        "keep-revisions",
        Kind::Number(0, 1000),
        "2",
        "Committed revisions that collection keeps beside factory, running and previous one.",
    )
    .with_meta(),
    setting(
        "object-lease",
        Kind::Duration(0, 24 * HOUR),
        "10min",
        "How long collection leaves an object alone after it was uploaded or asked for.",
    ),
    setting(
        "storage-reserve",
        Kind::Number(0, 90),
        "5",
        "Percent of the storage that uploads leave free.",
    ),
    setting(
        "seal-after",
        Kind::Duration(0, 24 * HOUR),
        "1min",
        "How long after the start, or a commit, objects of the running revision are sealed with fs-verity and read as a whole; \
         what is sealed is not read before it runs. 0: nothing is sealed, and every start reads all.",
    ),
    setting(
        "stop-timeout",
        Kind::Duration(1, HOUR),
        "30s",
        "How long all containers together may take to stop before the device restarts anyway.",
    ),
    setting(
        "pantavisor-exact-commit",
        Kind::Flag,
        "false",
        "End an update in place with UPDATED and commit it at the next start, as Pantavisor does.",
    )
    .with_meta(),
    setting(
        "pantavisor-default-roles",
        Kind::Flag,
        "false",
        "Give a container without `roles` the role mgmt, as Pantavisor does.",
    ),
    setting(
        "max-connections",
        Kind::Number(16, 65_536),
        "1024",
        "Connections to the control socket at one time.",
    ),
    setting(
        "buildinfo",
        Kind::Path,
        "/etc/coxswain/buildinfo",
        "Text that GET /buildinfo answers; empty when the file is not there.",
    ),
    setting(
        "bootloader",
        Kind::Word(&[
            "none",
            "file",
            "uboot",
            "uboot-pantavisor",
            "grub",
            "systemd-boot",
            "tryboot",
        ]),
        "none",
        "What starts the machine, and is told which revision's kernel to start.",
    ),
    setting(
        "bootloader-path",
        Kind::Path,
        "",
        "Where the boot loader reads: its file, or for systemd-boot and tryboot where the boot partition is mounted.",
    ),
    setting(
        "bootloader-device",
        Kind::Device,
        "",
        "As init: the boot partition of systemd-boot or tryboot (FAT), named as storage-device; mounted at bootloader-path.",
    ),
    setting(
        "bootloader-uboot-config",
        Kind::Path,
        "/etc/fw_env.config",
        "Where U-Boot keeps its environment, as fw_setenv reads it.",
    ),
    setting(
        "bootloader-uboot-initial",
        Kind::Path,
        "/etc/u-boot-initial-env",
        "U-Boot's built-in environment, from which one that is lost is made anew.",
    ),
    setting(
        "bootloader-options",
        Kind::Text,
        "",
        "Kernel options of the boot entries that are written for systemd-boot and tryboot.",
    ),
    setting(
        "booted",
        Kind::Text,
        "",
        "Revision whose kernel runs; boot scripts give it as `coxswain.booted=` on the kernel command line.",
    ),
    setting(
        "storage-device",
        Kind::Device,
        "",
        "As init: where the storage is: LABEL=, UUID=, PARTLABEL=, PARTUUID= or a path below /dev. Empty: a folder of the root.",
    ),
    setting(
        "storage-type",
        Kind::Text,
        "ext4",
        "As init: the storage's file system.",
    ),
    setting(
        "storage-wait",
        Kind::Duration(0, HOUR),
        "10s",
        "As init: how long the storage's device may take to appear.",
    ),
    setting(
        "storage-check",
        Kind::Word(&["auto", "always", "never"]),
        "auto",
        "As init: when e2fsck runs before the storage is mounted; auto: when its superblock says that it is due.",
    ),
    setting(
        "storage-grow",
        Kind::Flag,
        "true",
        "As init: let the storage grow to the end of its disk: its partition, where it is the last one, and an ext4 in it.",
    ),
    setting(
        "modules",
        Kind::Text,
        "",
        "As init: kernel modules to load, joined by commas, beside those that /etc/coxswain/modules lists.",
    ),
    setting(
        "module-coldplug",
        Kind::Flag,
        "true",
        "As init: load the drivers of the devices that are there at the start.",
    ),
    setting(
        "hostname",
        Kind::Text,
        "",
        "As init: the machine's name. Empty: as /etc/hostname says, else coxswain.",
    ),
    setting(
        "watchdog",
        Kind::Word(&["disabled", "shutdown", "startup", "always"]),
        "disabled",
        "As init: when the hardware watchdog is armed. Under another init disabled; as init the default is always.",
    ),
    setting(
        "watchdog-timeout",
        Kind::Duration(1, HOUR),
        "30s",
        "As init: how long the loop may stand still before the machine is reset; the driver may know only shorter times.",
    ),
    setting(
        "watchdog-device",
        Kind::Path,
        "/dev/watchdog",
        "As init: the hardware watchdog.",
    ),
    setting(
        "console",
        Kind::Path,
        "",
        "As init: terminal of the emergency console, such as /dev/ttyS0. Whoever reaches it is root. Empty: there is none.",
    ),
    setting(
        "console-when",
        Kind::Word(&["failure", "always"]),
        "failure",
        "As init: when the emergency console is there: when the start fails, or always.",
    ),
    setting(
        "console-program",
        Kind::Path,
        "/bin/sh",
        "As init: what runs on the emergency console.",
    ),
    setting(
        "reboot-kexec",
        Kind::Flag,
        "false",
        "As init: a reboot starts the kernel that was loaded with kexec, if there is one.",
    ),
];

/// The setting of this name: its own (hyphens or underscores, any case) or Pantavisor's.
pub fn find(name: &str) -> Option<&'static Setting> {
    let plain = name.to_ascii_lowercase().replace('_', "-");
    let key = pantavisor::KEYS.iter().find(|key| {
        let alias = |alias: &str| alias.eq_ignore_ascii_case(name);
        key.key.eq_ignore_ascii_case(name) || key.alias.is_some_and(alias)
    });
    let stands_for = key.and_then(pantavisor::Key::ours);
    SETTINGS
        .iter()
        .find(|setting| setting.name == plain || Some(setting.name) == stands_for)
}

/// The setting whose name is nearest to a mistyped one, when it is near.
pub fn nearest(name: &str) -> Option<&'static str> {
    let plain = name.to_ascii_lowercase().replace('_', "-");
    let with_distance = SETTINGS
        .iter()
        .map(|setting| (distance(&plain, setting.name), setting.name));
    with_distance
        .min()
        .filter(|(distance, _)| *distance <= 3)
        .map(|(_, name)| name)
}

/// Levenshtein distance; names are short.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(100).enumerate() {
        let mut diagonal = i;
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::Value;
    use super::*;

    #[test]
    fn every_default_is_acceptable_and_every_name_once() {
        let mut names = std::collections::BTreeSet::new();
        for setting in SETTINGS {
            Value::parse(setting.kind, setting.default)
                .unwrap_or_else(|e| panic!("{}: {e}", setting.name));
            assert!(names.insert(setting.name));
            assert!(setting.doc.ends_with('.'), "{}", setting.name);
        }
    }

    #[test]
    fn names_are_found_in_all_their_forms() {
        for name in [
            "commit-delay",
            "COMMIT_DELAY",
            "PV_UPDATER_COMMIT_DELAY",
            "pv_updater_commit_delay",
        ] {
            assert_eq!(
                find(name).map(|setting| setting.name),
                Some("commit-delay"),
                "{name}"
            );
        }
        assert!(find("").is_none());
        assert_eq!(nearest("storag"), Some("storage"));
        assert_eq!(nearest("something else"), None);
    }
}
