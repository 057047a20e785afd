//! Files over HTTP or HTTPS on loopback, with ranges, and everything that may happen to a server: connections that break after so many
//! bytes, silence, being killed, redirects, other certificates. It is the cloud's place too: `/offer` and `/reports`. Plain threads.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

/// Writes the bytes of a file from an offset on into a buffer.
pub(crate) type Bytes = Arc<dyn Fn(u64, &mut [u8]) + Send + Sync>;

/// How the server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Fine,
    /// It takes connections and requests, and says nothing; what it was sending stops.
    Silent,
    /// Killed: nobody listens, connections are gone.
    Gone,
}

/// The server; its threads end with the process.
#[derive(Clone)]
pub(crate) struct Server {
    /// `http://127.0.0.1:port`, or `https://localhost:port`.
    pub(crate) at: String,
    files: Arc<Mutex<BTreeMap<String, (u64, Bytes)>>>,
    redirects: Arc<Mutex<BTreeMap<String, String>>>,
    tls: Option<Arc<Mutex<Arc<ServerConfig>>>>,
    mood: Arc<Mutex<Mood>>,
    /// The offer's id, and what `/offer` answers.
    offer: Arc<Mutex<(String, String)>>,
    /// Bodies that were sent to `/reports`.
    pub(crate) reports: Arc<Mutex<Vec<Value>>>,
    /// Heads of requests, in lower case.
    pub(crate) heads: Arc<Mutex<Vec<String>>>,
    /// Bytes of bodies that were sent.
    pub(crate) sent: Arc<AtomicU64>,
    /// Connections that were broken.
    pub(crate) breaks: Arc<AtomicU64>,
    break_after: Arc<AtomicU64>,
    rate: Arc<AtomicU64>,
}

impl Server {
    /// A server whose connections break after `break_after` bytes of bodies, and that sends at most `rate` bytes a second on each.
    pub(crate) fn start(break_after: u64, rate: u64) -> Self {
        Self::start_as(break_after, rate, None, Arc::default())
    }

    /// With these certificates.
    pub(crate) fn start_tls(break_after: u64, rate: u64, config: Arc<ServerConfig>) -> Self {
        Self::start_as(break_after, rate, Some(config), Arc::default())
    }

    /// Another server, which knows what was reported to this one.
    pub(crate) fn beside(&self, config: Arc<ServerConfig>) -> Self {
        Self::start_as(u64::MAX, 0, Some(config), Arc::clone(&self.reports))
    }

    fn start_as(
        break_after: u64,
        rate: u64,
        tls: Option<Arc<ServerConfig>>,
        reports: Arc<Mutex<Vec<Value>>>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let at = match &tls {
            Some(_) => format!("https://localhost:{}", address.port()),
            None => format!("http://{address}"),
        };
        let server = Self {
            at,
            files: Arc::default(),
            redirects: Arc::default(),
            tls: tls.map(|config| Arc::new(Mutex::new(config))),
            mood: Arc::new(Mutex::new(Mood::Fine)),
            offer: Arc::default(),
            reports,
            heads: Arc::default(),
            sent: Arc::default(),
            breaks: Arc::default(),
            break_after: Arc::new(AtomicU64::new(break_after)),
            rate: Arc::new(AtomicU64::new(rate)),
        };
        let shared = server.clone();
        std::thread::spawn(move || shared.listen(listener, address));
        server
    }

    fn listen(&self, listener: TcpListener, address: SocketAddr) {
        let mut listener = Some(listener);
        let mut open: Vec<TcpStream> = Vec::new();
        loop {
            if self.mood() == Mood::Gone {
                listener = None;
                for stream in open.drain(..) {
                    // The other end may have gone before.
                    stream.shutdown(std::net::Shutdown::Both).ok();
                }
            } else if listener.is_none() {
                listener = TcpListener::bind(address).ok();
            }
            let waiting = listener.as_ref().and_then(|listener| {
                listener.set_nonblocking(true).expect("a socket");
                listener.accept().ok()
            });
            let Some((stream, _)) = waiting else {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            };
            stream.set_nonblocking(false).expect("a socket");
            open.extend(stream.try_clone());
            let server = self.clone();
            std::thread::spawn(move || {
                let end = stream.try_clone().expect("a socket");
                // The other end going away is what is tested; it is told of this end although `open` still has it.
                server.greet(stream).ok();
                end.shutdown(std::net::Shutdown::Both).ok();
            });
        }
    }

