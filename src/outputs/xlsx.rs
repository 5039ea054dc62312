//! A workbook of Excel: a sheet for each section, written row by row to the disk.
//!
//! Text is written as text and nothing else: no cell is ever a formula or a link, and what looks
//! like a formula is marked as text (a quote prefix), so that it stays text when it is edited.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use rust_xlsxwriter::{
    ColNum, DocProperties, ExcelDateTime, Format, FormatAlign, FormatBorder, RowNum, Workbook,
    Worksheet, XlsxError,
};

use super::cell::Cell;
use super::csv::is_formula;
use super::error::RenderError;
use super::names::SheetNames;
use super::number::exact;
use super::render::Document;
use super::scratch::Scratch;
use crate::domain::blueprint::{Field, FieldType, Section};

/// The most rows that are put on a sheet, its header not counted. Excel ends at 1,048,576.
pub const MAX_ROWS: u32 = 1_000_000;

/// The most columns of a sheet.
const MAX_COLUMNS: usize = 16_384;

/// The longest text of a cell, in UTF-16 units.
const MAX_TEXT: usize = 32_767;

/// The days from which on Excel's calendar is ours: it has a 29 February 1900.
const FIRST_DAY: NaiveDate = day(1900, 3, 1);
const LAST_DAY: NaiveDate = day(9999, 12, 31);

/// The day that a workbook counts from.
const DAY_ZERO: NaiveDate = day(1899, 12, 30);

/// The narrowest and the widest column that a title makes, in characters.
const WIDTHS: (usize, usize) = (10, 60);

/// The sections of an edition as a workbook.
pub struct XlsxDocument {
    workbook: Workbook,
    scratch: Scratch,
    names: SheetNames,
    formats: Formats,
    max_rows: u32,
    /// The row that is written next, on the sheet that was begun last.
    next_row: RowNum,
    section: String,
    titles: Vec<String>,
}

struct Formats {
    header: Format,
    date: Format,
    instant: Format,
    guarded: Format,
}

impl XlsxDocument {
    /// An empty one, made at this time; `directory` takes what is written of it until it is whole.
    pub fn new(
        scratch: Scratch,
        directory: &Path,
        made_at: DateTime<Utc>,
        max_rows: u32,
    ) -> Result<Self, RenderError> {
        let mut workbook = Workbook::new();
        workbook.set_tempdir(directory)?;
        let made_at = ExcelDateTime::from_timestamp(made_at.timestamp())?;
        workbook.set_properties(&DocProperties::new().set_creation_datetime(&made_at));
        Ok(Self {
            workbook,
            scratch,
            names: SheetNames::default(),
            formats: Formats::new(),
            max_rows,
            next_row: 0,
            section: String::new(),
            titles: Vec::new(),
        })
    }
}

impl Document for XlsxDocument {
    fn begin(&mut self, section: &Section) -> Result<(), RenderError> {
        if section.fields.len() > MAX_COLUMNS {
            return Err(RenderError::TooManyColumns {
                section: section.name.clone(),
                most: MAX_COLUMNS,
            });
        }
        let name = self.names.name(section.title());
        let sheet = self.workbook.add_worksheet_with_constant_memory()?;
        sheet.set_name(name)?.set_freeze_panes(1, 0)?;
        // What a sheet says about its columns goes before its rows.
        for (column, field) in (0..).zip(&section.fields) {
            sheet.set_column_width(column, width(field))?;
        }
        for (column, field) in (0..).zip(&section.fields) {
            let title = shortened(field.title());
            sheet.write_string_with_format(0, column, title, &self.formats.header)?;
        }
        self.next_row = 1;
        self.section.clone_from(&section.name);
        let titles = section.fields.iter().map(Field::title);
        self.titles = titles.map(str::to_owned).collect();
        Ok(())
    }

