//! A client in 50 lines, with nothing but the standard library: tells Coxswain from inside a container that it is ready.
//!
//! `ready [SOCKET]` posts the READY signal and ends with 0 when it was taken. With `-- COMMAND ...` after it, the command takes
//! this program's place once the signal was taken, so that a service can be started as `ready -- httpd -f`.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Duration;

const SOCKET: &str = "/run/coxswain/control.sock";

fn signal_ready(socket: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let body = r#"{"type":"ready","payload":""}"#;
    let length = body.len();
    write!(
        stream,
        "POST /signal HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.take(64 * 1024).read_to_string(&mut answer)?;
    Ok(answer)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (before, command) = match arguments.iter().position(|argument| argument == "--") {
        Some(at) => (&arguments[..at], &arguments[at + 1..]),
        None => (&arguments[..], &arguments[..0]),
    };
    let socket = before.first().map_or(SOCKET, String::as_str);
    match signal_ready(socket) {
        Ok(answer) if answer.starts_with("HTTP/1.1 200") => {}
        Ok(answer) => {
            eprintln!("ready: {socket} refused the signal: {answer}");
            return ExitCode::FAILURE;
        }
        Err(error) => {
            eprintln!("ready: cannot ask {socket}: {error}; is this container run by Coxswain?");
            return ExitCode::FAILURE;
        }
    }
    let Some((program, arguments)) = command.split_first() else {
        return ExitCode::SUCCESS;
    };
    let error = Command::new(program).args(arguments).exec();
    eprintln!("ready: cannot run {program}: {error}");
    ExitCode::FAILURE
}
