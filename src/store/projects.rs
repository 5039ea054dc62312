//! Which projects are known: those that the core told of, and those that an event or an edition is
//! of.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::{Page, PageRequest, Result};
use crate::domain::event::Event;
use crate::domain::ids::{ProjectId, WorkspaceId};
use crate::domain::reach::Reach;

/// A project as clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectRecord {
    /// The core's id.
    pub id: ProjectId,
    /// Its name, where the core has told it.
    pub name: Option<String>,
    /// What it is about, where the core has told that.
    pub description: Option<String>,
    /// When it was first heard of.
    pub first_seen_at: DateTime<Utc>,
}

/// The projects of a workspace, without those that the core deleted. A restricted reach has its own
/// ones only.
#[async_trait]
pub trait Projects: Send + Sync {
    /// All that are known, in the order of their ids.
    async fn projects(
        &self,
        reach: &Reach,
        page: PageRequest<ProjectId>,
    ) -> Result<Page<ProjectRecord, ProjectId>>;

    /// One project; `None` if none of that id is known in reach.
    async fn project(&self, reach: &Reach, id: &ProjectId) -> Result<Option<ProjectRecord>>;
}

/// How many projects a process remembers before it begins anew.
const MOST_REMEMBERED: usize = 10_000;

/// The projects that this process knows to be in the database, so that an accept need not say them
/// again. One that it does not know may be there all the same.
#[derive(Debug, Default)]
pub(super) struct KnownProjects(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    by_workspace: HashMap<WorkspaceId, HashSet<ProjectId>>,
    count: usize,
}

/// Projects that an accept writes, in the order of their keys, which all writers keep.
pub(super) type NewProjects = BTreeSet<(WorkspaceId, ProjectId)>;

impl KnownProjects {
    /// The projects of these events that are not remembered.
    pub(super) fn unknown<'a>(&self, events: impl Iterator<Item = &'a Event>) -> NewProjects {
        let remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut unknown = NewProjects::new();
        let mut last = None;
        for event in events {
            let Some(project) = &event.project else {
                continue;
            };
            // Events of one project come in rows; to compare is cheaper than to look up.
            let this = Some((&event.workspace, project));
            if this != last && !remembered.has(&event.workspace, project) {
                unknown.insert((event.workspace.clone(), project.clone()));
            }
            last = this;
        }
        unknown
    }

    /// Remembers projects that **were committed**.
    pub(super) fn remember(&self, committed: NewProjects) {
        if committed.is_empty() {
            return;
        }
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (workspace, project) in committed {
            if remembered.count >= MOST_REMEMBERED {
                *remembered = Remembered::default();
            }
            let projects = remembered.by_workspace.entry(workspace).or_default();
            if projects.insert(project) {
                remembered.count += 1;
            }
        }
    }
}

impl Remembered {
    fn has(&self, workspace: &WorkspaceId, project: &ProjectId) -> bool {
        self.by_workspace
            .get(workspace)
            .is_some_and(|projects| projects.contains(project))
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::domain::ids::new_id;

    fn event(workspace: &str, project: &str) -> Event {
        let now = DateTime::UNIX_EPOCH;
        let text = format!(
            r#"{{"specversion":"1.0","id":"1","source":"s","type":"x.y",
                "workspaceid":"{workspace}"{project}}}"#
        );
        Event::decode(text.as_bytes(), new_id(now, [1; 10]), now).unwrap()
    }

    #[test]
    fn what_was_committed_is_unknown_no_longer() {
        let known = KnownProjects::default();
        let events = [
            event("b", r#","projectid":"1""#),
            event("a", r#","projectid":"2""#),
            event("a", r#","projectid":"1""#),
            event("a", r#","projectid":"2""#),
            event("a", ""),
        ];
        let unknown = known.unknown(events.iter());
        let told: Vec<_> = unknown
            .iter()
            .map(|(workspace, project)| (workspace.as_str(), project.as_str()))
            .collect();
        assert_eq!(told, [("a", "1"), ("a", "2"), ("b", "1")]);
        assert_eq!(
            known.unknown(events.iter()),
            unknown,
            "asking is not committing"
        );
        known.remember(known.unknown(events[..2].iter()));
        assert_eq!(known.unknown(events.iter()).len(), 1);
        known.remember(unknown);
        assert!(known.unknown(events.iter()).is_empty());
    }

    #[test]
    fn a_process_remembers_so_many_and_then_begins_anew() {
        let known = KnownProjects::default();
        for number in 0..=MOST_REMEMBERED {
            let project = ProjectId::new(&number.to_string()).unwrap();
            known.remember(NewProjects::from([(WorkspaceId::default(), project)]));
        }
        let remembered = known.0.lock().unwrap();
        assert_eq!(remembered.count, 1);
        assert_eq!(remembered.by_workspace.len(), 1);
    }
}
