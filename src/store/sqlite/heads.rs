//! Finding editions: their heads, one or many.

use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::error::store_error;
use super::rows::{
    count, get, list as list_of, millis, optional_parsed, parsed, projects, time, to_time,
};
use crate::domain::edition::{Edition, EditionStatus};
use crate::domain::ids::{BlueprintId, EditionId, ProjectId};
use crate::domain::reach::Reach;
use crate::domain::workspace::Person;
use crate::store::{
    EditionFilter, EditionKey, EditionList, EditionRecord, EditionTag, Page, PageRequest, Result,
    SectionTag, StoreError,
};

/// Whether a row of `edition` is seen by readers at all.
macro_rules! edition_is_seen {
    () => {
        "edition.version is not null and edition.deleted_at is null
            and not exists (
                select 1
                from project
                where project.workspace = edition.workspace
                    and project.id = edition.project
                    and project.deleted_at is not null
            )"
    };
}
pub(super) use edition_is_seen;

/// The edition, if it is seen and in reach.
pub(super) async fn one(
    connection: &mut SqliteConnection,
    reach: &Reach,
    id: &EditionId,
) -> Result<Option<EditionRecord>> {
    let row = sqlx::query(concat!(
        "-- sqlite::heads::one
        select id, project, blueprint, name, status, status_changed_at, period, assignee_id,
            assignee_name, version, revision, created_at, changed_at
        from edition
        where workspace = ?1 and id = ?2
            and (?3 is null or project in (select value from json_each(?3)))
            and ",
        edition_is_seen!()
    ))
    .bind(reach.workspace.as_str())
    .bind(id.as_str())
    .bind(projects(reach)?)
    .fetch_optional(connection)
    .await
    .map_err(store_error)?;
    row.as_ref().map(record).transpose()
}

/// Its tag alone.
pub(super) async fn tag(
    connection: &mut SqliteConnection,
    reach: &Reach,
    id: &EditionId,
) -> Result<Option<EditionTag>> {
    let row = sqlx::query(concat!(
        "-- sqlite::heads::tag
        select version, revision
        from edition
        where workspace = ?1 and id = ?2
            and (?3 is null or project in (select value from json_each(?3)))
            and ",
        edition_is_seen!()
    ))
    .bind(reach.workspace.as_str())
    .bind(id.as_str())
    .bind(projects(reach)?)
    .fetch_optional(connection)
    .await
    .map_err(store_error)?;
    row.map(|row| {
        Ok(EditionTag {
            version: get(&row, "version")?,
            revision: get(&row, "revision")?,
        })
    })
    .transpose()
}

/// Its tag with its blueprint's version, if that is seen.
pub(super) async fn section_tag(
    connection: &mut SqliteConnection,
    reach: &Reach,
    id: &EditionId,
) -> Result<Option<SectionTag>> {
    // The blueprint is seen by whoever sees the edition, if it is of the same project.
    let row = sqlx::query(concat!(
        "-- sqlite::heads::section_tag
        select version, revision, (
            select blueprint.version
            from blueprint
            where blueprint.workspace = edition.workspace and blueprint.id = edition.blueprint
                and blueprint.project = edition.project and blueprint.deleted_at is null
        ) as blueprint_version
        from edition
        where workspace = ?1 and id = ?2
            and (?3 is null or project in (select value from json_each(?3)))
            and ",
        edition_is_seen!()
    ))
    .bind(reach.workspace.as_str())
    .bind(id.as_str())
    .bind(projects(reach)?)
    .fetch_optional(connection)
    .await
    .map_err(store_error)?;
    row.map(|row| {
        Ok(SectionTag {
            edition: EditionTag {
                version: get(&row, "version")?,
                revision: get(&row, "revision")?,
            },
            blueprint: get(&row, "blueprint_version")?,
        })
    })
    .transpose()
}

