//! What an edit changes in a section, in the transaction of its write, which has the edition's turn.

use std::collections::HashSet;

use sqlx::PgTransaction;
use sqlx::postgres::PgBindIterExt;

use super::Result;
use super::contents::{delete_rows, write_rows};
use super::errors::{expect_rows, from_sqlx};
use super::rows::parse;
use super::sections::{self, Place};
use crate::domain::edition::Row;
use crate::domain::ids::RowId;
use crate::domain::values::Values;
use crate::store::edits::{Edited, Progress, Ready, Stop, patched, taken};
use crate::store::room::{Exchange, Size};
use crate::store::rows_change::RowsChange;
use crate::store::{Edit, SectionData, Written};

/// Changes the section as the edit says, or nothing.
pub(super) async fn apply(
    tx: &mut PgTransaction<'_>,
    place: Place<'_>,
    ready: &Ready<'_>,
) -> Progress<Edited> {
    if !ready.faults.is_empty() {
        return Err(Stop::invalid(ready.faults.clone()));
    }
    match &ready.edit {
        Edit::SetValues(patch) => set_values(tx, place, patch).await,
        Edit::PutRows(rows) => put_rows(tx, place, ready, rows).await,
        Edit::AppendRows(rows) => append_rows(tx, place, rows).await,
        Edit::SetRow(row, patch) => set_row(tx, place, row, patch).await,
        Edit::DeleteRow(row) => delete_row(tx, place, row).await,
    }
}

async fn set_values(
    tx: &mut PgTransaction<'_>,
    place: Place<'_>,
    patch: &Values,
) -> Progress<Edited> {
    let held = sections::one(tx, place).await?;
    let before = match &held {
        SectionData::Single(values) => values.clone(),
        SectionData::Empty | SectionData::Repeating => Values::default(),
    };
    let Some(after) = patched(&before, patch)? else {
        return Ok(Edited::Same);
    };
    if held == SectionData::Repeating {
        forget_rows(tx, place).await?;
    }
    let exchange = Exchange {
        goes: Size::of_values(&before),
        comes: Size::of_values(&after),
        at: "/values",
    };
    check_room(tx, place, exchange).await?;
    write_section(tx, place, Some(after.as_str()), None).await?;
    Ok(Edited::Changed)
}

async fn put_rows(
    tx: &mut PgTransaction<'_>,
    place: Place<'_>,
    ready: &Ready<'_>,
    rows: &[Row],
) -> Progress<Edited> {
    let held = sections::one(tx, place).await?;
    let there = rows_of(tx, place).await?;
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
    check_room(tx, place, exchange).await?;
    if change.stale.len() == there.len() {
        forget_rows(tx, place).await?;
    } else if !change.stale.is_empty() {
        delete_rows(tx, place.holder(), place.section, &change.stale).await?;
    }
    if !change.fresh.is_empty() {
        let fresh: Vec<_> = change.fresh.iter().map(|(ord, row)| (*ord, row)).collect();
        write_rows(tx, place.holder(), place.section, &fresh).await?;
    }
    write_section(tx, place, None, Some(&change.digest)).await?;
    Ok(Edited::Changed)
}

