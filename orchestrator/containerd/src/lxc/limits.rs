//! Control groups, device rules, resource limits of processes, capabilities.

use std::collections::{BTreeMap, BTreeSet};

use super::lines::{Line, Problems, Shown};
use crate::spec::{DeviceRule, Limits, RLIMITS};

/// Controllers whose settings of the unified hierarchy are taken over as they stand.
const UNIFIED: [&str; 8] = [
    "cpu", "cpuset", "hugetlb", "io", "memory", "misc", "pids", "rdma",
];

/// What `lxc.cgroup.*` or `lxc.cgroup2.*` says.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Groups {
    pub(crate) limits: Limits,
    /// In order; empty when nothing is said.
    pub(crate) devices: Vec<DeviceRule>,
}

impl Groups {
    /// `lxc.cgroup.<name>`: settings of the old hierarchies.
    pub(super) fn read_old(&mut self, line: Line<'_>, name: &str, problems: &mut Problems) {
        if self.read_devices(line, name, problems) {
            return;
        }
        let limits = &mut self.limits;
        let value = line.value;
        let read = match name {
            "memory.limit_in_bytes" => bytes(value).map(|n| limits.memory = Some(n)),
            "memory.soft_limit_in_bytes" => {
                bytes(value).map(|n| limits.memory_reservation = Some(n))
            }
            "memory.memsw.limit_in_bytes" => bytes(value).map(|n| limits.memory_and_swap = Some(n)),
            "cpu.shares" => whole(value, 2, 262_144).map(|n| limits.cpu_shares = Some(n)),
            "cpu.cfs_quota_us" => value
                .parse()
                .ok()
                .filter(|quota: &i64| *quota == -1 || *quota >= 1000)
                .map(|quota| limits.cpu_quota = Some(quota)),
            "cpu.cfs_period_us" => {
                whole(value, 1000, 1_000_000).map(|n| limits.cpu_period = Some(n))
            }
            "cpuset.cpus" => list(value).map(|text| limits.cpus = Some(text)),
            "cpuset.mems" => list(value).map(|text| limits.mems = Some(text)),
            "pids.max" => count(value).map(|n| limits.pids = Some(n)),
            "blkio.weight" => whole(value, 10, 1000)
                .and_then(|n| u16::try_from(n).ok())
                .map(|n| limits.io_weight = Some(n)),
            _ => {
                problems.add(
                    line.number,
                    format_args!("{} is not supported", Shown(line.key)),
                    "take it out; memory.limit_in_bytes, memory.soft_limit_in_bytes, memory.memsw.limit_in_bytes, cpu.shares, \
                     cpu.cfs_quota_us, cpu.cfs_period_us, cpuset.cpus, cpuset.mems, pids.max, blkio.weight and devices are",
                );
                return;
            }
        };
        if read.is_none() {
            no_value(line, problems);
        }
    }

    /// `lxc.cgroup2.<name>`: settings of the unified hierarchy.
    pub(super) fn read_unified(&mut self, line: Line<'_>, name: &str, problems: &mut Problems) {
        if self.read_devices(line, name, problems) {
            return;
        }
        let is_word = |text: &str| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        };
        let is_known = name
            .split_once('.')
            .is_some_and(|(controller, rest)| UNIFIED.contains(&controller) && is_word(rest));
        if !is_known {
            problems.add(
                line.number,
                format_args!("{} is no setting of a control group", Shown(line.key)),
                format_args!("take it out; controllers are {}", UNIFIED.join(", ")),
            );
            return;
        }
        let limits = &mut self.limits;
        // Those that every machine can hold, whichever hierarchy it has.
        let read = match name {
            "memory.max" => bytes(line.value).map(|n| limits.memory = Some(n)),
            "memory.low" => bytes(line.value).map(|n| limits.memory_reservation = Some(n)),
            "pids.max" => count(line.value).map(|n| limits.pids = Some(n)),
            "cpuset.cpus" => list(line.value).map(|text| limits.cpus = Some(text)),
            "cpuset.mems" => list(line.value).map(|text| limits.mems = Some(text)),
            "cpu.weight" => whole(line.value, 1, 10_000)
                .map(|weight| limits.cpu_shares = Some(shares_of(weight))),
            "cpu.max" => cpu_max(line.value).map(|(quota, period)| {
                limits.cpu_quota = Some(quota);
                limits.cpu_period = Some(period);
            }),
            _ if line.value.is_empty() => None,
            _ => {
                limits
                    .unified
                    .insert(name.to_owned(), line.value.to_owned());
                Some(())
            }
        };
        if read.is_none() {
            no_value(line, problems);
        }
    }

    /// `devices.allow` and `devices.deny`.
    fn read_devices(&mut self, line: Line<'_>, name: &str, problems: &mut Problems) -> bool {
        let allow = match name {
            "devices.allow" => true,
            "devices.deny" => false,
            _ => return false,
        };
        if line.value.is_empty() {
            self.devices.clear();
            return true;
        }
        match device_rule(line.value, allow) {
            Some(rule) => self.devices.push(rule),
            None => problems.add(
                line.number,
                format_args!("{} is no rule for devices", Shown(line.value)),
                "write \"a\", or kind, numbers and access such as \"c 188:* rwm\"",
            ),
        }
        true
    }
}

fn no_value(line: Line<'_>, problems: &mut Problems) {
    problems.add(
        line.number,
        format_args!("{} is no value for {}", Shown(line.value), line.key),
        "write one that the kernel takes, or take the line out",
    );
}

