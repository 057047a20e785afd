//! Standard output: colour, width, and the cleaning of texts that come from containers and manifests.
//!
//! A terminal obeys control characters; a container must not be able to write to it. Whatever is printed to a terminal goes
//! through [`clean`] or [`Cleaner`].

use std::io::{self, IsTerminal as _, Write as _};

use clap::ValueEnum;

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Colour {
    /// When standard output is a terminal and NO_COLOR is not set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How texts are made for a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    /// Columns of the terminal; `None` when nobody looks, then nothing is cut.
    pub(crate) width: Option<usize>,
    /// Whether to use colours.
    pub(crate) colour: bool,
}

impl Look {
    /// For standard output as it is.
    pub(crate) fn new(colour: Colour) -> Self {
        let terminal = io::stdout().is_terminal();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            width: terminal.then(columns),
            colour: match colour {
                Colour::Auto => terminal && !plain,
                Colour::Always => true,
                Colour::Never => false,
            },
        }
    }

    /// The same for standard output as it is by now.
    pub(crate) fn now(before: &Self) -> Self {
        Self {
            width: before.width.map(|_| columns()),
            colour: before.colour,
        }
    }

    /// Lines of the terminal.
    pub(crate) fn height(&self) -> usize {
        let size = terminal_size::terminal_size_of(io::stdout());
        size.map_or(24, |(_, height)| usize::from(height.0))
    }

    /// `text` in this tone.
    pub(crate) fn paint(&self, tone: Tone, text: &str) -> String {
        match tone.sequence().filter(|_| self.colour && !text.is_empty()) {
            Some(sequence) => format!("\u{1b}[{sequence}m{text}\u{1b}[0m"),
            None => text.to_owned(),
        }
    }
}

fn columns() -> usize {
    terminal_size::terminal_size_of(io::stdout())
        .map(|(width, _)| usize::from(width.0))
        .filter(|width| *width >= 20)
        .unwrap_or(80)
}

/// What a word tells, as a colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Nothing special.
    Plain,
    /// A title.
    Strong,
    /// As it should be.
    Good,
    /// Under way.
    Busy,
    /// Not as it should be.
    Bad,
    /// Less important.
    Faint,
}

impl Tone {
    fn sequence(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Strong => Some("1"),
            Self::Good => Some("32"),
            Self::Busy => Some("33"),
            Self::Bad => Some("31"),
            Self::Faint => Some("2"),
        }
    }
}

/// Writes to standard output; each text is out when the call returns.
pub(crate) fn print(text: &str) -> io::Result<()> {
    print_bytes(text.as_bytes())
}

/// Writes bytes to standard output as they are.
pub(crate) fn print_bytes(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Whether a character could move the cursor, hide or reorder text.
fn is_unsafe(char: char) -> bool {
    char.is_control()
        || matches!(char,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

fn push_visible(char: char, text: &mut String) {
    if is_unsafe(char) {
        text.push_str(&format!("\\u{{{:x}}}", u32::from(char)));
    } else {
        text.push(char);
    }
}

/// One line of text without anything that a terminal would obey: control characters stand as `\u{1b}`.
pub(crate) fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    text.chars()
        .for_each(|char| push_visible(char, &mut cleaned));
    cleaned
}

/// The same for texts of several lines: line feeds and tabs stay.
pub(crate) fn clean_lines(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '\n' | '\t' => cleaned.push(char),
            other => push_visible(other, &mut cleaned),
        }
    }
    cleaned
}

/// Cleans a log that comes in pieces cut anywhere: colours are taken out, other control characters are made visible.
#[derive(Debug, Default)]
pub(crate) struct Cleaner {
    /// Bytes that may be the beginning of a character or of a colour sequence.
    held: Vec<u8>,
}

/// Longest colour sequence that is taken out.
const SEQUENCE_BYTES_MAX: usize = 32;

impl Cleaner {
    /// The clean text of the next piece; what is incomplete waits for the next one.
    pub(crate) fn push(&mut self, piece: &[u8]) -> String {
        self.held.extend_from_slice(piece);
        let held = std::mem::take(&mut self.held);
        let end = incomplete_from(&held);
        let (whole, rest) = held.split_at(end);
        self.held = rest.to_vec();
        clean_log(&String::from_utf8_lossy(whole))
    }

