//! The host's side: `bridge LINK SOCKET` waits for QEMU on the UNIX socket LINK, and serves the machine's control socket on SOCKET.

#![forbid(unsafe_code)]

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bridge::{Link, carry};

/// How long QEMU may take to connect.
const WAIT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(link), Some(socket), None) = (arguments.next(), arguments.next(), arguments.next())
    else {
        eprintln!("usage: bridge LINK SOCKET");
        return ExitCode::from(2);
    };
    match run(&link, &socket) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bridge: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(link: &Path, socket: &Path) -> Result<(), String> {
    let machine = listen(link)?;
    let clients = listen(socket)?;
    let said = |error: std::io::Error| format!("the connection of QEMU: {error}");
    let stream = accept(&machine).map_err(said)?;
    let link = Link::new(stream.try_clone().map_err(said)?, None);
    let opened = Arc::clone(&link);
    std::thread::spawn(move || {
        for client in clients.incoming().flatten() {
            opened.open(client);
        }
    });
    carry(&link, stream).map_err(said)
}

/// Waits for the one connection, and not for ever: whoever should make it may have failed to start.
fn accept(listener: &UnixListener) -> std::io::Result<UnixStream> {
    listener.set_nonblocking(true)?;
    let end = Instant::now() + WAIT;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => return Err(error),
        }
    }
}

/// Only whoever runs the machine may operate it.
fn listen(path: &Path) -> Result<UnixListener, String> {
    let failed = |error: std::io::Error| format!("cannot listen on {}: {error}", path.display());
    // Of a run before.
    std::fs::remove_file(path).ok();
    let listener = UnixListener::bind(path).map_err(failed)?;
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, mode).map_err(failed)?;
    Ok(listener)
}
