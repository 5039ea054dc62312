//! What the sections of an edition hold, as they are written. Their rows, and the version in its head,
//! belong to whoever has the edition's turn.
//!
//! To write content can take seconds. An accept with an event of the edition must not wait for that,
//! so whoever writes content goes by a lock that no accept takes, and touches what accepts touch only
//! when the content is written.

use std::collections::{BTreeSet, HashMap};

use futures::TryStreamExt;
use sqlx::PgTransaction;
use sqlx::postgres::PgBindIterExt;

use super::Result;
use super::errors::{expect_rows, from_sqlx};
use crate::domain::edition::Row;
use crate::domain::ids::{EditionId, WorkspaceId};
use crate::store::content::{Content, Held};

/// The advisory locks of editions' turns: hashes of their ids are beside it.
const TURN_LOCK: i32 = 0x6564_6974;

/// An edition whose content is written.
#[derive(Clone, Copy)]
pub(super) struct Holder<'a> {
    pub(super) workspace: &'a WorkspaceId,
    pub(super) edition: &'a EditionId,
}

/// Waits for the other writers of these editions' content, in an order that all keep, and goes before
/// them to the end of the transaction. What was read of the editions before is to be read again.
pub(super) async fn take_turn(
    tx: &mut PgTransaction<'_>,
    editions: impl IntoIterator<Item = Holder<'_>>,
) -> Result<()> {
    let keys: BTreeSet<String> = editions
        .into_iter()
        .map(|holder| format!("{}/{}", holder.workspace, holder.edition))
        .collect();
    sqlx::query(
        "-- postgres::contents::take_turn
        select pg_advisory_xact_lock($1, hash)
        from (
            select distinct hashtext(key) as hash from unnest($2::text[]) as keys (key) order by hash
        ) as sorted",
    )
    .bind(TURN_LOCK)
    .bind(keys.iter().map(String::as_str).bind_iter())
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(())
}

/// Puts this in the place of all that the edition held. Sections whose rows are the same are not
/// written again, and of the others only the rows that changed.
pub(super) async fn replace(
    tx: &mut PgTransaction<'_>,
    holder: Holder<'_>,
    content: &Content<'_>,
) -> Result<()> {
    let sections = content.sections();
    let digests = digests(tx, holder).await?;
    if !digests.is_empty() {
        forget(tx, holder, sections).await?;
    }
    if !sections.is_empty() {
        write_sections(tx, holder, sections).await?;
    }
    for section in sections {
        if section.is_kept(&digests) {
            continue;
        }
        let fresh: Vec<(i64, &Row)> = if digests.contains_key(section.name) {
            update_rows(tx, holder, section).await?
        } else {
            (1..).zip(section.rows()).collect()
        };
        if !fresh.is_empty() {
            write_rows(tx, holder, section.name, &fresh).await?;
        }
    }
    Ok(())
}

