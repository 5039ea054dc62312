//! What the demo's core knows and tells of it: a workspace, its projects with a blueprint each, and
//! editions with what they hold and their outputs.

use chrono::{DateTime, Days, Utc};
use serde_json::{Value, json};

use super::plan::{Filled, Luck, Plan, Project};
use crate::domain::edition::EditionStatus;
use crate::domain::ids::WorkspaceId;
use crate::domain::payload::timestamp;
use crate::domain::snapshot::{Snapshot, SnapshotError};

/// How many outputs each blueprint offers.
pub(super) const OUTPUTS: usize = 3;

/// The two quarters of each lot at the start: where their editions stand, and how many outputs they
/// have; the one that is closed without all of them has one that failed.
const STANDING: [[(EditionStatus, usize); 6]; 2] = [
    [
        (EditionStatus::Closed, OUTPUTS),
        (EditionStatus::Closed, OUTPUTS),
        (EditionStatus::Closed, OUTPUTS),
        (EditionStatus::Closed, 2),
        (EditionStatus::Approved, OUTPUTS),
        (EditionStatus::Approved, 1),
    ],
    [
        (EditionStatus::Draft, 0),
        (EditionStatus::Submitted, 0),
        (EditionStatus::InReview, 0),
        (EditionStatus::ChangesRequested, 0),
        (EditionStatus::Draft, 0),
        (EditionStatus::Approved, 0),
    ],
];

/// An edition as the core knows it.
pub(super) struct Edition {
    pub(super) id: String,
    /// Its place among the projects, and among the project's lots.
    lot: (usize, usize),
    /// Quarters since the first.
    quarter: usize,
    pub(super) version: i64,
    pub(super) status: EditionStatus,
    /// How many of its outputs are made.
    pub(super) made: usize,
    /// When it last moved.
    pub(super) at: DateTime<Utc>,
    created_at: DateTime<Utc>,
}

impl Edition {
    fn begin(lot: (usize, usize), quarter: usize, now: DateTime<Utc>) -> Self {
        Self {
            id: format!("ed_{}_{}_{quarter}", lot.0 + 1, lot.1 + 1),
            lot,
            quarter,
            version: 1,
            status: EditionStatus::Draft,
            made: 0,
            at: now,
            created_at: now,
        }
    }

    /// The one after all of these of its lot.
    pub(super) fn after(&self, others: &[Self], now: DateTime<Utc>) -> Self {
        let of_lot = others.iter().filter(|other| other.lot == self.lot);
        let last = of_lot.map(|other| other.quarter).max();
        Self::begin(self.lot, last.unwrap_or(self.quarter) + 1, now)
    }

    /// It stands elsewhere now.
    pub(super) fn turn(&mut self, status: EditionStatus) {
        self.status = status;
        self.version += 1;
    }

    /// The first month of its quarter.
    fn month(&self) -> String {
        let (year, quarter) = (2026 + self.quarter / 4, self.quarter % 4);
        format!("{year}-{:02}", quarter * 3 + 1)
    }

    fn period(&self) -> String {
        format!("{}-Q{}", 2026 + self.quarter / 4, self.quarter % 4 + 1)
    }

    /// The same edition has the same luck, whenever it is asked for.
    fn luck(&self) -> Luck {
        let lot = self.lot.0 * 10 + self.lot.1;
        Luck::seeded((self.quarter * 100 + lot) as u64)
    }

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

    /// The editions that there are at the start.
    pub(super) fn editions(&self, now: DateTime<Utc>) -> Vec<Edition> {
        let projects = self.plan.projects.iter().enumerate();
        let lots: Vec<_> = projects
            .flat_map(|(project, plan)| (0..plan.lots.len()).map(move |lot| (project, lot)))
            .collect();
        let mut editions = Vec::new();
        for (quarter, standing) in STANDING.into_iter().enumerate() {
            // Those of the older quarter lie a quarter further back.
            let age = |days: u64| now - Days::new(days + 90 * (1 - quarter as u64));
            for (lot, (status, made)) in lots.iter().zip(standing) {
                let mut edition = Edition::begin(*lot, quarter, age(60));
                if status != EditionStatus::Draft {
                    edition.turn(status);
                }
                (edition.made, edition.at) = (made, age(7));
                editions.push(edition);
            }
        }
        editions
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

    /// An edition with all that it holds.
    pub(super) fn edition(&self, edition: &Edition) -> anyhow::Result<Snapshot> {
        let (project, luck) = (self.project(edition), edition.luck());
        let lot = &project.lots[edition.lot.1];
        // The first version is half filled; who hands it in fills it first.
        let filled = match edition.version {
            1 => Filled::Half,
            _ => Filled::Whole,
        };
        let assignee = self.plan.member(&luck);
        let sections = self
            .plan
            .sections(project, filled, &edition.month(), &luck)?;
        let data = json!({
            "id": edition.id, "version": edition.version, "project_id": project.id,
            "blueprint_id": project.blueprint["id"],
            "name": format!("{lot}, {}", edition.period()),
            "status": edition.status.as_str(), "status_changed_at": timestamp(edition.at),
            "period": edition.period(), "assignee": assignee,
            "created_at": timestamp(edition.created_at), "sections": sections,
        });
        Ok(self.tell("edition.snapshot", edition.at, &data)?)
    }

    /// The outputs of an edition, as far as they are.
    pub(super) fn outputs(&self, edition: &Edition) -> Result<Vec<Snapshot>, SnapshotError> {
        let project = self.project(edition);
        let luck = edition.luck();
        (0..OUTPUTS)
            .map(|number| {
                let offer = &project.blueprint["outputs"][number];
                let status = edition.progress(number);
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
            })
            .collect()
    }

    /// An edition is put away, with its outputs.
    pub(super) fn put_away(&self, edition: &Edition) -> Result<Snapshot, SnapshotError> {
        let data = json!({ "id": edition.id, "version": edition.version + 1 });
        self.tell("edition.deleted", edition.at, &data)
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
