//! The process that sends: one serves a file.

use std::num::NonZeroU32;

use async_trait::async_trait;

use super::SqliteStore;
use crate::domain::ids::OwnerId;
use crate::store::replicas::Replicas;
use crate::store::{Leasing, Result};

#[async_trait]
impl Replicas for SqliteStore {
    async fn beat(&self, _leasing: Leasing) -> Result<NonZeroU32> {
        Ok(NonZeroU32::MIN)
    }

    async fn leave(&self, _owner: OwnerId) -> Result<()> {
        Ok(())
    }
}
