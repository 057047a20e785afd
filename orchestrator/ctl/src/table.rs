//! Tables for people: aligned columns, no lines, cut to the width of the terminal.
//!
//! When nobody looks (a pipe) nothing is cut, so that `grep` and `awk` see everything.

use crate::terminal::{Look, Tone, clean};

/// Fewest characters that are left of a column that may be cut.
const CUT_MIN: usize = 8;
const GAP: usize = 2;

/// A column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    title: &'static str,
    right: bool,
    may_be_cut: bool,
}

/// A column of texts.
pub(crate) const fn text(title: &'static str) -> Column {
    Column {
        title,
        right: false,
        may_be_cut: false,
    }
}

/// A column of texts that are cut when there is no room.
pub(crate) const fn long(title: &'static str) -> Column {
    Column {
        title,
        right: false,
        may_be_cut: true,
    }
}

/// A column of numbers.
pub(crate) const fn number(title: &'static str) -> Column {
    Column {
        title,
        right: true,
        may_be_cut: false,
    }
}

/// A cell.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

/// A cell with a colour.
pub(crate) fn toned(tone: Tone, text: impl ToString) -> Cell {
    Cell {
        text: clean(&text.to_string()),
        tone,
    }
}

/// A cell.
pub(crate) fn cell(text: impl ToString) -> Cell {
    toned(Tone::Plain, text)
}

/// A cell for what may be missing.
pub(crate) fn maybe(text: Option<impl ToString>) -> Cell {
    cell(text.map_or_else(|| "-".to_owned(), |text| text.to_string()))
}

/// A table.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(crate) fn new(columns: &[Column]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let row: Vec<Cell> = cells.into_iter().collect();
        debug_assert_eq!(row.len(), self.columns.len(), "a cell for each column");
        self.rows.push(row);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The text, one line a row after the line of titles.
    pub(crate) fn render(&self, look: &Look) -> String {
        let widths = self.widths(look.width);
        let titles: Vec<Cell> = self
            .columns
            .iter()
            .map(|column| toned(Tone::Faint, column.title))
            .collect();
        let mut text = String::new();
        for row in std::iter::once(&titles).chain(&self.rows) {
            let mut line = String::new();
            let mut blanks = 0;
            for ((cell, column), width) in row.iter().zip(&self.columns).zip(&widths) {
                let shown = cut(&cell.text, *width);
                let pad = width - shown.chars().count();
                let (before, after) = if column.right { (pad, 0) } else { (0, pad) };
                line.push_str(&" ".repeat(blanks + before));
                line.push_str(&look.paint(cell.tone, &shown));
                blanks = after + GAP;
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    fn widths(&self, available: Option<usize>) -> Vec<usize> {
        let mut widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(index, column)| {
                let cells = self.rows.iter().filter_map(|row| row.get(index));
                let longest = cells
                    .map(|cell| cell.text.chars().count())
                    .max()
                    .unwrap_or(0);
                longest.max(column.title.len())
            })
            .collect();
        let Some(available) = available else {
            return widths;
        };
        // The widest column that may be cut gives way, one character at a time, as long as one can.
        loop {
            let total = widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
            if total <= available {
                return widths;
            }
            let widest = widths
                .iter_mut()
                .zip(&self.columns)
                .filter(|(width, column)| column.may_be_cut && **width > CUT_MIN)
                .max_by_key(|(width, _)| **width);
            match widest {
                Some((width, _)) => *width -= 1,
                None => return widths,
            }
        }
    }
}

/// `text` in at most `width` characters.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut shown: String = text.chars().take(width.saturating_sub(1)).collect();
    shown.push('…');
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn table() -> Table {
        let mut table = Table::new(&[text("NAME"), number("SIZE"), long("WHY")]);
        table.row([
            cell("web"),
            cell(12),
            cell("exit code 3 after 1 s, tried again in 10 s"),
        ]);
        table.row([cell("a\nb"), maybe(None::<u32>), cell("")]);
        table.row([toned(Tone::Bad, "ü"), cell(123_456), cell("x")]);
        table
    }

    #[test]
    fn tables_are_aligned_and_cut_only_for_a_person() {
        let look = |width| Look {
            width,
            colour: false,
        };
        expect![[r#"
            NAME       SIZE  WHY
            web          12  exit code 3 after 1 s, tried again in 10 s
            a\u{a}b       -
            ü        123456  x
        "#]]
        .assert_eq(&table().render(&look(None)));
        expect![[r#"
            NAME       SIZE  WHY
            web          12  exit code 3 …
            a\u{a}b       -
            ü        123456  x
        "#]]
        .assert_eq(&table().render(&look(Some(30))));
        // Nothing useful fits: the least is shown rather than nothing.
        assert_eq!(
            table().render(&look(Some(1))),
            table().render(&look(Some(25)))
        );
    }

    #[test]
    fn colours_do_not_change_the_alignment() {
        let plain = table().render(&Look {
            width: Some(30),
            colour: false,
        });
        let mut coloured = table().render(&Look {
            width: Some(30),
            colour: true,
        });
        assert!(coloured.contains("\u{1b}[31mü\u{1b}[0m"));
        for sequence in ["0", "2", "31"] {
            coloured = coloured.replace(&format!("\u{1b}[{sequence}m"), "");
        }
        let trimmed = |text: &str| {
            text.lines()
                .map(str::trim_end)
                .collect::<Vec<_>>()
                .join("\n")
        };
        assert_eq!(trimmed(&coloured), trimmed(&plain));
    }
}
