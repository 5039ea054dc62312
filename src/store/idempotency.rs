//! Creating calls and writes that may be repeated: what the first one did is not done again
//! (product.md §5).
//!
//! The key is written by the transaction that it is for, before anything else: of two calls at once
//! the second waits for the first one's commit, and a call that fails leaves its key unused. The
//! answers of creating calls hold secrets, so nothing is kept of them but the id of what was created;
//! those of writes of edition data are kept and given again.

use std::time::Duration;

use super::{Result, StoreError, Written};
use crate::domain::ids::ApiKeyId;

/// How long a key is remembered.
pub const REMEMBERED: Duration = Duration::from_hours(24);

/// How many keys that are remembered for longer one creating call removes: more than it adds, and
/// few enough not to be noticed.
pub(super) const FORGOTTEN_AT_ONCE: usize = 20;

/// By what a repeated call is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// Who asks: each caller has keys of its own.
    pub caller: ApiKeyId,
    /// For what: each route has keys of its own.
    pub route: &'static str,
    /// The key that the client gave.
    pub key: String,
    /// SHA-256 of what is asked for.
    pub fingerprint: [u8; 32],
}

impl Idempotency {
    /// What a creating call comes to whose key is known.
    pub(super) fn creation<T>(&self, known: Known) -> Creation<T> {
        if self.fingerprint == *known.fingerprint {
            Creation::Repeated { id: known.object }
        } else {
            Creation::Conflicting
        }
    }

    /// What a write comes to whose key is known.
    pub(super) fn written(&self, known: Known) -> Result<Written> {
        if self.fingerprint != *known.fingerprint {
            return Ok(Written::Conflicting);
        }
        let (answer, version) = known
            .answer
            .zip(known.version)
            .ok_or_else(|| StoreError::corrupt("a write whose answer was not kept"))?;
        Ok(Written::Done { answer, version })
    }
}

/// What is kept of the call that used a key.
pub(super) struct Known {
    pub(super) fingerprint: Vec<u8>,
    /// The id of what it was for.
    pub(super) object: String,
    /// What a write was answered, and the edition's version since then.
    pub(super) answer: Option<String>,
    pub(super) version: Option<i64>,
}

/// What a creating call came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Creation<T> {
    /// It created this.
    Created(T),
    /// An earlier call with this key created it: nothing was created.
    Repeated {
        /// The id of what the earlier call created; it may be gone by now.
        id: String,
    },
    /// An earlier call with this key asked for something else: nothing was created.
    Conflicting,
}

impl<T> Creation<T> {
    /// What was created, for calls without a key: the other answers are not given to those.
    pub fn created(self) -> Result<T> {
        match self {
            Self::Created(created) => Ok(created),
            Self::Repeated { .. } | Self::Conflicting => Err(StoreError::AlreadyExists),
        }
    }
}
