//! An event as it is kept: the envelope's text, and beside it what we read out of it.

use std::borrow::Cow;

use chrono::{DateTime, SubsecRound, Utc};
use serde::Deserialize;

use super::attributes::{Attributes, rfc3339};
use super::catalogue::{self, DataError};
use super::filter::EventType;
use super::ids::{EditionId, EventId, ProjectId, WorkspaceId};
use super::payload::Reading;

/// The largest event that is accepted, in bytes (product.md §3).
pub const MAX_EVENT_BYTES: usize = 1024 * 1024;

/// The longest `id` and `source`, in bytes: both go into an index key.
pub const MAX_IDENTITY_BYTES: usize = 512;

/// One accepted event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Our id, the `webhook-id`.
    pub id: EventId,
    /// The tenant it belongs to.
    pub workspace: WorkspaceId,
    /// The envelope's `source`; with `external_id` it identifies the event.
    pub source: String,
    /// The envelope's `id`.
    pub external_id: String,
    /// What happened.
    pub event_type: EventType,
    /// The project it is about; `None` matches no project filter.
    pub project: Option<ProjectId>,
    /// The edition it is about.
    pub edition: Option<EditionId>,
    /// When it happened, in whole milliseconds (what both databases keep).
    pub occurred_at: DateTime<Utc>,
    /// The envelope as it arrived, byte for byte; a `traceparent` that came in the message's header and
    /// not in it stands before its first member.
    pub envelope: Box<str>,
}

/// Why a message is no event that we can use. The text is the dead letter's reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// Over [`MAX_EVENT_BYTES`].
    #[error("the event has {0} bytes, more than {MAX_EVENT_BYTES}")]
    TooLarge(usize),
    /// Not UTF-8, and so not JSON.
    #[error("not JSON: not UTF-8")]
    NotUtf8,
    /// Not JSON at all.
    #[error("not JSON: {0}")]
    NotJson(String),
    /// JSON, but no CloudEvents envelope.
    #[error("not a CloudEvent: {0}")]
    NotCloudEvent(String),
    /// An attribute breaks its rule.
    #[error("`{attribute}`: {reason}")]
    Attribute {
        /// The attribute's name in the envelope.
        attribute: &'static str,
        /// The rule it breaks.
        reason: String,
    },
    /// A known type whose data lacks something.
    #[error("data of a known type: {0}")]
    Data(#[from] DataError),
    /// State, which belongs on the snapshots exchange.
    #[error("`type`: snapshots and deletions belong on the snapshots exchange")]
    State,
}

impl EventError {
    pub(super) fn attribute(attribute: &'static str, reason: impl Into<String>) -> Self {
        Self::Attribute {
            attribute,
            reason: reason.into(),
        }
    }
}

/// Members of `data` that attribution looks at; each may be absent or of another type.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Attribution<'a> {
    #[serde(borrow)]
    project_id: Option<Loose<'a>>,
    #[serde(borrow)]
    edition_id: Option<Loose<'a>>,
    #[serde(borrow)]
    timestamp: Option<Loose<'a>>,
}

/// A string, or anything else, which is then ignored: unknown types owe us no form.
#[derive(Deserialize)]
#[serde(untagged)]
enum Loose<'a> {
    Text(#[serde(borrow)] Cow<'a, str>),
    Other(serde::de::IgnoredAny),
}

impl Loose<'_> {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Other(_) => None,
        }
    }
}

impl Event {
    /// Reads an event out of the text that arrived. `id` and `accepted_at` are given; the event
    /// time is the envelope's `time`, else `data.timestamp`, else `accepted_at`.
    pub fn decode(
        bytes: &[u8],
        id: EventId,
        accepted_at: DateTime<Utc>,
    ) -> Result<Self, EventError> {
        Self::read(bytes, id, accepted_at).map(|(event, _)| event)
    }

