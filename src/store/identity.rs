//! What events and deliveries are known by, the same in both databases.

use sha2::{Digest, Sha256};

use crate::domain::event::Event;
use crate::domain::ids::{self, DeliveryId, EventId, SubscriptionId};

/// The first 16 bytes of sha256(`source`, NUL, `id`): NUL is in neither part, so two events of
/// different identity are never run together.
pub(super) type EventKey = [u8; 16];

/// What an event is recognised by when it comes again.
pub(super) fn event_key(event: &Event) -> EventKey {
    let digest = Sha256::new()
        .chain_update(&event.source)
        .chain_update([0])
        .chain_update(&event.external_id)
        .finalize();
    std::array::from_fn(|index| digest[index])
}

/// The id of an event's delivery to a subscription: the event's time, and a hash of both ids. It
/// needs no looking up when an accept comes again, and there cannot be two of it.
pub(super) fn delivery_id(event: EventId, subscription: SubscriptionId) -> DeliveryId {
    let digest = Sha256::new()
        .chain_update(event.uuid())
        .chain_update(subscription.uuid())
        .finalize();
    ids::new_id(
        ids::created_at(event.uuid()),
        std::array::from_fn(|index| digest[index]),
    )
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn event(source: &str, id: &str) -> Event {
        let text = format!(r#"{{"specversion":"1.0","id":"{id}","source":"{source}","type":"x"}}"#);
        let now = DateTime::UNIX_EPOCH;
        Event::decode(text.as_bytes(), ids::new_id(now, [0; 10]), now).unwrap()
    }

    #[test]
    fn the_key_tells_source_and_id_apart() {
        let key = |source, id| event_key(&event(source, id));
        assert_eq!(key("a", "b"), key("a", "b"));
        assert_ne!(key("ab", "c"), key("a", "bc"));
        assert_ne!(key("a", "b"), key("b", "a"));
    }

    #[test]
    fn a_delivery_has_one_id_and_the_time_of_its_event() {
        let now = DateTime::from_timestamp_millis(1_777_000_000_123).unwrap();
        let (event, other) = (ids::new_id(now, [1; 10]), ids::new_id(now, [2; 10]));
        let (to, elsewhere) = (ids::new_id(now, [3; 10]), ids::new_id(now, [4; 10]));
        let id = delivery_id(event, to);
        assert_eq!(id, delivery_id(event, to));
        assert_ne!(id, delivery_id(other, to));
        assert_ne!(id, delivery_id(event, elsewhere));
        assert_eq!(ids::created_at(id.uuid()), now);
    }
}
