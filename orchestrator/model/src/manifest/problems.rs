//! Collecting problems, and reading one inline JSON file of the manifest while doing so.
//!
//! The collector keeps the first `limits::PROBLEMS_MAX` in text order and counts the rest without formatting them, so
//! that hostile text costs neither memory nor time. A reader method that returns `None` has reported why.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::json::{self, Data, Node};
use super::{Problem, Rejected};
use crate::limits;

/// Place in the text: the entry's number, then the node's number within its value.
pub(super) type Place = (usize, u32);

/// All problems found so far.
#[derive(Debug, Default)]
pub(super) struct Problems {
    /// The last part keeps problems of one place in the order in which they were found.
    kept: BTreeMap<(Place, usize), Problem>,
    total: usize,
}

impl Problems {
    /// Adds one.
    pub(super) fn add(
        &mut self,
        place: Place,
        code: &'static str,
        pointer: impl FnOnce() -> String,
        detail: fmt::Arguments<'_>,
        remedy: fmt::Arguments<'_>,
    ) {
        debug_assert!(
            super::CODES.iter().any(|(known, _)| *known == code),
            "{code}"
        );
        let number = (place, self.total);
        self.total += 1;
        if self.kept.len() >= limits::PROBLEMS_MAX {
            match self.kept.last_key_value() {
                Some((last, _)) if *last > number => {
                    self.kept.pop_last();
                }
                Some(_) | None => return,
            }
        }
        let problem = Problem {
            pointer: pointer(),
            code,
            detail: detail.to_string(),
            remedy: remedy.to_string(),
        };
        self.kept.insert(number, problem);
    }

    /// Adds one that concerns a whole entry.
    pub(super) fn add_entry(
        &mut self,
        (entry, key): (usize, &str),
        code: &'static str,
        detail: fmt::Arguments<'_>,
        remedy: fmt::Arguments<'_>,
    ) {
        self.add((entry, 0), code, || pointer_to(key), detail, remedy);
    }

    /// All of them, when there is any.
    pub(super) fn into_result(self) -> Result<(), Rejected> {
        if self.total == 0 {
            return Ok(());
        }
        Err(Rejected {
            problems: self.kept.into_values().collect(),
            total: self.total,
        })
    }
}

/// RFC 6901 pointer to an entry.
pub(super) fn pointer_to(key: &str) -> String {
    let mut pointer = String::new();
    json::push_part(&mut pointer, key);
    pointer
}

/// A text as it is shown in a problem: quoted, and cut when it is long.
pub(super) struct Shown<'a>(pub(super) &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const CHARS_MAX: usize = 80;
        match self.0.char_indices().nth(CHARS_MAX) {
            Some((end, _)) => write!(f, "{:?}…", &self.0[..end]),
            None => write!(f, "{:?}", self.0),
        }
    }
}

/// `did you mean "x"?` when one of the known words is close, else the list of them.
pub(super) fn suggestion<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.take(limits::CONTAINERS_MAX).collect();
    let close = known
        .iter()
        .filter(|_| word.len() <= limits::CONTAINER_NAME_BYTES_MAX)
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min();
    match close {
        Some((_, candidate)) => format!("did you mean {candidate:?}?"),
        None if known.is_empty() => "there is none to choose from".to_owned(),
        None => {
            const SHOWN_MAX: usize = 24;
            let rest = if known.len() > SHOWN_MAX { ", …" } else { "" };
            let shown = &known[..known.len().min(SHOWN_MAX)];
            format!("use one of: {}{rest}", shown.join(", "))
        }
    }
}

/// Reads one inline JSON file of the manifest.
pub(super) struct Reader<'a, 'p> {
    /// The entry's number in the text.
    pub(super) entry: usize,
    /// The entry's key.
    pub(super) key: &'a str,
    /// The file.
    pub(super) root: &'a Node,
    problems: &'p mut Problems,
}

