//! Bad input at the socket of a real device: right status, right text, nothing lost, nobody else delayed.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use acceptance::device::Device;
use acceptance::http::{self, Answer};
use acceptance::image::{busybox, sha256};
use acceptance::manifest::Manifest;
use acceptance::needs_containers;
use serde_json::json;

/// What must hold whatever was sent: an ordinary question is answered, soon, and the container runs on.
fn assert_unimpressed(device: &Device, pid: u32) {
    let began = Instant::now();
    let answer = device.socket.get("/containers").expect("an answer");
    assert_eq!(answer.status, 200);
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "somebody was delayed: {:?}",
        began.elapsed()
    );
    assert_eq!(device.container_pid("job"), Some(pid), "what runs goes on");
}

fn device_with_a_job() -> (Device, u32) {
    let device = Device::start();
    let image = busybox(&[]);
    let manifest = Manifest::new().container("job", &image, &["/bin/sleep", "1000"], json!({}));
    assert_eq!(device.update("locals/one", &manifest, &[&image]).0, "DONE");
    let pid = device.container_pid("job").expect("job runs");
    (device, pid)
}

fn raw(device: &Device, bytes: &[u8]) -> Option<Answer> {
    let answer = device.socket.raw(bytes).expect("the connection is served");
    if answer.is_empty() {
        None
    } else {
        Some(http::parse(&answer).expect("an answer"))
    }
}

