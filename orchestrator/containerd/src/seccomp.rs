//! The default system call filter: what containerd's default profile lets through, as data.
//!
//! Everything that is not named fails with EPERM (`clone3` with ENOSYS, so that C libraries fall back to `clone`). Some calls come
//! with a capability. The list is the one that containerd 1.6 gives to a container with no further capabilities,
//! without io_uring, which containerd 2 took out.

use std::collections::BTreeSet;

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
    LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};

/// Calls that every container may make.
const ALLOWED: &str = "\
    accept accept4 access adjtimex alarm bind brk capget capset chdir chmod chown chown32 \
    clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime \
    clock_gettime64 clock_nanosleep clock_nanosleep_time64 close close_range connect \
    copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old \
    epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit \
    exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir \
    fchmod fchmodat fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr \
    flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync \
    ftruncate ftruncate64 futex futex_time64 futex_waitv futimesat getcpu getcwd getdents \
    getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 \
    getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid \
    getresgid32 getresuid getresuid32 getrlimit get_robust_list getrusage getsid getsockname \
    getsockopt get_thread_area gettid gettimeofday getuid getuid32 getxattr \
    inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel ioctl io_destroy \
    io_getevents io_pgetevents io_pgetevents_time64 ioprio_get ioprio_set io_setup io_submit \
    ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown \
    lchown32 lgetxattr link linkat listen listxattr llistxattr _llseek lremovexattr lseek \
    lsetxattr lstat lstat64 madvise membarrier memfd_create memfd_secret mincore mkdir \
    mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify \
    mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 \
    mq_unlink mremap msgctl msgget msgrcv msgsnd msync munlock munlockall munmap nanosleep \
    newfstatat _newselect open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 \
    pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 \
    prlimit64 process_mrelease pselect6 pselect6_time64 pwrite64 pwritev pwritev2 read \
    readahead readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg \
    remap_file_pages removexattr rename renameat renameat2 restart_syscall rmdir rseq \
    rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend \
    rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_getaffinity sched_getattr \
    sched_getparam sched_get_priority_max sched_get_priority_min sched_getscheduler \
    sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr \
    sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop \
    semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto setfsgid \
    setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid \
    setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid \
    setreuid32 setrlimit set_robust_list setsid setsockopt set_thread_area set_tid_address \
    setuid setuid32 setxattr shmat shmctl shmdt shmget shutdown sigaltstack signalfd \
    signalfd4 sigprocmask sigreturn socket socketcall socketpair splice stat stat64 statfs \
    statfs64 statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time \
    timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime \
    timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime \
    timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat \
    utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev";

/// Calls that come with a capability.
const WITH_CAPABILITY: [(&str, &str); 9] = [
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount \
         mount_setattr move_mount name_to_handle_at open_tree perf_event_open quotactl \
         quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module init_module finit_module"),
    ("CAP_SYS_PACCT", "acct"),
    (
        "CAP_SYS_PTRACE",
        "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev",
    ),
    ("CAP_SYS_RAWIO", "iopl ioperm"),
    (
        "CAP_SYS_TIME",
        "settimeofday stime clock_settime clock_settime64",
    ),
];
const WITH_CAPABILITY_ALSO: [(&str, &str); 3] = [
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy"),
    ("CAP_SYSLOG", "syslog"),
];

/// Personalities that may be chosen: Linux, Linux 32 bit, the two without address randomisation, and asking.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Flags of `clone` that make a namespace.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;

const ENOSYS: u32 = 38;

