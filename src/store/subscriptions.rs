//! Subscriptions and their secrets, as they are registered and changed.

use std::time::Duration;

use async_trait::async_trait;

use super::targets::Target;
use super::{Creation, Idempotency, Page, PageRequest, Result, StoreError};
use crate::domain::audit::Act;
use crate::domain::ids::{SecretId, SubscriptionId, WorkspaceId};
use crate::domain::reach::Reach;
use crate::domain::secret::SigningSecret;
use crate::domain::subscription::{Subscription, SubscriptionSpec, SubscriptionStatus};

/// What is needed to register a subscription.
#[derive(Clone, Debug)]
pub struct NewSubscription {
    /// Its id, made by the caller.
    pub id: SubscriptionId,
    /// The tenant.
    pub workspace: WorkspaceId,
    /// What is asked for, checked by the caller.
    pub spec: SubscriptionSpec,
    /// The id of its first secret.
    pub secret_id: SecretId,
    /// Its first secret; kept sealed.
    pub secret: SigningSecret,
}

/// A new signing secret for a subscription that has one.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// The id of the new secret.
    pub secret_id: SecretId,
    /// The new secret; kept sealed.
    pub secret: SigningSecret,
    /// How long the secrets of before go on signing beside it.
    pub overlap: Duration,
}

/// Subscriptions and their secrets. Every method but [`Subscriptions::create_subscription`] sees what
/// is in reach only: a restricted reach holds the subscriptions that name projects, all of them its
/// own. What is out of reach is answered as what does not exist.
///
/// Every change tells the audit log in its own transaction. That what is asked for stays in reach is
/// for the caller to check ([`Reach::covers`]).
#[async_trait]
pub trait Subscriptions: Send + Sync {
    /// Registers a subscription, active from the commit on; with `once`, unless an earlier call did.
    async fn create_subscription(
        &self,
        new: &NewSubscription,
        act: &Act,
        once: Option<&Idempotency>,
    ) -> Result<Creation<Subscription>>;

    /// One subscription; `None` if there is none of that id in reach, or it was deleted.
    async fn subscription(&self, reach: &Reach, id: SubscriptionId)
    -> Result<Option<Subscription>>;

    /// All that are in reach and not deleted, newest first.
    async fn subscriptions(
        &self,
        reach: &Reach,
        page: PageRequest<SubscriptionId>,
    ) -> Result<Page<Subscription, SubscriptionId>>;

    /// One subscription and the secrets that sign for it, whatever its status: for sending it
    /// something out of turn.
    async fn target(&self, reach: &Reach, id: SubscriptionId) -> Result<Option<Target>>;

    /// Replaces what was asked for and the status, if the subscription is still at `version`;
    /// otherwise [`StoreError::Stale`]. Where both are as they were, the
    /// version stays too, and nothing is told. `None` if it does not exist.
    async fn update_subscription(
        &self,
        reach: &Reach,
        id: SubscriptionId,
        version: i64,
        spec: &SubscriptionSpec,
        status: &SubscriptionStatus,
        act: &Act,
    ) -> Result<Option<Subscription>>;

    /// Gives it a new secret, which signs from the commit on. Those of before sign for the overlap
    /// and no longer, whatever an earlier rotation said; those that sign no more are removed. The
    /// version grows. `None` if it does not exist;
    /// [`StoreError::Stale`] if it is at another `version` than the one
    /// given.
    async fn rotate_secret(
        &self,
        reach: &Reach,
        id: SubscriptionId,
        version: Option<i64>,
        rotation: &Rotation,
        act: &Act,
    ) -> Result<Option<Subscription>>;

    /// Deletes it, and its secrets. What waits for it is cancelled by
    /// [`DeliveryQueue::cancel_orphans`](super::DeliveryQueue::cancel_orphans). `false` if there is
    /// none; [`StoreError::Stale`] if it is at another `version` than the
    /// one given.
    async fn delete_subscription(
        &self,
        reach: &Reach,
        id: SubscriptionId,
        version: Option<i64>,
        act: &Act,
    ) -> Result<bool>;
}

/// Whether a change that was made from `expected` may be made to what is at `found`; a change that
/// does not say is always made.
pub(super) fn check_version(found: i64, expected: Option<i64>) -> Result<()> {
    if expected.is_none_or(|expected| expected == found) {
        Ok(())
    } else {
        Err(StoreError::Stale)
    }
}
