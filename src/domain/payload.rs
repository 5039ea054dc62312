//! The bodies that go out: built once per event and format, shared by all its deliveries.

use std::ops::Range;
use std::sync::OnceLock;

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use super::envelope::Envelope;
use super::event::{Event, EventError};
use super::ids::{EventId, ProjectId};
use super::subscription::BodyFormat;

/// An event and the bodies made of it so far.
#[derive(Debug)]
pub struct Payload {
    event: Event,
    reading: OnceLock<Reading>,
    standard: OnceLock<Bytes>,
    kazinex: OnceLock<Bytes>,
    cloud_events: OnceLock<Bytes>,
}

/// What sending needs of the envelope's text beside the event: read once.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    /// Where `data` stands in the text; `None` where there is none.
    data: Option<Range<usize>>,
    traceparent: Option<Box<str>>,
}

impl Reading {
    /// Of an envelope that was parsed out of this very text.
    pub(super) fn of(envelope: &Envelope<'_>, text: &str) -> Self {
        let traceparent = envelope.traceparent.as_deref();
        Self {
            data: envelope.data.and_then(|data| place(data.get(), text)),
            traceparent: traceparent
                .filter(|text| is_traceparent(text))
                .map(Box::from),
        }
    }
}

/// Where a part of a text stands in it.
fn place(part: &str, text: &str) -> Option<Range<usize>> {
    let start = part.as_ptr().addr().checked_sub(text.as_ptr().addr())?;
    let place = start..start + part.len();
    text.get(place.clone())?;
    Some(place)
}

/// The form of W3C trace context: 55 characters of hex and dashes (W3C Trace Context §3.2), since it
/// becomes a header.
fn is_traceparent(text: &str) -> bool {
    text.len() == 55
        && text
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-'))
}

/// Everything of the `standard` body but `data`, which comes last.
#[derive(Serialize)]
struct Standard<'a> {
    r#type: &'a str,
    timestamp: String,
}

/// Everything of the `kazinex` body but `data`, which comes last.
#[derive(Serialize)]
struct Kazinex<'a> {
    event: &'a str,
    organisation_id: &'a str,
    project_id: Option<&'a str>,
    timestamp: String,
}

impl Payload {
    /// Nothing is built until a delivery asks for it.
    pub fn new(event: Event) -> Self {
        Self {
            event,
            reading: OnceLock::new(),
            standard: OnceLock::new(),
            kazinex: OnceLock::new(),
            cloud_events: OnceLock::new(),
        }
    }

    /// Reads an event out of the text that arrived, as [`Event::decode`] does, and keeps what was
    /// found on the way.
    pub fn decode(
        bytes: &[u8],
        id: EventId,
        accepted_at: DateTime<Utc>,
    ) -> Result<Self, EventError> {
        let (event, reading) = Event::read(bytes, id, accepted_at)?;
        Ok(Self {
            reading: OnceLock::from(reading),
            ..Self::new(event)
        })
    }

