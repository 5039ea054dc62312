//! The events that this program originates itself (product.md §3, §5): they take the same road as
//! those that arrive, and go out to AMQP besides.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::blueprint::OutputOffer;
use super::edition::{Edition, Row};
use super::event::EventError;
use super::ids::{EventId, OutputId, RowId, WorkspaceId};
use super::operational::Operational;
use super::output::Output;
use super::payload::{Payload, timestamp};
use super::values::Values;

/// The `source` of all of them.
pub const SOURCE: &str = "/forge-dispatch";

/// What happened here.
#[derive(Clone, Copy, Debug)]
pub enum OwnEvent<'a> {
    /// `edition.created`, with the outputs that were made for it, which the core adopts.
    EditionCreated(&'a Edition, &'a [(&'a OutputId, &'a OutputOffer)]),
    /// `edition.changed`: the edition as it is now, and what is different.
    EditionChanged(&'a Edition, &'a [Change]),
    /// `edition.submitted`
    EditionSubmitted(&'a Edition),
    /// `output.requested`: the core is asked to make it.
    OutputRequested(&'a Output),
    /// `output.generated`, and where to fetch it.
    OutputGenerated(&'a Output, &'a str),
    /// What became of deliveries and subscriptions.
    Operational(&'a Operational),
}

/// What a write changed of an edition: where, and what was written there, as long as that is not much.
/// So the core can do the same to an edition that it has changed itself meanwhile; what is left out is
/// read over the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Change {
    /// Values of a section that is filled once.
    ValuesSet {
        /// The section.
        section: String,
        /// The fields that were named.
        fields: Vec<String>,
        /// What they hold now; null is nothing.
        #[serde(skip_serializing_if = "Option::is_none")]
        values: Option<Values>,
    },
    /// All rows of a section.
    RowsReplaced {
        /// The section.
        section: String,
        /// How many there are now.
        rows: usize,
        /// The rows.
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<Vec<WrittenRow>>,
    },
    /// Rows that came last.
    RowsAppended {
        /// The section.
        section: String,
        /// How many came.
        rows: usize,
        /// The rows.
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<Vec<WrittenRow>>,
    },
    /// Values of one row.
    RowSet {
        /// The section.
        section: String,
        /// The row.
        row: RowId,
        /// The fields that were named.
        fields: Vec<String>,
        /// What they hold now; null is nothing.
        #[serde(skip_serializing_if = "Option::is_none")]
        values: Option<Values>,
    },
    /// One row is no more.
    RowDeleted {
        /// The section.
        section: String,
        /// The row.
        row: RowId,
    },
}

/// A row as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WrittenRow {
    id: RowId,
    values: Values,
}

impl From<&Row> for WrittenRow {
    fn from(row: &Row) -> Self {
        Self {
            id: row.id.clone(),
            values: row.values.clone(),
        }
    }
}

/// An output that was made with its edition.
#[derive(Serialize)]
struct NewOutput<'a> {
    id: &'a str,
    name: &'a str,
    format: &'a str,
}

#[derive(Serialize)]
struct Envelope<'a> {
    specversion: &'static str,
    id: String,
    source: &'static str,
    r#type: &'static str,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    workspaceid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    projectid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    data: Data<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Data<'a> {
    Edition {
        edition_id: &'a str,
        blueprint_id: &'a str,
        project_id: &'a str,
        version: i64,
        timestamp: String,
    },
    Created {
        edition_id: &'a str,
        blueprint_id: &'a str,
        project_id: &'a str,
        version: i64,
        name: &'a str,
        period: Option<&'a str>,
        outputs: Vec<NewOutput<'a>>,
        timestamp: String,
    },
    Changed {
        edition_id: &'a str,
        project_id: &'a str,
        version: i64,
        changes: &'a [Change],
        timestamp: String,
    },
    Requested {
        edition_id: &'a str,
        output_id: &'a str,
        project_id: &'a str,
        name: &'a str,
        format: &'a str,
        timestamp: String,
    },
    Generated {
        edition_id: &'a str,
        output_id: &'a str,
        format: &'a str,
        download_url: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        size: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        sha256: Option<&'a str>,
        timestamp: String,
    },
    Operational {
        #[serde(flatten)]
        told: &'a Operational,
        timestamp: String,
    },
}

