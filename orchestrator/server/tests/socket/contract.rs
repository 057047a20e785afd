//! What every route answers, exactly: each row of [`rows`] is asked over one HTTP/1.1 connection that is kept, and again as Pantavisor's
//! own client asks, over raw HTTP/1.0 with a half-closed connection for each. Both must say the same, and what they say stands in
//! `contract.txt`.
//!
//! **A new route** needs a row here: add it to [`rows`] where what it needs is there already (rows are asked in order, of one device
//! that keeps what earlier rows did), run `UPDATE_EXPECT=1 cargo test -p server --test socket contract`, and read what changes in
//! `contract.txt`. A route without a row that succeeds fails the test below; values that differ from run to run go into [`VARYING`].

use std::collections::BTreeMap;
use std::fmt::Write as _;

use api::routes;
use model::ObjectId;
use server::Caller;

use crate::device::{Bench, FACTORY, happen};
use crate::wire::{Got, Line};

/// Fields whose values are not the same in two runs.
const VARYING: [&str; 8] = [
    "at_ms",
    "available_bytes",
    "date",
    "free_bytes",
    "left_s",
    "total_bytes",
    "until",
    "uptime_s",
];

/// Routes that can only refuse.
const NEVER_SUCCEEDS: [&str; 1] = ["/xconnect-graph"];

/// How much of a body is the same in two runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// All of it, but for the fields in [`VARYING`].
    Whole,
    /// Its first line.
    FirstLine,
    /// Everything up to the first empty line: it has no end.
    FirstEvent,
}

/// One exchange.
#[derive(Debug, Clone)]
struct Row {
    /// `None`: root of the host.
    container: Option<&'static str>,
    method: &'static str,
    target: String,
    headers: &'static str,
    body: Vec<u8>,
    shown: Shown,
}

impl Row {
    fn from(mut self, container: &'static str) -> Self {
        self.container = Some(container);
        self
    }

    fn with(mut self, headers: &'static str) -> Self {
        self.headers = headers;
        self
    }

    fn shown(mut self, shown: Shown) -> Self {
        self.shown = shown;
        self
    }

    fn caller(&self) -> Caller {
        match self.container {
            None => Caller::Host { uid: 0 },
            Some("unknown") => Caller::Unknown,
            Some(name) => Caller::Container(name.parse().unwrap()),
        }
    }

    fn request(&self, version: &str) -> Vec<u8> {
        let Self { method, target, .. } = self;
        let mut request = format!("{method} {target} HTTP/{version}\r\n{}", self.headers);
        if matches!(*method, "PUT" | "POST" | "PATCH") {
            write!(request, "Content-Length: {}\r\n", self.body.len()).unwrap();
        }
        request.push_str("\r\n");
        [request.as_bytes(), &self.body].concat()
    }
}

fn row(method: &'static str, target: impl Into<String>, body: impl Into<Vec<u8>>) -> Row {
    Row {
        container: None,
        method,
        target: target.into(),
        headers: "",
        body: body.into(),
        shown: Shown::Whole,
    }
}

fn get(target: impl Into<String>) -> Row {
    row("GET", target, "")
}

fn put(target: impl Into<String>, body: impl Into<Vec<u8>>) -> Row {
    row("PUT", target, body)
}

fn post(target: impl Into<String>, body: impl Into<Vec<u8>>) -> Row {
    row("POST", target, body)
}

fn delete(target: impl Into<String>) -> Row {
    row("DELETE", target, "")
}

fn rows() -> Vec<Row> {
    [
        everywhere(),
        containers(),
        commands(),
        objects(),
        revisions(),
        metadata(),
        machine(),
        ours(),
    ]
    .concat()
}

