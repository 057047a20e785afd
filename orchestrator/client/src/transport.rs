//! Connections, requests, and answers read whole: every wait has an end and every body a bound.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use api::routes::Method;
use bytes::{Bytes, BytesMut};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, Request, Response, Uri, header};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyperlocal::UnixConnector;
use serde::de::DeserializeOwned;
use tower_service::Service;

use crate::error::{Error, Refusal};
use crate::limits;
use crate::outgoing::Outgoing;

/// [`api::problem::CLIENT_HEADER`], in the lower case that header names have here.
const CLIENT_HEADER: header::HeaderName = header::HeaderName::from_static("coxswain-client");

/// How long the client waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection.
    pub connect: Duration,
    /// For an answer to begin, counted from the last byte that was sent, and between two pieces of it.
    pub answer: Duration,
    /// The same for calls that do work before they answer: uploads, collection, control of containers.
    pub work: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(60),
            work: Duration::from_secs(600),
        }
    }
}

/// A client of one control socket. Cloning shares its connections. Must be used inside a tokio runtime.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) socket: Arc<Path>,
    pub(crate) timeouts: Timeouts,
    authority: Authority,
    /// Sent with every request.
    name: Option<header::HeaderValue>,
    http: legacy::Client<Connector, Outgoing>,
}

impl Client {
    /// A client of this socket; connects when it is first used.
    ///
    /// # Errors
    /// [`Error::BadSocketPath`]: the path is no possible path of a socket.
    pub fn new(socket: impl Into<PathBuf>, timeouts: Timeouts) -> Result<Self, Error> {
        let socket = socket.into();
        let bad = |path: &Path, reason| Error::BadSocketPath {
            path: path.to_owned(),
            reason,
        };
        let Some(text) = socket.to_str() else {
            return Err(bad(&socket, "it is not UTF-8"));
        };
        if text.is_empty() {
            return Err(bad(&socket, "it is empty"));
        }
        if text.contains('\0') {
            return Err(bad(&socket, "it holds a NUL byte"));
        }
        if text.len() > limits::SOCKET_PATH_BYTES_MAX {
            return Err(bad(
                &socket,
                "it is longer than the 107 bytes that Linux allows",
            ));
        }
        let any: Uri = hyperlocal::Uri::new(text, "/").into();
        let authority = any
            .authority()
            .expect("hyperlocal always writes one")
            .clone();
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(8)
            .build(Connector {
                patience: timeouts.connect,
            });
        Ok(Self {
            socket: socket.into(),
            timeouts,
            authority,
            name: None,
            http,
        })
    }

