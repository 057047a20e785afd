//! Every key of LXC, and what becomes of it.
//!
//! One table: `conf.rs` reads through it, `lxc-keys.md` is made from it, and a test shows that each key does what its line says. A key that is
//! not here is refused.

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is carried out.
    Translated {
        /// As what.
        to: &'static str,
        /// A value that shows it.
        example: &'static str,
    },
    /// It has no meaning here, and leaving it out changes nothing for the container.
    LeftOut(&'static str),
    /// It would change the container, and cannot be had.
    Refused(&'static str),
}

/// One key, or all that begin with it when it ends in `.*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) fate: Fate,
}

const fn translated(name: &'static str, example: &'static str, to: &'static str) -> Key {
    let fate = Fate::Translated { to, example };
    Key { name, fate }
}

const fn left_out(name: &'static str, why: &'static str) -> Key {
    let fate = Fate::LeftOut(why);
    Key { name, fate }
}

const fn refused(name: &'static str, remedy: &'static str) -> Key {
    let fate = Fate::Refused(remedy);
    Key { name, fate }
}

const CONSOLE: &str = "there is no console: what a container writes goes to its log";
const LXC_LOG: &str = "a log of LXC itself; ours is that of the orchestrator";
const AUTOSTART: &str = "groups, goals and run.json say when it starts";
const HOOK: &str =
    "programs of the host are not run for a container; do it in the container's own init";
const PLACE: &str = "the orchestrator places its control groups";

