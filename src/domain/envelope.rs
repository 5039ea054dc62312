//! The CloudEvents 1.0 envelope (JSON, structured mode) as it arrives, read without copying.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// The members of an envelope that this program looks at. Others (extensions) are left in the
/// text, which is what is kept and sent on.
///
/// A member given twice is an error: two readers could otherwise see two different events.
#[derive(Debug, Deserialize)]
pub struct Envelope<'a> {
    /// The version of CloudEvents; only `1.0` is known.
    #[serde(borrow)]
    pub specversion: Cow<'a, str>,
    /// With `source`, what identifies the event.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// Who made the event; a URI reference.
    #[serde(borrow)]
    pub source: Cow<'a, str>,
    /// The event type.
    #[serde(borrow, rename = "type")]
    pub event_type: Cow<'a, str>,
    /// When it happened (RFC 3339).
    #[serde(borrow, default)]
    pub time: Option<Cow<'a, str>>,
    /// What it is about: the edition, where `data.edition_id` does not say.
    #[serde(borrow, default)]
    pub subject: Option<Cow<'a, str>>,
    /// Extension: the workspace.
    #[serde(borrow, default)]
    pub workspaceid: Option<Cow<'a, str>>,
    /// Extension: the project.
    #[serde(borrow, default)]
    pub projectid: Option<Cow<'a, str>>,
    /// Extension "distributed tracing": W3C trace context.
    #[serde(borrow, default)]
    pub traceparent: Option<Cow<'a, str>>,
    /// The payload, as it was written.
    #[serde(borrow, default)]
    pub data: Option<&'a RawValue>,
    /// A binary payload, which this program does not take.
    #[serde(default)]
    pub data_base64: Option<IgnoredAny>,
}

/// Why a text is no envelope, and in which member.
#[derive(Debug, thiserror::Error)]
#[error("`{path}`: {source}")]
pub struct EnvelopeError {
    /// The member, `.` for the text as a whole.
    pub path: String,
    /// What the JSON reader says.
    pub source: serde_json::Error,
}

/// A struct read from a JSON object and from nothing else: what is derived would take an array too.
#[derive(Debug)]
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

impl<'a> Envelope<'a> {
    /// Reads an envelope out of JSON text.
    pub fn parse(text: &'a str) -> Result<Self, EnvelopeError> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let Object(envelope) =
            serde_path_to_error::deserialize(&mut deserializer).map_err(|error| EnvelopeError {
                path: error.path().to_string(),
                source: error.into_inner(),
            })?;
        // Anything behind the object would travel along unread.
        match deserializer.end() {
            Ok(()) => Ok(envelope),
            Err(source) => Err(EnvelopeError {
                path: ".".to_owned(),
                source,
            }),
        }
    }

    /// The payload's text, `null` where the event has none.
    pub fn data_text(&self) -> &'a str {
        self.data.map_or("null", RawValue::get)
    }
}

/// What the JSON reader says, for dead letters and logs: without the line and column, which beside a
/// path only confuse, and without the text that it found, which is a customer's and may be long.
pub(super) fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.rfind(" at line ").map_or(&*text, |end| &text[..end]);
    let found = text.split_once("string \"");
    match found.and_then(|(before, rest)| Some((before, rest.rsplit_once("\", expected ")?.1))) {
        Some((before, expected)) => format!("{before}string, expected {expected}"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_quotes_nothing_of_what_was_found() {
        let of = |text| reason(&serde_json::from_str::<u8>(text).unwrap_err());
        assert_eq!(of("true"), "invalid type: boolean `true`, expected u8");
        for found in [r#""s3cret""#, r#""s3\", expected cret""#] {
            assert_eq!(of(found), "invalid type: string, expected u8");
        }
        assert_eq!(of("{"), "invalid type: map, expected u8");
        assert_eq!(of(""), "EOF while parsing a value");
    }
}
