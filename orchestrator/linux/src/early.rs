//! What an init mounts and sets before anything else can work: the kernel's own file systems, its log, its limits.

use std::fs;
use std::io;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A file system of the kernel's.
#[derive(Debug, Clone, Copy)]
pub struct EarlyMount {
    /// `proc`, `tmpfs`.
    pub kind: &'static str,
    /// Where.
    pub target: &'static str,
    /// Whether programs on it give their owner's rights, device nodes are devices, and anything can be run.
    pub flags: MountFlags,
    /// Options of the file system.
    pub options: &'static str,
    /// Whether a machine can do without: a kernel may be built without it, or it needs a firmware.
    pub optional: bool,
}

const STRICT: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);
const PLAIN: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

const fn must(kind: &'static str, target: &'static str, flags: MountFlags) -> EarlyMount {
    EarlyMount {
        kind,
        target,
        flags,
        options: "",
        optional: false,
    }
}

impl EarlyMount {
    const fn with(mut self, options: &'static str) -> Self {
        self.options = options;
        self
    }

    const fn optional(mut self) -> Self {
        self.optional = true;
        self
    }
}

/// Needed to find anything out.
pub const FIRST: &[EarlyMount] = &[
    must("proc", "/proc", STRICT),
    must("sysfs", "/sys", STRICT),
    must("devtmpfs", "/dev", MountFlags::NOSUID).with("mode=755"),
];

/// Below the root that stays.
pub const SECOND: &[EarlyMount] = &[
    must(
        "devpts",
        "/dev/pts",
        MountFlags::NOSUID.union(MountFlags::NOEXEC),
    )
    .with("gid=5,mode=620,ptmxmode=666"),
    must("tmpfs", "/dev/shm", PLAIN).with("mode=1777"),
    must("tmpfs", "/run", PLAIN).with("mode=755"),
    must("tmpfs", "/tmp", PLAIN).with("mode=1777"),
    must("cgroup2", "/sys/fs/cgroup", STRICT).with("nsdelegate"),
    must("securityfs", "/sys/kernel/security", STRICT).optional(),
    must("pstore", "/sys/fs/pstore", STRICT).optional(),
    must("efivarfs", "/sys/firmware/efi/efivars", STRICT).optional(),
];

/// Mounts what is not mounted yet, making its folder where that is possible; tells what could not be.
pub fn mount_all(list: &[EarlyMount]) -> Vec<(EarlyMount, io::Error)> {
    let mut failed = Vec::new();
    for one in list {
        if !Path::new(one.target).is_dir() && fs::create_dir_all(one.target).is_err() {
            // Its place is not there: below /sys that means that the kernel does not have it.
            if !one.optional {
                failed.push((*one, io::ErrorKind::NotFound.into()));
            }
            continue;
        }
        match mount(one, one.options) {
            // Mounted before us: by the kernel (devtmpfs) or an earlier step.
            Ok(()) | Err(Errno::BUSY) => {}
            // An option that an older kernel does not know.
            Err(Errno::INVAL) if mount(one, "").is_ok() => {}
            Err(Errno::NODEV | Errno::NOENT) if one.optional => {}
            Err(errno) => failed.push((*one, errno.into())),
        }
    }
    failed
}

fn mount(one: &EarlyMount, options: &str) -> Result<(), Errno> {
    if is_mounted(one) {
        return Ok(());
    }
    let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL)?;
    rustix::mount::mount(
        one.kind,
        one.target,
        one.kind,
        one.flags,
        options.as_c_str(),
    )
}

/// A second tmpfs over the first would hide what is in it.
fn is_mounted(one: &EarlyMount) -> bool {
    let target = Path::new(one.target);
    let above = target.parent().unwrap_or(Path::new("/"));
    match (fs::metadata(target), fs::metadata(above)) {
        (Ok(here), Ok(above)) => {
            use std::os::unix::fs::MetadataExt as _;
            here.dev() != above.dev()
        }
        _ => false,
    }
}

/// Writes a setting of the kernel, such as `kernel/panic`, below `/proc/sys`.
///
/// # Errors
/// As the kernel gives them: it has no such setting, or refuses the value.
pub fn set_kernel(name: &str, value: &str) -> io::Result<()> {
    fs::write(Path::new("/proc/sys").join(name), value)
}

/// Reads one.
pub fn kernel_setting(name: &str) -> Option<String> {
    let text = fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?;
    Some(text.trim().to_owned())
}

/// Limits of everything that is started from here on: many open files, no dumps of memory.
///
/// # Errors
/// As the kernel gives them.
pub fn set_limits(open_files: u64) -> io::Result<()> {
    let now = getrlimit(Resource::Nofile);
    let maximum = now.maximum.map_or(open_files, |now| now.max(open_files));
    // Programs that know no better close or scan all: the soft limit stays.
    let files = Rlimit {
        current: now.current,
        maximum: Some(maximum),
    };
    setrlimit(Resource::Nofile, files)?;
    let none = Rlimit {
        current: Some(0),
        maximum: getrlimit(Resource::Core).maximum,
    };
    Ok(setrlimit(Resource::Core, none)?)
}

/// Names the machine.
///
/// # Errors
/// As the kernel gives them: it is longer than 64 bytes.
pub fn set_hostname(name: &str) -> io::Result<()> {
    Ok(rustix::system::sethostname(name.as_bytes())?)
}

/// Whether this process is the init of the machine, not only of a container: the first process of the first PID namespace.
pub fn is_init() -> bool {
    if std::process::id() != 1 {
        return false;
    }
    // Nobody but the init of a machine finds /proc empty. The first namespace has a fixed number, PROC_PID_INIT_INO.
    match fs::read_link("/proc/self/ns/pid") {
        Ok(namespace) => namespace.as_os_str() == "pid:[4026531836]",
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_no_init() {
        assert!(!is_init());
    }

    #[test]
    fn what_is_mounted_stays() {
        let proc = FIRST.first().unwrap();
        assert!(is_mounted(proc));
        assert_eq!(mount(proc, ""), Ok(()));
        let odd = must("tmpfs", "/proc/self/none", PLAIN);
        assert!(!is_mounted(&odd));
        assert_eq!(mount_all(&[odd.optional()]).len(), 0);
        assert_eq!(mount_all(&[odd]).len(), 1);
    }

    #[test]
    fn kernel_settings_are_read() {
        assert_eq!(kernel_setting("kernel/ostype").as_deref(), Some("Linux"));
        assert_eq!(kernel_setting("kernel/none"), None);
        assert!(set_kernel("kernel/none", "1").is_err());
    }
}
