//! What waits to be written of one source: bounded, the newest wins, what is given up is counted. Pure.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::WallTime;

use crate::limits;

/// Where bytes came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Stdout,
    Stderr,
    /// One datagram of `/dev/log`.
    Syslog,
    /// One message of Pantavisor's log socket.
    Control,
    /// Lines of a file in the container.
    File(Arc<str>),
}

/// Bytes that came together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) time: WallTime,
    pub(crate) origin: Origin,
    pub(crate) bytes: Vec<u8>,
}

impl Block {
    /// Lines; what has no end of line at its end is one too.
    pub(crate) fn lines(&self) -> u64 {
        let ends = self.bytes.iter().filter(|byte| **byte == b'\n').count();
        ends as u64 + u64::from(self.bytes.last() != Some(&b'\n'))
    }
}

/// Lines that were given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Dropped {
    pub(crate) lines: u64,
    pub(crate) bytes: u64,
}

impl Dropped {
    pub(crate) fn add(&mut self, block: &Block) {
        self.lines += block.lines();
        self.bytes += block.bytes.len() as u64;
    }
}

/// The queue of one source.
#[derive(Debug)]
pub(crate) struct Queue {
    blocks: VecDeque<Block>,
    bytes: usize,
    bytes_max: usize,
    dropped: Dropped,
    full_since: Option<Instant>,
    /// The source writes more than it may: it is not held up, its lines are given up.
    pub(crate) over_rate: bool,
}

impl Queue {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            blocks: VecDeque::new(),
            bytes: 0,
            bytes_max,
            dropped: Dropped::default(),
            full_since: None,
            over_rate: false,
        }
    }

    pub(crate) fn set_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.blocks.is_empty() && self.dropped.lines == 0
    }

    /// Adds what came; the oldest blocks go when it is too much.
    pub(crate) fn push(&mut self, block: Block) {
        self.bytes += cost(&block);
        self.blocks.push_back(block);
        while self.bytes > self.bytes_max && self.blocks.len() > 1 {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.blocks.pop_front() {
            self.bytes -= cost(&oldest);
            self.dropped.add(&oldest);
        }
    }

    /// How long the source may be held up now; zero when it is to be read. What is read although there is no room costs the oldest.
    pub(crate) fn hold_up(&mut self, now: Instant) -> Duration {
        if self.over_rate || self.bytes + limits::PIECE_BYTES <= self.bytes_max {
            self.full_since = None;
            return Duration::ZERO;
        }
        let since = *self.full_since.get_or_insert(now);
        limits::HOLD_UP_MAX.saturating_sub(now.saturating_duration_since(since))
    }

    /// Everything that waits, oldest first, and what was given up before it.
    pub(crate) fn take(&mut self) -> (VecDeque<Block>, Dropped) {
        self.bytes = 0;
        self.full_since = None;
        let dropped = std::mem::take(&mut self.dropped);
        (std::mem::take(&mut self.blocks), dropped)
    }
}

/// With what a small block costs beside its bytes.
fn cost(block: &Block) -> usize {
    block.bytes.capacity() + size_of::<Block>()
}

/// Keeps the newest `bytes` of blocks, in whole lines; what had to go is added to `dropped`.
pub(crate) fn keep_newest(blocks: &mut VecDeque<Block>, bytes: usize, dropped: &mut Dropped) {
    let mut total: usize = blocks.iter().map(|block| block.bytes.len()).sum();
    while total > bytes {
        let Some(mut oldest) = blocks.pop_front() else {
            return;
        };
        total -= oldest.bytes.len();
        let room = bytes.saturating_sub(total);
        // Of the block in which the limit falls, the lines after it stay.
        let from = oldest.bytes.len() - room.min(oldest.bytes.len());
        let end = oldest.bytes.get(from..).unwrap_or_default();
        let Some(line) = end.iter().position(|byte| *byte == b'\n') else {
            dropped.add(&oldest);
            continue;
        };
        let rest = oldest.bytes.split_off(from + line + 1);
        dropped.add(&oldest);
        if !rest.is_empty() {
            oldest.bytes = rest;
            blocks.push_front(oldest);
        }
        return;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(text: &str) -> Block {
        Block {
            time: WallTime(0),
            origin: Origin::Stdout,
            bytes: text.as_bytes().to_vec(),
        }
    }

    fn texts(blocks: &VecDeque<Block>) -> Vec<&str> {
        let texts = blocks.iter();
        texts
            .map(|block| std::str::from_utf8(&block.bytes).unwrap())
            .collect()
    }

    #[test]
    fn the_newest_wins_and_losses_are_counted() {
        let one = cost(&block("a\nb\n"));
        let mut queue = Queue::new(2 * one);
        for text in ["a\nb\n", "c\nd\n", "e\nf\n"] {
            queue.push(block(text));
        }
        let (blocks, dropped) = queue.take();
        assert_eq!(texts(&blocks), ["c\nd\n", "e\nf\n"]);
        assert_eq!(dropped, Dropped { lines: 2, bytes: 4 });
        assert!(queue.is_empty());
        // One that is larger than all room is kept: it is the newest there is.
        queue.push(block(&"x".repeat(10 * one)));
        assert_eq!(queue.take().0.len(), 1);
    }

    #[test]
    fn a_full_queue_holds_up_for_a_while() {
        let mut queue = Queue::new(limits::PIECE_BYTES);
        let start = Instant::now();
        assert_eq!(queue.hold_up(start), Duration::ZERO);
        queue.push(block("x\n"));
        assert_eq!(queue.hold_up(start), limits::HOLD_UP_MAX);
        assert_eq!(queue.hold_up(start + limits::HOLD_UP_MAX), Duration::ZERO);
        queue.over_rate = true;
        assert_eq!(queue.hold_up(start), Duration::ZERO);
        queue.over_rate = false;
        queue.take();
        assert_eq!(queue.hold_up(start), Duration::ZERO);
    }

    #[test]
    fn whole_lines_are_kept() {
        for (bytes, expected, lines) in [
            (100, vec!["a\nbb\nc\n", "d\n"], 0),
            (9, vec!["a\nbb\nc\n", "d\n"], 0),
            (8, vec!["bb\nc\n", "d\n"], 1),
            (6, vec!["c\n", "d\n"], 2),
            (3, vec!["d\n"], 3),
            (2, vec!["d\n"], 3),
            (1, vec![], 4),
            (0, vec![], 4),
        ] {
            let mut blocks = VecDeque::from([block("a\nbb\nc\n"), block("d\n")]);
            let mut dropped = Dropped::default();
            keep_newest(&mut blocks, bytes, &mut dropped);
            assert_eq!(
                (texts(&blocks), dropped.lines),
                (expected, lines),
                "{bytes}"
            );
        }
    }
}
