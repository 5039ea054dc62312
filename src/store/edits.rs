//! What a write of edition data comes to: the pure part, the same in both databases.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};

use super::room::Size;
use super::snapshots::digest;
use super::{Edit, EditionRecord, Result, SectionData, StoreError, Write, Written};
use crate::domain::blueprint::{Field, Section};
use crate::domain::edition::{Edition, NotOpen, Row};
use crate::domain::ids::RowId;
use crate::domain::own_event::{Change, OwnEvent};
use crate::domain::payload::Payload;
use crate::domain::values::{Place, ValueFaults, Values};

/// Why a write goes no further.
pub(super) enum Stop {
    /// It comes to this, and nothing is changed.
    Answered(Written),
    /// It failed.
    Failed(StoreError),
}

/// How far a write got.
pub(super) type Progress<T> = std::result::Result<T, Stop>;

impl Stop {
    pub(super) fn invalid(faults: ValueFaults) -> Self {
        Self::Answered(Written::Invalid(faults))
    }

    /// What the write comes to.
    pub(super) fn outcome(self) -> Result<Written> {
        match self {
            Self::Answered(written) => Ok(written),
            Self::Failed(error) => Err(error),
        }
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

/// Lets go on who knows the edition as it is, and finds it open.
pub(super) fn check_open(before: &EditionRecord, write: &Write<'_>) -> Progress<()> {
    let edition = &before.edition;
    if write
        .versions
        .is_some_and(|known| !known.contains(&edition.version))
    {
        return Err(Stop::Failed(StoreError::Stale));
    }
    if !edition.status.takes_changes() {
        return Err(Stop::Answered(Written::NotOpen(edition.status.clone())));
    }
    Ok(())
}

/// Lets go on whose values were checked against the blueprint that is there.
pub(super) fn check_blueprint(version: Option<i64>, write: &Write<'_>) -> Progress<()> {
    if version == Some(write.blueprint_version) {
        Ok(())
    } else {
        Err(Stop::Answered(Written::BlueprintChanged))
    }
}

/// Takes a step that [`check_open`] let it take.
pub(super) fn stepped(
    before: EditionRecord,
    step: impl FnOnce(&mut Edition) -> std::result::Result<(), NotOpen>,
) -> Progress<Edition> {
    let mut edition = before.edition;
    step(&mut edition).map_err(|refused| Stop::Answered(Written::NotOpen(refused.status)))?;
    Ok(edition)
}

/// The event that tells of a write.
pub(super) fn own_event(
    event: &OwnEvent<'_>,
    write: &Write<'_>,
    now: DateTime<Utc>,
) -> Result<Payload> {
    event
        .build(write.event, &write.reach.workspace, now)
        .map_err(StoreError::corrupt)
}

/// What an edit did to the section.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Edited {
    /// It holds something else now.
    Changed,
    /// It held that already.
    Same,
}

/// An edit, with all that can be done for it before the transaction.
pub(super) struct Ready<'a> {
    pub(super) section: &'a Section,
    /// Its rows hold no nulls.
    pub(super) edit: Edit,
    /// What is told of it.
    pub(super) change: Change,
    /// What is wrong with it whatever is there.
    pub(super) faults: ValueFaults,
}

impl<'a> Ready<'a> {
    pub(super) fn of(section: &'a Section, edit: &Edit) -> Result<Self> {
        let (edit, faults) = match edit {
            Edit::PutRows(rows) => (Edit::PutRows(without_nulls(rows)?), repeated(rows)),
            Edit::AppendRows(rows) => (Edit::AppendRows(without_nulls(rows)?), repeated(rows)),
            other => (other.clone(), ValueFaults::default()),
        };
        Ok(Self {
            change: change(section, &edit)?,
            section,
            edit,
            faults,
        })
    }
}

fn change(section: &Section, edit: &Edit) -> Result<Change> {
    let section = section.name.clone();
    Ok(match edit {
        Edit::SetValues(values) => Change::ValuesSet {
            section,
            fields: names(values)?,
        },
        Edit::PutRows(rows) => Change::RowsReplaced {
            section,
            rows: rows.len(),
        },
        Edit::AppendRows(rows) => Change::RowsAppended {
            section,
            rows: rows.len(),
        },
        Edit::SetRow(row, values) => Change::RowSet {
            section,
            row: row.clone(),
            fields: names(values)?,
        },
        Edit::DeleteRow(row) => Change::RowDeleted {
            section,
            row: row.clone(),
        },
    })
}

