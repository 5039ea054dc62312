//! `/readyz`: whether this replica can do its work, and which part cannot.

use std::collections::BTreeMap;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::{DATABASE_TIMEOUT, Ops};
use crate::health::Part;
use crate::store::StoreError;

/// The answer's body.
#[derive(Debug, PartialEq, Serialize)]
struct Report {
    status: Status,
    parts: BTreeMap<&'static str, PartReport>,
}

/// All in all.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    /// Everything works.
    Ready,
    /// The database works, something else does not.
    Degraded,
    /// The database cannot be used.
    Unavailable,
}

/// One part.
#[derive(Debug, PartialEq, Serialize)]
struct PartReport {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Report {
    /// What the parts said, and whether the database answered when it was asked just now.
    fn new(parts: Vec<(Part, Option<String>)>, database: Result<(), String>) -> Self {
        let mut parts: BTreeMap<Part, Option<String>> = parts.into_iter().collect();
        let usable = database.is_ok();
        match database {
            Ok(()) => {
                parts.entry(Part::Database).or_insert(None);
            }
            Err(reason) => {
                parts.insert(Part::Database, Some(reason));
            }
        }
        let status = if !usable {
            Status::Unavailable
        } else if parts.values().any(Option::is_some) {
            Status::Degraded
        } else {
            Status::Ready
        };
        let parts = parts
            .into_iter()
            .map(|(part, reason)| {
                let status = if reason.is_none() { "up" } else { "down" };
                (part.as_str(), PartReport { status, reason })
            })
            .collect();
        Self { status, parts }
    }
}

/// 200 unless the database or its schema cannot be used.
pub(super) async fn readyz(ops: Ops) -> Response {
    let database = match tokio::time::timeout(DATABASE_TIMEOUT, ops.store.ready()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            tracing::warn!(%error, "not ready");
            Err(in_our_words(&error))
        }
        Err(_) => Err(format!(
            "did not answer within {}",
            humantime::format_duration(DATABASE_TIMEOUT)
        )),
    };
    let report = Report::new(ops.health.parts(), database);
    let code = match report.status {
        Status::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Status::Ready | Status::Degraded => StatusCode::OK,
    };
    (code, Json(report)).into_response()
}

/// The reason without the database's own text, which may tell too much; the log has it.
fn in_our_words(error: &StoreError) -> String {
    match error {
        StoreError::Unavailable(_) => "does not answer".to_owned(),
        StoreError::Schema(_) => "its schema is not the one that this version knows".to_owned(),
        StoreError::MasterKey(reason) => format!("master key: {reason}"),
        StoreError::Configuration(_) => "its address or file cannot be used".to_owned(),
        StoreError::Rejected(_)
        | StoreError::Stale
        | StoreError::AlreadyExists
        | StoreError::Corrupt(_)
        | StoreError::Database(_) => "answers with an error".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(report: &Report) -> String {
        serde_json::to_string(report).unwrap()
    }

    #[test]
    fn all_well_is_ready_and_a_part_that_is_not_configured_is_not_named() {
        assert_eq!(
            json(&Report::new(vec![], Ok(()))),
            r#"{"status":"ready","parts":{"database":{"status":"up"}}}"#
        );
    }

    #[test]
    fn a_broker_away_degrades_and_says_why() {
        let parts = vec![(Part::Broker, Some("connection refused".to_owned()))];
        assert_eq!(
            json(&Report::new(parts, Ok(()))),
            r#"{"status":"degraded","parts":{"broker":{"status":"down","reason":"connection refused"},"database":{"status":"up"}}}"#
        );
    }

    #[test]
    fn a_database_away_goes_over_everything_that_was_said_before() {
        let parts = vec![(Part::Database, None), (Part::Broker, None)];
        let report = Report::new(parts, Err("does not answer".to_owned()));
        assert_eq!(report.status, Status::Unavailable);
        assert_eq!(
            json(&report),
            r#"{"status":"unavailable","parts":{"broker":{"status":"up"},"database":{"status":"down","reason":"does not answer"}}}"#
        );
    }

    #[test]
    fn the_databases_own_words_stay_inside() {
        let told = in_our_words(&StoreError::Unavailable(sqlx::Error::Protocol(
            "postgres://u:s3cret@db".to_owned(),
        )));
        assert_eq!(told, "does not answer");
    }
}
