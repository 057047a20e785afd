//! Tables: a line, and what becomes of it.

use super::super::keys::{Fate, KEYS};
use super::super::lines::Refused;
use super::super::mounts::{Access, Source};
use super::*;

const ABOUT: About<'static> = About {
    container: "web",
    root_name: "root.squashfs",
};

fn read(text: &str) -> Conf {
    Conf::read(text.as_bytes(), ABOUT).unwrap_or_else(|problems| panic!("{text}: {problems}"))
}

fn refused(text: &str) -> Vec<Refused> {
    match Conf::read(text.as_bytes(), ABOUT) {
        Ok(conf) => panic!("{text}: {conf:?}"),
        Err(problems) => problems.kept().to_vec(),
    }
}

/// A key of the table as it is written: a name instead of its `*`.
fn written(name: &str) -> String {
    match name {
        "lxc.cgroup.*" | "lxc.cgroup2.*" => name.replace('*', "devices.deny"),
        "lxc.prlimit.*" => name.replace('*', "nofile"),
        "lxc.sysctl.*" => name.replace('*', "net.ipv4.ip_forward"),
        "lxc.net.*" => name.replace('*', "0.type"),
        name => name.replace('*', "x"),
    }
}

#[test]
fn every_key_does_what_the_table_says() {
    let nothing = read("");
    for key in &KEYS {
        let name = written(key.name);
        match key.fate {
            Fate::Translated { example, .. } => {
                let conf = read(&format!("{name} = {example}"));
                // These two say what is so anyway.
                let says_nothing_new = matches!(key.name, "lxc.net.*" | "lxc.rootfs.path");
                assert_eq!(conf == nothing, says_nothing_new, "{name}: {conf:?}");
            }
            Fate::LeftOut(_) => assert_eq!(read(&format!("{name} = 1")), nothing, "{name}"),
            Fate::Refused(remedy) => {
                let found = refused(&format!("\n{name} = 1"));
                assert_eq!(found.len(), 1, "{name}");
                assert_eq!((found[0].line, found[0].remedy.as_str()), (2, remedy));
                assert!(found[0].detail.contains(&name), "{}", found[0].detail);
            }
        }
    }
}

/// What pvr makes of a container with all its arguments.
const PVR: &str = "\
lxc.tty.max = 8
lxc.pty.max = 1024
lxc.log.file = /pv/logs/web.log
lxc.cgroup.devices.deny = a
lxc.cgroup.devices.allow = c 188:* rwm
lxc.cgroup.memory.limit_in_bytes = 64M
lxc.rootfs.path = overlayfs:/volumes/web/root.squashfs:/volumes/web/lxc-overlay/upper
lxc.init.cmd = /bin/web \"-c\" \"/etc/web server.conf\"
lxc.init.cwd = /srv
lxc.environment = PATH=/bin
lxc.environment = A=1=2
lxc.namespace.keep = user net ipc
lxc.console.path = none
lxc.mount.auto = proc sys:rw cgroup
lxc.mount.entry = /dev/ dev none bind,rw,create=dir 0 0
lxc.mount.entry = / host none bind,rw,create=dir 0 0
lxc.mount.entry = /storage storage none bind,rw,create=dir 0 0
lxc.mount.entry = /etc/resolv.conf etc/resolv.conf none bind,rw,create=file 0 0
lxc.mount.entry = tmpfs run tmpfs rw,nodev,relatime,create=dir,mode=755 0 0
lxc.mount.entry = /volumes/web/docker--var-lib-web var/lib/web none bind,rw,create=dir 0 0
lxc.cap.drop = sys_module
lxc.cap.drop = mac_admin
";

#[test]
fn what_pvr_makes() {
    let conf = read(PVR);
    expect_test::expect_file!["pvr.txt"].assert_eq(&format!("{conf:#?}\n"));
}

#[test]
fn the_first_process() {
    for (value, expected) in [
        ("", &["/sbin/init"][..]),
        ("/init", &["/init"]),
        ("/a  \"b c\" 'd \"e' f", &["/a", "b c", "d \"e", "f"]),
        ("/a b\"c d\"", &["/a", "b\"c", "d\""]),
        ("/a \"\" b", &["/a", "", "b"]),
        ("/a \"b c", &["/a", "b c"]),
    ] {
        assert_eq!(
            read(&format!("lxc.init.cmd = {value}")).init,
            expected,
            "{value}"
        );
    }
    assert_eq!(read("lxc.init.cmd = /a\nlxc.init.cmd = /b").init, ["/b"]);
    let all = read(
        "lxc.environment = A=1\nlxc.environment =\nlxc.environment = B=\nlxc.signal.halt = sigrtmin+3",
    );
    assert_eq!(
        (all.env, all.halt_signal),
        (vec!["B=".to_owned()], Some(37))
    );
}

