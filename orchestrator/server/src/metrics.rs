//! Figures for monitors: what is measured here (calls), and the text of `GET /metrics`.
//!
//! Measuring a call is three additions without a lock. Writing the text reads control groups and the storage, so it runs where waiting
//! is allowed; counting objects is done at most every few seconds, however often it is asked for.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use api::messages::ours::{Condition, DeviceStatus};
use api::openmetrics::{Exposition, Kind, Observations};
use api::routes::{ROUTES, Route};
use device::handle::View;
use model::usage::{ContainerUsage, MachineUsage, Stalls, Usage};
use model::{ContainerName, Instant, ObjectId};
use store::SpaceLeft;

use crate::limits;
use crate::storage::Storage;

/// Reads what containers and the machine use; given by the daemon. May wait for the kernel, not longer.
pub trait Figures: Send + Sync + 'static {
    /// Containers that run.
    fn containers(&self) -> BTreeMap<ContainerName, ContainerUsage>;
    /// The machine and this process.
    fn machine(&self) -> MachineUsage;
}

/// Upper bounds of the ranges in which calls are counted, seconds.
const BOUNDS: [f64; 13] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];
/// The same in microseconds.
const BOUNDS_US: [u64; 13] = [
    500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    10_000_000,
];
/// First digit of an answer's status, as it is told.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Calls of one route.
#[derive(Debug, Default)]
struct RouteCalls {
    ranges: [AtomicU64; BOUNDS.len() + 1],
    sum_us: AtomicU64,
    classes: [AtomicU64; CLASSES.len()],
}

/// Calls since the start, by route.
#[derive(Debug)]
pub(crate) struct Calls {
    routes: Vec<RouteCalls>,
    objects: Mutex<Option<(Instant, Objects)>>,
}

/// Complete objects of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Objects {
    count: u64,
    bytes: u64,
}

impl Calls {
    pub(crate) fn new() -> Self {
        Self {
            routes: ROUTES.iter().map(|_| RouteCalls::default()).collect(),
            objects: Mutex::new(None),
        }
    }

    /// Counts a call: from its head until its answer begins.
    pub(crate) fn note(&self, route: &'static Route, status: u16, took: Duration) {
        let found = ROUTES.iter().position(|other| std::ptr::eq(other, route));
        let Some(calls) = found.and_then(|index| self.routes.get(index)) else {
            return;
        };
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let range = BOUNDS_US.partition_point(|bound| *bound < took_us);
        let class = usize::from(status / 100).saturating_sub(1);
        let counters = [calls.ranges.get(range), calls.classes.get(class)];
        for counter in counters.into_iter().flatten() {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        calls.sum_us.fetch_add(took_us, Ordering::Relaxed);
    }

    /// Complete objects, counted anew when the last count is old.
    pub(crate) fn objects(&self, storage: &dyn Storage, now: Instant) -> Option<Objects> {
        // One counts, the others wait for it.
        let mut known = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, objects)) = *known
            && now.since(at) < limits::OBJECT_COUNT_AGE
        {
            return Some(objects);
        }
        let mut objects = Objects::default();
        let mut count = |_: ObjectId, bytes: u64| {
            objects.count += 1;
            objects.bytes = objects.bytes.saturating_add(bytes);
            std::ops::ControlFlow::Continue(())
        };
        storage.visit_objects(&mut count).ok()?;
        *known = Some((now, objects));
        Some(objects)
    }
}

/// What the text is written from.
pub(crate) struct Facts<'a> {
    pub(crate) status: &'a DeviceStatus,
    pub(crate) view: &'a View,
    pub(crate) healthy: bool,
    pub(crate) usage: &'a Usage,
    pub(crate) space: Option<SpaceLeft>,
    pub(crate) objects: Option<Objects>,
    pub(crate) calls: &'a Calls,
}

/// Writes the text.
pub(crate) fn text(facts: &Facts<'_>) -> String {
    let mut out = Exposition::default();
    device(&mut out, facts);
    containers(&mut out, facts.status);
    usage(&mut out, &facts.usage.containers);
    machine(&mut out, &facts.usage.machine);
    store(&mut out, facts);
    updates(&mut out, facts.view);
    calls(&mut out, facts.calls);
    out.finish()
}