/// A page of those that the filter lets through, and the time up to which all is seen. In a
/// transaction that sees one state.
pub(super) async fn list(
    connection: &mut SqliteConnection,
    reach: &Reach,
    filter: &EditionFilter,
    page: PageRequest<EditionKey>,
) -> Result<EditionList> {
    // There is one writer, and it sets the clock forward with each change: what is committed later
    // has a later time.
    let last: i64 = sqlx::query_scalar(
        "-- sqlite::heads::list (clock)
        select last from edition_clock",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(store_error)?;
    let rows = statement(reach, filter, &page)?
        .build()
        .fetch_all(connection)
        .await
        .map_err(store_error)?;
    let items = rows.iter().map(record).collect::<Result<_>>()?;
    Ok(EditionList {
        page: Page::of(items, page.limit, EditionKey::of),
        as_of: to_time(last.saturating_add(1))?,
    })
}

/// The one status that is asked for, which an index serves in the list's order.
fn only_status(filter: &EditionFilter) -> Option<&str> {
    match &filter.statuses[..] {
        [only] => Some(only.as_str()),
        _ => None,
    }
}

/// Only the filters that are asked for stand in the statement, so that an index is found for them.
fn statement(
    reach: &Reach,
    filter: &EditionFilter,
    page: &PageRequest<EditionKey>,
) -> Result<QueryBuilder<Sqlite>> {
    let mut select = QueryBuilder::new(
        "-- sqlite::heads::list
        select id, project, blueprint, name, status, status_changed_at, period, assignee_id,
            assignee_name, version, revision, created_at, changed_at
        from edition
        where workspace = ",
    );
    select.push_bind(reach.workspace.as_str().to_owned());
    let equal = [
        (
            " and project = ",
            filter.project.as_ref().map(ProjectId::as_str),
        ),
        (
            " and blueprint = ",
            filter.blueprint.as_ref().map(BlueprintId::as_str),
        ),
        (" and status = ", only_status(filter)),
        (" and period = ", filter.period.as_deref()),
    ];
    for (condition, value) in equal {
        if let Some(value) = value {
            select.push(condition).push_bind(value.to_owned());
        }
    }
    if filter.statuses.len() > 1 {
        let words: Vec<&str> = filter.statuses.iter().map(EditionStatus::as_str).collect();
        select
            .push(" and status in (select value from json_each(")
            .push_bind(list_of(&words)?)
            .push("))");
    }
    if let Some(projects) = projects(reach)? {
        select
            .push(" and project in (select value from json_each(")
            .push_bind(projects)
            .push("))");
    }
    if let Some(since) = filter.updated_since {
        select.push(" and changed_at >= ").push_bind(millis(since));
    }
    if let Some(after) = &page.after {
        select
            .push(" and (changed_at, id) > (")
            .push_bind(millis(after.changed_at))
            .push(", ")
            .push_bind(after.id.as_str().to_owned())
            .push(")");
    }
    select
        .push(concat!(
            " and ",
            edition_is_seen!(),
            " order by changed_at, id limit "
        ))
        .push_bind(count(page.limit.saturating_add(1)));
    Ok(select)
}

/// A row of `edition` that is seen.
fn record(row: &SqliteRow) -> Result<EditionRecord> {
    let status: &str = get(row, "status")?;
    let assignee = optional_parsed(row, "assignee_id")?;
    let name: Option<String> = get(row, "assignee_name")?;
    Ok(EditionRecord {
        edition: Edition {
            id: parsed(row, "id")?,
            project: parsed(row, "project")?,
            blueprint: parsed(row, "blueprint")?,
            name: get(row, "name")?,
            status: EditionStatus::parse(status)
                .ok_or_else(|| StoreError::corrupt(format!("edition.status: {status}")))?,
            status_changed_at: time(row, "status_changed_at")?,
            period: get(row, "period")?,
            assignee: assignee.map(|id| Person { id, name }),
            version: get(row, "version")?,
            created_at: time(row, "created_at")?,
            updated_at: time(row, "changed_at")?,
        },
        revision: get(row, "revision")?,
    })
}
