//! Finding what the sections of an edition hold.

use sqlx::PgConnection;

use super::Result;
use super::contents::Holder;
use super::errors::from_sqlx;
use super::rows::{limit, parse};
use crate::domain::blueprint::{Blueprint, SectionKind};
use crate::domain::edition::{Content, Row, SectionContent};
use crate::domain::ids::{EditionId, WorkspaceId};
use crate::domain::reach::Reach;
use crate::domain::values::{RequiredFields, Values};
use crate::store::{EditionRecord, Page, PageRequest, SectionData};

/// Which section.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) workspace: &'a WorkspaceId,
    pub(super) edition: &'a EditionId,
    pub(super) section: &'a str,
}

impl<'a> Place<'a> {
    /// A section of an edition that is seen and in reach.
    pub(super) fn of(reach: &'a Reach, seen: &'a EditionRecord, section: &'a str) -> Self {
        Self {
            workspace: &reach.workspace,
            edition: &seen.edition.id,
            section,
        }
    }

    /// Its edition.
    pub(super) fn holder(self) -> Holder<'a> {
        Holder {
            workspace: self.workspace,
            edition: self.edition,
        }
    }
}

/// What a section holds.
pub(super) async fn one(connection: &mut PgConnection, place: Place<'_>) -> Result<SectionData> {
    let content: Option<Option<String>> = sqlx::query_scalar(
        "-- postgres::sections::one
        select content from edition_section where workspace = $1 and edition = $2 and name = $3",
    )
    .bind(place.workspace.as_str())
    .bind(place.edition.as_str())
    .bind(place.section)
    .fetch_optional(connection)
    .await
    .map_err(from_sqlx)?;
    Ok(match content {
        None => SectionData::Empty,
        Some(None) => SectionData::Repeating,
        Some(Some(values)) => SectionData::Single(Values::trusted(&values)),
    })
}

/// Rows of a section, up to so many bytes of them, but one at least. The row behind the last is sent
/// too, since it says that there are others; nothing else is.
pub(super) async fn rows(
    connection: &mut PgConnection,
    place: Place<'_>,
    page: PageRequest<i64>,
    max_bytes: usize,
) -> Result<Page<Row, i64>> {
    let found: Vec<(i64, String, String)> = sqlx::query_as(
        "-- postgres::sections::rows
        select ord, id, content
        from (
            select
                ord, id, content,
                row_number() over (order by ord) as number,
                sum(octet_length(id) + octet_length(content)) over (
                    order by ord rows between unbounded preceding and 1 preceding
                ) as bytes_before
            from edition_row
            where workspace = $1 and edition = $2 and section = $3
              and ($4::bigint is null or ord > $4)
            order by ord
            limit $5
        ) as counted
        where number <= 2 or bytes_before <= $6
        order by ord",
    )
    .bind(place.workspace.as_str())
    .bind(place.edition.as_str())
    .bind(place.section)
    .bind(page.after)
    .bind(limit(page.limit.saturating_add(1)))
    .bind(limit(max_bytes))
    .fetch_all(connection)
    .await
    .map_err(from_sqlx)?;
    let (mut items, mut bytes, mut last) = (Vec::new(), 0_usize, None);
    for (ord, id, content) in found {
        bytes = bytes.saturating_add(id.len() + content.len());
        let full = items.len() >= page.limit || bytes > max_bytes;
        if full && !items.is_empty() {
            return Ok(Page { items, next: last });
        }
        items.push(Row {
            id: parse("edition_row.id", &id)?,
            values: Values::trusted(&content),
        });
        last = Some(ord);
    }
    Ok(Page { items, next: None })
}

/// All that the edition holds; `None` where that is more than so many bytes.
pub(super) async fn all(
    connection: &mut PgConnection,
    reach: &Reach,
    seen: &EditionRecord,
    max_bytes: usize,
) -> Result<Option<Content>> {
    let sections: Vec<(String, Option<String>)> = sqlx::query_as(
        "-- postgres::sections::all
        select name, content
        from edition_section
        where workspace = $1 and edition = $2
        order by ord",
    )
    .bind(reach.workspace.as_str())
    .bind(seen.edition.id.as_str())
    .fetch_all(&mut *connection)
    .await
    .map_err(from_sqlx)?;
    let (mut content, mut left) = (Content::new(), max_bytes);
    for (name, values) in sections {
        let held = if let Some(values) = values {
            SectionContent::Single(Values::trusted(&values))
        } else {
            let everything = PageRequest {
                limit: usize::MAX,
                after: None,
            };
            let place = Place::of(reach, seen, &name);
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
    connection: &mut PgConnection,
    reach: &Reach,
    seen: &EditionRecord,
    blueprint: &Blueprint,
) -> Result<Content> {
    let mut content = Content::new();
    for section in &blueprint.sections {
        if RequiredFields::of(section).is_empty() {
            continue;
        }
        let place = Place::of(reach, seen, &section.name);
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

/// What a row counts for where bytes are bounded.
fn size(row: &Row) -> usize {
    row.id.as_str().len() + row.values.as_str().len()
}
