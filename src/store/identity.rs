//! What events and deliveries are known by, the same in both databases.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::domain::event::Event;
use crate::domain::ids::{self, DeliveryId, EventId, SubscriptionId};

/// Twelve bytes of sha256(`source`, NUL, `id`) behind four bytes of order. NUL is in neither part, so
/// two events of different identity are never run together.
///
/// Keys of a bare hash come to lie all over their index: at a million keys each insert writes a page
/// of its own. Most producers number their events or put the time into the id, so the first bytes
/// are what of it can be read: keys of one time then lie side by side.
pub(super) type EventKey = [u8; 16];

/// What an event is recognised by when it comes again.
pub(super) fn event_key(event: &Event) -> EventKey {
    key_of(&event.source, &event.external_id)
}

/// The same of an event of which only this is at hand.
pub(super) fn key_of(source: &str, external_id: &str) -> EventKey {
    let digest = Sha256::new()
        .chain_update(source)
        .chain_update([0])
        .chain_update(external_id)
        .finalize();
    let mut key: EventKey = std::array::from_fn(|index| digest[index]);
    if let Some(order) = order(external_id) {
        key[..4].copy_from_slice(&order.to_be_bytes());
    }
    key
}

/// A number that grows from one event of a producer to the next, where its ids have one: the
/// milliseconds of a UUIDv7 (RFC 9562), else the digits that the id ends in, either without what is
/// beyond 32 bits. It need not be right: it places a key and does not identify.
fn order(external_id: &str) -> Option<u32> {
    if let Ok(uuid) = Uuid::try_parse(external_id) {
        let millis = uuid.as_u128() >> 80;
        return (uuid.get_version_num() == 7).then(|| low_half(millis));
    }
    let digits = external_id
        .bytes()
        .rev()
        .take_while(u8::is_ascii_digit)
        .take(LONGEST_NUMBER)
        .count();
    let number: u64 = external_id[external_id.len() - digits..].parse().ok()?;
    Some(low_half(number.into()))
}

/// The most digits that always fit 64 bits.
const LONGEST_NUMBER: usize = 19;

fn low_half(number: u128) -> u32 {
    u32::try_from(number & u128::from(u32::MAX)).unwrap_or(u32::MAX)
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
    fn keys_of_one_time_lie_side_by_side_where_ids_tell_it() {
        let ordered = |ids: [&str; 3]| {
            let keys = ids.map(|id| event_key(&event("s", id)));
            keys[0] < keys[1] && keys[1] < keys[2]
        };
        assert!(ordered(["9", "10", "11"]));
        assert!(ordered(["run-7-98", "run-7-99", "run-7-100"]));
        assert!(ordered([
            "0198f2c3-0001-7fff-bfff-ffffffffffff",
            "0198f2c3-0002-7000-8000-000000000000",
            "0198f2c3-ffff-7000-8000-000000000000",
        ]));
        let long = ["9".repeat(512), "9".repeat(19)];
        assert_eq!(
            order("17f22e27-9b03-44c8-8cc3-98c4dc0c0c07"),
            None,
            "random"
        );
        assert_eq!(order("event"), None);
        assert_eq!(order(&long[0]), order(&long[1]));
        assert_eq!(order("ä12"), Some(12));
    }

    #[test]
    fn what_orders_a_key_does_not_identify() {
        let key = |source, id| event_key(&event(source, id));
        assert_ne!(key("a", "x1"), key("a", "y1"));
        assert_ne!(key("a", "1"), key("b", "1"));
        assert_ne!(key("a", "1"), key("a", "01"));
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
