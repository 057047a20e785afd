//! A client that sees everything: raw bytes out, answers apart, headers in order with their spelling.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// An answer as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) status_line: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Got {
    pub(crate) fn status(&self) -> u16 {
        self.status_line.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// One connection.
pub(crate) struct Line {
    stream: UnixStream,
    read: Vec<u8>,
}

impl Line {
    pub(crate) fn open(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
            .set_write_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        Self {
            stream,
            read: Vec::new(),
        }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends as far as the server takes it.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    pub(crate) fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    fn more(&mut self) -> bool {
        let mut piece = [0; 64 << 10];
        match self.stream.read(&mut piece) {
            Ok(0) | Err(_) => false,
            Ok(count) => {
                self.read.extend_from_slice(&piece[..count]);
                true
            }
        }
    }

    /// Whether nothing comes within this time and the connection stays open.
    pub(crate) fn is_silent(&mut self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).unwrap();
        let mut byte = [0];
        let silent = matches!(self.stream.read(&mut byte), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
        self.stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        silent
    }

    /// Whether the server closes without another byte.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.read.is_empty() && !self.more() && self.read.is_empty()
    }

    /// The next answer; `head_only` after HEAD. `None` when the connection ends first.
    pub(crate) fn answer(&mut self, head_only: bool) -> Option<Got> {
        let end = loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            if !self.more() {
                return None;
            }
        };
        let head = String::from_utf8(self.read.drain(..end + 4).collect()).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status_line = lines.next().unwrap().to_owned();
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let mut got = Got {
            status_line,
            headers,
            body: Vec::new(),
        };
        if head_only || matches!(got.status(), 100 | 204 | 304) {
            return Some(got);
        }
        got.body = match (
            got.header("Content-Length"),
            got.header("Transfer-Encoding"),
        ) {
            (Some(length), None) => self.exactly(length.parse().unwrap())?,
            (None, Some("chunked")) => self.chunks()?,
            (None, None) => {
                while self.more() {}
                std::mem::take(&mut self.read)
            }
            both => panic!("contradicting lengths {both:?}"),
        };
        Some(got)
    }

    fn exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.read.len() < length {
            if !self.more() {
                return None;
            }
        }
        Some(self.read.drain(..length).collect())
    }

    /// The head of an answer whose body has no end.
    pub(crate) fn stream_start(&mut self) -> String {
        self.until("\r\n\r\n", 1)
    }

    /// Reads until this text has come so often, or the connection ends; everything up to there.
    pub(crate) fn until(&mut self, text: &str, times: usize) -> String {
        let mut searched = 0;
        let mut left = times;
        loop {
            let found = self.read[searched..]
                .windows(text.len())
                .position(|one| one == text.as_bytes());
            match found {
                Some(at) => {
                    searched += at + text.len();
                    left -= 1;
                    if left == 0 {
                        let bytes: Vec<u8> = self.read.drain(..searched).collect();
                        return String::from_utf8(bytes).unwrap();
                    }
                }
                None if self.more() => {}
                None => return self.until_end(),
            }
        }
    }

    /// Everything until the connection ends.
    pub(crate) fn until_end(&mut self) -> String {
        while self.more() {}
        String::from_utf8_lossy(&std::mem::take(&mut self.read)).into_owned()
    }

    /// The next chunk; `None` at the last one.
    fn chunk(&mut self) -> Option<Vec<u8>> {
        let end = loop {
            if let Some(end) = self.read.windows(2).position(|two| two == b"\r\n") {
                break end;
            }
            if !self.more() {
                return None;
            }
        };
        let line: Vec<u8> = self.read.drain(..end + 2).collect();
        let size = std::str::from_utf8(&line[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        let chunk = self.exactly(size)?;
        assert_eq!(self.exactly(2)?, b"\r\n");
        (size > 0).then_some(chunk)
    }

    fn chunks(&mut self) -> Option<Vec<u8>> {
        let mut whole = Vec::new();
        while let Some(mut chunk) = self.chunk() {
            whole.append(&mut chunk);
        }
        Some(whole)
    }
}

/// One request on a connection of its own.
pub(crate) fn ask(socket: &Path, request: impl AsRef<[u8]>) -> Got {
    let mut line = Line::open(socket);
    line.send(request);
    line.answer(false).expect("the server answers")
}

/// GET over HTTP/1.1.
pub(crate) fn get(socket: &Path, target: &str) -> Got {
    ask(
        socket,
        format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    )
}

/// A request with a body over HTTP/1.1.
pub(crate) fn send(socket: &Path, method: &str, target: &str, body: &[u8]) -> Got {
    let mut request = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    ask(socket, request)
}
