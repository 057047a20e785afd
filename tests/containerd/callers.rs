//! Who may do what on the socket, asked from inside real containers: by role, after a process moved or ended, by a lent connection.

use std::collections::BTreeMap;
use std::fs;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use acceptance::device::Device;
use acceptance::http::{self, Answer};
use acceptance::image::{binary, busybox_that_asks};
use acceptance::manifest::Manifest;
use acceptance::needs_containers;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use rustix::process::Signal;
use serde_json::{Value, json};

/// A container of each kind, for [`device`].
const EACH_KIND: &[(&str, Option<&[&str]>)] = &[
    ("boss", Some(&["mgmt"])),
    ("watcher", Some(&["monitor"])),
    ("plain", Some(&[])),
    ("silent", None),
];

/// A device with containers that ask for us; each has the roles that stand beside its name, or no key for them.
fn device(settings: &[(&str, &str)], containers: &[(&str, Option<&[&str]>)]) -> Device {
    let device = Device::start_with(settings);
    let image = busybox_that_asks();
    let mut manifest = Manifest::new();
    for (name, roles) in containers {
        let mut run = json!({
            "storage": {"perm": {"persistence": "permanent", "path": "/perm"}},
        });
        if let Some(roles) = roles {
            run["roles"] = json!(roles);
        }
        let command = ["/bin/inside", "/perm/agent"];
        manifest = manifest.container(name, &image, &command, run);
    }
    let done = device.update("locals/one", &manifest, &[&image]);
    assert_eq!(done.0, "DONE", "{}", done.1);
    device
}

/// A connection to the agent inside a container, with an order given.
fn order(device: &Device, container: &str, order: &str) -> UnixStream {
    let path = device
        .storage()
        .join("disks/perm")
        .join(container)
        .join("perm/agent");
    let what = format!("the agent in {container} listens");
    let mut agent = device.wait(&what, Duration::from_secs(20), || {
        UnixStream::connect(&path).ok()
    });
    agent
        .set_read_timeout(Some(Duration::from_secs(90)))
        .expect("a time-out");
    writeln!(agent, "{order}").expect("the agent takes orders");
    agent
}

/// By HTTP/1.0: a stream without an end is not put into chunks, the last of which would be missed.
fn request(method: &str, target: &str) -> String {
    format!("{method} {target} HTTP/1.0\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
}

/// Sends what is left to say and reads the answer that the agent got.
fn rest(mut agent: &UnixStream, request: &str) -> Answer {
    agent
        .write_all(request.as_bytes())
        .expect("the agent reads");
    agent.shutdown(Shutdown::Write).expect("the agent reads");
    let mut answer = Vec::new();
    agent.read_to_end(&mut answer).expect("the agent answers");
    http::parse(&answer)
        .unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(&answer)))
}

/// Asks from inside a container.
fn ask(device: &Device, container: &str, method: &str, target: &str) -> Answer {
    rest(&order(device, container, "ask"), &request(method, target))
}

/// Why it was refused for who asked, if it was.
fn kept_out(answer: &Answer) -> Option<&str> {
    let code = answer.header("Coxswain-Problem")?;
    ["not-allowed", "unknown-caller"]
        .contains(&code)
        .then_some(code)
}

/// Rows of `access.md`: method and path, then what each kind of caller gets.
fn access() -> Vec<((String, String), BTreeMap<String, String>)> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../orchestrator/server/access.md");
    let page = fs::read_to_string(page).expect("the page of who may call what");
    let mut rows = page.lines().filter(|line| line.starts_with('|'));
    let cells = |line: &str| -> Vec<String> {
        let line = line.trim_matches('|');
        line.split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let head = cells(rows.next().expect("a head"));
    rows.skip(1)
        .map(|line| {
            let cells = cells(line);
            let (method, path) = cells[0]
                .trim_matches('`')
                .split_once(' ')
                .expect("a method and a path");
            let outcomes = head.iter().cloned().zip(cells.iter().cloned()).skip(1);
            ((method.to_owned(), path.to_owned()), outcomes.collect())
        })
        .collect()
}

