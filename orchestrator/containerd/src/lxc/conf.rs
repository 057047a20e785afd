//! A whole configuration: every line carried out or refused, then what only all lines together show.

use std::collections::{BTreeMap, BTreeSet};

use super::keys::{self, Fate};
use super::limits::{self, Capabilities, Groups};
use super::lines::{self, Line, Problems, Shown};
use super::mounts::{self, Auto, Entry};
use super::namespaces::Namespaces;
use crate::spec::Namespace;

/// What LXC starts when nothing is said.
const DEFAULT_INIT: &str = "/sbin/init";
/// Mounts of one container.
const ENTRIES_MAX: usize = 256;

/// A configuration in our words.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Conf {
    /// First process and its arguments; never empty.
    pub(crate) init: Vec<String>,
    pub(crate) cwd: Option<String>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) groups: Vec<u32>,
    /// `NAME=value`, in order.
    pub(crate) env: Vec<String>,
    pub(crate) hostname: Option<String>,
    pub(crate) halt_signal: Option<u32>,
    /// Name spaces of its own.
    pub(crate) namespaces: BTreeSet<Namespace>,
    pub(crate) auto: Auto,
    pub(crate) entries: Vec<Entry>,
    pub(crate) read_only_root: bool,
    pub(crate) autodev: Autodev,
    pub(crate) pseudo_terminals: bool,
    pub(crate) capabilities: Capabilities,
    pub(crate) no_new_privileges: bool,
    /// `lxc.cgroup.*`
    pub(crate) old_groups: Groups,
    /// `lxc.cgroup2.*`
    pub(crate) unified_groups: Groups,
    pub(crate) rlimits: BTreeMap<&'static str, (u64, u64)>,
    pub(crate) sysctl: BTreeMap<String, String>,
    pub(crate) oom_score_adjustment: Option<i32>,
    pub(crate) apparmor: Option<String>,
    pub(crate) selinux: Option<String>,
}

/// The `/dev` of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Autodev {
    /// One of its own with so many bytes.
    Own(u64),
    /// The image's.
    Image,
}

impl Default for Autodev {
    fn default() -> Self {
        Self::Own(500_000)
    }
}

/// What the lines are read against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About<'a> {
    /// The container's name.
    pub(crate) container: &'a str,
    /// Its root image among the container's keys.
    pub(crate) root_name: &'a str,
}

/// What is read line by line and only judged at the end.
#[derive(Default)]
struct Reading {
    conf: Conf,
    namespaces: Namespaces,
    hostname_line: usize,
    /// Line and type of each network device, by its number.
    networks: BTreeMap<u32, (usize, String)>,
    sysctl_lines: BTreeMap<String, usize>,
    autodev_size: Option<u64>,
}

impl Conf {
    /// Reads the bytes of a configuration.
    ///
    /// # Errors
    /// Everything that cannot be translated, with its line.
    pub(crate) fn read(bytes: &[u8], about: About<'_>) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let mut reading = Reading::default();
        reading.conf.pseudo_terminals = true;
        for line in lines::read(bytes, &mut problems) {
            match keys::find(line.key).map(|key| (key.name, key.fate)) {
                Some((_, Fate::LeftOut(_))) => {}
                Some((name, Fate::Translated { .. })) => {
                    reading.read(name, line, about, &mut problems);
                }
                Some((_, Fate::Refused(remedy))) => problems.add(
                    line.number,
                    format_args!("{} is not supported", Shown(line.key)),
                    remedy,
                ),
                // Takes all networks back.
                None if line.key == "lxc.net" && line.value.is_empty() => {
                    reading.networks.clear();
                }
                None => problems.add(
                    line.number,
                    format_args!("{} is not known", Shown(line.key)),
                    "correct its name; lxc-keys.md has the list",
                ),
            }
        }
        let conf = reading.finish(&mut problems);
        problems.into_result()?;
        Ok(conf)
    }
}