/// What every path may be refused with.
fn everywhere() -> Vec<Row> {
    vec![
        get("/nothing?x=1"),
        get("/steps/a/b/c/d"),
        row("PUT", "/groups", "x"),
        row("HEAD", "/groups", ""),
        row("BREW", "/groups", ""),
        get("/groups").from("web"),
        get("/steps/0").from("web"),
        get("/groups").from("unknown"),
        get("/steps/0").from("unknown"),
        get("/groups")
            .from("web")
            .with("Accept: application/problem+json\r\n"),
    ]
}

fn containers() -> Vec<Row> {
    let action = |name: &str| format!("{{\"action\":\"{name}\"}}");
    vec![
        get("/containers"),
        get("/groups"),
        put("/containers/web", action("stop")),
        put("/containers/web", action("start")),
        put("/containers/web", action("restart")),
        put("/containers/nobody", action("stop")),
        put("/containers/pvr-sdk", action("stop")),
        put("/containers/web", action("STOP")),
        put("/containers/web", "{\"action\":"),
        put("/containers/web", ""),
        put("/containers/web", " ".repeat(1025)),
        post("/signal", "{\"type\":\"ready\",\"payload\":\"\"}").from("sensor"),
        post("/signal", "{\"type\":\"ready\"}").from("sensor"),
        post("/signal", "{\"type\":\"ready\",\"payload\":\"\"}").from("web"),
        post("/signal", "{\"type\":\"alive\",\"payload\":\"\"}").from("sensor"),
        post("/signal", "{\"type\":\"ready\",\"payload\":\"\"}"),
        post("/signal", "{}").from("sensor"),
        post("/signal", " ".repeat(4097)).from("sensor"),
    ]
}

fn commands() -> Vec<Row> {
    let command = |op: &str, payload: &str| {
        post(
            "/commands",
            format!("{{\"op\":\"{op}\",\"payload\":\"{payload}\"}}"),
        )
    };
    vec![
        command("LOCAL_RUN", "0"),
        command("LOCAL_RUN_COMMIT", "0"),
        command("LOCAL_APPLY", "0"),
        command("LOCAL_RUN", "locals/none"),
        command("LOCAL_RUN", "../x"),
        command("MAKE_FACTORY", ""),
        command("RUN_GC", ""),
        command("REBOOT_DEVICE", "why"),
        command("POWEROFF_DEVICE", "why"),
        command("UPDATE_METADATA", "{\\\"told\\\":\\\"1\\\"}"),
        command("UPDATE_METADATA", "[]"),
        command("ROLLBACK", ""),
        command("FACTORY_RESET", ""),
        command("FACTORY_RESET", "wipe-volumes"),
        command("FACTORY_RESET", "wipe"),
        command("DISABLE_SSH", ""),
        command("ENABLE_SSH", ""),
        command("GO_REMOTE", ""),
        command("DEFER_REBOOT", "5"),
        command("TRY_ONCE", "0"),
        command("XCONNECT_GRAPH", ""),
        command("UNCLAIM", ""),
        command("RUN", ""),
        post("/commands", "{\"op\":\"RUN_GC\",\"payload\":"),
        post("/commands", ""),
        post("/commands", " ".repeat(4097)),
    ]
}

fn objects() -> Vec<Row> {
    let hello = format!("/objects/{}", ObjectId::of(b"hello"));
    let halves = format!("/objects/{}", ObjectId::of(b"half a thing"));
    let parts = format!("/objects/{}", ObjectId::of(b"in two parts"));
    vec![
        get("/objects"),
        put(&hello, "hello"),
        put(&hello, "hello"),
        get("/objects"),
        get(&hello),
        get(&hello).with("Range: bytes=1-2\r\n"),
        get(&hello).with("Range: bytes=9-\r\n"),
        row("HEAD", &hello, ""),
        put(&parts, "something else"),
        row("PATCH", &parts, "in two").with("Upload-Offset: 0\r\nUpload-Complete: ?0\r\n"),
        row("HEAD", &parts, ""),
        row("PATCH", &parts, " parts").with("Upload-Offset: 3\r\nUpload-Complete: ?1\r\n"),
        row("PATCH", &parts, " parts").with("Upload-Offset: 6\r\nUpload-Complete: ?1\r\n"),
        row("PATCH", &parts, "").with("Upload-Offset: x\r\n"),
        row("PATCH", &halves, "half").with("Upload-Offset: 0\r\nUpload-Complete: ?0\r\n"),
        get("/uploads"),
        get(&parts),
        delete(&parts),
        get(&parts),
        row("HEAD", &parts, ""),
        delete(&parts),
        put("/objects/short", "x"),
        get("/objects/short"),
        put(format!("/objects/{}", "A".repeat(64)), "x"),
        post("/storage/gc", ""),
        get("/objects"),
    ]
}