    /// The same, with what sending needs of the text.
    pub(super) fn read(
        bytes: &[u8],
        id: EventId,
        accepted_at: DateTime<Utc>,
    ) -> Result<(Self, Reading), EventError> {
        if bytes.len() > MAX_EVENT_BYTES {
            return Err(EventError::TooLarge(bytes.len()));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| EventError::NotUtf8)?;
        let told = Attributes::read(text)?;
        if catalogue::is_state(&told.event_type) {
            return Err(EventError::State);
        }
        let data = told.envelope.data_text();
        catalogue::check_data(&told.event_type, data)?;

        let about: Attribution<'_> = serde_json::from_str(data).unwrap_or_default();
        let (data_project, data_edition, data_time) = (
            about.project_id.as_ref().and_then(Loose::text),
            about.edition_id.as_ref().and_then(Loose::text),
            about.timestamp.as_ref().and_then(Loose::text),
        );
        // What the envelope says must be right; what `data` says is taken where it can be.
        let project = told
            .project
            .or_else(|| data_project.and_then(|text| ProjectId::new(text).ok()));
        let edition = data_edition
            .or(told.envelope.subject.as_deref())
            .and_then(|text| EditionId::new(text).ok());
        let occurred_at = told.time.or_else(|| data_time.and_then(rfc3339));
        let event = Self {
            id,
            workspace: told.workspace,
            source: told.source,
            external_id: told.external_id,
            event_type: told.event_type,
            project,
            edition,
            occurred_at: occurred_at.unwrap_or(accepted_at).trunc_subsecs(3),
            envelope: Box::from(text),
        };
        Ok((event, Reading::of(&told.envelope, text)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::ids::new_id;
    use super::*;

    fn accepted_at() -> DateTime<Utc> {
        DateTime::from_timestamp_millis(1_777_000_000_000).unwrap()
    }

    fn decode(text: &str) -> Result<Event, EventError> {
        Event::decode(
            text.as_bytes(),
            new_id(accepted_at(), [0; 10]),
            accepted_at(),
        )
    }

    fn reason(text: &str) -> String {
        decode(text).unwrap_err().to_string()
    }

    const SUBMITTED: &str = r#"{"specversion":"1.0","id":"1","source":"/report-forge","type":"edition.submitted",
        "time":"2026-05-01T11:00:00.1239+02:00","subject":"ed_9","workspaceid":"ws_1","projectid":"pr_1","unknown":{"z":1},
        "data":{"edition_id":"ed_123","blueprint_id":"b","project_id":"pr_2","timestamp":"2026-05-01T09:00:00Z"}}"#;

    #[test]
    fn an_event_is_read_and_its_text_kept() {
        let event = decode(SUBMITTED).unwrap();
        assert_eq!(event.workspace.as_str(), "ws_1");
        assert_eq!(
            event.project.unwrap().as_str(),
            "pr_1",
            "the envelope's project wins"
        );
        assert_eq!(
            event.edition.unwrap().as_str(),
            "ed_123",
            "the data's edition wins"
        );
        assert_eq!(
            event.occurred_at.to_rfc3339(),
            "2026-05-01T09:00:00.123+00:00"
        );
        assert_eq!(&*event.envelope, SUBMITTED);
    }

    #[test]
    fn what_the_envelope_leaves_out_comes_from_the_data_and_then_from_defaults() {
        let event = decode(r#"{"specversion":"1.0","id":"1","source":"s","type":"edition.archived","subject":"ed_9",
            "data":{"project_id":"pr_2","timestamp":"2026-05-01T09:00:00Z"}}"#).unwrap();
        assert_eq!(event.workspace, WorkspaceId::default());
        assert_eq!(event.project.unwrap().as_str(), "pr_2");
        assert_eq!(event.edition.unwrap().as_str(), "ed_9");
        assert_eq!(event.occurred_at.to_rfc3339(), "2026-05-01T09:00:00+00:00");

        let bare = decode(r#"{"specversion":"1.0","id":"1","source":"s","type":"x"}"#).unwrap();
        assert_eq!(bare.occurred_at, accepted_at());
        assert_eq!((bare.project, bare.edition), (None, None));
    }

    #[test]
    fn data_of_an_unknown_type_owes_us_no_form() {
        for data in [
            "7",
            "[1]",
            "\"text\"",
            r#"{"project_id":7,"edition_id":null}"#,
            r#"{"a":"\ud800 \u0000"}"#,
        ] {
            let text = format!(
                r#"{{"specversion":"1.0","id":"1","source":"s","type":"x.y","data":{data}}}"#
            );
            let event = decode(&text).unwrap_or_else(|error| panic!("{data}: {error}"));
            assert_eq!(event.project, None);
        }
    }

    #[test]
    fn each_fault_is_told_with_the_attribute_it_is_in() {
        assert!(reason("{").starts_with("not JSON"));
        assert!(reason("not json").starts_with("not JSON"));
        let array = r#"["1.0","1","s","x",null,null,null,null,null,{"a":1},null]"#;
        assert_eq!(
            reason(array),
            "not a CloudEvent: invalid type: sequence, expected an object"
        );
        assert!(reason("{}").contains("missing field `specversion`"));
        let with = |from: &str, to: &str| reason(&SUBMITTED.replace(from, to));
        assert!(with("\"1.0\"", "\"0.3\"").starts_with("`specversion`"));
        assert!(with("\"id\":\"1\"", "\"id\":\"\"").starts_with("`id`"));
        assert!(with("\"id\":\"1\"", "\"id\":1").contains("`id`"));
        assert!(with("\"id\":\"1\"", "\"id\":\"a\\u0000\"").starts_with("`id`"));
        assert!(with("\"id\":\"1\"", "\"id\":\"1\",\"id\":\"2\"").contains("duplicate field `id`"));
        assert!(with("/report-forge", &"s".repeat(513)).starts_with("`source`"));
        assert!(with("edition.submitted", "Edition!").starts_with("`type`"));
        assert!(with("edition.submitted", "edition.snapshot").contains("snapshots exchange"));
        assert!(with("2026-05-01T11:00:00.1239+02:00", "noon").starts_with("`time`"));
        assert!(with("ws_1", "").starts_with("`workspaceid`"));
        assert!(with("pr_1", "a\\u0001").starts_with("`projectid`"));
        assert!(with("\"edition_id\":\"ed_123\",", "").contains("`edition_id`"));
        assert!(
            with("\"data\":", "\"data_base64\":\"AA==\",\"data\":").starts_with("`data_base64`")
        );
        assert!(reason(&format!("{SUBMITTED} {{}}")).starts_with("not JSON"));
    }

    #[test]
    fn an_event_over_the_limit_is_refused_before_it_is_read() {
        let huge = vec![b' '; MAX_EVENT_BYTES + 1];
        let error =
            Event::decode(&huge, new_id(accepted_at(), [0; 10]), accepted_at()).unwrap_err();
        assert_eq!(error, EventError::TooLarge(MAX_EVENT_BYTES + 1));
    }

    proptest! {
        #[test]
        fn decoding_junk_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            drop(Event::decode(&bytes, new_id(accepted_at(), [0; 10]), accepted_at()));
        }

        #[test]
        fn any_text_as_id_and_source_is_kept_or_refused_by_name(id in ".{0,600}", source in ".{0,20}") {
            let text = serde_json::json!({"specversion":"1.0","id":id,"source":source,"type":"x"}).to_string();
            match decode(&text) {
                Ok(event) => prop_assert_eq!((event.external_id, event.source), (id, source)),
                Err(EventError::Attribute { attribute, .. }) => prop_assert!(matches!(attribute, "id" | "source")),
                Err(other) => prop_assert!(false, "{}", other),
            }
        }
    }
}
