//! What a write of edition data comes to: the pure part, the same in both databases.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};

use super::snapshots::digest;
use super::{Edit, EditionRecord, NewEdition, Result, StoreError, Write, Written};
use crate::domain::blueprint::{Blueprint, Field, Section};
use crate::domain::edition::{Edition, NotOpen, Row};
use crate::domain::ids::RowId;
use crate::domain::own_event::{Change, OwnEvent, WrittenRow};
use crate::domain::payload::Payload;
use crate::domain::snapshot::MAX_ROWS;
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

/// The event that tells of a new edition and its outputs.
pub(super) fn created_event(
    edition: &Edition,
    new: &NewEdition,
    blueprint: &Blueprint,
    write: &Write<'_>,
    now: DateTime<Utc>,
) -> Result<Payload> {
    let outputs: Vec<_> = new.outputs.iter().zip(&blueprint.outputs).collect();
    own_event(&OwnEvent::EditionCreated(edition, &outputs), write, now)
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

/// How many bytes of what was written its event carries; of more it only says where.
const MAX_TOLD_BYTES: usize = 256 * 1024;

fn change(section: &Section, edit: &Edit) -> Result<Change> {
    let section = section.name.clone();
    Ok(match edit {
        Edit::SetValues(values) => Change::ValuesSet {
            section,
            fields: names(values)?,
            values: told(values),
        },
        Edit::PutRows(rows) => Change::RowsReplaced {
            section,
            rows: rows.len(),
            data: told_rows(rows),
        },
        Edit::AppendRows(rows) => Change::RowsAppended {
            section,
            rows: rows.len(),
            data: told_rows(rows),
        },
        Edit::SetRow(row, values) => Change::RowSet {
            section,
            row: row.clone(),
            fields: names(values)?,
            values: told(values),
        },
        Edit::DeleteRow(row) => Change::RowDeleted {
            section,
            row: row.clone(),
        },
    })
}

fn told(values: &Values) -> Option<Values> {
    (values.as_str().len() <= MAX_TOLD_BYTES).then(|| values.clone())
}

fn told_rows(rows: &[Row]) -> Option<Vec<WrittenRow>> {
    let mut left = MAX_TOLD_BYTES;
    rows.iter()
        .map(|row| {
            let bytes = ROW_FRAME_BYTES + row.id.as_str().len() + row.values.as_str().len();
            left = left.checked_sub(bytes)?;
            Some(WrittenRow::from(row))
        })
        .collect()
}

/// What a row costs around its id and its values.
const ROW_FRAME_BYTES: usize = r#"{"id":"","values":},"#.len();

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
            faults.add(|| Place::RowId(at), "stands there twice");
        }
    }
    faults
}

/// Rows whose ids are taken.
pub(super) fn taken(rows: &[Row], there: &HashSet<RowId>) -> ValueFaults {
    let mut faults = ValueFaults::default();
    for (at, row) in rows.iter().enumerate() {
        if there.contains(&row.id) {
            faults.add(|| Place::RowId(at), "is the id of a row that is there");
        }
    }
    faults
}

/// Lets so many rows come to those that are there, if an edition may have as many.
pub(super) fn check_room(there: i64, come: usize) -> Progress<()> {
    let there = usize::try_from(there).unwrap_or_default();
    if there.saturating_add(come) <= MAX_ROWS {
        return Ok(());
    }
    let place = Place::Pointer("/rows".to_owned());
    let detail = format!("an edition has at most {MAX_ROWS} rows, all sections together");
    Err(Stop::invalid(ValueFaults::one(place, detail)))
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
}

impl RowsChange {
    /// From the rows that are there, with their places, to those that are wanted, which keep what only
    /// the core may write; `None` where they are there already.
    pub(super) fn of(
        section: &Section,
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
        let changes = !(fresh.is_empty() && stale.is_empty());
        Ok(changes.then(|| Self {
            digest: digest(&wanted),
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
        assert_eq!(places, [&Place::RowId(2)]);
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
        let change = RowsChange::of(&section, &there, &wanted).unwrap().unwrap();
        assert_eq!(change.stale, [3]);
        let rows = [
            (3, row("b", r#"{"x":"1"}"#)),
            (4, row("a", r#"{"x":"new","total":7}"#)),
        ];
        assert_eq!(change.fresh, rows);
        let same = [row("a", r#"{"x":"old"}"#)];
        assert!(RowsChange::of(&section, &there, &same).unwrap().is_none());
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
            let change = RowsChange::of(&section, &there, &wanted).unwrap();
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