fn revisions() -> Vec<Row> {
    vec![
        get("/steps"),
        put("/steps/locals/one", FACTORY),
        put("/steps/locals/bad", "{}"),
        put("/steps/locals/progress", FACTORY),
        put("/steps/5", FACTORY),
        put("/steps/locals/one/commitmsg", "a \"message\"\n"),
        put("/steps/locals/one/commitmsg", ""),
        put("/steps/locals/one/commitmsg", "m".repeat(257)),
        put("/steps/locals/none/commitmsg", "m"),
        get("/steps"),
        get("/steps/locals/one"),
        get("/steps/locals/one/progress"),
        get("/steps/locals/one/commitmsg"),
        post("/steps/locals/one/plan", ""),
        post("/plan", FACTORY),
        post("/plan", "{}"),
        delete("/steps/locals/one"),
        get("/steps/locals/one"),
        get("/steps/locals/one/progress"),
        delete("/steps/locals/one"),
        put("/steps/0/commitmsg", "factory"),
        get("/steps/0/commitmsg"),
        get("/steps/0/progress"),
        post("/steps/0/plan", ""),
        get("/steps/0"),
        get("/steps/current"),
        get("/steps/7"),
        delete("/steps/0"),
        delete("/steps/7"),
        delete("/steps/5"),
    ]
}

fn metadata() -> Vec<Row> {
    let mut rows = vec![get("/device-meta")];
    for map in ["/user-meta", "/device-meta"] {
        rows.extend([
            put(format!("{map}/a"), "one"),
            put(format!("{map}/b%20c"), "{\"x\": [1]}"),
            put(format!("{map}/a"), "a \"b\" \\ ü\n"),
            put(format!("{map}/a"), ""),
            put(format!("{map}/a"), "v".repeat(4097)),
            get(map),
            delete(format!("{map}/b%20c")),
            delete(format!("{map}/b%20c")),
            get(map),
        ]);
    }
    rows.push(delete("/device-meta/sysinfo"));
    rows
}

fn machine() -> Vec<Row> {
    vec![
        get("/buildinfo"),
        get("/config"),
        get("/config2"),
        get("/drivers"),
        get("/drivers").from("pvr-sdk"),
        put("/drivers/load", "").from("pvr-sdk"),
        put("/drivers/gpio/load", "").from("pvr-sdk"),
        put("/drivers/none/load", "").from("pvr-sdk"),
        put("/drivers/gpio/unload", "").from("pvr-sdk"),
        put("/drivers/unload", "").from("pvr-sdk"),
        put("/drivers/load", ""),
        get("/daemons"),
        put("/daemons/containerd", "{\"action\":\"stop\"}"),
        get("/daemons"),
        put("/daemons/containerd", "{\"action\":\"start\"}"),
        put("/daemons/containerd", "{\"action\":\"restart\"}"),
        put("/daemons/containerd", "stop"),
        put("/daemons/containerd", ""),
        put("/daemons/containerd", " ".repeat(1025)),
        put("/daemons/nope", "{\"action\":\"stop\"}"),
        get("/xconnect-graph"),
        get("/wakelocks"),
    ]
}

