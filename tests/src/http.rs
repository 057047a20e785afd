//! A client of the control socket written from the protocol page alone, over the standard library: what it sends is exactly
//! what the test says, and what it gets is kept byte for byte.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An answer, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The first line, without its end.
    pub status_line: String,
    /// The three digits.
    pub status: u16,
    /// Names as sent and values, in order.
    pub headers: Vec<(String, String)>,
    /// The body; a chunked one is put together.
    pub body: Vec<u8>,
}

impl Answer {
    /// The first header of this name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?}", self.text()))
    }
}

/// The control socket of a device.
#[derive(Debug, Clone)]
pub struct Socket {
    path: PathBuf,
}

impl Socket {
    /// The socket at this path.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// A connection of its own, with a time-out of a minute for each read and write.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn connect(&self) -> io::Result<UnixStream> {
        let stream = UnixStream::connect(&self.path)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.set_write_timeout(Some(Duration::from_secs(60)))?;
        Ok(stream)
    }

    /// Sends these bytes, half-closes, and returns all that comes back until the server closes.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn raw(&self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = self.connect()?;
        stream.write_all(bytes)?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    }

    /// One request on a connection of its own.
    ///
    /// # Errors
    /// When the connection breaks or the answer is not HTTP.
    pub fn ask(&self, method: &str, target: &str, body: &[u8]) -> io::Result<Answer> {
        let mut stream = self.connect()?;
        write!(
            stream,
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        )?;
        // A server that refuses early may close before the body is through; its answer counts.
        let sent = stream.write_all(body);
        let mut bytes = Vec::new();
        match stream.read_to_end(&mut bytes) {
            Ok(_) => {}
            Err(error) if bytes.is_empty() => return Err(sent.err().unwrap_or(error)),
            Err(_) => {}
        }
        parse(&bytes)
    }

    /// GET.
    ///
    /// # Errors
    /// As [`Socket::ask`].
    pub fn get(&self, target: &str) -> io::Result<Answer> {
        self.ask("GET", target, b"")
    }

    /// PUT.
    ///
    /// # Errors
    /// As [`Socket::ask`].
    pub fn put(&self, target: &str, body: &[u8]) -> io::Result<Answer> {
        self.ask("PUT", target, body)
    }

    /// POST.
    ///
    /// # Errors
    /// As [`Socket::ask`].
    pub fn post(&self, target: &str, body: &str) -> io::Result<Answer> {
        self.ask("POST", target, body.as_bytes())
    }
}

/// Takes one answer apart.
///
/// # Errors
/// When the bytes are not a whole answer.
pub fn parse(bytes: &[u8]) -> io::Result<Answer> {
    let bad = |what: &str| {
        let start = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
        io::Error::new(io::ErrorKind::InvalidData, format!("{what}: {start:?}"))
    };
    let end = bytes
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .ok_or_else(|| bad("no end of the head"))?;
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| bad("the head is not text"))?;
    let mut lines = head.split("\r\n");
    let status_line = lines.next().unwrap_or_default().to_owned();
    let status = status_line
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| bad("no status"))?;
    let headers: Vec<(String, String)> = lines
        .map(|line| {
            line.split_once(':')
                .map(|(n, v)| (n.to_owned(), v.trim().to_owned()))
        })
        .collect::<Option<_>>()
        .ok_or_else(|| bad("a header without a colon"))?;
    let mut answer = Answer {
        status_line,
        status,
        headers,
        body: bytes[end + 4..].to_vec(),
    };
    if answer
        .header("Transfer-Encoding")
        .is_some_and(|value| value == "chunked")
    {
        answer.body = dechunk(&answer.body).ok_or_else(|| bad("a broken chunk"))?;
    } else if let Some(length) = answer
        .header("Content-Length")
        .and_then(|value| value.parse().ok())
    {
        if answer.body.len() < length {
            return Err(bad("the body is cut"));
        }
        answer.body.truncate(length);
    }
    Ok(answer)
}

fn dechunk(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = bytes.windows(2).position(|w| w == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..line]).ok()?, 16).ok()?;
        bytes = &bytes[line + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(bytes.get(..size)?);
        bytes = bytes.get(size + 2..)?;
    }
}
