//! `lxc.mount.entry` (lines of an fstab) and `lxc.mount.auto`.

use super::lines::{Line, Problems, Shown};

/// Where what is mounted comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// A path of the host.
    Host(String),
    /// `/volumes/<container>/<volume>`.
    Volume {
        /// Its container.
        container: String,
        /// Its name.
        name: String,
    },
    /// A path below Pantavisor's `/storage`, without it: empty, or with a leading slash.
    Storage(String),
    /// A path of the container's own root file system.
    Inside(String),
    /// No file: the name that a file system without one is mounted by.
    Nothing(String),
}

/// One thing to mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) line: usize,
    pub(crate) source: Source,
    /// Absolute path in the container.
    pub(crate) target: String,
    /// `bind`, or a file system.
    pub(crate) kind: String,
    pub(crate) options: Vec<String>,
    /// Left out when what is to be mounted is not there.
    pub(crate) optional: bool,
}

/// Options of any mount that runc knows by the same name.
const FLAGS: [&str; 25] = [
    "async",
    "atime",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "lazytime",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "relatime",
    "ro",
    "rw",
    "strictatime",
    "suid",
    "sync",
    "bind",
    "rbind",
];

const PROPAGATION: [&str; 8] = [
    "private",
    "rprivate",
    "shared",
    "rshared",
    "slave",
    "rslave",
    "unbindable",
    "runbindable",
];

/// File systems that are made rather than read from a disk.
const MADE: [&str; 10] = [
    "tmpfs",
    "proc",
    "sysfs",
    "devpts",
    "mqueue",
    "cgroup",
    "cgroup2",
    "debugfs",
    "tracefs",
    "securityfs",
];

/// Reads a line of an fstab: source, target, kind, options; the two numbers at its end mean nothing for a mount.
pub(super) fn read_entry(line: Line<'_>, problems: &mut Problems) -> Option<Entry> {
    let mut refuse = |detail: String, remedy: &str| {
        problems.add(line.number, detail, remedy);
        None
    };
    let fields: Vec<String> = line.value.split_whitespace().map(unescaped).collect();
    let (source, target, kind, options) = match fields.as_slice() {
        [source, target, kind, rest @ ..] if rest.len() <= 3 => (
            source,
            target,
            kind,
            rest.first().map_or("defaults", String::as_str),
        ),
        _ => {
            return refuse(
                format!("{} is no line of an fstab", Shown(line.value)),
                "write it as \"source target type options 0 0\"",
            );
        }
    };
    if target.starts_with('/') {
        return refuse(
            format!(
                "the target {} is absolute, which LXC leaves out",
                Shown(target)
            ),
            "write it without the leading slash, relative to the container's root",
        );
    }
    let Some(target) = clean(target) else {
        return refuse(
            format!("the target {} is no clean path", Shown(target)),
            "write it without \"..\", relative to the container's root",
        );
    };
    let options: Vec<&str> = options.split(',').filter(|word| !word.is_empty()).collect();
    let is_bind = options.iter().any(|word| matches!(*word, "bind" | "rbind"));
    let is_relative = options.contains(&"relative");
    if !is_bind && !MADE.contains(&kind.as_str()) {
        return refuse(
            format!("{} is not mounted for containers", Shown(kind)),
            "mount it on the host and use \"bind\", or make it a volume",
        );
    }
    let mut kept = Vec::new();
    for word in &options {
        match *word {
            "create=dir" | "create=file" | "optional" | "relative" => {}
            word if FLAGS.contains(&word) || PROPAGATION.contains(&word) => {
                kept.push(word.to_owned());
            }
            // Options of the file system; the kernel judges them.
            word if !is_bind && !is_lxc_only(word) => kept.push(word.to_owned()),
            word => {
                return refuse(
                    format!("the mount option {} is not supported", Shown(word)),
                    "take it out",
                );
            }
        }
    }
    let source = match (is_bind, is_relative) {
        (false, _) => Source::Nothing(source.clone()),
        (true, true) => match clean(source.trim_start_matches('/')) {
            Some(path) => Source::Inside(path),
            None => {
                return refuse(
                    format!("the source {} is no clean path", Shown(source)),
                    "write it without \"..\"",
                );
            }
        },
        (true, false) => match host_source(source) {
            Ok(source) => source,
            Err((detail, remedy)) => return refuse(detail, remedy),
        },
    };
    Some(Entry {
        line: line.number,
        source,
        target,
        kind: if is_bind {
            "bind".to_owned()
        } else {
            kind.clone()
        },
        options: kept,
        optional: options.contains(&"optional"),
    })
}

