//! What the demo's core knows and tells of it: a workspace, its projects with a blueprint each, and
//! editions with what they hold and their outputs.

use chrono::{DateTime, Datelike, Days, Months, NaiveDate, TimeDelta, Utc};
use serde_json::{Value, json};

use super::plan::{Luck, Plan, Project};
use crate::domain::edition::EditionStatus;
use crate::domain::ids::WorkspaceId;
use crate::domain::payload::timestamp;
use crate::domain::snapshot::{Snapshot, SnapshotError};

/// How many outputs each blueprint offers.
pub(super) const OUTPUTS: usize = 3;

/// Where the editions of this quarter stand at the start, by their lot.
const STANDING: [EditionStatus; 6] = [
    EditionStatus::Draft,
    EditionStatus::Submitted,
    EditionStatus::InReview,
    EditionStatus::ChangesRequested,
    EditionStatus::Approved,
    EditionStatus::Draft,
];

/// An edition as the core knows it.
pub(super) struct Edition {
    pub(super) id: String,
    /// Its place among the projects, and among the project's lots.
    lot: (usize, usize),
    /// The first day of its quarter.
    quarter: NaiveDate,
    /// Raised by all that happens to it.
    version: i64,
    pub(super) status: EditionStatus,
    /// It is closed and stays so: of its outputs, the core makes what only the core can make.
    rests: bool,
    /// How many of its outputs are made by the core.
    pub(super) made: usize,
    /// How often it was filled in; each time its figures are others.
    pub(super) filled: u64,
    /// When it last moved.
    pub(super) at: DateTime<Utc>,
}

impl Edition {
    /// It stands elsewhere now, later than before: of one time, two steps would have no order.
    pub(super) fn turn(&mut self, status: EditionStatus, now: DateTime<Utc>) {
        self.status = status;
        self.version += 1;
        self.at = now.max(self.at + TimeDelta::milliseconds(1));
    }

    fn period(&self) -> String {
        format!("{}-Q{}", self.quarter.year(), self.quarter.quarter())
    }

    /// The id of one of its outputs.
    pub(super) fn output(&self, number: usize) -> String {
        format!("out{}_{}", &self.id[2..], number + 1)
    }

    /// Where one of its outputs stands.
    fn progress(&self, number: usize) -> &'static str {
        match self.status {
            _ if number < self.made => "generated",
            EditionStatus::Closed => "failed",
            EditionStatus::Approved if number == self.made => "generating",
            EditionStatus::Approved => "queued",
            _ => "not_generated",
        }
    }
}

/// The core of one workspace.
pub(super) struct Core {
    pub(super) plan: Plan,
    pub(super) workspace: WorkspaceId,
}

impl Core {
    pub(super) fn new(workspace: WorkspaceId) -> serde_json::Result<Self> {
        let plan = Plan::load()?;
        Ok(Self { plan, workspace })
    }

    /// The editions of the last quarter, all closed, and those of this one.
    pub(super) fn editions(&self, now: DateTime<Utc>) -> (Vec<Edition>, Vec<Edition>) {
        let today = now.date_naive();
        let this = today - Months::new(today.month0() % 3) - Days::new(today.day0().into());
        let last = this - Months::new(3);
        let projects = self.plan.projects.iter().enumerate();
        let lots: Vec<_> = projects
            .flat_map(|(project, plan)| (0..plan.lots.len()).map(move |lot| (project, lot)))
            .collect();
        let edition = |lot: (usize, usize), quarter: NaiveDate, status, made| Edition {
            id: format!(
                "ed{}_{}_q{}",
                &self.plan.projects[lot.0].id[2..],
                lot.1 + 1,
                quarter.quarter()
            ),
            lot,
            quarter,
            version: 1,
            status,
            rests: quarter == last,
            made,
            filled: 1,
            at: now - Days::new(if quarter == this { 1 } else { 30 }),
        };
        let closed = lots.iter().enumerate().map(|(number, lot)| {
            // The first has a report that failed.
            let made = usize::from(number > 0);
            edition(*lot, last, EditionStatus::Closed, made)
        });
        let open = lots.iter().zip(STANDING).map(|(lot, status)| {
            let made = usize::from(status == EditionStatus::Approved);
            edition(*lot, this, status, made)
        });
        (closed.collect(), open.collect())
    }

