//! One side of the stream: a thread reads frames, two threads serve each channel.
//!
//! The reading thread never waits for a channel: what a channel may still be sent is bounded by its window, so its queue is too.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::frame::{Frame, Kind, PAYLOAD_MAX};

/// Bytes on their way in one channel and direction.
const WINDOW: u32 = 64 << 10;
/// Channels at one time.
const CHANNELS_MAX: usize = 64;

/// What a side does with a channel that the other one opens.
pub type Connect = Box<dyn Fn() -> io::Result<UnixStream> + Send + Sync>;

/// One side of the stream.
pub struct Link {
    writer: Mutex<Box<dyn Write + Send>>,
    channels: Mutex<BTreeMap<u32, Channel>>,
    /// This side's life: its hello has this number.
    life: u32,
    /// The other side's.
    other: Mutex<Option<u32>>,
    /// The other side has answered this side's hello; what came before was meant for whoever was here before.
    is_up: AtomicBool,
    next: AtomicU32,
    connect: Option<Connect>,
}

struct Channel {
    socket: UnixStream,
    to_socket: Sender<Incoming>,
    window: Arc<Window>,
    /// How many of the two directions have ended.
    ended: u8,
}

enum Incoming {
    Data(Vec<u8>),
    End,
}

/// What may still be sent.
struct Window {
    left: Mutex<Option<u32>>,
    changed: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Window {
    /// Waits until something may be sent; `None` when the channel is gone.
    fn wait(&self) -> Option<u32> {
        let mut left = lock(&self.left);
        while *left == Some(0) {
            left = self
                .changed
                .wait(left)
                .unwrap_or_else(PoisonError::into_inner);
        }
        *left
    }

    fn change(&self, change: impl FnOnce(u32) -> Option<u32>) {
        let mut left = lock(&self.left);
        *left = left.and_then(change);
        self.changed.notify_all();
    }
}

impl Link {
    /// A side that writes here. With `connect` the other side may open channels.
    pub fn new(writer: impl Write + Send + 'static, connect: Option<Connect>) -> Arc<Self> {
        Arc::new(Self {
            writer: Mutex::new(Box::new(writer)),
            channels: Mutex::default(),
            life: (RandomState::new().hash_one(()) >> 32)
                .try_into()
                .expect("32 bits are left"),
            other: Mutex::default(),
            is_up: AtomicBool::new(false),
            // Frames of a side that was there before must not fit ours.
            next: AtomicU32::new(std::process::id().wrapping_mul(1 << 16) | 1),
            connect,
        })
    }

    /// Opens a channel for a connection. It is dropped when the other side is not there, or there are too many.
    pub fn open(self: &Arc<Self>, socket: UnixStream) {
        if self.is_up.load(Ordering::SeqCst) {
            let number = self.next.fetch_add(1, Ordering::SeqCst);
            self.start(number, socket, true);
        }
    }

    fn send(&self, channel: u32, kind: Kind) {
        let bytes = Frame { channel, kind }.encode();
        let mut writer = lock(&self.writer);
        // A stream that is gone ends the thread that reads, and with it every channel.
        drop(writer.write_all(&bytes).and_then(|()| writer.flush()));
    }

    fn start(self: &Arc<Self>, number: u32, socket: UnixStream, is_ours: bool) {
        let (Ok(reader), Ok(writer)) = (socket.try_clone(), socket.try_clone()) else {
            return self.send(number, Kind::Close);
        };
        let (to_socket, from_link) = channel();
        let window = Arc::new(Window {
            left: Mutex::new(Some(WINDOW)),
            changed: Condvar::new(),
        });
        let entry = Channel {
            socket,
            to_socket,
            window: Arc::clone(&window),
            ended: 0,
        };
        {
            let mut channels = lock(&self.channels);
            if channels.len() >= CHANNELS_MAX {
                drop(channels);
                return self.send(number, Kind::Close);
            }
            channels.insert(number, entry);
        }
        if is_ours {
            self.send(number, Kind::Open);
        }
        let link = Arc::clone(self);
        thread::spawn(move || link.pump_socket(number, reader, &window));
        let link = Arc::clone(self);
        thread::spawn(move || link.pump_link(number, writer, &from_link));
    }

