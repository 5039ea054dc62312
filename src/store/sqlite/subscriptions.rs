//! Subscriptions as clients see them. The statements that change them are in `changes`.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::SqliteStore;
use super::audit::tell;
use super::changes::{delete, end_secrets, insert, insert_secret, update};
use super::circuits::{self, circuit_columns};
use super::error::store_error;
use super::idempotency::remember;
use super::rows::{count, get, id, list, optional_nonzero, optional_time, parsed, read_list, time};
use super::targets::{live_keys, secret_context};
use crate::domain::audit::{Act, Action};
use crate::domain::circuit::CircuitState;
use crate::domain::ids::SubscriptionId;
use crate::domain::reach::Reach;
use crate::domain::retry::RetrySchedule;
use crate::domain::subscription::{Subscription, SubscriptionSpec, SubscriptionStatus, TargetUrl};
use crate::store::circuits::is_another_receiver;
use crate::store::operational::{Disabled, Teller, is_wanted};
use crate::store::subscriptions::check_version;
use crate::store::targets::Target;
use crate::store::vault::Vault;
use crate::store::{
    Creation, Idempotency, NewSubscription, Page, PageRequest, Result, Rotation, StoreError,
    Subscriptions, headers,
};

#[async_trait]
impl Subscriptions for SqliteStore {
    async fn create_subscription(
        &self,
        new: &NewSubscription,
        act: &Act,
        once: Option<&Idempotency>,
    ) -> Result<Creation<Subscription>> {
        let sealed = self.vault.seal(
            &secret_context(new.secret_id),
            new.secret.expose().as_bytes(),
        )?;
        let mut transaction = self.write().await?;
        let now = self.clock.now();
        let object = new.id.to_string();
        let known = remember(&mut transaction, &new.workspace, once, &object, now).await?;
        if let Some(known) = known {
            return Ok(known);
        }
        let created = Subscription {
            id: new.id,
            workspace: new.workspace.clone(),
            spec: new.spec.clone(),
            status: SubscriptionStatus::Active,
            circuit: CircuitState::Closed,
            missing_since: None,
            version: 1,
            created_at: now,
            updated_at: now,
        };
        insert(&mut transaction, &self.vault, &created).await?;
        insert_secret(&mut transaction, &created, new.secret_id, sealed, now).await?;
        let entry = act.made(Action::SubscriptionCreated, &created);
        tell(&mut transaction, entry).await?;
        self.commit(transaction).await?;
        Ok(Creation::Created(created))
    }

    async fn subscription(
        &self,
        reach: &Reach,
        id: SubscriptionId,
    ) -> Result<Option<Subscription>> {
        let mut reader = self.readers.acquire().await.map_err(store_error)?;
        find(&mut reader, &self.vault, reach, id).await
    }

    async fn subscriptions(
        &self,
        reach: &Reach,
        page: PageRequest<SubscriptionId>,
    ) -> Result<Page<Subscription, SubscriptionId>> {
        let rows = sqlx::query(concat!(
            "-- sqlite::subscriptions::subscriptions
            select id, workspace, status, disabled_reason, missing_since, version, url, description, event_types,
                project_ids, format, headers, max_concurrency, rate_limit, retry_schedule_ms, ordering, created_at,
                updated_at, ",
            circuit_columns!(),
            "
            from subscription
            where workspace = ?1 and status <> 'deleted'
                and (?2 is null or (project_ids is not null and not exists (
                    select 1 from json_each(project_ids) as own
                    where own.value not in (select value from json_each(?2))
                )))
                and (?3 is null or id < ?3)
            order by id desc
            limit ?4"
        ))
        .bind(reach.workspace.as_str())
        .bind(reach.projects.as_ref().map(list).transpose()?)
        .bind(page.after.map(|id| id.uuid()))
        .bind(count(page.limit.saturating_add(1)))
        .fetch_all(&self.readers)
        .await
        .map_err(store_error)?;
        let items = rows
            .iter()
            .map(|row| from_row(row, &self.vault))
            .collect::<Result<_>>()?;
        Ok(Page::of(
            items,
            page.limit,
            |subscription: &Subscription| subscription.id,
        ))
    }

    async fn target(&self, reach: &Reach, id: SubscriptionId) -> Result<Option<Target>> {
        // One state for both: a subscription that is deleted in between keeps its secrets.
        let mut transaction = self.read().await?;
        let Some(subscription) = find(&mut transaction, &self.vault, reach, id).await? else {
            return Ok(None);
        };
        let now = self.clock.now();
        let keys = live_keys(&mut transaction, &subscription, &self.vault, now).await?;
        Ok(Some(Target { subscription, keys }))
    }

