//! What happens in the demo's workspace: the editions of this quarter walk from a draft over a review
//! to their outputs, some of them back for changes first; one that is closed is opened again.
//!
//! Of the steps that Report Forge documents as webhooks the core tells by an event each; how the
//! editions stand behind these and others (a review begins, one is closed, opened again), by snapshots.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::plan::Luck;
use super::seed::{Core, Edition, OUTPUTS};
use crate::domain::edition::EditionStatus;
use crate::domain::ids::WorkspaceId;
use crate::domain::payload::timestamp;
use crate::domain::snapshot::Snapshot;

/// What happens to the demo's editions: the same story each time.
pub(super) struct Story {
    core: Core,
    luck: Luck,
    closed: Vec<Edition>,
    open: Vec<Edition>,
    told: u64,
}

/// What the core tells at once; in which order the two are taken in is of no matter.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) events: Vec<Vec<u8>>,
    pub(super) snapshots: Vec<Snapshot>,
}

impl Story {
    pub(super) fn new(workspace: WorkspaceId, now: DateTime<Utc>) -> anyhow::Result<Self> {
        let core = Core::new(workspace)?;
        let (closed, open) = core.editions(now);
        Ok(Self {
            core,
            luck: Luck::seeded(5),
            closed,
            open,
            told: 0,
        })
    }

    /// All that there is at the start.
    pub(super) fn seed(&self, now: DateTime<Utc>) -> anyhow::Result<Vec<Snapshot>> {
        let mut told = self.core.grounds(now)?;
        for edition in self.closed.iter().chain(&self.open) {
            told.append(&mut self.core.edition(edition)?);
        }
        Ok(told)
    }

    /// The next events, and how the editions that they are about stand behind them.
    pub(super) fn batch(&mut self, events: u64, now: DateTime<Utc>) -> anyhow::Result<Batch> {
        let mut batch = Batch::default();
        let mut moved = BTreeSet::new();
        let end = self.told + events;
        while self.told < end {
            let index = self.luck.index(self.open.len());
            let edition = &mut self.open[index];
            moved.insert(index);
            if let Some((kind, data)) = step(edition, &self.core, &self.luck, now) {
                self.told += 1;
                let event = envelope(&self.core, edition, self.told, kind, &data);
                batch.events.push(event);
            }
        }
        for index in moved {
            let mut told = self.core.edition(&self.open[index])?;
            batch.snapshots.append(&mut told);
        }
        Ok(batch)
    }
}

/// Moves an edition on; what the core tells of it in an event, if anything.
fn step(
    edition: &mut Edition,
    core: &Core,
    luck: &Luck,
    now: DateTime<Utc>,
) -> Option<(&'static str, Value)> {
    let project = core.project(edition);
    match edition.status {
        EditionStatus::Draft | EditionStatus::ChangesRequested => {
            edition.filled += 1;
            edition.turn(EditionStatus::Submitted, now);
            let data = json!({
                "edition_id": edition.id, "blueprint_id": project.blueprint["id"],
                "project_id": project.id, "timestamp": timestamp(edition.at),
            });
            Some(("edition.submitted", data))
        }
        EditionStatus::Submitted => {
            edition.turn(EditionStatus::InReview, now);
            None
        }
        EditionStatus::InReview if luck.below(4) == 0 => {
            edition.turn(EditionStatus::ChangesRequested, now);
            let data = json!({
                "edition_id": edition.id, "comment_count": luck.below(9) + 1,
                "timestamp": timestamp(edition.at),
            });
            Some(("edition.changes_requested", data))
        }
        EditionStatus::InReview => {
            edition.turn(EditionStatus::Approved, now);
            let data = json!({
                "edition_id": edition.id, "approved_by": core.plan.member(luck),
                "timestamp": timestamp(edition.at),
            });
            Some(("edition.approved", data))
        }
        EditionStatus::Approved if edition.made < OUTPUTS => {
            let output = edition.output(edition.made);
            let data = json!({
                "edition_id": edition.id, "output_id": output,
                "format": project.blueprint["outputs"][edition.made]["format"],
                "download_url": format!("https://reports.example/outputs/{output}"),
            });
            edition.made += 1;
            edition.turn(EditionStatus::Approved, now);
            Some(("output.generated", data))
        }
        EditionStatus::Approved => {
            edition.turn(EditionStatus::Closed, now);
            None
        }
        // Opened again: what was made of it is of the past.
        _ => {
            edition.made = 0;
            edition.turn(EditionStatus::Draft, now);
            None
        }
    }
}

/// An event as a CloudEvents envelope.
fn envelope(core: &Core, edition: &Edition, number: u64, kind: &str, data: &Value) -> Vec<u8> {
    let envelope = json!({
        "specversion": "1.0",
        "id": number.to_string(),
        "source": format!("/report-forge/{}", core.workspace),
        "workspaceid": core.workspace,
        "type": kind,
        "time": timestamp(edition.at),
        "subject": edition.id,
        "projectid": core.project(edition).id,
        "data": data,
    });
    envelope.to_string().into_bytes()
}

#[cfg(test)]
mod tests;
