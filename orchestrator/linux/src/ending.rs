//! How a machine ends: every process told to go, file systems made safe, and the kernel asked for the rest.
#![allow(unsafe_code)] // signals to all processes, and a restart with an argument, have no safe form

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::StatVfsMountFlags;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::system::RebootCommand;

/// What the kernel is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Last {
    /// Start again; with an argument for the firmware, such as `0 tryboot`.
    Restart(Option<String>),
    /// Start the kernel that was loaded with kexec.
    Kexec,
    /// Switch off.
    PowerOff,
}

/// From here on Ctrl-Alt-Del is a signal to us, not the end.
///
/// # Errors
/// We are not root.
pub fn take_ctrl_alt_del() -> io::Result<()> {
    Ok(rustix::system::reboot(RebootCommand::CadOff)?)
}

/// Whether a kernel was loaded with kexec.
pub fn is_kexec_loaded() -> bool {
    fs::read("/sys/kernel/kexec_loaded").is_ok_and(|text| text.starts_with(b"1"))
}

/// Ends the machine. Returns only when the kernel refuses.
pub fn end(last: &Last) -> io::Error {
    let result = match last {
        Last::Restart(None) => rustix::system::reboot(RebootCommand::Restart),
        Last::Restart(Some(argument)) => return restart_with(argument),
        Last::Kexec => rustix::system::reboot(RebootCommand::Kexec),
        Last::PowerOff => rustix::system::reboot(RebootCommand::PowerOff),
    };
    match result {
        Ok(()) => io::Error::other("the kernel went on"),
        Err(errno) => errno.into(),
    }
}

fn restart_with(argument: &str) -> io::Error {
    let Ok(argument) = CString::new(argument) else {
        return io::ErrorKind::InvalidInput.into();
    };
    // SAFETY: LINUX_REBOOT_CMD_RESTART2 reads a string, which lives until the call returns.
    unsafe {
        libc::syscall(
            libc::SYS_reboot,
            libc::LINUX_REBOOT_MAGIC1,
            libc::LINUX_REBOOT_MAGIC2,
            libc::LINUX_REBOOT_CMD_RESTART2,
            argument.as_ptr(),
        );
    }
    io::Error::last_os_error()
}

/// Sends a signal to every process but ourselves and the kernel's; tells whether there was any.
pub fn signal_all(kill: bool) -> bool {
    let signal = if kill { libc::SIGKILL } else { libc::SIGTERM };
    // SAFETY: no memory is touched. As init we are not among "all".
    unsafe { libc::kill(-1, signal) == 0 }
}

/// Writes everything that is not on its disk yet. May take long.
pub fn sync() {
    rustix::fs::sync();
}

/// What became of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Safe {
    /// It is gone.
    Unmounted,
    /// Something holds it; nothing can be written any more.
    ReadOnly,
}

/// Unmounts; what something still holds becomes read-only.
///
/// # Errors
/// Neither was possible, with the reason of the second.
pub fn make_safe(target: &Path) -> io::Result<Safe> {
    for _ in 0..MOUNTS_MAX {
        match rustix::mount::unmount(target, UnmountFlags::NOFOLLOW) {
            // What was mounted over it comes first.
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT) => return Ok(Safe::Unmounted),
            Err(_) => break,
        }
    }
    rustix::mount::mount_remount(target, MountFlags::RDONLY, c"")?;
    Ok(Safe::ReadOnly)
}

/// The root becomes read-only, where it is one that something can be lost of: it cannot be unmounted, and a restart writes nothing.
///
/// # Errors
/// Something has a file of it open for writing.
pub fn make_root_safe() -> io::Result<()> {
    let table = fs::read("/proc/self/mountinfo")?;
    if root_kind(&table).is_none_or(|kind| IN_MEMORY.contains(&kind.as_str())) {
        return Ok(());
    }
    let is = rustix::fs::statvfs("/")?;
    if is.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(());
    }
    Ok(rustix::mount::mount_remount("/", MountFlags::RDONLY, c"")?)
}

const IN_MEMORY: [&str; 3] = ["rootfs", "ramfs", "tmpfs"];

/// What the root is now: the last one that was mounted over the others.
fn root_kind(table: &[u8]) -> Option<String> {
    let mounts = table
        .split(|byte| *byte == b'\n')
        .filter_map(crate::mounts::of_line);
    let mut roots = mounts.filter(|(target, _)| target.as_os_str().as_bytes() == b"/");
    roots.next_back().map(|(_, kind)| kind)
}

const MOUNTS_MAX: usize = 16;

/// Everything that is mounted from a disk becomes read-only, whoever holds it: the kernel's own emergency.
///
/// # Errors
/// The kernel has no such key, or it is switched off.
pub fn freeze_all() -> io::Result<()> {
    fs::write("/proc/sysrq-trigger", "u")
}

/// What is mounted now, newest first, without the kernel's own file systems.
pub fn mounts_to_end() -> Vec<std::path::PathBuf> {
    let table = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let mut list: Vec<_> = table
        .split(|byte| *byte == b'\n')
        .filter_map(crate::mounts::of_line)
        .filter(|(target, kind)| {
            let kernels = [
                "proc",
                "sysfs",
                "devtmpfs",
                "devpts",
                "cgroup2",
                "securityfs",
                "pstore",
                "efivarfs",
                "rootfs",
            ];
            target.as_os_str().as_bytes() != b"/" && !kernels.contains(&kind.as_str())
        })
        .map(|(target, _)| target)
        .collect();
    list.reverse();
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_mounted_is_safe() {
        let nowhere = Path::new("/nonexistent/coxswain");
        assert_eq!(make_safe(nowhere).unwrap(), Safe::Unmounted);
    }

    #[test]
    fn the_root_is_what_was_mounted_last() {
        let initramfs = b"1 1 0:2 / / rw - rootfs rootfs rw\n20 1 0:21 / /proc rw - proc proc rw\n";
        assert_eq!(root_kind(initramfs).as_deref(), Some("rootfs"));
        let disk = b"1 1 0:2 / / rw - rootfs rootfs rw\n25 1 254:2 / / rw,noatime shared:1 - ext4 /dev/vda2 rw\n";
        assert_eq!(root_kind(disk).as_deref(), Some("ext4"));
        assert_eq!(root_kind(b""), None);
    }

    #[test]
    fn the_kernels_own_mounts_stay() {
        let list = mounts_to_end();
        assert!(!list.iter().any(|target| target == Path::new("/proc")));
        assert!(!list.iter().any(|target| target == Path::new("/")));
    }
}
