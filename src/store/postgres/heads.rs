//! Finding editions: their heads, one or many.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection, PgExecutor, PgTransaction};

use super::Result;
use super::errors::from_sqlx;
use super::rows::{limit, optional, parse, projects};
use crate::domain::edition::{Edition, EditionStatus};
use crate::domain::ids::{BlueprintId, EditionId};
use crate::domain::reach::Reach;
use crate::domain::workspace::Person;
use crate::store::walk::{By, Walk};
use crate::store::{
    EditionFilter, EditionKey, EditionList, EditionRecord, EditionTag, Page, PageRequest,
    SectionTag, StoreError,
};

/// Whether a row of `edition` is seen by readers at all. The project is looked up, not joined: a
/// planner that takes the tables for small would read all of it.
macro_rules! edition_is_seen {
    () => {
        "edition.version is not null
                  and edition.deleted_at is null
                  and (
                      select project.deleted_at
                      from project
                      where project.workspace = edition.workspace and project.id = edition.project
                  ) is null"
    };
}
pub(super) use edition_is_seen;

/// The columns of [`HeadRow`].
macro_rules! head_columns {
    () => {
        "id, project, blueprint, name, status, status_changed_at, period, assignee_id,
                assignee_name, version, revision, created_at, changed_at"
    };
}

/// One edition by its id.
macro_rules! one {
    ($name:literal, $lock:literal) => {
        concat!(
            "-- postgres::heads::",
            $name,
            "
        select ",
            head_columns!(),
            "
        from edition
        where workspace = $1
          and id = $2
          and ($3::text[] is null or project = any($3))
          and ",
            edition_is_seen!(),
            $lock
        )
    };
}

/// The edition, if it is seen and in reach.
pub(super) async fn one(
    executor: impl PgExecutor<'_>,
    reach: &Reach,
    id: &EditionId,
) -> Result<Option<EditionRecord>> {
    found(executor, one!("one", ""), reach, id).await
}

/// The same, held to the end of the transaction.
pub(super) async fn hold(
    tx: &mut PgTransaction<'_>,
    reach: &Reach,
    id: &EditionId,
) -> Result<Option<EditionRecord>> {
    let statement = one!(
        "hold",
        "
        for update"
    );
    found(&mut **tx, statement, reach, id).await
}

async fn found(
    executor: impl PgExecutor<'_>,
    statement: &'static str,
    reach: &Reach,
    id: &EditionId,
) -> Result<Option<EditionRecord>> {
    let row: Option<HeadRow> = sqlx::query_as(statement)
        .bind(reach.workspace.as_str())
        .bind(id.as_str())
        .bind(projects(reach))
        .fetch_optional(executor)
        .await
        .map_err(from_sqlx)?;
    row.map(HeadRow::into_record).transpose()
}

/// Its tag alone.
pub(super) async fn tag(
    executor: impl PgExecutor<'_>,
    reach: &Reach,
    id: &EditionId,
) -> Result<Option<EditionTag>> {
    let row: Option<(i64, i64)> = sqlx::query_as(concat!(
        "-- postgres::heads::tag
        select version, revision
        from edition
        where workspace = $1
          and id = $2
          and ($3::text[] is null or project = any($3))
          and ",
        edition_is_seen!()
    ))
    .bind(reach.workspace.as_str())
    .bind(id.as_str())
    .bind(projects(reach))
    .fetch_optional(executor)
    .await
    .map_err(from_sqlx)?;
    Ok(row.map(|(version, revision)| EditionTag { version, revision }))
}

/// Its tag with its blueprint's version, if that is seen.
pub(super) async fn section_tag(
    executor: impl PgExecutor<'_>,
    reach: &Reach,
    id: &EditionId,
) -> Result<Option<SectionTag>> {
    // The blueprint is seen by whoever sees the edition, if it is of the same project.
    let row: Option<(i64, i64, Option<i64>)> = sqlx::query_as(concat!(
        "-- postgres::heads::section_tag
        select version, revision, (
            select blueprint.version
            from blueprint
            where blueprint.workspace = edition.workspace
              and blueprint.id = edition.blueprint
              and blueprint.project = edition.project
              and blueprint.deleted_at is null
        )
        from edition
        where workspace = $1
          and id = $2
          and ($3::text[] is null or project = any($3))
          and ",
        edition_is_seen!()
    ))
    .bind(reach.workspace.as_str())
    .bind(id.as_str())
    .bind(projects(reach))
    .fetch_optional(executor)
    .await
    .map_err(from_sqlx)?;
    Ok(row.map(|(version, revision, blueprint)| SectionTag {
        edition: EditionTag { version, revision },
        blueprint,
    }))
}