impl<'a> OwnEvent<'a> {
    /// Its type.
    pub fn event_type(&self) -> &'static str {
        match self {
            Self::EditionCreated(..) => "edition.created",
            Self::EditionChanged(..) => "edition.changed",
            Self::EditionSubmitted(_) => "edition.submitted",
            Self::OutputRequested(_) => "output.requested",
            Self::OutputGenerated(..) => "output.generated",
            Self::Operational(told) => told.event_type(),
        }
    }

    /// The event of a workspace under an id of ours, which is the envelope's `id` as well: it comes
    /// back to us under the same one, and is known. `trace` is that of the request that made it.
    pub fn build(
        &self,
        id: EventId,
        workspace: &WorkspaceId,
        now: DateTime<Utc>,
        trace: Option<&str>,
    ) -> Result<Payload, EventError> {
        let (subject, projectid) = self.about().unzip();
        let envelope = Envelope {
            specversion: "1.0",
            id: id.to_string(),
            source: SOURCE,
            r#type: self.event_type(),
            time: timestamp(now),
            subject,
            workspaceid: workspace.as_str(),
            projectid,
            traceparent: trace,
            data: self.data(timestamp(now)),
        };
        let text = serde_json::to_vec(&envelope)
            .map_err(|error| EventError::NotJson(error.to_string()))?;
        Payload::decode(&text, id, now)
    }

    /// The edition and the project, if it is about one.
    fn about(&self) -> Option<(&'a str, &'a str)> {
        Some(match self {
            Self::EditionCreated(edition, _)
            | Self::EditionChanged(edition, _)
            | Self::EditionSubmitted(edition) => (edition.id.as_str(), edition.project.as_str()),
            Self::OutputRequested(output) | Self::OutputGenerated(output, _) => {
                (output.edition.as_str(), output.project.as_str())
            }
            Self::Operational(_) => return None,
        })
    }

    fn data(&self, timestamp: String) -> Data<'a> {
        let (edition_id, project_id) = self.about().unwrap_or_default();
        match *self {
            Self::Operational(told) => Data::Operational { told, timestamp },
            Self::EditionCreated(edition, outputs) => Data::Created {
                edition_id,
                blueprint_id: edition.blueprint.as_str(),
                project_id,
                version: edition.version,
                name: &edition.name,
                period: edition.period.as_deref(),
                outputs: outputs
                    .iter()
                    .map(|(id, offer)| NewOutput {
                        id: id.as_str(),
                        name: &offer.name,
                        format: offer.format.as_str(),
                    })
                    .collect(),
                timestamp,
            },
            Self::EditionChanged(edition, changes) => Data::Changed {
                edition_id,
                project_id,
                version: edition.version,
                changes,
                timestamp,
            },
            Self::EditionSubmitted(edition) => Data::Edition {
                edition_id,
                blueprint_id: edition.blueprint.as_str(),
                project_id,
                version: edition.version,
                timestamp,
            },
            Self::OutputRequested(output) => Data::Requested {
                edition_id,
                output_id: output.id.as_str(),
                project_id,
                name: &output.name,
                format: output.format.as_str(),
                timestamp,
            },
            Self::OutputGenerated(output, download_url) => Data::Generated {
                edition_id,
                output_id: output.id.as_str(),
                format: output.format.as_str(),
                download_url,
                size: output.file.as_ref().map(|file| file.size),
                sha256: output.file.as_ref().map(|file| &*file.sha256),
                timestamp,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::edition::tests::edition;
    use super::super::ids::new_id;
    use super::super::output::tests::output;
    use super::*;

    fn build(event: OwnEvent<'_>) -> Payload {
        let now = DateTime::from_timestamp_millis(1_777_626_000_123).unwrap();
        let workspace = WorkspaceId::new("ws_1").unwrap();
        event
            .build(new_id(now, [7; 10]), &workspace, now, None)
            .unwrap()
    }

    #[test]
    fn each_is_an_event_of_ours_about_its_edition() {
        let (edition, output) = (edition(), output());
        for event in [
            OwnEvent::EditionCreated(&edition, &[]),
            OwnEvent::EditionChanged(&edition, &[]),
            OwnEvent::EditionSubmitted(&edition),
            OwnEvent::OutputRequested(&output),
            OwnEvent::OutputGenerated(&output, "https://x.example/y"),
        ] {
            let payload = build(event);
            let built = payload.event();
            assert_eq!(built.event_type.as_str(), event.event_type());
            assert_eq!(built.source, "/forge-dispatch");
            assert_eq!(built.external_id, built.id.to_string());
            assert_eq!(built.workspace.as_str(), "ws_1");
            assert_eq!(built.project.as_ref(), Some(&edition.project));
            assert_eq!(built.edition.as_ref(), Some(&edition.id));
            assert_eq!(built.occurred_at.timestamp_millis(), 1_777_626_000_123);
        }
    }

    #[test]
    fn what_is_told_of_our_own_work_is_about_no_edition_and_names_no_path() {
        let subscription = new_id(DateTime::UNIX_EPOCH, [1; 10]);
        let told = Operational::disabled(subscription, "gone").at(Some("receiver.example"));
        let payload = build(OwnEvent::Operational(&told));
        let built = payload.event();
        assert!(built.event_type.is_operational());
        assert_eq!((&built.edition, &built.project), (&None, &None));
        assert_eq!(
            payload.data(),
            format!(
                r#"{{"subscription_id":"{subscription}","host":"receiver.example","reason":"gone","timestamp":"2026-05-01T09:00:00.123Z"}}"#
            )
        );
    }

    #[test]
    fn a_change_says_what_and_where() {
        let row = RowId::new("r1").unwrap();
        let changes = [
            Change::RowsReplaced {
                section: "costs".into(),
                rows: 20_000,
                data: None,
            },
            Change::RowSet {
                section: "costs".into(),
                row,
                fields: vec!["amount".into()],
                values: Some(Values::parse(r#"{"amount":12.50}"#).unwrap()),
            },
        ];
        let payload = build(OwnEvent::EditionChanged(&edition(), &changes));
        assert_eq!(
            payload.data(),
            r#"{"edition_id":"ed_1","project_id":"pr_1","version":1,"changes":[{"kind":"rows_replaced","section":"costs","rows":20000},{"kind":"row_set","section":"costs","row":"r1","fields":["amount"],"values":{"amount":12.50}}],"timestamp":"2026-05-01T09:00:00.123Z"}"#
        );
    }
}
