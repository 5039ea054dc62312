//! Keeping house: the schema, the master key's check, readiness, closing.

use std::sync::Arc;

use async_trait::async_trait;
use secrecy::SecretBox;
use sqlx::migrate::Migrator;

use super::SqliteStore;
use super::connection::lock;
use super::error::{migrate_error, store_error};
use crate::store::{Maintenance, Result, StoreError};
use crate::wake::Wake;

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

#[async_trait]
impl Maintenance for SqliteStore {
    fn kind(&self) -> &'static str {
        "sqlite"
    }

    fn derive_key(&self, purpose: &str) -> SecretBox<[u8; 32]> {
        self.vault.derive(purpose)
    }

    async fn migrate(&self) -> Result<()> {
        let starting = lock(&self.path).await?;
        MIGRATIONS.run(&self.writer).await.map_err(migrate_error)?;
        self.check_master_key().await?;
        drop(starting);
        Ok(())
    }

    async fn ready(&self) -> Result<()> {
        let applied: Vec<(i64, Vec<u8>)> = sqlx::query_as(
            "-- sqlite::maintenance::ready
            select version, checksum from _sqlx_migrations where success order by version",
        )
        .fetch_all(&self.readers)
        .await
        .map_err(|error| match error {
            sqlx::Error::Database(told) if told.message().contains("no such table") => {
                StoreError::Schema("there is none yet; run `forge-dispatch migrate`".to_owned())
            }
            other => store_error(other),
        })?;
        // All of them, not the last one: one that was made beside others may be missing before it.
        let known = MIGRATIONS
            .iter()
            .map(|migration| (migration.version, migration.checksum.to_vec()));
        if known.eq(applied) {
            Ok(())
        } else {
            Err(StoreError::Schema(
                "is of another version of this program".to_owned(),
            ))
        }
    }

    /// Nobody tells us what another process wrote: the command line makes little work, and the
    /// poll finds it.
    async fn listen(&self, _wake: Arc<Wake>) {
        self.closed.cancelled().await;
    }

    fn announce(&self) {}

    async fn close(&self) {
        self.closed.cancel();
        self.readers.close().await;
        if !self.writer.is_closed() {
            self.fold_log_back().await;
            self.writer.close().await;
        }
    }
}

impl SqliteStore {
    async fn check_master_key(&self) -> Result<()> {
        let mut transaction = self.write().await?;
        let kept: Option<Vec<u8>> = sqlx::query_scalar(
            "-- sqlite::maintenance::check_master_key
            select value from master_key_check",
        )
        .fetch_optional(&mut *transaction)
        .await
        .map_err(store_error)?;
        if let Some(value) = kept {
            return self.vault.check(&value);
        }
        sqlx::query(
            "-- sqlite::maintenance::check_master_key
            insert into master_key_check (value) values (?1)",
        )
        .bind(self.vault.check_value()?)
        .execute(&mut *transaction)
        .await
        .map_err(store_error)?;
        self.commit(transaction).await
    }
}