#[test]
fn each_role_gets_exactly_what_the_table_says() {
    needs_containers!();
    let device = device(&[], EACH_KIND);
    let reference = device
        .socket
        .get("/openapi.json")
        .expect("an answer")
        .json();
    let table = access();
    let documented: usize = reference["paths"]
        .as_object()
        .expect("paths")
        .values()
        .filter_map(Value::as_object)
        .map(serde_json::Map::len)
        .sum();
    assert_eq!(table.len(), documented, "the page is not of this build");
    for ((method, path), outcomes) in &table {
        let target = |own: &str| -> String {
            let named = |part: &str| match part {
                "{container}" => own.to_owned(),
                // What is not there: nothing changes when it is allowed.
                "{name}" | "{subject}" | "{key}" => "nothing-of-this-name".to_owned(),
                "{rev}" | "{id}" => "987654321".to_owned(),
                "{sha256}" => "ab".repeat(32),
                other => other.to_owned(),
            };
            path.split('/').map(named).collect::<Vec<_>>().join("/")
        };
        for (container, column, own) in [
            ("boss", "`mgmt`", "plain"),
            ("watcher", "`monitor`", "plain"),
            ("plain", "no role", "boss"),
            ("silent", "no role", "boss"),
            ("plain", "no role, own", "plain"),
        ] {
            let answer = ask(&device, container, method, &target(own));
            let refused = kept_out(&answer);
            match outcomes[column].as_str() {
                "yes" => assert_eq!(refused, None, "{container}: {method} {path}"),
                status => {
                    assert_eq!(refused, Some("not-allowed"), "{container}: {method} {path}");
                    assert_eq!(
                        answer.status.to_string(),
                        status,
                        "{container}: {method} {path}"
                    );
                }
            }
        }
    }
    // All the time nothing was restarted by what was asked.
    assert_eq!(device.container("plain").expect("it runs")["restarts"], 0);
}

#[test]
fn the_setting_gives_mgmt_to_who_says_nothing_and_to_nobody_else() {
    needs_containers!();
    let device = device(
        &[("pantavisor-default-roles", "true")],
        &[
            ("silent", None),
            ("nobody", Some(&[])),
            ("watcher", Some(&["monitor"])),
        ],
    );
    for (container, read, write) in [
        ("silent", None, None),
        ("nobody", Some("not-allowed"), Some("not-allowed")),
        ("watcher", None, Some("not-allowed")),
    ] {
        let answer = ask(&device, container, "GET", "/steps");
        assert_eq!(kept_out(&answer), read, "{container}");
        let answer = ask(&device, container, "POST", "/storage/gc");
        assert_eq!(kept_out(&answer), write, "{container}");
    }
}

/// Where each hierarchy of control groups is mounted, with the path that a process has in it.
fn groups_of(pid: u32) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("the mount table");
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its control groups");
    groups
        .lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            let mount = mounts.lines().find_map(|mount| {
                let (place, file_system) = mount.split_once(" - ")?;
                let mut place = place.split(' ');
                let (root, point) = (place.nth(3)?, place.next()?);
                let mut words = file_system.split(' ');
                let kind = words.next()?;
                let options = words.nth(1)?;
                let fits = if controllers.is_empty() {
                    kind == "cgroup2"
                } else {
                    let has = |name| options.split(',').any(|option| option == name);
                    kind == "cgroup" && controllers.split(',').all(has)
                };
                (root == "/" && fits).then(|| PathBuf::from(point))
            })?;
            Some(mount.join(path.trim_start_matches('/')))
        })
        .collect()
}

/// Moves a process into these control groups.
fn move_to(pid: u32, groups: &[PathBuf]) {
    for group in groups {
        fs::write(group.join("cgroup.procs"), pid.to_string())
            .unwrap_or_else(|error| panic!("{}: {error}", group.display()));
    }
}