    /// The same event as a member of this trace, where its envelope names none: as if it had come with
    /// the extension, so that every copy of it that is sent, now or after a restart, tells of the trace.
    /// `None` where it names one, if only an unusable one, or would become too large.
    #[must_use]
    pub fn in_trace(&self, traceparent: &str, accepted_at: DateTime<Utc>) -> Option<Self> {
        if self.traceparent().is_some() || !is_traceparent(traceparent) {
            return None;
        }
        let (_, members) = self.event.envelope.split_once('{')?;
        let text = format!(r#"{{"traceparent":"{traceparent}",{members}"#);
        Self::decode(text.as_bytes(), self.event.id, accepted_at).ok()
    }

    /// The same event, now known to be of this project; its bodies are made anew.
    #[must_use]
    pub fn of_project(&self, project: &ProjectId) -> Self {
        Self {
            reading: self.reading.clone(),
            ..Self::new(Event {
                project: Some(project.clone()),
                ..self.event.clone()
            })
        }
    }

    /// The event itself.
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// The exact bytes to sign and to send.
    pub fn body(&self, format: BodyFormat) -> Bytes {
        let (cell, build): (_, fn(&Self) -> Bytes) = match format {
            BodyFormat::Standard => (&self.standard, Self::standard),
            BodyFormat::Kazinex => (&self.kazinex, Self::kazinex),
            BodyFormat::CloudEvents => (&self.cloud_events, Self::envelope),
        };
        cell.get_or_init(|| build(self)).clone()
    }

    /// W3C trace context that the event came with, where it is of the right form.
    pub fn traceparent(&self) -> Option<&str> {
        self.reading().traceparent.as_deref()
    }

    fn reading(&self) -> &Reading {
        // The envelope was parsed when it was accepted; text that no longer parses can only come
        // from a database changed by hand, and then there is nothing in it.
        self.reading.get_or_init(|| {
            let text = &self.event.envelope;
            Envelope::parse(text)
                .map(|envelope| Reading::of(&envelope, text))
                .unwrap_or_default()
        })
    }

    /// The event's `data` as it was written, key order and number spelling kept; `null` where it has
    /// none.
    pub fn data(&self) -> &str {
        let place = self.reading().data.clone();
        place
            .and_then(|place| self.event.envelope.get(place))
            .unwrap_or("null")
    }

    fn standard(&self) -> Bytes {
        let event = &self.event;
        let head = Standard {
            r#type: event.event_type.as_str(),
            timestamp: timestamp(event.occurred_at),
        };
        self.with_data(&head)
    }

    fn kazinex(&self) -> Bytes {
        let event = &self.event;
        let head = Kazinex {
            event: event.event_type.as_str(),
            organisation_id: event.workspace.as_str(),
            project_id: event.project.as_ref().map(ProjectId::as_str),
            timestamp: timestamp(event.occurred_at),
        };
        self.with_data(&head)
    }

    fn envelope(&self) -> Bytes {
        Bytes::copy_from_slice(self.event.envelope.as_bytes())
    }

    /// The members of `head`, and behind them `data` as it is: it was read as JSON before, and is
    /// not read again.
    fn with_data(&self, head: &impl Serialize) -> Bytes {
        let data = self.data();
        let mut body = Vec::with_capacity(256 + data.len());
        // Plain strings are always written, and into memory always whole.
        if serde_json::to_writer(&mut body, head).is_err() {
            body.truncate(0);
            body.extend_from_slice(b"{}");
        }
        body.pop();
        body.extend_from_slice(br#","data":"#);
        body.extend_from_slice(data.as_bytes());
        body.push(b'}');
        Bytes::from(body)
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

    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn an_event_without_a_trace_can_be_given_one_and_is_else_the_same() {
        let plain = r#" {"specversion":"1.0","id":"1","source":"s","type":"x","time":"2026-05-01T09:00:00Z","data":{"a":"{"}}"#;
        let plain = payload(plain);
        let traced = plain.in_trace(TRACE, DateTime::UNIX_EPOCH).unwrap();
        assert_eq!(traced.traceparent(), Some(TRACE));
        let Event { envelope, .. } = traced.event().clone();
        let same = Event {
            envelope: plain.event().envelope.clone(),
            ..traced.event().clone()
        };
        assert_eq!(&same, plain.event());
        for format in [BodyFormat::Standard, BodyFormat::Kazinex] {
            assert_eq!(text(&traced, format), text(&plain, format));
        }
        let members: serde_json::Value = serde_json::from_str(&envelope).unwrap();
        assert_eq!(members["traceparent"], TRACE);
    }

    #[test]
    fn a_trace_of_its_own_stays_if_only_an_unusable_one() {
        let bad = EVENT.replace("00-0af", "zz-0af");
        for text in [EVENT, &bad] {
            assert!(
                payload(text)
                    .in_trace(TRACE, DateTime::UNIX_EPOCH)
                    .is_none()
            );
        }
        let plain = payload(r#"{"specversion":"1.0","id":"1","source":"s","type":"x"}"#);
        assert!(
            plain
                .in_trace(
                    "no trace
",
                    DateTime::UNIX_EPOCH
                )
                .is_none()
        );
    }
}