fn ours() -> Vec<Row> {
    vec![
        get("/status"),
        get("/healthz").from("web"),
        get("/version").from("web"),
        get("/openapi.json").from("web").shown(Shown::FirstLine),
        get("/metrics").shown(Shown::FirstLine),
        get("/usage"),
        get("/failures"),
        get("/failures/1"),
        get("/failures/99"),
        get("/why"),
        get("/why/web"),
        get("/why/0"),
        get("/why/locals/none"),
        get("/why/locals/kept"),
        get("/why/nobody"),
        get("/logs/web?tail=1").from("web"),
        get("/logs/web?tail=1").from("sensor"),
        get("/logs/web?lines=1"),
        get("/logs/nobody"),
        get("/claims"),
        post("/claims", "{\"parts\":[\"container:web\"],\"lease_s\":60}").from("pvr-sdk"),
        post("/claims", "{\"parts\":[]}").from("pvr-sdk"),
        put("/containers/web", "{\"action\":\"stop\"}").with("Coxswain-Client: other\r\n"),
        get("/claims"),
        put("/claims/1", "{\"lease_s\":90}").from("pvr-sdk"),
        delete("/claims/1").from("pvr-sdk"),
        delete("/claims/1").from("pvr-sdk"),
        get("/events?since=0").shown(Shown::FirstEvent),
        get("/events?from=0"),
    ]
}

/// A device with a revision, a failure record, an event and a log, beside what every one has.
fn bench() -> Bench {
    let bench = Bench::start();
    bench.run_with_drivers();
    bench.keep("locals/kept");
    bench.keep("5");
    bench.fail_once();
    let folder = bench.folder.join("storage/logs/locals/drivers/web");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("console.log"), "one\ntwo\n").unwrap();
    happen(&bench.handle, "told");
    bench
}

/// Values of varying fields become `…`, and so does how long a container runs.
fn steady(text: &str) -> String {
    let mut steady = text.to_owned();
    if let Some((before, after)) = text.split_once(" since ")
        && let Some((_, after)) = after.split_once(" s,")
    {
        steady = format!("{before} since … s,{after}");
    }
    for field in VARYING {
        let mark = format!("\"{field}\":");
        let mut parts = steady.split(&mark);
        let mut whole = parts.next().unwrap().to_owned();
        for part in parts {
            let end = part.find([',', '}']).unwrap_or(part.len());
            whole.push_str(&format!("{mark}…{}", &part[end..]));
        }
        steady = whole;
    }
    steady
}

/// An answer without what every one has.
fn outcome(row: &Row, got: &Got) -> String {
    let mut text = format!("{}", got.status());
    for (name, value) in &got.headers {
        let same = ["date", "content-length", "connection", "transfer-encoding"];
        if !same.contains(&name.to_lowercase().as_str()) {
            // How long a claim still holds.
            let value = if name == "Retry-After" { "…" } else { value };
            write!(text, " | {name}: {value}").unwrap();
        }
    }
    let body = String::from_utf8_lossy(&got.body);
    let body = match row.shown {
        Shown::Whole => steady(&body),
        Shown::FirstLine => body.lines().next().unwrap_or_default().to_owned(),
        Shown::FirstEvent => body.into_owned(),
    };
    if !body.is_empty() {
        write!(text, "\n{body}").unwrap();
    }
    text
}

/// Head and first event of an answer without an end.
fn first_event(line: &mut Line) -> Got {
    let head = line.stream_start();
    let mut lines = head.trim_end().split("\r\n");
    let status_line = lines.next().unwrap().to_owned();
    let headers = lines.map(|line| line.split_once(": ").unwrap());
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let headers = headers.collect();
    let mut events = String::new();
    while !events.contains("data:") {
        events = line.until("\n\n", 1);
        assert!(!events.is_empty(), "the connection ended without an event");
    }
    let from = events.find("id:").unwrap_or_default();
    Got {
        status_line,
        headers,
        body: events.as_bytes()[from..].to_vec(),
    }
}

