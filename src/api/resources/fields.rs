//! Values that several resources have, and the list of all that is wrong with a body.

use chrono::{DateTime, Utc};
use utoipa::IntoParams;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Schema, SchemaType, Type};

use crate::api::problem::Fault;
use crate::api::problem_type::ProblemType;
use crate::api::{Problem, Result};
use crate::domain::api_key::Scope;
use crate::domain::ids::{MAX_OPAQUE_ID_BYTES, ProjectId};
use crate::domain::subscription::FieldError;

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

    /// The problem, if there is one.
    pub fn none(self) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(Problem::new(ProblemType::InvalidValues).faults(self.0))
    }
}

/// Projects as they are shown.
pub fn projects(ids: Option<&[ProjectId]>) -> Option<Vec<String>> {
    ids.map(|ids| ids.iter().map(ToString::to_string).collect())
}

/// Scopes, by name.
pub fn scopes_schema() -> Schema {
    let scope = ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::String))
        .enum_values(Some(Scope::ALL.map(Scope::as_str)));
    ArrayBuilder::new()
        .items(RefOr::T(Schema::Object(scope.build())))
        .min_items(Some(1))
        .build()
        .into()
}

/// Ids of projects, which are the core's own.
pub fn project_ids_schema() -> Schema {
    let id = ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::String))
        .min_length(Some(1))
        .max_length(Some(MAX_OPAQUE_ID_BYTES));
    ArrayBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Array, Type::Null]))
        .items(RefOr::T(Schema::Object(id.build())))
        .min_items(Some(1))
        .max_items(Some(100))
        .build()
        .into()
}

/// The header of the creating calls.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes a header that an extractor reads")]
pub struct IdempotencyHeader {
    /// Names the request, so that it does nothing when it is sent again within 24 hours: a repeat is
    /// answered 409 `already-created`, another body 422 `idempotency-key-reused`.
    #[param(rename = "Idempotency-Key", min_length = 1, max_length = 255)]
    idempotency_key: Option<String>,
}
