//! Taking in what the core says of its entities: one upsert for all of a kind, which passes over what
//! is old.
//!
//! The content of editions comes first, since it takes long, and under their turns, for which only
//! other writers of content wait. Then rows are written kind by kind, each in the order of its keys; the
//! heads of editions last, since that sets their clock forward, for which all others that change
//! editions wait.

use std::collections::BTreeSet;

use async_trait::async_trait;
use sqlx::PgTransaction;
use sqlx::postgres::PgBindIterExt;

use super::contents::{Holder, replace, take_turn};
use super::errors::{from_sqlx, retrying};
use super::projection::hold_editions;
use super::{PostgresStore, Result, commit, projects, returns, states};
use crate::domain::blueprint::Blueprint;
use crate::domain::snapshot::{EntityKey, EntityKind, Snapshot, State};
use crate::domain::workspace::{Project, Workspace};
use crate::heavy::heavy;
use crate::store::content::Content;
use crate::store::projects::NewProjects;
use crate::store::snapshots::{bytes, newest, projects as projects_of};
use crate::store::{Applied, Snapshots, definition};

#[async_trait]
impl Snapshots for PostgresStore {
    async fn apply(&self, snapshots: &[Snapshot]) -> Result<Vec<Applied>> {
        if snapshots.is_empty() {
            return Ok(Vec::new());
        }
        // What takes long without the database is done before anybody has to wait for it.
        let news: Vec<News<'_>> = heavy(bytes(snapshots), || {
            let news = newest(snapshots).map(|(number, snapshot)| News {
                number,
                snapshot,
                content: Content::of(snapshot),
            });
            news.collect()
        });
        let projects = made_known(snapshots);
        let changed = retrying(|| self.apply_once(&news, &projects)).await?;
        self.known_projects.remember(projects);
        let mut applied = vec![Applied::Older; snapshots.len()];
        for number in changed {
            applied[number] = Applied::Changed;
        }
        Ok(applied)
    }
}

/// The newest snapshot of an entity.
pub(super) struct News<'a> {
    /// Its place in the batch.
    pub(super) number: usize,
    pub(super) snapshot: &'a Snapshot,
    content: Content<'a>,
}

impl News<'_> {
    pub(super) fn workspace(&self) -> &str {
        self.snapshot.workspace.as_str()
    }

    pub(super) fn id(&self) -> &str {
        self.snapshot.key.id()
    }

    pub(super) fn version(&self) -> i64 {
        self.snapshot.version
    }

    pub(super) fn is_deletion(&self) -> bool {
        matches!(self.snapshot.state, State::Deleted)
    }

    fn edition(&self) -> Option<Holder<'_>> {
        match &self.snapshot.key {
            EntityKey::Edition(edition) => Some(Holder {
                workspace: &self.snapshot.workspace,
                edition,
            }),
            _ => None,
        }
    }
}

/// The projects that a batch tells of, by themselves or by what belongs to them. Each gets its row
/// before any is changed: what is new to two batches at once is then waited for in one order.
fn made_known(snapshots: &[Snapshot]) -> NewProjects {
    let mut projects = projects_of(snapshots);
    projects.extend(snapshots.iter().filter_map(|snapshot| match &snapshot.key {
        EntityKey::Project(id) => Some((snapshot.workspace.clone(), id.clone())),
        _ => None,
    }));
    projects
}

impl PostgresStore {
    /// Answers the places in the batch of those that changed something.
    async fn apply_once(&self, news: &[News<'_>], projects: &NewProjects) -> Result<Vec<usize>> {
        let of = |kind: EntityKind| -> Vec<&News<'_>> {
            let is_of = |news: &&News<'_>| news.snapshot.key.kind() == kind;
            news.iter().filter(is_of).collect()
        };
        let mut tx = self.begin().await?;
        let editions = newer_editions(&mut tx, &of(EntityKind::Edition)).await?;
        for edition in &editions {
            if let Some(holder) = edition.edition() {
                replace(&mut tx, holder, &edition.content).await?;
            }
        }
        let mut changed = write_workspaces(&mut tx, &of(EntityKind::Workspace)).await?;
        if !projects.is_empty() {
            projects::write(&mut tx, projects).await?;
        }
        let returned = returns::returning(&mut tx, &of(EntityKind::Project)).await?;
        changed.extend(write_projects(&mut tx, &of(EntityKind::Project)).await?);
        changed.extend(write_blueprints(&mut tx, &of(EntityKind::Blueprint)).await?);
        let hidden = returns::changed_meanwhile(&mut tx, &returned).await?;
        hold(&mut tx, &editions, &hidden).await?;
        changed.extend(states::write_outputs(&mut tx, &of(EntityKind::Output)).await?);
        states::write_editions(&mut tx, &editions).await?;
        returns::tell(&mut tx, &returned).await?;
        changed.extend(editions.iter().map(|edition| edition.number));
        commit(tx).await?;
        Ok(changed)
    }
}

