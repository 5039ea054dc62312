//! What a write is answered with, and what of that is kept for repeats.

use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::api::etag::Tag;
use crate::api::problem_type::ProblemType;
use crate::api::resources::editions::as_json;
use crate::api::{Problem, Result};
use crate::domain::ids::RowId;
use crate::store::{EditionRecord, StoreError, Written};

/// What was written.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WriteReceipt)]
pub struct Receipt<'a> {
    /// The edition.
    #[schema(example = "ed_1")]
    edition_id: &'a str,
    /// Its version since then. What changes nothing leaves it as it was.
    #[schema(example = 8)]
    edition_version: i64,
    /// The section.
    #[schema(example = "costs")]
    section: &'a str,
    /// The ids of the rows that were sent, in their order; only where rows were put or appended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Vec<String>, required = false, example = json!(["row_01h455vb4pex5vsknk084sn02q"]))]
    row_ids: Option<&'a [RowId]>,
}

impl<'a> Receipt<'a> {
    /// For a write of this section.
    pub(super) fn new(
        record: &'a EditionRecord,
        section: &'a str,
        row_ids: Option<&'a [RowId]>,
    ) -> Self {
        Self {
            edition_id: record.edition.id.as_str(),
            edition_version: record.edition.version,
            section,
            row_ids,
        }
    }
}

/// An answer as it is kept with the key of its request.
#[derive(Serialize)]
struct Kept<'a, Body> {
    edition: &'a str,
    revision: i64,
    body: &'a Body,
}

/// The same, read again.
#[derive(Deserialize)]
struct Found<'a> {
    edition: String,
    revision: i64,
    #[serde(borrow)]
    body: &'a RawValue,
}

/// The text to be kept for this answer.
pub(super) fn keep(record: &EditionRecord, body: &impl Serialize) -> String {
    let kept = Kept {
        edition: record.edition.id.as_str(),
        revision: record.revision,
        body,
    };
    // Texts and numbers: writing them cannot fail.
    serde_json::to_string(&kept).unwrap_or_default()
}

/// An answer, given now or by an earlier request with the same key.
#[derive(Debug)]
pub(super) struct Answer {
    /// The edition that was written.
    pub(super) edition: String,
    tag: Tag,
    body: String,
}

impl Answer {
    /// What a write came to; `None` if it is to be tried again, with what the blueprint is now.
    pub(super) fn of(written: Written) -> Result<Option<Self>> {
        match written {
            Written::Done { answer, version } => Self::read(&answer, version).map(Some),
            Written::BlueprintChanged => Ok(None),
            Written::NotFound => Err(Problem::not_found()),
            Written::NotOpen(status) => {
                let detail = format!(
                    "The edition is `{status}`: only `draft` and `changes_requested` ones take changes."
                );
                Err(Problem::new(ProblemType::EditionNotOpen).detail(detail))
            }
            Written::Invalid(faults) => Err(faults.into()),
            Written::Conflicting => Err(Problem::new(ProblemType::IdempotencyKeyReused)),
            Written::Running => Err(Problem::new(ProblemType::IdempotencyKeyInUse)),
        }
    }

    fn read(kept: &str, version: i64) -> Result<Self> {
        let found: Found<'_> = serde_json::from_str(kept).map_err(StoreError::corrupt)?;
        Ok(Self {
            // That of the edition itself, which `GET /editions/{id}` has.
            tag: Tag::new(version, format_args!("{}-json", found.revision)),
            body: found.body.get().to_owned(),
            edition: found.edition,
        })
    }

    /// To the client.
    pub(super) fn respond(self) -> Response {
        self.tag.on(as_json(self.body))
    }
}
