//! Comma-separated values (RFC 4180): one file, or a zip of them where there are several sections.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write};

use ::csv::{Terminator, Writer, WriterBuilder};
use zip::write::{SimpleFileOptions, StreamWriter};
use zip::{CompressionMethod, ZipWriter};

use super::cell::Cell;
use super::error::RenderError;
use super::names::file_in_zip;
use super::render::Document;
use super::scratch::Scratch;
use crate::domain::blueprint::Section;

/// The sections of an edition as CSV.
pub struct CsvDocument {
    place: usize,
    sections: usize,
    /// `None` only while one section's file ends and the next one's begins.
    writer: Option<Writer<Sink>>,
}

enum Sink {
    Plain(Scratch),
    Zip(Box<ZipWriter<StreamWriter<Scratch>>>),
}

impl CsvDocument {
    /// An empty one, for so many sections.
    pub fn new(scratch: Scratch, sections: usize) -> Self {
        let sink = if sections > 1 {
            Sink::Zip(Box::new(ZipWriter::new_stream(scratch)))
        } else {
            Sink::Plain(scratch)
        };
        Self {
            place: 0,
            sections,
            writer: Some(writer(sink)),
        }
    }

    /// Ends the section's file and gives what lies below it.
    fn take_sink(&mut self) -> Result<Sink, RenderError> {
        let writer = self.writer.take().ok_or_else(broken)?;
        writer
            .into_inner()
            .map_err(|error| RenderError::Io(error.into_error()))
    }

    fn write<'a>(
        &mut self,
        texts: impl IntoIterator<Item = Cow<'a, str>>,
    ) -> Result<(), RenderError> {
        let writer = self.writer.as_mut().ok_or_else(broken)?;
        let failed = |error: ::csv::Error| RenderError::Io(error.into());
        for text in texts {
            writer.write_field(text.as_bytes()).map_err(failed)?;
        }
        writer.write_record(None::<&[u8]>).map_err(failed)
    }
}

impl Document for CsvDocument {
    fn begin(&mut self, section: &Section) -> Result<(), RenderError> {
        let mut sink = self.take_sink()?;
        if let Sink::Zip(zip) = &mut sink {
            let name = file_in_zip(self.place, self.sections, &section.name);
            let options =
                SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
            zip.start_file(name, options)?;
        }
        self.place += 1;
        self.writer = Some(writer(sink));
        self.write(section.fields.iter().map(|field| unformed(field.title())))
    }

    fn row(&mut self, cells: &[Cell<'_>]) -> Result<(), RenderError> {
        self.write(cells.iter().map(field))
    }

    fn finish(mut self: Box<Self>) -> Result<File, RenderError> {
        let scratch = match self.take_sink()? {
            Sink::Plain(scratch) => scratch,
            Sink::Zip(zip) => zip.finish()?.into_inner(),
        };
        scratch.into_file().map_err(RenderError::Io)
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(scratch) => scratch.write(bytes),
            Self::Zip(zip) => zip.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(scratch) => scratch.flush(),
            // A zip that is flushed begins a new block of its compression.
            Self::Zip(_) => Ok(()),
        }
    }
}

fn writer(sink: Sink) -> Writer<Sink> {
    WriterBuilder::new()
        .terminator(Terminator::CRLF)
        .from_writer(sink)
}

fn broken() -> RenderError {
    RenderError::Io(io::Error::other("the last section's file did not end"))
}

/// A cell's text. Numbers stand as they came; all else is text, whatever a spreadsheet would make
/// of it.
fn field<'a>(cell: &'a Cell<'a>) -> Cow<'a, str> {
    match cell {
        Cell::Empty => Cow::Borrowed(""),
        Cell::Number(digits) => Cow::Borrowed(digits),
        Cell::Boolean(true) => Cow::Borrowed("true"),
        Cell::Boolean(false) => Cow::Borrowed("false"),
        Cell::Text(text) | Cell::Date(_, text) | Cell::Instant(_, text) => unformed(text),
    }
}

/// A text that a spreadsheet does not take for a formula: it would run it when the file is opened.
/// An apostrophe before it is what spreadsheets themselves mark text by.
fn unformed(text: &str) -> Cow<'_, str> {
    if is_formula(text) {
        Cow::Owned(format!("'{text}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// Whether a spreadsheet may take a text for a formula.
pub fn is_formula(text: &str) -> bool {
    text.starts_with(['=', '+', '-', '@', '\t', '\r'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_no_formula_and_numbers_stay_numbers() {
        let text = |text: &'static str| Cell::Text(Cow::Borrowed(text));
        for (cell, expected) in [
            (text("=1+1"), "'=1+1"),
            (text("+1"), "'+1"),
            (text("-1"), "'-1"),
            (text("@SUM(A1)"), "'@SUM(A1)"),
            (text("\t=1"), "'\t=1"),
            (text("\r=1"), "'\r=1"),
            (text("a=1"), "a=1"),
            (text("'=1"), "'=1"),
            (Cell::Number("-1.50"), "-1.50"),
            (Cell::Boolean(true), "true"),
            (Cell::Empty, ""),
        ] {
            assert_eq!(field(&cell), expected);
        }
    }
}
