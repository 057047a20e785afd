//! An answer, and its head as libevent writes it: which headers, in which order, for which version.

use std::time::{SystemTime, UNIX_EPOCH};

use api::Method;
use bytes::Bytes;

use super::head::{Head, Rejected, Version};

/// Media type of JSON.
pub const JSON: &str = "application/json";
/// Media type of plain text.
pub const PLAIN: &str = "text/plain";
/// Media type of objects.
pub const OCTETS: &str = "application/octet-stream";

/// Body of an answer.
#[derive(Debug, Default)]
pub enum Body {
    /// Nothing.
    #[default]
    Empty,
    /// These bytes.
    Bytes(Bytes),
    /// Bytes that come piece by piece; an error ends the connection so that the client sees that something is missing. With a
    /// length, exactly so many bytes come.
    Stream {
        /// The pieces.
        pieces: tokio::sync::mpsc::Receiver<std::io::Result<Bytes>>,
        /// How many bytes there are; chunked when it is not known.
        length: Option<u64>,
    },
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Media type.
    pub media: &'static str,
    /// Headers that stand before `Content-Type` (`Retry-After`).
    pub before: Vec<(&'static str, String)>,
    /// Headers that stand after the others.
    pub after: Vec<(&'static str, String)>,
    /// Body.
    pub body: Body,
    /// Whether the connection is closed after it whatever the client asked.
    pub close: bool,
    /// Whether this is libevent's own error page, which has its headers in another order.
    pub own_page: bool,
    /// Whether the name of `Content-Type` is written in lower case, as Pantavisor does for `/buildinfo` and objects.
    pub lower_case: bool,
}

impl Answer {
    /// 200 with an empty JSON body, Pantavisor's "done".
    pub fn done() -> Self {
        Self::new(200, JSON, Body::Empty)
    }

    /// An answer without further headers.
    pub fn new(status: u16, media: &'static str, body: Body) -> Self {
        Self {
            status,
            media,
            before: Vec::new(),
            after: Vec::new(),
            body,
            close: false,
            own_page: false,
            lower_case: false,
        }
    }

    /// 200 with these bytes of JSON.
    pub fn json(body: impl Into<Bytes>) -> Self {
        Self::new(200, JSON, Body::Bytes(body.into()))
    }

    /// libevent's own error page.
    pub fn rejected(status: u16) -> Self {
        let body = Body::Bytes(Bytes::from_static(b"{\"Error\": \"Unsupported protocol\"}"));
        Self {
            close: true,
            own_page: true,
            ..Self::new(status, "text/html", body)
        }
    }

    /// Adds a header after the others.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.after.push((name, value.into()));
        self
    }
}

/// What of the request decides how its answer is written.
#[derive(Debug, Clone, Copy)]
pub struct Framing {
    version: Version,
    head_only: bool,
    says_close: bool,
    keep_alive: bool,
    absolute: bool,
}

impl Framing {
    /// For an answer to this request.
    pub fn of(head: &Head) -> Self {
        Self {
            version: head.version,
            head_only: head.method == Method::Head,
            says_close: head.close,
            keep_alive: head.keep_alive,
            absolute: head.absolute,
        }
    }

    /// For libevent's own error page.
    pub fn of_rejected(rejected: Rejected) -> Self {
        Self {
            version: rejected.version,
            head_only: false,
            says_close: false,
            keep_alive: false,
            absolute: false,
        }
    }

    /// Whether the connection ends after the answer.
    pub fn closes(self, answer: &Answer) -> bool {
        answer.close
            || self.says_close
            || self.absolute
            || (!self.version.is_persistent() && !self.keep_alive)
    }

    /// Whether the body is written in chunks.
    pub fn chunked(self, answer: &Answer) -> bool {
        let unknown = matches!(answer.body, Body::Stream { length: None, .. });
        unknown && self.version.is_persistent() && self.has_body(answer)
    }

    /// Whether a body is written at all.
    pub fn has_body(self, answer: &Answer) -> bool {
        !self.head_only && !matches!(answer.status, 100..=199 | 204 | 304)
    }

