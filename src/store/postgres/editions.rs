//! Reading edition data: each method in one statement, or in one transaction that sees one state.

use async_trait::async_trait;

use super::errors::reading;
use super::sections::Place;
use super::{PostgresStore, Result, heads, outputs, sections, structure};
use crate::domain::ids::{BlueprintId, EditionId, OutputId, ProjectId, UserId, WorkspaceId};
use crate::domain::reach::Reach;
use crate::domain::workspace::Member;
use crate::store::{
    BlueprintRecord, EditionFilter, EditionKey, EditionList, EditionRecord, EditionTag, Editions,
    OutputRecord, Page, PageRequest, RowsPage, SectionRecord, SectionTag, Whole, WorkspaceRecord,
};

#[async_trait]
impl Editions for PostgresStore {
    async fn workspace(&self, id: &WorkspaceId) -> Result<Option<WorkspaceRecord>> {
        reading(structure::workspace(&self.pool, id)).await
    }

    async fn members(
        &self,
        workspace: &WorkspaceId,
        page: PageRequest<UserId>,
    ) -> Result<Page<Member, UserId>> {
        reading(structure::members(&self.pool, workspace, page)).await
    }

    async fn blueprints(
        &self,
        reach: &Reach,
        project: &ProjectId,
        page: PageRequest<BlueprintId>,
        max_bytes: usize,
    ) -> Result<Page<BlueprintRecord, BlueprintId>> {
        reading(structure::blueprints(
            &self.pool, reach, project, page, max_bytes,
        ))
        .await
    }

    async fn blueprint(&self, reach: &Reach, id: &BlueprintId) -> Result<Option<BlueprintRecord>> {
        reading(structure::blueprint(&self.pool, reach, id)).await
    }

    async fn editions(
        &self,
        reach: &Reach,
        filter: &EditionFilter,
        page: PageRequest<EditionKey>,
    ) -> Result<EditionList> {
        reading(async { heads::list(&mut *self.read().await?, reach, filter, page).await }).await
    }

    async fn edition(&self, reach: &Reach, id: &EditionId) -> Result<Option<EditionRecord>> {
        reading(heads::one(&self.pool, reach, id)).await
    }

    async fn edition_tag(&self, reach: &Reach, id: &EditionId) -> Result<Option<EditionTag>> {
        reading(heads::tag(&self.pool, reach, id)).await
    }

    async fn section_tag(&self, reach: &Reach, id: &EditionId) -> Result<Option<SectionTag>> {
        reading(heads::section_tag(&self.pool, reach, id)).await
    }

    async fn section(
        &self,
        reach: &Reach,
        edition: &EditionId,
        section: &str,
    ) -> Result<Option<SectionRecord>> {
        reading(async {
            let mut tx = self.read().await?;
            let Some(edition) = heads::one(&mut *tx, reach, edition).await? else {
                return Ok(None);
            };
            let place = Place::of(reach, &edition, section);
            let data = sections::one(&mut tx, place).await?;
            Ok(Some(SectionRecord { edition, data }))
        })
        .await
    }

    async fn rows(
        &self,
        reach: &Reach,
        edition: &EditionId,
        section: &str,
        page: PageRequest<i64>,
        max_bytes: usize,
    ) -> Result<Option<RowsPage>> {
        reading(async {
            let mut tx = self.read().await?;
            let Some(edition) = heads::one(&mut *tx, reach, edition).await? else {
                return Ok(None);
            };
            let place = Place::of(reach, &edition, section);
            let page = sections::rows(&mut tx, place, page, max_bytes).await?;
            Ok(Some(RowsPage { edition, page }))
        })
        .await
    }

    async fn content(
        &self,
        reach: &Reach,
        edition: &EditionId,
        max_bytes: usize,
    ) -> Result<Option<Whole>> {
        reading(async {
            let mut tx = self.read().await?;
            let Some(edition) = heads::one(&mut *tx, reach, edition).await? else {
                return Ok(None);
            };
            let content = sections::all(&mut tx, reach, &edition, max_bytes).await?;
            Ok(Some(match content {
                Some(content) => Whole::Content(Box::new(edition), content),
                None => Whole::TooLarge,
            }))
        })
        .await
    }

    async fn outputs(
        &self,
        reach: &Reach,
        edition: &EditionId,
        page: PageRequest<OutputId>,
    ) -> Result<Option<Page<OutputRecord, OutputId>>> {
        reading(async {
            let mut tx = self.read().await?;
            let Some(edition) = heads::one(&mut *tx, reach, edition).await? else {
                return Ok(None);
            };
            outputs::list(&mut tx, reach, &edition, page)
                .await
                .map(Some)
        })
        .await
    }

    async fn output(&self, reach: &Reach, id: &OutputId) -> Result<Option<OutputRecord>> {
        reading(outputs::one(&self.pool, reach, id)).await
    }
}
