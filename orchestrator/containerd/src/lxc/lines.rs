//! The text of a configuration as lines, and what is wrong with them.
//!
//! Read as LXC does: blanks around key and value do not count, `#` starts a comment line, a value may stand in quotes. A line that is none
//! of these is refused, where LXC leaves it out.

use std::fmt;

/// Bytes of a configuration; pvr's have some hundreds.
pub(crate) const BYTES_MAX: usize = 64 << 10;
/// Problems that are told.
const PROBLEMS_MAX: usize = 16;
/// Characters of a value that are shown.
const SHOWN_CHARS_MAX: usize = 80;

/// One key with its value; an empty value takes back what was said before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line<'t> {
    /// From 1.
    pub(crate) number: usize,
    pub(crate) key: &'t str,
    pub(crate) value: &'t str,
}

/// One thing that cannot be translated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    /// From 1; 0 is the file as a whole.
    pub(crate) line: usize,
    pub(crate) detail: String,
    pub(crate) remedy: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        write!(f, "{}; {}", self.detail, self.remedy)
    }
}

/// Everything that cannot be translated, in the order of the lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Problems {
    kept: Vec<Refused>,
    total: usize,
}

impl Problems {
    pub(crate) fn add(
        &mut self,
        line: usize,
        detail: impl fmt::Display,
        remedy: impl fmt::Display,
    ) {
        self.total += 1;
        if self.kept.len() < PROBLEMS_MAX {
            self.kept.push(Refused {
                line,
                detail: detail.to_string(),
                remedy: remedy.to_string(),
            });
        }
    }

    /// `Err` when there is any.
    pub(crate) fn into_result(mut self) -> Result<(), Self> {
        if self.total == 0 {
            return Ok(());
        }
        self.kept.sort_by_key(|refused| refused.line);
        Err(self)
    }

    #[cfg(test)]
    pub(crate) fn kept(&self) -> &[Refused] {
        &self.kept
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, refused) in self.kept.iter().enumerate() {
            if index > 0 {
                f.write_str(" | ")?;
            }
            write!(f, "{refused}")?;
        }
        match self.total - self.kept.len() {
            0 => Ok(()),
            more => write!(f, " | and {more} more"),
        }
    }
}

/// A text from the file as it is shown: quoted, cut when it is long.
pub(crate) struct Shown<'a>(pub(crate) &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(SHOWN_CHARS_MAX) {
            Some((end, _)) => write!(f, "{:?}…", self.0.get(..end).unwrap_or_default()),
            None => write!(f, "{:?}", self.0),
        }
    }
}

/// Takes the text apart.
pub(crate) fn read<'t>(bytes: &'t [u8], problems: &mut Problems) -> Vec<Line<'t>> {
    if bytes.len() > BYTES_MAX {
        problems.add(
            0,
            format_args!("the file has {} bytes", bytes.len()),
            format_args!("keep it to {BYTES_MAX} bytes"),
        );
        return Vec::new();
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            problems.add(
                line,
                "the line is not UTF-8",
                "write the file as UTF-8 text",
            );
            return Vec::new();
        }
    };
    let mut lines = Vec::new();
    for (index, line) in text.split('\n').enumerate() {
        let number = index + 1;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.contains('\0') {
            problems.add(number, "the line holds a NUL character", "take it out");
            continue;
        }
        match line.split_once('=') {
            Some((key, value)) if key.starts_with("lxc.") => lines.push(Line {
                number,
                key: key.trim_end(),
                value: unquoted(value.trim_start()),
            }),
            Some(_) | None => problems.add(
                number,
                format_args!("{} is no \"lxc.… = …\"", Shown(line)),
                "take the line out, or start it with '#'",
            ),
        }
    }
    lines
}

/// Quotes around the whole value do not count.
fn unquoted(value: &str) -> &str {
    ['"', '\'']
        .into_iter()
        .find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote))
        .unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &[u8]) -> (Vec<Line<'_>>, Vec<Refused>) {
        let mut problems = Problems::default();
        let lines = read(text, &mut problems);
        (lines, problems.kept)
    }

    #[test]
    fn as_lxc_reads_them() {
        let (lines, refused) = read_text(
            b"# comment\r\n\n  lxc.tty.max=8\t\nlxc.init.cmd = /init  \"a b\"\nlxc.uts.name = 'x'\nlxc.environment = A=\"\n lxc.cap.drop =",
        );
        let all: Vec<_> = lines
            .iter()
            .map(|line| (line.number, line.key, line.value))
            .collect();
        assert_eq!(
            all,
            [
                (3, "lxc.tty.max", "8"),
                (4, "lxc.init.cmd", "/init  \"a b\""),
                (5, "lxc.uts.name", "x"),
                (6, "lxc.environment", "A=\""),
                (7, "lxc.cap.drop", ""),
            ]
        );
        assert_eq!(refused, []);
    }

    #[test]
    fn other_lines_are_refused_with_their_number() {
        for (text, line) in [
            (&b"lxc.tty.max 8\n"[..], 1),
            (b"\n\nnothing = 1", 3),
            (b"lxc.tty.max = 8\nlxc.\xff = 1", 2),
            (b"lxc.uts.name = a\0b", 1),
        ] {
            let (_, refused) = read_text(text);
            assert_eq!(refused.len(), 1, "{refused:?}");
            assert_eq!(refused[0].line, line);
            assert!(!refused[0].remedy.is_empty());
        }
        let large = vec![b'#'; BYTES_MAX + 1];
        let (lines, refused) = read_text(&large);
        assert_eq!((lines.len(), refused.len()), (0, 1));
    }

    #[test]
    fn what_is_told_is_bounded() {
        let text = "x\n".repeat(1000);
        let mut problems = Problems::default();
        read(text.as_bytes(), &mut problems);
        assert_eq!(problems.kept.len(), PROBLEMS_MAX);
        assert!(problems.to_string().ends_with("| and 984 more"));
    }
}
