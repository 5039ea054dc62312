//! Values that several resources have, and the list of all that is wrong with a body.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use utoipa::IntoParams;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{
    AnyOfBuilder, ArrayBuilder, KnownFormat, ObjectBuilder, Schema, SchemaFormat, SchemaType, Type,
};

use crate::api::problem::Fault;
use crate::api::problem_type::ProblemType;
use crate::api::{Problem, Result};
use crate::domain::api_key::Scope;
use crate::domain::audit::Action;
use crate::domain::blueprint::SectionKind;
use crate::domain::circuit::CircuitName;
use crate::domain::delivery::DeliveryState;
use crate::domain::filter::MAX_EVENT_TYPE_BYTES;
use crate::domain::headers::{MAX_HEADERS, MAX_NAME_BYTES, MAX_VALUE_BYTES};
use crate::domain::ids::{MAX_OPAQUE_ID_BYTES, ProjectId};
use crate::domain::output::OutputStatus;
use crate::domain::retry::{MAX_DELAY, MAX_RETRIES};
use crate::domain::subscription::{FieldError, MAX_FILTERS, Ordering};

/// All that is wrong with the values of a body, so that a client mends it in one go.
#[derive(Debug, Default)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// One more.
    pub fn add(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        self.0.push(Fault::Value {
            pointer: pointer.into(),
            detail: detail.into(),
        });
    }

    /// What the domain says of a value, at the place of its field.
    pub fn check<T>(&mut self, checked: std::result::Result<T, FieldError>) -> Option<T> {
        match checked {
            Ok(value) => Some(value),
            Err(FieldError { field, reason }) => {
                let pointer = format!("/{field}");
                // What was wrong below a field says more than what became of the field.
                if !self.0.iter().any(|fault| matches!(fault, Fault::Value { pointer: known, .. } if known.starts_with(&pointer))) {
                    self.add(pointer, reason);
                }
                None
            }
        }
    }

    /// Ids of projects.
    pub fn projects(&mut self, pointer: &str, given: Option<&[String]>) -> Option<Vec<ProjectId>> {
        let given = given?;
        let mut ids = Vec::with_capacity(given.len());
        for (index, text) in given.iter().enumerate() {
            match ProjectId::new(text) {
                Ok(id) if !ids.contains(&id) => ids.push(id),
                Ok(_) => {}
                Err(error) => self.add(format!("{pointer}/{index}"), error.to_string()),
            }
        }
        Some(ids)
    }

    /// An instant.
    pub fn time(&mut self, pointer: &str, given: Option<&str>) -> Option<DateTime<Utc>> {
        let read = DateTime::parse_from_rfc3339(given?);
        if read.is_err() {
            self.add(
                pointer,
                "must be an instant as RFC 3339 writes it: `2026-05-01T09:00:00Z`",
            );
        }
        read.ok().map(|time| time.to_utc())
    }

    /// The problem that they are.
    pub fn problem(self) -> Problem {
        Problem::new(ProblemType::InvalidValues).faults(self.0)
    }

    /// The problem, if there is one.
    pub fn none(self) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(self.problem())
    }
}

/// Projects as they are shown.
pub fn projects(ids: Option<&[ProjectId]>) -> Option<Vec<String>> {
    ids.map(|ids| ids.iter().map(ToString::to_string).collect())
}

/// The bodies of subscriptions, by name.
const FORMATS: [&str; 3] = ["standard", "kazinex", "cloudevents"];

/// One of these names.
pub fn names<const N: usize>(names: [&'static str; N]) -> Schema {
    let schema = ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::String))
        .enum_values(Some(names));
    Schema::Object(schema.build())
}

/// Scopes, by name.
pub fn scopes_schema() -> Schema {
    ArrayBuilder::new()
        .items(RefOr::T(names(Scope::ALL.map(Scope::as_str))))
        .min_items(Some(1))
        .build()
        .into()
}

/// Bodies, by name.
pub fn format_schema() -> Schema {
    names(FORMATS)
}

