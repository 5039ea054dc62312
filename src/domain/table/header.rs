//! The first record of a table: which column holds what.

use std::borrow::Cow;

use super::super::blueprint::Section;
use super::super::values::{Place, ValueFaults};
use super::ID_COLUMN;

/// The most columns that a table may have.
const MAX_COLUMNS: usize = 1_000;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    /// The ids of rows.
    Id,
    /// The values of the field at this place of the section.
    Field(usize),
    /// Nothing: it has no name, and its cells must be empty.
    Nameless,
}

/// Finds what each column holds, and tells all that cannot be.
pub(super) fn columns(
    section: &Section,
    cells: &[Cow<'_, str>],
    line: u64,
) -> Result<Vec<Column>, ValueFaults> {
    let mut faults = ValueFaults::default();
    let mut columns = Vec::with_capacity(cells.len());
    if cells.len() > MAX_COLUMNS {
        let place = Place::Text { line, column: 1 };
        let detail = format!("must be at most {MAX_COLUMNS} columns");
        return Err(ValueFaults::one(place, detail));
    }
    for cell in cells {
        let name = cell.trim();
        let found = match find(section, name) {
            Ok(column @ (Column::Id | Column::Field(_))) if columns.contains(&column) => {
                Err("stands there twice")
            }
            Ok(Column::Field(at)) if section.fields[at].is_read_only() => {
                Err("is read-only: leave it out")
            }
            found => found,
        };
        match found {
            Ok(column) => columns.push(column),
            Err(detail) => {
                columns.push(Column::Nameless);
                let column = || name.chars().take(100).collect();
                faults.add(
                    || Place::Cell {
                        line,
                        column: column(),
                    },
                    detail,
                );
            }
        }
    }
    faults.or(columns)
}

/// A column by its name: that of a field; or its label, in letters of any size, where only one
/// field has it.
fn find(section: &Section, name: &str) -> Result<Column, &'static str> {
    if name.is_empty() {
        return Ok(Column::Nameless);
    }
    if name == ID_COLUMN {
        return Ok(Column::Id);
    }
    let mut fields = section.fields.iter();
    if let Some(at) = fields.position(|field| field.name == name) {
        return Ok(Column::Field(at));
    }
    let wanted = name.to_lowercase();
    let alike = |text: &str| text.trim().to_lowercase() == wanted;
    let mut found = section
        .fields
        .iter()
        .enumerate()
        .filter(|(_, field)| alike(&field.name) || field.label.as_deref().is_some_and(alike));
    match (found.next(), found.next()) {
        (Some((at, _)), None) => Ok(Column::Field(at)),
        (Some(_), Some(_)) => Err("is the label of several fields: use the field's name"),
        (None, _) if wanted == ID_COLUMN => Ok(Column::Id),
        (None, _) => Err("is no field of this section"),
    }
}
