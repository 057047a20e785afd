//! What coxswain as the init makes of a storage that is damaged, that fails while it runs, that takes no writes; of a root that was there
//! before it; of the modes of the watchdog; of a turn of the loop that is longer than it waits; of a kernel that was loaded with kexec. Four
//! boots and the beginning of a fifth.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use acceptance::image::{binary, busybox, object};
use acceptance::manifest::Manifest;
use serde_json::json;

use crate::pid1_machine::{CONSOLE, Device, init_of_others};
use crate::system::Revision;

const BOOT: Duration = Duration::from_secs(240);
const END: Duration = Duration::from_secs(150);
const UUID: &str = "51c9f0a2-3f0c-4a5e-9d46-6a7f5e6d9b21";
const NORMAL: &str = "loglevel=7 coxswain.storage-device=LABEL=storage coxswain.storage-wait=60s coxswain.modules=softdog \
     coxswain.watchdog-timeout=60s";
const WATCHDOG: &str = "cat /sys/class/watchdog/watchdog0/state";
const ARMED: &str = "watchdog: Software Watchdog resets the machine after 60 s";

/// A boot partition that takes so many bytes a second; what is copied there beside the kernel (8 MB): for twice as long as
/// the watchdog waits.
const THROTTLE: &str = "throttling.bps-write=1500000";
const INITRD_BYTES: usize = 8 << 20;
const WAITS: &str = "coxswain.watchdog-timeout=5s";
const COPIED_MIN: u64 = 8;

/// Loads a kernel without an initramfs: `kexec KERNEL COMMAND-LINE`. Debian's program needs Xen's library.
const KEXEC: &str = r#"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(int argc, char **argv) {
    int kernel = argc == 3 ? open(argv[1], O_RDONLY | O_CLOEXEC) : -1;
    /* 4: KEXEC_FILE_NO_INITRAMFS */
    if (kernel < 0 || syscall(SYS_kexec_file_load, kernel, -1, strlen(argv[2]) + 1, argv[2], 4L)) {
        perror("kexec");
        return 1;
    }
    return 0;
}
"#;

#[test]
fn a_storage_may_be_damaged_fail_or_take_no_writes() {
    let Some((kernel, _one)) = crate::kernel_alone(module_path!()) else {
        return;
    };
    let image = busybox(&[]);
    let sleeper = |word: &str| {
        let command = ["/bin/sh", "-c", "sleep 50000", word];
        Manifest::with_groups(&[("app", "STARTED", 60)]).container(
            "sleeper",
            &image,
            &command,
            json!({}),
        )
    };
    let (factory, other) = (sleeper("factory"), sleeper("other"));
    let images = [&image];
    let [factory, other] =
        [("factory", &factory), ("other", &other)].map(|(name, manifest)| Revision {
            name,
            manifest,
            images: &images,
        });

    let folder = tempfile::tempdir().expect("a temporary folder");
    let kexec = folder.path().join("kexec");
    compile(KEXEC, &kexec);
    let (ours, vmlinuz) = (binary("coxswain"), kernel.image());
    let programs = [&ours, &kexec, &vmlinuz].map(|path| path.to_str().expect("UTF-8"));
    let device = Device::build_with(&kernel, &[other], UUID, &programs, &[]);
    device.append("elsewhere", &init_of_others("/usr/bin/coxswain"));
    device.fill(&factory, UUID);

    device.break_file_system();
    damaged_and_then_failing(&device);
    mended_below_another_root(&device);
    takes_no_writes(&device, &vmlinuz);

    let linux = object(&std::fs::read(&vmlinuz).expect("the kernel"));
    let initrd = object(&vec![7; INITRD_BYTES]);
    let large = sleeper("large")
        .key("bsp/linux", json!(linux.sha256))
        .key("bsp/initrd", json!(initrd.sha256))
        .key(
            "bsp/run.json",
            json!({"linux": "linux", "initrd": "initrd"}),
        );
    let large = Revision {
        name: "large",
        manifest: &large,
        images: &[&image, &linux, &initrd],
    };
    device.fill(&large, UUID);
    a_long_turn(&device, folder.path());
}

fn compile(text: &str, to: &Path) {
    let source = to.with_extension("c");
    std::fs::write(&source, text).expect("a source");
    let made = Command::new("gcc")
        .args(["-static", "-Os", "-o"])
        .args([to, &source])
        .status()
        .expect("gcc is installed (tests/packages run)");
    assert!(made.success(), "gcc failed");
}

fn says(said: &str, text: &str) {
    assert!(said.contains(text), "{text:?} is not said\n{said}");
}

/// Damage that nobody could answer questions about; then an error that the kernel finds while the device runs: what runs goes on, what would
/// have to be kept is refused, and the end is in order. The watchdog, armed for the start, is let go of.
fn damaged_and_then_failing(device: &Device) {
    let words = format!("{NORMAL} coxswain.watchdog=startup {CONSOLE}");
    let mut guest = device.boot(&words, &[]);
    let before = guest.first_container(BOOT);
    let said = guest.console();
    says(
        &said,
        "storage check: checked (the kernel found errors in it): mended by force",
    );
    says(&said, ARMED);
    assert_eq!(guest.must(WATCHDOG), "inactive");
    guest.must("coxctl meta user set kept 1");

    guest.must("echo 1 >/sys/fs/ext4/vda/trigger_fs_error");
    // Its mount may go on to say that it can be written: the kernel refuses all the same, from some version on.
    guest.until("! touch /storage/probe", Duration::from_secs(30));
    for line in [
        "coxctl meta user set lost 1",
        "coxctl install /revisions/other --name locals/other --run",
    ] {
        let refused = guest.run(line);
        assert_ne!(refused.code, 0, "{line}: {}", refused.text);
        println!("on a storage that has failed: {line}: {}", refused.text);
    }
    assert_eq!(guest.must("coxctl meta user get kept"), "1");
    assert_eq!(guest.container_pid(BOOT), Some(before), "what runs goes on");
    guest.tell("coxctl poweroff");
    says(&guest.wait_for_end(END), "reboot: Power down");
}

