//! Finding what editions are made by: the workspace, its members, its blueprints.

use futures::TryStreamExt;
use serde_json::value::RawValue;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::error::store_error;
use super::rows::{count, get, parsed, projects};
use crate::domain::ids::{BlueprintId, ProjectId, UserId, WorkspaceId};
use crate::domain::reach::Reach;
use crate::domain::workspace::{Member, Person};
use crate::store::{
    BlueprintRecord, Page, PageRequest, Result, StoreError, WorkspaceRecord, definition,
};

/// Whether a row of `blueprint` is seen by readers at all.
macro_rules! blueprint_is_seen {
    () => {
        "blueprint.deleted_at is null
            and not exists (
                select 1
                from project
                where project.workspace = blueprint.workspace
                    and project.id = blueprint.project
                    and project.deleted_at is not null
            )"
    };
}

pub(super) async fn workspace(
    connection: &mut SqliteConnection,
    id: &WorkspaceId,
) -> Result<Option<WorkspaceRecord>> {
    let row = sqlx::query(
        "-- sqlite::structure::workspace
        select version, name, settings from workspace where id = ?1 and deleted_at is null",
    )
    .bind(id.as_str())
    .fetch_optional(connection)
    .await
    .map_err(store_error)?;
    row.map(|row| {
        Ok(WorkspaceRecord {
            name: get(&row, "name")?,
            settings: RawValue::from_string(get(&row, "settings")?).map_err(StoreError::corrupt)?,
            version: get(&row, "version")?,
        })
    })
    .transpose()
}

pub(super) async fn members(
    connection: &mut SqliteConnection,
    workspace: &WorkspaceId,
    page: PageRequest<UserId>,
) -> Result<Page<Member, UserId>> {
    let rows = sqlx::query(
        "-- sqlite::structure::members
        select id, name, email, role
        from member
        where workspace = ?1 and id > ?2
        order by id
        limit ?3",
    )
    .bind(workspace.as_str())
    // No id is empty.
    .bind(page.after.as_ref().map_or("", UserId::as_str))
    .bind(count(page.limit.saturating_add(1)))
    .fetch_all(connection)
    .await
    .map_err(store_error)?;
    let items = rows.iter().map(member).collect::<Result<_>>()?;
    Ok(Page::of(items, page.limit, |member: &Member| {
        member.user.id.clone()
    }))
}

fn member(row: &SqliteRow) -> Result<Member> {
    Ok(Member {
        user: Person {
            id: parsed(row, "id")?,
            name: get(row, "name")?,
        },
        email: get(row, "email")?,
        role: get(row, "role")?,
    })
}

/// Blueprints of a project, up to so many bytes of definitions, but one at least.
pub(super) async fn blueprints(
    connection: &mut SqliteConnection,
    reach: &Reach,
    project: &ProjectId,
    page: PageRequest<BlueprintId>,
    max_bytes: usize,
) -> Result<Page<BlueprintRecord, BlueprintId>> {
    let mut found = sqlx::query(concat!(
        "-- sqlite::structure::blueprints
        select id, version, project, name, definition
        from blueprint
        where workspace = ?1 and project = ?2 and id > ?3
            and (?4 is null or project in (select value from json_each(?4)))
            and ",
        blueprint_is_seen!(),
        "
        order by id
        limit ?5",
    ))
    .bind(reach.workspace.as_str())
    .bind(project.as_str())
    // No id is empty.
    .bind(page.after.as_ref().map_or("", BlueprintId::as_str))
    .bind(projects(reach)?)
    .bind(count(page.limit.saturating_add(1)))
    .fetch(connection);
    let (mut items, mut bytes) = (Vec::new(), 0_usize);
    while let Some(row) = found.try_next().await.map_err(store_error)? {
        bytes = bytes.saturating_add(get::<&str>(&row, "definition")?.len());
        let full = items.len() >= page.limit || bytes > max_bytes;
        if full && !items.is_empty() {
            let next = items
                .last()
                .map(|last: &BlueprintRecord| last.blueprint.id.clone());
            return Ok(Page { items, next });
        }
        items.push(record(&row)?);
    }
    Ok(Page { items, next: None })
}

pub(super) async fn blueprint(
    connection: &mut SqliteConnection,
    reach: &Reach,
    id: &BlueprintId,
) -> Result<Option<BlueprintRecord>> {
    let row = sqlx::query(concat!(
        "-- sqlite::structure::blueprint
        select id, version, project, name, definition
        from blueprint
        where workspace = ?1 and id = ?2
            and (?3 is null or project in (select value from json_each(?3)))
            and ",
        blueprint_is_seen!(),
    ))
    .bind(reach.workspace.as_str())
    .bind(id.as_str())
    .bind(projects(reach)?)
    .fetch_optional(connection)
    .await
    .map_err(store_error)?;
    row.as_ref().map(record).transpose()
}

/// The version of a blueprint that is not deleted.
pub(super) async fn blueprint_version(
    connection: &mut SqliteConnection,
    workspace: &WorkspaceId,
    id: &BlueprintId,
) -> Result<Option<i64>> {
    sqlx::query_scalar(
        "-- sqlite::structure::blueprint_version
        select version
        from blueprint
        where workspace = ?1 and id = ?2 and deleted_at is null",
    )
    .bind(workspace.as_str())
    .bind(id.as_str())
    .fetch_optional(connection)
    .await
    .map_err(store_error)
}

fn record(row: &SqliteRow) -> Result<BlueprintRecord> {
    Ok(BlueprintRecord {
        blueprint: definition::read(
            parsed(row, "id")?,
            parsed(row, "project")?,
            get(row, "name")?,
            get(row, "definition")?,
        )?,
        version: get(row, "version")?,
    })
}