    async fn update_subscription(
        &self,
        reach: &Reach,
        id: SubscriptionId,
        version: i64,
        spec: &SubscriptionSpec,
        status: &SubscriptionStatus,
        act: &Act,
    ) -> Result<Option<Subscription>> {
        let mut transaction = self.write().await?;
        // Read before anything is changed: what is in memory was committed.
        let targets = self.targets(&mut transaction).await?;
        let Some(before) = find(&mut transaction, &self.vault, reach, id).await? else {
            return Ok(None);
        };
        check_version(before.version, Some(version))?;
        if (&before.spec, &before.status) == (spec, status) {
            return Ok(Some(before));
        }
        let now = self.clock.now();
        let is_another = is_another_receiver(&before, spec, status);
        if is_another {
            circuits::forget(&mut transaction, &[id]).await?;
        }
        let updated = Subscription {
            spec: spec.clone(),
            status: status.clone(),
            circuit: if is_another {
                CircuitState::Closed
            } else {
                before.circuit
            },
            missing_since: match status {
                SubscriptionStatus::Active => None,
                SubscriptionStatus::Disabled { .. } => before.missing_since.or(Some(now)),
            },
            version: before.version + 1,
            updated_at: now,
            ..before.clone()
        };
        update(&mut transaction, &self.vault, &updated).await?;
        let entry = act.changed(Action::SubscriptionUpdated, &before, &updated);
        tell(&mut transaction, entry).await?;
        let telling = match Disabled::between(&before, &updated) {
            Some(disabled) if is_wanted(&targets, &self.outbox) => {
                let teller = Teller {
                    targets: &targets,
                    door: &self.outbox,
                    now,
                };
                let told = teller.by_admin(disabled)?;
                Some(self.write_told(&mut transaction, &told, now).await?)
            }
            _ => None,
        };
        self.commit(transaction).await?;
        // What is sent from now on is sent as it is now.
        self.refresh_targets().await;
        if let Some(telling) = telling {
            self.told(telling);
        }
        Ok(Some(updated))
    }

    async fn rotate_secret(
        &self,
        reach: &Reach,
        id: SubscriptionId,
        version: Option<i64>,
        rotation: &Rotation,
        act: &Act,
    ) -> Result<Option<Subscription>> {
        let sealed = self.vault.seal(
            &secret_context(rotation.secret_id),
            rotation.secret.expose().as_bytes(),
        )?;
        let mut transaction = self.write().await?;
        let Some(before) = find(&mut transaction, &self.vault, reach, id).await? else {
            return Ok(None);
        };
        check_version(before.version, version)?;
        let now = self.clock.now();
        let rotated = Subscription {
            version: before.version + 1,
            updated_at: now,
            ..before.clone()
        };
        update(&mut transaction, &self.vault, &rotated).await?;
        end_secrets(&mut transaction, &rotated, now, rotation.overlap).await?;
        insert_secret(&mut transaction, &rotated, rotation.secret_id, sealed, now).await?;
        let entry = act.changed(Action::SecretRotated, &before, &rotated);
        tell(&mut transaction, entry).await?;
        self.commit(transaction).await?;
        self.refresh_targets().await;
        Ok(Some(rotated))
    }

    async fn delete_subscription(
        &self,
        reach: &Reach,
        id: SubscriptionId,
        version: Option<i64>,
        act: &Act,
    ) -> Result<bool> {
        let mut transaction = self.write().await?;
        let Some(before) = find(&mut transaction, &self.vault, reach, id).await? else {
            return Ok(false);
        };
        check_version(before.version, version)?;
        delete(&mut transaction, &before, self.clock.now()).await?;
        let entry = act.ended(Action::SubscriptionDeleted, &before);
        tell(&mut transaction, entry).await?;
        self.commit(transaction).await?;
        self.refresh_targets().await;
        Ok(true)
    }
}

async fn find(
    connection: &mut SqliteConnection,
    vault: &Vault,
    reach: &Reach,
    id: SubscriptionId,
) -> Result<Option<Subscription>> {
    sqlx::query(concat!(
        "-- sqlite::subscriptions::find
        select id, workspace, status, disabled_reason, missing_since, version, url, description, event_types,
            project_ids, format, headers, max_concurrency, rate_limit, retry_schedule_ms, ordering, created_at,
            updated_at, ",
        circuit_columns!(),
        "
        from subscription
        where workspace = ?1 and id = ?2 and status <> 'deleted'
            and (?3 is null or (project_ids is not null and not exists (
                select 1 from json_each(project_ids) as own
                where own.value not in (select value from json_each(?3))
            )))"
    ))
    .bind(reach.workspace.as_str())
    .bind(id.uuid())
    .bind(reach.projects.as_ref().map(list).transpose()?)
    .fetch_optional(connection)
    .await
    .map_err(store_error)?
    .as_ref()
    .map(|row| from_row(row, vault))
    .transpose()
}

/// A row of `subscription` that is not deleted.
pub(super) fn from_row(row: &SqliteRow, vault: &Vault) -> Result<Subscription> {
    let id = id(row, "id")?;
    let status = match get::<Option<String>>(row, "disabled_reason")? {
        Some(reason) => SubscriptionStatus::Disabled { reason },
        None => SubscriptionStatus::Active,
    };
    Ok(Subscription {
        id,
        workspace: parsed(row, "workspace")?,
        spec: SubscriptionSpec {
            url: TargetUrl::new(get(row, "url")?).map_err(StoreError::corrupt)?,
            description: get(row, "description")?,
            event_types: read_list(get(row, "event_types")?)?,
            project_ids: get::<Option<&str>>(row, "project_ids")?
                .map(read_list)
                .transpose()?,
            format: parsed(row, "format")?,
            headers: headers::open(vault, id, get(row, "headers")?)?,
            max_concurrency: optional_nonzero(row, "max_concurrency")?,
            rate_limit: optional_nonzero(row, "rate_limit")?,
            retry_schedule: get::<Option<&str>>(row, "retry_schedule_ms")?
                .map(read_schedule)
                .transpose()?,
            ordering: parsed(row, "ordering")?,
        },
        status,
        circuit: circuits::state(row)?,
        missing_since: optional_time(row, "missing_since")?,
        version: get(row, "version")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    })
}

fn read_schedule(text: &str) -> Result<RetrySchedule> {
    let delays: Vec<u64> = read_list(text)?;
    RetrySchedule::new(delays.into_iter().map(Duration::from_millis).collect())
        .map_err(StoreError::corrupt)
}
