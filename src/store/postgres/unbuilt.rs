//! Edition data: kept by `SQLite` only so far.

use async_trait::async_trait;

use super::{PostgresStore, Result};
use crate::domain::ids::{BlueprintId, EditionId, OutputId, ProjectId, UserId, WorkspaceId};
use crate::domain::reach::Reach;
use crate::domain::snapshot::Snapshot;
use crate::domain::workspace::Member;
use crate::store::{
    Applied, BlueprintRecord, EditionFilter, EditionKey, EditionList, EditionRecord, EditionTag,
    Editions, OutputRecord, Page, PageRequest, RowsPage, SectionRecord, Snapshots, StoreError,
    Whole, WorkspaceRecord,
};

fn unbuilt<T>() -> Result<T> {
    Err(StoreError::Configuration(
        "edition data is not kept by Postgres yet".to_owned(),
    ))
}

#[async_trait]
impl Snapshots for PostgresStore {
    async fn apply(&self, _: &[Snapshot]) -> Result<Vec<Applied>> {
        unbuilt()
    }
}

#[async_trait]
impl Editions for PostgresStore {
    async fn workspace(&self, _: &WorkspaceId) -> Result<Option<WorkspaceRecord>> {
        unbuilt()
    }

    async fn members(
        &self,
        _: &WorkspaceId,
        _: PageRequest<UserId>,
    ) -> Result<Page<Member, UserId>> {
        unbuilt()
    }

    async fn blueprints(
        &self,
        _: &Reach,
        _: &ProjectId,
        _: PageRequest<BlueprintId>,
    ) -> Result<Page<BlueprintRecord, BlueprintId>> {
        unbuilt()
    }

    async fn blueprint(&self, _: &Reach, _: &BlueprintId) -> Result<Option<BlueprintRecord>> {
        unbuilt()
    }

    async fn editions(
        &self,
        _: &Reach,
        _: &EditionFilter,
        _: PageRequest<EditionKey>,
    ) -> Result<EditionList> {
        unbuilt()
    }

    async fn edition(&self, _: &Reach, _: &EditionId) -> Result<Option<EditionRecord>> {
        unbuilt()
    }

    async fn edition_tag(&self, _: &Reach, _: &EditionId) -> Result<Option<EditionTag>> {
        unbuilt()
    }

    async fn section(&self, _: &Reach, _: &EditionId, _: &str) -> Result<Option<SectionRecord>> {
        unbuilt()
    }

    async fn rows(
        &self,
        _: &Reach,
        _: &EditionId,
        _: &str,
        _: PageRequest<i64>,
        _: usize,
    ) -> Result<Option<RowsPage>> {
        unbuilt()
    }

    async fn content(&self, _: &Reach, _: &EditionId, _: usize) -> Result<Option<Whole>> {
        unbuilt()
    }

    async fn outputs(
        &self,
        _: &Reach,
        _: &EditionId,
        _: PageRequest<OutputId>,
    ) -> Result<Option<Page<OutputRecord, OutputId>>> {
        unbuilt()
    }

    async fn output(&self, _: &Reach, _: &OutputId) -> Result<Option<OutputRecord>> {
        unbuilt()
    }
}