    fn row(&mut self, cells: &[Cell<'_>]) -> Result<(), RenderError> {
        let row = self.next_row;
        if row > self.max_rows {
            return Err(RenderError::TooManyRows {
                section: self.section.clone(),
                most: self.max_rows,
            });
        }
        self.next_row += 1;
        let last = self.workbook.worksheets().len().saturating_sub(1);
        let sheet = self.workbook.worksheet_from_index(last)?;
        for (column, cell) in (0..).zip(cells) {
            match write(sheet, &self.formats, row, column, cell) {
                Ok(()) => {}
                Err(XlsxError::MaxStringLengthExceeded) => {
                    return Err(RenderError::TextTooLong {
                        section: self.section.clone(),
                        row,
                        field: self
                            .titles
                            .get(usize::from(column))
                            .cloned()
                            .unwrap_or_default(),
                        most: MAX_TEXT,
                    });
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<File, RenderError> {
        let mut buffered = BufWriter::new(self.scratch);
        self.workbook.save_to_writer(&mut buffered)?;
        let scratch = buffered
            .into_inner()
            .map_err(|error| RenderError::Io(error.into_error()))?;
        scratch.into_file().map_err(RenderError::Io)
    }
}

impl Formats {
    fn new() -> Self {
        Self {
            header: Format::new()
                .set_bold()
                .set_background_color("#DDE6F0")
                .set_border_bottom(FormatBorder::Thin)
                .set_align(FormatAlign::Top)
                .set_text_wrap(),
            date: Format::new().set_num_format("yyyy-mm-dd"),
            instant: Format::new().set_num_format("yyyy-mm-dd hh:mm:ss"),
            guarded: Format::new().set_quote_prefix(),
        }
    }
}

fn write(
    sheet: &mut Worksheet,
    formats: &Formats,
    row: RowNum,
    column: ColNum,
    cell: &Cell<'_>,
) -> Result<(), XlsxError> {
    match cell {
        Cell::Empty => return Ok(()),
        Cell::Boolean(value) => sheet.write_boolean(row, column, *value)?,
        Cell::Number(digits) => match exact(digits) {
            Some(number) => sheet.write_number(row, column, number)?,
            None => sheet.write_string_with_format(row, column, *digits, &formats.guarded)?,
        },
        Cell::Date(day, text) => match serial((*day).into()) {
            Some(serial) => sheet.write_number_with_format(row, column, serial, &formats.date)?,
            None => sheet.write_string(row, column, &**text)?,
        },
        // A workbook knows no time zones: UTC.
        Cell::Instant(at, text) => match serial(at.naive_utc()) {
            Some(serial) => {
                sheet.write_number_with_format(row, column, serial, &formats.instant)?
            }
            None => sheet.write_string(row, column, &**text)?,
        },
        Cell::Text(text) if is_formula(text) => {
            sheet.write_string_with_format(row, column, &**text, &formats.guarded)?
        }
        Cell::Text(text) => sheet.write_string(row, column, &**text)?,
    };
    Ok(())
}

const fn day(year: i32, month: u32, day: u32) -> NaiveDate {
    match NaiveDate::from_ymd_opt(year, month, day) {
        Some(day) => day,
        None => panic!("a day that there is"),
    }
}

/// The number that a workbook has for a time, if it has one.
fn serial(time: NaiveDateTime) -> Option<f64> {
    if !(FIRST_DAY..=LAST_DAY).contains(&time.date()) {
        return None;
    }
    let millis = (time - DAY_ZERO.and_time(NaiveTime::MIN)).num_milliseconds();
    #[expect(
        clippy::cast_precision_loss,
        reason = "the milliseconds of ten thousand years fit the mantissa"
    )]
    let millis = millis as f64;
    Some(millis / 86_400_000.0)
}

/// How wide a column is, in characters: what its type needs, and what its title does.
fn width(field: &Field) -> f64 {
    let needed = match field.field_type {
        FieldType::LongText => 60,
        FieldType::Text | FieldType::MultiSelect(_) => 28,
        FieldType::Datetime => 20,
        FieldType::Select(_) | FieldType::User | FieldType::File => 18,
        FieldType::Number | FieldType::Integer | FieldType::Calculated => 14,
        FieldType::Date | FieldType::Boolean | FieldType::Rag => 12,
    };
    let title = field.title().chars().count().saturating_add(2);
    let characters = title.clamp(WIDTHS.0, WIDTHS.1).max(needed);
    u32::try_from(characters).map_or(8.0, f64::from)
}

/// A title that fits into a cell: the names of a blueprint are not the edition's data.
fn shortened(title: &str) -> &str {
    let mut units = 0;
    let end = title.char_indices().find(|(_, char)| {
        units += char.len_utf16();
        units > MAX_TEXT
    });
    end.map_or(title, |(at, _)| &title[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_the_numbers_that_excel_has_for_them() {
        let serial = |text: &str| serial(text.parse().unwrap());
        assert_eq!(serial("1900-03-01T00:00:00"), Some(61.0));
        assert_eq!(serial("2026-05-01T00:00:00"), Some(46_143.0));
        assert_eq!(serial("2026-05-01T12:00:00"), Some(46_143.5));
        assert_eq!(serial("1900-02-28T00:00:00"), None);
        assert_eq!(serial("+10000-01-01T00:00:00"), None);
    }
}
