//! `/v1/editions/{id}/sections/{name}`: what a section of an edition holds; its rows are in
//! [`super::rows`].

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::editions::as_json;
use super::fields::{self, KnownHeader};
use crate::api::auth::Caller;
use crate::api::auth::caller::ReadEditions;
use crate::api::etag::{Known, Tag};
use crate::api::page::{MAX_ANSWER_BYTES, json};
use crate::api::path::SectionOf;
use crate::api::problem_type::ProblemType;
use crate::api::{Api, Problem, Result};
use crate::domain::blueprint::{Section, SectionKind};
use crate::domain::hex::hex;
use crate::domain::reach::Reach;
use crate::domain::values::Values;
use crate::store::{EditionRecord, SectionData, SectionRecord, SectionTag};

/// The resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(show))
}

/// A section of an edition.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EditionSection)]
pub struct View<'a> {
    /// The edition.
    #[schema(example = "ed_1")]
    edition_id: &'a str,
    /// The version of the edition that this is of.
    #[schema(example = 7)]
    edition_version: i64,
    /// The section's name.
    #[schema(example = "summary")]
    name: &'a str,
    /// Whether it is filled once or row by row.
    #[schema(schema_with = fields::section_kinds_schema)]
    kind: &'static str,
    /// What its fields hold, as it was written, for a section that is filled once; null for one that is
    /// filled row by row: its rows are read at `…/rows`.
    #[schema(value_type = Option<Object>, example = json!({"note": "all well", "rate": 1.5}))]
    values: Option<Values>,
}

/// Show a section
///
/// What its fields hold. Of a section that is filled row by row, the rows are at `…/rows`.
#[utoipa::path(
    get, path = "/editions/{id}/sections/{name}", operation_id = "getSection", tag = "Editions",
    params(fields::SectionPath, KnownHeader),
    responses(
        (status = 200, description = "The section.", body = View, headers(("ETag" = String, description = "The edition's version, and what tells this answer from others of it."))),
        (status = 304, description = "It is as `If-None-Match` says."),
    ),
    security(("api_key" = ["read:editions"])),
)]
async fn show(
    State(api): State<Api>,
    caller: Caller<ReadEditions>,
    section: SectionOf,
    known: Known,
) -> Result<Response> {
    let reach = caller.reach();
    let variant = variant("json", &[&section.name]);
    if let Some(same) = same(&api, &reach, &section, &known, &variant).await? {
        return Ok(same);
    }
    let found = api
        .store()
        .section(&reach, &section.edition, &section.name)
        .await?;
    let SectionRecord { edition, data } = found.ok_or_else(Problem::not_found)?;
    let defined = Defined::of(&api, &reach, &edition, &section.name).await?;
    let kind = defined.kind(&data).ok_or_else(Problem::not_found)?;
    let body = json(&View {
        edition_id: edition.edition.id.as_str(),
        edition_version: edition.edition.version,
        name: &section.name,
        kind: kind.as_str(),
        values: match (kind, data) {
            (SectionKind::Repeating, _) => None,
            (SectionKind::Single, SectionData::Single(values)) => Some(values),
            (SectionKind::Single, _) => Some(Values::default()),
        },
    })?;
    if body.len() > MAX_ANSWER_BYTES {
        return Err(Problem::new(ProblemType::ResponseTooLarge)
            .detail("This section holds more than an answer can: 10 MB (10,000,000 bytes)."));
    }
    Ok(known.or(tag(defined.tag(&edition), &variant), as_json(body)))
}

/// What a blueprint says of a section.
#[derive(Debug)]
pub(super) struct Defined {
    /// The blueprint's version.
    version: Option<i64>,
    /// The section, if it has one of that name.
    pub(super) section: Option<Section>,
}

impl Defined {
    /// By the blueprint of this edition.
    pub(super) async fn of(
        api: &Api,
        reach: &Reach,
        edition: &EditionRecord,
        name: &str,
    ) -> Result<Self> {
        let edition = &edition.edition;
        let found = api.store().blueprint(reach, &edition.blueprint).await?;
        // One that moved to another project is not for those who see the edition only.
        let found = found.filter(|found| found.blueprint.project == edition.project);
        Ok(match found {
            None => Self {
                version: None,
                section: None,
            },
            Some(found) => Self {
                version: Some(found.version),
                section: found
                    .blueprint
                    .sections
                    .into_iter()
                    .find(|section| section.name == name),
            },
        })
    }

    /// How the section is filled: as it is, so that what an edition got by an earlier blueprint stays
    /// to be read; where it holds no value, as it is to be. `None` where there is no such section.
    pub(super) fn kind(&self, data: &SectionData) -> Option<SectionKind> {
        let to_be = self.section.as_ref().map(|section| section.kind);
        match data {
            SectionData::Single(values) if values.is_empty() => to_be.or(Some(SectionKind::Single)),
            SectionData::Single(_) => Some(SectionKind::Single),
            SectionData::Repeating => Some(SectionKind::Repeating),
            SectionData::Empty => to_be,
        }
    }

    /// What changes whenever an answer of this edition's section does.
    pub(super) fn tag(&self, edition: &EditionRecord) -> SectionTag {
        SectionTag {
            edition: edition.tag(),
            blueprint: self.version,
        }
    }
}

/// `304` where the client has it, after one look at what tells so.
pub(super) async fn same(
    api: &Api,
    reach: &Reach,
    section: &SectionOf,
    known: &Known,
    variant: &str,
) -> Result<Option<Response>> {
    if !known.names_tags() {
        return Ok(None);
    }
    let current = api.store().section_tag(reach, &section.edition).await?;
    let current = current.ok_or_else(Problem::not_found)?;
    Ok(known.same(&tag(current, variant)))
}

/// The tag of an answer.
pub(super) fn tag(of: SectionTag, variant: &str) -> Tag {
    let SectionTag { edition, blueprint } = of;
    let blueprint = blueprint.map(|version| version.to_string());
    let blueprint = blueprint.as_deref().unwrap_or("none");
    let revision = edition.revision;
    Tag::new(
        edition.version,
        format_args!("{revision}-{blueprint}-{variant}"),
    )
}

/// What tells one answer from another of the same edition: its form, and all that it was asked by.
pub(super) fn variant(form: &str, asked: &[&str]) -> String {
    // No part holds NUL.
    let digest = Sha256::digest(asked.join("\0"));
    format!("{form}-{}", hex(&digest[..8]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_that_holds_nothing_is_what_its_blueprint_says() {
        let defined = |kind| Defined {
            version: Some(1),
            section: Some(Section {
                name: "costs".to_owned(),
                label: None,
                kind,
                fields: Vec::new(),
            }),
        };
        let unknown = Defined {
            version: None,
            section: None,
        };
        let values = |text| SectionData::Single(Values::parse(text).unwrap());
        for kind in [SectionKind::Single, SectionKind::Repeating] {
            assert_eq!(defined(kind).kind(&SectionData::Empty), Some(kind));
            assert_eq!(defined(kind).kind(&values("{ }")), Some(kind));
            let held = defined(kind).kind(&values(r#"{"a":1}"#));
            assert_eq!(held, Some(SectionKind::Single));
            let held = defined(kind).kind(&SectionData::Repeating);
            assert_eq!(held, Some(SectionKind::Repeating));
        }
        assert_eq!(unknown.kind(&SectionData::Empty), None);
        assert_eq!(unknown.kind(&values("{}")), Some(SectionKind::Single));
    }
}
