//! Which processes send: limits that hold for all of them together are divided among them.

use std::num::NonZeroU32;

use async_trait::async_trait;

use super::{Leasing, Result};
use crate::domain::ids::OwnerId;

/// The processes that send, by the database's clock.
#[async_trait]
pub trait Replicas: Send + Sync {
    /// Says that this one does, for as long as the lease is, and answers how many do, with this one.
    async fn beat(&self, leasing: Leasing) -> Result<NonZeroU32>;

    /// Says that it does no more.
    async fn leave(&self, owner: OwnerId) -> Result<()>;
}