    pub(super) fn project(&self, edition: &Edition) -> &Project {
        &self.plan.projects[edition.lot.0]
    }

    /// The workspace, its projects and their blueprints.
    pub(super) fn grounds(&self, now: DateTime<Utc>) -> Result<Vec<Snapshot>, SnapshotError> {
        let mut workspace = self.plan.workspace.clone();
        workspace["version"] = json!(1);
        let mut told = vec![self.tell("workspace.snapshot", now, &workspace)?];
        for project in &self.plan.projects {
            let data = json!({
                "id": project.id, "version": 1, "name": project.name,
                "description": project.description,
            });
            told.push(self.tell("project.snapshot", now, &data)?);
            let mut blueprint = project.blueprint.clone();
            blueprint["version"] = json!(1);
            blueprint["project_id"] = json!(project.id);
            told.push(self.tell("blueprint.snapshot", now, &blueprint)?);
        }
        Ok(told)
    }

    /// An edition with all that it holds, and its outputs.
    pub(super) fn edition(&self, edition: &Edition) -> anyhow::Result<Vec<Snapshot>> {
        let project = self.project(edition);
        let lot = &project.lots[edition.lot.1];
        let number = (edition.lot.0 * 100 + edition.lot.1 * 10) as u64
            + u64::from(edition.quarter.quarter());
        let figures = Luck::seeded(number + edition.filled * 1_000);
        let month = edition.quarter.format("%Y-%m").to_string();
        let created = edition.quarter.and_hms_opt(9, 0, 0).map(|at| at.and_utc());
        let data = json!({
            "id": edition.id, "version": edition.version, "project_id": project.id,
            "blueprint_id": project.blueprint["id"],
            "name": format!("{lot}, {}", edition.period()),
            "status": edition.status.as_str(), "status_changed_at": timestamp(edition.at),
            "period": edition.period(), "assignee": self.plan.member(&Luck::seeded(number)),
            "created_at": created.map(timestamp),
            "sections": self.plan.sections(project, &month, &figures)?,
        });
        let mut told = vec![self.tell("edition.snapshot", edition.at, &data)?];
        for number in 0..OUTPUTS {
            told.push(self.output(edition, number, &figures)?);
        }
        Ok(told)
    }

    /// One of an edition's outputs.
    fn output(
        &self,
        edition: &Edition,
        number: usize,
        luck: &Luck,
    ) -> Result<Snapshot, SnapshotError> {
        let project = self.project(edition);
        let offer = &project.blueprint["outputs"][number];
        let is_for_us = matches!(offer["format"].as_str(), Some("csv" | "xlsx"));
        let status = if edition.rests && is_for_us {
            "not_generated"
        } else {
            edition.progress(number)
        };
        let file = json!({
            "size": 20_000 + luck.below(400_000),
            "sha256": format!("{:016x}", luck.below(u64::MAX)).repeat(4),
            "generated_at": timestamp(edition.at),
        });
        let data = json!({
            "id": edition.output(number), "version": edition.version,
            "edition_id": edition.id, "project_id": project.id,
            "name": offer["name"], "format": offer["format"], "status": status,
            "file": (status == "generated").then_some(file),
            "failure": (status == "failed").then_some("the template has no page for it"),
        });
        self.tell("output.snapshot", edition.at, &data)
    }

    /// A message of the core's, read as one that came over the broker.
    fn tell(&self, kind: &str, at: DateTime<Utc>, data: &Value) -> Result<Snapshot, SnapshotError> {
        let message = json!({
            "specversion": "1.0",
            "id": format!("{kind}/{}/{}", data["id"], data["version"]),
            "source": "/report-forge",
            "workspaceid": self.workspace,
            "type": kind,
            "time": timestamp(at),
            "data": data,
        });
        Snapshot::decode(message.to_string().as_bytes(), at)
    }
}
