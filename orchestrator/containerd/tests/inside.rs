//! What a container sees: its root file system, volumes, user, limits, network; and what it may not do.
#![allow(clippy::unwrap_used, reason = "tests")]

mod device;

use std::fs;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use model::container::{
    Capabilities, ImageConfig, Mount, Network, Oci, Overlay, Persistence, Resources, Volume,
};
use model::{Container, ObjectId};

use crate::device::{Device, container, possible, with};

fn sh(script: &str) -> Oci {
    Oci {
        command: Some(["/bin/sh", "-c", script].map(str::to_owned).to_vec()),
        ..Oci::default()
    }
}

fn volume(name: &str, path: Option<&str>, persistence: Persistence) -> Volume {
    Volume {
        name: name.to_owned(),
        path: path.map(str::to_owned),
        persistence,
        disk: None,
    }
}

/// The same container as another version.
fn version(mut container: Container, mark: &str) -> Container {
    container.fingerprint = ObjectId::of(format!("{mark}{}", container.fingerprint).as_bytes());
    container
}

#[test]
fn what_is_written_is_kept_as_long_as_said() {
    if !possible() {
        return;
    }
    let mut device = Device::new("keep");
    let script = "for d in / /perm/ /rev/ /boot/; do cat ${d}mark 2>/dev/null; \
                  echo $d > ${d}mark; done; echo .";
    let with_root = |persistence| {
        let mut container = container("app", script);
        container.volumes = vec![
            volume("lxc-overlay", None, persistence),
            volume("p", Some("/perm"), Persistence::Permanent),
            volume("r", Some("/rev"), Persistence::Revision),
            volume("b", Some("/boot"), Persistence::Boot),
        ];
        container
    };
    let boot = with_root(Persistence::Boot);
    assert_eq!(device.run(&boot).0, ".\n");
    fs::remove_file(device.log(&boot)).unwrap();
    assert_eq!(device.run(&boot).0, "/\n/perm/\n/rev/\n/boot/\n.\n");
    fs::remove_file(device.log(&boot)).unwrap();
    // Another version of it.
    let new = version(with_root(Persistence::Boot), "new");
    assert_eq!(device.run(&new).0, "/perm/\n/rev/\n.\n");
    fs::remove_file(device.log(&boot)).unwrap();
    let permanent = version(with_root(Persistence::Permanent), "permanent");
    assert_eq!(device.run(&permanent).0, "/perm/\n/rev/\n.\n");
    fs::remove_file(device.log(&boot)).unwrap();
    assert_eq!(device.run(&permanent).0, "/\n/perm/\n/rev/\n/boot/\n.\n");
    let disks = device.config.storage.join("disks");
    assert!(disks.join("perm/app/lxc-overlay/upper/mark").exists());
    assert!(disks.join("perm/app/p/mark").exists());
    assert!(disks.join("rev/locals/one/app/r/mark").exists());
}

#[test]
fn a_read_only_root_has_what_it_needs() {
    if !possible() {
        return;
    }
    let mut device = Device::new("ro");
    let mut oci = sh("touch /x 2>/dev/null && echo writable; cat /etc/conf; \
                      echo v > /some/where/v && cat /some/where/v; cat /deep/host/f; \
                      test -d /pantavisor && echo dir");
    oci.read_only = true;
    fs::create_dir_all(device.folder.join("host")).unwrap();
    fs::write(device.folder.join("host/f"), "host\n").unwrap();
    oci.mounts = vec![Mount {
        source: device.folder.join("host").to_str().unwrap().to_owned(),
        target: "/deep/host".to_owned(),
        read_only: true,
    }];
    let mut container = with("app", oci);
    container.volumes = vec![volume("v", Some("/some/where"), Persistence::Boot)];
    container
        .overlays
        .insert("etc/conf".to_owned(), Overlay::Inline("{\"a\":1}\n".into()));
    let (log, exit) = device.run(&container);
    assert_eq!(log, "{\"a\":1}\nv\nhost\ndir\n");
    assert_eq!(exit.code, 0);
}

#[test]
fn files_laid_over_and_image_configuration() {
    if !possible() {
        return;
    }
    let mut device = Device::new("over");
    let object = ObjectId::of(b"from an object\n");
    let objects = device.config.storage.join("objects");
    fs::write(objects.join(object.to_string()), b"from an object\n").unwrap();
    let oci = Oci {
        image_config: Some(ImageConfig::Inline(
            r#"{"config":{"Entrypoint":["/bin/sh","-c"],
                "Cmd":["cat /etc/a /new/b; id; echo $A-$B-$HOME; pwd"],
                "Env":["A=image","B=image"],"User":"web","WorkingDir":"/data"}}"#
                .to_owned(),
        )),
        env: vec!["B=manifest".to_owned()],
        ..Oci::default()
    };
    let mut container = with("app", oci);
    container
        .overlays
        .insert("etc/a".to_owned(), Overlay::Object(object));
    container
        .overlays
        .insert("new/b".to_owned(), Overlay::Inline("[2]\n".to_owned()));
    let (log, _) = device.run(&container);
    assert_eq!(
        log,
        "from an object\n[2]\nuid=33(web) gid=34(web) groups=34(web),44(video)\n\
         image-manifest-/data\n/data\n"
    );
}

