//! Ids in paths.

use std::str::FromStr;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;

use super::{Problem, Result};
use crate::domain::ids::{EditionId, RowId};

/// The longest name of a section, in bytes.
const MAX_NAME_BYTES: usize = 255;

/// The id in a path. What cannot be one is not found, like any that does not exist.
#[derive(Clone, Copy, Debug)]
pub struct Id<T>(pub T);

impl<S: Send + Sync, T: FromStr> FromRequestParts<S> for Id<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let Ok(Path(text)) = Path::<String>::from_request_parts(parts, state).await else {
            return Err(Problem::not_found());
        };
        let id = text.parse().map_err(|_| Problem::not_found())?;
        Ok(Self(id))
    }
}

/// A section of an edition in a path. What cannot be the name of one is not found.
#[derive(Clone, Debug)]
pub struct SectionOf {
    /// Of which edition.
    pub edition: EditionId,
    /// What it is called.
    pub name: String,
}

impl<S: Send + Sync> FromRequestParts<S> for SectionOf {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let Ok(Path((id, name))) = Path::<(String, String)>::from_request_parts(parts, state).await
        else {
            return Err(Problem::not_found());
        };
        Self::read(&id, name)
    }
}

impl SectionOf {
    fn read(id: &str, name: String) -> Result<Self> {
        let edition = EditionId::new(id).map_err(|_| Problem::not_found())?;
        if name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
            return Err(Problem::not_found());
        }
        Ok(Self { edition, name })
    }
}

/// A row of a section in a path. What cannot be the id of one is not found.
#[derive(Clone, Debug)]
pub struct RowOf {
    /// Of which section.
    pub section: SectionOf,
    /// Which row.
    pub row: RowId,
}

impl<S: Send + Sync> FromRequestParts<S> for RowOf {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let path = Path::<(String, String, String)>::from_request_parts(parts, state).await;
        let Ok(Path((id, name, row))) = path else {
            return Err(Problem::not_found());
        };
        Ok(Self {
            section: SectionOf::read(&id, name)?,
            row: RowId::new(&row).map_err(|_| Problem::not_found())?,
        })
    }
}