fn device(out: &mut Exposition, facts: &Facts<'_>) {
    let status = facts.status;
    out.family(Kind::Info, "coxswain_build", "", "The orchestrator.")
        .sample(&[("version", &status.version)], true);
    let name = |revision: &Option<model::RevisionId>| {
        revision
            .as_ref()
            .map_or_else(String::new, ToString::to_string)
    };
    let trial = status.trial.as_ref();
    let trial = name(&trial.map(|trial| trial.revision.clone()));
    out.family(
        Kind::Info,
        "coxswain_revision",
        "",
        "Revisions by their part.",
    )
    .sample(
        &[
            ("running", &name(&status.running)),
            ("committed", &name(&status.committed)),
            ("previous", &name(&status.previous)),
            ("trial", &trial),
        ],
        true,
    );
    let condition = match status.condition {
        Condition::Starting => "starting",
        Condition::Good => "good",
        Condition::Updating => "updating",
        Condition::Degraded => "degraded",
        Condition::ShuttingDown => "shutting-down",
    };
    out.family(
        Kind::Info,
        "coxswain_condition",
        "",
        "The device in one word.",
    )
    .sample(&[("condition", condition)], true);
    out.family(
        Kind::Gauge,
        "coxswain_healthy",
        "",
        "Whether GET /healthz answers 200.",
    )
    .sample(&[], facts.healthy);
    out.family(Kind::Gauge, "coxswain_notices", "", "What needs a person.")
        .sample(&[], status.notices.len() as u64);
    out.family(
        Kind::Gauge,
        "coxswain_uptime",
        "seconds",
        "Since the machine's boot.",
    )
    .sample(&[], status.uptime_s);
}

fn containers(out: &mut Exposition, status: &DeviceStatus) {
    let all = &status.containers;
    let mut family = out.family(
        Kind::Info,
        "coxswain_container",
        "",
        "Containers of the running revision.",
    );
    for one in all {
        let (status, goal) = (one.status.to_string(), one.goal.to_string());
        let labels = [
            ("container", one.name.as_str()),
            ("group", one.group.as_str()),
            ("status", &status),
            ("goal", &goal),
        ];
        family.sample(&labels, true);
    }
    let mut each = |kind, name, unit, help, value: fn(&_) -> Option<u64>| {
        let mut family = out.family(kind, name, unit, help);
        for one in all {
            family.maybe(&[("container", one.name.as_str())], value(one));
        }
    };
    type One = api::messages::ours::ContainerStatus;
    each(
        Kind::Gauge,
        "coxswain_container_good",
        "",
        "Whether it has reached its goal or was stopped by a person.",
        |one: &One| Some(one.good.into()),
    );
    each(
        Kind::Counter,
        "coxswain_container_restarts",
        "",
        "Starts since the revision began to run, minus one.",
        |one: &One| Some(one.restarts.into()),
    );
    each(
        Kind::Gauge,
        "coxswain_container_uptime",
        "seconds",
        "Since its last start.",
        |one: &One| one.uptime_s,
    );
    each(
        Kind::Gauge,
        "coxswain_container_exit_code",
        "",
        "Of its last end.",
        |one: &One| one.exit_code.map(u64::from),
    );
}

/// Microseconds as seconds.
fn seconds(microseconds: u64) -> f64 {
    Duration::from_micros(microseconds).as_secs_f64()
}

fn usage(out: &mut Exposition, all: &BTreeMap<ContainerName, ContainerUsage>) {
    let mut times = |name, help, value: fn(&ContainerUsage) -> Option<u64>| {
        let mut family = out.family(Kind::Counter, name, "seconds", help);
        for (container, used) in all {
            family.maybe(
                &[("container", container.as_str())],
                value(used).map(seconds),
            );
        }
    };
    times("coxswain_container_cpu", "Processor time.", |used| {
        used.cpu_us
    });
    times(
        "coxswain_container_cpu_throttled",
        "Time in which it was held back by its processor limit.",
        |used| used.cpu_throttled_us,
    );
    let mut each = |kind, name, unit, help, value: fn(&ContainerUsage) -> Option<u64>| {
        let mut family = out.family(kind, name, unit, help);
        for (container, used) in all {
            family.maybe(&[("container", container.as_str())], value(used));
        }
    };
    each(
        Kind::Gauge,
        "coxswain_container_memory",
        "bytes",
        "Memory, with the page cache of its files.",
        |used| used.memory_bytes,
    );
    each(
        Kind::Gauge,
        "coxswain_container_memory_working_set",
        "bytes",
        "Memory without page cache that can be taken back at once.",
        |used| used.memory_working_set_bytes,
    );
    each(
        Kind::Gauge,
        "coxswain_container_memory_limit",
        "bytes",
        "What it may use; not told without a limit.",
        |used| used.memory_limit_bytes,
    );
    each(
        Kind::Counter,
        "coxswain_container_oom_kills",
        "",
        "Processes killed because it used more memory than it may.",
        |used| used.oom_kills,
    );
    each(
        Kind::Counter,
        "coxswain_container_io_read",
        "bytes",
        "Read from block devices.",
        |used| used.io_read_bytes,
    );
    each(
        Kind::Counter,
        "coxswain_container_io_written",
        "bytes",
        "Written to block devices.",
        |used| used.io_write_bytes,
    );
    each(
        Kind::Gauge,
        "coxswain_container_pids",
        "",
        "Processes and threads.",
        |used| used.pids,
    );
    each(
        Kind::Gauge,
        "coxswain_container_pids_limit",
        "",
        "How many it may have; not told without a limit.",
        |used| used.pids_limit,
    );
    let mut family = out.family(
        Kind::Counter,
        "coxswain_container_pressure_waiting",
        "seconds",
        "Time in which some or all of its tasks waited for a resource.",
    );
    for (container, used) in all {
        for (resource, kind, waited) in waits(&used.pressure) {
            let labels = [
                ("container", container.as_str()),
                ("resource", resource),
                ("tasks", kind),
            ];
            family.sample(&labels, waited);
        }
    }
}

