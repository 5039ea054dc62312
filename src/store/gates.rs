//! Order per edition (product.md §4), the same in both databases.
//!
//! A subscription that wants it has a gate for each edition, at which deliveries queue in the order in
//! which their events were accepted. The first is the head, and the only one that is ever due; it stays
//! the head over retries, lost leases and crashes, until it is settled for good. Then the next becomes
//! due, in the same transaction.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Result, Settlement, StoreError};
use crate::domain::delivery::Lane;
use crate::domain::event::Event;
use crate::domain::ids::{DeliveryId, EditionId, EventId, SubscriptionId, WorkspaceId, created_at};
use crate::domain::subscription::SubscriptionSpec;

/// How many gates of deleted subscriptions are removed at once.
pub(super) const GATES_AT_ONCE: usize = 10_000;

/// A gate. Whoever locks several locks them in this order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Gate {
    /// Of which subscription.
    pub(super) subscription: SubscriptionId,
    /// For which edition.
    pub(super) edition: EditionId,
    /// The tenant of both.
    pub(super) workspace: WorkspaceId,
}

impl Gate {
    /// The one at which a delivery of an event queues, if it is to queue.
    pub(super) fn of(
        subscription: SubscriptionId,
        spec: &SubscriptionSpec,
        event: &Event,
    ) -> Option<Self> {
        let edition = spec.gate(event)?;
        Some(Self {
            subscription,
            edition: edition.clone(),
            workspace: event.workspace.clone(),
        })
    }
}

/// How many deliveries come to gates, or leave them; in the order of the gates.
#[derive(Debug, Default)]
pub(super) struct Crowd(BTreeMap<Gate, i64>);

impl Crowd {
    /// Counts one more.
    pub(super) fn add(&mut self, gate: Gate) {
        *self.0.entry(gate).or_default() += 1;
    }

    /// Those who come.
    pub(super) fn of(comers: &[Comer]) -> Self {
        let mut crowd = Self::default();
        for comer in comers {
            crowd.add(comer.gate.clone());
        }
        crowd
    }

    /// Counts so many.
    pub(super) fn add_many(&mut self, gate: Gate, count: i64) {
        *self.0.entry(gate).or_default() += count;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Gate, i64)> {
        self.0.iter().map(|(gate, count)| (gate, *count))
    }

    pub(super) fn gates(&self) -> impl Iterator<Item = &Gate> {
        self.0.keys()
    }

    /// Those who leave gates with these outcomes, of which only some changed what they name. One lease
    /// counts once.
    pub(super) fn leaving<'s>(
        settlements: impl IntoIterator<Item = &'s Settlement>,
        mut changed: impl FnMut(&Settlement) -> bool,
    ) -> Self {
        let mut crowd = Self::default();
        let mut seen = HashSet::new();
        for settlement in settlements {
            if let Some(gate) = settlement.leaves()
                && changed(settlement)
                && seen.insert((settlement.delivery, settlement.epoch))
            {
                crowd.add(gate);
            }
        }
        crowd
    }
}

/// A gate as it is kept.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) subscription: Uuid,
    pub(super) edition: String,
    pub(super) depth: i64,
    pub(super) tail: i64,
}

/// Where a delivery stands at its gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Lower ones go first.
    pub(super) ord: i64,
    /// Whether anybody is before it.
    pub(super) is_head: bool,
}

/// Places for a crowd that has come to its gates, given out one by one.
#[derive(Debug, Default)]
pub(super) struct Places(BTreeMap<Gate, Place>);

impl Places {
    /// The gates as they are with the crowd at them.
    pub(super) fn of(crowd: Crowd, kept: impl IntoIterator<Item = Kept>) -> Result<Self> {
        let kept: BTreeMap<(Uuid, String), (i64, i64)> = kept
            .into_iter()
            .map(|kept| ((kept.subscription, kept.edition), (kept.depth, kept.tail)))
            .collect();
        let first = |(gate, count): (Gate, i64)| {
            let key = (gate.subscription.uuid(), gate.edition.as_str().to_owned());
            let (depth, tail) = kept
                .get(&key)
                .ok_or_else(|| StoreError::corrupt("a gate that was written is not there"))?;
            let place = Place {
                ord: tail - count + 1,
                is_head: *depth == count,
            };
            Ok((gate, place))
        };
        crowd
            .0
            .into_iter()
            .map(first)
            .collect::<Result<_>>()
            .map(Self)
    }

