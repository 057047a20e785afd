//! PUT of an object as an eager client does it: the body follows the head at once, and the answer may come before its end.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use acceptance::http::Socket;

/// How long it takes until the whole head of the answer is there.
///
/// # Panics
/// When the answer is not 200.
pub(crate) fn put(socket: &Socket, sha256: &str, bytes: &[u8]) -> Duration {
    let mut stream = socket.connect().expect("the socket is there");
    let mut sender = stream.try_clone().expect("a second handle of the socket");
    let head = format!(
        "PUT /objects/{sha256} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
        bytes.len()
    );
    let start = Instant::now();
    let (answer, time) = std::thread::scope(|scope| {
        scope.spawn(move || {
            // A server that answers early closes before the body is through; its answer counts.
            drop(
                sender
                    .write_all(head.as_bytes())
                    .and_then(|()| sender.write_all(bytes)),
            );
        });
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        while !answer.windows(4).any(|window| window == b"\r\n\r\n") {
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(read) => answer.extend_from_slice(&buffer[..read]),
            }
        }
        let time = start.elapsed();
        drop(stream.shutdown(Shutdown::Both));
        (answer, time)
    });
    let answer = String::from_utf8_lossy(&answer);
    assert!(
        answer.starts_with("HTTP/1.1 200"),
        "PUT of an object: {answer}"
    );
    time
}