/// Bodies, by name; or null for the default.
pub fn format_or_null_schema() -> Schema {
    let values = FORMATS.map(Value::from).into_iter().chain([Value::Null]);
    let schema = ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
        .enum_values(Some(values));
    Schema::Object(schema.build())
}

/// Whether deliveries wait for one another.
pub fn ordering_schema() -> Schema {
    names(Ordering::ALL.map(Ordering::as_str))
}

/// The same, or null for the default.
pub fn ordering_or_null_schema() -> Schema {
    let values = Ordering::ALL.map(|ordering| Value::from(ordering.as_str()));
    let schema = ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
        .enum_values(Some(values.into_iter().chain([Value::Null])));
    Schema::Object(schema.build())
}

/// An address of either kind.
pub fn address_schema() -> Schema {
    let address = |format| {
        ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::String))
            .format(Some(SchemaFormat::KnownFormat(format)))
    };
    AnyOfBuilder::new()
        .item(address(KnownFormat::Ipv4))
        .item(address(KnownFormat::Ipv6))
        .build()
        .into()
}

/// What a subscription may be.
pub fn status_schema() -> Schema {
    names(["active", "disabled"])
}

/// Where a circuit may stand.
pub fn circuit_schema() -> Schema {
    names(CircuitName::ALL.map(CircuitName::as_str))
}

/// Actions of the audit log, by name.
pub fn actions_schema() -> Schema {
    names(Action::ALL.map(Action::as_str))
}

/// States of deliveries, by name.
pub fn states_schema() -> Schema {
    names(DeliveryState::ALL.map(DeliveryState::as_str))
}

/// States of deliveries, by name; or null.
pub fn states_or_null_schema() -> Schema {
    let state = ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::String))
        .enum_values(Some(DeliveryState::ALL.map(DeliveryState::as_str)));
    list_or_null(state).build().into()
}

/// Ids of projects, which are the core's own; or null.
pub fn project_ids_schema() -> Schema {
    let id = ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::String))
        .min_length(Some(1))
        .max_length(Some(MAX_OPAQUE_ID_BYTES))
        // No control characters.
        .pattern(Some(r"^[^\x00-\x1f\x7f-\x9f]+$"))
        .examples([json!("pr_1")]);
    list_or_null(id)
        .min_items(Some(1))
        .max_items(Some(MAX_FILTERS))
        .build()
        .into()
}

/// Which event types are asked for; or null.
pub fn event_types_or_null_schema() -> Schema {
    list_or_null(event_filter())
        .max_items(Some(MAX_FILTERS))
        .examples([json!(["edition.submitted", "output.*"])])
        .build()
        .into()
}

fn event_filter() -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::String))
        .max_length(Some(MAX_EVENT_TYPE_BYTES))
        .pattern(Some(r"^(\*|[a-z0-9_]+(\.[a-z0-9_]+)*(\.\*)?)$"))
}

/// Which event types a subscription asks for.
pub fn event_types_schema() -> Schema {
    ArrayBuilder::new()
        .items(RefOr::T(Schema::Object(event_filter().build())))
        .min_items(Some(1))
        .max_items(Some(MAX_FILTERS))
        .examples([json!(["edition.submitted", "output.*"])])
        .build()
        .into()
}

/// Headers by name.
pub fn headers_schema() -> Schema {
    headers(ObjectBuilder::new().schema_type(SchemaType::Type(Type::String)))
}

/// Headers by name, with null for those that are to go.
pub fn headers_change_schema() -> Schema {
    headers(ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::String, Type::Null])))
}

fn headers(value: ObjectBuilder) -> Schema {
    let name = ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::String))
        .max_length(Some(MAX_NAME_BYTES))
        .pattern(Some("^[A-Za-z0-9-]+$"));
    let value = value
        .max_length(Some(MAX_VALUE_BYTES))
        .pattern(Some(r"^[!-~]([ -~]*[!-~])?$"));
    let mut schema = ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Object, Type::Null]))
        .property_names(Some(Schema::Object(name.build())))
        .additional_properties(Some(Schema::Object(value.build())))
        .examples([json!({"authorization": "Bearer token-of-the-erp"})])
        .build();
    schema.max_properties = Some(MAX_HEADERS);
    Schema::Object(schema)
}

