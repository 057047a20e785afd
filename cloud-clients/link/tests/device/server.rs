//! Files over HTTP on loopback, with ranges, and connections that break after so many bytes. Plain threads.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Writes the bytes of a file from an offset on into a buffer.
pub(crate) type Bytes = Arc<dyn Fn(u64, &mut [u8]) + Send + Sync>;

/// The server; its threads end with the process.
#[derive(Clone)]
pub(crate) struct Server {
    /// `http://127.0.0.1:port`
    pub(crate) at: String,
    files: Arc<Mutex<BTreeMap<String, (u64, Bytes)>>>,
    /// Bytes of bodies that were sent.
    pub(crate) sent: Arc<AtomicU64>,
    /// Connections that were broken.
    pub(crate) breaks: Arc<AtomicU64>,
}

impl Server {
    /// A server whose connections break after `break_after` bytes of bodies, and that sends at most `rate` bytes a second on each.
    pub(crate) fn start(break_after: u64, rate: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let server = Self {
            at: format!("http://{}", listener.local_addr().expect("it is bound")),
            files: Arc::default(),
            sent: Arc::default(),
            breaks: Arc::default(),
        };
        let shared = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = shared.clone();
                std::thread::spawn(move || {
                    // The other end going away is what is tested.
                    server.connection(&stream, break_after, rate).ok();
                });
            }
        });
        server
    }

    /// Serves a file; its URL.
    pub(crate) fn file(&self, name: &str, length: u64, bytes: Bytes) -> String {
        let mut files = self.files.lock().expect("no thread panics with it");
        files.insert(format!("/{name}"), (length, bytes));
        format!("{}/{name}", self.at)
    }

    /// Serves these bytes; their URL.
    pub(crate) fn bytes(&self, name: &str, bytes: Vec<u8>) -> String {
        let length = bytes.len() as u64;
        let fill = move |offset: u64, buffer: &mut [u8]| {
            let from = usize::try_from(offset).expect("small files");
            buffer.copy_from_slice(&bytes[from..from + buffer.len()]);
        };
        self.file(name, length, Arc::new(fill))
    }

    fn connection(&self, stream: &TcpStream, break_after: u64, rate: u64) -> std::io::Result<()> {
        let mut left = break_after;
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut writer = stream;
        loop {
            let mut lines = Vec::new();
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line)? == 0 {
                    return Ok(());
                }
                if line.trim().is_empty() {
                    break;
                }
                lines.push(line.trim().to_ascii_lowercase());
            }
            let path = lines[0].split(' ').nth(1).unwrap_or_default().to_owned();
            let files = self.files.lock().expect("no thread panics with it");
            let found = files.get(&path).cloned();
            drop(files);
            let Some((length, bytes)) = found else {
                writer.write_all(b"HTTP/1.1 404 Gone\r\nContent-Length: 0\r\n\r\n")?;
                continue;
            };
            let range = lines
                .iter()
                .find_map(|line| line.strip_prefix("range: bytes="));
            let (from, to) = match range.and_then(|range| range.split_once('-')) {
                Some((from, to)) => (
                    from.parse().unwrap_or(0),
                    to.parse().map_or(length, |last: u64| last + 1),
                ),
                None => (0, length),
            };
            let status = match range {
                Some(_) => format!(
                    "206 Part\r\nContent-Range: bytes {from}-{}/{length}",
                    to - 1
                ),
                None => "200 OK".to_owned(),
            };
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", to - from);
            writer.write_all(head.as_bytes())?;
            let mut offset = from;
            let mut buffer = vec![0; 64 << 10];
            while offset < to {
                let piece = (to - offset).min(left).min(buffer.len() as u64);
                if piece == 0 {
                    self.breaks.fetch_add(1, Ordering::Relaxed);
                    return stream.shutdown(std::net::Shutdown::Both);
                }
                let piece = usize::try_from(piece).expect("a buffer's length");
                bytes(offset, &mut buffer[..piece]);
                writer.write_all(&buffer[..piece])?;
                self.sent.fetch_add(piece as u64, Ordering::Relaxed);
                offset += piece as u64;
                left -= piece as u64;
                if let Some(pause) = (piece as u64 * 1000).checked_div(rate) {
                    std::thread::sleep(std::time::Duration::from_millis(pause));
                }
            }
        }
    }
}
