//! A whole machine: Debian's kernel, pure cgroup v2, real containerd and runc, below an init of a few lines; and its power is cut.
//!
//! One machine at a time, emulated (no /dev/kvm): a boot takes seconds. Says SKIPPED where QEMU or the kernel cannot be had; in CI
//! that is a failure. What a power cut takes here is said in `acceptance::power::disk`.

mod cgroup_v2;
mod every_cut;
mod invariants;
mod kernel;
mod ledger;
mod life;
mod machine;
mod pid1;
mod pid1_machine;
mod pid1_storage;
mod pid1_time;
mod power_cuts;
mod replay;
mod seals;
mod serial;
mod system;
mod verity;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use acceptance::power::disk::Disk;
use kernel::Kernel;
use machine::{Machine, Parts};
use system::Revision;

/// One emulated machine at a time keeps their times honest.
static ONE: Mutex<()> = Mutex::new(());

const DISK_BYTES: u64 = 256 << 20;
/// Short times, but an emulated machine may tell of a container's end a second late; and the log of a failed test tells all.
const OPTIONS: &str = "coxswain.log-level=debug coxswain.commit-delay=3s coxswain.keep-revisions=1 \
     coxswain.object-lease=5s";
/// A boot takes 10 s on an idle machine, and CI's is not idle.
const BOOT: Duration = Duration::from_secs(90);

/// A device of a test's own.
struct Bench {
    parts: Parts,
    _folder: tempfile::TempDir,
    _one: MutexGuard<'static, ()>,
}

/// The kernel, or why there is none.
fn kernel() -> Result<Kernel, String> {
    if std::env::consts::ARCH != "x86_64" {
        return Err(format!(
            "it boots an x86_64 kernel with binaries of this machine, which is {}",
            std::env::consts::ARCH
        ));
    }
    if let Some(name) = system::missing_program() {
        return Err(format!("{name} is not installed (tests/packages test)"));
    }
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/qemu");
    Kernel::have(&cache)
}

/// The kernel, for a test that no other machine runs beside; `None` when the test cannot run here, which was said.
fn kernel_alone(test: &str) -> Option<(Kernel, MutexGuard<'static, ()>)> {
    let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    match kernel() {
        Ok(kernel) => Some((kernel, one)),
        Err(why) => {
            assert!(
                std::env::var_os("CI").is_none(),
                "CI must run this test, but {why}"
            );
            eprintln!("SKIPPED {test}: {why}");
            None
        }
    }
}

/// Everything that the machine boots from, and its empty disk; `None` when the test cannot run here, which was said.
fn bench(revisions: &[Revision<'_>]) -> Option<(Bench, Disk)> {
    let (kernel, one) = kernel_alone(module_path!())?;
    println!("kernel {}", kernel.version());
    let folder = tempfile::Builder::new()
        .prefix("cx-qemu-")
        .tempdir()
        .expect("a temporary folder");
    let parts = Parts {
        kernel: kernel.image(),
        initramfs: folder.path().join("initramfs"),
        system: folder.path().join("system.squashfs"),
        options: OPTIONS.to_owned(),
        folder: folder.path().to_owned(),
    };
    system::initramfs(&kernel, &parts.initramfs);
    system::squashfs(revisions, &parts.system);
    let disk = Disk::formatted(&folder.path().join("storage"), DISK_BYTES);
    let bench = Bench {
        parts,
        _folder: folder,
        _one: one,
    };
    Some((bench, disk))
}

impl Bench {
    /// Boots, and waits until the orchestrator answers.
    fn boot(&self, disk: Disk) -> Machine {
        let mut machine = Machine::on(&self.parts, disk);
        machine.wait_for_shell(BOOT);
        machine.wait("coxswain answers", BOOT, |machine| {
            (machine.run("coxctl --json status").code == 0).then_some(())
        });
        machine
    }
}
