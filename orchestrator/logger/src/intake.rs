//! Takes what containers write, and never waits for the disk: pipes, `/dev/log` sockets and Pantavisor's log socket, on one thread.
//!
//! A source whose queue is full is not read for a moment, which holds its container up; then it is read all the same, at the cost of its
//! oldest lines. No source can keep another one from being read: each has its turn, of a bounded size.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use linux::watch::FileWatch;

use crate::followed::Followers;
use crate::hub::{Channel, Hub};
use crate::limits;
use crate::queue::Origin;

/// The pipes and the socket of one source.
#[derive(Debug)]
struct Source {
    channel: Arc<Channel>,
    stdout: Option<Pipe>,
    stderr: Option<Pipe>,
    dev_log: Option<UnixDatagram>,
    ending_since: Option<Instant>,
}

#[derive(Debug)]
struct Pipe {
    file: File,
    origin: Origin,
    /// The beginning of a line whose end has not come.
    partial: Vec<u8>,
}

/// A message that comes in on Pantavisor's log socket.
#[derive(Debug)]
struct Message {
    stream: UnixStream,
    channel: Arc<Channel>,
    bytes: Vec<u8>,
    until: Instant,
}

/// What can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ready {
    Woken,
    Spool,
    Control,
    Message(usize),
    Stdout(String),
    Stderr(String),
    DevLog(String),
}

/// The thread that takes what comes.
#[derive(Debug)]
pub(crate) struct Intake {
    hub: Arc<Hub>,
    /// `None` when the kernel has no more of them: a container may have taken all. Then the spool is looked at more often.
    watch: Option<FileWatch>,
    sources: BTreeMap<String, Source>,
    control: Option<UnixListener>,
    messages: Vec<Message>,
    followers: Followers,
    buffer: Vec<u8>,
    idle_since: Option<Instant>,
    looked: Instant,
    /// Sources that could not be opened, and that this was told once.
    waiting_for: BTreeSet<String>,
}