    fn greet(&self, stream: TcpStream) -> std::io::Result<()> {
        let Some(tls) = &self.tls else {
            return self.connection(stream);
        };
        let config = Arc::clone(&tls.lock().expect("no thread panics with it"));
        let tls = ServerConnection::new(config).expect("a good configuration");
        self.connection(StreamOwned::new(tls, stream))
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

    /// Sends whoever asks for a file elsewhere.
    pub(crate) fn redirect(&self, name: &str, to: &str) {
        let mut redirects = self.redirects.lock().expect("no thread panics with it");
        redirects.insert(format!("/{name}"), to.to_owned());
    }

    /// What `/offer` says until this deployment's last word was told.
    pub(crate) fn offer(&self, id: &str, text: String) {
        *self.offer.lock().expect("no thread panics with it") = (id.to_owned(), text);
    }

    /// Id and text of what `/offer` says.
    pub(crate) fn offered(&self) -> (String, String) {
        self.offer.lock().expect("no thread panics with it").clone()
    }

    /// How it is from now on.
    pub(crate) fn is(&self, mood: Mood) {
        *self.mood.lock().expect("no thread panics with it") = mood;
    }

    fn mood(&self) -> Mood {
        *self.mood.lock().expect("no thread panics with it")
    }

    /// Connections break after so many bytes of bodies.
    pub(crate) fn breaks_after(&self, bytes: u64) {
        self.break_after.store(bytes, Ordering::Relaxed);
    }

    /// Shows this certificate from now on.
    pub(crate) fn shows(&self, config: Arc<ServerConfig>) {
        let tls = self.tls.as_ref().expect("it speaks TLS");
        *tls.lock().expect("no thread panics with it") = config;
    }

    /// Reports of a deployment.
    pub(crate) fn told(&self, id: &str) -> Vec<Value> {
        let reports = self.reports.lock().expect("no thread panics with it");
        let of_it = reports.iter().filter(|told| told["deployment"] == id);
        of_it.cloned().collect()
    }

    /// Requests whose heads contain this, in lower case.
    pub(crate) fn asked(&self, text: &str) -> usize {
        let heads = self.heads.lock().expect("no thread panics with it");
        heads.iter().filter(|head| head.contains(text)).count()
    }

    /// Waits while it is silent; an error when it is gone.
    fn alive(&self) -> std::io::Result<()> {
        loop {
            match self.mood() {
                Mood::Fine => return Ok(()),
                Mood::Silent => std::thread::sleep(Duration::from_millis(10)),
                Mood::Gone => return Err(std::io::ErrorKind::ConnectionAborted.into()),
            }
        }
    }

    fn connection<S: Read + Write>(&self, stream: S) -> std::io::Result<()> {
        let mut left = self.break_after.load(Ordering::Relaxed);
        let mut stream = BufReader::new(stream);
        loop {
            let mut lines = Vec::new();
            loop {
                let mut line = String::new();
                if stream.read_line(&mut line)? == 0 {
                    return Ok(());
                }
                if line.trim().is_empty() {
                    break;
                }
                lines.push(line.trim().to_ascii_lowercase());
            }
            let length = value_of(&lines, "content-length").and_then(|text| text.parse().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            stream.read_exact(&mut body)?;
            let mut heads = self.heads.lock().expect("no thread panics with it");
            heads.push(lines.join("\n"));
            drop(heads);
            self.alive()?;
            let path = lines[0].split(' ').nth(1).unwrap_or_default().to_owned();
            let redirects = self.redirects.lock().expect("no thread panics with it");
            let elsewhere = redirects.get(&path).cloned();
            drop(redirects);
            if let Some(to) = elsewhere {
                answer(&mut stream, &format!("302 Found\r\nLocation: {to}"), b"")?;
            } else if path == "/reports" {
                let report: Value = serde_json::from_slice(&body).expect("the client's JSON");
                let mut reports = self.reports.lock().expect("no thread panics with it");
                reports.push(report);
                drop(reports);
                answer(&mut stream, "200 OK", b"")?;
            } else if path == "/offer" {
                let (id, text) = self.offer.lock().expect("no thread panics with it").clone();
                let over = self.told(&id).iter().any(|told| told["final"] == true);
                if over || text.is_empty() {
                    answer(&mut stream, "204 Nothing", b"")?;
                } else {
                    answer(&mut stream, "200 OK", text.as_bytes())?;
                }
            } else if !self.send(&mut stream, &path, &lines, &mut left)? {
                return Ok(());
            }
        }
    }

    /// Sends a file, or a part of it; false when the connection breaks meanwhile.
    fn send<S: Read + Write>(
        &self,
        stream: &mut BufReader<S>,
        path: &str,
        lines: &[String],
        left: &mut u64,
    ) -> std::io::Result<bool> {
        let files = self.files.lock().expect("no thread panics with it");
        let found = files.get(path).cloned();
        drop(files);
        let Some((length, bytes)) = found else {
            return answer(stream, "404 Gone", b"").map(|()| true);
        };
        let range = value_of(lines, "range").and_then(|text| text.strip_prefix("bytes="));
        let (from, to) = match range.and_then(|range| range.split_once('-')) {
            Some((from, to)) => (
                from.parse().unwrap_or(0),
                to.parse().map_or(length, |last: u64| last + 1),
            ),
            None => (0, length),
        };
        let status = match range {
            Some(_) => {
                let last = to - 1;
                format!("206 Part\r\nContent-Range: bytes {from}-{last}/{length}")
            }
            None => "200 OK".to_owned(),
        };
        head(stream, &status, to - from)?;
        let mut offset = from;
        let mut buffer = vec![0; 64 << 10];
        while offset < to {
            self.alive()?;
            let piece = (to - offset).min(*left).min(buffer.len() as u64);
            if piece == 0 {
                self.breaks.fetch_add(1, Ordering::Relaxed);
                return Ok(false);
            }
            let piece = usize::try_from(piece).expect("a buffer's length");
            bytes(offset, &mut buffer[..piece]);
            stream.get_mut().write_all(&buffer[..piece])?;
            self.sent.fetch_add(piece as u64, Ordering::Relaxed);
            offset += piece as u64;
            *left -= piece as u64;
            let rate = self.rate.load(Ordering::Relaxed);
            if let Some(pause) = (piece as u64 * 1000).checked_div(rate) {
                std::thread::sleep(Duration::from_millis(pause));
            }
        }
        stream.get_mut().flush()?;
        Ok(true)
    }
}

fn value_of<'a>(lines: &'a [String], name: &str) -> Option<&'a str> {
    let named = lines.iter().filter_map(|line| line.split_once(": "));
    named
        .filter(|(known, _)| *known == name)
        .map(|(_, value)| value)
        .next()
}

fn head<S: Write>(stream: &mut BufReader<S>, status: &str, length: u64) -> std::io::Result<()> {
    let date = httpdate::fmt_http_date(SystemTime::now());
    let head = format!("HTTP/1.1 {status}\r\nDate: {date}\r\nContent-Length: {length}\r\n\r\n");
    stream.get_mut().write_all(head.as_bytes())
}

fn answer<S: Write>(stream: &mut BufReader<S>, status: &str, body: &[u8]) -> std::io::Result<()> {
    head(stream, status, body.len() as u64)?;
    stream.get_mut().write_all(body)?;
    stream.get_mut().flush()
}
