//! Bytes to an event.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::clock::Clock;
use crate::domain::event::EventError;
use crate::domain::ids::EventId;
use crate::domain::payload::Payload;
use crate::entropy::Entropy;

/// Reads events out of messages, each under a new id of ours.
#[derive(Clone, Debug)]
pub struct Decoder {
    clock: Arc<dyn Clock>,
    entropy: Entropy,
}

impl Decoder {
    /// Ids and acceptance times come from here.
    pub fn new(clock: Arc<dyn Clock>, entropy: Entropy) -> Self {
        Self { clock, entropy }
    }

    /// The time, of which events are accepted.
    pub(super) fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// An event, or why the bytes are none: the text of that error is a dead letter's reason.
    pub fn decode(&self, bytes: &[u8]) -> Result<Arc<Payload>, EventError> {
        self.decode_traced(bytes, None)
    }

    /// The same of a message whose header names a trace: an event that names none belongs to that.
    pub fn decode_traced(
        &self,
        bytes: &[u8],
        traceparent: Option<&str>,
    ) -> Result<Arc<Payload>, EventError> {
        let now = self.clock.now();
        let id: EventId = self.entropy.id(now);
        let payload = Payload::decode(bytes, id, now)?;
        let traced = traceparent.and_then(|trace| payload.in_trace(trace, now));
        Ok(Arc::new(traced.unwrap_or(payload)))
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn each_event_gets_an_id_of_its_own_and_the_time_of_its_acceptance() {
        let now = DateTime::from_timestamp_millis(1_777_000_000_000).unwrap();
        let decoder = Decoder::new(Arc::new(ManualClock::at(now)), Entropy::seeded(1));
        let text = br#"{"specversion":"1.0","id":"1","source":"s","type":"x"}"#;
        let (first, second) = (decoder.decode(text).unwrap(), decoder.decode(text).unwrap());
        assert_ne!(first.event().id, second.event().id);
        assert_eq!(first.event().occurred_at, now);
    }
}
