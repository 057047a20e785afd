//! Coxswain as the init of a machine, in the initramfs that devices boot: its storage found and grown, orphans reaped, a trial that kills the
//! init or hangs the loop rolled back, an end in bounded time that leaves the file system clean. Five boots.

use std::time::{Duration, Instant};

use acceptance::image::{Image, busybox};
use acceptance::manifest::Manifest;
use serde_json::{Value, json};

use crate::pid1_machine::{CONSOLE, Device, Guest};
use crate::system::Revision;

/// A boot takes 20 s on an idle machine, and CI's is not idle.
const BOOT: Duration = Duration::from_secs(240);
const UUID: &str = "3f1c8f0e-7e47-4c0c-9d9a-6f1f0c3b9a55";
/// One minute, so that a machine which is starved of its own processor is not reset.
const NORMAL: &str = "coxswain.storage-wait=60s coxswain.modules=softdog coxswain.watchdog-timeout=60s coxswain.tries=2";

/// Asks for the end and goes on: only SIGKILL stops it.
const FILES: &[(&str, &str)] = &[(
    "bin/stubborn",
    "#!/bin/sh\ntrap '' TERM INT PWR\nwhile :; do sleep 1; done\n",
)];

fn revision(image: &Image, word: &str) -> Manifest {
    let quick = json!({"stop-timeout": 3});
    Manifest::with_groups(&[("app", "STARTED", 60)])
        .container("stubborn", image, &["/bin/stubborn", word], quick)
        .container("sleeper", image, &["/bin/sleep", "50000"], json!({}))
}

fn status(guest: &mut Guest) -> Value {
    let text = guest.until("coxctl --json status", BOOT);
    serde_json::from_str(&text).expect("JSON of the status")
}

