//! Event types, and the filters by which subscriptions name them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The longest event type, in bytes.
pub const MAX_EVENT_TYPE_BYTES: usize = 255;

/// First segments of the types that tell of this program rather than of the domain.
pub const OPERATIONAL: [&str; 2] = ["subscription", "delivery"];

/// Why a string is no event type, or no filter over them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventTypeError {
    /// Empty, or with an empty segment, or with a character outside `[a-z0-9_]`.
    #[error("must be dot-separated segments of [a-z0-9_], such as `edition.submitted`")]
    IllFormed,
    /// Longer than [`MAX_EVENT_TYPE_BYTES`].
    #[error("must be at most {MAX_EVENT_TYPE_BYTES} bytes")]
    TooLong,
}

/// A well-formed event type: dot-separated segments of `[a-z0-9_]` (product.md §3).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EventType(Arc<str>);

impl EventType {
    /// Checks the form and takes the string.
    pub fn new(text: &str) -> Result<Self, EventTypeError> {
        if text.len() > MAX_EVENT_TYPE_BYTES {
            return Err(EventTypeError::TooLong);
        }
        let segment_is_fine = |segment: &str| {
            !segment.is_empty()
                && segment
                    .bytes()
                    .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'))
        };
        if !text.split('.').all(segment_is_fine) {
            return Err(EventTypeError::IllFormed);
        }
        Ok(Self(Arc::from(text)))
    }

    /// The type as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this type tells of the dispatcher itself (`subscription.…`, `delivery.…`). Such
    /// events go only to subscriptions that name them, never to `*` (product.md §4).
    pub fn is_operational(&self) -> bool {
        let first = self.0.split('.').next().unwrap_or_default();
        OPERATIONAL.contains(&first)
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for EventType {
    type Err = EventTypeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl TryFrom<String> for EventType {
    type Error = EventTypeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(&text)
    }
}

impl From<EventType> for String {
    fn from(event_type: EventType) -> Self {
        event_type.as_str().to_owned()
    }
}

/// Which event types a subscription wants: one, all below a prefix, or every domain event.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum EventFilter {
    /// `edition.submitted`: this type and no other.
    Exact(EventType),
    /// `edition.*`: any type below the prefix, at any depth, but not the prefix itself.
    Below(EventType),
    /// `*`: every domain event, no operational one.
    All,
}

impl EventFilter {
    /// Whether an event of this type passes.
    pub fn matches(&self, event_type: &EventType) -> bool {
        match self {
            Self::Exact(wanted) => wanted == event_type,
            Self::Below(prefix) => event_type
                .as_str()
                .strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.starts_with('.')),
            Self::All => !event_type.is_operational(),
        }
    }
}

impl EventFilter {
    /// Whether it names events that tell of the dispatcher itself.
    pub fn is_operational(&self) -> bool {
        match self {
            Self::Exact(event_type) | Self::Below(event_type) => event_type.is_operational(),
            Self::All => false,
        }
    }
}

impl FromStr for EventFilter {
    type Err = EventTypeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "*" {
            return Ok(Self::All);
        }
        match text.strip_suffix(".*") {
            Some(prefix) => EventType::new(prefix).map(Self::Below),
            None => EventType::new(text).map(Self::Exact),
        }
    }
}

impl fmt::Display for EventFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(event_type) => write!(f, "{event_type}"),
            Self::Below(prefix) => write!(f, "{prefix}.*"),
            Self::All => f.write_str("*"),
        }
    }
}

impl TryFrom<String> for EventFilter {
    type Error = EventTypeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<EventFilter> for String {
    fn from(filter: EventFilter) -> Self {
        filter.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filter(text: &str) -> EventFilter {
        text.parse().unwrap()
    }

    fn event_type(text: &str) -> EventType {
        EventType::new(text).unwrap()
    }

    #[test]
    fn an_ill_formed_type_is_refused() {
        for text in [
            "",
            ".",
            "edition.",
            ".edition",
            "Edition.x",
            "a..b",
            "a b",
            "édition",
            "a.*",
        ] {
            assert_eq!(
                EventType::new(text),
                Err(EventTypeError::IllFormed),
                "{text:?}"
            );
        }
        assert_eq!(
            EventType::new(&"a".repeat(256)),
            Err(EventTypeError::TooLong)
        );
    }

    #[test]
    fn a_wildcard_stands_only_at_the_end() {
        for text in ["**", "*.edition", "edition.*.x", ".*", "edition*", ""] {
            assert!(text.parse::<EventFilter>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_prefix_filter_takes_any_depth_below_and_nothing_beside() {
        let below = filter("edition.*");
        assert!(below.matches(&event_type("edition.submitted")));
        assert!(below.matches(&event_type("edition.section.changed")));
        assert!(!below.matches(&event_type("edition")));
        assert!(!below.matches(&event_type("editions.submitted")));
        assert!(!below.matches(&event_type("output.generated")));
    }

    #[test]
    fn the_star_takes_domain_events_only() {
        assert!(filter("*").matches(&event_type("edition.submitted")));
        assert!(!filter("*").matches(&event_type("subscription.disabled")));
        assert!(!filter("*").matches(&event_type("delivery.failed")));
        assert!(filter("delivery.failed").matches(&event_type("delivery.failed")));
        assert!(filter("delivery.*").matches(&event_type("delivery.failed")));
    }

    proptest! {
        #[test]
        fn a_filter_survives_being_written_and_read(text in r"[a-z0-9_]{1,8}(\.[a-z0-9_]{1,8}){0,3}(\.\*)?") {
            let parsed = filter(&text);
            prop_assert_eq!(parsed.to_string(), text);
        }

        #[test]
        fn an_exact_filter_matches_exactly_its_own_type(
            a in r"[a-z]{1,3}(\.[a-z]{1,3}){0,2}",
            b in r"[a-z]{1,3}(\.[a-z]{1,3}){0,2}",
        ) {
            prop_assert_eq!(filter(&a).matches(&event_type(&b)), a == b);
        }

        #[test]
        fn parsing_a_filter_never_panics(text in ".{0,64}") {
            drop(text.parse::<EventFilter>());
        }
    }
}
