//! What containers and the machine use, read from control groups of both versions and from `/proc`.
//!
//! Parsing is apart from reading. A file that is not there or holds something unknown leaves its figure out.

use std::fs;
use std::path::PathBuf;

use model::usage::{ContainerUsage, MachineUsage, ProcessUsage, Stall, Stalls};

use crate::cgroup::Cgroups;

/// `memory.limit_in_bytes` at and above this means no limit (version 1 rounds the largest number down to pages).
const NO_LIMIT: u64 = 1 << 62;
/// `/proc/*/stat` counts in these, on every machine since Linux 2.6.
const TICK_US: u64 = 10_000;

/// What the processes of a control group use. All `None` when it is not there.
pub fn of_group(cgroups: &Cgroups, group: &str) -> ContainerUsage {
    let folders = cgroups.folders(group);
    read_group(&|name| read_any(&folders, name))
}

fn read_any(folders: &[PathBuf], name: &str) -> Option<String> {
    folders
        .iter()
        .find_map(|folder| fs::read_to_string(folder.join(name)).ok())
}

/// Files of version 2 have other names than those of version 1, but for `pids.*` (which mean the same) and `cpu.stat`.
fn read_group(read: &dyn Fn(&str) -> Option<String>) -> ContainerUsage {
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let keyed = |name: &str, key: &str| value_of(&read(name)?, key);
    let memory_bytes = number("memory.current").or_else(|| number("memory.usage_in_bytes"));
    let reclaimable = keyed("memory.stat", "total_inactive_file")
        .or_else(|| keyed("memory.stat", "inactive_file"));
    let io = read("io.stat").map(|text| io_v2(&text)).or_else(|| {
        read("blkio.throttle.io_service_bytes_recursive")
            .or_else(|| read("blkio.throttle.io_service_bytes"))
            .map(|text| io_v1(&text))
    });
    ContainerUsage {
        cpu_us: keyed("cpu.stat", "usage_usec")
            .or_else(|| number("cpuacct.usage").map(|nanoseconds| nanoseconds / 1000)),
        cpu_throttled_us: keyed("cpu.stat", "throttled_usec")
            .or_else(|| keyed("cpu.stat", "throttled_time").map(|nanoseconds| nanoseconds / 1000)),
        memory_bytes,
        memory_working_set_bytes: memory_bytes
            .map(|bytes| bytes.saturating_sub(reclaimable.unwrap_or(0))),
        memory_limit_bytes: number("memory.max")
            .or_else(|| number("memory.limit_in_bytes"))
            .filter(|limit| *limit < NO_LIMIT),
        oom_kills: keyed("memory.events", "oom_kill")
            .or_else(|| keyed("memory.oom_control", "oom_kill")),
        io_read_bytes: io.map(|(read, _)| read),
        io_write_bytes: io.map(|(_, written)| written),
        pids: number("pids.current"),
        pids_limit: number("pids.max"),
        pressure: Stalls {
            cpu: read("cpu.pressure").and_then(|text| stall(&text)),
            memory: read("memory.pressure").and_then(|text| stall(&text)),
            io: read("io.pressure").and_then(|text| stall(&text)),
        },
    }
}

/// What the machine and this process use.
pub fn of_machine() -> MachineUsage {
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = |key: &str| value_of(&memory, key).map(|kib| kib.saturating_mul(1024));
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let pressure = |name: &str| stall(&fs::read_to_string(format!("/proc/pressure/{name}")).ok()?);
    MachineUsage {
        cpus: processors(&stat),
        cpu_busy_us: busy(&stat),
        memory_total_bytes: kib("MemTotal:"),
        memory_available_bytes: kib("MemAvailable:"),
        pressure: Stalls {
            cpu: pressure("cpu"),
            memory: pressure("memory"),
            io: pressure("io"),
        },
        orchestrator: of_this_process(),
    }
}

fn of_this_process() -> ProcessUsage {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let open = fs::read_dir("/proc/self/fd").ok();
    ProcessUsage {
        cpu_us: process_time(&stat),
        resident_bytes: value_of(&status, "VmRSS:").map(|kib| kib.saturating_mul(1024)),
        // Without the one that reads the list.
        open_files: open.map(|entries| (entries.count() as u64).saturating_sub(1)),
    }
}

/// The number after a key at the start of a line.
fn value_of(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next()? == key).then(|| words.next()?.parse().ok())?
    })
}

/// `8:0 rbytes=1 wbytes=2 rios=3 …`, a line for each device: bytes read and written.
fn io_v2(text: &str) -> (u64, u64) {
    let sum = |key: &str| -> u64 {
        text.split_ascii_whitespace()
            .filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok())
            .fold(0, u64::saturating_add)
    };
    (sum("rbytes="), sum("wbytes="))
}

/// `8:0 Read 1`, a line for each device and kind: bytes read and written.
fn io_v1(text: &str) -> (u64, u64) {
    let sum = |kind: &str| -> u64 {
        text.lines()
            .filter_map(|line| {
                let mut words = line.split_ascii_whitespace().skip(1);
                (words.next()? == kind).then(|| words.next()?.parse::<u64>().ok())?
            })
            .fold(0, u64::saturating_add)
    };
    (sum("Read"), sum("Write"))
}

