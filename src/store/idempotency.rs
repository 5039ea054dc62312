//! Stub.
use crate::domain::ids::ApiKeyId;
/// A
#[derive(Clone, Debug)]
pub struct Idempotency {
    /// a
    pub caller: ApiKeyId,
    /// a
    pub route: &'static str,
    /// a
    pub key: String,
    /// a
    pub fingerprint: [u8; 32],
}
/// B
#[derive(Clone, Debug)]
pub enum Creation<T> {
    /// a
    Created(T),
    /// a
    Repeated {
        /// a
        id: String,
    },
    /// a
    Conflicting,
}
