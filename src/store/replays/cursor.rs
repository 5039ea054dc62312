//! How far a replay of many came.

use serde::{Deserialize, Serialize};

use crate::domain::ids::{DeliveryId, SubscriptionId};
use crate::store::feed::FeedPosition;

/// How far a replay came, in either of its two passes: the one that counts and the one that sends. It is
/// kept as it is, so a step moves all of it or nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cursor {
    /// Among the deliveries that there are, oldest first: behind this one.
    Deliveries {
        /// `None` is before them all.
        after: Option<DeliveryId>,
        /// What was passed over on the way.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        held: Vec<Held>,
    },
    /// All deliveries were seen; these are left.
    Held(Vec<Held>),
    /// Among the events whose deliveries were never made, oldest first: behind this place in the feed.
    Events {
        /// `None` is before them all.
        after: Option<FeedPosition>,
    },
    /// All was seen.
    End,
}

impl Cursor {
    /// Before everything.
    pub const START: Self = Self::behind(None);

    /// Behind this delivery, with nothing passed over.
    pub const fn behind(after: Option<DeliveryId>) -> Self {
        Self::Deliveries {
            after,
            held: Vec::new(),
        }
    }
}

/// A subscription that has its share of the queue, and takes no more for now: its deliveries were passed
/// over, so that others need not wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Which one.
    pub subscription: SubscriptionId,
    /// None of its deliveries up to this one was passed over; `None` is before them all.
    pub after: Option<DeliveryId>,
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    /// What an older version wrote is read, and written again as it was: steps compare the text.
    #[test]
    fn a_cursor_that_holds_nothing_is_written_as_it_always_was() {
        let id = DeliveryId::from_uuid(Uuid::nil());
        let written = format!(r#"{{"deliveries":{{"after":"{id}"}}}}"#);
        let cursor: Cursor = serde_json::from_str(&written).unwrap();
        assert_eq!(cursor, Cursor::behind(Some(id)));
        assert_eq!(serde_json::to_string(&cursor).unwrap(), written);
        let start = serde_json::to_string(&Cursor::START).unwrap();
        assert_eq!(start, r#"{"deliveries":{"after":null}}"#);
        assert_eq!(serde_json::to_string(&Cursor::End).unwrap(), r#""end""#);
    }
}
