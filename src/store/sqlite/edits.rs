//! What an edit changes in a section, in its write's transaction.

use std::collections::HashSet;

use sqlx::SqliteConnection;

use super::bulk::{self, Bulk};
use super::contents::write_rows;
use super::error::store_error;
use super::rows::{get, parsed};
use super::sections::{self, Place};
use crate::domain::edition::Row;
use crate::domain::ids::RowId;
use crate::domain::values::Values;
use crate::store::edits::{Edited, Progress, Ready, Stop, patched, taken};
use crate::store::room::{Exchange, Size};
use crate::store::rows_change::RowsChange;
use crate::store::{Edit, Result, SectionData, StoreError, Written};

/// Changes the section as the edit says, or nothing.
pub(super) async fn apply(
    transaction: &mut SqliteConnection,
    place: Place<'_>,
    ready: &Ready<'_>,
) -> Progress<Edited> {
    if !ready.faults.is_empty() {
        return Err(Stop::invalid(ready.faults.clone()));
    }
    match &ready.edit {
        Edit::SetValues(patch) => set_values(transaction, place, patch).await,
        Edit::PutRows(rows) => put_rows(transaction, place, ready, rows).await,
        Edit::AppendRows(rows) => append_rows(transaction, place, rows).await,
        Edit::SetRow(row, patch) => set_row(transaction, place, row, patch).await,
        Edit::DeleteRow(row) => delete_row(transaction, place, row).await,
    }
}

async fn set_values(
    transaction: &mut SqliteConnection,
    place: Place<'_>,
    patch: &Values,
) -> Progress<Edited> {
    let held = sections::one(transaction, place).await?;
    let before = match &held {
        SectionData::Single(values) => values.clone(),
        SectionData::Empty | SectionData::Repeating => Values::default(),
    };
    let Some(after) = patched(&before, patch)? else {
        return Ok(Edited::Same);
    };
    if held == SectionData::Repeating {
        forget_rows(transaction, place).await?;
    }
    let exchange = Exchange {
        goes: Size::of_values(&before),
        comes: Size::of_values(&after),
        at: "/values",
    };
    check_room(transaction, place, exchange).await?;
    write_section(transaction, place, Some(after.as_str()), None).await?;
    Ok(Edited::Changed)
}

async fn put_rows(
    transaction: &mut SqliteConnection,
    place: Place<'_>,
    ready: &Ready<'_>,
    rows: &[Row],
) -> Progress<Edited> {
    let held = sections::one(transaction, place).await?;
    let there = rows_of(transaction, place).await?;
    let Some(change) = RowsChange::of(ready.section, &held, &there, rows)? else {
        return Ok(Edited::Same);
    };
    let exchange = Exchange {
        goes: match &held {
            SectionData::Single(values) => Size::of_values(values),
            _ => Size::of_rows(there.iter().map(|(_, row)| row)),
        },
        comes: change.size,
        at: "/rows",
    };
    check_room(transaction, place, exchange).await?;
    if change.stale.len() == there.len() {
        forget_rows(transaction, place).await?;
    } else {
        delete_rows(transaction, place, &change.stale).await?;
    }
    let fresh: Vec<_> = change.fresh.iter().map(|(ord, row)| (*ord, row)).collect();
    write_rows(transaction, place, &fresh).await?;
    write_section(transaction, place, None, Some(&change.digest)).await?;
    Ok(Edited::Changed)
}

