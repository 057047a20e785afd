//! Writes what waits in the queues: in batches, within each source's rate and size, all of them within the quota.
//!
//! Lines that could not be kept are counted by cause, and a line of the log says how many they were.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::log::message::{of_line, of_pantavisor, of_syslog};
use model::log::{Level, Stamp, clean_source};

use crate::hub::{Channel, Hub, Turn, now};
use crate::limits;
use crate::queue::{Block, Dropped, Origin, keep_newest};
use crate::rotation::{Rotated, keep_within};
use crate::spool::Settings;

/// Between two lines that tell of lost ones.
const TELL: Duration = Duration::from_secs(1);
/// Bytes that are written at once.
const CHUNK: usize = 64 << 10;
/// However much a source writes, so much of its newest lines is kept each time.
const NEWEST_BYTES: u64 = 4 << 10;

/// What one source may write now.
#[derive(Debug)]
struct Budget {
    bytes: u64,
    at: Instant,
}

impl Budget {
    fn refill(&mut self, rate: u64, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.at);
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let earned = micros.saturating_mul(rate) / 1_000_000;
        if earned > 0 {
            self.at = now;
            let most = limits::BURST_BYTES.max(rate);
            self.bytes = self.bytes.saturating_add(earned).min(most);
        }
        self.bytes
    }
}

/// Lines that were lost and not told of yet, by cause.
#[derive(Debug, Default)]
struct Lost {
    rate: Dropped,
    slow: Dropped,
    disk: Dropped,
    /// Why the disk did not take them.
    reason: String,
    told_at: Option<Instant>,
}

impl Lost {
    fn is_none(&self) -> bool {
        self.rate.lines + self.slow.lines + self.disk.lines == 0
    }
}

#[derive(Debug)]
struct Kept {
    files: Rotated,
    budget: Budget,
    lost: Lost,
}

/// The thread that writes.
#[derive(Debug)]
pub(crate) struct Keeper {
    hub: Arc<Hub>,
    kept: BTreeMap<String, Kept>,
    since_look: u64,
    out: Vec<u8>,
}

