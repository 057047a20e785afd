//! HTTP over TCP and TLS: calls with whole answers, and answers piece by piece.
//!
//! Hyper's HTTP/1.1 connections with an own connector, because of what must hold: one place opens connections (through proxies), every
//! wait has an end, every buffer a bound, credentials go to the origin that they are for and nowhere else, and a redirect never goes
//! from `https` to `http`. No HTTP/2, no compression, no cookies, no caching.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use crate::config::{Config, ConfigError};
use crate::limits;
use crate::offer::Credentials;

mod address;
mod errors;
mod proxy;
mod reach;
pub mod tls;
pub mod token;

#[cfg(test)]
mod tests;

pub use address::{Address, Origin};
pub use errors::WebError;
pub use proxy::{Proxies, Proxy};

/// What a server says of the time is news when it is so much later than what is known.
const TIME_STEP_S: u64 = 600;

/// How to speak with the web.
#[derive(Debug, Clone)]
pub struct WebSettings {
    /// TLS.
    pub tls: tls::TlsSettings,
    /// Proxies.
    pub proxies: Proxies,
    /// For a connection, with proxy and TLS.
    pub connect_timeout: Duration,
    /// For the head of an answer, and between two pieces of it.
    pub answer_timeout: Duration,
    /// Who asks.
    pub user_agent: String,
}