/// Over HTTP/1.1, on one connection for each caller as long as the server keeps it.
fn kept(rows: &[Row]) -> Vec<(u16, String)> {
    let bench = bench();
    let mut lines: BTreeMap<Caller, Line> = BTreeMap::new();
    let answers = rows.iter().map(|row| {
        bench.call_as(row.caller());
        let line = lines
            .entry(row.caller())
            .or_insert_with(|| Line::open(&bench.socket));
        line.send(row.request("1.1"));
        let got = if row.shown == Shown::FirstEvent {
            first_event(line)
        } else {
            line.answer(row.method == "HEAD").expect("an answer")
        };
        let closes = got.header("Connection") == Some("close");
        if closes || row.shown == Shown::FirstEvent {
            lines.remove(&row.caller());
        }
        (got.status(), outcome(row, &got))
    });
    answers.collect()
}

/// Over HTTP/1.0, half-closed after the request; what is not closed by the server would hang.
fn half_closed(rows: &[Row]) -> Vec<(u16, String)> {
    let bench = bench();
    let answers = rows.iter().map(|row| {
        bench.call_as(row.caller());
        let mut line = Line::open(&bench.socket);
        line.send(row.request("1.0"));
        let got = if row.shown == Shown::FirstEvent {
            first_event(&mut line)
        } else {
            line.half_close();
            let got = line.answer(row.method == "HEAD").expect("an answer");
            assert!(line.is_closed(), "{row:?}");
            got
        };
        assert_eq!(got.header("Transfer-Encoding"), None, "{row:?}");
        // Its own error pages have a version of their own.
        let version = if got.status() == 501 {
            "HTTP/1."
        } else {
            "HTTP/1.0 "
        };
        assert!(got.status_line.starts_with(version), "{row:?}");
        (got.status(), outcome(row, &got))
    });
    answers.collect()
}

#[test]
fn every_row_answers_the_same_over_both_versions() {
    let rows = rows();
    let new = kept(&rows);
    let old = half_closed(&rows);
    let mut page = String::from(
        "What every route answers. Made by `UPDATE_EXPECT=1 cargo test -p server --test socket contract`: read what changes.\n",
    );
    for ((row, (_, new)), (_, old)) in rows.iter().zip(new).zip(old) {
        let Row { method, target, .. } = row;
        assert_eq!(new, old, "{method} {target}: HTTP/1.1 and HTTP/1.0 differ");
        let from = row.container.map(|name| format!(" from {name}"));
        let body = String::from_utf8_lossy(&row.body);
        let body = if body.len() > 100 {
            format!(" ({} bytes)", body.len())
        } else if body.is_empty() {
            String::new()
        } else {
            format!(" {}", body.escape_debug())
        };
        let headers = row.headers.replace("\r\n", "; ");
        let from = from.unwrap_or_default();
        write!(page, "\n> {method} {target}{from} {headers}{body}").unwrap();
        page = page.trim_end().to_owned();
        write!(page, "\n{new}\n").unwrap();
    }
    expect_test::expect_file!["../contract.txt"].assert_eq(&page);
}

#[test]
fn every_route_has_a_row_that_succeeds() {
    let rows = rows();
    let answers = kept(&rows);
    let mut good = BTreeMap::new();
    for (row, (status, _)) in rows.iter().zip(answers) {
        let Some(method) = api::Method::parse(row.method) else {
            continue;
        };
        if let Ok(found) = routes::find(method, &row.target) {
            let place = (found.route.method, found.route.path);
            *good.entry(place).or_insert(false) |= status < 400;
        }
    }
    for route in routes::ROUTES {
        let known = good.get(&(route.method, route.path));
        let place = format!("{} {}", route.method.as_str(), route.path);
        match known {
            None => panic!("{place} has no row in contract.rs"),
            Some(false) if !NEVER_SUCCEEDS.contains(&route.path) => {
                panic!("{place} has no row in contract.rs that succeeds")
            }
            Some(_) => {}
        }
    }
}