impl Keeper {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        Self {
            hub,
            kept: BTreeMap::new(),
            // The first line looks.
            since_look: limits::QUOTA_LOOK_BYTES,
            out: Vec::with_capacity(CHUNK + limits::LINE_BYTES_MAX),
        }
    }

    pub(crate) fn run(mut self) {
        loop {
            let untold = self.kept.values().any(|kept| !kept.lost.is_none());
            let turn = self.hub.next(untold.then_some(TELL));
            let settings = self.hub.settings();
            let channels = self.hub.channels();
            for channel in &channels {
                self.write(channel, &settings, channels.len());
            }
            if turn == Turn::Stop {
                return;
            }
        }
    }

    fn write(&mut self, channel: &Channel, settings: &Settings, sources: usize) {
        // Looked at before the queue: what comes before it is closed is in the queue.
        let closed = channel.is_closed();
        let known = self.kept.contains_key(&channel.name);
        let (mut blocks, dropped) = {
            let mut queue = channel.queue();
            if queue.is_empty() && !closed && !known {
                return;
            }
            queue.take()
        };
        // There is room again.
        self.hub.intake.wake();
        let begin = Instant::now();
        let kept = self.kept.entry(channel.name.clone()).or_insert_with(|| {
            let source = &channel.source;
            let revision = settings.logs.join(source.revision.as_str());
            Kept {
                files: Rotated::new(revision.join(source.container.as_str())),
                budget: Budget {
                    bytes: limits::BURST_BYTES,
                    at: begin,
                },
                lost: Lost::default(),
            }
        });
        let allowed = kept.budget.refill(settings.rate_bytes, begin);
        let most = usize::try_from(allowed.max(NEWEST_BYTES)).unwrap_or(usize::MAX);
        keep_newest(&mut blocks, most, &mut kept.lost.rate);
        let cause = if channel.queue().over_rate {
            &mut kept.lost.rate
        } else {
            &mut kept.lost.slow
        };
        cause.lines += dropped.lines;
        cause.bytes += dropped.bytes;
        let taken: usize = blocks.iter().map(|block| block.bytes.len()).sum();
        kept.budget.bytes = kept.budget.bytes.saturating_sub(taken as u64);
        channel.queue().over_rate = kept.budget.bytes < limits::PIECE_BYTES as u64;

        let share = settings.quota_bytes / (4 * sources.max(1) as u64);
        let bytes_max = channel.source.max_bytes.min(share);
        let writing = Writing {
            bytes_max: bytes_max.max(limits::FILE_BYTES_MIN),
            parts: channel.source.files.min(limits::PARTS_MAX),
        };
        let tell = closed
            || kept
                .lost
                .told_at
                .is_none_or(|at| begin.saturating_duration_since(at) >= TELL);
        let mut written = writing.lines(kept, &mut self.out, &blocks);
        if tell {
            written += writing.losses(kept, &mut self.out, settings.rate_bytes, begin);
        }
        self.since_look += written;
        let disk_is_full = kept.lost.disk.lines > 0;
        if self.since_look >= limits::QUOTA_LOOK_BYTES || disk_is_full {
            self.look(settings, disk_is_full);
        }
        if closed {
            self.kept.remove(&channel.name);
            if let Err(error) = self.hub.spool.remove(&channel.name) {
                tracing::warn!(source = channel.name, %error, "cannot remove a source of logs");
            }
            self.hub.forget(&channel.name);
        }
    }

    /// Makes room when all logs take more than they may; on a full disk, some anyway.
    fn look(&mut self, settings: &Settings, disk_is_full: bool) {
        self.since_look = 0;
        let active: Vec<PathBuf> = self
            .kept
            .values()
            .map(|kept| kept.files.current())
            .collect();
        // Room for what is written until the next look, and for a part while it is packed.
        let target = settings.quota_bytes - settings.quota_bytes / 8;
        let total = keep_within(&settings.logs, target, &active);
        if disk_is_full {
            keep_within(&settings.logs, total.saturating_sub(total / 4), &active);
        }
    }
}

/// How one source is written.
#[derive(Debug, Clone, Copy)]
struct Writing {
    bytes_max: u64,
    parts: u32,
}

impl Writing {
    /// Bytes that were written.
    fn lines(self, kept: &mut Kept, out: &mut Vec<u8>, blocks: &VecDeque<Block>) -> u64 {
        let mut written = 0;
        let mut stamp = None;
        out.clear();
        for block in blocks {
            let stamp = match &stamp {
                Some((time, stamp)) if *time == block.time => stamp,
                Some(_) | None => &stamp.insert((block.time, Stamp::new(block.time))).1,
            };
            let mut rest = block.bytes.as_slice();
            while !rest.is_empty() {
                rest = push(out, stamp, &block.origin, rest);
                if out.len() >= CHUNK {
                    written += self.flush(kept, out);
                }
            }
        }
        written + self.flush(kept, out)
    }

    fn flush(self, kept: &mut Kept, out: &mut Vec<u8>) -> u64 {
        if out.is_empty() {
            return 0;
        }
        let bytes = out.len() as u64;
        let result = kept.files.append(out, self.bytes_max, self.parts);
        let lines = out.iter().filter(|byte| **byte == b'\n').count() as u64;
        out.clear();
        match result {
            // A packed part is worth a look at the quota.
            Ok(true) => bytes.max(limits::QUOTA_LOOK_BYTES),
            Ok(false) => bytes,
            Err(error) => {
                kept.lost.disk.lines += lines;
                kept.lost.disk.bytes += bytes;
                let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
                kept.lost.reason = if full.contains(&error.kind()) {
                    "the storage is full".to_owned()
                } else {
                    format!("the storage did not take them: {error}")
                };
                0
            }
        }
    }