impl Reading {
    fn read(&mut self, name: &str, line: Line<'_>, about: About<'_>, problems: &mut Problems) {
        let conf = &mut self.conf;
        let value = line.value;
        match name {
            "lxc.init.cmd" => conf.init = words(value),
            "lxc.init.cwd" => conf.cwd = absolute(line, problems),
            "lxc.init.uid" => conf.uid = number(line, problems),
            "lxc.init.gid" => conf.gid = number(line, problems),
            "lxc.init.groups" => read_groups(line, &mut conf.groups, problems),
            "lxc.environment" | "lxc.environment.runtime" => {
                read_environment(line, &mut conf.env, problems);
            }
            "lxc.uts.name" => {
                self.hostname_line = line.number;
                conf.hostname = hostname(line, problems);
            }
            "lxc.signal.halt" => conf.halt_signal = signal(line, problems),
            "lxc.namespace.keep" => self.namespaces.read_keep(line, problems),
            "lxc.namespace.clone" => self.namespaces.read_clone(line, problems),
            "lxc.mount.auto" => conf.auto.read(line, problems),
            "lxc.mount.entry" => read_entry(line, &mut conf.entries, problems),
            "lxc.rootfs.path" => conf.read_only_root |= read_root(line, about, problems),
            "lxc.rootfs.options" => match value {
                "" | "rw" | "defaults" => {}
                "ro" => conf.read_only_root = true,
                _ => problems.add(
                    line.number,
                    format_args!("{} cannot be had for the root", Shown(value)),
                    "use \"ro\" or \"rw\"",
                ),
            },
            "lxc.autodev" => {
                conf.autodev = match flag(line, problems) {
                    Some(false) => Autodev::Image,
                    Some(true) | None => Autodev::default(),
                };
            }
            "lxc.autodev.tmpfs.size" => self.autodev_size = number(line, problems),
            "lxc.pty.max" => {
                conf.pseudo_terminals = number::<u32>(line, problems) != Some(0);
            }
            "lxc.cap.drop" => conf.capabilities.read(line, false, problems),
            "lxc.cap.keep" => conf.capabilities.read(line, true, problems),
            "lxc.no_new_privs" => {
                conf.no_new_privileges = flag(line, problems).unwrap_or_default();
            }
            "lxc.proc.oom_score_adj" => {
                conf.oom_score_adjustment =
                    number(line, problems).filter(|score| (-1000..=1000).contains(score));
            }
            "lxc.apparmor.profile" => {
                conf.apparmor = read_apparmor(line, problems);
            }
            "lxc.selinux.context" => {
                conf.selinux = (!value.is_empty()).then(|| value.to_owned());
            }
            _ => self.read_below(name, line, problems),
        }
    }

    /// Keys that end in a name of their own.
    fn read_below(&mut self, name: &str, line: Line<'_>, problems: &mut Problems) {
        let prefix = name.trim_end_matches('*');
        let rest = line.key.strip_prefix(prefix).unwrap_or_default();
        match name {
            "lxc.cgroup.*" => self.conf.old_groups.read_old(line, rest, problems),
            "lxc.cgroup2.*" => self.conf.unified_groups.read_unified(line, rest, problems),
            "lxc.prlimit.*" => limits::read_rlimit(line, rest, &mut self.conf.rlimits, problems),
            "lxc.sysctl.*" => {
                if line.value.is_empty() {
                    self.conf.sysctl.remove(rest);
                } else {
                    self.conf
                        .sysctl
                        .insert(rest.to_owned(), line.value.to_owned());
                }
                self.sysctl_lines.insert(rest.to_owned(), line.number);
            }
            "lxc.net.*" => self.read_network(line, rest, problems),
            // The table has a line that nobody carries out: found by its test.
            _ => problems.add(
                line.number,
                format_args!("{} is not supported", Shown(line.key)),
                "take it out",
            ),
        }
    }

