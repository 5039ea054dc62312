//! What is there before events are taken in, in one statement.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::postgres::PgBindIterExt;
use sqlx::{FromRow, PgTransaction};
use uuid::Uuid;

use super::errors::from_sqlx;
use super::rows::parse;
use super::{PostgresStore, Result};
use crate::domain::ids::ProjectId;
use crate::store::projection::EditionOf;
use crate::store::targets::Targets;

/// What is there before a batch is taken in.
pub(super) struct LookedUp {
    pub(super) targets: Arc<Targets>,
    /// Events by the keys that are asked for.
    pub(super) known: HashMap<Uuid, Uuid>,
    /// Of the editions that are asked for.
    pub(super) projects: HashMap<EditionOf, ProjectId>,
}

impl PostgresStore {
    /// The subscriptions; which of these keys are known, each with the event it is known by; and of which
    /// projects these editions are, where that is known.
    ///
    /// An event that another accept is committing at this moment is not seen here; writing it again then
    /// fails, and this transaction is run again ([`super::errors`]). The alternative, `on conflict do
    /// nothing returning`, costs every new event half as much again: each is inserted in two steps, and
    /// sent back.
    pub(super) async fn look_up(
        &self,
        tx: &mut PgTransaction<'_>,
        keys: &[Uuid],
        editions: &[EditionOf],
    ) -> Result<LookedUp> {
        // Looked at before the database is asked: what is in memory was committed by then.
        let held = self.held_targets();
        let rows: Vec<LookedUpRow> = sqlx::query_as(
            "-- postgres::known::look_up
            select
                current.generation, known.key, known.event_id,
                null::text as workspace, null::text as edition, null::text as project
            from subscription_generation current
            left join event_key known on known.key = any($1)
            where current.only_row
            union all
            select null, null, null, asked.workspace, asked.id, known.project
            from (select unnest($2::text[]) as workspace, unnest($3::text[]) as id) as asked
            cross join lateral (
                select project
                from edition
                where workspace = asked.workspace and id = asked.id and project is not null
                limit 1
            ) as known",
        )
        .bind(keys)
        .bind(
            editions
                .iter()
                .map(|(workspace, _)| workspace.as_str())
                .bind_iter(),
        )
        .bind(editions.iter().map(|(_, id)| id.as_str()).bind_iter())
        .fetch_all(&mut **tx)
        .await
        .map_err(from_sqlx)?;
        let generation = rows.iter().find_map(|row| row.generation).unwrap_or(0);
        let mut looked_up = LookedUp {
            targets: self.targets_of(tx, held, generation).await?,
            known: HashMap::new(),
            projects: HashMap::new(),
        };
        for row in rows {
            if let Some((key, event)) = row.key.zip(row.event_id) {
                looked_up.known.insert(key, event);
            }
            if let (Some(workspace), Some(edition), Some(project)) =
                (row.workspace, row.edition, row.project)
            {
                let edition = (
                    parse("edition.workspace", &workspace)?,
                    parse("edition.id", &edition)?,
                );
                let project = parse("edition.project", &project)?;
                looked_up.projects.insert(edition, project);
            }
        }
        Ok(looked_up)
    }
}

/// Either of the two kinds of things that are looked up.
#[derive(FromRow)]
struct LookedUpRow {
    generation: Option<i64>,
    key: Option<Uuid>,
    event_id: Option<Uuid>,
    workspace: Option<String>,
    edition: Option<String>,
    project: Option<String>,
}
