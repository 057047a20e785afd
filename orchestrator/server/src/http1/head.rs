//! The head of a request, from bytes to what the server looks at. Pure.
//!
//! As lenient as libevent where clients may rely on it (bare LF, any header, unknown `Transfer-Encoding`), strict where two readers
//! could see two requests (lengths that differ, chunk sizes). Headers that nobody looks at are not kept.

use api::Method;

/// Version of a request, as in its request line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 0 or 1.
    pub major: u8,
    /// 0 to 99.
    pub minor: u8,
}

impl Version {
    /// What is assumed when the request line could not be read.
    pub const HTTP_11: Self = Self { major: 1, minor: 1 };

    /// Whether connections stay open unless somebody says otherwise, and answers may be chunked.
    pub fn is_persistent(self) -> bool {
        self >= Self::HTTP_11
    }
}

/// `Expect`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Expect {
    /// Nothing is expected.
    #[default]
    Nothing,
    /// The client waits for `100 Continue` before it sends the body.
    Continue,
    /// Something else, which is refused.
    Other,
}

/// How long the body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Length {
    /// There is none.
    #[default]
    None,
    /// So many bytes; may be 0.
    Bytes(u64),
    /// Until the last chunk.
    Chunked,
}

impl Length {
    /// Whether no byte follows the head.
    pub fn is_empty(self) -> bool {
        matches!(self, Self::None | Self::Bytes(0))
    }
}

/// What the server looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Method.
    pub method: Method,
    /// Path and query as sent, without scheme and host.
    pub target: String,
    /// Version.
    pub version: Version,
    /// Length of the body.
    pub length: Length,
    /// `Expect`; always nothing on HTTP/1.0.
    pub expect: Expect,
    /// Whether the client asked to close after the answer.
    pub close: bool,
    /// Whether an HTTP/1.0 client asked to keep the connection.
    pub keep_alive: bool,
    /// Whether the target had a scheme: then the connection is closed without saying so, as libevent does.
    pub absolute: bool,
    /// Whether the host is another one; such a connection is closed without an answer.
    pub foreign_host: bool,
    /// Whether the client takes RFC 9457 problems.
    pub wants_problem: bool,
    /// `Range`.
    pub range: Option<String>,
    /// `If-None-Match`.
    pub if_none_match: Option<String>,
    /// `Last-Event-ID`.
    pub last_event_id: Option<String>,
    /// `Upload-Offset`.
    pub upload_offset: Option<String>,
    /// `Upload-Complete`.
    pub upload_complete: Option<String>,
    /// `Coxswain-Client`; what is not UTF-8 has its bad bytes replaced.
    pub client: Option<String>,
}

/// A head that gets libevent's own error page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejected {
    /// 400, 413, 417 or 501.
    pub status: u16,
    /// Version for the status line.
    pub version: Version,
}

impl Rejected {
    fn bad(version: Version) -> Self {
        Self {
            status: 400,
            version,
        }
    }
}

/// Finds the end of the head: an empty line, ended by LF or CR LF. `from` is where an earlier search stopped.
pub fn end(bytes: &[u8], from: usize) -> Option<usize> {
    let start = from.saturating_sub(3);
    let mut line_start = match bytes[..start].iter().rposition(|byte| *byte == b'\n') {
        Some(before) => before + 1,
        None => 0,
    };
    while let Some(length) = bytes[line_start..].iter().position(|byte| *byte == b'\n') {
        let line = &bytes[line_start..line_start + length];
        line_start += length + 1;
        if line.iter().all(|byte| *byte == b'\r') {
            return Some(line_start);
        }
    }
    None
}

