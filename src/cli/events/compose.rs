//! A message as the core would write it, checked as an arriving one would be.

use std::io::Read;

use anyhow::Context as _;
use serde::Serialize;
use serde_json::value::RawValue;

use super::PublishArgs;
use crate::cli::{CliError, Context};
use crate::domain::catalogue::is_state;
use crate::domain::event::{Event, EventError, MAX_EVENT_BYTES};
use crate::domain::filter::EventType;
use crate::domain::payload::timestamp;
use crate::domain::snapshot::{MAX_SNAPSHOT_BYTES, Snapshot, SnapshotError};
use crate::domain::subscription::FieldError;

/// A message, fit to be published.
pub(super) struct Message {
    pub(super) id: String,
    pub(super) source: String,
    pub(super) event_type: EventType,
    /// The envelope's text.
    pub(super) text: Vec<u8>,
    pub(super) holds: Content,
}

/// What it holds.
pub(super) enum Content {
    Event(Box<Event>),
    State(Box<Snapshot>),
}

/// The envelope as it is sent (CloudEvents 1.0).
#[derive(Serialize)]
struct Envelope<'a> {
    specversion: &'static str,
    id: &'a str,
    source: &'a str,
    r#type: &'a str,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    workspaceid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    projectid: Option<&'a str>,
    data: &'a RawValue,
}

/// Builds the message and checks it, before anything is sent.
pub(super) fn compose(args: &PublishArgs, context: &Context) -> Result<Message, CliError> {
    let now = context.clock.now();
    let new_id = || {
        uuid::Builder::from_random_bytes(context.entropy.bytes())
            .into_uuid()
            .to_string()
    };
    let event_type = EventType::new(&args.event_type)
        .map_err(|error| FieldError::new("type", error.to_string()))?;
    let is_state = is_state(&event_type);
    let most = if is_state {
        MAX_SNAPSHOT_BYTES
    } else {
        MAX_EVENT_BYTES
    };
    let data = RawValue::from_string(read_data(&args.data, most)?)
        .map_err(|error| FieldError::new("data", format!("is not JSON: {error}")))?;
    let workspace = args.workspace.id()?;
    let id = args.id.clone().unwrap_or_else(new_id);
    let envelope = Envelope {
        specversion: "1.0",
        id: &id,
        source: &args.source,
        r#type: event_type.as_str(),
        time: timestamp(now),
        subject: args.subject.as_deref(),
        workspaceid: workspace.as_str(),
        projectid: args.project.as_deref(),
        data: &data,
    };
    let text = serde_json::to_vec(&envelope).context("writing the message")?;
    let holds = if is_state {
        let snapshot = Snapshot::decode(&text, now).map_err(named_state)?;
        Content::State(Box::new(snapshot))
    } else {
        let event = Event::decode(&text, context.entropy.id(now), now).map_err(named)?;
        Content::Event(Box::new(event))
    };
    Ok(Message {
        id,
        source: args.source.clone(),
        event_type,
        text,
        holds,
    })
}

/// The data as it was given, or out of a file; `most` bytes of it.
fn read_data(argument: &str, most: usize) -> Result<String, FieldError> {
    let wrong = |reason: String| FieldError::new("data", reason);
    let Some(path) = argument.strip_prefix('@') else {
        return Ok(argument.to_owned());
    };
    let mut text = String::new();
    // One byte more than there may be tells that there is too much.
    let limit = most as u64 + 1;
    let read = match path {
        "-" => std::io::stdin()
            .lock()
            .take(limit)
            .read_to_string(&mut text),
        path => {
            std::fs::File::open(path).and_then(|file| file.take(limit).read_to_string(&mut text))
        }
    };
    read.map_err(|error| wrong(format!("{path}: {error}")))?;
    if text.len() > most {
        return Err(wrong(format!("has more than {most} bytes")));
    }
    Ok(text)
}

/// The field that breaks a rule, as the command line names it.
fn named(error: EventError) -> FieldError {
    match error {
        EventError::Attribute { attribute, reason } => FieldError::new(attribute, reason),
        EventError::Data(error) => match error.path.strip_prefix("data.") {
            Some(member) => FieldError::new("data", format!("`{member}`: {}", error.reason)),
            None => FieldError::new("data", error.reason),
        },
        other => FieldError::new("event", other.to_string()),
    }
}

/// The same of a snapshot.
fn named_state(error: SnapshotError) -> FieldError {
    match error {
        SnapshotError::Envelope(error) => named(error),
        SnapshotError::Data(error) => named(EventError::Data(error)),
        other => FieldError::new("snapshot", other.to_string()),
    }
}