#[test]
fn name_spaces() {
    use Namespace::{Cgroup, Ipc, Network, Pid, Uts};
    for (text, own) in [
        ("", &[Pid, Ipc, Uts, Network, Cgroup][..]),
        ("lxc.namespace.keep = user net ipc", &[Pid, Uts, Cgroup]),
        (
            "lxc.namespace.keep = net\nlxc.namespace.keep = pid",
            &[Ipc, Uts, Cgroup],
        ),
        (
            "lxc.namespace.keep = net\nlxc.namespace.keep =",
            &[Pid, Ipc, Uts, Network, Cgroup],
        ),
        ("lxc.namespace.clone = mnt pid", &[Pid]),
        ("lxc.net.0.type = empty", &[Pid, Ipc, Uts, Network, Cgroup]),
        ("lxc.net.0.type = none", &[Pid, Ipc, Uts, Cgroup]),
        (
            "lxc.net.0.type = empty\nlxc.net.0.flags = up",
            &[Pid, Ipc, Uts, Network, Cgroup],
        ),
    ] {
        assert_eq!(
            read(text).namespaces,
            own.iter().copied().collect(),
            "{text}"
        );
    }
}

#[test]
fn mounts() {
    let entry = |value: &str| {
        read(&format!("lxc.mount.entry = {value}"))
            .entries
            .remove(0)
    };
    let all = entry("/a\\040b/./c// var/x none rbind,ro,nosuid,optional,create=dir,rslave 0 0");
    assert_eq!(all.source, Source::Host("/a b/c".into()));
    assert_eq!((all.target.as_str(), all.kind.as_str()), ("/var/x", "bind"));
    assert_eq!(all.options, ["rbind", "ro", "nosuid", "rslave"]);
    assert!(all.optional);
    for (value, source) in [
        ("/storage x none bind", Source::Storage(String::new())),
        ("/storage/a x none bind", Source::Storage("/a".into())),
        ("/storagex x none bind", Source::Host("/storagex".into())),
        ("/ x none bind", Source::Host("/".into())),
        (
            "dev/null x none bind,relative",
            Source::Inside("/dev/null".into()),
        ),
        ("tmpfs x tmpfs size=1m", Source::Nothing("tmpfs".into())),
        (
            "/volumes/web/data/sub x none bind",
            Source::Volume {
                container: "web".into(),
                name: "data/sub".into(),
            },
        ),
    ] {
        assert_eq!(entry(value).source, source, "{value}");
    }
    let auto = read("lxc.mount.auto = proc:rw sys cgroup-full:ro:force").auto;
    let found = (auto.proc, auto.sys, auto.cgroup);
    assert_eq!(
        found,
        (
            Some(Access::Full),
            Some(Access::Mixed),
            Some(Access::ReadOnly)
        )
    );
}

#[test]
fn refusals_name_the_line() {
    for (value, word) in [
        ("lxc.nothing = 1", "lxc.nothing"),
        ("lxc.include = /etc/x", "lxc.include"),
        ("lxc.init.cwd = x", "absolute"),
        ("lxc.init.uid = root", "number"),
        ("lxc.environment = HOME", "host"),
        ("lxc.uts.name = a b", "host name"),
        ("lxc.signal.halt = SIGNOTHING", "signal"),
        ("lxc.namespace.keep = net magic", "magic"),
        ("lxc.namespace.keep = mnt", "mounts"),
        ("lxc.namespace.clone = pid", "mounts"),
        ("lxc.namespace.clone = mnt user", "user"),
        ("lxc.mount.auto = shmounts:/x", "shmounts"),
        ("lxc.mount.auto = cgroup:magic", "cgroup:magic"),
        ("lxc.mount.entry = /a /b none bind 0 0", "absolute"),
        ("lxc.mount.entry = /a ../b none bind 0 0", "clean"),
        ("lxc.mount.entry = /a/../b b none bind 0 0", "clean"),
        ("lxc.mount.entry = a b none bind 0 0", "clean"),
        ("lxc.mount.entry = /dev/sda1 data ext4 rw 0 0", "ext4"),
        (
            "lxc.mount.entry = /a b none bind,idmap=container 0 0",
            "idmap",
        ),
        ("lxc.mount.entry = /a b none bind,magic 0 0", "magic"),
        ("lxc.mount.entry = tmpfs b tmpfs remount 0 0", "remount"),
        ("lxc.mount.entry = /exports/x/y b none bind 0 0", "exports"),
        (
            "lxc.mount.entry = /volumes/web b none bind 0 0",
            "all volumes",
        ),
        ("lxc.mount.entry = x", "fstab"),
        (
            "lxc.rootfs.path = overlayfs:/volumes/db/root.squashfs:/volumes/db/lxc-overlay/upper",
            "run.json",
        ),
        ("lxc.rootfs.path = /", "run.json"),
        ("lxc.rootfs.options = idmap=container", "idmap"),
        ("lxc.autodev = yes", "neither"),
        ("lxc.cap.drop = magic", "magic"),
        ("lxc.cap.keep = 99", "99"),
        ("lxc.cgroup.freezer.state = FROZEN", "freezer"),
        ("lxc.cgroup.memory.limit_in_bytes = much", "much"),
        ("lxc.cgroup.devices.allow = d 1:1 rwm", "d 1:1"),
        ("lxc.cgroup.devices.allow = c 1:1 rwx", "rwx"),
        ("lxc.cgroup2.magic.max = 1", "magic"),
        ("lxc.cgroup2.memory/../x = 1", "memory/"),
        ("lxc.cgroup2.cpu.max = 1 2 3", "1 2 3"),
        ("lxc.prlimit.magic = 1", "magic"),
        ("lxc.prlimit.nofile = 10:5", "10:5"),
        ("lxc.sysctl.kernel.panic = 1", "whole machine"),
        ("lxc.proc.comm = x", "comm"),
        ("lxc.apparmor.profile = generated", "generated"),
        ("lxc.net.0.type = veth", "veth"),
        ("lxc.net.0.link = lxcbr0", "link"),
        ("this is no line", "no line"),
    ] {
        let found = refused(&format!("# one\n\n{value}\n"));
        assert_eq!(found.len(), 1, "{value}: {found:?}");
        assert_eq!(found[0].line, 3, "{value}");
        assert!(found[0].detail.contains(word), "{value}: {}", found[0]);
        assert!(!found[0].remedy.is_empty());
    }
}

