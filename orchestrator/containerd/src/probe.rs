//! Asking a running container whether it is well.
//!
//! A command runs inside it; HTTP and TCP are asked from inside its network. Every answer is bounded in time and size.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use device::ports::Instance;
use model::container::Probe;

use crate::client::{CallError, Client};
use crate::names::instance_id;
use crate::runtime::Shared;

/// Bytes of an HTTP answer that are read to find its status.
const ANSWER_BYTES_MAX: usize = 4096;
/// Time for a command to go after SIGKILL.
const KILL: Duration = Duration::from_secs(5);
const SIGKILL: u32 = 9;

/// Asks; `Err` says what was wrong, for a person.
pub(crate) async fn ask(
    shared: &Arc<Shared>,
    instance: &Instance,
    probe: &Probe,
    timeout: Duration,
) -> Result<(), String> {
    let id = instance_id(&instance.container, instance.fingerprint);
    let pid = {
        let mut registry = shared.registry();
        registry.of_mut(&id, instance).and_then(|entry| entry.pid)
    };
    let Some(pid) = pid else {
        return Err("container does not run".to_owned());
    };
    match probe {
        Probe::Exec(command) => exec(shared, &id, command, timeout).await,
        Probe::Http { port, path } => {
            let (port, path) = (*port, path.clone());
            in_network(pid, timeout, move |end| http(port, &path, end)).await
        }
        Probe::Tcp { port } => {
            let port = *port;
            in_network(pid, timeout, move |end| connect(port, end).map(drop)).await
        }
    }
}

async fn exec(
    shared: &Arc<Shared>,
    id: &str,
    command: &[String],
    timeout: Duration,
) -> Result<(), String> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    // Distinct also from those of an earlier start of this program.
    let exec = format!(
        "probe-{}-{}",
        std::process::id(),
        NUMBER.fetch_add(1, Ordering::Relaxed)
    );
    let process = process_of(shared, id, command)
        .map_err(|error| format!("cannot describe the command: {error}"))?;
    let Ok(up) = tokio::time::timeout(timeout, shared.link.up()).await else {
        return Err("containerd does not answer".to_owned());
    };
    let run = run(&up.client, id, &exec, process);
    let outcome = match tokio::time::timeout(timeout, run).await {
        Ok(Ok(0)) => Ok(()),
        Ok(Ok(code)) => Err(format!("{:?} exited with code {code}", command.join(" "))),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!(
            "{:?} took longer than {:?}",
            command.join(" "),
            timeout
        )),
    };
    // Whatever happened: it must not stay.
    let client = up.client;
    let id = id.to_owned();
    let ended = outcome.is_ok();
    tokio::spawn(async move {
        if !ended {
            client.kill(&id, &exec, SIGKILL).await.ok();
            tokio::time::timeout(KILL, client.wait(&id, &exec))
                .await
                .ok();
        }
        client.delete_exec(&id, &exec).await.ok();
    });
    outcome
}

async fn run(client: &Client, id: &str, exec: &str, process: Vec<u8>) -> Result<u32, CallError> {
    client.exec(id, exec, process).await?;
    client.start(id, exec).await?;
    client.wait(id, exec).await
}

/// The container's first process with another command line.
fn process_of(shared: &Shared, id: &str, command: &[String]) -> io::Result<Vec<u8>> {
    let bytes = fs::read(shared.config.instance(id).join("process.json"))?;
    let mut process: serde_json::Value = serde_json::from_slice(&bytes)?;
    if let Some(fields) = process.as_object_mut() {
        fields.insert("args".to_owned(), command.into());
    }
    Ok(serde_json::to_vec(&process)?)
}

/// Runs a question on a thread of its own that has moved into the container's network.
async fn in_network(
    pid: u32,
    timeout: Duration,
    question: impl FnOnce(Instant) -> io::Result<()> + Send + 'static,
) -> Result<(), String> {
    let (answer, answered) = tokio::sync::oneshot::channel();
    let end = Instant::now() + timeout;
    let work = move || {
        let outcome = File::open(format!("/proc/{pid}/ns/net"))
            .and_then(|network| linux::process::enter_network(&network))
            .and_then(|()| question(end));
        // Nobody waits any more when the time is over.
        answer.send(outcome).ok();
    };
    std::thread::Builder::new()
        .name("probe".to_owned())
        .stack_size(64 << 10)
        .spawn(work)
        .map_err(|error| format!("cannot start a thread: {error}"))?;
    match tokio::time::timeout(timeout, answered).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(error))) => Err(error.to_string()),
        Ok(Err(_)) | Err(_) => Err(format!("no answer within {timeout:?}")),
    }
}

fn connect(port: u16, end: Instant) -> io::Result<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let left = left(end)?;
    TcpStream::connect_timeout(&address, left).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("cannot connect to port {port}: {error}"),
        )
    })
}

fn http(port: u16, path: &str, end: Instant) -> io::Result<()> {
    let mut stream = connect(port, end)?;
    stream.set_write_timeout(Some(left(end)?))?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nUser-Agent: coxswain\r\n\
         Accept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut buffer = [0; 512];
    while answer.len() < ANSWER_BYTES_MAX && !answer.contains(&b'\n') {
        stream.set_read_timeout(Some(left(end)?))?;
        match stream.read(&mut buffer)? {
            0 => break,
            count => answer.extend_from_slice(buffer.get(..count).unwrap_or_default()),
        }
    }
    match status(&answer) {
        Some(200..=399) => Ok(()),
        Some(status) => Err(io::Error::other(format!("GET {path} answered {status}"))),
        None => Err(io::Error::other(format!(
            "GET {path} got an answer that is not HTTP"
        ))),
    }
}

fn status(answer: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(answer.split(|byte| *byte == b'\n').next()?).ok()?;
    let rest = line.strip_prefix("HTTP/1.")?;
    let status = rest.split(' ').nth(1)?.trim();
    (status.len() == 3).then(|| status.parse().ok()).flatten()
}

fn left(end: Instant) -> io::Result<Duration> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() {
        Err(io::Error::from(io::ErrorKind::TimedOut))
    } else {
        Ok(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_lines() {
        let cases: [(&[u8], Option<u16>); 6] = [
            (b"HTTP/1.1 200 OK\r\n", Some(200)),
            (b"HTTP/1.0 503 \r\nx", Some(503)),
            (b"HTTP/1.1 204\r\n", Some(204)),
            (b"HTTP/1.1 20\r\n", None),
            (b"SSH-2.0-x\r\n", None),
            (b"", None),
        ];
        for (answer, expected) in cases {
            assert_eq!(status(answer), expected);
        }
    }
}
