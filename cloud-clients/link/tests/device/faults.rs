//! Everything that goes wrong around a client: links, servers, proxies, certificates, redirects, clocks, disks. Each time the fault is there
//! first and is seen by the client, then it is mended, and the deployment ends right, once, and is reported once.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use acceptance::needs_containers;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::cloud::TOKEN;
use crate::server::Mood;
use crate::stage::{BYTES, Stage};

#[test]
fn links_that_are_cut_and_servers_that_are_killed() {
    needs_containers!();
    let mut stage = Stage::new(&[], 600_000);
    let client = stage.start(&[], &[]);

    // The link breaks every 200 kB, for everything.
    stage.server.breaks_after(200_000);
    let (id, object) = stage.offer(None);
    stage.runs(&id, &object);
    assert!(stage.server.breaks.load(Ordering::Relaxed) >= 7);
    stage.server.breaks_after(u64::MAX);

    // In the middle of the download nothing comes any more, nor a reset; and the cloud is as silent.
    let (id, object) = stage.offer(None);
    stage.until("it downloads", || stage.begun(&object));
    stage.server.is(Mood::Silent);
    stage.until_said("cannot be reached");
    assert!(stage.last_words(&id).is_empty());
    stage.server.is(Mood::Fine);
    stage.runs(&id, &object);

    // The server is killed in the middle, and started again: the download goes on where it was.
    let (id, object) = stage.offer(None);
    stage.until("it downloads", || stage.begun(&object));
    let before = stage.server.sent.load(Ordering::Relaxed);
    stage.server.is(Mood::Gone);
    stage.until_said("cannot connect");
    let had = stage.part(&object);
    stage.server.is(Mood::Fine);
    stage.runs(&id, &object);
    assert!(had > 0, "the device kept the part");
    let sent = stage.server.sent.load(Ordering::Relaxed) - before;
    assert!(sent < BYTES as u64, "{sent} bytes after {had} were there");

    // Killed while the device installs: the end waits until somebody can hear it.
    let (id, object) = stage.offer(None);
    stage.until("it installs", || stage.server.told(&id).len() >= 3);
    stage.server.is(Mood::Gone);
    stage.until("it runs", || {
        let manifest = stage.device.socket.get("/steps/current");
        manifest.is_ok_and(|answer| answer.text().contains(&object))
    });
    stage.until_said("cannot report");
    assert!(stage.last_words(&id).is_empty());
    stage.server.is(Mood::Fine);
    stage.runs(&id, &object);
    drop(client);
}

/// A proxy for `CONNECT`, honest or not.
struct Proxy {
    at: String,
    garbage: Arc<AtomicU64>,
    lied: Arc<AtomicU64>,
}

/// What a proxy that is none says instead of opening the tunnel.
const GARBAGE: [&[u8]; 5] = [
    b"\x16\x03\x01\x00\x05hello\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>please log in</html>",
    b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 5\r\n\r\noops!",
    b"<html>login</html>",
    b"",
];

impl Proxy {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let proxy = Self {
            at: format!("http://{}", listener.local_addr().expect("it is bound")),
            garbage: Arc::new(AtomicU64::new(1)),
            lied: Arc::default(),
        };
        let (garbage, lied) = (Arc::clone(&proxy.garbage), Arc::clone(&proxy.lied));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if garbage.load(Ordering::Relaxed) > 0 {
                    let kind = lied.fetch_add(1, Ordering::Relaxed);
                    std::thread::spawn(move || Self::lie(stream, kind));
                } else {
                    std::thread::spawn(move || Self::tunnel(stream));
                }
            }
        });
        proxy
    }

    fn head(stream: &mut TcpStream) -> Option<String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).ok()?;
            head.push(byte[0]);
        }
        String::from_utf8(head).ok()
    }

    fn lie(mut stream: TcpStream, kind: u64) {
        Self::head(&mut stream);
        let kind = usize::try_from(kind).expect("few") % GARBAGE.len();
        stream.write_all(GARBAGE[kind]).ok();
    }

    fn tunnel(mut stream: TcpStream) -> Option<()> {
        let head = Self::head(&mut stream)?;
        assert!(!head.contains("s3cret"), "the token is not for the proxy");
        let to = head.split(' ').nth(1)?;
        let port: u16 = to.rsplit(':').next()?.parse().ok()?;
        let mut there = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.write_all(b"HTTP/1.1 200 Open\r\n\r\n").ok()?;
        let (mut from, mut back) = (stream.try_clone().ok()?, there.try_clone().ok()?);
        std::thread::spawn(move || {
            std::io::copy(&mut from, &mut there).ok();
            there.shutdown(std::net::Shutdown::Both).ok();
        });
        std::io::copy(&mut back, &mut stream).ok();
        stream.shutdown(std::net::Shutdown::Both).ok()
    }
}

