//! Registering and changing subscriptions. Every change raises the generation first, so that changes
//! commit in the order of their generations, and tells the audit log last.

use sqlx::PgTransaction;
use sqlx::postgres::PgBindIterExt;
use uuid::Uuid;

use super::audit::tell;
use super::circuits;
use super::errors::from_sqlx;
use super::idempotency::remember;
use super::rows::{SubscriptionRow, interval, project_names, secret_context, subscription_columns};
use super::{PostgresStore, Result, commit};
use crate::domain::audit::{Act, Action};
use crate::domain::ids::{SecretId, SubscriptionId, WorkspaceId};
use crate::domain::reach::Reach;
use crate::domain::subscription::{Subscription, SubscriptionSpec, SubscriptionStatus};
use crate::store::circuits::is_another_receiver;
use crate::store::operational::{Disabled, Teller, is_wanted};
use crate::store::subscriptions::check_version;
use crate::store::vault::Vault;
use crate::store::{Creation, Idempotency, NewSubscription, Rotation, headers};

/// A specification as columns.
struct SpecColumns<'a> {
    url: &'a str,
    description: &'a str,
    event_types: Vec<String>,
    project_ids: Option<Vec<&'a str>>,
    format: &'static str,
    headers: Option<Vec<u8>>,
    max_concurrency: Option<i64>,
    rate_limit: Option<i64>,
    retry_schedule_ms: Option<Vec<i64>>,
    ordering: &'static str,
}

impl<'a> SpecColumns<'a> {
    fn of(vault: &Vault, id: SubscriptionId, spec: &'a SubscriptionSpec) -> Result<Self> {
        Ok(Self {
            url: spec.url.as_url().as_str(),
            description: &spec.description,
            event_types: spec.event_types.iter().map(ToString::to_string).collect(),
            project_ids: spec.project_ids.as_deref().map(project_names),
            format: spec.format.as_str(),
            headers: headers::seal(vault, id, &spec.headers)?,
            max_concurrency: spec.max_concurrency.map(|count| i64::from(count.get())),
            rate_limit: spec.rate_limit.map(|rate| i64::from(rate.get())),
            retry_schedule_ms: spec.retry_schedule.as_ref().map(|schedule| {
                schedule
                    .delays()
                    .iter()
                    .map(|delay| i64::try_from(delay.as_millis()).unwrap_or(i64::MAX))
                    .collect()
            }),
            ordering: spec.ordering.as_str(),
        })
    }
}

impl PostgresStore {
    pub(super) async fn create_once(
        &self,
        new: &NewSubscription,
        act: &Act,
        once: Option<&Idempotency>,
    ) -> Result<Creation<Subscription>> {
        let columns = SpecColumns::of(&self.vault, new.id, &new.spec)?;
        let sealed = self.vault.seal(
            &secret_context(new.secret_id),
            new.secret.expose().as_bytes(),
        )?;
        let mut tx = self.begin().await?;
        let object = new.id.to_string();
        if let Some(known) = remember(&mut tx, &new.workspace, once, &object).await? {
            return Ok(known);
        }
        let generation = raise_generation(&mut tx).await?;
        let row: SubscriptionRow = sqlx::query_as(concat!(
            "-- postgres::changes::create_once
            insert into subscription (
                id, workspace, generation, url, description, event_types, project_ids, format,
                headers, max_concurrency, retry_schedule_ms, rate_limit, ordering
            )
            values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
            returning ",
            subscription_columns!(),
        ))
        .bind(new.id.uuid())
        .bind(new.workspace.as_str())
        .bind(generation)
        .bind(columns.url)
        .bind(columns.description)
        .bind(columns.event_types)
        .bind(columns.project_ids)
        .bind(columns.format)
        .bind(columns.headers)
        .bind(columns.max_concurrency)
        .bind(columns.retry_schedule_ms)
        .bind(columns.rate_limit)
        .bind(columns.ordering)
        .fetch_one(&mut *tx)
        .await
        .map_err(from_sqlx)?;
        let created = row.into_subscription(&self.vault)?;
        insert_secret(&mut tx, &new.workspace, new.id, new.secret_id, sealed).await?;
        let entry = act.made(Action::SubscriptionCreated, &created);
        tell(&mut tx, entry).await?;
        commit(tx).await?;
        Ok(Creation::Created(created))
    }

