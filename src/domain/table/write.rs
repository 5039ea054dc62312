//! Rows as CSV.

use std::borrow::Cow;
use std::io;

use serde_json::value::RawValue;

use super::super::blueprint::{Field, Section};
use super::super::edition::Row;
use super::super::values::{Values, text_of};
use super::cell::BETWEEN_OPTIONS;
use super::guard::guarded;
use super::{ID_COLUMN, is_formula};

/// Writes rows of a section as CSV (RFC 4180), a header with the names of the fields before them.
/// Rows are named by a first column `id`, the one record of a section that is filled once is not.
pub struct TableWriter<'a, W: io::Write> {
    fields: Vec<&'a Field>,
    csv: csv::Writer<W>,
}

impl<'a, W: io::Write> TableWriter<'a, W> {
    /// Into `to`, with all fields of the section.
    pub fn new(to: W, section: &'a Section) -> Self {
        Self::of_fields(to, section.fields.iter())
    }

    /// Into `to`, with these fields.
    pub fn of_fields(to: W, fields: impl IntoIterator<Item = &'a Field>) -> Self {
        Self {
            fields: fields.into_iter().collect(),
            csv: csv::WriterBuilder::new()
                .terminator(csv::Terminator::CRLF)
                .from_writer(to),
        }
    }

    /// The header for rows.
    pub fn rows_header(&mut self) -> io::Result<()> {
        self.csv.write_field(ID_COLUMN)?;
        self.values_header()
    }

    /// The header for what is filled once.
    pub fn values_header(&mut self) -> io::Result<()> {
        for field in &self.fields {
            self.csv.write_field(&*guarded(&field.name))?;
        }
        self.end_record()
    }

    /// One row.
    pub fn row(&mut self, row: &Row) -> io::Result<()> {
        self.csv.write_field(&*guarded(row.id.as_str()))?;
        self.values(&row.values)
    }

    /// The values of what is filled once.
    pub fn values(&mut self, values: &Values) -> io::Result<()> {
        let entries = values.entries()?;
        for (at, field) in self.fields.iter().enumerate() {
            // Most often values stand in the order of the fields.
            let value = match entries.get(at) {
                Some((name, value)) if *name == field.name => Some(value),
                _ => entries
                    .iter()
                    .find_map(|(name, value)| (*name == field.name).then_some(value)),
            };
            self.csv
                .write_field(&*cell(value.map_or("null", |value| value.get())))?;
        }
        self.end_record()
    }

    /// Gives back what was written into.
    pub fn finish(self) -> io::Result<W> {
        self.csv
            .into_inner()
            .map_err(csv::IntoInnerError::into_error)
    }

    fn end_record(&mut self) -> io::Result<()> {
        Ok(self.csv.write_record(None::<&[u8]>)?)
    }
}

/// A value as the text of a cell. Numbers are never guarded: nothing else begins with their signs
/// here, and a spreadsheet has to read them as numbers.
fn cell(json: &str) -> Cow<'_, str> {
    if json == "null" {
        return Cow::Borrowed("");
    }
    if let Some(text) = text_of(json) {
        return match guarded(&text) {
            Cow::Owned(guarded) => Cow::Owned(guarded),
            Cow::Borrowed(_) => text,
        };
    }
    if let Some(joined) = joined(json) {
        return Cow::Owned(guarded(&joined).into_owned());
    }
    debug_assert!(!is_formula(json) || json.starts_with('-'), "{json}");
    Cow::Borrowed(json)
}

/// A list of texts, as one text.
fn joined(json: &str) -> Option<String> {
    let list: Vec<&RawValue> = json
        .starts_with('[')
        .then(|| serde_json::from_str(json).ok())??;
    let texts: Option<Vec<Cow<'_, str>>> = list.iter().map(|value| text_of(value.get())).collect();
    Some(texts?.join(&BETWEEN_OPTIONS.to_string()))
}
