//! Reading edition data, each method in one statement or in one transaction.

use async_trait::async_trait;

use super::SqliteStore;
use super::{heads, outputs, sections, structure};
use crate::domain::ids::{BlueprintId, EditionId, OutputId, ProjectId, UserId, WorkspaceId};
use crate::domain::reach::Reach;
use crate::domain::workspace::Member;
use crate::store::{
    BlueprintRecord, EditionFilter, EditionKey, EditionList, EditionRecord, EditionTag, Editions,
    OutputRecord, Page, PageRequest, Result, RowsPage, SectionRecord, SectionTag, Whole,
    WorkspaceRecord,
};

#[async_trait]
impl Editions for SqliteStore {
    async fn workspace(&self, id: &WorkspaceId) -> Result<Option<WorkspaceRecord>> {
        structure::workspace(&mut *self.reader().await?, id).await
    }

    async fn members(
        &self,
        workspace: &WorkspaceId,
        page: PageRequest<UserId>,
    ) -> Result<Page<Member, UserId>> {
        structure::members(&mut *self.reader().await?, workspace, page).await
    }

    async fn blueprints(
        &self,
        reach: &Reach,
        project: &ProjectId,
        page: PageRequest<BlueprintId>,
        max_bytes: usize,
    ) -> Result<Page<BlueprintRecord, BlueprintId>> {
        structure::blueprints(&mut *self.reader().await?, reach, project, page, max_bytes).await
    }

    async fn blueprint(&self, reach: &Reach, id: &BlueprintId) -> Result<Option<BlueprintRecord>> {
        structure::blueprint(&mut *self.reader().await?, reach, id).await
    }

    async fn editions(
        &self,
        reach: &Reach,
        filter: &EditionFilter,
        page: PageRequest<EditionKey>,
    ) -> Result<EditionList> {
        heads::list(&mut *self.read().await?, reach, filter, page).await
    }

    async fn edition(&self, reach: &Reach, id: &EditionId) -> Result<Option<EditionRecord>> {
        heads::one(&mut *self.reader().await?, reach, id).await
    }

    async fn edition_tag(&self, reach: &Reach, id: &EditionId) -> Result<Option<EditionTag>> {
        heads::tag(&mut *self.reader().await?, reach, id).await
    }

    async fn section_tag(&self, reach: &Reach, id: &EditionId) -> Result<Option<SectionTag>> {
        heads::section_tag(&mut *self.reader().await?, reach, id).await
    }

    async fn section(
        &self,
        reach: &Reach,
        edition: &EditionId,
        section: &str,
    ) -> Result<Option<SectionRecord>> {
        let mut transaction = self.read().await?;
        let Some(edition) = heads::one(&mut transaction, reach, edition).await? else {
            return Ok(None);
        };
        let place = sections::Place {
            workspace: &reach.workspace,
            edition: &edition.edition.id,
            section,
        };
        let data = sections::one(&mut transaction, place).await?;
        Ok(Some(SectionRecord { edition, data }))
    }

    async fn rows(
        &self,
        reach: &Reach,
        edition: &EditionId,
        section: &str,
        page: PageRequest<i64>,
        max_bytes: usize,
    ) -> Result<Option<RowsPage>> {
        let mut transaction = self.read().await?;
        let Some(edition) = heads::one(&mut transaction, reach, edition).await? else {
            return Ok(None);
        };
        let place = sections::Place {
            workspace: &reach.workspace,
            edition: &edition.edition.id,
            section,
        };
        let page = sections::rows(&mut transaction, place, page, max_bytes).await?;
        Ok(Some(RowsPage { edition, page }))
    }

    async fn content(
        &self,
        reach: &Reach,
        edition: &EditionId,
        max_bytes: usize,
    ) -> Result<Option<Whole>> {
        let mut transaction = self.read().await?;
        let Some(edition) = heads::one(&mut transaction, reach, edition).await? else {
            return Ok(None);
        };
        let id = &edition.edition.id;
        let content = sections::all(&mut transaction, &reach.workspace, id, max_bytes).await?;
        Ok(Some(match content {
            Some(content) => Whole::Content(Box::new(edition), content),
            None => Whole::TooLarge,
        }))
    }

    async fn outputs(
        &self,
        reach: &Reach,
        edition: &EditionId,
        page: PageRequest<OutputId>,
    ) -> Result<Option<Page<OutputRecord, OutputId>>> {
        let mut transaction = self.read().await?;
        let Some(edition) = heads::one(&mut transaction, reach, edition).await? else {
            return Ok(None);
        };
        let id = &edition.edition.id;
        let page = outputs::list(&mut transaction, &reach.workspace, id, page).await?;
        Ok(Some(page))
    }

    async fn output(&self, reach: &Reach, id: &OutputId) -> Result<Option<OutputRecord>> {
        outputs::one(&mut *self.reader().await?, reach, id).await
    }
}
