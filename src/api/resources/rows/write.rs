//! Rows as they are sent.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io;

use crate::api::Result;
use crate::api::page::{MAX_ANSWER_BYTES, json};
use crate::domain::blueprint::{Bounds, Field, FieldType, Section};
use crate::domain::edition::Row;
use crate::domain::table::TableWriter;
use crate::store::StoreError;

/// Rows, and what is told beside them.
pub(super) struct Table<'a> {
    pub(super) rows: &'a [Row],
    /// The edition's version.
    pub(super) version: i64,
    /// Behind the last of them, where there are more.
    pub(super) cursor: Option<&'a str>,
}

impl Table<'_> {
    /// How many there are to be written, as they are kept.
    pub(super) fn bytes(&self) -> usize {
        self.rows.iter().map(|row| row.values.as_str().len()).sum()
    }

    /// One document. Values go through as they are kept, so that figures keep their digits.
    pub(super) fn json(&self) -> Result<String> {
        let mut text = format!(r#"{{"edition_version":{},"data":["#, self.version);
        for (number, row) in self.rows.iter().enumerate() {
            if number > 0 {
                text.push(',');
            }
            push(&mut text, row, row.values.as_str())?;
        }
        text.push_str(r#"],"next_cursor":"#);
        text.push_str(&json(&self.cursor)?);
        text.push('}');
        Ok(text)
    }

    /// One document a line.
    pub(super) fn ndjson(&self) -> Result<String> {
        let mut text = String::new();
        for row in self.rows {
            push(&mut text, row, &on_one_line(row.values.as_str()))?;
            text.push('\n');
        }
        Ok(text)
    }

    /// A table with a column for each field of the section; where that is not known, for each value
    /// of these rows. `None` where it does not fit into an answer.
    pub(super) fn csv(&self, section: Option<&Section>) -> Result<Option<String>> {
        let made;
        let fields = if let Some(section) = section {
            &section.fields
        } else {
            made = self.columns()?;
            &made
        };
        let mut answer = Answer::default();
        let written = write_csv(&mut answer, fields, self.rows);
        if answer.is_full {
            return Ok(None);
        }
        written.map_err(StoreError::corrupt)?;
        let text = String::from_utf8(answer.bytes).map_err(StoreError::corrupt)?;
        Ok(Some(text))
    }

    fn columns(&self) -> Result<Vec<Field>> {
        let (mut columns, mut known) = (Vec::new(), HashSet::new());
        for row in self.rows {
            let entries = row.values.entries().map_err(StoreError::corrupt)?;
            for (name, _) in entries {
                if !known.contains(&*name) {
                    known.insert(name.clone().into_owned());
                    columns.push(column(name.into_owned()));
                }
            }
        }
        Ok(columns)
    }
}

fn write_csv(to: &mut Answer, fields: &[Field], rows: &[Row]) -> io::Result<()> {
    let mut writer = TableWriter::of_fields(to, fields);
    writer.rows_header()?;
    for row in rows {
        writer.row(row)?;
    }
    writer.finish()?;
    Ok(())
}

/// What is being written, up to the size of an answer: few rows may make a wide table.
#[derive(Default)]
struct Answer {
    bytes: Vec<u8>,
    is_full: bool,
}

impl io::Write for Answer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.is_full |= self.bytes.len() + bytes.len() > MAX_ANSWER_BYTES;
        if self.is_full {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn column(name: String) -> Field {
    Field {
        name,
        label: None,
        field_type: FieldType::Text,
        required: false,
        bounds: Bounds::default(),
        pattern: None,
    }
}

fn push(text: &mut String, row: &Row, values: &str) -> Result<()> {
    text.push_str(r#"{"id":"#);
    text.push_str(&json(&row.id.as_str())?);
    text.push_str(r#","values":"#);
    text.push_str(values);
    text.push('}');
    Ok(())
}

/// JSON has line ends between its parts only, where a blank does as well.
fn on_one_line(json: &str) -> Cow<'_, str> {
    if json.contains(['\n', '\r']) {
        Cow::Owned(json.replace(['\n', '\r'], " "))
    } else {
        Cow::Borrowed(json)
    }
}