/// The profile for a container with these capabilities.
///
/// # Errors
/// Never, unless oci-spec wants more fields than it did.
pub(crate) fn default_profile(
    capabilities: &BTreeSet<String>,
) -> Result<LinuxSeccomp, OciSpecError> {
    let mut calls = vec![allow(ALLOWED)?];
    for personality in PERSONALITIES {
        calls.push(allow_if(
            "personality",
            LinuxSeccompOperator::ScmpCmpEq,
            personality,
            None,
        )?);
    }
    calls.push(allow("ptrace")?);
    if let Some(names) = architecture_calls() {
        calls.push(allow(names)?);
    }
    for (capability, names) in WITH_CAPABILITY.iter().chain(&WITH_CAPABILITY_ALSO) {
        if capabilities.contains(*capability) {
            calls.push(allow(names)?);
        }
    }
    if !capabilities.contains("CAP_SYS_ADMIN") {
        calls.push(allow_if(
            "clone",
            LinuxSeccompOperator::ScmpCmpMaskedEq,
            NAMESPACE_FLAGS,
            Some(0),
        )?);
        calls.push(
            LinuxSyscallBuilder::default()
                .names(vec!["clone3".to_owned()])
                .action(LinuxSeccompAction::ScmpActErrno)
                .errno_ret(ENOSYS)
                .build()?,
        );
    }
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .architectures(architectures())
        .syscalls(calls)
        .build()
}

fn allow(names: &str) -> Result<LinuxSyscall, OciSpecError> {
    LinuxSyscallBuilder::default()
        .names(
            names
                .split_ascii_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        )
        .action(LinuxSeccompAction::ScmpActAllow)
        .build()
}

fn allow_if(
    name: &str,
    operator: LinuxSeccompOperator,
    value: u64,
    value_two: Option<u64>,
) -> Result<LinuxSyscall, OciSpecError> {
    let argument = LinuxSeccompArgBuilder::default()
        .index(0_usize)
        .value(value)
        .op(operator);
    let argument = match value_two {
        Some(value_two) => argument.value_two(value_two),
        None => argument,
    };
    LinuxSyscallBuilder::default()
        .names(vec![name.to_owned()])
        .action(LinuxSeccompAction::ScmpActAllow)
        .args(vec![argument.build()?])
        .build()
}

/// The machine's own and those whose programs its kernel runs too.
fn architectures() -> Vec<Arch> {
    match std::env::consts::ARCH {
        "x86_64" => vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
        "aarch64" => vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm],
        // An empty list stands for the machine's own.
        _ => Vec::new(),
    }
}

fn architecture_calls() -> Option<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Some("arch_prctl modify_ldt"),
        "x86" => Some("modify_ldt"),
        "arm" | "aarch64" => Some(
            "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
        ),
        "riscv64" => Some("riscv_flush_icache"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(capabilities: &[&str]) -> BTreeSet<String> {
        let capabilities = capabilities.iter().map(|&c| c.to_owned()).collect();
        let profile = default_profile(&capabilities).unwrap();
        profile
            .syscalls()
            .iter()
            .flatten()
            .filter(|call| {
                call.action() == LinuxSeccompAction::ScmpActAllow && call.args().is_none()
            })
            .flat_map(|call| call.names().clone())
            .collect()
    }

    #[test]
    fn dangerous_calls_need_their_capability() {
        let plain = names(&[]);
        for call in ["read", "execve", "openat2", "futex"] {
            assert!(plain.contains(call), "{call}");
        }
        for call in [
            "mount",
            "setns",
            "unshare",
            "bpf",
            "reboot",
            "init_module",
            "clone",
            "keyctl",
            "kexec_load",
        ] {
            assert!(!plain.contains(call), "{call}");
        }
        assert!(names(&["CAP_SYS_ADMIN"]).contains("mount"));
        assert!(names(&["CAP_SYS_ADMIN"]).contains("clone"));
        assert!(names(&["CAP_SYS_TIME"]).contains("settimeofday"));
    }

    #[test]
    fn it_serializes_as_runc_reads_it() {
        let profile = default_profile(&BTreeSet::new()).unwrap();
        let json = serde_json::to_value(&profile).unwrap();
        assert_eq!(json["defaultAction"], "SCMP_ACT_ERRNO");
        let clone3 = json["syscalls"]
            .as_array()
            .unwrap()
            .iter()
            .find(|call| call["names"] == serde_json::json!(["clone3"]))
            .unwrap();
        assert_eq!(clone3["errnoRet"], 38);
    }
}
