//! Control groups of containers: who is in one, killing all of one, whether it ran out of memory.
//!
//! Works with the one tree of version 2 and with the many of version 1; paths are as `/proc/PID/cgroup` tells them.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal};

/// Where the control groups of this machine are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroups {
    /// One folder per hierarchy that can hold processes.
    roots: Vec<PathBuf>,
    /// The hierarchy with memory limits, and whether it is version 2.
    memory: Option<(PathBuf, bool)>,
}

impl Cgroups {
    /// Finds them by the mount table.
    ///
    /// # Errors
    /// When the mount table cannot be read.
    pub fn find() -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string("/proc/self/mountinfo")?))
    }

    fn parse(table: &str) -> Self {
        let mut roots = Vec::new();
        let mut memory = None;
        let mut memory_v2 = None;
        for line in table.lines() {
            let Some((mount, file_system)) = line.split_once(" - ") else {
                continue;
            };
            let mut fields = mount.split(' ');
            let (Some(root), Some(point)) = (fields.nth(3), fields.next()) else {
                continue;
            };
            let mut kind = file_system.split(' ');
            let version_2 = match kind.next() {
                Some("cgroup2") => true,
                Some("cgroup") => false,
                Some(_) | None => continue,
            };
            // A part of a hierarchy that is shown elsewhere.
            if root != "/" {
                continue;
            }
            let point = PathBuf::from(point);
            let options = kind.nth(1).unwrap_or_default();
            if version_2 {
                memory_v2 = Some((point.clone(), true));
            } else if options.split(',').any(|option| option == "memory") {
                memory = Some((point.clone(), false));
            }
            roots.push(point);
        }
        Self {
            roots,
            memory: memory.or(memory_v2),
        }
    }

    /// Folders of `group` (absolute, `/coxswain/x`) that exist, in every hierarchy.
    pub fn folders(&self, group: &str) -> Vec<PathBuf> {
        let relative = group.trim_start_matches('/');
        self.roots
            .iter()
            .map(|root| root.join(relative))
            .filter(|path| path.is_dir())
            .collect()
    }

    /// Names of the groups directly below `group`.
    pub fn children(&self, group: &str) -> BTreeSet<String> {
        self.folders(group)
            .iter()
            .filter_map(|folder| fs::read_dir(folder).ok())
            .flatten()
            .filter_map(|entry| {
                let entry = entry.ok()?;
                entry.file_type().ok()?.is_dir().then_some(())?;
                entry.file_name().into_string().ok()
            })
            .collect()
    }

    /// Kills everything in `group` and below, again and again until nothing is left in it.
    ///
    /// # Errors
    /// `TimedOut` when something is left after `timeout` (a process in uninterruptible sleep).
    pub fn kill(&self, group: &str, timeout: Duration) -> io::Result<()> {
        let end = Instant::now() + timeout;
        loop {
            let mut pids = Vec::new();
            for folder in &self.folders(group) {
                // Version 2 since Linux 5.14: at once, also against forks. Elsewhere the loop is what wins against them.
                drop(fs::write(folder.join("cgroup.kill"), "1"));
                collect_pids(folder, &mut pids);
            }
            if pids.is_empty() {
                return Ok(());
            }
            for pid in &pids {
                match rustix::process::kill_process(*pid, Signal::KILL) {
                    Ok(()) | Err(Errno::SRCH) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
            if Instant::now() >= end {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!(
                        "{} processes of control group {group} do not die",
                        pids.len()
                    ),
                ));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Removes `group` and the groups below it from every hierarchy; they must hold no process.
    ///
    /// # Errors
    /// As the kernel gives them; that it is not there is no error.
    pub fn remove(&self, group: &str) -> io::Result<()> {
        self.folders(group)
            .iter()
            .try_for_each(|folder| remove_tree(folder))
    }

    /// Whether the kernel killed something in `group` because it used more memory than it may.
    pub fn ran_out_of_memory(&self, group: &str) -> bool {
        let Some((root, version_2)) = &self.memory else {
            return false;
        };
        let file = if *version_2 {
            "memory.events"
        } else {
            "memory.oom_control"
        };
        fs::read_to_string(root.join(group.trim_start_matches('/')).join(file))
            .is_ok_and(|text| oom_kills(&text) > 0)
    }
}

/// Both versions write a line `oom_kill <n>`.
fn oom_kills(text: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
        .unwrap_or(0)
}

fn collect_pids(folder: &Path, pids: &mut Vec<Pid>) {
    if let Ok(text) = fs::read_to_string(folder.join("cgroup.procs")) {
        pids.extend(
            text.lines()
                .filter_map(|line| Pid::from_raw(line.parse().ok()?)),
        );
    }
    for child in folders_in(folder) {
        collect_pids(&child, pids);
    }
}

fn remove_tree(folder: &Path) -> io::Result<()> {
    for child in folders_in(folder) {
        remove_tree(&child)?;
    }
    match fs::remove_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn folders_in(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            entry.file_type().ok()?.is_dir().then(|| entry.path())
        })
        .collect()
}

/// Name of the one group directly below `parent` that a process is in; `None` when it is in none, or moved in some hierarchies only. For
/// what does no harm when the process is another one meanwhile: rights go by [`crate::peer::place`].
///
/// # Errors
/// `NotFound` when there is no such process.
pub fn group_of(pid: u32, parent: &str) -> io::Result<Option<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let groups: BTreeSet<&str> = members(&text, parent).collect();
    let mut groups = groups.into_iter();
    Ok(match (groups.next(), groups.next()) {
        (Some(group), None) => Some(group.to_owned()),
        (None | Some(_), _) => None,
    })
}

