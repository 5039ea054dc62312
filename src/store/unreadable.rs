//! Deliveries that were leased and cannot be sent: their events are missing, or cannot be read back.
//!
//! A claim passes such a delivery over, which costs it a lease, and others nothing but for those that wait
//! behind it at a gate. It is not given up at once: a process of another version may read what this one
//! cannot, and an operator may bring back what is missing. When as many of its leases were lost as make a
//! delivery suspect (queue.md §4), the claim that meets it ends it as failed, whatever is left of its schedule.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::targets::Target;
use super::{DeliveryQueue, LeasedDelivery, SettleOutcome, Settlement};
use crate::domain::attempt::{Attempt, ErrorClass, Trigger};
use crate::domain::delivery::{MAX_LOST_LEASES, Sending, Verdict};
use crate::domain::ids::{DeliveryId, EditionId, EventId, OwnerId};
use crate::domain::replay::{Replaying, Was};
use crate::telemetry::metric;

/// What a claim leased.
#[derive(Default)]
pub(super) struct Claimed {
    /// What can be sent.
    pub(super) leased: Vec<LeasedDelivery>,
    /// What cannot.
    pub(super) unreadable: Vec<Unreadable>,
}

/// A leased delivery without its event.
pub(super) struct Unreadable {
    pub(super) delivery: DeliveryId,
    pub(super) event: EventId,
    pub(super) target: Arc<Target>,
    pub(super) epoch: i32,
    pub(super) attempts: u32,
    pub(super) gate: Option<EditionId>,
    pub(super) replaying: Option<Replaying>,
    pub(super) lost_leases: u32,
    pub(super) sending: Sending,
}

impl Claimed {
    /// Ends what was met often enough, and answers what can be sent. It is for behind the claim's commit: a
    /// transaction of its own takes its locks in the order of any settle. Where these are not to be had, it
    /// is given up, and the claim that takes the next lease comes back to it.
    pub(super) async fn end_unreadable(
        self,
        queue: &dyn DeliveryQueue,
        owner: OwnerId,
        at: DateTime<Utc>,
    ) -> Vec<LeasedDelivery> {
        let mut ending = Vec::new();
        for one in self.unreadable {
            if one.lost_leases > MAX_LOST_LEASES {
                ending.push(one.ended(at));
            } else {
                tracing::warn!(delivery = %one.delivery, event = %one.event,
                    lost_leases = one.lost_leases,
                    "passed over: its event is missing or cannot be read");
            }
        }
        if ending.is_empty() {
            return self.leased;
        }
        match queue.settle(owner, &ending).await {
            Ok(outcomes) => tell(&ending, &outcomes),
            Err(error) => tracing::warn!(%error, deliveries = ending.len(),
                "deliveries without readable events cannot be ended now"),
        }
        self.leased
    }
}

fn tell(ended: &[Settlement], outcomes: &[SettleOutcome]) {
    let ended = ended.iter().zip(outcomes);
    for (one, _) in ended.filter(|(_, outcome)| **outcome != SettleOutcome::LeaseLost) {
        // As the dispatcher counts attempts: whoever watches what fails hears of it.
        let outcome = if one.verdict == Verdict::Repeated {
            tracing::error!(delivery = %one.delivery, event = %one.event,
                subscription = %one.subscription,
                "not sent again: its event is missing or cannot be read");
            "repeated"
        } else {
            tracing::error!(delivery = %one.delivery, event = %one.event,
                subscription = %one.subscription,
                "failed for good: its event is missing or cannot be read");
            "failed"
        };
        let class = ErrorClass::Internal.as_str();
        metrics::counter!(metric::ATTEMPTS, "outcome" => outcome, "class" => class).increment(1);
    }
}

impl Unreadable {
    /// Our own fault, of which no receiver is told and none is judged by.
    fn ended(self, at: DateTime<Utc>) -> Settlement {
        let subscription = &self.target.subscription;
        let was = self.replaying.map(|replaying| replaying.was);
        Settlement {
            delivery: self.delivery,
            event: self.event,
            event_type: None,
            subscription: subscription.id,
            version: subscription.version,
            workspace: subscription.workspace.clone(),
            epoch: self.epoch,
            attempts_before: self.attempts,
            gate: self.gate,
            sending: self.sending,
            replaying: self.replaying,
            verdict: match was {
                Some(Was::Succeeded) => Verdict::Repeated,
                Some(Was::Pending | Was::Failed | Was::Unmade) | None => Verdict::Failed,
            },
            attempt: Some(Attempt {
                at,
                duration: Duration::ZERO,
                trigger: was.map_or(Trigger::Schedule, |_| Trigger::Replay),
                status: None,
                error: Some(ErrorClass::Internal),
                response_headers: Vec::new(),
                response_excerpt: String::new(),
            }),
        }
    }
}
