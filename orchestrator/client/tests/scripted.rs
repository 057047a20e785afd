//! The client against a server that does as a script says: well, badly, late, or not at all.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that panics has failed"
)]

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::Code;
use api::call::LogForm;
use api::messages::pantavisor::Action;
use client::{Client, Error, Found, LogQuery, Outgoing, Subject, Timeouts, Uploaded, chunks};
use model::log::Level;
use model::metadata::MetaKind;
use model::{ObjectId, RevisionId};

/// What the server does with one request.
enum Step {
    /// Reads the request and writes these bytes; the connection stays open.
    Answer(Vec<u8>),
    /// Reads the request, writes these bytes and closes.
    AnswerAndClose(Vec<u8>),
    /// Reads the head and so many bytes of the body, writes, closes.
    Early(usize, Vec<u8>),
    /// Reads the request and writes the pieces with pauses.
    Slowly(Vec<Vec<u8>>, Duration),
    /// Reads the request and never answers.
    Silence,
    /// Reads the request and writes these bytes again and again until nobody reads them.
    Endless(Vec<u8>, Vec<u8>),
}

#[derive(Debug, Clone, PartialEq)]
struct Seen {
    line: String,
    headers: String,
    body: Vec<u8>,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

struct Server {
    folder: PathBuf,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicU32>,
}

impl Server {
    fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("client-{}-{number}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let listener = UnixListener::bind(folder.join("s")).unwrap();
        let server = Self {
            folder,
            seen: Arc::default(),
            connections: Arc::default(),
        };
        let steps = Arc::new(Mutex::new(steps.into_iter().collect::<VecDeque<_>>()));
        let (seen, connections) = (Arc::clone(&server.seen), Arc::clone(&server.connections));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                connections.fetch_add(1, Ordering::Relaxed);
                let (steps, seen) = (Arc::clone(&steps), Arc::clone(&seen));
                std::thread::spawn(move || serve(stream, &steps, &seen));
            }
        });
        server
    }

    fn client(&self) -> Client {
        let quick = Timeouts {
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(20),
            work: Duration::from_secs(20),
        };
        Client::new(self.folder.join("s"), quick).unwrap()
    }

    fn impatient(&self) -> Client {
        let short = Duration::from_millis(200);
        Client::new(
            self.folder.join("s"),
            Timeouts {
                connect: short,
                answer: short,
                work: short,
            },
        )
        .unwrap()
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn file(&self, bytes: &[u8]) -> PathBuf {
        let path = self.folder.join("file");
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}

/// Ends when the client goes away or a step says so; errors are the client's going away.
fn serve(mut stream: UnixStream, steps: &Mutex<VecDeque<Step>>, seen: &Mutex<Vec<Seen>>) {
    loop {
        let Some((line, headers)) = read_head(&mut stream) else {
            return;
        };
        let Some(step) = steps.lock().unwrap().pop_front() else {
            return;
        };
        let mut request = Seen {
            line,
            headers,
            body: Vec::new(),
        };
        let length = request
            .header("content-length")
            .map_or(0, |l| l.parse::<usize>().unwrap());
        let wanted = match &step {
            Step::Early(wanted, _) => (*wanted).min(length),
            _ => length,
        };
        request.body.resize(wanted, 0);
        if stream.read_exact(&mut request.body).is_err() {
            return;
        }
        seen.lock().unwrap().push(request);
        let going_on = match step {
            Step::Answer(bytes) => stream.write_all(&bytes).is_ok(),
            Step::AnswerAndClose(bytes) | Step::Early(_, bytes) => {
                stream.write_all(&bytes).ok();
                false
            }
            Step::Slowly(pieces, pause) => pieces.iter().all(|piece| {
                std::thread::sleep(pause);
                stream.write_all(piece).is_ok()
            }),
            Step::Silence => {
                // Returns when the client closes.
                stream.read_exact(&mut [0]).ok();
                false
            }
            Step::Endless(head, piece) => {
                stream.write_all(&head).ok();
                while stream.write_all(&piece).is_ok() {}
                false
            }
        };
        if !going_on {
            return;
        }
    }
}

fn read_head(stream: &mut UnixStream) -> Option<(String, String)> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let (line, headers) = head.split_once("\r\n").unwrap();
    Some((line.to_owned(), headers.to_owned()))
}

