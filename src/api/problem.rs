//! What a client is told when something is not as it should be: RFC 9457 problem details, of one
//! closed list of types, each documented at `/problems/{slug}` by [`super::problem_docs`].

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::openapi::schema::Schema;

use super::problem_type::ProblemType;
use super::resources::fields;
use crate::domain::api_key::Scope;
use crate::domain::replay::Refusal;
use crate::domain::subscription::FieldError;
use crate::store::StoreError;

/// The media type of problem details.
pub const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// How long a client waits before it tries what failed for a while, in seconds.
const TRY_AGAIN_SECS: u64 = 5;

/// What a handler answers with.
pub type Result<T> = std::result::Result<T, Problem>;

/// One thing that is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum Fault {
    /// In the body.
    Value {
        /// Where: a JSON pointer (RFC 6901) into the body.
        pointer: String,
        /// What rule it breaks.
        detail: String,
    },
    /// In a table that came as text.
    Cell {
        /// The line that its row begins in; that of the header is 1.
        line: u64,
        /// The column as the header names it; empty where it is about the row as a whole.
        column: String,
        /// What rule it breaks.
        detail: String,
    },
    /// In the query.
    Parameter {
        /// Which parameter.
        parameter: String,
        /// What rule it breaks.
        detail: String,
    },
    /// In a header.
    Header {
        /// Which header.
        header: String,
        /// What rule it breaks.
        detail: String,
    },
}

/// A problem, on its way to the client.
#[derive(Clone, Debug)]
pub struct Problem {
    kind: ProblemType,
    detail: String,
    faults: Vec<Fault>,
    id: Option<String>,
    reason: Option<Refusal>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// The members of a problem document (RFC 9457).
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Problem, example = json!({
    "type": "/problems/not-found",
    "title": "Not found",
    "status": 404,
    "detail": "There is nothing of that id that this key can see."
}))]
pub struct ProblemDocument<'a> {
    /// Which of the documented types it is: a path that leads to its documentation.
    #[serde(rename = "type")]
    kind: String,
    /// The type in words.
    title: &'a str,
    /// The status of the answer, again.
    status: u16,
    /// What is wrong with this request.
    detail: &'a str,
    /// Each thing that is wrong, where more than one can be.
    #[serde(skip_serializing_if = "<[Fault]>::is_empty")]
    errors: &'a [Fault],
    /// The id of what was made before, for `already-created`.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    /// Why, for `not-replayable`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, schema_with = reasons_schema)]
    reason: Option<&'a str>,
}

/// Why a delivery is not replayed.
fn reasons_schema() -> Schema {
    fields::names(Refusal::ALL.map(Refusal::as_str))
}

impl Problem {
    /// A problem of this type, in the type's own words.
    pub fn new(kind: ProblemType) -> Self {
        Self {
            kind,
            detail: kind.detail().to_owned(),
            faults: Vec::new(),
            id: None,
            reason: None,
            headers: Vec::new(),
        }
    }

    /// What is wrong with this very request. Never what came from a part of ours that failed.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// With each thing that is wrong.
    #[must_use]
    pub fn faults(mut self, faults: Vec<Fault>) -> Self {
        self.faults = faults;
        self
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: impl Into<HeaderValue>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// What is told of this very request.
    pub fn told(&self) -> &str {
        &self.detail
    }

    /// Each thing that is wrong.
    pub fn list(&self) -> &[Fault] {
        &self.faults
    }

    /// Which type it is.
    pub fn kind(&self) -> ProblemType {
        self.kind
    }

    /// No resource of that id, or none that this key may see: told apart by nothing.
    pub fn not_found() -> Self {
        Self::new(ProblemType::NotFound)
    }

    /// A value in the body breaks a rule.
    pub fn value(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(ProblemType::InvalidValues).faults(vec![Fault::Value {
            pointer: pointer.into(),
            detail: detail.into(),
        }])
    }

    /// A parameter of the query breaks a rule.
    pub fn parameter(parameter: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(ProblemType::InvalidParameter).faults(vec![Fault::Parameter {
            parameter: parameter.into(),
            detail: detail.into(),
        }])
    }

    /// A header breaks a rule.
    pub fn bad_header(header: &HeaderName, detail: impl Into<String>) -> Self {
        Self::new(ProblemType::InvalidHeader).faults(vec![Fault::Header {
            header: header.to_string(),
            detail: detail.into(),
        }])
    }

    /// No key, or none that is valid. RFC 6750 §3.1: a request that shows none is not told of an
    /// error.
    pub fn unauthorized(shown: bool) -> Self {
        let challenge = if shown {
            r#"Bearer realm="forge-dispatch", error="invalid_token", error_description="the key is not valid""#
        } else {
            r#"Bearer realm="forge-dispatch""#
        };
        Self::new(ProblemType::Unauthorized)
            .header(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
    }

    /// The key may not do this.
    pub fn insufficient_scope(needed: Scope) -> Self {
        let challenge = format!(
            r#"Bearer realm="forge-dispatch", error="insufficient_scope", scope="{needed}""#
        );
        let problem = Self::new(ProblemType::InsufficientScope)
            .detail(format!("This needs a key with the scope `{needed}`."));
        match HeaderValue::try_from(challenge) {
            Ok(challenge) => problem.header(WWW_AUTHENTICATE, challenge),
            Err(_) => problem,
        }
    }

    /// A part of ours does not answer.
    pub fn unavailable() -> Self {
        Self::new(ProblemType::Unavailable).header(RETRY_AFTER, HeaderValue::from(TRY_AGAIN_SECS))
    }

    /// The same creating request came before, and its answer held what is shown once only.
    pub fn already_created(id: String) -> Self {
        Self {
            id: Some(id),
            ..Self::new(ProblemType::AlreadyCreated)
        }
    }

    /// The delivery stands where it cannot be replayed.
    pub fn not_replayable(reason: Refusal) -> Self {
        Self {
            reason: Some(reason),
            ..Self::new(ProblemType::NotReplayable).detail(reason.told())
        }
    }
}

/// A value that the domain does not take, wherever in the body it stood.
impl From<FieldError> for Problem {
    fn from(error: FieldError) -> Self {
        Self::value(format!("/{}", error.field), error.reason)
    }
}

/// What the store says is for the log; clients are told only what they can do.
impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Stale => Self::new(ProblemType::StaleVersion),
            error if error.is_unavailable() => {
                tracing::warn!(%error, "the database does not answer");
                Self::unavailable()
            }
            error => {
                tracing::error!(%error, "a request failed in the store");
                Self::new(ProblemType::Internal)
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = ProblemDocument {
            kind: format!("/problems/{}", self.kind.slug()),
            title: self.kind.title(),
            status: self.kind.status().as_u16(),
            detail: &self.detail,
            errors: &self.faults,
            id: self.id.as_deref(),
            reason: self.reason.map(Refusal::as_str),
        };
        // Texts and numbers: writing them cannot fail.
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = (self.kind.status(), body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, PROBLEM_JSON);
        for (name, value) in self.headers {
            headers.insert(name, value);
        }
        response
    }
}