impl WebSettings {
    /// From the table of settings; proxies from the environment where no setting names one.
    ///
    /// # Errors
    /// [`WebError::Settings`], [`WebError::BadAddress`].
    pub fn from_config(
        config: &Config,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, WebError> {
        let wrong = |what: &str, reason: String| WebError::Settings {
            what: what.to_owned(),
            reason,
        };
        let pins: Result<Vec<[u8; 32]>, WebError> = config
            .list("tls-pin")
            .map(|text| {
                let pin: Result<model::ObjectId, _> = text.to_ascii_lowercase().parse();
                pin.map(|pin| *pin.digest()).map_err(|_| {
                    wrong(
                        "tls-pin",
                        "use the 64 hexadecimal digits of a SHA-256".to_owned(),
                    )
                })
            })
            .collect();
        Ok(Self {
            tls: tls::TlsSettings {
                authorities: config.path("tls-ca"),
                pins: pins?,
                identity: identity(config)?,
            },
            proxies: proxies(config, environment)?,
            connect_timeout: config.duration("connect-timeout"),
            answer_timeout: config.duration("answer-timeout"),
            user_agent: format!("coxswain-{}/{}", config.client(), env!("CARGO_PKG_VERSION")),
        })
    }
}

/// Where the client's certificate and key are, if it has them.
fn identity(config: &Config) -> Result<Option<Arc<dyn tls::Identity>>, WebError> {
    let wrong = |what: &str, reason: &str| {
        Err(WebError::Settings {
            what: what.to_owned(),
            reason: reason.to_owned(),
        })
    };
    let certificate = config.path("tls-certificate");
    match (
        certificate,
        config.path("tls-key"),
        config.path("pkcs11-module"),
    ) {
        (None, None, None) => Ok(None),
        (Some(certificate), Some(key), None) => {
            Ok(Some(Arc::new(tls::FileIdentity { certificate, key })))
        }
        (Some(certificate), None, Some(module)) => {
            let key = match token::Locator::parse(config.text("pkcs11-key")) {
                Ok(key) => key,
                Err(reason) => return wrong("pkcs11-key", &reason),
            };
            let pin = match config.read("pkcs11-pin") {
                Ok(pin) => pin,
                Err(error) => return wrong("pkcs11-pin", &error.to_string()),
            };
            Ok(Some(Arc::new(token::TokenIdentity {
                certificate,
                module,
                key,
                pin,
            })))
        }
        (_, Some(_), Some(_)) => wrong(
            "pkcs11-module",
            "the key is either in a file (tls-key) or in a token: keep one",
        ),
        (Some(_), None, None) | (None, Some(_), None) => wrong(
            "tls-key",
            "tls-certificate and tls-key belong together: set both",
        ),
        (None, None, Some(_)) => wrong(
            "tls-certificate",
            "a key in a token needs its certificate: set tls-certificate",
        ),
    }
}

fn proxies(
    config: &Config,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Proxies, WebError> {
    let variable = |name: &str| {
        environment(name)
            .or_else(|| environment(&name.to_ascii_uppercase()))
            .filter(|text| !text.is_empty())
    };
    let credentials = config
        .read("proxy-credentials")
        .map_err(|error: ConfigError| WebError::Settings {
            what: "proxy-credentials".to_owned(),
            reason: error.to_string(),
        })?;
    let parse = |text: Option<String>| {
        text.map(|text| Proxy::parse(&text, credentials.as_deref()))
            .transpose()
    };
    let (https, http) = match config.text("proxy") {
        "none" => (None, None),
        "" => (
            parse(variable("https_proxy"))?,
            // The upper-case one could come from a request's header in a CGI.
            parse(environment("http_proxy").filter(|text| !text.is_empty()))?,
        ),
        text => (parse(Some(text.to_owned()))?, parse(Some(text.to_owned()))?),
    };
    let mut none_for: Vec<String> = config.list("no-proxy").map(str::to_owned).collect();
    if none_for.is_empty() {
        let text = variable("no_proxy").unwrap_or_default();
        none_for = text
            .split([',', ' '])
            .filter(|item| !item.is_empty())
            .map(str::to_owned)
            .collect();
    }
    Ok(Proxies {
        https,
        http,
        none_for,
    })
}

/// One call.
#[derive(Debug, Clone)]
pub struct Call {
    /// Method.
    pub method: Method,
    /// Address.
    pub address: Address,
    /// Sent to the address's origin only.
    pub credentials: Option<Credentials>,
    /// Further headers; not those that the connection needs.
    pub headers: HeaderMap,
    /// Body, held in memory.
    pub body: Bytes,
}

impl Call {
    /// A call without body.
    pub fn new(method: Method, address: Address) -> Self {
        Self {
            method,
            address,
            credentials: None,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// With credentials.
    #[must_use]
    pub fn credentials(mut self, credentials: Option<Credentials>) -> Self {
        self.credentials = credentials;
        self
    }

    /// With a JSON body.
    #[must_use]
    pub fn json(mut self, body: &impl serde::Serialize) -> Self {
        self.body = serde_json::to_vec(body)
            .expect("messages are structs of strings and numbers")
            .into();
        self.header(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        )
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl Answer {
    /// `Retry-After` in seconds; a date in it counts as not said.
    pub fn retry_after(&self) -> Option<Duration> {
        retry_after(&self.headers)
    }
}

/// `Retry-After` in seconds; a date in it counts as not said.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// The door to the web. Cloning shares connections. Must be used inside a tokio runtime.
#[derive(Clone)]
pub struct Web {
    shared: Arc<Shared>,
}

struct Shared {
    settings: WebSettings,
    tls: tls::Client,
    time: tls::Time,
    idle: Mutex<VecDeque<Idle>>,
}

struct Idle {
    origin: Origin,
    since: Instant,
    connection: Connection,
}

/// A connection that takes a call, and who is at its other end when that is proven.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    peer: Option<Arc<tls::Peer>>,
}

impl std::fmt::Debug for Web {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Web").field(&self.shared.settings).finish()
    }
}

impl Web {
    /// With these settings. `time` outlives new settings.
    ///
    /// # Errors
    /// [`WebError::Settings`]: a file that they name cannot be used.
    pub fn new(settings: WebSettings, time: tls::Time) -> Result<Self, WebError> {
        Ok(Self {
            shared: Arc::new(Shared {
                tls: tls::client(&settings.tls, &time)?,
                settings,
                time,
                idle: Mutex::default(),
            }),
        })
    }

    /// A call whose answer is read whole, up to `bytes_max`.
    ///
    /// # Errors
    /// See [`WebError`]; an answer with an error status is no error.
    pub async fn call(&self, call: &Call, bytes_max: usize) -> Result<Answer, WebError> {
        let mut open = self.open(call).await?;
        let from = open.from.clone();
        let mut body = BytesMut::new();
        while let Some(piece) = open.next().await? {
            if body.len() + piece.len() > bytes_max {
                return Err(WebError::TooLong {
                    from,
                    max: bytes_max,
                });
            }
            body.extend_from_slice(&piece);
        }
        Ok(Answer {
            status: open.status,
            headers: open.headers.clone(),
            body: body.freeze(),
        })
    }

    /// A call whose answer is read piece by piece. Redirects of GET and HEAD are followed; other methods get the redirect as answer.
    ///
    /// # Errors
    /// See [`WebError`].
    pub async fn open(&self, call: &Call) -> Result<Open, WebError> {
        let mut address = call.address.clone();
        let mut with_credentials = true;
        for _ in 0..=limits::REDIRECTS_MAX {
            // Once elsewhere, never again: whoever sends it back chooses the path.
            with_credentials &= address.origin() == call.address.origin();
            let open = self.open_once(call, &address, with_credentials).await?;
            let follows = matches!(call.method, Method::GET | Method::HEAD)
                && matches!(open.status.as_u16(), 301 | 302 | 303 | 307 | 308);
            if !follows {
                return Ok(open);
            }
            let location = open.headers.get(header::LOCATION);
            let refused = |reason: &str| WebError::Redirect {
                from: address.to_string(),
                reason: reason.to_owned(),
            };
            let next = location
                .and_then(|value| value.to_str().ok())
                .ok_or_else(|| refused("it does not say where to"))?;
            let next = address.join(next)?;
            if address.origin().tls && !next.origin().tls {
                return Err(refused("from https to http is not followed"));
            }
            address = next;
        }
        Err(WebError::Redirect {
            from: call.address.to_string(),
            reason: format!("more than {} times", limits::REDIRECTS_MAX),
        })
    }

    async fn open_once(
        &self,
        call: &Call,
        address: &Address,
        with_credentials: bool,
    ) -> Result<Open, WebError> {
        let origin = address.origin();
        let patience = self.shared.settings.answer_timeout;
        // A connection that was idle may have been closed by the server meanwhile: then a new one is tried, once.
        if let Some(mut connection) = self.shared.take_idle(origin) {
            let request = self.request(call, address, with_credentials)?;
            let sending = connection.sender.send_request(request);
            match tokio::time::timeout(patience, sending).await {
                Ok(Ok(response)) => return Ok(self.opened(response, connection, address)),
                Ok(Err(error)) if error.is_canceled() || call.method.is_idempotent() => {}
                Ok(Err(error)) => return Err(broken(origin, &error)),
                Err(_) => {
                    return Err(WebError::Timeout {
                        to: origin.to_string(),
                        what: "answer",
                        after: patience,
                    });
                }
            }
        }
        let request = self.request(call, address, with_credentials)?;
        let mut connection = self.shared.connect(origin).await?;
        let sending = connection.sender.send_request(request);
        match tokio::time::timeout(patience, sending).await {
            Ok(Ok(response)) => Ok(self.opened(response, connection, address)),
            Ok(Err(error)) => Err(broken(origin, &error)),
            Err(_) => Err(WebError::Timeout {
                to: origin.to_string(),
                what: "answer",
                after: patience,
            }),
        }
    }

    fn request(
        &self,
        call: &Call,
        address: &Address,
        with_credentials: bool,
    ) -> Result<Request<Full<Bytes>>, WebError> {
        let origin = address.origin();
        let unsendable = |reason: &str| WebError::BadAddress {
            address: address.to_string(),
            reason: reason.to_owned(),
        };
        let proxy = self.shared.settings.proxies.of(origin);
        let target = match proxy {
            Some(_) if !origin.tls => format!("{origin}{}", address.path()),
            Some(_) | None => address.path().to_string(),
        };
        let mut request = Request::new(Full::new(call.body.clone()));
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = target.parse().map_err(|_| unsendable("it is too long"))?;
        let headers = request.headers_mut();
        *headers = call.headers.clone();
        let host = HeaderValue::try_from(origin.host_header())
            .map_err(|_| unsendable("its host cannot be sent"))?;
        headers.insert(header::HOST, host);
        headers.insert(
            header::ACCEPT_ENCODING,
            HeaderValue::from_static("identity"),
        );
        if let Ok(agent) = HeaderValue::from_str(&self.shared.settings.user_agent) {
            headers.insert(header::USER_AGENT, agent);
        }
        if !call.body.is_empty() || matches!(call.method, Method::PUT | Method::POST) {
            headers.insert(header::CONTENT_LENGTH, call.body.len().into());
        }
        if let Some(proxy) = proxy.filter(|_| !origin.tls)
            && let Some(value) = proxy.authorization()
        {
            headers.insert(header::PROXY_AUTHORIZATION, value.clone());
        }
        if let Some(credentials) = call.credentials.as_ref().filter(|_| with_credentials) {
            let (name, value) = credentials.expose();
            let mut value = HeaderValue::from_str(value)
                .map_err(|_| unsendable("its credentials hold a control character"))?;
            value.set_sensitive(true);
            headers.insert(HeaderName::from_static(name), value);
        }
        Ok(request)
    }

    fn opened(
        &self,
        response: Response<Incoming>,
        connection: Connection,
        address: &Address,
    ) -> Open {
        let (head, body) = response.into_parts();
        let said = head
            .headers
            .get(header::DATE)
            .and_then(|value| value.to_str().ok())
            .and_then(|text| httpdate::parse_http_date(text).ok())
            .and_then(|date| date.duration_since(std::time::UNIX_EPOCH).ok());
        if let (Some(said), Some(peer)) = (said, &connection.peer) {
            self.shared.heard(peer, said.as_secs());
        }
        Open {
            status: head.status,
            headers: head.headers,
            from: address.to_string(),
            body,
            patience: self.shared.settings.answer_timeout,
            back: Some((
                Arc::clone(&self.shared),
                address.origin().clone(),
                connection,
            )),
        }
    }
}

fn broken(origin: &Origin, error: &hyper::Error) -> WebError {
    let mut reason = error.to_string();
    if let Some(cause) = std::error::Error::source(error) {
        reason.push_str(&format!(": {cause}"));
    }
    if error.is_parse() {
        reason = format!("what came is no HTTP ({reason}): is there a proxy in between?");
    }
    WebError::Broken {
        to: origin.to_string(),
        reason,
    }
}

impl Shared {
    /// A server that has proved who it is has said what time it is.
    fn heard(&self, peer: &tls::Peer, seconds: u64) {
        let is_news = seconds >= self.time.known().saturating_add(TIME_STEP_S);
        if is_news && self.tls.believes(peer, seconds) {
            self.time.is_at_least(seconds);
        }
    }

    fn take_idle(&self, origin: &Origin) -> Option<Connection> {
        let mut idle = self.idle.lock().ok()?;
        idle.retain(|one| {
            one.since.elapsed() < limits::IDLE_CONNECTION_TIME && !one.connection.sender.is_closed()
        });
        let place = idle
            .iter()
            .position(|one| one.origin == *origin && one.connection.sender.is_ready())?;
        idle.remove(place).map(|one| one.connection)
    }

    fn put_back(&self, origin: Origin, connection: Connection) {
        let Ok(mut idle) = self.idle.lock() else {
            return;
        };
        if connection.sender.is_closed() {
            return;
        }
        while idle.len() >= limits::IDLE_CONNECTIONS_MAX {
            idle.pop_front();
        }
        idle.push_back(Idle {
            origin,
            since: Instant::now(),
            connection,
        });
    }

    async fn connect(&self, origin: &Origin) -> Result<Connection, WebError> {
        let after = self.settings.connect_timeout;
        match tokio::time::timeout(after, self.connect_now(origin)).await {
            Ok(connected) => connected,
            Err(_) => Err(WebError::Timeout {
                to: origin.to_string(),
                what: "connection",
                after,
            }),
        }
    }

    async fn connect_now(&self, origin: &Origin) -> Result<Connection, WebError> {
        let proxy = self.settings.proxies.of(origin);
        let next = proxy.map_or(origin, Proxy::origin);
        let failed = |source| WebError::Connect {
            to: next.to_string(),
            source,
        };
        let mut stream = reach::host(&next.host, next.port).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        if !origin.tls {
            let sender = handshake(origin, stream).await?;
            return Ok(Connection { sender, peer: None });
        }
        if let Some(proxy) = proxy {
            proxy.tunnel(&mut stream, origin).await?;
        }
        let name = ServerName::try_from(origin.host.clone()).map_err(|_| WebError::BadAddress {
            address: origin.to_string(),
            reason: "its host is no name that a certificate could have".to_owned(),
        })?;
        let stream = TlsConnector::from(Arc::clone(&self.tls.config))
            .connect(name.clone(), stream)
            .await
            .map_err(|error| WebError::Tls {
                to: origin.to_string(),
                advice: tls::advice(&error, &self.time),
                reason: error.to_string(),
            })?;
        let chain = stream.get_ref().1.peer_certificates();
        let chain = chain.unwrap_or_default().to_vec();
        let peer = Some(Arc::new(tls::Peer { name, chain }));
        let sender = handshake(origin, stream).await?;
        Ok(Connection { sender, peer })
    }
}

async fn handshake<S>(origin: &Origin, stream: S) -> Result<SendRequest<Full<Bytes>>, WebError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(limits::CONNECTION_BUFFER_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| broken(origin, &error))?;
    tokio::spawn(async move {
        // What goes wrong is told to who waits for the answer.
        connection.await.ok();
    });
    Ok(sender)
}

/// An answer whose body comes piece by piece. Dropping it closes the connection, unless it was read to its end.
pub struct Open {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Whose it is, after redirects; without what follows `?`.
    pub from: String,
    body: Incoming,
    patience: Duration,
    back: Option<(Arc<Shared>, Origin, Connection)>,
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Open")
            .field("status", &self.status)
            .field("from", &self.from)
            .finish_non_exhaustive()
    }
}

impl Open {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// [`WebError::Timeout`], [`WebError::Broken`]: also when the body ends before its announced length.
    pub async fn next(&mut self) -> Result<Option<Bytes>, WebError> {
        loop {
            let frame = tokio::time::timeout(self.patience, self.body.frame()).await;
            match frame {
                Ok(Some(Ok(frame))) => {
                    if let Ok(piece) = frame.into_data() {
                        return Ok(Some(piece));
                    }
                }
                Ok(Some(Err(error))) => {
                    self.back = None;
                    return Err(WebError::Broken {
                        to: self.from.clone(),
                        reason: error.to_string(),
                    });
                }
                Ok(None) => {
                    if let Some((shared, origin, mut connection)) = self.back.take() {
                        // The connection's task needs a moment to see that the body has ended.
                        let moment = Duration::from_millis(100);
                        let ready = connection.sender.ready();
                        let ready = tokio::time::timeout(moment, ready).await;
                        if matches!(ready, Ok(Ok(()))) {
                            shared.put_back(origin, connection);
                        }
                    }
                    return Ok(None);
                }
                Err(_) => {
                    self.back = None;
                    return Err(WebError::Timeout {
                        to: self.from.clone(),
                        what: "bytes",
                        after: self.patience,
                    });
                }
            }
        }
    }
}