/// In the order of the page; a longer name stands before the prefix that would take it.
pub(super) const KEYS: [Key; 91] = [
    translated(
        "lxc.init.cmd",
        "/bin/web --port \"8 0\"",
        "command of the first process; words as LXC splits them. Absent: `/sbin/init`. An entrypoint or cmd in `docker_config` of `src.json` comes first",
    ),
    translated(
        "lxc.init.cwd",
        "/srv",
        "its working directory; that of `docker_config` comes first",
    ),
    translated("lxc.init.uid", "33", "its user"),
    translated("lxc.init.gid", "33", "its group"),
    translated("lxc.init.groups", "44,45", "its supplementary groups"),
    translated(
        "lxc.environment",
        "A=1",
        "environment, over that of `docker_config`; `NAME=value` only",
    ),
    translated("lxc.environment.runtime", "A=1", "the same"),
    translated(
        "lxc.uts.name",
        "web",
        "host name. Absent: the container's name",
    ),
    translated(
        "lxc.signal.halt",
        "SIGTERM",
        "asks it to stop, unless run.json has `stop-signal`. Absent: `StopSignal` of `docker_config`, else PWR",
    ),
    translated(
        "lxc.namespace.keep",
        "user net ipc",
        "name spaces of the host; all others are its own but `user`, which it never gets",
    ),
    translated(
        "lxc.namespace.clone",
        "mnt pid",
        "its own name spaces; all others are the host's",
    ),
    translated(
        "lxc.mount.auto",
        "proc:rw sys:ro cgroup:ro",
        "`/proc` (always there, `mixed` unless `rw`), `/sys`, `/sys/fs/cgroup`. `cgroup-full` and `cgroup2` are `cgroup`: its own groups; read-only when the cgroup name space is the host's",
    ),
    translated(
        "lxc.mount.entry",
        "tmpfs run tmpfs rw,nodev,create=dir 0 0",
        "mounts, in order: binds of host paths, of `/volumes/<own name>/<volume>`, of `/storage`; made file systems such as tmpfs. `optional` leaves out a source that is not there",
    ),
    translated(
        "lxc.rootfs.path",
        "overlayfs:/volumes/web/root.squashfs:/volumes/web/lxc-overlay/upper",
        "must name the root-volume of run.json; without an upper layer the root is read-only",
    ),
    translated(
        "lxc.rootfs.options",
        "ro",
        "`ro`: the root is read-only; `rw`",
    ),
    translated(
        "lxc.autodev",
        "0",
        "`1` (absent: this): a `/dev` of its own with the usual nodes; `0`: the image's",
    ),
    translated("lxc.autodev.tmpfs.size", "1000000", "size of that `/dev`"),
    translated(
        "lxc.pty.max",
        "0",
        "`0`: no pseudo terminals of its own; other numbers only say that there are",
    ),
    translated(
        "lxc.cap.drop",
        "sys_module mac_admin",
        "capabilities, all but these",
    ),
    translated(
        "lxc.cap.keep",
        "net_admin",
        "capabilities, only these. Absent both: all that the machine has",
    ),
    translated("lxc.no_new_privs", "1", "no new privileges"),
    translated(
        "lxc.cgroup.*",
        "b 8:* r",
        "settings of the old hierarchies, on any machine: `devices.allow`, `devices.deny`, `memory.limit_in_bytes`, `memory.soft_limit_in_bytes`, `memory.memsw.limit_in_bytes`, `cpu.shares`, `cpu.cfs_quota_us`, `cpu.cfs_period_us`, `cpuset.cpus`, `cpuset.mems`, `pids.max`, `blkio.weight`; others are refused",
    ),
    translated(
        "lxc.cgroup2.*",
        "b 8:* r",
        "settings of the unified hierarchy, as they stand. On a machine with the old ones: `devices.*`, `memory.max`, `memory.low`, `cpu.max`, `cpu.weight`, `cpuset.*`, `pids.max`; others are refused there. Where both kinds name the same, the machine's own counts",
    ),
    translated(
        "lxc.prlimit.*",
        "1024:4096",
        "resource limits of its processes",
    ),
    translated(
        "lxc.sysctl.*",
        "1",
        "kernel settings that belong to a name space of its own (`net.…`, `kernel.shm…`, `fs.mqueue.…`)",
    ),
    translated(
        "lxc.proc.oom_score_adj",
        "10",
        "how gladly the kernel ends it when memory runs out",
    ),
    translated(
        "lxc.apparmor.profile",
        "lxc-web",
        "profile, which must be loaded; `unconfined` and `unchanged` are none",
    ),
    translated(
        "lxc.selinux.context",
        "system_u:system_r:web_t:s0",
        "label of its processes",
    ),
    translated(
        "lxc.net.*",
        "empty",
        "`type` `empty`: loopback only; `none`: the host's. Devices are refused: name a pool in `network` of run.json",
    ),
    left_out("lxc.tty.max", CONSOLE),
    left_out("lxc.tty.dir", CONSOLE),
    left_out("lxc.console.buffer.size", CONSOLE),
    left_out("lxc.console.logfile", CONSOLE),
    left_out("lxc.console.path", CONSOLE),
    left_out("lxc.console.rotate", CONSOLE),
    left_out("lxc.console.size", CONSOLE),
    left_out("lxc.log.file", LXC_LOG),
    left_out("lxc.log.level", LXC_LOG),
    left_out("lxc.log.syslog", LXC_LOG),
    left_out("lxc.start.auto", AUTOSTART),
    left_out("lxc.start.delay", AUTOSTART),
    left_out("lxc.start.order", AUTOSTART),
    left_out("lxc.group", AUTOSTART),
    left_out("lxc.monitor.unshare", "there is no monitor of LXC"),
    left_out("lxc.monitor.signal.pdeath", "there is no monitor of LXC"),
    left_out("lxc.ephemeral", "persistence in run.json says what is kept"),
    left_out("lxc.execute.cmd", "only for lxc-execute"),
    left_out("lxc.signal.stop", "what does not stop in time gets KILL"),
    left_out("lxc.signal.reboot", "containers are not asked to reboot"),
    left_out("lxc.cgroup.dir", PLACE),
    left_out("lxc.cgroup.dir.container", PLACE),
    left_out("lxc.cgroup.dir.container.inner", PLACE),
    left_out("lxc.cgroup.dir.monitor", PLACE),
    left_out("lxc.cgroup.dir.monitor.pivot", PLACE),
    left_out("lxc.cgroup.relative", PLACE),
    left_out("lxc.rootfs.mount", "Pantavisor replaces it too"),
    left_out("lxc.rootfs.managed", "images are never changed"),
    left_out(
        "lxc.keyring.session",
        "each container has a session keyring of its own",
    ),
    left_out(
        "lxc.apparmor.allow_incomplete",
        "the kernel has the profile or the start fails",
    ),
    left_out(
        "lxc.apparmor.allow_nesting",
        "only for profiles that LXC makes",
    ),
    left_out(
        "lxc.seccomp.allow_nesting",
        "there is no system call filter",
    ),
    left_out("lxc.hook.version", "there are no hooks"),
    left_out("lxc.environment.hooks", "there are no hooks"),
    refused("lxc.include", "put the lines of that file into this one"),
    refused("lxc.mount.fstab", "write its lines as lxc.mount.entry"),
    refused("lxc.hook", HOOK),
    refused("lxc.hook.autodev", HOOK),
    refused("lxc.hook.clone", HOOK),
    refused("lxc.hook.destroy", HOOK),
    refused("lxc.hook.mount", HOOK),
    refused("lxc.hook.post-stop", HOOK),
    refused("lxc.hook.pre-mount", HOOK),
    refused("lxc.hook.pre-start", HOOK),
    refused("lxc.hook.start", HOOK),
    refused("lxc.hook.start-host", HOOK),
    refused("lxc.hook.stop", HOOK),
    refused(
        "lxc.idmap",
        "take it out: user name spaces are not supported by this build",
    ),
    refused(
        "lxc.arch",
        "take it out: a container has the machine's architecture",
    ),
    refused(
        "lxc.namespace.share.*",
        "take it out: name spaces of another container cannot be entered",
    ),
    refused(
        "lxc.proc.*",
        "take it out; of these only lxc.proc.oom_score_adj is supported",
    ),
    refused(
        "lxc.sched.core",
        "take it out: core scheduling is not supported",
    ),
    refused(
        "lxc.time.offset.boot",
        "take it out: time name spaces are not supported",
    ),
    refused(
        "lxc.time.offset.monotonic",
        "take it out: time name spaces are not supported",
    ),
    refused(
        "lxc.apparmor.raw",
        "load a profile on the host and name it with lxc.apparmor.profile",
    ),
    refused(
        "lxc.selinux.context.keyring",
        "take it out: it is not supported",
    ),
    refused(
        "lxc.seccomp.profile",
        "take it out, or make the container of type \"oci\" with \"seccomp\": \"default\"",
    ),
    refused(
        "lxc.seccomp.notify.cookie",
        "take it out: it is not supported",
    ),
    refused(
        "lxc.seccomp.notify.proxy",
        "take it out: it is not supported",
    ),
    refused("lxc.tty", "use today's name lxc.tty.max"),
    refused("lxc.rootfs", "use today's name lxc.rootfs.path"),
    refused("lxc.utsname", "use today's name lxc.uts.name"),
];

