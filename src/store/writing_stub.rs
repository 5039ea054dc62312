//! Stands in until the stores write.

use async_trait::async_trait;

use super::postgres::PostgresStore;
use super::sqlite::SqliteStore;
use super::{Edit, EditionWrites, NewEdition, Result, StoreError, Write, Written};
use crate::domain::blueprint::Section;
use crate::domain::ids::EditionId;

macro_rules! stub {
    ($store:ty) => {
        #[async_trait]
        impl EditionWrites for $store {
            async fn create_edition(&self, _: &NewEdition, _: &Write<'_>) -> Result<Written> {
                Err(StoreError::corrupt("stub"))
            }
            async fn edit_section(
                &self,
                _: &EditionId,
                _: &Section,
                _: &Edit,
                _: &Write<'_>,
            ) -> Result<Written> {
                Err(StoreError::corrupt("stub"))
            }
            async fn submit_edition(&self, _: &EditionId, _: &Write<'_>) -> Result<Written> {
                Err(StoreError::corrupt("stub"))
            }
        }
    };
}
stub!(SqliteStore);
stub!(PostgresStore);