fn answer(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn ok(body: &str) -> Step {
    Step::Answer(answer("200 OK", "", body))
}

fn revision(name: &str) -> RevisionId {
    name.parse().unwrap()
}

fn ignore() -> Arc<dyn Fn(u64) + Send + Sync> {
    Arc::new(|_| {})
}

#[tokio::test]
async fn requests_are_as_the_socket_wants_them() {
    let server = Server::new((0..9).map(|_| ok("{}")));
    let client = server.client();
    client
        .control(&"web".parse().unwrap(), Action::Restart)
        .await
        .unwrap();
    client.run(&revision("locals/a%2Fü"), true).await.unwrap();
    client
        .put_manifest(&revision("locals/x"), "{}".into())
        .await
        .unwrap();
    client
        .put_commit_message(&revision("5"), "why")
        .await
        .unwrap();
    client
        .put_metadata(MetaKind::User, &"a?b".parse().unwrap(), "v".into())
        .await
        .unwrap();
    client
        .delete_metadata(MetaKind::Device, &"k".parse().unwrap())
        .await
        .unwrap();
    client.delete_revision(&revision("locals/x")).await.unwrap();
    client.signal_ready().await.unwrap();
    let why = client.why(Subject::Revision(&revision("locals/a b"))).await;
    assert!(matches!(why, Err(Error::BadAnswer { .. })));
    let seen: Vec<String> = server
        .seen()
        .iter()
        .map(|seen| format!("{} {}", seen.line, String::from_utf8_lossy(&seen.body)))
        .collect();
    assert_eq!(
        seen,
        [
            r#"PUT /containers/web HTTP/1.1 {"action":"restart"}"#,
            r#"POST /commands HTTP/1.1 {"op":"LOCAL_RUN","payload":"locals/a%2Fü","again":true}"#,
            "PUT /steps/locals/x HTTP/1.1 {}",
            "PUT /steps/5/commitmsg HTTP/1.1 why",
            "PUT /user-meta/a?b HTTP/1.1 v",
            "DELETE /device-meta/k HTTP/1.1 ",
            "DELETE /steps/locals/x HTTP/1.1 ",
            r#"POST /signal HTTP/1.1 {"type":"ready","payload":""}"#,
            "GET /why/locals/a%20b HTTP/1.1 ",
        ]
    );
    assert!(
        server
            .seen()
            .iter()
            .all(|seen| seen.header("host") == Some("localhost"))
    );
    assert!(
        server
            .seen()
            .iter()
            .all(|seen| seen.header("expect").is_none())
    );
    assert_eq!(
        server.connections.load(Ordering::Relaxed),
        1,
        "one connection serves all"
    );
}

#[tokio::test]
async fn names_that_no_request_can_carry_are_not_sent() {
    let server = Server::new([]);
    for name in ["locals/a b", "locals/a#b", "locals/<x>"] {
        let error = server.client().progress(&revision(name)).await.unwrap_err();
        assert!(matches!(error, Error::Unsendable { .. }), "{name}: {error}");
    }
    assert_eq!(server.seen(), []);
}

#[tokio::test]
async fn refusals_keep_code_status_and_pause() {
    let server = Server::new([
        Step::Answer(answer(
            "503 Service Unavailable",
            "Retry-After: 600\r\nCoxswain-Problem: update-in-progress\r\n",
            r#"{"Error":"Cannot do this operation while update is ongoing"}"#,
        )),
        Step::Answer(answer(
            "409 Conflict",
            "Content-Type: application/problem+json\r\n",
            r#"{"type":"urn:x","title":"t","status":409,"code":"failed-before","detail":"d","remedy":"r"}"#,
        )),
        Step::AnswerAndClose(
            b"HTTP/1.1 507 x\r\nContent-Length: 500\r\n\r\n{\"Error\":\"cut".to_vec(),
        ),
    ]);
    let client = server.client();
    let busy = client.run(&revision("5"), false).await.unwrap_err();
    assert_eq!(busy.code(), Some(Code::UpdateInProgress));
    assert_eq!(
        busy.refusal().unwrap().retry_after,
        Some(Duration::from_secs(600))
    );
    let failed = client.run(&revision("5"), false).await.unwrap_err();
    assert_eq!(failed.code(), Some(Code::FailedBefore));
    assert_eq!(failed.refusal().unwrap().remedy.as_deref(), Some("r"));
    let cut = client.run(&revision("5"), false).await.unwrap_err();
    assert_eq!(
        cut.refusal().unwrap().status,
        507,
        "a refusal stays one when its body is cut"
    );
}

#[tokio::test]
async fn an_unwell_device_is_an_answer() {
    let server = Server::new([
        Step::Answer(answer(
            "503 x",
            "",
            r#"{"ok":false,"problems":["web is down"]}"#,
        )),
        Step::Answer(answer(
            "503 x",
            "Coxswain-Problem: shutting-down\r\n",
            r#"{"Error":"x"}"#,
        )),
    ]);
    assert_eq!(
        server.client().health().await.unwrap().problems,
        ["web is down"]
    );
    assert_eq!(
        server.client().health().await.unwrap_err().code(),
        Some(Code::ShuttingDown)
    );
}

#[tokio::test]
async fn broken_answers_are_errors() {
    for (bytes, transport) in [
        (
            &b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[]"[..],
            true,
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[]",
            true,
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n[]\r\n",
            true,
        ),
        (b"garbage\r\n\r\n", true),
        (b"", true),
        (b"HTTP/1.1 200", true),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[x", false),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false),
        (b"HTTP/1.1 200 OK\r\n\r\n[{\"name\":\"../x\"}]", false),
        (b"HTTP/1.1 200 OK\r\n\r\n\xff\xfe", false),
        (b"HTTP/1.1 204 No Content\r\n\r\n", false),
        (
            b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
            false,
        ),
    ] {
        let server = Server::new([Step::AnswerAndClose(bytes.to_vec())]);
        let error = server.client().revisions().await.unwrap_err();
        let shown = String::from_utf8_lossy(bytes);
        assert_eq!(error.is_transport(), transport, "{shown}: {error:?}");
        assert!(!error.to_string().is_empty());
    }
}

/// Every call gets answers with bytes changed at random, from a fixed seed: nothing may panic or hang.
#[tokio::test]
async fn no_answer_makes_the_client_panic() {
    let good = answer(
        "200 OK",
        "Content-Type: application/json\r\n",
        r#"[{"name":"0","date":"x"}]"#,
    );
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random >> 33).unwrap()
    };
    for _ in 0..40 {
        let steps: Vec<Step> = (0..10)
            .map(|_| {
                let mut bytes = good.clone();
                for _ in 0..1 + next() % 4 {
                    let at = next() % bytes.len();
                    bytes[at] = u8::try_from(next() % 256).unwrap();
                }
                Step::AnswerAndClose(bytes)
            })
            .collect();
        let server = Server::new(steps);
        let client = server.client();
        client.status().await.unwrap_err();
        client.revisions().await.map(drop).unwrap_or_default();
        client.objects().await.map(drop).unwrap_or_default();
        client
            .why(Subject::Device)
            .await
            .map(drop)
            .unwrap_or_default();
        client
            .metadata(MetaKind::User)
            .await
            .map(drop)
            .unwrap_or_default();
        client.manifest(None).await.map(drop).unwrap_or_default();
        client
            .find_object(&ObjectId::of(b""))
            .await
            .map(drop)
            .unwrap_or_default();
        client
            .download(&ObjectId::of(b""), 7)
            .await
            .map(drop)
            .unwrap_or_default();
        client
            .events(None, Some(Duration::ZERO))
            .await
            .map(drop)
            .unwrap_or_default();
        client.run(&revision("0"), false).await.unwrap_or_default();
    }
}

