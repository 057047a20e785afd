//! A configuration on machines that are told, not looked at.

use std::path::Path;

use model::Manifest;
use model::container::Kind;

use super::*;
use crate::lxc::About;
use crate::rootfs::VolumePlace;

const ABOUT: About<'static> = About {
    container: "web",
    root_name: "root.squashfs",
};

fn conf(text: &str) -> Conf {
    Conf::read(text.as_bytes(), ABOUT).unwrap()
}

fn machine(unified: bool) -> Machine {
    Machine {
        capabilities: ["CAP_CHOWN", "CAP_KILL", "CAP_NET_ADMIN"]
            .map(str::to_owned)
            .into(),
        proc_sys: ["net", "vm", "kernel"].map(str::to_owned).to_vec(),
        unified,
        release: "none".to_owned(),
    }
}

fn container(storage: &str) -> Container {
    let object = "0".repeat(64);
    let text = format!(
        r##"{{"#spec":"pantavisor-service-system@1","web/lxc.container.conf":"{object}","web/root.squashfs":"{object}",
        "web/run.json":{{"name":"web","root-volume":"root.squashfs","automodfw":"no","storage":{storage}}}}}"##
    );
    let manifest = Manifest::parse(text.as_bytes()).unwrap();
    manifest.containers().next().unwrap().clone()
}

/// The mounts of a container, as text: target, kind, source, options.
fn mounts_of(text: &str, places: &Places<'_>) -> Result<Vec<String>, String> {
    let container = container("{}");
    let Kind::Lxc(lxc) = &container.kind else {
        panic!("{:?}", container.kind)
    };
    let conf = conf(text);
    let found = mounts(
        &container,
        lxc,
        &conf,
        &conf.namespaces,
        places,
        &machine(true),
    );
    let line = |mounted: &Mounted| {
        let options = mounted.options.join(",");
        let Mounted {
            target,
            kind,
            source,
            ..
        } = mounted;
        format!("{target} {kind} {source} {options}")
    };
    found
        .map(|all| all.iter().map(line).collect())
        .map_err(|refused| refused.to_string())
}

