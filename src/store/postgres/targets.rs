//! Keeping [`Targets`] exact: the generation is read inside the caller's transaction, and what
//! changed since the one in memory is loaded there.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::errors::from_sqlx;
use super::rows::{SubscriptionRow, secret_context, subscription_columns};
use super::{PostgresStore, Result, StoreError};
use crate::domain::ids::{SecretId, SubscriptionId};
use crate::domain::secret::SigningSecret;
use crate::domain::signature::SigningKey;
use crate::store::targets::{LiveKey, Target, TargetChange, Targets};
use crate::store::vault::Vault;

#[derive(FromRow)]
struct SecretRow {
    subscription_id: Uuid,
    id: Uuid,
    sealed: Vec<u8>,
    expires_at: Option<DateTime<Utc>>,
}

impl SecretRow {
    fn open(&self, vault: &Vault) -> Result<LiveKey> {
        let context = secret_context(SecretId::from_uuid(self.id));
        let text = String::from_utf8(vault.open(&context, &self.sealed)?)
            .map_err(|_| StoreError::Corrupt(format!("{context} is no text")))?;
        Ok(LiveKey {
            key: SigningKey::new(&SigningSecret::stored(text)),
            expires_at: self.expires_at,
        })
    }
}

impl PostgresStore {
    /// The active subscriptions as the caller's transaction sees them.
    pub(super) async fn current_targets(
        &self,
        connection: &mut PgConnection,
    ) -> Result<Arc<Targets>> {
        // Looked at before the database is asked: what is in memory was committed by then.
        let held = self.held_targets();
        let generation: i64 = sqlx::query_scalar(
            "-- postgres::targets::current_targets
            select generation from subscription_generation where only_row",
        )
        .fetch_one(&mut *connection)
        .await
        .map_err(from_sqlx)?;
        self.targets_of(connection, held, generation).await
    }

    /// The active subscriptions as of a generation that was read after `held` was looked at.
    pub(super) async fn targets_of(
        &self,
        connection: &mut PgConnection,
        held: Arc<Targets>,
        generation: i64,
    ) -> Result<Arc<Targets>> {
        if generation == held.generation() {
            return Ok(held);
        }
        // A smaller number means that the database went back in time (a restored backup, a standby
        // that had fallen behind): nothing in memory can be trusted then.
        let base = if generation > held.generation() {
            Targets::clone(&held)
        } else {
            Targets::default()
        };
        let changes = self.changes_since(connection, base.generation()).await?;
        let current = Arc::new(base.with(generation, changes));
        self.hold_targets(&held, &current);
        Ok(current)
    }

    pub(super) fn held_targets(&self) -> Arc<Targets> {
        Arc::clone(&self.targets.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps `current`, unless another task meanwhile kept a newer one than `held`.
    fn hold_targets(&self, held: &Arc<Targets>, current: &Arc<Targets>) {
        let mut kept = self.targets.write().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&kept, held) || kept.generation() < current.generation() {
            *kept = Arc::clone(current);
        }
    }

    /// The rows that changed after `generation`. A change that commits in between may be among
    /// them already; it is then only loaded once more.
    async fn changes_since(
        &self,
        connection: &mut PgConnection,
        generation: i64,
    ) -> Result<Vec<TargetChange>> {
        let rows: Vec<SubscriptionRow> = sqlx::query_as(concat!(
            "-- postgres::targets::changes_since
            select ",
            subscription_columns!(),
            "
            from subscription
            where generation > $1
              and (status = 'active' or $1 > 0)",
        ))
        .bind(generation)
        .fetch_all(&mut *connection)
        .await
        .map_err(from_sqlx)?;
        let active: Vec<Uuid> = rows
            .iter()
            .filter(|row| row.is_active())
            .map(|row| row.id)
            .collect();
        let mut keys = self.live_keys(connection, &active).await?;
        rows.into_iter()
            .map(|row| {
                let id = SubscriptionId::from_uuid(row.id);
                if !row.is_active() {
                    return Ok(TargetChange::Gone(id));
                }
                let keys = keys
                    .remove(&row.id)
                    .unwrap_or_else(|| Err(StoreError::corrupt("no signing secret")));
                let read = keys.and_then(|keys| {
                    Ok(Target {
                        subscription: row.into_subscription(&self.vault)?,
                        keys,
                    })
                });
                TargetChange::of_active(id, read)
            })
            .collect()
    }

    /// The opened signing keys of these subscriptions, newest first. This is a second look: one that
    /// was deleted since the first has none any more.
    pub(super) async fn live_keys(
        &self,
        connection: &mut PgConnection,
        subscriptions: &[Uuid],
    ) -> Result<HashMap<Uuid, Result<Vec<LiveKey>>>> {
        let rows: Vec<SecretRow> = sqlx::query_as(
            "-- postgres::targets::live_keys
            select subscription_id, id, sealed, expires_at
            from subscription_secret
            where subscription_id = any($1)
              and (expires_at is null or expires_at > now())
            order by created_at desc, id desc",
        )
        .bind(subscriptions)
        .fetch_all(connection)
        .await
        .map_err(from_sqlx)?;
        let mut keys: HashMap<Uuid, Result<Vec<LiveKey>>> = HashMap::new();
        for row in rows {
            let read = keys.entry(row.subscription_id).or_insert(Ok(Vec::new()));
            match (row.open(&self.vault), read) {
                (Ok(key), Ok(keys)) => keys.push(key),
                (Err(error), read) => *read = Err(error),
                (Ok(_), Err(_)) => {}
            }
        }
        Ok(keys)
    }
}
