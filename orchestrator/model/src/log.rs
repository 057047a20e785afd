//! What containers write, as lines: levels, the form on the storage, and what other programs' log messages mean.
//!
//! A line on the storage is text that a person can read with any tool: `2026-11-21T10:20:30.123Z W stderr the text`. A line in no such
//! form is text of unknown time. Everything here reads what containers wrote: nothing of it is trusted, nothing fails.

pub mod message;

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::WallTime;

/// How bad something is; the worst is the smallest. Pantavisor's words.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It cannot go on.
    Fatal,
    /// Something failed.
    Error,
    /// Something may fail.
    Warn,
    /// As it should be.
    Info,
    /// For those who look for a mistake.
    Debug,
}

/// Every level, the worst first.
pub const LEVELS: [Level; 5] = [
    Level::Fatal,
    Level::Error,
    Level::Warn,
    Level::Info,
    Level::Debug,
];

/// Longest text of one line on the storage, bytes; longer ones are cut into several.
pub const TEXT_BYTES_MAX: usize = 16 << 10;
/// Longest name of a source.
pub const SOURCE_BYTES_MAX: usize = 64;

impl Level {
    /// The word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fatal => "fatal",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }

    /// The letter on the storage.
    fn letter(self) -> u8 {
        match self {
            Self::Fatal => b'F',
            Self::Error => b'E',
            Self::Warn => b'W',
            Self::Info => b'I',
            Self::Debug => b'D',
        }
    }

    fn of_letter(letter: u8) -> Option<Self> {
        LEVELS.into_iter().find(|level| level.letter() == letter)
    }

    /// The level of a syslog severity, 0 to 7.
    pub fn of_severity(severity: u8) -> Self {
        match severity {
            0..=2 => Self::Fatal,
            3 => Self::Error,
            4 => Self::Warn,
            5 | 6 => Self::Info,
            7.. => Self::Debug,
        }
    }

    /// The level of Pantavisor's number, 0 to 5.
    pub fn of_pantavisor(number: u64) -> Self {
        match number {
            0 => Self::Fatal,
            1 => Self::Error,
            2 => Self::Warn,
            3 => Self::Info,
            4.. => Self::Debug,
        }
    }

    /// The level that a word means, in any case: those of syslog, of the usual libraries, and ours.
    pub fn of_word(word: &str) -> Option<Self> {
        const WORDS: [(&str, Level); 17] = [
            ("info", Level::Info),
            ("error", Level::Error),
            ("err", Level::Error),
            ("warn", Level::Warn),
            ("warning", Level::Warn),
            ("debug", Level::Debug),
            ("trace", Level::Debug),
            ("verbose", Level::Debug),
            ("notice", Level::Info),
            ("information", Level::Info),
            ("fatal", Level::Fatal),
            ("critical", Level::Fatal),
            ("crit", Level::Fatal),
            ("alert", Level::Fatal),
            ("emerg", Level::Fatal),
            ("panic", Level::Fatal),
            ("severe", Level::Error),
        ];
        let found = WORDS
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(word));
        found.map(|(_, level)| *level)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Level {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::of_word(text).ok_or(())
    }
}

/// One line, as it is on the storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// When it came; `None` for a line of another form.
    pub time: Option<WallTime>,
    /// How bad it is.
    pub level: Level,
    /// `stdout`, `stderr`, `syslog`, `coxswain`, or the path of a file; empty for a line of another form.
    pub source: &'a str,
    /// What was written, without its end of line; any bytes.
    pub text: &'a [u8],
}

/// Bytes of a time, `2026-11-21T10:20:30.123Z`.
const TIME_BYTES: usize = 24;

impl<'a> Line<'a> {
    /// Reads a line, without its end of line.
    pub fn parse(line: &'a [u8]) -> Self {
        Self::parse_form(line).unwrap_or(Self {
            time: None,
            level: Level::Info,
            source: "",
            text: line,
        })
    }

