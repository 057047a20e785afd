//! Runs inside containers of the acceptance tests and asks the control socket what a test tells it to.
//!
//! `inside AGENT` listens on the socket AGENT, in a volume that the test sees too. Each connection begins with a line: `ask` (ask by a
//! connection of our own), `orphan` (by one whose process has ended), `lend` (give such a connection to the test), `borrow` (take one
//! from it). What follows up to the end is sent, what is answered is given back. `inside once SOCKET` asks what stands on its
//! standard input; `inside orphan` is a part of `orphan`.
//!
//! `inside say SOCKET` sends its standard input and waits until it was taken; `inside log SOCKET` sends it as one datagram. `inside flood
//! RATE SECONDS` writes numbered lines, RATE MB of them a second, and says at last how long one write took at most. `inside drive` is
//! a busy client of a whole device, `inside settle` waits until one has settled ([`drive`]).

mod drive;

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

const CONTROL: &str = "/run/coxswain/control.sock";
/// Longer than anything takes, so that a test fails by what it sees and not by us.
const PATIENCE: Duration = Duration::from_secs(60);
/// A stream without an end has been seen when it says nothing for so long after its head.
const SILENCE: Duration = Duration::from_millis(300);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["orphan"] => orphan(),
        ["once", socket] => once(socket),
        ["say", socket] => say(socket),
        ["log", socket] => log(socket),
        ["flood", rate, seconds] => flood(rate, seconds),
        ["settle"] => drive::settle(CONTROL),
        ["drive", folder, session, first, updates] => {
            drive::drive(CONTROL, folder, [session, first, updates])
        }
        [agent] => serve(agent),
        _ => Err(io::Error::other("see the head of its source")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("inside: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(agent: &str) -> io::Result<()> {
    // Left by an earlier start.
    drop(std::fs::remove_file(agent));
    let listener = UnixListener::bind(agent)?;
    for test in listener.incoming() {
        if let Err(error) = test.and_then(carry_out) {
            eprintln!("inside: {error}");
        }
    }
    Ok(())
}

fn carry_out(mut test: UnixStream) -> io::Result<()> {
    let mut order = Vec::new();
    let mut byte = [0];
    while test.read(&mut byte)? == 1 && byte != *b"\n" {
        order.push(byte[0]);
    }
    match &order[..] {
        b"ask" => {
            let control = UnixStream::connect(CONTROL)?;
            exchange(&control, &test)
        }
        b"borrow" => {
            let control = receive(&test)?;
            exchange(&UnixStream::from(control), &test)
        }
        b"lend" => send(&test, &UnixStream::connect(CONTROL)?),
        b"orphan" => {
            // It connects, leaves the connection to a child, and ends: when it is reaped its number is free.
            let (input, output) = (test.try_clone()?, test.try_clone()?);
            let status = Command::new("/proc/self/exe")
                .arg("orphan")
                .stdin(OwnedFd::from(input))
                .stdout(OwnedFd::from(output))
                .status()?;
            test.write_all(if status.success() {
                b"gone\n"
            } else {
                b"lost\n"
            })
        }
        _ => Err(io::Error::other("no such order")),
    }
}

/// Connects and starts `once` with the connection as its standard error, which is not waited for.
#[allow(clippy::zombie_processes, reason = "to outlive us is what it is for")]
fn orphan() -> io::Result<()> {
    let control = UnixStream::connect(CONTROL)?;
    Command::new("/proc/self/exe")
        .args(["once", "-"])
        .stderr(OwnedFd::from(control))
        .spawn()?;
    Ok(())
}

fn once(socket: &str) -> io::Result<()> {
    let test = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut request = Vec::new();
    (&test).read_to_end(&mut request)?;
    let control = match socket {
        "-" => UnixStream::from(io::stderr().as_fd().try_clone_to_owned()?),
        socket => UnixStream::connect(socket)?,
    };
    let answer = ask(&control, &request)?;
    io::stdout().write_all(&answer)?;
    io::stdout().flush()
}

fn say(socket: &str) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    io::copy(&mut io::stdin(), &mut stream)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    // Who has ended when it is asked who connected is nobody.
    io::copy(&mut stream, &mut io::sink()).map(drop)
}

fn log(socket: &str) -> io::Result<()> {
    let mut message = Vec::new();
    io::stdin().read_to_end(&mut message)?;
    UnixDatagram::unbound()?.send_to(&message, socket).map(drop)
}

fn flood(rate: &str, seconds: &str) -> io::Result<()> {
    let number = |text: &str| text.parse::<u32>().map_err(io::Error::other);
    let (rate, seconds) = (number(rate)?, number(seconds)?);
    // Ten thousand lines of a hundred bytes are a megabyte.
    let mut piece: Vec<u8> = (0..10_000)
        .flat_map(|_| format!("line 0000000000 {}\n", "x".repeat(83)).into_bytes())
        .collect();
    let begin = Instant::now();
    let (mut longest, mut line) = (Duration::ZERO, 0_u64);
    for megabyte in 0..rate * seconds {
        for text in piece.chunks_exact_mut(100) {
            line += 1;
            let mut rest = line;
            for digit in text[5..15].iter_mut().rev() {
                *digit = b'0' + u8::try_from(rest % 10).unwrap_or_default();
                rest /= 10;
            }
        }
        let started = Instant::now();
        io::stdout().write_all(&piece)?;
        longest = longest.max(started.elapsed());
        let due = Duration::from_secs(1) * (megabyte + 1) / rate;
        std::thread::sleep(due.saturating_sub(begin.elapsed()));
    }
    let (took, longest) = (begin.elapsed().as_millis(), longest.as_millis());
    println!("flood: {line} lines, {took} ms, longest write {longest} ms");
    io::stdout().flush()
}

fn exchange(control: &UnixStream, mut test: &UnixStream) -> io::Result<()> {
    let mut request = Vec::new();
    test.read_to_end(&mut request)?;
    test.write_all(&ask(control, &request)?)
}

/// Sends, half-closes, and reads to the end, or to the silence of a stream that has none.
fn ask(mut control: &UnixStream, request: &[u8]) -> io::Result<Vec<u8>> {
    control.set_read_timeout(Some(PATIENCE))?;
    control.write_all(request)?;
    control.shutdown(std::net::Shutdown::Write)?;
    let mut answer = Vec::new();
    let mut piece = [0; 16 << 10];
    loop {
        match control.read(&mut piece) {
            Ok(0) => return Ok(answer),
            Ok(length) => answer.extend_from_slice(piece.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !answer.is_empty() => {
                return Ok(answer);
            }
            Err(error) => return Err(error),
        }
        if answer.windows(4).any(|part| part == b"\r\n\r\n") {
            control.set_read_timeout(Some(SILENCE))?;
        }
    }
}

fn send(test: &UnixStream, lent: &UnixStream) -> io::Result<()> {
    let fds = [lent.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    rustix::net::sendmsg(
        test,
        &[IoSlice::new(b".")],
        &mut control,
        SendFlags::empty(),
    )?;
    Ok(())
}

fn receive(test: &UnixStream) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    rustix::net::recvmsg(test, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message
            && let Some(fd) = fds.next()
        {
            return Ok(fd);
        }
    }
    Err(io::Error::other("no descriptor came"))
}
