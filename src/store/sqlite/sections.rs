//! Finding what the sections of an edition hold.

use futures::TryStreamExt;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::error::store_error;
use super::rows::{count, get, parsed};
use crate::domain::blueprint::{Blueprint, SectionKind};
use crate::domain::edition::{Content, Row, SectionContent};
use crate::domain::ids::{EditionId, WorkspaceId};
use crate::domain::values::{RequiredFields, Values};
use crate::store::{Page, PageRequest, Result, SectionData};

/// Which section.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) workspace: &'a WorkspaceId,
    pub(super) edition: &'a EditionId,
    pub(super) section: &'a str,
}

/// What a section holds.
pub(super) async fn one(
    connection: &mut SqliteConnection,
    place: Place<'_>,
) -> Result<SectionData> {
    let row = sqlx::query(
        "-- sqlite::sections::one
        select content from edition_section where workspace = ?1 and edition = ?2 and name = ?3",
    )
    .bind(place.workspace.as_str())
    .bind(place.edition.as_str())
    .bind(place.section)
    .fetch_optional(connection)
    .await
    .map_err(store_error)?;
    let Some(row) = row else {
        return Ok(SectionData::Empty);
    };
    Ok(match get::<Option<&str>>(&row, "content")? {
        Some(values) => SectionData::Single(Values::trusted(values)),
        None => SectionData::Repeating,
    })
}

/// Rows of a section, up to so many bytes of them, but one at least.
pub(super) async fn rows(
    connection: &mut SqliteConnection,
    place: Place<'_>,
    page: PageRequest<i64>,
    max_bytes: usize,
) -> Result<Page<Row, i64>> {
    let mut found = sqlx::query(
        "-- sqlite::sections::rows
        select ord, id, content
        from edition_row
        where workspace = ?1 and edition = ?2 and section = ?3 and ord > ?4
        order by ord
        limit ?5",
    )
    .bind(place.workspace.as_str())
    .bind(place.edition.as_str())
    .bind(place.section)
    .bind(page.after.unwrap_or(i64::MIN))
    .bind(count(page.limit.saturating_add(1)))
    .fetch(connection);
    let (mut items, mut bytes, mut last) = (Vec::new(), 0_usize, None);
    while let Some(row) = found.try_next().await.map_err(store_error)? {
        let read = read(&row)?;
        bytes = bytes.saturating_add(size(&read));
        let full = items.len() >= page.limit || bytes > max_bytes;
        if full && !items.is_empty() {
            return Ok(Page { items, next: last });
        }
        items.push(read);
        last = Some(get(&row, "ord")?);
    }
    Ok(Page { items, next: None })
}

/// All that the edition holds; `None` where that is more than so many bytes.
pub(super) async fn all(
    connection: &mut SqliteConnection,
    workspace: &WorkspaceId,
    edition: &EditionId,
    max_bytes: usize,
) -> Result<Option<Content>> {
    let sections = sqlx::query(
        "-- sqlite::sections::all
        select name, content
        from edition_section
        where workspace = ?1 and edition = ?2
        order by ord",
    )
    .bind(workspace.as_str())
    .bind(edition.as_str())
    .fetch_all(&mut *connection)
    .await
    .map_err(store_error)?;
    let (mut content, mut left) = (Content::new(), max_bytes);
    for section in sections {
        let name: String = get(&section, "name")?;
        let held = if let Some(text) = get::<Option<&str>>(&section, "content")? {
            SectionContent::Single(Values::trusted(text))
        } else {
            let place = Place {
                workspace,
                edition,
                section: &name,
            };
            let everything = PageRequest {
                limit: usize::MAX,
                after: None,
            };
            let page = rows(connection, place, everything, left).await?;
            if page.next.is_some() {
                return Ok(None);
            }
            SectionContent::Repeating(page.items)
        };
        let bytes = match &held {
            SectionContent::Single(values) => values.as_str().len(),
            SectionContent::Repeating(rows) => rows.iter().map(size).sum(),
        };
        let Some(rest) = left.checked_sub(bytes) else {
            return Ok(None);
        };
        left = rest;
        content.push((name, held));
    }
    Ok(Some(content))
}

/// What those sections hold in which something is required; nothing of those that are filled otherwise
/// than the blueprint says now. (An edition is bounded, whoever filled it.)
pub(super) async fn required(
    connection: &mut SqliteConnection,
    workspace: &WorkspaceId,
    edition: &EditionId,
    blueprint: &Blueprint,
) -> Result<Content> {
    let mut content = Content::new();
    for section in &blueprint.sections {
        if RequiredFields::of(section).is_empty() {
            continue;
        }
        let place = Place {
            workspace,
            edition,
            section: &section.name,
        };
        let held = match section.kind {
            SectionKind::Single => match one(connection, place).await? {
                SectionData::Single(values) => SectionContent::Single(values),
                SectionData::Empty | SectionData::Repeating => continue,
            },
            SectionKind::Repeating => {
                let everything = PageRequest {
                    limit: usize::MAX,
                    after: None,
                };
                let page = rows(connection, place, everything, usize::MAX).await?;
                SectionContent::Repeating(page.items)
            }
        };
        content.push((section.name.clone(), held));
    }
    Ok(content)
}

/// A row of `edition_row`.
pub(super) fn read(row: &SqliteRow) -> Result<Row> {
    Ok(Row {
        id: parsed(row, "id")?,
        values: Values::trusted(get(row, "content")?),
    })
}

/// What a row counts for where bytes are bounded.
fn size(row: &Row) -> usize {
    row.id.as_str().len() + row.values.as_str().len()
}
