//! What happens in the demo's workspace: editions of a few reports walk from `submitted` to a
//! generated output, some of them back for changes first.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::domain::ids::WorkspaceId;
use crate::domain::payload::timestamp;
use crate::entropy::Entropy;

/// The demo's projects; one subscription wants the first of them only.
pub(super) const PROJECTS: [&str; 3] = ["pr_harbour", "pr_airport", "pr_hospital"];
const REPORTS: [&str; 4] = ["progress", "safety", "cost", "quality"];
const FORMATS: [&str; 4] = ["pdf", "xlsx", "docx", "csv"];
const PEOPLE: [(&str, &str); 4] = [
    ("usr_1", "Amara Okafor"),
    ("usr_2", "Jonas Weber"),
    ("usr_3", "Léa Martin"),
    ("usr_4", "Noor Haddad"),
];

/// Where an edition stands in its walk.
#[derive(Clone, Copy)]
enum Stage {
    Submitted,
    ChangesRequested,
    Approved,
    Generated,
}

struct Edition {
    id: String,
    project: &'static str,
    report: &'static str,
    stage: Stage,
}

/// A stream of believable events.
pub(super) struct Story {
    workspace: WorkspaceId,
    entropy: Entropy,
    editions: Vec<Edition>,
    told: u64,
    begun: u64,
}

impl Story {
    pub(super) fn new(workspace: WorkspaceId, entropy: Entropy) -> Self {
        Self {
            workspace,
            entropy,
            editions: Vec::new(),
            told: 0,
            begun: 0,
        }
    }

    /// The next event as a CloudEvents envelope.
    pub(super) fn next(&mut self, now: DateTime<Utc>) -> Vec<u8> {
        // A few editions are under way at once; a new one begins when there is room.
        if self.editions.len() < 6 {
            self.begin();
        }
        let index = self.pick(self.editions.len());
        let (kind, data) = self.step(index, now);
        let edition = &self.editions[index];
        self.told += 1;
        let envelope = json!({
            "specversion": "1.0",
            "id": self.told.to_string(),
            "source": format!("/report-forge/{}", self.workspace),
            "workspaceid": self.workspace,
            "type": kind,
            "time": timestamp(now),
            "subject": edition.id,
            "projectid": edition.project,
            "data": data,
        });
        if matches!(edition.stage, Stage::Generated) {
            self.editions.swap_remove(index);
        }
        envelope.to_string().into_bytes()
    }

    fn begin(&mut self) {
        self.begun += 1;
        let (project, report) = (self.pick(PROJECTS.len()), self.pick(REPORTS.len()));
        self.editions.push(Edition {
            id: format!("ed_{}_{:04}", REPORTS[report], self.begun),
            project: PROJECTS[project],
            report: REPORTS[report],
            stage: Stage::ChangesRequested,
        });
    }

    /// Moves an edition on and tells of it.
    fn step(&mut self, index: usize, now: DateTime<Utc>) -> (&'static str, Value) {
        let back = self.pick(4) == 0;
        let comments = self.pick(9) + 1;
        let (person, name) = PEOPLE[self.pick(PEOPLE.len())];
        let format = FORMATS[self.pick(FORMATS.len())];
        let edition = &mut self.editions[index];
        let (id, time) = (edition.id.clone(), timestamp(now));
        edition.stage = match edition.stage {
            Stage::Submitted if back => Stage::ChangesRequested,
            Stage::Submitted => Stage::Approved,
            Stage::ChangesRequested => Stage::Submitted,
            Stage::Approved | Stage::Generated => Stage::Generated,
        };
        match edition.stage {
            Stage::Submitted => (
                "edition.submitted",
                json!({
                    "edition_id": id, "blueprint_id": format!("bp_{}", edition.report),
                    "project_id": edition.project, "timestamp": time,
                }),
            ),
            Stage::ChangesRequested => (
                "edition.changes_requested",
                json!({ "edition_id": id, "comment_count": comments, "timestamp": time }),
            ),
            Stage::Approved => (
                "edition.approved",
                json!({
                    "edition_id": id, "approved_by": { "id": person, "name": name },
                    "timestamp": time,
                }),
            ),
            Stage::Generated => (
                "output.generated",
                json!({
                    "edition_id": id, "output_id": format!("out_{}", &id[3..]), "format": format,
                    "download_url": format!("https://reports.example/outputs/out_{}", &id[3..]),
                }),
            ),
        }
    }

    fn pick(&self, of: usize) -> usize {
        let number = u64::from_le_bytes(self.entropy.bytes());
        usize::try_from(number % (of.max(1) as u64)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::domain::event::Event;

    #[test]
    fn every_event_of_the_story_is_one_that_would_be_accepted() {
        let entropy = Entropy::seeded(3);
        let now = DateTime::from_timestamp_millis(1_777_000_000_000).unwrap();
        let mut story = Story::new(WorkspaceId::default(), entropy.clone());
        let mut types = HashSet::new();
        let mut ids = HashSet::new();
        for _ in 0..500 {
            let event = Event::decode(&story.next(now), entropy.id(now), now).unwrap();
            assert!(event.project.is_some() && event.edition.is_some());
            types.insert(event.event_type.to_string());
            assert!(ids.insert(event.external_id));
        }
        assert_eq!(types.len(), 4, "{types:?}");
    }
}