/// The root is there before us. What the error left is checked, and everything works again. The watchdog is armed for the end only.
fn mended_below_another_root(device: &Device) {
    let words = format!("{NORMAL} rdinit=/elsewhere coxswain.watchdog=shutdown {CONSOLE}");
    let mut guest = device.boot(&words, &[]);
    guest.first_container(BOOT);
    let said = guest.console();
    says(
        &said,
        "storage check: checked (the kernel found errors in it)",
    );
    assert!(!said.contains(ARMED), "{said}");
    assert_eq!(guest.must("readlink /proc/1/exe"), "/usr/bin/coxswain");
    says(&guest.must("cat /proc/mounts"), "/dev/loop0 / squashfs ro");
    assert_eq!(guest.must(WATCHDOG), "inactive");
    assert_eq!(guest.must("coxctl meta user get kept"), "1");
    guest.must("coxctl meta user set more 2");
    guest.tell("coxctl poweroff");
    let said = guest.wait_for_end(END);
    let end = said.find("the machine ends").expect("its end is told");
    says(&said[end..], ARMED);
    says(&said[end..], "reboot: Power down");
    assert_eq!(device.damage(), None);
}

/// A disk that is write-protected. The restart goes to the kernel that was loaded, as the setting says.
fn takes_no_writes(device: &Device, vmlinuz: &Path) {
    let words = format!("{NORMAL} coxswain.reboot-kexec=true {CONSOLE}");
    let mut guest = device.boot_read_only(&words);
    guest.first_container(BOOT);
    says(
        &guest.console(),
        "mounted read-only, nothing can be installed or kept",
    );
    assert_eq!(
        guest.must(WATCHDOG),
        "active",
        "as init the default is always"
    );
    assert_eq!(guest.must("coxctl meta user get more"), "2");
    let refused = guest.run("coxctl meta user set lost 1");
    assert_ne!(refused.code, 0, "{}", refused.text);
    guest.must("test -d /run/coxswain/containerd-store");

    let name = vmlinuz.file_name().and_then(|name| name.to_str());
    let name = name.expect("a kernel has a name");
    // It has no root: it stops, and starts the machine again, which ends QEMU.
    guest.must(&format!(
        "kexec /usr/bin/{name} 'console=ttyS0 no_timer_check loglevel=7 panic=-1 by.kexec'"
    ));
    guest.tell("coxctl reboot");
    let said = guest.wait_for_end(END);
    let end = said.find("the machine ends").expect("its end is told");
    says(&said[end..], "kexec_core: Starting new kernel");
    says(&said[end..], "by.kexec");
    says(&said[end..], "Unable to mount root fs");
}

/// The boot loader's entry is damaged, so the start writes it anew, and puts the kernel beside it: in the loop's thread, in one turn.
fn a_long_turn(device: &Device, folder: &Path) {
    let disk = folder.join("boot");
    let junk = folder.join("coxswain.conf");
    std::fs::write(&junk, "junk").expect("a file");
    let image = disk.to_str().expect("UTF-8");
    let junk = junk.to_str().expect("UTF-8");
    for words in [
        &["mkfs.vfat", "-C", image, "65536"][..],
        &["mmd", "-i", image, "::loader", "::loader/entries"],
        &["mcopy", "-i", image, junk, "::loader/entries/"],
    ] {
        let done = Command::new(words[0]).args(&words[1..]).output();
        let done = done.expect("dosfstools and mtools are installed (tests/packages test)");
        assert!(done.status.success(), "{words:?}");
    }
    let words = format!(
        "{NORMAL} {WAITS} coxswain.bootloader=systemd-boot coxswain.bootloader-path=/run/boot \
         coxswain.bootloader-device=/dev/vdb coxswain.booted=0 {CONSOLE}"
    );
    let drive = format!("file={image},format=raw,if=virtio,{THROTTLE}");
    // A clock that counts instructions: a machine that is starved of its processor is not reset for it.
    let options = ["-drive", &drive, "-icount", "shift=2,sleep=on"];
    let mut guest = device.boot(&words, &options);
    guest.first_container(BOOT);
    let told = "date -r /run/boot/loader/entries/coxswain.conf +%s; date -r /run/boot/coxswain +%s";
    let times = guest.must(told);
    let mut times = times
        .lines()
        .map(|time| time.parse::<u64>().expect("seconds"));
    let (end, begin) = (
        times.next().expect("two times"),
        times.next().expect("two times"),
    );
    println!("a turn of {} s below a watchdog of 5 s", end - begin);
    assert!(end - begin >= COPIED_MIN, "{}", guest.console());
    guest.must("grep -q coxswain.booted=0 /run/boot/loader/entries/coxswain.conf");
    assert_eq!(guest.must(WATCHDOG), "active");
}
