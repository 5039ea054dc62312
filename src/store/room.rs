//! How much an edition may hold, as far as clients fill it: the same in both databases.

use super::edits::{Progress, Stop};
use crate::domain::edition::{Row, SectionContent};
use crate::domain::snapshot::{MAX_ROWS, MAX_WRITTEN_BYTES};
use crate::domain::values::{Place, ValueFaults, Values};

/// What rows or values come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    rows: usize,
    /// Of ids and values, as they are kept.
    bytes: usize,
}

impl Size {
    /// As a database reckons it.
    pub(super) fn reckoned(rows: i64, bytes: i64) -> Self {
        Self {
            rows: usize::try_from(rows).unwrap_or_default(),
            bytes: usize::try_from(bytes).unwrap_or_default(),
        }
    }

    pub(super) fn of_rows<'r>(rows: impl IntoIterator<Item = &'r Row>) -> Self {
        rows.into_iter().fold(Self::default(), |size, row| Self {
            rows: size.rows + 1,
            bytes: size.bytes + row.id.as_str().len() + row.values.as_str().len(),
        })
    }

    pub(super) fn of_values(values: &Values) -> Self {
        Self {
            rows: 0,
            bytes: values.as_str().len(),
        }
    }

    pub(super) fn of_content<'c>(sections: impl IntoIterator<Item = &'c SectionContent>) -> Self {
        sections.into_iter().fold(Self::default(), |size, section| {
            let more = match section {
                SectionContent::Single(values) => Self::of_values(values),
                SectionContent::Repeating(rows) => Self::of_rows(rows),
            };
            Self {
                rows: size.rows + more.rows,
                bytes: size.bytes + more.bytes,
            }
        })
    }

    pub(super) fn bytes(self) -> usize {
        self.bytes
    }
}

/// What is to be written: what goes, and what comes in its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exchange {
    pub(super) goes: Size,
    pub(super) comes: Size,
    /// What a client is pointed to where there is no room for it.
    pub(super) at: &'static str,
}

impl Exchange {
    /// Whether it makes nothing larger: then there is room for it, whatever else there is.
    pub(super) fn fits_anywhere(self) -> bool {
        self.comes.rows <= self.goes.rows && self.comes.bytes <= self.goes.bytes
    }

    /// Lets go on whose edition, which holds so much, has room for it. One that the core made larger
    /// may still become smaller.
    pub(super) fn check_room(self, held: Size) -> Progress<()> {
        let after = |held: usize, goes: usize, comes: usize| {
            let grows = comes > goes;
            grows.then(|| held.saturating_sub(goes).saturating_add(comes))
        };
        let rows = after(held.rows, self.goes.rows, self.comes.rows);
        if rows.is_some_and(|rows| rows > MAX_ROWS) {
            let detail = format!("an edition has at most {MAX_ROWS} rows, all sections together");
            return Err(self.refused(detail));
        }
        let bytes = after(held.bytes, self.goes.bytes, self.comes.bytes);
        if bytes.is_some_and(|bytes| bytes > MAX_WRITTEN_BYTES) {
            let detail = format!(
                "an edition holds at most {} MB ({MAX_WRITTEN_BYTES} bytes) of values and ids of \
                 rows, all sections together",
                MAX_WRITTEN_BYTES / 1_000_000
            );
            return Err(self.refused(detail));
        }
        Ok(())
    }

    fn refused(self, detail: String) -> Stop {
        Stop::invalid(ValueFaults::one(Place::Pointer(self.at.to_owned()), detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(rows: usize, bytes: usize) -> Size {
        Size { rows, bytes }
    }

    fn has_room(held: Size, goes: Size, comes: Size) -> bool {
        let at = "/rows";
        Exchange { goes, comes, at }.check_room(held).is_ok()
    }

    #[test]
    fn there_is_room_up_to_the_last_row_and_byte() {
        let held = size(MAX_ROWS - 1, MAX_WRITTEN_BYTES - 10);
        let nothing = Size::default();
        assert!(has_room(held, nothing, size(1, 10)));
        assert!(!has_room(held, nothing, size(2, 10)));
        assert!(!has_room(held, nothing, size(1, 11)));
        assert!(has_room(held, size(5, 100), size(6, 110)));
        assert!(!has_room(held, size(5, 100), size(5, 111)));
    }

    #[test]
    fn what_is_too_large_may_become_smaller() {
        let held = size(MAX_ROWS + 9, MAX_WRITTEN_BYTES + 9);
        assert!(has_room(held, size(5, 5), size(5, 5)));
        assert!(has_room(held, size(5, 5), size(4, 1)));
        assert!(!has_room(held, size(5, 5), size(5, 6)));
        assert!(!has_room(held, size(5, 5), size(6, 5)));
    }
}