/// The line of the table for a key.
pub(super) fn find(key: &str) -> Option<&'static Key> {
    let exact = KEYS.iter().find(|known| known.name == key);
    exact.or_else(|| {
        KEYS.iter().find(|known| {
            known
                .name
                .strip_suffix('*')
                .and_then(|prefix| key.strip_prefix(prefix))
                .is_some_and(|rest| !rest.is_empty())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every key that LXC 6 and 7 know (`src/lxc/confile.c`).
    const LXC: &str = "lxc.arch lxc.apparmor.profile lxc.apparmor.allow_incomplete lxc.apparmor.allow_nesting lxc.apparmor.raw \
        lxc.autodev.tmpfs.size lxc.autodev lxc.cap.drop lxc.cap.keep lxc.cgroup2.x lxc.cgroup.dir.monitor.pivot lxc.cgroup.dir.monitor \
        lxc.cgroup.dir.container.inner lxc.cgroup.dir.container lxc.cgroup.dir lxc.cgroup.relative lxc.cgroup.x lxc.console.buffer.size \
        lxc.console.logfile lxc.console.path lxc.console.rotate lxc.console.size lxc.sched.core lxc.environment.runtime \
        lxc.environment.hooks lxc.environment lxc.ephemeral lxc.execute.cmd lxc.group lxc.hook.autodev lxc.hook.clone lxc.hook.destroy \
        lxc.hook.mount lxc.hook.post-stop lxc.hook.pre-mount lxc.hook.pre-start lxc.hook.start lxc.hook.start-host lxc.hook.stop \
        lxc.hook.version lxc.hook lxc.idmap lxc.include lxc.init.cmd lxc.init.gid lxc.init.groups lxc.init.uid lxc.init.cwd \
        lxc.keyring.session lxc.log.file lxc.log.level lxc.log.syslog lxc.monitor.unshare lxc.monitor.signal.pdeath lxc.mount.auto \
        lxc.mount.entry lxc.mount.fstab lxc.namespace.clone lxc.namespace.keep lxc.namespace.share.x lxc.time.offset.boot \
        lxc.time.offset.monotonic lxc.net.0.type lxc.net lxc.no_new_privs lxc.prlimit.x lxc.pty.max lxc.rootfs.managed lxc.rootfs.mount \
        lxc.rootfs.options lxc.rootfs.path lxc.seccomp.allow_nesting lxc.seccomp.notify.cookie lxc.seccomp.notify.proxy \
        lxc.seccomp.profile lxc.selinux.context.keyring lxc.selinux.context lxc.signal.halt lxc.signal.reboot lxc.signal.stop \
        lxc.start.auto lxc.start.delay lxc.start.order lxc.tty.dir lxc.tty.max lxc.uts.name lxc.sysctl.x lxc.proc.x";

    #[test]
    fn every_key_of_lxc_has_a_line() {
        let missing: Vec<&str> = LXC
            .split_whitespace()
            .filter(|key| *key != "lxc.net" && find(key).is_none())
            .collect();
        assert_eq!(missing, Vec::<&str>::new());
        let mut names: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), KEYS.len(), "each once");
        assert_eq!(find("lxc.nothing"), None);
        assert_eq!(find("lxc.prlimit."), None);
    }

    #[test]
    fn reference_page_is_fresh() {
        let mut page = String::from(
            "# Keys of lxc.container.conf\n\nMade from `src/lxc/keys.rs`. What cannot be translated is refused when the container is to start, with the line and what to do instead; a key\nthat is not on this page is refused too. Why: [decision 0050](../decisions/0050-pantavisors-containers.md).\n",
        );
        let mut part = |title: &str, head: &str, row: &dyn Fn(&Key) -> Option<String>| {
            page.push_str(&format!("\n## {title}\n\n{head}\n|---|---|\n"));
            for key in &KEYS {
                if let Some(text) = row(key) {
                    page.push_str(&format!("| `{}` | {text} |\n", key.name));
                }
            }
        };
        part("Translated", "| key | becomes |", &|key| match key.fate {
            Fate::Translated { to, .. } => Some(to.to_owned()),
            Fate::LeftOut(_) | Fate::Refused(_) => None,
        });
        part(
            "Left out",
            "| key | why that is safe |",
            &|key| match key.fate {
                Fate::LeftOut(why) => Some(why.to_owned()),
                Fate::Translated { .. } | Fate::Refused(_) => None,
            },
        );
        part(
            "Refused",
            "| key | what to do instead |",
            &|key| match key.fate {
                Fate::Refused(remedy) => Some(remedy.to_owned()),
                Fate::Translated { .. } | Fate::LeftOut(_) => None,
            },
        );
        expect_test::expect_file!["../../lxc-keys.md"].assert_eq(&page);
    }
}