#[test]
fn safe_unless_told_otherwise() {
    if !possible() {
        return;
    }
    let mut device = Device::new("safe");
    let script = "grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status; echo pid $$; \
                  cat /proc/sys/kernel/hostname; mount -t tmpfs t /tmp 2>/dev/null && echo mounted; \
                  ls /proc | grep -c '^[0-9]'; cat /proc/kcore | head -c1; \
                  echo 1 > /proc/sys/kernel/panic";
    // busybox has applets without links too.
    let script = script
        .replace("grep", "busybox grep")
        .replace("mount -t", "busybox mount -t");
    let script = script.replace("ls /proc", "busybox ls /proc");
    let (log, _) = device.run(&container("safe", &script));
    let lines: Vec<_> = log.lines().collect();
    assert_eq!(
        lines.get(..5),
        Some(
            &[
                "CapEff:\t00000000a80425fb",
                "NoNewPrivs:\t1",
                "Seccomp:\t2",
                "pid 1",
                "safe"
            ][..]
        ),
        "{log}"
    );
    assert!(!log.contains("mounted"), "{log}");
    assert!(log.contains("Read-only file system"), "{log}");
    let mut oci = sh("busybox grep CapEff /proc/self/status");
    oci.capabilities = Capabilities {
        add: vec!["CAP_KILL".into()],
        drop: vec!["ALL".into()],
    };
    assert_eq!(
        device.run(&with("drop", oci)).0,
        "CapEff:\t0000000000000020\n"
    );
}

#[test]
fn limits_and_networks() {
    if !possible() {
        return;
    }
    let mut device = Device::new("limits");
    let mut oci = sh("cat /proc/self/cgroup; busybox ls /sys/class/net; sleep 1000");
    oci.network = Network::None;
    oci.resources = Resources {
        memory_bytes: Some(64 << 20),
        cpus: Some(0.5),
        pids: Some(20),
        io_weight: None,
    };
    let app = with("app", oci);
    let (instance, pid) = device.start(&app);
    device.wait_log(&app, "lo\n");
    let log = device.written(&app);
    // Its own view: it sees neither our group nor other networks.
    assert!(!log.contains("cx-limits"), "{log}");
    assert!(log.ends_with(":/\nlo\n"), "{log}");
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let line = cgroup
        .lines()
        .find(|line| line.contains("cx-limits"))
        .unwrap();
    let path = line.splitn(3, ':').nth(2).unwrap();
    let limit = |v1: &str, v2: &str| {
        fs::read_to_string(format!("/sys/fs/cgroup/{v1}"))
            .or_else(|_| fs::read_to_string(format!("/sys/fs/cgroup{path}/{v2}")))
            .unwrap()
    };
    assert_eq!(limit(&format!("pids{path}/pids.max"), "pids.max"), "20\n");
    let memory = limit(&format!("memory{path}/memory.limit_in_bytes"), "memory.max");
    assert_eq!(memory, format!("{}\n", 64 << 20));
    device.stop(&instance, Duration::ZERO);
    let mut pool = sh("id");
    pool.network = Network::Pool {
        pool: "lan".into(),
        ip: None,
        mac: None,
    };
    let spec = device.spec(&with("pool", pool));
    let instance = spec.instance.clone();
    device.submit(::device::ports::RuntimeCommand::Start(spec));
    assert!(
        device
            .outcome(&instance)
            .unwrap_err()
            .contains("network pools need")
    );
}

#[test]
fn the_control_socket_survives_its_server() {
    if !possible() {
        return;
    }
    let mut device = Device::new("sock");
    let socket = device.config.sockets_dir.join("control.sock");
    let app = container("app", "touch /run/coxswain/x || echo refused; sleep 1000");
    let (instance, pid) = device.start(&app);
    device.wait_log(&app, "refused");
    // Through the container's own mounts; the server comes, and comes again, after the container.
    for _ in 0..2 {
        fs::remove_file(&socket).ok();
        let listener = UnixListener::bind(&socket).unwrap();
        for path in ["run/coxswain/control.sock", "pantavisor/pv-ctrl"] {
            UnixStream::connect(format!("/proc/{pid}/root/{path}")).unwrap();
            listener.accept().unwrap();
        }
    }
    device.stop(&instance, Duration::ZERO);
}