    /// What was still waiting.
    pub(crate) fn finish(&mut self) -> String {
        clean_log(&String::from_utf8_lossy(&std::mem::take(&mut self.held)))
    }
}

/// Where the last, possibly incomplete character or colour sequence begins.
fn incomplete_from(bytes: &[u8]) -> usize {
    let tail_start = bytes.len().saturating_sub(SEQUENCE_BYTES_MAX);
    let tail = bytes.get(tail_start..).unwrap_or_default();
    if let Some(escape) = tail.iter().rposition(|byte| *byte == 0x1b) {
        let sequence = tail.get(escape + 1..).unwrap_or_default();
        let open = match sequence {
            [] | [b'['] => true,
            [b'[', rest @ ..] => rest
                .iter()
                .all(|byte| byte.is_ascii_digit() || *byte == b';'),
            _ => false,
        };
        if open {
            return tail_start + escape;
        }
    }
    // A carriage return may be half of a line end.
    if bytes.last() == Some(&b'\r') {
        return bytes.len() - 1;
    }
    let mut start = bytes.len();
    for back in 1..=bytes.len().min(3) {
        match bytes.get(bytes.len() - back) {
            Some(byte) if *byte & 0xc0 == 0x80 => {}
            Some(byte) => {
                let wanted = match byte {
                    0xc2..=0xdf => 2,
                    0xe0..=0xef => 3,
                    0xf0..=0xf4 => 4,
                    _ => 1,
                };
                if wanted > back {
                    start = bytes.len() - back;
                }
                break;
            }
            None => break,
        }
    }
    start
}

fn clean_log(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(char) = rest.chars().next() {
        if let Some(after) = after_colour(rest) {
            rest = after;
            continue;
        }
        rest = rest.get(char.len_utf8()..).unwrap_or_default();
        match char {
            '\n' | '\t' => cleaned.push(char),
            '\r' if rest.starts_with('\n') => {}
            other => push_visible(other, &mut cleaned),
        }
    }
    cleaned
}

/// What follows a complete colour sequence at the start of `text`.
fn after_colour(text: &str) -> Option<&str> {
    let sequence = text.strip_prefix("\u{1b}[")?;
    let end = sequence.find(|char: char| !(char.is_ascii_digit() || char == ';'))?;
    sequence.get(end..)?.strip_prefix('m')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        assert_eq!(clean("a\u{1b}]0;x\u{7}b\nc"), "a\\u{1b}]0;x\\u{7}b\\u{a}c");
        assert_eq!(clean("\u{9b}2J\u{202e}ü☃"), "\\u{9b}2J\\u{202e}ü☃");
        assert_eq!(clean_lines("a\tb\r\nc\u{0}"), "a\tb\\u{d}\nc\\u{0}");
    }

    #[test]
    fn logs_are_clean_however_they_are_cut() {
        let log =
            "ü\u{1b}[1;32mok\u{1b}[0m\r\n\u{1b}[2Jx\u{1b}]0;t\u{7}☃\u{1b}[m\rend\u{1b}".as_bytes();
        let whole = "üok\n\\u{1b}[2Jx\\u{1b}]0;t\\u{7}☃\\u{d}end\\u{1b}";
        for first in 0..=log.len() {
            for second in first..=log.len() {
                let mut cleaner = Cleaner::default();
                let text = [&log[..first], &log[first..second], &log[second..]]
                    .map(|piece| cleaner.push(piece))
                    .concat()
                    + &cleaner.finish();
                assert_eq!(text, whole, "cut at {first} and {second}");
            }
        }
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut cleaner = Cleaner::default();
        for _ in 0..100 {
            cleaner.push(b"\x1b[1111111111111111111");
            cleaner.push(b"1;1;1;1;1;1;1;1;1;1;1;1");
            assert!(cleaner.held.len() <= SEQUENCE_BYTES_MAX);
        }
    }

    #[test]
    fn colours_only_when_asked_for() {
        let look = |colour| Look {
            width: None,
            colour,
        };
        assert_eq!(look(true).paint(Tone::Bad, "x"), "\u{1b}[31mx\u{1b}[0m");
        assert_eq!(look(false).paint(Tone::Bad, "x"), "x");
        assert_eq!(look(true).paint(Tone::Plain, "x"), "x");
    }
}
