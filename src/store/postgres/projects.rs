//! The projects of a workspace.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgTransaction};

use super::errors::{from_sqlx, reading};
use super::rows::{limit, parse, projects};
use super::{PostgresStore, Result};
use crate::domain::ids::{ProjectId, WorkspaceId};
use crate::domain::reach::Reach;
use crate::store::projects::NewProjects;
use crate::store::{Page, PageRequest, ProjectRecord, Projects};

#[async_trait]
impl Projects for PostgresStore {
    async fn projects(
        &self,
        reach: &Reach,
        page: PageRequest<ProjectId>,
    ) -> Result<Page<ProjectRecord, ProjectId>> {
        let rows: Vec<ProjectRow> = reading(async {
            sqlx::query_as(
                "-- postgres::projects::projects
                select id, name, description, first_seen_at
                from project
                where workspace = $1 and deleted_at is null
                  and ($2::text[] is null or id = any($2))
                  and ($3::text is null or id > $3)
                order by id
                limit $4",
            )
            .bind(reach.workspace.as_str())
            .bind(projects(reach))
            .bind(page.after.as_ref().map(ProjectId::as_str))
            .bind(limit(page.limit.saturating_add(1)))
            .fetch_all(&self.pool)
            .await
            .map_err(from_sqlx)
        })
        .await?;
        let items = rows
            .into_iter()
            .map(ProjectRow::into_record)
            .collect::<Result<_>>()?;
        Ok(Page::of(items, page.limit, |record: &ProjectRecord| {
            record.id.clone()
        }))
    }

    async fn project(&self, reach: &Reach, id: &ProjectId) -> Result<Option<ProjectRecord>> {
        let row: Option<ProjectRow> = reading(async {
            sqlx::query_as(
                "-- postgres::projects::project
                select id, name, description, first_seen_at
                from project
                where workspace = $1 and id = $2 and deleted_at is null
                  and ($3::text[] is null or id = any($3))",
            )
            .bind(reach.workspace.as_str())
            .bind(id.as_str())
            .bind(projects(reach))
            .fetch_optional(&self.pool)
            .await
            .map_err(from_sqlx)
        })
        .await?;
        row.map(ProjectRow::into_record).transpose()
    }
}

#[derive(FromRow)]
struct ProjectRow {
    id: String,
    name: Option<String>,
    description: Option<String>,
    first_seen_at: DateTime<Utc>,
}

impl ProjectRow {
    fn into_record(self) -> Result<ProjectRecord> {
        Ok(ProjectRecord {
            id: parse("project.id", &self.id)?,
            name: self.name,
            description: self.description,
            first_seen_at: self.first_seen_at,
        })
    }
}

/// Makes projects known that another accept may be making known too: whoever comes second waits for
/// the first one's commit. All write them in the order of their keys, and before anything that the
/// first one may still wait for, so nobody waits for ever.
pub(super) async fn write(tx: &mut PgTransaction<'_>, new: &NewProjects) -> Result<()> {
    let (workspaces, ids): (Vec<&str>, Vec<&str>) = new
        .iter()
        .map(|(workspace, id)| (WorkspaceId::as_str(workspace), ProjectId::as_str(id)))
        .unzip();
    sqlx::query(
        "-- postgres::projects::write
        insert into project (workspace, id)
        select unnest($1::text[]), unnest($2::text[])
        on conflict on constraint project_pk do nothing",
    )
    .bind(workspaces)
    .bind(ids)
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(())
}
