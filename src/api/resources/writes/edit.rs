//! What a client sends for a section, held against the blueprint.

use crate::api::table::TableBody;
use crate::api::{Problem, Result};
use crate::domain::blueprint::{Section, SectionKind};
use crate::domain::edition::Row;
use crate::domain::ids::RowId;
use crate::domain::values::{Checker, Place, ValueFaults, Values, pointer_token};
use crate::store::Edit;

/// What is sent, not yet held against anything.
#[derive(Clone, Debug)]
pub(super) enum Sent {
    /// Values for a section that is filled once.
    Values(Values),
    /// Rows instead of those that are there.
    Put(TableBody),
    /// Rows behind those that are there.
    Append(TableBody),
    /// Values for one row.
    Row(RowId, Values),
    /// One row less.
    Delete(RowId),
}

/// What is to be written, and what the receipt tells of it.
#[derive(Debug)]
pub(super) struct Checked {
    /// For the store.
    pub(super) edit: Edit,
    /// The ids of the rows that were sent, in their order.
    pub(super) row_ids: Option<Vec<RowId>>,
}

impl Sent {
    /// Holds it against its section. `new_id` names the rows that have no id yet.
    pub(super) fn check(self, section: &Section, new_id: impl Fn() -> RowId) -> Result<Checked> {
        match (&self, section.kind) {
            (Self::Values(_), SectionKind::Repeating) => {
                let detail = "are of a section that is filled row by row: write its rows";
                return Err(Problem::value("/values", detail));
            }
            (Self::Values(_), SectionKind::Single) | (_, SectionKind::Repeating) => {}
            // It has no rows: there is nothing at that address.
            (_, SectionKind::Single) => return Err(Problem::not_found()),
        }
        let (edit, row_ids) = match self {
            Self::Values(values) => (Edit::SetValues(right(values, section)?), None),
            Self::Row(row, values) => (Edit::SetRow(row, right(values, section)?), None),
            Self::Delete(row) => (Edit::DeleteRow(row), None),
            Self::Put(table) => {
                let (rows, ids) = named(&table, section, new_id)?;
                (Edit::PutRows(rows), Some(ids))
            }
            Self::Append(table) => {
                let (rows, ids) = named(&table, section, new_id)?;
                (Edit::AppendRows(rows), Some(ids))
            }
        };
        Ok(Checked { edit, row_ids })
    }

    /// What is wrong with it, as it was sent.
    pub(super) fn refused(&self, mut faults: ValueFaults, section: &Section) -> Result<Problem> {
        if let Self::Put(table) | Self::Append(table) = self {
            table.place(&mut faults, section)?;
        }
        Ok(faults.into())
    }
}

/// The values, if their section takes them.
fn right(values: Values, section: &Section) -> Result<Values> {
    let mut faults = ValueFaults::default();
    Checker::new(section).check(&values, &mut faults, |name| {
        Place::Pointer(format!("/values/{}", pointer_token(name)))
    });
    Ok(faults.or(values)?)
}

/// The rows of a table, each with an id.
fn named(
    table: &TableBody,
    section: &Section,
    new_id: impl Fn() -> RowId,
) -> Result<(Vec<Row>, Vec<RowId>)> {
    let rows: Vec<Row> = table
        .read(section)?
        .into_iter()
        .map(|row| Row {
            id: row.id.unwrap_or_else(&new_id),
            values: row.values,
        })
        .collect();
    let ids = rows.iter().map(|row| row.id.clone()).collect();
    Ok((rows, ids))
}