/// Seconds between attempts; or null.
pub fn schedule_schema() -> Schema {
    let delay = ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::Integer))
        .minimum(Some(0))
        .maximum(Some(MAX_DELAY.as_secs()));
    list_or_null(delay)
        .max_items(Some(MAX_RETRIES))
        .examples([json!([5, 300, 1_800])])
        .build()
        .into()
}

fn list_or_null(item: ObjectBuilder) -> ArrayBuilder {
    ArrayBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Array, Type::Null]))
        .items(RefOr::T(Schema::Object(item.build())))
}

/// The header of a change that is bound to a version.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes a header that is read by its name")]
pub struct PreconditionHeader {
    /// Only if it is still at the version of this `ETag`; 412 otherwise.
    #[param(
        rename = "If-Match",
        example = "\"3.json\"",
        value_type = String,
        required = false,
        pattern = r#"^(\*|(W/)?"[!#-+\--~]*"( *, *(W/)?"[!#-+\--~]*")*)$"#
    )]
    if_match: Option<String>,
}

/// The header of a read that may be spared.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes a header that is read by its name")]
pub struct KnownHeader {
    /// The `ETag` that the client has: 304 if it is still so.
    #[param(
        rename = "If-None-Match",
        example = "\"3.json\"",
        value_type = String,
        required = false
    )]
    if_none_match: Option<String>,
}

/// A subscription in a path.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(
    dead_code,
    reason = "describes a part of a path that an extractor reads"
)]
pub struct SubscriptionPath {
    /// The subscription (`sub_…`).
    #[param(
        example = "sub_01h455vb4pex5vsknk084sn02q",
        pattern = "^sub_[0-7][0-9a-hjkmnp-tv-z]{25}$"
    )]
    id: String,
}

/// The header of the creating calls.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes a header that an extractor reads")]
pub struct IdempotencyHeader {
    /// Names the request, so that it does nothing when it is sent again within 24 hours: a repeat is
    /// answered 409 `already-created`, another body 422 `idempotency-key-reused`.
    #[param(
        rename = "Idempotency-Key",
        min_length = 1,
        max_length = 255,
        value_type = String,
        required = false,
        pattern = "^[!-~]([ -~]*[!-~])?$"
    )]
    idempotency_key: Option<String>,
}

/// How sections are filled, by name.
pub fn section_kinds_schema() -> Schema {
    names(SectionKind::ALL.map(SectionKind::as_str))
}

/// How far outputs are, by name.
pub fn output_statuses_schema() -> Schema {
    names(OutputStatus::ALL.map(OutputStatus::as_str))
}

/// Names of these, with commas between them.
pub fn list_of_names(names: &[&str]) -> Schema {
    let one = format!("({})", names.join("|"));
    let schema = ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::String))
        .pattern(Some(format!("^{one}(,{one})*$")));
    Schema::Object(schema.build())
}

/// Something of Report Forge's in a path.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(
    dead_code,
    reason = "describes a part of a path that an extractor reads"
)]
pub struct CorePath {
    /// Report Forge's id of it.
    #[param(
        example = "ed_1",
        min_length = 1,
        max_length = 255,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"
    )]
    id: String,
}

/// A section of an edition in a path.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(
    dead_code,
    reason = "describes parts of a path that an extractor reads"
)]
pub struct SectionPath {
    /// Report Forge's id of the edition.
    #[param(
        example = "ed_1",
        min_length = 1,
        max_length = 255,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"
    )]
    id: String,
    /// The name of the section, as its blueprint has it.
    #[param(
        example = "costs",
        min_length = 1,
        max_length = 255,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"
    )]
    name: String,
}
