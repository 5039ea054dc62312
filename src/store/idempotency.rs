//! Creating calls that may be repeated: what the first one created is not created again
//! (product.md §5).
//!
//! The key is written by the transaction that creates, before anything else: of two calls at once
//! the second waits for the first one's commit, and a call that fails leaves its key unused. The
//! answers of such calls hold secrets, so nothing is kept of them but the id of what was created.

use std::time::Duration;

use super::{Result, StoreError};
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
    /// What a call comes to whose key was used by another for `object`.
    pub(super) fn judge<T>(&self, fingerprint: &[u8], object: String) -> Creation<T> {
        if self.fingerprint == fingerprint {
            Creation::Repeated { id: object }
        } else {
            Creation::Conflicting
        }
    }
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