    /// A line for each cause of losses. What cannot be told now is told later.
    fn losses(self, kept: &mut Kept, out: &mut Vec<u8>, rate: u64, at: Instant) -> u64 {
        if kept.lost.is_none() {
            return 0;
        }
        let stamp = Stamp::new(now());
        let lost = std::mem::take(&mut kept.lost);
        let causes = [
            (
                lost.rate,
                format!("it wrote more than {rate} bytes a second"),
            ),
            (lost.slow, "the storage was too slow".to_owned()),
            (lost.disk, lost.reason.clone()),
        ];
        out.clear();
        for (dropped, cause) in &causes {
            if dropped.lines > 0 {
                let text = format!(
                    "{} lines ({} bytes) before this one were dropped: {cause}",
                    dropped.lines, dropped.bytes
                );
                stamp.push(out, Level::Warn, "coxswain", text.as_bytes());
            }
        }
        let bytes = out.len() as u64;
        let told = kept.files.append(out, self.bytes_max, self.parts).is_ok();
        out.clear();
        if !told {
            kept.lost = lost;
        }
        kept.lost.told_at = Some(at);
        if told { bytes } else { 0 }
    }
}

/// Writes the first line of `bytes`, or a whole message; what is left.
fn push<'a>(out: &mut Vec<u8>, stamp: &Stamp, origin: &Origin, bytes: &'a [u8]) -> &'a [u8] {
    let line = |out: &mut Vec<u8>, source: &str, default| {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let line = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or(bytes);
        let (level, text) = of_line(line, default);
        stamp.push(out, level, source, text);
        bytes.get(line.len() + 1..).unwrap_or_default()
    };
    match origin {
        Origin::Stdout => line(out, "stdout", Level::Info),
        Origin::Stderr => line(out, "stderr", Level::Warn),
        Origin::File(path) => line(out, &clean_source(path), Level::Info),
        Origin::Syslog => {
            let message = of_syslog(bytes);
            stamp.push(out, message.level, "syslog", &message.text);
            &[]
        }
        Origin::Control => {
            if let Some(message) = of_pantavisor(bytes) {
                let source = message.source.as_deref().unwrap_or("pv-ctrl-log");
                stamp.push(out, message.level, &clean_source(source), &message.text);
            }
            &[]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::log::Line;

    #[test]
    fn each_origin_has_its_way() {
        let stamp = Stamp::new(model::WallTime(0));
        let mut out = Vec::new();
        for (origin, bytes) in [
            (Origin::Stdout, "one\n<3>two\n\nthree"),
            (Origin::Stderr, "four\n"),
            (Origin::Syslog, "<15>web: five\nsix"),
            (
                Origin::Control,
                "{\"level\":1,\"source\":\"a b\",\"message\":\"seven\"}",
            ),
            (Origin::File("/var/log/x".into()), "eight\n"),
        ] {
            let mut rest = bytes.as_bytes();
            while !rest.is_empty() {
                rest = push(&mut out, &stamp, &origin, rest);
            }
        }
        let lines: Vec<_> = out
            .strip_suffix(b"\n")
            .unwrap()
            .split(|byte| *byte == b'\n')
            .map(|line| {
                let line = Line::parse(line);
                let text = std::str::from_utf8(line.text).unwrap();
                format!("{} {} {text}", line.level, line.source)
            })
            .collect();
        let expected = [
            "info stdout one",
            "error stdout two",
            "info stdout ",
            "info stdout three",
            "warn stderr four",
            "debug syslog web: five six",
            "error a_b seven",
            "info /var/log/x eight",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn budgets_fill_with_time() {
        let start = Instant::now();
        let mut budget = Budget {
            bytes: 0,
            at: start,
        };
        assert_eq!(budget.refill(1000, start), 0);
        assert_eq!(budget.refill(1000, start + Duration::from_millis(1)), 1);
        // Less than a byte is not lost.
        let next = start + Duration::from_micros(1500);
        assert_eq!(budget.refill(1000, next), 1);
        assert_eq!(budget.refill(1000, start + Duration::from_millis(2)), 2);
        let late = start + Duration::from_secs(1_000_000);
        assert_eq!(budget.refill(1000, late), limits::BURST_BYTES);
    }
}
