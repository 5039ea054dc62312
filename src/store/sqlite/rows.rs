//! Between rows and the domain's types.

use std::num::NonZeroU32;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use type_safe_id::{StaticType, TypeSafeId};
use uuid::Uuid;

use super::error::store_error;
use crate::domain::delivery::Lane;
use crate::domain::event::Event;
use crate::domain::ids::ProjectId;
use crate::domain::reach::Reach;
use crate::store::{Result, StoreError};

/// A time as it is kept.
pub(super) fn millis(time: DateTime<Utc>) -> i64 {
    time.timestamp_millis()
}

/// A duration as it is kept; one that is too long for that is as good as for ever.
pub(super) fn duration_millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}

/// A number of bytes or of rows as it is kept.
pub(super) fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A column, or what is wrong with it.
pub(super) fn get<'r, T>(row: &'r SqliteRow, column: &str) -> Result<T>
where
    T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    row.try_get(column).map_err(store_error)
}

/// A column that holds one of our ids.
pub(super) fn id<T: StaticType>(row: &SqliteRow, column: &str) -> Result<TypeSafeId<T>> {
    Ok(TypeSafeId::from_uuid(get::<Uuid>(row, column)?))
}

/// A column that holds a time.
pub(super) fn time(row: &SqliteRow, column: &str) -> Result<DateTime<Utc>> {
    to_time(get(row, column)?)
}

/// A column that holds a time or nothing.
pub(super) fn optional_time(row: &SqliteRow, column: &str) -> Result<Option<DateTime<Utc>>> {
    get::<Option<i64>>(row, column)?.map(to_time).transpose()
}

pub(super) fn to_time(millis: i64) -> Result<DateTime<Utc>> {
    DateTime::from_timestamp_millis(millis)
        .ok_or_else(|| StoreError::corrupt(format!("no time: {millis}")))
}

/// A column whose text one of our types is read from.
pub(super) fn parsed<T>(row: &SqliteRow, column: &str) -> Result<T>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    get::<&str>(row, column)?
        .parse()
        .map_err(|error| StoreError::corrupt(format!("{column}: {error}")))
}

/// A column as [`parsed`] reads it, or nothing.
pub(super) fn optional_parsed<T>(row: &SqliteRow, column: &str) -> Result<Option<T>>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    get::<Option<&str>>(row, column)?
        .map(str::parse)
        .transpose()
        .map_err(|error| StoreError::corrupt(format!("{column}: {error}")))
}

/// A column that holds a number that cannot be negative.
pub(super) fn unsigned<T: TryFrom<i64>>(row: &SqliteRow, column: &str) -> Result<T> {
    T::try_from(get::<i64>(row, column)?)
        .map_err(|_| StoreError::corrupt(format!("{column}: out of range")))
}

/// A column that holds a number that is at least one, or nothing.
pub(super) fn optional_nonzero(row: &SqliteRow, column: &str) -> Result<Option<NonZeroU32>> {
    get::<Option<u32>>(row, column)?
        .map(NonZeroU32::try_from)
        .transpose()
        .map_err(|error| StoreError::corrupt(format!("{column}: {error}")))
}

/// A list as it is kept: JSON text, read whole and never searched.
pub(super) fn list<T: Serialize>(items: &T) -> Result<String> {
    serde_json::to_string(items).map_err(StoreError::corrupt)
}

/// A list out of its text.
pub(super) fn read_list<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(StoreError::corrupt)
}

/// The projects at which a reach ends, as JSON for `json_each`; null is all.
pub(super) fn projects(reach: &Reach) -> Result<Option<String>> {
    let projects = reach.projects.as_deref();
    projects
        .map(|projects| list(&projects.iter().map(ProjectId::as_str).collect::<Vec<_>>()))
        .transpose()
}

/// Whether a row of `subscription` is for projects within these only, which are JSON.
macro_rules! subscription_within {
    ($projects:literal) => {
        concat!(
            "subscription.project_ids is not null
                and not exists (
                    select 1
                    from json_each(subscription.project_ids) as own
                    where own.value not in (select value from json_each(",
            $projects,
            "))
                )"
        )
    };
}
pub(super) use subscription_within;

/// A lane as it is kept.
pub(super) fn lane_number(lane: Lane) -> i64 {
    match lane {
        Lane::Fresh => 0,
        Lane::Retry => 1,
        Lane::Replay => 2,
    }
}

/// A lane out of the queue.
pub(super) fn lane_of(number: i64) -> Result<Lane> {
    Lane::ALL
        .into_iter()
        .find(|lane| lane_number(*lane) == number)
        .ok_or_else(|| StoreError::corrupt(format!("no lane {number}")))
}

/// A row of `event`.
pub(super) fn event(row: &SqliteRow) -> Result<Event> {
    Ok(Event {
        id: id(row, "id")?,
        workspace: parsed(row, "workspace")?,
        source: get(row, "source")?,
        external_id: get(row, "external_id")?,
        event_type: parsed(row, "type")?,
        project: optional_parsed(row, "project")?,
        edition: optional_parsed(row, "edition")?,
        occurred_at: time(row, "occurred_at")?,
        envelope: get::<String>(row, "body")?.into_boxed_str(),
    })
}