/// Parses a whole head, its empty line included.
///
/// # Errors
/// What libevent answers by itself.
pub fn parse(bytes: &[u8]) -> Result<Head, Rejected> {
    let mut lines = bytes.split(|byte| *byte == b'\n').map(|line| {
        let ended = line
            .iter()
            .rposition(|byte| *byte != b'\r')
            .map_or(0, |last| last + 1);
        &line[..ended]
    });
    let mut head = request_line(lines.next().unwrap_or_default())?;
    let bad = Rejected::bad(head.version);
    let mut fields = Fields::default();
    let mut first = true;
    for line in lines {
        match line.first() {
            None => break,
            Some(b' ' | b'\t') if first => return Err(bad),
            // A continued line: none of the headers that we look at is ever folded.
            Some(b' ' | b'\t') => continue,
            Some(_) => {}
        }
        first = false;
        let colon = line.iter().position(|byte| *byte == b':').ok_or(bad)?;
        let value = line[colon + 1..].trim_ascii();
        fields.take(&line[..colon], value).map_err(|()| bad)?;
    }
    fields.apply(&mut head)?;
    Ok(head)
}

fn request_line(line: &[u8]) -> Result<Head, Rejected> {
    let bad = Rejected::bad(Version::HTTP_11);
    let line = std::str::from_utf8(line).map_err(|_| bad)?;
    let (method, rest) = line.split_once(' ').ok_or(bad)?;
    let (target, version) = rest.rsplit_once(' ').ok_or(bad)?;
    let version = parse_version(version).ok_or(bad)?;
    if target.is_empty() {
        return Err(Rejected::bad(version));
    }
    let method = Method::parse(method).ok_or(Rejected {
        status: 501,
        version,
    })?;
    let place = place(target);
    Ok(Head {
        method,
        target: place.path.to_owned(),
        version,
        length: Length::None,
        expect: Expect::Nothing,
        close: false,
        keep_alive: false,
        absolute: place.absolute,
        foreign_host: place.host.is_some_and(|host| !is_local(host)),
        wants_problem: false,
        range: None,
        if_none_match: None,
        last_event_id: None,
        upload_offset: None,
        upload_complete: None,
        client: None,
    })
}

fn parse_version(text: &str) -> Option<Version> {
    let (major, minor) = text.strip_prefix("HTTP/")?.split_once('.')?;
    let number = |digits: &str| {
        let valid =
            (1..=2).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit());
        digits.parse::<u8>().ok().filter(|_| valid)
    };
    let version = Version {
        major: number(major)?,
        minor: number(minor)?,
    };
    (version.major <= 1).then_some(version)
}

struct Place<'a> {
    path: &'a str,
    host: Option<&'a str>,
    absolute: bool,
}

/// Splits scheme and host from a target. `//x/y` names the host `x`, as in libevent.
fn place(target: &str) -> Place<'_> {
    let (authority, absolute) = match target.split_once("://") {
        Some((scheme, rest)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
            (rest, true)
        }
        Some(_) | None => match target.strip_prefix("//") {
            Some(rest) => (rest, false),
            None => {
                return Place {
                    path: target,
                    host: None,
                    absolute: false,
                };
            }
        },
    };
    let split = authority.find(['/', '?', '#']).unwrap_or(authority.len());
    let (host, path) = authority.split_at(split);
    Place {
        path,
        host: Some(host),
        absolute,
    }
}

/// Whether a host names this device: nothing, or `localhost`, with any port.
fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    name.is_empty() || name == "localhost"
}

/// Headers that decide how the request is read; of two, the first counts.
#[derive(Default)]
struct Fields {
    host: Option<Vec<u8>>,
    connection: Option<Vec<u8>>,
    length: Option<u64>,
    chunked: Option<bool>,
    expect: Option<Vec<u8>>,
    accept: Option<Vec<u8>>,
    range: Option<Vec<u8>>,
    if_none_match: Option<Vec<u8>>,
    last_event_id: Option<Vec<u8>>,
    upload_offset: Option<Vec<u8>>,
    upload_complete: Option<Vec<u8>>,
    client: Option<Vec<u8>>,
}

