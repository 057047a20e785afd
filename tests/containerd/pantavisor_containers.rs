//! What a container as pvr makes it sees: persistence, name spaces, mounts, environment, signals; and what is refused.

use std::fs;
use std::time::Duration;

use acceptance::device::Device;
use acceptance::image::{Image, busybox, object};
use acceptance::manifest::Manifest;
use acceptance::needs_containers;
use serde_json::{Value, json};

fn conf(lines: &str) -> Image {
    object(
        format!(
            "lxc.cgroup.devices.allow = a\n\
             lxc.rootfs.path = overlayfs:/volumes/box/root.squashfs:/volumes/box/lxc-overlay/upper\n\
             lxc.namespace.keep = user net ipc\nlxc.mount.auto = proc sys:rw cgroup\n\
             lxc.mount.entry = tmpfs run tmpfs rw,nodev,relatime,create=dir,mode=755 0 0\n{lines}\n"
        )
        .as_bytes(),
    )
}

/// Waits, and stops at once when asked to.
const WAITS: &str = "while :; do sleep 0.05; done\n";

fn image(init: &str) -> Image {
    busybox(&[(
        "sbin/init",
        &format!("#!/bin/sh\ntrap 'exit 0' PWR\n{init}{WAITS}"),
    )])
}

/// What one command inside prints.
fn says(device: &Device, script: &str) -> String {
    let output = device.inside("box", &["/bin/sh", "-c", script]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {text} {errors}");
    text.trim_end().to_owned()
}

fn wait_started(device: &Device) {
    device.wait("box runs", Duration::from_secs(30), || {
        device.container_pid("box")
    });
}

/// Starts a container `box` and waits until it is good.
fn start(image: &Image, lines: &str, run: Value) -> Device {
    let device = Device::start();
    let conf = conf(lines);
    let manifest = Manifest::new().lxc("box", image, &conf, run);
    let ended = device.update("locals/one", &manifest, &[image, &conf]);
    assert_eq!(ended.0, "DONE", "{ended:?}\n{}", device.log_end());
    device
}

/// A file in `/` and one in a volume, over: restart of the container, restart of the device, another revision, restart of the device.
#[test]
fn the_overlay_is_kept_as_long_as_its_persistence_says() {
    needs_containers!();
    for (persistence, expected) in [
        ("boot", ["12", "3", "4", "5"]),
        ("revision", ["12", "123", "4", "45"]),
        ("permanent", ["12", "123", "1234", "12345"]),
    ] {
        let image = image("");
        let conf = conf(
            "lxc.mount.entry = /volumes/box/docker--my-data my-data none bind,rw,create=dir 0 0",
        );
        let manifest = |number: u32| {
            let storage = json!({
                "lxc-overlay": {"persistence": persistence},
                "docker--my-data": {"persistence": persistence},
            });
            Manifest::new()
                .lxc("box", &image, &conf, json!({"storage": storage}))
                .key("box/note.json", json!(number))
        };
        let mut device = Device::start();
        assert_eq!(
            device
                .update("locals/one", &manifest(1), &[&image, &conf])
                .0,
            "DONE"
        );
        let note = |device: &Device, word: &str| {
            wait_started(device);
            says(
                device,
                &format!(
                    "echo -n {word} >> /etc/notes; echo -n {word} >> /my-data/notes; cmp /etc/notes /my-data/notes; cat /etc/notes"
                ),
            )
        };
        assert_eq!(note(&device, "1"), "1");
        let pid = device.container_pid("box");
        let answer = device
            .socket
            .put("/containers/box", br#"{"action":"restart"}"#)
            .expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        device.wait("another process", Duration::from_secs(20), || {
            device.container_pid("box").filter(|new| Some(*new) != pid)
        });
        assert_eq!(note(&device, "2"), expected[0], "{persistence}: restarted");
        device.reboot();
        assert_eq!(note(&device, "3"), expected[1], "{persistence}: rebooted");
        assert_eq!(device.update("locals/two", &manifest(2), &[]).0, "DONE");
        assert_eq!(note(&device, "4"), expected[2], "{persistence}: updated");
        device.reboot();
        assert_eq!(
            note(&device, "5"),
            expected[3],
            "{persistence}: rebooted again"
        );
    }
}

#[test]
fn name_spaces_that_are_kept_are_the_hosts() {
    needs_containers!();
    let image = image("");
    let kept = |device: &Device| -> String {
        let kinds = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];
        let same = kinds.into_iter().filter(|kind| {
            let inside = says(device, &format!("busybox readlink /proc/1/ns/{kind}"));
            let outside = fs::read_link(format!("/proc/self/ns/{kind}")).expect("a name space");
            outside.to_string_lossy() == inside
        });
        same.collect::<Vec<_>>().join(" ")
    };
    let device = start(&image, "", json!({}));
    assert_eq!(kept(&device), "ipc net user");
    assert_eq!(says(&device, "hostname"), "box");
    drop(device);
    let lines = "lxc.namespace.keep =\nlxc.uts.name = other\nlxc.net.0.type = empty\nlxc.sysctl.net.ipv4.ip_forward = 1";
    let device = start(&image, lines, json!({}));
    assert_eq!(kept(&device), "user");
    assert_eq!(says(&device, "hostname"), "other");
    assert_eq!(says(&device, "cat /proc/sys/net/ipv4/ip_forward"), "1");
    let links = says(&device, "ls /sys/class/net");
    assert_eq!(links, "lo");
    drop(device);
    let device = start(&image, "lxc.namespace.keep = uts", json!({}));
    assert_eq!(kept(&device), "ipc net user uts");
}

#[test]
fn mounts_command_environment_and_limits() {
    needs_containers!();
    let host = tempfile::Builder::new()
        .prefix("cx-host-")
        .tempdir()
        .expect("a temporary folder");
    fs::write(host.path().join("file"), "from the host\n").expect("a file");
    let image = busybox(&[
        (
            "opt/main",
            &format!(
                "#!/bin/sh\necho \"$#\" \"$1\" \"$2\" > /args; pwd > /cwd; env > /env\n{WAITS}"
            ),
        ),
        ("etc/own", "own\n"),
    ]);
    let path = host.path().display();
    let lines = format!(
        "lxc.init.cmd = /opt/main \"two words\" 'and more'\nlxc.init.cwd = /etc\n\
         lxc.environment = A=1 2\nlxc.environment = B=\n\
         lxc.mount.entry = {path} host none bind,ro,create=dir 0 0\n\
         lxc.mount.entry = {path}/file etc/there none bind,rw,create=file 0 0\n\
         lxc.mount.entry = {path}/nothing nothing none bind,optional,create=dir 0 0\n\
         lxc.mount.entry = etc/own etc/copy none bind,relative,create=file 0 0\n\
         lxc.mount.entry = /storage/objects objects none bind,ro,create=dir 0 0\n\
         lxc.cap.drop = net_raw sys_module\nlxc.prlimit.nofile = 100:200\nlxc.no_new_privs = 1\n\
         lxc.cgroup.memory.limit_in_bytes = 64M\nlxc.proc.oom_score_adj = 7"
    );
    let device = start(&image, &lines, json!({}));
    assert_eq!(
        says(&device, "cat /args /cwd"),
        "2 two words and more\n/etc"
    );
    let env = says(&device, "cat /env");
    for entry in ["A=1 2", "B=", "container=pv-app", "HOME=/"] {
        assert!(env.lines().any(|line| line == entry), "{env}");
    }
    assert_eq!(
        says(&device, "cat /host/file /etc/there /etc/copy"),
        "from the host\nfrom the host\nown"
    );
    says(
        &device,
        "echo more >> /etc/there && ! touch /host/x 2>/dev/null && test ! -e /nothing",
    );
    assert_eq!(
        fs::read_to_string(host.path().join("file")).ok().as_deref(),
        Some("from the host\nmore\n")
    );
    assert!(says(&device, "ls /objects").contains(&image.sha256));
    assert_eq!(
        says(
            &device,
            "busybox grep -c '^tmpfs /run tmpfs.*nodev' /proc/mounts"
        ),
        "1"
    );
    assert_eq!(says(&device, "cat /proc/1/oom_score_adj"), "7");
    assert_eq!(
        says(&device, "busybox grep NoNewPrivs /proc/1/status"),
        "NoNewPrivs:\t1"
    );
    let limits = says(&device, "busybox grep 'Max open files' /proc/1/limits");
    assert_eq!(limits.split_whitespace().nth(3), Some("100"), "{limits}");
    let set = says(&device, "busybox grep CapBnd /proc/1/status");
    let set = u64::from_str_radix(set.trim_start_matches("CapBnd:").trim(), 16).expect("a number");
    assert_eq!(set & (1 << 13 | 1 << 16), 0, "dropped: {set:x}");
    assert_eq!(set & 1 << 21, 1 << 21, "kept: {set:x}");
    // Its own limit, wherever control groups are.
    let limit = says(
        &device,
        "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null | busybox head -n 1",
    );
    assert_eq!(limit, "67108864");
    says(&device, "! echo 1 > /proc/sys/vm/drop_caches 2>/dev/null");
}

/// `docker_config` of `src.json` says what to start; the configuration adds to its environment.
#[test]
fn the_image_configuration_of_src_json_comes_first() {
    needs_containers!();
    let image = busybox(&[(
        "opt/main",
        &format!("#!/bin/sh\necho \"$1\" > /args; pwd > /cwd; env > /env\n{WAITS}"),
    )]);
    let conf =
        conf("lxc.init.cmd = /no/such/program\nlxc.environment = B=conf\nlxc.environment = C=conf");
    let source = json!({"#spec": "service-manifest-src@1", "docker_config":
        {"Entrypoint": ["/opt/main"], "Cmd": ["with \"quotes\""], "Env": ["A=image", "B=image"], "WorkingDir": "/opt", "User": "nobody", "Volumes": null}});
    let manifest = Manifest::new()
        .lxc("box", &image, &conf, json!({}))
        .key("box/src.json", source);
    let device = Device::start();
    assert_eq!(
        device.update("locals/one", &manifest, &[&image, &conf]).0,
        "DONE"
    );
    assert_eq!(says(&device, "cat /args /cwd"), "with \"quotes\"\n/opt");
    let env = says(&device, "cat /env");
    for entry in ["A=image", "B=conf", "C=conf"] {
        assert!(env.lines().any(|line| line == entry), "{env}");
    }
}

#[test]
fn the_halt_signal_stops_it() {
    needs_containers!();
    let tells = "echo up > /perm/told\nfor signal in PWR TERM USR1 QUIT; do trap \"echo $signal >> /perm/told; exit 0\" $signal; done\n";
    let image = image(tells);
    let storage = json!({"perm": {"persistence": "permanent", "path": "/perm"}, "lxc-overlay": {"persistence": "boot"}});
    let quit = json!({"docker_config": {"StopSignal": "SIGQUIT"}});
    for (lines, stop, source, expected) in [
        ("", None, None, "PWR"),
        ("lxc.signal.halt = SIGUSR1", None, Some(&quit), "USR1"),
        ("", None, Some(&quit), "QUIT"),
        (
            "lxc.signal.halt = SIGUSR1",
            Some("TERM"),
            Some(&quit),
            "TERM",
        ),
    ] {
        let conf = conf(lines);
        let run = json!({"storage": storage, "stop-signal": stop, "stop-timeout": 10});
        let mut manifest = Manifest::new().lxc("box", &image, &conf, run);
        if let Some(source) = source {
            manifest = manifest.key("box/src.json", source.clone());
        }
        let device = Device::start();
        assert_eq!(
            device.update("locals/one", &manifest, &[&image, &conf]).0,
            "DONE"
        );
        let told = device.storage().join("disks/perm/box/perm/told");
        device.wait("it listens", Duration::from_secs(10), || {
            fs::read_to_string(&told).ok().filter(|text| text == "up\n")
        });
        let answer = device
            .socket
            .put("/containers/box", br#"{"action":"stop"}"#)
            .expect("an answer");
        assert_eq!(answer.status, 200);
        let text = device.wait("it was told", Duration::from_secs(20), || {
            fs::read_to_string(&told)
                .ok()
                .filter(|text| text.lines().count() == 2)
        });
        assert_eq!(text, format!("up\n{expected}\n"), "{lines} {stop:?}");
    }
}

#[test]
fn what_cannot_be_translated_is_refused_with_its_line() {
    needs_containers!();
    let device = Device::start();
    let image = image("");
    let conf = conf("lxc.include = /usr/share/lxc/config/common.conf\nlxc.hook.mount = /x");
    let manifest = Manifest::new().lxc("box", &image, &conf, json!({}));
    let (status, _) = device.update("locals/one", &manifest, &[&image, &conf]);
    assert_eq!(status, "ERROR");
    let failures = device.socket.get("/failures").expect("an answer").text();
    for words in [
        "box/lxc.container.conf: line 6: \\\"lxc.include\\\" is not supported; put the lines of that file into this one",
        "line 7: \\\"lxc.hook.mount\\\" is not supported",
    ] {
        assert!(failures.contains(words), "{failures}");
    }
}

/// The ways in which pvr gives a container the host's devices, or keeps it from them.
#[test]
fn devices_of_the_host() {
    needs_containers!();
    let image = image("");
    let device = start(
        &image,
        "lxc.mount.entry = /dev/ dev none bind,rw,create=dir 0 0\nlxc.mount.entry = / host none bind,ro,create=dir 0 0",
        json!({}),
    );
    let host = std::os::unix::fs::MetadataExt::dev(&fs::metadata("/dev").expect("/dev is there"));
    assert_eq!(says(&device, "busybox stat -c %d /dev"), host.to_string());
    says(
        &device,
        "test -c /dev/kmsg && test -c /dev/pts/ptmx && test -d /host/proc && echo x > /dev/null",
    );
    drop(device);
    let device = start(&image, "lxc.autodev = 0", json!({}));
    says(
        &device,
        "! busybox grep -q ' /dev tmpfs' /proc/mounts && echo x > /dev/null",
    );
    drop(device);
    let script = "busybox mknod /mem c 1 1 && busybox mknod /zero c 1 5 && busybox head -c 1 /zero | busybox wc -c && ! busybox head -c 1 /mem";
    let listed = "lxc.cgroup.devices.deny = a\nlxc.cgroup.devices.allow = c *:* m";
    let device = start(&image, listed, json!({}));
    assert_eq!(says(&device, script), "1");
}
