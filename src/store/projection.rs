//! What webhook events change in the read model (product.md §3): the pure part, the same in both
//! databases.
//!
//! Each edition remembers the latest event that told its status, each output the latest that said it
//! was generated, beside what its newest snapshot states; which of the two counts is read off both.
//! So what is kept is the greatest of what came, by version and by time, and the order in which it
//! came is of no matter.

use std::borrow::Cow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::Deserialize;

use crate::domain::edition::EditionStatus;
use crate::domain::event::Event;
use crate::domain::ids::{EditionId, OutputId, ProjectId, WorkspaceId};
use crate::domain::payload::Payload;

/// The event that says that an output was made.
const OUTPUT_GENERATED: &str = "output.generated";

/// Which event of an entity told it last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told<'a> {
    /// When it happened.
    pub(super) at: DateTime<Utc>,
    /// The event's own id (not ours, which says in what order they came).
    pub(super) by: &'a str,
    /// What it told, where there are several things to tell.
    pub(super) status: Option<EditionStatus>,
}

impl Told<'_> {
    /// The later one counts; of one time, that of the greater id; and the word decides between two
    /// sources that use one id.
    fn order(&self) -> (DateTime<Utc>, &str, Option<&str>) {
        let word = self.status.as_ref().map(EditionStatus::as_str);
        (self.at, self.by, word)
    }
}

/// What a batch of events moves: of each entity by its latest event, in the order in which rows are
/// touched.
#[derive(Debug, Default)]
pub(super) struct Moves<'a> {
    /// Editions whose status is told.
    pub(super) editions: BTreeMap<(&'a WorkspaceId, EditionId), Told<'a>>,
    /// Outputs that were generated.
    pub(super) outputs: BTreeMap<(&'a WorkspaceId, OutputId), Told<'a>>,
}

impl<'a> Moves<'a> {
    /// What these events move.
    pub(super) fn of(events: impl Iterator<Item = &'a Payload>) -> Self {
        let mut moves = Self::default();
        for payload in events {
            let event = payload.event();
            let told = |status| Told {
                at: event.occurred_at,
                by: &event.external_id,
                status,
            };
            let event_type = event.event_type.as_str();
            if let Some(status) = EditionStatus::told_by(event_type) {
                let edition = event.edition.clone();
                moves
                    .editions
                    .tell(&event.workspace, edition, told(Some(status)));
            } else if event_type == OUTPUT_GENERATED {
                moves
                    .outputs
                    .tell(&event.workspace, output_of(payload), told(None));
            }
        }
        moves
    }

    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.editions.is_empty() && self.outputs.is_empty()
    }
}

trait Tell<'a, Id> {
    fn tell(&mut self, workspace: &'a WorkspaceId, id: Option<Id>, told: Told<'a>);
}

impl<'a, Id: Ord> Tell<'a, Id> for BTreeMap<(&'a WorkspaceId, Id), Told<'a>> {
    /// Keeps the later one. What has no id that can be used moves nothing.
    fn tell(&mut self, workspace: &'a WorkspaceId, id: Option<Id>, told: Told<'a>) {
        let Some(id) = id else { return };
        match self.entry((workspace, id)) {
            Entry::Vacant(first) => {
                first.insert(told);
            }
            Entry::Occupied(mut best) if told.order() > best.get().order() => {
                best.insert(told);
            }
            Entry::Occupied(_) => {}
        }
    }
}

/// The output that an event is about; `None` if what it says there is no id.
fn output_of(payload: &Payload) -> Option<OutputId> {
    #[derive(Deserialize)]
    struct Data<'a> {
        #[serde(borrow)]
        output_id: Cow<'a, str>,
    }
    let data: Data<'_> = serde_json::from_str(payload.data()).ok()?;
    OutputId::new(&data.output_id).ok()
}

/// An edition, and the workspace that knows it.
pub(super) type EditionOf = (WorkspaceId, EditionId);

/// The editions of events that say no project, in the order of their keys: an event that says none is
/// of its edition's project, where that is known (product.md §3).
pub(super) fn unattributed(events: &[Arc<Payload>]) -> Vec<EditionOf> {
    let editions: BTreeSet<EditionOf> = events.iter().filter_map(|payload| asks(payload)).collect();
    editions.into_iter().collect()
}

fn asks(payload: &Payload) -> Option<EditionOf> {
    let event: &Event = payload.event();
    match (&event.project, &event.edition) {
        (None, Some(edition)) => Some((event.workspace.clone(), edition.clone())),
        _ => None,
    }
}

/// The same events, those that say no project with their edition's.
pub(super) fn attributed(
    events: &[Arc<Payload>],
    known: &HashMap<EditionOf, ProjectId>,
) -> Vec<Arc<Payload>> {
    let attribute = |payload: &Arc<Payload>| {
        let project = asks(payload).and_then(|edition| known.get(&edition));
        match project {
            Some(project) => Arc::new(payload.of_project(project)),
            None => Arc::clone(payload),
        }
    };
    events.iter().map(attribute).collect()
}
