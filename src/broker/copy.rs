//! A message published a second time: what it keeps of itself.

use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::AMQPValue;

use super::PERSISTENT;

/// The header in which quorum queues count.
pub(crate) const DELIVERY_COUNT: &str = "x-delivery-count";

/// The message's own properties, on disk, and without headers. Left out are `expiration`, since a copy
/// waits for as long as it takes, and `user-id`, which the broker accepts from that user only.
pub(crate) fn lasting(own: &BasicProperties) -> BasicProperties {
    let mut properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
    macro_rules! keep {
        ($($property:ident => $with:ident),*) => {$(
            if let Some(value) = own.$property().clone() {
                properties = properties.$with(value);
            }
        )*};
    }
    keep!(
        content_type => with_content_type,
        content_encoding => with_content_encoding,
        priority => with_priority,
        correlation_id => with_correlation_id,
        reply_to => with_reply_to,
        message_id => with_message_id,
        timestamp => with_timestamp,
        kind => with_type,
        app_id => with_app_id,
        cluster_id => with_cluster_id
    );
    properties
}

/// How often a message was delivered before, as quorum queues count it.
pub(crate) fn delivery_count(delivery: &Delivery) -> u64 {
    let count = delivery
        .properties
        .headers()
        .as_ref()
        .and_then(|headers| headers.inner().get(DELIVERY_COUNT));
    match count {
        Some(AMQPValue::LongLongInt(count)) => u64::try_from(*count).unwrap_or(0),
        Some(AMQPValue::LongUInt(count)) => u64::from(*count),
        Some(AMQPValue::LongInt(count)) => u64::try_from(*count).unwrap_or(0),
        _ => 0,
    }
}