/// `a`, `c 1:3 rwm`, `b 8:* r`.
fn device_rule(text: &str, allow: bool) -> Option<DeviceRule> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    let number = |text: &str| match text {
        "*" => Some(None),
        digits => digits.parse::<u32>().ok().map(Some),
    };
    let (kind, numbers, access) = match fields.as_slice() {
        ["a"] => ('a', "*:*", "rwm"),
        [kind, numbers] => (kind.parse().ok()?, *numbers, "rwm"),
        [kind, numbers, access] => (kind.parse().ok()?, *numbers, *access),
        _ => return None,
    };
    let (major, minor) = numbers.split_once(':')?;
    let (major, minor) = (number(major)?, number(minor)?);
    let is_access = !access.is_empty() && access.bytes().all(|byte| b"rwm".contains(&byte));
    let is_kind = matches!(kind, 'b' | 'c') || (kind == 'a' && major.is_none() && minor.is_none());
    (is_access && is_kind).then(|| DeviceRule {
        allow,
        kind,
        major,
        minor,
        access: access.to_owned(),
    })
}

/// Bytes with the kernel's suffixes; `-1` and `max` are no limit.
fn bytes(text: &str) -> Option<i64> {
    if matches!(text, "-1" | "max") {
        return Some(-1);
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        "t" | "T" => 40,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(1 << shift)
}

fn whole(text: &str, min: u64, max: u64) -> Option<u64> {
    text.parse()
        .ok()
        .filter(|number| (min..=max).contains(number))
}

fn count(text: &str) -> Option<i64> {
    match text {
        "max" => Some(-1),
        text => text.parse().ok().filter(|count| *count > 0),
    }
}

/// `0-2,4`.
fn list(text: &str) -> Option<String> {
    let is_list = text
        .bytes()
        .all(|b| b.is_ascii_digit() || b"-,".contains(&b));
    (is_list && text.starts_with(|c: char| c.is_ascii_digit())).then(|| text.to_owned())
}

/// `max`, `50000`, `50000 100000`.
fn cpu_max(text: &str) -> Option<(i64, u64)> {
    const PERIOD_US: u64 = 100_000;
    let mut words = text.split_whitespace();
    let quota = match words.next()? {
        "max" => -1,
        text => text.parse().ok().filter(|quota| *quota >= 1000)?,
    };
    let period = match words.next() {
        None => PERIOD_US,
        Some(text) => whole(text, 1000, 1_000_000)?,
    };
    words.next().is_none().then_some((quota, period))
}

/// The inverse of what runc makes of shares.
fn shares_of(weight: u64) -> u64 {
    2 + ((weight - 1) * 262_142).div_ceil(9_999)
}

/// `lxc.prlimit.<name>`: soft and hard limit, `1024:4096`, `unlimited`.
pub(super) fn read_rlimit(
    line: Line<'_>,
    name: &str,
    rlimits: &mut BTreeMap<&'static str, (u64, u64)>,
    problems: &mut Problems,
) {
    let Some((kind, _)) = RLIMITS.iter().find(|(known, _)| *known == name) else {
        problems.add(
            line.number,
            format_args!("there is no limit {}", Shown(name)),
            "use a name such as nofile, nproc, core",
        );
        return;
    };
    if line.value.is_empty() {
        rlimits.remove(kind);
        return;
    }
    let one = |text: &str| match text.trim() {
        "unlimited" => Some(u64::MAX),
        text => text.parse().ok(),
    };
    let both = match line.value.split_once(':') {
        Some((soft, hard)) => one(soft).zip(one(hard)),
        None => one(line.value).map(|both| (both, both)),
    };
    match both.filter(|(soft, hard)| soft <= hard) {
        Some(both) => drop(rlimits.insert(kind, both)),
        None => problems.add(
            line.number,
            format_args!("{} is no limit", Shown(line.value)),
            "write a number, \"soft:hard\" or \"unlimited\"",
        ),
    }
}

/// Which capabilities a container has; LXC gives all when nothing is said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Capabilities {
    /// All that this machine has.
    #[default]
    All,
    /// All but these.
    Drop(BTreeSet<&'static str>),
    /// These.
    Keep(BTreeSet<&'static str>),
}

impl Capabilities {
    pub(super) fn read(&mut self, line: Line<'_>, keep: bool, problems: &mut Problems) {
        if line.value.is_empty() {
            *self = Self::All;
            return;
        }
        if matches!(
            (&*self, keep),
            (Self::Drop(_), true) | (Self::Keep(_), false)
        ) {
            problems.add(
                line.number,
                "lxc.cap.drop and lxc.cap.keep exclude each other",
                "keep one of the two",
            );
            return;
        }
        let mut names = match std::mem::take(self) {
            Self::All => BTreeSet::new(),
            Self::Drop(names) | Self::Keep(names) => names,
        };
        for word in line.value.split_whitespace() {
            if keep && word == "none" {
                names.clear();
                continue;
            }
            match capability(word) {
                Some(name) => drop(names.insert(name)),
                None => problems.add(
                    line.number,
                    format_args!("there is no capability {}", Shown(word)),
                    "use names such as sys_admin, net_raw",
                ),
            }
        }
        *self = if keep {
            Self::Keep(names)
        } else {
            Self::Drop(names)
        };
    }
}

/// `sys_admin`, `CAP_SYS_ADMIN`, or its number.
fn capability(word: &str) -> Option<&'static str> {
    let all = crate::spec::CAPABILITIES;
    if let Ok(number) = word.parse::<usize>() {
        return all.get(number).copied();
    }
    let word = word.to_ascii_uppercase();
    let word = word.strip_prefix("CAP_").unwrap_or(&word);
    all.into_iter()
        .find(|name| name.strip_prefix("CAP_") == Some(word))
}