#[tokio::test]
async fn answers_are_bounded() {
    let server = Server::new([
        Step::Endless(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b' '; 1 << 20]),
        Step::Endless(b"HTTP/1.1 500 x\r\n\r\n".to_vec(), vec![b' '; 1 << 20]),
    ]);
    let error = server.client().revisions().await.unwrap_err();
    assert!(matches!(error, Error::BadAnswer { .. }), "{error}");
    let error = server.client().revisions().await.unwrap_err();
    assert_eq!(error.refusal().unwrap().status, 500);
}

#[tokio::test]
async fn waiting_ends() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n".to_vec();
    for steps in [
        vec![Step::Silence],
        vec![Step::Slowly(
            vec![head, b"[]".to_vec()],
            Duration::from_millis(600),
        )],
    ] {
        let server = Server::new(steps);
        let error = server.impatient().revisions().await.unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{error}");
    }
    // Slow is not dead: each piece comes in time.
    let whole = answer("200 OK", "", "[       ]");
    let (head, body) = whole.split_at(whole.len() - 9);
    let mut pieces = vec![head.to_vec()];
    pieces.extend(body.iter().map(|byte| vec![*byte]));
    let server = Server::new([Step::Slowly(pieces, Duration::from_millis(50))]);
    assert_eq!(server.impatient().revisions().await.unwrap(), []);
}

