//! The bodies that go out: built once per event and format, shared by all its deliveries.

use std::sync::OnceLock;

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde_json::value::RawValue;

use super::envelope::Envelope;
use super::event::Event;
use super::subscription::BodyFormat;

/// An event and the bodies made of it so far.
#[derive(Debug)]
pub struct Payload {
    event: Event,
    standard: OnceLock<Bytes>,
    kazinex: OnceLock<Bytes>,
    cloud_events: OnceLock<Bytes>,
    traceparent: OnceLock<Option<String>>,
}

#[derive(Serialize)]
struct Standard<'a> {
    r#type: &'a str,
    timestamp: String,
    data: &'a RawValue,
}

#[derive(Serialize)]
struct Kazinex<'a> {
    event: &'a str,
    organisation_id: &'a str,
    project_id: Option<&'a str>,
    timestamp: String,
    data: &'a RawValue,
}

impl Payload {
    /// Nothing is built until a delivery asks for it.
    pub fn new(event: Event) -> Self {
        Self {
            event,
            standard: OnceLock::new(),
            kazinex: OnceLock::new(),
            cloud_events: OnceLock::new(),
            traceparent: OnceLock::new(),
        }
    }

    /// The event itself.
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// The exact bytes to sign and to send.
    pub fn body(&self, format: BodyFormat) -> Bytes {
        let (cell, build): (_, fn(&Event) -> Bytes) = match format {
            BodyFormat::Standard => (&self.standard, standard),
            BodyFormat::Kazinex => (&self.kazinex, kazinex),
            BodyFormat::CloudEvents => (&self.cloud_events, cloud_events),
        };
        cell.get_or_init(|| build(&self.event)).clone()
    }

    /// W3C trace context that the event came with, where it is of the right form.
    pub fn traceparent(&self) -> Option<&str> {
        self.traceparent
            .get_or_init(|| traceparent(&self.event))
            .as_deref()
    }
}

/// The content type of a body.
pub fn content_type(format: BodyFormat) -> &'static str {
    match format {
        BodyFormat::Standard | BodyFormat::Kazinex => "application/json",
        BodyFormat::CloudEvents => "application/cloudevents+json",
    }
}

/// RFC 3339 in UTC, with milliseconds only where there are any.
pub fn timestamp(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

fn standard(event: &Event) -> Bytes {
    with_data(event, |data| {
        serde_json::to_vec(&Standard {
            r#type: event.event_type.as_str(),
            timestamp: timestamp(event.occurred_at),
            data,
        })
    })
}

fn kazinex(event: &Event) -> Bytes {
    with_data(event, |data| {
        serde_json::to_vec(&Kazinex {
            event: event.event_type.as_str(),
            organisation_id: event.workspace.as_str(),
            project_id: event.project.as_ref().map(super::ids::ProjectId::as_str),
            timestamp: timestamp(event.occurred_at),
            data,
        })
    })
}

fn cloud_events(event: &Event) -> Bytes {
    Bytes::copy_from_slice(event.envelope.as_bytes())
}

/// The envelope's trace context: 55 characters of hex and dashes (W3C Trace Context §3.2), since it
/// becomes a header.
fn traceparent(event: &Event) -> Option<String> {
    let text = Envelope::parse(&event.envelope).ok()?.traceparent?;
    let fine = text.len() == 55
        && text
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-'));
    fine.then(|| text.into_owned())
}

/// Lends the event's `data` as it was written, key order and number spelling kept.
fn with_data(event: &Event, build: impl Fn(&RawValue) -> serde_json::Result<Vec<u8>>) -> Bytes {
    // The envelope was parsed when it was accepted; text that no longer parses can only come from
    // a database changed by hand, and then `null` is the honest payload.
    let data = Envelope::parse(&event.envelope)
        .ok()
        .and_then(|envelope| envelope.data)
        .unwrap_or(RawValue::NULL);
    Bytes::from(build(data).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::super::ids::new_id;
    use super::*;

    fn payload(text: &str) -> Payload {
        let now = DateTime::from_timestamp_millis(1_777_000_000_000).unwrap();
        Payload::new(Event::decode(text.as_bytes(), new_id(now, [0; 10]), now).unwrap())
    }

    fn text(payload: &Payload, format: BodyFormat) -> String {
        String::from_utf8(payload.body(format).to_vec()).unwrap()
    }

    const EVENT: &str = r#"{"specversion":"1.0","id":"1","source":"s","type":"edition.archived","time":"2026-05-01T09:00:00.5Z",
        "traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","workspaceid":"ws_1","projectid":"pr_1",
        "data":{"z":1.50,"a":[true,null],"big":12345678901234567890}}"#;

    #[test]
    fn the_three_bodies_are_the_documented_ones_and_keep_the_data_as_written() {
        let payload = payload(EVENT);
        let data = r#"{"z":1.50,"a":[true,null],"big":12345678901234567890}"#;
        assert_eq!(
            text(&payload, BodyFormat::Standard),
            format!(
                r#"{{"type":"edition.archived","timestamp":"2026-05-01T09:00:00.500Z","data":{data}}}"#
            )
        );
        assert_eq!(
            text(&payload, BodyFormat::Kazinex),
            format!(
                r#"{{"event":"edition.archived","organisation_id":"ws_1","project_id":"pr_1","timestamp":"2026-05-01T09:00:00.500Z","data":{data}}}"#
            )
        );
        assert_eq!(text(&payload, BodyFormat::CloudEvents), EVENT);
    }

    #[test]
    fn an_event_without_data_or_project_says_null() {
        let payload = payload(
            r#"{"specversion":"1.0","id":"1","source":"s","type":"x","time":"2026-05-01T09:00:00Z"}"#,
        );
        assert_eq!(
            text(&payload, BodyFormat::Kazinex),
            r#"{"event":"x","organisation_id":"default","project_id":null,"timestamp":"2026-05-01T09:00:00Z","data":null}"#
        );
    }

    #[test]
    fn a_body_is_built_once() {
        let payload = payload(EVENT);
        let (first, second) = (
            payload.body(BodyFormat::Standard),
            payload.body(BodyFormat::Standard),
        );
        assert_eq!(first.as_ptr(), second.as_ptr());
    }

    #[test]
    fn only_a_well_formed_traceparent_goes_on() {
        assert!(payload(EVENT).traceparent().is_some());
        let bad = EVENT.replace("00-0af", "00\\r\\n0af");
        assert_eq!(payload(&bad).traceparent(), None);
    }
}
