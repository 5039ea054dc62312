//! What a write of edition data comes to: the pure part, the same in both databases.

use std::collections::HashSet;

use chrono::{DateTime, Utc};

use super::room::Size;
use super::{Edit, EditionRecord, NewEdition, Result, StoreError, Write, Written};
use crate::domain::blueprint::{Blueprint, Section};
use crate::domain::edition::{Content, Edition, NotOpen, Row};
use crate::domain::ids::RowId;
use crate::domain::own_event::{Change, OwnEvent, WrittenRow};
use crate::domain::payload::Payload;
use crate::domain::values::{Place, ValueFaults, Values, check_complete};
use crate::heavy::heavy;

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

/// Lets go on where nothing is missing.
pub(super) fn lacks_nothing(blueprint: &Blueprint, content: &Content) -> Progress<()> {
    let bytes = Size::of_content(content.iter().map(|(_, section)| section)).bytes();
    let missing = heavy(bytes, || check_complete(blueprint, content));
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Stop::invalid(missing))
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
        .build(write.event, &write.reach.workspace, now, write.trace)
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
        let bytes = match edit {
            Edit::PutRows(rows) | Edit::AppendRows(rows) => Size::of_rows(rows).bytes(),
            _ => 0,
        };
        heavy(bytes, || Self::made(section, edit))
    }

    fn made(section: &'a Section, edit: &Edit) -> Result<Self> {
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::domain::blueprint::{Bounds, Field, FieldType, SectionKind};

    pub(in crate::store) fn section(fields: &[(&str, FieldType)]) -> Section {
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

    pub(in crate::store) fn row(id: &str, values: &str) -> Row {
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
}