    fn pump_socket(&self, number: u32, mut socket: UnixStream, window: &Window) {
        let mut buffer = vec![0; PAYLOAD_MAX];
        while let Some(left) = window.wait() {
            let room = buffer
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            match socket.read(&mut buffer[..room]) {
                Ok(0) => {
                    self.send(number, Kind::End);
                    return self.direction_ended(number);
                }
                Ok(count) => {
                    let sent = u32::try_from(count).expect("a payload is short");
                    window.change(|left| Some(left.saturating_sub(sent)));
                    self.send(number, Kind::Data(buffer[..count].to_vec()));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.close(number, true),
            }
        }
    }

    fn pump_link(&self, number: u32, mut socket: UnixStream, from_link: &Receiver<Incoming>) {
        // The queue ends with its channel.
        while let Ok(incoming) = from_link.recv() {
            match incoming {
                Incoming::Data(bytes) => {
                    if socket.write_all(&bytes).is_err() {
                        return self.close(number, true);
                    }
                    let taken = u32::try_from(bytes.len()).expect("a payload is short");
                    self.send(number, Kind::Taken(taken));
                }
                Incoming::End => {
                    // A socket that is gone needs no end.
                    socket.shutdown(Shutdown::Write).ok();
                    return self.direction_ended(number);
                }
            }
        }
    }

    fn direction_ended(&self, number: u32) {
        let mut channels = lock(&self.channels);
        if let Some(channel) = channels.get_mut(&number) {
            channel.ended += 1;
            if channel.ended == 2 {
                channels.remove(&number);
            }
        }
    }

    fn close(&self, number: u32, tell: bool) {
        if let Some(channel) = lock(&self.channels).remove(&number) {
            channel.end();
            if tell {
                self.send(number, Kind::Close);
            }
        }
    }

    fn take(self: &Arc<Self>, frame: Frame) {
        let Frame { channel, kind } = frame;
        match kind {
            Kind::Hello => {
                let is_new = lock(&self.other).replace(channel) != Some(channel);
                if is_new {
                    self.is_up.store(false, Ordering::SeqCst);
                }
                self.send(channel, Kind::Welcome);
                if is_new {
                    // What was opened before the answer was not seen there.
                    self.end_channels();
                }
                // Ours may have come before there was anybody.
                if !self.is_up.load(Ordering::SeqCst) {
                    self.send(self.life, Kind::Hello);
                }
            }
            Kind::Welcome => {
                if channel == self.life {
                    self.is_up.store(true, Ordering::SeqCst);
                }
            }
            // Of the time before this side has started.
            _ if !self.is_up.load(Ordering::SeqCst) => {}
            Kind::Open => match self.connect.as_ref().map(|connect| connect()) {
                Some(Ok(socket)) => self.start(channel, socket, false),
                Some(Err(_)) | None => self.send(channel, Kind::Close),
            },
            Kind::Close => self.close(channel, false),
            Kind::Data(bytes) => self.queue(channel, Incoming::Data(bytes)),
            Kind::End => self.queue(channel, Incoming::End),
            Kind::Taken(count) => {
                if let Some(channel) = lock(&self.channels).get(&channel) {
                    let change = |left: u32| Some(left.saturating_add(count).min(WINDOW));
                    channel.window.change(change);
                }
            }
        }
    }

    fn queue(&self, number: u32, incoming: Incoming) {
        if let Some(channel) = lock(&self.channels).get(&number) {
            // Who would take it has just ended the channel.
            drop(channel.to_socket.send(incoming));
        }
    }

    fn end_channels(&self) {
        for channel in std::mem::take(&mut *lock(&self.channels)).into_values() {
            channel.end();
        }
    }
}

impl Channel {
    fn end(&self) {
        self.window.change(|_| None);
        // It may be gone already.
        self.socket.shutdown(Shutdown::Both).ok();
    }
}

/// Greets, then carries until the stream ends.
///
/// # Errors
/// The stream's own.
pub fn carry(link: &Arc<Link>, mut stream: impl Read) -> io::Result<()> {
    link.send(link.life, Kind::Hello);
    let ended = loop {
        match Frame::read(&mut stream) {
            Ok(Some(frame)) => link.take(frame),
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    link.is_up.store(false, Ordering::SeqCst);
    link.end_channels();
    ended
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::path::Path;
    use std::time::{Duration, Instant};

    /// A server that sends back what it gets, and its own end.
    fn echo(path: &Path) {
        let listener = UnixListener::bind(path).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                thread::spawn(move || {
                    let mut copy = stream.try_clone().unwrap();
                    io::copy(&mut stream, &mut copy).ok();
                    copy.write_all(b"!").ok();
                });
            }
        });
    }