fn waits(pressure: &Stalls) -> Vec<(&'static str, &'static str, f64)> {
    let told = pressure.named().into_iter();
    told.filter_map(|(name, stall)| stall.map(|stall| (name, stall)))
        .flat_map(|(name, stall)| {
            [
                (name, "some", seconds(stall.some_us)),
                (name, "all", seconds(stall.full_us)),
            ]
        })
        .collect()
}

fn machine(out: &mut Exposition, machine: &MachineUsage) {
    out.family(Kind::Gauge, "coxswain_machine_cpus", "", "Processors.")
        .sample(&[], machine.cpus);
    out.family(
        Kind::Counter,
        "coxswain_machine_cpu_busy",
        "seconds",
        "Time in which processors were busy, all of them added up.",
    )
    .maybe(&[], machine.cpu_busy_us.map(seconds));
    out.family(Kind::Gauge, "coxswain_machine_memory", "bytes", "Memory.")
        .maybe(&[], machine.memory_total_bytes);
    out.family(
        Kind::Gauge,
        "coxswain_machine_memory_available",
        "bytes",
        "Memory that can be had without swapping.",
    )
    .maybe(&[], machine.memory_available_bytes);
    let mut family = out.family(
        Kind::Counter,
        "coxswain_machine_pressure_waiting",
        "seconds",
        "Time in which some or all tasks waited for a resource.",
    );
    for (resource, kind, waited) in waits(&machine.pressure) {
        family.sample(&[("resource", resource), ("tasks", kind)], waited);
    }
    let own = &machine.orchestrator;
    out.family(
        Kind::Counter,
        "process_cpu",
        "seconds",
        "Processor time of the orchestrator.",
    )
    .maybe(&[], own.cpu_us.map(seconds));
    out.family(
        Kind::Gauge,
        "process_resident_memory",
        "bytes",
        "Resident memory of the orchestrator.",
    )
    .maybe(&[], own.resident_bytes);
    out.family(
        Kind::Gauge,
        "process_open_fds",
        "",
        "Open files of the orchestrator.",
    )
    .maybe(&[], own.open_files);
}

fn store(out: &mut Exposition, facts: &Facts<'_>) {
    let mut gauge = |name, unit, help, value: Option<u64>| {
        out.family(Kind::Gauge, name, unit, help).maybe(&[], value);
    };
    let (objects, space) = (facts.objects, facts.space);
    gauge(
        "coxswain_store_objects",
        "",
        "Complete objects.",
        objects.map(|objects| objects.count),
    );
    gauge(
        "coxswain_store_objects_size",
        "bytes",
        "Size of complete objects.",
        objects.map(|objects| objects.bytes),
    );
    gauge(
        "coxswain_store_size",
        "bytes",
        "Size of the storage.",
        space.map(|space| space.total),
    );
    gauge(
        "coxswain_store_free",
        "bytes",
        "Free on the storage.",
        space.map(|space| space.free),
    );
    gauge(
        "coxswain_store_reserve",
        "bytes",
        "Of the free bytes, what uploads leave alone.",
        space.map(|space| space.reserved),
    );
    gauge(
        "coxswain_store_available",
        "bytes",
        "What uploads may still take.",
        space.map(|space| space.available),
    );
}