impl<'a, 'p> Reader<'a, 'p> {
    /// Starts on a file; a name that stands twice in one object is reported at once.
    pub(super) fn new(
        entry: usize,
        key: &'a str,
        root: &'a Node,
        problems: &'p mut Problems,
    ) -> Self {
        let mut reader = Self {
            entry,
            key,
            root,
            problems,
        };
        root.duplicates(&mut |name, node| {
            reader.report(
                node,
                "duplicate-field",
                format_args!("{} stands twice in one object", Shown(name)),
                format_args!("keep one of the two"),
            );
        });
        reader
    }

    /// Reports a problem at a node of this file.
    pub(super) fn report(
        &mut self,
        node: &Node,
        code: &'static str,
        detail: fmt::Arguments<'_>,
        remedy: fmt::Arguments<'_>,
    ) {
        let (key, root) = (self.key, self.root);
        let pointer = || {
            let mut pointer = pointer_to(key);
            root.point(node.at, &mut pointer);
            pointer
        };
        self.problems
            .add((self.entry, node.at), code, pointer, detail, remedy);
    }

    /// The node is something else than `wanted`.
    pub(super) fn wrong_type(&mut self, node: &Node, wanted: &str) {
        self.report(
            node,
            "wrong-type",
            format_args!("this is {}", node.noun()),
            format_args!("give {wanted}"),
        );
    }

