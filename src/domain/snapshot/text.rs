//! The small parts that the data of snapshots is made of, each with its bound.

use chrono::{DateTime, Utc};
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::super::attributes::rfc3339;
use super::super::edition::EditionStatus;
use super::super::envelope;
use super::super::output::{OutputFormat, OutputStatus};
use super::super::values::Values;

/// The longest name of a section, a field or an output, in bytes: names stand in addresses.
const MAX_NAME_BYTES: usize = 255;

/// The most bytes of a workspace's settings.
const MAX_SETTINGS_BYTES: usize = 256 * 1024;

/// A text of at most `MAX` characters, none of them NUL.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Text<const MAX: usize>(pub(super) String);

impl<const MAX: usize> TryFrom<String> for Text<MAX> {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        // Bytes first: they are counted already.
        if text.len() > MAX && text.chars().count() > MAX {
            return Err(format!("must be at most {MAX} characters"));
        }
        if text.contains('\0') {
            return Err("must not hold NUL".to_owned());
        }
        Ok(Self(text))
    }
}

/// A line that a person reads: a title, a label, an option.
pub(super) type Line = Text<500>;

/// What something is called in addresses and data: not empty, bounded, no control character.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Name(pub(super) String);

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.is_empty() || text.len() > MAX_NAME_BYTES || text.chars().any(char::is_control) {
            return Err(format!(
                "must be 1 to {MAX_NAME_BYTES} bytes, none of them a control character"
            ));
        }
        Ok(Self(text))
    }
}

/// A list of at most `MAX` parts.
#[derive(Deserialize)]
#[serde(try_from = "Vec<T>", bound(deserialize = "T: Deserialize<'de>"))]
pub(super) struct List<T, const MAX: usize>(pub(super) Vec<T>);

impl<T, const MAX: usize> TryFrom<Vec<T>> for List<T, MAX> {
    type Error = String;

    fn try_from(parts: Vec<T>) -> Result<Self, String> {
        if parts.len() > MAX {
            return Err(format!("must be at most {MAX}, not {}", parts.len()));
        }
        Ok(Self(parts))
    }
}

impl<T, const MAX: usize> Default for List<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// A version: it only grows.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "i64")]
pub(super) struct Version(pub(super) i64);

impl TryFrom<i64> for Version {
    type Error = &'static str;

    fn try_from(version: i64) -> Result<Self, &'static str> {
        match version {
            0.. => Ok(Self(version)),
            _ => Err("must not be negative"),
        }
    }
}

/// An instant of RFC 3339, kept in whole milliseconds.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Time(pub(super) DateTime<Utc>);

impl TryFrom<String> for Time {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        rfc3339(&text)
            .map(Self)
            .ok_or("must be a timestamp of RFC 3339")
    }
}

/// How many bytes a file has; both databases keep 63 bits.
#[derive(Deserialize)]
#[serde(try_from = "i64")]
pub(super) struct Size(pub(super) u64);

impl TryFrom<i64> for Size {
    type Error = &'static str;

    fn try_from(size: i64) -> Result<Self, &'static str> {
        u64::try_from(size)
            .map(Self)
            .map_err(|_| "must not be negative")
    }
}

/// A SHA-256 in hexadecimal, kept in small letters.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Digest(pub(super) String);

impl TryFrom<String> for Digest {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err("must be the 64 hexadecimal digits of a SHA-256");
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

/// The word for an edition's status.
pub(super) fn edition_status<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<EditionStatus, D::Error> {
    word(
        deserializer,
        EditionStatus::parse,
        "must be 1 to 64 of a to z, digits and `_`",
    )
}

/// The word for an output's format.
pub(super) fn output_format<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<OutputFormat, D::Error> {
    word(
        deserializer,
        OutputFormat::parse,
        "must be 1 to 32 of a to z, digits, `_` and `-`",
    )
}

/// The word for an output's status.
pub(super) fn output_status<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<OutputStatus, D::Error> {
    word(
        deserializer,
        OutputStatus::parse,
        "must be one of not_generated, queued, generating, generated, failed",
    )
}

fn word<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    parse: fn(&str) -> Option<T>,
    rule: &str,
) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).ok_or_else(|| D::Error::custom(rule))
}

/// A workspace's settings: an object of the core's own, `{}` where it tells none.
pub(super) fn settings(told: Option<&RawValue>) -> Result<Box<RawValue>, String> {
    let values = match told {
        Some(told) if told.get().len() > MAX_SETTINGS_BYTES => {
            return Err(format!("must be at most {MAX_SETTINGS_BYTES} bytes"));
        }
        Some(told) => Values::parse(told.get()).map_err(|error| envelope::reason(&error))?,
        None => Values::default(),
    };
    RawValue::from_string(values.as_str().to_owned()).map_err(|error| envelope::reason(&error))
}
