//! The whole process over a real spool: what is written to the pipes of a source is in its files, whatever happens in between.

#![allow(clippy::unwrap_used, reason = "a test ends where something is wrong")]

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use logger::{Registered, Settings, Source, Spool};
use model::container::Logs;
use model::log::{Level, Line};

struct Bench {
    folder: PathBuf,
    spool: Spool,
    process: Option<std::thread::JoinHandle<()>>,
}

impl Bench {
    fn start(name: &str, quota_bytes: u64, rate_bytes: u64) -> Self {
        let folder =
            std::env::temp_dir().join(format!("coxswain-logger-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let spool = Spool::new(folder.join("spool"));
        spool
            .configure(&Settings {
                logs: folder.join("logs"),
                quota_bytes,
                rate_bytes,
                control_socket: None,
                cgroup_parent: "/coxswain".to_owned(),
            })
            .unwrap();
        let at = spool.folder().to_owned();
        let process = std::thread::spawn(move || logger::run(at).unwrap());
        Self {
            folder,
            spool,
            process: Some(process),
        }
    }

    fn register(&self, name: &str, logs: &Logs) -> Registered {
        let source = Source::new(
            "web-1".to_owned(),
            "web".parse().unwrap(),
            "locals/one".parse().unwrap(),
            logs,
        );
        self.spool.register(name, &source).unwrap()
    }

    /// Ends a source, as its pipes' last writer is gone; waits until all is written.
    fn end(&self, name: &str) {
        self.spool.end(name).unwrap();
        until("the source is written to its end", || {
            !self.spool.is_there(name)
        });
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join("logs/locals/one/web").join(name)
    }

    fn lines(&self) -> Vec<(Level, String, String)> {
        let text = fs::read(self.file("console.log")).unwrap_or_default();
        let lines = text.split(|byte| *byte == b'\n');
        lines
            .filter(|line| !line.is_empty())
            .map(|line| {
                let line = Line::parse(line);
                assert!(line.time.is_some());
                let text = String::from_utf8_lossy(line.text).into_owned();
                (line.level, line.source.to_owned(), text)
            })
            .collect()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // Without its folder the process ends.
        drop(fs::remove_dir_all(&self.folder));
        if let Some(process) = self.process.take() {
            drop(process.join());
        }
    }
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn writer(path: &Path) -> File {
    File::options().write(true).open(path).unwrap()
}

fn entry(level: Level, source: &str, text: &str) -> (Level, String, String) {
    (level, source.to_owned(), text.to_owned())
}

#[test]
fn every_line_of_every_way_is_there() {
    let bench = Bench::start("ways", 1 << 24, 1 << 24);
    let logs = Logs {
        dev_log: true,
        ..Logs::default()
    };
    let registered = bench.register("web-1.1", &logs);
    let dev_log = registered.dev_log.clone().unwrap();
    until("the socket is there", || dev_log.exists());
    let mut out = writer(&registered.stdout);
    let mut errors = writer(&registered.stderr);
    out.write_all(b"one\n<3>two\nno e").unwrap();
    until("lines are written soon", || bench.lines().len() == 2);
    out.write_all(b"nd\nlast").unwrap();
    until("a line comes when it has its end", || {
        bench.lines().len() == 3
    });
    errors.write_all(b"bad\n").unwrap();
    until("standard error", || bench.lines().len() == 4);
    let socket = UnixDatagram::unbound().unwrap();
    socket
        .send_to(b"<15>Nov 21 10:20:30 web[7]: said\n", &dev_log)
        .unwrap();
    until("/dev/log", || bench.lines().len() == 5);
    drop((out, errors, registered));
    bench.end("web-1.1");
    let expected = [
        entry(Level::Info, "stdout", "one"),
        entry(Level::Error, "stdout", "two"),
        entry(Level::Info, "stdout", "no end"),
        entry(Level::Warn, "stderr", "bad"),
        entry(Level::Debug, "syslog", "web[7]: said"),
        entry(Level::Info, "stdout", "last"),
    ];
    assert_eq!(bench.lines(), expected);
    // Its next start goes on in the same file.
    let registered = bench.register("web-1.2", &logs);
    let mut out = writer(&registered.stdout);
    out.write_all(b"again\n").unwrap();
    // It has ended before anybody has seen its pipes.
    let readers = registered.into_readers();
    drop(out);
    bench.end("web-1.2");
    drop(readers);
    assert_eq!(bench.lines().len(), expected.len() + 1);
}

#[test]
fn what_was_written_before_the_process_ran_is_not_lost() {
    let folder = std::env::temp_dir().join(format!("coxswain-logger-late-{}", std::process::id()));
    let spool = Spool::new(folder.join("spool"));
    let settings = Settings {
        logs: folder.join("logs"),
        quota_bytes: 1 << 24,
        rate_bytes: 1 << 20,
        control_socket: None,
        cgroup_parent: String::new(),
    };
    fs::create_dir_all(&folder).unwrap();
    spool.configure(&settings).unwrap();
    let mut bench = Bench {
        folder,
        spool: spool.clone(),
        process: None,
    };
    let registered = bench.register("web-1.1", &Logs::default());
    let mut out = writer(&registered.stdout);
    out.write_all(b"early\n").unwrap();
    let at = spool.folder().to_owned();
    bench.process = Some(std::thread::spawn(move || logger::run(at).unwrap()));
    until("it is written", || bench.lines().len() == 1);
    // A process that was left behind holds the pipes: the end comes all the same.
    out.write_all(b"late\n").unwrap();
    bench.end("web-1.1");
    assert_eq!(bench.lines().len(), 2);
    drop((out, registered));
}

#[test]
fn a_flood_keeps_its_newest_lines_within_the_quota_and_says_what_it_lost() {
    let quota = 1 << 20;
    let bench = Bench::start("flood", quota, 256 << 10);
    let logs = Logs {
        max_bytes: 128 << 10,
        files: 2,
        ..Logs::default()
    };
    let registered = bench.register("web-1.1", &logs);
    let mut out = writer(&registered.stdout);
    let mut slowest = Duration::ZERO;
    let mut number = 0_u64;
    let begin = Instant::now();
    // More than the burst that is let pass.
    while number < 400_000 {
        let mut piece = String::new();
        for _ in 0..500 {
            number += 1;
            piece.push_str(&format!("line {number} {}\n", "x".repeat(80)));
        }
        let started = Instant::now();
        out.write_all(piece.as_bytes()).unwrap();
        slowest = slowest.max(started.elapsed());
    }
    let took = begin.elapsed();
    drop((out, registered));
    bench.end("web-1.1");
    let lines = bench.lines();
    let last = lines.iter().rev().find(|(_, source, _)| source == "stdout");
    let last = &last.unwrap().2;
    assert!(
        last.starts_with(&format!("line {number} ")),
        "the newest line is kept: {last}"
    );
    let told = |text: &str| text.contains("were dropped: it wrote more than");
    assert!(
        lines
            .iter()
            .any(|(level, source, text)| *level == Level::Warn
                && source == "coxswain"
                && told(text)),
        "losses are told"
    );
    let mut total = 0;
    for entry in fs::read_dir(bench.file("")).unwrap() {
        total += entry.unwrap().metadata().unwrap().len();
    }
    assert!(total <= quota, "{total} bytes");
    println!("{number} lines in {took:?}, longest write {slowest:?}, {total} bytes kept");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
}

#[test]
fn a_full_disk_holds_nobody_up() {
    // /dev/full takes no byte: as the file in use, it is a full disk.
    let bench = Bench::start("full", 1 << 24, 1 << 24);
    fs::create_dir_all(bench.file("")).unwrap();
    std::os::unix::fs::symlink("/dev/full", bench.file("console.log")).unwrap();
    let registered = bench.register("web-1.1", &Logs::default());
    let mut out = writer(&registered.stdout);
    let begin = Instant::now();
    for _ in 0..200 {
        out.write_all(&[b'x'; 10_000]).unwrap();
        out.write_all(b"\n").unwrap();
    }
    assert!(begin.elapsed() < Duration::from_secs(10));
    fs::remove_file(bench.file("console.log")).unwrap();
    drop((out, registered));
    bench.end("web-1.1");
}

#[test]
fn followed_files_survive_being_replaced_and_emptied() {
    let bench = Bench::start("follow", 1 << 24, 1 << 24);
    let path = bench.folder.join("app.log");
    fs::write(&path, "old\n").unwrap();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let logs = Logs {
        follow: vec![model::container::FollowedFile {
            path: path.display().to_string(),
            truncate_bytes: Some(10_000),
        }],
        ..Logs::default()
    };
    // Only files of a process in the container's group are opened; this one is in none.
    let registered = bench.register("web-1.1", &logs);
    bench.spool.running("web-1.1", std::process::id()).unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    fs::write(&path, "old\nnew\n").unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    assert!(bench.lines().is_empty(), "{own}");
    drop(registered);
    bench.end("web-1.1");
    let mut text = String::new();
    File::open(&path)
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "old\nnew\n", "and nothing of it was touched");
}
