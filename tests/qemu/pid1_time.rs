//! How long a start takes: from the kernel's hand-over to the first process of a container, with coxswain as the init, beside a shell as
//! init that does nothing but the same mounts, start the same containerd and `ctr run` the same image from the same disk.
//!
//! Neither side is asked anything before its container runs: in an emulated machine one question costs as much as a phase of the start. Each
//! start finds the disk as an orderly end left it, and writes to a copy. The emulated clock counts instructions, so that the figures do not
//! depend on what else the testing machine does; disk and waits take the time that they take.

use std::time::Duration;

use acceptance::image::busybox;
use acceptance::manifest::Manifest;
use serde_json::json;

use crate::pid1_machine::{CONSOLE, Device, Guest, init_of_others};
use crate::system::Revision;

const BOOT: Duration = Duration::from_secs(240);
const UUID: &str = "9a3b7d10-52f5-4f0e-8a21-0c52a1f6b8d4";

/// The other side, as somebody would write it in an hour.
const BARE: &str = "#!/bin/sh
export PATH=/usr/bin:/usr/sbin
for folder in run tmp var; do mount -t tmpfs $folder /$folder; done
mkdir -p /dev/pts /dev/shm /run/coxswain/containerd /run/image /run/over/up /run/over/work /run/rootfs
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
busybox modprobe -a virtio_pci virtio_blk ext4 overlay
ip link set lo up
until [ -b /dev/vda ]; do sleep 0.02; done
mount -t ext4 /dev/vda /storage
containerd --config /storage/bare.toml >/run/containerd.log 2>&1 &
mount -t squashfs -o loop,ro /storage/objects/@IMAGE@ /run/image
mount -t overlay -o lowerdir=/run/image,upperdir=/run/over/up,workdir=/run/over/work overlay /run/rootfs
ctr() { command ctr -a /run/coxswain/containerd/containerd.sock -n bare \"$@\"; }
until [ -S /run/coxswain/containerd/containerd.sock ]; do sleep 0.1; done
read -r id </proc/sys/kernel/random/uuid
ctr run -d --rootfs /run/rootfs $id /bin/sleep 50000 >/dev/console 2>&1
pid=$(ctr task ls | sed -n \"s/^$id *\\([0-9]*\\).*/\\1/p\")
echo \"@bare $(cat /proc/$pid/stat)\" >/dev/ttyS1
while :; do sleep 1000; done
";

/// Seconds from the kernel's start to that of a process, of its line in /proc.
fn started(stat: &str) -> f64 {
    let (_, rest) = stat.rsplit_once(')').expect("a line of /proc/<pid>/stat");
    let ticks = rest.split_whitespace().nth(19).expect("its 22nd field");
    ticks.parse::<f64>().expect("ticks") / 100.0
}

/// Seconds from the kernel's start to its hand-over.
fn handed_over(guest: &Guest) -> f64 {
    let console = guest.console();
    let line = console
        .lines()
        .find(|line| line.contains("Run /") && line.contains("as init process"));
    let line = line.unwrap_or_else(|| panic!("no hand-over\n{console}"));
    let time = line.split(['[', ']']).nth(1).expect("a time in brackets");
    time.trim().parse().expect("seconds")
}

/// Four nanoseconds an instruction, about as quick as emulation is without counting.
const MEASURED: &[&str] = &["-snapshot", "-icount", "shift=2,sleep=on"];

/// Starts of each side: TIMES=n.
fn rounds() -> usize {
    let named = std::env::var("TIMES").ok();
    named.and_then(|text| text.parse().ok()).unwrap_or(1).max(1)
}

fn middle(mut list: Vec<f64>) -> f64 {
    list.sort_by(f64::total_cmp);
    list[list.len() / 2]
}

#[test]
fn a_start_beside_a_shell() {
    let Some((kernel, _one)) = crate::kernel_alone(module_path!()) else {
        return;
    };
    let image = busybox(&[]);
    let manifest = Manifest::with_groups(&[("app", "STARTED", 60)]).container(
        "sleeper",
        &image,
        &["/bin/sleep", "50000"],
        json!({}),
    );
    let images = [&image];
    let revision = Revision {
        name: "one",
        manifest: &manifest,
        images: &images,
    };
    let device = Device::build_with(
        &kernel,
        &[revision],
        UUID,
        &["ctr"],
        &[("bare-init", &BARE.replace("@IMAGE@", &image.sha256))],
    );
    device.append("bare", &init_of_others("/usr/bin/bare-init"));
    let words = format!(
        "loglevel=7 coxswain.storage-device=LABEL=storage coxswain.storage-wait=60s coxswain.commit-delay=1s {CONSOLE}"
    );
    let mut guest = device.boot(&words, &[]);
    guest.wait_for_shell(BOOT);
    guest.until("coxctl --json status", BOOT);
    guest.must("coxctl install /revisions/one --name locals/one --run --wait --timeout 110");
    guest.must("cp /run/coxswain/containerd/config.toml /storage/bare.toml");
    guest.tell("coxctl poweroff");
    guest.wait_for_end(Duration::from_secs(150));

    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..rounds() {
        let mut guest = device.boot(&words, MEASURED);
        let pid = guest.first_container(BOOT);
        let stat = guest.must(&format!("cat /proc/{pid}/stat"));
        ours.push(started(&stat) - handed_over(&guest));
        drop(guest);

        let mut guest = device.boot("loglevel=7 rdinit=/bare", MEASURED);
        let stat = guest.line_starting("@bare ", BOOT);
        bare.push(started(&stat) - handed_over(&guest));
    }
    let (ours, bare) = (middle(ours), middle(bare));
    println!(
        "hand-over to first container: coxswain {ours:.2} s, a shell with containerd and ctr run {bare:.2} s, ratio {:.2}",
        ours / bare
    );
    assert!(ours <= 1.1 * bare, "{ours} {bare}");
}