async fn append_rows(
    transaction: &mut SqliteConnection,
    place: Place<'_>,
    rows: &[Row],
) -> Progress<Edited> {
    if rows.is_empty() {
        return Ok(Edited::Same);
    }
    let faults = taken(rows, &those_there(transaction, place, rows).await?);
    if !faults.is_empty() {
        return Err(Stop::invalid(faults));
    }
    let exchange = Exchange {
        goes: Size::default(),
        comes: Size::of_rows(rows),
        at: "/rows",
    };
    check_room(transaction, place, exchange).await?;
    let last: i64 = sqlx::query_scalar(
        "-- sqlite::edits::append_rows
        select coalesce(max(ord), 0)
        from edition_row
        where workspace = ?1 and edition = ?2 and section = ?3",
    )
    .bind(place.workspace.as_str())
    .bind(place.edition.as_str())
    .bind(place.section)
    .fetch_one(&mut *transaction)
    .await
    .map_err(store_error)?;
    let fresh: Vec<_> = (last + 1..).zip(rows).collect();
    write_rows(transaction, place, &fresh).await?;
    write_section(transaction, place, None, None).await?;
    Ok(Edited::Changed)
}

async fn set_row(
    transaction: &mut SqliteConnection,
    place: Place<'_>,
    row: &RowId,
    patch: &Values,
) -> Progress<Edited> {
    let found = sqlx::query(
        "-- sqlite::edits::set_row (read)
        select ord, content
        from edition_row
        where workspace = ?1 and edition = ?2 and section = ?3 and id = ?4",
    )
    .bind(place.workspace.as_str())
    .bind(place.edition.as_str())
    .bind(place.section)
    .bind(row.as_str())
    .fetch_optional(&mut *transaction)
    .await
    .map_err(store_error)?;
    let Some(found) = found else {
        return Err(Stop::Answered(Written::NotFound));
    };
    let before = Values::trusted(get(&found, "content")?);
    let Some(after) = patched(&before, patch)? else {
        return Ok(Edited::Same);
    };
    let exchange = Exchange {
        goes: Size::of_values(&before),
        comes: Size::of_values(&after),
        at: "/values",
    };
    check_room(transaction, place, exchange).await?;
    sqlx::query(
        "-- sqlite::edits::set_row (write)
        update edition_row
        set content = ?5
        where workspace = ?1 and edition = ?2 and section = ?3 and ord = ?4",
    )
    .bind(place.workspace.as_str())
    .bind(place.edition.as_str())
    .bind(place.section)
    .bind(get::<i64>(&found, "ord")?)
    .bind(after.as_str())
    .execute(&mut *transaction)
    .await
    .map_err(store_error)?;
    write_section(transaction, place, None, None).await?;
    Ok(Edited::Changed)
}

async fn delete_row(
    transaction: &mut SqliteConnection,
    place: Place<'_>,
    row: &RowId,
) -> Progress<Edited> {
    let deleted = sqlx::query(
        "-- sqlite::edits::delete_row
        delete from edition_row
        where workspace = ?1 and edition = ?2 and section = ?3 and id = ?4",
    )
    .bind(place.workspace.as_str())
    .bind(place.edition.as_str())
    .bind(place.section)
    .bind(row.as_str())
    .execute(&mut *transaction)
    .await
    .map_err(store_error)?;
    if deleted.rows_affected() == 0 {
        return Err(Stop::Answered(Written::NotFound));
    }
    write_section(transaction, place, None, None).await?;
    Ok(Edited::Changed)
}

/// All rows of the section, with their places.
async fn rows_of(transaction: &mut SqliteConnection, place: Place<'_>) -> Result<Vec<(i64, Row)>> {
    let rows = sqlx::query(
        "-- sqlite::edits::rows_of
        select ord, id, content
        from edition_row
        where workspace = ?1 and edition = ?2 and section = ?3
        order by ord",
    )
    .bind(place.workspace.as_str())
    .bind(place.edition.as_str())
    .bind(place.section)
    .fetch_all(transaction)
    .await
    .map_err(store_error)?;
    rows.iter()
        .map(|row| Ok((get(row, "ord")?, sections::read(row)?)))
        .collect()
}

