//! Taking in what the core says of its entities: one upsert each, which passes over what is old.

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::bulk::{self, Bulk, Statement};
use super::contents;
use super::error::store_error;
use super::rows::millis;
use super::{SqliteStore, projects};
use crate::domain::blueprint::Blueprint;
use crate::domain::edition::Edition;
use crate::domain::output::Output;
use crate::domain::snapshot::{Snapshot, State};
use crate::domain::workspace::{Member, Project, Workspace};
use crate::heavy::heavy;
use crate::store::content::Content;
use crate::store::snapshots::{bytes, newest, projects as projects_of};
use crate::store::{Applied, Result, Snapshots, definition};

#[async_trait]
impl Snapshots for SqliteStore {
    async fn apply(&self, snapshots: &[Snapshot]) -> Result<Vec<Applied>> {
        let mut applied = vec![Applied::Older; snapshots.len()];
        // What takes long without the database is done before anybody has to wait for it.
        let newest: Vec<_> = heavy(bytes(snapshots), || {
            let newest = newest(snapshots);
            let with_content = |(number, snapshot)| (number, snapshot, Content::of(snapshot));
            newest.map(with_content).collect()
        });
        let mut transaction = self.write().await?;
        let now = millis(self.clock.now());
        projects::write(&mut transaction, &projects_of(snapshots), now).await?;
        let mut changed_at = None;
        for (number, snapshot, content) in newest {
            let mut writing = Writing {
                transaction: &mut transaction,
                snapshot,
                now,
                changed_at: &mut changed_at,
            };
            if let (Applied::Changed, Some(outcome)) =
                (writing.apply(&content).await?, applied.get_mut(number))
            {
                *outcome = Applied::Changed;
            }
        }
        self.commit(transaction).await?;
        Ok(applied)
    }
}

/// Sets the clock of editions forward, and answers the time of this transaction's changes.
pub(super) async fn tick(transaction: &mut SqliteConnection, now: i64) -> Result<i64> {
    sqlx::query_scalar(
        "-- sqlite::snapshots::tick
        update edition_clock set last = max(last + 1, ?1) returning last",
    )
    .bind(now)
    .fetch_one(transaction)
    .await
    .map_err(store_error)
}

/// One snapshot on its way.
pub(super) struct Writing<'a> {
    pub(super) transaction: &'a mut SqliteConnection,
    pub(super) snapshot: &'a Snapshot,
    pub(super) now: i64,
    /// The time of this transaction's changes, once there was one.
    changed_at: &'a mut Option<i64>,
}

