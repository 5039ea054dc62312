//! What goes to standard output: one JSON document, or text for people.

use std::io::{self, ErrorKind, IsTerminal, Write as _};

use anyhow::Context as _;
use comfy_table::presets::{NOTHING, UTF8_HORIZONTAL_ONLY};
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;

use super::CliError;
use crate::store::Page;

/// In which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Tables and sentences.
    Human,
    /// One JSON document.
    Json,
}

/// Standard output.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    form: Form,
}

impl Output {
    /// In this form.
    pub fn new(form: Form) -> Self {
        Self { form }
    }

    /// The form that was asked for.
    pub fn form(self) -> Form {
        self.form
    }

    /// Prints a document: as it is in JSON, in the words of `human` otherwise.
    pub fn print<T: Serialize>(
        self,
        document: &T,
        human: impl FnOnce(&T) -> String,
    ) -> Result<(), CliError> {
        let text = match self.form {
            Form::Human => human(document),
            Form::Json => serde_json::to_string_pretty(document).context("writing JSON")?,
        };
        let mut out = io::stdout().lock();
        match writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()) {
            // `forge-dispatch … | head`: whoever reads has seen enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            result => Ok(result.context("writing to standard output")?),
        }
    }
}

/// One page of a list.
#[derive(Debug, Serialize)]
pub struct List<V> {
    data: Vec<V>,
    /// What `--after` takes to go on; nothing on the last page.
    next_cursor: Option<String>,
}

impl<V> List<V> {
    /// The store's page, each item as it is printed.
    pub fn new<Item, Key: ToString>(page: &Page<Item, Key>, view: impl Fn(&Item) -> V) -> Self {
        Self {
            data: page.items.iter().map(view).collect(),
            next_cursor: page.next.as_ref().map(Key::to_string),
        }
    }

    /// The page as a table of `what`, and how to go on.
    pub fn describe(&self, what: &str, header: &[&str], row: impl Fn(&V) -> Vec<String>) -> String {
        if self.data.is_empty() {
            return format!("no {what}");
        }
        let table = table(header, self.data.iter().map(row));
        match &self.next_cursor {
            Some(next) => format!("{table}\nmore {what}: --after {next}"),
            None => table,
        }
    }
}

/// A table: ruled and fitted to the width of a terminal, plainly aligned elsewhere.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    let terminal = io::stdout().is_terminal();
    if terminal {
        table
            .load_style(UTF8_HORIZONTAL_ONLY)
            .set_content_arrangement(ContentArrangement::Dynamic);
    } else {
        table.load_style(NOTHING);
    }
    table.set_header(header);
    for row in rows {
        table.add_row(row.iter().map(|cell| plain(cell)).collect::<Vec<_>>());
    }
    let text = table.trim_fmt();
    if terminal {
        return text;
    }
    // Each cell has a blank at its left; at the left of everything it is in the way.
    let lines: Vec<&str> = text
        .lines()
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .collect();
    lines.join("\n")
}

/// Names and values, one pair a line.
pub fn fields(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{name:width$}  {}\n", plain(value)))
        .collect();
    lines.concat()
}

/// Text from outside without what a terminal would obey: a receiver's answer must not move the
/// cursor or colour the screen.
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for char in text.chars() {
        if char.is_control() || is_direction(char) {
            plain.extend(char.escape_default());
        } else {
            plain.push(char);
        }
    }
    plain
}

/// Characters that turn the direction of writing, and so what is read.
fn is_direction(char: char) -> bool {
    matches!(char, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// What stands for nothing.
pub fn or_dash(text: Option<impl ToString>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| text.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown_instead() {
        assert_eq!(plain("a\u{1b}[2Jb\r\n"), "a\\u{1b}[2Jb\\r\\n");
        assert_eq!(plain("\u{202e}evil"), "\\u{202e}evil");
        assert_eq!(plain("Größe ✓"), "Größe ✓");
    }

    #[test]
    fn fields_line_up() {
        let text = fields(&[("id", "1".to_owned()), ("status", "x".to_owned())]);
        assert_eq!(text, "id      1\nstatus  x\n");
    }
}