    pub(super) async fn update_once(
        &self,
        reach: &Reach,
        id: SubscriptionId,
        version: i64,
        spec: &SubscriptionSpec,
        status: &SubscriptionStatus,
        act: &Act,
    ) -> Result<Option<Subscription>> {
        let columns = SpecColumns::of(&self.vault, id, spec)?;
        let mut tx = self.begin().await?;
        // Read before anything is changed: what is in memory was committed.
        let targets = self.current_targets(&mut tx).await?;
        circuits::hold(&mut tx, id).await?;
        let generation = raise_generation(&mut tx).await?;
        let Some(before) = look(&mut tx, &self.vault, reach, id).await? else {
            return Ok(None);
        };
        check_version(before.version, Some(version))?;
        if (&before.spec, &before.status) == (spec, status) {
            return Ok(Some(before));
        }
        if is_another_receiver(&before, spec, status) {
            circuits::forget(&mut tx, vec![id.uuid()]).await?;
        }
        let row: SubscriptionRow = sqlx::query_as(concat!(
            "-- postgres::changes::update_once
            update subscription
            set generation = $3, version = version + 1, updated_at = now(),
                url = $4, description = $5, event_types = $6, project_ids = $7, format = $8,
                headers = $9, max_concurrency = $10, retry_schedule_ms = $11, status = $12,
                disabled_reason = $13, rate_limit = $14, ordering = $15,
                missing_since = case
                    when $12 = 'disabled'
                        then coalesce(missing_since, date_trunc('milliseconds', now()))
                end
            where workspace = $1 and id = $2
            returning ",
            subscription_columns!(),
        ))
        .bind(reach.workspace.as_str())
        .bind(id.uuid())
        .bind(generation)
        .bind(columns.url)
        .bind(columns.description)
        .bind(columns.event_types)
        .bind(columns.project_ids)
        .bind(columns.format)
        .bind(columns.headers)
        .bind(columns.max_concurrency)
        .bind(columns.retry_schedule_ms)
        .bind(status.as_str())
        .bind(status.reason())
        .bind(columns.rate_limit)
        .bind(columns.ordering)
        .fetch_one(&mut *tx)
        .await
        .map_err(from_sqlx)?;
        let updated = row.into_subscription(&self.vault)?;
        let entry = act.changed(Action::SubscriptionUpdated, &before, &updated);
        tell(&mut tx, entry).await?;
        let telling = match Disabled::between(&before, &updated) {
            Some(disabled) if is_wanted(&targets, &self.outbox) => {
                let teller = Teller {
                    targets: &targets,
                    door: &self.outbox,
                    now: updated.updated_at,
                };
                let told = teller.by_admin(disabled)?;
                Some(self.write_told(&mut tx, &told).await?)
            }
            _ => None,
        };
        commit(tx).await?;
        if let Some(telling) = telling {
            self.told(telling);
        }
        Ok(Some(updated))
    }

    pub(super) async fn rotate_once(
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
        let workspace = &reach.workspace;
        let mut tx = self.begin().await?;
        let generation = raise_generation(&mut tx).await?;
        let Some(before) = look(&mut tx, &self.vault, reach, id).await? else {
            return Ok(None);
        };
        check_version(before.version, version)?;
        let row: SubscriptionRow = sqlx::query_as(concat!(
            "-- postgres::changes::rotate_once
            update subscription
            set generation = $3, version = version + 1, updated_at = now()
            where workspace = $1 and id = $2
            returning ",
            subscription_columns!(),
        ))
        .bind(workspace.as_str())
        .bind(id.uuid())
        .bind(generation)
        .fetch_one(&mut *tx)
        .await
        .map_err(from_sqlx)?;
        let rotated = row.into_subscription(&self.vault)?;
        end_secrets(&mut tx, workspace, id, rotation).await?;
        insert_secret(&mut tx, workspace, id, rotation.secret_id, sealed).await?;
        let entry = act.changed(Action::SecretRotated, &before, &rotated);
        tell(&mut tx, entry).await?;
        commit(tx).await?;
        Ok(Some(rotated))
    }

    pub(super) async fn delete_once(
        &self,
        reach: &Reach,
        id: SubscriptionId,
        version: Option<i64>,
        act: &Act,
    ) -> Result<bool> {
        let mut tx = self.begin().await?;
        circuits::hold(&mut tx, id).await?;
        let generation = raise_generation(&mut tx).await?;
        let Some(before) = look(&mut tx, &self.vault, reach, id).await? else {
            return Ok(false);
        };
        check_version(before.version, version)?;
        circuits::forget(&mut tx, vec![id.uuid()]).await?;
        sqlx::query(
            "-- postgres::changes::delete_once (subscription)
            update subscription
            set generation = $3, version = version + 1, updated_at = now(), deleted_at = now(),
                status = 'deleted', disabled_reason = null, missing_since = null, headers = null
            where workspace = $1 and id = $2",
        )
        .bind(reach.workspace.as_str())
        .bind(id.uuid())
        .bind(generation)
        .execute(&mut *tx)
        .await
        .map_err(from_sqlx)?;
        sqlx::query(
            "-- postgres::changes::delete_once (secrets)
            delete from subscription_secret
            where workspace = $1 and subscription_id = $2",
        )
        .bind(reach.workspace.as_str())
        .bind(id.uuid())
        .execute(&mut *tx)
        .await
        .map_err(from_sqlx)?;
        tell(&mut tx, act.ended(Action::SubscriptionDeleted, &before)).await?;
        commit(tx).await?;
        Ok(true)
    }
}