/// Takes the turns of these editions; answers those that are older than what is told of them now, and
/// stay so until this transaction writes them.
async fn newer_editions<'n, 'a>(
    tx: &mut PgTransaction<'_>,
    news: &[&'n News<'a>],
) -> Result<Vec<&'n News<'a>>> {
    if news.is_empty() {
        return Ok(Vec::new());
    }
    take_turn(tx, news.iter().filter_map(|news| news.edition())).await?;
    let newer = states::newer_editions(tx, news).await?;
    Ok(news
        .iter()
        .filter(|news| newer.contains(&news.number))
        .copied()
        .collect())
}

/// Holds the heads of these editions, and of others, to the end of the transaction, from here on
/// against accepts too.
async fn hold(
    tx: &mut PgTransaction<'_>,
    news: &[&News<'_>],
    others: &[(String, String)],
) -> Result<()> {
    let told = news.iter().map(|news| (news.workspace(), news.id()));
    let others = others.iter().map(|(workspace, id)| (&**workspace, &**id));
    let editions: BTreeSet<(&str, &str)> = told.chain(others).collect();
    if editions.is_empty() {
        return Ok(());
    }
    hold_editions(tx, &Vec::from_iter(editions)).await
}

/// The places in the batch of those whose rows changed.
pub(super) fn places(news: &[&News<'_>], changed: &[(String, String)]) -> Vec<usize> {
    let is_changed = |news: &&&News<'_>| {
        changed
            .iter()
            .any(|(workspace, id)| workspace == news.workspace() && id == news.id())
    };
    news.iter()
        .filter(is_changed)
        .map(|news| news.number)
        .collect()
}

async fn write_workspaces(tx: &mut PgTransaction<'_>, news: &[&News<'_>]) -> Result<Vec<usize>> {
    if news.is_empty() {
        return Ok(Vec::new());
    }
    let changed: Vec<(String, String)> = sqlx::query_as(
        "-- postgres::snapshots::write_workspaces
        insert into workspace (id, version, name, settings, deleted_at)
        select
            told.id, told.version, coalesce(told.name, ''), coalesce(told.settings, '{}'),
            case when told.deleted then now() end
        from (
            select
                unnest($1::text[]) as id,
                unnest($2::bigint[]) as version,
                unnest($3::text[]) as name,
                unnest($4::text[]) as settings,
                unnest($5::boolean[]) as deleted
        ) as told
        on conflict on constraint workspace_pk do update
        set version = excluded.version,
            name = excluded.name,
            settings = excluded.settings,
            deleted_at = excluded.deleted_at
        where excluded.version > workspace.version
        returning id, ''",
    )
    .bind(news.iter().map(|news| news.workspace()).bind_iter())
    .bind(news.iter().map(|news| news.version()).bind_iter())
    .bind(
        news.iter()
            .map(|news| workspace(news).map(|state| state.name.as_str()))
            .bind_iter(),
    )
    .bind(
        news.iter()
            .map(|news| workspace(news).map(|state| state.settings.get()))
            .bind_iter(),
    )
    .bind(news.iter().map(|news| news.is_deletion()).bind_iter())
    .fetch_all(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    let changed = places(news, &changed);
    for news in news.iter().filter(|news| changed.contains(&news.number)) {
        write_members(tx, news).await?;
    }
    Ok(changed)
}

fn workspace<'n>(news: &'n News<'_>) -> Option<&'n Workspace> {
    match &news.snapshot.state {
        State::Workspace(state) => Some(state),
        _ => None,
    }
}

/// Puts these members in the place of all that there were.
async fn write_members(tx: &mut PgTransaction<'_>, news: &News<'_>) -> Result<()> {
    sqlx::query(
        "-- postgres::snapshots::write_members (forget)
        delete from member where workspace = $1",
    )
    .bind(news.workspace())
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    let members = workspace(news).map_or(&[][..], |state| &state.members);
    if members.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "-- postgres::snapshots::write_members
        insert into member (workspace, id, name, email, role)
        select
            $1, unnest($2::text[]), unnest($3::text[]), unnest($4::text[]), unnest($5::text[])",
    )
    .bind(news.workspace())
    .bind(
        members
            .iter()
            .map(|member| member.user.id.as_str())
            .bind_iter(),
    )
    .bind(
        members
            .iter()
            .map(|member| member.user.name.as_deref())
            .bind_iter(),
    )
    .bind(
        members
            .iter()
            .map(|member| member.email.as_deref())
            .bind_iter(),
    )
    .bind(
        members
            .iter()
            .map(|member| member.role.as_deref())
            .bind_iter(),
    )
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(())
}

