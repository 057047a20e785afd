//! The host's side: `bridge LINK SOCKET` waits for QEMU on the UNIX socket LINK, and serves the machine's control socket on SOCKET.

#![forbid(unsafe_code)]

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use bridge::{Link, carry};

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
    let (stream, _) = machine.accept().map_err(said)?;
    let link = Link::new(stream.try_clone().map_err(said)?, None);
    let opened = Arc::clone(&link);
    std::thread::spawn(move || {
        for client in clients.incoming().flatten() {
            opened.open(client);
        }
    });
    carry(&link, stream).map_err(said)
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