impl Intake {
    pub(crate) fn new(hub: Arc<Hub>) -> io::Result<Self> {
        let watch = FileWatch::new().and_then(|watch| {
            watch.add_folder(hub.spool.folder())?;
            Ok(watch)
        });
        if let Err(error) = &watch {
            tracing::warn!(%error, "the kernel does not tell of new containers; looking for them instead");
        }
        let control = hub.settings().control_socket;
        let control = control.and_then(|path| match listen(&path) {
            Ok(listener) => Some(listener),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "no log socket for Pantavisor's clients");
                None
            }
        });
        Ok(Self {
            followers: Followers::new(Arc::clone(&hub)),
            hub,
            watch: watch.ok(),
            sources: BTreeMap::new(),
            control,
            messages: Vec::new(),
            buffer: vec![0; limits::PIECE_BYTES],
            idle_since: None,
            looked: Instant::now(),
            waiting_for: BTreeSet::new(),
        })
    }

    /// Runs until there has been no source for a while, or the spool is gone.
    pub(crate) fn run(mut self) -> io::Result<()> {
        self.look()?;
        loop {
            let now = Instant::now();
            if !self.hub.spool.folder().is_dir() || self.is_idle(now) {
                return Ok(());
            }
            let (ready, timeout) = self.waiting(now);
            let readers: Vec<_> = ready.iter().map(|(_, fd)| *fd).collect();
            let found = linux::pipes::wait(&readers, timeout)?;
            let found: Vec<Ready> = found
                .into_iter()
                .filter_map(|index| ready.get(index).map(|(ready, _)| ready.clone()))
                .collect();
            // The last first, so that numbers of messages stay true when one ends.
            for ready in found.into_iter().rev() {
                self.take(&ready)?;
            }
            let now = Instant::now();
            if now.saturating_duration_since(self.looked) >= self.look_again() {
                self.look()?;
            }
            self.end_what_is_due(now);
        }
    }

    /// After which time the spool is looked at although nobody told of a change.
    fn look_again(&self) -> Duration {
        if self.watch.is_none() || !self.waiting_for.is_empty() {
            limits::LOOK_WITHOUT_WATCH
        } else {
            limits::LOOK
        }
    }

    fn is_idle(&mut self, now: Instant) -> bool {
        if !self.sources.is_empty() || !self.hub.channels().is_empty() {
            self.idle_since = None;
            return false;
        }
        let since = *self.idle_since.get_or_insert(now);
        now.saturating_duration_since(since) >= limits::IDLE
    }

    /// What is waited for, and how long at most.
    fn waiting(&self, now: Instant) -> (Vec<(Ready, BorrowedFd<'_>)>, Option<Duration>) {
        let mut waiting = vec![(Ready::Woken, self.hub.intake.as_fd())];
        if let Some(watch) = &self.watch {
            waiting.push((Ready::Spool, watch.as_fd()));
        }
        let mut timeout = self.look_again();
        if self.idle_since.is_some() {
            timeout = timeout.min(limits::IDLE);
        }
        let mut sooner = |time: Duration| timeout = timeout.min(time);
        if let Some(control) = &self.control
            && self.messages.len() < limits::CONNECTIONS_MAX
        {
            waiting.push((Ready::Control, control.as_fd()));
        }
        for (number, message) in self.messages.iter().enumerate() {
            waiting.push((Ready::Message(number), message.stream.as_fd()));
            sooner(message.until.saturating_duration_since(now));
        }
        for (name, source) in &self.sources {
            if let Some(since) = source.ending_since {
                let due = since + limits::END_PATIENCE;
                sooner(due.saturating_duration_since(now));
            }
            let held = source.channel.hold_up(now);
            if held > Duration::ZERO {
                sooner(held);
                continue;
            }
            if let Some(pipe) = &source.stdout {
                waiting.push((Ready::Stdout(name.clone()), pipe.file.as_fd()));
            }
            if let Some(pipe) = &source.stderr {
                waiting.push((Ready::Stderr(name.clone()), pipe.file.as_fd()));
            }
            if let Some(socket) = &source.dev_log {
                waiting.push((Ready::DevLog(name.clone()), socket.as_fd()));
            }
        }
        (waiting, Some(timeout))
    }

    fn take(&mut self, ready: &Ready) -> io::Result<()> {
        match ready {
            Ready::Woken => {
                self.hub.intake.clear();
                if self.hub.has_forgotten() {
                    self.look()?;
                }
            }
            Ready::Spool => {
                if let Some(watch) = &self.watch {
                    watch.wait()?;
                }
                self.look()?;
            }
            Ready::Control => self.accept(),
            Ready::Message(number) => self.read_message(*number),
            Ready::Stdout(name) | Ready::Stderr(name) | Ready::DevLog(name) => {
                if let Some(source) = self.sources.get_mut(name) {
                    match ready {
                        Ready::Stdout(_) => source.read_stdout(&self.hub, &mut self.buffer),
                        Ready::Stderr(_) => source.read_stderr(&self.hub, &mut self.buffer),
                        Ready::DevLog(_) => source.read_dev_log(&self.hub, &mut self.buffer),
                        Ready::Woken | Ready::Spool | Ready::Control | Ready::Message(_) => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes up what is new in the spool, and sees what has ended.
    fn look(&mut self) -> io::Result<()> {
        self.looked = Instant::now();
        match self.hub.spool.settings() {
            Ok(settings) => self.hub.set_settings(settings),
            // Being written anew, or the spool is being removed.
            Err(error) => tracing::debug!(%error, "settings of the logs"),
        }
        self.waiting_for
            .retain(|name| self.hub.spool.is_there(name));
        for name in self.hub.spool.names() {
            let known = self.sources.contains_key(&name) || self.hub.get(&name).is_some();
            if !known && self.sources.len() < limits::SOURCES_MAX {
                self.take_up(&name)?;
            }
            if let Some(source) = self.sources.get_mut(&name)
                && source.ending_since.is_none()
                && self.hub.spool.has_ended(&name)
            {
                source.ending_since = Some(Instant::now());
            }
        }
        Ok(())
    }

    /// Takes a source up. One that cannot be opened now is tried again as long as its container runs: without a reader, that would be held up
    /// for good.
    fn take_up(&mut self, name: &str) -> io::Result<()> {
        match self.open(name) {
            Ok(source) => {
                self.waiting_for.remove(name);
                if let Err(error) = self.followers.follow(&source.channel) {
                    tracing::warn!(source = name, %error, "its log files are not followed");
                }
                self.sources.insert(name.to_owned(), source);
            }
            Err(error) => {
                if self.waiting_for.insert(name.to_owned()) {
                    tracing::warn!(source = name, %error, "a source of logs cannot be read; it is tried again");
                }
                if self.hub.spool.has_ended(name) {
                    self.waiting_for.remove(name);
                    self.hub.spool.remove(name)?;
                }
            }
        }
        Ok(())
    }

    fn open(&self, name: &str) -> io::Result<Source> {
        let spool = &self.hub.spool;
        let description = spool.read(name)?;
        let pipe = |path: &Path, origin| {
            Ok::<_, io::Error>(Pipe {
                file: linux::pipes::open_to_read(path)?,
                origin,
                partial: Vec::new(),
            })
        };
        let stdout = pipe(&spool.stdout(name), Origin::Stdout)?;
        let stderr = pipe(&spool.stderr(name), Origin::Stderr)?;
        let dev_log = if description.dev_log {
            Some(bind(&spool.dev_log(name))?)
        } else {
            None
        };
        Ok(Source {
            channel: self.hub.add(name.to_owned(), description),
            stdout: Some(stdout),
            stderr: Some(stderr),
            dev_log,
            ending_since: None,
        })
    }

    /// Closes sources whose container has ended and whose pipes were read to their end.
    fn end_what_is_due(&mut self, now: Instant) {
        let mut due = Vec::new();
        for (name, source) in &self.sources {
            let Some(since) = source.ending_since else {
                continue;
            };
            let read = source.stdout.is_none() && source.stderr.is_none();
            if read || now.saturating_duration_since(since) >= limits::END_PATIENCE {
                due.push(name.clone());
            }
        }
        for name in due {
            if let Some(mut source) = self.sources.remove(&name) {
                source.drain(&self.hub, &mut self.buffer);
                self.followers.drain(&name);
                self.hub.close(&source.channel);
            }
        }
        let hub = &self.hub;
        self.messages.retain_mut(|message| {
            let late = message.until <= now;
            if late {
                message.finish(hub);
            }
            !late
        });
    }

    fn accept(&mut self) {
        let Some(control) = &self.control else { return };
        let Ok((stream, _)) = control.accept() else {
            return;
        };
        let parent = self.hub.settings().cgroup_parent;
        let channel = linux::peer::pid_of(&stream)
            .and_then(|pid| linux::cgroup::group_of(pid, &parent).ok()?)
            .and_then(|id| self.hub.of_group(&id));
        // Who is no container of ours has no log.
        if let Some(channel) = channel
            && stream.set_nonblocking(true).is_ok()
        {
            self.messages.push(Message {
                stream,
                channel,
                bytes: Vec::new(),
                until: Instant::now() + limits::MESSAGE_PATIENCE,
            });
        }
    }

    fn read_message(&mut self, number: usize) {
        let Some(message) = self.messages.get_mut(number) else {
            return;
        };
        let room = limits::MESSAGE_BYTES_MAX.saturating_sub(message.bytes.len());
        let length = self.buffer.len().min(room);
        let ended = match message.stream.read(&mut self.buffer[..length]) {
            Ok(0) => true,
            Ok(count) => {
                message.bytes.extend_from_slice(&self.buffer[..count]);
                false
            }
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        };
        if ended {
            message.finish(&self.hub);
            self.messages.remove(number);
        }
    }
}

impl Message {
    fn finish(&mut self, hub: &Hub) {
        hub.push(
            &self.channel,
            Origin::Control,
            std::mem::take(&mut self.bytes),
        );
    }
}

impl Source {
    fn read_stdout(&mut self, hub: &Hub, buffer: &mut [u8]) {
        if let Some(pipe) = &mut self.stdout
            && pipe.read(hub, &self.channel, buffer) == Read::Ended
        {
            self.stdout = None;
        }
    }

    fn read_stderr(&mut self, hub: &Hub, buffer: &mut [u8]) {
        if let Some(pipe) = &mut self.stderr
            && pipe.read(hub, &self.channel, buffer) == Read::Ended
        {
            self.stderr = None;
        }
    }

    fn read_dev_log(&mut self, hub: &Hub, buffer: &mut [u8]) {
        let Some(socket) = &self.dev_log else { return };
        let length = buffer.len().min(limits::DATAGRAM_BYTES_MAX);
        for _ in 0..limits::DATAGRAMS_AT_ONCE {
            match socket.recv(&mut buffer[..length]) {
                Ok(count) => hub.push(&self.channel, Origin::Syslog, buffer[..count].to_vec()),
                // Nothing more now.
                Err(_) => return,
            }
        }
    }

    /// Reads what is there, to the end, but not for ever: a process that was left behind may go on writing.
    fn drain(&mut self, hub: &Hub, buffer: &mut [u8]) {
        const TURNS: usize = 32;
        for pipe in [&mut self.stdout, &mut self.stderr].into_iter().flatten() {
            for _ in 0..TURNS {
                if pipe.read(hub, &self.channel, buffer) != Read::Some {
                    break;
                }
            }
            pipe.cut(hub, &self.channel);
        }
        (self.stdout, self.stderr) = (None, None);
        self.read_dev_log(hub, buffer);
    }
}

/// What came of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Read {
    Some,
    Nothing,
    Ended,
}

impl Pipe {
    fn read(&mut self, hub: &Hub, channel: &Channel, buffer: &mut [u8]) -> Read {
        match self.file.read(buffer) {
            Ok(0) => {
                self.cut(hub, channel);
                Read::Ended
            }
            Ok(count) => {
                self.queue(hub, channel, &buffer[..count]);
                Read::Some
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Read::Nothing,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Read::Nothing,
            Err(_) => Read::Ended,
        }
    }

    /// Queues whole lines; the beginning of the next one waits for its end, if that comes soon enough.
    fn queue(&mut self, hub: &Hub, channel: &Channel, bytes: &[u8]) {
        let end = bytes.iter().rposition(|byte| *byte == b'\n');
        let (lines, rest) = bytes.split_at(end.map_or(0, |end| end + 1));
        if !lines.is_empty() {
            let mut block = std::mem::take(&mut self.partial);
            block.reserve_exact(lines.len());
            block.extend_from_slice(lines);
            hub.push(channel, self.origin.clone(), block);
        }
        self.partial.extend_from_slice(rest);
        if self.partial.len() >= limits::LINE_BYTES_MAX {
            self.cut(hub, channel);
        }
    }

    /// What has come of a line is a line.
    fn cut(&mut self, hub: &Hub, channel: &Channel) {
        hub.push(
            channel,
            self.origin.clone(),
            std::mem::take(&mut self.partial),
        );
    }
}

fn bind(path: &Path) -> io::Result<UnixDatagram> {
    // Of a process before this one; containers that run keep the old one, which nobody reads any more.
    fs::remove_file(path).ok();
    let socket = UnixDatagram::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o666))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Binds under another name and renames, so that the path always has a socket.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let early = path.with_extension("new");
    fs::remove_file(&early).ok();
    let listener = UnixListener::bind(&early)?;
    fs::set_permissions(&early, Permissions::from_mode(0o666))?;
    listener.set_nonblocking(true)?;
    fs::rename(&early, path)?;
    Ok(listener)
}
