//! Ids in paths.

use std::str::FromStr;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;

use super::{Problem, Result};

/// The id in a path. What cannot be one is not found, like any that does not exist.
#[derive(Clone, Copy, Debug)]
pub struct Id<T>(pub T);

/// An id of the core in a path, as text: whether it can be one its handler says.
#[derive(Clone, Debug)]
pub struct CoreId(pub String);

impl<S: Send + Sync> FromRequestParts<S> for CoreId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(text)) => Ok(Self(text)),
            Err(_) => Err(Problem::not_found()),
        }
    }
}

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
