//! A batch of events, sorted by what is to be done with each.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::domain::delivery::{Lane, Sending};
use crate::domain::ids::{DeliveryId, EditionId, EventId};
use crate::domain::payload::Payload;
use crate::store::gates::{Gate, Place};
use crate::store::identity::{EventKey, delivery_id};
use crate::store::intake::{self, Intake, Permit};
use crate::store::targets::{Target, Targets};
use crate::store::{AcceptOutcome, LeasedDelivery, MAX_FAN_OUT_ROWS};

/// The lease token of a delivery that is born leased.
pub(super) const FIRST_EPOCH: i32 = 1;

/// A new event of a batch.
pub(super) struct Fresh<'a> {
    pub(super) key: EventKey,
    pub(super) payload: &'a Arc<Payload>,
    targets: Vec<&'a Arc<Target>>,
}

/// A batch, as far as it is taken, sorted by what is to be done.
pub(super) struct Batch<'a> {
    pub(super) outcomes: Vec<AcceptOutcome>,
    pub(super) fresh: Vec<Fresh<'a>>,
    /// Committed before, under the ids given now: the answer was lost.
    pub(super) repeated: Vec<&'a Arc<Payload>>,
}

impl<'a> Batch<'a> {
    pub(super) fn sort(
        events: &'a [Arc<Payload>],
        keys: &[EventKey],
        known: &HashMap<EventKey, EventId>,
        targets: &'a Targets,
    ) -> Self {
        let mut batch = Self {
            outcomes: Vec::with_capacity(events.len()),
            fresh: Vec::with_capacity(events.len()),
            repeated: Vec::new(),
        };
        let mut seen = HashSet::with_capacity(events.len());
        let mut rows = 0;
        for (payload, key) in events.iter().zip(keys) {
            let event = payload.event();
            let outcome = match known.get(key) {
                Some(committed) if *committed == event.id => {
                    batch.repeated.push(payload);
                    AcceptOutcome::Stored
                }
                Some(_) => AcceptOutcome::Duplicate,
                None if seen.contains(key) => AcceptOutcome::Duplicate,
                None => {
                    let targets: Vec<_> = targets.matching(event).collect();
                    if !batch.fresh.is_empty() && rows + targets.len() > MAX_FAN_OUT_ROWS {
                        break;
                    }
                    rows += targets.len();
                    seen.insert(*key);
                    batch.fresh.push(Fresh {
                        key: *key,
                        payload,
                        targets,
                    });
                    AcceptOutcome::Stored
                }
            };
            batch.outcomes.push(outcome);
        }
        batch
    }

    pub(super) fn fan_out(&self) -> Vec<Delivery> {
        self.fresh
            .iter()
            .flat_map(|new| {
                new.targets
                    .iter()
                    .map(|target| Delivery::new(new.payload, target))
            })
            .collect()
    }
}

/// One of the first leases of an event's deliveries, about to be written.
pub(super) struct Delivery {
    pub(super) id: DeliveryId,
    pub(super) payload: Arc<Payload>,
    pub(super) target: Arc<Target>,
    /// Where it stands at the gate of its edition, if it goes by order.
    pub(super) place: Option<Place>,
    /// With a permit it is leased, without one it waits.
    pub(super) permit: Option<Permit>,
}

impl Delivery {
    pub(super) fn new(payload: &Arc<Payload>, target: &Arc<Target>) -> Self {
        Self {
            id: delivery_id(payload.event().id, target.id()),
            payload: Arc::clone(payload),
            target: Arc::clone(target),
            place: None,
            permit: None,
        }
    }

    /// The gate at which it is to queue, if it is to queue.
    pub(super) fn comes_to(&self) -> Option<Gate> {
        let subscription = &self.target.subscription;
        Gate::of(subscription.id, &subscription.spec, self.payload.event())
    }

    /// The edition at whose gate it is.
    pub(super) fn gate(&self) -> Option<&EditionId> {
        self.place.and(self.payload.event().edition.as_ref())
    }