    /// The next one at a gate.
    pub(super) fn next(&mut self, gate: &Gate) -> Result<Place> {
        let next = self
            .0
            .get_mut(gate)
            .ok_or_else(|| StoreError::corrupt("more come to a gate than were counted"))?;
        let place = *next;
        *next = Place {
            ord: place.ord + 1,
            is_head: false,
        };
        Ok(place)
    }
}

/// A delivery that comes to its gate because it is replayed.
#[derive(Debug)]
pub(super) struct Comer {
    pub(super) delivery: DeliveryId,
    pub(super) gate: Gate,
}

/// By what those who come are sorted: when their events came, and those of one millisecond by the
/// events' own times.
pub(super) fn arrival(event: EventId, occurred_at: DateTime<Utc>) -> impl Ord {
    (created_at(event.uuid()), occurred_at, event.uuid())
}

/// The gates at which somebody became due, and in which lane.
#[derive(Debug, Default)]
pub(super) struct Released(HashMap<(Uuid, String), Lane>);

impl Released {
    pub(super) fn at(&self, gate: &Gate) -> Option<Lane> {
        // Most batches release nobody.
        if self.0.is_empty() {
            return None;
        }
        let key = (gate.subscription.uuid(), gate.edition.as_str().to_owned());
        self.0.get(&key).copied()
    }
}

impl FromIterator<((Uuid, String), Lane)> for Released {
    fn from_iter<T: IntoIterator<Item = ((Uuid, String), Lane)>>(gates: T) -> Self {
        Self(gates.into_iter().collect())
    }
}

/// What a row of the queue says of the place of its delivery: the gate, the place there, and whether
/// somebody is before it.
pub(super) fn columns(at: Option<&(EditionId, Place)>) -> (Option<&str>, Option<i64>, bool) {
    match at {
        None => (None, None, false),
        Some((edition, place)) => (Some(edition.as_str()), Some(place.ord), !place.is_head),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(number: u128, edition: &str) -> Gate {
        Gate {
            subscription: SubscriptionId::from_uuid(Uuid::from_u128(number)),
            edition: EditionId::new(edition).unwrap(),
            workspace: WorkspaceId::default(),
        }
    }

    fn kept(gate: &Gate, depth: i64, tail: i64) -> Kept {
        Kept {
            subscription: gate.subscription.uuid(),
            edition: gate.edition.as_str().to_owned(),
            depth,
            tail,
        }
    }

    #[test]
    fn the_first_at_an_empty_gate_is_the_head_and_nobody_else() {
        let (empty, busy) = (gate(1, "ed_1"), gate(1, "ed_2"));
        let mut crowd = Crowd::default();
        for gate in [&busy, &empty, &empty] {
            crowd.add(gate.clone());
        }
        let rows = [kept(&empty, 2, 9), kept(&busy, 4, 7)];
        let mut places = Places::of(crowd, rows).unwrap();
        let of = |ord, is_head| Place { ord, is_head };
        assert_eq!(places.next(&empty).unwrap(), of(8, true));
        assert_eq!(places.next(&empty).unwrap(), of(9, false));
        assert_eq!(places.next(&busy).unwrap(), of(7, false));
        assert!(places.next(&gate(2, "ed_1")).is_err());
    }

    #[test]
    fn gates_are_in_the_order_in_which_a_database_compares_their_bytes() {
        let mut crowd = Crowd::default();
        for (number, edition) in [(2, "a"), (1, "b"), (1, "B"), (1, "é")] {
            crowd.add(gate(number, edition));
        }
        let order: Vec<&str> = crowd.gates().map(|gate| gate.edition.as_str()).collect();
        assert_eq!(order, ["B", "b", "é", "a"]);
    }
}
