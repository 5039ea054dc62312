//! What happens in the demo's workspace: editions walk from a draft over a review to their outputs,
//! some of them back for changes first; when one is closed, that of the next quarter begins.
//!
//! What the core documents as webhook events it tells by those alone; the rest (a review begins, an
//! edition is filled, closed, begun, put away) by snapshots.

use std::collections::VecDeque;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::plan::Luck;
use super::seed::{Core, Edition, OUTPUTS};
use crate::domain::edition::EditionStatus;
use crate::domain::ids::WorkspaceId;
use crate::domain::payload::timestamp;
use crate::domain::snapshot::Snapshot;

/// How many closed editions are kept; the oldest are put away, so that a demo without end stays small.
const KEPT: usize = 12;

/// What happens to all of the demo's editions: the same story each time.
pub(super) struct Story {
    core: Core,
    luck: Luck,
    open: Vec<Edition>,
    closed: VecDeque<Edition>,
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
        let editions = core.editions(now).into_iter();
        let (closed, open): (Vec<_>, _) =
            editions.partition(|edition| edition.status == EditionStatus::Closed);
        Ok(Self {
            core,
            luck: Luck::seeded(5),
            open,
            closed: closed.into(),
            told: 0,
        })
    }

    /// All that there is at the start.
    pub(super) fn seed(&self, now: DateTime<Utc>) -> anyhow::Result<Vec<Snapshot>> {
        let mut told = self.core.grounds(now)?;
        for edition in self.closed.iter().chain(&self.open) {
            told.push(self.core.edition(edition)?);
            told.append(&mut self.core.outputs(edition)?);
        }
        Ok(told)
    }

    /// The next events, and what else happened meanwhile.
    pub(super) fn batch(&mut self, events: u64, now: DateTime<Utc>) -> anyhow::Result<Batch> {
        let mut batch = Batch::default();
        let end = self.told + events;
        while self.told < end {
            let index = self.luck.below(self.open.len() as u64);
            let mut edition = self.open.swap_remove(usize::try_from(index)?);
            if let Some((kind, data)) = self.step(&mut edition, now, &mut batch.snapshots)? {
                batch.events.push(self.tell(&edition, kind, &data));
            }
            if edition.status == EditionStatus::Closed {
                self.close(edition, now, &mut batch.snapshots)?;
            } else {
                self.open.push(edition);
            }
        }
        Ok(batch)
    }

    /// Moves an edition on; what the core tells of it in an event, if anything.
    fn step(
        &self,
        edition: &mut Edition,
        now: DateTime<Utc>,
        snapshots: &mut Vec<Snapshot>,
    ) -> anyhow::Result<Option<(&'static str, Value)>> {
        if edition.status.takes_changes() {
            // It is filled before it is handed in, and still stands where it stood.
            edition.turn(edition.status.clone());
            snapshots.push(self.core.edition(edition)?);
        }
        // Of one time, a snapshot would count more than the event that follows it.
        edition.at = now.max(edition.at + TimeDelta::milliseconds(1));
        let (id, time) = (edition.id.clone(), timestamp(edition.at));
        let project = self.core.project(edition);
        Ok(match edition.status {
            EditionStatus::Submitted => {
                edition.turn(EditionStatus::InReview);
                snapshots.push(self.core.edition(edition)?);
                None
            }
            EditionStatus::InReview if self.luck.below(4) == 0 => {
                edition.turn(EditionStatus::ChangesRequested);
                let comments = self.luck.below(9) + 1;
                let data = json!({
                    "edition_id": id, "comment_count": comments, "timestamp": time,
                });
                Some(("edition.changes_requested", data))
            }
            EditionStatus::InReview => {
                edition.turn(EditionStatus::Approved);
                snapshots.append(&mut self.core.outputs(edition)?);
                let by = self.core.plan.member(&self.luck);
                let data = json!({ "edition_id": id, "approved_by": by, "timestamp": time });
                Some(("edition.approved", data))
            }
            EditionStatus::Approved if edition.made < OUTPUTS => {
                let output = edition.output(edition.made);
                let format = &project.blueprint["outputs"][edition.made]["format"];
                edition.made += 1;
                edition.turn(EditionStatus::Approved);
                snapshots.append(&mut self.core.outputs(edition)?);
                let data = json!({
                    "edition_id": id, "output_id": output, "format": format,
                    "download_url": format!("https://reports.example/outputs/{output}"),
                });
                Some(("output.generated", data))
            }
            EditionStatus::Approved => {
                edition.turn(EditionStatus::Closed);
                snapshots.push(self.core.edition(edition)?);
                None
            }
            _ => {
                edition.turn(EditionStatus::Submitted);
                let data = json!({
                    "edition_id": id, "blueprint_id": project.blueprint["id"],
                    "project_id": project.id, "timestamp": time,
                });
                Some(("edition.submitted", data))
            }
        })
    }

    /// An edition is closed: the next one of its lot begins, and the oldest is put away.
    fn close(
        &mut self,
        edition: Edition,
        now: DateTime<Utc>,
        snapshots: &mut Vec<Snapshot>,
    ) -> anyhow::Result<()> {
        let next = edition.after(&self.open, now);
        snapshots.push(self.core.edition(&next)?);
        snapshots.append(&mut self.core.outputs(&next)?);
        self.open.push(next);
        self.closed.push_back(edition);
        if self.closed.len() > KEPT
            && let Some(oldest) = self.closed.pop_front()
        {
            snapshots.push(self.core.put_away(&oldest)?);
        }
        Ok(())
    }

    /// An event as a CloudEvents envelope.
    fn tell(&mut self, edition: &Edition, kind: &str, data: &Value) -> Vec<u8> {
        self.told += 1;
        let envelope = json!({
            "specversion": "1.0",
            "id": self.told.to_string(),
            "source": format!("/report-forge/{}", self.core.workspace),
            "workspaceid": self.core.workspace,
            "type": kind,
            "time": timestamp(edition.at),
            "subject": edition.id,
            "projectid": self.core.project(edition).id,
            "data": data,
        });
        envelope.to_string().into_bytes()
    }
}

#[cfg(test)]
mod tests;