fn updates(out: &mut Exposition, view: &View) {
    let updates = &view.updates;
    let mut family = out.family(
        Kind::Counter,
        "coxswain_updates",
        "",
        "Updates that ended since the orchestrator's start, by outcome.",
    );
    for (outcome, count) in [
        ("done", updates.done),
        ("updated", updates.updated),
        ("refused", updates.refused),
        ("failed", updates.failed),
    ] {
        family.sample(&[("outcome", outcome)], count);
    }
    out.family(
        Kind::Counter,
        "coxswain_updates_duration",
        "seconds",
        "Durations of updates that began and ended since the orchestrator's start, added up.",
    )
    .sample(&[], updates.time.as_secs_f64());
    out.family(
        Kind::Counter,
        "coxswain_updates_timed",
        "",
        "How many updates that are.",
    )
    .sample(&[], updates.timed);
    out.family(
        Kind::Gauge,
        "coxswain_update_last_duration",
        "seconds",
        "Duration of the newest of them.",
    )
    .maybe(&[], updates.last.map(|last| last.as_secs_f64()));
    out.family(
        Kind::Gauge,
        "coxswain_update_tries_left",
        "",
        "Tries that the running trial has left.",
    )
    .maybe(&[], view.trial.as_ref().map(|trial| trial.tries_left));
}

fn calls(out: &mut Exposition, calls: &Calls) {
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let rows = || {
        let each = ROUTES.iter().zip(&calls.routes);
        each.filter(|(_, calls)| calls.ranges.iter().any(|range| load(range) > 0))
    };
    let mut family = out.family(
        Kind::Counter,
        "coxswain_api_calls",
        "",
        "Calls of the control socket, by the class of their answer.",
    );
    for (route, calls) in rows() {
        for (class, counter) in CLASSES.iter().zip(&calls.classes) {
            let count = load(counter);
            if count > 0 {
                let labels = [
                    ("method", route.method.as_str()),
                    ("route", route.path),
                    ("class", *class),
                ];
                family.sample(&labels, count);
            }
        }
    }
    let mut family = out.histogram(
        "coxswain_api_call_duration",
        "seconds",
        "From the head of a call until its answer begins.",
    );
    for (route, calls) in rows() {
        let counts: Vec<u64> = calls.ranges.iter().map(load).collect();
        let observed = Observations {
            bounds: &BOUNDS,
            counts: &counts,
            sum: seconds(load(&calls.sum_us)),
        };
        let labels = [("method", route.method.as_str()), ("route", route.path)];
        family.observations(&labels, &observed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::WallTime;
    use model::usage::Stall;

    #[test]
    fn ranges_are_the_bounds() {
        for (bound, microseconds) in BOUNDS.iter().zip(BOUNDS_US) {
            assert!((bound * 1e6 - microseconds as f64).abs() < 1e-6);
        }
    }

    #[test]
    fn calls_are_counted_where_they_belong() {
        let calls = Calls::new();
        let route = &ROUTES[0];
        for (microseconds, status) in [(1, 200), (500, 204), (501, 404), (99_000_000, 500)] {
            calls.note(route, status, Duration::from_micros(microseconds));
        }
        let mut out = Exposition::default();
        super::calls(&mut out, &calls);
        let text = out.finish();
        let labels = r#"method="GET",route="/containers""#;
        for line in [
            format!("coxswain_api_calls_total{{{labels},class=\"2xx\"}} 2"),
            format!("coxswain_api_calls_total{{{labels},class=\"5xx\"}} 1"),
            format!("coxswain_api_call_duration_seconds_bucket{{{labels},le=\"0.0005\"}} 2"),
            format!("coxswain_api_call_duration_seconds_bucket{{{labels},le=\"0.001\"}} 3"),
            format!("coxswain_api_call_duration_seconds_bucket{{{labels},le=\"10.0\"}} 3"),
            format!("coxswain_api_call_duration_seconds_bucket{{{labels},le=\"+Inf\"}} 4"),
            format!("coxswain_api_call_duration_seconds_count{{{labels}}} 4"),
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line}\n{text}");
        }
        assert!(
            !text.contains("/groups"),
            "routes that nobody called are left out"
        );
    }

    #[test]
    fn a_whole_text() {
        let view = crate::tests::view();
        let status = crate::status::render(&view, Instant(9000), WallTime(0), None, None);
        let used = ContainerUsage {
            cpu_us: Some(1_500_000),
            memory_bytes: Some(4096),
            pressure: Stalls {
                io: Some(Stall {
                    some_us: 10,
                    full_us: 5,
                }),
                ..Stalls::default()
            },
            ..ContainerUsage::default()
        };
        let usage = Usage {
            at_ms: 9000,
            machine: MachineUsage::default(),
            containers: BTreeMap::from([("web".parse().unwrap(), used)]),
        };
        let text = text(&Facts {
            status: &status,
            view: &view,
            healthy: true,
            usage: &usage,
            space: Some(SpaceLeft {
                total: 100,
                free: 50,
                reserved: 5,
                available: 45,
            }),
            objects: Some(Objects { count: 3, bytes: 9 }),
            calls: &Calls::new(),
        });
        expect_test::expect_file!["../tests/metrics.txt"].assert_eq(&text);
    }
}