fn names(values: &Values) -> Result<Vec<String>> {
    let entries = values.entries().map_err(StoreError::corrupt)?;
    Ok(entries
        .into_iter()
        .map(|(name, _)| name.into_owned())
        .collect())
}

/// Null says that a field is empty, and what is empty is not kept.
fn without_nulls(rows: &[Row]) -> Result<Vec<Row>> {
    let kept = |row: &Row| {
        let values = if row.values.as_str().contains("null") {
            merged(&Values::default(), &row.values)?
        } else {
            row.values.clone()
        };
        Ok(Row {
            id: row.id.clone(),
            values,
        })
    };
    rows.iter().map(kept).collect()
}

/// Rows whose ids stand there before.
fn repeated(rows: &[Row]) -> ValueFaults {
    let mut seen = HashSet::with_capacity(rows.len());
    let mut faults = ValueFaults::default();
    for (at, row) in rows.iter().enumerate() {
        if !seen.insert(&row.id) {
            faults.add(|| id_of(at), "stands there twice");
        }
    }
    faults
}

/// Rows whose ids are taken.
pub(super) fn taken(rows: &[Row], there: &HashSet<RowId>) -> ValueFaults {
    let mut faults = ValueFaults::default();
    for (at, row) in rows.iter().enumerate() {
        if there.contains(&row.id) {
            faults.add(|| id_of(at), "is the id of a row that is there");
        }
    }
    faults
}

fn id_of(at: usize) -> Place {
    Place::Pointer(format!("/rows/{at}/id"))
}

/// The values with those of a patch over them.
pub(super) fn merged(before: &Values, patch: &Values) -> Result<Values> {
    before.merge(patch).map_err(StoreError::corrupt)
}

/// The same; `None` where the patch says what is there already.
pub(super) fn patched(before: &Values, patch: &Values) -> Result<Option<Values>> {
    let after = merged(before, patch)?;
    // A merge lays a text out anew: only what was laid out the same way can be compared.
    let same = after == merged(before, &Values::default())?;
    Ok((!same).then_some(after))
}

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

    use super::*;
    use crate::domain::blueprint::{Bounds, FieldType, SectionKind};

    fn section(fields: &[(&str, FieldType)]) -> Section {
        let field = |(name, field_type): &(&str, FieldType)| Field {
            name: (*name).to_owned(),
            label: None,
            field_type: field_type.clone(),
            required: false,
            bounds: Bounds::default(),
            pattern: None,
        };
        Section {
            name: "costs".to_owned(),
            label: None,
            kind: SectionKind::Repeating,
            fields: fields.iter().map(field).collect(),
        }
    }

    fn row(id: &str, values: &str) -> Row {
        Row {
            id: RowId::new(id).unwrap(),
            values: Values::parse(values).unwrap(),
        }
    }

    #[test]
    fn rows_lose_their_nulls_and_tell_which_ids_come_twice() {
        let rows = vec![
            row("a", r#"{"x":null,"y":1.0}"#),
            row("b", r#"{"x":"null"}"#),
            row("a", "{}"),
        ];
        let section = section(&[("x", FieldType::Text), ("y", FieldType::Number)]);
        let ready = Ready::of(&section, &Edit::AppendRows(rows)).unwrap();
        let Edit::AppendRows(rows) = &ready.edit else {
            panic!("it is another edit")
        };
        assert_eq!(rows[0].values.as_str(), r#"{"y":1.0}"#);
        assert_eq!(rows[1].values.as_str(), r#"{"x":"null"}"#);
        let places: Vec<_> = ready.faults.told().iter().map(|one| &one.place).collect();
        assert_eq!(places, [&id_of(2)]);
    }

    #[test]
    fn a_patch_that_says_what_is_there_changes_nothing() {
        let before = Values::parse(r#"{"a": 1.50, "b": null}"#).unwrap();
        let patched = |patch| {
            let patched = patched(&before, &Values::parse(patch).unwrap()).unwrap();
            patched.map(|values| values.as_str().to_owned())
        };
        for patch in ["{}", r#"{"a":1.50}"#, r#"{"b":null}"#, r#"{"c":null}"#] {
            assert_eq!(patched(patch), None, "{patch}");
        }
        assert_eq!(patched(r#"{"a":null}"#).as_deref(), Some("{}"));
        assert_eq!(patched(r#"{"a":1.5}"#).as_deref(), Some(r#"{"a":1.5}"#));
    }

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
