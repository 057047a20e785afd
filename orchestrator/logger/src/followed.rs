//! Log files that containers write by themselves: their new lines are taken, whatever becomes of the file.
//!
//! A thread of its own, because reading a file may wait for the disk. The kernel tells when a file grows; whether one appeared or was replaced
//! under its name is looked at every second, because no folder of a container is watched. Files are opened as the container sees them, and
//! only regular ones.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use linux::watch::FileWatch;

use crate::hub::{Channel, Hub};
use crate::limits;
use crate::queue::Origin;

/// All followed files of all sources.
#[derive(Debug, Clone)]
pub(crate) struct Followers {
    hub: Arc<Hub>,
    state: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    files: Vec<Followed>,
    running: bool,
}

#[derive(Debug)]
struct Followed {
    channel: Arc<Channel>,
    path: Arc<str>,
    truncate_bytes: Option<u64>,
    /// A file that is there when it is looked for first is old: only what comes after is new.
    seen: bool,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    watch: i32,
    /// Device and number.
    identity: (u64, u64),
    offset: u64,
    partial: Vec<u8>,
}

impl Followers {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        Self {
            hub,
            state: Arc::default(),
        }
    }

    /// Takes up the files of a source.
    pub(crate) fn follow(&self, channel: &Arc<Channel>) -> io::Result<()> {
        if channel.source.follow.is_empty() {
            return Ok(());
        }
        let mut shared = self.shared();
        let listed = channel.source.follow.iter();
        for (path, truncate_bytes) in listed.take(model::limits::FOLLOWED_FILES_MAX) {
            shared.files.push(Followed {
                channel: Arc::clone(channel),
                path: path.as_str().into(),
                truncate_bytes: *truncate_bytes,
                seen: false,
                open: None,
            });
        }
        if !shared.running {
            let (followers, watch) = (self.clone(), FileWatch::new()?);
            std::thread::Builder::new()
                .name("followers".to_owned())
                .stack_size(128 << 10)
                .spawn(move || followers.run(&watch))?;
            shared.running = true;
        }
        Ok(())
    }

    /// Takes the last lines of a source that has ended, and forgets it.
    pub(crate) fn drain(&self, name: &str) {
        let mut shared = self.shared();
        for followed in &mut shared.files {
            if followed.channel.name == name
                && let Some(open) = &mut followed.open
            {
                open.read(&self.hub, &followed.channel, &followed.path);
                open.cut(&self.hub, &followed.channel, &followed.path);
            }
        }
        shared
            .files
            .retain(|followed| followed.channel.name != name);
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, watch: &FileWatch) {
        let mut looked = None::<Instant>;
        loop {
            let look = looked.is_none_or(|at| at.elapsed() >= limits::FOLLOW_LOOK);
            if look {
                looked = Some(Instant::now());
            }
            let parent = self.hub.settings().cgroup_parent;
            let mut more = false;
            {
                let mut shared = self.shared();
                if shared.files.is_empty() {
                    shared.running = false;
                    return;
                }
                for followed in &mut shared.files {
                    if look {
                        followed.look(&self.hub, watch, &parent);
                    }
                    more |= followed.read(&self.hub);
                }
            }
            let pause = if more {
                Duration::from_millis(10)
            } else {
                limits::FOLLOW_LOOK
            };
            if watch.wait_at_most(pause).is_err() {
                std::thread::sleep(limits::FOLLOW_LOOK);
            }
            // Bounds the work that one container can cause.
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Followed {
    /// Opens the file that has the name now, when it is another one than before.
    fn look(&mut self, hub: &Hub, watch: &FileWatch, parent: &str) {
        let Some(pid) = hub.spool.pid(&self.channel.name) else {
            return;
        };
        let write = self.truncate_bytes.is_some();
        let found = linux::pipes::open_as_seen_by(pid, &self.path, write);
        // Looked at after the file was opened: the number may be another process' by now.
        let own = linux::cgroup::group_of(pid, parent);
        if !own.is_ok_and(|id| id.as_deref() == Some(self.channel.source.id.as_str())) {
            return;
        }
        let Ok(file) = found else {
            self.seen = true;
            return;
        };
        let Ok(metadata) = file.metadata() else {
            return;
        };
        let identity = (metadata.dev(), metadata.ino());
        if let Some(open) = &mut self.open {
            if open.identity == identity {
                return;
            }
            // It was replaced: the rest of the old one first.
            open.read(hub, &self.channel, &self.path);
            open.cut(hub, &self.channel, &self.path);
            watch.remove(open.watch);
        }
        let offset = if self.seen { 0 } else { metadata.len() };
        self.seen = true;
        match watch.add_open(&file) {
            Ok(watch) => {
                self.open = Some(Open {
                    file,
                    watch,
                    identity,
                    offset,
                    partial: Vec::new(),
                });
            }
            Err(error) => tracing::warn!(path = %self.path, %error, "cannot follow a log file"),
        }
    }

    /// Whether there may be more.
    fn read(&mut self, hub: &Hub) -> bool {
        let Some(open) = &mut self.open else {
            return false;
        };
        if self.channel.hold_up(Instant::now()) > Duration::ZERO {
            return true;
        }
        let more = open.read(hub, &self.channel, &self.path);
        if let Some(limit) = self.truncate_bytes
            && !more
            && open.offset >= limit
            && open.file.set_len(0).is_ok()
        {
            open.offset = 0;
        }
        more
    }
}

impl Open {
    /// Takes what is new; whether there may be more.
    fn read(&mut self, hub: &Hub, channel: &Channel, path: &Arc<str>) -> bool {
        let Ok(length) = self.file.seek(SeekFrom::End(0)) else {
            return false;
        };
        if length < self.offset {
            // It was emptied.
            self.cut(hub, channel, path);
            self.offset = 0;
        }
        let mut buffer = vec![0; limits::PIECE_BYTES];
        let mut taken = 0;
        while taken < limits::FOLLOW_BYTES {
            let count = match self.file.read_at(&mut buffer, self.offset) {
                Ok(0) | Err(_) => return false,
                Ok(count) => count,
            };
            self.offset += count as u64;
            taken += count;
            self.partial.extend_from_slice(&buffer[..count]);
            let end = self.partial.iter().rposition(|byte| *byte == b'\n');
            if let Some(end) = end {
                let rest = self.partial.split_off(end + 1);
                let lines = std::mem::replace(&mut self.partial, rest);
                hub.push(channel, Origin::File(Arc::clone(path)), lines);
            } else if self.partial.len() >= limits::LINE_BYTES_MAX {
                self.cut(hub, channel, path);
            }
        }
        true
    }

    fn cut(&mut self, hub: &Hub, channel: &Channel, path: &Arc<str>) {
        let rest = std::mem::take(&mut self.partial);
        hub.push(channel, Origin::File(Arc::clone(path)), rest);
    }
}
