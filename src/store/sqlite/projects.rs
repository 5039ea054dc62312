//! The projects of a workspace.

use async_trait::async_trait;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::SqliteStore;
use super::bulk::{self, Bulk};
use super::error::store_error;
use super::rows::{count, get, parsed, projects, time};
use crate::domain::ids::ProjectId;
use crate::domain::reach::Reach;
use crate::store::projects::NewProjects;
use crate::store::{Page, PageRequest, ProjectRecord, Projects, Result};

#[async_trait]
impl Projects for SqliteStore {
    async fn projects(
        &self,
        reach: &Reach,
        page: PageRequest<ProjectId>,
    ) -> Result<Page<ProjectRecord, ProjectId>> {
        let rows = sqlx::query(
            "-- sqlite::projects::projects
            select id, name, description, first_seen_at
            from project
            where workspace = ?1 and deleted_at is null
                and (?2 is null or id in (select value from json_each(?2)))
                and id > ?3
            order by id
            limit ?4",
        )
        .bind(reach.workspace.as_str())
        .bind(projects(reach)?)
        // No id is empty.
        .bind(page.after.as_ref().map_or("", ProjectId::as_str))
        .bind(count(page.limit.saturating_add(1)))
        .fetch_all(&self.readers)
        .await
        .map_err(store_error)?;
        let items = rows.iter().map(record).collect::<Result<_>>()?;
        Ok(Page::of(items, page.limit, |record: &ProjectRecord| {
            record.id.clone()
        }))
    }

    async fn project(&self, reach: &Reach, id: &ProjectId) -> Result<Option<ProjectRecord>> {
        let row = sqlx::query(
            "-- sqlite::projects::project
            select id, name, description, first_seen_at
            from project
            where workspace = ?1 and id = ?2 and deleted_at is null
                and (?3 is null or id in (select value from json_each(?3)))",
        )
        .bind(reach.workspace.as_str())
        .bind(id.as_str())
        .bind(projects(reach)?)
        .fetch_optional(&self.readers)
        .await
        .map_err(store_error)?;
        row.as_ref().map(record).transpose()
    }
}

fn record(row: &SqliteRow) -> Result<ProjectRecord> {
    Ok(ProjectRecord {
        id: parsed(row, "id")?,
        name: get(row, "name")?,
        description: get(row, "description")?,
        first_seen_at: time(row, "first_seen_at")?,
    })
}

/// Makes projects known; those that are known already stay as they are.
pub(super) async fn write(
    transaction: &mut SqliteConnection,
    new: &NewProjects,
    now: i64,
) -> Result<()> {
    static INSERT: Bulk = Bulk::new(
        "-- sqlite::projects::write
        with fresh (workspace, id) as (values ",
        "(?, ?)",
        ")
        insert or fail into project (workspace, id, first_seen_at)
        select workspace, id, ? from fresh where id is not null
        on conflict (workspace, id) do nothing",
    );
    let rows: Vec<_> = new.iter().collect();
    let statements = INSERT.statements(
        &rows,
        |statement, (workspace, id)| statement.bind(workspace.to_shared()).bind(id.to_shared()),
        |statement| statement.bind(now),
    );
    bulk::execute(transaction, statements).await?;
    Ok(())
}
