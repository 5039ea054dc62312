//! Finding what editions are made by: the workspace, its members, its blueprints.

use serde_json::value::RawValue;
use sqlx::{FromRow, PgExecutor};

use super::Result;
use super::errors::from_sqlx;
use super::rows::{limit, parse, projects};
use crate::domain::ids::{BlueprintId, ProjectId, UserId, WorkspaceId};
use crate::domain::reach::Reach;
use crate::domain::workspace::{Member, Person};
use crate::store::{BlueprintRecord, Page, PageRequest, StoreError, WorkspaceRecord, definition};

/// Whether a row of `blueprint` is seen by readers at all.
macro_rules! blueprint_is_seen {
    () => {
        "blueprint.deleted_at is null
          and (
              select project.deleted_at
              from project
              where project.workspace = blueprint.workspace and project.id = blueprint.project
          ) is null"
    };
}

pub(super) async fn workspace(
    executor: impl PgExecutor<'_>,
    id: &WorkspaceId,
) -> Result<Option<WorkspaceRecord>> {
    let row: Option<(i64, String, String)> = sqlx::query_as(
        "-- postgres::structure::workspace
        select version, name, settings from workspace where id = $1 and deleted_at is null",
    )
    .bind(id.as_str())
    .fetch_optional(executor)
    .await
    .map_err(from_sqlx)?;
    row.map(|(version, name, settings)| {
        Ok(WorkspaceRecord {
            name,
            settings: RawValue::from_string(settings).map_err(StoreError::corrupt)?,
            version,
        })
    })
    .transpose()
}

pub(super) async fn members(
    executor: impl PgExecutor<'_>,
    workspace: &WorkspaceId,
    page: PageRequest<UserId>,
) -> Result<Page<Member, UserId>> {
    let rows: Vec<MemberRow> = sqlx::query_as(
        "-- postgres::structure::members
        select id, name, email, role
        from member
        where workspace = $1 and ($2::text is null or id > $2)
        order by id
        limit $3",
    )
    .bind(workspace.as_str())
    .bind(page.after.as_ref().map(UserId::as_str))
    .bind(limit(page.limit.saturating_add(1)))
    .fetch_all(executor)
    .await
    .map_err(from_sqlx)?;
    let items = rows
        .into_iter()
        .map(MemberRow::into_member)
        .collect::<Result<_>>()?;
    Ok(Page::of(items, page.limit, |member: &Member| {
        member.user.id.clone()
    }))
}

#[derive(FromRow)]
struct MemberRow {
    id: String,
    name: Option<String>,
    email: Option<String>,
    role: Option<String>,
}

impl MemberRow {
    fn into_member(self) -> Result<Member> {
        Ok(Member {
            user: Person {
                id: parse("member.id", &self.id)?,
                name: self.name,
            },
            email: self.email,
            role: self.role,
        })
    }
}

/// Blueprints of a project, up to so many bytes of definitions, but one at least. The one behind the
/// last is sent too, since it says that there are others; nothing else is.
pub(super) async fn blueprints(
    executor: impl PgExecutor<'_>,
    reach: &Reach,
    project: &ProjectId,
    page: PageRequest<BlueprintId>,
    max_bytes: usize,
) -> Result<Page<BlueprintRecord, BlueprintId>> {
    let found: Vec<BlueprintRow> = sqlx::query_as(concat!(
        "-- postgres::structure::blueprints
        select id, version, project, name, definition
        from (
            select
                id, version, project, name, definition,
                row_number() over (order by id) as number,
                sum(octet_length(definition)) over (
                    order by id rows between unbounded preceding and 1 preceding
                ) as bytes_before
            from blueprint
            where workspace = $1
              and project = $2
              and ($3::text is null or id > $3)
              and ($4::text[] is null or project = any($4))
              and ",
        blueprint_is_seen!(),
        "
            order by id
            limit $5
        ) as counted
        where number <= 2 or bytes_before <= $6
        order by id"
    ))
    .bind(reach.workspace.as_str())
    .bind(project.as_str())
    .bind(page.after.as_ref().map(BlueprintId::as_str))
    .bind(projects(reach))
    .bind(limit(page.limit.saturating_add(1)))
    .bind(limit(max_bytes))
    .fetch_all(executor)
    .await
    .map_err(from_sqlx)?;
    let (mut items, mut bytes) = (Vec::new(), 0_usize);
    for row in found {
        bytes = bytes.saturating_add(row.definition.len());
        let full = items.len() >= page.limit || bytes > max_bytes;
        if full && !items.is_empty() {
            let next = items
                .last()
                .map(|last: &BlueprintRecord| last.blueprint.id.clone());
            return Ok(Page { items, next });
        }
        items.push(row.into_record()?);
    }
    Ok(Page { items, next: None })
}

pub(super) async fn blueprint(
    executor: impl PgExecutor<'_>,
    reach: &Reach,
    id: &BlueprintId,
) -> Result<Option<BlueprintRecord>> {
    let row: Option<BlueprintRow> = sqlx::query_as(concat!(
        "-- postgres::structure::blueprint
        select id, version, project, name, definition
        from blueprint
        where workspace = $1
          and id = $2
          and ($3::text[] is null or project = any($3))
          and ",
        blueprint_is_seen!()
    ))
    .bind(reach.workspace.as_str())
    .bind(id.as_str())
    .bind(projects(reach))
    .fetch_optional(executor)
    .await
    .map_err(from_sqlx)?;
    row.map(BlueprintRow::into_record).transpose()
}

/// The version of a blueprint that is not deleted.
pub(super) async fn blueprint_version(
    executor: impl PgExecutor<'_>,
    workspace: &WorkspaceId,
    id: &BlueprintId,
) -> Result<Option<i64>> {
    sqlx::query_scalar(
        "-- postgres::structure::blueprint_version
        select version
        from blueprint
        where workspace = $1 and id = $2 and deleted_at is null",
    )
    .bind(workspace.as_str())
    .bind(id.as_str())
    .fetch_optional(executor)
    .await
    .map_err(from_sqlx)
}

#[derive(FromRow)]
struct BlueprintRow {
    id: String,
    version: i64,
    project: String,
    name: String,
    definition: String,
}

impl BlueprintRow {
    fn into_record(self) -> Result<BlueprintRecord> {
        Ok(BlueprintRecord {
            blueprint: definition::read(
                parse("blueprint.id", &self.id)?,
                parse("blueprint.project", &self.project)?,
                self.name,
                &self.definition,
            )?,
            version: self.version,
        })
    }
}