/// Waits until this revision runs with everything good.
fn wait_for_running(guest: &mut Guest, revision: &str) {
    let end = Instant::now() + BOOT;
    loop {
        let status = status(guest);
        let all_good = status["containers"]
            .as_array()
            .is_some_and(|list| !list.is_empty() && list.iter().all(|one| one["good"] == true));
        if status["running"] == revision && all_good {
            return;
        }
        assert!(
            Instant::now() < end,
            "{revision} does not run: {status}\n{}",
            guest.console()
        );
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Prints what both processes of ours take: the init, and the device.
fn memory(guest: &mut Guest, containers: u32) {
    let device = "$(ps | sed -n 's/^ *\\([0-9]*\\) .*coxswain device.*/\\1/p' | head -n 1)";
    for (name, pid) in [("PID 1", "1"), ("device process", device)] {
        let mut figure = |file: &str, field: &str| -> u64 {
            let line = guest.must(&format!("grep '^{field}:' /proc/{pid}/{file}"));
            let kib = line.split_ascii_whitespace().nth(1);
            kib.and_then(|kib| kib.parse().ok()).expect("a figure")
        };
        let (rss, pss) = (figure("status", "VmRSS"), figure("smaps_rollup", "Pss"));
        println!("memory of {name} with {containers} containers: RSS {rss} KiB, PSS {pss} KiB");
        // Ten times what it needs is a mistake of ours.
        assert!(pss < 60 << 10, "{name} takes {pss} KiB");
    }
}

#[test]
fn coxswain_is_the_init() {
    let Some((kernel, _one)) = crate::kernel_alone(module_path!()) else {
        return;
    };
    let image = busybox(FILES);
    let images = [&image];
    let one = revision(&image, "one");
    let third = ["/bin/sleep", "50000"];
    let two = revision(&image, "two").container("third", &image, &third, json!({}));
    let written = [("one", &one), ("two", &two)].map(|(name, manifest)| Revision {
        name,
        manifest,
        images: &images,
    });
    let device = Device::build(&kernel, &written, UUID);

    let kept = first_boot(&device);
    second_boot_dies_as_init(&device, kept);
    third_boot_hangs(&device);
    fourth_boot_falls_back(&device);
    without_a_console(&device);
}

/// By label, from an empty storage; what an init owes to the machine; an end with a container that ignores signals.
fn first_boot(device: &Device) -> u64 {
    let words = format!("coxswain.storage-device=LABEL=storage {NORMAL} {CONSOLE}");
    let mut guest = device.boot(&words, &[]);
    guest.wait_for_shell(BOOT);
    guest.until("coxctl --json status", BOOT);
    assert_eq!(guest.must("readlink /proc/1/exe"), "/init");
    let mounts = guest.must("cat /proc/mounts");
    for (target, words) in [
        (
            "/storage",
            &["ext4", "nosuid", "nodev", "noatime", "errors=remount-ro"][..],
        ),
        ("/sys/fs/cgroup", &["cgroup2"]),
        ("/run", &["tmpfs", "nosuid", "nodev"]),
    ] {
        let field = format!(" {target} ");
        let line = mounts.lines().find(|line| line.contains(&field));
        let line = line.unwrap_or_else(|| panic!("{target} is not mounted: {mounts}"));
        for word in words {
            assert!(line.contains(word), "{word} is not in {line}");
        }
    }
    assert!(!mounts.contains(" cgroup "), "{mounts}");
    assert_eq!(guest.must("hostname"), "coxswain");
    assert!(guest.must("ifconfig lo").contains("127.0.0.1"));
    assert!(
        guest
            .console()
            .contains("storage growth: grew from 192 MiB to 256 MiB")
    );
    assert!(
        guest
            .console()
            .contains("watchdog: Software Watchdog resets the machine after 60 s")
    );

    // Orphans of a shell that is gone: none of them stays a zombie.
    guest.must("for i in 1 2 3 4 5 6 7 8 9; do (sh -c 'sleep 0.2; exit 3' &) & done; wait");
    let zombies = "! cat /proc/[0-9]*/stat 2>/dev/null | grep -q ') Z 1 '";
    guest.until(zombies, Duration::from_secs(30));

    memory(&mut guest, 0);
    guest.must("coxctl install /revisions/one --name locals/one --run --wait --timeout 110");
    wait_for_running(&mut guest, "locals/one");
    let now: u64 = guest.must("date +%s").parse().expect("seconds");
    guest.tell("coxctl poweroff");
    let from = Instant::now();
    let said = guest.wait_for_end(Duration::from_secs(150));
    println!(
        "switched off in {:?} with a container that ignores signals",
        from.elapsed()
    );
    assert!(said.contains("reboot: Power down"), "{said}");
    assert_eq!(device.damage(), None);
    now
}

/// By UUID, with a clock that says 2020. A trial runs; the init dies by a broken instruction.
fn second_boot_dies_as_init(device: &Device, kept: u64) {
    let words =
        format!("coxswain.storage-device=UUID={UUID} {NORMAL} coxswain.commit-delay=1h {CONSOLE}");
    let mut guest = device.boot(&words, &["-rtc", "base=2020-01-01"]);
    guest.wait_for_shell(BOOT);
    wait_for_running(&mut guest, "locals/one");
    let now: u64 = guest.must("date +%s").parse().expect("seconds");
    assert!(now >= kept, "time went back from {kept} to {now}");
    guest.must("coxctl install /revisions/two --name locals/two --run");
    wait_for_running(&mut guest, "locals/two");
    memory(&mut guest, 3);
    assert_eq!(guest.must("cat /proc/sys/kernel/panic"), "5");
    // `ud2` where the init goes on when its wait ends, and then something to wake up for.
    guest.tell(
        "set -- $(cat /proc/1/syscall); while [ $# -gt 1 ]; do shift; done; \
         printf '\\017\\013' | dd of=/proc/1/mem bs=1 seek=$(($1)) conv=notrunc; (sleep 0.1 &)",
    );
    let said = guest.wait_for_end(Duration::from_secs(120));
    assert!(said.contains("Attempted to kill init"), "{said}");
}

/// The last try of the trial: busy for longer than the watchdog waits, which is no reason to reset; then the loop stands still.
fn third_boot_hangs(device: &Device) {
    let words = format!(
        "pv_storage.device=LABEL=storage {NORMAL} coxswain.watchdog-timeout=25s coxswain.commit-delay=1h {CONSOLE}"
    );
    let mut guest = device.boot(&words, &[]);
    guest.wait_for_shell(BOOT);
    wait_for_running(&mut guest, "locals/two");
    let busy = Instant::now();
    let mut rounds = 0;
    while busy.elapsed() < Duration::from_secs(40) {
        guest.must(
            "for i in 1 2 3 4 5; do coxctl --json status >/run/s && coxctl meta user set k $i >/run/s; done; \
             fsfreeze --freeze /storage; (coxctl meta user set b $i >/run/s &); sleep 3; fsfreeze --unfreeze /storage",
        );
        rounds += 1;
    }
    println!(
        "busy for {:?} in {rounds} rounds, not reset",
        busy.elapsed()
    );
    guest.tell(
        "kill -STOP $(ps | sed -n 's/^ *\\([0-9]*\\) .*coxswain device.*/\\1/p' | head -n 1)",
    );
    let from = Instant::now();
    let said = guest.wait_for_end(Duration::from_secs(180));
    println!(
        "a loop that stood still was reset after {:?}",
        from.elapsed()
    );
    assert!(from.elapsed() >= Duration::from_secs(10), "{said}");
    assert!(said.contains("Initiating system reboot"), "{said}");
}

/// Both tries are used up: what ran before runs again. Ctrl-Alt-Del, as the kernel tells it, restarts in good order.
fn fourth_boot_falls_back(device: &Device) {
    let words = format!("coxswain.storage-device=LABEL=storage {NORMAL} {CONSOLE}");
    let mut guest = device.boot(&words, &[]);
    guest.wait_for_shell(BOOT);
    wait_for_running(&mut guest, "locals/one");
    guest.tell("kill -INT 1");
    let said = guest.wait_for_end(Duration::from_secs(150));
    assert!(said.contains("reboot: Restarting system"), "{said}");
    assert_eq!(device.damage(), None);
}

/// Settings that are wrong are told, and the device runs. Nobody is on the second serial port.
fn without_a_console(device: &Device) {
    let words = "coxswain.storage-device=LABEL=storage coxswain.storage-wait=60s coxswain.watchdog=perhaps coxswain.nothing=1";
    let mut guest = device.boot(words, &[]);
    guest.wait_for(" is up", BOOT);
    assert!(!guest.answers(), "there is a shell\n{}", guest.console());
    let said = guest.console();
    assert!(said.contains("watchdog = \"perhaps\" is refused"), "{said}");
    assert!(said.contains("there is no setting \"nothing\""), "{said}");
}
