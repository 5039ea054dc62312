//! The event types that Report Forge documents, and what their data must hold (product.md §3).
//!
//! Any other well-formed type passes unvalidated, so that the core can add types without a
//! release of this program.

use chrono::{DateTime, FixedOffset};
use serde::Deserialize;

use super::envelope::{self, Object};
use super::filter::EventType;
use super::snapshot::EntityKind;

/// What is wrong with the data of a known type: the path of the member and the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}`: {reason}")]
pub struct DataError {
    /// Where, from the envelope's root: `data.approved_by.id`.
    pub path: String,
    /// What is wrong there.
    pub reason: String,
}

/// `edition.submitted`
#[derive(Debug, Deserialize)]
#[expect(
    dead_code,
    reason = "read for their presence and type; the text itself is what is kept"
)]
struct EditionSubmitted {
    edition_id: String,
    blueprint_id: String,
    project_id: String,
    timestamp: DateTime<FixedOffset>,
}

/// `edition.approved`
#[derive(Debug, Deserialize)]
#[expect(
    dead_code,
    reason = "read for their presence and type; the text itself is what is kept"
)]
struct EditionApproved {
    edition_id: String,
    approved_by: Object<Approver>,
    timestamp: DateTime<FixedOffset>,
}

/// Who approved an edition.
#[derive(Debug, Deserialize)]
#[expect(
    dead_code,
    reason = "read for their presence and type; the text itself is what is kept"
)]
struct Approver {
    id: String,
    name: String,
}

/// `edition.changes_requested`
#[derive(Debug, Deserialize)]
#[expect(
    dead_code,
    reason = "read for their presence and type; the text itself is what is kept"
)]
struct EditionChangesRequested {
    edition_id: String,
    comment_count: u64,
    timestamp: DateTime<FixedOffset>,
}

/// `output.generated`
#[derive(Debug, Deserialize)]
#[expect(
    dead_code,
    reason = "read for their presence and type; the text itself is what is kept"
)]
struct OutputGenerated {
    edition_id: String,
    output_id: String,
    format: String,
    download_url: String,
}

/// The documented webhook event types.
pub const KNOWN_TYPES: [&str; 4] = [
    "edition.submitted",
    "edition.approved",
    "edition.changes_requested",
    "output.generated",
];

/// Checks the data of a known type; of an unknown one there is nothing to say.
pub fn check_data(event_type: &EventType, data: &str) -> Result<(), DataError> {
    match event_type.as_str() {
        "edition.submitted" => holds::<EditionSubmitted>(data),
        "edition.approved" => holds::<EditionApproved>(data),
        "edition.changes_requested" => holds::<EditionChangesRequested>(data),
        "output.generated" => holds::<OutputGenerated>(data),
        _ => Ok(()),
    }
}

/// Whether a type carries state for the read model (`edition.snapshot`, `project.deleted`).
/// Such messages belong on the snapshots exchange and are never sent to subscribers.
pub fn is_state(event_type: &EventType) -> bool {
    event_type
        .as_str()
        .split_once('.')
        .is_some_and(|(entity, what)| {
            EntityKind::parse(entity).is_some() && matches!(what, "snapshot" | "deleted")
        })
}

/// Whether the JSON text has the members of `T`, by name and type; more are welcome.
fn holds<'de, T: Deserialize<'de>>(data: &'de str) -> Result<(), DataError> {
    let mut deserializer = serde_json::Deserializer::from_str(data);
    match serde_path_to_error::deserialize::<_, Object<T>>(&mut deserializer) {
        Ok(_) => Ok(()),
        Err(error) => {
            let path = match error.path().to_string() {
                path if path == "." => "data".to_owned(),
                path => format!("data.{path}"),
            };
            let reason = envelope::reason(error.inner());
            Err(DataError { path, reason })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(event_type: &str, data: &str) -> Result<(), DataError> {
        check_data(&EventType::new(event_type).unwrap(), data)
    }

    #[test]
    fn each_known_type_is_taken_when_it_holds_what_it_must_and_more() {
        let at = "2026-05-01T09:00:00Z";
        let good = [
            (
                "edition.submitted",
                format!(
                    r#"{{"edition_id":"e","blueprint_id":"b","project_id":"p","timestamp":"{at}","extra":1}}"#
                ),
            ),
            (
                "edition.approved",
                format!(
                    r#"{{"edition_id":"e","approved_by":{{"id":"u","name":"N"}},"timestamp":"{at}"}}"#
                ),
            ),
            (
                "edition.changes_requested",
                format!(r#"{{"edition_id":"e","comment_count":3,"timestamp":"{at}"}}"#),
            ),
            (
                "output.generated",
                r#"{"edition_id":"e","output_id":"o","format":"pdf","download_url":"https://x/y"}"#
                    .to_owned(),
            ),
        ];
        assert_eq!(good.len(), KNOWN_TYPES.len());
        for (event_type, data) in good {
            assert_eq!(check(event_type, &data), Ok(()), "{event_type}");
        }
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let missing = check(
            "edition.changes_requested",
            r#"{"edition_id":"e","timestamp":"2026-05-01T09:00:00Z"}"#,
        );
        assert_eq!(
            missing.unwrap_err().to_string(),
            "`data`: missing field `comment_count`"
        );

        let nested = check(
            "edition.approved",
            r#"{"edition_id":"e","approved_by":{"id":7,"name":"N"},"timestamp":"2026-05-01T09:00:00Z"}"#,
        );
        assert_eq!(nested.unwrap_err().path, "data.approved_by.id");

        let time = check(
            "edition.submitted",
            r#"{"edition_id":"e","blueprint_id":"b","project_id":"p","timestamp":"yesterday"}"#,
        );
        assert_eq!(time.unwrap_err().path, "data.timestamp");

        assert!(check("edition.submitted", "null").is_err());
        let array = check("output.generated", r#"["e","o","pdf","https://x/y"]"#);
        assert_eq!(
            array.unwrap_err().to_string(),
            "`data`: invalid type: sequence, expected an object"
        );
        let inside = check(
            "edition.approved",
            r#"{"edition_id":"e","approved_by":["u","N"],"timestamp":"2026-05-01T09:00:00Z"}"#,
        );
        assert_eq!(inside.unwrap_err().path, "data.approved_by");
    }

    #[test]
    fn unknown_types_are_not_looked_into() {
        assert_eq!(check("edition.archived", "[]"), Ok(()));
    }

    #[test]
    fn state_is_told_from_events() {
        let state = |text: &str| is_state(&EventType::new(text).unwrap());
        assert!(state("edition.snapshot") && state("workspace.deleted"));
        assert!(
            !state("edition.submitted")
                && !state("edition.snapshot.taken")
                && !state("user.deleted")
        );
    }
}
