//! Deliveries of new events, about to be written.

use std::sync::Arc;
use std::time::Duration;

use super::Result;
use super::events::{FIRST_EPOCH, Taken, routes};
use crate::domain::delivery::{Lane, Sending};
use crate::domain::ids::{DeliveryId, EditionId};
use crate::domain::payload::Payload;
use crate::store::LeasedDelivery;
use crate::store::gates::{Crowd, Gate, Place, Places};
use crate::store::identity::delivery_id;
use crate::store::intake::{self, Intake, Permit};
use crate::store::targets::Target;

/// A delivery about to be written.
pub(super) struct Birth<'a> {
    pub(super) id: DeliveryId,
    pub(super) payload: &'a Arc<Payload>,
    pub(super) target: &'a Arc<Target>,
    /// Where it stands at the gate of its edition, if it goes by order.
    pub(super) place: Option<Place>,
    /// Leased from its birth, if there is one.
    pub(super) permit: Option<Permit>,
}

impl<'a> Birth<'a> {
    pub(super) fn of(
        payload: &'a Arc<Payload>,
        target: &'a Arc<Target>,
        place: Option<Place>,
        intake: &dyn Intake,
    ) -> Self {
        let may_go = place.is_none_or(|place| place.is_head);
        let bytes = payload.event().envelope.len();
        Self {
            id: delivery_id(payload.event().id, target.id()),
            payload,
            target,
            place,
            permit: may_go
                .then(|| intake::admit(intake, target, bytes))
                .flatten(),
        }
    }

    /// The edition at whose gate it is.
    pub(super) fn gate(&self) -> Option<&EditionId> {
        self.place.and(self.payload.event().edition.as_ref())
    }

    /// Whether it is left for anybody to claim.
    pub(super) fn is_left(&self) -> bool {
        self.permit.is_none() && self.place.is_none_or(|place| place.is_head)
    }

    pub(super) fn leased(self, leased_until: Duration) -> Option<(LeasedDelivery, Permit)> {
        let delivery = LeasedDelivery {
            id: self.id,
            epoch: FIRST_EPOCH,
            attempts: 0,
            base: 0,
            gate: self.gate().cloned(),
            replaying: None,
            lost_leases: 0,
            lane: Lane::Fresh,
            sending: Sending::Usual,
            payload: Arc::clone(self.payload),
            target: Arc::clone(self.target),
            leased_until,
        };
        self.permit.map(|permit| (delivery, permit))
    }
}

/// Those of new events that go by order, at their gates.
pub(super) fn crowd(new: &[&Taken<'_>]) -> Crowd {
    let mut crowd = Crowd::default();
    for (payload, target) in routes(new) {
        if let Some(gate) = gate_of(payload, target) {
            crowd.add(gate);
        }
    }
    crowd
}

/// The deliveries of new events, those that go by order at these places. Whoever has come to a gate knows
/// what is queued there by others, and that it stays as it is.
pub(super) fn births<'a>(
    new: &[&Taken<'a>],
    mut places: Places,
    intake: &dyn Intake,
) -> Result<Vec<Birth<'a>>> {
    routes(new)
        .map(|(payload, target)| {
            let gate = gate_of(payload, target);
            let place = gate.map(|gate| places.next(&gate)).transpose()?;
            Ok(Birth::of(payload, target, place, intake))
        })
        .collect()
}

fn gate_of(payload: &Payload, target: &Target) -> Option<Gate> {
    Gate::of(target.id(), &target.subscription.spec, payload.event())
}
