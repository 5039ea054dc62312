//! Test sends: a subscription gets a `ping` out of turn, and what came of it is kept like any other
//! delivery, with the trigger `test`.

use std::fmt::Debug;

use async_trait::async_trait;

use super::identity::delivery_id;
use super::targets::Target;
use super::{AttemptRecord, Result};
use crate::domain::attempt::Attempt;
use crate::domain::delivery::DeliveryState;
use crate::domain::event::Event;
use crate::domain::ids::{DeliveryId, EventId, SubscriptionId};

/// The lease token of a delivery that was never leased: its only attempt stands under it.
pub const EPOCH: i32 = 1;

/// Sends tests. The API is handed one: what sends is not its business.
#[async_trait]
pub trait TestSend: Debug + Send + Sync {
    /// Sends a `ping` now, once, whatever the subscription's status, and keeps what came of it, also
    /// where the caller stops waiting for it.
    async fn send(&self, target: Target) -> Result<TestSent>;
}

/// What came of a test send.
#[derive(Clone, Debug, PartialEq)]
pub struct TestSent {
    /// The `ping`: the `webhook-id` that the receiver got.
    pub event: EventId,
    /// Its delivery.
    pub delivery: DeliveryId,
    /// The attempt, as it is kept.
    pub attempt: AttemptRecord,
}

/// Keeping what came of test sends.
#[async_trait]
pub trait TestLog: Send + Sync {
    /// Keeps the event, a settled delivery and its only attempt, in one transaction. The event is in
    /// no feed and goes to nobody else.
    async fn record_test(
        &self,
        event: &Event,
        subscription: SubscriptionId,
        attempt: &Attempt,
    ) -> Result<DeliveryId>;
}

/// What the delivery of a test is known by, and where it ends.
pub(super) fn ended(
    event: &Event,
    subscription: SubscriptionId,
    attempt: &Attempt,
) -> (DeliveryId, DeliveryState) {
    let state = if attempt.succeeded() {
        DeliveryState::Succeeded
    } else {
        DeliveryState::Failed
    };
    (delivery_id(event.id, subscription), state)
}
