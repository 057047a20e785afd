//! Other programs that our own init keeps running beside containerd: one a line in `/etc/coxswain/daemons`, as `NAME PROGRAM ARGUMENT...`.
//!
//! What ends is started again, after a pause that grows. `GET /daemons` lists them, and who may operate the device stops and starts
//! them. They end with the machine, after the containers. Under another init there are none: that one has its own.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use api::messages::pantavisor::Daemon;

/// The list.
pub(crate) const FILE: &str = "/etc/coxswain/daemons";
/// Programs that are kept running.
const DAEMONS_MAX: usize = 16;
const FILE_BYTES_MAX: usize = 16 << 10;
/// How often is looked what has ended.
const TURN: Duration = Duration::from_millis(500);
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// One that ran for so long did not fail at its start.
const STABLE: Duration = Duration::from_secs(30);

/// Programs that are kept running. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Daemons(Arc<Mutex<Vec<One>>>);

#[derive(Debug)]
struct One {
    name: String,
    words: Vec<String>,
    wanted: bool,
    child: Option<(Child, Instant)>,
    failures: u32,
    not_before: Option<Instant>,
}

impl Daemons {
    /// Starts those of the list and a thread that looks after them; none when there is no list.
    ///
    /// # Errors
    /// The system has no more threads.
    pub(crate) fn start(file: &Path) -> std::io::Result<Self> {
        let text = std::fs::read(file).unwrap_or_default();
        let text = text
            .get(..text.len().min(FILE_BYTES_MAX))
            .unwrap_or_default();
        let list = read(&String::from_utf8_lossy(text));
        let daemons = Self(Arc::new(Mutex::new(list)));
        if !daemons.lock().is_empty() {
            let kept = daemons.clone();
            thread::Builder::new()
                .name("daemons".to_owned())
                .spawn(move || {
                    loop {
                        kept.lock().iter_mut().for_each(One::look_after);
                        thread::sleep(TURN);
                    }
                })?;
        }
        Ok(daemons)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<One>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As `GET /daemons` lists them.
    pub(crate) fn list(&self) -> Vec<Daemon> {
        let shown = |one: &One| Daemon {
            name: one.name.clone(),
            pid: one
                .child
                .as_ref()
                .map_or(0, |(child, _)| i32::try_from(child.id()).unwrap_or(0)),
            respawn: one.wanted,
        };
        self.lock().iter().map(shown).collect()
    }

    /// Starts or stops one; `None` when there is none of this name.
    pub(crate) fn want(&self, name: &str, wanted: bool) -> Option<()> {
        let mut list = self.lock();
        let one = list.iter_mut().find(|one| one.name == name)?;
        one.wanted = wanted;
        one.not_before = None;
        one.look_after();
        Some(())
    }
}

fn read(text: &str) -> Vec<One> {
    let mut list: Vec<One> = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace().map(str::to_owned);
        let Some(name) = words.next() else {
            continue;
        };
        let words: Vec<String> = words.collect();
        if words.is_empty() || list.len() == DAEMONS_MAX || list.iter().any(|one| one.name == name)
        {
            tracing::warn!(
                "{FILE}: {name:?} is left out: it has no program, is there twice, or is one too many"
            );
            continue;
        }
        list.push(One {
            name,
            words,
            wanted: true,
            child: None,
            failures: 0,
            not_before: None,
        });
    }
    list
}

impl One {
    fn look_after(&mut self) {
        if let Some((child, since)) = &mut self.child {
            let ended = match child.try_wait() {
                Ok(ended) => ended,
                // It is gone all the same.
                Err(_) => Some(std::process::ExitStatus::default()),
            };
            if let Some(status) = ended {
                let lived = since.elapsed();
                self.child = None;
                if self.wanted {
                    tracing::warn!("daemon {} ended: {status}", self.name);
                    self.failures = if lived >= STABLE {
                        0
                    } else {
                        self.failures + 1
                    };
                    self.wait();
                }
            } else if !self.wanted {
                // Asked first, and at the next look by force.
                let asked = linux::process::Process::open(child.id()).and_then(|process| {
                    if self.not_before.is_some() {
                        process.kill()
                    } else {
                        process.signal(linux::process::TERM)
                    }
                });
                if let Err(error) = asked {
                    tracing::warn!(%error, "cannot stop daemon {}", self.name);
                }
                self.not_before = Some(Instant::now());
            }
        }
        let is_due = self.not_before.is_none_or(|at| at <= Instant::now());
        if self.wanted && self.child.is_none() && is_due {
            self.spawn();
        }
    }

    fn spawn(&mut self) {
        let Some((program, arguments)) = self.words.split_first() else {
            return;
        };
        let started = Command::new(program)
            .args(arguments)
            .current_dir("/")
            .stdin(Stdio::null())
            .spawn();
        match started {
            Ok(child) => {
                self.child = Some((child, Instant::now()));
                self.not_before = None;
            }
            Err(error) => {
                tracing::error!("cannot start daemon {} ({program}): {error}", self.name);
                self.failures += 1;
                self.wait();
            }
        }
    }

    fn wait(&mut self) {
        let pause = PAUSE_FIRST.saturating_mul(1 << self.failures.saturating_sub(1).min(10));
        self.not_before = Some(Instant::now() + pause.min(PAUSE_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_list() {
        let text = "# what the board needs\nsshd /usr/sbin/sshd -D\n\nempty\nsshd /bin/other\n ntp /bin/ntpd -n # time\n";
        let list = read(text);
        let names: Vec<_> = list
            .iter()
            .map(|one| (one.name.as_str(), one.words.len()))
            .collect();
        assert_eq!(names, [("sshd", 2), ("ntp", 2)]);
        let many: String = (0..100).map(|n| format!("d{n} /bin/true\n")).collect();
        assert_eq!(read(&many).len(), DAEMONS_MAX);
    }

    #[test]
    fn what_ends_is_started_again_and_what_is_stopped_is_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "one /bin/sleep 5000\nnone /nowhere\n").unwrap();
        let daemons = Daemons::start(file.path()).unwrap();
        let pid = || daemons.list().first().map_or(0, |one| one.pid);
        let until = |good: &dyn Fn() -> bool| {
            let end = Instant::now() + Duration::from_secs(30);
            while !good() {
                assert!(Instant::now() < end, "{:?}", daemons.list());
                thread::sleep(Duration::from_millis(20));
            }
        };
        until(&|| pid() != 0);
        let first = pid();
        linux::process::Process::open(first.unsigned_abs())
            .unwrap()
            .kill()
            .unwrap();
        until(&|| pid() != 0 && pid() != first);
        assert_eq!(daemons.want("one", false), Some(()));
        until(&|| pid() == 0);
        assert!(!daemons.list().first().unwrap().respawn);
        assert_eq!(daemons.want("one", true), Some(()));
        until(&|| pid() != 0);
        assert_eq!(daemons.want("other", true), None);
        assert_eq!(daemons.list().get(1).map(|one| one.pid), Some(0));
        daemons.want("one", false);
        until(&|| pid() == 0);
    }
}