    fn parse_form(line: &'a [u8]) -> Option<Self> {
        let (time, rest) = line.split_at_checked(TIME_BYTES)?;
        let time = parse_time(std::str::from_utf8(time).ok()?)?;
        let [b' ', letter, b' ', rest @ ..] = rest else {
            return None;
        };
        let end = rest.iter().position(|byte| *byte == b' ')?;
        let (source, text) = rest.split_at_checked(end)?;
        Some(Self {
            time: Some(time),
            level: Level::of_letter(*letter)?,
            source: std::str::from_utf8(source)
                .ok()
                .filter(|text| !text.is_empty())?,
            text: text.get(1..)?,
        })
    }
}

/// The beginning of lines that came at the same time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp(String);

impl Stamp {
    /// For lines of this time.
    pub fn new(time: WallTime) -> Self {
        Self(time.with_millis() + " ")
    }

    /// Writes a line. What would end it early is made harmless; `source` must hold no white space.
    pub fn push(&self, out: &mut Vec<u8>, level: Level, source: &str, text: &[u8]) {
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let mut rest = text;
        loop {
            let (part, after) = rest.split_at(rest.len().min(TEXT_BYTES_MAX));
            out.extend_from_slice(self.0.as_bytes());
            out.push(level.letter());
            out.push(b' ');
            out.extend_from_slice(source.as_bytes());
            out.push(b' ');
            let begin = out.len();
            out.extend_from_slice(part);
            for byte in out.iter_mut().skip(begin).filter(|byte| **byte == b'\n') {
                *byte = b' ';
            }
            out.push(b'\n');
            rest = after;
            if rest.is_empty() {
                return;
            }
        }
    }
}

/// A name of a source that may stand in a line: no white space, no control characters, not too long.
pub fn clean_source(name: &str) -> String {
    let clean: String = name
        .chars()
        .map(|letter| {
            if letter.is_whitespace() || letter.is_control() {
                '_'
            } else {
                letter
            }
        })
        .collect();
    let mut end = clean.len().min(SOURCE_BYTES_MAX);
    while !clean.is_char_boundary(end) {
        end -= 1;
    }
    match &clean[..end] {
        "" => "unknown".to_owned(),
        name => name.to_owned(),
    }
}

/// Reads `2026-11-21T10:20:30Z`, with a fraction of a second or without.
pub fn parse_time(text: &str) -> Option<WallTime> {
    let text = text.strip_suffix('Z')?;
    let (date, clock) = text.split_once('T')?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let number = |text: &str, digits: usize| -> Option<u64> {
        (text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| text.parse().ok())?
    };
    let mut date = date.split('-');
    let year = number(date.next()?, 4)?;
    let month = number(date.next()?, 2).filter(|month| (1..=12).contains(month))?;
    let day = number(date.next()?, 2).filter(|day| (1..=31).contains(day))?;
    let mut clock = clock.split(':');
    let hour = number(clock.next()?, 2).filter(|hour| *hour < 24)?;
    let minute = number(clock.next()?, 2).filter(|minute| *minute < 60)?;
    // A leap second counts as the one after it.
    let second = number(clock.next()?, 2).filter(|second| *second <= 60)?;
    if date.next().is_some() || clock.next().is_some() || year < 1970 {
        return None;
    }
    let digits = fraction.get(..fraction.len().min(3))?;
    let millis = number(digits, digits.len())? * [0, 100, 10, 1][digits.len()];
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Some(WallTime(seconds * 1000 + millis))
}

