//! Rows as tables: read out of what clients send, and written as what spreadsheets read.
//!
//! [`read_text`] takes CSV (RFC 4180) and tab-separated text, [`read_json`] rows in JSON; both hold
//! every cell against the blueprint and take all or nothing. [`TableWriter`] writes CSV that
//! [`read_text`] reads back, and that no spreadsheet takes for formulas.

mod cell;
mod guard;
mod header;
mod json;
mod read;
mod records;
mod write;

use std::collections::HashSet;

use super::ids::RowId;
use super::values::{Place, ValueFaults, Values};

pub use guard::{guarded, is_formula};
pub use json::read_json;
pub use read::{places_of_ids, read_text};
pub use write::TableWriter;

/// The most rows that one request may send.
pub const MAX_ROWS_SENT: usize = 50_000;

/// The column that names rows.
pub const ID_COLUMN: &str = "id";

/// A row as a client sends it.
#[derive(Clone, Debug, PartialEq)]
pub struct NewRow {
    /// Which row it is; `None`: a new one.
    pub id: Option<RowId>,
    /// What it holds. Fields that the client leaves open may stand there as `null`.
    pub values: Values,
}

/// What stands between the cells of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delimiter {
    /// CSV.
    Comma,
    /// What a spreadsheet puts on the clipboard.
    Tab,
}

impl Delimiter {
    fn byte(self) -> u8 {
        match self {
            Self::Comma => b',',
            Self::Tab => b'\t',
        }
    }
}

/// Why rows were not taken. Nothing of them is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// The text is not of its format.
    #[error("{place}: {reason}")]
    Malformed {
        /// Where in the text.
        place: Place,
        /// What is wrong there.
        reason: String,
    },
    /// More than [`MAX_ROWS_SENT`].
    #[error("more than {MAX_ROWS_SENT} rows")]
    TooManyRows,
    /// Values that break the blueprint's rules.
    #[error("values that are not right")]
    Invalid(ValueFaults),
}

/// Ids of rows that were met, to tell one that comes again.
#[derive(Default)]
struct Known(HashSet<RowId>);

impl Known {
    /// Reads an id that no row before had.
    fn read(&mut self, text: &str) -> Result<RowId, String> {
        let id = RowId::new(text).map_err(|error| error.to_string())?;
        if self.0.insert(id.clone()) {
            Ok(id)
        } else {
            Err("names a row that another row names".to_owned())
        }
    }
}

#[cfg(test)]
mod tests;
