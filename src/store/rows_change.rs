//! Rows that are put instead of others, the same in both databases.

use std::collections::HashMap;

use super::room::Size;
use super::snapshots::digest;
use super::{Result, SectionData, StoreError};
use crate::domain::blueprint::{Field, Section};
use crate::domain::edition::Row;
use crate::domain::ids::RowId;
use crate::domain::values::Values;
use crate::heavy::heavy;

/// What is to be written so that a section holds other rows than it does. A row keeps its place as
/// long as those before it do, so that only what differs is written.
pub(super) struct RowsChange {
    /// The places of the rows that go.
    pub(super) stale: Vec<i64>,
    /// The rows that come, with their places.
    pub(super) fresh: Vec<(i64, Row)>,
    /// What all of the section's rows are recognised by then.
    pub(super) digest: [u8; 32],
    /// What they come to then.
    pub(super) size: Size,
}

impl RowsChange {
    /// From the rows that are there, with their places, to those that are wanted, which keep what only
    /// the core may write; `None` where they are there already. A section that holds values instead,
    /// since it was filled once before, changes in any case.
    pub(super) fn of(
        section: &Section,
        held: &SectionData,
        there: &[(i64, Row)],
        wanted: &[Row],
    ) -> Result<Option<Self>> {
        let rows = there.iter().map(|(_, row)| row).chain(wanted);
        let bytes = Size::of_rows(rows).bytes();
        heavy(bytes, || Self::between(section, held, there, wanted))
    }

    fn between(
        section: &Section,
        held: &SectionData,
        there: &[(i64, Row)],
        wanted: &[Row],
    ) -> Result<Option<Self>> {
        let wanted = with_read_only(section, there, wanted)?;
        let last = there.last().map_or(0, |(place, _)| *place);
        let beyond = (last + 1..).map(|place| (place, None));
        let places = there.iter().map(|(place, row)| (*place, Some(row)));
        let fresh: Vec<(i64, Row)> = places
            .chain(beyond)
            .zip(&wanted)
            .filter(|((_, row), wanted)| *row != Some(*wanted))
            .map(|((place, _), wanted)| (place, wanted.clone()))
            .collect();
        let replaced = fresh.iter().map(|(place, _)| *place);
        let over = there.iter().skip(wanted.len()).map(|(place, _)| *place);
        let stale: Vec<i64> = replaced
            .take_while(|place| *place <= last)
            .chain(over)
            .collect();
        let holds_values = matches!(held, SectionData::Single(_));
        let changes = holds_values || !(fresh.is_empty() && stale.is_empty());
        Ok(changes.then(|| Self {
            digest: digest(&wanted),
            size: Size::of_rows(&wanted),
            stale,
            fresh,
        }))
    }
}

fn with_read_only(section: &Section, there: &[(i64, Row)], wanted: &[Row]) -> Result<Vec<Row>> {
    if !section.fields.iter().any(Field::is_read_only) {
        return Ok(wanted.to_vec());
    }
    let there: HashMap<&RowId, &Values> = there
        .iter()
        .map(|(_, row)| (&row.id, &row.values))
        .collect();
    let kept = |row: &Row| {
        let values = match there.get(&row.id) {
            Some(before) => row
                .values
                .with_read_only_of(before, section)
                .map_err(StoreError::corrupt)?,
            None => row.values.clone(),
        };
        Ok(Row {
            id: row.id.clone(),
            values,
        })
    };
    wanted.iter().map(kept).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::edits::tests::{row, section};
    use super::*;
    use crate::domain::blueprint::FieldType;

    #[test]
    fn a_put_keeps_what_only_the_core_may_write() {
        let section = section(&[("x", FieldType::Text), ("total", FieldType::Calculated)]);
        let there = [(3, row("a", r#"{"x":"old","total":7}"#))];
        let wanted = [row("b", r#"{"x":"1"}"#), row("a", r#"{"x":"new"}"#)];
        let change = RowsChange::of(&section, &SectionData::Repeating, &there, &wanted)
            .unwrap()
            .unwrap();
        assert_eq!(change.stale, [3]);
        let rows = [
            (3, row("b", r#"{"x":"1"}"#)),
            (4, row("a", r#"{"x":"new","total":7}"#)),
        ];
        assert_eq!(change.fresh, rows);
        let same = [row("a", r#"{"x":"old"}"#)];
        assert!(
            RowsChange::of(&section, &SectionData::Repeating, &there, &same)
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn no_rows_are_another_thing_than_values() {
        let section = section(&[("x", FieldType::Text)]);
        let to_none = |held| RowsChange::of(&section, &held, &[], &[]).unwrap();
        assert!(to_none(SectionData::Repeating).is_none());
        assert!(to_none(SectionData::Empty).is_none());
        let change = to_none(SectionData::Single(Values::default())).unwrap();
        assert!(change.fresh.is_empty() && change.stale.is_empty());
        assert_eq!(change.digest, digest(&[]));
    }

    proptest! {
        #[test]
        fn what_is_written_leads_to_the_rows_that_are_wanted(
            there in prop::collection::btree_map(1_i64..20, 0_u8..4, 0..8),
            kept in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
            new in prop::collection::vec(0_u8..4, 0..4),
        ) {
            let section = section(&[("x", FieldType::Text)]);
            let values = |number: u8| format!(r#"{{"x":"{number}"}}"#);
            let there: Vec<(i64, Row)> = there
                .into_iter()
                .map(|(place, number)| (place, row(&format!("old {place}"), &values(number))))
                .collect();
            let mut wanted: Vec<Row> = Vec::new();
            for index in kept.iter().filter(|_| !there.is_empty()) {
                let row = &there[index.index(there.len())].1;
                if !wanted.iter().any(|other| other.id == row.id) {
                    wanted.push(row.clone());
                }
            }
            let more = new.iter().enumerate();
            wanted.extend(more.map(|(at, number)| row(&format!("new {at}"), &values(*number))));

            let same = there.iter().map(|(_, row)| row).eq(&wanted);
            let change = RowsChange::of(&section, &SectionData::Repeating, &there, &wanted).unwrap();
            prop_assert_eq!(change.is_none(), same);
            let mut after: std::collections::BTreeMap<i64, Row> = there.into_iter().collect();
            if let Some(change) = change {
                prop_assert_eq!(change.digest, digest(&wanted));
                for place in change.stale {
                    prop_assert!(after.remove(&place).is_some());
                }
                for (place, row) in change.fresh {
                    prop_assert!(after.values().all(|other| other.id != row.id));
                    prop_assert!(after.insert(place, row).is_none());
                }
            }
            prop_assert!(after.values().eq(&wanted));
        }
    }
}