fn is_lxc_only(word: &str) -> bool {
    let starts = ["idmap=", "origin=", "create="];
    matches!(word, "move" | "remount" | "nosymfollow") || starts.iter().any(|s| word.starts_with(s))
}

/// A path of the host; what Pantavisor has at fixed places is named by what it is.
fn host_source(source: &str) -> Result<Source, (String, &'static str)> {
    let Some(path) = source.strip_prefix('/').and_then(|rest| {
        if rest.trim_matches('/').is_empty() {
            Some("/".to_owned())
        } else {
            clean(rest)
        }
    }) else {
        return Err((
            format!("the source {} is no clean absolute path", Shown(source)),
            "write an absolute path of the host, without \"..\"",
        ));
    };
    if let Some(rest) = path.strip_prefix("/volumes/") {
        return match rest.split_once('/') {
            Some((container, name)) => Ok(Source::Volume {
                container: container.to_owned(),
                name: name.to_owned(),
            }),
            None => Err((
                format!("{} is all volumes of a container", Shown(source)),
                "name one volume, as /volumes/<container>/<volume>",
            )),
        };
    }
    if let Some(rest) = path.strip_prefix("/storage")
        && (rest.is_empty() || rest.starts_with('/'))
    {
        return Ok(Source::Storage(rest.to_owned()));
    }
    for (prefix, what) in [
        (
            "/exports",
            "what other containers export is not supported by this build",
        ),
        (
            "/configs",
            "files of _config/ lie over the root file system by themselves",
        ),
    ] {
        if path == prefix
            || path
                .strip_prefix(prefix)
                .is_some_and(|rest| rest.starts_with('/'))
        {
            return Err((
                format!("{}: {what}", Shown(source)),
                "use a path of the host, or a volume of the container",
            ));
        }
    }
    Ok(Source::Host(path))
}

/// `a//b/` as `/a/b`; nothing with `..`.
fn clean(path: &str) -> Option<String> {
    let mut clean = String::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => return None,
            part => {
                clean.push('/');
                clean.push_str(part);
            }
        }
    }
    (!clean.is_empty()).then_some(clean)
}

/// Blanks in an fstab are written as `\040`.
fn unescaped(field: &str) -> String {
    let mut text = String::with_capacity(field.len());
    let mut rest = field;
    while let Some((before, after)) = rest.split_once('\\') {
        text.push_str(before);
        let code = after
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code.filter(|code| code.is_ascii() && *code != 0) {
            Some(code) => {
                text.push(char::from(code));
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                text.push('\\');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    text
}

/// Access to a file system that is mounted without being asked for in an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Read-only but for what the container may change.
    Mixed,
    /// Read-only.
    ReadOnly,
    /// Read and write.
    Full,
}

/// What `lxc.mount.auto` asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Auto {
    /// `/proc`; always mounted, because nothing runs without it.
    pub(crate) proc: Option<Access>,
    pub(crate) sys: Option<Access>,
    pub(crate) cgroup: Option<Access>,
}

impl Auto {
    pub(super) fn read(&mut self, line: Line<'_>, problems: &mut Problems) {
        if line.value.is_empty() {
            *self = Self::default();
        }
        for word in line.value.split_whitespace() {
            let known = match word {
                "proc" | "proc:mixed" => Some((&mut self.proc, Access::Mixed)),
                "proc:rw" => Some((&mut self.proc, Access::Full)),
                "sys" | "sys:mixed" => Some((&mut self.sys, Access::Mixed)),
                "sys:ro" => Some((&mut self.sys, Access::ReadOnly)),
                "sys:rw" => Some((&mut self.sys, Access::Full)),
                _ => cgroup(word).map(|access| (&mut self.cgroup, access)),
            };
            match known {
                Some((field, access)) => *field = Some(access),
                None => problems.add(
                    line.number,
                    format_args!("{} cannot be mounted by itself", Shown(word)),
                    "use proc, sys and cgroup, with :mixed, :ro or :rw",
                ),
            }
        }
    }
}

/// `cgroup`, `cgroup2` and `cgroup-full` are one: in its own name space a container sees its own groups only.
fn cgroup(word: &str) -> Option<Access> {
    let word = word.strip_suffix(":force").unwrap_or(word);
    let rest = ["cgroup-full", "cgroup2", "cgroup"]
        .iter()
        .find_map(|name| word.strip_prefix(name))?;
    match rest {
        "" | ":rw" => Some(Access::Full),
        ":mixed" => Some(Access::Mixed),
        ":ro" => Some(Access::ReadOnly),
        _ => None,
    }
}