/// A page of those editions that the walk is by, where that is one thing; each has an index in the
/// list's order.
macro_rules! page {
    ($walked:literal) => {
        concat!(
            "select ",
            head_columns!(),
            "
            from edition
            where workspace = $1
              and ",
            $walked,
            "
              and ($3::text is null or blueprint = $3)
              and ($4::text[] is null or status = any($4))
              and ($5::text is null or period = $5)
              and ($6::timestamptz is null or changed_at >= $6)
              and ($7::timestamptz is null or (changed_at, id) > ($7, $8))
              and ",
            edition_is_seen!(),
            "
            order by changed_at, id
            limit $9"
        )
    };
}

const BY_ONE: &str = concat!(
    "-- postgres::heads::list
        ",
    page!("($2::text[] is null or project = any($2))")
);

/// The same of several projects, or statuses, each of which is walked for itself.
macro_rules! merged {
    ($name:literal, $several:literal, $walked:literal) => {
        concat!(
            "-- postgres::heads::list (",
            $name,
            ")
        select ",
            head_columns!(),
            "
        from unnest(",
            $several,
            ") as wanted (mine)
        cross join lateral (
            ",
            page!($walked),
            "
        ) as found
        order by changed_at, id
        limit $9"
        )
    };
}

const BY_PROJECTS: &str = merged!("projects", "$2::text[]", "project = wanted.mine");

const BY_STATUSES: &str = merged!("statuses", "$10::text[]", "status = wanted.mine");

/// A page of those that the filter lets through, and the time up to which all is seen. In a
/// transaction that sees one state: whoever changes an edition sets the clock forward and holds it to
/// the commit, so what is not seen here has a later time.
pub(super) async fn list(
    connection: &mut PgConnection,
    reach: &Reach,
    filter: &EditionFilter,
    page: PageRequest<EditionKey>,
) -> Result<EditionList> {
    let as_of: DateTime<Utc> = sqlx::query_scalar(
        "-- postgres::heads::list (clock)
        select last + interval '1 millisecond' from edition_clock",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(from_sqlx)?;
    let Walk {
        by,
        projects,
        statuses,
        ..
    } = Walk::of(reach, filter);
    let statement = match &by {
        By::Projects(_) => BY_PROJECTS,
        By::Statuses(_) => BY_STATUSES,
        By::Blueprint(_) | By::Period(_) | By::Changes => BY_ONE,
    };
    let rows: Vec<HeadRow> = sqlx::query_as(statement)
        .bind(reach.workspace.as_str())
        .bind(match &by {
            By::Projects(projects) => Some(projects),
            _ => projects.as_ref(),
        })
        .bind(filter.blueprint.as_ref().map(BlueprintId::as_str))
        .bind(statuses)
        .bind(filter.period.as_deref())
        .bind(filter.updated_since)
        .bind(page.after.as_ref().map(|key| key.changed_at))
        .bind(page.after.as_ref().map(|key| key.id.as_str()))
        .bind(limit(page.limit.saturating_add(1)))
        .bind(match &by {
            By::Statuses(statuses) => Some(statuses),
            _ => None,
        })
        .fetch_all(connection)
        .await
        .map_err(from_sqlx)?;
    let items = rows
        .into_iter()
        .map(HeadRow::into_record)
        .collect::<Result<_>>()?;
    Ok(EditionList {
        page: Page::of(items, page.limit, EditionKey::of),
        as_of,
    })
}

/// A row of `edition` that is seen.
#[derive(FromRow)]
struct HeadRow {
    id: String,
    project: String,
    blueprint: String,
    name: String,
    status: String,
    status_changed_at: DateTime<Utc>,
    period: Option<String>,
    assignee_id: Option<String>,
    assignee_name: Option<String>,
    version: i64,
    revision: i64,
    created_at: DateTime<Utc>,
    changed_at: DateTime<Utc>,
}

impl HeadRow {
    fn into_record(self) -> Result<EditionRecord> {
        let assignee = optional("edition.assignee_id", self.assignee_id)?;
        Ok(EditionRecord {
            edition: Edition {
                id: parse("edition.id", &self.id)?,
                project: parse("edition.project", &self.project)?,
                blueprint: parse("edition.blueprint", &self.blueprint)?,
                name: self.name,
                status: EditionStatus::parse(&self.status).ok_or_else(|| {
                    StoreError::Corrupt(format!("edition.status: {}", self.status))
                })?,
                status_changed_at: self.status_changed_at,
                period: self.period,
                assignee: assignee.map(|id| Person {
                    id,
                    name: self.assignee_name,
                }),
                version: self.version,
                created_at: self.created_at,
                updated_at: self.changed_at,
            },
            revision: self.revision,
        })
    }
}