    /// Whether nobody is before it.
    fn may_go(&self) -> bool {
        self.place.is_none_or(|place| place.is_head)
    }

    /// Whether it is left for anybody to claim.
    pub(super) fn is_left(&self) -> bool {
        self.permit.is_none() && self.may_go()
    }

    pub(super) fn leased(self, leased_until: Duration) -> Option<(LeasedDelivery, Permit)> {
        let leased = LeasedDelivery {
            id: self.id,
            epoch: FIRST_EPOCH,
            attempts: 0,
            base: 0,
            gate: self.gate().cloned(),
            replaying: None,
            lost_leases: 0,
            lane: Lane::Fresh,
            sending: Sending::Usual,
            payload: self.payload,
            target: self.target,
            leased_until,
        };
        Some((leased, self.permit?))
    }
}

pub(super) fn admit(mut deliveries: Vec<Delivery>, intake: &dyn Intake) -> Vec<Delivery> {
    for delivery in deliveries.iter_mut().filter(|one| one.may_go()) {
        let bytes = delivery.payload.event().envelope.len();
        delivery.permit = intake::admit(intake, &delivery.target, bytes);
    }
    deliveries
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use uuid::Uuid;

    use super::*;
    use crate::domain::circuit::CircuitState;
    use crate::domain::event::Event;
    use crate::domain::headers::CustomHeaders;
    use crate::domain::ids::{SubscriptionId, WorkspaceId, new_id};
    use crate::domain::subscription::{
        BodyFormat, Ordering, Subscription, SubscriptionSpec, SubscriptionStatus, TargetUrl,
    };
    use crate::store::identity::event_key;
    use crate::store::targets::TargetChange;

    fn payload(number: u8) -> Arc<Payload> {
        let now = DateTime::UNIX_EPOCH;
        let text = format!(r#"{{"specversion":"1.0","id":"{number}","source":"s","type":"x.y"}}"#);
        let event = Event::decode(text.as_bytes(), new_id(now, [number; 10]), now);
        Arc::new(Payload::new(event.unwrap()))
    }

    fn target(number: usize) -> Target {
        let id = SubscriptionId::from_uuid(Uuid::from_u128(number as u128));
        Target {
            subscription: Subscription {
                id,
                workspace: WorkspaceId::default(),
                spec: SubscriptionSpec {
                    url: TargetUrl::new("https://receiver.example/").unwrap(),
                    description: String::new(),
                    event_types: vec!["*".parse().unwrap()],
                    project_ids: None,
                    format: BodyFormat::Standard,
                    headers: CustomHeaders::default(),
                    max_concurrency: None,
                    rate_limit: None,
                    retry_schedule: None,
                    ordering: Ordering::default(),
                },
                status: SubscriptionStatus::Active,
                circuit: CircuitState::Closed,
                missing_since: None,
                version: 1,
                created_at: DateTime::UNIX_EPOCH,
                updated_at: DateTime::UNIX_EPOCH,
            },
            keys: Vec::new(),
        }
    }

    #[test]
    fn one_event_for_more_subscriptions_than_the_cap_is_taken_alone_and_whole() {
        let all = (0..=MAX_FAN_OUT_ROWS)
            .map(|number| TargetChange::Active(Box::new(target(number))))
            .collect();
        let targets = Targets::default().with(1, all);
        let events = [payload(1), payload(2)];
        let keys: Vec<_> = events
            .iter()
            .map(|payload| event_key(payload.event()))
            .collect();
        let batch = Batch::sort(&events, &keys, &HashMap::new(), &targets);
        assert_eq!(batch.outcomes, [AcceptOutcome::Stored]);
        assert_eq!(batch.fan_out().len(), MAX_FAN_OUT_ROWS + 1);

        // Known events make no rows, so they do not end a batch.
        let known = HashMap::from([(keys[0], new_id(DateTime::UNIX_EPOCH, [9; 10]))]);
        let batch = Batch::sort(&events, &keys, &known, &targets);
        assert_eq!(
            batch.outcomes,
            [AcceptOutcome::Duplicate, AcceptOutcome::Stored]
        );
    }
}