#[tokio::test]
async fn nobody_listens() {
    let server = Server::new([]);
    let nowhere = Client::new(server.folder.join("none"), Timeouts::default()).unwrap();
    match nowhere.status().await.unwrap_err() {
        Error::Connect { source, .. } => {
            assert_eq!(source.kind(), std::io::ErrorKind::NotFound);
        }
        other => panic!("{other:?}"),
    }
    let left = server.folder.join("left");
    drop(UnixListener::bind(&left).unwrap());
    match Client::new(left, Timeouts::default())
        .unwrap()
        .status()
        .await
        .unwrap_err()
    {
        Error::Connect { source, .. } => {
            assert_eq!(source.kind(), std::io::ErrorKind::ConnectionRefused);
        }
        other => panic!("{other:?}"),
    }
    // A listener that accepts nothing: its backlog is full.
    let full = server.folder.join("full");
    let socket = tokio::net::UnixSocket::new_stream().unwrap();
    socket.bind(&full).unwrap();
    let socket = socket.listen(1).unwrap();
    let mut waiting = Vec::new();
    for _ in 0..10 {
        let client = Client::new(
            &full,
            Timeouts {
                connect: Duration::from_millis(20),
                answer: Duration::from_millis(200),
                ..Timeouts::default()
            },
        )
        .unwrap();
        match client.status().await.unwrap_err() {
            Error::Timeout { .. } => waiting.push(client),
            Error::Connect { source, .. } => {
                assert_eq!(source.kind(), std::io::ErrorKind::TimedOut);
                drop(socket);
                return;
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("the backlog never filled");
}

#[tokio::test]
async fn uploads_send_the_file_and_tell_progress() {
    let server = Server::new([Step::Answer(answer("404 x", "", "")), ok("")]);
    let bytes: Vec<u8> = (0..700_000_u32).flat_map(u32::to_le_bytes).collect();
    let object = ObjectId::of(&bytes);
    let path = server.file(&bytes);
    let done = Arc::new(AtomicU64::new(0));
    let told = Arc::clone(&done);
    let progress = Arc::new(move |bytes| told.store(bytes, Ordering::Relaxed));
    let uploaded = server
        .client()
        .upload_file(&object, &path, progress)
        .await
        .unwrap();
    assert_eq!(uploaded, Uploaded::Sent);
    assert_eq!(done.load(Ordering::Relaxed), 2_800_000);
    let seen = server.seen();
    assert_eq!(seen[1].line, format!("PUT /objects/{object} HTTP/1.1"));
    assert!(seen[1].body == bytes, "every byte arrives");
}

#[tokio::test]
async fn an_object_that_is_there_is_not_sent() {
    let server = Server::new([Step::Answer(answer(
        "200 OK",
        "Upload-Offset: 3\r\nUpload-Complete: ?1\r\n",
        "",
    ))]);
    let path = server.file(b"abc");
    let object = ObjectId::of(b"abc");
    let uploaded = server
        .client()
        .upload_file(&object, &path, ignore())
        .await
        .unwrap();
    assert_eq!(uploaded, Uploaded::WasThere);
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_broken_upload_goes_on_where_the_part_ends() {
    let part = |n: u32| {
        Step::Answer(answer(
            "200 OK",
            &format!("Upload-Offset: {n}\r\nUpload-Complete: ?0\r\n"),
            "",
        ))
    };
    let server = Server::new([
        Step::Answer(answer("404 x", "", "")),
        Step::Early(1000, Vec::new()),
        part(500_000),
        Step::Answer(answer(
            "409 x",
            "Coxswain-Problem: upload-busy\r\n",
            r#"{"Error":"x"}"#,
        )),
        part(600_000),
        ok(""),
    ]);
    let bytes: Vec<u8> = (0..250_000_u32).flat_map(u32::to_le_bytes).collect();
    let object = ObjectId::of(&bytes);
    let path = server.file(&bytes);
    let uploaded = server
        .client()
        .upload_file(&object, &path, ignore())
        .await
        .unwrap();
    assert_eq!(uploaded, Uploaded::Sent);
    let seen = server.seen();
    assert!(seen[3].line.starts_with("PATCH "));
    assert_eq!(seen[3].header("upload-offset"), Some("500000"));
    assert_eq!(seen[5].header("upload-offset"), Some("600000"));
    assert!(seen[5].body == bytes[600_000..], "exactly the rest arrives");
}

#[tokio::test]
async fn uploads_that_cannot_succeed_are_not_repeated() {
    // Refused before the body was read: the refusal is told, not the broken pipe.
    let bad = answer(
        "422 x",
        "Coxswain-Problem: bad-checksum\r\nConnection: close\r\n",
        r#"{"Error":"x"}"#,
    );
    let server = Server::new([Step::Answer(answer("404 x", "", "")), Step::Early(10, bad)]);
    let path = server.file(&vec![7; 3_000_000]);
    let object = ObjectId::of(b"other");
    let error = server
        .client()
        .upload_file(&object, &path, ignore())
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(Code::BadChecksum), "{error:?}");
    assert_eq!(server.seen().len(), 2);

    // A server that breaks every time.
    let broken = (0..20).map(|n| match n % 2 {
        0 => Step::Answer(answer("404 x", "", "")),
        _ => Step::Early(10, Vec::new()),
    });
    let server = Server::new(broken);
    let path = server.file(&vec![7; 3_000_000]);
    let error = server
        .client()
        .upload_file(&object, &path, ignore())
        .await
        .unwrap_err();
    assert!(error.is_transport(), "{error:?}");
    assert_eq!(server.seen().len(), 8, "the first attempt and three more");

    // No file.
    let server = Server::new([]);
    let none = server.folder.join("none");
    let error = server
        .client()
        .upload_file(&object, &none, ignore())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Source { .. }), "{error:?}");
}

#[tokio::test]
async fn a_source_that_fails_or_ends_early_breaks_the_upload() {
    let object = ObjectId::of(b"x");
    let server = Server::new([ok(""), ok("")]);
    let (sender, body) = chunks(10);
    std::thread::spawn(move || sender.send("123".into()));
    let error = server.client().put_object(&object, body).await.unwrap_err();
    assert!(matches!(error, Error::Source { .. }), "{error:?}");

    let (sender, body) = chunks(10);
    std::thread::spawn(move || sender.fail(std::io::Error::other("disk")));
    match server.client().put_object(&object, body).await.unwrap_err() {
        Error::Source { source, .. } => assert_eq!(source.to_string(), "disk"),
        other => panic!("{other:?}"),
    }
    assert_eq!(server.seen(), [], "the server has seen no whole body");

    // Nothing at all is a body too.
    let server = Server::new([ok("")]);
    server
        .client()
        .put_object(&object, Outgoing::bytes(""))
        .await
        .unwrap();
    assert_eq!(server.seen()[0].header("content-length"), Some("0"));
}

#[tokio::test]
async fn downloads_are_streams() {
    let chunked =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let server = Server::new([
        Step::Answer(chunked.to_vec()),
        Step::Answer(answer("206 Partial Content", "", "de")),
        Step::Answer(answer("200 OK", "", "abcde")),
        Step::AnswerAndClose(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab".to_vec()),
    ]);
    let client = server.client();
    let object = ObjectId::of(b"abcde");
    let mut bytes = Vec::new();
    let mut download = client.download(&object, 0).await.unwrap();
    while let Some(piece) = download.next().await.unwrap() {
        bytes.extend_from_slice(&piece);
    }
    assert_eq!(bytes, b"abcde");
    let download = client.download(&object, 3).await.unwrap();
    assert_eq!(download.length(), Some(2));
    assert_eq!(server.seen()[1].header("range"), Some("bytes=3-"));
    drop(download);
    let error = client.download(&object, 3).await.unwrap_err();
    assert!(matches!(error, Error::BadAnswer { .. }), "{error}");
    let mut cut = client.download(&object, 0).await.unwrap();
    assert_eq!(cut.next().await.unwrap().unwrap(), "ab");
    assert!(matches!(cut.next().await, Err(Error::Broken { .. })));
}

#[tokio::test]
async fn what_the_server_has_of_an_object() {
    let server = Server::new([
        Step::Answer(answer("200 OK", "", "")),
        Step::Answer(answer(
            "200 OK",
            "Upload-Offset: 7\r\nUpload-Complete: ?0\r\n",
            "",
        )),
        Step::Answer(answer("404 x", "Coxswain-Problem: no-such-object\r\n", "")),
        Step::Answer(answer(
            "200 OK",
            "Upload-Offset: many\r\nUpload-Complete: ?0\r\n",
            "",
        )),
        Step::Answer(answer("403 x", "", "")),
    ]);
    let client = server.client();
    let object = ObjectId::of(b"x");
    assert_eq!(client.find_object(&object).await.unwrap(), Found::Whole);
    assert_eq!(
        client.find_object(&object).await.unwrap(),
        Found::Part { bytes: 7 }
    );
    assert_eq!(client.find_object(&object).await.unwrap(), Found::Nothing);
    assert!(matches!(
        client.find_object(&object).await,
        Err(Error::BadAnswer { .. })
    ));
    assert_eq!(
        client
            .find_object(&object)
            .await
            .unwrap_err()
            .refusal()
            .unwrap()
            .status,
        403
    );
}

fn stream(events: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n{events}").into_bytes()
}

fn event(id: u32) -> String {
    format!(
        "id: {id}\nevent: meta\ndata: {{\"id\":\"{id}\",\"time\":\"t\",\"kind\":\"meta\",\"message\":\"m{id}\"}}\n\n"
    )
}

#[tokio::test]
async fn events_go_on_after_the_last_one() {
    let cut = event(3);
    let (cut, _) = cut.split_at(20);
    let server = Server::new([
        Step::AnswerAndClose(stream(&format!(": hello\n\n{}{}{cut}", event(1), event(2)))),
        Step::AnswerAndClose(Vec::new()),
        Step::Answer(answer("503 x", "Retry-After: 1\r\n", "")),
        Step::AnswerAndClose(stream(&event(3))),
    ]);
    let mut events = server
        .client()
        .events(Some("0".to_owned()), None)
        .await
        .unwrap();
    for id in ["1", "2", "3"] {
        assert_eq!(events.next().await.unwrap().id, id);
    }
    assert_eq!(events.last_id(), Some("3"));
    let seen = server.seen();
    assert_eq!(seen[0].line, "GET /events?since=0 HTTP/1.1");
    assert_eq!(seen[3].header("last-event-id"), Some("2"));
}

#[tokio::test]
async fn events_end_when_that_is_right() {
    for first in [
        Step::Answer(answer("403 x", "", r#"{"Error":"x"}"#)),
        Step::Answer(answer("200 OK", "Content-Type: text/html\r\n", "<html>")),
    ] {
        let server = Server::new([first]);
        server.client().events(None, None).await.unwrap_err();
    }
    // Broken for longer than patience allows.
    let server = Server::new([Step::AnswerAndClose(stream(&event(1)))]);
    let mut events = server
        .client()
        .events(None, Some(Duration::from_millis(500)))
        .await
        .unwrap();
    assert_eq!(events.next().await.unwrap().id, "1");
    assert!(events.next().await.unwrap_err().is_transport());
    // What is no event is no reason to ask again for ever.
    let server = Server::new([Step::AnswerAndClose(stream("data: nonsense\n\n"))]);
    let mut events = server.client().events(None, None).await.unwrap();
    assert!(matches!(events.next().await, Err(Error::BadAnswer { .. })));
}

#[tokio::test]
async fn logs_are_asked_for_precisely() {
    let server = Server::new([ok("a\nb\n"), ok("")]);
    let client = server.client();
    let query = LogQuery {
        tail: Some(5),
        follow: false,
        revision: Some(revision("locals/a&b")),
        since: Some("2 h".to_owned()),
        level: Some(Level::Warn),
        form: Some(LogForm::Json),
    };
    let mut log = client.logs(&"x y".parse().unwrap(), &query).await.unwrap();
    assert_eq!(log.next().await.unwrap().unwrap(), "a\nb\n");
    assert_eq!(log.next().await.unwrap(), None);
    client
        .logs(&"web".parse().unwrap(), &LogQuery::default())
        .await
        .unwrap();
    let seen = server.seen();
    assert_eq!(
        seen[0].line,
        "GET /logs/x%20y?tail=5&revision=locals%2Fa%26b&since=2%20h&level=warn&format=json HTTP/1.1"
    );
    assert_eq!(seen[1].line, "GET /logs/web HTTP/1.1");
}
