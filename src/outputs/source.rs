//! Where a renderer reads an edition.

use async_trait::async_trait;

use crate::domain::blueprint::Blueprint;
use crate::domain::edition::{Edition, Row};
use crate::domain::ids::{EditionId, WorkspaceId};
use crate::domain::values::Values;
use crate::store::StoreError;

/// An edition at one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    /// The tenant.
    pub workspace: WorkspaceId,
    /// Which edition.
    pub edition: EditionId,
    /// Its version.
    pub version: i64,
}

/// An edition without what its sections hold.
#[derive(Clone, Debug)]
pub struct Outline {
    /// Its head.
    pub edition: Edition,
    /// What it is an edition of, as it is now.
    pub blueprint: Blueprint,
}

/// Rows of a repeating section, in their order.
#[derive(Clone, Debug, Default)]
pub struct RowPage {
    /// The rows.
    pub rows: Vec<Row>,
    /// Pass as `after` to go on; `None` on the last page.
    pub next: Option<i64>,
}

/// Gives an edition piece by piece, so that a large one need not fit into memory.
///
/// All pieces are of the version that [`At`] names: an edition that has moved on in between is
/// [`SourceError::Changed`], and what was read of it is thrown away.
#[async_trait]
pub trait Source: Send + Sync {
    /// The edition as it is now.
    async fn outline(
        &self,
        workspace: &WorkspaceId,
        edition: &EditionId,
    ) -> Result<Outline, SourceError>;

    /// What a single section holds; no value where nothing was filled.
    async fn single(&self, at: &At, section: &str) -> Result<Values, SourceError>;

    /// Rows of a repeating section behind `after`: at most `limit`, and fewer where they are large
    /// (a page is to stay within a few MB).
    async fn rows(
        &self,
        at: &At,
        section: &str,
        after: Option<i64>,
        limit: usize,
    ) -> Result<RowPage, SourceError>;
}

/// Why an edition cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// There is no such edition, or its blueprint is gone.
    #[error("the edition is gone")]
    Missing,

    /// It has another version by now: begin again.
    #[error("the edition changed meanwhile")]
    Changed,

    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}