    /// The same client, as this program: claims are made in its name, and kept from others. For programs of the host; a container
    /// is known by itself.
    ///
    /// # Errors
    /// [`Error::Unsendable`]: the name is not made of 1 to 64 letters, digits, `.`, `-` and `_`.
    pub fn named(mut self, name: &str) -> Result<Self, Error> {
        let unsendable = |_| Error::Unsendable {
            name: name.chars().take(64).collect(),
            reason: "a program has a name of 1 to 64 letters, digits, '.', '-' and '_'",
        };
        name.parse::<model::claim::ProgramName>()
            .map_err(unsendable)?;
        let value = header::HeaderValue::from_str(name).expect("such a name is plain text");
        self.name = Some(value);
        Ok(self)
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Sends a request and gives back the answer when its head came, refusals included.
    pub(crate) async fn send(&self, ask: Ask) -> Result<Reply, Error> {
        let call = ask.label();
        let request = self.request(&ask.path, ask.method, ask.headers, ask.body)?;
        let activity = request.body().activity();
        let failure = request.body().failure();
        let patience = if ask.work {
            self.timeouts.work
        } else {
            self.timeouts.answer
        };
        let answer = self.http.request(request);
        tokio::pin!(answer);
        loop {
            let deadline = activity.last() + patience;
            tokio::select! {
                result = &mut answer => {
                    return match result {
                        Ok(response) => Ok(Reply { call, response, patience }),
                        Err(error) => {
                            let source = failure.and_then(|f| f.lock().ok().and_then(|mut f| f.take()));
                            Err(self.failed(call, error, source))
                        }
                    };
                }
                () = tokio::time::sleep_until(deadline.into()) => {
                    if activity.last() + patience <= Instant::now() {
                        return Err(Error::Timeout { call, after: patience });
                    }
                }
            }
        }
    }

    fn request(
        &self,
        path: &str,
        method: Method,
        headers: HeaderMap,
        body: Outgoing,
    ) -> Result<Request<Outgoing>, Error> {
        let unsendable = |reason| Error::Unsendable {
            name: path.to_owned(),
            reason,
        };
        if path.contains('#') {
            return Err(unsendable("a '#' would cut the path"));
        }
        let path: PathAndQuery = path.parse().map_err(|_| {
            unsendable("it holds a character, such as a space, that no request line can carry")
        })?;
        let uri = Uri::builder()
            .scheme("unix")
            .authority(self.authority.clone())
            .path_and_query(path)
            .build()
            .map_err(|_| unsendable("it is too long"))?;
        let mut request = Request::new(body);
        *request.uri_mut() = uri;
        *request.method_mut() = match method {
            Method::Get => http::Method::GET,
            Method::Head => http::Method::HEAD,
            Method::Put => http::Method::PUT,
            Method::Post => http::Method::POST,
            Method::Patch => http::Method::PATCH,
            Method::Delete => http::Method::DELETE,
        };
        *request.headers_mut() = headers;
        // hyper leaves out the length of an empty body; servers wait for what has no length.
        let length = request.body().size_hint().exact();
        if let (Method::Put | Method::Post | Method::Patch, Some(length)) = (method, length) {
            request
                .headers_mut()
                .insert(header::CONTENT_LENGTH, length.into());
        }
        let fixed = request.headers_mut();
        if let Some(name) = &self.name {
            fixed.insert(CLIENT_HEADER, name.clone());
        }
        fixed.insert(header::HOST, header::HeaderValue::from_static("localhost"));
        fixed
            .entry(header::ACCEPT)
            .or_insert(header::HeaderValue::from_static(
                "application/json, application/problem+json, */*",
            ));
        Ok(request)
    }

    fn failed(&self, call: String, error: legacy::Error, source: Option<io::Error>) -> Error {
        if let Some(source) = source {
            return Error::Source {
                what: format!("what {call} sends"),
                source,
            };
        }
        if error.is_connect() {
            let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
            while let Some(inner) = cause {
                if let Some(inner) = inner.downcast_ref::<io::Error>() {
                    let source = match inner.raw_os_error() {
                        Some(code) => io::Error::from_raw_os_error(code),
                        None => io::Error::new(inner.kind(), inner.to_string()),
                    };
                    return Error::Connect {
                        socket: self.socket.to_path_buf(),
                        source,
                    };
                }
                cause = inner.source();
            }
        }
        Error::Broken {
            call,
            source: Box::new(error),
        }
    }
}

/// A request before it is sent.
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Outgoing,
    /// Whether the server works before it answers.
    pub(crate) work: bool,
}

impl Ask {
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            headers: HeaderMap::new(),
            body: Outgoing::bytes(Bytes::new()),
            work: false,
        }
    }

    pub(crate) fn body(mut self, body: Outgoing) -> Self {
        self.body = body;
        self
    }

    pub(crate) fn header(mut self, name: header::HeaderName, value: header::HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    pub(crate) fn work(mut self) -> Self {
        self.work = true;
        self
    }

    fn label(&self) -> String {
        format!("{} {}", self.method.as_str(), self.path)
    }
}

/// An answer whose head has come.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) call: String,
    pub(crate) response: Response<Incoming>,
    patience: Duration,
}

