//! What the core deleted: a row stays, so that nothing older brings it back. And projects that come
//! back with a newer snapshot.

use super::contents;
use super::error::store_error;
use super::rows::duration_millis;
use super::snapshots::Writing;
use crate::domain::ids::{BlueprintId, EditionId, OutputId, ProjectId};
use crate::domain::snapshot::EntityKey;
use crate::store::snapshots::LONGEST_WRITE;
use crate::store::{Applied, Result};

impl Writing<'_> {
    pub(super) async fn deleted(&mut self) -> Result<Applied> {
        match &self.snapshot.key {
            EntityKey::Workspace => self.deleted_workspace().await,
            EntityKey::Project(id) => self.deleted_project(id).await,
            EntityKey::Blueprint(id) => self.deleted_blueprint(id).await,
            EntityKey::Edition(id) => self.deleted_edition(id).await,
            EntityKey::Output(id) => self.deleted_output(id).await,
        }
    }

    async fn deleted_workspace(&mut self) -> Result<Applied> {
        let statement = sqlx::query(
            "-- sqlite::deletions::deleted_workspace
            insert into workspace (id, version, name, settings, deleted_at)
            values (?1, ?2, '', '{}', ?3)
            on conflict (id) do update
            set version = excluded.version,
                name = '',
                settings = '{}',
                deleted_at = excluded.deleted_at
            where excluded.version > version",
        )
        .bind(self.snapshot.workspace.to_shared())
        .bind(self.snapshot.version)
        .bind(self.now);
        let applied = self.execute(statement).await?;
        if applied == Applied::Changed {
            self.forget_members().await?;
        }
        Ok(applied)
    }

    pub(super) async fn forget_members(&mut self) -> Result<()> {
        sqlx::query(
            "-- sqlite::deletions::forget_members
            delete from member where workspace = ?1",
        )
        .bind(self.snapshot.workspace.as_str())
        .execute(&mut *self.transaction)
        .await
        .map_err(store_error)?;
        Ok(())
    }

    async fn deleted_project(&mut self, id: &ProjectId) -> Result<Applied> {
        let statement = sqlx::query(
            "-- sqlite::deletions::deleted_project
            insert into project (workspace, id, version, first_seen_at, deleted_at)
            values (?1, ?2, ?3, ?4, ?4)
            on conflict (workspace, id) do update
            set version = excluded.version,
                name = null,
                description = null,
                deleted_at = excluded.deleted_at
            where version is null or excluded.version > version",
        )
        .bind(self.snapshot.workspace.to_shared())
        .bind(id.to_shared())
        .bind(self.snapshot.version)
        .bind(self.now);
        self.execute(statement).await
    }

    /// When the project was deleted, if it is.
    pub(super) async fn deleted_at(&mut self, id: &ProjectId) -> Result<Option<i64>> {
        let known: Option<Option<i64>> = sqlx::query_scalar(
            "-- sqlite::deletions::deleted_at
            select deleted_at from project where workspace = ?1 and id = ?2",
        )
        .bind(self.snapshot.workspace.as_str())
        .bind(id.as_str())
        .fetch_optional(&mut *self.transaction)
        .await
        .map_err(store_error)?;
        Ok(known.flatten())
    }

    /// What belongs to the project was hidden: what changed of it by then changes once more, for those
    /// who ask for what changed since they last looked.
    pub(super) async fn returned_project(
        &mut self,
        id: &ProjectId,
        since: i64,
        now: i64,
    ) -> Result<()> {
        let since = since.saturating_sub(duration_millis(LONGEST_WRITE));
        sqlx::query(
            "-- sqlite::deletions::returned_project
            update edition
            set changed_at = ?4, revision = revision + 1
            where workspace = ?1 and project = ?2 and changed_at >= ?3
                and version is not null and deleted_at is null",
        )
        .bind(self.snapshot.workspace.as_str())
        .bind(id.as_str())
        .bind(since)
        .bind(now)
        .execute(&mut *self.transaction)
        .await
        .map_err(store_error)?;
        Ok(())
    }

    async fn deleted_blueprint(&mut self, id: &BlueprintId) -> Result<Applied> {
        let statement = sqlx::query(
            "-- sqlite::deletions::deleted_blueprint
            insert into blueprint (workspace, id, version, deleted_at)
            values (?1, ?2, ?3, ?4)
            on conflict (workspace, id) do update
            set version = excluded.version,
                project = null,
                name = null,
                definition = null,
                deleted_at = excluded.deleted_at
            where excluded.version > version",
        )
        .bind(self.snapshot.workspace.to_shared())
        .bind(id.to_shared())
        .bind(self.snapshot.version)
        .bind(self.now);
        self.execute(statement).await
    }

    /// What events told of it stays, and so do its outputs, which are not seen without it: a greater
    /// version may bring it back, and then they count again, in whatever order they came. Its project
    /// stays for events that do not say theirs.
    async fn deleted_edition(&mut self, id: &EditionId) -> Result<Applied> {
        let statement = sqlx::query(
            "-- sqlite::deletions::deleted_edition
            insert into edition (workspace, id, version, revision, changed_at, deleted_at)
            values (?1, ?2, ?3, 1, ?4, ?4)
            on conflict (workspace, id) do update
            set version = excluded.version,
                revision = revision + 1,
                deleted_at = excluded.deleted_at,
                name = null,
                period = null,
                assignee_id = null,
                assignee_name = null
            where version is null or excluded.version > version",
        )
        .bind(self.snapshot.workspace.to_shared())
        .bind(id.to_shared())
        .bind(self.snapshot.version)
        .bind(self.now);
        let applied = self.execute(statement).await?;
        if applied == Applied::Changed {
            contents::delete(self.transaction, &self.snapshot.workspace, id).await?;
        }
        Ok(applied)
    }

    async fn deleted_output(&mut self, id: &OutputId) -> Result<Applied> {
        let statement = sqlx::query(
            "-- sqlite::deletions::deleted_output
            insert into output (workspace, id, version, revision, deleted_at)
            values (?1, ?2, ?3, 1, ?4)
            on conflict (workspace, id) do update
            set version = excluded.version,
                revision = revision + 1,
                deleted_at = excluded.deleted_at,
                size = null,
                sha256 = null,
                generated_at = null,
                failure = null
            where version is null or excluded.version > version",
        )
        .bind(self.snapshot.workspace.to_shared())
        .bind(id.to_shared())
        .bind(self.snapshot.version)
        .bind(self.now);
        self.execute(statement).await
    }
}