async fn append_rows(
    tx: &mut PgTransaction<'_>,
    place: Place<'_>,
    rows: &[Row],
) -> Progress<Edited> {
    if rows.is_empty() {
        return Ok(Edited::Same);
    }
    let faults = taken(rows, &those_there(tx, place, rows).await?);
    if !faults.is_empty() {
        return Err(Stop::invalid(faults));
    }
    let exchange = Exchange {
        goes: Size::default(),
        comes: Size::of_rows(rows),
        at: "/rows",
    };
    check_room(tx, place, exchange).await?;
    let last: i64 = sqlx::query_scalar(
        "-- postgres::edits::append_rows
        select coalesce(max(ord), 0)
        from edition_row
        where workspace = $1 and edition = $2 and section = $3",
    )
    .bind(place.workspace.as_str())
    .bind(place.edition.as_str())
    .bind(place.section)
    .fetch_one(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    let fresh: Vec<_> = (last + 1..).zip(rows).collect();
    write_rows(tx, place.holder(), place.section, &fresh).await?;
    write_section(tx, place, None, None).await?;
    Ok(Edited::Changed)
}

async fn set_row(
    tx: &mut PgTransaction<'_>,
    place: Place<'_>,
    row: &RowId,
    patch: &Values,
) -> Progress<Edited> {
    let found: Option<(i64, String)> = sqlx::query_as(
        "-- postgres::edits::set_row (read)
        select ord, content
        from edition_row
        where workspace = $1 and edition = $2 and section = $3 and id = $4",
    )
    .bind(place.workspace.as_str())
    .bind(place.edition.as_str())
    .bind(place.section)
    .bind(row.as_str())
    .fetch_optional(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    let (ord, content) = found.ok_or(Stop::Answered(Written::NotFound))?;
    let before = Values::trusted(&content);
    let Some(after) = patched(&before, patch)? else {
        return Ok(Edited::Same);
    };
    let exchange = Exchange {
        goes: Size::of_values(&before),
        comes: Size::of_values(&after),
        at: "/values",
    };
    check_room(tx, place, exchange).await?;
    let set = sqlx::query(
        "-- postgres::edits::set_row (write)
        update edition_row
        set content = $5
        where workspace = $1 and edition = $2 and section = $3 and ord = $4",
    )
    .bind(place.workspace.as_str())
    .bind(place.edition.as_str())
    .bind(place.section)
    .bind(ord)
    .bind(after.as_str())
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    expect_rows("edition_row", 1, set.rows_affected())?;
    write_section(tx, place, None, None).await?;
    Ok(Edited::Changed)
}

async fn delete_row(tx: &mut PgTransaction<'_>, place: Place<'_>, row: &RowId) -> Progress<Edited> {
    let deleted = sqlx::query(
        "-- postgres::edits::delete_row
        delete from edition_row
        where workspace = $1 and edition = $2 and section = $3 and id = $4",
    )
    .bind(place.workspace.as_str())
    .bind(place.edition.as_str())
    .bind(place.section)
    .bind(row.as_str())
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    if deleted.rows_affected() == 0 {
        return Err(Stop::Answered(Written::NotFound));
    }
    write_section(tx, place, None, None).await?;
    Ok(Edited::Changed)
}

/// All rows of the section, with their places.
async fn rows_of(tx: &mut PgTransaction<'_>, place: Place<'_>) -> Result<Vec<(i64, Row)>> {
    let rows: Vec<(i64, String, String)> = sqlx::query_as(
        "-- postgres::edits::rows_of
        select ord, id, content
        from edition_row
        where workspace = $1 and edition = $2 and section = $3
        order by ord",
    )
    .bind(place.workspace.as_str())
    .bind(place.edition.as_str())
    .bind(place.section)
    .fetch_all(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    rows.into_iter()
        .map(|(ord, id, content)| {
            let row = Row {
                id: parse("edition_row.id", &id)?,
                values: Values::trusted(&content),
            };
            Ok((ord, row))
        })
        .collect()
}

/// Lets go on whose edition has room for what is written. What an edition holds is reckoned only
/// where it is to grow.
async fn check_room(
    tx: &mut PgTransaction<'_>,
    place: Place<'_>,
    exchange: Exchange,
) -> Progress<()> {
    if exchange.fits_anywhere() {
        return Ok(());
    }
    let (rows, bytes): (i64, i64) = sqlx::query_as(
        "-- postgres::edits::check_room
        select counted.number, counted.bytes + valued.bytes
        from (
            select
                count(*) as number,
                coalesce(sum(octet_length(id) + octet_length(content)), 0)::bigint as bytes
            from edition_row
            where workspace = $1 and edition = $2
        ) as counted
        cross join (
            select coalesce(sum(octet_length(content)), 0)::bigint as bytes
            from edition_section
            where workspace = $1 and edition = $2
        ) as valued",
    )
    .bind(place.workspace.as_str())
    .bind(place.edition.as_str())
    .fetch_one(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    exchange.check_room(Size::reckoned(rows, bytes))
}

/// Which of these rows' ids are there.
async fn those_there(
    tx: &mut PgTransaction<'_>,
    place: Place<'_>,
    rows: &[Row],
) -> Result<HashSet<RowId>> {
    let found: Vec<String> = sqlx::query_scalar(
        "-- postgres::edits::those_there
        select id
        from edition_row
        where workspace = $1 and edition = $2 and section = $3 and id = any($4)",
    )
    .bind(place.workspace.as_str())
    .bind(place.edition.as_str())
    .bind(place.section)
    .bind(rows.iter().map(|row| row.id.as_str()).bind_iter())
    .fetch_all(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    found.iter().map(|id| parse("edition_row.id", id)).collect()
}

/// Deletes all rows of the section.
async fn forget_rows(tx: &mut PgTransaction<'_>, place: Place<'_>) -> Result<()> {
    sqlx::query(
        "-- postgres::edits::forget_rows
        delete from edition_row where workspace = $1 and edition = $2 and section = $3",
    )
    .bind(place.workspace.as_str())
    .bind(place.edition.as_str())
    .bind(place.section)
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(())
}

/// Writes what the section holds beside rows: its values, or what its rows are recognised by, where
/// that is known. One that is not there yet comes last.
async fn write_section(
    tx: &mut PgTransaction<'_>,
    place: Place<'_>,
    content: Option<&str>,
    digest: Option<&[u8]>,
) -> Result<()> {
    let written = sqlx::query(
        "-- postgres::edits::write_section
        insert into edition_section (workspace, edition, name, ord, content, digest)
        select $1, $2, $3, coalesce(max(ord), 0) + 1, $4, $5
        from edition_section
        where workspace = $1 and edition = $2
        on conflict on constraint edition_section_pk do update
        set content = excluded.content, digest = excluded.digest",
    )
    .bind(place.workspace.as_str())
    .bind(place.edition.as_str())
    .bind(place.section)
    .bind(content)
    .bind(digest)
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    expect_rows("edition_section", 1, written.rows_affected())
}