#[test]
fn a_process_that_moved_is_nobody() {
    needs_containers!();
    let device = device(&[], &[("boss", Some(&["mgmt"])), ("plain", Some(&[]))]);
    let pid = |name| device.container_pid(name).expect("it runs");
    let (boss, plain) = (pid("boss"), pid("plain"));
    let (of_boss, of_plain) = (groups_of(boss), groups_of(plain));
    let of_host = groups_of(std::process::id());
    assert!(!of_plain.is_empty() && of_plain.len() == of_boss.len());
    let told = |name: &str, method: &str, target: &str| {
        let answer = ask(&device, name, method, target);
        (
            answer.status,
            kept_out(&answer).unwrap_or_default().to_owned(),
        )
    };
    let own = (200, String::new());
    let nobody = || (500, "unknown-caller".to_owned());
    // Opened before: it was `plain` who connected, whatever becomes of the process.
    let before = order(&device, "plain", "lend");
    let before = receive(&before);
    assert_eq!(told("plain", "GET", "/logs/plain"), own);
    for groups in [&of_boss, &of_host] {
        move_to(plain, groups);
        assert_eq!(told("plain", "GET", "/steps"), nobody());
        assert_eq!(told("plain", "POST", "/storage/gc"), nobody());
        assert_eq!(told("plain", "POST", "/signal"), nobody());
        move_to(plain, &of_plain);
        assert_eq!(told("plain", "GET", "/logs/plain"), own);
    }
    // In one hierarchy only, where there are several.
    if let [first, .., last] = &of_boss[..] {
        for one in [first, last] {
            move_to(plain, std::slice::from_ref(one));
            assert_eq!(
                told("plain", "GET", "/steps"),
                nobody(),
                "{}",
                one.display()
            );
            move_to(plain, &of_plain);
        }
    }
    // Who has more rights does not keep them on the move.
    move_to(boss, &of_plain);
    assert_eq!(told("boss", "GET", "/steps"), nobody());
    assert_eq!(
        told("boss", "GET", "/logs/plain"),
        (403, "unknown-caller".to_owned())
    );
    move_to(boss, &of_boss);
    assert_eq!(told("boss", "GET", "/steps"), own);
    let refused = rest_by(before, "GET", "/steps");
    assert_eq!(
        kept_out(&refused),
        Some("not-allowed"),
        "as who it was when it connected"
    );
}