    /// Appends the head of an answer.
    pub fn write_head(self, answer: &Answer, out: &mut Vec<u8>) {
        let Version { major, minor } = self.version;
        let reason = reason(answer.status);
        push(
            out,
            format_args!("HTTP/{major}.{minor} {} {reason}\r\n", answer.status),
        );
        for (name, value) in &answer.before {
            push(out, format_args!("{name}: {value}\r\n"));
        }
        let name = if answer.lower_case {
            "content-type"
        } else {
            "Content-Type"
        };
        push(out, format_args!("{name}: {}\r\n", answer.media));
        let closes = self.closes(answer);
        if answer.own_page {
            out.extend_from_slice(b"Connection: close\r\n");
        }
        if self.chunked(answer) {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        if self.version.is_persistent() {
            push(out, format_args!("Date: {}\r\n", date(SystemTime::now())));
        } else if self.keep_alive && !closes {
            out.extend_from_slice(b"Connection: keep-alive\r\n");
        }
        // HTTP/1.0 without keep-alive is delimited by the close, in Pantavisor and here.
        let delimited = self.version.is_persistent() || (self.keep_alive && !closes);
        let length = match &answer.body {
            Body::Empty => Some(0),
            Body::Bytes(bytes) => Some(bytes.len() as u64),
            Body::Stream { length, .. } => *length,
        };
        if let Some(length) = length
            && delimited
            && self.has_body(answer)
        {
            push(out, format_args!("Content-Length: {length}\r\n"));
        }
        for (name, value) in &answer.after {
            push(out, format_args!("{name}: {value}\r\n"));
        }
        let ours = answer.close && self.version.is_persistent();
        if (self.says_close || ours) && !answer.own_page {
            out.extend_from_slice(b"Connection: close\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }
}

fn push(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    use std::io::Write as _;
    out.write_fmt(text)
        .expect("writing to memory does not fail");
}

fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        200 => "OK",
        204 => "No Content",
        206 => "Partial Content",
        304 => "Not Modified",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Request Entity Too Large",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        422 => "Unprocessable Content",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        507 => "Insufficient Storage",
        _ => "Unknown",
    }
}

/// A time as HTTP writes it: `Sat, 21 Nov 2026 09:49:06 GMT`.
pub fn date(time: SystemTime) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    // RFC 3339 of the same moment has every number that is needed: 2026-11-21T09:49:06Z.
    let text = model::WallTime(seconds * 1000).to_string();
    let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
    let month: usize = part(5, 7).parse().unwrap_or(1);
    let weekday = usize::try_from(seconds / 86_400 % 7).unwrap_or_default();
    format!(
        "{}, {} {} {} {} GMT",
        DAYS[weekday],
        part(8, 10),
        MONTHS[(month - 1) % 12],
        part(0, 4),
        part(11, 19)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::head::parse;
    use std::time::Duration;

    fn written(request: &str, answer: &Answer) -> String {
        let head = parse(request.as_bytes()).unwrap();
        let mut out = Vec::new();
        Framing::of(&head).write_head(answer, &mut out);
        let text = String::from_utf8(out).unwrap();
        let lines = text.lines().map(|line| {
            if line.starts_with("Date: ") {
                "Date"
            } else {
                line
            }
        });
        lines.collect::<Vec<_>>().join("|")
    }

    #[test]
    fn heads_as_recorded() {
        let json = || Answer::json("{}");
        for (request, answer, expected) in [
            (
                "GET / HTTP/1.1\r\n\r\n",
                json(),
                "HTTP/1.1 200 OK|Content-Type: application/json|Date|Content-Length: 2|",
            ),
            (
                "GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
                json(),
                "HTTP/1.1 200 OK|Content-Type: application/json|Date|Content-Length: 2|Connection: close|",
            ),
            (
                "GET / HTTP/1.0\r\n\r\n",
                json(),
                "HTTP/1.0 200 OK|Content-Type: application/json|",
            ),
            (
                "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
                json(),
                "HTTP/1.0 200 OK|Content-Type: application/json|Connection: keep-alive|Content-Length: 2|",
            ),
            (
                "HEAD / HTTP/1.1\r\n\r\n",
                json(),
                "HTTP/1.1 200 OK|Content-Type: application/json|Date|",
            ),
            (
                "PUT / HTTP/1.1\r\n\r\n",
                Answer::done(),
                "HTTP/1.1 200 OK|Content-Type: application/json|Date|Content-Length: 0|",
            ),
            (
                "POST / HTTP/1.1\r\n\r\n",
                Answer::new(204, JSON, Body::Empty),
                "HTTP/1.1 204 No Content|Content-Type: application/json|Date|",
            ),
            (
                "GET / HTTP/1.9\r\n\r\n",
                json(),
                "HTTP/1.9 200 OK|Content-Type: application/json|Date|Content-Length: 2|",
            ),
        ] {
            assert_eq!(written(request, &answer), expected, "{request:?}");
        }
        let mut retry = json();
        retry.before.push(("Retry-After", "600".to_owned()));
        assert_eq!(
            written("GET / HTTP/1.1\r\n\r\n", &retry),
            "HTTP/1.1 200 OK|Retry-After: 600|Content-Type: application/json|Date|Content-Length: 2|"
        );
    }

    #[test]
    fn libevents_page() {
        let mut out = Vec::new();
        let rejected = Rejected {
            status: 501,
            version: Version::HTTP_11,
        };
        Framing::of_rejected(rejected).write_head(&Answer::rejected(501), &mut out);
        let text = String::from_utf8(out).unwrap();
        let names: Vec<&str> = text
            .lines()
            .map(|line| line.split(':').next().unwrap())
            .collect();
        assert_eq!(
            names,
            [
                "HTTP/1.1 501 Not Implemented",
                "Content-Type",
                "Connection",
                "Date",
                "Content-Length",
                ""
            ]
        );
    }

    #[test]
    fn dates() {
        for (seconds, expected) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (1_795_254_546, "Sat, 21 Nov 2026 09:49:06 GMT"),
        ] {
            assert_eq!(date(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }
}
