//! What those who write events must know of the dispatcher: whether a delivery may be born leased,
//! and where to hand it. `dispatch` implements it, `ingest` uses it, neither knows the other.

use std::any::Any;
use std::fmt;
use std::fmt::Debug;

use async_trait::async_trait;

use super::LeasedDelivery;
use super::targets::Target;
use crate::domain::ids::SubscriptionId;

/// The right to have one leased delivery in memory. Dropping it gives it back.
pub struct Permit(#[expect(dead_code, reason = "held for its Drop")] Box<dyn Any + Send + Sync>);

impl Permit {
    /// Wraps the dispatcher's own guard.
    pub fn new(guard: impl Any + Send + Sync) -> Self {
        Self(Box::new(guard))
    }
}

impl Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Permit")
    }
}

/// The dispatcher, as a writer of events sees it.
#[async_trait]
pub trait Intake: Send + Sync {
    /// Waits while the dispatcher is so busy that what is written next would have to wait in the
    /// database, and for a moment at most. To be called before a transaction, not inside.
    async fn relief(&self) {}

    /// A permit for one delivery of an event of `bytes` to this target, to be sent in a moment, if
    /// there is one free; otherwise the delivery waits in the database. Called inside a transaction, so it
    /// must not block.
    fn admit(&self, target: &Target, bytes: usize) -> Option<Permit>;

    /// Takes committed deliveries that were born leased. Never blocks: each holds a permit.
    fn hand_over(&self, leased: Vec<(LeasedDelivery, Permit)>);

    /// Says that fresh deliveries of these subscriptions were left waiting in the database.
    fn left_waiting(&self, of: &[SubscriptionId]);

    /// Says that others are due there, of whomever.
    fn something_is_due(&self);
}

/// A permit for a delivery that is being written. One to a receiver that is left alone waits.
pub(super) fn admit(intake: &dyn Intake, target: &Target, bytes: usize) -> Option<Permit> {
    if target.is_left_alone() {
        return None;
    }
    intake.admit(target, bytes)
}

/// Whose deliveries were left, each named once.
pub(super) fn each_once(mut of: Vec<SubscriptionId>) -> Vec<SubscriptionId> {
    of.sort_unstable();
    of.dedup();
    of
}

/// For processes that only write: nothing is admitted, so everything waits for a dispatcher.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDispatch;

impl Intake for NoDispatch {
    fn admit(&self, _target: &Target, _bytes: usize) -> Option<Permit> {
        None
    }

    fn hand_over(&self, leased: Vec<(LeasedDelivery, Permit)>) {
        debug_assert!(leased.is_empty(), "nothing was admitted");
    }

    fn left_waiting(&self, _of: &[SubscriptionId]) {}

    fn something_is_due(&self) {}
}
