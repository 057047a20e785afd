//! The server on a loopback address, for clients that run elsewhere. One task a connection; the state behind one lock, because
//! nothing in it waits.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::{Hawkbit, Request, Response};

/// The longest body that is taken: a whole artifact.
const BODY_BYTES_MAX: usize = 1 << 30;

/// A server that answers until this is dropped.
#[derive(Debug)]
pub struct Served {
    /// Where it answers.
    pub address: SocketAddr,
    state: Arc<Mutex<Hawkbit>>,
    stop: tokio::task::AbortHandle,
}

impl Served {
    /// `http://address`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The state, for a test that wants to look at it.
    pub fn state(&self) -> MutexGuard<'_, Hawkbit> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.abort();
    }
}

/// Milliseconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Something that sees each request, and may change its answer.
pub type Hook = Arc<dyn Fn(&Request, Response) -> Response + Send + Sync>;

/// Serves on a free port of 127.0.0.1.
///
/// # Errors
/// When no port can be had.
pub async fn serve(hawkbit: Hawkbit) -> std::io::Result<Served> {
    serve_with(hawkbit, Arc::new(|_, answer| answer)).await
}

/// The same, with a hook for what devices ask.
///
/// # Errors
/// When no port can be had.
pub async fn serve_with(hawkbit: Hawkbit, hook: Hook) -> std::io::Result<Served> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let state = Arc::new(Mutex::new(hawkbit));
    let shared = Arc::clone(&state);
    let task = tokio::spawn(async move {
        loop {
            let Ok((stream, peer)) = listener.accept().await else {
                // Out of descriptors: the next one that closes makes room.
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                continue;
            };
            let state = Arc::clone(&shared);
            let hook = Arc::clone(&hook);
            tokio::spawn(async move {
                let service = hyper::service::service_fn(move |request| {
                    handle(Arc::clone(&state), Arc::clone(&hook), peer, request)
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                // A client that goes away is the client's business.
                drop(connection.await);
            });
        }
    });
    Ok(Served {
        address,
        state,
        stop: task.abort_handle(),
    })
}

async fn handle(
    state: Arc<Mutex<Hawkbit>>,
    hook: Hook,
    peer: SocketAddr,
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, BODY_BYTES_MAX).collect().await else {
        let mut refused = hyper::Response::new(Full::new(Bytes::new()));
        *refused.status_mut() = hyper::StatusCode::BAD_REQUEST;
        return Ok(refused);
    };
    let headers = head.headers.iter().map(|(name, value)| {
        let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
        (name.as_str().to_owned(), text)
    });
    let asked = Request {
        method: head.method.as_str().to_owned(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: headers.collect(),
        body: body.to_bytes().to_vec(),
    };
    let answer = {
        let mut hawkbit = state.lock().unwrap_or_else(PoisonError::into_inner);
        hawkbit.answer(now(), &peer.ip().to_string(), &asked)
    };
    let answer = if asked.path.starts_with("/rest/") {
        answer
    } else {
        hook(&asked, answer)
    };
    Ok(render(answer))
}

fn render(answer: Response) -> hyper::Response<Full<Bytes>> {
    let mut response = hyper::Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = hyper::StatusCode::from_u16(answer.status)
        .unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in answer.headers {
        let name = hyper::header::HeaderName::from_bytes(name.as_bytes());
        let value = hyper::header::HeaderValue::from_bytes(value.as_bytes());
        // What was changed on the way has another length.
        let length = matches!(&name, Ok(name) if *name == hyper::header::CONTENT_LENGTH);
        if let (Ok(name), Ok(value), false) = (name, value, length) {
            response.headers_mut().append(name, value);
        }
    }
    response
}