#[test]
fn mounts_in_order() {
    let root = std::env::temp_dir().join(format!("coxswain-wanted-{}", std::process::id()));
    for folder in ["rootfs/etc", "storage/objects", "data/sub", "var-lib"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    std::os::unix::fs::symlink("/../../../../etc/shadow", root.join("data/escape")).unwrap();
    let volume = |name: &str, folder: &str, path: Option<&str>| VolumePlace {
        name: name.to_owned(),
        host: root.join(folder),
        path: path.map(str::to_owned),
    };
    let volumes = [
        volume("docker--var-lib", "var-lib", Some("/var/lib")),
        volume("docker--my-data", "data", Some("/my/data")),
    ];
    let places = Places {
        dev_log: None,
        rootfs: &root.join("rootfs"),
        storage: &root.join("storage"),
        cgroup: "/coxswain/web",
        sockets: Path::new("/run/sockets"),
        sees: &[],
        volumes: &volumes,
        shim_group: None,
    };
    let text = "lxc.namespace.keep = net ipc\nlxc.mount.auto = proc sys:rw cgroup:mixed\n\
        lxc.mount.entry = tmpfs run tmpfs rw,nodev,relatime,create=dir,mode=755 0 0\n\
        lxc.mount.entry = /volumes/web/docker--my-data my-data none bind,rw,create=dir 0 0\n\
        lxc.mount.entry = /storage/objects objects none bind,ro,create=dir 0 0\n\
        lxc.mount.entry = etc copy none bind,relative,create=dir 0 0\n\
        lxc.mount.entry = /no/such/path x none bind,optional 0 0\n";
    let shown: String = mounts_of(text, &places)
        .unwrap()
        .iter()
        .map(|line| format!("{}\n", line.replace(&*root.to_string_lossy(), "…")))
        .collect();
    expect_test::expect![[r#"
        /proc proc proc nosuid,noexec,nodev
        /dev tmpfs tmpfs nosuid,strictatime,mode=755,size=500000
        /sys sysfs sysfs rw
        /sys/fs/cgroup cgroup cgroup nosuid,noexec,nodev,rw
        /run tmpfs tmpfs rw,nodev,relatime,mode=755
        /my-data bind …/data bind,rw
        /objects bind …/storage/objects bind,ro
        /copy bind …/rootfs/etc bind
        /dev/pts devpts devpts nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5
        /dev/shm tmpfs shm nosuid,noexec,nodev,mode=1777,size=65536k
        /var/lib bind …/var-lib rbind,rprivate,rw,nosuid,nodev
        /run/coxswain bind /run/sockets rbind,rprivate,ro,nosuid,nodev,noexec
        /pantavisor bind /run/sockets rbind,rprivate,ro,nosuid,nodev,noexec
    "#]]
    .assert_eq(&shown);
    // The host's /dev takes the place of everything that would be below one of its own.
    let text = "lxc.mount.entry = /dev/ dev none bind,rw,create=dir 0 0";
    let all = mounts_of(text, &places).unwrap();
    assert!(!all.iter().any(|line| line.starts_with("/dev tmpfs")));
    assert!(!all.iter().any(|line| line.starts_with("/dev/shm ")));
    for (entry, expected) in [
        ("/no/such/path", "line 1: /no/such/path does not exist"),
        (
            "/volumes/db/data",
            "line 1: /volumes/db/data is a volume of another",
        ),
        (
            "/volumes/web/nothing",
            "line 1: there is no volume \"nothing\"",
        ),
        // A link in a volume leads nowhere outside of it.
        ("/volumes/web/docker--my-data/escape", "line 1: "),
    ] {
        let text = format!("lxc.mount.entry = {entry} x none bind 0 0");
        let refused = mounts_of(&text, &places).unwrap_err();
        assert!(refused.starts_with(expected), "{refused}");
    }
    let kept = "lxc.namespace.keep = cgroup\nlxc.mount.auto = cgroup:rw";
    let all = mounts_of(kept, &places).unwrap();
    assert!(all.contains(&"/sys/fs/cgroup cgroup cgroup nosuid,noexec,nodev,ro".to_owned()));
    std::fs::remove_dir_all(&root).unwrap();
}

#[test]
fn capabilities_are_those_that_the_machine_has() {
    let container = container("{}");
    for (text, expected) in [
        ("", "CAP_CHOWN CAP_KILL CAP_NET_ADMIN"),
        ("lxc.cap.drop = kill sys_admin", "CAP_CHOWN CAP_NET_ADMIN"),
        ("lxc.cap.keep = kill sys_admin", "CAP_KILL"),
        ("lxc.cap.keep = none", ""),
    ] {
        let set = capabilities(&conf(text).capabilities, &machine(true), &container);
        assert_eq!(
            set.into_iter().collect::<Vec<_>>().join(" "),
            expected,
            "{text}"
        );
    }
}

#[test]
fn settings_of_the_kernel_are_read_only_but_for_the_network() {
    for (text, expected) in [
        ("", "/proc/sys/kernel /proc/sys/vm /proc/sysrq-trigger"),
        ("lxc.cap.drop = net_admin", "/proc/sys /proc/sysrq-trigger"),
        ("lxc.mount.auto = proc:rw", ""),
    ] {
        let conf = conf(text);
        let set = capabilities(&conf.capabilities, &machine(true), &container("{}"));
        assert_eq!(
            read_only(&conf, &set, &machine(true)).join(" "),
            expected,
            "{text}"
        );
    }
}

#[test]
fn rules_for_devices() {
    let rules = |text: &str| {
        let all = device_rules(&groups(&conf(text), &machine(false)).unwrap().devices);
        let own = all.len() - DeviceRule::usual().count();
        let shown = all.iter().take(own).map(|rule| {
            let number = |n: Option<u32>| n.map_or("*".to_owned(), |n| n.to_string());
            let sign = if rule.allow { '+' } else { '-' };
            format!(
                "{sign}{} {}:{}",
                rule.kind,
                number(rule.major),
                number(rule.minor)
            )
        });
        shown.collect::<Vec<_>>().join(", ")
    };
    assert_eq!(rules(""), "+a *:*");
    assert_eq!(rules("lxc.cgroup.devices.allow = a"), "+a *:*");
    let listed = "lxc.cgroup.devices.deny = a\nlxc.cgroup.devices.allow = c 188:* rwm";
    assert_eq!(rules(listed), "-a *:*, +c 188:*");
    // Where there are both, the machine's own kind counts.
    let both = format!("{listed}\nlxc.cgroup2.devices.allow = a");
    assert_eq!(rules(&both), "-a *:*, +c 188:*");
    assert_eq!(
        rules("lxc.cgroup2.devices.deny = b 8:* w"),
        "+a *:*, -b 8:*"
    );
}

#[test]
fn limits_of_both_kinds() {
    let text = "lxc.cgroup.memory.limit_in_bytes = 1M\nlxc.cgroup2.memory.max = 2M\nlxc.cgroup.pids.max = 7";
    let limits =
        |text: &str, unified| groups(&conf(text), &machine(unified)).map(|found| found.limits);
    let old = limits(text, false).unwrap();
    assert_eq!((old.memory, old.pids), (Some(1 << 20), Some(7)));
    let unified = limits(text, true).unwrap();
    assert_eq!((unified.memory, unified.pids), (Some(2 << 20), Some(7)));
    let only = "lxc.cgroup2.memory.high = 1M";
    assert_eq!(limits(only, true).unwrap().unified.len(), 1);
    let refused = limits(only, false).unwrap_err();
    assert!(refused.detail.contains("memory.high"), "{refused}");
}