/// Names of the groups directly below `parent` (absolute, `/coxswain`) in the text of a `/proc/PID/cgroup`, a hierarchy after the
/// other. Only a path that *starts* with the parent counts: a container may make groups of any name below its own.
pub(crate) fn members<'a>(text: &'a str, parent: &str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| {
        let path = line.splitn(3, ':').nth(2)?;
        let rest = path.strip_prefix(parent)?.strip_prefix('/')?;
        let name = rest.split('/').next()?;
        (!name.is_empty()).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "\
25 1 0:22 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
26 1 0:23 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
27 1 0:24 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
28 1 0:23 /x /mnt/part rw - cgroup cgroup rw,memory
29 1 0:30 / /run rw - tmpfs tmpfs rw";

    #[test]
    fn both_versions_are_found() {
        let found = Cgroups::parse(V1);
        assert_eq!(found.roots.len(), 3);
        assert_eq!(found.memory, Some(("/sys/fs/cgroup/memory".into(), false)));
        let found = Cgroups::parse("30 1 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw");
        assert_eq!(found.memory, Some(("/sys/fs/cgroup".into(), true)));
    }

    #[test]
    fn membership_cannot_be_claimed_from_below() {
        let cases: [(&str, &[&str]); 13] = [
            ("0::/coxswain/web-1\n", &["web-1"]),
            ("0::/coxswain/web-1/inner\n", &["web-1"]),
            ("3:cpu:/\n2:memory:/coxswain/web-1\n0::/\n", &["web-1"]),
            ("1:name=systemd:/coxswain/web-1\n", &["web-1"]),
            ("4:cpu,cpuacct:/coxswain/web-1\n", &["web-1"]),
            ("0::/coxswain/web-1/coxswain/db-2\n", &["web-1"]),
            ("0::/coxswain/a:b\n", &["a:b"]),
            // Moved in one hierarchy only: both are told.
            (
                "2:cpu:/coxswain/db-2\n0::/coxswain/web-1\n",
                &["db-2", "web-1"],
            ),
            ("0::/user/coxswain/db-2\n", &[]),
            ("0::/coxswainx/db-2\n", &[]),
            ("0::/coxswain\n", &[]),
            ("0::/coxswain/\n", &[]),
            ("0::/../../coxswain/web-1\n", &[]),
        ];
        for (text, expected) in cases {
            let found: Vec<_> = members(text, "/coxswain").collect();
            assert_eq!(found, expected, "{text:?}");
        }
    }

    #[test]
    fn out_of_memory_is_read() {
        assert_eq!(oom_kills("low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\n"), 1);
        assert_eq!(
            oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 0\n"),
            0
        );
        assert_eq!(oom_kills(""), 0);
    }
}