#[test]
fn what_only_several_lines_show() {
    for (text, line) in [
        ("lxc.uts.name = x\nlxc.namespace.keep = uts", 1),
        ("lxc.namespace.keep = net\nlxc.net.0.type = empty", 2),
        (
            "lxc.namespace.keep = net\nlxc.sysctl.net.ipv4.ip_forward = 1",
            2,
        ),
        ("lxc.sysctl.kernel.msgmax = 1\nlxc.namespace.keep = ipc", 1),
        ("lxc.cap.keep = kill\nlxc.cap.drop = chown", 2),
        ("lxc.namespace.keep = net\nlxc.namespace.clone = mnt", 2),
    ] {
        let found = refused(text);
        assert_eq!(
            found.iter().map(|one| one.line).collect::<Vec<_>>(),
            [line],
            "{text}"
        );
    }
    let many = "lxc.mount.entry = tmpfs x tmpfs rw 0 0\n".repeat(ENTRIES_MAX + 2);
    assert_eq!(refused(&many).len(), 2);
}

#[test]
fn limits() {
    let conf = read(
        "lxc.cgroup.memory.memsw.limit_in_bytes = -1\nlxc.cgroup2.memory.max = 2G\nlxc.cgroup2.cpu.weight = 100\n\
         lxc.cgroup2.cpu.max = 50000\nlxc.cgroup2.memory.high = 1G\nlxc.cgroup2.pids.max = max\nlxc.prlimit.core = unlimited\n\
         lxc.prlimit.nofile = 10 : 20",
    );
    assert_eq!(conf.old_groups.limits.memory_and_swap, Some(-1));
    let limits = &conf.unified_groups.limits;
    assert_eq!(limits.memory, Some(2 << 30));
    assert_eq!((limits.cpu_shares, limits.pids), (Some(2598), Some(-1)));
    assert_eq!(
        (limits.cpu_quota, limits.cpu_period),
        (Some(50_000), Some(100_000))
    );
    assert_eq!(
        limits.unified.get("memory.high").map(String::as_str),
        Some("1G")
    );
    assert_eq!(
        conf.rlimits.into_iter().collect::<Vec<_>>(),
        [("core", (u64::MAX, u64::MAX)), ("nofile", (10, 20))]
    );
}

proptest::proptest! {
    /// Whatever is in the file, it is read or refused, and each refusal is of a line that is there.
    #[test]
    fn any_text_is_read_or_refused(
        lines in proptest::collection::vec(
            (proptest::sample::select(&KEYS[..]), "[ -~é\\t]{0,24}", proptest::bool::ANY),
            0..12,
        ),
    ) {
        let text: String = lines
            .iter()
            .map(|(key, value, is_plain)| {
                let name = if *is_plain { written(key.name) } else { key.name.replace('*', value) };
                format!("{name} = {value}\n")
            })
            .collect();
        match Conf::read(text.as_bytes(), ABOUT) {
            Ok(conf) => proptest::prop_assert!(!conf.init.is_empty()),
            Err(problems) => {
                proptest::prop_assert!(!problems.kept().is_empty());
                for refused in problems.kept() {
                    proptest::prop_assert!((1..=lines.len()).contains(&refused.line), "{}", refused);
                    proptest::prop_assert!(!refused.detail.is_empty() && !refused.remedy.is_empty());
                }
            }
        }
    }

    #[test]
    fn any_bytes_do_no_harm(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..512)) {
        drop(Conf::read(&bytes, ABOUT));
    }
}
