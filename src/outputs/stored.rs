//! Editions as renderers read them, out of the store.

use std::sync::Arc;

use async_trait::async_trait;

use super::source::{At, Outline, RowPage, Source, SourceError};
use crate::domain::ids::{EditionId, WorkspaceId};
use crate::domain::reach::Reach;
use crate::domain::values::Values;
use crate::store::{EditionRecord, PageRequest, SectionData, Store};

/// How many bytes of rows are read at once: two pages wait at most, for each file under way.
const PAGE_BYTES: usize = 2 * 1024 * 1024;

/// The store's editions. Each piece is read by a transaction of its own and says of which version it
/// is, so that one of another version is noticed.
#[derive(Clone, Debug)]
pub struct Stored(Arc<dyn Store>);

impl Stored {
    /// Those of this store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self(store)
    }
}

#[async_trait]
impl Source for Stored {
    async fn outline(
        &self,
        workspace: &WorkspaceId,
        edition: &EditionId,
    ) -> Result<Outline, SourceError> {
        let reach = Reach::all(workspace);
        let found = self.0.edition(&reach, edition).await?;
        let edition = found.ok_or(SourceError::Missing)?.edition;
        let found = self.0.blueprint(&reach, &edition.blueprint).await?;
        let blueprint = found.ok_or(SourceError::Missing)?.blueprint;
        Ok(Outline { edition, blueprint })
    }

    async fn single(&self, at: &At, section: &str) -> Result<Values, SourceError> {
        let reach = Reach::all(&at.workspace);
        let found = self.0.section(&reach, &at.edition, section).await?;
        let found = found.ok_or(SourceError::Missing)?;
        unchanged(at, &found.edition)?;
        Ok(match found.data {
            SectionData::Single(values) => values,
            SectionData::Empty | SectionData::Repeating => Values::default(),
        })
    }

    async fn rows(
        &self,
        at: &At,
        section: &str,
        after: Option<i64>,
        limit: usize,
    ) -> Result<RowPage, SourceError> {
        let reach = Reach::all(&at.workspace);
        let page = PageRequest { limit, after };
        let found = self
            .0
            .rows(&reach, &at.edition, section, page, PAGE_BYTES)
            .await?;
        let found = found.ok_or(SourceError::Missing)?;
        unchanged(at, &found.edition)?;
        Ok(RowPage {
            rows: found.page.items,
            next: found.page.next,
        })
    }
}

fn unchanged(at: &At, found: &EditionRecord) -> Result<(), SourceError> {
    if found.edition.version == at.version {
        Ok(())
    } else {
        Err(SourceError::Changed)
    }
}
