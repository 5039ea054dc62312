//! Loading the subscriptions held in memory, and finding out whether that is needed.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use chrono::{DateTime, Utc};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::SqliteStore;
use super::circuits::circuit_columns;
use super::error::store_error;
use super::rows::{get, id, millis, optional_time};
use super::subscriptions;
use crate::domain::ids::{SecretId, SubscriptionId};
use crate::domain::secret::SigningSecret;
use crate::domain::signature::SigningKey;
use crate::domain::subscription::Subscription;
use crate::store::targets::{LiveKey, Target, TargetChange, Targets};
use crate::store::vault::Vault;
use crate::store::{Result, StoreError};

impl SqliteStore {
    /// The active subscriptions as the transaction sees them, or later.
    pub(super) async fn targets(&self, transaction: &mut SqliteConnection) -> Result<Arc<Targets>> {
        let held = self.held_targets();
        let generation = current_generation(transaction).await?;
        if generation <= held.generation() {
            return Ok(held);
        }
        let changes = changes_since(transaction, held.generation(), &self.vault).await?;
        let current = Arc::new(held.with(generation, changes));

        let mut cached = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        if cached.generation() < generation {
            *cached = Arc::clone(&current);
        }
        Ok(current)
    }
}

async fn current_generation(transaction: &mut SqliteConnection) -> Result<i64> {
    sqlx::query_scalar(
        "-- sqlite::targets::current_generation
        select generation from subscription_generation",
    )
    .fetch_one(transaction)
    .await
    .map_err(store_error)
}

/// Raises the number by which every process notices that a subscription changed. Answers the value
/// for the changed row.
pub(super) async fn raise_generation(transaction: &mut SqliteConnection) -> Result<i64> {
    sqlx::query_scalar(
        "-- sqlite::targets::raise_generation
        update subscription_generation set generation = generation + 1 returning generation",
    )
    .fetch_one(transaction)
    .await
    .map_err(store_error)
}

async fn changes_since(
    transaction: &mut SqliteConnection,
    generation: i64,
    vault: &Vault,
) -> Result<Vec<TargetChange>> {
    let mut keys = keys_since(transaction, generation, vault).await?;
    let rows = sqlx::query(concat!(
        "-- sqlite::targets::changes_since
        select id, workspace, status, disabled_reason, missing_since, version, url, description, event_types,
            project_ids, format, headers, max_concurrency, rate_limit, retry_schedule_ms, ordering, created_at,
            updated_at, ",
        circuit_columns!(),
        "
        from subscription
        where generation > ?1",
    ))
    .bind(generation)
    .fetch_all(transaction)
    .await
    .map_err(store_error)?;
    rows.iter()
        .map(|row| {
            let subscription = id(row, "id")?;
            if get::<&str>(row, "status")? != "active" {
                return Ok(TargetChange::Gone(subscription));
            }
            let keys = keys
                .remove(&subscription)
                .unwrap_or_else(|| Err(StoreError::corrupt("no signing secret")));
            let read = keys.and_then(|keys| {
                Ok(Target {
                    subscription: subscriptions::from_row(row, vault)?,
                    keys,
                })
            });
            TargetChange::of_active(subscription, read)
        })
        .collect()
}

/// The keys of the subscriptions that changed, newest first.
async fn keys_since(
    transaction: &mut SqliteConnection,
    generation: i64,
    vault: &Vault,
) -> Result<HashMap<SubscriptionId, Result<Vec<LiveKey>>>> {
    let rows = sqlx::query(
        "-- sqlite::targets::keys_since
        select secret.id, secret.subscription_id, secret.sealed, secret.expires_at
        from subscription
        join subscription_secret as secret
            on secret.subscription_id = subscription.id
            and secret.workspace = subscription.workspace
        where subscription.generation > ?1 and subscription.status = 'active'
        order by secret.created_at desc, secret.id desc",
    )
    .bind(generation)
    .fetch_all(transaction)
    .await
    .map_err(store_error)?;
    let mut keys: HashMap<SubscriptionId, Result<Vec<LiveKey>>> = HashMap::new();
    for row in &rows {
        let read = keys
            .entry(id(row, "subscription_id")?)
            .or_insert(Ok(Vec::new()));
        match (live_key(row, vault), read) {
            (Ok(key), Ok(keys)) => keys.push(key),
            (Err(error), read) => *read = Err(error),
            (Ok(_), Err(_)) => {}
        }
    }
    Ok(keys)
}

/// The keys that sign for one subscription at this instant, newest first.
pub(super) async fn live_keys(
    transaction: &mut SqliteConnection,
    subscription: &Subscription,
    vault: &Vault,
    now: DateTime<Utc>,
) -> Result<Vec<LiveKey>> {
    let rows = sqlx::query(
        "-- sqlite::targets::live_keys
        select id, sealed, expires_at
        from subscription_secret
        where workspace = ?1 and subscription_id = ?2
            and (expires_at is null or expires_at > ?3)
        order by created_at desc, id desc",
    )
    .bind(subscription.workspace.as_str())
    .bind(subscription.id.uuid())
    .bind(millis(now))
    .fetch_all(transaction)
    .await
    .map_err(store_error)?;
    if rows.is_empty() {
        return Err(StoreError::corrupt("no signing secret"));
    }
    rows.iter().map(|row| live_key(row, vault)).collect()
}

fn live_key(row: &SqliteRow, vault: &Vault) -> Result<LiveKey> {
    let secret: SecretId = id(row, "id")?;
    let opened = vault.open(&secret_context(secret), get(row, "sealed")?)?;
    let text = String::from_utf8(opened)
        .map_err(|_| StoreError::corrupt(format!("{secret} holds no text")))?;
    Ok(LiveKey {
        key: SigningKey::new(&SigningSecret::stored(text)),
        expires_at: optional_time(row, "expires_at")?,
    })
}

/// What a secret is sealed for: its own row and no other.
pub(super) fn secret_context(secret: SecretId) -> String {
    format!("subscription_secret/{secret}")
}