    fn read_network(&mut self, line: Line<'_>, rest: &str, problems: &mut Problems) {
        let parsed = rest
            .split_once('.')
            .and_then(|(index, field)| Some((index.parse::<u32>().ok()?, field)));
        match (parsed, line.value) {
            (Some((index, "type")), kind @ ("empty" | "none")) => {
                self.networks.insert(index, (line.number, kind.to_owned()));
            }
            // Loopback is always up.
            (Some((_, "flags")), "up" | "") => {}
            (Some((index, _)), "") => drop(self.networks.remove(&index)),
            (Some((_, "type")), kind) => problems.add(
                line.number,
                format_args!("a network device of type {} cannot be made", Shown(kind)),
                "take the lxc.net lines out and name a pool in \"network\" of run.json, or keep the name space \"net\"",
            ),
            (Some(_) | None, _) => problems.add(
                line.number,
                format_args!("{} is not supported", Shown(line.key)),
                "take the lxc.net lines out and name a pool in \"network\" of run.json",
            ),
        }
    }

    fn finish(mut self, problems: &mut Problems) -> Conf {
        if self.conf.init.is_empty() {
            self.conf.init = vec![DEFAULT_INIT.to_owned()];
        }
        if let (Autodev::Own(bytes), Some(given)) = (&mut self.conf.autodev, self.autodev_size) {
            *bytes = given;
        }
        self.conf.namespaces = self.namespaces.own(problems);
        let is_kept = |namespace| !self.conf.namespaces.contains(&namespace);
        if self.conf.hostname.is_some() && is_kept(Namespace::Uts) {
            problems.add(
                self.hostname_line,
                "this would change the host's name, because the name space \"uts\" is kept",
                "take this line out, or \"uts\" from lxc.namespace.keep",
            );
        }
        for (line, kind) in self.networks.values() {
            if kind == "empty" && is_kept(Namespace::Network) {
                problems.add(
                    *line,
                    "the network cannot be empty, because the name space \"net\" is kept",
                    "take this line out, or \"net\" from lxc.namespace.keep",
                );
            }
        }
        for (name, line) in &self.sysctl_lines {
            if self.conf.sysctl.contains_key(name) {
                check_sysctl(name, *line, &self.conf.namespaces, problems);
            }
        }
        if self.networks.values().any(|(_, kind)| kind == "none") {
            self.conf.namespaces.remove(&Namespace::Network);
        }
        self.conf
    }
}

/// Settings outside the container's own name spaces would be the host's.
fn check_sysctl(name: &str, line: usize, own: &BTreeSet<Namespace>, problems: &mut Problems) {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let name = name.replace('/', ".");
    let namespace = if name.starts_with("net.") {
        Some(Namespace::Network)
    } else if IPC.contains(&name.as_str()) || name.starts_with("fs.mqueue.") {
        Some(Namespace::Ipc)
    } else {
        None
    };
    match namespace {
        Some(namespace) if own.contains(&namespace) => {}
        Some(_) => problems.add(
            line,
            format_args!("{name} would change the host, whose name space is kept"),
            "set it on the host, or give the container that name space",
        ),
        None => problems.add(
            line,
            format_args!("{name} belongs to the whole machine"),
            "set it on the host",
        ),
    }
}

/// Words as LXC splits them: at blanks, but not between quotes; a quote counts only at the beginning of a word.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (word, after) = match first {
            '"' | '\'' => match rest.get(1..).and_then(|inner| inner.split_once(first)) {
                Some(parts) => parts,
                // LXC drops a word whose quote is not closed; the rest of the line is kept here.
                None => (rest.get(1..).unwrap_or_default(), ""),
            },
            _ => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
        };
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    words
}

fn read_entry(line: Line<'_>, entries: &mut Vec<Entry>, problems: &mut Problems) {
    if line.value.is_empty() {
        entries.clear();
        return;
    }
    let Some(entry) = mounts::read_entry(line, problems) else {
        return;
    };
    if entries.len() == ENTRIES_MAX {
        problems.add(
            line.number,
            format_args!("there are more than {ENTRIES_MAX} mounts"),
            "use fewer",
        );
    } else if entries.len() < ENTRIES_MAX {
        entries.push(entry);
    }
}