    fn machine(path: &Path, stream: UnixStream) {
        let path = path.to_owned();
        let connect: Connect = Box::new(move || UnixStream::connect(&path));
        let link = Link::new(stream.try_clone().unwrap(), Some(connect));
        thread::spawn(move || carry(&link, stream).ok());
    }

    fn host(stream: UnixStream) -> Arc<Link> {
        let link = Link::new(stream.try_clone().unwrap(), None);
        let carried = Arc::clone(&link);
        thread::spawn(move || carry(&carried, stream).ok());
        link
    }

    fn connected(link: &Arc<Link>) -> UnixStream {
        let end = Instant::now() + Duration::from_secs(20);
        while !link.is_up.load(Ordering::SeqCst) {
            assert!(Instant::now() < end, "no greeting came");
            thread::sleep(Duration::from_millis(1));
        }
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        link.open(theirs);
        ours
    }

    fn asked(stream: &mut UnixStream, bytes: &[u8]) -> Vec<u8> {
        let mut answer = Vec::new();
        let mut reader = stream.try_clone().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                stream.write_all(bytes).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
            });
            reader.read_to_end(&mut answer).unwrap();
        });
        answer
    }

    #[test]
    fn connections_are_carried_with_their_ends_and_do_not_hold_each_other_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        echo(&path);
        let (one, other) = UnixStream::pair().unwrap();
        machine(&path, other);
        let link = host(one);
        // One that sends and never reads fills its window, and no more.
        let mut silent = connected(&link);
        silent
            .set_write_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        let filled = std::iter::repeat_with(|| silent.write(&[1; 4096]).ok());
        let sent: usize = filled.map_while(|count| count).sum();
        assert!(sent < 8 << 20, "{sent}");
        for size in [0, 1, 100_000, 3_000_000] {
            let bytes: Vec<u8> = (0..size).map(|n: u32| (n % 251) as u8).collect();
            let answer = asked(&mut connected(&link), &bytes);
            assert_eq!(answer.len(), bytes.len() + 1);
            assert_eq!(answer[..bytes.len()], bytes);
        }
        drop(silent);
        let end = Instant::now() + Duration::from_secs(20);
        while !lock(&link.channels).is_empty() {
            assert!(Instant::now() < end, "a channel is left");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_machine_that_starts_again_ends_what_was_open_and_is_reached_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        echo(&path);
        let (one, other) = UnixStream::pair().unwrap();
        let mut cut = other.try_clone().unwrap();
        let link = host(one);
        // The machine before: it greets and is greeted, then dies within a frame.
        let hello = Frame::read(&mut cut).unwrap().expect("a greeting");
        assert_eq!(hello.kind, Kind::Hello);
        for (channel, kind) in [(77, Kind::Hello), (hello.channel, Kind::Welcome)] {
            cut.write_all(&Frame { channel, kind }.encode()).unwrap();
        }
        let mut open = connected(&link);
        let half = Frame {
            channel: 1,
            kind: Kind::Data(vec![9; 5000]),
        }
        .encode();
        cut.write_all(&half[..3000]).unwrap();
        machine(&path, other);
        let mut rest = Vec::new();
        open.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"", "half a frame is nothing");
        assert_eq!(asked(&mut connected(&link), b"hello"), b"hello!");
    }

    #[test]
    fn without_a_machine_connections_end_at_once() {
        let (one, _other) = UnixStream::pair().unwrap();
        let link = host(one);
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        link.open(theirs);
        assert_eq!(ours.read(&mut [0; 1]).unwrap(), 0);
    }
}