impl Fields {
    fn take(&mut self, name: &[u8], value: &[u8]) -> Result<(), ()> {
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        let slot = match name.len() {
            4 if is("host") => &mut self.host,
            5 if is("range") => &mut self.range,
            6 if is("expect") => &mut self.expect,
            6 if is("accept") => &mut self.accept,
            10 if is("connection") => &mut self.connection,
            13 if is("if-none-match") => &mut self.if_none_match,
            13 if is("last-event-id") => &mut self.last_event_id,
            13 if is("upload-offset") => &mut self.upload_offset,
            15 if is("upload-complete") => &mut self.upload_complete,
            15 if is("coxswain-client") => &mut self.client,
            14 if is("content-length") => return self.take_length(value),
            17 if is("transfer-encoding") => {
                // Anything but `chunked` is ignored: Pantavisor's own client sends `identity`.
                self.chunked
                    .get_or_insert(value.eq_ignore_ascii_case(b"chunked"));
                return Ok(());
            }
            _ => return Ok(()),
        };
        slot.get_or_insert_with(|| value.to_vec());
        Ok(())
    }

    fn take_length(&mut self, value: &[u8]) -> Result<(), ()> {
        let digits = (1..=19).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
        let length = std::str::from_utf8(value)
            .ok()
            .and_then(|text| text.parse().ok());
        match (digits, length, self.length) {
            (true, Some(length), None) => self.length = Some(length),
            // Two lengths that differ are two requests to two readers.
            (true, Some(length), Some(before)) if length == before => {}
            _ => return Err(()),
        }
        Ok(())
    }