async fn write_projects(tx: &mut PgTransaction<'_>, news: &[&News<'_>]) -> Result<Vec<usize>> {
    if news.is_empty() {
        return Ok(Vec::new());
    }
    let changed: Vec<(String, String)> = sqlx::query_as(
        "-- postgres::snapshots::write_projects
        insert into project (workspace, id, version, name, description, deleted_at)
        select
            told.workspace, told.id, told.version, told.name, told.description,
            case when told.deleted then now() end
        from (
            select
                unnest($1::text[]) as workspace,
                unnest($2::text[]) as id,
                unnest($3::bigint[]) as version,
                unnest($4::text[]) as name,
                unnest($5::text[]) as description,
                unnest($6::boolean[]) as deleted
        ) as told
        on conflict on constraint project_pk do update
        set version = excluded.version,
            name = excluded.name,
            description = excluded.description,
            deleted_at = excluded.deleted_at
        where project.version is null or excluded.version > project.version
        returning workspace, id",
    )
    .bind(news.iter().map(|news| news.workspace()).bind_iter())
    .bind(news.iter().map(|news| news.id()).bind_iter())
    .bind(news.iter().map(|news| news.version()).bind_iter())
    .bind(
        news.iter()
            .map(|news| project(news).map(|state| state.name.as_str()))
            .bind_iter(),
    )
    .bind(
        news.iter()
            .map(|news| project(news)?.description.as_deref())
            .bind_iter(),
    )
    .bind(news.iter().map(|news| news.is_deletion()).bind_iter())
    .fetch_all(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(places(news, &changed))
}

async fn write_blueprints(tx: &mut PgTransaction<'_>, news: &[&News<'_>]) -> Result<Vec<usize>> {
    if news.is_empty() {
        return Ok(Vec::new());
    }
    let definitions: Vec<Option<String>> = news
        .iter()
        .map(|news| blueprint(news).map(definition::write).transpose())
        .collect::<Result<_>>()?;
    let changed: Vec<(String, String)> = sqlx::query_as(
        "-- postgres::snapshots::write_blueprints
        insert into blueprint (workspace, id, version, project, name, definition, deleted_at)
        select
            told.workspace, told.id, told.version, told.project, told.name, told.definition,
            case when told.deleted then now() end
        from (
            select
                unnest($1::text[]) as workspace,
                unnest($2::text[]) as id,
                unnest($3::bigint[]) as version,
                unnest($4::text[]) as project,
                unnest($5::text[]) as name,
                unnest($6::text[]) as definition,
                unnest($7::boolean[]) as deleted
        ) as told
        on conflict on constraint blueprint_pk do update
        set version = excluded.version,
            project = excluded.project,
            name = excluded.name,
            definition = excluded.definition,
            deleted_at = excluded.deleted_at
        where excluded.version > blueprint.version
        returning workspace, id",
    )
    .bind(news.iter().map(|news| news.workspace()).bind_iter())
    .bind(news.iter().map(|news| news.id()).bind_iter())
    .bind(news.iter().map(|news| news.version()).bind_iter())
    .bind(
        news.iter()
            .map(|news| blueprint(news).map(|state| state.project.as_str()))
            .bind_iter(),
    )
    .bind(
        news.iter()
            .map(|news| blueprint(news).map(|state| state.name.as_str()))
            .bind_iter(),
    )
    .bind(definitions)
    .bind(news.iter().map(|news| news.is_deletion()).bind_iter())
    .fetch_all(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(places(news, &changed))
}

fn project<'n>(news: &'n News<'_>) -> Option<&'n Project> {
    match &news.snapshot.state {
        State::Project(state) => Some(state),
        _ => None,
    }
}

fn blueprint<'n>(news: &'n News<'_>) -> Option<&'n Blueprint> {
    match &news.snapshot.state {
        State::Blueprint(state) => Some(state),
        _ => None,
    }
}
