//! Looks at a device through its socket every millisecond or two, over one connection, and says when something came to be.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use acceptance::device::Device;
use acceptance::http::Socket;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;

use crate::interrupt;

/// Pause between two looks: what a figure may be too long by.
const PAUSE: Duration = Duration::from_millis(1);
/// After this long nothing comes any more.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection that is kept.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: BufReader<UnixStream>,
}

impl Connection {
    /// Connects.
    ///
    /// # Panics
    /// When nobody listens.
    pub(crate) fn new(socket: &Socket) -> Self {
        Self {
            stream: BufReader::new(socket.connect().expect("the socket is there")),
        }
    }

    /// GET: status and body. The answer must have a Content-Length.
    ///
    /// # Panics
    /// When the connection breaks.
    pub(crate) fn get(&mut self, target: &str) -> (u16, Vec<u8>) {
        let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        self.stream
            .get_mut()
            .write_all(request.as_bytes())
            .expect("the device takes a request");
        let mut line = String::new();
        let mut read_line = |stream: &mut BufReader<UnixStream>| {
            line.clear();
            stream.read_line(&mut line).expect("the device answers");
            line.trim_end().to_owned()
        };
        let status = read_line(&mut self.stream);
        let status = status
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .unwrap_or_else(|| panic!("no status in {status:?}"));
        let mut length = 0;
        loop {
            let header = read_line(&mut self.stream).to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length is a number");
            }
        }
        let mut body = vec![0; length];
        self.stream
            .read_exact(&mut body)
            .expect("the body is whole");
        (status, body)
    }
}

/// Who looks at a device.
#[derive(Debug)]
pub(crate) struct Watch {
    connection: Connection,
}

impl Watch {
    /// Looks at this device.
    pub(crate) fn new(device: &Device) -> Self {
        Self {
            connection: Connection::new(&device.socket),
        }
    }

    /// GET /status.
    ///
    /// # Panics
    /// When it is not answered.
    pub(crate) fn status(&mut self) -> Value {
        let (_, body) = self.connection.get("/status");
        serde_json::from_slice(&body).expect("the status is JSON")
    }

    /// Looks until `ask` finds what it looks for, and tells when that was.
    ///
    /// # Panics
    /// After a minute, or when the run is interrupted.
    pub(crate) fn until<T>(
        &mut self,
        what: &str,
        mut ask: impl FnMut(&Value) -> Option<T>,
    ) -> (T, Instant) {
        let end = Instant::now() + PATIENCE;
        loop {
            interrupt::check();
            let status = self.status();
            if let Some(found) = ask(&status) {
                return (found, Instant::now());
            }
            assert!(
                Instant::now() < end,
                "not within {PATIENCE:?}: {what}\nstatus: {status}"
            );
            std::thread::sleep(PAUSE);
        }
    }

    /// Waits until the container has a process other than `not`.
    ///
    /// # Panics
    /// As [`Watch::until`].
    pub(crate) fn runs(&mut self, container: &str, not: Option<u32>) -> (u32, Instant) {
        self.until(&format!("{container} runs"), |status| {
            pid(status, container).filter(|pid| Some(*pid) != not)
        })
    }

    /// Waits until a revision runs and is committed.
    ///
    /// # Panics
    /// As [`Watch::until`].
    pub(crate) fn settled(&mut self, revision: &str) {
        self.until(&format!("{revision} is committed"), |status| {
            (status["running"] == revision
                && status["committed"] == revision
                && status["trial"].is_null())
            .then_some(())
        });
    }
}

/// First process of a container.
pub(crate) fn pid(status: &Value, container: &str) -> Option<u32> {
    status["containers"]
        .as_array()?
        .iter()
        .find(|found| found["name"] == container)?["pid"]
        .as_u64()
        .and_then(|pid| u32::try_from(pid).ok())
}

/// A process whose end is to be seen when it comes, not at the next look.
#[derive(Debug)]
pub(crate) struct Doomed(OwnedFd);

impl Doomed {
    /// The process with this number; `None` when it has ended already.
    pub(crate) fn new(pid: u32) -> Option<Self> {
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)?;
        rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
            .ok()
            .map(Self)
    }

    /// Waits for its end and tells when that was.
    ///
    /// # Panics
    /// When it has not ended within a minute.
    pub(crate) fn ended(self) -> Instant {
        let mut set = [PollFd::new(&self.0, PollFlags::IN)];
        let patience = Timespec {
            tv_sec: 60,
            tv_nsec: 0,
        };
        let ready = poll(&mut set, Some(&patience)).expect("a process can be waited for");
        assert_eq!(ready, 1, "the process has not ended");
        Instant::now()
    }
}
