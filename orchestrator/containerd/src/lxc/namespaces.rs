//! Which name spaces of the host a container keeps.

use std::collections::BTreeSet;

use super::lines::{Line, Problems, Shown};
use crate::spec::Namespace;

/// Names that LXC takes. A mount name space of its own is what makes a container one.
const NAMES: [(&str, Option<Namespace>); 8] = [
    ("cgroup", Some(Namespace::Cgroup)),
    ("ipc", Some(Namespace::Ipc)),
    ("mnt", None),
    ("net", Some(Namespace::Network)),
    ("pid", Some(Namespace::Pid)),
    ("time", None),
    ("user", None),
    ("uts", Some(Namespace::Uts)),
];

/// What `lxc.namespace.keep` and `lxc.namespace.clone` say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Namespaces {
    keep: BTreeSet<&'static str>,
    clone: BTreeSet<&'static str>,
    first: usize,
}

impl Namespaces {
    pub(super) fn read_keep(&mut self, line: Line<'_>, problems: &mut Problems) {
        self.first = line.number;
        read(line, &mut self.keep, problems);
        if self.keep.contains("mnt") {
            problems.add(
                line.number,
                "a container without mounts of its own cannot be run",
                "take \"mnt\" out",
            );
        }
    }

    pub(super) fn read_clone(&mut self, line: Line<'_>, problems: &mut Problems) {
        self.first = line.number;
        read(line, &mut self.clone, problems);
        for name in ["user", "time"] {
            if self.clone.contains(name) {
                problems.add(
                    line.number,
                    format_args!("{name} name spaces are not supported by this build"),
                    format_args!("take \"{name}\" out"),
                );
            }
        }
        if !line.value.is_empty() && !self.clone.contains("mnt") {
            problems.add(
                line.number,
                "a container without mounts of its own cannot be run",
                "add \"mnt\"",
            );
        }
    }

    /// The name spaces of its own that the container gets. A user name space is never among them: without `lxc.idmap`, which is refused, it
    /// would map nobody.
    pub(super) fn own(&self, problems: &mut Problems) -> BTreeSet<Namespace> {
        if !self.keep.is_empty() && !self.clone.is_empty() {
            problems.add(
                self.first,
                "lxc.namespace.keep and lxc.namespace.clone exclude each other",
                "keep one of the two",
            );
        }
        let is_own = |name: &str| {
            if self.clone.is_empty() {
                !self.keep.contains(name)
            } else {
                self.clone.contains(name)
            }
        };
        NAMES
            .iter()
            .filter(|(name, _)| is_own(name))
            .filter_map(|(_, namespace)| *namespace)
            .collect()
    }
}

fn read(line: Line<'_>, names: &mut BTreeSet<&'static str>, problems: &mut Problems) {
    if line.value.is_empty() {
        names.clear();
    }
    for word in line.value.split_whitespace() {
        // Old templates wrote it long.
        let word = if word == "mount" { "mnt" } else { word };
        match NAMES.iter().find(|(name, _)| *name == word) {
            Some((name, _)) => {
                names.insert(name);
            }
            None => problems.add(
                line.number,
                format_args!("{} is no name space", Shown(word)),
                "use cgroup, ipc, mnt, net, pid, user, uts",
            ),
        }
    }
}
