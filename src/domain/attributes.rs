//! The attributes of an envelope, checked: what events and snapshots have in common.

use chrono::{DateTime, SubsecRound, Utc};

use super::envelope::{self, Envelope, EnvelopeError};
use super::event::{EventError, MAX_IDENTITY_BYTES};
use super::filter::{EventType, EventTypeError};
use super::ids::{OpaqueIdError, ProjectId, WorkspaceId};

/// What an envelope says of its message, and the envelope itself.
#[derive(Debug)]
pub(super) struct Attributes<'a> {
    /// The members as they were read.
    pub(super) envelope: Envelope<'a>,
    /// The envelope's `id`.
    pub(super) external_id: String,
    /// The envelope's `source`.
    pub(super) source: String,
    /// The type.
    pub(super) event_type: EventType,
    /// The tenant; the default one where none is named.
    pub(super) workspace: WorkspaceId,
    /// The project that the envelope names.
    pub(super) project: Option<ProjectId>,
    /// The envelope's `time`, in whole milliseconds.
    pub(super) time: Option<DateTime<Utc>>,
}

impl<'a> Attributes<'a> {
    /// Reads the text of a message.
    pub(super) fn read(text: &'a str) -> Result<Self, EventError> {
        let envelope = Envelope::parse(text).map_err(|error| envelope_error(&error))?;
        if envelope.specversion != "1.0" {
            return Err(EventError::attribute("specversion", "must be `1.0`"));
        }
        if envelope.data_base64.is_some() {
            return Err(EventError::attribute(
                "data_base64",
                "binary data is not taken; send JSON in `data`",
            ));
        }
        let external_id = identity("id", &envelope.id)?;
        let source = identity("source", &envelope.source)?;
        let event_type = EventType::new(&envelope.event_type)
            .map_err(|error: EventTypeError| EventError::attribute("type", error.to_string()))?;
        let workspace = match envelope.workspaceid.as_deref() {
            Some(text) => WorkspaceId::new(text).map_err(|error: OpaqueIdError| {
                EventError::attribute("workspaceid", error.to_string())
            })?,
            None => WorkspaceId::default(),
        };
        let project = match envelope.projectid.as_deref() {
            Some(text) => Some(
                ProjectId::new(text)
                    .map_err(|error| EventError::attribute("projectid", error.to_string()))?,
            ),
            None => None,
        };
        let time =
            match envelope.time.as_deref() {
                Some(text) => Some(rfc3339(text).ok_or_else(|| {
                    EventError::attribute("time", "must be a timestamp of RFC 3339")
                })?),
                None => None,
            };
        Ok(Self {
            envelope,
            external_id,
            source,
            event_type,
            workspace,
            project,
            time,
        })
    }
}

/// Checks `id` and `source`: both are needed, bounded, and go into a text column.
fn identity(attribute: &'static str, text: &str) -> Result<String, EventError> {
    if text.is_empty() {
        return Err(EventError::attribute(attribute, "must not be empty"));
    }
    if text.len() > MAX_IDENTITY_BYTES {
        return Err(EventError::attribute(
            attribute,
            format!("must be at most {MAX_IDENTITY_BYTES} bytes"),
        ));
    }
    if text.contains('\0') {
        return Err(EventError::attribute(attribute, "must not hold NUL"));
    }
    Ok(text.to_owned())
}

/// An instant of RFC 3339, in whole milliseconds: what both databases keep.
pub(super) fn rfc3339(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text)
        .ok()
        .map(|time| time.with_timezone(&Utc).trunc_subsecs(3))
}

/// Tells "no JSON" from "JSON, but no envelope", and names the attribute.
fn envelope_error(error: &EnvelopeError) -> EventError {
    if error.source.is_syntax() || error.source.is_eof() {
        return EventError::NotJson(error.source.to_string());
    }
    let reason = envelope::reason(&error.source);
    match error.path.as_str() {
        "." => EventError::NotCloudEvent(reason),
        path => EventError::NotCloudEvent(format!("`{path}`: {reason}")),
    }
}
