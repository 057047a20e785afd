//! Objects in and out: with real curl in the ways in which Pantavisor's clients use it, and by hand for what curl cannot do.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use model::ObjectId;

use crate::device::Bench;
use crate::wire::{Line, ask, get, send};

/// Bytes that do not repeat early.
fn bytes(length: usize) -> Vec<u8> {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        bytes.extend_from_slice(&seed.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Runs curl; its status code and body.
fn curl(socket: &Path, arguments: &[&str]) -> (u16, Vec<u8>) {
    let output = Command::new("curl")
        .args([
            "-s",
            "-S",
            "--max-time",
            "60",
            "-w",
            "\n%{http_code}",
            "--unix-socket",
        ])
        .arg(socket)
        .args(arguments)
        .output()
        .expect("curl is installed (apt install curl)");
    assert!(
        output.status.success(),
        "curl: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let end = output
        .stdout
        .iter()
        .rposition(|byte| *byte == b'\n')
        .unwrap();
    let code = std::str::from_utf8(&output.stdout[end + 1..]).unwrap();
    (code.parse().unwrap(), output.stdout[..end].to_vec())
}

#[test]
fn curl_uploads_and_downloads_as_pvcontrol_does() {
    let bench = Bench::start();
    for length in [0, 1, 1000, 1 << 20, (5 << 20) + 17, 40 << 20] {
        let content = bytes(length);
        let object = ObjectId::of(&content);
        let file = bench.folder.join(format!("content-{length}"));
        std::fs::write(&file, &content).unwrap();
        let file = file.to_str().unwrap().to_owned();
        let url = format!("http://localhost/objects/{object}");
        // What pvcontrol sends, then plain, then over HTTP/1.0; the second and third find the object there.
        for (index, how) in [
            &[
                "-H",
                "Transfer-Encoding: identity",
                "-H",
                "Content-Type: application/octet-stream",
            ][..],
            &["-H", "Expect: 100-continue"],
            &["-H", "Expect:"],
            &["--http1.0"],
        ]
        .into_iter()
        .enumerate()
        {
            let mut arguments = vec!["-T", &file, &url];
            arguments.extend_from_slice(how);
            let (code, body) = curl(&bench.socket, &arguments);
            assert_eq!(
                (code, body.as_slice()),
                (200, &b""[..]),
                "{length} bytes, way {index}"
            );
        }
        for how in [&["--http1.1"][..], &["--http1.0"]] {
            let mut arguments = vec![url.as_str()];
            arguments.extend_from_slice(how);
            assert_eq!(
                curl(&bench.socket, &arguments),
                (200, content.clone()),
                "{length} bytes"
            );
        }
    }
}

/// SHA-256 of so many zero bytes, by `head -c BYTES /dev/zero | sha256sum`.
const ZEROS: [(u64, &str); 4] = [
    (
        1 << 10,
        "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",
    ),
    (
        1 << 20,
        "30e14955ebf1352266dc2ff8067e68104607e750abb9d3b36582b8af909fcb58",
    ),
    (
        64 << 20,
        "3b6a07d0d404fab4e23b6d34bc6696a6a312dd92821332385e5af7c01c421351",
    ),
    (
        1 << 30,
        "49bc20df15e412a64472421e13fe86ff1c5165e18b2afccf160d4dc19fe68a14",
    ),
];

/// As pvcontrol sends objects, up to a gibibyte: `Transfer-Encoding: identity` beside a length, and a wait for `100 Continue`.
#[test]
fn curl_uploads_up_to_a_gibibyte() {
    let bench = Bench::start();
    let file = bench.folder.join("zeros");
    let zeros = std::fs::File::create(&file).unwrap();
    for (length, object) in ZEROS {
        zeros.set_len(length).unwrap();
        let url = format!("http://localhost/objects/{object}");
        let sent = [
            "-T",
            file.to_str().unwrap(),
            "-H",
            "Transfer-Encoding: identity",
            "-H",
            "Expect: 100-continue",
            "-H",
            "Content-Type: application/octet-stream",
            // Longer than the test takes: a server that does not say 100 is found out.
            "--expect100-timeout",
            "50",
            &url,
        ];
        assert_eq!(curl(&bench.socket, &sent), (200, Vec::new()), "{length}");
        let (code, size) = curl(
            &bench.socket,
            &[
                "-o",
                "/dev/null",
                "-w",
                "%{size_download}\n%{http_code}",
                &url,
            ],
        );
        assert_eq!((code, size), (200, length.to_string().into_bytes()));
        // Room for the next one.
        assert_eq!(
            send(&bench.socket, "DELETE", &format!("/objects/{object}"), b"").status(),
            200
        );
    }
}

#[test]
fn curl_is_told_of_a_wrong_hash_and_a_wrong_name() {
    let bench = Bench::start();
    let file = bench.folder.join("content");
    std::fs::write(&file, bytes(3 << 20)).unwrap();
    let file = file.to_str().unwrap();
    let wrong = format!("http://localhost/objects/{}", "a".repeat(64));
    let (code, body) = curl(&bench.socket, &["-T", file, &wrong]);
    assert_eq!(
        (code, body.as_slice()),
        (422, &br#"{"Error":"Object has bad checksum"}"#[..])
    );
    for how in [&["--http1.1"][..], &["-H", "Expect:"], &["--http1.0"]] {
        let mut arguments = vec!["-T", file, "http://localhost/objects/abc"];
        arguments.extend_from_slice(how);
        let (code, body) = curl(&bench.socket, &arguments);
        assert_eq!(
            (code, body.as_slice()),
            (400, &br#"{"Error":"Request has bad object name"}"#[..])
        );
    }
    assert_eq!(get(&bench.socket, "/objects").text(), "[]");
}

#[test]
fn an_object_that_is_there_is_answered_before_its_bytes_come() {
    let bench = Bench::start();
    let content = bytes(1000);
    let object = ObjectId::of(&content);
    assert_eq!(
        send(
            &bench.socket,
            "PUT",
            &format!("/objects/{object}"),
            &content
        )
        .status(),
        200
    );
    let started = Instant::now();
    let mut line = Line::open(&bench.socket);
    line.send(format!(
        "PUT /objects/{object} HTTP/1.1\r\nContent-Length: 536870912\r\n\r\n"
    ));
    let got = line.answer(false).unwrap();
    assert_eq!(
        (got.status(), got.header("Connection")),
        (200, Some("close"))
    );
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "no byte of the body was waited for"
    );
    // A client that does not look before it has sent everything can finish.
    for _ in 0..64 {
        assert!(line.try_send(&content));
    }
}

#[test]
fn what_cannot_fit_is_refused_before_it_comes() {
    let bench = Bench::start();
    let target = format!("/objects/{}", "a".repeat(64));
    let mut line = Line::open(&bench.socket);
    line.send(format!(
        "PUT {target} HTTP/1.1\r\nContent-Length: 1000000000000000\r\n\r\n"
    ));
    let got = line.answer(false).unwrap();
    assert_eq!(
        (got.status(), got.header("Coxswain-Problem")),
        (507, Some("no-space"))
    );
    assert_eq!(got.text(), r#"{"Error":"Not enough disk space available"}"#);
}

#[test]
fn an_interrupted_upload_is_resumed_by_offset() {
    let bench = Bench::start();
    let content = bytes(3_000_000);
    let object = ObjectId::of(&content);
    let target = format!("/objects/{object}");
    let head = || {
        let mut line = Line::open(&bench.socket);
        line.send(format!("HEAD {target} HTTP/1.1\r\n\r\n"));
        line.answer(true).unwrap()
    };
    assert_eq!(head().status(), 404);
    let uploads = || get(&bench.socket, "/uploads").text().to_owned();
    let shown = |bytes: u64, expected: &str, active: bool| {
        format!(
            r#"[{{"sha256":"{object}","bytes":{bytes},"expected_bytes":{expected},"active":{active}}}]"#
        )
    };
    assert_eq!(uploads(), "[]");
    {
        let mut line = Line::open(&bench.socket);
        line.send(format!(
            "PUT {target} HTTP/1.1\r\nContent-Length: 3000000\r\n\r\n"
        ));
        line.send(&content[..1_000_000]);
        // Its progress is seen while it comes.
        let expected = shown(1_000_000, "3000000", true);
        let since = Instant::now();
        while uploads() != expected {
            assert!(since.elapsed() < Duration::from_secs(10), "{}", uploads());
        }
        line.half_close();
        let got = line.answer(false).unwrap();
        assert_eq!(
            (got.status(), got.header("Coxswain-Problem")),
            (400, Some("body-incomplete"))
        );
    }
    assert_eq!(uploads(), shown(1_000_000, "null", false));
    let got = head();
    assert_eq!(
        (got.status(), got.header("Upload-Offset")),
        (204, Some("1000000"))
    );
    assert_eq!(got.header("Upload-Complete"), Some("?0"));
    assert_eq!(
        get(&bench.socket, &target).status(),
        400,
        "a part is no object"
    );
    assert_eq!(get(&bench.socket, "/objects").text(), "[]");

    let patch = |offset: &str, complete: &str, body: &[u8]| {
        let mut request = format!(
            "PATCH {target} HTTP/1.1\r\nUpload-Offset: {offset}\r\nUpload-Complete: {complete}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        ask(&bench.socket, request)
    };
    let got = patch("5", "?1", &content[5..]);
    assert_eq!(
        (got.status(), got.header("Coxswain-Problem")),
        (409, Some("wrong-offset"))
    );
    assert_eq!(
        patch("x", "?1", b"").header("Coxswain-Problem"),
        Some("bad-header")
    );
    let got = patch("1000000", "?0", &content[1_000_000..2_000_000]);
    assert_eq!(
        (got.status(), got.header("Upload-Offset")),
        (204, Some("2000000"))
    );
    assert_eq!(patch("2000000", "?1", &content[2_000_000..]).status(), 200);
    assert_eq!(uploads(), "[]");
    assert_eq!(get(&bench.socket, &target).body, content);
    let got = head();
    assert_eq!(
        (got.status(), got.header("Content-Length")),
        (200, Some("3000000"))
    );
}

#[test]
fn parts_of_objects_and_known_objects() {
    let bench = Bench::start();
    let content = bytes(600_000);
    let object = ObjectId::of(&content);
    let target = format!("/objects/{object}");
    assert_eq!(send(&bench.socket, "PUT", &target, &content).status(), 200);
    let with = |header: &str| {
        ask(
            &bench.socket,
            format!("GET {target} HTTP/1.1\r\n{header}\r\n\r\n"),
        )
    };
    let got = with("Range: bytes=1000-499999");
    assert_eq!(got.status(), 206);
    assert_eq!(
        got.header("Content-Range"),
        Some("bytes 1000-499999/600000")
    );
    assert_eq!(got.body, &content[1000..500_000]);
    assert_eq!(with("Range: bytes=-1").body, &content[599_999..]);
    assert_eq!(with("Range: bytes=600000-").status(), 416);
    assert_eq!(with("Range: sheep=1-2").body, content);
    assert_eq!(with(&format!("If-None-Match: \"{object}\"")).status(), 304);
    assert_eq!(with("If-None-Match: \"other\"").status(), 200);
}

#[test]
fn an_object_is_removed_only_when_no_revision_names_it() {
    let bench = Bench::start();
    let free = bytes(100);
    let target = format!("/objects/{}", ObjectId::of(&free));
    assert_eq!(send(&bench.socket, "PUT", &target, &free).status(), 200);
    assert_eq!(send(&bench.socket, "DELETE", &target, b"").status(), 200);
    assert_eq!(send(&bench.socket, "DELETE", &target, b"").status(), 404);
    let named = "/objects/c5b37d4fb5ed11bef346c3ea4453c8dcff3a0829e476ca02869d80fdd1317e8a";
    let got = send(&bench.socket, "DELETE", named, b"");
    assert_eq!(
        (got.status(), got.header("Coxswain-Problem")),
        (409, Some("object-in-use"))
    );
}

#[test]
fn many_uploads_at_once() {
    let bench = Bench::start();
    std::thread::scope(|scope| {
        for number in 0..40_u8 {
            let socket = &bench.socket;
            scope.spawn(move || {
                let content = vec![number; 300_000];
                let target = format!("/objects/{}", ObjectId::of(&content));
                assert_eq!(send(socket, "PUT", &target, &content).status(), 200);
                assert_eq!(get(socket, &target).body, content);
            });
        }
        // The same object twice at the same time: both are told that it is there.
        for _ in 0..4 {
            let socket = &bench.socket;
            scope.spawn(move || {
                let content = bytes(2_000_000);
                let target = format!("/objects/{}", ObjectId::of(&content));
                assert_eq!(send(socket, "PUT", &target, &content).status(), 200);
            });
        }
    });
    assert_eq!(
        get(&bench.socket, "/objects")
            .text()
            .matches("sha256")
            .count(),
        41
    );
}