#[test]
fn proxies_certificates_and_redirects() {
    needs_containers!();
    let mut stage = Stage::new(&[], 0);

    // A proxy that answers garbage of every kind, then is what it should be.
    let proxy = Proxy::start();
    let client = stage.start(&[("proxy", &proxy.at)], &[]);
    let (id, object) = stage.offer(None);
    stage.until("all kinds of garbage", || {
        proxy.lied.load(Ordering::Relaxed) >= GARBAGE.len() as u64
    });
    assert!(stage.server.reports.lock().expect("whole").is_empty());
    proxy.garbage.store(0, Ordering::Relaxed);
    stage.runs(&id, &object);
    drop(client);

    // Certificates that are another host's, or have expired: nothing is sent to such a server.
    let heads = || stage.server.heads.lock().expect("whole").len();
    let before = heads();
    let client = stage.start(&[], &[]);
    stage.until("it polls", || heads() > before);
    for (name, years, words) in [
        ("elsewhere", (2020, 2060), "another host"),
        ("localhost", (2000, 2001), "expired"),
    ] {
        stage.server.shows(stage.pki.server(name, years));
        // Connections that are open stay what they were.
        stage.server.is(Mood::Gone);
        std::thread::sleep(Duration::from_millis(100));
        let before = stage.server.heads.lock().expect("whole").len();
        stage.server.is(Mood::Fine);
        stage.until_said(words);
        assert_eq!(stage.server.heads.lock().expect("whole").len(), before);
    }
    let (id, object) = stage.offer(None);
    stage
        .server
        .shows(stage.pki.server("localhost", (2020, 2060)));
    stage.runs(&id, &object);

    // The object is at another host, behind a redirect: it is fetched there, and the token is not shown there.
    let other = stage
        .server
        .beside(stage.pki.server("localhost", (2020, 2060)));
    let (id, object) = stage.offer(Some(&other));
    let name = format!("object-{id}");
    let to = format!("{}/{name}", other.at);
    // The offer names the first server.
    stage.server.redirect(&name, &to);
    let (_, text) = stage.server.offered();
    stage
        .server
        .offer(&id, text.replace(&other.at, &stage.server.at));
    stage.runs(&id, &object);
    assert!(stage.server.asked(TOKEN) > 0);
    assert!(stage.server.asked(&format!("/{name}")) > 0);
    assert_eq!((other.asked(&name) > 0, other.asked("s3cret")), (true, 0));

    // The cloud's own address is redirected: its answers are taken from there, without the token.
    let (id, object) = stage.offer(None);
    let (_, text) = stage.server.offered();
    other.offer(&id, text);
    stage
        .server
        .redirect("offer", &format!("{}/offer", other.at));
    stage.runs(&id, &object);
    assert!(other.asked("/offer") > 0);
    assert_eq!(other.asked("s3cret"), 0);
    drop(client);
}

#[test]
fn a_clock_at_1970() {
    needs_containers!();
    let library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
    if !Path::new(library).exists() {
        assert!(std::env::var_os("CI").is_none(), "{library} is missing");
        eprintln!("SKIPPED {}: libfaketime is not installed", module_path!());
        return;
    }
    let mut stage = Stage::new(&[], 0);
    let clock = stage.home.path().join("clock");
    let clock_text = clock.display().to_string();
    let set = |text: &str| std::fs::write(&clock, text).expect("the folder is the test's");
    let in_1970 = [
        ("LD_PRELOAD", library),
        ("FAKETIME_TIMESTAMP_FILE", clock_text.as_str()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ];
    set("@1970-01-01 00:00:30");
    let (id, object) = stage.offer(None);
    let client = stage.start(&[], &in_1970);
    stage.until_said("clock was never set");
    assert!(stage.server.heads.lock().expect("whole").is_empty());
    // Somebody sets the clock: it jumps by half a century while the client runs.
    set("+0");
    stage.runs(&id, &object);
    drop(client);
    // The next start is in 1970 again. What a verified server has said before is enough.
    set("@1970-01-01 00:00:30");
    let (id, object) = stage.offer(None);
    let client = stage.start(&[], &in_1970);
    stage.runs(&id, &object);
    assert!(!stage.place.log().contains("clock was never set"));
    drop(client);
}

/// A small file system of its own, gone with the test.
struct Small(tempfile::TempDir);

impl Small {
    fn of(bytes: usize) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let size = std::ffi::CString::new(format!("size={bytes}")).expect("digits");
        mount("tmpfs", folder.path(), "tmpfs", MountFlags::empty(), &*size)
            .expect("root may mount a tmpfs");
        Self(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// Takes all space that is left.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.path("filler")).expect("a file");
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.path("filler")).expect("it was made");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        unmount(self.0.path(), UnmountFlags::DETACH).expect("it was mounted");
    }
}

#[test]
fn disks_that_are_full() {
    needs_containers!();
    let disk = Small::of(24 << 20);
    let storage = disk.path("storage");
    let mut stage = Stage::new(&[("storage", &storage)], 500_000);
    let own = Small::of(64 << 10);
    let folder = own.path("record");
    let client = stage.start(&[("folder", &folder)], &[]);

    // The device's disk is full in the middle of the download: it is refused with the reason, and nothing is left behind.
    let (id, object) = stage.offer(None);
    stage.until("it downloads", || stage.begun(&object));
    disk.fill();
    let last = stage.ends(&id, "refused");
    let words = last["news"]["trouble"].to_string().to_lowercase();
    assert!(
        words.contains("space") || words.contains("storage"),
        "{words}"
    );
    disk.free();
    assert_eq!(stage.device.running(), None);
    let steps = stage.device.socket.get("/steps").expect("an answer").text();
    assert!(!steps.contains("files-"), "{steps}");
    // The operator tries again once there is room.
    let (id, object) = stage.offer(None);
    stage.runs(&id, &object);

    // The client's own disk is full: nothing goes on that it could not remember, and all of it afterwards.
    own.fill();
    let (id, object) = stage.offer(None);
    stage.until_said("nothing goes on before that is done");
    assert!(stage.server.told(&id).is_empty());
    assert_eq!(stage.part(&object), 0);
    own.free();
    stage.runs(&id, &object);
    drop(client);
    drop(stage);
}