#[test]
fn what_is_not_http_or_not_a_request() {
    needs_containers!();
    let (device, pid) = device_with_a_job();
    for (bytes, status) in [
        (&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 tls\r\n\r\n"[..], 400),
        (b"GET\r\n\r\n", 400),
        (b"GET /containers HTTP/2.0\r\n\r\n", 400),
        (b"PATCHWORK /containers HTTP/1.1\r\nHost: localhost\r\n\r\n", 501),
        (b"GET /containers HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 400),
        (b"PUT /groups HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 400),
    ] {
        let answer = raw(&device, bytes).unwrap_or_else(|| panic!("no answer to {bytes:?}"));
        assert_eq!(answer.status, status, "{:?}: {}", String::from_utf8_lossy(bytes), answer.text());
    }
    assert!(
        raw(
            &device,
            b"GET /containers HTTP/1.1\r\nHost: example.org\r\n\r\n"
        )
        .is_none()
    );
    assert_unimpressed(&device, pid);
}

#[test]
fn manifests_of_every_bad_kind() {
    needs_containers!();
    let (device, pid) = device_with_a_job();
    let put = |body: &[u8]| {
        device
            .socket
            .put("/steps/locals/bad", body)
            .expect("an answer")
    };
    assert_eq!(put(&vec![b' '; 10 << 20]).status, 507, "10 MB");
    let keys: Vec<String> = (0..5000)
        .map(|n| format!("\"unused/{n}\":\"{}\"", "ab".repeat(32)))
        .collect();
    let many = format!(
        "{{\"#spec\":\"pantavisor-service-system@1\",{}}}",
        keys.join(",")
    );
    assert_eq!(
        device
            .socket
            .put("/steps/locals/many", many.as_bytes())
            .expect("an answer")
            .status,
        200,
        "5,000 keys"
    );
    for body in [
        &b""[..],
        b"{",
        b"[]",
        br##"{"#spec":"something@9"}"##,
        br##"{"#spec":"pantavisor-service-system@1","../../etc/passwd":"x"}"##,
        br##"{"#spec":"pantavisor-service-system@1","/a":{}}"##,
        br##"{"#spec":"pantavisor-service-system@1","web/run.json":{"name":"web","type":"oci","root-volume":"gone.squashfs"}}"##,
    ] {
        let answer = put(body);
        assert_eq!(answer.status, 422, "{:?}: {}", String::from_utf8_lossy(body), answer.text());
        assert_eq!(answer.text(), r#"{"Error":"Parser: State JSON has bad format"}"#);
        let gone = device.socket.get("/steps/locals/bad/progress").expect("an answer");
        assert_eq!(gone.status, 404, "nothing is half done");
    }
    for name in ["..", "%2e%2e", "progress", &"a".repeat(65)] {
        let answer = device
            .socket
            .put(&format!("/steps/locals/{name}"), b"{}")
            .expect("an answer");
        assert!(
            matches!(answer.status, 400 | 422),
            "{name}: {}",
            answer.status
        );
    }
    assert!(
        !device
            .storage()
            .join("trails/locals/..")
            .join("json")
            .exists()
    );
    assert_unimpressed(&device, pid);
}

#[test]
fn objects_with_the_wrong_hash_and_cut_uploads() {
    needs_containers!();
    let (device, pid) = device_with_a_job();
    let name = sha256(b"what was promised");
    let wrong = device
        .socket
        .put(&format!("/objects/{name}"), b"what came")
        .expect("an answer");
    assert_eq!(
        (wrong.status, wrong.text().as_str()),
        (422, r#"{"Error":"Object has bad checksum"}"#)
    );
    let bad_name = device
        .socket
        .put("/objects/..%2f..%2fetc", b"x")
        .expect("an answer");
    assert_eq!(
        (bad_name.status, bad_name.text().as_str()),
        (400, r#"{"Error":"Request has bad object name"}"#)
    );
    // Cut in the middle: nothing under the final name, and the rest completes it.
    let bytes: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let name = sha256(&bytes);
    let mut stream = device.socket.connect().expect("a connection");
    write!(
        stream,
        "PUT /objects/{name} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
        bytes.len()
    )
    .expect("sent");
    stream.write_all(&bytes[..700_000]).expect("sent");
    stream.shutdown(Shutdown::Both).expect("closed");
    drop(stream);
    device.wait("the cut upload is noticed", Duration::from_secs(10), || {
        let there = device.socket.get(&format!("/objects/{name}")).ok()?.status;
        (there == 400).then_some(())
    });
    assert_eq!(
        device
            .socket
            .put(&format!("/objects/{name}"), &bytes)
            .expect("an answer")
            .status,
        200
    );
    assert_eq!(
        device
            .socket
            .get(&format!("/objects/{name}"))
            .expect("an answer")
            .body,
        bytes
    );
    assert_unimpressed(&device, pid);
}

#[test]
fn the_ways_of_pantavisors_own_clients() {
    needs_containers!();
    let (device, pid) = device_with_a_job();
    let bytes = b"an object of pvcurl";
    let name = sha256(bytes);
    let mut put = format!(
        "PUT /objects/{name} HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: identity\r\nContent-Length: {}\r\n\r\n",
        bytes.len()
    )
    .into_bytes();
    put.extend_from_slice(bytes);
    let answer = raw(&device, &put).expect("HTTP/1.0, identity, half-closed");
    assert_eq!(
        (answer.status_line.as_str(), answer.body.len()),
        ("HTTP/1.0 200 OK", 0)
    );
    let answer = raw(&device, b"GET /groups HTTP/1.0\r\n\r\n").expect("an answer");
    assert!(
        answer.status_line.starts_with("HTTP/1.0 200")
            && answer.header("Transfer-Encoding").is_none()
    );
    let chunked = format!(
        "PUT /objects/{name} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nan ob\r\ne\r\nject of pvcurl\r\n0\r\n\r\n"
    );
    assert_eq!(
        raw(&device, chunked.as_bytes()).expect("an answer").status,
        200
    );
    // Busy while it collects by itself after the update.
    device.wait("it collects", Duration::from_secs(20), || {
        let answer = raw(
            &device,
            b"POST /storage/gc HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        );
        let status = answer.expect("no body at all").status;
        assert!([200, 503].contains(&status), "{status}");
        (status == 200).then_some(())
    });
    assert_unimpressed(&device, pid);
}

#[test]
fn a_thousand_silent_connections_and_slow_heads() {
    needs_containers!();
    let (device, pid) = device_with_a_job();
    let silent: Vec<_> = (0..1000)
        .map(|_| device.socket.connect().expect("a connection"))
        .collect();
    assert_unimpressed(&device, pid);
    let mut slow = device.socket.connect().expect("a connection");
    for byte in b"GET /groups HT" {
        slow.write_all(&[*byte]).expect("sent");
        assert_unimpressed(&device, pid);
    }
    slow.write_all(b"TP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .expect("sent");
    let mut answer = Vec::new();
    slow.read_to_end(&mut answer)
        .expect("a slow client is answered too");
    assert_eq!(http::parse(&answer).expect("an answer").status, 200);
    drop(silent);
    assert_unimpressed(&device, pid);
}