/// Asks for the revisions by a process of the host in the name space of processes of `namespace`, in these control groups.
fn ask_by_nsenter(device: &Device, namespace: u32, groups: Option<&[PathBuf]>) -> Answer {
    let mut child = Command::new("nsenter")
        .args(["--pid", "--target", &namespace.to_string(), "--"])
        .arg(binary("inside"))
        .arg("once")
        .arg(device.run_dir().join("control.sock"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("util-linux has nsenter");
    if let Some(groups) = groups {
        // nsenter waits for its child, which asks only when it has read all.
        let task = format!("/proc/{0}/task/{0}/children", child.id());
        let inner: u32 = device.wait("nsenter has a child", Duration::from_secs(10), || {
            let children = fs::read_to_string(&task).ok()?;
            children.split_whitespace().next()?.parse().ok()
        });
        move_to(inner, groups);
    }
    let mut input = child.stdin.take().expect("it is piped");
    input
        .write_all(request("GET", "/steps").as_bytes())
        .expect("it reads");
    drop(input);
    let output = child.wait_with_output().expect("our own child");
    http::parse(&output.stdout).expect("an answer")
}

#[test]
fn a_process_of_the_host_in_a_container_is_it_only_with_both() {
    needs_containers!();
    let device = device(&[], &[("boss", Some(&["mgmt"])), ("plain", Some(&[]))]);
    let pid = |name| device.container_pid(name).expect("it runs");
    let (boss, plain) = (pid("boss"), pid("plain"));
    let own = std::process::id();
    for (namespace, groups, expected) in [
        (own, None, None),
        (boss, None, Some("unknown-caller")),
        (own, Some(boss), Some("unknown-caller")),
        (plain, Some(boss), Some("unknown-caller")),
        (boss, Some(boss), None),
        (plain, Some(plain), Some("not-allowed")),
    ] {
        let groups = groups.map(groups_of);
        let answer = ask_by_nsenter(&device, namespace, groups.as_deref());
        assert_eq!(kept_out(&answer), expected, "{namespace} {groups:?}");
    }
}

#[test]
fn a_connection_whose_process_has_ended_is_nobodys() {
    needs_containers!();
    let device = device(&[], &[("boss", Some(&["mgmt"]))]);
    assert_eq!(ask(&device, "boss", "GET", "/steps").status, 200);
    // The connection is made while coxswain does not look: when it does, who made it is gone and his number is free.
    device.signal(Signal::STOP);
    let mut agent = order(&device, "boss", "orphan");
    let mut told = [0; 5];
    let gone = agent.read_exact(&mut told);
    device.signal(Signal::CONT);
    gone.expect("the agent tells");
    assert_eq!(&told, b"gone\n");
    let answer = rest(&agent, &request("GET", "/steps"));
    assert_eq!(answer.status, 500, "{}", answer.text());
    assert_eq!(kept_out(&answer), Some("unknown-caller"));
    // Made while it looks: the child goes on as the container that it is of.
    let mut agent = order(&device, "boss", "orphan");
    agent.read_exact(&mut told).expect("the agent tells");
    let answer = rest(&agent, &request("GET", "/steps"));
    assert!(matches!(kept_out(&answer), None | Some("unknown-caller")));
}

fn receive(agent: &UnixStream) -> UnixStream {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    rustix::net::recvmsg(agent, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
        .expect("the agent lends");
    let lent: Option<OwnedFd> = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        RecvAncillaryMessage::ScmCredentials(_) | _ => None,
    });
    UnixStream::from(lent.expect("the agent lends a connection"))
}

/// Asks on a connection that somebody else made.
fn rest_by(connection: UnixStream, method: &str, target: &str) -> Answer {
    rest(&connection, &request(method, target))
}

#[test]
fn a_lent_connection_has_the_rights_of_who_made_it() {
    needs_containers!();
    let device = device(&[], &[("boss", Some(&["mgmt"])), ("plain", Some(&[]))]);
    // Root of the host writes to a connection of a container without roles, and lends it nothing.
    let lent = receive(&order(&device, "plain", "lend"));
    let answer = rest_by(lent, "GET", "/steps");
    assert_eq!(kept_out(&answer), Some("not-allowed"));
    let lent = receive(&order(&device, "plain", "lend"));
    assert_eq!(rest_by(lent, "GET", "/logs/plain").status, 200);
    // Who lends a connection lends his rights on it; so it is with every descriptor.
    let lent = receive(&order(&device, "boss", "lend"));
    assert_eq!(rest_by(lent, "GET", "/steps").status, 200);
    let own = device.socket.connect().expect("the host connects");
    let agent = order(&device, "plain", "borrow");
    let fds = [own.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    let byte = [IoSlice::new(b".")];
    rustix::net::sendmsg(&agent, &byte, &mut control, SendFlags::empty())
        .expect("the agent takes it");
    drop(own);
    assert_eq!(rest(&agent, &request("GET", "/steps")).status, 200);
}

#[test]
fn claims_hold_between_containers_and_end_with_their_lease() {
    needs_containers!();
    let device = device(
        &[],
        &[
            ("one", Some(&["mgmt"])),
            ("two", Some(&["mgmt"])),
            ("plain", Some(&[])),
        ],
    );
    let send = |container: &str, method: &str, target: &str, body: &Value| {
        let body = body.to_string();
        let text = format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        rest(&order(&device, container, "ask"), &text)
    };
    let wanted = json!({"parts": ["container:plain"], "lease_s": 5});
    let made = send("one", "POST", "/claims", &wanted);
    assert_eq!(made.status, 200, "{}", made.text());
    assert_eq!(made.json()["client"], "container:one");
    let restart = json!({"action": "restart"});
    let refused = send("two", "PUT", "/containers/plain", &restart);
    assert_eq!(
        (refused.status, refused.header("Coxswain-Problem")),
        (409, Some("claimed"))
    );
    assert_eq!(
        send("one", "PUT", "/containers/plain", &restart).status,
        200
    );
    assert_eq!(send("plain", "POST", "/claims", &wanted).status, 403);
    device.wait("the lease has run out", Duration::from_secs(20), || {
        let listed = device.socket.get("/claims").ok()?.json();
        listed.as_array()?.is_empty().then_some(())
    });
    device.wait("two may restart it", Duration::from_secs(20), || {
        let answer = send("two", "PUT", "/containers/plain", &restart);
        (answer.status == 200).then_some(())
    });
}

/// Names in a folder as a process in a container sees it.
fn seen(pid: u32, folder: &str) -> Vec<String> {
    let folder = format!("/proc/{pid}/root/{folder}");
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let mut names: Vec<_> = entries
        .map(|entry| {
            let name = entry.expect("an entry").file_name();
            name.into_string().expect("UTF-8")
        })
        .collect();
    names.sort();
    names
}

#[test]
fn each_role_sees_its_part_of_the_device_and_can_write_none_of_it() {
    needs_containers!();
    let device = device(&[], EACH_KIND);
    let pid = |name| device.container_pid(name).expect("it runs");
    let put = |key: &str, value: &str| {
        let answer = device
            .socket
            .put(&format!("/user-meta/{key}"), value.as_bytes());
        assert_eq!(answer.expect("an answer").status, 200);
    };
    put("plain.port", "80");
    put("boss.port", "81");
    put("shared", "x");
    let own = format!("/proc/{}/root/pantavisor/user-meta/port", pid("plain"));
    for value in ["80", "82"] {
        put("plain.port", value);
        device.wait("it sees its own value", Duration::from_secs(10), || {
            let text = fs::read_to_string(&own).ok()?;
            (text == value).then_some(())
        });
    }
    device.wait("all values are there", Duration::from_secs(10), || {
        (seen(pid("boss"), "pantavisor/user-meta").len() == 3).then_some(())
    });
    for (name, all) in [
        ("boss", true),
        ("watcher", true),
        ("plain", false),
        ("silent", false),
    ] {
        let pid = pid(name);
        let below = |folder: &str| seen(pid, &format!("pantavisor/{folder}"));
        for link in ["control.sock", "pv-ctrl"] {
            let path = format!("/proc/{pid}/root/pantavisor/{link}");
            assert!(fs::symlink_metadata(&path).is_ok(), "{name}: {link}");
            assert!(seen(pid, "run/coxswain").contains(&link.to_owned()));
        }
        let user = below("user-meta");
        let logs = below("logs");
        if all {
            assert_eq!(user, ["boss.port", "plain.port", "shared"], "{name}");
            assert!(below("device-meta").contains(&"pantavisor.revision".to_owned()));
            assert!(
                below("logs/locals/one").contains(&"plain".to_owned()),
                "{logs:?}"
            );
        } else {
            let expected: &[&str] = if name == "plain" { &["port"] } else { &[] };
            assert_eq!(user, expected, "{name}");
            assert_eq!(below("device-meta"), Vec::<String>::new(), "{name}");
            assert!(!logs.contains(&"locals".to_owned()), "{name}: {logs:?}");
        }
        for folder in ["", "user-meta/", "device-meta/", "logs/"] {
            let path = format!("/proc/{pid}/root/pantavisor/{folder}new");
            let error = fs::write(&path, "x").expect_err("it is read-only");
            assert_eq!(
                error.kind(),
                std::io::ErrorKind::ReadOnlyFilesystem,
                "{path}"
            );
        }
    }
    // Nothing of it is open to users of the host.
    let meta = fs::metadata(device.run_dir().join("meta")).expect("the folder of metadata");
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o777,
        0o700
    );
}
