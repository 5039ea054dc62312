//! What a write's headers say, read alike by all of them.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use sha2::{Digest, Sha256};
use utoipa::IntoParams;

use crate::api::etag::Precondition;
use crate::api::idempotency::IdempotencyKey;
use crate::api::trace::Traced;
use crate::api::{Problem, Result};
use crate::domain::ids::ApiKeyId;
use crate::heavy::heavy;
use crate::store::Idempotency;

/// By what a repeat is known, and which versions may be changed.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    idempotency: IdempotencyKey,
    precondition: Precondition,
    /// What the request is sent to: the route's keys are shared by all editions.
    target: String,
    /// The trace of the request.
    trace: Option<String>,
}

impl<S: Sync> FromRequestParts<S> for Terms {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        Ok(Self {
            idempotency: IdempotencyKey::from_request_parts(parts, state).await?,
            precondition: Precondition::of(&parts.headers)?,
            target: parts.uri.path().to_owned(),
            trace: parts.extensions.get().and_then(Traced::traceparent),
        })
    }
}

impl Terms {
    /// By what a repeat is known: the same target, and the same parts of the body.
    pub(super) fn once(
        &self,
        caller: ApiKeyId,
        route: &'static str,
        body: &[&[u8]],
    ) -> Option<Idempotency> {
        if !self.idempotency.is_given() {
            return None;
        }
        let bytes = body.iter().map(|part| part.len()).sum();
        let fingerprint = heavy(bytes, || {
            let mut digest = Sha256::new_with_prefix(&self.target);
            for part in body {
                // Nothing before the last part holds NUL.
                digest.update([0]);
                digest.update(part);
            }
            digest.finalize().into()
        });
        let key = self.idempotency.clone();
        key.once(caller, route, fingerprint)
    }

    /// The trace that what it makes belongs to, where it is exported.
    pub(super) fn trace(&self) -> Option<&str> {
        self.trace.as_deref()
    }

    /// The versions that the client knows, where it bound the write to any.
    pub(super) fn versions(&self) -> Option<&[i64]> {
        self.precondition.versions()
    }
}

/// The header of the writes, whose answers can be given again.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes a header that an extractor reads")]
pub struct RepeatHeader {
    /// Names the request, so that it does nothing when it is sent again within 24 hours: a repeat is
    /// given the first one's answer, another body 422 `idempotency-key-reused`.
    #[param(
        rename = "Idempotency-Key",
        min_length = 1,
        max_length = 255,
        value_type = String,
        required = false,
        pattern = "^[!-~]([ -~]*[!-~])?$"
    )]
    idempotency_key: Option<String>,
}
