//! Requests one after the other on connections that are kept, as fast as they are answered; the same client for us and the peer.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::interrupt;
use crate::samples::Samples;

const REQUEST: &[u8] = b"GET /containers HTTP/1.1\r\nHost: localhost\r\n\r\n";
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What came of it.
#[derive(Debug)]
pub(crate) struct Load {
    /// Answers per second.
    pub(crate) rate: f64,
    /// Time of each answer, in seconds.
    pub(crate) waits: Samples,
}

/// One connection, for this long.
///
/// # Panics
/// When the server does not answer 200.
pub(crate) fn one(socket: &Path, length: Duration) -> Load {
    let mut stream = UnixStream::connect(socket).expect("the socket is there");
    let mut buffer = vec![0; ANSWER_BYTES_MAX];
    let mut waits = Samples::default();
    let start = Instant::now();
    while start.elapsed() < length {
        interrupt::check();
        waits.push_time(exchange(&mut stream, &mut buffer));
    }
    Load {
        rate: rate(waits.len(), start.elapsed()),
        waits,
    }
}

/// One request and its whole answer.
///
/// # Panics
/// When the server does not answer 200.
pub(crate) fn exchange(stream: &mut UnixStream, buffer: &mut [u8]) -> Duration {
    let sent = Instant::now();
    stream
        .write_all(REQUEST)
        .expect("the server takes requests");
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).expect("an answer");
        assert!(read > 0, "the server closed the connection");
        filled += read;
        if is_whole(&buffer[..filled]) {
            return sent.elapsed();
        }
    }
}

/// This many connections at once in one thread, for this long.
///
/// # Panics
/// When the server does not answer 200.
pub(crate) fn many(socket: &Path, connections: usize, length: Duration) -> Load {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a run time for the client");
    let start = Instant::now();
    let waits = runtime.block_on(async {
        let tasks: Vec<_> = (0..connections)
            .map(|_| tokio::spawn(exchange_until(socket.to_owned(), start + length)))
            .collect();
        let mut all = Samples::default();
        for task in tasks {
            all.extend(task.await.expect("a client does not fail"));
        }
        all
    });
    Load {
        rate: rate(waits.len(), start.elapsed()),
        waits,
    }
}

async fn exchange_until(socket: std::path::PathBuf, end: Instant) -> Samples {
    let mut stream = tokio::net::UnixStream::connect(socket)
        .await
        .expect("the socket is there");
    let mut buffer = vec![0; ANSWER_BYTES_MAX];
    let mut waits = Samples::default();
    while Instant::now() < end {
        interrupt::check();
        let sent = Instant::now();
        stream
            .write_all(REQUEST)
            .await
            .expect("the server takes requests");
        let mut filled = 0;
        while !is_whole(&buffer[..filled]) {
            let read = stream.read(&mut buffer[filled..]).await.expect("an answer");
            assert!(read > 0, "the server closed the connection");
            filled += read;
        }
        waits.push_time(sent.elapsed());
    }
    waits
}

/// Whether these bytes are one whole answer with a Content-Length.
fn is_whole(bytes: &[u8]) -> bool {
    let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return false;
    };
    let text = std::str::from_utf8(&bytes[..head]).expect("a head is text");
    assert!(text.starts_with("HTTP/1.1 200"), "not 200: {text}");
    let length = text
        .lines()
        .find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse::<usize>().ok())?
        })
        .expect("the answer has a length");
    bytes.len() == head + 4 + length
}

fn rate(count: usize, time: Duration) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / time.as_secs_f64()
}