impl Writing<'_> {
    async fn apply(&mut self, content: &Content<'_>) -> Result<Applied> {
        match &self.snapshot.state {
            State::Workspace(state) => self.workspace(state).await,
            State::Project(state) => self.project(state).await,
            State::Blueprint(state) => self.blueprint(state).await,
            State::Edition(state) => self.edition(&state.edition, content).await,
            State::Output(state) => self.output(state).await,
            State::Deleted => self.deleted().await,
        }
    }

    /// Runs an upsert of one row that passes over what is old.
    pub(super) async fn execute(&mut self, statement: Statement) -> Result<Applied> {
        let done = statement.execute(&mut *self.transaction).await;
        Ok(match done.map_err(store_error)?.rows_affected() {
            0 => Applied::Older,
            _ => Applied::Changed,
        })
    }

    /// The time of this transaction's changes.
    async fn changed_at(&mut self) -> Result<i64> {
        if let Some(changed_at) = *self.changed_at {
            return Ok(changed_at);
        }
        let changed_at = tick(self.transaction, self.now).await?;
        *self.changed_at = Some(changed_at);
        Ok(changed_at)
    }

    async fn workspace(&mut self, state: &Workspace) -> Result<Applied> {
        let statement = sqlx::query(
            "-- sqlite::snapshots::workspace
            insert into workspace (id, version, name, settings, deleted_at)
            values (?1, ?2, ?3, ?4, null)
            on conflict (id) do update
            set version = excluded.version,
                name = excluded.name,
                settings = excluded.settings,
                deleted_at = null
            where excluded.version > version",
        )
        .bind(self.snapshot.workspace.to_shared())
        .bind(self.snapshot.version)
        .bind(state.name.as_str())
        .bind(state.settings.get());
        let applied = self.execute(statement).await?;
        if applied == Applied::Changed {
            self.forget_members().await?;
            self.write_members(&state.members).await?;
        }
        Ok(applied)
    }

    async fn write_members(&mut self, members: &[Member]) -> Result<()> {
        static INSERT: Bulk = Bulk::new(
            "-- sqlite::snapshots::write_members
            with fresh (id, name, email, role) as (values ",
            "(?, ?, ?, ?)",
            ")
            insert into member (workspace, id, name, email, role)
            select ?, id, name, email, role from fresh where id is not null",
        );
        let workspace = &self.snapshot.workspace;
        let statements = INSERT.statements(
            members,
            |statement, member| {
                statement
                    .bind(member.user.id.to_shared())
                    .bind(member.user.name.as_deref())
                    .bind(member.email.as_deref())
                    .bind(member.role.as_deref())
            },
            |statement| statement.bind(workspace.to_shared()),
        );
        bulk::execute(self.transaction, statements).await?;
        Ok(())
    }

    async fn project(&mut self, state: &Project) -> Result<Applied> {
        let deleted_at = self.deleted_at(&state.id).await?;
        let statement = sqlx::query(
            "-- sqlite::snapshots::project
            insert into project (workspace, id, version, name, description, first_seen_at)
            values (?1, ?2, ?3, ?4, ?5, ?6)
            on conflict (workspace, id) do update
            set version = excluded.version,
                name = excluded.name,
                description = excluded.description,
                deleted_at = null
            where version is null or excluded.version > version",
        )
        .bind(self.snapshot.workspace.to_shared())
        .bind(state.id.to_shared())
        .bind(self.snapshot.version)
        .bind(state.name.as_str())
        .bind(state.description.as_deref())
        .bind(self.now);
        let applied = self.execute(statement).await?;
        if let (Applied::Changed, Some(since)) = (applied, deleted_at) {
            let now = self.changed_at().await?;
            self.returned_project(&state.id, since, now).await?;
        }
        Ok(applied)
    }

    async fn blueprint(&mut self, state: &Blueprint) -> Result<Applied> {
        let statement = sqlx::query(
            "-- sqlite::snapshots::blueprint
            insert into blueprint (workspace, id, version, project, name, definition)
            values (?1, ?2, ?3, ?4, ?5, ?6)
            on conflict (workspace, id) do update
            set version = excluded.version,
                project = excluded.project,
                name = excluded.name,
                definition = excluded.definition,
                deleted_at = null
            where excluded.version > version",
        )
        .bind(self.snapshot.workspace.to_shared())
        .bind(state.id.to_shared())
        .bind(self.snapshot.version)
        .bind(state.project.to_shared())
        .bind(state.name.as_str())
        .bind(definition::write(state)?);
        self.execute(statement).await
    }

    async fn edition(&mut self, head: &Edition, content: &Content<'_>) -> Result<Applied> {
        let changed_at = self.changed_at().await?;
        let assignee = head.assignee.as_ref();
        let statement = sqlx::query(
            "-- sqlite::snapshots::edition
            insert into edition (workspace, id, version, revision, changed_at, project, blueprint,
                name, period, assignee_id, assignee_name, created_at, stated_status, stated_at)
            values (?1, ?2, ?3, 1, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
            on conflict (workspace, id) do update
            set version = excluded.version,
                revision = revision + 1,
                changed_at = excluded.changed_at,
                deleted_at = null,
                project = excluded.project,
                blueprint = excluded.blueprint,
                name = excluded.name,
                period = excluded.period,
                assignee_id = excluded.assignee_id,
                assignee_name = excluded.assignee_name,
                created_at = excluded.created_at,
                stated_status = excluded.stated_status,
                stated_at = excluded.stated_at
            where version is null or excluded.version > version",
        )
        .bind(self.snapshot.workspace.to_shared())
        .bind(head.id.to_shared())
        .bind(self.snapshot.version)
        .bind(changed_at)
        .bind(head.project.to_shared())
        .bind(head.blueprint.to_shared())
        .bind(head.name.as_str())
        .bind(head.period.as_deref())
        .bind(assignee.map(|person| person.id.to_shared()))
        .bind(assignee.and_then(|person| person.name.as_deref()))
        .bind(millis(head.created_at))
        .bind(head.status.as_str())
        .bind(millis(head.status_changed_at));
        let applied = self.execute(statement).await?;
        if applied == Applied::Changed {
            let (workspace, id) = (&self.snapshot.workspace, &head.id);
            contents::replace(self.transaction, workspace, id, content).await?;
        }
        Ok(applied)
    }

    async fn output(&mut self, state: &Output) -> Result<Applied> {
        let file = state.file.as_ref();
        let statement = sqlx::query(
            "-- sqlite::snapshots::output
            insert into output (workspace, id, version, revision, edition, name, format,
                stated_status, stated_at, size, sha256, generated_at, failure)
            values (?1, ?2, ?3, 1, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
            on conflict (workspace, id) do update
            set version = excluded.version,
                revision = revision + 1,
                deleted_at = null,
                edition = excluded.edition,
                name = excluded.name,
                format = excluded.format,
                stated_status = excluded.stated_status,
                stated_at = excluded.stated_at,
                size = excluded.size,
                sha256 = excluded.sha256,
                generated_at = excluded.generated_at,
                failure = excluded.failure
            where version is null or excluded.version > version",
        )
        .bind(self.snapshot.workspace.to_shared())
        .bind(state.id.to_shared())
        .bind(self.snapshot.version)
        .bind(state.edition.to_shared())
        .bind(state.name.as_str())
        .bind(state.format.as_str())
        .bind(state.status.as_str())
        .bind(millis(state.updated_at))
        .bind(file.map(|file| i64::try_from(file.size).unwrap_or(i64::MAX)))
        .bind(file.map(|file| file.sha256.as_str()))
        .bind(file.map(|file| millis(file.generated_at)))
        .bind(state.failure.as_deref());
        self.execute(statement).await
    }
}