    /// A text.
    pub(super) fn text(&mut self, node: &'a Node) -> Option<&'a str> {
        match &node.data {
            Data::Text(text) if text.contains('\0') => {
                self.report(
                    node,
                    "nul-byte",
                    format_args!("the text holds a NUL character"),
                    format_args!("remove it"),
                );
                None
            }
            Data::Text(text) => Some(text),
            Data::Null | Data::Bool(_) | Data::Number(_) | Data::List(_) | Data::Object(_) => {
                self.wrong_type(node, "a text");
                None
            }
        }
    }

    /// The text of a field of `object`, when it is there.
    pub(super) fn text_of(&mut self, object: &'a Node, name: &str) -> Option<&'a str> {
        let node = object.get(name)?;
        self.text(node)
    }

    /// true or false.
    pub(super) fn flag(&mut self, node: &Node) -> Option<bool> {
        if let Data::Bool(flag) = node.data {
            return Some(flag);
        }
        self.wrong_type(node, "true or false");
        None
    }

    /// A whole number within `min..=max`.
    pub(super) fn whole(&mut self, node: &Node, min: u64, max: u64) -> Option<u64> {
        let number = match &node.data {
            Data::Number(number) => number.as_u64(),
            Data::Null | Data::Bool(_) | Data::Text(_) | Data::List(_) | Data::Object(_) => {
                self.wrong_type(node, "a whole number");
                return None;
            }
        };
        match number {
            Some(number) if (min..=max).contains(&number) => Some(number),
            Some(_) | None => {
                self.report(
                    node,
                    "out-of-range",
                    format_args!("{} is out of range", node.canonical()),
                    format_args!("use a whole number from {min} to {max}"),
                );
                None
            }
        }
    }

    /// A number within `min..=max`.
    pub(super) fn real(&mut self, node: &Node, min: f64, max: f64) -> Option<f64> {
        let number = match &node.data {
            Data::Number(number) => number.as_f64(),
            Data::Null | Data::Bool(_) | Data::Text(_) | Data::List(_) | Data::Object(_) => {
                self.wrong_type(node, "a number");
                return None;
            }
        };
        match number {
            Some(number) if (min..=max).contains(&number) => Some(number),
            Some(_) | None => {
                self.report(
                    node,
                    "out-of-range",
                    format_args!("{} is out of range", node.canonical()),
                    format_args!("use a number from {min} to {max}"),
                );
                None
            }
        }
    }

    /// A time: seconds as a number, or `500ms`, `5s`, `2min`, `1h`; at most `limits::DURATION_MAX`.
    pub(super) fn duration(&mut self, node: &'a Node) -> Option<Duration> {
        let duration = match &node.data {
            Data::Number(number) => number
                .as_f64()
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            Data::Text(text) => parse_duration(text),
            Data::Null | Data::Bool(_) | Data::List(_) | Data::Object(_) => {
                self.wrong_type(node, "seconds, or a text such as \"5s\" or \"2min\"");
                return None;
            }
        };
        match duration {
            Some(duration) if duration <= limits::DURATION_MAX => Some(duration),
            Some(_) | None => {
                self.report(
                    node,
                    "bad-duration",
                    format_args!("{} is not a time of at most 365 days", node.canonical()),
                    format_args!("give seconds, or a text such as \"500ms\", \"5s\", \"2min\""),
                );
                None
            }
        }
    }

    /// The fields of an object.
    pub(super) fn object(&mut self, node: &'a Node) -> Option<&'a [(String, Node)]> {
        if let Data::Object(fields) = &node.data {
            return Some(fields);
        }
        self.wrong_type(node, "an object");
        None
    }

    /// The items of a list of at most `limits::LIST_ITEMS_MAX`.
    pub(super) fn list(&mut self, node: &'a Node) -> Option<&'a [Node]> {
        match &node.data {
            Data::List(items) if items.len() <= limits::LIST_ITEMS_MAX => Some(items),
            Data::List(items) => {
                self.report(
                    node,
                    "too-many-items",
                    format_args!("the list has {} items", items.len()),
                    format_args!("use at most {}", limits::LIST_ITEMS_MAX),
                );
                None
            }
            Data::Null | Data::Bool(_) | Data::Number(_) | Data::Text(_) | Data::Object(_) => {
                self.wrong_type(node, "a list");
                None
            }
        }
    }

    /// A list of texts; those that are none are reported and left out.
    pub(super) fn texts(&mut self, node: &'a Node) -> Vec<&'a str> {
        let items = self.list(node).unwrap_or_default();
        items.iter().filter_map(|item| self.text(item)).collect()
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        node: &'a Node,
        code: &'static str,
        choices: &[(&'static str, T)],
    ) -> Option<T> {
        let word = self.text(node)?;
        let found = choices.iter().find(|(name, _)| *name == word);
        if found.is_none() {
            let remedy = suggestion(word, choices.iter().map(|(name, _)| *name));
            self.report(
                node,
                code,
                format_args!("{} is not known here", Shown(word)),
                format_args!("{remedy}"),
            );
        }
        found.map(|(_, value)| *value)
    }

    /// Reports the fields of `object` that are not `known`.
    pub(super) fn only(&mut self, object: &'a Node, known: &[&str]) {
        let Data::Object(fields) = &object.data else {
            return;
        };
        for (name, node) in fields {
            if !known.contains(&name.as_str()) {
                let remedy = suggestion(name, known.iter().copied());
                self.report(
                    node,
                    "unknown-field",
                    format_args!("the field {} is not known here", Shown(name)),
                    format_args!("{remedy}"),
                );
            }
        }
    }
}

/// `500ms`, `5`, `5s`, `2min`, `2m`, `1h`.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.len() > 12 {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    let millis = match unit.trim_start() {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [
            ("0", Some(0)),
            ("5", Some(5_000)),
            ("5s", Some(5_000)),
            ("10min", Some(600_000)),
            ("10m", Some(600_000)),
            ("1h", Some(3_600_000)),
            ("250ms", Some(250)),
            ("", None),
            ("s", None),
            ("-5", None),
            ("5d", None),
            ("1.5s", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(
                parse_duration(text),
                millis.map(Duration::from_millis),
                "{text:?}"
            );
        }
    }

    #[test]
    fn keeps_the_first_in_text_order() {
        let mut problems = Problems::default();
        for entry in (0..1_000).rev() {
            problems.add_entry(
                (entry, "k"),
                "bad-value",
                format_args!("{entry}"),
                format_args!(""),
            );
        }
        let rejected = problems.into_result().unwrap_err();
        assert_eq!(rejected.total, 1_000);
        let details: Vec<usize> = rejected
            .problems
            .iter()
            .map(|problem| problem.detail.parse().unwrap())
            .collect();
        assert_eq!(details, (0..limits::PROBLEMS_MAX).collect::<Vec<_>>());
    }
}