/// The sections that there are, and what the rows of each are recognised by; nothing where that is
/// not known.
async fn digests(
    tx: &mut PgTransaction<'_>,
    holder: Holder<'_>,
) -> Result<HashMap<String, Vec<u8>>> {
    let rows: Vec<(String, Option<Vec<u8>>)> = sqlx::query_as(
        "-- postgres::contents::digests
        select name, digest from edition_section where workspace = $1 and edition = $2",
    )
    .bind(holder.workspace.as_str())
    .bind(holder.edition.as_str())
    .fetch_all(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    let known = |(name, digest): (String, Option<Vec<u8>>)| (name, digest.unwrap_or_default());
    Ok(rows.into_iter().map(known).collect())
}

/// Deletes the sections that are no more, and the rows of all that are not repeating (any more).
async fn forget(
    tx: &mut PgTransaction<'_>,
    holder: Holder<'_>,
    sections: &[Held<'_>],
) -> Result<()> {
    let repeating = sections.iter().filter(|section| section.digest().is_some());
    sqlx::query(
        "-- postgres::contents::forget
        with gone as (
            delete from edition_section
            where workspace = $1 and edition = $2 and name <> all($3)
        )
        delete from edition_row
        where workspace = $1 and edition = $2 and section <> all($4)",
    )
    .bind(holder.workspace.as_str())
    .bind(holder.edition.as_str())
    .bind(sections.iter().map(|section| section.name).bind_iter())
    .bind(repeating.map(|section| section.name).bind_iter())
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(())
}

/// Writes its sections, none of which is there.
pub(super) async fn write(
    tx: &mut PgTransaction<'_>,
    holder: Holder<'_>,
    content: &Content<'_>,
) -> Result<()> {
    write_sections(tx, holder, content.sections()).await
}

async fn write_sections(
    tx: &mut PgTransaction<'_>,
    holder: Holder<'_>,
    sections: &[Held<'_>],
) -> Result<()> {
    let written = sqlx::query(
        "-- postgres::contents::write_sections
        insert into edition_section (workspace, edition, name, ord, content, digest)
        select
            $1, $2, unnest($3::text[]), unnest($4::integer[]), unnest($5::text[]),
            unnest($6::bytea[])
        on conflict on constraint edition_section_pk do update
        set ord = excluded.ord, content = excluded.content, digest = excluded.digest",
    )
    .bind(holder.workspace.as_str())
    .bind(holder.edition.as_str())
    .bind(sections.iter().map(|section| section.name).bind_iter())
    .bind((1_i32..).zip(sections).map(|(ord, _)| ord).bind_iter())
    .bind(sections.iter().map(Held::values).bind_iter())
    .bind(sections.iter().map(Held::digest).bind_iter())
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    expect_rows("edition_section", sections.len(), written.rows_affected())
}

/// Deletes the rows of a section that are not where and as they should be. Answers those that are then
/// missing, each with its place. To read rows and compare them costs a fifth of writing them.
async fn update_rows<'a>(
    tx: &mut PgTransaction<'_>,
    holder: Holder<'_>,
    section: &Held<'a>,
) -> Result<Vec<(i64, &'a Row)>> {
    let mut kept = sqlx::query_as::<_, (i64, String, String)>(
        "-- postgres::contents::update_rows (read)
        select ord, id, content
        from edition_row
        where workspace = $1 and edition = $2 and section = $3
        order by ord",
    )
    .bind(holder.workspace.as_str())
    .bind(holder.edition.as_str())
    .bind(section.name)
    .fetch(&mut **tx);
    let mut wanted = (1_i64..).zip(section.rows()).peekable();
    let (mut fresh, mut stale) = (Vec::new(), Vec::new());
    while let Some((ord, id, content)) = kept.try_next().await.map_err(from_sqlx)? {
        while let Some(missing) = wanted.next_if(|(place, _)| *place < ord) {
            fresh.push(missing);
        }
        match wanted.next_if(|(place, _)| *place == ord) {
            Some((_, row)) if row.id.as_str() == id && row.values.as_str() == content => {}
            other => {
                stale.push(ord);
                fresh.extend(other);
            }
        }
    }
    drop(kept);
    fresh.extend(wanted);
    if !stale.is_empty() {
        delete_rows(tx, holder, section.name, &stale).await?;
    }
    Ok(fresh)
}

/// Deletes the rows at these places.
pub(super) async fn delete_rows(
    tx: &mut PgTransaction<'_>,
    holder: Holder<'_>,
    section: &str,
    places: &[i64],
) -> Result<()> {
    let deleted = sqlx::query(
        "-- postgres::contents::delete_rows
        delete from edition_row
        where workspace = $1 and edition = $2 and section = $3 and ord = any($4)",
    )
    .bind(holder.workspace.as_str())
    .bind(holder.edition.as_str())
    .bind(section)
    .bind(places)
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    expect_rows("edition_row", places.len(), deleted.rows_affected())
}

/// Writes rows at their places, in their order, so that they come to lie beside one another.
pub(super) async fn write_rows(
    tx: &mut PgTransaction<'_>,
    holder: Holder<'_>,
    section: &str,
    rows: &[(i64, &Row)],
) -> Result<()> {
    let written = sqlx::query(
        "-- postgres::contents::write_rows
        insert into edition_row (workspace, edition, section, ord, id, content)
        select $1, $2, $3, unnest($4::bigint[]), unnest($5::text[]), unnest($6::text[])",
    )
    .bind(holder.workspace.as_str())
    .bind(holder.edition.as_str())
    .bind(section)
    .bind(rows.iter().map(|(ord, _)| *ord).bind_iter())
    .bind(rows.iter().map(|(_, row)| row.id.as_str()).bind_iter())
    .bind(rows.iter().map(|(_, row)| row.values.as_str()).bind_iter())
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    expect_rows("edition_row", rows.len(), written.rows_affected())
}