/// Lets go on whose edition has room for what is written. What an edition holds is reckoned only
/// where it is to grow.
async fn check_room(
    transaction: &mut SqliteConnection,
    place: Place<'_>,
    exchange: Exchange,
) -> Progress<()> {
    if exchange.fits_anywhere() {
        return Ok(());
    }
    let (rows, bytes): (i64, i64) = sqlx::query_as(
        "-- sqlite::edits::check_room
        select counted.number, counted.bytes + valued.bytes
        from (
            select
                count(*) as number,
                coalesce(sum(octet_length(id) + octet_length(content)), 0) as bytes
            from edition_row
            where workspace = ?1 and edition = ?2
        ) as counted
        cross join (
            select coalesce(sum(octet_length(content)), 0) as bytes
            from edition_section
            where workspace = ?1 and edition = ?2
        ) as valued",
    )
    .bind(place.workspace.as_str())
    .bind(place.edition.as_str())
    .fetch_one(transaction)
    .await
    .map_err(store_error)?;
    exchange.check_room(Size::reckoned(rows, bytes))
}

/// Which of these rows' ids are there.
async fn those_there(
    transaction: &mut SqliteConnection,
    place: Place<'_>,
    rows: &[Row],
) -> Result<HashSet<RowId>> {
    static SELECT: Bulk = Bulk::new(
        "-- sqlite::edits::those_there
        select id from edition_row where id in (",
        "?",
        ") and workspace = ? and edition = ? and section = ?",
    );
    let statements = SELECT.statements(
        rows,
        |statement, row| statement.bind(row.id.to_shared()),
        |statement| {
            statement
                .bind(place.workspace.to_shared())
                .bind(place.edition.to_shared())
                .bind(place.section)
        },
    );
    let found = bulk::fetch(transaction, statements).await?;
    found.iter().map(|row| parsed(row, "id")).collect()
}

/// Deletes the rows at these places.
async fn delete_rows(
    transaction: &mut SqliteConnection,
    place: Place<'_>,
    ords: &[i64],
) -> Result<()> {
    static DELETE: Bulk = Bulk::new(
        "-- sqlite::edits::delete_rows
        delete from edition_row where ord in (",
        "?",
        ") and workspace = ? and edition = ? and section = ?",
    );
    let statements = DELETE.statements(
        ords,
        |statement, ord| statement.bind(*ord),
        |statement| {
            statement
                .bind(place.workspace.to_shared())
                .bind(place.edition.to_shared())
                .bind(place.section)
        },
    );
    let deleted = bulk::execute(transaction, statements).await?;
    if deleted == ords.len() {
        Ok(())
    } else {
        Err(StoreError::corrupt("rows that were read are not there"))
    }
}

/// Deletes all rows of the section.
async fn forget_rows(transaction: &mut SqliteConnection, place: Place<'_>) -> Result<()> {
    sqlx::query(
        "-- sqlite::edits::forget_rows
        delete from edition_row where workspace = ?1 and edition = ?2 and section = ?3",
    )
    .bind(place.workspace.as_str())
    .bind(place.edition.as_str())
    .bind(place.section)
    .execute(transaction)
    .await
    .map_err(store_error)?;
    Ok(())
}

/// Writes what the section holds beside rows: its values, or what its rows are recognised by, where
/// that is known. One that is not there yet comes last.
async fn write_section(
    transaction: &mut SqliteConnection,
    place: Place<'_>,
    content: Option<&str>,
    digest: Option<&[u8]>,
) -> Result<()> {
    sqlx::query(
        "-- sqlite::edits::write_section
        insert into edition_section (workspace, edition, name, ord, content, digest)
        select ?1, ?2, ?3, coalesce(max(ord), 0) + 1, ?4, ?5
        from edition_section
        where workspace = ?1 and edition = ?2
        on conflict (workspace, edition, name) do update
        set content = excluded.content, digest = excluded.digest",
    )
    .bind(place.workspace.as_str())
    .bind(place.edition.as_str())
    .bind(place.section)
    .bind(content)
    .bind(digest)
    .execute(transaction)
    .await
    .map_err(store_error)?;
    Ok(())
}