/// Howard Hinnant's algorithm for dates from 1970 on.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let shifted_month = (month + 9) % 12;
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// A moment that somebody asks for: a time, or so long ago (`30s`, `10min`, `2h`, `7d`, seconds). Never after `now`.
pub fn parse_since(text: &str, now: WallTime) -> Option<WallTime> {
    let text = text.trim();
    if text.contains('T') {
        return parse_time(text);
    }
    let end = text
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: u64 = number.parse().ok()?;
    let unit_ms = match unit {
        "" | "s" => 1000,
        "ms" => 1,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let ago = number.checked_mul(unit_ms)?;
    Some(WallTime(now.0.saturating_sub(ago)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_survive_writing_and_reading() {
        let mut out = Vec::new();
        let time = WallTime(1_795_256_430_123);
        let stamp = Stamp::new(time);
        stamp.push(&mut out, Level::Warn, "stderr", b"it is\xff hot\r");
        stamp.push(&mut out, Level::Info, "stdout", b"");
        stamp.push(&mut out, Level::Info, "syslog", b"two\nlines");
        assert!(out.starts_with(b"2026-11-21T10:20:30.123Z W stderr it is\xff hot\n"));
        let lines: Vec<_> = out.split(|byte| *byte == b'\n').map(Line::parse).collect();
        let line = |level, source, text| Line {
            time: Some(time),
            level,
            source,
            text,
        };
        assert_eq!(lines[0], line(Level::Warn, "stderr", b"it is\xff hot"));
        assert_eq!(lines[1], line(Level::Info, "stdout", b""));
        assert_eq!(lines[2], line(Level::Info, "syslog", b"two lines"));
        let mut out = Vec::new();
        stamp.push(
            &mut out,
            Level::Info,
            "stdout",
            &vec![b'x'; TEXT_BYTES_MAX + 1],
        );
        assert_eq!(out.split(|byte| *byte == b'\n').count(), 3, "cut in two");
    }

    #[test]
    fn other_forms_are_text() {
        for line in [
            "",
            "hello",
            "2026-11-21T10:20:30.123Z",
            "2026-11-21T10:20:30.123Z X stdout text",
            "2026-11-21T10:20:30.123Z I  text",
            "2026-13-21T10:20:30.123Z I stdout text",
            "2026-11-21T10:20:30.1234Z I stdout x",
        ] {
            let parsed = Line::parse(line.as_bytes());
            assert_eq!(
                (parsed.time, parsed.text),
                (None, line.as_bytes()),
                "{line}"
            );
        }
    }

    #[test]
    fn times() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1970-01-01T00:00:00.5Z", Some(500)),
            ("2000-02-29T00:00:00.25Z", Some(951_782_400_250)),
            ("2026-11-21T10:20:30.999999Z", Some(1_795_256_430_999)),
            ("1969-12-31T23:59:59Z", None),
            ("2026-11-21T24:20:30Z", None),
            ("2026-11-21T10:20:30", None),
            ("2026-11-21T10:20:30.Z", None),
            ("2026-11-21T10:20:30.1xZ", None),
            ("2026-1-21T10:20:30Z", None),
            ("2026-11-21T+1:20:30Z", None),
        ] {
            assert_eq!(parse_time(text), expected.map(WallTime), "{text}");
        }
        for ms in [0, 1, 951_782_400_250, 1_795_256_430_999, 4_102_444_799_999] {
            let stamp = Stamp::new(WallTime(ms)).0;
            assert_eq!(parse_time(stamp.trim()), Some(WallTime(ms)), "{stamp}");
        }
    }

    #[test]
    fn since() {
        let now = WallTime(10_000_000);
        for (text, expected) in [
            ("30", Some(9_970_000)),
            ("30s", Some(9_970_000)),
            ("250ms", Some(9_999_750)),
            ("2min", Some(9_880_000)),
            ("2m", Some(9_880_000)),
            ("1h", Some(6_400_000)),
            ("7d", Some(0)),
            ("1970-01-01T00:00:01Z", Some(1000)),
            ("", None),
            ("h", None),
            ("-5", None),
            ("5 minutes", None),
            ("99999999999999999999", None),
            ("18446744073709551615d", None),
        ] {
            assert_eq!(parse_since(text, now), expected.map(WallTime), "{text}");
        }
    }

    #[test]
    fn sources_are_one_word() {
        assert_eq!(clean_source("/var/log/a b\n"), "/var/log/a_b_");
        assert_eq!(clean_source(""), "unknown");
        assert_eq!(clean_source(&"ü".repeat(80)).len(), SOURCE_BYTES_MAX);
    }

    #[test]
    fn levels() {
        assert!(Level::Fatal < Level::Debug);
        for level in LEVELS {
            assert_eq!(Level::of_word(level.as_str()), Some(level));
            assert_eq!(Level::of_letter(level.letter()), Some(level));
        }
        assert_eq!(Level::of_word("WARNING"), Some(Level::Warn));
        assert_eq!(Level::of_word("loud"), None);
    }
}
