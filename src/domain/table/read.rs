//! Rows out of CSV and tab-separated text.

use std::borrow::Cow;

use super::super::blueprint::Section;
use super::super::values::{Checker, Place, ValueFaults, ValuesWriter, quoted};
use super::cell::to_json;
use super::guard::unguarded;
use super::header::{Column, columns};
use super::records::Records;
use super::{Delimiter, Known, MAX_ROWS_SENT, NewRow, TableError};

/// Reads rows of a section. The first record names the columns: fields by name or label, and `id`.
/// An empty cell is `null`; a record of empty cells is passed over.
pub fn read_text(
    bytes: &[u8],
    delimiter: Delimiter,
    section: &Section,
) -> Result<Vec<NewRow>, TableError> {
    let mut records = Records::new(bytes, delimiter)?;
    let mut cells = Vec::new();
    let Some(line) = records.next(&mut cells)? else {
        return Err(TableError::Malformed {
            place: Place::Text { line: 1, column: 1 },
            reason: "there is no header that names the columns".to_owned(),
        });
    };
    let columns = columns(section, &cells, line).map_err(TableError::Invalid)?;
    let names: Vec<String> = cells.iter().map(|cell| cell.trim().to_owned()).collect();
    let mut reader = Reader {
        checker: Checker::new(section),
        columns,
        names,
        fields: section
            .fields
            .iter()
            .map(|field| quoted(&field.name))
            .collect(),
        writer: ValuesWriter::default(),
        known: Known::default(),
        faults: ValueFaults::default(),
    };
    let mut rows = Vec::new();
    while let Some(line) = records.next(&mut cells)? {
        if rows.len() == MAX_ROWS_SENT {
            return Err(TableError::TooManyRows);
        }
        rows.push(reader.row(&cells, line));
    }
    reader.faults.or(rows).map_err(TableError::Invalid)
}

/// Finds, in a text that [`read_text`] takes, where the ids of rows stand: of these rows, each later
/// than the one before it.
pub fn places_of_ids(
    bytes: &[u8],
    delimiter: Delimiter,
    section: &Section,
    rows: &[usize],
) -> Result<Vec<Place>, TableError> {
    let mut records = Records::new(bytes, delimiter)?;
    let mut cells = Vec::new();
    let line = records.next(&mut cells)?.unwrap_or(1);
    let columns = columns(section, &cells, line).map_err(TableError::Invalid)?;
    let ids = columns.iter().position(|column| *column == Column::Id);
    let name = ids.and_then(|at| cells.get(at)).map_or("", |cell| cell);
    let name = name.trim().to_owned();
    let (mut places, mut row) = (Vec::with_capacity(rows.len()), 0);
    for wanted in rows {
        while let Some(line) = records.next(&mut cells)? {
            row += 1;
            if row > *wanted {
                let column = name.clone();
                places.push(Place::Cell { line, column });
                break;
            }
        }
    }
    Ok(places)
}

/// What reading one row after the other needs.
struct Reader<'a> {
    checker: Checker<'a>,
    columns: Vec<Column>,
    /// The columns as the header names them.
    names: Vec<String>,
    /// The names of the fields in the quotes of JSON.
    fields: Vec<String>,
    writer: ValuesWriter,
    known: Known,
    faults: ValueFaults,
}

impl Reader<'_> {
    fn row(&mut self, cells: &[Cow<'_, str>], line: u64) -> NewRow {
        let mut id = None;
        for (at, column) in self.columns.iter().enumerate() {
            let cell = cells.get(at).map_or("", |cell| cell);
            let read = match column {
                Column::Id if cell.trim().is_empty() => Ok(()),
                Column::Id => self
                    .known
                    .read(unguarded(cell.trim()))
                    .map(|read| id = Some(read))
                    .map_err(Cow::Owned),
                Column::Nameless if cell.is_empty() => Ok(()),
                Column::Nameless => Err("stands in a column without a name".into()),
                Column::Field(field) => value(&self.checker, *field, cell).map(|json| {
                    self.writer.push(&self.fields[*field], &json);
                }),
            };
            if let Err(detail) = read {
                let column = || self.names[at].chars().take(100).collect();
                self.faults.add(
                    || Place::Cell {
                        line,
                        column: column(),
                    },
                    detail,
                );
            }
        }
        let beyond = cells.get(self.columns.len()..).unwrap_or_default();
        if beyond.iter().any(|cell| !cell.is_empty()) {
            let place = || Place::Cell {
                line,
                column: String::new(),
            };
            self.faults
                .add(place, "has more cells than the header has columns");
        }
        NewRow {
            id,
            values: self.writer.finish(),
        }
    }
}

/// The value of a cell, in JSON.
fn value<'a>(
    checker: &Checker<'_>,
    field: usize,
    cell: &'a str,
) -> Result<Cow<'a, str>, Cow<'static, str>> {
    if cell.is_empty() {
        return Ok("null".into());
    }
    if cell.contains('\0') {
        return Err("must not hold NUL".into());
    }
    let field_type = &checker.section().fields[field].field_type;
    let Some(json) = to_json(field_type, cell)? else {
        return Ok("null".into());
    };
    checker.value(field, &json)?;
    Ok(json)
}