    fn apply(self, head: &mut Head) -> Result<(), Rejected> {
        let text = |value: Option<Vec<u8>>| value.and_then(|bytes| String::from_utf8(bytes).ok());
        if !head.absolute && !head.foreign_host {
            head.foreign_host = self
                .host
                .is_some_and(|host| !std::str::from_utf8(&host).is_ok_and(is_local));
        }
        let connection = self.connection.unwrap_or_default();
        head.close = connection.eq_ignore_ascii_case(b"close");
        head.keep_alive = connection
            .get(..10)
            .is_some_and(|start| start.eq_ignore_ascii_case(b"keep-alive"));
        head.length = match (self.chunked, self.length) {
            (Some(true), _) => Length::Chunked,
            (Some(false) | None, Some(bytes)) => Length::Bytes(bytes),
            (Some(false) | None, None) => Length::None,
        };
        head.expect = match self.expect {
            Some(value) if head.version.is_persistent() => {
                if value.eq_ignore_ascii_case(b"100-continue") {
                    Expect::Continue
                } else {
                    Expect::Other
                }
            }
            Some(_) | None => Expect::Nothing,
        };
        head.wants_problem =
            text(self.accept).is_some_and(|accept| accept.contains(api::problem::MEDIA_TYPE));
        head.range = text(self.range);
        head.if_none_match = text(self.if_none_match);
        head.last_event_id = text(self.last_event_id);
        head.upload_offset = text(self.upload_offset);
        head.upload_complete = text(self.upload_complete);
        head.client = self
            .client
            .map(|value| String::from_utf8_lossy(&value).into_owned());
        if head.expect == Expect::Other && !head.length.is_empty() {
            return Err(Rejected {
                status: 417,
                version: head.version,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Head, u16> {
        assert_eq!(end(text.as_bytes(), 0), Some(text.len()), "{text:?}");
        parse(text.as_bytes()).map_err(|rejected| rejected.status)
    }

    #[test]
    fn the_end_is_found_wherever_the_reads_fall() {
        let text = b"GET / HTTP/1.1\r\nA: b\r\n\r\nrest";
        let whole = text.len() - 4;
        assert_eq!(end(text, 0), Some(whole));
        for cut in 0..whole {
            assert_eq!(end(&text[..cut], 0), None, "{cut}");
            assert_eq!(end(text, cut), Some(whole), "{cut}");
        }
        assert_eq!(end(b"GET / HTTP/1.1\n\nx", 0), Some(16));
        assert_eq!(end(b"\r\n", 0), Some(2));
    }

    #[test]
    fn what_libevent_takes() {
        let head = parsed("GET /groups HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        assert_eq!(
            (head.method, head.target.as_str()),
            (Method::Get, "/groups")
        );
        assert!(!head.foreign_host && !head.close && head.length == Length::None);
        for good in [
            "GET /groups HTTP/1.1\n\n",
            "GET /groups HTTP/1.9\r\nHost: localhost:80\r\n\r\n",
            "GET /groups HTTP/1.1\r\nHost : other\r\n\r\n",
            "GET /groups HTTP/1.1\r\nHost:\r\n\r\n",
            "GET /groups HTTP/1.1\r\nX: a\0b\r\n\r\n",
            "GET /groups HTTP/1.1\r\nHost: localhost\r\nHost: other.example\r\n\r\n",
            "GET http://localhost/groups HTTP/1.1\r\nHost: other\r\n\r\n",
        ] {
            assert!(
                parsed(good).is_ok_and(|head| !head.foreign_host && head.target == "/groups"),
                "{good:?}"
            );
        }
        for foreign in [
            "GET /groups HTTP/1.1\r\nHost: other.example\r\n\r\n",
            "GET /groups HTTP/1.1\r\nHost: LOCALHOST\r\n\r\n",
            "GET //groups HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "GET http://other/groups HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ] {
            assert!(
                parsed(foreign).is_ok_and(|head| head.foreign_host),
                "{foreign:?}"
            );
        }
    }

    #[test]
    fn what_libevent_refuses() {
        for (text, status) in [
            ("hello\r\n\r\n", 400),
            ("GET /groups\r\n\r\n", 400),
            ("\r\n", 400),
            ("GET /groups HTTP/2.0\r\n\r\n", 400),
            ("GET /groups HTTP/1.x\r\n\r\n", 400),
            ("GET  HTTP/1.1\r\n\r\n", 400),
            ("GET /groups HTTP/1.1\r\nno colon\r\n\r\n", 400),
            ("GET /groups HTTP/1.1\r\n folded: x\r\n\r\n", 400),
            ("OPTIONS /groups HTTP/1.1\r\n\r\n", 501),
            ("get /groups HTTP/1.1\r\n\r\n", 501),
            ("POST /x HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
            ("POST /x HTTP/1.1\r\nContent-Length: 2x\r\n\r\n", 400),
            ("POST /x HTTP/1.1\r\nContent-Length:\r\n\r\n", 400),
            (
                "POST /x HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n",
                400,
            ),
            (
                "POST /x HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
                400,
            ),
            (
                "POST /x HTTP/1.1\r\nExpect: 42\r\nContent-Length: 2\r\n\r\n",
                417,
            ),
        ] {
            assert_eq!(
                parsed(text).map(|head| head.target),
                Err(status),
                "{text:?}"
            );
        }
    }

    #[test]
    fn lengths_and_encodings() {
        for (headers, length) in [
            ("", Length::None),
            ("Content-Length: 0\r\n", Length::Bytes(0)),
            (
                "Content-Length: 2\r\nContent-Length: 2\r\n",
                Length::Bytes(2),
            ),
            (
                "Transfer-Encoding: identity\r\nContent-Length: 5\r\n",
                Length::Bytes(5),
            ),
            (
                "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                Length::Chunked,
            ),
            ("transfer-encoding: CHUNKED\r\n", Length::Chunked),
        ] {
            let head = parsed(&format!("PUT /x HTTP/1.1\r\n{headers}\r\n")).unwrap();
            assert_eq!(head.length, length, "{headers:?}");
        }
    }

    #[test]
    fn connection_and_expect() {
        let head =
            parsed("PUT /x HTTP/1.0\r\nConnection: Keep-Alive\r\nExpect: 100-continue\r\n\r\n")
                .unwrap();
        assert!(head.keep_alive && !head.close && head.expect == Expect::Nothing);
        let head = parsed("PUT /x HTTP/1.1\r\nConnection: Close\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n").unwrap();
        assert!(head.close && head.expect == Expect::Continue);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let from = bytes.len() / 2;
            proptest::prop_assert_eq!(end(&bytes, 0), end(&bytes, from.min(end(&bytes, 0).unwrap_or(from))));
            if let Ok(head) = parse(&bytes) {
                proptest::prop_assert!(head.version.major <= 1);
            }
        }
    }
}
