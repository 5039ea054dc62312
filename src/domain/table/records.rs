//! Text into records of cells, as RFC 4180 says.
//!
//! The crate that writes our CSV also reads it, but takes anything: it cannot tell a quote that is
//! never closed, and people want to know where theirs is.

use std::borrow::Cow;

use super::super::values::Place;
use super::{Delimiter, TableError};

/// Reads one record after the other.
pub(super) struct Records<'a> {
    text: &'a str,
    delimiter: u8,
    /// How far the text is read.
    at: usize,
    /// The line that is being read, from 1, and where it begins.
    line: u64,
    line_start: usize,
}

/// What a cell ends with.
#[derive(PartialEq, Eq)]
enum End {
    Cell,
    Record,
}

impl<'a> Records<'a> {
    /// Of this text; a byte order mark before it is passed over.
    pub(super) fn new(bytes: &'a [u8], delimiter: Delimiter) -> Result<Self, TableError> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let mut records = Self {
            text: "",
            delimiter: delimiter.byte(),
            at: 0,
            line: 1,
            line_start: 0,
        };
        match std::str::from_utf8(bytes) {
            Ok(text) => {
                records.text = text;
                Ok(records)
            }
            Err(error) => {
                let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
                records.text = std::str::from_utf8(valid).unwrap_or_default();
                records.pass_lines(valid.len());
                Err(records.malformed(valid.len(), "is not UTF-8"))
            }
        }
    }

    /// Reads the cells of the next record that is not empty, and tells the line it begins in;
    /// `None` at the end.
    pub(super) fn next(
        &mut self,
        cells: &mut Vec<Cow<'a, str>>,
    ) -> Result<Option<u64>, TableError> {
        while self.at < self.text.len() {
            cells.clear();
            let line = self.line;
            while self.cell(cells)? == End::Cell {}
            if cells.iter().any(|cell| !cell.is_empty()) {
                return Ok(Some(line));
            }
        }
        Ok(None)
    }

    fn cell(&mut self, cells: &mut Vec<Cow<'a, str>>) -> Result<End, TableError> {
        let bytes = self.text.as_bytes();
        if bytes.get(self.at) == Some(&b'"') {
            let cell = self.quoted()?;
            cells.push(cell);
        } else {
            let rest = bytes.get(self.at..).unwrap_or_default();
            let ends = |byte: &u8| *byte == self.delimiter || matches!(byte, b'\n' | b'\r');
            let end = self.at + rest.iter().position(ends).unwrap_or(rest.len());
            cells.push(Cow::Borrowed(&self.text[self.at..end]));
            self.at = end;
        }
        match bytes.get(self.at) {
            None => Ok(End::Record),
            Some(byte) if *byte == self.delimiter => {
                self.at += 1;
                Ok(End::Cell)
            }
            Some(b'\r' | b'\n') => {
                let ended = if bytes[self.at..].starts_with(b"\r\n") {
                    2
                } else {
                    1
                };
                self.pass_lines(self.at + ended);
                Ok(End::Record)
            }
            Some(_) => Err(self.malformed(
                self.at,
                "stands behind a closing quote; within quotes, a quote is written twice",
            )),
        }
    }

    /// A cell in quotes, with all that it may hold.
    fn quoted(&mut self) -> Result<Cow<'a, str>, TableError> {
        let text = self.text;
        let start = self.at + 1;
        let mut end = start;
        let mut doubled = false;
        loop {
            let Some(found) = text[end..].find('"') else {
                return Err(self.malformed(self.at, "opens a quote that is never closed"));
            };
            end += found;
            if text.as_bytes().get(end + 1) != Some(&b'"') {
                break;
            }
            doubled = true;
            end += 2;
        }
        self.pass_lines(end + 1);
        let inner = &text[start..end];
        Ok(if doubled {
            Cow::Owned(inner.replace("\"\"", "\""))
        } else {
            Cow::Borrowed(inner)
        })
    }

    /// Reads on to `end`, and counts the lines on the way.
    fn pass_lines(&mut self, end: usize) {
        let bytes = self.text.as_bytes();
        for at in self.at..end {
            let ends = match bytes[at] {
                b'\n' => true,
                b'\r' => bytes.get(at + 1) != Some(&b'\n'),
                _ => false,
            };
            if ends {
                self.line += 1;
                self.line_start = at + 1;
            }
        }
        self.at = end;
    }

    fn malformed(&self, at: usize, reason: &str) -> TableError {
        let before = self.text.get(self.line_start..at).unwrap_or_default();
        let column = u64::try_from(before.chars().count()).unwrap_or(u64::MAX);
        TableError::Malformed {
            place: Place::Text {
                line: self.line,
                column: column.saturating_add(1),
            },
            reason: reason.to_owned(),
        }
    }
}
