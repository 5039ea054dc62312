//! `Idempotency-Key` on the calls that create (product.md §5): a request that is sent again does
//! nothing a second time.
//!
//! Where the answer held a secret, which is shown once only, a repeat is told what was made; a repeated
//! write of edition data is given the same answer again.

use axum::extract::FromRequestParts;
use axum::http::HeaderName;
use axum::http::request::Parts;

use super::problem_type::ProblemType;
use super::{Problem, Result};
use crate::domain::ids::ApiKeyId;
use crate::store::{Creation, Idempotency};

/// The header (draft-ietf-httpapi-idempotency-key-header).
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The longest, in characters.
const MAX_CHARS: usize = 255;

/// What a client names its request by, if it does.
#[derive(Clone, Debug)]
pub struct IdempotencyKey(Option<String>);

impl<S: Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self> {
        let mut values = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(value) = values.next() else {
            return Ok(Self(None));
        };
        let text = value.to_str().unwrap_or_default();
        // A tab is no character that is printed, though a header may hold it.
        let fits = (1..=MAX_CHARS).contains(&text.len()) && !text.contains('\t');
        if values.next().is_some() || !fits {
            return Err(Problem::bad_header(
                &IDEMPOTENCY_KEY,
                "must be given once, with 1 to 255 printable ASCII characters",
            ));
        }
        Ok(Self(Some(text.to_owned())))
    }
}

impl IdempotencyKey {
    /// Whether the client named its request.
    pub fn is_given(&self) -> bool {
        self.0.is_some()
    }

    /// What the store needs to tell a repeat.
    pub fn once(
        self,
        caller: ApiKeyId,
        route: &'static str,
        fingerprint: [u8; 32],
    ) -> Option<Idempotency> {
        self.0.map(|key| Idempotency {
            caller,
            route,
            key,
            fingerprint,
        })
    }
}

/// What was made now; a repeat is a problem.
pub fn created<T>(creation: Creation<T>) -> Result<T> {
    match creation {
        Creation::Created(made) => Ok(made),
        Creation::Repeated { id } => Err(Problem::already_created(id)),
        Creation::Conflicting => Err(Problem::new(ProblemType::IdempotencyKeyReused)),
    }
}