/// What is about to be changed. Its row stays locked to the end of the transaction.
async fn look(
    tx: &mut PgTransaction<'_>,
    vault: &Vault,
    reach: &Reach,
    id: SubscriptionId,
) -> Result<Option<Subscription>> {
    let row: Option<SubscriptionRow> = sqlx::query_as(concat!(
        "-- postgres::changes::look
        select ",
        subscription_columns!(),
        "
        from subscription
        where workspace = $1 and id = $2 and status <> 'deleted'
          and ($3::text[] is null or project_ids <@ $3)
        for no key update",
    ))
    .bind(reach.workspace.as_str())
    .bind(id.uuid())
    .bind(reach.projects.as_deref().map(project_names))
    .fetch_optional(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    row.map(|row| row.into_subscription(vault)).transpose()
}

/// Lets the secrets that there are sign until the end of an overlap, or of their own if that is
/// earlier; removes those that sign no more.
async fn end_secrets(
    tx: &mut PgTransaction<'_>,
    workspace: &WorkspaceId,
    subscription: SubscriptionId,
    rotation: &Rotation,
) -> Result<()> {
    sqlx::query(
        "-- postgres::changes::end_secrets (overlap)
        update subscription_secret
        set expires_at = least(date_trunc('milliseconds', now()) + $3::interval, expires_at)
        where workspace = $1 and subscription_id = $2",
    )
    .bind(workspace.as_str())
    .bind(subscription.uuid())
    .bind(interval(rotation.overlap))
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    sqlx::query(
        "-- postgres::changes::end_secrets (over)
        delete from subscription_secret
        where workspace = $1 and subscription_id = $2 and expires_at <= now()",
    )
    .bind(workspace.as_str())
    .bind(subscription.uuid())
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(())
}

async fn insert_secret(
    tx: &mut PgTransaction<'_>,
    workspace: &WorkspaceId,
    subscription: SubscriptionId,
    id: SecretId,
    sealed: Vec<u8>,
) -> Result<()> {
    sqlx::query(
        "-- postgres::changes::insert_secret
        insert into subscription_secret (id, subscription_id, workspace, sealed)
        values ($1, $2, $3, $4)",
    )
    .bind(id.uuid())
    .bind(subscription.uuid())
    .bind(workspace.as_str())
    .bind(sealed)
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(())
}

/// The next generation. Its row stays locked to the end of the transaction.
pub(super) async fn raise_generation(tx: &mut PgTransaction<'_>) -> Result<i64> {
    sqlx::query_scalar(
        "-- postgres::changes::raise_generation
        update subscription_generation
        set generation = generation + 1
        returning generation",
    )
    .fetch_one(&mut **tx)
    .await
    .map_err(from_sqlx)
}

/// Disables subscriptions; one that an admin changed meanwhile stays as the admin left it. Answers which
/// were disabled. They are sorted, their circuits locked, and the generation was raised for them.
pub(super) async fn disable(
    tx: &mut PgTransaction<'_>,
    subscriptions: &[Disabled],
    generation: i64,
) -> Result<Vec<SubscriptionId>> {
    if subscriptions.is_empty() {
        return Ok(Vec::new());
    }
    let each = || subscriptions.iter();
    let ids: Vec<Uuid> = sqlx::query_scalar(
        "-- postgres::changes::disable
        update subscription s
        set generation = $4, version = s.version + 1, updated_at = now(),
            status = 'disabled', disabled_reason = ending.reason,
            missing_since = ending.missing_since
        from unnest($1::uuid[], $2::text[], $3::text[], $5::timestamptz[], $6::bigint[])
            as ending (id, workspace, reason, missing_since, version)
        where s.id = ending.id and s.workspace = ending.workspace and s.status = 'active'
            and s.version = ending.version
        returning s.id",
    )
    .bind(each().map(|one| one.id.uuid()).bind_iter())
    .bind(each().map(|one| one.workspace.as_str()).bind_iter())
    .bind(each().map(|one| one.reason.as_str()).bind_iter())
    .bind(generation)
    .bind(each().map(|one| one.missing_since).bind_iter())
    .bind(each().map(|one| one.version).bind_iter())
    .fetch_all(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(ids.into_iter().map(SubscriptionId::from_uuid).collect())
}
