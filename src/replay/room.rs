//! How much of a replay is in the queue, and how much of that may be to one subscription.
//!
//! A receiver that is down keeps what it has there, so nobody may take the room of others. Each may have as
//! much as a quarter of what is free: the more of them are down, the less each has, and however many they
//! are, the next one gets what a replay sends in a turn.

use std::collections::HashMap;

use crate::domain::ids::SubscriptionId;

/// So many deliveries of one replay are in the queue at once, and more only where many subscriptions have
/// no more than [`LEAST_OF_ONE`].
const MAX_IN_QUEUE: usize = 10_000;

/// The most of them to one subscription, where it is alone.
pub const MAX_OF_ONE: usize = MAX_IN_QUEUE / 5;

/// So many each may have, whatever others have: five turns a second make the usual rate of it.
pub const LEAST_OF_ONE: usize = 100;

/// What a replay has in the queue.
#[derive(Clone, Debug, Default)]
pub(super) struct Room {
    total: usize,
    by_subscription: HashMap<SubscriptionId, usize>,
}

impl Room {
    pub(super) fn new(in_queue: HashMap<SubscriptionId, usize>) -> Self {
        Self {
            total: in_queue.values().sum(),
            by_subscription: in_queue,
        }
    }

    /// Makes one of them one more, if there is room.
    pub(super) fn take(&mut self, subscription: SubscriptionId) -> bool {
        let has_room = self.left(subscription) > 0;
        if has_room {
            self.add(subscription, 1);
        }
        has_room
    }

    /// One of them has so many more there.
    pub(super) fn add(&mut self, subscription: SubscriptionId, deliveries: usize) {
        *self.by_subscription.entry(subscription).or_default() += deliveries;
        self.total += deliveries;
    }

    /// How many more one may have, and not more than a quarter of what is free then.
    pub(super) fn left(&self, subscription: SubscriptionId) -> usize {
        let has = self.has(subscription);
        let of_free = self.free().saturating_sub(4 * has) / 5;
        of_free.max(LEAST_OF_ONE.saturating_sub(has))
    }

    /// Whether one that had its share has sent half of it, so that a step is worth its while.
    pub(super) fn is_half_empty(&self, subscription: SubscriptionId) -> bool {
        self.has(subscription) <= self.share() / 2
    }

    fn has(&self, subscription: SubscriptionId) -> usize {
        let has = self.by_subscription.get(&subscription);
        has.copied().unwrap_or_default()
    }

    fn share(&self) -> usize {
        (self.free() / 4).max(LEAST_OF_ONE)
    }

    fn free(&self) -> usize {
        MAX_IN_QUEUE.saturating_sub(self.total)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn subscription(number: usize) -> SubscriptionId {
        SubscriptionId::from_uuid(Uuid::from_u128(number as u128))
    }

    fn fill(room: &mut Room, number: usize) -> usize {
        let mut taken = 0;
        while room.take(subscription(number)) {
            taken += 1;
        }
        taken
    }

    #[test]
    fn one_by_itself_has_no_more_than_its_bound() {
        let mut room = Room::default();
        for has in [0, 1_200, 1_990, MAX_OF_ONE] {
            let room = Room::new(HashMap::from([(subscription(1), has)]));
            assert_eq!(room.left(subscription(1)), MAX_OF_ONE - has);
        }
        assert_eq!(fill(&mut room, 1), MAX_OF_ONE);
    }

    /// However many are down, and however much each of them is to be sent, the next one finds room.
    #[test]
    fn those_that_are_down_leave_room_for_the_next() {
        let mut room = Room::default();
        let mut before = MAX_OF_ONE;
        for number in 0..300 {
            let taken = fill(&mut room, number);
            assert!(
                (LEAST_OF_ONE..=before).contains(&taken),
                "{number}: {taken}"
            );
            before = taken;
            assert!(room.total <= MAX_IN_QUEUE + number * LEAST_OF_ONE);
        }
    }

    #[test]
    fn one_goes_on_when_half_of_its_share_is_sent() {
        let alone = |has| Room::new(HashMap::from([(subscription(1), has)]));
        assert!(!alone(MAX_OF_ONE).is_half_empty(subscription(1)));
        assert!(alone(MAX_OF_ONE / 2).is_half_empty(subscription(1)));
        let beside = |has| {
            let mut room = alone(has);
            room.add(subscription(2), MAX_IN_QUEUE);
            room
        };
        assert!(!beside(LEAST_OF_ONE / 2 + 1).is_half_empty(subscription(1)));
        assert!(beside(LEAST_OF_ONE / 2).is_half_empty(subscription(1)));
    }
}