impl Reply {
    /// Turns a refusal into an error.
    pub(crate) async fn accepted(self) -> Result<Self, Error> {
        let status = self.response.status();
        if status.is_success() {
            return Ok(self);
        }
        let text = |name: &str| {
            self.response
                .headers()
                .get(name)
                .and_then(|v| v.to_str().ok())
                .map(str::to_owned)
        };
        let code_word = text(api::problem::HEADER);
        let retry_after = text("retry-after");
        let call = self.call.clone();
        // A refusal stays one when its body is cut or too long.
        let body = self
            .bytes(limits::REFUSAL_BYTES_MAX)
            .await
            .unwrap_or_default();
        let refusal = Refusal::parse(
            status.as_u16(),
            code_word.as_deref(),
            retry_after.as_deref(),
            &body,
        );
        Err(Error::Refused {
            call,
            refusal: Box::new(refusal),
        })
    }

    /// The whole body.
    pub(crate) async fn bytes(self, limit: usize) -> Result<Bytes, Error> {
        let Self {
            call,
            response,
            patience,
        } = self;
        let mut stream = Pieces {
            call,
            patience: Some(patience),
            body: response.into_body(),
        };
        let mut whole = BytesMut::new();
        while let Some(piece) = stream.next().await? {
            if piece.len() > limit - whole.len() {
                return Err(Error::BadAnswer {
                    call: stream.call,
                    reason: format!("it is longer than {limit} bytes"),
                });
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    /// The body as text; what is not UTF-8 becomes U+FFFD.
    pub(crate) async fn text(self) -> Result<String, Error> {
        let bytes = self.bytes(limits::ANSWER_BYTES_MAX).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The body as a message.
    pub(crate) async fn json<T: DeserializeOwned>(self) -> Result<T, Error> {
        let call = self.call.clone();
        let bytes = self.bytes(limits::ANSWER_BYTES_MAX).await?;
        serde_json::from_slice(&bytes).map_err(|error| Error::BadAnswer {
            call,
            reason: error.to_string(),
        })
    }

    /// The body piece by piece; `patience` is the longest wait for a piece.
    pub(crate) fn pieces(self, patience: Option<Duration>) -> Pieces {
        Pieces {
            call: self.call,
            patience,
            body: self.response.into_body(),
        }
    }
}

/// A body, piece by piece.
#[derive(Debug)]
pub(crate) struct Pieces {
    pub(crate) call: String,
    patience: Option<Duration>,
    body: Incoming,
}

impl Pieces {
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let frame = self.body.frame();
            let frame = match self.patience {
                Some(after) => {
                    tokio::time::timeout(after, frame)
                        .await
                        .map_err(|_| Error::Timeout {
                            call: self.call.clone(),
                            after,
                        })?
                }
                None => frame.await,
            };
            match frame {
                None => return Ok(None),
                Some(Err(error)) => {
                    return Err(Error::Broken {
                        call: self.call.clone(),
                        source: Box::new(error),
                    });
                }
                // Trailers say nothing to us.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

/// hyperlocal's connector with an end to its patience: a full backlog answers EAGAIN at once, so it is asked again.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    patience: Duration,
}

impl Service<Uri> for Connector {
    type Response = hyperlocal::UnixStream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let patience = self.patience;
        Box::pin(async move {
            let attempts = async {
                loop {
                    match UnixConnector.call(uri.clone()).await {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                        result => return result,
                    }
                }
            };
            tokio::time::timeout(patience, attempts)
                .await
                .unwrap_or_else(|_| {
                    Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        format!("no connection within {} s", patience.as_secs()),
                    ))
                })
        })
    }
}

/// Percent-encodes a name for our own resources, and for queries.
pub(crate) fn encode(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded() {
        assert_eq!(encode("a b/ü?"), "a%20b%2F%C3%BC%3F");
        assert_eq!(encode("web-1.2_~"), "web-1.2_~");
    }

    #[test]
    fn socket_paths() {
        for bad in ["", "a\0b", &"x".repeat(108)] {
            assert!(matches!(
                Client::new(bad, Timeouts::default()),
                Err(Error::BadSocketPath { .. })
            ));
        }
        let longest = "x".repeat(limits::SOCKET_PATH_BYTES_MAX);
        for good in ["/run/coxswain/control.sock", "relative", "ü x", &longest] {
            assert!(Client::new(good, Timeouts::default()).is_ok(), "{good}");
        }
    }
}