/// Tells whether the root is read-only: `overlayfs:<image>:<upper>` is not, the image alone is.
fn read_root(line: Line<'_>, about: About<'_>, problems: &mut Problems) -> bool {
    let (kind, paths) = match line.value.split_once(':') {
        Some((kind, paths)) if !kind.starts_with('/') => (kind, paths),
        Some(_) | None => ("dir", line.value),
    };
    let image = format!("/volumes/{}/{}", about.container, about.root_name);
    let upper = format!("/volumes/{}/lxc-overlay/upper", about.container);
    let paths: Vec<&str> = paths.split(':').collect();
    match (kind, paths.as_slice()) {
        ("overlayfs" | "overlay", [below, above]) if *below == image && *above == upper => false,
        ("dir", [path]) if *path == image => true,
        ("dir", [""]) => false,
        _ => {
            problems.add(
                line.number,
                format_args!("{} is not the root file system of run.json", Shown(line.value)),
                format_args!("write overlayfs:{image}:{upper}, and the image's name in \"root-volume\" of run.json"),
            );
            false
        }
    }
}

fn read_environment(line: Line<'_>, env: &mut Vec<String>, problems: &mut Problems) {
    match line.value.split_once('=') {
        _ if line.value.is_empty() => env.clear(),
        Some((name, _)) if !name.is_empty() => env.push(line.value.to_owned()),
        Some(_) | None => problems.add(
            line.number,
            format_args!("{} takes a value from the host", Shown(line.value)),
            "write it as NAME=value",
        ),
    }
}

fn read_groups(line: Line<'_>, groups: &mut Vec<u32>, problems: &mut Problems) {
    if line.value.is_empty() {
        groups.clear();
    }
    for word in line.value.split(',').filter(|word| !word.trim().is_empty()) {
        match word.trim().parse() {
            Ok(group) => groups.push(group),
            Err(_) => not_a_number(line, problems),
        }
    }
}

fn read_apparmor(line: Line<'_>, problems: &mut Problems) -> Option<String> {
    match line.value {
        "" | "unconfined" | "unchanged" => None,
        "generated" => {
            problems.add(
                line.number,
                "profiles are not generated",
                "load a profile on the host and name it here",
            );
            None
        }
        name => Some(name.to_owned()),
    }
}

fn signal(line: Line<'_>, problems: &mut Problems) -> Option<u32> {
    if line.value.is_empty() {
        return None;
    }
    let number = model::signal::number(&line.value.to_ascii_uppercase());
    if number.is_none() {
        problems.add(
            line.number,
            format_args!("there is no signal {}", Shown(line.value)),
            "use a name such as SIGTERM or SIGRTMIN+3, or a number",
        );
    }
    number
}

fn hostname(line: Line<'_>, problems: &mut Problems) -> Option<String> {
    const BYTES_MAX: usize = 64;
    let is_name = line.value.len() <= BYTES_MAX
        && line
            .value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if !is_name {
        problems.add(
            line.number,
            format_args!("{} is no host name", Shown(line.value)),
            "use up to 64 letters, digits, '-', '_' and '.'",
        );
    }
    (is_name && !line.value.is_empty()).then(|| line.value.to_owned())
}

fn absolute(line: Line<'_>, problems: &mut Problems) -> Option<String> {
    if line.value.is_empty() {
        return None;
    }
    if !line.value.starts_with('/') {
        problems.add(
            line.number,
            format_args!("{} is no absolute path", Shown(line.value)),
            "write it from the container's root, with a leading slash",
        );
        return None;
    }
    Some(line.value.to_owned())
}

fn flag(line: Line<'_>, problems: &mut Problems) -> Option<bool> {
    match line.value {
        "" => None,
        "0" => Some(false),
        "1" => Some(true),
        other => {
            problems.add(
                line.number,
                format_args!("{} is neither 0 nor 1", Shown(other)),
                "write 0 or 1",
            );
            None
        }
    }
}

fn number<T: std::str::FromStr>(line: Line<'_>, problems: &mut Problems) -> Option<T> {
    if line.value.is_empty() {
        return None;
    }
    let number = line.value.parse().ok();
    if number.is_none() {
        not_a_number(line, problems);
    }
    number
}

fn not_a_number(line: Line<'_>, problems: &mut Problems) {
    problems.add(
        line.number,
        format_args!("{} is no number for {}", Shown(line.value), line.key),
        "write a whole number",
    );
}

#[cfg(test)]
mod tests;
