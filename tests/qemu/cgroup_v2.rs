//! The main job on pure cgroup v2: limits that hold, memory that runs out, an update in place, a rollback, a restart, a switch-off.

use std::time::Duration;

use acceptance::image::{Image, busybox};
use acceptance::manifest::Manifest;
use serde_json::{Value, json};

use crate::bench;
use crate::machine::Machine;
use crate::system::Revision;

const LIMIT: u64 = 24 << 20;
const FILES: &[(&str, &str)] = &[
    // Tells when it runs, then that it is ready.
    (
        "bin/service",
        "#!/bin/sh\nread -r up _ </proc/uptime\necho \"$up\" >>/data/started\nexec /bin/ready -- /bin/sleep 5000\n",
    ),
    // Uses more memory than it may, when it is told to or at once.
    (
        "bin/hungry",
        "#!/bin/sh\nuntil [ -e /data/eat ] || [ \"$1\" = now ]; do sleep 0.2; done\nrm -f /data/eat\n\
         exec dd if=/dev/zero of=/dev/null bs=100M count=1\n",
    ),
];

fn revision(image: &Image, word: &str, policy: &str) -> Manifest {
    let volume = json!({"data": {"persistence": "permanent", "path": "/data"}});
    Manifest::with_groups(&[("app", "STARTED", 30)])
        .container(
            "web",
            image,
            &["/bin/service"],
            json!({"status_goal": "READY", "storage": volume}),
        )
        .container(
            "hungry",
            image,
            &["/bin/hungry", word],
            json!({
                "storage": volume,
                "resources": {"memory": "24M", "cpu": 0.5, "pids": 30},
                "auto_recovery": {"policy": policy, "max_retries": 5, "retry_delay": 1},
            }),
        )
}

fn container(machine: &mut Machine, name: &str) -> Value {
    let status: Value =
        serde_json::from_str(&machine.must("coxctl --json status")).expect("JSON of the status");
    let mut containers = status["containers"].as_array().expect("a list").iter();
    let found = containers.find(|container| container["name"] == name);
    found.expect("it is listed").clone()
}

fn pid(machine: &mut Machine, name: &str) -> u64 {
    container(machine, name)["pid"].as_u64().expect("it runs")
}

/// Seconds since the kernel started, as the machine wrote them down.
fn seconds(machine: &mut Machine, file: &str) -> f64 {
    let text = machine.must(&format!("cat {file}"));
    let first = text.lines().next().unwrap_or_default();
    first.parse().expect("seconds")
}

#[test]
fn containers_run_on_pure_cgroup_v2() {
    let image = busybox(FILES);
    let [one, two, three] = [
        revision(&image, "later", "always"),
        revision(&image, "later-on", "always"),
        revision(&image, "now", "no"),
    ];
    let images = [&image];
    let written =
        [("one", &one), ("two", &two), ("three", &three)].map(|(name, manifest)| Revision {
            name,
            manifest,
            images: &images,
        });
    let Some((bench, disk)) = bench(&written) else {
        return;
    };
    let mut machine = bench.boot(disk);
    println!(
        "first boot, empty storage: init {} s, socket {} s after the kernel started",
        seconds(&mut machine, "/run/times/init"),
        seconds(&mut machine, "/run/times/socket")
    );
    assert_only_version_2(&mut machine);

    machine.must("coxctl install /revisions/one --name locals/one --run --wait --timeout 50");
    assert_limits(&mut machine);
    let web = pid(&mut machine, "web");
    assert_memory_runs_out(&mut machine);

    let hungry = pid(&mut machine, "hungry");
    machine.must("coxctl install /revisions/two --name locals/two --run --wait --timeout 50");
    assert_eq!(pid(&mut machine, "web"), web, "web was not changed");
    assert_ne!(pid(&mut machine, "hungry"), hungry, "hungry was");

    let three = machine
        .run("coxctl install /revisions/three --name locals/three --run --wait --timeout 50");
    assert_ne!(three.code, 0, "it is sick: {}", three.text);
    let why = machine.must("coxctl why locals/three");
    for word in ["hungry", "used more memory than it may", "locals/two"] {
        assert!(why.contains(word), "{word:?} is not in: {why}");
    }
    machine.wait(
        "locals/two runs again",
        Duration::from_secs(30),
        |machine| {
            let found = container(machine, "hungry");
            (found["good"] == true && found["pid"].is_u64()).then_some(())
        },
    );
    assert_eq!(pid(&mut machine, "web"), web, "the rollback was in place");

    machine.must("coxctl reboot");
    let disk = machine.wait_for_end(Duration::from_secs(60));
    assert_eq!(disk.damage(), None);
    let mut machine = bench.boot(disk);
    machine.wait("locals/two runs", Duration::from_secs(60), |machine| {
        let status = machine.must("coxctl --json status");
        let status: Value = serde_json::from_str(&status).expect("JSON of the status");
        let mut containers = status["containers"].as_array()?.iter();
        (status["running"] == "locals/two" && containers.all(|one| one["good"] == true))
            .then_some(())
    });
    println!(
        "boot with two containers: init {} s, socket {} s, first container {} s after the kernel started",
        seconds(&mut machine, "/run/times/init"),
        seconds(&mut machine, "/run/times/socket"),
        machine.must("tail -n 1 /storage/disks/perm/web/data/started")
    );
    machine.must("coxctl poweroff");
    let disk = machine.wait_for_end(Duration::from_secs(60));
    assert_eq!(disk.damage(), None);
    println!("{} flushes of the disk", disk.flushes());
}

fn assert_only_version_2(machine: &mut Machine) {
    // Magic number of cgroup2fs; busybox does not know its name.
    assert_eq!(machine.must("stat -f -c %t /sys/fs/cgroup"), "63677270");
    assert_eq!(
        machine.must("awk '$3 ~ /^cgroup/ {print $2, $3}' /proc/mounts"),
        "/sys/fs/cgroup cgroup2"
    );
}

fn assert_limits(machine: &mut Machine) {
    let pid = pid(machine, "hungry");
    let line = machine.must(&format!("cat /proc/{pid}/cgroup"));
    let group = line.strip_prefix("0::").expect("one hierarchy, version 2");
    assert!(group.starts_with("/coxswain/"), "{group}");
    for (file, expected) in [
        ("memory.max", LIMIT.to_string()),
        ("pids.max", "30".to_owned()),
        ("cpu.max", "50000 100000".to_owned()),
    ] {
        let read = machine.must(&format!("cat /sys/fs/cgroup{group}/{file}"));
        assert_eq!(read, expected, "{file}");
    }
}

/// A container that uses more memory than it may is killed, told as such, and started again by its policy.
fn assert_memory_runs_out(machine: &mut Machine) {
    let before = pid(machine, "hungry");
    machine.must("touch /storage/disks/perm/hungry/data/eat");
    machine.wait("the kill is told", Duration::from_secs(30), |machine| {
        let events = machine.must("coxctl --json events");
        events.contains("(out of memory)").then_some(())
    });
    machine.wait("hungry runs again", Duration::from_secs(30), |machine| {
        let found = container(machine, "hungry");
        let other = found["pid"].as_u64().is_some_and(|pid| pid != before);
        (other && found["restarts"].as_u64() >= Some(1)).then_some(())
    });
    let why = machine.must("coxctl why hungry");
    assert!(why.contains("used more memory than it may"), "{why}");
}