/// `some avg10=0.00 … total=123` and a line `full`.
fn stall(text: &str) -> Option<Stall> {
    let total = |kind: &str| -> Option<u64> {
        let line = text
            .lines()
            .find(|line| line.split(' ').next() == Some(kind))?;
        line.split(' ')
            .find_map(|word| word.strip_prefix("total="))?
            .parse()
            .ok()
    };
    Some(Stall {
        some_us: total("some")?,
        full_us: total("full").unwrap_or(0),
    })
}

fn processors(stat: &str) -> u32 {
    let is_processor = |line: &&str| {
        line.strip_prefix("cpu")
            .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
    };
    u32::try_from(stat.lines().filter(is_processor).count()).unwrap_or(u32::MAX)
}

/// `cpu user nice system idle iowait irq softirq steal …`: all but idle and iowait.
fn busy(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line
        .split_ascii_whitespace()
        .take(8)
        .map(str::parse)
        .collect::<Result<_, _>>()
        .ok()?;
    let busy = ticks
        .iter()
        .enumerate()
        .filter(|(index, _)| !matches!(index, 3 | 4))
        .fold(0_u64, |sum, (_, ticks)| sum.saturating_add(*ticks));
    Some(busy.saturating_mul(TICK_US))
}

/// Fields 14 and 15, counted after the name, which may hold anything.
fn process_time(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user.saturating_add(system).saturating_mul(TICK_US))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(files: &[(&str, &str)]) -> ContainerUsage {
        read_group(&|name| {
            let found = files.iter().find(|(file, _)| *file == name)?;
            Some(found.1.to_owned())
        })
    }

    #[test]
    fn version_2() {
        let found = group(&[
            (
                "cpu.stat",
                "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnr_throttled 2\nthrottled_usec 70\n",
            ),
            ("memory.current", "5000\n"),
            ("memory.stat", "anon 100\ninactive_file 2000\n"),
            ("memory.max", "max\n"),
            ("memory.events", "low 0\noom 1\noom_kill 3\n"),
            (
                "io.stat",
                "8:0 rbytes=10 wbytes=20 rios=1 wios=1 dbytes=0 dios=0\n8:16 rbytes=1 wbytes=2 rios=1 wios=1\n",
            ),
            ("pids.current", "7\n"),
            ("pids.max", "64\n"),
            (
                "memory.pressure",
                "some avg10=0.00 avg60=0.00 avg300=0.00 total=44\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=33\n",
            ),
        ]);
        let expected = ContainerUsage {
            cpu_us: Some(1500),
            cpu_throttled_us: Some(70),
            memory_bytes: Some(5000),
            memory_working_set_bytes: Some(3000),
            memory_limit_bytes: None,
            oom_kills: Some(3),
            io_read_bytes: Some(11),
            io_write_bytes: Some(22),
            pids: Some(7),
            pids_limit: Some(64),
            pressure: Stalls {
                memory: Some(Stall {
                    some_us: 44,
                    full_us: 33,
                }),
                ..Stalls::default()
            },
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn version_1() {
        let found = group(&[
            ("cpuacct.usage", "2500000\n"),
            (
                "cpu.stat",
                "nr_periods 1\nnr_throttled 1\nthrottled_time 9000\n",
            ),
            ("memory.usage_in_bytes", "4096\n"),
            ("memory.stat", "inactive_file 1\ntotal_inactive_file 96\n"),
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            (
                "memory.oom_control",
                "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
            ),
            (
                "blkio.throttle.io_service_bytes",
                "8:0 Read 5\n8:0 Write 6\n8:0 Total 11\n8:16 Read 1\nTotal 12\n",
            ),
            ("pids.current", "1\n"),
            ("pids.max", "max\n"),
        ]);
        let expected = ContainerUsage {
            cpu_us: Some(2500),
            cpu_throttled_us: Some(9),
            memory_bytes: Some(4096),
            memory_working_set_bytes: Some(4000),
            memory_limit_bytes: None,
            oom_kills: Some(2),
            io_read_bytes: Some(6),
            io_write_bytes: Some(6),
            pids: Some(1),
            pids_limit: None,
            pressure: Stalls::default(),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_not_told_is_left_out() {
        assert_eq!(group(&[]), ContainerUsage::default());
        let garbage = ["cpu.stat", "memory.current", "pids.current", "io.pressure"];
        let garbage = garbage.map(|name| (name, "some total=x\nusage_usec\n\u{1f980}"));
        assert_eq!(group(&garbage), ContainerUsage::default());
    }

    #[test]
    fn the_machine() {
        let stat = "cpu  1 2 3 100 50 4 5 6 7 8\ncpu0 1 2 3 4\ncpu1 1 2 3 4\nintr 5\n";
        assert_eq!((processors(stat), busy(stat)), (2, Some(21 * TICK_US)));
        let process = "12 (a) b) S 1 1 1 0 -1 4194560 1 0 0 0 30 12 0 0 20 0 1 0";
        assert_eq!(process_time(process), Some(42 * TICK_US));
        let found = of_machine();
        assert!(found.cpus > 0);
        assert!(found.memory_total_bytes > found.memory_available_bytes);
        assert!(
            found
                .orchestrator
                .resident_bytes
                .is_some_and(|bytes| bytes > 0)
        );
        assert!(
            found
                .orchestrator
                .open_files
                .is_some_and(|files| files >= 3)
        );
    }
}
